"""``hlbt doctor``: is this machine fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from engine.commands.options import REPORTS, ConfigOption, JsonOption, SetOption, cache_of, clock, config_of
from engine.commands.progress import print_json, show_all, waiting
from engine.errors import HlbtError

if TYPE_CHECKING:
    from rich.table import Table

    from engine.commands.machine_checks import Finding

STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def doctor_command(
    base_url: Annotated[
        str | None, typer.Option("--base-url", metavar="URL", help="Another host to compare the clock with.")
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Examine this machine: versions, cache, reports, credentials (whether, never which), disk, clock.

    The exit code is 1 only when something makes a backtest impossible.

    Example: hlbt doctor
    """
    from dataclasses import asdict

    try:
        from engine.commands.machine_checks import HYPERLIQUID, examine, fit
    except ImportError as error:
        raise HlbtError(f"{error}, so nothing can run. Install what the lock file names: make setup.") from error

    cache = cache_of(config_of(config, settings))
    with waiting("Examining ..."):
        found = examine(cache, REPORTS, clock, base_url=base_url or HYPERLIQUID)
    if as_json:
        print_json({"fit": fit(found), "findings": [asdict(finding) for finding in found]})
    else:
        counts = {state: sum(finding.state == state for finding in found) for state in STYLES}
        words = "No backtest can be run until the problems are cured." if counts["problem"] else "Fit for backtests."
        show_all(_table(found), f"{words} Problems: {counts['problem']}, warnings: {counts['warning']}.")
    if not fit(found):
        raise typer.Exit(1)


def _table(found: list[Finding]) -> Table:
    """A finding a row, its cure beneath."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in found:
        says = f"{finding.says}\n-> {finding.cure}" if finding.cure else finding.says
        table.add_row(Text(finding.state, style=STYLES[finding.state]), finding.about, Text(says))
    return table
