"""hlbt's section of a run's page: figures first, then tables and charts, for the template."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from engine.clock import show
from engine.reporting import charts
from engine.reporting.assumptions import modelled
from engine.reporting.html import percent, ratio, render, span
from engine.reporting.run_page import (
    benchmark_held,
    benchmark_name,
    benchmark_returns,
    coin_rows,
    daily_returns,
    factor_parts,
    figure,
    signed,
    tiles,
    traded_equity,
    turnover,
    verdict_of,
)
from engine.runs import Run
from engine.simulation import metrics, tables
from engine.simulation.result import FLOWS
from engine.simulation.tables import CAUSES, SIGNS

LISTED_DELISTINGS = 50
LISTED_DRAWDOWNS = 10
#: A return of this size has the full colour in the table of months.
_FULL = 0.10


@dataclass(frozen=True)
class CauseRow:
    """One row of the attribution, from the account's point of view."""

    name: str
    usd: float
    colour: str


def run_section(run: Run, notes: tuple[str, ...]) -> Markup:
    """Hlbt's section of a run's page, as HTML, with `notes` under the first chart."""
    record = run.record
    causes = [CauseRow(CAUSES[name], signed(record, name), charts.COLOURS[CAUSES[name]]) for name in FLOWS]
    recorded = float(run.equity["equity_usd"].iloc[-1])
    liquidated = record["metrics"]["liquidated_at"]
    start, end = figure(record, "equity_start_usd"), figure(record, "equity_end_usd")
    net = math.fsum(cause.usd for cause in causes)
    return Markup(
        render(
            "run_section.html",
            record=record,
            notes=notes,
            span=span(record["span"]["start"], record["span"]["end"]),
            days=record["span"]["hours"] / 24.0,
            liquidated=None if liquidated is None else show(pd.Timestamp(liquidated)),
            tiles=tiles(run),
            verdict=verdict_of(record, run.folder),
            benchmark=benchmark_name(run),
            counted=_counted(run),
            risk=[] if run.risk is None else [str(name) for name in run.risk],
            causes=causes,
            start=start,
            end=end,
            net=net,
            # Half a cent is rounding; more means that the files of the folder do not belong to one run.
            adds_up=abs(start + net - end) < 0.005 + 1e-9 * abs(start) and abs(recorded - end) < 0.005,
            recorded=recorded,
            price_return=figure(record, "price_pnl_usd") / start,
            traded=float(run.trades.loc[run.trades["reason"] != "delisting", "notional_usd"].sum()),
            charts=drawings(run, causes),
            coins=coin_rows(run),
            reasons=run.trades["reason"].value_counts().sort_index().to_dict(),
            modelled=modelled(record),
            factors=_factors(run),
            **_periods(run),
            **_delistings(run),
            **_trips(run),
        )
    )


def _counted(run: Run) -> dict[str, Any] | None:
    """From when and over how many days the figures are, and those over the calendar; None where both are the same."""
    days, calendar = (run.record["metrics"].get(name) for name in ("days", "days" + metrics.CALENDAR))
    if calendar is None or days == calendar:
        return None
    labels = {"CAGR": "cagr", "Sharpe": "sharpe", "volatility": "volatility"}
    figures = {label: figure(run.record, name + metrics.CALENDAR) for label, name in labels.items()}
    equity = traded_equity(run)
    return {
        "days": days,
        "calendar": calendar,
        "first": show(equity.index[0]) if days else "",
        "figures": [(name, ratio(value) if name == "Sharpe" else percent(value)) for name, value in figures.items()],
    }


def _factors(run: Run) -> dict[str, Any] | None:
    """The attribution to factors: rows of name, mean a year, t and colour; None in a run of a version before it."""
    record = run.record.get("factor_attribution")
    if record is None:
        return None
    parts = factor_parts(run)
    rows = [
        (name, *values, colour) for (name, values), colour in zip(parts.items(), _factor_colours(parts), strict=True)
    ]
    return {"rows": rows, "days": record["days"], "lags": record["lags"], "notes": record["notes"]}


def _factor_colours(names: Iterable[str]) -> list[str]:
    """A colour for each part, dark for the last, the residual."""
    palette = [charts.COLOURS[name] for name in ("price", "spread", "funding", "impact", "fees")]
    count = len(list(names))
    return [*(palette[place % len(palette)] for place in range(count - 1)), "#333333"][:count]


def _periods(run: Run) -> dict[str, Any]:
    """Months, years and drawdowns."""
    equity, hour = traded_equity(run), run.record["config"]["execution"]["hour_utc"]
    start = figure(run.record, "equity_start_usd")
    monthly, yearly = tables.monthly(equity, start, hour), tables.yearly(equity, start, hour)
    deepest = tables.drawdowns(equity, start)
    return {
        "months": tables.MONTHS,
        "monthly": [
            (year, [(value, _shade(value)) for value in row])
            for year, row in zip(monthly.index, monthly.to_numpy(), strict=True)
        ],
        "yearly": [(year, row) for year, row in zip(yearly.index, yearly.to_dict("records"), strict=True)],
        "drawdowns": deepest.head(LISTED_DRAWDOWNS).to_dict("records"),
        "drawdown_count": len(deepest),
    }


def _shade(value: float) -> str:
    """Colour of a month's cell: the stronger, the further from zero."""
    if math.isnan(value):
        return ""
    strength = round(min(abs(value) / _FULL, 1.0) * 30)
    return f"background:color-mix(in srgb,var(--{'loss' if value < 0 else 'gain'}) {strength}%,var(--back))"


def _trips(run: Run) -> dict[str, Any]:
    """Round trips by side, and what long and short positions brought."""
    exposure = run.hourly.loc[traded_equity(run).index]
    summary = run.trips_summary
    if run.trips is None or summary is None or exposure.empty:
        return {"trips": None if run.trips is None else [], "sides": []}
    start = figure(run.record, "equity_start_usd")
    sides = tables.long_short(run.trips, exposure, start)
    return {
        "trips": [
            (name, row)
            for (by, name), row in zip(summary.index, summary.to_dict("records"), strict=True)
            if by != "coin"
        ],
        "sides": [(name, row) for name, row in zip(sides.index, sides.to_dict("records"), strict=True)],
    }


def _delistings(run: Run) -> dict[str, Any]:
    settled = run.trades[run.trades["reason"] == "delisting"]
    columns = (settled[name].head(LISTED_DELISTINGS).tolist() for name in ("time", "coin", "units", "price"))
    return {
        "delisted": [(show(time), coin, units, price) for time, coin, units, price in zip(*columns, strict=True)],
        "delistings": len(settled),
    }


def drawings(run: Run, causes: list[CauseRow]) -> dict[str, Any]:
    """Charts of the section, by name; ``window`` is the days of the rolling ones, 0 where the run is too short."""
    colours = charts.COLOURS
    flows = run.equity[list(FLOWS)] * [SIGNS[name] for name in FLOWS]
    cumulative = {CAUSES[name]: flows[name].cumsum() for name in FLOWS if name != "impact_usd" or flows[name].any()}
    lines = {"net": flows.sum(axis=1).cumsum(), **cumulative}
    exposure = {"gross": run.hourly["gross_frac"], "net": run.hourly["net_frac"]}
    drawn: dict[str, Any] = {
        **_first_chart(run),
        **_rolling(run),
        "waterfall": charts.waterfall([(cause.name, cause.usd) for cause in causes]),
        "attribution": charts.lines("Cumulative profit by cause in USD", lines, [colours[name] for name in lines]),
        "exposure": charts.lines("Exposure over time", exposure, (colours["price"], colours["spread"]), percent=True),
        "turnover": charts.stems(
            "Turnover of each decision",
            turnover(run),
            # Runs of before have but one turnover, which is that of a decision.
            figure(
                run.record, "turnover_decision" if "turnover_decision" in run.record["metrics"] else "turnover_daily"
            ),
        ),
    }
    if run.factors is not None:
        parts = {str(name): run.factors[name].cumsum() for name in run.factors}
        drawn["factors"] = charts.lines(
            "Cumulative parts of the return by factor", parts, _factor_colours(parts), percent=True
        )
    if run.risk is not None:
        drawn["risk"] = _risk_chart(run.risk)
    return drawn


def _first_chart(run: Run) -> dict[str, Markup]:
    """Equity against the benchmark, with the drawdown under it: for a desktop and for a telephone."""
    equity = run.equity["equity_usd"]
    held, series = benchmark_held(run), {"equity": equity}
    if held is not None:
        series[f"{benchmark_name(run)} held"] = held
    start = figure(run.record, "equity_start_usd")
    drawdown = pd.Series(metrics.drawdown(equity.to_numpy(dtype=np.float64), start), index=equity.index)
    colours = [charts.COLOURS["price"], charts.COLOURS["benchmark"]][: len(series)]
    return {
        "equity": charts.equity(series, drawdown, charts.LARGE, colours),
        "equity_small": charts.equity(series, drawdown, charts.SMALL, colours),
    }


def _rolling(run: Run) -> dict[str, Any]:
    """Rolling Sharpe ratio and beta, over a window that fits the span."""
    returns, benchmark = daily_returns(run), benchmark_returns(run)
    rolled = tables.rolling(returns, benchmark)
    window = int(rolled.attrs["window_days"])
    index = pd.DatetimeIndex(rolled.index).tz_localize("UTC")
    drawn: dict[str, Any] = {"window": window}
    for name, colour in (("sharpe", "price"), ("beta", "spread")):
        if window and name in rolled and rolled[name].notna().any():
            series = {name: rolled[name].set_axis(index, axis=0)}
            drawn[name] = charts.lines(f"Rolling {name} over {window} days", series, (charts.COLOURS[colour],))
    return drawn


def _risk_chart(risk: pd.DataFrame) -> Markup:
    """Exposures in the oracle's own terms at each decision; the last column, the net exposure, in grey."""
    names = ("price", "spread", "funding", "impact", "fees")
    colours = [charts.COLOURS[names[place % len(names)]] for place in range(len(risk.columns) - 1)]
    series = {str(name): risk[name] for name in risk}
    return charts.lines("Exposure to the oracle over time", series, [*colours, charts.COLOURS["faint"]])
