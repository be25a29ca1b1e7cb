"""The checks of the audit (:mod:`engine.lookahead.audit`): each perturbs the data and compares the weights.

A check is a function of an :class:`AuditContext`. It returns a sentence about what was compared; it raises
:class:`WeightChanged` or an :class:`engine.errors.HlbtError` when the oracle fails it, and :class:`CheckSkipped` when
it does not apply.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pandas as pd

from engine.clock import decision_instants, show
from engine.errors import HlbtError, OracleError, join_first
from engine.lookahead.comparison import (
    AuditContext,
    CheckSkipped,
    WeightChanged,
    compare_cuts,
    max_difference,
    unperturbed,
)
from engine.lookahead.paths import scores_of
from engine.lookahead.perturbations import changed_after, changed_at, with_newcomers
from engine.lookahead.subprocess_run import ProcessResult, weights_at
from engine.oracles.base import Oracle, ScoreOracle, matrix_of_instants, oracle_errors
from engine.oracles.loading import data_files
from engine.panel import Panel, with_coins
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
    """A new instance on the data up to an instant alone, the last decisions so far."""
    largest = compare_cuts(
        context, "cut", "on the data up to {} alone", lambda _, *data: context.matrix(*data), context.cuts, confirm=True
    )
    return f"{len(context.cuts)} cuts, {_size(largest)}"


def check_future(context: AuditContext) -> str:
    """All that is known after an instant changed (prices, funding, volume, tradability, lots), as long as before."""
    largest = 0.0
    for seed, row in enumerate(context.perturbed):
        other = changed_after(context.panel, int(context.rows[row]), np.random.default_rng(seed))
        rows, when = context.window(row), f"when the data after {show(context.decisions[row])} are changed"
        largest = max(largest, max_difference(context, rows, when, context.matrix, other, rows, confirm=True))
    return f"changed after {len(context.perturbed)} instants, {_size(largest)}"


def check_last_row(context: AuditContext) -> str:
    """The data end at a decision and only that row is changed: its own weights may change, no earlier one."""
    instants, changed = context.perturbed[context.perturbed > 0], 0
    for seed, row in enumerate(instants):
        until = context.panel.until(context.decisions[row])
        other = changed_at(until, len(until.index) - 1, np.random.default_rng(seed))
        rows, own = context.window(row), list[np.ndarray]()

        def earlier(other: Panel = other, rows: slice = rows, own: list[np.ndarray] = own) -> np.ndarray:
            weights = context.matrix(other, rows)
            own.append(weights[-1])
            return weights[:-1]

        when = f"when only the row of {show(context.decisions[row])} is changed"
        max_difference(context, slice(rows.start, int(row)), when, earlier, confirm=True)
        changed += bool(own) and not np.array_equal(own[-1], context.weights[row], equal_nan=True)
    return f"changed at {len(instants)} instants: no earlier weight changed, its own row did at {changed}"


def check_funding(context: AuditContext) -> str:
    """The rate settled at the instant, after the trade, changed: not even its own row may change."""
    if "funding" not in context.panel.fields:
        raise CheckSkipped("the panel has no funding")
    if context.panel.as_known:
        raise CheckSkipped("the panel is as known: the rate of the instant is not in it")
    own = type(context.make()).fetch_portfolio_weights is not Oracle.fetch_portfolio_weights
    for seed, row in enumerate(context.perturbed):
        other = changed_at(context.panel, int(context.rows[row]), np.random.default_rng(seed), ("funding",))
        instant, alone = context.decisions[row], slice(int(row), int(row) + 1)
        when = f"when the funding settled at {show(instant)}, after the trade, is changed"
        max_difference(context, alone, when, context.matrix, other, alone, confirm=True)
        if own:  # one of its own may read the panel itself
            before = unperturbed(context, alone, weights_at, context.make(), instant, context.panel)
            max_difference(context, alone, when, weights_at, context.make(), instant, other, expected=before)
    return f"changed at {len(context.perturbed)} instants"


def check_coins(context: AuditContext) -> str:
    """Coins that list after an instant added, and those of the panel left out."""
    largest, left_out = 0.0, 0
    for seed, row in enumerate(context.perturbed):
        instant, panel_row, rows = show(context.decisions[row]), int(context.rows[row]), context.window(row)
        wide = with_newcomers(context.panel, panel_row, np.random.default_rng(seed))
        when = f"when two coins are added that list after {instant}"
        largest = max(
            largest, max_difference(context, rows, when, _without_newcomers, context, wide, rows, confirm=True)
        )
        listed = (~np.isnan(context.panel.values("mid")[: panel_row + 1])).any(axis=0)
        if listed.all() or not listed.any():
            continue
        left_out += int((~listed).sum())
        when = f"is all it can be: the coin has no price up to {instant}"
        max_difference(context, rows, when, _zero_unlisted, context.weights[rows], listed)
        narrow = with_coins(context.panel, listed)
        when = f"without the coins that list after {instant}"
        narrowed = max_difference(context, rows, when, context.matrix, narrow, rows, columns=listed, confirm=True)
        largest = max(largest, narrowed)
    count = len(context.perturbed)
    without = f", {left_out / count:.0f} later ones left out on average" if left_out else ""
    return f"{count} instants, two coins added{without}, {_size(largest)}"


def check_instant(context: AuditContext) -> str:
    """``fetch_portfolio_weights`` of one instance, oldest instant first, as a live run calls it.

    In a new process, where there can be one; what differs there and not here is left to :func:`check_process`, in
    ``context.kept``.
    """
    oracle, largest, live = context.make(), 0.0, _live_or_none(context)
    kind = type(oracle)
    own = kind.fetch_portfolio_weights is not Oracle.fetch_portfolio_weights
    both = own and kind.weight_matrix is not matrix_of_instants
    for number, row in enumerate(context.instants):
        instant, rows = context.decisions[row], slice(int(row), int(row) + 1)
        when = f"from fetch_portfolio_weights for {show(instant)} alone"
        if live is None:
            known = context.known.until(instant)
            context.report(f"instant {number + 1} of {len(context.instants)}")
            largest = max(largest, max_difference(context, rows, when, _weights_alone, context, oracle, known, rows))
        else:
            largest = max(largest, _compare_live(context, live, number, rows, when))
        # A method of its own beside the matrix is called with the whole panel too: it must cut it by itself.
        if both and (live is None or row in context.perturbed) and _as_scheduled(context, rows.stop):
            largest = max(largest, max_difference(context, rows, when, weights_at, oracle, instant, context.panel))
    return f"{len(context.instants)} of {len(context.decisions)} instants, {_size(largest)}"


def check_score(context: AuditContext) -> str:
    """Sweeps and reports construct a ScoreOracle's weights from its scores: they must be the same."""
    oracle, rows = context.make(), np.arange(len(context.decisions)) if context.path_dependent else context.sample
    if not isinstance(oracle, ScoreOracle):
        raise CheckSkipped("it has no scores")
    scores = scores_of(oracle, context.known, context.decisions[rows])
    largest = max(
        max_difference(context, rows, f"from {method} of its scores", _constructed, oracle, scores, many)
        for method, many in (("construct", False), ("construct_many", True))
    )
    return f"{len(rows)} rows, {_size(largest)}"


def check_repeat(context: AuditContext) -> str:
    """New instances under other states of the global random generators, one used twice, then on less data."""
    rows, largest = context.sample, 0.0
    for seed, calls in ((1, ("first", "second")), (2, ("first",))):
        with _seeded(seed):
            oracle = context.make()
            for call in calls:
                when = f"from a new instance at its {call} call"
                largest = max(
                    largest, max_difference(context, rows, when, context.weights_by, oracle, context.panel, rows)
                )
    past = context.window(len(context.decisions) // 2)
    instant = context.decisions[past.stop - 1]
    known = context.known.until(instant)
    expected = unperturbed(context, past, context.matrix, known, past)
    when = f"from an instance that was first used on all data, then on those up to {show(instant)}"
    max_difference(context, past, when, context.weights_by, oracle, known, past, expected=expected)
    return f"2 new instances, 3 calls under other random states, {_size(largest)}; then on less data"


def check_process(context: AuditContext) -> str:
    """What differs in a new process alone: memory of modules, files, the order of sets, the clock."""
    if context.no_process:
        raise CheckSkipped(context.no_process)
    count = len(context.live.weights)
    if context.kept is not None:
        raise context.kept
    return f"{count} instants in a new process, oldest first, with another hash seed and the clock of then"


def check_published(context: AuditContext) -> str:
    """Data of its own: the oracle as of each cut against the oracle that has all of them."""
    oracle, live = context.make(), _live_or_none(context)
    watched = None if live is None else live.reads
    constant = {os.path.realpath(file) for file in oracle.constant_files()}
    said = f", {join_first(sorted(constant), 3)} taken for constant" if constant else ""
    opened = [str(file) for file in data_files(oracle)] if watched is None else watched
    reads = tuple(name for name in opened if os.path.realpath(name) not in constant)
    if unexplained := _unexplained(oracle, reads):
        raise OracleError(
            f"it reads {join_first(unexplained, 3)} and has no method as_of(instant), so it is not known which rows "
            "were published by then; write one that returns the oracle with only those rows, and files() that names "
            "the file where it is a part of another oracle (engine.lookahead.audit describes it), or make constants "
            "its parameters"
        )
    if not _parts_with_as_of(oracle):
        if watched is None:
            raise CheckSkipped("no method as_of, and the files that it reads were not watched")
        return f"it opens no file but its code, and no connection{said}"
    reuse = oracle if _leaves_itself(oracle, context.decisions[0]) else None

    def weights_then(instant: pd.Timestamp, panel: Panel, rows: slice) -> np.ndarray:
        then = context.make() if reuse is None else reuse
        return context.weights_as_of(then, instant, panel, rows)

    largest = compare_cuts(context, "published", "with the rows published by {} alone", weights_then, context.instants)
    if reads and len(context.decisions) > 1 and _keeps_every_row(context):
        raise OracleError(
            f"it reads {join_first(reads, 3)}, and as_of({show(context.decisions[0])}) still gives the weights of "
            "every later decision: it takes no row away"
        )
    return f"as_of at {len(context.instants)} instants, {_size(largest)}{said}"


# Computing weights ----------------------------------------------------------------------------------------------------


def _weights_alone(context: AuditContext, oracle: Oracle, known: Panel, rows: slice) -> np.ndarray:
    """Weights of one decision, (1, N), as a live run calls for them."""
    if context.path_dependent:
        return context.weights_by(oracle, known, rows)
    return weights_at(oracle, context.decisions[rows][0], known)


def _as_scheduled(context: AuditContext, count: int) -> bool:
    """Whether the first decisions are those that ``fetch_portfolio_weights`` takes, which knows of no schedule."""
    decisions = context.decisions[:count]
    return not context.path_dependent or decisions.equals(
        decision_instants(context.known.until(decisions[-1]).index, decisions[-1].hour)
    )


def _without_newcomers(context: AuditContext, panel: Panel, rows: slice) -> np.ndarray:
    return context.matrix(panel, rows)[:, 1:-1]


def _zero_unlisted(weights: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """The weights, 0 in coins that are not listed; NaN (hold) is no position and stays."""
    return np.where(listed | np.isnan(weights), weights, 0.0)


def _constructed(oracle: ScoreOracle, scores: np.ndarray, many: bool) -> np.ndarray:
    with oracle_errors("construct failed"):
        if many:
            return type(oracle).construct_many([oracle], scores).to_dense(*scores.shape)[0]
        return oracle.construct(scores)


def _live_or_none(context: AuditContext) -> ProcessResult | None:
    """What a new process gave; None where there can be none, or it died, which :func:`check_process` tells."""
    try:
        return None if context.no_process else context.live
    except OracleError:
        return None


def _compare_live(context: AuditContext, live: ProcessResult, number: int, rows: slice, when: str) -> float:
    """Largest difference in a new process; one that is not there in this process too is kept in ``context.kept``."""
    instant = context.decisions[rows][0]

    def weights_live() -> np.ndarray:
        if number in live.errors:
            raise OracleError(live.errors[number])
        return live.weights[number : number + 1]

    when_new = f"in a new process whose clock is set to {show(instant)}, on data up to then alone"
    try:
        return max_difference(context, rows, when_new, weights_live)
    except WeightChanged as change:
        if context.kept is None:
            known = context.known.until(instant)
            max_difference(context, rows, when, _weights_alone, context, context.make(), known, rows)
            context.kept = change
        return 0.0


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
        every = slice(0, len(context.decisions))
        weights = context.weights_as_of(oracle, context.decisions[0], context.panel, every)
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
