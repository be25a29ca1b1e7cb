"""``hlbt data sync --source s3``: download the objects of a plan, reduce them to hourly rows, merge them in batches.

Objects are downloaded into ``incoming/`` of the cache and merged in batches of a month; a batch is one commit, with the
record of its objects, and then its downloads are removed. Killed at any moment, the next sync uses the downloads that
are complete.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from engine.atomic_io import locked
from engine.data.asset_ctxs import ObjectError, reduce_day, sorted_table
from engine.data.cache import Progress, Store
from engine.data.l2book import FIELDS, Quote, last_quote
from engine.data.manifest import ObjectRecord
from engine.data.merge import L2BOOK, S3
from engine.data.merge_report import Conflict, MergeReport, combined, differences
from engine.data.s3_archive import (
    ASSET_CTXS,
    ArchiveObject,
    DownloadPlan,
    FetchError,
    Source,
    describe,
    verified_sha256,
)
from engine.data.schema import hour_number
from engine.errors import DataError

#: Folders of downloads that wait for their commit, and of objects that the user keeps.
INCOMING = "incoming"
RAW = "raw"
#: A batch is a month, or less where its downloads are larger than this together.
BATCH_BYTES = 1_000_000_000


@dataclass
class SyncReport:
    """The result of :func:`sync_s3`.

    Attributes
    ----------
    plan : DownloadPlan
        The objects of the archive, and those that were to be downloaded.
    taken, reused : int
        Objects whose rows are now in the cache; of these, those that an earlier, killed sync had downloaded.
    records, outside, unusable : int
        Lines read; lines of `asset_ctxs` stamped on another day; values left out because they are not prices.
    skipped : list of (str, str)
        Objects that were not merged, and why. The next sync tries them again.
    merges : list of MergeReport
        One a batch.
    """

    plan: DownloadPlan
    taken: int = 0
    reused: int = 0
    records: int = 0
    outside: int = 0
    unusable: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    merges: list[MergeReport] = field(default_factory=list)

    @property
    def merge(self) -> MergeReport:
        """All merges together."""
        return combined(S3, self.merges)

    @property
    def months(self) -> list[str]:
        """Months that were written."""
        return list(self.merge.months)

    @property
    def conflicts(self) -> tuple[Conflict, ...]:
        """Values that contradict the cache."""
        return self.merge.conflicts

    @property
    def problems(self) -> list[str]:
        """A line for each skipped object and each conflict; empty when everything was merged."""
        return [*(f"{key} {reason}" for key, reason in self.skipped), *map(str, self.conflicts)]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        counts = ("taken", "reused", "records", "outside", "unusable")
        merge = self.merge.to_dict()
        return {
            **{name: getattr(self, name) for name in counts},
            "bytes": self.plan.bytes,
            **{name: merge[name] for name in ("added", "raised", "overruled", "months", "conflicts")},
            "set_aside": [{"key": key, "reason": reason} for key, reason in self.skipped],
            "disagreements": [
                {"months": list(merge.months), **asdict(disagreement)}
                for merge in self.merges
                for disagreement in merge.disagreements
            ],
            "plan": self.plan.to_dict(),
        }

    def summary(self) -> str:
        """A few lines for the terminal."""
        cached = len(self.plan.items) - len(self.plan.wanted)
        merge = self.merge
        lines = [
            f"{self.taken:,} objects taken ({self.plan.bytes / 1e6:,.1f} MB wanted, {self.reused:,} downloaded by an "
            f"earlier run), {cached:,} were there already; {merge.added:,} values added"
            + (f", months {merge.months[0]} to {merge.months[-1]}." if merge.months else "."),
            *differences(self.merges),
            *describe(self.plan),
        ]
        if self.unusable:
            lines.append(f"{self.unusable:,} values are not prices (0 or less) and were left out as not observed.")
        return "\n".join(lines)


def sync_s3(
    store: Store,
    source: Source,
    plan: DownloadPlan,
    *,
    keep_raw: bool = False,
    replace: bool = False,
    jobs: int = 8,
    progress: Progress | None = None,
) -> SyncReport:
    """Download the objects of a plan and merge them into the cache.

    Parameters
    ----------
    store : Store
        The cache; made when absent.
    source : Source
        The bucket.
    plan : DownloadPlan
        Of :func:`engine.data.s3_archive.plan_downloads`.
    keep_raw : bool
        Keep the downloaded objects in ``raw/`` of the cache.
    replace : bool
        Take new values where the archive contradicts an earlier version of an object.
    jobs : int
        Downloads at once.
    progress : callable, optional
        Called with bytes done, bytes in all, and the object or month; from several threads.

    Returns
    -------
    SyncReport
        Objects that could not be downloaded or read are among its `skipped`, and all others merged.

    Raises
    ------
    DataError
        When nothing can be downloaded (no account, no such bucket, no network), or for what :meth:`Store.merge`
        refuses. Downloads stay for the next run.
    """
    store.state_for(synthetic=False)
    store.tidy()
    sync = _Sync(store, source, plan, keep_raw, replace, _Meter(plan.bytes, progress))
    try:
        with locked(store.path / INCOMING):
            _tidy(store, plan)
            pool = ThreadPoolExecutor(jobs)
            try:
                for batch in _batches(plan):
                    sync.take(batch, pool)
            finally:
                # After a failure, downloads that have not begun are dropped.
                pool.shutdown(wait=True, cancel_futures=True)
    except OSError as error:
        raise DataError(
            f"Writing below {store.path} failed: {error.strerror or error}. Free some space (or correct the "
            "permissions) and run the command again: complete downloads are kept."
        ) from error
    return sync.report


def _tidy(store: Store, plan: DownloadPlan) -> None:
    """Remove leftovers of a killed sync: incomplete downloads, and those whose rows are in the cache."""
    for folder in (INCOMING, RAW):
        for path in sorted((store.path / folder).rglob(".*.writing")):
            path.unlink()
    wanted = {item.key for item in plan.wanted}
    for item in plan.items:
        path = store.path / INCOMING / item.key
        if item.key not in wanted and path.exists():
            _discard(store.path / INCOMING, path)


def _batches(plan: DownloadPlan) -> Iterator[list[ArchiveObject]]:
    """The objects to download in order, by at most a month of a dataset, whole days of :data:`BATCH_BYTES` together.

    New versions of objects that are in the cache are batches of their own, because they may contradict it.
    """

    def kind(item: ArchiveObject) -> tuple[str, bool, str]:
        return item.dataset, item.key in plan.republished, item.group

    for _, items in groupby(sorted(plan.wanted, key=lambda item: (kind(item), item.day, item.key)), key=kind):
        batch: list[ArchiveObject] = []
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
    """Bytes received by all threads."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress, self._done, self._lock = total, progress, 0, threading.Lock()

    def step(self, size: int, what: str) -> None:
        with self._lock:
            self._done += size
            if self._progress:
                self._progress(self._done, self._total, what)


class _Sync:
    """A sync in progress."""

    def __init__(
        self, store: Store, source: Source, plan: DownloadPlan, keep_raw: bool, replace: bool, meter: _Meter
    ) -> None:
        self.store, self.source, self.plan, self.meter = store, source, plan, meter
        self.keep_raw, self.replace = keep_raw, replace
        self.report = SyncReport(plan)

    def take(self, batch: Sequence[ArchiveObject], pool: ThreadPoolExecutor) -> None:
        """Download, reduce and commit one batch."""
        waiting = [(item, pool.submit(self._download, item)) for item in batch]
        rows = _Hourly()
        records: list[ObjectRecord] = []
        paths: list[Path] = []
        for item, future in waiting:
            try:
                path, sha256, reused = future.result()
            except FetchError as error:
                self.report.skipped.append((item.key, str(error)))
                continue
            paths.append(path)
            try:
                count = rows.add(item, path.read_bytes(), self.report)
            except ObjectError as error:
                self.report.skipped.append((item.key, str(error)))
                path.unlink()  # the next run must not take it for a good download
            else:
                records.append(ObjectRecord(item.key, item.etag, item.size, sha256, count))
                self.report.reused += reused
        self._commit(batch[0], rows, records)
        for path in paths:
            if path.is_relative_to(self.store.path / INCOMING):
                _discard(self.store.path / INCOMING, path)

    def _commit(self, first: ArchiveObject, rows: _Hourly, records: list[ObjectRecord]) -> None:
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

    def _download(self, item: ArchiveObject) -> tuple[Path, str, bool]:
        """Path of the object, its SHA-256, and whether it had been downloaded before."""
        path = self.store.path / (RAW if self.keep_raw else INCOMING) / item.key
        for old in (self.store.path / RAW / item.key, self.store.path / INCOMING / item.key):
            sha256 = verified_sha256(old, item)
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

    def add(self, item: ArchiveObject, content: bytes, report: SyncReport) -> int:
        """Add the rows of one object; returns its records."""
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
        return self._days + [_quotes_table(hour, quotes) for hour, quotes in sorted(self._quotes.items())]


def _quotes_table(hour: int, quotes: Sequence[tuple[str, Quote]]) -> Any:
    """The quotes of one instant as a table of the schema."""
    fields = {name: np.array([quote.values[name] for _, quote in quotes]) for name in FIELDS}
    codes = np.arange(len(quotes), dtype=np.int64)
    return sorted_table([coin for coin, _ in quotes], codes, np.full(len(quotes), hour, dtype=np.int64), fields)


def _discard(root: Path, path: Path) -> None:
    """Remove a file under `root`, and the folders that are empty then."""
    path.unlink(missing_ok=True)
    with suppress(OSError):
        while (path := path.parent) != root:
            path.rmdir()
