"""``hlbt live``: from a promoted spec, or a weights file, to orders on an account, and what came of them."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.commands.live_options import (
    AccountOptions,
    OrderOptions,
    SlippageOption,
    SpecArgument,
    SyncOption,
    grouped,
)
from engine.commands.live_run import (
    RunOptions,
    failure_alerted,
    load_strategy,
    note_lines,
    run_daily,
    run_once,
    session_fields,
    sync_data,
)
from engine.commands.live_tables import book_table, log_lines, status_lines
from engine.commands.options import REPORTS, LimitOption, cache_alone, clock, typed_config
from engine.commands.progress import print_json, show_all, waiting
from engine.commands.runs import refresh_index
from engine.errors import ConfigError, LiveError, SpecError

if TYPE_CHECKING:
    from engine.live.hyperliquid import HyperLiquidDEX
    from engine.live.targets import Strategy

EPILOG = (
    "Exit codes: 0 at target, or a dry run within the limits; 3 a limit, the kill switch or positions that no journal "
    "explains stopped it, no order sent; "
    "4 the book is incomplete (message and journal name what is missing; run again); 5 the spec is refused; 6 the "
    "exchange is unreachable; 1 any other error. Cron: 40 22 * * * hlbt live plan SPEC; 59 22 * * * hlbt live run "
    "SPEC --execute. systemd: ExecStart=hlbt live run SPEC --execute --daily, Restart=on-failure, RestartSec=30, "
    "RestartPreventExitStatus=5."
)

live_app = typer.Typer(help="From a promoted spec to an account: plan, then execute.", no_args_is_help=True)


@live_app.command("plan", epilog=EPILOG)
@grouped
def plan_command(spec: SpecArgument, account: AccountOptions, sync: SyncOption = True) -> None:
    """Update the data, call the oracle, and show what would be ordered; nothing is sent.

    Example: hlbt live plan research/promoted/momentum.json
    """
    from engine.live.book_file import read_strategy

    options = _run_options(account, sync)
    run_once(read_strategy(_spec_path(spec), _cache(account)), options)


@live_app.command("run", epilog=EPILOG)
@grouped
def run_command(
    spec: SpecArgument,
    account: AccountOptions,
    orders: OrderOptions,
    daily: Annotated[bool, typer.Option("--daily", help="Wait for each scheduled instant, and repeat.")] = False,
    sync: SyncOption = True,
    slippage_bps: SlippageOption = 300.0,
) -> None:
    """Rebalance once: a dry run unless --execute, on the test network unless --network mainnet.

    With --daily it waits: data 20 minutes, orders one minute before each scheduled instant (22:59 UTC).

    Example: hlbt live run research/promoted/momentum.json --execute
    """
    options = _with_orders(_run_options(account, sync), orders, slippage_bps)
    path, cache = _spec_path(spec), _cache(account)
    strategy = load_strategy(path, cache, options)
    _confirm(account, orders)
    if daily:
        if account.now is not None:
            raise LiveError("--daily waits for the clock: it cannot be given --now. Remove one of the two.")
        for name, given in (("--accept-equity", orders.accept_equity), ("--accept-positions", orders.accept_positions)):
            if given:
                raise LiveError(f"{name} is for one run: it cannot be given with --daily. Remove one of the two.")
        run_daily(path, cache, options)
    run_once(strategy, options)


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
    config = typed_config(account.config_file, account.settings)
    limits = Limits.assigned(limit or (), config.account.max_gross)
    with failure_alerted(options, weights.stem):
        strategy = from_weights(weights, config, limits, options.now)
    _confirm(account, orders)
    run_once(strategy, options)


@live_app.command("flatten", epilog=EPILOG)
@grouped
def flatten_command(
    spec: SpecArgument,
    account: AccountOptions,
    orders: OrderOptions,
    slippage_bps: SlippageOption = 800.0,
    ignore_kill: Annotated[bool, typer.Option("--ignore-kill", help="Go on although a kill switch is set.")] = False,
) -> None:
    """Close every position of the account, reduce-only; works with a spec that is refused, too.

    Example: hlbt live flatten research/promoted/momentum.json --execute
    """
    options = _with_orders(_run_options(account, sync=account.network == "paper"), orders, slippage_bps)
    _confirm(account, orders)
    run_once(_flat(spec, account), replace(options, ignore_kill=ignore_kill))


@live_app.command("accept-equity")
@grouped
def accept_equity_command(spec: SpecArgument, account: AccountOptions) -> None:
    """Note in the journal that the account's equity is as intended, after a deposit or a withdrawal; trades nothing.

    The limits on a day's loss and on the change of equity count from it. Works with a spec that is refused, too.

    Example: hlbt live accept-equity research/promoted/momentum.json
    """
    options = _run_options(account, sync=account.network == "paper")
    strategy = _flat(spec, account)
    if options.sync:
        sync_data(strategy, options)
    with waiting("Reading the account ..."), options.venue.open(strategy, options.now) as session:
        before, equity = session.accept_equity()
    if options.as_json:
        print_json({**session_fields(session), "equity_usd": equity, "equity_before_usd": before})
    else:
        show_all(f"Equity of {equity:,.2f} USD is accepted; the journal's last was {before:,.2f}.")
        show_all(*note_lines(session.notes))


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


@live_app.command("log")
@grouped
def log_command(spec: SpecArgument, account: AccountOptions) -> None:
    """List every order of the journal, oldest first, a line each: what was sent, and what became of it.

    Example: hlbt live log research/promoted/momentum.json
    """
    from engine.live.journal import Journal
    from engine.reporting.live_performance import order_log

    file, _ = _journal_of(_spec_path(spec), _run_options(account, sync=False))
    orders = order_log(Journal(file).entries)
    if account.as_json:
        print_json({"journal": str(file), "orders": orders})
    else:
        show_all(*log_lines(orders) or [f"{file} has no order."])


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
        venue = replace(venue, journal=account.journal)
        venue = replace(venue, kill_switch=venue.folder / venue.kill_switch.name)
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
    return replace(options, venue=replace(options.venue, policy=policy), orders=orders)


def _flat(spec: Path, account: AccountOptions) -> Strategy:
    """The strategy that holds nothing, under the name of `spec`."""
    from engine.config import RunConfig
    from engine.live.book_file import account_config
    from engine.live.targets import flat

    path, config = _spec_path(spec), RunConfig()
    if account.network == "paper":  # it has the costs and the size of its spec
        config = account_config(path)
        config = replace(config, data=replace(config.data, cache=_cache(account) or config.data.cache, end=None))
    else:
        with suppress(SpecError):  # one that is refused can be left: then the journals tell the dexes
            data = account_config(path).data
            config = replace(config, data=replace(config.data, coins=data.coins, dexes=data.dexes))
    return flat(spec.stem, config)


def _check_range(name: str, value: float, most: float) -> None:
    if not 0.0 < value <= most:
        raise ConfigError(f"{name} {value:g} is not accepted: it must be above 0 and at most {most:g}.")


def _spec_path(path: Path) -> Path:
    if path.suffix in (".json", ".toml") or path.exists():
        return path
    named = Path("research") / "promoted" / path
    book = named.with_name(f"{named.name}.toml")
    return book if book.is_file() else named.with_name(f"{named.name}.json")


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


def _journal_of(path: Path, options: RunOptions) -> tuple[Path, HyperLiquidDEX | None]:
    """The journal of the strategy at `path` and, where options name a host or credentials, its account."""
    from engine.live.state_folder import find_journal, journal_path

    venue = options.venue
    if venue.network == "paper" or not (venue.credentials or venue.base_url):
        return find_journal(path.stem, venue.network, venue.journal), None
    dex = venue.exchange()
    return journal_path(path.stem, dex.label, venue.journal), dex


def _show_status(path: Path, cache: str | None, options: RunOptions, out: Path | None) -> None:
    """Show the journal of the strategy at `path` and, where options name a host or credentials, its account."""
    from engine.coin import dex_of
    from engine.live.book_file import account_config
    from engine.live.journal import Journal
    from engine.live.schedule import ORDER_LEAD, next_run
    from engine.reporting.html import check_page
    from engine.reporting.live_page import write_live_page
    from engine.reporting.live_performance import account_status, live_status

    if out is not None:
        check_page(out, "live status")
    venue = options.venue
    # A journal of a weights file has no spec: then the config is the defaults, and nothing is scheduled.
    promoted = path.suffix in (".json", ".toml") and path.is_file()
    config = account_config(path) if promoted else typed_config(None, None)
    data = replace(config.data, cache=cache or config.data.cache, end=None)
    file, dex = _journal_of(path, options)
    journal = Journal(file)
    status = live_status(journal, replace(config, data=data))
    status["next_instant"] = (next_run(options.now, config)[1] + ORDER_LEAD).isoformat() if promoted else None
    if dex is not None:
        dex.use_dexes(set(map(dex_of, (*config.data.selection, *journal.state.positions))))
        with waiting("Reading the account ..."):
            status["account"] = account_status(dex, journal)
    page = out or (venue.folder / f"{file.stem}.html" if file.is_file() and not options.as_json else None)
    if page is not None:
        refresh_index(REPORTS)  # there for the page to link to
        write_live_page(status, path.stem, venue.network, page)
        refresh_index(REPORTS)
    if options.as_json:
        print_json(status)
    else:
        show_all(
            *status_lines(status),
            *([book_table(status["book"])] if status["book"] else []),
            f"Page: {page}" if page else f"There is no journal {file}: nothing has run yet.",
        )
