"""What the orders of a journal cost: slippage and fees of every fill, beside what the plan expected of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class LiveOrder:
    """One order that was filled, and what the model expected of it; basis points of mid, costs positive.

    Attributes
    ----------
    instant : str
        ISO 8601, the trade instant.
    coin : str
    units, mid, price : float
        Signed size filled; USD.
    notional_usd : float
        At mid.
    slippage_bps : float
        Fill against the mid at which it was sent.
    fee_bps : float or None
        Paid; None until the fills are recorded.
    model_slippage_bps, model_fee_bps : float or None
        Expected by the plan: the quote or the config's half spread, and the fee schedule.
    """

    instant: str
    coin: str
    units: float
    mid: float
    price: float
    notional_usd: float
    slippage_bps: float
    fee_bps: float | None
    model_slippage_bps: float | None
    model_fee_bps: float | None


@dataclass
class SentOrder:
    """One order that was, or may have been, sent: its entries in the journal; no `result` while its status is unknown.

    Attributes
    ----------
    time, instant : str
        ISO 8601: of the intent, and of the trade.
    order : mapping
        As intended.
    planned : mapping or None
        The plan's order of the coin.
    result : mapping or None
        Its newest answer.
    fills : list of mapping
        With prices and fees.
    """

    time: str
    instant: str
    order: Mapping[str, Any]
    planned: Mapping[str, Any] | None
    result: Mapping[str, Any] | None = None
    fills: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def price(self) -> float | None:
        """Average price in USD: the answer's, else that of the fills; None where neither is known."""
        size = math.fsum(abs(fill["units"]) for fill in self.fills)
        answered = self.result["price"] if self.result else None
        return answered or (
            math.fsum(abs(fill["units"]) * fill["price"] for fill in self.fills) / size if size else None
        )

    @property
    def fee_usd(self) -> float | None:
        """Fees paid; None until the fills are recorded."""
        return math.fsum(fill["fee_usd"] for fill in self.fills) if self.fills else None


def sent_orders(entries: Sequence[Mapping[str, Any]]) -> list[SentOrder]:
    """Every order of a journal, in the order of the intents."""
    sent: dict[str, SentOrder] = {}
    planned: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        match entry["kind"]:
            case "plan":
                planned = {order["coin"]: order for order in entry["plan"]["orders"]}
            case "intent":
                for order in entry["orders"]:
                    time, instant = entry.get("time", ""), entry["instant"]
                    sent[order["cloid"]] = SentOrder(time, instant, order, planned.get(order["coin"]))
            case "answers" | "resolved":
                for result in entry["answers"]:
                    if result["cloid"] in sent and result["fate"] != "unknown":
                        sent[result["cloid"]].result = result
            case "fills":
                for fill in entry["fills"]:
                    if fill["cloid"] in sent:
                        sent[fill["cloid"]].fills.append(fill)
    return list(sent.values())


def filled_orders(entries: Sequence[Mapping[str, Any]]) -> list[LiveOrder]:
    """The orders that were filled, oldest first; one whose price is not known yet is left out."""
    return [order for sent in sent_orders(entries) if (order := _filled(sent)) is not None]


def _filled(sent: SentOrder) -> LiveOrder | None:
    """One filled order; None when neither its result nor its fills have a price."""
    result, price, planned = sent.result, sent.price, sent.planned
    if result is None or result["fate"] != "filled" or not price:
        return None
    units, mid = result["units"], sent.order["mid"]
    notional = abs(units) * mid
    expected = planned["notional_usd"] if planned else 0.0
    return LiveOrder(
        sent.instant,
        sent.order["coin"],
        units,
        mid,
        price,
        notional,
        slippage_bps=1e4 * math.copysign(1.0, units) * (price / mid - 1.0),
        fee_bps=None if sent.fee_usd is None else 1e4 * sent.fee_usd / notional,
        model_slippage_bps=1e4 * planned["spread_usd"] / expected if planned and expected else None,
        model_fee_bps=1e4 * planned["fee_usd"] / expected if planned and expected else None,
    )


def costs(orders: Sequence[LiveOrder]) -> dict[str, float | int | None]:
    """Notional-weighted costs, live and model, in basis points; None where no order has the figure."""
    figures: dict[str, float | int | None] = {
        "orders": len(orders),
        "notional_usd": math.fsum(order.notional_usd for order in orders),
    }
    for name in ("slippage_bps", "model_slippage_bps", "fee_bps", "model_fee_bps"):
        known = [(order.notional_usd, value) for order in orders if (value := getattr(order, name)) is not None]
        weight = math.fsum(notional for notional, _ in known)
        figures[name] = math.fsum(notional * value for notional, value in known) / weight if weight else None
    return figures
