"""The numba file: arrays in, arrays out. It imports numpy and numba only and trusts what it is given.

The steps and every rule they follow are in ARCHITECTURE.md, "Rules of an instant". Checks live in ``simulate.py``.

Short names: ``T`` hours, ``N`` coins, ``D`` decisions; ``t`` row, ``i`` coin, ``d`` decision; ``w`` weight.
Absent market data (no quotes, no funding) are arrays of shape (0, 0).
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
# Columns of the trades.
ROW, COIN, UNITS, PRICE, FEE, SPREAD, IMPACT, REASON = 0, 1, 2, 3, 4, 5, 6, 7
TRADE_COLUMNS = 8
# Columns of the flows, all in USD; the last four are costs.
PRICE_PNL, SPREAD_COST, IMPACT_COST, FEE_COST, FUNDING_COST = 0, 1, 2, 3, 4
FLOW_COLUMNS = 5
# Counters of a run.
SKIPPED_MINIMUM, SKIPPED_BAND, UNTRADABLE_ORDERS, DELISTINGS, DECISIONS, LIQUIDATED_ROW = 0, 1, 2, 3, 4, 5
COUNTERS = 6

#: Keeps a size that is a whole number of lots but for floating-point error from losing a lot.
LOT_TOLERANCE = 1e-12


class Ledger(NamedTuple):
    """What a run leaves behind; every array is time-first."""

    equity: np.ndarray  # (T,) USD after steps 1 to 4
    flows: np.ndarray  # (T, FLOW_COLUMNS) USD of the row
    coin_flows: np.ndarray  # (N, FLOW_COLUMNS) USD of the run
    gross: np.ndarray  # (T,) fraction of equity, after the trade
    net: np.ndarray  # (T,) fraction of equity, after the trade
    turnover: np.ndarray  # (D,) fraction of equity; NaN where the decision was not traded
    untradable_weight: np.ndarray  # (D,) fraction of equity; NaN where the decision was not traded
    trades: np.ndarray  # (M, TRADE_COLUMNS)
    counters: np.ndarray  # (COUNTERS,) int64


@jit
def size_order_nb(w, units, equity, mid, lot_scale, min_notional_usd, band_usd):
    """Order of one tradable coin: signed size and what becomes of it.

    ``lot_scale`` is ``10 ** szDecimals``, or 0 for uncut sizes.
    """
    if w == 0.0:
        return -units, (ORDER if units != 0.0 else NOTHING)
    order = w * equity / mid - units
    if order == 0.0 or equity <= 0.0:
        return 0.0, NOTHING
    size = abs(order)
    if lot_scale > 0.0:
        size = np.floor(size * lot_scale * (1.0 + LOT_TOLERANCE)) / lot_scale
    notional = size * mid
    if size == 0.0 or notional < min_notional_usd:
        return 0.0, BELOW_MINIMUM
    if notional < band_usd:
        return 0.0, INSIDE_BAND
    return (size if order > 0.0 else -size), ORDER


@jit
def plan_nb(
    weights, units, equity, mid, tradable, lot_scale, min_notional_usd, band_frac, renormalise, orders, outcomes
):
    """Orders of one row; fills `orders` and `outcomes` (N,), returns the untradable weight."""
    total = 0.0
    reachable = 0.0
    blocked = 0.0
    for i in range(weights.shape[0]):
        if not np.isnan(weights[i]):
            total += abs(weights[i])
            if tradable[i]:
                reachable += abs(weights[i])
            else:
                blocked += abs(weights[i])
    scale = total / reachable if renormalise and reachable > 0.0 else 1.0
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
            w * scale, units[i], equity, mid[i], lot_scale[i], min_notional_usd, band_frac * equity
        )
    return blocked


@jit
def fill_price_nb(order, mid, bid, ask, half_spread_frac):
    """Price at which `order` fills: the quote, or mid plus or minus the half spread where a side of it is NaN."""
    if np.isnan(bid) or np.isnan(ask):
        return mid * (1.0 + half_spread_frac) if order > 0.0 else mid * (1.0 - half_spread_frac)
    return ask if order > 0.0 else bid


@jit
def execute_nb(order, mid, bid, ask, half_spread_frac, fee_rate, row_flows, coin_flows):
    """Fill one order: book its costs, return fill price, fee and spread cost."""
    fill = fill_price_nb(order, mid, bid, ask, half_spread_frac)
    fee = fee_rate * abs(order) * fill
    spread = order * (fill - mid)
    row_flows[FEE_COST] += fee
    row_flows[SPREAD_COST] += spread
    coin_flows[FEE_COST] += fee
    coin_flows[SPREAD_COST] += spread
    return fill, fee, spread


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
def append_nb(trades, count, t, i, units, price, fee, spread, impact, reason):
    """Write one trade, growing the array when it is full."""
    if count == trades.shape[0]:
        grown = np.empty((2 * count, TRADE_COLUMNS))
        grown[:count] = trades
        trades = grown
    trades[count, ROW] = t
    trades[count, COIN] = i
    trades[count, UNITS] = units
    trades[count, PRICE] = price
    trades[count, FEE] = fee
    trades[count, SPREAD] = spread
    trades[count, IMPACT] = impact
    trades[count, REASON] = reason
    return trades


@jit
def simulate_nb(
    mid,
    bid,
    ask,
    funding,
    funding_price,
    tradable,
    weights,
    trade_rows,
    fee_rate,
    lot_scale,
    maintenance_frac,
    initial_equity_usd,
    min_notional_usd,
    band_frac,
    half_spread_frac,
    stale_hours,
    renormalise,
    margin,
):
    """Run one book through every row: mark, trade, funding, margin, record.

    Parameters
    ----------
    mid, bid, ask, funding, funding_price : (T, N); bid and ask, funding and funding_price may be (0, 0)
    tradable : (T, N) bool
    weights : (D, N), NaN = hold
    trade_rows : (D,) int64, ascending, each the row at which the decision is traded
    fee_rate : (T,) fraction of the fill's notional
    lot_scale : (N,) ``10 ** szDecimals``, 0 = uncut
    maintenance_frac : (N,) maintenance margin as a fraction of notional, 0 = unknown
    """
    T, N = mid.shape
    D = trade_rows.shape[0]
    quoted = bid.shape[0] == T
    funded = funding.shape[0] == T
    cash = initial_equity_usd
    units = np.zeros(N)
    price = np.full(N, np.nan)
    missing = np.zeros(N, dtype=np.int64)
    orders = np.zeros(N)
    outcomes = np.zeros(N, dtype=np.int64)
    equities = np.empty(T)
    flows = np.zeros((T, FLOW_COLUMNS))
    coin_flows = np.zeros((N, FLOW_COLUMNS))
    gross = np.zeros(T)
    net = np.zeros(T)
    turnover = np.full(D, np.nan)
    untradable_weight = np.full(D, np.nan)
    trades = np.empty((max(64, 4 * N), TRADE_COLUMNS))
    count = 0
    counters = np.zeros(COUNTERS, dtype=np.int64)
    counters[LIQUIDATED_ROW] = -1
    d = 0
    for t in range(T):
        # 1. Mark
        equity = cash
        for i in range(N):
            now = mid[t, i]
            if np.isnan(now):
                missing[i] += 1
            else:
                missing[i] = 0
                if units[i] != 0.0:
                    profit = units[i] * (now - price[i])
                    flows[t, PRICE_PNL] += profit
                    coin_flows[i, PRICE_PNL] += profit
                price[i] = now
            if units[i] != 0.0:
                equity += units[i] * price[i]
                if missing[i] >= stale_hours:
                    cash += units[i] * price[i]
                    trades = append_nb(trades, count, t, i, -units[i], price[i], 0.0, 0.0, 0.0, DELISTING)
                    count += 1
                    units[i] = 0.0
                    counters[DELISTINGS] += 1
        # 2. Trade
        if d < D and trade_rows[d] == t:
            if counters[LIQUIDATED_ROW] < 0:
                untradable_weight[d] = plan_nb(
                    weights[d],
                    units,
                    equity,
                    mid[t],
                    tradable[t],
                    lot_scale,
                    min_notional_usd,
                    band_frac,
                    renormalise,
                    orders,
                    outcomes,
                )
                traded_usd = 0.0
                for i in range(N):
                    outcome = outcomes[i]
                    if outcome == ORDER:
                        order = orders[i]
                        fill, fee, spread = execute_nb(
                            order,
                            mid[t, i],
                            bid[t, i] if quoted else np.nan,
                            ask[t, i] if quoted else np.nan,
                            half_spread_frac,
                            fee_rate[t],
                            flows[t],
                            coin_flows[i],
                        )
                        after = units[i] + order
                        if lot_scale[i] > 0.0:
                            after = np.round(after * lot_scale[i]) / lot_scale[i]
                        cash -= order * fill + fee
                        traded_usd += abs(order) * mid[t, i]
                        trades = append_nb(
                            trades, count, t, i, order, fill, fee, spread, 0.0, reason_nb(units[i], after)
                        )
                        count += 1
                        units[i] = after
                    elif outcome == BELOW_MINIMUM:
                        counters[SKIPPED_MINIMUM] += 1
                    elif outcome == INSIDE_BAND:
                        counters[SKIPPED_BAND] += 1
                    elif outcome == UNTRADABLE:
                        counters[UNTRADABLE_ORDERS] += 1
                turnover[d] = traded_usd / equity if equity > 0.0 else 0.0
                counters[DECISIONS] += 1
            d += 1
        # 3. Funding, on the book after the trade
        if funded:
            for i in range(N):
                if units[i] != 0.0 and not np.isnan(funding[t, i]):
                    base = funding_price[t, i]
                    payment = units[i] * (price[i] if np.isnan(base) else base) * funding[t, i]
                    cash -= payment
                    flows[t, FUNDING_COST] += payment
                    coin_flows[i, FUNDING_COST] += payment
        # 4. Margin
        equity = cash
        long_usd = 0.0
        short_usd = 0.0
        maintenance_usd = 0.0
        for i in range(N):
            if units[i] != 0.0:
                value = units[i] * price[i]
                equity += value
                maintenance_usd += abs(value) * maintenance_frac[i]
                if value > 0.0:
                    long_usd += value
                else:
                    short_usd -= value
        if margin and long_usd + short_usd > 0.0 and (equity <= 0.0 or equity < maintenance_usd):
            for i in range(N):
                if units[i] != 0.0:
                    order = -units[i]
                    fill, fee, spread = execute_nb(
                        order,
                        price[i],
                        bid[t, i] if quoted else np.nan,
                        ask[t, i] if quoted else np.nan,
                        half_spread_frac,
                        fee_rate[t],
                        flows[t],
                        coin_flows[i],
                    )
                    cash -= order * fill + fee
                    trades = append_nb(trades, count, t, i, order, fill, fee, spread, 0.0, LIQUIDATION)
                    count += 1
                    units[i] = 0.0
            counters[LIQUIDATED_ROW] = t
            equity = cash
            long_usd = 0.0
            short_usd = 0.0
        # 5. Record
        equities[t] = equity
        if equity != 0.0:
            gross[t] = (long_usd + short_usd) / equity
            net[t] = (long_usd - short_usd) / equity
    return Ledger(equities, flows, coin_flows, gross, net, turnover, untradable_weight, trades[:count], counters)
