"""Labels of a study: the index of its sets, and the instants of its days."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from engine.clock import UNIT

#: Key of a grid that decides at which instant a day ends.
HOUR_KEY = "execution.hour_utc"


def index_of(grid: Mapping[str, list[Any]], codes: np.ndarray) -> pd.Index:
    """Index of the sets `codes`, (P, K): index into the grid's values of each key's value."""
    levels: list[Any] = [
        _level([tuple(value) if isinstance(value, list) else value for value in of]) for of in grid.values()
    ]
    if len(grid) == 1:
        index: pd.Index = levels[0].rename(next(iter(grid))).take(codes[:, 0])
        return index
    return pd.MultiIndex(levels=levels, codes=list(codes.T), names=list(grid), verify_integrity=False)


def codes_of(index: pd.Index) -> tuple[np.ndarray, list[list[Any]]]:
    """Index of each set's value among the values of each axis, (P, K), and those values."""
    if isinstance(index, pd.MultiIndex):
        codes = np.stack([np.asarray(codes) for codes in index.codes], axis=1)
        return codes, [level.tolist() for level in index.levels]
    # By type and text: to pandas True is 1 and None is none, and a table has no hash.
    values = {(type(value), repr(value)): value for value in index.tolist()}
    code_of = {key: code for code, key in enumerate(values)}
    return np.array([[code_of[type(value), repr(value)]] for value in index.tolist()]), [list(values.values())]


def as_given(value: Any) -> Any:
    """A value of the index as the grid has it."""
    if isinstance(value, tuple):
        return list(value)
    return value.item() if isinstance(value, np.generic) else value


def _level(values: list[Any]) -> pd.Index:
    """The values as they are: pandas would make 3 beside 2.5 a float, and None beside a number NaN."""
    level = pd.Index(values, tupleize_cols=False)
    same = all(type(one) is type(other) for one, other in zip(level.tolist(), values, strict=True))
    return level if same else pd.Index(values, tupleize_cols=False, dtype=object)


def by_instant(record: Mapping[str, Any], index: pd.Index, values: np.ndarray, dates: pd.DatetimeIndex) -> pd.DataFrame:
    """Daily returns by the instants at which the days end.

    Parameters
    ----------
    record : mapping
        ``sweep.json``: its config has the hour, unless the hour varies.
    index : Index, (P,)
        Of the sets.
    values : ndarray, (days, P)
        By date.
    dates : DatetimeIndex, (days,)
        UTC dates.

    Returns
    -------
    DataFrame, (days * hours of decision, P)
    """
    own = index.get_level_values(HOUR_KEY) if HOUR_KEY in index.names else [record["config"]["execution"]["hour_utc"]]
    hours = np.asarray(own, dtype=np.int64)
    parts = []
    for hour in np.unique(hours):
        instants = (dates + pd.Timedelta(hours=int(hour))).as_unit(UNIT).rename("time")
        shown = values if len(np.unique(hours)) == 1 else np.where(hours == hour, values, np.nan)
        parts.append(pd.DataFrame(shown, index=instants, columns=index))
    return parts[0] if len(parts) == 1 else pd.concat(parts).sort_index()
