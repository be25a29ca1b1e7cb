"""Import of freqtrade's ``X_USDC_USDC-1h-futures.feather`` and ``X_USDC_USDC-1h-funding_rate.feather``.

A candle's `date` is its open time, so it becomes the row one hour later: `mid` is its close, `high` and `low` are its
extremes, `volume_usd` is its volume (in the coin) times its close. A funding rate's `date` is the exchange's stamp,
some milliseconds after the hour that it settles; `open` is the rate per hour.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.clock import HOUR, candle_instant, funding_instant, show
from engine.data.cache import Progress, Store
from engine.data.schema import HOUR_MS, Flags, Floats, to_table
from engine.data.sync_report import SkippedItem, SyncReport
from engine.errors import DataError

SOURCE = "freqtrade"
CANDLES = "_USDC_USDC-1h-futures.feather"
FUNDING = "_USDC_USDC-1h-funding_rate.feather"


class _UnusableFile(Exception):
    """A file that is not of the form that its name says; the message is the reason."""


def import_freqtrade(
    store: Store, folder: str | Path, *, replace: bool = False, progress: Progress | None = None
) -> SyncReport:
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
    skipped: list[SkippedItem] = []
    for done, path in enumerate(paths):
        if progress:
            progress(done, len(paths), path.name)
        try:
            tables.append(_read(path))
            coins.add(_coin_of(path))
        except _UnusableFile as reason:
            skipped.append(SkippedItem(str(path), str(reason)))
    if progress:
        progress(len(paths), len(paths), "read")
    if not tables:
        first = skipped[0]
        raise DataError(
            f"None of the {len(paths)} files under {folder} can be used. The first, {first.name}, {first.reason}."
        )
    merge = store.merge(tables, SOURCE, replace=replace, progress=progress)
    return SyncReport(SOURCE, {"files": len(tables), "coins": len(coins)}, merge, tuple(skipped), store.notes())


def find_files(folder: Path) -> list[Path]:
    """Candle and funding files under `folder`, in an order that does not depend on the file system.

    Raises
    ------
    DataError
        When there is none, or two of the same name.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. Name freqtrade's data folder, .../user_data/data/hyperliquid.")
    paths = sorted(_matching(folder), key=lambda path: (path.name, str(path)))
    if not paths:
        raise DataError(
            f"{folder} has no HyperLiquid file of freqtrade: no *{CANDLES} or *{FUNDING} in it or below. "
            "Name the folder .../user_data/data/hyperliquid."
        )
    for one, other in pairwise(paths):
        if one.name == other.name:
            raise DataError(f"{one.name} exists twice, in {one.parent} and {other.parent}. Name one of these folders.")
    return paths


def _matching(folder: Path) -> Iterator[Path]:
    for suffix in (CANDLES, FUNDING):
        yield from (path for path in folder.rglob(f"?*{suffix}") if path.is_file())


def _coin_of(path: Path) -> str:
    return path.name.removesuffix(CANDLES).removesuffix(FUNDING)


def _read(path: Path) -> Any:
    """A file as a table of the schema."""
    candles = path.name.endswith(CANDLES)
    table = _load(path, ("date", "close", "high", "low", "volume") if candles else ("date", "open"))
    dates = pd.DatetimeIndex(table.column("date").to_numpy()).tz_localize("UTC")
    instants, values = _candles(table, dates) if candles else _funding(table, dates)
    hours = instants.as_unit("ms").asi8 // HOUR_MS
    return to_table([_coin_of(path)], np.zeros(len(hours), dtype=np.int64), hours, values)


def _load(path: Path, columns: tuple[str, ...]) -> Any:
    import pyarrow as pa
    from pyarrow import feather

    try:
        table = feather.read_table(path, memory_map=False)
    except (pa.ArrowException, OSError) as error:
        raise _UnusableFile(f"cannot be read as feather, it is truncated or another format ({error})") from error
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise _UnusableFile(f"has no column {', '.join(missing)} but {', '.join(table.column_names)}")
    for name in columns[1:]:
        kind = table.schema.field(name).type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise _UnusableFile(f"has the column {name} as {kind}; numbers are needed")
    kind = table.schema.field("date").type
    if not pa.types.is_timestamp(kind) or kind.tz not in ("UTC", "+00:00", "Etc/UTC"):
        raise _UnusableFile(f"has the column date as {kind}; timestamps with the zone UTC are needed")
    if table.num_rows == 0:
        raise _UnusableFile("has no rows")
    if table.column("date").null_count:
        raise _UnusableFile(f"has {table.column('date').null_count} rows without a date")
    return table


def _candles(table: Any, dates: pd.DatetimeIndex) -> tuple[pd.DatetimeIndex, dict[str, Floats]]:
    close, volume = _column(table, "close"), _column(table, "volume")
    _refuse(dates != dates.floor(HOUR), dates, "a candle off the hour")
    _refuse(dates.duplicated(), dates, "two candles")
    _refuse(_backward(dates), dates, "a candle out of order")
    prices = {"close": close, "high": _column(table, "high"), "low": _column(table, "low")}
    for name, values in prices.items():
        _refuse(~(np.isfinite(values) & (values > 0)), dates, f"a {name} that is not a positive price", values)
    _refuse(np.isinf(volume) | (volume < 0), dates, "a volume that is not zero or more", volume)
    return candle_instant(dates), {
        "mid": close,
        "high": prices["high"],
        "low": prices["low"],
        "volume_usd": volume * close,
    }


def _funding(table: Any, dates: pd.DatetimeIndex) -> tuple[pd.DatetimeIndex, dict[str, Floats]]:
    rate = _column(table, "open")
    _refuse(_backward(dates), dates, "a rate out of order")
    _refuse(np.isinf(rate), dates, "a rate that is not finite", rate)
    # A rate stamped twice within the hour is kept once; two rates for one hour leave no way to tell which was paid.
    instants = funding_instant(dates)
    again = instants.duplicated()
    first = rate[instants.searchsorted(instants)]
    _refuse(again & (rate != first) & ~(np.isnan(rate) & np.isnan(first)), dates, "two rates for one hour", rate)
    return instants[~again], {"funding": rate[~again]}


def _backward(dates: pd.DatetimeIndex) -> Flags:
    """Rows before which the time goes back."""
    return np.r_[False, np.diff(dates.asi8) < 0]


def _refuse(bad: Flags, dates: pd.DatetimeIndex, what: str, values: Floats | None = None) -> None:
    """Refuse a file with any bad row, naming the first."""
    rows = np.flatnonzero(bad)
    if len(rows):
        value = "" if values is None else f" ({values[rows[0]]})"
        raise _UnusableFile(f"has {what}{value} at {show(dates[rows[0]])} ({len(rows)} such)")


def _column(table: Any, name: str) -> Floats:
    return np.asarray(table.column(name).to_numpy(), dtype=np.float64)
