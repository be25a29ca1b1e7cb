"""Two tables of metrics, compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Result


def assert_same(row: pd.Series, result: Result) -> None:
    """Every metric: money to 1e-11 of the most that was in play, counts exactly, the rest to 1e-8 of itself.

    A ratio also to what 1e-12 of equity makes of it: a book that hardly trades has daily changes and a drawdown that
    are not much more than the rounding of its equity.
    """
    traded = result.trades["notional_usd"].max() if len(result.trades) else 0.0
    scale = max(result.config.account.initial_equity_usd, np.abs(result.equity).max(), traded)
    figures = result.metrics
    for name, expected in figures.items():
        if isinstance(expected, float):
            absolute = 1e-11 * scale if name.endswith("_usd") else 1e-10
            if name.startswith(("calmar", "sharpe", "sortino")) and not np.isnan(expected):
                absolute += 1e-12 * (1.0 + abs(expected)) / _divisor(figures, name)
            assert row[name] == pytest.approx(expected, rel=1e-8, abs=absolute, nan_ok=True), name
        else:
            assert row[name] == expected or (expected is None and row[name] is None), name


def _divisor(figures: dict[str, Any], name: str) -> float:
    """What a ratio's numerator is divided by, a day's."""
    ratio, _, calendar = name.partition("_")
    if ratio == "calmar":
        return max(abs(figures["max_drawdown"]), 1e-300)
    key = f"_{calendar}" if calendar else ""
    deviation = figures[f"volatility{key}"] / 365**0.5
    if ratio == "sortino" and figures[name] != 0.0:  # both have the same mean above them
        deviation *= figures[f"sharpe{key}"] / figures[f"sortino{key}"]
    return max(deviation, 1e-300)
