"""The report of a merge: cells added, conflicts within a source, disagreements between sources."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from engine.clock import show
from engine.data.price_checks import ImpossiblePrice
from engine.data.schema import Flags, Floats, Integers, Rows, instant_of
from engine.errors import join_first

#: Two sources that differ by more than this, relative to the larger value, are reported as in disagreement.
TOLERANCE = 1e-3

#: Two values that differ by at most this, relative to the larger, are equal.
SAME = 1e-9


@dataclass(frozen=True)
class Conflict:
    """New values of one coin and field that contradict the cache, and so were refused.

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
        """One line for a report."""
        return (
            f"{self.coin} {self.field}: {self.cells} cells differ, the first at {show(self.first)} "
            f"(cached {self.cached:g}, new {self.new:g}; up to {self.largest:.2%})"
        )


@dataclass(frozen=True)
class Disagreement:
    """How much two sources of one field differ; a panel has the values of `kept`.

    Attributes
    ----------
    field, kept, other : str
        The field, the source that takes precedence for it, and the other one.
    cells, differing : int
        Cells that both have; those that differ by more than :data:`engine.data.merge_report.TOLERANCE`.
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
        """One line for a report."""
        median = "" if np.isnan(self.median) else f"median {self.median:.4%}, "
        return (
            f"{self.field}: {self.kept} over {self.other} in {self.cells:,} cells, of which {self.differing:,} differ "
            f"by more than {TOLERANCE:.1%}; {median}largest {self.largest:.2%} ({self.coin} at {show(self.time)})"
        )


@dataclass(frozen=True)
class MergeReport:
    """What a merge changed, or several merges together.

    Attributes
    ----------
    source : str
        Where the data came from.
    added, same, changed : int
        Cells (one coin, instant and field) of the source that were filled, that the cache already had, and that were
        replaced: with ``replace``, or as the last one of an unfinished hour.
    refused : int
        Cells left out because the cache has another value of the same source.
    conflicts : tuple of Conflict
        By coin and field; empty with ``replace``.
    months : tuple of str
        Months whose file was written, ascending; empty when the cache already had everything.
    upgraded, superseded : int
        Cells of the tables that a lower source has, too; that a higher source has, whose value a panel takes
        (:mod:`engine.data.merge`).
    disagreements : tuple of Disagreement
        How the values of those cells differ, by field and sources.
    impossible : tuple of ImpossiblePrice
        Prices of the tables that contradict what stands beside them, and were not taken.
    """

    source: str
    added: int = 0
    same: int = 0
    changed: int = 0
    refused: int = 0
    conflicts: tuple[Conflict, ...] = ()
    months: tuple[str, ...] = ()
    upgraded: int = 0
    superseded: int = 0
    disagreements: tuple[Disagreement, ...] = ()
    impossible: tuple[ImpossiblePrice, ...] = ()

    @property
    def wrote(self) -> bool:
        """Whether any file of the cache was written."""
        return bool(self.months)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        state = asdict(self)
        state["raised"], state["overruled"] = state.pop("upgraded"), state.pop("superseded")
        return state

    def differences(self) -> list[str]:
        """A line on impossible prices, and one for each field and pair of sources that both have cells of it."""
        by_key: dict[tuple[str, str, str], list[Disagreement]] = defaultdict(list)
        for disagreement in self.disagreements:
            by_key[disagreement.field, disagreement.kept, disagreement.other].append(disagreement)
        lines = []
        if self.impossible:
            lines.append(f"{len(self.impossible):,} impossible prices set aside ({join_first(self.impossible, 3)}).")
        for _, parts in sorted(by_key.items()):
            total = parts[0]
            if len(parts) > 1:  # the median over all of them is not known
                counts = {name: sum(getattr(part, name) for part in parts) for name in ("cells", "differing")}
                total = replace(max(parts, key=lambda part: part.largest), **counts, median=float("nan"))
            lines.append(f"Sources differ: {total}.")
        return lines


def combined(source: str, merges: Iterable[MergeReport]) -> MergeReport:
    """Several merges as one report."""
    merges = list(merges)
    counts = ("added", "same", "changed", "refused", "upgraded", "superseded")
    return MergeReport(
        source,
        **{name: sum(getattr(merge, name) for merge in merges) for name in counts},
        conflicts=tuple(conflict for merge in merges for conflict in merge.conflicts),
        months=tuple(sorted({month for merge in merges for month in merge.months})),
        disagreements=tuple(disagreement for merge in merges for disagreement in merge.disagreements),
        impossible=tuple(price for merge in merges for price in merge.impossible),
    )


class Tally:
    """Counts of a merge, filled by :meth:`engine.data.merge.Cube.take` and ``compare``."""

    def __init__(self, impossible: Iterable[ImpossiblePrice] = ()) -> None:
        self.added = self.same = self.changed = self.refused = self.upgraded = self.superseded = 0
        self.impossible = list(impossible)
        self._conflicts: dict[tuple[str, str], list[tuple[Integers, Floats, Floats]]] = defaultdict(list)
        self._disagreements: dict[tuple[str, str, str], list[tuple[Floats, str, int]]] = defaultdict(list)

    def conflict(self, rows: Rows, name: str, different: Flags, cached: Floats) -> None:
        """Record the differing cells of a field, (rows,), by coin."""
        for code in np.unique(rows.codes[different]):
            cells = different & (rows.codes == code)
            self._conflicts[rows.coins[code], name].append((rows.hours[cells], cached[cells], rows.fields[name][cells]))

    def compare(self, rows: Rows, name: str, kept: str, other: str, cells: Flags, cached: Floats) -> None:
        """Record how much two sources differ in the cells that both have."""
        lines = np.flatnonzero(cells)
        relative = relative_difference(cached[lines], rows.fields[name][lines])
        worst = lines[int(relative.argmax())]
        self._disagreements[name, kept, other].append(
            (relative, rows.coins[int(rows.codes[worst])], int(rows.hours[worst]))
        )

    def report(self, source: str, months: Iterable[str]) -> MergeReport:
        """The merge's report."""
        return MergeReport(
            source,
            self.added,
            self.same,
            self.changed,
            self.refused,
            tuple(_conflict(*key, parts) for key, parts in sorted(self._conflicts.items())),
            tuple(months),
            self.upgraded,
            self.superseded,
            tuple(_disagreement(*key, parts) for key, parts in sorted(self._disagreements.items())),
            tuple(self.impossible),
        )


def _conflict(coin: str, name: str, parts: list[tuple[Integers, Floats, Floats]]) -> Conflict:
    """The conflict of all differing cells: their hours, cached and new values."""
    hours, cached, new = (np.concatenate(column) for column in zip(*parts, strict=True))
    first = int(hours.argmin())
    largest = float(relative_difference(cached, new).max())
    return Conflict(coin, name, len(hours), instant_of(hours[first]), float(cached[first]), float(new[first]), largest)


def _disagreement(name: str, kept: str, other: str, parts: list[tuple[Floats, str, int]]) -> Disagreement:
    """The disagreement of all compared cells: their relative differences, and where the largest of a part is."""
    relative = np.concatenate([part for part, _, _ in parts])
    _, coin, hour = max(parts, key=lambda part: float(part[0].max()))
    return Disagreement(
        name,
        kept,
        other,
        cells=len(relative),
        differing=int((relative > TOLERANCE).sum()),
        median=float(np.median(relative)),
        largest=float(relative.max()),
        coin=coin,
        time=instant_of(hour),
    )


def relative_difference(one: Floats, other: Floats) -> Floats:
    """Differences relative to the larger of the two values; 0 where both are 0, NaN where one is."""
    larger = np.maximum(np.abs(one), np.abs(other))
    with np.errstate(invalid="ignore"):
        return np.where(larger == 0, 0.0, np.abs(one - other) / np.where(larger == 0, 1.0, larger))
