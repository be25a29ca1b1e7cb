"""HyperLiquid's archive on S3: its objects in a range of hours, and what downloading them costs.

::

    asset_ctxs/20240101.csv.lz4                  source "s3": a row an hour of every coin
    market_data/20240101/22/l2Book/BTC.lz4       source "l2book": quotes of one row, 23:00

:mod:`engine.data.sync_s3` downloads and merges them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from engine.clock import HOUR, iso_minute
from engine.data.asset_ctxs import STALE_SECONDS
from engine.data.coin_names import MAIN_DEX, select_coins
from engine.data.manifest import ObjectRecord
from engine.errors import DataError, join_first

BUCKET = "hyperliquid-archive"
ASSET_CTXS = "asset_ctxs"
L2BOOK = "l2book"
#: USD a gigabyte (1e9 bytes) out of AWS, and for a thousand requests; shown with every estimate.
USD_PER_GB = 0.09
USD_PER_1000_GETS = 0.0004
USD_PER_1000_LISTS = 0.005
#: The last hour before the decision instant, 23:00 UTC.
HOURS = (22,)
#: An ETag that is the MD5 of the content; that of a multipart upload is not.
MD5 = re.compile(r"[0-9a-f]{32}")
_DAY = re.compile(r"\d{8}")
_CTXS = re.compile(r"asset_ctxs/(\d{8})\.csv\.lz4")
_BOOK = re.compile(r"market_data/(\d{8})/(\d{1,2})/l2Book/.+\.lz4")


class FetchError(DataError):
    """One object cannot be downloaded; the message is the reason."""


@dataclass(frozen=True)
class ListedObject:
    """An object of a listing: key, version, bytes."""

    key: str
    etag: str
    size: int


@dataclass(frozen=True)
class ArchiveObject(ListedObject):
    """An object of the archive.

    Attributes
    ----------
    dataset : str
        ``"asset_ctxs"`` or ``"l2book"``.
    day : date
        Day of its name.
    hour : int or None
        Hour of its name, for a book.
    coin : str or None
        Coin of its name, for a book.
    """

    dataset: str
    day: date
    hour: int | None = None
    coin: str | None = None

    @property
    def group(self) -> str:
        """Dataset and month under which it is recorded."""
        return f"{self.dataset}-{self.day:%Y-%m}"

    @property
    def instant(self) -> pd.Timestamp:
        """The row of a book: the end of its hour."""
        return pd.Timestamp(self.day, tz="UTC").as_unit("ms") + HOUR * ((self.hour or 0) + 1)


class Source(Protocol):
    """The interface of a bucket that this module needs.

    :class:`engine.data.s3_bucket.Bucket` has it, and :class:`engine.data.local_archive.LocalArchive`.
    """

    where: str
    requests: int

    def notes(self) -> tuple[str, ...]:
        """Say what of the source is not used."""
        ...

    def objects(self, prefix: str, start_after: str = "") -> Iterator[ListedObject]:
        """List the objects below `prefix`, by key, those after `start_after`."""
        ...

    def folders(self, prefix: str) -> list[str]:
        """Name the folders directly below `prefix`."""
        ...

    def fetch(self, item: ArchiveObject, path: Path, step: Callable[[int], None]) -> str:
        """Download an object to `path`, calling `step` with the bytes received; returns its SHA-256."""
        ...


@dataclass(frozen=True)
class Bill:
    """Objects and bytes of one dataset; USD at the stated prices.

    Attributes
    ----------
    objects, bytes : int
        In the range.
    new_objects, new_bytes : int
        Those of them that are not in the cache yet.
    usd : float
        Price of the new ones: transfer and requests.
    """

    objects: int
    bytes: int
    new_objects: int
    new_bytes: int
    usd: float


@dataclass(frozen=True)
class DownloadPlan:
    """The objects in a range of the archive, and those of them to be downloaded.

    Attributes
    ----------
    items : tuple of ArchiveObject
        Every object in the range, by dataset and key.
    wanted : tuple of ArchiveObject
        Those that the cache lacks, or has in another version.
    republished : frozenset of str
        Keys of those that the cache has in another version.
    missing_days : mapping of str to tuple of date
        By dataset: days without an object between the first and the last one that has any.
    published_until : date or None
        Last day with `asset_ctxs` where the archive ends before the range does, else None.
    listings : int
        Requests that the listing took.
    usd_per_gb : float
        Price of the transfer.
    where : str
        Name of the source, for messages.
    """

    items: tuple[ArchiveObject, ...]
    wanted: tuple[ArchiveObject, ...]
    republished: frozenset[str]
    missing_days: Mapping[str, tuple[date, ...]]
    published_until: date | None
    listings: int
    usd_per_gb: float = USD_PER_GB
    where: str = "the archive"

    @property
    def bills(self) -> dict[str, Bill]:
        """One bill a dataset."""
        return {name: self._bill(name) for name in sorted({item.dataset for item in self.items})}

    def _bill(self, dataset: str) -> Bill:
        every = [item.size for item in self.items if item.dataset == dataset]
        new = [item.size for item in self.wanted if item.dataset == dataset]
        gets = len(new) if self.listings else 0  # no listing was paid for: a folder, whose files are not either
        usd = sum(new) / 1e9 * self.usd_per_gb + gets / 1000 * USD_PER_1000_GETS
        return Bill(len(every), sum(every), len(new), sum(new), usd)

    @property
    def bytes(self) -> int:
        """Bytes to download."""
        return sum(item.size for item in self.wanted)

    @property
    def usd(self) -> float:
        """Total price: transfer, requests, and the listings for this plan."""
        return sum(bill.usd for bill in self.bills.values()) + self.listings / 1000 * USD_PER_1000_LISTS

    def check_budget(self, max_usd: float, yes: bool) -> None:
        """Refuse to spend more than `max_usd`.

        Raises
        ------
        DataError
            Unless `yes`.
        """
        if self.usd > max_usd and not yes:
            raise DataError(
                f"This sync would download {len(self.wanted):,} objects, {self.bytes / 1e9:.2f} GB, for about "
                f"{self.usd:.2f} USD at {self.usd_per_gb:g} USD per GB, over --max-usd {max_usd:g}. Nothing was "
                "downloaded. Pass --yes, raise --max-usd, or narrow data.start and data.end; `hlbt data cost` itemises."
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the objects themselves are left out."""
        return {
            "datasets": {name: vars(bill) for name, bill in self.bills.items()},
            "missing_days": {name: [f"{day}" for day in days] for name, days in self.missing_days.items()},
            "published_until": None if self.published_until is None else f"{self.published_until}",
            "listings": self.listings,
            "usd_per_gb": self.usd_per_gb,
            "usd": self.usd,
        }


@dataclass(frozen=True)
class ArchiveRange:
    """A range of the archive.

    Attributes
    ----------
    start, end : Timestamp or None
        First and last row, inclusive; None is open. A file with any row of the range is in it.
    books : bool
        Whether books are wanted beside `asset_ctxs`.
    hours : tuple of int
        Hours of the day whose books are wanted; hour 22 makes row 23:00.
    coins : tuple of str or None
        Coins whose books are wanted, or patterns; None is all. `asset_ctxs` has all coins in one file.
    """

    start: pd.Timestamp | None = None
    end: pd.Timestamp | None = None
    books: bool = False
    hours: tuple[int, ...] = HOURS
    coins: tuple[str, ...] | None = field(default=None)

    def has(self, first_row: pd.Timestamp, last_row: pd.Timestamp) -> bool:
        """Whether any row from `first_row` to `last_row` is in the range."""
        return (self.end is None or first_row <= self.end) and (self.start is None or last_row >= self.start)


def plan_downloads(
    source: Source,
    recorded: Mapping[str, str],
    span: ArchiveRange,
    *,
    usd_per_gb: float = USD_PER_GB,
    jobs: int = 8,
) -> DownloadPlan:
    """List the range of the archive; downloads nothing.

    Parameters
    ----------
    source : Source
        The bucket.
    recorded : mapping of str to str
        Key -> ETag of the objects in the cache.
    span : ArchiveRange
        Hours, coins and datasets to list.
    usd_per_gb : float
        Price of the transfer, for 1e9 bytes.
    jobs : int
        Listings at once.

    Raises
    ------
    DataError
        When the bucket cannot be listed.
    """
    before = source.requests
    items = list(_contexts(source, span))
    days = [item.day for item in items]
    missing = {ASSET_CTXS: _missing(days)}
    if span.books:
        books = _books(source, span, jobs)
        missing[L2BOOK] = _missing([item.day for item in books])
        items += books
    wanted = tuple(item for item in items if recorded.get(item.key) != item.etag)
    again = frozenset(item.key for item in wanted if item.key in recorded)
    # Beyond a day with the end of the range nothing was listed: that does not show where the archive ends.
    until = max(days, default=None)
    if until is not None and span.end is not None and pd.Timestamp(until, tz="UTC") + 24 * HOUR >= span.end:
        until = None
    listings = source.requests - before
    return DownloadPlan(tuple(items), wanted, again, missing, until, listings, usd_per_gb, source.where)


def _contexts(source: Source, span: ArchiveRange) -> Iterator[ArchiveObject]:
    # The file of the day before `start` holds the row of its midnight.
    after = "" if span.start is None else f"{ASSET_CTXS}/{span.start - 25 * HOUR:%Y%m%d}.zzz"
    for listed in source.objects(f"{ASSET_CTXS}/", after):
        match = _CTXS.fullmatch(listed.key)
        if not match:
            continue
        midnight = pd.Timestamp(match[1], tz="UTC")
        if span.has(midnight + HOUR, midnight + 24 * HOUR):
            yield ArchiveObject(listed.key, listed.etag, listed.size, ASSET_CTXS, midnight.date())
        elif span.end is not None and midnight > span.end:
            return


def _books(source: Source, span: ArchiveRange, jobs: int) -> list[ArchiveObject]:
    from concurrent.futures import ThreadPoolExecutor

    folders = []
    for name in sorted(name for name in source.folders("market_data/") if _DAY.fullmatch(name)):
        day = pd.Timestamp(name, tz="UTC")
        rows = {hour: day + HOUR * (hour + 1) for hour in sorted(span.hours)}
        folders += [(day.date(), hour) for hour, row in rows.items() if span.has(row, row)]
    with ThreadPoolExecutor(jobs) as pool:
        listings = pool.map(lambda folder: _books_of(source, span, *folder), folders)
        return [item for listing in listings for item in listing]


def _books_of(source: Source, span: ArchiveRange, day: date, hour: int) -> list[ArchiveObject]:
    prefix = f"market_data/{day:%Y%m%d}/{hour}/l2Book/"
    books = []
    for listed in source.objects(prefix):
        coin = listed.key.removeprefix(prefix).removesuffix(".lz4")
        wanted = bool(select_coins(span.coins or MAIN_DEX, [coin])[0])
        if listed.key.endswith(".lz4") and "/" not in coin and wanted:
            books.append(ArchiveObject(listed.key, listed.etag, listed.size, L2BOOK, day, hour, coin))
    return books


def _missing(days: Sequence[date]) -> tuple[date, ...]:
    """Days between the first and the last that are not among `days`."""
    if not days:
        return ()
    first, last, present = min(days), max(days), set(days)
    span = (first + timedelta(days=number) for number in range((last - first).days))
    return tuple(day for day in span if day not in present)


def describe(plan: DownloadPlan) -> list[str]:
    """Lines for the terminal: missing days, and where the archive ends."""
    lines = [
        f"{name}: {len(days)} days are missing in {plan.where}: {join_first(days)}."
        for name, days in plan.missing_days.items()
        if days
    ]
    newer = "newer hours come from `hlbt data sync --source api`"
    where = plan.where[:1].upper() + plan.where[1:]
    if not plan.items:
        lines.append(f"{where} has nothing of that range; {newer}.")
    elif plan.published_until is not None:
        lines.append(f"{where} has asset_ctxs to {plan.published_until}; {newer}.")
    return lines


def short_objects(records: Iterable[ObjectRecord]) -> list[dict[str, str]]:
    """Objects that end minutes before the hours of their name do, by key.

    Returns
    -------
    list of dict
        ``key``; ``last``, the minute of the last record; ``end``, the row with which a whole one ends.
    """
    short = []
    for record in sorted(records):
        if (match := _CTXS.fullmatch(record.key)) is not None:
            end = pd.Timestamp(match[1], tz="UTC") + 24 * HOUR
        elif (match := _BOOK.fullmatch(record.key)) is not None:
            end = pd.Timestamp(match[1], tz="UTC") + HOUR * (int(match[2]) + 1)
        else:
            continue
        if record.last is not None and end.timestamp() - record.last > STALE_SECONDS:
            last = pd.Timestamp(record.last, unit="s", tz="UTC")
            short.append({"key": record.key, "last": iso_minute(last), "end": iso_minute(end)})
    return short


def describe_short(short: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """A note on :func:`short_objects`, with the cure."""
    if not short:
        return ()
    named = join_first(f"{item['key']} at {item['last']}" for item in short)
    return (
        f"{len(short)} objects end early ({named}): their later hours have no quotes, so nothing can be traded then. "
        "`hlbt data sync --source s3 --quotes l2book` brings the books of 23:00; every sync takes an object again "
        "that was published anew.",
    )


def verified_sha256(path: Path, item: ArchiveObject) -> str | None:
    """SHA-256 of an earlier download of this very object; None when there is none or it is another."""
    try:
        content = path.read_bytes() if path.stat().st_size == item.size else None
    except OSError:
        content = None
    if content is None:
        return None
    if MD5.fullmatch(item.etag) and hashlib.md5(content, usedforsecurity=False).hexdigest() != item.etag:
        return None
    return hashlib.sha256(content).hexdigest()
