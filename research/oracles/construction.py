"""Constructions: from scores to weights, a row at a time; shared by every cross-sectional oracle.

A score is (D, N): how much each coin is liked at each decision, NaN = not in the universe. A construction turns each
row into weights whose ``sum(abs(weight))`` is `gross`, or into zeros where the row has too few coins.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from engine import SparseWeights
from engine.errors import OracleError, did_you_mean
from research.oracles.parameters import check_count, check_positive


class Ranking:
    """Scores, (D, N), and their orders and ranks, each computed once however many books are constructed."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores

    @cached_property
    def known(self) -> np.ndarray:
        """Coins of each row that have a score, (D,)."""
        return (~np.isnan(self.scores)).sum(axis=1)

    @cached_property
    def descending(self) -> np.ndarray:
        """Columns of each row from the highest score to the lowest, ties by column, NaN last, (D, N)."""
        return np.argsort(-self.scores, axis=1, kind="stable")

    @cached_property
    def ascending(self) -> np.ndarray:
        """Columns of each row from the lowest score to the highest, ties by column, NaN last, (D, N)."""
        return np.argsort(self.scores, axis=1, kind="stable")

    @cached_property
    def ranks(self) -> np.ndarray:
        """Ranks spaced evenly from -1 (lowest) to 1 (highest), ties share their mean; 0 for NaN and alone, (D, N)."""
        from scipy.stats import rankdata

        ranks = rankdata(self.scores, axis=1, nan_policy="omit") - 1.0
        spread = np.maximum(self.known - 1.0, 1.0)[:, None]
        return np.where(np.isnan(ranks) | (self.known[:, None] < 2), 0.0, 2.0 * ranks / spread - 1.0)

    @cached_property
    def deviations(self) -> np.ndarray:
        """Distance from the row's mean in its standard deviations, (D, N); 0 for NaN, and in a row of equals."""
        values = np.where(np.isnan(self.scores), 0.0, self.scores)
        count = np.maximum(self.known, 1)[:, None]
        centred = np.where(np.isnan(self.scores), 0.0, values - values.sum(axis=1, keepdims=True) / count)
        deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / count)
        # Equal scores have no order; what their deviation is then is floating-point noise, not a signal.
        differ = deviation > 1e-12 * np.abs(values).max(axis=1, keepdims=True, initial=0.0)
        return np.divide(centred, deviation, out=np.zeros_like(centred), where=differ)


def top_bottom_books(ranking: Ranking, sides: Sequence[int], gross: Sequence[float]) -> SparseWeights:
    """Books long the `sides` highest scores and short the `sides` lowest; see :func:`top_bottom`."""
    from engine.simulation.kernel import top_bottom_nb

    decisions = len(ranking.scores)
    most = np.array(sides, dtype=np.int64)
    entries = int(2 * np.minimum(most[:, None], ranking.known // 2).sum())
    indptr = np.zeros(len(most) * decisions + 1, dtype=np.int64)
    coins, weights = np.empty(entries, dtype=np.uint32), np.empty(entries)
    half = 0.5 * np.array(gross, dtype=np.float64)
    top_bottom_nb(ranking.descending, ranking.ascending, ranking.known, most, half, indptr, coins, weights)
    return SparseWeights(indptr, coins, weights)


def top_bottom(scores: np.ndarray | Ranking, n: int, gross: float = 1.0) -> np.ndarray:
    """Long the `n` highest scores, short the `n` lowest, equal weights.

    Ties go to the coin that comes first in column order. In a universe of fewer than ``2 n`` coins the sides shrink
    to half of it each, so that they never overlap; the shorts come from what the longs left, so that a row of equal
    scores still gives two sides.

    Parameters
    ----------
    scores : ndarray, (D, N), or Ranking
        NaN = not in the universe.
    n : int
        Coins a side, at least 1.
    gross : float
        ``sum(abs(weight))`` of a row.

    Returns
    -------
    ndarray, (D, N)
    """
    ranking = _ranked(scores)
    return top_bottom_books(ranking, [n], [gross]).to_dense(*ranking.scores.shape)[0]


def rank_power(scores: np.ndarray | Ranking, power: float = 1.0, gross: float = 1.0) -> np.ndarray:
    """Weights ``sign(r) * abs(r) ** power`` of the rank ``r``, spaced evenly from -1 (lowest) to 1 (highest).

    A power of 1 is linear in the rank; a higher one leans on the extremes. Ties share the mean of their ranks.
    """
    ranks = _ranked(scores).ranks
    return _scaled(np.sign(ranks) * np.abs(ranks) ** power, gross)


def z_score(scores: np.ndarray | Ranking, clip: float = 3.0, gross: float = 1.0) -> np.ndarray:
    """Weights in proportion to the row's z-score, cut at +/- `clip` standard deviations."""
    return _scaled(np.clip(_ranked(scores).deviations, -clip, clip), gross)


def _ranked(scores: np.ndarray | Ranking) -> Ranking:
    return scores if isinstance(scores, Ranking) else Ranking(scores)


def _scaled(weights: np.ndarray, gross: float) -> np.ndarray:
    total = np.abs(weights).sum(axis=1, keepdims=True)
    return np.divide(weights * gross, total, out=np.zeros_like(weights), where=total > 0.0)


CONSTRUCTIONS = ("top_bottom", "rank_power", "z_score")


def check_construction(name: str, n: int, power: float, clip: float, gross: float, count_name: str = "n") -> None:
    """Raise an OracleError for a construction or a parameter of one that is not accepted.

    `count_name` is the name of the oracle's own parameter that is passed as `n`.
    """
    if name not in CONSTRUCTIONS:
        raise OracleError(
            f"construction = {name!r} is not accepted: choose one of "
            f"{', '.join(CONSTRUCTIONS)}.{did_you_mean(str(name), CONSTRUCTIONS)}"
        )
    check_count(count_name, n, unit="coins a side")
    for label, value in {"power": power, "clip": clip, "gross": gross}.items():
        check_positive(label, value)


def weights_of(scores: np.ndarray | Ranking, name: str, n: int, power: float, clip: float, gross: float) -> np.ndarray:
    """Weights, (D, N), by the construction `name`; parameters that it does not have are ignored."""
    if name == "top_bottom":
        return top_bottom(scores, n, gross)
    if name == "rank_power":
        return rank_power(scores, power, gross)
    return z_score(scores, clip, gross)
