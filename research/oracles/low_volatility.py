"""Low volatility: buy the least volatile coins, sell the most volatile ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine import Panel
from research.oracles.cross_section import CrossSection, mean_of_known


@dataclass(frozen=True)
class LowVolatility(CrossSection):
    """Score: minus the root mean square of hourly log returns over the last `lookback_hours`."""

    def score(self, panel: Panel, row: int) -> np.ndarray:
        """``-sqrt(mean(diff(log(mid)) ** 2))``; NaN with fewer than half of the returns."""
        returns = np.diff(np.log(panel.values("mid")[row - self.lookback_hours : row + 1]), axis=0)
        return -np.sqrt(mean_of_known(returns**2))
