"""Charts as SVG text: small, the same bytes for the same data, with their values for the pointer beside them.

Figures are built from matplotlib's objects and never through pyplot, whose global state belongs to the caller.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from engine.reporting.hover import hover

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: One colour per meaning, on every chart and in the tables; blue, red and green are QuantStats' own.
COLOURS: Mapping[str, str] = {
    "net": "#333333",
    "benchmark": "#8a8a8a",
    "price": "#348dc1",
    "spread": "#e08e45",
    "impact": "#9b59b6",
    "fees": "#ba516b",
    "funding": "#4fa487",
    "gain": "#4fa487",
    "loss": "#ba516b",
    "faint": "#8a8a8a",
}
#: Pixels of a chart on a desktop page; on a telephone it shrinks by a quarter, so the text stays readable.
WIDTH, HEIGHT = 466, 210
#: Of the first chart of a run: on a desktop, and on a telephone.
LARGE, SMALL = (960, 330), (466, 330)
#: Most points of a line: two per pixel column, enough for a screen of double density.
POINTS = 1200
_FONTS = "font-family: Arial, Helvetica, sans-serif"
_COLOUR = re.compile(r"<text[^>]*fill: #ffffff|((?:fill|stroke): ?)(#[0-9a-f]{6})")
_STYLE: Mapping[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 11.0,
    "axes.edgecolor": "#cccccc",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.xmargin": 0.01,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.3,
    "text.color": "#333333",
    "xtick.color": "#666666",
    "ytick.color": "#666666",
    "ytick.left": False,
    "legend.frameon": False,
}


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


def thin(values: np.ndarray, points: int = POINTS) -> np.ndarray:
    """Rows to draw so that no peak or trough is lost: the first, the last, and the extremes of equal buckets.

    Parameters
    ----------
    values : ndarray, (T,)
        NaN is never an extreme.
    points : int
        Most rows that are returned.

    Returns
    -------
    ndarray of int, ascending
    """
    count = len(values)
    if count <= points:
        return np.arange(count)
    edges = np.linspace(0, count, (points - 2) // 2 + 1).astype(np.int64)
    rows = [0, count - 1]
    for start, stop in pairwise(edges):
        bucket = values[start:stop]
        seen = np.flatnonzero(~np.isnan(bucket))
        if len(seen):
            rows += [int(start + seen[np.argmin(bucket[seen])]), int(start + seen[np.argmax(bucket[seen])])]
    return np.unique(rows)


@isolated_style()
def waterfall(steps: Sequence[tuple[str, float]]) -> Markup:
    """From price profit to net profit in USD: a floating bar per cause, the last bar is their sum."""
    figure, axes = _canvas()
    values = np.array([value for _, value in steps])
    tops = np.cumsum(values)
    starts = np.concatenate((np.zeros(1), tops[:-1]))
    names = [name for name, _ in steps]
    positions = np.arange(len(steps) + 1)
    colours = [COLOURS["gain"] if value >= 0 else COLOURS["loss"] for value in values]
    axes.bar(positions[:-1], values, bottom=starts, color=colours, width=0.62)
    axes.bar(positions[-1:], tops[-1:], color=COLOURS["net"], width=0.62)
    for position, level in zip(positions[:-1], tops, strict=True):
        axes.plot(
            [position, position + 1], [level, level], color=COLOURS["faint"], linewidth=0.7, linestyle=(0, (2, 2))
        )
    heights = np.append(np.maximum(starts, tops), max(float(tops[-1]), 0.0))
    for position, height, value in zip(positions, heights, np.append(values, tops[-1]), strict=True):
        axes.annotate(_amount(float(value)), (position, height), (0, 3), textcoords="offset points", ha="center")
    axes.axhline(0.0, color="#999999", linewidth=0.8)
    axes.set_xticks(positions, [*names, "net"])
    axes.tick_params(axis="x", length=0)
    # Bars would limit the axis to their own ends and leave no room for the amounts.
    axes.use_sticky_edges = False
    axes.margins(y=0.14)
    if not values.any():
        axes.set_ylim(-1.0, 1.0)
    elif min(*starts, *tops) >= 0.0:
        axes.set_ylim(bottom=0.0)
    _numbers(axes)
    return to_svg(figure, "waterfall", "Profit by cause in USD", [*names, "net"])


@isolated_style()
def lines(
    name: str,
    label: str,
    series: Mapping[str, pd.Series],
    colours: Sequence[str],
    percent: bool = False,
    fill: bool = False,
    size: tuple[int, int] | None = None,
) -> Markup:
    """Lines over time, thinned; with `fill`, the area down to zero; one of a `size` of its own has no legend."""
    figure, axes = _canvas(size or (WIDTH, HEIGHT))
    points = POINTS if len(series) == 1 else POINTS // 2
    for colour, (legend, values) in zip(colours, series.items(), strict=True):
        numbers = values.to_numpy(dtype=np.float64) * (100.0 if percent else 1.0)
        kept = thin(numbers, points)
        times = _naive(values.index)[kept]
        if fill:
            axes.fill_between(times, numbers[kept], 0.0, color=colour, alpha=0.25, linewidth=0)
        axes.plot(times, numbers[kept], color=colour, label=legend, linewidth=1.0 if fill else 1.3)
    _dates(axes)
    _numbers(axes, "%" if percent else "")
    if len(series) > 1 and size is None:
        _legend(figure)
    return to_svg(figure, name, label)


@isolated_style()
def equity(
    name: str, lines: Mapping[str, pd.Series], drawdown: pd.Series, size: tuple[int, int], markers: Sequence[str]
) -> Markup:
    """Equity in USD by name, and under it the drawdown of the first, a fraction, over the same instants."""
    figure, (top, bottom) = _canvas(size, 2, sharex=True, height_ratios=(3, 1))
    for colour, (legend, values) in zip(markers, lines.items(), strict=True):
        kept = thin(values.to_numpy(dtype=np.float64), POINTS)
        top.plot(_naive(values.index)[kept], values.to_numpy()[kept], color=colour, label=legend)
    deepest = drawdown.to_numpy(dtype=np.float64) * 100.0
    kept = thin(deepest, POINTS)
    times = _naive(drawdown.index)[kept]
    bottom.fill_between(times, deepest[kept], 0.0, color=COLOURS["loss"], alpha=0.25, linewidth=0)
    bottom.plot(times, deepest[kept], color=COLOURS["loss"], label="drawdown", linewidth=1.0)
    _dates(bottom)
    _numbers(top)
    _numbers(bottom, "%", 3)
    _legend(figure)
    return to_svg(figure, name, "Equity in USD and drawdown")


@isolated_style()
def stems(name: str, label: str, values: pd.Series, mean: float) -> Markup:
    """One thin bar per instant and the mean as a dashed line; fractions are shown in per cent."""
    figure, axes = _canvas()
    numbers = values.to_numpy(dtype=np.float64) * 100.0
    kept = thin(numbers)
    # Width of an instant on the chart, less a gap.
    width = min(3.4, max(0.4, 0.75 * WIDTH / max(len(kept), 1)))
    axes.vlines(_naive(values.index)[kept], 0.0, numbers[kept], color=COLOURS["price"], linewidth=width)
    axes.axhline(mean * 100.0, color=COLOURS["net"], linewidth=1.0, linestyle=(0, (4, 3)), label=f"mean {mean:,.1%}")
    axes.set_ylim(bottom=0.0)
    _legend(figure, 1.8)
    _dates(axes)
    _numbers(axes, "%")
    return to_svg(figure, name, label)


@isolated_style()
def bars(
    name: str,
    label: str,
    ticks: Sequence[str],
    values: np.ndarray,
    errors: np.ndarray | None = None,
) -> Markup:
    """A bar per tick in the colours of gain and loss; `errors` are drawn both ways; NaN is left out."""
    figure, axes = _canvas()
    positions = np.arange(len(values))
    colours = [COLOURS["gain"] if value >= 0 else COLOURS["loss"] for value in values]
    axes.bar(positions, np.nan_to_num(values), color=colours, width=0.7)
    if errors is not None:
        known = ~np.isnan(values) & ~np.isnan(errors)
        axes.errorbar(
            positions[known],
            values[known],
            errors[known],
            fmt="none",
            ecolor=COLOURS["net"],
            elinewidth=0.8,
            capsize=1.5,
        )
    axes.axhline(0.0, color="#999999", linewidth=0.8)
    # Every label of few bars; of many, as many as fit.
    step = max(1, -(-len(ticks) // 10))
    shown = [position for position in range(len(ticks)) if (position + 1) % step == 0 or position == 0]
    axes.set_xticks(shown, [ticks[position] for position in shown])
    axes.tick_params(axis="x", length=0)
    _numbers(axes)
    if not np.nan_to_num(values).any():
        axes.set_ylim(-1.0, 1.0)
    return to_svg(figure, name, label, ticks)


@isolated_style()
def by_size(
    name: str,
    label: str,
    sizes: np.ndarray,
    series: Mapping[str, pd.Series],
    colours: Sequence[str],
    percent: bool = False,
    log: bool = False,
) -> Markup:
    """Lines over account size in USD on a logarithmic axis, a mark per size; with `log` the other axis is one too."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    figure, axes = _canvas()
    for colour, (legend, values) in zip(colours, series.items(), strict=True):
        numbers = values.to_numpy(dtype=np.float64) * (100.0 if percent else 1.0)
        axes.plot(sizes, numbers, color=colour, label=legend, marker="o", markersize=3.0)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=12))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_usd(value)))
    drawn = np.concatenate([values.to_numpy(dtype=np.float64) for values in series.values()])
    if log and (drawn > 0.0).any():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}%" if percent else f"{value:g}"))
    else:
        axes.axhline(0.0, color="#999999", linewidth=0.8)
        _numbers(axes, "%" if percent else "")
    if len(series) > 1:
        _legend(figure)
    return to_svg(figure, name, label)


def short_usd(value: float) -> str:
    """``250k`` of 250,000."""
    for unit, letter in ((1e9, "bn"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:,.4g}{letter}"
    return f"{value:,.4g}"


def css_colour(colour: str) -> str:
    """A colour for a style: itself, or what ``palette.css`` replaces it with, in dark mode above all."""
    return f"var(--c{colour[1:]},{colour})"


def themed(svg: str) -> str:
    """An SVG drawn for white paper with every colour as :func:`css_colour`; white text, which is on a colour, stays."""
    return _COLOUR.sub(lambda match: match[1] + css_colour(match[2]) if match[2] else match[0], svg)


def _canvas(size: tuple[int, int] = (WIDTH, HEIGHT), rows: int = 1, **panels: Any) -> tuple[Figure, Any]:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    matplotlib.rcParams.update(dict(_STYLE))
    # 72 dots an inch make a point of the SVG one pixel of the page.
    figure = Figure(figsize=(size[0] / 72.0, size[1] / 72.0), dpi=72.0, layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.subplots(rows, **panels)


def _naive(index: pd.Index) -> np.ndarray:
    """Instants without a zone, because matplotlib would convert to its own."""
    return pd.DatetimeIndex(index).tz_convert("UTC").tz_localize(None).to_numpy()


def _dates(axes: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _numbers(axes: Axes, unit: str = "", ticks: int = 5) -> None:
    """Ticks of the vertical axis: about five round numbers with `unit` behind them."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}{unit}"))


def _legend(figure: Figure, length: float = 1.2) -> None:
    """A legend above the axes, so that it never covers a line."""
    figure.legend(loc="outside upper left", ncols=6, handlelength=length, columnspacing=1.2)


def _amount(value: float) -> str:
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.2f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0.0 else text


def to_svg(figure: Figure, name: str, label: str, ticks: Sequence[str] = ()) -> Markup:
    """The figure as an inline ``<svg>`` with its values: no prolog, no metadata, no date, ids unique on the page.

    Parameters
    ----------
    figure : Figure
        Is drawn at 72 dots an inch.
    name : str
        Unique on the page.
    label : str
        What the chart shows, for those who do not see it, and for a series without a name.
    ticks : sequence of str
        As in :func:`engine.reporting.hover.hover`.
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
    values = hover(figure, label, ticks)
    about = f' role="img" aria-label="{escape(label)}"' + (f' data-hover="{escape(values)}"' if values else "")
    return Markup(re.sub(r' width="[^"]*" height="[^"]*"', lambda _: about, text, count=1))
