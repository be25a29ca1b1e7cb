"""What the tests of the API source share: a small exchange, its sync, and what the cache must then hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from engine.data.cache import Store
from engine.data.schema import hour_number
from engine.data.sync_api import SyncReport, sync_api
from helpers.hyperliquid_info import HOUR_MS, Listing, LoopbackServer, Venue

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
    """A dense coin, a sparse one, one listed late, one delisted: 60 days."""
    return [
        Listing("BTC", HOUR - 60 * 24),
        Listing("kPEPE", HOUR - 60 * 24, sparse=0.4),
        Listing("NEW", HOUR - 30 * 24),
        Listing("OLD", HOUR - 60 * 24, gone=HOUR - 20 * 24),
    ]


def sync(store: Store, server: LoopbackServer, clock: Clock | None = None, **changes: Any) -> SyncReport:
    clock = clock or Clock()
    asked = {"start": NOW.floor("h") - pd.Timedelta(days=60), "end": None, "coins": None, "now": NOW, **changes}
    return sync_api(store, base_url=server.url, clock=clock, sleep=clock.sleep, **asked)


def cells(store: Store) -> dict[tuple[str, str, int], float]:
    """Everything in the cache: (coin, field, hour number) to value."""
    found = {}
    for entry in store.require().files.values():
        rows = store.read(entry)
        for name, values in rows.fields.items():
            for code, hour, value in zip(rows.codes, rows.hours, values, strict=True):
                if not np.isnan(value):
                    found[rows.coins[code], name, int(hour)] = float(value)
    return found


def expected(venue: Venue, first: int, last: int) -> dict[tuple[str, str, int], float]:
    """What the cache must hold of the venue's histories, computed from the rows as they are sent."""
    found = {}
    for coin, listing in venue.listings.items():
        for row in listing.candles.values():
            hour = row["t"] // HOUR_MS + 1
            if first <= hour <= last:
                found[coin, "mid", hour] = float(row["c"])
                found[coin, "volume_usd", hour] = float(row["v"]) * float(row["c"])
        for row in listing.rates.values():
            hour = row["time"] // HOUR_MS
            if first <= hour <= last:
                found[coin, "funding", hour] = float(row["fundingRate"])
    return found


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a cache."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def rows_table(fields: dict[str, dict[int, float]], coin: str = "BTC") -> pa.Table:
    """Rows of one coin: field to hour number to value."""
    hours = sorted({hour for values in fields.values() for hour in values})
    stamps = pa.array([hour * HOUR_MS for hour in hours]).cast(pa.timestamp("ms", tz="UTC"))
    columns = {name: pa.array([values.get(hour) for hour in hours], pa.float64()) for name, values in fields.items()}
    return pa.table({"time": stamps, "coin": [coin] * len(hours), **columns})
