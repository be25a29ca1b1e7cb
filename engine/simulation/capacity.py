"""Capacity: the same weights on accounts of growing size, to see where costs eat the strategy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from engine.clock import DAYS_PER_YEAR
from engine.config import RunConfig
from engine.errors import ConfigError, InitialMarginError
from engine.panel import Panel
from engine.simulation.backtest import backtest
from engine.simulation.result import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Account sizes in USD, three to a decade.
SIZES: tuple[float, ...] = tuple(float(f"{size:.3g}") for size in np.geomspace(1e4, 1e8, 13))
#: Costs that are shown separately, as in :data:`engine.simulation.result.FLOWS`.
COSTS = ("fee", "spread", "impact", "funding")
#: Share of an hour's volume above which a fill at the quote plus the venue's impact is hard to believe.
LARGE_SHARE = 0.1
_COPIED = ("sharpe", "cagr", "total_return", "max_drawdown", "turnover_daily", "gross_mean", "trades")
_COUNTED = ("skipped_min_notional", "liquidated_at")


@dataclass(frozen=True)
class Limits:
    """Where the strategy outgrows its market; USD, NaN = not on the sizes that were run.

    Attributes
    ----------
    best_sharpe, best_usd : float
        Highest net Sharpe ratio and the account that had it.
    halves_usd : float
        Account above it at which the ratio is half of that; NaN too when the highest is not positive.
    below_zero_usd : float
        Account above it at which the ratio is 0; the smallest when it is positive nowhere.
    volume_usd : float
        Account whose median order takes :data:`LARGE_SHARE` of the hour's volume of its coin.
    """

    best_sharpe: float
    best_usd: float
    halves_usd: float
    below_zero_usd: float
    volume_usd: float


def capacity(
    panel: Panel,
    weights: pd.DataFrame,
    config: RunConfig,
    sizes: Sequence[float] = SIZES,
    done: Callable[[int], object] | None = None,
) -> pd.DataFrame:
    """Run the same weights with ``account.initial_equity_usd`` at each size.

    Parameters
    ----------
    panel : Panel
        The market; without ``volume_usd`` the shares of the volume are NaN.
    weights : DataFrame, (D, coins)
        As for :func:`engine.backtest`.
    config : RunConfig
        All but the size of the account; costs grow with it only with ``costs.impact = "venue"``.
    sizes : sequence of float
        USD, positive, ascending.
    done : callable, optional
        Called with the number of sizes that are finished.

    Returns
    -------
    DataFrame, a row a size
        ``equity_usd``; ``sharpe``, ``cagr``, ``total_return``, ``max_drawdown``, ``turnover_daily``, ``gross_mean``,
        ``trades``, ``skipped_min_notional``, ``liquidated_at`` of :attr:`engine.Result.metrics`; ``fee_yearly``,
        ``spread_yearly``, ``impact_yearly``, ``funding_yearly`` and ``cost_yearly``, their sum: USD over mean hourly
        equity and years of 365 days, positive = paid; ``volume_share_median`` and ``volume_share_p95``: an order's
        notional over the coin's volume of the hour in which it trades, NaN where the panel has no volume;
        ``hour_volume_usd_median``: that volume; ``order_usd_max``: the largest order; ``refused``: why the exchange
        refuses the weights on that account, which then has no figures (NaN), else None.

    Raises
    ------
    ConfigError
        For sizes that are not positive and ascending.
    WeightsError
        For weights that break the contract, or that need more initial margin than the account has at every size.
    """
    check_sizes(sizes)
    rows: list[dict[str, object]] = []
    refused: list[InitialMarginError] = []
    for number, size in enumerate(sizes):
        account = replace(config.account, initial_equity_usd=float(size))
        try:
            rows.append(_row(backtest(panel, weights, replace(config, account=account))))
        except InitialMarginError as error:  # margin tiers: a larger position has less leverage
            refused.append(error)
            rows.append({"equity_usd": float(size), "liquidated_at": None, "refused": str(error)})
        if done is not None:
            done(number + 1)
    if len(refused) == len(rows):
        raise refused[0]
    columns = max(rows, key=len)
    # Of a column of texts pandas would make None a NaN, which is true.
    texts = {name: pd.Series([row[name] for row in rows], dtype=object) for name in ("liquidated_at", "refused")}
    return pd.DataFrame(rows, columns=list(columns)).assign(**texts)


def check_sizes(sizes: Sequence[float]) -> None:
    """Refuse sizes that are not positive, finite and ascending."""
    try:
        values = np.asarray([float(size) for size in sizes])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"Account sizes {sizes!r} are not accepted: write a list of USD, [1e4, 1e5].") from error
    if not len(values) or not np.isfinite(values).all() or values[0] <= 0.0 or (np.diff(values) <= 0.0).any():
        shown = ", ".join(f"{size:g}" for size in values)
        raise ConfigError(
            f"Account sizes [{shown}] are not accepted: write positive USD in ascending order, 1e4,1e5,1e6."
        )


def limits(table: pd.DataFrame) -> Limits:
    """Where the strategy of a table of :func:`capacity` outgrows its market."""
    sizes, sharpe = table["equity_usd"].to_numpy(), table["sharpe"].to_numpy(dtype=np.float64)
    volume = crossing_size(sizes, -table["volume_share_median"].to_numpy(dtype=np.float64), -LARGE_SHARE)
    if np.isnan(sharpe).all():
        return Limits(np.nan, np.nan, np.nan, np.nan, volume)
    best = int(np.nanargmax(sharpe))
    highest = float(sharpe[best])
    halves = crossing_size(sizes, sharpe, 0.5 * highest) if highest > 0.0 else np.nan
    return Limits(highest, float(sizes[best]), halves, crossing_size(sizes, sharpe, 0.0), volume)


def crossing_size(sizes: np.ndarray, values: np.ndarray, level: float) -> float:
    """Size at which a figure, on its way from its highest value to larger sizes, first is at `level` or below.

    Between two sizes the figure is a straight line over the logarithm of the size; sizes without a figure (NaN) are
    left out. The smallest size when no figure is above the level, NaN when none after the highest is at or below it.
    """
    known = ~np.isnan(values)
    logs, heights = np.log(sizes[known]), values[known]
    if not len(heights):
        return float("nan")
    best = int(np.argmax(heights))
    if heights[best] <= level:
        return float(sizes[known][0])
    reached = np.flatnonzero(heights[best:] <= level)
    if not len(reached):
        return float("nan")
    after = best + int(reached[0])
    share = (heights[after - 1] - level) / (heights[after - 1] - heights[after])
    return float(np.exp(logs[after - 1] + share * (logs[after] - logs[after - 1])))


def _row(result: Result) -> dict[str, object]:
    metrics = result.metrics
    years = len(result.panel.index) / (24.0 * DAYS_PER_YEAR)
    equity = float(result.equity.mean())
    yearly = {f"{cost}_yearly": metrics[f"{cost}_usd"] / equity / years if equity > 0.0 else np.nan for cost in COSTS}
    median, high = volume_shares(result)
    notional, volume = _orders(result)
    return {
        "equity_usd": metrics["equity_start_usd"],
        **{name: metrics[name] for name in _COPIED},
        **yearly,
        "cost_yearly": sum(yearly.values()),
        "volume_share_median": median,
        "volume_share_p95": high,
        "hour_volume_usd_median": float(np.nanmedian(volume)) if (volume > 0.0).any() else np.nan,
        "order_usd_max": float(notional.max(initial=0.0)),
        **{name: metrics[name] for name in _COUNTED},
        "refused": None,
    }


def volume_shares(result: Result) -> tuple[float, float]:
    """Median and 95th percentile over orders of notional / volume of the coin in that hour; NaN without volume.

    Delistings are no orders. An hour without volume is left out: no share of nothing is a number.
    """
    notional, volume = _orders(result)
    shares = (notional / volume)[~np.isnan(volume)]
    if not len(shares):
        return float("nan"), float("nan")
    return float(np.median(shares)), float(np.percentile(shares, 95))


def _orders(result: Result) -> tuple[np.ndarray, np.ndarray]:
    """Notional of each order and volume of its coin in that hour, USD; NaN where there was or is known none."""
    panel = result.panel
    trades = result.trades[result.trades["reason"] != "delisting"]
    notional = trades["notional_usd"].to_numpy(dtype=np.float64)
    if "volume_usd" not in panel.fields or trades.empty:
        return notional, np.full(len(notional), np.nan)
    columns = {coin: column for column, coin in enumerate(panel.coins)}
    rows = panel.rows(pd.DatetimeIndex(trades["time"]))
    volume = panel.values("volume_usd")[rows, [columns[coin] for coin in trades["coin"]]]
    return notional, np.where(volume > 0.0, volume, np.nan)
