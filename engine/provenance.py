"""Canonical JSON, versions of libraries, digests of code and files, and where a run's weights came from."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

#: Libraries whose version can change a number or a page.
RECORDED = ("numpy", "pandas", "numba", "scipy", "pyarrow", "quantstats")


def to_json(value: Any) -> str:
    """JSON with sorted keys; a number that is not finite is null."""
    return json.dumps(as_json(value), sort_keys=True, indent=2, allow_nan=False) + "\n"


def as_json(value: Any) -> Any:
    """The value as JSON has it, in a form of its own: lists, tables by text, times and paths as text, no NaN."""
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((as_json(item) for item in value), key=str)
    if isinstance(value, np.generic):
        return as_json(value.item())
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of :data:`RECORDED`."""
    return {
        "hlbt": version("hlbt"),
        "python": sys.version.split()[0],
        **{library: version(library) for library in RECORDED},
    }


@cache
def code_digest() -> str:
    """SHA-256 of the engine's own source."""
    state = hashlib.sha256()
    root = Path(__file__).parent
    for file in sorted(root.rglob("*.py")):
        state.update(file.relative_to(root).as_posix().encode())
        state.update(file.read_bytes())
    return state.hexdigest()


def files_digest(files: list[Path], loose: str = "") -> str:
    """SHA-256 of the names and contents of files, in the order given, and of the digest of code without a file."""
    state = hashlib.sha256()
    for file in files:
        state.update(file.name.encode())
        state.update(file.read_bytes())
    state.update(loose.encode())
    return state.hexdigest()


@dataclass(frozen=True)
class Origin:
    """Where the weights of a run came from.

    Attributes
    ----------
    name : str
        Short title, for example ``Momentum``.
    kind : str
        ``"oracle"`` or ``"weights"``.
    path : str
        Dotted path of the oracle, or name of the weights file.
    parameters : mapping
        Constructor arguments of the oracle.
    digest : str
        SHA-256 of the oracle's code, of a notebook too, and data files, or of the weights file.
    code : str
        The same of the oracle's code alone.
    """

    name: str
    kind: str
    path: str
    parameters: Mapping[str, Any]
    digest: str
    code: str = ""


_RECORDS: list[set[str]] = []


class RecordedFields(dict[str, np.ndarray]):
    """Fields of a panel, which note that they are read (:func:`fields_read`); to copy or list them is not to read."""

    def __getitem__(self, name: str) -> np.ndarray:
        for record in _RECORDS:
            record.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """As for any mapping."""
        return self[name] if name in self else default


@contextmanager
def fields_read() -> Iterator[set[str]]:
    """The names of the fields that are read meanwhile, of whatever panel."""
    record: set[str] = set()
    _RECORDS.append(record)
    try:
        yield record
    finally:
        _RECORDS[:] = [other for other in _RECORDS if other is not record]  # an equal one is of an outer call
