"""The loopback HyperLiquid against the real SDK: orders, margin and money, as the documentation says."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from eth_account import Account as Wallet
from eth_account.signers.local import LocalAccount
from hyperliquid.exchange import Exchange
from hyperliquid.utils.types import Cloid

from engine.data.cache import Store
from engine.data.sync_api import sync_api
from helpers.api_world import Clock, expected
from helpers.effort import some
from helpers.hyperliquid_exchange import HyperLiquidExchange, coin_of
from helpers.hyperliquid_faults import REJECTS
from helpers.hyperliquid_info import HOUR_MS
from helpers.hyperliquid_records import Coin
from helpers.hyperliquid_world import ALO, GTC, IOC, MASTER, STRANGER, client, error, only, trading
from helpers.stores import cells


@pytest.fixture
def exchange() -> Iterator[HyperLiquidExchange]:
    with trading() as server:
        yield server


@pytest.fixture
def sdk(exchange: HyperLiquidExchange) -> Exchange:
    return client(exchange)


def test_market_open_and_close(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    filled = only(sdk.market_open("BTC", True, 0.02))["filled"]
    assert filled == {"totalSz": "0.02", "avgPx": "100010.0", "oid": filled["oid"]}
    assert exchange.positions(MASTER.address) == {"BTC": 0.02}
    # Bought at 100010, marked at 100000, 4.5 basis points of 2000.20 dollars, rounded down to micro-dollars.
    assert exchange.equity(MASTER.address) == pytest.approx(10_000 - 0.2 - 0.90009, abs=1e-9)
    state = sdk.info.user_state(MASTER.address)
    position = state["assetPositions"][0]["position"]
    assert (position["szi"], position["entryPx"], position["positionValue"]) == ("0.02", "100010.0", "2000.0")
    assert float(state["marginSummary"]["accountValue"]) == pytest.approx(exchange.equity(MASTER.address))
    assert state["marginSummary"]["totalMarginUsed"] == "100.0"  # 2000 dollars at the first leverage of 20
    closed = only(sdk.market_close("BTC"))["filled"]
    assert (closed["totalSz"], closed["avgPx"]) == ("0.02", "99990.0")
    assert sdk.market_close("BTC") is None
    assert exchange.positions(MASTER.address) == {}
    opened, shut = exchange.fills
    assert (opened.direction, shut.direction, float(shut.closed_pnl)) == ("Open Long", "Close Long", -0.4)
    fees = float(opened.fee + shut.fee)
    assert exchange.equity(MASTER.address) == pytest.approx(10_000 - 0.4 - fees, abs=1e-9)
    assert [order.reduce_only for order in exchange.orders] == [False, True]


def test_statuses_follow_the_order_of_the_batch(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    def order(coin: str, size: float, price: float, kind: Any, buy: bool = True) -> Any:
        return {"coin": coin, "is_buy": buy, "sz": size, "limit_px": price, "order_type": kind, "reduce_only": False}

    answer = sdk.bulk_orders(
        [
            order("DOGE", 100, 0.19, GTC),
            order("BTC", 0.01, 101_000, IOC),
            order("ETH", 0.001, 4_100, IOC),
            order("ETH", 0.5, 3_900, IOC, buy=False),
        ]
    )
    resting, filled, tiny, sold = answer["response"]["data"]["statuses"]
    assert set(resting) == {"resting"} and filled["filled"]["totalSz"] == "0.01" and sold["filled"]["avgPx"] == "3999.0"
    assert tiny["error"] == "Order must have minimum value of $10. asset=1"
    assert exchange.positions(MASTER.address) == {"BTC": 0.01, "ETH": -0.5}


def test_ioc_takes_what_is_there(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    filled = only(sdk.order("ETH", True, 2.5, 4_001.1, IOC))["filled"]
    assert filled["totalSz"] == "2.0"  # one at 4001, one at 4001.1; the third level is out of reach
    assert float(filled["avgPx"]) == 4001.05
    status = sdk.info.query_order_by_oid(MASTER.address, filled["oid"])
    assert status["order"]["status"] == "canceled"
    assert (status["order"]["order"]["origSz"], status["order"]["order"]["sz"]) == ("2.5", "0.5")
    again = only(sdk.order("ETH", True, 1, 4_001, IOC))
    assert again["error"] == "Order could not immediately match against any resting orders. asset=1"
    assert [row["px"] for row in sdk.info.l2_snapshot("ETH")["levels"][1]] == ["4001.2"]


# Refusals of single orders


def test_tick_lot_and_minimum(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    assert error(sdk.order("BTC", True, 0.01, 100_000.5, GTC)).startswith("Price must be divisible by tick size.")
    assert error(sdk.order("ETH", True, 0.01, 3_999.11, GTC)).startswith("Price must be divisible by tick size.")
    assert error(sdk.order("DOGE", True, 100, 0.1900001, GTC)).startswith("Price must be divisible by tick size.")
    assert "resting" in only(sdk.order("BTC", True, 0.001, 99_123, GTC))  # an integer is always on the tick
    assert "resting" in only(sdk.order("DOGE", True, 100, 0.19123, GTC))
    assert error(sdk.order("DOGE", True, 100.5, 0.19, GTC)) == "Order has invalid size. asset=2"
    assert error(sdk.order("BTC", True, 0, 99_123, GTC)) == "Order has zero size. asset=0"
    assert error(sdk.order("BTC", True, 0.0001, 99_123, GTC)) == "Order must have minimum value of $10. asset=0"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(some(3, 6)))
def test_the_books_own_prices_are_accepted(seed: int) -> None:
    coins = [coin_of(f"C{number}", seed) for number in range(8)]
    with HyperLiquidExchange(coins) as exchange:
        sdk = client(exchange)
        exchange.fund(MASTER.address, 1e9)
        for coin in coins:
            bids, asks = sdk.info.l2_snapshot(coin.name)["levels"]
            assert float(bids[0]["px"]) < coin.price < float(asks[0]["px"])
            size = round(50 / coin.price, coin.sz_decimals)
            filled = only(sdk.order(coin.name, True, size, float(asks[0]["px"]), IOC))["filled"]
            assert float(filled["totalSz"]) == size
            assert "resting" in only(sdk.order(coin.name, True, size, float(bids[0]["px"]), ALO))


@pytest.mark.parametrize("exempt", [True, False])
def test_minimum_of_reduce_only_orders(exchange: HyperLiquidExchange, sdk: Exchange, exempt: bool) -> None:
    exchange.ledger.reduce_only_exempt = exempt
    sdk.market_open("ETH", True, 0.005)
    exchange.set_book("ETH", bid=1_500, ask=1_501)  # 7.50 dollars are left
    assert "minimum value of $10" in error(sdk.order("ETH", False, 0.005, 1_490, IOC))
    status = only(sdk.market_close("ETH"))
    assert ("filled" in status) is exempt
    assert exchange.positions(MASTER.address) == ({} if exempt else {"ETH": 0.005})


def test_reduce_only_never_increases_nor_flips(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    refused = "Reduce only order would increase position. asset=0"
    assert error(sdk.order("BTC", False, 0.01, 99_000, IOC, reduce_only=True)) == refused
    sdk.market_open("BTC", False, 0.01)
    assert error(sdk.order("BTC", False, 0.01, 99_000, IOC, reduce_only=True)) == refused
    assert only(sdk.order("BTC", True, 0.05, 101_000, IOC, reduce_only=True))["filled"]["totalSz"] == "0.01"
    assert exchange.positions(MASTER.address) == {}
    # Not reduce-only, the same order flips.
    sdk.market_open("BTC", False, 0.01)
    sdk.market_open("BTC", True, 0.05)
    assert exchange.positions(MASTER.address) == {"BTC": 0.04}
    assert exchange.fills[-1].direction == "Short > Long"


def test_post_only_rests_or_is_refused(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    refused = "Post only order would have immediately matched, bbo was 99990@100010. asset=0"
    assert error(sdk.order("BTC", True, 0.01, 100_010, ALO)) == refused
    oid = only(sdk.order("BTC", True, 0.01, 99_999, ALO))["resting"]["oid"]
    row = sdk.info.open_orders(MASTER.address)[0]
    assert (row["oid"], row["coin"], row["side"], row["limitPx"], row["sz"]) == (oid, "BTC", "B", "99999.0", "0.01")
    assert sdk.info.frontend_open_orders(MASTER.address)[0]["tif"] == "Alo"
    levels = sdk.info.l2_snapshot("BTC")["levels"]
    assert levels[0][0] == {"px": "99999.0", "sz": "0.01", "n": 1}
    exchange.set_book("BTC", bid=99_900, ask=99_950)  # the market comes to it: filled at its price, as a maker
    fill = exchange.fills[-1]
    assert (float(fill.price), fill.crossed) == (99_999, False)
    assert float(fill.fee) == pytest.approx(999.99 * 0.00015, abs=1e-6)
    assert sdk.info.query_order_by_oid(MASTER.address, oid)["order"]["status"] == "filled"


def test_gtc_takes_and_the_rest_rests(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    filled = only(sdk.order("BTC", True, 0.7, 100_010, GTC))["filled"]
    assert filled["totalSz"] == "0.5"
    assert [row["sz"] for row in sdk.info.open_orders(MASTER.address)] == ["0.2"]
    assert only(sdk.cancel("BTC", filled["oid"])) == "success"
    assert error(sdk.cancel("BTC", filled["oid"])) == "Order was never placed, already canceled, or filled. asset=0"
    assert sdk.info.query_order_by_oid(MASTER.address, filled["oid"])["order"]["status"] == "canceled"


def test_margin_is_that_of_the_leverage(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    exchange.set_book("BTC", bid=100_000, ask=100_000)
    assert sdk.update_leverage(5, "BTC")["status"] == "ok"
    assert error(sdk.market_open("BTC", True, 0.50001)) == "Insufficient margin to place order. asset=0"
    assert "filled" in only(sdk.market_open("BTC", False, 0.49))
    assert error(sdk.market_open("ETH", True, 1)).startswith("Insufficient margin")
    assert "filled" in only(sdk.market_open("BTC", True, 0.98))  # the margin after a flip is that of the new side
    assert sdk.update_leverage(4, "BTC") == {
        "status": "err",
        "response": "Cross position does not have sufficient margin available to decrease leverage.",
    }


def test_leverage_rules(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    for value in (0, 41):
        assert sdk.update_leverage(value, "BTC") == {"status": "err", "response": "Invalid leverage value"}
    refused = {"status": "err", "response": "Cross margin is not allowed for this asset."}
    assert sdk.update_leverage(2, "RLB", is_cross=True) == refused
    assert sdk.update_leverage(2, "RLB", is_cross=False)["status"] == "ok"
    sdk.market_open("BTC", True, 0.01)
    assert sdk.update_leverage(10, "BTC", is_cross=False)["response"].startswith("Cannot switch leverage type")
    assert sdk.update_leverage(10, "BTC")["status"] == "ok"
    leverage = sdk.info.user_state(MASTER.address)["assetPositions"][0]["position"]["leverage"]
    assert leverage == {"type": "cross", "value": 10}
    active = sdk.info.post("/info", {"type": "activeAssetData", "user": MASTER.address, "coin": "RLB"})
    assert active["leverage"]["type"] == "isolated" and active["markPx"] == "0.05"


def test_margin_tier(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    exchange.fund(MASTER.address, 1e9)
    exchange.set_book("BTC", bid=100_000, ask=100_000)
    sdk.update_leverage(40, "BTC")
    assert "filled" in only(sdk.market_open("BTC", True, 1_400))
    refused = "Order would cause position to exceed margin tier limit at current leverage asset=0"
    assert error(sdk.market_open("BTC", True, 200)) == refused
    sdk.update_leverage(20, "BTC")
    assert "filled" in only(sdk.market_open("BTC", True, 200))


def test_prices_too_far_away(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    assert error(sdk.order("BTC", False, 0.01, 10_000, IOC)).startswith("Order price cannot be more than 80% away")
    exchange.set_book("BTC", bid=99_990, ask=100_010, oracle=60_000)
    assert error(sdk.order("BTC", True, 0.01, 101_000, IOC)) == "Order price too far from oracle asset=0"


def test_open_interest_cap_lets_positions_shrink(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    sdk.market_open("BTC", True, 0.02)
    exchange.ledger.coins["BTC"].open_interest_capped = True
    refused = "Order would increase open interest while open interest is capped asset=0"
    assert error(sdk.market_open("BTC", True, 0.01)) == refused
    assert error(sdk.market_open("BTC", False, 0.05)) == refused
    assert "filled" in only(sdk.market_open("BTC", False, 0.01))
    assert sdk.info.post("/info", {"type": "perpsAtOpenInterestCap"}) == ["BTC"]


def test_delisting(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    assert "delisted" in error(sdk.order("MATIC", True, 100, 0.4, GTC))
    assert "MATIC" not in sdk.info.all_mids()
    sdk.market_open("DOGE", True, 5_000)
    oid = only(sdk.order("DOGE", True, 100, 0.19, GTC))["resting"]["oid"]
    before = exchange.equity(MASTER.address)
    exchange.delist("DOGE", price=0.15)
    assert exchange.positions(MASTER.address) == {}
    assert exchange.equity(MASTER.address) == pytest.approx(before - 0.05 * 5_000)  # marked at 0.2, no fee
    assert sdk.info.query_order_by_oid(MASTER.address, oid)["order"]["status"] == "delistedCanceled"
    assert sdk.info.user_fills(MASTER.address)[0]["dir"] == "Settlement"
    universe = sdk.info.meta()["universe"]
    assert [entry["name"] for entry in universe if entry.get("isDelisted")] == ["DOGE", "MATIC"]
    assert universe[2]["name"] == "DOGE"
    context = sdk.info.meta_and_asset_ctxs()[1][2]
    assert (context["midPx"], context["impactPxs"], context["openInterest"]) == (None, None, "0.0")


@pytest.mark.slow
@pytest.mark.parametrize("name", REJECTS)
def test_every_documented_reject_by_name(exchange: HyperLiquidExchange, sdk: Exchange, name: str) -> None:
    exchange.reject(name, coin="ETH")
    cloid = Cloid.from_int(7)
    assert "filled" in only(sdk.market_open("BTC", True, 0.01))
    text, status = REJECTS[name]
    assert error(sdk.order("ETH", True, 0.1, 4_100, IOC, cloid=cloid)) == f"{text.format(bbo='3999@4001')} asset=1"
    assert sdk.info.query_order_by_cloid(MASTER.address, cloid)["order"]["status"] == status
    assert "filled" in only(sdk.market_open("ETH", True, 0.1))


def test_fill_share(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    exchange.fill_share(0.333, coin="DOGE")
    assert only(sdk.market_open("DOGE", True, 1_000))["filled"]["totalSz"] == "333.0"
    exchange.fill_share(0.0)
    assert error(sdk.market_open("DOGE", True, 1_000)).startswith("Order could not immediately match")


# Money over time


def test_deleveraging_takes_a_leg_away(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    sdk.market_open("ETH", False, 0.5)
    before = exchange.equity(MASTER.address)
    exchange.deleverage(MASTER.address, "ETH", price=3_900, share=0.5)
    assert exchange.positions(MASTER.address) == {"ETH": -0.25}
    assert exchange.equity(MASTER.address) == pytest.approx(before + 0.25 * 100)
    exchange.deleverage(MASTER.address, "ETH")
    assert exchange.positions(MASTER.address) == {}
    assert sdk.info.user_fills(MASTER.address)[0]["dir"] == "Auto-Deleveraging"


def test_funding_is_paid_on_the_hour_at_the_oracle_price() -> None:
    hour = 3_600_000
    with HyperLiquidExchange([Coin("BTC", 100_000.0, 5, 40)], now_ms=500_000 * hour - 60_000) as exchange:
        exchange.fund(MASTER.address, 10_000)
        exchange.set_book("BTC", bid=100_000, ask=100_000, oracle=99_000)
        sdk = client(exchange)
        sdk.market_open("BTC", True, 0.1)
        exchange.set_funding("BTC", 0.0001)
        before = exchange.equity(MASTER.address)
        exchange.advance(1 / 60)  # to the hour itself
        paid = 0.1 * 99_000 * 0.0001
        assert exchange.equity(MASTER.address) == pytest.approx(before - paid, abs=1e-9)
        exchange.set_funding("BTC", -0.0002)
        sdk.market_open("BTC", False, 0.3)
        before = exchange.equity(MASTER.address)
        exchange.advance(2.5)
        assert exchange.now == 500_000 * hour + 2.5 * hour
        # Short 0.2: at a negative rate shorts pay, twice.
        assert exchange.equity(MASTER.address) == pytest.approx(before - 2 * 0.2 * 99_000 * 0.0002, abs=1e-9)
        rows = sdk.info.user_funding_history(MASTER.address, 0)
        assert [row["time"] for row in rows] == [(500_000 + n) * hour for n in range(3)]
        assert [float(row["delta"]["usdc"]) for row in rows] == pytest.approx([-0.99, -3.96, -3.96])
        rates = sdk.info.funding_history("BTC", 500_000 * hour)
        assert [float(row["fundingRate"]) for row in rates] == [0.0001, -0.0002, -0.0002]
        exchange.delist("BTC")
        before = exchange.equity(MASTER.address)
        exchange.advance(5)
        assert exchange.equity(MASTER.address) == before


def test_equity_below_the_maintenance_margin_liquidates(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    exchange.set_book("BTC", bid=100_000, ask=100_000)
    sdk.update_leverage(40, "BTC")
    sdk.market_open("BTC", True, 3)
    only(sdk.order("ETH", True, 0.1, 3_000, GTC))
    at = float(sdk.info.user_state(MASTER.address)["assetPositions"][0]["position"]["liquidationPx"])
    # 10,000 less the fee, less 3 (100,000 - p), is 3 p / 80 at the price p.
    assert at == pytest.approx((3 * 100_000 - (10_000 - 135)) / (3 * (1 - 1 / 80)), rel=1e-9)
    exchange.set_book("BTC", bid=at * 1.0001, ask=at * 1.0001)
    assert exchange.positions(MASTER.address) == {"BTC": 3}
    exchange.set_book("BTC", bid=at * 0.9999, ask=at * 0.9999)
    assert exchange.positions(MASTER.address) == {}
    assert sdk.info.user_fills(MASTER.address)[0]["dir"] == "Liquidated Cross Long"
    assert sdk.info.open_orders(MASTER.address) == []


def test_data_requests_at_the_same_address(exchange: HyperLiquidExchange, sdk: Exchange, tmp_path: Path) -> None:
    now = exchange.now
    candles = sdk.info.candles_snapshot("BTC", "1h", now - 10 * HOUR_MS, now)
    assert len(candles) == 11 and candles[-1]["T"] >= now
    assert float(candles[-1]["o"]) == pytest.approx(100_000, rel=0.05)
    assert len(sdk.info.funding_history("ETH", now - 10 * HOUR_MS)) == 10
    # The project's own sync finds what it wants there too.
    store, clock, moment = Store(tmp_path / "cache"), Clock(), pd.Timestamp(now, unit="ms", tz="UTC")
    asked: Any = {"start": moment.floor("h") - pd.Timedelta(days=5), "end": None, "coins": None, "now": moment}
    sync_api(store, base_url=exchange.url, clock=clock, sleep=clock.sleep, **asked)
    first, last = (now // HOUR_MS - 5 * 24, now // HOUR_MS)
    held, wanted = cells(store), expected(exchange.venue, first, last)
    assert {key for key in wanted if key not in held} == set()
    assert held == pytest.approx(held | wanted)


def test_spot_dollars_of_a_classic_account_are_no_collateral(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    assert sdk.info.spot_user_state(MASTER.address) == {"balances": []}
    exchange.account(MASTER.address).spot_usd += 500
    assert sdk.info.spot_user_state(MASTER.address)["balances"][0]["total"] == "500.0"
    assert sdk.info.user_state(MASTER.address)["marginSummary"]["accountValue"] == "10000.0"
    assert sdk.info.query_user_abstraction_state(MASTER.address) == "disabled"


def test_unified_account_shows_its_equity_elsewhere(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    exchange.fund(MASTER.address, 0, mode="unifiedAccount")
    sdk.market_open("BTC", True, 0.02)
    exchange.set_book("BTC", bid=101_000, ask=101_000)
    state = sdk.info.user_state(MASTER.address)
    assert state["marginSummary"]["accountValue"] == "0.0" and state["withdrawable"] == "0.0"
    usdc = sdk.info.spot_user_state(MASTER.address)["balances"][0]
    gain = float(state["assetPositions"][0]["position"]["unrealizedPnl"])
    assert gain == pytest.approx(19.8)
    spot = sdk.info.spot_user_state(MASTER.address)
    [[token, free]] = spot["tokenToAvailableAfterMaintenance"]
    equity = exchange.equity(MASTER.address)
    assert float(usdc["total"]) == pytest.approx(equity) == 10_000 - 0.90009 + gain  # marked to market
    assert token == 0 and float(free) + float(state["crossMaintenanceMarginUsed"]) == pytest.approx(equity)
    exchange.answers.total_is_marked = False  # the other reading of the documentation
    usdc = sdk.info.spot_user_state(MASTER.address)["balances"][0]
    assert float(usdc["total"]) + gain == pytest.approx(equity)
    assert sdk.info.query_user_abstraction_state(MASTER.address) == "unifiedAccount"
    assert sdk.user_set_abstraction(MASTER.address, "disabled")["status"] == "ok"
    assert sdk.agent_set_abstraction("u")["status"] == "ok"
    assert sdk.info.query_user_abstraction_state(MASTER.address) == "unifiedAccount"


def test_fees_fills_and_history(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    assert sdk.info.user_fees(MASTER.address)["userCrossRate"] == "0.00045"
    exchange.now = 1_000_000_000_000
    sdk.market_open("ETH", True, 0.5)
    exchange.now += 5_000
    sdk.market_open("ETH", False, 0.75)
    error(sdk.order("ETH", True, 0.1, 3_000, IOC))
    fills = sdk.info.user_fills(MASTER.address)
    assert [row["time"] for row in fills] == [1_000_000_005_000, 1_000_000_000_000]
    assert (fills[0]["dir"], fills[0]["startPosition"], fills[0]["closedPnl"]) == ("Long > Short", "0.5", "-1.0")
    assert fills[1]["fee"] == "0.900225"  # 0.5 * 4001 * 4.5 bp
    later = sdk.info.user_fills_by_time(MASTER.address, 1_000_000_000_001)
    assert [row["tid"] for row in later] == [2]
    assert [row["status"] for row in sdk.info.historical_orders(MASTER.address)] == [
        "iocCancelRejected",
        "filled",
        "filled",
    ]
    assert float(sdk.info.user_rate_limit(MASTER.address)["cumVlm"]) == 0.5 * 4_001 + 0.75 * 3_999


def test_orders_of_two_users_meet(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    exchange.fund(STRANGER.address, 10_000)
    other = client(exchange, STRANGER)
    only(other.order("BTC", False, 0.02, 100_000, GTC))
    filled = only(sdk.market_open("BTC", True, 0.03))["filled"]
    assert float(filled["avgPx"]) == pytest.approx((2 * 100_000 + 100_010) / 3, abs=0.1)
    assert exchange.positions(STRANGER.address) == {"BTC": -0.02}
    assert [fill.crossed for fill in exchange.fills] == [True, False, True]


def test_a_book_refills_or_is_used_up(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    exchange.set_book("ETH", bid=3_999, ask=4_001, size=1, refill=True)
    for _ in range(2):
        assert only(sdk.market_open("ETH", True, 1.5))["filled"]["totalSz"] == "1.0"
    exchange.set_book("ETH", bid=3_999)
    assert error(sdk.market_open("ETH", True, 1, px=4_000)).startswith("Order could not immediately match")
    assert exchange.ledger.coins["ETH"].mark == 4_000


def test_an_order_cancels_its_own_users_in_its_way(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    near = only(sdk.order("BTC", False, 0.02, 100_000, GTC))["resting"]["oid"]
    far = only(sdk.order("BTC", False, 0.02, 100_020, GTC))["resting"]["oid"]
    assert only(sdk.market_open("BTC", True, 0.1))["filled"]["avgPx"] == "100010.0"
    statuses = [sdk.info.query_order_by_oid(MASTER.address, oid)["order"]["status"] for oid in (near, far)]
    assert statuses == ["selfTradeCanceled", "open"]


@pytest.mark.slow
def test_many_clients_at_once_and_every_dollar_is_accounted_for(exchange: HyperLiquidExchange) -> None:
    wallets = [Wallet.from_key(f"0x{number:064x}") for number in range(1, 7)]
    for wallet in wallets:
        exchange.fund(wallet.address, 10_000)

    def trade(wallet: LocalAccount) -> None:
        sdk = client(exchange, wallet)
        for number in range(12):
            coin, size = ("BTC", 0.05) if number % 2 else ("ETH", 0.3)
            sdk.order(coin, number % 3 == 0, size, 101_000 if number % 3 == 0 and coin == "BTC" else 4_001, GTC)

    with ThreadPoolExecutor(len(wallets)) as pool:
        list(pool.map(trade, wallets))
    assert len(exchange.asked("order")) == 72
    for wallet in wallets:
        mine = [fill for fill in exchange.fills if fill.user == wallet.address.lower()]
        cash = sum(float(fill.price * fill.size) * (-1 if fill.buy else 1) - float(fill.fee) for fill in mine)
        units: dict[str, float] = {}
        for fill in mine:
            units[fill.coin] = units.get(fill.coin, 0.0) + float(fill.size) * (1 if fill.buy else -1)
        worth = sum(size * float(exchange.ledger.coins[coin].mark) for coin, size in units.items())
        assert exchange.equity(wallet.address) == pytest.approx(10_000 + cash + worth, abs=1e-6)
        held = {coin: size for coin, size in units.items() if abs(size) > 1e-9}
        assert exchange.positions(wallet.address) == pytest.approx(held)
    makers = [fill for fill in exchange.fills if not fill.crossed]
    assert makers  # they did meet one another
