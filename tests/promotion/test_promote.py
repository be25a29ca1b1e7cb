"""The gates of a promotion: an edge passes, every gate can refuse and is named, each figure is what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Panel, RunConfig, backtest, decisions_of, sweep, weight_matrix
from engine.checks import Check, Measurement, check_value
from engine.errors import PromotionError
from engine.oracles.loading import load_oracle
from engine.promotion.candidate import Candidate, read_candidate, sweep_of
from engine.promotion.gates import Examination, examine
from engine.promotion.promote import check_overrides, overrides_of
from engine.simulation.capacity import capacity, volume_shares
from engine.sweeps.study import load_study
from engine.sweeps.trials import count_trials
from engine.validation.checks import CHECKS, GATES
from engine.validation.evidence import ValidationInputs, familywise
from engine.validation.thresholds import GateFile
from engine.validation.validate import validate
from helpers.promotion import World, build, winner_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("promotion"))


@pytest.fixture(scope="module")
def thresholds() -> dict[str, float]:
    return dict(GateFile.read().gates)


@pytest.fixture(scope="module")
def winner(world: World) -> Candidate:
    return winner_of(world)


@pytest.fixture(scope="module")
def found(
    world: World, winner: Candidate, thresholds: dict[str, float]
) -> tuple[Examination, list[tuple[int, int, str]]]:
    """The winner before the gates as they are committed, and the progress that was shown."""
    steps: list[tuple[int, int, str]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world[0])
        return examine(winner, world[2], thresholds, 10_000.0, lambda *step: steps.append(step)), steps


def by_name(examination: Examination) -> dict[str, Check]:
    return {gate.name: gate for gate in examination.gates}


# What the gates say ---------------------------------------------------------------------------------------------------


def test_a_planted_edge_passes_every_gate(found: tuple[Examination, list[tuple[int, int, str]]]) -> None:
    examination, steps = found
    assert not examination.failed, [gate.comparison for gate in examination.failed]
    assert [gate.name for gate in examination.gates] == list(GATES)
    assert examination.sweep == "grid" and examination.trials == 12
    check_overrides(examination, ())
    assert steps[0] == (0, len(GATES), "running it again") and steps[-1] == (len(GATES), len(GATES), "done")
    assert any("look-ahead: " in what for _, _, what in steps)


def test_the_figures_are_those_that_can_be_had_by_hand(
    found: tuple[Examination, list[tuple[int, int, str]]], winner: Candidate, world: World
) -> None:
    home, _, panel = world
    value = {name: gate.value for name, gate in by_name(found[0]).items()}
    config = winner.config
    oracle = load_oracle(str(home / "trend.py") + ":Trend", winner.parameters)
    weights = weight_matrix(oracle, panel, decisions_of(panel, config))
    base = backtest(panel, weights, config)

    def run(section: str, **changes: Any) -> Any:
        sections = config.to_dict()
        sections[section] |= changes
        return backtest(panel, weights, RunConfig.from_dict(sections)).metrics["sharpe"]

    assert value["reproduced"] == pytest.approx(0.0, abs=1e-9)
    assert value["days"] == len(base.daily_returns) == 249
    assert value["max_drawdown"] == -base.metrics["max_drawdown"] > 0.0
    assert value["cost_x2"] == run("costs", stress=2.0) and value["cost_x3"] == run("costs", stress=3.0)
    assert value["delay_1h"] == run("execution", delay_hours=1) / base.metrics["sharpe"]
    assert value["delay_24h"] == run("execution", delay_hours=24)
    assert value["capacity"] == run("costs", impact="venue")
    assert value["volume_share"] == pytest.approx(volume_shares(base)[0], rel=0.01)  # impact is in the fills
    assert value["price_coverage"] == value["decision_coverage"] == 1.0
    assert value["funding_missing"] == 0.0
    assert value["causality"] == value["liquidation"] == 0.0
    rows = panel.rows(pd.DatetimeIndex(weights.index))
    assert found[0].gross == base.exposure["gross_frac"].to_numpy()[rows].max()


def test_luck_is_what_the_verdict_of_the_sweep_says(
    found: tuple[Examination, list[tuple[int, int, str]]], world: World
) -> None:
    home, _, panel = world
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        verdict = validate(load_study(home / "reports/grid"), panel, count_trials(home / "reports", ["trend.py:Trend"]))
    said = {check.name: check.value for check in verdict.checks}
    value = {name: gate.value for name, gate in by_name(found[0]).items()}
    for name in ("familywise", "deflated_sharpe", "probability_of_loss", "walk_forward", "alpha", "cost_x3"):
        assert value[name] == said[name], name


def test_a_set_that_did_not_win_is_judged_by_its_own_sharpe(
    winner: Candidate, world: World, thresholds: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, _, panel = world
    monkeypatch.chdir(home)
    study = load_study(home / "reports/grid")
    worst = int(study["sharpe"].argmin())
    parameters = {**winner.parameters, **study.params(worst)}
    other = replace(winner, parameters=parameters, sharpe=float(study["sharpe"].iloc[worst]))
    assert sweep_of(other)[1] == worst
    gates = by_name(examine(other, panel, thresholds, 10_000.0))
    test = familywise(ValidationInputs(study, worst, panel, None))
    assert gates["familywise"].value == test["p_value"] >= test["p_consistent"] and gates["reproduced"].passed


@pytest.mark.parametrize("name", list(GATES))
def test_each_gate_can_refuse_and_is_named(
    found: tuple[Examination, list[tuple[int, int, str]]], name: str, thresholds: dict[str, float]
) -> None:
    """The value on the wrong side of the threshold, or not computed: one gate refuses, and another reason opens it."""
    gates = by_name(found[0])
    for value in (None, 9.75e5):
        broken = replace(
            gates[name], value=value, passed=False, summary="Not computed. Why not." if value is None else ""
        )
        examination = replace(found[0], gates=tuple(broken if gate.name == name else gate for gate in found[0].gates))
        shown = "not computed" if value is None else "9.75e+05"
        with pytest.raises(PromotionError) as refusal:
            check_overrides(examination, ())
        text = str(refusal.value)
        assert f"Refused by 1 of {len(GATES)} gates: {name} {shown} ({gates[name].rule} {thresholds[name]:g})." in text
        assert ("Why not." in text) == (value is None) and f"--override {name}" in text
        check_overrides(examination, overrides_of([name], ["because"]))


@pytest.mark.parametrize("name", sorted({*GATES} - {"causality", "liquidation", "deflated_sharpe", "holdout"}))
def test_each_threshold_is_asked_for(found: tuple[Examination, list[tuple[int, int, str]]], name: str) -> None:
    """Just at the answer it passes, just beyond it does not; what is no number never does."""
    rule = CHECKS[name].rule
    value = by_name(found[0])[name].value
    assert value is not None
    beyond = np.nextafter(value, np.inf if rule == "at least" else -np.inf)
    assert check_value(name, "", rule, value, lambda: Measurement(value, "")).passed
    assert not check_value(name, "", rule, beyond, lambda: Measurement(value, "")).passed
    assert not check_value(name, "", rule, value, lambda: Measurement(float("nan"), "")).passed


def market_of(panel: Panel, **frames: np.ndarray) -> Panel:
    return replace(panel, fields={**panel.fields, **frames})


def test_bad_candidates_fail_the_gates_made_for_them(
    winner: Candidate, world: World, thresholds: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leak; a few days; holes; no volume; a large account; a recorded figure that was made up."""
    home, _, whole = world
    monkeypatch.chdir(home)
    panel = whole.until(whole.index[24 * 60])

    def failed(candidate: Candidate, panel: Panel = panel, account: float = 1e4) -> dict[str, Check]:
        return {gate.name: gate for gate in examine(candidate, panel, thresholds, account).failed}

    leak = failed(replace(winner, parameters={**winner.parameters, "peek": 20}))
    assert {"causality", "reproduced", "days"} <= set(leak) and leak["causality"].value >= 1.0
    assert (
        leak["days"].value == 49.0 and leak["familywise"].value is None and "No sweep in" in leak["familywise"].summary
    )

    mid = panel.values("mid").copy()
    mid[100:400, 3:] = np.nan
    holes = failed(winner, replace(market_of(panel, mid=mid), tradable=panel.tradable & ~np.isnan(mid)))
    assert holes["price_coverage"].value == pytest.approx(1 - 300 * 9 / mid.size)

    shut = panel.tradable.copy()
    shut[24 * 30 :] = False
    assert failed(winner, replace(panel, tradable=shut))["decision_coverage"].value == 30 / 60  # it asks for nothing

    late = replace(winner, config=RunConfig.from_dict({"execution": {"delay_hours": 1}, "costs": {"funding": False}}))
    shut = panel.tradable.copy()
    shut[24 * 30 :: 24] = False  # 00:00, when the decisions of 23:00 are traded
    gates = failed(late, replace(panel, tradable=shut))
    assert gates["decision_coverage"].value == pytest.approx(30 / 60, abs=0.02)
    assert gates["funding_missing"].value is None and "costs.funding is false" in gates["funding_missing"].summary

    fields = {name: values for name, values in panel.fields.items() if name not in ("volume_usd", "funding")}
    dry = failed(winner, replace(panel, fields=fields))
    assert dry["funding_missing"].value == 1.0
    assert dry["volume_share"].value is None and "no volume" in dry["volume_share"].summary

    rates = panel.values("funding").copy()
    rates[-24 * 3 :] = np.nan
    unrated = failed(winner, market_of(panel, funding=rates))["funding_missing"]
    assert unrated.value == pytest.approx(3 / 49, abs=1e-3) and unrated.summary.startswith("6.1")

    large = failed(winner, account=1e9)
    costly = replace(winner.config, costs=replace(winner.config.costs, impact="venue"))
    weights = weight_matrix(load_oracle("trend.py:Trend", winner.parameters), panel, decisions_of(panel, winner.config))
    there = capacity(panel, weights, costly, [1e9]).iloc[0]
    assert large["capacity"].value == there["sharpe"] < 0.0
    assert large["volume_share"].value == there["volume_share_median"] > 1.0


def test_ruin_is_counted(
    winner: Candidate, world: World, thresholds: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world[0])
    panel = world[2].until(world[2].index[24 * 40])
    wild = RunConfig.from_dict(
        {"account": {"max_gross": 60.0, "initial_margin": False}, "execution": {"leverage": 50.0}}
    )
    gates = by_name(examine(replace(winner, config=wild), panel, thresholds, 1e4))
    assert gates["liquidation"].value >= 1.0 and not gates["liquidation"].passed


def test_trials_of_the_oracle_inside_count_at_the_gates(
    world: World, thresholds: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    panel = world[2].until(world[2].index[24 * 40])
    momentum = "research.oracles.momentum:Momentum"
    sweep(panel, momentum, {"n": [1, 2, 3], "lookback_hours": [24, 48]}, name="a", reports="reports")
    fixed = {"inner": momentum, "inner.n": 4, "inner.lookback_hours": 24}
    sweep(panel, "research.oracles.wrappers:Cap", {"cap": [0.4, 0.9]}, fixed=fixed, name="b", reports="reports")
    examination = examine(read_candidate(Path("reports/b")), panel, thresholds, 1e4)
    assert examination.trials == 8 and examination.sweep == "b"
    assert "the best of the 6 trials outside this sweep" in by_name(examination)["deflated_sharpe"].summary
