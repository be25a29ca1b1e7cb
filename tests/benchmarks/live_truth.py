"""How soon an extra cost of a live account is found, how often none is found to be one, and whether plans are replays.

    .venv/bin/python tests/benchmarks/live_truth.py [SEEDS] [DAYS] [PART]

PART is 1 for what is found, 2 for false alarms; both without it.

A paper account trades the real months, laid end to end for a year, through the live executor. Its journal is then
changed for each seed: fills become dearer by noise and by the extra cost, equity falls by what they cost, and by noise
of its own. All charts look at each journal as ``hlbt live status`` does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

from engine import Panel, PaperDEX, PortfolioManager, RunConfig, load_panel
from engine.data.cache import Store
from engine.data.freqtrade import import_freqtrade
from engine.errors import IncompleteError
from engine.live.journal import Journal
from engine.live.orders import Policy
from engine.live.risk_limits import Limits
from engine.monitoring.control_chart import cost_alarm
from engine.monitoring.fills import cost_days
from engine.monitoring.replay import plan_differences
from engine.simulation.backtest import decisions_of
from helpers.shared_data import SHARED
from research.oracles.momentum import Momentum

ORACLE = Momentum(lookback_hours=168, n=4)
COINS = 20
Entries = list[dict[str, Any]]


def year_of(panel: Panel, days: int) -> Panel:
    """The most traded coins, their months laid end to end: each price goes on where it ended."""
    volume = np.nan_to_num(panel.values("volume_usd")).sum(axis=0)
    whole = np.isfinite(panel.values("mid")).mean(axis=0) > 0.99
    kept = np.sort(np.argsort(np.where(whole, volume, -1.0))[-COINS:])
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
        dex.advance(decision)
        manager = PortfolioManager(
            ORACLE,
            dex,
            config,
            panel=panel,
            limits=Limits.none(),
            policy=Policy(slippage_frac=0.99),
            journal=journal,
        )
        with suppress(IncompleteError):  # what has no quote in a hole of the data stays as it is
            manager.manage_portfolio(decision)
    return journal.entries


def worse(
    entries: Entries,
    rng: np.random.Generator,
    in_fills: float,
    outside: float,
    cost_in_fills: float,
    cost_outside: float,
    draw: Callable[[np.random.Generator], float],
) -> Entries:
    """The journal with costs a day, basis points of equity: noise of the two standard deviations, and an extra cost."""
    notional: dict[str, float] = {}
    orders = {order["cloid"]: order for entry in entries if entry["kind"] == "intent" for order in entry["orders"]}
    for entry in entries:
        if entry["kind"] == "answers":
            for result in entry["answers"]:
                instant = entry_instant(entry)
                notional[instant] = notional.get(instant, 0.0) + abs(result["units"]) * orders[result["cloid"]]["mid"]
    found: Entries = []
    lost, dearer = 0.0, 0.0
    for entry in entries:
        changed = entry
        if entry["kind"] == "plan":
            changed = {**entry, "equity_usd": entry["equity_usd"] - lost}
            equity, traded = entry["equity_usd"], notional.get(entry["instant"], 0.0)
            paid = (cost_in_fills + in_fills * draw(rng)) / 1e4 * equity if traded else 0.0
            dearer = paid / traded if traded else 0.0
            lost += paid + (cost_outside + outside * draw(rng)) / 1e4 * equity
        elif entry["kind"] == "answers":
            answers = []
            for result in entry["answers"]:
                mid, side = orders[result["cloid"]]["mid"], np.sign(result["units"])
                answers.append({**result, "price": result["price"] + side * dearer * mid})
            changed = {**entry, "answers": answers}
        found.append(changed)
    return found


def entry_instant(entry: dict[str, Any]) -> str:
    """The trade instant of an entry of answers: on paper its own time, to the second."""
    return pd.Timestamp(entry["time"]).floor("h").isoformat()


def normal(rng: np.random.Generator) -> float:
    return float(rng.standard_normal())


def heavy(rng: np.random.Generator) -> float:
    """Student's t of 4 degrees of freedom, of variance 1."""
    return float(rng.standard_t(4) / np.sqrt(2.0))


def days_to(entries: Entries, config: RunConfig, panel: Panel) -> float:
    """Days from the first trade to the alarm; infinite without one."""
    alarm = cost_alarm(cost_days(entries, config, panel))
    first = pd.Timestamp(entries[0]["instant"])
    return np.inf if alarm.crossed is None else (alarm.crossed - first) / pd.Timedelta(days=1)


def main(seeds: int, days: int, part: int) -> None:
    config, began = RunConfig(), time.monotonic()
    with TemporaryDirectory() as folder:
        import_freqtrade(Store(Path(folder)), SHARED / "freqtrade" / "hyperliquid" / "futures")
        panel = year_of(load_panel(folder), days)
    entries = journal_of(panel, config)
    plans = sum(entry["kind"] == "plan" for entry in entries)
    print(f"{panel}; {plans} plans in {time.monotonic() - began:.0f} s")
    check = plan_differences(entries, panel, config, ORACLE)
    print(f"plan = replay: {check.instants_checked} made again, {len(check.differences)} false differences")
    cases = [
        ("cost and noise in the fills", 5.0, 0.0, True),
        ("cost in the fills, noise in both", 3.0, 4.0, True),
        ("cost outside the fills, noise in both", 3.0, 4.0, False),
    ]
    for name, inside, outside, in_fills in cases if part != 2 else []:
        for cost, most in ((5.0, 20), (2.0, 75)):
            cut = [entry for entry in entries if entry["n"] <= _end(entries, 3 * most)]
            found = [
                days_to(
                    worse(
                        cut,
                        np.random.default_rng([seed, 1]),
                        inside,
                        outside,
                        cost * in_fills,
                        cost * (not in_fills),
                        normal,
                    ),
                    config,
                    panel.until(pd.Timestamp(max(entry["instant"] for entry in cut if entry["kind"] == "plan"))),
                )
                for seed in range(seeds)
            ]
            low, middle, high = np.quantile(found, [0.1, 0.5, 0.9], method="nearest")
            print(
                f"{name}: {cost:g} bp a day found in {middle:.0f} days ({low:.0f} to {high:.0f}), wanted {most}",
                flush=True,
            )
    for name, inside, outside, draw in (
        ("noise in the fills", 5.0, 0.0, normal),
        ("noise in both", 3.0, 4.0, normal),
        ("heavy tails in both", 3.0, 4.0, heavy),
    )[3 * (part == 1) :]:
        alarms = [
            np.isfinite(
                days_to(
                    worse(entries, np.random.default_rng([seed, 2]), inside, outside, 0.0, 0.0, draw), config, panel
                )
            )
            for seed in range(seeds)
        ]
        print(f"{name}: {np.mean(alarms):.1%} of {seeds} years of {plans} days alarm without a cost", flush=True)
    print(f"{time.monotonic() - began:.0f} s")


def _end(entries: Entries, days: int) -> int:
    """Number of the last entry of the first `days` plans."""
    plans = [entry["n"] for entry in entries if entry["kind"] == "plan"]
    return plans[days] - 1 if days < len(plans) else entries[-1]["n"]


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(*(given + [200, 365, 0][len(given) :]))
