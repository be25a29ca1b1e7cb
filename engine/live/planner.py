"""Plan the orders that take an account to target weights; sizes are :mod:`engine.simulation.sizing`'s."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from engine.clock import hourly_index
from engine.config import Costs, RunConfig
from engine.live.dex import DEX
from engine.live.orders import AccountState, Goal, Market, Plan, PlannedOrder, Skip
from engine.simulation.costs import fee_arrays
from engine.simulation.sizing import plan_orders, round_lot

#: Why an instruction becomes no order.
REASONS: Mapping[str, str] = {
    "below_minimum": "under the minimum notional, or under a lot",
    "inside_band": "inside the no-trade band",
    "untradable": "cannot be traded now",
}


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
    target = {coin: weight for coin, weight in weights.items() if weight != 0.0}
    sized = plan_orders(
        target,
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
        dict(sorted(target.items())),
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

    after = 0.0 if close else round_lot(held + units, market.sz_decimals)
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
    totals: list[float] = []
    for units in (before, after):
        values = [held * prices[coin] for coin, held in units.items() if held != 0.0]
        totals += [math.fsum(abs(value) for value in values), math.fsum(values)]
    gross_before, net_before, gross_after, net_after = (
        value / equity if equity > 0.0 else float("nan") for value in totals
    )
    return gross_before, gross_after, net_before, net_after
