"""backtest_many(): thousands of books over one panel in one compiled pass, metrics only."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from engine.clock import show
from engine.config import RunConfig
from engine.errors import DataError, WeightsError
from engine.oracle import GROSS_TOLERANCE, excess, validate_decisions
from engine.panel import Panel
from engine.result import FLOWS
from engine.simulate import check_config, check_schedule, kernel_inputs, trade_rows
from engine.variants import applied, traded_weights

if TYPE_CHECKING:
    from engine.kernel import Coins, Fees, Market, Rules, Tape

#: Books that one call of the kernel runs side by side, at least and at most: the more share a day's prices the better,
#: as long as every thread has work and their state stays in the cache.
TILES = (32, 256)
_DISORDERED = "Sparse weights have a row whose coins do not ascend; each column may stand there once."


@dataclass(frozen=True)
class SparseWeights:
    """Weight matrices of P books in which most weights are 0.

    Attributes
    ----------
    indptr : ndarray, (P * D + 1,) int64
        Entries of book ``p`` at decision ``d`` are ``indptr[p * D + d]`` up to the next.
    coins : ndarray, (K,) integer
        Column of each entry in ``panel.coins``, ascending within a row.
    weights : ndarray, (K,) float64
        Signed fractions of equity; NaN = hold; a coin without an entry = 0.
    """

    indptr: np.ndarray
    coins: np.ndarray
    weights: np.ndarray

    def __post_init__(self) -> None:
        # The kernel trusts these: a wrong one would make it read memory that is not its own.
        rows = self.indptr
        ascends = len(rows) > 1 and rows[0] == 0 and bool((np.diff(rows) >= 0).all())
        if not ascends or not rows[-1] == len(self.coins) == len(self.weights):
            raise WeightsError(
                f"Sparse weights do not fit together: indptr must ascend from 0 to the number of entries; it ends at "
                f"{rows[-1] if len(rows) else None}, with {len(self.coins)} coins and {len(self.weights)} weights."
            )

    @classmethod
    def from_dense(cls, weights_pdn: np.ndarray) -> SparseWeights:
        """Keep the entries of a (P, D, N) array that are not 0."""
        books, rows, coins = np.nonzero(weights_pdn)
        counts = np.bincount(books * weights_pdn.shape[1] + rows, minlength=weights_pdn.shape[0] * weights_pdn.shape[1])
        return cls(np.append(0, np.cumsum(counts)), coins.astype(np.uint32), weights_pdn[books, rows, coins])

    def part(self, first: int, last: int, decisions: int) -> SparseWeights:
        """Books `first` up to `last`; the entries are not copied."""
        indptr = self.indptr[first * decisions : last * decisions + 1]
        entries = slice(int(indptr[0]), int(indptr[-1]))
        return SparseWeights(indptr - indptr[0], self.coins[entries], self.weights[entries])

    def to_dense(self, decisions: int, coins: int) -> np.ndarray:
        """The (P, D, N) array."""
        places = np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr)) * coins + self.coins.astype(np.int64)
        if (np.diff(places) <= 0).any():
            raise WeightsError(_DISORDERED)
        dense = np.zeros((len(self.indptr) - 1) * coins)
        dense[places] = self.weights
        return dense.reshape(-1, decisions, coins)


Weights = np.ndarray | SparseWeights


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
        chunk
        at a time is in memory.
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
        Only with `daily_returns`.

    Raises
    ------
    WeightsError
        For weights that are infinite or above the gross limit (book, instant and coin are named), or decisions that the
        panel lacks.
    """
    config = check_config(config)
    if panel.as_known:
        raise DataError("backtest_many() needs the panel itself, not panel.known(): there the funding is an hour late.")
    ascending, order = validate_decisions(decisions, panel)
    if (np.diff(order) < 0).any():
        raise WeightsError("The decisions of backtest_many() must be ascending, for the weights are in their order.")
    check_schedule(ascending, config)
    rows, _ = trade_rows(ascending, panel, config)
    inputs = kernel_inputs(panel, config)
    market = prepare(panel, rows, inputs[0], inputs[3], config.execution.hour_utc)
    impact = _impact(rows, *inputs)
    chunks: Iterator[Weights] = iter(
        (weights_pdn,) if isinstance(weights_pdn, np.ndarray | SparseWeights) else weights_pdn
    )
    tables, returns = [], []
    done = 0
    threads = threads or os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        for chunk in chunks:
            figures, counters, daily = _run(
                pool, chunk, (market, impact, *inputs), panel, ascending, config, done, threads
            )
            tables.append(_table(figures, counters, daily.shape[1] - 1, panel, config))
            if daily_returns:
                before = daily[:, :-1]
                returns.append(np.where(before > 0.0, daily[:, 1:] / np.where(before > 0.0, before, 1.0) - 1.0, 0.0))
            done += len(figures)
    if not tables:
        raise WeightsError("backtest_many() was given no weights.")
    table = pd.concat(tables, ignore_index=True)
    if not daily_returns:
        return table
    days = panel.index[panel.index.hour == config.execution.hour_utc][1:]
    return table, pd.DataFrame(np.concatenate(returns).T, index=days)


def prepare(panel: Panel, rows: np.ndarray, tape: Tape, rules: Rules, hour_utc: int) -> Market:
    """Cut a panel at the trade rows, (D,); see :class:`engine.kernel.Market`."""
    from engine.kernel import Market, cut_nb, fills_nb, known_prices_nb

    bounds = np.append(rows, len(panel.index))
    price, settles = known_prices_nb(tape.mid, rules.stale_hours)
    value, carried, carries, exit_value, exit_carried, exit_funding, settled = cut_nb(
        price, settles, tape.funding, tape.funding_price, bounds
    )
    buy, sell = fills_nb(tape, rows, rules.half_spread_frac)
    daily = panel.index.hour == hour_utc
    return Market(
        bounds,
        value,
        carried,
        carries,
        tape.mid[rows],
        buy,
        sell,
        panel.tradable[rows],
        exit_value,
        exit_carried,
        exit_funding,
        settled,
        np.where(daily, np.cumsum(daily) - 1, -1),
        price,
    )


def _impact(rows: np.ndarray, tape: Tape, _: Fees, table: Coins, rules: Rules) -> tuple[Any, ...] | None:
    """What the batch kernel needs for impact at the trade rows; None when none is modelled."""
    if not rules.impact:
        return None
    if tape.impact_ask.shape[0]:
        return tape.impact_ask[rows], tape.impact_bid[rows], rules.impact_frac, table.impact_reference_usd
    return tape.impact_ask, tape.impact_bid, rules.impact_frac, table.impact_reference_usd


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
    """Figures, counters and daily equity of a chunk's books, a tile of them a task; `done` books came before."""
    from engine.kernel import COUNTERS, FIGURES, batch_nb

    market: Market = inputs[0]
    books = _books(chunk, len(decisions), market.mid.shape[1])
    figures, counters = np.empty((books, FIGURES)), np.empty((books, COUNTERS), dtype=np.int64)
    daily = np.empty((books, int((market.daily_slot >= 0).sum())))

    size = int(np.clip(-(-books // threads), *TILES))

    def run(first: int) -> None:
        part = slice(first, min(first + size, books))
        tile = _traded(chunk, part, panel, decisions, config, done)
        entries = _gather(tile, part.stop - part.start, len(market.mid), decisions, config, done + part.start)
        batch_nb(*inputs, *entries, figures[part], counters[part], daily[part])

    for _ in pool.map(run, range(0, books, size)):
        pass
    return figures, counters, daily


def _books(chunk: Weights, decisions: int, coins: int) -> int:
    if isinstance(chunk, SparseWeights):
        if (len(chunk.indptr) - 1) % decisions or (
            len(chunk.coins) and not 0 <= chunk.coins.min() <= chunk.coins.max() < coins
        ):
            raise WeightsError(
                f"Sparse weights of {len(chunk.indptr) - 1} rows do not fit {decisions} decisions and {coins} coins."
            )
        return (len(chunk.indptr) - 1) // decisions
    if not isinstance(chunk, np.ndarray) or chunk.ndim != 3 or chunk.shape[1:] != (decisions, coins):
        shape = getattr(chunk, "shape", type(chunk).__name__)
        raise WeightsError(
            f"Weights of shape {shape} were given; (books, {decisions} decisions, {coins} coins) is needed."
        )
    return len(chunk)


def _traded(
    chunk: Weights, part: slice, panel: Panel, decisions: pd.DatetimeIndex, config: RunConfig, done: int
) -> Weights:
    """A tile's books with the execution variants applied, which makes them dense; as they are when there is none."""
    tile = chunk.part(part.start, part.stop, len(decisions)) if isinstance(chunk, SparseWeights) else chunk[part]
    if not applied(config):
        return tile
    dense = tile.to_dense(len(decisions), len(panel.coins)) if isinstance(tile, SparseWeights) else tile
    if np.isinf(dense).any():
        book, d, _ = (int(place[0]) for place in np.nonzero(np.isinf(dense)))
        raise WeightsError(f"A weight of book {done + part.start + book} on {show(decisions[d])} is infinite.")
    return traded_weights(dense, decisions, panel, config)


def _gather(
    books: Weights, count: int, traded: int, decisions: pd.DatetimeIndex, config: RunConfig, first: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries of a tile's books, from book `first` on, in the order of the kernel; refuses a gross above the limit."""
    from engine.kernel import gather_dense_nb, gather_sparse_nb

    limit = config.account.max_gross * (1.0 + GROSS_TOLERANCE)
    indptr = np.zeros(traded * count + 1, dtype=np.int64)
    if isinstance(books, SparseWeights):
        entries = (indptr, np.empty(len(books.coins), dtype=np.uint32), np.empty(len(books.coins)))
        (book, d), disordered = gather_sparse_nb(books.indptr, books.coins, books.weights, limit, count, *entries)
        if disordered:
            raise WeightsError(_DISORDERED)
    else:
        # Room for every weight; memory that is not written to costs nothing.
        room = count * traded * books.shape[2]
        entries = (indptr, np.empty(room, dtype=np.uint32), np.empty(room))
        book, d = gather_dense_nb(np.ascontiguousarray(books, dtype=np.float64), limit, *entries)
    if book >= 0:
        weights = entries[2][indptr[d * count + book] : indptr[d * count + book + 1]]
        shown, allowed = excess(float(np.nansum(np.abs(weights))), config.account.max_gross)
        raise WeightsError(
            f"Gross weight {shown} of book {first + book}{applied(config)} on {show(decisions[d])} exceeds {allowed} "
            "(account.max_gross). Scale the weights or raise the limit."
        )
    return entries


def _table(figures: np.ndarray, counters: np.ndarray, days: int, panel: Panel, config: RunConfig) -> pd.DataFrame:
    """Columns as Result.metrics."""
    from engine import kernel

    start = config.account.initial_equity_usd
    rows = counters[:, kernel.LIQUIDATED_ROW]
    growth, deepest = figures[:, kernel.CAGR], figures[:, kernel.MAX_DRAWDOWN]
    columns: dict[str, Any] = {
        "equity_start_usd": start,
        "equity_end_usd": figures[:, kernel.END],
        "total_return": figures[:, kernel.END] / start - 1.0,
        "cagr": growth,
        "volatility": figures[:, kernel.VOLATILITY],
        "sharpe": figures[:, kernel.SHARPE],
        "sortino": figures[:, kernel.SORTINO],
        "max_drawdown": deepest,
        "calmar": np.divide(growth, np.abs(deepest), out=np.full(len(growth), np.nan), where=deepest < 0.0),
        "days": max(days, 0),
        "decisions": counters[:, kernel.DECISIONS],
        "turnover_daily": figures[:, kernel.TURNOVER],
        "gross_mean": figures[:, kernel.GROSS_MEAN],
        "net_mean": figures[:, kernel.NET_MEAN],
        "trades": figures[:, kernel.TRADES].astype(np.int64),
        "skipped_min_notional": counters[:, kernel.SKIPPED_MINIMUM],
        "skipped_band": counters[:, kernel.SKIPPED_BAND],
        "untradable_orders": counters[:, kernel.UNTRADABLE_ORDERS],
        "untradable_weight": figures[:, kernel.UNTRADABLE_WEIGHT],
        "delistings": counters[:, kernel.DELISTINGS],
        "liquidated_at": [None if row < 0 else panel.index[row].isoformat() for row in rows],
    }
    for place, name in enumerate(FLOWS):
        columns[name] = figures[:, kernel.TOTALS + place]
    return pd.DataFrame(columns)
