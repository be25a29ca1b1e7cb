"""The manifest of a cache, made again from its files: nothing is deleted, and what is lost is named."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.atomic_io import locked, sync_folder, write_durable
from engine.data.cache import LOCK_SECONDS, SYNTHETIC, Progress, Store
from engine.data.cache_files import HOURLY, OURS, data_files
from engine.data.coin_table import CoinRecord, widen
from engine.data.hourly_file import entry_of
from engine.data.manifest import MANIFEST, FileEntry, Manifest, ObjectsEntry, decode
from engine.data.merge import API, FREQTRADE, L2BOOK, S3, TABLE, UNKNOWN, Cube
from engine.data.schema import SOURCE, month_key, month_number
from engine.errors import DataError

DAMAGED = ".damaged"
#: How what a source gave can be had again.
_AGAIN = {
    S3: "`hlbt data sync --source s3` downloads it again",
    L2BOOK: "`hlbt data sync --source s3 --quotes l2book` downloads it again",
    API: "`hlbt data sync --source api` brings the funding again, and candles and volumes of the last 5,000 hours; "
    "older candles are lost for good",
    FREQTRADE: "import freqtrade's files again",
    TABLE: "import the tables again",
    SYNTHETIC: "`hlbt demo` makes it again",
}
#: What is lost with the intervals of :attr:`engine.data.manifest.Manifest.asked`.
_ASKED = (
    "which hours the API was asked for: until `hlbt data sync --source api` asks again, an hour without a settled rate "
    "is paid at the archive's estimate"
)


@dataclass(frozen=True)
class RebuildReport:
    """The result of :func:`rebuild`.

    Attributes
    ----------
    files : int
        Files of the manifest now.
    damaged : tuple of str
        Files whose content does not match the digest in their name: kept as ``NAME.damaged``.
    lost : tuple of str
        What the cache does not have any more, and how it can be had again.
    wrote : bool
        Whether the manifest is another one now.
    """

    files: int
    damaged: tuple[str, ...]
    lost: tuple[str, ...]
    wrote: bool


def rebuild(store: Store, progress: Progress | None = None) -> RebuildReport:
    """Make the manifest of a cache from the files that are intact.

    Where the manifest can be read, it stays, without the files that are missing or damaged. Otherwise the names of the
    files give their digest and source, and their rows the spans of the coins.

    Parameters
    ----------
    store : Store
        The cache.
    progress : callable, optional
        Called with files done, files in all, file name.

    Raises
    ------
    DataError
        When there is no file of a cache, or another process writes to it.
    """
    if not data_files(store.path):
        raise DataError(f"{store.path} has no file of a cache, so there is nothing to rebuild a manifest from.")
    with locked(store.path, LOCK_SECONDS):
        intact, damaged = _examine(store, progress)
        try:
            before = store.manifest()
        except DataError:
            before = None
        after, lost = _without_lost(before, intact) if before else _from_files(store, intact)
        for name in [*damaged, *([] if before or not (store.path / MANIFEST).exists() else [MANIFEST])]:
            os.replace(store.path / name, store.path / (name + DAMAGED))
        if after != before:
            write_durable(store.path / MANIFEST, after.to_bytes())
        sync_folder(store.path)
    return RebuildReport(len(after.entries), tuple(damaged), tuple(lost), after != before)


def _examine(store: Store, progress: Progress | None) -> tuple[dict[str, bytes], list[str]]:
    """The files of the cache by name: the content of those that match the digest in their name, and the others."""
    paths = data_files(store.path)
    intact, damaged = {}, []
    for done, path in enumerate(paths):
        name, content = str(path.relative_to(store.path)), path.read_bytes()
        if hashlib.sha256(content).hexdigest().startswith(path.name.split(".")[1]):
            intact[name] = content
        else:
            damaged.append(name)
        if progress:
            progress(done + 1, len(paths), path.name)
    return intact, damaged


def _without_lost(before: Manifest, intact: dict[str, bytes]) -> tuple[Manifest, list[str]]:
    """A manifest that could be read, without the files that are not intact, and what that loses."""
    files = {key: entry for key, entry in before.files.items() if entry.name in intact}
    objects = {key: entry for key, entry in before.objects.items() if entry.name in intact}
    gone = [entry for key, entry in before.files.items() if key not in files]
    for entry in gone:
        # What is lost is to be downloaded again. The last object of a month holds the first row of the next one.
        month = month_number(entry.month)
        for name in (month_key(month), month_key(month - 1)):
            objects.pop(f"{'l2book' if entry.source == L2BOOK else 'asset_ctxs'}-{name}", None)
    lost = [_lost(entry) for entry in gone]
    asked = before.asked
    if asked and any(entry.source == API for entry in gone):
        asked, lost = {}, [*lost, _ASKED]
    return replace(before, files=files, objects=objects, asked=asked), lost


def _lost(entry: FileEntry) -> str:
    again = _AGAIN.get(entry.source, "where it came from is not recorded")
    return f"{', '.join(entry.fields)} of {entry.coins} coins in {entry.month} from {entry.source}: {again}"


def _from_files(store: Store, intact: dict[str, bytes]) -> tuple[Manifest, list[str]]:
    """A manifest of what the files themselves say."""
    files: dict[str, FileEntry] = {}
    objects: dict[str, ObjectsEntry] = {}
    for name, content in intact.items():
        match = OURS.fullmatch(Path(name).name)
        assert match is not None
        if name.startswith(HOURLY):
            # A killed writer leaves two files of a month: the later one has more.
            for entry in _entries(name, match["source"], content):
                if entry.key not in files or entry.rows >= files[entry.key].rows:
                    files[entry.key] = entry
        else:
            old, records = objects.get(match["stem"]), decode(content)
            if old is None or len(records) >= old.rows:
                digest = hashlib.sha256(content).hexdigest()
                objects[match["stem"]] = ObjectsEntry(name, len(records), digest, len(content))
    files, objects = dict(sorted(files.items())), dict(sorted(objects.items()))
    coins: dict[str, CoinRecord] = {}
    for entry in files.values():
        rows = store.read(entry)
        cube = Cube([month_number(entry.month)], rows.coins)
        cube.load(rows)
        widen(coins, cube, entry.source)
    lost = [
        "lots, leverage, delistings: `hlbt data sync --source api` or `hlbt data import meta FILE` brings them again"
    ]
    if any(entry.source == API for entry in files.values()):
        lost.append(_ASKED)
    synthetic = any(entry.source == SYNTHETIC for entry in files.values())
    return Manifest(synthetic, files, dict(sorted(coins.items())), objects), lost


def _entries(name: str, source: str | None, content: bytes) -> Iterator[FileEntry]:
    """The entries of an hourly file; one of before schema 3 names its sources only where a field has several."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table: Any = pq.read_table(pa.BufferReader(content))
    entry = replace(entry_of("", source or UNKNOWN, table, content), name=name)
    if source:
        yield entry
        return
    named = {
        field: set(table.column(field + SOURCE).unique().to_pylist()) - {None}
        for field in entry.fields
        if field + SOURCE in table.column_names
    }
    for own in sorted({UNKNOWN}.union(*named.values())):
        fields = tuple(field for field in entry.fields if own in named.get(field, {UNKNOWN}))
        if fields:
            yield replace(entry, source=own, fields=fields, mixed=True)
