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
from engine.live.leverage import leverage_to_set, set_leverages
from engine.live.orders import (
    BELOW_MINIMUM,
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
from engine.live.risk_limits import net_bounds, price_breach
from engine.live.targets import Strategy
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
    """How far one coin has come: number and bound of its next order, and why it is not at its target."""

    attempts: int = 0
    within_oracle: bool = False
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
    strategy : Strategy
        Its key is part of every client order id. Openings that would take the gross, or without a leg the net exposure,
        beyond its limits are held back; they stop when a price has moved by more than its limit since the start of the
        run, or is farther from its oracle price. Its leverage is set before a coin's first trade. What is left under
        the minimum notional is missing where it closes all.
    instant : Timestamp
        Trade instant of the decision, part of every client order id.
    guard : callable
        Called before every request; a text stops all orders.
    announce : callable
        Called with a text before what takes long.
    """

    reconciler: Reconciler
    strategy: Strategy
    instant: pd.Timestamp
    guard: Callable[[], str]
    announce: Callable[[str], object]

    notes: list[str] = field(default_factory=list)
    progress: defaultdict[str, CoinProgress] = field(default_factory=lambda: defaultdict(CoinProgress))
    stopped: str = ""
    _singly: bool = False  # one order spoiled a request: from then on each has its own
    _weights: dict[str, float] = field(default_factory=dict)  # wanted, of coins that have a goal
    _markets: Mapping[str, Market] = field(default_factory=dict)
    _start_mids: dict[str, float] = field(default_factory=dict)
    _start_clocks: tuple[int, float] = (0, 0.0)  # the exchange's, ms, and this machine's own, s

    def __post_init__(self) -> None:
        reconciler = self.reconciler
        self.dex, self.journal, self.policy = reconciler.dex, reconciler.journal, reconciler.policy
        self.limits = self.strategy.limits

    def run(self, goals: Sequence[Goal], markets: Mapping[str, Market], plan: Plan | None) -> Outcome:
        """Trade to the goals, given the account as recovered and the markets as just read."""
        self._markets = markets
        self._start_clocks = self.dex.clock_ms(), self.reconciler.boot_clock()
        self._start_mids = {coin: market.mid for coin, market in markets.items()}
        self.reconciler.expected = dict(self.reconciler.state.units)
        self._weights = {goal.coin: goal.weight for goal in goals}
        if plan is not None and (small := [skip.coin for skip in plan.skips if skip.reason == BELOW_MINIMUM]):
            self.notes.append(f"{BELOW_MINIMUM}, so let be: {', '.join(small)}")
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
        number, attempts = 0, self.policy.attempts
        while number < attempts:
            if number:
                self._markets = self.dex.markets()
                self._stop_moved([goal for goal in goals if goal.phase == 1])
            orders = self._remaining_orders(goals)
            if not orders or self.stopped:
                return
            if number:
                self.reconciler.sleep(self.policy.wait_seconds(number - 1))
            before, singly = dict(self.reconciler.expected), self._singly
            self._send_all(orders)
            attempts += self._singly and not singly  # of its orders a request that was refused whole says nothing
            number += 1
            self.reconciler.confirm(orders, before, self._markets)
            for coin, text in self.reconciler.differing.items():
                self.progress[coin].set(Reason.POSITION_DIFFERS, text)

    def _stop_moved(self, openings: Sequence[Goal]) -> None:
        """Stop all openings when the price of one that is left has gone beyond the limit that would stop a run."""
        left = [goal.coin for goal in openings if self._left(goal) and goal.coin in self._markets]
        moved = (price_breach(self.limits, self._markets[coin], self._start_mids.get(coin)) for coin in left)
        if not (text := next(filter(None, moved), "")):
            return
        for goal in openings:
            progress = self.progress[goal.coin]
            if not progress.reason.final and not progress.reason.at_target:
                progress.set(Reason.PRICE_MOVED, f"{text}; nothing more is opened")

    def _left(self, goal: Goal) -> float:
        """Signed units that a goal lacks; 0 where it was reached, passed, or is not traded any further."""
        left = goal.target_units - self.reconciler.expected.get(goal.coin, 0.0)
        return left if (left > 0.0) == goal.buy and not self.progress[goal.coin].reason.final else 0.0

    def _remaining_orders(self, goals: Sequence[Goal]) -> list[OrderRequest]:
        """Orders for what the goals of a phase lack."""
        lacking = [item for goal in goals if (item := self._lacking(goal))]
        if lacking and lacking[0][0].phase == 1:
            lacking = self._within_net(self._within_gross(lacking))
        return [order for item in lacking if (order := self._order(*item))]

    def _lacking(self, goal: Goal) -> tuple[Goal, float, Market] | None:
        """A goal with the signed units to trade; None where nothing can or need be traded."""
        progress, market = self.progress[goal.coin], self._markets.get(goal.coin)
        if not goal.sized or not (left := self._left(goal)):
            return None
        if market is None:
            progress.set(Reason.NOT_TRADABLE, self._no_quote(goal.coin))
            return None
        left = round_lot(left, market.sz_decimals)  # whole lots, without the rounding error of the subtraction
        closes = goal.reduce_only and goal.target_units == 0.0
        if left == 0.0:
            return None
        if abs(left) * market.mid < self.dex.min_notional_usd and not closes:
            progress.set(Reason.BELOW_MINIMUM, f"{goal.coin}: {left:+g} is left, under the minimum notional")
            return None
        return goal, left, market

    def _within_gross(self, lacking: list[tuple[Goal, float, Market]]) -> list[tuple[Goal, float, Market]]:
        """Hold back openings that would exceed the gross limit."""
        if self.limits.gross is None:
            return lacking
        reconciler, kept = self.reconciler, []
        headroom = self.limits.gross * reconciler.state.equity_usd
        headroom -= math.fsum(map(abs, reconciler.state.foreign.values()))
        for coin, units in reconciler.expected.items():
            headroom -= max(abs(units), abs(reconciler.held(coin))) * self._price(coin)
        for goal, units, market in lacking:
            value = abs(units) * market.mid
            if value > headroom:
                self._hold_back(goal.coin, f"{value:,.2f} USD more would exceed the gross limit")
                continue
            headroom -= value
            kept.append((goal, units, market))
        return kept

    def _within_net(self, lacking: list[tuple[Goal, float, Market]]) -> list[tuple[Goal, float, Market]]:
        """Hold back openings that would leave a leg without its hedge; what takes the net exposure back goes on."""
        if (exposure := self._net_exposure()) is None:
            return lacking
        net, low, high = exposure
        after = net + math.fsum(units * market.mid for _, units, market in lacking) / self.reconciler.state.equity_usd
        if low <= after <= high:
            return lacking
        kept = [item for item in lacking if (net > high and item[1] < 0.0) or (net < low and item[1] > 0.0)]
        for goal, *_ in (item for item in lacking if item not in kept):
            text = f"net_frac: the net exposure would be {after:+.3f} of equity, beyond {low:+.3f} to {high:+.3f}"
            self._hold_back(goal.coin, text)
        return kept

    def _net_exposure(self) -> tuple[float, float, float] | None:
        """The net exposure by the results, and its bounds, as fractions of equity; None without a limit."""
        equity, limit = self.reconciler.state.equity_usd, self.limits.net_frac
        if limit is None or not equity > 0.0:
            return None
        held = {coin: self.reconciler.held(coin) * self._price(coin) / equity for coin in self.reconciler.expected}
        foreign = math.fsum(self.reconciler.state.foreign.values()) / equity
        others = math.fsum(value for coin, value in held.items() if coin not in self._weights) + foreign
        own = math.fsum(self._weights.values()) + others
        return math.fsum(held.values()) + foreign, *net_bounds(limit, own)

    def _hold_back(self, coin: str, why: str) -> None:
        """Note why an opening waits; a flip whose close is not done keeps the reason of that."""
        self.notes.append(f"{coin}: held back: {why}")
        if self.reconciler.expected.get(coin, 0.0) * self._weights[coin] >= 0.0:
            self.progress[coin].set(Reason.HELD_BACK, f"held back: {why}")

    def _order(self, goal: Goal, units: float, market: Market) -> OrderRequest | None:
        """The coin's next order; None when no valid price lies within the slippage."""
        progress = self.progress[goal.coin]
        bound = self._price_bound(goal, units, market)
        price = self.dex.round_price(market, bound, units > 0.0)
        if not price > 0.0:
            text = f"no price on its tick lies between mid {self._start_mids[goal.coin]:g} and {bound:g}"
            progress.set(Reason.NO_VALID_PRICE, text)
            return None
        if progress.reason is not Reason.REFUSED:
            progress.set(Reason.UNFILLED)
        name = cloid(self.strategy.key, self.instant, goal.coin, progress.attempts)
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
        if self.progress[goal.coin].within_oracle and market.oracle is not None:
            bound = side * min(side * bound, side * market.oracle)  # at the cap of open interest no other is accepted
        return bound

    def _no_quote(self, coin: str) -> str:
        why = self.dex.why_no_quote(coin)
        return Reason.NOT_TRADABLE.value + (f": {why}" if why else "")

    def _price(self, coin: str) -> float:
        return self._markets[coin].mid if coin in self._markets else self.reconciler.state.prices.get(coin, 0.0)

    # Requests ---------------------------------------------------------------------------------------------------------

    def _send_all(self, orders: list[OrderRequest]) -> None:
        """Send in batches, or singly once a whole batch was refused, so that no coin blocks the others.

        What is refused alone, in words that may belong to an order that was executed, is looked up after the others.
        """
        doubtful: list[OrderRequest] = []
        while orders and not self.stopped:
            size = 1 if self._singly else _BATCH
            batch, orders = orders[:size], orders[size:]
            results = self._send(batch)
            unknown = [order for order, result in results if result.fate == "unknown"]
            if len(batch) == 1 and all(result.whole_batch for _, result in results):
                doubtful += unknown
            elif unknown:
                self._resolve(unknown, len(batch))
        self._resolve(doubtful, 1)

    def _resolve(self, orders: Sequence[OrderRequest], batch: int) -> None:
        first, unresolved = len(self.reconciler.results), self.journal.state.unresolved
        try:
            self.reconciler.resolve([unresolved[order.cloid] for order in orders])
        finally:
            self._record_refusals(first, batch)

    def _send(self, orders: list[OrderRequest]) -> list[tuple[OrderRequest, OrderResult]]:
        """Journal and send one request; returns each order with its result."""
        if stop := self.guard():
            self.stopped = stop
            return []
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
            orders=[{**asdict(order), **self._quote(order.coin)} for order in orders],
        )
        first = len(self.reconciler.results)
        results = list(zip(orders, self.dex.send(orders, expires_ms), strict=True))
        self._singly |= len(orders) > 1 and any(result.whole_batch for _, result in results)
        self.reconciler.record("answers", results)
        self._record_refusals(first, len(orders))
        return results

    def _quote(self, coin: str) -> dict[str, float | None]:
        market = self._markets[coin]
        return {"mid": market.mid, "bid": market.bid, "ask": market.ask}

    def _record_refusals(self, first: int, batch: int) -> None:
        """Note what refusals among the results from `first` on mean for their coins, and for the run."""
        for order, result in self.reconciler.results[first:]:
            if result.fate != "rejected":
                continue
            progress, refusal = self.progress[order.coin], classify(result.reason)
            reason, text = Reason.REFUSED, result.reason
            value = abs(order.units) * self._markets[order.coin].mid
            if Refusal.FATAL in refusal:
                self.stopped = result.reason
            elif Refusal.BEYOND_ORACLE in refusal and not progress.within_oracle:
                progress.within_oracle = True
            elif result.whole_batch and batch > 1:
                text = f"refused with the whole request: {result.reason}"
            elif Refusal.SMALL in refusal and value < 2.0 * self.dex.min_notional_usd:
                # The exchange may value an order at its limit price, where the sizing rule takes mid.
                reason, text = Reason.REFUSED_AS_SMALL, f"{order.coin}: {order.units:+g} is left: {result.reason}"
            elif Refusal.PERMANENT in refusal or (result.whole_batch and not refusal and progress.text == text):
                reason = Reason.REFUSED_FOR_GOOD  # or alone, twice in the same words that nobody knows
            progress.set(reason, text)

    # Before and after -------------------------------------------------------------------------------------------------

    def _set_leverage(self, goals: Sequence[Goal]) -> None:
        state = self.reconciler.state
        lacking = filter(None, map(self._lacking, goals))
        opened = {market: abs(goal.target_units) * market.mid for goal, _, market in lacking}
        if self.stopped or not opened:
            return
        if wanted := leverage_to_set(self.dex, self.journal, state, opened, *self.strategy.leverages):
            if stop := self.guard():
                self.stopped = stop
                return
            for coin, refusal in set_leverages(self.dex, self.journal, state, wanted, self.announce).items():
                self.progress[coin].set(Reason.LEVERAGE_REFUSED, refusal)
                if Refusal.FATAL in classify(refusal):
                    self.stopped = refusal

    def _outcome(self, goals: Sequence[Goal], plan: Plan | None) -> Outcome:
        expected, held = self.reconciler.expected, self.reconciler.held
        last = {goal.coin: goal for goal in goals}  # phase 1 comes last
        missing = []
        for coin, goal in sorted(last.items()):
            units = held(coin)
            left = goal.target_units - units
            if goal.sized and abs(left) <= SIZE_TOLERANCE * max(abs(goal.target_units), abs(units)):
                continue
            progress = self.progress[coin]
            if not goal.sized:
                text = f"{self._no_quote(coin)}, so its {goal.weight:+.2%} of equity cannot be sized"
                missing.append(Missing(coin, None, units, text))
            elif progress.reason.at_target and not self.stopped and not self.strategy.targets.closes_all:
                self.notes.append(progress.text)
            else:
                missing.append(Missing(coin, goal.target_units, units, self._why(progress, (left > 0.0) != goal.buy)))
        if missing and (exposure := self._net_exposure()):
            net, low, high = exposure
            if not low <= net <= high:
                names = ", ".join(item.coin for item in missing)
                text = f"beyond {low:+.3f} to {high:+.3f}: a leg is without its hedge"
                self.notes.append(f"net_frac: without {names} the net exposure is {net:+.3f} of equity, {text}")
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
            equity_usd=self.reconciler.state.certain_equity_usd,
            positions=dict(sorted(positions.items())),
            prices=dict(sorted(self.reconciler.state.prices.items())),
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
