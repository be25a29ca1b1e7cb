"""Performance metrics of returns and equity: the one home of their formulas; a year is 365 days.

What they count from, the first decision that asks for something, is in docs/concepts/rules.md. Formulas are QuantStats'
(0.0.86, ``periods_per_year=365``, risk-free rate 0), with which tests compare them, and the
kernel's :func:`~engine.simulation.kernel.summarise_nb` with them. All take daily simple returns without NaN, time last,
``(..., D)``, and give a float for one column of returns and an array, ``(...)``, for many; NaN where a statistic is not
defined.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from engine.clock import DAYS_PER_YEAR

#: An annual volatility or Sharpe ratio over the daily one.
ANNUAL = float(np.sqrt(DAYS_PER_YEAR))
#: End of the names of figures over every day and decision of a panel, beside those from the first decision on.
CALENDAR = "_calendar"
#: Figures of daily returns, and means over decisions.
ANNUAL_FIGURES = ("cagr", "volatility", "sharpe", "sortino")
MEANS = ("turnover_decision", "gross_mean", "net_mean", "untradable_weight")
#: Sum of squared deviations, as a fraction of the sum of squares, and standard deviation up to which returns are
#: constant but for rounding; the latter also for a downside or a drawdown. No ratio is made of what is no risk.
FLAT, DUST = 1e-12, 1e-12
#: Share of held coin-hours without a funding rate above which a run says so.
FUNDING_MISSING_NOTED = 0.01


def figures(
    start: float,
    end: Any,
    deepest: Any,
    days: Sequence[Any],
    annual: Iterable[Iterable[Any]],
    sums: Iterable[Any],
    decisions: Sequence[Any],
    spans: Sequence[Any],
    counts: Mapping[str, Any],
) -> dict[str, Any]:
    """Metrics by name, of one run (floats) or of many books (arrays, (P,)).

    Parameters
    ----------
    start, end : float, float or array
        Equity, USD.
    deepest : float or array
        Maximum drawdown, 0 or negative.
    days, annual : pairs
        From the first decision that asks for something, and over the calendar: number of daily returns, their
        :data:`ANNUAL_FIGURES`.
    sums : sequence
        What :data:`MEANS` are means of, summed over decisions; those before the first that asks add nothing.
    decisions : pair
        Number of decisions, from the first that asks for something, and of all.
    spans : pair
        Days of 24 hours that have begun since the first of these was traded (:func:`days_begun`).
    counts : mapping
        Everything else, taken over as it is.
    """
    totals = list(sums)
    own, calendar = (
        {
            "days": counted,
            **dict(zip(ANNUAL_FIGURES, values, strict=True)),
            "turnover_daily": _plain(totals[0] / np.maximum(span, 1)),
            **{name: _plain(total / np.maximum(number, 1)) for name, total in zip(MEANS, totals, strict=True)},
        }
        for counted, values, number, span in zip(days, annual, decisions, spans, strict=True)
    )
    for part in (own, calendar):
        part["calmar"] = calmar(part["cagr"], deepest)
    return {
        "equity_start_usd": start,
        "equity_end_usd": end,
        "total_return": total_return(start, end),
        "max_drawdown": deepest,
        **own,
        **counts,
        **{name + CALENDAR: value for name, value in calendar.items()},
    }


def missing_rates_note(share: float, mean: bool, paid: bool) -> tuple[str, ...]:
    """What a reader must know where `share` of the held coin-hours has no funding rate; nothing up to 1 %.

    `mean` is ``costs.funding_missing = "mean"``; `paid`, whether any funding was paid or received.
    """
    if not share > FUNDING_MISSING_NOTED:
        return ()
    if share == 1.0 and not paid:
        return ("No hour in which a coin was held has a funding rate: these figures are without funding.",)
    did, other = ("paid a mean rate", "none") if mean else ("cost nothing", "mean")
    return (
        f"{share:.1%} of the hours in which a coin was held have no funding rate and {did}: `hlbt data status` lists "
        f"the gaps, and --set costs.funding_missing={other} shows what they may hide.",
    )


def missing_rates_of_many(shares: np.ndarray) -> tuple[str, ...]:
    """:func:`missing_rates_note` of the sets of a sweep, (P,); sets that failed are NaN."""
    noted = shares[shares > FUNDING_MISSING_NOTED]
    if not len(noted):
        return ()
    return (
        f"In {len(noted):,} of {len(shares):,} sets more than {FUNDING_MISSING_NOTED:.0%} of the hours in which a coin "
        f"was held have no funding rate, {noted.max():.1%} at most (funding_missing_frac): `hlbt data status` lists "
        "the gaps.",
    )


def first_days(daily: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Number of the first daily return that ends after each decision made at `rows`, (D,).

    `daily`, (T,) bool, says at which rows of the panel a day ends.
    """
    return np.maximum(np.searchsorted(np.flatnonzero(daily), rows, side="right") - 1, 0)


def days_begun(rows: Any, hours: int) -> Any:
    """Days of 24 hours that have begun from each of `rows` to the last of a panel's `hours`."""
    return (hours - 1 - rows) // 24 + 1


def counted(returns: np.ndarray, days: Any) -> np.ndarray:
    """Daily returns, (..., D), with NaN for those before the last `days`, (...): nothing was asked for yet."""
    last = returns.shape[-1] - np.asarray(days)
    return np.where(np.arange(returns.shape[-1]) >= last[..., None], returns, np.nan)


def daily_returns(equity: np.ndarray) -> np.ndarray:
    """Equity over that of the day before, minus 1, (..., D - 1), from one value a day, (..., D).

    Once equity is gone there is nothing to grow: a return on it has no meaning, so it is 0.
    """
    before = equity[..., :-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(before > 0.0, equity[..., 1:] / before - 1.0, 0.0)


def total_return(start: float, end: Any) -> Any:
    """``end / start - 1``."""
    return end / start - 1.0


def cagr(returns: np.ndarray) -> Any:
    """Compound annual growth: ``prod(1 + r) ** (365 / days) - 1``; -1 once everything is lost."""
    days = returns.shape[-1]
    if days == 0:
        return _plain(np.full(returns.shape[:-1], np.nan))
    with np.errstate(over="ignore", invalid="ignore"):
        growth = np.prod(1.0 + returns, axis=-1) ** (DAYS_PER_YEAR / days) - 1.0
    # Two days that lose more than everything are no gain, as their product would have it.
    return _plain(np.where((returns <= -1.0).any(axis=-1), -1.0, growth))


def volatility(returns: np.ndarray) -> Any:
    """``std(ddof=1) * sqrt(365)``; 0 for constant returns."""
    return _plain(_deviation(returns) * ANNUAL)


def sharpe(returns: np.ndarray) -> Any:
    """``mean / std(ddof=1) * sqrt(365)``; NaN for constant returns."""
    deviation = _deviation(returns)
    return _ratio(np.mean(returns, axis=-1) if returns.shape[-1] else deviation, deviation) * ANNUAL


def sortino(returns: np.ndarray) -> Any:
    """``mean / sqrt(sum(min(r, 0) ** 2) / days) * sqrt(365)``; NaN for constant returns."""
    days = returns.shape[-1]
    if days == 0:
        return _plain(np.full(returns.shape[:-1], np.nan))
    downside = np.sqrt(np.sum(np.minimum(returns, 0.0) ** 2, axis=-1) / days)
    downside = np.where(_deviation(returns) > 0.0, downside, np.nan)
    return _ratio(np.mean(returns, axis=-1), downside) * ANNUAL


def drawdown(equity: np.ndarray, initial: float) -> np.ndarray:
    """Loss from the highest equity so far, ``(T,)``, 0 or negative; `initial` is the first peak."""
    peak = np.maximum.accumulate(np.concatenate(([initial], equity)))[1:]
    return equity / peak - 1.0


def max_drawdown(equity: np.ndarray, initial: float) -> float:
    """Lowest value of :func:`drawdown`, 0 or negative."""
    return float(np.min(drawdown(equity, initial), initial=0.0))


def calmar(annual_growth: Any, deepest: Any) -> Any:
    """CAGR over the size of the deepest drawdown."""
    return _ratio(annual_growth, np.abs(deepest))


def alpha_beta(returns: np.ndarray, benchmark: np.ndarray) -> tuple[float, float]:
    """Least-squares line of daily returns on those of a benchmark, both (D,).

    Returns
    -------
    alpha, beta : float
        ``beta = cov / var(benchmark)``; ``alpha = (mean(returns) - beta * mean(benchmark)) * 365``, a year's return
        that the benchmark does not explain. NaN where the benchmark does not move.
    """
    if len(returns) < 2 or not np.ptp(benchmark) > 0.0:
        return float("nan"), float("nan")
    covariance = np.cov(returns, benchmark)
    beta = float(covariance[0, 1] / covariance[1, 1])
    return float((np.mean(returns) - beta * np.mean(benchmark)) * DAYS_PER_YEAR), beta


def newey_west_lags(days: int) -> int:
    """``floor(4 (days / 100) ** (2 / 9))``, the customary number of lags for tests of mean returns.

    With it the plug-in bandwidth of Newey and West begins (Review of Economic Studies 61, 1994).
    """
    return int(4.0 * (days / 100.0) ** (2.0 / 9.0))


def error_of_mean(values: np.ndarray, lags: int) -> Any:
    """Standard error of the mean where neighbouring values move together, (..., D) to (...).

    ``sqrt((g0 + 2 sum over l <= lags of (1 - l / (lags + 1)) gl) / D)`` with autocovariances ``gl`` of divisor ``D``
    (Newey and West, Econometrica 55, 1987).
    """
    count = values.shape[-1]
    rest = values - values.mean(axis=-1, keepdims=True)
    total = (rest * rest).sum(axis=-1)
    for lag in range(1, min(lags, count - 1) + 1):
        total = total + 2.0 * (1.0 - lag / (lags + 1.0)) * (rest[..., lag:] * rest[..., :-lag]).sum(axis=-1)
    return _plain(np.sqrt(np.maximum(total, 0.0)) / count)


def _deviation(returns: np.ndarray) -> Any:
    if returns.shape[-1] < 2:
        return np.full(returns.shape[:-1], np.nan)
    deviation = np.std(returns, axis=-1, ddof=1)
    squares = deviation**2 * (returns.shape[-1] - 1)
    constant = (squares <= FLAT * np.sum(returns**2, axis=-1)) | (deviation <= DUST)
    return np.where(constant, 0.0, deviation)


def _ratio(value: Any, scale: Any) -> Any:
    """``value / scale`` where the scale is more than rounding, else NaN."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return _plain(np.where(scale > DUST, np.divide(value, scale), np.nan))


def _plain(values: Any) -> Any:
    return values if np.ndim(values) else float(values)
