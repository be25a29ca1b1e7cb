"""Momentum: buy the coins that rose, sell those that fell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from engine import Panel
from engine.errors import OracleError
from research.oracles.cross_section import CrossSection


@dataclass(frozen=True)
class Momentum(CrossSection):
    """Score: return over the last `lookback_hours`, leaving out the newest `skip_hours`.

    Parameters
    ----------
    skip_hours : int
        Newest hours that are left out, where short-term reversal lives.
    """

    skip_hours: int = 0

    score_parameters: ClassVar[tuple[str, ...]] = ("lookback_hours", "skip_hours")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.skip_hours, int) or not 0 <= self.skip_hours < self.lookback_hours:
            raise OracleError(
                f"skip_hours = {self.skip_hours!r} is not accepted: it must be a whole number from 0 to below "
                f"lookback_hours = {self.lookback_hours}."
            )

    def score(self, panel: Panel, row: int) -> np.ndarray:
        """``mid[t - skip] / mid[t - lookback] - 1``."""
        mid = panel.values("mid")
        return mid[row - self.skip_hours] / mid[row - self.lookback_hours] - 1.0
