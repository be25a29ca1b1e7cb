"""``hlbt live``: from a promoted spec, or a weights file, to orders on an account, and what came of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.commands.live_options import (
    AccountOptions,
    OrderOptions,
    SlippageOption,
    SpecArgument,
    SyncOption,
    grouped,
)
from engine.commands.live_tables import orders_table, plan_tables, status_lines
from engine.commands.options import LimitOption, cache_alone, clock, config_of
from engine.commands.progress import print_json, progress, show_all, waiting
from engine.errors import (
    ConfigError,
    HlbtError,
    IncompleteError,
    LiveError,
    PositionsError,
    SpecError,
    UnreachableError,
)

if TYPE_CHECKING:
    import pandas as pd

    from engine.live.orders import Outcome
    from engine.live.session import Session
    from engine.live.targets import Strategy
    from engine.live.venue import Venue

EPILOG = (
    "Exit codes: 0 at target, or a dry run within the limits; 3 a limit, the kill switch or positions that no journal "
    "explains stopped it, no order sent; "
    "4 the book is incomplete (message and journal name what is missing; run again); 5 the spec is refused; 6 the "
    "exchange is unreachable; 1 any other error. Cron: 40 22 * * * hlbt live plan SPEC; 59 22 * * * hlbt live run "
    "SPEC --execute. systemd: ExecStart=hlbt live run SPEC --execute --daily, Restart=on-failure, RestartSec=30, "
    "RestartPreventExitStatus=5."
)

#: Runs of one instant while its book is incomplete or the exchange does not answer, and the time between them (a
#: timedelta of datetime, so that the command line starts without pandas).
DAILY_ATTEMPTS = 5
DAILY_PAUSE = timedelta(minutes=2)

live_app = typer.Typer(help="From a promoted spec to an account: plan, then execute.", no_args_is_help=True)


@dataclass(frozen=True)
class RunOptions:
    """How a command runs: on which account and when, and whether it sends orders."""

    venue: Venue
    now: pd.Timestamp
    sync: bool
    as_json: bool
    execute: bool = False
    accept_positions: bool = False
    webhook: str | None = None


@live_app.command("plan", epilog=EPILOG)
@grouped
def plan_command(spec: SpecArgument, account: AccountOptions, sync: SyncOption = True) -> None:
    """Update the data, ask the oracle, and show what would be ordered; nothing is sent.

    Example: hlbt live plan research/promoted/momentum.json
    """
    from engine.live.targets import from_spec

    options = _run_options(account, sync)
    _run(from_spec(_spec_path(spec), _cache(account)), options)


@live_app.command("run", epilog=EPILOG)
@grouped
def run_command(
    spec: SpecArgument,
    account: AccountOptions,
    orders: OrderOptions,
    daily: Annotated[bool, typer.Option("--daily", help="Wait for each scheduled instant, and repeat.")] = False,
    accept_equity: Annotated[
        bool, typer.Option("--accept-equity", help="Once, after a deposit or a withdrawal: no limit on its change.")
    ] = False,
    sync: SyncOption = True,
    slippage_bps: SlippageOption = 300.0,
) -> None:
    """Rebalance once: a dry run unless --execute, on the test network unless --network mainnet.

    With --daily it waits: data 20 minutes, orders one minute before each scheduled instant (22:59 UTC).

    Example: hlbt live run research/promoted/momentum.json --execute
    """
    options = _with_orders(_run_options(account, sync), orders, slippage_bps)
    path, cache = _spec_path(spec), _cache(account)
    strategy = _strategy(path, cache, options)
    _confirm(account, orders)
    if daily:
        if account.now is not None:
            raise LiveError("--daily waits for the clock: it cannot be given --now. Remove one of the two.")
        for name, given in (("--accept-equity", accept_equity), ("--accept-positions", orders.accept_positions)):
            if given:
                raise LiveError(f"{name} is for one run: it cannot be given with --daily. Remove one of the two.")
        _daily(path, cache, options)
    if accept_equity:
        limits = replace(strategy.limits, daily_loss_frac=None, equity_change_frac=None)
        strategy = replace(strategy, limits=limits)
    _run(strategy, options)


@live_app.command("rebalance", epilog=EPILOG)
@grouped
def rebalance_command(
    weights: Annotated[Path, typer.Option("--weights", metavar="FILE", help="CSV or parquet: time, then coins.")],
    account: AccountOptions,
    orders: OrderOptions,
    limit: LimitOption = None,
    sync: SyncOption = True,
    slippage_bps: SlippageOption = 300.0,
) -> None:
    """Set the book to the newest row of a weights file: same planner, limits, journal and flags, no spec.

    Example: hlbt live rebalance --weights weights.csv --execute
    """
    from engine.live.risk_limits import Limits
    from engine.live.targets import from_weights

    options = _with_orders(_run_options(account, sync), orders, slippage_bps)
    config = config_of(account.config_file, account.settings)
    limits = Limits.assigned(limit or (), config.account.max_gross)
    with _refusal_alerted(options, weights.stem):
        strategy = from_weights(weights, config, limits, options.now)
    _confirm(account, orders)
    _run(strategy, options)


@live_app.command("flatten", epilog=EPILOG)
@grouped
def flatten_command(
    spec: SpecArgument, account: AccountOptions, orders: OrderOptions, slippage_bps: SlippageOption = 800.0
) -> None:
    """Close every position of the account, reduce-only; works with a spec that is refused, too.

    Example: hlbt live flatten research/promoted/momentum.json --execute
    """
    from engine.live.spec import read_spec
    from engine.live.targets import flat

    options = _with_orders(_run_options(account, sync=account.network == "paper"), orders, slippage_bps)
    config = None
    if account.network == "paper":  # it has the costs of its spec
        config = read_spec(_spec_path(spec)).config
        config = replace(config, data=replace(config.data, cache=_cache(account) or config.data.cache, end=None))
    _confirm(account, orders)
    _run(flat(spec.stem, config), options)


@live_app.command("status")
@grouped
def status_command(
    spec: SpecArgument,
    account: AccountOptions,
    out: Annotated[
        Path | None, typer.Option("--out", help="Path of the page. Default: beside the journal; none with --json.")
    ] = None,
) -> None:
    """Compare what was filled with what the backtest's rules expect: slippage, fees, drift, missed orders.

    It reads the journal and the cache and needs no key; with --credentials or --base-url it reads the account's equity
    and positions from the exchange, too.

    Example: hlbt live status research/promoted/momentum.json
    """
    options = _run_options(account, sync=False)
    _show_status(_spec_path(spec), _cache(account), options, out)


# Options --------------------------------------------------------------------------------------------------------------


def _run_options(account: AccountOptions, sync: bool) -> RunOptions:
    """Options without orders."""
    from engine.clock import parse_instant
    from engine.live.venue import Venue

    _check_range("--timeout-seconds", account.timeout, 600)
    venue = Venue(
        network=account.network,
        base_url=account.base_url,
        credentials=account.credentials,
        timeout_seconds=account.timeout,
    )
    if account.journal is not None:
        venue = replace(venue, folder=account.journal, kill_switch=account.journal / venue.kill_switch.name)
    if account.kill_switch is not None:
        venue = replace(venue, kill_switch=account.kill_switch)
    now = clock() if account.now is None else parse_instant(account.now, "--now", hourly=False)
    return RunOptions(venue, now, sync, account.as_json)


def _with_orders(options: RunOptions, orders: OrderOptions, slippage_bps: float) -> RunOptions:
    from engine.live.alerts import check_webhook
    from engine.live.orders import Policy

    _check_range("--slippage-bps", slippage_bps, 5000)
    _check_range("--expires-seconds", orders.expires, 600)
    if orders.webhook is not None:
        check_webhook(orders.webhook)
    policy = Policy(slippage_frac=slippage_bps / 1e4, expires_seconds=orders.expires)
    venue = replace(options.venue, policy=policy)
    accept = orders.accept_positions
    return replace(options, venue=venue, execute=orders.execute, accept_positions=accept, webhook=orders.webhook)


def _check_range(name: str, value: float, most: float) -> None:
    if not 0.0 < value <= most:
        raise ConfigError(f"{name} {value:g} is not accepted: it must be above 0 and at most {most:g}.")


def _spec_path(path: Path) -> Path:
    if path.suffix == ".json" or path.exists():
        return path
    return Path("research") / "promoted" / f"{path}.json"


def _cache(account: AccountOptions) -> str | None:
    """``data.cache``, the one key that may be set for a spec."""
    named = account.config_file or " ".join(account.settings or ())
    return cache_alone(
        account.config_file,
        account.settings,
        SpecError(f"{named}: what was validated is what trades, so only data.cache can be set. Promote it anew."),
    )


def _confirm(account: AccountOptions, orders: OrderOptions) -> None:
    if account.network != "mainnet" or not orders.execute:
        return
    if account.now is not None:
        raise LiveError("--now is not accepted with --execute on mainnet: real money is traded now. Remove --now.")
    if orders.yes_mainnet:
        return
    if not sys.stdin.isatty():
        raise LiveError("Non-interactive session: pass --yes-mainnet to trade real money.")
    if typer.prompt("This trades REAL MONEY. Type mainnet to continue", err=True).strip() != "mainnet":
        raise LiveError("Not confirmed; nothing was sent.")


def _strategy(path: Path, cache: str | None, options: RunOptions) -> Strategy:
    """The strategy of a spec."""
    from engine.live.spec import read_spec
    from engine.live.targets import from_spec

    with _refusal_alerted(options, path.stem):
        if options.execute and options.venue.network == "mainnet" and read_spec(path).synthetic:
            raise SpecError(
                f"Spec {path} was validated on synthetic data: it trades no real money. Promote a real run."
            )
        return from_spec(path, cache)


# Running --------------------------------------------------------------------------------------------------------------


def _daily(path: Path, cache: str | None, options: RunOptions) -> None:
    """Run at every scheduled instant, until interrupted; a day that fails is reported and the loop continues."""
    from engine.clock import show
    from engine.live.schedule import ORDER_LEAD, next_run, trade_instant

    strategy, at = _strategy(path, cache, options), clock()
    if options.execute and options.venue.interrupted(strategy, at):
        sys.stderr.write("hlbt: the last run was interrupted: it is continued.\n")
        _attempts(strategy, replace(options, sync=False), at)
    while True:
        strategy = _strategy(path, cache, options)
        data_at, order_at = next_run(clock(), strategy.config)
        sys.stderr.write(f"hlbt: data at {data_at:%Y-%m-%d %H:%M} UTC, orders at {order_at:%H:%M} UTC.\n")
        needs_sync = options.sync
        if needs_sync:
            _sleep_until(data_at)
            try:
                _sync(strategy, replace(options, now=clock()))
                needs_sync = False
            except HlbtError as error:
                sys.stderr.write(f"hlbt: {error} It is tried again with the orders.\n")
        _sleep_until(order_at)
        if trade_instant(clock(), strategy.config) != order_at + ORDER_LEAD:
            # Traded now, it would be a book of an hour that was never validated.
            text = f"The instant {show(order_at + ORDER_LEAD)} was missed: it is {show(clock())}. Nothing was ordered."
            sys.stderr.write(f"hlbt: {text}\n")
            _alert(options, {"strategy": path.stem, "error": text, "code": LiveError.exit_code})
            continue
        _attempts(strategy, replace(options, sync=needs_sync), order_at)


def _attempts(strategy: Strategy, options: RunOptions, at: pd.Timestamp) -> None:
    """Run from `at` on, again while the book is incomplete or the exchange does not answer; failures are reported."""
    for attempt in range(DAILY_ATTEMPTS):
        try:
            _run(strategy, replace(options, now=clock()))
            break
        except (IncompleteError, PositionsError, UnreachableError) as error:
            sys.stderr.write(f"hlbt: {error}\n")
            _sleep_until(at + (attempt + 1) * DAILY_PAUSE)
        except SpecError:
            raise
        except HlbtError as error:
            sys.stderr.write(f"hlbt: {error}\n")
            break


def _sleep_until(instant: pd.Timestamp) -> None:
    while (left := (instant - clock()).total_seconds()) > 0:
        time.sleep(min(left, 30.0))  # in pieces: a laptop that was suspended wakes late


def _sync(strategy: Strategy, options: RunOptions) -> list[str]:
    """Update the cache; returns notes for people."""
    with progress() as step:
        return options.venue.sync(strategy, options.now, step)


@contextmanager
def _refusal_alerted(options: RunOptions, name: str) -> Iterator[None]:
    """Alert that a strategy is refused before it has run, for then nothing is traded."""
    try:
        yield
    except HlbtError as error:
        _alert(options, {"strategy": name, "error": str(error), "code": error.exit_code})
        raise


def _alert(options: RunOptions, message: dict[str, Any]) -> None:
    from engine.live.alerts import send_alert

    if options.webhook and options.execute:
        problem = send_alert(options.webhook, {**message, "network": options.venue.network})
        if problem:
            sys.stderr.write(f"hlbt: {problem}; the run is not affected.\n")


def _run(strategy: Strategy, options: RunOptions) -> None:
    """Trade, or show what would be traded, and alert of what came of it."""
    message: dict[str, Any] = {}
    try:
        notes = _sync(strategy, options) if options.sync and options.venue.needs_data(strategy) else []
        if options.execute:
            message = _execute(strategy, options, notes)
        else:
            _preview(strategy, options, notes)
    except HlbtError as error:
        message = {"strategy": strategy.name, "error": str(error), "code": error.exit_code}
        raise
    except BaseException as error:
        # Its text is not ours: it might quote anything.
        message = {"strategy": strategy.name, "error": type(error).__name__, "code": 1}
        raise
    finally:
        _alert(options, message)


def _execute(strategy: Strategy, options: RunOptions, notes: list[str]) -> dict[str, Any]:
    """Trade and show the outcome; returns the message of an alert."""
    incomplete: IncompleteError | None = None
    with waiting("Trading ..."), options.venue.open(strategy, options.now) as session:
        session.notes += notes
        session.accept_positions = options.accept_positions
        try:
            outcome = session.execute()
        except IncompleteError as error:
            incomplete, outcome = error, error.outcome  # type: ignore[assignment]
    _show_outcome(outcome, session, options)
    if incomplete is not None:
        raise incomplete
    return {
        "strategy": strategy.name,
        "network": options.venue.network,
        "instant": session.instant.isoformat(),
        "equity_usd": session.journal.state.accepted_equities()[-1].equity_usd,
        "orders": len(outcome.results),
        "complete": True,
        "code": 0,
    }


def _preview(strategy: Strategy, options: RunOptions, notes: list[str]) -> None:
    """Show a plan; raises for the limits that it breaks."""
    from engine.live.risk_limits import refuse

    with waiting("Planning ..."), options.venue.open(strategy, options.now) as session:
        session.notes += notes
        session.accept_positions = options.accept_positions
        plan, breached = session.preview()
    if options.venue.kill_switch.exists():
        session.notes.append(f"the kill switch {options.venue.kill_switch} is set: nothing would be ordered")
    if options.as_json:
        print_json({**_session_fields(session), **plan.to_dict(), "executed": False, "breaches": breached})
    else:
        show_all(
            *plan_tables(plan),
            *_note_lines(session.notes),
            *(f"LIMIT  {text}" for text in breached),
            "Nothing was sent.",
        )
    refuse(breached, "Dry run")


def _show_outcome(outcome: Outcome, session: Session, options: RunOptions) -> None:
    if options.as_json:
        print_json({**_session_fields(session), **outcome.to_dict()})
        return
    parts: list[Any] = [] if outcome.plan is None else plan_tables(outcome.plan)
    parts.append(orders_table(outcome))
    for item in outcome.missing:
        parts.append(f"MISSING  {item.coin}: at {item.units:g}, target {item.target_units:g} ({item.reason})")
    show_all(*parts, *_note_lines([*session.notes, *outcome.notes]))
    show_all("At target." if outcome.complete else "NOT at target.")


def _session_fields(session: Session) -> dict[str, Any]:
    return {
        "strategy": session.strategy.name,
        "network": session.dex.network,
        "account": session.dex.label,
        "instant": session.instant.isoformat(),
        "journal": str(session.journal.path),
        "session_notes": session.notes,
    }


def _note_lines(notes: list[str]) -> list[str]:
    return [f"NOTE: {note}" for note in notes]


def _show_status(path: Path, cache: str | None, options: RunOptions, out: Path | None) -> None:
    """Show the journal of the strategy at `path` and, where options name a host or credentials, its account."""
    from engine.live.journal import Journal, find_journal
    from engine.live.schedule import ORDER_LEAD, next_run
    from engine.live.spec import read_spec
    from engine.reporting.html import check_page
    from engine.reporting.live_page import write_live_page
    from engine.reporting.live_performance import account_status, live_status

    if out is not None:
        check_page(out, "live status")
    venue = options.venue
    # A journal of a weights file has no spec: then the config is the defaults, and nothing is scheduled.
    promoted = path.suffix == ".json" and path.is_file()
    config = read_spec(path).config if promoted else config_of(None, None)
    data = replace(config.data, cache=cache or config.data.cache, end=None)
    dex = venue.exchange() if venue.network != "paper" and (venue.credentials or venue.base_url) else None
    if dex is not None:
        file = venue.folder / f"{path.stem}-{dex.label}.jsonl"
    else:
        file = find_journal(venue.folder, path.stem, venue.network)
    status = live_status(Journal(file), replace(config, data=data))
    status["next_instant"] = (next_run(options.now, config)[1] + ORDER_LEAD).isoformat() if promoted else None
    if dex is not None:
        with waiting("Reading the account ..."):
            status["account"] = account_status(dex)
    page = out or (file.with_suffix(".html") if file.is_file() and not options.as_json else None)
    if page is not None:
        write_live_page(status, path.stem, venue.network, page)
    if options.as_json:
        print_json(status)
    else:
        show_all(
            *status_lines(status), f"Page: {page}" if page else f"There is no journal {file}: nothing has run yet."
        )
