"""The page of ``hlbt compare``: runs side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from engine.reporting import charts
from engine.reporting.html import percent, plain, ratio, render, usd, write_page
from engine.reporting.views import FIGURES, Comparison
from engine.runs import Run
from engine.simulation.result import FLOWS
from engine.simulation.tables import CAUSES, RECEIVED, SIGNS

#: Of the chart on a screen and on a phone.
_SIZES = {"large": (960, 330), "small": (380, 260)}
_COLOURS = ("price", "spread", "funding", "impact", "fees", "benchmark", "net")


def write_comparison(path: Path, comparison: Comparison, runs: Sequence[Run]) -> Path:
    """Write the page of a comparison of runs, which lie beside it.

    Raises
    ------
    DataError
        When it cannot be written.
    """
    curves = {name: comparison.curves[name].dropna() for name in comparison.names}
    colours = [charts.COLOURS[_COLOURS[place % len(_COLOURS)]] for place in range(len(curves))]
    page = render(
        "comparison.html",
        names=dict(zip(comparison.names, colours, strict=True)),
        synthetic=any(run.record["synthetic"] for run in runs),
        charts=[
            (name, charts.lines("Equity over that at the start", curves, colours, size=size))
            for name, size in _SIZES.items()
        ],
        tables=[
            ("What differs", "Parameters, config and span.", settings(comparison)),
            ("Figures", f"{RECEIVED}.", figures(comparison)),
            ("Correlation", "Of daily returns on the days in common.", comparison.correlation.map(ratio)),
            (
                f"Weights against {comparison.names[0]}",
                "Distance: mean over the decisions in common of the sum of absolute differences. Most: the coin whose "
                "weight differs most.",
                comparison.weights.map(_cell),
            ),
        ],
    )
    return write_page(path, page)


def settings(comparison: Comparison) -> pd.DataFrame:
    """Settings that differ, as text, (rows, R); empty where an oracle has no such parameter, or leaves it unset."""
    told = comparison.config.map(
        lambda value: "" if value is None or (isinstance(value, float) and math.isnan(value)) else plain(value)
    )
    return told[(told != "").any(axis=1)]


def figures(comparison: Comparison) -> pd.DataFrame:
    """Metrics side by side as text, (rows, R); money from the account's point of view."""
    rows = {}
    for key, (name, unit, _) in FIGURES.items():
        write = percent if unit.startswith("fraction") else ratio if unit == "ratio" else _count
        rows[name] = [write(_number(value)) for value in comparison.metrics.loc[key]]
    for flow in FLOWS:
        rows[f"{CAUSES[flow]}, USD"] = [
            usd(SIGNS[flow] * _number(value) + 0.0) for value in comparison.metrics.loc[flow]
        ]
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(comparison.names))


def _number(value: Any) -> float:
    """A metric of a record, where JSON has null for NaN."""
    return float("nan") if value is None else float(value)


def _count(value: float) -> str:
    return usd(value, 0)


def _cell(value: Any) -> str:
    return ratio(value) if isinstance(value, float) else str(value)
