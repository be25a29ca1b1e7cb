"""The hourly schema: the form of the data that every source gives to the cache.

Long form, a row a coin and instant: ``time`` (timestamp with zone UTC, on the hour), ``coin`` (string), then any of
:data:`engine.panel.FIELDS` as numbers. A field that the source lacks is an absent column; null or NaN inside a column
means "not observed". Rows are grouped by coin, and ascend in time within a coin.

Inside this package an instant is an *hour number*, hours since 1970-01-01 00:00 UTC, as int64: integer arithmetic
instead of calendars wherever arrays are indexed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from engine.clock import show
from engine.errors import DataError, did_you_mean
from engine.panel import FIELDS, PRICES

#: Version of the files and of the manifest; a newer one is refused, an older one read.
SCHEMA = 4
TIME = "time"
COIN = "coin"
#: Ending of the column that names the source of each cell of a field, in files of before schema 3.
SOURCE = "_source"
NOT_NEGATIVE = ("volume_usd", "open_interest", "volume_24h_usd", "depth_10bps_usd", "depth_50bps_usd")

HOUR_MS = 3_600_000
#: HyperLiquid started in 2023. Stamps far outside are in another unit than milliseconds.
EARLIEST = pd.Timestamp("2020-01-01", tz="UTC")
_LATEST = pd.Timestamp("2100-01-01", tz="UTC")

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Rows:
    """A table of the schema as arrays of length R.

    Attributes
    ----------
    coins : tuple of str
        Names that `codes` points to.
    codes : ndarray, shape (R,), int64
        Coin of each row.
    hours : ndarray, shape (R,), int64
        Hour number of each row.
    fields : mapping of str to ndarray, each (R,) float64
        Their names and values; NaN where not observed.
    """

    coins: tuple[str, ...]
    codes: Integers
    hours: Integers
    fields: Mapping[str, Floats]


def hour_number(instant: pd.Timestamp) -> int:
    """Hours from 1970-01-01 00:00 UTC to `instant`, rounded down."""
    return int(instant.timestamp() // 3600)


def instant_of(hour: int) -> pd.Timestamp:
    """The instant of an hour number."""
    return pd.Timestamp(int(hour) * 3600, unit="s", tz="UTC").as_unit("ms")


#: Until this row, included, funding was settled every so many hours, and rates are of 8 hours.
LAST_EIGHT_HOURLY = hour_number(pd.Timestamp("2023-06-08T00:00Z"))
SETTLEMENT_HOURS = 8


def months_of(hours: Integers) -> Integers:
    """Calendar month (UTC) of hour numbers, as months since 1970-01."""
    return hours.astype("datetime64[h]").astype("datetime64[M]").astype(np.int64)


def month_start(month: int) -> int:
    """Hour number at which a month (counted from 1970-01) begins."""
    return int(np.datetime64(month, "M").astype("datetime64[h]").astype(np.int64))


def month_key(month: int) -> str:
    """Name of a month counted from 1970-01: ``2024-10``."""
    return str(np.datetime64(month, "M"))


def month_number(key: str) -> int:
    """Months from 1970-01 to ``2024-10``."""
    return int(np.datetime64(key, "M").astype(np.int64))


def stamps_to_hours(milliseconds: Integers) -> Integers:
    """Hour numbers of instants given in milliseconds since 1970."""
    return milliseconds // HOUR_MS


def hours_to_stamps(hours: Integers) -> Integers:
    """Milliseconds since 1970 of hour numbers."""
    return hours * HOUR_MS


def to_table(coins: Sequence[str], codes: Integers, hours: Integers, fields: Mapping[str, Floats]) -> Any:
    """Rows as a pyarrow table of the schema.

    Parameters
    ----------
    coins : sequence of str
        Names that `codes` points to.
    codes, hours : ndarray, shape (R,)
        Coin and hour number of each row; they stay in this order.
    fields : mapping of str to ndarray, each (R,) float64
        NaN where not observed.
    """
    import pyarrow as pa

    names = pa.array(coins, pa.string())
    columns = {
        TIME: pa.array(hours_to_stamps(hours)).cast(pa.timestamp("ms", tz="UTC")),
        COIN: pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), names),
    }
    return pa.table({**columns, **{name: pa.array(values, from_pandas=True) for name, values in fields.items()}})


def read_rows(table: Any, where: str) -> Rows:
    """Check a pyarrow table against the schema and return its arrays.

    Parameters
    ----------
    table : pyarrow.Table
        Long form, as the module describes.
    where : str
        Name of the source, for errors.

    Raises
    ------
    DataError
        For an unknown or missing column, an instant that is null, off the hour, without the zone UTC or outside 2020
        to 2100, rows that repeat or are not in order, a price that is not positive, a value that is not finite.
    """
    _check_columns(table, where)
    hours = _hours(table, where)
    coins, codes = _coins(table, where)
    key = codes * np.int64(1 << 32) + hours
    wrong = np.flatnonzero(np.diff(key) <= 0)
    if len(wrong):
        row = int(wrong[0]) + 1
        what = "appears twice" if (key == key[row]).sum() > 1 else "is out of order (by coin, then by time)"
        raise DataError(f"{where}: the row of {coins[codes[row]]} at {show(instant_of(hours[row]))} {what}.")
    names = [name for name in FIELDS if name in table.column_names]
    values = {name: _numbers(table, name, where) for name in names}
    for name, column in values.items():
        wanted = "a positive price" if name in PRICES else "zero or more" if name in NOT_NEGATIVE else "finite"
        good = np.isfinite(column)
        if name in PRICES:
            good &= column > 0
        elif name in NOT_NEGATIVE:
            good &= column >= 0
        bad = np.flatnonzero(~(good | np.isnan(column)))
        if len(bad):
            row = int(bad[0])
            raise DataError(
                f"{where}: {name} of {coins[codes[row]]} at {show(instant_of(hours[row]))} is {column[row]}; it must "
                f"be {wanted}, or null where not observed ({len(bad)} such values)."
            )
    return Rows(coins, codes, hours, values)


def _check_columns(table: Any, where: str) -> None:
    names = table.column_names
    for name in (TIME, COIN):
        if name not in names:
            raise DataError(f"{where}: the column {name!r} is missing; the columns are {', '.join(names) or 'none'}.")
    unknown = [name for name in names if name not in (TIME, COIN) and name not in FIELDS]
    if unknown:
        hint = did_you_mean(unknown[0], FIELDS)
        raise DataError(f"{where}: unknown column {unknown[0]!r}.{hint} Fields: {', '.join(FIELDS)}.")
    if len(set(names)) != len(names):
        raise DataError(f"{where}: a column appears twice among {', '.join(names)}.")


def _hours(table: Any, where: str) -> Integers:
    import pyarrow as pa

    column = table.column(TIME)
    if not pa.types.is_timestamp(column.type) or column.type.tz not in ("UTC", "+00:00", "Etc/UTC"):
        raise DataError(f"{where}: the column 'time' is {column.type}; timestamps with the zone UTC are needed.")
    if column.null_count:
        raise DataError(f"{where}: {column.null_count} rows have no time.")
    try:
        milliseconds = column.cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise DataError(f"{where}: the column 'time' has instants off the hour: {error}.") from error
    outside = (milliseconds < EARLIEST.timestamp() * 1000) | (milliseconds > _LATEST.timestamp() * 1000)
    if outside.any():
        raise DataError(f"{where}: {int(outside.sum())} instants lie outside 2020 to 2100; is their unit right?")
    off = np.flatnonzero(milliseconds % HOUR_MS)
    if len(off):
        first = pd.Timestamp(int(milliseconds[off[0]]), unit="ms", tz="UTC")
        raise DataError(f"{where}: {len(off)} instants are off the hour, the first {first.isoformat()}.")
    return stamps_to_hours(np.asarray(milliseconds, dtype=np.int64))


def _coins(table: Any, where: str) -> tuple[tuple[str, ...], Integers]:
    import pyarrow as pa

    column = table.column(COIN)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)) or column.null_count:
        raise DataError(
            f"{where}: the column 'coin' is {column.type} with {column.null_count} nulls; it must be names."
        )
    # Encoded again, so that codes are numbered by first appearance and a coin that reappears is out of order.
    encoded = column.cast(pa.string()).combine_chunks()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    encoded = encoded.dictionary_encode()
    names = tuple(encoded.dictionary.to_pylist())
    if "" in names:
        raise DataError(f"{where}: a row has an empty coin name.")
    return names, encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _numbers(table: Any, name: str, where: str) -> Floats:
    import pyarrow as pa

    column = table.column(name)
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise DataError(f"{where}: the column {name!r} is {column.type}; numbers are needed.")
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    # Adding zero turns -0.0 into 0.0, so that equal values have equal bytes.
    return np.asarray(values, dtype=np.float64) + 0.0
