"""``hlbt validate``: the verdict on a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli_options import ConfigOption, JsonOption, SetOption, config_of
from engine.errors import ConfigError, DataError
from engine.terminal import print_json, progress, show_all

if TYPE_CHECKING:
    from rich.table import Table

    from engine.panel import Panel
    from engine.study import Study
    from engine.validate import TrialCount
    from engine.verdict import Verdict

#: Exit code of ``--strict`` for a verdict that does not pass; 1 is an error, a verdict is none.
NOT_PASSED = 2
REPORTS = Path("reports")


def validate_command(
    sweep: Annotated[Path, typer.Argument(metavar="SWEEP", help="Sweep folder, or its name below reports/.")],
    strict: Annotated[
        bool, typer.Option("--strict", help=f"Exit with {NOT_PASSED} unless every check passes.")
    ] = False,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge the best set of a sweep: luck, overfitting, costs, delay, neighbours; writes verdict.json beside it.

    A verdict that does not pass is a result: the exit code is 0 unless --strict. The config is the sweep's own; --set
    may only move data.cache.

    Example: hlbt validate reports/momentum-grid-1a2b3c4d
    """
    from engine.study import load_study
    from engine.validate import validate

    study = load_study(sweep if sweep.exists() else REPORTS / sweep)
    panel = panel_of(study, config, settings)
    with progress() as step:
        verdict = validate(study, panel, trials_of(study), progress=step)
    assert study.folder is not None
    path = verdict.save(study.folder)
    if as_json:
        print_json({"verdict": str(path), **verdict.to_dict()})
    else:
        show_all(
            verdict_table(verdict, bool(study.record.get("synthetic"))),
            *(f"NOTE: {note}" for note in verdict.details["notes"]),
            f"{'PASSED' if verdict.passed else 'NOT PASSED'}. {verdict.says}\nVerdict: {path}",
        )
    if strict and not verdict.passed:
        raise typer.Exit(NOT_PASSED)


def panel_of(study: Study, config: Path | None, settings: list[str] | None) -> Panel:
    """The panel that a study's record names, from its cache or the one given.

    Raises
    ------
    ConfigError
        For any other setting than ``data.cache``: a verdict is of the sweep as it was run.
    DataError
        When the cache cannot give the panel.
    """
    from dataclasses import replace

    from engine.config import Data, RunConfig
    from engine.data.load import load_panel

    given = config_of(config, settings)
    if replace(given, data=replace(given.data, cache=None)) != RunConfig(data=Data()):
        raise ConfigError(
            "A verdict is of the sweep as it was run, so only data.cache can be set here: --set data.cache=DIR. Run "
            "the sweep again to change anything else."
        )
    own = RunConfig.from_dict(study.record["config"])
    return load_panel(given.data.cache or own.data.cache, own.start, own.end, own.data.coins)


def trials_of(study: Study) -> TrialCount | None:
    """Trials of the study's family, if its record counts them: ``trials``, with ``total`` and ``sharpe_sd_daily``."""
    from engine.validate import TrialCount

    counted = study.record.get("trials")
    if counted is None:
        return None
    try:
        return TrialCount(int(counted["total"]), float(counted["sharpe_sd_daily"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"The record of {study.record['name']} counts its trials in an unknown form: {error}."
        ) from error


def verdict_table(verdict: Verdict, synthetic: bool) -> Table:
    """The checks, a row each."""
    from rich.table import Table

    label = "  [SYNTHETIC DATA]" if synthetic else ""
    table = Table(title=f"Verdict on {verdict.study}{label}", title_justify="left")
    for heading in ("check", "value", "asked", ""):
        table.add_column(
            heading, justify="right" if heading in ("value", "asked") else "left", no_wrap=heading != "check"
        )
    for check in verdict.checks:
        outcome = {True: "passed", False: "FAILED", None: "not computed"}[check.passed]
        sign = ">=" if check.rule == "at least" else "<="
        value = "" if check.value is None else f"{check.value:,.3g}" if abs(check.value) < 1e6 else "endless"
        asked = "" if check.threshold is None else f"{sign} {check.threshold:,.3g}"
        table.add_row(check.label, value, asked, outcome, style="bold" if check.passed is False else None)
    return table
