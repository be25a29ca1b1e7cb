"""Data of the charts and the table of a sweep page, as compact numbers that its script draws.

Everything that grows with the number of sets is aggregated or cut here, so that the page of a million sets is no
larger than that of ten thousand.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from engine.reporting.html import plain
from engine.sweeps.study import ERROR, ORACLE, Study, codes_of

#: (done, total, what is being done)
Progress = Callable[[int, int, str], None]
#: Rows of the table at most: the best by Sharpe ratio.
ROWS = 10_000
#: Sets with a curve of their own at most, and points of every curve.
CURVES, POINTS = 1_000, 400
#: Values of an axis beyond which neighbours share a row of the heat map, and cells of all heat maps together.
GROUPS, CELLS = 40, 100_000
BANDS = (0.05, 0.25, 0.5, 0.75, 0.95)
#: Metrics of the heat map, where the table has them.
HEAT = ("sharpe", "cagr", "total_return", "max_drawdown", "volatility", "sortino", "calmar", "turnover_daily")
#: Columns of the table that are visible from the start.
MAIN = ("sharpe_joint", "sharpe", "cagr", "max_drawdown", "volatility", "turnover_daily", "trades")
LABELS: Mapping[str, str] = {
    "sharpe_joint": "joint Sharpe",
    "sharpe": "Sharpe",
    "cagr": "CAGR",
    "total_return": "return",
    "max_drawdown": "drawdown",
    "turnover_daily": "turnover / day",
    "sortino": "Sortino",
    "calmar": "Calmar",
    "equity_start_usd": "start USD",
    "equity_end_usd": "end USD",
}
_PERCENT = ("cagr", "total_return", "max_drawdown", "volatility", "turnover_daily", "untradable_weight")
_RATIOS = ("sharpe_joint", "sharpe", "sortino", "calmar", "gross_mean", "net_mean")


@dataclass(frozen=True, eq=False)
class Axis:
    """One parameter that varies.

    Attributes
    ----------
    levels : list
        Distinct values in the order shown: numbers ascending, anything else as the grid has them.
    codes : ndarray, (P,)
        Index of each set's value in `levels`.
    numeric : bool
        Whether all values are finite numbers.
    """

    name: str
    levels: list[Any]
    codes: np.ndarray
    numeric: bool

    @property
    def labels(self) -> list[str]:
        """Text of every value; strings among other types are quoted, so that 1 differs from "1"."""
        if self.name == ORACLE and len({str(path).rpartition(":")[2] for path in self.levels}) == len(self.levels):
            return [str(path).rpartition(":")[2] for path in self.levels]
        mixed = len({isinstance(value, str) for value in self.levels}) > 1
        return [f'"{value}"' if mixed and isinstance(value, str) else label(value) for value in self.levels]

    def grouped(self, groups: int) -> tuple[list[str], np.ndarray]:
        """Labels and codes with at most `groups` distinct values: neighbours are merged."""
        labels, count = self.labels, len(self.levels)
        if count <= groups:
            return labels, self.codes
        group = np.arange(count) * groups // count
        bounds = np.flatnonzero(np.diff(group, prepend=-1))
        last = np.append(bounds[1:], count) - 1
        return [f"{labels[low]} to {labels[high]}" for low, high in zip(bounds, last, strict=True)], group[self.codes]


def label(value: Any) -> str:
    """Text of a parameter's value; one that holds several is in brackets, because values are shown in lists."""
    return f"({plain(value)})" if isinstance(value, list | tuple) else plain(value)


def axes_of(study: Study) -> list[Axis]:
    """The parameters that vary, a level of the index each."""
    codes, values = codes_of(study.table.index)
    return [
        _axis(str(name), of, codes[:, column])
        for column, (name, of) in enumerate(zip(study.table.index.names, values, strict=True))
    ]


def _axis(name: str, values: list[Any], codes: np.ndarray) -> Axis:
    used = np.unique(codes)
    kept = [values[index] for index in used]
    codes = np.searchsorted(used, codes)
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in kept)
    numeric = numeric and all(math.isfinite(value) for value in kept)
    if numeric:
        order = sorted(range(len(kept)), key=lambda index: kept[index])
        rank = np.empty(len(kept), dtype=np.int64)
        rank[order] = np.arange(len(kept))
        kept, codes = [kept[index] for index in order], rank[codes]
    return Axis(name, kept, codes, numeric)


def packed(values: Any) -> dict[str, Any]:
    """An array as base64 of its little-endian bytes: whole numbers in as few bytes as hold them, all else as float32.

    float32 keeps seven digits, more than is shown, and is smaller than the digits themselves. A long array of few
    distinct numbers is their places in ``of``.
    """
    array = np.asarray(values)
    if array.size > 2**11 and array.dtype.kind == "f":
        levels, places = np.unique(array, return_inverse=True)
        if len(levels) <= 2**8:
            return {**packed(places), "of": packed(levels)}
    kind = "<f4"
    whole = array.dtype.kind in "iu" or (array.dtype.kind == "f" and bool((array == np.floor(array)).all()))
    if whole and array.size and array.min() >= 0 and array.max() < 2**32:
        kind = "<u1" if array.max() < 2**8 else "<u2" if array.max() < 2**16 else "<u4"
    with np.errstate(over="ignore"):
        data = np.ascontiguousarray(array, dtype=kind).tobytes()
    return {"type": kind[1:], "data": base64.b64encode(data).decode("ascii")}


def numbers(study: Study, name: str) -> np.ndarray:
    """A column of the table, (P,); NaN where a set has no such figure. ``sharpe_joint`` is that of the study."""
    if name == "sharpe_joint":
        return np.where(np.isfinite(study.sharpe_joint), study.sharpe_joint, np.nan)
    if name not in study.table:
        return np.full(len(study), np.nan)
    values = pd.to_numeric(study.table[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def ranked_by(study: Study) -> str:
    """The figure that sets are ranked by: the Sharpe ratio, of joint days where they trade on different ones."""
    return "sharpe_joint" if study.joint_differs else "sharpe"


def table(study: Study, axes: Sequence[Axis], winner: int | None, most: int) -> dict[str, Any]:
    """Columns of the best sets, at most so many; the winner is among them whatever its Sharpe ratio."""
    rows = study.ranking()[:most]
    if winner is not None and winner not in rows:
        rows[-1] = winner
    names = [str(name) for name in study.table.columns if name != ERROR]
    columns = [_column(study, name, rows) for name in sorted(names, key=lambda name: (*MAIN, name).index(name))]
    # The column that is sorted by comes first: on a phone the others are out of sight.
    if study.joint_differs:
        columns.insert(0, _figures("sharpe_joint", numbers(study, "sharpe_joint")[rows]))
    columns[1:1] = [_axis_column(axis, rows) for axis in axes]
    if (study.table[ERROR].to_numpy()[rows] != "").any():
        columns.append({**_texts(ERROR, study.table[ERROR].astype(str).to_numpy()[rows].tolist()), "main": True})
    return {"rows": packed(rows), "shown": len(rows), "columns": columns, "winner": _row_of(rows, winner)}


def _row_of(rows: np.ndarray, winner: int | None) -> int | None:
    return None if winner is None else int(np.flatnonzero(rows == winner)[0])


def _axis_column(axis: Axis, rows: np.ndarray) -> dict[str, Any]:
    used, codes = np.unique(axis.codes[rows], return_inverse=True)
    labels = axis.labels
    return {
        "name": axis.name,
        "label": axis.name,
        "kind": "number" if axis.numeric else "text",
        "form": "axis",
        "main": True,
        "values": [labels[index] for index in used],
        "numbers": [axis.levels[index] for index in used] if axis.numeric else None,
        "codes": packed(codes),
    }


def _column(study: Study, name: str, rows: np.ndarray) -> dict[str, Any]:
    column = study.table[name]
    if column.dtype.kind not in "iuf":
        return _texts(name, ["" if pd.isna(value) else str(value) for value in column.iloc[rows].tolist()])
    return _figures(name, numbers(study, name)[rows])


def _figures(name: str, values: np.ndarray) -> dict[str, Any]:
    return {
        "name": name,
        "label": LABELS.get(name, name),
        "kind": "number",
        "form": form(name),
        "main": name in MAIN,
        "data": packed(values),
    }


def _texts(name: str, texts: list[str]) -> dict[str, Any]:
    codes, values = pd.factorize(np.array(texts, dtype=object))
    return {
        "name": name,
        "label": name,
        "kind": "text",
        "form": "text",
        "main": False,
        "values": values.tolist(),
        "numbers": None,
        "codes": packed(codes.astype(np.int64)),
    }


def form(name: str) -> str:
    """How a metric is written: percent, ratio, usd or count."""
    if name in _PERCENT:
        return "percent"
    return "usd" if name.endswith("_usd") else "ratio" if name in _RATIOS else "count"


def heat(study: Study, axes: Sequence[Axis], winner: int | None, progress: Progress | None = None) -> dict[str, Any]:
    """Every metric over every axis and every pair of axes.

    A cell holds, of its sets that have the metric, the ``median``; the value of the set with the highest Sharpe ratio
    (``best``); and that of the set that has the winner's values on all other axes (``fixed``). ``count`` is the number
    of sets with a Sharpe ratio in it.
    """
    metrics = [ranked_by(study) if name == "sharpe" else name for name in HEAT if name in study.table]
    limit = _group_limit([len(axis.levels) for axis in axes], len(metrics))
    grouped = [axis.grouped(limit) for axis in axes]
    values = np.array([numbers(study, name) for name in metrics])
    ranked = study.ranking()
    ranked = ranked[np.isfinite(numbers(study, "sharpe_joint")[ranked])]
    ascending = [np.argsort(row, kind="stable")[: int(np.isfinite(row).sum())] for row in values]
    keys = [*((index,) for index in range(len(axes))), *combinations(range(len(axes)), 2)]
    cells = {}
    for done, key in enumerate(keys):
        if progress is not None:
            progress(done, len(keys), "heat maps")
        shape = [len(grouped[index][0]) for index in key]
        flat = np.ravel_multi_index([grouped[index][1] for index in key], shape).astype(np.int32)
        size = math.prod(shape)
        others = [axis for index, axis in enumerate(axes) if index not in key]
        cells["-".join(map(str, key))] = {
            "count": packed(np.bincount(flat[ranked], minlength=size)),
            "median": packed(_medians(values, ascending, flat, size)),
            "best": packed(_best(values, ranked, flat, size)),
            "fixed": None if winner is None else packed(_best(values, _alike(ranked, others, winner), flat, size)),
        }
    return {
        "metrics": [{"name": name, "label": LABELS.get(name, name), "form": form(name)} for name in metrics],
        "axes": [
            {
                "name": axis.name,
                "labels": labels,
                "grouped": len(labels) < len(axis.levels),
                "winner": None if winner is None else int(codes[winner]),
            }
            for axis, (labels, codes) in zip(axes, grouped, strict=True)
        ],
        "cells": cells,
    }


def _group_limit(sizes: list[int], metrics: int) -> int:
    limit = GROUPS
    while limit > 2:
        shown = [min(size, limit) for size in sizes]
        if 3 * metrics * sum(first * second for first, second in combinations(shown, 2)) <= CELLS:
            break
        limit -= 2
    return limit


def _medians(values: np.ndarray, ascending: list[np.ndarray], flat: np.ndarray, size: int) -> np.ndarray:
    """Median of each metric in each cell, (M, size); NaN in an empty cell. `ascending` are the sets by each metric."""
    medians = np.full((len(values), size), np.nan)
    for metric, order in enumerate(ascending):
        cell = flat[order].astype(np.uint32 if size > 2**16 else np.uint16)
        sorted_values = values[metric, order][np.argsort(cell, kind="stable")]
        counts = np.bincount(cell, minlength=size)
        filled = counts > 0
        start = (np.cumsum(counts) - counts)[filled]
        count = counts[filled]
        medians[metric, filled] = (sorted_values[start + (count - 1) // 2] + sorted_values[start + count // 2]) / 2.0
    return medians


def _best(values: np.ndarray, ranked: np.ndarray, flat: np.ndarray, size: int) -> np.ndarray:
    """Metrics of the first of `ranked` in each cell, (M, size); NaN in an empty cell."""
    best = np.full((len(values), size), np.nan)
    cells, first = np.unique(flat[ranked], return_index=True)
    best[:, cells] = values[:, ranked[first]]
    return best


def _alike(ranked: np.ndarray, others: Sequence[Axis], winner: int) -> np.ndarray:
    alike = np.ones(len(ranked), dtype=bool)
    for axis in others:
        alike &= axis.codes[ranked] == axis.codes[winner]
    return ranked[alike]


def histogram(values: Any, zero: bool = False) -> dict[str, list[float]] | None:
    """``edges``, one more than ``counts``; None when no value is finite. With `zero` no bin has it inside."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return None
    counts, edges = np.histogram(finite, bins=int(np.clip(2.0 * len(finite) ** 0.4, 8, 80)))
    if zero:
        width = edges[1] - edges[0]
        bounds = np.arange(np.floor(edges[0] / width), np.ceil(edges[-1] / width) + 1.0) * width
        # The last edge may be an ulp below the highest value.
        counts, edges = np.histogram(np.clip(finite, bounds[0], bounds[-1]), bins=bounds)
    return {"edges": edges.round(6).tolist(), "counts": counts.tolist()}


def curve_bytes(study: Study) -> int:
    """Room that a curve of a set takes on the page; 0 without returns."""
    return 0 if study.daily_returns is None else 16 * (min(len(study.daily_returns), POINTS) + 2) // 3


def fan(
    study: Study, winner: int | None, progress: Progress | None = None, most: int = CURVES
) -> dict[str, Any] | None:
    """Growth of one unit by day: quantiles over all sets, the winner and the best sets, at most so many.

    None without returns. A day on which a set has no return counts as 0; a set without any is left out.
    """
    returns = study.daily_returns
    if returns is None or returns.empty:
        return None
    dates = pd.DatetimeIndex(returns.index)
    kept = thinned(len(dates))
    values = returns.to_numpy(dtype=np.float64)
    rows = study.ranking()[:most]
    lives = np.zeros(values.shape[1], dtype=bool)
    for day in values:
        lives |= np.isfinite(day)
    if not lives.any():
        return None
    bands, curves, best = np.ones((len(BANDS), len(kept) + 1)), np.ones((len(rows), len(kept) + 1)), [1.0]
    for point, growth in enumerate(_growth(values, kept), start=1):
        if progress is not None and point % 16 == 0:
            progress(point, len(kept), "equity curves")
        bands[:, point] = np.quantile(growth[lives], BANDS)
        curves[:, point] = np.where(lives[rows], growth[rows], np.nan)
        best.append(float("nan") if winner is None else float(growth[winner]))
    return {
        "dates": _days(dates, kept),
        "bands": packed(bands),
        "winner": packed(np.array(best)) if winner is not None and lives[winner] else None,
        "curves": packed(curves),
        "kept": len(rows),
        "sets": int(lives.sum()),
    }


def _growth(values: np.ndarray, kept: np.ndarray) -> Iterator[np.ndarray]:
    """Growth of all sets at the kept days, one day after another; each overwrites the array of the last."""
    growth, wanted = np.ones(values.shape[1]), set(kept.tolist())
    for day, row in enumerate(values):
        growth *= 1.0 + np.nan_to_num(row, nan=0.0, posinf=0.0, neginf=0.0)
        np.maximum(growth, 0.0, out=growth)  # an account that has lost everything stays at 0
        if day in wanted:
            yield growth


def curve(dates: Sequence[str], returns: Sequence[float | None]) -> dict[str, Any]:
    """Growth of one unit for a single series of daily returns, like the curves of :func:`fan`."""
    days = pd.DatetimeIndex(pd.to_datetime(list(dates), utc=True))
    daily = np.array([math.nan if value is None else value for value in returns], dtype=np.float64)
    kept = thinned(len(days))
    growth = [float(point[0]) for point in _growth(daily[:, None], kept)]
    return {"dates": _days(days, kept), "growth": packed(np.array([1.0, *growth]))}


def thinned(days: int) -> np.ndarray:
    """Days that are drawn, (<= :data:`POINTS`,): evenly spaced, the last always among them."""
    return np.unique(np.linspace(0, days - 1, min(days, POINTS)).round().astype(np.int64))


def _days(dates: pd.DatetimeIndex, kept: np.ndarray) -> list[str]:
    """The day before the first one, where all curves start at 1, then the kept days."""
    return [str((dates[0] - pd.Timedelta(days=1)).date()), *(str(day.date()) for day in dates[kept])]
