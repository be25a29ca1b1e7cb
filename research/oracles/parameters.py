"""Checks of constructor parameters that oracles share."""

from __future__ import annotations

from typing import Any

from engine.errors import OracleError


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
