"""The interface of an exchange: quotes, orders, and the account that they belong to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import pandas as pd

from engine.live.orders import AccountState, Fill, Market, OrderRequest, OrderResult


class DEX(ABC):
    """An exchange account. The constructor sends nothing; every method may.

    Six methods make one: ``markets``, ``clock_ms``, ``send``, ``find_order``, ``account`` and ``fills``.
    """

    #: ``"testnet"``, ``"mainnet"`` or ``"paper"``.
    network: str
    #: Orders worth less are refused, reduce-only ones excepted.
    min_notional_usd: float = 10.0
    #: Whether sizes are always whole lots, whatever the config says.
    always_lots: ClassVar[bool] = True

    def use_dexes(self, names: Iterable[str]) -> None:
        """Trade the coins of these perp dexes (``""`` is the main one), and of no others. Default: there is one."""
        return None

    # What can be traded, and at which prices --------------------------------------------------------------------------

    @abstractmethod
    def markets(self) -> Mapping[str, Market]:
        """Every coin that can be traded now, by name; quotes may be missing (:meth:`quoted` adds them)."""

    def why_no_quote(self, coin: str) -> str:
        """Why :meth:`markets` lacked `coin` when it was last called, a phrase. Default: nothing is known."""
        return ""

    def quoted(self, market: Market) -> Market:
        """`market` with its best bid and ask, where the exchange has both. Default: `market` has them."""
        return market

    def round_price(self, market: Market, price: float, buy: bool) -> float:
        """The nearest valid price that is no worse for the account than `price`. Default: every price is valid."""
        return price

    def unlisted(self, coins: Iterable[str]) -> list[str]:
        """Those of `coins` that the exchange has never listed. Default: none is known to be so."""
        return []

    def feed(self) -> DEX:
        """The exchange whose prices an oracle sees. Default: this one; a test network's prices mean nothing."""
        return self

    def live_row(self) -> Mapping[str, Mapping[str, float]]:
        """Panel fields as observed now: field to coin to value. Default: mid, bid, ask and oracle of the markets."""
        row: dict[str, dict[str, float]] = {"mid": {}, "bid": {}, "ask": {}, "oracle": {}}
        for coin, market in self.markets().items():
            for name, cells in row.items():
                value = getattr(market, name)
                cells[coin] = np.nan if value is None else float(value)
        return row

    # What can be sent, and how it ended -------------------------------------------------------------------------------

    @abstractmethod
    def clock_ms(self) -> int:
        """Time by the clock that requests are stamped and expire with, ms."""

    @abstractmethod
    def send(self, orders: Sequence[OrderRequest], expires_ms: int) -> list[OrderResult]:
        """Send IOC orders in one request that is void after `expires_ms`; never raises for what may have been sent."""

    @abstractmethod
    def find_order(self, order: OrderRequest) -> OrderResult | None:
        """What became of an order that was sent; None when the exchange has never seen it."""

    def leverages(self, markets: Sequence[Market]) -> Mapping[str, int]:
        """Leverage of coins that are not held, where the exchange says it. Default: nothing is known."""
        return {}

    def set_leverages(self, wanted: Sequence[tuple[Market, int]]) -> list[str]:
        """Set the leverage of coins, cross where allowed; ``""`` or the refusal of each. Default: none is to be set."""
        return [""] * len(wanted)

    def leverage_seconds(self, count: int) -> float:
        """How long :meth:`set_leverages` takes for `count` coins, about. Default: 0."""
        return 0.0

    def clock_error_seconds(self) -> float:
        """How far this machine's clock is ahead of the exchange's. Default: 0."""
        return 0.0

    # Whose money it is ------------------------------------------------------------------------------------------------

    @abstractmethod
    def account(self) -> AccountState:
        """Equity and positions now."""

    def closing_account(self) -> AccountState:
        """:meth:`account` for a run that closes everything: as much of it as can be read. Default: all of it.

        What cannot be read is in ``doubt``.
        """
        return self.account()

    @abstractmethod
    def fills(self, since: pd.Timestamp) -> list[Fill]:
        """Fills since an instant, oldest first."""

    @property
    def label(self) -> str:
        """Which account, for people and for file names; no secret. Default: the network."""
        return self.network

    def impact_usd(self, market: Market, units: float) -> float:
        """What an order's own size is expected to cost beyond the quote, USD. Default: 0, it is in the quote."""
        return 0.0

    def funding_paid(self, since: pd.Timestamp, until: pd.Timestamp) -> float | None:
        """Funding of the hours from `since` to before `until`, USD, positive = paid. Default: None, it is not told."""
        return None

    def warnings(self) -> list[str]:
        """What the owner of the account should know, a phrase each."""
        return []
