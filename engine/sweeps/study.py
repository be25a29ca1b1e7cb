"""Study: what a sweep leaves, in memory and as a folder.

``sweep.json`` (the request, digests, versions, counts), ``table.parquet`` (a row a set), ``returns.parquet`` (a row
a set, a column a day), and later ``verdict.json`` and ``index.html``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from engine.clock import UNIT
from engine.config import RunConfig
from engine.errors import DataError, reason_of
from engine.simulation import metrics

if TYPE_CHECKING:
    from engine.oracles.base import Oracle

SCHEMA = 1
#: Level of the index, and key of a grid, that says which oracle a set is of, where a study has several.
ORACLE = "oracle"
RECORD, TABLE, RETURNS, VERDICT, PAGE = "sweep.json", "table.parquet", "returns.parquet", "verdict.json", "index.html"
#: Column of the table: why a set has no result; empty for all others.
ERROR = "error"
#: What a page of something says that was tried without a ledger.
NOT_COUNTED = "Not counted as a trial: no folder of reports was named, so no later verdict knows that this was tried."
#: Metrics that are texts; None where there is nothing to say.
TEXTS = ("liquidated_at",)
#: A set that trades on less than this share of the days of the one that trades longest is not compared day by day.
LEAST_COVERAGE = 0.5


@dataclass(frozen=True)
class ParameterSet:
    """One set of a study, complete: all that is needed to run it again.

    Attributes
    ----------
    oracle : str
        Dotted path, ``module:Class``.
    parameters : mapping
        Constructor arguments that the study gave; defaults are left to the oracle.
    config : RunConfig
        With the set's own keys.
    """

    oracle: str
    parameters: Mapping[str, Any]
    config: RunConfig

    def build(self) -> Oracle:
        """The oracle of the set."""
        from engine.oracles.loading import load_oracle

        return load_oracle(self.oracle, self.parameters)


@dataclass(frozen=True, eq=False)
class Study:
    """A sweep that was run. Other names are looked up in `table`: ``study["sharpe"]``, ``study.loc[...]``.

    Attributes
    ----------
    record : mapping
        ``sweep.json``: ``name``, ``created``, ``synthetic``, ``oracles`` (path, name and digest of each), ``inner``
        (paths of the oracles inside them), ``fixed`` (parameters all sets share), ``grid`` (values by key), ``keys``
        (those of the grid in order), ``where``, ``sample``, ``config`` (before the sets' own keys), ``span``,
        ``digests``, ``versions``, ``sets``, a ``note`` on what was computed anew, ``notes`` on the data and the
        count, and ``ledger``, the state of the ledger of trials when it had counted all sets; None: it did not count.
    table : DataFrame, (P, metrics)
        Index: the parameters that vary, a level each, named as the keys of the grid. Columns as
        :attr:`engine.Result.metrics`, then ``error``: why a set has no figures, else an empty string.
    daily_returns : DataFrame, (days, P) or None
        By UTC date of the decision instant at which a day ends, columns as the rows of `table`; NaN where a set has
        none: it failed, has not yet asked for anything, or decides at an hour that has no instant on that date. None:
        not kept.
    folder : Path or None
        Where it is kept.
    """

    record: Mapping[str, Any]
    table: pd.DataFrame
    daily_returns: pd.DataFrame | None
    folder: Path | None = None

    def __getitem__(self, key: Any) -> Any:
        return self.table[key]

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.table)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "table":
            raise AttributeError(name)
        return getattr(self.table, name)

    def params(self, row: int) -> dict[str, Any]:
        """Values of the keys that vary, of the set in row `row`, as given; the index has tuples for lists."""
        label = self.table.index[row]
        values = label if isinstance(self.table.index, pd.MultiIndex) else (label,)
        return {str(name): _given(value) for name, value in zip(self.table.index.names, values, strict=True)}

    def parameter_set(self, row: int, changes: Mapping[str, Any] | None = None) -> ParameterSet:
        """The set in row `row`, complete; `changes` are ``section.key`` values of the config put over its own.

        Raises
        ------
        ConfigError
            For a change that is not accepted.
        """
        return parameter_set_of(self.record, self.params(row), changes)

    @cached_property
    def joint(self) -> tuple[np.ndarray, pd.DatetimeIndex, np.ndarray]:
        """Daily returns on the days on which all sets that are compared trade.

        Returns
        -------
        values : ndarray, (days, P')
            Without gaps.
        dates : DatetimeIndex, (days,)
            UTC dates.
        sets : ndarray, (P',)
            Rows of the table that the columns are: those that trade on half of the days of the longest.

        Raises
        ------
        DataError
            When no returns were kept, or no two days are left.
        """
        if self.daily_returns is None:
            raise DataError("The study kept no daily returns. Run the sweep again with them.")
        values = self.daily_returns.to_numpy(dtype=np.float64)
        finite = np.isfinite(values)
        covered = finite.sum(axis=0)
        sets = np.flatnonzero(covered >= max(LEAST_COVERAGE * covered.max(initial=0), 1))
        days = finite[:, sets].all(axis=1)
        if not len(sets) or days.sum() < 2:
            raise DataError("No set of the study has daily returns.")
        dates = pd.DatetimeIndex(self.daily_returns.index).tz_convert("UTC").normalize()[days]
        return values[np.ix_(days, sets)], dates, sets

    @cached_property
    def sharpe_joint(self) -> np.ndarray:
        """Sharpe ratios by which sets are compared, (P,): on the days of :attr:`joint`; NaN for a set left out of it.

        Those of the table where all sets trade on the same days, and where there are no joint days to compare them on.
        """
        own = self.table["sharpe"].to_numpy(dtype=np.float64)
        try:
            values, _, sets = self.joint
        except DataError:
            return own
        assert self.daily_returns is not None
        joint = np.full(len(self.table), np.nan)
        more = self.daily_returns.iloc[:, sets].count().to_numpy() > len(values)
        joint[sets] = metrics.sharpe(values.T) if more.any() else own[sets]
        return joint if np.isfinite(joint).any() else own

    @property
    def joint_differs(self) -> bool:
        """Whether :attr:`sharpe_joint` is another column than ``sharpe`` of the table."""
        return not np.array_equal(self.sharpe_joint, self.table["sharpe"].to_numpy(dtype=np.float64), equal_nan=True)

    def compared(self, by: str = "sharpe") -> np.ndarray:
        """Column `by` as sets are compared by it, (P,): the Sharpe ratio is :attr:`sharpe_joint`."""
        return self.sharpe_joint if by == "sharpe" else self.table[by].to_numpy(dtype=np.float64)

    def ranking(self, by: str = "sharpe") -> np.ndarray:
        """Rows by falling value of column `by`, (P,), those without one last, ties in the order of the table.

        Sharpe ratios are compared on the days that all sets trade: :attr:`sharpe_joint`.
        """
        values = self.compared(by)
        return np.argsort(np.where(np.isfinite(values), -values, np.inf), kind="stable")

    def best(self, by: str = "sharpe") -> int:
        """First row of :meth:`ranking`.

        Raises
        ------
        DataError
            When no set has a figure `by`.
        """
        if not np.isfinite(self.table[by].to_numpy(dtype=np.float64)).any():
            errors = [error for error in self.table[ERROR] if error] if ERROR in self.table else []
            first = f" {len(errors):,} of {len(self):,} failed; the first: {errors[0]}" if errors else ""
            raise DataError(f"No set of the study {self.record['name']} has a {by}: all failed or never traded.{first}")
        return int(self.ranking(by)[0])


def parameter_set_of(
    record: Mapping[str, Any], params: Mapping[str, Any], changes: Mapping[str, Any] | None = None
) -> ParameterSet:
    """The set that chooses these values of the grid's keys, under the record of its study."""
    sections = json.loads(json.dumps(record["config"]))
    parameters = dict(record["fixed"])
    path = record["oracles"][0]["path"]
    for key, value in params.items():
        if key == ORACLE:
            path = value
        elif "." in key and key.partition(".")[0] in sections:
            section, _, name = key.partition(".")
            sections[section][name] = value
        else:
            parameters[key] = value
    for key, value in (changes or {}).items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    return ParameterSet(path, parameters, RunConfig.from_dict(sections))


def index_of(grid: Mapping[str, list[Any]], codes: np.ndarray) -> pd.Index:
    """Index of the sets `codes`, (P, K): index into the grid's values of each key's value."""
    levels: list[Any] = [
        _level([tuple(value) if isinstance(value, list) else value for value in of]) for of in grid.values()
    ]
    if len(grid) == 1:
        index: pd.Index = levels[0].rename(next(iter(grid))).take(codes[:, 0])
        return index
    return pd.MultiIndex(levels=levels, codes=list(codes.T), names=list(grid), verify_integrity=False)


def codes_of(index: pd.Index) -> tuple[np.ndarray, list[list[Any]]]:
    """Index of each set's value among the values of each axis, (P, K), and those values."""
    if isinstance(index, pd.MultiIndex):
        codes = np.stack([np.asarray(codes) for codes in index.codes], axis=1)
        return codes, [level.tolist() for level in index.levels]
    # By type and text: to pandas True is 1 and None is none, and a table has no hash.
    values = {(type(value), repr(value)): value for value in index.tolist()}
    code_of = {key: code for code, key in enumerate(values)}
    return np.array([[code_of[type(value), repr(value)]] for value in index.tolist()]), [list(values.values())]


def _given(value: Any) -> Any:
    """A value of the index as the grid has it."""
    if isinstance(value, tuple):
        return list(value)
    return value.item() if isinstance(value, np.generic) else value


def _level(values: list[Any]) -> pd.Index:
    """The values as they are: pandas would make 3 beside 2.5 a float, and None beside a number NaN."""
    level = pd.Index(values, tupleize_cols=False)
    same = all(type(one) is type(other) for one, other in zip(level.tolist(), values, strict=True))
    return level if same else pd.Index(values, tupleize_cols=False, dtype=object)


def load_study(folder: str | Path, returns: bool = True) -> Study:
    """Read a sweep folder; without `returns` the daily returns, the bulk of it, are left on the disk.

    Raises
    ------
    DataError
        When it is not a sweep folder, is not finished, or a file of it is damaged.
    """
    folder = Path(folder)
    if not (folder / RECORD).is_file():
        raise DataError(f"{folder} is not a sweep folder: it has no {RECORD}. `hlbt sweep` makes one below reports/.")
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if record.get("schema") != SCHEMA:
            raise DataError(
                f"Sweep {folder} has schema {record.get('schema')}; this version reads {SCHEMA}. Run the sweep again."
            )
        rows = pd.read_parquet(folder / TABLE)
        for name in (*TEXTS, ERROR):
            rows[name] = pd.Series([value if isinstance(value, str) else None for value in rows[name]], dtype=object)
        # JSON sorts its keys; the levels of the index keep the order of the request.
        grid = record["grid"] = {key: record["grid"][key] for key in record["keys"]}
        codes = rows[[f"set.{key}" for key in grid]].to_numpy(dtype=np.int64)
        index = index_of(grid, codes)
        ours = [name for name in rows.columns if name == "key" or name.startswith("set.")]
        table = rows.drop(columns=ours).set_axis(index)
        daily = None
        if returns and (folder / RETURNS).is_file():
            kept = pd.read_parquet(folder / RETURNS)
            dates = pd.DatetimeIndex(pd.to_datetime(kept.columns), tz="UTC", name="time").as_unit(UNIT)
            daily = pd.DataFrame(kept.to_numpy(dtype=np.float64).T, index=dates, columns=index)
            if daily.shape[1] != len(table):
                raise ValueError(f"{daily.shape[1]} rows of returns, {len(table)} sets")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"Sweep {folder} is damaged: {reason_of(error)}. Run the sweep again; what is whole is not run twice."
        ) from error
    return Study(record, table, daily, folder)
