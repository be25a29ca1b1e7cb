"""What a merge did, in figures: cells added, conflicts within a source, disagreements between sources."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from engine.clock import show
from engine.data.schema import Flags, Floats, Rows, instant_of

#: Two sources that differ by more than this, relative to the larger value, are reported as in disagreement.
TOLERANCE = 1e-3

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
class Disagreement:
    """How far two sources of one field are apart; the cache holds the value of `kept`.

    Attributes
    ----------
    field, kept, other : str
        The field, the source that is believed for it, and the one that is not.
    cells, differing : int
        Cells that both gave; those that differ by more than :data:`engine.data.merge_report.TOLERANCE`.
    median, largest : float
        Of the differences over all these cells, each relative to the larger of the two values.
    coin, time : str, Timestamp
        Where the largest is.
    """

    field: str
    kept: str
    other: str
    cells: int
    differing: int
    median: float
    largest: float
    coin: str
    time: pd.Timestamp

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.field}: {self.kept} over {self.other} in {self.cells:,} cells, of which {self.differing:,} differ "
            f"by more than {TOLERANCE:.1%}; median {self.median:.4%}, largest {self.largest:.2%} "
            f"({self.coin} at {show(self.time)})"
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
    raised, overruled : int
        Cells that a lower source had given and now hold the new value; cells left alone because a higher source gave
        them (:mod:`engine.data.merge`).
    disagreements : tuple of Disagreement
        What those cells said, by field and sources.
    """

    source: str
    added: int
    same: int
    changed: int
    refused: int
    conflicts: tuple[Conflict, ...]
    months: tuple[str, ...]
    raised: int = 0
    overruled: int = 0
    disagreements: tuple[Disagreement, ...] = ()

    @property
    def wrote(self) -> bool:
        """Whether any file of the cache was written."""
        return bool(self.months)


def differences(merges: Iterable[MergeReport]) -> list[str]:
    """A line for people for each field and pair of sources that both gave cells of it, over several merges."""
    found: dict[tuple[str, str, str], list[Disagreement]] = {}
    for merge in merges:
        for apart in merge.disagreements:
            found.setdefault((apart.field, apart.kept, apart.other), []).append(apart)
    lines = []
    for (name, kept, other), parts in sorted(found.items()):
        worst = max(parts, key=lambda part: part.largest)
        cells, differing = sum(part.cells for part in parts), sum(part.differing for part in parts)
        several = (
            f"{name}: {kept} over {other} in {cells:,} cells, of which {differing:,} differ by more than "
            f"{TOLERANCE:.1%}; largest {worst.largest:.2%} ({worst.coin} at {show(worst.time)})"
        )
        lines.append(f"Sources differ: {str(worst) if len(parts) == 1 else several}.")
    return lines


class Tally:
    """Counts of a merge, filled by :meth:`engine.data.merge.Cube.take`."""

    def __init__(self) -> None:
        self.added = self.same = self.changed = self.refused = self.raised = self.overruled = 0
        self._conflicts: dict[tuple[str, str], Conflict] = {}
        self._apart: dict[tuple[str, str, str], list[_Apart]] = {}

    def conflict(self, rows: Rows, name: str, different: Flags, cached: Floats) -> None:
        """Note the differing cells of a field, a coin at a time."""
        places = np.flatnonzero(different)
        codes, firsts, counts = np.unique(rows.codes[places], return_index=True, return_counts=True)
        for code, first, count in zip(codes, firsts, counts, strict=True):
            cells = places[first : first + count]
            old, new = cached[cells], rows.fields[name][cells]
            largest = float(apart(old, new).max())
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

    def compare(self, rows: Rows, name: str, kept: str, other: str, cells: Flags, cached: Floats) -> None:
        """Note how far the cells that two sources gave are apart."""
        places = np.flatnonzero(cells)
        differences = apart(cached[places], rows.fields[name][places])
        worst = int(differences.argmax())
        row = places[worst]
        found = _Apart(differences, rows.coins[int(rows.codes[row])], instant_of(int(rows.hours[row])))
        self._apart.setdefault((name, kept, other), []).append(found)

    def disagreements(self) -> tuple[Disagreement, ...]:
        """All comparisons, by field and sources."""
        return tuple(_disagreement(key, self._apart[key]) for key in sorted(self._apart))

    def report(self, source: str, months: Iterable[str]) -> MergeReport:
        """The merge's report."""
        return MergeReport(
            source,
            self.added,
            self.same,
            self.changed,
            self.refused,
            self.conflicts(),
            tuple(months),
            self.raised,
            self.overruled,
            self.disagreements(),
        )


@dataclass(frozen=True, eq=False)
class _Apart:
    """Differences of one comparison, and where the largest is."""

    differences: Floats
    coin: str
    time: pd.Timestamp


def _disagreement(key: tuple[str, str, str], parts: list[_Apart]) -> Disagreement:
    differences = np.concatenate([part.differences for part in parts])
    worst = max(parts, key=lambda part: float(part.differences.max()))
    return Disagreement(
        *key,
        cells=len(differences),
        differing=int((differences > TOLERANCE).sum()),
        median=float(np.median(differences)),
        largest=float(differences.max()),
        coin=worst.coin,
        time=worst.time,
    )


def apart(one: Floats, other: Floats) -> Floats:
    """Differences relative to the larger of the two values; 0 where both are 0, NaN where one is."""
    larger = np.maximum(np.abs(one), np.abs(other))
    with np.errstate(invalid="ignore"):
        return np.where(larger == 0, 0.0, np.abs(one - other) / np.where(larger == 0, 1.0, larger))


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
