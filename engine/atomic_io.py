"""Atomic, durable writes and folder locks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import DataError

LOCK = ".lock"
#: Between two looks at a lock that another process holds.
_LOOK_SECONDS = 0.1


@contextmanager
def locked(folder: Path, wait_seconds: float = 0.0, waiting: Callable[[], object] | None = None) -> Iterator[None]:
    """Hold the write lock of `folder`, which is created when absent.

    Parameters
    ----------
    folder : path
        The folder.
    wait_seconds : float
        How long to wait for another process that holds it.
    waiting : callable, optional
        Called while it waits.

    Raises
    ------
    DataError
        When another process holds it, still.
    """
    waited = f" for more than {wait_seconds:g} s" if wait_seconds else ""
    taken = DataError(f"Another process is writing to {folder}{waited} (it holds {LOCK}). Wait for it, then run again.")
    with exclusive(folder / LOCK, taken, wait_seconds, waiting):
        yield


@contextmanager
def exclusive(
    path: Path, taken: Exception | None, wait_seconds: float = 0.0, waiting: Callable[[], object] | None = None
) -> Iterator[None]:
    """Hold the lock file `path`, created when absent, or raise `taken`; it is released when the process dies.

    Another holder is waited for `wait_seconds`, `waiting` being called meanwhile, and without `taken` for ever.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        until = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if taken is not None and time.monotonic() >= until:
                    raise taken from error
            if waiting:
                waiting()
            time.sleep(_LOOK_SECONDS)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces `path` when the block ends, and is removed when it fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.writing")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_durable(path: Path, content: bytes) -> None:
    """Write `content` to `path`, completely and on the disk, or not at all.

    The rename is durable only after :func:`sync_folder`.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the renames in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
