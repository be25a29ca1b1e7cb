"""The folder of a sweep: results arrive as chunks, whole or not at all, and end as one table.

A result is reused by its key (:attr:`engine.sweeps.plan.Plan.keys`), in whatever sweep below the same reports it
was computed, so no unchanged set is run twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from engine.atomic_io import LOCK, locked, replacing
from engine.clock import UNIT
from engine.errors import DataError, join_first
from engine.provenance import as_json, to_json
from engine.simulation.batch import metric_names
from engine.simulation.metrics import ANNUAL, missing_rates_of_many
from engine.sweeps.grid import Grid
from engine.sweeps.labels import by_instant
from engine.sweeps.result_files import NAME, TORN, ResultFiles, table_of
from engine.sweeps.study import ERROR, PAGE, RECORD, RETURNS, TABLE, TEXTS, VERDICT, Study
from engine.sweeps.tasks import Outcome

CHUNKS, TOP = "chunks", "top"
FILES = frozenset({RECORD, TABLE, RETURNS, VERDICT, PAGE, CHUNKS, TOP, LOCK})
#: Metrics that count something: whole numbers, unless a set failed.
COUNTS = (
    "days",
    "days_calendar",
    "decisions",
    "trades",
    "skipped_min_notional",
    "skipped_band",
    "untradable_orders",
    "delistings",
    "isolated_liquidations",
)


#: What tells whether a result is one to take over.
_HEAD = ("key", ERROR, "sharpe")
#: A chunk is written with so many sets, or after so long: a kill loses no more.
CHUNK_SETS, CHUNK_SECONDS = 1024, 1.0


def chunk_files(folder: Path, torn: bool = False) -> list[Path]:
    """The chunks of a sweep's folder, sorted, with those that a kill left `torn`; somebody else's files are none."""
    chunks = folder / CHUNKS
    if chunks.is_symlink() or not chunks.is_dir():
        return []
    return sorted(path for path in chunks.iterdir() if _is_chunk(path.name, torn) and path.is_file())


def _is_chunk(name: str, torn: bool) -> bool:
    return NAME.fullmatch(name) is not None or (torn and TORN.fullmatch(name) is not None)


@contextmanager
def sweep_folder(folder: Path) -> Iterator[Path]:
    """The folder of a sweep, made when absent and held against other processes.

    Raises
    ------
    DataError
        When it holds something else, or another process writes to it.
    """
    ours = (folder / RECORD).is_file() or bool(chunk_files(folder))
    if folder.is_dir() and not ours:  # beside a sweep, a file of somebody else is left alone
        foreign = sorted(
            item.name for item in folder.iterdir() if item.name not in FILES and not item.name.startswith(".")
        )
        if foreign:
            raise DataError(f"{folder} holds what is not of a sweep: {join_first(foreign)}. Name the sweep otherwise.")
    with locked(folder):
        yield folder


class Results:
    """The results of a sweep as they come; they are on the disk within a second or :data:`CHUNK_SETS` sets.

    Attributes
    ----------
    dataset : ResultFiles or None
        What workers write themselves, and stays; None where all goes through this process.
    files : ResultFiles
        Where results are: there, or in chunks of the folder until it is finished.
    done, ran : ndarray, (P,) bool
        Which sets were run, and which of them without an error.
    sharpe : ndarray, (P,)
        Daily Sharpe ratios; NaN where there is none.
    """

    def __init__(
        self, folder: Path, keys: np.ndarray, dates: pd.DatetimeIndex, returns: bool, files: ResultFiles | None = None
    ) -> None:
        self.folder, self.chunks = folder, folder / CHUNKS
        self.dataset, self.files = files, files or ResultFiles(str(self.chunks))
        self.keys, self.dates, self.returns = keys, dates, returns
        self.done = np.zeros(len(keys), dtype=bool)
        self.ran = np.zeros(len(keys), dtype=bool)
        self.sharpe = np.full(len(keys), np.nan)
        self._pending: list[pa.Table] = []
        self._sets, self._written = 0, time.monotonic()
        self._lock, self._late = threading.Lock(), threading.Timer(0.0, lambda: None)
        if files is None:
            self.chunks.mkdir(parents=True, exist_ok=True)

    def adopt(self, reports: Path | None) -> int:
        """Take over what is known of these sets, here or in other sweeps below `reports`; returns how many."""
        lookup = pd.Index(self.keys)
        for own, content in self.files.reading(self.files.paths(), _HEAD):
            self._adopt(self.files, own, content, lookup)
        if self.dataset is not None:
            return int(self.done.sum())  # rows of elsewhere do not say what their sets ran
        folders = [self.folder]
        if reports is not None and reports.is_dir():
            folders += sorted(path for path in reports.iterdir() if path.is_dir() and path != self.folder)
        for folder in folders:
            others = ResultFiles(str(folder / CHUNKS))
            chunks = [] if others == self.files else chunk_files(folder)
            for path in [*chunks, folder / TABLE]:
                if path.is_file() and not self.done.all():
                    with suppress(DataError):  # what cannot be read is left alone; a full disk ends the next write
                        self._adopt(others, str(path), partial(others.read, str(path), _HEAD), lookup)
        return int(self.done.sum())

    def _adopt(
        self, files: ResultFiles, name: str, content: Callable[[], tuple[list[str], pa.Table]], lookup: pd.Index
    ) -> None:
        """Take over what a file of results or a table holds; one that is damaged holds nothing.

        Raises
        ------
        DataError
            When it cannot be read, or what is taken over cannot be written.
        """
        path = Path(name)
        own = files == self.files and path.name != TABLE
        try:
            names, head = content()
            positions = lookup.get_indexer(head["key"].to_numpy())
            useful = (positions >= 0) & (head[ERROR].to_numpy(zero_copy_only=False) == "")
            useful[useful] = ~self.done[positions[useful]]
            rows = np.flatnonzero(useful)
            dated = not self.returns or path.name == TABLE or _dated(names)
            if own and dated and len(rows) == len(positions):
                self._keep(positions, head, rows)
                return
            if dated and len(rows):
                table = files.read(name)[1].take(rows)
                if not own:
                    table = table.select([column for column in table.column_names if not column.startswith("set.")])
                if self.returns and path.name == TABLE:
                    if not (path.parent / RETURNS).is_file() or not (path.parent / RECORD).is_file():
                        return  # without the record, which is written last, the returns may be those of other sets
                    kept = pq.read_table(path.parent / RETURNS).take(rows)
                    for column in kept.column_names:
                        table = table.append_column(column, kept[column])
                counts = [(column, table[column].cast(pa.float64())) for column in COUNTS if column in names]
                for column, values in counts:
                    table = table.set_column(table.column_names.index(column), column, values)
                partition = path.parent.name if own and "=" in path.parent.name else ""
                replace(self.files, part=partition).write(table)
                self._keep(positions[rows], head, rows)
            if own:
                # What is left in it failed, or lacks its returns: it is run again, and must not be read beside that.
                files.remove(name)
        except (OSError, ValueError, KeyError):
            if own:
                files.remove(name)

    def _keep(self, positions: np.ndarray, head: pa.Table, rows: np.ndarray) -> None:
        self.done[positions] = self.ran[positions] = True
        if "sharpe" in head.column_names:
            self.sharpe[positions] = head["sharpe"].to_numpy()[rows] / ANNUAL

    def missing(self) -> np.ndarray:
        """Rows of the sets that have no result yet."""
        return np.flatnonzero(~self.done)

    def add(self, outcome: Outcome) -> None:
        """Keep what a task left."""
        rows = outcome.task.rows
        if not outcome.written:
            table = table_of(self.keys[rows], outcome.errors, outcome.table, outcome.returns, outcome.days)
            with self._lock:
                first = not self._pending
                self._pending.append(table)
                self._sets += len(rows)
            if self._sets >= CHUNK_SETS or time.monotonic() - self._written > CHUNK_SECONDS:
                self.flush()
            elif first:  # the next outcome may be hours away
                self._late = threading.Timer(CHUNK_SECONDS, self._flush_late)
                self._late.daemon = True
                self._late.start()
        self.done[rows] = True
        self.ran[rows] = [error == "" for error in outcome.errors]
        if "sharpe" in outcome.table:
            self.sharpe[rows] = outcome.table["sharpe"].to_numpy(dtype=np.float64) / ANNUAL

    def flush(self) -> None:
        """Write what was added since the last chunk: a file a task would cost more than the sets of a quick oracle."""
        self._late.cancel()
        with self._lock:
            if self._pending:
                self.files.write(pa.concat_tables(self._pending, promote_options="default"))
            self._pending, self._sets, self._written = [], 0, time.monotonic()

    def _flush_late(self) -> None:
        with suppress(DataError, OSError):  # what could not be written is written by whoever adds more, or fails there
            self.flush()

    def assemble(self, record: Mapping[str, Any], grid: Grid) -> Study:
        """Put the chunks together in the order of the sets, write the folder's files and drop the chunks.

        Raises
        ------
        DataError
            When a set has no result: its row must not be filled with that of another.
        """
        self.flush()
        columns, daily = self._columns()
        index = grid.index
        # A column of its own each: pandas would copy them into one block, for the largest sweeps half a gigabyte.
        texts = {name: pd.Series(columns[name], dtype=object, index=index) for name in (*TEXTS, ERROR)}
        table = pd.DataFrame({**columns, **texts}, index=index, copy=False)
        failed = int((columns[ERROR] != "").sum())
        finished = {**record, "sets": {**record["sets"], "failed": failed}}
        finished["notes"] = [*record["notes"], *missing_rates_of_many(columns["funding_missing_frac"])]
        self._finish(finished, grid, columns, daily)
        if self.dataset is not None:
            self.dataset.write_record(to_json(finished), f"_{RECORD}")
        frame = None
        if daily is not None:
            values, dates = daily
            frame = by_instant(finished, index, values.T, dates)
        return Study(as_json(finished), table, frame, self.folder)

    def _columns(self) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, pd.DatetimeIndex] | None]:
        """Columns of the table in the order of the sets, (P,); daily returns, (P, days), and their dates.

        A file at a time: all of them together would be in memory beside what is made of them.
        """
        count, lookup = len(self.keys), pd.Index(self.keys)
        dates = {f"{date:%Y-%m-%d}": date for date in self.dates if self.returns}
        columns: dict[str, np.ndarray] = {
            name: np.full(count, None, dtype=object) if name in TEXTS else np.full(count, np.nan)
            for name in metric_names()
        }
        columns[ERROR] = np.full(count, None, dtype=object)
        daily, dated = np.full((len(dates), count), np.nan), np.zeros(len(dates), dtype=bool)
        found = np.zeros(count, dtype=bool)
        targets = {**columns, **dict(zip(dates, daily, strict=True))}
        for path, content in self.files.reading(self.files.paths(), ("key", *targets)):
            try:
                _, part = content()
            except (OSError, ValueError) as error:
                raise DataError(
                    f"Results in {path} are damaged ({type(error).__name__}). Run the sweep again: what is whole is "
                    "kept, and the sets of this file are run anew."
                ) from error
            rows = lookup.get_indexer(part["key"].to_numpy())
            ours = rows >= 0
            rows = rows[ours]
            found[rows] = True
            for name, values in zip(part.column_names, part.columns, strict=True):
                if name in targets:
                    targets[name][rows] = values.to_numpy()[ours]
            dated |= np.isin(list(dates), part.column_names)
        if lost := int((~found).sum()):
            raise DataError(
                f"{lost:,} of {count:,} sets have no result in {self.files}: the executor handed over none, "
                "files were removed, or not all machines see one folder there. Run the sweep again; what is whole is "
                "not run twice."
            )
        for name in COUNTS:
            if not np.isnan(columns[name]).any():
                columns[name] = columns[name].astype(np.int64)
        if not self.returns:
            return columns, None
        present = pd.DatetimeIndex([date for date, kept in zip(dates.values(), dated, strict=True) if kept], tz="UTC")
        return columns, ((daily if dated.all() else daily[dated]).T, present.as_unit(UNIT))

    def _finish(
        self,
        record: Mapping[str, Any],
        grid: Grid,
        columns: Mapping[str, Any],
        daily: tuple[np.ndarray, pd.DatetimeIndex] | None,
    ) -> None:
        """Write record, table and returns; the record last, for it says that the others are whole."""
        folder = self.folder
        codes = {f"set.{key}": grid.codes[:, column] for column, key in enumerate(grid.values)}
        _write_files(folder, record, {**codes, "key": self.keys, **columns}, daily)
        for path in chunk_files(folder, torn=True):
            path.unlink(missing_ok=True)
        if self.dataset is not None:
            self.dataset.remove_torn()
        with suppress(OSError):  # somebody else's files stay
            self.chunks.rmdir()


def _write_files(
    folder: Path,
    record: Mapping[str, Any],
    columns: Mapping[str, Any],
    daily: tuple[np.ndarray, pd.DatetimeIndex] | None,
) -> None:
    """Write table, returns, (P, days) by date, and record; the record last, for it says that the others are whole."""
    for stale in (RECORD, VERDICT, PAGE):
        (folder / stale).unlink(missing_ok=True)
    repeated = [name for name in columns if name in (*TEXTS, ERROR) or name.startswith("set.")]
    _replace(folder / TABLE, pa.table({name: _arrow(name, values) for name, values in columns.items()}), repeated)
    if daily is None:
        (folder / RETURNS).unlink(missing_ok=True)
    else:
        values, dates = daily
        _replace(
            folder / RETURNS,
            pa.table({f"{date:%Y-%m-%d}": np.ascontiguousarray(values[:, k]) for k, date in enumerate(dates)}),
        )
    with replacing(folder / RECORD) as made:
        made.write_text(to_json(record), encoding="utf-8")


def write_study(study: Study, folder: Path) -> Path:
    """:meth:`engine.Study.save`."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is not empty, and nothing is overwritten. Name another folder.")
    grid = {key: study.record["grid"][key] for key in study.record["keys"]}
    places = [{repr(value): place for place, value in enumerate(values)} for values in grid.values()]
    sets = [list(study.params(row).values()) for row in range(len(study))]
    codes = np.array([[place[repr(value)] for place, value in zip(places, one, strict=True)] for one in sets])
    columns = {f"set.{key}": codes[:, column] for column, key in enumerate(grid)}
    daily = None
    if study.daily_returns is not None:
        dates = pd.DatetimeIndex(study.daily_returns.index).normalize()
        frame = study.daily_returns.groupby(dates).first()
        daily = frame.to_numpy().T, pd.DatetimeIndex(frame.index)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        table = {str(name): study.table[name].to_numpy() for name in study.table}
        _write_files(folder, study.record, {**columns, **table}, daily)
    except OSError as error:
        raise DataError(
            f"Study {folder} cannot be written: {error.strerror or error}. Check folder and disk."
        ) from error
    return folder


def _arrow(name: str, values: Any) -> pa.Array:
    return pa.array(values, type=pa.string()) if name in (*TEXTS, ERROR) else pa.array(values)


def _dated(names: Sequence[str]) -> bool:
    return any(name[:4].isdigit() for name in names)


def _replace(path: Path, table: pa.Table, repeated: Sequence[str] = ()) -> None:
    """Write a table; a dictionary is made of columns with `repeated` values alone: of others it takes room and time."""
    with replacing(path) as made:
        pq.write_table(table, made, compression="zstd", row_group_size=100_000, use_dictionary=list(repeated))
