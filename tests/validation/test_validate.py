"""validate(): luck fails, an edge passes, every check can fail, every figure is one that can be had by hand."""

from __future__ import annotations

import json
import sys
from copy import deepcopy
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer

from engine import Panel, RunConfig, backtest, decisions_of, weight_matrix
from engine.checks import Check
from engine.commands.validate import NOT_PASSED, validate_command
from engine.errors import ConfigError, DataError, HlbtError
from engine.simulation import metrics
from engine.sweeps.study import VERDICT as FILE
from engine.sweeps.study import Study, index_of, load_study
from engine.sweeps.sweep import sweep as engine_sweep
from engine.sweeps.trials import record_trials
from engine.validation.bootstrap import block_length, superior_sets
from engine.validation.checks import CHECKS, VERDICT, checks_of
from engine.validation.evidence import ValidationInputs, alpha, familywise
from engine.validation.reruns import Rerun, neighbours
from engine.validation.statistics import deflated_sharpe_ratio, effective_days, effective_trials, moments, walk_forward
from engine.validation.thresholds import GateFile
from engine.validation.validate import TrialCount, validate
from engine.validation.verdict import Verdict
from helpers.studies import market, study_of
from research.oracles.momentum import Momentum

pytestmark = pytest.mark.slow

MOMENTUM = "research.oracles.momentum:Momentum"
GRID: dict[str, list[Any]] = {"lookback_hours": [48, 120, 240], "n": [1, 2, 3, 4]}
#: Checks that need nothing but the study and its daily returns.
FROM_RETURNS = {
    "familywise",
    "deflated_sharpe",
    "probability_of_loss",
    "walk_forward",
    "plateau",
}


@pytest.fixture(scope="module")
def panel() -> Panel:
    return market(2, 260, 12, 0.0002, quotes=True)


@pytest.fixture(scope="module")
def study(panel: Panel) -> Study:
    return study_of(panel, MOMENTUM, GRID)


@pytest.fixture(scope="module")
def edge(study: Study, panel: Panel) -> Verdict:
    return validate(study, panel)


@pytest.fixture(scope="module")
def luck() -> tuple[Study, Panel]:
    panel = market(1, 200, 10, 0.0)
    free = RunConfig.from_dict({"costs": {"taker_bps": 0.0, "half_spread_bps": 0.0}})
    return study_of(panel, "helpers.studies:Noise", {"seed": list(range(80))}, config=free), panel


def by_name(verdict: Verdict) -> dict[str, Check]:
    return {check.name: check for check in verdict.checks}


def test_an_edge_passes(edge: Verdict) -> None:
    assert edge.passed and all(check.passed for check in edge.checks), edge.table()
    assert edge.word == "passed" and edge.summary.startswith("Nothing here says that the winner is luck")
    assert edge.details["notes"] == [
        "No ledger of trials was given: whatever was tried outside this sweep is not counted, and the verdict flatters."
    ]


def test_luck_fails(luck: tuple[Study, Panel]) -> None:
    """The best of 80 random books, without any cost, has a fine Sharpe ratio; nothing else of it is fine."""
    study, panel = luck
    assert study["sharpe"].max() > 1.5
    verdict = validate(study, panel)
    failed = {name for name, check in by_name(verdict).items() if check.passed is False}
    assert {"familywise", "probability_of_loss"} <= failed
    assert not verdict.passed and verdict.word != "fragile"
    assert verdict.details["trials"]["deflated_sharpe_raw"] < 0.9


def test_the_same_seed_gives_the_same_verdict(study: Study, panel: Panel, edge: Verdict) -> None:
    seen: list[tuple[int, int, str]] = []
    again = validate(study, panel, progress=lambda *step: seen.append(step))
    assert again.to_dict() == edge.to_dict()
    assert seen[0][:2] == (0, 13) and seen[-1] == (13, 13, "done") and len(seen) == 14
    assert validate(study, panel, seed=1).details["bootstrap"] != edge.details["bootstrap"]


# Every check can fail ------------------------------------------------------------------------------------------------

BREAK: dict[str, tuple[str, Any]] = {
    "familywise": ("familywise.p_value", 0.06),
    "deflated_sharpe": ("trials", {"outside": 9, "deflated_sharpe": 0.94, "expected_max_sharpe_annual": 1.0}),
    "probability_of_loss": ("pbo.probability_of_loss", 0.11),
    "walk_forward": ("walk_forward.anchored.sharpe", -0.1),
    "alpha": ("alpha.p_value", 0.06),
    "null_books": ("null_books.p_value", 0.06),
    "cost_x2": ("cost_stress.1.sharpe", -0.1),
    "cost_x3": ("cost_stress.2.sharpe", -0.1),
    "delay_1h": ("delay_stress.1.sharpe", 3.0),
    "delay_24h": ("delay_stress.2.sharpe", -0.1),
    "start_dates": ("start_dates.3.sharpe", -0.1),
    "plateau": ("plateau.median", 3.0),
    "liquidation": ("delay_stress.2.liquidated_at", "2025-03-01T00:00:00+00:00"),
    "reproduced": ("winner.rerun.sharpe", 8.0),
}


@pytest.mark.parametrize("name", [*BREAK, "decision_hours"])
def test_each_check_can_fail_alone(edge: Verdict, name: str) -> None:
    details = deepcopy(dict(edge.details))
    if name == "decision_hours":
        for row in details[name][:13]:
            row["sharpe"] = 1.0
    else:
        path, value = BREAK[name]
        *steps, last = path.split(".")
        node: Any = details
        for step in steps:
            node = node[int(step) if isinstance(node, list) else step]
        node[int(last) if isinstance(node, list) else last] = value
    checks = tuple(checks_of(VERDICT, details, GateFile.read().verdict))
    assert [check.name for check in checks if not check.passed] == [name]
    verdict = Verdict("x", checks, details)
    word = {"fragile": "fragile", "ruin": "refuted", "broken": "refuted"}
    assert verdict.word == word.get(CHECKS[name].group, "luck cannot be excluded yet")
    assert not verdict.passed and f"1 of {len(VERDICT)} checks failed: {CHECKS[name].label}." in verdict.summary


@pytest.mark.parametrize("name", ["familywise", "alpha", "probability_of_loss", "null_books"])
def test_what_luck_does_as_often_as_not_is_refuted(edge: Verdict, name: str) -> None:
    path, _ = BREAK[name]
    part, key = path.split(".")
    for value, word in ((0.49, "luck cannot be excluded yet"), (0.51, "refuted")):
        details = {**edge.details, part: {**edge.details[part], key: value}}
        assert Verdict("x", tuple(checks_of(VERDICT, details, GateFile.read().verdict)), details).word == word


def test_what_cannot_be_computed_is_not_fragile(edge: Verdict) -> None:
    for part, word in (("familywise", "luck cannot be excluded yet"), ("cost_stress", "fragile")):
        details = {**edge.details, part: {"why": "Gone."}}
        assert Verdict("x", tuple(checks_of(VERDICT, details, GateFile.read().verdict)), details).word == word
    assert Verdict("x", (), {}).word == "luck cannot be excluded yet" and not Verdict("x", (), {}).passed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("familywise", -1.0),
        ("probability_of_loss", -1.0),
        ("walk_forward", 99.0),
        ("alpha", -1.0),
        ("null_books", -1.0),
        ("cost_x2", 99.0),
        ("cost_x3", 99.0),
        ("delay_1h", 9.0),
        ("delay_24h", 99.0),
        ("decision_hours", 9.0),
        ("start_dates", 99.0),
        ("plateau", 9.0),
        ("liquidation", -1.0),
        ("reproduced", -1.0),
    ],
)
def test_each_threshold_is_asked_for(edge: Verdict, name: str, value: float) -> None:
    checks = checks_of(VERDICT, edge.details, {**GateFile.read().verdict, name: value})
    assert [check.name for check in checks if not check.passed] == [name]


def test_thresholds_are_checked(study: Study) -> None:
    with pytest.raises(ConfigError, match=r"unknown threshold 'alfa'\. Did you mean 'alpha'"):
        validate(study, None, thresholds={"alfa": 0.1})
    strict = validate(study, None, thresholds={"walk_forward": 99.0})
    assert by_name(strict)["walk_forward"].passed is False and by_name(strict)["walk_forward"].threshold == 99.0


# What cannot be computed ---------------------------------------------------------------------------------------------


def test_without_a_panel(study: Study) -> None:
    verdict = validate(study, None)
    found = by_name(verdict)
    assert {name for name, check in found.items() if check.passed is None} == set(found) - FROM_RETURNS
    assert all(found[name].passed for name in FROM_RETURNS)
    assert not verdict.passed and "could not be computed" in verdict.summary and verdict.digests["panel"] is None
    assert found["cost_x2"].summary == "Not computed. No panel was given, so the winner could not be run again."
    assert found["alpha"].summary == "Not computed. There is no BTC to compare with: no panel was given."
    assert verdict.details["cost_stress"] == {"why": "No panel was given, so the winner could not be run again."}


def test_without_daily_returns(study: Study, panel: Panel, edge: Verdict) -> None:
    """A summary alone: the winner's own returns come from the run on the panel, the rest says why."""
    bare = replace(study, daily_returns=None)
    found = by_name(validate(bare, panel))
    missing = {"familywise", "probability_of_loss", "alpha", "walk_forward"}
    assert {name for name, check in found.items() if check.passed is None} == missing
    assert all("kept no daily returns" in found[name].summary for name in missing)
    judged = validate(bare, panel, TrialCount(90, 0.1)).details
    expected = validate(study, panel, TrialCount(90, 0.1)).details
    assert judged["trials"]["deflated_sharpe"] == pytest.approx(expected["trials"]["deflated_sharpe"], rel=1e-8)
    assert judged["bootstrap"]["sharpe"] == pytest.approx(expected["bootstrap"]["sharpe"], rel=1e-8)
    nothing = by_name(validate(bare, None))
    assert {name for name, check in nothing.items() if check.passed is not None} == {"deflated_sharpe", "plateau"}
    outside = by_name(validate(bare, None, TrialCount(90, 0.1)))["deflated_sharpe"]
    assert outside.passed is None and "kept no daily returns of the winner" in outside.summary


def test_without_btc(panel: Panel) -> None:
    keep = [place for place, coin in enumerate(panel.coins) if coin != "BTC"]
    other = replace(
        panel,
        coins=tuple(panel.coins[place] for place in keep),
        fields={name: values[:, keep] for name, values in panel.fields.items()},
        tradable=panel.tradable[:, keep],
        table=tuple(panel.table[place] for place in keep),
    )
    verdict = validate(study_of(other, MOMENTUM, GRID), other)
    assert by_name(verdict)["alpha"].summary == "Not computed. There is no BTC to compare with: the panel lacks it."
    assert by_name(verdict)["familywise"].passed and not verdict.passed


def test_sets_without_returns_are_left_out_and_named(study: Study, panel: Panel) -> None:
    assert study.daily_returns is not None
    daily, table = study.daily_returns.copy(), study.table.copy()
    failed = [place for place in range(len(study)) if place != study.best()][:2]
    daily.iloc[:, failed] = np.nan
    daily.iloc[100, 5] = np.nan  # an edge: the day goes, the set stays
    table.iloc[failed, table.columns.get_loc("sharpe")] = np.nan
    verdict = validate(replace(study, daily_returns=daily, table=table), panel)
    assert verdict.details["pbo"]["sets"] == 10 and verdict.details["pbo"]["days"] == len(study.joint[0]) - 1 == 248
    assert "2 of 12 sets have no daily returns and were left out." in verdict.details["notes"]
    places = {fold["place"] for fold in verdict.details["walk_forward"]["rolling"]["folds"]}
    assert places and not places & set(failed)
    for fold in verdict.details["walk_forward"]["anchored"]["folds"]:
        assert fold["parameters"] == study.params(fold["place"])


def test_one_set_and_few_days() -> None:
    panel = market(3, 40, 6, 0.0005)
    one = study_of(panel, MOMENTUM, {"lookback_hours": [24]}, {"n": 2})
    found = by_name(validate(one, panel))
    for name in ("probability_of_loss", "walk_forward", "plateau"):
        assert found[name].outcome == "not asked" and found[name].summary.startswith("One set was run"), name
    # Two sets that are one: nothing is undefined for the rounding of their correlation.
    copies = by_name(validate(study_of(panel, MOMENTUM, {"n": [2, 2]}, {"lookback_hours": 24}), panel))
    assert copies["deflated_sharpe"].passed and copies["familywise"].value == found["familywise"].value
    short = market(3, 8, 6, 0.0005)
    few = by_name(validate(study_of(short, MOMENTUM, {"lookback_hours": [24, 48]}, {"n": 2}), short))
    assert "5 days are too few" in few["probability_of_loss"].summary
    assert "cannot be resampled" in few["familywise"].summary and "are too few" in few["alpha"].summary
    assert "No start leaves 30 days" in few["start_dates"].summary


def test_a_single_set_can_pass_and_fail_and_is_not_asked_what_was_chosen(panel: Panel) -> None:
    """The familywise test of one set is its own; with nothing to choose from, choice is no question."""
    one = study_of(panel, MOMENTUM, {"n": [3]}, {"lookback_hours": 240})
    verdict = validate(one, panel)
    assert verdict.passed and verdict.word == "passed", verdict.table()
    returns = one.daily_returns.dropna().to_numpy()  # type: ignore[union-attr]
    alone = superior_sets(returns, block_length(returns[:, 0], "circular"))
    assert by_name(verdict)["familywise"].value == alone.p_consistent <= 0.05
    power = verdict.details["power"]
    assert power["expected_sharpe"] == pytest.approx(one["sharpe"].iloc[0], rel=1e-9) and "1 set and" in power["says"]
    assert "these days are enough" in power["says"]
    # Set after set that fails leaves one alone too; two sets are a choice.
    table = one.table.assign(sharpe=np.nan, error="planted")
    index = pd.MultiIndex.from_tuples([(3,), (4,)], names=["n"]).get_level_values(0)
    failed = pd.concat([one.table, table]).set_axis(index)
    daily = pd.concat([one.daily_returns, one.daily_returns * np.nan], axis=1).set_axis(index, axis=1)  # type: ignore[list-item,operator]
    record = {**one.record, "grid": {"n": [3, 4]}}
    loss = by_name(validate(Study(record, failed, daily), None))["probability_of_loss"]
    assert loss.outcome == "not asked" and loss.summary.startswith("Of 2 sets one has figures")
    # What was tried before counts still: the one set is the best of many.
    tried = by_name(validate(one, None, TrialCount(100_000, 0.2)))["deflated_sharpe"]
    assert tried.outcome in ("passed", "failed") and tried.value is not None
    noise = study_of(panel, "helpers.studies:Noise", {"seed": [1]})
    assert validate(noise, panel).word == "refuted"


def test_neighbours_are_compared_on_the_days_that_all_sets_trade(study: Study, edge: Verdict) -> None:
    """Days that one set alone trades are no merit of it."""
    assert study.daily_returns is not None
    row = edge.details["winner"]["place"]
    daily = study.daily_returns.copy()
    daily.iloc[:60, [other for other in range(len(study)) if other != row]] = np.nan
    table = study.table.copy()
    table.iloc[row, table.columns.get_loc("sharpe")] = 99.0
    found = validate(Study(study.record, table, daily), None)
    part, check = found.details["plateau"], by_name(found)["plateau"]
    joint = Study(study.record, table, daily).sharpe_joint
    assert [near["sharpe"] for near in part["neighbours"]] == [joint[near["place"]] for near in part["neighbours"]]
    assert found.details["winner"]["place"] == row and check.threshold == pytest.approx(0.5 * joint[row])
    assert check.passed


def test_a_winner_that_loses_is_refuted() -> None:
    """Its null loses too; neither that nor a negative power is a sign of anything."""
    study = study_of(market(3, 40, 6, 0.0005), MOMENTUM, {"lookback_hours": [24, 48]}, {"n": 2})
    assert study.daily_returns is not None
    losing = Study(study.record, study.table.assign(sharpe=-9.0), -study.daily_returns.abs())
    verdict = validate(losing, None)
    assert verdict.word == "refuted" and by_name(verdict)["familywise"].value == 1.0
    power = verdict.details["power"]
    assert power["detectable_sharpe"] > 0.0 and "no number of days" in power["says"]


def test_a_study_that_never_traded() -> None:
    panel = market(3, 40, 6, 0.0005)
    idle = study_of(panel, "helpers.studies:Noise", {"seed": [1, 2]}, {"scale": 1e-9})
    with pytest.raises(DataError, match="No set of the study test-study has a sharpe"):
        validate(idle, panel)


def test_another_panel_is_said_and_does_not_pass(study: Study, panel: Panel) -> None:
    verdict = validate(study, panel.until(panel.index[-30]))
    assert "The panel is not the one that the sweep ran on: its digest differs." in verdict.details["notes"]
    reproduced = by_name(verdict)["reproduced"]
    assert reproduced.passed is None and "not the one" in reproduced.summary and not verdict.passed
    # Nothing speaks against the winner where only its panel is gone.
    assert verdict.word == "luck cannot be excluded yet" and "run again as recorded" in verdict.summary
    assert verdict.digests["data"] == panel.digest != verdict.digests["panel"]


# Figures by hand -----------------------------------------------------------------------------------------------------


def by_hand(panel: Panel, study: Study, **sections: dict[str, Any]) -> Any:
    config = RunConfig.from_dict(sections)
    oracle = Momentum(**study.params(study.best()))
    return backtest(panel, weight_matrix(oracle, panel, decisions_of(panel, config)), config)


def test_runs_again_are_backtests(study: Study, panel: Panel, edge: Verdict) -> None:
    figures = ("sharpe", "cagr", "max_drawdown", "equity_end_usd")
    cases = [
        *((row, {"costs": {"stress": row["factor"]}}) for row in edge.details["cost_stress"]),
        *((row, {"execution": {"delay_hours": row["hours"]}}) for row in edge.details["delay_stress"]),
        *((row, {"execution": {"hour_utc": row["hour"]}}) for row in edge.details["decision_hours"]),
    ]
    assert len(cases) == 3 + 3 + 24
    for row, sections in cases:
        expected = by_hand(panel, study, **sections).metrics
        assert {name: row[name] for name in figures} == {name: expected[name] for name in figures}, sections
    sharpes = [row["sharpe"] for row in edge.details["decision_hours"]]
    assert by_name(edge)["decision_hours"].value == pytest.approx(np.median(sharpes))
    costs = [row["equity_end_usd"] for row in edge.details["cost_stress"]]
    assert costs == sorted(costs, reverse=True)


def test_stresses_are_on_top_of_the_sets_own(panel: Panel) -> None:
    config = RunConfig.from_dict({"costs": {"stress": 1.5}, "execution": {"delay_hours": 2}})
    rerun = Rerun(study_of(panel, MOMENTUM, {"lookback_hours": [120]}, {"n": 3}, config), 0, panel)
    own = rerun.base.metrics["sharpe"]
    assert rerun.costs()[0]["sharpe"] == rerun.delays()[0]["sharpe"] == own
    thrice = rerun.study.parameter_set(0, {"costs.stress": 4.5}).config
    assert rerun.costs()[2]["sharpe"] == backtest(panel, rerun.weights, thrice).metrics["sharpe"]
    day = rerun.study.parameter_set(0, {"execution.delay_hours": 26}).config
    assert rerun.delays()[2]["sharpe"] == backtest(panel, rerun.weights, day).metrics["sharpe"]


def test_start_dates(study: Study, panel: Panel, edge: Verdict) -> None:
    rows = edge.details["start_dates"]
    assert rows[0]["sharpe"] == pytest.approx(edge.details["winner"]["metrics"]["sharpe"], rel=1e-10)
    assert rows[0]["days"] == edge.details["winner"]["metrics"]["days"] == 249
    whole = by_hand(panel, study)
    row = rows[4]
    start = pd.Timestamp(row["start"])
    result = backtest(panel, whole.weights[whole.weights.index >= start])
    held = result.equity[(result.equity.index >= start) & (result.equity.index.hour == 23)]
    assert result.equity[start - pd.Timedelta(hours=1)] == 10_000.0 and len(held) - 1 == row["days"]
    assert metrics.sharpe(held.pct_change().dropna().to_numpy()) == pytest.approx(row["sharpe"])
    assert [pd.Timestamp(later["start"]) for later in rows] == sorted({pd.Timestamp(later["start"]) for later in rows})


def test_trials_and_track(study: Study, panel: Panel, edge: Verdict) -> None:
    assert study.daily_returns is not None
    shape = moments(study.daily_returns.iloc[:, study.best()].dropna())
    sd = float(np.std(study["sharpe"] / sqrt(365), ddof=1))
    trials = edge.details["trials"]
    assert (trials["study"], trials["ledger"], trials["judged"]) == (12, None, 12)
    assert trials["sharpe_sd_daily"] == pytest.approx(sd)
    assert trials["deflated_sharpe_raw"] == pytest.approx(deflated_sharpe_ratio(*shape, sd, 12))
    days = effective_days(study.daily_returns.iloc[:, study.best()].dropna())
    assert (trials["outside"], trials["effective_days"]) == (0, pytest.approx(days))
    assert by_name(edge)["deflated_sharpe"].value is None and by_name(edge)["deflated_sharpe"].passed
    assert trials["effective"] == pytest.approx(effective_trials(study.joint[0]), rel=1e-9)
    assert 1 < trials["effective"] < 12
    assert edge.details["winner"]["track"]["sharpe"] * sqrt(365) == pytest.approx(study["sharpe"].max())
    counted = validate(study, None, TrialCount(100_012, 0.12)).details
    assert counted["trials"]["deflated_sharpe_raw"] == pytest.approx(deflated_sharpe_ratio(*shape, 0.12, 100_012))
    bounded = min(0.12, 1.0 / sqrt(days - 1.0))  # what a grid with bad sets in it differs by is no luck
    expected = deflated_sharpe_ratio(shape.sharpe, days, shape.skew, shape.kurtosis, bounded, 100_000)
    assert counted["trials"]["deflated_sharpe"] == pytest.approx(expected)
    assert not any("ledger" in note for note in counted["notes"])
    alike = validate(study, None, TrialCount(100_012, 0.0)).details  # a ledger padded with trials that do not differ
    assert alike["trials"]["deflated_sharpe"] == pytest.approx(expected) and sd > bounded
    fewer = validate(study, None, TrialCount(3, 0.12))
    assert (fewer.details["trials"]["judged"], fewer.details["trials"]["outside"]) == (12, 0)
    assert any("fewer than the study's own" in note for note in fewer.details["notes"])


def test_walk_forward_charges_a_whole_book(study: Study, panel: Panel, edge: Verdict) -> None:
    """Quotes are 1 bp from mid, the highest fee of the span 4.5 bps."""
    assert study.daily_returns is not None
    assert edge.details["walk_forward"]["switch_rate_frac"] == pytest.approx(5.5e-4, rel=1e-6)
    cost = 2.0 * study["gross_mean"].to_numpy() * 5.5e-4
    values, dates, _ = study.joint
    for name, anchored in (("anchored", True), ("rolling", False)):
        curve = edge.details["walk_forward"][name]
        expected = walk_forward(values, 83, 28, anchored, cost)
        np.testing.assert_allclose(curve["returns"], expected.returns, rtol=1e-6, atol=1e-12)
        assert curve["dates"][0] == f"{dates[83]:%Y-%m-%d}"
        assert len(curve["dates"]) == len(curve["returns"]) == 166 and len(curve["folds"]) == 6
        assert [fold["test_start"] for fold in curve["folds"]][1:] == [
            f"{dates[83 + 28 * step]:%Y-%m-%d}" for step in range(1, 6)
        ]
    without = validate(study, None).details["walk_forward"]["switch_rate_frac"]
    assert without == pytest.approx(6.5e-4)  # the config's half spread of 2 bps


def test_leverage_is_no_skill_and_a_market_that_rises_is_none(study: Study, panel: Panel, edge: Verdict) -> None:
    """Levered tenfold the p-values do not move; BTC added to every set moves the familywise test and no alpha."""
    assert study.daily_returns is not None
    wild = validate(replace(study, daily_returns=study.daily_returns * 10.0), None).details
    assert wild["familywise"]["p_value"] == edge.details["familywise"]["p_value"]
    assert wild["familywise"]["better"] == edge.details["familywise"]["better"]
    rng = np.random.default_rng(3)
    price = panel.frame("mid")["BTC"].to_numpy() * np.exp(0.0004 * np.arange(len(panel.index)))  # rises 40 % a month
    up = replace(panel, fields={**panel.fields, "mid": panel.values("mid").copy()})
    up.values("mid").flags.writeable = True
    up.values("mid")[:, panel.coins.index("BTC")] = price
    daily = study.daily_returns
    held = pd.Series(price, index=panel.index)
    market = held[held.index.hour == 23].pct_change()
    noise = rng.normal(0.0, 0.003, daily.shape)
    riding = replace(study, daily_returns=daily * 0.0 + noise + market.reindex(daily.index).to_numpy()[:, None])
    found = ValidationInputs(riding, riding.best(), up, None)
    assert familywise(found)["p_value"] < 0.01
    left = alpha(found)
    assert left["p_value"] > 0.05 and left["beta"] == pytest.approx(1.0, abs=0.05) and left["correlation"] > 0.95
    assert abs(left["alpha_annual"]) < 0.2 < abs(market.mean() * 365)


def test_neighbours_are_one_step_away() -> None:
    grid = {"n": [5, 1, 3], "kind": ["a", "b", "c"], "on": [True, False], "lags": [[1, 2], [3]]}
    codes = np.array([(i, j, k, m) for i in range(3) for j in range(3) for k in range(2) for m in range(2)])
    table = pd.DataFrame({"sharpe": np.arange(36.0)}, index=index_of(grid, codes))
    study = Study({"name": "x", "grid": grid}, table, None)
    place = 2 * 12 + 0 + 0 + 0  # n = 3, the middle of 1, 3, 5
    found = neighbours(study, place)
    assert [(item["axis"], item["place"]) for item in found] == [
        ("n", 12),
        ("n", 0),
        ("kind", 28),
        ("kind", 32),
        ("on", 26),
        ("lags", 25),
    ]
    assert [item["parameters"]["n"] for item in found[:2]] == [1, 5]
    assert len([item for item in neighbours(study, 0) if item["axis"] == "n"]) == 1  # 5 is the end
    table.iloc[12] = np.nan
    assert [item["place"] for item in neighbours(study, place) if item["axis"] == "n"] == [0]
    single = Study(
        {"name": "x", "grid": {"n": [3, 1, 2]}}, table.iloc[:3].set_axis(pd.Index([3, 1, 2], name="n")), None
    )
    assert [item["place"] for item in neighbours(single, 2)] == [1, 0]


def test_a_liquidated_winner_does_not_pass(edge: Verdict) -> None:
    details = deepcopy(dict(edge.details))
    details["winner"]["metrics"]["liquidated_at"] = "2025-03-01T00:00:00+00:00"
    (check,) = checks_of(["liquidation"], details, GateFile.read().verdict)
    assert (check.value, check.passed) == (1.0, False) and check.summary.startswith("1 of 38 accounts")


def test_thousands_of_sets() -> None:
    """Figures of many sets stay small: histograms and samples, not every split."""
    rng = np.random.default_rng(0)
    grid = {"a": list(range(30)), "b": list(range(100))}
    codes = np.array([(i, j) for i in range(30) for j in range(100)])
    index = index_of(grid, codes)
    values = rng.normal(0.0, 0.01, (200, 3_000))
    sharpe = values.mean(axis=0) / values.std(axis=0, ddof=1) * sqrt(365)
    table = pd.DataFrame({"sharpe": sharpe, "gross_mean": 1.0, "liquidated_at": None, "error": ""}, index=index)
    daily = pd.DataFrame(values, index=pd.date_range("2025-01-01", periods=200, tz="UTC"), columns=index)
    record = {"name": "many", "grid": grid, "config": {}, "fixed": {}, "oracles": [{"path": MOMENTUM}]}
    verdict = validate(Study(record, table, daily), None)
    assert verdict.details["pbo"]["splits"] == 12_870 == sum(verdict.details["pbo"]["logits"]["counts"])
    assert len(verdict.details["pbo"]["in_sample"]) == len(verdict.details["pbo"]["out_of_sample"]) == 2_000
    assert verdict.details["trials"]["effective"] > 2_000
    assert {"familywise", "probability_of_loss"} <= {c.name for c in verdict.checks if c.passed is False}
    assert len(json.dumps(verdict.to_dict())) < 300_000


# As a file, and on the command line ----------------------------------------------------------------------------------


def read(folder: Path) -> Verdict:
    return Verdict.from_dict(json.loads((folder / FILE).read_text(encoding="utf-8")))


def test_round_trip(edge: Verdict, tmp_path: Path) -> None:
    values = json.loads(json.dumps(edge.to_dict()))
    again = Verdict.from_dict(values)
    assert again.to_dict() == values and again.checks == edge.checks and again.word == edge.word
    assert list(edge.table()["name"]) == [check.name for check in edge.checks]
    path = edge.save(tmp_path)
    assert path == tmp_path / FILE and [item.name for item in tmp_path.iterdir()] == [FILE]
    assert read(tmp_path).to_dict() == values
    with pytest.raises(DataError, match="the file was edited"):
        Verdict.from_dict({**values, "passed": False})
    with pytest.raises(DataError, match="schema 99"):
        Verdict.from_dict({**values, "schema": 99})
    with pytest.raises(DataError, match="another version of hlbt"):
        Verdict.from_dict({**values, "schema": 1})
    with pytest.raises(DataError, match="not a verdict"):
        Verdict.from_dict({"schema": 2})


@pytest.fixture
def sweep(sample_cache: Path) -> tuple[Path, Panel]:
    """A sweep folder below reports/, of a cache that its record does not name."""
    from engine import load_panel

    settings = RunConfig.from_dict({"data": {"start": "2024-02-01", "end": "2024-06-01"}})
    panel = load_panel(sample_cache, settings.start, settings.end)
    grid = {"lookback_hours": [72, 168], "n": [3, 5]}
    study = engine_sweep(panel, MOMENTUM, grid, settings, name="grid", reports="reports", created="2026-01-01T00:00Z")
    assert study.folder is not None
    return study.folder, panel


def run(*words: str) -> int:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("validate")(validate_command)
    try:
        app([*words, "--top", "0"])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_command(
    sweep: tuple[Path, Panel], sample_cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["hlbt"])
    monkeypatch.setenv("COLUMNS", "120")
    folder, panel = sweep
    cache = ("--set", f"data.cache={sample_cache}")
    assert run("grid", *cache) == 0
    shown = capsys.readouterr().out
    verdict = read(folder)
    assert "SYNTHETIC DATA" in shown and verdict.word.upper() in shown
    assert f"{verdict.word.upper()}: {verdict.summary}" in " ".join(shown.split())
    assert verdict.remarks[0] in " ".join(shown.split()) and "Is the best better than luck?" in shown
    assert "run again as recorded" in shown
    assert by_name(verdict)["reproduced"].passed and verdict.digests["data"] == verdict.digests["panel"] == panel.digest
    assert load_study(folder).folder == folder  # still a sweep folder
    assert run(str(folder), *cache, "--json", "--strict") == NOT_PASSED
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"verdict": str(folder / FILE), **verdict.to_dict()}


def test_the_command_counts_every_trial_of_the_family(sweep: tuple[Path, Panel], sample_cache: Path) -> None:
    folder, _ = sweep
    others = np.random.default_rng(0).normal(0.0, 0.05, 896)
    record_trials(Path("reports"), MOMENTUM, "elsewhere", np.arange(896), others)
    record_trials(Path("reports"), "another:Family", "elsewhere", np.arange(896), others)
    assert run("grid", "--set", f"data.cache={sample_cache}", "--json") == 0
    assert read(folder).details["trials"]["judged"] == 900


def test_the_command_refuses(sweep: tuple[Path, Panel]) -> None:
    cases = (
        (("nowhere",), "is not a sweep folder"),
        (("grid", "--set", "costs.taker_bps=1"), "only data.cache can be set"),
        (("grid", "--set", "data.start=2024-03-01"), "only data.cache can be set"),
        (("grid", "--set", "data.cache=nothing-here"), "nothing-here"),
    )
    for words, message in cases:
        with pytest.raises(HlbtError, match=message):
            run(*words)
