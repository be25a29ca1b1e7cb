"""What a sweep will run: its sets, what identifies each, and the order in which they share work."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from engine.config import RunConfig
from engine.config_values import no_fraction
from engine.errors import ConfigError, HlbtError
from engine.oracles.base import Oracle, path_of, shares_scores
from engine.oracles.fingerprint import code_files, interactive_code_digest
from engine.oracles.loading import (
    accepted_parameters,
    bound_parameters,
    build_oracle,
    data_files,
    kinds_in,
    oracle_class,
    oracle_code,
)
from engine.panel import Panel
from engine.provenance import code_digest, files_digest, versions
from engine.simulation.backtest import check_panel
from engine.sweeps.grid import Constraint, Grid, check_keys, make_grid, plain
from engine.sweeps.result_files import ResultFiles
from engine.sweeps.study import ORACLE, SCHEMA
from engine.sweeps.tasks import Task
from engine.sweeps.trials import (
    digest_of,
    family_of,
    finished_digests,
    inner_paths,
    started_digest,
    state_of,
    trial_config,
)

#: Sets and scores of one task: an interrupt loses at most the tasks that run.
TASK_SETS, TASK_SCORES, TASK_OTHERS = 1024, 64, 8
#: Scores, at most, that are used by every config before the next ones, so that each is computed once; fewer where
#: their books would be more than a task.
BLOCK_SCORES = 64
#: Daily returns are kept, by default, up to this many sets.
KEPT_RETURNS = 100_000
#: Keys of the config that decide the instants of decision.
SCHEDULE = ("execution.hour_utc", "execution.every_days", "execution.weekdays")

Oracles = type[Oracle] | str | Sequence[type[Oracle] | str]


@dataclass(eq=False)
class Plan:
    """What a sweep will run; from :func:`make_plan`, which checks the request.

    Attributes
    ----------
    panel : Panel
        T hours x N coins.
    kinds : mapping
        Classes by dotted path.
    digests : mapping of str to str
        Digest of each one's code.
    keys, trial_keys : ndarray, (P,) int64
        Digest of all that decides a set's numbers, and of what makes it a trial of its own.
    inner : mapping of str to ndarray
        Rows of the sets that have an oracle inside theirs, by its path.
    families : ndarray, (P,) int64
        Place of each set's oracle in `kinds`.
    configs : list of mapping, (C,)
        Distinct configs.
    config_of : ndarray, (P,) int64
        Which of them a set has.
    """

    panel: Panel
    kinds: Mapping[str, type[Oracle]]
    fixed: Mapping[str, Any]
    base: RunConfig
    grid: Grid
    where: Sequence[Constraint]
    sample: int | None
    seed: int
    returns: bool

    def __post_init__(self) -> None:
        self.digests = {
            path: files_digest(
                code_files(base.__module__ for base in kind.__mro__), interactive_code_digest(kind.__mro__)
            )
            for path, kind in self.kinds.items()
        }
        # Columns of the grid that are parameters of the oracle.
        self._own = [
            (column, key, values)
            for column, (key, values) in enumerate(self.grid.values.items())
            if key != ORACLE and not _is_config(key)
        ]
        self._columns = [column for column, _, _ in self._own]
        # Many sets have the same classes and files, and finding and reading their files is slow.
        self._files_digest = cache(lambda *files, loose="": files_digest(list(files), loose))
        self._code: dict[tuple[type, ...], tuple[list[Path], str]] = {}
        self.families = self._families()
        self.configs, self.config_of = self._configs()
        self.keys, self.trial_keys, self.inner = self._digests()

    @property
    def name(self) -> str:
        """Default name: the oracles, and a digest of the request, so that no other sweep has it."""
        sets = hashlib.sha256(self.grid.codes.tobytes()).hexdigest()
        requested = [list(self.kinds), dict(self.grid.values), sets, dict(self.fixed)]
        label = "-".join(path.rpartition(":")[2].lower() for path in self.kinds)
        return f"sweep-{label}-{digest_of(requested, self.base.to_dict()) & 0xFFFFFFFF:08x}"

    def parameters(self, row: int) -> dict[str, Any]:
        """Constructor arguments of a set."""
        codes = self.grid.codes[row]
        return {**self.fixed, **{key: values[codes[column]] for column, key, values in self._own}}

    def tasks(self, missing: np.ndarray, files: ResultFiles | None = None) -> Iterator[Task]:
        """Tasks over the sets `missing`: of one oracle and config each, sets that share scores side by side.

        With `files` each is written there by whoever runs it, those of one config in one partition.
        """
        paths = list(self.kinds)
        units = self._units()
        each = -(-len(units) // ((int(units.max()) + 1) * len(self.configs)))  # sets of a score and a config
        block = units // max(1, min(BLOCK_SCORES, TASK_SETS // each))
        order = missing[
            np.lexsort((missing, units[missing], self.config_of[missing], block[missing], self.families[missing]))
        ]
        group = np.stack([self.families[order], block[order], self.config_of[order]], axis=1)
        ends = np.append(np.flatnonzero((np.diff(group, axis=0) != 0).any(axis=1)) + 1, len(order))
        own = self.grid.codes[:, self._columns]
        same = state_of({"fixed": self.fixed, "own": [[key, values] for _, key, values in self._own]})
        known: dict[int, list[dict[str, Any]]] = {}
        number = first = 0
        for last in ends:
            if first == last:
                return
            kind = self.kinds[paths[self.families[order[first]]]]
            if first == 0 or (group[first - 1, :2] != group[first, :2]).any():
                known = {}  # a block's configs come one after another, and in each the same parameters
            sets, scores = (TASK_SETS, TASK_SCORES) if shares_scores(kind) else (TASK_OTHERS, TASK_OTHERS)
            while first < last:
                stop = min(first + sets, last)
                # The first set that would need one score too many ends the task.
                within = np.cumsum(np.append(0, np.diff(units[order[first:stop]]) != 0))
                stop = int(first + np.searchsorted(within, scores))
                rows = order[first:stop]
                config = self.configs[self.config_of[rows[0]]]
                part = files and replace(files, part=f"config={digest_of(config) & 0xFFFFFFFF:08x}")
                books = digest_of(same, own[rows].tobytes().hex())
                if books not in known:
                    known[books] = [self.parameters(int(row)) for row in rows]
                yield Task(number, kind, config, known[books], rows, self.returns, self.keys[rows], part, books)
                number, first = number + 1, stop

    def _units(self) -> np.ndarray:
        """What is computed once, (P,): sets with one number share oracle and score parameters (all, without scores)."""
        state = np.zeros((len(self.grid), 1 + len(self.grid.values)), dtype=np.int32)
        state[:, 0] = self.families
        for family, kind in enumerate(self.kinds.values()):
            of = self.families == family
            for column, key, _ in self._own:
                if not shares_scores(kind) or key.partition(".")[0] in kind.score_parameters:
                    state[of, 1 + column] = self.grid.codes[of, column]
        return _distinct(state)[1]

    def record(self, name: str, created: str, reused: int) -> dict[str, Any]:
        """Content of sweep.json, but for what is known only of the results."""
        return {
            "schema": SCHEMA,
            "name": name,
            "created": created,
            "synthetic": self.panel.synthetic,
            "oracles": [
                {"path": path, "name": path.rpartition(":")[2], "digest": self.digests[path]} for path in self.kinds
            ],
            "inner": list(self.inner),
            "fixed": dict(self.fixed),
            "grid": dict(self.grid.values),
            "keys": list(self.grid.values),
            "where": [item if isinstance(item, str) else getattr(item, "__name__", repr(item)) for item in self.where],
            "sample": None if self.sample is None else {"sets": self.sample, "seed": self.seed},
            "config": self.base.to_dict(),
            "span": self.panel.span,
            "digests": {"data": self.panel.digest, "code": code_digest()},
            "versions": versions(),
            "sets": {"total": len(self.grid), "reused": reused},
        }

    def _families(self) -> np.ndarray:
        if ORACLE not in self.grid.values:
            return np.zeros(len(self.grid), dtype=np.int64)
        paths = list(self.kinds)
        column = list(self.grid.values).index(ORACLE)
        return np.array([paths.index(path) for path in self.grid.values[ORACLE]])[self.grid.codes[:, column]]

    def _configs(self) -> tuple[list[dict[str, Any]], np.ndarray]:
        """Distinct configs of the sets, those of one schedule side by side, and which each set has."""
        names = list(self.grid.values)
        columns = [column for column, key in enumerate(names) if _is_config(key)]
        columns.sort(key=lambda column: names[column] not in SCHEDULE)
        for column in columns:
            for value in self.grid.values[names[column]]:
                no_fraction(names[column], value)
        distinct, config_of = _distinct(self.grid.codes[:, columns])
        configs = []
        for codes in distinct:
            sections = self.base.to_dict()
            for column, code in zip(columns, codes, strict=True):
                section, _, key = names[column].partition(".")
                sections[section][key] = self.grid.values[names[column]][code]
            with suppress(HlbtError):  # else its sets are going to be recorded with the error
                sections = RunConfig.from_dict(sections).to_dict()  # 4 bps are 4.0 bps
            configs.append(sections)
        return configs, config_of

    def _digests(self) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Keys of results and trials, (P,) int64 each, and the rows of the sets by the oracles inside theirs."""
        paths, count = list(self.kinds), len(self.grid)
        rules = [{name: keys for name, keys in config.items() if name != "report"} for config in self.configs]
        results = [digest_of(self.panel.digest, code_digest(), {**config, "data": {}}) for config in rules]
        trials = [trial_config(config) for config in self.configs]
        defaults = [
            {name: value for name, value in accepted_parameters(kind).items() if name is not None}
            for kind in self.kinds.values()
        ]
        keys, trial_keys = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        inner: dict[str, list[int]] = {}
        slow = []
        for family, (path, kind) in enumerate(self.kinds.items()):
            rows = np.flatnonzero(self.families == family)
            values = [*defaults[family].values(), *self.fixed.values(), *(one for _, _, of in self._own for one in of)]
            # What names no file and has no oracle inside has the code of its class: then only values differ.
            if kind.oracle_parameters or kind.files is not Oracle.files or any(map(_may_name_a_file, values)):
                slow.append(rows)
                continue
            run, trial = (
                json.dumps([name, self.digests[path]], separators=(",", ":"))[:-1] for name in (path, family_of(path))
            )
            # Sets that differ in their configs alone have one state: the digests are made up to there once.
            codes, state_of_row = _distinct(self.grid.codes[rows][:, self._columns])
            states = list(self._states(codes, defaults[family]))
            for made, head, ends in ((keys, run, results), (trial_keys, trial, trials)):
                begun = [started_digest(f"{head},{state}") for state in states]
                rest = [f",{end}]".encode() for end in ends]
                of_rows = zip(state_of_row.tolist(), self.config_of[rows].tolist(), strict=True)
                made[rows] = finished_digests((begun[state], rest[config]) for state, config in of_rows)
        for row in np.concatenate(slow).tolist() if slow else ():
            family, config = int(self.families[row]), int(self.config_of[row])
            path, parameters = paths[family], {**defaults[family], **self.parameters(row)}
            kind = self.kinds[path]
            code, sources = self._sources(path, parameters)
            if kind.oracle_parameters:
                with suppress(HlbtError, TypeError):  # else the set is going to be recorded with the error
                    parameters = bound_parameters(kind, parameters)
                for named in dict.fromkeys(inner_paths(kind, parameters)):
                    inner.setdefault(named, []).append(row)
            state = state_of(parameters)
            keys[row] = digest_of(path, sources, state, results[config])
            trial_keys[row] = digest_of(family_of(path), code, state, trials[config])
        return keys, trial_keys, {named: np.array(rows) for named, rows in inner.items()}

    def _states(self, distinct: np.ndarray, defaults: Mapping[str, Any]) -> Iterator[str]:
        """The JSON of :func:`state_of` of parameters by their codes, put together of the texts of their values."""

        def text(name: str, value: Any) -> str:
            return json.dumps(state_of({name: value})[1:-1])[1:-1]

        own = {key: (at, [text(key, value) for value in values]) for at, (_, key, values) in enumerate(self._own)}
        same = {name: text(name, value) for name, value in {**defaults, **self.fixed}.items() if name not in own}
        names = sorted({*own, *same})
        varied = [own[name] for name in names if name in own]
        template = ", ".join("%s" if name in own else same[name].replace("%", "%%") for name in names)
        for codes in distinct[:, [at for at, _ in varied]].tolist():
            values = tuple(texts[code] for code, (_, texts) in zip(codes, varied, strict=True))
            yield f'"{{{template % values}}}"'

    def _sources(self, path: str, parameters: Mapping[str, Any]) -> tuple[str, str]:
        """Digests of the code of an oracle and its parts, and of that and the data files it reads."""
        kind, code, digest = self.kinds[path], self.digests[path], self._files_digest
        named = filter(_may_name_a_file, parameters.values())
        files = [Path(name) for name in named if os.path.isfile(name)]  # not Path.is_file: a long text is an error
        if not kind.oracle_parameters and kind.files is Oracle.files:
            return code, code + digest(*files) if files else code
        try:
            oracle = build_oracle(kind, parameters)
            kinds = tuple(kinds_in(oracle))
            if kinds not in self._code:
                self._code[kinds] = oracle_code(oracle), interactive_code_digest(dict.fromkeys(kinds))
            own, loose = self._code[kinds]
            return digest(*own, loose=loose), digest(*own, *data_files(oracle), *files, loose=loose)
        except HlbtError:
            return code, code  # The set is going to be recorded with this error.

    def check_distinct(self) -> None:
        """Refuse sets that are one and the same though they are written differently: 4 and 4.0 bps."""
        keys, params = self.keys, self.grid.params
        first = np.unique(keys, return_index=True)[1]
        if len(first) < len(keys):
            second = int(np.setdiff1d(np.arange(len(keys)), first)[0])
            same = int(np.flatnonzero(keys == keys[second])[0])
            raise ConfigError(
                f"The sets {params(same)!r} and {params(second)!r} are the same run. Each set is run once."
            )


def make_plan(
    panel: Panel,
    oracle: Oracles,
    requested: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]],
    config: RunConfig,
    fixed: Mapping[str, Any],
    where: Constraint | Sequence[Constraint],
    sample: int | None,
    seed: int,
    returns: bool | None,
) -> Plan:
    """Check the request for a sweep and lay out its sets."""
    check_panel(panel, "sweep()")
    kinds = _kinds(oracle)
    listed = isinstance(requested, Sequence) and all(isinstance(one, Mapping) for one in requested)
    if not (isinstance(requested, Mapping) or listed):
        raise ConfigError("A grid is a mapping of keys to lists of values, or a list of sets, each a mapping itself.")
    given = (
        list(requested)
        if isinstance(requested, Mapping)
        else list(dict.fromkeys(key for one in requested for key in one))
    )
    check_keys([str(key) for key in given], kinds, fixed)
    check_keys([str(key) for key in fixed if key not in given], kinds, {})
    if isinstance(requested, Mapping) and len(kinds) > 1 and ORACLE not in requested:
        requested = {ORACLE: list(kinds), **requested}
    if named := [key for key in fixed if _is_config(str(key))]:
        raise ConfigError(f"{named[0]!r} is a config key, no parameter of an oracle: set it in the config or the grid.")
    fixed = {str(name): plain(str(name), value) for name, value in fixed.items()}
    constraints = [where] if isinstance(where, str) or callable(where) else list(where)
    grid = make_grid(requested, _defaults(kinds, config, fixed), constraints, sample, seed)
    for path in grid.values.get(ORACLE, []):
        if path not in kinds:
            raise ConfigError(f"The grid's oracle {path!r} is not among those of the sweep: {', '.join(kinds)}.")
    returns = len(grid) <= KEPT_RETURNS if returns is None else returns
    plan = Plan(panel, kinds, fixed, config, grid, constraints, sample, seed, returns)
    plan.check_distinct()
    return plan


def _distinct(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows of codes, (P, K), in ascending order, and which of them each row is, (P,)."""
    number, most = np.zeros(len(codes), dtype=np.int64), 1
    for column in codes.T:
        size = int(column.max(initial=0)) + 1
        if most * size > 2**62:
            number = np.unique(number, return_inverse=True)[1].ravel()
            most = int(number.max(initial=0)) + 1
        number, most = number * size + column, most * size
    _, first, which = np.unique(number, return_index=True, return_inverse=True)
    return codes[first], which.ravel()


def _may_name_a_file(value: Any) -> bool:
    return isinstance(value, str) and ("/" in value or "." in value)


def _is_config(key: str) -> bool:
    return key.partition(".")[0] in ("execution", "costs", "account") and "." in key


def _kinds(oracle: Oracles) -> dict[str, type[Oracle]]:
    named: dict[str, type[Oracle]] = {}
    for item in oracle if isinstance(oracle, list | tuple) else [oracle]:
        if isinstance(item, str):
            named[item] = oracle_class(item)
        elif isinstance(item, type) and issubclass(item, Oracle):
            named[path_of(item)] = item
        else:
            raise ConfigError(f"{item!r} is not an oracle: give a class, or module:Class.")
    if not named:
        raise ConfigError("A sweep needs an oracle: a class, or module:Class.")
    return named


def _defaults(kinds: Mapping[str, type[Oracle]], config: RunConfig, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Value of a key where a set of a list does not give it."""
    defaults: dict[str, Any] = {
        f"{section}.{key}": value for section, keys in config.to_dict().items() for key, value in keys.items()
    }
    own = [accepted_parameters(kind) for kind in kinds.values()]
    # What the oracles have different defaults of has none: a set must not get that of another oracle.
    defaults |= {
        name: value
        for name, value in own[0].items()
        if name is not None
        and value is not inspect.Parameter.empty
        and all(name in other and state_of(other[name]) == state_of(value) for other in own)
    }
    if len(kinds) == 1:
        defaults[ORACLE] = next(iter(kinds))
    return {**defaults, **fixed}
