"""What cost money elsewhere: each a way in which a live run could be wrong while it says that all is well."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from engine.live.hyperliquid import HyperLiquidDEX
from engine.live.journal import Journal
from engine.live.state_folder import account_folder, single_instance
from engine.retries import RetryPolicy
from helpers.hyperliquid_world import AGENT, MASTER
from helpers.live_world import Outcome, Run, World, daily, momentum_spec
from helpers.project import ROOT

pytestmark = pytest.mark.slow

NOW = pd.Timestamp("2025-06-01T22:59:30Z")


# Whose money ----------------------------------------------------------------------------------------------------------


def test_an_agents_key_without_its_master_is_no_empty_book(world: World, run: Run) -> None:
    """The agent's own account has no money: nothing is ordered, which must not be called the target."""
    world.server.approve_agent(MASTER.address, AGENT.address)
    world.credentials.write_text(json.dumps({"secret_key": "22" * 32}))
    done = run(world.rebalance({"BTC": 0.5}))
    assert done.code == 3 and "account_address" in done.err and not world.server.asked("order")


def test_a_time_of_ones_own_never_trades_real_money(world: World, run: Run) -> None:
    """An hour in the past would also be outside of the day over which a loss is measured."""
    words = world.rebalance({"BTC": 0.5}, "--network", "mainnet", "--yes-mainnet", "--now", "2026-01-01T22:59Z")
    done = run(words)
    assert done.code == 1 and "--now" in done.err and not world.server.asked("order")
    words.remove("--execute")
    assert run(words).code == 0


@pytest.mark.parametrize("kind", ["not_json", "bad_gateway"])
def test_a_question_that_only_warns_stops_no_flattening(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("engine.live.hyperliquid.PATIENCE", RetryPolicy((0.02,), (), 60.0))
    world.server.approve_agent(MASTER.address, AGENT.address)
    world.credentials.write_text(json.dumps({"secret_key": "22" * 32, "account_address": MASTER.address}))
    assert run(world.rebalance({"BTC": 0.5})).code == 0
    world.server.inject(kind, on="extraAgents", times=99)
    done = run(world.words("flatten", "book", "--execute"))
    assert done.code == 0 and "extraAgents" in done.out and world.positions == {}


# At target? -----------------------------------------------------------------------------------------------------------


def test_a_position_that_was_taken_away_is_not_at_its_target(world: World, run: Run) -> None:
    """Deleveraged to nothing between the plan and a reduction: the reduction is refused, and the book lacks a leg."""
    assert run(world.rebalance({"BTC": 0.6, "ETH": -0.2})).code == 0
    send = HyperLiquidDEX.send

    def deleveraged(self: HyperLiquidDEX, orders: object, expires_ms: int) -> object:
        if "BTC" in world.positions:
            world.server.deleverage(MASTER.address, "BTC")
        return send(self, orders, expires_ms)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HyperLiquidDEX, "send", deleveraged)
        done = run(world.rebalance({"BTC": 0.3, "ETH": -0.2}, "--json"))
    assert done.code == 4 and [item["coin"] for item in done.json["missing"]] == ["BTC"]
    assert not world.last("done")["complete"]
    assert run(world.rebalance({"BTC": 0.3, "ETH": -0.2}, "--accept-positions")).code == 0
    assert world.weights_held() == pytest.approx({"BTC": 0.3, "ETH": -0.2}, abs=0.003)


def test_a_flattening_that_leaves_a_position_says_so(world: World, run: Run) -> None:
    assert run(world.rebalance({"BTC": 0.5, "ETH": 0.2})).code == 0
    world.server.set_book("ETH")  # nobody quotes it: there is no mid
    done = run(world.words("flatten", "book", "--execute", "--json"))
    assert done.code == 4 and [item["coin"] for item in done.json["missing"]] == ["ETH"] and "ETH" in done.err
    assert set(world.positions) == {"ETH"}
    world.server.set_book("ETH", bid=3999, ask=4001)
    assert run(world.words("flatten", "book", "--execute")).code == 0 and world.positions == {}


# Limits ---------------------------------------------------------------------------------------------------------------


def test_a_loss_that_stopped_a_run_is_remembered_the_next_day(world: World, run: Run) -> None:
    """The refused look is the record that the next day is measured against: else a second fall would pass."""
    world.stop_clock()

    def rebalance() -> Outcome:
        now = pd.Timestamp(world.server.now, unit="ms", tz="UTC").isoformat()
        return run(world.rebalance({"BTC": 0.5}, "--now", now, "--limit", "equity_change_frac=none"))

    assert rebalance().code == 0
    for _ in range(2):
        world.server.advance(24)
        world.server.fund(MASTER.address, -2_000)
        assert rebalance().code == 3
    world.server.advance(24)
    assert rebalance().code == 0  # no further fall
    world.check()


def interrupted(world: World, run: Run, row: dict[str, float]) -> None:
    """A run that ends, as by kill -9, once its plan is in the journal."""
    append = Journal.append

    def dying(self: Journal, kind: str, time: pd.Timestamp, **fields: object) -> None:
        if kind == "intent":
            raise KeyboardInterrupt
        append(self, kind, time, **fields)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "append", dying)
        assert run(world.rebalance(row)).code == 130
    assert world.entries()[-1]["kind"] != "done"


def test_a_limit_that_is_new_holds_for_a_plan_that_is_carried_on(world: World, run: Run) -> None:
    interrupted(world, run, {"BTC": 0.5})
    done = run(world.rebalance({"BTC": 0.5}, "--limit", "order_notional_usd=100"))
    assert done.code == 3 and "order_notional_usd" in done.err and not world.server.asked("order")


def test_a_price_that_left_its_oracle_stops_a_plan_that_is_carried_on(world: World, run: Run) -> None:
    interrupted(world, run, {"BTC": 0.5})
    world.server.set_book("BTC", bid=119_990, ask=120_010, oracle=100_000, refill=True)
    done = run(world.rebalance({"BTC": 0.5}))
    assert done.code == 3 and "price_deviation_frac" in done.err and not world.server.asked("order")


def test_a_dry_run_is_judged_by_its_exit_code(world: World, run: Run) -> None:
    from engine.live.risk_limits import Limits

    spec = momentum_spec(world.folder, world.folder / "cache", limits=Limits(gross=0.5))
    done = run(world.words("plan", spec))
    assert done.code == 3 and "gross" in done.err


# The journal, alerts, the loop ----------------------------------------------------------------------------------------


def test_a_full_disk_tears_no_line_and_sends_nothing(tmp_path: Path) -> None:
    """A write may be short without an error: what is not on the disk whole must not be taken for written."""
    path = tmp_path / "a.jsonl"
    code = (
        "import resource, signal, pandas as pd\n"
        "from pathlib import Path\n"
        "from engine.errors import LiveError\n"
        "from engine.live.journal import Journal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"journal, now = Journal(Path({str(path)!r})), pd.Timestamp(0, tz='UTC')\n"
        "journal.append('refused', now, equity_usd=1.0)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))\n"
        "try:\n    journal.append('intent', now, text='x' * 300)\n"
        "except LiveError:\n    pass\n"
        "else:\n    raise SystemExit('a torn line was taken for written')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "journal.append('refused', now, equity_usd=2.0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert [entry["equity_usd"] for entry in Journal(path).entries] == [1.0, 2.0]


def test_an_alert_is_sent_of_a_run_that_breaks(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of ours: the alert says so, and the error that is shown is the defect's own."""
    got: list[dict[str, object]] = []
    monkeypatch.setattr("engine.live.alerts.send_alert", lambda url, what, message: got.append(dict(message)) or "")

    def broken(self: object) -> None:
        raise ZeroDivisionError("of a library")

    monkeypatch.setattr("engine.live.session.Session.execute", broken)
    with pytest.raises(ZeroDivisionError):
        run(world.rebalance({"BTC": 0.5}, "--webhook", "http://127.0.0.1:9/"))
    assert len(got) == 1 and got[0]["code"] == 1 and "ZeroDivisionError" in str(got[0]["error"])


def test_a_look_at_the_plan_keeps_no_run_from_trading(world: World, run: Run) -> None:
    label = HyperLiquidDEX(base_url=world.server.url, credentials=world.credentials).label
    words = world.rebalance({"BTC": 0.5})
    words.remove("--execute")
    with single_instance(account_folder(label) / "lock"):
        assert run(words).code == 0


def test_daily_that_was_killed_in_the_middle_goes_on_when_it_is_started_again(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Systemd starts it anew within seconds: the book must not stand half made until the next day."""
    spec = momentum_spec(world.folder, world.folder / "cache")
    waited = daily(world, monkeypatch, 3, start=world.half_past_two())
    append = Journal.append

    def dying(self: Journal, kind: str, time: pd.Timestamp, **fields: object) -> None:
        if kind == "intent":
            raise KeyboardInterrupt
        append(self, kind, time, **fields)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "append", dying)
        assert run(world.words("run", spec, "--execute", "--daily")).code == 130
    assert waited == ["22:40", "22:59"] and world.positions == {}
    done = run(world.words("run", spec, "--execute", "--daily"))
    assert done.code == 130 and len(world.positions) == 2, done.err
    assert waited == ["22:40", "22:59", "22:40"]
    # Started once more, with nothing left to do, it only waits.
    sent = len(world.server.asked("order"))
    waited[:] = ["", ""]
    assert run(world.words("run", spec, "--execute", "--daily")).code == 130
    assert len(world.server.asked("order")) == sent
    world.check()


@pytest.mark.parametrize("reads", [3, 99])
def test_positions_that_lag_behind_a_recovered_order_double_nothing(world: World, run: Run, reads: int) -> None:
    """Killed with an order under way: its fate is asked for, and the positions must have it before more is ordered."""
    send, current = HyperLiquidDEX.send, world.server.answers.state
    old, lags = current(MASTER.address.lower(), 0), [reads]

    def dying(self: HyperLiquidDEX, orders: object, expires_ms: int) -> object:
        send(self, orders, expires_ms)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HyperLiquidDEX, "send", dying)
        assert run(world.rebalance({"BTC": 0.3})).code == 130

    def lagging(user: str, now: int) -> object:
        lags[0] -= 1
        return {**old, "time": now} if lags[0] >= 0 else current(user, now)

    world.server.answers.state = lagging  # type: ignore[method-assign, assignment]
    done = run(world.rebalance({"BTC": 0.3}, "--json"))
    assert len(world.server.asked("order")) == 1
    assert done.code == (0 if reads == 3 else 3), done.err
    lags[0] = 0
    assert run(world.rebalance({"BTC": 0.3})).code == 0
    assert world.weights_held() == pytest.approx({"BTC": 0.3}, abs=0.003)
    world.check()


def test_a_folder_that_cannot_be_made_is_said_in_words(world: World, run: Run) -> None:
    world.journals.write_text("a file where the folder of the journals should be")
    done = run(world.rebalance({"BTC": 0.5}))
    assert done.code == 1 and "journal" in done.err and not world.server.asked("order")


def dying_in_send(monkeypatch: pytest.MonkeyPatch, dex: type, after: bool) -> None:
    """The process ends while it sends: before the exchange has the order, or after."""
    send = dex.send  # type: ignore[attr-defined]

    def dying(self: object, orders: object, expires_ms: int) -> object:
        if after:
            send(self, orders, expires_ms)
        raise KeyboardInterrupt

    monkeypatch.setattr(dex, "send", dying)


@pytest.mark.parametrize("after", [False, True])
def test_a_paper_run_that_was_killed_while_sending_goes_on(world: World, run: Run, after: bool) -> None:
    """A paper account's clock stands still: to wait there for an order to expire would be to wait for ever."""
    from engine.live.paper import PaperDEX

    spec = momentum_spec(world.folder, world.folder / "cache")
    now = pd.Timestamp(world.server.now, unit="ms", tz="UTC").isoformat()
    words = world.words("run", spec, "--execute", "--json", "--network", "paper", "--now", now)
    with pytest.MonkeyPatch.context() as patch:
        dying_in_send(patch, PaperDEX, after)
        assert run(words).code == 130

    def hanging(number: int, frame: object) -> None:
        raise AssertionError("it waits for ever")

    before = signal.signal(signal.SIGALRM, hanging)
    signal.alarm(120)
    try:
        done = run(words)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert done.code == 0, done.err
    state = json.loads((world.journals / "momentum-paper.json").read_text())
    assert len(state["positions"]) == 2 and len(state["trades"]) == 2


def test_flatten_knows_of_the_orders_that_another_strategy_left_under_way(world: World, run: Run) -> None:
    """Killed while sending, and flattened under another name: the order that is late must not open the book again."""
    assert run(world.rebalance({"BTC": 0.0})).code == 0
    world.hurried = True
    late = world.server.inject("late", on="order")
    with pytest.MonkeyPatch.context() as patch:
        dying_in_send(patch, HyperLiquidDEX, True)
        assert run([*world.rebalance({"BTC": 0.5}), "--expires-seconds", "60"]).code == 130
    assert world.positions == {}
    world.server.when("orderStatus", late.arrive, nth=2)
    done = run(world.words("flatten", "another", "--execute"))
    late.arrive()
    assert done.code == 0, done.err
    assert world.positions == {} and len(world.server.fills) == 2
    world.check()


def test_the_kill_switch_stops_a_run_that_is_under_way(world: World, run: Run) -> None:
    """Set between the reductions and the openings."""
    assert run(world.rebalance({"BTC": 0.5})).code == 0
    send = HyperLiquidDEX.send

    def switching(self: HyperLiquidDEX, orders: object, expires_ms: int) -> object:
        answers = send(self, orders, expires_ms)  # type: ignore[arg-type]
        (world.journals / "KILL").touch()
        return answers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HyperLiquidDEX, "send", switching)
        done = run(world.rebalance({"BTC": 0.2, "ETH": 0.5, "DOGE": -0.2}, "--json"))
    assert done.code == 4 and {item["coin"] for item in done.json["missing"]} == {"ETH", "DOGE"}
    assert "kill switch" in done.err and len(world.server.asked("order")) == 2
    assert world.weights_held() == pytest.approx({"BTC": 0.2}, abs=0.003)


def test_a_plan_of_yesterday_is_not_carried_on(world: World, run: Run) -> None:
    world.stop_clock()
    interrupted(world, run, {"BTC": 0.5})
    world.server.advance(24)
    now = pd.Timestamp(world.server.now, unit="ms", tz="UTC").isoformat()
    done = run(world.rebalance({"ETH": 0.5}, "--now", now, "--json"))
    assert done.code == 0 and done.json["plan"] is not None
    assert world.weights_held() == pytest.approx({"ETH": 0.5}, abs=0.003)


def test_an_order_is_void_only_some_seconds_after_its_time() -> None:
    """The exchange's clock is 2 s behind ours: what it takes in its last second is, for us, too late."""
    from engine import PaperDEX, PortfolioManager
    from engine.live.orders import OrderRequest, OrderResult
    from engine.oracles.fixed_weights import FixedWeights
    from helpers.panels import random_panel

    now, sent = [1_000_000], []

    class Behind(PaperDEX):
        def clock_ms(self) -> int:
            return now[0]

        def send(self, orders: Sequence[OrderRequest], expires_ms: int) -> list[OrderResult]:
            sent.append((orders, expires_ms))
            return [OrderResult(order.cloid, "unknown") for order in orders]

        def find_order(self, order: OrderRequest) -> OrderResult | None:  # type: ignore[override]
            orders, expires_ms = sent[-1]
            return super().send(orders, expires_ms)[0] if now[0] > expires_ms + 2_000 else None

    def sleep(seconds: float) -> None:
        now[0] += round(1000 * seconds)

    panel = random_panel(2, 48, 1)
    dex = Behind(panel, start=panel.index[-1])
    manager = PortfolioManager(FixedWeights.of({"C00": 0.5}), dex, panel=panel, sleep=sleep)
    assert manager.manage_portfolio().complete and len(sent) == 1


def test_a_refused_spec_is_alerted(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of the oracle changed: from then on nothing is traded, which somebody should hear."""
    got: list[dict[str, object]] = []
    monkeypatch.setattr("engine.live.alerts.send_alert", lambda url, what, message: got.append(dict(message)) or "")
    spec = momentum_spec(world.folder, world.folder / "cache")
    spec.write_text(spec.read_text().replace('"gross": 1.1', '"gross": 9.9'))
    done = run(world.words("run", spec, "--execute", "--webhook", "http://127.0.0.1:9/"))
    assert done.code == 5 and len(got) == 1 and got[0]["code"] == 5 and got[0]["strategy"] == "momentum"
