"""Laws that hold for any panel: scale, permutation, zero cost, monotone fees, causality, one sizing rule."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Panel, RunConfig, backtest
from engine.config import Execution
from engine.errors import DataError
from engine.simulation.backtest import kernel_inputs, new_book
from engine.simulation.kernel import TRADE_COLUMNS, step_nb
from engine.simulation.sizing import Order, plan_orders, round_lot
from helpers.effort import some
from helpers.panels import random_panel, random_weights

SEEDS = range(some(1, 3))


def case(seed: int) -> tuple[Panel, pd.DataFrame]:
    panel = random_panel(seed, 24 * 20, 8, quotes=True, funding=True, oracle=True, table=True, volume=True)
    return panel, random_weights(seed, panel)


def free(**execution: object) -> RunConfig:
    return RunConfig.from_dict(
        {"execution": {"lots": False, "min_notional_usd": 0.0, **execution}, "account": {"margin": False}}
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_equity_scales_with_the_account(seed: int) -> None:
    panel, weights = case(seed)
    small = backtest(panel, weights, free())
    big = backtest(
        panel,
        weights,
        RunConfig(execution=free().execution, account=replace(free().account, initial_equity_usd=10_000.0 * 1024)),
    )
    np.testing.assert_allclose(big.equity, small.equity * 1024, rtol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_scaling_a_coins_price_changes_nothing(seed: int) -> None:
    """A coin quoted in thousands (kPEPE) must not matter, volume and funding being fractions and USD."""
    panel, weights = case(seed)
    fields = dict(panel.fields)
    for name in ("mid", "bid", "ask", "mark", "oracle"):
        scaled = fields[name].copy()
        scaled[:, 0] *= 1024.0
        fields[name] = scaled
    np.testing.assert_allclose(
        backtest(replace(panel, fields=fields), weights, free()).equity,
        backtest(panel, weights, free()).equity,
        rtol=1e-12,
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_of_coins_does_not_matter(seed: int) -> None:
    panel, weights = case(seed)
    order = np.random.default_rng(seed).permutation(len(panel.coins))
    turned = replace(
        panel,
        coins=tuple(panel.coins[place] for place in order),
        fields={name: values[:, order] for name, values in panel.fields.items()},
        tradable=panel.tradable[:, order],
        table=tuple(panel.table[place] for place in order),
    )
    np.testing.assert_allclose(backtest(turned, weights).equity, backtest(panel, weights).equity, rtol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_without_costs_equity_is_price_profit_alone(seed: int) -> None:
    panel, weights = case(seed)
    bare = Panel.from_frames(mid=panel.frame("mid"), tradable=panel.frame("tradable"))
    result = backtest(
        bare, weights, RunConfig.from_dict({"costs": {"taker_bps": 0.0, "half_spread_bps": 0.0, "funding": False}})
    )
    assert (result.attribution.drop(columns="price_pnl_usd") == 0.0).all(axis=None)
    assert result.equity.iloc[-1] - 10_000 == pytest.approx(result.attribution["price_pnl_usd"].sum(), rel=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_higher_fee_never_helps(seed: int) -> None:
    panel, weights = case(seed)
    ends = [
        backtest(panel, weights, RunConfig.from_dict({"costs": {"taker_bps": float(fee)}})).metrics["equity_end_usd"]
        for fee in (0, 1, 2, 5, 10, 50)
    ]
    assert all(later < earlier for earlier, later in pairwise(ends))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_future_changes_nothing_before_it(seed: int) -> None:
    panel, weights = case(seed)
    whole = backtest(panel, weights)
    for stop in (30, 200, 401):
        cut = panel.until(panel.index[stop - 1])
        early = weights[weights.index <= cut.index[-1]]
        if len(early):
            np.testing.assert_array_equal(backtest(cut, early).equity, whole.equity[:stop])


@pytest.mark.parametrize("seed", SEEDS)
def test_identical_from_run_to_run(seed: int) -> None:
    panel, weights = case(seed)
    one, other = backtest(panel, weights), backtest(panel, weights)
    assert one.equity.to_numpy().tobytes() == other.equity.to_numpy().tobytes()
    pd.testing.assert_frame_equal(one.trades, other.trades, check_exact=True)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "rules",
    [
        {"no_trade_band_frac": 0.01},
        {"no_trade_band": "to_edge", "no_trade_band_frac": 0.01, "untradable": "renormalise"},
        {"trade_rate": 0.3, "no_trade_band_coins": {"*": 0.02, "C01": 0.1}, "untradable": "renormalise"},
        {"trade_rate": 0.6, "no_trade_band": "to_edge", "no_trade_band_frac": 0.01, "lots": False},
    ],
    ids=str,
)
def test_live_sizing_is_the_simulations(seed: int, rules: dict[str, Any]) -> None:
    """plan_orders, a row at a time from the book the simulation holds, gives the simulation's own orders and closes."""
    panel, weights = case(seed)
    execution = Execution(**rules)
    result = backtest(panel, weights, RunConfig(execution=execution))
    held = dict.fromkeys(panel.coins, 0.0)
    lots = {coin.name: coin.sz_decimals for coin in panel.table if coin.sz_decimals is not None and execution.lots}
    mid, tradable = panel.frame("mid"), panel.frame("tradable")
    compared = parts = 0
    for row, instant in enumerate(panel.index):
        trades = result.trades[result.trades["time"] == instant]
        closed = set(trades["coin"][trades["reason"] == "close"])
        if instant in weights.index:
            before = result.equity.iloc[row - 1] if row else 10_000.0
            equity = before + result.attribution["price_pnl_usd"].iloc[row]
            asked = weights.loc[instant].reindex(panel.coins).fillna(0.0).to_dict() | weights.loc[instant].to_dict()
            orders = plan_orders(
                asked, held, equity, mid.loc[instant].to_dict(), tradable.loc[instant].to_dict(), lots, execution
            )
            sent = [order for order in orders if order.outcome == "order"]
            units = {order.coin: order.units for order in sent}
            assert units == pytest.approx(dict(zip(trades["coin"], trades["units"], strict=True)), rel=1e-10)
            assert {order.coin for order in sent if order.close} <= closed
            parts += sum(order.target_weight == 0.0 and not order.close for order in sent)
            compared += len(sent)
        for coin, size in zip(trades["coin"], trades["units"], strict=True):
            held[coin] = 0.0 if coin in closed else held[coin] + size
            if coin in lots:
                held[coin] = round(held[coin] * 10 ** lots[coin]) / 10 ** lots[coin]
    assert compared > 40 and (parts > 0) == (execution.trade_rate < 1.0)


def planned(**given: Any) -> list[Order]:
    one = {"weights": {"BTC": 0.5}, "units": {}, "equity_usd": 1e4, "mid": {"BTC": 1e4}, "tradable": {"BTC": True}}
    return plan_orders(**{**one, "sz_decimals": {"BTC": 5}, "execution": Execution(), **given})


@pytest.mark.parametrize("mid", [np.nan, 0.0, -5.0, np.inf])
def test_a_price_that_is_none_is_not_traded(mid: float) -> None:
    assert [(order.units, order.outcome) for order in planned()] == [(0.5, "order")]
    assert [(order.units, order.outcome) for order in planned(mid={"BTC": mid})] == [(0.0, "untradable")]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weights": {"BTC": np.inf}}, "The order of BTC cannot be sized: its weight is inf"),
        ({"units": {"BTC": np.nan}}, "its position is nan"),
        ({"units": {"ETH": -np.inf}}, "The order of ETH cannot be sized: its position is -inf"),
        ({"equity_usd": np.nan}, "equity is nan USD"),
    ],
)
def test_no_order_is_sized_by_what_is_no_number(given: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        planned(**given)


@pytest.mark.parametrize("config", [RunConfig(), free()], ids=["margin", "no margin"])
def test_a_step_may_be_cut_anywhere(config: RunConfig) -> None:
    """A paper account that is advanced hour by hour holds the book that one long step holds, to the bit."""
    panel, _ = case(7)
    inputs, hours = kernel_inputs(panel, config), len(panel.index)
    start = int(np.flatnonzero(~np.isnan(panel.values("mid")).any(axis=1))[0])
    price = panel.values("mid")[start]
    ends = []
    for rows in ([start, hours], [*range(start, hours), hours], [start, start, start + 7, start + 200, hours]):
        book, ledger = new_book(panel, config)
        book.units[:] = np.where(np.arange(len(price)) % 2, -1.0, 1.5) * 5_000.0 / price
        book.price[:] = price
        for first, last in pairwise(rows):
            equity = step_nb(*inputs, book, ledger, ledger.trades, first, last)
            held = book.units != 0.0
            assert equity == pytest.approx(book.cash[0] + (book.units * book.price)[held].sum(), rel=1e-9)
        assert np.isnan(ledger.equity[:start]).all() and not np.isnan(ledger.equity[start:]).any()
        trades = ledger.trades[: book.trade_count[0]]
        assert trades.shape[1] == TRADE_COLUMNS
        ends.append((*book, *ledger._replace(trades=trades)))
    for other in ends[1:]:
        for ours, theirs in zip(ends[0], other, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("units", "decimals", "rounded"), [(0.1 + 0.2, 1, 0.3), (-0.29000000000000004, 2, -0.29), (1.5, None, 1.5)]
)
def test_dust_of_a_sum_of_lots_is_rounded_away(units: float, decimals: int | None, rounded: float) -> None:
    assert round_lot(units, decimals) == rounded
