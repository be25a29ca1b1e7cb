"""Run folders: how a result is saved and read; every page of a run is made from one.

``run.json`` (config, digests, versions, metrics, attribution), ``equity.parquet``, ``trades.parquet``,
``weights.parquet``, ``round_trips.parquet``, ``hourly.parquet`` (exposure and the benchmark's price), ``risk.parquet``
where the oracle reports exposures of its own, ``factors.parquet`` where the daily returns can be attributed to factors,
and the pages, ``tearsheet.html`` and ``capacity.html``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.config import RunConfig
from engine.data.benchmark import benchmark_price
from engine.errors import DataError, HlbtError, reason_of
from engine.oracles.base import Oracle, made_by, risk_of, weight_matrix
from engine.oracles.loading import build_oracle, oracle_class, origin_of
from engine.oracles.weights_file import WeightsFile
from engine.panel import Panel
from engine.provenance import Origin, as_json, code_digest, to_json, versions
from engine.run_folders import (
    CAPACITY,
    FACTORS,
    RISK,
    SCHEMA,
    TEARSHEET,
    TRIPS,
    check_replaceable,
    read_record,
    replace_folder,
)
from engine.simulation.backtest import backtest as simulate
from engine.simulation.backtest import check_config, check_panel, decisions_of
from engine.simulation.metrics import ANNUAL
from engine.simulation.result import FLOWS, Result
from engine.simulation.tables import TRIP_FIELDS, trades_summary
from engine.sweeps.study import NOT_COUNTED
from engine.sweeps.trials import WEIGHTS, book_key, count_trial, record_trials

BENCHMARK = "BTC"


@dataclass(frozen=True, eq=False)
class Run:
    """The content of a run folder.

    Attributes
    ----------
    folder : Path
        Its path.
    record : mapping
        ``run.json``.
    equity : DataFrame, (T, 6)
        ``equity_usd`` and the flows of each row in USD, by instant.
    trades : DataFrame, (M, 8)
        See :attr:`engine.Result.trades`.
    weights : DataFrame, (D, N)
        Target weights by decision instant.
    hourly : DataFrame, (T, 2 or 3)
        ``gross_frac``, ``net_frac`` and, where there is a benchmark, ``benchmark_usd``.
    risk : DataFrame, (D, K), or None
        See :attr:`engine.Result.risk`; None where the oracle has none, and in folders of versions before it.
    factors : DataFrame, (D, K + 1), or None
        See :class:`engine.simulation.factor_attribution.FactorAttribution`; None where there is none.
    trips : DataFrame, (K, 14), or None
        See :attr:`engine.Result.round_trips`; None in folders of versions before it.
    """

    folder: Path
    record: Mapping[str, Any]
    equity: pd.DataFrame
    trades: pd.DataFrame
    weights: pd.DataFrame
    hourly: pd.DataFrame
    risk: pd.DataFrame | None = None
    factors: pd.DataFrame | None = None
    trips: pd.DataFrame | None = None

    @cached_property
    def trips_summary(self) -> pd.DataFrame | None:
        """:func:`engine.simulation.tables.trades_summary` of its round trips; None where there are none."""
        return None if self.trips is None or self.trips.empty else trades_summary(self.trips)


def run_oracle(
    panel: Panel, config: RunConfig, oracle: Oracle | type[Oracle] | str, parameters: Mapping[str, Any] | None = None
) -> tuple[Result, Origin]:
    """Compute the weights of an oracle and run the backtest.

    Parameters
    ----------
    panel, config : Panel, RunConfig
        As for :func:`backtest`.
    oracle : Oracle, class, or ``"module:Class"``
        A class, or the one that a path names, is built with `parameters`.
    parameters : mapping, optional
        Constructor arguments.

    Returns
    -------
    result, origin : Result, Origin
    """
    path, given = None, None
    if isinstance(oracle, str):
        path, oracle = oracle, oracle_class(oracle)
    if isinstance(oracle, type):
        given = dict(parameters or {})
        oracle = build_oracle(oracle, given)
    decisions, known = decisions_of(panel, config), panel.point_in_time()
    result = simulate(panel, weight_matrix(oracle, known, decisions), config)
    origin, remarks = origin_of(oracle, path, given)
    notes = (*result.notes, *oracle.notes(known, decisions), *remarks)
    return replace(result, risk=risk_of(oracle, known, result.weights), notes=notes, origin=origin), origin


def run_name(result: Result, origin: Origin) -> str:
    """Name of a run's folder: its oracle or file, its span, and a digest of everything that decides its numbers."""
    return dated_name(origin, result.panel, result.config)


def dated_name(origin: Origin, panel: Panel, config: RunConfig, *settings: object) -> str:
    """``momentum-20241001-20250331-1a2b3c4d``: label, span, and a digest of the arguments and of hlbt's own code."""
    state = json.dumps(
        [asdict(origin), config.digest, panel.digest, code_digest(), *settings], sort_keys=True, default=str
    )
    label = "".join(letter if letter.isalnum() else "-" for letter in origin.name.lower()).strip("-")
    digest = hashlib.sha256(state.encode()).hexdigest()[:8]
    return f"{label}-{panel.index[0]:%Y%m%d}-{panel.index[-1]:%Y%m%d}-{digest}"


def save_run(
    result: Result,
    origin: Origin,
    folder: Path,
    created: str,
    page: Callable[[Run], object] | None = None,
    counted: bool = False,
) -> None:
    """Write a run folder atomically; an existing run there is replaced, its notes and foreign files stay.

    Parameters
    ----------
    result : Result
        The backtest.
    origin : Origin
        Source of its weights.
    folder : Path
        The run folder; missing parents are made.
    created : str
        ISO 8601 instant of the run, from the caller, because this module does not read the clock.
    page : callable, optional
        Called with the run to make a page in its folder. Other pages of the replaced run are kept if it is the same
        run.
    counted : bool
        Whether the ledger of trials has it; a run that is not counted says so on its page.

    Raises
    ------
    DataError
        When the folder holds something else than a run, or it cannot be written.
    """
    result = result if counted else replace(result, notes=(*result.notes, NOT_COUNTED))
    old = check_replaceable(folder)
    folder = folder.resolve()  # a link stays a link to the new run
    run = run_of(result, origin, folder, created)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            _write_tables(run, made)
            (made / "run.json").write_text(to_json(run.record), encoding="utf-8")
            if page is not None:
                page(load_run(made))
            if old is not None and _same(old, run.record):
                for name in (TEARSHEET, CAPACITY):
                    if (folder / name).is_file() and not (made / name).exists():
                        shutil.copy2(folder / name, made / name)
            replace_folder(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"Run {folder} cannot be written: {error.strerror or error}. Nothing has changed. Mend the folder "
            "above it or name another."
        ) from error


def _write_tables(run: Run, folder: Path) -> None:
    """The tables of a run as plain parquet files, instants in a column ``time``."""
    timed = {
        "equity": run.equity,
        "weights": run.weights,
        "hourly": run.hourly,
        "risk": run.risk,
        "factors": run.factors,
    }
    for name, frame in {**timed, "trades": run.trades, "round_trips": run.trips}.items():
        if frame is not None:
            (frame.reset_index() if name in timed else frame).to_parquet(folder / f"{name}.parquet", index=False)


def run_of(result: Result, origin: Origin | None = None, folder: Path | None = None, created: str = "") -> Run:
    """A result as what its run folder would hold; nothing is written.

    Parameters
    ----------
    result : Result
        The backtest.
    origin : Origin, optional
        Source of its weights. Default: the result's; weights of one's own have their digest.
    folder : Path, optional
        The run folder. Default: the name of the run, in the current folder.
    created : str
        ISO 8601 instant.
    """
    origin = origin or origin_or_book(result)
    folder = folder or Path(run_name(result, origin))
    record = _record(result, origin, folder.name, created)
    hourly, benchmark = result.exposure, benchmark_price(result.panel, result.config)
    if benchmark is not None:
        record["benchmark"] = str(benchmark.name)
        hourly = hourly.assign(benchmark_usd=benchmark)
    equity = result.attribution.assign(equity_usd=result.equity)[["equity_usd", *FLOWS]]
    daily = result.factor_attribution().daily
    factors = daily.rename_axis("time") if len(daily) else None
    return Run(folder, record, equity, result.trades, result.weights, hourly, result.risk, factors, result.round_trips)


def origin_or_book(result: Result) -> Origin:
    """The origin of a result, and where no oracle is known that of its weights, by their digest."""
    book = f"{book_key(result.weights, {'data': {}}, result.panel) & (2**64 - 1):016x}"
    return result.origin or Origin("weights", "weights", "weights", {}, book)


def _record(result: Result, origin: Origin, name: str, created: str) -> dict[str, Any]:
    """Content of run.json."""
    return {
        "schema": SCHEMA,
        "name": name,
        "created": created,
        "synthetic": result.panel.synthetic,
        "origin": asdict(origin),
        "config": result.config.to_dict(),
        "span": result.panel.span,
        "decisions_from": result.weights.index[0].isoformat(),
        "digests": {
            "config": result.config.digest,
            "data": result.panel.digest,
            origin.kind: origin.digest,  # oracle or weights
            "code": code_digest(),
        },
        "versions": versions(),
        "metrics": result.metrics,
        "liquidation": result.liquidation,
        "notes": list(result.notes),
        "attribution": {flow: result.metrics[flow] for flow in FLOWS},
        "factor_attribution": result.factor_attribution().record(),
        "coin_attribution": {
            str(coin): {flow: float(value) for flow, value in zip(FLOWS, row, strict=True)}
            for coin, row in zip(result.panel.coins, result.ledger.coin_flows, strict=True)
            if row.any()
        },
    }


def free_folder(folder: Path, result: Result, origin: Origin) -> Path:
    """The folder, or the first of ``folder-2``, ``folder-3``, ... that no run of other numbers has.

    A name says what a run is made of, and still two runs of one name may differ: an oracle that draws at random, or
    that remembers what it was called with.
    """
    new = as_json(_record(result, origin, "", ""))
    free, number = folder, 1
    while (free / "run.json").is_file() and _numbers(check_replaceable(free) or {}) != _numbers(new):
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free


def _numbers(record: Mapping[str, Any]) -> list[Any]:
    """What makes a run another one than that in its folder."""
    rules = {section: keys for section, keys in record.get("config", {}).items() if section != "report"}
    return [rules, *(record.get(name) for name in ("origin", "digests", "metrics", "coin_attribution"))]


def _same(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether two records are of the same run, apart from when it was made."""
    return {**old, "created": None} == {**as_json(new), "created": None}


def load_run(folder: str | Path) -> Run:
    """Read a run folder.

    Raises
    ------
    DataError
        When it is not a run folder, or a file of it is damaged.
    """
    folder = Path(folder)
    if not (folder / "run.json").is_file():
        raise DataError(f"{folder} is no run folder: it has no run.json. `hlbt backtest` makes one below reports/.")
    record = read_record(folder)
    frames = {}
    some = [name for name, file in (("risk", RISK), ("factors", FACTORS)) if (folder / file).is_file()]
    for name in ("equity", "trades", "weights", "hourly", *some):
        frames[name] = _read(folder, name)
        whole = name not in ("equity", "hourly") or len(frames[name]) == record["span"]["hours"]
        if "time" not in frames[name] or not whole or not frames[name]["time"].isin(frames["equity"]["time"]).all():
            raise DataError(
                f"Run {folder} is damaged: {name}.parquet is not of this run ({len(frames[name])} rows of "
                f"{', '.join(frames[name].columns[:3])}, ...). Run the backtest again."
            )
    trips = _read(folder, "round_trips") if (folder / TRIPS).is_file() else None
    if trips is not None and list(trips) != list(TRIP_FIELDS):
        raise DataError(f"Run {folder} is damaged: {TRIPS} has other columns. Run the backtest again.")
    trades = frames.pop("trades")
    indexed = {name: frame.set_index("time") for name, frame in frames.items()}
    return Run(folder, record, trades=trades, trips=trips, **indexed)


def _read(folder: Path, name: str) -> pd.DataFrame:
    try:
        return pd.read_parquet(folder / f"{name}.parquet")
    except (OSError, ValueError) as error:
        raise DataError(
            f"Run {folder} is damaged: {name}.parquet cannot be read ({reason_of(error)}). Run the backtest again."
        ) from error


def run_source(
    panel: Panel, config: RunConfig, oracle_path: str | None, parameters: dict[str, Any], weights: WeightsFile | None
) -> tuple[Result, Origin]:
    """Backtest the weights of an oracle or of a file."""
    benchmark_price(panel, config)  # a benchmark that is not there is refused before the work
    if oracle_path is not None:
        return run_oracle(panel, config, oracle_path, parameters)
    assert weights is not None
    result = simulate(panel, weights.frame, config)
    return replace(result, notes=(*result.notes, *weights.notes)), weights.origin


def backtest(
    panel: Panel, weights: pd.DataFrame | Oracle, config: RunConfig | None = None, *, reports: Path | str | None = None
) -> Result:
    """Run an oracle or a weight matrix over a panel, and count it as a trial.

    Parameters
    ----------
    panel : Panel
        Market data, T hours x N coins, not the as-known copy that oracles get.
    weights : DataFrame, (D, coins), or Oracle
        Index: decision instants, UTC, each a row of the panel. Columns: coins of the panel; one that is absent is 0.
        Values: signed fractions of equity, NaN = hold. Each row is traded ``execution.delay_hours`` later. An oracle is
        called for the decisions of the config's schedule.
    config : RunConfig, optional
        Default: all defaults of the contract.
    reports : path, optional
        Folder of the reports: the run counts in its ledger of trials, for the oracle that the weights are from
        (:func:`engine.weight_matrix` signs them, and what pandas makes of them keeps that). Without it nothing counts.

    Returns
    -------
    Result

    Raises
    ------
    WeightsError
        For weights that break the contract or need more initial margin than the account has, or rows off a schedule
        that the config asks for.
    DataError
        For a panel as known: its funding is an hour late.
    """
    if isinstance(weights, Oracle) or (isinstance(weights, type) and issubclass(weights, Oracle)):
        check_panel(panel, "backtest()")
        result, _ = run_oracle(panel, check_config(config), weights)
    else:
        result = simulate(panel, weights, config)
        if reports is None:
            return result
        families, kind, parameters = made_by(weights)
        if kind is not None:
            with suppress(HlbtError, OSError):  # an oracle inside that no path leads to: its book is counted
                origin, remarks = origin_of(build_oracle(kind, parameters), families[0], parameters)
                result = result if remarks else replace(result, origin=origin)
        if result.origin is None:
            key = np.array([book_key(result.weights, result.config.to_dict(), panel)])
            daily = np.array([result.metrics["sharpe"] / ANNUAL])
            for family in families or [WEIGHTS]:
                record_trials(Path(reports), family, "backtest", key, daily, panel, key)
    if reports is not None and result.origin is not None:
        sharpe = result.metrics["sharpe"]
        count_trial(result.origin, result.config, panel, Path(reports), "backtest", result.weights, sharpe)
    return result


def save_and_count(
    result: Result,
    origin: Origin,
    folder: Path | None,
    reports: Path | None,
    created: str,
    page: Callable[[Run], object] | None = None,
    counted_as: RunConfig | None = None,
) -> Path:
    """Write a run folder and count the run as a trial of its oracle and of the oracles nested in it.

    Parameters
    ----------
    result, origin : Result, Origin
        As in :func:`save_run`.
    folder : Path or None
        The run folder; None = below `reports`, by the name of the run, and with a number behind it where something else
        has that name.
    reports : Path or None
        Folder of all reports, which holds the ledger of trials; None = it counts nowhere, and `folder` is given.
    created, page : str, callable
        As in :func:`save_run`.
    counted_as : RunConfig, optional
        Rules under which it counts, where the run has others only to show more of the same trial. Default: its own.

    Returns
    -------
    Path
        The run folder.
    """
    name = run_name(result, origin)
    if folder is None:
        assert reports is not None
        folder = free_folder(reports / name, result, origin)
    check_replaceable(folder)
    if reports is not None:
        sharpe = result.metrics["sharpe"] if counted_as is None else float("nan")
        count_trial(origin, counted_as or result.config, result.panel, reports, name, result.weights, sharpe)
    save_run(result, origin, folder, created, page, counted=reports is not None)
    return folder


def keep(
    result: Result,
    folder: Path | str | None,
    reports: Path | str | None,
    created: str,
    page: Callable[[Run], object] | None,
) -> Path:
    """:meth:`engine.Result.save`."""
    origin = origin_or_book(result)
    if folder is None:
        return save_and_count(result, origin, None, Path(reports or "reports"), created, page)
    if free_folder(Path(folder), result, origin) != Path(folder):
        raise DataError(f"{folder} holds another run, which is not overwritten. Name another folder, or remove it.")
    return save_and_count(result, origin, Path(folder), None if reports is None else Path(reports), created, page)
