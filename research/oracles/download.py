"""Download a file of scores: into a temporary folder, checked, then moved under a name with its newest date."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from engine.data.panel_loader import cache_path
from engine.errors import HlbtError, OracleError
from research.oracles.publication_schedule import newest_expected, schedule_of
from research.oracles.published_scores import PublishedOracle
from research.oracles.score_file import Layout, read_published

#: Removed from the messages of a service: the query of an address can carry a signature.
_QUERY = re.compile(r"\?\S+")


def fetch_file(folder: Path, stem: str, service: str, fetch: Callable[[Path], Path], layout: Layout) -> Path:
    """Download a file of scores.

    Parameters
    ----------
    folder : Path
        Target folder, created when absent.
    stem : str
        For example ``meta_model``; the file becomes ``meta_model-<newest date>-<digest>.parquet`` or ``.csv``.
    service : str
        Name of the data, for messages.
    fetch : callable
        Downloads into the folder that it is given, which is new and empty, and returns the file: the rest of an
        earlier download can be neither taken for this one nor continued.
    layout : Layout
        What the file must hold.

    Returns
    -------
    Path

    Raises
    ------
    OracleError
        When the service does not answer or the file is not as expected. Then no file is left behind.
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
                reason = _QUERY.sub("?...", " ".join(str(error).split()))[:300]
                raise OracleError(
                    f"{service} cannot be downloaded: {type(error).__name__}: {reason}. {cure}"
                ) from error
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
    files = [path for path in folder.glob(f"{stem}-*") if form.fullmatch(path.name)] if folder.is_dir() else []
    return max(files, key=lambda path: (path.name.removeprefix(stem)[:11], path.stat().st_mtime_ns), default=None)


class DownloadedOracle(PublishedOracle):
    """Ranks coins by scores of a service, from a file that is given or downloaded.

    Without `file` the newest file of `folder` is used if it has every row that was published before the last decision,
    and a new one is downloaded otherwise. A subclass is a frozen dataclass with the fields below.

    Attributes
    ----------
    file : str or None
        Path of a file of scores.
    publication : str, float or list
        See :func:`research.oracles.publication_schedule.schedule_of`.
    folder : str or None
        Where downloads lie; default `service` in the data cache.
    """

    file: str | None
    publication: Any
    folder: str | None
    #: Beginning of the names of downloaded files, default folder of them, and weekdays of rows (Monday 0).
    stem: ClassVar[str]
    service: ClassVar[str]
    weekdays: ClassVar[Sequence[int]] = range(7)

    @staticmethod
    @abstractmethod
    def download(folder: Path | None = None) -> Path:
        """Download the newest file into `folder`, by default that of the service in the data cache."""

    def file_for(self, until: pd.Timestamp) -> Path:
        """See :meth:`PublishedOracle.file_for`."""
        if self.file is not None:
            return Path(self.file)
        folder = self._folder()
        expected = newest_expected(until, schedule_of(self.publication), self.weekdays)
        newest = newest_file(folder, self.stem)
        if newest is not None and newest.name.removeprefix(f"{self.stem}-")[:10] >= f"{expected:%Y-%m-%d}":
            return newest
        return _downloaded(folder.resolve(), until, type(self).download)

    def files(self) -> tuple[Path, ...]:
        """See :meth:`engine.Oracle.files`."""
        file = Path(self.file) if self.file is not None else newest_file(self._folder(), self.stem)
        return () if file is None else (file,)

    def _folder(self) -> Path:
        return cache_path() / self.service if self.folder is None else Path(self.folder)


@lru_cache(maxsize=16)
def _downloaded(folder: Path, _until: pd.Timestamp, download: Callable[[Path], Path]) -> Path:
    """One download for an instant: a sweep does not call a service that is late once for every book."""
    return download(folder)
