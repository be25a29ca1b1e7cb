"""Halves of the cross-validation behind PBO: the best set of each, and its rank in the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.simulation.metrics import FLAT

#: Distance of two Sharpe ratios that are the same but for rounding.
_TIE = 1e-12
#: More than float32 can be wrong by, a root of a day, in what Sharpe ratios are ordered by: 64 units of rounding.
_ROUGH = 64 * 2.0**-24
#: Numbers of one product of the cross-validation; choices of blocks of one step, at least.
_CHUNK, _LEAST_ROWS = 50_000, 24


def _sharpes(member: np.ndarray, sums: np.ndarray, squares: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Sharpe ratio of every column over the blocks of every row of `member`, (C, S) of 0 and 1; 0 where constant."""
    days = (member @ lengths)[:, None]
    mean = member @ sums
    square = member @ squares
    mean /= days
    spread = square - mean * mean * days
    square *= FLAT
    varies = (spread > square) & (days > 1.0)
    spread /= np.maximum(days - 1.0, 1.0)
    np.sqrt(spread, out=spread, where=varies)
    return np.divide(mean, spread, out=np.zeros_like(mean), where=varies)


class Halves:
    """Orders the columns over many choices of blocks by ``u = sum / sqrt(sum of squares)``.

    With n days the Sharpe ratio is ``u sqrt(n - 1) / n / sqrt(1 - u^2 / n)``, which rises with u: so the columns are
    ordered with a root and a division each, and only the few that are chosen need the rest. Nearly all of them lie so
    far apart that float32 orders them, in less than half the time; those that do not are computed again in float64.
    """

    def __init__(self, sums: np.ndarray, squares: np.ndarray, lengths: np.ndarray) -> None:
        # A column's blocks side by side: a few columns are then few places in memory.
        self.sums, self.squares, self.lengths = np.ascontiguousarray(sums.T), np.ascontiguousarray(squares.T), lengths
        self.step = max(_LEAST_ROWS, _CHUNK // sums.shape[1])
        scale = np.sqrt(squares.sum(axis=0) / lengths.sum())  # u does not depend on it, and no square becomes 0
        scale[scale == 0.0] = 1.0
        self.rough_sums, self.rough_squares = (sums / scale).astype(np.float32), (squares / scale**2).astype(np.float32)
        # Memory that is new each time costs more than the sums.
        self.room = np.empty((3, self.step, sums.shape[1]), dtype=np.float32)
        constant = squares - sums**2 / lengths[:, None] <= FLAT * squares
        #: Columns that may be constant over a half; all others vary over every one.
        self.suspects = np.flatnonzero(constant.sum(axis=0) >= len(lengths) // 2)

    def rough(self, member: np.ndarray, half: int) -> np.ndarray:
        """``u`` in float32, (C, P), of the choices in `member`, (C, S); lowest for suspects."""
        u, square = self.room[half, : len(member)], self.room[2, : len(member)]
        chosen = member.astype(np.float32)
        _product(chosen, self.rough_sums, u)
        _product(chosen, self.rough_squares, square)
        with np.errstate(invalid="ignore", divide="ignore"):  # of suspects
            np.divide(u, np.sqrt(square, out=square), out=u)
        u[:, self.suspects] = -np.inf
        return u

    def exact(self, member: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """``u`` of the choices in `member`, (C, S), and these columns, (K,): (C, K); 0 where one is constant."""
        sums, squares = self.sums[columns].T, self.squares[columns].T
        u, square = np.empty((2, len(member), len(columns)))
        _product(member, sums, u)
        _product(member, squares, square)
        with np.errstate(invalid="ignore", divide="ignore"):
            u /= np.sqrt(square)
        if len(self.suspects) and len(places := np.flatnonzero(np.isin(columns, self.suspects))):
            sharpe = _sharpes(member, sums[:, places], squares[:, places], self.lengths)
            u[:, places] = np.where(sharpe == 0.0, 0.0, u[:, places])
        return u

    def unsure(self, sure: np.ndarray) -> np.ndarray:
        """Columns that have to be computed exactly: suspects, and those that are not `sure`, (C, P), in some row."""
        left: np.ndarray = np.logical_not(sure.all(axis=0))
        left[self.suspects] = True
        return np.flatnonzero(left)


def _product(member: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    """``member @ table`` by columns: a product that is large is shared out to threads that wait for each other."""
    width = max(1, _CHUNK // len(member))
    for first in range(0, table.shape[1], width):
        np.matmul(member, table[:, first : first + width], out=out[:, first : first + width])


def judge_splits(inside: np.ndarray, parts: Sequence[np.ndarray], halves: Halves, splits: np.ndarray) -> None:
    """Fill in :func:`_judged` of some splits, and of their complements, which follow backwards from the end."""
    for rows in np.split(splits, range(halves.step, len(splits), halves.step)):
        one, other = (
            (member, halves.rough(member, half)) for half, member in enumerate((inside[rows], 1.0 - inside[rows]))
        )
        for target, pair in ((rows, (one, other)), (2 * len(inside) - 1 - rows, (other, one))):
            for kept, values_of in zip(parts, _judged(halves, *pair), strict=True):
                kept[target] = values_of


def _judged(
    halves: Halves, inside: tuple[np.ndarray, np.ndarray], outside: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Logit of the best's rank out of sample, its two Sharpe ratios and its column, of every row of two halves.

    A half is its choices of blocks, (C, S), and ``u`` of all columns in float32, (C, P).
    """
    (member, rough), (others, rough_outside) = inside, outside
    rows, sets = np.arange(len(rough)), rough.shape[1]
    days, days_outside = member @ halves.lengths, others @ halves.lengths
    columns = halves.unsure(rough < (rough.max(axis=1) - _ROUGH * np.sqrt(days))[:, None].astype(np.float32))
    u = halves.exact(member, columns)
    place = u.argmax(axis=1)
    chosen, u = columns[place], u[rows, place]
    columns, place = np.unique(chosen, return_inverse=True)  # a few of them, however many rows
    picked, root = halves.exact(others, columns)[rows, place], np.sqrt(days_outside)
    below = rough_outside < (picked - _ROUGH * root)[:, None].astype(np.float32)
    above = rough_outside > (picked + _ROUGH * root)[:, None].astype(np.float32)
    columns = halves.unsure(below | above)
    exact = halves.exact(others, columns)
    below[:, columns] = exact < (picked - _TIE * root)[:, None]
    above[:, columns] = exact > (picked + _TIE * root)[:, None]
    # Row by row: along an axis numpy counts in another type, four times as long.
    under, over = (np.array([np.count_nonzero(row) for row in of]) for of in (below, above))
    rank = under + (sets - under - over + 1) / 2.0
    best, then = (
        u * np.sqrt(n - 1.0) / n / np.sqrt(np.maximum(1.0 - u**2 / n, FLAT))
        for u, n in ((u, days), (picked, days_outside))
    )
    return np.log(rank / (sets + 1.0 - rank)), best, then, chosen
