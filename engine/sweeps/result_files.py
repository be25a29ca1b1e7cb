"""Where the results of a sweep are written as they come: Parquet files in a folder, or below a prefix of a bucket."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from engine.atomic_io import replacing
from engine.errors import ConfigError, DataError
from engine.sweeps.study import ERROR, TEXTS

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

#: Object stores that can hold results, beside folders.
SCHEMES = ("s3", "gs")
_NAME = re.compile(r"[0-9a-f]{16}\.parquet")


@dataclass(frozen=True)
class ResultFiles:
    """Result files below an address; small enough to travel with a task, so that a worker writes its own.

    Attributes
    ----------
    address : str
        A folder, ``s3://bucket/prefix`` or ``gs://bucket/prefix``, with the options that pyarrow takes in a query
        (``?region=...&endpoint_override=...``). Credentials are those of the machine that reads or writes.
    part : str
        Folder below it that a new file goes to, ``name=value`` as in a partitioned dataset; empty for none.
    """

    address: str
    part: str = ""

    def __str__(self) -> str:
        return self.address.partition("?")[0]

    def below(self, part: str) -> ResultFiles:
        """The files in a folder of these."""
        address, mark, query = self.address.partition("?")
        return ResultFiles(f"{address.rstrip('/')}/{part}{mark}{query}")

    def write(self, table: pa.Table) -> None:
        """Write a table as one file, whole or not at all, named by the digest of its keys: once more is the same."""
        name = f"{hashlib.sha256(table['key'].to_numpy().tobytes()).hexdigest()[:16]}.parquet"
        # Half the time of zstd, for a twelfth more room.
        options: dict[str, Any] = {"compression": "snappy", "write_statistics": False, "use_dictionary": False}
        with self._system() as (system, base):
            folder = f"{base}/{self.part}" if self.part else base
            if _is_local(self.address):
                Path(folder).mkdir(parents=True, exist_ok=True)
                with replacing(Path(folder) / name) as made:
                    pq.write_table(table, made, **options)
                return
            content = pa.BufferOutputStream()
            pq.write_table(table, content, **options)
            with system.open_output_stream(f"{folder}/{name}") as stream:  # an object appears when it is closed
                stream.write(content.getvalue())

    def paths(self) -> list[str]:
        """Paths of the files, sorted, for :meth:`read` and :meth:`remove`; files of somebody else are none of them."""
        from pyarrow.fs import FileSelector, FileType

        with self._system() as (system, base):
            below = system.get_file_info(FileSelector(base, recursive=True, allow_not_found=True))
        return sorted(
            item.path for item in below if item.type == FileType.File and _NAME.fullmatch(Path(item.path).name)
        )

    def read(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One file; of `columns` those that it has."""
        with self._system() as (system, _):
            file = pq.ParquetFile(path, filesystem=system)
            names = file.schema_arrow.names
            return file.read(names if columns is None else [name for name in columns if name in names])

    def names(self, path: str) -> list[str]:
        """Columns of one file."""
        with self._system() as (system, _):
            return list(pq.read_schema(path, filesystem=system).names)

    def remove(self, path: str) -> None:
        """Delete one file."""
        with self._system() as (system, _):
            system.delete_file(path)

    def write_record(self, text: str, name: str) -> None:
        """Write a text beside the files."""
        with self._system() as (system, base):
            if _is_local(self.address):
                Path(base).mkdir(parents=True, exist_ok=True)
            with system.open_output_stream(f"{base}/{name}") as stream:
                stream.write(text.encode())

    @contextmanager
    def _system(self) -> Iterator[tuple[FileSystem, str]]:
        """The file system of the address and the path in it; what it refuses is a DataError.

        The text of an object store's error is not shown: it may hold the request with its signature.
        """
        try:
            yield _opened(self.address)
        except OSError as error:
            if _is_local(self.address):
                raise
            reason = re.search(r"AWS Error (\w+)", str(error))
            raise DataError(
                f"The results at {self} cannot be read or written: "
                f"{reason[1] if reason else type(error).__name__}. Check the bucket, the network and "
                "the credentials of this machine; what was written is kept, and the same command goes on."
            ) from error


@lru_cache(maxsize=8)
def _opened(address: str) -> tuple[FileSystem, str]:
    from pyarrow.fs import FileSystem, LocalFileSystem

    if _is_local(address):
        return LocalFileSystem(), str(Path(address).absolute())
    system, path = FileSystem.from_uri(address)
    return system, path.rstrip("/")


def _is_local(address: str) -> bool:
    return "://" not in address


def check_address(address: str, option: str) -> None:
    """Refuse an address that is no folder and no bucket, or that holds a secret.

    Raises
    ------
    ConfigError
        Naming `option`; an address with a user or a password in it is not shown.
    """
    if _is_local(address):
        if not address.strip():
            raise ConfigError(f"{option} is empty: name a folder, s3://bucket/prefix or gs://bucket/prefix.")
        return
    parts = urlsplit(address)
    if "@" in parts.netloc or re.search(r"secret|token|access_key", parts.query, re.IGNORECASE):
        raise ConfigError(
            f"{option} holds credentials, which would end in records and logs (it is not shown). Leave them out: those "
            "of the machine are used, from its environment or its profile, on every worker."
        )
    if parts.scheme not in SCHEMES or not parts.netloc or not parts.path.strip("/"):
        raise ConfigError(
            f"{option} {address.partition('?')[0]!r} is not accepted: name a folder, s3://bucket/prefix or "
            "gs://bucket/prefix."
        )


def table_of(
    keys: np.ndarray,
    errors: Sequence[str],
    metrics: pd.DataFrame,
    returns: np.ndarray | None,
    days: pd.DatetimeIndex | None,
) -> pa.Table:
    """The rows of a result file: key, error, metrics and daily returns, a column a date, of sets, (S,)."""
    columns: dict[str, Any] = {"key": keys, ERROR: errors}
    for name in map(str, metrics.columns):
        text = name in TEXTS
        columns[name] = metrics[name].to_numpy(dtype=object if text else np.float64)
        if text:
            columns[name] = [value if isinstance(value, str) else None for value in columns[name]]
    if returns is not None and days is not None:
        dates = days.tz_localize(None).to_numpy().astype("datetime64[D]").astype(str).tolist()
        columns |= zip(dates, np.ascontiguousarray(returns.T), strict=True)
    return pa.table(columns)


def with_parameters(table: pa.Table, parameters: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> pa.Table:
    """`table` with what its sets ran: a column ``set.<parameter>`` each, and ``config_json``.

    So files that workers wrote tell without the sweep's own folder what is in them. Values of several types, and
    lists, are JSON.
    """
    names = list(dict.fromkeys(name for one in parameters for name in one))
    for name in names:
        values = [one.get(name) for one in parameters]
        kinds = {type(value) for value in values if value is not None}
        plain = len(kinds) == 1 and kinds <= {bool, int, float, str}
        column = pa.array(values if plain else [None if value is None else json.dumps(value) for value in values])
        table = table.append_column(f"set.{name}", column)
    text = json.dumps(config, sort_keys=True, default=str)
    return table.append_column("config_json", pa.array([text] * len(table)).dictionary_encode())
