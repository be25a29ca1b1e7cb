"""The journal: what was intended before it was sent, and what was answered after; append-only, on the disk each time.

One line of JSON an entry. A process killed at any moment leaves whole lines and at most one torn tail, which was no
intent yet and is cut off by the next. The next run asks the exchange about every order without a known fate.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from engine.atomic_io import exclusive, sync_folder
from engine.errors import LiveError
from engine.live.orders import Goal, OrderRequest, OrderResult


class Journal:
    """Entries of one strategy on one account.

    Parameters
    ----------
    path : str, Path or None
        The file, read when it is there and made by the first entry; None keeps entries in memory (paper, tests).

    Attributes
    ----------
    entries : list of dict
        Oldest first; each has ``n`` (its number), ``kind`` and ``time``.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.entries: list[dict[str, Any]] = []
        self._bytes = 0  # of the whole lines that were read or written
        self.reload()

    def reload(self) -> None:
        """Read the file again: what was read before the account was locked may have grown since."""
        if self.path is None:
            return
        path, content = self.path, self.path.read_bytes() if self.path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        self.entries, self._bytes = [], len(whole)
        for number, line in enumerate(whole.splitlines()):
            try:
                entry = json.loads(line)
                if entry["n"] != number:
                    raise ValueError(f"it is numbered {entry['n']}")
            except (ValueError, KeyError, TypeError) as error:
                raise LiveError(
                    f"The journal {path} is damaged in line {number + 1}: {error}. Nothing is traded on a journal that "
                    "cannot be trusted: check the account by hand, then move the file away."
                ) from error
            self.entries.append(entry)

    def append(self, kind: str, time: pd.Timestamp, **fields: Any) -> None:
        """Write an entry; it is on the disk when this returns."""
        entry = {"n": len(self.entries), "kind": kind, "time": time.isoformat(), **fields}
        if self.path is not None:
            line = json.dumps(entry, sort_keys=True, allow_nan=False) + "\n"
            self._write(line.encode())
        self.entries.append(entry)

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
        """Cut off what a killed process left of a line; a file that somebody else made longer or shorter is refused."""
        size = os.fstat(file).st_size
        if size == self._bytes:
            return
        os.lseek(file, self._bytes, os.SEEK_SET)
        if size < self._bytes or b"\n" in os.read(file, size):
            raise LiveError(
                f"Somebody else has changed the journal {self.path} meanwhile. Nothing is sent on half of what is "
                "known: run the command again."
            )
        os.ftruncate(file, self._bytes)

    # What a restart needs ---------------------------------------------------------------------------------------------

    def unresolved(self) -> list[tuple[OrderRequest, int]]:
        """Orders that may have been sent and whose fate is not known, each with the time at which it is void (ms)."""
        open_orders: dict[str, tuple[OrderRequest, int]] = {}
        for entry in self.entries:
            if entry["kind"] == "intent":
                for order in entry["orders"]:
                    request = OrderRequest(
                        order["cloid"], order["coin"], order["units"], order["limit_price"], order["reduce_only"]
                    )
                    open_orders[request.cloid] = (request, entry["expires_ms"])
            elif entry["kind"] in ("answers", "resolved"):
                for answer in entry["answers"]:
                    if answer["fate"] != "unknown":
                        open_orders.pop(answer["cloid"], None)
        return list(open_orders.values())

    def positions(self) -> dict[str, float]:
        """Signed units by coin that the newest plan or end and the answers since then add up to."""
        coins: dict[str, str] = {}
        found: dict[str, float] = {}
        for entry in self.entries:
            if entry["kind"] == "intent":
                coins |= {order["cloid"]: order["coin"] for order in entry["orders"]}
            elif entry["kind"] in ("plan", "done"):
                found = dict((entry["plan"] if entry["kind"] == "plan" else entry)["positions"])
            elif entry["kind"] in ("answers", "resolved"):
                for answer in entry["answers"]:
                    if answer["fate"] == "filled" and answer["cloid"] in coins:
                        coin = coins[answer["cloid"]]
                        found[coin] = round(found.get(coin, 0.0) + answer["units"], 8)
        return found

    def attempts(self, instant: pd.Timestamp) -> dict[str, int]:
        """Orders of each coin that were intended for `instant` so far: the number of its next one."""
        found: dict[str, int] = {}
        for entry in self.entries:
            if entry["kind"] == "intent" and entry["instant"] == instant.isoformat():
                for order in entry["orders"]:
                    found[order["coin"]] = found.get(order["coin"], 0) + 1
        return found

    def unfinished(self, instant: pd.Timestamp, key: str) -> list[Goal] | None:
        """Goals of the newest plan, if it is of `instant` and `key` and did not come to its end; None otherwise."""
        for entry in reversed(self.entries):
            if entry["kind"] == "done":
                return None
            if entry["kind"] == "plan":
                same = (entry["instant"], entry["key"]) == (instant.isoformat(), key)
                return [Goal(**goal) for goal in entry["goals"]] if same else None
        return None

    def equities(self, kinds: Sequence[str] = ("plan", "done")) -> list[tuple[pd.Timestamp, float]]:
        """Equity recorded so far in entries of some kinds, oldest first, USD."""
        return [
            (pd.Timestamp(entry["time"]), entry["equity_usd"])
            for entry in self.entries
            if entry["kind"] in kinds and entry.get("equity_usd") is not None
        ]

    def without_fills(self) -> dict[str, pd.Timestamp]:
        """Client ids of the orders that were filled and whose fills are not noted yet, with the time of the intent."""
        intended: dict[str, pd.Timestamp] = {}
        found: dict[str, pd.Timestamp] = {}
        for entry in self.entries:
            if entry["kind"] == "intent":
                intended |= {order["cloid"]: pd.Timestamp(entry["time"]) for order in entry["orders"]}
            elif entry["kind"] in ("answers", "resolved"):
                filled = [answer["cloid"] for answer in entry["answers"] if answer["fate"] == "filled"]
                found |= {cloid: intended[cloid] for cloid in filled if cloid in intended}
            elif entry["kind"] == "fills":
                for fill in entry["fills"]:
                    found.pop(fill["cloid"], None)
        return found

    def leverage(self) -> dict[str, int]:
        """Leverage that was set, by coin."""
        return {entry["coin"]: entry["leverage"] for entry in self.entries if entry["kind"] == "leverage_set"}


def described(answers: Sequence[OrderResult]) -> list[dict[str, Any]]:
    """Answers as plain values."""
    return [asdict(answer) for answer in answers]


@contextmanager
def single_instance(path: Path) -> Iterator[None]:
    """Hold the lock file of an account.

    Raises
    ------
    LiveError
        When another process holds it, or it cannot be made.
    """
    taken = LiveError(
        f"Another process trades this account: it holds {path}. Two at once would trade twice. Wait for it, or end it."
    )
    with ExitStack() as held:
        try:
            held.enter_context(exclusive(path, taken))
        except OSError as error:
            raise LiveError(f"The lock {path} cannot be made: {error.strerror}. Nothing is sent without it.") from error
        yield
