"""HyperLiquid's formats: numbers, markets, prices on its tick, and responses to order requests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from types import MappingProxyType
from typing import Any, Final

import pandas as pd

from engine.clock import UNIT
from engine.coin import FeeTerms
from engine.errors import truncate
from engine.live.orders import Fill, Market, OrderRequest, OrderResult
from engine.live.refusals import Refusal, classify

#: Significant figures of a price, and its decimals for a size of none.
SIGNIFICANT: Final = 5
PRICE_DECIMALS: Final = 6


#: Of a fee scale: 3, or 10 in growth mode.
_HIGHEST_SCALE: Final = 10.0
#: Fields of a panel by their name in a market's context.
_OBSERVED: Final = {
    "mid": "midPx",
    "mark": "markPx",
    "oracle": "oraclePx",
    "open_interest": "openInterest",
    "volume_24h_usd": "dayNtlVlm",
}


def number(value: Any) -> float:
    """A finite number, or NaN for whatever else stands in a response."""
    try:
        figure = float(value)
    except (TypeError, ValueError):
        return math.nan
    return figure if math.isfinite(figure) and not isinstance(value, bool) else math.nan


def why_no_quote(entry: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    """Why a coin cannot be traded; ``""`` where it can."""
    decimals, mid = entry.get("szDecimals"), context.get("midPx")
    if entry.get("isDelisted"):
        return "it is delisted"
    if not number(mid) > 0.0:
        return f"its midPx is {mid!r}"
    if type(decimals) is not int or not 0 <= decimals <= PRICE_DECIMALS:
        return f"its szDecimals is {decimals!r}"
    return ""


def read_market(
    entry: Mapping[str, Any],
    context: Mapping[str, Any],
    tables: Mapping[int, tuple[tuple[float, float], ...]] = MappingProxyType({}),
) -> Market | None:
    """A coin from its entry in the table and its context; None where it cannot be traded, or not be read.

    A missing oracle price is NaN, which no limit on the distance from it accepts.
    """
    if why_no_quote(entry, context):
        return None
    mid, leverage = number(context.get("midPx")), number(entry.get("maxLeverage"))
    oracle, mode = number(context.get("oraclePx")), entry.get("marginMode")
    seen = observed(context)
    low, high = seen["impact_bid"], seen["impact_ask"]
    return Market(
        entry["name"],
        mid,
        low if 0.0 < low <= high else None,
        high if 0.0 < low <= high else None,
        oracle=oracle if oracle > 0.0 else math.nan,
        sz_decimals=entry["szDecimals"],
        max_leverage=leverage if leverage >= 1.0 else None,
        cross=mode not in ("strictIsolated", "noCross") and not entry.get("onlyIsolated"),
        margin_tiers=tables.get(entry.get("marginTableId", -1), ()) if leverage >= 1.0 else (),
        fees=read_fees(entry),
    )


def read_fees(entry: Mapping[str, Any]) -> FeeTerms | None:
    """What a builder's coin adds to the venue's fees, by its entry in the table; None where it says nothing.

    A scale that cannot be read is the highest of today's, so that no cost is shown too low.
    """
    given, growth = entry.get("deployerFeeScale"), entry.get("growthMode") == "enabled"
    if given is None and not growth:
        return None
    scale = number(0.0 if given is None else given)
    return FeeTerms(None, scale if scale >= 0.0 else _HIGHEST_SCALE, growth)


def read_contexts(
    response: Any,
) -> tuple[dict[str, Any], list[tuple[dict[str, Any], dict[str, Any]]]]:
    """The table of a ``metaAndAssetCtxs`` for the SDK, and entry and context of every coin that has a name.

    One coin may lack anything; LookupError, TypeError or ValueError where none can be read.
    """
    meta, contexts = response
    pairs = [
        (entry if isinstance(entry, dict) else {}, context if isinstance(context, dict) else {})
        for entry, context in zip(meta["universe"], contexts, strict=True)
    ]
    named = [(entry, context) for entry, context in pairs if isinstance(entry.get("name"), str)]
    if not any(number(context.get("oraclePx")) > 0.0 for _, context in named):
        raise ValueError("no coin has a name and an oraclePx")
    # The index of a coin is its asset id, and the SDK reads the lots of all: entries that lack either stay.
    universe = [{"name": f"?{at}", "szDecimals": 0, **entry} for at, (entry, _) in enumerate(pairs)]
    return {**meta, "universe": universe}, named


def best_quotes(book: Mapping[str, Any]) -> tuple[float | None, ...]:
    """Best bid and ask of an ``l2Book``, USD; None for an empty side."""
    bids, asks = book["levels"]
    return tuple(float(side[0]["px"]) if side else None for side in (bids, asks))


def observed(context: Mapping[str, Any]) -> dict[str, float]:
    """Panel fields from a market's context; NaN for what it lacks."""
    impact = context.get("impactPxs")
    low, high = impact if isinstance(impact, list) and len(impact) == 2 else (None, None)
    values = {name: context.get(key) for name, key in _OBSERVED.items()} | {"impact_bid": low, "impact_ask": high}
    return {name: number(value) for name, value in values.items()}


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


def instant_of(milliseconds: Any) -> pd.Timestamp:
    """An instant from the exchange's milliseconds."""
    return pd.Timestamp(int(milliseconds), unit="ms", tz="UTC").as_unit(UNIT)


def read_fills(rows: Sequence[Mapping[str, Any]]) -> list[tuple[tuple[int, int], int, Fill]]:
    """Fills of a page of the account's history, each with what tells it from others, and its milliseconds."""
    fills = []
    for row in rows:
        units, at = float(row["sz"]) * (1.0 if row["side"] == "B" else -1.0), int(row["time"])
        fill = Fill(row.get("cloid"), str(row["coin"]), units, float(row["px"]), float(row["fee"]), instant_of(at))
        fills.append(((row["tid"], row["oid"]), at, fill))
    return fills


def read_funding(rows: Sequence[Mapping[str, Any]]) -> list[tuple[tuple[int, str], float]]:
    """Funding payments of a page of the account's history: milliseconds and coin, and USD paid."""
    return [((int(row["time"]), str(row["delta"]["coin"])), -float(row["delta"]["usdc"])) for row in rows]


def read_status(order: OrderRequest, response: Mapping[str, Any]) -> OrderResult | None:
    """What became of an order, from ``orderStatus``; ``unknown`` while it rests, None where it was never seen."""
    if response.get("status") != "order":
        return None
    status, details = str(response["order"]["status"]), response["order"]["order"]
    done = float(details["origSz"]) - (0.0 if status == "filled" else float(details["sz"]))
    if status == "open":
        return OrderResult(order.cloid, "unknown", reason="it rests, and was cancelled")
    if done <= 0.0 or status.lower().endswith("rejected"):
        return OrderResult(order.cloid, "rejected", reason=status)
    units = round(math.copysign(done, order.units), 8)
    return OrderResult(order.cloid, "filled", units, reason="" if status == "filled" else status)


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
