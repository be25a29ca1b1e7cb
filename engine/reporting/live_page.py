"""The page of ``hlbt live status``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from engine.reporting.html import render, write_page

_WIDTH, _HEIGHT = 760, 190
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
    series = {name: [row[name] for row in rows] for name in ("backtest_usd", "live_usd")}
    low, high = min(map(min, series.values())), max(map(max, series.values()))
    span = (high - low) or 1.0
    drawn = []
    for name, values in series.items():
        points = " ".join(
            f"{_WIDTH * index / (len(values) - 1):.1f},{_HEIGHT - (_HEIGHT - 8) * (value - low) / span - 4:.1f}"
            for index, value in enumerate(values)
        )
        drawn.append(f'<polyline class="{name}" points="{points}"/>')
    return Markup(
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="Equity from {low:,.0f} to {high:,.0f} USD">{"".join(drawn)}</svg>'
    )
