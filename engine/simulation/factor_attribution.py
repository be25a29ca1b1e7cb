"""Attribution of a run to the factors of the risk model: what the market and styles brought, and what is left.

The rules are in docs/concepts/risk-model.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from engine.clock import DAYS_PER_YEAR, HOUR
from engine.panel import Panel
from engine.risk.characteristics import RiskParameters
from engine.risk.model import RiskModel
from engine.simulation import metrics

#: Days with factor returns that an attribution needs.
LEAST_DAYS = 30
RESIDUAL = "residual"
_DAY = 24
#: Share of the held gross without exposures above which an attribution says so.
_BLIND_NOTED = 0.01


@dataclass(frozen=True, eq=False)
class FactorAttribution:
    """What each factor of the risk model brought to a run, and the residual.

    Attributes
    ----------
    daily : DataFrame, (D, K + 1)
        Part of each daily return, a fraction of the equity before: a column a factor, then ``residual``. They sum to
        ``Result.daily_returns`` of the day. Costs are in the residual; funding is where the price is. No row where the
        model has no factor returns, and none at all where there are too few such days.
    table : DataFrame, (K + 1, 2)
        ``mean_year``, the mean of a day times 365, and ``t``, its ratio to its error (Newey and West). NaN for a factor
        that no coin had.
    lags : int
        Of the errors.
    notes : tuple of str
        Why there is no attribution, or what it does not cover, a sentence each.
    """

    daily: pd.DataFrame
    table: pd.DataFrame
    lags: int
    notes: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Plain values for ``run.json``."""
        rows = self.table.to_dict("index") if len(self.daily) else {}
        return {"days": len(self.daily), "lags": self.lags, "notes": list(self.notes), "parts": rows}


def factor_attribution(panel: Panel, returns: pd.Series, equity: np.ndarray, trades: np.ndarray) -> FactorAttribution:
    """Attribute the daily returns of a run to the factors of the risk model.

    Part ``k`` of a day is ``sum(w * X[:, k]) * f[k]``: ``X`` the exposures known when the day began, ``f`` the factor
    returns of the day, ``w`` the units held on average over its 24 hours at the prices when it began, over the equity
    then. What is left of the return is the residual: returns of coins that no factor explains, trading within the day,
    and all costs of trading.

    Parameters
    ----------
    panel : Panel
    returns : Series, (D,)
        Daily returns, by the instant at which a day ends.
    equity : ndarray, (T,)
        USD, after what happened at each row of the panel.
    trades : ndarray, (M, 8)
        The kernel's fills.
    """
    if not len(returns):
        return _nothing(0, 0)
    days = pd.DatetimeIndex(returns.index)
    model = RiskModel.fit(panel, days.insert(0, days[0] - _DAY * HOUR))
    measured = ~np.isnan(model.factor_returns[1:])
    known = measured.any(axis=1)
    if known.sum() < LEAST_DAYS:
        return _nothing(len(known), int(known.sum()))
    held, exposures = _held(panel, days, equity, trades), model.exposures[:-1]
    blind = np.isnan(exposures).any(axis=2)
    exposed = np.einsum("dn,dnk->dk", held, np.where(blind[:, :, None], 0.0, exposures))
    parts = exposed * np.nan_to_num(model.factor_returns[1:])
    daily = pd.DataFrame(parts[known], index=returns.index[known], columns=list(model.names))
    daily[RESIDUAL] = returns[known] - daily.sum(axis=1)
    values, lags = daily.to_numpy().T, metrics.newey_west_lags(len(daily))
    mean, error = values.mean(axis=1), metrics.error_of_mean(values, lags)
    t = np.divide(mean, error, out=np.full_like(error, np.nan), where=error > metrics.DUST)
    table = pd.DataFrame({"mean_year": mean * DAYS_PER_YEAR, "t": t}, index=daily.columns)
    table.loc[[name for name, seen in zip(model.names, measured.any(axis=0), strict=True) if not seen]] = np.nan
    gross = np.abs(held[known])
    share = float((gross * blind[known]).sum() / gross.sum()) if gross.any() else 0.0
    return FactorAttribution(daily, table, lags, _remarks(known, share))


def _nothing(days: int, known: int) -> FactorAttribution:
    coins = RiskParameters().least_coins
    what = f"{known} of the {days} days of the book have factor returns" if days else "the book has no day"
    note = (
        f"No attribution to factors: {what}, and {LEAST_DAYS} are needed. A day has them where {coins} tradable coins "
        "have a beta, which takes 30 days of prices."
    )
    nothing = pd.DataFrame(columns=[RESIDUAL], dtype=np.float64)
    return FactorAttribution(nothing, pd.DataFrame(columns=["mean_year", "t"], dtype=np.float64), 0, (note,))


def _remarks(known: np.ndarray, blind: float) -> tuple[str, ...]:
    notes = []
    if not known.all():
        notes.append(
            f"{int((~known).sum())} of the {len(known)} days are left out of the attribution to factors: the risk "
            "model had too few coins or too short a past."
        )
    if blind > _BLIND_NOTED:
        notes.append(
            f"{blind:.0%} of what was held had no exposures to the factors yet; its returns are in the residual."
        )
    return tuple(notes)


def _held(panel: Panel, days: pd.DatetimeIndex, equity: np.ndarray, trades: np.ndarray) -> np.ndarray:
    """Weights held on average over the day that ends at each of `days`, (D, N), at the prices when it began."""
    from engine.simulation import kernel

    starts = panel.rows(days) - _DAY
    rows, coins = trades[:, kernel.ROW].astype(np.int64), trades[:, kernel.COIN].astype(np.int64)
    day = np.maximum(-1, (rows - starts[0]) // _DAY)
    within = (day >= 0) & (day < len(days))
    left = 1.0 - (rows - starts[0] - _DAY * day) / _DAY  # share of its day in which the trade is held
    units = np.zeros((len(days) + 1, len(panel.coins)))
    np.add.at(units, (np.minimum(day + 1, len(days)), coins), trades[:, kernel.UNITS])
    held = np.cumsum(units, axis=0)[:-1]
    np.add.at(held, (day[within], coins[within]), trades[within, kernel.UNITS] * left[within])
    # What a closing fill leaves of a sum of fills is rounding.
    held[np.abs(held) <= 1e-12 * np.maximum.accumulate(np.abs(held), axis=0)] = 0.0
    price = pd.DataFrame(panel.values("mid")).ffill().to_numpy()[starts]
    before = equity[starts][:, None]
    weights = held * np.nan_to_num(price)  # a coin without any price yet is held from within the day on
    return np.divide(weights, before, out=np.zeros_like(weights), where=before > 0.0)
