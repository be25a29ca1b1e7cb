"""Equal weight: long every tradable coin, the benchmark for other oracles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from engine import Oracle, Panel


@dataclass(frozen=True)
class EqualWeight(Oracle):
    """The same long weight in every coin that is tradable at the decision.

    Parameters
    ----------
    gross : float
        ``sum(abs(weight))`` of a row.
    """

    gross: float = 1.0

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        """See :meth:`engine.Oracle.weight_matrix`."""
        tradable = panel.tradable[panel.rows(decisions)].astype(np.float64)
        count = tradable.sum(axis=1, keepdims=True)
        return pd.DataFrame(
            self.gross * tradable / np.maximum(count, 1.0), index=decisions, columns=pd.Index(panel.coins, name="coin")
        )
