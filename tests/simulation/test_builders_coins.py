"""Coins of builders' dexes: factors on fees, and margin of their own, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Coin, Panel, RunConfig, backtest, backtest_many
from engine.coin import FeeTerms
from engine.errors import WeightsError
from engine.simulation import costs as fees
from engine.simulation.capacity import capacity
from engine.simulation.costs import coin_rates
from engine.simulation.sizing import plan_orders
from helpers import naive
from helpers.batches import assert_same
from helpers.fees import FACTORS, published_fees

START = pd.Timestamp("2026-06-01T00:00Z")
PLAIN: dict[str, dict[str, Any]] = {
    "costs": {"taker_bps": 0.0, "half_spread_bps": 0.0, "funding": False},
    "execution": {"lots": False, "min_notional_usd": 0.0},
}


def config_of(sections: dict[str, dict[str, Any]]) -> RunConfig:
    return RunConfig.from_dict({name: PLAIN.get(name, {}) | sections.get(name, {}) for name in {**PLAIN, **sections}})


def panel_of(table: Sequence[Coin], *prices: Sequence[float], **fields: Sequence[Sequence[float]]) -> Panel:
    """A price list a coin; other fields likewise."""
    index = pd.date_range(START, periods=len(prices[0]), freq="h")
    names = [coin.name for coin in table]
    frames = {
        name: pd.DataFrame(np.array(values).T, index=index, columns=names)
        for name, values in {"mid": prices, **fields}.items()
    }
    return Panel.from_frames(table=table, **frames)


def run(panel: Panel, rows: dict[int, Sequence[float]], sections: dict[str, dict[str, Any]] | None = None) -> Any:
    """Backtest, checked against the reference ledger and the batch."""
    config = config_of(sections or {})
    weights = pd.DataFrame(list(rows.values()), index=panel.index[list(rows)], columns=list(panel.coins))
    result = backtest(panel, weights, config)
    reference = naive.backtest(panel, weights, config, published_fees(panel, config))
    np.testing.assert_allclose(result.equity, reference.equity, rtol=0, atol=1e-8)
    assert [trade.reason for trade in reference.trades] == result.trades["reason"].tolist()
    assert_same(backtest_many(panel, weights.to_numpy()[None], weights.index, config).iloc[0], result)
    return result


def nine_coins(seen: pd.Timestamp = START) -> list[Coin]:
    return [
        Coin(f"xyz:C{number}", fee_terms=(FeeTerms(seen, scale, growth),))
        for number, (growth, scale, _) in enumerate(FACTORS)
    ]


@pytest.mark.parametrize("bps", [4.5, -0.3])
def test_the_nine_rows_of_the_fee_page(bps: float) -> None:
    """In kernel, reference ledger and batch (`run`), capacity, and the rates of the signal report."""
    panel = panel_of([Coin("BTC"), *nine_coins()], *[[100.0] * 30] * 10)
    discounts = {"taker_bps": bps, "staking_discount_frac": 0.1, "referral_discount_frac": 0.04}
    result = run(panel, {1: [0.1] * 10}, {"costs": discounts})
    if bps > 0.0:
        expected = [bps / 1e4 * 0.9 * m * 0.96 for m in (1.0, *(factor for _, _, factor in FACTORS))]
    else:
        expected = [bps / 1e4 * g for g in (1.0, *(0.1 if growth else 1.0 for growth, _, _ in FACTORS))]
    paid = (result.trades["fee_usd"] / result.trades["notional_usd"]).to_numpy()
    np.testing.assert_allclose(paid, expected, rtol=1e-12)
    rates = coin_rates(panel.index, np.array([1, 5]), result.config.costs, panel.table)
    np.testing.assert_allclose(rates, [expected, expected], rtol=1e-12)
    weights = pd.DataFrame([[0.1] * 10], index=panel.index[1:2], columns=list(panel.coins))
    table = capacity(panel, weights, result.config, (1e4, 1e6))
    years = 30 / (24 * 365)
    yearly = sum(expected) * 0.1 * table["equity_usd"] / years  # of the equity at the start, at the mean equity
    mean = [backtest(panel, weights, replace(result.config, account=replace(result.config.account,
            initial_equity_usd=size))).equity.mean() for size in (1e4, 1e6)]  # fmt: skip
    np.testing.assert_allclose(table["fee_yearly"] * mean, yearly, rtol=1e-9)


def test_growth_counts_a_tenth_toward_tiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """8,000 USD of a coin in growth mode are 800 of volume, and of another coin 8,000: only that is a tier further."""
    monkeypatch.setattr(fees, "SCHEDULE", ((START - pd.Timedelta(days=9), 4.0, 1.0),))
    monkeypatch.setattr(fees, "TIERS", ((0.0, 4.0, 1.0), (5_000.0, 2.0, 0.5)))
    for growth, rate in ((True, 4.0e-4 * 0.1), (False, 2.0e-4)):
        panel = panel_of([Coin("xyz:A", fee_terms=(FeeTerms(START, 0.0, growth),))], [100.0] * 60)
        rows = {1: [0.8], 40: [0.1]}
        result = run(panel, rows, {"costs": {"taker_bps": "schedule", "fee_tiers": True}})
        last = result.trades.iloc[-1]
        assert last["fee_usd"] / last["notional_usd"] == pytest.approx(rate, rel=1e-12)


def test_fees_that_change_and_a_note_on_days_before_they_were_seen() -> None:
    """The last terms seen at the row's instant or before; the first also before it, which the run says."""
    terms = (FeeTerms(START + pd.Timedelta(hours=5), 0.5, False), FeeTerms(START + pd.Timedelta(hours=9), 3.0, False))
    table = [Coin("xyz:A", fee_terms=terms), Coin("xyz:B", fee_terms=terms), Coin("BTC")]
    panel = panel_of(table, *[[100.0] * 12] * 3)
    rows = {t: [0.1 + 0.01 * (t % 2), 0.0, 0.2] for t in (2, 5, 8, 9)}
    result = run(panel, rows, {"costs": {"taker_bps": 10.0}})
    trades = result.trades[result.trades["coin"] == "xyz:A"]
    ratio = trades["fee_usd"] / trades["notional_usd"] / 1e-3
    np.testing.assert_allclose(ratio, [1.5, 1.5, 1.5, 6.0], rtol=1e-12)
    (note,) = result.notes
    assert note == (
        "Fee scales seen from 2026-06-01 05:00 UTC on are applied to days before it, for nobody keeps a history of "
        "them: xyz:A."
    )
    assert run(panel, {5: [0.1, 0.0, 0.2]}).notes == ()
    unknown = replace(panel, table=(replace(table[0], fee_terms=(FeeTerms(None, 1.0, True),)), *table[1:]))
    after = "Fee scales seen after the last row, or at an unknown time, are applied"
    assert after in run(unknown, {5: [0.1, 0.0, 0.2]}).notes[0]
    never = replace(panel, table=(replace(table[0], fee_terms=()), *table[1:]))
    (note,) = run(never, {5: [0.1, 0.0, 0.2]}).notes  # its fees are those of BTC, which nobody said
    assert note.startswith("Fee scales of xyz:A are not known: they pay the main dex's fees.")


LONE = Coin("xyz:A", max_leverage=10.0, margin_mode="isolated")


def test_a_position_loses_its_margin_and_the_run_goes_on() -> None:
    """5,000 USD at 5x: 1,000 of margin; at 84 it has 200 left and needs 210, at 83 it would have 150."""
    panel = panel_of([LONE, Coin("BTC", max_leverage=10.0)], [100, 100, 84, 84, 84.0], [100.0, 100, 100, 110, 110])
    result = run(panel, {1: [0.5, 0.5], 3: [0.2, 0.5]}, {"execution": {"isolated_leverage": 5}})
    assert result.metrics["isolated_liquidations"] == 1 and result.liquidated_at is None
    assert result.trades["reason"].tolist() == ["open", "open", "liquidation", "open", "reduce"]
    assert result.equity.tolist() == pytest.approx([10_000, 10_000, 9_200, 9_700, 9_700])
    trips = result.round_trips.set_index("coin")
    assert trips.loc["xyz:A", "ended"].tolist() == ["liquidation", "open"]
    # its highest leverage leaves 500: gone at 95 already
    highest = run(panel, {1: [0.5, 0.5]})
    assert highest.equity.iloc[2] == 9_500.0 and highest.trades["price"].iloc[-1] == pytest.approx(90.0)
    # without account.margin it is a coin like any other
    assert run(panel, {1: [0.5, 0.5]}, {"account": {"margin": False}}).equity.iloc[2] == 9_200.0


@pytest.mark.parametrize("weight", [0.5, -0.5])
def test_no_more_than_the_margin_is_lost_however_far_the_price_jumps(weight: float) -> None:
    """The price profit ends where the margin does; fee and impact are not charged beyond it."""
    jump = 40.0 if weight > 0 else 180.0
    panel = panel_of([LONE], [100, 100, jump, jump])
    costs = {"taker_bps": 10.0, "half_spread_bps": 5.0, "impact": "venue"}
    result = run(panel, {1: [weight]}, {"execution": {"isolated_leverage": 5}, "costs": costs})
    opened, lost = result.trades.iloc[0], result.trades.iloc[1]
    margin = opened["notional_usd"] / 5
    assert result.equity.iloc[2] == pytest.approx(10_000 - opened["fee_usd"] - margin)
    assert (lost["fee_usd"], lost["reason"]) == (0.0, "liquidation")
    assert lost["price"] == pytest.approx(opened["price"] * (0.8 if weight > 0 else 1.2))
    flows = result.attribution.iloc[2]
    assert flows["price_pnl_usd"] - flows.iloc[1:].sum() == pytest.approx(result.equity.iloc[2] - result.equity.iloc[1])
    assert result.round_trips["net_usd"].sum() == pytest.approx(result.equity.iloc[-1] - 10_000)


def test_margin_follows_the_units() -> None:
    """Adding takes margin at its own fill, reducing returns it pro rata; funding is paid from it."""
    # 1,000 USD at 5x: 200. At 90: 100 left; adding 90 of notional takes 18; half of 118 is returned.
    panel = panel_of([LONE], [100, 100, 90, 90, 90, 80.0], funding=[[0, 0, 0, 0, 0.01, 0]])
    equity = 10_000 - 100
    rows = {1: [0.1], 2: [990 / equity], 3: [495 / equity]}
    result = run(panel, rows, {"execution": {"isolated_leverage": 5}, "costs": {"funding": True}})
    units = result.trades["units"].tolist()
    assert units == pytest.approx([10.0, 1.0, -5.5, -5.5])
    # 59 of equity for 5.5 units at 90; less 4.95 of funding 54.05; at 80 it is -0.95: only 54.05 are lost
    assert result.equity.iloc[4] == pytest.approx(equity - 4.95)
    assert result.equity.iloc[5] == pytest.approx(equity - 4.95 - 54.05)


def test_the_worst_price_of_the_hour() -> None:
    """Its close is fine and its low is not: the margin is gone all the same, and only then."""
    prices = [100, 100, 100, 100.0]
    panel = panel_of([LONE], prices, low=[[100, 100, 70, 100]], high=[[100.0] * 4])
    for kind, equity in (("close", 10_000), ("extreme", 9_000)):
        sections = {"account": {"margin_prices": kind}, "execution": {"isolated_leverage": 5}}
        assert run(panel, {1: [0.5]}, sections).equity.iloc[-1] == pytest.approx(equity)


def test_isolated_margin_is_not_the_accounts() -> None:
    """BTC at 10x with all but 500 of the equity in isolated margin: the account is called, though it is worth 9,600."""
    table = [Coin("xyz:A", max_leverage=1.0, margin_mode="isolated"), Coin("BTC", max_leverage=10.0)]
    panel = panel_of(table, [100.0] * 5, [100, 100, 92, 92, 92.0])
    result = run(panel, {1: [0.95, 0.05]}, {"account": {"max_gross": 2.0}})
    assert result.liquidated_at is None
    result = run(panel, {1: [0.95, 0.5]}, {"account": {"max_gross": 2.0}})
    assert result.liquidated_at == panel.index[2] and result.equity.iloc[-1] == pytest.approx(9_600.0)
    assert result.trades["reason"].tolist() == ["open", "open", "liquidation", "liquidation"]
    assert "equity of 100.00 USD was under the maintenance margin of 230.00 USD" in str(result.liquidation)


def test_initial_margin_counts_what_is_isolated() -> None:
    """At 1x all of the notional: with it nothing is left for BTC; the plan of a live book says the same."""
    table = [Coin("xyz:A", max_leverage=10.0, margin_mode="isolated"), Coin("BTC", max_leverage=10.0)]
    panel = panel_of(table, [100.0] * 4, [100.0] * 4)
    sections = {"account": {"max_gross": 2.0}, "execution": {"isolated_leverage": 1}}
    weights = pd.DataFrame([[0.95, 0.6]], index=panel.index[1:2], columns=list(panel.coins))
    refusal = r"need 1.01 times the account's equity .* as initial margin \(xyz:A 0.95 at 1x, BTC 0.6 at 10x\):"
    with pytest.raises(WeightsError, match=refusal):
        backtest(panel, weights, config_of(sections))
    with pytest.raises(WeightsError, match=refusal):
        backtest_many(panel, weights.to_numpy()[None], weights.index, config_of(sections))
    run(panel, {1: [0.95, 0.4]}, sections)
    args = (
        {"xyz:A": 0.95, "BTC": 0.6},
        {},
        10_000.0,
        dict.fromkeys(panel.coins, 100.0),
        dict.fromkeys(panel.coins, True),
    )
    with pytest.raises(WeightsError, match=refusal):
        plan_orders(*args, {}, config_of(sections).execution, table)
    # what a position has beyond its first margin counts, too
    held = {"xyz:A": 95.0}
    orders = plan_orders(args[0], held, *args[2:], {}, config_of({}).execution, table)
    assert [order.outcome for order in orders] == ["order", "nothing"]
    with pytest.raises(Exception, match="as initial margin"):
        plan_orders(args[0], held, *args[2:], {}, config_of({}).execution, table, isolated_usd={"xyz:A": 9_500.0})
