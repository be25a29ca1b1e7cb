"""Carry: buy the coins with the lowest funding, sell those with the highest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine import Panel
from research.oracles.cross_section import CrossSection, mean_of_known


@dataclass(frozen=True)
class Carry(CrossSection):
    """Score: minus the mean hourly funding rate over the last `lookback_hours`.

    Positive funding is paid by longs, so the coins with the highest rates are sold. The newest rate that is used is the
    one settled an hour before the decision.
    """

    lookback_hours: int = 72

    def score(self, panel: Panel, row: int) -> np.ndarray:
        """``-mean(funding[t - lookback + 1 .. t])`` of the panel as known; NaN with fewer than half of the rates."""
        return -mean_of_known(panel.values("funding")[row - self.lookback_hours + 1 : row + 1])
