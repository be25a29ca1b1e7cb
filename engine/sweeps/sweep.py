"""Run a grid of parameters over a panel, resumable: metrics and daily returns of every set."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.config import RunConfig
from engine.errors import ConfigError, DataError
from engine.panel import Panel
from engine.provenance import code_digest, to_json
from engine.simulation.backtest import check_config, dead_decisions, decisions_of, trade_rows
from engine.simulation.costs import fee_scale_notes
from engine.sweeps.executors import Executor, Threads
from engine.sweeps.grid import Constraint
from engine.sweeps.plan import Oracles, Plan, make_plan
from engine.sweeps.result_files import ResultFiles, result_files
from engine.sweeps.results import Results, sweep_folder
from engine.sweeps.study import NOT_COUNTED, RECORD, Study
from engine.sweeps.trials import known_trials, ledger_state, record_trials

Progress = Callable[[int, int, str], None]
#: Where counting in the ledger takes longer than so many seconds, for it has tens of millions of trials, so many times
#: as long passes before that is done again: every addition reads and verifies all of it.
COUNT_SECONDS, COUNT_PAUSE = 1.0, 20


def sweep(
    panel: Panel,
    oracle: Oracles,
    grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]],
    config: RunConfig | None = None,
    *,
    fixed: Mapping[str, Any] | None = None,
    where: Constraint | Sequence[Constraint] = (),
    sample: int | None = None,
    seed: int = 0,
    returns: bool | None = None,
    executor: Executor | None = None,
    name: str | None = None,
    reports: Path | str | None = None,
    dataset: Path | str | None = None,
    created: str = "",
    progress: Progress | None = None,
) -> Study:
    """Run many sets of parameters over one panel.

    Parameters
    ----------
    panel : Panel
        T hours x N coins.
    oracle : class, ``"module:Class"``, or a sequence of them
        With several, ``oracle`` is a key of the grid too, and every other key must be a parameter of each of them.
    grid : mapping of str to values, or list of mappings
        Keys: parameters of the oracle, or ``section.key`` of the config (``costs.taker_bps``). A mapping is the product
        of its values, which are lists or ``{start, stop, step}``; a list names each set.
    config : RunConfig, optional
        Of all sets, before their own keys.
    fixed : mapping, optional
        Parameters that all sets share.
    where : str or callable, or a sequence of them
        Constraints, which all must hold: an expression over the keys (``"lookback_hours > n"``, a key with a dot in
        backticks), or a function of a set's values by key.
    sample, seed : int
        Draw so many sets at random.
    returns : bool, optional
        Keep the daily returns of every set. Default: up to 100,000 sets.
    executor : Executor, optional
        Default: threads of this process.
    name, reports : str, path
        Keep the sweep in ``reports/<name>``, where an interrupted one continues, and count its trials in the ledger.
        Without `reports` nothing is kept, and no other sweep's results are used.
    dataset : str or path, optional
        A folder that all workers share, ``s3://bucket/prefix`` or ``gs://bucket/prefix``: each worker writes the
        results of its tasks there, in ``sweep=<name>/config=<digest>/``, where they stay; see
        :class:`engine.sweeps.result_files.ResultFiles`. Results of other sweeps are not taken over then.
    created : str
        ISO 8601 instant of the sweep, from the caller, for nothing here reads the clock.
    progress : callable, optional
        Called with (sets done, sets, what).

    Returns
    -------
    Study
        Its table has a row a set, the keys of the grid as index levels.

    Raises
    ------
    ConfigError, DataError, OracleError
        For an unknown key, an empty grid, a panel or an oracle that cannot be used.
    """
    plan = make_plan(panel, oracle, grid, check_config(config), fixed or {}, where, sample, seed, returns)
    files = None
    if dataset is not None:
        files = result_files(dataset, "dataset").below(f"sweep={_label(plan, name)}")
    return _sweep(plan, executor or Threads(), name, reports, files, created, progress or (lambda *_: None))


def _sweep(
    plan: Plan,
    executor: Executor,
    name: str | None,
    reports: Path | str | None,
    dataset: ResultFiles | None,
    created: str,
    report: Progress,
) -> Study:
    """Run a plan, in the folder of its results or in a temporary one."""
    with _home(plan, name, reports) as (folder, parent):
        note = _outdated(folder)
        results = Results(folder, plan.keys, plan.panel.index.normalize().unique(), plan.returns, dataset)
        reused = results.adopt(parent)
        if dataset is not None:  # before the work, so that an address that cannot be written ends it here
            dataset.write_record(to_json(plan.record(folder.name, created, reused)), f"_{RECORD}")
        _run(plan, results, executor, parent, reused, report)
        record = plan.record(folder.name if parent else name or plan.name, created, reused)
        ledger = None if parent is None else ledger_state(parent)
        panel = plan.panel
        rows, _ = trade_rows(decisions_of(panel, plan.base), panel, plan.base)
        scales = fee_scale_notes(panel.table, dict.fromkeys(panel.coins, panel.index[rows[0]]))
        notes = [*panel.notes, *dead_decisions(panel, rows), *scales, *([] if parent is not None else [NOT_COUNTED])]
        study = results.assemble({**record, "note": note, "notes": notes, "ledger": ledger}, plan.grid)
    return replace(study, folder=None if parent is None else study.folder, panel=plan.panel, kinds=plan.kinds)


def _run(plan: Plan, results: Results, executor: Executor, reports: Path | None, reused: int, report: Progress) -> None:
    """Run the sets that have no result yet; what was run is in the ledger of `reports` however this ends."""
    what = f"sets ({reused:,} known already)" if reused else "sets"
    count, counted, due = reused, 0, 0.0
    report(count, len(plan.keys), what)
    ledger = _Ledger(plan, results, reports)
    try:
        for outcome in executor.run(plan.panel, plan.tasks(results.missing(), results.dataset)):
            results.add(outcome)
            count += len(outcome.errors)
            report(count, len(plan.keys), what)
            if count - counted >= counted // 8 and (started := time.monotonic()) >= due:
                # So that a sweep that is killed has nearly all of its trials in the ledger, at little cost.
                ledger.count()
                counted, ended = count, time.monotonic()
                due = ended + COUNT_PAUSE * (ended - started) * (ended - started > COUNT_SECONDS)
    finally:
        results.flush()
        ledger.count()


def _outdated(folder: Path) -> str:
    """Say that what lies here was computed by another version of the engine, if it was."""
    try:
        code = json.loads((folder / RECORD).read_text(encoding="utf-8"))["digests"]["code"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    if code == code_digest():
        return ""
    return f"The results that were in {folder} are of another engine version ({code[:12]}): they were computed anew."


class _Ledger:
    """The ledger of `reports`, if any, as a sweep adds to it: what it knows of the sets is asked once."""

    def __init__(self, plan: Plan, results: Results, reports: Path | None) -> None:
        self.plan, self.results, self.reports = plan, results, reports
        self.counted = np.zeros(len(plan.keys), dtype=bool)
        families = [(path, np.flatnonzero(plan.families == family)) for family, path in enumerate(plan.kinds)]
        self.parts = []
        if reports is not None:
            for path, rows in (*families, *plan.inner.items()):
                self.parts.append((path, rows, known_trials(reports, path, plan.trial_keys[rows])))

    def count(self) -> None:
        """Count every set that has a result by now."""
        plan, ran = self.plan, self.results.ran & ~self.counted
        for path, rows, (there, before) in self.parts:
            new = ran[rows]
            if self.reports is not None and new.any():
                keys, sharpe = plan.trial_keys[rows[new]], self.results.sharpe[rows[new]]
                known = there[new], before[new]
                record_trials(self.reports, path, self.results.folder.name, keys, sharpe, plan.panel, known=known)
        self.counted |= ran


@contextmanager
def _home(plan: Plan, name: str | None, reports: Path | str | None) -> Iterator[tuple[Path, Path | None]]:
    """Folder of the sweep and that of all reports; a folder for the while, and None, where nothing is kept."""
    if reports is None:
        made = Path(tempfile.mkdtemp(prefix="hlbt-sweep-"))
        try:
            yield made, None
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return
    folder = Path(reports) / _label(plan, name)
    try:
        with sweep_folder(folder):
            yield folder, Path(reports)
    except OSError as error:
        raise DataError(
            f"Sweep {folder} cannot be written: {error.strerror or error}. What was finished is kept; "
            "mend the folder, or name another with --reports, and run the command again."
        ) from error


def _label(plan: Plan, name: str | None) -> str:
    """Name of the sweep, which is that of its folder."""
    label = name or plan.name
    if label in ("", ".", "..") or Path(label).name != label:
        raise ConfigError(f"The name {label!r} of the sweep is not a folder name: write one without slashes.")
    return label
