"""HyperLiquid's leverage of a coin: read from ``activeAssetData``, set by many signed requests side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.data.api_client import sdk_request
from engine.live.orders import Market
from engine.retries import RequestFailed, RetryPolicy


def active_leverage(cross: bool, response: Mapping[str, Any]) -> int | None:
    """The leverage in ``activeAssetData``; None for the other margin mode."""
    leverage = response["leverage"]
    return int(leverage["value"]) if (leverage["type"] == "cross") == cross else None


def sign_leverages(sdk: Any, wanted: Sequence[tuple[Market, int]]) -> Iterator[Any]:
    """Signed actions, one after the other: each needs a millisecond of its own as its nonce."""
    sdk._post_action = lambda *action: action  # what the SDK would send at once
    try:
        for market, leverage in wanted:
            time.sleep(0.002)
            yield sdk.update_leverage(leverage, market.coin, market.cross)
    finally:
        del sdk._post_action


def send_signed(sdk: Any, action: tuple[Any, ...], policy: RetryPolicy) -> Any:
    """The response to a signed action that is sent once, while others are signed; None where there is none."""
    try:
        return sdk_request(lambda: type(sdk)._post_action(sdk, *action), dict, sdk, policy)
    except RequestFailed:
        return None
