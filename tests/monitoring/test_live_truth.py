"""Whole live runs: on a loopback exchange and on paper, with and without a cost that nobody modelled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest

from engine import Panel, PaperDEX, RunConfig
from engine.live.journal import Journal
from engine.live.orders import OrderRequest, OrderResult
from engine.live.state_folder import LIVE_FOLDER
from engine.monitoring.control_chart import Alarm, cost_alarm
from engine.monitoring.fills import cost_days, fill_costs
from engine.monitoring.replay import plan_differences
from engine.oracles.fixed_weights import FixedWeights
from helpers.commands import Outcome
from helpers.live_world import Run, World, call, momentum_spec, open_world
from helpers.panels import random_panel, random_weights
from helpers.paper import trade_at


class DearDEX(PaperDEX):
    """A paper account whose fills are dearer than the simulation's by so many basis points."""

    dearer_bps = 0.0

    def send(self, orders: Sequence[OrderRequest], expires_ms: int) -> list[OrderResult]:
        results = []
        for order, result in zip(orders, super().send(orders, expires_ms), strict=True):
            price = result.price
            if price is not None:
                side = 1.0 if result.units > 0.0 else -1.0
                worse = price * (1.0 + side * self.dearer_bps / 1e4)
                self.book.cash[0] -= abs(result.units) * abs(worse - price)
                result = OrderResult(order.cloid, result.fate, result.units, worse)
            results.append(result)
        return results


def alarm_of(panel: Panel, weights: pd.DataFrame, dearer_bps: float) -> tuple[Alarm, list[dict[str, object]]]:
    dex, journal, config = DearDEX(panel, start=weights.index[0]), Journal(), RunConfig()
    dex.dearer_bps = dearer_bps
    for decision in weights.index:
        trade_at(decision, FixedWeights(weights), dex, config, panel, journal)
    check = plan_differences(journal.entries, panel, config, FixedWeights(weights))
    assert (check.state, check.differences, check.instants_checked) == ("holding", (), len(weights))
    return cost_alarm(cost_days(journal.entries, config, panel)), journal.entries


def test_whole_runs_on_paper_with_and_without_an_extra_cost() -> None:
    panel = random_panel(9, 24 * 26, 6, volume=False)
    weights = random_weights(9, panel, styles=("dense", "flip"))
    quiet, _ = alarm_of(panel, weights, 0.0)
    assert quiet.state == "holding" and quiet.statistic == pytest.approx(0.0, abs=1e-6)
    dear, entries = alarm_of(panel, weights, 8.0)
    assert dear.state == "crossed" and dear.series in ("slippage_bps", "account_bps")
    found = fill_costs(entries, RunConfig(), panel)
    assert found.fills["excess_bps"].mean() == pytest.approx(8.0, rel=0.02)
    # What fills cost more is what the account made less: the two are measured apart.
    both = cost_days(entries, RunConfig(), panel)
    spent, missing = both["slippage_bps"].shift(), both["account_bps"]
    assert missing.sum() == pytest.approx(spent[missing.notna()].sum(), rel=0.1)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("HLBT_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    with open_world(tmp_path) as opened:
        yield opened


def done(world: World, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> Outcome:
    outcome = call(patch, capsys, world.rebalance({"BTC": 0.3, "ETH": -0.2}, "--json", *words))
    assert outcome.code == 0, outcome.err
    return outcome


def test_funding_of_an_exchange_is_what_it_says_and_its_plan_is_made_again(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.server.set_funding("BTC", 0.0005)
    now = world.half_past_two()
    first = done(world, monkeypatch, capsys, "--now", now.isoformat())
    assert first.json["plan_check"] == "plan = replay: 1 made again without a difference"
    assert [entry for entry in world.entries() if entry["kind"] == "funding"] == []
    world.server.advance(24.0)
    done(world, monkeypatch, capsys, "--now", (now + pd.Timedelta(days=1)).isoformat())
    entry = world.last("funding")
    hours = (pd.Timestamp(entry["until"]) - pd.Timestamp(entry["since"])) / pd.Timedelta(hours=1)
    rows = [row for row in world.server.ledger.accounts[next(iter(world.server.ledger.accounts))].funding]
    since, until = (pd.Timestamp(entry[name]).timestamp() * 1000 for name in ("since", "until"))
    told = sum(-float(row["delta"]["usdc"]) for row in rows if since <= row["time"] < until)
    # Paid or received: what is held is as the prices of today's date have it.
    assert hours == 24 and entry["paid_usd"] == pytest.approx(told, rel=1e-9) and entry["paid_usd"] != 0.0


def test_a_run_of_a_spec_says_that_its_plan_is_its_replay(
    sample_cache: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = momentum_spec(tmp_path, sample_cache)
    words = ["live", "run", str(spec), "--network", "paper", "--execute", "--now"]
    shown = run([*words, "2024-03-01T22:59Z"])
    assert shown.code == 0 and "plan = replay: 1 made again without a difference." in shown.out
    told = run([*words, "2024-03-02T22:59Z", "--json"])
    assert told.json["plan_check"] == "plan = replay: 1 made again without a difference"
    # A plan that is not what its oracle says is named by the run itself.
    journal = tmp_path / LIVE_FOLDER / "momentum-paper.jsonl"
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    assert entries[0]["inputs"]["source"] == "research.oracles.momentum:Momentum"
    assert len(json.dumps(entries[0]["inputs"])) < 20_000
