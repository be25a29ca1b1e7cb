"""``hlbt backtest``, ``capacity``, ``report`` and ``index``: runs and their pages."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.commands.options import (
    REPORTS,
    ConfigOption,
    JsonOption,
    OracleOption,
    ParamOption,
    SetOption,
    clock,
    complete_runs,
    config_of,
    folder_of,
)
from engine.commands.progress import print_json, progress, show_all, waiting
from engine.commands.runs import refresh_index
from engine.commands.source import source_of
from engine.commands.tables import capacity_table, result_tables
from engine.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd

    from engine.commands.tearsheet_pool import TearsheetPool
    from engine.config import RunConfig
    from engine.provenance import Origin
    from engine.runs import Run
    from engine.simulation.result import Result


WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FILE", help="CSV or parquet: time, then a column per coin."),
]
AnyHourOption = Annotated[
    bool, typer.Option("--any-hour", help="Trade rows of the file off execution.hour_utc at the hour of their stamp.")
]


def backtest_command(
    oracle: OracleOption = None,
    param: ParamOption = None,
    weights: WeightsOption = None,
    any_hour: AnyHourOption = False,
    like: Annotated[
        Path | None,
        typer.Option(
            "--like",
            metavar="RUN",
            help="What a run, or the best set of a sweep, ran.",
            autocompletion=complete_runs,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Run folder; default reports/<run>.")] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write the tearsheet.")] = True,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run one oracle, one file of weights, or a run again with changes, over the cache.

    --like takes oracle or weights, dates, costs and all settings of a run; it counts as no trial, unless parameters,
    execution, coins or the first day are changed.

    Example: hlbt backtest --oracle research.oracles.momentum:Momentum --param lookback_hours=168 --set
    data.start=2024-10-01
    """
    from engine.commands.tearsheet_pool import TearsheetPool

    with TearsheetPool(whole=False) if report else nullcontext() as pool:  # its libraries load while the run is made
        source = source_of(oracle, param, weights, like, config, settings, "--like RUN", any_hour)
        if out is not None:
            from engine.run_folders import check_replaceable

            check_replaceable(out)  # before the work, not after
            if weights is not None and out.resolve() in weights.resolve().parents:
                raise DataError(f"{weights} lies in the folder that --out would replace. Name another folder.")
        result, origin = source.run(source.panel(), source.config)
        sheet = None if pool is None else _TwoSteps(pool)
        folder = write_run(result, origin, out, sheet, counted_as=source.counted_as)
        if not as_json:
            show_all(
                *result_tables(result, origin),
                *(f"Note: {note}" for note in result.notes),
                f"Run folder: {folder}\n"
                + (f"Tearsheet:  {folder / 'tearsheet.html'}" if report else f"No page yet: hlbt report {folder}"),
            )
        if sheet is not None:
            sheet.complete(folder)
    if as_json:
        print_json({"folder": str(folder), **read_json(folder / "run.json")})


class _TwoSteps:
    """A tearsheet that can be read before QuantStats' part, which other processes make meanwhile, is in it."""

    def __init__(self, pool: TearsheetPool) -> None:
        self._pool = pool

    def __call__(self, run: Run) -> None:
        """Write the page of a run without QuantStats' part."""
        from engine.reporting.quantstats_part import Part
        from engine.reporting.tearsheet import TearsheetPage

        self._page = TearsheetPage(run)
        self._page.write(run.folder, Part(pending=True) if self._page.inputs else None)

    def complete(self, folder: Path) -> None:
        """Write it again, with that part, to the folder where the run lies by now."""
        if self._page.inputs:
            with waiting("QuantStats' part of the tearsheet ..."):
                part = self._pool.quantstats(self._page.inputs)
                self._page.write(folder, part())


def capacity_command(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="A run or sweep, with its dates and costs.", autocompletion=complete_runs),
    ] = None,
    oracle: OracleOption = None,
    param: ParamOption = None,
    weights: WeightsOption = None,
    any_hour: AnyHourOption = False,
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

    Here costs.impact is "venue" unless --set says otherwise. Of a run or the best set of a sweep it counts as no trial.

    Example: hlbt capacity --oracle research.oracles.momentum:Momentum --sizes 1e4,1e5,1e6,1e7
    """
    from engine.reporting.capacity_page import conclusions
    from engine.reporting.html import check_page
    from engine.run_folders import CAPACITY, RUN
    from engine.simulation.capacity import capacity, limits

    accounts = _sizes(sizes)
    counted = source_of(oracle, param, weights, run, config, settings, any_hour=any_hour)
    venue = ["costs.impact=venue", *(settings or ())]
    source = source_of(oracle, param, weights, run, config, venue, any_hour=any_hour)
    settled, asked = source.config, source.counted_as or counted.config
    if out is None and source.folder is not None and (source.folder / RUN).is_file() and source.counted_as:
        out = source.folder / CAPACITY
    if out is not None:
        check_page(out, "capacity")
    with progress() as step:
        step(0, len(accounts) + 2, "loading the panel")
        panel = source.panel()
        step(1, len(accounts) + 2, "weights")
        result, origin = source.run(panel, settled)
        table = capacity(
            panel, result.weights, settled, accounts, lambda done: step(done + 2, len(accounts) + 2, "sizes")
        )
    page = _capacity_page(table, result, origin, asked, out)
    reached = limits(table)
    if as_json:
        rows = table.to_dict("records")
        print_json({"page": str(page), "synthetic": panel.synthetic, "limits": asdict(reached), "sizes": rows})
        return
    lines = [f"{name}: {value}" for name, value in conclusions(table, reached)]
    lines += [f"Note: {note}" for note in (*result.notes, *table["refused"].dropna()[:1])]
    headline, *rest = lines
    show_all(headline, capacity_table(table, origin.name, panel.synthetic), *rest, f"Page: {page}")


def _capacity_page(
    table: pd.DataFrame, result: Result, origin: Origin, counted_as: RunConfig, out: Path | None
) -> Path:
    """Write the page of a capacity, in a run of its own where no file is named, and count the trial."""
    from engine.reporting.capacity_page import write_capacity
    from engine.run_folders import CAPACITY
    from engine.sweeps.trials import count_trial

    panel = result.panel
    write = partial(write_capacity, table=table, panel=panel, config=result.config, origin=origin)
    if out is None:
        folder = write_run(result, origin, None, lambda run: write(run.folder / CAPACITY), counted_as=counted_as)
        return folder / CAPACITY
    count_trial(origin, counted_as, panel, REPORTS, str(out), result.weights)
    page = write(out)
    refresh_index(REPORTS)
    return page


def report_command(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Run folder, or its name below reports/.", autocompletion=complete_runs),
    ],
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the tearsheet of a run again.

    Example: hlbt report reports/momentum-20241001-20250331-1a2b3c4d
    """
    from engine.reporting.tearsheet import write_tearsheet
    from engine.runs import load_run

    config_of(config, settings)  # refuses what is wrong in it
    folder = folder_of(run)
    page = write_tearsheet(load_run(folder))
    refresh_index(folder.parent)
    print_json({"tearsheet": str(page)}) if as_json else show_all(f"Tearsheet: {page}")


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

    config_of(config, settings)  # refuses what is wrong in it
    page = write_index(reports)
    print_json({"index": str(page)}) if as_json else show_all(f"Index: {page}")


def _sizes(text: str | None) -> tuple[float, ...]:
    from engine.config_values import split_list
    from engine.simulation.capacity import SIZES, check_sizes

    if text is None:
        return SIZES
    try:
        sizes = tuple(float(part) for part in split_list(text))
    except ValueError:
        raise ConfigError(f"--sizes {text!r} is not a list of USD, for example --sizes 1e4,1e5,1e6.") from None
    check_sizes(sizes)
    return sizes


def write_run(
    result: Result,
    origin: Origin,
    out: Path | None,
    page: Callable[[Run], object] | None,
    reports: Path = REPORTS,
    counted_as: RunConfig | None = None,
) -> Path:
    """Save a run, with what `page` makes of it, and count it as a trial; returns the run folder."""
    from engine.runs import save_and_count

    created = clock().isoformat(timespec="seconds")
    folder = save_and_count(result, origin, out, reports, created, page, counted_as)
    refresh_index(reports)
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    import json

    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
