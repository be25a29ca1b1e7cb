"""``hlbt live``: from a promoted spec, or a weights file, to orders on an account, and what came of them."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.commands.account_status import journal_of, show_status
from engine.commands.live_options import (
    AccountOptions,
    OrderOptions,
    SlippageOption,
    SpecArgument,
    SyncOption,
    grouped,
)
from engine.commands.live_paper import named_track, paper_command
from engine.commands.live_run import (
    RunOptions,
    cache_of_spec,
    check_range,
    failure_alerted,
    load_strategy,
    note_lines,
    run_daily,
    run_once,
    run_options,
    session_fields,
    spec_path,
    sync_data,
)
from engine.commands.live_tables import log_lines
from engine.commands.options import LimitOption, typed_config
from engine.commands.progress import print_json, show_all, waiting
from engine.commands.validate import GatesOption
from engine.errors import LiveError, SpecError

if TYPE_CHECKING:
    from engine.live.targets import Strategy

EPILOG = (
    "Exit codes: 0 at target, or a dry run within the limits; 3 a limit, the kill switch or positions that no journal "
    "explains stopped it, no order sent; "
    "4 the book is incomplete (message and journal name what is missing; run again); 5 the spec is refused; 6 the "
    "exchange is unreachable; 8 the strategy is demoted, only reductions were ordered; 1 any other error. Cron: 40 22 "
    "* * * hlbt live plan SPEC; 59 22 * * * hlbt live run SPEC --execute. systemd: ExecStart=hlbt live run SPEC "
    "--execute --daily, Restart=on-failure, RestartSec=30, RestartPreventExitStatus=5."
)

live_app = typer.Typer(help="From a promoted spec to an account: plan, then execute.", no_args_is_help=True)
live_app.command("paper")(paper_command)


@live_app.command("plan", epilog=EPILOG)
@grouped
def plan_command(spec: SpecArgument, account: AccountOptions, sync: SyncOption = True) -> None:
    """Update the data, call the oracle, and show what would be ordered; nothing is sent.

    Example: hlbt live plan research/promoted/momentum.json
    """
    from engine.live.book_file import read_strategy

    options = run_options(account, sync)
    run_once(read_strategy(spec_path(spec), cache_of_spec(account)), options)


@live_app.command("run", epilog=EPILOG)
@grouped
def run_command(
    spec: SpecArgument,
    account: AccountOptions,
    orders: OrderOptions,
    daily: Annotated[bool, typer.Option("--daily", help="Wait for each scheduled instant, and repeat.")] = False,
    heartbeat: Annotated[
        str | None, typer.Option("--heartbeat", metavar="URL", help="POST here after each instant of --daily.")
    ] = None,
    sync: SyncOption = True,
    slippage_bps: SlippageOption = 300.0,
) -> None:
    """Rebalance once: a dry run unless --execute, on the test network unless --network mainnet.

    With --daily it waits: data 20 minutes, orders one minute before each scheduled instant (22:59 UTC). A demoted
    strategy orders reductions only, and ends with exit code 8.

    Example: hlbt live run research/promoted/momentum.json --execute
    """
    from engine.live.alerts import check_webhook

    options = _with_orders(run_options(account, sync), orders, slippage_bps)
    path, cache = spec_path(spec), cache_of_spec(account)
    if heartbeat is not None:
        check_webhook(heartbeat, "--heartbeat")
        if not daily:
            raise LiveError("--heartbeat is for --daily: a single run has its exit code. Remove it, or add --daily.")
    strategy = load_strategy(path, cache, options)
    _confirm(account, orders)
    if daily:
        if account.now is not None:
            raise LiveError("--daily waits for the clock: it cannot be given --now. Remove one of the two.")
        for name, given in (("--accept-equity", orders.accept_equity), ("--accept-positions", orders.accept_positions)):
            if given:
                raise LiveError(f"{name} is for one run: it cannot be given with --daily. Remove one of the two.")
        run_daily(path, cache, replace(options, heartbeat=heartbeat))
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

    options = _with_orders(run_options(account, sync), orders, slippage_bps)
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
    options = _with_orders(run_options(account, sync=account.network == "paper"), orders, slippage_bps)
    _confirm(account, orders)
    run_once(_flat(spec, account), replace(options, ignore_kill=ignore_kill))


@live_app.command("accept-equity")
@grouped
def accept_equity_command(spec: SpecArgument, account: AccountOptions) -> None:
    """Note in the journal that the account's equity is as intended, after a deposit or a withdrawal; trades nothing.

    The limits on a day's loss and on the change of equity count from it. Works with a spec that is refused, too.

    Example: hlbt live accept-equity research/promoted/momentum.json
    """
    options = run_options(account, sync=account.network == "paper")
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


@live_app.command("reinstate")
@grouped
def reinstate_command(
    spec: SpecArgument,
    account: AccountOptions,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it stays on record.")],
    of_book: Annotated[
        str | None, typer.Option("--spec", metavar="NAME", help="Of a book: which of its specs was demoted.")
    ] = None,
) -> None:
    """Let a demoted strategy add risk again, with a reason on record; trades nothing.

    It is over for the alarm that demoted it: the days are counted anew, and a later alarm demotes it again.

    Example: hlbt live reinstate research/promoted/momentum.json --reason "the fee schedule was wrong, and is mended"
    """
    options, path = run_options(account, sync=False), spec_path(spec)
    name = path.stem
    if of_book is not None and path.suffix == ".json" and path.is_file():
        raise LiveError(f"--spec {of_book} names a spec of a book, and {path} is none. Name the book, or leave it out.")
    demotion = options.venue.reinstate(name, reason, options.now, of_book)
    name = of_book or name
    if options.as_json:
        print_json({"strategy": name, "reinstated": demotion.to_dict(), "reason": reason.strip()})
    else:
        show_all(f"{name} is reinstated. What had demoted it: {demotion.text}.")


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
    show_status(named_track(spec, account.network), cache_of_spec(account), run_options(account, sync=False), out)


@live_app.command("calibrate")
@grouped
def calibrate_command(spec: SpecArgument, account: AccountOptions, gates: GatesOption = None) -> None:
    """Fit costs to the fills of a journal; show the promoted run and its gates under them, beside the spec's own.

    It reads the journal, the cache and the spec, and changes none of them: new costs are a new promotion.

    Example: hlbt live calibrate research/promoted/momentum.json
    """
    from engine.commands.live_calibrate import calibrate_spec

    track = named_track(spec, account.network)
    if track.candidate or track.path.suffix == ".toml":
        what = "a candidate" if track.candidate else "a book"
        raise LiveError(f"{track.path} is {what}: costs are fitted for a promoted spec with a journal. Name one.")
    file, _ = journal_of(track, run_options(account, sync=False))
    calibrate_spec(track.path, cache_of_spec(account), file, gates, account.as_json)


@live_app.command("log")
@grouped
def log_command(spec: SpecArgument, account: AccountOptions) -> None:
    """List every order of the journal, oldest first, a line each: what was sent, and what became of it.

    Example: hlbt live log research/promoted/momentum.json
    """
    from engine.live.journal import Journal
    from engine.reporting.live_performance import order_log

    file, _ = journal_of(named_track(spec, account.network), run_options(account, sync=False))
    orders = order_log(Journal(file).entries)
    if account.as_json:
        print_json({"journal": str(file), "orders": orders})
    else:
        show_all(*log_lines(orders) or [f"{file} has no order."])


# Options --------------------------------------------------------------------------------------------------------------


def _with_orders(options: RunOptions, orders: OrderOptions, slippage_bps: float) -> RunOptions:
    from engine.live.alerts import check_webhook
    from engine.live.orders import Policy

    check_range("--slippage-bps", slippage_bps, 5000)
    check_range("--expires-seconds", orders.expires, 600)
    if orders.webhook is not None:
        check_webhook(orders.webhook)
    policy = Policy(slippage_frac=slippage_bps / 1e4, expires_seconds=orders.expires)
    return replace(options, venue=replace(options.venue, policy=policy), orders=orders)


def _flat(spec: Path, account: AccountOptions) -> Strategy:
    """The strategy that holds nothing, under the name of `spec`."""
    from engine.config import RunConfig
    from engine.live.book_file import account_config
    from engine.live.targets import flat

    path, config = spec_path(spec), RunConfig()
    if account.network == "paper":  # it has the costs and the size of its spec
        config = account_config(path)
        config = replace(config, data=replace(config.data, cache=cache_of_spec(account) or config.data.cache, end=None))
    else:
        with suppress(SpecError):  # one that is refused can be left: then the journals tell the dexes
            data = account_config(path).data
            config = replace(config, data=replace(config.data, coins=data.coins, dexes=data.dexes))
    return flat(spec.stem, config)


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
