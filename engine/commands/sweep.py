"""``hlbt sweep``: from a grid to a page with a verdict."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.commands.options import REPORTS, ConfigOption, JsonOption, SetOption, parameters_of
from engine.commands.progress import print_json, show_all, sweep_progress
from engine.commands.tables import sweep_table
from engine.commands.validate import TopOption, judge, verdict_parts
from engine.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from engine.sweeps.grid import StudyFile
    from engine.sweeps.study import Study
    from engine.validation.verdict import Verdict

StudyArgument = Annotated[Path | None, typer.Argument(metavar="STUDY.toml", help="What to run; or say it with flags.")]


def sweep_command(
    study: StudyArgument = None,
    oracle: Annotated[
        list[str] | None, typer.Option("--oracle", metavar="PATH:CLASS", help="The oracle; may be repeated.")
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option("--grid", metavar="K=A,B,C", help="Values of a parameter or config key; also K=START:STOP:STEP."),
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", metavar="K=V", help="A parameter all sets share; may be repeated.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="EXPRESSION", help='Keep the sets it is true of: "skip_hours < n".'),
    ] = None,
    sample: Annotated[int | None, typer.Option("--sample", metavar="SETS", help="Draw so many sets at random.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of the draw.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Folder below reports/.")] = None,
    executor: Annotated[str, typer.Option("--executor", help="threads, or ray for a cluster.")] = "threads",
    address: Annotated[str | None, typer.Option("--address", metavar="HOST:PORT", help="Of the Ray cluster.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Tasks at once; default: one a CPU.")] = None,
    returns: Annotated[
        bool | None, typer.Option("--returns/--no-returns", help="Keep daily returns; default up to 100,000 sets.")
    ] = None,
    verdict: Annotated[
        bool, typer.Option("--verdict/--no-verdict", help="Judge the winner and write the page.")
    ] = True,
    top: TopOption = 3,
    reports: Annotated[Path, typer.Option("--reports", metavar="DIR", help="Where sweeps are kept.")] = REPORTS,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run many sets of parameters, resumable, and judge the best of them.

    Ctrl-C keeps what is done; the same command continues. No unchanged set is ever run twice.

    Example: hlbt sweep --oracle research.oracles.momentum:Momentum --grid lookback_hours=24,72,168 --grid n=3,5,10
    """
    from engine.config import RunConfig
    from engine.data.panel_loader import load_panel
    from engine.sweeps.sweep import sweep

    request = _request(study, oracle, grid, param, where, sample, seed, name)
    settled = RunConfig.load(config, settings or (), request.sections)
    where_run = _executor(executor, address, workers)
    panel = load_panel(settled.data.cache, settled.start, settled.end, settled.data.coins)
    with sweep_progress() as step:
        result = sweep(
            panel,
            request.oracles,
            request.grid,
            settled,
            fixed=request.fixed,
            where=request.where,
            sample=request.sample,
            seed=request.seed,
            returns=returns,
            executor=where_run,
            name=request.name,
            reports=reports,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            progress=step,
        )
    judged = judge(result, panel, reports, top) if verdict else None
    _show(result, judged, as_json)


def _request(
    file: Path | None,
    oracle: list[str] | None,
    grid: list[str] | None,
    param: list[str] | None,
    where: list[str] | None,
    sample: int | None,
    seed: int | None,
    name: str | None,
) -> StudyFile:
    """The study file with the flags put over it."""
    from dataclasses import replace

    from engine.sweeps.grid import StudyFile, parse_grid, read_study_file

    request = read_study_file(file) if file is not None else StudyFile()
    if grid and not isinstance(request.grid, dict):
        raise ConfigError("--grid cannot be put over the [[sets]] of the study file. Leave one out.")
    changes: dict[str, Any] = {
        "oracles": tuple(oracle) if oracle else request.oracles,
        "grid": {**request.grid, **parse_grid(grid)} if grid and isinstance(request.grid, dict) else request.grid,
        "fixed": {**request.fixed, **parameters_of(param)},
        "where": (*request.where, *(where or ())),
        "sample": request.sample if sample is None else sample,
        "seed": request.seed if seed is None else seed,
        "name": name or request.name,
    }
    if seed is not None and changes["sample"] is None:
        raise ConfigError("--seed is of the draw: add --sample SETS, or leave it out.")
    if not changes["oracles"]:
        raise ConfigError("Name what to sweep: a STUDY.toml with an oracle, or --oracle PATH:CLASS.")
    if not changes["grid"]:
        raise ConfigError("The grid is empty: give --grid k=a,b,c, or a [grid] in the study file.")
    return replace(request, **changes)


def _executor(name: str, address: str | None, workers: int | None) -> Any:
    from engine.sweeps.executors import EXECUTORS

    if name not in EXECUTORS:
        raise ConfigError(
            f"--executor {name!r} is not accepted: choose one of {', '.join(EXECUTORS)}.{did_you_mean(name, EXECUTORS)}"
        )
    if address is not None and name != "ray":
        raise ConfigError("--address is of a Ray cluster: add --executor ray.")
    return EXECUTORS[name](address, workers)


def _show(study: Study, verdict: Verdict | None, as_json: bool) -> None:
    from engine.sweeps.study import ERROR

    best = study.best() if study.table["sharpe"].notna().any() else None
    if as_json:
        print_json(
            {
                "folder": str(study.folder),
                "sets": study.record["sets"],
                "synthetic": study.record["synthetic"],
                "best": None if best is None else {**study.params(best), "metrics": dict(study.table.iloc[best])},
                "verdict": None if verdict is None else verdict.to_dict(),
            }
        )
        return
    failed = study.table.loc[study.table[ERROR] != "", ERROR]
    parts = [] if verdict is None else verdict_parts(study, verdict)
    if len(failed):
        parts.append(f"{len(failed):,} of {len(study):,} sets failed; the first: {failed.iloc[0]}")
    if study.record["note"]:
        parts.append(f"NOTE: {study.record['note']}")
    show_all(sweep_table(study), *parts, f"Folder: {study.folder}")
