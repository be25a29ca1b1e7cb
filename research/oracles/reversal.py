"""Reversal: buy the coins that fell over the last hours, sell those that rose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine import Panel
from research.oracles.cross_section import CrossSection


@dataclass(frozen=True)
class Reversal(CrossSection):
    """Score: minus the return over the last `lookback_hours`."""

    lookback_hours: int = 24

    def score(self, panel: Panel, row: int) -> np.ndarray:
        """``1 - mid[t] / mid[t - lookback]``."""
        mid = panel.values("mid")
        return 1.0 - mid[row] / mid[row - self.lookback_hours]
