"""The risk model: factor returns, their covariance and the specific variance of each coin, as known at each decision.

The rules are in docs/concepts/risk-model.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from threading import Lock
from typing import Self
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from engine.clock import DAYS_PER_YEAR, show
from engine.errors import DataError
from engine.panel import Panel, read_only
from engine.risk.characteristics import (
    CHARACTERISTICS,
    RiskParameters,
    characteristics,
    dex_members,
    sums_of_last,
)

_DAY = 24
#: What a fit reads of a panel.
_FIELDS = ("mid", "funding", "volume_usd", "volume_24h_usd")
#: Models of a panel by schedule and parameters: the tasks of a sweep share them. At most this many a panel.
_KEPT, _MODELS_A_PANEL, _LOCK = WeakKeyDictionary[Panel, dict[tuple[bytes, RiskParameters], "RiskModel"]](), 8, Lock()


@dataclass(frozen=True, eq=False)
class RiskModel:
    """Risk of the coins of a panel at each of D decisions, made of what was known then: ``X F X' + diag(s)`` a day.

    Attributes
    ----------
    names : tuple of str, length K
        Factors: ``market`` (of a panel of several dexes ``market xyz`` for each builder's), ``size``, ``momentum``,
        ``carry``, ``volatility``.
    exposures : ndarray, (D, N, K)
        X: the coin's beta, and its other characteristics in standard deviations from the mean of the tradable coins.
        A characteristic that is missing counts as their mean. NaN for coins of a dex of which no beta is known.
    factor_returns : ndarray, (D, K)
        Of the day that ends at each decision, funding included; NaN where they cannot be measured.
    factor_covariance : ndarray, (D, K, K)
        F, of daily factor returns; NaN before enough days of them.
    specific_variance : ndarray, (D, N)
        s, of a day; NaN before enough days.
    """

    names: tuple[str, ...]
    exposures: np.ndarray
    factor_returns: np.ndarray
    factor_covariance: np.ndarray
    specific_variance: np.ndarray

    @classmethod
    def fit(cls, panel: Panel, decisions: pd.DatetimeIndex, parameters: RiskParameters | None = None) -> Self:
        """The model at some decisions of a panel.

        Days are counted back from each decision's own hour, so what is known at one does not depend on which others
        are asked for. Asked again for the same, it gives the same model.

        Parameters
        ----------
        panel : Panel
            It is made as known. Row ``d`` uses its rows up to ``decisions[d]``.
        decisions : DatetimeIndex, (D,)
            Instants of the panel.
        parameters : RiskParameters, optional
            Windows and half-lives.

        Raises
        ------
        DataError
            For an instant that the panel lacks.
        """
        own = parameters or RiskParameters()
        for name in _FIELDS:
            panel.fields.get(name)  # what is kept was read from them too
        key = (decisions.asi8.tobytes(), own)
        with _LOCK:
            kept = _KEPT.setdefault(panel, {})
            if key not in kept:
                if len(kept) == _MODELS_A_PANEL:
                    del kept[next(iter(kept))]
                kept[key] = cls(factor_names(panel), *map(read_only, _at(panel.point_in_time(), decisions, own)))
            model = kept[key]
        assert isinstance(model, cls)
        return model

    def volatility(self, weights: np.ndarray) -> np.ndarray:
        """Ex-ante volatility of books, annual.

        Parameters
        ----------
        weights : ndarray, (D, N) or (P, D, N)
            Signed fractions of equity; NaN counts as 0.

        Returns
        -------
        ndarray, (D,) or (P, D)
            Fraction of equity a year of 365 days; NaN where a coin that is held has no exposures yet, or before enough
            days. A book's bits do not depend on the others.
        """
        books = np.ascontiguousarray(np.where(np.isnan(weights), 0.0, weights)).reshape(
            -1, *self.specific_variance.shape
        )
        unknown = np.isnan(self.exposures).any(axis=2) | np.isnan(self.specific_variance)
        exposures = np.where(unknown, 0.0, np.moveaxis(self.exposures, 2, 0)).copy()
        specific = np.where(unknown, 0.0, self.specific_variance)
        variance, gaps = np.empty(books.shape[:2]), bool(unknown.any())
        # A book at a time, and sums along its coins, no product of matrices: its bits must not depend on the others.
        for book, held in enumerate(books):
            factors = [np.einsum("dn,dn->d", held, column) for column in exposures]
            variance[book] = np.einsum("dn,dn,dn->d", held, held, specific)
            for (one, x), (other, y) in product(enumerate(factors), repeat=2):
                variance[book] += x * y * self.factor_covariance[:, one, other]
            if gaps:
                variance[book, ((held != 0.0) & unknown).any(axis=1)] = np.nan
        return np.sqrt(np.where(variance < 0.0, 0.0, variance) * DAYS_PER_YEAR).reshape(weights.shape[:-1])


def book_risk(panel: Panel, weights: pd.DataFrame) -> pd.DataFrame:
    """What the risk model says of a book, of any oracle or weights file.

    Parameters
    ----------
    panel : Panel
    weights : DataFrame, (D, N)
        Decision instants x coins of the panel; NaN counts as 0.

    Returns
    -------
    DataFrame, (D, 1 + K)
        ``expected volatility``, annual, and the exposure to each factor, ``market exposure`` and so on. NaN where it is
        not known.
    """
    model = RiskModel.fit(panel, pd.DatetimeIndex(weights.index))
    held = np.nan_to_num(weights.reindex(columns=list(panel.coins), fill_value=0.0).to_numpy(dtype=np.float64))
    known = np.where((held != 0.0)[:, :, None], model.exposures, 0.0)
    columns = {"expected volatility": model.volatility(held)}
    for number, name in enumerate(model.names):
        columns[f"{name} exposure"] = (held * known[:, :, number]).sum(axis=1)
    return pd.DataFrame(columns, index=weights.index)


def factor_names(panel: Panel) -> tuple[str, ...]:
    """Names of the factors of a panel: a market for each dex, then the other characteristics."""
    markets = (f"market {dex}" if dex else "market" for dex in dex_members(panel))
    return (*(markets if len(dex_members(panel)) > 1 else ("market",)), *CHARACTERISTICS[1:])


def _at(panel: Panel, decisions: pd.DatetimeIndex, own: RiskParameters) -> list[np.ndarray]:
    """Exposures, factor returns, factor covariance and specific variance at decisions of a panel as known."""
    rows = panel.rows(decisions)
    if (rows < 0).any():
        raise DataError(f"The panel has no row at {show(decisions[int(np.argmin(rows))])}: no risk is known there.")
    coins, factors, count = len(panel.coins), len(factor_names(panel)), len(rows)
    shapes = ((coins, factors), (factors,), (factors, factors), (coins,))
    found = [np.full((count, *shape), np.nan) for shape in shapes]
    for first in np.unique(rows % _DAY):
        asked = np.flatnonzero(rows % _DAY == first)
        days = np.arange(first, rows[asked].max() + 1, _DAY)
        for target, values in zip(found, _of_days(panel, days, own), strict=True):
            target[asked] = values[rows[asked] // _DAY]
    return found


def _of_days(panel: Panel, days: np.ndarray, own: RiskParameters) -> tuple[np.ndarray, ...]:
    """The same at rows of a panel that are 24 hours apart, from its first day on."""
    dexes = list(dex_members(panel).values())
    measured, tradable = characteristics(panel, days, own), panel.tradable[days]
    exposures = _exposures(measured, tradable, dexes, own.clip)
    returns = _daily_returns(panel, days)
    scale = _regression_scale(measured[:, :, CHARACTERISTICS.index("size")], tradable)
    state = _Moments(exposures.shape[2], len(panel.coins), own)
    known = [state.known(tradable[0])]
    for day in range(1, len(days)):
        usable = tradable[day - 1] & ~np.isnan(returns[day]) & ~np.isnan(exposures[day - 1]).any(axis=1)
        fitted = usable & ~np.isnan(measured[day - 1, :, 0])
        state.add(exposures[day - 1], returns[day], scale[day - 1], usable, fitted)
        known.append(state.known(tradable[day]))
    return (exposures, *map(np.stack, zip(*known, strict=True)))


class _Moments:
    """Exponentially weighted moments of factor returns and of what the factors leave, day after day."""

    def __init__(self, factors: int, coins: int, own: RiskParameters) -> None:
        self.own, self.days = own, 0
        self.keep = 0.5 ** (1.0 / own.factor_half_life_days)
        self.keep_specific = 0.5 ** (1.0 / own.specific_half_life_days)
        self.returns = np.full(factors, np.nan)
        self.products, self.weights = np.zeros((factors, factors)), np.zeros(factors)
        self.squares, self.seen = np.zeros(coins), np.zeros(coins)

    def add(
        self, exposures: np.ndarray, returns: np.ndarray, scale: np.ndarray, usable: np.ndarray, fitted: np.ndarray
    ) -> None:
        """One day: its factor returns by weighted least squares over the `fitted` coins, and the rest of all usable."""
        self.returns = np.full(len(self.weights), np.nan)
        if fitted.sum() < self.own.least_coins:
            return
        design = exposures[fitted]
        made = np.linalg.lstsq(design * scale[fitted, None], returns[fitted] * scale[fitted], rcond=None)[0]
        self.returns = np.where((design != 0.0).any(axis=0), made, np.nan)
        made = np.where(np.isnan(self.returns), 0.0, made)
        rest = np.where(usable, returns - np.where(usable[:, None], exposures, 0.0) @ made, 0.0)
        self.products = self.keep * self.products + np.outer(made, made)
        self.weights = self.keep * self.weights + ~np.isnan(self.returns)
        self.squares = self.keep_specific * self.squares + rest * rest
        self.seen = self.keep_specific * self.seen + usable
        self.days += 1

    def known(self, tradable: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Factor returns of the day, factor covariance and specific variance; the last two NaN before enough days."""
        if self.days < self.own.least_days:
            return self.returns, np.full_like(self.products, np.nan), np.full_like(self.squares, np.nan)
        # Both divisors of a covariance are roots, so that it stays one where a factor could not be measured every day.
        root = np.sqrt(np.where(self.weights > 0.0, self.weights, np.inf))
        measured = self.seen > 0.0
        variance = np.divide(self.squares, self.seen, out=np.zeros_like(self.squares), where=measured)
        median = np.median(variance[measured & tradable if (measured & tradable).any() else measured])
        share = np.where(measured, self.own.shrinkage, 1.0)
        return self.returns, self.products / np.outer(root, root), (1.0 - share) * variance + share * median


def _exposures(measured: np.ndarray, tradable: np.ndarray, dexes: Sequence[np.ndarray], clip: float) -> np.ndarray:
    """X of every day, (D, N, K): a column of betas for each dex, then the other characteristics."""
    columns = []
    for members in dexes:
        scores, mean, spread = _standardised(measured[:, :, 0], tradable & members, clip)
        columns.append(np.where(members, mean + spread * scores, 0.0))
    for number in range(1, measured.shape[2]):
        scores, mean, _ = _standardised(measured[:, :, number], tradable, clip)
        columns.append(np.where(np.isnan(mean), 0.0, scores))
    return np.stack(columns, axis=2)


def _standardised(values: np.ndarray, universe: np.ndarray, clip: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (D, N), cut, 0 for what is missing; mean and deviation (D, 1) over the universe, NaN where it is empty."""
    used = universe & ~np.isnan(values)
    count = used.sum(axis=1, keepdims=True)
    divisor = np.where(count > 0, count, np.nan)
    mean = np.where(used, values, 0.0).sum(axis=1, keepdims=True) / divisor
    centred = np.where(np.isnan(values) | np.isnan(mean), 0.0, values - mean)
    spread = np.sqrt(np.where(used, centred * centred, 0.0).sum(axis=1, keepdims=True) / divisor)
    # Equal characteristics have no order; what their deviation is then is rounding.
    differ = spread > 1e-12 * np.abs(mean)
    scores = np.divide(centred, spread, out=np.zeros_like(centred), where=differ)
    return np.clip(scores, -clip, clip), mean, spread


def _regression_scale(sizes: np.ndarray, tradable: np.ndarray) -> np.ndarray:
    """Root of each coin's weight in a regression, (D, N): the weight is the root of its volume, or of the mean."""
    used = tradable & ~np.isnan(sizes)
    mean = np.where(used, sizes, 0.0).sum(axis=1, keepdims=True) / np.maximum(used.sum(axis=1, keepdims=True), 1)
    return np.exp(np.where(np.isnan(sizes), mean, sizes) / 4.0)


def _daily_returns(panel: Panel, days: np.ndarray) -> np.ndarray:
    """What a dollar long of each coin made in the day that ends at each row, funding included, (D, N).

    A rate that is missing counts as 0, as in the ledger.
    """
    mid = panel.values("mid")[days]
    made = np.full_like(mid, np.nan)
    made[1:] = mid[1:] / mid[:-1] - 1.0
    if "funding" in panel.fields:
        made -= sums_of_last(np.nan_to_num(panel.values("funding")), days, _DAY)
    return made
