"""Run one weight matrix over a panel: validate, call the kernel, wrap its ledger."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from engine.clock import decision_instants, every_days_in_words, show, utc_days
from engine.config import RunConfig
from engine.data.price_checks import OddMove, odd_moves
from engine.errors import ConfigError, DataError, WeightsError, join_first
from engine.panel import Panel, read_only
from engine.simulation.costs import fee_arrays, fee_scale_notes, mean_rates, stressed_half_spread, stressed_market
from engine.simulation.metrics import missing_rates_note
from engine.simulation.overlays import describe_overlays, traded_weights
from engine.simulation.result import Result
from engine.simulation.sizing import (
    band_widths,
    check_band_coins,
    initial_margin_error,
    isolated_leverages,
    lot_scales,
    margin_arrays,
)
from engine.weights import GROSS_TOLERANCE, check_gross, gross_limit, validate_weights

if TYPE_CHECKING:
    from engine.simulation.kernel import Book, CoinParams, Fees, Ledger, MarketData, SimParams

#: Notional whose average price the venue's impact prices are, USD.
IMPACT_REFERENCE_USD = {"BTC": 20_000.0, "ETH": 20_000.0}
OTHER_REFERENCE_USD = 6_000.0
#: A position of less is no position.
DUST_USD = 0.01
#: What :func:`engine.data.price_checks.odd_moves` says of a panel: it takes longer than a run.
_ODD_MOVES: WeakKeyDictionary[Panel, list[OddMove]] = WeakKeyDictionary()
#: A field that the panel lacks.
_ABSENT = read_only(np.empty((0, 0)))


def backtest(panel: Panel, weights: pd.DataFrame, config: RunConfig | None = None) -> Result:
    """Run a weight matrix over a panel: :func:`engine.backtest`, which says what is taken and refused, without oracles.

    Parameters
    ----------
    panel, weights, config : Panel, DataFrame (D, coins), RunConfig
        As there.

    Returns
    -------
    Result
    """
    from engine.simulation.kernel import COIN, FUNDING_COST, REFUSED, ROW, simulate_nb

    check_panel(panel, "backtest()")
    config = check_config(config)
    decisions, values = validate_weights(weights, panel)
    traded = traded_weights(values, decisions, panel, config)
    check_gross(traded, decisions, config.account.max_gross, describe_overlays(config))
    check_schedule(decisions, config)
    rows, inside = trade_rows(decisions, panel, config)
    market, fees, coin_params, sim_params = kernel_inputs(panel, config)
    book, ledger = new_book(panel, config, len(rows))
    trades = simulate_nb(market, fees, coin_params, sim_params, traded[inside], rows, book, ledger)
    if (refused := int(ledger.counters[REFUSED])) >= 0:
        where = f"{describe_overlays(config)} on {show(decisions[refused])}"
        raise initial_margin_error(where, panel.table, coin_params.isolated, traded[refused], *ledger.margin_call)
    target = pd.DataFrame(values, index=decisions, columns=pd.Index(panel.coins, name="coin"))
    result = Result(panel, config, target, ledger._replace(trades=trades))
    mean, paid = config.costs.funding_missing == "mean", bool(ledger.flows[:, FUNDING_COST].any())
    unrated = missing_rates_note(result.funding_missing_frac, mean, paid)
    coins, first = np.unique(trades[:, COIN].astype(np.int64), return_index=True)  # trades are in the order of time
    instants = panel.index[trades[first, ROW].astype(np.int64)]
    scales = fee_scale_notes(panel.table, dict(zip((panel.coins[coin] for coin in coins), instants, strict=True)))
    found = (*dead_decisions(panel, rows), *odd_profits(panel, trades), *unrated, *scales)
    return replace(result, notes=(*panel.notes, *found))


def check_panel(panel: Panel, where: str) -> None:
    """Refuse anything but a panel, and the as-known copy that oracles get."""
    if not isinstance(panel, Panel):
        raise DataError(
            f"{where} needs a Panel, not {type(panel).__name__}. Make one with load_panel(...) or "
            "Panel.from_frames(mid=...)."
        )
    if panel.as_known:
        raise DataError(
            f"{where} needs the panel itself, not panel.point_in_time(): there the funding is an hour late."
        )


def check_config(config: RunConfig | None) -> RunConfig:
    """The config, or the defaults; anything else is refused."""
    if config is not None and not isinstance(config, RunConfig):
        raise ConfigError(f"config is {type(config).__name__}; build one with RunConfig.from_dict(...).")
    return config or RunConfig()


def decisions_of(panel: Panel, config: RunConfig | None = None) -> pd.DatetimeIndex:
    """Decision instants of the panel under the config's schedule."""
    execution = check_config(config).execution
    return decision_instants(panel.index, execution.hour_utc, execution.every_days, execution.weekdays)


def trade_rows(decisions: pd.DatetimeIndex, panel: Panel, config: RunConfig) -> tuple[np.ndarray, np.ndarray]:
    """Rows at which decisions of the panel are traded, and which of the decisions, (D,) bool, are traded inside it."""
    rows = panel.rows(decisions) + config.execution.delay_hours
    inside = rows < len(panel.index)
    if not inside.any():
        raise WeightsError(
            f"No decision can be traded: the panel ends at {show(panel.index[-1])}, and the first decision, "
            f"{show(decisions[0])}, is traded {config.execution.delay_hours} hours later."
        )
    return rows[inside], inside


def dead_decisions(panel: Panel, rows: np.ndarray) -> tuple[str, ...]:
    """A note on the decisions, traded at `rows` of the panel, that found no coin to trade: they did nothing."""
    dead = rows[~panel.tradable[rows].any(axis=1)]
    if not len(dead):
        return ()
    return (
        f"{len(dead)} of {len(rows)} decisions without any price to trade at: no order was sent. The first was at "
        f"{show(panel.index[dead[0]])}. `hlbt data status` lists what is missing.",
    )


def odd_profits(panel: Panel, trades: np.ndarray) -> tuple[str, ...]:
    """A note on prices that may be errors of the data while the book held the coin, with the profit it made there.

    Parameters
    ----------
    panel : Panel
        Market data.
    trades : ndarray, (M, 8)
        Trades of the kernel, by row; those of a row come after its move.
    """
    from engine.simulation.kernel import COIN, ROW, UNITS

    if panel not in _ODD_MOVES:
        _ODD_MOVES[panel] = odd_moves(panel.values("mid"))
    mid, made = panel.values("mid"), []
    for move in _ODD_MOVES[panel]:
        own = trades[trades[:, COIN] == move.column]
        profit = units = 0.0
        for row in range(move.before + 1, move.row + 1):
            held = float(own[own[:, ROW] < row, UNITS].sum())
            if row < move.row and np.isnan(mid[row, move.column]):
                continue
            last = mid[row - 1, move.column] if move.kind == "spike" else mid[move.before, move.column]
            profit += held * (mid[row, move.column] - last)
            units = max(units, abs(held))
        if units * mid[move.before, move.column] > DUST_USD:
            made.append((move, profit))
    if not made:
        return ()
    made.sort(key=lambda item: -abs(item[1]))
    listed = join_first(
        f"{panel.coins[move.column]} {move.kind} x{move.ratio:.4g} to {show(panel.index[move.row])}: {profit:+,.2f} USD"
        for move, profit in made
    )
    total = sum(profit for _, profit in made)
    return (
        f"{len(made)} odd prices while the coin was held made {total:+,.2f} USD in all ({listed}). They may be errors "
        "of the data: a jump over a hole, or a spike that came back in the next hour. `hlbt data status` lists them.",
    )


def check_schedule(decisions: pd.DatetimeIndex, config: RunConfig) -> None:
    """Refuse rows off the schedule that the config sets: every row is traded, so the two must agree."""
    execution = config.execution
    for hour in np.unique(decisions.hour):
        at_hour = decisions[decisions.hour == hour]
        planned = decision_instants(at_hour, int(hour), execution.every_days, execution.weekdays)
        if len(planned) < len(at_hour):
            off = at_hour.difference(planned)
            raise WeightsError(
                f"The weights have {len(off)} rows off the schedule execution.every_days = {execution.every_days} "
                f"({every_days_in_words(execution.every_days)}), "
                f"weekdays = {', '.join(execution.weekdays)}; the first is {show(off[0])}. Every row is traded, so "
                "leave those rows out or leave the schedule at its defaults."
            )


def kernel_inputs(panel: Panel, config: RunConfig) -> tuple[MarketData, Fees, CoinParams, SimParams]:
    """Panel and config as the kernel's records."""
    from engine.simulation.kernel import MarketData, SimParams

    execution, costs, account = config.execution, config.costs, config.account
    market = MarketData(
        panel.values("mid"),
        *_both(panel, "bid", "ask"),
        *_both(panel, "impact_bid", "impact_ask"),
        *funding_arrays(panel, config),
        panel.tradable,
        *_worst_prices(panel, config),
    )
    sim_params = SimParams(
        account.initial_equity_usd,
        execution.min_notional_usd,
        execution.no_trade_band == "to_edge",
        execution.trade_rate,
        stressed_half_spread(costs),
        costs.impact == "venue",
        costs.impact_bps / 1e4 * costs.stress,
        execution.stale_hours,
        execution.untradable == "renormalise",
        account.margin,
        1.0 + GROSS_TOLERANCE if account.initial_margin else np.inf,
        gross_limit(account.max_gross),
    )
    fees = fee_arrays(panel.index, costs, panel.table)
    return stressed_market(market, costs), fees, _coin_arrays(panel, config), sim_params


def new_book(panel: Panel, config: RunConfig, decisions: int = 0) -> tuple[Book, Ledger]:
    """An account before its first step, and the ledger that the kernel is to fill."""
    from engine.simulation import kernel

    hours, coins = len(panel.index), len(panel.coins)
    days = utc_days(panel.index[[0, -1]])
    book = kernel.Book(
        cash=np.full(1, config.account.initial_equity_usd),
        units=np.zeros(coins),
        price=np.full(coins, np.nan),
        missing=np.zeros(coins, dtype=np.int64),
        volume=np.zeros(days[1] - days[0] + 1),
        total_volume=np.zeros(1),
        own_cash=np.zeros(coins),
        trade_count=np.zeros(1, dtype=np.int64),
    )
    counters = np.zeros(kernel.COUNTERS, dtype=np.int64)
    counters[[kernel.LIQUIDATED_ROW, kernel.FIRST_ASKING, kernel.REFUSED]] = -1
    ledger = kernel.Ledger(
        equity=np.full(hours, np.nan),
        flows=np.zeros((hours, kernel.FLOW_COLUMNS)),
        coin_flows=np.zeros((coins, kernel.FLOW_COLUMNS)),
        gross=np.zeros(hours),
        net=np.zeros(hours),
        turnover=np.full(decisions, np.nan),
        untradable_weight=np.full(decisions, np.nan),
        trades=np.empty((max(64, 4 * coins), kernel.TRADE_COLUMNS)),
        counters=counters,
        margin_call=np.full(2, np.nan),
    )
    return book, ledger


def _coin_arrays(panel: Panel, config: RunConfig) -> CoinParams:
    from engine.simulation.kernel import CoinParams

    floors, steps = margin_arrays([coin.tiers for coin in panel.table])
    reference = impact_references(panel.coins)
    isolated = isolated_leverages(panel.table, config.execution) if config.account.margin else np.zeros(0)
    check_band_coins(panel.coins, config.execution)
    bands = band_widths(panel.coins, config.execution)
    return CoinParams(lot_scales(panel.sz_decimals, config.execution), floors, steps, reference, isolated, bands)


def _worst_prices(panel: Panel, config: RunConfig) -> tuple[np.ndarray, np.ndarray]:
    """Worst price of a long and of a short in the hour that ends at each row, (T, N); (0, 0) where none is asked for.

    Raises
    ------
    DataError
        For a panel without ``high`` and ``low``.
    """
    if config.account.margin_prices == "close":
        return _ABSENT, _ABSENT
    if lacking := [name for name in ("high", "low") if name not in panel.fields]:
        raise DataError(
            f'account.margin_prices = "extreme" needs the fields high and low; the panel lacks {" and ".join(lacking)}.'
            ' Sync candles, which have them, or use "close".'
        )
    price = pd.DataFrame(panel.values("mid")).ffill().to_numpy()
    return read_only(np.fmin(panel.values("low"), price)), read_only(np.fmax(panel.values("high"), price))


def _both(panel: Panel, bid: str, ask: str) -> tuple[np.ndarray, np.ndarray]:
    """Two fields, (T, N); (0, 0) unless the panel has both."""
    if bid in panel.fields and ask in panel.fields:
        return panel.values(bid), panel.values(ask)
    return _ABSENT, _ABSENT


def impact_references(coins: Iterable[str]) -> np.ndarray:
    """Notional, USD, whose average price the exchange's impact prices of each coin are, (N,)."""
    return np.array([IMPACT_REFERENCE_USD.get(coin, OTHER_REFERENCE_USD) for coin in coins])


def funding_arrays(panel: Panel, config: RunConfig) -> tuple[np.ndarray, np.ndarray]:
    """Rate, and the price on which it is paid: oracle, else mark, else mid; the kernel falls back to the last price.

    (0, 0) where the panel has no rate or the config settles none.
    """
    if "funding" not in panel.fields or not config.costs.funding:
        return _ABSENT, _ABSENT
    price = panel.values("mid")
    for name in ("mark", "oracle"):
        if name in panel.fields:
            price = np.where(np.isnan(panel.values(name)), price, panel.values(name))
    rates = panel.values("funding")
    return read_only(mean_rates(rates)) if config.costs.funding_missing == "mean" else rates, read_only(price)
