"""Durable writing in a folder: the lock, the atomic replacement, the removal of what a killed writer left."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.errors import DataError

LOCK = ".lock"
HOURLY = "hourly"
FOLDERS = (HOURLY, "objects")
#: Only names of these forms are ever removed: a file of the user's in the folder is none of our business.
_OURS = re.compile(r"([a-z0-9_]+-)?\d{4}-\d{2}\.[0-9a-f]{12}\.parquet")
_TEMPORARY = re.compile(r"\..+\.writing")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the write lock of `folder`, which is made when absent; the kernel frees it when the process dies.

    Raises
    ------
    DataError
        When another process holds it.
    """
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(
                f"Another process is writing to {folder} (it holds {LOCK}). Wait for it, then run again."
            ) from error
        yield
    finally:
        os.close(descriptor)


def write_durable(path: Path, content: bytes) -> None:
    """Put `content` at `path`, on the disk and whole, or not at all.

    The rename is durable only after :func:`sync_folder`.
    """
    temporary = path.with_name(f".{path.name}.writing")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def sync_folder(folder: Path) -> None:
    """Make the renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def leftovers(folder: Path, kept: Collection[str]) -> list[Path]:
    """Files of ours in the cache `folder` that are not among the `kept` names (relative to it)."""
    strays = [path for path in _listed(folder) if _TEMPORARY.fullmatch(path.name)]
    for inner in FOLDERS:
        for path in _listed(folder / inner):
            named = _OURS.fullmatch(path.name) and f"{inner}/{path.name}" not in kept
            if named or _TEMPORARY.fullmatch(path.name):
                strays.append(path)
    return strays


def sweep(folder: Path, kept: Collection[str]) -> None:
    """Remove :func:`leftovers`; one that will not go is left for the next write."""
    for path in leftovers(folder, kept):
        with suppress(OSError):
            os.unlink(path)


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        return []
