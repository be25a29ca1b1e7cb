"""The sets of a sweep: products, lists and samples of parameters, and the STUDY.toml that names them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.config import SECTIONS, parse_value, read_toml, split_assignment
from engine.config_values import split_list
from engine.errors import ConfigError, did_you_mean
from engine.oracles.base import Oracle
from engine.oracles.loading import accepted_parameters
from engine.sweeps.study import ORACLE, index_of

_KEYS = ("name", "oracle", "where", "sample", "seed", "params", "grid", "sets", *SECTIONS)

#: More sets than this at once are a slip of the finger; ``sample`` draws from any number.
MOST_SETS = 20_000_000
#: A product of at most this many sets, or twice the sample, is listed whole before sets are drawn from it.
LISTED_SETS = 1_000_000
Constraint = str | Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True, eq=False)
class Grid:
    """The sets of a sweep.

    Attributes
    ----------
    values : mapping of str to list
        Distinct values of each key. A key is a parameter of the oracle, ``section.key`` of the config, or ``oracle``.
    codes : ndarray, (P, K) int32
        Place of each set's value among those of the key.
    """

    values: Mapping[str, list[Any]]
    codes: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    def params(self, row: int) -> dict[str, Any]:
        """Values of one set by key."""
        return {key: values[code] for (key, values), code in zip(self.values.items(), self.codes[row], strict=True)}

    @property
    def index(self) -> pd.Index:
        """A level a key, a row a set."""
        return index_of(self.values, self.codes)


def make_grid(
    requested: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]],
    defaults: Mapping[str, Any],
    where: Sequence[Constraint] = (),
    sample: int | None = None,
    seed: int = 0,
) -> Grid:
    """Sets of a product (a mapping of keys to values) or of a list of sets.

    Parameters
    ----------
    requested : mapping or list of mappings
        Values by key, or sets.
    defaults : mapping
        The value of a key that a set of the list lacks.
    where : sequence of str or callable
        A set stays when all are true of it: expressions over the keys as :meth:`pandas.DataFrame.eval` reads them
        (``"skip_hours < lookback_hours"``; a key with a dot in backticks), or functions of a mapping.
    sample : int, optional
        Draw this many of the sets at random, without drawing one twice.
    seed : int
        Of the draw.

    Raises
    ------
    ConfigError
        For an empty grid, repeated values, a constraint that cannot be read, or more sets than memory should hold.
    """
    if sample is not None and (isinstance(sample, bool) or not isinstance(sample, int) or not 1 <= sample <= MOST_SETS):
        raise ConfigError(f"sample = {sample!r} is not accepted: it must be a whole number from 1 to {MOST_SETS:,}.")
    if isinstance(requested, Mapping):
        values = {str(key): _values(str(key), given) for key, given in requested.items()}
        codes = _product(values, where, sample, seed)
    else:
        values, codes = _listed(requested, defaults)
        codes = _drawn(codes[_kept(values, codes, where)], sample, seed)
    if not len(codes):
        raise ConfigError(
            "The grid has no set: "
            + ("its constraints exclude every one." if where else "give at least one key with at least one value.")
        )
    return Grid(values, codes)


def _values(key: str, given: Any) -> list[Any]:
    if isinstance(given, Mapping):
        given = _range(key, given)
    if isinstance(given, str) or not isinstance(given, Sequence | np.ndarray | pd.Index | range):
        raise ConfigError(f"Grid key {key} = {given!r} is not accepted: give a list of values.")
    values = [plain(key, value) for value in given]
    if not values:
        raise ConfigError(f"Grid key {key} has no value. Give at least one, or leave the key out.")
    seen = set()
    for value in values:
        if _identity(value) in seen:
            raise ConfigError(f"Grid key {key} has the value {value!r} twice. Each set is run once.")
        seen.add(_identity(value))
    return values


def _identity(value: Any) -> tuple[type, str]:
    """What tells a value from others: 1, 1.0 and True are three, for an oracle may tell them apart."""
    return type(value), json.dumps(value, sort_keys=True)


def _range(key: str, given: Mapping[str, Any]) -> list[Any]:
    """``{start, stop, step}``, both ends included."""
    wrong = ConfigError(
        f"Grid key {key} = {dict(given)!r} is not accepted: a range has the numbers start, stop (included, not below "
        f"start) and step (above 0), at most {MOST_SETS:,} values."
    )
    if set(given) != {"start", "stop", "step"} or not all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in given.values()
    ):
        raise wrong
    start, stop, step = given["start"], given["stop"], given["step"]
    if (
        not all(map(math.isfinite, (start, stop, step)))
        or step <= 0
        or stop < start
        or (stop - start) / step > MOST_SETS
    ):
        raise wrong
    count = int((stop - start) / step + 1e-9) + 1
    numbers = [start + step * index for index in range(count)]
    return numbers if all(isinstance(value, int) for value in (start, step)) else [round(n, 12) for n in numbers]


def plain(key: str, value: Any) -> Any:
    """The value as the record of a sweep holds it, so that the set can be told from others and run again.

    Raises
    ------
    ConfigError
        For what the record cannot hold: frames, objects, NaN.
    """
    if isinstance(value, np.generic):
        value = value.item()
    value = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
    try:
        json.dumps(value, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        shown = " ".join(repr(value).split())
        raise ConfigError(
            f"{key} = {shown if len(shown) <= 60 else shown[:57] + '...'} ({type(value).__name__}) is not accepted: a "
            "sweep takes finite numbers, texts, true or false, None, and lists or tables of them. Put data into a file "
            "and name the file, or an oracle as module:Class."
        ) from error
    return value


def _product(values: Mapping[str, list[Any]], where: Sequence[Constraint], sample: int | None, seed: int) -> np.ndarray:
    """Codes of the sets of a product that meet the constraints, or of a sample of them, in order."""
    shape = [len(value) for value in values.values()]
    size = math.prod(shape) if shape else 0
    if sample is not None and size > max(2 * sample, LISTED_SETS):
        return _sampled(values, where, shape, sample, seed)
    if size > MOST_SETS and sample is None:
        raise ConfigError(f"The grid has {size:,} sets; at most {MOST_SETS:,} are run at once. Draw some: sample.")
    codes = _unravel(np.arange(size), shape)
    return _drawn(codes[_kept(values, codes, where)], sample, seed)


def _drawn(codes: np.ndarray, sample: int | None, seed: int) -> np.ndarray:
    """At most `sample` of the sets, in their order."""
    if sample is None or sample >= len(codes):
        return codes
    return codes[np.sort(_generator(seed).choice(len(codes), sample, replace=False))]


def _sampled(
    values: Mapping[str, list[Any]], where: Sequence[Constraint], shape: list[int], sample: int, seed: int
) -> np.ndarray:
    """Draw from a product that is too large to be listed, in memory for the sample alone.

    Every key is drawn by itself, so a set is uniform among all; the few that are drawn twice are left out.
    """
    generator, drawn = _generator(seed), 0
    codes = np.empty((0, len(shape)), dtype=np.int32)
    while len(codes) < sample:
        if drawn > MOST_SETS:
            raise ConfigError(
                f"Of {drawn:,} sets drawn the constraints keep {len(codes):,}; {sample:,} are wanted. Give values "
                "that meet them, or ask for fewer."
            )
        count = max(2 * (sample - len(codes)), min(1000 + drawn, 100_000))
        block = generator.integers(0, shape, (count, len(shape)), dtype=np.int32)
        drawn += count
        codes = np.concatenate([codes, block[_kept(values, block, where)]])
        codes = codes[np.sort(np.unique(codes, axis=0, return_index=True)[1])][:sample]
    return codes[np.lexsort(codes.T[::-1])]


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed % 2**64)


def _unravel(numbers: np.ndarray, shape: list[int]) -> np.ndarray:
    """Codes (P, K) of numbers in the product; the last key varies fastest."""
    codes = np.empty((len(numbers), len(shape)), dtype=np.int32)
    rest = numbers
    for column in range(len(shape) - 1, -1, -1):
        codes[:, column] = rest % shape[column]
        rest = rest // shape[column]
    return codes


def _listed(
    requested: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any]
) -> tuple[dict[str, list[Any]], np.ndarray]:
    keys = list(dict.fromkeys(str(key) for one in requested for key in one))
    values: dict[str, dict[tuple[type, str], tuple[int, Any]]] = {key: {} for key in keys}
    codes = np.empty((len(requested), len(keys)), dtype=np.int32)
    for row, one in enumerate(requested):
        for column, key in enumerate(keys):
            if key not in one and key not in defaults:
                raise ConfigError(f"Set {row} of the list has no {key}, and it has no default. Give it a value.")
            value = plain(key, one[key] if key in one else defaults[key])
            codes[row, column] = values[key].setdefault(_identity(value), (len(values[key]), value))[0]
    unique, first = np.unique(codes, axis=0, return_index=True) if len(codes) else (codes, np.arange(0))
    if len(unique) < len(codes):
        repeated = min(set(range(len(codes))) - {int(index) for index in first})
        raise ConfigError(f"The list has the set {dict(requested[repeated])!r} twice. Each set is run once.")
    return {key: [value for _, value in of.values()] for key, of in values.items()}, codes


def _kept(values: Mapping[str, list[Any]], codes: np.ndarray, where: Sequence[Constraint]) -> np.ndarray:
    """Which sets meet all constraints, (P,) bool."""
    kept = np.ones(len(codes), dtype=bool)
    if not where or not len(codes):
        return kept
    columns = {
        key: np.array([*map(_cell, options), None], dtype=object)[:-1][codes[:, column]]
        for column, (key, options) in enumerate(values.items())
    }
    frame = pd.DataFrame(columns).infer_objects()
    grid = Grid(values, codes)
    for constraint in where:
        if callable(constraint):
            kept &= np.array([bool(constraint(grid.params(row))) for row in range(len(grid))])
            continue
        try:
            answer = np.asarray(frame.eval(constraint, engine="python"))
        except Exception as error:
            raise ConfigError(
                f"The constraint {constraint!r} cannot be read: {type(error).__name__}: {error}. Write an expression "
                f"over {', '.join(values)}; a name with a dot in backticks."
            ) from error
        if answer.dtype != np.bool_ or answer.shape != kept.shape:
            raise ConfigError(f"The constraint {constraint!r} is not true or false of each set.")
        kept &= answer
    return kept


def _cell(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def check_keys(keys: Sequence[str], kinds: Mapping[str, type[Oracle]], fixed: Mapping[str, Any]) -> None:
    """Refuse a key that is neither a parameter of every oracle nor a key of the config that a set may have.

    Raises
    ------
    ConfigError
        Naming the nearest that is one.
    """
    config_keys = [
        f"{name}.{key.name}"
        for name, kind in SECTIONS.items()
        if name not in ("data", "report")
        for key in fields(kind)
    ]
    for key in keys:
        section, dot, _ = key.partition(".")
        if key == ORACLE or key in config_keys:
            continue
        if dot and section == "data":
            raise ConfigError(f"Grid key {key} is not accepted: a sweep has one panel. Make one sweep for each {key}.")
        for path, kind in kinds.items():
            accepted = accepted_parameters(kind)
            if (dot and section in SECTIONS) or (section not in accepted and None not in accepted):
                names = [name for name in accepted if name is not None]
                raise ConfigError(
                    f"Grid key {key!r} is neither a parameter of {path} nor a key of the config."
                    f"{did_you_mean(key, [*names, *config_keys])} Parameters: {', '.join(names) or 'none'}; config "
                    "keys are written section.key, for example costs.taker_bps."
                )
        if key in fixed:
            raise ConfigError(f"{key} is both fixed and in the grid. Leave one out.")


@dataclass(frozen=True)
class StudyFile:
    """The content of a STUDY.toml.

    Attributes
    ----------
    oracles : tuple of str
        Dotted paths.
    grid : mapping or list of mappings
        See :func:`engine.sweeps.sweep.sweep`.
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
            raise ConfigError(
                f"Study file {path}: unknown key {key!r}.{did_you_mean(key, _KEYS)} Keys: {', '.join(_KEYS)}."
            )
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
        {section: content[section] for section in SECTIONS if section in content},
    )


def parse_grid(assignments: Sequence[str]) -> dict[str, Any]:
    """``--grid k=a,b,c``, ``k=start:stop:step`` (both ends included) or ``k=[a, b]`` as TOML writes a list."""
    grid: dict[str, Any] = {}
    for assignment in assignments:
        key, text = split_assignment("--grid", assignment, "k=a,b,c", "lookback_hours=24,72,168")
        if not text:
            raise ConfigError(f"--grid {assignment!r} is not k=a,b,c, for example --grid lookback_hours=24,72,168.")
        if key in grid:
            raise ConfigError(f"--grid names {key} twice. Write all its values in one.")
        ends = [parse_value(part) for part in text.split(":")]
        whole = parse_value(text) if text.startswith("[") else None
        if isinstance(whole, list):
            grid[key] = whole
        elif len(ends) > 1 and all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
            if len(ends) != 3:
                raise ConfigError(
                    f"--grid {assignment!r} is no range: write START:STOP:STEP, both ends included, for example "
                    f"--grid {key}={ends[0]}:{ends[1]}:1."
                )
            grid[key] = dict(zip(("start", "stop", "step"), ends, strict=True))
        else:
            grid[key] = [parse_value(part) for part in split_list(text)]
    return grid


def _texts(path: Path, key: str, value: Any) -> tuple[str, ...]:
    items = (value,) if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise ConfigError(f"Study file {path}: {key} = {value!r} is not accepted: write a string or a list of strings.")
    return tuple(items)


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Keys with dots, quoted or not: TOML reads ``costs.taker_bps = [1, 2]`` as a table in a table."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and not {"start", "stop", "step"} & set(value):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
