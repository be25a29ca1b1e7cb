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
    buy: np.ndarray  # (D, N) fill price of a buy at r[d]
    sell: np.ndarray  # (D, N)
    tradable: np.ndarray  # (D, N) bool
    fee_rate: np.ndarray  # (D,)
    exit_value: np.ndarray  # (D, N) USD a unit is worth at r[d + 1], before the trade
    exit_carried: np.ndarray  # (D, N) USD of cash a unit has brought by then
    exit_funding: np.ndarray  # (D, N) USD of funding a unit has paid by then
    settled: np.ndarray  # (D, N) bool, whether a unit is settled by then
    daily_slot: np.ndarray  # (T,) int64, number of the day at whose hour the row is, -1 for other rows
    all_sell: np.ndarray  # (T, N) fill prices at any row, for liquidations
    all_buy: np.ndarray  # (T, N)
    price: np.ndarray  # (T, N) last known mid
    all_fee_rates: np.ndarray  # (T,)


@jit
def known_prices_nb(mid, bid, ask, half_spread_frac, stale_hours):
    """Last known mid and the fill prices around it, (T, N) each, and the rows at which a held coin would be settled."""
    T, N = mid.shape
    quoted = bid.shape[0] == T
    price = np.empty((T, N))
    sell = np.empty((T, N))
    buy = np.empty((T, N))
    settles = np.zeros((T, N), dtype=np.bool_)
    missing = np.zeros(N, dtype=np.int64)
    for t in range(T):
        for i in range(N):
            now = mid[t, i]
            if np.isnan(now):
                now = price[t - 1, i] if t > 0 else np.nan
                missing[i] += 1
                settles[t, i] = missing[i] == stale_hours
            else:
                missing[i] = 0
            price[t, i] = now
            quote = bid[t, i] if quoted else np.nan
            other = ask[t, i] if quoted else np.nan
            sell[t, i] = fill_price_nb(-1.0, now, quote, other, half_spread_frac)
            buy[t, i] = fill_price_nb(1.0, now, quote, other, half_spread_frac)
    return price, sell, buy, settles


@jit
def cut_nb(price, settles, funding, funding_price, bounds):
    """The arrays of :class:`Market` from `value` to `settled`, but for the prices at the trades."""
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
                    carried[place + t - start] = proceeds - paid
                    carries |= proceeds != paid
                exit_value[d, i] = 0.0 if settled[d, i] else now
                exit_carried[d, i] = proceeds - paid
                exit_funding[d, i] = paid
    return value, carried, carries, exit_value, exit_carried, exit_funding, settled


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
def gather_sparse_nb(book_indptr, book_coins, book_weights, limit, S, indptr, coins, weights):
    """The same from books in sparse form, entries ``s * all + d``; also whether the coins of a row do not ascend."""
    D = (indptr.shape[0] - 1) // S
    every = (book_indptr.shape[0] - 1) // S
    count = 0
    disordered = False
    above = (-1, -1)
    for d in range(D):
        for s in range(S):
            gross = 0.0
            for k in range(book_indptr[s * every + d], book_indptr[s * every + d + 1]):
                if k > book_indptr[s * every + d] and book_coins[k] <= book_coins[k - 1]:
                    disordered = True
                coins[count] = book_coins[k]
                weights[count] = book_weights[k]
                count += 1
                if not np.isnan(book_weights[k]):
                    gross += abs(book_weights[k])
            indptr[d * S + s + 1] = count
            if gross > limit and above[0] < 0:
                above = (s, d)
    return above, disordered


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
def renormalised_nb(coins, weights, tradable):
    """Factor that gives the tradable coins of a row the gross of the whole row."""
    total = 0.0
    reachable = 0.0
    for k in range(coins.shape[0]):
        if not np.isnan(weights[k]):
            total += abs(weights[k])
            if tradable[coins[k]]:
                reachable += abs(weights[k])
    return total / reachable if reachable > 0.0 else 1.0


@jit
def leave_nb(held, units, exit_value, exit_carried, exit_funding, settled):
    """Step 1 for one book: what its units did until the next trade; settled ones are gone.

    Returns cash brought, value, funding paid and the number of settled positions.
    """
    cash = 0.0
    value = 0.0
    funding = 0.0
    gone = 0
    for k in range(held.shape[0]):
        i = held[k]
        u = units[i]
        cash += u * exit_carried[i]
        value += u * exit_value[i]
        funding += u * exit_funding[i]
        if settled[i]:
            units[i] = 0.0
            gone += 1
    return cash, value, funding, gone


@jit
def trade_nb(
    held,
    coins,
    weights,
    scale,
    equity,
    units,
    mid,
    buy,
    sell,
    tradable,
    fee_rate,
    lot_scale,
    min_notional_usd,
    band_usd,
    seen,
    stamp,
    kept,
    counters,
):
    """Step 2 for one book: close what has no entry, then trade the entries.

    ``kept`` (2, N) is filled with the coins held afterwards, longs in its first row, shorts in its second. Returns
    their
    numbers, the cash spent, fee, spread cost, USD traded, number of trades and untradable weight.
    """
    longs = 0
    shorts = 0
    spent = 0.0
    fees = 0.0
    spreads = 0.0
    traded_usd = 0.0
    trades = 0
    blocked = 0.0
    for k in range(coins.shape[0]):
        seen[coins[k]] = stamp
    first = -held.shape[0]
    for k in range(first, coins.shape[0]):
        if k < 0:
            i = held[k - first]
            if seen[i] == stamp:
                continue
            w = 0.0
        else:
            i = coins[k]
            w = weights[k]
        u = units[i]
        if not np.isnan(w):
            if tradable[i]:
                price = mid[i]
                ask = buy[i]
                bid = sell[i]
                order, outcome = size_order_nb(w * scale, u, equity, price, lot_scale[i], min_notional_usd, band_usd)
                if outcome == ORDER:
                    fill = ask if order > 0.0 else bid
                    notional = abs(order) * fill
                    u += order
                    if lot_scale[i] > 0.0:
                        u = np.round(u * lot_scale[i]) / lot_scale[i]
                    units[i] = u
                    fees += fee_rate * notional
                    spent += order * fill
                    spreads += order * (fill - price)
                    traded_usd += abs(order) * price
                    trades += 1
                elif outcome == BELOW_MINIMUM:
                    counters[SKIPPED_MINIMUM] += 1
                elif outcome == INSIDE_BAND:
                    counters[SKIPPED_BAND] += 1
            else:
                blocked += abs(w)
                if w != 0.0 or u != 0.0:
                    counters[UNTRADABLE_ORDERS] += 1
        # Both lists are written and one grows: a branch on the sign of a position is one that no processor can predict.
        kept[0, longs] = i
        longs += u > 0.0
        kept[1, shorts] = i
        shorts += u < 0.0
    return longs, shorts, spent + fees, fees, spreads, traded_usd, trades, blocked


@jit
def add_paths_nb(listed, units, sign, block, hours, total):
    """Add ``sign * units * block[coin]`` of the listed coins to `total`, (hours,).

    Four coins a pass: the sum is then loaded and stored once for four of them.
    """
    count = listed.shape[0]
    whole = count - count % 4
    for k in range(0, whole, 4):
        a = sign * units[listed[k]]
        b = sign * units[listed[k + 1]]
        c = sign * units[listed[k + 2]]
        e = sign * units[listed[k + 3]]
        of_a = block[listed[k] * hours : listed[k] * hours + hours]
        of_b = block[listed[k + 1] * hours : listed[k + 1] * hours + hours]
        of_c = block[listed[k + 2] * hours : listed[k + 2] * hours + hours]
        of_e = block[listed[k + 3] * hours : listed[k + 3] * hours + hours]
        for h in range(hours):
            total[h] += (a * of_a[h] + b * of_b[h]) + (c * of_c[h] + e * of_e[h])
    for k in range(whole, count):
        a = sign * units[listed[k]]
        of_a = block[listed[k] * hours : listed[k] * hours + hours]
        for h in range(hours):
            total[h] += a * of_a[h]


@jit
def liquidate_nb(market, d, h, held, units, cash, carried, block, figures, counters):
    """Step 4 where the margin is gone: close all positions at hour `h` of interval `d`; returns the cash left."""
    row = market.rows[d] + h
    hours = market.rows[d + 1] - market.rows[d]
    cash = carried[h]
    for k in range(held.shape[0]):
        i = held[k]
        u = units[i]
        figures[TRADES] += 1
        if market.value[block + i * hours + h] == 0.0:  # settled earlier in this interval
            counters[DELISTINGS] += 1
            figures[TOTALS + FUNDING_COST] += u * market.exit_funding[d, i]
            continue
        fill = market.all_buy[row, i] if u < 0.0 else market.all_sell[row, i]
        fee = market.all_fee_rates[row] * abs(u) * fill
        cash += u * fill - fee
        figures[TOTALS + FEE_COST] += fee
        figures[TOTALS + SPREAD_COST] += u * (market.price[row, i] - fill)
        figures[TOTALS + FUNDING_COST] -= u * market.carried[block + i * hours + h]
    counters[LIQUIDATED_ROW] = row
    return cash


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
    indptr, coins, weights : (D * S + 1,) int64, (K,) uint32, (K,) float64
        Weights of book ``s`` at decision ``d`` are the entries from ``indptr[d * S + s]`` up to the next; a coin
        without
        one is 0. Decisions come first, so that the entries are read in one stream.
    figures : (S, FIGURES) float64, counters : (S, COUNTERS) int64, daily : (S, days) float64
        Filled in.
    """
    S = figures.shape[0]
    D, N = market.mid.shape
    longest = 0
    for d in range(D):
        longest = max(longest, market.rows[d + 1] - market.rows[d])
    worst_maintenance = maintenance_frac.max()
    units = np.zeros((S, N))
    held = np.zeros((S, N), dtype=np.uint32)  # unsigned: numba then does not look for negative indices
    held_count = np.zeros(S, dtype=np.int64)
    cash = np.full(S, initial_equity_usd)
    peak = np.full(S, initial_equity_usd)
    deepest = np.zeros(S)
    seen = np.zeros(N, dtype=np.int64)
    stamp = 0
    kept = np.zeros((2, N + 1), dtype=np.uint32)
    long_usd = np.zeros(longest)
    short_usd = np.zeros(longest)
    carried = np.zeros(longest)
    equities = np.zeros(longest)
    gross = np.zeros(longest)
    net = np.zeros(longest)
    figures[:] = 0.0
    counters[:] = 0
    counters[:, LIQUIDATED_ROW] = -1
    daily[:] = initial_equity_usd
    for d in range(D):
        start = market.rows[d]
        hours = market.rows[d + 1] - start
        block = N * (start - market.rows[0])
        values = market.value[block : block + N * hours]
        carries = market.carried[block : block + N * hours]
        slots = market.daily_slot[start : start + hours]
        for s in range(S):
            if counters[s, LIQUIDATED_ROW] >= 0:
                for h in range(hours):
                    if slots[h] >= 0:
                        daily[s, slots[h]] = cash[s]
                continue
            own = units[s]
            value = 0.0
            if d > 0:
                brought, value, paid, gone = leave_nb(
                    held[s, : held_count[s]],
                    own,
                    market.exit_value[d - 1],
                    market.exit_carried[d - 1],
                    market.exit_funding[d - 1],
                    market.settled[d - 1],
                )
                cash[s] += brought
                figures[s, TOTALS + FUNDING_COST] += paid
                figures[s, TRADES] += gone
                counters[s, DELISTINGS] += gone
            equity = cash[s] + value
            entries = slice(indptr[d * S + s], indptr[d * S + s + 1])
            scale = renormalised_nb(coins[entries], weights[entries], market.tradable[d]) if renormalise else 1.0
            stamp += 1
            longs, shorts, spent, fee, spread, traded_usd, trades, blocked = trade_nb(
                held[s, : held_count[s]],
                coins[entries],
                weights[entries],
                scale,
                equity,
                own,
                market.mid[d],
                market.buy[d],
                market.sell[d],
                market.tradable[d],
                market.fee_rate[d],
                lot_scale,
                min_notional_usd,
                band_frac * equity,
                seen,
                stamp,
                kept,
                counters[s],
            )
            count = longs + shorts
            held[s, :longs] = kept[0, :longs]
            held[s, longs:count] = kept[1, :shorts]
            held_count[s] = count
            cash[s] -= spent
            figures[s, TOTALS + FEE_COST] += fee
            figures[s, TOTALS + SPREAD_COST] += spread
            figures[s, TRADES] += trades
            figures[s, UNTRADABLE_WEIGHT] += blocked
            counters[s, DECISIONS] += 1
            if equity > 0.0:
                figures[s, TURNOVER] += traded_usd / equity
            # 3. Funding and the prices of the interval
            for h in range(hours):
                long_usd[h] = 0.0
                short_usd[h] = 0.0
                carried[h] = cash[s]
            add_paths_nb(kept[0, :longs], own, 1.0, values, hours, long_usd)
            add_paths_nb(kept[1, :shorts], own, -1.0, values, hours, short_usd)
            if market.carries:
                add_paths_nb(held[s, :count], own, 1.0, carries, hours, carried)
            # 4. Margin
            endangered = False
            for h in range(hours):
                gross[h] = long_usd[h] + short_usd[h]
                net[h] = long_usd[h] - short_usd[h]
                equities[h] = carried[h] + net[h]
                endangered |= equities[h] <= worst_maintenance * gross[h]
            if margin and endangered:
                for h in range(hours):
                    maintenance = 0.0
                    for k in range(count):
                        i = held[s, k]
                        maintenance += abs(own[i]) * values[i * hours + h] * maintenance_frac[i]
                    if gross[h] > 0.0 and (equities[h] <= 0.0 or equities[h] < maintenance):
                        cash[s] = liquidate_nb(
                            market, d, h, held[s, :count], own, cash[s], carried, block, figures[s], counters[s]
                        )
                        held_count[s] = 0
                        gross[h:] = 0.0
                        net[h:] = 0.0
                        equities[h:] = cash[s]
                        break
            # 5. Record
            for h in range(hours):
                if equities[h] != 0.0:
                    gross[h] /= equities[h]
                    net[h] /= equities[h]
            gross_sum = 0.0
            net_sum = 0.0
            top = peak[s]
            low = deepest[s]
            for h in range(hours):
                equity = equities[h]
                gross_sum += gross[h]
                net_sum += net[h]
                top = max(top, equity)
                if equity < top * (1.0 + low):
                    low = equity / top - 1.0
                if slots[h] >= 0:
                    daily[s, slots[h]] = equity
            peak[s] = top
            deepest[s] = low
            figures[s, GROSS_MEAN] += gross_sum
            figures[s, NET_MEAN] += net_sum
            figures[s, END] = equities[hours - 1]
    for s in range(S):
        brought, value, paid, gone = leave_nb(
            held[s, : held_count[s]],
            units[s],
            market.exit_value[D - 1],
            market.exit_carried[D - 1],
            market.exit_funding[D - 1],
            market.settled[D - 1],
        )
        figures[s, TOTALS + FUNDING_COST] += paid
        figures[s, TRADES] += gone
        counters[s, DELISTINGS] += gone
        if counters[s, LIQUIDATED_ROW] >= 0:
            figures[s, END] = cash[s]
        figures[s, MAX_DRAWDOWN] = deepest[s]
        figures[s, TURNOVER] /= counters[s, DECISIONS]
        figures[s, UNTRADABLE_WEIGHT] /= counters[s, DECISIONS]
        figures[s, GROSS_MEAN] /= market.rows[D] - market.rows[0]
        figures[s, NET_MEAN] /= market.rows[D] - market.rows[0]
        figures[s, TOTALS + PRICE_PNL] = figures[s, END] - initial_equity_usd
        for column in (SPREAD_COST, IMPACT_COST, FEE_COST, FUNDING_COST):
            figures[s, TOTALS + PRICE_PNL] += figures[s, TOTALS + column]
        summarise_nb(daily[s], figures[s])
