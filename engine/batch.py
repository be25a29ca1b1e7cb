"""backtest_many(): thousands of books over one panel in one compiled pass, metrics only."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from engine.config import RunConfig
from engine.errors import DataError, WeightsError
from engine.fees import taker_rates
from engine.metrics import calmar
from engine.oracle import GROSS_TOLERANCE, validate_decisions
from engine.panel import Panel
from engine.rebalance import lot_scales
from engine.result import FLOWS
from engine.simulate import check_schedule, funding_arrays, trade_rows

if TYPE_CHECKING:
    from engine.kernel import Market

#: Books that one call of the kernel runs side by side: enough to share a day's prices, few enough to stay in the cache.
TILE = 32


@dataclass(frozen=True)
class SparseWeights:
    """Weight matrices of P books in which most weights are 0.

    Attributes
    ----------
    indptr : ndarray, (P * D + 1,) int64
        Entries of book ``p`` at decision ``d`` are ``indptr[p * D + d]`` up to the next.
    coins : ndarray, (K,) int64
        Column of each entry in ``panel.coins``; no column twice in a row.
    weights : ndarray, (K,) float64
        Signed fractions of equity; NaN = hold; a coin without an entry = 0.
    """

    indptr: np.ndarray
    coins: np.ndarray
    weights: np.ndarray

    @classmethod
    def from_dense(cls, weights_pdn: np.ndarray) -> SparseWeights:
        """Keep the entries of a (P, D, N) array that are not 0."""
        from engine.kernel import compress_nb

        P, D, _ = weights_pdn.shape
        count = int(np.count_nonzero(weights_pdn))
        indptr = np.zeros(P * D + 1, dtype=np.int64)
        coins, weights = np.empty(count, dtype=np.int64), np.empty(count)
        compress_nb(np.ascontiguousarray(weights_pdn, dtype=np.float64), indptr, coins, weights)
        return cls(indptr, coins, weights)

    def books(self, decisions: int) -> int:
        """Number of books, when each has `decisions` rows."""
        return (len(self.indptr) - 1) // decisions

    def part(self, first: int, last: int, decisions: int) -> SparseWeights:
        """Books `first` up to `last`, without copying the entries."""
        indptr = self.indptr[first * decisions : last * decisions + 1]
        entries = slice(int(indptr[0]), int(indptr[-1]))
        return SparseWeights(indptr - indptr[0], self.coins[entries], self.weights[entries])


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
        Signed fractions of equity by book, decision and coin of ``panel.coins``; NaN = hold. From an iterable, one chunk
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
    config = config or RunConfig()
    if panel.as_known:
        raise DataError("backtest_many() needs the panel itself, not panel.known(): there the funding is an hour late.")
    ascending, order = validate_decisions(decisions, panel)
    if (np.diff(order) < 0).any():
        raise WeightsError("The decisions of backtest_many() must be ascending, for the weights are in their order.")
    check_schedule(ascending, config)
    rows, inside = trade_rows(decisions, panel, config)
    market = prepare(panel, rows, config)
    chunks: Iterator[Weights] = iter(
        (weights_pdn,) if isinstance(weights_pdn, np.ndarray | SparseWeights) else weights_pdn
    )
    tables, returns = [], []
    done = 0
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for chunk in chunks:
            figures, counters, daily = _run(pool, chunk, market, panel, decisions, inside, config, done)
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


def prepare(panel: Panel, rows: np.ndarray, config: RunConfig) -> Market:
    """Cut a panel at the trade rows, (D,); see :class:`engine.kernel.Market`."""
    from engine.kernel import Market

    T, N = panel.tradable.shape
    D = len(rows)
    mid = panel.values("mid")
    price, missing = _last_known(mid)
    sell, buy = price * (1 - config.costs.half_spread_bps / 1e4), price * (1 + config.costs.half_spread_bps / 1e4)
    if "bid" in panel.fields and "ask" in panel.fields:
        quoted = ~np.isnan(panel.values("bid")) & ~np.isnan(panel.values("ask"))
        sell, buy = np.where(quoted, panel.values("bid"), sell), np.where(quoted, panel.values("ask"), buy)
    payment = np.zeros((T, N))
    if config.costs.funding and "funding" in panel.fields:
        rate, base = funding_arrays(panel)
        payment = np.nan_to_num(np.where(np.isnan(base), price, base) * rate, nan=0.0)
    bounds = np.append(rows, T)
    value, carried = np.empty(N * (T - rows[0])), np.empty(N * (T - rows[0]))
    exit_value, exit_carried, exit_funding = (np.empty((D, N)) for _ in range(3))
    settled = np.zeros((D, N), dtype=np.bool_)
    events = missing == config.execution.stale_hours
    for d in range(D):
        start, stop = int(bounds[d]), int(bounds[d + 1])
        last = min(stop, T - 1)  # the row at which the interval is marked for the last time
        worth = price[start:stop].T.copy()
        cash = -np.cumsum(payment[start:stop], axis=0).T
        exit_value[d], exit_carried[d], exit_funding[d] = price[last], cash[:, -1], -cash[:, -1]
        for i in np.flatnonzero(events[start + 1 : last + 1].any(axis=0)):
            row = start + 1 + int(np.argmax(events[start + 1 : last + 1, i]))
            paid = -cash[i, row - start - 1]
            worth[i, row - start :] = 0.0
            cash[i, row - start :] = price[row, i] - paid
            exit_value[d, i], exit_carried[d, i], exit_funding[d, i] = 0.0, price[row, i] - paid, paid
            settled[d, i] = True
        block = slice(N * (start - int(rows[0])), N * (stop - int(rows[0])))
        value[block], carried[block] = worth.ravel(), cash.ravel()
    daily = panel.index.hour == config.execution.hour_utc
    rates = taker_rates(panel.index, config.costs.taker_bps)
    return Market(
        rows=bounds,
        # A coin without a price yet is never held; NaN would still poison nothing, but zeros are faster.
        value=np.nan_to_num(value, nan=0.0),
        carried=np.nan_to_num(carried, nan=0.0),
        mid=mid[rows],
        buy=buy[rows],
        sell=sell[rows],
        tradable=panel.tradable[rows],
        fee_rate=rates[rows],
        exit_value=exit_value,
        exit_carried=exit_carried,
        exit_funding=exit_funding,
        settled=settled,
        daily_slot=np.where(daily, np.cumsum(daily) - 1, -1),
        fills=np.stack((sell, buy)),
        price=price,
        all_fee_rates=rates,
    )


def _last_known(mid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Last price at or before each row, and the count of consecutive rows without one."""
    T = len(mid)
    rows = np.arange(T)[:, None]
    latest = np.maximum.accumulate(np.where(np.isnan(mid), -1, rows), axis=0)
    price = np.take_along_axis(mid, np.maximum(latest, 0), axis=0)
    return price, rows - latest


def _run(
    pool: ThreadPoolExecutor,
    chunk: Weights,
    market: Market,
    panel: Panel,
    decisions: pd.DatetimeIndex,
    inside: np.ndarray,
    config: RunConfig,
    done: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from engine.kernel import COUNTERS, FIGURES, batch_nb

    D, N = len(decisions), len(panel.coins)
    books = _books(chunk, D, N)
    figures, counters = np.empty((books, FIGURES)), np.empty((books, COUNTERS), dtype=np.int64)
    daily = np.empty((books, int((market.daily_slot >= 0).sum())))
    leverage = panel.max_leverage
    lots, maintenance = (
        lot_scales(panel.sz_decimals, config.execution),
        np.where(np.isfinite(leverage), 0.5 / leverage, 0.0),
    )

    def run(first: int) -> None:
        part = slice(first, min(first + TILE, books))
        if isinstance(chunk, SparseWeights):
            sparse = chunk.part(part.start, part.stop, D)
        else:
            sparse = SparseWeights.from_dense(chunk[part])
        _check(sparse, decisions, panel, config, done + first)
        if not inside.all():
            sparse = _first_rows(sparse, D, int(inside.sum()))
        batch_nb(
            market,
            sparse.indptr,
            sparse.coins,
            sparse.weights,
            lots,
            maintenance,
            config.account.initial_equity_usd,
            config.execution.min_notional_usd,
            config.execution.no_trade_band_frac,
            config.execution.untradable == "renormalise",
            config.account.margin,
            figures[part],
            counters[part],
            daily[part],
        )

    for _ in pool.map(run, range(0, books, TILE)):
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
        return chunk.books(decisions)
    if not isinstance(chunk, np.ndarray) or chunk.ndim != 3 or chunk.shape[1:] != (decisions, coins):
        shape = getattr(chunk, "shape", type(chunk).__name__)
        raise WeightsError(
            f"Weights of shape {shape} were given; (books, {decisions} decisions, {coins} coins) is needed."
        )
    return len(chunk)


def _check(sparse: SparseWeights, decisions: pd.DatetimeIndex, panel: Panel, config: RunConfig, first: int) -> None:
    """Refuse infinities and a gross above the limit, naming book, instant and coin."""
    size = np.abs(sparse.weights)
    gross = np.add.reduceat(np.append(np.where(np.isnan(size), 0.0, size), 0.0), sparse.indptr[:-1])
    gross = np.where(np.diff(sparse.indptr) > 0, gross, 0.0)
    limit = config.account.max_gross
    above = np.flatnonzero(~(gross <= limit * (1.0 + GROSS_TOLERANCE)))
    if len(above):
        book, d = divmod(int(above[0]), len(decisions))
        raise WeightsError(
            f"Gross weight {gross[above[0]]:.2f} of book {first + book} on {decisions[d]:%Y-%m-%d %H:%M} UTC exceeds {limit:.2f} "
            "(account.max_gross). Scale the weights or raise the limit."
        )


def _first_rows(sparse: SparseWeights, decisions: int, traded: int) -> SparseWeights:
    """Leave out the decisions whose trade would lie beyond the panel, the last ones of each book."""
    counts = np.diff(sparse.indptr).reshape(-1, decisions)
    kept = np.zeros_like(counts, dtype=np.bool_)
    kept[:, :traded] = True
    entries = np.repeat(kept.ravel(), counts.ravel())
    indptr = np.concatenate(([0], np.cumsum(counts[:, :traded].ravel())))
    return SparseWeights(indptr, sparse.coins[entries], sparse.weights[entries])


def _table(figures: np.ndarray, counters: np.ndarray, days: int, panel: Panel, config: RunConfig) -> pd.DataFrame:
    """Columns as Result.metrics."""
    from engine import kernel

    start = config.account.initial_equity_usd
    rows = counters[:, kernel.LIQUIDATED_ROW]
    columns: dict[str, Any] = {
        "equity_start_usd": start,
        "equity_end_usd": figures[:, kernel.END],
        "total_return": figures[:, kernel.END] / start - 1.0,
        "cagr": figures[:, kernel.CAGR],
        "volatility": figures[:, kernel.VOLATILITY],
        "sharpe": figures[:, kernel.SHARPE],
        "sortino": figures[:, kernel.SORTINO],
        "max_drawdown": figures[:, kernel.MAX_DRAWDOWN],
        "calmar": [
            calmar(growth, deepest)
            for growth, deepest in zip(figures[:, kernel.CAGR], figures[:, kernel.MAX_DRAWDOWN], strict=True)
        ],
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
