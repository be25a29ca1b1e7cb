"""The live executor and the backtest are the same book: the real PortfolioManager drives a PaperDEX day by day."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from engine import Oracle, Panel, PaperDEX, PortfolioManager, Result, RunConfig, backtest, load_panel, weight_matrix
from engine.errors import WeightsError
from engine.live.execute import Policy
from engine.live.given import GivenWeights
from engine.live.journal import Journal
from engine.live.limits import Limits
from engine.simulate import decisions_of
from panels import nasty_cases, random_panel, random_weights
from research.oracles.carry import Carry
from research.oracles.momentum import Momentum

#: A panel's quotes may lie far from its mid; a replay fills whatever the backtest fills.
ANY_PRICE = Policy(slippage_frac=0.99)


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
        dex.advance(at)
        manager = PortfolioManager(
            oracle, dex, config, panel=panel, limits=Limits.none(), policy=ANY_PRICE, journal=journal
        )
        outcome = manager.manage_portfolio(at)
        assert outcome.complete
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
    """The account's trades as the backtest lists them: the two parts of a flip are one trade."""
    rows: dict[tuple[object, str, str], list[object]] = {}
    for trade in dex.trades:
        kind = trade.reason if trade.reason in ("delisting", "liquidation") else "order"
        rows.setdefault((trade.time, trade.coin, kind), []).append(trade)
    found = []
    order = {"delisting": 0, "order": 1, "liquidation": 2}
    for (time, coin, kind), parts in sorted(
        rows.items(), key=lambda row: (row[0][0], order[row[0][2]], dex.panel.coins.index(row[0][1]))
    ):
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


def test_an_account_that_is_read_from_its_file_before_each_decision(tmp_path: Path) -> None:
    """What the state file keeps is all there is: a process a day gives the book of one long one."""
    panel = random_panel(5, 24 * 20, 8)
    weights, config = random_weights(5, panel), RunConfig.from_dict({"costs": {"referral_discount_frac": 0.04}})
    dex = replay(panel, GivenWeights(weights), weights.index, config, tmp_path / "paper.json")
    again = PaperDEX(panel, config, tmp_path / "paper.json")
    assert (again.cash, again.instant, again.trades) == (dex.cash, dex.instant, dex.trades)
    assert_same_book(backtest(panel, weights, config), again)


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
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
    assert_same_book(result, replay(panel, GivenWeights(weights), result.weights.index, config))
