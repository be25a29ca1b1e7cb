"""Values as a user types them: TOML files, ``name=value`` options and lists."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from engine.errors import ConfigError


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Content of a TOML file; `what` names it in errors."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}. Name a TOML file that is there.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path} is not TOML: {error}.") from error


def parse_value(text: str) -> Any:
    """Read a value typed on the command line: TOML where it is TOML, else the bare string."""
    try:
        return tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def split_list(text: str) -> list[str]:
    """The items of a list typed on the command line: ``a,b``, or ``["a", "b"]`` whose quotes a shell may have taken."""
    return [item.strip().strip("'\"") for item in text.strip().removeprefix("[").removesuffix("]").split(",")]


def split_assignment(option: str, assignment: str, form: str, example: str) -> tuple[str, str]:
    """Name and text of one ``name=text`` of the command line, both without surrounding blanks.

    Parameters
    ----------
    option : str
        The option that was given, for the message.
    assignment : str
        What was typed after it.
    form, example : str
        How it is written, for the message: ``k=v`` and ``lookback_hours=168``.

    Raises
    ------
    ConfigError
        Without an equals sign or a name before it.
    """
    name, equals, text = assignment.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"{option} {assignment!r} is not {form}, for example {option} {example}.")
    return name.strip(), text.strip()


def parse_assignments(option: str, assignments: Iterable[str], form: str, example: str) -> dict[str, Any]:
    """Values of ``name=value`` options by name, each read by :func:`parse_value`; of a name given twice, the last.

    Parameters and errors are those of :func:`split_assignment`, for each of `assignments`.
    """
    pairs = (split_assignment(option, assignment, form, example) for assignment in assignments)
    return {name: parse_value(text) for name, text in pairs}
