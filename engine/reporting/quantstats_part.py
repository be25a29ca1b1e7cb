"""QuantStats' part of a run's page: its table and its charts, as far as they are defined for the span.

QuantStats is imported inside functions of this module and nowhere else. A process makes one of its pages at a time,
because its charts use pyplot; pages are made in parallel by several processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

import pandas as pd
from markupsafe import Markup

from engine.clock import DAYS_PER_YEAR
from engine.reporting.figure_svg import isolated_style, to_svg
from engine.reporting.html import brief

#: With fewer daily returns a standard deviation or a regression is meaningless, and QuantStats fails.
LEAST_RETURNS = 3
#: QuantStats' own theme, which it sets when imported; a page must not depend on which import came first.
_THEME: Mapping[str, Any] = {
    "figure.figsize": (10, 6),
    "axes.facecolor": "white",
    "figure.facecolor": "white",
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.5,
    "text.color": "#333333",
    "xtick.color": "#666666",
    "ytick.color": "#666666",
    "svg.fonttype": "none",
}
#: Row of the table -> the months before the last day that it looks back on.
_LOOKS_BACK = {"3M": 3, "6M": 6, "1Y": 12, "3Y (ann.)": 36, "5Y (ann.)": 60, "10Y (ann.)": 120}
#: Frequency -> the rows that compare its periods: two whole ones are the least that has a best and a worst.
_OF_PERIODS = {
    "M": (
        "Expected Monthly", "Gain/Pain (1M)", "Best Month", "Worst Month", "Avg. Up Month", "Avg. Down Month",
        "Win Month",
    ),
    "Q": ("Win Quarter",),
    "Y": ("Expected Yearly", "Best Year", "Worst Year", "Win Year"),
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """QuantStats' table and charts, or why there are none.

    Attributes
    ----------
    version : str
        Of QuantStats.
    columns : tuple of str
        Headings of the table: the benchmark, if there is one, and the strategy.
    rows : list of (str, tuple of str)
        Name and values of each row; an empty name is a line between groups.
    charts : list of Markup
        In the order in which they are shown.
    left_out : tuple of str
        Rows and charts for which the span is too short.
    reason : str
        Why QuantStats has nothing to say; empty when it has.
    pending : bool
        Whether it is being made, and the page is going to be written again with it.
    """

    version: str = ""
    columns: tuple[str, ...] = ()
    rows: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    charts: list[Markup] = field(default_factory=list)
    left_out: tuple[str, ...] = ()
    reason: str = ""
    pending: bool = False


@dataclass(frozen=True)
class PartInputs:
    """What QuantStats' part is made of: arguments of :func:`quantstats_part`, small enough for another process."""

    returns: pd.Series
    benchmark: pd.Series | None
    window: int


def quantstats_part(
    returns: pd.Series, benchmark: pd.Series | None, window: int, share: tuple[int, int] = (0, 1)
) -> Part:
    """What QuantStats says of daily returns.

    Parameters
    ----------
    returns : Series, (D,)
        Daily returns by naive date.
    benchmark : Series, (D,), or None
        Those of the benchmark on the same dates; its name is that of the benchmark.
    window : int
        Days of rolling figures; 0 where the span is too short for them.
    share : tuple of int
        ``(k, n)``: share `k` of `n` processes that make it together, for :func:`joined`; the first has the table.

    Returns
    -------
    Part
    """
    if float(returns.min()) < -1.0:  # QuantStats takes the absolute value of a negative equity and would show growth
        returns = returns.clip(lower=-1.0)
    with _quiet_quantstats() as (quantstats, reports):
        try:
            if share[0]:
                charts, _ = _charts(quantstats.plots, returns, benchmark, window, share)
                return Part(charts=charts)
            table = reports.metrics(
                # It modifies its arguments.
                returns.copy(),
                None if benchmark is None else benchmark.copy(),
                rf=0.0,
                display=False,
                mode="full",
                sep=True,
                internal="True",
                periods_per_year=DAYS_PER_YEAR,
                prepare_returns=False,
                match_dates=False,
                strategy_title="Strategy",
                benchmark_title=None if benchmark is None else str(benchmark.name),
            )
            rows, undefined = _defined(table, pd.DatetimeIndex(returns.index))
            charts, missing = _charts(quantstats.plots, returns, benchmark, window, share)
        except Exception as error:  # whatever it fails on, a page without its part is better than none
            return Part(reason=f"it failed on these returns ({type(error).__name__}: {brief(error)}).")
        return Part(quantstats.__version__, tuple(map(str, table.columns)), rows, charts, (*undefined, *missing))


def joined(shares: Sequence[Part]) -> Part:
    """The whole of the shares of :func:`quantstats_part`, in their order; one that failed is why there is none."""
    if failed := [part for part in shares if part.reason]:
        return failed[0]
    charts: list[Markup] = []
    for row in zip_longest(*(part.charts for part in shares)):
        charts += [chart for chart in row if chart is not None]
    return replace(shares[0], charts=charts)


def unsuitable(returns: pd.Series, calendar: int) -> str:
    """Why QuantStats cannot report on these returns, of a run over so many days; empty when it can."""
    if calendar >= LEAST_RETURNS and not returns.any():
        return "no daily return differs from zero, so there is nothing to measure."
    if len(returns) < LEAST_RETURNS:
        return f"it needs at least {LEAST_RETURNS} daily returns and this run has {len(returns)}."
    if looks_like_prices(returns):
        return "no day lost and one more than doubled the account; QuantStats mistakes such a series for prices."
    return ""


def looks_like_prices(returns: pd.Series) -> bool:
    """Whether QuantStats would take these returns for prices."""
    return bool(returns.min() >= 0.0 and returns.max() > 1.0)


def _defined(table: pd.DataFrame, dates: pd.DatetimeIndex) -> tuple[list[tuple[str, tuple[str, ...]]], list[str]]:
    """Rows of QuantStats' table that the span defines, and the names of the others."""
    first, last = dates[0], dates[-1]
    # The return of a date is of the day before it, so a span of a month has the first date of the next.
    undefined = {
        name for name, months in _LOOKS_BACK.items() if first > last - pd.DateOffset(months=months) + pd.Timedelta("1D")
    }
    undefined |= {"MTD"} if first > last.replace(day=1) else set()
    undefined |= {"YTD"} if first > last.replace(day=1, month=1) else set()
    for frequency, names in _OF_PERIODS.items():
        undefined |= set(names) if whole_periods(dates, frequency) < 2 else set()
    rows, left_out, open_end = [], [], f"{last:%Y-%m-%d}"
    for name, values in zip(table.index, table.itertuples(index=False), strict=True):
        label = str(name).replace("\ufe6a", "").replace("%", "").strip()
        cells = tuple(map(str, values))
        if label in undefined:
            left_out.append(label)
        elif label == "Max DD Period End":
            rows.append((label, tuple("open" if cell == open_end else cell for cell in cells)))
        elif label or (rows and rows[-1][0]):
            rows.append((label, cells if label else ()))
    return rows, left_out


def whole_periods(dates: pd.DatetimeIndex, frequency: str) -> int:
    """Number of whole calendar months ("M"), quarters ("Q") or years ("Y") between the first date and the last."""
    periods = dates.to_period(frequency)
    inner = len(periods.unique())
    inner -= dates[0] > periods[0].start_time
    inner -= dates[-1] < periods[-1].end_time.normalize() and inner > 0
    return int(inner)


def _charts(
    plots: Any, returns: pd.Series, benchmark: pd.Series | None, window: int, share: tuple[int, int]
) -> tuple[list[Markup], list[str]]:
    """QuantStats' charts that the span defines, of them those of the share, and the names of the others."""
    dates = pd.DatetimeIndex(returns.index)
    pair, own = (returns, benchmark), (returns,)
    plain: dict[str, Any] = {"prepare_returns": False}
    rolling = {"period": window, "period_label": f"{window} days", "periods_per_year": DAYS_PER_YEAR}
    months = whole_periods(dates, "M") >= 3
    years = whole_periods(dates, "Y") >= 2
    wanted: tuple[tuple[str, bool, Callable[..., Any], tuple[Any, ...], tuple[float, float], dict[str, Any]], ...] = (
        ("Cumulative returns", True, plots.returns, pair, (8, 5), plain),
        ("Cumulative returns, log scale", True, plots.log_returns, pair, (8, 4), plain),
        (
            "Cumulative returns at the benchmark's volatility", benchmark is not None, plots.returns, pair, (8, 4),
            {**plain, "match_volatility": True},
        ),
        ("Distribution of monthly returns", months, plots.histogram, pair, (7, 4), plain),
        ("Daily returns", True, plots.daily_returns, pair, (8, 3), plain),
        ("Rolling volatility", window > 0, plots.rolling_volatility, pair, (8, 3), rolling),
        ("Rolling Sortino", window > 0, plots.rolling_sortino, own, (8, 3), rolling),
        (
            "Worst 5 drawdown periods", bool((returns < 0).any()), plots.drawdowns_periods, own, (8, 4),
            {**plain, "title": "Strategy"},
        ),
        ("Underwater plot", True, plots.drawdown, own, (8, 3), {}),
        ("Return quantiles", years, plots.distribution, own, (8, 4), plain),
    )  # fmt: skip
    missing = [name for name, defined, *_ in wanted if not defined]
    if benchmark is None:
        missing = [name for name in missing if "benchmark" not in name]
    drawn = []
    shown = [(place, *chart) for place, chart in enumerate(wanted) if chart[1]]
    for place, name, _, draw, series, size, more in shown[share[0] :: share[1]]:
        copies = (None if one is None else one.copy() for one in series)
        figure = draw(*copies, figsize=size, subtitle=False, show=False, ylabel="", **more)
        drawn.append(to_svg(figure, f"quantstats-{place}", name))
    return drawn, missing


@contextmanager
def _quiet_quantstats() -> Iterator[tuple[Any, Any]]:
    """``quantstats`` and its reports under its own theme, silent; the caller's settings and figures are restored."""
    with isolated_style():
        import matplotlib.pyplot as plt
        import quantstats
        import seaborn  # type: ignore[import-untyped]  # it ships no types
        from quantstats import reports

        opened = set(plt.get_fignums())
        seaborn.set_theme(font_scale=1.1, rc=dict(_THEME))
        try:
            yield quantstats, reports
        finally:
            for number in set(plt.get_fignums()) - opened:
                plt.close(number)
