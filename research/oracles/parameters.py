"""Checks of constructor parameters that oracles share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine import Panel
from engine.errors import OracleError, did_you_mean, join_first


def is_number(value: Any, least: float = -float("inf")) -> bool:
    """Whether a value is a finite number, no bool, of at least `least`."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value < float("inf")


def check_positive(name: str, value: Any) -> None:
    """Raise an OracleError unless the parameter is a positive, finite number."""
    if not is_number(value, 0.0) or value == 0:
        raise OracleError(f"{name} = {value!r} is not accepted: it must be a positive number.")


def check_count(name: str, value: Any, least: int = 1, unit: str = "") -> None:
    """Raise an OracleError unless the parameter is a whole number, at least `least`; `unit` says what it counts."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        counted = f" of {unit}" if unit else ""
        raise OracleError(f"{name} = {value!r} is not accepted: it must be a whole number{counted}, at least {least}.")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise an OracleError unless the parameter is one of `choices`."""
    if value not in choices:
        listed = f"{', '.join(choices[:-1])} or {choices[-1]}"
        raise OracleError(f"{name} = {value!r} is not accepted: choose {listed}.{did_you_mean(str(value), choices)}")


def check_dex(dex: Any) -> None:
    """Raise an OracleError unless the parameter is the name of a dex, empty for the main one, or None."""
    if dex is not None and (not isinstance(dex, str) or re.fullmatch(r"[a-z0-9]*", dex) is None):
        raise OracleError(
            f"dex = {dex!r} is not accepted: write the name of a dex in lower case, as xyz; empty is the main one."
        )


def of_dex(panel: Panel, dex: str | None) -> np.ndarray:
    """Which coins of the panel are of a dex, (N,) bool; all of them for None."""
    own: np.ndarray = np.array([dex is None or coin.dex == dex for coin in panel.table], dtype=np.bool_)
    if not own.any():
        dexes = join_first(dict.fromkeys(repr(coin.dex) for coin in panel.table))
        raise OracleError(f"dex = {dex!r}: the data have no coin of it, but of {dexes}. Add it to data.dexes.")
    return own
