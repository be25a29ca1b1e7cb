"""The figures of the project, measured; `make bench` prints them as a table. Parity is checked before any timing.

Seconds are the median of several runs on this machine, which may be shared and noisy; the limits are the project's own.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
import bench_engine
import bench_risk
import bench_sweep
from bench_data import figures as data_figures
from bench_validate import bench_statistics

from engine import RunConfig, backtest, load_panel
from engine.data.cache import Store
from engine.data.freqtrade import import_freqtrade
from engine.oracles.base import weight_matrix
from engine.simulation.backtest import decisions_of
from helpers.fees import published_fees
from helpers.naive import backtest as naive_backtest
from helpers.shared_data import SHARED
from research.oracles.momentum import Momentum

NEEDED = "from engine import backtest, load_panel; import engine.simulation.kernel"
HLBT = Path(sys.executable).parent / "hlbt"


@dataclass(frozen=True)
class Figure:
    """One row of the table; seconds."""

    what: str
    runs: list[float]
    limit: float

    @property
    def median(self) -> float:
        return statistics.median(self.runs)


def timed(work: Callable[[], object], runs: int) -> list[float]:
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return taken


def command(*words: str, cache: Path | None = None, folder: Path | None = None) -> Callable[[], object]:
    """A whole process, as a user starts it."""
    environment = {**os.environ, **({"HLBT_DATA_CACHE": str(cache)} if cache else {})}
    return lambda: subprocess.run(words, check=True, capture_output=True, env=environment, cwd=folder)


def readable(words: tuple[str, ...], folder: Path, cache: Path) -> float:
    """Seconds until the page of a run can be read, while QuantStats' part of it is still to come."""
    page, start = folder / "tearsheet.html", time.perf_counter()
    page.unlink(missing_ok=True)
    environment = {**os.environ, "HLBT_DATA_CACHE": str(cache)}
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, cwd=cache)
    while not page.is_file() and process.poll() is None:
        time.sleep(0.005)
    seconds = time.perf_counter() - start
    if process.wait() != 0:
        raise SystemExit(f"{' '.join(words)} failed with {process.returncode}")
    return seconds


def check_parity(cache: Path) -> float:
    """Largest difference between the kernel and the naive ledger over a real month, relative to equity."""
    panel = load_panel(cache, "2024-11-01", "2024-12-01")
    config = RunConfig()
    weights = weight_matrix(Momentum(lookback_hours=72), panel, decisions_of(panel, config))
    reference = naive_backtest(panel, weights, config, published_fees(panel, config))
    difference = np.max(np.abs(backtest(panel, weights, config).equity.to_numpy() / np.array(reference.equity) - 1.0))
    if not difference < 1e-12:
        raise SystemExit(f"the kernel and the naive ledger differ by {difference:.2e}: nothing is timed")
    return float(difference)


def main() -> None:
    """Measure and print."""
    console = Console()
    figures = [
        Figure("hlbt --help", timed(command(str(HLBT), "--help"), 7), 0.5),
        Figure("import engine", timed(command(sys.executable, "-c", "import engine"), 7), 0.7),
        Figure("import of all that a backtest needs", timed(command(sys.executable, "-c", NEEDED), 7), 2.0),
    ]
    source = SHARED / "freqtrade"
    if not source.is_dir():
        console.print(f"The shared data are not at {SHARED} (HLBT_SHARED_DATA moves them): no figures on real data.")
    else:
        with tempfile.TemporaryDirectory() as scratch:
            figures += real(console, source, Path(scratch))
    figures += data_figures(console)
    figures += bench_statistics(console)
    table = Table(title="Figures (seconds)", title_justify="left")
    for heading in ("figure", "median", "min", "max", "limit", ""):
        table.add_column(heading, justify="left" if heading in ("figure", "") else "right")
    for figure in figures:
        within = "ok" if figure.median <= figure.limit else "OVER"
        seconds = (f"{value:.3f}" for value in (figure.median, min(figure.runs), max(figure.runs)))
        table.add_row(figure.what, *seconds, f"{figure.limit:g}", within)
    console.print(table)
    bench_engine.main(console)
    bench_risk.main(console)


def real(console: Console, source: Path, scratch: Path) -> list[Figure]:
    """Figures on the real data: 7 months x 172 coins."""
    caches = iter(scratch / f"cache{number}" for number in range(3))
    imported = timed(lambda: import_freqtrade(Store(next(caches)), source), 3)
    cache = scratch / "cache0"
    console.print(f"Parity with the naive ledger over 2024-11, real data: within {check_parity(cache):.1e} of equity.")
    panel = load_panel(cache)
    config = RunConfig()
    weights = weight_matrix(Momentum(), panel, decisions_of(panel, config))
    backtest(panel, weights, config)
    shape = f"{len(panel.index)} hours x {len(panel.coins)} coins"
    run = (str(HLBT), "backtest", "--oracle", "research.oracles.momentum:Momentum", "--out")
    figures = [
        Figure(f"import of {len(list(source.rglob('*.feather')))} feather files", imported, 30.0),
        Figure(f"load_panel, {shape}", timed(lambda: load_panel(cache), 7), 1.0),
        Figure(f"backtest, warmed, {shape}", timed(lambda: backtest(panel, weights, config), 30), 0.020),
        Figure(
            "hlbt backtest --no-report",
            timed(command(*run, str(scratch / "bare"), "--no-report", cache=cache, folder=scratch), 4)[1:],
            5.0,
        ),
        Figure(
            "hlbt backtest with the tearsheet",
            timed(command(*run, str(scratch / "full"), cache=cache, folder=scratch), 3),
            5.0,
        ),
        Figure(
            "  its own part can be read",
            [readable((*run, str(scratch / "full")), scratch / "full", cache) for _ in range(5)],
            1.5,
        ),
    ]
    figures += bench_sweep.bench_sweeps(console, cache, scratch)
    bench_sweep.cluster(console, cache)
    return figures


if __name__ == "__main__":
    main()
