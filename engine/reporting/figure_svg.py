"""A figure of matplotlib as SVG text, with the values that were drawn, read from matplotlib's own objects.

QuantStats draws its charts with it; ours are drawn by :mod:`engine.reporting.canvas`.
"""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape

from engine.reporting.canvas import css_colour, told

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FONTS = "font-family: Arial, Helvetica, sans-serif"
_COLOUR = re.compile(r"<text[^>]*fill: #ffffff|((?:fill|stroke): ?)(#[0-9a-f]{6})")
#: Fewer points are a line of reference, not data.
_LEAST_POINTS = 3
Series = tuple[str, Any, np.ndarray, np.ndarray]


@contextmanager
def isolated_style() -> Iterator[None]:
    """Matplotlib at its defaults and silent; settings, filters and log levels of the caller are restored after."""
    import matplotlib

    fonts = logging.getLogger("matplotlib.font_manager")
    level = fonts.level
    with warnings.catch_warnings(), matplotlib.rc_context(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        # A font that is not installed is reported once for every word of a page.
        fonts.setLevel(logging.CRITICAL)
        try:
            matplotlib.rcdefaults()
            yield
        finally:
            fonts.setLevel(level)


def themed(svg: str) -> str:
    """An SVG drawn for white paper with every colour as :func:`css_colour`; white text, which is on a colour, stays."""
    return _COLOUR.sub(lambda match: match[1] + css_colour(match[2]) if match[2] else match[0], svg)


def to_svg(figure: Figure, name: str, label: str) -> Markup:
    """The figure as an inline ``<svg>`` with its values: no prolog, no metadata, no date, ids unique on the page.

    Parameters
    ----------
    figure : Figure
        Is drawn at 72 dots an inch.
    name : str
        Unique on the page.
    label : str
        What the chart shows, for those who do not see it, and for a series without a name.
    """
    import matplotlib

    buffer = io.BytesIO()
    figure.set_dpi(72.0)
    with matplotlib.rc_context({"svg.hashsalt": f"hlbt-{name}"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(r"font-family: [^;\"]*", _FONTS, text)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    # A hundredth of a pixel is not seen.
    text = re.sub(r' (?:d|x|y|transform)="[^"]*"', lambda place: re.sub(r"(\.\d\d)\d+", r"\1", place[0]), text)
    text = themed(re.sub(r"\n\s*", "\n", text))
    values = values_of(figure, label)
    about = f' role="img" aria-label="{escape(label)}"' + (f' data-hover="{escape(values)}"' if values else "")
    return Markup(re.sub(r' width="[^"]*" height="[^"]*"', lambda _: about, text, count=1))


def values_of(figure: Figure, label: str) -> str:
    """The values of a figure that was drawn at 72 dots an inch, as JSON; empty where there are none.

    Its axes are panels of one chart: lines of at least 3 points, bars and boxes are read. `label` is the name of
    a series that has none.
    """
    panels = [panel for axes in figure.axes if (panel := _panel(figure, axes, label))]
    return json.dumps(panels, separators=(",", ":")) if panels else ""


def _panel(figure: Figure, axes: Axes, label: str) -> dict[str, Any] | None:
    from matplotlib.colors import to_hex
    from matplotlib.dates import AutoDateFormatter, ConciseDateFormatter, DateFormatter

    series = _lines(axes, label) or _bars(axes, label) or _boxes(axes)
    if not series:
        return None
    dates = isinstance(axes.xaxis.get_major_formatter(), AutoDateFormatter | ConciseDateFormatter | DateFormatter)
    kind = "time" if dates else "name" if axes.containers else "number"
    names: list[str] = []
    if kind == "name":
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
        "series": [
            told(name, to_hex(colour), _placed(np.asarray(at, dtype=np.float64), kind), values * scale, kind, unit)
            for name, colour, at, values in series
        ],
    }


def _placed(at: np.ndarray, kind: str) -> np.ndarray:
    """Places along the axis: hours of the epoch, or the number itself."""
    return at * 24.0 if kind == "time" else at


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
    return [series for series in found if len(series[2]) > 1] or found


def _boxes(axes: Axes) -> list[Series]:
    """Quartiles of the boxes of a box plot."""
    extents = [patch.get_path().get_extents() for patch in axes.patches]
    if not extents:
        return []
    at = np.array([(box.x0 + box.x1) / 2.0 for box in extents])
    colour = axes.patches[0].get_facecolor()
    ends = {"upper quartile": [box.y1 for box in extents], "lower quartile": [box.y0 for box in extents]}
    return [(name, colour, at, np.array(values)) for name, values in ends.items()]
