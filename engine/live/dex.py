"""The interface of an exchange account: what the planner and the executor ask of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import pandas as pd

from engine.live.orders import AccountState, Fill, Market, OrderRequest, OrderResult


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
    def send(self, orders: Sequence[OrderRequest], expires_ms: int) -> list[OrderResult]:
        """Send IOC orders in one request that is void after `expires_ms`; never raises for what may have been sent."""

    @abstractmethod
    def ask(self, order: OrderRequest) -> OrderResult | None:
        """What became of an order that was sent; None when the exchange has never seen it."""

    @abstractmethod
    def cancel(self, order: OrderRequest) -> None:
        """Cancel an order that rests although it should not."""

    @abstractmethod
    def set_leverage(self, market: Market, leverage: int) -> str:
        """Set the leverage of a coin, cross where allowed; ``""`` or the exchange's refusal."""

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
