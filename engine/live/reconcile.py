"""Agreement between the journals, the exchange and the account: order statuses, and positions that show them.

Every run begins with :meth:`Reconciler.recover`, before anything is planned: every order that an earlier process may
have sent is looked up by its client order id. Then positions are read until they are those that the journals of the
account add up to, for a node may lag behind, with its answers stamped new; :meth:`Reconciler.judge` refuses others. A
run does the same after each request, so that a first attempt, a retry and a restart are one path.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Final

import pandas as pd

from engine.clock import show
from engine.coin import dex_of
from engine.errors import LiveError, PositionsError, UnreachableError, join_first
from engine.live.boot_clock import boot_id, boot_seconds
from engine.live.dex import DEX
from engine.live.journal import Journal, SentOrder
from engine.live.orders import SIZE_TOLERANCE, AccountState, Market, OrderRequest, OrderResult, Plan, Policy
from engine.live.state_folder import other_journals

#: An order counts as void this share of its time to expiry later than by either clock, for clocks and reads that lag.
_GRACE: Final = 0.2
#: Looks at an expired order that the exchange still calls open, before the run gives up.
_LOOKUPS: Final = 20


@dataclass
class Reconciler:
    """What one process knows of an account: its state, its journals, and the positions that results add up to.

    Parameters
    ----------
    dex : DEX
        The account.
    journal : Journal
        Of the strategy that runs; gets every result. A paper account and a journal in memory have no others.
    policy : Policy
        How long to wait.
    sleep : callable
        Waits.
    boot_clock : callable
        Seconds of a clock that later processes of this machine share.
    closing : bool
        The run closes everything: it takes what can be read of the account, and needs no equity.

    Attributes
    ----------
    state : AccountState
        As last read.
    expected : dict of coin to float
        Signed units: positions as last confirmed, and every fill since.
    results : list of (OrderRequest, OrderResult)
        Every order whose status became known, oldest first.
    differing : dict of coin to str
        Coins whose position never agreed with the results, with the figures.
    unexplained : dict of coin to (float, float)
        Signed units by the journal and by the account, where they differed before anything was planned.
    explained_at : Timestamp or None
        Of the positions that the journals add up to, once compared; None before an account's first run.
    notes : list of str
        For people.
    """

    dex: DEX
    journal: Journal
    policy: Policy
    sleep: Callable[[float], None] = time.sleep
    boot_clock: Callable[[], float] = boot_seconds
    closing: bool = False

    state: AccountState = field(init=False)
    expected: dict[str, float] = field(default_factory=dict)
    results: list[tuple[OrderRequest, OrderResult]] = field(default_factory=list)
    differing: dict[str, str] = field(default_factory=dict)
    unexplained: dict[str, tuple[float, float]] = field(default_factory=dict)
    explained_at: pd.Timestamp | None = None
    notes: list[str] = field(default_factory=list)
    _doubtful: dict[str, OrderResult] = field(default_factory=dict)  # what was said of orders that are looked up

    def __post_init__(self) -> None:
        self._start = self.boot_clock()

    @cached_property
    def others(self) -> list[Journal]:
        """The journals of other strategies on the account, as they are when they are first looked at."""
        journals: list[Journal] = []
        own = None if self.dex.network == "paper" else self.journal.path
        for path in () if own is None else other_journals(own, self.dex.label):
            try:
                journals.append(Journal(path))
            except LiveError as error:  # damaged; only its own strategy depends on it
                self.notes.append(str(error))
        return journals

    def recover(self) -> None:
        """From a kill to an account that is known: orders without a known status, of any strategy, then positions.

        Raises
        ------
        UnreachableError
            When the exchange does not answer, or calls an expired order open.
        """
        for journal in self.others:  # their orders may still be filled
            if journal.state.unresolved:
                Reconciler(self.dex, journal, self.policy, self.sleep, self.boot_clock, self.closing)._look_up()
        self._look_up()
        self.agree()

    def _look_up(self) -> None:
        self.read_account()
        if unresolved := list(self.journal.state.unresolved.values()):
            self.resolve(unresolved)
            self.read_account()

    def agree(self) -> None:
        """Wait for positions that the journals explain; coins with others end up in `unexplained`.

        The journal whose positions are the newest knows all: each run begins with positions that were explained. Before
        an account's first run none explains any. A paper account never lags, and it settles.
        """
        if self.dex.network == "paper":
            return
        self.explained_at, positions = self._newest_positions()
        unknown = self._unresolved_coins()
        if self.explained_at is not None:
            self.expected = dict(positions)
            differing = self._settle(lambda: sorted({*positions, *self.state.units} - unknown), {})
        else:
            differing = [] if self.journal.path is None else sorted(self.state.units.keys() - unknown)
        units = self.state.units
        self.unexplained = {coin: (positions.get(coin, 0.0), units.get(coin, 0.0)) for coin in differing}

    def _newest_positions(self) -> tuple[pd.Timestamp | None, Mapping[str, float]]:
        """Positions of the journal that knows the newest, this run's own first, and when they were so."""
        states = [journal.state for journal in (self.journal, *self.others)]
        known = [(state.positions_at, -number) for number, state in enumerate(states) if state.positions_at is not None]
        if not known:
            return None, {}
        at, number = max(known)
        return at, states[-number].positions

    def _unresolved_coins(self) -> set[str]:
        journals = (self.journal, *self.others)
        return {sent.request.coin for journal in journals for sent in journal.state.unresolved.values()}

    @property
    def coins(self) -> set[str]:
        """Coins that the journals of the account hold, or may."""
        held = {coin for coin, units in self._newest_positions()[1].items() if units}
        return held | self._unresolved_coins()

    @property
    def differences(self) -> str:
        """Positions that no journal explains, with their figures; ``""`` when there are none."""
        pairs = self.unexplained.items()
        return join_first(f"{coin}: journal {journal:g}, account {account:g}" for coin, (journal, account) in pairs)

    def judge(self, markets: Mapping[str, Market], closes_all: bool, accepted: bool) -> None:
        """Note positions that no journal explains where they may be traded.

        Parameters
        ----------
        markets : mapping of coin to Market
            What is traded.
        closes_all : bool
            Reduce-only orders double nothing: what the account shows is closed.
        accepted : bool
            By the account's owner.

        Raises
        ------
        PositionsError
            Where they may not.
        """
        if not (text := self.differences):
            return
        unexplained, first = self.unexplained, self.explained_at is None
        gone = [coin for coin in unexplained if coin not in markets and dex_of(coin) not in self.state.unread]
        if all(coin in gone and account == 0.0 for coin, (_, account) in unexplained.items()):
            why = "no longer traded at the exchange"  # settled by it, and cannot be ordered again
        elif accepted:
            why = "accepted by the owner"
        elif closes_all and first:
            why = "the first run on this account closes them"
        elif closes_all:
            self.notes.append(f"positions differ from the journal; what the account shows is closed: {text}")
            return
        else:
            raise self._refusal(text)
        rows = [{"coin": coin, "journal": pair[0], "account": pair[1]} for coin, pair in unexplained.items()]
        at, positions = self.exchange_time(), dict(self.state.units)
        self.journal.append("positions_accepted", at, positions=positions, differences=rows, reason=why)
        self.notes.append(f"positions that the journal does not explain, {why}: {text}")
        self.unexplained = {}

    def _refusal(self, text: str) -> PositionsError:
        if self.explained_at is None:
            return PositionsError(
                f"Nothing was ordered: {self.dex.label} has positions that no journal explains: {text}. This would be "
                "the first run on the account, and it closes what its weights do not name. If the account is meant for "
                "it, run once with --accept-positions; if a journal of it is elsewhere, name it with --journal."
            )
        return PositionsError(
            f"Nothing was ordered: {self.dex.label} does not hold what the journal {self.journal.path} adds up to: "
            f"{text}. A node that lags behind shows old positions: run the command again in a minute. If you have "
            "traded yourself, or a position was liquidated, check the account and run once with --accept-positions."
        )

    def warn_of_others(self, plan: Plan) -> None:
        """Note which positions of a strategy that traded the account after this one did would get smaller."""
        own = self.journal.state.positions_at
        less = {order.coin for order in plan.orders if order.action not in ("open", "increase")}
        for journal in self.others:
            at, plans = journal.state.positions_at, [entry for entry in journal.entries if entry["kind"] == "plan"]
            if not plans or at is None or (own is not None and at <= own):
                continue
            if theirs := sorted(less & set(plans[-1]["plan"]["weights"])):
                self.notes.append(
                    f"another strategy traded this account last, {journal.path} at {show(at)}: of its positions this "
                    f"run closes or reduces {join_first(theirs)}. Two strategies need two sub-accounts, or a book"
                )

    def read_account(self) -> None:
        """Read the account, and note when."""
        state = self.dex.closing_account() if self.closing else self.dex.account()
        if self.closing and state.doubt:
            state = replace(state, equity_usd=math.nan)
        self.state, self._read_at = state, self.boot_clock()

    def exchange_time(self) -> pd.Timestamp:
        """The exchange's time now, by this machine's own clock since the account was read."""
        return self.state.time + pd.Timedelta(seconds=max(0.0, self.boot_clock() - self._read_at))

    def record(self, kind: str, results: Sequence[tuple[OrderRequest, OrderResult]]) -> None:
        """Journal results and add them up."""
        self.journal.append(kind, self.exchange_time(), answers=[asdict(result) for _, result in results])
        for order, result in results:
            if result.fate == "unknown":
                self._doubtful.setdefault(order.cloid, result)
                continue
            self.results.append((order, result))
            if result.fate == "filled":
                self.expected[order.coin] = self.expected.get(order.coin, 0.0) + result.units

    def resolve(self, sent: Sequence[SentOrder]) -> None:
        """Look orders up until each has a known status; one never seen counts as not placed once it is void."""
        waiting, lookups = list(sent), 0
        while waiting:
            left = [self.seconds_to_void(item) for item in waiting]  # before the lookups: what arrives later is void
            known: list[tuple[OrderRequest, OrderResult]] = []
            unknown: list[SentOrder] = []
            for item, seconds in zip(waiting, left, strict=True):
                order = item.request
                result = self.dex.find_order(order)
                if result is None and seconds < 0.0:
                    said = self._doubtful.get(order.cloid, OrderResult(order.cloid, "unknown"))
                    reason = "; ".join(filter(None, (said.reason, "not placed: the exchange has never seen it")))
                    result = replace(said, fate="rejected", reason=reason)
                if result is None or result.fate == "unknown":
                    unknown.append(item)
                else:
                    known.append((order, result))
            if known:
                self.record("resolved", known)
            if waiting := unknown:
                if max(left) < 0.0 and lookups > _LOOKUPS:
                    names = ", ".join(item.request.cloid for item in waiting)
                    raise UnreachableError(f"The exchange does not say what became of {names}. Run again later.")
                self.sleep(min(1.0, max(0.05, max(map(self.seconds_to_void, waiting)) + 0.05)))
                lookups += 1

    def seconds_to_void(self, sent: SentOrder) -> float:
        """How long an order that the exchange has not seen may still arrive; negative: it is void.

        Both clocks must say so: the exchange's, which one wrong date can move, and this machine's since the intent.
        Of an intent before the machine was started, that is the time since this run began.
        """
        expiry = sent.expires_seconds or self.policy.expires_seconds
        by_exchange = (sent.expires_ms - self.dex.clock_ms()) / 1000.0 + _GRACE * expiry
        since, now = self._start, self.boot_clock()
        if sent.boot_id == boot_id() and sent.boot_seconds <= now:
            since = sent.boot_seconds
        return max(by_exchange, (1.0 + _GRACE) * expiry - (now - since))

    def confirm(
        self, orders: Sequence[OrderRequest], before: Mapping[str, float], markets: Mapping[str, Market]
    ) -> None:
        """Read positions until they agree with the results; coins of `orders` that never do are in `differing`.

        Parameters
        ----------
        orders : sequence of OrderRequest
            Their coins are compared.
        before : mapping of coin to float
            Signed units before these orders, for the message.
        markets : mapping of coin to Market
            Lots, within half of which positions agree.
        """
        self.read_account()
        for coin in self._settle(lambda: sorted({order.coin for order in orders}), markets):
            units, expected = self.state.units.get(coin, 0.0), self.expected.get(coin, 0.0)
            self.differing[coin] = (
                f"the exchange shows {units:g} where its results add up to {expected:g} (before: "
                f"{before.get(coin, 0.0):g}); it is not traded further"
            )

    def held(self, coin: str) -> float:
        """Signed units: what the account shows where it does not agree with the results, else what they add up to."""
        return (self.state.units if coin in self.differing else self.expected).get(coin, 0.0)

    def _settle(self, coins: Callable[[], list[str]], markets: Mapping[str, Market]) -> list[str]:
        """Read the account until positions are as expected; returns the coins where they never are."""
        for seconds in (*self.policy.settle_seconds, None):
            differing = [coin for coin in coins() if not self._agrees(coin, markets.get(coin))]
            if not differing or seconds is None:
                break
            self.sleep(seconds)
            self.read_account()
        return differing

    def _agrees(self, coin: str, market: Market | None) -> bool:
        units, expected = self.state.units.get(coin, 0.0), self.expected.get(coin, 0.0)
        lot = 0.0 if market is None or market.sz_decimals is None else 10.0**-market.sz_decimals
        if abs(units - expected) > max(lot / 2.0, SIZE_TOLERANCE * max(abs(units), abs(expected))):
            return False
        self.expected[coin] = units  # exact, without the rounding of sums
        return True
