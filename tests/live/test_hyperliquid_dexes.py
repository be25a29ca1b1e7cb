"""The loopback HyperLiquid: other dexes, what an account is worth, nodes that lag, and requests side by side."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from hyperliquid.utils.types import Cloid

from helpers.hyperliquid_exchange import HyperLiquidExchange
from helpers.hyperliquid_records import Coin
from helpers.hyperliquid_world import GTC, IOC, MASTER, client, error, only, trading

TSLA, GOLD = Coin("xyz:TSLA", 400.0, 2, 10), Coin("flx:GOLD", 4_000.0, 3, 20)


@pytest.fixture
def exchange() -> Iterator[HyperLiquidExchange]:
    with trading() as server:
        server.add_dex("xyz", "USDC", [Coin("xyz:NVDA", 200.0, 2, 10), TSLA])
        server.add_dex("flx", "USDH", [GOLD])
        yield server


def info(exchange: HyperLiquidExchange, kind: str, **fields: Any) -> Any:
    fields = {"user": MASTER.address} | fields if kind not in ("meta", "perpDexs", "metaAndAssetCtxs") else fields
    return client(exchange).info.post("/info", {"type": kind, **fields})


def test_dexes_have_ids_collateral_and_markets_of_their_own(exchange: HyperLiquidExchange) -> None:
    names = [dex and dex["name"] for dex in info(exchange, "perpDexs")]
    assert names == [None, "xyz", "flx"]
    assert [entry["name"] for entry in info(exchange, "meta", dex="xyz")["universe"]] == ["xyz:NVDA", "xyz:TSLA"]
    assert [info(exchange, "meta", dex=name)["collateralToken"] for name in ("", "xyz", "flx")] == [0, 0, 360]
    assert (
        len(info(exchange, "metaAndAssetCtxs")[1]) == 5 and len(info(exchange, "metaAndAssetCtxs", dex="flx")[1]) == 1
    )
    assert [exchange.ledger.asset(coin) for coin in (TSLA, GOLD)] == [110_001, 120_000]
    exchange.fund(MASTER.address, 1_000, dex="xyz")
    sdk = client(exchange, perp_dexs=["", "xyz"])
    assert "filled" in only(sdk.order("xyz:TSLA", True, 2, 401, IOC))
    assert exchange.positions(MASTER.address) == {"xyz:TSLA": 2}
    assert error(sdk.order("xyz:TSLA", True, 0.001, 401, IOC)).endswith("asset=110001")
    only(sdk.order("xyz:TSLA", True, 1, 399, GTC))
    orders = [info(exchange, "openOrders", dex=name) for name in ("", "xyz")]
    assert orders[0] == [] and [row["coin"] for row in orders[1]] == ["xyz:TSLA"]


def test_a_classic_account_has_money_on_each_dex(exchange: HyperLiquidExchange) -> None:
    exchange.fund(MASTER.address, 1_000, dex="xyz")
    sdk = client(exchange, perp_dexs=["", "xyz"])
    assert sdk.update_leverage(10, "xyz:TSLA")["status"] == "ok"
    assert error(sdk.order("xyz:TSLA", True, 30, 401, IOC)).startswith("Insufficient margin")  # 10,000 lie elsewhere
    only(sdk.order("xyz:TSLA", True, 20, 401, IOC))
    exchange.set_book("xyz:TSLA", bid=390, ask=390)
    main, xyz = (info(exchange, "clearinghouseState", dex=name) for name in ("", "xyz"))
    assert main["marginSummary"]["accountValue"] == "10000.0" and main["assetPositions"] == []
    fee = float(exchange.fills[0].fee)
    assert float(xyz["marginSummary"]["accountValue"]) == pytest.approx(1_000 - 20 * 10.04 - fee)
    assert float(xyz["crossMaintenanceMarginUsed"]) == 20 * 390 / 20
    exchange.set_book("xyz:TSLA", bid=350, ask=350)  # the dex is liquidated, the main account is not
    assert exchange.positions(MASTER.address) == {} and exchange.equity(MASTER.address) == 10_000


def test_a_unified_account_shares_one_balance_a_token(exchange: HyperLiquidExchange) -> None:
    exchange.fund(MASTER.address, 0, mode="unifiedAccount")
    exchange.fund(MASTER.address, 500, dex="flx")
    exchange.account(MASTER.address).tokens["PURR"] = exchange.ledger.minimum_usd
    sdk = client(exchange, perp_dexs=["", "xyz"])
    only(sdk.order("BTC", True, 0.05, 100_010, IOC))
    only(sdk.order("xyz:TSLA", False, 10, 399, IOC))
    sdk.update_leverage(2, "RLB", is_cross=False)
    only(sdk.order("RLB", True, 20_000, 0.051, IOC))
    exchange.set_book("BTC", bid=110_000, ask=110_000)
    exchange.set_book("RLB", bid=0.06, ask=0.06)
    states = [info(exchange, "clearinghouseState", dex=name) for name in ("", "xyz", "flx")]
    assert [len(state["assetPositions"]) for state in states] == [2, 1, 0]
    assert {state["marginSummary"]["accountValue"] for state in states} == {"0.0"}
    spot = info(exchange, "spotClearinghouseState")
    totals = {row["coin"]: float(row["total"]) for row in spot["balances"]}
    fees = float(sum(fill.fee for fill in exchange.fills))
    gains = 0.05 * 9_990 - 10 * 0.04 + 20_000 * (0.06 - 0.050005)
    assert totals["USDH"] == 500 and totals["PURR"] == 10
    assert totals["USDC"] == pytest.approx(10_000 - fees + gains, rel=1e-6)
    isolated = next(item["position"] for item in states[0]["assetPositions"] if item["position"]["coin"] == "RLB")
    assert float(isolated["marginUsed"]) == pytest.approx(20_000 * (0.050005 / 2 + 0.06 - 0.050005), rel=1e-3)
    free = dict(map(tuple, spot["tokenToAvailableAfterMaintenance"]))
    used = sum(float(state["crossMaintenanceMarginUsed"]) for state in states) + float(isolated["marginUsed"])
    assert float(free[0]) + used == pytest.approx(totals["USDC"]) and float(free[360]) == 500


def test_portfolio_is_sampled_at_deposits_and_every_quarter_of_an_hour() -> None:
    hour = 3_600_000
    with HyperLiquidExchange([Coin("BTC", 100_000.0, 5, 40)], now_ms=500_000 * hour) as exchange:
        exchange.fund(MASTER.address, 10_000, mode="unifiedAccount")
        client(exchange).market_open("BTC", True, 0.05)
        exchange.now += 20 * 60_000
        exchange.set_book("BTC", bid=110_000, ask=110_000)
        exchange.now += 20 * 60_000
        periods = dict(info(exchange, "portfolio"))
        assert set(periods) == {
            *("day", "week", "month", "allTime"),
            *("perpDay", "perpWeek", "perpMonth", "perpAllTime"),
        }
        times, values = zip(*periods["day"]["accountValueHistory"], strict=True)
        assert [time - 500_000 * hour for time in times] == [0, 900_000, 1_800_000]
        assert [float(value) for value in values] == pytest.approx([10_000, 9_997.25, 10_497.25], abs=0.01)


def test_reads_of_any_type_lag_by_actions(exchange: HyperLiquidExchange) -> None:
    sdk = client(exchange)
    exchange.lag("clearinghouseState", actions=1, times=2)
    exchange.lag("orderStatus", actions=2)
    cloid = Cloid.from_int(5)
    only(sdk.order("BTC", True, 0.01, 100_010, IOC, cloid=cloid))
    sizes = [len(sdk.info.user_state(MASTER.address)["assetPositions"]) for _ in range(3)]
    assert sizes == [0, 0, 1]
    assert sdk.info.query_order_by_cloid(MASTER.address, cloid)["status"] == "unknownOid"
    sdk.update_leverage(3, "ETH")
    sdk.update_leverage(4, "ETH")
    assert sdk.info.query_order_by_cloid(MASTER.address, cloid)["status"] == "order"


def test_one_coin_refuses_a_batch_and_a_quote_goes_away(exchange: HyperLiquidExchange) -> None:
    sdk = client(exchange)
    exchange.refuse("Computer says no", coin="ETH", times=9)
    orders: list[Any] = [
        {"coin": coin, "is_buy": True, "sz": size, "limit_px": price, "order_type": IOC, "reduce_only": False}
        for coin, size, price in (("BTC", 0.01, 100_010), ("ETH", 0.1, 4_001))
    ]
    assert sdk.bulk_orders(orders) == {"status": "err", "response": "Computer says no"}
    assert sdk.bulk_orders(orders[:1])["status"] == "ok"
    exchange.when("metaAndAssetCtxs", lambda: exchange.set_book("ETH"), nth=2)
    contexts = [sdk.info.meta_and_asset_ctxs()[1][1] for _ in range(3)]
    assert [context["midPx"] is None for context in contexts] == [False, True, True]
    assert contexts[1]["impactPxs"] is None and contexts[1]["markPx"] == "4000.0"
    exchange.answers.changes["ETH"] = ({"szDecimals": ...}, {"oraclePx": None, "new": [1]})
    meta, contexts = sdk.info.meta_and_asset_ctxs()
    assert "szDecimals" not in meta["universe"][1]
    assert (contexts[1]["oraclePx"], contexts[1]["new"]) == (None, [1])


def test_requests_side_by_side_are_told_from_requests_in_sequence(exchange: HyperLiquidExchange) -> None:
    sdk, coins = client(exchange), ["BTC", "ETH", "DOGE", "RLB"]
    with ThreadPoolExecutor(4) as pool:
        with exchange.side_by_side(4, 1):
            list(pool.map(sdk.info.l2_snapshot, coins))
            sdk.info.all_mids()
        with pytest.raises(AssertionError, match="5 requests"), exchange.side_by_side(4):
            list(pool.map(sdk.info.l2_snapshot, coins))
            sdk.info.all_mids()
    sdk = client(exchange)
    sdk.info.timeout = 0.2
    with pytest.raises(requests.exceptions.RequestException), exchange.side_by_side(2):
        sdk.info.all_mids()
