"""Statistics against hand-made vectors, the papers' text, another implementation (holdout-backtest) and arch."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import combinations
from math import inf, isinf, isnan, log, nan, sqrt
from pathlib import Path
from statistics import NormalDist, fmean, stdev

import holdout
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from engine.errors import DataError
from engine.simulation import metrics
from engine.validation.bootstrap import _standard_errors, block_length, bootstrap_intervals, superior_sets
from engine.validation.split_halves import Halves
from engine.validation.statistics import (
    annualisation,
    deflated_sharpe_ratio,
    effective_days,
    effective_trials,
    expected_max_sharpe,
    minimum_track_record_length,
    moments,
    probabilistic_sharpe_ratio,
    probability_of_backtest_overfitting,
    sharpe_ratios,
    walk_forward,
)
from helpers.effort import some
from helpers.project import ROOT

NORMAL = NormalDist()


def noise(seed: int, days: int, sets: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 0.01, (days, sets))


# ---------------------------------------------------------------------------------------------------- one Sharpe ratio


def test_the_vectors_of_the_papers() -> None:
    """Bailey and Lopez de Prado 2014: N=100, V=1/2 a year, T=1250, skew -3, kurtosis 10, 2.5 a year of 250 days."""
    sd = sqrt(0.5 / 250)
    assert expected_max_sharpe(sd, 100) == pytest.approx(0.1132, abs=5e-5)
    assert deflated_sharpe_ratio(2.5 / sqrt(250), 1250, -3.0, 10.0, sd, 100) == pytest.approx(0.9004, abs=5e-5)
    # A Sharpe ratio of 2 a year of 365 days.
    assert minimum_track_record_length(2.0 / sqrt(365), -0.5, 6.0) == pytest.approx(264.19, abs=6e-3)
    # Bailey and Lopez de Prado 2012: 2 a year against 1, daily normal returns: 2.73 years.
    found = minimum_track_record_length(2.0 / sqrt(252), 0.0, 3.0, 1.0 / sqrt(252))
    assert found / 252 == pytest.approx(2.73, abs=5e-3)


def test_psr_by_hand() -> None:
    variance = 1 + 0.5 * 0.1 + (6 - 1) / 4 * 0.01
    expected = NORMAL.cdf((0.1 - 0.02) * sqrt(99) / sqrt(variance))
    assert probabilistic_sharpe_ratio(0.1, 100, -0.5, 6.0, 0.02) == pytest.approx(expected, rel=1e-12)
    assert probabilistic_sharpe_ratio(0.1, 100, -0.5, 6.0, 0.1) == 0.5


@pytest.mark.parametrize("seed", range(some(5, 20)))
def test_another_implementation_agrees(seed: int) -> None:
    rng = np.random.default_rng(seed)
    returns = rng.standard_t(4, rng.integers(30, 900)) * 0.01 + 0.001
    shape = moments(returns)
    assert shape.skew == pytest.approx(stats.skew(returns), rel=1e-9)
    assert shape.kurtosis == pytest.approx(stats.kurtosis(returns, fisher=False), rel=1e-9)
    assert shape.sharpe * sqrt(365) == pytest.approx(metrics.sharpe(returns), rel=1e-9)
    of = {"skewness": shape.skew, "kurtosis": shape.kurtosis}
    benchmark, trials, sd = float(rng.normal(0, 0.02)), int(rng.integers(1, 10**5)), float(rng.uniform(0.0, 0.03))
    assert probabilistic_sharpe_ratio(*shape, benchmark) == pytest.approx(
        holdout.probabilistic_sharpe_ratio(shape.sharpe, shape.n, benchmark=benchmark, **of), rel=1e-9
    )
    theirs = holdout.deflated_sharpe_ratio(shape.sharpe, shape.n, n_trials=trials, trials_variance=sd**2, **of)
    assert deflated_sharpe_ratio(*shape, sd, trials) == pytest.approx(theirs, rel=1e-9, abs=1e-13)
    if shape.sharpe > benchmark:
        theirs = holdout.minimum_track_record_length(shape.sharpe, benchmark=benchmark, confidence=0.9, **of)
        ours = minimum_track_record_length(shape.sharpe, shape.skew, shape.kurtosis, benchmark, 0.9)
        assert ours == pytest.approx(theirs, rel=1e-9)


def test_the_track_record_is_the_inverse_of_the_probability() -> None:
    needed = minimum_track_record_length(0.08, -1.0, 9.0, 0.01, 0.97)
    assert probabilistic_sharpe_ratio(0.08, needed, -1.0, 9.0, 0.01) == pytest.approx(0.97, rel=1e-12)


def test_the_expected_maximum_is_near_that_of_simulated_trials() -> None:
    drawn = np.random.default_rng(0).normal(0.0, 0.1, (4000, 200)).max(axis=1).mean()
    assert expected_max_sharpe(0.1, 200) == pytest.approx(drawn, rel=0.02)


def test_edges_of_one_sharpe_ratio() -> None:
    assert isnan(probabilistic_sharpe_ratio(0.1, 1, 0.0, 3.0))
    assert isnan(probabilistic_sharpe_ratio(nan, 100, 0.0, 3.0))
    assert isnan(probabilistic_sharpe_ratio(1.0, 100, 3.0, 1.0))  # 1 - 3 < 0: no returns have such moments
    assert isnan(minimum_track_record_length(1.0, 3.0, 1.0))
    assert isinf(minimum_track_record_length(0.0, 0.0, 3.0))
    assert isinf(minimum_track_record_length(-0.1, 0.0, 3.0))
    assert expected_max_sharpe(0.5, 1) == 0.0
    assert expected_max_sharpe(0.0, 100) == 0.0
    assert expected_max_sharpe(nan, 1) == 0.0
    assert isnan(expected_max_sharpe(nan, 2))
    with pytest.raises(DataError, match="at least one"):
        expected_max_sharpe(0.1, 0)
    many = [expected_max_sharpe(0.1, count) for count in (1.0, 1.05, 1.3, 2, 3, 10, 1e6)]
    assert many == sorted(many) and many[0] == many[1] == 0.0 < many[-1] < 0.5
    assert deflated_sharpe_ratio(0.1, 50, 0.0, 3.0, 0.2, 1) == probabilistic_sharpe_ratio(0.1, 50, 0.0, 3.0)
    for short in ([], [0.01], [0.01] * 50, [0.0] * 50):
        assert isnan(moments(short).sharpe) and moments(short).n == len(short)


# ------------------------------------------------------------------------------------------------- overfitting


def naive_overfitting(returns: np.ndarray, blocks: int) -> tuple[list[float], list[int], list[float], list[float]]:
    """Steps 1 to 5 of the paper's section on CSCV, one split after the other, in plain Python."""
    days, sets = returns.shape
    parts = [list(part) for part in np.array_split(np.arange(days), blocks)]
    logits, chosen, inside, outside = [], [], [], []
    for choice in combinations(range(blocks), blocks // 2):
        train = [day for block in choice for day in parts[block]]
        test = [day for block in range(blocks) if block not in choice for day in parts[block]]
        in_sample = [naive_sharpe([float(returns[day, s]) for day in train]) for s in range(sets)]
        out_of_sample = [naive_sharpe([float(returns[day, s]) for day in test]) for s in range(sets)]
        best = in_sample.index(max(in_sample))
        worse = sum(1 for value in out_of_sample if value < out_of_sample[best] - 1e-12)
        equal = sum(1 for value in out_of_sample if abs(value - out_of_sample[best]) <= 1e-12)
        relative = (worse + (equal + 1) / 2) / (sets + 1)
        logits.append(log(relative / (1 - relative)))
        chosen.append(best)
        inside.append(in_sample[best])
        outside.append(out_of_sample[best])
    return logits, chosen, inside, outside


def naive_sharpe(values: list[float]) -> float:
    deviation = stdev(values)
    return 0.0 if deviation < 1e-15 else fmean(values) / deviation


@pytest.mark.slow
@pytest.mark.parametrize(
    ("days", "sets", "blocks"), [(40, 7, 6), (33, 5, 8), (47, 12, 10), (8, 2, 4), (5, 3, 4), (21, 40, 2)]
)
def test_pbo_is_that_of_the_paper(days: int, sets: int, blocks: int) -> None:
    returns = noise(days + sets, days, sets) + np.linspace(0.0, 0.002, sets)
    found = probability_of_backtest_overfitting(returns, blocks)
    logits, chosen, inside, outside = naive_overfitting(returns, blocks)
    np.testing.assert_allclose(found.logits, logits, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(found.chosen, chosen)
    np.testing.assert_allclose(found.in_sample, inside, rtol=1e-10)
    np.testing.assert_allclose(found.out_of_sample, outside, rtol=1e-9, atol=1e-12)
    assert found.pbo == sum(value <= 0 for value in logits) / len(logits)
    assert found.probability_of_loss == sum(value < 0 for value in outside) / len(outside)
    line = stats.linregress(inside, outside)
    assert (found.slope, found.intercept) == pytest.approx((line.slope, line.intercept), rel=1e-8)


def test_pbo_with_constant_columns_and_copies() -> None:
    """Sets that never trade, that stop trading, and that are the same under another name."""
    returns = noise(3, 48, 9)
    returns[:, 0] = 0.0
    returns[:, 1] = 0.001  # constant: its deviations are rounding, and its Sharpe ratio 0
    returns[20:, 2] = 0.0
    returns[:, 5] = returns[:, 6] = returns[:, 4] * 2.0
    found = probability_of_backtest_overfitting(returns, 8)
    logits, _, inside, outside = naive_overfitting(returns, 8)
    np.testing.assert_allclose(found.logits, logits, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found.in_sample, inside, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.out_of_sample, outside, rtol=1e-9, atol=1e-12)
    # Sets that float32 cannot tell apart, and a day beside which all others are small.
    returns = noise(4, 48, 60)
    returns[:, 1::2] = returns[:, ::2] * (2.0 + 1e-6 * noise(5, 48, 30))
    returns[7, :20] = 0.9
    found = probability_of_backtest_overfitting(returns, 8)
    logits, chosen, inside, _ = naive_overfitting(returns, 8)
    np.testing.assert_allclose(found.logits, logits, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(found.chosen, chosen)
    np.testing.assert_allclose(found.in_sample, inside, rtol=1e-9, atol=1e-12)
    flat = probability_of_backtest_overfitting(np.zeros((20, 3)), 4)
    assert flat.pbo == 1.0 and (flat.logits == 0.0).all() and isnan(flat.slope)


@pytest.mark.parametrize("seed", range(some(2, 4)))
def test_pbo_of_another_implementation(seed: int) -> None:
    returns = noise(seed, 96 + seed, 30)
    ours, theirs = (
        probability_of_backtest_overfitting(returns, 12),
        holdout.probability_of_backtest_overfitting(returns, n_blocks=12),
    )
    assert ours.pbo == theirs.pbo
    np.testing.assert_allclose(ours.logits, theirs.logits, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(ours.chosen, theirs.selected)


def test_the_size_of_the_steps_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    returns = noise(1, 60, 25)
    whole = probability_of_backtest_overfitting(returns, 10)
    monkeypatch.setattr("engine.validation.split_halves._CHUNK", 100)
    parts = probability_of_backtest_overfitting(pd.DataFrame(returns), 10)
    np.testing.assert_array_equal(whole.chosen, parts.chosen)
    np.testing.assert_allclose(whole.logits, parts.logits)


def test_noise_is_overfitted_and_an_edge_is_not() -> None:
    found = [probability_of_backtest_overfitting(noise(seed, 200, 100)).pbo for seed in range(5)]
    assert 0.35 < np.mean(found) < 0.65 and min(found) > 0.2
    returns = noise(9, 200, 100)
    returns[:, 42] += 0.004
    edge = probability_of_backtest_overfitting(returns)
    assert edge.pbo < 0.01 and edge.probability_of_loss < 0.01 and np.bincount(edge.chosen).argmax() == 42
    assert len(edge.logits) == 12_870


def test_pbo_refuses() -> None:
    returns = noise(0, 20, 4)
    for blocks in (5, 0, -2, 1, 22, 4.5):
        with pytest.raises(DataError, match="must be even, from 2 to 20"):
            probability_of_backtest_overfitting(returns, blocks)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="15 days cannot be cut into 16 blocks"):
        probability_of_backtest_overfitting(returns[:15])
    with pytest.raises(DataError, match="cannot be cut"):
        probability_of_backtest_overfitting(returns[:3], 2)
    with pytest.raises(DataError, match=r"shape \(20, 1\) .* at least 2 days x 2 sets"):
        probability_of_backtest_overfitting(returns[:, :1])
    for bad in (nan, inf):
        broken = returns.copy()
        broken[:, 2] = bad
        with pytest.raises(DataError, match="returns of 1 of 4 sets hold values that are not finite"):
            probability_of_backtest_overfitting(broken)


# -------------------------------------------------------------------------------------- number of trials, walk-forward


def test_effective_trials_is_the_participation_ratio() -> None:
    """Over many days the adjustment vanishes, and the eigenvalues say it."""
    rng = np.random.default_rng(0)
    returns = rng.normal(size=(2_500, 3)) @ rng.normal(size=(3, 12)) + 0.3 * rng.normal(size=(2_500, 12))
    values = np.linalg.eigvalsh(np.corrcoef(returns.T))
    assert effective_trials(returns) == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-2)


def test_effective_trials_at_the_ends() -> None:
    one = noise(0, 200, 1)
    assert effective_trials(np.repeat(one, 50, axis=1) * np.arange(1, 51)) == pytest.approx(1.0)
    assert effective_trials(one) == 1.0
    assert min(effective_trials(np.repeat(noise(seed, 60, 1), 2, axis=1)) for seed in range(20)) == 1.0
    assert effective_trials(np.zeros((50, 3))) == 1.0
    # 2,000 unrelated sets over 200 days: the plain ratio cannot be above 200, the adjusted one finds them.
    assert effective_trials(noise(1, 200, 2_000)) > 1_500
    groups = np.repeat(noise(2, 300, 5), 40, axis=1) + 0.1 * noise(3, 300, 200)
    assert 4.0 < effective_trials(groups) < 6.0
    with_idle = np.concatenate([groups, np.zeros((300, 30))], axis=1)
    assert effective_trials(with_idle) == pytest.approx(effective_trials(groups), rel=1e-12)
    with pytest.raises(DataError, match="at least 3 days"):
        effective_trials(noise(0, 2, 5))


def naive_walk(returns: np.ndarray, train: int, test: int, anchored: bool, cost: list[float]) -> list[float]:
    curve: list[float] = []
    held = None
    for first in range(train, len(returns), test):
        start = 0 if anchored else first - train
        sharpes = [naive_sharpe([float(r) for r in returns[start:first, s]]) for s in range(returns.shape[1])]
        place = sharpes.index(max(sharpes))
        for day in range(first, min(first + test, len(returns))):
            kept = 1 - cost[place] if day == first and place != held else 1.0
            curve.append((1 + float(returns[day, place])) * kept - 1)
        held = place
    return curve


@pytest.mark.parametrize("anchored", [True, False])
@pytest.mark.parametrize(("train", "test"), [(10, 7), (2, 1), (30, 100)])
def test_walk_forward(anchored: bool, train: int, test: int) -> None:
    returns = noise(train, 60, 6)
    cost = [0.001 * place for place in range(6)]
    found = walk_forward(returns, train, test, anchored, cost)
    np.testing.assert_allclose(found.returns, naive_walk(returns, train, test, anchored, cost), rtol=1e-10, atol=1e-15)
    assert found.first == train and len(found.returns) == 60 - train
    for fold in found.folds:
        assert fold.train_stop == fold.test_first and fold.train_first == (0 if anchored else fold.train_stop - train)
        inside = naive_sharpe([float(r) for r in returns[fold.train_first : fold.train_stop, fold.column]])
        assert fold.in_sample_sharpe == pytest.approx(inside, rel=1e-9)
        if fold.test_stop - fold.test_first > 1:
            outside = naive_sharpe([float(r) for r in returns[fold.test_first : fold.test_stop, fold.column]])
            assert fold.out_of_sample_sharpe == pytest.approx(outside, rel=1e-9)
    assert found.folds[-1].test_stop == 60


def test_walk_forward_never_sees_a_fold_before_it_is_over() -> None:
    returns = noise(5, 90, 8)
    whole = walk_forward(returns, 30, 10, True)
    for day in range(30, 90):
        changed = returns.copy()
        changed[day:] = np.random.default_rng(day).normal(0.0, 0.05, changed[day:].shape)
        np.testing.assert_array_equal(
            walk_forward(changed, 30, 10, True).returns[: day - 30], whole.returns[: day - 30]
        )


def test_walk_forward_takes_no_day_that_had_begun_when_it_chose() -> None:
    """Days of sets that decide at other hours overlap: those of 23:00 end 22 hours after those of 01:00."""
    returns = noise(3, 60, 2)
    returns[:30, 0] += 0.05  # chosen first, then the other one
    returns[20:, 1] += 0.2
    hour, cost = np.array([23, 1]), 0.01
    found = walk_forward(returns, 20, 20, False, cost, hour)
    assert [fold.column for fold in found.folds] == [0, 1]
    expected = np.concatenate([returns[20:40, 0], returns[40:, 1]])
    expected[0] = (1 + returns[20, 0]) * 0.99 - 1  # of the latest hour: its day begins when the choice is made
    expected[20] = -0.01  # of an earlier hour: nobody could have held it from its beginning
    np.testing.assert_allclose(found.returns, expected, rtol=1e-12)
    alike = walk_forward(returns, 20, 20, False, cost, np.array([1, 1]))
    assert alike.returns[20] == pytest.approx((1 + returns[40, 1]) * 0.99 - 1)
    np.testing.assert_array_equal(alike.returns, walk_forward(returns, 20, 20, False, cost).returns)
    # A set that is held on was held all the time.
    returns[:, 1] += 1.0
    kept = walk_forward(returns, 20, 10, True, cost, hour)
    assert {fold.column for fold in kept.folds} == {1}
    np.testing.assert_allclose(kept.returns, [-0.01, *returns[21:, 1]], rtol=1e-12)


def test_walk_forward_refuses() -> None:
    for train, test in ((1, 5), (20, 5), (5, 0)):
        with pytest.raises(DataError, match="cannot train on"):
            walk_forward(noise(0, 20, 3), train, test, True)


def test_constant_columns_have_no_sharpe_ratio() -> None:
    returns = np.column_stack([np.zeros(30), np.full(30, 0.1), np.linspace(-0.01, 0.02, 30)])
    assert sharpe_ratios(returns) == pytest.approx(
        [np.nan, np.nan, naive_sharpe(returns[:, 2].tolist())], rel=1e-12, nan_ok=True
    )
    # One day has none either, and a constant set is chosen before one that loses.
    falls = np.column_stack([np.linspace(-0.02, -0.01, 31), np.zeros(31)])
    folds = walk_forward(falls, 30, 1, False).folds
    assert [fold.column for fold in folds] == [1]
    assert np.isnan(folds[0].in_sample_sharpe) and np.isnan(folds[0].out_of_sample_sharpe)


# ---------------------------------------------------------------------------------------------- autocorrelation


@pytest.mark.parametrize(
    ("periods", "rho", "factor"), [(12, 0.0, 3.46), (12, 0.2, 2.88), (12, -0.2, 4.17), (4, 0.0, 2.0), (250, 0.0, 15.81)]
)
def test_annualisation_is_that_of_lo(periods: int, rho: float, factor: float) -> None:
    """Table 2 of the paper, and its closed form for an AR(1)."""
    found = annualisation(periods, rho ** np.arange(1, periods))
    assert found == pytest.approx(factor, abs=0.005)
    closed = 1.0 + 2.0 * rho / (1.0 - rho) * (1.0 - (1.0 - rho**periods) / (periods * (1.0 - rho)))
    assert found == pytest.approx(sqrt(periods / closed), rel=1e-12)


def test_days_that_follow_from_one_another_count_less() -> None:
    """White noise counts in full; an AR(1) of 0.5 as a third, (1 - a) / (1 + a); of -0.3 nearly double."""
    for rho, low, high in ((0.0, 0.85, 1.2), (0.5, 0.25, 0.45), (-0.3, 1.5, 2.3)):
        shares = []
        for seed in range(8):
            drawn = np.random.default_rng(seed).normal(0.0005, 0.02, 1_500)
            for day in range(1, len(drawn)):
                drawn[day] += rho * drawn[day - 1]
            shares.append(effective_days(drawn) / len(drawn))
        assert low < np.mean(shares) < high, rho
    for useless in (np.zeros(50), np.full(50, 0.01), np.array([0.1, 0.2])):
        assert np.isnan(effective_days(useless))


# --------------------------------------------------------------------------------------------------- bootstrap


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(some(2, 3)))
def test_superior_sets_are_those_of_arch(seed: int) -> None:
    from arch.bootstrap import SPA, StepM

    returns = noise(seed, 150, 40) * np.random.default_rng(seed).uniform(0.3, 3.0, 40)
    returns[:, 3] += 0.004
    returns[:, 17] += 0.3 * returns[:, 17].std()
    returns[:, 20] -= 0.5 * returns[:, 20].std()
    market = np.random.default_rng(seed + 50).normal(0.0005, 0.02, 150)
    for above in (returns, returns - market[:, None]):
        losses = -above / _standard_errors(above, 1 / 4)
        spa, stepm = (
            kind(np.zeros(150), losses, block_size=4, reps=500, bootstrap="circular", seed=7) for kind in (SPA, StepM)
        )
        spa.compute()
        stepm.compute()
        found = superior_sets(above, 4.2, resamples=500, seed=7)
        assert (found.p_lower, found.p_consistent, found.p_upper) == tuple(spa.pvalues)
        assert list(found.better) == list(stepm.superior_models)
        assert np.nanmin(found.p_values) == pytest.approx(found.p_consistent, abs=1e-12)
        assert found.critical == pytest.approx(spa.critical_values()["consistent"])
        # The standard errors are those that arch computes and does not use.
        spa._loss_diff = above
        spa._compute_variance()
        np.testing.assert_allclose(_standard_errors(above, 1 / 4) ** 2, spa._loss_diff_var, rtol=1e-9)


@pytest.mark.slow
def test_superior_sets_of_noise_and_of_an_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20 noise samples about one is below 5 %; the edge is found, alone, and chunks change nothing."""
    p_values = [superior_sets(noise(seed, 120, 60), 1.0, resamples=300).p_consistent for seed in range(20)]
    assert sum(p <= 0.05 for p in p_values) <= 4 and np.mean(p_values) > 0.25
    returns = noise(77, 200, 60)
    returns[:, 11] += 0.005
    returns[:, 30] = 0.0
    found = superior_sets(returns, 2.0, size=0.01)
    assert found.p_consistent == 0.0 and found.better == (11,)
    monkeypatch.setattr("engine.validation.bootstrap._CHUNK", 7)
    again = superior_sets(returns, 2.0, size=0.01)
    assert again.better == found.better and np.array_equal(again.highest, found.highest)
    assert (
        np.isnan(found.p_values[30]) and found.p_values[11] == 0.0 and np.nanmin(np.delete(found.p_values, 11)) > 0.01
    )
    with pytest.raises(DataError, match="nothing to test"):
        superior_sets(np.zeros((50, 3)), 2.0)
    with pytest.raises(DataError, match="not finite"):
        superior_sets(np.full((50, 3), nan), 2.0)


def test_a_wild_set_does_not_drown_a_sure_one() -> None:
    returns = noise(4, 200, 20)
    returns[:, 0] *= 50.0
    returns[:, 1] += 0.004
    assert 1 in superior_sets(returns, 1.0).better


def test_the_bootstraps_load_no_more_of_arch_than_they_need() -> None:
    """Models of volatility, with matplotlib, took a second of every verdict; a user's own import has all of arch."""
    code = """
import sys
import numpy as np
from engine.validation.bootstrap import bootstrap_intervals
first = bootstrap_intervals(np.sin(np.arange(60.0)))
print([name for name in ("arch", "matplotlib", "scipy.stats", "statsmodels") if name in sys.modules])
import arch.bootstrap, scipy.stats
from arch import arch_model
print(arch.bootstrap.optimal_block_length(np.sin(np.arange(60.0))).shape, scipy.stats.norm.ppf(0.5))
assert bootstrap_intervals(np.sin(np.arange(60.0))) == first
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "(1, 2) 0.0"], done.stdout


def test_pbo_of_few_sets_computes_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a column a choice it would be as many columns as choices: ten seconds and half a gigabyte."""
    widths, exact = [], Halves.exact
    monkeypatch.setattr(Halves, "exact", lambda of, rows, at: widths.append(len(at)) or exact(of, rows, at))
    probability_of_backtest_overfitting(noise(1, 40, 8), 10)
    assert 0 < max(widths) <= 8


def test_bootstraps_that_need_the_whole_of_arch_get_it(tmp_path: Path) -> None:
    """As another release of arch may."""
    (tmp_path / "arch" / "bootstrap").mkdir(parents=True)
    (tmp_path / "arch" / "__init__.py").write_text("whole = 3\n")
    (tmp_path / "arch" / "bootstrap" / "__init__.py").write_text("from arch import whole\n")
    job = "from engine.validation.bootstrap import load_arch; print(load_arch().whole, load_arch() is load_arch())"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", job], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.split() == ["3", "True"], done.stderr


def test_intervals_are_those_of_arch() -> None:
    from arch.bootstrap import StationaryBootstrap, optimal_block_length

    rng = np.random.default_rng(2)
    returns = np.convolve(rng.normal(0.002, 0.02, 260), np.full(8, 1 / 8), mode="valid")
    found = bootstrap_intervals(returns, 0.9, resamples=500, seed=3)
    block = float(optimal_block_length(returns)["stationary"].iloc[0])
    assert found.block_days == block_length(returns) == pytest.approx(block)

    def figures(values: np.ndarray) -> np.ndarray:
        return np.array([metrics.sharpe(values), metrics.cagr(values), values.mean()])

    drawing = StationaryBootstrap(block, returns, seed=3)
    theirs = drawing.conf_int(figures, reps=500, method="percentile", size=0.9)
    ours = np.array([found.sharpe, found.cagr, found.mean_daily]).T
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    hits = 0
    for seed in range(60):
        low, high = bootstrap_intervals(noise(seed, 200, 1)[:, 0] + 0.001, 0.8, resamples=300).mean_daily
        hits += low <= 0.001 <= high
    assert 0.65 < hits / 60 < 0.95


def test_edges_of_the_bootstrap() -> None:
    for constant in (np.zeros(50), np.full(50, 0.01), np.array([0.01, 0.02])):
        with pytest.raises(DataError, match="cannot be resampled"):
            bootstrap_intervals(constant)
    ruin = noise(0, 60, 1)[:, 0]
    ruin[30] = -1.0
    assert bootstrap_intervals(ruin).cagr[0] == -1.0
    assert bootstrap_intervals(ruin) == bootstrap_intervals(ruin)
    assert bootstrap_intervals(ruin, seed=1) != bootstrap_intervals(ruin)


def test_pbo_of_nearly_constant_columns() -> None:
    """A block that varies among constant ones, sets that stop for less and more than half, tiny and huge returns."""
    returns = noise(8, 64, 10)
    returns[:, 0] = 1e-3
    returns[3:6, 0] = [2e-3, 0.0, 1e-3]
    returns[24:, 1] = 0.0
    returns[40:, 2] = 0.0
    returns[:, 3] *= 1e-9
    returns[:, 4] *= 1e6
    returns[:, 5] = np.where(np.arange(64) % 2, 1e-3, -1e-3)
    found = probability_of_backtest_overfitting(returns, 8)
    logits, chosen, inside, outside = naive_overfitting(returns, 8)
    np.testing.assert_allclose(found.logits, logits, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(found.chosen, chosen)
    np.testing.assert_allclose(found.in_sample, inside, rtol=1e-8)
    np.testing.assert_allclose(found.out_of_sample, outside, rtol=1e-8, atol=1e-10)


def test_the_power_that_is_said_is_what_a_test_has() -> None:
    """Sets with the Sharpe ratio that would pass four times in five do so; more of them share it, the less it takes."""
    days, block = 250, 1.0
    for alike in (1, 12):
        found = superior_sets(noise(5, days, 12), block)
        assert found.detectable > found.critical - 0.1
        edge = np.zeros(12)
        edge[:alike] = 0.01 * _said(alike, days)
        passed = [
            np.nanmin(superior_sets(noise(seed, days, 12) + edge, block, resamples=300).p_values) <= 0.05
            for seed in range(60)
        ]
        assert 0.65 < np.mean(passed) < 0.95, alike


def _said(alike: int, days: int) -> float:
    """What is said of a sample of which so many sets are good, the rest is not."""
    strong = noise(9, days, 12)
    strong -= strong.mean(axis=0)
    strong[:, :alike] += 0.005
    strong[:, alike:] -= 0.0002
    return superior_sets(strong, 1.0).detectable
