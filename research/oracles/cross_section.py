"""Base class of momentum, reversal, carry and low volatility: a score of the tradable coins, then a construction."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pandas as pd

from engine import Panel
from research.oracles.construction import Constructed, check_construction
from research.oracles.parameters import check_count, check_dex, of_dex


@dataclass(frozen=True)
class CrossSection(Constructed):
    """Ranks the coins that are tradable at the decision against each other.

    As many dollars long as short; not quite with ``z_score``, where it cuts one side more than the other, nor with
    ``rank_power``, where scores are equal.

    Parameters
    ----------
    lookback_hours : int
        Hours of history that the score reads.
    construction : {"top_bottom", "rank_power", "z_score"}
        From scores to weights (:mod:`research.oracles.construction`).
    n : int
        Coins a side, for ``top_bottom``.
    power : float
        Exponent, for ``rank_power``.
    clip : float
        Standard deviations, for ``z_score``.
    gross : float
        ``sum(abs(weight))`` of a row.
    dex : str or None
        The dex whose coins are ranked, ``"xyz"``, ``""`` for the main one; None is every coin of the data.
    hold_rank : int
        For ``top_bottom``: a coin that is held stays while it is among so many on its side; 0 = no such buffer, else at
        least `n`. No book where fewer than twice as many coins have a score.
    """

    lookback_hours: int = 168
    construction: str = "top_bottom"
    n: int = 5
    power: float = 1.0
    clip: float = 3.0
    gross: float = 1.0
    dex: str | None = None
    hold_rank: int = field(default=0, kw_only=True)

    score_parameters: ClassVar[tuple[str, ...]] = ("lookback_hours",)

    def __init_subclass__(cls) -> None:
        """Which coins have a score is a matter of every subclass's score."""
        super().__init_subclass__()
        cls.score_parameters = tuple(dict.fromkeys((*cls.score_parameters, "dex")))

    def __post_init__(self) -> None:
        check_dex(self.dex)
        check_count("lookback_hours", self.lookback_hours)
        check_construction(self.construction, self.n, self.power, self.clip, self.gross, self.hold_rank)

    @abstractmethod
    def score(self, panel: Panel, row: int) -> np.ndarray:
        """How much each coin is liked at panel row `row`, (N,).

        Reads rows up to `row`; `row` is at least the lookback.
        """

    def scores(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        """See :meth:`engine.ScoreOracle.scores`; NaN before a full lookback and for untradable coins."""
        panel = (
            panel.point_in_time()
        )  # a direct call with the panel itself must not see the funding of the instant either
        rows, own = panel.rows(decisions), of_dex(panel, self.dex)
        scores = np.full((len(rows), len(panel.coins)), np.nan)
        for number, row in enumerate(rows):
            if row >= self.lookback_hours:
                scores[number] = np.where(panel.tradable[row] & own, self.score(panel, int(row)), np.nan)
        return scores


def mean_of_known(window: np.ndarray, least: float = 0.5) -> np.ndarray:
    """Column means over the known values, NaN where fewer than the share `least` of the rows is known."""
    known = ~np.isnan(window)
    count = known.sum(axis=0)
    total = np.where(known, window, 0.0).sum(axis=0)
    return np.where(count >= max(1.0, least * len(window)), total / np.maximum(count, 1), np.nan)
