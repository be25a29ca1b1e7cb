"""The page of ``hlbt oracle report``: the analysis of a signal in sentences, charts and tables."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup

from engine.config import RunConfig
from engine.oracles.signal_analysis import (
    BETA_WINDOW,
    LEAST_INDEPENDENT,
    MARKET,
    MOMENTUM_DAYS,
    Mean,
    Signals,
    overlap,
    pace,
    strongest,
)
from engine.panel import Panel
from engine.provenance import Origin
from engine.reporting import charts
from engine.reporting.html import bps, percent, ratio, render, span, write_page
from engine.reporting.run_page import Tile
from engine.runs import dated_name

#: Horizons of the table; the chart has all.
LISTED = (1, 2, 3, 5, 7, 10, 14, 20, 30)
#: Decisions of the smoothed line over the daily rank IC.
SMOOTHED = 20
#: A mean with this t is called more than chance: one signal without skill in twenty has it.
NOTABLE = 1.96


def page_name(signals: Signals, panel: Panel, config: RunConfig, origin: Origin) -> str:
    """File name of the page: the signal, its span, and a digest of everything that decides its figures."""
    return f"signals-{dated_name(origin, panel, config, signals.horizon_days, signals.quantiles)}.html"


def write_signals(path: Path, signals: Signals, panel: Panel, config: RunConfig, origin: Origin) -> Path:
    """Write the page of a signal.

    Raises
    ------
    DataError
        When the page cannot be written.
    """
    index = panel.index
    listed = signals.decay["horizon_days"].isin({*LISTED, signals.horizon_days})
    page = render(
        "signals.html",
        origin=origin,
        signals=signals,
        synthetic=panel.synthetic,
        notes=panel.notes,
        span=span(index[0], index[-1]),
        coins=len(panel.coins),
        decisions=len(signals.daily),
        config=config,
        conclusions=conclusions(signals),
        tiles=tiles(signals),
        decay=signals.decay[listed].to_dict("records"),
        buckets=signals.buckets.to_dict("records"),
        charts={**_of_the_signal(signals), **_of_the_book(signals)},
        market=MARKET,
        window=BETA_WINDOW,
        smoothed=SMOOTHED,
        quoted="bid" in panel.fields and "ask" in panel.fields,
    )
    return write_page(path, page)


def tiles(signals: Signals) -> list[Tile]:
    """The row of figures."""
    figures, spread, days = signals.figures, signals.spread, signals.horizon_days
    texts = [
        ("ic", "mean rank IC", f"{signals.ic.mean:+.3f}", signals.ic.mean, f"over {_days(days)}"),
        (
            "ic_t",
            "t of the IC",
            ratio(signals.ic.t),
            signals.ic.t,
            f"{signals.ic.independent:,.0f} independent",
        ),
        ("hit", "decisions with IC > 0", percent(signals.ic.positive, 0), signals.ic.positive, "hit rate"),
        ("spread", "top less bottom", f"{bps(spread.mean)} bps", spread.mean, f"mean over {_days(days)}"),
        ("turnover", "turnover / decision", percent(figures["turnover"], 0), figures["turnover"], "of equity"),
        (
            "cost",
            "costs a year, paid -",
            percent(-figures["cost_yearly"], 1),
            -figures["cost_yearly"],
            "fee and half spread",
        ),
        ("beta", f"beta to {MARKET}", ratio(figures["beta"]), figures["beta"], "of the implied book"),
        (
            "coverage",
            "coverage",
            percent(figures["coverage"], 0),
            figures["coverage"],
            f"coins with a {signals.kind}, not 0, of the tradable ones"
            if signals.kind == "weight"
            else "coins scored of tradable",
        ),
    ]
    return [
        Tile(name, label, "n/a" if math.isnan(value) else text, value, hint) for name, label, text, value, hint in texts
    ]


def conclusions(signals: Signals) -> list[str]:
    """The results in sentences."""
    return [
        sentence
        for sentence in (
            _ranking(signals),
            _decay(signals),
            _quantiles(signals),
            _costs(signals),
            _persistence(signals),
            _exposure(signals),
            _coverage(signals),
        )
        if sentence
    ]


def _ranking(signals: Signals) -> str:
    ic = signals.ic
    if ic.count == 0:
        return (
            f"The {signals.kind} ranks nothing: at no decision do five coins have different values and a return "
            f"{_days(signals.horizon_days)} later, so there is no rank IC."
        )
    return (
        f"Over {_days(signals.horizon_days)} the rank IC of the {signals.kind} averages {ic.mean:+.3f} ({_error(ic)}) "
        f"and is above 0 at {ic.positive:.0%} of them: {_chance(ic)}."
    )


def _chance(value: Mean) -> str:
    if math.isnan(value.t):
        return f"fewer than {LEAST_INDEPENDENT} independent horizons, too few to say more"
    if value.t >= NOTABLE:
        return "more than chance alone gives one signal in twenty; where many were tried, require a t of 3 and more"
    if value.t <= -NOTABLE:
        return "it ranks coins in the wrong order, by more than chance alone gives one signal in twenty"
    return "that is indistinguishable from no skill"


def _decay(signals: Signals) -> str:
    days, mean, t = strongest(signals.decay)
    if math.isnan(days):
        return ""
    return (
        f"Of all horizons from 1 to {signals.decay['horizon_days'].max()} days the IC is most significant at "
        f"{_days(int(days))}: {mean:+.3f}, t {t:+.1f}. The best of so many horizons looks better than it is."
    )


def _quantiles(signals: Signals) -> str:
    spread, means = signals.spread, signals.buckets["mean_return"].to_numpy()
    known = means[~np.isnan(means)]
    if spread.count == 0:
        return ""
    rises, compared = int((np.diff(known) > 0).sum()), "more" if spread.mean >= 0.0 else "less"
    return (
        f"The top of {signals.quantiles} quantiles earned {bps(abs(spread.mean))} bps over "
        f"{_days(signals.horizon_days)} {compared} than the bottom one ({_error(spread)}), and more at "
        f"{spread.positive:.0%} of them; from one quantile to the next the mean return rises in {rises} of "
        f"{len(known) - 1} steps."
    )


def _costs(signals: Signals) -> str:
    figures = signals.figures
    if math.isnan(figures["turnover"]):
        return ""
    cost, gain = figures["cost_bps_daily"], figures["book_bps_daily"]
    text = (
        f"The implied book trades {figures['turnover']:.0%} of equity at a decision, which costs {cost:.2f} bps a day, "
        f"{figures['cost_yearly']:.1%} a year."
    )
    if math.isnan(gain):
        return text
    if gain <= 0.0:
        return f"{text} It lost {abs(gain):.2f} bps a day before any cost."
    rest = f"leaves {gain - cost:.2f}" if gain > cost else "is less than that"
    return (
        f"{text} Before costs and funding it earned {gain:.2f} bps a day, which {rest}; it breaks even at "
        f"{figures['breakeven_bps']:.1f} bps a dollar traded."
    )


def _persistence(signals: Signals) -> str:
    by_lag = dict(zip(signals.autocorrelation["lag"], signals.autocorrelation["correlation"], strict=True))
    known = [(lag, value) for lag, value in by_lag.items() if lag in (1, 7, 30) and not math.isnan(value)]
    if not known:
        return ""
    values = ", ".join(f"{value:+.2f} after {lag}" for lag, value in known)
    return f"The autocorrelation of its ranking is {values} decision{'s' if known[-1][0] > 1 else ''}."


def _exposure(signals: Signals) -> str:
    figures, sentences = signals.figures, []
    if not math.isnan(figures["beta"]):
        sentences.append(
            f"The book has a beta of {figures['beta']:+.2f} to {MARKET} (correlation "
            f"{figures['market_correlation']:+.2f})."
        )
    for days in MOMENTUM_DAYS:
        value = figures[f"momentum_{days}d"]
        if not math.isnan(value):
            near = ": it is that momentum under another name" if abs(value) > 0.9 else ""
            sentences.append(f"Its rank correlation with the return of the last {days} days is {value:+.2f}{near}.")
    return " ".join(sentences)


def _coverage(signals: Signals) -> str:
    share, tradable = signals.figures["coverage"], signals.daily["tradable"].mean()
    return f"It has a {signals.kind} for {share:.0%} of the {tradable:.0f} coins tradable on average."


def _error(value: Mean) -> str:
    t = "t not defined" if math.isnan(value.t) else f"t {value.t:+.1f}"
    return f"{t}, {value.count} decisions, {value.independent:,.0f} independent"


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


def _of_the_signal(signals: Signals) -> dict[str, Markup]:
    """Charts of the signal itself."""
    daily, blue = signals.daily, charts.COLOURS["price"]
    smooth = daily["ic"].rolling(SMOOTHED, min_periods=SMOOTHED // 2).mean()
    # Overlapping horizons are held at once: each has a share of the capital.
    shares = overlap(signals.horizon_days, pace(pd.DatetimeIndex(daily.index))[0]) + 1
    spread = 1e4 * daily["spread"].fillna(0.0).cumsum() / shares
    return {
        "ic": charts.lines(
            "Rank IC by decision",
            {"a decision": daily["ic"], f"mean of {SMOOTHED}": smooth},
            ["#c3cdd4", blue],
        ),
        "cumulative": charts.lines("Sum of the rank IC", {"sum": daily["ic"].fillna(0.0).cumsum()}, [blue], fill=0.0),
        "decay": charts.bars(
            "Mean rank IC by horizon in days",
            [str(days) for days in signals.decay["horizon_days"]],
            signals.decay["mean"].to_numpy(),
            1.96 * signals.decay["error"].to_numpy(),
        ),
        "quantiles": charts.bars(
            "Return of each quantile less that of all",
            _names(signals.quantiles),
            1e4 * signals.buckets["excess_return"].to_numpy(),
        ),
        "spread": charts.lines("Sum of top less bottom in bps", {"sum": spread}, [blue], fill=0.0),
        "autocorrelation": charts.bars(
            "Rank correlation of the signal with itself",
            [str(lag) for lag in signals.autocorrelation["lag"]],
            signals.autocorrelation["correlation"].to_numpy(),
        ),
        "coverage": charts.lines(
            "Coins tradable and with a signal",
            {"tradable": daily["tradable"], "with a signal": daily["scored"]},
            ["#9aa7b0", blue],
        ),
    }


def _of_the_book(signals: Signals) -> dict[str, Markup]:
    """Charts of the implied book and of its exposures."""
    daily, blue, orange = signals.daily, charts.COLOURS["price"], charts.COLOURS["spread"]
    gain, cost = daily["book_return"].fillna(0.0), daily["cost"].fillna(0.0)
    book = {"before costs": gain.cumsum(), "after fee and spread": (gain - cost).cumsum()}
    momentum = {f"{days} days": daily[f"momentum_{days}d"] for days in MOMENTUM_DAYS}
    return {
        "turnover": charts.stems(
            "Turnover of each decision",
            daily["turnover"].iloc[1:],
            signals.figures["turnover"] if len(daily) > 1 else 0.0,
        ),
        "book": charts.lines(
            "Sum of the returns of the implied book",
            book,
            [charts.COLOURS["net"], orange],
            percent=True,
        ),
        "beta": charts.lines(f"Rolling beta to {MARKET}", {"beta": daily["beta"]}, [orange], fill=0.0),
        "momentum": charts.lines("Rank correlation with momentum", momentum, [blue, orange]),
    }


def _names(quantiles: int) -> list[str]:
    middle = [str(number) for number in range(2, quantiles)]
    return ["bottom", *middle, "top"]
