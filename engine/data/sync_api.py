"""HyperLiquid's own API as a source: the coin table, hourly candles and settled funding, without an account.

The exchange keeps 5,000 candles a coin (about 208 days of hours) and every funding rate since the listing. Requests go
through :mod:`engine.data.api_client`. The rows are committed every few dozen requests: a killed sync loses no more than
that, and the next one requests only what the cache lacks.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import pandas as pd

from engine.clock import HOUR, show
from engine.coin import dex_of
from engine.data.api_client import InfoClient
from engine.data.api_records import CANDLES, FUNDING, HistoryType, Page, describe_malformed
from engine.data.cache import Progress, Store
from engine.data.coin_names import MAIN_DEX, dexes_of, select_coins
from engine.data.coin_table import CoinMeta
from engine.data.merge import API
from engine.data.merge_report import MergeReport, combined
from engine.data.missing_hours import Gap, MissingHours
from engine.data.rate_limit import RateLimiter
from engine.data.schema import hour_number, instant_of
from engine.data.sync_report import SkippedItem, SyncReport
from engine.errors import DataError, did_you_mean, join_first
from engine.retries import RequestFailed

#: Requests between two commits: about a minute and a half at the exchange's rate limit.
BATCH_REQUESTS: Final = 40
#: A candle counts as finished so long after its close, by this machine's clock and by the exchange's: the exchange may
#: write the last trade a moment late.
SETTLING: Final = pd.Timedelta(seconds=10)
#: How far the two clocks may be apart without a word.
CLOCK_NOTED: Final = pd.Timedelta(minutes=1)
#: A response of at least so many items is taken to be cut off after its last: the most items of one response has
#: changed before (funding: 1,038 were returned, 500 are documented).
CUT_FROM: Final = 100
#: After so many coins in a row have failed, the exchange is taken to be out of reach.
GIVE_UP_AFTER: Final = 3


@dataclass
class _Batch:
    """Pages received since the last commit, and the reports of the commits."""

    store: Store
    missing: MissingHours
    replace: bool
    requests: int = 0
    mended: dict[str, list[Page]] = field(default_factory=dict)  # candles that were cached before, by coin
    pages: dict[HistoryType, dict[str, list[Page]]] = field(default_factory=dict)
    noted: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    merges: list[MergeReport] = field(default_factory=list)

    def add(self, history: HistoryType, coin: str, page: Page, first: int, last: int) -> None:
        """Add the response to a request for the rows `first` to `last`."""
        self.requests += 1
        low, high = self.missing.recent(history, coin) or (first, first - 1)
        recent = (page.hours >= low) & (page.hours <= high)
        for pages, kept in ((self.mended, recent), (self.pages.setdefault(history, {}), ~recent)):
            if kept.any():
                pages.setdefault(coin, []).append(page.part(kept))
        self.missing.note(history, coin, first, last, page.hours, complete=not page.malformed)
        self.noted[history.name].add(coin)

    def commit(self) -> None:
        """Merge the rows, and keep what was asked for, in one commit."""
        if self.requests:
            tables = [history.table(pages) for history, pages in self.pages.items() if pages]
            mended = [CANDLES.table(self.mended)] if self.mended else []
            intervals = self.missing.asked
            asked = {kind: {coin: intervals[kind][coin] for coin in coins} for kind, coins in self.noted.items()}
            self.merges.append(self.store.merge(tables, API, mended=mended, replace=self.replace, asked=asked))
        self.requests, self.mended, self.pages = 0, {}, {}
        self.noted.clear()


@dataclass(frozen=True)
class _Task:
    """Missing hours of one coin and history: all of its candles, or its funding rates of a window of time.

    A request goes on to the end of its gap, so that hours before a listing cost one and not one a window.
    """

    history: HistoryType
    coin: str
    gaps: list[Gap]  # of all windows of the coin; what was answered is taken out
    window: Sequence[Gap]

    def __str__(self) -> str:
        return f"{self.coin} {self.history.name}"

    @property
    def weight(self) -> int:
        """The most that its requests weigh."""
        history, total = self.history, 0
        for first, last in self.window:
            pages, rest = divmod(last - first + 1, history.max_items)
            if history is CANDLES and pages:
                pages, rest = 1, 0  # the exchange keeps no more than one response holds
            total += pages * history.weight(history.max_items) + (history.weight(rest) if rest else 0)
        return total


class _Sync:
    """A sync in progress: the tasks one after the other, a commit every `batch_requests`."""

    def __init__(
        self, client: InfoClient, batch: _Batch, batch_requests: int, tasks: Sequence[_Task], progress: Progress | None
    ) -> None:
        self.client, self.batch, self.batch_requests = client, batch, batch_requests
        self.tasks, self.progress = tasks, progress
        self.done, self.total = 0, sum(task.weight for task in tasks)
        self.skipped: list[SkippedItem] = []
        self.rows = {CANDLES: 0, FUNDING: 0}

    def estimate(self, first: int, last: int) -> str:
        """Say what is missing of the rows `first` to `last`, and the most time that it takes at the rate limit."""
        coins = len({task.coin for task in self.tasks})
        minutes = self.client.rate_limiter.seconds(self.total) / 60
        time = "less than a minute" if minutes < 1 else f"about {minutes:.0f} min"
        return (
            f"{show(instant_of(first))} to {show(instant_of(last))}: candles or funding of {coins} coins are missing, "
            f"requests of at most {self.total:,} in weight, {time} at the exchange's limit of "
            f"{self.client.rate_limiter.budget:,} a minute. Interrupted, the next sync goes on from there."
        )

    def run(self) -> None:
        """Do the tasks; after an interrupt, too, what was received is committed."""
        failed: set[str] = set()
        failures = 0
        try:
            for index, task in enumerate(self.tasks):
                self._show(task, 0)
                try:
                    if str(task) not in failed:
                        self._fetch(task)
                        failures = 0
                except RequestFailed as failure:
                    self.skipped.append(SkippedItem(str(task), f"cannot be had: {failure}"))
                    failed.add(str(task))
                    failures += 1
                self.done += task.weight
                if failures == GIVE_UP_AFTER:
                    names = [str(task) for task in self.tasks[index + 1 :] if str(task) not in failed]
                    reason = f"not requested, since {failures} coins in a row failed"
                    self.skipped += [SkippedItem(join_first(dict.fromkeys(names)), reason)] if names else []
                    break
        except KeyboardInterrupt:
            self.batch.commit()
            raise
        self.batch.commit()
        if self.progress:
            self.progress(self.total, self.total, "done")

    def report(self, metas: Sequence[CoinMeta], first: int, last: int, notes: Sequence[str]) -> SyncReport:
        """The report of the sync of the coins `metas` from row `first` to `last`."""
        limiter = self.client.rate_limiter
        counts = {
            "coins": len(metas),
            "delisted": sum(bool(meta.is_delisted) for meta in metas),
            "candles": self.rows[CANDLES],
            "funding": self.rows[FUNDING],
            "requests": limiter.requests,
            "weight": limiter.spent,
        }
        span = {"first": instant_of(first), "last": instant_of(last)}
        return SyncReport(API, counts, combined(API, self.batch.merges), tuple(self.skipped), tuple(notes), span)

    def _show(self, task: _Task, spent: int) -> None:
        if self.progress:
            done = self.done + min(spent, task.weight)
            minutes = self.client.rate_limiter.seconds(self.total - done) / 60
            self.progress(done, self.total, f"{task} (about {minutes:.0f} min left)")

    def _fetch(self, task: _Task) -> None:
        """Request the gaps of a coin, page by page."""
        history, coin, spent = task.history, task.coin, 0
        while task.gaps and task.gaps[0][0] <= task.window[-1][1]:
            first, last = task.gaps.pop(0)
            page = self.client.page(history, coin, first, last)
            end = last
            if page.items >= CUT_FROM:
                # There may be more after its last row.
                if page.last_row is not None and page.last_row >= first:
                    end = min(page.last_row, last)
                elif page.items >= history.max_items:
                    raise RequestFailed(f"a full response without a row after {show(instant_of(first))}")
            if end < last:
                task.gaps.insert(0, (end + 1, last))
            if page.malformed:
                self.skipped.append(SkippedItem(str(task), f"lacks rows: {describe_malformed(page)}"))
            self.rows[history] += len(page.hours)
            self.batch.add(history, coin, page, first, end)
            spent += history.weight(page.items)
            self._show(task, spent)
            if self.batch.requests >= self.batch_requests:
                self.batch.commit()


def sync_api(
    store: Store,
    *,
    start: pd.Timestamp | None,
    end: pd.Timestamp | None,
    coins: Iterable[str] | None,
    now: pd.Timestamp,
    base_url: str | None = None,
    timeout_seconds: float = 10.0,
    replace: bool = False,
    ask_again: bool = False,
    progress: Progress | None = None,
    announce: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    batch_requests: int = BATCH_REQUESTS,
) -> SyncReport:
    """Download the coin table, and the hourly candles and funding rates that the cache lacks.

    Candles of every coin come first, then funding: window by window of time, and in a window coin by coin, so that a
    commit writes a month or two and not the whole history.

    Parameters
    ----------
    store : Store
        The cache; made when absent.
    start, end : Timestamp or None
        First and last row wanted, both inclusive; None is as far back as 5,000 candles reach, and `now`.
    coins : iterable of str or None
        Coins wanted, names or patterns of one dex; None is every coin of the main dex, delisted ones too.
    now : Timestamp
        The time by this machine. A candle that closes later, or less than :data:`SETTLING` before, by this clock or by
        the exchange's (the ``Date`` of its response), is not finished and is left out. Without a ``Date`` it must have
        closed an hour ago.
    base_url : str, optional
        Address of another host. Default: the main network.
    timeout_seconds : float
        Longest silence of the server before a request counts as failed.
    replace : bool
        Request every hour of the range, cached or not, and take new values where the exchange contradicts an earlier
        response.
    ask_again : bool
        Request hours, too, for which the exchange had no row before.
    progress : callable, optional
        Called with weight done, weight in all, and the coin, with the time left at the exchange's rate limit.
    announce : callable
        Called once, before the first request for a history, with a sentence: what is missing and how long it takes.
    clock, sleep : callable
        Seconds of a monotonic clock, and waiting so many: for the rate limit.
    batch_requests : int
        Requests between two commits.

    Raises
    ------
    DataError
        When the exchange returns no usable list of coins, a coin is unknown, the range is empty, or for what
        :meth:`Store.merge` refuses. Requests that fail for single coins are `problems` of the report.
    """
    _hours(start, end, now)
    client = InfoClient(base_url, timeout_seconds, RateLimiter(clock, sleep))
    names = MAIN_DEX if coins is None else tuple(coins)
    manifest = store.manifest()
    metas = client.metas(dexes_of(names), dexes_of(manifest.coins) if manifest else ())
    doubt = _clock_notes(now, client)
    now = now - HOUR if client.server_time is None else min(now, client.server_time)
    first, last = _hours(start, end, now)
    answered = [name for name in names if dex_of(name) not in client.failed]
    wanted = _select(metas, answered, client.shown_url)
    store.update_coin_table(metas, API, now.floor("min"))
    missing = MissingHours(
        store, [meta.name for meta in wanted], (CANDLES, FUNDING), first, last, hour_number(now), ask_again, replace
    )
    sync = _Sync(client, _Batch(store, missing, replace), batch_requests, _tasks(missing, wanted), progress)
    sync.skipped += [SkippedItem("A coin", f"cannot be read: {text}") for text in client.unreadable]
    sync.skipped += [
        SkippedItem(f"The dex {dex!r}", f"gives no list of coins: {text}") for dex, text in client.failed.items()
    ]
    announce(sync.estimate(first, last))
    sync.run()
    notes = [*doubt, *_dex_notes(metas), *_notes(first, _first_candle(now)), *store.notes()]
    return sync.report(wanted, first, last, notes)


def _clock_notes(now: pd.Timestamp, client: InfoClient) -> tuple[str, ...]:
    """What to say where this machine's clock and the exchange's do not agree."""
    server = client.server_time
    if server is None:
        return (
            f"{client.shown_url} answers without a usable Date, so this machine's clock could not be compared: the "
            "newest hour is left to the next sync.",
        )
    if now - server <= CLOCK_NOTED:
        return ()
    return (
        f"This machine's clock is {(now - server).total_seconds() / 60:,.0f} min ahead of that of {client.shown_url}: "
        f"hours after {show(server.floor('min'))} are left to a later sync. Set the clock by a time server.",
    )


def _dex_notes(metas: Sequence[CoinMeta]) -> list[str]:
    """What is to be known of builders' dexes, of which the exchange keeps no history."""
    notes = []
    for dex in dexes_of(meta.name for meta in metas if dex_of(meta.name)):
        own = [meta for meta in metas if dex_of(meta.name) == dex]
        tokens = sorted({meta.collateral or "a token that is not known" for meta in own})
        notes.append(
            f"Dex {dex}: {len(own)} coins, settled in {' and '.join(tokens)}, {sum(bool(meta.growth) for meta in own)} "
            f"in growth mode, {sum(meta.margin_mode == 'isolated' for meta in own)} with isolated margin alone. Fee "
            "scales, growth, funding multipliers and margin modes are kept with today's date."
        )
    return notes


def _first_candle(now: pd.Timestamp) -> int:
    """Hour number of the oldest candle that the exchange still has."""
    # With the unfinished candle the exchange keeps those that open in the last 5,000 hours; a row is an hour later.
    return hour_number(now) - CANDLES.max_items + 2


def _hours(start: pd.Timestamp | None, end: pd.Timestamp | None, now: pd.Timestamp) -> tuple[int, int]:
    """First and last row wanted, as hour numbers."""
    first = _first_candle(now) if start is None else hour_number(start.ceil(HOUR))
    last = hour_number(now - SETTLING if end is None else min(end, now - SETTLING))
    if first > last:
        raise DataError(
            f"There is nothing to sync from {show(instant_of(first))} to {show(instant_of(last))}: the range is empty "
            f"(it is {show(now)} now). Set data.start and data.end."
        )
    return first, last


def _select(metas: Sequence[CoinMeta], coins: Sequence[str], where: str) -> list[CoinMeta]:
    """The coins of the exchange that are wanted."""
    known = {meta.name: meta for meta in metas}
    names, unknown = select_coins(coins, known)
    if unknown:
        raise DataError(
            f"{where} has no perpetual {unknown[0]!r}.{did_you_mean(unknown[0], known)} Names are case-sensitive "
            f"(kPEPE); data.coins names the coins, and without it all {len(known)} are synced."
        )
    return [known[name] for name in names]


def _tasks(missing: MissingHours, metas: Sequence[CoinMeta]) -> list[_Task]:
    """The missing hours: candles of every coin first, then funding by windows of as many hours as a response holds."""
    gaps = {
        (history, meta.name): missing.gaps(history, meta.name, bool(meta.is_delisted))
        for history in (CANDLES, FUNDING)
        for meta in metas
    }
    tasks = [_Task(CANDLES, meta.name, gaps[CANDLES, meta.name], tuple(gaps[CANDLES, meta.name])) for meta in metas]
    for begin in range(missing.first, missing.last + 1, FUNDING.max_items):
        end = begin + FUNDING.max_items - 1
        for meta in metas:
            own = gaps[FUNDING, meta.name]
            window = [(max(a, begin), min(b, end)) for a, b in own if a <= end and b >= begin]
            tasks.append(_Task(FUNDING, meta.name, own, window))
    return [task for task in tasks if task.window]


def _notes(first: int, first_candle: int) -> tuple[str, ...]:
    if first >= first_candle:
        return ()
    return (
        f"Candles reach back {CANDLES.max_items:,} hours, to {show(instant_of(first_candle))}: before that the API has "
        "funding but no prices of a coin that trades every hour. The archive has them: `hlbt data sync --source s3`.",
    )
