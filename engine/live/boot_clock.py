"""Time since the machine was started, by a clock that nobody can set, and which start that was."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Final
from uuid import uuid4

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@cache
def boot_id() -> str:
    """Which start of the machine :func:`boot_seconds` counts from; where it is not known, one of this process."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return f"process-{uuid4().hex}"


def boot_seconds() -> float:
    """Seconds of a clock that never goes back; on Linux it counts while the machine sleeps, too."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
