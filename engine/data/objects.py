"""Records of downloaded objects: what was taken from where, so that nothing is paid for twice.

They lie beside the hourly files, a file a dataset and month, and count when the manifest names them: an object is
recorded in the same commit as its rows.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from engine.data.manifest import ObjectsEntry

FOLDER = "objects"


@dataclass(frozen=True, order=True)
class ObjectRecord:
    """One object of which every usable row is in the cache.

    Attributes
    ----------
    key, etag : str
        Name and version of the object.
    size : int
        Bytes downloaded.
    sha256 : str
        Digest of those bytes.
    rows : int
        Records in it: minutes x coins, or book snapshots looked at.
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
    """Records of a group after a commit: a newer version of an object takes the place of the older."""
    return list({**old, **{record.key: record for record in new}}.values())
