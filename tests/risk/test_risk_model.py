"""The risk model: against the slow reference, point in time bit for bit, nasty panels, real months."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.errors import ConfigError, DataError
from engine.panel import Coin, Panel
from engine.risk.characteristics import CHARACTERISTICS, RiskParameters, betas, characteristics
from engine.risk.model import RiskModel
from helpers.effort import some
from helpers.naive_risk import Naive
from helpers.shared_data import shared

SHORT = RiskParameters(
    beta_hours=96, size_hours=48, momentum_hours=30, carry_hours=25, volatility_hours=72, clip=1.5,
    factor_half_life_days=5.0, specific_half_life_days=3.0, shrinkage=0.3, least_days=4, least_coins=6,
)  # fmt: skip


def market_panel(seed: int, days: int = 14, coins: int = 12, dexes: int = 1, holes: bool = True) -> Panel:
    """Coins of a market of one factor, with holes, late listings, delistings, dead prices and jumps."""
    rng = np.random.default_rng(seed)
    hours = 24 * days
    market = rng.normal(0, 0.004, (hours, dexes))
    own = np.arange(coins) % dexes
    moves = rng.uniform(0.3, 2, coins) * market[:, own] + rng.normal(0, 0.006, (hours, coins))
    if holes:
        moves[rng.integers(0, hours), rng.integers(0, coins)] += 3.0  # up twentyfold in an hour
        moves[:, coins // 2] = 0.0  # a price that never moves
    mid = 10.0 ** rng.uniform(-4, 4, coins) * np.exp(np.cumsum(moves, axis=0))
    volume = rng.lognormal(12, 1, (hours, coins)) * rng.lognormal(0, 2, coins)
    funding = rng.normal(1e-5, 5e-5, (hours, coins))
    if holes:
        mid[: int(hours * 0.6), 1], mid[int(hours * 0.7) :, 2] = np.nan, np.nan
        mid[rng.random((hours, coins)) < 0.02] = np.nan
        volume[:, 3], funding[:, 4] = np.nan, np.nan
        funding[: hours // 2] = np.nan
        volume[rng.random((hours, coins)) < 0.02] = 0.0
    names = [("x" * (k % dexes) + ":" if k % dexes else "") + f"C{k:02d}" for k in range(coins)]
    if seed % 2 == 0:
        names[0] = "BTC"
    index = pd.date_range("2024-10-01", periods=hours, freq="h", tz="UTC")
    frames = {"mid": mid, "volume_usd": volume, "funding": funding}
    if seed % 3 == 0:
        frames["volume_24h_usd"] = rng.lognormal(15, 1, (hours, coins))
    if seed % 5 == 4:
        del frames["funding"]
    return Panel.from_frames(
        table=[Coin(name) for name in names],
        **{name: pd.DataFrame(values, index=index, columns=names) for name, values in frames.items()},
    )


@pytest.mark.parametrize("seed", range(some(4, 20)))
def test_the_slow_reference(seed: int) -> None:
    panel = market_panel(seed, dexes=1 + seed % 3 // 2)
    decisions = panel.index[[24 * 5 + 7, 24 * 9 + 7, 24 * 13 + 7, 24 * 13 + 22]]
    model, naive = RiskModel.fit(panel, decisions, SHORT), Naive(panel, SHORT)
    measured = characteristics(panel, panel.rows(decisions), SHORT)
    for d, row in enumerate(panel.rows(decisions).tolist()):
        expected = naive.at(row)
        np.testing.assert_allclose(measured[d], naive.characteristics(row), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(model.exposures[d], expected.exposures, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(model.factor_returns[d], expected.factor_returns, rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(model.factor_covariance[d], expected.covariance, rtol=1e-7, atol=1e-13)
        np.testing.assert_allclose(model.specific_variance[d], expected.specific, rtol=1e-7, atol=1e-13)
    assert np.isfinite(model.factor_covariance[2]).all()  # so that something was compared


def arrays_of(model: RiskModel) -> tuple[np.ndarray, ...]:
    return model.exposures, model.factor_returns, model.factor_covariance, model.specific_variance


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_what_is_known_does_not_change_with_later_data_nor_with_other_decisions(seed: int) -> None:
    panel = market_panel(seed, dexes=1 + seed // 5)
    every = panel.index[panel.index.hour == 23]
    whole = RiskModel.fit(panel, every, SHORT)
    assert np.isfinite(whole.factor_covariance[-1]).all()
    for d in (0, 1, 6, 9, len(every) - 1):
        cut = panel.until(every[d])
        for seen, first in ((cut, every[: d + 1]), (cut.point_in_time(), every[d : d + 1])):
            for got, expected in zip(arrays_of(RiskModel.fit(seen, first, SHORT)), arrays_of(whole), strict=True):
                np.testing.assert_array_equal(got[-1], expected[d])
    weekly = RiskModel.fit(panel, every[2::7], SHORT)
    for got, expected in zip(arrays_of(weekly), arrays_of(whole), strict=True):
        np.testing.assert_array_equal(got, expected[2::7])


def test_later_prices_do_not_matter_but_earlier_ones_do() -> None:
    """That the comparison above can fail: the same model of a panel that differs before the decision is another."""
    panel = market_panel(2)
    every = panel.index[panel.index.hour == 23]
    mid = panel.frame("mid").copy()
    mid.iloc[200:] *= 1.5
    moved = replace(panel, fields={**panel.fields, "mid": mid.to_numpy()})
    got, expected = RiskModel.fit(moved, every, SHORT), RiskModel.fit(panel, every, SHORT)
    np.testing.assert_array_equal(got.factor_returns[:8], expected.factor_returns[:8])
    assert not np.array_equal(got.factor_returns[8], expected.factor_returns[8])


def test_volatility_is_the_root_of_the_whole_covariance_and_no_book_changes_another() -> None:
    panel = market_panel(4, holes=False)
    decisions = panel.index[panel.index.hour == 23]
    model = RiskModel.fit(panel, decisions, SHORT)
    rng = np.random.default_rng(0)
    books = rng.normal(size=(5, len(decisions), len(panel.coins)))
    books[1, :, 3] = np.nan
    got = model.volatility(books)
    assert np.isnan(got[:, :5]).all() and np.isfinite(got[:, -5:]).all()
    x, d = model.exposures[-1], len(decisions) - 1
    sigma = x @ model.factor_covariance[d] @ x.T + np.diag(model.specific_variance[d])
    for number, book in enumerate(np.nan_to_num(books[:, d])):
        assert got[number, d] == pytest.approx(np.sqrt(365 * book @ sigma @ book), rel=1e-12)
        np.testing.assert_array_equal(model.volatility(books[number]), got[number])
    assert np.linalg.eigvalsh(sigma).min() > 0


@pytest.mark.parametrize("coins", [1, 2, 9])
def test_too_few_coins_have_no_risk(coins: int) -> None:
    panel = market_panel(2, coins=coins, holes=False)
    model = RiskModel.fit(panel, panel.index[-1:], replace(SHORT, least_coins=10))
    assert np.isnan(model.factor_returns).all() and np.isnan(model.specific_variance).all()
    assert np.isnan(model.volatility(np.ones((1, coins)))).all()
    assert np.isfinite(model.exposures).all()


def test_prices_that_never_were_or_never_moved() -> None:
    index = pd.date_range("2024-10-01", periods=24 * 12, freq="h", tz="UTC")
    for value in (100.0, np.nan):
        panel = Panel.from_frames(mid=pd.DataFrame(value, index=index, columns=[f"C{k}" for k in range(12)]))
        model = RiskModel.fit(panel, index[-1:], SHORT)
        assert np.isnan(model.exposures[:, :, 0]).all() and np.isnan(model.volatility(np.ones((1, 12)))).all()
        assert model.volatility(np.zeros((1, 12))).tolist() in ([0.0], [pytest.approx(np.nan, nan_ok=True)])


def test_a_factor_that_nobody_differs_in_has_no_return() -> None:
    panel = market_panel(9)  # without funding
    model = RiskModel.fit(panel, panel.index[-1:], SHORT)
    carry = model.names.index("carry")
    assert np.isnan(model.factor_returns[0, carry]) and (model.exposures[0, :, carry] == 0).all()
    assert (model.factor_covariance[0, carry] == 0).all() and np.isfinite(model.volatility(np.ones((1, 12)))).all()


def test_names_of_factors_and_a_market_for_each_dex() -> None:
    assert RiskModel.fit(market_panel(1), market_panel(1).index[-1:], SHORT).names == CHARACTERISTICS
    panel = market_panel(1, dexes=2)
    model = RiskModel.fit(panel, panel.index[-1:], SHORT)
    assert model.names == ("market", "market x", *CHARACTERISTICS[1:])
    assert (model.exposures[0, ::2, 1] == 0).all() and (model.exposures[0, 1::2, 0] == 0).all()


def test_beta_by_hand() -> None:
    index = pd.date_range("2024-10-01", periods=5, freq="h", tz="UTC")
    moves = np.array([[0.01, 0.02], [-0.02, -0.05], [0.03, 0.02], [0.01, 0.0]])
    mid = 100.0 * np.vstack([np.ones(2), np.cumprod(1 + moves, axis=0)])
    panel = Panel.from_frames(mid=pd.DataFrame(mid, index=index, columns=["BTC", "A"]))
    slope = np.polyfit(moves[:, 0], moves[:, 1], 1)[0]
    np.testing.assert_allclose(betas(panel, np.array([4]), 4), [[1.0, slope]], rtol=1e-10)
    np.testing.assert_allclose(betas(panel, np.array([4]), 8), [[1.0, slope]], rtol=1e-10)
    assert np.isnan(betas(panel, np.array([4]), 9)).all()


def test_the_same_fit_is_kept_and_cannot_be_written_to() -> None:
    panel = market_panel(2)
    model = RiskModel.fit(panel, panel.index[-1:], SHORT)
    assert RiskModel.fit(panel, panel.index[-1:], SHORT) is model
    assert RiskModel.fit(panel, panel.index[-2:], SHORT) is not model
    with pytest.raises(ValueError, match="read-only"):
        model.exposures[0, 0, 0] = 1.0


def test_errors() -> None:
    panel = market_panel(2)
    with pytest.raises(DataError, match=r"no row at 2025-01-01 00:00 UTC"):
        RiskModel.fit(panel, pd.DatetimeIndex(["2025-01-01T00:00Z"]))
    for name, value in {"beta_hours": 1, "size_hours": 2.5, "clip": 0, "shrinkage": 1.5, "least_days": True,
                        "factor_half_life_days": float("nan")}.items():  # fmt: skip
        with pytest.raises(ConfigError, match=rf"RiskParameters\({name} = .*must be a (whole )?number"):
            RiskParameters(**{name: value})
    assert RiskParameters(shrinkage=0, clip=2).shrinkage == 0


@pytest.mark.slow
def test_bias_statistic_of_random_books_on_the_real_months(real_panel: Panel) -> None:
    """Next-day returns over the volatility expected for them: their deviation is 1 where the model is right."""
    decisions = real_panel.index[real_panel.index.hour == 23]
    rows = real_panel.rows(decisions)
    model, rng = RiskModel.fit(real_panel, decisions), np.random.default_rng(1)
    books = np.where(real_panel.tradable[rows], rng.standard_normal((200, 1, len(real_panel.coins))), 0.0)
    gross = np.abs(books).sum(axis=2, keepdims=True)
    books = np.divide(books, gross, out=books, where=gross > 0)
    mid = real_panel.values("mid")[rows]
    moves = np.nan_to_num(mid[1:] / mid[:-1] - 1.0)
    standardised = (books[:, :-1] * moves).sum(axis=2) / (model.volatility(books)[:, :-1] / np.sqrt(365))
    statistic = standardised[:, 60:].std(axis=1, ddof=1)
    assert 0.9 < statistic.mean() < 1.1 and statistic.std() < 0.12


@pytest.fixture(scope="module")
def real_panel(tmp_path_factory: pytest.TempPathFactory) -> Panel:
    from engine import load_panel
    from engine.data.cache import Store
    from engine.data.freqtrade import import_freqtrade

    source: Path = shared("freqtrade")
    cache = tmp_path_factory.mktemp("real") / "cache"
    import_freqtrade(Store(cache), source)
    return load_panel(cache)
