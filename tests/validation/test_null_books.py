"""Books without skill: coins exchanged and repaired, decisions rolled, and the p-values that follow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine import Panel, SparseWeights, Study, backtest, decisions_of, sweep, validate, weight_matrix
from engine.errors import DataError
from engine.reporting.sweep_page import write_sweep_page
from engine.validation import null_books as nulls
from helpers.studies import Noise, market
from research.oracles.momentum import Momentum


@pytest.fixture(scope="module")
def panel() -> Panel:
    """Half a year in which a coin's drift lasts 15 days, so that momentum knows something."""
    return market(5, 180, 12, 0.0006)


@pytest.fixture(scope="module")
def study(panel: Panel) -> Study:
    grid = {"lookback_hours": [48, 96, 144], "n": [2, 3], "costs.taker_bps": [4.5, 6.0]}
    return sweep(panel, Momentum, grid)


def by_hand(row: np.ndarray, order: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """One row of weights under exchanged coins, as the docstring of `renamed` has it."""
    made, held = np.zeros(len(row)), [int(coin) for coin in np.flatnonzero(row)]
    free = [coin for coin in held if listed[order[coin]]]
    for coin in [*free, *(coin for coin in held if coin not in free)]:
        walk = [order[(coin + step) % len(row)] for step in range(len(row))]
        places = [place for place in walk if listed[place] and made[place] == 0.0]
        if places:
            made[places[0]] = row[coin]
    return made


@pytest.mark.parametrize("seed", range(6))
def test_coins_are_exchanged_and_repaired_and_decisions_rolled(seed: int) -> None:
    """Every weight arrives once, at a coin that is listed; with fewer listed coins than weights some are dropped."""
    random = np.random.default_rng(seed)
    books, decisions, coins = 3, 7, [9, 64, 65, 130, 9, 128][seed]
    dense = random.normal(size=(books, decisions, coins)) * (random.random((books, decisions, coins)) < 0.5)
    dense[random.random(dense.shape) < 0.05] = np.nan
    listed = random.random((decisions, coins)) < [1.0, 0.7, 0.3][seed % 3]
    orders = np.stack([random.permutation(coins) for _ in range(4)])
    shifts = np.array([0, 1, 3, 6])
    made = nulls.renamed(SparseWeights.from_dense(dense), orders, listed, shifts).to_dense(decisions, coins)
    for replicate, (order, shift) in enumerate(zip(orders, shifts, strict=True)):
        for book in range(books):
            rolled = np.roll(dense[book], shift, axis=0)
            expected = [by_hand(row, order, there) for row, there in zip(rolled, listed, strict=True)]
            np.testing.assert_array_equal(made[replicate * books + book], expected)
    assert not made[:, ~listed].any()
    if seed % 3 == 0:
        np.testing.assert_array_equal(np.sort(made[:books]), np.sort(dense))
    own, others = np.nan_to_num(dense[0]), np.nan_to_num(made[::books])
    moved = np.abs(others - own).sum(axis=(1, 2)).mean() / (2.0 * np.abs(own).sum())
    alone = nulls.renamed(SparseWeights.from_dense(dense[:1]), orders, listed, shifts)
    assert nulls._moved(dense[0], alone) == pytest.approx(moved, rel=1e-12)


def test_a_book_that_knows_something_is_above_its_nulls_and_noise_is_not(panel: Panel) -> None:
    decisions = decisions_of(panel)
    weights = weight_matrix(Momentum(lookback_hours=96, n=3), panel, decisions)
    found = nulls.null_books(panel, weights, replicates=200)
    assert found.sharpe == pytest.approx(backtest(panel, weights).metrics["sharpe"], rel=1e-9)
    assert found.flipped == pytest.approx(backtest(panel, -weights).metrics["sharpe"], rel=1e-9) and found.flipped < 0.0
    assert found.decides == "permuted" and found.p_value == found.p_permuted <= 0.02 and found.p_rolled <= 0.05
    assert found.p_permuted == (1 + (found.permuted >= found.sharpe).sum()) / 201
    # Rolls are of what was decided, by 20 days either way round.
    first = 4
    assert len(found.rolled) == len(decisions) - first - 2 * 20 + 1
    rolled = weights.copy()
    rolled.iloc[first:] = np.roll(weights.to_numpy()[first:], 20, axis=0)
    assert found.rolled[0] == pytest.approx(backtest(panel, rolled).metrics["sharpe"], rel=1e-9)
    order = nulls._orders(200, len(panel.coins), 0)[7]
    other = pd.DataFrame(weights.to_numpy()[:, np.argsort(order)], index=decisions, columns=list(panel.coins))
    assert found.permuted[7] == pytest.approx(backtest(panel, other).metrics["sharpe"], rel=1e-9)
    again = nulls.null_books(panel, weights, replicates=200)
    np.testing.assert_array_equal(again.permuted, found.permuted)
    noise = [
        nulls.null_books(panel, weight_matrix(Noise(seed), panel, decisions), replicates=99).p_value
        for seed in range(12)
    ]
    assert np.mean(np.array(noise) <= 0.05) <= 0.25 and np.mean(noise) > 0.3


def test_nulls_without_a_sharpe_ratio_count_neither_way_and_are_told(panel: Panel, study: Study) -> None:
    """A null that never trades is no book below this one."""
    null = np.array([np.nan, 2.0, -np.inf, 0.5, np.nan])
    assert nulls.p_value(1.0, null) == 2 / 3 and nulls.p_value(1.0, null[:1]) == 1.0
    bests = iter([float("nan")] * 3 + [-5.0] * 9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nulls._Group, "best", lambda *_: next(bests))
        patch.setattr(nulls, "_tasks", lambda *_, tasks=nulls._tasks: list(tasks(*_))[:1])
        verdict = validate(study, panel, search_nulls=12)
        patch.setattr(nulls._Group, "best", lambda *_: float("nan"))
        none = validate(study, panel, search_nulls=2)
    said = verdict.details["null_search"]
    assert (said["p_value"], said["replicates"], said["unknown"]) == (1 / 10, 9, 3)
    (check,) = (check for check in verdict.checks if check.name == "null_search")
    assert "run 9 times" in check.summary and "3 more had no Sharpe ratio and are not counted" in check.summary
    (check,) = (check for check in none.checks if check.name == "null_search")
    assert check.passed is None and "No set of 2 sweeps" in check.summary


def test_where_a_permutation_makes_no_other_book_the_roll_decides(panel: Panel) -> None:
    """All coins alike, or one alone: exchanged names are the same book, or another market, not less skill."""
    decisions = decisions_of(panel)
    equal = pd.DataFrame(1.0 / len(panel.coins), index=decisions, columns=list(panel.coins))
    alone = pd.DataFrame({"BTC": 1.0}, index=decisions)
    for weights in (equal, alone):
        found = nulls.null_books(panel, weights, replicates=30)
        assert found.decides == "rolled" and found.p_value == found.p_rolled == 1.0
    with pytest.raises(DataError, match="no Sharpe ratio"):
        nulls.null_books(panel, equal * 0.0)


def test_a_whole_search_is_compared_with_searches_over_exchanged_coins(
    study: Study, panel: Panel, tmp_path: Path
) -> None:
    steps: list[tuple[int, int, str]] = []
    found = nulls.null_search(study, panel, replicates=40, progress=lambda *step: steps.append(step))
    assert found.sharpe == study.sharpe_joint.max() and len(found.best) == 40 and steps[-1][:2] == (40, 40)
    assert found.p_value == (1 + (found.best >= found.sharpe).sum()) / 41 <= 0.05
    # The names as they are give the sweep itself, so its best set is the best.
    same = np.arange(len(panel.coins))[None]
    dates = study.joint[1]
    space = nulls.Workspace(panel)
    groups = [nulls._Group.of(space, task, dates) for task in nulls._tasks(study, study.joint[2])]
    assert len(groups) == 2
    assert max(group.best(same) for group in groups if group) == pytest.approx(found.sharpe, rel=1e-9)
    noise = sweep(panel, Noise, {"seed": list(range(8))})
    assert nulls.null_search(noise, panel, replicates=30).p_value > 0.05
    verdict = validate(study, panel, search_nulls=40)
    said = verdict.details["null_search"]
    assert (said["p_value"], said["statistic"], said["replicates"]) == (found.p_value, found.sharpe, 40)
    assert sum(said["null"]["counts"]) == 40
    # It is a check more, under the question of books without skill, and can only make the verdict stricter.
    names = [check.name for check in verdict.checks]
    asked = verdict.checks[names.index("null_search")]
    assert names.index("null_search") == names.index("null_books") + 1 and asked.group == "skill"
    assert (asked.value, asked.threshold, asked.passed) == (found.p_value, 0.05, True)
    strict = validate(study, panel, thresholds={"null_books": 0.01}, search_nulls=40)
    assert strict.checks[names.index("null_search")].passed is False and not strict.passed
    missing = validate(study, None, search_nulls=5).checks[names.index("null_search")]
    assert missing.passed is None and "No panel was given" in missing.summary
    study = replace(study, folder=tmp_path)
    page = write_sweep_page(study, verdict.to_dict()).read_text(encoding="utf-8")
    assert "of 40 searches" in page and asked.label in page and 'id="null_search"' in page
    page = write_sweep_page(study, {**verdict.to_dict(), "details": {}, "checks": []}).read_text(encoding="utf-8")
    assert 'id="null_search"' not in page
