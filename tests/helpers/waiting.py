"""Waiting for what happens in another thread or process: for the event, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Long enough for any machine, however busy: only what never happens takes so long.
LONG_SECONDS = 120.0


def wait_until(happened: Callable[[], object]) -> None:
    """Return once `happened()` is true; an assertion fails when it is not after :data:`LONG_SECONDS`."""
    end = time.monotonic() + LONG_SECONDS
    while not happened():
        assert time.monotonic() < end, f"it did not happen within {LONG_SECONDS:g} s"
        time.sleep(0.01)
