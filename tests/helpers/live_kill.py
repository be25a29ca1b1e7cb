"""A process that runs a live command and kills itself at a step of the journal; imported by a fork server, once."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any

import hyperliquid.exchange  # noqa: F401 - what a child would import itself, each time anew

from engine import cli
from engine.config import Execution
from engine.live.hyperliquid import HyperLiquidDEX
from engine.live.journal import Journal
from engine.live.venue import Venue  # noqa: F401
from engine.simulation.sizing import plan_orders

# What the first plan compiles and imports, every child then has.
plan_orders({"BTC": 0.5}, {}, 100.0, {"BTC": 1.0}, {"BTC": True}, {}, Execution())


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_and_die(words: list[str], step: int, when: str) -> None:
    """Run `words`; die before, in the middle of, or after the journal's entry number `step`, or with orders under way.

    ``when = "in flight"`` dies 0.1 s after the request of entry `step` (an intent) was sent, answered or not.
    """
    os.chdir(os.path.dirname(words[words.index("--credentials") + 1]))
    sys.stdout = sys.stderr = open(os.devnull, "w")
    append, write, send = Journal.append, Journal._write, HyperLiquidDEX.send
    written: list[int] = [0]

    def counted(self: Journal, kind: str, time: Any, **fields: Any) -> None:
        number = len(self.entries)
        written[0] = number
        if number == step and when == "before":
            die()
        append(self, kind, time, **fields)
        if number == step and when == "after":
            die()

    def torn(self: Journal, line: bytes) -> None:
        if when == "torn" and len(self.entries) == step:
            write(self, line[: len(line) // 2])
            die()
        write(self, line)

    def in_flight(self: HyperLiquidDEX, orders: Any, expires_ms: int) -> Any:
        if when == "in flight" and written[0] == step:
            threading.Thread(target=lambda: (time.sleep(0.1), die())).start()
        return send(self, orders, expires_ms)

    Journal.append, Journal._write, HyperLiquidDEX.send = counted, torn, in_flight  # type: ignore[method-assign]
    sys.argv = ["hlbt", *words]
    cli.main()


def run_and_die_demoting(words: list[str], when: str) -> None:
    """Run `words`; die before, in the middle of, or after the record of a demotion, or after its journal entry."""
    import engine.live.demotion
    import engine.live.session

    sys.stdout = sys.stderr = open(os.devnull, "w")
    demote, append = engine.live.session.demote, Journal.append

    def dying(*arguments: Any) -> None:
        if when == "before the record":
            die()
        if when == "in the record":
            os.replace = lambda *_: die()  # type: ignore[assignment]
        demote(*arguments)
        if when == "after the record":
            die()

    def counted(self: Journal, kind: str, time: Any, **fields: Any) -> None:
        append(self, kind, time, **fields)
        if kind == "demoted" and when == "after its entry":
            die()

    engine.live.session.demote = dying
    Journal.append = counted  # type: ignore[method-assign]
    sys.argv = ["hlbt", *words]
    cli.main()
