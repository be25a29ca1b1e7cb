"""From scores to weights, a row at a time; shared by every cross-sectional oracle.

A score is (D, N): how much each coin is liked at each decision, NaN = not in the universe. A construction turns each
row into weights whose ``sum(abs(weight))`` is `gross`, or into zeros where the row has too few coins.
"""

from __future__ import annotations

import numpy as np

from engine.errors import OracleError, nearest


def top_bottom(scores: np.ndarray, n: int, gross: float = 1.0) -> np.ndarray:
    """Long the `n` highest scores, short the `n` lowest, equal weights.

    Ties go to the coin that comes first in column order. In a universe of fewer than ``2 n`` coins the sides shrink
    to half
    of it each, so that they never overlap.

    Parameters
    ----------
    scores : ndarray, (D, N)
        NaN = not in the universe.
    n : int
        Coins a side, at least 1.
    gross : float
        ``sum(abs(weight))`` of a row.

    Returns
    -------
    ndarray, (D, N)
    """
    weights = np.zeros_like(scores)
    for row, values in enumerate(scores):
        universe = np.flatnonzero(~np.isnan(values))
        side = min(n, len(universe) // 2)
        if side:
            highest = universe[np.argsort(-values[universe], kind="stable")]
            weights[row, highest[:side]] = 0.5 * gross / side
            # The shorts come from what the longs left, so that a row of equal scores still gives two sides.
            rest = np.sort(highest[side:])
            lowest = rest[np.argsort(values[rest], kind="stable")]
            weights[row, lowest[:side]] = -0.5 * gross / side
    return weights


def rank_power(scores: np.ndarray, power: float = 1.0, gross: float = 1.0) -> np.ndarray:
    """Weights ``sign(r) * abs(r) ** power`` of the rank ``r``, spaced evenly from -1 (lowest) to 1 (highest).

    A power of 1 is linear in the rank; a higher one leans on the extremes. Ties share the mean of their ranks.
    """
    from scipy.stats import rankdata

    weights = np.zeros_like(scores)
    for row, values in enumerate(scores):
        universe = np.flatnonzero(~np.isnan(values))
        if len(universe) > 1:
            ranks = 2.0 * (rankdata(values[universe]) - 1.0) / (len(universe) - 1.0) - 1.0
            weights[row, universe] = np.sign(ranks) * np.abs(ranks) ** power
    return _scaled(weights, gross)


def z_score(scores: np.ndarray, clip: float = 3.0, gross: float = 1.0) -> np.ndarray:
    """Weights in proportion to the row's z-score, cut at +/- `clip` standard deviations."""
    weights = np.zeros_like(scores)
    for row, values in enumerate(scores):
        universe = np.flatnonzero(~np.isnan(values))
        deviation = np.std(values[universe]) if len(universe) > 1 else 0.0
        # Equal scores have no order; what their deviation is then is floating-point noise, not a signal.
        if deviation > 1e-12 * np.max(np.abs(values[universe]), initial=0.0):
            weights[row, universe] = np.clip((values[universe] - np.mean(values[universe])) / deviation, -clip, clip)
    return _scaled(weights, gross)


def _scaled(weights: np.ndarray, gross: float) -> np.ndarray:
    total = np.abs(weights).sum(axis=1, keepdims=True)
    return np.divide(weights * gross, total, out=np.zeros_like(weights), where=total > 0.0)


CONSTRUCTIONS = ("top_bottom", "rank_power", "z_score")


def check_construction(name: str, n: int, power: float, clip: float, gross: float) -> None:
    """Refuse a construction or a parameter of one that is not accepted, before any score is computed."""
    if name not in CONSTRUCTIONS:
        raise OracleError(
            f"construction = {name!r} is not accepted: choose one of "
            f"{', '.join(CONSTRUCTIONS)}.{nearest(str(name), CONSTRUCTIONS)}"
        )
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise OracleError(f"n = {n!r} is not accepted: it must be a whole number of coins a side, at least 1.")
    for label, value in {"power": power, "clip": clip, "gross": gross}.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise OracleError(f"{label} = {value!r} is not accepted: it must be a positive number.")


def weights_of(scores: np.ndarray, name: str, n: int, power: float, clip: float, gross: float) -> np.ndarray:
    """Weights by the construction `name`, with those of the parameters that it uses."""
    if name == "top_bottom":
        return top_bottom(scores, n, gross)
    if name == "rank_power":
        return rank_power(scores, power, gross)
    return z_score(scores, clip, gross)
