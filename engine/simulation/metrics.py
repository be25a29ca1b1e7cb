"""Pure functions of return and equity arrays; a year is 365 days.

Formulas are QuantStats' (0.0.86, ``periods_per_year=365``, risk-free rate 0), with which tests compare them. All take
daily simple returns, ``(D,)`` without NaN, and give NaN where a statistic is not defined.
"""

from __future__ import annotations

import numpy as np

from engine.clock import DAYS_PER_YEAR


def daily_returns(equity: np.ndarray) -> np.ndarray:
    """Equity over that of the day before, minus 1, (D - 1,), from one value a day, (D,).

    Once equity is gone there is nothing to grow: a return on it has no meaning, so it is 0.
    """
    before = equity[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(before > 0.0, equity[1:] / before - 1.0, 0.0)


def total_return(start: float, end: float) -> float:
    """``end / start - 1``."""
    return float(end / start - 1.0)


def cagr(returns: np.ndarray) -> float:
    """Compound annual growth: ``prod(1 + r) ** (365 / days) - 1``; -1 once everything is lost."""
    if len(returns) == 0:
        return float("nan")
    if (returns <= -1.0).any():  # and two such days are no gain, as their product would have it
        return -1.0
    with np.errstate(over="ignore"):
        return float(np.prod(1.0 + returns) ** (DAYS_PER_YEAR / len(returns)) - 1.0)


def volatility(returns: np.ndarray) -> float:
    """``std(ddof=1) * sqrt(365)``."""
    return float(np.std(returns, ddof=1) * np.sqrt(DAYS_PER_YEAR)) if len(returns) > 1 else float("nan")


def sharpe(returns: np.ndarray) -> float:
    """``mean / std(ddof=1) * sqrt(365)``."""
    deviation = np.std(returns, ddof=1) if len(returns) > 1 else 0.0
    return float(np.mean(returns) / deviation * np.sqrt(DAYS_PER_YEAR)) if deviation > 0.0 else float("nan")


def sortino(returns: np.ndarray) -> float:
    """``mean / sqrt(sum(min(r, 0) ** 2) / days) * sqrt(365)``."""
    if len(returns) == 0:
        return float("nan")
    downside = np.sqrt(np.sum(np.minimum(returns, 0.0) ** 2) / len(returns))
    return float(np.mean(returns) / downside * np.sqrt(DAYS_PER_YEAR)) if downside > 0.0 else float("nan")


def drawdown(equity: np.ndarray, initial: float) -> np.ndarray:
    """Loss from the highest equity so far, ``(T,)``, 0 or negative; `initial` is the first peak."""
    peak = np.maximum.accumulate(np.concatenate(([initial], equity)))[1:]
    return equity / peak - 1.0


def max_drawdown(equity: np.ndarray, initial: float) -> float:
    """Lowest value of :func:`drawdown`, 0 or negative."""
    return float(np.min(drawdown(equity, initial), initial=0.0))


def calmar(annual_growth: float, deepest: float) -> float:
    """CAGR over the size of the deepest drawdown."""
    return annual_growth / abs(deepest) if deepest < 0.0 else float("nan")
