"""The winner of a study run again: with costs that bite harder, late, at other hours, from later starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from engine.clock import show
from engine.errors import DataError, HlbtError
from engine.oracles.base import weight_matrix
from engine.panel import Panel
from engine.simulation.backtest import backtest, decisions_of
from engine.simulation.result import Result
from engine.sweeps.study import ORACLE, ParameterSet, Study, codes_of
from engine.validation.null_books import REPLICATES
from engine.validation.null_books import null_books as compare_with_nulls

COST_FACTORS = (1.0, 2.0, 3.0)
DELAYS_HOURS = (0, 1, 24)
HOURS = tuple(range(24))
#: Later starts, as fractions of the decisions that are left out.
LATER_STARTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
#: A later start needs as many days after it.
LEAST_DAYS = 30


@dataclass(frozen=True, eq=False)
class Rerun:
    """One set of a study on a panel. Its oracle is called once for each hour of decision."""

    study: Study
    row: int
    panel: Panel

    @cached_property
    def parameter_set(self) -> ParameterSet:
        """The set, complete."""
        return self.study.parameter_set(self.row)

    @cached_property
    def weights(self) -> pd.DataFrame:
        """Weights of its oracle at its own decisions."""
        return self._weights(self.parameter_set)

    @cached_property
    def base(self) -> Result:
        """As the sweep ran it."""
        return backtest(self.panel, self.weights, self.parameter_set.config)

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of its oracle: rows used before they were published, days without data."""
        return self.parameter_set.build().notes(self._known, pd.DatetimeIndex(self.weights.index))

    @cached_property
    def _known(self) -> Panel:
        """The panel as known, made once."""
        return self.panel.point_in_time()

    def _weights(self, chosen: ParameterSet) -> pd.DataFrame:
        return weight_matrix(chosen.build(), self._known, decisions_of(self.panel, chosen.config))

    def changed(self, **changes: Any) -> Result:
        """The same weights with other settings, ``section__key=value``."""
        named = {name.replace("__", "."): value for name, value in changes.items()}
        return backtest(self.panel, self.weights, self.study.parameter_set(self.row, named).config)

    def costs(self) -> list[dict[str, Any]]:
        """``costs.stress`` times each factor."""
        own = self.parameter_set.config.costs.stress
        return [{"factor": factor, **_figures(self.changed(costs__stress=own * factor))} for factor in COST_FACTORS]

    def delays(self) -> list[dict[str, Any]]:
        """Every trade so many hours later than it is."""
        own = self.parameter_set.config.execution.delay_hours
        return [
            {"hours": hours, **_figures(self.changed(execution__delay_hours=own + hours))} for hours in DELAYS_HOURS
        ]

    def null_books(self, seed: int, replicates: int = REPLICATES, roll_step: int = 1) -> dict[str, Any]:
        """The set among books without skill that cost as much; ``null`` is the distribution that decides.

        Parameters
        ----------
        seed, replicates, roll_step : int
            As :func:`engine.validation.null_books.null_books` takes them.
        """
        found = compare_with_nulls(self.panel, self.weights, self.parameter_set.config, replicates, seed, roll_step)
        kinds = {"permuted": found.permuted, "rolled": found.rolled}
        known = {kind: values[np.isfinite(values)] for kind, values in kinds.items()}
        null = known[found.decides]
        counts, edges = np.histogram(null, bins=40)
        return {
            "p_value": found.p_value,
            "decides": found.decides,
            "statistic": found.sharpe,
            "flipped": found.flipped,
            **{f"p_{kind}": p for kind, p in (("permuted", found.p_permuted), ("rolled", found.p_rolled))},
            **{f"{kind}_count": len(values) for kind, values in known.items()},
            **{f"{kind}_unknown": len(values) - len(known[kind]) for kind, values in kinds.items()},
            "mean": float(null.mean()) if len(null) else None,
            "critical": float(np.quantile(null, 0.95)) if len(null) else None,
            "null": {"edges": edges.tolist(), "counts": counts.tolist()},
        }

    def decision_hours(self) -> list[dict[str, Any]]:
        """Decisions and daily returns at each hour of the day, from what was known then."""
        rows = []
        for hour in HOURS:
            changed = self.study.parameter_set(self.row, {"execution.hour_utc": hour})
            rows.append({"hour": hour, **_figures(backtest(self.panel, self._weights(changed), changed.config))})
        return rows

    def start_dates(self) -> list[dict[str, Any]]:
        """The same weights, but the account is empty until a later decision, from which its days count.

        The panel is not cut, so that nothing but the account starts later: lookbacks are as full as they were.
        """
        decisions = pd.DatetimeIndex(self.weights.index)
        firsts = {decisions[int(share * len(decisions))] for share in LATER_STARTS}
        rows = []
        for first in sorted(firsts):
            result = backtest(self.panel, self.weights[decisions >= first], self.parameter_set.config)
            if result.metrics["days"] >= LEAST_DAYS:
                rows.append(
                    {
                        "start": first.isoformat(),
                        **{name: result.metrics[name] for name in ("days", "sharpe", "liquidated_at")},
                    }
                )
        if not rows:
            raise DataError(
                f"No start leaves {LEAST_DAYS} days: the decisions run from {show(decisions[0])} to "
                f"{show(decisions[-1])}."
            )
        return rows


def _figures(result: Result) -> dict[str, Any]:
    names = ("sharpe", "cagr", "max_drawdown", "equity_end_usd", "liquidated_at")
    return {name: result.metrics[name] for name in names}


def attempt(work: Callable[[], Any]) -> Any:
    """What `work` gives, or ``{"why": ...}`` where the data or the oracle cannot give it."""
    try:
        return work()
    except HlbtError as error:
        return {"why": str(error)}


def neighbours(study: Study, row: int) -> list[dict[str, Any]]:
    """Sets one step from a set along one axis of the grid.

    A step is to the next lower or higher value that the grid has of an axis whose values are all numbers, and to every
    other value of an axis that has no order (names, switches, lists). Sets that were left out or failed are no
    neighbours, and neither is another oracle: that is another idea.

    Returns
    -------
    list of dict
        ``axis``, ``parameters`` (the values of all axes), ``place`` and ``sharpe``, as sets are compared by it.
    """
    codes, values = codes_of(study.table.index)
    figures = study.compared()
    own = codes[row]
    near = []
    for axis, of_axis in enumerate(values):
        if study.table.index.names[axis] == ORACLE:
            continue
        same = np.delete(codes == own, axis, axis=1).all(axis=1)
        for code in _steps(of_axis, int(own[axis])):
            for neighbour in np.flatnonzero(same & (codes[:, axis] == code)):
                if np.isfinite(figures[neighbour]):
                    near.append(
                        {
                            "axis": str(study.table.index.names[axis]),
                            "parameters": study.params(int(neighbour)),
                            "place": int(neighbour),
                            "sharpe": float(figures[neighbour]),
                        }
                    )
    return near


def _steps(values: list[Any], own: int) -> list[int]:
    """Codes of the values one step from that of code `own`."""
    numbers = all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in values)
    if not numbers:
        return [code for code in range(len(values)) if code != own]
    order = sorted(range(len(values)), key=lambda code: values[code])
    rank = order.index(own)
    return [order[step] for step in (rank - 1, rank + 1) if 0 <= step < len(order)]
