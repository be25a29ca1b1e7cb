"""Options that the ``hlbt live`` commands share: declared once, and passed to a command as one value."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.commands.options import ConfigOption, JsonOption, SetOption

SpecArgument = Annotated[Path, typer.Argument(metavar="SPEC", help="research/promoted/NAME.json, NAME, or a book.")]
SyncOption = Annotated[bool, typer.Option("--sync/--no-sync", help="Update the end of the cache first.")]
SlippageOption = Annotated[float, typer.Option("--slippage-bps", help="Distance of a limit from mid.")]


@dataclass(frozen=True)
class NetworkOptions:
    """Options that name an account of an exchange."""

    network: Annotated[str, typer.Option("--network", help="testnet, mainnet or paper.")] = "testnet"
    credentials: Annotated[
        Path | None,
        typer.Option("--credentials", metavar="FILE", help="Default hyperliquid_config.json, or environment."),
    ] = None


@dataclass(frozen=True)
class MarketOptions:
    """Options of every command of accounts, whichever the account is."""

    base_url: Annotated[str | None, typer.Option("--base-url", help="Another host, for data and orders.")] = None
    now: Annotated[str | None, typer.Option("--now", metavar="ISO", help="Use this as the current time.")] = None
    journal: Annotated[
        Path | None,
        typer.Option("--journal", metavar="PATH", help="Journal, .jsonl, or its folder. Default: the account's own."),
    ] = None
    kill_switch: Annotated[
        Path | None, typer.Option("--kill-switch", metavar="FILE", help="While it exists nothing is ordered.")
    ] = None
    timeout: Annotated[float, typer.Option("--timeout-seconds", help="Time limit of a request.")] = 10.0
    config_file: ConfigOption = None
    settings: SetOption = None
    as_json: JsonOption = False


@dataclass(frozen=True)
class AccountOptions(MarketOptions, NetworkOptions):
    """Options of every command that reads an account that it names."""


@dataclass(frozen=True)
class OrderOptions:
    """Options of every command that may send orders."""

    execute: Annotated[bool, typer.Option("--execute", help="Send the orders; without it nothing is sent.")] = False
    yes_mainnet: Annotated[
        bool, typer.Option("--yes-mainnet", help="Trade real money without the typed confirmation.")
    ] = False
    accept_positions: Annotated[
        bool,
        typer.Option("--accept-positions", help="Once, after trades of your own: the account's positions count."),
    ] = False
    accept_equity: Annotated[
        bool, typer.Option("--accept-equity", help="Once, after a deposit or a withdrawal: `live accept-equity` first.")
    ] = False
    expires: Annotated[float, typer.Option("--expires-seconds", help="An order is void after this time.")] = 15.0
    webhook: Annotated[
        str | None, typer.Option("--webhook", metavar="URL", help="POST a JSON alert of the result.")
    ] = None


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with the fields of its dataclass parameters as options of their own, as typer wants them."""
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: item.annotation for name, item in signature.parameters.items() if is_dataclass(item.annotation)
    }
    options: list[inspect.Parameter] = []
    for name, item in signature.parameters.items():
        group = groups.get(name)
        options += [item] if group is None else inspect.signature(group, eval_str=True).parameters.values()

    @wraps(command)
    def run(**values: Any) -> None:
        made = {
            name: group(**{item.name: values.pop(item.name) for item in fields(group)})
            for name, group in groups.items()
        }
        command(**values, **made)

    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
    )
    return run
