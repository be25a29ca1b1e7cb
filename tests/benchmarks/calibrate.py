"""How often the verdict errs: sweeps without any edge and with planted ones, judged as a user's are.

`make calibrate` runs all of it, resumes what was interrupted, and writes docs/developing/calibration.md. A unit of work
is ten sweeps of one source and length, each judged with both grids; its file is written whole or not at all, in a
folder that is named by the code of the engine, so that no figure of other code is mixed in.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # a process a core; threads of their own would only wait for one another

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engine.atomic_io import write_durable
from engine.provenance import code_digest, files_digest
from helpers import calibration
from helpers.calibration import EDGES, NOISES, judged, true_sharpes

DAYS = (180, 365, 730, 1_095)
SWEEPS, STEP, YEARS, LONG_PANELS = 100, 10, 14, 2
GRIDS = ("homogeneous", "padded")
PAGE = ROOT / "docs" / "developing" / "calibration.md"
#: (source, days, first sweep) -> file
Unit = tuple[str, int, int]


def work(unit: Unit, sweeps: int, path: Path) -> float:
    """One unit; days 0 measure the true Sharpe ratio. Returns the seconds it took."""
    source, days, first = unit
    began = time.perf_counter()
    if days:
        rows: list[Any] = [judged(source, days, seed) for seed in range(first, min(first + STEP, sweeps))]
    else:
        rows = [true_sharpes(source, YEARS, 10_000 + number) for number in range(LONG_PANELS)]
    write_durable(path, json.dumps(rows).encode())
    return time.perf_counter() - began


def units(sweeps: int, sources: list[str], days: list[int]) -> list[Unit]:
    """All units, the longest first, so that no core waits at the end."""
    truths = [(source, 0, 0) for source in sources if source in EDGES]
    return truths + [
        (source, length, first)
        for length in sorted(days, reverse=True)
        for source in sources
        for first in range(0, sweeps, STEP)
    ]


def run(folder: Path, todo: list[Unit], sweeps: int, jobs: int) -> dict[Unit, list[Any]]:
    """Run what has no file yet; the rows of every unit."""
    paths = {unit: folder / f"{unit[0].replace(' ', '-')}-{unit[1]}-{unit[2]}-{sweeps}.json" for unit in todo}
    missing = [unit for unit in todo if not paths[unit].is_file()]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar,
        # no `max_tasks_per_child`: with all units submitted at once the pool stops for good at the first new worker
        ProcessPoolExecutor(jobs) as pool,
    ):
        task = bar.add_task("calibrating", total=len(todo), completed=len(todo) - len(missing))
        waiting: dict[Future[float], Unit] = {pool.submit(work, unit, sweeps, paths[unit]): unit for unit in missing}
        while waiting:
            for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                source, days, _ = waiting.pop(done)
                done.result()
                bar.update(task, advance=1, description=f"{source}, {days} days")
    return {unit: json.loads(path.read_text(encoding="utf-8")) for unit, path in paths.items()}


def cell(results: dict[Unit, list[Any]], source: str, days: int, grid: str) -> list[dict[str, Any]]:
    """Verdicts of a cell."""
    return [row[grid] for unit, rows in results.items() if unit[:2] == (source, days) for row in rows]


def share(rows: list[dict[str, Any]], *names: str) -> float:
    """Part of the verdicts that pass: all checks, or the named ones."""
    passed = [row["passed"] if not names else all(row["checks"][name] for name in names) for row in rows]
    return sum(passed) / len(passed)


def page(results: dict[Unit, list[Any]], sweeps: int, sources: list[str], days: list[int]) -> str:
    """The page of docs."""
    head = "| source | best / median set | grid | " + " | ".join(f"{length:,} days" for length in days) + " |"
    lines = [head, "| --- | --- | --- |" + " --- |" * len(days)]
    for source in sources:
        truth = results.get((source, 0, 0))
        sharpe = " / ".join(f"{sum(each) / len(truth):.1f}" for each in zip(*truth, strict=True)) if truth else "noise"
        for grid in GRIDS:
            figures = []
            for length in days:
                rows = cell(results, source, length, grid)
                figures.append(f"{share(rows):.2f} / {share(rows, 'familywise'):.2f}")
            lines.append(f"| {source} | {sharpe} | {grid} | {' | '.join(figures)} |")
    noise = [
        row
        for source in sources
        if source in NOISES
        for length in days
        for grid in GRIDS
        for row in cell(results, source, length, grid)
    ]
    noisy = f"Of {len(noise):,} verdicts on noise {100 * share(noise):.1f} % pass." if noise else ""
    lost = {name: 0 for name in next(iter(cell(results, sources[0], days[0], GRIDS[0])))["checks"]}
    for source in sources:
        if source in EDGES:
            for length in days:
                for row in (row for grid in GRIDS for row in cell(results, source, length, grid)):
                    failed = [name for name, passed in row["checks"].items() if not passed]
                    if row["checks"]["familywise"] and len(failed) == 1:
                        lost[failed[0]] += 1
    gaps = [
        (share(rows, "familywise") - share(rows), f"{source}, {length:,} days, {grid}")
        for source in sources
        if source in EDGES
        for length in days
        for grid in GRIDS
        for rows in [cell(results, source, length, grid)]
    ]
    mean, (worst, where) = sum(gap for gap, _ in gaps) / max(len(gaps), 1), max(gaps, default=(0.0, "none"))
    alone = ", ".join(f"{name} {count}" for name, count in sorted(lost.items(), key=lambda item: -item[1]) if count)
    return (
        PREFACE.format(sweeps=sweeps)
        + "\n".join(lines)
        + f"\n\n{noisy}\n\nOf edges that the familywise test sees the other checks refuse, in points of 100, "
        + f"{100 * mean:.1f} on\naverage over the cells, {100 * worst:.0f} in the worst ({where}).\n"
        + (f"Edges that the familywise test sees and one other check alone refuses, by check:\n{alone or 'none'}.\n")
    )


PREFACE = """# How often the verdict errs
Measured by `make calibrate` (`tests/benchmarks/calibrate.py`, resumable): {sweeps} sweeps a cell over made-up
hourly markets of 20 coins, each through `sweep()` and the verdict with the installed thresholds and default
costs. An edge is a drift of each coin that lasts 20 days, found by momentum; its true Sharpe ratio is measured
on 14 years. Noise is of three kinds: scores drawn at random, momentum of other coins, momentum after the days
were shuffled. The homogeneous grid holds 50 sets that all find the drift; the padded one 50 more that lose.
Each verdict takes 199 books with exchanged coins, and every seventh move in time, where `hlbt validate` takes
1,000, and every move.

Each cell: part of the sweeps that pass the whole verdict / the familywise test alone.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=SWEEPS, help="a cell")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--source", action="append", choices=[*EDGES, *NOISES], help="default: all")
    parser.add_argument("--days", action="append", type=int, help="default: 180, 365, 730, 1095")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / ".calibration")
    parser.add_argument("--print", action="store_true", help="print the page instead of writing it to docs")
    options = parser.parse_args()
    sources, days = options.source or [*EDGES, *NOISES], options.days or list(DAYS)
    own = files_digest([Path(calibration.__file__), ROOT / "research" / "gates.toml"])
    folder = options.out / f"{code_digest()[:12]}-{own[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    text = page(
        run(folder, units(options.sweeps, sources, days), options.sweeps, options.jobs), options.sweeps, sources, days
    )
    if options.print or options.sweeps != SWEEPS or options.source or options.days:
        print(text)
    else:
        PAGE.write_text(text, encoding="utf-8")
        print(f"Written: {PAGE}")


if __name__ == "__main__":
    main()
