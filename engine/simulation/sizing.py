"""The one sizing rule, weights + equity + quotes + lots -> orders, for whoever trades one row at a time.

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
    """What the sizing rule decides for one coin.

    Attributes
    ----------
    coin : str
        HyperLiquid's name.
    units : float
        Signed size to trade; 0 when nothing is sent.
    target_weight : float
        What was asked, as a signed fraction of equity.
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

    if not np.isfinite(equity_usd):
        raise DataError(f"Orders cannot be sized: equity is {equity_usd} USD.")
    coins = sorted(set(weights) | {coin for coin, held in units.items() if held != 0.0})
    held = np.array([units.get(coin, 0.0) for coin in coins], dtype=np.float64)
    prices = np.array([mid.get(coin, np.nan) for coin in coins], dtype=np.float64)
    target = np.array([weights.get(coin, 0.0) for coin in coins], dtype=np.float64)
    decimals = np.array([sz_decimals.get(coin, np.nan) for coin in coins], dtype=np.float64)
    allowed = np.array([bool(tradable.get(coin, False)) for coin in coins], dtype=np.bool_)
    for what, values, bad in (("weight", target, np.isinf(target)), ("position", held, ~np.isfinite(held))):
        if bad.any():
            place = int(np.argmax(bad))
            raise DataError(f"The order of {coins[place]} cannot be sized: its {what} is {values[place]}.")
    sizes = np.zeros(len(coins))
    outcomes = np.zeros(len(coins), dtype=np.int64)
    plan_nb(
        target,
        held,
        float(equity_usd),
        prices,
        allowed & np.isfinite(prices) & (prices > 0.0),
        lot_scales(decimals, execution),
        execution.min_notional_usd,
        execution.no_trade_band_frac,
        execution.untradable == "renormalise",
        sizes,
        outcomes,
    )
    return [
        Order(coin, float(sizes[i]), float(target[i]), OUTCOMES[outcomes[i]], bool(target[i] == 0.0))
        for i, coin in enumerate(coins)
    ]
