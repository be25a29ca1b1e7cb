"""The manifest of a cache: its files, its coin table, and the records of downloaded objects.

The manifest alone says which files belong to the cache; any other file of these names is a leftover of a writer that
was killed. It is replaced atomically, so a reader sees the cache before or after a commit, never between, and carries
its own digest.

Records of downloaded objects keep anything from being paid for twice. They lie beside the hourly files, a file a
dataset and month: an object is recorded in the same commit as its rows.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from engine.clock import UNIT, iso_minute
from engine.data.coin_table import CoinRecord, Span, price_span
from engine.data.schema import SCHEMA
from engine.errors import DataError
from engine.panel import Coin

FOLDER = "objects"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class FileEntry:
    """One parquet file of the cache.

    Attributes
    ----------
    name : str
        Path within the cache; it carries the first 12 digits of `sha256`.
    rows, coins, bytes : int
        Rows, distinct coins, size of the file.
    first, last : Timestamp
        First and last instant.
    fields : tuple of str
        Columns beside time and coin.
    sha256 : str
        Digest of the file.
    sources : mapping of str to tuple of str
        Per field, the sources of its values, ascending. Where there are several, the file has the source of each cell.
    """

    name: str
    rows: int
    first: pd.Timestamp
    last: pd.Timestamp
    coins: int
    fields: tuple[str, ...]
    sha256: str
    bytes: int
    sources: Mapping[str, tuple[str, ...]]

    def to_json(self) -> dict[str, Any]:
        """JSON object of the manifest."""
        return {**asdict(self), "first": iso_minute(self.first), "last": iso_minute(self.last)}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> FileEntry:
        """Read what :meth:`to_json` wrote."""
        values = dict(state)
        for key in ("first", "last"):
            values[key] = pd.Timestamp(values[key]).as_unit(UNIT)
        values["fields"] = tuple(values["fields"])
        values["sources"] = {name: tuple(sources) for name, sources in values["sources"].items()}
        return cls(**values)


@dataclass(frozen=True)
class ObjectsEntry:
    """One file of records of downloaded objects.

    Attributes
    ----------
    name : str
        Path within the cache; it carries the first 12 digits of `sha256`.
    rows, bytes : int
        Objects; size of the file.
    sha256 : str
        Digest of the file.
    """

    name: str
    rows: int
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """State of a cache.

    Attributes
    ----------
    synthetic : bool
        Made-up data; a cache is synthetic as a whole or not at all.
    files : mapping of str to FileEntry
        By month, ``"2024-10"``, ascending.
    coins : mapping of str to CoinRecord
        The coin table, by name, ascending.
    objects : mapping of str to ObjectsEntry
        Records of what was downloaded, by dataset and month, ``"asset_ctxs-2024-10"``, ascending.
    """

    synthetic: bool
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    coins: Mapping[str, CoinRecord] = field(default_factory=dict)
    objects: Mapping[str, ObjectsEntry] = field(default_factory=dict)

    @property
    def entries(self) -> list[FileEntry | ObjectsEntry]:
        """Every file of the cache."""
        return [*self.files.values(), *self.objects.values()]

    def table(self, names: Iterable[str] | None = None) -> tuple[Coin, ...]:
        """The coin table of a panel; all coins without `names`.

        Whether a coin is delisted is judged by the last row that its own sources have of any coin.
        """
        ends: dict[str, pd.Timestamp] = {}
        for record in self.coins.values():
            for source, last in record.source_ends.items():
                ends[source] = max(last, ends.get(source, last))
        records = [self.coins[name] for name in (self.coins if names is None else names)]
        never = pd.Timestamp(0, tz="UTC")
        return tuple(
            record.coin(max((ends[source] for source in record.source_ends), default=never)) for record in records
        )

    @property
    def span(self) -> Span | None:
        """First and last row of the cache that has any price."""
        return price_span(self.coins.values())

    def to_bytes(self) -> bytes:
        """The content of the file; equal states give equal bytes."""
        body = {
            "schema": SCHEMA,
            "synthetic": self.synthetic,
            "files": {month: self.files[month].to_json() for month in sorted(self.files)},
            "coins": {name: self.coins[name].to_json() for name in sorted(self.coins)},
            "objects": {key: asdict(self.objects[key]) for key in sorted(self.objects)},
        }
        return (json.dumps({**body, "sha256": _digest(body)}, indent=1) + "\n").encode()


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a cache; None when there is none.

    Raises
    ------
    DataError
        When it is damaged, or written by another version.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        body = json.loads(content)
        schema = int(body["schema"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(_damaged(path)) from error
    if schema > SCHEMA:
        raise DataError(
            f"{path} has schema version {schema}, and this hlbt reads up to {SCHEMA}. Upgrade hlbt, or point "
            "HLBT_DATA_CACHE at another folder."
        )
    if schema < SCHEMA:
        raise DataError(
            f"{path} has schema version {schema}, of an older hlbt; this one reads {SCHEMA}. The cache holds nothing "
            f"that cannot be imported again: delete the folder {path.parent} and import or sync once more."
        )
    try:
        if body.pop("sha256") != _digest(body):
            raise DataError(_damaged(path))
        files = {month: FileEntry.from_json(entry) for month, entry in body["files"].items()}
        coins = {name: CoinRecord.from_json(name, record) for name, record in body["coins"].items()}
        objects = {key: ObjectsEntry(**entry) for key, entry in body["objects"].items()}
        return Manifest(bool(body["synthetic"]), files, coins, objects)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(_damaged(path)) from error


def _damaged(path: Path) -> str:
    return (
        f"{path} is damaged or was edited: its content does not match its own digest. The cache holds nothing that "
        f"cannot be imported again: delete the folder {path.parent} and import or sync once more."
    )


@dataclass(frozen=True, order=True)
class ObjectRecord:
    """A downloaded object, of which every usable row is in the cache.

    Attributes
    ----------
    key, etag : str
        Name and version of the object.
    size : int
        Bytes downloaded.
    sha256 : str
        Digest of those bytes.
    rows : int
        Records in it: minutes x coins, or book snapshots that were read.
    """

    key: str
    etag: str
    size: int
    sha256: str
    rows: int


def encode(group: str, records: Iterable[ObjectRecord]) -> tuple[ObjectsEntry, bytes]:
    """Records as parquet bytes, the same for the same records, and their manifest entry."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = sorted(records)
    columns = {part.name: [getattr(record, part.name) for record in rows] for part in fields(ObjectRecord)}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd", use_dictionary=False)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    return ObjectsEntry(f"{FOLDER}/{group}.{digest[:12]}.parquet", len(rows), digest, len(content)), content


def decode(content: bytes) -> dict[str, ObjectRecord]:
    """Read what :func:`encode` wrote, by key."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table: Any = pq.read_table(pa.BufferReader(content))
    lists = (table.column(part.name).to_pylist() for part in fields(ObjectRecord))
    return {row[0]: ObjectRecord(*row) for row in zip(*lists, strict=True)}


def joined(old: Mapping[str, ObjectRecord], new: Iterable[ObjectRecord]) -> list[ObjectRecord]:
    """Records of a group after a commit: a newer version of an object replaces the older."""
    return list({**old, **{record.key: record for record in new}}.values())
