"""The page of ``hlbt oracle report``: what a signal is worth, in words, charts and tables."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup

from engine.clock import show
from engine.config import RunConfig
from engine.oracles.signal_analysis import BETA_WINDOW, MARKET, MOMENTUM_DAYS, Mean, Signals, overlap, pace, strongest
from engine.panel import Panel
from engine.provenance import code_digest
from engine.reporting import charts
from engine.reporting.html import bps, percent, ratio, templates, write_page
from engine.reporting.run_page import Tile
from engine.runs import Origin

#: Horizons of the table; the chart has all.
LISTED = (1, 2, 3, 5, 7, 10, 14, 20, 30)
#: Decisions of the smoothed line over the daily rank IC.
SMOOTHED = 20
#: A mean this many errors from 0 is called more than chance.
NOTABLE = 2.0


def page_name(found: Signals, panel: Panel, config: RunConfig, origin: Origin) -> str:
    """Name of the page's file: what it is of, its span, and a digest of all that decides its figures."""
    state = [asdict(origin), config.digest, panel.digest, code_digest(), found.horizon_days, found.quantiles]
    digest = hashlib.sha256(json.dumps(state, sort_keys=True, default=str).encode()).hexdigest()[:8]
    label = "".join(letter if letter.isalnum() else "-" for letter in found.name.lower()).strip("-")
    return f"signals-{label}-{panel.index[0]:%Y%m%d}-{panel.index[-1]:%Y%m%d}-{digest}.html"


def write_signals(path: Path, found: Signals, panel: Panel, config: RunConfig, origin: Origin) -> Path:
    """Write the page of a signal.

    Raises
    ------
    DataError
        When `path` is something else than such a page, or cannot be written.
    """
    index = panel.index
    listed = found.decay["horizon_days"].isin({*LISTED, found.horizon_days})
    page = (
        templates()
        .get_template("signals.html")
        .render(
            origin=origin,
            found=found,
            synthetic=panel.synthetic,
            span=f"{show(index[0])} to {show(index[-1])}",
            coins=len(panel.coins),
            decisions=len(found.daily),
            config=config,
            says=conclusions(found),
            tiles=tiles(found),
            decay=found.decay[listed].to_dict("records"),
            buckets=found.buckets.to_dict("records"),
            charts=_drawings(found),
            market=MARKET,
            window=BETA_WINDOW,
            smoothed=SMOOTHED,
            quoted="bid" in panel.fields and "ask" in panel.fields,
        )
    )
    return write_page(path, page)


def tiles(found: Signals) -> list[Tile]:
    """The row of figures."""
    figures, days = found.figures, found.horizon_days
    texts = [
        ("ic", "mean rank IC", f"{found.ic.mean:+.3f}", found.ic.mean, f"over {_days(days)}"),
        ("ic_t", "t of the IC", ratio(found.ic.t), found.ic.t, f"Newey-West, lag {found.ic.lag}"),
        ("hit", "decisions with IC > 0", percent(found.ic.positive, 0), found.ic.positive, "hit rate"),
        ("spread", "top less bottom", f"{bps(found.spread.mean)} bps", found.spread.mean, f"mean over {_days(days)}"),
        ("turnover", "turnover / decision", percent(figures["turnover"], 0), figures["turnover"], "of equity"),
        ("cost", "cost a year", percent(figures["cost_yearly"], 1), figures["cost_yearly"], "fee and half spread"),
        ("beta", f"beta to {MARKET}", ratio(figures["beta"]), figures["beta"], "of the implied book"),
        ("coverage", "coverage", percent(figures["coverage"], 0), figures["coverage"], "coins scored of tradable"),
    ]
    return [
        Tile(name, label, "n/a" if math.isnan(value) else text, value, hint) for name, label, text, value, hint in texts
    ]


def conclusions(found: Signals) -> list[str]:
    """What the figures say, in sentences."""
    return [
        sentence
        for sentence in (
            _ranking(found),
            _decay(found),
            _quantiles(found),
            _costs(found),
            _persistence(found),
            _exposure(found),
            _coverage(found),
        )
        if sentence
    ]


def _ranking(found: Signals) -> str:
    ic, what = found.ic, f"Over {_days(found.horizon_days)} the rank IC of the {found.kind}"
    if ic.count == 0:
        return (
            f"The {found.kind} ranks nothing: at no decision do five coins have different values and a return "
            f"{_days(found.horizon_days)} later, so there is no rank IC."
        )
    return f"{what} averages {ic.mean:+.3f} ({_error(ic)}) and is above 0 at {ic.positive:.0%} of them: {_chance(ic)}."


def _chance(value: Mean) -> str:
    if math.isnan(value.t):
        return "too few decisions to say more"
    if value.t >= NOTABLE:
        return "more than chance alone gives one signal in twenty; where many were tried, ask for a t of 3 and more"
    if value.t <= -NOTABLE:
        return "it ranks coins the wrong way round, and more so than chance alone gives one signal in twenty"
    return "that cannot be told from no skill at all"


def _decay(found: Signals) -> str:
    days, mean, t = strongest(found.decay)
    if math.isnan(days):
        return ""
    return (
        f"Of all horizons from 1 to {found.decay['horizon_days'].max()} days the IC stands out most at "
        f"{_days(int(days))}: {mean:+.3f}, t {t:+.1f}. The best of so many looks better than it is."
    )


def _quantiles(found: Signals) -> str:
    spread, means = found.spread, found.buckets["mean_return"].to_numpy()
    known = means[~np.isnan(means)]
    if spread.count == 0:
        return ""
    rises, compared = int((np.diff(known) > 0).sum()), "more" if spread.mean >= 0.0 else "less"
    return (
        f"The top of {found.quantiles} quantiles earned {bps(abs(spread.mean))} bps over {_days(found.horizon_days)} "
        f"{compared} than the bottom one ({_error(spread)}), and more at {spread.positive:.0%} of them; from one "
        f"quantile to the next the mean return rises in {rises} of {len(known) - 1} steps."
    )


def _costs(found: Signals) -> str:
    figures = found.figures
    if math.isnan(figures["turnover"]):
        return ""
    cost, gain = figures["cost_bps_daily"], figures["book_bps_daily"]
    said = (
        f"The implied book trades {figures['turnover']:.0%} of equity at a decision, which costs {cost:.2f} bps a day, "
        f"{figures['cost_yearly']:.1%} a year."
    )
    if math.isnan(gain):
        return said
    if gain <= 0.0:
        return f"{said} It lost {abs(gain):.2f} bps a day before any cost."
    rest = f"leaves {gain - cost:.2f}" if gain > cost else "is less than that"
    return (
        f"{said} Before costs and funding it earned {gain:.2f} bps a day, which {rest}; it breaks even at "
        f"{figures['breakeven_bps']:.1f} bps a dollar traded."
    )


def _persistence(found: Signals) -> str:
    by_lag = dict(zip(found.autocorrelation["lag"], found.autocorrelation["correlation"], strict=True))
    known = [(lag, value) for lag, value in by_lag.items() if lag in (1, 7, 30) and not math.isnan(value)]
    if not known:
        return ""
    said = ", ".join(f"{value:+.2f} after {lag}" for lag, value in known)
    return f"Its ranking resembles itself by {said} decision{'s' if known[-1][0] > 1 else ''}."


def _exposure(found: Signals) -> str:
    figures, said = found.figures, []
    if not math.isnan(figures["beta"]):
        said.append(
            f"The book has a beta of {figures['beta']:+.2f} to {MARKET} (correlation "
            f"{figures['market_correlation']:+.2f})."
        )
    for days in MOMENTUM_DAYS:
        value = figures[f"momentum_{days}d"]
        if not math.isnan(value):
            near = ": it is that momentum by another name" if abs(value) > 0.9 else ""
            said.append(f"Its rank correlation with the return of the last {days} days is {value:+.2f}{near}.")
    return " ".join(said)


def _coverage(found: Signals) -> str:
    tradable = found.daily["tradable"].mean()
    return f"It has a {found.kind} for {found.figures['coverage']:.0%} of the {tradable:.0f} coins tradable on average."


def _error(value: Mean) -> str:
    t = "t not defined" if math.isnan(value.t) else f"t {value.t:+.1f}"
    return f"{t}, Newey-West with lag {value.lag}, {value.count} decisions"


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


def _drawings(found: Signals) -> dict[str, Markup]:
    with charts.isolated_style():
        drawn = {**_of_the_signal(found), **_of_the_book(found)}
    return {name: Markup(svg) for name, svg in drawn.items()}


def _of_the_signal(found: Signals) -> dict[str, str]:
    """Charts of what the signal ranks."""
    daily, blue = found.daily, charts.COLOURS["price"]
    smooth = daily["ic"].rolling(SMOOTHED, min_periods=SMOOTHED // 2).mean()
    # Horizons that overlap are held side by side: each has a share of the money.
    shares = overlap(found.horizon_days, pace(pd.DatetimeIndex(daily.index))[0]) + 1
    spread = 1e4 * daily["spread"].fillna(0.0).cumsum() / shares
    return {
        "ic": charts.lines(
            "signals-ic",
            "Rank IC by decision",
            {"a decision": daily["ic"], f"mean of {SMOOTHED}": smooth},
            ["#c3cdd4", blue],
        ),
        "cumulative": charts.lines(
            "signals-cumulative", "Sum of the rank IC", {"sum": daily["ic"].fillna(0.0).cumsum()}, [blue], fill=True
        ),
        "decay": charts.bars(
            "signals-decay",
            "Mean rank IC by horizon in days",
            [str(days) for days in found.decay["horizon_days"]],
            found.decay["mean"].to_numpy(),
            1.96 * found.decay["error"].to_numpy(),
        ),
        "quantiles": charts.bars(
            "signals-quantiles",
            "Return of each quantile less that of all",
            _names(found.quantiles),
            1e4 * found.buckets["excess_return"].to_numpy(),
        ),
        "spread": charts.lines("signals-spread", "Sum of top less bottom in bps", {"sum": spread}, [blue], fill=True),
        "autocorrelation": charts.bars(
            "signals-autocorrelation",
            "Rank correlation of the signal with itself",
            [str(lag) for lag in found.autocorrelation["lag"]],
            found.autocorrelation["correlation"].to_numpy(),
        ),
        "coverage": charts.lines(
            "signals-coverage",
            "Coins tradable and with a signal",
            {"tradable": daily["tradable"], "with a signal": daily["scored"]},
            ["#9aa7b0", blue],
        ),
    }


def _of_the_book(found: Signals) -> dict[str, str]:
    """Charts of the weights that the signal makes, and of what they are exposed to."""
    daily, blue, orange = found.daily, charts.COLOURS["price"], charts.COLOURS["spread"]
    gain, cost = daily["book_return"].fillna(0.0), daily["cost"].fillna(0.0)
    book = {"before costs": gain.cumsum(), "after fee and spread": (gain - cost).cumsum()}
    momentum = {f"{days} days": daily[f"momentum_{days}d"] for days in MOMENTUM_DAYS}
    return {
        "turnover": charts.stems(
            "signals-turnover",
            "Turnover of each decision",
            daily["turnover"].iloc[1:],
            found.figures["turnover"] if len(daily) > 1 else 0.0,
        ),
        "book": charts.lines(
            "signals-book",
            "Sum of the returns of the implied book",
            book,
            [charts.COLOURS["net"], orange],
            percent=True,
        ),
        "beta": charts.lines("signals-beta", f"Rolling beta to {MARKET}", {"beta": daily["beta"]}, [orange], fill=True),
        "momentum": charts.lines("signals-momentum", "Rank correlation with momentum", momentum, [blue, orange]),
    }


def _names(quantiles: int) -> list[str]:
    middle = [str(number) for number in range(2, quantiles)]
    return ["bottom", *middle, "top"]
