"""kill -9 at every step of a rebalance: the next run brings the book to its target, and no order is placed twice."""

from __future__ import annotations

from multiprocessing.context import ForkServerContext as Forks

import pandas as pd
import pytest

from helpers.effort import some
from helpers.hyperliquid_faults import assets_of, kind_of
from helpers.hyperliquid_world import MASTER
from helpers.live_world import Run, World

pytestmark = pytest.mark.slow

BEFORE = {"BTC": 0.4, "ETH": -0.4, "DOGE": 0.2}
#: A reduction, a flip and an opening: both phases, and a coin in both.
AFTER = {"BTC": 0.2, "ETH": 0.3, "DOGE": 0.2, "RLB": -0.2}
#: Entries of that rebalance, in their order.
STEPS = ["plan", "intent", "answers", "leverages_set", "intent", "answers", "done", "fills"]
#: After one entry is as before the next, but for what is done in between: that is for `make test-full`.
AFTER_ALL = range(len(STEPS)) if some(0, 1) else (1, 4, len(STEPS) - 1)
CASES = [(step, "before") for step in range(len(STEPS))] + [(step, "after") for step in AFTER_ALL]
CASES += [(step, when) for step, kind in enumerate(STEPS) if kind == "intent" for when in ("torn", "in flight")]
#: The same on two dexes, with a new coin of isolated margin; in the usual run what happens around it.
BEFORE_2 = {"BTC": 0.4, "ETH": -0.4, "xyz:TSLA": 0.2}
AFTER_2 = {"BTC": 0.2, "ETH": -0.4, "xyz:TSLA": -0.2, "xyz:NVDA": 0.2}
NVIDIA = 120_000
AROUND = [(STEPS.index("leverages_set"), "before"), (STEPS.index("leverages_set"), "after"), (4, "in flight")]
TWO_DEXES = AROUND if some(0, 1) == 0 else CASES


def command(world: World, row: dict[str, float]) -> list[str]:
    world.hurried = True  # orders of a process that was killed may never have been sent
    now = pd.Timestamp.now("UTC").floor("h") + pd.Timedelta(minutes=30)
    return world.rebalance(row, "--now", now.isoformat(), "--json", "--limit", "gross=1.02")


def test_the_steps_are_those_of_an_undisturbed_run(world: World, run: Run) -> None:
    assert run(command(world, BEFORE)).code == 0
    first = len(world.entries())
    assert run(command(world, AFTER)).code == 0
    assert [entry["kind"] for entry in world.entries()[first:]] == STEPS


@pytest.mark.parametrize(("step", "when"), CASES, ids=[f"{step}-{STEPS[step]}-{when}" for step, when in CASES])
def test_a_killed_rebalance_goes_on(world: World, run: Run, forks: Forks, step: int, when: str) -> None:
    killed_and_continued(world, run, forks, BEFORE, AFTER, step, when)


@pytest.mark.parametrize(("step", "when"), TWO_DEXES, ids=[f"{step}-{STEPS[step]}-{when}" for step, when in TWO_DEXES])
def test_a_killed_rebalance_of_two_dexes_goes_on(world: World, run: Run, forks: Forks, step: int, when: str) -> None:
    """A coin of isolated margin is new: its margin is set before its order, whether or not the journal had it."""
    world.open_dexes()
    killed_and_continued(world, run, forks, BEFORE_2, AFTER_2, step, when)
    assert world.server.account(MASTER.address).leverage["xyz:NVDA"] == (20, False)
    kinds = [
        kind
        for path, payload in world.server.requests
        if (kind := kind_of(path, payload)) and NVIDIA in assets_of(payload)
    ]
    assert kinds[0] == "updateLeverage" and kinds.count("updateLeverage") <= 2, kinds


def killed_and_continued(
    world: World,
    run: Run,
    forks: Forks,
    held_before: dict[str, float],
    wanted: dict[str, float],
    step: int,
    when: str,
) -> None:
    from helpers.live_kill import killed

    assert run(command(world, held_before)).code == 0
    first, closing = len(world.entries()), step == STEPS.index("intent")
    match = lambda payload: payload["action"]["orders"][0]["r"] == closing  # noqa: E731
    killed(forks, world.server, command(world, wanted), first + step, when, match)
    assert gross(world) <= 1.02
    done = run(command(world, wanted))
    assert done.code == 0, done.err + done.out
    held = world.weights_held()
    assert set(held) == set(wanted)
    for coin, weight in wanted.items():
        assert held[coin] == pytest.approx(weight, abs=0.003)
    assert gross(world) <= 1.02
    world.check()
    placed = {order.cloid for order in world.server.orders}
    sent = [order["c"] for payload in world.server.asked("order") for order in payload["action"]["orders"]]
    assert len(sent) == len(set(sent)) and placed <= set(sent)


def gross(world: World) -> float:
    return sum(abs(weight) for weight in world.weights_held().values())


def test_two_kills_in_a_row_and_a_changed_mind(world: World, run: Run, forks: Forks) -> None:
    """Killed after sending, killed again while asking, then flattened: each order has been asked for, once placed."""
    from helpers.live_kill import killed

    for step in (2, 3):
        killed(forks, world.server, command(world, AFTER), len(world.entries()) + step, "before")
    done = run(world.words("flatten", "book", "--execute"))
    assert done.code == 0, done.err
    assert world.server.positions(MASTER.address) == {}
    world.check()
