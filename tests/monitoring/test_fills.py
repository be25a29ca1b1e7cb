"""Fills against the model: nothing where an account trades as the model says, and to the cent what it pays beyond."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Panel, PaperDEX, RunConfig
from engine.live.demotion import Demotion, demote, reinstate
from engine.live.journal import Journal
from engine.live.risk_limits import Limits
from engine.live.session import Session
from engine.live.targets import Strategy, TargetProvider, flat
from engine.monitoring.fills import cost_days, fill_costs
from engine.oracles.fixed_weights import FixedWeights
from helpers.panels import random_panel, random_weights
from helpers.paper import ANY_PRICE, trade_at

Entries = list[dict[str, Any]]


def traded(panel: Panel, weights: pd.DataFrame, config: RunConfig) -> Entries:
    dex, journal = PaperDEX(panel, config, start=weights.index[0]), Journal()
    for decision in weights.index:
        trade_at(decision, FixedWeights(weights), dex, config, panel, journal)
    return journal.entries


@pytest.fixture(scope="module")
def case() -> tuple[Panel, Entries]:
    panel = random_panel(3, 24 * 20, 6, volume=False)
    return panel, traded(panel, random_weights(3, panel, styles=("dense", "flip")), RunConfig())


CONFIGS = [
    {},
    {"costs": {"half_spread_bps": 9.0, "stress": 2.0}},
    {"costs": {"impact": "venue", "impact_bps": 30.0}},
    {"costs": {"fee_tiers": True, "referral_discount_frac": 0.04, "staking_discount_frac": 0.1}},
    {"costs": {"taker_bps": 3.0, "maker_bps": -0.5, "maker_share_frac": 0.5, "funding_missing": "mean"}},
]


@pytest.mark.parametrize("values", CONFIGS, ids=str)
def test_an_account_that_trades_as_modelled_has_no_excess(values: dict[str, Any]) -> None:
    """Impact, stress, tiers, discounts and rebates are the model's, and so is the account's own difference."""
    panel = random_panel(4, 24 * 30, 6, volume=False, quotes="stress" not in values.get("costs", {}))
    panel = replace(panel, index=panel.index + pd.Timedelta(days=365))  # tiers are known since May 2025
    config = RunConfig.from_dict({**values, "account": {"initial_equity_usd": 2e6}})
    entries = traded(panel, random_weights(4, panel, styles=("dense", "flip")), config)
    days = cost_days(entries, config, panel)
    assert len(days) >= 20 and days.notna().sum().min() >= 10
    tolerance = {"slippage_bps": 1e-6, "fee_bps": 1e-6, "funding_bps": 1e-6, "account_bps": 1e-5}
    for name, most in tolerance.items():
        assert days[name].abs().max() < most, (name, days[name].abs().max())


def test_what_is_paid_beyond_is_found_to_the_cent(case: tuple[Panel, Entries]) -> None:
    panel, entries = case
    before = fill_costs(entries, RunConfig(), panel)
    worse = copy.deepcopy(entries)
    for entry in worse:
        for result in entry.get("answers", ()):
            if result["fate"] == "filled":
                result["price"] *= 1.0 + np.sign(result["units"]) * 5e-4
        for fill in entry.get("fills", ()):
            fill["fee_usd"] += 0.25
        if entry["kind"] == "funding":
            entry["paid_usd"] += 1.5
    after = fill_costs(worse, RunConfig(), panel)
    moved = after.fills["slippage_bps"] - before.fills["slippage_bps"]
    np.testing.assert_allclose(moved, 5.0, rtol=0.01)
    assert before.fills["excess_bps"].abs().max() < 1e-6 < 4.9 < after.fills["excess_bps"].min()
    extra = (after.fills["fee_bps"] - before.fills["fee_bps"]) * after.fills["notional_usd"] / 1e4
    np.testing.assert_allclose(extra, 0.25, rtol=1e-9)
    extra = ((after.days() - before.days())["funding_bps"] * after.equity / 1e4).dropna()
    np.testing.assert_allclose(extra, 1.5, rtol=1e-6)
    usd = (after.fills["excess_bps"] * after.fills["notional_usd"] / 1e4).groupby(after.fills["instant"]).sum()
    np.testing.assert_allclose(after.days()["slippage_bps"].dropna(), (usd / after.equity * 1e4).dropna(), rtol=1e-12)
    coins = after.by_coin()
    assert coins["orders"].sum() == len(after.fills) and coins["notional_usd"].is_monotonic_decreasing


def test_fills_that_say_nothing_yet_and_parts_of_orders(case: tuple[Panel, Entries]) -> None:
    """A price that is not known, fees that are recorded in part, an order in two fills, one without a plan."""
    panel, entries = case
    whole = fill_costs(entries, RunConfig(), panel)
    first = next(entry for entry in entries if entry["kind"] == "fills")
    fills = copy.deepcopy(entries)
    split = next(entry for entry in fills if entry["n"] == first["n"])
    one = split["fills"][0]
    halves = [{**one, "units": one["units"] / 2, "fee_usd": one["fee_usd"] / 2}] * 2
    split["fills"] = [*halves, *split["fills"][1:]]
    pd.testing.assert_frame_equal(fill_costs(fills, RunConfig(), panel).fills, whole.fills, rtol=1e-9)

    late = copy.deepcopy(entries)
    next(entry for entry in late if entry["n"] == first["n"])["fills"].pop()
    days = fill_costs(late, RunConfig(), panel).days()
    assert (
        np.isnan(days["fee_bps"].iloc[0]) and days["fee_bps"].notna().sum() == whole.days()["fee_bps"].notna().sum() - 1
    )

    unknown = [entry for entry in copy.deepcopy(entries) if entry["kind"] != "fills"]
    for entry in unknown:
        for result in entry.get("answers", ()):
            result["price"] = None
    found = fill_costs(unknown, RunConfig(), panel)
    assert found.fills.empty and found.unpriced == len(whole.fills)
    assert found.days()["slippage_bps"].isna().all()

    unplanned = copy.deepcopy(entries)
    for entry in unplanned:
        if entry["kind"] == "plan":
            entry["plan"]["orders"] = []
    assert fill_costs(unplanned, RunConfig(), panel).days()["slippage_bps"].isna().all()


def test_a_deposit_is_no_difference_of_the_account(case: tuple[Panel, Entries]) -> None:
    panel, entries = case
    plans = [entry for entry in entries if entry["kind"] == "plan"]
    at = plans[8]["n"]
    moved = copy.deepcopy(entries)
    for entry in moved[at:]:
        if entry["kind"] == "plan":
            entry["equity_usd"] += 5_000.0
    jump = cost_days(moved, RunConfig(), panel)["account_bps"]
    assert jump.abs().max() > 1_000.0
    accepted = {"kind": "equity_accepted", "time": plans[8]["time"], "equity_usd": 0.0}
    told = cost_days([*moved[:at], accepted, *moved[at:]], RunConfig(), panel)["account_bps"]
    assert told.iloc[:8].abs().max() < 1e-5 and np.isnan(told.iloc[8])


def driven(folder: Path, panel: Panel, weights: pd.DataFrame) -> Entries:
    """A paper account: demoted on the fifth day, reinstated on the tenth, closed after the trade of the 13th."""
    config, dex = RunConfig(), PaperDEX(panel, start=weights.index[0])
    journal = Journal(folder / "x-paper.jsonl")
    strategy = Strategy("x", "key", TargetProvider(FixedWeights(weights), config), Limits.none())
    for day, instant in enumerate(weights.index):
        if day == 5:
            demote(folder, "x", Demotion("edge", instant.isoformat(), "drawdown", 0.3, 0.2, "the edge is crossed"))
        if day == 10:
            reinstate(folder, "x", "looked at", instant.isoformat())
        dex.advance(instant)
        for traded in [strategy, *([flat("x", config)] if day == 13 else [])]:
            Session(traded, dex, journal, panel, ANY_PRICE, Path("no-such-KILL"), instant).execute()
    return journal.entries


def test_what_a_demoted_strategy_leaves_and_what_a_person_closes_are_no_costs(tmp_path: Path) -> None:
    panel = random_panel(9, 24 * 20, 6, volume=False)
    weights = random_weights(9, panel, styles=("dense", "flip"))
    entries = driven(tmp_path, panel, weights)
    assert sum(entry.get("reduces_only", False) for entry in entries) == 5
    days = cost_days(entries, RunConfig(), panel)["account_bps"]
    assert days[:14].abs().max() < 1e-5 and days[days.isna()].index.tolist() == list(weights.index[[0, 14]])
    assert days[15:].abs().max() < 1.0  # a part of the closing costs, which the replay has not paid


def test_a_plan_far_from_its_instant_is_not_compared_with_the_prices_of_the_hour(case: tuple[Panel, Entries]) -> None:
    panel, entries = case
    late = copy.deepcopy(entries)
    plan = [entry for entry in late if entry["kind"] == "plan"][8]
    for minutes, missing in ((10, 1), (40, 3)):
        plan["time"] = (pd.Timestamp(plan["instant"]) + pd.Timedelta(minutes=minutes)).isoformat()
        plan["equity_usd"] *= 0.995  # prices have moved
        days = cost_days(late, RunConfig(), panel)["account_bps"]
        assert days.isna().sum() == missing
        assert days.drop(days.index[[8, 9]]).abs().max() < 1e-5


def test_nothing_was_traded() -> None:
    days = cost_days([], RunConfig(), None)
    assert days.empty and list(days.columns) == ["slippage_bps", "fee_bps", "funding_bps", "account_bps"]
