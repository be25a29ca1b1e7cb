"""An order that nobody has seen is void when two clocks say so: the exchange's, and this machine's own."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from engine import PaperDEX
from engine.live import boot_clock
from engine.live.hyperliquid import HyperLiquidDEX
from engine.live.journal import Journal, SentOrder
from engine.live.orders import OrderRequest, Policy
from engine.live.reconcile import Reconciler
from helpers.live_world import Run, World, near
from helpers.panels import random_panel

ORDER = OrderRequest("0x1", "BTC", 1.0, 100.0, False)


class Clocked(PaperDEX):
    """An exchange whose clock stands at 1,000 s."""

    def clock_ms(self) -> int:
        return 1_000_000


@pytest.mark.parametrize(
    ("expires_ms", "boot", "sent_at", "expected"),
    [
        (990_000, "", 70.0, 12.0),  # of an earlier release: 1.2 expiries from the start of the run, 100 s
        (990_000, "another", 1.0, 12.0),  # before a reboot
        (990_000, "this", 95.0, 7.0),  # 5 s ago by this machine
        (990_000, "this", 80.0, -8.0),  # void by both
        (1_001_000, "this", 80.0, 3.0),  # void by this machine, not by the exchange
        (990_000, "this", 101.0, 12.0),  # sent after now: not the same clock
    ],
)
def test_void_needs_both_clocks(expires_ms: int, boot: str, sent_at: float, expected: float) -> None:
    boot = boot_clock.boot_id() if boot == "this" else boot
    sent = SentOrder(ORDER, pd.Timestamp(0, tz="UTC"), expires_ms, 10.0, boot, sent_at)
    reconciler = Reconciler(Clocked(random_panel(2, 48, 1)), Journal(), Policy(), boot_clock=lambda: 100.0)
    assert reconciler.seconds_to_void(sent) == pytest.approx(expected)
    if not sent.boot_id:
        assert reconciler.seconds_to_void(replace(sent, expires_seconds=None)) == pytest.approx(18.0)


def test_the_boot_clock_is_that_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    first = boot_clock.boot_seconds()
    assert 0.0 < first <= boot_clock.boot_seconds() < first + 60.0
    monkeypatch.setattr(boot_clock, "_BOOT_ID", boot_clock._BOOT_ID / "missing")
    names = [boot_clock.boot_id.__wrapped__() for _ in range(2)]
    assert names[0] != names[1] and all(name.startswith("process-") for name in names)


@pytest.mark.slow
def test_dates_that_jump_ahead_void_no_order_that_is_slow(world: World, run: Run) -> None:
    """The order is under way until it is asked for again, and every answer meanwhile is dated 600 s ahead."""
    world.hurried = True
    world.server.when("orderStatus", world.server.inject("late", on="order").arrive, nth=2)
    send = HyperLiquidDEX.send

    def jumping(self: HyperLiquidDEX, orders: object, expires_ms: int) -> object:
        results = send(self, orders, expires_ms)  # type: ignore[arg-type]
        world.server.date_offset_seconds = 600.0
        return results

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HyperLiquidDEX, "send", jumping)
        done = run([*world.rebalance({"BTC": 0.5}), "--expires-seconds", "60"])
    assert len(world.server.asked("order")) == 1 and done.code == 0, done.err
    near(world, {"BTC": 0.5})
    intent = world.last("intent")
    assert intent["boot_id"] == boot_clock.boot_id() and 0.0 < intent["boot_seconds"] <= boot_clock.boot_seconds()
    assert intent["expires_seconds"] == 60.0
    world.check()


@pytest.mark.slow
@pytest.mark.parametrize("rebooted", [False, True])
def test_dates_that_are_ahead_void_no_order_of_a_killed_process(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch, rebooted: bool
) -> None:
    world.hurried = True
    words = [*world.rebalance({"BTC": 0.5}, "--limit", "clock_error_seconds=none"), "--expires-seconds", "60"]
    world.server.when("orderStatus", world.server.inject("late", on="order").arrive, nth=2)

    def dying(self: HyperLiquidDEX, orders: object, expires_ms: int) -> object:
        send(self, orders, expires_ms)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    send = HyperLiquidDEX.send
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HyperLiquidDEX, "send", dying)
        assert run(words).code == 130
    world.server.date_offset_seconds = 600.0
    if rebooted:
        monkeypatch.setattr("engine.live.reconcile.boot_id", lambda: "another")
    done = run(words)
    assert len(world.server.asked("order")) == 1 and done.code == 0, done.err
    near(world, {"BTC": 0.5})
    world.check()


@pytest.mark.slow
def test_dates_that_jump_ahead_give_no_order_more_time(world: World, run: Run) -> None:
    """Between plan and order: void by both clocks after 3.6 s, it would have arrived with ten minutes left."""
    world.hurried = True
    append = Journal.append

    def jumping(self: Journal, kind: str, time: pd.Timestamp, **fields: object) -> None:
        append(self, kind, time, **fields)
        if kind == "plan":
            world.server.date_offset_seconds = 600.0

    late = world.server.inject("late", on="order")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "append", jumping)
        assert run([*world.rebalance({"BTC": 0.5}), "--expires-seconds", "3"]).code == 0
    late.arrive()  # the first order, after the second
    assert len(world.server.asked("order")) == 2
    near(world, {"BTC": 0.5})
    world.check()
