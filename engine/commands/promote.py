"""``hlbt promote``: from a run to a reviewed spec that may trade."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.commands.options import (
    REPORTS,
    ConfigOption,
    JsonOption,
    LimitOption,
    SetOption,
    cache_alone,
    complete_runs,
    folder_of,
    research_panel,
)
from engine.commands.progress import print_json, progress, show_all
from engine.commands.tables import checks_table
from engine.commands.validate import GatesOption
from engine.errors import ConfigError, HlbtError

if TYPE_CHECKING:
    from engine.data.holdout import Holdout
    from engine.panel import Panel
    from engine.promotion.candidate import Candidate
    from engine.promotion.gates import Examination
    from engine.promotion.promote import Override, Promotion
    from engine.promotion.renewal import Renewal

PROMOTED = Path("research") / "promoted"

CandidateArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="RUN", help="Run folder, or a sweep for its winner; or its name.", autocompletion=complete_runs
    ),
]
RenewOption = Annotated[
    Path | None,
    typer.Option("--renew", metavar="SPEC", help="Run the gates again for a spec of which only the code changed."),
]
OverrideOption = Annotated[
    list[str] | None, typer.Option("--override", metavar="GATE", help="Let a failed gate pass; with --reason.")
]
ReasonOption = Annotated[
    list[str] | None, typer.Option("--reason", metavar="TEXT", help="Why; one for each --override, in order.")
]


def promote_command(
    run: CandidateArgument = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Of the strategy: NAME.json.")] = None,
    renew: RenewOption = None,
    override: OverrideOption = None,
    reason: ReasonOption = None,
    account: Annotated[
        float | None, typer.Option("--account", metavar="USD", help="Size it is meant for; default: that of the run.")
    ] = None,
    limit: LimitOption = None,
    gates: GatesOption = None,
    reports: Annotated[
        Path | None,
        typer.Option("--reports", metavar="DIR", help="Of sweeps and trials; default: where RUN lies."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the spec.")] = PROMOTED,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in the place of a spec of this name.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the gates and write nothing.")] = False,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a run before the gates of research/gates.toml; write research/promoted/NAME.json if all let it pass.

    A refusal names every gate that failed, with exit code 7. A gate that is overridden, with its reason, is part of the
    spec. The config is the run's own; --set may only move data.cache. After a change of code and nothing else, of hlbt
    or of the oracle, --renew SPEC runs the gates again and writes the spec anew.

    Example: hlbt promote reports/momentum-20241001-20250331-1a2b3c4d --name momentum
    """
    from engine.validation.thresholds import GateFile

    # All that can be refused without the data is refused before they are read.
    file = GateFile.read(gates)
    promotion: Promotion | Renewal
    if renew is not None:
        from engine.promotion.renewal import read_renewal

        if run or name or override or reason or limit or replace or account is not None or out != PROMOTED:
            raise ConfigError(
                f"--renew {renew} takes all of a spec but its code as it is. Leave out RUN, --name, --override, "
                "--reason, --account, --limit, --out and --replace; or promote the run anew without --renew."
            )
        path = renew if renew.suffix == ".json" or renew.exists() else PROMOTED / f"{renew}.json"
        promotion = read_renewal(path, reports or REPORTS, file)
    elif run is None or name is None:
        raise typer.BadParameter("give a run and a name, RUN --name NAME; or a spec to renew, --renew SPEC")
    else:
        from engine.promotion.promote import read_promotion, spec_path

        path = spec_path(out, name, replace or dry_run)
        pairs = (override or [], reason or [])
        promotion = read_promotion(folder_of(run), reports, name, file, pairs, limit or [], account)
    _decide(promotion, path, dry_run, config, settings, as_json)


def _decide(
    promotion: Promotion | Renewal,
    path: Path,
    dry_run: bool,
    config: Path | None,
    settings: list[str] | None,
    as_json: bool,
) -> None:
    """Run the gates, show them, and write the spec unless one refuses."""
    from engine.promotion.gates import examine
    from engine.promotion.promote import bands_text, save_spec

    candidate, waived = promotion.candidate, promotion.overrides
    with progress() as step:
        step(0, 1, "loading the panel")
        panel, holdout = _panel(candidate, config, settings)
        candidate = promotion.current(panel)
        if promotion.is_current(candidate):
            _show_current(path, as_json)
            return
        examination = examine(candidate, panel, promotion.file.gates, promotion.account_usd, step, holdout)
    if not as_json:
        sweep = f"sweep {examination.sweep}" if examination.sweep else "no sweep"
        title = f"{candidate.name}: {sweep}, {examination.trials:,} trials, {examination.account_usd:,.0f} USD"
        title += "  [SYNTHETIC DATA]" if panel.synthetic else ""
        columns, closed = ("check", "value", "required", "outcome", "result"), {"not computed": "FAILED"}
        show_all(checks_table(examination.gates, title, columns, closed, [override.gate for override in waived]))
    content = _content(examination, waived, candidate, panel)
    try:
        created = datetime.now(UTC).isoformat(timespec="seconds")
        spec, notes = promotion.spec(candidate, panel, examination, created)
        if not dry_run:
            save_spec(spec, path)
    except HlbtError as error:
        if as_json:
            print_json({**content, "promoted": False, "refusal": str(error)})
        raise
    notes += _notes(candidate, panel)
    if as_json:
        plain = {**spec.to_dict(), "digest": spec.digest}
        print_json({**content, "promoted": not dry_run, "path": str(path), "notes": notes, "spec": plain})
        return
    show_all(*(f"NOTE: {note}." for note in notes), f"{bands_text(spec).rstrip('.')}.")
    show_all(
        f"The gates let it pass. Nothing was written, for this is a dry run; it would be {path}."
        if dry_run
        else f"Promoted: {path}\nReview and commit it: the diff is the record. Next: hlbt live plan {path}"
    )


def _show_current(path: Path, as_json: bool) -> None:
    if as_json:
        print_json({"promoted": False, "current": True, "path": str(path)})
    else:
        show_all(f"{path} is current: data and code are those of its promotion. Nothing was written.")


def _content(
    examination: Examination, waived: tuple[Override, ...], candidate: Candidate, panel: Panel
) -> dict[str, Any]:
    """What ``--json`` prints of an examination."""
    from dataclasses import asdict

    from engine.promotion.gates import gates_to_json

    return {
        "run": candidate.name,
        "sweep": examination.sweep,
        "trials": examination.trials,
        "account_usd": examination.account_usd,
        "synthetic": panel.synthetic,
        "gates": gates_to_json(examination.gates),
        "overrides": [asdict(override) for override in waived],
    }


def _notes(candidate: Candidate, panel: Panel) -> list[str]:
    notes = [note.rstrip(".") for note in panel.notes]
    if candidate.oracle.partition(":")[0].endswith(".py"):
        notes.append(f"{candidate.oracle} is a file: a live run has to find it there too; a module is surer")
    if panel.synthetic:
        notes.append("SYNTHETIC DATA: nothing here says anything about a market, and the spec says so")
    return notes


def _panel(candidate: Candidate, config: Path | None, settings: list[str] | None) -> tuple[Panel, Holdout | None]:
    """The panel that the run had, which a cache that has grown since gives too; and what is sealed."""
    from engine.data.panel_loader import cache_path
    from engine.promotion.holdout import current_holdout

    refusal = ConfigError(
        "A promotion is of the run as it was, so only data.cache can be set here: --set data.cache=DIR. Run the "
        "backtest again to change anything else."
    )
    cache = cache_path(cache_alone(config, settings, refusal) or candidate.config.data.cache)
    return research_panel(candidate.as_run, candidate.reports, cache), current_holdout(cache, candidate.reports)
