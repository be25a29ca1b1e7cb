"""A live book on two perp dexes: ids, prices, collateral, isolated margin, funds of each dex, and what goes wrong."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest

from engine import HyperLiquidDEX
from engine.errors import LiveError
from engine.retries import RetryPolicy
from helpers.fees import FACTORS
from helpers.hyperliquid_faults import kind_of
from helpers.hyperliquid_records import tick
from helpers.hyperliquid_world import GTC, IOC, MASTER, client, only
from helpers.live_world import NVDA, TSLA, Run, World, momentum_spec, near

pytestmark = pytest.mark.slow

BOOK = {"BTC": 0.3, "ETH": -0.2, "xyz:TSLA": 0.25, "xyz:NVDA": -0.2}
TESLA_ID, NVIDIA_ID = 120_001, 120_000


def dex_of(world: World, **options: Any) -> HyperLiquidDEX:
    where = {"base_url": world.server.url, "credentials": world.credentials}
    return HyperLiquidDEX(**where, sleep=lambda seconds: None, **options)


def sent_orders(world: World) -> list[dict[str, Any]]:
    return [order for payload in world.server.asked("order") for order in payload["action"]["orders"]]


def kinds(world: World) -> list[str]:
    return [kind_of(path, payload) for path, payload in world.server.requests]


# A book of both ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["unifiedAccount", "disabled", "default"])
def test_a_book_of_two_dexes_is_opened_changed_and_closed(world: World, run: Run, mode: str) -> None:
    world.open_dexes(mode, 0.0 if mode == "unifiedAccount" else 6_000)
    equity = world.server.ledger.worth(world.server.account(MASTER.address))
    assert run(world.rebalance(BOOK)).code == 0
    assert dex_of(world, dexes=("", "xyz")).account().equity_usd == pytest.approx(float(equity), abs=15)
    held(world, BOOK, float(equity))
    by_id = {order["a"]: order for order in sent_orders(world)}
    assert set(by_id) == {0, 1, TESLA_ID, NVIDIA_ID} and not world.server.rejected
    for number, coin in ((TESLA_ID, TSLA), (NVIDIA_ID, NVDA)):
        assert Decimal(by_id[number]["p"]) % tick(Decimal(by_id[number]["p"]), coin.sz_decimals) == 0
    done = run(world.rebalance({**BOOK, "xyz:TSLA": -0.2, "xyz:NVDA": -0.1}, "--json"))
    assert done.code == 0, done.err
    held(world, {**BOOK, "xyz:TSLA": -0.2, "xyz:NVDA": -0.1}, float(equity))
    status = run(world.words("status", "book", "--json")).json["account"]
    assert set(status["positions"]) == set(BOOK) and status["equity_usd"] == pytest.approx(float(equity), abs=30)
    assert set(status["funds_usd"]) == (set() if mode == "unifiedAccount" else {"", "xyz"})
    assert {fill["coin"] for fill in world.last("fills")["fills"]} == {"xyz:TSLA", "xyz:NVDA"}
    flat = run(world.words("flatten", "book", "--execute"))
    assert flat.code == 0 and world.positions == {}, flat.err  # by the journal: no spec names the dex
    world.check()


def held(world: World, weights: dict[str, float], equity: float) -> None:
    coins = world.server.ledger.coins
    assert set(world.positions) == set(weights)
    for coin, weight in weights.items():
        assert world.positions[coin] * float(coins[coin].mark) / equity == pytest.approx(weight, abs=0.003), coin


def test_isolated_margin_is_set_before_the_first_order_and_once(world: World, run: Run) -> None:
    """Highest leverage without a setting, cross coins twice the gross; a second run sets nothing."""
    world.open_dexes()
    assert run(world.rebalance(BOOK)).code == 0
    account = dex_of(world, dexes=("", "xyz")).account()
    assert account.isolated_usd == pytest.approx({"xyz:NVDA": 0.2 * 10_000 / 20}, rel=0.01)
    assert account.leverage["xyz:NVDA"] == (20, False) and account.leverage["BTC"] == (2, True)
    leverage = world.server.account(MASTER.address).leverage
    assert leverage["xyz:NVDA"] == (20, False) and leverage["xyz:TSLA"] == leverage["BTC"] == (2, True)
    order = kinds(world)
    assert order.count("updateLeverage") == 4
    assert max(at for at, kind in enumerate(order) if kind == "updateLeverage") < order.index("order")
    assert world.last("leverages_set")["isolated"] == ["xyz:NVDA"]
    world.server.requests.clear()
    assert run(world.rebalance({**BOOK, "xyz:NVDA": -0.25})).code == 0
    assert run(world.words("flatten", "book", "--execute")).code == 0
    assert run(world.rebalance(BOOK)).code == 0
    assert "updateLeverage" not in kinds(world) and "activeAssetData" not in kinds(world)


def test_the_leverage_of_isolated_coins_is_a_setting(world: World, run: Run) -> None:
    world.open_dexes()
    assert run(world.rebalance(BOOK, "--set", "execution.isolated_leverage=4")).code == 0
    assert world.server.account(MASTER.address).leverage["xyz:NVDA"] == (4, False)
    assert run(world.words("flatten", "book", "--execute")).code == 0
    assert run(world.rebalance(BOOK, "--set", "execution.isolated_leverage=300")).code == 0
    assert world.server.account(MASTER.address).leverage["xyz:NVDA"] == (20, False)


@pytest.mark.parametrize(("weight", "leverage"), [(0.05, 20), (0.3, 5)])
def test_a_position_of_a_higher_tier_has_its_leverage(world: World, run: Run, weight: float, leverage: int) -> None:
    """From 1,000 USD on 5 is the most: at the coin's highest the exchange refuses the order."""
    world.open_dexes()
    world.server.ledger.coins["xyz:NVDA"].tiers = ((1_000.0, 5),)
    assert run(world.rebalance({"BTC": 0.3, "xyz:NVDA": weight})).code == 0 and not world.server.rejected
    assert world.server.account(MASTER.address).leverage["xyz:NVDA"] == (leverage, False)


def test_an_entry_that_does_not_say_isolated_is_not_relied_on(world: World, run: Run) -> None:
    """A coin that was cross when its leverage was set, or a journal of an earlier release."""
    world.open_dexes()
    nvidia = world.server.ledger.coins["xyz:NVDA"]
    nvidia.margin_mode, nvidia.max_leverage = None, 2
    world.server.account(MASTER.address).leverage["xyz:NVDA"] = (1, True)
    assert run(world.rebalance(BOOK)).code == 0
    assert run(world.words("flatten", "book", "--execute")).code == 0
    assert world.server.account(MASTER.address).leverage["xyz:NVDA"] == (2, True)
    nvidia.margin_mode = "noCross"
    assert run(world.rebalance(BOOK)).code == 0
    assert world.server.account(MASTER.address).leverage["xyz:NVDA"] == (2, False)


def test_main_coins_alone_take_no_request_more(world: World, run: Run) -> None:
    """Those of a run with 11 dexes: two states a dex more than before, for positions there count in the gross."""
    world.open_dexes()
    assert run(world.rebalance({"BTC": 0.4, "ETH": -0.3})).code == 0
    asked = world.server.requests
    named = [(kind_of(path, payload), payload["dex"]) for path, payload in asked if "dex" in payload]
    assert {kind for kind, _ in named} == {"clearinghouseState"}
    assert kinds(world).count("perpDexs") == kinds(world).count("openOrders") == 1
    assert not {"meta", "spotMeta", "allPerpMetas", "portfolio"} & set(kinds(world))


@pytest.mark.parametrize("network", ["testnet", "paper"])
def test_an_oracle_on_two_dexes_from_the_sync_to_the_next_day(world: World, run: Run, network: str) -> None:
    """Long one, short the other: data and quotes of both dexes, an account of both, and the night's funding."""
    world.open_dexes()
    world.half_past_two()
    spec = momentum_spec(world.folder, world.folder / "cache", data={"coins": ["BTC", "xyz:TSLA"]})
    for hours in (0, 24):
        world.server.advance(hours)
        now = pd.Timestamp(world.server.now, unit="ms", tz="UTC").isoformat()
        done = run(world.words("run", spec, "--execute", "--json", "--network", network, "--now", now))
        assert done.code == 0 and set(done.json["plan"]["weights"]) == {"BTC", "xyz:TSLA"}, done.err
    if network == "testnet":
        assert set(world.positions) == {"BTC", "xyz:TSLA"}
        return
    assert not world.server.asked("order")
    account = json.loads((world.journals / "momentum-paper.json").read_text())
    assert set(account["positions"]) == {"BTC", "xyz:TSLA"}
    tesla = next(trade for trade in account["trades"] if trade["coin"] == "xyz:TSLA")
    rate = tesla["fee_usd"] / abs(tesla["units"] * tesla["price"])
    assert rate == pytest.approx(0.00045 * 0.2, rel=1e-3)  # by the terms that the sync has seen


# Which dexes ---------------------------------------------------------------------------------------------------------


def test_a_dex_that_the_book_leaves_is_closed_and_then_forgotten(world: World, run: Run) -> None:
    world.open_dexes()
    assert run(world.rebalance(BOOK)).code == 0
    assert run(world.rebalance({"BTC": 0.3})).code == 0
    near(world, {"BTC": 0.3})
    world.server.requests.clear()
    assert run(world.rebalance({"BTC": 0.2})).code == 0
    assert not any("dex" in payload for payload in world.server.asked("metaAndAssetCtxs"))


def test_positions_of_a_dex_that_is_not_traded_stay_beside_those_of_one_that_is(world: World, run: Run) -> None:
    world.open_dexes()
    world.server.fund(MASTER.address, 1_000, dex="flx")
    sdk = client(world.server, perp_dexs=["", "flx"])
    only(sdk.order("flx:GOLD", True, 0.2, 4_010, IOC))
    only(client(world.server, perp_dexs=["xyz"]).order("xyz:TSLA", True, 1, 390, GTC))
    done = run(world.rebalance(BOOK, "--json"))
    notes = " ".join(done.json["session_notes"])
    assert done.code == 0 and "flx:GOLD: +0.2" in notes and "rest on the account, for xyz:TSLA" in notes, done.err
    assert run(world.words("flatten", "book", "--execute")).code == 0 and set(world.positions) == {"flx:GOLD"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"BTC": 0.3, "flx:GOLD": 0.2}, ["perp dex flx", "USDH"]),
        ({"BTC": 0.3, "xys:TSLA": 0.2}, ["no perp dex 'xys'", "xyz", "data.dexes"]),
    ],
)
def test_a_dex_that_cannot_be_traded_is_refused_by_name(
    world: World, run: Run, row: dict[str, float], words: list[str]
) -> None:
    world.open_dexes()
    for command in (world.rebalance(row), [word for word in world.rebalance(row) if word != "--execute"]):
        done = run(command)
        assert done.code == 1 and all(word in done.err for word in words), done.err
    assert not world.server.asked("order") and not world.server.asked("updateLeverage")
    with pytest.raises(LiveError, match=words[1]):
        dex_of(world, dexes=map(lambda coin: coin.partition(":")[0] if ":" in coin else "", row)).get_universe()


def test_a_token_without_a_name_is_refused_by_its_number(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.live.hyperliquid.PATIENCE", RetryPolicy((0.01,), (0.01,), 1.0))
    world.open_dexes()
    world.server.inject("bad_gateway", on="spotMeta", times=9)
    with pytest.raises(LiveError, match="flx is token 360"):
        dex_of(world, dexes=("", "flx")).account()


def test_a_place_that_is_empty_keeps_its_ids(world: World, run: Run) -> None:
    world.open_dexes()
    listed = world.server.answers.perp_dexs()
    world.server.answers.perp_dexs = lambda: [*listed[:1], None, *listed[2:]]  # type: ignore[method-assign]
    assert run(world.rebalance({"BTC": 0.3, "xyz:TSLA": 0.3})).code == 0
    assert {order["a"] for order in sent_orders(world)} == {0, TESLA_ID}


# Funds of each dex ---------------------------------------------------------------------------------------------------


def test_funds_that_lie_elsewhere_are_named_with_the_transfer_and_nothing_is_traded(world: World, run: Run) -> None:
    """0.45 of 10,000 USD on xyz takes 2,500 at leverage 2 and 100 at 20, and 2 % more; 1,000 are there."""
    world.open_dexes("disabled", 1_000)
    world.server.fund(MASTER.address, -1_000)
    row = {"BTC": 0.3, "xyz:TSLA": 0.5, "xyz:NVDA": -0.2}
    plan = run([word for word in world.rebalance(row) if word != "--execute"])
    done = run(world.rebalance(row))
    need = 1.02 * (5_000 / 2 + 2_000 / 20)
    assert done.code == 3 and plan.code == 3 and not sent_orders(world), done.err
    for text in (done.err, plan.err + plan.out):
        [transfer, *_] = re.findall(r"transfer ([\d,.]+) to it", " ".join(text.split()))
        assert float(transfer.replace(",", "")) == pytest.approx(need - 1_000, abs=0.2)  # whole lots
    assert "can spare 7,470.00" in done.err and "updateLeverage" not in kinds(world)
    assert world.last("refused")["limits"][0].startswith("funds:")
    world.server.fund(MASTER.address, -need + 1_000)
    world.server.fund(MASTER.address, need - 1_000, dex="xyz")
    assert run(world.rebalance(row)).code == 0 and set(world.positions) == set(row)


def test_a_book_that_shrinks_needs_no_funds(world: World, run: Run) -> None:
    world.open_dexes("disabled", 3_000)
    row = {"BTC": 0.2, "xyz:TSLA": 0.4}
    assert run(world.rebalance(row)).code == 0
    world.server.fund(MASTER.address, -1_000, dex="xyz")
    done = run(world.rebalance({"BTC": 0.4, "xyz:TSLA": 0.3}))
    assert done.code == 0, done.err
    assert run(world.rebalance({"BTC": 0.2, "xyz:TSLA": 0.5})).code == 3
    assert run(world.words("flatten", "book", "--execute")).code == 0 and world.positions == {}


def test_dollars_on_a_dex_that_is_not_traded_size_nothing(world: World, run: Run) -> None:
    world.open_dexes("disabled", 5_000)
    assert run(world.rebalance({"BTC": 0.5})).code == 0
    assert world.positions["BTC"] == pytest.approx(0.05, abs=0.0002)


# What goes wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["metaAndAssetCtxs", "clearinghouseState", "meta", "perpDexs", ""])
def test_a_dex_that_does_not_answer_opens_nothing_and_locks_no_way_out(
    world: World, run: Run, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other dex is closed; what is left is named, stays in the journal, and is closed once it can be.

    Without a kind nothing of the dex is answered: its positions are no delisted ones.
    """
    monkeypatch.setattr("engine.live.hyperliquid.PATIENCE", RetryPolicy((0.01,), (0.01,), 1.0))
    world.open_dexes()
    assert run(world.rebalance(BOOK)).code == 0
    sent = len(sent_orders(world))
    fault = world.server.inject(
        "bad_gateway", on=kind or None, times=9_999, match=lambda query: kind == "perpDexs" or query.get("dex") == "xyz"
    )
    done = run(world.rebalance({**BOOK, "BTC": 0.35}))
    assert done.code == 6 and kind in done.err and len(sent_orders(world)) == sent, done.err
    done = run(world.words("flatten", "book", "--execute"))
    assert kind in done.out + done.err and not {"BTC", "ETH"} & set(world.positions), done.err
    if kind == "meta":  # of the collateral, which a close need not know
        assert done.code == 0 and world.positions == {}
        return
    assert done.code == 4 and "xyz:TSLA" in done.err and set(world.positions) == {"xyz:TSLA", "xyz:NVDA"}, done.err
    assert {"xyz:TSLA", "xyz:NVDA"} <= set(world.last("done")["positions"])
    fault.times = 0
    done = run(world.words("flatten", "book", "--execute"))
    assert done.code == 0 and world.positions == {}, done.err
    world.check()


def test_the_main_dex_does_not_answer_and_the_other_is_closed(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.live.hyperliquid.PATIENCE", RetryPolicy((0.01,), (0.01,), 1.0))
    world.open_dexes()
    assert run(world.rebalance(BOOK)).code == 0
    world.server.inject("bad_gateway", on="metaAndAssetCtxs", times=9_999, match=lambda query: "dex" not in query)
    done = run(world.words("flatten", "book", "--execute"))
    assert done.code == 4 and set(world.positions) == {"BTC", "ETH"} and "BTC" in done.err, done.err


@pytest.mark.parametrize("fault", ["timeout", "reset", "outage", "truncated", "too_many"])
def test_faults_of_orders_of_two_dexes(world: World, run: Run, fault: str) -> None:
    world.open_dexes()
    world.hurried = True
    world.server.inject(fault, on="order")
    done = run(world.rebalance(BOOK))
    again = done if done.code == 0 else run(world.rebalance(BOOK))
    assert again.code == 0, done.err + again.err
    held(world, BOOK, 10_000)
    world.check()


@pytest.mark.parametrize(
    ("name", "times"),
    [("TooAggressiveAtOpenInterestCap", 2), ("PositionIncreaseAtOpenInterestCap", 1), ("Oracle", 1)],
)
def test_a_coin_at_the_cap_of_its_open_interest_holds_nothing_up(world: World, run: Run, name: str, times: int) -> None:
    world.open_dexes()
    world.server.reject(name, coin="xyz:TSLA", times=9)
    done = run(world.rebalance({"BTC": 0.3, "ETH": -0.3, "xyz:TSLA": 0.1}))
    assert done.code == 4 and "xyz:TSLA" in done.err and set(world.positions) == {"BTC", "ETH"}, done.err
    assert sum(order["a"] == TESLA_ID for order in sent_orders(world)) == times
    world.check()


@pytest.mark.parametrize("weight", [0.3, -0.3])
def test_a_position_at_the_cap_is_closed_at_the_oracle_price(world: World, run: Run, weight: float) -> None:
    """A price beyond the oracle's is refused there, so the limit of the slippage is: the next one is the oracle's."""
    world.open_dexes()
    assert run(world.rebalance({"BTC": 0.3, "xyz:TSLA": weight})).code == 0
    tesla = world.server.ledger.coins["xyz:TSLA"]
    tesla.open_interest_capped = True
    world.server.set_book("xyz:TSLA", bid=412.0, ask=412.2, oracle=411.9 if weight > 0 else 412.3, refill=True)
    done = run(world.words("flatten", "book", "--execute"))
    assert done.code == 0 and world.positions == {}, done.err
    assert [order.limit for order in world.server.orders if order.coin == "xyz:TSLA"][-1] == tesla.oracle
    assert len([order for order in world.server.rejected if order.coin == "xyz:TSLA"]) == 1


def test_a_kill_switch_stops_both_dexes(world: World, run: Run) -> None:
    world.open_dexes()
    assert run(world.rebalance(BOOK)).code == 0
    (world.journals / "KILL").touch()
    assert run(world.words("flatten", "book", "--execute")).code == 3 and set(world.positions) == set(BOOK)
    assert run(world.words("flatten", "book", "--execute", "--ignore-kill")).code == 0 and world.positions == {}


def test_a_dex_of_another_collateral_is_closed_where_it_is_held(world: World) -> None:
    """A spec that is refused can be left: its positions are seen and can be ordered, its equity is not known."""
    world.open_dexes()
    world.server.fund(MASTER.address, 1_000, dex="flx")
    only(client(world.server, perp_dexs=["", "flx"]).order("flx:GOLD", True, 0.2, 4_010, IOC))
    dex = dex_of(world, dexes=("", "flx", "nowhere"))
    state = dex.closing_account()
    assert state.units == {"flx:GOLD": 0.2} and state.unread == ("nowhere",) and "USDH" not in state.notes
    assert "flx:GOLD" in dex.markets() and "nowhere" in dex.why_no_quote("nowhere:COIN")


def test_a_liquidation_of_one_isolated_position_must_be_accepted(world: World, run: Run) -> None:
    world.open_dexes()
    assert run(world.rebalance(BOOK)).code == 0
    world.server.set_book("xyz:NVDA", bid=200.0, ask=200.1, refill=True)
    assert set(world.positions) == set(BOOK) - {"xyz:NVDA"}
    done = run(world.rebalance(BOOK))
    assert done.code == 3 and "xyz:NVDA: journal" in done.err, done.err
    done = run(world.rebalance(BOOK, "--accept-positions"))
    assert done.code == 0 and set(world.positions) == set(BOOK), done.err


def test_quotes_of_a_dex_that_is_not_traded_say_so(world: World) -> None:
    world.open_dexes()
    with pytest.raises(LiveError, match=r"perp dex xyz is not among those that are traded \(data.dexes\)"):
        dex_of(world).get_bid_ask("xyz:TSLA")
    assert dex_of(world, dexes=["xyz"]).get_bid_ask("xyz:TSLA") == pytest.approx((412.2, 412.4), abs=0.1)
    assert dex_of(world, dexes=["xyz"]).get_universe() == ["xyz:NVDA", "xyz:TSLA"]


# Fees ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("growth", "scale", "factor"), FACTORS)
def test_the_plan_expects_the_fee_that_is_charged(
    world: World, run: Run, growth: bool, scale: float, factor: float
) -> None:
    world.open_dexes()
    tesla = world.server.ledger.coins["xyz:TSLA"]
    tesla.growth, tesla.fee_scale = growth, scale
    tesla.refill = None
    done = run(world.rebalance({"xyz:TSLA": 0.3}, "--json"))
    [order] = done.json["plan"]["orders"]
    price = order["mid"] * 1.0002
    assert order["fee_usd"] == pytest.approx(0.00045 * factor * order["units"] * price, rel=2e-4)
    assert world.last("fills")["fills"][0]["fee_usd"] == pytest.approx(order["fee_usd"], rel=2e-4)


def test_a_rebate_has_the_growth_factor_alone(world: World) -> None:
    world.open_dexes()
    market = dex_of(world, dexes=["xyz"]).markets()["xyz:TSLA"]
    assert market.fee_rate(0.001) == pytest.approx(0.0002) and market.fee_rate(-0.001) == pytest.approx(-0.0001)
    world.server.answers.changes["xyz:TSLA"] = ({"deployerFeeScale": "much"}, {})
    market = dex_of(world, dexes=["xyz"]).markets()["xyz:TSLA"]
    assert market.fee_rate(0.001) == pytest.approx(0.002)
