"""Hours that an API sync must request: neither cached nor known to have no row at the exchange.

A sync cannot resume after the last cached row: the rows before it may have a gap, or come from another source. So the
hours of every coin are checked one by one. Many never get a row (no trade, not listed yet, delisted), and requesting
them at every sync would take hours. So the manifest keeps the intervals that were asked for, by history and coin; an
hour in one of them without a row has none. But a response may be cut short, a candle appear late, an outage look like
an empty history. So hours are final only when they are older than :data:`YOUNG_HOURS`, and

- lie between two rows of one response, or
- lay before its first or after its last row, and still do in a response :data:`YOUNG_HOURS` or more later.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.data.api_records import REQUEST_WEIGHT, HistoryType
from engine.data.cache import Store
from engine.data.layers import read_fields
from engine.data.manifest import Interval, Manifest
from engine.data.merge import PROVISIONAL
from engine.data.schema import Flags, Integers, hour_number

#: Hours in which a row may still appear at the exchange, and after which a silent history is asked for once more.
YOUNG_HOURS = 48
#: A delisted coin without a row for so many hours gets none any more.
DELISTED_HOURS = 24
#: So many of the last cached candles are requested again with what follows them: a clock that was ahead, or a candle
#: changed just after its close, may have stored a price before it was final.
RECENT_HOURS = 3
Gap = tuple[int, int]
_NEVER = -1


class MissingHours:
    """The hours of a range, coin by coin: cached, known to have no row, missing.

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
    now : int
        The hour number of the time.
    ask_again : bool
        Whether hours that are known to have no row are missing all the same.
    all_again : bool
        Whether every hour of the range is.
    """

    def __init__(
        self,
        store: Store,
        coins: Sequence[str],
        histories: Sequence[HistoryType],
        first: int,
        last: int,
        now: int,
        ask_again: bool = False,
        all_again: bool = False,
    ) -> None:
        self.first, self.last, self._now, self._ask_again = first, last, now, ask_again or all_again
        self._line = {coin: line for line, coin in enumerate(coins)}
        length = last - first + 1

        def read(manifest: Manifest) -> dict[str, Flags]:
            cached = {}
            for history in histories:
                fields, _ = read_fields(
                    store, manifest, first, length, coins, names=history.fields, without=PROVISIONAL
                )
                absent = np.full((length, len(coins)), np.nan)
                lacking = np.any([np.isnan(fields.get(name, absent)) for name in history.fields], axis=0)
                cached[history.name] = ~lacking & (not all_again)
            return cached

        manifest = store.manifest() or Manifest(False)
        self._coins = manifest.coins
        self.asked = {history.name: dict(manifest.asked.get(history.name, {})) for history in histories}
        self._cached = store.consistent(read) if manifest.files else read(manifest)

    def gaps(self, history: HistoryType, coin: str, delisted: bool) -> list[Gap]:
        """Ranges to request, ascending, both ends inclusive.

        Cached hours between two missing ones are requested again where that costs less than a second request.
        """
        missing = ~self._cached[history.name][:, self._line[coin]]
        state = _states(self.asked[history.name].get(coin, ()), self.first - DELISTED_HOURS, self.last)
        if not self._ask_again:
            missing &= state[DELISTED_HOURS:] != 0
        gaps = runs(np.flatnonzero(missing) + self.first, REQUEST_WEIGHT * history.items_per_weight)
        if delisted and gaps and gaps[-1][1] == self.last and not self._ask_again:
            # Delisted, and without rows since: hours without a row may also lie before its listing or in a halt of
            # trading. If the coin is listed again, `meta` says so and these hours are requested.
            start = gaps[-1][0] - self.first
            if self._silent_before(history, coin, gaps[-1][0]) and not state[start : start + DELISTED_HOURS].any():
                gaps.pop()
        recent = self.recent(history, coin)
        if gaps and gaps[-1][1] == self.last and recent:
            gaps[-1] = (min(gaps[-1][0], recent[0]), self.last)
        return gaps

    def recent(self, history: HistoryType, coin: str) -> Gap | None:
        """The last cached hours of the range of a coin's candles, which give way to what the exchange has now."""
        cached = np.flatnonzero(self._cached[history.name][:, self._line[coin]])
        if "mid" not in history.fields or not len(cached):
            return None
        last = int(cached[-1]) + self.first
        return max(last - RECENT_HOURS + 1, self.first), last

    def _silent_before(self, history: HistoryType, coin: str, hour: int) -> bool:
        """Whether `meta` lists the coin as delisted since before `hour`, and no row of the day before is cached."""
        record = self._coins.get(coin)
        seen = None if record is None else record.delisting_seen_at
        if record is None or seen is None or hour_number(seen) >= hour:
            return False
        last = record.last_funding if "funding" in history.fields else record.last_price
        silent = last is None or hour_number(last) < hour - DELISTED_HOURS
        return silent and (record.alive_until is None or record.alive_until < seen)

    def note(
        self, history: HistoryType, coin: str, first: int, last: int, rows: Integers, complete: bool = True
    ) -> None:
        """Keep that the hours `first` to `last` were asked for, and that there were `rows`.

        Of a response that is not `complete` only the rows count: part of it could not be read.
        """
        known = self.asked[history.name].get(coin, ())
        low = min([first, *(interval[0] for interval in known)])
        state = _states(known, low, max([last, *(interval[1] for interval in known)]))
        hours = np.arange(first, last + 1)
        old = state[first - low : last + 1 - low]
        between = np.isin(hours, np.arange(rows[0], rows[-1] + 1) if complete and len(rows) else rows)
        since = np.where(old == _NEVER, self._now, old)
        new = np.where(between | (since <= self._now - YOUNG_HOURS), 0, since if complete else old)
        state[first - low : last + 1 - low] = np.where(hours > self._now - YOUNG_HOURS, old, new)
        self.asked[history.name][coin] = _intervals(state, low)


def _states(intervals: Sequence[Interval], first: int, last: int) -> Integers:
    """The hours `first` to `last`: 0 where final, else the hour of the first response, -1 where never asked for."""
    state = np.full(last - first + 1, _NEVER, dtype=np.int64)
    for begin, end, since in intervals:
        state[max(begin - first, 0) : max(end + 1 - first, 0)] = since
    return state


def _intervals(state: Integers, first: int) -> tuple[Interval, ...]:
    """What :func:`_states` read, from the hour `first` on."""
    starts = np.flatnonzero(np.diff(state, prepend=_NEVER - 1))
    ends = np.append(starts[1:], len(state)) - 1
    return tuple(
        (first + int(start), first + int(end), int(state[start]))
        for start, end in zip(starts, ends, strict=True)
        if state[start] != _NEVER
    )


def runs(hours: Integers, bridge: int = 0) -> list[Gap]:
    """Runs of ascending hour numbers, both ends inclusive; gaps of up to `bridge` hours are part of a run."""
    if not len(hours):
        return []
    breaks = np.flatnonzero(np.diff(hours) > bridge + 1)
    starts = hours[np.concatenate([[0], breaks + 1])]
    ends = hours[np.concatenate([breaks, [len(hours) - 1]])]
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]
