"""hlbt's section of a run's page, and the rows of the index: figures, tables and charts for the templates.

Amounts are shown from the account's point of view: costs are negative, so the rows of the attribution add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from engine.clock import HOUR, show
from engine.errors import DataError
from engine.reporting import charts
from engine.reporting.assumptions import modelled
from engine.reporting.html import percent, ratio, render, span, usd
from engine.runs import BENCHMARK, SCHEMA, TEARSHEET, Run
from engine.simulation import metrics
from engine.simulation.result import FLOWS
from engine.simulation.tables import CAUSES, SIGNS

Row = dict[Hashable, Any]
LISTED_COINS = 10
LISTED_DELISTINGS = 50
_SECTIONS = ("name", "created", "synthetic", "origin", "config", "span", "digests", "versions", "metrics")
_METRICS = (
    "equity_start_usd", "equity_end_usd", "total_return", "cagr", "volatility", "sharpe", "sortino", "max_drawdown",
    "calmar", "turnover_daily", "gross_mean", "net_mean", "trades", "skipped_min_notional", "untradable_weight",
    "delistings", "liquidated_at", *FLOWS,
)  # fmt: skip


@dataclass(frozen=True)
class Tile:
    """One figure of the heading: `exact` is the number of ``run.json``, `text` its display."""

    name: str
    label: str
    text: str
    exact: float
    hint: str = ""


@dataclass(frozen=True)
class CauseRow:
    """One row of the attribution, from the account's point of view."""

    name: str
    usd: float
    colour: str


def check_record(record: Any, folder: Path) -> None:
    """Refuse a ``run.json`` that a page cannot be made from.

    Raises
    ------
    DataError
        When it is not a run of this schema, or a part of it is missing.
    """
    cure = "Run the backtest again."
    if not isinstance(record, Mapping):
        raise DataError(f"Run {folder} is damaged: run.json is not a table of sections. {cure}")
    if record.get("schema") != SCHEMA:
        raise DataError(f"Run {folder} has schema {record.get('schema')}; this version reads {SCHEMA}. {cure}")
    missing = [name for name in _SECTIONS if name not in record]
    tables = [name for name in _SECTIONS[3:] if name in record and not isinstance(record[name], Mapping)]
    if not missing and not tables:
        missing = [f"metrics.{name}" for name in _METRICS if name not in record["metrics"]]
        missing += [f"span.{name}" for name in ("start", "end", "hours", "coins") if name not in record["span"]]
        missing += [f"origin.{name}" for name in ("name", "kind", "path", "parameters") if name not in record["origin"]]
    if missing or tables:
        raise DataError(f"Run {folder} is damaged: run.json lacks {', '.join([*missing, *tables])}. {cure}")


def figure(record: Mapping[str, Any], name: str) -> float:
    """A number of the record's metrics; NaN where it is null, which is how JSON writes an undefined one."""
    value = record["metrics"][name]
    return math.nan if value is None else float(value)


def daily_returns(run: Run) -> pd.Series:
    """Returns from decision instant to decision instant, by naive UTC date: :attr:`engine.Result.daily_returns`.

    The last ``days`` of them, which the figures are of; all in a run of before, whose figures were.
    """
    daily = run.equity["equity_usd"]
    daily = daily[_instants(daily.index).hour == run.record["config"]["execution"]["hour_utc"]]
    returns = metrics.daily_returns(daily.to_numpy(dtype=np.float64))
    left_out = max(0, len(returns) - run.record["metrics"].get("days", len(returns)))
    return pd.Series(returns, index=_dates(daily.index)[1:], name="Strategy")[left_out:]


def benchmark_returns(run: Run) -> pd.Series | None:
    """Returns of the benchmark between the same instants as :func:`daily_returns`, on exactly its dates.

    A missing price is filled with the last one before; a day before the first price has the return 0.
    None when the run has no price of the benchmark.
    """
    dates = daily_returns(run).index
    if "benchmark_usd" not in run.hourly or not run.hourly["benchmark_usd"].notna().any():
        return None
    price = run.hourly["benchmark_usd"].ffill()
    price = price[_instants(price.index).hour == run.record["config"]["execution"]["hour_utc"]]
    returns = price / price.shift(1) - 1.0
    returns.index = _dates(price.index)
    aligned: pd.Series = returns.reindex(dates).fillna(0.0).rename(BENCHMARK)
    return aligned


def turnover(run: Run) -> pd.Series:
    """Turnover of each traded decision: ``sum(abs(units) * mid) / equity before``; 0 where that is not positive.

    ``fill = mid +/- spread``, so the notional at mid is the fill's less the spread of a buy, plus that of a sale; the
    equity before the trade is the recorded one with the row's costs put back.
    """
    trades = run.trades[~run.trades["reason"].isin(["delisting", "liquidation"])]
    side = np.sign(trades["units"])
    at_mid = (trades["notional_usd"] - side * trades["spread_usd"]).groupby(trades["time"]).sum()
    delay = run.record["config"]["execution"]["delay_hours"]
    rows = _instants(run.weights.index) + delay * HOUR
    last = run.record["metrics"]["liquidated_at"]
    recorded = run.equity.loc[rows[rows <= (run.equity.index[-1] if last is None else pd.Timestamp(last))]]
    before = recorded["equity_usd"] + recorded[["spread_usd", "impact_usd", "fee_usd", "funding_usd"]].sum(axis=1)
    traded = at_mid.reindex(recorded.index).fillna(0.0)
    turnovers: pd.Series = (traded / before).where(before > 0.0, 0.0).rename("turnover")
    return turnovers


def run_section(run: Run, notes: tuple[str, ...]) -> Markup:
    """Hlbt's section of a run's page, as HTML, with `notes` above the charts."""
    record = run.record
    start, end = figure(record, "equity_start_usd"), figure(record, "equity_end_usd")
    causes = [CauseRow(CAUSES[name], signed(record, name), charts.COLOURS[CAUSES[name]]) for name in FLOWS]
    net = math.fsum(cause.usd for cause in causes)
    recorded = float(run.equity["equity_usd"].iloc[-1])
    traded = float(run.trades.loc[run.trades["reason"] != "delisting", "notional_usd"].sum())
    best, worst, rest, everything = coin_tables(record)
    delisted = run.trades[run.trades["reason"] == "delisting"]
    liquidated = record["metrics"]["liquidated_at"]
    return Markup(
        render(
            "run_section.html",
            record=record,
            notes=notes,
            span=span(record["span"]["start"], record["span"]["end"]),
            days=record["span"]["hours"] / 24.0,
            liquidated=None if liquidated is None else show(pd.Timestamp(liquidated)),
            tiles=tiles(record),
            counted=_counted(run),
            risk=[] if run.risk is None else [str(name) for name in run.risk],
            causes=causes,
            start=start,
            end=end,
            net=net,
            # Half a cent is rounding; more means that the files of the folder do not belong to one run.
            adds_up=abs(start + net - end) < 0.005 + 1e-9 * abs(start) and abs(recorded - end) < 0.005,
            recorded=recorded,
            exposure=(figure(record, "gross_mean"), figure(record, "net_mean")),
            untradable=figure(record, "untradable_weight"),
            traded=traded,
            charts=drawings(run, causes),
            best=best,
            worst=worst,
            rest=rest,
            everything=everything,
            delisted=[
                (show(time), coin, units, price)
                for time, coin, units, price in zip(
                    *(delisted[name].head(LISTED_DELISTINGS).tolist() for name in ("time", "coin", "units", "price")),
                    strict=True,
                )
            ],
            delistings=len(delisted),
            reasons=run.trades["reason"].value_counts().sort_index().to_dict(),
            modelled=modelled(record),
        )
    )


def _counted(run: Run) -> dict[str, Any] | None:
    """From when and over how many days the figures are, and those over the calendar; None where both are the same."""
    days, calendar = (run.record["metrics"].get(name) for name in ("days", "days" + metrics.CALENDAR))
    if calendar is None or days == calendar:
        return None
    labels = {"CAGR": "cagr", "Sharpe": "sharpe", "volatility": "volatility"}
    figures = {label: figure(run.record, name + metrics.CALENDAR) for label, name in labels.items()}
    asking = run.weights.index[(run.weights.notna() & (run.weights != 0.0)).any(axis=1)]
    return {
        "days": days,
        "calendar": calendar,
        "first": show(asking[0]) if days else "",
        "figures": [(name, ratio(value) if name == "Sharpe" else percent(value)) for name, value in figures.items()],
    }


def signed(record: Mapping[str, Any], name: str) -> float:
    """A flow of the whole run from the account's point of view, USD; never minus zero."""
    return SIGNS[name] * figure(record, name) + 0.0


def tiles(record: Mapping[str, Any]) -> list[Tile]:
    """The row of figures."""
    gross = figure(record, "price_pnl_usd") / figure(record, "equity_start_usd")
    rows: tuple[tuple[str, str, Callable[[float], str], str], ...] = (
        ("total_return", "net return", percent, "end equity / start equity - 1, after all costs"),
        ("gross_return", "gross return", percent, "price profit / start equity, before all costs"),
        ("cagr", "CAGR", percent, "daily returns, a year of 365 days"),
        ("sharpe", "Sharpe", ratio, "mean / standard deviation of daily returns * sqrt(365)"),
        ("volatility", "volatility", percent, "of daily returns, a year of 365 days"),
        ("max_drawdown", "max drawdown", percent, "on hourly marks"),
        ("turnover_daily", "turnover / decision", percent, "mean of traded notional / equity"),
        ("equity_end_usd", "end equity", lambda value: f"{usd(value)} USD", "after the last hour"),
    )
    row = []
    for name, label, write, hint in rows:
        value = gross if name == "gross_return" else figure(record, name)
        row.append(Tile(name, label, write(value), value, hint))
    return row


def drawings(run: Run, causes: list[CauseRow]) -> dict[str, Markup]:
    """Charts of the section, by name."""
    start = figure(run.record, "equity_start_usd")
    flows = run.equity[list(FLOWS)] * [SIGNS[name] for name in FLOWS]
    cumulative = {CAUSES[name]: flows[name].cumsum() for name in FLOWS if name != "impact_usd" or flows[name].any()}
    lines = {"net": flows.sum(axis=1).cumsum(), **cumulative}
    exposure = {"gross": run.hourly["gross_frac"], "net": run.hourly["net_frac"]}
    drawdown = metrics.drawdown(run.equity["equity_usd"].to_numpy(dtype=np.float64), start)
    turnovers = turnover(run)
    drawn = {
        "waterfall": charts.waterfall([(cause.name, cause.usd) for cause in causes]),
        "attribution": charts.lines(
            "attribution", "Cumulative profit by cause in USD", lines, [charts.COLOURS[name] for name in lines]
        ),
        "exposure": charts.lines(
            "exposure",
            "Exposure over time",
            exposure,
            (charts.COLOURS["price"], charts.COLOURS["spread"]),
            percent=True,
        ),
        "turnover": charts.stems(
            "turnover", "Turnover of each decision", turnovers, figure(run.record, "turnover_daily")
        ),
        "drawdown": charts.lines(
            "drawdown",
            "Hourly drawdown",
            {"drawdown": pd.Series(drawdown, index=run.equity.index)},
            (charts.COLOURS["loss"],),
            percent=True,
            fill=True,
        ),
        "equity": charts.lines(
            "equity", "Hourly equity in USD", {"equity": run.equity["equity_usd"]}, (charts.COLOURS["price"],)
        ),
    }
    if run.risk is not None:
        drawn["risk"] = _risk_chart(run.risk)
    return drawn


def _risk_chart(risk: pd.DataFrame) -> Markup:
    """Exposures in the oracle's own terms at each decision; the last column, the net exposure, in grey."""
    names = ("price", "spread", "funding", "impact", "fees")
    colours = [charts.COLOURS[names[place % len(names)]] for place in range(len(risk.columns) - 1)]
    series = {str(name): risk[name] for name in risk}
    return charts.lines("risk", "Exposure to the oracle over time", series, [*colours, charts.COLOURS["faint"]])


def coin_tables(record: Mapping[str, Any]) -> tuple[list[Row], list[Row], Row | None, Row]:
    """Most profitable coins, most costly ones, all others together, and the total: USD by cause, and `net`."""
    flows = pd.DataFrame.from_dict(record.get("coin_attribution", {}), orient="index", columns=list(FLOWS), dtype=float)
    rows = (flows.fillna(0.0) * SIGNS).rename(columns=CAUSES).rename_axis("coin").reset_index()
    rows["net"] = rows[list(CAUSES.values())].sum(axis=1)
    rows = rows.sort_values(["net", "coin"], ascending=[False, True])
    best, worst = (part.head(LISTED_COINS) for part in (rows[rows["net"] > 0.0], rows[rows["net"] < 0.0][::-1]))
    rest = rows.drop([*best.index, *worst.index])

    def together(part: pd.DataFrame, label: str) -> Row:
        return {"coin": label, **part.drop(columns="coin").sum().to_dict()}

    others = together(rest, f"{len(rest)} more") if len(rest) else None
    return best.to_dict("records"), worst.to_dict("records"), others, together(rows, f"all {len(rows)} traded")


def index_row(record: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The row of a run on the index page, from its ``run.json``."""
    check_record(record, folder)
    origin, dates = record["origin"], record["span"]
    start = figure(record, "equity_start_usd")
    names = ("equity_end_usd", "total_return", "cagr", "sharpe", "max_drawdown", "turnover_daily")
    # The spread column includes impact, as in the tables of coins.
    paid = {name: signed(record, name) / start for name in FLOWS}
    return {
        "folder": folder.name,
        "error": "",
        "page": (folder / TEARSHEET).is_file(),
        "name": str(origin["name"]),
        "path": str(origin["path"]),
        "parameters": ", ".join(f"{key}={value}" for key, value in dict(origin["parameters"]).items()),
        "start": str(dates["start"])[:10],
        "end": str(dates["end"])[:10],
        "synthetic": bool(record["synthetic"]),
        "liquidated": record["metrics"]["liquidated_at"] is not None,
        "created": str(record["created"]),
        "figures": (
            *(figure(record, name) for name in names),
            paid["spread_usd"] + paid["impact_usd"],
            paid["fee_usd"],
            paid["funding_usd"],
        ),
        "trades": int(figure(record, "trades")),
    }


def _instants(index: pd.Index) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(index).tz_convert("UTC")


def _dates(index: pd.Index) -> pd.DatetimeIndex:
    # QuantStats takes naive dates only; in nanoseconds, because it mixes them with dates of its own.
    return _instants(index).tz_localize(None).normalize().as_unit("ns").rename("date")
