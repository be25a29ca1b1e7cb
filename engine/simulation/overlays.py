"""Overlays that turn target weights into traded weights: leverage, volatility target, tranches, gross cap.

They are applied in this order; the rules are in docs/concepts/weights-traded.md. A row of the traded weights depends
on rows of the target weights up to it and on prices up to its decision instant, never on later ones.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from engine.config import Execution, RunConfig
from engine.panel import Panel
from engine.risk.model import RiskModel
from engine.simulation import metrics

_HOURS_PER_DAY = 24


def describe_overlays(config: RunConfig) -> str:
    """What the config does to weights, as the end of a phrase: `` after execution.leverage = 3``; empty for nothing."""
    execution, default = config.execution, Execution()
    names = ("leverage", "target_volatility", "tranches", "gross_cap")
    changed = [name for name in names if getattr(execution, name) != getattr(default, name)]
    words = ", ".join(f"execution.{name} = {getattr(execution, name):g}" for name in changed)
    return f" after {words}" if words else ""


def traded_weights(values: np.ndarray, decisions: pd.DatetimeIndex, panel: Panel, config: RunConfig) -> np.ndarray:
    """Apply the overlays of a config to weights.

    Parameters
    ----------
    values : ndarray, (D, N) or (P, D, N)
        Target weights, signed fractions of equity, finite or NaN = hold; columns are ``panel.coins``.
    decisions : DatetimeIndex, (D,)
        Ascending decision instants, rows of the panel.
    panel : Panel
        Its prices up to each decision give the volatility.
    config : RunConfig
        ``execution`` and ``account.max_gross``.

    Returns
    -------
    ndarray, shape of `values`
        Weights traded. `values` itself when the config asks for no change; else a new array, and books do not affect
        each other: the same book gives the same bits alone and among others. NaN stays NaN, but for tranches, which
        replace it. The gross of a row may be above ``account.max_gross``; the caller checks.
    """
    if not describe_overlays(config):
        return values
    execution = config.execution
    # C order whatever was given: the order of a sum over coins follows the order in memory.
    books = np.ascontiguousarray(values if values.ndim == 3 else values[None], dtype=np.float64) * execution.leverage
    if execution.target_volatility > 0.0:
        books *= _volatility_scale(books, decisions, panel, config)[:, :, None]
    if execution.tranches > 1:
        books = _mean_of_last(books, execution.tranches)
    if execution.gross_cap > 0.0:
        gross = np.abs(_known(books)).sum(axis=2, keepdims=True)
        books *= np.divide(execution.gross_cap, gross, out=np.ones_like(gross), where=gross > execution.gross_cap)
    return books.reshape(values.shape)


def _volatility_scale(books: np.ndarray, decisions: pd.DatetimeIndex, panel: Panel, config: RunConfig) -> np.ndarray:
    """Factor of every row, (P, D): ``min(target / sigma, max_gross / gross)``; 1 where sigma is unknown or 0."""
    execution, held = config.execution, _known(books)
    if execution.volatility_model == "risk":
        sigma = np.nan_to_num(RiskModel.fit(panel, decisions).volatility(held))
    else:
        sigma = _own_volatility(held, panel.rows(decisions), panel, execution.volatility_days)
    gross = np.abs(held).sum(axis=2)
    scale = np.ones_like(sigma)
    moves = (sigma > 0.0) & (gross > 0.0)
    scale[moves] = np.minimum(execution.target_volatility / sigma[moves], config.account.max_gross / gross[moves])
    return scale


def _own_volatility(held: np.ndarray, rows: np.ndarray, panel: Panel, volatility_days: int) -> np.ndarray:
    """Annual volatility of each row's own book over the last days before its decision, (P, D); 0 for too few days."""
    mid = panel.values("mid")
    change = mid[_HOURS_PER_DAY:] / mid[:-_HOURS_PER_DAY] - 1.0
    change[np.isnan(change)] = 0.0
    sigma = np.zeros(held.shape[:2])
    for decision, row in enumerate(rows):
        days = min(volatility_days, row // _HOURS_PER_DAY)
        if days >= max(2.0, volatility_days / 2.0):
            # Row t of `change` is the day that ends at row t + 24 of the panel; newest day first.
            window = change[row - _HOURS_PER_DAY - _HOURS_PER_DAY * np.arange(days)]
            # A vector by a matrix for each book, never books by a matrix: its bits must not depend on their number.
            returns = np.matmul(held[:, decision, None, :], window.T)[:, 0]
            sigma[:, decision] = metrics.volatility(returns)
    return sigma


def _mean_of_last(books: np.ndarray, tranches: int) -> np.ndarray:
    """Mean of each row and the ``tranches - 1`` before it, (P, D, N); NaN is the value before it, rows before are 0."""
    filled = books.copy()
    for row in range(filled.shape[1]):
        before = filled[:, row - 1] if row else 0.0
        filled[:, row] = np.where(np.isnan(filled[:, row]), before, filled[:, row])
    total = np.zeros_like(filled)
    count = filled.shape[1]
    # Oldest first, and no running sum: what was closed is exactly 0 again.
    for age in range(min(tranches, count) - 1, -1, -1):
        total[:, age:] += filled[:, : count - age]
    return total / tranches


def _known(books: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(books), 0.0, books)
