"""Figures of a run's page and of its row in the index, read from the run's files.

Amounts are shown from the account's point of view: money received is positive and money paid negative, so the rows of
the attribution add up. The files keep costs positive.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.clock import HOUR
from engine.config import RunConfig
from engine.errors import DataError
from engine.provenance import as_json
from engine.reporting.html import percent, plain, ratio, usd
from engine.run_folders import CAPACITY, SCHEMA, TEARSHEET
from engine.runs import BENCHMARK, Run
from engine.simulation import metrics, tables
from engine.simulation.factor_attribution import RESIDUAL
from engine.simulation.result import FLOWS
from engine.simulation.tables import CAUSES, SIGNS
from engine.sweeps.results import TOP
from engine.sweeps.study import PAGE, VERDICT

#: Keys of where the data lie and when they begin and end, which the span says.
PLACES = ("data.cache", "data.start", "data.end")
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
class Judged:
    """The verdict of the sweep that a run is the winner of: its word, whether it passed, what it says, its page."""

    word: str
    passed: bool
    says: str
    page: str


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


def benchmark_name(run: Run) -> str | None:
    """Name of what the run is compared with; None where it has no price. Runs of before were compared with BTC."""
    if "benchmark_usd" not in run.hourly or not run.hourly["benchmark_usd"].notna().any():
        return None
    return str(run.record.get("benchmark") or BENCHMARK)


def benchmark_returns(run: Run) -> pd.Series | None:
    """Returns of the benchmark between the same instants as :func:`daily_returns`, on exactly its dates.

    A missing price is filled with the last one before; a day before the first price has the return 0.
    None when the run has no price of the benchmark.
    """
    name, dates = benchmark_name(run), daily_returns(run).index
    if name is None:
        return None
    hour = run.record["config"]["execution"]["hour_utc"]
    price = run.hourly["benchmark_usd"].set_axis(_instants(run.hourly.index), axis=0)
    returns = tables.benchmark_returns(price, pd.DatetimeIndex(dates).tz_localize("UTC") + hour * HOUR)
    return returns.set_axis(dates, axis=0).rename(name)


def traded_equity(run: Run) -> pd.Series:
    """Hourly equity in USD from the first decision that asks for something on, which the figures count from."""
    asking = run.weights.index[(run.weights.notna() & (run.weights != 0.0)).any(axis=1)]
    equity = run.equity["equity_usd"]
    return equity[asking[0] :] if len(asking) else equity[:0]


def benchmark_held(run: Run) -> pd.Series | None:
    """What the equity would be, USD, hourly, had it all been in the benchmark since the first decision that asks."""
    own = traded_equity(run)
    if benchmark_name(run) is None or own.empty:
        return None
    return tables.benchmark_held(run.hourly["benchmark_usd"], own)


def verdict_of(record: Mapping[str, Any], folder: Path, beside: Sequence[Path] | None = None) -> Judged | None:
    """The verdict of a sweep whose winner is this run: of the sweep that it lies in, or of one beside it.

    `beside` are the verdicts beside the run where they are known: an index asks for each of its runs.
    """
    above = folder.resolve().parent
    if above.name == TOP:
        beside = [above.parent / VERDICT]
    for file in sorted(above.glob(f"*/{VERDICT}")) if beside is None else beside:
        try:
            verdict = json.loads(file.read_text(encoding="utf-8"))
            winner = verdict["details"]["winner"]
            if verdict["digests"]["data"] != record["digests"]["data"] or not _is_set(record, winner):
                continue
            up = "../.." if above.name == TOP else f"../{file.parent.name}"
            says = str(verdict["says"]).partition(". ")[0].rstrip(".") + "."
            return Judged(str(verdict.get("word", "")), bool(verdict["passed"]), says, f"{up}/{PAGE}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # the page of the sweep says what is wrong with its verdict
    return None


def _is_set(record: Mapping[str, Any], winner: Mapping[str, Any]) -> bool:
    """Whether a run is the set that a verdict calls the winner: the same parameters, config keys and numbers."""
    config, origin = record["config"], record["origin"]
    for name, value in winner["parameters"].items():
        section, _, key = name.partition(".")
        own = origin["path"] if name == "oracle" else origin["parameters"].get(name, config.get(section, {}).get(key))
        if own != value:
            return False
    names = ("equity_end_usd", "max_drawdown", "turnover_daily")
    return all(math.isclose(figure(record, name), winner["metrics"][name], rel_tol=1e-9) for name in names)


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


def signed(record: Mapping[str, Any], name: str) -> float:
    """A flow of the whole run from the account's point of view, USD; never minus zero."""
    return SIGNS[name] * figure(record, name) + 0.0


def tiles(run: Run) -> list[Tile]:
    """The figures of the first screen."""
    record, name, benchmark = run.record, benchmark_name(run), benchmark_returns(run)
    alpha, beta = math.nan, math.nan
    if benchmark is not None:
        alpha, beta = metrics.alpha_beta(daily_returns(run).to_numpy(), benchmark.to_numpy())
    to = f" to {name}" if name else ""
    none = "" if name else ": the run has no benchmark"
    rows: tuple[tuple[str, str, Callable[[float], str], str], ...] = (
        ("total_return", "net return", percent, "end equity / start equity - 1, after all costs"),
        ("cagr", "CAGR", percent, "daily returns, a year of 365 days"),
        ("sharpe", "Sharpe", ratio, "mean / standard deviation of daily returns * sqrt(365)"),
        ("volatility", "volatility", percent, "of daily returns, a year of 365 days"),
        ("max_drawdown", "max drawdown", percent, "on hourly marks"),
        ("alpha", f"alpha{to}", percent, f"a year's return that the benchmark does not explain{none}"),
        ("beta", f"beta{to}", ratio, f"covariance of daily returns / variance of the benchmark's{none}"),
        ("factor_alpha", "alpha to factors", percent, "a year's return that the risk model's factors do not explain"),
        ("factor_alpha_t", "t of alpha to factors", ratio, "mean of that daily return over its error (Newey and West)"),
        ("equity_end_usd", "end equity", lambda value: f"{usd(value)} USD", "after the last hour"),
    )
    residual = factor_parts(run).get(RESIDUAL, (math.nan, math.nan))
    own = {"alpha": alpha, "beta": beta, "factor_alpha": residual[0], "factor_alpha_t": residual[1]}
    values = [own[key] if key in own else figure(record, key) for key, *_ in rows]
    return [
        Tile(key, label, write(value), value, hint)
        for (key, label, write, hint), value in zip(rows, values, strict=True)
    ]


def factor_parts(run: Run) -> dict[str, tuple[float, float]]:
    """Mean a year and t of each part of the return, by factor, ``residual`` last; empty where there are none."""
    parts = run.record.get("factor_attribution", {}).get("parts", {})
    # Names in run.json are sorted; the model's order, which charts and colours follow, is that of the columns.
    order = [str(name) for name in (parts if run.factors is None else run.factors)]
    numbers = {name: (parts[name]["mean_year"], parts[name]["t"]) for name in order if name in parts}
    return {
        name: (math.nan if mean is None else float(mean), math.nan if t is None else float(t))
        for name, (mean, t) in numbers.items()
    }


def coin_rows(run: Run) -> list[dict[str, Any]]:
    """Every coin that was traded, the most profitable first: USD by cause, ``net``, and what its round trips were."""
    flows = pd.DataFrame.from_dict(
        run.record.get("coin_attribution", {}), orient="index", columns=list(FLOWS), dtype=float
    )
    rows = (flows.fillna(0.0) * SIGNS).rename(columns=CAUSES) + 0.0
    rows["net"] = rows[list(CAUSES.values())].sum(axis=1)
    if run.trips_summary is not None:
        rows = rows.join(run.trips_summary.loc["coin", ["round_trips", "open", "win_rate", "hours_mean"]])
    rows = rows.rename_axis("coin").reset_index().sort_values(["net", "coin"], ascending=[False, True])
    return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]


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
        "capacity": (folder / CAPACITY).is_file(),
        "name": str(origin["name"]),
        "path": str(origin["path"]),
        "digest": str(origin.get("digest", "")),
        "settings": {
            **{key: plain(value) for key, value in origin["parameters"].items() if value is not None},
            **changed_keys(record),
        },
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


def changed_keys(record: Mapping[str, Any]) -> dict[str, str]:
    """Config keys of a record that differ from the defaults, as text by ``section.key``; not where its data lie."""
    usual = RunConfig().to_dict()
    return {
        f"{section}.{key}": plain(value)
        for section, keys in record["config"].items()
        for key, value in keys.items()
        if f"{section}.{key}" not in PLACES and value != as_json(usual.get(section, {}).get(key))
    }


def _instants(index: pd.Index) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(index).tz_convert("UTC")


def _dates(index: pd.Index) -> pd.DatetimeIndex:
    # QuantStats takes naive dates only; in nanoseconds, because it mixes them with dates of its own.
    return _instants(index).tz_localize(None).normalize().as_unit("ns").rename("date")
