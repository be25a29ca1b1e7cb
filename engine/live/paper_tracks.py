"""Paper tracks: a strategy that trades a paper account at every instant of its schedule, the missed ones afterwards.

A track is the paper account, journal and lock that ``hlbt live run --network paper`` has. An instant that nobody was
there for is traded later from the cache, as a backtest would, and the journal says so (``caught_up``). One that could
not be traded is missed for good as soon as a later one was traded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd

from engine.clock import HOUR, show
from engine.config import RunConfig
from engine.errors import IncompleteError, LimitError
from engine.live.demotion import Demotion
from engine.live.journal import Journal
from engine.live.paper_market import PaperMarket, paper_account
from engine.live.schedule import ORDER_LEAD, SEARCHED, scheduled_instants, trade_instant
from engine.live.session import Session
from engine.live.state_folder import journal_path
from engine.live.targets import Strategy, Watch, flat_key
from engine.live.venue import Venue


@dataclass
class TrackRun:
    """What one run did for a track.

    Attributes
    ----------
    journal : Journal
        After the run.
    traded : list of Timestamp
        Instants whose orders were sent.
    problems : list of (Timestamp, HlbtError)
        Instants at which a limit stopped the run, or the book was left incomplete.
    notes : list of str
        For people.
    demotion : Demotion or None
        Under which the strategy stands.
    part_demotions : dict of str to Demotion
        Those of the specs of a book.
    """

    journal: Journal
    traded: list[pd.Timestamp] = field(default_factory=list)
    problems: list[tuple[pd.Timestamp, LimitError | IncompleteError]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    demotion: Demotion | None = None
    part_demotions: dict[str, Demotion] = field(default_factory=dict)

    def trade(self, session: Session, instant: pd.Timestamp) -> None:
        """Trade an instant; a limit that stops it, or what it leaves incomplete, is one of the problems."""
        try:
            session.execute()
            self.traded.append(instant)
        except (LimitError, IncompleteError) as error:
            self.problems.append((instant, error))
        self.demotion, self.part_demotions = session.demotion, session.part_demotions
        self.notes += [note for note in session.notes if note not in self.notes]


@dataclass(frozen=True)
class TrackRecord:
    """How far a track has come, by its journal.

    Attributes
    ----------
    first, last : Timestamp or None
        Instants of its first and its newest plan; None before the first.
    start_usd, equity_usd : float or None
        Equity before the trades of `first` and of `last`.
    days : int
        Instants that were traded.
    caught_up : tuple of Timestamp
        Those that were traded afterwards, from the cache.
    missed : tuple of Timestamp
        Instants of the schedule between `first` and `last` at which nothing was traded.
    """

    first: pd.Timestamp | None
    last: pd.Timestamp | None
    start_usd: float | None
    equity_usd: float | None
    days: int
    caught_up: tuple[pd.Timestamp, ...]
    missed: tuple[pd.Timestamp, ...]

    @property
    def return_frac(self) -> float | None:
        """Equity before the newest trades over that before the first, less 1."""
        return self.equity_usd / self.start_usd - 1.0 if self.start_usd and self.equity_usd is not None else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values; instants as ISO 8601."""
        return {
            "first": None if self.first is None else self.first.isoformat(),
            "last": None if self.last is None else self.last.isoformat(),
            "start_usd": self.start_usd,
            "equity_usd": self.equity_usd,
            "return_frac": self.return_frac,
            "days": self.days,
            "caught_up": [instant.isoformat() for instant in self.caught_up],
            "missed": [instant.isoformat() for instant in self.missed],
        }


#: The record of a track that has traded nothing yet.
NOT_BEGUN: Final = TrackRecord(None, None, None, None, 0, (), ())


def due_instants(entries: Sequence[Mapping[str, Any]], config: RunConfig, now: pd.Timestamp) -> list[pd.Timestamp]:
    """Instants of the schedule that a track has to trade, oldest first.

    An instant is due from one minute before it. A track that is new begins with the newest such instant; later runs go
    on after the newest instant that was traded or refused, and with it while it is not at its end.
    """
    latest = (now + ORDER_LEAD).floor(HOUR)
    tried = [pd.Timestamp(entry["instant"]) for entry in entries if entry["kind"] in ("plan", "refused")]
    if not tried:
        return list(scheduled_instants(latest - SEARCHED, latest, config)[-1:])
    newest = max(tried)
    ended = any(
        entry["kind"] == "done" and entry["complete"] and pd.Timestamp(entry["instant"]) == newest for entry in entries
    )
    killed = any(entry["kind"] == "plan" for entry in entries[_last_end(entries) + 1 :])
    again = killed or (not ended and newest == trade_instant(now, config))
    first = newest if again else newest + HOUR
    return list(scheduled_instants(first, latest, config)) if first <= latest else []


def _last_end(entries: Sequence[Mapping[str, Any]]) -> int:
    """Place of the newest end of a run; -1 before the first."""
    return max((place for place, entry in enumerate(entries) if entry["kind"] == "done"), default=-1)


def run_track(
    venue: Venue,
    market: PaperMarket,
    strategy: Strategy,
    now: pd.Timestamp,
    step: Callable[[int, int], object] = lambda done, total: None,
    watch: Watch | None = None,
    part_watches: Mapping[str, Watch] | None = None,
) -> TrackRun:
    """Trade every instant that is due; a limit, or a coin without a quote, at one of them does not stop the next.

    Parameters
    ----------
    venue : Venue
        Of the network ``paper``: folder of the account, policy and kill switch.
    market : PaperMarket
        The one of all tracks.
    strategy : Strategy
    now : Timestamp
    step : callable
        Called with the instants that are done, and of how many.
    watch : callable, optional
        The alarms, as a session asks them.
    part_watches : mapping of str to callable, optional
        Those of each spec of a book.

    Raises
    ------
    DataError
        When the cache lacks the hours since the account's newest.
    LimitError
        While a kill switch is set; nothing is traded then.
    LiveError
        When another process trades the account.
    """
    config = strategy.config
    with venue.paper_lock(strategy.name):
        run = TrackRun(Journal(journal_path(strategy.name, "paper", venue.journal)))
        entries = run.journal.entries
        instants = due_instants(entries, config, now)
        if not instants:
            return run
        keys = [entry["key"] for entry in entries if entry["kind"] == "plan"]
        keys = [key for key in keys if key != flat_key(strategy.name)]  # closing the book was no other spec
        if keys and keys[-1] != strategy.key:
            run.notes.append(f"from {show(instants[0])} on it trades another spec than before")
        account = paper_account(strategy, market.panel(config, instants[-1]), venue.folder, instants[0])
        instants = [instant for instant in instants if instant >= account.instant]
        for place, instant in enumerate(instants):
            step(place, len(instants))
            in_time = trade_instant(now, config) == instant
            at = now if in_time else instant - ORDER_LEAD
            session = Session(strategy, account, run.journal, account.panel, venue.policy, venue.kill_switch, at)
            session.watch, session.part_watches = watch, part_watches or {}
            if stop := session.kill_text():
                raise LimitError(f"Nothing was ordered: {stop}.")
            if not in_time:
                run.journal.append("caught_up", now, instant=instant.isoformat())
            account.advance(instant)
            run.trade(session, instant)
    return run


def track_record(entries: Sequence[Mapping[str, Any]], config: RunConfig) -> TrackRecord:
    """How far a track has come; instants that no plan was made for are named."""
    plans: dict[pd.Timestamp, float | None] = {}
    for entry in entries:  # of several plans of an instant the first has the equity before any trade
        if entry["kind"] == "plan":
            plans.setdefault(pd.Timestamp(entry["instant"]), entry["equity_usd"])
    if not plans:
        return NOT_BEGUN
    instants = sorted(plans)
    first, last = instants[0], instants[-1]
    later = {pd.Timestamp(entry["instant"]) for entry in entries if entry["kind"] == "caught_up"}
    missed = [instant for instant in scheduled_instants(first, last, config) if instant not in plans]
    known = [plans[instant] for instant in instants if plans[instant] is not None]
    return TrackRecord(
        first,
        last,
        known[0] if known else None,
        known[-1] if known else None,
        len(instants),
        tuple(instant for instant in instants if instant in later),
        tuple(missed),
    )
