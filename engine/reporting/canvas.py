"""A chart as SVG text, drawn here: a plotting library takes a second to load and a fifth of one a chart."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from engine.reporting import ticks as places

#: Pixels: height of letters, length of a tick, room between what lies side by side.
_LETTER, _TICK, _ROOM = 11.0, 3.5, 4.0
_FONT = "font: 11px Arial, Helvetica, sans-serif"
#: Width of letters in heights, a little more than most fonts have.
_NARROW, _WIDE, _USUAL = 0.34, 0.95, 0.63
_LEGEND_COLUMNS = 6
_GRID, _EDGE, _WORDS, _TEXT = "#e4e4e4", "#cccccc", "#666666", "#333333"
#: From values of an axis to pixels.
Scale = Callable[[np.ndarray], np.ndarray]


def css_colour(colour: str) -> str:
    """A colour for a style: itself, or what ``palette.css`` replaces it with, in dark mode above all."""
    return f"var(--c{colour[1:]},{colour})"


class Panel:
    """A pair of axes and what is drawn between them; the axes reach over all of it.

    Parameters
    ----------
    kind : str
        Of the horizontal axis: "time" in hours since 1970, "log" for sizes, or "name" for the places 0, 1, ...
    unit : str
        Behind the numbers of the vertical axis.
    ticks : int
        About how many numbers stand there.
    log : bool
        Whether that axis is a logarithmic one.
    margin : float
        Room above and below the values, as a share of their range.
    edges : (bool, bool)
        Whether a lowest value of 0, and a highest one, is the edge, without that room.
    names : sequence of str
        What the pointer is told of the places of an axis of names.
    """

    def __init__(
        self,
        kind: str = "time",
        unit: str = "",
        ticks: int = 5,
        log: bool = False,
        margin: float = 0.05,
        edges: tuple[bool, bool] = (False, False),
        names: Sequence[str] = (),
    ) -> None:
        self.kind, self.unit, self.names = kind, unit, names
        self.legend: list[tuple[str, str, str]] = []
        self._ticks, self._log, self._margin, self._edges = ticks, log, margin, edges
        self._drawn: list[Callable[[Scale, Scale], str]] = []
        self._across: list[np.ndarray] = []
        self._up: list[np.ndarray] = []
        self._told: list[tuple[str, str, np.ndarray, np.ndarray]] = []

    def _add(self, draw: Callable[[Scale, Scale], str], at: np.ndarray, *values: np.ndarray) -> None:
        self._drawn.append(draw)
        self._across.append(at)
        self._up.extend(values)

    def tell(self, name: str, colour: str, at: np.ndarray, values: np.ndarray) -> None:
        """Have the pointer told the values of a series."""
        self._told.append((name, colour, at, values))

    def line(
        self,
        at: np.ndarray,
        values: np.ndarray,
        colour: str,
        width: float = 1.3,
        dots: bool = False,
        filled: float | None = None,
        dash: str = "",
    ) -> None:
        """A line that is interrupted where a value is not finite; with `dots` at its points, or filled down to a value.

        That of -inf is the lower edge.
        """
        known = np.isfinite(values) & ((values > 0.0) | (not self._log))

        def draw(x: Scale, y: Scale) -> str:
            points = [f"{across:.1f} {down:.1f}" for across, down in zip(x(at), y(values), strict=True)]
            parts = ["L".join(points[part]) for part in _stretches(known)]
            text = f'<path d="{"".join("M" + part for part in parts)}" style="{_stroke(colour, width, dash)}"/>'
            if dots:
                each = "".join(f"M{point}h0" for point, seen in zip(points, known.tolist(), strict=True) if seen)
                text += f'<path d="{each}" style="{_stroke(colour, 4.0)}; stroke-linecap: round"/>'
            if filled is not None:
                zero, ends = float(y(np.array([filled]))[0]), [x(at[part])[[0, -1]] for part in _stretches(known)]
                closed = [f"M{end[0]:.1f} {zero:.1f}L{part}V{zero:.1f}Z" for part, end in zip(parts, ends, strict=True)]
                text = f'<path d="{"".join(closed)}" style="fill: {css_colour(colour)}; fill-opacity: .25"/>' + text
            return text

        self._add(draw, at[known], values[known], *([] if filled is None else [np.array([filled])]))

    def level(self, value: float, colour: str, width: float = 0.8, dash: str = "") -> None:
        """A horizontal line from side to side."""

        def draw(x: Scale, y: Scale) -> str:
            ends, down = x(np.array([0.0 if self.kind == "log" else -np.inf, np.inf])), float(y(np.array([value]))[0])
            return f'<path d="M{ends[0]:.1f} {down:.1f}H{ends[1]:.1f}" style="{_stroke(colour, width, dash)}"/>'

        if math.isfinite(value):
            self._add(draw, np.zeros(0), np.array([value]))

    def link(self, start: float, stop: float, value: float, colour: str) -> None:
        """A thin dashed line at a height, from one place to another."""

        def draw(x: Scale, y: Scale) -> str:
            ends, down = x(np.array([start, stop])), float(y(np.array([value]))[0])
            return f'<path d="M{ends[0]:.1f} {down:.1f}H{ends[1]:.1f}" style="{_stroke(colour, 0.7, "1.4 1.4")}"/>'

        self._add(draw, np.zeros(0), np.array([value]))

    def bars(
        self, at: np.ndarray, values: np.ndarray, colours: Sequence[str], width: float, start: np.ndarray | None = None
    ) -> None:
        """Bars of a width on the axis from `start`, by default 0, to `start` and the value."""
        low = np.zeros(len(values)) if start is None else start

        def draw(x: Scale, y: Scale) -> str:
            corners = zip(x(at - width / 2.0), y(low), x(at + width / 2.0), y(low + values), colours, strict=True)
            each = (
                (f"M{left:.1f} {down:.1f}V{up:.1f}H{right:.1f}V{down:.1f}Z", f"fill: {css_colour(colour)}")
                for left, down, right, up, colour in corners
            )
            return "".join(f'<path d="{path}" style="{style}"/>' for path, style in each)

        self._add(draw, np.concatenate((at - width / 2.0, at + width / 2.0)), low, low + values)

    def stems(self, at: np.ndarray, values: np.ndarray, colour: str, width: float) -> None:
        """Lines of a width in pixels from 0 to each value."""
        known = np.isfinite(values)

        def draw(x: Scale, y: Scale) -> str:
            ends, zero = zip(x(at[known]).tolist(), y(values[known]).tolist(), strict=True), float(y(np.zeros(1))[0])
            each = "".join(f"M{across:.1f} {zero:.1f}V{up:.1f}" for across, up in ends)
            return f'<path d="{each}" style="{_stroke(colour, width)}"/>'

        self._add(draw, at[known], values[known], np.zeros(1))

    def errors(self, at: np.ndarray, values: np.ndarray, errors: np.ndarray, colour: str) -> None:
        """An upright line of a length both ways of each value, with its ends marked."""

        def draw(x: Scale, y: Scale) -> str:
            each = "".join(
                f"M{across:.1f} {low:.1f}V{high:.1f}M{across - 1.5:.1f} {low:.1f}h3M{across - 1.5:.1f} {high:.1f}h3"
                for across, low, high in zip(x(at), y(values - errors), y(values + errors), strict=True)
            )
            return f'<path d="{each}" style="{_stroke(colour, 0.8)}"/>'

        self._add(draw, at, values - errors, values + errors)

    def words(self, at: np.ndarray, heights: np.ndarray, texts: Sequence[str]) -> None:
        """Texts above places."""

        def draw(x: Scale, y: Scale) -> str:
            return _texts(zip(x(at), y(heights) - 3.0, texts, strict=True), "middle", _TEXT)

        self._add(draw, np.zeros(0), heights)

    def limits(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Ends of the two axes, a logarithmic one's as logarithms."""
        return _reach(self._across, 0.01, self.kind == "log"), _reach(self._up, self._margin, self._log, self._edges)

    def numbers(self) -> list[places.Tick]:
        """Ticks of the vertical axis."""
        low, high = self.limits()[1]
        if not self._log:
            return places.of_numbers(low, high, self._ticks, self.unit)
        return [(place, f"{10.0**place:,.10g}{self.unit}") for place in places.of_decades(low, high, self._ticks)]

    def drawn(self, box: tuple[float, float, float, float], along: tuple[float, float]) -> tuple[str, str]:
        """What is drawn in a box of left, top, width and height, and what the pointer is told, as JSON or nothing."""
        left, top, width, height = box
        (first, last), (low, high) = along, self.limits()[1]

        def x(at: np.ndarray) -> np.ndarray:
            shares = ((np.log10(at) if self.kind == "log" else at) - first) / (last - first)
            pixels: np.ndarray = left + width * np.clip(shares, 0.0, 1.0)
            return pixels

        def y(values: np.ndarray) -> np.ndarray:
            shares = (high - (np.log10(values) if self._log else values)) / (high - low)
            pixels: np.ndarray = top + height * np.clip(shares, 0.0, 1.0)
            return pixels

        rows = [(top + height * (high - place) / (high - low), text) for place, text in self.numbers()]
        grid = "".join(f"M{left:.1f} {down:.1f}h{width:.1f}" for down, _ in rows)
        parts = [f'<path d="{grid}" style="{_stroke(_GRID, 0.7)}"/>']
        with np.errstate(divide="ignore", invalid="ignore"):  # what a logarithmic axis does not show
            parts += [draw(x, y) for draw in self._drawn]
        parts.append(f'<path d="M{left:.1f} {top + height:.1f}h{width:.1f}" style="{_stroke(_EDGE, 0.8)}"/>')
        parts.append(_texts(((left - _ROOM, down + 0.36 * _LETTER, text) for down, text in rows), "end", _WORDS))
        panel = {
            "box": [round(pixels, 1) for pixels in box],
            "kind": self.kind,
            "lim": [round(first, 4), round(last, 4)],
            "names": list(self.names),
            "series": [told(*series, self.kind, self.unit) for series in self._told],
        }
        return "".join(parts), json.dumps(panel, separators=(",", ":")) if self._told else ""


def chart(
    panels: Sequence[Panel],
    size: tuple[int, int],
    label: str,
    marks: Sequence[places.Tick] | None = None,
    heights: Sequence[float] = (1.0,),
    keyed: bool = True,
) -> Markup:
    """Panels over one another on a common horizontal axis, as an inline ``<svg>`` with their values for the pointer.

    Parameters
    ----------
    panels : sequence of Panel
        From the top.
    size : (int, int)
        Width and height in pixels.
    label : str
        What the chart shows, for those who do not see it.
    marks : sequence of (float, str), optional
        Ticks of the common axis; by default round instants.
    heights : sequence of float
        Shares of the panels in the height.
    keyed : bool
        Whether what has a name stands in a legend above.
    """
    ends = [panel.limits()[0] for panel in panels]
    along = min(low for low, _ in ends), max(high for _, high in ends)
    key, top = _key([row for panel in panels for row in panel.legend] if keyed else [])
    left = max((_width(text) for panel in panels for _, text in panel.numbers()), default=0.0) + _ROOM + 2.0
    width, room = size[0] - left - 8.0, size[1] - top - (len(panels) - 1) * 10.0 - (_TICK + _ROOM + _LETTER + 2.0)
    parts, values = [key], []
    for panel, share in zip(panels, heights, strict=True):
        height = room * share / sum(heights)
        text, telling = panel.drawn((left, top, width, height), along)
        parts.append(text)
        values += [telling] if telling else []
        top += height + 10.0
    bottom = top - 10.0
    shown = places.of_time(*along) if marks is None else [mark for mark in marks if along[0] <= mark[0] <= along[1]]
    at = [left + width * (place - along[0]) / (along[1] - along[0]) for place, _ in shown]
    if not panels[-1].names:
        upright = "".join(f"M{across:.1f} {bottom:.1f}v{_TICK}" for across in at)
        parts.append(f'<path d="{upright}" style="{_stroke(_WORDS, 0.8)}"/>')
    parts.append(_beside([text for _, text in shown], at, bottom + _TICK + _ROOM + 0.8 * _LETTER, size[0]))
    hover = f' data-hover="{escape("[" + ",".join(values) + "]")}"' if values else ""
    return Markup(
        f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{escape(label)}"{hover}>{"".join(parts)}</svg>'
    )


def told(name: str, colour: str, at: np.ndarray, values: np.ndarray, kind: str, unit: str) -> dict[str, Any]:
    """A series for ``templates/hover.js``; instants are whole hours, each from the one before: the least room."""
    where = np.diff(np.round(at).astype(np.int64), prepend=0) if kind == "time" else np.round(at, 4)
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
    digits = 2 if unit or largest >= 100.0 else int(np.clip(3 - np.floor(np.log10(largest or 1.0)), 2, 8))
    return {
        "name": name,
        "colour": colour,
        "unit": unit,
        "digits": digits,
        "x": where.tolist(),
        "y": [value if math.isfinite(value) else None for value in np.round(values, digits).tolist()],
    }


def _reach(
    values: Sequence[np.ndarray], margin: float, log: bool, edges: tuple[bool, bool] = (False, False)
) -> tuple[float, float]:
    """Ends of an axis that holds all values and some room; a range of nothing is widened."""
    every = np.concatenate(values) if values else np.zeros(0)
    every = every[np.isfinite(every) & ((every > 0.0) | (not log))]
    if not len(every):
        return (0.0, 1.0)
    low, high = float(every.min()), float(every.max())
    if log:
        low, high = math.log10(low), math.log10(high)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        wider = 0.05 * abs(low) or 1.0
        return low - wider, high + wider
    room = margin * (high - low)
    return low - (0.0 if edges[0] and low == 0.0 else room), high + (0.0 if edges[1] and high == 0.0 else room)


def _key(rows: Sequence[tuple[str, str, str]]) -> tuple[str, float]:
    """The legend, in rows from the top left, and where what is below it begins."""
    if not rows:
        return "", 8.0
    parts, left, down = [], 8.0, 9.0
    for place, (name, colour, dash) in enumerate(rows):
        if place and place % _LEGEND_COLUMNS == 0:
            left, down = 8.0, down + 16.0
        long = 20.0 if dash else 13.0
        parts.append(f'<path d="M{left:.1f} {down:.1f}h{long}" style="{_stroke(colour, 1.3, dash)}"/>')
        parts.append(_texts([(left + long + 6.0, down + 0.36 * _LETTER, name)], "start", _TEXT))
        left += long + 6.0 + _width(name) + 13.0
    return "".join(parts), down + 15.0


def _beside(words: Sequence[str], at: Sequence[float], down: float, width: float) -> str:
    """Texts under the axis, each within the chart; one that would touch that before it is left out."""
    kept, taken = [], -math.inf
    for text, across in zip(words, at, strict=True):
        half = _width(text) / 2.0
        middle = min(max(across, half), width - half)
        if middle - half >= taken:
            kept.append((middle, down, text))
            taken = middle + half + _ROOM
    return _texts(kept, "middle", _WORDS)


def _texts(rows: Iterable[tuple[float, float, str]], anchor: str, colour: str) -> str:
    each = "".join(f'<text x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>' for x, y, text in rows)
    return f'<g style="{_FONT}; fill: {css_colour(colour)}; text-anchor: {anchor}">{each}</g>' if each else ""


def _stroke(colour: str, width: float, dash: str = "") -> str:
    dashes = f"; stroke-dasharray: {dash}" if dash else ""
    return f"fill: none; stroke: {css_colour(colour)}; stroke-width: {width:g}; stroke-linejoin: round{dashes}"


def _width(text: str) -> float:
    """About the pixels of a text."""
    return _LETTER * sum(
        _NARROW if letter in ".,:;'!|()-ijlt " else _WIDE if letter in "%mMW" else _USUAL for letter in text
    )


def _stretches(known: np.ndarray) -> list[slice]:
    """Runs of true values."""
    ends = np.flatnonzero(np.diff(known, prepend=False, append=False)).tolist()
    return [slice(start, stop) for start, stop in zip(ends[::2], ends[1::2], strict=True)]
