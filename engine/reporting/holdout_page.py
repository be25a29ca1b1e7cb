"""The page of an opened holdout: a candidate on its own days, what they let expect, and what the sealed days gave."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.reporting.html import percent, ratio, render, span, write_page

_FIGURES: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "sharpe": ("Sharpe ratio", ratio),
    "total_return": ("return", percent),
    "max_drawdown": ("deepest drawdown, daily", percent),
}


@dataclass(frozen=True)
class Row:
    """One figure of the page: as text, and in per cent of the width of its picture."""

    label: str
    before: str
    expected: str
    sealed: str
    inside: bool
    low: float
    width: float
    mark: float


def rows_of(result: Mapping[str, Any]) -> list[Row]:
    """The figures of a result of :func:`engine.promotion.holdout.open_holdout`."""
    rows = []
    for name, (label, text) in _FIGURES.items():
        low, high = result["expected"][name]
        value = result["sealed"][name]
        value = math.nan if value is None else value  # as JSON keeps it
        before = result["in_sample"][name]
        ends = [end for end in (low, high, 0.0, value) if not math.isnan(end)]
        least, width = min(ends), (max(ends) - min(ends)) or 1.0

        def place(at: float, least: float = least, width: float = width) -> float:
            return 100.0 * (at - least) / width

        rows.append(
            Row(
                label,
                text(math.nan if before is None else before),
                f"{text(low)} to {text(high)}",
                text(value),
                low <= (0.0 if math.isnan(value) else value) <= high,
                place(low),
                place(high) - place(low),
                place(0.0 if math.isnan(value) else value),
            )
        )
    return rows


def conclusion(result: Mapping[str, Any]) -> str:
    """What the opening says, in a sentence or two."""
    sealed, share = result["sealed"], result["share_below"]
    level = 1.0 - result["expected"]["confidence"]
    judged = (
        "less than nearly all that its own days let expect: they flattered it"
        if share < level / 2.0
        else "within what its own days let expect"
        if share <= 1.0 - level / 2.0
        else "more than nearly all that its own days let expect"
    )
    sharpe = math.nan if sealed["sharpe"] is None else sealed["sharpe"]
    return (
        f"On {sealed['days']:,} sealed days the Sharpe ratio was {ratio(sharpe)}, {judged} "
        f"({share:.0%} of the resamples are at or under it)."
    )


def write_holdout(path: Path, result: Mapping[str, Any]) -> Path:
    """Write the page of an opened holdout.

    Raises
    ------
    DataError
        When it cannot be written.
    """
    page = render(
        "holdout.html",
        result=result,
        rows=rows_of(result),
        conclusion=conclusion(result),
        before=span(result["in_sample"]["start"], result["in_sample"]["end"]),
        sealed=span(result["sealed"]["start"], result["sealed"]["end"]),
    )
    return write_page(path, page)
