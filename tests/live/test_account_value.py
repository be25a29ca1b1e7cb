"""What an account is worth, by hand: unified and standard, other dexes, isolated margin, and figures that disagree."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from engine import HyperLiquidDEX
from engine.errors import LiveError, UnreachableError
from engine.retries import RetryPolicy
from helpers.hyperliquid_faults import weight_of
from helpers.hyperliquid_records import Coin
from helpers.hyperliquid_world import GTC, IOC, MASTER, client, only
from helpers.live_world import Run, World, near

pytestmark = pytest.mark.slow

#: 0.09 BTC bought at 100,020 for a fee of 4.05, then marked at 120,000.
SETTLED, PROFIT = 10_000 - 4.05081, 0.09 * (120_000 - 100_020)
EQUITY = SETTLED + PROFIT


def dex_of(world: World) -> HyperLiquidDEX:
    return HyperLiquidDEX(base_url=world.server.url, credentials=world.credentials, sleep=lambda seconds: None)


def grown(world: World, run: Run, mode: str = "unifiedAccount") -> None:
    """A 0.9 book whose price is 20 % higher."""
    world.server.fund(MASTER.address, 0, mode)
    assert run(world.rebalance({"BTC": 0.9})).code == 0
    quote(world, "BTC", 120_000)


def quote(world: World, coin: str, price: float) -> None:
    world.server.set_book(coin, bid=price * 0.9998, ask=price * 1.0002, refill=True)


@pytest.mark.parametrize("mode", ["unifiedAccount", "disabled"])
def test_profit_is_counted_once(world: World, run: Run, mode: str) -> None:
    """11,794 and not 13,592: the book is cut to 0.9, not bought up to 1.037."""
    grown(world, run, mode)
    assert dex_of(world).account().equity_usd == pytest.approx(EQUITY, abs=0.01) == 11_794.15
    assert run(world.rebalance({"BTC": 0.9})).code == 0
    near(world, {"BTC": 0.9}, 0.0005)
    assert world.server.orders[-1].reduce_only
    assert not world.server.asked("portfolio")


def test_a_total_without_profit_is_refused_with_both_figures(world: World, run: Run) -> None:
    """The other reading of the documentation: what is free after maintenance shows it."""
    grown(world, run)
    world.server.answers.total_is_marked = False
    done = run(world.rebalance({"BTC": 0.9}))
    assert done.code == 3 and "9,995.95" in done.err and "11,794.15" in done.err, done.err
    assert len(world.server.asked("order")) == 1
    plan = run([word for word in world.rebalance({"BTC": 0.9}) if word != "--execute"])
    assert "11,794.15" in plan.out + plan.err
    assert run(world.words("flatten", "book", "--execute")).code == 0 and world.positions == {}
    assert world.last("plan")["equity_usd"] is None  # rather than a wrong one
    assert world.last("done")["equity_usd"] == pytest.approx(11_787.13, abs=0.01)  # nothing is held, all is certain
    assert [row["equity_usd"] for row in run(world.words("status", "book", "--json")).json["runs"]] == [10_000, None]


@pytest.mark.parametrize(
    ("marked", "minutes", "code"),
    [(True, 20, 0), (False, 20, 3), (True, 0, 3)],
    ids=["fits the total", "fits total and profit", "fits neither"],
)
def test_without_that_figure_the_exchanges_own_history_decides(
    world: World, run: Run, marked: bool, minutes: int, code: int
) -> None:
    world.half_past_two()
    world.server.answers.shows_available = False
    grown(world, run)
    world.server.answers.total_is_marked = marked
    world.server.now += minutes * 60_000
    done = run(world.rebalance({"BTC": 0.8}))
    assert done.code == code, done.err
    assert code == 0 or ("not certain" in done.err and "11,794.15" in done.err and "portfolio" not in done.err)
    assert len(world.server.asked("order")) == 1 + (code == 0)


def test_a_figure_of_before_is_read_again(world: World, run: Run) -> None:
    """The spot account of before the close, with the positions of after it: a total too high by the profit's fees."""
    grown(world, run)
    world.server.lag("spotClearinghouseState", actions=1, times=1)
    client(world.server).market_open("BTC", False, 0.05)
    world.server.ledger.coins["BTC"].max_leverage = 3  # a sixth of the position is maintenance
    state = dex_of(world).account()
    assert not state.doubt and state.equity_usd == pytest.approx(world.server.equity(MASTER.address), abs=0.01)


def test_a_history_that_is_old_or_empty_decides_nothing(world: World, run: Run) -> None:
    world.half_past_two()
    world.server.answers.shows_available = False
    grown(world, run)
    world.server.account(MASTER.address).samples[:] = [(world.server.now - 5_400_000, Decimal("11794"))]
    world.server._sample = lambda: None  # type: ignore[method-assign]
    assert "no figure of its own of the last hour" in dex_of(world).account().doubt
    world.server.account(MASTER.address).samples.clear()
    assert "no figure of its own of the last hour" in dex_of(world).account().doubt


def test_a_profit_that_is_no_matter_is_not_looked_into(world: World, run: Run) -> None:
    world.server.answers.shows_available = False
    world.server.answers.total_is_marked = False
    world.server.fund(MASTER.address, 0, "unifiedAccount")
    assert run(world.rebalance({"BTC": 0.9})).code == 0
    quote(world, "BTC", 100_900)
    assert run(world.rebalance({"BTC": 0.9})).code == 0 and not world.server.asked("portfolio")
    quote(world, "BTC", 106_000)
    world.server.advance(0.3)
    assert run(world.rebalance({"BTC": 0.9})).code == 3 and world.server.asked("portfolio")


def test_isolated_margin_holds_and_other_tokens(world: World, run: Run) -> None:
    """RLB is isolated and doubles; an order rests; HYPE lies in the spot account: the total is what counts."""
    world.server.fund(MASTER.address, 0, "unifiedAccount")
    world.server.account(MASTER.address).tokens["PURR"] = Decimal(77)
    assert run(world.rebalance({"BTC": 0.5, "RLB": 0.2})).code == 0
    only(client(world.server).order("ETH", True, 0.5, 3_000, GTC))
    quote(world, "RLB", 0.1)
    state = dex_of(world).account()
    assert state.equity_usd == pytest.approx(world.server.equity(MASTER.address), abs=0.01) and not state.doubt
    assert 11_990 < state.equity_usd < 12_000
    assert state.notes == ("77 PURR are not counted in the equity, which is USDC",)
    status = run(world.words("status", "book", "--json"))
    assert status.json["account"]["notes"] == list(state.notes)


def test_borrowed_dollars_are_negative_equity_and_stop_the_run(world: World, run: Run) -> None:
    world.server.fund(MASTER.address, -12_000, "unifiedAccount")
    assert dex_of(world).account().equity_usd == -2_000
    done = run(world.rebalance({"BTC": 0.5}))
    assert done.code == 3 and "-2,000.00" in done.err and not world.server.asked("order")


@pytest.mark.parametrize("mode", ["portfolioMargin", "somethingNew"])
def test_other_modes_are_refused_by_name(world: World, run: Run, mode: str) -> None:
    world.server.fund(MASTER.address, 0, mode)
    done = run(world.rebalance({"BTC": 0.5}))
    assert done.code == 1 and mode in done.err and not world.server.asked("order")
    with pytest.raises(LiveError, match=mode):
        dex_of(world).account()
    world.server.fund(MASTER.address, 0, "disabled")
    assert run(world.rebalance({"BTC": 0.5, "ETH": -0.4})).code == 0
    world.server.fund(MASTER.address, 0, mode)
    plan = run(world.words("flatten", "book"))
    assert plan.code == 0 and "not known" in plan.out and mode in plan.out and world.positions, plan.err
    done = run([*world.words("flatten", "book", "--execute"), "--webhook", f"{world.server.url}/hook"])
    assert done.code == 0 and mode in done.out and world.positions == {}, done.err
    assert world.last("plan")["equity_usd"] is None and world.last("done")["equity_usd"] is None
    world.server.fund(MASTER.address, 0, "disabled")
    assert run(world.rebalance({"BTC": 0.5})).code == 0
    near(world, {"BTC": 0.5})


def test_dollars_in_the_spot_account_of_a_standard_one(world: World, run: Run) -> None:
    world.server.fund(MASTER.address, -10_000)
    done = run(world.rebalance({"BTC": 0.5}))
    assert done.code == 3 and "agent" in done.err  # nothing anywhere
    world.server.account(MASTER.address).spot_usd = Decimal("2500.5")
    done = run(world.rebalance({"BTC": 0.5}))
    assert done.code == 3 and "2,500.50 USDC lie in the spot account" in done.err and "agent" not in done.err
    assert "Move USDC from spot to perp" in done.err and not world.server.asked("order")
    plan = run([word for word in world.rebalance({"BTC": 0.5}) if word != "--execute"])
    assert plan.code == 3 and "Move USDC" in plan.err and "agent" not in plan.out + plan.err


# Other dexes


def with_dexes(world: World, mode: str) -> None:
    """Long 10 xyz:TSLA at 400 of USDC, and 0.5 flx:GOLD at 4,000 of USDH."""
    server = world.server
    server.add_dex("xyz", "USDC", [Coin("xyz:TSLA", 400.0, 2, 10)])
    server.add_dex("empty", "USDe")
    server.add_dex("flx", "USDH", [Coin("flx:GOLD", 4_000.0, 3, 20)])
    server.fund(MASTER.address, 0, mode)
    server.fund(MASTER.address, 1_000, dex="flx")
    if mode != "unifiedAccount":
        server.fund(MASTER.address, 2_000, dex="xyz")
    sdk = client(server, perp_dexs=["", "xyz", "flx"])
    for coin, units, price in (("xyz:TSLA", 10, 401), ("flx:GOLD", 0.5, 4_010)):
        only(sdk.order(coin, True, units, price, IOC))


def test_a_loss_on_another_dex_of_the_same_collateral(world: World, run: Run) -> None:
    with_dexes(world, "unifiedAccount")
    world.server.set_book("xyz:TSLA", bid=300, ask=300)
    world.server.set_book("flx:GOLD", bid=5_000, ask=5_000)
    state = dex_of(world).account()
    fee = 10 * 400.04 * 0.00045
    assert state.equity_usd == pytest.approx(10_000 - 10 * 100.04 - fee, abs=0.01) and not state.doubt
    assert state.units == {} and state.foreign == pytest.approx({"xyz:TSLA": 3_000, "flx:GOLD": 2_500})
    [tesla, gold, usdh] = state.notes
    assert "xyz:TSLA: +10, +3,000.00 USD, on another perp dex" in tesla and "flx:GOLD" in gold
    assert "USDH are not counted in the equity" in usdh and usdh.startswith("1,498.8999")
    world.server.answers.total_is_marked = False  # the position of the other dex decides
    assert "9,998.20" in dex_of(world).account().doubt


@pytest.mark.parametrize("mode", ["unifiedAccount", "disabled"])
def test_positions_of_other_dexes_count_in_the_gross_and_stay(world: World, run: Run, mode: str) -> None:
    """0.9 and 0.6 of equity are beyond the limit of 1.1; with a higher one the book is traded, and nothing else."""
    with_dexes(world, mode)
    done = run(world.rebalance({"BTC": 0.9}))
    assert done.code == 3 and "gross: the plan leads to 1.5" in done.err and not world.positions.get("BTC")
    done = run(world.rebalance({"BTC": 0.9}, "--limit", "gross=1.6", "--json"))
    assert done.code == 0 and done.json["plan"]["gross_before"] == pytest.approx(0.6, abs=0.001), done.err
    assert any("xyz:TSLA" in note for note in done.json["session_notes"])
    assert set(world.positions) == {"BTC", "xyz:TSLA", "flx:GOLD"}
    assert world.positions["xyz:TSLA"] == 10
    equity = dex_of(world).account().equity_usd
    assert equity == pytest.approx(10_000, abs=10)
    assert world.positions["BTC"] * 100_000 == pytest.approx(9_000, abs=10)
    assert run(world.words("flatten", "book", "--execute")).code == 0
    assert set(world.positions) == {"xyz:TSLA", "flx:GOLD"}


def test_money_on_other_dexes_of_a_standard_account_is_named(world: World) -> None:
    with_dexes(world, "disabled")
    notes = dex_of(world).account().notes
    assert any("USDC on the perp dex xyz are not counted" in note and "1,997.80" in note for note in notes)
    assert any("of token 360 on the perp dex flx are not counted" in note for note in notes)


@pytest.mark.parametrize("kind", ["perpDexs", "clearinghouseState", "meta", "userAbstraction"])
def test_a_dex_that_does_not_answer_is_not_an_empty_one(
    world: World, run: Run, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is opened; but the way out is not locked: what the main dex shows is closed."""
    monkeypatch.setattr("engine.live.hyperliquid.PATIENCE", RetryPolicy((0.01,), (0.01,), 1.0))
    with_dexes(world, "disabled")
    assert run(world.rebalance({"BTC": 0.5}, "--accept-positions")).code == 0
    sent = len(world.server.asked("order"))
    named = kind in ("perpDexs", "userAbstraction")
    world.server.inject("bad_gateway", on=kind, times=999, match=lambda query: named or "dex" in query)
    with pytest.raises(UnreachableError, match=kind if named else f"{kind} of the perp dex (xyz|empty|flx)"):
        dex_of(world).account()
    assert run(world.rebalance({"BTC": 0.2})).code == 6 and len(world.server.asked("order")) == sent
    done = run(world.words("flatten", "book", "--execute"))
    assert done.code == 0 and "only what the main dex shows is closed" in done.out and kind in done.out, done.err
    assert set(world.positions) == {"xyz:TSLA", "flx:GOLD"} and world.last("done")["equity_usd"] is None


def test_dexes_are_read_side_by_side_within_the_weights(world: World) -> None:
    """Eleven dexes, ten requests at a time; which dexes and what kind of account is asked by the first reading."""
    for number in range(10):
        world.server.add_dex(f"d{number}")
    world.server.fund(MASTER.address, 0, "unifiedAccount")
    dex, requests = dex_of(world), world.server.requests
    weights = []
    for groups in ((2, 10, 2), (10, 2)):
        requests.clear()
        with world.server.side_by_side(*groups):
            dex.account()
        weights.append(sum(weight_of(path, payload) for path, payload in requests))
    assert weights == [20 + 20 + 11 * 2 + 2, 11 * 2 + 2]


# Coins that nobody trades


UNREADABLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no lots": ({"szDecimals": ...}, {}),
    "null lots": ({"szDecimals": None}, {}),
    "nonsense lots": ({"szDecimals": "many"}, {}),
    "no name": ({"name": ...}, {}),
    "no leverage": ({"maxLeverage": ...}, {}),
    "null oracle": ({}, {"oraclePx": None}),
    "nonsense oracle": ({}, {"oraclePx": "soon"}),
    "NaN mid": ({}, {"midPx": "NaN"}),
    "null mid": ({}, {"midPx": None, "impactPxs": None}),
    "half an impact": ({}, {"impactPxs": ["1.0"]}),
    "delisted": ({"isDelisted": True}, {}),
    "new fields": ({"tags": ["x"]}, {"skew": {"a": None}}),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_coin_that_is_not_used_ends_nothing(world: World, run: Run, name: str) -> None:
    world.server.answers.changes["DOGE"] = UNREADABLE[name]
    assert run(world.rebalance({"BTC": 0.4, "RLB": -0.2})).code == 0
    near(world, {"BTC": 0.4, "RLB": -0.2})
    dex = HyperLiquidDEX("mainnet", base_url=world.server.url, credentials=world.credentials)
    assert dex.unlisted(["BTC", "NEVER"]) == ["NEVER"] and dex.live_row()["mid"]["BTC"] == 100_000
    assert run(world.words("flatten", "book", "--execute")).code == 0 and world.positions == {}


@pytest.mark.parametrize("name", ["null oracle", "nonsense oracle"])
def test_a_coin_of_the_book_without_an_oracle_price(world: World, run: Run, name: str) -> None:
    """Its distance from the oracle price is not known, so nothing is opened; what is held can be left."""
    assert run(world.rebalance({"ETH": 0.2})).code == 0
    world.server.answers.changes["ETH"] = UNREADABLE[name]
    done = run(world.rebalance({"BTC": 0.4, "ETH": 0.4}))
    assert done.code == 3 and "price_deviation_frac: ETH" in done.err and "is not known" in done.err, done.err
    assert run(world.words("flatten", "book", "--execute")).code == 0 and world.positions == {}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no lots", "its szDecimals is None"),
        ("nonsense lots", "its szDecimals is 'many'"),
        ("null mid", "its midPx is None"),
        ("NaN mid", "its midPx is 'NaN'"),
        ("delisted", "it is delisted"),
    ],
)
def test_a_held_coin_that_cannot_be_traded_is_named_and_the_others_are_closed(
    world: World, run: Run, name: str, why: str
) -> None:
    assert run(world.rebalance({"BTC": 0.3, "ETH": 0.2})).code == 0
    world.server.answers.changes["ETH"] = UNREADABLE[name]
    done = run(world.words("flatten", "book", "--execute"))
    assert done.code == 4 and "ETH is at" in done.err and set(world.positions) == {"ETH"}, done.err
    assert f"(it has no quote now: {why})" in done.err and f"has no quote now: {why}" in done.out
    assert world.last("plan")["plan"]["skips"][0]["reason"] == f"has no quote now: {why}"
    wanted = run(world.rebalance({"ETH": 0.1}))
    assert wanted.code == 4 and f"now: {why}, so its +10.00% of equity cannot be sized)" in wanted.err
    world.server.answers.changes.clear()
    assert run(world.words("flatten", "book", "--execute")).code == 0 and world.positions == {}


def test_a_position_without_readable_figures_can_be_closed(world: World, run: Run) -> None:
    assert run(world.rebalance({"BTC": 0.3})).code == 0
    state = world.server.answers.state

    def spoiled(user: str, now: int) -> Any:
        answer = state(user, now)
        for item in answer["assetPositions"]:
            item["position"] |= {"positionValue": None, "unrealizedPnl": "none", "leverage": "high"}
        return answer

    world.server.answers.state = spoiled  # type: ignore[method-assign, assignment]
    assert run(world.words("flatten", "book", "--execute")).code == 0 and world.positions == {}


@pytest.mark.parametrize("kind", ["clearinghouseState", "spotClearinghouseState"])
def test_a_read_that_fails_after_the_orders_hides_nothing(
    world: World, run: Run, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another dex stops answering once orders are sent: results add up, the run says so, a rerun sends nothing."""
    monkeypatch.setattr("engine.live.hyperliquid.PATIENCE", RetryPolicy((0.01,), (0.01,), 1.0))
    world.server.add_dex("xyz")
    world.server.fund(MASTER.address, 0, "unifiedAccount")
    fault = world.server.inject("bad_gateway", on=kind, times=0, match=lambda query: "dex" in query or "spot" in kind)
    world.server.when("order", lambda: setattr(fault, "times", 99))
    done = run(world.rebalance({"BTC": 0.4, "ETH": -0.2}))
    assert done.code == 0 and f"does not answer {kind}" in done.out, done.err
    sent, fault.times = len(world.server.asked("order")), 0
    done = run(world.rebalance({"BTC": 0.4, "ETH": -0.2}))
    assert done.code == 0 and len(world.server.asked("order")) == sent, done.err
    near(world, {"BTC": 0.4, "ETH": -0.2})
    world.check()
