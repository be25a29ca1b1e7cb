"""``hlbt validate``: the verdict on a sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.commands.options import (
    REPORTS,
    ConfigOption,
    JsonOption,
    SetOption,
    cache_alone,
    complete_runs,
    folder_of,
    research_panel,
)
from engine.commands.progress import Progress, print_json, progress, show_all
from engine.commands.runs import refresh_index
from engine.commands.tables import checks_table
from engine.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from engine.panel import Panel
    from engine.sweeps.study import Study
    from engine.validation.verdict import Verdict

#: Colours of the words of a verdict.
WORD_STYLES = {"passed": "green", "refuted": "red", "luck cannot be excluded yet": "yellow", "fragile": "magenta"}
#: Exit code of ``--strict`` for a verdict that does not pass; 1 is an error, a verdict is none.
NOT_PASSED = 2

GatesOption = Annotated[
    Path | None, typer.Option("--gates", metavar="FILE", help="Thresholds; default: the installed research/gates.toml.")
]
TopOption = Annotated[int, typer.Option("--top", min=0, max=50, help="Tearsheets of so many best sets.")]


def validate_command(
    sweep: Annotated[
        Path,
        typer.Argument(metavar="SWEEP", help="Sweep folder, or its name below reports/.", autocompletion=complete_runs),
    ],
    strict: Annotated[
        bool, typer.Option("--strict", help=f"Exit with {NOT_PASSED} unless every check passes.")
    ] = False,
    top: TopOption = 3,
    gates: GatesOption = None,
    search_nulls: Annotated[
        int,
        typer.Option(
            "--search-nulls",
            min=0,
            metavar="N",
            help="Run the sweep again N times over exchanged coins; 200 are usual.",
        ),
    ] = 0,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge the best set of a sweep: luck, overfitting, costs, delay, neighbours; writes verdict.json and the page.

    A verdict that does not pass is a result: the exit code is 0 unless --strict. The config is the sweep's own; --set
    may only move data.cache.

    Example: hlbt validate reports/momentum-grid-1a2b3c4d
    """
    from engine.sweeps.study import VERDICT, load_study
    from engine.validation.thresholds import GateFile

    thresholds = GateFile.read(gates).verdict
    folder = folder_of(sweep)
    study = load_study(folder)
    panel = panel_of(study, config, settings)
    verdict = judge(study, panel, folder.parent, top, thresholds, search_nulls)
    refresh_index(folder.parent)
    if as_json:
        print_json({"verdict": str(folder / VERDICT), **verdict.to_dict()})
    else:
        show_all(*verdict_parts(study, verdict))
    if strict and not verdict.passed:
        raise typer.Exit(NOT_PASSED)


def judge(
    study: Study,
    panel: Panel,
    reports: Path,
    top: int,
    thresholds: Mapping[str, float] | None = None,
    search_nulls: int = 0,
) -> Verdict:
    """:func:`judged`, with a progress bar."""
    with progress() as step:
        return judged(study, panel, reports, top, step, thresholds=thresholds, search_nulls=search_nulls)


def judged(
    study: Study,
    panel: Panel,
    reports: Path,
    top: int,
    step: Progress = lambda _done, _total, _what: None,
    make: Callable[[Path], object] | None = None,
    thresholds: Mapping[str, float] | None = None,
    search_nulls: int = 0,
) -> Verdict:
    """Verdict of a sweep by all trials below `reports`, tearsheets of its best sets, and its page.

    With `make` the runs of the best sets are kept without their pages, and it is given their folders.
    """
    from engine.reporting.sweep_page import write_sweep_page
    from engine.sweeps.trials import count_trials, families_of
    from engine.validation.validate import validate

    assert study.folder is not None
    trials = count_trials(reports, families_of(study.record), study.record.get("ledger"))
    known = trials if trials.total or trials.broken else None
    verdict = validate(study, panel, known, thresholds, 0, step, search_nulls)
    verdict.save(study.folder)
    tearsheets = _tearsheets(study, panel, top, step, make)
    write_sweep_page(study, verdict.to_dict(), tearsheets, step)
    return verdict


def _tearsheets(
    study: Study, panel: Panel, top: int, step: Progress, make: Callable[[Path], object] | None
) -> dict[int, str]:
    """Run folders with tearsheets of the best sets, ``top/<run>`` in the sweep's folder; their links by row."""
    from engine.reporting.tearsheet import write_tearsheet
    from engine.runs import run_name, run_oracle, save_run
    from engine.sweeps.results import TOP

    assert study.folder is not None
    sharpe = study.table["sharpe"].to_numpy()
    ranked = [int(row) for row in study.ranking() if sharpe[row] == sharpe[row]]
    links: dict[int, str] = {}
    for number, row in enumerate(ranked[:top]):
        step(number, top, "tearsheets of the best sets")
        parameter_set = study.parameter_set(row)
        result, origin = run_oracle(panel, parameter_set.config, parameter_set.oracle, parameter_set.parameters)
        folder = study.folder / TOP / run_name(result, origin)
        save_run(result, origin, folder, study.record["created"], None if make else write_tearsheet, counted=True)
        if make:
            make(folder)
        links[row] = f"{TOP}/{folder.name}/tearsheet.html"
    return links


def panel_of(study: Study, config: Path | None, settings: list[str] | None) -> Panel:
    """The panel that a study's record names, from its cache or the one given.

    Raises
    ------
    ConfigError
        For any other setting than ``data.cache``: a verdict is of the sweep as it was run.
    DataError
        When the cache cannot give the panel.
    """
    from engine.config import RunConfig

    refusal = ConfigError(
        "A verdict is of the sweep as it was run, so only data.cache can be set here: --set data.cache=DIR. Run "
        "the sweep again to change anything else."
    )
    own, cache = RunConfig.from_dict(study.record["config"]), cache_alone(config, settings, refusal)
    return research_panel(own, REPORTS if study.folder is None else study.folder.parent, cache)


def verdict_parts(study: Study, verdict: Verdict) -> list[RenderableType]:
    """What is shown of a verdict: its word, the questions with their answers, what it could have seen."""
    from rich.text import Text

    from engine.sweeps.study import PAGE

    assert study.folder is not None
    word = verdict.word
    title = f"Verdict on {verdict.study}{'  [SYNTHETIC DATA]' if study.record['synthetic'] else ''}"
    return [
        Text.assemble((word.upper(), f"bold {WORD_STYLES[word]}"), f": {verdict.summary}"),
        checks_table(verdict.checks, title, ("meaning", "value", "required", "outcome")),
        *verdict.remarks,
        *(f"NOTE: {note}" for note in verdict.details["notes"]),
        f"Page: {study.folder / PAGE}",
    ]
