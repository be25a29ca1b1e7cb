"""``hlbt live status``: what an account did, beside what was promoted; in lines, as JSON and as a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.commands.live_run import RunOptions
from engine.commands.live_tables import book_table, status_lines
from engine.commands.options import REPORTS, typed_config
from engine.commands.progress import print_json, show_all, waiting
from engine.commands.runs import refresh_index

if TYPE_CHECKING:
    from engine.commands.live_paper import Track
    from engine.config import RunConfig
    from engine.live.hyperliquid import HyperLiquidDEX


def journal_of(track: Track, options: RunOptions) -> tuple[Path, HyperLiquidDEX | None]:
    """The journal of a strategy and, where options name a host or credentials, its account."""
    from engine.live.state_folder import find_journal, journal_path

    venue = options.venue
    if venue.network == "paper" or not (venue.credentials or venue.base_url):
        return find_journal(track.name, venue.network, venue.journal), None
    dex = venue.exchange()
    return journal_path(track.name, dex.label, venue.journal), dex


def config_of_track(track: Track) -> RunConfig | None:
    """The config that a strategy was promoted with, or a candidate has; None of a weights file, which has no spec."""
    if track.candidate:
        from engine.promotion.candidate import read_candidate

        return read_candidate(track.path).config
    from engine.live.book_file import account_config

    return account_config(track.path) if track.path.suffix in (".json", ".toml") and track.path.is_file() else None


def show_status(track: Track, cache: str | None, options: RunOptions, out: Path | None) -> None:
    """Show the journal of a strategy and, where options name a host or credentials, its account."""
    from engine.coin import dex_of
    from engine.live.journal import Journal
    from engine.live.schedule import ORDER_LEAD, next_run
    from engine.reporting.html import check_page
    from engine.reporting.live_page import write_live_page
    from engine.reporting.live_performance import account_status, live_status

    if out is not None:
        check_page(out, "live status")
    own = config_of_track(track)
    config = typed_config(None, None) if own is None else own  # then nothing is scheduled
    data = replace(config.data, cache=cache or config.data.cache, end=None)
    file, dex = journal_of(track, options)
    journal = Journal(file)
    status: dict[str, Any] = live_status(journal, replace(config, data=data))
    status["next_instant"] = None if own is None else (next_run(options.now, config)[1] + ORDER_LEAD).isoformat()
    if dex is not None:
        dex.use_dexes(set(map(dex_of, (*config.data.selection, *journal.state.positions))))
        with waiting("Reading the account ..."):
            status["account"] = account_status(dex, journal)
    network = options.venue.network
    page = out or (options.venue.folder / f"{file.stem}.html" if file.is_file() and not options.as_json else None)
    if page is not None:
        refresh_index(REPORTS)  # there for the page to link to
        write_live_page(status, track.name, network, page)
        refresh_index(REPORTS)
    if options.as_json:
        print_json(status)
    else:
        where = f"Page: {page}" if page else f"There is no journal {file}: nothing has run yet."
        show_all(*status_lines(status), *([book_table(status["book"])] if status["book"] else []), where)
