"""All compiled code: arrays in, arrays out. It imports numpy and numba only and trusts its arguments.

The steps and every rule they follow are in docs/concepts/rules.md; ``backtest.py`` validates.

Short names: ``T`` hours, ``N`` coins, ``D`` decisions; ``t`` row, ``i`` coin, ``d`` decision; ``w`` weight.
Absent data (no quotes, no funding) are arrays of shape (0, 0).
"""

from __future__ import annotations

from pickle import UnpicklingError
from typing import NamedTuple

import numba
import numpy as np
from numba import config, njit, types
from numba.core import cgutils
from numba.core.caching import FunctionCache
from numba.core.runtime import rtsys
from numba.extending import intrinsic


class _KeptCode(FunctionCache):  # type: ignore[misc]  # numba has no types
    """Machine code that was kept, read without numba's compiler, which numba loads before it looks for any (0.35 s).

    What is compiled loads it still. It takes private names of the releases that we have seen; others do as they do.
    """

    def load_overload(self, sig, target_context):
        rtsys.initialize(target_context)  # what the code calls
        with self._guard_against_spurious_io_errors():
            try:
                return self._load_overload(sig, target_context)
            except (EOFError, UnpicklingError):  # cut off, as by a loss of power: compiled again, and written over
                self.flush()
                return None


def _kept(compiler):
    """A decorator that compiles as `compiler`, one of numba's, does."""

    def decorate(function):
        compiled = compiler(function)
        if not config.DISABLE_JIT and numba.__version__.startswith("0.68."):
            compiled._cache = _KeptCode(function)
        return compiled

    return decorate


# No other language calls them, and `inner` ones not even Python: what takes its arguments apart is not compiled, and a
# call from Python would end the process.
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
jit = _kept(njit(**_OPTIONS))
inner = _kept(njit(**_OPTIONS, no_cpython_wrapper=True))
# What the loop of `batch_nb` calls: a call with arrays counts references to them, and threads wait for one another.
inlined = _kept(njit(**_OPTIONS, forceinline=True))


@intrinsic
def _prefetch_nb(typing_context, array, index):
    def code(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), cgutils.voidptr_t)
        word = cgutils.int32_t
        of = cgutils.ir.FunctionType(cgutils.ir.VoidType(), [place.type, word, word, word])
        prefetch = cgutils.get_or_insert_function(builder.module, of, "llvm.prefetch.p0")
        builder.call(prefetch, [place, word(0), word(3), word(1)])  # to read, into the nearest cache, of data
        return context.get_dummy_value()

    return types.void(array, index), code


def _no_prefetch_nb(array, index):
    """What is called where nothing is compiled."""


#: Ask for an entry of an array that is looked at soon.
prefetch_nb = _no_prefetch_nb if config.DISABLE_JIT else _prefetch_nb

#: Numbers that are taken at once: hours of a path, which has room for a multiple of it, and orders.
LANES = 8


def _pointer(context, builder, kind, array, index):
    """Where an entry of an array lies; of one with more dimensions, by its place in all of it."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [index])


def _lanes(context, builder, kind, array, index):
    """Where LANES numbers of an array lie."""
    lanes = cgutils.ir.VectorType(cgutils.ir.DoubleType(), LANES)
    return builder.bitcast(_pointer(context, builder, kind, array, index), lanes.as_pointer())


def _shuffle(builder, one, other, places):
    """Numbers of two vectors, by their places in both."""
    return builder.shuffle_vector(one, other, cgutils.ir.VectorType(cgutils.int32_t, len(places))(places))


def _spread(builder, number):
    """LANES times a number."""
    lanes = cgutils.ir.VectorType(cgutils.ir.DoubleType(), LANES)
    return _shuffle(builder, builder.insert_element(lanes(None), number, cgutils.int32_t(0)), lanes(None), [0] * LANES)


@intrinsic
def _sum_paths_nb(typing_context, start, row, count, held, units, paths, at, width, total):
    def code(context, builder, signature, arguments):
        start, row, count, held, units, paths, at, width, total = arguments
        of_held, of_units, of_paths, of_total = (signature.args[k] for k in (3, 4, 5, 8))

        def add(first, steps):
            sums = [cgutils.alloca_once_value(builder, _spread(builder, start)) for _ in range(steps)]
            with cgutils.for_range(builder, count) as loop:
                coin = builder.load(_pointer(context, builder, of_held, held, builder.add(row, loop.index)))
                coin = builder.zext(coin, cgutils.intp_t)
                unit = builder.load(_pointer(context, builder, of_units, units, builder.add(row, coin)))
                place = builder.add(builder.add(at, first), builder.mul(coin, width))
                for step, value in enumerate(sums):
                    hours = builder.add(place, cgutils.intp_t(step * LANES))
                    path = builder.load(_lanes(context, builder, of_paths, paths, hours), align=8)
                    builder.store(builder.fadd(builder.load(value), builder.fmul(_spread(builder, unit), path)), value)
            for step, value in enumerate(sums):
                hours = builder.add(first, cgutils.intp_t(step * LANES))
                builder.store(builder.load(value), _lanes(context, builder, of_total, total, hours), align=8)

        day = cgutils.intp_t(3 * LANES)
        days = builder.sub(width, builder.urem(width, day))
        with cgutils.for_range_slice(builder, cgutils.intp_t(0), days, day) as (first, _):
            add(first, 3)
        with cgutils.for_range_slice(builder, days, width, cgutils.intp_t(LANES)) as (first, _):
            add(first, 1)
        return context.get_dummy_value()

    return types.void(start, row, count, held, units, paths, at, width, total), code


def _sum_paths(start, row, count, held, units, paths, at, width, total):
    total[:width].fill(start)
    for i in held.ravel()[row : row + np.uint64(count)]:
        total[:width] += units.ravel()[row + i] * paths[at + i * width : at + (i + np.uint64(1)) * width]


#: Fill in `start` and the paths of the `count` coins of a book, times their units, for `width` hours. The book's row in
#: `held` and `units` begins at `row`, the paths at `at`. A day's sums stay in registers while the coins are added.
sum_paths_nb = _sum_paths if config.DISABLE_JIT else _sum_paths_nb


@intrinsic
def _load_orders_nb(typing_context, terms, base, units, row, listed, asked, begin, table, first):
    def code(context, builder, signature, arguments):
        terms, base, units, row, listed, asked, begin, table, first = arguments
        of_terms, of_units, of_listed, of_asked, of_table = (signature.args[k] for k in (0, 2, 4, 5, 7))
        columns, before = [], _spread(builder, cgutils.ir.DoubleType()(0.0))
        for k in range(LANES):
            coin = builder.load(_pointer(context, builder, of_listed, listed, builder.add(begin, cgutils.intp_t(k))))
            coin = builder.zext(coin, cgutils.intp_t)
            unit = builder.load(_pointer(context, builder, of_units, units, builder.add(row, coin)))
            before = builder.insert_element(before, unit, cgutils.int32_t(k))
            place = builder.add(base, builder.mul(coin, cgutils.intp_t(TERMS)))
            columns.append(builder.load(_lanes(context, builder, of_terms, terms, place), align=8))
        for half in (4, 2, 1):  # coins and terms change places: the halves, the quarters, the eighths
            low = [k + (0 if k & half == 0 else LANES - half) for k in range(LANES)]
            high = [place + half for place in low]
            for k in range(LANES):
                if k & half == 0:
                    pair = columns[k], columns[k + half]
                    columns[k], columns[k + half] = _shuffle(builder, *pair, low), _shuffle(builder, *pair, high)
        columns += builder.load(_lanes(context, builder, of_asked, asked, begin), align=8), before
        for number, column in enumerate(columns):
            place = builder.add(first, cgutils.intp_t(number * WIDE))
            builder.store(column, _lanes(context, builder, of_table, table, place), align=8)
        return context.get_dummy_value()

    return types.void(terms, base, units, row, listed, asked, begin, table, first), code


def _load_orders(terms, base, units, row, listed, asked, begin, table, first):
    for k in range(LANES):
        coin = np.uint64(listed[begin + np.uint64(k)])
        place = base + coin * np.uint64(TERMS)
        given = *terms[place : place + np.uint64(TERMS)], asked[begin + np.uint64(k)], units.ravel()[row + coin]
        for number, value in enumerate(given):
            table[first + np.uint64(number * WIDE + k)] = value


#: Write LANES orders, from `begin` on in `listed` and `asked`, to a `table` of columns, WIDE apart: the terms of their
#: coins, which begin at `base`, the weights asked, and what is held, in the row of `units` that begins at `row`. Column
#: by column: a processor that finds parts of LANES numbers still on their way to memory waits for them.
load_orders_nb = _load_orders if config.DISABLE_JIT else _load_orders_nb


@intrinsic
def _sum_nb(typing_context, table, first, count):
    def code(context, builder, signature, arguments):
        table, first, count = arguments
        total = cgutils.alloca_once_value(builder, _spread(builder, cgutils.ir.DoubleType()(0.0)))
        with cgutils.for_range_slice(builder, cgutils.intp_t(0), count, cgutils.intp_t(LANES)) as (k, _):
            row = _lanes(context, builder, signature.args[0], table, builder.add(first, k))
            builder.store(builder.fadd(builder.load(total), builder.load(row, align=8)), total)
        value, half = builder.load(total), LANES // 2
        while half:
            parts = (_shuffle(builder, value, value, [k + at for k in range(half)]) for at in (0, half))
            value, half = builder.fadd(*parts), half // 2
        return builder.extract_element(value, cgutils.int32_t(0))

    return types.float64(table, first, count), code


def _sum(table, first, count):
    value, half = table[first : first + count].reshape(-1, LANES).sum(axis=0), LANES // 2
    while half:
        value, half = value[:half] + value[half:], half // 2
    return value[0]


#: Sum of `count` numbers, a multiple of LANES, from `first` on, in the same order on every processor.
sum_nb = _sum if config.DISABLE_JIT else _sum_nb


@intrinsic
def _nonzero_nb(typing_context, values, at):
    def code(context, builder, signature, arguments):
        found = builder.load(_lanes(context, builder, signature.args[0], *arguments), align=8)
        bits = builder.bitcast(builder.fcmp_unordered("!=", found, found.type(None)), cgutils.ir.IntType(LANES))
        return builder.zext(bits, cgutils.ir.IntType(64))

    return types.uint64(values, at), code


def _nonzero(values, at):
    return np.uint64(sum(1 << k for k in range(LANES) if values.ravel()[at + np.uint64(k)] != 0.0))


#: A bit for each of LANES numbers from a place on in an array, 1 where it is not 0 (NaN is not).
nonzero_nb = _nonzero if config.DISABLE_JIT else _nonzero_nb


@intrinsic
def _lowest_nb(typing_context, bits):
    def code(context, builder, signature, arguments):
        return builder.cttz(arguments[0], cgutils.true_bit)

    return types.uint64(bits), code


def _lowest(bits):
    return np.uint64((int(bits) & -int(bits)).bit_length() - 1)


#: The number of the lowest bit of a number that is not 0.
lowest_nb = _lowest if config.DISABLE_JIT else _lowest_nb

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

#: Keeps a size that is a whole number of lots but for floating-point error from losing a lot, an order of exactly the
#: minimum or the band from being skipped, and the rounding of equity from being an order.
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


@inner
def lots_per_unit_nb(lot_scale):
    """Lots of a unit of a coin; where its sizes are not cut, a unit is the lot."""
    return lot_scale if lot_scale > 0.0 else 1.0


@inner
def whole_lots_nb(size, lot_scale):
    """Whole lots of a size, as :func:`round_lot_nb` has them; the tolerance is said at LOT_TOLERANCE."""
    return np.floor(size * lot_scale * (1.0 + LOT_TOLERANCE)) / lot_scale if lot_scale > 0.0 else size


@inner
def size_order_nb(target, units, equity, mid, lot_scale, min_notional_usd, band_usd, parts):
    """Order that takes a tradable coin from `units` to `target`, which is in lots: its size, and whether it is skipped.

    Returns the size in units, 0 for no order, whether it is a buy, and whether it is below the minimum or inside the
    band. A target of 0 closes; another one needs a positive equity. Where sizes are not cut, ``lot_scale`` is 0 and a
    unit is the lot. ``parts`` is ``to_edge`` and ``trade_rate`` of :class:`SimParams`, or None where each order is of
    the whole way: what they need is then not compiled. Selects instead of branches: half of the small orders are below
    the minimum, which no processor can predict, and the loop over the coins is vectorised.
    """
    per_unit = lots_per_unit_nb(lot_scale)
    order = target - units * per_unit
    size = abs(order)
    closes = target == 0.0
    tried = (size > LOT_TOLERANCE * abs(target)) & (not closes)
    skips_usd = band_usd
    near = False
    if parts is not None:
        to_edge, trade_rate = parts
        near_usd = NEAR_FRAC * equity
        lot_usd = mid / per_unit
        if to_edge and band_usd > 0.0:
            size -= band_usd / lot_usd
            near = size * lot_usd <= near_usd
        size *= trade_rate
        after = units * per_unit + size if order > 0.0 else units * per_unit - size
        if abs(after) * lot_usd <= near_usd and (trade_rate < 1.0 or (to_edge and band_usd > 0.0)):
            size = abs(units) * per_unit
        skips_usd *= 0.0 if to_edge else trade_rate
    size = (np.floor(size * (1.0 + LOT_TOLERANCE)) if lot_scale > 0.0 else size) / per_unit
    notional = size * mid * (1.0 + LOT_TOLERANCE)
    below = ((size == 0.0) | (notional < min_notional_usd)) & (not near)
    inside = ((notional < skips_usd) & (not below)) | near
    if parts is None:
        size = abs(units) if closes else size
    elif closes:
        size = abs(close_nb(units, equity, mid, lot_scale, min_notional_usd, parts[1]))
    below &= tried
    inside &= tried
    trades = (tried & (not (below | inside))) | closes
    return (size if trades else 0.0), order > 0.0, below, inside


@inner
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


@inner
def asks_nb(weights):
    """Whether a row of weights asks for something: holds one that is neither 0 nor NaN."""
    for k in range(weights.shape[0]):
        if weights[k] != 0.0 and not np.isnan(weights[k]):
            return True
    return False


@inner
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
        if w * scale != 0.0 and equity <= 0.0:
            continue
        size, buys, below, inside = size_order_nb(
            w * (scale * equity) * (lots_per_unit_nb(lot_scale[i]) / price[i]),
            units[i],
            equity,
            price[i],
            lot_scale[i],
            min_notional_usd,
            band_frac[i] * equity,
            parts,
        )
        if size > 0.0:
            orders[i] = size if buys else -size
            outcomes[i] = ORDER
        elif below or inside:
            outcomes[i] = BELOW_MINIMUM if below else INSIDE_BAND
    return blocked, scale


@inner
def initial_nb(notional_usd, floors_usd, steps):
    """Initial margin of one position: its notional over the leverage of its tier; half of that is for maintenance."""
    rate = 0.0
    for k in range(floors_usd.shape[0]):
        if notional_usd > floors_usd[k]:
            rate += 2.0 * steps[k]
    return rate * notional_usd


@inner
def isolated_asked_nb(target_usd, held_usd, own_equity, leverage, floors_usd, steps):
    """Margin of an isolated position that an order takes from one notional to another, both signed."""
    size = abs(target_usd)
    rate = isolated_rate_nb(size, leverage, floors_usd, steps)
    if held_usd * target_usd <= 0.0:
        return rate * size
    if size <= abs(held_usd):
        return own_equity * (target_usd / held_usd)
    return own_equity + rate * (size - abs(held_usd))


@inner
def target_margin_nb(target_usd, u, price, held, isolated, i, floors_usd, steps):
    """Initial margin of coin `i`, whose `u` units need `held`, taken to a signed notional."""
    if isolated.shape[0] > 0 and isolated[i] > 0.0:
        held_usd = u * price if u != 0.0 else 0.0
        return isolated_asked_nb(target_usd, held_usd, held, isolated[i], floors_usd[i], steps[i])
    return initial_nb(abs(target_usd), floors_usd[i], steps[i])


@inner
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


@inner
def impact_at_reference_nb(sign, base, mid, impact_price, impact_frac):
    """Part of mid by which an order of the reference notional moves its own price; at most by how much any does.

    ``base`` is the fill before impact, ``sign`` 1 for a buy.
    """
    at_reference = impact_frac if np.isnan(impact_price) else max(sign * (impact_price - base), 0.0) / mid
    most = MOST_IMPACT if sign > 0.0 else min(MOST_IMPACT, base / mid)  # nobody pays to have a coin taken away
    return at_reference, most


@inner
def impact_nb(size, at_reference, most):
    """Part of mid by which an order of `size` reference notionals moves its own price."""
    return min(at_reference * (size if size <= 1.0 else np.sqrt(size)), most)


@inlined
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


@inner
def coin_factor_nb(fees, rate, t, i):
    """Factor of coin `i` at row `t` on a rate, or on a volume for a `rate` of 0."""
    if fees.factor.shape[1] == 0:
        return 1.0
    return fees.factor[0 if rate > 0.0 else 1, fees.period[t], i]


@inner
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


@inner
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


@inner
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
        at_reference, most = impact_at_reference_nb(sign, fill, mid, price, sim_params.impact_frac)
        moved = mid * impact_nb(abs(order) * mid / coin_params.impact_reference_usd[i], at_reference, most)
        impact = abs(order) * moved
        fill += sign * moved
    fee = fee_rate * coin_factor_nb(fees, fee_rate, t, i) * abs(order) * fill
    return fill, fee, spread, impact


@inner
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


@inner
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


@inner
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


@inner
def called_nb(equity, own_equity, others, maintenance_usd):
    """Whether the account's margin is gone: that of the `others`, positions without margin of their own."""
    free = equity - own_equity
    return equity <= 0.0 or (others and (free <= 0.0 or free < maintenance_usd))


@inner
def isolated_gone_nb(units, own_cash, price, floors_usd, steps):
    """Whether an isolated position's margin is gone at a price."""
    equity = own_equity_nb(units, own_cash, price)
    return equity <= 0.0 or equity < maintenance_nb(abs(units) * price, floors_usd, steps)


@inner
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


@inner
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


# Columns of `Intervals.terms`. SCALE is `lot_scale`, 0 where sizes are not cut, or NOT_TRADABLE; BAND `band_frac`.
SCALE, LOTS_PER_USD, PRICE_USD, BUY, SELL, EXIT, PAID, BAND = 0, 1, 2, 3, 4, 5, 6, 7
NOT_TRADABLE = -1.0
TERMS = 8  # a line of a processor's cache
IMPACT_TERMS = 4  # impact at the reference and the most there is, of a buy and of a sell
#: Columns of the orders of a row, `WIDE` apart, in one array: numba then knows that they do not overlap, and the loop
#: over them is vectorised. The first are those of `Intervals.terms`, then what is given, then what is filled in.
WIDE = 64
COLUMNS = 26
LOT_SCALE, LOTS_A_USD, MID, BUY_AT, SELL_AT, EXIT_AT, PAID_AT, BAND_AT = np.arange(8, dtype=np.uint64) * np.uint64(WIDE)
ASKED, BEFORE, ORDERED, FILL, AFTER = np.arange(8, 13, dtype=np.uint64) * np.uint64(WIDE)
SPREAD_USD, FILLED, TRADED, NET_VALUE, GROSS_VALUE = np.arange(13, 18, dtype=np.uint64) * np.uint64(WIDE)
EXIT_USD, PAID_USD, IMPACT_USD = np.arange(18, 21, dtype=np.uint64) * np.uint64(WIDE)
BUY_IMPACT, MOST_BUY_IMPACT, SELL_IMPACT, MOST_SELL_IMPACT = np.arange(21, 25, dtype=np.uint64) * np.uint64(WIDE)
REFERENCE = np.uint64(25 * WIDE)


class Intervals(NamedTuple):
    """A panel cut at the rows ``r[0] < ... < r[D-1]`` at which decisions are traded; interval ``d`` ends at ``r[d+1]``.

    Inside an interval positions are fixed, so all that a unit of a coin does to equity can be summed up beforehand, for
    all books alike. The path of coin ``i`` in interval ``d`` is ``paths[path_at[d] + i * width[d]:]``: for each of its
    hours the USD that a unit is worth with the cash it has brought since r[d] (minus funding, plus its settlement). Its
    end is in ``terms``, a line of a processor's cache for what a trade needs to know.
    """

    rows: np.ndarray  # (D + 1,) int64, the last is T
    paths: np.ndarray  # float64, flat
    path_at: np.ndarray  # (D,) int64
    width: np.ndarray  # (D,) int64
    terms: np.ndarray  # (D * N * TERMS + TERMS,) of a coin at r[d], see `precompute_intervals_nb`, `price_terms_nb`
    settle_hour: np.ndarray  # (D, N) int64, hour of the interval at which a unit is settled; NEVER where it is not
    settles: np.ndarray  # (D,) bool, whether any is
    rise: np.ndarray  # (D,) the most that any price of the interval or of its end is over the one at r[d]
    slot_at: np.ndarray  # (D + 1,) int64, where the daily returns of each interval begin in the next two
    slot_hour: np.ndarray  # int64, hour of the interval at which a daily return ends
    slot_day: np.ndarray  # int64, its number
    worst_long: np.ndarray  # (D, N) the least that a unit is worth within an hour, with what it brought; or (0, 0)
    worst_short: np.ndarray  # (D, N) the most
    worst_rise: np.ndarray  # (D,) as `rise`, of the prices within the hours
    first_day: np.ndarray  # (D,) int64, number of the first daily return that ends after the decision
    price: np.ndarray  # (T, N) last known mid
    rates: np.ndarray  # (T, N) funding as the panel has it; (0, 0) where it has none, or none is asked for
    lasting: np.ndarray  # (D, N) int64, hours for which a unit is held in interval d
    unrated: np.ndarray  # (D, N) int64, those of them without a rate
    counted: np.ndarray  # (D,) bool, whether any unit of interval d is settled in it or lacks a rate


#: No hour of any interval.
NEVER = 1 << 40


@jit
def lined_nb(count):
    """`count` times 0 from the beginning of a line of a processor's cache on: LANES numbers are then never in two."""
    room = np.zeros(count + LANES)
    first = -(room.ctypes.data // 8) % LANES
    return room[first : first + count]


@jit
def known_prices_nb(mid, stale_hours, price, settles):
    """Fill in the last known mid, (T, N), and the rows at which a held coin would be settled, (T, N) False."""
    T, N = mid.shape
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


@jit
def precompute_intervals_nb(
    price,
    settles,
    funding,
    funding_price,
    bounds,
    first,
    last,
    paths,
    path_at,
    width,
    terms,
    settle_hour,
    any_settles,
    rise,
):
    """Fill in what :class:`Intervals` holds of the intervals from `first` to `last`; of `terms` PRICE_USD, EXIT, PAID.

    The arrays are to be 0, but for `settle_hour`, NEVER, and `rise`, 1; `path_at` and `width` are given. EXIT is what
    the path would be at r[d+1], before the trade, PAID the funding paid by then.
    """
    T, N = price.shape
    funded = funding.shape[0] == T
    paid, worth, highest = np.zeros(N), np.zeros(N), np.zeros(N)
    longest = 0
    for d in range(first, last):
        longest = max(longest, bounds[d + 1] - bounds[d])
    block = np.zeros(N * (longest + 1))
    for d in range(first, last):
        start = bounds[d]
        hours = bounds[d + 1] - start
        end = min(bounds[d + 1], T - 1)  # of the last interval it is its last row
        for t in range(start + 1, end + 1):
            settling = False
            for i in range(np.uint64(N)):
                settling |= settles[t, i]
            for i in range(N if settling else 0):
                if settles[t, i] and settle_hour[d, i] == NEVER:
                    settle_hour[d, i] = t - start
                    any_settles[d] = True
        # Rows are read one after the other: a coin's hours lie too far apart for the memory to guess the next.
        paid[:] = 0.0
        highest[:] = 0.0
        for h in range(hours + 1):
            t = min(start + h, end)
            for i in range(N):
                gone = settle_hour[d, i]
                if h <= gone:
                    worth[i] = price[t, i]
                    highest[i] = max(highest[i], worth[i])
                if funded and h < hours and h < gone and not np.isnan(funding[t, i]):
                    base = price[t, i] if np.isnan(funding_price[t, i]) else funding_price[t, i]
                    paid[i] += base * funding[t, i]
                block[h * N + i] = worth[i] - paid[i]
        for i in range(N):
            at = (d * N + i) * TERMS
            if np.isnan(price[start, i]):  # not listed yet: never held, but the vectorised sizing divides by it
                terms[at + PRICE_USD] = 1.0
                continue
            for h in range(hours):
                paths[path_at[d] + i * width[d] + h] = block[h * N + i]
            terms[at + PRICE_USD] = price[start, i]
            terms[at + EXIT] = block[hours * N + i]
            terms[at + PAID] = paid[i]
            rise[d] = max(rise[d], highest[i] / terms[at + PRICE_USD])


@jit
def worst_hours_nb(market, price, paths, path_at, width, terms, settle_hour, bounds):
    """`worst_long`, `worst_short` and `worst_rise` of :class:`Intervals`, of a panel with ``low`` and ``high``."""
    D, N = settle_hour.shape
    T = price.shape[0]
    long, short, rise = np.zeros((D, N)), np.zeros((D, N)), np.ones(D)
    for d in range(D):
        start = bounds[d]
        end = min(bounds[d + 1], T - 1)
        for i in range(N):
            if np.isnan(price[start, i]):
                continue
            place = path_at[d] + i * width[d]
            long[d, i], short[d, i] = paths[place], paths[place]
            for h in range(1, end - start + 1):
                t = start + h
                if h < settle_hour[d, i]:  # before the funding of the hour, as in `first_within_nb`
                    brought = paths[place + h - 1] - price[t - 1, i]
                    low, high = market.low[t, i] + brought, market.high[t, i] + brought
                    rise[d] = max(rise[d], market.high[t, i] / price[start, i])
                else:
                    low = terms[(d * N + i) * TERMS + EXIT]  # what it was settled for, and nothing comes after it
                    high = low
                long[d, i], short[d, i] = min(long[d, i], low), max(short[d, i], high)
    return long, short, rise


@jit
def price_terms_nb(market, rows, lot_scale, band_frac, half_spread_frac, terms):
    """`terms` of :class:`Intervals` with what a trade at `rows` costs: a copy, for it depends on the config.

    PRICE_USD is the last known mid, LOTS_PER_USD what a dollar buys at it, NaN where nothing can be traded; BUY and
    SELL are fill prices before impact.
    """
    N = market.mid.shape[1]
    quoted = market.bid.shape[0] > 0
    priced = lined_nb(terms.shape[0])
    for k in range(terms.shape[0]):
        priced[k] = terms[k]
    for d in range(rows.shape[0]):
        t = rows[d]
        for i in range(N):
            at = (d * N + i) * TERMS
            priced[at + BAND] = band_frac[i]
            if not market.tradable[t, i]:
                priced[at + SCALE] = NOT_TRADABLE
                priced[at + LOTS_PER_USD] = np.nan
                continue
            mid = market.mid[t, i]
            bid = market.bid[t, i] if quoted else np.nan
            ask = market.ask[t, i] if quoted else np.nan
            priced[at + SCALE] = lot_scale[i]
            priced[at + LOTS_PER_USD] = lots_per_unit_nb(lot_scale[i]) / mid
            priced[at + PRICE_USD] = mid
            priced[at + BUY] = fill_price_nb(1.0, mid, bid, ask, half_spread_frac)
            priced[at + SELL] = fill_price_nb(-1.0, mid, bid, ask, half_spread_frac)
    return priced


@jit
def impact_terms_nb(market, rows, coin_params, impact_frac, terms):
    """What impact at `rows` needs of a coin, a table like `terms`, (D * N * IMPACT_TERMS,)."""
    N = market.mid.shape[1]
    priced = market.impact_bid.shape[0] > 0
    found = np.zeros(rows.shape[0] * N * IMPACT_TERMS)
    for d in range(rows.shape[0]):
        t = rows[d]
        for i in range(N):
            of, at = (d * N + i) * TERMS, (d * N + i) * IMPACT_TERMS
            if terms[of + SCALE] == NOT_TRADABLE:
                continue
            mid = terms[of + PRICE_USD]
            ask = market.impact_ask[t, i] if priced else np.nan
            bid = market.impact_bid[t, i] if priced else np.nan
            found[at], found[at + 1] = impact_at_reference_nb(1.0, terms[of + BUY], mid, ask, impact_frac)
            found[at + 2], found[at + 3] = impact_at_reference_nb(-1.0, terms[of + SELL], mid, bid, impact_frac)
    return found


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


@inner
def count_hours_nb(s, count, held, d, lasting, unrated):
    """Coin-hours that book `s` held in interval `d`, and those of them without a rate."""
    hours = 0
    without = 0
    for k in range(count):
        hours += lasting[d, held[s, k]]
        without += unrated[d, held[s, k]]
    return hours, without


@inner
def count_until_nb(coins, intervals, d, h):
    """The same of `coins` held until hour `h` of the interval."""
    total = 0
    without = 0
    for k in range(coins.shape[0]):
        i = np.int64(coins[k])
        for t in range(min(h + 1, intervals.settle_hour[d, i])):
            total += 1
            without += intervals.rates.shape[0] > 0 and np.isnan(intervals.rates[intervals.rows[d] + t, i])
    return total, without


@jit
def gather_dense_nb(dense, limit, indptr, coins, weights):
    """Entries that are not 0 (NaN is not) of the first D decisions of a (S, all, N) array, book by book.

    Returns the first ``(s, d)`` whose gross is above `limit` or infinite, or ``(-1, -1)``.
    """
    S, A, N = dense.shape
    D = (indptr.shape[0] - 1) // S
    one, word, lanes, end = np.uint64(1), np.uint64(64), np.uint64(LANES), np.uint64(N)
    whole, ahead = end - end % lanes, np.uint64(2_048)  # 16 kB: the memory does not guess beyond a page by itself
    count = np.uint64(0)
    above = (-1, -1)
    for s in range(S):
        for d in range(D):
            first = count
            row = np.uint64((s * A + d) * N)
            for start in range(np.uint64(0), end, word):  # most of a row is 0: a bit for each of 64 weights
                stop = min(start + word, end)
                bits = np.uint64(0)
                for i in range(start, stop if stop < whole else whole, lanes):
                    prefetch_nb(dense, row + i + ahead)
                    bits |= nonzero_nb(dense, row + i) << (i - start)
                for i in range(start if start > whole else whole, stop):
                    bits |= np.uint64(dense[s, d, i] != 0.0) << (i - start)
                while bits != np.uint64(0):
                    i = start + lowest_nb(bits)
                    coins[count] = i
                    weights[count] = dense[s, d, i]
                    count += one
                    bits &= bits - one
            gross = 0.0
            for k in range(first, count):
                gross += 0.0 if np.isnan(weights[k]) else abs(weights[k])
            indptr[s * D + d + 1] = count
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
def summarise_nb(s, daily, first, changes, metrics, column):
    """Fill in what follows from book `s`'s equity at each day's decision hour, from the day `first` on.

    ``daily`` is (S, days), the figures go to ``metrics[s]`` from `column` on, in the order from CAGR to SORTINO;
    ``changes``, (days,), is for its use. Formulas of ``metrics.py``.
    """
    days = daily.shape[1] - first - 1
    for k in range(column, column + CALENDAR - CAGR):
        metrics[s, k] = np.nan
    if days < 1:
        return
    growth = 1.0
    lost = False
    total = 0.0
    size = 0.0
    downside = 0.0
    for k in range(days):
        before = daily[s, first + k]
        change = daily[s, first + k + 1] / before - 1.0 if before > 0.0 else 0.0
        changes[k] = change
        growth *= 1.0 + change
        lost |= change <= -1.0
        total += change
        size += change * change
        downside += change * change if change < 0.0 else 0.0
    mean = total / days
    metrics[s, column] = -1.0 if lost else growth ** (365.0 / days) - 1.0
    squares = 0.0
    for k in range(days):
        squares += (changes[k] - mean) ** 2
    deviation = np.sqrt(squares / (days - 1)) if days > 1 else np.nan
    if squares <= FLAT * size or deviation <= DUST:
        if days > 1:
            metrics[s, column + VOLATILITY - CAGR] = 0.0
        return
    downside = np.sqrt(downside / days)
    if downside > DUST:
        metrics[s, column + SORTINO - CAGR] = mean / downside * np.sqrt(365.0)
    metrics[s, column + VOLATILITY - CAGR] = deviation * np.sqrt(365.0)
    metrics[s, column + SHARPE - CAGR] = mean / deviation * np.sqrt(365.0)


@inner
def row_scale_nb(s, count, held, units, first, last, coins, weights, equity, terms, base, seen, stamp):
    """Factor of :func:`renormalised_nb` for book `s`, whose row is the entries from `first` to `last`.

    ``terms`` from `base` on is the decision's; of ``seen`` the row's coins are set to `stamp`.
    """
    own = 0.0
    blocked = 0.0
    stuck_usd = 0.0
    for k in range(first, last):
        i = coins[k]
        seen[i] = stamp
        if np.isnan(weights[k]):
            continue
        at = base + np.uint64(i) * np.uint64(TERMS)
        if terms[at + SCALE] != NOT_TRADABLE:
            own += abs(weights[k])
        else:
            blocked += abs(weights[k])
            stuck_usd += abs(units[s, i]) * terms[at + PRICE_USD]
    for k in range(count):
        i = held[s, k]
        at = base + np.uint64(i) * np.uint64(TERMS)
        if seen[i] != stamp and terms[at + SCALE] == NOT_TRADABLE:
            stuck_usd += abs(units[s, i]) * terms[at + PRICE_USD]
    return renormalised_nb(own + blocked, own, stuck_usd, equity)


@inner
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
    terms,
    base,
    floors_usd,
    steps,
    seen,
    stamp,
    isolated,
    own_cash,
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
        i = np.int64(coins[k])
        seen[i] = stamp
        at = base + np.uint64(i) * np.uint64(TERMS)
        price, lot_scale = terms[at + PRICE_USD], terms[at + SCALE]
        u = units[s, i]
        own = own_cash[s, i] if isolated.shape[0] > 0 else 0.0
        held_usd = held_margin_nb(u, own, price, isolated, i, floors_usd, steps)
        if np.isnan(weights[k]) or lot_scale == NOT_TRADABLE:
            left += held_usd
            continue
        w = weights[k] * scale
        needed = target_margin_nb(w * equity, u, price, held_usd, isolated, i, floors_usd, steps)
        asked += needed
        if parts is not None:
            target = w * equity * terms[at + LOTS_PER_USD]
            band_usd = band_frac[i] * equity
            size, buys, _, _ = size_order_nb(target, u, equity, price, lot_scale, min_notional_usd, band_usd, parts)
            then = u + size if buys else u - size
            needed = target_margin_nb(then * price, u, price, held_usd, isolated, i, floors_usd, steps)
        after += needed
    for k in range(count):
        i = np.int64(held[s, k])
        at = base + np.uint64(i) * np.uint64(TERMS)
        price, lot_scale = terms[at + PRICE_USD], terms[at + SCALE]
        u = units[s, i]
        if u != 0.0:
            own = own_cash[s, i] if isolated.shape[0] > 0 else 0.0
            held_usd = held_margin_nb(u, own, price, isolated, i, floors_usd, steps)
            before += held_usd
            if seen[i] != stamp and lot_scale == NOT_TRADABLE:
                left += held_usd
            elif parts is not None and seen[i] != stamp:  # no entry is weight 0
                then = u - close_nb(u, equity, price, lot_scale, min_notional_usd, parts[1])
                after += target_margin_nb(then * price, u, price, held_usd, isolated, i, floors_usd, steps)
    return asked, after, left, before


@inner
def settle_nb(s, count, held, units, d, settle_hour):
    """Step 1 for book `s` where a position is settled in interval `d`; how many are left, and how many gone."""
    left = 0
    for k in range(count):
        i = held[s, k]
        if settle_hour[d, i] == NEVER:
            held[s, left] = i
            left += 1
        else:
            units[s, i] = 0.0
    return left, count - left


@inlined
def list_orders_nb(s, held_count, held, first, last, coins, weights, seen, stamp, listed, asked):
    """List what decision asks of book `s`: the entries, then the coins held without an entry, at weight 0.

    Fills `listed` and `asked`, (2 N + LANES,), and returns their number; what follows up to a multiple of LANES asks
    nothing of a coin N, of which nobody has any. All are written and one list grows: a branch on what a position is
    would be one that no processor can predict.
    """
    first = np.uint64(first)
    count = np.uint64(last) - first
    for k in range(count):
        i = coins[first + k]
        seen[i] = stamp
        listed[k] = i
        asked[k] = weights[first + k]
    for k in range(held_count):
        i = held[s, k]
        listed[count] = i
        asked[count] = 0.0
        count += np.uint64(seen[i] != stamp)
    for k in range(np.uint64(LANES - 1)):
        listed[count + k] = seen.shape[0]
        asked[count + k] = 0.0
    return count


@inlined
def size_orders_nb(table, count, equity_factor, equity, min_notional_usd, parts, impact, builders):
    """Size the first `count` orders of a `table` of columns, see ASKED.

    Returns how many trade, are below the minimum, inside the band or of coins that cannot be traded. ``equity_factor``
    makes USD of a weight, NaN where nothing can be traded towards one. One loop without a branch (where `parts` is
    None), which is vectorised. What `impact` and `builders` need is left out where they are None.
    """
    trades = 0
    below = 0
    inside = 0
    stuck = 0
    for k in range(count):
        w = table[k + ASKED]
        u = table[k + BEFORE]
        mid = table[k + MID]
        buy = table[k + BUY_AT]
        sell = table[k + SELL_AT]
        lot_scale = table[k + LOT_SCALE]
        band_usd = table[k + BAND_AT] * equity
        target = w * equity_factor * table[k + LOTS_A_USD]
        # What is held is a target with nothing to order; weight 0 closes whatever equity is.
        kept = 0.0 if (w == 0.0) & (lot_scale != NOT_TRADABLE) else u * lots_per_unit_nb(lot_scale)
        target = kept if np.isnan(target) else target
        size, buys, small, near = size_order_nb(target, u, equity, mid, lot_scale, min_notional_usd, band_usd, parts)
        fill = buy if buys else sell
        order = size if buys else -size
        table[k + SPREAD_USD] = order * (fill - mid)
        if impact is not None:
            at_buy, most_buy = table[k + BUY_IMPACT], table[k + MOST_BUY_IMPACT]
            at_sell, most_sell = table[k + SELL_IMPACT], table[k + MOST_SELL_IMPACT]
            at_reference = at_buy if buys else at_sell
            most = most_buy if buys else most_sell
            moved = mid * impact_nb(size * mid / table[k + REFERENCE], at_reference, most)
            table[k + IMPACT_USD] = size * moved
            fill += moved if buys else -moved
        if builders is not None:
            table[k + ORDERED] = order
            table[k + FILL] = fill
        table[k + FILLED] = size * fill
        table[k + TRADED] = size * mid
        u = round_lot_nb(u + order, lot_scale)
        table[k + AFTER] = u
        table[k + NET_VALUE] = u * mid
        table[k + GROSS_VALUE] = abs(u * mid)
        table[k + EXIT_USD] = u * table[k + EXIT_AT]
        table[k + PAID_USD] = u * table[k + PAID_AT]
        trades += size != 0.0
        below += small
        inside += near
        stuck += lot_scale == NOT_TRADABLE
    return trades, below, inside, stuck


@inlined
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
    terms,
    base,
    fee_rate,
    min_notional_usd,
    parts,
    impact,
    builders,
    period,
    seen,
    stamp,
    listed,
    asked,
    table,
    counters,
):
    """Step 2 for book `s` at decision `d`: close what has no entry, then trade the entries from `first` to `last`.

    ``terms`` from `base` on is the decision's, ``held[s]`` becomes the coins held afterwards; `listed`, `asked` and
    `table` are for its use. Returns the number of coins held, fees, spread and impact costs, USD traded at mid and USD
    of fills that count as volume, number of trades, untradable weight, gross and net value at mid of what is held, what
    it is worth with the cash that it brings at the end of the interval, and the funding it pays. ``parts`` is that of
    :func:`size_order_nb`, ``builders`` is None or the factors on fees, the leverage, floors and steps of isolated coins
    and the books' cash of isolated positions; ``period`` is the row's.
    """
    charged_usd = 0.0
    counted_usd = 0.0
    if builders is not None:
        factor, isolated, floors_usd, steps, own_cash = builders
    spreads = 0.0
    impacts = 0.0
    traded_usd = 0.0
    filled_usd = 0.0
    trades = 0
    blocked = 0.0
    gross_usd = 0.0
    net_usd = 0.0
    exit_usd = 0.0
    paid_usd = 0.0
    row = np.uint64(s * units.shape[1])
    total = list_orders_nb(s, held_count, held, first, last, coins, weights, seen, stamp, listed, asked)
    count = np.uint64(0)
    # Not a number where nothing can be traded towards a weight, as the target that it is a factor of then is.
    equity_factor = scale * equity if equity > 0.0 else np.nan
    for begin in range(np.uint64(0), total, np.uint64(WIDE)):
        size = min(np.uint64(WIDE), total - begin)
        padded = (size + np.uint64(LANES - 1)) & ~np.uint64(LANES - 1)
        for k in range(np.uint64(0), padded, np.uint64(LANES)):
            load_orders_nb(terms, base, units, row, listed, asked, begin + k, table, k)
        if impact is not None:
            impact_terms, reference_usd = impact
            for k in range(size):
                i = listed[begin + k]
                at = base // np.uint64(TERMS // IMPACT_TERMS) + np.uint64(i) * np.uint64(IMPACT_TERMS)
                table[k + BUY_IMPACT] = impact_terms[at]
                table[k + MOST_BUY_IMPACT] = impact_terms[at + np.uint64(1)]
                table[k + SELL_IMPACT] = impact_terms[at + np.uint64(2)]
                table[k + MOST_SELL_IMPACT] = impact_terms[at + np.uint64(3)]
                table[k + REFERENCE] = reference_usd[i]
        traded, below, inside, stuck = size_orders_nb(
            table, padded, equity_factor, equity, min_notional_usd, parts, impact, builders
        )
        trades += traded
        counters[s, SKIPPED_MINIMUM] += below
        counters[s, SKIPPED_BAND] += inside
        for k in range(size if stuck > 0 else np.uint64(0)):
            w = table[k + ASKED]
            if table[k + LOT_SCALE] == NOT_TRADABLE and not np.isnan(w):
                blocked += abs(w)
                counters[s, UNTRADABLE_ORDERS] += w != 0.0 or table[k + BEFORE] != 0.0
        spreads += sum_nb(table, np.uint64(SPREAD_USD), padded)
        filled_usd += sum_nb(table, np.uint64(FILLED), padded)
        traded_usd += sum_nb(table, np.uint64(TRADED), padded)
        net_usd += sum_nb(table, np.uint64(NET_VALUE), padded)
        gross_usd += sum_nb(table, np.uint64(GROSS_VALUE), padded)
        exit_usd += sum_nb(table, np.uint64(EXIT_USD), padded)
        paid_usd += sum_nb(table, np.uint64(PAID_USD), padded)
        # Without impact the argument is None, and numba compiles a kernel that has none of this.
        if impact is not None:
            impacts += sum_nb(table, np.uint64(IMPACT_USD), padded)
        for k in range(size):
            i = listed[begin + k]
            u = table[k + AFTER]
            units[s, i] = u
            if builders is not None:  # as with impact
                order, fill = table[k + ORDERED], table[k + FILL]
                if order != 0.0:
                    if factor.shape[1] > 0:
                        charged_usd += abs(order) * fill * factor[0 if fee_rate > 0.0 else 1, period, i]
                        counted_usd += abs(order) * fill * factor[1, period, i]
                    if isolated.shape[0] > 0 and isolated[i] > 0.0:
                        own_cash[s, i] = own_cash_nb(
                            own_cash[s, i], table[k + BEFORE], u, fill, isolated[i], floors_usd[i], steps[i]
                        )
            held[s, count] = i
            count += np.uint64(u != 0.0)
    fees = fee_rate * filled_usd
    if builders is not None:
        if builders[0].shape[1] > 0:
            fees = fee_rate * charged_usd
            filled_usd = counted_usd
    value = gross_usd, net_usd, exit_usd, paid_usd
    return np.int64(count), fees, spreads, impacts, traded_usd, filled_usd, trades, blocked, value


@inner
def brought_nb(intervals, d, h, within, i):
    """Cash that a unit of a coin brought from the trade of interval `d` to hour `h`, and whether it is settled.

    With `within`, before the funding of that hour, which may be the first of the next interval.
    """
    settled = h >= intervals.settle_hour[d, i]
    if within and not settled:
        h -= 1
    worth = 0.0 if settled else intervals.price[intervals.rows[d] + h, i]
    if intervals.rows[d] + h == intervals.rows[d + 1]:
        path = intervals.terms[(d * intervals.settle_hour.shape[1] + i) * TERMS + EXIT]
    else:
        path = intervals.paths[intervals.path_at[d] + i * intervals.width[d] + h]
    return path - worth, settled


@inner
def first_within_nb(intervals, d, last, held, units, cash, market, coin_params):
    """First hour of interval `d`, up to `last`, in which the margin is gone at the worst prices; 0 for none."""
    for h in range(1, last + 1):
        row = intervals.rows[d] + h
        equity = cash
        maintenance = 0.0
        holds = False
        for k in range(held.shape[0]):
            i = np.int64(held[k])
            brought, settled = brought_nb(intervals, d, h, np.bool_(True), i)
            equity += units[i] * brought
            if not settled:
                value = units[i] * (market.low[row, i] if units[i] > 0.0 else market.high[row, i])
                equity += value
                maintenance += maintenance_nb(abs(value), coin_params.margin_floor_usd[i], coin_params.margin_step[i])
                holds = True
        if holds and (equity <= 0.0 or equity < maintenance):
            return h
    return 0


@inner
def liquidate_one_of_nb(
    intervals,
    d,
    h,
    i,
    u,
    own_cash,
    within,
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
    flows = metrics[TOTALS : TOTALS + FLOW_COLUMNS]
    brought, _ = brought_nb(intervals, d, h, within, i)
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


@inner
def liquidate_nb(
    intervals,
    d,
    h,
    held,
    units,
    own_cash,
    cash,
    within,
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
    alone = coin_params.isolated.shape[0] > 0
    for k in range(held.shape[0]):
        i = np.int64(held[k])  # as in `simulate_nb`, so that `fill_nb` is compiled once
        u = units[i]
        brought, settled = brought_nb(intervals, d, h, within, i)
        if settled:
            cash += u * brought
            metrics[TRADES] += 1
            counters[DELISTINGS] += 1
            metrics[TOTALS + FUNDING_COST] += u * paid_nb(intervals, d, i)
            continue
        proceeds, _ = liquidate_one_of_nb(
            intervals,
            d,
            h,
            i,
            u,
            own_cash[i] if alone else 0.0,
            within,
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


@inner
def paid_nb(intervals, d, i):
    """Funding that a unit of a coin has paid by the end of interval `d`."""
    return intervals.terms[(d * intervals.settle_hour.shape[1] + i) * TERMS + PAID]


@inner
def first_isolated_nb(intervals, d, last, held, units, own_cash, market, coin_params, first):
    """Of each coin held, the first hour of interval `d`, up to `last`, in which its own margin is gone; 0 for none.

    Fills `first` (N,).
    """
    start, within = intervals.rows[d], market.low.shape[0] > 0
    known, low, high = intervals.price, market.low, market.high
    paths, settle_hour = intervals.paths, intervals.settle_hour
    floors_usd, steps, isolated = coin_params.margin_floor_usd, coin_params.margin_step, coin_params.isolated
    for k in range(held.shape[0]):
        first[k] = 0
        i = np.int64(held[k])
        u = units[i]
        if isolated[i] == 0.0 or u == 0.0:
            continue
        place = intervals.path_at[d] + i * intervals.width[d]
        for h in range(1, min(last + 1, settle_hour[d, i])):
            price = known[start + h, i]
            if within:
                price = low[start + h, i] if u > 0.0 else high[start + h, i]
            # What `brought_nb` and `isolated_gone_nb` say, without their looks into records.
            brought = paths[place + h - 1] - known[start + h - 1, i]
            equity = own_cash[i] + u * brought + u * price
            needed = 0.0
            for m in range(floors_usd.shape[1]):
                needed += steps[i, m] * max(abs(u) * price - floors_usd[i, m], 0.0)
            if equity <= 0.0 or equity < needed:
                first[k] = h
                break


@inner
def called_at_nb(intervals, d, start, stop, held, units, own_cash, cash, gone, watched, market, coin_params):
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
                brought, settled = brought_nb(intervals, d, h, within, i)
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


@inner
def own_after_nb(s, held, units, own_cash, d, intervals, coin_params):
    """Take the funding of interval `d` from the cash of book `s`'s isolated positions; a settled one has none."""
    for k in range(held.shape[0]):
        i = np.int64(held[k])
        if coin_params.isolated[i] > 0.0:
            paid = units[i] * paid_nb(intervals, d, i)
            own_cash[s, i] = 0.0 if intervals.settle_hour[d, i] < NEVER else own_cash[s, i] - paid


@inner
def value_path_nb(intervals, d, held, units, own_cash, coin_params, own, gross):
    """Fill `own` and `gross`, (hours,): equity of isolated positions and value of all, at each hour of the interval.

    Without isolated ones `own_cash` is not looked at.
    """
    hours = intervals.rows[d + 1] - intervals.rows[d]
    own[:hours] = 0.0
    gross[:hours] = 0.0
    for k in range(held.shape[0]):
        i = np.int64(held[k])
        place = intervals.path_at[d] + i * intervals.width[d]
        u = units[i]
        alone = coin_params.isolated.shape[0] > 0 and coin_params.isolated[i] > 0.0
        for h in range(hours):
            if alone:
                own[h] += own_cash[i] + u * intervals.paths[place + h]
            if h < intervals.settle_hour[d, i]:
                gross[h] += abs(u) * intervals.price[intervals.rows[d] + h, i]


@inner
def safe_nb(start, stop, worst_maintenance, equities, own, gross):
    """Whether in those hours the account's margin is surely enough without that of isolated positions."""
    safe = True
    for h in range(start, stop):
        safe &= (equities[h] > 0.0) & (equities[h] - own[h] > worst_maintenance * gross[h])
    return safe


@inner
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
    market,
    fees,
    coin_params,
    sim_params,
    volume,
    total_volume,
    metrics,
    counters,
    gone,
    equities,
    own,
    gross,
):
    """Steps 1 and 4 of a book with isolated positions in interval `d`: close those whose margin is gone.

    ``gone`` becomes the hour at which each of `held` is closed, 0 for none; ``equities``, (hours,), are changed from
    that hour on; ``own`` and ``gross``, (hours,), are for its use; ``volume`` (days,) and ``total_volume`` (1,) are the
    book's. Returns the hour at which the account's own margin is gone (-1 for none),
    whether that was within the hour, the cash that the closed ones brought, the hours for which they were held and
    those of them without a rate.
    """
    hours = intervals.rows[d + 1] - intervals.rows[d]
    first_isolated_nb(intervals, d, last, held, units, own_cash, market, coin_params, gone)
    value_path_nb(intervals, d, held, units, own_cash, coin_params, own, gross)
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
        if watched or not safe_nb(start, stop, worst_maintenance, equities, own, gross):
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
            for h in range(after, hours):
                path = u * intervals.paths[intervals.path_at[d] + i * intervals.width[d] + h]
                if h < intervals.settle_hour[d, i]:
                    gross[h] -= abs(u) * intervals.price[intervals.rows[d] + h, i]
                equities[h] += proceeds - path
                own[h] -= own_cash[i] + path
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
    impact : None, or what :func:`impact_terms_nb` returns and impact_reference_usd
    market : MarketData
    fees : Fees
    coin_params : CoinParams
    sim_params : SimParams
    indptr, coins, weights : (rows + 1,) int64, (K,) uint32, (K,) float64
        Weights of book ``s`` at decision ``d`` are the entries from ``indptr[row]`` up to the next; a coin without one
        is 0.
    book_step : int
        Rows from a book to the next: ``row = s * book_step + d``.
    metrics, counters, daily : (S, METRICS) float64, (S, COUNTERS) int64, (S, days) float64
        Filled in; they are to be 0, but for what is -1 without an event and the initial equity on all days. A book that
        is REFUSED has its equity in END, the margin needed in GROSS, and nothing else.
    """
    S = metrics.shape[0]
    D, N = intervals.settle_hour.shape
    longest = 0
    for d in range(D):
        longest = max(longest, intervals.width[d])
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
    units = np.zeros((S, N + 1))  # and none of coin N, which fills orders up to LANES
    held = np.zeros((S, N + 1), dtype=np.uint32)  # unsigned: numba then does not look for negative indices
    held_count = np.zeros(S, dtype=np.int64)
    cash = np.zeros(S)
    before_trade = np.zeros(S)  # equity at the decision that comes
    most_held_usd = np.zeros(S)  # at least the gross value of what is held at it
    peak = np.zeros(S)
    deepest = np.zeros(S)
    for s in range(S):
        cash[s] = sim_params.initial_equity_usd
        before_trade[s] = sim_params.initial_equity_usd
        peak[s] = sim_params.initial_equity_usd
    seen = np.zeros(N, dtype=np.int32)
    stamp = 0
    listed = np.zeros(2 * N + LANES, dtype=np.uint32)
    asked_of = np.zeros(2 * N + LANES)
    table = lined_nb(np.int64(COLUMNS * WIDE))
    for k in range(np.uint64(COLUMNS * WIDE)):
        table[k] = 1.0  # not 0: orders that only fill the vectors up are divided, too
    equities = lined_nb(longest)
    own = np.zeros(longest)
    gross = np.zeros(longest)
    changes = np.zeros(daily.shape[1])
    # A view of an array, or a look into a record, counts a reference: an atomic addition, for which threads wait for
    # one another. It took a third of the time. So the loop looks into arrays by their indices, and at nothing else.
    m_rows, m_paths, m_path_at, m_width, m_terms = (
        intervals.rows,
        intervals.paths,
        intervals.path_at,
        intervals.width,
        intervals.terms,
    )
    m_worst_long, m_worst_short, m_worst_rise = intervals.worst_long, intervals.worst_short, intervals.worst_rise
    m_slot_at, m_slot_hour, m_slot_day = intervals.slot_at, intervals.slot_hour, intervals.slot_day
    m_settles, m_settle_hour, m_rise, m_counted, m_lasting, m_unrated = (
        intervals.settles,
        intervals.settle_hour,
        intervals.rise,
        intervals.counted,
        intervals.lasting,
        intervals.unrated,
    )
    f_rate, f_period = fees.rate, fees.period
    floors_usd, steps = coin_params.margin_floor_usd, coin_params.margin_step
    margin, renormalise = sim_params.margin, sim_params.renormalise
    band_frac, min_notional_usd = coin_params.band_frac, sim_params.min_notional_usd
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
        path, width = np.uint64(m_path_at[d]), np.uint64(m_width[d])
        base = np.uint64(d * N * TERMS)
        for s in range(S):
            if counters[s, LIQUIDATED_ROW] >= 0:
                for k in range(m_slot_at[d], m_slot_at[d + 1]):
                    daily[s, m_slot_day[k]] = cash[s]
                continue
            equity = before_trade[s]
            row = s * book_step + d
            if s + 1 < S:  # what the next book asks for is far away, and the processor has the time of this one
                following = indptr[row + book_step]
                for line in range(3):
                    prefetch_nb(coins, following + 16 * line)
                for line in range(4):
                    prefetch_nb(weights, following + 8 * line)
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
                    m_terms,
                    base,
                    seen,
                    stamp,
                )
            # Few books come so near to it that the margin of every coin has to be looked up.
            near = (max_gross * equity + most_held_usd[s]) * worst_initial > most_initial_frac * equity
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
                    m_terms,
                    base,
                    floors_usd,
                    steps,
                    seen,
                    stamp,
                    isolated,
                    own_cash,
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
            count, fee, spread, moved, traded_usd, counted_usd, trades, blocked, value = trade_nb(
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
                m_terms,
                base,
                rate,
                min_notional_usd,
                parts,
                impact,
                builders,
                f_period[start],
                seen,
                stamp,
                listed,
                asked_of,
                table,
                counters,
            )
            gross_usd, net_usd, exit_usd, paid_usd = value
            highest_usd = gross_usd * m_rise[d]
            volume[s, day] += counted_usd
            total_volume[s] += counted_usd
            if builders is not None:
                isolated_count[s] = 0
                if alone:
                    for k in range(count):
                        isolated_count[s] += isolated[held[s, k]] > 0.0
            cash[s] = equity - (fee + spread + moved) - net_usd
            metrics[s, TOTALS + FEE_COST] += fee
            metrics[s, TOTALS + SPREAD_COST] += spread
            metrics[s, TOTALS + IMPACT_COST] += moved
            metrics[s, TRADES] += trades
            metrics[s, UNTRADABLE_WEIGHT] += blocked
            counters[s, DECISIONS] += 1
            if equity > 0.0:
                metrics[s, TURNOVER] += traded_usd / equity
            # 3. Funding and the prices of the interval
            sum_paths_nb(cash[s], np.uint64(s * (N + 1)), count, held, units, m_paths, path, width, equities)
            # 4. Margin
            called_at = -1
            within = 0
            lasted, without = 0, 0
            # Most intervals hold no new peak, no new low and nothing that comes near a margin call.
            top = peak[s]
            low = deepest[s]
            lowest = top * (1.0 + low)
            danger_usd = worst_maintenance * highest_usd if margin and count > 0 else -np.inf
            moves = False
            endangered = False
            for h in range(hours):
                moves |= (equities[h] > top) | (equities[h] < lowest)
                endangered |= equities[h] <= danger_usd
            last = hours if start + hours < end else hours - 1
            apart = False
            if builders is not None:
                apart = margin and isolated_count[s] > 0
            watches = False
            if builders is not None:
                if apart:
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
                        market,
                        fees,
                        coin_params,
                        sim_params,
                        volume[s],
                        total_volume[s : s + 1],
                        metrics[s],
                        counters[s],
                        closed_at,
                        equities,
                        own,
                        gross,
                    )
                    moves = True
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
                        exit_usd, paid_usd = 0.0, 0.0
                        for k in range(count):
                            place = base + np.uint64(held[s, k]) * np.uint64(TERMS)
                            exit_usd += units[s, held[s, k]] * m_terms[place + np.uint64(EXIT)]
                            paid_usd += units[s, held[s, k]] * m_terms[place + np.uint64(PAID)]
            if endangered and count > 0 and not apart:
                value_path_nb(intervals, d, held[s, :count], units[s], own, coin_params, own, gross)
                for h in range(hours):
                    if equities[h] > worst_maintenance * gross[h]:
                        continue
                    maintenance = 0.0
                    for k in range(count):
                        i = held[s, k]
                        if h < m_settle_hour[d, i]:
                            usd = abs(units[s, i]) * intervals.price[start + h, i]
                            maintenance += maintenance_nb(usd, floors_usd[i], steps[i])
                    if gross[h] > 0.0 and (equities[h] <= 0.0 or equities[h] < maintenance):
                        called_at = h
                        break
            if watched and count > 0 and not apart and called_at < 0:
                # Most intervals cannot hold a margin call, were each coin at its worst at once.
                worst_usd = cash[s]
                for k in range(count):
                    u = units[s, held[s, k]]
                    worst_usd += u * (m_worst_long[d, held[s, k]] if u > 0.0 else m_worst_short[d, held[s, k]])
                watches = worst_usd <= worst_maintenance * gross_usd * m_worst_rise[d]
            if watches or (watched and called_at >= 0 and not apart):
                until = called_at if called_at >= 0 else last
                within = first_within_nb(intervals, d, until, held[s, :count], units[s], cash[s], market, coin_params)
                called_at = within if within > 0 else called_at
            if called_at < 0:
                if m_counted[d]:
                    more, less = count_hours_nb(s, count, held, d, m_lasting, m_unrated)
                    lasted += more
                    without += less
                else:
                    lasted += count * hours
            if called_at >= 0:
                moves = True
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
                    market,
                    fees,
                    rate,
                    coin_params,
                    sim_params,
                    metrics[s],
                    counters[s],
                )
                more, less = count_until_nb(held[s, :count], intervals, d, called_at - (within > 0))
                lasted += more
                without += less
                count = 0
                for h in range(called_at, hours):
                    equities[h] = cash[s]
                exit_usd, paid_usd = 0.0, 0.0
                if called_at == 0:
                    gross_usd, net_usd = 0.0, 0.0
            counters[s, HELD_HOURS] += lasted
            counters[s, UNRATED_HOURS] += without
            # 5. Record
            if equities[0] != 0.0:
                metrics[s, GROSS] += gross_usd / equities[0]
                metrics[s, NET] += net_usd / equities[0]
            if moves:
                for h in range(hours):  # few hours are either: a branch does not wait for the hour before
                    equity = equities[h]
                    if equity > top:
                        top = equity
                        lowest = top * (1.0 + low)
                    elif equity < lowest:
                        low = equity / top - 1.0
                        lowest = top * (1.0 + low)
                if within == hours and cash[s] < top * (1.0 + low):  # at the next trade's row, which is not come to
                    low = cash[s] / top - 1.0
                peak[s] = top
                deepest[s] = low
            for k in range(m_slot_at[d], m_slot_at[d + 1]):
                daily[s, m_slot_day[k]] = equities[m_slot_hour[k]]
            metrics[s, END] = equities[hours - 1]
            # 1. The end of the interval
            if builders is not None:
                if isolated_count[s] > 0:
                    own_after_nb(s, held[s, :count], units[s], own_cash, d, intervals, coin_params)
            before_trade[s] = cash[s] + exit_usd
            if m_settles[d]:
                count, gone = settle_nb(s, count, held, units, d, m_settle_hour)
                metrics[s, TRADES] += gone
                counters[s, DELISTINGS] += gone
            held_count[s] = count
            most_held_usd[s] = highest_usd
            metrics[s, TOTALS + FUNDING_COST] += paid_usd
    for s in range(S):
        if counters[s, REFUSED] >= 0:
            continue
        if counters[s, LIQUIDATED_ROW] >= 0:
            metrics[s, END] = cash[s]
        metrics[s, MAX_DRAWDOWN] = deepest[s]
        metrics[s, TOTALS + PRICE_PNL] = metrics[s, END] - sim_params.initial_equity_usd
        for column in (SPREAD_COST, IMPACT_COST, FEE_COST, FUNDING_COST):
            metrics[s, TOTALS + PRICE_PNL] += metrics[s, TOTALS + column]
        first = counters[s, FIRST_ASKING]
        summarise_nb(s, daily, np.int64(0), changes, metrics, np.int64(CALENDAR))
        own_day = intervals.first_day[first] if first >= 0 else daily.shape[1]
        if own_day > 0:
            summarise_nb(s, daily, own_day, changes, metrics, np.int64(CAGR))
        for k in range(0 if own_day > 0 else CALENDAR - CAGR):
            metrics[s, CAGR + k] = metrics[s, CALENDAR + k]


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
                            column = np.uint64(word * 64) + lowest_nb(rest)
                            out_coins[e] = column
                            out_weights[e] = value[column]
                            e += one
                            rest &= rest - one
                out_indptr[(r * P + p) * D + d + 1] = e
    return e
