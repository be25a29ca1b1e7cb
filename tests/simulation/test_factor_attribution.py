"""Attribution to factors: by hand on a tiny panel, parts add up on random books, errors as statsmodels', NaN rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Panel, Result, RunConfig, backtest
from engine.risk.model import RiskModel
from engine.runs import load_run
from engine.simulation import metrics
from engine.simulation.backtest import decisions_of
from engine.simulation.factor_attribution import LEAST_DAYS, RESIDUAL
from helpers.panels import random_panel
from research.oracles.momentum import Momentum

FREE: dict[str, Any] = {"costs": {"taker_bps": 0.0, "half_spread_bps": 0.0, "funding": False}}


@pytest.fixture(scope="module")
def panel() -> Panel:
    return random_panel(8, 24 * 110, 14)


@pytest.fixture(scope="module")
def result(panel: Panel) -> Result:
    return backtest(panel, Momentum(lookback_hours=48, n=3), RunConfig.from_dict({"execution": {"lots": False}}))


def slow_parts(result: Result) -> pd.DataFrame:
    """Day by day and coin by coin, the position read from the fills."""
    days = result.daily_returns.index
    model = RiskModel.fit(result.panel, pd.DatetimeIndex(days).insert(0, days[0] - pd.Timedelta(hours=24)))
    mid, hours = result.panel.frame("mid"), result.panel.index
    fills = result.trades.pivot_table(index="time", columns="coin", values="units", aggfunc="sum")
    units = fills.reindex(index=hours, columns=result.panel.coins).fillna(0.0).cumsum()
    rows: dict[pd.Timestamp, list[float]] = {}
    for number, end in enumerate(days):
        start = end - pd.Timedelta(hours=24)
        weights = units[(hours >= start) & (hours < end)].mean() * mid.loc[start] / result.equity[start]
        parts = np.zeros(len(model.names))
        for place, weight in enumerate(weights):
            exposure = model.exposures[number, place]
            if abs(weight) > 1e-14 and not np.isnan(exposure).any():
                parts += weight * exposure * np.nan_to_num(model.factor_returns[number + 1])
        if not np.isnan(model.factor_returns[number + 1]).all():
            rows[end] = [*parts, result.daily_returns[end] - parts.sum()]
    return pd.DataFrame(rows, index=[*model.names, RESIDUAL]).T


@pytest.mark.parametrize("execution", [{}, {"delay_hours": 2}])
def test_parts_are_those_of_the_book_as_held_and_add_up(panel: Panel, execution: dict[str, int]) -> None:
    config = RunConfig.from_dict({"execution": {"lots": False, **execution}})
    result = backtest(panel, Momentum(lookback_hours=48, n=3), config)
    found = result.factor_attribution()
    assert len(found.daily) > 70 and list(found.daily) == [
        "market",
        "size",
        "momentum",
        "carry",
        "volatility",
        RESIDUAL,
    ]
    returns = result.daily_returns[found.daily.index]
    np.testing.assert_allclose(found.daily.sum(axis=1), returns, atol=1e-15)
    expected = slow_parts(result)
    np.testing.assert_array_equal(found.daily.index, expected.index)
    np.testing.assert_allclose(found.daily, expected, atol=1e-12)
    assert found.daily.iloc[:, :-1].abs().mean().min() > 1e-6


def test_random_books_add_up(panel: Panel) -> None:
    decisions = decisions_of(panel, RunConfig())
    for seed in range(4):
        rng = np.random.default_rng(seed)
        weights = pd.DataFrame(rng.normal(size=(len(decisions), 14)), decisions, list(panel.coins))
        weights = weights.div(weights.abs().sum(axis=1), axis=0).mask(rng.random(weights.shape) < 0.3)
        result = backtest(panel, weights, RunConfig.from_dict({"account": {"max_gross": 1.0}}))
        found = result.factor_attribution()
        gap = found.daily.sum(axis=1) - result.daily_returns[found.daily.index]
        assert gap.abs().max() < 1e-12 and len(found.daily) > 70
        means = found.daily.mean() * 365
        np.testing.assert_allclose(found.table["mean_year"], means, rtol=1e-12)


def factor_world() -> tuple[Panel, np.ndarray]:
    """Coins whose daily returns are their beta times BTC's and nothing else, 1 % up or down an hour of each day."""
    rng = np.random.default_rng(3)
    beta = np.array([1.0, *np.linspace(0.5, 2.0, 13)])
    moves = np.where(rng.random(24 * 110) < 0.5, -0.01, 0.01)
    moves[(np.arange(len(moves)) % 24) != 12] = 0.0
    mid = 100.0 * np.cumprod(1.0 + moves[:, None] * beta, axis=0)
    index = pd.date_range("2024-01-01", periods=len(moves), freq="h", tz="UTC")
    coins = ["BTC", *(f"C{number:02d}" for number in range(13))]
    return Panel.from_frames(mid=pd.DataFrame(mid, index=index, columns=coins)), beta


def test_by_hand_where_the_market_is_all_there_is() -> None:
    """A constant long of beta 2: the market brings twice BTC, nothing is left, and costs alone are the residual."""
    panel, beta = factor_world()
    decisions = decisions_of(panel, RunConfig())
    weights = pd.DataFrame(0.0, decisions, list(panel.coins)).assign(C12=0.5)
    free = {**FREE, "execution": {"lots": False, "min_notional_usd": 0.0}}
    found = backtest(panel, weights, RunConfig.from_dict(free)).factor_attribution()
    btc = panel.frame("mid")["BTC"].loc[decisions].pct_change()[found.daily.index]
    # The clip of exposures at three deviations leaves a beta of 2 among these 14 as it is.
    np.testing.assert_allclose(found.daily["market"], 0.5 * beta[-1] * btc, atol=1e-12)
    np.testing.assert_allclose(found.daily[RESIDUAL], 0.0, atol=1e-12)
    assert np.isnan(found.table.loc[RESIDUAL, "t"])
    costs = {**free, "costs": {"taker_bps": 10.0, "half_spread_bps": 0.0, "funding": False}}
    result = backtest(panel, weights, RunConfig.from_dict(costs))
    paid = -result.attribution["fee_usd"].resample("24h", origin=decisions[0], closed="right", label="right").sum()
    equity = result.equity[decisions].shift(1)
    residual = result.factor_attribution().daily[RESIDUAL]
    np.testing.assert_allclose(residual, (paid / equity)[residual.index], atol=2e-5)
    assert residual.max() < 0 and residual.min() < -1e-6


def test_errors_are_those_of_statsmodels(result: Result) -> None:
    from statsmodels.regression.linear_model import OLS

    found = result.factor_attribution()
    assert found.lags == 3  # 4 * (79 / 100) ** (2 / 9) = 3.8
    for name, values in found.daily.items():
        fit = OLS(values.to_numpy(), np.ones(len(values))).fit(cov_type="HAC", cov_kwds={"maxlags": found.lags})
        assert found.table.loc[str(name), "t"] == pytest.approx(fit.tvalues[0], rel=1e-9)
        assert metrics.error_of_mean(values.to_numpy(), found.lags) == pytest.approx(fit.bse[0], rel=1e-9)
    assert metrics.error_of_mean(np.array([1.0, 2.0, 4.0]), 0) == pytest.approx(np.std([1, 2, 4]) / np.sqrt(3))


def test_where_there_is_none_it_says_why(panel: Panel) -> None:
    short = panel.until(panel.index[24 * 50])
    few = Panel.from_frames(**{name: panel.frame(name).iloc[:, :9] for name in panel.fields})
    for part, text in ((short, f"and {LEAST_DAYS} are needed"), (few, "0 of the 108 days")):
        found = backtest(part, Momentum(lookback_hours=24, n=2)).factor_attribution()
        assert found.daily.empty and found.table.empty and found.record()["parts"] == {}
        (note,) = found.notes
        assert note.startswith("No attribution to factors: ") and text in note
    idle = backtest(panel, pd.DataFrame(0.0, decisions_of(panel, RunConfig()), list(panel.coins)))
    assert "the book has no day, and 30 are needed" in idle.factor_attribution().notes[0]
    early = backtest(panel, Momentum(lookback_hours=24, n=2)).factor_attribution()
    assert "of the 108 days are left out of the attribution to factors" in early.notes[0]


def test_the_run_keeps_it_and_the_page_shows_it(result: Result, tmp_path: Path) -> None:
    run = result.save(tmp_path / "run")
    kept, found = load_run(run), result.factor_attribution()
    record = json.loads((run / "run.json").read_text())["factor_attribution"]
    assert record["days"] == len(found.daily) and record["lags"] == found.lags
    assert record["parts"][RESIDUAL]["t"] == found.table.loc[RESIDUAL, "t"]
    assert kept.factors is not None
    pd.testing.assert_frame_equal(kept.factors, found.daily.rename_axis("time"), check_freq=False)
    page = (run / "tearsheet.html").read_text(encoding="utf-8")
    alpha = found.table.loc[RESIDUAL]
    assert f'data-metric="factor_alpha" data-value="{float(alpha["mean_year"])!r}"' in page
    assert f">{alpha['t']:.2f}<" in page and 'class="factors"' in page and "Cumulative parts of the return" in page
    few = Panel.from_frames(**{name: result.panel.frame(name).iloc[:, :9] for name in result.panel.fields})
    page = backtest(few, Momentum(lookback_hours=24, n=2)).tearsheet(tmp_path / "few.html").read_text(encoding="utf-8")
    assert "No attribution to factors: 0 of the" in page and 'class="factors"' not in page
