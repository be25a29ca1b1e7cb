"""A paper account that trades through the live executor."""

from __future__ import annotations

import pandas as pd

from engine import Oracle, Panel, PaperDEX, PortfolioManager, RunConfig
from engine.live.journal import Journal
from engine.live.orders import Outcome, Policy
from engine.live.risk_limits import Limits

#: Orders that cross whatever the quote is.
ANY_PRICE = Policy(slippage_frac=0.99)


def trade_at(
    at: pd.Timestamp, oracle: Oracle, dex: PaperDEX, config: RunConfig, panel: Panel, journal: Journal
) -> Outcome:
    """Trade an instant: at any price, and without limits."""
    dex.advance(at)
    no_limits = Limits.none()
    manager = PortfolioManager(oracle, dex, config, panel=panel, limits=no_limits, policy=ANY_PRICE, journal=journal)
    return manager.manage_portfolio(at)
