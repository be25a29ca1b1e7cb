"""The risk model and the optimiser: a decision, a year of daily books, and books of a sweep; called by bench.py."""

from __future__ import annotations

import time
from statistics import median

import numpy as np
import pandas as pd
from bench_engine import job
from rich.console import Console

from engine import Panel
from engine.oracles.base import weight_matrix
from engine.risk.characteristics import RiskParameters
from engine.risk.model import RiskModel
from research.oracles import optimise
from research.oracles.momentum import Momentum
from research.oracles.optimise import Optimise

YEAR_SECONDS, DECISION_MS = 4.0, 8.0


def fresh(panel: Panel) -> Panel:
    """The same panel, of which nothing is kept."""
    return Panel(panel.index, panel.coins, dict(panel.fields), panel.tradable, panel.table)


def with_a_market(panel: Panel) -> Panel:
    """The job's prices with a common move and volumes, so that there is something to model."""
    rng = np.random.default_rng(1)
    common = np.cumsum(rng.normal(0.0, 0.005, (len(panel.index), 1)), axis=0)
    moved = {name: panel.values(name) * np.exp(common) for name in ("mid", "bid", "ask")}
    volume = rng.lognormal(12, 1, panel.tradable.shape)
    return Panel(panel.index, panel.coins, {**panel.fields, **moved, "volume_usd": volume}, panel.tradable, panel.table)


def main(console: Console) -> None:
    """Measure and print."""
    panel, decisions, _ = job()
    panel = with_a_market(panel)
    late = decisions[RiskParameters().warm_up_days :]
    fits, years, solved = [], [], []
    solve = optimise.BookProblem.solve

    def timed(problem: optimise.BookProblem) -> np.ndarray:
        start = time.perf_counter()
        made = solve(problem)
        solved.append(1e3 * (time.perf_counter() - start))
        return made

    optimise.BookProblem.solve = timed  # type: ignore[method-assign]
    for _ in range(3):
        own = fresh(panel)
        start = time.perf_counter()
        RiskModel.fit(own, decisions)
        fits.append(time.perf_counter() - start)
        own, start = fresh(panel), time.perf_counter()
        weights = weight_matrix(Optimise(Momentum(), cost_aversion=0.2), own, decisions)
        years.append(time.perf_counter() - start)
    optimise.BookProblem.solve = solve  # type: ignore[method-assign]
    _say(console, weights, late)
    console.print(f"Risk model of {len(decisions)} days x {len(panel.coins)} coins: {median(fits):.2f} s.")
    within = "ok" if median(solved) <= DECISION_MS else "OVER"
    console.print(f"A decision of the optimiser: {median(solved):.1f} ms (aim {DECISION_MS:g}) {within}.")
    within = "ok" if median(years) <= YEAR_SECONDS else "OVER"
    console.print(f"A year of optimised daily books, risk model included: {median(years):.2f} s (limit 4) {within}.")
    books = np.random.default_rng(2).normal(size=(1_000, len(decisions), len(panel.coins)))
    model, start = RiskModel.fit(panel, decisions), time.perf_counter()
    model.volatility(books)
    console.print(
        f"Expected volatility of 1,000 books, each of {len(decisions)} days: {time.perf_counter() - start:.2f} s."
    )


def _say(console: Console, weights: pd.DataFrame, late: pd.DatetimeIndex) -> None:
    book = weights.loc[late].fillna(0.0)
    held, turnover = (book != 0.0).sum(axis=1).median(), book.diff().abs().sum(axis=1).mean()
    console.print(f"The books hold {held:.0f} coins and trade {turnover:.2f} of equity a day.")


if __name__ == "__main__":
    main(Console())
