"""A slow oracle and a grid for sweeps."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from engine import Oracle, Panel

MOMENTUM = "research.oracles.momentum:Momentum"
GRID = {
    "lookback_hours": [24, 72],
    "construction": ["top_bottom", "rank_power", "z_score"],
    "n": [2, 3],
    "execution.hour_utc": [23, 9],
    "costs.taker_bps": ["schedule", 9.0],
}


@dataclass(frozen=True)
class Slow(Oracle):
    """Counts how often it is asked."""

    tilt: float = 0.1
    boom: bool = False

    asked = 0

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        type(self).asked += 1
        if self.boom:
            raise ZeroDivisionError("planted")
        return pd.DataFrame(self.tilt, index=decisions, columns=list(panel.coins)[:3])
