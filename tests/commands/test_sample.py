from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.commands.sample import COINS, END, START, STOCKS, sample_fields, write_sample
from engine.data.cache import Store
from engine.data.cache_status import status
from engine.data.panel_loader import load_panel
from engine.panel import FIELDS, Panel

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def panel(sample_cache: Path) -> Panel:
    return load_panel(sample_cache)


@pytest.fixture(scope="module")
def returns(panel: Panel) -> pd.DataFrame:
    return np.log(panel.frame("mid")).diff()


def test_it_is_the_same_every_time(panel: Panel, sample_cache: Path, tmp_path: Path) -> None:
    again = Store(tmp_path / "again")
    assert write_sample(again).wrote
    assert load_panel(again.path).digest == panel.digest
    files = sorted(path.name for path in (sample_cache / "hourly").iterdir())
    assert sorted(path.name for path in (again.path / "hourly").iterdir()) == files
    assert (again.path / "manifest.json").read_bytes() == (sample_cache / "manifest.json").read_bytes()


def test_another_seed_is_another_sample(panel: Panel) -> None:
    other = sample_fields(seed=7)["mid"]
    assert (other != panel.values("mid")).mean() > 0.99


def test_writing_it_again_writes_nothing(panel: Panel, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    write_sample(store)
    before = (store.path / "manifest.json").stat().st_mtime_ns
    assert not write_sample(store).wrote
    assert (store.path / "manifest.json").stat().st_mtime_ns == before


def test_it_says_that_it_is_made_up(panel: Panel) -> None:
    assert panel.synthetic
    assert panel.until(pd.Timestamp("2024-06-01", tz="UTC")).synthetic


def test_shape_fields_and_coin_table(panel: Panel) -> None:
    assert panel.coins == tuple(sorted(spec.name for spec in COINS))
    assert len(panel.coins) == 40
    assert {"BTC", "ETH", "kPEPE"} <= set(panel.coins)
    assert (panel.index[0], panel.index[-1], len(panel.index)) == (START, END, 366 * 24 + 1)
    assert list(panel.fields) == [
        name for name in FIELDS if not name.startswith(("volume_24h", "depth", "high", "low", "in_session"))
    ]
    bitcoin = panel.table[panel.coins.index("BTC")]
    assert (bitcoin.sz_decimals, bitcoin.max_leverage) == (5, 40.0)
    assert not np.isnan(panel.sz_decimals).any()


def test_one_listing_one_delisting_one_gap(panel: Panel, sample_cache: Path) -> None:
    described = status(Store(sample_cache))
    assert described["listings"] == [{"coin": "ENA", "time": "2024-06-11T14:00Z"}]
    assert described["delistings"] == [{"coin": "FTM", "time": "2024-08-21T09:00Z"}]
    assert described["gaps"] == [
        {"coin": "ORDI", "first": "2024-04-17T05:00Z", "last": "2024-04-21T03:00Z", "hours": 95}
    ]
    absent = np.isnan(panel.values("mid"))
    assert set(np.array(panel.coins)[absent.any(axis=0)]) == {"ENA", "FTM", "ORDI"}
    np.testing.assert_array_equal(panel.tradable, ~absent)
    for name in panel.fields:
        np.testing.assert_array_equal(np.isnan(panel.values(name)), absent, err_msg=name)


def test_quotes_enclose_the_mid_on_the_venues_grid(panel: Panel) -> None:
    with np.errstate(invalid="ignore"):
        there = ~np.isnan(panel.values("mid"))
        order = ["impact_bid", "bid", "mid", "ask", "impact_ask"]
        for low, high in pairwise(order):
            assert (panel.values(low)[there] < panel.values(high)[there]).all(), (low, high)
    bid = panel.frame("bid").iloc[::97]
    decimals = 6 - panel.sz_decimals
    for column, coin in enumerate(panel.coins):
        prices = bid[coin].dropna()
        significant = prices.map(lambda price: float(f"{price:.5g}"))
        np.testing.assert_allclose(prices, significant, rtol=1e-12)
        np.testing.assert_allclose(prices, prices.round(int(decimals[column])), rtol=1e-12)
    half = (panel.frame("ask") / panel.frame("bid") - 1).mean() / 2 * 1e4
    assert half["BTC"] < 0.5 < half["LINK"] < half["kBONK"] < 6
    for name in ("mark", "oracle"):
        away = (panel.values(name) / panel.values("mid") - 1)[there]
        assert 5e-5 < np.abs(away).mean() < 2e-3


def test_tails_are_fat_and_bitcoin_leads(returns: pd.DataFrame) -> None:
    # Excess kurtosis; 0 is normal.
    assert returns.kurt().min() > 4
    correlation = returns.corr()["BTC"].drop("BTC")
    assert 0.35 < correlation.min()
    assert correlation.max() < 0.97
    daily = returns.std() * np.sqrt(24)
    assert daily["BTC"] < daily["ETH"] < daily["WIF"]
    assert 0.015 < daily["BTC"] < 0.035
    # Volatility comes in spells.
    size = returns["BTC"].abs()
    assert size.autocorr(24) > 0.05


def test_funding_is_the_venues_formula(panel: Panel, returns: pd.DataFrame) -> None:
    funding = panel.frame("funding")
    base = (funding == 1.25e-5).to_numpy().sum() / funding.notna().to_numpy().sum()
    assert 0.4 < base < 0.8
    assert funding.abs().max().max() < 0.04
    assert (funding < 0).to_numpy().mean() > 0.05
    persistence = funding.apply(lambda column: column.autocorr(8)).mean()
    assert persistence > 0.6
    recent = returns.rolling(24).sum()
    assert funding.corrwith(recent).mean() > 0.2


def test_the_built_in_effect_is_there_and_small(panel: Panel) -> None:
    mid = panel.frame("mid")
    daily = mid[mid.index.hour == 23]
    rates = panel.frame("funding")
    ahead = daily.shift(-1) / daily - 1
    paid = rates.rolling(24, min_periods=1).sum().reindex(daily.index).shift(-1)
    momentum = daily.pct_change(7, fill_method=None)
    carry = -rates.rolling(72, min_periods=24).mean().reindex(daily.index)
    expected = {"momentum": (momentum, ahead, 0.030, 1.8), "carry": (carry, ahead - paid, 0.017, 2.0)}
    for name, (signal, earned, correlation, sharpe) in expected.items():
        ranks = signal.rank(axis=1)
        count = signal.notna().sum(axis=1)
        weights = (ranks.gt(count - 8, axis=0).astype(float) - ranks.le(8)) / 16
        profit = (weights * earned).sum(axis=1)
        measured = ranks.corrwith(ahead.rank(axis=1), axis=1).mean()
        # The figures that the module's documentation gives.
        assert measured == pytest.approx(correlation, abs=0.001), name
        assert profit.mean() / profit.std() * np.sqrt(365) == pytest.approx(sharpe, abs=0.1), name


def test_the_builders_dex_follows_the_hours_of_new_york(panel: Panel, sample_cache: Path) -> None:
    both = load_panel(sample_cache, coins=["*", "xyz:*"])
    assert both.coins == (*panel.coins, *(spec.name for spec in STOCKS)) and len(both.index) == len(panel.index)
    stocks = load_panel(sample_cache, coins=["xyz:*"])
    opened = stocks.values("in_session")[:, 0] > 0
    assert 0.17 < opened.mean() < 0.21 and stocks.tradable.all()
    moves = np.abs(np.diff(np.log(stocks.values("mid")), axis=0))
    assert 2.0 < moves[opened[1:]].mean() / moves[~opened[1:]].mean() < 3.5
    spread = stocks.values("ask") / stocks.values("bid") - 1
    assert 2.0 < spread[~opened].mean() / spread[opened].mean() < 3.5
    terms = {(coin.collateral, coin.margin_mode, coin.sessions, coin.fee_terms[0].factor) for coin in stocks.table}
    assert terms == {("USDC", "isolated", "XNYS", 0.2)}
