"""Weight matrices of many books, in which most weights are 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.errors import WeightsError

DISORDERED = "Sparse weights have a row whose coins do not ascend; each column may stand there once."


@dataclass(frozen=True)
class SparseWeights:
    """Weight matrices of P books in which most weights are 0.

    Attributes
    ----------
    indptr : ndarray, (P * D + 1,) int64
        Entries of book ``p`` at decision ``d`` are ``indptr[p * D + d]`` up to the next.
    coins : ndarray, (K,) integer
        Column of each entry in ``panel.coins``, ascending within a row.
    weights : ndarray, (K,) float64
        Signed fractions of equity; NaN = hold; a coin without an entry = 0.
    """

    indptr: np.ndarray
    coins: np.ndarray
    weights: np.ndarray

    def __post_init__(self) -> None:
        # The kernel trusts these: a wrong one would make it read memory that is not its own.
        for name, kinds, wanted in (
            ("indptr", "iu", "integers"),
            ("coins", "iu", "integers"),
            ("weights", "f", "floats"),
        ):
            values = getattr(self, name)
            if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype.kind not in kinds:
                shown = f"{values.ndim}-d {values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
                raise WeightsError(f"Sparse weights: {name} is {shown}; a 1-d array of {wanted} is needed.")
        # Signed: differences of unsigned numbers never are negative, whatever their order.
        object.__setattr__(self, "indptr", self.indptr.astype(np.int64, copy=False))
        rows = self.indptr
        ascends = len(rows) > 0 and rows[0] == 0 and bool((np.diff(rows) >= 0).all())
        if not ascends or not rows[-1] == len(self.coins) == len(self.weights):
            raise WeightsError(
                f"Sparse weights do not fit together: indptr must ascend from 0 to the number of entries; it ends at "
                f"{rows[-1] if len(rows) else None}, with {len(self.coins)} coins and {len(self.weights)} weights."
            )

    @classmethod
    def from_dense(cls, weights_pdn: np.ndarray) -> SparseWeights:
        """Keep the entries of a (P, D, N) array that are not 0."""
        books, rows, coins = np.nonzero(weights_pdn)
        counts = np.bincount(books * weights_pdn.shape[1] + rows, minlength=weights_pdn.shape[0] * weights_pdn.shape[1])
        return cls(np.append(0, np.cumsum(counts)), coins.astype(np.uint32), weights_pdn[books, rows, coins])

    def part(self, first: int, last: int, decisions: int) -> SparseWeights:
        """Books `first` up to `last`; the entries are not copied."""
        indptr = self.indptr[first * decisions : last * decisions + 1]
        entries = slice(int(indptr[0]), int(indptr[-1]))
        return SparseWeights(indptr - indptr[0], self.coins[entries], self.weights[entries])

    def to_dense(self, decisions: int, coins: int) -> np.ndarray:
        """The (P, D, N) array."""
        places = np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr)) * coins + self.coins.astype(np.int64)
        if (np.diff(places) <= 0).any():
            raise WeightsError(DISORDERED)
        dense = np.zeros((len(self.indptr) - 1) * coins)
        dense[places] = self.weights
        return dense.reshape(-1, decisions, coins)

    def take(self, books: np.ndarray, decisions: int) -> SparseWeights:
        """Books `books`, in that order; a book may be taken more than once."""
        rows = (np.asarray(books)[:, None] * decisions + np.arange(decisions)).ravel()
        counts = np.diff(self.indptr)[rows]
        indptr = np.append(0, np.cumsum(counts))
        entries = np.repeat(self.indptr[rows] - indptr[:-1], counts) + np.arange(indptr[-1])
        return SparseWeights(indptr, self.coins[entries], self.weights[entries])

    @classmethod
    def joined(cls, parts: Sequence[SparseWeights]) -> SparseWeights:
        """The books of several, one after the other."""
        if len(parts) == 1:
            return parts[0]
        before = np.cumsum([0, *(part.indptr[-1] for part in parts)])
        indptr = [part.indptr[1:] + offset for part, offset in zip(parts, before[:-1], strict=True)]
        return cls(
            np.concatenate([[0], *indptr]),
            np.concatenate([part.coins for part in parts]),
            np.concatenate([part.weights for part in parts]),
        )
