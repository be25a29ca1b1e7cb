"""Funding as it was paid: units by date, hours without a settlement, and estimates where the settled rate is known."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine import RunConfig, backtest
from engine.data.asset_ctxs import reduce_day
from engine.data.cache import Store
from engine.data.funding import NO_SETTLEMENT
from engine.data.manifest import MANIFEST
from engine.data.merge import FREQTRADE, S3
from engine.data.panel_loader import load_panel
from engine.data.rebuild import rebuild
from engine.data.schema import LAST_EIGHT_HOURLY, instant_of
from helpers.api_world import rows_table, sync
from helpers.archive_server import HEADER, packed
from helpers.hyperliquid_info import HOUR_MS, Listing, LoopbackServer, Venue

DAYS = ("2023-06-05", "2023-06-06", "2023-06-07", "2023-06-08", "2023-06-09")
#: What the market pays an hour, the same before and after.
RATE = 1e-5
FIRST, END = (int(pd.Timestamp(day).timestamp()) // 3600 for day in ("2023-06-05", "2023-06-10"))
ROWS = np.arange(FIRST + 1, END + 1)


def archive(store: Store) -> None:
    """Days of the archive at a constant price; a record at the first and the last minute of each hour."""
    tables = []
    for day in DAYS:
        lines = [HEADER]
        for stamp in pd.date_range(day, periods=24, freq="h", tz="UTC"):
            for minute in (0, 59):
                at = stamp + pd.Timedelta(minutes=minute)
                rate = RATE * (8 if at < pd.Timestamp("2023-06-08T00:05Z") else 1)
                for coin in ("BTC", "ETH"):
                    lines.append(f"{at:%Y-%m-%dT%H:%M:%SZ},{coin},{rate:.9f},5,100,1000,0.001,100,100,100,100,100")
        tables.append(reduce_day(packed("\n".join(lines) + "\n"), date.fromisoformat(day)).table)
    store.merge(tables, S3)


def settled(hours: np.ndarray) -> dict[int, float]:
    """The exchange's own history: a row every 8 hours at 8-hour rates, hourly from 2023-06-08 01:00 on."""
    return {
        int(hour): round(1.5 * RATE * (1 if hour > LAST_EIGHT_HOURLY else 8), 10)
        for hour in hours
        if hour > LAST_EIGHT_HOURLY or hour % 8 == 0
    }


def api(store: Store, rates: dict[int, float] | None = None) -> None:
    """A sync of BTC's funding over these days from an exchange on loopback."""
    venue = Venue([Listing("BTC", FIRST - 100), Listing("ETH", FIRST - 100)], (END + 2000) * HOUR_MS)
    for name, listing in venue.listings.items():
        listing.candles.clear()
        listing.rates = {
            hour: {"coin": name, "fundingRate": f"{rate:.10f}", "premium": "0", "time": hour * HOUR_MS + 48}
            for hour, rate in (settled(np.arange(FIRST - 100, END + 500)) if rates is None else rates).items()
        }
    with LoopbackServer({"/info": venue}) as server:
        now = instant_of(END + 2000)
        assert not sync(store, server, start=instant_of(FIRST), end=instant_of(END), coins=["BTC"], now=now).problems


def freqtrade(store: Store) -> None:
    store.merge([rows_table({"funding": settled(ROWS)})], FREQTRADE)


def held(store: Store, row: int = 0) -> pd.Series:
    """Funding paid, USD a day of rows, by 10,000 USD of BTC held from a row on."""
    panel = load_panel(store.path, coins=["BTC"])
    weights = pd.DataFrame({"BTC": 1.0}, index=panel.index[row : row + 1])
    paid = backtest(panel, weights, RunConfig.from_dict({"costs": {"taker_bps": 0, "half_spread_bps": 0}})).attribution
    return paid["funding_usd"].groupby((paid.index - pd.Timedelta(hours=1)).floor("D")).sum()


def test_a_day_before_june_2023_costs_what_a_day_after_costs(tmp_path: Path) -> None:
    """Found 8 times too high: the archive's estimate was one of 8 hours until 2023-06-08T00:05Z."""
    store = Store(tmp_path / "cache")
    archive(store)
    assert np.allclose(load_panel(store.path).values("funding"), RATE, rtol=1e-12)
    assert np.allclose(held(store), 24 * RATE * 10_000, rtol=1e-3)
    # The history itself: one payment every 8 hours at the rate of 8 hours, and in between a rate of 0, not none.
    api(store)
    funding = load_panel(store.path).frame("funding")
    hours = (funding.index.astype("int64") // HOUR_MS).to_numpy()
    assert np.allclose(funding["BTC"], [settled(ROWS).get(int(hour), 0.0) for hour in hours], rtol=1e-12)
    assert np.allclose(funding["ETH"], RATE, rtol=1e-12)
    assert np.allclose(held(store), 1.5 * 24 * RATE * 10_000, rtol=1e-3)


def test_sources_in_any_order_ranges_and_a_rebuild_give_the_same_rates(tmp_path: Path) -> None:
    digests = set()
    for number, order in enumerate(itertools.permutations((archive, api, freqtrade))):
        store = Store(tmp_path / str(number))
        for source in order:
            source(store)
        digests.add(load_panel(store.path).digest)
    assert len(digests) == 1
    whole = load_panel(store.path).frame("funding")
    # A range that ends between two settlements has the zeros of the hours before its next one.
    for start, end in (("2023-06-05T03:00Z", "2023-06-06T13:00Z"), ("2023-06-07T17:00Z", "2023-06-08T02:00Z")):
        part = load_panel(store.path, start, end).frame("funding")
        pd.testing.assert_frame_equal(part, whole.loc[part.index], check_freq=False)
    (store.path / MANIFEST).unlink()
    assert rebuild(store).wrote
    pd.testing.assert_frame_equal(load_panel(store.path).frame("funding"), whole)


def old_cache(folder: Path, funding: Callable[[int], float]) -> Store:
    """A cache of schema 2 with one source, which its file does not name."""
    frame = pd.DataFrame({"time": pd.to_datetime(ROWS * HOUR_MS, unit="ms", utc=True), "coin": "BTC", "mid": 100.0})
    table = pa.Table.from_pandas(frame.assign(funding=[funding(hour) for hour in ROWS]), preserve_index=False)
    coin = table.column("coin").cast(pa.string()).combine_chunks().dictionary_encode()
    table = table.set_column(0, "time", table.column("time").cast(pa.timestamp("ms", tz="UTC")))
    (folder / "hourly").mkdir(parents=True)
    pq.write_table(table.set_column(1, "coin", coin), folder / "file")
    digest = hashlib.sha256((folder / "file").read_bytes()).hexdigest()
    name = f"hourly/2023-06.{digest[:12]}.parquet"
    (folder / "file").rename(folder / name)
    entry = {"name": name, "rows": len(ROWS), "first": f"{instant_of(ROWS[0]):%FT%RZ}", "coins": 1, "sha256": digest}
    entry |= {
        "last": f"{instant_of(END):%FT%RZ}",
        "fields": ["mid", "funding"],
        "bytes": (folder / name).stat().st_size,
    }
    entry |= {"sources": {"mid": ["s3"], "funding": ["s3"]}}
    span = dict.fromkeys(("first_price", "first_funding"), entry["first"])
    span |= dict.fromkeys(("last_price", "last_funding"), entry["last"])
    body = {"schema": 2, "synthetic": False, "files": {"2023-06": entry}, "objects": {}, "coins": {"BTC": span}}
    body["sha256"] = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(body))
    return Store(folder)


def test_a_cache_of_before_is_corrected_at_read_and_once(tmp_path: Path) -> None:
    """Values lie in the cache as the source gave them: also where nothing but the file itself is left."""
    store = old_cache(tmp_path / "s3", lambda hour: RATE * (8 if hour <= LAST_EIGHT_HOURLY else 1))
    for _ in range(2):
        assert np.allclose(load_panel(store.path).values("funding"), RATE, rtol=1e-12)
        (store.path / MANIFEST).unlink()
        rebuild(store)
    archive(store)  # again, from a newer version
    assert np.allclose(load_panel(store.path, coins=["BTC"]).values("funding"), RATE, rtol=1e-12)
    store = old_cache(tmp_path / "api", lambda hour: settled(ROWS).get(int(hour), np.nan))
    (store.path / MANIFEST).unlink()
    rebuild(store)
    assert np.allclose(held(store, 7), 1.5 * 24 * RATE * 10_000, rtol=1e-3)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_no_estimate_where_the_settled_history_was_asked_for_and_has_no_row(tmp_path: Path, order: tuple[int]) -> None:
    store, lacking = Store(tmp_path / "cache"), {END - 30, END - 29, LAST_EIGHT_HOURLY - 16}
    kept = {hour: rate for hour, rate in settled(np.arange(FIRST, END + 1)).items() if hour not in lacking}
    for step in order:
        archive(store) if step == 0 else api(store, kept)
    funding = load_panel(store.path).frame("funding")
    expected = np.array([kept.get(int(hour), 0.0 if hour <= LAST_EIGHT_HOURLY else np.nan) for hour in ROWS])
    block = (ROWS > LAST_EIGHT_HOURLY - 24) & (ROWS <= LAST_EIGHT_HOURLY - 16)
    np.testing.assert_allclose(funding["BTC"], np.where(block, np.nan, expected), rtol=1e-9)
    assert np.isnan(funding["BTC"]).sum() == 10 and np.allclose(funding["ETH"], RATE)
    # Where it was not asked for, and where it is too young to be final, the estimate stands.
    store = Store(tmp_path / "part")
    archive(store)
    store.merge(
        [rows_table({"funding": {END - 40: 7e-5}})], "api", asked={"funding": {"BTC": ((END - 41, END - 40, 0),)}}
    )
    funding = load_panel(store.path).values("funding")[:, 0]
    assert funding[-41] == 7e-5 and np.isnan(funding[-42]) and np.allclose(np.delete(funding, [-41, -42]), RATE)


def test_hours_without_any_settlement_cost_nothing_and_are_known(tmp_path: Path) -> None:
    for hour in NO_SETTLEMENT:
        rates = {other: RATE for other in range(hour - 3, hour + 4) if other != hour}
        mids = dict.fromkeys(range(hour - 3, hour + 4), 100.0)
        store = Store(tmp_path / str(hour))
        store.merge(
            [rows_table({"mid": mids, "funding": {**rates, hour: 9e-4}})], S3
        )  # the archive estimates there, too
        store.merge([rows_table({"funding": rates}, "ETH"), rows_table({"mid": mids}, "NEW")], "api")
        store.merge([rows_table({"mid": mids}, "ETH")], "api")
        funding = load_panel(store.path).frame("funding")
        assert funding.loc[instant_of(hour), ["BTC", "ETH"]].tolist() == [0.0, 0.0]
        assert funding.drop(instant_of(hour))[["BTC", "ETH"]].eq(RATE).all(axis=None)
        assert funding["NEW"].isna().all()  # of a coin without a history nothing is known
        store.merge([rows_table({"funding": {hour: 3e-5}})], "api")  # a row is a row
        assert load_panel(store.path).frame("funding").loc[instant_of(hour), "BTC"] == 3e-5
