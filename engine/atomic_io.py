"""Atomic, durable writes and folder locks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import DataError

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the write lock of `folder`, which is created when absent.

    Raises
    ------
    DataError
        When another process holds it.
    """
    taken = DataError(f"Another process is writing to {folder} (it holds {LOCK}). Wait for it, then run again.")
    with exclusive(folder / LOCK, taken):
        yield


@contextmanager
def exclusive(path: Path, taken: Exception | None) -> Iterator[None]:
    """Hold the lock file `path`, created when absent, or raise `taken`; it is released when the process dies.

    Without `taken` another holder is waited for.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if taken is not None else 0))
        except BlockingIOError as error:
            assert taken is not None
            raise taken from error
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
