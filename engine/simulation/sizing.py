"""Size the orders of one rebalance from weights, equity, prices and lots.

The simulation calls the same compiled :func:`engine.simulation.kernel.plan_nb` for every decision of a run, so a live
book is sized by the code that was tested.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.config import Execution
from engine.data.coin_names import select_coins
from engine.errors import ConfigError, DataError, InitialMarginError, did_you_mean, join_first
from engine.panel import Coin
from engine.weights import GROSS_TOLERANCE

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
        Of all that is held, because its weight is 0: sent whatever its size.
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


def band_widths(coins: Sequence[str], execution: Execution) -> np.ndarray:
    """Width of the no-trade band of each coin, fraction of equity, (N,)."""
    widths = np.full(len(coins), execution.no_trade_band_frac)
    places = {coin: place for place, coin in enumerate(coins)}
    for pattern, width in execution.no_trade_band_coins:
        widths[[places[coin] for coin in select_coins([pattern], coins)[0]]] = width
    return widths


def check_band_coins(coins: Sequence[str], execution: Execution) -> None:
    """Refuse a name or pattern of ``execution.no_trade_band_coins`` that fits none of the panel's coins."""
    unknown = select_coins([pattern for pattern, _ in execution.no_trade_band_coins], coins)[1]
    if unknown:
        raise ConfigError(
            f"execution.no_trade_band_coins names {join_first(map(repr, unknown))}, which is no coin of the panel."
            f"{did_you_mean(unknown[0], coins)} Leave it out, or load the coin."
        )


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
    table: Iterable[Coin] | None = None,
    where: str = "",
    isolated_usd: Mapping[str, float] | None = None,
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
        Mid price, USD, or the last known price of what is held and not tradable; without a positive one a coin is not
        tradable, and nothing is renormalised while it is held.
    tradable, sz_decimals : mapping of coin to bool, mapping of coin to int
        A coin that is absent is not tradable; its size is not cut.
    execution : Execution
        Lots, minimum notional, no-trade bands, trade rate and the rule for untradable coins.
    table : iterable of Coin, optional
        Leverage of the coins: more initial margin than the account has is then an error.
    where : str
        Which weights these are, for that error: `` on 2024-10-01 23:00 UTC``.
    isolated_usd : mapping of coin to float, optional
        Equity of each isolated position, its margin with its profit; default: what opening it now would take.

    Returns
    -------
    list of Order
        One for every coin that is weighted or held, in alphabetical order.

    Raises
    ------
    DataError
        For equity or a position that is not finite, or an infinite weight: no order can be sized by it.
    InitialMarginError
        For weights that need more initial margin than the account has.
    """
    from engine.simulation.kernel import plan_nb

    coins = sorted(set(weights) | {coin for coin, held in units.items() if held != 0.0})
    target, held, prices, decimals, allowed = _arrays(coins, weights, units, mid, sz_decimals, tradable)
    _check_sizable(equity_usd, coins, target, held)
    sizes, outcomes = np.zeros(len(coins)), np.zeros(len(coins), dtype=np.int64)
    book, per_coin = (
        (held, float(equity_usd), prices, allowed),
        (lot_scales(decimals, execution), band_widths(coins, execution)),
    )
    parts = execution.no_trade_band == "to_edge", execution.trade_rate
    rules = execution.min_notional_usd, parts, execution.untradable == "renormalise"
    _, scale = plan_nb(target, *book, *per_coin, *rules, sizes, outcomes)
    _check_initial_margin(where, coins, table, target, scale, book, execution, isolated_usd or {}, sizes)
    closes = (target == 0.0) & (sizes == -held)
    planned = zip(coins, sizes.tolist(), target.tolist(), outcomes, closes.tolist(), strict=True)
    return [Order(coin, size, weight, OUTCOMES[outcome], close) for coin, size, weight, outcome, close in planned]


def margin_arrays(tiers: Sequence[Sequence[tuple[float, float]]]) -> tuple[np.ndarray, np.ndarray]:
    """Floors, USD, and steps of the maintenance rate as the kernel takes them, (N, M), from :attr:`Coin.tiers` of N."""
    width = max(1, *map(len, tiers)) if tiers else 1
    floors, steps = np.zeros((len(tiers), width)), np.zeros((len(tiers), width))
    for column, of_coin in enumerate(tiers):
        below = 0.0
        for tier, (floor, leverage) in enumerate(of_coin):
            floors[column, tier], steps[column, tier] = floor, 0.5 / leverage - below
            below = 0.5 / leverage
    return floors, steps


def isolated_leverages(table: Sequence[Coin], execution: Execution) -> np.ndarray:
    """Leverage set for each coin of `table` whose margin is isolated, 0 for cross margin, (N,); (0,) without one."""
    if not any(coin.isolated for coin in table):
        return np.zeros(0)
    highest = [coin.tiers[0][1] if coin.tiers else np.inf for coin in table]
    chosen = np.minimum(highest, execution.isolated_leverage or np.inf)
    return np.where([coin.isolated for coin in table], np.where(np.isinf(chosen), 1.0, chosen), 0.0)


def initial_margin_error(
    where: str, table: Sequence[Coin], isolated: np.ndarray, weights: np.ndarray, equity_usd: float, needed_usd: float
) -> InitialMarginError:
    """Error for a row, (N,) of the coins of `table`, that needs more initial margin than the account has.

    It names the coins that need most; `where` says which row, for example `` of book 3 on 2024-10-01 23:00 UTC``;
    `isolated` is of :func:`isolated_leverages`.
    """
    needs: dict[str, float] = {}
    for coin, weight, own in zip(table, weights, isolated if len(isolated) else np.zeros(len(table)), strict=True):
        if (coin.tiers or own) and weight != 0.0 and not np.isnan(weight):
            highest = [most for floor, most in coin.tiers if floor == 0.0 or floor < abs(weight) * equity_usd]
            leverage = min([*highest, own] if own else highest)
            needs[f"{coin.name} {weight:.4g} at {leverage:g}x"] = abs(weight) / leverage
    share = needed_usd / equity_usd
    more = share > sum(needs.values()) * (1.0 + GROSS_TOLERANCE)
    held = " and what is held of coins that cannot be traded or are to be held" if more else ""
    largest: list[str] = sorted(needs, key=lambda name: -needs[name])
    coins = join_first(largest, 3)
    return InitialMarginError(
        f"The weights{where} need {share:.6g} times the account's equity of {equity_usd:,.2f} USD as initial margin "
        f"({coins}{held}): the exchange refuses such orders. Lower the weights, or set account.initial_margin = false "
        "to trade them all the same."
    )


def _arrays(
    coins: list[str],
    weights: Mapping[str, float],
    units: Mapping[str, float],
    mid: Mapping[str, float],
    sz_decimals: Mapping[str, int],
    tradable: Mapping[str, bool],
) -> tuple[np.ndarray, ...]:
    """What is known of each of the coins, (N,) each; the last is bool."""
    target, held, prices, decimals = (
        np.array([values.get(coin, absent) for coin in coins], dtype=np.float64)
        for values, absent in ((weights, 0.0), (units, 0.0), (mid, np.nan), (sz_decimals, np.nan))
    )
    allowed = np.array([bool(tradable.get(coin, False)) for coin in coins], dtype=np.bool_)
    return target, held, prices, decimals, allowed & np.isfinite(prices) & (prices > 0.0)


def _check_initial_margin(
    where: str,
    coins: list[str],
    table: Iterable[Coin] | None,
    weights: np.ndarray,
    scale: float,
    book: tuple[np.ndarray, float, np.ndarray, np.ndarray],
    execution: Execution,
    isolated_usd: Mapping[str, float],
    orders: np.ndarray,
) -> None:
    """Refuse what a backtest refuses, given a table; `book`: units, equity, prices and tradable as the kernel's."""
    from engine.simulation.kernel import initial_margin_nb, isolated_rate_nb, refused_nb

    if table is None:
        return
    named, (units, equity_usd, prices, _) = {coin.name: coin for coin in table}, book
    known = [named.get(coin, Coin(coin)) for coin in coins]
    tiers, isolated = margin_arrays([coin.tiers for coin in known]), isolated_leverages(known, execution)
    own_cash, worth = np.zeros(len(coins)), np.where(units != 0.0, units * prices, 0.0)
    for i in np.flatnonzero(isolated):
        held = abs(worth[i])
        needed = isolated_rate_nb(held, isolated[i], tiers[0][i], tiers[1][i]) * held
        own_cash[i] = isolated_usd.get(coins[i], needed) - worth[i]
    in_part = execution.no_trade_band == "to_edge" or execution.trade_rate < 1.0
    sums = initial_margin_nb(weights, scale, *book, *tiers, isolated, own_cash, orders, in_part)
    if refused_nb(*sums, equity_usd, 1.0 + GROSS_TOLERANCE):
        asked, after, left, _ = sums
        raise initial_margin_error(where, known, isolated, weights, equity_usd, max(asked, after) + left)


def _check_sizable(equity_usd: float, coins: list[str], weights: np.ndarray, units: np.ndarray) -> None:
    if not np.isfinite(equity_usd):
        raise DataError(f"Orders cannot be sized: equity is {equity_usd} USD.")
    for what, values, bad in (("weight", weights, np.isinf(weights)), ("position", units, ~np.isfinite(units))):
        if bad.any():
            first = int(np.argmax(bad))
            raise DataError(f"The order of {coins[first]} cannot be sized: its {what} is {values[first]}.")
