"""Costs from the fills of a live account: a robust regression of slippage, and the keys of ``costs`` that it suggests.

Slippage in basis points is regressed on the half spread of the order's quote and on its size over the coin's volume of
that hour, by Huber's M-estimator (Huber 1964; statsmodels RLM, 1.345 standard deviations), so that a few bad fills do
not decide. Intervals are quantiles of fits to days drawn with replacement: the fills of a day share its market.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from engine.config import Costs, RunConfig
from engine.errors import DataError
from engine.monitoring.fills import filled_order, sent_orders
from engine.panel import Panel
from engine.simulation.backtest import impact_references

#: Orders and days of trading before which nothing is fitted.
LEAST_FILLS: Final = 30
LEAST_DAYS: Final = 10
#: Half width of the interval of the mean excess at which costs are known well enough, basis points.
WANTED_BPS: Final = 1.0
_RESAMPLES: Final = 200
_LEVEL: Final = 0.9


@dataclass(frozen=True)
class Term:
    """A coefficient of the regression, and its interval of 90 %.

    Attributes
    ----------
    name : str
        ``constant`` (basis points), ``half_spread`` (basis points of slippage per basis point of half spread) or
        ``size`` (basis points per order of the size of an hour's volume).
    value, low, high : float
    """

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """What the fills say of costs.

    Attributes
    ----------
    orders, days : int
        Orders that were fitted, and days on which they were sent.
    terms : tuple of Term
        A regressor that does not vary, or is not known, is left out.
    slippage : Term
        Mean of the fit over the orders, weighted by notional, basis points.
    model_bps : float
        What research expects: the same mean of the plans' own slippage where its panel has quotes, else the half spread
        of the config.
    suggested : mapping
        Keys of ``costs`` and the values that the fills suggest; empty where the model's costs lie in the interval.
    days_needed : int
        Days of trading at which the interval of the mean would be :data:`WANTED_BPS` to either side, about.
    """

    orders: int
    days: int
    terms: tuple[Term, ...]
    slippage: Term
    model_bps: float
    suggested: Mapping[str, Any]
    days_needed: int

    def config(self, config: RunConfig) -> RunConfig:
        """`config` with the suggested costs."""
        return replace(config, costs=replace(config.costs, **self.suggested))


def calibrate(
    entries: Sequence[Mapping[str, Any]], config: RunConfig, panel: Panel | None, seed: int = 0
) -> Calibration:
    """Fit slippage to the fills of a journal.

    Parameters
    ----------
    entries : sequence of mapping
        Of the journal.
    config : RunConfig
        Of the strategy: the costs that are compared.
    panel : Panel or None
        From the cache, for the volume of the hours; without it size is left out.
    seed : int
        Of the draws of days.

    Raises
    ------
    DataError
        With too few fills, naming how many are needed.
    """
    table = _table(entries, panel)
    days = table["day"].nunique()
    if len(table) < LEAST_FILLS or days < LEAST_DAYS:
        raise DataError(
            f"The journal has {len(table)} priced orders with a plan, on {days} days: too few to tell costs from "
            f"noise. It takes {LEAST_FILLS} orders on {LEAST_DAYS} days: calibrate again after more rebalances."
        )
    names = [name for name in ("half_spread", "size") if _varies(table[name])]
    table = table.dropna(subset=names)
    fit = _fitter(table, names)
    own = fit(np.arange(len(table)))
    drawn = _drawn(table["day"].to_numpy(), fit, seed)
    tails = [(1.0 - _LEVEL) / 2.0, (1.0 + _LEVEL) / 2.0]
    low, high = np.quantile(drawn, tails, axis=0)
    quoted = panel is not None and {"bid", "ask"} <= panel.fields.keys()
    terms = tuple(
        Term(name, *map(float, values)) for name, *values in zip(["constant", *names], own, low, high, strict=True)
    )
    share = (table["notional"] / table["notional"].sum()).to_numpy()
    design = np.column_stack([np.ones(len(table)), *(table[name] for name in names)])
    means = drawn @ (share @ design)
    slippage = Term("slippage", float(share @ design @ own), *map(float, np.quantile(means, tails)))
    half = (slippage.high - slippage.low) / 2.0
    costs = config.costs
    model = float(share @ table["model"]) if quoted else costs.half_spread_bps * costs.stress
    inside = slippage.low - 1e-6 <= model <= slippage.high + 1e-6
    suggested = {} if inside else _suggested(table, costs, terms, slippage, model, quoted)
    return Calibration(
        len(table), days, terms, slippage, model, suggested, max(LEAST_DAYS, math.ceil(days * (half / WANTED_BPS) ** 2))
    )


def _table(entries: Sequence[Mapping[str, Any]], panel: Panel | None) -> pd.DataFrame:
    """An order a row that was planned and priced: ``day``, ``slippage``, ``half_spread``, ``size`` and the like."""
    rows = []
    for sent in sent_orders(entries):
        order = filled_order(sent)
        if order is None or order.model_slippage_bps is None or sent.planned is None:
            continue
        bid, ask = sent.order.get("bid"), sent.order.get("ask")
        half = math.nan if bid is None or ask is None else 0.5e4 * (ask - bid) / order.mid
        paid = order.slippage_bps, order.model_slippage_bps, order.fee_bps or math.nan
        rows.append((order.instant, order.coin, *paid, half, order.notional_usd))
    columns = ["instant", "coin", "slippage", "model", "fee", "half_spread", "notional"]
    table = pd.DataFrame(rows, columns=columns)
    instants = pd.DatetimeIndex(pd.to_datetime(table["instant"], utc=True))
    table["day"] = instants.normalize()
    table["size"] = table["notional"] / _volumes(instants, table["coin"], panel)
    return table


def _volumes(instants: pd.DatetimeIndex, coins: pd.Series, panel: Panel | None) -> np.ndarray:
    """Volume of the hour that ends at each order's instant, USD; NaN where it is not known or is 0."""
    if panel is None or "volume_usd" not in panel.fields:
        return np.full(len(coins), np.nan)
    rows = panel.rows(instants)
    column = {coin: place for place, coin in enumerate(panel.coins)}
    places = np.array([column.get(coin, -1) for coin in coins], dtype=np.int64)
    volume = np.where((rows >= 0) & (places >= 0), panel.fields["volume_usd"][rows, places], np.nan)
    return np.where(volume > 0.0, volume, np.nan)


def _varies(values: pd.Series) -> bool:
    """Whether a regressor is known for most orders, and is not a constant."""
    known = values.dropna()
    return len(known) >= max(LEAST_FILLS, 0.8 * len(values)) and float(known.std()) > 1e-9 * float(known.abs().max())


def _fitter(table: pd.DataFrame, names: Sequence[str]) -> Callable[[np.ndarray], np.ndarray]:
    from statsmodels.robust.norms import HuberT
    from statsmodels.robust.robust_linear_model import RLM

    design = np.column_stack([np.ones(len(table)), *(table[name] for name in names)])
    # Regressors of one order of magnitude: a size is a thousandth, a half spread is a few.
    scale = np.maximum(np.abs(design).mean(axis=0), 1e-12)
    slippage = table["slippage"].to_numpy()

    def fit(rows: np.ndarray) -> np.ndarray:
        if np.ptp(slippage[rows]) == 0.0:  # nothing to scale by
            return np.array([slippage[rows[0]], *np.zeros(len(names))])
        with np.errstate(divide="ignore", invalid="ignore"):
            found = RLM(slippage[rows], design[rows] / scale, M=HuberT()).fit()
        values: np.ndarray = np.asarray(found.params) / scale
        return values

    return fit


def _drawn(day: np.ndarray, fit: Callable[[np.ndarray], np.ndarray], seed: int) -> np.ndarray:
    """Fits to days drawn with replacement, (resamples, terms)."""
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(day == one) for one in np.unique(day)]
    return np.array(
        [
            fit(np.concatenate([groups[place] for place in rng.integers(0, len(groups), len(groups))]))
            for _ in range(_RESAMPLES)
        ]
    )


def _suggested(
    table: pd.DataFrame, costs: Costs, terms: Sequence[Term], slippage: Term, model: float, quoted: bool
) -> dict[str, Any]:
    """Keys of ``costs`` under which the model would have expected the slippage that was fitted."""
    found = {term.name: term for term in terms}
    size = found.get("size")
    suggested: dict[str, Any] = {}
    share = table["notional"] / table["notional"].sum()
    of_size = 0.0
    if size is not None and size.low > 0.0:
        reference = pd.Series(impact_references(table["coin"].tolist()), table.index)
        at_reference = float((share * size.value * reference * table["size"] / table["notional"]).sum())
        of_size = float((share * size.value * table["size"]).sum())
        suggested |= {"impact": "venue", "impact_bps": round(at_reference, 2)}
    if not quoted:  # the model's spread is the key's own
        suggested["half_spread_bps"] = round(max(0.0, slippage.value - of_size) / (costs.stress or 1.0), 2)
    else:
        # Quotes are the panel's: the one key that makes them dearer is a factor on fees, too.
        fee = float((share * table["fee"]).sum()) if table["fee"].notna().all() else 4.5
        suggested["stress"] = round(max(0.0, costs.stress * (fee + slippage.value - of_size) / (fee + model)), 3)
    return suggested
