"""The best book of a decision: return less risk and costs, under limits; a quadratic program that Clarabel solves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.errors import InfeasibleError, OracleError

#: A weight or a trade smaller than this is rounding of the solver.
DUST = 1e-7
#: How far beyond a limit a book may be for the rounding of sums.
_EXACT = 1e-12
#: Gap and residuals at which the solver is done, and whether it refines each step, which takes three times as long and
#: hard problems need: one after the other until it says that it has the best.
_EFFORTS = ((1e-10, False), (1e-10, True), (1e-8, True))


@dataclass(frozen=True, eq=False)
class BookProblem:
    """``max a'w - g/2 (w'Dw + y'Fy) - buy'(w - w0)+ - sell'(w0 - w)+`` with ``y = X'w``, under limits.

    Attributes
    ----------
    expected : ndarray, (N,)
        a: expected return of each coin, a day.
    exposures : ndarray, (N, K)
        X.
    factor_covariance : ndarray, (K, K)
        F, of a day; positive semidefinite.
    specific_variance : ndarray, (N,)
        D, of a day; not negative.
    risk_aversion : float
        g, not negative.
    buy, sell : ndarray, (N,)
        Price of a trade on each side, as a fraction of its notional; not negative.
    before : ndarray, (N,)
        w0: the book that is held.
    lower, upper : ndarray, (N,)
        Least and largest weight; they are equal for a coin that is given. 0 is between the others'.
    gross : float
        Largest ``sum(abs(w))``.
    neutral : ndarray, (E, N)
        Rows whose ``row @ w`` is 0.
    """

    expected: np.ndarray
    exposures: np.ndarray
    factor_covariance: np.ndarray
    specific_variance: np.ndarray
    risk_aversion: float
    buy: np.ndarray
    sell: np.ndarray
    before: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    gross: float
    neutral: np.ndarray

    def value(self, weights: np.ndarray) -> float:
        """The objective at `weights`, (N,), a day."""
        y, trade = self.exposures.T @ weights, weights - self.before
        risk = (weights * weights) @ self.specific_variance + y @ self.factor_covariance @ y
        paid = self.buy @ np.maximum(trade, 0.0) + self.sell @ np.maximum(-trade, 0.0)
        return float(self.expected @ weights - 0.5 * self.risk_aversion * risk - paid)

    def solve(self) -> np.ndarray:
        """The best weights, (N,): a weight within :data:`DUST` of 0 is 0, a trade of less is none.

        Neutral, and within the gross, to 1e-12; where too few coins are free to make up for the rounding, to the
        tolerance of the solver, and nothing is rounded.

        Raises
        ------
        InfeasibleError
            Where no weights are within all limits.
        OracleError
            Where the solver is missing or does not find the best.
        """
        free = self.lower < self.upper
        found = np.where(free, 0.0, self.lower)
        if self.gross - np.abs(found).sum() < 0.0 or (not free.any() and (np.abs(self.neutral @ found) > DUST).any()):
            raise InfeasibleError("what is given is beyond the limits.")
        if free.any():
            found[free] = np.clip(_solved(self, free, found), self.lower[free], self.upper[free])
            clean = np.where(free & (np.abs(found - self.before) < DUST), self.before, found)
            clean = self._within(np.clip(np.where(free & (np.abs(clean) < DUST), 0.0, clean), self.lower, self.upper))
            # What was rounded away leaves the book a little beyond its limits: coins in between make up for it, and
            # where there are too few of them nothing is rounded.
            found = clean if self.beyond(clean) <= _EXACT else min(found, self._within(found), key=self.beyond)
        return found

    def beyond(self, weights: np.ndarray) -> float:
        """By how much `weights`, (N,), are beyond the limit on the gross or not neutral, whichever is more."""
        return max(float(np.abs(weights).sum()) - self.gross, *np.abs(self.neutral @ weights), 0.0)

    def _within(self, weights: np.ndarray) -> np.ndarray:
        """The weights, moved as little as brings them within gross and neutral, by coins away from every kink."""
        kinks = np.abs([weights, weights - self.before, weights - self.lower, weights - self.upper])
        moving = (kinks > 100 * DUST).all(axis=0)
        moved, rows = weights.copy(), self.neutral
        for _ in range(2):  # to be neutral can take the gross beyond its limit, by as little
            if np.abs(moved).sum() > self.gross:
                rows = np.vstack([self.neutral, np.sign(weights)])
            missing = np.append(self.neutral @ moved, np.abs(moved).sum() - self.gross)[: len(rows)]
            by = np.linalg.lstsq(rows[:, moving], -missing, rcond=None)[0]
            moved[moving] += np.clip(by, -40 * DUST, 40 * DUST)
        return moved


def _solved(problem: BookProblem, free: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Weights of the free coins, beside those that are given."""
    try:
        import clarabel
    except ImportError as error:
        raise OracleError(
            "Optimise needs the solver Clarabel, which is not installed: add it with pip install 'hlbt[optimise]'."
        ) from error
    matrices, equalities = _matrices(problem, free, given)
    cones = [clarabel.ZeroConeT(equalities), clarabel.NonnegativeConeT(len(matrices[3]) - equalities)]
    status = ""
    for tolerance, refines in _EFFORTS:
        settings = clarabel.DefaultSettings()
        settings.verbose, settings.iterative_refinement_enable = False, refines
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = tolerance
        solution = clarabel.DefaultSolver(*matrices, cones, settings).solve()
        status = str(solution.status)
        if status == "Solved":
            return np.array(solution.x[: int(free.sum())])
        if status == "PrimalInfeasible":
            raise InfeasibleError("no book is within all limits.")
    raise OracleError(f"Clarabel ended without the best book: {status}.")


@dataclass
class _Rows:
    """Rows ``sum(value * variable) <= limit`` of a sparse matrix, as they are added."""

    places: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)
    limits: list[np.ndarray] = field(default_factory=list)
    count: int = 0

    def add(self, limit: np.ndarray, *terms: tuple[np.ndarray, np.ndarray | float]) -> None:
        """A row for each element of `limit`; a term has the variables of a row and their values."""
        for column, value in terms:
            own = np.arange(len(limit)).reshape(-1, *[1] * (column.ndim - 1))
            self.places.append((self.count + np.broadcast_to(own, column.shape).ravel(), column.ravel()))
            self.values.append(np.broadcast_to(value, column.shape).ravel())
        self.limits.append(limit)
        self.count += len(limit)

    def matrix(self, size: int) -> Any:
        """All rows, of so many variables."""
        from scipy.sparse import csc_array

        rows, columns = (np.concatenate(part) for part in zip(*self.places, strict=True))
        return csc_array((np.concatenate(self.values), (rows, columns)), shape=(self.count, size))


def _matrices(problem: BookProblem, free: np.ndarray, given: np.ndarray) -> tuple[tuple[Any, ...], int]:
    """``min x'Px / 2 + q'x`` with ``Ax + s = b``, s 0 in the first rows and not negative in the others; how many are 0.

    The variables are w, v >= abs(w), y, and t >= the cost of a trade of those coins that are held: of another the cost
    is a matter of w and v.
    """
    from scipy.sparse import csc_array

    x, before, buy, sell = (part[free] for part in (problem.exposures, problem.before, problem.buy, problem.sell))
    lower, upper = problem.lower[free], problem.upper[free]
    coins, factors = x.shape
    held, uneven = np.flatnonzero(before), np.flatnonzero(lower != -upper)
    each, of_y, of_t = np.arange(coins), 2 * coins, 2 * coins + factors
    size = of_t + len(held)
    neutral = problem.neutral[(problem.neutral[:, free] != 0.0).any(axis=1) | (problem.neutral @ given != 0.0)]
    table = _Rows()
    add = table.add

    def every(number: int) -> np.ndarray:
        return np.broadcast_to(each, (number, coins))

    add(-(problem.exposures.T @ given), (every(factors), x.T), (of_y + np.arange(factors), -1.0))
    add(-(neutral @ given), (every(len(neutral)), neutral[:, free]))
    equalities = table.count
    add(np.zeros(coins), (each, 1.0), (coins + each, -1.0))
    add(np.zeros(coins), (each, -1.0), (coins + each, -1.0))
    add(np.maximum(upper, -lower), (coins + each, 1.0))
    add(upper[uneven], (uneven, 1.0))
    add(-lower[uneven], (uneven, -1.0))
    add(np.array([problem.gross - np.abs(given).sum()]), (coins + every(1), 1.0))
    spent = of_t + np.arange(len(held))
    add((buy * before)[held], (held, buy[held]), (spent, -1.0))
    add(-(sell * before)[held], (held, -sell[held]), (spent, -1.0))
    unit = 1.0 / max(np.abs(problem.expected).max(), np.abs(buy).max(), 1e-9)  # so that tolerances are of the problem
    linear = np.zeros(size)
    new = before == 0.0
    linear[:coins] = -problem.expected[free] + np.where(new, 0.5 * (buy - sell), 0.0)
    linear[coins : 2 * coins] = np.where(new, 0.5 * (buy + sell), 0.0)
    linear[of_t:] = 1.0
    first, second = np.triu_indices(factors)
    quadratic = np.concatenate([problem.specific_variance[free], problem.factor_covariance[first, second]])
    places = np.concatenate([each, of_y + first]), np.concatenate([each, of_y + second])
    return (
        csc_array((unit * problem.risk_aversion * quadratic, places), shape=(size, size)),
        unit * linear,
        table.matrix(size),
        np.concatenate(table.limits),
    ), equalities
