"""Two tables of metrics, compared."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from engine import Result


def assert_same(row: pd.Series, result: Result) -> None:
    """Every metric: money to 1e-11 of the most that was in play, counts exactly, the rest to 1e-8 of itself."""
    traded = result.trades["notional_usd"].max() if len(result.trades) else 0.0
    scale = max(result.config.account.initial_equity_usd, np.abs(result.equity).max(), traded)
    figures = result.metrics
    for name, expected in figures.items():
        if isinstance(expected, float):
            absolute = 1e-11 * scale if name.endswith("_usd") else 1e-10
            assert row[name] == pytest.approx(expected, rel=1e-8, abs=absolute, nan_ok=True), name
        else:
            assert row[name] == expected or (expected is None and row[name] is None), name
