"""What the executor asks of an exchange: the account, the markets, orders, and what became of orders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from engine.live.execute import Outcome

#: `filled` in whole or in part, `rejected` for good, `unknown`: the exchange must be asked.
Fate = Literal["filled", "rejected", "unknown"]
#: Relative slack when two sizes are compared.
SIZE_TOLERANCE: Final = 1e-9


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
        USD, best quotes.
    oracle : float or None
        USD, oracle price.
    sz_decimals : int or None
        Decimals of a size; None = not cut.
    max_leverage : float or None
        Highest leverage.
    cross : bool
        Whether cross margin is allowed.
    """

    coin: str
    mid: float
    bid: float | None = None
    ask: float | None = None
    oracle: float | None = None
    sz_decimals: int | None = None
    max_leverage: float | None = None
    cross: bool = True


@dataclass(frozen=True)
class AccountState:
    """The account at one moment.

    Attributes
    ----------
    equity_usd : float
        Cash and unrealised profit.
    units : mapping of coin to float
        Signed positions; coins without one are left out.
    time : Timestamp
        The exchange's own time.
    prices : mapping of coin to float
        USD at which the positions are marked.
    """

    equity_usd: float
    units: Mapping[str, float]
    time: pd.Timestamp
    prices: Mapping[str, float]


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
class Answer:
    """What became of an order.

    Attributes
    ----------
    cloid : str
        Of the order.
    fate : {"filled", "rejected", "unknown"}
        See :data:`Fate`.
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
    fate: Fate
    units: float = 0.0
    price: float | None = None
    reason: str = ""
    whole_batch: bool = False


@dataclass(frozen=True)
class Fill:
    """One fill of the account's history; sizes signed, fee in USD (positive = paid)."""

    cloid: str | None
    coin: str
    units: float
    price: float
    fee_usd: float
    time: pd.Timestamp


class DEX(ABC):
    """An exchange account. The constructor reaches for nothing; every method may."""

    #: ``"testnet"``, ``"mainnet"`` or ``"paper"``.
    network: str
    #: Orders worth less are refused, reduce-only ones excepted.
    min_notional_usd: float = 10.0
    #: Whether sizes are always whole lots, whatever the config says.
    always_lots: ClassVar[bool] = True

    @abstractmethod
    def account(self) -> AccountState:
        """Equity and positions now."""

    @abstractmethod
    def markets(self) -> Mapping[str, Market]:
        """Every coin that can be traded now, by name; quotes may be missing (:meth:`quoted` brings them)."""

    @abstractmethod
    def quoted(self, market: Market) -> Market:
        """`market` with its best bid and ask, where the exchange has both."""

    @abstractmethod
    def clock_ms(self) -> int:
        """Time by the clock that requests are stamped and expire with, ms."""

    @abstractmethod
    def send(self, orders: Sequence[OrderRequest], expires_ms: int) -> list[Answer]:
        """Send IOC orders in one request that is void after `expires_ms`; never raises for what may have been sent."""

    @abstractmethod
    def ask(self, order: OrderRequest) -> Answer | None:
        """What became of an order that was sent; None when the exchange has never seen it."""

    @abstractmethod
    def cancel(self, order: OrderRequest) -> None:
        """Cancel an order that rests although it should not."""

    @abstractmethod
    def set_leverage(self, market: Market, leverage: int) -> str:
        """Set the leverage of a coin, cross where allowed; ``""`` or the exchange's refusal."""

    @abstractmethod
    def schedule_cancel(self, at_ms: int | None) -> str:
        """Cancel all orders at a time (None = never); ``""`` or the exchange's refusal."""

    @abstractmethod
    def fills(self, since: pd.Timestamp) -> list[Fill]:
        """Fills since an instant, oldest first."""

    @abstractmethod
    def round_price(self, market: Market, price: float, buy: bool) -> float:
        """The nearest valid price that is no worse for the account than `price`."""

    @property
    def label(self) -> str:
        """Which account, for people and for file names; no secret."""
        return self.network

    def unlisted(self, coins: Iterable[str]) -> list[str]:
        """Those of `coins` that the exchange has never listed, as far as it says."""
        return []

    def clock_error_seconds(self) -> float:
        """How far this machine's clock is ahead of the exchange's, as far as its answers tell."""
        return 0.0

    def warnings(self) -> list[str]:
        """What the owner of the account should know."""
        return []

    def feed(self) -> DEX:
        """The exchange whose prices an oracle should see: itself, but for a test network, whose prices mean nothing."""
        return self

    def live_row(self) -> Mapping[str, Mapping[str, float]]:
        """Panel fields as observed now: field to coin to value. Default: mid, bid, ask and oracle of the markets."""
        row: dict[str, dict[str, float]] = {"mid": {}, "bid": {}, "ask": {}, "oracle": {}}
        for coin, market in self.markets().items():
            for name, cells in row.items():
                value = getattr(market, name)
                cells[coin] = np.nan if value is None else float(value)
        return row

    # The predecessor's names ------------------------------------------------------------------------------------------

    @property
    def net_liq(self) -> float:
        """Equity, USD."""
        return self.account().equity_usd

    @property
    def positions(self) -> dict[str, float]:
        """Signed units by coin."""
        return dict(self.account().units)

    def get_universe(self) -> list[str]:
        """Coins that can be traded now."""
        return sorted(self.markets())

    def get_bid_ask(self, coin: str | None = None) -> Any:
        """Best bid and ask, USD: a pair for one coin; without a coin, pairs by coin for all that have both.

        Raises
        ------
        LiveError
            When the coin cannot be traded or has no two-sided quote.
        """
        from engine.errors import LiveError, nearest

        markets = self.markets()
        if coin is None:
            quoted = [self.quoted(market) for market in markets.values()]
            return {at.coin: (at.bid, at.ask) for at in quoted if at.bid is not None and at.ask is not None}
        if coin not in markets:
            raise LiveError(f"{coin!r} cannot be traded on {self.network}.{nearest(coin, markets)}")
        market = self.quoted(markets[coin])
        if market.bid is None or market.ask is None:
            raise LiveError(f"{coin} has no two-sided quote on {self.network}. Try again later.")
        return market.bid, market.ask

    def set_portfolio_weights(self, weights: Mapping[str, float], **settings: Any) -> Outcome:
        """Bring the book to `weights`: plan, limits, orders, as ``PortfolioManager`` does.

        Parameters
        ----------
        weights : mapping of coin to float
            Signed fractions of equity; NaN = hold; a held coin that is not named is closed.
        **settings
            Of the ``PortfolioManager``.
        """
        from engine.live.portfolio_manager import PortfolioManager
        from engine.oracles.fixed_weights import GivenWeights

        return PortfolioManager(GivenWeights.of(weights), self, **settings).manage_portfolio()
