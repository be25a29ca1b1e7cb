"""``hlbt oracle``: the look-ahead audit of an oracle and the analysis of its signal."""

from __future__ import annotations

from collections.abc import Mapping
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
    complete_oracles,
    complete_runs,
    config_of,
    parameters_of,
    reports_folder,
    research_panel,
)
from engine.commands.progress import print_json, progress, show_all
from engine.commands.runs import refresh_index
from engine.commands.source import source_of
from engine.commands.tables import checks_table
from engine.errors import OracleError

if TYPE_CHECKING:
    from engine.panel import Panel

PathArgument = Annotated[
    str | None,
    typer.Argument(metavar="[PATH:CLASS]", help="The same as --oracle.", autocompletion=complete_oracles),
]

oracle_app = typer.Typer(help="Check an oracle for look-ahead, analyse its signal.", no_args_is_help=True)

_OUTCOMES = {"passed": "pass", "failed": "fail", "not computed": "skipped"}


@oracle_app.command("check")
def check_command(
    path: PathArgument = None,
    oracle: OracleOption = None,
    param: ParamOption = None,
    cuts: Annotated[
        int | None,
        typer.Option("--cuts", metavar="N", help="Number of instants that are computed one by one; default 400."),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option("--budget", metavar="SECONDS", help="Compute as many instants as fit, spread over the span."),
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Audit an oracle for look-ahead; the exit code is 1 when it fails a check.

    Example: hlbt oracle check --oracle research.oracles.momentum:Momentum --param lookback_hours=72
    """
    from engine.lookahead.audit import audit
    from engine.oracles.loading import bound_parameters, load_oracle
    from engine.simulation.backtest import decisions_of

    path = _one_of(path, oracle)
    run_config, parameters = config_of(config, settings), parameters_of(param)
    kind = type(load_oracle(path, parameters))  # before the data are read
    with progress() as step:
        step(0, 1, "loading the panel")
        panel = research_panel(run_config)
        result = audit(
            path,
            panel,
            decisions_of(panel, run_config),
            run_config,
            parameters=parameters,
            cuts=cuts,
            budget=budget,
            step=step,
        )
    if as_json:
        print_json({**_origin(path, bound_parameters(kind, parameters), panel), **result.to_dict()})
    else:
        title = f"{result.oracle}: {result.decisions} decisions{'  [SYNTHETIC DATA]' if panel.synthetic else ''}"
        notes = (f"NOTE: {note}" for note in panel.notes)
        show_all(checks_table(result.checks, title, ("check", "meaning", "outcome", "result"), _OUTCOMES), *notes)
    result.raise_for_failure()
    if not as_json:
        show_all(result.message(), result.strength_text())


def _one_of(path: str | None, oracle: str | None) -> str:
    if (path is None) == (oracle is None):
        raise typer.BadParameter("Missing argument 'PATH:CLASS', or --oracle PATH:CLASS; one of the two.")
    return path or oracle or ""


def _origin(path: str, parameters: Mapping[str, Any], panel: Panel) -> dict[str, Any]:
    """What was examined, for the JSON of both commands."""
    span = {name: panel.span[name] for name in ("start", "end", "coins")}
    return {"path": path, "parameters": parameters, "synthetic": panel.synthetic, **span, "notes": list(panel.notes)}


@oracle_app.command("report")
def report_command(
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="[PATH:CLASS|RUN]",
            help="The same as --oracle, or a run or sweep with its dates and costs.",
            autocompletion=complete_runs,
        ),
    ] = None,
    oracle: OracleOption = None,
    param: ParamOption = None,
    horizon: Annotated[int, typer.Option("--horizon", metavar="DAYS", help="Days of the forward return.")] = 1,
    quantiles: Annotated[int, typer.Option("--quantiles", metavar="Q", help="Number of groups of coins.")] = 5,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The page; default reports/signals-<name>-....html.")
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Analyse an oracle's signal: rank IC and its decay, quantiles, turnover and its cost, coverage, exposures.

    Of a run, or the best set of a sweep, it is with its dates and costs and counts as no trial.

    Example: hlbt oracle report --oracle research.oracles.momentum:Momentum --horizon 7
    """
    from engine.oracles.loading import load_oracle, origin_of
    from engine.oracles.signal_analysis import analyse
    from engine.reporting.html import check_page
    from engine.reporting.signal_page import conclusions, page_name, write_signals
    from engine.sweeps.trials import count_trial

    path = _one_of(path, oracle)
    if out is not None:
        check_page(out, "signals")
    named = (path, None) if ":" in path else (None, Path(path))
    source = source_of(named[0], param, None, named[1], config, settings)
    if source.oracle is None:
        raise OracleError(f"{path} ran a weights file: it has no oracle with a signal. Name a run of an oracle.")
    path, run_config = source.oracle, source.config
    loaded = load_oracle(path, source.parameters)
    with progress() as step:
        step(0, 3, "loading the panel")
        panel = source.panel()
        signals = analyse(loaded, panel, run_config, horizon, quantiles, step)
        origin = origin_of(loaded, path, dict(source.parameters))[0]
        count_trial(origin, source.counted_as or run_config, panel, REPORTS, "signals")
        step(3, 3, "page")
        if out is None:
            out = reports_folder() / page_name(signals, panel, run_config, origin)
        page = write_signals(out, signals, panel, run_config, origin)
    if REPORTS.is_dir():
        refresh_index(REPORTS)
    if as_json:
        print_json({"page": str(page), **_origin(path, origin.parameters, panel), **signals.to_dict()})
        return
    lines = ["SYNTHETIC DATA"] * panel.synthetic + [signals.name] + [f"- {line}" for line in conclusions(signals)]
    lines += [f"NOTE: {note}" for note in panel.notes]
    show_all("\n".join(lines), f"Page: {page}")
