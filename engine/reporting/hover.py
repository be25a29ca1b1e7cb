"""What a chart tells the pointer: the values that were drawn, read from matplotlib's own objects.

``templates/hover.js`` shows them. A chart without script is the same picture without the values.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Fewer points are a line of reference, not data.
_LEAST_POINTS = 3
Series = tuple[str, Any, np.ndarray, np.ndarray]


def hover(figure: Figure, label: str, ticks: Sequence[str] = ()) -> str:
    """The values of a figure that was drawn at 72 dots an inch, as JSON; empty where there are none.

    Parameters
    ----------
    figure : Figure
        Its axes are panels of one chart: lines of at least 3 points, bars, stems and boxes are read.
    label : str
        Name of a series that has none.
    ticks : sequence of str
        Names of the places 0, 1, ... of a chart of categories.
    """
    panels = [panel for axes in figure.axes if (panel := _panel(figure, axes, label, ticks))]
    return json.dumps(panels, separators=(",", ":")) if panels else ""


def _panel(figure: Figure, axes: Axes, label: str, ticks: Sequence[str]) -> dict[str, Any] | None:
    from matplotlib.dates import AutoDateFormatter, ConciseDateFormatter, DateFormatter

    series = _lines(axes, label) or _bars(axes, label) or _stems(axes, label) or _boxes(axes)
    if not series:
        return None
    dates = isinstance(axes.xaxis.get_major_formatter(), AutoDateFormatter | ConciseDateFormatter | DateFormatter)
    kind = (
        "time" if dates else "log" if axes.get_xscale() == "log" else "name" if ticks or axes.containers else "number"
    )
    names = list(ticks)
    if kind == "name" and not ticks:
        named = {
            round(float(at)): text.get_text()
            for at, text in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        }
        names = [named.get(place, "") for place in range(max(named, default=-1) + 1)]
        if not any(names):
            kind = "number"
    unit, scale = _unit(axes)
    box = axes.get_window_extent().bounds
    height = figure.get_figheight() * 72.0
    return {
        "box": [round(value, 1) for value in (box[0], height - box[1] - box[3], box[2], box[3])],
        "kind": kind,
        "lim": [round(float(value), 4) for value in _placed(np.array(axes.get_xlim()), kind)],
        "names": names,
        "series": [_written(each, kind, unit, scale) for each in series],
    }


def _written(series: Series, kind: str, unit: str, scale: float) -> dict[str, Any]:
    """A series for the script; instants are whole hours, each from the one before, which takes the least room."""
    from matplotlib.colors import to_hex

    name, colour, at, values = series
    values = np.asarray(values, dtype=np.float64) * scale
    placed = _placed(np.asarray(at, dtype=np.float64), kind)
    where = np.diff(np.round(placed).astype(np.int64), prepend=0) if kind == "time" else np.round(placed, 4)
    largest = float(np.nanmax(np.abs(values), initial=0.0)) if np.isfinite(values).any() else 0.0
    digits = 2 if unit or largest >= 100.0 else int(np.clip(3 - np.floor(np.log10(largest or 1.0)), 2, 8))
    return {
        "name": name,
        "colour": to_hex(colour),
        "unit": unit,
        "digits": digits,
        "x": where.tolist(),
        "y": [float(f"{value:.{digits}f}") if np.isfinite(value) else None for value in values],
    }


def _placed(at: np.ndarray, kind: str) -> np.ndarray:
    """Places along the axis, in which it is linear: hours of the epoch, powers of ten, or the number itself."""
    return at * 24.0 if kind == "time" else np.log10(at) if kind == "log" else at


def _unit(axes: Axes) -> tuple[str, float]:
    """Unit of the vertical axis, and what a value is multiplied by to be in it: the axis' own labels say so."""
    text = str(axes.yaxis.get_major_formatter()(1.0, 0))
    return ("%", float(text[:-1])) if text.endswith("%") else ("", 1.0)


def _lines(axes: Axes, label: str) -> list[Series]:
    if axes.containers:  # the curve over a histogram
        return []
    lines = [line for line in axes.lines if len(np.asarray(line.get_xdata())) >= _LEAST_POINTS]
    lines = [line for line in lines if line.get_transform().contains_branch(axes.transData)]
    named = [line for line in lines if not str(line.get_label()).startswith("_")] or lines
    found = []
    for line in named:
        data = np.asarray(line.get_xydata(), dtype=np.float64)
        name = str(line.get_label())
        found.append((label if name.startswith("_") else name, line.get_color(), data[:, 0], data[:, 1]))
    return found


def _bars(axes: Axes, label: str) -> list[Series]:
    found = []
    for container in axes.containers:
        bars = [patch for patch in container if hasattr(patch, "get_height")]
        if not bars:
            continue
        at = np.array([bar.get_x() + bar.get_width() / 2.0 for bar in bars])
        name = str(container.get_label())
        heights = np.array([bar.get_height() for bar in bars])
        found.append((label if name.startswith("_") else name, bars[0].get_facecolor(), at, heights))
    places = [series for series in found if len(series[2]) > 1] or found
    if len(found) > len(places):  # a single bar apart, the net of a waterfall, is one of the others
        alone = [series for series in found if len(series[2]) == 1]
        first = places[0]
        at = np.concatenate((first[2], *(series[2] for series in alone)))
        return [(label, first[1], at, np.concatenate((first[3], *(series[3] for series in alone))))]
    return places


def _stems(axes: Axes, label: str) -> list[Series]:
    from matplotlib.collections import LineCollection

    for collection in axes.collections:
        if isinstance(collection, LineCollection) and len(collection.get_segments()) > 0:
            ends = np.array([segment[-1] for segment in collection.get_segments()], dtype=np.float64)
            return [(label, collection.get_color()[0], ends[:, 0], ends[:, 1])]
    return []


def _boxes(axes: Axes) -> list[Series]:
    """Quartiles of the boxes of a box plot."""
    extents = [patch.get_path().get_extents() for patch in axes.patches]
    if not extents:
        return []
    at = np.array([(box.x0 + box.x1) / 2.0 for box in extents])
    colour = axes.patches[0].get_facecolor()
    ends = {"upper quartile": [box.y1 for box in extents], "lower quartile": [box.y0 for box in extents]}
    return [(name, colour, at, np.array(values)) for name, values in ends.items()]
