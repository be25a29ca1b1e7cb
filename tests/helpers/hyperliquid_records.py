"""What a HyperLiquid on loopback keeps: coins with their books, orders, fills, positions, agents, accounts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, Decimal
from typing import Any

ZERO = Decimal(0)
MICRO = Decimal("0.000001")
TIFS = ("Alo", "Ioc", "Gtc", "FrontendMarket")
DEEP_USD = 1_000_000_000
#: Index of the tokens that are collateral somewhere, and of one that is not.
TOKENS = {"USDC": 0, "PURR": 1, "USDe": 235, "USDT0": 268, "USDH": 360}


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
    fee_scale: float = 0.0  # of the deployer of a builder's coin
    growth: bool = False

    def __post_init__(self) -> None:
        self.mark = self.mark or number(self.price)
        self.oracle = self.oracle or number(self.price)

    @property
    def dex(self) -> str:
        """The perp dex, which is the part of the name before the colon; the main one has no name."""
        return self.name.partition(":")[0] if ":" in self.name else ""

    @property
    def fee_factor(self) -> Decimal:
        """On what a taker or a maker pays, by the page of fees."""
        scale = number(self.fee_scale)
        return (1 + scale if scale < 1 else 2 * scale) * (Decimal("0.1") if self.growth else 1)

    @property
    def mid(self) -> Decimal | None:
        return (self.bids[0][0] + self.asks[0][0]) / 2 if self.bids and self.asks else None

    def rounded(self, price: Decimal, down: bool) -> Decimal:
        return price.quantize(tick(price, self.sz_decimals), ROUND_FLOOR if down else ROUND_CEILING)

    def valid_price(self, price: Decimal) -> bool:
        return price % tick(price, self.sz_decimals) == 0

    def lots(self, size: Decimal) -> Decimal:
        return size.quantize(Decimal(1).scaleb(-self.sz_decimals), ROUND_DOWN)

    def side(
        self,
        best: float | None,
        size: float | None,
        count: int,
        given: Sequence[tuple[float, float]] | None,
        down: bool,
    ) -> list[list[Decimal]]:
        """One side of a book: `given`, or `count` levels of `size` from `best` outward, one tick apart."""
        if given is not None:
            return [[self.rounded(number(price), down), number(held)] for price, held in given]
        levels: list[list[Decimal]] = []
        if best is None:
            return levels
        price = self.rounded(number(best), down)
        for _ in range(count):
            levels.append([price, self.lots(number(DEEP_USD) / price) if size is None else number(size)])
            less_than_a_tick = price.scaleb(-9)
            price = self.rounded(price - less_than_a_tick if down else price + less_than_a_tick, down)
        return levels

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
    """A user, vault or sub-account. `mode` is what `userAbstraction` says.

    `balances` are amounts without unrealised profit by pool: what shares one margin. That is a perp dex of a classic
    account and a collateral token of a unified one; the main dex, and USDC, are the pool without a name.
    `tokens` are spot holdings that are nobody's collateral. `samples` are (ms, account value), of `portfolio`.
    `master` is the leader of a vault, the owner of a sub-account.
    """

    address: str
    balances: dict[str, Decimal] = field(default_factory=dict)
    spot_usd: Decimal = ZERO  # USDC of a classic account that is no collateral of its perpetuals
    tokens: dict[str, Decimal] = field(default_factory=dict)
    samples: list[tuple[int, Decimal]] = field(default_factory=list)
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

    @property
    def balance(self) -> Decimal:
        """Of the main pool."""
        return self.balances.get("", ZERO)

    def pay(self, pool: str, amount: Decimal) -> None:
        """Add an amount (negative: take it) to a pool."""
        self.balances[pool] = self.balances.get(pool, ZERO) + amount
