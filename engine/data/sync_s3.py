"""``hlbt data sync --source s3``: download what the plan wants, reduce it, merge it in batches.

Objects are downloaded into ``incoming/`` of the cache and taken in batches of a month; a batch is one commit, with the
record of its objects, and then its downloads go. Killed at any moment, the next sync uses the downloads that are whole.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from engine.atomic_io import locked
from engine.data.asset_ctxs import ObjectError, reduce_day, to_table
from engine.data.cache import Store
from engine.data.l2book import FIELDS, Quote, last_quote
from engine.data.manifest import ObjectRecord
from engine.data.merge import L2BOOK, S3
from engine.data.merge_report import Conflict, MergeReport, differences
from engine.data.s3_archive import ASSET_CTXS, FetchError, Item, Plan, Source, describe, whole
from engine.data.schema import hour_number
from engine.errors import DataError

#: Downloads that wait for their commit; objects that the user keeps.
INCOMING = "incoming"
RAW = "raw"
#: A batch is what is merged at once: a month, or less where its downloads are larger than this together.
BATCH_BYTES = 1_000_000_000
#: (bytes done, bytes in all, what is being done)
Progress = Callable[[int, int, str], None]


@dataclass
class SyncReport:
    """What a sync did.

    Attributes
    ----------
    plan : Plan
        What the archive has and what was wanted of it.
    taken, reused : int
        Objects whose rows are now in the cache; of these, those that an earlier, killed sync had downloaded.
    records, outside, unusable : int
        Lines read; lines of `asset_ctxs` stamped on another day; values left out because they are no price.
    set_aside : list of (str, str)
        Objects that were not taken, and why. The next sync tries them again.
    merges : list of MergeReport
        One a batch.
    """

    plan: Plan
    taken: int = 0
    reused: int = 0
    records: int = 0
    outside: int = 0
    unusable: int = 0
    set_aside: list[tuple[str, str]] = field(default_factory=list)
    merges: list[MergeReport] = field(default_factory=list)

    @property
    def months(self) -> list[str]:
        """Months that were written."""
        return sorted({month for merge in self.merges for month in merge.months})

    @property
    def problems(self) -> list[str]:
        """A line for each object set aside and each conflict; empty when all went well."""
        return [*(f"{key} {reason}" for key, reason in self.set_aside), *map(str, self.conflicts)]

    @property
    def conflicts(self) -> list[Conflict]:
        """Values that contradict the cache."""
        return [conflict for merge in self.merges for conflict in merge.conflicts]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        figures = ("taken", "reused", "records", "outside", "unusable")
        return {
            **{name: getattr(self, name) for name in figures},
            "bytes": self.plan.bytes,
            "added": sum(merge.added for merge in self.merges),
            "raised": sum(merge.raised for merge in self.merges),
            "overruled": sum(merge.overruled for merge in self.merges),
            "months": self.months,
            "set_aside": [{"key": key, "reason": reason} for key, reason in self.set_aside],
            "conflicts": [asdict(conflict) for conflict in self.conflicts],
            "disagreements": [
                {"months": list(merge.months), **asdict(apart)}
                for merge in self.merges
                for apart in merge.disagreements
            ],
            "plan": self.plan.to_dict(),
        }

    def summary(self) -> str:
        """A few lines for people."""
        held = len(self.plan.items) - len(self.plan.wanted)
        added = sum(merge.added for merge in self.merges)
        lines = [
            f"{self.taken:,} objects taken ({self.plan.bytes / 1e6:,.1f} MB wanted, {self.reused:,} downloaded by an "
            f"earlier run), {held:,} were there already; {added:,} values added"
            + (f", months {self.months[0]} to {self.months[-1]}." if self.months else "."),
            *differences(self.merges),
            *describe(self.plan),
        ]
        if self.unusable:
            lines.append(f"{self.unusable:,} values are no price (0 or less) and were left out as not observed.")
        return "\n".join(lines)


def sync_s3(
    store: Store,
    source: Source,
    plan: Plan,
    *,
    keep_raw: bool = False,
    replace: bool = False,
    jobs: int = 8,
    progress: Progress | None = None,
) -> SyncReport:
    """Bring everything that a plan wants into the cache.

    Parameters
    ----------
    store : Store
        The cache; made when absent.
    source : Source
        The bucket.
    plan : Plan
        Of :func:`engine.data.s3_archive.make_plan`.
    keep_raw : bool
        Leave the downloaded objects in ``raw/`` of the cache.
    replace : bool
        Take new values where the archive contradicts what it said before.
    jobs : int
        Downloads at once.
    progress : callable, optional
        Called with bytes done, bytes in all, and the object or month; from several threads.

    Returns
    -------
    SyncReport
        Objects that could not be had or read are set aside there, and all others taken.

    Raises
    ------
    DataError
        When nothing can be had (no account, no such bucket, no network), or for what :meth:`Store.merge` refuses.
        What was downloaded stays for the next run.
    """
    store.state_for(synthetic=False)
    store.tidy()
    work = _Sync(store, source, plan, keep_raw, replace, _Meter(plan.bytes, progress))
    try:
        with locked(store.path / INCOMING):
            _tidy(store, plan)
            pool = ThreadPoolExecutor(jobs)
            try:
                for batch in _batches(plan):
                    work.take(batch, pool)
            finally:
                # What waits is dropped when something fails.
                pool.shutdown(wait=True, cancel_futures=True)
    except OSError as error:
        raise DataError(
            f"Writing below {store.path} failed: {error.strerror or error}. Free some space (or mend the permissions) "
            "and run the command again: what was downloaded whole is kept."
        ) from error
    return work.report


def _tidy(store: Store, plan: Plan) -> None:
    """Remove what a killed sync left: halves of downloads, and downloads whose rows are in the cache."""
    for folder in (INCOMING, RAW):
        for path in sorted((store.path / folder).rglob(".*.writing")):
            path.unlink()
    wanted = {item.key for item in plan.wanted}
    for item in plan.items:
        path = store.path / INCOMING / item.key
        if item.key not in wanted and path.exists():
            _discard(store.path / INCOMING, path)


def _batches(plan: Plan) -> Iterator[list[Item]]:
    """What is wanted, in order: a month of a dataset at most, and whole days of at most :data:`BATCH_BYTES` together.

    New versions of objects that are in the cache stand apart, for they may contradict it.
    """

    def kind(item: Item) -> tuple[str, bool, str]:
        return item.dataset, item.key in plan.republished, item.group

    for _, items in groupby(sorted(plan.wanted, key=lambda item: (kind(item), item.day, item.key)), key=kind):
        batch: list[Item] = []
        size = 0
        for _, same_day in groupby(items, key=lambda item: item.day):
            day = list(same_day)
            size += sum(item.size for item in day)
            if batch and size > BATCH_BYTES:
                yield batch
                batch, size = [], sum(item.size for item in day)
            batch += day
        yield batch


class _Meter:
    """Bytes that came, counted over threads."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress, self._done, self._lock = total, progress, 0, threading.Lock()

    def step(self, size: int, what: str) -> None:
        with self._lock:
            self._done += size
            if self._progress:
                self._progress(self._done, self._total, what)


class _Sync:
    """A sync in progress."""

    def __init__(self, store: Store, source: Source, plan: Plan, keep_raw: bool, replace: bool, meter: _Meter) -> None:
        self.store, self.source, self.plan, self.meter = store, source, plan, meter
        self.keep_raw, self.replace = keep_raw, replace
        self.report = SyncReport(plan)

    def take(self, batch: Sequence[Item], pool: ThreadPoolExecutor) -> None:
        """Download, reduce and commit one batch."""
        waiting = [(item, pool.submit(self._download, item)) for item in batch]
        rows = _Hourly()
        records: list[ObjectRecord] = []
        paths: list[Path] = []
        for item, future in waiting:
            try:
                path, sha256, reused = future.result()
            except FetchError as error:
                self.report.set_aside.append((item.key, str(error)))
                continue
            paths.append(path)
            try:
                count = rows.add(item, path.read_bytes(), self.report)
            except ObjectError as error:
                self.report.set_aside.append((item.key, str(error)))
                path.unlink()  # not to be taken for a good download by the next run
            else:
                records.append(ObjectRecord(item.key, item.etag, item.size, sha256, count))
                self.report.reused += reused
        self._commit(batch[0], rows, records)
        for path in paths:
            if path.is_relative_to(self.store.path / INCOMING):
                _discard(self.store.path / INCOMING, path)

    def _commit(self, first: Item, rows: _Hourly, records: list[ObjectRecord]) -> None:
        self.meter.step(0, f"writing {first.group}")
        name = S3 if first.dataset == ASSET_CTXS else L2BOOK
        objects = {first.group: records} if records else {}
        if first.key in self.plan.republished and not self.replace:
            # Contradicted rows were not taken, so the new version does not count as taken either.
            merge = self.store.merge(rows.tables(), name)
            if not merge.conflicts:
                self.store.merge([], name, objects=objects)
            self.report.taken += 0 if merge.conflicts else len(records)
        else:
            merge = self.store.merge(rows.tables(), name, objects=objects, replace=self.replace)
            self.report.taken += len(records)
        self.report.merges.append(merge)

    def _download(self, item: Item) -> tuple[Path, str, bool]:
        """Where the object lies, its SHA-256, and whether it was there before."""
        path = self.store.path / (RAW if self.keep_raw else INCOMING) / item.key
        for old in (self.store.path / RAW / item.key, self.store.path / INCOMING / item.key):
            sha256 = whole(old, item)
            if sha256 is not None:
                if self.keep_raw and old != path:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    old.replace(path)
                    old = path
                self.meter.step(item.size, item.key)
                return old, sha256, True
        path.parent.mkdir(parents=True, exist_ok=True)
        return path, self.source.fetch(item, path, lambda size: self.meter.step(size, item.key)), False


class _Hourly:
    """The rows of a batch."""

    def __init__(self) -> None:
        self._days: list[Any] = []
        self._quotes: dict[int, list[tuple[str, Quote]]] = defaultdict(list)

    def add(self, item: Item, content: bytes, report: SyncReport) -> int:
        """Put the rows of one object to the others; returns its records."""
        if item.coin is None:
            day = reduce_day(content, item.day)
            self._days.append(day.table)
            report.records += day.records
            report.outside += day.outside
            report.unusable += day.unusable
            return day.records
        quote = last_quote(content, item.coin, int(item.instant.timestamp() * 1000))
        self._quotes[hour_number(item.instant)].append((item.coin, quote))
        report.records += 1
        return 1

    def tables(self) -> list[Any]:
        """Tables of the schema, one a day or instant: a table is the unit of trust in a merge."""
        return self._days + [_quotes_table(hour, found) for hour, found in sorted(self._quotes.items())]


def _quotes_table(hour: int, found: Sequence[tuple[str, Quote]]) -> Any:
    """The quotes of one instant as a table of the schema."""
    fields = {name: np.array([quote.values[name] for _, quote in found]) for name in FIELDS}
    codes = np.arange(len(found), dtype=np.int64)
    return to_table([coin for coin, _ in found], codes, np.full(len(found), hour, dtype=np.int64), fields)


def _discard(root: Path, path: Path) -> None:
    """Remove a file under `root`, and the folders that are empty then."""
    path.unlink(missing_ok=True)
    with suppress(OSError):
        while (path := path.parent) != root:
            path.rmdir()
