"""What a HyperLiquid on loopback keeps: coins with their books, orders, fills, positions, agents, accounts."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, Decimal
from typing import Any

ZERO = Decimal(0)
MICRO = Decimal("0.000001")
TIFS = ("Alo", "Ioc", "Gtc", "FrontendMarket")
DEEP_USD = 1_000_000_000


def number(value: float | str | Decimal) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(str(value))


def text(value: Decimal) -> str:
    """A number as the exchange prints it: no trailing zero, at least one decimal."""
    plain = f"{value.normalize():f}" if value else "0"
    return plain if "." in plain else plain + ".0"


def tick(price: Decimal, sz_decimals: int) -> Decimal:
    """Price step: 5 significant figures, at most 6 - szDecimals decimals, integers always."""
    return Decimal(1).scaleb(-max(0, min(6 - sz_decimals, 4 - price.adjusted())))


@dataclass
class Coin:
    """A perpetual and its market: order book levels are `[price, size]`, best first."""

    name: str
    price: float = 100.0
    sz_decimals: int = 2
    max_leverage: int = 10
    margin_mode: str | None = None  # "strictIsolated" or "noCross"
    tiers: tuple[tuple[float, int], ...] = ()  # (notional from which it holds, leverage), above the first tier
    delisted: bool = False
    listed_hours: int = 240  # history of candles and funding before the start
    bids: list[list[Decimal]] = field(default_factory=list)
    asks: list[list[Decimal]] = field(default_factory=list)
    refill: tuple[list[list[Decimal]], list[list[Decimal]]] | None = None
    mark: Decimal = ZERO
    oracle: Decimal = ZERO
    day_volume: Decimal = ZERO
    open_interest_capped: bool = False
    oracle_band: Decimal = Decimal("0.5")  # distance from the oracle that is refused; undocumented

    def __post_init__(self) -> None:
        self.mark = self.mark or number(self.price)
        self.oracle = self.oracle or number(self.price)

    @property
    def mid(self) -> Decimal | None:
        return (self.bids[0][0] + self.asks[0][0]) / 2 if self.bids and self.asks else None

    def rounded(self, price: Decimal, down: bool) -> Decimal:
        return price.quantize(tick(price, self.sz_decimals), ROUND_FLOOR if down else ROUND_CEILING)

    def valid_price(self, price: Decimal) -> bool:
        return price % tick(price, self.sz_decimals) == 0

    def lots(self, size: Decimal) -> Decimal:
        return size.quantize(Decimal(1).scaleb(-self.sz_decimals), ROUND_DOWN)

    def average(self, price: Decimal) -> Decimal:
        """An average price as the exchange prints it."""
        return price.quantize(Decimal(1).scaleb(-max(0, 6 - self.sz_decimals)))

    def tier_leverage(self, notional: Decimal) -> int:
        return min([self.max_leverage] + [leverage for bound, leverage in self.tiers if notional > number(bound)])


@dataclass
class Order:
    """An order that reached the book, or was refused by it; `status` as `orderStatus` says it."""

    oid: int
    user: str
    coin: str
    buy: bool
    limit: Decimal
    size: Decimal
    tif: str
    reduce_only: bool
    cloid: str | None
    time: int
    remaining: Decimal
    status: str = "open"
    status_time: int = 0

    @property
    def filled(self) -> Decimal:
        return self.size - self.remaining


@dataclass(frozen=True)
class Fill:
    """One execution; `crossed` is True for the taker. `fee` is in USDC, rounded down to its 6 decimals."""

    user: str
    coin: str
    buy: bool
    price: Decimal
    size: Decimal
    time: int
    start_position: Decimal
    direction: str
    closed_pnl: Decimal
    oid: int
    cloid: str | None
    crossed: bool
    fee: Decimal
    tid: int


@dataclass
class Position:
    """Units held (signed), their average price, and the funding paid since they were opened (positive: paid)."""

    size: Decimal = ZERO
    entry: Decimal = ZERO
    funding: Decimal = ZERO


@dataclass
class Agent:
    """An API wallet that may sign for `master` until `valid_until` (ms)."""

    address: str
    master: str
    name: str
    valid_until: int


@dataclass
class Account:
    """A user, vault or sub-account. `balance` is USDC without unrealised profit. `mode` is what `userAbstraction` says.

    `master` is the leader of a vault, the owner of a sub-account.
    """

    address: str
    balance: Decimal = ZERO
    spot_usd: Decimal = ZERO  # USDC of a classic account that is no collateral of its perpetuals
    mode: str = "disabled"
    role: str = "user"
    master: str | None = None
    deposited: bool = False
    positions: dict[str, Position] = field(default_factory=dict)
    leverage: dict[str, tuple[int, bool]] = field(default_factory=dict)  # coin -> (value, cross)
    taker_rate: Decimal = Decimal("0.00045")
    maker_rate: Decimal = Decimal("0.00015")
    volume: Decimal = ZERO
    requests: int = 0
    funding: list[dict[str, Any]] = field(default_factory=list)
    cancel_at: int | None = None
    cancel_triggers: list[int] = field(default_factory=list)

    @property
    def unified(self) -> bool:
        return self.mode in ("unifiedAccount", "portfolioMargin")
