"""The cache: one parquet file a month and source, and a manifest; written by append-only merges.

::

    data_cache/
      manifest.json                      the files of the cache; the coin table; replaced atomically
      hourly/2024-10-s3.1f2e3d4c5b6a.parquet   a month of one source, named by its own digest
      objects/asset_ctxs-2024-10.....parquet   objects of an archive that are in it (engine.data.manifest)
      .lock                              one writer at a time

A write puts the new files beside the old ones, then replaces the manifest, then removes the old ones. Killed at any
moment, it leaves the cache as before or as after; leftover files are removed by the next write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from engine.atomic_io import locked, sync_folder, write_durable
from engine.data.cache_files import HOURLY, data_files, leftovers, sweep
from engine.data.coin_names import dexes_of
from engine.data.coin_table import CoinMeta, Span, widen, with_metas
from engine.data.hourly_file import HourlyFile, encode_month
from engine.data.manifest import FOLDER as OBJECTS
from engine.data.manifest import (
    MANIFEST,
    REBUILD,
    FileEntry,
    Interval,
    Manifest,
    ObjectRecord,
    ObjectsEntry,
    decode,
    encode,
    joined,
    read_manifest,
)
from engine.data.merge import Cube, coins_touched, months_touched
from engine.data.merge_report import MergeReport, Tally
from engine.data.price_checks import ImpossiblePrice, set_aside
from engine.data.schema import Rows, month_key, read_rows
from engine.errors import DataError

#: The source name of made-up data. A cache is synthetic as a whole or not at all.
SYNTHETIC = "synthetic"
#: How long a writer waits for another one.
LOCK_SECONDS = 60.0
Progress = Callable[[int, int, str], None]
Result = TypeVar("Result")
Entry = TypeVar("Entry")


class CacheFileError(DataError):
    """A file of the manifest is missing, or does not match its digest."""


@dataclass(frozen=True)
class VerifyReport:
    """The result of :meth:`Store.verify`.

    Attributes
    ----------
    files, bytes : int
        Files of the manifest, and their size.
    missing, changed : tuple of str
        Files of the manifest that are absent; whose content does not match their digest.
    foreign : tuple of str
        Files under ``hourly/`` and ``objects/`` that are not in the manifest, and leftovers of killed writers. They do
        no harm.
    """

    files: int
    bytes: int
    missing: tuple[str, ...]
    changed: tuple[str, ...]
    foreign: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every file of the manifest is intact."""
        return not (self.missing or self.changed)


class Store:
    """A cache folder. The constructor reads and writes nothing.

    Parameters
    ----------
    path : path
        The folder; made by the first write.
    strict : bool
        Refuse tables with an impossible price (:func:`engine.data.price_checks.set_aside`); otherwise it is set aside
        and reported.
    """

    def __init__(self, path: str | Path, strict: bool = False) -> None:
        self.path, self.strict = Path(path), strict

    def manifest(self) -> Manifest | None:
        """The state of the cache; None when it was never written to.

        Raises
        ------
        DataError
            When the manifest is damaged, newer than this version, or missing beside files of data.
        """
        manifest = read_manifest(self.path)
        if manifest is None and (files := data_files(self.path)):
            raise DataError(f"{self.path} has {len(files)} files of data, but no {MANIFEST}. {REBUILD}")
        return manifest

    def require(self) -> Manifest:
        """The state of a cache that has data.

        Raises
        ------
        DataError
            When there is none.
        """
        manifest = self.manifest()
        if manifest is None or not manifest.files:
            absent = not self.path.exists()
            what = "does not exist" if absent else "is empty" if self.path.is_dir() else "is a file and no folder"
            raise DataError(
                f"The data cache {self.path} {what}. Fill it with `hlbt data sync --source api` or `--source s3` or "
                "`hlbt data import freqtrade DIR`, or run `hlbt demo` for the built-in synthetic sample, kept in "
                "data_cache/sample; --set data.cache=DIR or HLBT_DATA_CACHE names another cache."
            )
        return manifest

    def notes(self) -> tuple[str, ...]:
        """What the cache's users should know of holes in it."""
        return (self.manifest() or Manifest(False)).notes()

    def price_span(self, manifest: Manifest, dexes: Collection[str] | None = None) -> Span:
        """First and last row of the cache that has any price, of all dexes or of some.

        Raises
        ------
        DataError
            When there is none.
        """
        span = manifest.span(dexes)
        if span is not None:
            return span
        if manifest.span() is None:
            raise DataError(f"The cache {self.path} has no price yet, only funding. Import candles or quotes too.")
        raise DataError(
            f"The cache {self.path} has no price of data.dexes = {list(dexes or ())}, but of "
            f"{list(dexes_of(manifest.coins))}. Set data.dexes, or `hlbt data sync --source api --set data.dexes=...`."
        )

    def consistent(self, read: Callable[[Manifest], Result]) -> Result:
        """Run `read` on one state of the cache; again on the newer one when a writer removed its files meanwhile."""
        while True:
            manifest = self.require()
            try:
                return read(manifest)
            except CacheFileError:
                if self.manifest() == manifest:
                    raise

    def read(self, entry: FileEntry, fields: Sequence[str] | None = None) -> Rows:
        """Read a file of the cache.

        Parameters
        ----------
        entry : FileEntry
            A file of the manifest.
        fields : sequence of str, optional
            Columns to read; those that the file lacks are left out. Default: all.

        Raises
        ------
        CacheFileError
            When the file is missing, or its content does not match its digest.
        """
        file = self.open(entry)
        names = [name for name in entry.fields if fields is None or name in fields]
        return Rows(file.coins, file.codes, file.hours, file.read(names))

    def open(self, entry: FileEntry) -> HourlyFile:
        """A file of the cache whose fields are read one by one.

        Raises
        ------
        CacheFileError
            When the file is missing, or its content does not match its digest.
        """
        return HourlyFile(entry, self._content(entry))

    def read_objects(self) -> dict[str, ObjectRecord]:
        """Every downloaded object, by key."""
        manifest = self.manifest() or Manifest(False)
        return {key: record for entry in manifest.objects.values() for key, record in self._records(entry).items()}

    def _records(self, entry: ObjectsEntry | None) -> dict[str, ObjectRecord]:
        return {} if entry is None else decode(self._content(entry))

    def _content(self, entry: FileEntry | ObjectsEntry) -> bytes:
        """A file, checked against its digest: parquet itself reads a wrong byte as another number."""
        path = self.path / entry.name
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise CacheFileError(f"{path} is missing, though it is in the manifest. {REBUILD}") from error
        except OSError as error:
            raise CacheFileError(f"{path} cannot be read: {error.strerror}. {REBUILD}") from error
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise CacheFileError(f"{path} was changed: its content does not match its digest. {REBUILD}")
        return content

    def merge(
        self,
        tables: Iterable[Any],
        source: str,
        *,
        mended: Iterable[Any] = (),
        replace: bool = False,
        longer: bool = False,
        impossible: Iterable[ImpossiblePrice] = (),
        dry_run: bool = False,
        meta: Iterable[CoinMeta] = (),
        objects: Mapping[str, Sequence[ObjectRecord]] | None = None,
        asked: Mapping[str, Mapping[str, tuple[Interval, ...]]] | None = None,
        progress: Progress | None = None,
    ) -> MergeReport:
        """Add data, in one commit.

        New cells fill absent ones of the same source. A cell that has another value (relative difference above 1e-9) is
        a conflict: the cached value stays, and the conflict is reported. What other sources have of the same cells is
        compared and reported; nothing of them is written.

        Parameters
        ----------
        tables : iterable of pyarrow.Table
            Tables of :mod:`engine.data.schema`. They are merged in order, so a later one can conflict with an earlier.
        source : str
            Name of the source, of lower-case letters and digits; ``"synthetic"`` marks made-up data.
        mended : iterable of pyarrow.Table
            More tables, of rows that may have been cached before they were final: their values replace cached ones.
        replace : bool
            Take the new value of a conflicting cell instead.
        longer : bool
            Whether the tables are files published anew, each perhaps longer than before: the last row that the cache
            has of a coin then gives way (:meth:`engine.data.merge.Cube.take`).
        impossible : iterable of ImpossiblePrice
            What was set aside before, while the tables were read.
        dry_run : bool
            Only report what a merge would do.
        meta : iterable of CoinMeta
            Coins for the coin table; their origin is `source`.
        objects : mapping of str to sequence of ObjectRecord, optional
            Objects whose rows the tables hold, by dataset and month (``"asset_ctxs-2024-10"``). Where there is a
            conflict, their records say so.
        asked : mapping, optional
            New intervals of :attr:`engine.data.manifest.Manifest.asked`; those of other coins stay.
        progress : callable, optional
            Called with months done, months in all, and the month's name.

        Raises
        ------
        DataError
            For a table that breaks the schema, a cache in use by another writer, synthetic data for a real cache or the
            reverse, a full disk. The cache is then as before.
        """
        tally = Tally(impossible)
        final = list(self._believed(mended, source, tally))
        parts = [*self._believed(tables, source, tally), *final]

        def taken(before: Manifest) -> Cube:
            cubes = self._cubes(before, source, parts)
            for rows in parts:
                cubes[source].take(rows, replace or rows in final, tally, longer)
                for other in cubes.keys() - {source}:
                    cubes[other].compare(rows, source, other, tally)
            return cubes[source]

        if dry_run:
            if parts:
                taken(self.state_for(source == SYNTHETIC))
            return tally.report(source, ())
        written: list[str] = []
        with _Writing(self, progress) as writing:
            before = self.state_for(source == SYNTHETIC)
            coins = with_metas(before.coins, meta, source, None)
            files = dict(before.files)
            if parts:
                cube = taken(before)
                written = self._write_months(cube, source, files, progress)
                widen(coins, cube, source)
            records = self._write_objects(before, objects or {}, contradicts=tally.refused > 0)
            intervals = {kind: {**before.asked.get(kind, {}), **spans} for kind, spans in (asked or {}).items()}
            after = Manifest(before.synthetic, _sorted(files), _sorted(coins), records, {**before.asked, **intervals})
            writing.commit(before, after)
        return tally.report(source, written)

    def update_coin_table(
        self, metas: Sequence[CoinMeta], origin: str, as_of: pd.Timestamp | None
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Put the coins of a `meta` response into the coin table; returns the names added and the names changed."""
        with _Writing(self) as writing:
            before = self.state_for(False)
            coins = with_metas(before.coins, metas, origin, as_of)
            writing.commit(before, replace(before, coins=_sorted(coins)))
        added = tuple(name for name in coins if name not in before.coins)
        return added, tuple(name for name, old in before.coins.items() if coins[name] != old)

    def tidy(self) -> None:
        """Remove leftovers of killed writers; every write does, so this is for a command that has nothing to write."""
        manifest = self.manifest()
        if manifest is not None and leftovers(self.path, {entry.name for entry in manifest.entries}):
            with _Writing(self):
                pass

    def verify(self, progress: Progress | None = None) -> VerifyReport:
        """Check every file against its digest.

        Raises
        ------
        DataError
            When the cache is empty or its manifest damaged.
        """
        entries = self.require().entries
        missing: list[str] = []
        changed: list[str] = []
        for done, entry in enumerate(entries):
            if progress:
                progress(done, len(entries), entry.name)
            try:
                self._content(entry)
            except CacheFileError as error:
                (missing if isinstance(error.__cause__, FileNotFoundError) else changed).append(entry.name)
        if progress:
            progress(len(entries), len(entries), "done")
        kept = {entry.name for entry in entries}
        foreign = set(leftovers(self.path, kept))
        for folder in (self.path / HOURLY, self.path / OBJECTS):
            if folder.is_dir():
                foreign |= {path for path in folder.iterdir() if str(path.relative_to(self.path)) not in kept}
        names = sorted(str(path.relative_to(self.path)) for path in foreign)
        size = sum(entry.bytes for entry in entries)
        return VerifyReport(len(entries), size, tuple(missing), tuple(changed), tuple(names))

    def state_for(self, synthetic: bool) -> Manifest:
        """The state before a write; refuses to mix made-up and real data."""
        manifest = self.manifest()
        if manifest is None or not (manifest.files or manifest.coins):
            return Manifest(synthetic)
        if manifest.synthetic != synthetic:
            held, offered = ("synthetic", "real") if manifest.synthetic else ("real", "synthetic")
            raise DataError(
                f"The cache {self.path} holds {held} data and these are {offered}; the two never mix. Use another "
                "folder (--set data.cache=DIR or HLBT_DATA_CACHE)."
            )
        return manifest

    def _believed(self, tables: Iterable[Any], source: str, tally: Tally) -> Iterator[Rows]:
        """The rows of tables that have any, without their impossible prices."""
        for table in tables:
            rows, contradicted = set_aside(read_rows(table, source))
            tally.impossible += contradicted
            if len(rows.codes):
                yield rows
        if self.strict and tally.impossible:
            raise DataError(
                f"{source}: {len(tally.impossible)} impossible prices, the first of {tally.impossible[0]}. Nothing of "
                "it was taken (--strict); without --strict those hours are set aside and all others are taken."
            )

    def _cubes(self, manifest: Manifest, source: str, parts: Sequence[Rows]) -> dict[str, Cube]:
        """By source, what the cache has in the months of `parts`: all of `source`, of others the fields of `parts`."""
        months = [int(month) for month in months_touched(parts)]
        named, common = set(map(month_key, months)), {name for rows in parts for name in rows.fields}
        loaded: dict[str, list[Rows]] = {source: []}
        for entry in manifest.files.values():
            if entry.month in named and (entry.source == source or common & set(entry.fields)):
                rows = self.read(entry, None if entry.source == source else sorted(common))
                loaded.setdefault(entry.source, []).append(rows)
        cubes = {}
        for name, old in loaded.items():
            cubes[name] = Cube(months, coins_touched([*parts, *old]))
            for rows in old:
                cubes[name].load(rows)
        return cubes

    def _write_months(
        self, cube: Cube, source: str, files: dict[str, FileEntry], progress: Progress | None
    ) -> list[str]:
        """Write the changed months beside the old files, and put their entries into `files`."""
        changed = sorted(cube.changed)
        (self.path / HOURLY).mkdir(exist_ok=True)
        for done, month in enumerate(changed):
            if progress:
                progress(done, len(changed), month_key(month))
            entry, content = encode_month(cube, month, source)
            write_durable(self.path / entry.name, content)
            files[entry.key] = entry
        if changed:
            sync_folder(self.path / HOURLY)
            if progress:
                progress(len(changed), len(changed), "commit")
        return [month_key(month) for month in changed]

    def _write_objects(
        self, before: Manifest, objects: Mapping[str, Sequence[ObjectRecord]], contradicts: bool
    ) -> dict[str, ObjectsEntry]:
        """Write the changed files of records; the entries of all."""
        entries = dict(before.objects)
        for group, records in objects.items():
            new = [replace(record, contradicts=contradicts) for record in records]
            entry, content = encode(group, joined(self._records(entries.get(group)), new))
            if entry != entries.get(group):
                (self.path / OBJECTS).mkdir(exist_ok=True)
                write_durable(self.path / entry.name, content)
                entries[group] = entry
        if entries != before.objects:
            sync_folder(self.path / OBJECTS)
        return _sorted(entries)


class _Writing:
    """A write in progress: the lock, the commit, and a clean folder whatever happens."""

    def __init__(self, store: Store, progress: Progress | None = None) -> None:
        self.store = store
        self.committed = False
        waiting = (lambda: progress(0, 1, "waiting for another writer")) if progress else None
        self._lock = locked(store.path, LOCK_SECONDS, waiting)

    def __enter__(self) -> _Writing:
        try:
            self._lock.__enter__()
        except OSError as error:
            raise DataError(
                f"The cache {self.store.path} cannot be written to: {error.strerror}. Name another folder with --set "
                "data.cache=DIR or HLBT_DATA_CACHE."
            ) from error
        try:
            # Leftovers of a killed writer go first: they may be what fills the disk. Before the first file there is a
            # manifest, so that files without one are never taken for leftovers.
            if self.store.manifest() is None:
                write_durable(self.store.path / MANIFEST, Manifest(False).to_bytes())
                sync_folder(self.store.path)
            self._sweep()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def _sweep(self) -> None:
        """Remove files that are not in the manifest on the disk; nothing when it cannot be read."""
        with suppress(DataError):
            manifest = self.store.manifest()
            sweep(self.store.path, {entry.name for entry in manifest.entries} if manifest else ())

    def commit(self, before: Manifest, after: Manifest) -> None:
        """Replace the manifest, unless nothing changed."""
        folder = self.store.path
        content = after.to_bytes()
        if after != before or not (folder / MANIFEST).exists():
            write_durable(folder / MANIFEST, content)
            self.committed = True
            sync_folder(folder)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            # After a commit the old files are removed, before it the new ones. A commit that is perhaps not on the disk
            # yet keeps both: after a power cut the old manifest may be back.
            if not (self.committed and error is not None):
                self._sweep()
        finally:
            self._lock.__exit__(None, None, None)
        if isinstance(error, OSError):
            state = (
                "The new data are in place, but perhaps not after a power cut: check with `hlbt data verify`."
                if self.committed
                else "Nothing was merged and the cache is as before. Free some space (or correct the permissions) and "
                "run the command again."
            )
            reason = error.strerror or error
            raise DataError(f"Writing to the cache {self.store.path} failed: {reason}. {state}") from error


def _sorted(values: Mapping[str, Entry]) -> dict[str, Entry]:
    return dict(sorted(values.items()))
