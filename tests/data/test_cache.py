from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from engine.data import cache
from engine.data.cache import Store
from engine.data.cache_status import status
from engine.data.coin_table import CoinMeta
from engine.data.manifest import MANIFEST, ObjectRecord
from engine.data.panel_loader import load_panel
from engine.errors import DataError
from helpers.stores import START, cells, content, table


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def test_round_trip_over_a_month_boundary(store: Store) -> None:
    mid = {"kPEPE": [0.1, np.nan, 0.3, 0.4, 0.5, 0.6], "BTC": [1e5, 2e5]}
    funding = {"kPEPE": [np.nan] * 5 + [1e-5], "BTC": [np.nan, -2e-5]}
    report = store.merge([table(mid, funding=funding)], "somewhere")
    assert (report.added, report.same, report.changed, report.refused) == (9, 0, 0, 0)
    assert report.months == ("2024-01", "2024-02")
    hour = int(pd.Timestamp(START).timestamp()) // 3600
    assert cells(store) == {
        ("kPEPE", "mid", hour): 0.1,
        ("kPEPE", "mid", hour + 2): 0.3,
        ("kPEPE", "mid", hour + 3): 0.4,
        ("kPEPE", "mid", hour + 4): 0.5,
        ("kPEPE", "mid", hour + 5): 0.6,
        ("kPEPE", "funding", hour + 5): 1e-5,
        ("BTC", "mid", hour): 1e5,
        ("BTC", "mid", hour + 1): 2e5,
        ("BTC", "funding", hour + 1): -2e-5,
    }
    manifest = store.require()
    january, february = manifest.files["2024-01-somewhere"], manifest.files["2024-02-somewhere"]
    assert (january.rows, january.coins, january.fields) == (5, 2, ("mid", "funding"))
    assert (february.rows, february.coins) == (2, 1)
    assert february.first == pd.Timestamp("2024-02-01", tz="UTC")
    assert february.last == pd.Timestamp("2024-02-01T01:00Z")
    assert january.source == "somewhere" and not january.mixed
    record = manifest.coins["kPEPE"]
    assert (record.first_price, record.last_price) == (pd.Timestamp(START), pd.Timestamp("2024-02-01T01:00Z"))
    assert record.first_funding == record.last_funding == pd.Timestamp("2024-02-01T01:00Z")
    assert (store.path / january.name).stat().st_size == january.bytes
    assert january.sha256.startswith(Path(january.name).name.split(".")[1])


def broken(column: str, values: Any) -> pa.Table:
    good = table({"BTC": [1.0, 2.0, 3.0]}, volume_usd={"BTC": [1, 2, 3]}, funding={"BTC": [0, 0, 0]})
    return good.set_column(good.column_names.index(column), column, values)


TIMES = pd.date_range(START, periods=3, freq="h", unit="ms")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (broken("time", pa.array(TIMES.tz_localize(None))), "zone UTC"),
        (broken("time", pa.array(TIMES + pd.Timedelta("1ms"))), "3 instants are off the hour"),
        (broken("time", pa.array((TIMES + pd.Timedelta(1, "ns")).as_unit("ns"))), "off the hour"),
        (broken("time", pa.array([TIMES[0], TIMES[0], TIMES[1]])), "BTC at 2024-01-31 20:00 UTC appears twice"),
        (broken("time", pa.array([TIMES[1], TIMES[0], TIMES[2]])), "BTC at 2024-01-31 20:00 UTC is out of order"),
        (broken("time", pa.array([TIMES[0], None, TIMES[1]], TIMES_TYPE := pa.timestamp("ms", tz="UTC"))), "no time"),
        (broken("time", pa.array([1, 2, 3], TIMES_TYPE)), "outside 2020 to 2100"),
        (broken("coin", pa.array(["BTC", "ETH", "BTC"])), "out of order"),
        (broken("coin", pa.array(["BTC", None, "BTC"])), "1 nulls"),
        (broken("coin", pa.array(["BTC", "", "BTC"])), "empty coin name"),
        (broken("coin", pa.array([1, 2, 3])), "'coin' is int64"),
        (broken("mid", pa.array([1.0, 0.0, -1.0])), r"mid of BTC at 2024-01-31 21:00 UTC is 0.0.*2 such values"),
        (broken("mid", pa.array([1.0, np.inf, 1.0])), "mid of BTC at 2024-01-31 21:00 UTC is inf"),
        (broken("mid", pa.array(["1", "2", "3"])), "'mid' is string"),
        (broken("funding", pa.array([0.0, 0.0, -np.inf])), "funding of BTC at 2024-01-31 22:00 UTC is -inf"),
        (broken("volume_usd", pa.array([0.0, -1.0, 0.0])), "volume_usd of BTC.*zero or more"),
        (
            broken("mid", pa.array([1.0, 2.0, 3.0])).rename_columns(["time", "coin", "midd", "volume_usd", "funding"]),
            "'mid'",
        ),
        (broken("mid", pa.array([1.0, 2.0, 3.0])).drop_columns(["time"]), "'time' is missing"),
        (
            broken("mid", pa.array([1.0, 2.0, 3.0])).rename_columns(["time", "coin", "mid", "mid", "funding"]),
            "a column appears twice among time, coin, mid, mid",
        ),
    ],
)
def test_a_table_that_breaks_the_schema_is_refused_whole(store: Store, bad: pa.Table, message: str) -> None:
    store.merge([table({"ETH": [1.0]})], "first")
    before = content(store.path)
    with pytest.raises(DataError, match=message):
        store.merge([table({"BTC": [1.0]}), bad], "somewhere")
    assert content(store.path) == before


def test_importing_again_writes_nothing(store: Store) -> None:
    data = [table({"BTC": [1.0, 2.0, 3.0, 4.0, 5.0]}, funding={"BTC": [0, 1e-5, -0.0, np.nan, 2e-5]})]
    store.merge(data, "somewhere")
    before = {path: os.stat(store.path / path) for path in content(store.path)}
    digests = content(store.path)
    report = store.merge(data, "somewhere")
    assert not report.wrote
    assert (report.added, report.same) == (0, 9)
    assert content(store.path) == digests
    assert {path: os.stat(store.path / path).st_mtime_ns for path in before} == {
        path: stat.st_mtime_ns for path, stat in before.items()
    }


def test_the_order_of_imports_leaves_no_trace(tmp_path: Path) -> None:
    parts = [
        table({"BTC": [1.0, 2.0], "ETH": [3.0, 4.0]}),
        table({"BTC": [np.nan, np.nan, 2.5, np.nan, np.nan, 9.0]}, funding={"BTC": [1e-5] * 6}),
        table({"AAVE": [7.0] * 8}, volume_usd={"AAVE": [0, 1] * 4}),
    ]
    one, other, whole = Store(tmp_path / "one"), Store(tmp_path / "other"), Store(tmp_path / "whole")
    for part in parts:
        one.merge([part], "s")
    for part in reversed(parts):
        other.merge([part], "s")
    whole.merge(parts, "s")
    assert content(one.path) == content(other.path) == content(whole.path)
    assert one.verify().ok
    assert one.verify().foreign == ()


def test_new_cells_fill_gaps_and_new_fields_of_old_rows(store: Store) -> None:
    store.merge([table({"BTC": [1.0, np.nan, 3.0]}, funding={"BTC": [np.nan, 1e-5, np.nan]})], "a")
    report = store.merge([table({"BTC": [1.0, 2.0, 3.0]}, oracle={"BTC": [1.1, np.nan, 3.1]})], "a")
    assert (report.added, report.same, report.conflicts) == (3, 2, ())
    assert sorted(value for (_, name, _), value in cells(store).items() if name == "mid") == [1.0, 2.0, 3.0]


def test_a_conflict_keeps_those_cells_out_and_nothing_else(store: Store) -> None:
    store.merge([table({"BTC": [100.0, 200.0, 300.0, 400.0], "ETH": [10.0, 20.0]})], "first")
    candles = table({"BTC": [100.0, 220.0, 303.0, 400.0, 500.0], "ETH": [10.0, 20.0, 30.0]})
    rates = table({"BTC": [np.nan] * 4}, funding={"BTC": [1e-5, 2e-5, 3e-5, 4e-5]})
    report = store.merge([candles, rates], "first")
    (conflict,) = report.conflicts
    assert (conflict.coin, conflict.field, conflict.cells) == ("BTC", "mid", 2)
    assert conflict.first == pd.Timestamp("2024-01-31T21:00Z")
    assert (conflict.cached, conflict.new) == (200.0, 220.0)
    assert conflict.largest == pytest.approx(20 / 220)
    assert (report.added, report.same, report.changed, report.refused) == (6, 4, 0, 2)
    mids = {key: value for key, value in cells(store).items() if key[1] == "mid"}
    assert sorted(value for key, value in mids.items() if key[0] == "BTC") == [100.0, 200.0, 300.0, 400.0, 500.0]
    assert sorted(value for key, value in mids.items() if key[0] == "ETH") == [10.0, 20.0, 30.0]
    assert str(conflict).startswith("BTC mid: 2 cells differ, the first at 2024-01-31 21:00 UTC (cached 200, new 220")


def test_conflicts_of_one_coin_in_several_tables_are_one_line(store: Store) -> None:
    store.merge([table({"BTC": [1.0] * 4})], "first")
    later = table({"BTC": [1.5]}, start="2024-01-31T23:00Z")
    report = store.merge([later, table({"BTC": [1.1, 1.2]})], "first")
    (conflict,) = report.conflicts
    assert (conflict.cells, conflict.new) == (3, 1.1)
    assert conflict.first == pd.Timestamp(START)
    assert conflict.largest == pytest.approx(0.5 / 1.5)


def test_two_tables_of_one_import_can_contradict_each_other(store: Store) -> None:
    report = store.merge([table({"BTC": [1.0, 2.0]}), table({"BTC": [1.0, 2.5]})], "s")
    assert report.conflicts[0].new == 2.5
    assert sorted(cells(store).values()) == [1.0, 2.0]


@pytest.mark.parametrize(("factor", "same"), [(1 + 5e-10, True), (1 + 2e-9, False), (1 - 2e-9, False)])
def test_values_nearer_than_a_billionth_are_the_same(store: Store, factor: float, same: bool) -> None:
    store.merge([table({"BTC": [50_000.0]}, funding={"BTC": [-1.25e-5]})], "a")
    report = store.merge([table({"BTC": [50_000.0 * factor]}, funding={"BTC": [-1.25e-5 * factor]})], "a")
    assert [conflict.field for conflict in report.conflicts] == ([] if same else ["funding", "mid"])
    assert not report.wrote


def test_replace_takes_the_new_values_and_counts_them(store: Store) -> None:
    store.merge([table({"BTC": [100.0, 200.0, 300.0], "ETH": [1.0]})], "first")
    old = store.require().files["2024-01-first"].name
    report = store.merge([table({"BTC": [100.0, 220.0, np.nan, 400.0]})], "first", replace=True)
    assert (report.added, report.same, report.changed, report.refused, report.conflicts) == (1, 1, 1, 0, ())
    assert sorted(cells(store).values()) == [1.0, 100.0, 220.0, 300.0, 400.0]
    assert not (store.path / old).exists()
    assert store.verify().foreign == ()


def test_synthetic_and_real_data_never_mix(tmp_path: Path) -> None:
    real, made_up = Store(tmp_path / "real"), Store(tmp_path / "made-up")
    real.merge([table({"BTC": [1.0]})], "somewhere")
    made_up.merge([table({"BTC": [1.0]})], "synthetic")
    before = content(real.path), content(made_up.path)
    with pytest.raises(DataError, match="holds real data and these are synthetic"):
        real.merge([table({"ETH": [1.0]})], "synthetic")
    with pytest.raises(DataError, match="holds synthetic data and these are real"):
        made_up.merge([table({"ETH": [1.0]})], "somewhere")
    with pytest.raises(DataError, match="holds synthetic data and these are real"):
        made_up.update_coin_table([CoinMeta("BTC", 5, 40.0)], "meta.json", None)
    assert (content(real.path), content(made_up.path)) == before


def test_a_damaged_manifest_is_named_with_the_cure(store: Store) -> None:
    store.merge([table({"BTC": [1.0]})], "somewhere")
    path = store.path / MANIFEST
    whole = path.read_text()
    for damaged in ["", whole[:-30], whole.replace('"rows": 1', '"rows": 2'), "[]", '{"schema": 3}', "null"]:
        path.write_text(damaged)
        with pytest.raises(DataError, match=r"manifest.json is damaged.*data rebuild.*Do not delete the folder"):
            store.require()
        with pytest.raises(DataError, match="is damaged"):
            store.merge([table({"ETH": [1.0]})], "somewhere")
    path.write_text(whole.replace('"schema": 4', '"schema": 5'))
    with pytest.raises(DataError, match=r"schema version 5.*Upgrade hlbt"):
        store.require()
    # Nothing was swept away meanwhile: the files are all there once the manifest is mended.
    path.write_text(whole)
    assert store.verify().ok


def test_verify_names_what_is_wrong(store: Store) -> None:
    store.merge([table({"BTC": np.arange(1.0, 1400.0)})], "somewhere")
    assert store.verify() == store.verify()
    assert store.verify().ok
    first, second, third = (entry.name for entry in list(store.require().files.values())[:3])
    flipped = bytearray((store.path / first).read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (store.path / first).write_bytes(flipped)
    (store.path / second).unlink()
    (store.path / "hourly" / "notes.txt").write_text("mine")
    report = store.verify()
    assert not report.ok
    assert (report.changed, report.missing, report.foreign) == ((first,), (second,), ("hourly/notes.txt",))
    assert report.files == 3
    with pytest.raises(DataError, match=f"{Path(second).name} is missing"):
        store.read(store.require().files["2024-02-somewhere"])
    (store.path / third).write_bytes(b"PAR1")
    with pytest.raises(DataError, match="was changed: its content does not match its digest"):
        store.read(store.require().files["2024-03-somewhere"])


def test_no_wrong_byte_of_any_file_reaches_a_panel(store: Store) -> None:
    """Parquet has no checksum of ours: of one flipped bit in six it makes another number, and says nothing."""
    objects = {"asset_ctxs-2024-01": [ObjectRecord("key", "etag", 1, "sha256", 1)]}
    store.merge([table({"BTC": [1.0, 2.0, 3.0]}, funding={"BTC": [1e-5, 2e-5, 3e-5]})], "s3", objects=objects)
    truth, generator = load_panel(store.path).digest, np.random.default_rng(0)
    records = store.read_objects()
    for path in (path for path in store.path.rglob("*") if path.is_file() and path.name != ".lock"):
        whole = path.read_bytes()
        for place in generator.choice(len(whole), 150, replace=False):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << generator.integers(8)]) + whole[place + 1 :])
            caught = False
            try:
                assert load_panel(store.path).digest == truth and store.read_objects() == records
            except DataError:
                caught = True
            # A space of the manifest that is now a tab says the same.
            assert caught or path.name == MANIFEST
            if path.name != MANIFEST:
                assert store.verify().changed == (str(path.relative_to(store.path)),)
        path.write_bytes(whole)


def test_a_file_of_the_users_in_the_folder_is_left_alone(store: Store) -> None:
    store.merge([table({"ETH": [1.0]})], "somewhere")
    mine = [store.path / "hourly" / "2024-10.parquet", store.path / "notes.txt", store.path / ".hidden"]
    old = [store.path / "hourly" / f"2024-10{name}.0123456789ab.parquet" for name in ("", "-s3")]
    left_over = [*old, store.path / ".manifest.json.writing", store.path / "api_empty.json"]
    for path in mine + left_over:
        path.write_text("x")
    there: list[bool] = []
    store.merge([table({"BTC": [1.0]})], "somewhere", progress=lambda *call: there.append(left_over[0].exists()))
    # They go before anything is written: on a full disk they may be what is in the way.
    assert there[0] is False
    assert all(path.exists() for path in mine)
    assert not any(path.exists() for path in left_over)


def test_an_empty_cache_says_how_to_fill_it(store: Store) -> None:
    assert store.manifest() is None
    for folder in ("absent", "there"):
        if folder == "there":
            store.path.mkdir()
        with pytest.raises(DataError, match=r"hlbt data import freqtrade DIR.*hlbt demo"):
            store.require()


def test_a_cache_in_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(DataError, match="cannot be written to"):
            Store(path).merge([table({"BTC": [1.0]})], "somewhere")
    assert (tmp_path / "file").read_text() == "x"


def test_a_second_writer_waits_for_the_first_and_is_refused_when_that_takes_too_long(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.atomic_io import locked

    store.merge([table({"BTC": [1.0]})], "somewhere")
    said: list[str] = []
    first = ExitStack()
    first.enter_context(locked(store.path))

    def progress(done: int, total: int, what: str) -> None:
        said.append(what)
        first.close()  # it is done when the second one waits

    assert store.merge([table({"ETH": [1.0]})], "somewhere", progress=progress).wrote
    assert said[0] == "waiting for another writer"
    before = content(store.path)
    monkeypatch.setattr(cache, "LOCK_SECONDS", 0.2)
    with locked(store.path), pytest.raises(DataError, match=r"Another process is writing to .* for more than 0.2 s"):
        store.merge([table({"SOL": [1.0]})], "somewhere")
    assert content(store.path) == before


def test_a_reader_that_a_writer_overtakes_reads_the_newer_state(store: Store) -> None:
    store.merge([table({"BTC": [1.0]})], "somewhere")
    seen = []

    def read(manifest: Any) -> float:
        seen.append(manifest)
        if len(seen) == 1:
            store.merge([table({"BTC": [2.0]})], "somewhere", replace=True)
        return float(store.read(manifest.files["2024-01-somewhere"]).fields["mid"][0])

    assert store.consistent(read) == 2.0
    assert len(seen) == 2


def test_progress_reaches_the_end(store: Store) -> None:
    calls: list[tuple[int, int, str]] = []
    store.merge([table({"BTC": [1.0] * 1000})], "somewhere", progress=lambda *call: calls.append(call))
    assert calls == [(0, 3, "2024-01"), (1, 3, "2024-02"), (2, 3, "2024-03"), (3, 3, "commit")]


def test_status_counts_gaps_coverage_and_events(store: Store) -> None:
    btc = np.arange(1.0, 101.0)
    btc[10:13] = np.nan
    btc[20] = np.nan
    eth = np.r_[np.full(30, np.nan), np.arange(1.0, 21.0)]
    rates = {"BTC": np.full(100, 1e-5), "ETH": np.r_[np.full(40, np.nan), np.full(10, 1e-5)]}
    volume = {"BTC": np.r_[np.ones(98), 0, 0], "ETH": np.r_[np.full(30, np.nan), np.zeros(10), np.ones(10)]}
    store.merge([table({"BTC": btc, "ETH": eth}, start="2024-03-01T00:00Z", funding=rates, volume_usd=volume)], "s")
    described = json.loads(json.dumps(status(store)))
    assert (described["start"], described["end"], described["rows"]) == ("2024-03-01T00:00Z", "2024-03-05T03:00Z", 120)
    assert described["gaps"] == [
        {"coin": "BTC", "first": "2024-03-01T10:00Z", "last": "2024-03-01T12:00Z", "hours": 3},
        {"coin": "BTC", "first": "2024-03-01T20:00Z", "last": "2024-03-01T20:00Z", "hours": 1},
    ]
    assert described["funding_gaps"] == []
    assert described["listings"] == [{"coin": "ETH", "time": "2024-03-02T16:00Z"}]
    assert described["delistings"] == [{"coin": "ETH", "time": "2024-03-03T01:00Z"}]
    bitcoin, ether = described["table"]
    assert (bitcoin["missing_hours"], bitcoin["zero_volume_hours"], bitcoin["unlisted_hours"]) == (4, 2, 0)
    assert (ether["missing_hours"], ether["zero_volume_hours"], ether["unlisted_hours"]) == (0, 0, 10)
    # 110 listed coin-hours: 100 of BTC and 10 of ETH; BTC lacks four prices.
    assert described["months"][0]["coverage"] == {"mid": round(106 / 110, 6), "funding": 1.0, "volume_usd": 1.0}


def test_status_of_the_real_data(real_cache: Path) -> None:
    described = status(Store(real_cache))
    assert (described["coins"], described["gaps"], described["delistings"]) == (172, [], [])
    assert described["end"] == "2025-04-01T00:00Z"
    assert described["fields"] == ["mid", "funding", "volume_usd", "high", "low"]
    rows = {row["coin"]: row for row in described["table"]}
    assert rows["RLB"]["zero_volume_hours"] == 2807
    assert rows["XLM"]["unlisted_hours"] == 999
    assert {"coin": "XLM", "time": "2024-11-23T03:00Z"} in described["listings"]
