"""All compiled code: arrays in, arrays out. It imports numpy and numba only and trusts its arguments.

The steps and every rule they follow are in docs/concepts/rules.md; ``backtest.py`` validates.

Short names: ``T`` hours, ``N`` coins, ``D`` decisions; ``t`` row, ``i`` coin, ``d`` decision; ``w`` weight.
Absent data (no quotes, no funding) are arrays of shape (0, 0).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

jit = njit(cache=True, nogil=True, error_model="numpy")

# What became of an instruction (`plan_nb`).
NOTHING, ORDER, BELOW_MINIMUM, INSIDE_BAND, UNTRADABLE = 0, 1, 2, 3, 4
# Why a position changed (column REASON of the trades).
OPEN, INCREASE, REDUCE, FLIP, CLOSE, DELISTING, LIQUIDATION = 0, 1, 2, 3, 4, 5, 6
# The liquidation of one isolated position, before the trade and the funding of its row.
ISOLATED_LIQUIDATION = 7
#: What leaves nothing of a position.
ENDS = (CLOSE, DELISTING, LIQUIDATION, ISOLATED_LIQUIDATION)
# Columns of the trades.
ROW, COIN, UNITS, PRICE, FEE, SPREAD, IMPACT, REASON = 0, 1, 2, 3, 4, 5, 6, 7
TRADE_COLUMNS = 8
# Columns of the flows, all in USD; the last four are costs.
PRICE_PNL, SPREAD_COST, IMPACT_COST, FEE_COST, FUNDING_COST = 0, 1, 2, 3, 4
FLOW_COLUMNS = 5
# Counters of a run.
SKIPPED_MINIMUM, SKIPPED_BAND, UNTRADABLE_ORDERS, DELISTINGS, DECISIONS, LIQUIDATED_ROW = 0, 1, 2, 3, 4, 5
# Number of the first decision that asks for something; -1 for none, as of LIQUIDATED_ROW.
FIRST_ASKING = 6
# Number of the decision that needs more initial margin than the account has, at which the run stopped; -1 for none.
REFUSED = 7
# Coin-hours held, and those without a funding rate; counted by `batch_nb` alone, see `held_hours_nb`.
HELD_HOURS, UNRATED_HOURS = 8, 9
# 1 where the liquidation was within the hour, before the funding of its row.
WITHIN_HOUR = 10
ISOLATED_LIQUIDATIONS = 11
COUNTERS = 12

#: Keeps a size that is a whole number of lots but for floating-point error from losing a lot, and an order of exactly
#: the minimum or the band from being skipped.
LOT_TOLERANCE = 1e-12
#: What a part of the way leaves to go, or to a position, is nothing up to this part of equity.
NEAR_FRAC = 1e-9
#: `untradable = "renormalise"` multiplies a weight by this at most.
MOST_SCALE = 2.0
#: Sum of squared deviations, as a fraction of the sum of squares, and standard deviation up to which returns are
#: constant but for rounding; the latter also for a downside or a drawdown.
FLAT, DUST = 1e-12, 1e-12
#: The referral's discount ends with this volume.
REFERRAL_LIMIT_USD = 25e6
#: An order moves its price by at most this part of it: beyond, nobody could trade so much.
MOST_IMPACT = 0.5
#: Days of volume that decide a fee tier.
TIER_DAYS = 14


class MarketData(NamedTuple):
    """What a panel holds, (T, N) each; what the panel lacks is (0, 0)."""

    mid: np.ndarray
    bid: np.ndarray  # with `ask`, or both (0, 0)
    ask: np.ndarray
    impact_bid: np.ndarray  # with `impact_ask`, or both (0, 0)
    impact_ask: np.ndarray
    funding: np.ndarray  # with `funding_price`, or both (0, 0)
    funding_price: np.ndarray
    tradable: np.ndarray  # bool
    low: np.ndarray  # with `high`, the worst price of a long and of a short in the hour that ends, or both (0, 0)
    high: np.ndarray


class Fees(NamedTuple):
    """Rates by row and tier, K tiers; what builders' coins change of them by period, E periods."""

    rate: np.ndarray  # (T, K) fraction of the fill's notional, before the referral's discount
    thresholds_usd: np.ndarray  # (K,) volume from which a tier applies, ascending from 0
    day: np.ndarray  # (T,) int64, UTC day of the moment before the row, counted from 0
    referral_frac: float
    period: np.ndarray  # (T,) int64, from 0 on
    factor: np.ndarray  # (2, E, N) factor on a fee; on a rebate and on the volume that counts. E = 0: none has any


class CoinParams(NamedTuple):
    """What is known of each coin, (N,) or (N, M) for M margin tiers."""

    lot_scale: np.ndarray  # (N,) 10 ** szDecimals, 0 = uncut
    margin_floor_usd: np.ndarray  # (N, M) notional from which a tier applies
    margin_step: np.ndarray  # (N, M) by how much the maintenance rate rises there; 0 where nothing is known
    impact_reference_usd: np.ndarray  # (N,) notional whose average price the venue's impact prices are
    isolated: np.ndarray  # (N,) leverage set for a coin whose margin is isolated, 0 for cross margin; (0,): all cross
    band_frac: np.ndarray  # (N,) width of the no-trade band, fraction of equity


class SimParams(NamedTuple):
    """What the config asks of a simulation."""

    initial_equity_usd: float
    min_notional_usd: float
    to_edge: bool  # whether a position outside its band is traded to the edge of it alone
    trade_rate: float  # part of the way that is traded
    half_spread_frac: float
    impact: bool
    impact_frac: float  # where a row has no impact price
    stale_hours: int
    renormalise: bool
    margin: bool
    most_initial_frac: float  # initial margin over equity from which a row is refused; infinite for never
    max_gross: float  # that no row's gross exceeds


class Book(NamedTuple):
    """An account between two steps; :func:`step_nb` and :func:`book_fill_nb` change its arrays."""

    cash: np.ndarray  # (1,) USD
    units: np.ndarray  # (N,) signed
    price: np.ndarray  # (N,) USD, last known mid of what is or was held
    missing: np.ndarray  # (N,) int64, hours since that price
    volume: np.ndarray  # (days,) USD filled, days as in `Fees`
    total_volume: np.ndarray  # (1,) USD filled
    own_cash: np.ndarray  # (N,) USD of `cash` that an isolated position has: its margin, less `units * entry`
    trade_count: np.ndarray  # (1,) int64, rows of `Ledger.trades` that are written


class Ledger(NamedTuple):
    """Record of a run; every array is time-first."""

    equity: np.ndarray  # (T,) USD after steps 1 to 4
    flows: np.ndarray  # (T, FLOW_COLUMNS) USD of the row
    coin_flows: np.ndarray  # (N, FLOW_COLUMNS) USD of the run
    gross: np.ndarray  # (T,) fraction of equity, after the trade
    net: np.ndarray  # (T,) fraction of equity, after the trade
    turnover: np.ndarray  # (D,) fraction of equity; NaN where the decision was not traded
    untradable_weight: np.ndarray  # (D,) fraction of equity; NaN where the decision was not traded
    trades: np.ndarray  # (M, TRADE_COLUMNS)
    counters: np.ndarray  # (COUNTERS,) int64
    margin_call: np.ndarray  # (2,) equity and margin needed at the liquidation or refusal, USD; NaN without one


@jit
def round_lot_nb(units, lot_scale):
    """`units` without the dust of a sum of whole lots; as they are where ``lot_scale`` is 0."""
    return np.rint(units * lot_scale) / lot_scale if lot_scale > 0.0 else units


@jit
def whole_lots_nb(size, lot_scale):
    """Whole lots of a size, as :func:`round_lot_nb` has them; the tolerance is said at LOT_TOLERANCE."""
    return np.floor(size * lot_scale * (1.0 + LOT_TOLERANCE)) / lot_scale if lot_scale > 0.0 else size


@jit
def size_order_nb(w, units, equity, mid, lot_scale, min_notional_usd, band_usd, parts):
    """Order of one tradable coin: signed size and outcome.

    ``lot_scale`` is ``10 ** szDecimals``, or 0 for uncut sizes; ``parts`` is ``to_edge`` and ``trade_rate`` of
    :class:`SimParams`, or None where each order is of the whole way: what they need is then not compiled.
    """
    if w == 0.0:
        part = units if parts is None else close_nb(units, equity, mid, lot_scale, min_notional_usd, parts[1])
        return -part, (ORDER if units != 0.0 else NOTHING)
    order = w * equity / mid - units
    if order == 0.0 or equity <= 0.0:
        return 0.0, NOTHING
    size = abs(order)
    if parts is not None:
        to_edge, trade_rate = parts
        near_usd = NEAR_FRAC * equity
        if to_edge and band_usd > 0.0:
            size -= band_usd / mid
            if size * mid <= near_usd:
                return 0.0, INSIDE_BAND
        size *= trade_rate
        after = units + size if order > 0.0 else units - size
        if abs(after) * mid <= near_usd and (trade_rate < 1.0 or (to_edge and band_usd > 0.0)):
            size = abs(units)
        band_usd *= 0.0 if to_edge else trade_rate
    size = whole_lots_nb(size, lot_scale)
    notional = size * mid * (1.0 + LOT_TOLERANCE)
    if size == 0.0 or notional < min_notional_usd:
        return 0.0, BELOW_MINIMUM
    if notional < band_usd:
        return 0.0, INSIDE_BAND
    return (size if order > 0.0 else -size), ORDER


@jit
def close_nb(units, equity, mid, lot_scale, min_notional_usd, trade_rate):
    """Part of a position that weight 0 closes where a decision trades a part of the way; all of it at its end."""
    if trade_rate == 1.0:
        return units
    part = whole_lots_nb(trade_rate * abs(units), lot_scale)
    smaller = min(part, abs(units) - part)
    if smaller <= 0.0 or equity <= 0.0:
        return units
    if smaller * mid * (1.0 + LOT_TOLERANCE) < max(min_notional_usd, NEAR_FRAC * equity):
        return units
    return part if units > 0.0 else -part


@jit
def asks_nb(weights):
    """Whether a row of weights asks for something: holds one that is neither 0 nor NaN."""
    for k in range(weights.shape[0]):
        if weights[k] != 0.0 and not np.isnan(weights[k]):
            return True
    return False


@jit
def renormalised_nb(wanted, own, stuck_usd, equity):
    """Factor on the weights of tradable coins, so that with what is stuck they have the gross that was wanted."""
    # Of a position without a price, which only a live account has, nobody knows how much is stuck.
    if own == 0.0 or equity <= 0.0 or np.isnan(stuck_usd):
        return 1.0
    return min(max((wanted - stuck_usd / equity) / own, 0.0), MOST_SCALE)


@jit
def plan_nb(
    weights,
    units,
    equity,
    price,
    tradable,
    lot_scale,
    band_frac,
    min_notional_usd,
    parts,
    renormalise,
    orders,
    outcomes,
):
    """Orders of one row; fills `orders` and `outcomes` (N,), returns the untradable weight and the factor on weights.

    ``lot_scale`` and ``band_frac`` (N,) are of :class:`CoinParams`, ``parts`` is that of :func:`size_order_nb`;
    ``price`` (N,) is mid where a coin is tradable, and the last known price of what is held.
    """
    own = 0.0
    blocked = 0.0
    stuck_usd = 0.0
    for i in range(weights.shape[0]):
        if not np.isnan(weights[i]):
            if tradable[i]:
                own += abs(weights[i])
            else:
                blocked += abs(weights[i])
                if units[i] != 0.0:
                    stuck_usd += abs(units[i]) * price[i]
    scale = renormalised_nb(own + blocked, own, stuck_usd, equity) if renormalise else 1.0
    for i in range(weights.shape[0]):
        orders[i] = 0.0
        outcomes[i] = NOTHING
        w = weights[i]
        if np.isnan(w):
            continue
        if not tradable[i]:
            if w != 0.0 or units[i] != 0.0:
                outcomes[i] = UNTRADABLE
            continue
        orders[i], outcomes[i] = size_order_nb(
            w * scale,
            units[i],
            equity,
            price[i],
            lot_scale[i],
            min_notional_usd,
            band_frac[i] * equity,
            parts,
        )
    return blocked, scale


@jit
def initial_nb(notional_usd, floors_usd, steps):
    """Initial margin of one position: its notional over the leverage of its tier; half of that is for maintenance."""
    rate = 0.0
    for k in range(floors_usd.shape[0]):
        if notional_usd > floors_usd[k]:
            rate += 2.0 * steps[k]
    return rate * notional_usd


@jit
def isolated_asked_nb(target_usd, held_usd, own_equity, leverage, floors_usd, steps):
    """Margin of an isolated position that an order takes from one notional to another, both signed."""
    size = abs(target_usd)
    rate = isolated_rate_nb(size, leverage, floors_usd, steps)
    if held_usd * target_usd <= 0.0:
        return rate * size
    if size <= abs(held_usd):
        return own_equity * (target_usd / held_usd)
    return own_equity + rate * (size - abs(held_usd))


@jit
def target_margin_nb(target_usd, u, price, held, isolated, i, floors_usd, steps):
    """Initial margin of coin `i`, whose `u` units need `held`, taken to a signed notional."""
    if isolated.shape[0] > 0 and isolated[i] > 0.0:
        held_usd = u * price if u != 0.0 else 0.0
        return isolated_asked_nb(target_usd, held_usd, held, isolated[i], floors_usd[i], steps[i])
    return initial_nb(abs(target_usd), floors_usd[i], steps[i])


@jit
def held_margin_nb(u, own_cash, price, isolated, i, floors_usd, steps):
    """Initial margin of the `u` units of coin `i` that are held."""
    if u == 0.0:
        return 0.0
    if isolated.shape[0] > 0 and isolated[i] > 0.0:
        return own_equity_nb(u, own_cash, price)
    return initial_nb(abs(u) * price, floors_usd[i], steps[i])


@jit
def initial_margin_nb(
    weights, scale, units, equity, price, tradable, floors_usd, steps, isolated, own_cash, orders, in_part
):
    """Initial margin, USD, that a row asks for, of what its orders leave, of what it leaves as it is, and held before.

    ``isolated`` is (N,) or (0,) as of :class:`CoinParams`, ``own_cash`` (N,) as of :class:`Book`; the `orders`, (N,),
    count where the row is traded in part alone.
    """
    asked = 0.0
    after = 0.0
    left = 0.0
    before = 0.0
    for i in range(weights.shape[0]):
        held = held_margin_nb(units[i], own_cash[i], price[i], isolated, i, floors_usd, steps)
        before += held
        if np.isnan(weights[i]) or not tradable[i]:
            left += held
            continue
        target_usd = weights[i] * scale * equity
        needed = target_margin_nb(target_usd, units[i], price[i], held, isolated, i, floors_usd, steps)
        asked += needed
        if in_part:
            then = units[i] + orders[i]
            target_usd = then * price[i] if then != 0.0 else 0.0
            needed = target_margin_nb(target_usd, units[i], price[i], held, isolated, i, floors_usd, steps)
        after += needed
    return asked, after, left, before


@jit
def refused_nb(asked, after, left, before, equity, most_frac):
    """Whether the venue refuses what needs so much initial margin."""
    most = most_frac * equity
    return equity > 0.0 and (asked > most or after + left > max(most, before))


@jit
def fill_price_nb(order, mid, bid, ask, half_spread_frac):
    """Price at which `order` fills: the quote, or mid plus or minus the half spread where a side of it is NaN."""
    if np.isnan(bid) or np.isnan(ask):
        return mid * (1.0 + half_spread_frac) if order > 0.0 else mid * (1.0 - half_spread_frac)
    return ask if order > 0.0 else bid


@jit
def impact_nb(notional_usd, sign, base, mid, impact_price, impact_frac, reference_usd):
    """Part of mid by which an order moves its own price; `base` is its fill before impact, `sign` 1 for a buy."""
    at_reference = impact_frac if np.isnan(impact_price) else max(sign * (impact_price - base), 0.0) / mid
    size = notional_usd / reference_usd
    most = MOST_IMPACT if sign > 0.0 else min(MOST_IMPACT, base / mid)  # nobody pays to have a coin taken away
    return min(at_reference * (size if size <= 1.0 else np.sqrt(size)), most)


@jit
def fee_rate_nb(rates, thresholds_usd, referral_frac, volume, day, total_usd):
    """Rate of a trade on `day`: the tier of the volume of the days before it, then the referral's discount."""
    tier = 0
    if thresholds_usd.shape[0] > 1:
        recent = 0.0
        for y in range(max(0, day - TIER_DAYS), day):
            recent += volume[y]
        while tier + 1 < thresholds_usd.shape[0] and recent >= thresholds_usd[tier + 1]:
            tier += 1
    rate = rates[tier]
    if referral_frac > 0.0 and rate > 0.0 and total_usd - volume[day] < REFERRAL_LIMIT_USD:
        rate *= 1.0 - referral_frac
    return rate


@jit
def coin_factor_nb(fees, rate, t, i):
    """Factor of coin `i` at row `t` on a rate, or on a volume for a `rate` of 0."""
    if fees.factor.shape[1] == 0:
        return 1.0
    return fees.factor[0 if rate > 0.0 else 1, fees.period[t], i]


@jit
def own_equity_nb(units, own_cash, price):
    """Equity of an isolated position, USD."""
    return own_cash + units * price


@jit
def isolated_rate_nb(notional_usd, leverage, floors_usd, steps):
    """Margin of an isolated position over its notional."""
    return (
        max(1.0 / leverage, initial_nb(notional_usd, floors_usd, steps) / notional_usd) if notional_usd > 0.0 else 0.0
    )


@jit
def own_cash_nb(own_cash, before, after, fill, leverage, floors_usd, steps):
    """Cash of an isolated position whose units a fill takes from `before` to `after`."""
    if after == 0.0:
        return 0.0
    if before * after > 0.0 and abs(after) <= abs(before):
        return own_cash * (after / before)
    if before * after <= 0.0:
        own_cash = 0.0
        before = 0.0
    rate = isolated_rate_nb(abs(after) * fill, leverage, floors_usd, steps)
    return own_cash + rate * abs(after - before) * fill - (after - before) * fill


@jit
def limited_nb(units, own_cash, mid, fill, fee, spread, impact):
    """What the close of an isolated position around `mid` costs, which is no more than it has.

    Returns the price around which it is closed, fill price, fee, spread and impact cost.
    """
    if own_cash + units * fill - fee >= 0.0:
        return mid, fill, fee, spread, impact
    empty = -own_cash / units
    around = mid if own_equity_nb(units, own_cash, mid) >= 0.0 else empty
    return around, empty, 0.0, units * (around - empty), 0.0


@jit
def execute_nb(order, mid, market, quotes, t, i, fees, fee_rate, coin_params, sim_params, row_flows, coin_flows):
    """Fill one order at row `t` around `mid`: book its costs, return fill price, fee, spread and impact cost.

    Without `quotes` those of the row do not count: they are of another moment. ``fee_rate`` is of :func:`fee_rate_nb`.
    """
    fill, fee, spread, impact = fill_nb(order, mid, market, quotes, t, i, fees, fee_rate, coin_params, sim_params)
    book_costs_nb(fee, spread, impact, row_flows, coin_flows)
    return fill, fee, spread, impact


@jit
def book_costs_nb(fee, spread, impact, row_flows, coin_flows):
    """Add the costs of a fill to the flows of its row and coin."""
    row_flows[FEE_COST] += fee
    row_flows[SPREAD_COST] += spread
    row_flows[IMPACT_COST] += impact
    coin_flows[FEE_COST] += fee
    coin_flows[SPREAD_COST] += spread
    coin_flows[IMPACT_COST] += impact


@jit
def fill_nb(order, mid, market, quotes, t, i, fees, fee_rate, coin_params, sim_params):
    """Fill price, fee, spread and impact cost of an order; arguments as of :func:`execute_nb`."""
    quoted = quotes and market.bid.shape[0] > 0
    fill = fill_price_nb(
        order,
        mid,
        market.bid[t, i] if quoted else np.nan,
        market.ask[t, i] if quoted else np.nan,
        sim_params.half_spread_frac,
    )
    spread = order * (fill - mid)
    impact = 0.0
    if sim_params.impact:
        sign = 1.0 if order > 0.0 else -1.0
        price = np.nan
        if quotes and market.impact_bid.shape[0] > 0:
            price = market.impact_ask[t, i] if order > 0.0 else market.impact_bid[t, i]
        moved = mid * impact_nb(
            abs(order) * mid, sign, fill, mid, price, sim_params.impact_frac, coin_params.impact_reference_usd[i]
        )
        impact = abs(order) * moved
        fill += sign * moved
    fee = fee_rate * coin_factor_nb(fees, fee_rate, t, i) * abs(order) * fill
    return fill, fee, spread, impact


@jit
def maintenance_nb(notional_usd, floors_usd, steps):
    """Maintenance margin of one position, tier by tier."""
    total = 0.0
    for k in range(floors_usd.shape[0]):
        total += steps[k] * max(notional_usd - floors_usd[k], 0.0)
    return total


@jit
def reason_nb(before, after):
    """What a fill did to a position."""
    if before == 0.0:
        return OPEN
    if after == 0.0:
        return CLOSE
    if (before > 0.0) != (after > 0.0):
        return FLIP
    return INCREASE if abs(after) > abs(before) else REDUCE


@jit
def book_fill_nb(book, trades, fees, coin_params, t, i, order, after, mid, fill, fee, spread, impact, reason):
    """Book what :func:`execute_nb` filled of coin `i` around `mid`, or a settlement: `after` units are held then."""
    book.cash[0] -= order * fill + fee
    if reason != DELISTING:
        counted = abs(order) * fill * coin_factor_nb(fees, 0.0, t, i)
        book.volume[fees.day[t]] += counted
        book.total_volume[0] += counted
    if coin_params.isolated.shape[0] > 0 and coin_params.isolated[i] > 0.0:
        book.own_cash[i] = own_cash_nb(
            book.own_cash[i],
            book.units[i],
            after,
            fill,
            coin_params.isolated[i],
            coin_params.margin_floor_usd[i],
            coin_params.margin_step[i],
        )
    book.units[i] = after
    book.price[i] = mid
    book.missing[i] = 0
    row = book.trade_count[0]
    book.trade_count[0] = row + 1
    trades[row, ROW] = t
    trades[row, COIN] = i
    trades[row, UNITS] = order
    trades[row, PRICE] = fill
    trades[row, FEE] = fee
    trades[row, SPREAD] = spread
    trades[row, IMPACT] = impact
    trades[row, REASON] = reason


@jit
def liquidate_one_nb(market, fees, coin_params, sim_params, book, ledger, trades, t, i, price, quotes, rate, reason):
    """Close a position at row `t` around `price` as a liquidation; an isolated one loses no more than it has."""
    units = book.units[i]
    fill, fee, spread, impact = fill_nb(-units, price, market, quotes, t, i, fees, rate, coin_params, sim_params)
    if coin_params.isolated.shape[0] > 0 and coin_params.isolated[i] > 0.0:
        price, fill, fee, spread, impact = limited_nb(units, book.own_cash[i], price, fill, fee, spread, impact)
    profit = units * (price - book.price[i])  # on the way to the price of the hour or of the limit
    ledger.flows[t, PRICE_PNL] += profit
    ledger.coin_flows[i, PRICE_PNL] += profit
    book_costs_nb(fee, spread, impact, ledger.flows[t], ledger.coin_flows[i])
    book_fill_nb(book, trades, fees, coin_params, t, i, -units, 0.0, price, fill, fee, spread, impact, reason)


@jit
def close_all_nb(market, fees, coin_params, sim_params, book, ledger, trades, t, price, quotes):
    """Close every position at row `t` around `price`, (N,), as a liquidation."""
    rate = book_rate_nb(fees, book, t)
    reason = np.int64(LIQUIDATION)  # no literal: numba would compile what takes it for it alone
    ledger.counters[LIQUIDATED_ROW] = t
    for i in range(price.shape[0]):
        if book.units[i] != 0.0:
            liquidate_one_nb(
                market, fees, coin_params, sim_params, book, ledger, trades, t, i, price[i], quotes, rate, reason
            )


@jit
def book_rate_nb(fees, book, t):
    """Rate of a trade of the book at row `t`, before the factor of its coin."""
    return fee_rate_nb(
        fees.rate[t], fees.thresholds_usd, fees.referral_frac, book.volume, fees.day[t], book.total_volume[0]
    )


@jit
def called_nb(equity, own_equity, others, maintenance_usd):
    """Whether the account's margin is gone: that of the `others`, positions without margin of their own."""
    free = equity - own_equity
    return equity <= 0.0 or (others and (free <= 0.0 or free < maintenance_usd))


@jit
def isolated_gone_nb(units, own_cash, price, floors_usd, steps):
    """Whether an isolated position's margin is gone at a price."""
    equity = own_equity_nb(units, own_cash, price)
    return equity <= 0.0 or equity < maintenance_nb(abs(units) * price, floors_usd, steps)


@jit
def isolated_margin_nb(market, fees, coin_params, sim_params, book, ledger, trades, t, held):
    """Step 1 of the isolated ones of the coins `held`: close at row `t` those whose margin is gone; how many it was."""
    within = market.low.shape[0] > 0
    before = ledger.counters[ISOLATED_LIQUIDATIONS]
    for k in range(held.shape[0]):
        i = held[k]
        units = book.units[i]
        if units == 0.0 or coin_params.isolated[i] == 0.0:
            continue
        price = book.price[i]
        if within:
            price = market.low[t, i] if units > 0.0 else market.high[t, i]
        if isolated_gone_nb(
            units, book.own_cash[i], price, coin_params.margin_floor_usd[i], coin_params.margin_step[i]
        ):
            rate = book_rate_nb(fees, book, t)
            reason = np.int64(ISOLATED_LIQUIDATION)
            ledger.counters[ISOLATED_LIQUIDATIONS] += 1
            liquidate_one_nb(
                market, fees, coin_params, sim_params, book, ledger, trades, t, i, price, not within, rate, reason
            )
    return ledger.counters[ISOLATED_LIQUIDATIONS] - before


@jit
def within_hour_nb(market, fees, coin_params, sim_params, book, ledger, trades, t):
    """Step 4 within the hour that ends at row `t`, every coin at its worst price of it; returns whether it fails."""
    worst = np.empty(book.units.shape[0])
    isolated = coin_params.isolated.shape[0] > 0
    equity = book.cash[0]
    own = 0.0
    others = False
    maintenance_usd = 0.0
    for i in range(worst.shape[0]):
        if book.units[i] != 0.0:
            worst[i] = market.low[t, i] if book.units[i] > 0.0 else market.high[t, i]
            value = book.units[i] * worst[i]
            equity += value
            if isolated and coin_params.isolated[i] > 0.0:
                own += own_equity_nb(book.units[i], book.own_cash[i], worst[i])
                continue
            others = True
            maintenance_usd += maintenance_nb(abs(value), coin_params.margin_floor_usd[i], coin_params.margin_step[i])
    if not called_nb(equity, own, others, maintenance_usd):
        return False
    ledger.margin_call[0] = equity - own
    ledger.margin_call[1] = maintenance_usd
    ledger.counters[WITHIN_HOUR] = 1
    close_all_nb(market, fees, coin_params, sim_params, book, ledger, trades, t, worst, np.bool_(False))
    return True


@jit
def step_nb(market, fees, coin_params, sim_params, book, ledger, trades, first, last):
    """Hold a book from row `first`, after its trade, to row `last`, before its trade.

    Each row on the way is settled (funding, margin) and recorded, and the next one marked; with ``last = T`` the last
    row is settled too. `trades` must have room for N more. Returns the equity at `last`, before the trade.
    """
    T, N = market.mid.shape
    mid, funding, funding_price = market.mid, market.funding, market.funding_price
    funded = funding.shape[0] == T
    units, price, missing = book.units, book.price, book.missing
    flows, coin_flows, counters = ledger.flows, ledger.coin_flows, ledger.counters
    isolated = coin_params.isolated.shape[0] > 0
    equity = book.cash[0]
    held = np.empty(N, dtype=np.int64)  # coins with a position, ascending; only they are looked at
    held_count = 0
    for i in range(N):
        if units[i] != 0.0:
            held[held_count] = i
            held_count += 1
            equity += units[i] * price[i]
    for t in range(first, last):
        # 3. Funding, on the book after the trade
        cash = book.cash[0]
        if funded:
            for k in range(held_count):
                i = held[k]
                if units[i] != 0.0 and not np.isnan(funding[t, i]):
                    base = funding_price[t, i]
                    payment = units[i] * (price[i] if np.isnan(base) else base) * funding[t, i]
                    cash -= payment
                    if isolated and coin_params.isolated[i] > 0.0:
                        book.own_cash[i] -= payment
                    flows[t, FUNDING_COST] += payment
                    coin_flows[i, FUNDING_COST] += payment
        book.cash[0] = cash
        # 4. Margin
        equity = cash
        long_usd = 0.0
        short_usd = 0.0
        own = 0.0
        others = False
        maintenance_usd = 0.0
        for k in range(held_count):
            i = held[k]
            if units[i] != 0.0:
                value = units[i] * price[i]
                equity += value
                if value > 0.0:
                    long_usd += value
                else:
                    short_usd -= value
                if isolated and coin_params.isolated[i] > 0.0:
                    own += own_equity_nb(units[i], book.own_cash[i], price[i])
                    continue
                others = True
                maintenance_usd += maintenance_nb(
                    abs(value), coin_params.margin_floor_usd[i], coin_params.margin_step[i]
                )
        if sim_params.margin and long_usd + short_usd > 0.0 and called_nb(equity, own, others, maintenance_usd):
            ledger.margin_call[0] = equity - own
            ledger.margin_call[1] = maintenance_usd
            close_all_nb(market, fees, coin_params, sim_params, book, ledger, trades, t, price, np.bool_(True))
            equity = book.cash[0]
            long_usd = 0.0
            short_usd = 0.0
        # 5. Record
        ledger.equity[t] = equity
        if equity != 0.0:
            ledger.gross[t] = (long_usd + short_usd) / equity
            ledger.net[t] = (long_usd - short_usd) / equity
        if t + 1 == T:
            break
        # 1. Mark, at the next row
        equity = book.cash[0]
        for k in range(held_count):
            i = held[k]
            if units[i] == 0.0:
                continue
            now = mid[t + 1, i]
            if np.isnan(now):
                missing[i] += 1
            else:
                missing[i] = 0
                profit = units[i] * (now - price[i])
                flows[t + 1, PRICE_PNL] += profit
                coin_flows[i, PRICE_PNL] += profit
                price[i] = now
            equity += units[i] * price[i]
            if missing[i] >= sim_params.stale_hours:
                reason = np.int64(DELISTING)
                value = price[i]
                book_fill_nb(
                    book, trades, fees, coin_params, t + 1, i, -units[i], 0.0, value, value, 0.0, 0.0, 0.0, reason
                )
                counters[DELISTINGS] += 1
        if isolated and sim_params.margin and held_count > 0:
            if isolated_margin_nb(
                market, fees, coin_params, sim_params, book, ledger, trades, t + 1, held[:held_count]
            ):
                equity = book.cash[0]
                for k in range(held_count):
                    equity += units[held[k]] * price[held[k]]
        if market.low.shape[0] == T and sim_params.margin:
            holds = False
            for k in range(held_count):
                holds |= units[held[k]] != 0.0
            if holds and within_hour_nb(market, fees, coin_params, sim_params, book, ledger, trades, t + 1):
                equity = book.cash[0]
    return equity


@jit
def simulate_nb(market, fees, coin_params, sim_params, weights, trade_rows, book, ledger):
    """Run one book through every row: mark, trade, funding, margin, record. Returns its trades.

    Parameters
    ----------
    market : MarketData
    fees : Fees
    coin_params : CoinParams
    sim_params : SimParams
    weights : (D, N), NaN = hold
    trade_rows : (D,) int64, ascending, each the row at which the decision is traded
    book, ledger : Book, Ledger
        New ones; filled in, but for ``ledger.trades``, which may be too short. A row that needs more initial margin
        than the account has ends the run: the counter REFUSED.
    """
    T, N = market.mid.shape
    D = trade_rows.shape[0]
    trades = ledger.trades
    mid, lot_scale = market.mid, coin_params.lot_scale
    units, flows, coin_flows, counters = book.units, ledger.flows, ledger.coin_flows, ledger.counters
    orders = np.zeros(N)
    outcomes = np.zeros(N, dtype=np.int64)
    price = np.empty(N)
    row = np.int64(0)
    for d in range(D + 1):  # the last time round there is nothing to trade
        t = trade_rows[d] if d < D else np.int64(T)
        used = book.trade_count[0]
        if used + 2 * N > trades.shape[0]:  # a coin may leave on the way, and then be traded
            grown = np.empty((2 * used + 2 * N, TRADE_COLUMNS))
            # A loop: for a slice that takes an array numba compiles the words of its error, for seconds.
            for k in range(used):
                for column in range(TRADE_COLUMNS):
                    grown[k, column] = trades[k, column]
            trades = grown
        equity = step_nb(market, fees, coin_params, sim_params, book, ledger, trades, row, t)
        row = t
        if d == D or counters[LIQUIDATED_ROW] >= 0:
            continue
        if counters[FIRST_ASKING] < 0 and asks_nb(weights[d]):
            counters[FIRST_ASKING] = d
        # 2. Trade; a tradable coin has a mid, which of a held one is its price, too
        for i in range(N):
            price[i] = mid[t, i] if units[i] == 0.0 else book.price[i]
        blocked, scale = plan_nb(
            weights[d],
            units,
            equity,
            price,
            market.tradable[t],
            lot_scale,
            coin_params.band_frac,
            sim_params.min_notional_usd,
            (sim_params.to_edge, sim_params.trade_rate),
            sim_params.renormalise,
            orders,
            outcomes,
        )
        ledger.untradable_weight[d] = blocked
        if sim_params.most_initial_frac < np.inf:
            asked, after, left, before = initial_margin_nb(
                weights[d],
                scale,
                units,
                equity,
                price,
                market.tradable[t],
                coin_params.margin_floor_usd,
                coin_params.margin_step,
                coin_params.isolated,
                book.own_cash,
                orders,
                sim_params.to_edge or sim_params.trade_rate < 1.0,
            )
            if refused_nb(asked, after, left, before, equity, sim_params.most_initial_frac):
                counters[REFUSED] = d
                ledger.margin_call[0] = equity
                ledger.margin_call[1] = max(asked, after) + left
                break
        rate = book_rate_nb(fees, book, t)
        traded_usd = 0.0
        for i in range(N):
            outcome = outcomes[i]
            if outcome == ORDER:
                order = orders[i]
                fill, fee, spread, impact = execute_nb(
                    order,
                    price[i],
                    market,
                    np.bool_(True),
                    t,
                    i,
                    fees,
                    rate,
                    coin_params,
                    sim_params,
                    flows[t],
                    coin_flows[i],
                )
                held = round_lot_nb(units[i] + order, lot_scale[i])
                reason = np.int64(reason_nb(units[i], held))
                book_fill_nb(
                    book, trades, fees, coin_params, t, i, order, held, price[i], fill, fee, spread, impact, reason
                )
                traded_usd += abs(order) * price[i]
            elif outcome == BELOW_MINIMUM:
                counters[SKIPPED_MINIMUM] += 1
            elif outcome == INSIDE_BAND:
                counters[SKIPPED_BAND] += 1
            elif outcome == UNTRADABLE:
                counters[UNTRADABLE_ORDERS] += 1
        ledger.turnover[d] = traded_usd / equity if equity > 0.0 else 0.0
        counters[DECISIONS] += 1
    return trades[: book.trade_count[0]]


@jit
def held_hours_nb(trades, rates, within):
    """Coin-hours held by the trades of a run, and those of them without a rate, (T, N); `within` is WITHIN_HOUR."""
    T, N = rates.shape
    since = np.full(N, T)
    held = 0
    unrated = 0
    for k in range(trades.shape[0] + N):  # after the trades, what is held at the end
        i = k - trades.shape[0]
        end = T
        if i < 0:
            i = np.int64(trades[k, COIN])
            end = np.int64(trades[k, ROW])
            reason = trades[k, REASON]
            if reason == OPEN:
                since[i] = end
            if reason == LIQUIDATION:
                end += 1 - within  # it was held at the funding of the row
            elif reason not in ENDS:
                continue
        for t in range(since[i], end):
            held += 1
            unrated += np.isnan(rates[t, i])
        since[i] = T
    return held, unrated


# ------------------------------------------------------------------------------------------------------ many books

# Columns of `batch_nb`'s output. Those of the daily returns have a twin over all days from CALENDAR on; those from
# TURNOVER up to TRADES are sums over decisions; the flows' totals follow from TOTALS on, in the order of the flows.
END, MAX_DRAWDOWN, CAGR, VOLATILITY, SHARPE, SORTINO, CALENDAR = 0, 1, 2, 3, 4, 5, 6
TURNOVER, GROSS, NET, UNTRADABLE_WEIGHT, TRADES, TOTALS = 10, 11, 12, 13, 14, 15
METRICS = 20


class Intervals(NamedTuple):
    """A panel cut at the rows ``r[0] < ... < r[D-1]`` at which decisions are traded; interval ``d`` ends at ``r[d+1]``.

    Inside an interval positions are fixed, so all that a unit of a coin does to equity can be summed up beforehand, for
    all books alike. Interval ``d`` of ``value`` and ``carried`` starts at ``N * (r[d] - r[0])`` and is (N, hours), C
    order: the hours of a coin lie side by side, which lets the innermost loop be vectorised.
    """

    rows: np.ndarray  # (D + 1,) int64, the last is T
    value: np.ndarray  # (N * hours,) USD a unit is worth at each row; 0 once it is settled
    carried: np.ndarray  # (N * hours,) USD of cash a unit has brought since r[d]: minus funding, plus its settlement
    carries: bool  # whether anything of `carried` is not 0
    mid: np.ndarray  # (D, N) at r[d]
    buy: np.ndarray  # (D, N) fill price of a buy at r[d], before impact
    sell: np.ndarray  # (D, N)
    tradable: np.ndarray  # (D, N) bool
    exit_value: np.ndarray  # (D, N) USD a unit is worth at r[d + 1], before the trade
    exit_carried: np.ndarray  # (D, N) USD of cash a unit has brought by then
    exit_funding: np.ndarray  # (D, N) USD of funding a unit has paid by then
    settled: np.ndarray  # (D, N) bool, whether a unit is settled by then
    daily_slot: np.ndarray  # (T,) int64, number of the day at whose hour the row is, -1 for other rows
    first_day: np.ndarray  # (D,) int64, number of the first daily return that ends after the decision
    price: np.ndarray  # (T, N) last known mid
    rates: np.ndarray  # (T, N) funding as the panel has it; (0, 0) where it has none, or none is asked for
    lasting: np.ndarray  # (D, N) int64, hours for which a unit is held in interval d
    unrated: np.ndarray  # (D, N) int64, those of them without a rate
    counted: np.ndarray  # (D,) bool, whether any unit of interval d is settled in it or lacks a rate


@jit
def known_prices_nb(mid, stale_hours):
    """Last known mid, (T, N), and the rows at which a held coin would be settled."""
    T, N = mid.shape
    price = np.empty((T, N))
    settles = np.zeros((T, N), dtype=np.bool_)
    missing = np.zeros(N, dtype=np.int64)
    for t in range(T):
        for i in range(N):
            if np.isnan(mid[t, i]):
                price[t, i] = price[t - 1, i] if t > 0 else np.nan
                missing[i] += 1
                settles[t, i] = missing[i] == stale_hours
            else:
                price[t, i] = mid[t, i]
                missing[i] = 0
    return price, settles


@jit
def fills_nb(market, rows, half_spread_frac):
    """Fill prices of a buy and of a sell at `rows`, (D, N) each, before impact."""
    D = rows.shape[0]
    N = market.mid.shape[1]
    quoted = market.bid.shape[0] > 0
    buy = np.empty((D, N))
    sell = np.empty((D, N))
    for d in range(D):
        t = rows[d]
        for i in range(N):
            bid = market.bid[t, i] if quoted else np.nan
            ask = market.ask[t, i] if quoted else np.nan
            buy[d, i] = fill_price_nb(1.0, market.mid[t, i], bid, ask, half_spread_frac)
            sell[d, i] = fill_price_nb(-1.0, market.mid[t, i], bid, ask, half_spread_frac)
    return buy, sell


@jit
def precompute_intervals_nb(price, settles, funding, funding_price, bounds):
    """The arrays of :class:`Intervals` from `value` to `settled`, but for the prices at the trades."""
    T, N = price.shape
    D = bounds.shape[0] - 1
    funded = funding.shape[0] == T
    value = np.zeros(N * (T - bounds[0]))
    carried = np.zeros(N * (T - bounds[0]))
    exit_value = np.zeros((D, N))
    exit_carried = np.zeros((D, N))
    exit_funding = np.zeros((D, N))
    settled = np.zeros((D, N), dtype=np.bool_)
    carries = False
    for d in range(D):
        start = bounds[d]
        hours = bounds[d + 1] - start
        for i in range(N):
            place = N * (start - bounds[0]) + i * hours
            paid = 0.0
            proceeds = 0.0
            for t in range(start, min(bounds[d + 1] + 1, T)):
                now = price[t, i]
                if np.isnan(now):  # not listed yet: never held
                    continue
                if t > start and settles[t, i] and not settled[d, i]:
                    settled[d, i] = True
                    proceeds = now
                if t < bounds[d + 1]:
                    if funded and not settled[d, i] and not np.isnan(funding[t, i]):
                        base = funding_price[t, i]
                        paid += (now if np.isnan(base) else base) * funding[t, i]
                    value[place + t - start] = 0.0 if settled[d, i] else now
                    if proceeds != paid:  # memory that stays 0 is never touched
                        carried[place + t - start] = proceeds - paid
                        carries = True
                exit_value[d, i] = 0.0 if settled[d, i] else now
                exit_carried[d, i] = proceeds - paid
                exit_funding[d, i] = paid
    return value, carried, carries, exit_value, exit_carried, exit_funding, settled


@jit
def interval_hours_nb(mid, price, settles, rates, bounds):
    """The arrays `lasting`, `unrated` and `counted` of :class:`Intervals`; what is settled long since lacks nothing."""
    D, N = bounds.shape[0] - 1, price.shape[1]
    lasting = np.zeros((D, N), dtype=np.int64)
    unrated = np.zeros((D, N), dtype=np.int64)
    counted = np.zeros(D, dtype=np.bool_)
    gone = np.zeros(N, dtype=np.bool_)
    for d in range(D):
        for t in range(bounds[d], bounds[d + 1]):
            for i in range(N):
                if not np.isnan(mid[t, i]):
                    gone[i] = False if t == bounds[d] else gone[i]
                elif settles[t, i]:
                    gone[i] = True
                    counted[d] = True
                if not gone[i] and not np.isnan(price[t, i]):
                    lasting[d, i] += 1
                    if np.isnan(rates[t, i]):
                        unrated[d, i] += 1
                        counted[d] = True
    return lasting, unrated, counted


@jit
def count_hours_nb(s, count, held, d, lasting, unrated):
    """Coin-hours that book `s` held in interval `d`, and those of them without a rate."""
    hours = 0
    without = 0
    for k in range(count):
        hours += lasting[d, held[s, k]]
        without += unrated[d, held[s, k]]
    return hours, without


@jit
def count_until_nb(coins, intervals, d, h):
    """The same of `coins` held until hour `h` of the interval."""
    start = intervals.rows[d]
    hours = intervals.rows[d + 1] - start
    block = intervals.mid.shape[1] * (start - intervals.rows[0])
    total = 0
    without = 0
    for k in range(coins.shape[0]):
        i = np.int64(coins[k])
        for t in range(h + 1):
            if intervals.value[block + i * hours + t] == 0.0:  # settled
                break
            total += 1
            without += intervals.rates.shape[0] > 0 and np.isnan(intervals.rates[start + t, i])
    return total, without


@jit
def gather_dense_nb(dense, limit, indptr, coins, weights):
    """Entries that are not 0 (NaN is not) of the first D decisions of a (S, all, N) array, in `batch_nb`'s order.

    Returns the first ``(s, d)`` whose gross is above `limit` or infinite, or ``(-1, -1)``.
    """
    S, _, N = dense.shape
    D = (indptr.shape[0] - 1) // S
    count = 0
    above = (-1, -1)
    for d in range(D):
        for s in range(S):
            row = dense[s, d]
            gross = 0.0
            for i in range(N):
                w = row[i]
                if w != 0.0:
                    coins[count] = i
                    weights[count] = w
                    count += 1
                    if not np.isnan(w):
                        gross += abs(w)
            indptr[d * S + s + 1] = count
            if gross > limit and above[0] < 0:
                above = (s, d)
    return above


@jit
def check_sparse_nb(indptr, coins, weights, limit, every, traded):
    """First ``(s, d)`` among the first `traded` of each book's `every` rows whose gross is above `limit` or infinite.

    ``(-1, -1)`` when there is none; also whether the coins of a row do not ascend.
    """
    above = (-1, -1)
    disordered = False
    for s in range((indptr.shape[0] - 1) // every):
        first = indptr[s * every]
        for d in range(traded):
            last = indptr[s * every + d + 1]
            wrong = 0
            for k in range(first + 1, last):
                wrong += 1 if coins[np.uint64(k)] <= coins[np.uint64(k - 1)] else 0
            disordered |= wrong > 0
            # Four sums at once: one after the other waits for each addition.
            a, b, c, e = 0.0, 0.0, 0.0, 0.0
            k = first
            for _ in range((last - first) // 4):
                a += abs(weights[np.uint64(k)])
                b += abs(weights[np.uint64(k + 1)])
                c += abs(weights[np.uint64(k + 2)])
                e += abs(weights[np.uint64(k + 3)])
                k += 4
            for rest in range(k, last):
                a += abs(weights[np.uint64(rest)])
            gross = a + b + c + e
            if np.isnan(gross):  # an instruction to hold is in the row
                gross = 0.0
                for k in range(first, last):
                    if not np.isnan(weights[k]):
                        gross += abs(weights[k])
            if gross > limit and above[0] < 0:
                above = (s, d)
            first = last
    return above, disordered


@jit
def summarise_nb(daily, metrics):
    """Fill in what follows from the equity at each day's decision hour, (days,); formulas of ``metrics.py``."""
    days = daily.shape[0] - 1
    metrics[CAGR] = np.nan
    metrics[VOLATILITY] = np.nan
    metrics[SHARPE] = np.nan
    metrics[SORTINO] = np.nan
    if days < 1:
        return
    growth = 1.0
    lost = False
    total = 0.0
    size = 0.0
    downside = 0.0
    for k in range(days):
        change = daily[k + 1] / daily[k] - 1.0 if daily[k] > 0.0 else 0.0
        growth *= 1.0 + change
        lost |= change <= -1.0
        total += change
        size += change * change
        if change < 0.0:
            downside += change * change
    mean = total / days
    metrics[CAGR] = -1.0 if lost else growth ** (365.0 / days) - 1.0
    squares = 0.0
    for k in range(days):
        change = daily[k + 1] / daily[k] - 1.0 if daily[k] > 0.0 else 0.0
        squares += (change - mean) ** 2
    deviation = np.sqrt(squares / (days - 1)) if days > 1 else np.nan
    if squares <= FLAT * size or deviation <= DUST:
        if days > 1:
            metrics[VOLATILITY] = 0.0
        return
    downside = np.sqrt(downside / days)
    if downside > DUST:
        metrics[SORTINO] = mean / downside * np.sqrt(365.0)
    metrics[VOLATILITY] = deviation * np.sqrt(365.0)
    metrics[SHARPE] = mean / deviation * np.sqrt(365.0)


@jit
def row_scale_nb(s, count, held, units, first, last, coins, weights, equity, tradable, price, seen, stamp):
    """Factor of :func:`renormalised_nb` for book `s`, whose row is the entries from `first` to `last`.

    ``tradable`` and ``price`` are (N,); of ``seen`` the row's coins are set to `stamp`.
    """
    own = 0.0
    blocked = 0.0
    stuck_usd = 0.0
    for k in range(first, last):
        i = coins[k]
        seen[i] = stamp
        if np.isnan(weights[k]):
            continue
        if tradable[i]:
            own += abs(weights[k])
        else:
            blocked += abs(weights[k])
            if units[s, i] != 0.0:
                stuck_usd += abs(units[s, i]) * price[i]
    for k in range(count):
        i = held[s, k]
        if seen[i] != stamp and not tradable[i] and units[s, i] != 0.0:
            stuck_usd += abs(units[s, i]) * price[i]
    return renormalised_nb(own + blocked, own, stuck_usd, equity)


@jit
def row_margin_nb(
    s,
    count,
    held,
    units,
    first,
    last,
    coins,
    weights,
    scale,
    equity,
    tradable,
    price,
    floors_usd,
    steps,
    seen,
    stamp,
    isolated,
    own_cash,
    lot_scale,
    band_frac,
    min_notional_usd,
    parts,
):
    """The four sums of :func:`initial_margin_nb` for book `s`; arguments as of :func:`row_scale_nb` and `plan_nb`."""
    asked = 0.0
    after = 0.0
    left = 0.0
    before = 0.0
    for k in range(first, last):
        i = coins[k]
        seen[i] = stamp
        u = units[s, i]
        own = own_cash[s, i] if isolated.shape[0] > 0 else 0.0
        held_usd = held_margin_nb(u, own, price[i], isolated, i, floors_usd, steps)
        if np.isnan(weights[k]) or not tradable[i]:
            left += held_usd
            continue
        w = weights[k] * scale
        needed = target_margin_nb(w * equity, u, price[i], held_usd, isolated, i, floors_usd, steps)
        asked += needed
        if parts is not None:
            band_usd = band_frac[i] * equity
            order, _ = size_order_nb(w, u, equity, price[i], lot_scale[i], min_notional_usd, band_usd, parts)
            target_usd = (u + order) * price[i] if u + order != 0.0 else 0.0
            needed = target_margin_nb(target_usd, u, price[i], held_usd, isolated, i, floors_usd, steps)
        after += needed
    for k in range(count):
        i = held[s, k]
        u = units[s, i]
        if u != 0.0:
            own = own_cash[s, i] if isolated.shape[0] > 0 else 0.0
            held_usd = held_margin_nb(u, own, price[i], isolated, i, floors_usd, steps)
            before += held_usd
            if seen[i] != stamp and not tradable[i]:
                left += held_usd
            elif parts is not None and seen[i] != stamp:  # no entry is weight 0
                then = u - close_nb(u, equity, price[i], lot_scale[i], min_notional_usd, parts[1])
                target_usd = then * price[i] if then != 0.0 else 0.0
                after += target_margin_nb(target_usd, u, price[i], held_usd, isolated, i, floors_usd, steps)
    return asked, after, left, before


@jit
def close_interval_nb(s, count, held, units, d, exit_value, exit_carried, exit_funding, settled):
    """Step 1 for book `s`: what its units did in interval `d`, until the next trade; settled ones are gone.

    Returns cash brought, value, gross value, funding paid and the number of settled positions.
    """
    cash = 0.0
    value = 0.0
    gross = 0.0
    funding = 0.0
    gone = 0
    for k in range(count):
        i = held[s, k]
        u = units[s, i]
        cash += u * exit_carried[d, i]
        worth = u * exit_value[d, i]
        value += worth
        gross += abs(worth)
        funding += u * exit_funding[d, i]
        if settled[d, i]:
            units[s, i] = 0.0
            gone += 1
    return cash, value, gross, funding, gone


@jit
def impact_shift_nb(order, fill, mid, impact, d, i):
    """By how much the fill of an order moves with its impact, with the sign of the order."""
    buy, sell, impact_frac, reference_usd = impact
    sign = 1.0 if order > 0.0 else -1.0
    price = np.nan
    if buy.shape[0] > 0:
        price = buy[d, i] if order > 0.0 else sell[d, i]
    return sign * mid * impact_nb(abs(order) * mid, sign, fill, mid, price, impact_frac, reference_usd[i])


@jit
def trade_nb(
    s,
    held_count,
    held,
    units,
    first,
    last,
    coins,
    weights,
    scale,
    equity,
    d,
    mid,
    buy,
    sell,
    tradable,
    fee_rate,
    lot_scale,
    band_frac,
    min_notional_usd,
    parts,
    impact,
    builders,
    period,
    seen,
    stamp,
    kept,
    counters,
):
    """Step 2 for book `s` at decision `d`: close what has no entry, then trade the entries from `first` to `last`.

    ``kept`` (2, N) is filled with the coins held afterwards, longs in its first row, shorts in its second. Returns
    their numbers, the cash spent, fees, spread and impact costs, USD traded at mid and USD of fills that count as
    volume, number of trades and untradable weight. ``parts`` is that of :func:`size_order_nb`,
    ``builders`` is None or the factors on fees, the leverage, floors and steps of isolated coins and the books' cash of
    isolated positions; ``period`` is the row's.
    """
    charged_usd = 0.0
    counted_usd = 0.0
    if builders is not None:
        factor, isolated, floors_usd, steps, own_cash = builders
    longs = 0
    shorts = 0
    spent = 0.0
    spreads = 0.0
    impacts = 0.0
    traded_usd = 0.0
    filled_usd = 0.0
    trades = 0
    blocked = 0.0
    for k in range(first, last):
        seen[coins[k]] = stamp
    for k in range(first - held_count, last):
        if k < first:
            i = held[s, k - first + held_count]
            if seen[i] == stamp:
                continue
            w = 0.0
        else:
            i = coins[k]
            w = weights[k]
        u = units[s, i]
        if not np.isnan(w):
            if tradable[d, i]:
                price = mid[d, i]
                ask = buy[d, i]
                bid = sell[d, i]
                order, outcome = size_order_nb(
                    w * scale,
                    u,
                    equity,
                    price,
                    lot_scale[i],
                    min_notional_usd,
                    band_frac[i] * equity,
                    parts,
                )
                if outcome == ORDER:
                    fill = ask if order > 0.0 else bid
                    spreads += order * (fill - price)
                    # Without impact the argument is None, and numba compiles a kernel that has none of this.
                    if impact is not None:
                        moved = impact_shift_nb(order, fill, price, impact, d, i)
                        impacts += abs(order) * abs(moved)
                        fill += moved
                    before = u
                    u = round_lot_nb(u + order, lot_scale[i])
                    units[s, i] = u
                    filled_usd += abs(order) * fill
                    if builders is not None:  # as with impact
                        if factor.shape[1] > 0:
                            charged_usd += abs(order) * fill * factor[0 if fee_rate > 0.0 else 1, period, i]
                            counted_usd += abs(order) * fill * factor[1, period, i]
                        if isolated.shape[0] > 0 and isolated[i] > 0.0:
                            own_cash[s, i] = own_cash_nb(
                                own_cash[s, i], before, u, fill, isolated[i], floors_usd[i], steps[i]
                            )
                    spent += order * fill
                    traded_usd += abs(order) * price
                    trades += 1
                elif outcome == BELOW_MINIMUM:
                    counters[s, SKIPPED_MINIMUM] += 1
                elif outcome == INSIDE_BAND:
                    counters[s, SKIPPED_BAND] += 1
            else:
                blocked += abs(w)
                if w != 0.0 or u != 0.0:
                    counters[s, UNTRADABLE_ORDERS] += 1
        # Both lists are written and one grows: a branch on the sign of a position is one that no processor can predict.
        kept[0, longs] = i
        longs += u > 0.0
        kept[1, shorts] = i
        shorts += u < 0.0
    if builders is not None:
        if builders[0].shape[1] > 0:
            fees = fee_rate * charged_usd
            return longs, shorts, spent + fees, fees, spreads, impacts, traded_usd, counted_usd, trades, blocked
    fees = fee_rate * filled_usd
    return longs, shorts, spent + fees, fees, spreads, impacts, traded_usd, filled_usd, trades, blocked


@jit
def add_paths_nb(side, count, listed, sign, s, units, block, paths, hours, total):
    """Add ``sign * units * path`` of the first `count` coins of ``listed[side]`` to `total`, (hours,).

    Four coins a pass: the sum is then loaded and stored once for four of them.
    """
    whole = count - count % 4
    for k in range(0, whole, 4):
        a = sign * units[s, listed[side, k]]
        b = sign * units[s, listed[side, k + 1]]
        c = sign * units[s, listed[side, k + 2]]
        e = sign * units[s, listed[side, k + 3]]
        at_a = block + np.uint64(listed[side, k]) * hours
        at_b = block + np.uint64(listed[side, k + 1]) * hours
        at_c = block + np.uint64(listed[side, k + 2]) * hours
        at_e = block + np.uint64(listed[side, k + 3]) * hours
        for h in range(hours):
            total[h] += (a * paths[at_a + h] + b * paths[at_b + h]) + (c * paths[at_c + h] + e * paths[at_e + h])
    for k in range(whole, count):
        a = sign * units[s, listed[side, k]]
        at_a = block + np.uint64(listed[side, k]) * hours
        for h in range(hours):
            total[h] += a * paths[at_a + h]


@jit
def brought_nb(intervals, d, h, within, i, block, hours):
    """Cash that a unit of a coin brought from the trade of interval `d` to hour `h`, and whether it is settled.

    With `within`, before the funding of that hour, which may be the first of the next interval.
    """
    place = block + i * hours
    if h == hours:
        return intervals.exit_carried[d, i], intervals.settled[d, i]
    settled = intervals.value[place + h] == 0.0
    return intervals.carried[place + h - 1 if within and not settled else place + h], settled


@jit
def first_within_nb(intervals, d, last, held, units, cash, block, market, coin_params):
    """First hour of interval `d`, up to `last`, in which the margin is gone at the worst prices; 0 for none."""
    hours = intervals.rows[d + 1] - intervals.rows[d]
    for h in range(1, last + 1):
        row = intervals.rows[d] + h
        equity = cash
        maintenance = 0.0
        holds = False
        for k in range(held.shape[0]):
            i = np.int64(held[k])
            brought, settled = brought_nb(intervals, d, h, np.bool_(True), i, block, hours)
            equity += units[i] * brought
            if not settled:
                value = units[i] * (market.low[row, i] if units[i] > 0.0 else market.high[row, i])
                equity += value
                maintenance += maintenance_nb(abs(value), coin_params.margin_floor_usd[i], coin_params.margin_step[i])
                holds = True
        if holds and (equity <= 0.0 or equity < maintenance):
            return h
    return 0


@jit
def liquidate_one_of_nb(
    intervals,
    d,
    h,
    i,
    u,
    own_cash,
    within,
    block,
    market,
    fees,
    fee_rate,
    coin_params,
    sim_params,
    metrics,
):
    """Close `u` units of coin `i` at hour `h` of interval `d`; returns the cash that they brought since its trade.

    Their funding until then and the costs are added to `metrics`; `own_cash` is that after the interval's trade.
    """
    row = intervals.rows[d] + h
    hours = intervals.rows[d + 1] - intervals.rows[d]
    flows = metrics[TOTALS : TOTALS + FLOW_COLUMNS]
    brought, _ = brought_nb(intervals, d, h, within, i, block, hours)
    flows[FUNDING_COST] -= u * brought
    price = intervals.price[row, i]
    quotes = market.low.shape[0] == 0 or not within
    if not quotes:
        price = market.low[row, i] if u > 0.0 else market.high[row, i]
    fill, fee, spread, impact = fill_nb(-u, price, market, quotes, row, i, fees, fee_rate, coin_params, sim_params)
    if coin_params.isolated.shape[0] > 0 and coin_params.isolated[i] > 0.0:
        _, fill, fee, spread, impact = limited_nb(u, own_cash + u * brought, price, fill, fee, spread, impact)
    flows[FEE_COST] += fee
    flows[SPREAD_COST] += spread
    flows[IMPACT_COST] += impact
    metrics[TRADES] += 1
    return u * brought + u * fill - fee, abs(u) * fill * coin_factor_nb(fees, 0.0, row, i)


@jit
def liquidate_nb(
    intervals,
    d,
    h,
    held,
    units,
    own_cash,
    cash,
    within,
    block,
    market,
    fees,
    fee_rate,
    coin_params,
    sim_params,
    metrics,
    counters,
):
    """Step 4 where the margin is gone: close all positions at hour `h` of interval `d`; returns the cash left.

    With `within`, in the hour that ends there, before its funding; `cash` is that after the interval's trade.
    """
    hours = intervals.rows[d + 1] - intervals.rows[d]
    alone = coin_params.isolated.shape[0] > 0
    for k in range(held.shape[0]):
        i = np.int64(held[k])  # as in `simulate_nb`, so that `fill_nb` is compiled once
        u = units[i]
        brought, settled = brought_nb(intervals, d, h, within, i, block, hours)
        if settled:
            cash += u * brought
            metrics[TRADES] += 1
            counters[DELISTINGS] += 1
            metrics[TOTALS + FUNDING_COST] += u * intervals.exit_funding[d, i]
            continue
        proceeds, _ = liquidate_one_of_nb(
            intervals,
            d,
            h,
            i,
            u,
            own_cash[i] if alone else 0.0,
            within,
            block,
            market,
            fees,
            fee_rate,
            coin_params,
            sim_params,
            metrics,
        )
        cash += proceeds
    counters[LIQUIDATED_ROW] = intervals.rows[d] + h
    return cash


@jit
def first_isolated_nb(intervals, d, last, held, units, own_cash, block, market, coin_params, first):
    """Of each coin held, the first hour of interval `d`, up to `last`, in which its own margin is gone; 0 for none.

    Fills `first` (N,).
    """
    start, hours = intervals.rows[d], intervals.rows[d + 1] - intervals.rows[d]
    value, carried, exit_carried, settled = (
        intervals.value,
        intervals.carried,
        intervals.exit_carried,
        intervals.settled,
    )
    known, low, high, isolated = intervals.price, market.low, market.high, coin_params.isolated
    floors_usd, steps = coin_params.margin_floor_usd, coin_params.margin_step
    within = low.shape[0] > 0
    for k in range(held.shape[0]):
        first[k] = 0
        i = np.int64(held[k])
        u = units[i]
        if isolated[i] == 0.0 or u == 0.0:
            continue
        place = block + i * hours
        for h in range(1, last + 1):
            if settled[d, i] if h == hours else value[place + h] == 0.0:
                break
            if within:
                price = low[start + h, i] if u > 0.0 else high[start + h, i]
            else:
                price = known[start + h, i] if h == hours else value[place + h]
            # What `brought_nb` and `isolated_gone_nb` say, without their looks into records.
            equity = own_cash[i] + u * (exit_carried[d, i] if h == hours else carried[place + h - 1]) + u * price
            needed = 0.0
            for m in range(floors_usd.shape[1]):
                needed += steps[i, m] * max(abs(u) * price - floors_usd[i, m], 0.0)
            if equity <= 0.0 or equity < needed:
                first[k] = h
                break


@jit
def called_at_nb(intervals, d, start, stop, held, units, own_cash, cash, gone, watched, block, market, coin_params):
    """First hour of interval `d`, from `start` to before `stop`, in which the account's margin is gone; -1 for none.

    Within an hour is tested before its row; also whether it was. With isolated positions: those of `held` whose hour
    in `gone` is not 0 and not after `start` are closed already, and what they brought is in `cash`.
    """
    hours = intervals.rows[d + 1] - intervals.rows[d]
    for h in range(start, stop):
        for within in (True, False):
            if (within and (h == 0 or not watched)) or (not within and h == hours):
                continue
            row = intervals.rows[d] + h
            equity = cash
            own = 0.0
            others = False
            holds = False
            maintenance = 0.0
            for k in range(held.shape[0]):
                i = np.int64(held[k])
                u = units[i]
                if 0 < gone[k] <= start:
                    continue
                brought, settled = brought_nb(intervals, d, h, within, i, block, hours)
                equity += u * brought
                if settled:
                    continue
                price = intervals.price[row, i]
                if within:
                    price = market.low[row, i] if u > 0.0 else market.high[row, i]
                holds = True
                equity += u * price
                if coin_params.isolated[i] > 0.0:
                    own += own_equity_nb(u, own_cash[i] + u * brought, price)
                    continue
                others = True
                maintenance += maintenance_nb(
                    abs(u) * price, coin_params.margin_floor_usd[i], coin_params.margin_step[i]
                )
            if holds and called_nb(equity, own, others, maintenance):
                return h, within
    return -1, False


@jit
def own_after_nb(s, count, held, units, own_cash, isolated, d, exit_funding, settled):
    """Take the funding of interval `d` from the cash of book `s`'s isolated positions; a settled one has none."""
    for k in range(count):
        i = held[s, k]
        if isolated[i] > 0.0:
            own_cash[s, i] = 0.0 if settled[d, i] else own_cash[s, i] - units[s, i] * exit_funding[d, i]


@jit
def own_path_nb(intervals, d, held, units, own_cash, block, isolated, own):
    """Fill `own`, (hours,), with the equity of a book's isolated positions at the hours of interval `d`."""
    hours = intervals.rows[d + 1] - intervals.rows[d]
    value, carried = intervals.value, intervals.carried
    own[:hours] = 0.0
    for k in range(held.shape[0]):
        i = np.int64(held[k])
        if isolated[i] > 0.0:
            cash, u, place = own_cash[i], units[i], block + i * hours
            for h in range(hours):
                own[h] += cash + u * (carried[place + h] + value[place + h])


@jit
def safe_nb(start, stop, worst_maintenance, equities, own, long_usd, short_usd):
    """Whether in those hours the account's margin is surely enough without that of isolated positions."""
    safe = True
    for h in range(start, stop):
        needed = worst_maintenance * (long_usd[h] + short_usd[h])
        safe &= (equities[h] > 0.0) & (equities[h] - own[h] > needed)
    return safe


@jit
def isolated_interval_nb(
    intervals,
    d,
    last,
    watched,
    worst_maintenance,
    held,
    units,
    own_cash,
    cash,
    block,
    market,
    fees,
    coin_params,
    sim_params,
    volume,
    total_volume,
    metrics,
    counters,
    gone,
    long_usd,
    short_usd,
    carried,
    equities,
    own,
):
    """Steps 1 and 4 of a book with isolated positions in interval `d`: close those whose margin is gone.

    ``gone`` becomes the hour at which each of `held` is closed, 0 for none; ``long_usd``, ``short_usd``, ``carried``
    and ``equities``, (hours,), are changed from that hour on; ``own``, (hours,), is for its use; ``volume`` (days,)
    and ``total_volume`` (1,) are the book's. Returns the hour at which the account's own margin is gone (-1 for none),
    whether that was within the hour, the cash that the closed ones brought, the hours for which they were held and
    those of them without a rate.
    """
    hours = intervals.rows[d + 1] - intervals.rows[d]
    first_isolated_nb(intervals, d, last, held, units, own_cash, block, market, coin_params, gone)
    own_path_nb(intervals, d, held, units, own_cash, block, coin_params.isolated, own)
    closed = 0.0
    lasted = 0
    without = 0
    start = 0
    while True:
        after = last + 1
        for k in range(held.shape[0]):
            if start < gone[k] < after:
                after = gone[k]
        called, within = -1, False
        stop = min(after, hours)
        if watched or not safe_nb(start, stop, worst_maintenance, equities, own, long_usd, short_usd):
            called, within = called_at_nb(
                intervals,
                d,
                start,
                after,
                held,
                units,
                own_cash,
                cash + closed,
                gone,
                watched,
                block,
                market,
                coin_params,
            )
        if called >= 0 or after > last:
            for k in range(held.shape[0]):
                if gone[k] > start:
                    gone[k] = 0
            return called, within, closed, lasted, without
        row = intervals.rows[d] + after
        day = fees.day[row] if volume.shape[0] > 1 else 0
        rate = fee_rate_nb(fees.rate[row], fees.thresholds_usd, fees.referral_frac, volume, day, total_volume[0])
        for k in range(held.shape[0]):
            if gone[k] != after:
                continue
            i = np.int64(held[k])
            u = units[i]
            proceeds, counted_usd = liquidate_one_of_nb(
                intervals,
                d,
                after,
                i,
                u,
                own_cash[i],
                np.bool_(True),
                block,
                market,
                fees,
                rate,
                coin_params,
                sim_params,
                metrics,
            )
            counters[ISOLATED_LIQUIDATIONS] += 1
            volume[day] += counted_usd
            total_volume[0] += counted_usd
            closed += proceeds
            more, less = count_until_nb(held[k : k + 1], intervals, d, after - 1)
            lasted += more
            without += less
            worth = long_usd if u > 0.0 else short_usd
            value, brought = intervals.value, intervals.carried
            for h in range(after, hours):
                place = block + i * hours + h
                worth[h] -= abs(u) * value[place]
                carried[h] += proceeds - u * brought[place]
                equities[h] += proceeds - u * (brought[place] + value[place])
                own[h] -= own_cash[i] + u * (brought[place] + value[place])
        start = after


@jit
def batch_nb(
    intervals,
    builders,
    parts,
    impact,
    market,
    fees,
    coin_params,
    sim_params,
    indptr,
    coins,
    weights,
    book_step,
    metrics,
    counters,
    daily,
):
    """Run S books over one panel, every book of a day before the next day, so that the day's prices stay in the cache.

    The rules are `simulate_nb`'s; only what a metric needs is kept.

    Parameters
    ----------
    intervals : Intervals
    builders : None, or what :func:`trade_nb` takes; only where a coin is isolated or has fees of its own
    parts : None, or what :func:`size_order_nb` takes
    impact : None, or the venue's impact prices of a buy and a sell at r[d], (D, N) or (0, 0), and impact_frac and
        impact_reference_usd
    market : MarketData
    fees : Fees
    coin_params : CoinParams
    sim_params : SimParams
    indptr, coins, weights : (rows + 1,) int64, (K,) uint32, (K,) float64
        Weights of book ``s`` at decision ``d`` are the entries from ``indptr[row]`` up to the next; a coin without one
        is 0.
    book_step : int
        Rows from a book to the next: ``row = s * book_step + d``, or, when it is 0, ``d * S + s``: decisions first.
    metrics, counters, daily : (S, METRICS) float64, (S, COUNTERS) int64, (S, days) float64
        Filled in. A book that is REFUSED has its equity in END, the margin needed in GROSS, and nothing else.
    """
    S = metrics.shape[0]
    D, N = intervals.mid.shape
    longest = 0
    for d in range(D):
        longest = max(longest, intervals.rows[d + 1] - intervals.rows[d])
    worst_maintenance = 0.0
    for i in range(N):
        steepest = 0.0
        for k in range(coin_params.margin_step.shape[1]):
            steepest += coin_params.margin_step[i, k]
        worst_maintenance = max(worst_maintenance, steepest)
    # Volume matters only where it decides a fee; a year of days a book is not worth keeping otherwise.
    tracked = fees.thresholds_usd.shape[0] > 1 or fees.referral_frac > 0.0
    isolated = coin_params.isolated
    alone = isolated.shape[0] > 0
    own_cash = np.zeros((1, 1))
    if builders is not None:
        own_cash = builders[4]
    isolated_count = np.zeros(S, dtype=np.int64)
    closed_at = np.zeros(N, dtype=np.int64)
    volume = np.zeros((S, fees.day[fees.day.shape[0] - 1] + 1 if tracked else 1))
    total_volume = np.zeros(S)
    units = np.zeros((S, N))
    held = np.zeros((S, N), dtype=np.uint32)  # unsigned: numba then does not look for negative indices
    held_count = np.zeros(S, dtype=np.int64)
    cash = np.full(S, sim_params.initial_equity_usd)
    peak = np.full(S, sim_params.initial_equity_usd)
    deepest = np.zeros(S)
    seen = np.zeros(N, dtype=np.int64)
    stamp = 0
    kept = np.zeros((2, N + 1), dtype=np.uint32)
    long_usd = np.zeros(longest)
    short_usd = np.zeros(longest)
    carried = np.zeros(longest)
    equities = np.zeros(longest)
    own = np.zeros(longest)
    gross = np.zeros(longest)
    net = np.zeros(longest)
    calendar = np.zeros(METRICS)
    metrics[:] = 0.0
    counters[:] = 0
    counters[:, LIQUIDATED_ROW] = -1
    counters[:, FIRST_ASKING] = -1
    counters[:, REFUSED] = -1
    daily[:] = sim_params.initial_equity_usd
    # A view of an array, or a look into a record, counts a reference: an atomic addition, for which threads wait for
    # one another. It took a third of the time. So the loop looks into arrays by their indices, and at nothing else.
    m_rows, m_value, m_carried, m_carries, m_daily_slot = (
        intervals.rows,
        intervals.value,
        intervals.carried,
        intervals.carries,
        intervals.daily_slot,
    )
    m_mid, m_buy, m_sell, m_tradable = intervals.mid, intervals.buy, intervals.sell, intervals.tradable
    m_exit_value, m_exit_carried, m_exit_funding = intervals.exit_value, intervals.exit_carried, intervals.exit_funding
    m_settled, m_counted, m_lasting, m_unrated = (
        intervals.settled,
        intervals.counted,
        intervals.lasting,
        intervals.unrated,
    )
    f_rate, f_period = fees.rate, fees.period
    floors_usd, steps = coin_params.margin_floor_usd, coin_params.margin_step
    margin, renormalise = sim_params.margin, sim_params.renormalise
    lot_scale, band_frac, min_notional_usd = coin_params.lot_scale, coin_params.band_frac, sim_params.min_notional_usd
    max_gross, most_initial_frac, worst_initial = (
        sim_params.max_gross,
        sim_params.most_initial_frac,
        2.0 * worst_maintenance,
    )
    if alone:
        for i in range(N):
            if isolated[i] > 0.0:
                worst_initial = max(worst_initial, 1.0 / isolated[i])
    watched = margin and market.low.shape[0] > 0
    end = m_rows[D]
    for d in range(D):
        start = m_rows[d]
        hours = m_rows[d + 1] - start
        block = N * (start - m_rows[0])
        at, length = np.uint64(block), np.uint64(hours)
        for s in range(S):
            if counters[s, LIQUIDATED_ROW] >= 0:
                for h in range(hours):
                    if m_daily_slot[start + h] >= 0:
                        daily[s, m_daily_slot[start + h]] = cash[s]
                continue
            value = 0.0
            held_usd = 0.0
            if d > 0:
                if builders is not None:
                    if isolated_count[s] > 0:
                        own_after_nb(
                            s, held_count[s], held, units, own_cash, isolated, d - 1, m_exit_funding, m_settled
                        )
                brought, value, held_usd, paid, gone = close_interval_nb(
                    s, held_count[s], held, units, d - 1, m_exit_value, m_exit_carried, m_exit_funding, m_settled
                )
                cash[s] += brought
                metrics[s, TOTALS + FUNDING_COST] += paid
                metrics[s, TRADES] += gone
                counters[s, DELISTINGS] += gone
            equity = cash[s] + value
            row = s * book_step + d if book_step > 0 else d * S + s
            stamp += 1
            if counters[s, FIRST_ASKING] < 0 and asks_nb(weights[indptr[row] : indptr[row + 1]]):
                counters[s, FIRST_ASKING] = d
            day = 0
            rate = f_rate[start, 0]
            if tracked:
                day = fees.day[start]
                rate = fee_rate_nb(
                    fees.rate[start], fees.thresholds_usd, fees.referral_frac, volume[s], day, total_volume[s]
                )
            scale = 1.0
            if renormalise:
                scale = row_scale_nb(
                    s,
                    held_count[s],
                    held,
                    units,
                    indptr[row],
                    indptr[row + 1],
                    coins,
                    weights,
                    equity,
                    intervals.tradable[d],
                    intervals.price[start],
                    seen,
                    stamp,
                )
            # Few books come so near to it that the margin of every coin has to be looked up.
            near = (max_gross * equity + held_usd) * worst_initial > most_initial_frac * equity
            if builders is not None:
                near |= isolated_count[s] > 0 and most_initial_frac < np.inf
            if near:
                asked, after, left, before = row_margin_nb(
                    s,
                    held_count[s],
                    held,
                    units,
                    indptr[row],
                    indptr[row + 1],
                    coins,
                    weights,
                    scale,
                    equity,
                    intervals.tradable[d],
                    intervals.price[start],
                    floors_usd,
                    steps,
                    seen,
                    stamp,
                    isolated,
                    own_cash,
                    lot_scale,
                    band_frac,
                    min_notional_usd,
                    parts,
                )
                if refused_nb(asked, after, left, before, equity, most_initial_frac):
                    counters[s, REFUSED] = d
                    counters[s, LIQUIDATED_ROW] = start  # so that it is left alone from here on
                    metrics[s, END] = equity
                    metrics[s, GROSS] = max(asked, after) + left
                    continue
            longs, shorts, spent, fee, spread, moved, traded_usd, counted_usd, trades, blocked = trade_nb(
                s,
                held_count[s],
                held,
                units,
                indptr[row],
                indptr[row + 1],
                coins,
                weights,
                scale,
                equity,
                d,
                m_mid,
                m_buy,
                m_sell,
                m_tradable,
                rate,
                lot_scale,
                band_frac,
                min_notional_usd,
                parts,
                impact,
                builders,
                f_period[start],
                seen,
                stamp,
                kept,
                counters,
            )
            volume[s, day] += counted_usd
            total_volume[s] += counted_usd
            count = longs + shorts
            for k in range(longs):
                held[s, k] = kept[0, k]
            for k in range(shorts):
                held[s, longs + k] = kept[1, k]
            held_count[s] = count
            if builders is not None:
                isolated_count[s] = 0
                if alone:
                    for k in range(count):
                        isolated_count[s] += isolated[held[s, k]] > 0.0
            cash[s] -= spent
            metrics[s, TOTALS + FEE_COST] += fee
            metrics[s, TOTALS + SPREAD_COST] += spread
            metrics[s, TOTALS + IMPACT_COST] += moved
            metrics[s, TRADES] += trades
            metrics[s, UNTRADABLE_WEIGHT] += blocked
            counters[s, DECISIONS] += 1
            if equity > 0.0:
                metrics[s, TURNOVER] += traded_usd / equity
            # 3. Funding and the prices of the interval
            for h in range(hours):
                long_usd[h] = 0.0
                short_usd[h] = 0.0
                carried[h] = cash[s]
            add_paths_nb(np.int64(0), longs, kept, 1.0, s, units, at, m_value, length, long_usd)
            add_paths_nb(np.int64(1), shorts, kept, -1.0, s, units, at, m_value, length, short_usd)
            if m_carries:
                add_paths_nb(s, count, held, 1.0, s, units, at, m_carried, length, carried)
            # 4. Margin
            called_at = -1
            within = 0
            endangered = False
            for h in range(hours):
                gross[h] = long_usd[h] + short_usd[h]
                net[h] = long_usd[h] - short_usd[h]
                equities[h] = carried[h] + net[h]
                endangered |= equities[h] <= worst_maintenance * gross[h]
            last = hours if start + hours < end else hours - 1
            lasted, without = 0, 0
            apart = False
            if builders is not None:
                if margin and isolated_count[s] > 0:
                    apart = True
                    called_at, was_within, closed, lasted, without = isolated_interval_nb(
                        intervals,
                        d,
                        last,
                        watched,
                        worst_maintenance,
                        held[s, :count],
                        units[s],
                        own_cash[s],
                        cash[s],
                        block,
                        market,
                        fees,
                        coin_params,
                        sim_params,
                        volume[s],
                        total_volume[s : s + 1],
                        metrics[s],
                        counters[s],
                        closed_at,
                        long_usd,
                        short_usd,
                        carried,
                        equities,
                        own,
                    )
                    within = called_at if was_within else 0
                    cash[s] += closed
                    left = 0
                    for k in range(count):
                        i = held[s, k]
                        if closed_at[k] > 0:
                            units[s, i] = 0.0
                            own_cash[s, i] = 0.0
                        else:
                            held[s, left] = i
                            left += 1
                    if left < count:
                        count = left
                        held_count[s] = left
                        for h in range(hours):
                            gross[h] = long_usd[h] + short_usd[h]
                            net[h] = long_usd[h] - short_usd[h]
                            equities[h] = carried[h] + net[h]
            if margin and endangered and not apart:
                for h in range(hours):
                    maintenance = 0.0
                    for k in range(count):
                        i = held[s, k]
                        maintenance += maintenance_nb(
                            abs(units[s, i]) * m_value[block + i * hours + h], floors_usd[i], steps[i]
                        )
                    if gross[h] > 0.0 and (equities[h] <= 0.0 or equities[h] < maintenance):
                        called_at = h
                        break
            if watched and count > 0 and not apart:
                until = called_at if called_at >= 0 else last
                within = first_within_nb(
                    intervals, d, until, held[s, :count], units[s], cash[s], block, market, coin_params
                )
                called_at = within if within > 0 else called_at
            if called_at < 0:
                if m_counted[d]:
                    more, less = count_hours_nb(s, count, held, d, m_lasting, m_unrated)
                    lasted += more
                    without += less
                else:
                    lasted += count * hours
            if called_at >= 0:
                called = start + called_at
                day = fees.day[called] if tracked else 0
                rate = fee_rate_nb(
                    fees.rate[called], fees.thresholds_usd, fees.referral_frac, volume[s], day, total_volume[s]
                )
                cash[s] = liquidate_nb(
                    intervals,
                    d,
                    called_at,
                    held[s, :count],
                    units[s],
                    own_cash[s if alone else 0],
                    cash[s],
                    within > 0,
                    block,
                    market,
                    fees,
                    rate,
                    coin_params,
                    sim_params,
                    metrics[s],
                    counters[s],
                )
                held_count[s] = 0
                more, less = count_until_nb(held[s, :count], intervals, d, called_at - (within > 0))
                lasted += more
                without += less
                gross[called_at:hours] = 0.0
                net[called_at:hours] = 0.0
                equities[called_at:hours] = cash[s]
            counters[s, HELD_HOURS] += lasted
            counters[s, UNRATED_HOURS] += without
            # 5. Record
            if equities[0] != 0.0:
                metrics[s, GROSS] += gross[0] / equities[0]
                metrics[s, NET] += net[0] / equities[0]
            top = peak[s]
            low = deepest[s]
            for h in range(hours):
                equity = equities[h]
                top = max(top, equity)
                if equity < top * (1.0 + low):
                    low = equity / top - 1.0
                if m_daily_slot[start + h] >= 0:
                    daily[s, m_daily_slot[start + h]] = equity
            if within == hours and cash[s] < top * (1.0 + low):  # at the next trade's row, which is not come to
                low = cash[s] / top - 1.0
            peak[s] = top
            deepest[s] = low
            metrics[s, END] = equities[hours - 1]
    for s in range(S):
        if counters[s, REFUSED] >= 0:
            continue
        _, _, _, paid, gone = close_interval_nb(
            s, held_count[s], held, units, D - 1, m_exit_value, m_exit_carried, m_exit_funding, m_settled
        )
        metrics[s, TOTALS + FUNDING_COST] += paid
        metrics[s, TRADES] += gone
        counters[s, DELISTINGS] += gone
        if counters[s, LIQUIDATED_ROW] >= 0:
            metrics[s, END] = cash[s]
        metrics[s, MAX_DRAWDOWN] = deepest[s]
        metrics[s, TOTALS + PRICE_PNL] = metrics[s, END] - sim_params.initial_equity_usd
        for column in (SPREAD_COST, IMPACT_COST, FEE_COST, FUNDING_COST):
            metrics[s, TOTALS + PRICE_PNL] += metrics[s, TOTALS + column]
        first = counters[s, FIRST_ASKING]
        summarise_nb(daily[s, intervals.first_day[first] :] if first >= 0 else daily[s, :0], metrics[s])
        summarise_nb(daily[s], calendar)
        for k in range(CALENDAR - CAGR):
            metrics[s, CALENDAR + k] = calendar[CAGR + k]


@jit
def top_bottom_nb(descending, ascending, above, below, known, sides, ranks, half, indptr, coins, weights):
    """Sparse rows of books that are long the highest and short the lowest scores, coins ascending within a row.

    ``descending`` and ``ascending``, (D, N), are the columns of each row by score, ties by column; ``above`` and
    ``below``, (D, N), the places of the columns in them; ``known``, (D,), is how many of a row have a score: those come
    first. Book ``s`` holds ``min(sides[s], known // 2)`` coins a side at ``half[s] / side`` each; its shorts are the
    lowest of those that its longs left. Where ``m = ranks[s]`` is not 0 it holds nothing in a row of fewer than
    ``2 m`` scores, else ``sides[s]`` coins a side: those that the row before held, of the first ``m`` places, then the
    best. Returns the entries written; there must be room for one more.
    """
    D, N = descending.shape
    taken = np.zeros(N, dtype=np.int8)  # 1 long, -1 short
    longs, shorts = np.empty(N, dtype=np.int64), np.empty(N, dtype=np.int64)
    chosen = np.empty(N, dtype=np.int64)
    e = 0
    for s in range(len(sides)):
        m, held = ranks[s], 0
        for d in range(D):
            side = min(sides[s], known[d] // 2)
            if 2 * m > known[d]:
                side = 0
            if side > 0:
                weight = half[s] / side
                count = 0
                for a in range(held):
                    i = longs[a]
                    if above[d, i] < m:
                        taken[i] = 1
                        longs[count] = i
                        count += 1
                k = 0
                while count < side:
                    i = descending[d, k]
                    k += 1
                    if taken[i] == 0:
                        taken[i] = 1
                        longs[count] = i
                        count += 1
                count = 0
                for a in range(held):
                    i = shorts[a]
                    k = below[d, i]
                    if taken[i] == 0 and k < m + side:
                        if k >= m:  # longs below it leave it their places, which they have by ties alone
                            for b in range(side):
                                if below[d, longs[b]] < below[d, i]:
                                    k -= 1
                        if k < m:
                            taken[i] = -1
                            shorts[count] = i
                            count += 1
                k = 0
                while count < side:
                    i = ascending[d, k]
                    k += 1
                    if taken[i] == 0:
                        taken[i] = -1
                        shorts[count] = i
                        count += 1
                if side * side > N:  # many: every column, and what is written for one not taken is written over
                    for i in range(N):
                        coins[e] = i
                        weights[e] = taken[i] * weight
                        e += taken[i] != 0
                        taken[i] = 0
                else:
                    for a in range(side):
                        chosen[a] = longs[a]
                        chosen[side + a] = shorts[a]
                    for a in range(1, 2 * side):
                        i = chosen[a]
                        b = a - 1
                        while b >= 0 and chosen[b] > i:
                            chosen[b + 1] = chosen[b]
                            b -= 1
                        chosen[b + 1] = i
                    for a in range(2 * side):
                        coins[e] = chosen[a]
                        weights[e] = taken[chosen[a]] * weight
                        taken[chosen[a]] = 0
                        e += 1
            held = side if m > 0 else 0
            indptr[s * D + d + 1] = e
    return e


@jit
def rename_nb(orders, rolls, indptr, coins, weights, listed, out_indptr, out_coins, out_weights):
    """Sparse rows of P books with other coins, R times; coins ascending within a row.

    In replicate ``r`` the weight of coin ``i`` at decision ``d`` is that of decision ``d - rolls[r]``, round in a
    circle, and goes to coin ``orders[r, i]``, or, where that is not in ``listed[d]``, to the next of ``orders[r]`` that
    is and that no other weight has; one for which there is none left is dropped. `out_indptr`, (R * P * D + 1,), and
    the others, with room for an entry more, are filled in; returns the entries written.
    """
    D, N = listed.shape
    P = (indptr.shape[0] - 1) // D
    one, low, six = np.uint64(1), np.uint64(63), np.uint64(6)
    taken = np.zeros(N // 64 + 1, dtype=np.uint64)  # a bit a coin
    # The place of a bit that is alone, by the top six bits of its product with a de Bruijn number.
    magic, place = np.uint64(0x03F79D71B4CB0A89), np.zeros(64, dtype=np.uint32)
    for k in range(64):
        place[(magic << np.uint64(k)) >> np.uint64(58)] = k
    value = np.zeros(N)
    e = np.uint64(0)
    for r in range(orders.shape[0]):
        order = orders[r]
        for p in range(P):
            for d in range(D):
                source = p * D + (d - rolls[r]) % D
                first, last = indptr[source], indptr[source + 1]
                here = listed[d]
                left = 0  # first those whose coin is listed, so that no repair takes a coin from them
                for k in range(first, last):
                    coin = np.uint64(order[np.uint64(coins[np.uint64(k)])])
                    if here[coin]:
                        taken[coin >> six] |= one << (coin & low)
                        value[coin] = weights[np.uint64(k)]
                    else:
                        left += 1
                for k in range(first, last if left else first):
                    i = np.int64(coins[k])
                    if here[order[i]]:
                        continue
                    for _ in range(N):
                        i = (i + 1) % N
                        coin = np.uint64(order[i])
                        if here[coin] and not (taken[coin >> six] >> (coin & low)) & one:
                            taken[coin >> six] |= one << (coin & low)
                            value[coin] = weights[k]
                            break
                if 2 * (last - first) > N:
                    # Every coin is written and one entry grows: for a full row quicker than bit by bit.
                    for column in range(N):
                        coin = np.uint64(column)
                        out_coins[e] = column
                        out_weights[e] = value[coin]
                        e += (taken[coin >> six] >> (coin & low)) & one
                    taken[:] = 0
                else:
                    for word in range(len(taken)):
                        rest = taken[word]
                        taken[word] = 0
                        while rest:
                            lowest = rest & (~rest + one)
                            column = word * 64 + place[(lowest * magic) >> np.uint64(58)]
                            out_coins[e] = column
                            out_weights[e] = value[column]
                            e += one
                            rest ^= lowest
                out_indptr[(r * P + p) * D + d + 1] = e
    return e
