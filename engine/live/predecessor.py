"""The predecessor's names on an exchange account: ``net_liq``, ``positions``, ``set_portfolio_weights`` and others.

In a module of their own, above the manager that they need.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.errors import LiveError, did_you_mean
from engine.live.dex import DEX
from engine.live.orders import Outcome
from engine.live.portfolio_manager import PortfolioManager
from engine.oracles.fixed_weights import FixedWeights


class PredecessorDEX(DEX):
    """A :class:`DEX` with the predecessor's names; derive from it to have them."""

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
        markets = self.markets()
        if coin is None:
            quoted = [self.quoted(market) for market in markets.values()]
            return {at.coin: (at.bid, at.ask) for at in quoted if at.bid is not None and at.ask is not None}
        if coin not in markets:
            why = self.why_no_quote(coin)
            why = f": {why}" if why else ""
            raise LiveError(f"{coin!r} cannot be traded on {self.network}{why}.{did_you_mean(coin, markets)}")
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
        return PortfolioManager(FixedWeights.of(weights), self, **settings).manage_portfolio()
