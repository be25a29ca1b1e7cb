"""The live executor and the backtest are the same book: the real PortfolioManager drives a PaperDEX day by day."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import (
    Coin,
    Oracle,
    Panel,
    PaperDEX,
    Result,
    RunConfig,
    backtest,
    load_panel,
    weight_matrix,
)
from engine.errors import IncompleteError, WeightsError
from engine.live.journal import Journal
from engine.live.live_panel import with_live_row
from engine.live.paper import PaperTrade
from engine.monitoring.replay import plan_differences
from engine.oracles.fixed_weights import FixedWeights
from engine.simulation.backtest import decisions_of
from helpers.effort import some
from helpers.panels import nasty_cases, random_panel, random_weights, with_builders_coins
from helpers.paper import trade_at
from helpers.paths import Sticky, StickyScore
from research.oracles.carry import Carry
from research.oracles.momentum import Momentum
from research.oracles.wrappers import Cap

pytestmark = pytest.mark.slow

#: A panel's quotes may lie far from its mid; a replay fills whatever the backtest fills.


def replay(
    panel: Panel, oracle: Oracle, decisions: pd.DatetimeIndex, config: RunConfig, state: Path | None = None
) -> PaperDEX:
    """Trade every decision through the executor; with `state`, each in what could be a process of its own."""
    dex = PaperDEX(panel, config, state)
    journal = Journal()
    for decision in decisions:
        at = decision + pd.Timedelta(hours=config.execution.delay_hours)
        if at > panel.index[-1]:
            break
        if state is not None:
            dex = PaperDEX(panel, config, state)
        try:
            assert trade_at(at, oracle, dex, config, panel, journal).complete
        except IncompleteError as error:  # what has no quote stays as it is, as in the backtest
            assert error.outcome is not None
            assert not dex.markets().keys() & {item.coin for item in error.outcome.missing}
    made = plan_differences(journal.entries, panel, config, oracle)
    plans = sum(entry["kind"] == "plan" for entry in journal.entries)
    assert (made.instants_checked, made.differences, made.quotes) == (plans, (), ())
    return dex


def assert_same_book(result: Result, dex: PaperDEX) -> None:
    """Equity to 1e-9 of the money in play, and every trade with its size, price, fee, spread and reason."""
    equity = dex.finish()
    traded = result.trades["notional_usd"].to_numpy()
    scale = max(result.config.account.initial_equity_usd, float(traded.max(initial=0.0)), result.equity.abs().max())
    if len(equity) == len(result.equity):
        np.testing.assert_allclose(equity, result.equity, rtol=0, atol=1e-9 * scale)
    assert equity.iloc[-1] == pytest.approx(result.equity.iloc[-1], rel=0, abs=1e-9 * scale)
    assert dex.liquidated == result.liquidated_at
    ours = merged(dex)
    theirs = result.trades
    assert list(zip(ours["time"], ours["coin"], ours["reason"], strict=True)) == list(
        zip(theirs["time"], theirs["coin"], theirs["reason"], strict=True)
    )
    for name, slack in (("units", 1e-15), ("price", 0.0), ("fee_usd", 1e-12), ("spread_usd", 1e-9 * scale)):
        np.testing.assert_allclose(ours[name].astype(float), theirs[name], rtol=1e-9, atol=slack, err_msg=name)


def merged(dex: PaperDEX) -> pd.DataFrame:
    """The account's trades as the backtest lists them: the two parts of a flip are one trade, a row's orders by coin.

    An isolated position is liquidated before the orders of its row, and its coin may open again; the account after.
    """
    rows: dict[tuple[pd.Timestamp, int, int], list[PaperTrade]] = {}
    ordered = set[pd.Timestamp]()
    for number, trade in enumerate(dex.trades):
        column = dex.panel.coins.index(trade.coin)
        if trade.reason == "delisting":
            key = (trade.time, 0, column)
        elif trade.reason == "liquidation":
            key = (trade.time, 3 if trade.time in ordered else 1, number)
        else:
            ordered.add(trade.time)
            key = (trade.time, 2, column)
        rows.setdefault(key, []).append(trade)
    found = []
    for (time, _, _), parts in sorted(rows.items()):
        coin = parts[0].coin
        units = sum(part.units for part in parts)
        reasons = [part.reason for part in parts]
        assert len(parts) == 1 or reasons == ["close", "open"], reasons
        found.append(
            {
                "time": time,
                "coin": coin,
                "units": units,
                "price": sum(part.units * part.price for part in parts) / units,
                "fee_usd": sum(part.fee_usd for part in parts),
                "spread_usd": sum(part.spread_usd for part in parts),
                "reason": "flip" if len(parts) == 2 else reasons[0],
            }
        )
    return pd.DataFrame(found, columns=["time", "coin", "units", "price", "fee_usd", "spread_usd", "reason"])


def test_real_months_with_lots_minimum_funding_and_a_delisting(real_cache: Path, tmp_path: Path) -> None:
    """Two real months; a coin's price is stopped in the middle, for the data have no delisting of their own."""
    panel = load_panel(real_cache, "2024-11-01", "2024-12-31")
    oracle, config = Momentum(lookback_hours=168, n=5), RunConfig.from_dict({"account": {"initial_equity_usd": 1500}})
    panel = with_lots(panel)
    decisions = decisions_of(panel, config)
    first = backtest(panel, weight_matrix(oracle, panel, decisions), config)
    panel = stopped(panel, first.trades["coin"].mode()[0], panel.index[700])
    result = backtest(panel, weight_matrix(oracle, panel, decisions), config)
    dex = replay(panel, oracle, decisions, config)
    assert_same_book(result, dex)
    figures = result.metrics
    assert figures["trades"] > 200 and figures["skipped_min_notional"] > 0 and abs(figures["funding_usd"]) > 0.1
    assert {"delisting", "open", "close", "increase", "reduce"} <= set(result.trades["reason"])


def with_lots(panel: Panel) -> Panel:
    """The panel with plausible size decimals: a lot is worth some 10 cents to 1 dollar."""
    price = np.nanmedian(panel.values("mid"), axis=0)
    lots = np.clip(np.ceil(np.log10(price)), 0, 5).astype(int)
    table = tuple(
        replace(coin, sz_decimals=int(lot), max_leverage=10.0) for coin, lot in zip(panel.table, lots, strict=True)
    )
    return replace(panel, table=table)


def stopped(panel: Panel, coin: str, at: pd.Timestamp) -> Panel:
    """The panel without the coin's prices from an instant on."""
    fields = {name: values.copy() for name, values in panel.fields.items()}
    column, row = panel.coins.index(coin), panel.index.get_loc(at)
    for values in fields.values():
        values[row:, column] = np.nan
    return replace(panel, fields=fields, tradable=panel.tradable & ~np.isnan(fields["mid"]))


@pytest.mark.parametrize(
    "execution",
    [
        {},
        {"leverage": 1.5, "gross_cap": 1.2, "no_trade_band_frac": 0.01},
        {"tranches": 3, "delay_hours": 1},
        {"tranches": 2, "trade_rate": 0.4, "no_trade_band": "to_edge", "no_trade_band_coins": {"*": 0.005}},
        {"target_volatility": 0.3, "volatility_days": 10, "untradable": "renormalise"},
    ],
    ids=str,
)
def test_the_synthetic_sample_with_the_variants(sample_cache: Path, execution: dict[str, object]) -> None:
    start = load_panel(sample_cache).index[0]
    panel = load_panel(sample_cache, start, start + pd.Timedelta(days=60))
    config = RunConfig.from_dict({"execution": execution, "account": {"max_gross": 2.0}})
    oracle, decisions = Carry(lookback_hours=72, n=4), decisions_of(panel, config)
    result = backtest(panel, weight_matrix(oracle, panel, decisions), config)
    assert result.metrics["trades"] > 100
    assert_same_book(result, replay(panel, oracle, decisions, config))


@pytest.mark.parametrize("execution", [{}, {"every_days": 2, "tranches": 2, "delay_hours": 1}], ids=str)
def test_an_oracle_whose_weights_follow_from_its_decisions(sample_cache: Path, execution: dict[str, object]) -> None:
    """Each day the executor calls for the whole schedule so far, so that it holds what the matrix says."""
    start = load_panel(sample_cache).index[0]
    panel = load_panel(sample_cache, start, start + pd.Timedelta(days=40))
    config = RunConfig.from_dict({"execution": execution})
    for oracle in (Sticky(enter=4, leave=12), Cap(StickyScore(enter=4, leave=12), cap=0.2)):
        decisions = decisions_of(panel, config)
        weights = weight_matrix(oracle, panel, decisions)
        alone = [weight_matrix(oracle, panel, decisions[row : row + 1]) for row in range(len(decisions))]
        assert not pd.concat(alone).equals(weights)  # else the path decides nothing here
        assert_same_book(backtest(panel, weights, config), replay(panel, oracle, decisions, config))


def test_an_account_that_is_read_from_its_file_before_each_decision(tmp_path: Path) -> None:
    """What the state file keeps is all there is: a process a day gives the book of one long one."""
    panel = random_panel(5, 24 * 20, 8)
    weights, config = random_weights(5, panel), RunConfig.from_dict({"costs": {"referral_discount_frac": 0.04}})
    dex = replay(panel, FixedWeights(weights), weights.index, config, tmp_path / "paper.json")
    again = PaperDEX(panel, config, tmp_path / "paper.json")
    assert (again.cash, again.instant, again.trades) == (dex.cash, dex.instant, dex.trades)
    assert_same_book(backtest(panel, weights, config), again)


@pytest.mark.parametrize("seed", range(some(2, 3)))
def test_a_paper_account_that_trades_on_live_rows(seed: int, tmp_path: Path) -> None:
    """Each day a process with the cache up to an hour before, and a row of quotes: the night's funding comes later."""
    panel = random_panel(seed, 24 * 20, 6, volume=False)
    config, weights = RunConfig(), random_weights(seed, panel)
    quotes = ("mid", "bid", "ask", "oracle", "mark")
    for decision in weights.index:
        row = int(panel.rows(pd.DatetimeIndex([decision]))[0])
        seen = {name: dict(zip(panel.coins, panel.values(name)[row], strict=True)) for name in quotes}
        live = with_live_row(panel.until(panel.index[row - 1]), decision, seen)
        start = decision if decision == weights.index[0] else None
        dex = PaperDEX(live, config, tmp_path / "paper.json", start=start)
        assert trade_at(decision, FixedWeights(weights), dex, config, live, Journal()).complete
    assert_same_book(backtest(panel, weights, config), PaperDEX(panel, config, tmp_path / "paper.json"))


@settings(
    max_examples=some(20, 60),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(case=nasty_cases())
def test_nasty_panels(case: tuple[Panel, pd.DataFrame, RunConfig]) -> None:
    """Flips, delistings, gaps, liquidations, bankrupt books, venue impact, tiers of margin, tranches, odd decisions."""
    panel, weights, config = case
    try:
        result = backtest(panel, weights, config)
    except WeightsError:
        return
    assert_same_book(result, replay(panel, FixedWeights(weights), result.weights.index, config))


@pytest.mark.parametrize("kept", [False, True], ids=["one process", "a process a day"])
def test_a_book_of_main_coins_and_of_a_builders(kept: bool, tmp_path: Path) -> None:
    """Dated fee scales, growth mode, isolated margin, and liquidations of single positions, from file to file."""
    liquidated = 0
    for seed in range(some(3, 20)):
        panel = random_panel(seed, 24 * 12, 8, tiers=True)
        fall = np.exp(np.cumsum(np.random.default_rng(seed).normal(0.0, 0.02, panel.values("mid").shape), axis=0))
        prices = ("mid", "bid", "ask", "oracle", "mark")
        fields = {name: values * fall if name in prices else values for name, values in panel.fields.items()}
        table = tuple(replace(coin, max_leverage=10.0) for coin in panel.table)
        config = RunConfig.from_dict({"account": {"max_gross": 1.5}})
        case = replace(panel, fields=fields, table=table), random_weights(seed, panel), config
        panel, weights, config = with_builders_coins(case, seed)
        assert {coin.isolated for coin in panel.table} == {False, True}
        result = backtest(panel, weights, config)
        state = tmp_path / f"{seed}.json" if kept else None
        dex = replay(panel, FixedWeights(weights), weights.index, config, state)
        assert_same_book(result, dex)
        liquidated += result.metrics["isolated_liquidations"]
    assert liquidated > 0


@settings(max_examples=some(10, 60), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(case=nasty_cases(), seed=st.integers(0, 99))
def test_nasty_panels_of_builders_coins(case: tuple[Panel, pd.DataFrame, RunConfig], seed: int) -> None:
    panel, weights, config = with_builders_coins(case, seed)
    try:
        result = backtest(panel, weights, config)
    except WeightsError:
        return
    assert_same_book(result, replay(panel, FixedWeights(weights), result.weights.index, config))


def test_an_isolated_position_that_was_flipped_has_the_margin_of_the_whole_fill() -> None:
    """Live a flip is two orders, and the second fills worse; all that the margin can lose is lost in row 4."""
    index = pd.date_range("2024-10-01T22:00Z", periods=6, freq="h")
    mid = pd.DataFrame({"xyz:A": [100.0, 100.0, 100.0, 100.0, 50.0, 50.0]}, index=index)
    coin = Coin("xyz:A", sz_decimals=2, max_leverage=5.0, margin_mode="isolated")
    panel = Panel.from_frames(table=[coin], mid=mid, impact_bid=mid * 0.98, impact_ask=mid * 1.02)
    weights = pd.DataFrame({"xyz:A": [-0.3, 0.5]}, index=index[1:3])
    config = RunConfig.from_dict({"costs": {"impact": "venue"}})
    result = backtest(panel, weights, config)
    assert result.trades["reason"].tolist() == ["open", "flip", "liquidation"]
    assert_same_book(result, replay(panel, FixedWeights(weights), weights.index, config))


def test_the_fee_tiers_of_an_account_that_trades_much() -> None:
    """The volume of 14 days takes the rate down and up again: the account keeps that volume as the backtest does."""
    panel = random_panel(11, 24 * 40, 4)
    panel = replace(panel, index=panel.index + pd.Timedelta(days=365))  # tiers are known since May 2025
    config = RunConfig.from_dict({"account": {"initial_equity_usd": 3e6}, "costs": {"fee_tiers": True}})
    weights = random_weights(11, panel, styles=("dense", "flip", "huge"))
    weights.iloc[12:-1] = np.nan  # weeks without a trade
    result = backtest(panel, weights, config)
    rates = (result.trades["fee_usd"] / (result.trades["units"].abs() * result.trades["price"])).round(7)
    assert len(set(rates)) >= 3 and rates.iloc[-1] > rates.min()
    assert_same_book(result, replay(panel, FixedWeights(weights), weights.index, config))


def test_a_liquidation_by_maintenance_margin_with_equity_left() -> None:
    """Three times long while prices fall slowly: the margin call comes before the last dollar is gone."""
    panel = random_panel(4, 24 * 6, 2, tiers=True)
    fall = np.linspace(1.0, 0.6, len(panel.index))[:, None]
    prices = ("mid", "bid", "ask", "oracle", "mark")
    fields = {name: values * fall if name in prices else values for name, values in panel.fields.items()}
    table = tuple(replace(coin, max_leverage=5.0) for coin in panel.table)
    panel = replace(panel, fields=fields, table=table)
    config = RunConfig.from_dict({"account": {"max_gross": 3.0}})
    weights = pd.DataFrame([[1.5, 1.5]], index=decisions_of(panel, config)[:1], columns=list(panel.coins))
    result = backtest(panel, weights, config)
    assert result.liquidated_at is not None and result.equity.iloc[-1] > 0.0
    assert_same_book(result, replay(panel, FixedWeights(weights), weights.index, config))
