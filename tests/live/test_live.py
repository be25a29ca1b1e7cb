"""Every live command against the loopback exchange, through the real SDK."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from pathlib import Path

import pytest

from engine import HyperLiquidDEX, PortfolioManager
from engine.errors import LiveError
from engine.live.journal import Journal
from engine.live.orders import Policy
from engine.oracles.fixed_weights import FixedWeights
from engine.retries import RetryPolicy
from helpers.effort import some
from helpers.hyperliquid_faults import REJECTS
from helpers.hyperliquid_world import AGENT, MASTER
from helpers.live_world import SECRET, Run, World, near

pytestmark = pytest.mark.slow

BOOK = {"BTC": 0.4, "ETH": -0.3, "DOGE": 0.1, "RLB": -0.1}


def test_rebalance_opens_turns_and_flattens_a_book(world: World, run: Run) -> None:
    done = run(world.rebalance(BOOK, "--json"))
    assert done.code == 0, done.err
    assert done.json["complete"] and not done.json["missing"] and len(done.json["orders"]) == 4
    near(world, BOOK)
    turned = {"BTC": -0.3, "ETH": 0.0, "DOGE": 0.2}
    done = run(world.rebalance(turned))
    assert done.code == 0, done.err
    near(world, turned)
    # Leverage falls first: the reductions of the second run precede its openings.
    second = [order for order in world.server.orders if order.user == MASTER.address.lower()][4:]
    kinds = [order.reduce_only for order in second]
    assert kinds == sorted(kinds, reverse=True) and kinds.count(True) == 3
    again = run(world.rebalance(turned, "--json"))
    assert again.code == 0 and again.json["orders"] == []
    done = run(world.words("flatten", "book", "--execute"))
    assert done.code == 0, done.err
    assert world.positions == {}
    world.check()


def test_nothing_is_sent_without_execute(world: World, run: Run) -> None:
    words = world.rebalance(BOOK)
    words.remove("--execute")
    done = run(words)
    assert done.code == 0 and "Nothing was sent" in done.out and "BTC" in done.out
    plan = run([*words, "--json"]).json
    assert plan["equity_usd"] == 10_000 and plan["gross_before"] == 0 and plan["executed"] is False
    assert plan["gross_after"] == pytest.approx(0.9, abs=1e-3) and plan["net_after"] == pytest.approx(0.1, abs=1e-3)
    assert {order["coin"]: order["action"] for order in plan["orders"]} == dict.fromkeys(BOOK, "open")
    # 2 bps of half spread and 4.5 bps of fee on 9,000 USD.
    assert plan["spread_usd"] == pytest.approx(1.8, rel=0.01) and plan["fee_usd"] == pytest.approx(4.05, rel=0.01)
    assert not world.server.asked("order") and not world.server.asked("updateLeverage")


def test_leverage_is_set_before_the_first_trade_and_isolated_where_cross_is_not_allowed(world: World, run: Run) -> None:
    assert run(world.rebalance({"BTC": 0.5, "RLB": 0.2})).code == 0
    account = world.server.account(MASTER.address)
    assert account.leverage["BTC"] == (2, True) and account.leverage["RLB"] == (3, False)
    kinds = [payload["action"]["type"] for path, payload in world.server.requests if path == "/exchange"]
    assert kinds.index("updateLeverage") < kinds.index("order")
    assert run(world.rebalance({"BTC": 0.6, "RLB": 0.1})).code == 0
    assert len(world.server.asked("updateLeverage")) == 2  # not again


@pytest.mark.parametrize("mode", ["disabled", "default", "unifiedAccount"])
def test_equity_of_classic_and_unified_accounts(world: World, run: Run, mode: str) -> None:
    world.server.fund(MASTER.address, 0, mode)
    assert run(world.rebalance({"BTC": 0.5})).code == 0
    dex = HyperLiquidDEX(base_url=world.server.url, credentials=world.credentials)
    assert dex.net_liq == pytest.approx(world.server.equity(MASTER.address), rel=1e-6)
    assert dex.positions == world.positions
    near(world, {"BTC": 0.5})


def test_an_agent_trades_for_its_master_and_a_leader_for_a_vault(world: World, run: Run) -> None:
    world.server.approve_agent(MASTER.address, AGENT.address)
    content = {"secret_key": "22" * 32, "account_address": MASTER.address}
    world.credentials.write_text(json.dumps(content))
    assert run(world.rebalance({"ETH": 0.5})).code == 0
    soon = world.server.now + 3 * 86_400_000
    world.server.approve_agent(MASTER.address, AGENT.address, "bot", soon)
    assert "expires in 3.0 days" in run(world.rebalance({"ETH": 0.5})).out
    near(world, {"ETH": 0.5})
    vault = world.server.create_vault(MASTER.address, 5_000)
    world.credentials.write_text(json.dumps({**content, "vault_address": vault}))
    assert run(world.rebalance({"DOGE": -0.5})).code == 0
    assert set(world.server.positions(vault)) == {"DOGE"} and set(world.positions) == {"ETH"}


@pytest.mark.parametrize("name", sorted(REJECTS))
def test_every_documented_reject_of_one_order(world: World, run: Run, name: str) -> None:
    """Rejected once: the others trade; it is tried again, or the exit and the journal say that it is missing."""
    world.server.reject(name, coin="ETH")
    done = run(world.rebalance(BOOK, "--json"))
    rest = {coin: weight for coin, weight in BOOK.items() if coin != "ETH"}
    if done.code == 0:
        near(world, BOOK)
    else:
        assert done.code == 4
        near(world, rest)
        assert [item["coin"] for item in done.json["missing"]] == ["ETH"]
        assert done.json["missing"][0]["target_units"] == pytest.approx(-0.75, rel=0.01)
        assert world.last("done")["missing"][0]["coin"] == "ETH" and "ETH is at 0 instead of" in done.err
        assert run(world.rebalance(BOOK)).code == 0  # once the cause is gone, the same command completes the book
        near(world, BOOK)
    world.check()


def test_a_reject_that_spoils_the_whole_batch_is_isolated(world: World, run: Run) -> None:
    world.server.ledger.prevalidated = {"Tick"}
    world.server.reject("Tick", coin="ETH", times=3)
    done = run(world.rebalance(BOOK, "--json"))
    assert done.code == 4 and [item["coin"] for item in done.json["missing"]] == ["ETH"]
    near(world, {coin: weight for coin, weight in BOOK.items() if coin != "ETH"})
    world.check()


@pytest.mark.parametrize("text", ["User or API Wallet 0x does not exist.", "Must deposit before performing actions."])
def test_a_refusal_that_every_order_would_meet_ends_the_run(world: World, run: Run, text: str) -> None:
    world.server.refuse(text, times=99)
    done = run(world.rebalance(BOOK, "--json"))
    assert done.code == 4 and len(done.json["missing"]) == 4 and len(world.server.asked("order")) == 1
    assert text in done.err


def test_partial_fills_are_completed_by_orders_for_the_rest(world: World, run: Run) -> None:
    world.server.fill_share(0.4, coin="BTC", times=2)
    done = run(world.rebalance(BOOK, "--json"))
    assert done.code == 0, done.err
    assert len([order for order in done.json["orders"] if order["coin"] == "BTC"]) == 3
    near(world, BOOK)
    world.check()


FAULTS = [
    ("timeout", False),
    ("timeout", True),
    ("reset", False),
    ("reset", True),
    ("too_many", False),
    ("bad_gateway", False),
    ("bad_gateway", True),
    ("server_error", True),
    ("not_json", False),
    ("not_json", True),
    ("truncated", True),
    ("outage", False),
    ("outage", True),
    ("late", True),
]


@pytest.mark.parametrize(("kind", "after"), FAULTS, ids=[f"{kind}-{after}" for kind, after in FAULTS])
def test_an_order_without_an_answer_is_asked_for_and_never_sent_twice(
    world: World, run: Run, kind: str, after: bool
) -> None:
    """Before it took effect, after, and long after: the book is right each time, and each order was placed once."""
    world.hurried = True
    fault, words = world.server.inject(kind, after=after, on="order"), world.rebalance(BOOK, "--json")
    if kind == "late":
        world.server.when("orderStatus", fault.arrive, nth=2)
        words += ["--expires-seconds", "60"]
    done = run(words)
    assert done.code == 0, done.err + done.out
    near(world, BOOK)
    world.check()


@pytest.mark.parametrize("text", ["Order has invalid price."])
def test_a_refusal_of_orders_that_were_executed_is_seen_in_the_positions(world: World, run: Run, text: str) -> None:
    """The outage of 2025-07-29, in words that are believed: what was filled is not ordered again."""
    world.server.inject("outage", after=True, on="order", text=text)
    done = run(world.rebalance(BOOK, "--json"))
    assert done.code == 0, done.err
    near(world, BOOK)
    assert len(world.server.asked("order")) == 1
    world.check()


def test_positions_that_lag_behind_the_answers_are_waited_for(world: World, run: Run) -> None:
    """A partial fill, then positions as they were before it: the rest is ordered, not all of it."""
    world.server.fill_share(0.5, coin="BTC")
    current, old, lags = world.server.answers.state, world.server.answers.state(MASTER.address.lower(), 0), [3]

    def lagging(user: str, now: int) -> object:
        if world.server.asked("order") and lags[0]:
            lags[0] -= 1
            return {**old, "time": now}
        return current(user, now)

    world.server.answers.state = lagging  # type: ignore[method-assign, assignment]
    done = run(world.rebalance({"BTC": 0.5}, "--json"))
    assert done.code == 0, done.err
    assert lags == [0] and len(world.server.asked("order")) == 2
    near(world, {"BTC": 0.5})


@pytest.mark.parametrize("weight", [0.6, 0.4])
def test_a_position_that_somebody_else_changes_is_left_alone(world: World, run: Run, weight: float) -> None:
    """An auto-deleveraging between order and look: nothing more of that coin is ordered, and the exit says so."""
    assert run(world.rebalance({"BTC": 0.5, "ETH": 0.2})).code == 0
    current, hit = world.server.answers.state, [False]

    def deleveraged(user: str, now: int) -> object:
        if len(world.server.asked("order")) == 2 and not hit[0]:
            hit[0] = True
            world.server.deleverage(MASTER.address, "BTC", share=0.5)
        return current(user, now)

    world.server.answers.state = deleveraged  # type: ignore[method-assign, assignment]
    done = run(world.rebalance({"BTC": weight, "ETH": 0.2}, "--json"))
    assert done.code == 4 and [item["coin"] for item in done.json["missing"]] == ["BTC"]
    assert "not traded further" in done.err and len(world.server.asked("order")) == 2
    assert run(world.rebalance({"BTC": weight, "ETH": 0.2})).code == 3
    assert run(world.rebalance({"BTC": weight, "ETH": 0.2}, "--accept-positions")).code == 0
    near(world, {"BTC": weight, "ETH": 0.2})


@pytest.mark.parametrize("kind", ["timeout", "too_many", "bad_gateway", "not_json", "reset"])
@pytest.mark.parametrize("question", ["clearinghouseState", "metaAndAssetCtxs", "activeAssetData"])
def test_a_question_that_fails_once_is_asked_again(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch, kind: str, question: str
) -> None:
    monkeypatch.setattr("engine.live.hyperliquid.PATIENCE", RetryPolicy((0.05,), (0.05,), 60.0))
    world.hurried = True
    world.server.inject(kind, on=question)
    assert run(world.rebalance({"BTC": 0.3})).code == 0
    near(world, {"BTC": 0.3})


@pytest.mark.parametrize("seed", range(some(2, 4)))
def test_any_books_under_any_faults(world: World, run: Run, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Random books, each sent through random faults: an exit that says what is, no order twice, gross in its limit."""
    monkeypatch.setattr("engine.live.hyperliquid.PATIENCE", RetryPolicy((0.02,), (0.02,), 60.0))
    world.hurried = True
    chance = random.Random(seed)
    coins = ["BTC", "ETH", "DOGE", "RLB"]
    for _ in range(3):
        row = {coin: chance.uniform(-1, 1) for coin in coins if chance.random() < 0.8} or {"BTC": 1.0}
        scale = chance.uniform(0.3, 0.97) / sum(map(abs, row.values()))
        row = {coin: weight * scale for coin, weight in row.items()}
        for _ in range(chance.randrange(4)):
            kind, after = chance.choice(FAULTS)
            question = chance.choice(["order", "order", "updateLeverage", "clearinghouseState", "orderStatus", None])
            if kind not in ("outage", "late") or question == "order":
                fault = world.server.inject(kind, after=after, on=question, times=chance.choice([1, 1, 2]))
                if fault.arrives is not None:
                    world.server.when("orderStatus", fault.arrives.set)
        for _ in range(chance.randrange(3)):
            coin = chance.choice(coins)
            if chance.random() < 0.5:
                world.server.reject(chance.choice(sorted(REJECTS)), coin=coin, times=chance.choice([1, 9]))
            else:
                world.server.fill_share(chance.uniform(0.1, 0.9), coin=coin, times=2)
        done = run(world.rebalance(row, "--json", "--limit", "gross=1.0"))
        assert done.code in (0, 4, 6), done.err
        assert sum(map(abs, world.weights_held().values())) <= 1.0
        if done.code == 0:
            near(world, row)
        elif done.code == 4:
            last = world.last("done")
            for item in last["missing"]:
                assert item["coin"] in done.err
            if not world.server.faults:
                assert last["positions"] == pytest.approx(world.positions)
        world.server.faults.clear()
        world.server.ledger.order_faults.nudges.clear()
        done = run(world.rebalance(row, "--json"))
        assert done.code == 0, done.err
        near(world, row)
        world.check()


def test_an_exchange_out_of_reach_before_and_after_the_first_order(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.live.hyperliquid.PATIENCE", RetryPolicy((0.05,), (), 60.0))
    fault = world.server.inject("bad_gateway", on="clearinghouseState", times=99)
    done = run(world.rebalance(BOOK))
    assert done.code == 6 and "clearinghouseState" in done.err and not world.server.asked("order")
    fault.times = 0
    # After the orders: positions cannot be read any more.
    fault = world.server.inject(
        "bad_gateway", on="clearinghouseState", times=99, match=lambda _: len(world.server.asked("order")) > 0
    )
    done = run(world.rebalance(BOOK))
    # All was answered as filled, though no position could be read: the answers count.
    assert done.code == 0 and world.last("done")["complete"]
    near(world, BOOK)
    fault.times = 0
    assert run(world.rebalance(BOOK)).code == 0
    near(world, BOOK)
    world.check()


def test_delisted_and_dust_positions(world: World, run: Run) -> None:
    done = run(world.rebalance({"BTC": 0.5, "MATIC": 0.2, "DOGE": 0.0009}, "--json"))
    assert done.code == 4 and [item["coin"] for item in done.json["missing"]] == ["MATIC"]
    assert "DOGE" in " ".join(done.json["notes"])
    skips = {skip["coin"]: skip["reason"] for skip in done.json["plan"]["skips"]}
    assert set(skips) == {"MATIC", "DOGE"}
    near(world, {"BTC": 0.5})
    # A position worth less than 10 USD closes by reduce-only.
    assert run(world.rebalance({"BTC": 0.5, "DOGE": 0.0015})).code == 0
    world.server.set_book("DOGE", bid=0.0999, ask=0.1001, refill=True)
    world.server.ledger.reduce_only_exempt = False  # whether it is exempt is not documented
    done = run(world.rebalance({"BTC": 0.5}, "--json"))
    assert done.code == 0 and "minimum value" in " ".join(done.json["notes"])
    assert set(world.positions) == {"BTC", "DOGE"}
    world.server.ledger.reduce_only_exempt = True
    assert run(world.rebalance({"BTC": 0.5})).code == 0
    assert set(world.positions) == {"BTC"}


@pytest.mark.parametrize(
    ("limit", "named"),
    [
        ("gross=0.5", "gross"),
        ("coin_weight=0.2", "coin_weight"),
        ("order_notional_usd=500", "order_notional_usd"),
        ("price_deviation_frac=0.001", "price_deviation_frac"),
    ],
)
def test_a_limit_stops_the_run_before_any_order(world: World, run: Run, limit: str, named: str) -> None:
    world.server.set_book("BTC", bid=99_990, ask=100_010, oracle=101_000, refill=True)
    done = run(world.rebalance(BOOK, "--limit", limit))
    assert done.code == 3 and named in done.err and not world.server.asked("order")


def test_limits_on_equity(world: World, run: Run) -> None:
    assert run(world.rebalance({"BTC": 0.5})).code == 0
    world.server.fund(MASTER.address, -3_000)
    done = run(world.rebalance(BOOK))
    assert done.code == 3 and "daily_loss_frac" in done.err
    world.server.fund(MASTER.address, 20_000)
    done = run(world.rebalance(BOOK))
    assert done.code == 3 and "equity_change_frac" in done.err
    assert run(world.rebalance(BOOK, "--limit", "equity_change_frac=none")).code == 0


def test_the_kill_switch_and_the_lock_refuse_every_order(world: World, run: Run) -> None:
    world.journals.mkdir()
    (world.journals / "KILL").touch()
    done = run(world.rebalance(BOOK))
    assert done.code == 3 and "KILL" in done.err
    done = run(world.words("flatten", "book", "--execute"))
    assert done.code == 3
    (world.journals / "KILL").unlink()
    from engine.live.state_folder import account_folder, single_instance

    label = HyperLiquidDEX(base_url=world.server.url, credentials=world.credentials).label
    with single_instance(account_folder(label) / "lock"):
        done = run(world.rebalance(BOOK))
        assert done.code == 1 and "Another process" in done.err
    assert not world.server.asked("order")


def test_openings_are_held_back_while_reductions_fail(world: World, run: Run) -> None:
    """The gross stays within the limit although the close of one coin never fills."""
    assert run(world.rebalance({"BTC": 0.9})).code == 0
    world.server.reject("IocCancel", coin="BTC", times=99)
    done = run(world.rebalance({"ETH": 0.9}, "--json", "--limit", "gross=1.0", "--limit", "net_frac=none"))
    assert done.code == 4
    assert sum(abs(weight) for weight in world.weights_held().values()) <= 1.0
    assert {item["coin"] for item in done.json["missing"]} == {"BTC", "ETH"}


def test_mainnet_needs_a_confirmation(world: World, run: Run) -> None:
    done = run(world.rebalance(BOOK, "--network", "mainnet"))
    assert (
        done.code == 1 and "Non-interactive session: pass --yes-mainnet" in done.err and not world.server.asked("order")
    )
    done = run(world.rebalance(BOOK, "--network", "mainnet", "--yes-mainnet"))
    assert done.code == 0, done.err


def test_a_scheduled_cancel_of_the_owner_is_left_alone(world: World, run: Run) -> None:
    """Every order of ours is IOC, so there is nothing of ours to cancel; the owner's stop orders may depend on it."""
    account = world.server.account(MASTER.address)
    account.volume = Decimal(2_000_000)
    account.cancel_at = at = world.server.now + 3_600_000
    assert run(world.rebalance({"BTC": 0.5})).code == 0
    assert run(world.words("flatten", "book", "--execute")).code == 0
    assert account.cancel_at == at and not world.server.asked("scheduleCancel")


def test_the_predecessors_quick_start(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Constructors reach for nothing; the names are the old ones."""
    monkeypatch.setenv("HYPERLIQUID_SECRET_KEY", SECRET)
    monkeypatch.setenv("HYPERLIQUID_ACCOUNT_ADDRESS", MASTER.address)
    oracle = FixedWeights.of({"BTC": 0.5, "ETH": -0.5})
    dex = HyperLiquidDEX("testnet", base_url=world.server.url)
    manager = PortfolioManager(oracle, dex)
    assert not world.server.requests
    outcome = manager.manage_portfolio()
    assert outcome.complete and list(Path("reports/live").glob("*.jsonl"))
    assert dex.get_universe() == ["BTC", "DOGE", "ETH", "RLB"]
    bid, ask = dex.get_bid_ask("BTC")
    assert bid < 100_000 < ask and dex.get_bid_ask()["BTC"] == (bid, ask)
    with pytest.raises(LiveError, match="Did you mean 'BTC'"):
        dex.get_bid_ask("btc")
    assert dex.net_liq == pytest.approx(10_000, rel=0.01) and set(dex.positions) == {"BTC", "ETH"}
    dex.set_portfolio_weights({"BTC": 0.2}, journal=Journal(), policy=Policy(expires_seconds=60))
    near(world, {"BTC": 0.2})
    assert SECRET not in repr(dex) + repr(dex.__dict__.get("_credentials"))


def test_an_empty_account_and_orders_near_the_minimum(world: World, run: Run) -> None:
    """No equity is no order; an order that the exchange finds too small leaves the book as good as at its target."""
    world.server.fund(MASTER.address, -10_000)
    done = run(world.rebalance(BOOK, "--json"))
    assert done.code == 3 and "equity is 0.00" in done.err and not world.server.asked("order")
    assert run(world.words("flatten", "book", "--execute")).code == 0  # nothing asked for is nothing held
    world.server.fund(MASTER.address, 110)
    world.server.reject("MinTradeNtl", coin="DOGE", times=9)
    done = run(world.rebalance({"DOGE": 0.1, "ETH": 0.5}, "--json"))
    assert done.code == 0 and done.json["missing"] == [] and "minimum value" in done.json["notes"][0]
    assert len([order for order in done.json["orders"] if order["coin"] == "DOGE"]) == 1
    assert set(world.positions) == {"ETH"}
