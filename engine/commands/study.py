"""``hlbt study``: days that are sealed until one candidate is run on them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.commands.options import (
    REPORTS,
    ConfigOption,
    JsonOption,
    SetOption,
    cache_alone,
    cache_of,
    clock,
    complete_runs,
    config_of,
    folder_of,
    research_panel,
)
from engine.commands.progress import print_json, progress, show_all
from engine.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.table import Table

ReportsOption = Annotated[Path, typer.Option("--reports", metavar="DIR", help="Folder of the ledger of trials.")]

study_app = typer.Typer(
    help="Seal the newest days as a holdout; run one candidate on them, once.", no_args_is_help=True
)


@study_app.command("init")
def init_command(
    holdout: Annotated[str, typer.Option("--holdout", metavar="DATE", help="First day that research shall not see.")],
    reports: ReportsOption = REPORTS,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Seal the days of the cache from DATE on: whatever loads data for research ends before them from now on.

    Live accounts and `hlbt data` go on as before. A copy of the cache is sealed too.

    Example: hlbt study init --holdout 2026-09-01
    """
    from engine.clock import parse_instant, show
    from engine.promotion.holdout import seal_days

    cache = cache_of(config_of(config, settings))
    start = parse_instant(holdout, "--holdout")
    done = seal_days(cache, reports, start, clock().isoformat(timespec="seconds"))
    if as_json:
        print_json({"cache": str(cache), **done})
        return
    hidden, saw, unknown = done["hidden_days"], done["trials_that_saw"], done["trials_without_span"]
    lines = [f"{'Sealed already' if done['already'] else 'Sealed'}: {cache} from {show(start)} on."]
    if hidden:
        lines.append(f"{hidden:,} days of the data that there are lie in it.")
    else:
        lines.append(f"The data end before it, at {done['cache_end'][:16]}; what comes from then on is sealed.")
    if saw:
        lines.append(f"NOTE: {saw:,} trials of {reports} have data of these days: to their ideas they are no holdout.")
    if unknown:
        lines.append(f"NOTE: of {unknown:,} older trials of {reports} nobody knows which days they saw.")
    show_all("\n".join(lines), "Next: research on the days before, then hlbt study open --candidate RUN, once.")


@study_app.command("status")
def status_command(
    reports: ReportsOption = REPORTS,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is sealed, what it was spent on and how that ended.

    Example: hlbt study status
    """
    from engine.clock import show
    from engine.promotion.holdout import current_holdout

    cache = cache_of(config_of(config, settings))
    holdout = current_holdout(cache, reports)
    if as_json:
        sealed = None
        if holdout is not None:
            openings = [
                {"candidate": item.candidate, "opened": item.when, "result": item.result} for item in holdout.openings
            ]
            sealed = {"start": holdout.start.isoformat(), "sealed": holdout.when, "openings": openings}
        print_json({"cache": str(cache), "holdout": sealed})
        return
    if holdout is None:
        show_all(f"Nothing of {cache} is sealed. `hlbt study init --holdout DATE` seals the days from DATE on.")
        return
    show_all(f"{cache} is sealed from {show(holdout.start)} on, since {holdout.when[:10]}.")
    if not holdout.openings:
        show_all("No candidate has been run on these days.")
    for item in holdout.openings:
        if item.result is None:
            show_all(f"Spent on {item.candidate}, {item.when[:10]}; its run never ended.")
        else:
            show_all(holdout_table(item.result))


@study_app.command("open")
def open_command(
    candidate: Annotated[
        Path,
        typer.Option(
            "--candidate",
            metavar="RUN",
            help="Run folder, or a sweep for its winner; or its name.",
            autocompletion=complete_runs,
        ),
    ],
    reports: Annotated[
        Path | None, typer.Option("--reports", metavar="DIR", help="Of the ledger; default: where RUN lies.")
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run one candidate on the sealed days, once: that spends them, even if the run is killed.

    Its own days, what they let expect of the sealed ones, and the result stand side by side. The config is the run's
    own; --set may only move data.cache.

    Example: hlbt study open --candidate reports/momentum-20241001-20250331-1a2b3c4d
    """
    from engine.data.cache import Store
    from engine.data.coin_names import dexes_of
    from engine.data.panel_loader import cache_path, load_whole_panel
    from engine.promotion.candidate import read_candidate
    from engine.promotion.holdout import check_openable, current_holdout, expected_of, open_holdout
    from engine.reporting.holdout_page import write_holdout

    refusal = ConfigError("The candidate runs as it was, so only data.cache can be set here: --set data.cache=DIR.")
    chosen = read_candidate(folder_of(candidate), reports)
    cache = cache_path(cache_alone(config, settings, refusal) or chosen.config.data.cache)
    holdout = current_holdout(cache, chosen.reports)
    if holdout is None:
        raise DataError(f"Nothing of {cache} is sealed, so there is nothing to open: `hlbt study init --holdout DATE`.")
    store = Store(cache)
    end = store.price_span(store.require(), dexes_of(chosen.config.data.selection))[1]
    with progress() as step:
        step(0, 3, "loading the panel")
        panel = research_panel(chosen.as_run, chosen.reports, cache)
        days = check_openable(chosen, holdout, panel, end)
        step(1, 3, "what to expect")
        expected = expected_of(chosen, panel, days)
        step(2, 3, "the sealed days")
        data, when = chosen.config.data, clock().isoformat(timespec="seconds")
        load = partial(load_whole_panel, cache, chosen.start, end, data.selection, data.hours)
        result = open_holdout(chosen, holdout, expected, load, cache, when, end)
        step(3, 3, "page")
        page = write_holdout(chosen.reports / f"holdout-{holdout.start:%Y%m%d}-{chosen.name}.html", result)
    if as_json:
        print_json({**result, "page": str(page)})
    else:
        show_all(holdout_table(result), f"Page: {page}")


def holdout_table(result: Mapping[str, Any]) -> Table:
    """The candidate before, what that lets expect, and on the sealed days."""
    from rich.table import Table
    from rich.text import Text

    from engine.reporting.holdout_page import conclusion, rows_of

    label = "  [SYNTHETIC DATA]" if result["synthetic"] else ""
    table = Table(
        title=Text(f"{result['candidate']}, opened {result['opened'][:10]}{label}"),
        title_justify="left",
        caption=conclusion(result),
        caption_justify="left",
    )
    for number, heading in enumerate(("", "its own days", "expected (90%)", "sealed days")):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows_of(result):
        table.add_row(row.label, row.before, row.expected, row.sealed, style="" if row.inside else "bold red")
    return table
