"""Where the results of a sweep are written as they come: Parquet files in a folder, or below a prefix of a bucket."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

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
#: Files of a bucket that are read at once: a request takes longer than its content.
READERS = 16
#: Names of files, and of those that a kill left half written in a folder.
NAME, TORN = re.compile(r"[0-9a-f]{16}\.parquet"), re.compile(r"\.[0-9a-f]{16}\.parquet\.\d+\.writing")
#: Column of the settings that a set ran with.
CONFIG = "config_json"
_URI = re.compile(r"(\w[\w+.-]*)://")
_SECRET = re.compile(r"@|secret|token|access_key|password|signature|credential", re.IGNORECASE)
#: What an object store says of itself in the text of an error; a damaged file says nothing of the kind.
_STORE = re.compile(r"AWS Error (?:\[code )?(\w+)|google::cloud::Status\((\w+)")


@dataclass(frozen=True)
class ResultFiles:
    """Result files below an address; small enough to travel with a task, so that a worker writes its own.

    Attributes
    ----------
    address : str
        As :func:`result_files` gives it: a folder, ``s3://bucket/prefix`` or ``gs://bucket/prefix``, with the options
        that pyarrow takes in a query. Credentials are those of the machine that reads or writes.
    part : str
        Folder below it that a new file goes to, ``name=value`` as in a partitioned dataset; empty for none.
    """

    address: str
    part: str = ""

    def __str__(self) -> str:
        return self.address.partition("?")[0] if self.in_bucket else self.address

    @property
    def in_bucket(self) -> bool:
        """Whether they lie in an object store."""
        return _URI.match(self.address) is not None

    def below(self, part: str) -> ResultFiles:
        """The files in a folder of these."""
        if not self.in_bucket:
            return ResultFiles(f"{self.address}/{part}")
        address, mark, query = self.address.partition("?")
        return ResultFiles(f"{address.rstrip('/')}/{quote(part, safe='=')}{mark}{query}")

    def write(self, table: pa.Table) -> None:
        """Write a table as one file, whole or not at all, named by the digest of its keys: once more is the same."""
        name = f"{hashlib.sha256(table['key'].to_numpy().tobytes()).hexdigest()[:16]}.parquet"
        content = pa.BufferOutputStream()
        # Half the time of zstd, for a twelfth more room; a dictionary of what is the same in many rows alone.
        pq.write_table(table, content, compression="snappy", write_statistics=False, use_dictionary=[ERROR, CONFIG])
        self._put(f"{self.part}/{name}" if self.part else name, content.getvalue())

    def write_record(self, text: str, name: str) -> None:
        """Write a text beside the files, whole or not at all."""
        self._put(name, text.encode())

    def _put(self, name: str, content: pa.Buffer | bytes) -> None:
        with self._system() as (system, base):
            if self.in_bucket:
                with system.open_output_stream(f"{base}/{name}") as stream:  # an object appears when it is closed
                    stream.write(content)
                return
            path = Path(base, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as made:
                made.write_bytes(content)

    def paths(self) -> list[str]:
        """Paths of the files, sorted, for :meth:`reading` and :meth:`remove`; those of somebody else are not named."""
        from pyarrow.fs import FileSelector, FileType

        with self._system() as (system, base):
            below = system.get_file_info(FileSelector(base, recursive=True, allow_not_found=True))
        return sorted(
            item.path for item in below if item.type == FileType.File and NAME.fullmatch(Path(item.path).name)
        )

    def read(self, path: str, columns: Sequence[str] | None = None) -> tuple[list[str], pa.Table]:
        """Columns that one file has, and its table; of `columns` those that it has.

        Raises
        ------
        DataError
            When it cannot be read.
        OSError, ValueError
            When what was read is no whole file of results.
        """
        with self._system() as (system, _):
            if not self.in_bucket:
                return _table_in(path, columns)
            # Two requests; a reader of Parquet makes more, and lets no other thread run meanwhile.
            with system.open_input_stream(path) as stream:
                content = stream.read()
        return _table_in(pa.BufferReader(content), columns)

    def reading(
        self, paths: Sequence[str], columns: Sequence[str]
    ) -> Iterator[tuple[str, Callable[[], tuple[list[str], pa.Table]]]]:
        """Each path in order with a function that gives what :meth:`read` does; some are under way ahead."""
        ahead = READERS if self.in_bucket else 1
        waiting: deque[tuple[str, Future[tuple[list[str], pa.Table]]]] = deque()
        with ThreadPoolExecutor(ahead) as pool:
            for path in (*paths, *[None] * ahead):
                if path is not None:
                    waiting.append((path, pool.submit(self.read, path, columns)))
                if len(waiting) > ahead or (path is None and waiting):
                    first, content = waiting.popleft()
                    yield first, content.result

    def remove(self, path: str) -> None:
        """Delete one file."""
        with self._system() as (system, _):
            system.delete_file(path)

    def remove_torn(self) -> None:
        """Delete what killed workers left half written in a folder; a bucket has none of it."""
        for path in () if self.in_bucket else Path(self.address).rglob(".*.writing"):
            if TORN.fullmatch(path.name):
                path.unlink(missing_ok=True)

    @contextmanager
    def _system(self) -> Iterator[tuple[FileSystem, str]]:
        """The file system of the address and the path in it; what it refuses is a DataError.

        The text of an object store's error is not shown: it may hold the request with its signature.
        """
        try:
            yield _opened(self.address)
        except OSError as error:
            if error.errno is None and not self.in_bucket:
                raise  # what is not of the system is of a file's content
            raise DataError(f"The results at {self} cannot be read or written: {self._why(error)}") from error

    def _why(self, error: OSError) -> str:
        """The reason of an error of the system, and the cure."""
        kept = "what was written is kept, and the same command goes on."
        if not self.in_bucket:
            reason = os.strerror(error.errno) if error.errno else type(error).__name__
            return f"{reason}. Check the folder and its disk (on a cluster, of every machine); {kept}"
        said = _STORE.search(str(error))
        reason = said[1] or said[2] if said else type(error).__name__
        if "OAuth2" in str(error):
            reason += ", no credentials of Google Cloud were found"
        return f"{reason}. Check the bucket, the network and the credentials of this machine; {kept}"


def _table_in(source: Any, columns: Sequence[str] | None) -> tuple[list[str], pa.Table]:
    file = pq.ParquetFile(source)
    names = file.schema_arrow.names
    return names, file.read(names if columns is None else [name for name in columns if name in names])


@lru_cache(maxsize=8)
def _opened(address: str) -> tuple[FileSystem, str]:
    from pyarrow.fs import FileSystem, LocalFileSystem

    scheme = _URI.match(address)
    if scheme is None:
        return LocalFileSystem(), address
    if scheme[1] == "s3" and "allow_delayed_open" not in address:  # a small file is one request then, not three
        address += f"{'&' if '?' in address else '?'}allow_delayed_open=true"
    system, path = FileSystem.from_uri(address)
    return system, path.rstrip("/")


def result_files(address: str | Path, option: str) -> ResultFiles:
    """The files at an address: a folder, wherever a worker's own may be, or a bucket.

    Raises
    ------
    ConfigError
        Naming `option`, for one that is neither, that pyarrow does not accept, or that holds a secret: that one is
        not shown.
    """
    text = str(address)
    wanted = f"name a folder, {' or '.join(f'{scheme}://bucket/prefix' for scheme in SCHEMES)}."
    if not text.strip():
        raise ConfigError(f"{option} is empty: {wanted}")
    if _URI.match(text) is None:
        if re.match(r"(s3|gs):", text, re.IGNORECASE):
            raise ConfigError(f"{option} {text.partition('?')[0]!r} is not accepted: {wanted}")
        return ResultFiles(str(Path(text).absolute()))
    parts = urlsplit(text)
    if parts.scheme not in SCHEMES:
        raise ConfigError(f"{option} '{parts.scheme}://...' is not accepted: {wanted}")
    # So Google's buckets are told that nobody is asking; it is no secret.
    bucket = parts.netloc.removeprefix("anonymous@") if parts.scheme == "gs" else parts.netloc
    if "@" in bucket or _SECRET.search(unquote(parts.query)):
        raise ConfigError(
            f"{option} holds credentials, which would end in records and logs (it is not shown). Leave them out: those "
            "of the machine are used, from its environment or its profile, on every worker."
        )
    if not bucket or not parts.path.strip("/") or parts.fragment:
        raise ConfigError(f"{option} {text.partition('?')[0]!r} is not accepted: {wanted}")
    files = ResultFiles(f"{parts.scheme}{text[len(parts.scheme) :]}")
    try:
        with files._system():
            return files
    except (ValueError, NotImplementedError) as error:  # pyarrow's, which names the option; its value is not shown
        reason = re.sub(r"\?[^'\s]*", "", str(error)).rstrip(".")
        raise ConfigError(f"{option} {str(files)!r} is not accepted by pyarrow: {reason}.") from error


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
    return table.append_column(CONFIG, pa.array([text] * len(table)).dictionary_encode())
