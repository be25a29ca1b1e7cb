"""Files of other programs as data frames: CSV, parquet, feather, JSON and HDF5, their columns as they are named."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from engine.data.schema import Floats

#: Endings that :func:`read_frame` reads, and their format.
FORMATS = {
    ".csv": "CSV",
    ".csv.gz": "CSV",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".feather": "feather",
    ".json": "JSON",
    ".json.gz": "JSON",
    ".h5": "HDF5",
    ".hdf5": "HDF5",
}
#: Columns of rows that are lists without names, as ccxt and freqtrade write candles.
CANDLE_LISTS = ("time", "open", "high", "low", "close", "volume")


class UnusableFile(Exception):
    """A file, or the rows of a coin in it, that cannot be used; the message is the reason and goes on after a name."""


class NoTable(UnusableFile):
    """A file that does not claim to be a table, such as a program's notes on one."""


def ending_of(path: Path) -> str:
    """The ending of a file name that is in :data:`FORMATS`; empty when none is."""
    name = path.name.lower()
    return max((ending for ending in FORMATS if name.endswith(ending)), key=len, default="")


def visible_files(folder: Path) -> Iterator[Path]:
    """Files under a folder, hidden ones left out, in an order that does not depend on the file system."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root) / name for name in sorted(names) if not name.startswith("."))


def read_frame(path: Path) -> pd.DataFrame:
    """Read a file; a time index becomes a column, rows without names get those of :data:`CANDLE_LISTS`.

    `attrs["unnamed"]` of the frame says whether the file named its columns.

    Raises
    ------
    UnusableFile
        When it cannot be read as what its name says, has no rows, or a column twice.
    """
    ending = ending_of(path)
    read = {"CSV": _csv, "parquet": pd.read_parquet, "feather": pd.read_feather, "JSON": _json, "HDF5": _hdf5}
    form = FORMATS[ending]
    try:
        frame: pd.DataFrame = read[form](path)  # type: ignore[operator]
    except (ValueError, OSError, EOFError, KeyError, TypeError, AttributeError) as error:
        text = " ".join(str(error).split())[:200]
        raise UnusableFile(f"cannot be read as {form}, it is truncated or another format ({text})") from error
    unnamed = frame.attrs.get("unnamed", False)
    index = frame.index
    # An index without a name is of stamps, or it numbers rows, as after a filter or where tables were joined.
    numbered = index.names == [None] and index.dtype.kind in "iu" and bool((index.to_numpy() < 10**8).all())
    if numbered:
        frame = frame.reset_index(drop=True)
    elif not isinstance(index, pd.RangeIndex):
        frame = frame.reset_index(names=[name or "time" for name in index.names], allow_duplicates=True)
    frame.columns = [str(name) for name in frame.columns]
    if not len(frame):
        raise UnusableFile("has no rows")
    if frame.columns.has_duplicates:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise UnusableFile(f"has the column {twice} twice")
    frame.attrs = {"unnamed": unnamed}
    return frame


def names_of(frame: pd.DataFrame) -> list[str]:
    """Names of the columns, which :func:`read_frame` made texts."""
    return [str(name) for name in frame.columns]


def numbers(frame: pd.DataFrame, column: str) -> Floats:
    """A column as float64; empty cells are NaN.

    Raises
    ------
    UnusableFile
        For a text that is no number.
    """
    values = frame[column]
    if pd.api.types.is_bool_dtype(values.dtype) or pd.api.types.is_datetime64_any_dtype(values.dtype):
        raise UnusableFile(f"has the column {column} as {values.dtype}; numbers are needed")
    if not pd.api.types.is_numeric_dtype(values.dtype):
        found = pd.to_numeric(values, errors="coerce")
        absent = values.isna() | values.astype(str).str.lower().isin(["", "nan", "null", "none"])
        wrong = values[found.isna() & ~absent]
        if len(wrong):
            raise UnusableFile(f"has {wrong.iloc[0]!r} in the column {column} ({len(wrong)} such); numbers are needed")
        values = found
    return values.to_numpy(dtype="float64", na_value=float("nan"))


def _csv(path: Path) -> pd.DataFrame:
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8-sig") as file:
        head, second = next((line.strip() for line in file if line.strip()), ""), file.readline()
    separator = next((sign for sign in ";\t|" if sign in head), ",")
    # Where a comma does not part columns it is the decimal point of a number.
    comma = separator != "," and re.search(r"\d,\d", head + separator + second) is not None
    first = head.split(separator)
    unnamed = all(_is_number(text.replace(",", ".")) for text in first) and len(first) > 1
    if unnamed and len(first) != len(CANDLE_LISTS):
        raise ValueError(f"its {len(first)} columns have no names; write them in a first line")
    if len(first) == 1:
        raise ValueError(
            f"it has one column, {first[0][:60]!r}; columns are separated by commas, semicolons, tabs or bars"
        )
    frame = pd.read_csv(
        path,
        names=list(CANDLE_LISTS) if unnamed else None,
        header=None if unnamed else 0,
        encoding="utf-8-sig",
        low_memory=False,
        index_col=False,
        sep=separator,
        decimal="," if comma else ".",
    )
    first_column = frame.columns[0]
    # pandas writes an index without a name like that: stamps, or the numbers of the rows.
    if str(first_column) == "Unnamed: 0" and not frame[first_column].equals(pd.Series(range(len(frame)))):
        frame = frame.rename(columns={first_column: "time"})
    frame.attrs["unnamed"] = unnamed
    return frame


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _json(path: Path) -> pd.DataFrame:
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8-sig") as file:
        content = json.load(file)
    if isinstance(content, dict) and content and all(isinstance(rows, list) for rows in content.values()):
        parts = [_rows(rows).assign(coin=coin) for coin, rows in content.items() if rows]
        frame = pd.concat(parts, ignore_index=True)
        frame.attrs = parts[0].attrs
        return frame
    return _rows(content)


def _rows(content: Any) -> pd.DataFrame:
    if not isinstance(content, list):
        raise NoTable("is no list of rows")
    if not content:
        return pd.DataFrame()
    if all(isinstance(row, dict) for row in content):
        return pd.DataFrame(content)
    widths = {len(row) if isinstance(row, list) else 0 for row in content}
    if widths == {2}:  # freqtrade's funding rates
        frame = pd.DataFrame(content, columns=["time", "funding_rate"])
    elif widths == {len(CANDLE_LISTS)}:
        frame = pd.DataFrame(content, columns=list(CANDLE_LISTS))
    else:
        raise ValueError(f"its rows are neither objects nor lists of {', '.join(CANDLE_LISTS)}")
    frame.attrs["unnamed"] = True
    return frame


def _hdf5(path: Path) -> pd.DataFrame:
    try:
        import tables  # noqa: F401 (pandas reads HDF5 with it)
    except ImportError as error:
        raise ValueError("HDF5 needs an extra library: pip install tables") from error
    with pd.HDFStore(path, mode="r") as file:
        keys = file.keys()
        if len(keys) != 1:
            raise ValueError(f"it has {len(keys)} tables; one is needed")
        frame = pd.DataFrame(file.get(keys[0]))
    return frame.reset_index(drop=True) if isinstance(frame.index[:0], pd.Index) and "date" in frame else frame
