"""``hlbt sweep``: run a grid of parameter sets, judge the best of them and write the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.commands.options import (
    REPORTS,
    ConfigOption,
    JsonOption,
    SetOption,
    clock,
    complete_grid,
    complete_oracles,
    complete_parameters,
    config_of,
    parameters_of,
    research_panel,
)
from engine.commands.progress import print_json, show_all, sweep_progress
from engine.commands.runs import refresh_index
from engine.commands.tables import sweep_table
from engine.commands.validate import TopOption, judge, verdict_parts
from engine.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from engine.sweeps.grid import StudyFile
    from engine.sweeps.study import Study
    from engine.validation.verdict import Verdict

SAMPLERS = ("random", "optuna")
StudyArgument = Annotated[Path | None, typer.Argument(metavar="STUDY.toml", help="A study file; or use the options.")]
OraclesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--oracle", metavar="PATH:CLASS", help="The oracle; may be repeated.", autocompletion=complete_oracles
    ),
]
GridOption = Annotated[
    list[str] | None,
    typer.Option(
        "--grid",
        metavar="K=A,B,C",
        help="Values of a parameter or config key; also K=START:STOP:STEP.",
        autocompletion=complete_grid,
    ),
]
FixedOption = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        metavar="K=V",
        help="A parameter that all sets share; may be repeated.",
        autocompletion=complete_parameters,
    ),
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="EXPRESSION", help='Only sets for which it is true: "skip_hours < n".'),
]
ReturnsOption = Annotated[
    bool | None, typer.Option("--returns/--no-returns", help="Keep daily returns; default up to 100,000 sets.")
]


def sweep_command(
    study: StudyArgument = None,
    oracle: OraclesOption = None,
    grid: GridOption = None,
    param: FixedOption = None,
    where: WhereOption = None,
    sample: Annotated[int | None, typer.Option("--sample", metavar="SETS", help="Draw this many at random.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the draw.")] = None,
    sampler: Annotated[
        str, typer.Option("--sampler", help="random, or optuna, which learns from the sets that were run.")
    ] = "random",
    name: Annotated[str | None, typer.Option("--name", help="Folder below reports/.")] = None,
    executor: Annotated[str, typer.Option("--executor", help="threads, or ray for a cluster.")] = "threads",
    address: Annotated[str | None, typer.Option("--address", metavar="HOST:PORT", help="The Ray cluster.")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Parallel tasks; default one per CPU.")
    ] = None,
    returns: ReturnsOption = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", metavar="URI", help="Workers write their results there: a folder, s3:// or gs://."),
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

    Ctrl-C keeps what is finished; the same command continues. No unchanged set is ever run twice.

    Example: hlbt sweep --oracle research.oracles.momentum:Momentum --grid lookback_hours=24,72,168 --grid n=3,5,10
    """
    plan = _study(study, oracle, grid, param, where, sample, seed, name)
    settled = config_of(config, settings, plan.sections)
    pool = _executor(executor, address, workers)
    run = _sampler(sampler, plan)
    panel = research_panel(settled, reports)
    with sweep_progress() as step:
        result = run(
            panel=panel,
            oracle=plan.oracles,
            grid=plan.grid,
            config=settled,
            fixed=plan.fixed,
            where=plan.where,
            sample=plan.sample,
            seed=plan.seed,
            returns=returns,
            executor=pool,
            name=plan.name,
            reports=reports,
            dataset=dataset,
            created=clock().isoformat(timespec="seconds"),
            progress=step,
        )
    judged = judge(result, panel, reports, top) if verdict else None
    refresh_index(reports)
    _show(result, judged, as_json)


def _study(
    file: Path | None,
    oracle: list[str] | None,
    grid: list[str] | None,
    param: list[str] | None,
    where: list[str] | None,
    sample: int | None,
    seed: int | None,
    name: str | None,
) -> StudyFile:
    """The study file, if any, with the options of the command line over it."""
    from dataclasses import replace

    from engine.sweeps.grid import StudyFile, parse_grid, read_study_file

    study = read_study_file(file) if file is not None else StudyFile()
    if grid and not isinstance(study.grid, dict):
        raise ConfigError("--grid cannot be combined with the [[sets]] of the study file. Leave one out.")
    changes: dict[str, Any] = {
        "oracles": tuple(oracle) if oracle else study.oracles,
        "grid": {**study.grid, **parse_grid(grid)} if grid and isinstance(study.grid, dict) else study.grid,
        "fixed": {**study.fixed, **parameters_of(param)},
        "where": (*study.where, *(where or ())),
        "sample": study.sample if sample is None else sample,
        "seed": study.seed if seed is None else seed,
        "name": name or study.name,
    }
    if seed is not None and changes["sample"] is None:
        raise ConfigError("--seed needs a random draw: add --sample SETS, or leave it out.")
    if not changes["oracles"]:
        raise ConfigError("Name what to sweep: a STUDY.toml with an oracle, or --oracle PATH:CLASS.")
    if not changes["grid"]:
        raise ConfigError("The grid is empty: give --grid k=a,b,c, or a [grid] in the study file.")
    return replace(study, **changes)


def _sampler(name: str, plan: StudyFile) -> Callable[..., Study]:
    from engine.sweeps.sampling import sweep_by_optuna
    from engine.sweeps.sweep import sweep

    if name not in SAMPLERS:
        raise ConfigError(
            f"--sampler {name!r} is not accepted: choose one of {', '.join(SAMPLERS)}.{did_you_mean(name, SAMPLERS)}"
        )
    if name == "optuna" and plan.sample is None:
        raise ConfigError("--sampler optuna needs the number of sets to run: add --sample SETS.")
    if name == "optuna" and len(plan.oracles) > 1:
        raise ConfigError("--sampler optuna searches the parameters of one oracle; several are named. Leave one.")
    return sweep_by_optuna if name == "optuna" else sweep


def _executor(name: str, address: str | None, workers: int | None) -> Any:
    from engine.sweeps.executors import EXECUTORS

    if name not in EXECUTORS:
        raise ConfigError(
            f"--executor {name!r} is not accepted: choose one of {', '.join(EXECUTORS)}.{did_you_mean(name, EXECUTORS)}"
        )
    if address is not None and name != "ray":
        raise ConfigError("--address is for a Ray cluster: add --executor ray, or leave it out.")
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
                "notes": study.record["notes"],
                "best": None if best is None else {**study.params(best), "metrics": dict(study.table.iloc[best])},
                "verdict": None if verdict is None else verdict.to_dict(),
            }
        )
        return
    failed = study.table.loc[study.table[ERROR] != "", ERROR]
    parts = [] if verdict is None else verdict_parts(study, verdict)
    if len(failed):
        parts.append(f"{len(failed):,} of {len(study):,} sets failed; the first: {failed.iloc[0]}")
    if verdict is None:
        parts += [f"NOTE: {note}" for note in study.record["notes"]]
    if study.record["note"]:
        parts.append(f"NOTE: {study.record['note']}")
    show_all(sweep_table(study), *parts, f"Folder: {study.folder}")
