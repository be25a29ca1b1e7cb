"""Compile the kernels of backtest and sweep before they are needed: ``python -m engine.simulation.warm_up [which]``.

Numba keeps machine code per machine, so none can be shipped, and compiling takes a command some ten seconds once. What
is compiled here is what a panel of one exchange's own coins runs; one with isolated coins compiles more on first use.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd

from engine.config import RunConfig
from engine.panel import Panel

#: A kernel each: that of one run, that of many, and those of their books and of null books.
KERNELS = ("backtest", "batch", "books")


def warm_up(kernel: str) -> None:
    """Compile one of :data:`KERNELS`, or find that it is compiled: a run of two days."""
    from engine.simulation.backtest import backtest, decisions_of
    from engine.simulation.batch import backtest_many
    from engine.simulation.kernel import rename_nb, top_bottom_nb
    from engine.weights import SparseWeights

    if kernel == "books":
        orders, one = np.array([[0, 1], [1, 0]]), np.ones(1, dtype=np.int64)
        rows = (orders[:1], orders[1:], orders[:1], orders[1:], 2 * one, one, 0 * one, np.array([0.5]))
        book = np.zeros(2, dtype=np.int64), np.empty(3, dtype=np.uint32), np.empty(3)
        top_bottom_nb(*rows, *book)
        room = np.zeros(2, dtype=np.int64), np.empty(3, dtype=np.uint32), np.empty(3)
        rename_nb(orders[:1], 0 * one, *book, np.ones((1, 2), dtype=np.bool_), *room)
        return
    index = pd.date_range("2024-01-01", periods=49, freq="h", tz="UTC")
    frame = pd.DataFrame(100.0, index, ["BTC", "ETH"])
    funding = 0.0 * frame
    funding.iloc[5, 0] = np.nan  # hours without a rate are counted by a kernel of their own
    panel, config = Panel.from_frames(mid=frame, funding=funding, volume_usd=frame), RunConfig()
    decisions = decisions_of(panel, config)
    values = np.full((len(decisions), 2), 0.5)
    if kernel == "backtest":
        backtest(panel, pd.DataFrame(values, decisions, panel.coins), config)
    else:
        backtest_many(panel, SparseWeights.from_dense(values[None]), decisions, config, threads=1)


@contextmanager
def warming_up(kernel: str) -> Iterator[Callable[[], object]]:
    """Compile a kernel in a process beside this one, which ends with the context; what it yields waits for it.

    Nothing depends on it: what it could not compile is compiled on first use.
    """
    command = [sys.executable, "-m", "engine.simulation.warm_up", kernel]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as child:
        try:
            yield child.wait
        finally:
            child.kill()


if __name__ == "__main__":
    os.nice(5)  # whoever waits for something else goes first
    for name in sys.argv[1:] or KERNELS:
        warm_up(name)
