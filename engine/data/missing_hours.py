"""Hours neither cached nor known to be absent at the exchange.

A sync cannot resume after the last cached row: the rows before it may have a gap, or come from another source. So the
hours of every coin are checked one by one. Many never get a row (no trade, not listed yet, delisted), and requesting
them at every sync would take hours; ``api_empty.json`` in the cache lists those for which the exchange returned no row.
It only saves requests: without it the next sync requests them again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from engine.atomic_io import sync_folder, write_durable
from engine.data.api_records import REQUEST_WEIGHT, HistoryType
from engine.data.cache import Store
from engine.data.manifest import Manifest
from engine.data.merge import PROVISIONAL
from engine.data.schema import Flags, Floats, Integers, Origins, hour_number, month_number, month_start

EMPTY = "api_empty.json"
#: A delisted coin without a row for so many hours gets none any more.
DELISTED_HOURS = 24
Gap = tuple[int, int]


class KnownEmpty:
    """Hours for which the exchange has no row, by history and coin.

    The file holds runs of hours, ``{"funding": {"BTC": [[first, last], ...]}}``, as hour numbers, both inclusive, and
    their digest. A damaged file reads as an empty one: a wrong digit would keep hours from ever being requested.

    Parameters
    ----------
    folder : path
        The cache.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / EMPTY
        self._hours: dict[str, dict[str, Integers]] = {}
        with suppress(OSError, ValueError, TypeError, KeyError):
            state = json.loads(self.path.read_bytes())
            if state["sha256"] == _digest(state["empty"]):
                self._hours = {
                    kind: {coin: _hours_of(pairs) for coin, pairs in coins.items()}
                    for kind, coins in state["empty"].items()
                }

    def hours(self, history: HistoryType, coin: str) -> Integers:
        """Hour numbers without a row, ascending."""
        return self._hours.get(history.name, {}).get(coin, np.empty(0, dtype=np.int64))

    def add(self, history: HistoryType, coin: str, hours: Integers) -> None:
        """Add hours without a row."""
        if len(hours):
            self._hours.setdefault(history.name, {})[coin] = np.union1d(self.hours(history, coin), hours)

    def save(self) -> None:
        """Write the file, unless it has this content already."""
        empty = {
            kind: {coin: [list(run) for run in runs(hours)] for coin, hours in sorted(coins.items())}
            for kind, coins in sorted(self._hours.items())
        }
        state = {"empty": empty, "sha256": _digest(empty)}
        content = (json.dumps(state, separators=(",", ":")) + "\n").encode()
        # Where it cannot be written, the hours are requested again.
        with suppress(OSError):
            if empty and not (self.path.exists() and self.path.read_bytes() == content):
                write_durable(self.path, content)
                sync_folder(self.path.parent)


class MissingHours:
    """The hours of a range, coin by coin: cached, known empty, missing.

    Parameters
    ----------
    store : Store
        The cache, which is read once.
    coins : sequence of str
        Names of the coins.
    histories : sequence of HistoryType
        Kinds of history. An hour is cached when every field of the history has a value there that is not provisional.
    first, last : int
        The range as hour numbers, both inclusive.
    """

    def __init__(
        self, store: Store, coins: Sequence[str], histories: Sequence[HistoryType], first: int, last: int
    ) -> None:
        self.first, self.last = first, last
        self.empty = KnownEmpty(store.path)
        self._line = {coin: line for line, coin in enumerate(coins)}

        def read(manifest: Manifest) -> dict[str, Flags]:
            return _cached(store, manifest, histories, self._line, first, last)

        manifest = store.manifest() or Manifest(False)
        self._coins = manifest.coins
        self._cached = store.consistent(read) if manifest.files else read(manifest)

    def gaps(self, history: HistoryType, coin: str, delisted: bool) -> list[Gap]:
        """Ranges to request, ascending, both ends inclusive.

        Cached hours between two missing ones are requested again where that costs less than a second request.
        """
        gaps = runs(self.hours(history, coin), REQUEST_WEIGHT * history.items_per_weight)
        if delisted and gaps and gaps[-1][1] == self.last:
            first = gaps[-1][0]
            # Delisted, and without rows since: hours without a row may also lie before its listing or in a halt of
            # trading. If the coin is listed again, `meta` says so and these hours are requested.
            empty = self.empty.hours(history, coin)
            if self._delisted_before(coin, first) and np.isin(np.arange(first - DELISTED_HOURS, first), empty).all():
                gaps.pop()
        return gaps

    def _delisted_before(self, coin: str, hour: int) -> bool:
        """Whether a `meta` response from before `hour` lists the coin as delisted, and no later one as alive."""
        record = self._coins.get(coin)
        seen = None if record is None else record.delisting_seen_at
        if record is None or seen is None or hour_number(seen) >= hour:
            return False
        return record.alive_until is None or record.alive_until < seen

    def hours(self, history: HistoryType, coin: str) -> Integers:
        """Hour numbers of the range that are missing."""
        missing = ~self._cached[history.name][self._line[coin]]
        empty = self.empty.hours(history, coin)
        missing[empty[(empty >= self.first) & (empty <= self.last)] - self.first] = False
        return np.flatnonzero(missing) + self.first

    def last_cached(self, history: HistoryType, coin: str) -> int | None:
        """Last hour of the range that is cached."""
        cached = np.flatnonzero(self._cached[history.name][self._line[coin]])
        return int(cached[-1]) + self.first if len(cached) else None


def _cached(
    store: Store, manifest: Manifest, histories: Sequence[HistoryType], line: Mapping[str, int], first: int, last: int
) -> dict[str, Flags]:
    """The hours that a state of the cache holds: an array (N, H) a history."""
    cached = {history.name: np.zeros((len(line), last - first + 1), dtype=np.bool_) for history in histories}
    for month, entry in manifest.files.items():
        if month_start(month_number(month)) > last or month_start(month_number(month) + 1) <= first:
            continue
        rows = store.read(entry, [name for history in histories for name in history.fields])
        origins = store.read_origins(entry)
        lines = np.array([line.get(coin, -1) for coin in rows.coins], dtype=np.int64)[rows.codes]
        inside = (lines >= 0) & (rows.hours >= first) & (rows.hours <= last)
        for history in histories:
            if all(name in rows.fields for name in history.fields):
                final = [_is_final(rows.fields[name], name, origins) for name in history.fields]
                held = inside & np.all(final, axis=0)
                cached[history.name][lines[held], rows.hours[held] - first] = True
    return cached


def _is_final(values: Floats, name: str, origins: Mapping[str, Origins]) -> Flags:
    """Where a field has a value that is not provisional, (rows,)."""
    sources, codes = origins[name]
    provisional = np.array([(name, source) in PROVISIONAL for source in sources], dtype=np.bool_)
    final: Flags = ~np.isnan(values) & ~provisional[codes]
    return final


def runs(hours: Integers, bridge: int = 0) -> list[Gap]:
    """Runs of ascending hour numbers, both ends inclusive; gaps of up to `bridge` hours are part of a run."""
    if not len(hours):
        return []
    breaks = np.flatnonzero(np.diff(hours) > bridge + 1)
    starts = hours[np.concatenate([[0], breaks + 1])]
    ends = hours[np.concatenate([breaks, [len(hours) - 1]])]
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]


def _digest(empty: object) -> str:
    return hashlib.sha256(json.dumps(empty, sort_keys=True).encode()).hexdigest()


def _hours_of(pairs: Sequence[Sequence[int]]) -> Integers:
    parts = [np.arange(int(first), int(last) + 1, dtype=np.int64) for first, last in pairs]
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)
