"""Characteristics of coins, point in time: beta, size, momentum, carry and volatility, and exposures made of them.

The rules are in docs/concepts/risk-model.md. Row ``t`` is made of panel rows up to ``t``, of the panel as known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from engine.errors import ConfigError
from engine.panel import Panel

BENCHMARK = "BTC"
_DAY = 24
#: What is measured of each coin; the market is its beta.
CHARACTERISTICS = ("market", "size", "momentum", "carry", "volatility")


@dataclass(frozen=True)
class RiskParameters:
    """Windows and half-lives of the risk model.

    Attributes
    ----------
    beta_hours, size_hours, momentum_hours, carry_hours, volatility_hours : int
        Hours over which each characteristic is measured.
    clip : float
        Standard deviations at which an exposure is cut.
    factor_half_life_days, specific_half_life_days : float
        Half-lives of the factor covariance and of the specific variances.
    shrinkage : float
        Share of the median in a specific variance, 0 to 1.
    least_days : int
        Days of factor returns before a covariance is known.
    least_coins : int
        Coins that a day's regression needs.
    """

    beta_hours: int = 1440
    size_hours: int = 720
    momentum_hours: int = 168
    carry_hours: int = 168
    volatility_hours: int = 720
    clip: float = 3.0
    factor_half_life_days: float = 30.0
    specific_half_life_days: float = 30.0
    shrinkage: float = 0.5
    least_days: int = 20
    least_coins: int = 10

    @property
    def warm_up_days(self) -> int:
        """Days before an instant after which all that the model says of a coin is known, whole windows included."""
        hours = max(self.beta_hours, self.size_hours, self.momentum_hours, self.carry_hours, self.volatility_hours)
        return -(-hours // _DAY) + self.least_days

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            whole = item.type == "int"
            kinds = int if whole else int | float
            least, most = (2, 1_000_000) if whole else (0.0, 1.0 if item.name == "shrinkage" else 1e6)
            inside = isinstance(value, kinds) and not isinstance(value, bool) and least <= value <= most
            if not inside or (value == 0 and item.name != "shrinkage"):
                raise ConfigError(
                    f"RiskParameters({item.name} = {value!r}) is not accepted: it must be a "
                    f"{'whole number' if whole else 'number'} "
                    f"{'from' if whole or item.name == 'shrinkage' else 'above'} {least:g} to {most:g}."
                )


def dex_members(panel: Panel) -> dict[str, np.ndarray]:
    """Which coins are of each dex, (N,) bool by its name, in the order of the panel's coins."""
    dexes = np.array([coin.dex for coin in panel.table])
    return {dex: dexes == dex for dex in dict.fromkeys(dexes.tolist())}


def betas(panel: Panel, rows: np.ndarray, lookback_hours: int) -> np.ndarray:
    """Slope of each coin's hourly returns on those of its market: BTC, or of a builder's dex the mean of its coins.

    Where the panel lacks BTC, the market of the main dex is the mean of its coins too.

    Parameters
    ----------
    panel : Panel
        Prices.
    rows : ndarray, (D,) int
        Rows of the panel.
    lookback_hours : int
        Hours of returns up to each row.

    Returns
    -------
    ndarray, (D, N)
        NaN with fewer than half of the hours known, or where the market did not move.
    """
    start = _first_needed(rows, lookback_hours)
    mid = panel.values("mid")[start : rows.max(initial=0) + 1]
    returns = np.full_like(mid, np.nan)
    returns[1:] = mid[1:] / mid[:-1] - 1.0
    other = np.empty_like(returns)
    for dex, members in dex_members(panel).items():
        other[:, members] = _market_returns(panel, returns, dex, members)[:, None]
    known = ~(np.isnan(returns) | np.isnan(other))
    x, y = np.where(known, other, 0.0), np.where(known, returns, 0.0)

    def summed(values: np.ndarray) -> np.ndarray:
        return sums_of_last(values, rows - start, lookback_hours)

    # Both products overwrite what was summed: a new array of a panel's size costs more than the product.
    count, sum_x, sum_y = summed(known), summed(x), summed(y)
    products = summed(np.multiply(x, y, out=y))
    squares = summed(np.multiply(x, x, out=x))
    mean = sum_x / np.maximum(count, 1.0)
    variance = squares - mean * sum_x
    # What is left of equal returns is rounding, not a variance.
    enough = (count >= max(2.0, lookback_hours / 2.0)) & (variance > 1e-12 * squares)
    return np.divide(products - mean * sum_y, variance, out=np.full(count.shape, np.nan), where=enough)


def _market_returns(panel: Panel, returns: np.ndarray, dex: str, members: np.ndarray) -> np.ndarray:
    if not dex and BENCHMARK in panel.coins:
        return returns[:, panel.coins.index(BENCHMARK)]
    own = returns[:, members]
    count = (~np.isnan(own)).sum(axis=1)
    return np.divide(np.nansum(own, axis=1), count, out=np.full(len(own), np.nan), where=count > 0)


def _first_needed(rows: np.ndarray, hours: int) -> int:
    return max(0, int(rows.min(initial=0)) - hours) if len(rows) else 0


def sums_of_last(values: np.ndarray, rows: np.ndarray, hours: int) -> np.ndarray:
    """Sums over the last `hours` rows up to each of `rows`, fewer at the start; of (T, N) values, (D, N).

    Blocks of hours are summed once for all rows whose windows are made of them. No running sum: the bits of a row
    depend on nothing but its window.
    """
    found = np.zeros((len(rows), values.shape[1]))
    block = math.gcd(hours, _DAY)
    counted = values.dtype == np.bool_
    for last in np.unique(rows % block):
        asked = np.flatnonzero(rows % block == last)
        whole = values[: int(rows[asked].max()) + 1]
        if padding := block - 1 - int(last):
            whole = np.concatenate([np.zeros((padding, values.shape[1]), dtype=values.dtype), whole])
        whole = whole.reshape(-1, block, values.shape[1])
        # A block has at most a day of hours, which a byte counts in a tenth of the time.
        blocks = whole.view(np.uint8).sum(axis=1, dtype=np.uint8) if counted else whole.sum(axis=1)
        for number in asked:
            end = int(rows[number]) // block + 1
            found[number] = blocks[max(0, end - hours // block) : end].sum(axis=0)
    return found


def means_of_last(values: np.ndarray, rows: np.ndarray, hours: int) -> np.ndarray:
    """Means over what is known of the last `hours` rows, (D, N); NaN where fewer than half of `hours` are."""
    start = _first_needed(rows, hours)
    values = values[start : rows.max(initial=0) + 1]
    known = ~np.isnan(values)
    count = sums_of_last(known, rows - start, hours)
    total = sums_of_last(np.where(known, values, 0.0), rows - start, hours)
    return np.where(count >= max(1.0, hours / 2.0), total / np.maximum(count, 1.0), np.nan)


def volume_of_a_day(panel: Panel) -> np.ndarray:
    """Volume of a day in USD as each hour shows it, (T, N): 24 of its own, else the venue's figure; NaN without."""
    traded = 24.0 * panel.fields.get("volume_usd", np.full(panel.tradable.shape, np.nan))
    if "volume_24h_usd" in panel.fields:
        # Months of the archive beside months of candles: each hour has what its source knows.
        traded = np.where(np.isnan(traded), panel.values("volume_24h_usd"), traded)
    return traded


def characteristics(panel: Panel, rows: np.ndarray, parameters: RiskParameters | None = None) -> np.ndarray:
    """What is measured of each coin, before it is compared with the others.

    Parameters
    ----------
    panel : Panel
        As known, or it is made so.
    rows : ndarray, (D,) int
        Rows of the panel; row ``d`` uses those up to it.
    parameters : RiskParameters, optional
        Windows.

    Returns
    -------
    ndarray, (D, N, K) float64
        In the order of :data:`CHARACTERISTICS`: beta; logarithm of the mean volume of a day in USD; logarithm of the
        price ratio; minus the mean hourly funding rate; logarithm of the root mean square of hourly returns. NaN where
        fewer than half of a window is known (of momentum: one of its two prices), for a logarithm of 0, and for a
        field that the panel lacks.
    """
    own, panel = parameters or RiskParameters(), panel.point_in_time()
    mid = panel.values("mid")
    squares = np.full_like(mid, np.nan)
    squares[1:] = (mid[1:] / mid[:-1] - 1.0) ** 2
    nothing = np.full(mid.shape, np.nan)
    before = np.where((rows >= own.momentum_hours)[:, None], mid[np.maximum(0, rows - own.momentum_hours)], np.nan)
    return np.stack(
        [
            betas(panel, rows, own.beta_hours),
            _logarithm(means_of_last(volume_of_a_day(panel), rows, own.size_hours)),
            np.log(mid[rows] / before),
            -means_of_last(panel.fields.get("funding", nothing), rows, own.carry_hours),
            0.5 * _logarithm(means_of_last(squares, rows, own.volatility_hours)),
        ],
        axis=2,
    )


def _logarithm(values: np.ndarray) -> np.ndarray:
    return np.log(np.where(values > 0.0, values, np.nan))
