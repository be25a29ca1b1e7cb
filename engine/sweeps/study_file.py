"""STUDY.toml, and the flags that stand for one: what a sweep is asked to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from engine.config import RunConfig, parse_value, read_toml
from engine.errors import ConfigError, nearest

_SECTIONS = tuple(item.name for item in fields(RunConfig))
_KEYS = ("name", "oracle", "where", "sample", "seed", "params", "grid", "sets", *_SECTIONS)


@dataclass(frozen=True)
class StudyFile:
    """What a sweep is asked to run.

    Attributes
    ----------
    oracles : tuple of str
        Dotted paths.
    grid : mapping or list of mappings
        See :func:`engine.sweep.sweep`.
    fixed : mapping
        Parameters that all sets share.
    where : tuple of str
        Constraints.
    sample : int or None
        Sets drawn at random.
    seed : int
        Of the draw.
    name : str or None
        Of the sweep.
    sections : mapping
        Config sections.
    """

    oracles: tuple[str, ...] = ()
    grid: Mapping[str, Any] | Sequence[Mapping[str, Any]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    where: tuple[str, ...] = ()
    sample: int | None = None
    seed: int = 0
    name: str | None = None
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_study_file(path: Path) -> StudyFile:
    """Read a STUDY.toml: ``oracle``, ``[params]``, ``[grid]`` or ``[[sets]]``, and the sections of a config.

    Raises
    ------
    ConfigError
        For a file that cannot be read, or a key that is none (the nearest is named).
    """
    content = read_toml(path, "Study file")
    for key in content:
        if key not in _KEYS:
            raise ConfigError(f"Study file {path}: unknown key {key!r}.{nearest(key, _KEYS)} Keys: {', '.join(_KEYS)}.")
    if "grid" in content and "sets" in content:
        raise ConfigError(f"Study file {path} has both [grid] and [[sets]]. Keep one.")
    for key, kind, what in (
        ("params", dict, "a table"),
        ("grid", dict, "a table"),
        ("sets", list, "a list of tables"),
        ("name", str, "a string"),
        ("sample", int, "a whole number"),
        ("seed", int, "a whole number"),
    ):
        if key in content and (not isinstance(content[key], kind) or isinstance(content[key], bool)):
            raise ConfigError(f"Study file {path}: {key} = {content[key]!r} is not accepted: it must be {what}.")
    sets = content.get("sets", [])
    if not all(isinstance(one, dict) for one in sets):
        raise ConfigError(f"Study file {path}: sets = {sets!r} is not accepted: it must be a list of tables.")
    return StudyFile(
        _texts(path, "oracle", content.get("oracle", ())),
        [_flat(one) for one in sets] or _flat(content.get("grid", {})),
        _flat(content.get("params", {})),
        _texts(path, "where", content.get("where", ())),
        content.get("sample"),
        content.get("seed", 0),
        content.get("name", path.stem),
        {section: content[section] for section in _SECTIONS if section in content},
    )


def parse_grid(assignments: Sequence[str]) -> dict[str, Any]:
    """``--grid k=a,b,c``, ``k=start:stop:step`` (both ends included) or ``k=[a, b]`` as TOML writes a list."""
    grid: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        key, text = name.strip(), text.strip()
        if not equals or not key or not text:
            raise ConfigError(f"--grid {assignment!r} is not k=a,b,c, for example --grid lookback_hours=24,72,168.")
        if key in grid:
            raise ConfigError(f"--grid names {key} twice. Write all its values in one.")
        ends = [parse_value(part) for part in text.split(":")]
        if text.startswith("["):
            grid[key] = parse_value(text)
        elif len(ends) == 3 and all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
            grid[key] = dict(zip(("start", "stop", "step"), ends, strict=True))
        else:
            grid[key] = [parse_value(part) for part in text.split(",")]
    return grid


def _texts(path: Path, key: str, value: Any) -> tuple[str, ...]:
    items = (value,) if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise ConfigError(f"Study file {path}: {key} = {value!r} is not accepted: write a string or a list of strings.")
    return tuple(items)


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Keys with dots, quoted or not: TOML reads ``costs.taker_bps = [1, 2]`` as a table in a table."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and not {"start", "stop", "step"} & set(value):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
