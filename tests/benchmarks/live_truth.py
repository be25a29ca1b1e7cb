"""How soon an extra cost of a live account is found, how often none is found to be one, and whether plans are replays.

    .venv/bin/python tests/benchmarks/live_truth.py [SEEDS] [DAYS]

A paper account trades the real months, laid end to end for a year, through the live executor. Its journal is then
changed for each seed: fills become dearer by noise and by the extra cost, equity falls by what they cost, and by noise
of its own. All charts look at each year as ``hlbt live status`` does.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

from engine import Panel, PaperDEX, RunConfig, load_panel
from engine.data.cache import Store
from engine.data.freqtrade import import_freqtrade
from engine.errors import IncompleteError
from engine.live.journal import Journal
from engine.monitoring.control_chart import cost_alarm
from engine.monitoring.fills import cost_days
from engine.monitoring.replay import plan_differences
from engine.simulation.backtest import decisions_of
from helpers.paper import trade_at
from helpers.shared_data import SHARED
from research.oracles.momentum import Momentum

ORACLE = Momentum(lookback_hours=24, n=4)
COINS = 20
Entries = list[dict[str, Any]]


def year_of(panel: Panel, days: int) -> Panel:
    """The last coins of the alphabet, old and new, their months laid end to end: each price goes on where it ended."""
    kept = np.arange(len(panel.coins) - COINS, len(panel.coins))
    hours = min(24 * days, 10**6)
    times = -(-hours // len(panel.index))
    fields = {}
    for name, values in panel.fields.items():
        part = values[:, kept]
        if name in ("funding", "volume_usd", "open_interest"):
            fields[name] = np.vstack([part] * times)[:hours]
        else:
            filled = pd.DataFrame(part).ffill().bfill().to_numpy()
            growth = filled[-1] / filled[0]
            fields[name] = np.vstack([part * growth**time for time in range(times)])[:hours]
    index = pd.date_range(panel.index[0], periods=hours, freq="h", unit="ms")
    coins, table = tuple(panel.coins[i] for i in kept), tuple(panel.table[i] for i in kept)
    tradable = np.vstack([panel.tradable[:, kept]] * times)[:hours]
    return Panel(index, coins, fields, tradable, tuple(replace(coin, delisted=None) for coin in table))


def journal_of(panel: Panel, config: RunConfig) -> Entries:
    """Every decision of the panel through the live executor on paper."""
    decisions = decisions_of(panel, config)[8:]
    dex, journal = PaperDEX(panel, config, start=decisions[0]), Journal()
    for decision in decisions:
        with suppress(IncompleteError):  # what has no quote in a hole of the data stays as it is
            trade_at(decision, ORACLE, dex, config, panel, journal)
    return journal.entries


def worse(entries: Entries, inside: np.ndarray, outside: np.ndarray) -> Entries:
    """The journal with costs in the fills, and outside of them, of each plan; basis points of equity."""
    orders = {order["cloid"]: order for entry in entries if entry["kind"] == "intent" for order in entry["orders"]}
    notional: dict[int, float] = {}
    plan = -1
    for entry in entries:
        plan += entry["kind"] == "plan"
        for result in entry.get("answers", ()):
            value = abs(result["units"]) * orders[result["cloid"]]["mid"]
            notional[plan] = notional.get(plan, 0.0) + value
    found: Entries = []
    plan, left, dearer = -1, 1.0, 0.0
    for entry in entries:
        changed = entry
        if entry["kind"] == "plan":
            plan += 1
            changed = {**entry, "equity_usd": entry["equity_usd"] * left}
            traded = notional.get(plan, 0.0)
            dearer = inside[plan] / 1e4 * changed["equity_usd"] / traded if traded else 0.0
            left *= 1.0 - (inside[plan] * (traded > 0.0) + outside[plan]) / 1e4
        elif "answers" in entry:
            answers = []
            for result in entry["answers"]:
                mid, side = orders[result["cloid"]]["mid"], np.sign(result["units"])
                answers.append({**result, "price": result["price"] + side * dearer * mid})
            changed = {**entry, "answers": answers}
        found.append(changed)
    return found


def charted(days: pd.DataFrame, inside: np.ndarray, outside: np.ndarray) -> pd.DataFrame:
    """What :func:`cost_days` makes of :func:`worse`, from the `days` of the journal itself; some seeds are compared."""
    traded = days["slippage_bps"].notna().to_numpy()
    lost = -1e4 * np.log1p(-(inside * traded + outside) / 1e4)
    slippage = days["slippage_bps"] + inside
    return days.assign(slippage_bps=slippage, account_bps=days["account_bps"] + np.append(np.nan, lost[:-1]))


def days_to(days: pd.DataFrame) -> float:
    """Days from the first trade to the alarm; infinite without one."""
    alarm = cost_alarm(days)
    return np.inf if alarm.crossed is None else (alarm.crossed - days.index[0]) / pd.Timedelta(days=1)


def normal(rng: np.random.Generator, count: int) -> np.ndarray:
    """Noise of variance 1."""
    return rng.standard_normal(count)


def heavy(rng: np.random.Generator, count: int) -> np.ndarray:
    """Noise of variance 1: Student's t of 4 degrees of freedom."""
    return rng.standard_t(4, count) / np.sqrt(2.0)


def main(seeds: int, length: int) -> None:
    """Print every figure."""
    config, began = RunConfig(), time.monotonic()
    with TemporaryDirectory() as folder:
        import_freqtrade(Store(Path(folder)), SHARED / "freqtrade" / "hyperliquid" / "futures")
        panel = year_of(load_panel(folder), length)
    entries = journal_of(panel, config)
    days = cost_days(entries, config, panel)
    plans = len(days)
    print(f"{panel}; {plans} plans in {time.monotonic() - began:.0f} s", flush=True)
    check = plan_differences(entries, panel, config, ORACLE)
    print(f"plan = replay: {check.instants_checked} made again, {len(check.differences)} false differences")
    apart = 0.0
    for seed in range(5):
        inside, outside = np.random.default_rng(seed).normal(2.0, 4.0, (2, plans))
        apart = max(
            apart,
            float(
                (cost_days(worse(entries, inside, outside), config, panel) - charted(days, inside, outside))
                .abs()
                .max()
                .max()
            ),
        )
    print(f"series by hand and of the changed journals are at most {apart:.2g} bps apart", flush=True)
    cases = [
        ("cost and noise in the fills", 5.0, 0.0, True),
        ("cost in the fills, noise in both", 3.0, 4.0, True),
        ("cost outside the fills, noise in both", 3.0, 4.0, False),
    ]
    for name, of_fills, of_account, in_fills in cases:
        for cost, most in ((5.0, 20), (2.0, 75)):
            found = []
            for seed in range(seeds):
                noise = normal(np.random.default_rng([seed, 1]), 2 * plans).reshape(2, -1)
                inside, outside = of_fills * noise[0] + cost * in_fills, of_account * noise[1] + cost * (not in_fills)
                found.append(days_to(charted(days, inside, outside)))
            low, middle, high = np.quantile(found, [0.1, 0.5, 0.9], method="nearest")
            text = f"{name}: {cost:g} bp a day found in {middle:.0f} days ({low:.0f} to {high:.0f}), wanted {most}"
            print(text, flush=True)
    years = 4 * seeds
    for name, of_fills, of_account, draw in (
        ("noise in the fills", 5.0, 0.0, normal),
        ("noise in both", 3.0, 4.0, normal),
        ("heavy tails in both", 3.0, 4.0, heavy),
    ):
        alarms = []
        for seed in range(years):
            noise = draw(np.random.default_rng([seed, 2]), 2 * plans).reshape(2, -1)
            alarms.append(np.isfinite(days_to(charted(days, of_fills * noise[0], of_account * noise[1]))))
        print(f"{name}: {np.mean(alarms):.1%} of {years} years of {plans} days alarm without a cost", flush=True)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(*(given + [200, 365][len(given) :]))
