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
from engine.sweeps.grid import Constraint, make_grid
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
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            "--sampler optuna needs optuna, which is not installed: pip install 'hlbt[optuna]'."
        ) from error
    if not isinstance(grid, Mapping):
        raise ConfigError(
            "Optuna chooses among the product of a grid, not among listed sets. Give a grid, or no sampler."
        )
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    product = make_grid(grid, {}, where)
    asked = [str(oracle), dict(product.values), list(map(str, where)), seed, dict(rest.get("fixed") or {})]
    rest["name"] = (
        rest.get("name")
        or f"sweep-optuna-{digest_of(asked, check_config(rest.get('config')).to_dict()) & 0xFFFFFFFF:08x}"
    )
    allowed = {tuple(codes): row for row, codes in enumerate(product.codes.tolist())}
    axes = {key: _axis(key, values) for key, values in product.values.items()}
    sampler = optuna.samplers.TPESampler(seed=seed % 2**32, constant_liar=True, multivariate=False)
    search = optuna.create_study(direction="maximize", sampler=sampler)
    known = _known(rest.get("reports"), rest["name"])

    def run(rows: Sequence[int]) -> Study:
        return sweep(oracle=oracle, grid=[product.params(row) for row in rows], **rest)

    sharpe: dict[int, float] = {}
    study: Study | None = None
    wanted, generator = min(sample, len(product)), np.random.default_rng(seed % 2**64)
    while len(sharpe) < wanted:
        trials = [search.ask(axes) for _ in range(ROUND)]
        rows = [allowed.get(tuple(trial.params[key] for key in axes)) for trial in trials]
        new = [row for row in dict.fromkeys(rows) if row is not None and row not in sharpe][: wanted - len(sharpe)]
        if new:
            keys = _keys(oracle, [product.params(row) for row in new], rest)
            if all(key in known for key in keys):
                sharpe |= {row: known[key] for row, key in zip(new, keys, strict=True)}
            else:
                study = run([*sharpe, *new])
                values = np.asarray(study.table["sharpe"], dtype=np.float64).tolist()
                sharpe = dict(zip((*sharpe, *new), values, strict=True))
        for trial, row in zip(trials, rows, strict=True):
            value = None if row is None else sharpe.get(row)
            if value is None:  # excluded, or more than are wanted
                search.tell(trial, state=optuna.trial.TrialState.PRUNED)
            elif not np.isfinite(value):
                search.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                search.tell(trial, value)
        if not new:  # it proposes only what was run or is excluded: sets at random come next
            left = np.setdiff1d(np.arange(len(product)), list(sharpe))
            for row in generator.permutation(left)[: min(ROUND, wanted - len(sharpe))]:
                search.enqueue_trial(dict(zip(axes, product.codes[row].tolist(), strict=True)))
    return study if study is not None and len(study) == len(sharpe) else run([*sharpe])


def _keys(oracle: Oracles, sets: Sequence[Mapping[str, Any]], rest: Mapping[str, Any]) -> list[int]:
    """What decides the numbers of each set, (P,)."""
    config, fixed = check_config(rest.get("config")), rest.get("fixed") or {}
    keys: list[int] = make_plan(rest["panel"], oracle, sets, config, fixed, (), None, 0, False).keys.tolist()
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
