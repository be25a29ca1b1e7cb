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


# ------------------------------------------------------------------------------------------------------ many books

# Columns of `batch_nb`'s output; the flows' totals follow from TOTALS on, in the order of the flows.
END, CAGR, VOLATILITY, SHARPE, SORTINO, MAX_DRAWDOWN, TURNOVER, GROSS_MEAN, NET_MEAN = 0, 1, 2, 3, 4, 5, 6, 7, 8
UNTRADABLE_WEIGHT, TRADES, TOTALS = 9, 10, 11
FIGURES = 16


class Market(NamedTuple):
    """A panel cut at the rows ``r[0] < ... < r[D-1]`` where decisions are traded; interval ``d`` is ``r[d]`` to ``r[d+1]``.

    Inside an interval positions are fixed, so all that a unit of a coin does to equity can be summed up beforehand, for
    all books alike. Interval ``d`` of ``value`` and ``carried`` starts at ``N * (r[d] - r[0])`` and is (N, hours), C order:
    the hours of a coin lie side by side, which is what lets the innermost loop be vectorised.
    """

    rows: np.ndarray  # (D + 1,) int64, the last is T
    value: np.ndarray  # (N * hours,) USD a unit is worth at each row; 0 once it is settled
    carried: np.ndarray  # (N * hours,) USD of cash a unit has brought since r[d]: minus funding, plus its settlement
    mid: np.ndarray  # (D, N) at r[d]
    buy: np.ndarray  # (D, N) fill price of a buy at r[d]
    sell: np.ndarray  # (D, N)
    tradable: np.ndarray  # (D, N) bool
    fee_rate: np.ndarray  # (D,)
    exit_value: np.ndarray  # (D, N) USD a unit is worth at r[d + 1], before the trade
    exit_carried: np.ndarray  # (D, N) USD of cash a unit has brought by then
    exit_funding: np.ndarray  # (D, N) USD of funding a unit has paid by then
    settled: np.ndarray  # (D, N) bool, whether a unit is settled by then
    daily_slot: np.ndarray  # (T,) int64, number of the day at whose hour the row is, -1 for other rows
    fills: np.ndarray  # (2, T, N) fill prices of a sell and a buy, for liquidations
    price: np.ndarray  # (T, N) last known mid
    all_fee_rates: np.ndarray  # (T,)


@jit
def compress_nb(dense, indptr, coins, weights):
    """Entries of a (S, D, N) array that are not 0 (NaN is not), as rows ``s * D + d`` of a sparse matrix."""
    S, D, N = dense.shape
    count = 0
    for s in range(S):
        for d in range(D):
            for i in range(N):
                if dense[s, d, i] != 0.0:
                    coins[count] = i
                    weights[count] = dense[s, d, i]
                    count += 1
            indptr[s * D + d + 1] = count


@jit
def summarise_nb(daily, figures):
    """Fill in what follows from the equity at each day's decision hour, (days,); formulas of ``metrics.py``."""
    days = daily.shape[0] - 1
    figures[CAGR] = np.nan
    figures[VOLATILITY] = np.nan
    figures[SHARPE] = np.nan
    figures[SORTINO] = np.nan
    if days < 1:
        return
    growth = 1.0
    total = 0.0
    downside = 0.0
    for k in range(days):
        change = daily[k + 1] / daily[k] - 1.0 if daily[k] > 0.0 else 0.0
        growth *= 1.0 + change
        total += change
        if change < 0.0:
            downside += change * change
    mean = total / days
    figures[CAGR] = growth ** (365.0 / days) - 1.0 if growth > 0.0 else -1.0
    if downside > 0.0:
        figures[SORTINO] = mean / np.sqrt(downside / days) * np.sqrt(365.0)
    if days < 2:
        return
    squares = 0.0
    for k in range(days):
        change = daily[k + 1] / daily[k] - 1.0 if daily[k] > 0.0 else 0.0
        squares += (change - mean) ** 2
    deviation = np.sqrt(squares / (days - 1))
    figures[VOLATILITY] = deviation * np.sqrt(365.0)
    if deviation > 0.0:
        figures[SHARPE] = mean / deviation * np.sqrt(365.0)


@jit
def batch_nb(
    market,
    indptr,
    coins,
    weights,
    lot_scale,
    maintenance_frac,
    initial_equity_usd,
    min_notional_usd,
    band_frac,
    renormalise,
    margin,
    figures,
    counters,
    daily,
):
    """Run S books over one market, every book of a day before the next day, so that the day's prices stay in the cache.

    The rules are `simulate_nb`'s; only what a metric needs is kept.

    Parameters
    ----------
    market : Market
    indptr, coins, weights : (S * D + 1,), (K,), (K,)
        Weights of book ``s`` at decision ``d`` are the entries ``indptr[s * D + d]`` up to the next; a coin without one is 0.
    figures : (S, FIGURES) float64, counters : (S, COUNTERS) int64, daily : (S, days) float64
        Filled in.
    """
    S = figures.shape[0]
    D, N = market.mid.shape
    first = market.rows[0]
    longest = 0
    for d in range(D):
        longest = max(longest, market.rows[d + 1] - market.rows[d])
    worst_maintenance = maintenance_frac.max()
    units = np.zeros((S, N))
    held = np.zeros((S, N), dtype=np.int64)
    held_count = np.zeros(S, dtype=np.int64)
    cash = np.full(S, initial_equity_usd)
    peak = np.full(S, initial_equity_usd)
    deepest = np.zeros(S)
    seen = np.zeros(N, dtype=np.int64)
    stamp = 0
    keep = np.zeros(N, dtype=np.int64)
    longs = np.zeros(longest)
    shorts = np.zeros(longest)
    carried = np.zeros(longest)
    equities = np.zeros(longest)
    figures[:] = 0.0
    counters[:] = 0
    counters[:, LIQUIDATED_ROW] = -1
    daily[:] = initial_equity_usd
    for d in range(D):
        start = market.rows[d]
        hours = market.rows[d + 1] - start
        block = N * (start - first)
        mid = market.mid[d]
        for s in range(S):
            if counters[s, LIQUIDATED_ROW] >= 0:
                for h in range(hours):
                    slot = market.daily_slot[start + h]
                    if slot >= 0:
                        daily[s, slot] = cash[s]
                continue
            # 1. Mark: close the interval before
            count = held_count[s]
            value = 0.0
            if d > 0:
                left = 0
                for k in range(count):
                    i = held[s, k]
                    u = units[s, i]
                    cash[s] += u * market.exit_carried[d - 1, i]
                    value += u * market.exit_value[d - 1, i]
                    figures[s, TOTALS + FUNDING_COST] += u * market.exit_funding[d - 1, i]
                    if market.settled[d - 1, i]:
                        units[s, i] = 0.0
                        counters[s, DELISTINGS] += 1
                        figures[s, TRADES] += 1
                    else:
                        held[s, left] = i
                        left += 1
                count = left
            equity = cash[s] + value
            # 2. Trade
            stamp += 1
            begin = indptr[s * D + d]
            end = indptr[s * D + d + 1]
            scale = 1.0
            if renormalise:
                total = 0.0
                reachable = 0.0
                for k in range(begin, end):
                    if not np.isnan(weights[k]):
                        total += abs(weights[k])
                        if market.tradable[d, coins[k]]:
                            reachable += abs(weights[k])
                if reachable > 0.0:
                    scale = total / reachable
            for k in range(begin, end):
                seen[coins[k]] = stamp
            left = 0
            traded_usd = 0.0
            # Held coins without an entry are closed, then the entries are traded; `keep` becomes the new list.
            for k in range(count + end - begin):
                if k < count:
                    i = held[s, k]
                    if seen[i] == stamp:
                        continue
                    w = 0.0
                else:
                    i = coins[begin + k - count]
                    w = weights[begin + k - count]
                before = units[s, i]
                if not np.isnan(w):
                    if not market.tradable[d, i]:
                        figures[s, UNTRADABLE_WEIGHT] += abs(w)
                        if w != 0.0 or before != 0.0:
                            counters[s, UNTRADABLE_ORDERS] += 1
                    else:
                        order, outcome = size_order_nb(
                            w * scale, before, equity, mid[i], lot_scale[i], min_notional_usd, band_frac * equity
                        )
                        if outcome == ORDER:
                            fill = market.buy[d, i] if order > 0.0 else market.sell[d, i]
                            fee = market.fee_rate[d] * abs(order) * fill
                            after = before + order
                            if lot_scale[i] > 0.0:
                                after = np.round(after * lot_scale[i]) / lot_scale[i]
                            units[s, i] = after
                            cash[s] -= order * fill + fee
                            traded_usd += abs(order) * mid[i]
                            figures[s, TOTALS + FEE_COST] += fee
                            figures[s, TOTALS + SPREAD_COST] += order * (fill - mid[i])
                            figures[s, TRADES] += 1
                        elif outcome == BELOW_MINIMUM:
                            counters[s, SKIPPED_MINIMUM] += 1
                        elif outcome == INSIDE_BAND:
                            counters[s, SKIPPED_BAND] += 1
                if units[s, i] != 0.0:
                    keep[left] = i
                    left += 1
            for k in range(left):
                held[s, k] = keep[k]
            held_count[s] = left
            counters[s, DECISIONS] += 1
            if equity > 0.0:
                figures[s, TURNOVER] += traded_usd / equity
            # 3. Funding and the prices of the interval
            for h in range(hours):
                longs[h] = 0.0
                shorts[h] = 0.0
                carried[h] = cash[s]
            for k in range(left):
                i = keep[k]
                u = units[s, i]
                place = block + i * hours
                if u > 0.0:
                    for h in range(hours):
                        longs[h] += u * market.value[place + h]
                        carried[h] += u * market.carried[place + h]
                else:
                    for h in range(hours):
                        shorts[h] -= u * market.value[place + h]
                        carried[h] += u * market.carried[place + h]
            for h in range(hours):
                equities[h] = carried[h] + (longs[h] - shorts[h])
            # 4. Margin, 5. Record
            for h in range(hours):
                equity = equities[h]
                gross = longs[h] + shorts[h]
                if margin and gross > 0.0 and (equity <= 0.0 or equity < worst_maintenance * gross):
                    maintenance = 0.0
                    for k in range(left):
                        i = keep[k]
                        maintenance += abs(units[s, i]) * market.value[block + i * hours + h] * maintenance_frac[i]
                    if equity <= 0.0 or equity < maintenance:
                        cash[s] = carried[h]
                        for k in range(left):
                            i = keep[k]
                            u = units[s, i]
                            figures[s, TRADES] += 1
                            if market.value[block + i * hours + h] == 0.0:  # settled in this interval
                                counters[s, DELISTINGS] += 1
                                figures[s, TOTALS + FUNDING_COST] += u * market.exit_funding[d, i]
                                continue
                            fill = market.fills[1 if u < 0.0 else 0, start + h, i]
                            fee = market.all_fee_rates[start + h] * abs(u) * fill
                            cash[s] += u * fill - fee
                            figures[s, TOTALS + FEE_COST] += fee
                            figures[s, TOTALS + SPREAD_COST] += u * (market.price[start + h, i] - fill)
                            figures[s, TOTALS + FUNDING_COST] -= u * market.carried[block + i * hours + h]
                        held_count[s] = 0
                        counters[s, LIQUIDATED_ROW] = start + h
                        for later in range(h, hours):
                            longs[later] = 0.0
                            shorts[later] = 0.0
                            equities[later] = cash[s]
                        equity = cash[s]
                        gross = 0.0
                        left = 0
                if equity != 0.0:
                    figures[s, GROSS_MEAN] += gross / equity
                    figures[s, NET_MEAN] += (longs[h] - shorts[h]) / equity
                if equity > peak[s]:
                    peak[s] = equity
                elif equity < peak[s] * (1.0 + deepest[s]):
                    deepest[s] = equity / peak[s] - 1.0
                slot = market.daily_slot[start + h]
                if slot >= 0:
                    daily[s, slot] = equity
            figures[s, END] = equities[hours - 1]
    rows = market.rows[D] - first
    for s in range(S):
        for k in range(held_count[s]):
            i = held[s, k]
            figures[s, TOTALS + FUNDING_COST] += units[s, i] * market.exit_funding[D - 1, i]
            if market.settled[D - 1, i]:
                counters[s, DELISTINGS] += 1
                figures[s, TRADES] += 1
        if counters[s, LIQUIDATED_ROW] >= 0:
            figures[s, END] = cash[s]
        figures[s, MAX_DRAWDOWN] = deepest[s]
        figures[s, TURNOVER] /= counters[s, DECISIONS]
        figures[s, UNTRADABLE_WEIGHT] /= counters[s, DECISIONS]
        figures[s, GROSS_MEAN] /= rows
        figures[s, NET_MEAN] /= rows
        figures[s, TOTALS + PRICE_PNL] = figures[s, END] - initial_equity_usd
        for column in (SPREAD_COST, IMPACT_COST, FEE_COST, FUNDING_COST):
            figures[s, TOTALS + PRICE_PNL] += figures[s, TOTALS + column]
        summarise_nb(daily[s], figures[s])
