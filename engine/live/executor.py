"""From goals to fills: IOC orders in two phases, each in the journal before it is sent.

The first attempt, a retry and a restart are one path: goals less the positions that :mod:`engine.live.reconcile` has
confirmed give what is left, and what is left is ordered under a new client order id.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

import pandas as pd

from engine.errors import UnreachableError
from engine.live.boot_clock import boot_id
from engine.live.orders import (
    SIZE_TOLERANCE,
    Goal,
    Market,
    Missing,
    OrderRequest,
    OrderResult,
    Outcome,
    Plan,
    Reason,
)
from engine.live.reconcile import Reconciler
from engine.live.refusals import Refusal, classify
from engine.simulation.sizing import round_lot

#: Orders of one request at most.
_BATCH: Final = 40
#: How far from the mid at the start of the run the limits of reductions follow a price that runs away.
_FOLLOWED_FRAC: Final = 0.10


def cloid(key: str, instant: pd.Timestamp, coin: str, attempt: int) -> str:
    """Client order id: a digest of what decides the order, so that the same order never has two."""
    text = f"{key}|{instant.isoformat()}|{coin}|{attempt}"
    return "0x" + hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass
class CoinProgress:
    """How far one coin has come: number of its next order, and why it is not at its target."""

    attempts: int = 0
    reason: Reason = Reason.UNFILLED
    text: str = ""

    def set(self, reason: Reason, text: str = "") -> None:
        """Note a reason, and a text in the place of the reason's own."""
        self.reason, self.text = reason, text or reason.value


@dataclass
class OrderExecutor:
    """One execution of goals.

    Parameters
    ----------
    reconciler : Reconciler
        Account, journal and policy; recovered before.
    key : str
        Digest of the strategy, part of every client order id.
    instant : Timestamp
        Trade instant of the decision, part of every client order id.
    gross_limit : float or None
        Openings that would take the gross (as a fraction of equity) beyond it are held back.
    leverage : int
        Set before a coin's first trade, as far as the coin allows.
    guard : callable
        Called before every request; a text stops all orders.
    price_limit_frac : float or None
        Openings stop when a price has moved by more since the start of the run, or is farther from its oracle price.
    closes_all : bool
        Whether a position without a goal is missing: a coin without a quote has no goal.
    """

    reconciler: Reconciler
    key: str
    instant: pd.Timestamp
    gross_limit: float | None
    leverage: int
    guard: Callable[[], str]
    price_limit_frac: float | None
    closes_all: bool

    notes: list[str] = field(default_factory=list)
    progress: defaultdict[str, CoinProgress] = field(default_factory=lambda: defaultdict(CoinProgress))
    stopped: str = ""
    _one_by_one: bool = False
    _markets: Mapping[str, Market] = field(default_factory=dict)
    _start_mids: dict[str, float] = field(default_factory=dict)
    _start_clocks: tuple[int, float] = (0, 0.0)  # the exchange's, ms, and this machine's own, s

    def __post_init__(self) -> None:
        reconciler = self.reconciler
        self.dex, self.journal, self.policy = reconciler.dex, reconciler.journal, reconciler.policy

    def run(self, goals: Sequence[Goal], markets: Mapping[str, Market], plan: Plan | None) -> Outcome:
        """Trade to the goals, given the account as recovered and the markets as just read."""
        self._markets = markets
        self._start_clocks = self.dex.clock_ms(), self.reconciler.boot_clock()
        self._start_mids = {coin: market.mid for coin, market in markets.items()}
        self.reconciler.expected = dict(self.reconciler.state.units)
        for coin, attempts in self.journal.state.attempts.get(self.instant.isoformat(), {}).items():
            self.progress[coin].attempts = attempts
        try:
            for phase in (0, 1):
                of_phase = [goal for goal in goals if goal.phase == phase]
                if phase == 1:
                    if self.reconciler.results and of_phase:
                        self._markets = self.dex.markets()  # prices go on while positions get smaller
                    self._stop_moved(of_phase)
                    self._set_leverage(of_phase)
                self._run_phase(of_phase)
        except UnreachableError as error:
            # Orders were sent, or may have been: what is missing is said below, what is unknown is in the journal.
            self.stopped = str(error)
            self.notes.append(self.stopped)
        return self._outcome(goals, plan)

    # One phase --------------------------------------------------------------------------------------------------------

    def _run_phase(self, goals: Sequence[Goal]) -> None:
        for number in range(self.policy.attempts):
            if number:
                self._markets = self.dex.markets()
                self._stop_moved([goal for goal in goals if goal.phase == 1])
            orders = self.remaining_orders(goals)
            if not orders or self.stopped:
                return
            if number:
                self.reconciler.sleep(self.policy.wait_seconds(number - 1))
            before = dict(self.reconciler.expected)
            size = 1 if self._one_by_one else _BATCH
            for first in range(0, len(orders), size):
                self._send(orders[first : first + size])
                if self.stopped:
                    break
            self.reconciler.confirm(orders, before, self._markets)
            self._stop_differing()

    def _stop_differing(self) -> None:
        """Trade coins no further whose positions differ from what was filled."""
        for coin, text in self.reconciler.differing.items():
            self.progress[coin].set(Reason.POSITION_DIFFERS, text)

    def _stop_moved(self, openings: Sequence[Goal]) -> None:
        """Stop all openings when the price of one that is left has gone beyond the limit that would stop a run."""
        limit = self.price_limit_frac
        if limit is None or not (text := next(filter(None, (self._moved(goal, limit) for goal in openings)), "")):
            return
        for goal in openings:
            progress = self.progress[goal.coin]
            if not progress.reason.final and not progress.reason.at_target:
                progress.set(Reason.PRICE_MOVED, f"{text}; nothing more is opened")

    def _moved(self, goal: Goal, limit: float) -> str:
        """How the price of a goal that is left has gone beyond the limit; ``""`` where it has not."""
        left = goal.target_units - self.reconciler.expected.get(goal.coin, 0.0)
        market, start = self._markets.get(goal.coin), self._start_mids.get(goal.coin)
        if market is None or left == 0.0 or (left > 0.0) != goal.buy or self.progress[goal.coin].reason.final:
            return ""
        for what, price in (("mid at the start of the run", start), ("oracle price", market.oracle)):
            # Not `>`: NaN must not pass.
            if price is not None and not abs(market.mid - price) <= limit * price:
                return (
                    f"price_deviation_frac: {goal.coin} is at {market.mid:.6g}, its {what} is {price:.6g}, the limit "
                    f"{limit:.2%}"
                )
        return ""

    def remaining_orders(self, goals: Sequence[Goal]) -> list[OrderRequest]:
        """Orders for what the goals lack."""
        orders = []
        headroom = self.gross_headroom()
        for goal in goals:
            progress = self.progress[goal.coin]
            left = goal.target_units - self.reconciler.expected.get(goal.coin, 0.0)
            if progress.reason.final or left == 0.0 or (left > 0.0) != goal.buy:
                continue
            market = self._markets.get(goal.coin)
            if market is None:
                progress.set(Reason.NOT_TRADABLE)
                continue
            left = round_lot(left, market.sz_decimals)  # whole lots, without the rounding error of the subtraction
            value = abs(left) * market.mid
            closes = goal.reduce_only and goal.target_units == 0.0
            if left == 0.0 or (value < self.dex.min_notional_usd and not closes):
                if left != 0.0:
                    text = f"{goal.coin}: {left:+g} is left, under the minimum notional"
                    progress.set(Reason.BELOW_MINIMUM, text)
                continue
            if goal.phase == 1 and headroom is not None:
                if value > headroom:
                    self.notes.append(f"{goal.coin}: held back: {value:,.2f} USD more would exceed the gross limit")
                    progress.set(Reason.HELD_BACK)
                    continue
                headroom -= value
            if order := self._order(goal, left, market, progress):
                orders.append(order)
        return orders

    def _order(self, goal: Goal, units: float, market: Market, progress: CoinProgress) -> OrderRequest | None:
        """The coin's next order; None when no valid price lies within the slippage."""
        bound = self._price_bound(goal, units, market)
        price = self.dex.round_price(market, bound, units > 0.0)
        if not price > 0.0:
            text = f"no price on its tick lies between mid {self._start_mids[goal.coin]:g} and {bound:g}"
            progress.set(Reason.NO_VALID_PRICE, text)
            return None
        if progress.reason is not Reason.REFUSED:
            progress.set(Reason.UNFILLED)
        name = cloid(self.key, self.instant, goal.coin, progress.attempts)
        progress.attempts += 1
        return OrderRequest(name, goal.coin, units, price, goal.reduce_only)

    def _price_bound(self, goal: Goal, units: float, market: Market) -> float:
        """The worst price of an order, USD: the slippage from the mid at the start of the run, whatever came since.

        Only a reduction follows a price that runs away: a position that cannot be left is the greater risk.
        """
        start = self._start_mids.setdefault(goal.coin, market.mid)
        slippage, side = self.policy.slippage_frac, math.copysign(1.0, units)
        bound, followed = (mid * (1.0 + side * slippage) for mid in (start, market.mid))
        if goal.phase == 0 and side * (followed - bound) > 0.0:
            farthest = start * (1.0 + side * max(slippage, _FOLLOWED_FRAC))
            bound = side * min(side * followed, side * farthest)
            self.notes.append(
                f"{goal.coin}: mid went from {start:.6g} to {market.mid:.6g}, so the limit of its reduction is "
                f"{bound:.6g}, {bound / start - 1.0:+.1%} from there (at most {max(slippage, _FOLLOWED_FRAC):.0%})"
            )
        return bound

    def gross_headroom(self) -> float | None:
        """USD of gross that may be added now; None without a limit."""
        if self.gross_limit is None:
            return None
        state = self.reconciler.state
        gross = math.fsum(map(abs, state.foreign.values()))
        for coin, units in self.reconciler.expected.items():
            price = self._markets[coin].mid if coin in self._markets else state.prices.get(coin, 0.0)
            gross += max(abs(units), abs(self.reconciler.held(coin))) * price
        return self.gross_limit * state.equity_usd - gross

    def _send(self, orders: list[OrderRequest]) -> None:
        if stop := self.guard():
            self.stopped = stop
            return
        start_ms, start = self._start_clocks
        # A date that jumps ahead during the run must not give an order minutes to arrive in.
        now_ms = min(self.dex.clock_ms(), start_ms + int(1000 * (self.reconciler.boot_clock() - start)))
        expires_ms = now_ms + int(1000 * self.policy.expires_seconds)
        self.journal.append(
            "intent",
            self.reconciler.exchange_time(),
            instant=self.instant.isoformat(),
            expires_ms=expires_ms,
            expires_seconds=self.policy.expires_seconds,
            boot_id=boot_id(),
            boot_seconds=self.reconciler.boot_clock(),
            orders=[{**asdict(order), "mid": self._markets[order.coin].mid} for order in orders],
        )
        first = len(self.reconciler.results)
        results = self.dex.send(orders, expires_ms)
        try:
            unknown = self.reconciler.record("answers", list(zip(orders, results, strict=True)))
            if unknown:
                unresolved = self.journal.state.unresolved
                self.reconciler.resolve([unresolved[order.cloid] for order in unknown])
        finally:
            for order, result in self.reconciler.results[first:]:
                if result.fate == "rejected":
                    self.record_refusal(order, result, len(orders))

    def record_refusal(self, order: OrderRequest, result: OrderResult, batch: int) -> None:
        """Note what a refusal means for its coin, and for the run."""
        progress, refusal = self.progress[order.coin], classify(result.reason)
        reason, text = Reason.REFUSED, result.reason
        value = abs(order.units) * self._markets[order.coin].mid
        if Refusal.FATAL in refusal:
            self.stopped = result.reason
        elif result.whole_batch and batch > 1:
            self._one_by_one = True  # one order spoils the request: the next attempt sends them one by one
        elif Refusal.SMALL in refusal and value < 2.0 * self.dex.min_notional_usd:
            # The exchange may value an order at its limit price, where the sizing rule takes mid.
            reason, text = Reason.REFUSED_AS_SMALL, f"{order.coin}: {order.units:+g} is left: {result.reason}"
        elif Refusal.PERMANENT in refusal:
            reason = Reason.REFUSED_FOR_GOOD
        progress.set(reason, text)

    # Before and after -------------------------------------------------------------------------------------------------

    def _set_leverage(self, goals: Sequence[Goal]) -> None:
        for goal in goals:
            market = self._markets.get(goal.coin)
            held = self.reconciler.expected.get(goal.coin, 0.0)
            if market is None or self.stopped or self.progress[goal.coin].reason.final or held:
                continue
            wanted = max(1, min(self.leverage, int(market.max_leverage or self.leverage)))
            if self.journal.state.leverage.get(goal.coin) == wanted:
                continue
            if stop := self.guard():
                self.stopped = stop
                return
            refusal = self.dex.set_leverage(market, wanted)
            if refusal:
                self.journal.append("leverage_refused", self.reconciler.exchange_time(), coin=goal.coin, reason=refusal)
                self.progress[goal.coin].set(Reason.LEVERAGE_REFUSED, f"leverage {wanted}: {refusal}")
                if Refusal.FATAL in classify(refusal):
                    self.stopped = refusal
            else:
                self.journal.append("leverage_set", self.reconciler.exchange_time(), coin=goal.coin, leverage=wanted)

    def _outcome(self, goals: Sequence[Goal], plan: Plan | None) -> Outcome:
        expected, held = self.reconciler.expected, self.reconciler.held
        last = {goal.coin: goal for goal in goals}  # phase 1 comes last
        missing = []
        for coin, goal in sorted(last.items()):
            units = held(coin)
            left = goal.target_units - units
            if abs(left) <= SIZE_TOLERANCE * max(abs(goal.target_units), abs(units)):
                continue
            progress = self.progress[coin]
            if progress.reason.at_target and not self.stopped:
                self.notes.append(progress.text)
            else:
                missing.append(Missing(coin, goal.target_units, units, self._why(progress, (left > 0.0) != goal.buy)))
        if self.closes_all:
            stuck = [coin for coin in sorted(expected) if held(coin) and coin not in last]
            missing += [Missing(coin, 0.0, held(coin), "it cannot be traded now") for coin in stuck]
        # Not what the account shows, which may lag behind: what the journal adds up to.
        positions = dict(expected)
        for coin, (journal, account) in sorted(self.reconciler.unexplained.items()):
            positions[coin] = round(positions.get(coin, 0.0) + journal - account, 8)
            if all(item.coin != coin for item in missing):
                text = f"before this run the journal had {journal:g} and the account {account:g}; if that was you"
                missing.append(Missing(coin, 0.0, positions[coin], f"{text}, run with --accept-positions once"))
        outcome = Outcome(plan, tuple(self.reconciler.results), tuple(missing), tuple(dict.fromkeys(self.notes)))
        self.journal.append(
            "done",
            self.reconciler.exchange_time(),
            instant=self.instant.isoformat(),
            equity_usd=self.reconciler.state.equity_usd,
            positions=dict(sorted(positions.items())),
            complete=outcome.complete,
            missing=[asdict(item) for item in missing],
            notes=list(outcome.notes),
        )
        return outcome

    def _why(self, progress: CoinProgress, passed: bool) -> str:
        """Why a coin is missing, for people; `passed` is whether it is beyond its target."""
        if progress.reason.final:
            return progress.text
        passed_text = "another trade took it past its target, or a liquidation" if passed else ""
        return passed_text or self.stopped or progress.text or progress.reason.value
