"""Two tables of metrics, compared."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from engine import Result


def assert_same(row: pd.Series, result: Result) -> None:
    """Every metric: money to 1e-11 of the most that was in play, counts exactly, the rest to 1e-8 of itself.

    Sums in another order differ in their last bits, so a ratio over a risk of 0 may be one over dust: not compared.
    """
    traded = result.trades["notional_usd"].max() if len(result.trades) else 0.0
    scale = max(result.config.account.initial_equity_usd, np.abs(result.equity).max(), traded)
    figures = result.metrics
    dust = {
        "calmar": figures["max_drawdown"] > -1e-12,
        "sortino": result.daily_returns.min() > -1e-12,
        "sharpe": figures["volatility"] < 1e-12,
        "calmar_calendar": figures["max_drawdown"] > -1e-12,
        "sortino_calendar": result.daily_returns_calendar.min() > -1e-12,
        "sharpe_calendar": figures["volatility_calendar"] < 1e-12,
    }
    for name, expected in figures.items():
        if dust.get(name):
            continue
        if isinstance(expected, float):
            absolute = 1e-11 * scale if name.endswith("_usd") else 1e-10
            assert row[name] == pytest.approx(expected, rel=1e-8, abs=absolute, nan_ok=True), name
        else:
            assert row[name] == expected or (expected is None and row[name] is None), name
