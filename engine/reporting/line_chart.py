"""Line charts of the live pages, drawn here: the path of an account loads no plotting library.

The lines are stretched to the width of the page; the words beside them are text of the page, which is not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 760, 220
#: Colour of a line by its class of the style sheet, by which the script finds that of the night.
COLOURS: Mapping[str, str] = {"live": "#348dc1", "replay": "#8a8a8a", "floor": "#ba516b", "limit": "#ba516b"}


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes
    ----------
    kind : str
        Of :data:`COLOURS`.
    name : str
        What the pointer is told.
    instants : sequence of str
        ISO 8601, ascending.
    values : sequence of float or None
        None is a gap.
    shaded : bool
        Shade what is below.
    """

    kind: str
    name: str
    instants: Sequence[str]
    values: Sequence[float | None]
    shaded: bool = False


def line_chart(lines: Sequence[Line], label: str, unit: str = " USD", digits: int = 2) -> Markup:
    """A chart of lines over time, with labels at round values; empty without two instants.

    Parameters
    ----------
    lines : sequence of Line
    label : str
        For readers of the screen.
    unit, digits : str, int
        Of the values, for the pointer.
    """
    hours = [_hours(instant) for line in lines for instant in line.instants]
    known = [value for line in lines for value in line.values if value is not None]
    if len(set(hours)) < 2 or not known:
        return Markup("")
    first, last = min(hours), max(hours)
    ticks = _ticks(min(known), max(known))
    low, high = min(ticks[0], *known), max(ticks[-1], *known)

    def x(instant: str) -> float:
        return _WIDTH * (_hours(instant) - first) / (last - first)

    def y(value: float) -> float:
        return _HEIGHT * (high - value) / (high - low)

    drawn = [f'<line class="grid" x1="0" x2="{_WIDTH}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>' for tick in ticks]
    for line in lines:
        for part in _unbroken(line):
            points = " ".join(f"{x(instant):.1f},{y(value):.1f}" for instant, value in part)
            if line.shaded:
                ends = f"{x(part[-1][0]):.1f},{_HEIGHT} {x(part[0][0]):.1f},{_HEIGHT}"
                drawn.insert(0, f'<polygon class="below" points="{points} {ends}"/>')
            drawn.append(f'<polyline class="{line.kind}" points="{points}"/>')
    told = [_told(line, unit, digits) for line in lines]
    panel = {"box": [0, 0, _WIDTH, _HEIGHT], "kind": "time", "lim": [first, last], "names": [], "series": told}
    precision = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    side = "".join(f'<span style="top:{100 * y(tick) / _HEIGHT:.1f}%">{tick:,.{precision}f}</span>' for tick in ticks)
    widest = max(len(f"{tick:,.{precision}f}") for tick in ticks)
    days = [datetime.fromtimestamp(hour * 3600.0, UTC) for hour in (first, (first + last) / 2.0, last)]
    if last - first < timedelta(days=6) / timedelta(hours=1):
        days = [days[0], days[-1]]
    below = "".join(f"<span>{day:%Y-%m-%d}</span>" for day in days)
    return Markup(
        f'<div class="plot" style="grid-template-columns:{0.58 * widest:.1f}em minmax(0,1fr)"><div class="y">{side}'
        f'</div><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" aria-label="'
        f'{escape(label)}" data-hover="{escape(json.dumps([panel]))}">{"".join(drawn)}</svg><div class="x">{below}'
        "</div></div>"
    )


def _hours(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp() / 3600.0


def _unbroken(line: Line) -> list[list[tuple[str, float]]]:
    """The stretches of a line between its gaps."""
    parts: list[list[tuple[str, float]]] = [[]]
    for instant, value in zip(line.instants, line.values, strict=True):
        if value is None:
            parts.append([])
        else:
            parts[-1].append((instant, value))
    return [part for part in parts if part]


def _told(line: Line, unit: str, digits: int) -> dict[str, Any]:
    """What the pointer is told of a line; instants are hours, each from the one before."""
    hours = [round(_hours(instant)) for instant in line.instants]
    steps = [after - before for before, after in zip([0, *hours], hours, strict=False)]
    return {
        "name": line.name,
        "colour": COLOURS[line.kind],
        "unit": unit,
        "digits": digits,
        "x": steps,
        "y": [None if value is None else round(value, digits) for value in line.values],
    }


def _ticks(low: float, high: float) -> list[float]:
    """About four round values that enclose the range."""
    span = (high - low) or abs(high) * 1e-3 or 1.0
    rough = span / 3.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= rough)
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(start, max(stop, start + 1) + 1)]
