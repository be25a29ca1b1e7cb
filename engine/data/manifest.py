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
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from engine.clock import HOUR, UNIT, iso_minute, show
from engine.coin import dex_of
from engine.data.coin_table import CoinRecord, Span, price_span
from engine.data.schema import SCHEMA
from engine.errors import DataError, join_first
from engine.panel import Coin

FOLDER = "objects"
MANIFEST = "manifest.json"
#: So many coins that list in one hour are a hole in the funding; a tenth of the coins in a small cache, but at least 2.
MANY_LISTED = 5
LATE_FUNDING = 24 * HOUR
#: First and last hour number, both inclusive, and when: 0 where the answer is final, else the hour of the first one.
Interval = tuple[int, int, int]


@dataclass(frozen=True)
class FileEntry:
    """One parquet file of the cache: a month of one source.

    Attributes
    ----------
    name : str
        Path within the cache; it carries the source and the first 12 digits of `sha256`.
    source : str
        The source of its values.
    rows, coins, bytes : int
        Rows, distinct coins, size of the file.
    first, last : Timestamp
        First and last instant.
    fields : tuple of str
        Columns beside time and coin.
    sha256 : str
        Digest of the file.
    mixed : bool
        Whether the file has several sources: before schema 3 a month was one file, which names the source of each cell
        where a field has several. Such a file is an entry a source, until a write gives that source a file of its own.
    """

    name: str
    source: str
    rows: int
    first: pd.Timestamp
    last: pd.Timestamp
    coins: int
    fields: tuple[str, ...]
    sha256: str
    bytes: int
    mixed: bool = False

    @property
    def month(self) -> str:
        """The month, ``"2024-10"``."""
        return f"{self.first:%Y-%m}"

    @property
    def key(self) -> str:
        """The key in :attr:`Manifest.files`, ``"2024-10-s3"``."""
        return f"{self.month}-{self.source}"

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
        By month and source, ``"2024-10-s3"``, ascending.
    coins : mapping of str to CoinRecord
        The coin table, by name, ascending.
    objects : mapping of str to ObjectsEntry
        Records of what was downloaded, by dataset and month, ``"asset_ctxs-2024-10"``, ascending.
    asked : mapping of str to mapping of str to tuple of Interval
        By kind of history and coin, the hours that the API was asked for (:mod:`engine.data.missing_hours`), ascending.
    """

    synthetic: bool
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    coins: Mapping[str, CoinRecord] = field(default_factory=dict)
    objects: Mapping[str, ObjectsEntry] = field(default_factory=dict)
    asked: Mapping[str, Mapping[str, tuple[Interval, ...]]] = field(default_factory=dict)

    @property
    def entries(self) -> list[FileEntry | ObjectsEntry]:
        """Every file of the cache, once."""
        entries: list[FileEntry | ObjectsEntry] = [*self.files.values(), *self.objects.values()]
        return list({entry.name: entry for entry in entries}.values())

    def table(self, names: Iterable[str] | None = None) -> tuple[Coin, ...]:
        """The coin table of a panel; all coins without `names`.

        Whether a coin is delisted is judged by the last row that its own sources have of any coin of its dex: dexes
        may be synced at different times.
        """
        ends: dict[tuple[str, str], pd.Timestamp] = {}
        for name, record in self.coins.items():
            for source, last in record.source_ends.items():
                ends[dex_of(name), source] = max(last, ends.get((dex_of(name), source), last))
        never = pd.Timestamp(0, tz="UTC")
        lost = {name for names in self.lost_funding.values() for name in names}
        return tuple(
            record.coin(max((ends[dex_of(name), source] for source in record.source_ends), default=never), name in lost)
            for name in (self.coins if names is None else names)
            for record in [self.coins[name]]
        )

    @property
    def lost_funding(self) -> dict[pd.Timestamp, list[str]]:
        """Coins whose funding begins in one hour, though their prices begin before it, by that hour.

        A coin is a market from its first funding stamp on. But where many begin at once, what lies before is lost:
        their first price counts (:meth:`table`).
        """
        begun: dict[pd.Timestamp, list[str]] = {}
        for name, record in self.coins.items():
            price, funding = record.first_price, record.first_funding
            if price is not None and funding is not None and funding - price > LATE_FUNDING:
                begun.setdefault(funding, []).append(name)
        priced = sum(record.first_price is not None for record in self.coins.values())
        many = min(MANY_LISTED, max(2, -(-priced // 10)))
        return {hour: names for hour, names in sorted(begun.items()) if len(names) >= many}

    def notes(self, names: Iterable[str] | None = None) -> tuple[str, ...]:
        """What a user of the data of some coins (all without `names`) should know of holes in them."""
        wanted = set(self.coins if names is None else names)
        return tuple(
            f"The funding of {len(own)} coins begins at {show(hour)}, though their prices begin before: earlier rates "
            f"are missing ({join_first(own)}). They count as listed from their first price, without funding till then."
            for hour, coins in self.lost_funding.items()
            if (own := [name for name in coins if name in wanted])
        )

    def span(self, dexes: Collection[str] | None = None) -> Span | None:
        """First and last row of the cache that has any price, of all dexes or of some; None when there is none."""
        return price_span(record for name, record in self.coins.items() if dexes is None or dex_of(name) in dexes)

    def to_bytes(self) -> bytes:
        """The content of the file; equal states give equal bytes."""
        body = {
            "schema": SCHEMA,
            "synthetic": self.synthetic,
            "files": {key: self.files[key].to_json() for key in sorted(self.files)},
            "coins": {name: self.coins[name].to_json() for name in sorted(self.coins)},
            "objects": {key: asdict(self.objects[key]) for key in sorted(self.objects)},
            "asked": {kind: dict(sorted(coins.items())) for kind, coins in sorted(self.asked.items())},
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
    if schema < 2:
        raise DataError(f"{path} has schema version {schema}, of an older hlbt. {REBUILD}")
    try:
        if body.pop("sha256") != _digest(body):
            raise DataError(_damaged(path))
        states = body["files"].values()
        files = [FileEntry.from_json(state) for state in (_by_source(states) if schema == 2 else states)]
        coins = {name: CoinRecord.from_json(name, record) for name, record in body["coins"].items()}
        objects = {key: ObjectsEntry(**entry) for key, entry in body["objects"].items()}
        asked = {
            kind: {coin: tuple((int(a), int(b), int(c)) for a, b, c in spans) for coin, spans in by_coin.items()}
            for kind, by_coin in body.get("asked", {}).items()
        }
        return Manifest(bool(body["synthetic"]), {entry.key: entry for entry in files}, coins, objects, asked)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(_damaged(path)) from error


def _by_source(states: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Entries of schema 2, which had a file a month, as an entry a source."""
    for state in states:
        sources = sorted({source for named in state["sources"].values() for source in named})
        for source in sources:
            own = [name for name in state["fields"] if source in state["sources"][name]]
            entry = {name: value for name, value in state.items() if name != "sources"}
            yield {**entry, "source": source, "fields": own, "mixed": len(sources) > 1}


#: The cure of a manifest or file that cannot be read.
REBUILD = (
    "`hlbt data rebuild` makes the manifest again from the files that are intact and says what is lost. Do not delete "
    "the folder: candles and volumes from the API that are older than 5,000 hours cannot be downloaded again."
)


def _damaged(path: Path) -> str:
    return f"{path} is damaged or was edited: its content does not match its own digest. {REBUILD}"


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
    last : int or None
        Seconds since 1970 of its last record; None where it was not recorded yet (before schema 3).
    contradicts : bool
        Whether a value of it, or of an object that was merged with it, was refused: the cache has another one.
    """

    key: str
    etag: str
    size: int
    sha256: str
    rows: int
    last: int | None = None
    contradicts: bool = False


def encode(group: str, records: Iterable[ObjectRecord]) -> tuple[ObjectsEntry, bytes]:
    """Records as parquet bytes, the same for the same records, and their manifest entry."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = sorted(records)
    columns: dict[str, Any] = {
        part.name: [getattr(record, part.name) for record in rows] for part in fields(ObjectRecord)
    }
    columns["last"] = pa.array(columns["last"], pa.int64())
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd", use_dictionary=False)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    return ObjectsEntry(f"{FOLDER}/{group}.{digest[:12]}.parquet", len(rows), digest, len(content)), content


def decode(content: bytes) -> dict[str, ObjectRecord]:
    """Read what :func:`encode` wrote, by key."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    return {row["key"]: ObjectRecord(**row) for row in pq.read_table(pa.BufferReader(content)).to_pylist()}


def joined(old: Mapping[str, ObjectRecord], new: Iterable[ObjectRecord]) -> list[ObjectRecord]:
    """Records of a group after a commit: a newer version of an object replaces the older."""
    return list({**old, **{record.key: record for record in new}}.values())
