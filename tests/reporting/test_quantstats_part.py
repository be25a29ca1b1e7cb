"""QuantStats' table and charts: its formulas are ours, and what the span does not define is left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from engine.reporting.figure_svg import isolated_style
from engine.reporting.quantstats_part import quantstats_part, whole_periods
from engine.simulation import metrics, tables

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("days", [3, 8, 29, 400, 1500])
def test_quantstats_part_says_only_what_the_span_defines(days: int) -> None:
    dates = pd.date_range("2021-03-05", periods=days, freq="D")
    returns = pd.Series(np.random.default_rng(days).normal(0.0, 0.02, days), dates)
    window = tables.rolling(returns).attrs["window_days"]
    part = quantstats_part(returns, returns.sample(frac=1.0, random_state=1).set_axis(dates).rename("BTC"), window)
    assert part.reason == "" and part.columns == ("BTC", "Strategy")
    names = {name for name, _ in part.rows}
    assert ("3Y (ann.)" in names) == (days == 1500) and "10Y (ann.)" not in names
    assert ("1Y" in names) == ("YTD" in names) == (days >= 400)
    assert ("Best Month" in names) == (days >= 400) and ("Best Year" in names) == (days == 1500)
    drawn = "".join(part.charts)
    assert ("Rolling Volatility" in drawn) == (days >= 29) and sum(map(len, part.charts)) < 1_500_000


def test_an_open_drawdown_is_open() -> None:
    returns = pd.Series(-0.01, pd.date_range("2024-03-01", periods=40, freq="D")).where(np.arange(40) > 3, 0.02)
    assert dict(quantstats_part(returns, None, 7).rows)["Max DD Period End"] == ("open",)
    returns.iloc[30:] = 0.05
    assert dict(quantstats_part(returns, None, 7).rows)["Max DD Period End"] != ("open",)


@pytest.mark.parametrize("kind", ["normal", "skewed", "rising", "losing", "flat start", "short"])
def test_metrics_are_quantstats(kind: str) -> None:
    generator = np.random.default_rng(3)
    values = {
        "normal": generator.normal(0.001, 0.02, 400),
        "skewed": generator.standard_t(3, 250) * 0.01,
        "rising": np.abs(generator.normal(0.0, 0.01, 100)) + 1e-4,
        "losing": generator.normal(-0.01, 0.03, 300),
        "flat start": np.concatenate((np.zeros(50), generator.normal(0.002, 0.01, 50))),
        "short": np.array([0.01, -0.02, 0.005]),
    }[kind]
    series = pd.Series(values, pd.date_range("2024-01-01", periods=len(values)))
    with isolated_style():
        from quantstats import stats

        year = {"periods": 365}
        theirs = [stats.cagr(series, **year), stats.sharpe(series, **year), stats.volatility(series, **year)]
        deepest, sortino = stats.max_drawdown(series), stats.sortino(series, **year)
    ours = [metrics.cagr(values), metrics.sharpe(values), metrics.volatility(values)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    assert metrics.max_drawdown(np.cumprod(1.0 + values), 1.0) == pytest.approx(deepest, rel=1e-10, abs=1e-15)
    if (values < 0).any():
        assert metrics.sortino(values) == pytest.approx(sortino, rel=1e-10)


@pytest.mark.parametrize(
    ("first", "last", "months", "years"),
    [
        ("2024-01-01", "2024-12-31", 12, 1),
        ("2024-01-02", "2024-12-31", 11, 0),
        ("2023-12-31", "2025-01-01", 12, 1),
        ("2024-02-01", "2024-02-29", 1, 0),
        ("2024-02-02", "2024-02-28", 0, 0),
        ("2024-02-02", "2024-03-15", 0, 0),
    ],
)
def test_whole_months_and_years(first: str, last: str, months: int, years: int) -> None:
    dates = pd.date_range(first, last, freq="D")
    assert (whole_periods(dates, "M"), whole_periods(dates, "Y")) == (months, years)
