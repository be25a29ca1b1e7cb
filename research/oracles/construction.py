"""Constructions: from scores to weights; shared by every cross-sectional oracle.

A score is (D, N): how much each coin is liked at each decision, NaN = not in the universe. A construction turns each
row into weights whose ``sum(abs(weight))`` is `gross`, or into zeros where the row has too few coins. Each row is made
alone, but for a rank buffer (`hold_rank`), which keeps coins of the row before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Self

import numpy as np

from engine import ScoreOracle, SparseWeights
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
        order = self.descending
        ordered = np.take_along_axis(self.scores, order, axis=1)
        if (ordered[:, 1:] == ordered[:, :-1]).any():
            return np.argsort(self.scores, axis=1, kind="stable")
        # Without ties it is the other order backwards, and there is no second sort.
        place = np.arange(order.shape[1])
        last = self.known[:, None] - 1
        return np.take_along_axis(order, np.where(place <= last, last - place, place), axis=1)

    @cached_property
    def above(self) -> np.ndarray:
        """Place of each column in :attr:`descending`, (D, N)."""
        return _places(self.descending)

    @cached_property
    def below(self) -> np.ndarray:
        """Place of each column in :attr:`ascending`, (D, N)."""
        return _places(self.ascending)

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


def top_bottom_books(
    ranking: Ranking, sides: Sequence[int], gross: Sequence[float], hold_ranks: Sequence[int]
) -> SparseWeights:
    """Books long the `sides` highest scores and short the `sides` lowest, (P,) each; see :func:`top_bottom`."""
    from engine.simulation.kernel import top_bottom_nb

    decisions = len(ranking.scores)
    most, ranks = np.array(sides, dtype=np.int64), np.array(hold_ranks, dtype=np.int64)
    held = np.minimum(most[:, None], ranking.known // 2)
    entries = int(2 * held[2 * ranks[:, None] <= ranking.known].sum())
    indptr = np.zeros(len(most) * decisions + 1, dtype=np.int64)
    coins, weights = np.empty(entries + 1, dtype=np.uint32), np.empty(entries + 1)
    half = 0.5 * np.array(gross, dtype=np.float64)
    orders = ranking.descending, ranking.ascending
    places = (ranking.above, ranking.below) if ranks.any() else orders  # without a buffer nobody looks at them
    used = top_bottom_nb(*orders, *places, ranking.known, most, ranks, half, indptr, coins, weights)
    return SparseWeights(indptr, coins[:used], weights[:used])


def top_bottom(scores: np.ndarray | Ranking, n: int, gross: float = 1.0, hold_rank: int = 0) -> np.ndarray:
    """Long the `n` highest scores, short the `n` lowest, equal weights; with a buffer a coin that is held stays longer.

    Ties go to the coin that comes first in column order. In a universe of fewer than ``2 n`` coins the sides shrink
    to half of it each, so that they never overlap; the shorts come from what the longs left, so that a row of equal
    scores still gives two sides.

    With a buffer a coin that the row before holds long stays while it is among the `hold_rank` highest, and the best
    of the others fill the side; then the same of the shorts, from the lowest of those that the longs left. A coin
    whose score becomes NaN leaves. In a universe of fewer than ``2 hold_rank`` coins there is no book, and what was
    held is forgotten, as it is before the first row. ``hold_rank = n`` keeps nothing: it is the book without a buffer,
    where there is one.

    Parameters
    ----------
    scores : ndarray, (D, N), or Ranking
        NaN = not in the universe.
    n : int
        Coins a side, at least 1.
    gross : float
        ``sum(abs(weight))`` of a row.
    hold_rank : int
        0 = no buffer, else at least `n`: the last place at which a coin that is held stays (Novy-Marx, Velikov 2016).

    Returns
    -------
    ndarray, (D, N)
    """
    ranking = _ranked(scores)
    return top_bottom_books(ranking, [n], [gross], [hold_rank]).to_dense(*ranking.scores.shape)[0]


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


def _places(order: np.ndarray) -> np.ndarray:
    """Where each column stands in the order of its row, (D, N)."""
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.arange(order.shape[1])[None], axis=1)
    return places


CONSTRUCTIONS = ("top_bottom", "rank_power", "z_score")


def check_construction(
    name: str, n: int, power: float, clip: float, gross: float, hold_rank: int = 0, count_name: str = "n"
) -> None:
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
    if isinstance(hold_rank, bool) or not isinstance(hold_rank, int) or (hold_rank != 0 and hold_rank < n):
        raise OracleError(
            f"hold_rank = {hold_rank!r} is not accepted: it must be 0 (no buffer) or a whole number of places, at "
            f"least {count_name} = {n}."
        )


def weights_of(
    scores: np.ndarray | Ranking, name: str, n: int, power: float, clip: float, gross: float, hold_rank: int = 0
) -> np.ndarray:
    """Weights, (D, N), by the construction `name`; parameters that it does not have are ignored."""
    if name == "top_bottom":
        return top_bottom(scores, n, gross, hold_rank)
    if name == "rank_power":
        return rank_power(scores, power, gross)
    return z_score(scores, clip, gross)


class Constructed(ScoreOracle):
    """A score oracle whose books this module constructs; a subclass has the fields of :func:`check_construction`.

    Attributes
    ----------
    construction : {"top_bottom", "rank_power", "z_score"}
        From scores to weights.
    n : int
        Coins a side, for ``top_bottom``.
    power : float
        Exponent, for ``rank_power``.
    clip : float
        Standard deviations, for ``z_score``.
    gross : float
        ``sum(abs(weight))`` of a row.
    hold_rank : int
        Last place at which a coin that is held stays, for ``top_bottom`` (:func:`top_bottom`); 0 = no buffer.
    """

    construction: str
    n: int
    power: float
    clip: float
    gross: float
    hold_rank: int

    @property
    def path_dependent(self) -> bool:
        """See :attr:`engine.Oracle.path_dependent`: a buffer keeps what was held."""
        return (self.construction == "top_bottom" and self.hold_rank > 0) or super().path_dependent

    def construct(self, scores: np.ndarray) -> np.ndarray:
        """See :meth:`engine.ScoreOracle.construct`."""
        return self.construct_ranked(Ranking(scores))

    def construct_ranked(self, ranking: Ranking) -> np.ndarray:
        """Weights (D, N) from scores that may be ranked already."""
        rule = self.construction, self.n, self.power, self.clip, self.gross, self.hold_rank
        return weights_of(ranking, *rule)

    @classmethod
    def construct_many(cls, oracles: Sequence[Self], scores: np.ndarray) -> SparseWeights:
        """See :meth:`engine.ScoreOracle.construct_many`; the scores are ranked once."""
        if (cls.construct, cls.construct_ranked) != (Constructed.construct, Constructed.construct_ranked):
            return super().construct_many(oracles, scores)  # a subclass with a construction of its own
        ranking = Ranking(scores)
        sided = [k for k, oracle in enumerate(oracles) if oracle.construction == "top_bottom"]
        others = [k for k, oracle in enumerate(oracles) if oracle.construction != "top_bottom"]
        rules = [[getattr(oracles[k], name) for k in sided] for name in ("n", "gross", "hold_rank")]
        books = top_bottom_books(ranking, *rules)
        if not others:
            return books
        parts = [SparseWeights.from_dense(oracles[k].construct_ranked(ranking)[None]) for k in others]
        return SparseWeights.joined([books, *parts]).take(np.argsort([*sided, *others]), len(scores))
