"""Metrics of many columns are those of each column, and the kernel's are those of the module."""

from __future__ import annotations

import numpy as np
import pytest

from engine.simulation import kernel, metrics
from engine.validation.statistics import moments

FUNCTIONS = (metrics.cagr, metrics.volatility, metrics.sharpe, metrics.sortino)


def equity_paths(days: int) -> np.ndarray:
    """Daily equity, (6, days): two random ones, one only rising, one flat, one that loses all, one below 0."""
    random = np.random.default_rng(days)
    moves = np.concatenate([random.normal(0.0, 0.03, (2, days)), np.abs(random.normal(0.0, 0.01, (1, days)))])
    paths = np.concatenate([1e4 * np.cumprod(1.0 + moves, axis=1), np.full((3, days), 1e4)])
    paths[4, days // 2 :] = 0.0
    paths[5, days // 2 :] = -50.0
    return paths


@pytest.mark.parametrize("days", [1, 2, 3, 5, 40, 400])
def test_many_columns_are_as_one_and_the_kernel_agrees(days: int) -> None:
    paths = equity_paths(days)
    returns = metrics.daily_returns(paths)
    assert returns.shape == (6, days - 1)
    columns = (kernel.CAGR, kernel.VOLATILITY, kernel.SHARPE, kernel.SORTINO)
    for path, row in zip(paths, returns, strict=True):
        np.testing.assert_array_equal(metrics.daily_returns(path), row)
        compiled, later = np.zeros((2, kernel.METRICS)), np.vstack([path, np.roll(path, 1)])
        kernel.summarise_nb(0, later, 0, np.zeros(days), compiled, kernel.CAGR)
        kernel.summarise_nb(1, later, 1, np.zeros(days), compiled, kernel.CALENDAR)
        for column, value in zip(
            columns, [function(metrics.daily_returns(later[1, 1:])) for function in FUNCTIONS], strict=True
        ):
            twin = compiled[1, column + kernel.CALENDAR - kernel.CAGR]
            assert twin == pytest.approx(value, rel=1e-10, nan_ok=True)
        for function, column in zip(FUNCTIONS, columns, strict=True):
            value = function(row)
            assert type(value) is float
            assert compiled[0, column] == pytest.approx(value, rel=1e-10, nan_ok=True), function.__name__
    for function in FUNCTIONS:
        np.testing.assert_allclose(function(returns), [function(row) for row in returns], rtol=1e-14)


@pytest.mark.parametrize("value", [1e-3, -1e-3, 1e-9, 0.1, 0.0, 7e-5])
@pytest.mark.parametrize("days", [2, 3, 100, 365])
def test_constant_returns_have_no_ratio(value: float, days: int) -> None:
    """Rounding is no risk: by one column, by many, by the kernel, by the evidence."""
    returns = np.full(days, value)
    paths = 1e4 * np.cumprod(np.concatenate(([1.0], 1.0 + returns)))
    for column in (returns, returns * (1.0 + 1e-14 * np.arange(days)), metrics.daily_returns(paths)):
        assert (
            np.isnan(metrics.sharpe(column)) and np.isnan(metrics.sortino(column)) and metrics.volatility(column) == 0
        )
        assert np.isnan(metrics.sharpe(np.stack([column, column]))).all() and np.isnan(moments(column).sharpe)
    compiled = np.zeros((1, kernel.METRICS))
    kernel.summarise_nb(0, paths[None], 0, np.zeros(len(paths)), compiled, kernel.CAGR)
    assert np.isnan(compiled[0, [kernel.SHARPE, kernel.SORTINO]]).all() and compiled[0, kernel.VOLATILITY] == 0.0
    assert np.isnan(metrics.calmar(0.5, -1e-15))
    varied = returns + np.where(np.arange(days) % 2, 1e-5, -1e-5)
    assert np.isfinite(metrics.sharpe(varied)) and np.isfinite(moments(varied).sharpe)


def test_where_a_statistic_is_not_defined() -> None:
    nothing, flat = np.zeros(0), np.zeros(5)
    assert all(np.isnan(function(nothing)) for function in FUNCTIONS)
    assert np.isnan(metrics.sharpe(flat)) and np.isnan(metrics.sortino(flat)) and metrics.cagr(flat) == 0.0
    assert metrics.cagr(np.array([-2.0, -3.0])) == -1.0
    np.testing.assert_array_equal(metrics.calmar(np.array([0.5, 0.5]), np.array([-0.25, 0.0])), [2.0, np.nan])
