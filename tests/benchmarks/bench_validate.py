"""The figures of the verdict; `make bench` prints them with the others. What is timed is checked first."""

from __future__ import annotations

from math import sqrt
from statistics import median
from typing import TYPE_CHECKING

import bench_engine
import holdout
import numpy as np
import pandas as pd
from rich.console import Console

from engine import SparseWeights, backtest_many, sweep
from engine.sweeps.study import Study, index_of
from engine.validation.bootstrap import _standard_errors, superior_sets
from engine.validation.null_books import null_books, null_search
from engine.validation.statistics import effective_trials, probability_of_backtest_overfitting
from engine.validation.validate import validate
from research.oracles.momentum import Momentum

if TYPE_CHECKING:
    from bench import Figure

DAYS, SETS, MANY = 180, 1_000, 10_000


def bench_statistics(console: Console) -> list[Figure]:
    """PBO, superiority and the whole verdict on returns, after they have agreed with other implementations."""
    from bench import Figure, timed

    few, many = noise(DAYS, SETS), noise(DAYS, MANY)
    check(console, few)
    study = study_of(many)
    return [
        Figure(
            f"PBO of {SETS:,} sets x {DAYS} days, 12,870 splits",
            timed(lambda: probability_of_backtest_overfitting(few), 5),
            2.0,
        ),
        Figure(f"  of {MANY:,} sets", timed(lambda: probability_of_backtest_overfitting(many), 3), 10.0),
        Figure(
            "  of 1,000 sets by holdout-backtest, for comparison",
            timed(lambda: holdout.probability_of_backtest_overfitting(few), 2),
            float("inf"),
        ),
        Figure(f"SPA and StepM of {MANY:,} sets, 1,000 resamples", timed(lambda: superior_sets(many, 3.0), 3), 5.0),
        Figure(f"effective number of {MANY:,} trials", timed(lambda: effective_trials(many), 3), 2.0),
        Figure(f"verdict on {MANY:,} sets, no panel", timed(lambda: validate(study, None), 2), 15.0),
        *bench_nulls(console),
    ]


def bench_nulls(console: Console) -> list[Figure]:
    """Null books of a year x 150 coins, and a tenth of the usual search over exchanged coins: 20 sweeps of 200."""
    from bench import Figure, timed

    panel, decisions, score = bench_engine.job()
    dense = bench_engine.books(score, SETS)
    weights = pd.DataFrame(dense[0], index=decisions, columns=list(panel.coins))
    swept = sweep(panel, Momentum, {"lookback_hours": list(range(24, 1_201, 24)), "n": list(range(1, 21))})
    books, own = SparseWeights.from_dense(dense), float(backtest_many(panel, dense[:1], decisions)["sharpe"].iloc[0])
    if abs(null_books(panel, weights).sharpe / own - 1.0) > 1e-10 or null_search(swept, panel, 1).best.shape != (1,):
        raise SystemExit("the book among its nulls is not the book alone: nothing is timed")
    alone, nulls = (
        timed(work, 5) for work in (lambda: backtest_many(panel, books, decisions), lambda: null_books(panel, weights))
    )
    console.print(f"1,000 nulls and all rolls take {median(nulls) / median(alone):.1f} times 1,000 given books.")
    return [
        Figure(f"{SETS:,} null books and all rolls, a year x 150 coins", nulls, 1.0),
        Figure(
            f"20 sweeps of {len(swept):,} sets over exchanged coins",
            timed(lambda: null_search(swept, panel, 20), 1),
            6.0,
        ),
    ]


def noise(days: int, sets: int) -> np.ndarray:
    return np.random.default_rng(sets).normal(0.0, 0.01, (days, sets))


def study_of(values: np.ndarray) -> Study:
    """A study of which nothing but the returns and the Sharpe ratios is real."""
    grid = {"one": list(range(100)), "other": list(range(values.shape[1] // 100))}
    codes = np.stack(np.meshgrid(*map(np.arange, map(len, grid.values())), indexing="ij"), axis=-1).reshape(-1, 2)
    index = index_of(grid, codes)
    sharpe = values.mean(axis=0) / values.std(axis=0, ddof=1) * sqrt(365)
    table = pd.DataFrame({"sharpe": sharpe, "gross_mean": 1.0, "liquidated_at": None, "error": ""}, index=index)
    daily = pd.DataFrame(values, index=pd.date_range("2025-01-01", periods=len(values), tz="UTC"), columns=index)
    record = {"name": "bench", "grid": grid, "config": {}, "fixed": {}, "oracles": [{"path": "none:None"}]}
    return Study(record, table, daily)


def check(console: Console, returns: np.ndarray) -> None:
    """The same PBO as holdout-backtest, the same p-values as arch, or nothing is timed."""
    from arch.bootstrap import SPA

    ours, theirs = (
        of(returns[:, :200], n_blocks=12)
        for of in (probability_of_backtest_overfitting, holdout.probability_of_backtest_overfitting)
    )
    gap = float(np.abs(ours.logits - theirs.logits).max())
    part = returns[:, :50] + 0.0005
    spa = SPA(
        np.zeros(len(part)),
        -part / _standard_errors(part, 1 / 3),
        block_size=3,
        reps=1_000,
        bootstrap="circular",
        seed=0,
    )
    spa.compute()
    found = superior_sets(part, 3.0)
    p_values = (found.p_lower, found.p_consistent, found.p_upper)
    if gap > 1e-9 or p_values != tuple(spa.pvalues):
        raise SystemExit(
            f"PBO differs by {gap:.1e}, p-values are {p_values} and {tuple(spa.pvalues)}: nothing is timed"
        )
    console.print(f"PBO agrees with holdout-backtest to {gap:.0e}, SPA with arch exactly.")
