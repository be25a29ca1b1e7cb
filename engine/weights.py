"""Anybody's weight matrix, from a CSV or parquet file."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from engine.errors import WeightsError, reason_of, some

#: The end of a time that says its zone: Z or an offset.
_ZONE = r"(?:[zZ]|[+-]\d{2}:?\d{2})$"


def read_weights(path: str | Path) -> pd.DataFrame:
    """Read a weights file: a first column ``time`` (UTC decision instants), then one column a coin.

    Parameters
    ----------
    path : str or Path
        ``.csv`` or ``.parquet`` (there an index of instants will do for the column). Times carry their zone
        (``2024-10-01T23:00Z``); an empty cell is NaN, which means hold.

    Returns
    -------
    DataFrame, (D, coins)
        Indexed by instant, UTC, in the order of the file; what the values must obey is checked by ``backtest``.

    Raises
    ------
    WeightsError
        For a file that cannot be read, has no ``time`` column first, a time without a zone or a value that is no
        number.
    """
    path = Path(path)
    if path.is_dir():
        raise WeightsError(f"Weights file {path} is a folder. Name the .csv or .parquet file in it.")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            frame = pd.read_parquet(path)
            # weights.to_parquet(...) keeps the instants as an index, not as the first column.
            if isinstance(frame.index, pd.DatetimeIndex):
                frame = frame.rename_axis("time").reset_index()
        elif path.suffix.lower() == ".csv":
            # A row of another length than the header is an error, not a reason to shift the columns.
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)
                frame = pd.read_csv(path, dtype={"time": str}, index_col=False, skipinitialspace=True)
        else:
            raise WeightsError(f"Weights file {path} is neither .csv nor .parquet. Save it as one of them.")
    except OSError as error:
        raise WeightsError(f"Weights file {path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise WeightsError(f"Weights file {path} cannot be read: {reason_of(error)}.") from error
    if len(frame.columns) == 0 or frame.columns[0] != "time":
        first = repr(frame.columns[0]) if len(frame.columns) else "nothing"
        raise WeightsError(
            f"Weights file {path}: the first column must be 'time'; it is {first}. Then comes one column a coin."
        )
    times = _instants(frame["time"], path)
    values = frame.drop(columns="time")
    numbers = values.apply(pd.to_numeric, errors="coerce")
    numbers = numbers.mask(np.broadcast_to(values.dtypes == np.bool_, values.shape))  # true and false are no weights
    wrong = (numbers.isna() & values.notna()).to_numpy()
    if wrong.any():
        row, column = (int(place[0]) for place in np.nonzero(wrong))
        raise WeightsError(
            f"Weights file {path}: {values.columns[column]} at {frame['time'].iloc[row]} is "
            f"{values.iloc[row, column]!r}, "
            "which is no number. Leave the cell empty to hold, 0 to be flat."
        )
    return numbers.astype(np.float64).set_axis(times, axis=0)


def _instants(column: pd.Series, path: Path) -> pd.DatetimeIndex:
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return pd.DatetimeIndex(column, name="time")
    if pd.api.types.is_datetime64_any_dtype(column):
        raise WeightsError(
            f"Weights file {path}: the times are naive, the first is {column.iloc[0]}. Store them as UTC."
        )
    text = column.astype("str")
    naive = text[column.isna() | ~text.str.contains(_ZONE)]
    if len(naive):
        raise WeightsError(
            f"Weights file {path}: {len(naive)} times have no zone: {some(naive, 2)}. Write them as 2024-10-01T23:00Z."
        )
    times = pd.to_datetime(text, utc=True, errors="coerce", format="ISO8601")
    if times.isna().any():
        raise WeightsError(f"Weights file {path}: {some(text[times.isna()], 2)} is no time. Write 2024-10-01T23:00Z.")
    return pd.DatetimeIndex(times, name="time")
