"""``hlbt live status``: what an account did, beside what was promoted; in lines, as JSON and as a page."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.commands.live_answers import Promoted, monitored
from engine.commands.live_run import RunOptions
from engine.commands.live_tables import book_table, status_lines
from engine.commands.options import REPORTS, typed_config
from engine.commands.progress import print_json, progress, show_all, waiting
from engine.commands.runs import refresh_index
from engine.errors import OracleError, SpecError

if TYPE_CHECKING:
    from engine.commands.live_paper import Track
    from engine.live.book import Member
    from engine.live.hyperliquid import HyperLiquidDEX


def journal_of(track: Track, options: RunOptions) -> tuple[Path, HyperLiquidDEX | None]:
    """The journal of a strategy and, where options name a host or credentials, its account."""
    from engine.live.state_folder import find_journal, journal_path

    venue = options.venue
    if venue.network == "paper" or not (venue.credentials or venue.base_url):
        return find_journal(track.name, venue.network, venue.journal), None
    dex = venue.exchange()
    return journal_path(track.name, dex.label, venue.journal), dex


def promoted_of(track: Track, cache: str | None) -> Promoted | None:
    """What a track was promoted as, or is a candidate of; None of a weights file, which has no spec."""
    from engine.live.book import BookTargets
    from engine.live.book_file import account_config, read_book
    from engine.live.spec import read_spec
    from engine.oracles.loading import load_oracle
    from engine.promotion.candidate import read_candidate
    from engine.promotion.promote import candidate_spec

    if not track.candidate and not (track.path.suffix in (".json", ".toml") and track.path.is_file()):
        return None
    if track.path.suffix == ".toml":
        members: tuple[Member, ...] = ()
        with suppress(SpecError):  # a spec whose code has changed
            targets = read_book(track.path, cache).targets
            members = targets.members if isinstance(targets, BookTargets) else ()
        return Promoted(account_config(track.path), members=members)
    spec = candidate_spec(read_candidate(track.path), track.name) if track.candidate else read_spec(track.path)
    oracle = None
    with suppress(OracleError):
        oracle = load_oracle(spec.oracle, spec.parameters)
    return Promoted(spec.config, spec, oracle)


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
    promoted = promoted_of(track, cache)
    config = typed_config(None, None) if promoted is None else promoted.config  # then nothing is scheduled
    config = replace(config, data=replace(config.data, cache=cache or config.data.cache, end=None))
    file, dex = journal_of(track, options)
    journal = Journal(file)
    status = live_status(journal, config)
    status["next_instant"] = None if promoted is None else (next_run(options.now, config)[1] + ORDER_LEAD).isoformat()
    with progress() as step:
        label = file.stem.removeprefix(f"{track.name}-") if dex is None else dex.label
        status |= monitored(promoted, journal, config, track.name, label, report=step)
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
