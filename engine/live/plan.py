"""From weights and an account to the orders of one rebalance: pure, and sized by :mod:`engine.simulation.sizing`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from engine.clock import hourly_index
from engine.config import Costs, RunConfig
from engine.live.dex import DEX, AccountState, Market
from engine.simulation.costs import fee_arrays
from engine.simulation.sizing import plan_orders

#: Why an instruction becomes no order.
REASONS: Mapping[str, str] = {
    "below_minimum": "under the minimum notional, or under a lot",
    "inside_band": "inside the no-trade band",
    "untradable": "cannot be traded now",
}


@dataclass(frozen=True)
class PlannedOrder:
    """One coin's order, as the sizing rule gives it.

    Attributes
    ----------
    coin : str
        HyperLiquid's name.
    action : {"open", "increase", "reduce", "flip", "close"}
        What it does to the position.
    units : float
        Signed size.
    target_units : float
        Position afterwards.
    mid : float
        USD, at which it was sized.
    notional_usd : float
        ``abs(units) * mid``.
    spread_usd, fee_usd : float
        Expected costs: the quote (or the config's half spread) against mid, and the fee on that.
    """

    coin: str
    action: str
    units: float
    target_units: float
    mid: float
    notional_usd: float
    spread_usd: float
    fee_usd: float


@dataclass(frozen=True)
class Skip:
    """An instruction that becomes no order, and why."""

    coin: str
    target_weight: float
    units: float
    reason: str


@dataclass(frozen=True)
class Goal:
    """A position to reach: in phase 0 positions become smaller, in phase 1 larger, so that leverage falls first.

    A flip is a close in phase 0 and an opening in phase 1. A goal is reached by trading in one direction only, so that
    one that was reached and passed, by a later phase or by somebody else, is never traded back.
    """

    coin: str
    phase: int
    target_units: float
    reduce_only: bool
    buy: bool


@dataclass(frozen=True)
class Plan:
    """All of one rebalance.

    Attributes
    ----------
    instant, decision : Timestamp
        Row at which the orders trade, and of which the weights are.
    equity_usd : float
        Before costs.
    weights : mapping of coin to float
        Targets that are not 0, NaN = hold.
    positions : mapping of coin to float
        Signed units held.
    prices : mapping of coin to float
        USD: mids of the coins traded or held.
    orders : tuple of PlannedOrder
    skips : tuple of Skip
    goals : tuple of Goal
        Phase 0 first.
    gross_before, gross_after, net_before, net_after : float
        Exposure as a fraction of equity.
    """

    instant: pd.Timestamp
    decision: pd.Timestamp
    equity_usd: float
    weights: Mapping[str, float]
    positions: Mapping[str, float]
    prices: Mapping[str, float]
    orders: tuple[PlannedOrder, ...]
    skips: tuple[Skip, ...]
    goals: tuple[Goal, ...]
    gross_before: float
    gross_after: float
    net_before: float
    net_after: float

    @property
    def cost_usd(self) -> float:
        """Expected spread and fees."""
        return math.fsum(order.spread_usd + order.fee_usd for order in self.orders)

    def to_dict(self) -> dict[str, Any]:
        """All of it for JSON; what is not defined, a weight that holds or a price that is not there, is null."""
        found: dict[str, Any] = _plain(
            {
                **asdict(self),
                "instant": self.instant.isoformat(),
                "decision": self.decision.isoformat(),
                "cost_usd": self.cost_usd,
                "spread_usd": math.fsum(order.spread_usd for order in self.orders),
                "fee_usd": math.fsum(order.fee_usd for order in self.orders),
            }
        )
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def make_plan(
    weights: Mapping[str, float],
    dex: DEX,
    account: AccountState,
    markets: Mapping[str, Market],
    config: RunConfig,
    instant: pd.Timestamp,
    decision: pd.Timestamp,
) -> Plan:
    """Size the orders that take the account to `weights`; the rules and the skips are the backtest's.

    Parameters
    ----------
    weights : mapping of coin to float
        Signed fractions of equity after all of the config's variants; NaN = hold, absent = 0.
    dex : DEX
        Whose minimum and lots hold.
    account : AccountState
        Equity and positions as they are.
    markets : mapping of coin to Market
        The coins that can be traded.
    config : RunConfig
        Rules of sizing.
    instant, decision : Timestamp
        Of the trade, and of the weights.

    Returns
    -------
    Plan
        Sizes are whole lots wherever the exchange demands it, whatever ``execution.lots`` says.
    """
    execution = replace(
        config.execution,
        lots=config.execution.lots or dex.always_lots,
        min_notional_usd=max(config.execution.min_notional_usd, dex.min_notional_usd),
    )
    asked = {coin: weight for coin, weight in weights.items() if weight != 0.0}
    sized = plan_orders(
        asked,
        account.units,
        account.equity_usd,
        {coin: market.mid for coin, market in markets.items()},
        dict.fromkeys(markets, True),
        {coin: market.sz_decimals for coin, market in markets.items() if market.sz_decimals is not None},
        execution,
    )
    rate = fee_rate(config.costs, instant)
    orders, skips, goals = [], [], []
    for order in sized:
        held = account.units.get(order.coin, 0.0)
        if order.outcome == "order":
            market = dex.quoted(markets[order.coin])
            planned = _planned(order.coin, order.units, held, order.close, market, config.costs, rate)
            orders.append(planned)
            goals += _goals(planned, execution.min_notional_usd)
        elif order.outcome != "nothing":
            skips.append(Skip(order.coin, order.target_weight, held, REASONS[order.outcome]))
    named = {order.coin for order in orders} | set(account.units)
    prices = {
        coin: markets[coin].mid if coin in markets else account.prices.get(coin, float("nan")) for coin in sorted(named)
    }
    after = {**account.units, **{order.coin: order.target_units for order in orders}}
    equity = account.equity_usd
    return Plan(
        instant,
        decision,
        equity,
        dict(sorted(asked.items())),
        dict(sorted(account.units.items())),
        prices,
        tuple(orders),
        tuple(skips),
        tuple(sorted(goals, key=lambda goal: (goal.phase, goal.coin))),
        *_exposure(account.units, after, prices, equity),
    )


def fee_rate(costs: Costs, instant: pd.Timestamp) -> float:
    """Expected fee as a fraction of notional: the base tier at `instant`, with the config's discounts."""
    return float(fee_arrays(hourly_index(instant.floor("h"), instant.floor("h")), costs).rate[0, 0])


def fill_price(units: float, market: Market, costs: Costs) -> float:
    """Price the backtest's rules fill an order at, impact left out."""
    from engine.simulation.kernel import fill_price_nb

    bid, ask = (np.nan if side is None else side for side in (market.bid, market.ask))
    return float(fill_price_nb(units, market.mid, bid, ask, costs.half_spread_bps / 1e4))


def _planned(
    coin: str, units: float, held: float, close: bool, market: Market, costs: Costs, rate: float
) -> PlannedOrder:
    from engine.simulation.kernel import reason_nb
    from engine.simulation.result import REASONS as ACTIONS

    after = 0.0 if close else held + units
    if market.sz_decimals is not None and not close:
        scale = 10.0**market.sz_decimals
        after = float(np.round(after * scale) / scale)
    price = fill_price(units, market, costs)
    return PlannedOrder(
        coin,
        ACTIONS[reason_nb(held, after)],
        units,
        after,
        market.mid,
        abs(units) * market.mid,
        units * (price - market.mid),
        rate * abs(units) * price,
    )


def _goals(order: PlannedOrder, min_notional_usd: float) -> list[Goal]:
    buy = order.units > 0.0
    if order.action in ("open", "increase"):
        return [Goal(order.coin, 1, order.target_units, False, buy)]
    if order.action == "flip":
        if abs(order.target_units) * order.mid < min_notional_usd:
            # The exchange would refuse the opening part alone; the backtest's one order it takes.
            return [Goal(order.coin, 0, order.target_units, False, buy)]
        return [Goal(order.coin, 0, 0.0, True, buy), Goal(order.coin, 1, order.target_units, False, buy)]
    return [Goal(order.coin, 0, order.target_units, True, buy)]


def _exposure(
    before: Mapping[str, float], after: Mapping[str, float], prices: Mapping[str, float], equity: float
) -> tuple[float, float, float, float]:
    found = []
    for units in (before, after):
        values = [held * prices[coin] for coin, held in units.items() if held != 0.0]
        found += [math.fsum(abs(value) for value in values), math.fsum(values)]
    gross_before, net_before, gross_after, net_after = (
        value / equity if equity > 0.0 else float("nan") for value in found
    )
    return gross_before, gross_after, net_before, net_after
