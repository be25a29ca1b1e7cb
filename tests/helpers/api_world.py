"""Shared by the tests of the API source: a small exchange, its sync, and the cells that the cache must have then."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa

from engine.data.cache import Store
from engine.data.schema import hour_number
from engine.data.sync_api import SyncReport, sync_api
from helpers.hyperliquid_info import HOUR_MS, Listing, LoopbackServer, Venue

#: Fields of a candle, of its keys c, h, l.
FIELDS = ("mid", "high", "low")
NOW = pd.Timestamp("2025-06-15T10:20Z")
HOUR = hour_number(NOW)


class Clock:
    """A monotonic clock that only sleeping moves."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.seconds += seconds


def listings() -> list[Listing]:
    """60 days of two dexes: a dense coin and a sparse one; one listed late and one delisted."""
    return [
        Listing("BTC", HOUR - 60 * 24),
        Listing("kPEPE", HOUR - 60 * 24, sparse=0.4),
        Listing("xyz:NEW", HOUR - 30 * 24),
        Listing("xyz:OLD", HOUR - 60 * 24, gone=HOUR - 20 * 24),
    ]


def sync(store: Store, server: LoopbackServer, clock: Clock | None = None, **changes: Any) -> SyncReport:
    """A sync of every coin of the two dexes, where the server has both."""
    clock = clock or Clock()
    dexes = getattr(server.handlers["/info"], "dexes", ["xyz"])
    arguments = {
        "start": NOW.floor("h") - pd.Timedelta(days=60),
        "end": None,
        "coins": ["*", *(f"{dex}:*" for dex in dexes)],
        "now": NOW,
        **changes,
    }
    return sync_api(store, base_url=server.url, clock=clock, sleep=clock.sleep, **arguments)


def expected(venue: Venue, first: int, last: int) -> dict[tuple[str, str, int], float]:
    """The cells that the cache must have of the venue's histories, computed from the rows as they are sent."""
    wanted = {}
    for coin, listing in venue.listings.items():
        for row in listing.candles.values():
            hour = row["t"] // HOUR_MS + 1
            if first <= hour <= last:
                wanted |= {(coin, name, hour): float(row[key]) for name, key in zip(FIELDS, "chl", strict=True)}
                wanted[coin, "volume_usd", hour] = float(row["v"]) * float(row["c"])
        for row in listing.rates.values():
            hour = row["time"] // HOUR_MS
            if first <= hour <= last:
                wanted[coin, "funding", hour] = float(row["fundingRate"])
    return wanted


def rows_table(fields: dict[str, dict[int, float]], coin: str = "BTC") -> pa.Table:
    """Rows of one coin: field to hour number to value."""
    hours = sorted({hour for values in fields.values() for hour in values})
    stamps = pa.array([hour * HOUR_MS for hour in hours]).cast(pa.timestamp("ms", tz="UTC"))
    columns = {name: pa.array([values.get(hour) for hour in hours], pa.float64()) for name, values in fields.items()}
    return pa.table({"time": stamps, "coin": [coin] * len(hours), **columns})
