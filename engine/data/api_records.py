"""HyperLiquid's ``candleSnapshot`` and ``fundingHistory`` responses as rows of the cache, and their request weight.

A candle that opens at 22:00 is row 23:00: `mid` is its close, `high` and `low` are its extremes, `volume_usd` is its
volume (in the coin) times its close. A funding rate is stamped some milliseconds, seldom minutes, after the hour that
it settles, and belongs to that hour. Until June 2023 funding was paid every 8 hours, so missing hours are not an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.clock import show
from engine.data.schema import HOUR_MS, Flags, Floats, Integers, instant_of, to_table
from engine.errors import join_first

Parsed = tuple[int, tuple[float, ...]]


@dataclass(frozen=True, eq=False)
class Page:
    """The usable part of one response.

    Attributes
    ----------
    hours : ndarray, shape (R,), int64
        Rows, ascending and distinct, within the requested hours.
    values : ndarray, shape (R, F)
        The fields of the history.
    items : int
        Items of the response, by which it is charged.
    last_row : int or None
        Latest row of the response, also when it was not requested; None when no item could be read.
    malformed : tuple of str
        Items that could not be read, and why. They are left out.
    """

    hours: Integers
    values: Floats
    items: int
    last_row: int | None
    malformed: tuple[str, ...]

    def part(self, kept: Flags) -> Page:
        """The page with the rows that are `kept`, (R,)."""
        return replace(self, hours=self.hours[kept], values=self.values[kept, :])


@dataclass(frozen=True)
class HistoryType:
    """A kind of history: the fields in a response, its most items, and its request weight.

    Attributes
    ----------
    name : str
        For people.
    fields : tuple of str
        Fields of the cache that it fills.
    max_items : int
        Most items of one response.
    items_per_weight : int
        Items that add 1 to the weight of a request.
    parse : callable
        One item to its row and values; raises ValueError, KeyError, TypeError or OverflowError when it is malformed.
    """

    name: str
    fields: tuple[str, ...]
    max_items: int
    items_per_weight: int
    parse: Callable[[Any, str], Parsed]

    def weight(self, items: int) -> int:
        """Weight of a request that returns so many items."""
        return REQUEST_WEIGHT + math.ceil(items / self.items_per_weight)

    def read(self, items: Sequence[Any], coin: str, first: int, last: int) -> Page:
        """Read the response to a request for the rows `first` to `last`, both hour numbers and inclusive."""
        kept: dict[int, tuple[float, ...]] = {}
        ambiguous: set[int] = set()
        malformed: list[str] = []
        last_row: int | None = None
        for item in items:
            try:
                hour, values = self.parse(item, coin)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                reason = f"no {error}" if isinstance(error, KeyError) else str(error)
                malformed.append(f"{repr(item)[:120]} ({reason})")
                continue
            last_row = hour if last_row is None else max(last_row, hour)
            if first <= hour <= last and kept.setdefault(hour, values) != values:
                ambiguous.add(hour)
        for hour in sorted(ambiguous):
            # Two values for one hour leave no way to tell which is right.
            malformed.append(f"two different items for {show(instant_of(hour))}")
            del kept[hour]
        hours = np.array(sorted(kept), dtype=np.int64)
        values_of = np.array([kept[int(hour)] for hour in hours], dtype=np.float64).reshape(-1, len(self.fields))
        return Page(hours, values_of, len(items), last_row, tuple(malformed))

    def table(self, pages: dict[str, list[Page]]) -> Any:
        """Pages of several coins as a pyarrow table of the schema."""
        every = [(code, page) for code, own in enumerate(pages.values()) for page in own]
        codes = np.repeat([code for code, _ in every], [len(page.hours) for _, page in every])
        values = np.concatenate([page.values for _, page in every])
        hours = np.concatenate([page.hours for _, page in every])
        return to_table(list(pages), codes, hours, dict(zip(self.fields, values.T, strict=True)))


def describe_malformed(page: Page) -> str:
    """Describe the malformed items of a page."""
    return (
        f"{len(page.malformed)} of {page.items} items are malformed and were left out: {join_first(page.malformed, 2)}"
    )


def _candle(item: Any, coin: str) -> Parsed:
    if item["s"] != coin or item["i"] != "1h":
        raise ValueError(f"an hourly candle of {coin} was requested")
    opened = _stamp(item["t"])
    if opened % HOUR_MS:
        raise ValueError("the open time t is not on the hour")
    close, high, low, volume = (_number(item[name]) for name in ("c", "h", "l", "v"))
    if min(close, high, low) <= 0 or volume < 0:
        raise ValueError("the close c, high h and low l must be positive, the volume v zero or more")
    return opened // HOUR_MS + 1, (close, high, low, _number(volume * close))


def _funding(item: Any, coin: str) -> Parsed:
    if item["coin"] != coin:
        raise ValueError(f"a rate of {coin} was requested")
    return _stamp(item["time"]) // HOUR_MS, (_number(item["fundingRate"]),)


def _stamp(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1_577_836_800_000 <= value < 4_102_444_800_000:
        raise ValueError(f"{value!r} is not a time in milliseconds")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError(f"{value!r} is not a number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not finite")
    return number


#: Weight of an info request before its items are counted.
REQUEST_WEIGHT = 20
#: The exchange keeps the most recent 5,000 candles of an interval, and returns them in one response.
CANDLES = HistoryType("candles", ("mid", "high", "low", "volume_usd"), 5000, 60, _candle)
FUNDING = HistoryType("funding", ("funding",), 500, 20, _funding)
