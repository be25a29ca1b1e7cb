"""The three answers of a journal, and their page: states, sentences and figures by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine.commands.live_answers import Promoted, answers_of, monitored
from engine.live.demotion import Demotion, demote, reinstate
from engine.live.journal import Journal
from engine.live.spec import StrategySpec, read_spec, write_spec
from engine.monitoring.answers import Answers, live_answers
from engine.monitoring.edge_bands import edge_bands
from engine.oracles.loading import load_oracle
from engine.reporting.live_page import write_live_page
from engine.reporting.live_performance import live_status
from helpers.commands import exit_code
from helpers.live_world import momentum_spec

pytestmark = pytest.mark.slow

DAYS = 24


@pytest.fixture(scope="module")
def track(sample_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StrategySpec, Path]:
    """A spec with bands, and the journal of a paper track of it."""
    folder = tmp_path_factory.mktemp("answers")
    path = momentum_spec(folder, sample_cache)
    noise = np.random.default_rng(3).normal(0.001, 0.03, 150)
    write_spec(replace(read_spec(path), bands=edge_bands(noise).to_dict()), path)
    first = pd.Timestamp("2024-06-03T22:59Z")
    for now in (first, first + pd.Timedelta(days=DAYS)):
        words = ("live", "paper", path, "--journal", folder / "live", "--now", now.isoformat(), "--json")
        assert exit_code(*words) == 0
    return read_spec(path), folder / "live" / "momentum-paper.jsonl"


def answered(track: tuple[StrategySpec, Path], entries: list[dict[str, Any]], **options: Any) -> Answers:
    spec = track[0]
    return answers_of(
        Promoted(spec.config, spec, load_oracle(spec.oracle, spec.parameters)), entries, spec.config, **options
    )


def entries_of(track: tuple[StrategySpec, Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in track[1].read_text().splitlines()]


def paying_more(entries: list[dict[str, Any]], bps: float, after: int) -> list[dict[str, Any]]:
    """The journal of an account that from a plan on loses so many basis points of equity a day beside its trades."""
    lost, plans = 0.0, 0
    for entry in entries:
        if entry["kind"] == "plan":
            plans += 1
            entry["equity_usd"] -= lost
            lost += entry["equity_usd"] * bps / 1e4 * (plans > after)
    return entries


def test_a_track_that_is_its_replay_holds(track: tuple[StrategySpec, Path]) -> None:
    found = answered(track, entries_of(track))
    assert (found.plan.state, found.costs.state, found.edge.state) == ("holding", "holding", "pending")
    assert found.plan.text.startswith(f"All {DAYS + 1} plans are") and f"in {DAYS + 1} days" in found.costs.text
    assert found.line == "plan = replay holding, costs holding, edge pending"
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["plan"]["checked"] == DAYS + 1 and plain["plan"]["differences"] == []
    days = sorted(series["days_to_find"]["2"] for series in plain["costs"]["series"])
    assert found.costs.text.endswith(f"found in about {days[0]} to {days[-1]} days, by the series.")
    # Slippage of a coin by hand, from the journal's orders.
    spent: dict[str, list[float]] = {}
    for entry in entries_of(track):
        if entry["kind"] == "intent":
            mids = {order["cloid"]: (order["coin"], order["mid"]) for order in entry["orders"]}
        if entry["kind"] == "answers":
            for answer in entry["answers"]:
                coin, mid = mids[answer["cloid"]]
                usd = spent.setdefault(coin, [0.0, 0.0])
                usd[0] += answer["units"] * (answer["price"] - mid)
                usd[1] += abs(answer["units"]) * mid
    by_coin = {row["coin"]: row for row in plain["costs"]["by_coin"]}
    assert by_coin.keys() == spent.keys()
    for coin, (lost, traded) in spent.items():
        assert by_coin[coin]["slippage_bps"] == pytest.approx(1e4 * lost / traded)
        assert by_coin[coin]["notional_usd"] == pytest.approx(traded)


def test_the_bands_of_the_chart_are_those_that_decide(track: tuple[StrategySpec, Path]) -> None:
    spec, _ = track
    found = answered(track, entries_of(track), newest=1)
    floors, state = found.floors, found.edge_state
    assert floors is not None and state is not None and state.day == DAYS
    equity = [entry["equity_usd"] for entry in entries_of(track) if entry["kind"] == "plan"]
    np.testing.assert_allclose(floors["level"], np.array(equity[1:]) / equity[0])
    assert spec.bands is not None
    returns = [float(text) for text in spec.bands["cumulative_return"].split()]
    drawdowns = [float(text) for text in spec.bands["drawdown"].split()]
    shown = len(floors["instants"])
    assert shown == DAYS + 7
    level = [1.0, *floors["level"], *[floors["level"][-1]] * 7]
    for day in range(shown):
        assert floors["return_floor"][day] == pytest.approx(1.0 + returns[day])
        assert floors["drawdown_floor"][day] == pytest.approx(max(level[: day + 2]) * (1.0 - drawdowns[day]))
    assert state.bands["cumulative_return"] == pytest.approx(floors["return_floor"][DAYS - 1] - 1.0)


def test_an_account_that_pays_more_than_the_model_is_found(track: tuple[StrategySpec, Path]) -> None:
    found = answered(track, paying_more(entries_of(track), 12.0, 10), newest=1)
    assert found.costs.state == "crossed" and "account against replay" in found.costs.text
    [series] = [row for row in found.to_dict()["costs"]["series"] if row["decides"]]
    total, highest = 0.0, []
    for chart in found.alarm.charts:
        if chart.series == "account_bps":
            for value in chart.excess_bps:
                total = max(0.0, total + value - 1.0)
                highest.append(total)
    np.testing.assert_allclose(series["cusum"], highest, atol=1e-9)
    assert series["cusum_bps"] > series["limit_bps"] and series["days_to_find"] == {}
    assert found.alarm.estimate_bps_day == pytest.approx(12.0, abs=1.5)


def test_costs_are_counted_anew_after_a_reinstatement(track: tuple[StrategySpec, Path]) -> None:
    """As the alarm that demotes counts them, so that what a run says first is what it does."""
    entries = paying_more(entries_of(track), 60.0, 12)
    assert answered(track, entries, newest=1).costs.state == "crossed"
    entries.append({"kind": "reinstated", "time": entries[-1]["time"], "strategy": track[0].name, "reason": "mended"})
    assert answered(track, entries, newest=1).costs.state == "pending"


def test_a_plan_that_was_another_is_named(track: tuple[StrategySpec, Path]) -> None:
    entries = entries_of(track)
    plan = [entry for entry in entries if entry["kind"] == "plan"][-3]
    coin = next(iter(plan["plan"]["weights"]))
    plan["plan"]["weights"][coin] *= 0.9
    found = answered(track, entries, newest=5)
    assert found.plan.state == "crossed" and coin in found.plan.text and "1 of the 5 plans" in found.plan.text
    assert [row["coin"] for row in found.to_dict()["plan"]["differences"]] == [coin]
    # What no release recorded is no difference.
    for entry in entries:
        entry.pop("inputs", None)
    old = answered(track, entries)
    assert old.plan.state == "pending" and "earlier release" in old.plan.text


@pytest.mark.parametrize("plans", [0, 1, 2])
def test_a_young_journal_says_what_it_waits_for(track: tuple[StrategySpec, Path], tmp_path: Path, plans: int) -> None:
    spec, entries = track[0], entries_of(track)
    ends = [place for place, entry in enumerate(entries) if entry["kind"] == "fills"]
    path = tmp_path / "momentum-paper.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries[: ends[plans - 1] + 1 if plans else 0]))
    journal = Journal(path)
    promoted = Promoted(spec.config, spec, load_oracle(spec.oracle, spec.parameters))
    found = monitored(promoted, journal, spec.config, "momentum", "paper")
    answers = found["answers"]
    assert answers["plan"]["state"] == ("holding" if plans else "pending")
    assert answers["costs"]["state"] == answers["edge"]["state"] == "pending"
    status = {**live_status(journal, spec.config), **found}
    write_live_page(status, "momentum", "paper", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert ('data-hover="' in page) is (plans > 1) and "Is the edge still there?" in page


def test_without_a_spec_or_a_cache_nothing_is_made_up(track: tuple[StrategySpec, Path], tmp_path: Path) -> None:
    config = track[0].config
    found = live_answers(entries_of(track), config, None, None)
    assert (found.plan.state, found.edge.state) == ("pending", "pending")
    assert "account_bps" not in {chart.series for chart in found.alarm.charts}
    assert all(math.isnan(value) for value in found.fills.funding["model_usd"])


def test_a_demotion_and_what_became_of_it_are_on_the_page(track: tuple[StrategySpec, Path], tmp_path: Path) -> None:
    spec, source = track
    path = tmp_path / source.name
    path.write_bytes(source.read_bytes())
    alarm = Demotion("edge", "2024-06-20T23:00:00+00:00", "drawdown", 0.4, 0.3, "the deepest drawdown was 40%")
    demote(tmp_path, "momentum", alarm)
    promoted = Promoted(spec.config, spec)

    def page() -> str:
        journal = Journal(path)
        status = {**live_status(journal, spec.config), **monitored(promoted, journal, spec.config, "momentum", "paper")}
        write_live_page(status, "momentum", "paper", tmp_path / "page.html")
        return (tmp_path / "page.html").read_text()

    assert "momentum is DEMOTED at 2024-06-20 23:00 UTC: the deepest drawdown was 40%" in page()
    reinstate(tmp_path, "momentum", "a coin was delisted", "2024-06-21T08:00:00+00:00")
    text = page()
    assert "is DEMOTED" not in text and "Reinstated 2024-06-21 08:00 UTC: a coin was delisted" in text
