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
_OURS = re.compile(r"([a-z0-9_]+-)?\d{4}-\d{2}\.[0-9a-f]{12}\.parquet")
_TEMPORARY = re.compile(r"\..+\.writing")


def leftovers(folder: Path, kept: Collection[str]) -> list[Path]:
    """Files that the cache wrote to its `folder` and that are not among the `kept` names (relative to it)."""
    strays = [path for path in _listed(folder) if _TEMPORARY.fullmatch(path.name)]
    for inner in FOLDERS:
        for path in _listed(folder / inner):
            named = _OURS.fullmatch(path.name) and f"{inner}/{path.name}" not in kept
            if named or _TEMPORARY.fullmatch(path.name):
                strays.append(path)
    return strays


def sweep(folder: Path, kept: Collection[str]) -> None:
    """Remove :func:`leftovers`; one that cannot be removed is left for the next write."""
    for path in leftovers(folder, kept):
        with suppress(OSError):
            os.unlink(path)


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        return []
