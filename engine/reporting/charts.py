"""Our charts: small, the same bytes for the same data, with their values for the pointer beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup

from engine.reporting.canvas import Panel, chart
from engine.reporting.ticks import of_decades

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
#: Dashes of a mean.
DASHED = "4 3"
#: Most points of a line: two per pixel column, enough for a screen of double density.
POINTS = 1200


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
    bucket = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    rows = [np.array([0, count - 1])]
    for extreme, outside in ((np.minimum, np.inf), (np.maximum, -np.inf)):
        known = np.where(np.isnan(values), outside, values)
        found = np.flatnonzero(values == extreme.reduceat(known, edges[:-1])[bucket])
        rows.append(found[np.unique(bucket[found], return_index=True)[1]])
    return np.unique(np.concatenate(rows))


def waterfall(steps: Sequence[tuple[str, float]]) -> Markup:
    """From price profit to net profit in USD: a floating bar per cause, the last bar is their sum."""
    values = np.array([value for _, value in steps])
    tops = np.cumsum(values)
    starts = np.concatenate((np.zeros(1), tops[:-1]))
    names = [*(name for name, _ in steps), "net"]
    at, heights = np.arange(len(names), dtype=np.float64), np.append(values, tops[-1])
    colours = [*(_sign(value) for value in values), COLOURS["net"]]
    panel = Panel("name", margin=0.14, edges=(True, False), names=names)
    panel.bars(at, heights, colours, 0.62, np.append(starts, 0.0))
    for place, level in enumerate(tops):
        panel.link(place, place + 1.0, float(level), COLOURS["faint"])
    panel.words(at, np.append(np.maximum(starts, tops), max(tops[-1], 0.0)), [_amount(value) for value in heights])
    panel.level(0.0, "#999999")
    panel.tell("Profit by cause in USD", colours[0], at, heights)
    return chart([panel], (WIDTH, HEIGHT), "Profit by cause in USD", list(zip(at, names, strict=True)))


def lines(
    label: str,
    series: Mapping[str, pd.Series],
    colours: Sequence[str],
    percent: bool = False,
    fill: float | None = None,
    size: tuple[int, int] | None = None,
    dashed: Sequence[str] = (),
) -> Markup:
    """Lines over time, thinned; `fill` is the value, or -inf, down to which the area under the first is filled.

    One of a `size` of its own has no legend.
    """
    panel = Panel(unit="%" if percent else "")
    points = POINTS if len(series) == 1 else POINTS // 2
    for place, (colour, (name, values)) in enumerate(zip(colours, series.items(), strict=True)):
        numbers = values.to_numpy(dtype=np.float64) * (100.0 if percent else 1.0)
        dash = DASHED if name in dashed else ""
        _add(panel, name, numbers, values.index, colour, points, None if place else fill, dash)
    return chart([panel], size or (WIDTH, HEIGHT), label, keyed=len(series) > 1 and size is None)


def equity(
    lines: Mapping[str, pd.Series], drawdown: pd.Series, size: tuple[int, int], colours: Sequence[str]
) -> Markup:
    """Equity in USD by name, and under it the drawdown of the first, a fraction, over the same instants."""
    top, bottom = Panel(), Panel(unit="%", ticks=3)
    for colour, (name, values) in zip(colours, lines.items(), strict=True):
        _add(top, name, values.to_numpy(dtype=np.float64), values.index, colour, POINTS)
    deepest = drawdown.to_numpy(dtype=np.float64) * 100.0
    _add(bottom, "drawdown", deepest, drawdown.index, COLOURS["loss"], POINTS, 0.0)
    return chart([top, bottom], size, "Equity in USD and drawdown", heights=(3.0, 1.0))


def stems(label: str, values: pd.Series, mean: float) -> Markup:
    """One thin bar per instant and the mean as a dashed line; fractions are shown in per cent."""
    numbers = values.to_numpy(dtype=np.float64) * 100.0
    kept = thin(numbers)
    at = _hours(values.index)[kept]
    panel = Panel(unit="%", edges=(True, False))
    # Width of an instant on the chart, less a gap.
    panel.stems(at, numbers[kept], COLOURS["price"], min(3.4, max(0.4, 0.75 * WIDTH / max(len(kept), 1))))
    panel.level(mean * 100.0, COLOURS["net"], 1.0, DASHED)
    panel.legend.append((f"mean {mean:,.1%}", COLOURS["net"], DASHED))
    panel.tell(label, COLOURS["price"], at, numbers[kept])
    return chart([panel], (WIDTH, HEIGHT), label)


def bars(label: str, ticks: Sequence[str], values: np.ndarray, errors: np.ndarray | None = None) -> Markup:
    """A bar per tick in the colours of gain and loss; `errors` are drawn both ways; NaN is left out."""
    panel = Panel("name", edges=(True, True), names=ticks)
    at, heights = np.arange(len(values), dtype=np.float64), np.where(np.isfinite(values), values, 0.0)
    panel.bars(at, heights, [_sign(value) for value in values], 0.7)
    if errors is not None:
        known = np.isfinite(values) & np.isfinite(errors)
        panel.errors(at[known], values[known], errors[known], COLOURS["net"])
    panel.level(0.0, "#999999")
    panel.tell(label, _sign(heights[0]) if len(heights) else COLOURS["gain"], at, heights)
    # Every label of few bars; of many, as many as fit.
    step = max(1, -(-len(ticks) // 10))
    shown = [place for place in range(len(ticks)) if (place + 1) % step == 0 or place == 0]
    return chart([panel], (WIDTH, HEIGHT), label, [(float(place), ticks[place]) for place in shown])


def by_size(
    label: str,
    sizes: np.ndarray,
    series: Mapping[str, pd.Series],
    colours: Sequence[str],
    percent: bool = False,
    log: bool = False,
) -> Markup:
    """Lines over account size in USD on a logarithmic axis, a mark per size; with `log` the other axis is one too."""
    scale = 100.0 if percent else 1.0
    drawn = {name: values.to_numpy(dtype=np.float64) * scale for name, values in series.items()}
    log = log and any((values > 0.0).any() for values in drawn.values())
    panel = Panel("log", "%" if percent else "", ticks=6 if log else 5, log=log)
    if not log:
        panel.level(0.0, "#999999")
    for colour, (name, values) in zip(colours, drawn.items(), strict=True):
        panel.line(sizes, values, colour, dots=True)
        panel.legend.append((name, colour, ""))
        panel.tell(name, colour, np.log10(sizes), values)
    marks = [(place, short_usd(10.0**place)) for place in of_decades(*panel.limits()[0], 12)]
    return chart([panel], (WIDTH, HEIGHT), label, marks, keyed=len(series) > 1)


def short_usd(value: float) -> str:
    """``250k`` of 250,000."""
    for unit, letter in ((1e9, "bn"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:,.4g}{letter}"
    return f"{value:,.4g}"


def _add(
    panel: Panel,
    name: str,
    values: np.ndarray,
    index: pd.Index,
    colour: str,
    points: int,
    fill: float | None = None,
    dash: str = "",
) -> None:
    """A line over time, thinned, with its name in the legend and its values for the pointer."""
    kept = thin(values, points)
    at = _hours(index)[kept]
    panel.line(at, values[kept], colour, 1.3 if fill is None else 1.0, filled=fill, dash=dash)
    panel.legend.append((name, colour, dash))
    panel.tell(name, colour, at, values[kept])


def _hours(index: pd.Index) -> np.ndarray:
    """Instants as hours since 1970."""
    return pd.DatetimeIndex(index).as_unit("s").asi8 / 3600.0


def _sign(value: float) -> str:
    return COLOURS["gain"] if value >= 0 else COLOURS["loss"]


def _amount(value: float) -> str:
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.2f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0.0 else text
