"""The questions of the audit (:mod:`engine.lookahead.audit`): each disturbs the data and looks if a weight moves."""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from engine.clock import show
from engine.config import RunConfig
from engine.errors import HlbtError, OracleError, WeightsError, join_first
from engine.lookahead.perturbations import changed_after, changed_at, with_coins, with_newcomers
from engine.lookahead.subprocess_run import ProcessResult, declared_files, run_in_subprocess
from engine.oracles.base import Oracle, ScoreOracle, call_fetch_weights, matrix_of_instants, weight_matrix
from engine.panel import Panel
from engine.simulation.overlays import describe_overlays, traded_weights
from engine.weights import check_gross, validate_weights

#: Largest difference of a weight that is rounding and no leak.
ROUNDING = 1e-10
#: Instants at most of the disturbances that each ask for the whole matrix.
DISTURBANCES = 8


@dataclass(frozen=True)
class Difference:
    """The first weight that moved.

    Attributes
    ----------
    instant : str
        Decision of the weight, ISO 8601.
    coin : str
    weight : float
        On the data as they are; NaN = hold.
    other : float
        On the disturbed data.
    """

    instant: str
    coin: str
    weight: float
    other: float


def spread(count: int, wanted: int, least: int = 0) -> np.ndarray:
    """Places from `least` to ``count - 1``, first and last among them, ascending; `wanted` of them or all there are."""
    return np.unique(np.linspace(least, count - 1, min(count - least, max(wanted, 2))).astype(np.int64))


@dataclass(frozen=True)
class AuditContext:
    """An oracle under audit: how to build it, what it may read, and what it answered to all of it."""

    make: Callable[[], Oracle]
    panel: Panel
    known: Panel
    decisions: pd.DatetimeIndex
    full: np.ndarray
    cuts: np.ndarray
    instants: np.ndarray
    config: RunConfig
    say: Callable[[str], object]

    @property
    def rows(self) -> np.ndarray:
        """Panel row of every decision."""
        return self.panel.rows(self.decisions)

    def spread(self, least: int = 0) -> np.ndarray:
        """Places of a few decisions over the span, from place `least` on."""
        count = len(self.decisions)
        if count <= least:
            return np.zeros(0, dtype=np.int64)
        return spread(count, min(DISTURBANCES, len(self.cuts)), least)


@dataclass(frozen=True)
class CheckResult:
    """What a question found; `value` is said after the title of its check."""

    value: str
    passed: bool = True
    difference: Difference | None = None
    skipped: bool = False


class WeightChanged(Exception):
    """A weight that moved, or an oracle that refused what it had answered before."""

    def __init__(self, answer: CheckResult) -> None:
        super().__init__(answer.value)
        self.answer = answer


def check_valid(subject: AuditContext) -> CheckResult:
    """Finite or NaN, known coins (both seen to before), gross as it would be traded; sums for the eye."""
    limit = subject.config.account.max_gross
    traded = traded_weights(subject.full, subject.decisions, subject.panel, subject.config)
    try:
        check_gross(traded, subject.decisions, limit, describe_overlays(subject.config))
    except WeightsError as error:
        return CheckResult(str(error).rstrip("."), False)
    gross, net = np.nansum(np.abs(traded), axis=1), np.nansum(traded, axis=1)
    stuck = int(((np.nan_to_num(subject.full) != 0.0) & ~subject.panel.tradable[subject.rows]).any(axis=1).sum())
    held = f", {np.isnan(subject.full).mean():.0%} held" if np.isnan(subject.full).any() else ""
    untradable = f"; {stuck} rows weigh an untradable coin" if stuck else ""
    return CheckResult(
        f"{len(traded)} rows, gross {gross.min():.3g} to {gross.max():.3g} of {limit:g}, net {_net(net.min())} to "
        f"{_net(net.max())}{held}{untradable}"
    )


def check_cut(subject: AuditContext) -> CheckResult:
    """A fresh instance on the data up to an instant alone, all its decisions so far; the first thing a leak fails."""
    largest, compared = 0.0, 0
    for number, place in enumerate(subject.cuts):
        subject.say(f"cut {number + 1} of {len(subject.cuts)}")
        instant = subject.decisions[place]
        known = subject.known.until(instant)
        when = f"on the data up to {show(instant)} alone"
        largest = max(largest, _same(subject, slice(0, place + 1), when, _matrix, subject, known, place + 1))
        compared += (place + 1) * len(subject.panel.coins)
    return CheckResult(f"{len(subject.cuts)} cuts, {compared:,} weights, {_apart(largest)}")


def check_future(subject: AuditContext) -> CheckResult:
    """All that comes after an instant changed: prices, funding, volume, tradability, holes; as long as before."""
    largest, places = 0.0, subject.spread()
    for seed, place in enumerate(places):
        other = changed_after(subject.panel, int(subject.rows[place]), np.random.default_rng(seed))
        when = f"when what comes after {show(subject.decisions[place])} is changed"
        largest = max(largest, _same(subject, slice(0, place + 1), when, _matrix, subject, other, None))
    return CheckResult(f"changed after {len(places)} instants, {_apart(largest)}")


def check_last_row(subject: AuditContext) -> CheckResult:
    """The data end at a decision, and that row alone is changed: its own weights may move, no earlier one."""
    places, moved = subject.spread(least=1), 0
    for seed, place in enumerate(places):
        instant = subject.decisions[place]
        until = subject.panel.until(instant)
        other = changed_at(until, len(until.index) - 1, np.random.default_rng(seed))
        when = f"when the row of {show(instant)} alone is changed"
        _same(subject, slice(0, place), when, _matrix, subject, other, place + 1)
        try:
            _same(subject, slice(place, place + 1), when, _last, subject, other, place + 1)
        except WeightChanged:
            moved += 1
    return CheckResult(f"changed at {len(places)} instants: no earlier weight moved, its own row did at {moved}")


def check_funding(subject: AuditContext) -> CheckResult:
    """The rate that is settled at the instant, after the trade, changed: not even its own row may move."""
    if "funding" not in subject.panel.fields:
        return CheckResult("the panel has no funding", skipped=True)
    if subject.panel.as_known:
        return CheckResult("the panel is as known: the rate of the instant is not in it", skipped=True)
    places = subject.spread()
    for seed, place in enumerate(places):
        other = changed_at(subject.panel, int(subject.rows[place]), np.random.default_rng(seed), ("funding",))
        when = f"when the funding settled at {show(subject.decisions[place])}, after the trade, is changed"
        _same(subject, slice(0, place + 1), when, _matrix, subject, other, None)
        before = _reference(subject, place + 1, _one, subject, subject.make(), subject.panel, place)
        _same(subject, slice(place, place + 1), when, _one, subject, subject.make(), other, place, expected=before)
    return CheckResult(f"changed at {len(places)} instants, asked for as matrix and as one row")


def check_coins(subject: AuditContext) -> CheckResult:
    """Coins that list after an instant put in, and those of the panel left out: nobody knew of them."""
    largest, left_out, places = 0.0, 0, subject.spread()
    for seed, place in enumerate(places):
        instant, row = show(subject.decisions[place]), int(subject.rows[place])
        past = slice(0, place + 1)
        wide = with_newcomers(subject.panel, row, np.random.default_rng(seed))
        when = f"when two coins are added that list after {instant}"
        largest = max(largest, _same(subject, past, when, _inner, subject, wide, None))
        here = (~np.isnan(subject.panel.values("mid")[: row + 1])).any(axis=0)
        if here.all() or not here.any():
            continue
        left_out += int((~here).sum())
        when = f"is all it can be: the coin has no price up to {instant}"
        _same(subject, past, when, _without, subject.full[past], here)
        narrow = with_coins(subject.panel, here)
        when = f"without the coins that list after {instant}"
        largest = max(largest, _same(subject, past, when, _matrix, subject, narrow, None, kept=here))
    without = f", {left_out / len(places):.0f} later ones left out on average" if left_out else ""
    return CheckResult(f"{len(places)} instants, two coins added{without}, {_apart(largest)}")


def check_instant(subject: AuditContext) -> CheckResult:
    """``fetch_portfolio_weights`` of one instance, oldest instant first, as a live run asks: its memory shows."""
    oracle, largest, count = subject.make(), 0.0, len(subject.decisions)
    kind = type(oracle)
    own = kind.fetch_portfolio_weights is not Oracle.fetch_portfolio_weights
    both = own and kind.weight_matrix is not matrix_of_instants
    for number, place in enumerate(subject.instants):
        subject.say(f"instant {number + 1} of {len(subject.instants)}")
        instant = subject.decisions[place]
        when = f"from fetch_portfolio_weights for {show(instant)} alone"
        # A method beside the matrix gets the panel itself, too, and must cut it; the base class's is known to.
        for panel in [subject.panel, subject.known.until(instant)] if both else [subject.known.until(instant)]:
            largest = max(largest, _same(subject, slice(place, place + 1), when, _one, subject, oracle, panel, place))
    return CheckResult(f"{len(subject.instants)} of {count} instants, {_apart(largest)}")


def check_repeat(subject: AuditContext) -> CheckResult:
    """Fresh instances under other states of the global random generators; one used again, and again on less data."""
    everything = slice(0, len(subject.decisions))
    for seed in (1, 2):
        with _seeded(seed):
            oracle = subject.make()
            for call in ("first", "second"):
                when = f"from a fresh instance at its {call} call"
                _same(subject, everything, when, weights_of, oracle, subject.panel, subject.decisions, exact=True)
    middle = len(subject.decisions) // 2
    instant, asked = subject.decisions[middle], subject.decisions[: middle + 1]
    when = f"from an instance that has seen all data and is then asked up to {show(instant)}"
    known = subject.known.until(instant)
    fresh = _reference(subject, middle + 1, _matrix, subject, known, middle + 1)
    _same(subject, slice(0, middle + 1), when, weights_of, oracle, known, asked, expected=fresh)
    return CheckResult("2 fresh instances, 2 calls each under other random states, bit for bit; then on less data")


def check_score(subject: AuditContext) -> CheckResult:
    """Sweeps and reports ask a ScoreOracle for its scores and construct by themselves: it must be the same book."""
    oracle = subject.make()
    if not isinstance(oracle, ScoreOracle):
        return CheckResult("it has no scores", skipped=True)
    largest, every = 0.0, slice(0, len(subject.decisions))
    for method, together in (("construct", False), ("construct_many", True)):
        largest = max(
            largest, _same(subject, every, f"from {method} of its scores", _constructed, oracle, subject, together)
        )
    return CheckResult(f"{len(subject.decisions)} rows, {_apart(largest)}")


def check_process(
    subject: AuditContext, path: str | None, parameters: Mapping[str, Any], reads: list[tuple[str, ...]]
) -> CheckResult:
    """Half of the data, some of it changed, in a new process: what a module keeps, the order of sets, the clock show.

    Changed, so that answers kept for the data as they are, under a name too short for what decides them, show as well.
    Appends to `reads`.
    """
    if path is None:
        return CheckResult("the oracle was not given as a path", skipped=True)
    try:
        pickle.dumps(dict(parameters))
    except Exception as error:
        return CheckResult(f"the parameters cannot be handed to another process: {error}", skipped=True)
    middle = (len(subject.decisions) - 1) // 2
    instant, asked = subject.decisions[middle], subject.decisions[: middle + 1]
    changed = changed_after(subject.panel, int(subject.rows[middle // 2]), np.random.default_rng(middle))
    known = replace(changed, table=subject.panel.table).known().until(instant)
    told = run_in_subprocess(path, parameters, known, asked)
    reads.append(told.reads)
    when = f"in a new process whose clock stands at {show(instant)}, on data up to then alone, half of them changed"
    here = _reference(subject, middle + 1, _matrix, subject, known, middle + 1)
    largest = _same(subject, slice(0, middle + 1), when, _told, told, expected=here)
    return CheckResult(
        f"{middle + 1} rows in a new process with another hash seed and the clock of then, {_apart(largest)}"
    )


def check_published(subject: AuditContext, reads: tuple[str, ...] | None) -> CheckResult:
    """Rows of its own: the oracle as of each cut against the oracle that has them all; `reads` None = not watched."""
    oracle = subject.make()
    reads = tuple(str(file) for file in declared_files(oracle)) or None if reads is None else reads
    if uncut := _uncut(oracle, reads or ()):
        return CheckResult(
            f"it reads {join_first(uncut, 3)} and has no method until(instant), so nobody can tell which rows were "
            "published by then; write one that returns the oracle with those rows alone, with files() that names the "
            "file where it is a part of another oracle (engine.lookahead.audit describes it), or put constants into "
            "its parameters",
            False,
        )
    if not _cutting(oracle):
        if reads is None:
            return CheckResult("no method until, and what it reads was not watched", skipped=True)
        return CheckResult("it opens no file but its code, and no connection")
    alters, largest = _alters_itself(oracle, subject.decisions[0]), 0.0
    for number, place in enumerate(subject.cuts):
        subject.say(f"published {number + 1} of {len(subject.cuts)}")
        instant = subject.decisions[place]
        whole = subject.make() if alters else oracle
        known = subject.known.until(instant)
        when = f"with the rows published by {show(instant)} alone"
        asked = subject.decisions[: place + 1]
        largest = max(largest, _same(subject, slice(0, place + 1), when, _until, whole, instant, known, asked))
    if reads and len(subject.decisions) > 1 and _takes_nothing_away(subject):
        return CheckResult(
            f"it reads {join_first(reads, 3)}, and until({show(subject.decisions[0])}) still gives the weights of "
            "every later decision: it takes no row away",
            False,
        )
    return CheckResult(f"until at {len(subject.cuts)} instants, {_apart(largest)}")


# How it is asked ------------------------------------------------------------------------------------------------------


def _same(
    subject: AuditContext,
    places: slice,
    when: str,
    ask: Callable[..., np.ndarray],
    *arguments: Any,
    expected: np.ndarray | None = None,
    kept: np.ndarray | None = None,
    exact: bool = False,
) -> float:
    """Largest difference between the weights at `places` and as many first rows of ``ask(*arguments)``.

    Parameters
    ----------
    when : str
        What was done to the data, as the end of a sentence.
    expected : ndarray, optional
        Default: the weights on the data as they are.
    kept : ndarray, (N,) bool, optional
        Columns of the panel that the answer has.
    exact : bool
        Bit for bit; else up to :data:`ROUNDING`.

    Raises
    ------
    Moved
        When a weight differs, or the oracle raises although it has weights there.
    """
    kept = np.ones(len(subject.panel.coins), dtype=np.bool_) if kept is None else kept
    expected = (subject.full[places] if expected is None else expected)[:, kept]
    try:
        got = ask(*arguments)[: len(expected)]
    except HlbtError as error:
        # Refusing where there is no weight either is a warm-up, not a leak.
        if not np.nan_to_num(expected).any():
            return 0.0
        raise WeightChanged(CheckResult(f"{when} it fails: {str(error).rstrip('.')}", False)) from error
    apart = np.abs(got - expected)
    wrong = ~((np.isnan(got) & np.isnan(expected)) | (apart <= (0.0 if exact else ROUNDING)))
    if wrong.any():
        row, column = (int(place[0]) for place in np.nonzero(wrong))
        instant, coin = subject.decisions[places][row], np.array(subject.panel.coins)[kept][column]
        weight, other = float(expected[row, column]), float(got[row, column])
        raise WeightChanged(
            CheckResult(
                f"the weight of {coin} at {show(instant)} is {weight:.10g}, but {other:.10g} {when}",
                False,
                Difference(instant.isoformat(), str(coin), weight, other),
            )
        )
    return float(np.max(apart, initial=0.0, where=~np.isnan(apart)))


def _reference(subject: AuditContext, stop: int, ask: Callable[..., np.ndarray], *arguments: Any) -> np.ndarray:
    """What the oracle says without the disturbance, so that a leak is told where it is; the matrix if it refuses."""
    try:
        return ask(*arguments)
    except HlbtError:
        return subject.full[:stop] if ask is _matrix else subject.full[stop - 1 : stop]


def weights_of(oracle: Oracle, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
    """An oracle's weights in the panel's shape, (D, N)."""
    return validate_weights(weight_matrix(oracle, panel, decisions), panel)[1]


def _matrix(subject: AuditContext, panel: Panel, count: int | None) -> np.ndarray:
    return weights_of(subject.make(), panel, subject.decisions[:count])


def _last(subject: AuditContext, panel: Panel, count: int) -> np.ndarray:
    return _matrix(subject, panel, count)[-1:]


def _inner(subject: AuditContext, panel: Panel, count: int | None) -> np.ndarray:
    return _matrix(subject, panel, count)[:, 1:-1]


def _without(weights: np.ndarray, here: np.ndarray) -> np.ndarray:
    """The weights with none in the other coins; NaN there says nothing and stays."""
    return np.where(here | np.isnan(weights), weights, 0.0)


def _constructed(oracle: ScoreOracle, subject: AuditContext, together: bool) -> np.ndarray:
    try:
        scores = oracle.scores(subject.known, subject.decisions)
        if together:
            return type(oracle).construct_many([oracle], scores).to_dense(*scores.shape)[0]
        return oracle.construct(scores)
    except HlbtError:
        raise
    except Exception as error:
        raise OracleError(f"scores or construct failed: {type(error).__name__}: {error}.") from error


def _told(told: ProcessResult) -> np.ndarray:
    if told.weights is None:
        raise OracleError(told.refusal)
    return told.weights


def _until(oracle: Oracle, instant: pd.Timestamp, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
    try:
        then = oracle.until(instant)
    except HlbtError:
        raise
    except Exception as error:
        raise OracleError(f"until({show(instant)}) failed: {type(error).__name__}: {error}.") from error
    return weights_of(then, panel, decisions)


def _uncut(oracle: Oracle, reads: tuple[str, ...]) -> list[str]:
    """What is read and cut off by no method ``until``: the base class's cuts parts, which say what they read."""
    if type(oracle).until is not Oracle.until:
        return []
    vouched = {os.path.realpath(file) for part in _cutting(oracle) for file in declared_files(part)}
    return [name for name in reads if not any(file == name or file.startswith(name + os.sep) for file in vouched)]


def _cutting(oracle: Oracle) -> list[Oracle]:
    """The outermost parts of an oracle with a method ``until`` of their own."""
    if type(oracle).until is not Oracle.until:
        return [oracle]
    return [found for part in oracle.parts() for found in _cutting(part)]


def _alters_itself(oracle: Oracle, instant: pd.Timestamp) -> bool:
    """Whether ``until`` changes the instance and returns it: then it cannot be asked twice."""
    try:
        return id(oracle.until(instant)) == id(oracle)
    except Exception:  # the same question is asked again, where its answer is a check's
        return True


def _takes_nothing_away(subject: AuditContext) -> bool:
    oracle = subject.make()
    try:
        got = _until(oracle, subject.decisions[0], subject.panel, subject.decisions)
    except HlbtError:
        return False
    return np.array_equal(got, subject.full, equal_nan=True)


def _one(subject: AuditContext, oracle: Oracle, panel: Panel, place: int) -> np.ndarray:
    """Weights of one instant, (1, N), as a live run asks for them."""
    tradable = panel.tradable[int(subject.rows[place])]
    universe = [coin for coin, trades in zip(panel.coins, tradable, strict=True) if trades]
    try:
        row = call_fetch_weights(oracle, subject.decisions[place], universe, panel)
        weights = np.array([[float(row.pop(coin, 0.0)) for coin in panel.coins]])
    except HlbtError:
        raise
    except Exception as error:
        raise OracleError(f"fetch_portfolio_weights failed: {type(error).__name__}: {error}.") from error
    if row:
        raise OracleError(f"fetch_portfolio_weights names coins that the panel lacks: {join_first(row)}.")
    return weights


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Another state of the global random generators, theirs again afterwards."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002 - it is the state that leaks
    try:
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


def _apart(largest: float) -> str:
    return "bit for bit" if largest == 0.0 else f"largest difference {largest:.1g}: rounding"


def _net(value: float) -> str:
    """What rounds to zero is zero: a neutral book's sum is a few last bits."""
    return f"{round(float(value), 9) + 0.0:.2g}"
