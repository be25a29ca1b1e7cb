"""freqtrade's HyperLiquid files: ``X_USDC_USDC-1h-futures.feather`` and ``X_USDC_USDC-1h-funding_rate.feather``.

A candle's `date` is its open time, so it becomes the row one hour later: `mid` is its close, `volume_usd` its volume
(in the coin) times its close. A funding rate's `date` is the venue's stamp, some milliseconds after the hour that it
settles; `open` is the rate per hour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.clock import HOUR, candle_instant, funding_instant
from engine.data.cache import Progress, Store
from engine.data.merge_report import MergeReport
from engine.data.schema import COIN, TIME, Floats
from engine.errors import DataError

SOURCE = "freqtrade"
CANDLES = "_USDC_USDC-1h-futures.feather"
FUNDING = "_USDC_USDC-1h-funding_rate.feather"


@dataclass(frozen=True)
class SkippedFile:
    """A file that was not imported, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class ImportReport:
    """What :func:`import_freqtrade` did.

    Attributes
    ----------
    files : int
        Files read and handed to the store.
    coins : int
        Coins in them.
    set_aside : tuple of SkippedFile
        Files that are truncated or not what they should be; the others were imported all the same.
    merge : MergeReport
        What the store made of them.
    """

    files: int
    coins: int
    set_aside: tuple[SkippedFile, ...]
    merge: MergeReport

    @property
    def ok(self) -> bool:
        """Whether everything was taken: no file set aside, no conflict."""
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """A line for each file set aside and each conflict; empty when everything was taken."""
        files = [f"{aside.file} {aside.reason}" for aside in self.set_aside]
        return files + [str(conflict) for conflict in self.merge.conflicts]


class _Foreign(Exception):
    """A file that is not what its name says; the message is the reason."""


def import_freqtrade(
    store: Store, folder: str | Path, *, replace: bool = False, progress: Progress | None = None
) -> ImportReport:
    """Import every HyperLiquid candle and funding file under a folder, in one commit.

    Parameters
    ----------
    store : Store
        The cache; made when absent.
    folder : path
        freqtrade's data folder or one below it; searched through.
    replace : bool
        Take the new value where the cache has another one.
    progress : callable, optional
        Called with files done, files in all, file name; then the same for the months written.

    Raises
    ------
    DataError
        When the folder has no such file or none can be used, or for what :meth:`Store.merge` refuses.
    """
    paths = find_files(Path(folder))
    tables, coins = [], set()
    set_aside: list[SkippedFile] = []
    for done, path in enumerate(paths):
        if progress:
            progress(done, len(paths), path.name)
        try:
            tables.append(_read(path))
            coins.add(_coin_of(path))
        except _Foreign as reason:
            set_aside.append(SkippedFile(str(path), str(reason)))
    if progress:
        progress(len(paths), len(paths), "read")
    if not tables:
        first = set_aside[0]
        raise DataError(
            f"None of the {len(paths)} files under {folder} can be used. The first, {first.file}, {first.reason}."
        )
    merge = store.merge(tables, SOURCE, replace=replace, progress=progress)
    return ImportReport(len(tables), len(coins), tuple(set_aside), merge)


def find_files(folder: Path) -> list[Path]:
    """Candle and funding files under `folder`, in an order that does not depend on the file system.

    Raises
    ------
    DataError
        When there is none, or a file of a coin is there twice.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. Name freqtrade's data folder, .../user_data/data/hyperliquid.")
    paths = sorted(_matching(folder), key=lambda path: (path.name, str(path)))
    if not paths:
        raise DataError(
            f"{folder} has no HyperLiquid file of freqtrade: looked there and below for *{CANDLES} and *{FUNDING}. "
            "Name the folder .../user_data/data/hyperliquid."
        )
    for one, other in pairwise(paths):
        if one.name == other.name:
            raise DataError(
                f"{one.name} is there twice, in {one.parent} and {other.parent}. Name the one that is meant."
            )
    return paths


def _matching(folder: Path) -> Iterator[Path]:
    for suffix in (CANDLES, FUNDING):
        yield from (path for path in folder.rglob(f"?*{suffix}") if path.is_file())


def _coin_of(path: Path) -> str:
    return path.name.removesuffix(CANDLES).removesuffix(FUNDING)


def _read(path: Path) -> Any:
    """A file as a table of the schema."""
    candles = path.name.endswith(CANDLES)
    columns = ("date", "close", "volume") if candles else ("date", "open")
    table = _load(path, columns)
    dates = _dates(table)
    return _candles(path, table, dates) if candles else _funding(path, table, dates)


def _load(path: Path, columns: tuple[str, ...]) -> Any:
    import pyarrow as pa
    from pyarrow import feather

    try:
        table = feather.read_table(path, memory_map=False)
    except (pa.ArrowException, OSError) as error:
        raise _Foreign(f"cannot be read as feather, it is truncated or another format ({error})") from error
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise _Foreign(f"has no column {', '.join(missing)} but {', '.join(table.column_names)}")
    for name in columns[1:]:
        kind = table.schema.field(name).type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise _Foreign(f"has the column {name} as {kind}; numbers are needed")
    kind = table.schema.field("date").type
    if not pa.types.is_timestamp(kind) or kind.tz not in ("UTC", "+00:00", "Etc/UTC"):
        raise _Foreign(f"has the column date as {kind}; timestamps with the zone UTC are needed")
    if table.num_rows == 0:
        raise _Foreign("has no rows")
    return table


def _dates(table: Any) -> pd.DatetimeIndex:
    column = table.column("date")
    if column.null_count:
        raise _Foreign(f"has {column.null_count} rows without a date")
    return pd.DatetimeIndex(column.to_numpy()).tz_localize("UTC")


def _candles(path: Path, table: Any, dates: pd.DatetimeIndex) -> Any:
    if (dates != dates.floor(HOUR)).any():
        raise _Foreign(f"has candles off the hour, the first at {dates[dates != dates.floor(HOUR)][0].isoformat()}")
    if not dates.is_unique:
        raise _Foreign(f"has two candles at {dates[dates.duplicated()][0].isoformat()}")
    if not dates.is_monotonic_increasing:
        raise _Foreign("has candles out of order")
    close, volume = _column(table, "close"), _column(table, "volume")
    bad = np.flatnonzero(~(np.isfinite(close) & (close > 0)))
    if len(bad):
        where = dates[bad[0]].isoformat()
        raise _Foreign(f"has a close of {close[bad[0]]} at {where} ({len(bad)} such); it must be positive")
    bad = np.flatnonzero(~((np.isfinite(volume) & (volume >= 0)) | np.isnan(volume)))
    if len(bad):
        raise _Foreign(f"has a volume of {volume[bad[0]]} at {dates[bad[0]].isoformat()} ({len(bad)} such)")
    return _table(path, candle_instant(dates), {"mid": close, "volume_usd": volume * close})


def _funding(path: Path, table: Any, dates: pd.DatetimeIndex) -> Any:
    if not dates.is_monotonic_increasing:
        raise _Foreign("has rates out of order")
    instants = funding_instant(dates)
    rate = _column(table, "open")
    bad = np.flatnonzero(np.isinf(rate))
    if len(bad):
        raise _Foreign(f"has a rate of {rate[bad[0]]} at {dates[bad[0]].isoformat()}")
    again = instants.duplicated()
    # A rate stamped twice within the hour is kept once; two rates for one hour leave no way to tell which was paid.
    if again.any():
        earlier = rate[instants.searchsorted(instants)]
        differs = again & (rate != earlier) & ~(np.isnan(rate) & np.isnan(earlier))
        if differs.any():
            row = int(np.flatnonzero(differs)[0])
            raise _Foreign(f"has two rates for {instants[row].isoformat()}: {earlier[row]} and {rate[row]}")
    return _table(path, instants[~again], {"funding": rate[~again]})


def _column(table: Any, name: str) -> Floats:
    return np.asarray(table.column(name).to_numpy(), dtype=np.float64)


def _table(path: Path, instants: pd.DatetimeIndex, values: dict[str, Floats]) -> Any:
    import pyarrow as pa

    codes = pa.array(np.zeros(len(instants), dtype=np.int32))
    columns = {
        TIME: pa.array(instants.as_unit("ms").asi8).cast(pa.timestamp("ms", tz="UTC")),
        COIN: pa.DictionaryArray.from_arrays(codes, pa.array([_coin_of(path)])),
    }
    for name, column in values.items():
        columns[name] = pa.array(column, from_pandas=True)
    return pa.table(columns)
