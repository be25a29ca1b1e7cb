"""``hlbt promote``: from a run to a reviewed spec that may trade."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.commands.options import ConfigOption, JsonOption, SetOption, cache_alone, folder_of
from engine.commands.progress import print_json, progress, show_all
from engine.errors import ConfigError, HlbtError

if TYPE_CHECKING:
    from rich.table import Table

    from engine.panel import Panel
    from engine.promotion.candidate import Candidate
    from engine.promotion.gates import Examination
    from engine.promotion.promote import Override

PROMOTED = Path("research") / "promoted"


def promote_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, or a sweep for its winner; or its name.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of the strategy: NAME.json.")],
    override: Annotated[
        list[str] | None, typer.Option("--override", metavar="GATE", help="Let a failed gate pass; with --reason.")
    ] = None,
    reason: Annotated[
        list[str] | None, typer.Option("--reason", metavar="TEXT", help="Why; one for each --override, in order.")
    ] = None,
    account: Annotated[
        float | None, typer.Option("--account", metavar="USD", help="Size it is meant for; default: that of the run.")
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option("--limit", metavar="NAME=VALUE", help="A limit of the account; none is off.")
    ] = None,
    gates: Annotated[Path | None, typer.Option("--gates", metavar="FILE", help="Default research/gates.toml.")] = None,
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

    A refusal names every gate that failed, and the exit code is 7. A gate that is overridden, with its reason, is part
    of the spec. The config is the run's own; --set may only move data.cache.

    Example: hlbt promote reports/momentum-20241001-20250331-1a2b3c4d --name momentum
    """
    from engine.promotion.candidate import check_current, read_candidate
    from engine.promotion.gates import examine, read_gates
    from engine.promotion.promote import (
        check_name,
        check_overrides,
        default_gates,
        limits_of,
        overrides_of,
        save_spec,
        spec_of,
        spec_path,
    )

    # All that can be refused without the data is refused before they are read.
    check_name(name)
    path = out / f"{name}.json" if dry_run else spec_path(out, name, replace)
    file = read_gates(gates or default_gates())
    waived = overrides_of(override or [], reason or [])
    limits_of(file.limits, limit or [], 0.0)
    candidate = read_candidate(folder_of(run), reports)
    with progress() as step:
        step(0, 1, "loading the panel")
        panel = _panel(candidate, config, settings)
        check_current(candidate, panel)
        size = candidate.config.account.initial_equity_usd if account is None else account
        found = examine(candidate, panel, file.thresholds, size, step)
    if not as_json:
        show_all(gates_table(found, waived, candidate.name, panel.synthetic))
    said = _said(found, waived, candidate, panel)
    try:
        check_overrides(found, waived)
        limits, notes = limits_of(file.limits, limit or [], found.gross)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        spec = spec_of(candidate, panel, found, waived, limits, file, name, created)
        if not dry_run:
            save_spec(spec, path)
    except HlbtError as error:
        if as_json:
            print_json({**said, "promoted": False, "refusal": str(error)})
        raise
    notes += _notes(candidate, panel)
    if as_json:
        content = {**spec.to_dict(), "digest": spec.digest}
        print_json({**said, "promoted": not dry_run, "path": str(path), "notes": notes, "spec": content})
        return
    show_all(*(f"NOTE: {note}." for note in notes))
    show_all(
        f"The gates let it pass. Nothing was written, for this is a dry run; it would be {path}."
        if dry_run
        else f"Promoted: {path}\nReview and commit it: the diff is the record. Next: hlbt live plan {path}"
    )


def _said(found: Examination, waived: tuple[Override, ...], candidate: Candidate, panel: Panel) -> dict[str, Any]:
    """What a script would read of an examination."""
    from dataclasses import asdict

    from engine.promotion.gates import plain_gates

    return {
        "run": candidate.name,
        "sweep": found.sweep,
        "trials": found.trials,
        "account_usd": found.account_usd,
        "synthetic": panel.synthetic,
        "gates": plain_gates(found.gates),
        "overrides": [asdict(override) for override in waived],
    }


def _notes(candidate: Candidate, panel: Panel) -> list[str]:
    notes = []
    if candidate.oracle.partition(":")[0].endswith(".py"):
        notes.append(f"{candidate.oracle} is a file: a live run has to find it there too; a module is surer")
    if panel.synthetic:
        notes.append("SYNTHETIC DATA: nothing here says anything about a market, and the spec says so")
    return notes


def gates_table(found: Examination, waived: tuple[Override, ...], name: str, synthetic: bool) -> Table:
    """The gates, a row each."""
    from rich.markup import escape
    from rich.table import Table

    label = "  [SYNTHETIC DATA]" if synthetic else ""
    sweep = f"sweep {found.sweep}" if found.sweep else "no sweep"
    title = f"{name}: {sweep}, {found.trials:,} trials, {found.account_usd:,.0f} USD{label}"
    table = Table(title=escape(title), title_justify="left")
    for heading in ("gate", "value", "asked", "", "what was seen"):
        table.add_column(
            heading, justify="right" if heading in ("value", "asked") else "left", no_wrap=heading != "what was seen"
        )
    names = {override.gate for override in waived}
    for gate in found.gates:
        outcome = "passed" if gate.passed else "OVERRIDDEN" if gate.name in names else "FAILED"
        value = "" if gate.value is None else f"{gate.value:,.4g}"
        asked = f"{'>=' if gate.rule == 'at least' else '<='} {gate.threshold:g}"
        table.add_row(gate.name, value, asked, outcome, escape(gate.says), style=None if gate.passed else "bold")
    return table


def _panel(candidate: Candidate, config: Path | None, settings: list[str] | None) -> Panel:
    """The panel that the run had: its own first and last instant, so that a cache that has grown since gives it too."""
    from engine.data.panel_loader import load_panel

    refusal = ConfigError(
        "A promotion is of the run as it was, so only data.cache can be set here: --set data.cache=DIR. Run the "
        "backtest again to change anything else."
    )
    own = candidate.config.data
    return load_panel(cache_alone(config, settings, refusal) or own.cache, candidate.start, candidate.end, own.coins)
