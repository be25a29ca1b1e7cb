"""Fetching a file of scores: into a folder of its own, checked, then named by its newest date and put in place."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import pandas as pd

from engine.errors import HlbtError, OracleError
from research.oracles.publication_schedule import Rule, newest_expected
from research.oracles.score_file import Layout, read_published

#: What a service may put into a message: the query of an address can carry a signature.
_QUERY = re.compile(r"\?\S+")


def fetch_file(folder: Path, stem: str, service: str, fetch: Callable[[Path], Path], layout: Layout) -> Path:
    """Download a file of scores.

    Parameters
    ----------
    folder : Path
        Where it goes, made when absent.
    stem : str
        For example ``meta_model``; the file becomes ``meta_model-<newest date>-<digest>.parquet`` or ``.csv``.
    service : str
        Its name in what is said.
    fetch : callable
        Downloads into the folder that it is given, which is new and empty, and returns the file: what was left by an
        earlier download can be neither taken for this one nor continued.
    layout : Layout
        What the file must hold.

    Returns
    -------
    Path

    Raises
    ------
    OracleError
        When the service does not answer or the file is not what was asked for. Nothing is left of it then.
    """
    cure = "Check the network and try again, or give a file that you have: file=PATH."
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder, ignore_cleanup_errors=True) as fresh:
            try:
                target = fetch(Path(fresh))
            except HlbtError:
                raise
            except Exception as error:  # whatever a client of somebody's service raises
                said = _QUERY.sub("?...", " ".join(str(error).split()))[:300]
                raise OracleError(f"{service} cannot be downloaded: {type(error).__name__}: {said}. {cure}") from error
            if not target.is_file():
                raise OracleError(f"{service} cannot be downloaded: the service gave no file. {cure}")
            try:
                newest = read_published(target, layout).dates[-1]
            except OracleError as error:
                reason = str(error).removeprefix(f"Scores {target.resolve()}").lstrip(" :")
                raise OracleError(f"{service} is not what was expected: {target.name} {reason}") from error
            digest = hashlib.sha256(target.read_bytes()).hexdigest()[:12]
            final = folder / f"{stem}-{newest:%Y-%m-%d}-{digest}{target.suffix}"
            os.replace(target, final)
            return final
    except OSError as error:
        raise OracleError(f"{service} cannot be written to {folder}: {error.strerror or error}.") from error


def newest_file(folder: Path, stem: str) -> Path | None:
    """The downloaded file with the newest rows, None when there is none."""
    form = re.compile(re.escape(stem) + r"-\d{4}-\d{2}-\d{2}-[0-9a-f]{12}\.(csv|parquet)")
    found = [path for path in folder.glob(f"{stem}-*") if form.fullmatch(path.name)] if folder.is_dir() else []
    return max(found, key=lambda path: (path.name.removeprefix(stem)[:11], path.stat().st_mtime_ns), default=None)


def covering_file(
    folder: Path,
    stem: str,
    until: pd.Timestamp,
    schedule: Sequence[Rule],
    weekdays: Sequence[int],
    download: Callable[[Path], Path],
) -> Path:
    """The newest downloaded file if it has every row that is out before `until`, else a new download."""
    expected = newest_expected(until, schedule, weekdays)
    found = newest_file(folder, stem)
    if found is not None and found.name.removeprefix(f"{stem}-")[:10] >= f"{expected:%Y-%m-%d}":
        return found
    return _downloaded(folder.resolve(), until, download)


@lru_cache(maxsize=16)
def _downloaded(folder: Path, _until: pd.Timestamp, download: Callable[[Path], Path]) -> Path:
    """One download for one question: a service that is late is not asked again by every book of a sweep."""
    return download(folder)
