"""``hlbt live``: from a promoted spec, or a weights file, to an account.

``hlbt live status``: what an account did, and, when it is asked, what it holds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
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
from engine.errors import ConfigError, HlbtError, IncompleteError, LiveError, SpecError, UnreachableError

if TYPE_CHECKING:
    import pandas as pd

    from engine.live.orders import Outcome
    from engine.live.session import Session, Strategy, Venue

EPILOG = (
    "Exit codes: 0 at target, or a dry run within the limits; 3 a limit or the kill switch stopped it, no order sent; "
    "4 the book is incomplete (message and journal say what is missing; run again to go on); 5 the spec is refused; 6 "
    "the exchange is unreachable; 1 any other error. Cron: 40 22 * * * hlbt live plan SPEC; 59 22 * * * hlbt live run "
    "SPEC --execute. systemd: ExecStart=hlbt live run SPEC --execute --daily, Restart=on-failure, RestartSec=30, "
    "RestartPreventExitStatus=5."
)

#: Runs of one instant while its book is incomplete or the exchange silent, and the time between them (datetime's, so
#: that the command line starts without pandas).
DAILY_ATTEMPTS = 5
DAILY_PAUSE = timedelta(minutes=2)

live_app = typer.Typer(help="From a promoted spec to an account: plan, then execute.", no_args_is_help=True)


@dataclass(frozen=True)
class RunOptions:
    """How a command runs: where and when, and whether it orders."""

    venue: Venue
    now: pd.Timestamp
    sync: bool
    as_json: bool
    execute: bool = False
    webhook: str | None = None


@live_app.command("plan", epilog=EPILOG)
@grouped
def plan_command(spec: SpecArgument, where: AccountOptions, sync: SyncOption = True) -> None:
    """Bring the data up to date, ask the oracle, and show what would be ordered; nothing is sent.

    Example: hlbt live plan research/promoted/momentum.json
    """
    from engine.live.session import from_spec

    way = _way(where, sync)
    _run(from_spec(_spec(spec), _cache(where)), way)


@live_app.command("run", epilog=EPILOG)
@grouped
def run_command(
    spec: SpecArgument,
    where: AccountOptions,
    sending: OrderOptions,
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
    way = _ordering(_way(where, sync), sending, slippage_bps)
    path, cache = _spec(spec), _cache(where)
    strategy = _strategy(path, cache, way)
    _confirm(where, sending)
    if daily:
        if where.now is not None:
            raise LiveError("--daily waits for the clock, so it cannot be given --now.")
        if accept_equity:
            raise LiveError("--accept-equity is for one run, so it cannot be given with --daily.")
        _daily(path, cache, way)
    if accept_equity:
        limits = replace(strategy.limits, daily_loss_frac=None, equity_change_frac=None)
        strategy = replace(strategy, limits=limits)
    _run(strategy, way)


@live_app.command("rebalance", epilog=EPILOG)
@grouped
def rebalance_command(
    weights: Annotated[Path, typer.Option("--weights", metavar="FILE", help="CSV or parquet: time, then coins.")],
    where: AccountOptions,
    sending: OrderOptions,
    limit: LimitOption = None,
    sync: SyncOption = True,
    slippage_bps: SlippageOption = 300.0,
) -> None:
    """Set the book to the newest row of a weights file: same planner, limits, journal and flags, no spec.

    Example: hlbt live rebalance --weights weights.csv --execute
    """
    from engine.live.risk_limits import Limits
    from engine.live.session import from_weights

    way = _ordering(_way(where, sync), sending, slippage_bps)
    config = config_of(where.config_file, where.settings)
    limits = Limits.assigned(limit or (), config.account.max_gross)
    with _refusal_alerted(way, weights.stem):
        strategy = from_weights(weights, config, limits, way.now)
    _confirm(where, sending)
    _run(strategy, way)


@live_app.command("flatten", epilog=EPILOG)
@grouped
def flatten_command(
    spec: SpecArgument, where: AccountOptions, sending: OrderOptions, slippage_bps: SlippageOption = 800.0
) -> None:
    """Close every position of the account, reduce-only; works with a spec that is refused, too.

    Example: hlbt live flatten research/promoted/momentum.json --execute
    """
    from engine.live.session import flat

    way = _ordering(_way(where, sync=where.network == "paper"), sending, slippage_bps)
    strategy = flat(spec.stem)
    if where.network == "paper":
        strategy = _paper_flat(strategy, spec, _cache(where))
    _confirm(where, sending)
    _run(strategy, way)


@live_app.command("status")
@grouped
def status_command(
    spec: SpecArgument,
    where: AccountOptions,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the page goes. Default: beside the journal; none with --json.")
    ] = None,
) -> None:
    """Compare what was filled with what the backtest's rules expect: slippage, fees, drift, missed orders.

    It reads the journal and the cache, asks nobody, and needs no key; with --credentials or --base-url it asks the
    account for its equity and positions, too.

    Example: hlbt live status research/promoted/momentum.json
    """
    way = _way(where, sync=False)
    _show_status(_spec(spec), _cache(where), way.venue, way.now, out, way.as_json)


def _way(where: AccountOptions, sync: bool) -> RunOptions:
    """A look at an account."""
    from engine.clock import parse_instant
    from engine.live.session import Venue

    _positive("--timeout-seconds", where.timeout, 600)
    venue = Venue(
        network=where.network,
        base_url=where.base_url,
        credentials=where.credentials,
        timeout_seconds=where.timeout,
    )
    if where.journal is not None:
        venue = replace(venue, folder=where.journal, kill_switch=where.journal / venue.kill_switch.name)
    if where.kill_switch is not None:
        venue = replace(venue, kill_switch=where.kill_switch)
    now = clock() if where.now is None else parse_instant(where.now, "--now", hourly=False)
    return RunOptions(venue, now, sync, where.as_json)


def _ordering(way: RunOptions, sending: OrderOptions, slippage_bps: float) -> RunOptions:
    """The same with orders."""
    from engine.live.alerts import check_webhook
    from engine.live.executor import Policy

    _positive("--slippage-bps", slippage_bps, 5000)
    _positive("--expires-seconds", sending.expires, 600)
    if sending.webhook is not None:
        check_webhook(sending.webhook)
    policy = Policy(slippage_frac=slippage_bps / 1e4, expires_seconds=sending.expires)
    venue = replace(way.venue, policy=policy)
    return replace(way, venue=venue, execute=sending.execute, webhook=sending.webhook)


def _positive(name: str, value: float, most: float) -> None:
    if not 0.0 < value <= most:
        raise ConfigError(f"{name} {value:g} is not accepted: it must be above 0 and at most {most:g}.")


def _spec(path: Path) -> Path:
    if path.suffix == ".json" or path.exists():
        return path
    return Path("research") / "promoted" / f"{path}.json"


def _cache(where: AccountOptions) -> str | None:
    """The one key that may be set for a spec: where the data lie."""
    named = where.config_file or " ".join(where.settings or ())
    return cache_alone(
        where.config_file,
        where.settings,
        SpecError(f"{named}: what was validated is what trades, so only data.cache can be set. Promote it anew."),
    )


def _paper_flat(strategy: Strategy, spec: Path, cache: str | None) -> Strategy:
    """A paper account needs the costs of its spec."""
    from engine.live.spec import read_spec

    config = read_spec(_spec(spec)).config
    data = replace(config.data, cache=cache or config.data.cache, end=None)
    return replace(strategy, config=replace(config, data=data))


def _confirm(where: AccountOptions, sending: OrderOptions) -> None:
    if where.network != "mainnet" or not sending.execute:
        return
    if where.now is not None:
        raise LiveError("Real money is traded at the real time: leave --now out, or leave --execute out.")
    if sending.yes_mainnet:
        return
    if not sys.stdin.isatty():
        raise LiveError("Real money is traded on the main network: confirm with --yes-mainnet where nobody can type.")
    if typer.prompt("This trades REAL MONEY. Type mainnet to go on", err=True).strip() != "mainnet":
        raise LiveError("Not confirmed; nothing was sent.")


def _daily(path: Path, cache: str | None, way: RunOptions) -> None:
    """Run at every scheduled instant, until interrupted; a day that fails is reported, and the next day comes."""
    from engine.clock import show
    from engine.live.live_panel import trade_instant
    from engine.live.session import ORDER_LEAD, Session, next_run

    strategy, at = _strategy(path, cache, way), clock()
    if way.execute and Session(strategy, way.venue, at).interrupted:
        sys.stderr.write("hlbt: the last run was interrupted: it goes on.\n")
        _attempts(strategy, replace(way, sync=False), at)
    while True:
        strategy = _strategy(path, cache, way)
        data_at, order_at = next_run(clock(), strategy.config)
        sys.stderr.write(f"hlbt: data at {data_at:%Y-%m-%d %H:%M} UTC, orders at {order_at:%H:%M} UTC.\n")
        missing = way.sync
        if missing:
            _sleep_until(data_at)
            try:
                _bring(Session(strategy, way.venue, clock()))
                missing = False
            except HlbtError as error:
                sys.stderr.write(f"hlbt: {error} It is tried again with the orders.\n")
        _sleep_until(order_at)
        if trade_instant(clock(), strategy.config) != order_at + ORDER_LEAD:
            # Traded now, it would be a book of an hour that was never validated.
            text = f"The instant {show(order_at + ORDER_LEAD)} was missed: it is {show(clock())}. Nothing was ordered."
            sys.stderr.write(f"hlbt: {text}\n")
            _alert(way, {"strategy": path.stem, "error": text, "code": LiveError.exit_code})
            continue
        _attempts(strategy, replace(way, sync=missing), order_at)


def _attempts(strategy: Strategy, way: RunOptions, at: pd.Timestamp) -> None:
    """Run from `at` on, again while the book is incomplete or the exchange silent; failures are reported."""
    for attempt in range(DAILY_ATTEMPTS):
        try:
            _run(strategy, replace(way, now=clock()))
            break
        except (IncompleteError, UnreachableError) as error:
            sys.stderr.write(f"hlbt: {error}\n")
            _sleep_until(at + (attempt + 1) * DAILY_PAUSE)
        except SpecError:
            raise
        except HlbtError as error:
            sys.stderr.write(f"hlbt: {error}\n")
            break


def _sleep_until(instant: pd.Timestamp) -> None:
    while (left := (instant - clock()).total_seconds()) > 0:
        time.sleep(min(left, 30.0))  # in pieces, for a laptop that slept wakes late


def _bring(session: Session) -> None:
    with progress() as step:
        session.sync(step)


def _strategy(path: Path, cache: str | None, way: RunOptions) -> Strategy:
    """The strategy of a spec."""
    from engine.live.session import from_spec
    from engine.live.spec import read_spec

    with _refusal_alerted(way, path.stem):
        if way.execute and way.venue.network == "mainnet" and read_spec(path).synthetic:
            raise SpecError(
                f"Spec {path} was validated on synthetic data: it trades no real money. Promote a real run."
            )
        return from_spec(path, cache)


@contextmanager
def _refusal_alerted(way: RunOptions, name: str) -> Iterator[None]:
    """Alert that a strategy is refused before it has run, for then nothing is traded."""
    try:
        yield
    except HlbtError as error:
        _alert(way, {"strategy": name, "error": str(error), "code": error.exit_code})
        raise


def _alert(way: RunOptions, message: dict[str, Any]) -> None:
    from engine.live.alerts import send_alert

    if way.webhook and way.execute and (problem := send_alert(way.webhook, {**message, "network": way.venue.network})):
        sys.stderr.write(f"hlbt: {problem}; the run is not affected.\n")


def _run(strategy: Strategy, way: RunOptions) -> None:
    from engine.live.session import Session

    try:
        done = _execute(Session(strategy, way.venue, way.now), way)
    except HlbtError as error:
        done = {"strategy": strategy.name, "error": str(error), "code": error.exit_code}
        raise
    except BaseException as error:
        # Its text is not ours: it might quote anything.
        done = {"strategy": strategy.name, "error": type(error).__name__, "code": 1}
        raise
    finally:
        _alert(way, done)


def _execute(session: Session, way: RunOptions) -> dict[str, Any]:
    """Trade, or show what would be traded; what came of it, for an alert."""
    from engine.live.risk_limits import refuse

    if not way.execute:
        refuse(_show_plan(session, way), "Dry run")
        return {}
    if way.sync and session.wants_data:
        _bring(session)
    try:
        with waiting("Trading ..."):
            outcome = session.execute()
    except IncompleteError as error:
        _show_outcome(error.outcome, session, way)  # type: ignore[arg-type]
        raise
    _show_outcome(outcome, session, way)
    equity = session.manager.journal.equities()[-1][1]
    return {
        "strategy": session.strategy.name,
        "network": way.venue.network,
        "instant": session.instant.isoformat(),
        "equity_usd": equity,
        "orders": len(outcome.answers),
        "complete": True,
        "code": 0,
    }


def _show_plan(session: Session, way: RunOptions) -> list[str]:
    """Show a plan; returns the limits that it breaks."""
    if way.sync and session.wants_data:
        _bring(session)
    # Only a paper account is changed by a look, which must not keep a run from trading.
    with session.locked() if way.venue.network == "paper" else nullcontext(), waiting("Planning ..."):
        plan, breached = session.plan()
    if way.venue.kill_switch.exists():
        session.notes.append(f"the kill switch {way.venue.kill_switch} is set: nothing would be ordered")
    if way.as_json:
        print_json({**_head(session), **plan.to_dict(), "executed": False, "breaches": breached})
    else:
        show_all(
            *plan_tables(plan),
            *_notes(session),
            *(f"LIMIT  {text}" for text in breached),
            "Nothing was sent.",
        )
    return breached


def _show_outcome(outcome: Outcome, session: Session, way: RunOptions) -> None:
    if way.as_json:
        print_json({**_head(session), **outcome.to_dict()})
        return
    parts: list[Any] = [] if outcome.plan is None else plan_tables(outcome.plan)
    parts.append(orders_table(outcome))
    for item in outcome.missing:
        parts.append(f"MISSING  {item.coin}: at {item.units:g}, target {item.target_units:g} ({item.reason})")
    show_all(*parts, *_notes(session), *(f"NOTE: {note}" for note in outcome.notes))
    show_all("At target." if outcome.complete else "NOT at target.")


def _head(session: Session) -> dict[str, Any]:
    return {
        "strategy": session.strategy.name,
        "network": session.venue.network,
        "account": session.dex.label,
        "instant": session.instant.isoformat(),
        "journal": str(session.manager.journal.path),
        "session_notes": session.notes,
    }


def _notes(session: Session) -> list[str]:
    return [f"NOTE: {note}" for note in session.notes]


def _show_status(
    path: Path, cache: str | None, venue: Venue, now: pd.Timestamp, out: Path | None, as_json: bool
) -> None:
    """Show the journal of the strategy at `path` and, where `venue` names a host or credentials, its account.

    `cache` is the folder of the data in the place of the spec's own; the page goes to `out`.
    """
    from engine.live.dex import DEX
    from engine.live.hyperliquid import HyperLiquidDEX
    from engine.live.journal import Journal
    from engine.live.performance import account_status, find_journal, live_status
    from engine.live.session import ORDER_LEAD, next_run
    from engine.live.spec import read_spec
    from engine.reporting.html import check_page
    from engine.reporting.live_page import write_live_page

    if out is not None:
        check_page(out, "live status")
    # A journal of a weights file has no spec: then the config is the defaults, and nothing is scheduled.
    promoted = path.suffix == ".json" and path.is_file()
    config = read_spec(path).config if promoted else config_of(None, None)
    data = replace(config.data, cache=cache or config.data.cache, end=None)
    dex: DEX | None = None
    if venue.network != "paper" and (venue.credentials or venue.base_url):
        dex = HyperLiquidDEX(
            venue.network,
            base_url=venue.base_url,
            credentials=venue.credentials,
            timeout_seconds=venue.timeout_seconds,
        )
        file = venue.folder / f"{path.stem}-{dex.label}.jsonl"
    else:
        file = find_journal(venue.folder, path.stem, venue.network)
    found = live_status(Journal(file), replace(config, data=data))
    found["next_instant"] = (next_run(now, config)[1] + ORDER_LEAD).isoformat() if promoted else None
    if dex is not None:
        with waiting("Asking the exchange ..."):
            found["account"] = account_status(dex)
    page = out or (file.with_suffix(".html") if file.is_file() and not as_json else None)
    if page is not None:
        write_live_page(found, path.stem, venue.network, page)
    if as_json:
        print_json(found)
    else:
        show_all(*status_lines(found), f"Page: {page}" if page else f"There is no journal {file}: nothing has run yet.")
