"""A process that runs a live command and kills itself at a step of the journal; imported by a fork server, once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from typing import Any

import hyperliquid.exchange  # noqa: F401 - what a child would import itself, each time anew

from engine import cli
from engine.config import Execution
from engine.live.journal import Journal
from engine.live.venue import Venue  # noqa: F401
from engine.simulation.sizing import plan_orders
from helpers.hyperliquid_exchange import HyperLiquidExchange
from helpers.waiting import LONG_SECONDS, wait_until

# What the first plan compiles and imports, every child then has.
plan_orders({"BTC": 0.5}, {}, 100.0, {"BTC": 1.0}, {"BTC": True}, {}, Execution())


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(
    forks: ForkServerContext,
    server: HyperLiquidExchange,
    words: list[str],
    step: int,
    when: str,
    match: Callable[[dict[str, Any]], bool] | None = None,
) -> None:
    """Run `words` in a process that dies before, in the middle of, or after the journal's entry number `step`.

    ``when = "in flight"`` kills it once it has sent orders that `match`; they take effect after the death.
    """
    late = server.inject("late", on="order", match=match) if when == "in flight" else None
    if late is not None:
        words = [*words, "--timeout-seconds", "60", "--expires-seconds", "60"]
    child = forks.Process(target=_run_and_die, args=(words, step, when))
    child.start()
    if late is not None:
        wait_until(lambda: late.met or not child.is_alive())
        child.kill()
    child.join(LONG_SECONDS)
    assert child.exitcode == -signal.SIGKILL
    if late is not None:
        late.arrive()


def _run_and_die(words: list[str], step: int, when: str) -> None:
    os.chdir(os.path.dirname(words[words.index("--credentials") + 1]))
    sys.stdout = sys.stderr = open(os.devnull, "w")
    append, write = Journal.append, Journal._write

    def counted(self: Journal, kind: str, time: Any, **fields: Any) -> None:
        number = len(self.entries)
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

    Journal.append, Journal._write = counted, torn  # type: ignore[method-assign]
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
