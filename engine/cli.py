"""The ``hlbt`` command. Heavy parts are imported inside the commands that need them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.commands.data import data_app
from engine.commands.doctor import doctor_command
from engine.commands.live import live_app
from engine.commands.options import (
    REPORTS,
    ConfigOption,
    JsonOption,
    ParamOption,
    SetOption,
    cache_of,
    config_of,
    folder_of,
    parameters_of,
)
from engine.commands.oracle import oracle_app
from engine.commands.promote import promote_command
from engine.commands.sweep import sweep_command
from engine.commands.terminal import capacity_table, demo_table, print_json, progress, result_tables, show_all
from engine.commands.validate import validate_command
from engine.errors import ConfigError, DataError, HlbtError, OracleError

if TYPE_CHECKING:
    from engine.config import RunConfig
    from engine.panel import Panel
    from engine.runs import Origin, Run
    from engine.simulation.result import Result

#: Exit code of a command that Ctrl-C ended, as shells have it.
INTERRUPTED = 130
DEMO_ORACLES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("research.oracles.momentum:Momentum", {"lookback_hours": 336, "n": 5}),
    ("research.oracles.carry:Carry", {"lookback_hours": 168, "n": 5}),
    ("research.oracles.equal_weight:EqualWeight", {}),
)
DEMO_SWEEP: dict[str, list[Any]] = {"lookback_hours": [72, 168, 336, 504, 720], "n": [3, 5, 8, 12]}

OracleOption = Annotated[
    str | None, typer.Option("--oracle", metavar="PATH:CLASS", help="For example research.oracles.momentum:Momentum.")
]
WeightsOption = Annotated[
    Path | None, typer.Option("--weights", metavar="FILE", help="CSV or parquet: a column time, then one a coin.")
]

app = typer.Typer(
    name="hlbt",
    help="Research backtester for systematic portfolios of HyperLiquid perpetuals.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")
app.command("sweep")(sweep_command)
app.command("validate")(validate_command)
app.command("promote")(promote_command)
app.add_typer(oracle_app, name="oracle")
app.add_typer(live_app, name="live")
app.command("doctor")(doctor_command)


def main() -> None:
    """Run the command line: a user's mistake is one paragraph and a non-zero exit, never a traceback."""
    # No command opens a window; without this a desktop's backend would be loaded for nothing.
    os.environ.setdefault("MPLBACKEND", "agg")
    try:
        app(prog_name="hlbt")
    except HlbtError as error:
        if os.environ.get("HLBT_TRACEBACK"):
            raise
        # One paragraph, whatever an exception of someone else that it quotes was made of.
        sys.stderr.write(f"hlbt: {' '.join(str(error).split())}\n")
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as leaving:
        # typer turns Ctrl-C into this exit code and says nothing.
        if isinstance(leaving, SystemExit) and leaving.code != INTERRUPTED:
            raise
        sys.stderr.write("hlbt: interrupted. What was finished is kept; run the command again to go on.\n")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


# ------------------------------------------------------------------------------------------------------------ backtest


@app.command("backtest")
def backtest_command(
    oracle: OracleOption = None,
    param: ParamOption = None,
    weights: WeightsOption = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Run folder; default reports/<run>.")] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write the tearsheet.")] = True,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run one oracle, or one file of weights, over the cache.

    Example: hlbt backtest --oracle research.oracles.momentum:Momentum --param lookback_hours=168 --set
    data.start=2024-10-01
    """
    from engine.data.panel_loader import load_panel
    from engine.runs import check_replaceable

    _check_source(oracle, param, weights)
    settled = config_of(config, settings)
    if out is not None:
        check_replaceable(out)  # before the work, not after
        if weights is not None and out.resolve() in weights.resolve().parents:
            raise DataError(f"{weights} lies in the folder that --out would replace. Name another folder.")
    panel = load_panel(settled.data.cache, settled.start, settled.end, settled.data.coins)
    result, origin = _run(panel, settled, oracle, parameters_of(param), weights)
    folder = _write(result, origin, out, report)
    if as_json:
        print_json({"folder": str(folder), **_read_json(folder / "run.json")})
    else:
        show_all(
            *result_tables(result, origin),
            *(f"Note: {note}" for note in result.notes),
            f"Run folder: {folder}\n"
            + (f"Tearsheet:  {folder / 'tearsheet.html'}" if report else f"No page yet: hlbt report {folder}"),
        )


@app.command("capacity")
def capacity_command(
    oracle: OracleOption = None,
    param: ParamOption = None,
    weights: WeightsOption = None,
    sizes: Annotated[
        str | None, typer.Option("--sizes", metavar="USD,USD,...", help="Default: 13 from 10,000 to 100,000,000.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The page; default reports/<run>/capacity.html.")
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the same weights on accounts of growing size: net Sharpe and costs against size.

    Here costs.impact is "venue" unless --set says otherwise.

    Example: hlbt capacity --oracle research.oracles.momentum:Momentum --sizes 1e4,1e5,1e6,1e7
    """
    from engine.data.panel_loader import load_panel
    from engine.reporting.capacity_page import conclusions, write_capacity
    from engine.reporting.html import check_page
    from engine.runs import CAPACITY
    from engine.simulation.capacity import capacity, limits

    _check_source(oracle, param, weights)
    accounts = _sizes(sizes)
    settled = config_of(config, ["costs.impact=venue", *(settings or ())])
    if out is not None:
        check_page(out, "capacity")
    with progress() as step:
        step(0, len(accounts) + 2, "loading the panel")
        panel = load_panel(settled.data.cache, settled.start, settled.end, settled.data.coins)
        step(1, len(accounts) + 2, "weights")
        result, origin = _run(panel, settled, oracle, parameters_of(param), weights)
        table = capacity(
            panel,
            result.weights,
            settled,
            accounts,
            lambda done: step(done + 2, len(accounts) + 2, "sizes"),
        )
    if out is not None:
        page = write_capacity(out, table, panel, settled, origin)
    else:
        folder = _save(
            result, origin, None, lambda run: write_capacity(run.folder / CAPACITY, table, panel, settled, origin)
        )
        page = folder / CAPACITY
    found = limits(table)
    if as_json:
        rows = table.to_dict("records")
        print_json({"page": str(page), "synthetic": panel.synthetic, "limits": asdict(found), "sizes": rows})
        return
    said = [*conclusions(table, found), *(("Note", note) for note in result.notes)]
    words = "\n".join(f"{name}: {value}" for name, value in said)
    show_all(capacity_table(table, origin.name, panel.synthetic), f"{words}\nPage: {page}")


@app.command("report")
def report_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, or its name below reports/.")],
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the tearsheet of a run again.

    Example: hlbt report reports/momentum-20241001-20250331-1a2b3c4d
    """
    from engine.reporting.tearsheet import write_tearsheet
    from engine.runs import load_run

    config_of(config, settings)
    page = write_tearsheet(load_run(folder_of(run)))
    print_json({"tearsheet": str(page)}) if as_json else show_all(f"Tearsheet: {page}")


@app.command("index")
def index_command(
    reports: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of run folders.")] = REPORTS,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write reports/index.html, a sortable page of all runs.

    Example: hlbt index
    """
    from engine.reporting.index_page import write_index

    config_of(config, settings)
    page = write_index(reports)
    print_json({"index": str(page)}) if as_json else show_all(f"Index: {page}")


@app.command("demo")
def demo_command(
    reports: Annotated[Path, typer.Option("--reports", metavar="DIR", help="Where the run folders go.")] = REPORTS,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the main job on the built-in SYNTHETIC sample: three oracles, a tearsheet each, a sweep and its verdict.

    Example: hlbt demo
    """
    from datetime import UTC, datetime

    from engine.commands.sheets import Sheets
    from engine.commands.validate import judged
    from engine.data.cache import Store
    from engine.data.panel_loader import load_panel
    from engine.data.sample import write_sample
    from engine.reporting.index_page import write_index
    from engine.sweeps.sweep import sweep

    settled = config_of(config, settings)
    cache = Path(settled.data.cache) if settled.data.cache else cache_of(settled) / "sample"
    made = []

    def first(sheet: Path) -> None:
        if not as_json:
            show_all(f"First page: {sheet} (the others, a sweep and its verdict follow)")

    with progress() as step, Sheets(first) as sheets:
        steps = 5 + len(DEMO_ORACLES)
        step(0, steps, "building the synthetic sample")
        write_sample(Store(cache))
        step(1, steps, "loading the panel")
        panel = load_panel(cache, settled.start, settled.end, settled.data.coins)
        for number, (path, parameters) in enumerate(DEMO_ORACLES):
            step(2 + number, steps, f"backtest of {path.rpartition(':')[2]}")
            result, origin = _run(panel, settled, path, parameters, None)
            made.append((result, origin, _write(result, origin, None, False, reports)))
            sheets.make(made[-1][2])
        step(steps - 3, steps, "sweep of momentum")
        created = datetime.now(UTC).isoformat(timespec="seconds")
        path, _ = DEMO_ORACLES[0]
        study = sweep(panel, path, DEMO_SWEEP, settled, name="demo-sweep", reports=reports, created=created)
        step(steps - 2, steps, "verdict and page of the sweep")
        verdict = judged(study, panel, reports, 1, make=sheets.make)
        step(steps - 1, steps, "tearsheets")
        sheets.wait()
        page = write_index(reports)
        step(steps, steps, "done")
    assert study.folder is not None
    if as_json:
        print_json(
            {
                "synthetic": True,
                "index": str(page),
                "runs": [_read_json(folder / "run.json") for _, _, folder in made],
                "sweep": str(study.folder),
                "verdict": verdict.to_dict(),
            }
        )
        return
    # As it was called, for `make demo` leaves hlbt in .venv/bin and not on the PATH.
    command = "hlbt" if shutil.which("hlbt") else os.path.relpath(sys.argv[0])
    show_all(
        demo_table(made),
        f"Sweep of {len(study)} sets of momentum: {'passed' if verdict.passed else 'not passed'}. {verdict.says}\n",
        f"SYNTHETIC DATA: made-up prices with a small built-in effect; nothing here says anything about a market.\n\n"
        f"Open     {page}\n"
        f"         {made[0][2] / 'tearsheet.html'}\n"
        f"         {study.folder / 'index.html'}\n"
        f"Next     {command} backtest --oracle research.oracles.momentum:Momentum --set data.cache={cache}\n"
        f"         {command} data sync --source api     (real history from HyperLiquid, no account needed)\n"
        f"         {command} data import freqtrade DIR  (real candles and funding from freqtrade's files)\n"
        f"         {command} backtest --weights FILE    (your own: a column time, then one a coin)\n"
        "Read     README.md for your own oracle, ARCHITECTURE.md for the rules of an instant",
    )


# ------------------------------------------------------------------------------------------------------------- helpers


def _check_source(oracle: str | None, param: list[str] | None, weights: Path | None) -> None:
    if (oracle is None) == (weights is None):
        raise OracleError("Name what to run: either --oracle PATH:CLASS or --weights FILE.")
    if weights is not None and param:
        raise OracleError(f"--param {param[0]} is for an oracle; a weights file has no parameters.")


def _sizes(text: str | None) -> tuple[float, ...]:
    from engine.simulation.capacity import SIZES, check_sizes

    if text is None:
        return SIZES
    try:
        sizes = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--sizes {text!r} is not a list of USD, for example --sizes 1e4,1e5,1e6.") from None
    check_sizes(sizes)
    return sizes


def _run(
    panel: Panel, config: RunConfig, oracle_path: str | None, parameters: dict[str, Any], weights_file: Path | None
) -> tuple[Result, Origin]:
    """Weights from an oracle or a file, then the backtest."""
    from engine.provenance import files_digest
    from engine.runs import Origin, run_oracle
    from engine.simulation.backtest import backtest
    from engine.weights import read_weights

    if oracle_path is not None:
        return run_oracle(panel, config, oracle_path, parameters)
    assert weights_file is not None
    matrix = read_weights(weights_file)
    origin = Origin(weights_file.stem, "weights", weights_file.name, {}, files_digest([weights_file]))
    return backtest(panel, matrix, config), origin


def _write(result: Result, origin: Origin, out: Path | None, report: bool, reports: Path = REPORTS) -> Path:
    page = None
    if report:
        from engine.reporting.tearsheet import write_tearsheet

        page = write_tearsheet
    return _save(result, origin, out, page, reports)


def _save(
    result: Result, origin: Origin, out: Path | None, page: Callable[[Run], object] | None, reports: Path = REPORTS
) -> Path:
    """Keep a run and count it as a trial of its oracle."""
    from datetime import UTC, datetime

    import numpy as np

    from engine.clock import DAYS_PER_YEAR
    from engine.oracles.loading import oracle_class
    from engine.runs import run_name, save_run
    from engine.sweeps.trials import inner_paths, record_trials, trial_key

    name = run_name(result, origin)
    folder = out if out is not None else reports / name
    save_run(result, origin, folder, datetime.now(UTC).isoformat(timespec="seconds"), page)
    if origin.kind == "oracle":
        key = trial_key(origin.path, origin.code, origin.parameters, result.config.to_dict())
        sharpe = result.metrics["sharpe"] / DAYS_PER_YEAR**0.5
        for family in [origin.path, *inner_paths(oracle_class(origin.path), origin.parameters)]:
            record_trials(reports, family, name, np.array([key]), np.array([sharpe]))
    return folder


def _read_json(path: Path) -> dict[str, Any]:
    import json

    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return read
