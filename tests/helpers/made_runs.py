"""Runs of made-up prices for the tests of pages: simulated, and saved as the commands do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.config import RunConfig
from engine.panel import Panel
from engine.runs import Origin, Run, load_run, save_run
from engine.simulation.backtest import backtest, decisions_of
from engine.simulation.result import Result

CREATED = "2025-06-01T12:34:56+00:00"
FLAT_DAYS = 20


def simulated(
    days: int = 70, coins: int = 12, synthetic: bool = False, benchmark: bool = True, gross: float = 1.0, **config: Any
) -> Result:
    """A run over random prices: two delistings, three weeks of no position, then a book that drifts."""
    generator = np.random.default_rng(7)
    index = pd.date_range("2024-11-20", periods=days * 24, freq="h", tz="UTC")
    names = ["BTC" if benchmark else "ETH", *(f"C{number}" for number in range(1, coins))]
    prices = 100.0 * np.exp(np.cumsum(generator.normal(0.0, 0.006, (len(index), coins)), axis=0))
    if days > 60:
        prices[1000:, 3] = np.nan
        prices[1200:, 4] = np.nan
    mid = pd.DataFrame(prices, index, names)
    funding = pd.DataFrame(generator.normal(1e-5, 2e-5, mid.shape), index, names)
    panel = Panel.from_frames(mid=mid, funding=funding, synthetic=synthetic)
    settings = RunConfig.from_dict({"account": {"max_gross": gross}, **config})
    decisions = decisions_of(panel, settings)
    weights = pd.DataFrame(generator.normal(size=(len(decisions), coins)).cumsum(axis=0), decisions, names)
    weights = weights.div(weights.abs().sum(axis=1) * (1 + 1e-12), axis=0) * gross
    weights.iloc[: min(FLAT_DAYS, days - 3)] = 0.0
    return backtest(panel, weights, settings)


def saved(result: Result, folder: Path, name: str = "Drift", parameters: dict[str, Any] | None = None) -> Run:
    origin = Origin(name, "oracle", "research.oracles.drift:Drift", parameters or {"lookback_hours": 72}, "ab" * 32)
    save_run(result, origin, folder, CREATED)
    return load_run(folder)
