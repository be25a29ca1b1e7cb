"""Bands of a promoted run: what a live account's returns would hardly ever leave while the edge is what it was.

Paths of daily returns are drawn from the run's own days in circular blocks of length ``T ** (1/3)``. For every day of
the horizon, the bands are the same order statistic (the k-th worst of the paths) of three statistics: the return so
far, the deepest drawdown so far, and the longest run of losing days so far. k is the largest with which at most 5 % of
the paths cross any of the three bands on any day.

A path of the sample that made the bands is counted against the other paths, as if it were new. A second, independent
sample must stay within 5 %, too, and is what is reported; paths of the days less their mean the power. The page
:doc:`docs/concepts/edge-bands.md` has the reasons.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike

from engine.errors import DataError
from engine.live.spec import canonical
from engine.validation.bootstrap import circular_days

#: In the order of the arrays.
STATISTICS: Final = ("cumulative_return", "drawdown", "losing_run")
HORIZON_DAYS: Final = 365
PATHS: Final = 2_000
#: Part of the paths that may cross over the horizon.
FALSE_ALARMS: Final = 0.05
#: Fewer days than these say nothing of a year.
LEAST_DAYS: Final = 20
#: Too few days to say, until a vanished edge would have been noticed this often.
PENDING_POWER: Final = 2.0 * FALSE_ALARMS
#: Decimals of returns and of bands, so that a last bit that differs between machines changes nothing.
_RETURN_DECIMALS, _BAND_DECIMALS = 10, 5
#: Worse is smaller: drawdown and losing run are compared with their signs turned.
_SIGNS: Final = np.array([1.0, -1.0, -1.0])


@dataclass(frozen=True, eq=False)
class EdgeBands:
    """Bands of three statistics over a horizon; see the module.

    Attributes
    ----------
    run_days : int
        Daily returns of the run that they are drawn from.
    block_days : int
    horizon_days : int
    paths : int
        Of each of the samples.
    seed : int
    rank : int
        The order statistic k: the bands are the k-th worst of the paths.
    false_alarms : float
        Part of the second sample that crosses within the horizon.
    crossed_demeaned : ndarray, (horizon_days,)
        Paths without the edge (:func:`vanished`) that have crossed by each day; over `paths` it is the power.
    bands : ndarray, (3, horizon_days)
        Of :data:`STATISTICS`, after 1, 2, ... days: the least cumulative return (a fraction), the deepest drawdown (a
        positive fraction of the highest equity), the longest run of losing days. What is beyond has crossed.
    returns_digest : str
        SHA-256 of the run's daily returns, to ten decimals.
    """

    run_days: int
    block_days: int
    horizon_days: int
    paths: int
    seed: int
    rank: int
    false_alarms: float
    crossed_demeaned: np.ndarray
    bands: np.ndarray
    returns_digest: str

    @property
    def power(self) -> np.ndarray:
        """Probability to have noticed by each day an edge that vanished on the first, (horizon_days,)."""
        return self.crossed_demeaned / self.paths

    @property
    def pending_days(self) -> int | None:
        """Days until a vanished edge is noticed twice as often as a false alarm is allowed; None: not in the horizon.

        Before, silence says nothing.
        """
        enough = np.flatnonzero(self.power >= PENDING_POWER)
        return int(enough[0]) + 1 if len(enough) else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a spec, each array one line of text, with their SHA-256 as ``digest``."""
        texts = {
            "cumulative_return": " ".join(f"{value:.{_BAND_DECIMALS}f}" for value in self.bands[0]),
            "drawdown": " ".join(f"{value:.{_BAND_DECIMALS}f}" for value in self.bands[1]),
            "losing_run": " ".join(f"{value:.0f}" for value in self.bands[2]),
            "crossed_demeaned": " ".join(map(str, self.crossed_demeaned.tolist())),
        }
        names = ("run_days", "block_days", "horizon_days", "paths", "seed", "rank", "false_alarms", "returns_digest")
        values = {**{name: getattr(self, name) for name in names}, **texts}
        return {**values, "power": float(self.power[-1]), "digest": _digest(values)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Bands from :meth:`to_dict`."""
        bands = np.array([[float(item) for item in values[name].split()] for name in STATISTICS])
        crossed = np.array([int(item) for item in values["crossed_demeaned"].split()])
        names = ("run_days", "block_days", "horizon_days", "paths", "seed", "rank", "false_alarms", "returns_digest")
        return cls(**{name: values[name] for name in names}, crossed_demeaned=crossed, bands=bands)

    def text(self) -> str:
        """Horizon, false alarms and power as a sentence, for the one who promotes."""
        waits = f"from day {self.pending_days} on" if self.pending_days else "on no day of it"
        return (
            f"Edge: bands over {self.horizon_days} days from {self.run_days} days of the run (blocks of "
            f"{self.block_days}, {self.paths:,} paths): false alarms {self.false_alarms:.1%} on a second sample, a "
            f"vanished edge is noticed in {self.power[-1]:.0%} of cases; silence says something {waits}"
        )


def edge_bands(
    daily_returns: ArrayLike, horizon_days: int = HORIZON_DAYS, paths: int = PATHS, seed: int = 0
) -> EdgeBands:
    """The bands of a run.

    Parameters
    ----------
    daily_returns : array, (T,)
        Simple daily returns of the promoted run; finite.
    horizon_days : int
        Days over which 5 % of the paths may cross.
    paths : int
        Of each sample.
    seed : int
        Of the draws; the samples are of ``(seed, 0)``, ``(seed, 1)`` and ``(seed, 2)``.

    Raises
    ------
    DataError
        For fewer than 20 days, returns that are not finite, or that do not vary.
    """
    returns = np.round(np.asarray(daily_returns, dtype=np.float64), _RETURN_DECIMALS) + 0.0
    days = len(returns)
    if days < LEAST_DAYS or not np.isfinite(returns).all() or np.ptp(returns) == 0.0:
        raise DataError(
            f"{days} daily returns give no bands of the edge: at least {LEAST_DAYS} that vary are needed. Promote a "
            "longer run."
        )
    block = max(1, round(days ** (1.0 / 3.0)))

    def sample(number: int, of: np.ndarray) -> np.ndarray:
        drawn = circular_days(days, block, horizon_days, paths, (seed, number))
        return _SIGNS[:, None, None] * path_statistics(of[drawn])

    first, second = sample(0, returns), sample(1, returns)
    ordered = np.sort(first, axis=1)
    allowed = int(FALSE_ALARMS * paths)
    # Paths at or beyond the k-th worst of the others; the second sample is beyond it, for it is not among them.
    own, other = (np.sort(_least_rank(ordered, values)) for values in (first, second))
    rank = max(1, min(int(own[allowed]) - 1, int(other[allowed])))
    bands = _outward(ordered[:, rank - 1])
    demeaned = (sample(2, vanished(returns)) < bands[:, None]).any(axis=0)
    crossed = np.logical_or.accumulate(demeaned, axis=1).sum(axis=0)
    false_alarms = float((second < bands[:, None]).any(axis=(0, 2)).mean())
    digest = hashlib.sha256(" ".join(f"{value:.{_RETURN_DECIMALS}f}" for value in returns).encode()).hexdigest()
    plain = _SIGNS[:, None] * bands + 0.0
    return EdgeBands(days, block, horizon_days, paths, seed, rank, false_alarms, crossed, plain, digest)


def vanished(returns: np.ndarray) -> np.ndarray:
    """Daily returns of the same run without its edge, (T,): each less the mean of the days on which it held anything.

    A day of exactly 0 stays one: taken from it, too, the mean would make a losing day of every day without a position.
    """
    held = returns != 0.0
    return np.where(held, returns - returns.sum() / max(1, held.sum()), 0.0)


def path_statistics(returns: np.ndarray) -> np.ndarray:
    """The three statistics after each day of every path, (3, paths, days), in the units of :class:`EdgeBands`.

    Parameters
    ----------
    returns : ndarray, (paths, days)
        Simple daily returns. A day without a loss ends a run of losing days; so does NaN, a day that is not known,
        which changes nothing else.
    """
    known = np.nan_to_num(returns)
    # Products and quotients only, whose last bit is the same on every machine.
    wealth = np.maximum(np.multiply.accumulate(1.0 + known, axis=1), 0.0)
    highest = np.maximum(np.maximum.accumulate(wealth, axis=1), 1.0)
    run, longest = np.zeros(len(known)), np.empty_like(known)
    most = np.zeros(len(known))
    for day in range(known.shape[1]):
        run = (run + 1.0) * (known[:, day] < 0.0)
        longest[:, day] = most = np.maximum(most, run)
    return np.stack([wealth - 1.0, np.maximum.accumulate(1.0 - wealth / highest, axis=1), longest])


def _least_rank(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Over all statistics and days, the least number of ordered paths at or below each path of `values`, (paths,)."""
    least = np.full(values.shape[1], values.shape[1] + 1)
    for statistic in range(values.shape[0]):
        columns = np.ascontiguousarray(ordered[statistic].T)
        for day, column in enumerate(columns):
            np.minimum(least, np.searchsorted(column, values[statistic, :, day], side="right"), out=least)
    return least


def _outward(bands: np.ndarray) -> np.ndarray:
    """Bands cut to what a spec keeps, never tighter than they were, so that it causes no alarm."""
    scale = 10.0**_BAND_DECIMALS
    return np.floor(bands * scale) / scale


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(values).encode()).hexdigest()
