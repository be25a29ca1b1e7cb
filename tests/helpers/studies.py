"""Studies built by hand, for tests of what is made of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from engine import Coin, Oracle, Panel, RunConfig, backtest_many, decisions_of
from engine.oracles.base import weight_matrix
from engine.oracles.loading import load_oracle
from engine.sweeps.study import ORACLE, SCHEMA, Study, index_of


@dataclass(frozen=True)
class Noise(Oracle):
    """Half long, half short, at random: no set of it can know anything."""

    seed: int = 0
    scale: float = 1.0

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        days = panel.index.normalize().unique()
        rng = np.random.default_rng(self.seed)
        drawn = pd.DataFrame(rng.normal(size=(len(days), len(panel.coins))), index=days)
        rows = drawn.loc[decisions.normalize()].to_numpy()
        rows = rows - rows.mean(axis=1, keepdims=True)
        weights = 0.9 * self.scale * rows / np.abs(rows).sum(axis=1, keepdims=True)
        return pd.DataFrame(weights, index=decisions, columns=pd.Index(panel.coins, name="coin"))


def market(seed: int, days: int, coins: int, drift: float, quotes: bool = False) -> Panel:
    """Coins whose hourly drift, `drift` up or down, lasts 15 days; without drift nothing can be known."""
    rng = np.random.default_rng(seed)
    hours = days * 24
    index = pd.date_range("2025-01-01", periods=hours, freq="h", tz="UTC")
    names = ["BTC", *(f"C{number:02d}" for number in range(1, coins))]
    offsets = rng.integers(0, 15, coins)
    regime = (np.arange(hours)[:, None] // 24 + offsets) // 15
    signs = rng.choice([-1.0, 1.0], (regime.max() + 1, coins))
    direction = np.take_along_axis(signs, regime, axis=0)
    mid = 100.0 * np.exp(np.cumsum(drift * direction + rng.normal(0.0, 0.004, (hours, coins)), axis=0))

    def frame(values: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(values, index=index, columns=names)

    fields = {"mid": frame(mid), "volume_usd": frame(np.full(mid.shape, 1e6)), "funding": frame(0.0 * mid)}
    if quotes:
        fields |= {"bid": frame(mid * (1 - 1e-4)), "ask": frame(mid * (1 + 1e-4))}
    table = [Coin(name, sz_decimals=3, max_leverage=10.0) for name in names]
    return Panel.from_frames(table=table, synthetic=True, **fields)


def study_of(
    panel: Panel,
    oracle: str,
    grid: dict[str, list[Any]],
    fixed: dict[str, Any] | None = None,
    config: RunConfig | None = None,
    name: str = "test-study",
    returns: bool = True,
) -> Study:
    """Every combination of the grid, run with backtest_many; axes of the config are not supported here."""
    config = config or RunConfig()
    decisions = decisions_of(panel, config)
    codes = np.array(list(product(*(range(len(values)) for values in grid.values()))))
    sets = [dict(zip(grid, chosen, strict=True)) for chosen in product(*grid.values())]
    weights = []
    for parameters in sets:
        path = parameters.pop(ORACLE, oracle)
        weights.append(weight_matrix(load_oracle(path, {**(fixed or {}), **parameters}), panel, decisions).to_numpy())
    table, daily = backtest_many(panel, np.stack(weights), decisions, config, daily_returns=True)
    index = index_of(grid, codes)
    daily = daily.set_axis(index, axis=1)
    record = {
        "schema": SCHEMA,
        "name": name,
        "synthetic": panel.synthetic,
        "oracles": [{"path": oracle, "name": oracle.rpartition(":")[2], "digest": ""}],
        "fixed": fixed or {},
        "grid": grid,
        "config": config.to_dict(),
        "digests": {"data": panel.digest},
        "sets": len(sets),
    }
    return Study(record, table.assign(error="").set_axis(index), daily if returns else None)
