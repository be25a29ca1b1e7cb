"""The append-only merge of new rows into the months of one source, and the precedence of sources.

A :class:`Cube` holds the months that a merge touches as one (N, H) array a field: coins ascending by name, the hours
of those months side by side, NaN where nothing was observed. Dense arrays make "the cached value of these rows" one
indexing operation, whatever order the rows come in.

A cell is one coin, instant and field. Every source has its own files; where several have a cell, a reader takes the
value of the one with the highest precedence for the field (:func:`engine.data.layers.read_fields`) and never averages.
So the order in which sources were merged does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from engine.data.merge_report import SAME, Tally
from engine.data.schema import Flags, Floats, Integers, Rows, instant_of, month_start, months_of, to_table
from engine.panel import FIELDS

S3 = "s3"
L2BOOK = "l2book"
API = "api"
FREQTRADE = "freqtrade"
#: Tables of any other program.
TABLE = "table"
#: The source of values of which a file does not say it: a month of before schema 3 that had only one.
UNKNOWN = "unknown"
#: Field -> sources, the most trusted first.
#: `mid`: the book itself; the archive's minute record of it; the last trade of the hour (a candle's close).
#: `funding`: what was paid (`fundingHistory`, and freqtrade's copy of it); the running estimate a minute before.
#: `volume_usd`: candles only: the archive has the volume of the exchange's own 24 hours, not of an hour.
PRECEDENCE: Mapping[str, tuple[str, ...]] = {
    "mid": (L2BOOK, S3, API, FREQTRADE, TABLE),
    "funding": (API, FREQTRADE, TABLE, S3),
}
#: For every other field, most of which only one source has.
OTHERWISE = (API, FREQTRADE, TABLE, L2BOOK, S3)
#: (field, source) whose value is provisional: the rate that the archive estimates is not the one that was settled, so
#: an API sync requests those hours.
PROVISIONAL = frozenset({("funding", S3)})


def rank(field: str, source: str) -> tuple[int, str]:
    """Precedence of `source` for `field`: of two sources the higher prevails.

    Sources that :data:`PRECEDENCE` does not name come below all others, by name.
    """
    order = PRECEDENCE.get(field, OTHERWISE)
    return (len(order) - order.index(source) if source in order else 0), source


class Cube:
    """Wide arrays of some months of one source, and what a merge changed in them.

    Attributes
    ----------
    months : ndarray, shape (M,), int64
        Months since 1970-01, ascending; not necessarily adjacent.
    coins : tuple of str, length N
        Ascending.
    fields : dict of str to ndarray, each (N, H) float64
        Made when a field first appears.
    changed : set of int
        Months that differ from what was read.
    """

    def __init__(self, months: Iterable[int], coins: Iterable[str]) -> None:
        self.months: Integers = np.array(sorted(set(months)), dtype=np.int64)
        self.coins = tuple(sorted(set(coins)))
        self.starts = np.array([month_start(int(month)) for month in self.months], dtype=np.int64)
        self.lengths = np.array([month_start(int(month) + 1) for month in self.months], dtype=np.int64) - self.starts
        self.offsets: Integers = np.concatenate([[0], np.cumsum(self.lengths)])
        self.fields: dict[str, Floats] = {}
        self.changed: set[int] = set()
        self._line = {coin: line for line, coin in enumerate(self.coins)}

    def array(self, name: str) -> Floats:
        """The (N, H) array of a field, all NaN at first."""
        if name not in self.fields:
            self.fields[name] = np.full((len(self.coins), int(self.offsets[-1])), np.nan)
        return self.fields[name]

    def positions(self, rows: Rows) -> tuple[Integers, Integers]:
        """Line and column of each row."""
        lines = np.array([self._line[coin] for coin in rows.coins], dtype=np.int64)
        month = np.searchsorted(self.months, months_of(rows.hours))
        return lines[rows.codes], rows.hours - self.starts[month] + self.offsets[month]

    def load(self, rows: Rows) -> None:
        """Put in the rows of a file of the cache."""
        line, column = self.positions(rows)
        for name, values in rows.fields.items():
            self.array(name)[line, column] = values

    def take(self, rows: Rows, replace: bool, tally: Tally, longer: bool = False) -> None:
        """Merge rows of the same source: fill absent cells, count equal values, refuse (or `replace`) different ones.

        Where the rows are those of a `longer` version of a file that may have been published in part, the last row that
        the cache has of a coin gives way to rows that go on after it and equal those before it: it was taken before its
        hour was over.
        """
        line, column = self.positions(rows)
        cached = {name: self.array(name)[line, column] for name in rows.fields}
        differs = {name: _differs(cached[name], values) for name, values in rows.fields.items()}
        # Every field of a row is of one record, so the whole row is renewed.
        last, contradicted = _last_of_coin(rows, cached), np.any(list(differs.values()), axis=0)
        renewed = longer & last & contradicted & ~np.isin(rows.codes, rows.codes[contradicted & ~last])
        for name, values in rows.fields.items():
            observed = ~np.isnan(values)
            fresh = observed & np.isnan(cached[name])
            changed = differs[name] & (renewed | replace)
            refused = differs[name] & ~changed
            if refused.any():
                tally.conflict(rows, name, refused, cached[name])
            written = fresh | changed | (renewed & np.isnan(values) & ~np.isnan(cached[name]))
            self.array(name)[line[written], column[written]] = values[written]
            tally.added += int(fresh.sum())
            tally.changed += int(changed.sum())
            tally.same += int((observed & ~fresh & ~differs[name]).sum())
            tally.refused += int(refused.sum())
            self.changed.update(int(month) for month in np.unique(months_of(rows.hours[written])))

    def compare(self, rows: Rows, source: str, other: str, tally: Tally) -> None:
        """Report the cells that rows of `source` and this cube, of the source `other`, both have."""
        line, column = self.positions(rows)
        for name in rows.fields.keys() & self.fields.keys():
            values = self.fields[name][line, column]
            shared: Flags = ~np.isnan(values) & ~np.isnan(rows.fields[name])
            if shared.any():
                lower, kept = sorted((source, other), key=lambda source: rank(name, source))
                tally.compare(rows, name, kept, lower, shared, values)
                if kept == source:
                    tally.upgraded += int(shared.sum())
                else:
                    tally.superseded += int(shared.sum())

    def spans(self, name: str) -> dict[str, tuple[pd.Timestamp, pd.Timestamp]]:
        """First and last instant at which each coin has the field."""
        if name not in self.fields:
            return {}
        present = ~np.isnan(self.fields[name])
        hours = np.repeat(self.starts - self.offsets[:-1], self.lengths) + np.arange(self.offsets[-1], dtype=np.int64)
        first, last = present.argmax(axis=1), present.shape[1] - 1 - present[:, ::-1].argmax(axis=1)
        return {
            coin: (instant_of(hours[first[line]]), instant_of(hours[last[line]]))
            for line, coin in enumerate(self.coins)
            if present[line].any()
        }

    def table(self, month: int) -> Any:
        """A month as a pyarrow table of the schema: the rows and fields that hold anything, coin by coin."""
        index = int(np.searchsorted(self.months, month))
        cut = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        blocks = {name: self.fields[name][:, cut] for name in FIELDS if name in self.fields}
        observed = {name: cells for name, block in blocks.items() if (cells := ~np.isnan(block)).any()}
        present: Flags = np.logical_or.reduce(list(observed.values()))
        line, hour = np.nonzero(present)
        used, codes = np.unique(line, return_inverse=True)
        values = {name: blocks[name][present] for name in observed}
        return to_table([self.coins[line] for line in used], codes, self.starts[index] + hour, values)


def _differs(cached: Floats, new: Floats) -> Flags:
    # A comparison with NaN is false: an absent value contradicts nothing.
    return np.asarray(np.abs(cached - new) > SAME * np.maximum(np.abs(cached), np.abs(new)), dtype=np.bool_)


def _last_of_coin(rows: Rows, cached: Mapping[str, Floats]) -> Flags:
    """Which of the rows are the last that the cache has of their coin, while others of the coin follow; (rows,)."""
    held = np.flatnonzero(~np.all([np.isnan(values) for values in cached.values()], axis=0))
    last = np.full(len(rows.coins), -1, dtype=np.int64)
    last[rows.codes[held]] = held  # of a repeated index the value assigned last stays
    last = last[(last >= 0) & (last < len(rows.codes) - 1)]
    flags = np.zeros(len(rows.codes), dtype=np.bool_)
    flags[last[rows.codes[last + 1] == rows.codes[last]]] = True
    return flags


def months_touched(tables: Sequence[Rows]) -> Integers:
    """Months of all rows, ascending."""
    return np.unique(np.concatenate([np.unique(months_of(rows.hours)) for rows in tables]))


def coins_touched(tables: Sequence[Rows]) -> set[str]:
    """Coins of all rows."""
    return {coin for rows in tables for coin in rows.coins}
