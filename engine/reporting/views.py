"""What a notebook shows of results and studies: summaries, cards, plotly figures, and comparisons.

plotly is imported when a figure is made. Money is shown from the account's point of view: received positive, paid
negative, under a label that says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from engine.errors import ConfigError, DataError, did_you_mean, join_first
from engine.reporting import charts
from engine.reporting.html import percent, ratio, span, usd
from engine.reporting.run_page import daily_returns, figure
from engine.runs import BENCHMARK, Run
from engine.simulation import metrics
from engine.simulation.result import FLOWS, Result
from engine.simulation.tables import CAUSES, SIGNS, benchmark_returns

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from engine.panel import Panel
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
RECEIVED = "USD, received + / paid -"
#: Points of the curve of a card, and of a line of a figure.
CARD_POINTS, FIGURE_POINTS = 200, 20_000
#: How sets that share a cell of a heat map are put together.
AGGREGATES = ("mean", "median", "max", "min")


def summary(result: Result, benchmark: str | None = BENCHMARK) -> pd.DataFrame:
    """:meth:`engine.Result.summary`."""
    numbers = result.metrics
    rows = [(name, float(numbers[key]), unit, why) for key, (name, unit, why) in FIGURES.items()]
    other = benchmark_of(result.panel, result.daily_returns, benchmark)
    if other is not None:
        alpha, beta = metrics.alpha_beta(result.daily_returns.to_numpy(), other.to_numpy())
        rows += [
            ("alpha", alpha, "fraction a year", f"return that {benchmark} does not explain"),
            ("beta", beta, "ratio", f"to {benchmark}, of daily returns"),
        ]
    trips = result.trades_summary().iloc[0]
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
    money = table[list(FLOWS)] * SIGNS + 0.0
    renamed = money.rename(columns={name: f"{label} (USD, received +, paid -)" for name, label in CAUSES.items()})
    own = [by, *(name for name in STUDY_FIGURES if name != by)]
    return pd.concat([table[own], renamed, table[["error"]]], axis=1)


def benchmark_of(panel: Panel, returns: pd.Series, benchmark: str | None) -> pd.Series | None:
    """Daily returns of a coin over the days of `returns`; None for no benchmark, or one by default that is not there.

    Raises
    ------
    DataError
        For a coin that the panel lacks.
    """
    if benchmark is None or (benchmark == BENCHMARK and benchmark not in panel.coins):
        return None
    if benchmark not in panel.coins:
        raise DataError(
            f"The panel has no coin {benchmark!r} for a benchmark.{did_you_mean(benchmark, panel.coins)} Name one of "
            f"its coins, or benchmark=None: {join_first(panel.coins)}."
        )
    return benchmark_returns(panel.frame("mid")[benchmark], pd.DatetimeIndex(returns.index))


def plot(result: Result, benchmark: str | None = BENCHMARK) -> go.Figure:
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
    if benchmark_of(result.panel, result.daily_returns, benchmark) is not None:
        price = result.panel.frame("mid")[benchmark].ffill().bfill().to_numpy()
        first = (
            0 if result.first_decision is None else int(result.panel.rows(pd.DatetimeIndex([result.first_decision]))[0])
        )
        line(1, f"{benchmark}, held", (start * price / price[first])[rows], charts.COLOURS["faint"])
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
    record, failed = study.record, int((study.table["error"] != "").sum())
    name = Markup("{}{}").format(record["name"], " (SYNTHETIC DATA)" if record.get("synthetic") else "")
    said = f"{len(study):,} sets, {failed:,} failed"
    try:
        row = int(study.best())
    except DataError:
        return _card(str(name), "no set has a Sharpe ratio", said, [], np.zeros(0), ())
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
    return _card(str(name), "best set: " + _listed(study.params(row)), said, tiles, curve, ())


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
    """Results side by side; see :func:`compare`.

    Attributes
    ----------
    names : tuple of str
        Of the results, unique.
    config : DataFrame, (keys, R)
        Keys of config and parameters in which they differ, and the span where it does.
    metrics : DataFrame, (metrics, R)
    curves : DataFrame, (T, R)
        Equity over that at the start, hourly; NaN outside a result's span.
    correlation : DataFrame, (R, R)
        Of daily returns on the days that two have in common.
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

    def plot(self) -> go.Figure:
        """The curves, as a plotly figure."""
        import plotly.graph_objects as go

        step = -(-len(self.curves) // FIGURE_POINTS)
        shown = self.curves.iloc[::step]
        figure = go.Figure([go.Scatter(x=shown.index, y=shown[name], name=_plotly_text(name)) for name in self.names])
        figure.update_layout(template="plotly_white", hovermode="x unified", title="equity / equity at the start")
        return figure

    def _repr_html_(self) -> str:
        parts = [("Differences of config", self.config), ("Metrics", self.metrics), ("Correlation", self.correlation)]
        shown = [*parts, (f"Weights against {self.names[0]}", self.weights)]
        return str(
            Markup("").join(
                Markup("<h4>{}</h4>{}").format(title, Markup(frame.to_html(escape=True))) for title, frame in shown
            )
        )


def _plotly_text(text: str) -> str:
    return str(Markup("{}").format(text))


def compare(*results: Result, names: Sequence[str] | None = None) -> Comparison:
    """Put results side by side: config, metrics, curves, correlation, weights.

    Parameters
    ----------
    *results : Result
        Two or more.
    names : sequence of str, optional
        One a result. Default: the oracles', with a number where two are the same.

    Returns
    -------
    Comparison

    Raises
    ------
    ConfigError
        For fewer than two, anything else than results, or names that do not fit.
    """
    strange = [type(result).__name__ for result in results if not isinstance(result, Result)]
    if strange or len(results) < 2:
        problem = f"{strange[0]} is none" if strange else f"{len(results)} given"
        raise ConfigError(
            f"compare() takes two or more results of backtest(), {problem}. A set: study.best().result()."
        )
    if names is None:
        plain = ["Weights" if result.origin is None else result.origin.name for result in results]
        names = [f"{name} {place}" if plain.count(name) > 1 else name for place, name in enumerate(plain, 1)]
    if len(names) != len(results) or len(set(names)) != len(names):
        raise ConfigError(f"names = {list(names)!r}: {len(results)} different names are needed.")
    sides = [
        _Side(
            _settings(
                "weights" if result.origin is None else result.origin.path,
                {} if result.origin is None else result.origin.parameters,
                result.config.to_dict(),
                result.panel.span,
            ),
            result.metrics,
            result.equity / result.config.account.initial_equity_usd,
            result.daily_returns,
            result.weights,
        )
        for result in results
    ]
    return _compared(names, sides)


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """:func:`compare` of two or more run folders, named by them.

    Raises
    ------
    ConfigError
        When a folder is named twice.
    """
    names = [run.folder.name for run in runs]
    if len(set(names)) < len(names):
        raise ConfigError(f"{join_first(names)}: a run is compared with others, not with itself. Name each once.")
    sides = []
    for run in runs:
        record = run.record
        origin = record["origin"]
        sides.append(
            _Side(
                _settings(origin["path"], origin["parameters"], record["config"], record["span"]),
                record["metrics"],
                run.equity["equity_usd"] / figure(record, "equity_start_usd"),
                daily_returns(run),
                run.weights,
            )
        )
    return _compared(names, sides)


@dataclass(frozen=True, eq=False)
class _Side:
    """What is compared of a result: settings, metrics, curve (T,), daily returns (days,), weights (D, N)."""

    settings: Mapping[str, Any]
    metrics: Mapping[str, Any]
    curve: pd.Series
    daily: pd.Series
    weights: pd.DataFrame


def _compared(names: Sequence[str], sides: Sequence[_Side]) -> Comparison:
    config = pd.DataFrame({name: side.settings for name, side in zip(names, sides, strict=True)}, dtype=object)
    config = config[[len(set(map(repr, row))) > 1 for row in config.to_numpy()]]
    curves = pd.DataFrame({name: side.curve for name, side in zip(names, sides, strict=True)})
    daily = pd.DataFrame({name: side.daily for name, side in zip(names, sides, strict=True)})
    numbers = pd.DataFrame({name: side.metrics for name, side in zip(names, sides, strict=True)}, dtype=object)
    weights = pd.DataFrame([_distance(sides[0].weights, side.weights) for side in sides], index=list(names))
    return Comparison(tuple(names), config, numbers, curves, daily.corr(min_periods=2), weights)


def _settings(
    path: str, parameters: Mapping[str, Any], config: Mapping[str, Mapping[str, Any]], span: Mapping[str, Any]
) -> dict[str, Any]:
    """All that a result was made with, by name."""
    return {
        "oracle": path,
        **parameters,
        **{f"{section}.{key}": value for section, keys in config.items() for key, value in keys.items()},
        **{f"span.{key}": value for key, value in span.items()},
    }


def _distance(first: pd.DataFrame, other: pd.DataFrame) -> dict[str, Any]:
    """How weights differ from others, (D, N) each."""
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
