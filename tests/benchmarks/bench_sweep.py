"""The figures of sweeps, on the real data; `make bench` prints them with the others.

``python tests/benchmarks/bench_sweep.py --million`` adds the million sets, which take minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import numpy as np
from rich.console import Console
from rich.table import Table

from engine import RunConfig, backtest, decisions_of, load_panel, load_study, sweep, weight_matrix
from engine.sweeps.executors import Executor, Ray, Threads
from helpers.shared_data import SHARED
from research.oracles.momentum import Momentum

if TYPE_CHECKING:
    from bench import Figure

HLBT = Path(sys.executable).parent / "hlbt"
COSTS = '[costs]\nimpact = "venue"\nfee_tiers = true\n'
#: Scores, constructions and configs all vary: 200 scores, ten books of each, five configs.
TEN_THOUSAND = """
oracle = "research.oracles.momentum:Momentum"
[grid]
lookback_hours = { start = 24, stop = 960, step = 24 }
skip_hours = [0, 6, 12, 18, 23]
n = { start = 2, stop = 20, step = 2 }
"costs.half_spread_bps" = [1, 2, 3, 4, 5]
"""
MILLION = """
oracle = "research.oracles.momentum:Momentum"
[grid]
lookback_hours = { start = 24, stop = 1212, step = 12 }
skip_hours = [0, 6, 12, 18, 23]
n = { start = 1, stop = 20, step = 1 }
"costs.half_spread_bps" = [1, 2, 3, 4, 5]
"execution.no_trade_band_frac" = [0, 0.002, 0.005, 0.01, 0.02]
"execution.delay_hours" = [0, 1]
"costs.taker_bps" = ["schedule", 3.5]
"""
RAY_GRID = {"lookback_hours": list(range(24, 984, 12)), "n": list(range(1, 26)), "costs.half_spread_bps": [1.0, 2.0]}


def bench_sweeps(console: Console, cache: Path, scratch: Path) -> list[Figure]:
    """Ten thousand sets from the command, without and with the verdict and the page, and again."""
    from bench import Figure

    check(cache)
    # The tests' own folder of machine code is empty: the first command ever compiles.
    first, _ = command(cache, scratch / "first", TEN_THOUSAND, "--no-verdict")
    plain, _ = command(cache, scratch / "a", TEN_THOUSAND, "--no-verdict")
    plain2, memory = command(cache, scratch / "b", TEN_THOUSAND, "--no-verdict")
    again, _ = command(cache, scratch / "b", TEN_THOUSAND, "--no-verdict")
    judged, most = command(cache, scratch / "c", TEN_THOUSAND, "--top", "0")
    page = (scratch / "c" / "reports" / "bench" / "index.html").stat().st_size / 1e6
    console.print(
        f"10,000 sets: {memory:.2f} GB at most (1.5 asked), {most:.2f} with verdict and page; page {page:.1f} MB (15)."
    )
    return [
        Figure("hlbt sweep, 10,000 sets", [plain, plain2], 10.0),
        Figure("  the first command ever, which compiles", [first], 30.0),
        Figure("  again, nothing to run", [again], 10.0),
        Figure("  with verdict and page", [judged], 6.0),
    ]


def check(cache: Path) -> None:
    """Sets of a sweep are the backtests they say they are, or nothing is timed."""
    panel = load_panel(cache)
    study = sweep(panel, Momentum, {"lookback_hours": [24, 168], "n": [3, 12], "costs.half_spread_bps": [1.0, 5.0]})
    for place in range(len(study)):
        setting = study.parameter_set(place)
        weights = weight_matrix(setting.build(), panel, decisions_of(panel, setting.config))
        alone = backtest(panel, weights, setting.config).metrics["equity_end_usd"]
        if not abs(study["equity_end_usd"].iloc[place] / alone - 1.0) < 1e-10:
            raise SystemExit(f"set {study.params(place)} is not its own backtest: nothing is timed")


def command(cache: Path, folder: Path, study: str, *words: str) -> tuple[float, float]:
    """Seconds and gigabytes of ``hlbt sweep`` as a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.toml").write_text(study + COSTS)
    started = time.perf_counter()
    process = subprocess.Popen(
        [str(HLBT), "sweep", "bench.toml", *words, "--json"],
        cwd=folder,
        env={**os.environ, "HLBT_DATA_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"hlbt sweep failed with {status}")
    return time.perf_counter() - started, usage.ru_maxrss / 1e6


def million(console: Console, cache: Path, scratch: Path) -> None:
    """A million sets with their summary statistics, from the command."""
    seconds, memory = command(cache, scratch, MILLION, "--no-returns", "--no-verdict")
    study = load_study(scratch / "reports" / "bench")
    console.print(
        f"{len(study):,} sets: {seconds:,.0f} s (100 asked), {memory:.2f} GB (1.5 asked), "
        f"{int((study['error'] != '').sum())} failed, best Sharpe {study['sharpe'].max():.2f}."
    )


def cluster(console: Console, cache: Path) -> None:
    """Ray against threads on one machine, and one worker against two."""
    panel = load_panel(cache)
    config = RunConfig.from_dict({"costs": {"impact": "venue", "fee_tiers": True}})
    table = Table(title=f"{len(RAY_GRID['lookback_hours']) * 50:,} sets, seconds", title_justify="left")
    for heading in ("executor", "1 worker", "2 workers", "speed-up"):
        table.add_column(heading, justify="left" if heading == "executor" else "right")
    results = []
    for name, make in (("threads", Threads), ("ray", lambda workers: Ray(workers=workers))):
        taken = []
        for workers in (1, 2):
            seconds, sharpe = run(panel, config, make(workers))
            taken.append(seconds)
            results.append(sharpe)
        table.add_row(name, *(f"{value:.2f}" for value in taken), f"{taken[0] / taken[1]:.2f}")
    if not all(np.array_equal(results[0], other, equal_nan=True) for other in results):
        raise SystemExit("the executors do not agree to the bit")
    console.print(table, "Ray's seconds include starting it; all four agree to the bit.")


def run(panel, config: RunConfig, executor: Executor) -> tuple[float, np.ndarray]:  # type: ignore[no-untyped-def]
    started = time.perf_counter()
    study = sweep(panel, Momentum, RAY_GRID, config, executor=executor)
    return time.perf_counter() - started, study["sharpe"].to_numpy()


if __name__ == "__main__":
    from engine.data.cache import Store
    from engine.data.freqtrade import import_freqtrade

    with tempfile.TemporaryDirectory() as scratch:
        import_freqtrade(Store(Path(scratch) / "cache"), SHARED / "freqtrade")
        shown = Console()
        for figure in bench_sweeps(shown, Path(scratch) / "cache", Path(scratch)):
            shown.print(f"{figure.what}: {figure.median:.2f} s (limit {figure.limit:g})")
        cluster(shown, Path(scratch) / "cache")
        if "--million" in sys.argv:
            million(shown, Path(scratch) / "cache", Path(scratch) / "million")
