"""The loopback HyperLiquid against the real SDK: what goes wrong on the way, and the shapes of recorded answers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from hyperliquid.exchange import Exchange
from hyperliquid.info import Info
from hyperliquid.utils.error import ClientError, ServerError
from hyperliquid.utils.signing import get_timestamp_ms
from hyperliquid.utils.types import Cloid

from helpers.hyperliquid_exchange import HyperLiquidExchange
from helpers.hyperliquid_world import GTC, MASTER, STRANGER, client, error, only, trading
from helpers.shared_data import GO, SDK, recorded
from helpers.waiting import wait_until


@pytest.fixture
def exchange() -> Iterator[HyperLiquidExchange]:
    with trading() as server:
        yield server


@pytest.fixture
def sdk(exchange: HyperLiquidExchange) -> Exchange:
    return client(exchange)


# Faults of the transport


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", ["timeout", "reset", "too_many", "bad_gateway", "server_error", "not_json", "outage"])
def test_an_answer_lost_before_or_after_the_effect(exchange: HyperLiquidExchange, kind: str, after: bool) -> None:
    sdk = client(exchange)
    sdk.timeout = 0.3 if kind == "timeout" else 5
    exchange.inject(kind, after=after, on="order")
    expected: Any = {
        "timeout": requests.Timeout,
        "reset": requests.ConnectionError,
        "too_many": ClientError,
        "bad_gateway": ServerError,
        "server_error": ServerError,
    }.get(kind)
    cloid = Cloid.from_int(3)
    if expected is not None:
        with pytest.raises(expected):
            sdk.market_open("BTC", True, 0.01, cloid=cloid)
    else:
        answer = sdk.market_open("BTC", True, 0.01, cloid=cloid)
        assert "error" in answer if kind == "not_json" else answer["status"] == "err"
    sdk.timeout = 5
    status = sdk.info.query_order_by_cloid(MASTER.address, cloid)
    assert status["status"] == ("order" if after else "unknownOid")
    assert exchange.positions(MASTER.address) == ({"BTC": 0.01} if after else {})
    assert len(exchange.asked("order")) == 1
    again = only(sdk.market_open("BTC", True, 0.01, cloid=cloid))
    assert ("filled" in again) is not after
    assert exchange.positions(MASTER.address) == {"BTC": 0.01}


def test_truncated_and_slow_answers(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    exchange.inject("truncated", on="order")
    assert "Could not parse JSON" in sdk.market_open("BTC", True, 0.01)["error"]
    exchange.inject("slow", seconds=0.2, on="order")
    start = time.monotonic()
    assert "filled" in only(sdk.market_open("BTC", True, 0.01))
    assert time.monotonic() - start >= 0.2
    assert exchange.positions(MASTER.address) == {"BTC": 0.02}


@pytest.mark.parametrize("patient", [True, False])
def test_an_action_that_takes_effect_late(exchange: HyperLiquidExchange, patient: bool) -> None:
    sdk = client(exchange)
    sdk.timeout = 0.1
    expires_ms = get_timestamp_ms() + (600_000 if patient else 500)
    sdk.set_expires_after(expires_ms)
    late = exchange.inject("late", on="order")
    cloid = Cloid.from_int(5)
    with pytest.raises(requests.Timeout):
        sdk.market_open("BTC", True, 0.01, cloid=cloid)
    assert sdk.info.query_order_by_cloid(MASTER.address, cloid) == {"status": "unknownOid"}
    wait_until(lambda: patient or get_timestamp_ms() > expires_ms)
    late.arrive()
    assert exchange.positions(MASTER.address) == ({"BTC": 0.01} if patient else {})


def test_faults_by_predicate_and_number(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    sells = exchange.inject(
        "bad_gateway", on="order", times=2, match=lambda payload: not payload["action"]["orders"][0]["b"]
    )
    exchange.inject("too_many", on="clearinghouseState", times=1)
    assert "filled" in only(sdk.market_open("BTC", True, 0.02))
    for _ in range(2):
        with pytest.raises(ServerError):
            sdk.market_open("BTC", False, 0.01)
    assert sells.times == 0
    assert "filled" in only(sdk.market_open("BTC", False, 0.01))
    with pytest.raises(ClientError):
        sdk.info.user_state(MASTER.address)
    assert sdk.info.user_state(MASTER.address)["assetPositions"]


def test_weight_of_the_requests(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    before = exchange.weight
    order: Any = {"coin": "BTC", "is_buy": True, "sz": 0.001, "limit_px": 90_000.0, "order_type": GTC}
    sdk.bulk_orders([order | {"reduce_only": False}] * 41)
    sdk.info.user_state(MASTER.address)
    sdk.info.open_orders(MASTER.address)
    assert exchange.weight - before == 2 + 2 + 20
    exchange.weight_limit = exchange.weight + 2
    assert sdk.info.all_mids()
    with pytest.raises(ClientError) as raised:
        sdk.info.all_mids()
    assert raised.value.status_code == 429


def test_not_a_request(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    for path, payload in (
        ("/info", {"type": "nonsense"}),
        ("/info", {"type": "clearinghouseState", "user": "0x12"}),
        ("/exchange", {"action": {"type": "order"}}),
        ("/exchange", {"action": {"type": "noop"}, "nonce": 1, "signature": {"r": "0x0", "s": "0x0", "v": 27}}),
    ):
        answer = requests.post(exchange.url + path, json=payload, timeout=30)
        assert answer.status_code == 422, (path, payload, answer.text)
    broken = json.loads(json.dumps(exchange.answers.spot_meta))
    broken["universe"].append({"tokens": [479, 0], "name": "@367", "index": 367, "isCanonical": False})
    exchange.answers.spot_meta = broken
    with pytest.raises(KeyError):
        Info(exchange.url, skip_ws=True)


# Against what was recorded


def shape(value: Any) -> Any:
    """Keys and types; of a list, the shape of its first element; None and a value are alike."""
    if isinstance(value, dict):
        return {key: shape(held) for key, held in sorted(value.items())}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return "text"
        return "number as text"
    return type(value).__name__


def test_shapes_of_accounts_are_those_recorded(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    sdk.market_open("ETH", True, 0.5)
    user = MASTER.address
    state = recorded("marketmicro", "tests", "fixtures", "clearinghouse_small.json")
    ours = sdk.info.user_state(user)
    ours["assetPositions"][0]["position"]["liquidationPx"] = "1.0"  # null for a position that cannot be liquidated
    assert shape(ours) == shape(state)
    request, answer = recorded(*GO, "UserActiveAssetData.yaml")[-1]
    assert shape(sdk.info.post("/info", request | {"user": user, "coin": "BTC"})) == shape(answer)
    *_, (request, answer) = recorded(*GO, "UserFillsByTime.yaml")
    assert shape(sdk.info.user_fills_by_time(user, 0)) == shape(answer)
    request, answer = recorded(*SDK, "test_user_rate_limit.yaml")[-1]
    assert set(answer) <= set(sdk.info.user_rate_limit(user))
    sdk.approve_agent("robot")
    request, answer = recorded(*SDK, "test_extra_agents.yaml")[-1]
    assert shape(sdk.info.extra_agents(user)) == shape(answer)
    funding = recorded(*SDK, "test_user_funding_history_with_end_time.yaml")[-1][1]
    exchange.advance(1)
    row = sdk.info.user_funding_history(user, 0)[0]
    row["delta"]["nSamples"] = 3
    assert shape([row]) == shape(funding)
    fresh = sdk.info.user_state("0x" + "9" * 40)
    assert shape(fresh) == shape(recorded(*GO, "UserState_WithDex.yaml")[0][1])


def test_shapes_of_orders_are_those_recorded(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    oid = only(sdk.market_open("ETH", True, 0.5))["filled"]["oid"]
    [*_, (_, answer)] = recorded(*GO, "QueryOrderByOid.yaml")
    assert shape(sdk.info.query_order_by_oid(MASTER.address, oid)) == shape(answer)
    assert sdk.info.query_order_by_oid(MASTER.address, 1) == recorded(*GO, "QueryOrderByOid.yaml")[0][1]
    history = recorded(*SDK, "test_historical_orders.yaml")[-1][1]
    assert shape(sdk.info.historical_orders(MASTER.address)) == shape(history)
    cloid = Cloid.from_int(9)
    cases: list[tuple[str, Any]] = [
        ("Orders_Above10.yaml", lambda: sdk.order("DOGE", True, 100, 0.1233, GTC)),
        ("Orders_Below10.yaml", lambda: sdk.order("DOGE", True, 10, 0.1233, GTC)),
        ("CancelByCloid_Success.yaml", lambda: sdk.order("DOGE", True, 100, 0.1233, GTC, cloid=cloid)),
        ("Cancel_NonExistent.yaml", lambda: sdk.cancel("DOGE", 1)),
        ("CancelByCloid_NonExistent.yaml", lambda: sdk.cancel_by_cloid("DOGE", Cloid.from_int(8))),
        ("Orders_InvalidAuth.yaml", lambda: client(exchange, STRANGER).order("DOGE", True, 100, 0.1233, GTC)),
    ]
    for file, act in cases:
        assert shape(act()) == shape(recorded(*GO, file)[0][1]), file
    refused = recorded(*GO, "Orders_Below10.yaml")[0][1]["response"]["data"]["statuses"][0]["error"]
    assert error(cases[1][1]()).partition(" asset=")[0] == refused.partition(" asset=")[0]
    assert only(sdk.cancel_by_cloid("DOGE", cloid)) == "success"


def test_shapes_of_markets_are_those_recorded(exchange: HyperLiquidExchange, sdk: Exchange) -> None:
    sdk.market_open("BTC", True, 0.01)
    asked = {"dex": "", "type": "metaAndAssetCtxs"}
    [meta, *_] = [answer for request, answer in recorded(*GO, "MetaAndAssetCtxs.yaml") if request == asked]
    ours = sdk.info.meta_and_asset_ctxs()
    assert shape(ours) == shape(meta)
    assert shape(ours[0]["marginTables"][0][1]) == shape(meta[0]["marginTables"][0][1])
    assert shape([entry for entry in ours[0]["universe"] if "isDelisted" in entry]) == shape(
        [entry for entry in meta[0]["universe"] if "isDelisted" in entry]
    )
    strict = [entry for entry in meta[0]["universe"] if entry.get("marginMode") == "strictIsolated"]
    assert set(ours[0]["universe"][3]) <= set(strict[0])
    gone = [context for entry, context in zip(meta[0]["universe"], meta[1], strict=True) if entry.get("isDelisted")]
    assert shape(ours[1][4]) == shape(gone[0])
    book = recorded("marketmicro", "tests", "fixtures", "l2book_btc_nsf5.json")
    assert shape(sdk.info.l2_snapshot("BTC")) == shape(book)
