"""The loopback HyperLiquid against the real SDK: who may act, nonces, expiry, cloids, whole batches, limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from eth_account import Account as Wallet
from eth_account.signers.local import LocalAccount
from hyperliquid.exchange import Exchange
from hyperliquid.utils.signing import get_timestamp_ms, order_wires_to_order_action, sign_l1_action
from hyperliquid.utils.types import Cloid

from helpers.hyperliquid_exchange import HyperLiquidExchange
from helpers.hyperliquid_world import AGENT, GTC, IOC, MASTER, STRANGER, client, error, only, trading


@pytest.fixture
def exchange() -> Iterator[HyperLiquidExchange]:
    with trading() as server:
        yield server


@pytest.fixture
def sdk(exchange: HyperLiquidExchange) -> Exchange:
    return client(exchange)


def test_a_strangers_key(exchange: HyperLiquidExchange) -> None:
    answer = client(exchange, STRANGER).market_open("BTC", True, 0.01)
    refused = f"User or API Wallet {STRANGER.address.lower()} does not exist."
    assert answer == {"status": "err", "response": refused}
    exchange.fund(STRANGER.address, 0)
    assert client(exchange, STRANGER).market_open("BTC", True, 0.01)["response"].startswith("Must deposit before")


def test_an_agent_signs_for_its_master(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    agent = client(exchange, AGENT, account_address=MASTER.address)
    assert "does not exist" in agent.market_open("BTC", True, 0.01)["response"]
    until = get_timestamp_ms() + 60_000
    exchange.approve_agent(MASTER.address, AGENT.address, "robot", until)
    assert "filled" in only(agent.market_open("BTC", True, 0.01))
    assert exchange.positions(MASTER.address) == {"BTC": 0.01}
    assert "filled" in only(agent.market_close("BTC"))
    row = {"name": "robot", "address": AGENT.address.lower(), "validUntil": until}
    assert sdk.info.extra_agents(MASTER.address) == [row]
    assert sdk.info.user_role(AGENT.address) == {"role": "agent", "data": {"user": MASTER.address.lower()}}
    # Asked about the agent, the exchange knows nothing.
    oid = exchange.orders[-1].oid
    assert sdk.info.query_order_by_oid(AGENT.address, oid) == {"status": "unknownOid"}
    exchange.signing_clock = lambda: until + 1
    assert "does not exist" in agent.market_open("BTC", True, 0.01)["response"]


def test_agents_approved_by_the_sdk(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    for name in (None, "one"):
        answer, key = sdk.approve_agent(name)
        assert answer["status"] == "ok"
        agent = client(exchange, Wallet.from_key(key), account_address=MASTER.address)
        assert "filled" in only(agent.market_open("BTC", True, 0.01))
    assert [row["name"] for row in sdk.info.extra_agents(MASTER.address)] == ["one"]


@pytest.mark.parametrize("role", ["vault", "subAccount"])
def test_vaults_and_sub_accounts(exchange: HyperLiquidExchange, sdk: Exchange, role: str) -> None:
    vault = exchange.create_vault(MASTER.address, 5_000, role)
    assert "filled" in only(client(exchange, vault_address=vault).market_open("BTC", True, 0.01))
    assert (exchange.positions(vault), exchange.positions(MASTER.address)) == ({"BTC": 0.01}, {})
    assert sdk.info.user_role(vault)["role"] == role
    exchange.fund(STRANGER.address, 100)
    assert client(exchange, STRANGER, vault_address=vault).market_open("BTC", True, 0.01)["status"] == "err"
    answer = client(exchange, vault_address=MASTER.address).market_open("BTC", True, 0.01)
    assert answer["response"].startswith("Vault not registered")


def signed(wallet: LocalAccount, nonce: int, mainnet: bool = False, **changes: Any) -> dict[str, Any]:
    """A signed order for 0.01 BTC; `changes` are made to its wire form after the signature."""
    wire: Any = {"a": 0, "b": True, "p": "101000", "s": "0.01", "r": False, "t": {"limit": {"tif": "Ioc"}}}
    action = order_wires_to_order_action([wire])
    signature = sign_l1_action(wallet, action, None, nonce, None, mainnet)
    wire.update(changes)
    return {"action": action, "nonce": nonce, "signature": signature, "vaultAddress": None, "expiresAfter": None}


def post(exchange: HyperLiquidExchange, payload: dict[str, Any]) -> Any:
    return requests.post(exchange.url + "/exchange", json=payload, timeout=30).json()


def test_what_was_signed_is_what_counts(exchange: HyperLiquidExchange) -> None:
    nonce = get_timestamp_ms()
    for changes in ({"s": "0.02"}, {"b": False}, {"p": "101001"}, {"c": "0x" + "0" * 32}):
        assert "does not exist" in post(exchange, signed(MASTER, nonce, **changes))["response"]
    assert "does not exist" in post(exchange, signed(MASTER, nonce) | {"nonce": nonce + 1})["response"]
    assert "does not exist" in post(exchange, signed(MASTER, nonce) | {"expiresAfter": nonce + 9})["response"]
    # The exchange hashes numbers in their shortest form.
    assert "does not exist" not in str(post(exchange, signed(MASTER, nonce, s="0.0100", p="101000.0")))
    assert exchange.positions(MASTER.address) == {"BTC": 0.01}


@pytest.mark.parametrize("mainnet", [True, False])
def test_network_is_part_of_the_signature(mainnet: bool) -> None:
    with HyperLiquidExchange(["BTC"], network="mainnet") as exchange:
        exchange.fund(MASTER.address, 10_000)
        answer = post(exchange, signed(MASTER, get_timestamp_ms(), mainnet))
    assert (answer["status"] == "ok") is mainnet


@pytest.mark.slow
def test_nonces(exchange: HyperLiquidExchange) -> None:
    now = get_timestamp_ms()
    assert post(exchange, signed(MASTER, now))["status"] == "ok"
    again = post(exchange, signed(MASTER, now))
    assert again == {"status": "err", "response": f"Invalid nonce: duplicate nonce {now}"}
    assert post(exchange, signed(MASTER, now - 1))["status"] == "ok"  # any order, as long as it is new
    day = 86_400_000
    for nonce in (now - 2 * day - 1_000, now + day + 60_000):
        assert post(exchange, signed(MASTER, nonce))["response"].startswith("Invalid nonce")
    for step in range(1, 99):
        assert post(exchange, signed(MASTER, now + step))["status"] == "ok"
    assert "too low" in post(exchange, signed(MASTER, now - 2))["response"]  # 100 higher ones are kept
    assert post(exchange, signed(MASTER, now + 99))["status"] == "ok"  # in the place of the lowest
    assert "duplicate" in post(exchange, signed(MASTER, now + 98))["response"]
    assert len(exchange.fills) == 50  # half a coin was offered


def test_expires_after(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    sdk.set_expires_after(get_timestamp_ms() - 1)
    assert "expired" in sdk.market_open("BTC", True, 0.01)["response"]
    sdk.set_expires_after(get_timestamp_ms() + 15_000)
    assert "filled" in only(sdk.market_open("BTC", True, 0.01))
    assert sdk.info.user_rate_limit(MASTER.address)["nRequestsUsed"] == 6  # a stale action counts five times


def test_duplicate_cloids(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    cloid = Cloid.from_int(1)
    assert sdk.info.query_order_by_cloid(MASTER.address, cloid) == {"status": "unknownOid"}
    exchange.reject("IocCancel")
    assert "error" in only(sdk.market_open("BTC", True, 0.01, cloid=cloid))
    filled = only(sdk.market_open("BTC", True, 0.01, cloid=cloid))["filled"]  # nothing came of it: free again
    assert filled["cloid"] == cloid.to_raw()
    assert "cloid" in error(sdk.market_open("BTC", True, 0.01, cloid=cloid))
    status = sdk.info.query_order_by_cloid(MASTER.address, cloid)["order"]
    assert status["order"]["cloid"] == cloid.to_raw()
    exchange.ledger.refuse_duplicate_cloids = False
    assert "filled" in only(sdk.market_open("BTC", True, 0.01, cloid=cloid))
    assert exchange.positions(MASTER.address) == {"BTC": 0.02}


def test_cancel_by_cloid(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    cloid = Cloid.from_int(2)
    assert only(sdk.order("BTC", True, 0.01, 90_000, GTC, cloid=cloid))["resting"]["cloid"] == cloid.to_raw()
    assert only(sdk.cancel_by_cloid("BTC", cloid)) == "success"
    assert error(sdk.cancel_by_cloid("BTC", cloid)) == "Order was never placed, already canceled, or filled. asset=0"
    assert sdk.info.open_orders(MASTER.address) == []


def test_whole_batches_are_refused_before_anything_is_placed(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    assert sdk.bulk_orders([])["status"] == "err"
    good: Any = {"coin": "BTC", "is_buy": True, "sz": 0.01, "limit_px": 101_000.0, "order_type": IOC}
    trigger: Any = {"trigger": {"isMarket": True, "triggerPx": 90_000.0, "tpsl": "sl"}}
    bad = good | {"order_type": trigger}
    assert sdk.bulk_orders([good | {"reduce_only": False}, bad | {"reduce_only": False}])["status"] == "err"
    exchange.refuse("Order price too far from oracle")
    answer = sdk.market_open("BTC", True, 0.01)
    assert answer == {"status": "err", "response": "Order price too far from oracle"}
    assert exchange.positions(MASTER.address) == {}
    sdk.info.coin_to_asset["BTC"] = 99  # a universe of another day
    sdk.info.asset_to_sz_decimals[99] = 5
    assert sdk.market_open("BTC", True, 0.01, px=100_000) == {"status": "err", "response": "Unknown asset 99"}


@pytest.mark.parametrize("whole", [False, True])
def test_prevalidation_refuses_the_batch_with_one_text(
    exchange: HyperLiquidExchange, sdk: Exchange, whole: bool
) -> None:
    exchange.ledger.prevalidated = {"Tick"} if whole else set()
    good: Any = {"coin": "BTC", "is_buy": True, "sz": 0.01, "limit_px": 101_000.0, "order_type": IOC}
    answer = sdk.bulk_orders([good | {"reduce_only": False}, good | {"limit_px": 100_000.5, "reduce_only": False}])
    if whole:
        assert answer == {"status": "err", "response": "Price must be divisible by tick size."}
    else:
        assert [set(status) for status in answer["response"]["data"]["statuses"]] == [{"filled"}, {"error"}]
    assert exchange.positions(MASTER.address) == ({} if whole else {"BTC": 0.01})


def test_schedule_cancel_needs_a_million_traded(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    refused = "Cannot set scheduled cancel time until enough volume traded. Required: $1000000. Traded: $0."
    assert sdk.schedule_cancel(get_timestamp_ms() + 60_000)["response"] == refused
    exchange.account(MASTER.address).volume += 1_000_000
    oid = only(sdk.order("BTC", True, 0.01, 90_000, GTC))["resting"]["oid"]
    assert sdk.schedule_cancel(exchange.now + 1_000)["status"] == "err"
    assert sdk.schedule_cancel(exchange.now + 60_000)["status"] == "ok"
    exchange.advance(1)
    assert sdk.info.query_order_by_oid(MASTER.address, oid)["order"]["status"] == "scheduledCancel"


def test_post_only_period_and_address_limit(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    exchange.ledger.post_only_period = True
    assert error(sdk.market_open("BTC", True, 0.01)).startswith("Only post-only orders allowed immediately after")
    exchange.ledger.post_only_period = False
    exchange.answers.request_buffer = 1
    refused = "Too many cumulative requests sent (2 > 1) for cumulative volume traded $0.00."
    assert sdk.market_open("BTC", True, 0.01)["response"].startswith(refused)
