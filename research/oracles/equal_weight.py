"""Equal weight: long every tradable coin, the benchmark for other oracles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from engine import Oracle, Panel
from research.oracles.parameters import check_dex, of_dex


@dataclass(frozen=True)
class EqualWeight(Oracle):
    """The same long weight in every coin that is tradable at the decision.

    Parameters
    ----------
    gross : float
        ``sum(abs(weight))`` of a row.
    dex : str or None
        The dex whose coins are held, ``"xyz"``, ``""`` for the main one; None is every coin of the data.
    """

    gross: float = 1.0
    dex: str | None = None

    def __post_init__(self) -> None:
        check_dex(self.dex)

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        """See :meth:`engine.Oracle.weight_matrix`."""
        tradable = (panel.tradable[panel.rows(decisions)] & of_dex(panel, self.dex)).astype(np.float64)
        count = tradable.sum(axis=1, keepdims=True)
        return pd.DataFrame(
            self.gross * tradable / np.maximum(count, 1.0), index=decisions, columns=pd.Index(panel.coins, name="coin")
        )
