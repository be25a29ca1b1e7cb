"""Cost stress: the market as the kernel sees it under ``costs.stress``; the rules are ARCHITECTURE.md's.

Everything is done to the arrays before the kernel, so backtest() and backtest_many() cannot differ in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engine.config import Costs
from engine.panel import read_only

if TYPE_CHECKING:
    from engine.kernel import Tape

#: A stressed fill is at most this fraction of the price away from it, unless it was further without stress.
FURTHEST_FRAC = 0.5


def stressed_half_spread(costs: Costs) -> float:
    """Half spread where the panel has no quote, as a fraction of mid."""
    half = costs.half_spread_bps / 1e4
    return min(half * costs.stress, max(FURTHEST_FRAC, half))


def stressed_tape(tape: Tape, costs: Costs) -> Tape:
    """Move quotes and impact prices so that spread and impact cost ``costs.stress`` times as much.

    The distance of a quote is measured from the coin's price: its mid or, where that is NaN, the last one before. A
    quote better than the price stays. An impact price keeps `stress` times its distance from the fill before impact.
    """
    if costs.stress == 1.0 or not (tape.bid.shape[0] or tape.impact_bid.shape[0]):
        return tape
    price = _last_known(tape.mid)
    quoted = tape.bid.shape[0] > 0
    sides = {}
    for name, sign in (("ask", 1.0), ("bid", -1.0)):
        plain = price * (1.0 + sign * costs.half_spread_bps / 1e4)
        moved = price * (1.0 + sign * stressed_half_spread(costs))
        if quoted:
            both = ~(np.isnan(tape.bid) | np.isnan(tape.ask))
            quote = getattr(tape, name)
            sides[name] = _further(quote, price, sign, costs.stress)
            plain, moved = np.where(both, quote, plain), np.where(both, sides[name], moved)
        if tape.impact_bid.shape[0]:
            beyond = np.maximum(sign * (getattr(tape, f"impact_{name}") - plain), 0.0)
            sides[f"impact_{name}"] = moved + sign * costs.stress * beyond
    return tape._replace(**{name: read_only(prices) for name, prices in sides.items()})


def _further(quote: np.ndarray, price: np.ndarray, sign: float, stress: float) -> np.ndarray:
    distance = sign * (quote - price) / price
    moved = price * (1.0 + sign * np.minimum(distance * stress, np.maximum(FURTHEST_FRAC, distance)))
    # Where there is no price yet there is nothing to trade; the quote stays as it is.
    return np.where(distance > 0.0, moved, quote)


def _last_known(mid: np.ndarray) -> np.ndarray:
    rows = np.where(np.isnan(mid), 0, np.arange(len(mid))[:, None])
    return np.take_along_axis(mid, np.maximum.accumulate(rows, axis=0), axis=0)
