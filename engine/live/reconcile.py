"""Agreement between the journal, the exchange and the account: order statuses, and positions that show them.

Every run begins with :meth:`Reconciler.recover`, before anything is planned: every order that an earlier process may
have sent is looked up by its client order id. Then :meth:`Reconciler.agree` reads positions until they are those that
the journal adds up to, for a node may lag behind, with its answers stamped new. A run does the same after each request,
so that a first attempt, a retry and a restart are one path.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Final

import pandas as pd

from engine.errors import UnreachableError
from engine.live.boot_clock import boot_id, boot_seconds
from engine.live.dex import DEX
from engine.live.journal import Journal, SentOrder
from engine.live.orders import SIZE_TOLERANCE, AccountState, Market, OrderRequest, OrderResult, Policy

#: An order counts as void this share of its time to expiry later than by either clock, for clocks and reads that lag.
_GRACE: Final = 0.2
#: Looks at an expired order that the exchange still calls open, before the run gives up.
_LOOKUPS: Final = 20


@dataclass
class Reconciler:
    """What one process knows of an account: its state, and the positions that results add up to.

    Parameters
    ----------
    dex : DEX
        The account.
    journal : Journal
        Gets every result.
    policy : Policy
        How long to wait.
    sleep, clock : callable
        Waiting, and seconds of a monotonic clock.
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
    """

    dex: DEX
    journal: Journal
    policy: Policy
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    boot_clock: Callable[[], float] = boot_seconds
    closing: bool = False

    state: AccountState = field(init=False)
    expected: dict[str, float] = field(default_factory=dict)
    results: list[tuple[OrderRequest, OrderResult]] = field(default_factory=list)
    differing: dict[str, str] = field(default_factory=dict)
    unexplained: dict[str, tuple[float, float]] = field(default_factory=dict)
    _doubtful: dict[str, OrderResult] = field(default_factory=dict)  # what was said of orders that are looked up

    def __post_init__(self) -> None:
        self._start = self.boot_clock()

    def recover(self) -> AccountState:
        """Resolve every order that an earlier run left without a known status; returns the account afterwards.

        Raises
        ------
        UnreachableError
            When the exchange does not answer, or calls an expired order open.
        """
        self.read_account()
        unresolved = list(self.journal.state.unresolved.values())
        if unresolved:
            self.resolve(unresolved)
            self.read_account()
        return self.state

    def agree(self, positions: Mapping[str, float], unknown: Collection[str] = ()) -> None:
        """Read positions until they are `positions`; coins that never are end up in `unexplained`.

        Parameters
        ----------
        positions : mapping of coin to float
            Signed units that the journals of the account add up to.
        unknown : collection of str
            Coins that are not compared, since an order of theirs is of unknown status.
        """
        self.expected = dict(positions)
        for number in range(len(self.policy.settle_seconds) + 1):
            if number:
                self.sleep(self.policy.wait_seconds(number - 1))
                self.read_account()
            coins = sorted({*positions, *self.state.units} - set(unknown))
            differing = [coin for coin in coins if not self._agrees(coin, None)]
            if not differing:
                break
        units = self.state.units
        self.unexplained = {coin: (positions.get(coin, 0.0), units.get(coin, 0.0)) for coin in differing}

    def read_account(self) -> None:
        """Read the account, and note when."""
        state = self.dex.closing_account() if self.closing else self.dex.account()
        if self.closing and state.doubt:
            state = replace(state, equity_usd=math.nan)
        self.state, self._read_at = state, self.clock()

    def exchange_time(self) -> pd.Timestamp:
        """The exchange's time now, by this machine's monotonic clock since the account was read."""
        return self.state.time + pd.Timedelta(seconds=max(0.0, self.clock() - self._read_at))

    def record(self, kind: str, results: Sequence[tuple[OrderRequest, OrderResult]]) -> list[OrderRequest]:
        """Journal results and add them up; returns the orders whose status is unknown."""
        self.journal.append(kind, self.exchange_time(), answers=[asdict(result) for _, result in results])
        for order, result in results:
            if result.fate == "unknown":
                self._doubtful.setdefault(order.cloid, result)
            if result.fate == "filled":
                self.expected[order.coin] = self.expected.get(order.coin, 0.0) + result.units
        self.results += [(order, result) for order, result in results if result.fate != "unknown"]
        return [order for order, result in results if result.fate == "unknown"]

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
        coins = sorted({order.coin for order in orders})
        for number in range(len(self.policy.settle_seconds) + 1):
            self.read_account()
            differing = [coin for coin in coins if not self._agrees(coin, markets.get(coin))]
            if not differing:
                return
            if number < len(self.policy.settle_seconds):
                self.sleep(self.policy.wait_seconds(number))
        for coin in differing:
            units, expected = self.state.units.get(coin, 0.0), self.expected.get(coin, 0.0)
            self.differing[coin] = (
                f"the exchange shows {units:g} where its results add up to {expected:g} (before: "
                f"{before.get(coin, 0.0):g}); it is not traded further"
            )

    def held(self, coin: str) -> float:
        """Signed units: what the account shows where it does not agree with the results, else what they add up to."""
        return (self.state.units if coin in self.differing else self.expected).get(coin, 0.0)

    def _agrees(self, coin: str, market: Market | None) -> bool:
        units, expected = self.state.units.get(coin, 0.0), self.expected.get(coin, 0.0)
        lot = 0.0 if market is None or market.sz_decimals is None else 10.0**-market.sz_decimals
        if abs(units - expected) > max(lot / 2.0, SIZE_TOLERANCE * max(abs(units), abs(expected))):
            return False
        self.expected[coin] = units  # exact, without the rounding of sums
        return True
