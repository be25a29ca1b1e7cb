"""From weights and an account to the orders of one rebalance, sized by the backtest's own rules; no side effects."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pandas as pd

from engine.clock import hourly_index, show
from engine.config import Costs, Execution, RunConfig
from engine.live.dex import DEX
from engine.live.orders import BELOW_MINIMUM, UNTRADABLE, AccountState, Goal, Market, Plan, PlannedOrder, Skip
from engine.simulation.costs import fee_arrays, stressed_half_spread
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
    reduces_only: bool = False,
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
    reduces_only : bool
        Plan only what makes a position smaller: an opening or an increase is left out, a flip becomes its close.

    Returns
    -------
    Plan
        Sizes are whole lots where the exchange demands it, whatever ``execution.lots`` says.

    Raises
    ------
    WeightsError
        For weights that need more initial margin than the account has, as in a backtest.
    """
    execution = sizing_rules(config.execution, dex)
    targets = {coin: weight for coin, weight in weights.items() if weight != 0.0}
    # What is held and cannot be traded has the price at which it is marked.
    mids = {**account.prices, **{coin: market.mid for coin, market in markets.items()}}
    sized = _sized(targets, account, markets, mids, execution, config.account.initial_margin, instant)
    wanted = targets
    if reduces_only:
        sized = [kept for order in sized if (kept := reduction(order, account.units.get(order.coin, 0.0)))]
        wanted = {order.coin: targets[order.coin] for order in sized if order.target_weight != 0.0}
    orders, skips = _price(sized, account, markets, config.costs, instant, dex)
    goals = [goal for order in orders for goal in _goals(order, wanted, execution.min_notional_usd)]
    goals += [_goal_without_price(skip) for skip in skips if skip.untradable]
    after = {**account.units, **{order.coin: order.target_units for order in orders}}
    prices = {coin: mids.get(coin, math.nan) for coin in sorted(after)}
    return Plan(
        instant,
        decision,
        account.equity_usd,
        dict(sorted(targets.items())),
        dict(sorted(account.units.items())),
        prices,
        tuple(orders),
        tuple(skips),
        tuple(sorted(goals, key=lambda goal: (goal.phase, goal.coin))),
        *_exposure(account, after, prices, {goal.coin: goal.weight for goal in goals}),
    )


def reduction(order: Order, held: float) -> Order | None:
    """The part of a sized order that makes the position `held` smaller; None where it has none.

    What becomes no order stays as it is where there is a position, so that it is still named.
    """
    if held == 0.0 or order.units * held > 0.0:
        return None
    if order.outcome == "order" and (order.close or abs(order.units) > abs(held)):
        return Order(order.coin, -held, 0.0, "order", close=True)
    return order


def reductions(goals: Iterable[Goal]) -> tuple[Goal, ...]:
    """Goals that make positions smaller, and those of coins without a price; a whole flip becomes a close."""
    kept = []
    for goal in goals:
        if goal.phase == 0 and not goal.reduce_only:
            kept.append(replace(goal, target_units=0.0, reduce_only=True, weight=0.0))
        elif goal.reduce_only or not goal.sized:
            kept.append(goal)
    return tuple(kept)


def _sized(
    targets: Mapping[str, float],
    account: AccountState,
    markets: Mapping[str, Market],
    mids: Mapping[str, float],
    execution: Execution,
    initial_margin: bool,
    instant: pd.Timestamp,
) -> list[Order]:
    """Orders of the backtest's rules; with `initial_margin`, none that need more of it than the account has."""
    table = [of.terms for of in markets.values()]
    return plan_orders(
        targets,
        account.units,
        account.equity_usd if targets or not math.isnan(account.equity_usd) else 0.0,  # closes need none
        mids,
        dict.fromkeys(markets, True),
        {coin: market.sz_decimals for coin, market in markets.items() if market.sz_decimals is not None},
        execution,
        table if initial_margin else None,
        f" on {show(instant)}",
        account.isolated_usd,
    )


def _price(
    sized: Iterable[Order],
    account: AccountState,
    markets: Mapping[str, Market],
    costs: Costs,
    instant: pd.Timestamp,
    dex: DEX,
) -> tuple[list[PlannedOrder], list[Skip]]:
    """The orders with their expected costs, and the targets that become none."""
    orders, skips, rate = [], [], base_rate(instant, costs)
    for order in sized:
        held = account.units.get(order.coin, 0.0)
        if order.outcome == "order":
            orders.append(_planned(order, held, markets[order.coin], costs, rate, dex))
        elif order.outcome != "nothing":
            reason = REASONS[order.outcome]
            if reason == UNTRADABLE and (why := dex.why_no_quote(order.coin)):
                reason = f"{UNTRADABLE}: {why}"
            skips.append(Skip(order.coin, order.target_weight, held, reason))
    return orders, skips


def base_rate(instant: pd.Timestamp, costs: Costs) -> float:
    """Fee of the base tier with the config's discounts, a fraction of the notional."""
    hour = instant.floor("h")
    return float(fee_arrays(hourly_index(hour, hour), costs).rate[0, 0])


def expected_costs(units: float, market: Market, costs: Costs, rate: float) -> tuple[float, float]:
    """Spread against mid and fee of an order, USD, by the backtest's rules without impact.

    Parameters
    ----------
    units : float
        Signed size.
    market : Market
        With its quotes.
    costs : Costs
        Half spread where there is no quote.
    rate : float
        Of :func:`base_rate`.
    """
    price = market.fill_price(units, stressed_half_spread(costs))
    return units * (price - market.mid), market.fee_rate(rate) * abs(units) * price


def sizing_rules(execution: Execution, dex: DEX) -> Execution:
    """Rules of sizing that the exchange accepts."""
    smallest = max(execution.min_notional_usd, dex.min_notional_usd)
    return replace(execution, lots=execution.lots or dex.always_lots, min_notional_usd=smallest)


def _planned(order: Order, held: float, market: Market, costs: Costs, rate: float, dex: DEX) -> PlannedOrder:
    from engine.simulation.kernel import reason_nb
    from engine.simulation.result import REASONS as ACTIONS

    units = order.units
    after = 0.0 if order.close else round_lot(held + units, market.sz_decimals)
    spread_and_fee, mid = expected_costs(units, market, costs, rate), market.mid
    action, quote = ACTIONS[reason_nb(held, after)], (market.bid, market.ask)
    costs_and_quote = *spread_and_fee, *quote, dex.impact_usd(market, units)
    return PlannedOrder(order.coin, action, units, after, mid, abs(units) * mid, *costs_and_quote)


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
    account: AccountState, after: Mapping[str, float], prices: Mapping[str, float], wanted: Mapping[str, float]
) -> tuple[float, float, float, float, float]:
    """Gross before and after, net before, after and as wanted, as fractions of equity; NaN without equity."""
    equity = account.equity_usd if account.equity_usd > 0.0 else math.nan
    foreign = list(account.foreign.values())
    own = {coin: held * prices[coin] for coin, held in account.units.items() if held != 0.0}
    before, rest = [*own.values(), *foreign], [value for coin, value in own.items() if coin not in wanted] + foreign
    then = [held * prices[coin] for coin, held in after.items() if held != 0.0] + foreign
    return (
        math.fsum(map(abs, before)) / equity,
        math.fsum(map(abs, then)) / equity,
        math.fsum(before) / equity,
        math.fsum(then) / equity,
        math.fsum(wanted.values()) + math.fsum(rest) / equity,
    )
