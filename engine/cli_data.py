"""``hlbt data``: the commands of the cache."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from engine.cli_options import ConfigOption, JsonOption, ReplaceOption, SetOption, config_of, store_of
from engine.errors import DataError, some
from engine.terminal import print_json, progress, show_all, status_tables

data_app = typer.Typer(help="The hourly history in data_cache/.", no_args_is_help=True)
import_app = typer.Typer(help="Bring data from files.", no_args_is_help=True)
data_app.add_typer(import_app, name="import")


@import_app.command("freqtrade")
def import_freqtrade_command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder with *-1h-futures.feather and *-1h-funding_rate.feather.")
    ],
    replace: ReplaceOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import freqtrade's HyperLiquid candles and funding.

    Example: hlbt data import freqtrade user_data/data/hyperliquid
    """
    from engine.data.freqtrade import import_freqtrade

    store = store_of(config_of(config, settings))
    with progress() as step:
        report = import_freqtrade(store, folder, replace=replace, progress=step)
    merge = report.merge
    if as_json:
        print_json({"cache": str(store.path), **asdict(report)})
    else:
        show_all(
            f"{report.files} files, {report.coins} coins into {store.path}: {merge.added:,} values added, "
            f"{merge.same:,} were there already, {merge.changed:,} replaced; "
            + (f"months written: {merge.months[0]} to {merge.months[-1]}." if merge.months else "nothing to write.")
        )
    if report.problems:
        cure = " Cached values that differ were kept; --replace takes the new ones." if merge.conflicts else ""
        raise DataError(
            f"Left out, while all else was imported: {some([text.rstrip('.') for text in report.problems], 3)}.{cure}"
        )


@import_app.command("meta")
def import_meta_command(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A saved `meta` or `metaAndAssetCtxs` answer of the exchange (JSON).")
    ],
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="DATE", help="When the answer was saved; it carries no date itself."),
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import lots, leverage and delistings into the coin table.

    Example: hlbt data import meta meta.json --as-of 2025-08-22
    """
    from engine.data.coins import import_meta

    store = store_of(config_of(config, settings))
    report = import_meta(store, file, as_of=as_of)
    if as_json:
        print_json({"cache": str(store.path), **asdict(report)})
        return
    show_all(
        f"{report.coins} coins in {file}: {len(report.added)} new to the coin table, {len(report.changed)} changed, "
        f"{len(report.delisted)} delisted."
    )


@data_app.command("status")
def status_command(config: ConfigOption = None, settings: SetOption = None, as_json: JsonOption = False) -> None:
    """Show what the cache holds: coverage by month, gaps, listings, delistings.

    Example: hlbt data status
    """
    from engine.data.status import status

    found = status(store_of(config_of(config, settings)))
    if as_json:
        print_json(found)
        return
    show_all(*status_tables(found))


@data_app.command("verify")
def verify_command(config: ConfigOption = None, settings: SetOption = None, as_json: JsonOption = False) -> None:
    """Recompute the digest of every file in the cache; exit 1 when one is wrong.

    Example: hlbt data verify
    """
    store = store_of(config_of(config, settings))
    with progress() as step:
        report = store.verify(step)
    if as_json:
        print_json({"cache": str(store.path), "ok": report.ok, **asdict(report)})
    elif report.ok:
        show_all(f"{report.files} files, {report.bytes:,} bytes in {store.path}: every digest is right.")
        if report.foreign:
            show_all(f"Not of the cache, and harmless: {some(report.foreign)}.")
    if not report.ok:
        wrong = [f"{name} is missing" for name in report.missing] + [f"{name} has changed" for name in report.changed]
        raise DataError(f"The cache {store.path} is damaged: {some(wrong)}. Delete it and import again.")
