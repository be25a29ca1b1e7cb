"""Study: what a sweep leaves, in memory and as a folder.

``sweep.json`` (the request, digests, versions, counts), ``table.parquet`` (a row a set), ``returns.parquet`` (a row
a set, a column a day), and later ``verdict.json`` and ``index.html``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from engine.clock import UNIT
from engine.config import RunConfig
from engine.errors import DataError, OracleError, reason_of
from engine.simulation import metrics
from engine.simulation.result import REPORTED
from engine.sweeps.labels import as_given, by_instant
from engine.sweeps.labels import codes_of as codes_of
from engine.sweeps.labels import index_of as index_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from engine.oracles.base import Oracle
    from engine.panel import Panel
    from engine.simulation.result import Result
    from engine.validation.verdict import Verdict

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
    kind : type, optional
        The class that `oracle` named when the sweep was run; None where it was read from a folder.
    """

    oracle: str
    parameters: Mapping[str, Any]
    config: RunConfig
    kind: type[Oracle] | None = field(default=None, compare=False)

    def build(self) -> Oracle:
        """The oracle of the set."""
        from engine.oracles.loading import build_oracle, oracle_class

        return build_oracle(self.kind or oracle_class(self.oracle), self.parameters)


class Best(int):
    """A set of a study, complete; it is the row of the table, too.

    Attributes
    ----------
    study : Study
        Its study.
    """

    study: Study

    def __new__(cls, row: int, study: Study) -> Self:
        """See :meth:`Study.best`."""
        made = super().__new__(cls, row)
        made.study = study
        return made

    def __reduce__(self) -> tuple[type[Self], tuple[int, Study]]:
        return type(self), (int(self), self.study)  # what copy and pickle make it of

    #: In a text it is its row.
    __str__ = int.__repr__

    def __repr__(self) -> str:
        return f"Best(row {int(self)}, {self.parameters}, Sharpe {self.metrics['sharpe']:.3g})"

    @property
    def set(self) -> ParameterSet:
        """Oracle, all its parameters, and config."""
        return self.study.parameter_set(int(self))

    @property
    def parameters(self) -> dict[str, Any]:
        """Values of the keys that vary."""
        return self.study.params(int(self))

    @property
    def metrics(self) -> dict[str, Any]:
        """Its row of the table."""
        row = self.study.table.drop(columns=ERROR, errors="ignore").iloc[int(self)]
        return {str(name): value for name, value in row.items()}

    def result(self, panel: Panel | None = None) -> Result:
        """Run the set again, with all that a result has.

        Parameters
        ----------
        panel : Panel, optional
            Default: that of the study (:meth:`Study.market`).

        Raises
        ------
        OracleError
            When the oracle's code is not that of the sweep.
        """
        from engine.oracles.loading import oracle_class
        from engine.runs import run_oracle

        one, record = self.set, self.study.record
        kind = one.kind or oracle_class(one.oracle)
        panel = self.study.market() if panel is None else panel
        result, origin = run_oracle(panel, one.config, one.kind or one.oracle, one.parameters)
        then = {item["path"]: item["digest"] for item in record["oracles"]}[one.oracle]
        if one.kind is None and not kind.oracle_parameters and origin.code != then:
            raise OracleError(
                f"The code of {one.oracle} was changed since the study {record['name']}, so the set would give other "
                "numbers. Run the sweep again."
            )
        return result


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
        By the instant at which a day ends, as :attr:`engine.Result.daily_returns`, columns as the rows of `table`; NaN
        where a set has none: it failed, has not yet asked for anything, or decides at another hour. None: not kept.
    folder : Path or None
        Where it is kept.
    panel : Panel or None
        What it ran on; None where it was read from a folder.
    kinds : mapping
        The classes of its oracles by path; empty where it was read from a folder.
    """

    record: Mapping[str, Any]
    table: pd.DataFrame
    daily_returns: pd.DataFrame | None
    folder: Path | None = None
    panel: Panel | None = None
    kinds: Mapping[str, type[Oracle]] = field(default_factory=dict)

    def __repr__(self) -> str:
        failed = int(self.table[ERROR].astype(bool).sum()) if ERROR in self.table else 0
        sets = f"{len(self):,} sets of {', '.join(self.record['grid'])}, {failed:,} failed"
        return f"Study({self.record['name']}, {sets})"

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
        return {str(name): as_given(value) for name, value in zip(self.table.index.names, values, strict=True)}

    def parameter_set(self, row: int, changes: Mapping[str, Any] | None = None) -> ParameterSet:
        """The set in row `row`, complete; `changes` are ``section.key`` values of the config put over its own.

        Raises
        ------
        ConfigError
            For a change that is not accepted.
        """
        made = parameter_set_of(self.record, self.params(row), changes)
        return replace(made, kind=self.kinds.get(made.oracle))

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
        daily = self.daily_returns
        dates = pd.DatetimeIndex(daily.index).tz_convert("UTC").normalize()
        if dates.has_duplicates:  # sets that decide at several hours: the days of one date are compared
            daily = daily.groupby(dates).first()
            dates = pd.DatetimeIndex(daily.index)
        values = daily.to_numpy(dtype=np.float64)
        finite = np.isfinite(values)
        covered = finite.sum(axis=0)
        sets = np.flatnonzero(covered >= max(LEAST_COVERAGE * covered.max(initial=0), 1))
        days = finite[:, sets].all(axis=1)
        if not len(sets) or days.sum() < 2:
            raise DataError("No set of the study has daily returns.")
        return values[np.ix_(days, sets)], dates[days], sets

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

    def best(self, by: str = "sharpe") -> Best:
        """First row of :meth:`ranking`, with its parameters, metrics and ``.result()``.

        Raises
        ------
        DataError
            When no set has a figure `by`.
        """
        if not np.isfinite(self.table[by].to_numpy(dtype=np.float64)).any():
            errors = [error for error in self.table[ERROR] if error] if ERROR in self.table else []
            first = f" {len(errors):,} of {len(self):,} failed; the first: {errors[0]}" if errors else ""
            raise DataError(f"No set of the study {self.record['name']} has a {by}: all failed or never traded.{first}")
        return Best(int(self.ranking(by)[0]), self)

    def market(self) -> Panel:
        """The panel that the study ran on: its own, or the one that its record names, from the cache.

        Raises
        ------
        DataError
            When the cache gives another panel than the study ran on.
        """
        if self.panel is not None:
            return self.panel
        from engine.data.panel_loader import load_open_panel
        from engine.sweeps.trials import ledger_holdout

        config = RunConfig.from_dict(self.record["config"])
        holdout = None if self.folder is None else ledger_holdout(self.folder.parent)
        data = config.data
        panel = load_open_panel(data.cache, config.start, config.end, data.selection, holdout, data.hours)
        if panel.digest != self.record["digests"]["data"]:
            raise DataError(
                f"The study {self.record['name']} ran on another panel than the cache gives now "
                f"({self.record['span']['start'][:10]} to {self.record['span']['end'][:10]}). Give it: panel=..."
            )
        return panel

    def summary(self, by: str = "sharpe") -> pd.DataFrame:
        """Key figures and money of every set, the best by `by` first; received positive, paid negative, as labelled."""
        from engine.reporting.views import study_summary

        return study_summary(self, by)

    def heatmap(self, x: str, y: str, metric: str = "sharpe", aggregate: str = "mean") -> go.Figure:
        """A metric over two keys of the grid, as a plotly figure.

        Parameters
        ----------
        x, y : str
            Keys that vary.
        metric : str
            Column of `table`.
        aggregate : str
            What of the sets that share a cell is shown: mean, median, max or min.

        Returns
        -------
        plotly.graph_objects.Figure
        """
        from engine.reporting.views import heatmap

        return heatmap(self, x, y, metric, aggregate)

    def verdict(self, panel: Panel | None = None) -> Verdict:
        """Whether the best set is luck: :func:`engine.validate`, by all trials of the ledger where the study is kept.

        Parameters
        ----------
        panel : Panel, optional
            Default: :meth:`market`.
        """
        from engine.sweeps.trials import count_trials, families_of
        from engine.validation.validate import validate

        trials = None
        if self.folder is not None:
            trials = count_trials(self.folder.parent, families_of(self.record), self.record.get("ledger"))
            trials = trials if trials.total or trials.broken else None
        return validate(self, self.market() if panel is None else panel, trials)

    def save(self, folder: Path | str) -> Path:
        """Write the study to a sweep folder, which :func:`engine.load_study` reads; it counts nowhere by that.

        Raises
        ------
        DataError
            When `folder` holds anything.
        """
        from engine.sweeps.results import write_study

        return write_study(self, Path(folder))

    def plot(self, benchmark: str | None = REPORTED) -> go.Figure:
        """:meth:`engine.Result.plot` of the best set."""
        return self._best.plot(benchmark)

    def monthly(self) -> pd.DataFrame:
        """:meth:`engine.Result.monthly` of the best set."""
        return self._best.monthly()

    def yearly(self) -> pd.DataFrame:
        """:meth:`engine.Result.yearly` of the best set."""
        return self._best.yearly()

    def trades_summary(self) -> pd.DataFrame:
        """:meth:`engine.Result.trades_summary` of the best set."""
        return self._best.trades_summary()

    def long_short(self) -> pd.DataFrame:
        """:meth:`engine.Result.long_short` of the best set."""
        return self._best.long_short()

    def tearsheet(self, path: Path | str = "tearsheet.html") -> Path:
        """:meth:`engine.Result.tearsheet` of the best set."""
        return self._best.tearsheet(path)

    @cached_property
    def _best(self) -> Result:
        return self.best().result()

    def _repr_html_(self) -> str:
        from engine.reporting.views import study_card

        return study_card(self)


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


def load_study(folder: str | Path, returns: bool = True, columns: Sequence[str] | None = None) -> Study:
    """Read a sweep folder; without `returns` the daily returns, the bulk of it, are left on the disk.

    Of the table `columns` alone are read, where they are given: all of a million sets are half a gigabyte.

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
        if not record["oracles"] or not isinstance(record["config"], dict):
            raise ValueError(f"{RECORD} names no oracle, or no config")
        wanted = None if columns is None else [*columns, *(f"set.{key}" for key in record["keys"])]
        rows = pd.read_parquet(folder / TABLE, columns=wanted)
        for name in (*TEXTS, ERROR) if columns is None else {*TEXTS, ERROR}.intersection(columns):
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
            daily = by_instant(record, index, kept.to_numpy(dtype=np.float64).T, dates)
            if daily.shape[1] != len(table):
                raise ValueError(f"{daily.shape[1]} rows of returns, {len(table)} sets")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"Sweep {folder} is damaged: {reason_of(error)}. Run the sweep again; what is whole is not run twice."
        ) from error
    return Study(record, table, daily, folder)
