"""Control charts of what an account pays beyond the model: a one-sided CUSUM and an EWMA of each series, by the day.

A series is in basis points of equity a day, positive where the account pays more than the model. Of `n` days:

- The CUSUM is ``S_t = max(0, S_{t-1} + x_t - k)`` with ``k`` = 1 bp a day (Page 1954): what an account pays beyond 1 bp
  adds up until it is found or paid back.
- The EWMA is ``E_t = (1 - l) E_{t-1} + l x_t`` with ``l`` = 0.1 (Roberts 1959): sooner for what is large.

Both are measured by the series' own standard deviation so far, pooled within fortnights, so that a lasting change does
not hide itself by raising it. For the CUSUM that is the run length of Siegmund (1985) that a crossing there would have,
``(exp(2 q b) - 2 q b - 1) / (2 q^2)`` with ``q = k / sd`` and ``b = S / sd + 1.166``; for the EWMA a normal score. The
thresholds are quantiles of the largest value of a year of days without any excess, simulated with the sd estimated in
the same way. The false alarms of a year are shared out among the series, so that together they are at most 5 %
whatever their dependence (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import pandas as pd
from scipy import signal, stats

from engine.clock import DAYS_PER_YEAR
from engine.errors import DataError, join_first

#: Excess that is tolerated, basis points of equity a day.
REFERENCE_BPS: Final = 1.0
#: Excess whose days to an alarm are told, basis points of equity a day.
TARGET_BPS: Final = 2.0
#: Days before which nothing is decided.
LEAST_DAYS: Final = 7
#: False alarms of a year at most, all series together.
FALSE_ALARMS: Final = 0.05
#: Part of them that each series may have: the account's own difference, the noisiest, needs most.
SHARES: Final[Mapping[str, float]] = {
    "account_bps": 0.8,
    "slippage_bps": 0.17,
    "funding_bps": 0.02,
    "fee_bps": 0.01,
}
#: Part of those of a series that its CUSUM may have; its EWMA has the rest.
_CUSUM_SHARE: Final = 0.85
_WEIGHT: Final = 0.1
_FORTNIGHT: Final = 14
_PATHS: Final = 8_000
#: A year is simulated for days with a standard deviation of this, to the power of 0 to 6, basis points.
_STEP: Final = 2.0
_ANCHORS: Final = 6
_SEED: Final = 20240229
#: Mean excess of a random walk over a boundary, in standard deviations (Siegmund 1985).
_OVERSHOOT: Final = 1.166


@dataclass(frozen=True)
class Chart:
    """The charts of one series, a value a day; basis points of equity.

    Attributes
    ----------
    series : str
        Its column.
    days : DatetimeIndex, (n,)
    excess_bps : ndarray, (n,)
        As given.
    sd_bps : float
        Standard deviation of a day; at least the reference value.
    cusum_bps, cusum_limit_bps, ewma_bps, ewma_limit_bps : ndarray, (n,)
        NaN limits in the first days, in which nothing is decided.
    crossed : int
        Place of the first day beyond a limit; -1 without one.
    """

    series: str
    days: pd.DatetimeIndex
    excess_bps: np.ndarray
    sd_bps: float
    cusum_bps: np.ndarray
    cusum_limit_bps: np.ndarray
    ewma_bps: np.ndarray
    ewma_limit_bps: np.ndarray
    crossed: int

    @property
    def reach(self) -> float:
        """Largest part of a limit that the newest day reaches; NaN before there is one."""
        if math.isnan(self.cusum_limit_bps[-1]):
            return math.nan
        return float(max(self.cusum_bps[-1] / self.cusum_limit_bps[-1], self.ewma_bps[-1] / self.ewma_limit_bps[-1]))

    @property
    def start(self) -> int:
        """Place of the day from which an excess up to the crossing, or the newest day, fits best (least squares)."""
        last = len(self.days) - 1 if self.crossed < 0 else self.crossed
        sums = np.cumsum(self.excess_bps[last::-1])  # of the newest 1, 2, ... days
        return last - int(np.argmax(sums / np.sqrt(np.arange(1, last + 2))))

    @property
    def days_to_decide(self) -> int:
        """Days in which an excess of :data:`TARGET_BPS` a day, from now on, would be found, about."""
        if self.crossed >= 0:
            return 0
        return self.days_to_reach(float(_limits(self.sd_bps, SHARES[self.series])[0][0]), TARGET_BPS)

    def days_to_reach(self, limit: float, bps: float) -> int:
        """Days in which an excess of `bps` a day, from now on, takes the CUSUM to `limit`, about; at least 1."""
        left = (limit - self.cusum_bps[-1]) / (bps - REFERENCE_BPS)
        return max(1, LEAST_DAYS - len(self.days), math.ceil(left))


@dataclass(frozen=True)
class Alarm:
    """What the charts of an account say together.

    Attributes
    ----------
    state : {"pending", "holding", "crossed"}
        Crossed: a chart has found an excess; it stays crossed until its days begin anew.
    series : str
        Column of the chart that crossed first, or is nearest to its limit; ``""`` without a day.
    statistic, threshold : float
        Its CUSUM and the limit of it, basis points of equity; of the day of the crossing, else of the newest; NaN
        while nothing is decided.
    crossed : Timestamp or None
        Day of the crossing.
    since : Timestamp or None
        Day from which an excess is most likely, if there is one.
    estimate_bps_day : float
        Mean excess of the days since then, basis points of equity a day; NaN without a day.
    days_to_decide : int
        Days in which an excess of :data:`TARGET_BPS` a day, beginning now, would be found, about; 0 once crossed.
    charts : tuple of Chart
        Of every series with a day.
    """

    state: str
    series: str
    statistic: float
    threshold: float
    crossed: pd.Timestamp | None
    since: pd.Timestamp | None
    estimate_bps_day: float
    days_to_decide: int
    charts: tuple[Chart, ...] = ()


def cost_alarm(days: pd.DataFrame) -> Alarm:
    """Chart what an account paid beyond the model, series by series.

    Parameters
    ----------
    days : DataFrame
        A row a day, ascending instants, and columns of :data:`SHARES`, or some of them: excess costs in basis points
        of equity, positive = paid more than modelled; NaN where a day says nothing of a series, which leaves it out.

    Returns
    -------
    Alarm

    Raises
    ------
    DataError
        For a column that is no series, days that are not ascending, or a value that is infinite.
    """
    if unknown := [str(name) for name in days.columns if name not in SHARES]:
        raise DataError(f"Not a series of excess costs: {join_first(unknown)}. They are {', '.join(SHARES)}.")
    if not days.index.is_monotonic_increasing or days.index.has_duplicates:
        raise DataError("The days of excess costs must be ascending, each once.")
    charts = tuple(chart for name in SHARES if name in days and (chart := _chart(days[name].dropna())) is not None)
    if not charts:
        return Alarm("pending", "", math.nan, math.nan, None, None, math.nan, LEAST_DAYS)
    crossed = [chart for chart in charts if chart.crossed >= 0]
    decided = [chart for chart in charts if not math.isnan(chart.reach)]
    if crossed:
        state, chart = "crossed", min(crossed, key=lambda chart: chart.days[chart.crossed])
    elif decided:
        state, chart = "holding", max(decided, key=lambda chart: chart.reach)
    else:
        state, chart = "pending", max(charts, key=lambda chart: len(chart.days))
    at = chart.crossed if crossed else len(chart.days) - 1
    return Alarm(
        state,
        chart.series,
        float(chart.cusum_bps[at]),
        float(chart.cusum_limit_bps[at]),
        chart.days[at] if crossed else None,
        chart.days[chart.start],
        float(chart.excess_bps[chart.start : at + 1].mean()),
        0 if crossed else max(chart.days_to_decide for chart in charts),
        charts,
    )


def _chart(series: pd.Series) -> Chart | None:
    """The charts of one series; None without a day."""
    values = series.to_numpy(np.float64)
    if not len(values):
        return None
    if np.isinf(values).any():
        raise DataError(f"The excess costs {series.name} have a value that is not finite.")
    name = str(series.name)
    cusum, ewma, sd, freedom = (part[0] for part in _statistics(values[None]))
    number = np.arange(1, len(values) + 1)
    decided = number >= LEAST_DAYS
    cusum_limit, ewma_limit = np.full(len(values), np.nan), np.full(len(values), np.nan)
    if decided.any():
        of_decided = sd[decided], SHARES[name], number[decided], freedom[decided]
        cusum_limit[decided], ewma_limit[decided] = _limits(*of_decided)
    beyond = np.flatnonzero((cusum > cusum_limit) | (ewma > ewma_limit))  # of NaN neither
    first = int(beyond[0]) if len(beyond) else -1
    days = pd.DatetimeIndex(series.index)
    return Chart(name, days, values, float(sd[-1]), cusum, cusum_limit, ewma, ewma_limit, first)


def _statistics(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """CUSUM, EWMA, standard deviation so far and its degrees of freedom of rows of days, each (R, n)."""
    total = np.cumsum(values - REFERENCE_BPS, axis=1)
    cusum = total - np.minimum(np.minimum.accumulate(total, axis=1), 0.0)
    ewma = signal.lfilter([_WEIGHT], [1.0, _WEIGHT - 1.0], values, axis=1)
    count = values.shape[1]
    padded = np.zeros((len(values), -(-count // _FORTNIGHT) * _FORTNIGHT))
    padded[:, :count] = values
    blocks = padded.reshape(len(values), -1, _FORTNIGHT)
    inside = np.arange(1, _FORTNIGHT + 1)
    squares = np.cumsum(blocks**2, axis=2) - np.cumsum(blocks, axis=2) ** 2 / inside
    whole = np.cumsum(squares[:, :, -1], axis=1) - squares[:, :, -1]
    squares = (squares + whole[:, :, None]).reshape(len(values), -1)[:, :count]
    place = np.arange(count)
    freedom = place - place // _FORTNIGHT
    sd = np.sqrt(np.maximum(squares, 0.0) / np.maximum(freedom, 1))
    # With less noise than the reference value an excess of it is plain, and rounding is no noise to measure by.
    return cusum, ewma, np.maximum(sd, REFERENCE_BPS), np.broadcast_to(freedom, values.shape)


def _run_length(cusum: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Logarithm of the run length without any excess to a limit at `cusum`."""
    q = REFERENCE_BPS / sd
    twice = 2.0 * q * (cusum / sd + _OVERSHOOT)
    # exp(x) - x - 1 = exp(x) (1 - (x + 1) exp(-x))
    length: np.ndarray = twice + np.log1p(-(twice + 1.0) * np.exp(-twice)) - np.log(2.0 * q * q)
    return length


def _spread(days: np.ndarray) -> np.ndarray:
    """Standard deviation of an EWMA of so many days, in those of a day."""
    spread: np.ndarray = np.sqrt(_WEIGHT / (2.0 - _WEIGHT) * (1.0 - (1.0 - _WEIGHT) ** (2.0 * days)))
    return spread


def _limits(
    sd: np.ndarray | float, share: float, days: np.ndarray | int = DAYS_PER_YEAR, freedom: np.ndarray | int = 338
) -> tuple[np.ndarray, np.ndarray]:
    """Limits of CUSUM and EWMA, basis points, of a series with a share of the false alarms; `sd` a day."""
    sds = np.atleast_1d(np.asarray(sd, np.float64))
    place = np.clip(np.log(sds) / math.log(_STEP), 0.0, _ANCHORS)
    known = np.arange(math.floor(place.min()), math.ceil(place.max()) + 1)
    allowed = FALSE_ALARMS * share
    simulated = [_largest(int(anchor)) for anchor in known]
    length, score = (
        np.interp(place, known, [np.quantile(found[part], 1.0 - allowed * of_chart) for found in simulated])
        for part, of_chart in ((0, _CUSUM_SHARE), (1, 1.0 - _CUSUM_SHARE))
    )
    low, high = np.zeros(len(sds)), sds * 400.0
    for _ in range(60):
        middle = (low + high) / 2.0
        short = _run_length(middle, sds) < length
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    freedoms = np.maximum(np.asarray(freedom), 1)
    ewma = sds * _spread(np.asarray(days)) * stats.t.isf(stats.norm.sf(score), freedoms)
    return high, ewma


@cache
def _largest(anchor: int) -> tuple[np.ndarray, np.ndarray]:
    """Largest score of CUSUM and of EWMA in years without any excess, (paths,) each.

    The standard deviation of a day is ``2 ** anchor`` basis points, and is estimated day by day as that of an account.
    """
    rng = np.random.default_rng([_SEED, anchor])
    lengths, scores = [], []
    days = np.arange(1, DAYS_PER_YEAR + 1)
    decided = slice(LEAST_DAYS - 1, None)
    for _ in range(_PATHS // 1000):  # a thousand fit into the caches of a processor
        noise = rng.standard_normal((1000, DAYS_PER_YEAR)) * _STEP**anchor
        cusum, ewma, sd, freedom = _statistics(noise)
        lengths.append(_run_length(cusum, sd)[:, decided].max(axis=1))
        scores.append(_largest_score((ewma / (sd * _spread(days)))[:, decided], freedom[:, decided]))
    return np.concatenate(lengths), np.concatenate(scores)


def _largest_score(scaled: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Largest normal score of t values of rising freedom, (R, n); the tail is looked up, not computed cell by cell."""
    best = np.full(len(scaled), -np.inf)
    for column, degrees in enumerate(freedom[0]):
        values = scaled[:, column]
        larger = values > np.maximum(best, 0.0)  # the score of a t value above 0 is below it
        if larger.any():
            found = stats.norm.isf(stats.t.sf(values[larger], degrees))
            best[larger] = np.maximum(best[larger], found)
    return best
