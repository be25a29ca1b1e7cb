"""Sets of a sweep chosen one after another by Optuna, which learns from those that were run.

Optuna keeps nothing on the disk: a sweep that is run again asks for the same sets in the same order, and those that
have a result are not run twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from engine.errors import ConfigError
from engine.simulation.backtest import check_config
from engine.sweeps.grid import Constraint, Grid, make_grid
from engine.sweeps.plan import Oracles, make_plan
from engine.sweeps.study import ERROR, TABLE, Study
from engine.sweeps.sweep import sweep
from engine.sweeps.trials import digest_of

#: Sets that are chosen at once, whatever the number of workers, so that the choice does not depend on it.
ROUND = 16


def sweep_by_optuna(
    oracle: Oracles, grid: Mapping[str, Sequence[Any]], where: Sequence[Constraint], sample: int, seed: int, **rest: Any
) -> Study:
    """Run `sample` sets of a product, chosen by Optuna's TPE sampler to have high Sharpe ratios.

    Parameters
    ----------
    oracle : class, ``"module:Class"``
        One oracle.
    grid : mapping of str to values
        As of :func:`engine.sweeps.sweep.sweep`; sets are chosen among its product.
    where : sequence of str or callable
        Constraints; a set that they exclude is pruned before it is run.
    sample : int
        Sets to run; every one that is run is a trial of the ledger.
    seed : int
        Of the sampler: the same seed gives the same sets.
    **rest
        The other arguments of :func:`engine.sweeps.sweep.sweep`.

    Returns
    -------
    Study
        Of the sets that were run, in the order in which they were chosen; fewer than `sample` where the product is
        smaller. Where Optuna proposes nothing new, sets drawn at random come next.

    Raises
    ------
    ConfigError
        When optuna is not installed, or as :func:`engine.sweeps.sweep.sweep`.
    """
    optuna = _optuna()
    if not isinstance(grid, Mapping):
        raise ConfigError(
            "Optuna chooses among the product of a grid, not among listed sets. Give a grid, or no sampler."
        )
    product = make_grid(grid, {}, where)
    if not rest.get("name"):
        requested = [str(oracle), dict(product.values), list(map(str, where)), seed, dict(rest.get("fixed") or {})]
        digest = digest_of(requested, check_config(rest.get("config")).to_dict())
        rest["name"] = f"sweep-optuna-{digest & 0xFFFFFFFF:08x}"
    allowed = {tuple(codes): row for row, codes in enumerate(product.codes.tolist())}
    axes = {key: _axis(key, values) for key, values in product.values.items()}
    sampler = optuna.samplers.TPESampler(seed=seed % 2**32, constant_liar=True, multivariate=False)
    search = optuna.create_study(direction="maximize", sampler=sampler)
    figures = _Figures(oracle, product, rest)
    wanted, generator = min(sample, len(product)), np.random.default_rng(seed % 2**64)
    while len(figures.sharpe) < wanted:
        trials = [search.ask(axes) for _ in range(ROUND)]
        rows = [allowed.get(tuple(trial.params[key] for key in axes)) for trial in trials]
        left = wanted - len(figures.sharpe)
        new = [row for row in dict.fromkeys(rows) if row is not None and row not in figures.sharpe][:left]
        figures.run(new)
        for trial, row in zip(trials, rows, strict=True):
            value = None if row is None else figures.sharpe.get(row)
            # Pruned: excluded, or more than are wanted.
            state = None if value is not None and np.isfinite(value) else "PRUNED" if value is None else "FAIL"
            search.tell(trial, value if state is None else None, state and optuna.trial.TrialState[state])
        if not new:  # it proposes only what was run or is excluded: sets at random come next
            others = np.setdiff1d(np.arange(len(product)), list(figures.sharpe))
            for row in generator.permutation(others)[: min(ROUND, left)]:
                search.enqueue_trial(dict(zip(axes, product.codes[row].tolist(), strict=True)))
    return figures.study()


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            "--sampler optuna needs optuna, which is not installed: pip install 'hlbt[optuna]'."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class _Figures:
    """Sharpe ratios of the sets that were chosen, by row of the product, in the order of their choice.

    An earlier run of the search, which would lose its results if it began with fewer sets, is read first.
    """

    def __init__(self, oracle: Oracles, product: Grid, rest: Mapping[str, Any]) -> None:
        self.oracle, self.product, self.rest = oracle, product, rest
        self.sharpe: dict[int, float] = {}
        self._known = _known(rest.get("reports"), rest["name"])
        self._study: Study | None = None

    def run(self, rows: Sequence[int]) -> None:
        """Run more sets, after all those before."""
        keys = self._keys(rows) if rows else []
        if all(key in self._known for key in keys):
            self.sharpe |= {row: self._known[key] for row, key in zip(rows, keys, strict=True)}
            return
        self._study = self._sweep([*self.sharpe, *rows])
        values = np.asarray(self._study.table["sharpe"], dtype=np.float64).tolist()
        self.sharpe = dict(zip((*self.sharpe, *rows), values, strict=True))

    def study(self) -> Study:
        """The sweep of all of them."""
        whole = self._study is not None and len(self._study) == len(self.sharpe)
        return self._study if whole and self._study else self._sweep([*self.sharpe])

    def _sweep(self, rows: Sequence[int]) -> Study:
        return sweep(oracle=self.oracle, grid=[self.product.params(row) for row in rows], **self.rest)

    def _keys(self, rows: Sequence[int]) -> list[int]:
        """What decides the numbers of each set, (P,)."""
        config, fixed = check_config(self.rest.get("config")), self.rest.get("fixed") or {}
        sets = [self.product.params(row) for row in rows]
        plan = make_plan(self.rest["panel"], self.oracle, sets, config, fixed, (), None, 0, False)
        keys: list[int] = plan.keys.tolist()
        return keys


def _known(reports: Path | str | None, name: str) -> dict[int, float]:
    """Sharpe ratios by key of an earlier run of the search, which would lose them if it began with fewer sets."""
    try:
        table = pq.read_table(Path(reports or "") / name / TABLE, columns=["key", ERROR, "sharpe"]).to_pydict()
    except (OSError, ValueError):  # none, or one that is damaged: its sets are run again
        return {}
    rows = zip(table["key"], table[ERROR], table["sharpe"], strict=True)
    return {key: sharpe for key, error, sharpe in rows if error == ""} if reports else {}


def _axis(key: str, values: Sequence[Any]) -> Any:
    """The values of a key as Optuna sees them: places in their order for numbers that ascend, else without one."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if numbers and list(values) == sorted(values):
        return IntDistribution(0, len(values) - 1)
    return CategoricalDistribution(list(range(len(values))))
