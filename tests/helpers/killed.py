"""Work that kills its own process half-way, for children of the fork server of conftest.py, which imports it once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import boto3  # noqa: F401 - what a child would import itself, each time anew
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from engine import cli
from engine.commands import data  # noqa: F401
from engine.data import sync_s3  # noqa: F401
from engine.data.cache import Store

#: What the interpreter tells of before it is done: files of the cache and requests.
STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "socket.connect"}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def merge_and_die(folder: str, call: str, count: int) -> None:
    """Merge a month's table; die at call number `count` of ``os.<call>``, or right after it (``call`` + ":after")."""
    left = [count]
    real = getattr(os, call.split(":")[0])

    def dying(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            if call.endswith(":after"):
                real(*arguments, **options)
            die()
        return real(*arguments, **options)

    setattr(os, call.split(":")[0], dying)
    time = pd.date_range("2024-01-31T20:00Z", periods=1400, freq="h", unit="ms")
    frame = pd.DataFrame({"time": time, "coin": "ETH", "mid": np.arange(1.0, 1401.0)})
    Store(folder).merge([pa.Table.from_pandas(frame, preserve_index=False)], "first")


def run_and_die_at(words: list[str], cache: str, account: dict[str, str], step: int, after: float, steps: str) -> None:
    """Run a command; die before step number `step` on the files of `cache` or a socket, or `after` seconds later.

    The number of steps that there were is written to the file `steps` by a command that reached its end.
    """
    os.environ.update(account)
    sys.stdout = sys.stderr = open(os.devnull, "w")
    lock, seen = threading.Lock(), [0]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in STEPS or not (event == "socket.connect" or str(arguments[0]).startswith(cache)):
            return
        with lock:
            seen[0] += 1
            due = seen[0] == step
        if due and after:
            threading.Timer(after, die).start()
        elif due:
            die()

    sys.addaudithook(hook)
    sys.argv = ["hlbt", *words]
    try:
        cli.main()
    except SystemExit as left:
        Path(steps).write_text(str(seen[0]))
        os._exit(int(left.code or 0))
    Path(steps).write_text(str(seen[0]))
