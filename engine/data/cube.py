"""Months of the cache as dense arrays, and the append-only merge into them.

A :class:`Cube` holds the months that a merge touches as one (N, H) array a field: coins ascending by name, the hours
of those months side by side, NaN where nothing was observed. Dense arrays make "the cached value of these rows" one
indexing operation, whatever order the rows come in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from engine.clock import show
from engine.data.schema import (
    COIN,
    TIME,
    Flags,
    Floats,
    Integers,
    Rows,
    hours_to_stamps,
    instant_of,
    month_start,
    months_of,
)
from engine.errors import DataConflictError
from engine.panel import FIELDS

#: Two values nearer than this, relative to the larger, are the same value written twice.
SAME = 1e-9


@dataclass(frozen=True)
class Conflict:
    """New values of one coin and field that contradict the cache, and so were not taken.

    Attributes
    ----------
    cells : int
        Instants at which the values differ.
    first : Timestamp
        The first of them.
    cached, new : float
        The two values there.
    largest : float
        Largest difference over those instants, relative to the larger of the two values.
    """

    coin: str
    field: str
    cells: int
    first: pd.Timestamp
    cached: float
    new: float
    largest: float

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.coin} {self.field}: {self.cells} cells differ, the first at {show(self.first)} "
            f"(cached {self.cached:g}, new {self.new:g}; up to {self.largest:.2%})"
        )


@dataclass(frozen=True)
class MergeReport:
    """What a merge did.

    Attributes
    ----------
    source : str
        Where the data came from.
    added, same, changed : int
        Cells (one coin, instant and field) that were filled, that the cache already had, and (with ``replace``) that
        were replaced.
    refused : int
        Cells left out because their coin has a conflict in the same table.
    conflicts : tuple of Conflict
        By coin and field; empty with ``replace``.
    months : tuple of str
        Months whose file was written; empty when the cache already had everything.
    """

    source: str
    added: int
    same: int
    changed: int
    refused: int
    conflicts: tuple[Conflict, ...]
    months: tuple[str, ...]

    @property
    def wrote(self) -> bool:
        """Whether any file of the cache was written."""
        return bool(self.months)

    def raise_for_conflicts(self) -> None:
        """Raise :class:`DataConflictError` when something was left out."""
        if not self.conflicts:
            return
        rest = f"; and {len(self.conflicts) - 3} more" if len(self.conflicts) > 3 else ""
        raise DataConflictError(
            f"Data of {self.source} contradict the cache, which is append-only: "
            f"{'; '.join(str(conflict) for conflict in self.conflicts[:3])}{rest}. The cached values were kept and "
            f"{self.refused} cells left out; all else was taken. Pass replace (--replace) to take the new values."
        )


class Cube:
    """Wide arrays of some months, and what a merge changed in them.

    Attributes
    ----------
    months : ndarray, shape (M,), int64
        Months since 1970-01, ascending; not necessarily adjacent.
    coins : tuple of str, length N
        Ascending.
    fields : dict of str to ndarray, each (N, H) float64
        Made when a field first appears.
    sources : dict of (int, str) to set of str
        Per month and field, the sources that gave a value.
    changed : set of int
        Months that differ from what was read.
    """

    def __init__(self, months: Iterable[int], coins: Iterable[str]) -> None:
        self.months: Integers = np.array(sorted(set(months)), dtype=np.int64)
        self.coins = tuple(sorted(set(coins)))
        self.starts = np.array([month_start(int(month)) for month in self.months], dtype=np.int64)
        lengths = np.array([month_start(int(month) + 1) for month in self.months], dtype=np.int64) - self.starts
        self.offsets: Integers = np.concatenate([[0], np.cumsum(lengths)])
        self.fields: dict[str, Floats] = {}
        self.sources: dict[tuple[int, str], set[str]] = {}
        self.changed: set[int] = set()
        self._line = {coin: line for line, coin in enumerate(self.coins)}

    def array(self, name: str) -> Floats:
        """The (N, H) array of a field, all NaN at first."""
        if name not in self.fields:
            self.fields[name] = np.full((len(self.coins), int(self.offsets[-1])), np.nan)
        return self.fields[name]

    def places(self, rows: Rows) -> tuple[Integers, Integers]:
        """Line and column of each row."""
        lines = np.array([self._line[coin] for coin in rows.coins], dtype=np.int64)
        month = np.searchsorted(self.months, months_of(rows.hours))
        return lines[rows.codes], rows.hours - self.starts[month] + self.offsets[month]

    def hours(self) -> Integers:
        """Hour number of every column, (H,)."""
        lengths = np.diff(self.offsets)
        return np.repeat(self.starts - self.offsets[:-1], lengths) + np.arange(self.offsets[-1], dtype=np.int64)

    def load(self, rows: Rows) -> None:
        """Put in what a file of the cache holds."""
        line, column = self.places(rows)
        for name, values in rows.fields.items():
            self.array(name)[line, column] = values

    def take(self, rows: Rows, source: str, replace: bool, tally: Tally) -> None:
        """Merge rows: fill what is absent, count what is the same, refuse or replace what differs.

        Without `replace`, a coin with any differing cell among `rows` gets nothing of them.
        """
        line, column = self.places(rows)
        cached = {name: self.array(name)[line, column] for name in rows.fields}
        differs = {name: _differs(cached[name], values) for name, values in rows.fields.items()}
        taken = np.ones(len(rows.codes), dtype=np.bool_)
        if not replace:
            refused = np.zeros(len(rows.coins), dtype=np.bool_)
            for name, different in differs.items():
                if different.any():
                    refused[rows.codes[different]] = True
                    tally.conflict(rows, name, different, cached[name])
            taken = ~refused[rows.codes]
        for name, values in rows.fields.items():
            given = ~np.isnan(values)
            fresh = given & np.isnan(cached[name])
            written = taken & (fresh | differs[name])
            self.array(name)[line[written], column[written]] = values[written]
            tally.added += int((taken & fresh).sum())
            tally.changed += int((taken & differs[name]).sum())
            tally.same += int((taken & given & ~fresh & ~differs[name]).sum())
            tally.refused += int((given & ~taken).sum())
            for month in np.unique(months_of(rows.hours[written])):
                self.changed.add(int(month))
                self.sources.setdefault((int(month), name), set()).add(source)

    def spans(self, name: str) -> dict[str, tuple[pd.Timestamp, pd.Timestamp]]:
        """First and last instant at which each coin has the field."""
        if name not in self.fields:
            return {}
        present = ~np.isnan(self.fields[name])
        hours = self.hours()
        first, last = present.argmax(axis=1), present.shape[1] - 1 - present[:, ::-1].argmax(axis=1)
        return {
            coin: (instant_of(hours[first[line]]), instant_of(hours[last[line]]))
            for line, coin in enumerate(self.coins)
            if present[line].any()
        }

    def table(self, month: int) -> Any:
        """A month as a pyarrow table of the schema: the rows and fields that hold anything, coin by coin."""
        import pyarrow as pa

        place = int(np.searchsorted(self.months, month))
        cut = slice(int(self.offsets[place]), int(self.offsets[place + 1]))
        blocks = {name: self.fields[name][:, cut] for name in FIELDS if name in self.fields}
        observed = {name: ~np.isnan(block) for name, block in blocks.items()}
        names = [name for name, seen in observed.items() if seen.any()]
        present: Flags = np.logical_or.reduce([observed[name] for name in names])
        line, hour = np.nonzero(present)
        used, codes = np.unique(line, return_inverse=True)
        stamps = hours_to_stamps(self.starts[place] + hour.astype(np.int64))
        columns = {
            TIME: pa.array(stamps).cast(pa.timestamp("ms", tz="UTC")),
            COIN: pa.DictionaryArray.from_arrays(
                pa.array(codes.astype(np.int32)), pa.array([self.coins[place] for place in used], pa.string())
            ),
        }
        for name in names:
            columns[name] = pa.array(blocks[name][present], from_pandas=True)
        return pa.table(columns)


class Tally:
    """Counts of a merge, filled by :meth:`Cube.take`."""

    def __init__(self) -> None:
        self.added = self.same = self.changed = self.refused = 0
        self._conflicts: dict[tuple[str, str], Conflict] = {}

    def conflict(self, rows: Rows, name: str, different: Flags, cached: Floats) -> None:
        """Note the differing cells of a field, a coin at a time."""
        places = np.flatnonzero(different)
        codes, firsts, counts = np.unique(rows.codes[places], return_index=True, return_counts=True)
        for code, first, count in zip(codes, firsts, counts, strict=True):
            cells = places[first : first + count]
            old, new = cached[cells], rows.fields[name][cells]
            largest = float((np.abs(old - new) / np.maximum(np.abs(old), np.abs(new))).max())
            found = Conflict(
                rows.coins[int(code)],
                name,
                int(count),
                instant_of(int(rows.hours[cells[0]])),
                float(old[0]),
                float(new[0]),
                largest,
            )
            key = (found.coin, name)
            self._conflicts[key] = _joined(self._conflicts[key], found) if key in self._conflicts else found

    def conflicts(self) -> tuple[Conflict, ...]:
        """All conflicts, by coin and field."""
        return tuple(self._conflicts[key] for key in sorted(self._conflicts))


def _differs(cached: Floats, new: Floats) -> Flags:
    # A NaN on either side compares false: an absent value contradicts nothing.
    return np.asarray(np.abs(cached - new) > SAME * np.maximum(np.abs(cached), np.abs(new)), dtype=np.bool_)


def _joined(one: Conflict, other: Conflict) -> Conflict:
    early = one if one.first <= other.first else other
    return Conflict(
        one.coin,
        one.field,
        one.cells + other.cells,
        early.first,
        early.cached,
        early.new,
        max(one.largest, other.largest),
    )


def months_touched(tables: Sequence[Rows]) -> Integers:
    """Months of all rows, ascending."""
    return np.unique(np.concatenate([np.unique(months_of(rows.hours)) for rows in tables]))


def coins_touched(tables: Sequence[Rows]) -> set[str]:
    """Coins of all rows."""
    return {coin for rows in tables for coin in rows.coins}


def sources_of(cube: Cube, month: int, fields: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Sources of a month's fields, ascending."""
    return {name: tuple(sorted(cube.sources.get((month, name), ()))) for name in fields}
