"""``hlbt live paper``: strategies on paper accounts of their own, on one sync of the data and one reading of quotes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.commands.live_answers import monitored, promoted_strategy, states
from engine.commands.live_options import AccountOptions, MarketOptions, SyncOption, grouped
from engine.commands.live_run import (
    RunOptions,
    cache_of_spec,
    note_lines,
    refuse_demoted,
    run_options,
    sleep_until,
    spec_path,
)
from engine.commands.options import REPORTS, clock, folder_of
from engine.commands.progress import Progress, print_json, progress, show_all
from engine.commands.runs import refresh_index
from engine.errors import HlbtError, LiveError, SpecError

if TYPE_CHECKING:
    from rich.table import Table

    from engine.live.paper_tracks import TrackRecord, TrackRun
    from engine.live.targets import Strategy

TrackArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="SPEC...", help="Specs, folders of them, or candidates: a run, or a sweep for its winner; or names."
    ),
]
#: Before the name of a track whose strategy passed no gate.
CANDIDATE = "candidate-"


@dataclass
class Track:
    """A strategy that is named, and what came of it."""

    name: str
    path: Path
    candidate: bool
    strategy: Strategy | None = None
    run: TrackRun | None = None
    record: TrackRecord | None = None
    answers: dict[str, Any] | None = None
    page: Path | None = None
    synthetic: bool = False
    failures: list[HlbtError] = field(default_factory=list)


@grouped
def paper_command(
    specs: TrackArgument,
    market: MarketOptions,
    daily: Annotated[bool, typer.Option("--daily", help="Wait for each scheduled instant, and repeat.")] = False,
    sync: SyncOption = True,
) -> None:
    """Trade paper accounts of promoted specs and of candidates side by side; no order leaves the machine.

    Each has an account and a journal of its own, those of `live run --network paper`. Instants of its schedule that
    were missed since its last run are traded from the cache, and counted. One that fails does not stop the others:
    the exit code is then theirs.

    Example: hlbt live paper research/promoted --daily
    """
    account = AccountOptions(network="paper", **vars(market))
    if account.journal is not None and account.journal.suffix == ".jsonl":
        raise LiveError(f"--journal {account.journal} is one file: each track has a journal. Name a folder.")
    if daily and account.now is not None:
        raise LiveError("--daily waits for the clock: it cannot be given --now. Remove one of the two.")
    cache = cache_of_spec(account)
    tracks_of(specs)
    if not daily:
        return _run(specs, cache, run_options(account, sync))
    while True:
        _wait(specs, cache, run_options(account, sync))
        try:
            _run(specs, cache, replace(run_options(account, sync), now=clock()))
        except HlbtError as error:
            sys.stderr.write(f"hlbt: {error}\n")


def tracks_of(paths: Sequence[Path]) -> list[Track]:
    """The tracks that are named, each once, in their order.

    Raises
    ------
    LiveError
        When two strategies of one name would share an account, or a folder has nothing to trade.
    """
    found: dict[Path, Track] = {}
    for path in paths:
        for track in _tracks_of(path):
            found.setdefault(track.path.resolve(), track)
    tracks = list(found.values())
    for track in tracks:
        alike = [other.path for other in tracks if other.name == track.name]
        if len(alike) > 1:
            raise LiveError(
                f"{alike[0]} and {alike[1]} are both called {track.name}, so they would share one paper account. Name "
                "one of the two, or give the other a --journal folder in a command of its own."
            )
    return tracks


def _tracks_of(path: Path) -> list[Track]:
    folder = folder_of(path)
    if path.name.startswith(CANDIDATE) and not path.exists():  # the name of a track, as its table shows it
        runs = [*REPORTS.glob("*"), *REPORTS.glob("*/top/*")]
        folder = next((run for run in runs if run.is_dir() and track_name(run) == path.name), folder)
    if any((folder / record).is_file() for record in ("run.json", "sweep.json")):
        return [Track(track_name(folder), folder, candidate=True)]
    if path.is_dir():
        specs = sorted(path.glob("*.json"))
        if not specs:
            raise LiveError(f"{path} has neither specs nor a run: `hlbt promote` writes specs, `hlbt backtest` runs.")
        return [Track(spec.stem, spec, candidate=False) for spec in specs]
    return [Track(path.stem, spec_path(path), candidate=False)]


def named_track(path: Path, network: str) -> Track:
    """The one strategy that ``live status`` and ``live log`` name; a run, which has no spec, on paper alone."""
    tracks = _tracks_of(path) if network == "paper" else [Track(path.stem, spec_path(path), candidate=False)]
    if len(tracks) > 1:
        raise LiveError(f"{path} has {len(tracks)} specs: name one of them. `hlbt live paper {path}` lists all.")
    return tracks[0]


def track_name(folder: Path) -> str:
    """Name of the track of a candidate, which no spec has: its folder's, below a sweep with the sweep's before it."""
    resolved = folder.resolve()
    above = resolved.parent.parent.name if resolved.parent.name == "top" else ""
    return "-".join(filter(None, [CANDIDATE.rstrip("-"), above, resolved.name]))


def track_strategy(track: Track, cache: str | None) -> Strategy:
    """What a track trades."""
    from engine.live.risk_limits import Limits
    from engine.live.targets import strategy_of

    if not track.candidate:
        from engine.live.book_file import read_strategy

        return read_strategy(track.path, cache)
    from engine.promotion.candidate import read_candidate
    from engine.promotion.promote import candidate_spec

    candidate = read_candidate(track.path)
    spec = candidate_spec(candidate, track.name)
    try:
        return strategy_of(spec, cache, Limits.none(), ["a candidate: no gate has passed it, and no limit stops it"])
    except SpecError as error:
        again = "`hlbt sweep`" if candidate.sweep else "`hlbt backtest`"
        raise SpecError(
            f"{track.path} is stale: the code of {candidate.oracle} has changed since it ran, so its track would go "
            f"on with another strategy. Run {again} again into a folder of its own, or go back to that code."
        ) from error


# One round ------------------------------------------------------------------------------------------------------------


def _run(paths: Sequence[Path], cache: str | None, options: RunOptions) -> None:
    """Trade every track, show what came of it, then raise for those that failed."""
    tracks, notes = _load(paths, cache), list[str]()
    if all(track.strategy is None for track in tracks):
        _raise_failures(tracks)
    with progress() as step:
        if options.sync:
            notes = _sync(tracks, options, step)
        _trade(tracks, options, step)
    index = _write_pages(tracks, options)
    if options.as_json:
        print_json(_plain(tracks, notes, options, index))
    else:
        lines = [f"{track.name}: {note}" for track in tracks if track.run for note in track.run.notes]
        show_all(_table(tracks), *note_lines(notes + lines), f"Pages: {index}")
    _raise_failures(tracks)


def _load(paths: Sequence[Path], cache: str | None) -> list[Track]:
    tracks = tracks_of(paths)
    for track in tracks:
        try:
            track.strategy = track_strategy(track, cache)
        except HlbtError as error:
            track.failures.append(error)
    return tracks


def _sync(tracks: Sequence[Track], options: RunOptions, step: Progress) -> list[str]:
    """Bring each cache up to date once, for the coins of all tracks; one that cannot be stays as it is."""
    from engine.data.panel_loader import cache_path

    using: dict[Path, list[Track]] = {}
    for track in tracks:
        if track.strategy is not None:
            using.setdefault(cache_path(track.strategy.config.data.cache).resolve(), []).append(track)
    notes = []
    for cache, of_cache in using.items():
        coins = dict.fromkeys(
            coin for track in of_cache if track.strategy for coin in track.strategy.config.data.selection
        )
        try:
            notes += options.venue.sync_cache(str(cache), tuple(coins), options.now, step)
        except HlbtError as error:
            for track in of_cache:
                track.strategy = None
                track.failures.append(error)
    return notes


def _trade(tracks: Sequence[Track], options: RunOptions, step: Progress) -> None:
    from engine.live.paper_market import PaperMarket
    from engine.live.paper_tracks import run_track
    from engine.monitoring.alarms import watch_of
    from engine.monitoring.books import book_watches

    ready = [track for track in tracks if track.strategy is not None]
    quotes = options.venue.exchange()
    quotes.use_dexes(frozenset().union(*(track.strategy.dexes for track in ready if track.strategy)))
    market = PaperMarket(quotes)
    for place, track in enumerate(ready):
        assert track.strategy is not None
        text = track.name

        def show(done: int, total: int, text: str = text, place: int = place) -> None:
            step(place, len(ready), f"{text}: instant {done + 1} of {total}")

        step(place, len(ready), text)
        try:
            watches = watch_of(track.strategy), book_watches(track.strategy)
            track.run = run_track(options.venue, market, track.strategy, options.now, show, *watches)
            track.failures += [error for _, error in track.run.problems]
            refuse_demoted(track.name, track.run.demotion, track.run.part_demotions)
        except HlbtError as error:
            track.failures.append(error)


def _wait(paths: Sequence[Path], cache: str | None, options: RunOptions) -> None:
    """Wait for the next instant of any track; the data are brought up to date before it."""
    from engine.live.schedule import next_run

    tracks = _load(paths, cache)
    ready = [track.strategy for track in tracks if track.strategy is not None]
    if not ready:
        _raise_failures(tracks)
    data_at, order_at = min(next_run(clock(), strategy.config) for strategy in ready)
    sys.stderr.write(f"hlbt: data at {data_at:%Y-%m-%d %H:%M} UTC, trades at {order_at:%H:%M} UTC.\n")
    if options.sync:
        sleep_until(data_at)
        with progress() as step:
            _sync(tracks, replace(options, now=clock()), step)
    sleep_until(order_at)


def _raise_failures(tracks: Sequence[Track]) -> None:
    """Raise for the tracks that failed, with the exit code that all of them have, else 1."""
    failed = [track for track in tracks if track.failures]
    if not failed:
        return
    if len(failed) == len(tracks) == 1:
        raise failed[0].failures[-1]
    texts = [f"{track.name}: {str(track.failures[-1]).rstrip('.')}" for track in failed]
    total = LiveError(f"{len(failed)} of {len(tracks)} paper tracks failed. {'; '.join(texts)}.")
    codes = {error.exit_code for track in failed for error in track.failures[-1:]}
    total.exit_code = codes.pop() if len(codes) == 1 else LiveError.exit_code
    raise total


# What is shown --------------------------------------------------------------------------------------------------------


def _write_pages(tracks: Sequence[Track], options: RunOptions) -> Path:
    """Write the page of every track that has a journal, and the page that lists them."""
    from engine.live.journal import Journal
    from engine.live.paper_tracks import track_record
    from engine.live.state_folder import journal_path
    from engine.reporting.live_page import write_live_page
    from engine.reporting.live_performance import live_status
    from engine.reporting.tracks_page import TRACKS, write_tracks_page

    folder = options.venue.folder
    folder.mkdir(parents=True, exist_ok=True)
    refresh_index(REPORTS)  # there for the pages to link to
    for track in tracks:
        journal = track.run.journal if track.run else Journal(journal_path(track.name, "paper", options.venue.journal))
        if track.strategy is None or not journal.entries:
            continue
        config, promoted = track.strategy.config, promoted_strategy(track.strategy)
        track.record = track_record(journal.entries, config)
        track.page = folder / f"{track.name}-paper.html"
        newest = max(1, len(track.run.traded)) if track.run else 1  # `live status` makes all plans again
        try:
            found = monitored(promoted, journal, config, track.name, "paper", newest)
            track.answers = states(found)
            status = live_status(journal, config)
            track.synthetic = bool(status["drift"]["synthetic"])
            write_live_page({**status, **found}, track.name, "paper", track.page)
        except HlbtError as error:
            track.failures.append(error)
    index = write_tracks_page(folder / TRACKS, [_row(track) for track in tracks], options.now)
    refresh_index(REPORTS)
    return index


def _row(track: Track) -> dict[str, Any]:
    """A track as plain values."""
    from engine.live.paper_tracks import NOT_BEGUN

    return {
        "name": track.name,
        "spec": str(track.path),
        "candidate": track.candidate,
        "synthetic": track.synthetic,
        **(track.record or NOT_BEGUN).to_dict(),
        "traded_now": [instant.isoformat() for instant in track.run.traded] if track.run else [],
        "answers": track.answers,
        "errors": [str(error) for error in track.failures],
        "page": None if track.page is None else str(track.page),
    }


def _plain(tracks: Sequence[Track], notes: list[str], options: RunOptions, index: Path) -> dict[str, Any]:
    """What ``--json`` prints."""
    rows = [_row(track) | {"notes": track.run.notes if track.run else []} for track in tracks]
    return {"network": "paper", "now": options.now.isoformat(), "tracks": rows, "page": str(index), "notes": notes}


def _table(tracks: Sequence[Track]) -> Table:
    """The tracks: equity before the newest trades, return since the first, and days that were not as planned."""
    from rich.table import Table

    table = Table(title=f"{len(tracks)} paper track{'s' if len(tracks) != 1 else ''}", title_justify="left")
    for name in ("track", "equity USD", "return", "days", "plan", "costs", "edge"):
        table.add_column(name, justify="right" if name in ("equity USD", "return") else "left", overflow="fold")
    for track in tracks:
        record, name = track.record, f"{track.name}{' FAILED' if track.failures else ''}"
        if record is None or record.last is None:
            table.add_row(name)
            continue
        late, gaps = len(record.caught_up), len(record.missed)
        days = [f"{record.days}", f"{late} late" if late else "", f"{gaps} MISSED" if gaps else ""]
        table.add_row(
            name,
            "not known" if record.equity_usd is None else f"{record.equity_usd:,.0f}",
            "n/a" if record.return_frac is None else f"{record.return_frac:+z.2%}",
            ", ".join(filter(None, days)),
            *(track.answers[part]["state"] for part in ("plan", "costs", "edge") if track.answers),
        )
    return table
