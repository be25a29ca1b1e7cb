"""Leverage of coins before their first trade: compared with what is known of it, set only where it differs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from engine.live.dex import DEX
from engine.live.journal import Journal
from engine.live.orders import AccountState, Market
from engine.live.refusals import Refusal, classify

#: Coins that are looked up at most: a look-up weighs 20 of the exchange's 1,200 a minute, to set a leverage weighs 1.
_LOOKED_UP: Final = 40


def leverage_to_set(
    dex: DEX, journal: Journal, state: AccountState, markets: Iterable[Market], leverage: int
) -> list[tuple[Market, int]]:
    """The coins whose leverage is not, or not known to be, as wanted, with what it should be.

    Parameters
    ----------
    dex : DEX
        Looked up for coins that are not held and that the journal has nothing of, if they are few.
    journal : Journal
        What was set before.
    state : AccountState
        Leverage of the positions.
    markets : iterable of Market
        Of coins to be traded.
    leverage : int
        Wanted, as far as a coin allows.
    """
    known: dict[str, int] = {**journal.state.leverage, **state.leverage}
    wanted = {
        market: max(1, min(leverage, int(market.max_leverage or leverage)))
        for market in markets
        if market.coin in state.leverage or market.coin not in state.units
    }
    unknown = [market for market in wanted if market.coin not in known]
    if len(unknown) <= _LOOKED_UP:
        known |= dex.leverages(unknown)
    return [(market, value) for market, value in wanted.items() if known.get(market.coin) != value]


def duration_text(dex: DEX, count: int) -> str:
    """How long it takes to set the leverage of so many coins; ``""`` where it takes no time."""
    seconds = dex.leverage_seconds(count)
    return f"the leverage of {count} coins is set first: about {max(1.0, seconds):.0f} s" if seconds > 0.0 else ""


def set_leverages(
    dex: DEX,
    journal: Journal,
    state: AccountState,
    wanted: list[tuple[Market, int]],
    announce: Callable[[str], object],
) -> Mapping[str, str]:
    """Set leverages, and journal them; returns refusals by coin, but for coins that are held.

    A position keeps the leverage that it has where the exchange refuses another one. `announce` is told before how
    long it takes.
    """
    done: dict[str, int] = {}
    refused: dict[str, str] = {}
    refusals: dict[str, str] = {}
    if text := duration_text(dex, len(wanted)):
        announce(text)
    for (market, leverage), refusal in zip(wanted, dex.set_leverages(wanted), strict=True):
        coin = market.coin
        if not refusal:
            done[coin] = leverage
            continue
        refused[coin] = refusal
        if coin not in state.units or Refusal.FATAL in classify(refusal):
            refusals[coin] = f"leverage {leverage}: {refusal}"
    if wanted:  # one entry: to write 120 to the disk takes longer than to set them
        journal.append("leverages_set", state.time, leverages=done, refused=refused)
    return refusals
