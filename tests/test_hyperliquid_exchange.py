"""The loopback HyperLiquid against the real SDK: what the documentation says of `/info` and `/exchange`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from eth_account import Account as Wallet
from eth_account.signers.local import LocalAccount
from hyperliquid.exchange import Exchange

from hyperliquid_exchange import HyperLiquidExchange
from hyperliquid_ledger import Coin

MASTER: LocalAccount = Wallet.from_key("0x" + "11" * 32)
AGENT: LocalAccount = Wallet.from_key("0x" + "22" * 32)
STRANGER: LocalAccount = Wallet.from_key("0x" + "33" * 32)
IOC: Any = {"limit": {"tif": "Ioc"}}
GTC: Any = {"limit": {"tif": "Gtc"}}
ALO: Any = {"limit": {"tif": "Alo"}}
COINS = [
    Coin("BTC", 100_000.0, 5, 40, tiers=((150e6, 20),)),
    Coin("ETH", 4_000.0, 4, 25),
    Coin("DOGE", 0.2, 0, 10),
    Coin("RLB", 0.05, 0, 3, margin_mode="strictIsolated"),
    Coin("MATIC", 0.4, 1, 20, delisted=True),
]


@pytest.fixture
def exchange() -> Iterator[HyperLiquidExchange]:
    coins = [Coin(c.name, c.price, c.sz_decimals, c.max_leverage, c.margin_mode, c.tiers, c.delisted) for c in COINS]
    with HyperLiquidExchange(coins) as server:
        server.fund(MASTER.address, 10_000)
        server.set_book("BTC", bid=99_990, ask=100_010, size=0.5)
        server.set_book("ETH", bid=3_999, ask=4_001, size=1, levels=3)
        server.set_book("DOGE", bid=0.1999, ask=0.2001, size=50_000)
        yield server


@pytest.fixture
def sdk(exchange: HyperLiquidExchange) -> Exchange:
    return client(exchange)


def client(exchange: HyperLiquidExchange, wallet: LocalAccount = MASTER, **options: Any) -> Exchange:
    made = Exchange(wallet, exchange.url, timeout=5, **options)
    post = made._post_action

    def spaced(action: Any, signature: Any, nonce: int) -> Any:
        time.sleep(0.002)  # the SDK takes the millisecond as nonce: two actions in one would be one
        return post(action, signature, nonce)

    made._post_action = spaced  # type: ignore[method-assign]
    return made


def only(answer: Any) -> Any:
    """The single status of an answer to a batch of one."""
    assert answer["status"] == "ok", answer
    statuses = answer["response"]["data"]["statuses"]
    assert len(statuses) == 1
    return statuses[0]


def error(answer: Any) -> str:
    return str(only(answer)["error"])


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
