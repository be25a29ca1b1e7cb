"""The one file of thresholds, of the verdict and of a promotion's gates: ``research/gates.toml``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from engine.config import read_toml
from engine.errors import ConfigError, did_you_mean, join_first
from engine.provenance import files_digest
from engine.validation.checks import GATES, VERDICT

#: Tables of the file: what the verdict asks for, what a promotion asks for, and the limits of a live account.
TABLES = ("verdict", "gates", "limits")


@dataclass(frozen=True)
class GateFile:
    """Content of ``gates.toml``.

    Attributes
    ----------
    verdict, gates : mapping
        Threshold of every check of the verdict, of every gate of a promotion.
    limits : mapping
        Limits of the live account, ``engine.live.risk_limits``; ``"none"`` switches one off.
    digest : str
        SHA-256 of the file.
    """

    verdict: Mapping[str, float]
    gates: Mapping[str, float]
    limits: Mapping[str, Any]
    digest: str

    @classmethod
    def read(cls, path: Path | None = None) -> Self:
        """Read a file; by default the one that is installed with this package.

        Raises
        ------
        ConfigError
            For a table, threshold or gate that is unknown (the nearest is named) or missing, or is no number.
        """
        path = path or installed_gates_file()
        content = read_toml(path, "Gates file")
        for name, table in content.items():
            if name not in TABLES or not isinstance(table, dict):
                raise ConfigError(
                    f"{path}: {name!r} is not accepted.{did_you_mean(name, TABLES)} There are the tables [verdict], "
                    "[gates] and [limits]."
                )
        verdict = _numbers(path, "threshold", VERDICT, content.get("verdict", {}))
        gates = _numbers(path, "gate", GATES, content.get("gates", {}))
        return cls(verdict, gates, content.get("limits", {}), files_digest([path]))


def installed_gates_file() -> Path:
    """``research/gates.toml`` as it is installed beside this package.

    By path: `engine` never imports `research`, and a folder ``research`` in the working directory, which Python would
    find first, must not lower the bar unseen. Another file is used where it is named.
    """
    return Path(__file__).parents[2] / "research" / "gates.toml"


def _numbers(path: Path, kind: str, names: Iterable[str], table: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of one table, in the order of `names`; `kind` is what each is called."""
    names = list(names)
    for name, value in table.items():
        check_name(kind, name, names, f"{path}: ")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError(f"{path}: the threshold {name} = {value!r} is not accepted: it must be a finite number.")
    if missing := [name for name in names if name not in table]:
        raise ConfigError(
            f"{path} lacks the {kind} {join_first(missing)}. A check without a threshold would always pass: write one."
        )
    return {name: float(table[name]) for name in names}


def check_name(kind: str, name: str, names: Iterable[str], where: str = "") -> None:
    """Refuse a name that is none of `names`, naming the nearest.

    Raises
    ------
    ConfigError
    """
    names = list(names)
    if name not in names:
        raise ConfigError(f"{where}unknown {kind} {name!r}.{did_you_mean(name, names)} There are: {', '.join(names)}.")
