"""``hlbt data``: import, sync and check the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.commands.options import (
    ConfigOption,
    JsonOption,
    ReplaceOption,
    SetOption,
    clock,
    config_of,
    reports_folder,
    store_of,
)
from engine.commands.progress import byte_progress, print_json, progress, show_all, waiting
from engine.commands.runs import refresh_index
from engine.commands.tables import cost_table, status_tables
from engine.errors import ConfigError, DataError, did_you_mean, join_first

if TYPE_CHECKING:
    from engine.config import RunConfig
    from engine.data.cache import Store
    from engine.data.s3_archive import DownloadPlan, Source
    from engine.data.s3_bucket import Bucket
    from engine.data.sync_report import SyncReport

StrictOption = Annotated[
    bool, typer.Option("--strict", help="Take nothing of a file with an impossible price, rather than all else.")
]
QuotesOption = Annotated[
    str | None, typer.Option("--quotes", metavar="l2book", help="Include order book quotes and depths, from S3.")
]
HoursOption = Annotated[str, typer.Option("--hours", help="Hours of these books: 22 gives the row of 23:00 UTC.")]
UsdOption = Annotated[float, typer.Option("--usd-per-gb", help="Price of the transfer.")]
EndpointOption = Annotated[str | None, typer.Option("--endpoint-url", help="Another S3-compatible host.")]
JobsOption = Annotated[int, typer.Option("--jobs", help="Parallel downloads.")]

data_app = typer.Typer(help="The hourly history in data_cache/.", no_args_is_help=True)
import_app = typer.Typer(help="Import data from files.", no_args_is_help=True)
data_app.add_typer(import_app, name="import")


@import_app.command("freqtrade")
def import_freqtrade_command(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder with *-1h-futures.feather, *-1h-funding_rate.feather, ..."),
    ],
    strict: StrictOption = False,
    replace: ReplaceOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import freqtrade's HyperLiquid candles and funding.

    Example: hlbt data import freqtrade user_data/data/hyperliquid
    """
    from engine.data.freqtrade import import_freqtrade

    store = store_of(config_of(config, settings), strict)
    with progress() as step:
        report = import_freqtrade(store, folder, now=clock(), replace=replace, progress=step)
    _show_report(store, report, as_json)


def _show_report(store: Store, report: SyncReport, as_json: bool, dry_run: bool = False) -> None:
    """Print the report of a sync or an import; an error where it could not take everything."""
    if as_json:
        print_json({"cache": str(store.path), **({"dry_run": True} if dry_run else {}), **report.to_dict()})
    else:
        show_all(report.summary())
    if dry_run:
        if not as_json:
            understood = report.details["understood"]
            show_all(
                f"{understood['first']} to {understood['last']}. The first rows as they would be stored:",
                *(
                    ", ".join(
                        f"{name} {value:g}" if isinstance(value, float) else str(value) for name, value in row.items()
                    )
                    for row in understood["sample"]
                ),
                "A dry run: nothing was written.",
            )
        if report.problems:
            raise DataError(f"Of {len(report.problems)} nothing would be taken: {join_first(report.problems)}.")
    elif failure := report.failure():
        raise DataError(failure)


@import_app.command("table")
def import_table_command(
    path: Annotated[
        Path, typer.Argument(metavar="FILE|DIR", help="CSV (also .gz), parquet, feather, JSON or HDF5, or a folder.")
    ],
    stamp: Annotated[
        str | None, typer.Option("--stamp", help="`open` or `close`: what the stamps of candles are. Funding has none.")
    ] = None,
    mapped: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="NAME=OTHER",
            help="Meaning of a column (px=close, note=ignore), or the exchange's name of a coin (X-USD=X, *-USD=*).",
        ),
    ] = None,
    field: Annotated[
        str | None, typer.Option("--field", help="Each column is a coin, and its values are this: close, funding, ...")
    ] = None,
    scale: Annotated[
        list[str] | None, typer.Option("--scale", metavar="FIELD=FACTOR", help="Multiply: funding=0.01 for percent.")
    ] = None,
    timeframe: Annotated[str | None, typer.Option("--timeframe", help="Length of the candles: 1h, 5m, ...")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what is understood; write nothing.")] = False,
    strict: StrictOption = False,
    replace: ReplaceOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import candles, funding or quotes from tables of other programs: long, wide, or a file a coin.

    Example: hlbt data import table candles.csv --stamp open --dry-run
    """
    from engine.data.import_table import TableOptions, import_table

    if stamp not in (None, "open", "close"):
        raise ConfigError(f"--stamp is {stamp!r}; it must be open or close.{did_you_mean(stamp, ('open', 'close'))}")
    pairs = dict(_pair(text, "--map") for text in mapped or ())
    factors = {}
    for name, text in (_pair(text, "--scale") for text in scale or ()):
        try:
            factors[name] = float(text)
        except ValueError:
            raise ConfigError(f"--scale {name}={text} is not a number above 0.") from None
    store = store_of(config_of(config, settings), strict)
    options = TableOptions(None if stamp is None else stamp == "open", pairs, field, factors, timeframe)
    with progress() as step:
        report = import_table(store, path, options, now=clock(), dry_run=dry_run, replace=replace, progress=step)
    _show_report(store, report, as_json, dry_run)


def _pair(text: str, option: str) -> tuple[str, str]:
    name, sign, value = text.rpartition("=")
    if not (name and sign and value):
        raise ConfigError(f"{option} is {text!r}; write NAME=VALUE.")
    return name, value


@import_app.command("meta")
def import_meta_command(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A saved `meta` or `metaAndAssetCtxs` response (JSON)."),
    ],
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="DATE", help="When the response was saved; it has no date itself."),
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import lots, leverage and delistings into the coin table.

    Example: hlbt data import meta meta.json --as-of 2025-08-22
    """
    from engine.data.meta import import_meta

    store = store_of(config_of(config, settings))
    report = import_meta(store, file, as_of=as_of)
    if as_json:
        print_json({"cache": str(store.path), **asdict(report)})
        return
    show_all(
        f"{report.coins} coins in {file}: {len(report.added)} new to the coin table, {len(report.changed)} changed, "
        f"{len(report.delisted)} delisted."
    )


@data_app.command("sync")
def sync_command(
    source: Annotated[
        str,
        typer.Option(
            "--source",
            help="`s3` (history, needs an AWS account), `dir` (files of it in a folder) or `api` (the tail).",
        ),
    ],
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="For `dir`: folder with 20240101.csv.lz4 and so on.")
    ] = None,
    quotes: QuotesOption = None,
    hours: HoursOption = "22",
    yes: Annotated[bool, typer.Option("--yes", help="Allow a cost above --max-usd.")] = False,
    max_usd: Annotated[float, typer.Option("--max-usd", help="Refuse an S3 sync that would cost more.")] = 5.0,
    usd_per_gb: UsdOption = 0.09,
    keep_raw: Annotated[bool, typer.Option("--keep-raw", help="Keep the downloaded objects in raw/.")] = False,
    endpoint_url: EndpointOption = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help="Another host for the API.")] = None,
    timeout_seconds: Annotated[
        float | None, typer.Option("--timeout", help="Seconds without an answer until an error (s3: 60, api: 10).")
    ] = None,
    jobs: JobsOption = 8,
    strict: StrictOption = False,
    replace: ReplaceOption = False,
    ask_again: Annotated[
        bool | None, typer.Option("--ask-again", help="Request hours, too, for which the API had no row before.")
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Download the hours from data.start to data.end from HyperLiquid; run again, it continues where it stopped.

    `dir` takes the archive's files from a folder instead, a mirror or earlier downloads.

    Example: hlbt data sync --source s3 --set data.start=2024-10-01 --set data.end=2025-03-31
    """
    settled = config_of(config, settings)
    store = store_of(settled, strict)
    for_other: dict[str, dict[str, object]] = {
        "s3": {"DIR": folder, "--base-url": base_url, "--ask-again": ask_again},
        "dir": {"--base-url": base_url, "--ask-again": ask_again, "--endpoint-url": endpoint_url},
        "api": {"DIR": folder, "--quotes": quotes, "--endpoint-url": endpoint_url},
    }
    _check_source(source, for_other, timeout_seconds)
    if source == "api":
        report = _sync_api(store, settled, base_url, timeout_seconds or 10.0, replace, ask_again or False)
    else:
        _say_main_dex_alone(settled)
        plan_of = partial(_plan, store, settled, quotes=quotes, hours=hours, jobs=jobs, replace=replace)
        archive, plan = (
            _paid_archive(plan_of, endpoint_url, jobs, timeout_seconds, usd_per_gb, max_usd, yes)
            if source == "s3"
            else _folder_archive(plan_of, store, folder)
        )
        from engine.data.sync_s3 import sync_s3

        with byte_progress() as step:
            report = sync_s3(store, archive, plan, keep_raw=keep_raw, replace=replace, jobs=jobs, progress=step)
    _show_report(store, report, as_json)


def _check_source(source: str, for_other: Mapping[str, dict[str, object]], timeout_seconds: float | None) -> None:
    """Refuse an unknown source, options given that are of another one, and no time."""
    if source not in for_other:
        hint = did_you_mean(source, for_other)
        raise ConfigError(f"--source is {source!r}; it must be s3 or api, or dir with a folder.{hint}")
    of_other = for_other[source] | ({"--timeout": timeout_seconds} if source == "dir" else {})
    wrong = [option for option, value in of_other.items() if value is not None]
    if wrong:
        raise ConfigError(f"{' and '.join(wrong)} has no meaning with --source {source}. Leave it out.")
    if timeout_seconds is not None and not 0 < timeout_seconds < float("inf"):
        raise ConfigError(f"--timeout is {timeout_seconds:g}; it must be a number of seconds above 0.")


def _say_main_dex_alone(config: RunConfig) -> None:
    """Say what of the coins that are wanted the archive cannot have; refuse where that is all of them."""
    from engine.data.coin_names import dexes_of

    dexes = dexes_of(config.data.selection)
    others = [dex for dex in dexes if dex]
    if not others:
        return
    text = f"The archive has the main dex alone, and nothing of {join_first(others)}"
    cure = "`hlbt data sync --source api` has every dex, candles of the last 5,000 hours and all funding"
    if "" not in dexes:
        raise ConfigError(f"{text}. {cure}.")
    typer.echo(f"hlbt: {text}: {cure}.", err=True)


def _paid_archive(
    plan_of: Callable[..., DownloadPlan],
    endpoint_url: str | None,
    jobs: int,
    timeout_seconds: float | None,
    usd_per_gb: float,
    max_usd: float,
    yes: bool,
) -> tuple[Source, DownloadPlan]:
    """The bucket, and what is to be downloaded from it, at a price that the user allows."""
    bucket = _bucket(endpoint_url, jobs, timeout_seconds or 60.0)
    with waiting("Listing the archive ..."):
        plan = plan_of(bucket, usd_per_gb=usd_per_gb)
    plan.check_budget(max_usd, yes)
    return bucket, plan


def _folder_archive(
    plan_of: Callable[..., DownloadPlan], store: Store, folder: Path | None
) -> tuple[Source, DownloadPlan]:
    """A folder with files of the archive, and those of them that the cache lacks."""
    from engine.data.local_archive import LocalArchive

    if folder is None:
        raise ConfigError("--source dir needs the folder: hlbt data sync --source dir DIR.")
    with progress() as step:
        archive = LocalArchive(folder, store.read_objects(), progress=step)
        return archive, plan_of(archive, usd_per_gb=0.0)


def _sync_api(
    store: Store, config: RunConfig, base_url: str | None, timeout_seconds: float, replace: bool, ask_again: bool
) -> SyncReport:
    """Sync from the exchange's own API up to this moment."""
    from engine.clock import parse_instant
    from engine.data.sync_api import sync_api

    data = config.data
    with progress() as step:
        return sync_api(
            store,
            start=None if data.start is None else parse_instant(data.start, "data.start"),
            end=None if data.end is None else parse_instant(data.end, "data.end"),
            coins=data.selection,
            now=clock(),
            base_url=base_url,
            timeout_seconds=timeout_seconds,
            replace=replace,
            ask_again=ask_again,
            progress=step,
            announce=lambda text: typer.echo(f"hlbt: {text}", err=True),
        )


@data_app.command("cost")
def cost_command(
    quotes: QuotesOption = None,
    hours: HoursOption = "22",
    usd_per_gb: UsdOption = 0.09,
    endpoint_url: EndpointOption = None,
    jobs: JobsOption = 8,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a sync from S3 would cost, from the archive's own listings; downloads nothing.

    Example: hlbt data cost --set data.start=2024-10-01 --quotes l2book
    """
    from engine.data.s3_archive import describe

    settled = config_of(config, settings)
    store = store_of(settled)
    _say_main_dex_alone(settled)
    with waiting("Listing the archive ..."):
        plan = _plan(store, settled, _bucket(endpoint_url, jobs, 60.0), quotes, hours, usd_per_gb, jobs)
    if as_json:
        print_json({"cache": str(store.path), **plan.to_dict()})
        return
    show_all(cost_table(plan.to_dict()), *describe(plan))


def _bucket(endpoint_url: str | None, jobs: int, timeout_seconds: float) -> Bucket:
    """The archive."""
    from engine.data.s3_archive import BUCKET
    from engine.data.s3_bucket import Bucket

    return Bucket(BUCKET, endpoint_url, jobs=jobs, timeout_seconds=timeout_seconds)


def _plan(
    store: Store,
    config: RunConfig,
    archive: Source,
    quotes: str | None,
    hours: str,
    usd_per_gb: float,
    jobs: int,
    replace: bool = False,
) -> DownloadPlan:
    """What the settings need from the archive."""
    from engine.clock import parse_instant
    from engine.config_values import split_list
    from engine.data.s3_archive import ArchiveRange, plan_downloads

    if quotes not in (None, "l2book"):
        raise ConfigError(f"--quotes is {quotes!r}; the only kind is l2book.")
    if jobs < 1:
        raise ConfigError(f"--jobs is {jobs}; it must be 1 or more.")
    words = split_list(hours)
    if not all(word.isdecimal() and int(word) < 24 for word in words):
        raise ConfigError(f"--hours is {hours!r}; it must be hours of the day, 0 to 23, as 22 or 10,22.")
    data = config.data
    wanted = ArchiveRange(
        None if data.start is None else parse_instant(data.start, "data.start"),
        None if data.end is None else parse_instant(data.end, "data.end"),
        quotes is not None,
        tuple(sorted({int(word) for word in words})),
        None if data.coins is None else data.coins,
    )
    # What contradicts the cache is downloaded again where it is to replace it.
    records = store.read_objects().values()
    recorded = {record.key: record.etag for record in records if not (replace and record.contradicts)}
    return plan_downloads(archive, recorded, wanted, usd_per_gb=usd_per_gb, jobs=jobs)


@data_app.command("status")
def status_command(
    out: Annotated[
        Path | None, typer.Option("--out", help="File of the page. Default: reports/status.html; none with --json.")
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the contents of the cache, as a table and a page: coverage by month, gaps, listings, delistings, sources.

    Example: hlbt data status
    """
    from engine.data.cache_status import status
    from engine.reporting.html import check_page

    if out is not None:
        check_page(out, "data status")
    from engine.reporting.cache_page import write_status_page

    content = status(store_of(config_of(config, settings)))
    if out is not None:
        write_status_page(content, out)
        refresh_index(out.parent)
    if as_json:
        print_json(content)
        return
    said = f"Page: {out}"
    if out is None:
        try:  # where nothing can be written the table is what was wanted
            page = reports_folder() / "status.html"
            refresh_index(page.parent)  # there for the page to link to
            write_status_page(content, page)
            refresh_index(page.parent)
            said = f"Page: {page}"
        except (DataError, OSError) as error:
            said = f"No page: {error}"
    show_all(*status_tables(content), said)


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
            show_all(f"Ignored, because they do not belong to the cache: {join_first(report.foreign)}.")
    if not report.ok:
        from engine.data.manifest import REBUILD

        wrong = [f"{name} is missing" for name in report.missing] + [f"{name} has changed" for name in report.changed]
        raise DataError(f"The cache {store.path} is damaged: {join_first(wrong)}. {REBUILD}")


@data_app.command("rebuild")
def rebuild_command(config: ConfigOption = None, settings: SetOption = None, as_json: JsonOption = False) -> None:
    """Make the manifest of a damaged cache again from the files that are intact; deletes nothing, says what is lost.

    Example: hlbt data rebuild
    """
    from engine.data.rebuild import rebuild

    store = store_of(config_of(config, settings))
    with progress() as step:
        report = rebuild(store, step)
    if as_json:
        print_json({"cache": str(store.path), **asdict(report)})
        return
    state = "the manifest was made again" if report.wrote else "the manifest is right, nothing was changed"
    show_all(
        f"{report.files} intact files in {store.path}: {state}.",
        *(f"Damaged, kept as {name}.damaged." for name in report.damaged),
        *(f"Lost: {text}." for text in report.lost),
    )
