from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.data.cache import Store
from engine.data.freqtrade import import_freqtrade
from engine.data.panel_loader import load_panel
from engine.data.schema import to_table
from engine.errors import DataError
from engine.panel import Panel
from helpers.commands import Hlbt


def candles(
    folder: Path, coin: str, close: list[float] | list[str], start: str = "2024-10-01T22:00Z", **columns: object
) -> Path:
    frame = pd.DataFrame({"date": pd.date_range(start, periods=len(close), freq="h", unit="ns"), "close": close})
    for name in ("open", "high", "low"):
        frame[name] = frame["close"]
    frame["volume"] = np.arange(1.0, len(close) + 1)
    for name, values in columns.items():
        frame[name] = values
    path = folder / f"{coin}_USDC_USDC-1h-futures.feather"
    frame.to_feather(path)
    return path


def funding(folder: Path, coin: str, rate: list[float], dates: list[str]) -> Path:
    frame = pd.DataFrame({"date": pd.to_datetime(dates, utc=True, format="ISO8601").as_unit("ns"), "open": rate})
    for name in ("high", "low", "close", "volume"):
        frame[name] = 0.0
    path = folder / f"{coin}_USDC_USDC-1h-funding_rate.feather"
    frame.to_feather(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Freqtrade's layout, with one good coin."""
    folder = tmp_path / "hyperliquid" / "futures"
    folder.mkdir(parents=True)
    candles(folder, "BTC", [100.0, 110.0, 121.0])
    stamps = ["2024-10-01 23:00:00.048", "2024-10-02 00:00:01.218", "2024-10-02 01:00:00"]
    funding(folder, "BTC", [1e-5, -2e-5, 3e-5], stamps)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture(scope="module")
def real(real_cache: Path) -> Panel:
    return load_panel(real_cache)


def test_a_candle_is_the_row_at_which_it_closes_and_funding_the_row_it_settles(store: Store, folder: Path) -> None:
    report = import_freqtrade(store, folder.parent)
    assert (report.problems, dict(report.counts), report.merge.added) == ([], {"files": 2, "coins": 1}, 15)
    panel = load_panel(store.path)
    assert panel.index[0] == pd.Timestamp("2024-10-01T23:00Z")
    assert panel.values("mid")[:, 0].tolist() == [100.0, 110.0, 121.0]
    assert panel.values("volume_usd")[:, 0].tolist() == [100.0, 220.0, 363.0]
    assert panel.values("funding")[:, 0].tolist() == [1e-5, -2e-5, 3e-5]
    assert panel.tradable[:, 0].all()


def _values(frame: pd.DataFrame, path: Path) -> None:
    """Freqtrade's JsonDataHandler: lists without names, the date in milliseconds."""
    frame = frame.assign(date=frame["date"].dt.as_unit("ms").astype("int64"))
    frame.to_json(path, orient="values", compression="gzip" if path.suffix == ".gz" else None)


def _hdf5(frame: pd.DataFrame, path: Path) -> None:
    """The HDF5DataHandler that freqtrade had until 2025."""
    key = path.name.replace("-", "/ohlcv/tf_", 1).removesuffix(".h5").replace("-", "_")
    frame.to_hdf(path, key=key, mode="a", complevel=9, complib="blosc", format="table", data_columns=["date"])


FORMATS = {"parquet": pd.DataFrame.to_parquet, "json": _values, "json.gz": _values, "h5": _hdf5}


@pytest.mark.parametrize("ending", FORMATS)
def test_the_other_formats_of_freqtrade_have_the_same_rows(ending: str, store: Store, folder: Path) -> None:
    """Funding of 2026 has a column of its own and 1h in its name, or 8h; the rates are the same."""
    import_freqtrade(store, folder)
    before = load_panel(store.path)
    for path in sorted(folder.glob("*.feather")):
        frame = pd.read_feather(path)
        name = path.name.replace(".feather", f".{ending}")
        if "funding" in name and ending != "h5":
            frame, name = frame[["date", "open"]].set_axis(["date", "funding_rate"], axis=1), name.replace("1h", "8h")
        FORMATS[ending](frame, path.with_name(name))
        path.unlink()
    other = Store(store.path.with_name("other"))
    report = import_freqtrade(other, folder)
    assert (report.problems, dict(report.counts)) == ([], {"files": 2, "coins": 1})
    after = load_panel(other.path)
    for name in before.fields:
        np.testing.assert_allclose(after.values(name), before.values(name), rtol=1e-12)


def test_hdf5_without_its_library_is_named_with_the_cure(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "ETH_USDC_USDC-1h-futures.h5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "tables", None)
    (aside,) = import_freqtrade(store, folder).skipped
    assert "pip install tables" in aside.reason


def test_short_candles_mark_and_the_files_that_are_ignored(store: Store, folder: Path) -> None:
    prices = np.arange(1.0, 26.0)
    frame = pd.read_feather(candles(folder, "KPEPE", prices.tolist()))
    frame["date"] = pd.date_range("2024-10-01T22:00Z", periods=25, freq="5min")
    (folder / "KPEPE_USDC_USDC-1h-futures.feather").unlink()
    frame.to_feather(folder / "KPEPE_USDC_USDC-5m-futures.feather")
    mark = pd.read_feather(folder / "BTC_USDC_USDC-1h-futures.feather").assign(close=[7.0, 8.0, 9.0])
    mark.to_feather(folder / "BTC_USDC_USDC-1h-mark.feather")
    for name in ("BTC_USDC_USDC-4h-futures", "BTC_USDC_USDC-5m-futures", "UBTC_USDC-1h", "BTC_USDC_USDC-trades"):
        mark.to_feather(folder / f"{name}.feather")
    report = import_freqtrade(store, folder)
    assert not report.problems
    ignored, names, holes = report.notes
    assert ignored.startswith("Ignored, 4 files") and "BTC_USDC_USDC-4h-futures.feather" in ignored
    assert (names, holes[:19]) == ("Names of the exchange: KPEPE is kPEPE.", "1 hours have no row")
    panel = load_panel(store.path)
    assert panel.frame("mark")["BTC"].tolist() == [7.0, 8.0, 9.0]
    kpepe = {name: panel.frame(name)["kPEPE"].dropna().tolist() for name in ("mid", "high", "low", "volume_usd")}
    assert kpepe == {"mid": [12, 24], "high": [12, 24], "low": [1, 13], "volume_usd": [78 * 12, 222 * 24]}
    mark.to_parquet(folder / "BTC_USDC_USDC-1h-mark.parquet")
    with pytest.raises(DataError, match="are the same data in two formats"):
        import_freqtrade(store, folder)


def test_importing_again_writes_nothing(store: Store, folder: Path) -> None:
    import_freqtrade(store, folder)
    before = (store.path / "manifest.json").read_bytes()
    report = import_freqtrade(store, folder)
    assert (report.merge.wrote, report.merge.same) == (False, 15)
    assert (store.path / "manifest.json").read_bytes() == before


def test_a_folder_without_files_says_what_was_looked_for(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\*_USDC_USDC-1h-futures.feather or \*_USDC_USDC-1h-funding_rate.feather"):
        import_freqtrade(store, tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        import_freqtrade(store, tmp_path / "absent")
    assert not store.path.exists()


def test_a_coin_that_is_there_twice_is_refused(store: Store, folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "copy")
    with pytest.raises(DataError, match=r"BTC_USDC_USDC-1h-funding_rate.feather exists twice"):
        import_freqtrade(store, folder.parent)


def _truncated(folder: Path) -> Path:
    path = candles(folder, "BAD", [1.0] * 500)
    path.write_bytes(path.read_bytes()[:-700])
    return path


def _text(folder: Path) -> Path:
    path = folder / "BAD_USDC_USDC-1h-futures.feather"
    path.write_text("date,open\n")
    return path


def _without(folder: Path) -> Path:
    path = candles(folder, "BAD", [1.0])
    pd.read_feather(path).drop(columns="volume").to_feather(path)
    return path


STAMPS = pd.to_datetime(["2024-10-01T00:00Z", "2024-10-01T01:00Z"]).as_unit("ns")
FOREIGN = {
    "truncated": (_truncated, "truncated or another format"),
    "text": (_text, "truncated or another format"),
    "empty": (lambda folder: candles(folder, "BAD", []), "has no rows"),
    "column": (_without, "has no column volume but date, close"),
    "type": (lambda folder: candles(folder, "BAD", ["x"]), "has the column close as"),
    "naive": (
        lambda folder: candles(folder, "BAD", [1.0, 2.0], date=STAMPS.tz_localize(None)),
        "has the column date as timestamp",
    ),
    "no date": (
        lambda folder: candles(folder, "BAD", [1.0, 2.0], date=[STAMPS[0], None]),
        "has 1 rows without a date",
    ),
    "order": (
        lambda folder: candles(folder, "BAD", [1.0, 2.0], date=STAMPS[::-1]),
        "a candle out of order at 2024-10-01 00",
    ),
    "twice": (
        lambda folder: candles(folder, "BAD", [1.0, 2.0], date=STAMPS[[0, 0]]),
        "has two candles at 2024-10-01 00:00 UTC",
    ),
    "half past": (
        lambda folder: candles(folder, "BAD", [1.0, 2.0], start="2024-10-01T22:30Z"),
        "has a candle off the hour at 2024-10-01 22:30 UTC",
    ),
    "two rates": (
        lambda folder: funding(folder, "BAD", [1e-5, 2e-5], ["2024-10-01 23:00:00.1", "2024-10-01 23:00:00.9"]),
        r"has two rates for one hour \(2e-05\) at 2024-10-01 23:00 UTC",
    ),
    "rate order": (
        lambda folder: funding(folder, "BAD", [1e-5, 2e-5], ["2024-10-02 00:00", "2024-10-01 23:00"]),
        "has a rate out of order",
    ),
    "infinite rate": (
        lambda folder: funding(folder, "BAD", [np.inf], ["2024-10-02 00:00"]),
        "not finite",
    ),
}


@pytest.mark.parametrize("wrong", [{"close": 0.0}, {"close": np.nan}, {"low": -1.0}, {"volume": -1.0}, {"open": 1e6}])
def test_one_candle_that_cannot_be_costs_its_hour(store: Store, folder: Path, wrong: dict[str, float]) -> None:
    path = candles(folder, "ETH", [2.0] * 5)
    frame = pd.read_feather(path)
    for name, value in wrong.items():
        frame.loc[2, name] = value
    frame.to_feather(path)
    with pytest.raises(DataError, match=r"1 impossible prices, the first of ETH at 2024-10-02 01:00 UTC"):
        import_freqtrade(Store(store.path, strict=True), folder)
    report = import_freqtrade(store, folder)
    assert not report.problems and [price.coin for price in report.merge.impossible] == ["ETH"]
    eth = load_panel(store.path).frame("mid")["ETH"]
    assert eth["2024-10-01T23:00Z":"2024-10-02T03:00Z"].isna().tolist() == [False, False, True, False, False]


@pytest.mark.slow
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_that_cannot_be_used_is_named_and_the_others_are_imported(store: Store, folder: Path, kind: str) -> None:
    make, reason = FOREIGN[kind]
    path = make(folder)
    report = import_freqtrade(store, folder)
    assert report.problems
    (aside,) = report.skipped
    assert aside.name == str(path)
    assert report.problems[0].startswith(str(path))
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(aside.reason)
    assert report.merge.added == 15
    assert load_panel(store.path).coins == ("BTC",)


def test_when_no_file_can_be_used_nothing_is_written(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    path = _text(folder)
    with pytest.raises(DataError, match=f"None of the 1 files .* The first: {path} cannot be read"):
        import_freqtrade(store, folder)
    assert not store.path.exists()


@pytest.mark.parametrize("by", ["file", "clock"])
def test_the_candle_that_still_ran_is_not_stored(by: str, store: Store, folder: Path) -> None:
    path = candles(folder, "ETH", [2.0, 2.0, 99.0])
    moment = pd.Timestamp("2024-10-02T00:20Z")
    if by == "file":
        os.utime(path, (moment.timestamp(), moment.timestamp()))
    report = import_freqtrade(store, folder, now=moment if by == "clock" else None)
    assert any("candles that were not finished left out" in note for note in report.notes)
    eth = load_panel(store.path).frame("mid")["ETH"].dropna()
    assert eth.tolist() == [2.0, 2.0] and eth.index[-1] == pd.Timestamp("2024-10-02T00:00Z")


def test_a_rate_stamped_twice_is_kept_once(store: Store, folder: Path) -> None:
    stamps = ["2024-10-01 23:00:00.1", "2024-10-01 23:00:00.9", "2024-10-02 00:00:00.5"]
    funding(folder, "BTC", [1e-5, 1e-5, 4e-5], stamps)
    report = import_freqtrade(store, folder)
    assert not report.problems
    values = load_panel(store.path).values("funding")[:, 0]
    assert values[:2].tolist() == [1e-5, 4e-5]
    assert np.isnan(values[2])


def test_a_volume_that_is_not_known_is_absent_not_zero(store: Store, folder: Path) -> None:
    candles(folder, "ETH", [1.0, 2.0, 3.0], volume=[5.0, np.nan, 0.0])
    funding(folder, "ETH", [0.0], ["2024-10-01 22:00"])
    assert not import_freqtrade(store, folder).problems
    panel = load_panel(store.path, coins=["ETH"])
    np.testing.assert_array_equal(panel.values("volume_usd")[:, 0], [5.0, np.nan, 0.0])
    assert panel.tradable[:, 0].tolist() == [True, False, False]


def test_a_changed_candle_is_reported_and_kept_unless_replaced(store: Store, folder: Path) -> None:
    import_freqtrade(store, folder)
    candles(folder, "BTC", [100.0, 110.0, 122.0])
    report = import_freqtrade(store, folder)
    assert report.problems
    assert [(conflict.field, conflict.cells, conflict.cached, conflict.new) for conflict in report.merge.conflicts] == [
        ("high", 1, 121.0, 122.0),
        ("low", 1, 121.0, 122.0),
        ("mid", 1, 121.0, 122.0),
        ("volume_usd", 1, 363.0, 366.0),
    ]
    assert "BTC mid: 1 cells differ, the first at 2024-10-02 01:00 UTC" in report.problems[2]
    assert load_panel(store.path).values("mid")[2, 0] == 121.0
    assert import_freqtrade(store, folder, replace=True).merge.changed == 4
    assert load_panel(store.path).values("mid")[2, 0] == 122.0


def test_the_command_says_how_far_sources_are_apart(store: Store, folder: Path, hlbt: Hlbt) -> None:
    import_freqtrade(store, folder)
    rows = store.read(next(iter(store.require().files.values())), ["mid"])
    store.merge([to_table(rows.coins, rows.codes, rows.hours, {"mid": rows.fields["mid"] * 2})], "s3")
    done = hlbt("data", "import", "freqtrade", folder, "--set", f"data.cache={store.path}")
    assert done.code == 0 and "0 values added" in done.out
    assert "Sources differ: mid: s3 over freqtrade in 3 cells, of which 3 differ by more than 0.1%" in done.out


def test_progress_counts_files_then_months(store: Store, folder: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    import_freqtrade(store, folder, progress=lambda *call: calls.append(call))
    files = ["BTC_USDC_USDC-1h-funding_rate.feather", "BTC_USDC_USDC-1h-futures.feather"]
    assert calls == [(0, 2, files[0]), (1, 2, files[1]), (2, 2, "read"), (0, 1, "2024-10"), (1, 1, "commit")]


# The real files.


@pytest.mark.parametrize(
    ("coin", "listed", "priced_before"),
    [
        ("XLM", "2024-11-23T03:00Z", 999),
        ("SAND", "2024-12-04T13:00Z", None),
        ("MORPHO", "2025-01-17T09:00Z", 934),
        ("SPX", "2025-01-07T06:00Z", 665),
    ],
)
def test_candles_before_the_first_funding_stamp_are_no_market(
    real: Panel, coin: str, listed: str, priced_before: int | None
) -> None:
    column = real.coins.index(coin)
    row = real.index.get_loc(pd.Timestamp(listed))
    assert real.table[column].listed == pd.Timestamp(listed)
    prices = int((~np.isnan(real.values("mid")[:row, column])).sum())
    assert prices > 500 if priced_before is None else prices == priced_before
    assert not real.tradable[:row, column].any()
    assert real.tradable[row : row + 24, column].mean() > 0.9


def test_a_dead_tail_is_not_tradable(real: Panel) -> None:
    column = real.coins.index("RLB")
    still = real.values("volume_usd")[:, column] == 0
    assert int(still.sum()) == 2807
    assert not real.tradable[still, column].any()
    # The longest silence: a flat price for nearly two days, at which no order could have been filled.
    edges = np.flatnonzero(np.diff(np.r_[False, still, False].astype(int)))
    first, stop = max(zip(edges[::2], edges[1::2], strict=True), key=lambda run: run[1] - run[0])
    assert stop - first == 47
    assert len(set(real.values("mid")[first:stop, column])) == 1
    assert not real.tradable[first:stop, column].any()


def test_real_rows_are_the_files_rows(real: Panel, freqtrade_folder: Path) -> None:
    for coin in ("BTC", "kPEPE", "VVV"):
        column = real.coins.index(coin)
        frame = pd.read_feather(freqtrade_folder / f"{coin}_USDC_USDC-1h-futures.feather").set_index("date")
        rates = pd.read_feather(freqtrade_folder / f"{coin}_USDC_USDC-1h-funding_rate.feather").set_index("date")
        row = real.index.get_loc(pd.Timestamp("2025-02-03T23:00Z"))
        candle = frame.loc["2025-02-03 22:00:00+00:00"]
        assert real.values("mid")[row, column] == candle["close"]
        assert real.values("volume_usd")[row, column] == candle["volume"] * candle["close"]
        rates.index = rates.index.floor("h")
        assert real.values("funding")[row, column] == rates.loc["2025-02-03 23:00:00+00:00", "open"]
        assert int((~np.isnan(real.values("mid")[:, column])).sum()) == len(frame)
        mids = real.values("mid")[:, column]
        np.testing.assert_array_equal(mids[~np.isnan(mids)], frame["close"].to_numpy())


def test_all_real_files_are_taken(real: Panel, freqtrade_folder: Path, real_cache: Path, tmp_path: Path) -> None:
    assert len(real.coins) == 172
    assert real.index[-1] == pd.Timestamp("2025-04-01T00:00Z")
    # The shared folder is read-only; a copy with one file cut short still brings the rest.
    part = tmp_path / "part"
    part.mkdir()
    for coin in ("BTC", "ETH"):
        for name in ("futures", "funding_rate"):
            source = freqtrade_folder / f"{coin}_USDC_USDC-1h-{name}.feather"
            (part / source.name).write_bytes(source.read_bytes())
    cut = part / "ETH_USDC_USDC-1h-futures.feather"
    cut.write_bytes(cut.read_bytes()[:50_000])
    store = Store(tmp_path / "cache")
    report = import_freqtrade(store, part)
    assert [aside.name for aside in report.skipped] == [str(cut)]
    panel = load_panel(store.path)
    assert panel.coins == ("BTC",)
    np.testing.assert_array_equal(
        panel.values("mid")[:, 0], load_panel(real_cache, panel.index[0], coins=["BTC"]).values("mid")[:, 0]
    )


@pytest.mark.parametrize("coins", [3, 12])
def test_funding_that_begins_late_for_many_coins_lists_none_of_them_late(
    coins: int, store: Store, tmp_path: Path, hlbt: Hlbt
) -> None:
    """Candles from October, funding of all but one coin from 12 days later; that one is listed when it says so."""
    folder, late = tmp_path / "late", "2024-10-13 22:00"
    folder.mkdir()
    names = [f"C{number}" for number in range(coins)]
    for name in [*names, "NEW"]:
        candles(folder, name, [100.0] * 400)
        funding(folder, name, [1e-5], ["2024-10-15 22:00" if name == "NEW" else late])
    where = ("--set", f"data.cache={store.path}")
    done = hlbt("data", "import", "freqtrade", folder, *where)
    note = f"The funding of {coins} coins begins at 2024-10-13 22:00 UTC, though their prices begin before"
    assert done.code == 0 and note in done.out
    panel = load_panel(store.path)
    listed = {coin.name: coin.listed for coin in panel.table}
    assert {listed[name] for name in names} == {panel.index[0]}
    assert listed["NEW"] == pd.Timestamp("2024-10-15T22:00Z")
    assert panel.frame("tradable")[names].all(axis=None)
    words = ("--oracle", "research.oracles.equal_weight:EqualWeight", "--no-report", "--out", tmp_path / "run", *where)
    done = hlbt("backtest", *words, "--json")
    assert done.code == 0 and any(note in text for text in done.json["notes"]), done.err
    # A panel of that one coin has no such hole.
    assert load_panel(store.path, coins=["NEW"]).notes == ()
