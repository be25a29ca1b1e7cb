"""From weights and an account to the orders of one rebalance, sized by the backtest's own rules; no side effects."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from engine.clock import hourly_index
from engine.config import Costs, Execution, RunConfig
from engine.live.dex import DEX
from engine.live.orders import BELOW_MINIMUM, UNTRADABLE, AccountState, Goal, Market, Plan, PlannedOrder, Skip
from engine.simulation.costs import fee_arrays
from engine.simulation.sizing import Order, plan_orders, round_lot

#: Why a target becomes no order, by outcome of :func:`engine.simulation.sizing.plan_orders`.
REASONS: Mapping[str, str] = {
    "below_minimum": BELOW_MINIMUM,
    "inside_band": "inside the no-trade band",
    "untradable": UNTRADABLE,
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
        Its minimum notional and lots hold.
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
        Sizes are whole lots where the exchange demands it, whatever ``execution.lots`` says.
    """
    execution = _rules(config.execution, dex)
    targets = {coin: weight for coin, weight in weights.items() if weight != 0.0}
    sized = plan_orders(
        targets,
        account.units,
        account.equity_usd if targets or not math.isnan(account.equity_usd) else 0.0,  # closes need none
        {coin: market.mid for coin, market in markets.items()},
        dict.fromkeys(markets, True),
        {coin: market.sz_decimals for coin, market in markets.items() if market.sz_decimals is not None},
        execution,
    )
    orders, skips = _price(sized, account, markets, config.costs, instant, dex.why_no_quote)
    goals = [goal for order in orders for goal in _goals(order, targets, execution.min_notional_usd)]
    goals += [_goal_without_price(skip) for skip in skips if skip.untradable]
    after = {**account.units, **{order.coin: order.target_units for order in orders}}
    prices = {
        coin: markets[coin].mid if coin in markets else account.prices.get(coin, math.nan) for coin in sorted(after)
    }
    equity = account.equity_usd
    wanted = {goal.coin: goal.weight for goal in goals}
    others = [units * prices[coin] for coin, units in account.units.items() if coin not in wanted]
    others += account.foreign.values()
    return Plan(
        instant,
        decision,
        equity,
        dict(sorted(targets.items())),
        dict(sorted(account.units.items())),
        prices,
        tuple(orders),
        tuple(skips),
        tuple(sorted(goals, key=lambda goal: (goal.phase, goal.coin))),
        *_exposure(account, after, prices),
        math.fsum((*wanted.values(), *(value / equity for value in others))) if equity > 0.0 else math.nan,
    )


def _price(
    sized: Iterable[Order],
    account: AccountState,
    markets: Mapping[str, Market],
    costs: Costs,
    instant: pd.Timestamp,
    why_no_quote: Callable[[str], str],
) -> tuple[list[PlannedOrder], list[Skip]]:
    """The orders with their expected costs, and the targets that become none."""
    rate = fee_rate(costs, instant)
    orders, skips = [], []
    for order in sized:
        held = account.units.get(order.coin, 0.0)
        if order.outcome == "order":
            orders.append(_planned(order, held, markets[order.coin], costs, rate))
        elif order.outcome != "nothing":
            reason = REASONS[order.outcome]
            if reason == UNTRADABLE and (why := why_no_quote(order.coin)):
                reason = f"{UNTRADABLE}: {why}"
            skips.append(Skip(order.coin, order.target_weight, held, reason))
    return orders, skips


def _rules(execution: Execution, dex: DEX) -> Execution:
    """Rules of sizing that the exchange accepts."""
    smallest = max(execution.min_notional_usd, dex.min_notional_usd)
    return replace(execution, lots=execution.lots or dex.always_lots, min_notional_usd=smallest)


def fee_rate(costs: Costs, instant: pd.Timestamp) -> float:
    """Expected fee as a fraction of notional: the base tier at `instant`, with the config's discounts."""
    return float(fee_arrays(hourly_index(instant.floor("h"), instant.floor("h")), costs).rate[0, 0])


def fill_price(units: float, market: Market, costs: Costs) -> float:
    """Fill price by the backtest's rules, without impact, USD."""
    from engine.simulation.kernel import fill_price_nb

    bid, ask = (np.nan if side is None else side for side in (market.bid, market.ask))
    return float(fill_price_nb(units, market.mid, bid, ask, costs.half_spread_bps / 1e4))


def _planned(order: Order, held: float, market: Market, costs: Costs, rate: float) -> PlannedOrder:
    from engine.simulation.kernel import reason_nb
    from engine.simulation.result import REASONS as ACTIONS

    units = order.units
    after = 0.0 if order.close else round_lot(held + units, market.sz_decimals)
    price, mid = fill_price(units, market, costs), market.mid
    action, fee = ACTIONS[reason_nb(held, after)], rate * abs(units) * price
    spread, quote = units * (price - mid), (market.bid, market.ask)
    return PlannedOrder(order.coin, action, units, after, mid, abs(units) * mid, spread, fee, *quote)


def _goals(order: PlannedOrder, weights: Mapping[str, float], min_notional_usd: float) -> list[Goal]:
    weight = weights.get(order.coin, 0.0)
    opening = Goal(order.coin, 1, order.target_units, False, order.units > 0.0, weight)
    if order.action in ("open", "increase"):
        return [opening]
    if order.action == "flip":
        if abs(order.target_units) * order.mid < min_notional_usd:
            # The exchange would refuse the opening alone, as too small; the whole flip in one order it accepts.
            return [replace(opening, phase=0)]
        return [replace(opening, phase=0, target_units=0.0, reduce_only=True), opening]
    return [replace(opening, phase=0, reduce_only=True)]


def _goal_without_price(skip: Skip) -> Goal:
    """A close, which a quote that comes back makes possible; any other target cannot be sized."""
    if skip.target_weight == 0.0:
        return Goal(skip.coin, 0, 0.0, True, skip.units < 0.0)
    return Goal(skip.coin, 1, skip.units, False, skip.target_weight > 0.0, skip.target_weight, sized=False)


def _exposure(
    account: AccountState, after: Mapping[str, float], prices: Mapping[str, float]
) -> tuple[float, float, float, float]:
    """Gross before and after, net before and after, as fractions of equity; NaN without equity."""
    gross, net, equity = [], [], account.equity_usd
    for units in (account.units, after):
        values = [held * prices[coin] for coin, held in units.items() if held != 0.0]
        values += account.foreign.values()
        gross.append(math.fsum(map(abs, values)) / equity if equity > 0.0 else math.nan)
        net.append(math.fsum(values) / equity if equity > 0.0 else math.nan)
    return gross[0], gross[1], net[0], net[1]
