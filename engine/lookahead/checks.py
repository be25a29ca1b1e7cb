"""The checks of the audit (:mod:`engine.lookahead.audit`): each perturbs the data and compares the weights.

A check is a function of an :class:`AuditContext`. It returns a sentence about what was compared; it raises
:class:`WeightChanged` or an :class:`engine.errors.HlbtError` when the oracle fails it, and :class:`CheckSkipped` when
it does not apply. All compare by :func:`max_difference`, with one tolerance.
"""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from engine.clock import show
from engine.config import RunConfig
from engine.errors import HlbtError, OracleError, join_first
from engine.lookahead.perturbations import changed_after, changed_at, with_coins, with_newcomers
from engine.lookahead.subprocess_run import ProcessResult, run_in_subprocess
from engine.oracles.base import Oracle, ScoreOracle, call_fetch_weights, matrix_of_instants, weight_matrix
from engine.oracles.loading import data_files
from engine.panel import Panel
from engine.simulation.overlays import describe_overlays, traded_weights
from engine.weights import check_gross, validate_weights

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
        What the oracle read in a process of its own, set by :func:`check_process`; None = not watched.
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
        return self.panel.known()

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


# The checks -----------------------------------------------------------------------------------------------------------


def check_valid(context: AuditContext) -> str:
    """Gross as it would be traded, within the limit; names and finiteness are checked when the weights are read."""
    limit = context.config.account.max_gross
    traded = traded_weights(context.weights, context.decisions, context.panel, context.config)
    check_gross(traded, context.decisions, limit, describe_overlays(context.config))
    gross, net = np.nansum(np.abs(traded), axis=1), np.nansum(traded, axis=1)
    untradable = (np.nan_to_num(context.weights) != 0.0) & ~context.panel.tradable[context.rows]
    stuck = int(untradable.any(axis=1).sum())
    held = f", {np.isnan(context.weights).mean():.0%} held" if np.isnan(context.weights).any() else ""
    return (
        f"{len(traded)} rows, gross {gross.min():.3g} to {gross.max():.3g} of {limit:g}, net {_net(net.min())} to "
        f"{_net(net.max())}{held}{f'; {stuck} rows weigh an untradable coin' if stuck else ''}"
    )


def check_cut(context: AuditContext) -> str:
    """A new instance on the data up to an instant alone, all decisions so far."""
    largest = compare_cuts(context, "cut", "on the data up to {} alone", _new_weights)
    compared = int((context.cuts + 1).sum()) * len(context.panel.coins)
    return f"{len(context.cuts)} cuts, {compared:,} weights, {_size(largest)}"


def check_future(context: AuditContext) -> str:
    """All data after an instant changed (prices, funding, volume, tradability, gaps), the panel as long as before."""
    largest, rows = 0.0, context.perturbed()
    for seed, row in enumerate(rows):
        other = changed_after(context.panel, int(context.rows[row]), np.random.default_rng(seed))
        when = f"when the data after {show(context.decisions[row])} are changed"
        largest = max(largest, max_difference(context, slice(0, row + 1), when, _matrix, context, other))
    return f"changed after {len(rows)} instants, {_size(largest)}"


def check_last_row(context: AuditContext) -> str:
    """The data end at a decision and only that row is changed: its own weights may change, no earlier one."""
    rows, changed = context.perturbed(first=1), 0
    for seed, row in enumerate(rows):
        instant = context.decisions[row]
        until = context.panel.until(instant)
        other = changed_at(until, len(until.index) - 1, np.random.default_rng(seed))
        when = f"when only the row of {show(instant)} is changed"
        max_difference(context, slice(0, row), when, _matrix, context, other, row + 1)
        try:
            max_difference(context, slice(row, row + 1), when, _last_row, context, other, row + 1)
        except WeightChanged:
            changed += 1
    return f"changed at {len(rows)} instants: no earlier weight changed, its own row did at {changed}"


def check_funding(context: AuditContext) -> str:
    """The rate settled at the instant, after the trade, changed: not even its own row may change."""
    if "funding" not in context.panel.fields:
        raise CheckSkipped("the panel has no funding")
    if context.panel.as_known:
        raise CheckSkipped("the panel is as known: the rate of the instant is not in it")
    rows = context.perturbed()
    for seed, row in enumerate(rows):
        other = changed_at(context.panel, int(context.rows[row]), np.random.default_rng(seed), ("funding",))
        when = f"when the funding settled at {show(context.decisions[row])}, after the trade, is changed"
        max_difference(context, slice(0, row + 1), when, _matrix, context, other)
        alone = slice(row, row + 1)
        before = _unperturbed(context, alone, _one_instant, context, context.make(), context.panel, row)
        max_difference(context, alone, when, _one_instant, context, context.make(), other, row, expected=before)
    return f"changed at {len(rows)} instants, computed as matrix and as a single row"


def check_coins(context: AuditContext) -> str:
    """Coins that list after an instant added, and those of the panel left out: nobody knew of them."""
    largest, left_out, rows = 0.0, 0, context.perturbed()
    for seed, row in enumerate(rows):
        instant, panel_row = show(context.decisions[row]), int(context.rows[row])
        past = slice(0, row + 1)
        wide = with_newcomers(context.panel, panel_row, np.random.default_rng(seed))
        when = f"when two coins are added that list after {instant}"
        largest = max(largest, max_difference(context, past, when, _without_newcomers, context, wide))
        listed = (~np.isnan(context.panel.values("mid")[: panel_row + 1])).any(axis=0)
        if listed.all() or not listed.any():
            continue
        left_out += int((~listed).sum())
        when = f"is all it can be: the coin has no price up to {instant}"
        max_difference(context, past, when, _zero_unlisted, context.weights[past], listed)
        narrow = with_coins(context.panel, listed)
        when = f"without the coins that list after {instant}"
        largest = max(largest, max_difference(context, past, when, _matrix, context, narrow, columns=listed))
    without = f", {left_out / len(rows):.0f} later ones left out on average" if left_out else ""
    return f"{len(rows)} instants, two coins added{without}, {_size(largest)}"


def check_instant(context: AuditContext) -> str:
    """``fetch_portfolio_weights`` of one instance, oldest instant first, as a live run calls it."""
    oracle, largest = context.make(), 0.0
    kind = type(oracle)
    own = kind.fetch_portfolio_weights is not Oracle.fetch_portfolio_weights
    both = own and kind.weight_matrix is not matrix_of_instants
    for number, row in enumerate(context.instants):
        context.report(f"instant {number + 1} of {len(context.instants)}")
        instant = context.decisions[row]
        when = f"from fetch_portfolio_weights for {show(instant)} alone"
        known = context.known.until(instant)
        # A method of its own beside the matrix is called with the whole panel too: it must cut it by itself.
        for panel in [context.panel, known] if both else [known]:
            difference = max_difference(context, slice(row, row + 1), when, _one_instant, context, oracle, panel, row)
            largest = max(largest, difference)
    return f"{len(context.instants)} of {len(context.decisions)} instants, {_size(largest)}"


def check_score(context: AuditContext) -> str:
    """Sweeps and reports construct a ScoreOracle's weights from its scores: they must be the same."""
    oracle = context.make()
    if not isinstance(oracle, ScoreOracle):
        raise CheckSkipped("it has no scores")
    largest, every = 0.0, slice(0, len(context.decisions))
    for method, many in (("construct", False), ("construct_many", True)):
        when = f"from {method} of its scores"
        largest = max(largest, max_difference(context, every, when, _constructed, oracle, context, many))
    return f"{len(context.decisions)} rows, {_size(largest)}"


def check_repeat(context: AuditContext) -> str:
    """New instances under other states of the global random generators, each used twice, then on less data."""
    every = slice(0, len(context.decisions))
    for seed in (1, 2):
        with _seeded(seed):
            oracle = context.make()
            for call in ("first", "second"):
                when = f"from a new instance at its {call} call"
                max_difference(
                    context, every, when, weights_of, oracle, context.panel, context.decisions, tolerance=0.0
                )
    middle = len(context.decisions) // 2
    past, instant = slice(0, middle + 1), context.decisions[middle]
    known = context.known.until(instant)
    expected = _unperturbed(context, past, _matrix, context, known, middle + 1)
    when = f"from an instance that was first used on all data, then on those up to {show(instant)}"
    max_difference(context, past, when, weights_of, oracle, known, context.decisions[past], expected=expected)
    return "2 new instances, 2 calls each under other random states, bit for bit; then on less data"


def check_process(context: AuditContext) -> str:
    """Half of the data, some of them changed, in a new process: state of modules, order of sets, the clock.

    The data are changed so that weights cached under a key that leaves out what they depend on show as well. Sets
    ``context.reads``.
    """
    if context.path is None:
        raise CheckSkipped("the oracle was not given as a path")
    try:
        pickle.dumps(dict(context.parameters))
    except Exception as error:
        raise CheckSkipped(f"the parameters cannot be sent to another process: {error}") from error
    middle = (len(context.decisions) - 1) // 2
    past, instant = slice(0, middle + 1), context.decisions[middle]
    changed = changed_after(context.panel, int(context.rows[middle // 2]), np.random.default_rng(middle))
    known = replace(changed, table=context.panel.table).known().until(instant)
    result = run_in_subprocess(context.path, context.parameters, known, context.decisions[past])
    context.reads = result.reads
    expected = _unperturbed(context, past, _matrix, context, known, middle + 1)
    when = f"in a new process whose clock is set to {show(instant)}, on data up to then alone, half of them changed"
    largest = max_difference(context, past, when, _weights_or_error, result, expected=expected)
    return f"{middle + 1} rows in a new process with another hash seed and the clock of then, {_size(largest)}"


def check_published(context: AuditContext) -> str:
    """Data of its own: the oracle as of each cut against the oracle that has all of them."""
    oracle = context.make()
    reads = context.reads
    if reads is None:
        reads = tuple(str(file) for file in data_files(oracle)) or None
    if unexplained := _unexplained(oracle, reads or ()):
        raise OracleError(
            f"it reads {join_first(unexplained, 3)} and has no method as_of(instant), so it is not known which rows "
            "were published by then; write one that returns the oracle with only those rows, and files() that names "
            "the file where it is a part of another oracle (engine.lookahead.audit describes it), or make constants "
            "its parameters"
        )
    if not _parts_with_as_of(oracle):
        if reads is None:
            raise CheckSkipped("no method as_of, and the files that it reads were not watched")
        return "it opens no file but its code, and no connection"
    reuse = oracle if _leaves_itself(oracle, context.decisions[0]) else None

    def weights_then(context: AuditContext, instant: pd.Timestamp, panel: Panel, count: int) -> np.ndarray:
        then = context.make() if reuse is None else reuse
        return weights_as_of(then, instant, panel, context.decisions[:count])

    largest = compare_cuts(context, "published", "with the rows published by {} alone", weights_then)
    if reads and len(context.decisions) > 1 and _keeps_every_row(context):
        raise OracleError(
            f"it reads {join_first(reads, 3)}, and as_of({show(context.decisions[0])}) still gives the weights of "
            "every later decision: it takes no row away"
        )
    return f"as_of at {len(context.cuts)} instants, {_size(largest)}"


# Comparing weights ----------------------------------------------------------------------------------------------------


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


def _unperturbed(context: AuditContext, rows: slice, compute: Callable[..., np.ndarray], *arguments: Any) -> np.ndarray:
    """Weights without the perturbation, so that a leak is reported by the check it belongs to; the matrix on error."""
    try:
        return compute(*arguments)
    except HlbtError:
        return context.weights[rows]


# Computing weights ----------------------------------------------------------------------------------------------------


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
    try:
        then = oracle.as_of(instant)
    except HlbtError:
        raise
    except Exception as error:
        raise OracleError(f"as_of({show(instant)}) failed: {type(error).__name__}: {error}.") from error
    return weights_of(then, panel, decisions)


def _matrix(context: AuditContext, panel: Panel, count: int | None = None) -> np.ndarray:
    return weights_of(context.make(), panel, context.decisions[:count])


def _new_weights(context: AuditContext, instant: pd.Timestamp, panel: Panel, count: int) -> np.ndarray:
    return _matrix(context, panel, count)


def _last_row(context: AuditContext, panel: Panel, count: int) -> np.ndarray:
    return _matrix(context, panel, count)[-1:]


def _without_newcomers(context: AuditContext, panel: Panel) -> np.ndarray:
    return _matrix(context, panel)[:, 1:-1]


def _zero_unlisted(weights: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """The weights, 0 in coins that are not listed; NaN (hold) is no position and stays."""
    return np.where(listed | np.isnan(weights), weights, 0.0)


def _constructed(oracle: ScoreOracle, context: AuditContext, many: bool) -> np.ndarray:
    try:
        scores = oracle.scores(context.known, context.decisions)
        if many:
            return type(oracle).construct_many([oracle], scores).to_dense(*scores.shape)[0]
        return oracle.construct(scores)
    except HlbtError:
        raise
    except Exception as error:
        raise OracleError(f"scores or construct failed: {type(error).__name__}: {error}.") from error


def _one_instant(context: AuditContext, oracle: Oracle, panel: Panel, row: int) -> np.ndarray:
    """Weights of one decision, (1, N), as a live run calls for them."""
    tradable = panel.tradable[int(context.rows[row])]
    universe = [coin for coin, trades in zip(panel.coins, tradable, strict=True) if trades]
    try:
        weights = call_fetch_weights(oracle, context.decisions[row], universe, panel)
        values = np.array([[float(weights.pop(coin, 0.0)) for coin in panel.coins]])
    except HlbtError:
        raise
    except Exception as error:
        raise OracleError(f"fetch_portfolio_weights failed: {type(error).__name__}: {error}.") from error
    if weights:
        raise OracleError(f"fetch_portfolio_weights names coins that the panel lacks: {join_first(weights)}.")
    return values


def _weights_or_error(result: ProcessResult) -> np.ndarray:
    if result.weights is None:
        raise OracleError(result.error)
    return result.weights


# Data of its own ------------------------------------------------------------------------------------------------------


def _unexplained(oracle: Oracle, reads: tuple[str, ...]) -> list[str]:
    """Files that are read and that no method ``as_of`` answers for; a part answers for those its ``files`` names."""
    if type(oracle).as_of is not Oracle.as_of:
        return []
    declared = {os.path.realpath(file) for part in _parts_with_as_of(oracle) for file in data_files(part)}
    return [name for name in reads if not any(file == name or file.startswith(name + os.sep) for file in declared)]


def _parts_with_as_of(oracle: Oracle) -> list[Oracle]:
    """The outermost parts of an oracle, itself included, with a method ``as_of`` of their own."""
    if type(oracle).as_of is not Oracle.as_of:
        return [oracle]
    return [inner for part in oracle.parts() for inner in _parts_with_as_of(part)]


def _leaves_itself(oracle: Oracle, instant: pd.Timestamp) -> bool:
    """Whether ``as_of`` returns another object: one that cuts the instance itself cannot be called twice."""
    try:
        return oracle.as_of(instant) is not oracle
    except Exception:  # it is called again, where its error is that of a check
        return False


def _keeps_every_row(context: AuditContext) -> bool:
    oracle = context.make()
    try:
        weights = weights_as_of(oracle, context.decisions[0], context.panel, context.decisions)
    except HlbtError:
        return False
    return np.array_equal(weights, context.weights, equal_nan=True)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Another state of the global random generators, the caller's again afterwards."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002 - it is the state that leaks
    try:
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


def _size(difference: float) -> str:
    return "bit for bit" if difference == 0.0 else f"largest difference {difference:.1g}: rounding"


def _net(value: float) -> str:
    """Rounded: the net weight of a neutral book is 0 but for its last bits."""
    return f"{round(float(value), 9) + 0.0:.2g}"
