"""``hlbt demo``: the main job on the built-in synthetic sample."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.commands.backtest import read_json, write_run
from engine.commands.options import (
    REPORTS,
    ConfigOption,
    JsonOption,
    SetOption,
    cache_of,
    clock,
    config_of,
    research_panel,
)
from engine.commands.progress import print_json, progress, show_all
from engine.commands.tables import demo_table

if TYPE_CHECKING:
    from engine.commands.tearsheet_pool import TearsheetPool
    from engine.config import RunConfig
    from engine.panel import Panel
    from engine.provenance import Origin
    from engine.simulation.result import Result
    from engine.sweeps.study import Study
    from engine.validation.verdict import Verdict

DEMO_ORACLES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("research.oracles.momentum:Momentum", {"lookback_hours": 336, "n": 5}),
    ("research.oracles.carry:Carry", {"lookback_hours": 168, "n": 5}),
    ("research.oracles.equal_weight:EqualWeight", {}),
)
DEMO_SWEEP: dict[str, list[Any]] = {"lookback_hours": [72, 168, 336, 504, 720], "n": [3, 5, 8, 12]}


def demo_command(
    reports: Annotated[Path, typer.Option("--reports", metavar="DIR", help="Where the run folders go.")] = REPORTS,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the main job on the built-in SYNTHETIC sample: three oracles, a tearsheet each, a sweep and its verdict.

    Example: hlbt demo
    """
    from engine.commands.sample import write_sample
    from engine.commands.tearsheet_pool import TearsheetPool
    from engine.data.cache import Store
    from engine.reporting.index_page import write_index
    from engine.simulation.warm_up import warming_up

    settled = config_of(config, settings)
    cache = Path(settled.data.cache) if settled.data.cache else cache_of(settled) / "sample"

    def announce(page: Path) -> None:
        if not as_json:
            show_all(f"First page: {page} (the others, a sweep and its verdict follow)")

    # The kernel of the sweep is compiled while the first runs are made.
    with progress() as step, TearsheetPool(announce) as pool, warming_up("batch") as wait_for_kernel:
        steps = 5 + len(DEMO_ORACLES)
        step(0, steps, "building the synthetic sample")
        write_sample(Store(cache))
        panel = research_panel(settled, reports, cache)
        made = _backtests(panel, settled, reports, pool, lambda done, what: step(2 + done, steps, what))
        wait_for_kernel()
        study, verdict = _sweep(panel, settled, reports, pool, lambda left, what: step(steps - left, steps, what))
        step(steps - 1, steps, "tearsheets")
        pool.wait()
        page = write_index(reports)
    assert study.folder is not None
    if as_json:
        print_json(
            {
                "synthetic": True,
                "index": str(page),
                "runs": [read_json(folder / "run.json") for _, _, folder in made],
                "sweep": str(study.folder),
                "verdict": verdict.to_dict(),
            }
        )
        return
    sweep_text = f"Sweep of {len(study)} sets of momentum: {verdict.word}. {verdict.summary}\n"
    pages = (page, made[0][2] / "tearsheet.html", study.folder / "index.html")
    show_all(demo_table(made), sweep_text, _next_steps(pages, cache))


def _next_steps(pages: Sequence[Path], cache: Path) -> str:
    # As it was called, for `make demo` leaves hlbt in .venv/bin and not on the PATH.
    command = "hlbt" if shutil.which("hlbt") else os.path.relpath(sys.argv[0])
    opened = "\n         ".join(map(str, pages))
    return (
        f"SYNTHETIC DATA: made-up prices with a small built-in effect; nothing here says anything about a market.\n\n"
        f"Open     {opened}\n"
        f"Next     {command} backtest --oracle research.oracles.momentum:Momentum --set data.cache={cache}\n"
        f"         {command} data sync --source api     (real history from HyperLiquid, no account needed)\n"
        f"         {command} data import freqtrade DIR  (real candles and funding from freqtrade's files)\n"
        f"         {command} backtest --weights FILE    (your own: a column time, then one a coin)\n"
        "Read     docs/quickstart.md for your own oracle, docs/concepts/rules.md for what is simulated"
    )


def _backtests(
    panel: Panel, config: RunConfig, reports: Path, pool: TearsheetPool, step: Callable[[int, str], object]
) -> list[tuple[Result, Origin, Path]]:
    """Run the demo's oracles: result, origin and run folder of each; `pool` makes their tearsheets."""
    from engine.runs import run_source

    made = []
    for number, (path, parameters) in enumerate(DEMO_ORACLES):
        step(number, f"backtest of {path.rpartition(':')[2]}")
        result, origin = run_source(panel, config, path, parameters, None)
        folder = write_run(result, origin, None, None, reports)
        pool.submit(folder)
        made.append((result, origin, folder))
    return made


def _sweep(
    panel: Panel, config: RunConfig, reports: Path, pool: TearsheetPool, step: Callable[[int, str], object]
) -> tuple[Study, Verdict]:
    """Sweep the first oracle of the demo and judge its winner."""
    from engine.commands.validate import judged
    from engine.sweeps.sweep import sweep

    step(3, "sweep of momentum")
    created = clock().isoformat(timespec="seconds")
    path, _ = DEMO_ORACLES[0]
    study = sweep(panel, path, DEMO_SWEEP, config, name="demo-sweep", reports=reports, created=created)
    step(2, "verdict and page of the sweep")
    return study, judged(study, panel, reports, 1, make=pool.submit)
