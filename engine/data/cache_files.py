"""Files of a cache folder: their names, and the removal of leftovers of killed writers."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

HOURLY = "hourly"
FOLDERS = (HOURLY, "objects")
#: Only files with names of these forms are ever removed: others belong to the user.
OURS = re.compile(
    r"(?P<stem>(?:[a-z0-9_]+-)?\d{4}-\d{2}(?:-(?P<source>[a-z0-9_]+))?)\.(?P<digest>[0-9a-f]{12})\.parquet"
)
_TEMPORARY = re.compile(r"\..+\.writing")
#: What an API sync of before kept apart.
_GONE = "api_empty.json"


def leftovers(folder: Path, kept: Collection[str]) -> list[Path]:
    """Files that the cache wrote to its `folder` and that are not among the `kept` names (relative to it)."""
    strays = [path for path in _listed(folder) if _TEMPORARY.fullmatch(path.name) or path.name == _GONE]
    for inner in FOLDERS:
        strays += [path for path in _listed(folder / inner) if _TEMPORARY.fullmatch(path.name)]
    return strays + [path for path in data_files(folder) if str(path.relative_to(folder)) not in kept]


def sweep(folder: Path, kept: Collection[str]) -> None:
    """Remove :func:`leftovers`; one that cannot be removed is left for the next write."""
    for path in leftovers(folder, kept):
        with suppress(OSError):
            os.unlink(path)


def data_files(folder: Path) -> list[Path]:
    """Files of a cache's `folder` whose names are those of months and records, whether they count or not."""
    return [path for inner in FOLDERS for path in _listed(folder / inner) if OURS.fullmatch(path.name)]


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        return []
