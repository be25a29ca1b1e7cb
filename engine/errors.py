"""Every error that a user can cause, as one tree.

::

    HlbtError
    ├── ConfigError     a configuration key or value that is not accepted
    ├── DataError       a file, a cache or a panel that cannot be used
    ├── LiveError       an account or an exchange that cannot be used
    │   ├── LimitError          a limit, or the kill switch, stops a run before any order
    │   │   └── PositionsError      the account holds other positions than the journal adds up to
    │   ├── IncompleteError     orders were sent and the book is not at its target
    │   ├── DemotedError        only what reduces was ordered, for the strategy is demoted
    │   ├── SpecError           a strategy spec that is damaged, edited or out of date
    │   └── UnreachableError    the exchange does not answer, or not in its own format
    ├── OracleError     an oracle that cannot be imported, built or called
    ├── PromotionError  a run that a gate refuses, or that has changed since it was validated
    └── WeightsError    portfolio weights that break the contract
        └── InitialMarginError  weights that need more initial margin than the account has

A message is one paragraph: what is wrong, where (coin, UTC hour, file), the value, the cure. The command line prints
it and exits with ``exit_code``; any other exception is a bug of hlbt.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

#: What ccxt, freqtrade and exchanges write behind the name of a coin.
_QUOTED = re.compile(r"([/_-]?(usdc|usdt|usd)(:usd[ct]?)?)?([_-]?(perp|swap|futures))?$")


class HlbtError(Exception):
    """Base of every error that is caused by the user's input or files."""

    exit_code = 1


class ConfigError(HlbtError):
    """A configuration key or value is not accepted."""


class DataError(HlbtError):
    """A file, a cache or a panel cannot be used."""


class LiveError(HlbtError):
    """An account, its credentials or an exchange cannot be used."""


class LimitError(LiveError):
    """A limit of the spec, or the kill switch, stops a run before any order."""

    exit_code = 3


class PositionsError(LimitError):
    """The account's positions are not those that the journal adds up to; no order was sent."""


class IncompleteError(LiveError):
    """Orders were sent and the book is not at its target; the message and the journal say what is missing.

    Attributes
    ----------
    outcome : engine.live.orders.Outcome or None
        What was done.
    """

    exit_code = 4
    outcome: object = None


class DemotedError(LiveError):
    """A demoted strategy came as far to its target as reductions alone go; nothing that adds risk was ordered."""

    exit_code = 8


class SpecError(LiveError):
    """A strategy spec is damaged, was edited by hand, or its oracle's code has changed since."""

    exit_code = 5


class UnreachableError(LiveError):
    """The exchange does not answer, or not in its own format."""

    exit_code = 6


class OracleError(HlbtError):
    """An oracle cannot be imported, built or called."""


class InfeasibleError(OracleError):
    """No book is within the limits that an optimising oracle was given."""


class PromotionError(HlbtError):
    """A gate refuses a run, or the run has changed since it was validated."""

    exit_code = 7


class WeightsError(HlbtError):
    """Portfolio weights break the contract: wrong shape, not finite, an unknown coin, or too much gross."""


class InitialMarginError(WeightsError):
    """Portfolio weights need more initial margin than the account has; a larger or smaller account may have it."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggest the known name nearest to `name`.

    Returns
    -------
    str
        ``" Did you mean 'taker_bps'?"``, or an empty string when no name is similar. Names of other programs are
        taken for the coin before their quote currency: ``BTC/USDC:USDC``, ``BTC-PERP`` and ``BTCUSDT`` are BTC.
    """
    folded = {candidate.lower(): candidate for candidate in known}
    wanted = name.lower()
    coin = _QUOTED.sub("", wanted)
    if coin in folded:
        return f" Did you mean {folded[coin]!r}?"
    similar = difflib.get_close_matches(wanted, folded, n=5, cutoff=0.6)
    return f" Did you mean {folded[min(similar, key=lambda other: _edits(wanted, other))]!r}?" if similar else ""


def _edits(a: str, b: str) -> int:
    """Edit distance: letters put in, left out, replaced, or swapped with their neighbour (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        earlier, before, row = before, row, [i]
        for j, other in enumerate(b, 1):
            least = min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and other == a[i - 2]:
                least = min(least, earlier[j - 2] + 1)
            row.append(least)
    return row[-1]


def reason_of(error: Exception) -> str:
    """Why a file could not be read, in a few words without a full stop."""
    if isinstance(error, FileNotFoundError):
        return f"{error.filename or str(error).splitlines()[0]} is missing"
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def truncate(value: object) -> str:
    """A value in at most 160 characters and one line."""
    text = " ".join(str(value).split())
    return text if len(text) <= 160 else text[:160] + "..."


def join_first(names: Iterable[object], limit: int = 5) -> str:
    """List at most `limit` names, then how many more there are."""
    listed = [str(name) for name in names]
    rest = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + rest
