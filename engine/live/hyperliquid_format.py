"""HyperLiquid's formats: prices on its tick, and responses to order requests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, Final

from engine.errors import truncate
from engine.live.orders import OrderRequest, OrderResult
from engine.live.refusals import Refusal, classify

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


def parse_results(response: dict[str, Any], orders: Sequence[OrderRequest]) -> list[OrderResult]:
    """Results of the orders of one request; what cannot be parsed is ``unknown``, never a refusal."""
    if response.get("status") != "ok":
        return [_refused(order, str(response.get("response", response)), whole_batch=True) for order in orders]
    try:
        statuses = response["response"]["data"]["statuses"]
        pairs = list(zip(statuses, orders, strict=True))
    except (KeyError, TypeError, ValueError):
        return [OrderResult(order.cloid, "unknown", reason=f"unreadable: {truncate(response)}") for order in orders]
    return [_parse_status(status, order) for status, order in pairs]


def refusal_text(response: dict[str, Any]) -> str:
    """Why an action was refused; ``""`` where it was not."""
    return "" if response.get("status") == "ok" else str(response.get("response", response))


def impact_quote(prices: Any) -> tuple[float | None, float | None]:
    """Impact prices; a book with one side has none."""
    low, high = prices or (None, None)
    return (float(low), float(high)) if low and high else (None, None)


def _parse_status(status: Any, order: OrderRequest) -> OrderResult:
    try:
        if "filled" in status:
            size, price = float(status["filled"]["totalSz"]), float(status["filled"]["avgPx"])
            return OrderResult(order.cloid, "filled", math.copysign(size, order.units), price)
        if "error" in status:
            return _refused(order, str(status["error"]))
    except (KeyError, TypeError, ValueError):
        pass
    return OrderResult(order.cloid, "unknown", reason=f"unreadable: {truncate(status)}")


def _refused(order: OrderRequest, reason: str, whole_batch: bool = False) -> OrderResult:
    certain = Refusal.CERTAIN in classify(reason)
    return OrderResult(order.cloid, "rejected" if certain else "unknown", reason=reason, whole_batch=whole_batch)
