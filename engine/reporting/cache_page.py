"""The page of ``hlbt data status``: contents of the cache as heat maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.reporting.html import render, write_page

#: The shade of a cell is the index of the last of these that its share reaches.
STEPS = (0.0, 1e-9, 0.5, 0.9, 0.99, 0.99995)
LABELS = ("none", "under 50 %", "50 to 90 %", "90 to 99 %", "over 99 %", "all")
LETTERS = {"s3": "S", "l2book": "B", "api": "A", "freqtrade": "F", "table": "T", "synthetic": "M"}
LISTED_GAPS = 60


@dataclass(frozen=True)
class Cell:
    """One cell of a heat map: shade 0 to 5 (None: no value is possible), letters of its sources, tooltip."""

    shade: int | None
    text: str
    tooltip: str


def shade(share: float) -> int:
    """Shade of a share, 0 to 5; only a full share is 5."""
    return sum(share >= step for step in STEPS) - 1


def write_status_page(cache: dict[str, Any], path: Path) -> None:
    """Write the page of a status of :func:`engine.data.cache_status.status`.

    Raises
    ------
    DataError
        When the file cannot be written.
    """
    write_page(path, render("status.html", **_values(cache)))


def _values(cache: dict[str, Any]) -> dict[str, Any]:
    coins = {row["coin"]: row for row in cache["table"] if row["first_price"] is not None}
    sources = sorted({name for month in cache["months"] for names in month["sources"].values() for name in names})
    return {
        "cache": cache,
        "months": [month["month"] for month in cache["months"]],
        "years": _years([month["month"] for month in cache["months"]]),
        "fields": [(name, [_field_cell(name, month) for month in cache["months"]]) for name in cache["fields"]],
        "coins": [(coins[name], _coin_cells(coins[name], cache["timeline"], cache["start"])) for name in coins],
        "gaps": _longest(cache["gaps"]),
        "funding_gaps": _longest(cache["funding_gaps"]),
        "sources": [(LETTERS.get(name, name[:1].upper()), name) for name in sources],
        "scale": list(enumerate(LABELS)),
    }


def _longest(gaps: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int, int]:
    """The longest gaps, how many more there are, and the hours of all."""
    ordered = sorted(gaps, key=lambda gap: (-gap["hours"], gap["first"], gap["coin"]))
    return ordered[:LISTED_GAPS], max(len(gaps) - LISTED_GAPS, 0), sum(gap["hours"] for gap in gaps)


def _years(months: list[str]) -> list[tuple[str, int]]:
    """Years and how many of the months are of each."""
    years = [month[:4] for month in months]
    return [(year, years.count(year)) for year in dict.fromkeys(years)]


def _field_cell(name: str, month: dict[str, Any]) -> Cell:
    share = month["coverage"].get(name)
    if share is None:
        return Cell(0, "", f"{month['month']} {name}: none")
    names = month["sources"].get(name, [])
    letters = "".join(LETTERS.get(source, source[:1].upper()) for source in names)
    return Cell(shade(share), letters, f"{month['month']} {name}: {share:.2%} from {', '.join(names)}")


def _coin_cells(coin: dict[str, Any], timeline: dict[str, Any], start: str) -> list[Cell]:
    cells = []
    for month, share in zip(timeline["months"], timeline["coins"][coin["coin"]], strict=True):
        if share is None:
            when = "before the first price" if month < coin["first_price"][:7] else "after the last price"
            cells.append(Cell(None, "", f"{month}: {when}"))
            continue
        # A coin with a price in the first row of the cache was listed before that row.
        listed_here = coin["listed"] is not None and coin["listed"] > start and coin["listed"][:7] == month
        mark = "\u25b8" if listed_here else ""
        mark += "\u25fe" if (coin["delisted"] or "")[:7] == month else ""
        cells.append(Cell(shade(share), mark, f"{month}: {share:.1%} of its hours have a price"))
    return cells
