"""What a notebook shows of results and studies: summaries, cards, plotly figures, and comparisons.

plotly is imported when a figure is made. Money is shown from the account's point of view: received positive, paid
negative, under a label that says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from engine.config import Report
from engine.data.benchmark import benchmark_price
from engine.errors import ConfigError, DataError, did_you_mean
from engine.provenance import as_json
from engine.reporting import charts
from engine.reporting.html import percent, ratio, span, usd
from engine.reporting.run_page import check_record, daily_returns, figure
from engine.runs import Run, load_run, run_of
from engine.simulation import metrics, tables
from engine.simulation.result import FLOWS, REPORTED, Result
from engine.simulation.tables import CAUSES, RECEIVED, SIGNS
from engine.sweeps.study import TEXTS

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from engine.sweeps.study import Study

#: Rows of a summary: figure -> its name, unit and meaning.
FIGURES: Mapping[str, tuple[str, str, str]] = {
    "total_return": ("net return", "fraction", "end equity / start equity - 1, after all costs"),
    "cagr": ("CAGR", "fraction a year", "of daily returns, a year of 365 days"),
    "volatility": ("volatility", "fraction a year", "of daily returns"),
    "sharpe": ("Sharpe", "ratio", "mean / standard deviation of daily returns * sqrt(365)"),
    "sortino": ("Sortino", "ratio", "mean / downside deviation of daily returns * sqrt(365)"),
    "max_drawdown": ("max drawdown", "fraction", "on hourly marks"),
    "calmar": ("Calmar", "ratio", "CAGR / max drawdown"),
    "days": ("days", "days", "daily returns from the first decision that asks for something"),
    "turnover_daily": ("turnover", "fraction", "traded notional / equity, mean over decisions"),
    "gross_mean": ("gross exposure", "fraction", "mean over decisions"),
    "net_mean": ("net exposure", "fraction", "mean over decisions"),
    "trades": ("trades", "count", "fills"),
}
#: Figures of a study's summary, beside money and errors.
STUDY_FIGURES = ("sharpe", "total_return", "cagr", "volatility", "max_drawdown", "turnover_daily", "trades")
MONEY: Mapping[str, str] = {name: f"{label} ({RECEIVED})" for name, label in CAUSES.items()}
#: Points of the curve of a card, and of a line of a figure.
CARD_POINTS, FIGURE_POINTS = 200, 20_000
#: How sets that share a cell of a heat map are put together.
AGGREGATES = ("mean", "median", "max", "min")


def summary(result: Result, benchmark: str | None = REPORTED) -> pd.DataFrame:
    """:meth:`engine.Result.summary`."""
    numbers = result.metrics
    rows = [(name, float(numbers[key]), unit, why) for key, (name, unit, why) in FIGURES.items()]
    price = price_of(result, benchmark)
    if price is not None:
        own = result.daily_returns
        other = tables.benchmark_returns(price, pd.DatetimeIndex(own.index))
        alpha, beta = metrics.alpha_beta(own.to_numpy(), other.to_numpy())
        rows += [
            ("alpha", alpha, "fraction a year", f"return that {price.name} does not explain"),
            ("beta", beta, "ratio", f"to {price.name}, of daily returns"),
        ]
    trips = tables.summed_trips(result.round_trips)
    rows += [
        ("round trips", float(trips["round_trips"]), "count", "positions from flat to flat that are closed"),
        ("win rate", float(trips["win_rate"]), "fraction", "of closed round trips"),
        ("profit factor", float(trips["profit_factor"]), "ratio", "won / lost, of closed round trips"),
        ("holding time", float(trips["hours_mean"]), "hours", "mean of closed round trips"),
        ("start equity", float(numbers["equity_start_usd"]), "USD", ""),
        *((CAUSES[name], SIGNS[name] * float(numbers[name]) + 0.0, RECEIVED, "of the whole run") for name in FLOWS),
        ("end equity", float(numbers["equity_end_usd"]), "USD", "start equity and the five rows above"),
    ]
    return pd.DataFrame(rows, columns=["figure", "value", "unit", "meaning"]).set_index("figure")


def study_summary(study: Study, by: str = "sharpe") -> pd.DataFrame:
    """:meth:`engine.Study.summary`."""
    table = study.table.iloc[study.ranking(by)]
    money = (table[list(FLOWS)] * SIGNS + 0.0).rename(columns=MONEY)
    own = [by, *(name for name in STUDY_FIGURES if name != by)]
    return pd.concat([table[own], money, table[["error"]]], axis=1)


def price_of(result: Result, benchmark: str | None) -> pd.Series | None:
    """Price of what a result is compared with, hourly; None for no benchmark, or a default that is not there.

    Raises
    ------
    ConfigError
        For a benchmark that was named and that neither the panel nor the cache has.
    """
    if benchmark is None:
        return None
    if benchmark == REPORTED:
        return benchmark_price(result.panel, result.config)
    price = benchmark_price(result.panel, replace(result.config, report=Report(benchmark=benchmark)))
    if price is None and benchmark == Report().benchmark:
        raise ConfigError(
            f"Neither the panel nor the cache has {benchmark} for a benchmark. Name a coin, or benchmark=None."
        )
    return price


def plot(result: Result, benchmark: str | None = REPORTED) -> go.Figure:
    """:meth:`engine.Result.plot`."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    start = result.config.account.initial_equity_usd
    step = -(-len(result.equity) // FIGURE_POINTS)
    rows = np.unique(np.append(np.arange(0, len(result.equity), step), len(result.equity) - 1))
    index = result.equity.index[rows]
    figure = make_subplots(
        rows=4,
        shared_xaxes=True,
        vertical_spacing=0.06,
        row_heights=[0.4, 0.2, 0.2, 0.2],
        subplot_titles=["equity, USD", "drawdown", "exposure, fraction of equity", "costs, cumulative, USD: paid -"],
    )

    def line(row: int, name: str, values: np.ndarray, colour: str, **options: Any) -> None:
        trace = go.Scatter(x=index, y=values, name=name, line={"width": 1.3, "color": colour}, **options)
        figure.add_trace(trace, row=row, col=1)

    line(1, "equity", result.equity.to_numpy()[rows], charts.COLOURS["price"])
    price, traded = price_of(result, benchmark), result.traded_equity
    if price is not None and len(traded):
        held = tables.benchmark_held(price, traded).reindex(result.equity.index)
        line(1, str(escape(f"{price.name} held")), held.to_numpy()[rows], charts.COLOURS["benchmark"])
    drawdown = metrics.drawdown(result.ledger.equity, start)[rows]
    line(2, "drawdown", drawdown, charts.COLOURS["loss"], fill="tozeroy")
    line(3, "gross", result.ledger.gross[rows], charts.COLOURS["price"])
    line(3, "net", result.ledger.net[rows], charts.COLOURS["spread"])
    paid = result.attribution.cumsum().to_numpy()[rows]
    for column, name in enumerate(FLOWS):
        if name != "price_pnl_usd" and paid[:, column].any():
            line(4, CAUSES[name], SIGNS[name] * paid[:, column], charts.COLOURS[CAUSES[name]])
    figure.update_layout(height=820, template="plotly_white", hovermode="x unified", title=title_of(result))
    figure.update_yaxes(tickformat=".0%", row=2, col=1)
    return figure


def title_of(result: Result) -> str:
    """Name of a result, with its data's nature, as HTML that plotly shows: escaped."""
    name = "Weights" if result.origin is None else result.origin.name
    return str(Markup("{}{}").format(name, " (SYNTHETIC DATA)" if result.panel.synthetic else ""))


def heatmap(study: Study, x: str, y: str, metric: str = "sharpe", aggregate: str = "mean") -> go.Figure:
    """:meth:`engine.Study.heatmap`."""
    import plotly.graph_objects as go

    names = [str(name) for name in study.table.index.names]
    for name in (x, y):
        if name not in names:
            raise ConfigError(
                f"{name!r} does not vary in the study {study.record['name']}.{did_you_mean(name, names)} Keys: "
                f"{', '.join(names)}."
            )
    columns = [str(name) for name in study.table if pd.api.types.is_numeric_dtype(study.table[name])]
    if metric not in columns:
        raise ConfigError(f"The study has no metric {metric!r}.{did_you_mean(metric, columns)}")
    if x == y or aggregate not in AGGREGATES:
        raise ConfigError(
            f"A heat map needs two different keys and an aggregate of {', '.join(AGGREGATES)}; these are {x!r}, {y!r} "
            f"and {aggregate!r}."
        )
    labels = [study.table.index.get_level_values(name).map(str) for name in (y, x)]
    order = [list(dict.fromkeys(map(str, study.record["grid"][name]))) for name in (y, x)]
    values = study.table[metric].groupby(labels).agg(aggregate)
    cells = pd.DataFrame(
        {column: [values.get((row, column), np.nan) for row in order[0]] for column in order[1]}, index=order[0]
    )
    trace = go.Heatmap(
        z=cells.to_numpy(),
        x=order[1],
        y=order[0],
        texttemplate="%{z:.2f}",
        colorscale="RdBu",
        zmid=0.0 if cells.min().min() < 0.0 < cells.max().max() else None,
        colorbar={"title": metric},
    )
    figure = go.Figure(trace)
    others = len(names) - 2
    figure.update_layout(
        template="plotly_white",
        title=f"{metric}, {aggregate} over {others} other keys" if others else metric,
        xaxis={"title": x, "type": "category"},
        yaxis={"title": y, "type": "category"},
    )
    return figure


def result_card(result: Result) -> str:
    """A result as HTML: key figures and a small curve."""
    numbers, coins = result.metrics, result.panel.coins
    tiles = [
        ("net return", percent(numbers["total_return"])),
        ("CAGR", percent(numbers["cagr"])),
        ("Sharpe", ratio(numbers["sharpe"])),
        ("volatility", percent(numbers["volatility"])),
        ("max drawdown", percent(numbers["max_drawdown"])),
        ("end equity", f"{usd(numbers['equity_end_usd'])} USD"),
    ]
    parameters = {} if result.origin is None else dict(result.origin.parameters)
    days = span(result.panel.index[0].isoformat(), result.panel.index[-1].isoformat())
    said = f"{days}, {len(coins):,} coins, {numbers['trades']:,} trades"
    return _card(title_of(result), _listed(parameters), said, tiles, result.ledger.equity, result.notes)


def study_card(study: Study) -> str:
    """A study as HTML: the figures of its best set, that set's curve where it is kept, and the first rows."""
    record, errors = study.record, [error for error in study.table["error"] if error]
    name = Markup("{}{}").format(record["name"], " (SYNTHETIC DATA)" if record.get("synthetic") else "")
    said, notes = (
        f"{len(study):,} sets, {len(errors):,} failed",
        [f"The first that failed: {one}" for one in errors[:1]],
    )
    try:
        row = int(study.best())
    except DataError:
        return _card(str(name), "no set has a Sharpe ratio", said, [], np.zeros(0), notes)
    numbers = study.table.iloc[row]
    tiles = [
        ("best Sharpe", ratio(float(numbers["sharpe"]))),
        ("net return", percent(float(numbers["total_return"]))),
        ("CAGR", percent(float(numbers["cagr"]))),
        ("max drawdown", percent(float(numbers["max_drawdown"]))),
        ("median Sharpe", ratio(float(study.table["sharpe"].median()))),
    ]
    daily = None if study.daily_returns is None else study.daily_returns.iloc[:, row].dropna().to_numpy()
    curve = np.zeros(0) if daily is None else np.cumprod(1.0 + daily)
    return _card(str(name), "best set: " + _listed(study.params(row)), said, tiles, curve, notes)


def _card(
    title: str, subtitle: str, said: str, tiles: Sequence[tuple[str, str]], curve: np.ndarray, notes: Sequence[str]
) -> str:
    """A card, everything but `title`, which is markup already, escaped."""
    cell = Markup('<div style="margin:0 1.6em .4em 0"><div style="opacity:.65;font-size:85%">{}</div><b>{}</b></div>')
    shown = Markup("").join(cell.format(label, text) for label, text in tiles)
    listed = Markup("").join(Markup('<div style="opacity:.75;font-size:85%">{}</div>').format(note) for note in notes)
    frame = Markup(
        '<div style="border:1px solid #8886;border-radius:6px;padding:.7em 1em;max-width:46em;font-family:sans-serif">'
        '<div><b style="font-size:115%">{}</b> <span style="opacity:.75">{}</span></div>'
        '<div style="opacity:.65;font-size:85%;margin-bottom:.5em">{}</div>'
        '<div style="display:flex;flex-wrap:wrap">{}</div>{}{}</div>'
    )
    return str(frame.format(Markup(title), subtitle, said, shown, _curve(curve), listed))


def _curve(values: np.ndarray) -> Markup:
    """A line of at most :data:`CARD_POINTS` points as an SVG; empty for fewer than two finite values."""
    finite = values[np.isfinite(values)]
    if len(finite) < 2:
        return Markup("")
    picked = finite[np.linspace(0, len(finite) - 1, min(CARD_POINTS, len(finite))).astype(int)]
    low, high = float(picked.min()), float(picked.max())
    height = 58.0 - 56.0 * (picked - low) / (high - low if high > low else 1.0)
    points = " ".join(f"{600.0 * k / (len(picked) - 1):.1f},{y:.1f}" for k, y in enumerate(height.tolist()))
    colour = charts.COLOURS["price"]
    return Markup(
        '<svg viewBox="0 0 600 60" style="width:100%;height:60px" role="img" aria-label="Equity" '
        'preserveAspectRatio="none"><polyline fill="none" stroke="{}" stroke-width="1.5" '
        'vector-effect="non-scaling-stroke" points="{}"/></svg>'
    ).format(colour, points)


def _listed(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in parameters.items())


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs side by side; see :func:`compare`.

    Attributes
    ----------
    names : tuple of str
        Of the runs, unique.
    config : DataFrame, (keys, R)
        Keys of config and parameters in which they differ, the oracle and the span where those do; missing where a run
        has no such key.
    metrics : DataFrame, (metrics, R)
        Costs (``fee_usd``, ``spread_usd``, ``impact_usd``, ``funding_usd``) are positive when they lower equity.
    curves : DataFrame, (T, R)
        Equity over that at the start, hourly; NaN outside a run's span.
    correlation : DataFrame, (R, R)
        Of daily returns on the UTC dates that two have in common.
    weights : DataFrame, (R, 4)
        Each against the first, over the decisions of both: ``decisions`` in common, ``distance`` (mean of
        ``sum(abs(w - w_first))``, holds counting as the row before), ``correlation`` of all weights, and ``most``, the
        coin whose weight differs most on average.
    """

    names: tuple[str, ...]
    config: pd.DataFrame
    metrics: pd.DataFrame
    curves: pd.DataFrame
    correlation: pd.DataFrame
    weights: pd.DataFrame

    def __repr__(self) -> str:
        return f"Comparison({', '.join(self.names)}: {len(self.config):,} settings differ)"

    def plot(self) -> go.Figure:
        """The curves, as a plotly figure."""
        import plotly.graph_objects as go

        step = -(-len(self.curves) // FIGURE_POINTS)
        shown = self.curves.iloc[::step]
        lines = [go.Scatter(x=shown.index, y=shown[name], name=str(escape(name))) for name in self.names]
        figure = go.Figure(lines)
        figure.update_layout(template="plotly_white", hovermode="x unified", title="equity / equity at the start")
        return figure

    def _repr_html_(self) -> str:
        figures = pd.concat(
            [
                self.metrics.loc[list(FIGURES)].rename({key: name for key, (name, *_) in FIGURES.items()}),
                self.metrics.loc[list(FLOWS)].mul(pd.Series(SIGNS), axis=0).add(0.0).rename(MONEY),
            ]
        ).astype(float)
        parts = [("Settings that differ", self.config.fillna("")), ("Figures", figures)]
        parts += [
            ("Correlation of daily returns", self.correlation),
            (f"Weights against {self.names[0]}", self.weights),
        ]
        return str(
            Markup("").join(
                Markup("<h4>{}</h4>{}").format(title, Markup(frame.to_html(escape=True, float_format=_short)))
                for title, frame in parts
            )
        )


def _short(value: float) -> str:
    return f"{value:,.3f}".rstrip("0").rstrip(".")


def compare(*runs: Result | Run | Path | str, names: Sequence[str] | None = None) -> Comparison:
    """Put runs side by side: settings, metrics, curves, correlation, weights.

    Parameters
    ----------
    *runs : Result, Run, or path
        Two or more; a path is that of a run folder, or its name below ``reports``.
    names : sequence of str, optional
        One a run. Default: the oracle of a result and the folder of a run, with a number where two are the same.

    Returns
    -------
    Comparison

    Raises
    ------
    ConfigError
        For fewer than two, anything else than these, or names that do not fit.
    DataError
        For a folder that holds no run.
    """
    strange = [type(one).__name__ for one in runs if not isinstance(one, Result | Run | Path | str)]
    if strange or len(runs) < 2:
        problem = f"{strange[0]} is none" if strange else f"{len(runs)} given"
        raise ConfigError(
            f"compare() takes two or more results of backtest(), runs or run folders, {problem}. A set: "
            "study.best().result()."
        )
    read = [_as_run(one) for one in runs]
    if names is None:
        plain = [
            str(run.record["origin"]["name"]) if isinstance(one, Result) else run.folder.name
            for one, run in zip(runs, read, strict=True)
        ]
        names = [f"{name} {place}" if plain.count(name) > 1 else name for place, name in enumerate(plain, 1)]
    if len(names) != len(read) or len(set(names)) != len(names):
        raise ConfigError(f"names = {list(names)!r}: {len(read)} different names are needed.")
    named = dict(zip(names, read, strict=True))
    config = pd.DataFrame({name: _settings(run.record) for name, run in named.items()}, dtype=object)
    config = config[[len(set(map(repr, row))) > 1 for row in config.to_numpy()]]
    curves = {name: run.equity["equity_usd"] / figure(run.record, "equity_start_usd") for name, run in named.items()}
    daily = pd.DataFrame({name: daily_returns(run) for name, run in named.items()})
    numbers = pd.DataFrame({name: _numbers(run.record) for name, run in named.items()}, dtype=object)
    weights = pd.DataFrame([_distance(read[0].weights, run.weights) for run in read], index=list(names))
    return Comparison(tuple(names), config, numbers, pd.DataFrame(curves), daily.corr(min_periods=2), weights)


def _as_run(given: Result | Run | Path | str) -> Run:
    """The run of a result, or of a folder: as named, or below ``reports``."""
    if isinstance(given, Result):
        return run_of(given)
    if isinstance(given, Run):
        return given
    below = Path("reports") / given
    run = load_run(below if below.is_dir() and not Path(given).is_dir() else given)
    check_record(run.record, run.folder)
    return run


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """All that a run was made with, by name, as JSON has it."""
    config = {f"{section}.{key}": value for section, keys in record["config"].items() for key, value in keys.items()}
    parts = (record["origin"]["parameters"], config, {f"span.{key}": value for key, value in record["span"].items()})
    ordered = {key: value for part in parts for key, value in sorted(part.items())}
    said: dict[str, Any] = as_json({"oracle": record["origin"]["path"], **ordered})
    return said


def _numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics, those of a summary first; NaN where one is not defined, which files have as null."""
    given = record["metrics"]
    return {
        name: np.nan if given.get(name) is None and name not in TEXTS else given[name]
        for name in [*FIGURES, *sorted(set(given) - set(FIGURES))]
    }


def _distance(first: pd.DataFrame, other: pd.DataFrame) -> dict[str, Any]:
    """How weights differ from others, both (D, coins)."""
    own, base = (weights.ffill().fillna(0.0) for weights in (other, first))
    common = own.index.intersection(base.index)
    coins = own.columns.union(base.columns)
    one, two = (frame.loc[common].reindex(columns=coins, fill_value=0.0) for frame in (own, base))
    apart = (one - two).abs()
    flat_one, flat_two = one.to_numpy().ravel(), two.to_numpy().ravel()
    moves = len(common) and np.ptp(flat_one) > 0.0 and np.ptp(flat_two) > 0.0
    return {
        "decisions": len(common),
        "distance": float(apart.sum(axis=1).mean()),
        "correlation": float(np.corrcoef(flat_one, flat_two)[0, 1]) if moves else np.nan,
        "most": str(apart.mean().idxmax()) if len(common) and apart.to_numpy().any() else "",
    }
