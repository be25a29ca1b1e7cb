"""Size the orders of one rebalance from weights, equity, prices and lots.

The simulation calls the same compiled :func:`engine.simulation.kernel.plan_nb` for every decision of a run, so a live
book is sized by the code that was tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from engine.config import Execution
from engine.errors import DataError

OUTCOMES = ("nothing", "order", "below_minimum", "inside_band", "untradable")


@dataclass(frozen=True)
class Order:
    """Order of one coin, or why there is none.

    Attributes
    ----------
    coin : str
        HyperLiquid's name.
    units : float
        Signed size to trade; 0 when nothing is sent.
    target_weight : float
        Signed fraction of equity.
    outcome : str
        ``"order"``, or why nothing is sent: one of :data:`OUTCOMES`.
    close : bool
        Full close: sent whatever its size.
    """

    coin: str
    units: float
    target_weight: float
    outcome: str
    close: bool


def lot_scales(sz_decimals: np.ndarray, execution: Execution) -> np.ndarray:
    """``10 ** szDecimals`` a coin, 0 where sizes are not cut (lots off, or decimals unknown)."""
    known = np.isfinite(sz_decimals) & execution.lots
    return np.where(known, 10.0 ** np.where(known, sz_decimals, 0.0), 0.0)


def round_lot(units: float, sz_decimals: int | None) -> float:
    """`units`, a sum of whole lots of ``10 ** -sz_decimals``, without the dust of the sum; as they are for None."""
    from engine.simulation.kernel import round_lot_nb

    return float(round_lot_nb(float(units), 0.0 if sz_decimals is None else 10.0**sz_decimals))


def plan_orders(
    weights: Mapping[str, float],
    units: Mapping[str, float],
    equity_usd: float,
    mid: Mapping[str, float],
    tradable: Mapping[str, bool],
    sz_decimals: Mapping[str, int],
    execution: Execution,
) -> list[Order]:
    """Size the orders that take a book to `weights`.

    Parameters
    ----------
    weights : mapping of coin to float
        Signed fractions of equity; NaN = hold; a coin that is absent = 0, so a held coin that is not named is closed.
    units : mapping of coin to float
        Signed positions held now.
    equity_usd : float
        Equity before costs.
    mid : mapping of coin to float
        Mid price, USD; a coin without a positive one is not tradable.
    tradable : mapping of coin to bool
        A coin that is absent is not tradable.
    sz_decimals : mapping of coin to int
        Size decimals; a coin that is absent is not cut.
    execution : Execution
        Lots, minimum notional, no-trade band and the rule for untradable coins.

    Returns
    -------
    list of Order
        One for every coin that is weighted or held, in alphabetical order.

    Raises
    ------
    DataError
        For equity or a position that is not finite, or an infinite weight: no order can be sized by it.
    """
    from engine.simulation.kernel import plan_nb

    coins = sorted(set(weights) | {coin for coin, held in units.items() if held != 0.0})
    target, held, prices, decimals = (
        np.array([values.get(coin, absent) for coin in coins], dtype=np.float64)
        for values, absent in ((weights, 0.0), (units, 0.0), (mid, np.nan), (sz_decimals, np.nan))
    )
    allowed = np.array([bool(tradable.get(coin, False)) for coin in coins], dtype=np.bool_)
    allowed &= np.isfinite(prices) & (prices > 0.0)
    _check_sizable(equity_usd, coins, target, held)
    sizes, outcomes = np.zeros(len(coins)), np.zeros(len(coins), dtype=np.int64)
    lots, renormalise = lot_scales(decimals, execution), execution.untradable == "renormalise"
    rules = (lots, execution.min_notional_usd, execution.no_trade_band_frac, renormalise)
    plan_nb(target, held, float(equity_usd), prices, allowed, *rules, sizes, outcomes)
    return [
        Order(coin, float(sizes[i]), float(target[i]), OUTCOMES[outcomes[i]], bool(target[i] == 0.0))
        for i, coin in enumerate(coins)
    ]


def _check_sizable(equity_usd: float, coins: list[str], weights: np.ndarray, units: np.ndarray) -> None:
    if not np.isfinite(equity_usd):
        raise DataError(f"Orders cannot be sized: equity is {equity_usd} USD.")
    for what, values, bad in (("weight", weights, np.isinf(weights)), ("position", units, ~np.isfinite(units))):
        if bad.any():
            first = int(np.argmax(bad))
            raise DataError(f"The order of {coins[first]} cannot be sized: its {what} is {values[first]}.")
