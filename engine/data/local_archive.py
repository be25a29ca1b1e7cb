"""A folder with files of HyperLiquid's archive, a mirror or earlier downloads, in the place of its bucket.

Files are known by their names, wherever they lie: ``20240101.csv.lz4`` is the day's ``asset_ctxs``, and a path that
ends like ``market_data/20240101/22/l2Book/BTC.lz4`` is a book. A file stands for the object of that key: where the
cache has the same bytes from the bucket, there is nothing to take, and the bucket has nothing new after the folder.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from engine.atomic_io import replacing
from engine.data.cache import Progress
from engine.data.manifest import ObjectRecord
from engine.data.s3_archive import ASSET_CTXS, ArchiveObject, FetchError, ListedObject
from engine.data.table_files import visible_files
from engine.errors import DataError, join_first

_DAY = re.compile(r"\d{8}\.csv\.lz4")
_BOOK = re.compile(r"(?:.*/)?(market_data/\d{8}/\d{1,2}/l2Book/[^/]+\.lz4)")
_POINTER = b"version https://git-lfs"


class LocalArchive:
    """The files of a folder as a :class:`engine.data.s3_archive.Source`; each is read when it is listed.

    Parameters
    ----------
    folder : path
        Searched through, but for hidden folders.
    records : mapping of str to ObjectRecord
        Objects in the cache. A file with the bytes of one has its ETag; any other has its own MD5, which is the ETag
        that S3 gives to an object uploaded at once.
    progress : callable, optional
        Called with files listed, files in all, file name.

    Attributes
    ----------
    requests : int
        0: nothing is paid.
    where : str
        The folder, for messages.

    Raises
    ------
    DataError
        When there is no such folder, or it has no file of the archive.
    """

    def __init__(self, folder: Path, records: Mapping[str, ObjectRecord], *, progress: Progress | None = None) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder. Name one with the archive's files, 20240101.csv.lz4 and so on.")
        self.requests = 0
        self.where = f"the folder {folder}"
        self._records, self._progress = records, progress
        self._paths: dict[str, list[Path]] = {}
        self._ignored: list[str] = []
        for path in visible_files(folder):
            if key := _key(path):
                self._paths.setdefault(key, []).append(path)
            else:
                self._ignored.append(str(path.relative_to(folder)))
        if not self._paths:
            raise DataError(
                f"{folder} has no file of the archive: none of its {len(self._ignored)} files is named like "
                "20240101.csv.lz4 or lies like market_data/20240101/22/l2Book/BTC.lz4."
            )

    def objects(self, prefix: str, start_after: str = "") -> Iterator[ListedObject]:
        """List the files below `prefix`, by key, those after `start_after`.

        Raises
        ------
        DataError
            When a file cannot be read, or two different ones stand for one object.
        """
        keys = sorted(key for key in self._paths if key.startswith(prefix) and key > start_after)
        for done, key in enumerate(keys):
            first, *others = self._paths[key]
            if self._progress:
                self._progress(done, len(keys), key)
            item = self._listed(_content(first), key)
            for other in others:
                if self._listed(_content(other), key) != item:
                    raise DataError(
                        f"{first} and {other} are both {key} and differ. Remove one of them, or name a folder that "
                        "has only one."
                    )
            yield item

    def _listed(self, content: bytes, key: str) -> ListedObject:
        record = self._records.get(key)
        if record is not None and hashlib.sha256(content).hexdigest() == record.sha256:
            return ListedObject(key, record.etag, len(content))
        return ListedObject(key, hashlib.md5(content, usedforsecurity=False).hexdigest(), len(content))

    def folders(self, prefix: str) -> list[str]:
        """Name the folders directly below `prefix`."""
        below = (key.removeprefix(prefix) for key in self._paths if key.startswith(prefix))
        return sorted({rest.partition("/")[0] for rest in below if "/" in rest})

    def fetch(self, item: ArchiveObject, path: Path, step: Callable[[int], None]) -> str:
        """Copy a file to `path`, calling `step` with its bytes; returns its SHA-256.

        Raises
        ------
        FetchError
            When it cannot be read, was changed since it was listed, or only stands for the real file.
        """
        own = self._paths[item.key][0]
        content = _content(own)
        if content.startswith(_POINTER):
            raise FetchError(f"({own}) is a pointer of Git LFS and not the file itself; fetch it with `git lfs pull`")
        if self._listed(content, item.key) != ListedObject(item.key, item.etag, item.size):
            raise FetchError(f"({own}) was changed while the sync ran; sync again")
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        step(len(content))
        return hashlib.sha256(content).hexdigest()

    def notes(self) -> tuple[str, ...]:
        """Say what was ignored."""
        names = self._ignored
        return (f"Ignored, {len(names)} files that are none of the archive's: {join_first(names)}.",) if names else ()


def _key(path: Path) -> str:
    """Key of the object that a file stands for; empty when it stands for none."""
    if _DAY.fullmatch(path.name):
        return f"{ASSET_CTXS}/{path.name}"
    book = _BOOK.fullmatch(path.as_posix())
    return book[1] if book else ""


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
