"""Thresholds of the verdict, and the file that holds these and those of the gates: ``research/gates.toml``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from engine.config import read_toml
from engine.errors import ConfigError, did_you_mean, join_first

#: Tables of the file: what the verdict asks for, what a promotion asks for, and the limits of a live account.
TABLES = ("verdict", "gates", "limits")


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the verdict, the table ``[verdict]``.

    Attributes
    ----------
    deflated_sharpe : float
        Least probability that the true Sharpe ratio is above what the best of all trials without skill would show.
    pbo : float
        Highest probability of backtest overfitting. Pure noise gives 0.37 to 0.66, so 0.5 would be no gate.
    superiority_p : float
        Highest consistent p-value of Hansen's test, against zero and against BTC.
    walk_forward_sharpe : float
        Least annual Sharpe ratio of the stitched out-of-sample curves.
    bootstrap_sharpe : float
        Least lower bound of the bootstrap interval of the annual Sharpe ratio.
    confidence : float
        Of that interval, and of the track record.
    cost_sharpe : float
        Least annual Sharpe ratio with costs two and three times what they are.
    delay_kept_frac : float
        Part of the Sharpe ratio that must be left when every trade is an hour late.
    day_delay_sharpe : float
        Least annual Sharpe ratio when every trade is 24 hours late.
    hours_kept_frac : float
        Part of the Sharpe ratio that must be left at the median hour of decision.
    start_sharpe : float
        Least annual Sharpe ratio of an account that starts later.
    plateau_kept_frac : float
        Part of the Sharpe ratio that the median neighbour in the grid must have.
    reproduction_difference : float
        How far the winner's Sharpe ratio, run again, may be from that of the sweep.
    liquidations : float
        How many liquidations are accepted, of the winner itself and under the stresses.
    """

    deflated_sharpe: float
    pbo: float
    superiority_p: float
    walk_forward_sharpe: float
    bootstrap_sharpe: float
    confidence: float
    cost_sharpe: float
    delay_kept_frac: float
    day_delay_sharpe: float
    hours_kept_frac: float
    start_sharpe: float
    plateau_kept_frac: float
    reproduction_difference: float
    liquidations: float

    def __post_init__(self) -> None:
        if not 0.5 < self.confidence < 1.0:
            raise ConfigError(f"Threshold confidence = {self.confidence!r} is not accepted: write a number like 0.95.")

    @classmethod
    def read(cls, path: Path | None = None) -> Self:
        """Read the table ``[verdict]`` of a file; by default the file that is installed with this package.

        Raises
        ------
        ConfigError
            For a threshold that is unknown (the nearest is named), missing, or no number.
        """
        path = path or installed_gates_file()
        names = [item.name for item in fields(cls)]
        return cls(**numbers(path, "threshold", names, read_tables(path).get("verdict", {})))

    @classmethod
    def from_dict(cls, values: Mapping[str, float]) -> Self:
        """Thresholds by name; those that are absent are those of the installed file.

        Raises
        ------
        ConfigError
            For an unknown name.
        """
        installed = cls.read()
        for name in values:
            check_name("threshold", name, vars(installed))
        return cls(**{**vars(installed), **values})


def installed_gates_file() -> Path:
    """``research/gates.toml`` as it is installed beside this package.

    By path: `engine` never imports `research`, and a folder ``research`` in the working directory, which Python would
    find first, must not lower the bar unseen. Another file is used where it is named.
    """
    return Path(__file__).parents[2] / "research" / "gates.toml"


def read_tables(path: Path) -> dict[str, Any]:
    """Read a gates file, whatever is in its tables.

    Raises
    ------
    ConfigError
        When it cannot be read, or holds something beside :data:`TABLES`.
    """
    content = read_toml(path, "Gates file")
    for name, table in content.items():
        if name not in TABLES or not isinstance(table, dict):
            raise ConfigError(
                f"{path}: {name!r} is not accepted.{did_you_mean(name, TABLES)} There are the tables [verdict], "
                "[gates] and [limits]."
            )
    return content


def numbers(path: Path, kind: str, names: Iterable[str], table: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of one table of a gates file, in the order of `names`.

    Parameters
    ----------
    path : Path
        The file, for messages.
    kind : str
        What each is: ``threshold`` or ``gate``.
    names : iterable of str
        All of them are needed.
    table : mapping
        As it was read.

    Raises
    ------
    ConfigError
        For one that is unknown (the nearest is named), missing, or no number.
    """
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
