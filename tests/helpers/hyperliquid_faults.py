"""What can go wrong at a HyperLiquid on loopback: every documented refusal by name, and faults of the transport.

Sources: the page of error responses (a name, the text, and the status that `orderStatus` then shows), recorded answers,
and threads. Texts marked *undocumented* are ours: match them by their meaning, not by their words.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from helpers.hyperliquid_info import BAD_GATEWAY, NOT_JSON, TOO_MANY, Fault, Reply

#: Name -> (text in the answer, status of the order afterwards). `{bbo}` is filled in by the book.
REJECTS = {
    "Tick": ("Price must be divisible by tick size.", "tickRejected"),
    "MinTradeNtl": ("Order must have minimum value of $10.", "minTradeNtlRejected"),
    "PerpMargin": ("Insufficient margin to place order.", "perpMarginRejected"),
    "ReduceOnly": ("Reduce only order would increase position.", "reduceOnlyRejected"),
    "BadAloPx": ("Post only order would have immediately matched, bbo was {bbo}.", "badAloPxRejected"),
    "IocCancel": ("Order could not immediately match against any resting orders.", "iocCancelRejected"),
    "BadTriggerPx": ("Invalid TP/SL price.", "badTriggerPxRejected"),
    "MarketOrderNoLiquidity": ("No liquidity available for market order.", "marketOrderNoLiquidityRejected"),
    "PositionIncreaseAtOpenInterestCap": (
        "Order would increase open interest while open interest is capped",
        "positionIncreaseAtOpenInterestCapRejected",
    ),
    "PositionFlipAtOpenInterestCap": (
        "Order would increase open interest while open interest is capped",
        "positionFlipAtOpenInterestCapRejected",
    ),
    "TooAggressiveAtOpenInterestCap": (
        "Order rejected due to price more aggressive than oracle while at open interest cap",
        "tooAggressiveAtOpenInterestCapRejected",
    ),
    "OpenInterestIncrease": ("Order would increase open interest too quickly", "openInterestIncreaseRejected"),
    "Oracle": ("Order price too far from oracle", "oracleRejected"),
    "PerpMaxPosition": (
        "Order would cause position to exceed margin tier limit at current leverage",
        "perpMaxPositionRejected",
    ),
    "ReferencePrice": ("Order price cannot be more than 80% away from the reference price", "rejected"),
    "InvalidPrice": ("Order has invalid price.", "rejected"),
    "InvalidSize": ("Order has invalid size.", "rejected"),
    "ZeroSize": ("Order has zero size.", "rejected"),
    "PostOnlyPeriod": ("Only post-only orders allowed immediately after a network upgrade", "rejected"),
    "DuplicateCloid": ("Order has a duplicate cloid.", "rejected"),  # undocumented
    "Delisted": ("Trading is halted: the asset is delisted.", "rejected"),  # undocumented
}

#: Refusals of a whole action: `{"status": "err", "response": text}`.
NO_WALLET = "User or API Wallet {address} does not exist."
NO_DEPOSIT = "Must deposit before performing actions. User: {address}"
NO_VAULT = "Vault not registered: {address}"
NOT_LEADER = "User {address} may not act for the vault or sub-account."  # undocumented
DUPLICATE_NONCE = "Invalid nonce: duplicate nonce {nonce}"
LOW_NONCE = "Invalid nonce: nonce {nonce} is too low"  # undocumented
NONCE_WINDOW = "Invalid nonce: {nonce} is outside (T - 2 days, T + 1 day)"  # undocumented
EXPIRED = "Action expired: expiresAfter {expires} is in the past"  # undocumented
TOO_MANY_REQUESTS = (
    "Too many cumulative requests sent ({used} > {cap}) for cumulative volume traded ${volume:.2f}. "
    "Place taker orders to free up 1 request per USDC traded."
)
BAD_LEVERAGE = "Invalid leverage value"
NO_CROSS = "Cross margin is not allowed for this asset."
LEVERAGE_TYPE = "Cannot switch leverage type with open position."
LEVERAGE_MARGIN = "Cross position does not have sufficient margin available to decrease leverage."
NO_SCHEDULE = "Cannot set scheduled cancel time until enough volume traded. Required: $1000000. Traded: ${volume:.0f}."
SCHEDULE_EARLY = "Scheduled cancel time too early, must be at least 5 seconds from now."  # undocumented
SCHEDULE_MANY = "Too many scheduled cancel triggers today."  # undocumented
NO_ORDER = "Order was never placed, already canceled, or filled."
NO_ASSET = "Unknown asset {asset}"  # undocumented
EMPTY_BATCH = "Empty batch of orders."  # undocumented
TRIGGER_NOT_REDUCING = "TP/SL orders must be reduce only."  # undocumented
OUTAGE = "Internal error while processing the action"  # 2025-07-29: said of orders that were executed

SILENCE_SECONDS = 30.0  # ended early when the server closes


class Refusal(Exception):
    """The whole action is refused: `{"status": "err", "response": str(refusal)}`."""


class Rejection(Exception):
    """One order is refused, by a name of :data:`REJECTS`."""

    def __init__(self, name: str, **details: str) -> None:
        text, self.status = REJECTS[name]
        self.name = name
        super().__init__(text.format(**{"bbo": "0@0", **details}))


@dataclass
class Nudge:
    """A fault of single orders: a named reject, or a share of the size that finds a counterpart."""

    reject: str | None = None
    fill_share: float | None = None
    coin: str | None = None
    cloid: str | None = None
    times: int = 1


@dataclass
class OrderFaults:
    """Rejects and partial fills waiting for the next orders."""

    nudges: list[Nudge] = field(default_factory=list)

    def take(self, coin: str, cloid: str | None) -> Nudge | None:
        """Use up and return the first fault that matches this order."""
        for nudge in self.nudges:
            if nudge.times > 0 and nudge.coin in (None, coin) and nudge.cloid in (None, cloid):
                nudge.times -= 1
                return nudge
        return None


def kind_of(path: str, payload: dict[str, Any]) -> str:
    """Type of a request: of the action (`order`, `updateLeverage`) or of the question (`clearinghouseState`)."""
    return str(payload.get("action", {}).get("type") if path == "/exchange" else payload.get("type"))


LIGHT = ("l2Book", "allMids", "clearinghouseState", "orderStatus", "spotClearinghouseState", "exchangeStatus")


def weight_of(path: str, payload: dict[str, Any]) -> int:
    """Weight of a request, without what the length of its answer adds; a batch of n counts 1 + n // 40."""
    kind = kind_of(path, payload)
    if path == "/exchange":
        action = payload.get("action", {})
        return 1 + len(action.get("orders") or action.get("cancels") or ()) // 40
    return 2 if kind in LIGHT else 60 if kind == "userRole" else 20


def assets_of(payload: dict[str, Any]) -> set[int]:
    """Asset ids of an action."""
    action = payload.get("action", {})
    rows = [*(action.get("orders") or action.get("cancels") or ()), action]
    return {row[key] for row in rows for key in ("a", "asset") if key in row}


@dataclass
class Event:
    """Calls `do` before the `nth` request of these types is answered, and with `every` before each later one."""

    kinds: tuple[str, ...]
    do: Callable[[], Any]
    nth: int = 1
    every: bool = False

    def notice(self, kind: str) -> None:
        if kind not in self.kinds:
            return
        self.nth -= 1
        if self.nth == 0 or (self.every and self.nth < 0):
            self.do()


@dataclass
class Lag:
    """Reads that are answered as things were `actions` actions ago; `times` of them, or all while None."""

    actions: int
    times: int | None = None

    def use(self) -> int:
        """How far behind the next answer is."""
        if self.times is not None:
            self.times -= 1
            if self.times < 0:
                return 0
        return self.actions


def transport_fault(
    kind: str,
    after: bool | None = None,
    times: int = 1,
    on: str | None = None,
    match: Callable[[dict[str, Any]], bool] | None = None,
    seconds: float = SILENCE_SECONDS,
    text: str = OUTAGE,
) -> Fault:
    """A fault for the next `times` requests of type `on` (any, if None) that `match`.

    `kind` is one of timeout, reset, too_many (429), bad_gateway (502), server_error (500), not_json, truncated, slow,
    outage (an `err` status), late (it takes effect at :meth:`Fault.arrive`, without an answer). `after=False`: the
    request has no effect; `after=True`: it took effect and the answer is lost or wrong. Left out: True for truncated,
    slow, outage and late, else False.
    """
    if after is None:
        after = kind in ("truncated", "slow", "outage", "late")
    replies: dict[str, Callable[[Reply], Reply]] = {
        "timeout": lambda _: Reply("", silence_seconds=seconds, reset=True),
        "reset": lambda _: Reply("", reset=True),
        "too_many": lambda _: TOO_MANY,
        "bad_gateway": lambda _: BAD_GATEWAY,
        "server_error": lambda _: Reply("Internal Server Error", 500),
        "not_json": lambda _: NOT_JSON,
        "truncated": lambda said: Reply(said.body[: len(said.body) // 2], said.status),
        "slow": lambda said: Reply(said.body, said.status, silence_seconds=seconds),
        "late": lambda _: Reply("", reset=True),
        "outage": lambda _: Reply(json.dumps({"status": "err", "response": text})),
    }
    change = replies[kind]

    def matches(payload: dict[str, Any]) -> bool:
        kind = kind_of("/exchange" if "action" in payload else "/info", payload)
        return (on is None or kind == on) and (match is None or match(payload))

    return Fault(
        matches, change(Reply("")), times, change if after else None, threading.Event() if kind == "late" else None
    )
