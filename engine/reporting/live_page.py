"""The page of ``hlbt live status``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from engine.reporting.html import render, write_page

_WIDTH, _HEIGHT = 760, 190
#: The lines of the chart: what the pointer is told, and the colour, by which the script finds that of the night.
_SERIES = {"live_usd": ("live", "#348dc1"), "backtest_usd": ("backtest", "#8a8a8a")}
LISTED = 200


def write_live_page(status: dict[str, Any], name: str, network: str, path: Path) -> None:
    """Write the page of a :func:`engine.reporting.live_performance.live_status`.

    Raises
    ------
    DataError
        When the file cannot be written.
    """
    page = render(
        "live.html",
        status=status,
        name=name,
        network=network,
        orders=status["orders"][::-1][:LISTED],
        runs=status["runs"][::-1][:LISTED],
        chart=_lines(status["drift"]["rows"]),
    )
    write_page(path, page)


def _lines(rows: Sequence[dict[str, Any]]) -> Markup:
    """Live and backtested equity as two lines; drawn here, since the live path loads no plotting library."""
    if len(rows) < 2:
        return Markup("")
    hours = [datetime.fromisoformat(row["instant"]).timestamp() / 3600.0 for row in rows]
    series = {name: [row[name] for row in rows] for name in _SERIES}
    low, high = min(map(min, series.values())), max(map(max, series.values()))
    span = (high - low) or 1.0
    drawn, told = [], []
    for name, values in series.items():
        points = " ".join(
            f"{_WIDTH * (hour - hours[0]) / (hours[-1] - hours[0]):.1f},"
            f"{_HEIGHT - (_HEIGHT - 8) * (value - low) / span - 4:.1f}"
            for hour, value in zip(hours, values, strict=True)
        )
        drawn.append(f'<polyline class="{name}" points="{points}"/>')
        steps = [hours[0], *(after - before for before, after in pairwise(hours))]
        label, colour = _SERIES[name]
        told.append({"name": label, "colour": colour, "unit": " USD", "digits": 2, "x": steps, "y": values})
    panel = {"box": [0, 0, _WIDTH, _HEIGHT], "kind": "time", "lim": [hours[0], hours[-1]], "names": [], "series": told}
    return Markup(
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="Equity from {low:,.0f} to {high:,.0f} USD" data-hover="{escape(json.dumps([panel]))}">'
        f"{''.join(drawn)}</svg>"
    )
