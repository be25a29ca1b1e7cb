"""What the cache lacks: hours that it neither holds nor is known not to exist at the exchange.

The last cached row is no resume point: the rows before it may have a hole, or come from another source. So the hours of
every coin are looked at one by one. Many never get a row (no trade, not listed yet, delisted), and asking for them at
every sync would cost hours; ``api_empty.json`` in the cache remembers which ones the exchange answered without. It only
saves requests: without it the next sync asks again.
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
#: A delisted coin that had no row for so many hours gets none any more.
GONE_HOURS = 24
Gap = tuple[int, int]


class KnownEmpty:
    """Hours for which the exchange was asked and has no row, by kind and coin.

    The file holds runs of hours, ``{"funding": {"BTC": [[first, last], ...]}}``, as hour numbers, both inclusive, and
    their digest. A damaged file reads as an empty one: a wrong digit would keep hours from ever being asked for.

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

    def hours(self, kind: HistoryType, coin: str) -> Integers:
        """Hour numbers without a row, ascending."""
        return self._hours.get(kind.name, {}).get(coin, np.empty(0, dtype=np.int64))

    def add(self, kind: HistoryType, coin: str, hours: Integers) -> None:
        """Remember more of them."""
        if len(hours):
            self._hours.setdefault(kind.name, {})[coin] = np.union1d(self.hours(kind, coin), hours)

    def save(self) -> None:
        """Replace the file, unless it says the same already."""
        empty = {
            kind: {coin: [list(run) for run in runs(hours)] for coin, hours in sorted(coins.items())}
            for kind, coins in sorted(self._hours.items())
        }
        state = {"empty": empty, "sha256": _digest(empty)}
        content = (json.dumps(state, separators=(",", ":")) + "\n").encode()
        # Where it cannot be kept, the hours are asked for again.
        with suppress(OSError):
            if empty and not (self.path.exists() and self.path.read_bytes() == content):
                write_durable(self.path, content)
                sync_folder(self.path.parent)


class Lacking:
    """The hours of a range, coin by coin: held, known empty, lacking.

    Parameters
    ----------
    store : Store
        The cache, which is read once.
    coins : sequence of str
        Coins to look at.
    kinds : sequence of HistoryType
        Kinds of history. An hour is held when every field of the kind has a value there that is not provisional.
    first, last : int
        The range as hour numbers, both inclusive.
    """

    def __init__(self, store: Store, coins: Sequence[str], kinds: Sequence[HistoryType], first: int, last: int) -> None:
        self.first, self.last = first, last
        self.empty = KnownEmpty(store.path)
        self._line = {coin: line for line, coin in enumerate(coins)}

        def held(manifest: Manifest) -> dict[str, Flags]:
            return _held(store, manifest, kinds, self._line, first, last)

        manifest = store.manifest() or Manifest(False)
        self._coins = manifest.coins
        self._held = store.consistent(held) if manifest.files else held(manifest)

    def gaps(self, kind: HistoryType, coin: str, delisted: bool) -> list[Gap]:
        """Ranges to ask for, ascending, both ends inclusive.

        Held hours between two lacking ones are asked for again where that costs less than a second request.
        """
        hours = self.hours(kind, coin)
        empty = self.empty.hours(kind, coin)
        found = runs(hours, REQUEST_WEIGHT * kind.items_per_weight)
        if delisted and found and found[-1][1] == self.last:
            first = found[-1][0]
            # Gone, and seen to be gone: hours without a row may also lie before its listing or in a standstill. If it
            # comes back, `meta` says so and these hours are asked for.
            if self._gone_before(coin, first) and np.isin(np.arange(first - GONE_HOURS, first), empty).all():
                found.pop()
        return found

    def _gone_before(self, coin: str, hour: int) -> bool:
        """Whether a `meta` answer of before `hour` called the coin delisted, and none of a later date alive."""
        record = self._coins.get(coin)
        if record is None or record.gone_by is None or hour_number(record.gone_by) >= hour:
            return False
        return record.alive_until is None or record.alive_until < record.gone_by

    def hours(self, kind: HistoryType, coin: str) -> Integers:
        """Hour numbers of the range that are lacking."""
        lacking = ~self._held[kind.name][self._line[coin]]
        empty = self.empty.hours(kind, coin)
        lacking[empty[(empty >= self.first) & (empty <= self.last)] - self.first] = False
        return np.flatnonzero(lacking) + self.first

    def last_held(self, kind: HistoryType, coin: str) -> int | None:
        """Last hour of the range that the cache holds."""
        held = np.flatnonzero(self._held[kind.name][self._line[coin]])
        return int(held[-1]) + self.first if len(held) else None


def _held(
    store: Store, manifest: Manifest, kinds: Sequence[HistoryType], line: Mapping[str, int], first: int, last: int
) -> dict[str, Flags]:
    """The hours that a state of the cache holds: an array (N, H) a kind."""
    held = {kind.name: np.zeros((len(line), last - first + 1), dtype=np.bool_) for kind in kinds}
    for month, entry in manifest.files.items():
        if month_start(month_number(month)) > last or month_start(month_number(month) + 1) <= first:
            continue
        rows = store.read(entry, [name for kind in kinds for name in kind.fields])
        origins = store.read_origins(entry)
        lines = np.array([line.get(coin, -1) for coin in rows.coins], dtype=np.int64)[rows.codes]
        wanted = (lines >= 0) & (rows.hours >= first) & (rows.hours <= last)
        for kind in kinds:
            if all(name in rows.fields for name in kind.fields):
                there = wanted & np.all([_settled(rows.fields[name], name, origins) for name in kind.fields], axis=0)
                held[kind.name][lines[there], rows.hours[there] - first] = True
    return held


def _settled(values: Floats, name: str, origins: Mapping[str, Origins]) -> Flags:
    """Where a field has a value for good, (rows,)."""
    sources, codes = origins[name]
    provisional = np.array([(name, source) in PROVISIONAL for source in sources], dtype=np.bool_)
    settled: Flags = ~np.isnan(values) & ~provisional[codes]
    return settled


def runs(hours: Integers, bridge: int = 0) -> list[Gap]:
    """Runs of ascending hour numbers, both ends inclusive; holes of up to `bridge` hours are part of a run."""
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
