"""The page of ``hlbt live status``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from engine.reporting import charts
from engine.reporting.html import render, write_page

LISTED = 200
FLOOR = "bottom of the bands"
#: Pixels of the chart of equity on a desktop.
LARGE = 960, 260
#: The questions of the first screen, as a person asks them.
QUESTIONS: Mapping[str, str] = {
    "plan": "Is every plan what its replay says?",
    "costs": "Do trades cost what the model says?",
    "edge": "Is the edge still there?",
}


def write_live_page(status: Mapping[str, Any], name: str, network: str, path: Path) -> None:
    """Write the page of a :func:`engine.reporting.live_performance.live_status`.

    Parameters
    ----------
    status : mapping
        With ``answers``, ``demotion``, ``track`` and ``book`` where they are known.
    name, network : str
        Of the strategy and its account.
    path : Path

    Raises
    ------
    DataError
        When the file cannot be written.
    """
    answers = status.get("answers")
    deciding = next(filter(lambda item: item["decides"], answers["costs"]["series"]), None) if answers else None
    coins = answers["costs"]["by_coin"] if answers else []
    page = render(
        "live.html",
        status=status,
        name=name,
        network=network,
        orders=status["orders"][::-1][:LISTED],
        runs=status["runs"][::-1][:LISTED],
        answers=answers,
        questions=QUESTIONS,
        equity=equity_charts(status["drift"]["rows"], answers["edge"]["floors"] if answers else None),
        deciding=deciding,
        cusum=_cusum(deciding) if deciding else "",
        bars=_bars(coins),
    )
    write_page(path, page)


def _bars(coins: list[dict[str, Any]]) -> dict[str, float]:
    """Left edge and scale of the bars of slippage: what was paid goes to the left, with room for gains if there are."""
    values = [row[name] or 0.0 for row in coins for name in ("slippage_bps", "model_slippage_bps")]
    widest = max(map(abs, values), default=0.0) or 1.0
    return (
        {"left": -55.0, "scale": 52.0 / widest}
        if min(values, default=0.0) < 0.0
        else {"left": -108.0, "scale": 105.0 / widest}
    )


def equity_charts(rows: list[dict[str, Any]], floors: Mapping[str, Any] | None) -> dict[str, Markup]:
    """Live equity, its replay and the bottom of the bands, by class of the size; empty before the second instant.

    Parameters
    ----------
    rows : list of dict
        Of :func:`engine.monitoring.account_replay.drift`.
    floors : mapping or None
        Of :func:`engine.monitoring.answers.band_floors`.
    """
    if len(rows) < 2:
        return {}
    instants = [row["instant"] for row in rows]
    live = [row["live_usd"] for row in rows]
    lines = {
        "replay": _over(instants, [row["backtest_usd"] for row in rows]),
        "live": _over(instants, live),
    }
    colours = [charts.COLOURS["faint"], charts.COLOURS["price"]]
    if floors is not None and (scale := _scale(rows, floors)) is not None:
        shown = [place for place, instant in enumerate(floors["instants"]) if instant >= instants[0]]
        at = [floors["instants"][place] for place in shown]
        floor = [scale * max(floors["return_floor"][place], floors["drawdown_floor"][place]) for place in shown]
        lines = {FLOOR: _over(at, floor), **lines}
        colours.insert(0, charts.COLOURS["loss"])
    label, fill = f"Equity from {min(live):,.0f} to {max(live):,.0f} USD", -math.inf if FLOOR in lines else None
    return {
        name: charts.lines(label, lines, colours, fill=fill, size=size, dashed=("replay",))
        for name, size in (("large", LARGE), ("small", charts.SMALL))
    }


def _over(instants: Sequence[str], values: Sequence[float | None]) -> pd.Series:
    return pd.Series(values, index=pd.to_datetime(list(instants), utc=True, format="ISO8601"), dtype=np.float64)


def _scale(rows: list[dict[str, Any]], floors: Mapping[str, Any]) -> float | None:
    """USD of the account at a level of 1; None where no instant has both."""
    levels = dict(zip(map(pd.Timestamp, floors["instants"]), floors["level"], strict=False))
    for row in rows:
        if level := levels.get(pd.Timestamp(row["instant"])):
            return float(row["live_usd"]) / float(level)
    return None


def _cusum(series: Mapping[str, Any]) -> Markup:
    if len(series["instants"]) < 2:
        return Markup("")
    lines = {"limit": _over(series["instants"], series["limit"]), "CUSUM": _over(series["instants"], series["cusum"])}
    colours = charts.COLOURS["loss"], charts.COLOURS["price"]
    return charts.lines(f"CUSUM of {series['name']} and its limit", lines, colours)
