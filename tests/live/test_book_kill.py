"""kill -9 while a book of two specs trades: the next run goes on, and the sub-ledgers are whole from the journal."""

from __future__ import annotations

import json
import math
from multiprocessing.context import ForkServerContext as Forks
from pathlib import Path

import pandas as pd
import pytest

from engine.live.risk_limits import Limits
from engine.live.subledger import UNASSIGNED, SubLedgers, sub_ledgers
from helpers.effort import some
from helpers.hyperliquid_world import MASTER
from helpers.live_world import Run, World, spec_file

pytestmark = pytest.mark.slow

ORACLE = """
import json
from pathlib import Path

from engine import Oracle


class FromFile(Oracle):
    def __init__(self, file=""):
        self.file = file

    def fetch_portfolio_weights(self, timestamp, tradable_universe):
        return json.loads(Path(self.file).read_text())
"""
BEFORE = {"one": {"BTC": 0.6, "ETH": -0.4, "DOGE": 0.4}, "two": {"BTC": 0.2, "ETH": -0.4}}
#: They cross in BTC; together a reduction, a flip and an opening.
AFTER = {"one": {"BTC": 0.8, "ETH": 0.2, "DOGE": 0.4}, "two": {"BTC": -0.4, "ETH": 0.4, "RLB": -0.4}}
NET = {"BTC": 0.2, "ETH": 0.3, "DOGE": 0.2, "RLB": -0.2}
#: Entries of the second rebalance, in their order.
STEPS = ["plan", "intent", "answers", "leverages_set", "intent", "answers", "done", "fills"]
CASES = [("plan", "before"), ("plan", "after"), ("intent", "torn"), ("intent", "in flight"), ("answers", "before")]
CASES += [("intent", "after"), ("answers", "after"), ("done", "before"), ("done", "after"), ("fills", "before")]


def want(world: World, weights: dict[str, dict[str, float]]) -> None:
    for name, row in weights.items():
        (world.folder / f"{name}-weights.json").write_text(json.dumps(row))


def book_file(world: World) -> Path:
    (world.folder / "from_file.py").write_text(ORACLE)
    for name in BEFORE:
        parameters = {"file": str(world.folder / f"{name}-weights.json")}
        oracle = f"{world.folder / 'from_file.py'}:FromFile"
        spec_file(
            world.folder,
            world.folder / "no-cache",
            name,
            oracle,
            parameters,
            Limits.of(2.0),
            account={"max_gross": 2.0},
        )
    path = world.folder / "pair.toml"
    rows = "".join(f'[[spec]]\nname = "{name}"\nshare = 0.5\n' for name in BEFORE)
    path.write_text(f"[book.limits]\ngross = 1.02\n{rows}")
    return path


def command(world: World, path: Path) -> list[str]:
    world.hurried = True  # orders of a process that was killed may never have been sent
    now = pd.Timestamp.now("UTC").floor("h") + pd.Timedelta(minutes=30)
    return world.words("run", path, "--execute", "--no-sync", "--now", now.isoformat(), "--json")


def whole(world: World) -> SubLedgers:
    """The sub-ledgers of the journal, which add up to the account."""
    entries = world.entries()
    ledgers = sub_ledgers(entries)
    held = {coin: units for coin in ledgers.coins if abs(units := ledgers.units(coin)) > 1e-12}
    assert held == pytest.approx(world.positions, rel=1e-9)
    equity = [entry for entry in entries if entry["kind"] == "done"][-1]["equity_usd"]
    assert math.fsum(own.equity_usd for own in ledgers.specs.values()) == pytest.approx(equity, rel=1e-9)
    assert ledgers.specs[UNASSIGNED].units == {} and abs(ledgers.specs[UNASSIGNED].equity_usd) < 1e-6
    return ledgers


@pytest.mark.parametrize(("kind", "when"), CASES if some(0, 1) else CASES[1:5:2])
def test_a_killed_book_goes_on_and_each_spec_has_its_own(
    world: World, run: Run, forks: Forks, kind: str, when: str
) -> None:
    from helpers.live_kill import killed

    path = book_file(world)
    want(world, BEFORE)
    assert run(command(world, path)).code == 0
    before, first = whole(world), len(world.entries())
    for name, row in BEFORE.items():
        assert weights_of(before, name) == pytest.approx(row, abs=0.006)
    want(world, AFTER)
    killed(forks, world.server, command(world, path), first + STEPS.index(kind), when)
    done = run(command(world, path))
    assert done.code == 0, done.err + done.out
    ledgers = whole(world)
    assert {c: w for c, w in world.weights_held().items() if abs(w) > 0.003} == pytest.approx(NET, abs=0.003)
    for name, row in AFTER.items():
        assert weights_of(ledgers, name) == pytest.approx(row, abs=0.006)
    crossed = {name: own.crossed_usd for name, own in ledgers.specs.items() if name != UNASSIGNED}
    equity = world.server.equity(MASTER.address)
    assert crossed == pytest.approx({"one": 0.1 * equity, "two": 0.1 * equity}, rel=0.02)
    world.check()


def weights_of(ledgers: SubLedgers, name: str) -> dict[str, float]:
    own = ledgers.specs[name]
    return {coin: units * ledgers.marks[coin] / own.equity_usd for coin, units in own.units.items()}
