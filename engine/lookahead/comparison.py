"""Compare the weights of an oracle under audit with those that it gives on other data: one function, one tolerance."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from engine.clock import show
from engine.config import RunConfig
from engine.errors import HlbtError, OracleError
from engine.lookahead.paths import path_of_scores, scores_of, weights_along
from engine.lookahead.paths import weights_of as weights_of
from engine.lookahead.subprocess_run import Job, ProcessResult, run_in_subprocess
from engine.oracles.base import Oracle, oracle_errors
from engine.panel import Panel

#: Largest difference of a weight that counts as rounding and not as a leak: matrix products over another number of
#: rows may differ in their last bits.
TOLERANCE = 1e-10
#: Decisions, up to the instant at which the data are cut or perturbed, whose weights are compared there.
WINDOW = 10
#: A leak of one day is a weight that depends on data of the 24 hours after its decision.
_DAY = pd.Timedelta(days=1)


@dataclass(frozen=True)
class Difference:
    """The first weight that changed.

    Attributes
    ----------
    instant : str
        Decision of the weight, ISO 8601.
    coin : str
    weight : float
        On the data as they are; NaN = hold.
    other : float
        On the perturbed data.
    """

    instant: str
    coin: str
    weight: float
    other: float


class WeightChanged(Exception):
    """A weight changed, or the oracle failed where it had given weights before; the message says when."""

    def __init__(self, message: str, difference: Difference | None = None) -> None:
        super().__init__(message)
        self.difference = difference


class CheckSkipped(Exception):
    """A check does not apply; the message says why."""


def evenly_spaced(count: int, wanted: int) -> np.ndarray:
    """Rows from 0 to ``count - 1``, both included, ascending; `wanted` of them, or all when there are fewer."""
    return np.unique(np.linspace(0, count - 1, min(count, max(wanted, 2))).astype(np.int64))


def _ignore(step: str) -> None:
    pass


@dataclass
class AuditContext:
    """An oracle under audit, the data that it may read, and its weights on all of them.

    Attributes
    ----------
    make : callable
        Returns a new instance of the oracle.
    panel : Panel
        The panel itself, not as known.
    decisions : DatetimeIndex, (D,)
    weights : ndarray, (D, N)
        Weights on the data as they are.
    cuts, instants, perturbed, sample : ndarray of int
        Rows of `decisions` at which the data are cut off, which are computed one by one, after which the data are
        changed, and which are computed again on the same data.
    config : RunConfig
    path : str or None
        Path of the oracle, where it was given as one.
    parameters : mapping
        Constructor arguments that belong to `path`.
    environment : mapping
        Environment variables before the oracle was built, for new processes.
    report : callable
        Called with a word about each step.
    width : int
        Decisions, up to the instant at which the data are cut or changed, whose weights are compared there.
    path_dependent : bool
        Whether weights are computed from the first decision on, whichever are wanted.
    kept : WeightChanged or None
        First weight that differs in a new process and in no other way, set by
        :func:`engine.lookahead.checks.check_instant`.
    """

    make: Callable[[], Oracle]
    panel: Panel
    decisions: pd.DatetimeIndex
    weights: np.ndarray
    cuts: np.ndarray
    instants: np.ndarray
    perturbed: np.ndarray
    sample: np.ndarray
    config: RunConfig = field(default_factory=RunConfig)
    path: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    report: Callable[[str], object] = _ignore
    width: int = WINDOW
    path_dependent: bool = False
    kept: WeightChanged | None = None
    #: Whether :meth:`matrix` is computed in a new process, while a difference is confirmed.
    in_new_process: bool = False

    @cached_property
    def known(self) -> Panel:
        """The panel as known."""
        return self.panel.point_in_time()

    @cached_property
    def rows(self) -> np.ndarray:
        """Panel row of every decision."""
        return self.panel.rows(self.decisions)

    @cached_property
    def unheld(self) -> np.ndarray:
        """Where a coin has had no weight up to a decision, (D, N) bool: to hold nothing is to be flat."""
        return ~np.logical_or.accumulate(np.nan_to_num(self.weights) != 0.0, axis=0)

    @cached_property
    def no_process(self) -> str:
        """Why nothing can be computed in a new process; empty where it can."""
        if self.path is None:
            return "the oracle was not given as a path"
        try:
            pickle.dumps(dict(self.parameters))
        except Exception as error:
            return f"the parameters cannot be sent to another process: {error}"
        return ""

    @property
    def live(self) -> ProcessResult:
        """Weights of `instants` from a new process, oldest first, each on the data up to it.

        Files of data are hidden; those that the oracle needs for the same weights are shown to a second process.

        Raises
        ------
        OracleError
            When the process dies.
        """
        if isinstance(self._live, OracleError):
            raise self._live
        return self._live

    @cached_property
    def _live(self) -> ProcessResult | OracleError:
        decisions, schedule = self.decisions[self.instants], self.decisions if self.path_dependent else None
        job = Job(str(self.path), self.parameters, self.known, decisions, live=True, schedule=schedule)
        try:
            result = self._run(job)
            if result.missed and not self._same(result):
                result = self._run(replace(job, visible=result.missed))
        except OracleError as error:
            return error
        return result

    def _same(self, result: ProcessResult) -> bool:
        expected, unheld = self.weights[self.instants], self.unheld[self.instants]
        return not (result.errors or _differs(expected, result.weights, unheld, TOLERANCE).any())

    def _run(self, job: Job) -> ProcessResult:
        count = len(job.decisions)
        return run_in_subprocess(job, self.environment, lambda done: self.report(f"instant {done} of {count}"))

    def matrix(self, panel: Panel, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Weights of a new instance at some decisions, in a new process where the context says so.

        Raises
        ------
        OracleError, WeightsError
            When the oracle fails, or its weights are not valid.
        """
        if not self.in_new_process:
            return self.weights_by(self.make(), panel, rows)
        wanted = np.arange(len(self.decisions))[rows]
        called = np.arange(wanted[-1] + 1) if self.path_dependent else wanted
        result = self._run(Job(str(self.path), self.parameters, panel.point_in_time(), self.decisions[called]))
        if result.errors:
            raise OracleError(next(iter(result.errors.values())))
        return result.weights[np.searchsorted(called, wanted)]

    def weights_by(self, oracle: Oracle, panel: Panel, rows: slice | np.ndarray) -> np.ndarray:
        """Weights of an oracle at some decisions, (R, N); the last row of a path is that of its decision."""
        if not self.path_dependent:
            return weights_of(oracle, panel, self.decisions[rows])
        wanted = np.arange(len(self.decisions))[rows]
        return weights_along(oracle, panel, self.decisions, wanted, self.scores)

    def weights_as_of(self, oracle: Oracle, instant: pd.Timestamp, panel: Panel, rows: slice) -> np.ndarray:
        """Weights, (R, N), of an oracle with its own data cut off at `instant` (:meth:`engine.Oracle.as_of`).

        Raises
        ------
        OracleError
            When the oracle fails.
        """
        with oracle_errors(f"as_of({show(instant)}) failed"):
            then = oracle.as_of(instant)
        return self.weights_by(then, panel, rows)

    @cached_property
    def scores(self) -> pd.DataFrame | None:
        """Scores on the data as they are, (D, N), of a path-dependent oracle whose construction alone is."""
        oracle = self.make()
        if not self.path_dependent or not path_of_scores(oracle):
            return None
        scores = scores_of(oracle, self.known, self.decisions)
        return pd.DataFrame(scores, index=self.decisions, columns=list(self.panel.coins))

    def window(self, row: int) -> slice:
        """The decisions that are compared where the data end, or change, after decision `row`: the last of them."""
        return slice(max(0, int(row) + 1 - self.width), int(row) + 1)

    def strength(self) -> float:
        """Share of the decisions at which a leak of one day would have been seen.

        It would where an instant at which the data were cut or changed lies less than 24 hours after the decision.
        """
        rows = np.unique(np.concatenate([self.cuts, self.instants, self.perturbed]))
        ends = self.decisions[rows]
        after = ends.searchsorted(self.decisions)
        inside = after < len(ends)
        near = np.asarray(ends[np.minimum(after, len(ends) - 1)] - self.decisions < _DAY)
        return float((inside & near).mean())


def compare_cuts(
    context: AuditContext,
    step: str,
    condition: str,
    compute: Callable[[pd.Timestamp, Panel, slice], np.ndarray],
    cuts: np.ndarray,
    confirm: bool = False,
) -> float:
    """Largest difference between the weights on all data and those on the data cut off at some decisions.

    Parameters
    ----------
    context : AuditContext
    step : str
        What is reported as the comparison proceeds.
    condition : str
        End of the sentence about a changed weight, with ``{}`` for the instant.
    compute : callable
        ``compute(instant, panel, rows)`` -> weights of some decisions, the last of which is `instant`, from a panel as
        known that ends there.
    cuts : ndarray of int
        Rows of the decisions.
    confirm : bool
        As in :func:`max_difference`.

    Raises
    ------
    WeightChanged
        At the first weight that differs by more than :data:`TOLERANCE`.
    """
    largest = 0.0
    for number, row in enumerate(cuts):
        context.report(f"{step} {number + 1} of {len(cuts)}")
        instant, rows = context.decisions[row], context.window(row)
        known, when = context.known.until(instant), condition.format(show(instant))
        largest = max(largest, max_difference(context, rows, when, compute, instant, known, rows, confirm=confirm))
    return largest


def max_difference(
    context: AuditContext,
    rows: slice | np.ndarray,
    condition: str,
    compute: Callable[..., np.ndarray],
    *arguments: Any,
    expected: np.ndarray | None = None,
    columns: np.ndarray | None = None,
    confirm: bool = False,
) -> float:
    """Largest difference between the weights of some decisions and those of ``compute(*arguments)``.

    Parameters
    ----------
    context : AuditContext
    rows : slice or ndarray of int
        Rows of the decisions.
    condition : str
        Under what the weights were computed, as the end of a sentence.
    compute, *arguments
        The weights to compare, a row for each of `rows`.
    expected : ndarray, optional
        Default: the weights on the data as they are.
    columns : ndarray, (N,) bool, optional
        Columns of the panel that ``compute`` returns.
    confirm : bool
        Whether a difference must be there in a new process too, which has not seen other data before: what an oracle
        keeps for an instant may not fit a made-up panel. ``compute`` calls :meth:`AuditContext.matrix`.

    Raises
    ------
    WeightChanged
        When a weight differs by more than :data:`TOLERANCE`, or the oracle raises although it has weights there. NaN
        equals NaN, and 0 where there is nothing to hold.
    """
    columns = np.ones(len(context.panel.coins), dtype=np.bool_) if columns is None else columns
    expected = (context.weights[rows] if expected is None else expected)[:, columns]
    try:
        try:
            weights = compute(*arguments)
        except HlbtError as error:
            # Raising where there is no weight either is a warm-up, not a leak.
            if not np.nan_to_num(expected).any():
                return 0.0
            raise WeightChanged(f"{condition} it fails: {str(error).rstrip('.')}") from error
        return _compare(context, rows, condition, expected, weights, columns)
    except WeightChanged:
        if not confirm or context.in_new_process or context.no_process:
            raise
        context.in_new_process = True
        try:
            return _compare(context, rows, condition, expected, compute(*arguments), columns)
        except (HlbtError, WeightChanged):
            pass  # what was seen first is told
        finally:
            context.in_new_process = False
        raise


def _compare(
    context: AuditContext,
    rows: slice | np.ndarray,
    condition: str,
    expected: np.ndarray,
    weights: np.ndarray,
    columns: np.ndarray,
) -> float:
    unheld = context.unheld[rows][:, columns]
    wrong = _differs(expected, weights, unheld, TOLERANCE)
    if wrong.any():
        row, column = (int(index[0]) for index in np.nonzero(wrong))
        instant, coin = context.decisions[rows][row], str(np.array(context.panel.coins)[columns][column])
        weight, other = float(expected[row, column]), float(weights[row, column])
        shown, instead = (f"{value:.10g}".replace("nan", "NaN (hold)") for value in (weight, other))
        raise WeightChanged(
            f"the weight of {coin} at {show(instant)} is {shown}, but {instead} {condition}",
            Difference(instant.isoformat(), coin, weight, other),
        )
    return float(np.nanmax(np.abs(weights - expected), initial=0.0))


def _differs(expected: np.ndarray, weights: np.ndarray, unheld: np.ndarray, tolerance: float) -> np.ndarray:
    """Where weights differ, (D, N) bool; NaN equals NaN, and 0 where there is nothing to hold, `unheld`."""
    expected, weights = (np.where(np.isnan(values) & unheld, 0.0, values) for values in (expected, weights))
    return ~((np.isnan(weights) & np.isnan(expected)) | (np.abs(weights - expected) <= tolerance))


def unperturbed(
    context: AuditContext, rows: slice | np.ndarray, compute: Callable[..., np.ndarray], *arguments: Any
) -> np.ndarray:
    """Weights without the perturbation, so that a leak is reported by the check it belongs to; the matrix on error."""
    try:
        return compute(*arguments)
    except HlbtError:
        return context.weights[rows]
