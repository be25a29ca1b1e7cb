"""Compare the weights of an oracle under audit with those that it gives on other data: one function, one tolerance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from engine.clock import show
from engine.config import RunConfig
from engine.errors import HlbtError
from engine.oracles.base import Oracle, oracle_errors, weight_matrix
from engine.panel import Panel
from engine.weights import validate_weights

#: Largest difference of a weight that counts as rounding and not as a leak: matrix products over another number of
#: rows may differ in their last bits.
TOLERANCE = 1e-10
#: Instants at most at which the checks that compute the whole matrix each time perturb the data.
PERTURBED_INSTANTS = 8


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


def evenly_spaced(count: int, wanted: int, first: int = 0) -> np.ndarray:
    """Rows from `first` to ``count - 1``, both included, ascending; `wanted` of them, or all when there are fewer."""
    return np.unique(np.linspace(first, count - 1, min(count - first, max(wanted, 2))).astype(np.int64))


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
    cuts, instants : ndarray of int
        Rows of `decisions` at which the data are cut off, and which are computed one by one.
    config : RunConfig
    path : str or None
        Path of the oracle, where it was given as one.
    parameters : mapping
        Constructor arguments that belong to `path`.
    report : callable
        Called with a word about each step.
    reads : tuple of str or None
        What the oracle read in a process of its own, set by :func:`engine.lookahead.checks.check_process`; None = not
        watched.
    """

    make: Callable[[], Oracle]
    panel: Panel
    decisions: pd.DatetimeIndex
    weights: np.ndarray
    cuts: np.ndarray
    instants: np.ndarray
    config: RunConfig = field(default_factory=RunConfig)
    path: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    report: Callable[[str], object] = _ignore
    reads: tuple[str, ...] | None = None

    @cached_property
    def known(self) -> Panel:
        """The panel as known."""
        return self.panel.point_in_time()

    @cached_property
    def rows(self) -> np.ndarray:
        """Panel row of every decision."""
        return self.panel.rows(self.decisions)

    def perturbed(self, first: int = 0) -> np.ndarray:
        """Rows of a few decisions over the span, from row `first` on."""
        count = len(self.decisions)
        if count <= first:
            return np.zeros(0, dtype=np.int64)
        return evenly_spaced(count, min(PERTURBED_INSTANTS, len(self.cuts)), first)


def compare_cuts(
    context: AuditContext,
    step: str,
    condition: str,
    compute: Callable[[AuditContext, pd.Timestamp, Panel, int], np.ndarray],
) -> float:
    """Largest difference between the weights on all data and those on the data cut off at every instant of the cuts.

    Parameters
    ----------
    context : AuditContext
    step : str
        What is reported as the comparison proceeds.
    condition : str
        End of the sentence about a changed weight, with ``{}`` for the instant.
    compute : callable
        ``compute(context, instant, panel, count)`` -> weights of the first `count` decisions, the last of which is
        `instant`, from a panel as known that ends there.

    Raises
    ------
    WeightChanged
        At the first weight that differs by more than :data:`TOLERANCE`.
    """
    largest = 0.0
    for number, row in enumerate(context.cuts):
        context.report(f"{step} {number + 1} of {len(context.cuts)}")
        instant, past = context.decisions[row], slice(0, row + 1)
        known, when = context.known.until(instant), condition.format(show(instant))
        largest = max(largest, max_difference(context, past, when, compute, context, instant, known, row + 1))
    return largest


def max_difference(
    context: AuditContext,
    rows: slice,
    condition: str,
    compute: Callable[..., np.ndarray],
    *arguments: Any,
    expected: np.ndarray | None = None,
    columns: np.ndarray | None = None,
    tolerance: float = TOLERANCE,
) -> float:
    """Largest difference between the weights of some decisions and the first rows of ``compute(*arguments)``.

    Parameters
    ----------
    context : AuditContext
    rows : slice
        Rows of the decisions.
    condition : str
        Under what the weights were computed, as the end of a sentence.
    compute, *arguments
        The weights to compare, (at least as many rows, N); no more rows than `rows` has are read.
    expected : ndarray, optional
        Default: the weights on the data as they are.
    columns : ndarray, (N,) bool, optional
        Columns of the panel that ``compute`` returns.
    tolerance : float
        Largest difference that is accepted; 0 = bit for bit. NaN equals NaN alone.

    Raises
    ------
    WeightChanged
        When a weight differs, or the oracle raises although it has weights there.
    """
    columns = np.ones(len(context.panel.coins), dtype=np.bool_) if columns is None else columns
    expected = (context.weights[rows] if expected is None else expected)[:, columns]
    try:
        weights = compute(*arguments)[: len(expected)]
    except HlbtError as error:
        # Raising where there is no weight either is a warm-up, not a leak.
        if not np.nan_to_num(expected).any():
            return 0.0
        raise WeightChanged(f"{condition} it fails: {str(error).rstrip('.')}") from error
    differences = np.abs(weights - expected)
    wrong = ~((np.isnan(weights) & np.isnan(expected)) | (differences <= tolerance))
    if wrong.any():
        row, column = (int(index[0]) for index in np.nonzero(wrong))
        instant, coin = context.decisions[rows][row], str(np.array(context.panel.coins)[columns][column])
        weight, other = float(expected[row, column]), float(weights[row, column])
        raise WeightChanged(
            f"the weight of {coin} at {show(instant)} is {weight:.10g}, but {other:.10g} {condition}",
            Difference(instant.isoformat(), coin, weight, other),
        )
    return float(np.max(differences, initial=0.0, where=~np.isnan(differences)))


def unperturbed(context: AuditContext, rows: slice, compute: Callable[..., np.ndarray], *arguments: Any) -> np.ndarray:
    """Weights without the perturbation, so that a leak is reported by the check it belongs to; the matrix on error."""
    try:
        return compute(*arguments)
    except HlbtError:
        return context.weights[rows]


def weights_of(oracle: Oracle, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
    """An oracle's weights in the panel's shape, (D, N)."""
    return validate_weights(weight_matrix(oracle, panel, decisions), panel)[1]


def weights_as_of(oracle: Oracle, instant: pd.Timestamp, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
    """Weights, (D, N), of the oracle with its own data cut off at `instant` (:meth:`engine.Oracle.as_of`).

    Raises
    ------
    OracleError
        When the oracle fails.
    """
    with oracle_errors(f"as_of({show(instant)}) failed"):
        then = oracle.as_of(instant)
    return weights_of(then, panel, decisions)


def matrix_of(context: AuditContext, panel: Panel, count: int | None = None) -> np.ndarray:
    """Weights of a new instance at the first `count` decisions, (count, N); default all."""
    return weights_of(context.make(), panel, context.decisions[:count])
