"""Combine: weights of several scores, learned from how well each predicted the returns of the past."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from engine import Panel
from engine.clock import HOUR, show
from engine.oracles.signal_analysis import forward_returns
from engine.simulation.metrics import error_of_mean
from research.oracles.blend import common_scores, inner_oracles
from research.oracles.construction import Constructed, Ranking, check_construction
from research.oracles.parameters import check_count, check_positive

#: Standard deviations at which scores and returns are cut, so that one coin does not decide a day.
_CLIP = 3.0
#: Coins that a day needs to be learned from.
_LEAST_COINS = 5


@dataclass(frozen=True, eq=False)
class Learned:
    """Weights of the scores at each decision.

    Attributes
    ----------
    weights : ndarray, (D, K)
        At least 0; a row sums to 1, or is 0 where no score, nor their mean, predicted anything.
    known : ndarray, (D,) bool
        Whether they are learned; else they are equal.
    """

    weights: np.ndarray
    known: np.ndarray


@dataclass(frozen=True)
class Combine(Constructed):
    """Weighted mean of several standardised scores, by weights that are learned anew at the start of every month.

    At each decision the scores of the coins that every oracle has one for are put in standard deviations from the row's
    mean, cut at 3. At the first instant of a calendar month, UTC, their weights are fitted to the days before: those at
    the hour of the decision of which the return over the `horizon_days` that follow has ended by then (the purge: no
    day of the window knows what is to come), at most `train_days` of them. What is fitted is that return, less the
    funding that a long pays in its course, in standard deviations as well. With ``C`` the mean over days of the
    correlations between the scores and ``c`` that of the scores with the return (their information coefficients), the
    weights are the ``b >= 0`` that minimise ``b'Cb - 2 c'b + ridge * sum((b - e)^2)``, divided by their sum; ``e`` is
    what the equal blend would have as its coefficient, ``max(0, sum(c)) / sum(C)``. Ridge regression towards a target
    (van Wieringen, *Lecture notes on ridge regression*, arXiv 1509.09169), non-negative by Lawson and Hanson's NNLS.

    Without `ridge` it is ``v / (s - v)``, the noise of the means ``c`` over the variance of what they estimate
    (empirical Bayes; Efron and Morris, JASA 68, 1973): ``s`` is the variance of ``c`` across the K scores, ``v`` that
    of a mean over the days, with Bartlett weights over the horizon (Newey and West, Econometrica 55, 1987). Where
    ``(K - 1) s / v`` is within the 95 % quantile of chi-squared with ``K - 1`` degrees of freedom, nothing tells the
    scores apart, and the weights are equal.

    Until half of `train_days` have been seen the blend is equal; a note says from when on it is learned. A month after
    days on which all weights would be 0 is flat.

    Parameters
    ----------
    oracles
        See :class:`research.oracles.blend.Blend`.
    horizon_days : int
        Days of the returns that are learned from, and of the purge.
    train_days : int
        Days of the window.
    ridge : float, optional
        How strongly the weights are drawn to equal ones. For scores that do not move together, 1 is half-way between
        equal weights and weights in proportion to the information coefficients. Default: from the days, as above.
    construction, n, power, clip, gross, hold_rank
        See :class:`research.oracles.cross_section.CrossSection`.
    """

    oracles: Any
    horizon_days: int = 5
    train_days: int = 365
    ridge: float | None = None
    construction: str = "top_bottom"
    n: int = 5
    power: float = 1.0
    clip: float = 3.0
    gross: float = 1.0
    hold_rank: int = field(default=0, kw_only=True)

    oracle_parameters: ClassVar[tuple[str, ...]] = ("oracles",)
    score_parameters: ClassVar[tuple[str, ...]] = ("oracles", "horizon_days", "train_days", "ridge")

    def __post_init__(self) -> None:
        object.__setattr__(self, "oracles", inner_oracles(self.oracles))
        check_count("horizon_days", self.horizon_days)
        check_count("train_days", self.train_days, 2)
        if self.ridge is not None:
            check_positive("ridge", self.ridge)
        check_construction(self.construction, self.n, self.power, self.clip, self.gross, self.hold_rank)

    @property
    def purge(self) -> pd.Timedelta:
        """How long before the fit the last day is that it learns from."""
        return 24 * self.horizon_days * HOUR

    def scores(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        """See :meth:`engine.ScoreOracle.scores`."""
        panel = panel.point_in_time()
        total = np.full((len(decisions), len(panel.coins)), np.nan)
        for rows, days, inner in self._by_hour(panel, decisions):
            at = days.get_indexer(decisions[rows])
            weights = self._fitted(panel, days, inner, decisions[rows]).weights
            mean = sum(weights[:, k, None] * standard for k, standard in enumerate(_standardised(inner[:, at])))
            flat = np.isnan(inner[0, at]) | (weights.sum(axis=1) == 0.0)[:, None]
            total[rows] = np.where(flat, np.nan, mean)
        return total

    def learned(self, panel: Panel, decisions: pd.DatetimeIndex) -> Learned:
        """The weights of the scores at each decision."""
        panel = panel.point_in_time()
        found = Learned(np.empty((len(decisions), len(self.oracles))), np.empty(len(decisions), dtype=np.bool_))
        for rows, days, inner in self._by_hour(panel, decisions):
            part = self._fitted(panel, days, inner, decisions[rows])
            found.weights[rows], found.known[rows] = part.weights, part.known
        return found

    def notes(self, panel: Panel, decisions: pd.DatetimeIndex) -> tuple[str, ...]:
        """See :meth:`engine.Oracle.notes`: from when on the weights are learned, and what they are at the end."""
        found = self.learned(panel, decisions)
        if not found.known.any():
            told = (
                f"Combine blends its scores equally throughout: {self.train_days // 2} days, half of train_days, and "
                f"the purge of {self.horizon_days} are never seen before the start of a month."
            )
            return (*super().notes(panel, decisions), told)
        first = decisions[int(np.argmax(found.known))]
        listed = ", ".join(f"{name} {share:.2f}" for name, share in zip(self._names(), found.weights[-1], strict=True))
        told = f"Combine blends its scores equally before {show(first)} and has learned weights from then on"
        notes = [f"{told}; the last: {listed}."]
        if flat := int((found.weights.sum(axis=1) == 0.0).sum()):
            notes.append(f"Combine is flat at {flat} decisions: no score had predicted the returns of the days before.")
        return (*super().notes(panel, decisions), *notes)

    def risk(self, panel: Panel, weights: pd.DataFrame) -> pd.DataFrame:
        """See :meth:`engine.Oracle.risk`: the weights of the scores, and what the oracles inside report."""
        found = self.learned(panel, pd.DatetimeIndex(weights.index))
        own = pd.DataFrame(found.weights, index=weights.index, columns=[f"weight of {name}" for name in self._names()])
        inner = super().risk(panel, weights)
        return own if inner is None else own.join(inner)

    def _names(self) -> list[str]:
        """A name for each oracle: its class, with its number where there are several of it."""
        kinds = [type(oracle).__name__ for oracle in self.oracles]
        return [kind if kinds.count(kind) == 1 else f"{kind} ({number})" for number, kind in enumerate(kinds)]

    def _by_hour(
        self, panel: Panel, decisions: pd.DatetimeIndex
    ) -> Iterator[tuple[np.ndarray, pd.DatetimeIndex, np.ndarray]]:
        """For each hour of decisions: their numbers, the days of the panel at that hour, the scores then (K, days, N).

        The days begin with the panel, whichever decisions are asked for.
        """
        hours, own = panel.index - panel.index.normalize(), decisions - decisions.normalize()
        for hour in own.unique():
            rows = np.flatnonzero(own == hour)
            days = panel.index[(hours == hour) & (panel.index <= decisions[rows].max())]
            yield rows, days, common_scores(self.oracles, panel, days)

    def _fitted(self, panel: Panel, days: pd.DatetimeIndex, inner: np.ndarray, decisions: pd.DatetimeIndex) -> Learned:
        """Weights at decisions of one hour, from the scores (K, days, N) on the days at that hour."""
        target = self._target(panel, days)
        enough = (~np.isnan(inner[0] + target)).sum(axis=1) >= _LEAST_COINS
        both = np.where(np.isnan(inner[0] + target), np.nan, np.concatenate([inner, target[None]]))
        standard = _standardised(both)
        coins = np.maximum((~np.isnan(both[0])).sum(axis=1), 1)
        # Row by row: the sums of a day do not depend on how many days there are.
        pairs = [[(one * other).sum(axis=1) / coins for other in standard] for one in standard]
        products = np.moveaxis(np.array(pairs), 2, 0)
        found = Learned(
            np.full((len(decisions), len(inner)), 1.0 / len(inner)), np.zeros(len(decisions), dtype=np.bool_)
        )
        midnights = decisions.normalize()
        months = midnights - pd.to_timedelta(midnights.day - 1, unit="D")
        for month in months.unique():
            last = month - self.purge
            window = enough & (days <= last) & (days > last - 24 * self.train_days * HOUR)
            if window.sum() >= max(2, self.train_days // 2):
                gram, told = products[window, :-1, :-1].mean(axis=0), products[window, :-1, -1]
                ridge = _ridge_of(told, self.horizon_days) if self.ridge is None else self.ridge
                found.weights[months == month] = _shares(gram, told.mean(axis=0), ridge)
                found.known[months == month] = True
        return found

    def _target(self, panel: Panel, days: pd.DatetimeIndex) -> np.ndarray:
        """Return of a long over the horizon from each day, funding paid, (days, N)."""
        returns = forward_returns(panel, days, self.horizon_days)
        if "funding" in panel.fields:
            # As known, a row has the rate that was settled an hour before: those from the trade on begin a row later.
            paid = np.cumsum(np.nan_to_num(panel.values("funding")), axis=0)
            start = panel.rows(days)
            end = np.minimum(start + 24 * self.horizon_days, len(paid) - 1)  # beyond it there is no return either
            returns = returns - (paid[end] - paid[start])
        return returns


def _standardised(values: np.ndarray) -> np.ndarray:
    """Standard deviations from each row's mean, cut, (K, D, N); 0 for NaN."""
    return np.stack([np.clip(Ranking(rows).deviations, -_CLIP, _CLIP) for rows in values])


def _ridge_of(told: np.ndarray, horizon: int) -> float:
    """Noise over spread of the means of daily coefficients, (days, K); infinite where they do not differ."""
    from scipy.special import chdtri

    apart = (told - told.mean(axis=1, keepdims=True)).T
    noise = (error_of_mean(apart, horizon - 1) ** 2).sum()  # this and the next times K - 1
    spread, freedom = (apart.mean(axis=1) ** 2).sum(), len(apart) - 1
    apart_enough = freedom > 0 and spread * freedom > chdtri(freedom, 0.05) * noise
    return float(noise / (spread - noise)) if apart_enough else np.inf


def _shares(gram: np.ndarray, told: np.ndarray, ridge: float) -> np.ndarray:
    """Shares, (K,), from mean products of the scores with each other, (K, K), and with the return, (K,)."""
    from scipy.optimize import nnls

    whole = gram.sum()
    equal = max(0.0, told.sum()) / whole if whole > 0.0 else 0.0
    found = np.full(len(gram), equal)
    if np.isfinite(ridge):
        # The square root of the matrix makes a problem of least squares of the quadratic form.
        values, vectors = np.linalg.eigh(gram + ridge * np.eye(len(gram)))
        root = np.sqrt(np.maximum(values, np.finfo(np.float64).eps))
        found, _ = nnls(root[:, None] * vectors.T, (vectors.T @ (told + ridge * equal)) / root)
    return found / found.sum() if found.sum() > 0.0 else np.zeros(len(gram))
