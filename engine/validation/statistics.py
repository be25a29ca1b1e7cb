"""Is a backtest more than luck? Pure functions of Sharpe ratios and daily returns.

Every Sharpe ratio here is per period (a day): ``mean / std(ddof=1)``, not annual. Skewness and kurtosis are the biased
sample moments, kurtosis raw (3 = normal). NaN stands where a statistic is not defined.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from engine.errors import DataError
from engine.simulation import metrics
from engine.simulation.metrics import FLAT
from engine.validation.split_halves import Halves, judge_splits

EULER_GAMMA = 0.5772156649015329
MOST_BLOCKS = 20


class Moments(NamedTuple):
    """Of one column of returns."""

    sharpe: float  # per period; NaN for fewer than two periods or constant returns
    n: int
    skew: float
    kurtosis: float  # raw


@dataclass(frozen=True, eq=False)
class Overfitting:
    """Outcome of the combinatorially symmetric cross-validation, C splits.

    Attributes
    ----------
    pbo : float
        Share of the splits whose logit is 0 or below: the best in sample is in the lower half out of sample.
    logits : ndarray, (C,)
        ``log(w / (1 - w))`` with ``w = rank / (P + 1)``, the rank out of sample (1 = worst) of the best in sample.
    chosen : ndarray, (C,) int64
        Column that is the best in sample.
    in_sample, out_of_sample : ndarray, (C,)
        Its Sharpe ratios, per period.
    slope, intercept : float
        Least squares of `out_of_sample` on `in_sample`; NaN where the latter does not vary.
    probability_of_loss : float
        Share of the splits with a negative Sharpe ratio out of sample.
    """

    pbo: float
    logits: np.ndarray
    chosen: np.ndarray
    in_sample: np.ndarray
    out_of_sample: np.ndarray
    slope: float
    intercept: float
    probability_of_loss: float


@dataclass(frozen=True)
class Fold:
    """One step of a walk-forward; rows are half open, ``train_first`` up to ``train_stop``."""

    train_first: int
    train_stop: int
    test_first: int
    test_stop: int
    column: int  # of the set that was chosen
    in_sample_sharpe: float
    out_of_sample_sharpe: float  # before what the switch costs


@dataclass(frozen=True, eq=False)
class WalkForward:
    """Out-of-sample returns, stitched.

    Attributes
    ----------
    first : int
        Row of the first of them.
    returns : ndarray, (rows from `first` on,)
        Simple daily returns after the charge for each switch.
    folds : tuple of Fold
    """

    first: int
    returns: np.ndarray
    folds: tuple[Fold, ...]


def moments(returns: ArrayLike) -> Moments:
    """Sharpe ratio, length, skewness and raw kurtosis of one column."""
    values = np.asarray(returns, dtype=np.float64)
    n = len(values)
    if np.isnan(sharpe := metrics.sharpe(values)):
        return Moments(np.nan, n, np.nan, np.nan)
    deviation = values - values.mean()
    square = float(np.mean(deviation**2))
    return Moments(
        sharpe / metrics.ANNUAL, n, float(np.mean(deviation**3) / square**1.5), float(np.mean(deviation**4) / square**2)
    )


def sharpe_ratios(returns: np.ndarray) -> np.ndarray:
    """Sharpe ratio of every column of (days, P), (P,), not annual; NaN for a constant one."""
    values = np.ascontiguousarray(np.asarray(returns, dtype=np.float64).T)
    return np.asarray(metrics.sharpe(values)) / metrics.ANNUAL


# ------------------------------------------------------------------------------------------- one Sharpe ratio


def probabilistic_sharpe_ratio(sr: float, n: float, skew: float, kurtosis: float, benchmark_sr: float = 0.0) -> float:
    """Probability that the true Sharpe ratio is above `benchmark_sr`.

    ``Phi[(sr - s) sqrt(n - 1) / sqrt(1 - g3 sr + (g4 - 1) / 4 sr^2)]``, Bailey and Lopez de Prado, "The Sharpe ratio
    efficient frontier", Journal of Risk 15(2), 2012. NaN for n < 2 and where the variance term is not positive, which
    moments of real returns cannot make it (``g4 >= 1 + g3^2``).
    """
    from scipy.special import ndtr

    variance = _variance_term(sr, skew, kurtosis)
    if not n > 1 or not variance > 0.0:
        return float("nan")
    return float(ndtr((sr - benchmark_sr) * np.sqrt((n - 1) / variance)))


def minimum_track_record_length(
    sr: float, skew: float, kurtosis: float, benchmark_sr: float = 0.0, confidence: float = 0.95
) -> float:
    """Periods after which :func:`probabilistic_sharpe_ratio` reaches `confidence`; infinite for ``sr <= s``.

    ``1 + [1 - g3 sr + (g4 - 1) / 4 sr^2] (Phi^-1(confidence) / (sr - s))^2``, from the same paper.
    """
    from scipy.special import ndtri

    variance = _variance_term(sr, skew, kurtosis)
    if not variance > 0.0:
        return float("nan")
    if sr <= benchmark_sr:
        return float("inf")
    return float(1.0 + variance * (ndtri(confidence) / (sr - benchmark_sr)) ** 2)


def expected_max_sharpe(trials_sd: float, n_trials: float) -> float:
    """Expected highest Sharpe ratio of `n_trials` without any skill, whose ratios have the standard deviation given.

    ``sd [(1 - gamma) Phi^-1(1 - 1/N) + gamma Phi^-1(1 - 1/(N e))]``, Bailey and Lopez de Prado, "The deflated Sharpe
    ratio", Journal of Portfolio Management 40(5), 2014. One trial is expected to have 0, and so do the fractions of
    one (of an effective number) for which the approximation turns negative.

    Raises
    ------
    DataError
        For less than one trial.
    """
    from scipy.special import ndtri

    if not n_trials >= 1.0:
        raise DataError(f"The expected highest Sharpe ratio of {n_trials} trials was asked for; there is at least one.")
    if n_trials == 1.0:
        return 0.0
    middle, tail = ndtri(1.0 - 1.0 / n_trials), ndtri(1.0 - 1.0 / (n_trials * np.e))
    return float(trials_sd * max((1.0 - EULER_GAMMA) * middle + EULER_GAMMA * tail, 0.0))


def deflated_sharpe_ratio(
    sr: float, n: float, skew: float, kurtosis: float, trials_sd: float, n_trials: float
) -> float:
    """:func:`probabilistic_sharpe_ratio` against :func:`expected_max_sharpe`: the search itself is the benchmark.

    `trials_sd` is the standard deviation of the Sharpe ratios of all trials, per period as `sr`.
    """
    return probabilistic_sharpe_ratio(sr, n, skew, kurtosis, expected_max_sharpe(trials_sd, n_trials))


def effective_days(returns: ArrayLike) -> float:
    """How many independent days measure a Sharpe ratio as well as these, which may follow from one another.

    ``1 + (T - 1) V0 / V1``: V0 is the variance of the Sharpe ratio's influence ``psi`` as if days were independent, V1
    its long-run variance (Lo, "The statistics of Sharpe ratios", Financial Analysts Journal 58(4), 2002), with
    prewhitening and Bartlett weights (Andrews and Monahan, Econometrica 60(4), 1992; the bandwidth of Andrews,
    Econometrica 59(3), 1991, for an AR(1)). NaN for fewer than three days or constant returns.
    """
    values = np.asarray(returns, dtype=np.float64)
    days = len(values)
    if days < 3 or np.isnan(moments(values).sharpe):
        return float("nan")
    mean, sd = values.mean(), values.std()
    psi = (values - mean) / sd - mean / (2.0 * sd**3) * ((values - mean) ** 2 - sd**2)
    own = float(np.clip(_ar1(psi), -0.97, 0.97))
    rest = psi[1:] - own * psi[:-1]
    rho = float(np.clip(_ar1(rest), -0.97, 0.97))
    width = 1.1447 * (4.0 * rho**2 * days / ((1.0 - rho) ** 2 * (1.0 + rho) ** 2)) ** (1.0 / 3.0)
    long_run = float(rest @ rest)
    for lag in range(1, min(int(width) + 1, len(rest))):
        long_run += 2.0 * max(1.0 - lag / (width + 1.0), 0.0) * float(rest[lag:] @ rest[:-lag])
    whole = long_run / len(rest) / (1.0 - own) ** 2
    return float(1.0 + (days - 1) * float(np.mean(psi**2)) / whole) if whole > 0.0 else float("nan")


def annualisation(periods: int, autocorrelations: ArrayLike) -> float:
    """Factor from a Sharpe ratio per period to one over `periods`; `autocorrelations` are of lag 1, 2, ..., else zero.

    ``q / sqrt(q + 2 sum_k (q - k) rho_k)``, Lo 2002, equation 20; ``sqrt(q)`` without autocorrelation.
    """
    rho = np.asarray(autocorrelations, dtype=np.float64)[: periods - 1]
    spread = periods + 2.0 * float(((periods - np.arange(1, len(rho) + 1)) * rho).sum())
    return float(periods / np.sqrt(spread)) if spread > 0.0 else float("nan")


def _ar1(values: np.ndarray) -> float:
    """Least squares of a value on the one before, without a constant."""
    square = float(values[:-1] @ values[:-1])
    return float(values[1:] @ values[:-1]) / square if square > 0.0 else 0.0


def _variance_term(sr: float, skew: float, kurtosis: float) -> float:
    return 1.0 - skew * sr + (kurtosis - 1.0) / 4.0 * sr**2


# --------------------------------------------------------------------------------------------------- many sets


def effective_trials(returns: ArrayLike) -> float:
    """How many independent trials the columns of (days, P) amount to, from 1 to P.

    The participation ratio of the eigenvalues of the correlation matrix, ``(sum e)^2 / sum(e^2)`` (Bretherton et al.,
    "The effective number of spatial degrees of freedom of a time-varying field", Journal of Climate 12, 1999), which
    is ``P / (1 + (P - 1) m)`` with ``m`` the mean squared correlation of two columns. Over few days even unrelated
    columns correlate by chance, ``E r^2 = 1 / (days - 1)``, so ``m`` is adjusted as in the adjusted R squared:
    ``m - (1 - m) / (days - 2)``, at least 0. The sum of squares comes from the days x days Gram matrix, so 10,000
    columns cost no more than their days. A constant column correlates with nothing and is left out.

    Raises
    ------
    DataError
        For fewer than three days, or values that are not finite.
    """
    values = checked_returns(returns, least_days=3)
    days = len(values)
    deviation = values - values.mean(axis=0)
    squares = (deviation**2).sum(axis=0)
    varies = squares > FLAT * (values**2).sum(axis=0)
    count = int(varies.sum())
    if count < 2:
        return 1.0
    unit = deviation[:, varies] / np.sqrt(squares[varies])
    gram = unit @ unit.T
    mean_square = (float((gram**2).sum()) - count) / (count * (count - 1.0))
    adjusted = max(mean_square - (1.0 - mean_square) / (days - 2.0), 0.0)
    return max(float(count / (1.0 + (count - 1.0) * adjusted)), 1.0)  # copies give 1 but for rounding


def probability_of_backtest_overfitting(returns: ArrayLike, n_blocks: int = 16) -> Overfitting:
    """Combinatorially symmetric cross-validation of the choice of the highest Sharpe ratio.

    Bailey, Borwein, Lopez de Prado and Zhu, "The probability of backtest overfitting", Journal of Computational
    Finance 20(4), 2017. Days are cut into `n_blocks` consecutive blocks, as equal as can be (the first are a day
    longer); each choice of half of them is in sample once, the rest out of sample. The Sharpe ratios of all halves
    come from sums and sums of squares of the blocks, and a half in sample is another split's out of sample, so each
    is computed once. Columns are not demeaned, which would make the two halves mirror images.

    Parameters
    ----------
    returns : array or DataFrame, (days, P)
        Simple daily returns, finite.
    n_blocks : int
        Even, 2 to :data:`MOST_BLOCKS`; 16 makes 12,870 splits.

    Returns
    -------
    Overfitting
        A column without variance in a half has the Sharpe ratio 0 there. Of equals in sample the first is chosen; out
        of sample equals (to 1e-12) share their mean rank.

    Raises
    ------
    DataError
        For an odd or unfit number of blocks, fewer than two days a half, one set, values that are not finite.
    """
    values = checked_returns(returns, least_days=2, least_sets=2)
    days = len(values)
    if n_blocks != int(n_blocks) or n_blocks % 2 or not 2 <= n_blocks <= MOST_BLOCKS:
        raise DataError(f"n_blocks = {n_blocks} is not accepted: it must be even, from 2 to {MOST_BLOCKS}.")
    if days < max(n_blocks, 4):
        raise DataError(
            f"{days} days cannot be cut into {n_blocks} blocks with two days in a half. Name fewer blocks, or take a "
            "longer range."
        )
    lengths = np.full(n_blocks, days // n_blocks)
    lengths[: days % n_blocks] += 1
    starts = np.cumsum(lengths) - lengths
    sums, squares = np.add.reduceat(values, starts, axis=0), np.add.reduceat(values**2, starts, axis=0)
    # In lexicographic order the splits with the first block come first, and their complements follow backwards.
    choices = np.array(list(combinations(range(n_blocks), n_blocks // 2)))
    half = len(choices) // 2
    inside = np.zeros((half, n_blocks))
    inside[np.arange(half)[:, None], choices[:half]] = 1.0
    parts = [np.empty(2 * half), np.empty(2 * half), np.empty(2 * half), np.empty(2 * half, dtype=np.int64)]
    workers = min(os.cpu_count() or 1, half)
    made = [Halves(sums, squares, lengths.astype(np.float64)) for _ in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(partial(judge_splits, inside, parts), made, np.array_split(np.arange(half), workers)))
    logits, best, picked, chosen = parts
    slope, intercept = _line(best, picked)
    loss = float((picked < 0.0).mean())
    return Overfitting(float((logits <= 0.0).mean()), logits, chosen, best, picked, slope, intercept, loss)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    deviation = x - x.mean()
    square = float(deviation @ deviation)
    if not square > FLAT * float(x @ x):
        return float("nan"), float("nan")
    slope = float(deviation @ y) / square
    return slope, float(y.mean() - slope * x.mean())


def walk_forward(
    returns: ArrayLike,
    train_days: int,
    test_days: int,
    anchored: bool,
    switch_cost_frac: ArrayLike = 0.0,
    hour: ArrayLike = 0,
) -> WalkForward:
    """Choose the highest Sharpe ratio in sample, hold it for `test_days`, choose again; the curve nobody could fit.

    Parameters
    ----------
    returns : array or DataFrame, (days, P)
        Simple daily returns, finite.
    train_days, test_days : int
        Length of the first (anchored) or of every (rolling) training span, and of the folds; the last may be shorter.
    anchored : bool
        Train on all that came before the fold, not only on the last `train_days`.
    switch_cost_frac : float or array, (P,)
        Charged on the first day of a fold that changes to a set, as a fraction of equity; the first choice is charged
        too.
    hour : int or array, (P,)
        Hour at which the days of each set end. The choice waits for the day of the latest; a set whose next day has
        begun by then earns nothing on it, for nobody could have held it.

    Raises
    ------
    DataError
        When the days leave no fold, or for values that are not finite.
    """
    values = checked_returns(returns, least_days=2)
    days, sets = values.shape
    if train_days < 2 or test_days < 1 or train_days >= days:
        raise DataError(
            f"A walk-forward over {days} days cannot train on {train_days} and test on {test_days}: it needs at least "
            "2 days of training and a day after them."
        )
    cost = np.broadcast_to(np.asarray(switch_cost_frac, dtype=np.float64), (sets,))
    begun = np.broadcast_to(np.asarray(hour) < np.max(hour), (sets,))
    stitched, folds, held = values[train_days:, 0].copy(), [], -1
    for first in range(train_days, days, test_days):
        start, stop = (0 if anchored else first - train_days), min(first + test_days, days)
        trained = sharpe_ratios(values[start:first])
        column = int(np.where(np.isnan(trained), 0.0, trained).argmax())  # a constant one has shown nothing
        part = values[first:stop, column].copy()
        tested = float(sharpe_ratios(part[:, None])[0])
        if column != held:
            part[0] = 0.0 if begun[column] else part[0]
            part[0] = (1.0 + part[0]) * (1.0 - cost[column]) - 1.0
        stitched[first - train_days : stop - train_days] = part
        folds.append(Fold(start, first, first, stop, column, float(trained[column]), tested))
        held = column
    return WalkForward(train_days, stitched, tuple(folds))


def checked_returns(returns: ArrayLike, least_days: int, least_sets: int = 1) -> np.ndarray:
    """The (days, P) array of float64.

    Raises
    ------
    DataError
        For another shape, too few days or sets, values that are not finite.
    """
    values = np.asarray(returns.to_numpy() if isinstance(returns, pd.DataFrame) else returns, dtype=np.float64)
    if values.ndim != 2 or len(values) < least_days or values.shape[1] < least_sets:
        raise DataError(
            f"Returns of shape {values.shape} were given; at least {least_days} days x {least_sets} sets are needed."
        )
    if not np.isfinite(values).all():
        sets = int((~np.isfinite(values)).any(axis=0).sum())
        raise DataError(
            f"The daily returns of {sets} of {values.shape[1]} sets hold values that are not finite. Leave those sets "
            "or days out."
        )
    return values
