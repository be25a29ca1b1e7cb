"""HyperLiquid's ``candleSnapshot`` and ``fundingHistory`` answers as rows of the cache, and what asking costs.

A candle that opens at 22:00 is row 23:00: `mid` is its close, `volume_usd` its volume (in the coin) times its close. A
funding rate is stamped some milliseconds, seldom minutes, after the hour that it settles, and belongs to that hour.
Until June 2023 funding was paid every 8 hours, so absent hours are no error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.clock import show
from engine.data.schema import COIN, TIME, Floats, Integers, hours_to_stamps, instant_of
from engine.errors import join_first

_HOUR_MS = 3_600_000
Parsed = tuple[int, tuple[float, ...]]


@dataclass(frozen=True, eq=False)
class Page:
    """The usable part of one answer.

    Attributes
    ----------
    hours : ndarray, shape (R,), int64
        Rows, ascending and distinct, within the hours asked for.
    values : ndarray, shape (R, F)
        The kind's fields.
    items : int
        Items of the answer, which is what it is charged for.
    reached : int or None
        Latest row of the answer, usable or not asked for; None when nothing could be read.
    bad : tuple of str
        Items that are not what they should be, and why. They are left out.
    """

    hours: Integers
    values: Floats
    items: int
    reached: int | None
    bad: tuple[str, ...]


@dataclass(frozen=True)
class HistoryType:
    """A kind of history: what its answers hold, how many items at most, and what they weigh.

    Attributes
    ----------
    name : str
        For people.
    fields : tuple of str
        Fields of the cache that it fills.
    cap : int
        Most items of one answer.
    items_per_weight : int
        Items that add 1 to the weight of a request.
    parse : callable
        One item to its row and values; raises ValueError, KeyError, TypeError or OverflowError when it is malformed.
    """

    name: str
    fields: tuple[str, ...]
    cap: int
    items_per_weight: int
    parse: Callable[[Any, str], Parsed]

    def weight(self, items: int) -> int:
        """Weight of a request that returns so many items."""
        return REQUEST_WEIGHT + math.ceil(items / self.items_per_weight)

    def read(self, answer: Sequence[Any], coin: str, first: int, last: int) -> Page:
        """Read an answer to a request for the rows `first` to `last`, both hour numbers and inclusive."""
        kept: dict[int, tuple[float, ...]] = {}
        twice: set[int] = set()
        bad: list[str] = []
        reached: int | None = None
        for item in answer:
            try:
                hour, values = self.parse(item, coin)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                what = f"no {error}" if isinstance(error, KeyError) else str(error)
                bad.append(f"{repr(item)[:120]} ({what})")
                continue
            reached = hour if reached is None else max(reached, hour)
            if first <= hour <= last and kept.setdefault(hour, values) != values:
                twice.add(hour)
        for hour in sorted(twice):
            # Two values for one hour leave no way to tell which is right.
            bad.append(f"two different items for {show(instant_of(hour))}")
            del kept[hour]
        hours = np.array(sorted(kept), dtype=np.int64)
        values_of = np.array([kept[int(hour)] for hour in hours], dtype=np.float64).reshape(-1, len(self.fields))
        return Page(hours, values_of, len(answer), reached, tuple(bad))

    def table(self, pages: dict[str, list[Page]]) -> Any:
        """Pages of several coins as a pyarrow table of the schema."""
        import pyarrow as pa

        coins = list(pages)
        hours = [np.concatenate([page.hours for page in pages[coin]]) for coin in coins]
        codes = np.repeat(np.arange(len(coins), dtype=np.int32), [len(own) for own in hours])
        values = np.concatenate([page.values for coin in coins for page in pages[coin]])
        columns = {
            TIME: pa.array(hours_to_stamps(np.concatenate(hours))).cast(pa.timestamp("ms", tz="UTC")),
            COIN: pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(coins, pa.string())),
        }
        for place, name in enumerate(self.fields):
            columns[name] = pa.array(values[:, place])
        return pa.table(columns)


def bad_items(page: Page) -> str:
    """Describe the malformed items of a page."""
    return f"{len(page.bad)} of {page.items} items are malformed and were left out: {join_first(page.bad, 2)}"


def _candle(item: Any, coin: str) -> Parsed:
    if item["s"] != coin or item["i"] != "1h":
        raise ValueError(f"an hourly candle of {coin} was asked for")
    opened = _stamp(item["t"])
    if opened % _HOUR_MS:
        raise ValueError("the open time t is not on the hour")
    close, volume = _number(item["c"]), _number(item["v"])
    if close <= 0 or volume < 0:
        raise ValueError("the close c must be positive, the volume v zero or more")
    return opened // _HOUR_MS + 1, (close, _number(volume * close))


def _funding(item: Any, coin: str) -> Parsed:
    if item["coin"] != coin:
        raise ValueError(f"a rate of {coin} was asked for")
    return _stamp(item["time"]) // _HOUR_MS, (_number(item["fundingRate"]),)


def _stamp(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1_577_836_800_000 <= value < 4_102_444_800_000:
        raise ValueError(f"{value!r} is no time in milliseconds")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError(f"{value!r} is no number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not finite")
    return number


#: Weight of an info request before its items are counted.
REQUEST_WEIGHT = 20
#: The exchange keeps the most recent 5,000 candles of an interval, and returns them in one answer.
CANDLES = HistoryType("candles", ("mid", "volume_usd"), 5000, 60, _candle)
FUNDING = HistoryType("funding", ("funding",), 500, 20, _funding)
