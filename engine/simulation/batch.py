"""Run thousands of weight matrices over one panel in one compiled pass; metrics only."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from engine.clock import show
from engine.config import RunConfig
from engine.errors import ConfigError, WeightsError
from engine.panel import Panel
from engine.simulation import metrics
from engine.simulation.backtest import check_config, check_panel, check_schedule, kernel_inputs, trade_rows
from engine.simulation.overlays import describe_overlays, traded_weights
from engine.simulation.result import FLOWS
from engine.simulation.sizing import initial_margin_error
from engine.weights import (
    UNSORTED,
    SparseWeights,
    Weights,
    check_any_value,
    check_finite,
    check_gross,
    checked_books,
    gross_limit,
    validate_decisions,
)

if TYPE_CHECKING:
    from engine.simulation.kernel import CoinParams, Fees, Intervals, MarketData, SimParams

#: Books that one call of the kernel runs side by side, at least and at most: the more share a day's prices the better,
#: as long as every thread has work and their state stays in the cache.
TILES = (32, 256)
#: Of books given dense at most: what they are gathered into stays near. Those that overlays make so are TILES together,
#: for an overlay is Python's work once a tile (64: 12 % slower).
DENSE_TILE = 64


def backtest_many(
    panel: Panel,
    weights_pdn: Weights | Iterable[Weights],
    decisions: pd.DatetimeIndex,
    config: RunConfig | None = None,
    *,
    threads: int | None = None,
    daily_returns: bool = False,
) -> pd.DataFrame | tuple[pd.DataFrame, pd.DataFrame]:
    """Run many weight matrices over one panel; the numbers of :func:`engine.backtest`, without its frames.

    Parameters
    ----------
    panel : Panel
        T hours x N coins.
    weights_pdn : ndarray (P, D, N), SparseWeights, or an iterable of chunks of either
        Signed fractions of equity by book, decision and coin of ``panel.coins``; NaN = hold. From an iterable, one
        chunk at a time is in memory.
    decisions : DatetimeIndex, (D,)
        Ascending decision instants, UTC, rows of the panel.
    config : RunConfig, optional
        Default: all defaults of the contract.
    threads : int, optional
        Default: one a processor. The numbers do not depend on it.
    daily_returns : bool
        Also return the daily returns.

    Returns
    -------
    table : DataFrame, (P, metrics)
        Row p = book p, columns as :attr:`engine.Result.metrics`.
    returns : DataFrame, (days, P)
        Only with `daily_returns`. NaN until a book's first decision that asks for something.

    Raises
    ------
    WeightsError
        For what :func:`engine.backtest` refuses, of the first such book: weights that are infinite, NaN throughout,
        above the gross limit or in need of more initial margin than the account has, decisions that the panel lacks.
        And for decisions that do not ascend.
    """
    config = check_config(config)
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise ConfigError(f"threads = {threads!r} is not accepted: write 1 or more, or leave it out.")
    threads = threads or os.cpu_count() or 1
    prepared = prepare(panel, decisions, config, threads=threads)
    chunks = _chunks(weights_pdn)
    tables, returns = [], []
    done = 0
    with ThreadPoolExecutor(threads) as pool:
        for chunk in chunks:
            table, daily = run_books(prepared, chunk, pool, threads, done)
            tables.append(table)
            if daily_returns:
                returns.append(metrics.counted(metrics.daily_returns(daily), table["days"]))
            done += len(table)
    if not done:
        raise WeightsError("backtest_many() was given no weights: at least one book is needed.")
    table = pd.concat(tables, ignore_index=True)
    return (table, pd.DataFrame(np.concatenate(returns).T, index=prepared.days)) if daily_returns else table


def _chunks(weights: Weights | Iterable[Weights]) -> Iterator[Weights]:
    if isinstance(weights, np.ndarray | SparseWeights):
        return iter((weights,))
    if isinstance(weights, pd.DataFrame) or not isinstance(weights, Iterable):
        raise WeightsError(
            f"backtest_many() was given {type(weights).__name__} as weights; an array (books, decisions, coins), "
            "SparseWeights or an iterable of such is needed. For one frame there is backtest()."
        )
    return iter(weights)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A panel prepared for any number of books under one config and schedule.

    Attributes
    ----------
    decisions : DatetimeIndex, (D,)
        Ascending.
    inputs : tuple
        What :func:`engine.simulation.kernel.batch_nb` takes of the market.
    """

    panel: Panel
    decisions: pd.DatetimeIndex
    config: RunConfig
    inputs: tuple[Any, ...]

    @property
    def days(self) -> pd.DatetimeIndex:
        """Instants at which the daily returns end."""
        return self.panel.index[self.panel.index.hour == self.config.execution.hour_utc][1:]


def prepare(
    panel: Panel,
    decisions: pd.DatetimeIndex,
    config: RunConfig,
    keep: Callable[[Hashable, Callable[[], Intervals]], Intervals] = lambda _, make: make(),
    threads: int = 1,
) -> Prepared:
    """Validate panel, decisions and config, and cut the panel at the rows of the trades.

    Cutting it into intervals is most of the work, which `threads` share, and many configs share them: `keep` is called
    with a key of what they depend on besides the panel and a function that makes them, and may return cached ones.
    """
    from engine.simulation.kernel import impact_terms_nb, price_terms_nb

    check_panel(panel, "backtest_many()")
    ascending, order = validate_decisions(decisions, panel)
    if (np.diff(order) < 0).any():
        raise WeightsError(
            "The decisions of backtest_many() must be ascending, for the weights are in their order. Sort both: "
            "order = decisions.argsort(), then weights_pdn[:, order] and decisions[order]."
        )
    check_schedule(ascending, config)
    rows, _ = trade_rows(ascending, panel, config)
    market, fees, coin_params, sim_params = kernel_inputs(panel, config)
    hour_utc = config.execution.hour_utc
    settings = hour_utc, sim_params.stale_hours, config.costs.funding, config.costs.funding_missing, len(market.low)
    key = (rows.tobytes(), *settings)
    # What is missing is missing in the panel, whatever is paid in its place.
    rates = panel.values("funding") if market.funding.shape[0] else market.funding
    intervals = keep(key, lambda: _cut(panel, rows, market, sim_params, hour_utc, rates, threads))
    first_day = metrics.first_days(panel.index.hour == hour_utc, rows - config.execution.delay_hours)
    bands, half_spread_frac = coin_params.band_frac, sim_params.half_spread_frac
    terms = price_terms_nb(market, rows, coin_params.lot_scale, bands, half_spread_frac, intervals.terms)
    intervals = intervals._replace(terms=terms, first_day=first_day, rates=rates)
    impact = None
    if sim_params.impact:
        impact_terms = impact_terms_nb(market, rows, coin_params, sim_params.impact_frac, terms)
        impact = impact_terms, coin_params.impact_reference_usd
    inputs = (intervals, impact, market, fees, coin_params, sim_params)
    return Prepared(panel, ascending, config, inputs)


def run_books(
    prepared: Prepared, chunk: Weights, pool: ThreadPoolExecutor, threads: int, done: int = 0
) -> tuple[pd.DataFrame, np.ndarray]:
    """Table of metrics and daily equity, (books, days + 1), of a chunk's books; `done` books precede it."""
    from engine.simulation.kernel import HELD_HOURS, UNRATED_HOURS

    values, counters, daily = _run(
        pool, chunk, prepared.inputs, prepared.panel, prepared.decisions, prepared.config, done, threads
    )
    panel, start = prepared.panel, prepared.config.account.initial_equity_usd
    if prepared.config.costs.funding and "funding" not in panel.fields:
        counters[:, UNRATED_HOURS] = counters[:, HELD_HOURS]
    intervals: Intervals = prepared.inputs[0]
    rows = intervals.rows[:-1], intervals.first_day
    columns = _columns(values, counters, *rows, len(prepared.days), panel.index, start)
    return pd.DataFrame(columns), daily


def _cut(
    panel: Panel,
    rows: np.ndarray,
    market: MarketData,
    sim_params: SimParams,
    hour_utc: int,
    rates: np.ndarray,
    threads: int,
) -> Intervals:
    """The intervals without their fill prices, which depend on costs, and without the panel's `rates`."""
    from engine.simulation.kernel import (
        LANES,
        NEVER,
        TERMS,
        Intervals,
        interval_hours_nb,
        known_prices_nb,
        lined_nb,
        precompute_intervals_nb,
        worst_hours_nb,
    )

    bounds = np.append(rows, len(panel.index))
    D, N = len(rows), len(panel.coins)
    price, settles = np.empty(market.mid.shape), np.zeros(market.mid.shape, np.bool_)
    known_prices_nb(market.mid, sim_params.stale_hours, price, settles)
    width = -(-np.diff(bounds) // LANES) * LANES
    path_at = (np.cumsum(width) - width) * N
    made = lined_nb(N * width.sum()), path_at, width, np.zeros((D * N + 1) * TERMS), np.full((D, N), NEVER)
    paths = *made, np.zeros(D, np.bool_), np.ones(D)

    def precompute(first: int, last: int) -> None:
        precompute_intervals_nb(price, settles, market.funding, market.funding_price, bounds, first, last, *paths)

    parts = np.linspace(0, D, threads + 1).astype(np.int64)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(precompute, parts[:-1], parts[1:]))
    worst = np.zeros((0, 0)), np.zeros((0, 0)), np.zeros(0)
    if len(market.low):
        worst = worst_hours_nb(market, price, *paths[:-2], bounds)
    daily = np.flatnonzero(panel.index.hour == hour_utc)
    first = np.searchsorted(daily, bounds[0])
    interval = np.searchsorted(rows, daily[first:], side="right") - 1
    slots = np.searchsorted(daily, bounds) - first, daily[first:] - rows[interval], np.arange(first, len(daily))
    hours = (np.zeros((0, 0), np.int64), np.zeros((0, 0), np.int64), np.zeros(len(rows), np.bool_))
    if np.isnan(rates).any():
        hours = interval_hours_nb(market.mid, price, settles, rates, bounds)
    return Intervals._make((bounds, *paths, *slots, *worst, rows, price, rates[:0], *hours))


def _builders(fees: Fees, coin_params: CoinParams, books: int) -> tuple[np.ndarray, ...] | None:
    """What the batch kernel needs for builders' coins, for so many books; None where there are none."""
    isolated = coin_params.isolated
    if not (fees.factor.shape[1] or len(isolated)):
        return None
    own_cash = np.zeros((books, len(isolated)) if len(isolated) else (1, 1))
    return fees.factor, isolated, coin_params.margin_floor_usd, coin_params.margin_step, own_cash


def _parts(sim_params: SimParams) -> tuple[bool, float] | None:
    """What the batch kernel needs to trade a part of the way; None where it trades all of it."""
    if sim_params.to_edge or sim_params.trade_rate < 1.0:
        return sim_params.to_edge, sim_params.trade_rate
    return None


def _run(
    pool: ThreadPoolExecutor,
    chunk: Weights,
    inputs: tuple[Any, ...],
    panel: Panel,
    decisions: pd.DatetimeIndex,
    config: RunConfig,
    done: int,
    threads: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Metrics, counters and daily equity of a chunk's books, a tile of them a task; `done` books precede it."""
    from engine.simulation.kernel import COUNTERS, END, FIRST_ASKING, GROSS, LIQUIDATED_ROW, METRICS, REFUSED, batch_nb

    chunk, books = checked_books(chunk, len(decisions), len(panel.coins))
    values, counters = np.zeros((books, METRICS)), np.zeros((books, COUNTERS), dtype=np.int64)
    counters[:, [LIQUIDATED_ROW, FIRST_ASKING, REFUSED]] = -1
    days = int((panel.index.hour == config.execution.hour_utc).sum())
    daily = np.full((books, days), config.account.initial_equity_usd)

    size = int(np.clip(-(-books // threads), *TILES))
    size = size if isinstance(chunk, SparseWeights) else min(size, DENSE_TILE)
    own = threading.local()

    def room() -> tuple[np.ndarray, np.ndarray]:
        if not hasattr(own, "room"):  # for every weight of a tile; what is never written to costs nothing
            weights_count = size * len(decisions) * len(panel.coins)
            own.room = np.empty(weights_count, np.uint32), np.empty(weights_count)
        return own.room

    def run(first: int, last: int) -> None:
        part = slice(first, last)
        tile = chunk.part(first, last, len(decisions)) if isinstance(chunk, SparseWeights) else chunk[part]
        check = partial(_check_book, tile, panel, decisions, config, done + first)
        traded = _traded(tile, panel, decisions, config, check)
        entries = _entries(traded, last - first, len(decisions), config, check, room)
        builders = _builders(inputs[3], inputs[4], last - first)
        parts = _parts(inputs[5])
        batch_nb(inputs[0], builders, parts, *inputs[1:], *entries, values[part], counters[part], daily[part])
        refused = np.flatnonzero(counters[part, REFUSED] >= 0)
        if len(refused):
            book, d = int(refused[0]), int(counters[part][refused[0], REFUSED])
            row, figures = _dense(traded, book, len(decisions), len(panel.coins))[d], values[part][book]
            where = f" of book {done + first + book}{describe_overlays(config)} on {show(decisions[d])}"
            raise initial_margin_error(where, panel.table, inputs[4].isolated, row, figures[END], figures[GROSS])
        for book in np.flatnonzero(counters[part, FIRST_ASKING] < 0).tolist():
            if _is_full(tile, book, len(decisions), len(panel.coins)):
                check(book, traded)

    def run_tile(first: int) -> None:
        last = min(first + size, books)
        try:
            run(first, last)
        except WeightsError:  # which of a tile's books it names depends on the tile's size; the first one does not
            for book in range(first, last):
                run(book, book + 1)
            raise

    for _ in pool.map(run_tile, range(0, books, size)):
        pass
    return values, counters, daily


def _check_book(
    tile: Weights,
    panel: Panel,
    decisions: pd.DatetimeIndex,
    config: RunConfig,
    first: int,
    book: int,
    traded: Weights | None = None,
) -> None:
    """Refuse what :func:`engine.backtest` refuses of a `tile`'s book, by its checks; `first` books precede the tile.

    The checks of the compiled pass only say which books these may be. Of `traded`, what the overlays make of the tile,
    the gross is checked; without it only what was asked for is.
    """
    which = f" of book {first + book}"
    values = _dense(tile, book, len(decisions), len(panel.coins))
    check_finite(values, panel.coins, decisions, which)
    check_any_value(values, which)
    if traded is not None:
        own = values if traded is tile else _dense(traded, book, len(decisions), len(panel.coins))
        check_gross(own, decisions, config.account.max_gross, which + describe_overlays(config))


def _dense(books: Weights, book: int, decisions: int, coins: int) -> np.ndarray:
    """One of the books, (D, N), float64."""
    if isinstance(books, SparseWeights):
        return books.part(book, book + 1, decisions).to_dense(decisions, coins)[0]
    return np.asarray(books[book], dtype=np.float64)


def _is_full(books: Weights, book: int, decisions: int, coins: int) -> bool:
    """Whether a book may have an entry that is not 0 in every cell."""
    if not isinstance(books, SparseWeights):
        return True
    first, last = books.indptr[book * decisions], books.indptr[(book + 1) * decisions]
    return bool(last - first == decisions * coins)


def _traded(
    tile: Weights, panel: Panel, decisions: pd.DatetimeIndex, config: RunConfig, check: Callable[[int], None]
) -> Weights:
    """A tile's books with the execution variants applied, which makes them dense; as they are when there is none."""
    if not describe_overlays(config):
        return tile
    dense = tile.to_dense(len(decisions), len(panel.coins)) if isinstance(tile, SparseWeights) else tile
    for book in np.flatnonzero(np.isinf(dense).any(axis=(1, 2))).tolist():
        check(book)
    return traded_weights(dense, decisions, panel, config)


def _entries(
    books: Weights,
    count: int,
    step: int,
    config: RunConfig,
    check: Callable[[int, Weights], None],
    room: Callable[[], tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Entries of a tile's books, as the kernel takes them, `step` rows a book; refuses what `check` refuses of them.

    Coins and weights of dense books are written to `room`, which a thread keeps: fresh memory is slow to write to.
    """
    from engine.simulation.kernel import check_sparse_nb, gather_dense_nb

    # A little less: the kernel's sums are ordered otherwise than those of the check, which decides.
    limit = gross_limit(config.account.max_gross) * (1.0 - 1e-12)
    if isinstance(books, SparseWeights):
        coins = np.ascontiguousarray(books.coins, dtype=np.uint32)
        indptr, weights = books.indptr, np.ascontiguousarray(books.weights, dtype=np.float64)
        (book, _), disordered = check_sparse_nb(indptr, coins, weights, limit, step, step)
        if disordered:
            raise WeightsError(UNSORTED)
    else:
        indptr, (coins, weights) = np.zeros(step * count + 1, dtype=np.int64), room()
        book, _ = gather_dense_nb(np.ascontiguousarray(books, dtype=np.float64), limit, indptr, coins, weights)
    for suspect in range(book, count) if book >= 0 else ():
        check(suspect, books)
    return indptr, coins, weights, step


def _columns(
    values: np.ndarray,
    counters: np.ndarray,
    rows: np.ndarray,
    first_day: np.ndarray,
    days: int,
    index: pd.DatetimeIndex,
    start: float,
) -> dict[str, Any]:
    """Columns as Result.metrics."""
    from engine.simulation import kernel

    first, made = counters[:, kernel.FIRST_ASKING], counters[:, kernel.DECISIONS]
    asks = first >= 0
    own, calendar = (
        values[:, column : column + len(metrics.ANNUAL_FIGURES)].T for column in (kernel.CAGR, kernel.CALENDAR)
    )
    return metrics.figures(
        start,
        values[:, kernel.END],
        values[:, kernel.MAX_DRAWDOWN],
        (np.where(asks, np.maximum(days - first_day[first], 0), 0), days),
        (own, calendar),
        values[:, kernel.TURNOVER : kernel.TRADES].T,
        (np.where(asks, made - first, 0), made),
        [metrics.days_begun(rows[np.maximum(k, 0)], len(index)) for k in (first, np.zeros_like(first))],
        {
            "decisions": made,
            "trades": values[:, kernel.TRADES].astype(np.int64),
            "skipped_min_notional": counters[:, kernel.SKIPPED_MINIMUM],
            "skipped_band": counters[:, kernel.SKIPPED_BAND],
            "untradable_orders": counters[:, kernel.UNTRADABLE_ORDERS],
            "delistings": counters[:, kernel.DELISTINGS],
            "isolated_liquidations": counters[:, kernel.ISOLATED_LIQUIDATIONS],
            "funding_missing_frac": counters[:, kernel.UNRATED_HOURS] / np.maximum(counters[:, kernel.HELD_HOURS], 1),
            # A type of its own: that of a list depends on whether a book of the chunk was liquidated.
            "liquidated_at": pd.Series(
                [None if row < 0 else index[row].isoformat() for row in counters[:, kernel.LIQUIDATED_ROW]],
                dtype=object,
            ),
            **dict(zip(FLOWS, values[:, kernel.TOTALS :].T, strict=True)),
        },
    )


def metric_names() -> list[str]:
    """Columns of the table, in their order."""
    from engine.simulation.kernel import COUNTERS, METRICS

    none = np.empty(0, dtype=np.int64)
    nothing = np.empty((0, METRICS)), np.empty((0, COUNTERS), np.int64), np.zeros(1, np.int64), none
    return list(_columns(*nothing, 0, pd.DatetimeIndex([]), 0.0))
