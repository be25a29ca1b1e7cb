"""One run of ``hlbt live``, or one at every scheduled instant: trades or previews, shows and alerts what came of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.commands.live_answers import monitored, promoted_strategy, states
from engine.commands.live_options import AccountOptions, OrderOptions
from engine.commands.live_tables import orders_table, plan_tables
from engine.commands.options import cache_alone, clock
from engine.commands.progress import print_json, progress, show_all, waiting
from engine.errors import (
    ConfigError,
    DemotedError,
    HlbtError,
    IncompleteError,
    LiveError,
    PositionsError,
    SpecError,
    UnreachableError,
)

if TYPE_CHECKING:
    import pandas as pd

    from engine.live.demotion import Demotion
    from engine.live.orders import Outcome
    from engine.live.session import Session
    from engine.live.targets import Strategy
    from engine.live.venue import Venue

#: Runs of one instant while its book is incomplete or the exchange does not answer, and the time between them (a
#: timedelta of datetime, so that the command line starts without pandas).
DAILY_ATTEMPTS = 5
DAILY_PAUSE = timedelta(minutes=2)


@dataclass(frozen=True)
class RunOptions:
    """How a command runs: on which account and when, and whether it sends orders."""

    venue: Venue
    now: pd.Timestamp
    sync: bool
    as_json: bool
    orders: OrderOptions = field(default_factory=OrderOptions)
    ignore_kill: bool = False
    heartbeat: str | None = field(default=None, repr=False)


def load_strategy(path: Path, cache: str | None, options: RunOptions) -> Strategy:
    """The strategy of a spec, or of a book of specs."""
    from engine.live.book_file import read_strategy, spec_paths
    from engine.live.spec import read_spec

    with failure_alerted(options, path.stem):
        if options.orders.execute and options.venue.network == "mainnet":
            for file in spec_paths(path):
                if read_spec(file).synthetic:
                    raise SpecError(
                        f"Spec {file} was validated on synthetic data: it trades no real money. Promote a real run."
                    )
        return read_strategy(path, cache)


def run_daily(path: Path, cache: str | None, options: RunOptions) -> None:
    """Run at every scheduled instant, until interrupted; a day that fails is reported and the loop continues."""
    from engine.clock import show
    from engine.live.schedule import ORDER_LEAD, next_run, trade_instant

    strategy, at = load_strategy(path, cache, options), clock()
    if options.orders.execute and options.venue.interrupted(strategy, at):
        sys.stderr.write("hlbt: the last run was interrupted: it is continued.\n")
        _attempts(strategy, replace(options, sync=False), at)
    while True:
        strategy = load_strategy(path, cache, options)
        data_at, order_at = next_run(clock(), strategy.config)
        sys.stderr.write(f"hlbt: data at {data_at:%Y-%m-%d %H:%M} UTC, orders at {order_at:%H:%M} UTC.\n")
        needs_sync = options.sync
        if needs_sync:
            sleep_until(data_at)
            try:
                sync_data(strategy, replace(options, now=clock()))
                needs_sync = False
                if options.orders.execute:
                    with _session(strategy, replace(options, now=clock()), [], "Preparing ...") as session:
                        session.prepare()
            except HlbtError as error:
                sys.stderr.write(f"hlbt: {error} It is tried again with the orders.\n")
        sleep_until(order_at)
        if trade_instant(clock(), strategy.config) != order_at + ORDER_LEAD:
            # Traded now, it would be a book of an hour that was never validated.
            text = f"The instant {show(order_at + ORDER_LEAD)} was missed: it is {show(clock())}. Nothing was ordered."
            sys.stderr.write(f"hlbt: {text}\n")
            _alert(options, {"strategy": path.stem, "error": text, "code": LiveError.exit_code})
            code = LiveError.exit_code
        else:
            code = _attempts(strategy, replace(options, sync=needs_sync), order_at)
        _send_heartbeat(options, path.stem, order_at + ORDER_LEAD, code)


def _attempts(strategy: Strategy, options: RunOptions, at: pd.Timestamp) -> int:
    """Run from `at` on, again while the book is incomplete or the exchange does not answer; failures are reported.

    Returns the exit code that the last run alone would have had.
    """
    code = 0
    for attempt in range(DAILY_ATTEMPTS):
        try:
            run_once(strategy, replace(options, now=clock()))
            return 0
        except (IncompleteError, PositionsError, UnreachableError) as error:
            sys.stderr.write(f"hlbt: {error}\n")
            code = error.exit_code
            sleep_until(at + (attempt + 1) * DAILY_PAUSE)
        except SpecError:
            raise
        except HlbtError as error:
            sys.stderr.write(f"hlbt: {error}\n")
            return error.exit_code
    return code


def _send_heartbeat(options: RunOptions, name: str, instant: pd.Timestamp, code: int) -> None:
    """Say that the loop is alive, and what came of an instant; whoever listens notices when nothing comes."""
    if options.heartbeat:
        message = {"strategy": name, "heartbeat": instant.isoformat(), "code": code}
        _post(options.heartbeat, "heartbeat", options, message)


def _post(url: str, what: str, options: RunOptions, message: dict[str, Any]) -> None:
    from engine.live.alerts import send_alert

    if problem := send_alert(url, what, {**message, "network": options.venue.network}):
        sys.stderr.write(f"hlbt: {problem}; the run is not affected.\n")


def sleep_until(instant: pd.Timestamp) -> None:
    """Wait for the clock."""
    while (left := (instant - clock()).total_seconds()) > 0:
        time.sleep(min(left, 30.0))  # in pieces: a laptop that was suspended wakes late


def sync_data(strategy: Strategy, options: RunOptions) -> list[str]:
    """Update the cache; returns notes for people."""
    with progress() as step:
        return options.venue.sync(strategy, options.now, step)


@contextmanager
def failure_alerted(options: RunOptions, name: str) -> Iterator[None]:
    """Alert of whatever ends the block by an error: then nothing is traded, or not all."""
    try:
        yield
    except BaseException as error:
        # The text of an error that is not ours might quote anything.
        text, code = (str(error), error.exit_code) if isinstance(error, HlbtError) else (type(error).__name__, 1)
        _alert(options, {"strategy": name, "error": text, "code": code})
        raise


def _alert(options: RunOptions, message: dict[str, Any]) -> None:
    if options.orders.webhook and options.orders.execute:
        _post(options.orders.webhook, "alert", options, message)


def run_once(strategy: Strategy, options: RunOptions) -> None:
    """Trade, or show what would be traded, and alert of what came of it."""
    with failure_alerted(options, strategy.name):
        notes = sync_data(strategy, options) if options.sync and options.venue.needs_data(strategy) else []
        if not options.orders.execute:
            return _preview(strategy, options, notes)
        message = _execute(strategy, options, notes)
    _alert(options, message)


@contextmanager
def _session(strategy: Strategy, options: RunOptions, notes: list[str], what: str) -> Iterator[Session]:
    from engine.monitoring.alarms import watch_of
    from engine.monitoring.books import book_watches

    with waiting(what), options.venue.open(strategy, options.now, options.orders.execute) as session:
        session.notes += notes
        session.accept_positions, session.ignore_kill = options.orders.accept_positions, options.ignore_kill
        session.accepts_equity = options.orders.accept_equity
        session.watch = watch_of(strategy)
        session.part_watches = book_watches(strategy)
        session.announce = lambda text: sys.stderr.write(f"hlbt: {text}\n")
        yield session


def _execute(strategy: Strategy, options: RunOptions, notes: list[str]) -> dict[str, Any]:
    """Trade and show the outcome; returns the message of an alert."""
    incomplete: IncompleteError | None = None
    with _session(strategy, options, notes, "Trading ...") as session:
        try:
            outcome = session.execute()
        except IncompleteError as error:
            incomplete, outcome = error, error.outcome  # type: ignore[assignment]
    answers, check = _answers(session)
    if outcome.plan is None:
        check = "plan = replay: an earlier run's plan was carried out"
    check = check or _made_again(session)
    _show_outcome(outcome, session, options, answers, check)
    if incomplete is not None:
        raise incomplete
    refuse_demoted(strategy.name, session.demotion, session.part_demotions)
    return {
        "plan_check": check,
        "strategy": strategy.name,
        "instant": session.instant.isoformat(),
        "equity_usd": next(entry["equity_usd"] for entry in session.journal.entries[::-1] if entry["kind"] == "done"),
        "orders": len(outcome.results),
        "complete": True,
        "code": 0,
    }


def _made_again(session: Session) -> str:
    """Whether the plan that was traded is its own replay, for people, where its answers do not say it."""
    from engine.monitoring.replay import check_newest

    try:
        with waiting("Making the plan again ..."):
            return str(check_newest(session.journal.entries, session.strategy))
    except HlbtError as error:
        return f"plan = replay: not checked, {error}"


def _preview(strategy: Strategy, options: RunOptions, notes: list[str]) -> None:
    """Show a plan; raises for the limits that it breaks."""
    from engine.live.risk_limits import refuse

    with _session(strategy, options, notes, "Planning ...") as session:
        plan, breached = session.preview()
    if stop := session.kill_text():
        session.notes.append(f"{stop}: nothing would be ordered")
    answers, _ = _answers(session)
    if options.as_json:
        print_json(
            {**session_fields(session), "answers": answers, **plan.to_dict(), "executed": False, "breaches": breached}
        )
    else:
        limits = [f"LIMIT  {text}" for text in breached]
        shown = [*_state_lines(answers), *plan_tables(plan), *note_lines(session.notes), *limits]
        show_all(*shown, "Nothing was sent.")
    refuse(breached, "Dry run")
    refuse_demoted(strategy.name, session.demotion, session.part_demotions)


def refuse_demoted(name: str, demotion: Demotion | None, of_specs: Mapping[str, Demotion]) -> None:
    """Raise a DemotedError where a strategy stands demoted: its book is not, and will not be, at its target."""
    from engine.live.demotion import demotion_text

    if demotion is not None:
        raise DemotedError(f"{demotion_text(name, demotion)}.")
    if of_specs:
        names = ", ".join(sorted(of_specs))
        raise DemotedError(f"Of the book {name} these are DEMOTED, the others go on: {names}.")


def _answers(session: Session) -> tuple[dict[str, Any] | None, str | None]:
    """The states of the three answers, and what came of making the newest plan again; None where no spec says how.

    They come after the orders, which wait for nothing, and are shown before them.
    """
    promoted = promoted_strategy(session.strategy)
    if promoted.spec is None and not promoted.members:
        return None, None
    strategy, label = session.strategy, session.dex.label
    try:
        with waiting("Comparing with the replay ..."):
            found = monitored(promoted, session.journal, strategy.config, strategy.name, label, newest=1)
        return states(found), found["plan_check"]
    except HlbtError as error:
        session.notes.append(f"the state is not known: {error}")
        return None, None


def _state_lines(answers: dict[str, Any] | None) -> list[str]:
    return [] if answers is None else [f"State: {answers['line']}."]


def _show_outcome(
    outcome: Outcome, session: Session, options: RunOptions, answers: dict[str, Any] | None, check: str
) -> None:
    if options.as_json:
        print_json({**session_fields(session), "answers": answers, **outcome.to_dict(), "plan_check": check})
        return
    plan = [] if outcome.plan is None else plan_tables(outcome.plan)
    missing = [f"MISSING  {item}" for item in outcome.missing]
    notes = note_lines([*session.notes, *outcome.notes])
    end = "At target." if outcome.complete else "NOT at target."
    show_all(*_state_lines(answers), *plan, orders_table(outcome), *missing, *notes, f"{check}.", end)


def session_fields(session: Session) -> dict[str, Any]:
    """What every ``--json`` of a session begins with."""
    return {
        "strategy": session.strategy.name,
        "network": session.dex.network,
        "account": session.dex.label,
        "instant": session.instant.isoformat(),
        "journal": str(session.journal.path),
        "demotion": None if session.demotion is None else session.demotion.to_dict(),
        "session_notes": session.notes,
    }


def note_lines(notes: list[str]) -> list[str]:
    """Notes, a line each."""
    return [f"NOTE: {note}" for note in notes]


# Options --------------------------------------------------------------------------------------------------------------


def run_options(account: AccountOptions, sync: bool) -> RunOptions:
    """Options without orders."""
    from engine.clock import parse_instant
    from engine.live.venue import Venue

    check_range("--timeout-seconds", account.timeout, 600)
    venue = Venue(
        network=account.network,
        base_url=account.base_url,
        credentials=account.credentials,
        timeout_seconds=account.timeout,
    )
    if account.journal is not None:
        venue = replace(venue, journal=account.journal)
        venue = replace(venue, kill_switch=venue.folder / venue.kill_switch.name)
    if account.kill_switch is not None:
        venue = replace(venue, kill_switch=account.kill_switch)
    now = clock() if account.now is None else parse_instant(account.now, "--now", hourly=False)
    return RunOptions(venue, now, sync, account.as_json)


def check_range(name: str, value: float, most: float) -> None:
    """Refuse the value of an option that is not above 0 and at most `most`."""
    if not 0.0 < value <= most:
        raise ConfigError(f"{name} {value:g} is not accepted: it must be above 0 and at most {most:g}.")


def spec_path(path: Path) -> Path:
    """The file of a spec or a book that is named by it, or by its name."""
    if path.suffix in (".json", ".toml") or path.exists():
        return path
    named = Path("research") / "promoted" / path
    book = named.with_name(f"{named.name}.toml")
    return book if book.is_file() else named.with_name(f"{named.name}.json")


def cache_of_spec(account: AccountOptions) -> str | None:
    """``data.cache``, the one key that may be set for a spec."""
    named = account.config_file or " ".join(account.settings or ())
    return cache_alone(
        account.config_file,
        account.settings,
        SpecError(f"{named}: what was validated is what trades, so only data.cache can be set. Promote it anew."),
    )
