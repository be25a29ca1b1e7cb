"""HyperLiquid's own API as a source: the coin table, hourly candles and settled funding, without an account.

The exchange keeps 5,000 candles a coin (about 208 days of hours) and every funding rate since the listing. Requests go
through :mod:`engine.data.api_client`. What they bring is committed every few dozen requests: a
killed sync loses no more than that, and the next one asks only for what the cache lacks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd

from engine.clock import HOUR, show
from engine.data.api_client import Exchange, RequestFailed
from engine.data.api_records import CANDLES, FUNDING, HistoryType, Page, bad_items
from engine.data.cache import Progress, Store
from engine.data.coin_table import CoinMeta
from engine.data.merge_report import Conflict, MergeReport, differences
from engine.data.missing_hours import Gap, Lacking
from engine.data.rate_limit import RateLimiter
from engine.data.schema import Integers, hour_number, instant_of
from engine.errors import DataError, did_you_mean, join_first

SOURCE: Final = "api"
#: Requests between two commits: about a minute and a half at the pace of the exchange's limit.
BATCH_REQUESTS: Final = 40
#: A candle counts as finished so long after its close: our clock may be ahead of the exchange's, which may write the
#: last trade a moment late. A row is asked for once.
SETTLING: Final = pd.Timedelta(seconds=10)
#: An answer of at least so many items is taken to be cut where it ends: how many it has at most has changed before
#: (funding: 1,038 were seen, 500 are documented).
CUT_FROM: Final = 100
#: After so many coins in a row have failed, the exchange is taken to be out of reach.
GIVE_UP_AFTER: Final = 3


@dataclass(frozen=True)
class SyncReport:
    """What :func:`sync_api` did.

    Attributes
    ----------
    first, last : Timestamp
        First and last row that was wanted.
    coins, delisted : int
        Coins that were looked at, and those of them that `meta` calls delisted.
    requests, weight : int
        Requests sent, and their weight by the exchange's rules (1,200 a minute are allowed).
    candles, funding : int
        Rows received.
    added, same, changed, raised, overruled : int
        Values that the cache lacked; that it had; that were replaced (with `replace`); that took the place of a lesser
        source's; that were left out because a higher source had given them.
    months : tuple of str
        Months whose file was written.
    notes : tuple of str
        What the user should know, but cannot mend: how far sources are apart, how far candles reach.
    faults : tuple of str
        What failed after all retries, by coin, and malformed items. The next sync asks for it again.
    conflicts : tuple of Conflict
        Values that contradict the cache.
    """

    first: pd.Timestamp
    last: pd.Timestamp
    coins: int
    delisted: int
    requests: int
    weight: int
    candles: int
    funding: int
    added: int
    same: int
    changed: int
    raised: int
    overruled: int
    months: tuple[str, ...]
    notes: tuple[str, ...]
    faults: tuple[str, ...]
    conflicts: tuple[Conflict, ...]

    @property
    def problems(self) -> list[str]:
        """A line for each fault and each conflict; empty when everything was taken."""
        return [*self.faults, *(str(conflict) for conflict in self.conflicts)]

    def summary(self) -> str:
        """A paragraph for people."""
        wrote = f"months written: {self.months[0]} to {self.months[-1]}" if self.months else "nothing to write"
        text = (
            f"{self.coins} coins ({self.delisted} delisted), {show(self.first)} to {show(self.last)}: "
            f"{self.candles:,} candles and {self.funding:,} funding rates received in {self.requests:,} requests "
            f"(weight {self.weight:,}); {self.added:,} values added, {self.same:,} were there already; {wrote}."
        )
        return " ".join([text, *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """All of it for JSON, with `problems`."""
        state = {**asdict(self), "first": self.first.isoformat(), "last": self.last.isoformat()}
        conflicts = [{**asdict(conflict), "first": conflict.first.isoformat()} for conflict in self.conflicts]
        return {**state, "conflicts": conflicts, "problems": self.problems}


@dataclass
class _Batch:
    """What was received since the last commit, and the totals of the commits."""

    store: Store
    lacking: Lacking
    replace: bool
    requests: int = 0
    pages: dict[HistoryType, dict[str, list[Page]]] = field(default_factory=dict)
    empty: list[tuple[HistoryType, str, Integers]] = field(default_factory=list)
    merges: list[MergeReport] = field(default_factory=list)

    def add(self, kind: HistoryType, coin: str, page: Page, empty: Integers) -> None:
        self.requests += 1
        if len(page.hours):
            self.pages.setdefault(kind, {}).setdefault(coin, []).append(page)
        self.empty.append((kind, coin, empty))

    def commit(self) -> None:
        """Merge the rows, then remember the empty hours: killed in between, those are asked for again."""
        if self.pages:
            tables = [kind.table(pages) for kind, pages in self.pages.items()]
            self.merges.append(self.store.merge(tables, SOURCE, replace=self.replace))
        for kind, coin, hours in self.empty:
            self.lacking.empty.add(kind, coin, hours)
        self.lacking.empty.save()
        self.requests, self.pages, self.empty = 0, {}, []


@dataclass(frozen=True)
class _Task:
    """What is lacking of one coin and kind."""

    kind: HistoryType
    meta: CoinMeta
    gaps: Sequence[Gap]

    @property
    def weight(self) -> int:
        """The most that it costs to bring."""
        kind, total = self.kind, 0
        for first, last in self.gaps:
            pages, rest = divmod(last - first + 1, kind.cap)
            if kind is CANDLES and pages:
                pages, rest = 1, 0  # there are no more than one answer holds
            total += pages * kind.weight(kind.cap) + (kind.weight(rest) if rest else 0)
        return total


class _Sync:
    """One run: the tasks one after the other, a commit every `batch_requests`."""

    def __init__(
        self, exchange: Exchange, batch: _Batch, batch_requests: int, tasks: Sequence[_Task], progress: Progress | None
    ) -> None:
        self.exchange, self.batch, self.batch_requests = exchange, batch, batch_requests
        self.tasks, self.progress = tasks, progress
        self.done, self.total = 0, sum(task.weight for task in tasks)
        self.faults: list[str] = []
        self.rows = {CANDLES.name: 0, FUNDING.name: 0}

    def run(self) -> None:
        """Do the tasks; after an interrupt, too, what was received is committed."""
        failed = 0
        try:
            for place, task in enumerate(self.tasks):
                self._show(task, 0)
                try:
                    self._fetch(task)
                    failed = 0
                except RequestFailed as fault:
                    self.faults.append(f"{task.meta.name} {task.kind.name}: {fault}")
                    failed += 1
                self.done += task.weight
                if failed == GIVE_UP_AFTER and (rest := self.tasks[place + 1 :]):
                    names = join_first(f"{later.meta.name} {later.kind.name}" for later in rest)
                    self.faults.append(f"not asked for, since {failed} coins in a row failed: {names}")
                    break
        except KeyboardInterrupt:
            self.batch.commit()
            raise
        self.batch.commit()
        if self.progress:
            self.progress(self.total, self.total, "done")

    def _show(self, task: _Task, spent: int) -> None:
        if self.progress:
            done = self.done + min(spent, task.weight)
            minutes = self.exchange.pacer.seconds(self.total - done) / 60
            self.progress(done, self.total, f"{task.meta.name} {task.kind.name} (about {minutes:.0f} min left)")

    def _fetch(self, task: _Task) -> None:
        """Bring the gaps of a coin, page by page."""
        kind, coin, spent = task.kind, task.meta.name, 0
        for first, last in task.gaps:
            while first <= last:
                page = self.exchange.page(kind, coin, first, last)
                end = last
                if page.items >= CUT_FROM:
                    # There may be more after its last row.
                    if page.reached is not None and page.reached >= first:
                        end = min(page.reached, last)
                    elif page.items >= kind.cap:
                        raise RequestFailed(f"a full answer without a row after {show(instant_of(first))}")
                if page.bad:
                    self.faults.append(f"{coin} {kind.name}: {bad_items(page)}")
                self.rows[kind.name] += len(page.hours)
                self.batch.add(kind, coin, page, self._empty(task, page, first, end))
                spent += kind.weight(page.items)
                self._show(task, spent)
                if self.batch.requests >= self.batch_requests:
                    self.batch.commit()
                first = end + 1

    def _empty(self, task: _Task, page: Page, first: int, end: int) -> Integers:
        """Hours from `first` to `end` that the exchange has no row for.

        After the last row of a living coin a row may still come, so nothing is said of those hours; nor of any when
        part of the answer was malformed.
        """
        lacking = self.batch.lacking
        hours = lacking.hours(task.kind, task.meta.name)
        hours = hours[(hours >= first) & (hours <= end) & ~np.isin(hours, page.hours)]
        if not task.meta.is_delisted:
            held = lacking.last_held(task.kind, task.meta.name)
            known = [int(page.hours[-1])] if len(page.hours) else []
            hours = hours[hours <= max([*known, *([] if held is None else [held])], default=first - 1)]
        return hours[:0] if page.bad else hours


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
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    batch_requests: int = BATCH_REQUESTS,
) -> SyncReport:
    """Bring the coin table, hourly candles and funding rates that the cache lacks.

    Candles of every coin come first, then funding, coin by coin.

    Parameters
    ----------
    store : Store
        The cache; made when absent.
    start, end : Timestamp or None
        First and last row wanted, both inclusive; None is as far back as 5,000 candles reach, and `now`.
    coins : iterable of str or None
        Coins wanted; None is every coin of the exchange, delisted ones too.
    now : Timestamp
        The time. A candle that closes later, or less than :data:`SETTLING` before, is not finished and is left out.
    base_url : str, optional
        Address of another host. Default: the main network.
    timeout_seconds : float
        Longest silence of the server before a request counts as failed.
    replace : bool
        Take new values where the exchange contradicts what it said before.
    progress : callable, optional
        Called with weight done, weight in all, and what is asked for, with the time left at the exchange's limit.
    clock, sleep : callable
        Seconds of a monotonic clock, and waiting so many: for the pace.
    batch_requests : int
        Requests between two commits.

    Raises
    ------
    DataError
        When the exchange gives no usable list of coins, a coin is unknown, the range is empty, or for what
        :meth:`Store.merge` refuses. Requests that fail for single coins are `problems` of the report.
    """
    # With the unfinished candle the exchange keeps those that open in the last 5,000 hours; a row is an hour later.
    reach = hour_number(now) - CANDLES.cap + 2
    first = reach if start is None else hour_number(start.ceil(HOUR))
    last = hour_number(now - SETTLING if end is None else min(end, now - SETTLING))
    if first > last:
        raise DataError(
            f"There is nothing to sync from {show(instant_of(first))} to {show(instant_of(last))}: the range is empty "
            f"(it is {show(now)} now). Set data.start and data.end."
        )
    exchange = Exchange(base_url, timeout_seconds, RateLimiter(clock, sleep))
    metas = exchange.metas()
    wanted = _chosen(metas, coins, exchange.shown)
    store.update_coin_table(metas, SOURCE, now.floor("min"))
    lacking = Lacking(store, [meta.name for meta in wanted], (CANDLES, FUNDING), first, last)
    tasks = [
        _Task(kind, meta, gaps)
        for kind in (CANDLES, FUNDING)
        for meta in wanted
        if (gaps := lacking.gaps(kind, meta.name, bool(meta.is_delisted)))
    ]
    batch = _Batch(store, lacking, replace)
    sync = _Sync(exchange, batch, batch_requests, tasks, progress)
    sync.run()
    merges = batch.merges
    return SyncReport(
        first=instant_of(first),
        last=instant_of(last),
        coins=len(wanted),
        delisted=sum(bool(meta.is_delisted) for meta in wanted),
        requests=exchange.pacer.requests,
        weight=exchange.pacer.spent,
        candles=sync.rows[CANDLES.name],
        funding=sync.rows[FUNDING.name],
        added=sum(merge.added for merge in merges),
        same=sum(merge.same for merge in merges),
        changed=sum(merge.changed for merge in merges),
        raised=sum(merge.raised for merge in merges),
        overruled=sum(merge.overruled for merge in merges),
        months=tuple(sorted({month for merge in merges for month in merge.months})),
        notes=(*differences(merges), *_notes(first, reach)),
        faults=tuple(sync.faults),
        conflicts=tuple(conflict for merge in merges for conflict in merge.conflicts),
    )


def _chosen(metas: Sequence[CoinMeta], coins: Iterable[str] | None, where: str) -> list[CoinMeta]:
    if coins is None:
        return list(metas)
    known = {meta.name: meta for meta in metas}
    names = list(dict.fromkeys(coins))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DataError(
            f"{where} has no perpetual {unknown[0]!r}.{did_you_mean(unknown[0], known)} Names are case-sensitive "
            f"(kPEPE); data.coins names the coins, and without it all {len(known)} are synced."
        )
    return [known[name] for name in names]


def _notes(first: int, reach: int) -> tuple[str, ...]:
    if first >= reach:
        return ()
    return (
        f"Candles reach back {CANDLES.cap:,} hours, to {show(instant_of(reach))}: before that the API has funding but "
        "no prices of a coin that trades every hour. The archive has them: `hlbt data sync --source s3`.",
    )
