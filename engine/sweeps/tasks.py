"""A task of a sweep and the pure function that runs it on a panel, in whatever process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from engine.config import RunConfig
from engine.errors import HlbtError
from engine.oracles.base import Oracle, ScoreOracle, shares_scores, weight_matrix
from engine.oracles.loading import build_oracle
from engine.oracles.sharing import sharing
from engine.panel import Panel
from engine.simulation import metrics
from engine.simulation.backtest import decisions_of
from engine.simulation.batch import Prepared, prepare, run_books
from engine.sweeps.result_files import ResultFiles, table_of, with_parameters
from engine.sweeps.trials import state_of
from engine.weights import SparseWeights, validate_weights

if TYPE_CHECKING:
    from engine.simulation.kernel import Intervals

Kept = TypeVar("Kept")
#: Bytes of scores, of weights and of cut panels that a worker keeps for later tasks.
KEPT_SCORES, KEPT_WEIGHTS, KEPT_CUTS = 128 << 20, 160 << 20, 192 << 20


class LRUCache:
    """The results used last, up to a number of bytes; safe to use from several threads."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._making: dict[Hashable, Lock] = {}
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Kept], size: Callable[[Kept], int]) -> Kept:
        """What was kept under `key`, else what `make` gives, which is kept; two threads that ask make it once."""
        with self._lock:
            making = self._making.setdefault(key, Lock())
        with making:
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key][0]
            made = make()
            with self._lock:
                self._kept[key] = (made, size(made))
                self.size += self._kept[key][1]
                while self.size > self.limit and len(self._kept) > 1:
                    oldest, (_, freed) = self._kept.popitem(last=False)
                    self.size -= freed
                    self._making.pop(oldest, None)
        return made


@dataclass(frozen=True, eq=False)
class Workspace:
    """A panel, the panel as known, and what tasks on it can share."""

    panel: Panel
    known: Panel = field(init=False)
    scores: LRUCache = field(default_factory=lambda: LRUCache(KEPT_SCORES))
    weights: LRUCache = field(default_factory=lambda: LRUCache(KEPT_WEIGHTS))
    cuts: LRUCache = field(default_factory=lambda: LRUCache(KEPT_CUTS))
    #: Whether sets that differ in a parameter have the same scores, by class and parameter.
    alike: LRUCache = field(default_factory=lambda: LRUCache(1))

    def __post_init__(self) -> None:
        object.__setattr__(self, "known", self.panel.point_in_time())


@dataclass(frozen=True)
class Task:
    """Sets that share an oracle and a config.

    Attributes
    ----------
    number : int
        Number of the task in its sweep.
    kind : type
        The oracle's class.
    config : mapping
        :meth:`engine.RunConfig.to_dict` of the sets' config.
    parameters : sequence of mapping
        Constructor arguments of each set, (S,).
    rows : ndarray, (S,) int64
        Row of each set in the study.
    returns : bool
        Whether daily returns are wanted.
    keys : ndarray, (S,) int64, or None
        Key of each set's result; None where nothing is kept.
    files : ResultFiles or None
        Where whoever runs the task writes what it leaves; then the outcome has the Sharpe ratios alone.
    group : hashable
        Tasks of one class and group have the same parameters, so their books are made once; None: it has no other.
    """

    number: int
    kind: type[Oracle]
    config: Mapping[str, Any]
    parameters: Sequence[Mapping[str, Any]]
    rows: np.ndarray
    returns: bool
    keys: np.ndarray | None = None
    files: ResultFiles | None = None
    group: Hashable = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a task left, a row a set.

    Attributes
    ----------
    table : DataFrame, (S, metrics)
        NaN for a set that failed.
    errors : list of str
        Why a set failed, else an empty string.
    returns : ndarray, (S, days) or None
    days : DatetimeIndex, (days,) or None
        Instants at which the returns end; None when every set failed.
    written : bool
        Whether the whole of it lies in ``task.files``.
    """

    task: Task
    table: pd.DataFrame
    errors: list[str]
    returns: np.ndarray | None
    days: pd.DatetimeIndex | None
    written: bool = False


def run_task(space: Workspace, task: Task) -> Outcome:
    """Weights and metrics of every set of a task; a set that raises is recorded and the others are run.

    Raises
    ------
    DataError
        When ``task.files`` cannot be written.
    """
    outcome = _run(space, task)
    if task.files is None or task.keys is None:
        return outcome
    table = table_of(task.keys, outcome.errors, outcome.table, outcome.returns, outcome.days)
    task.files.write(with_parameters(table, task.parameters, task.config))
    # The driver of a large sweep keeps nothing else of a set; and the task's own parameters need not travel back.
    kept = outcome.table.filter(items=["sharpe"])
    return Outcome(replace(task, parameters=()), kept, outcome.errors, None, None, written=True)


def _run(space: Workspace, task: Task) -> Outcome:
    errors = [""] * len(task.parameters)
    try:
        prepared, rows, books = books_of(space, task, errors)
    except HlbtError as error:
        return Outcome(task, pd.DataFrame(index=range(len(errors))), [str(error)] * len(errors), None, None)
    table, daily = _simulated(prepared, books, rows, errors)
    full = table.set_axis(rows).reindex(range(len(errors)))
    returns = None
    if task.returns:
        returns = np.full((len(errors), len(prepared.days)), np.nan)
        returns[rows] = metrics.daily_returns(daily)
        returns = metrics.counted(returns, full["days"] if "days" in full else np.nan)
    return Outcome(task, full, errors, returns, prepared.days)


def books_of(space: Workspace, task: Task, errors: list[str]) -> tuple[Prepared, list[int], SparseWeights]:
    """What a task is run on: the panel prepared, the sets that have weights, and these; why others have none: `errors`.

    Raises
    ------
    HlbtError
        For a config that is not accepted, or with which no decision of the panel can be traded.
    """
    config = RunConfig.from_dict(task.config)
    decisions = decisions_of(space.panel, config)
    prepared = prepare(space.panel, decisions, config, lambda key, make: space.cuts.get(key, make, _bytes))

    def make() -> tuple[list[int], SparseWeights, list[str]]:
        own = [""] * len(task.parameters)
        with sharing(space.known, lambda key, make: space.scores.get(key, make, _held)):
            return *_books(space, task, decisions, own), own

    key = (task.kind, task.group, decisions.asi8.tobytes())
    rows, books, why = make() if task.group is None else space.weights.get(key, make, lambda made: _size(made[1]))
    errors[:] = why
    return prepared, rows, books


def _held(made: object) -> int:
    return int(made.to_numpy().nbytes if isinstance(made, pd.DataFrame) else getattr(made, "nbytes", 0))


def _bytes(cut: Intervals) -> int:
    return sum(part.nbytes for part in cut if isinstance(part, np.ndarray))


def _books(
    space: Workspace, task: Task, decisions: pd.DatetimeIndex, errors: list[str]
) -> tuple[list[int], SparseWeights]:
    """Weights of the sets that have some, and which sets these are; why the others have none goes to `errors`."""
    parts: list[SparseWeights] = []
    rows: list[int] = []
    groups: dict[Hashable, list[tuple[int, Oracle]]] = {}
    for row, parameters in enumerate(task.parameters):
        try:
            oracle = build_oracle(task.kind, parameters)
        except HlbtError as error:
            errors[row] = str(error)
            continue
        groups.setdefault(_score_key(task.kind, parameters), []).append((row, oracle))
    schedule = decisions.asi8.tobytes()
    for key, members in groups.items():
        alone, group = not shares_scores(task.kind), (task.kind, key, schedule)
        if not alone:
            try:
                if undeclared := _undeclared(space, task, members, decisions, group):
                    for row, _ in members:
                        errors[row] = undeclared
                else:
                    parts.append(_together(space, members, decisions, group))
                    rows += [row for row, _ in members]
            except (Exception, SystemExit):
                alone = True  # so that an error is of the set that raises it
        for row, oracle in members if alone else ():
            own = (task.kind, state_of(task.parameters[row]), schedule)
            try:
                parts.append(space.weights.get(own, partial(_book, oracle, space.known, decisions), _size))
                rows.append(row)
            except HlbtError as error:
                errors[row] = str(error)
    if not parts:
        return rows, SparseWeights(np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.uint32), np.empty(0))
    return rows, SparseWeights.joined(parts)


def _undeclared(
    space: Workspace, task: Task, members: list[tuple[int, Oracle]], decisions: pd.DatetimeIndex, key: Hashable
) -> str:
    """Why these sets cannot share their scores, if they cannot: a parameter decides them that is declared not to.

    Each parameter is tried once, on the first two sets that differ in it; else a subclass that forgets to name one
    would give every set the numbers of the first.
    """
    own = task.parameters[members[0][0]]
    apart = [
        (oracle, [name for name, value in task.parameters[row].items() if value != own.get(name)])
        for row, oracle in members[1:]
    ]
    for oracle, names in sorted(apart, key=lambda item: len(item[1])):
        for name in names:
            if not space.alike.get(
                (task.kind, name), partial(_alike, space, members[0][1], oracle, decisions, key), _no
            ):
                return (
                    f"{task.kind.__name__}.scores gives other scores for another {' or '.join(names)}, which "
                    "score_parameters does not name, so a sweep would share them. Add it there."
                )
    return ""


def _alike(space: Workspace, first: Oracle, other: Oracle, decisions: pd.DatetimeIndex, key: Hashable) -> bool:
    """Whether two oracles have the same scores."""
    assert isinstance(other, ScoreOracle)
    return np.array_equal(_scores(space, first, decisions, key), other.scores(space.known, decisions), equal_nan=True)


def _no(_: object) -> int:
    return 0


def _scores(space: Workspace, oracle: Oracle, decisions: pd.DatetimeIndex, key: Hashable) -> np.ndarray:
    assert isinstance(oracle, ScoreOracle)
    return space.scores.get(key, lambda: oracle.scores(space.known, decisions), lambda made: made.nbytes)


def _together(
    space: Workspace, members: list[tuple[int, Oracle]], decisions: pd.DatetimeIndex, key: Hashable
) -> SparseWeights:
    """A book each of oracles that share their scores, which are computed once."""
    oracles = [oracle for _, oracle in members if isinstance(oracle, ScoreOracle)]
    return type(oracles[0]).construct_many(oracles, _scores(space, oracles[0], decisions, key))


def _size(books: SparseWeights) -> int:
    return books.coins.nbytes + books.weights.nbytes + books.indptr.nbytes


def _book(oracle: Oracle, panel: Panel, decisions: pd.DatetimeIndex) -> SparseWeights:
    _, values = validate_weights(weight_matrix(oracle, panel, decisions), panel)
    return SparseWeights.from_dense(values[None])


def _score_key(kind: type[Oracle], parameters: Mapping[str, Any]) -> str:
    """What decides the score; all parameters, for an oracle that has none."""
    scored = kind.score_parameters if shares_scores(kind) else None
    named = {name: value for name, value in parameters.items() if scored is None or name.partition(".")[0] in scored}
    return state_of(named)


def _simulated(
    prepared: Prepared, books: SparseWeights, rows: list[int], errors: list[str]
) -> tuple[pd.DataFrame, np.ndarray]:
    """Table and daily equity of the books; where some cannot be traded, of the others."""
    with ThreadPoolExecutor(1) as pool:
        done = _halves(prepared, books, rows, errors, pool, 0, len(rows))
    return pd.concat([table for table, _ in done], ignore_index=True), np.concatenate([daily for _, daily in done])


def _halves(
    prepared: Prepared,
    books: SparseWeights,
    rows: list[int],
    errors: list[str],
    pool: ThreadPoolExecutor,
    first: int,
    last: int,
) -> list[tuple[pd.DataFrame, np.ndarray]]:
    """Books `first` up to `last`; where one cannot be traded, both halves, down to the one that is recorded.

    No closure that calls itself: such a cycle keeps the books until the collector comes by, a gigabyte later.
    """
    nothing = np.full((last - first, len(prepared.days) + 1), np.nan)
    if first == last:
        return [(pd.DataFrame(), nothing)]
    try:
        return [run_books(prepared, books.part(first, last, len(prepared.decisions)), pool, 1, first)]
    except HlbtError as error:
        if last - first > 1:
            middle = (first + last) // 2
            left = _halves(prepared, books, rows, errors, pool, first, middle)
            return left + _halves(prepared, books, rows, errors, pool, middle, last)
        errors[rows[first]] = str(error).replace(f" of book {first}", "")
        return [(pd.DataFrame(index=range(1)), nothing)]
