"""Whether each perp dex has the margin that a plan needs there, in an account whose dexes have collateral of their own.

Nothing is transferred here: a transfer is its owner's, who is told which one is needed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from engine.coin import dex_of
from engine.errors import join_first
from engine.live.leverage import leverage_of
from engine.live.orders import AccountState, Goal, Market, dex_text

#: Of the margin needed, for fees, spread, and prices that move until the orders arrive.
_HEADROOM_FRAC: Final = 0.02


def missing_funds(
    state: AccountState, markets: Mapping[str, Market], goals: Sequence[Goal], cross: int, isolated: float
) -> str:
    """Which transfers a plan needs, a phrase; ``""`` where it needs none.

    Parameters
    ----------
    state : AccountState
        ``funds`` are compared; without any, one balance is for all dexes.
    markets : mapping of coin to Market
        Mids, USD.
    goals : sequence of Goal
        Positions to reach. A dex on which none of them grows needs nothing.
    cross, isolated : int, float
        Leverage that is set, as in :func:`engine.live.leverage.leverage_of`.
    """
    if not state.funds:
        return ""
    reached = {goal.coin: goal.target_units for goal in goals if goal.sized}
    opened = {dex_of(goal.coin) for goal in goals if goal.sized and not goal.reduce_only and goal.target_units}
    needed: dict[str, float] = defaultdict(float)
    for coin, units in {**state.units, **reached}.items():
        market, price = markets.get(coin), state.prices.get(coin, 0.0)
        leverage = state.leverage.get(coin, (1, True))[0]
        if market is not None:
            price = market.mid
            # A position that is not traded keeps the leverage that it has.
            leverage = leverage_of(market, cross, isolated, abs(units) * price) if coin in reached else leverage
        needed[dex_of(coin)] += abs(units) * price / leverage * (1.0 + _HEADROOM_FRAC)
    left = {dex: usd - needed[dex] for dex, usd in state.funds.items()}
    short = [dex for dex in left if left[dex] < 0.0 and dex in opened]
    if not short:
        return ""
    lacking = join_first(
        f"{dex_text(dex)} needs {needed[dex]:,.2f} USDC as margin and has {state.funds[dex]:,.2f}: transfer "
        f"{-left[dex]:,.2f} to it"
        for dex in short
    )
    spare = [f"{dex_text(dex)} can spare {usd:,.2f}" for dex, usd in left.items() if usd > 0.0]
    return (
        f"in the mode of this account each perp dex has collateral of its own, and {lacking}"
        f"{' (' + join_first(spare) + ')' if spare else ''}. Make the transfer at the exchange, which hlbt never does "
        "by itself, or switch the account to the unified mode, and run the command again"
    )
