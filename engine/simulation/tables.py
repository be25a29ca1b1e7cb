"""Tables of a result: months, years, drawdowns, rolling figures, round trips and their sums by side and coin.

All of them take what both a :class:`~engine.simulation.result.Result` and a run folder hold: hourly equity from the
first decision that asks for something, daily returns, and round trips, which are saved with a run.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from engine.clock import HOUR
from engine.simulation import metrics
from engine.simulation.backtest import kernel_inputs
from engine.simulation.result import FLOWS, REASONS, Result

CAUSES: Mapping[str, str] = {
    "price_pnl_usd": "price",
    "spread_usd": "spread",
    "impact_usd": "impact",
    "fee_usd": "fees",
    "funding_usd": "funding",
}
#: Flow -> its sign from the account's point of view: profit as it is, costs negative.
SIGNS: Mapping[str, float] = {name: 1.0 if name == "price_pnl_usd" else -1.0 for name in FLOWS}
#: Name of the columns of tables that show money from the account's point of view.
RECEIVED = "USD, received +, paid -"
#: Columns of the round trips.
TRIP_FIELDS = ("coin", "side", "opened", "closed", "ended", "hours", "fills", "entry_usd", *FLOWS, "net_usd")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
#: Windows of the rolling figures, days; the longest that fits three times into the span is taken.
WINDOWS = (180, 90, 60, 30, 14, 7)


def monthly(equity: pd.Series, start_usd: float, hour_utc: int) -> pd.DataFrame:
    """Return of every month, and of the year.

    Parameters
    ----------
    equity : Series, (T,)
        Hourly equity in USD, from the first decision that asks for something on.
    start_usd : float
        Equity before it.
    hour_utc : int
        Hour at which a day ends, as for daily returns: a month lasts from the last such instant of the month before to
        its own last one, so that all months compound to the return of the run.

    Returns
    -------
    DataFrame, (years, 13)
        A column a month, ``Jan`` to ``Dec``, then ``year``; NaN for a month outside the span.
    """
    day = _day_of(equity.index, hour_utc)
    months = _growth(equity.groupby(12 * day.year + day.month - 1).last(), start_usd)
    years = np.unique(day.year)
    values = np.full((len(years), 12), np.nan)
    if len(months):
        values.flat[months.index.to_numpy() - 12 * years[0]] = months
    table = pd.DataFrame(values, index=years, columns=list(MONTHS))
    table["year"] = _growth(equity.groupby(day.year).last(), start_usd)
    return table.rename_axis(index="year")


def yearly(equity: pd.Series, start_usd: float, hour_utc: int) -> pd.DataFrame:
    """Figures of every calendar year, whole or not; years end as months do (:func:`monthly`).

    Parameters
    ----------
    equity : Series, (T,)
        Hourly equity in USD, from the first decision that asks for something on.
    start_usd : float
        Equity before it.
    hour_utc : int
        Hour at which a day ends.

    Returns
    -------
    DataFrame, (years, 6)
        ``return``, ``volatility`` and ``sharpe`` (annual, of the daily returns that end in the year), ``max_drawdown``
        (hourly, within the year), and ``first`` and ``last``, the instants that the year's row covers.
    """
    day = _day_of(equity.index, hour_utc)
    daily = equity[pd.DatetimeIndex(equity.index).hour == hour_utc]
    returns = pd.Series(metrics.daily_returns(daily.to_numpy()), index=daily.index[1:])
    rows, before = {}, start_usd
    for year, hourly in equity.groupby(day.year):
        own = returns[pd.DatetimeIndex(returns.index).year == year].to_numpy()
        values = hourly.to_numpy()
        rows[year] = {
            "return": metrics.total_return(before, float(values[-1])) if before > 0.0 else np.nan,
            "volatility": metrics.volatility(own),
            "sharpe": metrics.sharpe(own),
            "max_drawdown": metrics.max_drawdown(values, before) if before > 0.0 else np.nan,
            "first": hourly.index[0],
            "last": hourly.index[-1],
        }
        before = float(values[-1])
    columns = ["return", "volatility", "sharpe", "max_drawdown", "first", "last"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("year")


def drawdowns(equity: pd.Series, start_usd: float) -> pd.DataFrame:
    """Every drawdown of the hourly equity, the deepest first.

    Parameters
    ----------
    equity : Series, (T,)
        Hourly equity in USD.
    start_usd : float
        Equity before it, the first peak.

    Returns
    -------
    DataFrame, (K, 6)
        ``peak`` (the last row at the peak; the first row, where it is the equity at the start), ``trough``,
        ``recovered`` (NaT: still open), ``depth`` (0 or negative, a fraction of the peak; the lowest is the run's
        ``max_drawdown``), ``days`` from the peak to the recovery or the end, and ``open``.
    """
    depth = metrics.drawdown(equity.to_numpy(dtype=np.float64), start_usd)
    below = np.concatenate(([False], depth < 0.0, [False]))
    firsts, ends = np.flatnonzero(below[1:] & ~below[:-1]), np.flatnonzero(below[:-1] & ~below[1:])
    rows, index = [], pd.DatetimeIndex(equity.index)
    for first, end in zip(firsts.tolist(), ends.tolist(), strict=True):
        peak, trough = max(first - 1, 0), first + int(np.argmin(depth[first:end]))
        is_open = end == len(depth)
        until = index[end - 1 if is_open else end]
        rows.append(
            {
                "peak": index[peak],
                "trough": index[trough],
                "recovered": pd.NaT if is_open else until,
                "depth": float(depth[trough]),
                "days": (until - index[peak]) / pd.Timedelta(days=1),
                "open": bool(is_open),
            }
        )
    table = pd.DataFrame(rows, columns=["peak", "trough", "recovered", "depth", "days", "open"])
    return table.sort_values("depth", kind="stable", ignore_index=True)


def rolling(returns: pd.Series, benchmark: pd.Series | None = None) -> pd.DataFrame:
    """Rolling Sharpe ratio, volatility and beta over a window that fits the span.

    Parameters
    ----------
    returns : Series, (D,)
        Daily returns.
    benchmark : Series, (D,), optional
        Those of a benchmark, with the same index.

    Returns
    -------
    DataFrame, (D - window + 1, 2 or 3)
        ``sharpe`` and ``volatility``, annual, and ``beta`` with a benchmark; NaN where one is not defined. Empty for
        fewer than 21 days. ``attrs["window_days"]`` is the window: the longest of :data:`WINDOWS` that fits into the
        span three times.
    """
    window = next((days for days in WINDOWS if 3 * days <= len(returns)), 0)
    moving = returns.rolling(max(window, 2))
    deviation = moving.std().where(lambda values: values > 1e-12)
    table = pd.DataFrame({"sharpe": moving.mean() / deviation * metrics.ANNUAL, "volatility": deviation})
    table["volatility"] *= metrics.ANNUAL
    if benchmark is not None:
        spread = benchmark.rolling(max(window, 2)).var()
        table["beta"] = moving.cov(benchmark) / spread.where(spread > 1e-24)
    table = table.iloc[window - 1 :] if window else table[:0]
    table.attrs["window_days"] = window
    return table


def benchmark_returns(price: pd.Series, days: pd.DatetimeIndex) -> pd.Series:
    """Returns of a price over the days that end at `days`.

    Parameters
    ----------
    price : Series, (T,)
        Hourly price. A missing one is the last one before.
    days : DatetimeIndex, (D,)
        Instants at which the days end.

    Returns
    -------
    Series, (D,)
        0 before the first price.
    """
    known = price.ffill()
    now, before = known.reindex(days), known.reindex(days - 24 * HOUR)
    return pd.Series(now.to_numpy() / before.to_numpy() - 1.0, index=days, name=str(price.name)).fillna(0.0)


def benchmark_held(price: pd.Series, equity: pd.Series) -> pd.Series:
    """What an equity would be, had it all been in a benchmark from its first price on.

    Parameters
    ----------
    price : Series
        Hourly price. A missing one is the last one before.
    equity : Series, (T,)
        Hourly equity in USD, from the first decision that asks for something on, not empty.

    Returns
    -------
    Series, (T,)
        USD; NaN before the first price.
    """
    known = price.ffill().reindex(equity.index)
    first = known.first_valid_index()
    held: pd.Series = known if first is None else known / known[first] * equity[first]
    return held


def round_trips(result: Result) -> pd.DataFrame:
    """Every position from flat to flat.

    A fill that crosses zero ends one round trip and opens another; its units, and its costs in proportion, are split
    between the two. Partial exits belong to the round trip that they reduce. One that is still open at the end is
    marked at the last price. Sums over all round trips are those of the ledger, coin by coin.

    Parameters
    ----------
    result : Result
        The backtest.

    Returns
    -------
    DataFrame, (K, 14)
        :data:`TRIP_FIELDS`, ordered by opening and coin: ``closed`` is NaT and ``ended`` "open" where the position is
        still held, else ``ended`` is "close", "flip", "delisting" or "liquidation"; ``entry_usd`` is the notional, at
        mid, of the fills that opened or increased it; ``price_pnl_usd`` is between mids, and the four after it are
        costs, positive when they lower equity, as in :attr:`Result.attribution`; ``net_usd`` is the first less these.
    """
    from engine.simulation import kernel

    legs = _legs(result.ledger.trades)
    row, coin = legs[:, kernel.ROW].astype(np.int64), legs[:, kernel.COIN].astype(np.int64)
    reason, units = legs[:, kernel.REASON].astype(np.int64), legs[:, kernel.UNITS]
    opens = reason == kernel.OPEN
    trip, first = np.cumsum(opens) - 1, np.flatnonzero(opens)
    last = np.append(first, len(legs))[1:] - 1
    ends = np.isin(reason, kernel.ENDS)
    held = np.where(ends, 0.0, pd.Series(units).groupby(trip).cumsum().to_numpy())
    mid = legs[:, kernel.PRICE] - (legs[:, kernel.SPREAD] + legs[:, kernel.IMPACT]) / units
    panel, hours = result.panel, len(result.panel.index)
    funding, left = _holding(result, legs, held, ends)
    still = ~ends[last]

    def summed(values: np.ndarray) -> np.ndarray:
        return np.bincount(trip, weights=values, minlength=len(first))

    end_row = np.where(still, hours - 1, row[last])
    ended = np.where(still, "open", np.array(REASONS, dtype=object)[reason[last]])
    ended[legs[last, -1] > 0.0] = "flip"
    table = pd.DataFrame(
        {
            "coin": pd.Series(np.array(panel.coins, dtype=object)[coin[first]], dtype="str"),
            "side": pd.Series(np.where(units[first] > 0.0, "long", "short"), dtype="str"),
            "opened": panel.index[row[first]],
            "closed": panel.index[end_row].where(~still),
            "ended": pd.Series(ended, dtype="str"),
            "hours": (end_row - row[first]).astype(np.float64),
            "fills": last - first + 1,
            "entry_usd": summed(np.where(units * units[first][trip] > 0.0, np.abs(units) * mid, 0.0)),
            "price_pnl_usd": np.where(still, left[last], 0.0) - summed(units * mid),
            "spread_usd": summed(legs[:, kernel.SPREAD]),
            "impact_usd": summed(legs[:, kernel.IMPACT]),
            "fee_usd": summed(legs[:, kernel.FEE]),
            "funding_usd": summed(funding),
        }
    )
    table["net_usd"] = sum(SIGNS[name] * table[name] for name in FLOWS)
    return table.sort_values(["opened", "coin"], kind="stable", ignore_index=True)[list(TRIP_FIELDS)]


def _holding(result: Result, legs: np.ndarray, held: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the units held after each leg paid and are worth.

    Parameters
    ----------
    result : Result
        The backtest.
    legs : ndarray, (L, TRADE_COLUMNS + 1)
        From :func:`_legs`.
    held : ndarray, (L,)
        Units after each leg.
    ends : ndarray, (L,) bool
        Whether a leg ends its round trip.

    Returns
    -------
    funding : ndarray, (L,)
        USD paid until the next leg of the round trip, or the end of the data.
    worth : ndarray, (L,)
        USD at the last price of the data.
    """
    from engine.simulation import kernel

    row, coin = legs[:, kernel.ROW].astype(np.int64), legs[:, kernel.COIN].astype(np.int64)
    coins, place = np.unique(coin, return_inverse=True)
    market, hours = kernel_inputs(result.panel, result.config)[0], len(result.panel.index)
    price = pd.DataFrame(market.mid[:, coins]).ffill().to_numpy()
    paid = np.zeros((hours + 1, len(coins)))  # by a unit before the funding of each row
    if len(market.funding):
        rate, base = market.funding[:, coins], market.funding_price[:, coins]
        due = np.where(np.isnan(rate), 0.0, rate * np.where(np.isnan(base), price, base))
        np.cumsum(np.nan_to_num(due, nan=0.0), axis=0, out=paid[1:])
    # The account's liquidation comes after the funding of its row unless it was within the hour, all else before it.
    late = (legs[1:, kernel.REASON] == kernel.LIQUIDATION) & (result.ledger.counters[kernel.WITHIN_HOUR] == 0)
    until = np.append(row[1:] + late, hours)[: len(legs)]
    until[np.append(coin[1:] != coin[:-1], True)[: len(legs)]] = hours
    until[ends] = row[ends]
    return held * (paid[until, place] - paid[row, place]), held * np.nan_to_num(price[-1, place])


def _legs(trades: np.ndarray) -> np.ndarray:
    """The trades coin by coin, a flip as a close and an open; a last column is 1 for the closes of flips.

    Parameters
    ----------
    trades : ndarray, (M, TRADE_COLUMNS)
        Of the ledger.

    Returns
    -------
    ndarray, (M + flips, TRADE_COLUMNS + 1)
    """
    from engine.simulation import kernel

    trades = trades[np.argsort(trades[:, kernel.COIN], kind="stable")]
    trades = np.column_stack([trades, np.zeros(len(trades))])
    flips = trades[:, kernel.REASON] == kernel.FLIP
    # Since the last fill that found nothing: a sum that goes on would carry the dust of the largest position.
    since = np.cumsum(trades[:, kernel.REASON] == kernel.OPEN)
    units = trades[:, kernel.UNITS]
    before = pd.Series(units).groupby(since).cumsum().to_numpy() - units
    legs = np.repeat(trades, 1 + flips, axis=0)
    closing = np.flatnonzero(flips) + np.arange(flips.sum())
    split = [kernel.UNITS, kernel.FEE, kernel.SPREAD, kernel.IMPACT]
    share = (-before[flips] / units[flips])[:, None]
    legs[closing + 1] -= np.where(np.isin(np.arange(legs.shape[1]), split), legs[closing] * share, 0.0)
    legs[closing[:, None], split] *= share
    legs[closing, kernel.REASON], legs[closing + 1, kernel.REASON] = kernel.CLOSE, kernel.OPEN
    legs[closing, -1] = 1.0
    return legs


def trades_summary(trips: pd.DataFrame) -> pd.DataFrame:
    """Round trips summed up: all of them, by side, and by coin.

    Parameters
    ----------
    trips : DataFrame, (K, 14)
        From :func:`round_trips`.

    Returns
    -------
    DataFrame, (1 + sides + coins, 14)
        Index: ``by`` ("all", "side" or "coin") and ``name``. ``round_trips`` that are closed, and how many are
        ``open``; of the closed ones ``win_rate`` (share whose net is positive), ``profit_factor`` (money won over money
        lost; NaN without a loss), ``hours_mean`` and ``hours_median`` held, ``mean_usd``, ``best_usd`` and
        ``worst_usd`` net. Then the USD of closed and open ones by cause and ``net``, received positive, paid negative.
    """
    tables = {
        "all": _by(trips, _everything(trips)),
        "side": _by(trips, trips["side"]),
        "coin": _by(trips, trips["coin"]),
    }
    return pd.concat(tables, names=["by", "name"]).rename_axis(columns=RECEIVED)


def summed_trips(trips: pd.DataFrame) -> dict[str, float]:
    """The row of :func:`trades_summary` for these round trips."""
    return {str(name): float(value) for name, value in _by(trips, _everything(trips)).iloc[0].items()}


def _everything(trips: pd.DataFrame) -> pd.Series:
    """One group, which is there without a round trip, too."""
    return pd.Series(pd.Categorical(["all"] * len(trips), ["all"]), index=trips.index)


def _by(trips: pd.DataFrame, groups: pd.Series) -> pd.DataFrame:
    """The rows of :func:`trades_summary` by group."""
    closed = trips["ended"] != "open"
    net = trips["net_usd"].where(closed)
    figures = {"round_trips": closed, "open": ~closed, "wins": net > 0.0}
    figures |= {"won": net.clip(lower=0.0), "lost": -net.clip(upper=0.0)}
    causes = {label: SIGNS[name] * trips[name] for name, label in CAUSES.items()}
    sums = pd.DataFrame({**figures, **causes, "net": trips["net_usd"]}).groupby(groups, observed=False).sum()
    each = pd.DataFrame({"net": net, "hours": trips["hours"].where(closed)}).groupby(groups, observed=False)
    return pd.DataFrame(
        {
            "round_trips": sums["round_trips"].astype(np.int64),
            "open": sums["open"].astype(np.int64),
            "win_rate": sums["wins"] / sums["round_trips"].where(sums["round_trips"] > 0),
            "profit_factor": sums["won"] / sums["lost"].where(sums["lost"] > 0.0),
            "hours_mean": each["hours"].mean(),
            "hours_median": each["hours"].median(),
            "mean_usd": each["net"].mean(),
            "best_usd": each["net"].max(),
            "worst_usd": each["net"].min(),
            **{label: sums[label] + 0.0 for label in [*CAUSES.values(), "net"]},
        }
    ).rename(index=str)


def long_short(trips: pd.DataFrame, exposure: pd.DataFrame, start_usd: float) -> pd.DataFrame:
    """What the long and the short positions brought, apart.

    Parameters
    ----------
    trips : DataFrame, (K, 14)
        From :func:`round_trips`.
    exposure : DataFrame, (T, 2 or more)
        ``gross_frac`` and ``net_frac``, hourly, over the span of which means are wanted.
    start_usd : float
        Equity at the start.

    Returns
    -------
    DataFrame, (3, 8)
        Rows ``long``, ``short`` and ``all``; USD by cause and ``net``, received positive, paid negative;
        ``net_frac``, the net over the equity at the start; ``exposure_mean``, a fraction of equity, not negative.
    """
    flows = (trips[list(FLOWS)] * SIGNS).rename(columns=CAUSES).assign(net=trips["net_usd"])
    table = flows.groupby(trips["side"]).sum().reindex(["long", "short"], fill_value=0.0)
    table.loc["all"] = table.sum()
    table["net_frac"] = table["net"] / start_usd
    gross, net = exposure["gross_frac"], exposure["net_frac"]
    table["exposure_mean"] = [((gross + net) / 2).mean(), ((gross - net) / 2).mean(), gross.mean()]
    return (table + 0.0).rename_axis(index="side", columns=RECEIVED)


def _day_of(index: pd.Index, hour_utc: int) -> pd.DatetimeIndex:
    """Trading day of each instant: a day ends at `hour_utc`, and that instant is still its own."""
    return (pd.DatetimeIndex(index).tz_convert("UTC") + (23 - hour_utc) * HOUR).normalize()


def _growth(ends: pd.Series, start_usd: float) -> pd.Series:
    """Returns between equities; NaN on one that is gone."""
    before = ends.shift(1, fill_value=start_usd)
    returns: pd.Series = (ends / before - 1.0).where(before > 0.0)
    return returns
