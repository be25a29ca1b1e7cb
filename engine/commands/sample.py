"""The built-in synthetic sample: 40 coins and a dex of 7, 2024-01-01 to 2025-01-01, hourly, generated from a seed.

Names, lots and leverages are HyperLiquid's; every number is made up. It is merged into a cache as real data are, and
marks that cache, and every panel of it, as synthetic.

It has:

- log returns = beta * market + sector + own, each Student t with 4 degrees of freedom, with a common volatility that
  wanders and a daily cycle;
- the exchange's funding formula on a persistent premium that rises with recent returns: hourly rate
  ``(P + clamp(0.01 % - P, -0.05 %, 0.05 %)) / 8``, so many hours pay exactly 0.00125 %;
- quotes on the exchange's price grid (5 significant figures) around the price, a spread a coin, wider impact prices;
- ENA is listed on 2024-06-11 14:00, FTM is delisted on 2024-08-21 09:00 (its last row), ORDI has a gap from
  2024-04-17 05:00 to 2024-04-21 03:00.

A **small genuine effect** is built in, so that a demo is not pure noise. Each coin's own return has a hidden drift that
halves in 10 days, with a standard deviation of :data:`DRIFT` of its own volatility (weak momentum), and falls with
its own premium by :data:`CARRY` of its own volatility a standard deviation (weak carry). Measured on this sample, top
8 against bottom 8 coins rebalanced daily at 23:00, before fees and spread: 7-day momentum has a mean rank
correlation of 0.030 with the next day's return and a Sharpe ratio of 1.8; low 3-day funding 0.017 and 2.0, the
funding it earns included.

Beside them is a small builders' dex, ``xyz``: six stocks and an index that follow the hours of New York. Within them
(14:30 to 21:00 UTC, Monday to Friday) they move three times as much, and their spread is a third. It has no effect
built in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from engine.clock import hourly_index
from engine.data.cache import SYNTHETIC, Progress, Store
from engine.data.coin_table import CoinMeta
from engine.data.merge_report import MergeReport
from engine.data.schema import Flags, Floats, hour_number, to_table
from engine.panel import FIELDS

SEED = 1
START = pd.Timestamp("2024-01-01T00:00Z").as_unit("ms")
END = pd.Timestamp("2025-01-01T00:00Z").as_unit("ms")
LISTED = ("ENA", pd.Timestamp("2024-06-11T14:00Z").as_unit("ms"))
DELISTED = ("FTM", pd.Timestamp("2024-08-21T09:00Z").as_unit("ms"))
GAP = ("ORDI", pd.Timestamp("2024-04-17T05:00Z").as_unit("ms"), pd.Timestamp("2024-04-21T03:00Z").as_unit("ms"))
#: Standard deviation of the hidden drift, as a fraction of the coin's own volatility over the same time.
DRIFT = 0.10
#: Drift for a premium one standard deviation above its mean, in the same unit; the sign is against the premium.
CARRY = 0.05

_TAIL = 4.0
_MARKET_DAILY = 0.022
_SECTOR_DAILY = 0.010


@dataclass(frozen=True)
class _Spec:
    """A coin of the sample: its first price, lot, leverage, and how it moves and trades."""

    name: str
    sector: str
    price_usd: float
    sz_decimals: int
    max_leverage: int
    beta: float
    own_daily: float
    volume_daily_usd: float
    half_spread_bps: float


COINS = (
    _Spec("AAVE", "defi", 108.0, 2, 10, 1.10, 0.030, 9e6, 1.8),
    _Spec("ADA", "layer1", 0.594, 0, 10, 1.10, 0.024, 1.5e7, 1.2),
    _Spec("APT", "layer1", 9.42, 2, 10, 1.25, 0.033, 1.2e7, 1.8),
    _Spec("ARB", "layer2", 1.594, 1, 10, 1.25, 0.032, 3e7, 1.2),
    _Spec("ATOM", "layer1", 10.57, 2, 5, 1.05, 0.025, 6e6, 2.0),
    _Spec("AVAX", "layer1", 38.5, 2, 10, 1.25, 0.030, 3e7, 1.1),
    _Spec("BCH", "major", 259.0, 3, 10, 1.00, 0.028, 7e6, 1.9),
    _Spec("BLUR", "other", 0.486, 0, 5, 1.30, 0.040, 3e6, 3.6),
    _Spec("BNB", "major", 313.0, 3, 10, 0.75, 0.018, 1.5e7, 0.9),
    _Spec("BTC", "major", 42280.0, 5, 40, 0.95, 0.006, 6e8, 0.1),
    _Spec("CRV", "defi", 0.606, 1, 10, 1.20, 0.034, 4e6, 2.8),
    _Spec("DOGE", "meme", 0.0895, 0, 10, 1.15, 0.028, 4e7, 1.0),
    _Spec("DOT", "layer1", 8.21, 1, 10, 1.10, 0.024, 8e6, 1.8),
    _Spec("DYDX", "defi", 2.92, 1, 5, 1.25, 0.033, 4e6, 2.9),
    _Spec("ENA", "defi", 0.842, 0, 10, 1.40, 0.045, 1e7, 2.4),
    _Spec("ETH", "major", 2282.0, 4, 25, 1.05, 0.013, 3e8, 0.2),
    _Spec("FIL", "other", 6.78, 1, 5, 1.20, 0.030, 6e6, 2.2),
    _Spec("FTM", "layer1", 0.481, 0, 10, 1.30, 0.036, 8e6, 2.2),
    _Spec("IMX", "layer2", 2.23, 1, 5, 1.30, 0.036, 3e6, 3.2),
    _Spec("INJ", "layer1", 37.2, 1, 10, 1.30, 0.038, 1.4e7, 1.9),
    _Spec("LDO", "defi", 2.74, 1, 10, 1.25, 0.034, 6e6, 2.3),
    _Spec("LINK", "defi", 14.95, 1, 10, 1.10, 0.026, 2e7, 1.2),
    _Spec("LTC", "major", 72.8, 2, 10, 0.95, 0.022, 1.2e7, 1.2),
    _Spec("NEAR", "layer1", 3.63, 1, 10, 1.25, 0.035, 9e6, 1.9),
    _Spec("OP", "layer2", 3.71, 1, 10, 1.30, 0.034, 1.6e7, 1.6),
    _Spec("ORDI", "other", 76.1, 2, 5, 1.35, 0.048, 1.2e7, 2.6),
    _Spec("RUNE", "defi", 5.21, 1, 5, 1.25, 0.037, 6e6, 2.5),
    _Spec("SEI", "layer1", 0.605, 0, 10, 1.35, 0.040, 1.1e7, 2.1),
    _Spec("SOL", "major", 101.4, 2, 20, 1.30, 0.027, 1.2e8, 0.4),
    _Spec("STX", "layer2", 1.505, 1, 5, 1.30, 0.038, 5e6, 2.7),
    _Spec("SUI", "layer1", 0.781, 1, 10, 1.30, 0.038, 2e7, 1.6),
    _Spec("TIA", "layer1", 11.84, 1, 10, 1.30, 0.042, 2e7, 1.7),
    _Spec("TRX", "major", 0.1076, 0, 10, 0.55, 0.015, 4e6, 1.8),
    _Spec("UNI", "defi", 7.36, 1, 10, 1.10, 0.028, 6e6, 2.0),
    _Spec("WIF", "meme", 0.211, 0, 10, 1.50, 0.058, 2e7, 2.4),
    _Spec("WLD", "other", 3.72, 1, 10, 1.35, 0.044, 1.2e7, 2.1),
    _Spec("XRP", "major", 0.616, 0, 20, 0.90, 0.022, 3e7, 1.0),
    _Spec("kBONK", "meme", 0.01384, 0, 10, 1.45, 0.050, 8e6, 2.9),
    _Spec("kPEPE", "meme", 0.01302, 0, 10, 1.45, 0.048, 2.5e7, 2.0),
    _Spec("kSHIB", "meme", 0.01034, 0, 10, 1.15, 0.030, 7e6, 2.2),
)


#: The builders' dex of the sample.
STOCKS = (
    _Spec("xyz:AAPL", "stock", 192.5, 3, 10, 1.0, 0.010, 8e6, 1.2),
    _Spec("xyz:AMZN", "stock", 152.0, 3, 10, 1.1, 0.012, 6e6, 1.3),
    _Spec("xyz:META", "stock", 354.0, 3, 10, 1.2, 0.014, 6e6, 1.3),
    _Spec("xyz:MSFT", "stock", 376.0, 3, 10, 0.9, 0.009, 7e6, 1.1),
    _Spec("xyz:NVDA", "stock", 49.5, 3, 10, 1.7, 0.020, 2e7, 0.9),
    _Spec("xyz:TSLA", "stock", 248.0, 3, 10, 1.6, 0.026, 1.5e7, 1.1),
    _Spec("xyz:XYZ100", "index", 16_800.0, 4, 20, 1.0, 0.003, 4e7, 0.5),
)


def write_sample(store: Store, *, progress: Progress | None = None) -> MergeReport:
    """Merge the sample into a cache; one that has it already stays as it is.

    Raises
    ------
    DataError
        When the cache holds real data, or cannot be written to.
    """
    metas = [
        CoinMeta(spec.name, spec.sz_decimals, float(spec.max_leverage), spec.name == DELISTED[0], "cross")
        for spec in COINS
    ]
    metas += [
        CoinMeta(
            spec.name,
            spec.sz_decimals,
            float(spec.max_leverage),
            False,
            "isolated",
            collateral="USDC",
            fee_scale=1.0,
            growth=True,
            funding_multiplier=0.5,
            sessions="XNYS",
        )
        for spec in STOCKS
    ]
    tables = [_table(COINS, sample_fields()), _table(STOCKS, dex_fields())]
    return store.merge(tables, SYNTHETIC, meta=metas, progress=progress)


def _table(specs: Sequence[_Spec], fields: Mapping[str, Floats]) -> Any:
    """Fields of some coins as a pyarrow table of :mod:`engine.data.schema`."""
    present = ~np.isnan(fields["mid"].T)
    codes, row = np.nonzero(present)
    values = {name: field.T[present] for name, field in fields.items()}
    return to_table([spec.name for spec in specs], codes, hour_number(START) + row, values)


def sample_fields(seed: int = SEED) -> dict[str, Floats]:
    """The fields of the sample, (T, 40) arrays; NaN before a listing, after a delisting and in the gap."""
    generator = np.random.default_rng(seed)
    index = hourly_index(START, END)
    hours, coins = len(index), len(COINS)
    own_daily = np.array([spec.own_daily for spec in COINS])
    volatility = _volatility(generator, index)
    own_premium = _wander(generator, (hours, coins), half_life_hours=48)
    drift = own_daily / 24 * (DRIFT * _wander(generator, (hours, coins), half_life_hours=240) - CARRY * own_premium)
    # The drift of an hour comes from values before it: the effect is one that could have been traded.
    returns = np.roll(drift, 1, axis=0) + volatility[:, None] * _shocks(generator, hours, own_daily)
    returns[0] = 0.0
    # Less half the variance: the expected price stays where it starts.
    returns -= returns.var(axis=0) / 2
    price = np.array([spec.price_usd for spec in COINS]) * np.exp(np.cumsum(returns, axis=0))
    recent = _smooth(returns, half_life_hours=16)
    premium = 1e-4 + 4e-4 * own_premium + 3e-4 * _wander(generator, (hours, 1), half_life_hours=120) + 0.008 * recent
    fields = _quotes(generator, price, COINS)
    fields["oracle"] = _significant(price / (1 + 0.5 * premium + 1e-4 * generator.standard_normal((hours, coins))), 6)
    fields["mark"] = _significant(price * (1 + 1e-4 * generator.standard_normal((hours, coins))), 6)
    fields["funding"] = np.round((premium + np.clip(1e-4 - premium, -5e-4, 5e-4)) / 8, 10)
    fields.update(_activity(generator, index, price, returns, COINS))
    for values in fields.values():
        values[~_alive(index)] = np.nan
    return {name: fields[name] for name in FIELDS if name in fields}


def dex_fields(seed: int = SEED + 1) -> dict[str, Floats]:
    """The fields of the builders' dex, (T, 7) arrays."""
    generator = np.random.default_rng(seed)
    index = hourly_index(START, END)
    shape = len(index), len(STOCKS)
    opened = ((index.hour >= 15) & (index.hour <= 21) & (index.day_of_week < 5))[:, None]
    market = _student(generator, (shape[0], 1)) * 0.011 * np.array([spec.beta for spec in STOCKS])
    own = _student(generator, shape) * np.array([spec.own_daily for spec in STOCKS])
    # Three times as much in the 35 of 168 hours of a week that are open, and in all as much as a day's would be.
    returns = (market + own) * np.where(opened, 3.0, 1.0) / np.sqrt(24 * (35 * 9.0 + 133) / 168)
    returns[0] = 0.0
    returns -= returns.var(axis=0) / 2
    price = np.array([spec.price_usd for spec in STOCKS]) * np.exp(np.cumsum(returns, axis=0))
    premium = 2e-4 * _wander(generator, shape, half_life_hours=24)
    fields = _quotes(generator, price, STOCKS, np.where(opened, 1.0, 3.0))
    fields["oracle"] = _significant(price / (1 + premium), 6)
    fields["mark"] = _significant(price * (1 + 1e-4 * generator.standard_normal(shape)), 6)
    fields["funding"] = np.round(0.5 * (premium + np.clip(1e-4 - premium, -5e-4, 5e-4)) / 8, 10)
    fields.update(_activity(generator, index, price, returns, STOCKS))
    return {name: fields[name] for name in FIELDS if name in fields}


def _student(generator: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Student t draws scaled to unit variance."""
    return np.asarray(generator.standard_t(_TAIL, shape) / np.sqrt(_TAIL / (_TAIL - 2)))


def _smooth(shocks: Floats, half_life_hours: float) -> Floats:
    """Sum of past rows with exponentially falling weights, the row itself included."""
    keep = 0.5 ** (1 / half_life_hours)
    state = np.zeros(shocks.shape[1])
    smoothed = np.empty_like(shocks)
    for row in range(len(shocks)):
        state = keep * state + shocks[row]
        smoothed[row] = state
    return smoothed


def _wander(generator: np.random.Generator, shape: tuple[int, int], half_life_hours: float) -> Floats:
    """A stationary first-order autoregression of unit variance."""
    keep = 0.5 ** (1 / half_life_hours)
    shocks = generator.standard_normal(shape) * np.sqrt(1 - keep**2)
    shocks[0] /= np.sqrt(1 - keep**2)
    return _smooth(shocks, half_life_hours)


def _volatility(generator: np.random.Generator, index: pd.DatetimeIndex) -> Floats:
    """Common multiplier of all volatilities, (T,): wandering, highest in the American afternoon."""
    level = np.exp(0.35 * _wander(generator, (len(index), 1), half_life_hours=120)[:, 0] - 0.06)
    return np.asarray(level * (1 + 0.2 * np.cos((index.hour.to_numpy() - 15) * np.pi / 12)))


def _shocks(generator: np.random.Generator, hours: int, own_daily: Floats) -> Floats:
    """Market, sector and own shocks of an hour, (T, N), before the common volatility."""
    root = np.sqrt(24)
    sectors = sorted({spec.sector for spec in COINS})
    beta = np.array([spec.beta for spec in COINS])
    member = np.array([sectors.index(spec.sector) for spec in COINS])
    # The majors have no factor of their own: they are the market.
    weight = np.where(member == sectors.index("major"), 0.0, 1.0)
    market = _student(generator, (hours, 1)) * _MARKET_DAILY / root
    sector = _student(generator, (hours, len(sectors)))[:, member] * weight * _SECTOR_DAILY / root
    return np.asarray(market * beta + sector + _student(generator, (hours, len(COINS))) * own_daily / root)


def _quotes(
    generator: np.random.Generator, price: Floats, specs: Sequence[_Spec], wider: Floats | float = 1.0
) -> dict[str, Floats]:
    """Bid and ask on the price grid, mid between them, impact prices outside; spreads are `wider` by a factor."""
    spread = wider * np.array([spec.half_spread_bps for spec in specs]) / 1e4
    half = spread * np.exp(0.25 * generator.standard_normal(price.shape))
    decimals = 6 - np.array([spec.sz_decimals for spec in specs])
    tick = 10.0 ** np.maximum(np.floor(np.log10(price)) - 4, -decimals)
    bid = np.round(np.floor(price * (1 - half) / tick) * tick, 8)
    ask = np.round(np.ceil(price * (1 + half) / tick) * tick, 8)
    beyond = 1e-4 + spread * (1 + generator.random(price.shape))
    return {
        "mid": np.round((bid + ask) / 2, 9),
        "bid": bid,
        "ask": ask,
        "impact_bid": _significant(bid * (1 - beyond), 6),
        "impact_ask": _significant(ask * (1 + beyond), 6),
    }


def _activity(
    generator: np.random.Generator,
    index: pd.DatetimeIndex,
    price: Floats,
    returns: Floats,
    specs: Sequence[_Spec],
) -> dict[str, Floats]:
    """Volume that rises with the size of the move, and open interest."""
    daily = np.array([spec.volume_daily_usd for spec in specs])
    lots = 10.0 ** np.array([spec.sz_decimals for spec in specs])
    cycle = 1 + 0.3 * np.cos((index.hour.to_numpy() - 15) * np.pi / 12)[:, None]
    mood = np.exp(0.4 * _wander(generator, price.shape, half_life_hours=36))
    noise = np.exp(0.35 * generator.standard_normal(price.shape))
    volume = daily / 24 * cycle * mood * noise * (0.6 + 60 * np.abs(returns))
    held = 0.35 * daily * np.exp(0.3 * _wander(generator, price.shape, half_life_hours=240))
    return {"volume_usd": np.round(volume, 2), "open_interest": np.floor(held / price * lots) / lots}


def _significant(values: Floats, digits: int) -> Floats:
    """Round to a number of significant digits."""
    scale = 10.0 ** (digits - 1 - np.floor(np.log10(values)))
    return np.asarray(np.round(values * scale) / scale)


def _alive(index: pd.DatetimeIndex) -> Flags:
    """Where a coin has data, (T, N)."""
    names = [spec.name for spec in COINS]
    alive = np.ones((len(index), len(names)), dtype=np.bool_)
    alive[index < LISTED[1], names.index(LISTED[0])] = False
    alive[index > DELISTED[1], names.index(DELISTED[0])] = False
    alive[(index >= GAP[1]) & (index <= GAP[2]), names.index(GAP[0])] = False
    return alive
