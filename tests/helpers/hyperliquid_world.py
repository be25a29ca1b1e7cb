"""What the tests of the loopback HyperLiquid share: wallets, a universe, and the real SDK at its address."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from eth_account import Account as Wallet
from eth_account.signers.local import LocalAccount
from hyperliquid.exchange import Exchange

from helpers.hyperliquid_exchange import HyperLiquidExchange
from helpers.hyperliquid_records import Coin

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


@contextmanager
def trading() -> Iterator[HyperLiquidExchange]:
    """Five coins, books of known depth, and 10,000 dollars of MASTER."""
    coins = [Coin(c.name, c.price, c.sz_decimals, c.max_leverage, c.margin_mode, c.tiers, c.delisted) for c in COINS]
    with HyperLiquidExchange(coins) as server:
        server.fund(MASTER.address, 10_000)
        server.set_book("BTC", bid=99_990, ask=100_010, size=0.5)
        server.set_book("ETH", bid=3_999, ask=4_001, size=1, levels=3)
        server.set_book("DOGE", bid=0.1999, ask=0.2001, size=50_000)
        yield server


def client(exchange: HyperLiquidExchange, wallet: LocalAccount = MASTER, **options: Any) -> Exchange:
    """The SDK's Exchange at the loopback address."""
    made = Exchange(wallet, exchange.url, timeout=30, **options)
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
    """The text of a single refused order."""
    return str(only(answer)["error"])
