"""Fixed target weights, presented as an oracle: one row for every instant, or the rows of a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

import numpy as np
import pandas as pd

from engine.clock import show
from engine.errors import WeightsError
from engine.oracles.base import Oracle
from engine.panel import Panel
from engine.weights import validate_frame


class FixedWeights(Oracle):
    """An oracle whose weights are a frame.

    Parameters
    ----------
    frame : DataFrame, (D, coins)
        Decision instants, UTC, x coins; NaN = hold. An instant has the newest row at or before it.

    Raises
    ------
    WeightsError
        For what a backtest refuses whatever its panel: :func:`engine.weights.validate_frame`.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = validate_frame(frame)

    @classmethod
    def of(cls, weights: Mapping[str, float]) -> Self:
        """Fixed weights of one row, which holds for every instant."""
        start = pd.DatetimeIndex([pd.Timestamp(0, tz="UTC")])
        return cls(pd.DataFrame([dict(weights)], index=start, dtype=np.float64))

    @property
    def decisions(self) -> pd.DatetimeIndex:
        """The instants of the rows, ascending."""
        return pd.DatetimeIndex(self.frame.index, name="time")

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        """The newest row at or before each decision; a coin that the frame lacks is 0."""
        rows = [self._row(decision) for decision in decisions]
        weights = self.frame.iloc[rows].set_axis(decisions, axis=0)
        return weights.reindex(columns=list(panel.coins), fill_value=0.0)

    def fetch_portfolio_weights(
        self, timestamp: pd.Timestamp, tradable_universe: Iterable[str], panel: Panel | None = None
    ) -> dict[str, float]:
        """The newest row at or before `timestamp`, untradable coins included: the planner skips them."""
        row = self.frame.iloc[self._row(timestamp)]
        return {str(coin): float(weight) for coin, weight in row.items()}

    def _row(self, instant: pd.Timestamp) -> int:
        row = int(self.frame.index.searchsorted(instant, side="right")) - 1
        if row < 0:
            raise WeightsError(
                f"The weights have no row at or before {show(instant)}; the first is {show(self.frame.index[0])}."
            )
        return row
