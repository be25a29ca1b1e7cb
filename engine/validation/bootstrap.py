"""Block bootstraps of daily returns: intervals, and the familywise test of the best of many sets.

Resamples of intervals are of the stationary bootstrap (Politis and Romano, "The stationary bootstrap", JASA 89, 1994),
those of the familywise test of circular blocks (the same, "A circular block-resampling procedure for stationary data",
1992); both are arch's, and so is the block length (Politis and White 2004, corrected 2009). The mean of a resample is a
sum of days weighted by how often each was drawn, so the means of all resamples of 10,000 sets are one matrix product.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from engine.errors import DataError
from engine.simulation import metrics
from engine.validation.statistics import checked_returns, moments

#: Columns whose resampled means are in memory at once: 1,000 resamples of them take 33 MB.
_CHUNK = 4_096
#: Part of the times that a test should see what is there.
POWER = 0.8
_LOADING = Lock()


@dataclass(frozen=True)
class Intervals:
    """Percentile intervals of one column of daily returns.

    Attributes
    ----------
    block_days : float
        Mean length of a block.
    confidence : float
        Two-sided.
    sharpe, cagr, mean_daily : tuple of float
        Low and high; the Sharpe ratio is annual.
    """

    block_days: float
    confidence: float
    sharpe: tuple[float, float]
    cagr: tuple[float, float]
    mean_daily: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Superiority:
    """Whether any of many sets earns more than nothing, and which do.

    Attributes
    ----------
    p_lower, p_consistent, p_upper : float
        Hansen's three p-values of "no set is better"; the consistent one is the test.
    better : tuple of int
        Columns that StepM finds better with a family-wise error of `size`, ascending.
    p_values : ndarray, (P,)
        Familywise (consistent) p-value of each column; NaN where it has no standard error.
    statistics : ndarray, (P,)
        Mean over standard error of a day, of each column; NaN likewise.
    critical : float
        What the highest of `statistics` has to be above.
    highest : ndarray, (resamples,)
        What the highest of them is without any skill, ascending.
    detectable : float
        What the highest of them has to be in truth for the test to pass four times in five, the others in proportion.
    """

    p_lower: float
    p_consistent: float
    p_upper: float
    better: tuple[int, ...]
    p_values: np.ndarray
    statistics: np.ndarray
    critical: float
    highest: np.ndarray
    detectable: float


class _OnUse(ModuleType):
    """A module that is imported when it is first used."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


def load_arch() -> Any:
    """Load ``arch.bootstrap``, once; before threads that may import arch themselves, of which they would see a part.

    Returns
    -------
    module
    """
    with _LOADING:
        return _bootstraps()


@cache
def _bootstraps() -> ModuleType:
    """``arch.bootstrap`` without what arch loads before it: models of volatility, for them statsmodels and matplotlib.

    With scipy.stats, which is loaded on use, they take a second and more, and nothing here needs them. The modules are
    kept here alone: whoever imports arch later gets the whole of it.
    """
    scipy: Any = import_module("scipy")
    spec = find_spec("arch")
    if "arch" in sys.modules or spec is None:
        return import_module("arch.bootstrap")
    sys.modules["arch"] = alone = ModuleType("arch")
    alone.__path__ = list(spec.submodule_search_locations or ())
    if "scipy.stats" not in sys.modules:
        scipy.stats = _OnUse("scipy.stats")
    try:
        return import_module("arch.bootstrap")
    except (ImportError, AttributeError):  # of a release whose bootstraps need more of it
        pass
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "arch"]:
            del sys.modules[name]
        if isinstance(vars(scipy).get("stats"), _OnUse):
            del scipy.stats
    return import_module("arch.bootstrap")


def block_length(returns: ArrayLike, kind: Literal["stationary", "circular"] = "stationary") -> float:
    """(Mean) block length of a bootstrap, days: arch's automatic choice, at least 1, at most a third.

    Raises
    ------
    DataError
        For fewer than ten days or constant returns.
    """
    values = np.asarray(returns, dtype=np.float64)
    if len(values) < 10 or np.isnan(moments(values).sharpe):
        raise DataError(f"{len(values)} daily returns cannot be resampled: at least 10 that vary are needed.")
    length = float(load_arch().optimal_block_length(values)[kind].iloc[0])
    return float(np.clip(length if np.isfinite(length) else 1.0, 1.0, len(values) / 3.0))


def bootstrap_intervals(
    returns: ArrayLike, confidence: float = 0.95, resamples: int = 1_000, seed: int = 0
) -> Intervals:
    """Percentile intervals of the annual Sharpe ratio, the CAGR and the mean daily return of one column, (days,).

    Raises
    ------
    DataError
        See :func:`block_length`.
    """
    values = np.asarray(returns, dtype=np.float64)
    length = block_length(values)
    drawing = load_arch().StationaryBootstrap(length, values, seed=seed)
    drawn = np.stack([of_days[0] for of_days, _ in drawing.bootstrap(resamples)])
    sharpe = np.nan_to_num(metrics.sharpe(drawn))  # a constant resample has shown nothing
    tails = (0.5 - confidence / 2.0, 0.5 + confidence / 2.0)

    def interval(of: np.ndarray) -> tuple[float, float]:
        low, high = np.quantile(of, tails)
        return float(low), float(high)

    return Intervals(length, confidence, interval(sharpe), interval(metrics.cagr(drawn)), interval(drawn.mean(axis=1)))


def superior_sets(
    returns: ArrayLike, block_days: float, size: float = 0.05, resamples: int = 1_000, seed: int = 0
) -> Superiority:
    """Hansen's test of superior predictive ability and the StepM of Romano and Wolf, over all columns.

    Hansen, "A test for superior predictive ability", Journal of Business and Economic Statistics 23(4), 2005; Romano
    and Wolf, "Stepwise multiple testing as formalized data snooping", Econometrica 73(4), 2005. The statistic of a set
    is its mean return over its standard error (with Hansen's weights of the autocovariances), so that a set of high
    volatility does not drown the others. Days are drawn jointly, in circular blocks. The numbers are those of arch's
    ``SPA`` and ``StepM`` (losses are negative returns) given such studentized returns, ``bootstrap="circular"`` and the
    same seed; arch itself does not divide by the standard error, and holds every resampled mean three times.

    Parameters
    ----------
    returns : array or DataFrame, (days, P)
        Simple daily returns, or what is left of them above a benchmark; finite. Constant columns are left out: they
        have no standard error.
    block_days : float
        Length of the blocks, see :func:`block_length`; rounded to whole days.
    size : float
        Family-wise error rate of StepM.
    resamples : int
        Draws of the bootstrap.
    seed : int
        Of the draws.

    Raises
    ------
    DataError
        For fewer than ten days, or when no column varies.
    """
    values = checked_returns(returns, least_days=10)
    block = max(1, round(block_days))
    days = len(values)
    error = _standard_errors(values, 1.0 / block)
    varies = np.flatnonzero(error > 1e-9 * np.sqrt((values**2).mean(axis=0) + 1e-300))
    if not len(varies):
        raise DataError("The returns of no set vary: there is nothing to test.")
    scaled = values[:, varies] / error[varies]
    counts = _circular_counts(days, block, resamples, seed) / days
    mean = scaled.mean(axis=0)
    # Hansen's three views of sets that do badly: as bad as they look, irrelevant when clearly bad, no worse than zero.
    relevant = mean >= -np.sqrt(2.0 * np.log(np.log(days)) / days)
    centres = (np.maximum(mean, 0.0), np.where(relevant, mean, 0.0), mean)
    highest = _highest(counts, scaled, np.stack(centres))
    lower, consistent, upper = (float(p) for p in (highest > mean.max()).mean(axis=1))
    better = _stepwise(counts, scaled, mean, centres[1], highest[1], size)
    null = np.sort(highest[1])
    p_values, statistics = np.full((2, values.shape[1]), np.nan)
    p_values[varies] = 1.0 - np.searchsorted(null, mean, side="right") / resamples
    statistics[varies] = mean
    found = tuple(int(column) for column in varies[better])
    # Where all sets are bad the consistent null loses, too: what would be seen is against sets that are worth nothing.
    critical = float(np.quantile(null if mean.max() > 0.0 else highest[2], 1.0 - size))
    detectable = _detectable(counts, scaled, mean, critical)
    return Superiority(lower, consistent, upper, found, p_values, statistics, critical, null, detectable)


def circular_days(length: int, block: int, days: int, resamples: int, seed: int | Sequence[int]) -> np.ndarray:
    """Days of every resample of circular blocks, (resamples, days): the first day follows the last.

    Where `days` is `length` the draws are those of arch's ``CircularBlockBootstrap``, which has no other length.

    Parameters
    ----------
    length : int
        Days that there are.
    block : int
        Days of a block.
    days, resamples : int
        Days of a resample, and how many resamples.
    seed : int or sequence of int
        Of the draws.
    """
    starts = np.random.default_rng(seed).integers(length, size=(resamples, -(-days // block)))
    return ((starts[:, :, None] + np.arange(block)) % length).reshape(resamples, -1)[:, :days]


def _circular_counts(days: int, block: int, resamples: int, seed: int) -> np.ndarray:
    """How often every day is in every resample of circular blocks, (resamples, days)."""
    drawn = circular_days(days, block, days, resamples, seed)
    flat = (drawn + days * np.arange(resamples)[:, None]).ravel()
    return np.bincount(flat, minlength=resamples * days).reshape(resamples, days)


def _standard_errors(values: np.ndarray, p: float) -> np.ndarray:
    """Square root of Hansen's long-run variance, of every column; ``p`` ends a block on a day."""
    days = len(values)
    deviation = values - values.mean(axis=0)
    variance = (deviation**2).mean(axis=0)
    for lag in range(1, days):
        share = lag / days
        weight = (1.0 - share) * (1.0 - p) ** lag + share * (1.0 - p) ** (days - lag)
        if weight > 1e-12:
            variance += 2.0 * weight * np.einsum("ij,ij->j", deviation[:-lag], deviation[lag:]) / days
    return np.sqrt(np.maximum(variance, 0.0))


def _highest(counts: np.ndarray, scaled: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Highest centred mean over the columns, of every resample, by each of K centres, (K, P): (K, resamples)."""
    top = np.full((len(centres), len(counts)), -np.inf)
    for first in range(0, scaled.shape[1], _CHUNK):
        means = counts @ scaled[:, first : first + _CHUNK]
        for best, centre in zip(top, centres[:, first : first + _CHUNK], strict=True):
            np.maximum(best, (means - centre).max(axis=1), out=best)
    return top


def _detectable(counts: np.ndarray, scaled: np.ndarray, mean: np.ndarray, critical: float) -> float:
    """The :data:`POWER` quantile over the resamples of the least true statistic of the best with which one is passed.

    The others are as good in proportion as they were, all alike where none was any good.
    """
    best = mean.max()
    strength = np.maximum(mean, 0.0) / best if best > 0.0 else np.ones_like(mean)
    some = np.flatnonzero(strength > 0.0)
    least = np.full(len(counts), np.inf)
    for first in range(0, len(some), _CHUNK):
        part = some[first : first + _CHUNK]
        luck = counts @ scaled[:, part] - mean[part]
        np.minimum(least, ((critical - luck) / strength[part]).min(axis=1), out=least)
    return float(np.quantile(least, POWER))


def _stepwise(
    counts: np.ndarray, scaled: np.ndarray, mean: np.ndarray, centre: np.ndarray, highest: np.ndarray, size: float
) -> np.ndarray:
    """Columns above the critical value, then above that of the columns that remain, until none is added."""
    left = np.ones(len(mean), dtype=np.bool_)
    while True:
        added = left & (mean > np.quantile(highest, 1.0 - size))
        left &= ~added
        if not added.any() or not left.any():
            return np.flatnonzero(~left)
        (highest,) = _highest(counts, scaled[:, left], centre[None, left])
