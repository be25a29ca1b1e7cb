"""The engine against vectorbt on the same job, and against the machine; called by bench.py.

The job: 8,760 hours x 150 coins, 365 daily rebalances of the 10 highest and 10 lowest of a score, fee 4.5 bps, a half
spread of its own for each coin. Parity is checked before anything is timed.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from engine import Coin, Panel, RunConfig, SparseWeights, backtest, backtest_many

HOURS, COINS, SIDE, BOOKS = 8_760, 150, 10, 1_000
PLAIN = RunConfig.from_dict(
    {
        "costs": {"taker_bps": 4.5, "funding": False},
        "execution": {"min_notional_usd": 0.0, "lots": False},
        "account": {"margin": False},
    }
)
EVERYTHING = RunConfig.from_dict({"costs": {"taker_bps": 4.5}})


def job(hours: int = HOURS, coins: int = COINS, seed: int = 0) -> tuple[Panel, pd.DatetimeIndex, np.ndarray]:
    """Panel, decisions and a slowly moving score, (D, N)."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2024-01-01", periods=hours, freq="h", tz="UTC")
    names = [f"C{number:03d}" for number in range(coins)]

    def frame(values: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(values, index=index, columns=names)

    mid = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.006, (hours, coins)), axis=0))
    half = rng.uniform(1e-4, 5e-4, coins)
    panel = Panel.from_frames(
        mid=frame(mid),
        bid=frame(mid * (1 - half)),
        ask=frame(mid * (1 + half)),
        funding=frame(rng.normal(1e-5, 3e-5, (hours, coins))),
        table=[Coin(name, sz_decimals=2, max_leverage=10.0) for name in names],
        synthetic=True,
    )
    decisions = index[index.hour == 23]
    return panel, decisions, rng.normal(size=(len(decisions), coins)).cumsum(axis=0)


def books(score: np.ndarray, count: int, seed: int = 1) -> np.ndarray:
    """Weights of `count` books, (P, D, N): top and bottom of the score with noise of their own."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((count, *score.shape))
    rows = np.arange(len(score))[:, None]
    for book in weights:
        order = np.argsort(score + rng.normal(0.0, 0.3, score.shape), axis=1)
        book[rows, order[:, -SIDE:]] = 0.5 / SIDE
        book[rows, order[:, :SIDE]] = -0.5 / SIDE
    return weights


def vectorbt_run(panel: Panel, decisions: pd.DatetimeIndex, weights: np.ndarray, engine: str) -> np.ndarray:
    """Equity of one book by vectorbt, as its users run this job."""
    import vectorbt

    mid = panel.frame("mid")
    targets = pd.DataFrame(np.nan, index=mid.index, columns=mid.columns)
    targets.loc[decisions] = weights
    half = (panel.values("ask") / panel.values("mid") - 1.0)[0]
    portfolio = vectorbt.Portfolio.from_orders(
        mid,
        size=targets,
        size_type="targetpercent",
        fees=4.5e-4,
        slippage=half[None, :],
        init_cash=10_000.0,
        cash_sharing=True,
        group_by=True,
        call_seq="auto",
        freq="1h",
        engine=engine,
    )
    return portfolio.value().to_numpy().ravel()


def main(console: Console) -> None:
    """Compare, then measure what grows with what."""
    panel, decisions, score = job()
    weights = books(score, BOOKS)
    sparse = SparseWeights.from_dense(weights)
    check(console, panel, decisions, weights)
    compare(console, panel, decisions, weights, sparse)
    hardware(console, sparse, panel, decisions)
    growth(console)
    starts(console)


def check(console: Console, panel: Panel, decisions: pd.DatetimeIndex, weights: np.ndarray) -> None:
    """Batch = single = vectorbt (by its own target percents, hence to 1e-4), or nothing is timed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = vectorbt_run(panel, decisions, weights[0], "rust")
    ours = backtest(panel, pd.DataFrame(weights[0], index=decisions, columns=list(panel.coins)), PLAIN)
    many = backtest_many(panel, weights[:3], decisions, PLAIN)
    gap = abs(theirs[-1] / ours.equity.iloc[-1] - 1.0)
    own = abs(many["equity_end_usd"].iloc[0] / ours.equity.iloc[-1] - 1.0)
    if gap > 1e-4 or own > 1e-10:
        raise SystemExit(
            f"end equity differs from vectorbt's by {gap:.1e}, from backtest()'s by {own:.1e}: nothing is timed"
        )
    console.print(f"Parity: end equity is vectorbt's (target percent) to {gap:.1e} and backtest()'s to {own:.1e}.")


def compare(
    console: Console, panel: Panel, decisions: pd.DatetimeIndex, weights: np.ndarray, sparse: SparseWeights
) -> None:
    """Milliseconds a book, all engines in this run, and the ratio to vectorbt's Rust engine."""
    times = {}
    for engine in ("rust", "numba"):
        vectorbt_run(panel, decisions, weights[0], engine)
        times[f"vectorbt {engine}"] = [seconds(vectorbt_run, panel, decisions, weights[n], engine) for n in range(3)]
    for name, form, config in (
        ("hlbt, sparse weights", sparse, PLAIN),
        ("hlbt, dense weights", weights, PLAIN),
        ("hlbt, sparse, funding + lots + minimum + margin", sparse, EVERYTHING),
        ("hlbt, dense, funding + lots + minimum + margin", weights, EVERYTHING),
    ):
        backtest_many(panel, form, decisions, config)
        times[name] = [seconds(backtest_many, panel, form, decisions, config) / BOOKS for _ in range(7)]
    frame = pd.DataFrame(weights[0], index=decisions, columns=list(panel.coins))
    backtest(panel, frame, EVERYTHING)
    times["hlbt, one backtest() with its frames"] = [seconds(backtest, panel, frame, EVERYTHING) for _ in range(7)]
    base = statistics.median(times["vectorbt rust"])
    table = Table(
        title=f"{HOURS:,} hours x {COINS} coins, {BOOKS:,} books, {os.cpu_count()} processors", title_justify="left"
    )
    for heading in ("engine", "ms a book", "min", "times vectorbt's Rust"):
        table.add_column(heading, justify="left" if heading == "engine" else "right")
    for name, taken in times.items():
        median = statistics.median(taken)
        table.add_row(name, f"{median * 1e3:.3f}", f"{min(taken) * 1e3:.3f}", f"{base / median:,.0f}")
    console.print(table)


def hardware(console: Console, sparse: SparseWeights, panel: Panel, decisions: pd.DatetimeIndex) -> None:
    """Share of what this machine's arithmetic and memory could do."""
    square = np.random.default_rng(0).normal(size=(2_000, 2_000))
    product = min(seconds(np.dot, square, square) for _ in range(5))
    block = np.zeros(32_000_000)
    target = np.empty_like(block)
    copy = min(seconds(np.copyto, target, block) for _ in range(5))
    flops, bandwidth = 2 * 2_000**3 / product, 2 * block.nbytes / copy
    taken = min(seconds(backtest_many, panel, sparse, decisions, PLAIN) for _ in range(5)) / BOOKS
    needed_flops = 2.0 * HOURS * 2 * SIDE
    needed_bytes = (sparse.coins.itemsize + 8) * len(sparse.coins) / BOOKS
    limit = max(needed_flops / flops, needed_bytes / bandwidth)
    console.print(
        f"The machine: matrix product {flops / 1e9:.0f} GFLOP/s, copy {bandwidth / 1e9:.1f} GB/s. A book of "
        f"{2 * SIDE} coins needs "
        f"{needed_flops / 1e6:.2f} MFLOP and reads {needed_bytes / 1e6:.2f} MB of weights: {limit * 1e3:.4f} ms at "
        "the limit, "
        f"{limit / taken:.0%} of the {taken * 1e3:.3f} ms taken. Between them stand the orders (some 25 a day, each "
        "with seven loads from the day's and the book's rows, a cut to lots and a few sums), what a day of a book "
        "costs at all, and the preparation of the panel."
    )


def growth(console: Console) -> None:
    """Time and peak memory by books and coins, each in a process of its own; chunks of 1,000 sparse books."""
    table = Table(title="Sparse books in chunks of 1,000, funding + lots + minimum + margin", title_justify="left")
    for heading in ("books", "coins", "seconds", "ms a book", "peak MB"):
        table.add_column(heading, justify="right")
    for coins in (50, 150, 300):
        for count in (100, 1_000, 10_000, 100_000):
            done = subprocess.run(
                [sys.executable, __file__, str(count), str(coins)], capture_output=True, text=True, check=True
            )
            found = json.loads(done.stdout)
            row = (f"{count:,}", str(coins), f"{found['seconds']:.2f}", f"{found['seconds'] / count * 1e3:.3f}")
            table.add_row(*row, f"{found['peak_mb']:.0f}")
    console.print(table)


def one_growth(count: int, coins: int) -> None:
    """Child of `growth`: print seconds and peak memory as JSON."""
    panel, decisions, score = job(coins=coins)
    chunk = SparseWeights.from_dense(books(score, min(count, 200)))
    backtest_many(panel, chunk, decisions, EVERYTHING)
    size = min(count, 200)

    def chunks() -> Iterator[SparseWeights]:
        for _ in range(count // size):
            yield chunk

    taken = seconds(backtest_many, panel, chunks(), decisions, EVERYTHING)
    # Not ru_maxrss: a child starts with its parent's.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = float(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]
    sys.stdout.write(json.dumps({"seconds": taken, "peak_mb": peak}))


def starts(console: Console) -> None:
    """First call after installation (machine code is made) and first call of a later process (it is read)."""
    code = (
        "import time, sys; sys.path.insert(0, sys.argv[1]); import bench_engine as b; p, d, s = b.job(hours=500, "
        "coins=10)\n"
        "import pandas as pd; w = b.books(s, 2); f = pd.DataFrame(w[0], index=d, columns=list(p.coins))\n"
        "t = time.perf_counter(); b.backtest(p, f); m = time.perf_counter(); b.backtest_many(p, w, d)\n"
        "print(m - t, time.perf_counter() - m)"
    )
    with tempfile.TemporaryDirectory() as cache:
        for name in ("after installation (compiled)", "in a new process (from numba's cache)"):
            done = subprocess.run(
                [sys.executable, "-c", code, str(Path(__file__).parent)],
                env={**os.environ, "NUMBA_CACHE_DIR": cache},
                capture_output=True,
                text=True,
                check=True,
            )
            one, many = (float(text) for text in done.stdout.split())
            console.print(f"First call {name}: backtest {one:.2f} s, backtest_many {many:.2f} s.")


def seconds(work: object, *arguments: object) -> float:
    start = time.perf_counter()
    work(*arguments)  # type: ignore[operator]
    return time.perf_counter() - start


if __name__ == "__main__":
    one_growth(int(sys.argv[1]), int(sys.argv[2]))
