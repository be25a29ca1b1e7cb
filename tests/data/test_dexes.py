"""Coins of several dexes: their names, which of them are meant, and that no dex changes what another's rows mean."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.config import RunConfig
from engine.data.cache import Store
from engine.data.cache_status import status
from engine.data.coin_names import select_coins
from engine.data.freqtrade import import_freqtrade
from engine.data.panel_loader import load_panel
from engine.errors import ConfigError, DataError
from engine.oracles.weights_file import WeightsFile
from helpers.commands import Hlbt
from helpers.stores import table

HOURS = 60
MAIN, XYZ = ["BTC", "kPEPE"], ["xyz:NVDA", "xyz:TSLA"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two days of two dexes; the rows of ``xyz`` alone have a volume, and end a day later."""
    store = Store(tmp_path / "cache")
    prices = np.linspace(100.0, 101.0, HOURS)
    store.merge([table({coin: prices for coin in MAIN})], "api")
    longer = np.append(prices, [102.0] * 48)
    volume = {coin: np.full(len(longer), 5.0) for coin in XYZ}
    store.merge([table({coin: longer for coin in XYZ}, volume_usd=volume)], "api")
    return store


def test_the_main_dex_is_what_it_was_whatever_else_the_cache_has(store: Store, tmp_path: Path) -> None:
    alone = Store(tmp_path / "alone")
    alone.merge([table({coin: np.linspace(100.0, 101.0, HOURS) for coin in MAIN})], "api")
    panel = load_panel(store.path)
    assert panel.coins == ("BTC", "kPEPE") and len(panel.index) == HOURS and panel.tradable.all()
    # Neither delisted, though its source goes on for another dex, nor without a market where that one has volume.
    assert all(coin.delisted is None for coin in panel.table) and panel.digest == load_panel(alone.path).digest
    both = load_panel(store.path, coins=["*", "xyz:*"])
    assert both.tradable[:HOURS].all() and len(both.index) == HOURS + 48
    assert [coin.delisted for coin in both.table] == [None] * 4
    assert status(store)["delistings"] == [] and status(store)["renames"] == []


@pytest.mark.parametrize(
    ("settings", "coins"),
    [
        ({}, MAIN),
        ({"dexes": ["", "xyz"]}, [*MAIN, *XYZ]),
        ({"dexes": "xyz"}, XYZ),
        ({"dexes": ",xyz"}, [*MAIN, *XYZ]),
        ({"coins": ["xyz:TSLA", "BTC"]}, ["xyz:TSLA", "BTC"]),
        ({"coins": ["xyz:*", "BTC"]}, [*XYZ, "BTC"]),
        ({"coins": ["xyz:TSLA", "xyz:*"]}, ["xyz:TSLA", "xyz:NVDA"]),
        ({"coins": ["k*"]}, ["kPEPE"]),
        ({"coins": ["*"], "dexes": ["xyz"]}, MAIN),
    ],
)
def test_which_coins_are_meant(store: Store, settings: dict[str, object], coins: list[str]) -> None:
    data = RunConfig.from_dict({"data": settings}).data
    assert list(load_panel(store.path, coins=data.selection).coins) == coins


def test_a_dex_that_is_not_there(store: Store) -> None:
    with pytest.raises(DataError, match=r"no price of data.dexes = \['flx'\], but of \['', 'xyz'\]"):
        load_panel(store.path, coins=["flx:*"])
    with pytest.raises(DataError, match=r"does not know xyz:TSLB. Did you mean 'xyz:TSLA'"):
        load_panel(store.path, coins=["xyz:TSLB"])
    for wrong in (["XYZ"], ["xyz:"], [], [1], 5):
        with pytest.raises(ConfigError, match=r"data.dexes = .* is not accepted"):
            RunConfig.from_dict({"data": {"dexes": wrong}})
    assert "dexes" not in RunConfig().to_dict()["data"]
    named = RunConfig.from_dict({"data": {"dexes": ["", "xyz", "xyz"]}})
    assert RunConfig.from_dict(named.to_dict()) == named and named.digest != RunConfig().digest


def test_patterns_are_of_one_dex_and_have_no_other_sign() -> None:
    known = ["A", "AB", "x:A", "x:AB", "y:A", "[A]"]
    assert select_coins(["A*", "x:*"], known) == (["A", "AB", "x:A", "x:AB"], [])
    assert select_coins(["[A]*", "?", "z:*", "x:A", "*A"], known) == (["[A]", "x:A", "A"], ["?", "z:*"])


def test_a_weights_file_of_another_dex_needs_no_setting(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("time,BTC,xyz:TSLA\n2024-02-01T23:00Z,0.5,-0.5\n")
    loaded = WeightsFile.open(file, RunConfig())
    assert loaded.config.data.dexes == ("", "xyz") and "names coins of other dexes" in loaded.notes[0]


def test_a_run_of_two_dexes(store: Store, tmp_path: Path, hlbt: Hlbt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text("time,BTC,xyz:TSLA\n2024-02-01T23:00Z,0.5,-0.5\n2024-02-02T23:00Z,0.5,-0.5\n")
    done = hlbt("backtest", "--weights", "mine.csv", "--set", f"data.cache={store.path}", "--no-report")
    assert done.code == 0, done.err
    record = json.loads(next(tmp_path.glob("reports/*/run.json")).read_text())
    assert record["config"]["data"]["dexes"] == ["", "xyz"]
    trades = pd.read_parquet(next(tmp_path.glob("reports/*/trades.parquet")))
    assert set(trades["coin"]) == {"BTC", "xyz:TSLA"}


def test_the_archive_says_that_it_has_the_main_dex_alone(tmp_path: Path, hlbt: Hlbt) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    cache = f"data.cache={tmp_path / 'cache'}"
    refused = hlbt("data", "sync", "--source", "dir", folder, "--set", "data.dexes=xyz", "--set", cache)
    assert refused.code == 1 and "The archive has the main dex alone, and nothing of xyz" in refused.err
    said = hlbt("data", "sync", "--source", "dir", folder, "--set", 'data.coins=["BTC","xyz:*"]', "--set", cache)
    assert "The archive has the main dex alone, and nothing of xyz" in said.err


def test_the_names_that_freqtrade_gives_them(tmp_path: Path) -> None:
    def candles(name: str) -> None:
        frame = pd.DataFrame({"date": pd.date_range("2025-11-03T13:00Z", periods=3, freq="h", unit="ns")})
        frame[["open", "high", "low", "close", "volume"]] = 100.0
        frame.to_feather(tmp_path / f"{name}-1h-futures.feather")

    for name in ("XYZ-TSLA_USDC_USDC", "FLX-NVDA_USDH_USDH", "HYNA-KPEPE_USDE_USDE", "BTC_USDC_USDC"):
        candles(name)
    for name in ("ABC-GOLD_USDX_USDX", "BTC_USDT_USDT"):
        candles(name)
    store = Store(tmp_path / "cache")
    report = import_freqtrade(store, tmp_path)
    assert sorted(store.require().coins) == ["BTC", "flx:NVDA", "hyna:kPEPE", "xyz:TSLA"]
    assert {name: record.collateral for name, record in store.require().coins.items()} == {
        **{"BTC": None, "flx:NVDA": "USDH", "hyna:kPEPE": "USDe", "xyz:TSLA": "USDC"}
    }
    assert [Path(item.name).name for item in report.skipped] == ["ABC-GOLD_USDX_USDX-1h-futures.feather"]
    assert "is settled in USDX, which is no collateral of the exchange" in report.skipped[0].reason
    assert "XYZ-TSLA is xyz:TSLA" in " ".join(report.notes) and "BTC_USDT_USDT" in " ".join(report.notes)


def test_tables_name_the_dex_in_the_coin_or_in_a_column_of_its_own(tmp_path: Path, hlbt: Hlbt) -> None:
    cache = f"data.cache={tmp_path / 'cache'}"
    rows = "timestamp,coin,dex,funding_rate,premium\n"
    for hour in (10, 11):
        for coin, dex in (("TSLA", "xyz"), ("xyz:NVDA", "xyz"), ("BTC", ""), ("ETH", "main")):
            rows += f"2025-11-03T{hour}:00:00Z,{coin},{dex},0.0001,0\n"
    (tmp_path / "funding.csv").write_text(rows)
    done = hlbt("data", "import", "table", tmp_path / "funding.csv", "--set", cache)
    assert done.code == 0, done.err
    wide = "time,xyz:TSLA,TSLA/USDC:USDC,XYZ-GOLD/USDC:USDC\n2025-11-03T10:00Z,1,2,3\n2025-11-03T11:00Z,1,2,3\n"
    (tmp_path / "close.csv").write_text(wide)
    done = hlbt("data", "import", "table", tmp_path / "close.csv", "--stamp", "close", "--set", cache)
    assert done.code == 0, done.err
    names = {"BTC", "ETH", "TSLA", "xyz:GOLD", "xyz:NVDA", "xyz:TSLA"}
    assert set(Store(tmp_path / "cache").require().coins) == names
