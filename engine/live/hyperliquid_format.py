"""HyperLiquid's own forms: prices on its tick, and what its answers to orders say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, Final

from engine.errors import truncate
from engine.live.orders import OrderRequest, OrderResult

#: Words of refusals that certainly had no effect. An error in other words may have been an order that was executed
#: (outage of 2025-07-29), so the exchange is asked.
REFUSALS: Final = (
    "tick size",
    "minimum value",
    "margin",
    "reduce only",
    "post only",
    "post-only",
    "could not immediately match",
    "no liquidity",
    "open interest",
    "too far from oracle",
    "80% away",
    "has invalid",
    "zero size",
    "duplicate cloid",
    "delisted",
    "does not exist",
    "must deposit",
    "too many cumulative",
    "invalid nonce",
    "expired",
    "vault",
    "unknown asset",
)
#: Significant figures of a price, and its decimals for a size of none.
SIGNIFICANT: Final = 5
PRICE_DECIMALS: Final = 6


def tick_price(price: float, sz_decimals: int, down: bool) -> float:
    """The nearest price on HyperLiquid's grid at or below `price` (`down`), or at or above it.

    A perpetual's price has at most 5 significant figures and ``6 - szDecimals`` decimals; an integer is always valid.
    """
    exact = Decimal(repr(price))
    decimals = min(PRICE_DECIMALS - sz_decimals, SIGNIFICANT - 1 - exact.adjusted())
    grid = Decimal(1).scaleb(-max(0, decimals))
    return float(exact.quantize(grid, rounding=ROUND_FLOOR if down else ROUND_CEILING))


def read_answers(said: dict[str, Any], orders: Sequence[OrderRequest]) -> list[OrderResult]:
    """Fates of the orders of one request."""
    if said.get("status") != "ok":
        reason = str(said.get("response", said))
        certain = _certain(reason)
        return [
            OrderResult(order.cloid, "rejected" if certain else "unknown", reason=reason, whole_batch=True)
            for order in orders
        ]
    try:
        statuses = said["response"]["data"]["statuses"]
        pairs = list(zip(statuses, orders, strict=True))
    except (KeyError, TypeError, ValueError):
        return [OrderResult(order.cloid, "unknown", reason=f"unreadable: {truncate(said)}") for order in orders]
    return [_answer(status, order) for status, order in pairs]


def _answer(status: Any, order: OrderRequest) -> OrderResult:
    try:
        if "filled" in status:
            size, price = float(status["filled"]["totalSz"]), float(status["filled"]["avgPx"])
            return OrderResult(order.cloid, "filled", math.copysign(size, order.units), price)
        if "error" in status:
            reason = str(status["error"])
            return OrderResult(order.cloid, "rejected" if _certain(reason) else "unknown", reason=reason)
    except (KeyError, TypeError, ValueError):
        pass
    return OrderResult(order.cloid, "unknown", reason=f"unreadable: {truncate(status)}")


def _certain(reason: str) -> bool:
    words = reason.lower()
    return any(word in words for word in REFUSALS)
