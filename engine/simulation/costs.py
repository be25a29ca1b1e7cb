"""Fee rates of each row (published schedule, tiers, discounts), and the cost stress of fees, spreads and impact.

Source: the exchange's fee page and its announcements, as collected by third parties for the years before 2025. Only the
base rates of the earlier years are known here, so tiers and their thresholds begin with the schedule of May 2025.

Cost stress: the market as the kernel sees it under ``costs.stress``; the rules are in docs/concepts/rules.md.

Both change the arrays that the kernel gets, so backtest() and backtest_many() cannot differ in them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from engine.clock import show, utc_days
from engine.coin import Coin
from engine.config import Costs
from engine.errors import join_first
from engine.panel import Panel, read_only

if TYPE_CHECKING:
    from engine.simulation.kernel import Fees, MarketData

#: A stressed fill is at most this fraction of the price away from it, unless it was further without stress.
FURTHEST_FRAC = 0.5

#: (in force from, taker, maker) in basis points, base tier.
SCHEDULE: tuple[tuple[pd.Timestamp, float, float], ...] = (
    (pd.Timestamp("2023-06-01T00:00Z"), 2.5, -0.2),
    (pd.Timestamp("2024-03-11T00:00Z"), 3.5, 1.0),
    (pd.Timestamp("2025-05-05T03:00Z"), 4.5, 1.5),
)
#: (USD of 14-day volume from which a tier applies, taker, maker) in basis points, since the schedule's last entry.
TIERS: tuple[tuple[float, float, float], ...] = (
    (0.0, 4.5, 1.5),
    (5e6, 4.0, 1.2),
    (25e6, 3.5, 0.8),
    (100e6, 3.0, 0.4),
    (500e6, 2.8, 0.0),
    (2e9, 2.6, 0.0),
    (7e9, 2.4, 0.0),
)


def scheduled_rates(index: pd.DatetimeIndex, bps: float | Literal["schedule"], maker: bool, tiers: bool) -> np.ndarray:
    """Taker or maker rate of each row and tier, as a fraction of the fill's notional.

    Parameters
    ----------
    index : DatetimeIndex, shape (T,)
        Hourly instants, UTC. Row ``t`` trades just before ``t``, so a rate in force from 03:00 first applies at 04:00.
    bps : float or "schedule"
        A fixed rate, or the dated schedule, which is 0 before its first entry (the exchange's alpha charged none).
    maker : bool
        The maker's rate, not the taker's.
    tiers : bool
        A column for every tier; without, the base tier alone.

    Returns
    -------
    ndarray, shape (T, K), float64
    """
    rates = np.zeros((len(index), len(TIERS) if tiers else 1))
    if bps != "schedule":
        rates[:] = float(bps)
        return rates / 1e4
    for start, *base in SCHEDULE:
        rates[np.asarray(index > start)] = base[maker]
    if tiers:
        rates[np.asarray(index > SCHEDULE[-1][0])] = [tier[1 + maker] for tier in TIERS]
    return rates / 1e4


def fee_arrays(index: pd.DatetimeIndex, costs: Costs, table: Sequence[Coin] = ()) -> Fees:
    """Fees as the kernel takes them: maker share, staking discount and stress are in the rates.

    `table` is of the N coins of a panel; without one, none of them changes a rate.
    """
    from engine.simulation.kernel import Fees

    rate, share = scheduled_rates(index, costs.taker_bps, False, costs.fee_tiers), costs.maker_share_frac
    if share:
        rate = (1.0 - share) * rate + share * scheduled_rates(index, costs.maker_bps, True, costs.fee_tiers)
    # A discount makes a fee smaller, not a rebate larger, and stress makes a fee larger, not a rebate.
    rate = np.where(rate > 0.0, rate * (1.0 - costs.staking_discount_frac) * costs.stress, rate)
    thresholds = np.array([tier[0] for tier in TIERS]) if costs.fee_tiers else np.zeros(1)
    days = utc_days(index)
    return Fees(rate, thresholds, days - days[0], costs.referral_discount_frac, *_coin_factors(index, table))


def coin_rates(index: pd.DatetimeIndex, rows: np.ndarray, costs: Costs, table: Sequence[Coin]) -> np.ndarray:
    """Rate of a fill of each coin at `rows` of `index`, (len(rows), N): the base tier, with every discount."""
    fees = fee_arrays(index, costs, table)
    base = fees.rate[rows, :1]
    rate = np.where(base > 0.0, base * (1.0 - fees.referral_frac), base) * np.ones(len(table))
    if not fees.factor.shape[1]:
        return rate
    return rate * np.where(base > 0.0, *(factor[fees.period[rows]] for factor in fees.factor))


def fill_costs(panel: Panel, rows: np.ndarray, costs: Costs) -> tuple[np.ndarray, np.ndarray]:
    """Fee and spread of a small fill at `rows`, as fractions of its notional at mid.

    A pair, of a buy and of a sell, (R, N) each. Fees are those of the base tier; price impact is left out. NaN where
    there is no mid.
    """
    mid, fee = panel.values("mid")[rows], coin_rates(panel.index, rows, costs, panel.table)
    sides = []
    for name, other, sign in (("ask", "bid", 1.0), ("bid", "ask", -1.0)):
        fill = mid * (1.0 + sign * stressed_half_spread(costs))
        if name in panel.fields and other in panel.fields:
            quote = panel.values(name)[rows]
            both = ~np.isnan(quote) & ~np.isnan(panel.values(other)[rows])
            fill = np.where(both, _further(quote, mid, sign, costs.stress), fill)
        sides.append(sign * (fill / mid - 1.0) + fee * fill / mid)
    return sides[0], sides[1]


def _coin_factors(index: pd.DatetimeIndex, table: Sequence[Coin]) -> tuple[np.ndarray, np.ndarray]:
    """Period of each row, (T,), and the coins' factors on a fee and on a rebate in each of E periods, (2, E, N)."""
    if not any(coin.fee_terms for coin in table):
        return np.zeros(len(index), dtype=np.int64), np.zeros((2, 0, len(table)))
    seen = {terms.seen for coin in table for terms in coin.fee_terms if terms.seen is not None}
    starts = [index[0], *sorted(instant for instant in seen if index[0] < instant <= index[-1])]
    factor = np.ones((2, len(starts), len(table)))
    for period, start in enumerate(starts):
        for column, coin in enumerate(table):
            if terms := coin.fees_at(start):
                factor[:, period, column] = terms.factor, terms.growth_factor
    return np.searchsorted(pd.DatetimeIndex(starts), index, side="right").astype(np.int64) - 1, factor


def fee_scale_notes(table: Sequence[Coin], traded: Mapping[Hashable, pd.Timestamp]) -> tuple[str, ...]:
    """Notes on fee scales that are applied before they were seen, or are not known.

    `traded` is the first trade of each coin that was traded.
    """
    early = [
        (coin.fee_terms[0].seen, coin.name)
        for coin in table
        if coin.name in traded and coin.fee_terms and not coin.knows_fees_at(traded[coin.name])
    ]
    notes = []
    if early:
        dated = sorted(seen for seen, _ in early if seen is not None)
        # A panel keeps no instant of what was seen after its last row.
        since = f"seen from {show(dated[0])} on" if dated else "seen after the last row, or at an unknown time,"
        names = join_first(sorted(name for _, name in early), 5)
        notes.append(f"Fee scales {since} are applied to days before it, for nobody keeps a history of them: {names}.")
    unknown = sorted(coin.name for coin in table if coin.dex and coin.name in traded and not coin.fee_terms)
    if unknown:
        notes.append(
            f"Fee scales of {join_first(unknown, 5)} are not known: they pay the main dex's fees. `hlbt data sync "
            "--source api` with data.dexes reads them."
        )
    return tuple(notes)


def mean_rates(rates: np.ndarray) -> np.ndarray:
    """Funding rates, (T, N), with means for NaN: of the coin's own rates, else of all; as they are without any."""
    known = ~np.isnan(rates)
    counts, sums = known.sum(axis=0), np.where(known, rates, 0.0).sum(axis=0)
    if not counts.any():
        return rates
    means = np.where(counts > 0, sums / np.maximum(counts, 1), sums.sum() / counts.sum())
    return np.where(known, rates, means)


def stressed_half_spread(costs: Costs) -> float:
    """Half spread where the panel has no quote, as a fraction of mid."""
    half = costs.half_spread_bps / 1e4
    return min(half * costs.stress, max(FURTHEST_FRAC, half))


def stressed_market(market: MarketData, costs: Costs) -> MarketData:
    """Move quotes and impact prices so that spread and impact cost ``costs.stress`` times as much.

    The distance of a quote is measured from the coin's price: its mid or, where that is NaN, the last one before. A
    quote better than the price stays. An impact price keeps `stress` times its distance from the fill before impact.
    """
    if costs.stress == 1.0 or not (market.bid.shape[0] or market.impact_bid.shape[0]):
        return market
    price = pd.DataFrame(market.mid).ffill().to_numpy()
    quoted = market.bid.shape[0] > 0
    sides = {}
    for name, sign in (("ask", 1.0), ("bid", -1.0)):
        plain = price * (1.0 + sign * costs.half_spread_bps / 1e4)
        moved = price * (1.0 + sign * stressed_half_spread(costs))
        if quoted:
            both = ~(np.isnan(market.bid) | np.isnan(market.ask))
            quote = getattr(market, name)
            sides[name] = _further(quote, price, sign, costs.stress)
            plain, moved = np.where(both, quote, plain), np.where(both, sides[name], moved)
        if market.impact_bid.shape[0]:
            beyond = np.maximum(sign * (getattr(market, f"impact_{name}") - plain), 0.0)
            sides[f"impact_{name}"] = moved + sign * costs.stress * beyond
    return market._replace(**{name: read_only(prices) for name, prices in sides.items()})


def _further(quote: np.ndarray, price: np.ndarray, sign: float, stress: float) -> np.ndarray:
    distance = sign * (quote - price) / price
    moved = price * (1.0 + sign * np.minimum(distance * stress, np.maximum(FURTHEST_FRAC, distance)))
    # Where there is no price yet there is nothing to trade; the quote stays as it is.
    return np.where(distance > 0.0, moved, quote)
