"""Books without skill, to compare one with: its coins exchanged for others, or its decisions moved in time.

A null keeps what a book costs: turnover, gross and concentration are those of the book, so that only the choice of
coins, or of days, is gone. A share of nulls at or above the book becomes ``p = (1 + #{null >= book}) / (1 + R)``
(Phipson, Smyth 2010), which is never 0.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from engine.clock import HOUR
from engine.config import RunConfig
from engine.errors import DataError
from engine.panel import Panel
from engine.simulation import metrics
from engine.simulation.backtest import check_config
from engine.simulation.batch import Prepared, prepare, run_books
from engine.sweeps.study import Study
from engine.sweeps.tasks import Task, Workspace, books_of
from engine.weights import SparseWeights, validate_weights

REPLICATES, SEARCH_REPLICATES = 1_000, 200
#: A roll in time is by at least so many days, either way round.
LEAST_ROLL_DAYS = 20
#: A permutation makes another book when it moves at least this part of the gross to other coins.
LEAST_MOVED = 0.1
#: Books that are renamed and run at once by one thread, so that their weights stay near the processor.
TILE = 128
PERMUTED, ROLLED = "permuted", "rolled"


@dataclass(frozen=True, eq=False)
class NullBooks:
    """A book among its nulls; Sharpe ratios are annual, from the first decision that asks for something.

    Attributes
    ----------
    sharpe, flipped : float
        Of the book, and of the book with every sign turned.
    permuted : ndarray, (R,)
        Of the book with its coins exchanged for others, once and for all decisions.
    rolled : ndarray, (K,)
        Of the book with its decisions moved in time, every shift of :data:`LEAST_ROLL_DAYS` or more.
    p_permuted, p_rolled : float
        Share at or above the book of the nulls that have a Sharpe ratio, never 0; 1 where there is none.
    moved_frac : float
        Part of the gross that a permutation moves to other coins, on average.
    decides : str
        Which of the two p-values decides: ``permuted``, or ``rolled`` where a permutation makes no other book.
    """

    sharpe: float
    flipped: float
    permuted: np.ndarray
    rolled: np.ndarray
    p_permuted: float
    p_rolled: float
    moved_frac: float
    decides: str

    @property
    def p_value(self) -> float:
        """The one that decides."""
        return self.p_permuted if self.decides == PERMUTED else self.p_rolled


@dataclass(frozen=True, eq=False)
class NullSearch:
    """The best set of a sweep among the best sets of sweeps over exchanged coins.

    Attributes
    ----------
    sharpe : float
        Annual, of the best set, on the days of :attr:`engine.sweeps.study.Study.joint`.
    best : ndarray, (R,)
        That of the best set of every replicate; not finite where no set of it has one.
    p_value : float
        Share, of the replicates whose best is finite, of those whose best is at or above; never 0.
    """

    sharpe: float
    best: np.ndarray
    p_value: float


def null_books(
    panel: Panel,
    weights: pd.DataFrame,
    config: RunConfig | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    roll_step: int = 1,
) -> NullBooks:
    """Compare a book with itself under exchanged coins and moved decisions.

    Parameters
    ----------
    panel : Panel
        T hours x N coins.
    weights : DataFrame, (D, coins)
        As for :func:`engine.backtest`.
    config : RunConfig, optional
        Default: all defaults of the contract.
    replicates, seed : int
        Number of permutations, and what they are drawn with; the same seed gives the same ones.
    roll_step : int
        One of so many moves in time is taken; 1 takes all.

    Raises
    ------
    DataError
        For a book that has no Sharpe ratio, as one that never trades.
    """
    config = check_config(config)
    decisions, values = validate_weights(weights, panel)
    own = SparseWeights.from_dense(values[None])
    first = int((np.nan_to_num(values) != 0.0).any(axis=1).argmax())  # 0 where nothing is asked for
    listed = panel.tradable[panel.rows(decisions)]
    orders = _orders(replicates, len(panel.coins), seed)
    moved = _moved(values, renamed(own, orders[:20], listed))
    shifts = _shifts(decisions, first, roll_step)
    made = [
        lambda: SparseWeights.joined([own, SparseWeights(own.indptr, own.coins, -own.weights)]),
        *(partial(renamed, own, orders[part], listed) for part in _tiles(replicates)),
        *(partial(_rolled, values, listed, first, shifts[part]) for part in _tiles(len(shifts))),
    ]
    # A null holds coins of another leverage; what decides is what it earns, not whether the exchange would take it.
    prepared = prepare(panel, decisions, replace(config, account=replace(config.account, initial_margin=False)))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        sharpe = np.concatenate(list(pool.map(lambda books: _run(prepared, books())[0]["sharpe"], made)))
    if not np.isfinite(sharpe[0]):
        raise DataError("The book has no Sharpe ratio, so there is nothing to compare nulls with.")
    permuted, rolled = np.split(sharpe[2:], [replicates])
    chooses = moved >= LEAST_MOVED and (np.nan_to_num(values) != 0.0).any(axis=0).sum() > 1
    return NullBooks(
        sharpe=float(sharpe[0]),
        flipped=float(sharpe[1]),
        permuted=permuted,
        rolled=rolled,
        p_permuted=p_value(sharpe[0], permuted),
        p_rolled=p_value(sharpe[0], rolled),
        moved_frac=moved,
        decides=PERMUTED if chooses else ROLLED,
    )


def p_value(observed: float, null: np.ndarray) -> float:
    """``(1 + #{null >= observed}) / (1 + R)`` of the R nulls that have a Sharpe ratio; 1 where none has."""
    known = null[np.isfinite(null)]
    return float((1 + (known >= observed).sum()) / (1 + len(known)))


def _rolled(values: np.ndarray, listed: np.ndarray, first: int, shifts: np.ndarray) -> SparseWeights:
    """The book moved in time: only what was decided is, so days before the `first` book stay days before it."""
    tail = SparseWeights.from_dense(values[None, first:])
    same = np.broadcast_to(np.arange(values.shape[1]), (len(shifts), values.shape[1]))
    return _led(renamed(tail, same, listed[first:], shifts), len(values) - first, first)


def null_search(
    study: Study,
    panel: Panel,
    replicates: int = SEARCH_REPLICATES,
    seed: int = 0,
    progress: Callable[[int, int, str], object] | None = None,
) -> NullSearch:
    """Run a whole sweep again over exchanged coins, and compare its best set with theirs.

    Names are permuted once a replicate, in the weights of every set, which are computed once: so the distribution of
    the best is that of this very search, where a deflated Sharpe ratio approximates it.

    Parameters
    ----------
    study : Study
        With daily returns.
    panel : Panel
        What it ran on.
    replicates, seed : int
        Number of permutations, and what they are drawn with.
    progress : callable, optional
        Called with (done, total, what is being done).

    Raises
    ------
    DataError
        When the study kept no daily returns.
    """
    _, dates, sets = study.joint
    space = Workspace(panel)
    groups = [group for task in _tasks(study, sets) if (group := _Group.of(space, task, dates)) is not None]
    orders = _orders(replicates, len(panel.coins), seed)
    report = progress or (lambda *_: None)

    def best(order: np.ndarray) -> float:
        return max((group.best(order) for group in groups), default=float("nan"))

    found = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for value in pool.map(best, orders[:, None]):
            found.append(value)
            report(len(found), replicates, "sweeps over exchanged coins")
    observed = float(study.sharpe_joint[study.best("sharpe")])
    return NullSearch(observed, np.array(found), p_value(observed, np.array(found)))


@dataclass(frozen=True, eq=False)
class _Group:
    """Sets of one config with their weights; `joint`, (days,) bool, are the days on which sets are compared."""

    prepared: Prepared
    books: SparseWeights
    listed: np.ndarray
    joint: np.ndarray

    @classmethod
    def of(cls, space: Workspace, task: Task, dates: pd.DatetimeIndex) -> _Group | None:
        # As in `null_books`: exchanged coins have another leverage.
        account = {**task.config["account"], "initial_margin": False}
        task = replace(task, config={**task.config, "account": account})
        prepared, _, books = books_of(space, task, [""] * len(task.parameters))
        if len(books.indptr) == 1:
            return None
        listed = space.panel.tradable[space.panel.rows(prepared.decisions)]
        return cls(prepared, books, listed, np.asarray(prepared.days.normalize().isin(dates)))

    def best(self, orders: np.ndarray) -> float:
        """Highest Sharpe ratio of the sets over coins exchanged by `orders`, (1, N)."""
        highest, decisions = -np.inf, len(self.prepared.decisions)
        for tile in _tiles(self.count):
            part = self.books.part(tile.start, tile.stop, decisions)
            _, daily = _run(self.prepared, renamed(part, orders, self.listed))
            sharpe = metrics.sharpe(metrics.daily_returns(daily)[:, self.joint])
            highest = np.nanmax(sharpe, initial=highest)
        return float(highest)

    @property
    def count(self) -> int:
        """Number of sets."""
        return (len(self.books.indptr) - 1) // len(self.prepared.decisions)


def _run(prepared: Prepared, books: SparseWeights) -> tuple[pd.DataFrame, np.ndarray]:
    """:func:`engine.simulation.batch.run_books` in this thread."""
    with ThreadPoolExecutor(1) as pool:
        return run_books(prepared, books, pool, 1)


def _tiles(count: int) -> list[slice]:
    """Slices of :data:`TILE` of so many."""
    return [slice(first, min(first + TILE, count)) for first in range(0, count, TILE)]


def _tasks(study: Study, rows: np.ndarray) -> Iterator[Task]:
    """The sets `rows` of a study, those of one oracle and config together."""
    from engine.oracles.loading import oracle_class

    groups: dict[tuple[str, str], list[int]] = {}
    sets = {int(row): study.parameter_set(int(row)) for row in rows}
    for row, chosen in sets.items():
        groups.setdefault((chosen.oracle, chosen.config.digest), []).append(row)
    for number, ((path, _), members) in enumerate(groups.items()):
        config = sets[members[0]].config.to_dict()
        parameters = [sets[row].parameters for row in members]
        yield Task(number, oracle_class(path), config, parameters, np.array(members), False)


def _orders(replicates: int, coins: int, seed: int) -> np.ndarray:
    """Permutations of the coins, (R, N)."""
    return np.random.default_rng(seed).permuted(np.tile(np.arange(coins), (replicates, 1)), axis=1)


def renamed(
    books: SparseWeights, orders: np.ndarray, listed: np.ndarray, shifts: np.ndarray | None = None
) -> SparseWeights:
    """R times P books whose weights go to other coins, or to other decisions.

    Parameters
    ----------
    books : SparseWeights
        P books of D decisions.
    orders : ndarray, (R, N)
        The weight of coin ``i`` goes to ``orders[r, i]``, or, at a decision at which that is not listed, to the next of
        the permutation that is and is free.
    listed : ndarray, (D, N) bool
        Which coins can be traded at each decision.
    shifts : ndarray, (R,), optional
        By how many decisions the weights move, round in a circle. Default: none.

    Returns
    -------
    SparseWeights
        Books of the first replicate first.
    """
    from engine.simulation.kernel import rename_nb

    replicates, rows = len(orders), len(books.indptr) - 1
    indptr = np.zeros(replicates * rows + 1, dtype=np.int64)
    coins = np.empty(replicates * len(books.coins) + 1, dtype=np.uint32)
    weights = np.empty(len(coins))
    moves = np.zeros(replicates, dtype=np.int64) if shifts is None else shifts
    used = rename_nb(
        np.ascontiguousarray(orders), moves, books.indptr, books.coins, books.weights, listed, indptr, coins, weights
    )
    return SparseWeights(indptr, coins[:used], weights[:used])


def _led(books: SparseWeights, decisions: int, before: int) -> SparseWeights:
    """The books with so many empty decisions before their own."""
    count = (len(books.indptr) - 1) // decisions
    ends = np.concatenate(
        [np.zeros((count, before), dtype=np.int64), books.indptr[1:].reshape(count, decisions)], axis=1
    )
    ends[:, :before] = books.indptr[:-1:decisions, None]
    return SparseWeights(np.append(0, ends.ravel()), books.coins, books.weights)


def _moved(values: np.ndarray, nulls: SparseWeights) -> float:
    """Part of the gross that is elsewhere in the nulls, on average: 0 where all coins are the same."""
    own, weights = np.nan_to_num(values), np.nan_to_num(nulls.weights)
    gross, rows = np.abs(own).sum(), len(nulls.indptr) - 1
    if not gross > 0.0:
        return 0.0
    decision = np.repeat(np.arange(rows) % len(own), np.diff(nulls.indptr))
    there = own[decision, nulls.coins]
    # What the book has where a null has nothing has moved as well.
    moved = rows // len(own) * gross - np.abs(there).sum() + np.abs(weights - there).sum()
    return float(max(moved, 0.0) / (rows // len(own)) / (2.0 * gross))


def _shifts(decisions: pd.DatetimeIndex, first: int, roll_step: int) -> np.ndarray:
    """By how many decisions a book from `first` on is moved: :data:`LEAST_ROLL_DAYS` or more, either way round."""
    step = (decisions[-1] - decisions[0]) / max(len(decisions) - 1, 1)
    least = max(1, int(np.ceil(LEAST_ROLL_DAYS * 24 * HOUR / step))) if step > pd.Timedelta(0) else 1
    return np.arange(least, len(decisions) - first - least + 1, roll_step)
