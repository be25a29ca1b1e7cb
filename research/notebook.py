"""Helpers of notebooks and studies: a panel to begin with, and runs and searches that count as trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine import Panel, Result, RunConfig, Study, load_panel, sweep
from engine.commands.sample import write_sample
from engine.data.cache import Store
from engine.data.panel_loader import Instant, cache_path
from engine.oracles.base import Oracle
from engine.reporting.tearsheet import write_tearsheet
from engine.runs import run_oracle, save_and_count

REPORTS = Path("reports")


def market(cache: str | None = None, start: Instant | None = None, end: Instant | None = None) -> Panel:
    """The panel of a cache, up to its sealed holdout; without data there, the synthetic sample, made where it is not.

    Parameters
    ----------
    cache : str, optional
        Default: ``HLBT_DATA_CACHE``, else ``data_cache``.
    start, end : str or Timestamp, optional
        As for :func:`engine.load_panel`.
    """
    folder = cache_path(cache)
    if cache is None and not (folder / "manifest.json").is_file():
        folder = folder / "sample"
        write_sample(Store(folder))
    return load_panel(folder, start, end)


def run(
    panel: Panel,
    oracle: Oracle | type[Oracle] | str,
    parameters: Mapping[str, Any] | None = None,
    config: RunConfig | None = None,
    reports: Path | str = REPORTS,
    created: str = "",
) -> tuple[Result, Path]:
    """Backtest an oracle, keep the run with its tearsheet, and count it as a trial, as ``hlbt backtest`` does.

    Parameters
    ----------
    panel : Panel
        The market.
    oracle : Oracle, class, or ``"module:Class"``
        A class of the notebook itself too: its code is part of the run's name, so one that is defined again makes
        another run.
    parameters : mapping, optional
        Constructor arguments of a class.
    config : RunConfig, optional
        Default: all defaults.
    reports : path
        Folder of the run folder and the ledger of trials.
    created : str
        ISO 8601 instant, from the caller.

    Returns
    -------
    result : Result
    folder : Path
        The run folder.
    """
    result, origin = run_oracle(panel, config or RunConfig(), oracle, parameters)
    return result, save_and_count(result, origin, None, Path(reports), created, write_tearsheet)


def search(
    panel: Panel,
    oracle: type[Oracle] | str,
    grid: Mapping[str, Sequence[Any]],
    config: RunConfig | None = None,
    reports: Path | str = REPORTS,
    **options: Any,
) -> Study:
    """:func:`engine.sweep` whose sets are kept and counted as trials unless `reports` is None.

    Parameters
    ----------
    panel, oracle, grid, config : object
        As for :func:`engine.sweep`.
    reports : path
        Folder of the sweep and the ledger of trials.
    **options : object
        The others of :func:`engine.sweep`.
    """
    return sweep(panel, oracle, grid, config, reports=reports, **options)
