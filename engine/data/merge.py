"""The append-only merge of new rows into months of the cache, and the precedence of sources.

A :class:`Cube` holds the months that a merge touches as one (N, H) array a field: coins ascending by name, the hours
of those months side by side, NaN where nothing was observed. Dense arrays make "the cached value of these rows" one
indexing operation, whatever order the rows come in.

A cell is one coin, instant and field. Where several sources have it, the cache keeps the value of the one with the
highest precedence for the field; it never averages. The order in which sources were merged does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from engine.data.merge_report import SAME, Tally
from engine.data.schema import (
    SOURCE,
    Codes,
    Flags,
    Floats,
    Integers,
    Origins,
    Rows,
    instant_of,
    month_start,
    months_of,
    to_table,
)
from engine.panel import FIELDS

S3 = "s3"
L2BOOK = "l2book"
API = "api"
FREQTRADE = "freqtrade"
#: Field -> sources, the most trusted first.
#: `mid`: the book itself; the archive's minute record of it; the last trade of the hour (a candle's close).
#: `funding`: what was paid (`fundingHistory`, and freqtrade's copy of it); the running estimate a minute before.
#: `volume_usd`: candles only: the archive has the volume of the exchange's own 24 hours, not of an hour.
PRECEDENCE: Mapping[str, tuple[str, ...]] = {
    "mid": (L2BOOK, S3, API, FREQTRADE),
    "funding": (API, FREQTRADE, S3),
}
#: For every other field, most of which only one source has.
OTHERWISE = (API, FREQTRADE, L2BOOK, S3)
#: (field, source) whose value is provisional: the rate that the archive estimates is not the one that was settled, so
#: an API sync requests those hours.
PROVISIONAL = frozenset({("funding", S3)})


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
    origins : dict of str to ndarray, each (N, H) uint8
        Per field, the source of every cell: its index in `sources`, of which the first is none.
    sources : list of str
        Names of the sources.
    source_ends : dict of (str, str) to int
        Per coin and source, the last hour number with a price among the rows that were merged.
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
        self.origins: dict[str, Codes] = {}
        self.sources: list[str] = [""]
        self.source_ends: dict[tuple[str, str], int] = {}
        self.changed: set[int] = set()
        self._line = {coin: line for line, coin in enumerate(self.coins)}

    def array(self, name: str) -> Floats:
        """The (N, H) array of a field, all NaN at first."""
        if name not in self.fields:
            self.fields[name] = np.full((len(self.coins), int(self.offsets[-1])), np.nan)
            self.origins[name] = np.zeros(self.fields[name].shape, dtype=np.uint8)
        return self.fields[name]

    def source_code(self, name: str) -> int:
        """Index of a source in `sources`, to which it is added when it is new."""
        if name not in self.sources:
            self.sources.append(name)
        return self.sources.index(name)

    def positions(self, rows: Rows) -> tuple[Integers, Integers]:
        """Line and column of each row."""
        lines = np.array([self._line[coin] for coin in rows.coins], dtype=np.int64)
        month = np.searchsorted(self.months, months_of(rows.hours))
        return lines[rows.codes], rows.hours - self.starts[month] + self.offsets[month]

    def hours(self) -> Integers:
        """Hour number of every column, (H,)."""
        lengths = np.diff(self.offsets)
        return np.repeat(self.starts - self.offsets[:-1], lengths) + np.arange(self.offsets[-1], dtype=np.int64)

    def load(self, rows: Rows, origins: Mapping[str, Origins] | None = None) -> None:
        """Put in what a file of the cache holds and, for a merge, where each cell came from."""
        line, column = self.positions(rows)
        for name, values in rows.fields.items():
            self.array(name)[line, column] = values
            if origins is not None:
                names, codes = origins[name]
                known = np.array([self.source_code(source) for source in names], dtype=np.uint8)
                self.origins[name][line, column] = np.where(np.isnan(values), 0, known[codes])

    def take(self, rows: Rows, source: str, replace: bool, tally: Tally) -> None:
        """Merge rows: fill absent cells; where a source of another rank has a cell, the value of the higher one stays.

        Where one of the same rank has it, count equal values, refuse or replace different ones: without `replace`, a
        coin with any such cell among `rows` gets none of them.
        """
        line, column = self.positions(rows)
        code = self.source_code(source)
        cached = {name: self.array(name)[line, column] for name in rows.fields}
        # Above 0 where the new source ranks above the one of the cached cell, below 0 where lower.
        ranks = {name: self._relative_rank(name, source)[self.origins[name][line, column]] for name in rows.fields}
        differs = {name: (ranks[name] == 0) & _differs(cached[name], rows.fields[name]) for name in rows.fields}
        taken = np.ones(len(rows.codes), dtype=np.bool_)
        if not replace:
            refused = np.zeros(len(rows.coins), dtype=np.bool_)
            for name, different in differs.items():
                if different.any():
                    refused[rows.codes[different]] = True
                    tally.conflict(rows, name, different, cached[name])
            taken = ~refused[rows.codes]
        for name, values in rows.fields.items():
            observed = ~np.isnan(values)
            fresh = observed & np.isnan(cached[name])
            shared = taken & observed & ~fresh
            upgraded, superseded = shared & (ranks[name] > 0), shared & (ranks[name] < 0)
            written = (taken & (fresh | differs[name])) | upgraded
            self._compare(rows, name, source, upgraded | superseded, line, column, tally)
            self.array(name)[line[written], column[written]] = values[written]
            self.origins[name][line[written], column[written]] = code
            tally.added += int((taken & fresh).sum())
            tally.changed += int((taken & differs[name]).sum())
            tally.same += int((shared & (ranks[name] == 0) & ~differs[name]).sum())
            tally.upgraded += int(upgraded.sum())
            tally.superseded += int(superseded.sum())
            tally.refused += int((observed & ~taken).sum())
            self.changed.update(int(month) for month in np.unique(months_of(rows.hours[written])))
            if name == "mid":
                self._note_source_ends(rows, source, taken & observed)

    def _relative_rank(self, field: str, source: str) -> Integers:
        """Rank of `source` minus that of every source, for a field; 0 for none."""
        own = rank(field, source)
        return np.array([0, *(own - rank(field, other) for other in self.sources[1:])], dtype=np.int64)

    def _compare(
        self, rows: Rows, name: str, source: str, shared: Flags, line: Integers, column: Integers, tally: Tally
    ) -> None:
        """Report the cells that both `source` and one of another rank have."""
        origin = self.origins[name][line, column]
        for code in np.unique(origin[shared]):
            other = self.sources[code]
            kept, lower = (source, other) if rank(name, source) > rank(name, other) else (other, source)
            tally.compare(rows, name, kept, lower, shared & (origin == code), self.fields[name][line, column])

    def _note_source_ends(self, rows: Rows, source: str, priced: Flags) -> None:
        """Record the last hour at which `source` has a price of each coin."""
        last = np.full(len(rows.coins), -1, dtype=np.int64)
        np.maximum.at(last, rows.codes[priced], rows.hours[priced])
        for coin, hour in zip(rows.coins, last.tolist(), strict=True):
            if hour >= 0:
                self.source_ends[coin, source] = max(hour, self.source_ends.get((coin, source), hour))

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

    def table(self, month: int) -> tuple[Any, dict[str, tuple[str, ...]]]:
        """A month as a pyarrow table of the schema, and the sources of its fields.

        It has the rows and fields that hold anything, coin by coin. A field of several sources has a further column
        with the source of each cell.
        """
        index = int(np.searchsorted(self.months, month))
        cut = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        blocks = {name: self.fields[name][:, cut] for name in FIELDS if name in self.fields}
        observed = {name: ~np.isnan(block) for name, block in blocks.items()}
        names = [name for name, cells in observed.items() if cells.any()]
        present: Flags = np.logical_or.reduce([observed[name] for name in names])
        line, hour = np.nonzero(present)
        used, codes = np.unique(line, return_inverse=True)
        values = {name: blocks[name][present] for name in names}
        table = to_table([self.coins[line] for line in used], codes, self.starts[index] + hour, values)
        sources = {}
        for name in names:
            origin = self.origins[name][:, cut][present]
            named = sorted((self.sources[code], int(code)) for code in np.unique(origin[observed[name][present]]))
            sources[name] = tuple(source for source, _ in named)
            if len(named) > 1:
                position = table.column_names.index(name) + 1
                table = table.add_column(position, name + SOURCE, _source_column(origin, named))
        return table, sources


def _source_column(codes: Codes, named: Sequence[tuple[str, int]]) -> Any:
    """Source names of cells, dictionary-encoded; null where there is no cell."""
    import pyarrow as pa

    numbers_of = np.full(256, -1, dtype=np.int8)
    for number, (_, code) in enumerate(named):
        numbers_of[code] = number
    numbers = numbers_of[codes]
    return pa.DictionaryArray.from_arrays(
        pa.array(numbers, mask=numbers < 0), pa.array([source for source, _ in named], pa.string())
    )


def _differs(cached: Floats, new: Floats) -> Flags:
    # A comparison with NaN is false: an absent value contradicts nothing.
    return np.asarray(np.abs(cached - new) > SAME * np.maximum(np.abs(cached), np.abs(new)), dtype=np.bool_)


def months_touched(tables: Sequence[Rows]) -> Integers:
    """Months of all rows, ascending."""
    return np.unique(np.concatenate([np.unique(months_of(rows.hours)) for rows in tables]))


def coins_touched(tables: Sequence[Rows]) -> set[str]:
    """Coins of all rows."""
    return {coin for rows in tables for coin in rows.coins}


def rank(field: str, source: str) -> int:
    """Precedence of `source` for `field`: a higher number prevails.

    A source that :data:`PRECEDENCE` does not name ranks 0. Where sources of one rank differ it is a conflict, as when
    one source contradicts itself.
    """
    order = PRECEDENCE.get(field, OTHERWISE)
    return len(order) - order.index(source) if source in order else 0
