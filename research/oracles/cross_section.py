"""Base class of momentum, reversal, carry and low volatility: a score of the tradable coins, then a construction."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import pandas as pd

from engine import Panel, ScoreOracle, SparseWeights
from research.oracles.construction import Ranking, check_construction, top_bottom_books, weights_of
from research.oracles.parameters import check_count, check_dex, of_dex


@dataclass(frozen=True)
class CrossSection(ScoreOracle):
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
    """

    lookback_hours: int = 168
    construction: str = "top_bottom"
    n: int = 5
    power: float = 1.0
    clip: float = 3.0
    gross: float = 1.0
    dex: str | None = None

    score_parameters: ClassVar[tuple[str, ...]] = ("lookback_hours",)

    def __init_subclass__(cls) -> None:
        """Which coins have a score is a matter of every subclass's score."""
        super().__init_subclass__()
        cls.score_parameters = tuple(dict.fromkeys((*cls.score_parameters, "dex")))

    def __post_init__(self) -> None:
        check_dex(self.dex)
        check_count("lookback_hours", self.lookback_hours)
        check_construction(self.construction, self.n, self.power, self.clip, self.gross)

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

    def construct(self, scores: np.ndarray) -> np.ndarray:
        """See :meth:`engine.ScoreOracle.construct`."""
        return self.construct_ranked(Ranking(scores))

    def construct_ranked(self, ranking: Ranking) -> np.ndarray:
        """Weights (D, N) from scores that may be ranked already."""
        return weights_of(ranking, self.construction, self.n, self.power, self.clip, self.gross)

    @classmethod
    def construct_many(cls, oracles: Sequence[Self], scores: np.ndarray) -> SparseWeights:
        """See :meth:`engine.ScoreOracle.construct_many`; the scores are ranked once."""
        if (cls.construct, cls.construct_ranked) != (CrossSection.construct, CrossSection.construct_ranked):
            return super().construct_many(oracles, scores)  # a subclass with a construction of its own
        ranking = Ranking(scores)
        sided = [k for k, oracle in enumerate(oracles) if oracle.construction == "top_bottom"]
        others = [k for k, oracle in enumerate(oracles) if oracle.construction != "top_bottom"]
        books = top_bottom_books(ranking, [oracles[k].n for k in sided], [oracles[k].gross for k in sided])
        if not others:
            return books
        parts = [SparseWeights.from_dense(oracles[k].construct_ranked(ranking)[None]) for k in others]
        return SparseWeights.joined([books, *parts]).take(np.argsort([*sided, *others]), len(scores))


def mean_of_known(window: np.ndarray, least: float = 0.5) -> np.ndarray:
    """Column means over the known values, NaN where fewer than the share `least` of the rows is known."""
    known = ~np.isnan(window)
    count = known.sum(axis=0)
    total = np.where(known, window, 0.0).sum(axis=0)
    return np.where(count >= max(1.0, least * len(window)), total / np.maximum(count, 1), np.nan)
