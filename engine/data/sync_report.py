"""The one report of everything that brings rows into the cache: syncs of the API and of S3, and imports of files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.data.merge_report import Conflict, MergeReport

#: Counts that read better with more words; the others are followed by their name.
_WORDS = {
    "taken": "objects taken",
    "reused": "downloaded by an earlier run",
    "unusable": "values that are no price (0 or less) left out",
    "stale": "rows of records over 5 minutes old (prices, not quotes)",
    "outside": "lines of another day left out",
    "bytes": "bytes wanted",
    "cached": "there already",
    "weight": "in weight",
    "funding": "funding rates",
}


@dataclass(frozen=True)
class SkippedItem:
    """A file, object or history that was not merged, and why: `reason` goes on after `name`."""

    name: str
    reason: str

    def __str__(self) -> str:
        """One line for a report."""
        return f"{self.name} {self.reason}"


@dataclass(frozen=True)
class SyncReport:
    """What a sync or an import read, and what it changed in the cache.

    Attributes
    ----------
    source : str
        Name of the source.
    counts : mapping of str to int
        What was read, by name; which there are depends on the source.
    merge : MergeReport
        What it changed in the cache.
    skipped : tuple of SkippedItem
        What could not be had or read. The next run tries it again.
    notes : tuple of str
        What the user should know, but cannot change.
    details : mapping
        More for ``--json``: the range of an API sync, the plan of an S3 sync.
    """

    source: str
    counts: Mapping[str, int]
    merge: MergeReport
    skipped: tuple[SkippedItem, ...] = ()
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def conflicts(self) -> tuple[Conflict, ...]:
        """Values that contradict the cache."""
        return self.merge.conflicts

    @property
    def problems(self) -> list[str]:
        """A line for each skipped item and each conflict; empty when everything was taken."""
        return [*map(str, self.skipped), *map(str, self.conflicts)]

    def summary(self) -> str:
        """A paragraph for the terminal."""
        merge = self.merge
        read = [f"{count:,} {_WORDS.get(name, name)}" for name, count in self.counts.items()]
        wrote = "nothing written" if merge.added + merge.changed else "nothing to write"
        wrote = f"months written: {merge.months[0]} to {merge.months[-1]}" if merge.months else wrote
        changed = f"{merge.added:,} values added, {merge.same:,} were there already, {merge.changed:,} replaced"
        return "\n".join([f"{self.source}: {', '.join(read)}; {changed}; {wrote}.", *merge.differences(), *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the counts, what the merge did, `set_aside` (name, reason), `notes`, `problems`, the details."""
        return {
            **self.merge.to_dict(),
            **self.counts,
            "set_aside": [asdict(item) for item in self.skipped],
            "notes": list(self.notes),
            "problems": self.problems,
            **self.details,
        }

    def failure(self) -> str:
        """What a command that could not take everything says; empty when it did."""
        if not self.problems:
            return ""
        cure = " Where the cache has other values, --replace takes the new ones." if self.conflicts else ""
        lines = "; ".join(text.rstrip(".") for text in self.problems[:3])
        rest = f"; and {len(self.problems) - 3} more" if len(self.problems) > 3 else ""
        return (
            f"{len(self.problems)} problems: {lines}{rest}. Everything else was saved; run the same command again to "
            f"repair what can be repaired.{cure}"
        )
