"""Analyse an oracle's signal before any trading rule: rank correlation with later returns, quantiles, turnover, costs.

The signal is the score of a :class:`engine.ScoreOracle`, else the weight. The figures of a day use the coins that are
tradable at its decision and have a signal; the forward return runs from ``mid`` at the decision row to ``mid`` some
days of 24 h later, NaN where one of the two is missing. A backtest with a delay trades some hours later.

Sources
-------
Rank IC: Spearman's correlation, Pearson's of the average ranks; after Grinold and Kahn, *Active Portfolio Management*.
Errors of means: orthonormal series with Student's t, see :func:`mean_of`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from engine.clock import DAYS_PER_YEAR, HOUR
from engine.config import RunConfig
from engine.errors import OracleError
from engine.oracles.base import Oracle, ScoreOracle, weight_matrix
from engine.panel import Panel
from engine.simulation.backtest import decisions_of
from engine.simulation.costs import coin_rates
from engine.simulation.overlays import traded_weights
from engine.weights import validate_weights

HORIZONS: tuple[int, ...] = tuple(range(1, 31))
#: Decisions between the two scores of an autocorrelation.
LAGS: tuple[int, ...] = (1, 2, 3, 5, 7, 10, 14, 20, 30)
#: Days of the momentum that a signal is compared with.
MOMENTUM_DAYS = (7, 30)
#: Least number of coins for a rank correlation.
LEAST_COINS = 5
#: Decisions of the rolling beta, and the least number of them that must be known.
BETA_WINDOW, BETA_LEAST = 60, 20
#: Fewer independent horizons have no error, and so many degrees of freedom has one.
LEAST_INDEPENDENT, FREEDOM = 10, 0.4
MARKET = "BTC"
_HOURS_PER_DAY = 24


@dataclass(frozen=True)
class Mean:
    """A mean over decisions with its error, see :func:`mean_of`.

    Attributes
    ----------
    mean : float
    error : float
        1.96 of them either way are the 95 % interval of the mean; NaN with fewer than :data:`LEAST_INDEPENDENT`
        independent horizons.
    t : float
        Normal quantile with the p-value that the mean over its error has by Student's t: beyond 1.96 by chance in one
        worthless signal of twenty, beyond 3 in one of 370, whatever `freedom` is. NaN as `error`.
    independent : float
        Independent horizons: `count` over the decisions that share a horizon.
    freedom : int
        Degrees of freedom of the error.
    count : int
        Number of values; NaN are left out, and the others are taken as consecutive.
    positive : float
        Share of the values above 0.
    """

    mean: float
    error: float
    t: float
    independent: float
    freedom: int
    count: int
    positive: float


@dataclass(frozen=True, eq=False)
class Signals:
    """The analysis of a signal.

    Attributes
    ----------
    name, kind : str
        Class of the oracle; ``score`` or ``weight``.
    horizon_days, quantiles : int
        Horizon and number of quantiles of all figures but the decay.
    ic, spread : Mean
        Rank IC; mean return of the top quantile less that of the bottom one, over the whole horizon.
    decay : DataFrame, a row a horizon
        ``horizon_days`` and the attributes of :class:`Mean` of the rank IC.
    buckets : DataFrame, a row a quantile, the lowest first
        ``quantile`` from 1, ``mean_return`` over the horizon, ``excess_return`` over the mean of all coins with a
        signal, ``coins`` a decision, ``days``.
    autocorrelation : DataFrame, a row a lag
        ``lag`` in decisions, ``correlation``: mean rank correlation of a signal with itself then.
    daily : DataFrame, (D, ...)
        ``ic``, ``spread``, ``scored``, ``tradable`` (coins), ``coverage``, ``turnover``, ``cost``, ``book_return``,
        ``beta`` and ``momentum_7d``, ``momentum_30d``; see :func:`analyse`.
    figures : dict of str to float
        ``coverage``, ``turnover`` (a decision), ``cost_bps_daily``, ``cost_yearly``, ``book_bps_daily`` (before
        costs), ``decisions_daily``, ``beta``, ``market_correlation``, ``momentum_7d``, ``momentum_30d``, ``gross``,
        ``net``, ``breakeven_bps`` (cost of a dollar traded that eats the book's return).
    """

    name: str
    kind: str
    horizon_days: int
    quantiles: int
    ic: Mean
    spread: Mean
    decay: pd.DataFrame
    buckets: pd.DataFrame
    autocorrelation: pd.DataFrame
    daily: pd.DataFrame
    figures: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        daily = self.daily.rename_axis("time").reset_index()
        daily["time"] = [instant.isoformat() for instant in self.daily.index]
        return {
            "name": self.name,
            "signal": self.kind,
            "horizon_days": self.horizon_days,
            "quantiles": self.quantiles,
            "ic": asdict(self.ic),
            "spread": asdict(self.spread),
            "figures": self.figures,
            **{name: getattr(self, name).to_dict("records") for name in ("decay", "buckets", "autocorrelation")},
            "daily": daily.to_dict("records"),
        }


def analyse(
    oracle: Oracle,
    panel: Panel,
    config: RunConfig | None = None,
    horizon_days: int = 1,
    quantiles: int = 5,
    step: Callable[[int, int, str], object] | None = None,
) -> Signals:
    """Analyse an oracle's signal at the decisions of a config.

    Book, turnover and costs are those of the weights as traded (overlays applied), NaN = the weight before, no
    drift between decisions. ``turnover`` of a decision is ``sum(abs(change of weight))``, NaN at the first;
    ``cost`` is that times the base fee of the row plus half the spread (quotes where the row has both, else
    ``costs.half_spread_bps``), a fraction of equity, discounts and stress as configured; ``book_return`` is
    ``sum(weight * return until the next decision)`` (a coin without a price there adds 0; after the last decision, as
    far on as the two nearest decisions are apart), before costs and funding; ``beta`` is that of ``book_return`` to
    :data:`MARKET` over :data:`BETA_WINDOW` decisions.

    Raises
    ------
    OracleError
        When the oracle fails, or `horizon_days` or `quantiles` is not accepted.
    """
    if horizon_days < 1 or quantiles < 2:
        raise OracleError(
            f"horizon_days = {horizon_days} and quantiles = {quantiles} are not accepted: at least 1 and 2."
        )
    config = config or RunConfig()
    report = step or (lambda done, total, what: None)
    report(0, 3, "signal")
    decisions = decisions_of(panel, config)
    signal, weights, kind = signal_of(oracle, panel, decisions)
    report(1, 3, "forward returns")
    hours, _ = pace(decisions)
    horizons = sorted({*HORIZONS, horizon_days})
    ics = {days: rank_correlation(signal, forward_returns(panel, decisions, days)) for days in horizons}
    decay = [{"horizon_days": days, **asdict(mean_of(ics[days], overlap(days, hours)))} for days in horizons]
    report(2, 3, "figures")
    forward = np.where(np.isnan(signal), np.nan, forward_returns(panel, decisions, horizon_days))
    returns = quantile_returns(signal, forward, quantiles)
    spread = returns[:, -1] - returns[:, 0]
    daily, figures = _book(signal, kind, weights, panel, decisions, config)
    daily.insert(0, "ic", ics[horizon_days])
    daily.insert(1, "spread", spread)
    report(3, 3, "done")
    return Signals(
        type(oracle).__name__,
        kind,
        horizon_days,
        quantiles,
        mean_of(ics[horizon_days], overlap(horizon_days, hours)),
        mean_of(spread, overlap(horizon_days, hours)),
        pd.DataFrame(decay),
        _buckets(signal, forward, returns, quantiles),
        pd.DataFrame([{"lag": lag, "correlation": autocorrelation(signal, lag)} for lag in LAGS]),
        daily,
        figures,
    )


def signal_of(oracle: Oracle, panel: Panel, decisions: pd.DatetimeIndex) -> tuple[np.ndarray, np.ndarray, str]:
    """Signal of the coins tradable at each decision (D, N), NaN elsewhere; weights (D, N); ``score`` or ``weight``."""
    _, weights = validate_weights(weight_matrix(oracle, panel, decisions), panel)
    signal, kind = weights, "weight"
    if isinstance(oracle, ScoreOracle):
        signal, kind = np.asarray(oracle.scores(panel.point_in_time(), decisions), dtype=np.float64), "score"
        if signal.shape != weights.shape:
            raise OracleError(f"{type(oracle).__name__}.scores has shape {signal.shape}; {weights.shape} is needed.")
        if np.isinf(signal).any():
            raise OracleError(f"{type(oracle).__name__}.scores is infinite somewhere; a score is finite or NaN.")
    return np.where(panel.tradable[panel.rows(decisions)], signal, np.nan), weights, kind


# Returns --------------------------------------------------------------------------------------------------------------


def forward_returns(panel: Panel, decisions: pd.DatetimeIndex, days: int) -> np.ndarray:
    """``mid[t + 24 days] / mid[t] - 1`` of the coins tradable at ``t``, (D, N); NaN without both prices."""
    rows = panel.rows(decisions)
    returns = _change(panel, rows, rows + _HOURS_PER_DAY * days)
    return np.where(panel.tradable[rows], returns, np.nan)


def past_returns(panel: Panel, decisions: pd.DatetimeIndex, days: int) -> np.ndarray:
    """``mid[t] / mid[t - 24 days] - 1``, (D, N); NaN without both prices."""
    rows = panel.rows(decisions)
    return _change(panel, rows - _HOURS_PER_DAY * days, rows)


def _change(panel: Panel, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    mid = panel.values("mid")
    inside = (start >= 0) & (end < len(mid))
    returns = np.full((len(start), mid.shape[1]), np.nan)
    returns[inside] = mid[end[inside]] / mid[start[inside]] - 1.0
    return returns


# Statistics -----------------------------------------------------------------------------------------------------------


def ranks(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Average ranks from 1 among the `valid` values of each row, (D, N); NaN elsewhere."""
    from scipy.stats import rankdata

    # Values that are left out come last, where they change no other rank.
    ranked = rankdata(np.where(valid, values, np.inf), axis=1)
    return np.where(valid, ranked, np.nan)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each row over the coins that have both, (D,).

    NaN with fewer than :data:`LEAST_COINS` of them, or when one of the two does not vary.
    """
    valid = ~np.isnan(first) & ~np.isnan(second)
    count = valid.sum(axis=1)
    centre = (count + 1.0) / 2.0
    one, two = (np.where(valid, ranks(values, valid) - centre[:, None], 0.0) for values in (first, second))
    size = (one**2).sum(axis=1) * (two**2).sum(axis=1)
    defined = (count >= LEAST_COINS) & (size > 0.0)
    return np.where(defined, (one * two).sum(axis=1) / np.sqrt(np.where(defined, size, 1.0)), np.nan)


def pace(decisions: pd.DatetimeIndex) -> tuple[float, float]:
    """Fewest hours between two decisions, and decisions a day over the whole span; of one decision 24 and 1."""
    if len(decisions) < 2:
        return float(_HOURS_PER_DAY), 1.0
    apart = np.diff(decisions.as_unit("ns").asi8) / HOUR.value
    return float(apart.min()), float(_HOURS_PER_DAY / apart.mean())


def overlap(days: int, hours: float) -> int:
    """Later decisions, `hours` apart, whose horizon of `days` shares time with that of a decision."""
    return max(0, math.ceil(_HOURS_PER_DAY * days / hours) - 1)


def mean_of(values: np.ndarray, shared: int = 0) -> Mean:
    """Mean of a series whose values share time with the next `shared` ones, with its error and t.

    The long-run variance is the mean square of the first K cosine transforms, ``sqrt(2 / n) sum_i x_i cos(pi j
    (i - 1/2) / n)``, and the mean over its error has Student's t with K degrees of freedom (Mueller, "A theory of
    robust long-run variance estimation", Journal of Econometrics 141, 2007; Sun, "A heteroskedasticity and
    autocorrelation robust F test using an orthonormal series variance estimator", Econometrics Journal 16, 2013). K is
    ``0.4 n ** (2 / 3)`` (Lazarus, Lewis, Stock and Watson, "HAR inference", Journal of Business and Economic Statistics
    36, 2018), and at most :data:`FREEDOM` times the independent horizons: cosines faster than a horizon miss what
    overlapping ones have in common. Newey and West's errors, which the normal quantiles make too small, would call 12
    to 34 of 100 worthless signals more than chance.
    """
    known = values[~np.isnan(values)]
    count = len(known)
    independent = count / (shared + 1.0)
    freedom = max(2, int(min(0.4 * count ** (2.0 / 3.0), FREEDOM * independent)))
    if count == 0:
        return Mean(math.nan, math.nan, math.nan, independent, 0, 0, math.nan)
    mean, error, t = float(known.mean()), math.nan, math.nan
    if independent >= LEAST_INDEPENDENT:
        error, t = _error_and_t(known, freedom)
    return Mean(mean, error, t, independent, freedom, count, float((known > 0.0).mean()))


def _error_and_t(values: np.ndarray, freedom: int) -> tuple[float, float]:
    """Error and t of the mean, see :class:`Mean`; NaN where the values do not vary."""
    from scipy.special import ndtri, stdtr, stdtrit

    count, deviations = len(values), values - values.mean()
    phase = np.pi * np.outer(np.arange(1, freedom + 1), np.arange(count) + 0.5) / count
    variance = float(np.mean((np.cos(phase) @ deviations) ** 2)) * 2.0 / count
    if not variance > 1e-24 * float(values @ values) / count:
        return math.nan, math.nan
    error = math.sqrt(variance / count)
    tail = float(stdtr(freedom, -abs(values.mean()) / error))
    return error * float(stdtrit(freedom, 0.975) / ndtri(0.975)), math.copysign(float(-ndtri(tail)), values.mean())


def buckets_of(signal: np.ndarray, valid: np.ndarray, quantiles: int) -> np.ndarray:
    """Quantile of each coin by the rank of its signal in its row, (D, N), 0 = lowest; -1 where not `valid`.

    Coins with the same signal are in the same quantile, so one may be empty; a row with fewer coins than quantiles
    has none.
    """
    count = valid.sum(axis=1, keepdims=True)
    bucket = np.floor((ranks(signal, valid) - 0.5) * quantiles / np.maximum(count, 1))
    return np.where(valid & (count >= quantiles), np.clip(np.nan_to_num(bucket), 0, quantiles - 1), -1).astype(np.int64)


def quantile_returns(signal: np.ndarray, forward: np.ndarray, quantiles: int) -> np.ndarray:
    """Mean forward return of the coins of each quantile, (D, quantiles); NaN where it is empty."""
    bucket = buckets_of(signal, ~np.isnan(signal) & ~np.isnan(forward), quantiles)
    return np.column_stack([_mean_where(forward, bucket == number) for number in range(quantiles)])


def autocorrelation(signal: np.ndarray, lag: int) -> float:
    """Mean rank correlation of the signals of two decisions `lag` apart; NaN when there are none."""
    correlations = rank_correlation(signal[lag:], signal[:-lag]) if lag < len(signal) else np.zeros(0)
    return _mean(correlations)


def rolling_beta(book: np.ndarray, market: np.ndarray, window: int, least: int) -> np.ndarray:
    """``cov(book, market) / var(market)`` over the last `window` values, (D,) or (D, P) as the book.

    The market may be one for all, (D, 1). NaN with fewer than `least` of both, and where the market did not move.
    """
    known = ~(np.isnan(book) | np.isnan(market))
    held, moved = book, market
    if known.all():  # then of a market that is one for all, all is one
        count = np.minimum(np.arange(1.0, len(book) + 1.0), window).reshape(-1, *(1,) * (book.ndim - 1))
    else:
        held, moved = np.where(known, book, 0.0), np.where(known, market, 0.0)
        count = _window_sums(known.astype(np.float64), window)
    count = np.where(count >= max(least, 1), count, np.nan)

    def mean(values: np.ndarray) -> np.ndarray:
        return _window_sums(values, window) / count

    square, of_market = mean(moved**2), mean(moved)
    variance = square - of_market**2
    covariance = mean(held * moved) - mean(held) * of_market
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(variance > 1e-12 * square, covariance / variance, np.nan)


def _window_sums(values: np.ndarray, window: int) -> np.ndarray:
    """Sums over the last `window` values, (D, ...), the first of fewer.

    Each is the end of one block of `window` values and the beginning of the next: nothing is subtracted, so that no
    rounding is left of values that have gone.
    """
    days = len(values)
    blocks = np.zeros((-(-days // window), window, *values.shape[1:]))
    blocks.reshape(-1, *values.shape[1:])[:days] = values
    begun = np.cumsum(blocks, axis=1).reshape(-1, *values.shape[1:])[:days]
    left = np.cumsum(blocks[:, ::-1], axis=1)[:, ::-1]
    left[:, 0] = 0.0  # a window that is a block has it in `begun`
    begun[window:] += left.reshape(-1, *values.shape[1:])[1 : max(days - window, 0) + 1]
    return begun


def _mean_where(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    count = chosen.sum(axis=1)
    total = np.where(chosen, values, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


# The implied book -----------------------------------------------------------------------------------------------------


def _buckets(signal: np.ndarray, forward: np.ndarray, returns: np.ndarray, quantiles: int) -> pd.DataFrame:
    valid = ~np.isnan(signal) & ~np.isnan(forward)
    bucket = buckets_of(signal, valid, quantiles)
    excess = returns - _mean_where(forward, bucket >= 0)[:, None]
    return pd.DataFrame(
        [
            {
                "quantile": number + 1,
                "mean_return": _mean(returns[:, number]),
                "excess_return": _mean(excess[:, number]),
                "coins": float((bucket == number).sum() / max(1, int((bucket >= 0).any(axis=1).sum()))),
                "days": int((~np.isnan(returns[:, number])).sum()),
            }
            for number in range(quantiles)
        ]
    )


def _book(
    signal: np.ndarray, kind: str, weights: np.ndarray, panel: Panel, decisions: pd.DatetimeIndex, config: RunConfig
) -> tuple[pd.DataFrame, dict[str, float]]:
    """The columns of :attr:`Signals.daily` that do not depend on the horizon, and the figures."""
    decisions_daily = pace(decisions)[1]
    book = pd.DataFrame(traded_weights(weights, decisions, panel, config)).ffill().fillna(0.0).to_numpy()
    change = np.full_like(book, np.nan)
    change[1:] = np.abs(book[1:] - book[:-1])
    coin_returns = returns_between(panel, decisions)
    # A weight of 0 ranks a coin, and is no weight for it.
    covered = ~np.isnan(signal) & ((signal != 0.0) | (kind != "weight"))
    scored, tradable = covered.sum(axis=1), panel.tradable[panel.rows(decisions)].sum(axis=1)
    returns = np.where(np.isnan(coin_returns).all(axis=1), np.nan, (book * np.nan_to_num(coin_returns)).sum(axis=1))
    daily = pd.DataFrame(
        {
            "scored": scored,
            "tradable": tradable,
            "coverage": np.where(tradable > 0, scored / np.maximum(tradable, 1), np.nan),
            "turnover": change.sum(axis=1),
            "cost": (change * cost_rates(panel, decisions, config)).sum(axis=1),
            "book_return": returns,
        },
        index=decisions,
    )
    market = coin_returns[:, panel.coins.index(MARKET)] if MARKET in panel.coins else np.full(len(decisions), np.nan)
    daily["beta"] = rolling_beta(returns, market, BETA_WINDOW, BETA_LEAST)
    for days in MOMENTUM_DAYS:
        daily[f"momentum_{days}d"] = rank_correlation(signal, past_returns(panel, decisions, days))
    turnover, cost = _mean(daily["turnover"].to_numpy()), _mean(daily["cost"].to_numpy())
    both = ~np.isnan(returns) & ~np.isnan(market)
    held = both & (np.abs(book).sum(axis=1) > 0.0)
    varies = held.sum() > 2 and np.ptp(market[held]) > 0.0 and np.ptp(returns[held]) > 0.0
    covariance = np.cov(returns[held], market[held]) if varies else np.full((2, 2), np.nan)
    mean_return = _mean(returns)
    figures = {
        "coverage": _mean(daily["coverage"].to_numpy()),
        "turnover": turnover,
        "decisions_daily": decisions_daily,
        "cost_bps_daily": 1e4 * cost * decisions_daily,
        "cost_yearly": cost * decisions_daily * DAYS_PER_YEAR,
        "book_bps_daily": 1e4 * mean_return * decisions_daily,
        "breakeven_bps": 1e4 * mean_return / turnover if turnover > 0.0 else math.nan,
        "gross": float(np.abs(book).sum(axis=1).mean()),
        "net": float(book.sum(axis=1).mean()),
        "beta": float(covariance[0, 1] / covariance[1, 1]),
        "market_correlation": float(covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1])),
        **{f"momentum_{days}d": _mean(daily[f"momentum_{days}d"].to_numpy()) for days in MOMENTUM_DAYS},
    }
    return daily, figures


def returns_between(panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
    """Returns until the next decision of every coin, tradable or not, (D, N): what a held book earns."""
    rows = panel.rows(decisions)
    return _change(panel, rows, np.append(rows[1:], rows[-1] + int(pace(decisions)[0])))


def cost_rates(panel: Panel, decisions: pd.DatetimeIndex, config: RunConfig) -> np.ndarray:
    """Fee of the base tier plus half the spread at each decision row, (D, N), fractions of what is traded."""
    rows = panel.rows(decisions)
    half = np.full((len(rows), len(panel.coins)), config.costs.half_spread_bps / 1e4)
    if "bid" in panel.fields and "ask" in panel.fields:
        bid, ask = panel.values("bid")[rows], panel.values("ask")[rows]
        quoted = ~np.isnan(bid) & ~np.isnan(ask) & ~np.isnan(panel.values("mid")[rows])
        half = np.where(quoted, (ask - bid) / (2.0 * panel.values("mid")[rows]), half)
    half = np.where(half > 0.0, half * config.costs.stress, half)  # the rates have it
    return half + coin_rates(panel.index, rows, config.costs, panel.table)


def strongest(decay: pd.DataFrame) -> tuple[float, float, float]:
    """Horizon in days with the largest absolute t statistic of the rank IC, its mean and its t; NaN without one."""
    known = decay[decay["t"].notna()]
    if known.empty:
        return (math.nan, math.nan, math.nan)
    best = known.iloc[int(np.argmax(known["t"].abs().to_numpy()))]
    return (float(best["horizon_days"]), float(best["mean"]), float(best["t"]))
