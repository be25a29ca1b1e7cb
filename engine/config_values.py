"""What is accepted beside each key of a config: a reader checks a value and brings it to one form, or refuses it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ConfigError, did_you_mean

#: Larger numbers are mistakes, and arithmetic with them would overflow.
_LARGEST = 1e15
#: A number of numpy's is one too: grids are often np.arange.
_NUMBERS = int | float | np.integer | np.floating
#: An item of a list that was typed (:func:`split_list`), as a pattern, and any text that is not blank.
_ITEM = r"[^,]*[^,\s'\"][^,]*"
_WORDS = {"type": "string", "pattern": r"\S"}


@dataclass(frozen=True)
class Reader:
    """Reads the value of a key.

    Attributes
    ----------
    read : callable
        From the name of the key, for errors, and a value to the value as the config has it.
    accepts : mapping
        The values that it accepts, as a JSON schema.
    """

    read: Callable[[str, Any], Any]
    accepts: Mapping[str, Any]

    def __call__(self, where: str, value: Any) -> Any:
        """The value as the config has it; a :class:`ConfigError` for one that is not accepted."""
        return self.read(where, value)


def reads(**accepts: Any) -> Callable[[Callable[[str, Any], Any]], Reader]:
    """Make a function the reader of what a JSON schema describes."""
    return lambda read: Reader(read, accepts)


def number(low: float, high: float = math.inf) -> Reader:
    """A number from `low` to `high`."""

    @reads(type="number", minimum=low, maximum=min(high, _LARGEST))
    def read(where: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, _NUMBERS) or not low <= value <= min(high, _LARGEST):
            limits = f"at least {low:g}" if math.isinf(high) else f"between {low:g} and {high:,.0f}"
            raise ConfigError(f"{where} = {value!r} is not accepted: it must be a number {limits}.")
        return float(value)

    return read


def whole(low: int, high: float = 1_000_000) -> Reader:
    """A whole number from `low` to `high`."""

    @reads(type="integer", minimum=low, maximum=high)
    def read(where: str, value: Any) -> int:
        given = number(low, high)(where, value)
        if given != int(given):
            raise ConfigError(f"{where} = {value!r} is not accepted: it must be a whole number.")
        return int(given)

    return read


_LEVERAGE, _BPS = number(0, 1000), number(-10, 1000)


@reads(**{**_LEVERAGE.accepts, "type": "integer"})
def leverage(where: str, value: Any) -> float:
    """A leverage that the exchange can be told, or 0."""
    factor = float(_LEVERAGE(where, value))
    if factor != int(factor):
        raise ConfigError(f"{where} = {value!r} is not accepted: the exchange takes whole numbers; 0 is the highest.")
    return factor


@reads(anyOf=[{"const": "schedule"}, _BPS.accepts])
def rate(where: str, value: Any) -> float | str:
    """Basis points, or ``"schedule"``."""
    if isinstance(value, str):
        if value != "schedule":
            raise ConfigError(f"{where} = {value!r} is not accepted: write 'schedule' or a number.")
        return value
    return float(_BPS(where, value))


#: What :func:`no_fraction` refuses, as a JSON schema.
FRACTIONS = {"type": "number", "exclusiveMinimum": -0.01, "exclusiveMaximum": 0.01, "not": {"const": 0}}


def no_fraction(where: str, value: Any) -> None:
    """Ask whether a fraction was typed for basis points: 0.00045 of the notional is 4.5 of them."""
    if where.endswith("_bps") and isinstance(value, _NUMBERS) and 0.0 < abs(float(value)) < 0.01:
        raise ConfigError(
            f"{where} = {value!r} is not accepted: it is in basis points, and that is next to nothing. Was a "
            f"fraction meant? {value:.6g} of the notional is {value * 1e4:.6g}."
        )


@reads(type="boolean")
def switch(where: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool | np.bool_):
        raise ConfigError(f"{where} = {value!r} is not accepted: write true or false.")
    return bool(value)


def choice(*choices: str) -> Reader:
    """One of some words."""

    @reads(enum=list(choices))
    def read(where: str, value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ConfigError(
                f"{where} = {value!r} is not accepted: choose one of "
                f"{', '.join(choices)}.{did_you_mean(str(value), choices)}"
            )
        return value

    return read


@reads(**_WORDS)
def text(where: str, value: Any) -> str:
    """The name of a coin or a file."""
    if not isinstance(value, str | Path) or not str(value).strip():
        raise ConfigError(f"{where} = {value!r} is not accepted: write the name of a coin, 'none' or a file.")
    return str(value).strip()


@reads(**_WORDS)
def folder(where: str, value: Any) -> str:
    """The name of a folder."""
    if not isinstance(value, str | Path) or not str(value).strip():
        raise ConfigError(f"{where} = {value!r} is not accepted: write the name of a folder.")
    return str(value)


@reads(
    anyOf=[
        {"type": "string", "pattern": rf"^{_ITEM}(,{_ITEM})*$"},
        {"type": "array", "items": _WORDS, "minItems": 1},
    ]
)
def coins(where: str, value: Any) -> tuple[str, ...]:
    """Names and patterns of coins."""
    names = split_list(value) if isinstance(value, str) else value
    named = isinstance(names, list | tuple) and all(isinstance(coin, str) and coin.strip() for coin in names)
    if not named or not names:
        raise ConfigError(f"{where} = {value!r} is not accepted: write a list of names, ['BTC', 'ETH'].")
    return tuple(coin.strip() for coin in names)


_DEX = "[a-z0-9]*"


@reads(
    anyOf=[
        {"type": "string", "pattern": rf"^\s*\[?\s*['\"]*{_DEX}['\"]*\s*(,\s*['\"]*{_DEX}['\"]*\s*)*\]?\s*$"},
        {"type": "array", "items": {"type": "string", "pattern": f"^{_DEX}$"}, "minItems": 1},
    ]
)
def dexes(where: str, value: Any) -> tuple[str, ...]:
    """Names of dexes, each once; the main one is the empty text."""
    names = split_list(value) if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(isinstance(dex, str) for dex in names):
        raise ConfigError(
            f"{where} = {value!r} is not accepted: write a list of dexes, ['', 'xyz']; '' is the main one."
        )
    for dex in names:
        if re.fullmatch(_DEX, dex) is None:
            raise ConfigError(
                f"{where} = {value!r} is not accepted: {dex!r} is no name of a dex. They are lower case, as xyz; "
                "'' is the main one."
            )
    return tuple(dict.fromkeys(names))


_PAIR = r"\s*[^\s,=]+\s*=\s*[^\s,=]+\s*"


def _by_coin(values: Mapping[str, Any], text: str = r"[^\s,=]+") -> dict[str, Any]:
    """JSON schema of a table of coins with such a value each, of the same as `text` and as a list of pairs."""
    pair = {"type": "array", "prefixItems": [_WORDS, values], "items": False, "minItems": 2}
    item = rf"\s*[^\s,=]+\s*=\s*{text}\s*"
    return {
        "anyOf": [
            {"type": "string", "pattern": rf"^{item}(,{item})*$"},
            {"type": "object", "propertyNames": {"pattern": r"\S"}, "additionalProperties": values},
            {"type": "array", "items": pair},
        ]
    }


def _pairs(where: str, value: Any, wanted: str) -> list[tuple[str, Any]]:
    """Names and patterns of coins with what each has: from a table, pairs, or ``xyz:*=XNYS,xyz:GOLD=CMES``."""
    pairs: Any = value
    if isinstance(value, str) and re.fullmatch(rf"{_PAIR}(,{_PAIR})*", value):
        pairs = [[part.strip() for part in item.split("=")] for item in value.split(",")]
    pairs = list(pairs.items()) if isinstance(pairs, Mapping) else pairs
    if not isinstance(pairs, list | tuple) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str) and pair[0].strip()
        for pair in pairs
    ):
        raise ConfigError(f"{where} = {value!r} is not accepted: write a table of coins and {wanted}.")
    return [(coin.strip(), of) for coin, of in pairs]


@reads(**_by_coin(_WORDS))
def sessions(where: str, value: Any) -> tuple[tuple[str, str], ...]:
    """Names and patterns of coins with the calendar of each."""
    wanted = 'calendars, {"xyz:*" = "XNYS"}'
    pairs = _pairs(where, value, wanted)
    if not all(isinstance(name, str) and name.strip() for _, name in pairs):
        raise ConfigError(f"{where} = {value!r} is not accepted: write a table of coins and {wanted}.")
    return tuple((coin, name.strip()) for coin, name in pairs)


#: A fraction of equity, and its text.
_WIDTH, _FRACTION = number(0, 1), r"(0?\.[0-9]+|0\.?|1(\.0*)?)"


@reads(**_by_coin(_WIDTH.accepts, _FRACTION))
def widths(where: str, value: Any) -> tuple[tuple[str, float], ...]:
    """Names and patterns of coins with a fraction of equity each."""
    typed = isinstance(value, str)
    return tuple(
        (coin, _WIDTH(f"{where} of {coin}", float(of) if typed and re.fullmatch(_FRACTION, of) else of))
        for coin, of in _pairs(where, value, 'fractions of equity, {"BTC" = 0.01}')
    )


def split_list(text: str) -> list[str]:
    """The items of a list typed on the command line: ``a,b``, or ``["a", "b"]`` whose quotes a shell may have taken."""
    return [item.strip().strip("'\"") for item in text.strip().removeprefix("[").removesuffix("]").split(",")]
