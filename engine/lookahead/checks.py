"""The checks of the audit (:mod:`engine.lookahead.audit`): each perturbs the data and compares the weights.

A check is a function of an :class:`AuditContext`. It returns a sentence about what was compared; it raises
:class:`WeightChanged` or an :class:`engine.errors.HlbtError` when the oracle fails it, and :class:`CheckSkipped` when
it does not apply.
"""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd

from engine.clock import show
from engine.errors import HlbtError, OracleError, join_first
from engine.lookahead.comparison import (
    AuditContext,
    CheckSkipped,
    WeightChanged,
    compare_cuts,
    matrix_of,
    max_difference,
    unperturbed,
    weights_as_of,
    weights_of,
)
from engine.lookahead.perturbations import changed_after, changed_at, with_coins, with_newcomers
from engine.lookahead.subprocess_run import ProcessResult, run_in_subprocess
from engine.oracles.base import Oracle, ScoreOracle, call_fetch_weights, matrix_of_instants, oracle_errors
from engine.oracles.loading import data_files
from engine.panel import Panel
from engine.simulation.overlays import describe_overlays, traded_weights
from engine.weights import check_gross


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
        largest = max(largest, max_difference(context, slice(0, row + 1), when, matrix_of, context, other))
    return f"changed after {len(rows)} instants, {_size(largest)}"


def check_last_row(context: AuditContext) -> str:
    """The data end at a decision and only that row is changed: its own weights may change, no earlier one."""
    rows, changed = context.perturbed(first=1), 0
    for seed, row in enumerate(rows):
        instant = context.decisions[row]
        until = context.panel.until(instant)
        other = changed_at(until, len(until.index) - 1, np.random.default_rng(seed))
        when = f"when only the row of {show(instant)} is changed"
        max_difference(context, slice(0, row), when, matrix_of, context, other, row + 1)
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
        max_difference(context, slice(0, row + 1), when, matrix_of, context, other)
        alone = slice(row, row + 1)
        before = unperturbed(context, alone, _one_instant, context, context.make(), context.panel, row)
        max_difference(context, alone, when, _one_instant, context, context.make(), other, row, expected=before)
    return f"changed at {len(rows)} instants, computed as matrix and as a single row"


def check_coins(context: AuditContext) -> str:
    """Coins that list after an instant added, and those of the panel left out."""
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
        largest = max(largest, max_difference(context, past, when, matrix_of, context, narrow, columns=listed))
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
    every = slice(0, len(context.decisions))
    largest = max(
        max_difference(context, every, f"from {method} of its scores", _constructed, oracle, context, many)
        for method, many in (("construct", False), ("construct_many", True))
    )
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
    expected = unperturbed(context, past, matrix_of, context, known, middle + 1)
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
    known = replace(changed, table=context.panel.table).point_in_time().until(instant)
    result = run_in_subprocess(context.path, context.parameters, known, context.decisions[past])
    context.reads = result.reads
    expected = unperturbed(context, past, matrix_of, context, known, middle + 1)
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


# Computing weights ----------------------------------------------------------------------------------------------------


def _new_weights(context: AuditContext, instant: pd.Timestamp, panel: Panel, count: int) -> np.ndarray:
    return matrix_of(context, panel, count)


def _last_row(context: AuditContext, panel: Panel, count: int) -> np.ndarray:
    return matrix_of(context, panel, count)[-1:]


def _without_newcomers(context: AuditContext, panel: Panel) -> np.ndarray:
    return matrix_of(context, panel)[:, 1:-1]


def _zero_unlisted(weights: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """The weights, 0 in coins that are not listed; NaN (hold) is no position and stays."""
    return np.where(listed | np.isnan(weights), weights, 0.0)


def _constructed(oracle: ScoreOracle, context: AuditContext, many: bool) -> np.ndarray:
    with oracle_errors("scores or construct failed"):
        scores = oracle.scores(context.known, context.decisions)
        if many:
            return type(oracle).construct_many([oracle], scores).to_dense(*scores.shape)[0]
        return oracle.construct(scores)


def _one_instant(context: AuditContext, oracle: Oracle, panel: Panel, row: int) -> np.ndarray:
    """Weights of one decision, (1, N), as a live run calls for them."""
    tradable = panel.tradable[int(context.rows[row])]
    universe = [coin for coin, trades in zip(panel.coins, tradable, strict=True) if trades]
    with oracle_errors("fetch_portfolio_weights failed"):
        weights = call_fetch_weights(oracle, context.decisions[row], universe, panel)
        values = np.array([[float(weights.pop(coin, 0.0)) for coin in panel.coins]])
    if weights:
        raise OracleError(f"fetch_portfolio_weights names coins that the panel lacks: {join_first(weights)}.")
    return values


def _weights_or_error(result: ProcessResult) -> np.ndarray:
    if result.weights is None:
        raise OracleError(result.error)
    return result.weights


# Data of its own ------------------------------------------------------------------------------------------------------


def _unexplained(oracle: Oracle, reads: tuple[str, ...]) -> list[str]:
    """Files that are read and not covered by an ``as_of``: that of a part covers the files that its ``files`` names."""
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


#: Name -> what is true when the check passes, and the check; in the order in which they run.
CHECKS: Mapping[str, tuple[str, Callable[[AuditContext], str]]] = {
    "valid": ("weights are valid", check_valid),
    "cut": ("the past alone gives the same weights", check_cut),
    "future": ("changing later data changes no earlier weight", check_future),
    "last_row": ("changing the last row changes no earlier weight", check_last_row),
    "funding": ("funding not yet settled changes no weight", check_funding),
    "coins": ("coins listed later change no earlier weight", check_coins),
    "instant": ("a single instant gives the row of the matrix", check_instant),
    "score": ("its scores construct the same weights", check_score),
    "repeat": ("repeated calls give the same weights", check_repeat),
    "process": ("a new process gives the same weights", check_process),
    "published": ("its own data are used once published", check_published),
}
