"""`hlbt data import table`: tables as other programs write them, and what is refused of them."""

from __future__ import annotations

import gzip
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine.data.cache import Store
from engine.data.panel_loader import load_panel
from engine.panel import Panel
from helpers.commands import Hlbt, Outcome

HOURS = pd.date_range("2024-10-01T22:00Z", periods=30, freq="h")
RATES = 1.25e-5 + np.arange(30) * 1e-7


def candles(seed: int = 0, dates: pd.DatetimeIndex = HOURS) -> pd.DataFrame:
    """Candles by the time at which they open."""
    generator = np.random.default_rng(seed)
    close = 100 * np.exp(generator.normal(0, 0.01, len(dates)).cumsum())
    columns = {"open": close, "high": close * 1.01, "low": close * 0.99, "close": close}
    return pd.DataFrame({"time": dates, **columns, "volume": generator.integers(1, 99, len(dates)).astype(float)})


@pytest.fixture
def take(tmp_path: Path, hlbt: Hlbt) -> Any:
    """The command on a file or folder, into a cache of its own."""

    def run(path: Path, *words: object, code: int = 0) -> Outcome:
        done = hlbt("data", "import", "table", path, "--set", f"data.cache={tmp_path / 'cache'}", *words)
        assert done.code == code, done.err + done.out
        return done

    return run


def panel(tmp_path: Path) -> Panel:
    return load_panel(tmp_path / "cache")


def assert_holds(tmp_path: Path, coin: str, frame: pd.DataFrame, first: str = "2024-10-01T23:00Z") -> None:
    """The panel has the candles of the frame, from the row `first` on."""
    held = panel(tmp_path)
    row, column = held.index.get_loc(pd.Timestamp(first)), held.coins.index(coin)
    for name, values in {
        "mid": frame["close"],
        "high": frame["high"],
        "low": frame["low"],
        "volume_usd": frame["volume"] * frame["close"],
    }.items():
        np.testing.assert_allclose(held.values(name)[row : row + len(frame), column], values, rtol=1e-12)


def _numbers(factor: int) -> Any:
    return lambda frame: frame.assign(time=frame["time"].astype("datetime64[ns, UTC]").astype("int64") // factor)


SPELLINGS = {
    "seconds": (_numbers(10**9), "csv"),
    "milliseconds": (_numbers(10**6), "csv.gz"),
    "microseconds": (_numbers(10**3), "parquet"),
    "nanoseconds": (_numbers(1), "csv"),
    "seconds of floats": (lambda frame: _numbers(10**9)(frame).astype({"time": float}), "csv"),
    "ISO with Z": (lambda frame: frame.assign(time=frame["time"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")), "csv"),
    "ISO without": (lambda frame: frame.assign(time=frame["time"].dt.strftime("%Y-%m-%d %H:%M:%S")), "csv"),
    "another zone": (lambda frame: frame.assign(time=frame["time"].dt.tz_convert("Asia/Kolkata")), "parquet"),
    "an offset": (lambda frame: frame.assign(time=frame["time"].dt.tz_convert("Asia/Kolkata")), "csv"),
    "naive": (lambda frame: frame.assign(time=frame["time"].dt.tz_localize(None)), "feather"),
    "an index": (lambda frame: frame.set_index("time"), "parquet"),
    "rows numbered as before a filter": (lambda frame: frame.set_index(np.arange(30) + 7), "parquet"),
    "capitals": (lambda frame: frame.rename(columns=str.capitalize), "csv"),
    "the exchange's own": (
        lambda frame: (
            _numbers(10**6)(frame)
            .assign(T=lambda own: own["time"] + 3_599_999, s="BTC", i="1h", n=3)
            .rename(columns={"time": "t", "open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"})
        ),
        "csv",
    ),
}


def write(frame: pd.DataFrame, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".feather":
        frame.to_feather(path)
    else:
        frame.to_csv(path, index=isinstance(frame.index, pd.DatetimeIndex))
    return path


@pytest.mark.parametrize("kind", SPELLINGS)
def test_the_same_candles_however_their_time_is_written(kind: str, take: Any, tmp_path: Path) -> None:
    change, ending = SPELLINGS[kind]
    frame = candles()
    path = write(change(frame), tmp_path / f"BTC.{ending}")
    if kind == "the exchange's own":
        take(path)
    else:
        assert "--stamp open or --stamp close does" in take(path, code=1).err
        assert "taken as UTC" in take(path, "--stamp", "open").out or kind not in ("ISO without", "naive")
    assert_holds(tmp_path, "BTC", frame)
    assert panel(tmp_path).frame("tradable").all(axis=None)


@pytest.mark.parametrize("late", ["0s", "-1ms", "-1s"])
def test_a_candle_by_its_close_is_the_row_of_that_hour(late: str, take: Any, tmp_path: Path) -> None:
    frame = candles()
    moved = frame.assign(time=frame["time"] + pd.Timedelta("1h") + pd.Timedelta(late))
    take(write(moved, tmp_path / "BTC-1h.csv"), "--stamp", "close")
    assert_holds(tmp_path, "BTC", frame)


def test_ccxt_dumps_of_lists_and_of_funding(take: Any, tmp_path: Path) -> None:
    frames = {"BTC/USDC:USDC": candles(1), "KPEPE/USDC:USDC": candles(2)}
    lists = {name: _numbers(10**6)(frame).to_numpy().tolist() for name, frame in frames.items()}
    folder = tmp_path / "ccxt"
    folder.mkdir()
    with gzip.open(folder / "candles.json.gz", "wt") as file:
        json.dump(lists, file)
    (folder / "SOL_USDC_USDC.json").write_text(json.dumps(lists["BTC/USDC:USDC"]))
    rates = [
        {"symbol": "BTC/USDC:USDC", "timestamp": int(t.timestamp() * 1000) + 48, "datetime": t.isoformat(),
         "fundingRate": float(rate), "info": {}}
        for t, rate in zip(HOURS, RATES, strict=True)
    ]  # fmt: skip
    (folder / "rates.json").write_text(json.dumps(rates))
    done = take(folder)
    assert "BTC/USDC:USDC is BTC, KPEPE/USDC:USDC is kPEPE" in done.out
    assert_holds(tmp_path, "BTC", frames["BTC/USDC:USDC"])
    assert_holds(tmp_path, "SOL", frames["BTC/USDC:USDC"])
    assert_holds(tmp_path, "kPEPE", frames["KPEPE/USDC:USDC"])
    funding = panel(tmp_path).frame("funding")["BTC"].dropna()  # from the first price on
    assert funding.index[0] == HOURS[1] and funding.tolist() == RATES[1:].tolist()


def test_the_folder_of_hyperliquid_data(take: Any, tmp_path: Path) -> None:
    """Written by that package itself, which spells kPEPE in capitals in its funding."""
    from hyperliquid_data.parquet import write_candles, write_funding

    root, frame = tmp_path / "data", candles()
    for coin in ("BTC-PERP", "kPEPE-PERP"):
        times = [stamp.to_pydatetime() for stamp in frame["time"]]
        rows = zip(times, *(frame[name] for name in ("open", "high", "low", "close", "volume")), strict=True)
        write_candles(rows, root=root, source="hyperliquid", instrument=coin, timeframe="1h")
        write_funding(zip(times, RATES, strict=True), root=root, source="hyperliquid", instrument=coin.upper())
    (root / "README.md").write_text("notes")
    assert "5 files that are no tables: README.md, manifest.json" in take(root).out
    for coin in ("BTC", "kPEPE"):
        assert_holds(tmp_path, coin, frame)
        assert panel(tmp_path).frame("funding")[coin].dropna().tolist() == RATES[1:].tolist()


def test_a_wide_table_is_of_the_field_of_its_name_or_of_the_option(take: Any, tmp_path: Path) -> None:
    frame = pd.DataFrame({"BTC": candles(1)["close"].to_numpy(), "ID": candles(2)["close"].to_numpy()}, index=HOURS)
    frame.iloc[:4, 1] = np.nan
    take(write(frame, tmp_path / "close.parquet"), "--stamp", "close")
    assert "--field close" in take(write(frame, tmp_path / "table.csv"), "--stamp", "close", code=1).err
    take(write(frame * 1.001e-7, tmp_path / "table.csv"), "--field", "funding")
    held = panel(tmp_path)
    np.testing.assert_allclose(held.frame("mid"), frame, rtol=1e-12)
    np.testing.assert_allclose(held.frame("funding"), frame * 1.001e-7)


def test_five_minutes_become_hours_and_an_hour_with_a_hole_has_no_volume(take: Any, tmp_path: Path) -> None:
    dates = pd.date_range("2024-10-01T22:00Z", periods=4 * 12 + 5, freq="5min")
    frame = candles(3, dates)
    whole = frame.iloc[:48].groupby(dates[:48].floor("h"))
    hourly = whole.agg({"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"})
    holes = frame.drop([15, 35])  # the fourth candle of the second hour, the last one of the third
    done = take(write(holes.sample(frac=1, random_state=1), tmp_path / "BTC-5m.csv"), "--stamp", "open")
    for text in ("Rows every 5 minutes", "1 hours lack some", "2 hours have no row", "1 series sorted by time"):
        assert text in done.out
    assert_holds(tmp_path, "BTC", hourly.iloc[:1])
    assert_holds(tmp_path, "BTC", hourly.iloc[3:], "2024-10-02T02:00Z")
    held = panel(tmp_path)
    assert held.frame("mid")["BTC"].isna().tolist() == [False, False, True, False]
    assert held.frame("mid")["BTC"].iloc[1] == hourly["close"].iloc[1]
    assert np.isnan([held.frame(name)["BTC"].iloc[1] for name in ("high", "low", "volume_usd")]).all()


def test_a_stream_of_instants_gives_the_last_before_the_hour(take: Any, tmp_path: Path) -> None:
    """Tardis' derivative_ticker: microseconds, the running rate of funding, more than one exchange."""
    stamps = pd.to_datetime(
        ["2024-10-01T22:00:03Z", "2024-10-01T22:59:59.5Z", "2024-10-01T23:00:00Z"], format="ISO8601"
    )
    frame = pd.DataFrame(
        {
            "exchange": ["hyperliquid", "hyperliquid", "hyperliquid"],
            "symbol": "BTC",
            "timestamp": stamps.astype("datetime64[ns, UTC]").astype("int64") // 1000,
            "local_timestamp": 1,
            "funding_rate": 1e-5,
            "last_price": [1.0, 2.0, 3.0],
            "mark_price": [10.0, 0.0, 30.0],
            "open_interest": [5.0, 6.0, 7.0],
        }
    )
    other = frame.assign(exchange="binance-futures", last_price=9.0)
    done = take(write(pd.concat([frame, other]), tmp_path / "ticker.csv.gz"))
    assert "3 rows of other exchanges left out" in done.out and "stream of instants has the estimate" in done.out
    held = panel(tmp_path)
    assert held.frame("mid")["BTC"].tolist() == [2.0, 3.0] and "funding" not in held.fields
    assert held.frame("open_interest")["BTC"].tolist() == [6.0, 7.0]
    np.testing.assert_array_equal(held.frame("mark")["BTC"], [np.nan, 30.0])


def test_a_dry_run_shows_what_is_understood_and_writes_nothing(take: Any, tmp_path: Path) -> None:
    frame = pd.concat(
        [candles(1).assign(symbol="1000PEPE"), candles(2).assign(symbol="x-USD"), candles(3).assign(symbol="Y")]
    )
    path = write(frame.assign(note="x"), tmp_path / "table.csv")
    words = ("--stamp", "open", "--map", "x-USD=ETH", "--map", "Y=ignore", "--dry-run")
    done = take(path, *words, "--json")
    understood = done.json["understood"]
    assert understood["coins"] == {"1000PEPE": "kPEPE", "x-USD": "ETH"} and understood["every"] == {"1 hour": 2}
    assert (understood["first"], understood["last"]) == ("2024-10-01 23:00 UTC", "2024-10-03 04:00 UTC")
    assert understood["sample"][0]["coin"] == "kPEPE" and understood["sample"][0]["mid"] == frame["close"].iloc[0]
    assert next(iter(understood["layouts"])).endswith("ignored: note")
    assert "A dry run: nothing was written." in take(path, *words).out
    assert not (tmp_path / "cache").exists()
    assert "no column and no coin under" in take(path, "--stamp", "open", "--map", "zz=BTC", "--dry-run", code=1).err


def _funding(rate: Any, hours: pd.DatetimeIndex = HOURS) -> pd.DataFrame:
    return pd.DataFrame({"timestamp": hours, "coin": "BTC", "rate": rate})


REFUSED: dict[str, tuple[Any, tuple[str, ...], str]] = {
    "daily": (candles(0, pd.date_range("2024-10-01", periods=9, tz="UTC")), ("--stamp", "close"), "a row every 1 day"),
    "off the hour": (candles(0, HOURS + pd.Timedelta("30min")), ("--stamp", "open"), "a candle off the hour"),
    "two prices": (candles().assign(mid=1.0), ("--stamp", "open"), "may both be the price: --map mid=ignore"),
    "against its name": (candles().rename(columns={"time": "open_time"}), ("--stamp", "close"), "against --stamp"),
    "mixed units": (
        _numbers(10**9)(candles()).assign(time=lambda own: own["time"].where(own.index > 3, own["time"] * 1000)),
        ("--stamp", "open"),
        "all must be seconds",
    ),
    "half a zone": (
        candles().assign(time=lambda own: own["time"].astype(str).where(own.index > 0, "2024-10-01 22:00:00")),
        ("--stamp", "open"),
        "with a zone and without",
    ),
    "day first": (candles().assign(time="01/10/2024 22:00"), ("--stamp", "open"), "stamps are ISO 8601"),
    "two candles": (
        pd.concat([candles(1), candles(2).iloc[:1]]).assign(coin="BTC"), ("--stamp", "open"), "has two candles",
    ),
    "text": (candles().assign(close="1,5"), ("--stamp", "open"), "'1,5' in the column close"),
    "no price": (candles().drop(columns="close"), ("--stamp", "open"), "has no close"),
    "thousands": (candles().assign(coin="PEPE"), ("--stamp", "open"), "is traded in thousands, as kPEPE"),
    "spot": (candles().assign(coin="HYPE/USDC"), ("--stamp", "open"), "is a spot market"),
    "another exchange": (candles().assign(coin="BTC/USDT:USDT"), ("--stamp", "open"), "another market or exchange"),
    "no stamp": (candles().assign(time=[None, *HOURS[1:]]), ("--stamp", "open"), "1 rows without a time"),
    "no coin": (candles().assign(coin=[None, *["BTC"] * 29]), ("--stamp", "open"), "1 rows without a coin"),
    "negative": (candles().assign(low=-1.0), ("--stamp", "open"), "no candle that can be; the first, at"),
    "percent": (_funding(np.where(np.arange(30) % 3 == 0, 1e-3, 1.25e-3)), (), "--scale funding=0.01"),
    "8 hours": (_funding(1e-4), (), "it is of 8 hours? --scale funding=0.125"),
    "a cap": (_funding(0.05), (), "above the exchange's cap"),
    "every 8 hours": (
        _funding(RATES, pd.date_range("2024-10-01", periods=30, freq="8h", tz="UTC")), (), "every 8 hours",
    ),
    "two rates": (pd.concat([_funding(RATES), _funding(RATES * 2)]), (), "two rates for one hour"),
    "which column": (_funding(RATES).assign(symbol="x"), (), "has coin and symbol, which may both be the coin"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_clear_or_not_right_is_refused_and_nothing_is_written(kind: str, take: Any, tmp_path: Path) -> None:
    frame, words, text = REFUSED[kind]
    done = take(write(frame, tmp_path / "BTC.csv"), *words, code=1)
    assert text in done.err and not (tmp_path / "cache").exists()


WRONG = {
    "close": (1000.0, "close "),
    "open": (1000.0, "open "),
    "low": (-1.0, "is not a positive price"),
    "high": (0.0, "high 0 is not"),
    "volume": (-1.0, "is not zero or more"),
}


@pytest.mark.parametrize("column", WRONG)
def test_a_candle_that_cannot_be_is_set_aside_and_refused_with_strict(column: str, take: Any, tmp_path: Path) -> None:
    factor, reason = WRONG[column]
    frame = candles()
    frame.loc[5, column] *= factor
    path = write(frame, tmp_path / "BTC.csv")
    refused = take(path, "--stamp", "open", "--strict", code=1)
    assert "1 impossible prices, the first of BTC at 2024-10-02 04:00 UTC" in refused.err
    assert not (tmp_path / "cache/manifest.json").exists() or not Store(tmp_path / "cache").manifest().files
    done = take(path, "--stamp", "open")
    assert "1 impossible prices set aside (BTC at 2024-10-02 04:00 UTC" in done.out and reason in done.out
    mids = panel(tmp_path).frame("mid")["BTC"]
    assert mids.isna().tolist() == [place == 5 for place in range(30)]


def test_a_short_candle_that_cannot_be_counts_as_missing(take: Any, tmp_path: Path) -> None:
    frame = candles(0, pd.date_range("2024-10-01T22:00Z", periods=36, freq="5min"))
    frame.loc[3, "low"], frame.loc[23, "close"] = -5.0, 0.0
    done = take(write(frame, tmp_path / "BTC.csv"), "--stamp", "open")
    assert "2 impossible prices" in done.out and "1 hours have no row, since their last candle" in done.out
    held = panel(tmp_path)
    np.testing.assert_array_equal(held.values("mid")[:, 0], [frame["close"][11], np.nan, frame["close"][35]])
    assert np.isnan(held.values("low")[0, 0]) and held.values("low")[2, 0] == frame["low"][24:].min()


@pytest.mark.parametrize(("separator", "decimal"), [(";", "."), (";", ","), ("\t", "."), ("|", ",")])
@pytest.mark.parametrize("header", [True, False])
def test_columns_parted_by_other_signs(separator: str, decimal: str, header: bool, take: Any, tmp_path: Path) -> None:
    frame = candles()
    path = tmp_path / "BTC-1h.csv"
    _numbers(10**6)(frame).to_csv(path, index=False, sep=separator, decimal=decimal, header=header)
    take(path, "--stamp", "open")
    assert_holds(tmp_path, "BTC", frame)


def test_longer_candles_of_a_coin_that_has_hours_too_are_named_and_no_problem(take: Any, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    frame = candles()
    write(frame, folder / "BTC-1h.csv")
    for freq in ("4h", "1D"):
        write(candles(1, pd.date_range("2024-10-01", periods=9, freq=freq, tz="UTC")), folder / f"BTC-{freq}.csv")
    done = take(folder, "--stamp", "open")
    assert "Ignored, 2 of coins that have shorter candles, too" in done.out and "a row every 4 hours" in done.out
    assert_holds(tmp_path, "BTC", frame)
    write(candles(1, pd.date_range("2024-10-01", periods=9, freq="4h", tz="UTC")), folder / "ETH-4h.csv")
    assert "ETH in" in take(folder, "--stamp", "open", code=1).err


def test_a_dry_run_sees_what_would_be_refused(take: Any, tmp_path: Path) -> None:
    frame = candles()
    write(frame, tmp_path / "data/BTC-PERP.csv")
    write(frame.assign(close=frame["close"] * 1.002), tmp_path / "data/BTC_USDC_USDC.csv")
    dry = take(tmp_path / "data", "--stamp", "open", "--dry-run", code=1)
    assert "BTC mid: 30 cells differ" in dry.err and "120 values added" in dry.out
    assert not (tmp_path / "cache").exists()
    assert "BTC mid: 30 cells differ" in take(tmp_path / "data", "--stamp", "open", code=1).err


def test_quotes_without_a_mid_old_ones_and_crossed_ones(take: Any, tmp_path: Path) -> None:
    stamps = pd.to_datetime([f"2024-10-01T{hour}Z" for hour in ("00:59", "01:30", "02:59", "03:59", "04:59")])
    frame = pd.DataFrame({"timestamp": stamps, "symbol": "BTC", "bid_price": 99.0, "ask_price": 101.0})
    frame.loc[2, "bid_price"], frame.loc[3, "bid_price"] = 102.0, 0.0
    done = take(write(frame, tmp_path / "quotes.csv"))
    assert "1 rows of records over 5 minutes old" in done.out and "mid is half of bid plus ask" in done.out
    held = panel(tmp_path)
    np.testing.assert_array_equal(held.values("mid")[:, 0], [100.0, 100.0, np.nan, np.nan, 100.0])
    np.testing.assert_array_equal(held.values("bid")[:, 0], [99.0, np.nan, np.nan, np.nan, 99.0])
    assert held.tradable[:, 0].tolist() == [True, False, False, False, True]


def test_percent_by_name_and_by_word_and_the_rates_of_8_hours_of_2023(take: Any, tmp_path: Path) -> None:
    frame = _funding(RATES * 100)
    take(write(frame.rename(columns={"rate": "funding_rate_pct"}), tmp_path / "named.csv"))
    take(write(frame.assign(coin="ETH"), tmp_path / "said.csv"), "--scale", "funding=0.01")
    early = pd.date_range("2023-05-20", periods=30, freq="8h", tz="UTC")
    take(write(_funding(1e-4, early).assign(coin="SOL"), tmp_path / "early.csv"))
    store = Store(tmp_path / "cache")
    held = {entry.month: store.read(entry).fields["funding"] for entry in store.require().files.values()}
    np.testing.assert_allclose(held["2024-10"], [*RATES, *RATES])
    assert set(held["2023-05"]) == {1e-4}


def test_what_is_not_finished_is_left_out(take: Any, tmp_path: Path) -> None:
    """The last candle of a download runs: it ends after the file was written, or is yet to end."""
    path = write(candles(), tmp_path / "BTC.csv")
    written = datetime(2024, 10, 3, 3, 20, tzinfo=UTC).timestamp()
    os.utime(path, (written, written))
    assert "1 candles that were not finished left out" in take(path, "--stamp", "open").out
    assert panel(tmp_path).index[-1] == pd.Timestamp("2024-10-03T03:00Z")
    now = pd.Timestamp.now("UTC").floor("h")
    path = write(candles(0, pd.date_range(end=now, periods=30, freq="h")), tmp_path / "ETH.csv")
    take(path, "--stamp", "open")
    assert load_panel(tmp_path / "cache", coins=["ETH"]).index[-1] <= pd.Timestamp.now("UTC")


def test_a_table_yields_to_the_exchange_and_settled_rates_to_none_but_its(take: Any, tmp_path: Path) -> None:
    from helpers.api_world import rows_table

    store, hour = Store(tmp_path / "cache"), int(HOURS[1].timestamp()) // 3600
    store.merge([rows_table({"mid": {hour: 7.0}, "funding": {hour: 9e-5}})], "s3")
    store.merge([rows_table({"mid": {hour + 1: 8.0}})], "api")
    take(write(candles(), tmp_path / "BTC.csv"), "--stamp", "open")
    take(write(_funding(RATES), tmp_path / "funding.csv"))
    held = panel(tmp_path)
    assert held.frame("mid")["BTC"].loc[[HOURS[1], HOURS[2]]].tolist() == [7.0, 8.0]
    assert held.frame("funding")["BTC"].loc[HOURS[1]] == RATES[1]
