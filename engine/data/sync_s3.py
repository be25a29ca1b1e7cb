"""``hlbt data sync --source s3``: download the objects of a plan, reduce them to hourly rows, merge them in batches.

Objects are downloaded into ``incoming/`` of the cache and merged in batches of a month; a batch is one commit, with the
record of its objects, and then its downloads are removed. Killed at any moment, the next sync uses the downloads that
are complete.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
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
from engine.data.merge_report import MergeReport, combined
from engine.data.s3_archive import (
    ASSET_CTXS,
    ArchiveObject,
    DownloadPlan,
    FetchError,
    Source,
    describe,
    describe_short,
    short_objects,
    verified_sha256,
)
from engine.data.schema import hour_number
from engine.data.sync_report import SkippedItem, SyncReport
from engine.errors import DataError, join_first

#: Folders of downloads that wait for their commit, and of objects that the user keeps.
INCOMING = "incoming"
RAW = "raw"
#: A batch is a month, or less where its downloads are larger than this together.
BATCH_BYTES = 1_000_000_000


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
        Objects that could not be downloaded or read are its `skipped`; all others were merged.

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
    return sync.report()


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

    New versions of objects that are in the cache are batches of their own: they may contradict it, and a batch's
    records say whether one of them does.
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
        self.counts = Counter(taken=0, reused=0, cached=len(plan.items) - len(plan.wanted), records=0)
        self.counts.update(outside=0, unusable=0, stale=0, bytes=plan.bytes)
        self.skipped: list[SkippedItem] = []
        self.older: list[str] = []
        self.held = store.read_objects() if plan.republished else {}
        self.merges: list[MergeReport] = []

    def report(self) -> SyncReport:
        """The report of the batches that were taken."""
        every = self.store.read_objects()
        against = [item.key for item in self.plan.items if item.key in every and every[item.key].contradicts]
        notes = [*describe(self.plan), *self.source.notes()]
        if against and not self.replace:
            notes.append(
                f"{len(against)} objects, or others of their month, contradict the cache, whose values were kept "
                f"({join_first(against)}); --replace downloads them again and takes theirs."
            )
        short = short_objects(every[item.key] for item in self.plan.items if item.key in every)
        notes += describe_short(short)
        details = {"plan": self.plan.to_dict(), "short_objects": short}
        if self.older:
            notes.append(
                f"{len(self.older)} objects end before the version of the same day in the cache and were left out: "
                f"{join_first(self.older)}."
            )
        merge = combined(S3, self.merges)
        return SyncReport(S3, self.counts, merge, tuple(self.skipped), (*notes, *self.store.notes()), details)

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
                self.skipped.append(SkippedItem(item.key, str(error)))
                continue
            paths.append(path)
            try:
                held = self.held.get(item.key)
                added = rows.add(item, path.read_bytes(), self.counts, held.last if held else None)
            except ObjectError as error:
                self.skipped.append(SkippedItem(item.key, str(error)))
                path.unlink()  # the next run must not take it for a good download
            else:
                if added is None:
                    self.older.append(item.key)
                    continue
                records.append(ObjectRecord(item.key, item.etag, item.size, sha256, *added))
                self.counts.update(taken=1, reused=int(reused))
        group = batch[0].group
        self.meter.step(0, f"writing {group}")
        name = S3 if batch[0].dataset == ASSET_CTXS else L2BOOK
        objects = {group: records} if records else {}
        longer = batch[0].key in self.plan.republished
        self.merges.append(self.store.merge(rows.tables(), name, objects=objects, replace=self.replace, longer=longer))
        for path in paths:
            if path.is_relative_to(self.store.path / INCOMING):
                _discard(self.store.path / INCOMING, path)

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

    def add(
        self, item: ArchiveObject, content: bytes, counts: Counter[str], held: int | None = None
    ) -> tuple[int, int] | None:
        """Add the rows of one object; returns its records, and the second of the last one.

        Where that is before `held`, the last second of the version in the cache, nothing is added: None.
        """
        if item.coin is None:
            day = reduce_day(content, item.day)
            if held is not None and day.last < held:
                return None
            self._days.append(day.table)
            counts.update(records=day.records, outside=day.outside, unusable=day.unusable, stale=day.stale)
            return day.records, day.last
        quote = last_quote(content, item.coin, int(item.instant.timestamp() * 1000))
        self._quotes[hour_number(item.instant)].append((item.coin, quote))
        counts.update(records=1, stale=int(quote.stale))
        return 1, quote.milliseconds // 1000

    def tables(self) -> list[Any]:
        """Tables of the schema, one a day or instant, so that a merge sees where a day ended that is longer now."""
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
