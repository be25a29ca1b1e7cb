"""From goals to fills: orders in two phases, each journalled, and nothing sent again before the exchange was asked.

The first attempt, a retry and a restart are one path: goals and the positions that the exchange confirms give what is
left, and what is left is ordered under a new client order id. An order without an answer is asked for by that id; if
the exchange has never seen it, it counts as not placed only when the request has expired and can no longer arrive.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

import pandas as pd

from engine.errors import UnreachableError
from engine.live.dex import DEX
from engine.live.journal import Journal, described
from engine.live.orders import (
    SIZE_TOLERANCE,
    AccountState,
    Goal,
    Market,
    Missing,
    OrderRequest,
    OrderResult,
    Outcome,
    Plan,
)
from engine.simulation.sizing import round_lot

#: Words of refusals that a second attempt would meet again (FACTS 5.2; texts vary, so they are looked for inside).
PERMANENT: Final = (
    "minimum value",
    "insufficient margin",
    "open interest",
    "too far from oracle",
    "margin tier",
    "80% away",
    "has invalid",
    "tick size",
    "reduce only order",
    "duplicate cloid",
    "no price",
)
#: Words of refusals that every order would meet.
FATAL: Final = ("does not exist", "must deposit", "too many cumulative requests", "agent", "kill switch")
_BATCH: Final = 40
_DEAD_MAN_MS: Final = 120_000
#: Share of the time to expiry by which an order is called void later than by our clock.
_GRACE: Final = 0.2


@dataclass(frozen=True)
class Policy:
    """How orders are sent.

    Attributes
    ----------
    slippage_frac : float
        Distance of every limit from the mid at which the run began.
    attempts : int
        Orders of one goal at most.
    expires_seconds : float
        After so long a request is void.
    settle_seconds : tuple of float
        Waits for positions to agree with answers, and between attempts.
    """

    slippage_frac: float = 0.03
    attempts: int = 4
    expires_seconds: float = 15.0
    settle_seconds: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0)


def cloid(key: str, instant: pd.Timestamp, coin: str, attempt: int) -> str:
    """Client order id: a digest of what decides the order, so that the same order never has two."""
    text = f"{key}|{instant.isoformat()}|{coin}|{attempt}"
    return "0x" + hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass
class OrderExecutor:
    """One execution of goals.

    Parameters
    ----------
    dex, journal, policy : DEX, Journal, Policy
    key : str
        Digest of the spec, part of every client order id.
    instant : Timestamp
        Decision's trade instant.
    gross_limit : float or None
        Openings that would take the gross beyond it are held back.
    leverage : int
        Set before a coin's first trade, as far as the coin allows.
    guard : callable
        Asked before every request; a text stops all orders.
    closes_all : bool
        Whether a position without a goal is missing: one that nobody quotes has none.
    sleep, clock : callable
        Waiting, and seconds of a monotonic clock.
    """

    dex: DEX
    journal: Journal
    policy: Policy
    key: str
    instant: pd.Timestamp
    gross_limit: float | None = None
    leverage: int = 2
    guard: Callable[[], str] = lambda: ""
    closes_all: bool = False
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    answers: list[tuple[OrderRequest, OrderResult]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    expected: dict[str, float] = field(default_factory=dict)
    given_up: dict[str, str] = field(default_factory=dict)
    _stopped: str = ""
    _single: bool = False
    _attempts: dict[str, int] = field(default_factory=dict)
    _markets: Mapping[str, Market] = field(default_factory=dict)
    _residual: dict[str, str] = field(default_factory=dict)
    _last_reason: dict[str, str] = field(default_factory=dict)
    _small: set[str] = field(default_factory=set)
    _first_mid: dict[str, float] = field(default_factory=dict)

    def run(
        self, goals: Sequence[Goal], state: AccountState, markets: Mapping[str, Market], plan: Plan | None
    ) -> Outcome:
        """Trade to the goals, given the account and the markets as just read."""
        self._set_state(state)
        self.expected = dict(state.units)
        self._markets = markets
        self._attempts = self.journal.attempts(self.instant)
        armed = bool(goals) and self._dead_man(on=True)
        try:
            for phase in (0, 1):
                of_phase = [goal for goal in goals if goal.phase == phase]
                if phase == 1:
                    self._set_leverage(of_phase)
                self._phase(of_phase)
        except UnreachableError as error:
            # Orders were sent, or may have been: what is missing is said below, what is unknown is in the journal.
            self._stopped = str(error)
            self.notes.append(self._stopped)
        if armed:
            self._dead_man(on=False)
        return self._outcome(goals, plan)

    def recover(self) -> AccountState:
        """Ask about every order that an earlier run left without a known fate; the account, when it has them all."""
        self._set_state(self.dex.account())
        pending = self.journal.unresolved()
        if pending:
            orders = [order for order, _ in pending]
            self._resolve(orders, max(expires for _, expires in pending))
            self.expected = self.journal.positions()
            self._confirm(dict(self.expected), orders)
        return self._state

    # One phase --------------------------------------------------------------------------------------------------------

    def _phase(self, goals: Sequence[Goal]) -> None:
        for number in range(self.policy.attempts):
            if number:
                self._markets = self.dex.markets()
            orders = self.remaining_orders(goals)
            if not orders or self._stopped:
                return
            if number:
                self.sleep(self._wait(number - 1))
            before = dict(self.expected)
            for batch in self._batches(orders):
                self._send(batch)
                if self._stopped:
                    break
            self._confirm(before, orders)

    def remaining_orders(self, goals: Sequence[Goal]) -> list[OrderRequest]:
        """Orders for what the goals lack."""
        orders = []
        room = self.gross_headroom()
        for goal in goals:
            held = self.expected.get(goal.coin, 0.0)
            left = goal.target_units - held
            if goal.coin in self.given_up or goal.coin in self._small or left == 0.0 or (left > 0.0) != goal.buy:
                continue
            market = self._markets.get(goal.coin)
            if market is None:
                self.given_up[goal.coin] = "it cannot be traded any more"
                continue
            left = self._lots(left, market)
            value = abs(left) * market.mid
            closes = goal.reduce_only and goal.target_units == 0.0
            if left == 0.0 or (value < self.dex.min_notional_usd and not closes):
                if left != 0.0:
                    self._residual[goal.coin] = f"{goal.coin}: {left:+g} is left, under the minimum notional"
                continue
            if goal.phase == 1 and room is not None:
                if value > room:
                    self.notes.append(f"{goal.coin}: held back, for {value:,.2f} USD more would exceed the gross limit")
                    continue
                room -= value
            # From the mid of the first look: a retry does not run after the price.
            mid = self._first_mid.setdefault(goal.coin, market.mid)
            bound = mid * (1.0 + math.copysign(self.policy.slippage_frac, left))
            price = self.dex.round_price(market, bound, left > 0.0)
            if not price > 0.0:
                self.given_up[goal.coin] = f"no price on its tick lies between mid {mid:g} and {bound:g}"
                continue
            attempt = self._attempts.get(goal.coin, 0)
            self._attempts[goal.coin] = attempt + 1
            name = cloid(self.key, self.instant, goal.coin, attempt)
            orders.append(OrderRequest(name, goal.coin, left, price, goal.reduce_only))
        return orders

    def gross_headroom(self) -> float | None:
        """USD of gross that may be added now."""
        if self.gross_limit is None:
            return None
        gross = 0.0
        for coin, units in self.expected.items():
            price = self._markets[coin].mid if coin in self._markets else self._state.prices.get(coin, 0.0)
            gross += abs(units) * price
        return self.gross_limit * self._state.equity_usd - gross

    @staticmethod
    def _lots(units: float, market: Market) -> float:
        """A difference of two positions, both whole lots, without the dust of the subtraction."""
        return round_lot(units, market.sz_decimals)

    def _batches(self, orders: list[OrderRequest]) -> list[list[OrderRequest]]:
        size = 1 if self._single else _BATCH
        return [orders[first : first + size] for first in range(0, len(orders), size)]

    def _send(self, orders: list[OrderRequest]) -> None:
        if stop := self.guard():
            self._stopped = stop
            return
        expires_ms = self.dex.clock_ms() + int(1000 * self.policy.expires_seconds)
        self.journal.append(
            "intent",
            self._time(),
            instant=self.instant.isoformat(),
            expires_ms=expires_ms,
            orders=[{**asdict(order), "mid": self._markets[order.coin].mid} for order in orders],
        )
        answers = self.dex.send(orders, expires_ms)
        self.journal.append("answers", self._time(), answers=described(answers))
        unknown = [
            order
            for order, answer in zip(orders, answers, strict=True)
            if not self.record_result(order, answer, len(orders))
        ]
        if unknown:
            self._resolve(unknown, expires_ms)

    def record_result(self, order: OrderRequest, answer: OrderResult, batch: int) -> bool:
        """Book an answer; False when the fate is unknown."""
        if answer.fate == "unknown":
            return False
        self.answers.append((order, answer))
        if answer.fate == "filled":
            self.expected[order.coin] = self.expected.get(order.coin, 0.0) + answer.units
            return True
        words = answer.reason.lower()
        if any(word in words for word in FATAL):
            self._stopped = answer.reason
        elif answer.whole_batch and batch > 1:
            self._single = True  # one order spoils the request: the next attempt sends them one by one
        elif "minimum value" in words and self._value(order) < 2.0 * self.dex.min_notional_usd:
            # The exchange may value an order at its limit, where the rule takes mid.
            self._residual[order.coin] = f"{order.coin}: {order.units:+g} is left: {answer.reason}"
            self._small.add(order.coin)
        elif any(word in words for word in PERMANENT):
            self.given_up[order.coin] = answer.reason
        self._last_reason[order.coin] = answer.reason
        return True

    def _value(self, order: OrderRequest) -> float:
        market = self._markets.get(order.coin)
        return abs(order.units) * (order.limit_price if market is None else market.mid)

    def _resolve(self, orders: list[OrderRequest], expires_ms: int) -> None:
        """Ask about orders until each has a fate, or can have none any more."""
        # Some seconds more, for a clock behind ours and for answers that lag behind the book.
        void_ms = expires_ms + int(1000 * self.policy.expires_seconds * _GRACE)
        waiting = list(orders)
        number = 0
        while waiting:
            expired = self.dex.clock_ms() > void_ms  # before asking: what arrives later is void
            known: list[tuple[OrderRequest, OrderResult]] = []
            rest: list[OrderRequest] = []
            for order in waiting:
                answer = self.dex.ask(order)
                if answer is None and expired:
                    answer = OrderResult(order.cloid, "rejected", reason="not placed: the exchange has never seen it")
                if answer is None or answer.fate == "unknown":
                    rest.append(order)
                else:
                    known.append((order, answer))
            if known:
                self.journal.append("resolved", self._time(), answers=described([answer for _, answer in known]))
                for order, answer in known:
                    self.record_result(order, answer, 1)
            waiting = rest
            if waiting:
                if expired and number > 20:
                    names = ", ".join(order.cloid for order in waiting)
                    raise UnreachableError(f"The exchange does not say what became of {names}. Run again later.")
                self.sleep(min(1.0, max(0.05, (void_ms - self.dex.clock_ms()) / 1000.0 + 0.05)))
                number += 1

    def _confirm(self, before: Mapping[str, float], orders: Sequence[OrderRequest]) -> None:
        """Read the positions until they agree with the answers; a coin that never does is traded no further."""
        coins = sorted({order.coin for order in orders})
        for number in range(len(self.policy.settle_seconds) + 1):
            self._set_state(self.dex.account())
            differing = [coin for coin in coins if not self._agrees(coin)]
            if not differing:
                return
            if number < len(self.policy.settle_seconds):
                self.sleep(self._wait(number))
        for coin in differing:
            found, wanted = self._state.units.get(coin, 0.0), self.expected.get(coin, 0.0)
            self.given_up[coin] = (
                f"the exchange shows {found:g} where its answers add up to {wanted:g} (before: "
                f"{before.get(coin, 0.0):g}); it is not traded further"
            )
            self.expected[coin] = found

    def _agrees(self, coin: str) -> bool:
        found, wanted = self._state.units.get(coin, 0.0), self.expected.get(coin, 0.0)
        market = self._markets.get(coin)
        lot = 0.0 if market is None or market.sz_decimals is None else 10.0**-market.sz_decimals
        if abs(found - wanted) > max(lot / 2.0, SIZE_TOLERANCE * max(abs(found), abs(wanted))):
            return False
        self.expected[coin] = found  # exact, without the dust of sums
        return True

    def _dead_man(self, on: bool) -> bool:
        """Have the exchange cancel whatever rests, should this process die; accounts of little volume are refused."""
        if on and self.guard():
            return False
        refusal = self.dex.schedule_cancel(self.dex.clock_ms() + _DEAD_MAN_MS if on else None)
        self.journal.append("dead_man", self._time(), on=on, refused=refusal)
        return not refusal

    # Before and after -------------------------------------------------------------------------------------------------

    def _set_leverage(self, goals: Sequence[Goal]) -> None:
        known = self.journal.leverage()
        for goal in goals:
            market = self._markets.get(goal.coin)
            if market is None or self._stopped or goal.coin in self.given_up or self.expected.get(goal.coin, 0.0):
                continue
            wanted = max(1, min(self.leverage, int(market.max_leverage or self.leverage)))
            if known.get(goal.coin) == wanted:
                continue
            refusal = self.guard()
            if refusal:
                self._stopped = refusal
                return
            refusal = self.dex.set_leverage(market, wanted)
            if refusal:
                self.journal.append("leverage_refused", self._time(), coin=goal.coin, reason=refusal)
                self.given_up[goal.coin] = f"leverage {wanted}: {refusal}"
                if any(word in refusal.lower() for word in FATAL):
                    self._stopped = refusal
            else:
                self.journal.append("leverage_set", self._time(), coin=goal.coin, leverage=wanted)

    def _outcome(self, goals: Sequence[Goal], plan: Plan | None) -> Outcome:
        final = {goal.coin: goal for goal in goals}  # phase 1 comes last
        missing = []
        for coin, goal in sorted(final.items()):
            held = self.expected.get(coin, 0.0)
            left = goal.target_units - held
            size = max(abs(goal.target_units), abs(held))
            if abs(left) <= SIZE_TOLERANCE * size:
                continue
            if coin in self._residual and coin not in self.given_up and not self._stopped:
                self.notes.append(self._residual[coin])
                continue
            passed = "" if (left > 0.0) == goal.buy else "somebody else took it past its target, or a liquidation"
            reason = self.given_up.get(coin) or passed or self._stopped or self._last_reason.get(coin, "")
            missing.append(Missing(coin, goal.target_units, held, reason or "held back"))
        if self.closes_all:
            stuck = [(coin, held) for coin, held in sorted(self.expected.items()) if held and coin not in final]
            missing += [Missing(coin, 0.0, held, "it cannot be traded now") for coin, held in stuck]
        outcome = Outcome(plan, tuple(self.answers), tuple(missing), tuple(dict.fromkeys(self.notes)))
        self.journal.append(
            "done",
            self._time(),
            instant=self.instant.isoformat(),
            equity_usd=self._state.equity_usd,
            positions=dict(sorted(self.expected.items())),
            complete=outcome.complete,
            missing=[asdict(item) for item in missing],
            notes=list(outcome.notes),
        )
        return outcome

    # Time -------------------------------------------------------------------------------------------------------------

    def _set_state(self, state: AccountState) -> None:
        self._state, self._seen = state, self.clock()

    def _time(self) -> pd.Timestamp:
        """The exchange's time now."""
        return self._state.time + pd.Timedelta(seconds=max(0.0, self.clock() - self._seen))

    def _wait(self, number: int) -> float:
        waits = self.policy.settle_seconds
        return waits[min(number, len(waits) - 1)]
