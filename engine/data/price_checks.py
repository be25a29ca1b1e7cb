"""Prices that cannot be, or hardly: what contradicts the values beside it is not taken, what is only odd is listed.

A crash, a listing and a thin coin are real: nothing is set aside for being far from the hour before. Set aside is what
contradicts its own candle, its own record, or the hours on both sides by a factor that no market has shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from engine.clock import show
from engine.data.schema import LAST_EIGHT_HOURLY, SETTLEMENT_HOURS, Flags, Floats, Integers, Rows, instant_of
from engine.panel import QUOTES

#: By so much a close may lie outside its candle's high and low: sources round.
OUTSIDE = 1e-3
#: Mid, mark and oracle of one record differ by at most so many times: one that does from both others is wrong.
FAR = 10.0
#: So many times the price of the hour before and of the hour after is no price of a market.
SPIKE = 100.0
#: The exchange pays at most so much funding an hour.
FUNDING_CAP = 0.04
#: Two references agree when neither is more than so many times the other.
AGREE = 2.0
#: A move beyond so many robust standard deviations of the coin's hours is odd, if it is over a hole or comes back.
ODD = 12.0
#: The least robust standard deviation of an hour, as a log return: of a coin that hardly trades it would be 0.
LEAST_DEVIATION = 5e-3
#: Fields that fall with a candle's close, and with a record's mid.
_OF_CLOSE = ("mid", "high", "low", "volume_usd")
_OF_MID = ("mid", "bid", "ask", "impact_bid", "impact_ask")


@dataclass(frozen=True)
class ImpossiblePrice:
    """A price that was not taken.

    Attributes
    ----------
    coin : str
        The coin.
    time : Timestamp
        Its row.
    reason : str
        What it contradicts.
    """

    coin: str
    time: pd.Timestamp
    reason: str

    def __str__(self) -> str:
        """One line for a report."""
        return f"{self.coin} at {show(self.time)}: {self.reason}"


def set_aside(rows: Rows) -> tuple[Rows, tuple[ImpossiblePrice, ...]]:
    """The rows without their impossible prices, and those prices, by row.

    Parameters
    ----------
    rows : Rows
        Of one source, ascending in time within a coin. With ``high`` and ``low``, `mid` is a candle's close.
    """
    reasons: dict[int, str] = {}
    fields = dict(rows.fields)
    for bad, lost, describe in _contradictions(rows):
        for line in np.flatnonzero(bad):
            reasons.setdefault(int(line), describe(int(line)))
        for name in set(lost) & fields.keys():
            fields[name] = np.where(bad, np.nan, fields[name])
    named = tuple(
        ImpossiblePrice(rows.coins[rows.codes[line]], instant_of(rows.hours[line]), reasons[line])
        for line in sorted(reasons)
    )
    return (replace(rows, fields=fields) if named else rows), named


def _contradictions(rows: Rows) -> Iterator[tuple[Flags, tuple[str, ...], Callable[[int], str]]]:
    """Rows with a contradiction, the fields that fall with it, and a function from row to reason."""
    fields = rows.fields
    for bad, describe in candle_faults({"close" if name == "mid" else name: fields[name] for name in fields}):
        yield bad, _OF_CLOSE, describe
    for bid, ask in QUOTES:
        if bid in fields and ask in fields:
            yield fields[bid] > fields[ask], (bid, ask), partial(_crossed, bid, ask, fields)
    if "funding" in fields:
        cap = np.where(rows.hours <= LAST_EIGHT_HOURLY, SETTLEMENT_HOURS * FUNDING_CAP, FUNDING_CAP) * (1 + 1e-9)
        yield np.abs(fields["funding"]) > cap, ("funding",), partial(_beyond_cap, fields["funding"])
    references = [name for name in ("mid", "mark", "oracle") if name in fields]
    for name in references if len(references) > 1 else ():
        others = [fields[other] for other in references if other != name]
        bad = _far_from_all(fields[name], others, name == "mid")
        if bad.any():
            lost = _OF_MID if name == "mid" else (name,)
            beside = [other for other in references if other != name]
            yield bad, lost, partial(_beside, fields, name, beside)
    if "mid" in fields:
        times = _times_the_neighbours(rows)
        yield (
            np.maximum(times, 1 / times) > SPIKE,
            (*_OF_CLOSE, *_OF_MID),
            lambda line: f"{fields['mid'][line]:g} is {times[line]:g} times the prices before and after",
        )


def candle_faults(columns: Mapping[str, Floats]) -> Iterator[tuple[Flags, Callable[[int], str]]]:
    """Candles that contradict themselves, and a function from candle to reason, fault by fault.

    Parameters
    ----------
    columns : mapping of str to ndarray, each (R,)
        Of ``open``, ``high``, ``low`` and ``close`` what there is; others are not looked at. NaN contradicts nothing.
    """
    if "high" not in columns or "low" not in columns:
        return
    high, low = columns["high"], columns["low"]
    yield high < low, lambda line: f"high {high[line]:g} below low {low[line]:g}"
    for name, price in columns.items():
        if name not in ("open", "close"):
            continue
        outside = (price > high * (1 + OUTSIDE)) | (price < low * (1 - OUTSIDE))
        yield outside, partial(_outside, name, price, low, high)


def _beyond_cap(rate: Floats, line: int) -> str:
    return f"funding {rate[line]:g} beyond the exchange's cap of {FUNDING_CAP:g} an hour"


def _crossed(bid: str, ask: str, fields: Mapping[str, Floats], line: int) -> str:
    return f"{bid} {fields[bid][line]:g} above {ask} {fields[ask][line]:g}"


def _outside(name: str, price: Floats, low: Floats, high: Floats, line: int) -> str:
    return f"{name} {price[line]:g} outside low {low[line]:g} and high {high[line]:g}"


def _beside(fields: Mapping[str, Floats], name: str, beside: list[str], line: int) -> str:
    return (
        f"{name} {fields[name][line]:g} beside {' and '.join(f'{other} {fields[other][line]:g}' for other in beside)}"
    )


def _far_from_all(values: Floats, others: list[Floats], alone: bool) -> Flags:
    """Where a value is :data:`FAR` from all others that are there and agree; one other is enough if `alone`."""
    with np.errstate(invalid="ignore"):
        ratios = [np.abs(np.log(values / other)) for other in others]
        known = [~np.isnan(ratio) for ratio in ratios]
        far = np.all([~there | (ratio > np.log(FAR)) for ratio, there in zip(ratios, known, strict=True)], axis=0)
        enough = np.any(known, axis=0) if alone else np.all(known, axis=0) & (len(others) > 1)
        if len(others) > 1:
            spread = np.abs(np.log(others[0] / others[1]))
            enough &= np.isnan(spread) | (spread <= np.log(AGREE))
    return np.asarray(far & enough, dtype=np.bool_)


def _times_the_neighbours(rows: Rows) -> Floats:
    """A price over the nearer of the two beside it, (rows,); 1 where they do not agree or are not there."""
    mid, times = rows.fields["mid"], np.ones(len(rows.hours))
    seen = np.flatnonzero(~np.isnan(mid))
    before, here, after = seen[:-2], seen[1:-1], seen[2:]
    same = (rows.codes[before] == rows.codes[after]) & (rows.hours[after] - rows.hours[before] <= 24)
    agree = np.maximum(mid[before] / mid[after], mid[after] / mid[before]) <= AGREE
    ratio = np.sqrt((mid[here] / mid[before]) * (mid[here] / mid[after]))
    times[here] = np.where(same & agree, ratio, 1.0)
    return times


@dataclass(frozen=True)
class OddMove:
    """A move of a price that may be an error of the data.

    Attributes
    ----------
    column : int
        Number of the coin.
    before, row : int
        Rows between which it is.
    kind : str
        ``"jump"``, over a hole; ``"spike"``, back in the next hour.
    ratio : float
        Price after over price before; of a spike, of its first hour.
    """

    column: int
    before: int
    row: int
    kind: str
    ratio: float


def odd_moves(mid: Floats) -> list[OddMove]:
    """Moves beyond :data:`ODD` robust deviations over a hole, or followed by an opposite one, by coin and row.

    Parameters
    ----------
    mid : ndarray, shape (T, N)
        Prices, USD; NaN where there is none.

    Returns
    -------
    list of OddMove
        The deviation of an hour is 1.4826 times the median absolute deviation of the coin's hourly log returns other
        than 0, at least :data:`LEAST_DEVIATION`; that of a hole of h hours is sqrt(h) times it.
    """
    moves = []
    for column, prices in enumerate(np.ascontiguousarray(mid.T)):
        rows: Integers = np.flatnonzero(~np.isnan(prices))
        returns, hours = np.diff(np.log(prices[rows])), np.diff(rows)
        # Two medians take longer than all else: they are taken where the least deviation finds something.
        if not any(found.any() for found in _odd(returns, hours, LEAST_DEVIATION)):
            continue
        hourly = returns[(hours == 1) & (returns != 0)]
        if len(hourly) < 24:  # a day
            hourly = returns
        jumps, back = _odd(
            returns, hours, max(1.4826 * float(np.median(np.abs(hourly - np.median(hourly)))), LEAST_DEVIATION)
        )
        for at in np.flatnonzero(jumps):
            moves.append(OddMove(column, int(rows[at]), int(rows[at + 1]), "jump", float(np.exp(returns[at]))))
        for at in np.flatnonzero(back):
            moves.append(OddMove(column, int(rows[at]), int(rows[at + 2]), "spike", float(np.exp(returns[at]))))
    return sorted(moves, key=lambda move: (move.row, move.column))


def _odd(returns: Floats, hours: Integers, deviation: float) -> tuple[Flags, Flags]:
    """Which returns are beyond the deviations: over a hole (R,), and within two hours and back (R - 1,)."""
    odd: Flags = np.abs(returns) > ODD * deviation * np.sqrt(hours)
    beside = (hours[:-1] == 1) & (hours[1:] == 1)
    return odd & (hours > 1), odd[:-1] & odd[1:] & (returns[:-1] * returns[1:] < 0) & beside
