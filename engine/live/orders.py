"""The records of live trading: the account, markets, orders and their results, plans and outcomes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, Final, Literal

import pandas as pd

from engine.coin import Coin, FeeTerms
from engine.provenance import as_json

#: ``filled`` in whole or in part, ``rejected`` without effect, ``unknown``: to be looked up.
OrderStatus = Literal["filled", "rejected", "unknown"]
#: Why a target becomes no order: it is too small, or the coin cannot be traded.
BELOW_MINIMUM: Final = "under the minimum notional, or under a lot"
UNTRADABLE: Final = "has no quote now"
#: Relative slack when two sizes are compared.
SIZE_TOLERANCE: Final = 1e-9


def dex_text(dex: str) -> str:
    """A perp dex for people."""
    return f"the perp dex {dex}" if dex else "the main dex"


@dataclass(frozen=True)
class Policy:
    """How orders are sent.

    Attributes
    ----------
    slippage_frac : float
        Distance of every limit price from the mid at the start of the run; reductions follow a price that runs away,
        up to a tenth from there.
    attempts : int
        Orders of one goal at most.
    expires_seconds : float
        A request is void after this time.
    settle_seconds : tuple of float
        Waits until positions agree with the results, and between attempts.
    """

    slippage_frac: float = 0.03
    attempts: int = 4
    expires_seconds: float = 15.0
    settle_seconds: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0)

    def wait_seconds(self, number: int) -> float:
        """How long to wait after attempt `number`, from 0."""
        return self.settle_seconds[min(number, len(self.settle_seconds) - 1)]


@dataclass(frozen=True)
class Market:
    """One coin as the exchange shows it now; None where it does not say.

    Attributes
    ----------
    coin : str
        HyperLiquid's name.
    mid : float
        USD.
    bid, ask : float or None
        USD, best quotes, or the exchange's impact prices.
    oracle : float or None
        USD, oracle price.
    sz_decimals : int or None
        Decimals of a size; None = not cut.
    max_leverage : float or None
        Highest leverage.
    cross : bool
        Whether cross margin is allowed.
    margin_tiers : tuple of (float, float)
        As those of :class:`engine.Coin`.
    fees : FeeTerms or None
        What a builder's coin adds to the venue's fees; None: nothing.
    """

    coin: str
    mid: float
    bid: float | None = None
    ask: float | None = None
    oracle: float | None = None
    sz_decimals: int | None = None
    max_leverage: float | None = None
    cross: bool = True
    margin_tiers: tuple[tuple[float, float], ...] = ()
    fees: FeeTerms | None = None

    @property
    def terms(self) -> Coin:
        """What the sizing rule knows of its margin."""
        mode = None if self.cross else "isolated"
        return Coin(self.coin, max_leverage=self.max_leverage, margin_tiers=self.margin_tiers, margin_mode=mode)

    def fee_rate(self, rate: float) -> float:
        """The coin's own rate from one that holds for every coin, a fraction of the notional; negative is a rebate."""
        if self.fees is None:
            return rate
        return rate * (self.fees.factor if rate > 0.0 else self.fees.growth_factor)

    def fill_price(self, units: float, half_spread_frac: float) -> float:
        """Fill price of an order by the backtest's rules, without impact, USD.

        Parameters
        ----------
        units : float
            Signed size.
        half_spread_frac : float
            Used where bid or ask is missing, a fraction of mid.
        """
        from engine.simulation.kernel import fill_price_nb

        bid, ask = (math.nan if side is None else side for side in (self.bid, self.ask))
        return float(fill_price_nb(units, self.mid, bid, ask, half_spread_frac))


@dataclass(frozen=True)
class AccountState:
    """The account at one moment.

    Attributes
    ----------
    equity_usd : float
        Cash and unrealised profit; NaN where it cannot be read.
    units : mapping of coin to float
        Signed positions; coins without one are left out.
    time : Timestamp
        The exchange's own time.
    prices : mapping of coin to float
        USD at which the positions are marked.
    foreign : mapping of coin to float
        Signed value in USD of positions on other dexes: never traded, and part of gross and net.
    notes : tuple of str
        What its owner should know.
    doubt : str
        Why equity is not certain; nothing but a ``flatten`` is ordered then.
    leverage : mapping of coin to (int, bool)
        Of the positions, where the exchange says it: the leverage, and whether the margin is cross.
    funds : mapping of dex to float
        USD that margin the positions of each perp dex that is traded; empty where one balance is for all.
    isolated_usd : mapping of coin to float
        USD that each isolated position has of the equity: its margin and its profit.
    unread : tuple of str
        Perp dexes of which nothing could be read, though their coins are traded.
    """

    equity_usd: float
    units: Mapping[str, float]
    time: pd.Timestamp
    prices: Mapping[str, float]
    foreign: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    doubt: str = ""
    leverage: Mapping[str, tuple[int, bool]] = field(default_factory=dict)
    funds: Mapping[str, float] = field(default_factory=dict)
    isolated_usd: Mapping[str, float] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    @property
    def certain_equity_usd(self) -> float | None:
        """Equity for the journal; None where it is not certain, for a wrong one would mislead the limits on it."""
        return None if self.doubt or math.isnan(self.equity_usd) else self.equity_usd


@dataclass(frozen=True)
class OrderRequest:
    """An order that fills at once or not at all (IOC limit).

    Attributes
    ----------
    cloid : str
        Client order id, ``0x`` and 32 hexadecimal digits: the key under which the exchange knows the order.
    coin : str
        HyperLiquid's name.
    units : float
        Signed size, a whole number of lots.
    limit_price : float
        USD, the worst price accepted, on the tick.
    reduce_only : bool
        Whether it may only make a position smaller.
    """

    cloid: str
    coin: str
    units: float
    limit_price: float
    reduce_only: bool


@dataclass(frozen=True)
class OrderResult:
    """What became of an order.

    Attributes
    ----------
    cloid : str
        Of the order.
    fate : {"filled", "rejected", "unknown"}
        Its :data:`OrderStatus`, under the name that it has in journals.
    units : float
        Signed size filled.
    price : float or None
        USD, average price of the fill.
    reason : str
        The exchange's words, or why nothing is known.
    whole_batch : bool
        The exchange refused all orders of the request for what may be the fault of one.
    """

    cloid: str
    fate: OrderStatus
    units: float = 0.0
    price: float | None = None
    reason: str = ""
    whole_batch: bool = False


@dataclass(frozen=True)
class Fill:
    """One fill in the account's history: signed size, price and fee in USD (positive = paid)."""

    cloid: str | None
    coin: str
    units: float
    price: float
    fee_usd: float
    time: pd.Timestamp


class Reason(Enum):
    """Why a coin is not at its target (yet); the value is for people, where the exchange gave no text."""

    UNFILLED = "not filled"
    HELD_BACK = "held back"
    REFUSED = "refused by the exchange"
    BELOW_MINIMUM = "under the minimum notional"
    REFUSED_AS_SMALL = "refused as under the minimum notional"
    REFUSED_FOR_GOOD = "refused by the exchange for good"
    LEVERAGE_REFUSED = "its leverage was refused"
    NOT_TRADABLE = "it has no quote now"
    NO_VALID_PRICE = "no price on its tick"
    PRICE_MOVED = "prices moved since the start of the run"
    POSITION_DIFFERS = "its position differs from what was filled"

    @property
    def final(self) -> bool:
        """Whether the coin is not traded any further in this run."""
        return self not in _PASSING

    @property
    def at_target(self) -> bool:
        """Whether what is left is too small to be traded, and so counts as at its target."""
        return self in (Reason.BELOW_MINIMUM, Reason.REFUSED_AS_SMALL)


_PASSING: Final = (Reason.UNFILLED, Reason.HELD_BACK, Reason.REFUSED, Reason.BELOW_MINIMUM, Reason.NOT_TRADABLE)


@dataclass(frozen=True)
class Missing:
    """A position that is not at its target, and why; a target that cannot be sized is None."""

    coin: str
    target_units: float | None
    units: float
    reason: str

    def __str__(self) -> str:
        target = "" if self.target_units is None else f" instead of {self.target_units:g}"
        return f"{self.coin} is at {self.units:g}{target} ({self.reason})"


@dataclass(frozen=True)
class Outcome:
    """What a live run did.

    Attributes
    ----------
    plan : Plan or None
        What was planned; None when an earlier run's plan was continued.
    results : tuple of (OrderRequest, OrderResult)
        Every order whose status became known.
    missing : tuple of Missing
        Empty when the book is at its target.
    notes : tuple of str
        For people: what was left under the minimum, what was held back.
    """

    plan: Plan | None
    results: tuple[tuple[OrderRequest, OrderResult], ...] = ()
    missing: tuple[Missing, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether the book is at its target."""
        return not self.missing

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "plan": None if self.plan is None else self.plan.to_dict(),
            "orders": [{**asdict(order), **asdict(result)} for order, result in self.results],
            "missing": [asdict(item) for item in self.missing],
            "notes": list(self.notes),
            "executed": True,
            "complete": self.complete,
        }


@dataclass(frozen=True)
class PlannedOrder:
    """One coin's order, as the sizing rule gives it.

    Attributes
    ----------
    coin : str
        HyperLiquid's name.
    action : {"open", "increase", "reduce", "flip", "close"}
        What it does to the position.
    units : float
        Signed size.
    target_units : float
        Position afterwards.
    mid : float
        USD, at which it was sized.
    notional_usd : float
        ``abs(units) * mid``.
    spread_usd, fee_usd : float
        Expected costs: the quote (or the config's half spread) against mid, and the fee on that.
    bid, ask : float or None
        USD, as the exchange showed them at the plan.
    impact_usd : float
        Expected cost of the order's own size, where it is not in the quote.
    """

    coin: str
    action: str
    units: float
    target_units: float
    mid: float
    notional_usd: float
    spread_usd: float
    fee_usd: float
    bid: float | None = None
    ask: float | None = None
    impact_usd: float = 0.0

    @property
    def grows(self) -> bool:
        """Whether it opens or increases a position."""
        return self.action in ("open", "increase", "flip")


@dataclass(frozen=True)
class Skip:
    """A target that becomes no order, and why."""

    coin: str
    target_weight: float
    units: float
    reason: str

    @property
    def untradable(self) -> bool:
        """Whether the coin has no quote."""
        return self.reason.startswith(UNTRADABLE)


@dataclass(frozen=True)
class Goal:
    """A position to reach: in phase 0 positions become smaller, in phase 1 larger, so that leverage falls first.

    A flip is a close in phase 0 and an opening in phase 1. A goal is reached by trading in one direction only, so that
    one that was reached and passed, by a later phase or by somebody else, is never traded back.

    Attributes
    ----------
    coin : str
    phase : {0, 1}
    target_units : float
        Signed; of a coin without a price what is held, since its target cannot be sized.
    reduce_only : bool
    buy : bool
        The direction.
    weight : float
        Signed fraction of equity that the weights want.
    sized : bool
        False for the target of a coin without a price: it cannot be reached.
    """

    coin: str
    phase: int
    target_units: float
    reduce_only: bool
    buy: bool
    weight: float = 0.0
    sized: bool = True


@dataclass(frozen=True)
class Plan:
    """All of one rebalance.

    Attributes
    ----------
    instant, decision : Timestamp
        Row at which the orders trade, and of which the weights are.
    equity_usd : float
        Before costs.
    weights : mapping of coin to float
        Targets that are not 0, NaN = hold.
    positions : mapping of coin to float
        Signed units held.
    prices : mapping of coin to float
        USD: mids of the coins traded or held.
    orders : tuple of PlannedOrder
    skips : tuple of Skip
    goals : tuple of Goal
        Phase 0 first.
    gross_before, gross_after, net_before, net_after : float
        Exposure as a fraction of equity.
    net_target : float
        Net exposure that the weights want, coins that cannot be traded included.
    parts : mapping
        Of a book of several specs what each of them owns and wants (:mod:`engine.live.book`); else empty.
    """

    instant: pd.Timestamp
    decision: pd.Timestamp
    equity_usd: float
    weights: Mapping[str, float]
    positions: Mapping[str, float]
    prices: Mapping[str, float]
    orders: tuple[PlannedOrder, ...]
    skips: tuple[Skip, ...]
    goals: tuple[Goal, ...]
    gross_before: float
    gross_after: float
    net_before: float
    net_after: float
    net_target: float
    parts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def unreachable(self) -> list[str]:
        """Coins that are held or wanted and have no quote."""
        return [skip.coin for skip in self.skips if skip.untradable]

    @property
    def cost_usd(self) -> float:
        """Expected spread, impact and fees."""
        return math.fsum(order.spread_usd + order.impact_usd + order.fee_usd for order in self.orders)

    def to_dict(self) -> dict[str, Any]:
        """All of it for JSON; NaN (a weight that holds, a missing price) becomes null."""
        spread = math.fsum(order.spread_usd for order in self.orders)
        fee = math.fsum(order.fee_usd for order in self.orders)
        return dict(as_json({**asdict(self), "cost_usd": self.cost_usd, "spread_usd": spread, "fee_usd": fee}))
