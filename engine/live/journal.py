"""The journal of an account: intents before they are sent, results after, and the state that they add up to.

Append-only, one line of JSON an entry, on the disk when it is appended. A process killed at any moment leaves whole
lines and at most one torn tail, which was no intent yet and is cut off by the next process.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

import pandas as pd

from engine.atomic_io import sync_folder
from engine.errors import LiveError
from engine.live.orders import Goal, OrderRequest

#: Positions of a plan are newer than those that explained them by this.
_NEWER: Final = pd.Timedelta(milliseconds=1)


@dataclass(frozen=True)
class SentOrder:
    """An order that was, or may have been, sent.

    Attributes
    ----------
    request : OrderRequest
    time : Timestamp
        Of the intent.
    expires_ms : int
        When it is void, by the exchange's clock.
    expires_seconds : float or None
        Its time to expiry; None in journals of earlier releases.
    boot_id : str
        Start of the machine that `boot_seconds` counts from; empty in journals of earlier releases.
    boot_seconds : float
        Time of the intent by :func:`engine.live.boot_clock.boot_seconds`.
    """

    request: OrderRequest
    time: pd.Timestamp
    expires_ms: int
    expires_seconds: float | None = None
    boot_id: str = ""
    boot_seconds: float = 0.0


@dataclass(frozen=True)
class EquityRecord:
    """Equity in USD at a time, and the kind of the entry that has it: a plan, an end, a refusal or an acceptance."""

    time: pd.Timestamp
    equity_usd: float
    kind: str


@dataclass(frozen=True)
class JournalState:
    """What the entries of a journal add up to; :meth:`after` is the only thing that makes one from another.

    Attributes
    ----------
    unresolved : mapping of cloid to SentOrder
        Orders whose status is not known, oldest first.
    positions : mapping of coin to float
        Signed units: those of the newest plan, end or acceptance, and every fill since.
    positions_at : Timestamp or None
        When they were last confirmed or changed; None before the first plan: then nothing is known of the account.
    attempts : mapping of instant to mapping of coin to int
        Orders that were intended so far: the number of the coin's next one for that instant.
    plan : (str, str, tuple of Goal) or None
        Of the newest plan, until its end: ISO 8601 instant, key, goals.
    carried_out : (str, str, tuple of Goal) or None
        The same of the newest plan from its end on.
    equities : tuple of EquityRecord
        Since equity was last accepted, oldest first.
    without_fills : mapping of cloid to Timestamp
        Filled orders whose fills, and so fees, are not recorded yet, with the time of the intent.
    leverage : mapping of coin to (int, bool)
        Leverage that was set, and whether for cross margin.
    """

    unresolved: Mapping[str, SentOrder] = field(default_factory=dict)
    positions: Mapping[str, float] = field(default_factory=dict)
    positions_at: pd.Timestamp | None = None
    attempts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    plan: tuple[str, str, tuple[Goal, ...]] | None = None
    carried_out: tuple[str, str, tuple[Goal, ...]] | None = None
    equities: tuple[EquityRecord, ...] = ()
    without_fills: Mapping[str, pd.Timestamp] = field(default_factory=dict)
    leverage: Mapping[str, tuple[int, bool]] = field(default_factory=dict)

    def after(self, entry: Mapping[str, Any]) -> JournalState:
        """The state with one more entry; a kind that is not known, as of another release, changes nothing."""
        match entry["kind"]:
            case "plan":
                goals = tuple(Goal(**goal) for goal in entry["goals"])
                plan = entry["instant"], entry["key"], goals
                # Newer than what explained them, in whichever journal; the time of a plan itself may be a --now.
                explained = entry.get("explained_at")
                at = self.positions_at or pd.Timestamp(entry["time"])
                if explained is not None:
                    at = max(self.positions_at or pd.Timestamp(0, tz="UTC"), pd.Timestamp(explained)) + _NEWER
                positions = dict(entry["plan"]["positions"])
                return replace(
                    self._with_equity(entry), plan=plan, carried_out=None, positions=positions, positions_at=at
                )
            case "done":
                carried_out = self.plan or self.carried_out
                return replace(self._with_equity(entry)._with_positions(entry), plan=None, carried_out=carried_out)
            case "positions_accepted":
                return self._with_positions(entry)
            case "refused":
                return self._with_equity(entry)
            case "equity_accepted":  # and what was planned by the equity of before is planned anew
                return replace(self, equities=(), plan=None, carried_out=None)._with_equity(entry)
            case "intent":
                return self._after_intent(entry)
            case "answers" | "resolved":
                return self._after_results(entry)
            case "fills":
                known = {fill["cloid"] for fill in entry["fills"]}
                rest = {cloid: time for cloid, time in self.without_fills.items() if cloid not in known}
                return replace(self, without_fills=rest)
            case "leverages_set":
                isolated = entry.get("isolated", ())  # earlier releases do not say: it is set again
                done = {coin: (value, coin not in isolated) for coin, value in entry["leverages"].items()}
                return replace(self, leverage={**self.leverage, **done})
            case "leverage_set":  # of earlier releases
                return replace(self, leverage={**self.leverage, entry["coin"]: (entry["leverage"], True)})
        return self

    def _with_equity(self, entry: Mapping[str, Any]) -> JournalState:
        equity = entry.get("equity_usd")
        if equity is None:
            return self
        record = EquityRecord(pd.Timestamp(entry["time"]), equity, entry["kind"])
        return replace(self, equities=(*self.equities, record))

    def _with_positions(self, entry: Mapping[str, Any]) -> JournalState:
        return replace(self, positions=dict(entry["positions"]), positions_at=self._not_before(entry))

    def _not_before(self, entry: Mapping[str, Any]) -> pd.Timestamp:
        """Time of an entry; a node that lags behind may stamp it older than what is known already."""
        at = pd.Timestamp(entry["time"])
        return at if self.positions_at is None else max(at, self.positions_at)

    def _after_intent(self, entry: Mapping[str, Any]) -> JournalState:
        unresolved, attempts = dict(self.unresolved), dict(self.attempts.get(entry["instant"], {}))
        clocks = {name: entry[name] for name in ("expires_seconds", "boot_id", "boot_seconds") if name in entry}
        for order in entry["orders"]:
            request = OrderRequest(**{item.name: order[item.name] for item in fields(OrderRequest)})
            sent = SentOrder(request, pd.Timestamp(entry["time"]), entry["expires_ms"], **clocks)
            unresolved[request.cloid] = sent
            attempts[request.coin] = attempts.get(request.coin, 0) + 1
        return replace(self, unresolved=unresolved, attempts={**self.attempts, entry["instant"]: attempts})

    def _after_results(self, entry: Mapping[str, Any]) -> JournalState:
        unresolved, positions = dict(self.unresolved), dict(self.positions)
        without_fills = dict(self.without_fills)
        for result in entry["answers"]:
            if result["fate"] == "unknown" or (sent := unresolved.pop(result["cloid"], None)) is None:
                continue
            if result["fate"] == "filled":
                coin = sent.request.coin
                positions[coin] = round(positions.get(coin, 0.0) + result["units"], 8)
                without_fills[sent.request.cloid] = sent.time
        at = self._not_before(entry)
        return replace(self, unresolved=unresolved, positions=positions, positions_at=at, without_fills=without_fills)

    def accepted_equities(self) -> list[EquityRecord]:
        """Equities of runs that no limit refused."""
        return [record for record in self.equities if record.kind != "refused"]

    def unfinished(self, instant: pd.Timestamp, key: str) -> tuple[Goal, ...] | None:
        """Goals of the newest plan, if it is of `instant` and `key` and did not come to its end; None otherwise."""
        return self.plan[2] if self.plan is not None and self.plan[:2] == (instant.isoformat(), key) else None

    def finished(self, instant: pd.Timestamp, key: str) -> tuple[Goal, ...] | None:
        """Goals of the newest plan, if it is of `instant` and `key` and came to its end; None otherwise."""
        done = self.carried_out
        return done[2] if done is not None and done[:2] == (instant.isoformat(), key) else None


class Journal:
    """Entries of one strategy on one account.

    Parameters
    ----------
    path : str, Path or None
        The file, read when it exists and created by the first entry; None keeps entries in memory (paper, tests).

    Attributes
    ----------
    entries : list of dict
        Oldest first; each has ``n`` (its number), ``kind`` and ``time``.
    state : JournalState
        Of all entries.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.entries: list[dict[str, Any]] = []
        self.state = JournalState()
        self._bytes = 0  # of the whole lines that were read or written
        self.reload()

    def reload(self) -> None:
        """Read the file again: what was read before the account was locked may have grown since."""
        if self.path is None:
            return
        path, content = self.path, self.path.read_bytes() if self.path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        self.entries, self.state, self._bytes = [], JournalState(), len(whole)
        for number, line in enumerate(whole.splitlines()):
            try:
                entry = json.loads(line)
                if entry["n"] != number:
                    raise ValueError(f"it is numbered {entry['n']}")
                self.state = self.state.after(entry)
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise LiveError(
                    f"The journal {path} is damaged in line {number + 1}: {error}. Nothing is traded on a damaged "
                    "journal: check the account by hand, then move the file away."
                ) from error
            self.entries.append(entry)

    def append(self, kind: str, time: pd.Timestamp, **fields: Any) -> None:
        """Write an entry; it is on the disk when this returns."""
        entry = {"n": len(self.entries), "kind": kind, "time": time.isoformat(), **fields}
        if self.path is not None:
            line = json.dumps(entry, sort_keys=True, allow_nan=False) + "\n"
            self._write(line.encode())
        self.entries.append(entry)
        self.state = self.state.after(entry)

    def _write(self, line: bytes) -> None:
        assert self.path is not None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = not self.path.exists()
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                self._cut_torn_tail(file)
                if os.write(file, line) != len(line):  # a disk that is full fails with the next write only
                    os.ftruncate(file, self._bytes)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file)
            finally:
                os.close(file)
            if fresh:
                sync_folder(self.path.parent)
        except OSError as error:
            raise LiveError(
                f"The journal {self.path} cannot be written: {error.strerror}. Nothing is sent without a journal."
            ) from error
        self._bytes += len(line)

    def _cut_torn_tail(self, file: int) -> None:
        """Cut off what a killed process left of a line; a file that another process changed is refused."""
        size = os.fstat(file).st_size
        if size == self._bytes:
            return
        os.lseek(file, self._bytes, os.SEEK_SET)
        if size < self._bytes or b"\n" in os.read(file, size):
            raise LiveError(
                f"Another process has changed the journal {self.path} during this run. Nothing more is sent: run the "
                "command again."
            )
        os.ftruncate(file, self._bytes)
