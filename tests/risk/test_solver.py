"""The best book of a decision: against another solver and another statement of the problem, and against itself."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csc_matrix

from engine.errors import InfeasibleError, OracleError
from engine.risk.solver import DUST, BookProblem
from helpers.effort import some


def problem(seed: int) -> BookProblem:
    """Of any shape: a part of the coins given, a part that can only be reduced, without costs, without risk factors."""
    rng = np.random.default_rng(seed)
    coins, factors = int(rng.integers(2, 45)), int(rng.integers(1, 6))
    exposures = rng.normal(size=(coins, factors))
    exposures[:, 0] = rng.uniform(0.3, 2.0, coins)
    moves = rng.normal(0, 0.01, (factors, 3 * factors))
    specific = rng.lognormal(-3, 0.5, coins) ** 2
    before = rng.normal(size=coins) * (rng.random(coins) < 0.6)
    before *= rng.uniform(0.3, 1.1) / max(np.abs(before).sum(), 1e-9)
    cap = np.full(coins, rng.choice([0.05, 0.15, 0.5, 1.0]))
    lower, upper = -cap, cap.copy()
    reduced = rng.random(coins) < 0.2
    lower[reduced], upper[reduced] = np.minimum(before, 0)[reduced], np.maximum(before, 0)[reduced]
    given = (rng.random(coins) < rng.choice([0.05, 0.5])) & (before != 0)
    lower[given] = upper[given] = before[given]
    costs = rng.uniform(0, 2e-3, (2, coins)) * (rng.random() < 0.85)
    neutral = np.vstack([np.ones(coins), exposures[:, 0]])[: rng.integers(0, 3)]
    if (np.abs(neutral @ np.where(given, before, 0)) > 0).any() and rng.random() < 0.3:
        neutral = neutral[:0]
    return BookProblem(
        rng.normal(size=coins) * np.sqrt(specific) * 10 ** rng.uniform(-2, 0), exposures, moves @ moves.T / factors,
        specific, 10 ** rng.uniform(-1, 2), costs[0], costs[1], before, lower, upper, rng.uniform(0.4, 2.0), neutral,
    )  # fmt: skip


def by_osqp(own: BookProblem) -> tuple[np.ndarray, str]:
    """The same in dense matrices of w, bought, sold and abs(w), by operator splitting with a polish."""
    import osqp

    n, e = len(own.before), len(own.neutral)
    eye, zero = np.eye(n), np.zeros((n, n))
    covariance = own.exposures @ own.factor_covariance @ own.exposures.T + np.diag(own.specific_variance)
    unit = 1.0 / np.abs(own.expected).max()
    quadratic = np.zeros((4 * n, 4 * n))
    quadratic[:n, :n] = own.risk_aversion * covariance
    linear = np.concatenate([-own.expected, own.buy, own.sell, np.zeros(n)])
    rows = [[eye, -eye, eye, zero], [zero, eye, zero, zero], [zero, zero, eye, zero], [eye, zero, zero, zero],
            [eye, zero, zero, -eye], [eye, zero, zero, eye]]  # fmt: skip
    gross, neutral = np.concatenate([np.zeros(3 * n), np.ones(n)])[None], np.hstack([own.neutral, np.zeros((e, 3 * n))])
    matrix = np.vstack([*(np.hstack(row) for row in rows), gross, neutral])
    far, flat = np.full(n, np.inf), np.zeros(n)
    low = np.concatenate([own.before, flat, flat, own.lower, -far, flat, [-np.inf], np.zeros(e)])
    high = np.concatenate([own.before, far, far, own.upper, flat, far, [own.gross], np.zeros(e)])
    solver = osqp.OSQP()
    solver.setup(
        csc_matrix(np.triu(quadratic) * unit), linear * unit, csc_matrix(matrix), low, high, verbose=False,
        eps_abs=1e-9, eps_rel=1e-9, eps_prim_inf=1e-9, polishing=True, max_iter=100_000,
    )  # fmt: skip
    found = solver.solve(raise_error=False)
    return np.asarray(found.x[:n]), str(found.info.status)


def test_another_solver_finds_the_same_books() -> None:
    compared = infeasible = unrounded = 0
    for seed in range(20, 20 + some(40, 1000)):
        own = problem(seed)
        other, status = by_osqp(own)
        try:
            weights = own.solve()
        except InfeasibleError:
            infeasible += 1
            assert "infeasible" in status, (seed, status)
            continue
        assert (weights >= own.lower).all() and (weights <= own.upper).all()
        assert np.abs(weights).sum() <= own.gross + 1e-12 and (np.abs(own.neutral @ weights) < 1e-12).all(), seed
        rounded = np.abs([weights, weights - own.before])
        # Where too few coins are free to make up for it, nothing is rounded: 3 of the 1,000.
        unrounded += bool(((rounded > 0.0) & (rounded < DUST)).any())
        if status != "solved":
            continue  # it gave up: nothing to compare with
        compared += 1
        value, best = own.value(weights), own.value(other)
        assert value == pytest.approx(best, rel=1e-6, abs=1e-10), seed
        np.testing.assert_allclose(weights, other, atol=1e-4, err_msg=str(seed))
    assert compared > 0.8 * some(40, 1000) and infeasible > 0 and unrounded <= some(0, 3)


def test_no_book_near_the_best_is_better() -> None:
    """Without another solver: steps to other books within the limits do not raise the objective."""
    rng = np.random.default_rng(0)
    own = replace(problem(3), neutral=np.zeros((0, len(problem(3).before))))
    best = own.solve()
    for size in (1e-1, 1e-2, 1e-3, 1e-4):
        for _ in range(200):
            other = np.clip(
                best + size * rng.normal(size=len(best)) * (rng.random(len(best)) < 0.2), own.lower, own.upper
            )
            if np.abs(other).sum() <= own.gross:
                assert own.value(other) <= own.value(best) + 1e-10


def test_a_trade_that_does_not_pay_is_not_made_and_one_that_pays_is() -> None:
    one = np.ones(1)
    base = BookProblem(
        0.001 * one, np.zeros((1, 1)), np.zeros((1, 1)), 0.01 * one, 1.0, 0.002 * one, 0.002 * one, 0.0 * one,
        -one, one, 1.0, np.zeros((0, 1)),
    )  # fmt: skip
    assert base.solve() == [0.0]  # 0.1 % a day for 0.2 % of costs
    assert base.solve().tolist() == replace(base, before=0.0 * one).solve().tolist()
    # a = c + g D w: bought as far as the last dollar pays, and no further.
    np.testing.assert_allclose(replace(base, expected=0.005 * one).solve(), [0.3], atol=1e-6)
    assert replace(base, before=0.25 * one).solve() == [0.25]  # worth keeping, not worth changing
    np.testing.assert_allclose(replace(base, before=0.5 * one).solve(), [0.3], atol=1e-6)


def test_what_is_given_beyond_the_limits_is_infeasible() -> None:
    own = problem(3)
    given = np.where(np.arange(len(own.before)) == 0, 0.9, own.lower)
    stuck = replace(own, lower=given, upper=np.where(np.arange(len(own.before)) == 0, 0.9, own.upper), gross=0.8)
    with pytest.raises(InfeasibleError, match="beyond the limits"):
        stuck.solve()
    alone = replace(own, lower=given * 0 + DUST * 10, upper=given * 0 + DUST * 10, neutral=np.ones((1, len(given))))
    with pytest.raises(InfeasibleError, match="beyond the limits"):
        alone.solve()
    first = np.arange(len(given)) == 0
    low, high = np.where(first, 0.5, -1e-3), np.where(first, 0.5, 1e-3)
    hedge = replace(own, lower=low, upper=high, gross=1.0, neutral=np.ones((1, len(given))))
    with pytest.raises(InfeasibleError, match="no book is within all limits"):
        hedge.solve()


def test_a_missing_solver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "clarabel", None)
    with pytest.raises(OracleError, match=r"pip install 'hlbt\[optimise\]'"):
        problem(3).solve()
