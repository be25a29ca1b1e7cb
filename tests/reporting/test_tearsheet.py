"""Pages: numbers equal the run's, nothing leaks in or out, degenerate runs get words instead of a traceback."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.clock import show
from engine.errors import DataError
from engine.reporting import charts, tearsheet
from engine.reporting import html as pages_html
from engine.reporting import run_page as pages
from engine.reporting.run_section import run_section
from engine.runs import Run, load_run
from engine.simulation import metrics
from engine.simulation.backtest import backtest
from engine.simulation.result import FLOWS, Result
from helpers.made_runs import FLAT_DAYS, saved, simulated

pytestmark = pytest.mark.slow

NASTY = "<script>alert('x')</script> {{returns}} }}{{ $\\frac$ \"&"


def with_returns(run: Run, returns: np.ndarray) -> Run:
    """The same run with another equity: `returns` between its decision instants, all of it price profit."""
    index = pd.DatetimeIndex(run.equity.index)
    daily = 10_000.0 * np.cumprod(np.concatenate(([1.0], 1.0 + returns)))
    at = np.flatnonzero(index.hour == 23)[: len(daily)]
    equity = pd.Series(np.nan, index)
    equity.iloc[at] = daily[: len(at)]
    equity = equity.ffill().fillna(10_000.0)
    frame = pd.DataFrame(0.0, index, ["equity_usd", *FLOWS])
    frame["equity_usd"] = equity
    frame["price_pnl_usd"] = equity.diff().fillna(equity.iloc[0] - 10_000.0)
    total = float(equity.iloc[-1] - 10_000.0)
    numbers = {**run.record["metrics"], "equity_end_usd": float(equity.iloc[-1]), "total_return": total / 1e4}
    numbers |= {name: 0.0 for name in FLOWS} | {"price_pnl_usd": total, "days": len(returns)}
    return replace(run, equity=frame, record={**run.record, "metrics": numbers})


@pytest.fixture(scope="module")
def result() -> Result:
    return simulated()


@pytest.fixture(scope="module")
def run(result: Result, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return saved(result, tmp_path_factory.mktemp("runs") / "drift")


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    return tearsheet.write_tearsheet(run).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def nasty_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = simulated(synthetic=True, benchmark=False)
    nasty = saved(made, tmp_path_factory.mktemp("runs") / "nasty", NASTY, {NASTY: NASTY})
    return tearsheet.write_tearsheet(nasty).read_text(encoding="utf-8")


def shown(page: str, attribute: str) -> dict[str, float]:
    """The exact numbers that the page carries beside the rounded ones."""
    found = re.findall(rf'data-{attribute}="([^"]+)" data-value="([^"]*)"', page)
    return {name: float(value) if value else float("nan") for name, value in found}


def quantstats_row(page: str, label: str) -> str:
    """The strategy's cell (the last) of a row of QuantStats' table."""
    found = re.search(rf"<tr><td>{label}</td>(?:<td>[^<]*</td>)*?<td>([^<]*)</td></tr>", page)
    assert found, label
    return found.group(1)


def test_figures_are_those_of_the_record(run: Run, page: str) -> None:
    record = json.loads((run.folder / "run.json").read_text())["metrics"]
    tiles = shown(page, "metric")
    price, alpha, beta = (tiles.pop(name) for name in ("price_return", "alpha", "beta"))
    assert price == record["price_pnl_usd"] / record["equity_start_usd"] and "gross return" not in page
    theirs = pages.benchmark_returns(run)
    assert theirs is not None
    assert (alpha, beta) == metrics.alpha_beta(pages.daily_returns(run).to_numpy(), theirs.to_numpy())
    # Two decimals of QuantStats' own.
    assert (float(quantstats_row(page, "Alpha")), float(quantstats_row(page, "Beta"))) == (
        round(alpha, 2), round(beta, 2),
    )  # fmt: skip
    found = run.record["factor_attribution"]["parts"].get("residual", {"mean_year": np.nan, "t": np.nan})
    assert [tiles.pop("factor_alpha"), tiles.pop("factor_alpha_t")] == pytest.approx(list(found.values()), nan_ok=True)
    assert set(tiles) == {
        "total_return", "cagr", "sharpe", "volatility", "max_drawdown", "turnover_daily", "equity_end_usd",
    }  # fmt: skip
    assert tiles == {name: record[name] for name in tiles}
    text = re.search(r'data-metric="sharpe"[^>]*>([^<]+)<', page)
    assert text and text.group(1) == f"{record['sharpe']:,.2f}"


def test_attribution_adds_up_from_the_account_s_point_of_view(run: Run, page: str) -> None:
    record = run.record["metrics"]
    flows = shown(page, "flow")
    assert flows["price"] == record["price_pnl_usd"]
    assert flows["fees"] == -record["fee_usd"] < 0
    assert flows["spread"] == -record["spread_usd"] < 0
    assert flows["funding"] == -record["funding_usd"]
    net = flows.pop("net")
    assert net == pytest.approx(sum(flows.values()), abs=1e-9)
    assert record["equity_start_usd"] + net == pytest.approx(record["equity_end_usd"], abs=1e-6)
    assert f"= end {record['equity_end_usd']:,.2f} USD, to the cent." in page


def test_files_of_two_runs_are_noticed(run: Run, tmp_path: Path) -> None:
    mixed = replace(run, folder=tmp_path, equity=run.equity.assign(equity_usd=run.equity["equity_usd"] + 1.0))
    assert "This does not add up" in run_section(mixed, ())


def test_every_parameter_is_on_the_page(run: Run, page: str) -> None:
    text = html.unescape(page)
    for section, values in run.record["config"].items():
        for key, value in values.items():
            assert f"<dt>{section}.{key}</dt><dd><code>{pages_html.plain(value)}</code>" in text
    for digest in run.record["digests"].values():
        assert f'title="{digest}"' in text
    assert "<dt>lookback_hours</dt><dd><code>72</code>" in text
    assert "research.oracles.drift:Drift" in text
    assert "2025-06-01 12:34 UTC" in text
    for name, number in run.record["versions"].items():
        assert f"{name} {number}" in text


def test_quantstats_table_agrees_to_its_printed_precision(result: Result, page: str) -> None:
    numbers, daily = result.metrics, result.daily_returns.to_numpy()
    assert quantstats_row(page, "CAGR[^<]*") == f"{round(numbers['cagr'] * 100, 2)}%"
    assert float(quantstats_row(page, "Sharpe")) == round(numbers["sharpe"], 2)
    assert float(quantstats_row(page, "Sortino")) == round(numbers["sortino"], 2)
    assert quantstats_row(page, r"Volatility \(ann.\)") == f"{round(numbers['volatility'] * 100, 2)}%"
    deepest = metrics.max_drawdown(np.cumprod(1.0 + daily), 1.0)
    assert float(quantstats_row(page, "Max Drawdown").rstrip("%")) == pytest.approx(deepest * 100, abs=0.0051)


def test_the_page_counts_from_the_first_book_and_says_so(result: Result, page: str) -> None:
    """And shows what the calendar gives, for both figures differ."""
    assert result.metrics["days"] == 69 - FLAT_DAYS and result.metrics["days_calendar"] == 69
    assert "11 Dec, 2024 - 28 Jan, 2025" in page
    words = re.sub(r"<[^>]*>", "", page)
    assert "from the first decision that asks for something: 49 of 69 days, from 2024-12-10 23:00 UTC. Over" in words
    assert f"Sharpe {result.metrics['sharpe_calendar']:.2f}, volatility" in words
    assert f"{result.metrics['sharpe_calendar']:.2f}" != f"{result.metrics['sharpe']:.2f}"


def test_leading_flat_days_of_a_book_are_kept(run: Run, tmp_path: Path) -> None:
    # QuantStats would drop them and annualise over the days that are left.
    daily = np.concatenate((np.zeros(FLAT_DAYS), np.random.default_rng(2).normal(0.002, 0.01, 69 - FLAT_DAYS)))
    text = tearsheet.write_tearsheet(with_returns(replace(run, folder=tmp_path), daily)).read_text(encoding="utf-8")
    assert "21 Nov, 2024 - 28 Jan, 2025" in text
    assert float(quantstats_row(text, "Sharpe")) == round(metrics.sharpe(daily), 2)
    assert round(metrics.sharpe(daily), 2) != round(metrics.sharpe(daily[FLAT_DAYS:]), 2)


def test_daily_returns_are_those_of_the_result(result: Result, run: Run) -> None:
    own = pages.daily_returns(run)
    np.testing.assert_array_equal(own.to_numpy(), result.daily_returns.to_numpy())
    assert own.index.tz is None
    assert (own.index == result.daily_returns.index.tz_localize(None).normalize()).all()


def test_turnover_is_that_of_the_kernel(result: Result, run: Run) -> None:
    each = pages.turnover(run)
    np.testing.assert_allclose(each.to_numpy(), result.ledger.turnover, rtol=1e-9, atol=1e-12)
    assert each[FLAT_DAYS:].mean() == pytest.approx(run.record["metrics"]["turnover_decision"], rel=1e-9)
    assert each.mean() == pytest.approx(run.record["metrics"]["turnover_decision_calendar"], rel=1e-9)


def test_turnover_after_a_liquidation(tmp_path: Path) -> None:
    made = simulated(gross=60.0)
    assert made.liquidated_at is not None
    dead = saved(made, tmp_path / "dead")
    assert pages.turnover(dead)[FLAT_DAYS:].mean() == pytest.approx(made.metrics["turnover_decision"], rel=1e-9)


def test_turnover_of_an_account_below_zero_counts_as_none(tmp_path: Path) -> None:
    made = simulated(gross=60.0, account={"max_gross": 60.0, "margin": False})
    below = saved(made, tmp_path / "below")
    assert (made.ledger.turnover == 0.0).sum() > FLAT_DAYS
    np.testing.assert_allclose(pages.turnover(below).to_numpy(), made.ledger.turnover, rtol=1e-9, atol=1e-12)


def test_night_has_a_colour_for_every_colour_of_the_charts(page: str) -> None:
    """But for the cells of QuantStats' heat map and its boxes, which are read on any ground."""
    css = (Path(tearsheet.__file__).parent / "templates" / "palette.css").read_text(encoding="utf-8")
    night = set(re.findall(r"--c([0-9a-f]{6}):", css[css.index("@media") :]))
    assert {colour[1:] for colour in charts.COLOURS.values()} <= night
    strokes = set(re.findall(r"stroke: var\(--c([0-9a-f]{6})", page))
    assert strokes and strokes <= night


def test_benchmark_has_the_strategy_s_dates_and_never_a_later_price(run: Run) -> None:
    whole = pages.benchmark_returns(run)
    assert whole is not None
    assert whole.index.equals(pages.daily_returns(run).index)
    day = whole.index[30]
    hours = pd.DatetimeIndex(run.hourly.index).tz_convert("UTC")
    gone = run.hourly.copy()
    # The whole day up to and with its decision instant.
    gone.loc[hours.tz_localize(None).normalize() == day, "benchmark_usd"] = np.nan
    holed = pages.benchmark_returns(replace(run, hourly=gone))
    assert holed is not None
    assert holed.index.equals(whole.index)
    price = gone["benchmark_usd"]
    noon = {label: pd.Timestamp(label + pd.Timedelta(hours=23)).tz_localize("UTC") for label in whole.index[29:32]}
    before, missing, after = (noon[label] for label in whole.index[29:32])
    last = price[:missing].dropna().iloc[-1]
    # No price of that day: the last one before it stands, at 23:00 of the day before, so the return is 0.
    assert last == price[before]
    assert holed[day] == 0.0
    assert holed.iloc[31] == pytest.approx(price[after] / price[before] - 1.0, rel=1e-12)
    keep = [place for place in range(len(whole)) if place not in (30, 31)]
    np.testing.assert_array_equal(holed.iloc[keep].to_numpy(), whole.iloc[keep].to_numpy())


def test_benchmark_before_its_first_price(run: Run, tmp_path: Path) -> None:
    late = run.hourly.copy()
    late.iloc[: 24 * (FLAT_DAYS + 10), late.columns.get_loc("benchmark_usd")] = np.nan
    young = replace(run, folder=tmp_path, hourly=late)
    returns = pages.benchmark_returns(young)
    assert returns is not None
    assert not returns.iloc[:9].any()
    assert returns.iloc[10:].all()
    notes = tearsheet._benchmark_notes(young, pages.daily_returns(young))
    assert notes == ["BTC has no price before 2024-12-20 00:00 UTC; its return is 0 until then."]


def test_names_and_parameters_cannot_become_markup(nasty_page: str) -> None:
    assert nasty_page.count("<script") == nasty_page.count("<script>") == 2  # sort.js and hover.js
    assert nasty_page.count("&lt;script&gt;") >= 4 and "<script>alert" not in nasty_page
    assert nasty_page.count("<body") == nasty_page.count("</html>") == 1


def test_synthetic_is_said_only_of_synthetic_data(page: str, nasty_page: str) -> None:
    assert "SYNTHETIC" not in page
    assert nasty_page.count("SYNTHETIC DATA: made-up prices, not a market") == 1
    assert re.search(r"<title>[^<]*\(SYNTHETIC DATA\)</title>", nasty_page)


def test_no_benchmark_is_said(nasty_page: str, page: str) -> None:
    assert "No benchmark: the data of this run have no price of BTC." in nasty_page
    assert "No benchmark" not in page
    assert "Equity against BTC" in page and "Equity against" not in nasty_page
    assert "vs Benchmark" in page and "vs Benchmark" not in nasty_page


def test_page_loads_nothing(page: str, nasty_page: str) -> None:
    for text in (page, nasty_page):
        assert not re.search(r"<(link|iframe|img|object|embed)\b|<script \w|@import|url\((?!#)|\son\w+=", text)
        for target in re.findall(r'(?:src|href|action|data)\s*=\s*["\']([^"\']*)', text):
            assert target.startswith("#"), target
        assert text.count("<svg") >= 14 and len(text) < 2_000_000
        # Every chart has its values for the pointer.
        assert len(re.findall("<svg[^>]* data-hover=", text)) == text.count("<svg")


SCRIPT = """
import logging, os, sys, warnings
from pathlib import Path
import matplotlib, numpy as np
matplotlib.rcParams["font.size"] = 17.0
warnings.filterwarnings("error")
def state():
    names = ("matplotlib", "matplotlib.font_manager", "fontTools", "seaborn")
    levels = [(name, logging.getLogger(name).level, logging.getLogger(name).disabled) for name in names]
    root = logging.getLogger()
    rc = {key: str(value) for key, value in matplotlib.rcParams.items() if key != "backend"}
    return rc, list(warnings.filters), levels, root.level, list(root.handlers), np.geterr(), dict(os.environ)
before = state()
from engine.reporting.tearsheet import write_tearsheet
from engine.runs import load_run
run = load_run(Path(sys.argv[1]))
write_tearsheet(run)
for was, now in zip(before, state(), strict=True):
    assert was == now, (was, now)
sys.exit(3 if matplotlib.pyplot.get_fignums() else 0)
"""


def test_another_process_gives_the_same_bytes_silently_and_keeps_the_caller_s_settings(run: Run, page: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(Path(tearsheet.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(run.folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (run.folder / tearsheet.TEARSHEET).read_text(encoding="utf-8") == page


def test_only_the_page_is_written(run: Run, page: str) -> None:
    parts = ("equity", "trades", "weights", "hourly", "round_trips")
    names = {*(f"{name}.parquet" for name in parts), "run.json", "tearsheet.html"}
    assert page and {path.name for path in run.folder.iterdir()} - {"factors.parquet"} == names


def test_factors_stand_in_the_order_of_the_chart_with_the_residual_last(run: Run) -> None:
    """The record sorts names; rows and colours are those of the lines beside them."""
    names = ["market", "size", "momentum", "carry", "volatility", "residual"]
    parts = {name: {"mean_year": float(place), "t": 1.0} for place, name in enumerate(names)}
    attribution = {"days": 2, "lags": 1, "notes": [], "parts": dict(sorted(parts.items()))}
    made = replace(
        run,
        record={**run.record, "factor_attribution": attribution},
        factors=pd.DataFrame(0.01, index=run.equity.index[:2], columns=names),
    )
    shown_rows = re.findall(
        r'<span class="swatch"[^>]*></span>(\w+)</th>', run_section(made, ()).split("Factors</h2>")[1]
    )
    assert shown_rows[: len(names)] == names
    assert [tile.exact for tile in pages.tiles(made) if tile.name == "factor_alpha"] == [5.0]


def test_a_page_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Page .*tearsheet\.html cannot be written"):
        pages_html.write_page(tmp_path / "absent" / "tearsheet.html", "x")


def without_trades(days: int) -> Result:
    made = simulated(days=days)
    return backtest(made.panel, made.weights * 0.0, made.config)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: without_trades(70), "no daily return differs from zero"),
        (lambda: simulated(days=3), "needs at least 3 daily returns and this run has 2"),
        (lambda: simulated(days=1, execution={"hour_utc": 5}), "this run has 0"),
    ],
    ids=["no trades", "two returns", "no return"],
)
def test_runs_without_enough_to_measure(make: Callable[[], Result], words: str, tmp_path: Path) -> None:
    text = tearsheet.write_tearsheet(saved(make(), tmp_path / "run")).read_text(encoding="utf-8")
    assert "QuantStats' part is left out" in text
    assert words in text
    assert "Key Performance Metrics" not in text
    assert "to the cent." in text
    assert not re.search(r"(?<![a-z])(nan|inf|None)(?![a-z])", re.sub(r"<[^>]*>", " ", text))


def odd_returns(kind: str) -> np.ndarray:
    returns = np.abs(np.random.default_rng(1).normal(0.0, 0.01, 69)) + 1e-4
    if kind == "ruined":
        returns[40:] = [-1.0, *np.zeros(28)]
    if kind == "doubled":
        returns[5] = 1.4
    return returns


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("rising", "Key Performance Metrics"),
        ("ruined", "Key Performance Metrics"),
        ("doubled", "QuantStats mistakes such a series for prices"),
    ],
)
def test_odd_equity(run: Run, tmp_path: Path, kind: str, words: str) -> None:
    odd = with_returns(replace(run, folder=tmp_path), odd_returns(kind))
    text = tearsheet.write_tearsheet(odd).read_text(encoding="utf-8")
    assert words in text
    assert "to the cent." in text
    if kind == "ruined":
        assert quantstats_row(text, "Cumulative Return") == "-100.0%"


def test_equity_below_zero_and_a_constant_benchmark(tmp_path: Path) -> None:
    made = simulated(gross=60.0, account={"max_gross": 60.0, "margin": False})
    below = saved(made, tmp_path / "below")
    assert (below.equity["equity_usd"] < 0).any()
    below = replace(below, hourly=below.hourly.assign(benchmark_usd=50_000.0))
    text = tearsheet.write_tearsheet(below).read_text(encoding="utf-8")
    assert "lost more than its equity" in text
    assert quantstats_row(text, "CAGR[^<]*") == "-100.0%"
    assert "Margin calls and liquidation: equity may become negative." in text


def test_liquidation_is_prominent(tmp_path: Path) -> None:
    made = simulated(gross=60.0)
    dead = saved(made, tmp_path / "dead")
    instant = show(pd.Timestamp(dead.record["metrics"]["liquidated_at"]))
    assert f"LIQUIDATED at {instant}" in run_section(dead, ())


def test_a_damaged_record_is_an_error_of_the_user(run: Run) -> None:
    numbers = {name: value for name, value in run.record["metrics"].items() if name != "sharpe"}
    with pytest.raises(DataError, match=r"run\.json lacks metrics\.sharpe"):
        tearsheet.write_tearsheet(replace(run, record={**run.record, "metrics": numbers}))


def test_a_run_without_a_row_is_damaged(run: Run) -> None:
    with pytest.raises(DataError, match=r"equity\.parquet has no row"):
        tearsheet.write_tearsheet(replace(run, equity=run.equity.iloc[:0]))


@pytest.mark.parametrize("name", ["weights", "trades"])
def test_a_file_of_another_run_is_told_of(run: Run, tmp_path: Path, name: str) -> None:
    shutil.copytree(run.folder, tmp_path / "mixed")
    file = tmp_path / "mixed" / f"{name}.parquet"
    frame = pd.read_parquet(file)
    frame["time"] = frame["time"] + pd.Timedelta(days=4000)
    frame.to_parquet(file)
    with pytest.raises(DataError, match=rf"{name}\.parquet is not of this run"):
        load_run(tmp_path / "mixed")


def test_a_benchmark_that_quantstats_takes_for_prices_is_left_out(run: Run, tmp_path: Path) -> None:
    rising = pd.Series(np.linspace(1.0, 2.0, len(run.hourly)), run.hourly.index)
    rising.iloc[len(rising) // 2 :] *= 3.0
    odd = replace(run, folder=tmp_path, hourly=run.hourly.assign(benchmark_usd=rising))
    text = tearsheet.write_tearsheet(odd).read_text(encoding="utf-8")
    assert "BTC more than doubled in a day and never fell, so it is left out of QuantStats&#39; part." in text
    assert "Key Performance Metrics" in text and "vs Benchmark" not in text


def test_where_quantstats_fails_the_page_says_so(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        import matplotlib.pyplot as plt

        plt.figure()
        raise ZeroDivisionError("a week\nwithout days")

    monkeypatch.setattr("quantstats.plots.drawdown", fails)
    text = tearsheet.write_tearsheet(replace(run, folder=tmp_path)).read_text(encoding="utf-8")
    assert "it failed on these returns (ZeroDivisionError: a week without days)." in text
    assert "Key Performance Metrics" not in text and "to the cent." in text
    import matplotlib.pyplot as plt

    assert not plt.get_fignums()


def test_every_coin_is_listed_with_every_dollar(run: Run, page: str) -> None:
    rows = pages.coin_rows(run)
    assert [row["net"] for row in rows] == sorted((row["net"] for row in rows), reverse=True)
    assert {row["coin"] for row in rows} == set(run.record["coin_attribution"])
    numbers = run.record["metrics"]
    gained = numbers["equity_end_usd"] - numbers["equity_start_usd"]
    assert sum(row["net"] for row in rows) == pytest.approx(gained, abs=1e-6)
    assert all(f'<td class="t">{row["coin"]}</td>' in page for row in rows)
    assert f"<b>{gained:,.2f} USD</b> net" in page


def test_delistings_are_listed(run: Run, page: str) -> None:
    settled = run.trades[run.trades["reason"] == "delisting"]
    assert len(settled) == run.record["metrics"]["delistings"] == 2
    for time, coin in zip(settled["time"].tolist(), settled["coin"].tolist(), strict=True):
        assert f"<td>{show(time)}</td><td>{coin}</td>" in page


def test_hover_has_the_values_that_were_drawn(run: Run, page: str) -> None:
    charted = re.search(r'<svg class="large"[^>]* data-hover="([^"]*)"', page)
    assert charted
    top, bottom = json.loads(html.unescape(charted[1]))
    assert [line["name"] for line in top["series"]] == ["equity", "BTC held"]
    equity = run.equity["equity_usd"]
    hours = (np.cumsum(top["series"][0]["x"]) * 3_600_000_000_000).astype("datetime64[ns]")
    drawn = equity.loc[pd.DatetimeIndex(hours).tz_localize("UTC")]
    np.testing.assert_allclose(top["series"][0]["y"], drawn.to_numpy(), atol=0.0051)
    assert min(bottom["series"][0]["y"]) == pytest.approx(run.record["metrics"]["max_drawdown"] * 100, abs=0.0051)
    held = pages.benchmark_held(run)
    assert held is not None and held.iloc[0] == equity[held.index[0]] and held.index[0].hour == 23


def test_months_drawdowns_and_sides_are_those_of_the_tables(result: Result, page: str) -> None:
    words = re.sub(r"<[^>]*>", " ", page)
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page[page.index('class="months"') : page.index('class="years"')])
    # From December on: what lies outside the run is empty, not 0.00.
    assert len(cells) == 26 and [bool(cell) for cell in cells[:13]] == [False] * 11 + [True] * 2
    months = result.monthly()
    assert cells[11] == f"{months.loc[2024, 'Dec']:.1%}" and cells[13] == f"{months.loc[2025, 'Jan']:.1%}"
    assert "<b>open</b>" in page[page.index('class="drawdowns"') : page.index("Rolling figures")]
    sides = result.long_short()
    for side in ("long", "short"):
        row = re.search(rf"<th>{side}</th><td[^>]*>([^<]*)</td><td[^>]*>[^<]*%", page)
        assert row and row[1] == f"{sides.loc[side, 'net']:,.2f}"
    # A run of 49 days: nothing is said of 3, 5 or 10 years, of a year's best, or of half a year.
    assert not re.search(r"<td>(3Y|5Y|10Y|1Y|6M|3M|Best Year|Worst Month)\b", page)
    assert "Left out, because the run is too short for them:" in words and "over 14 days" in words


def test_the_verdict_of_a_sweep_is_on_its_winner_s_page_alone(run: Run, tmp_path: Path) -> None:
    def judged(parameters: dict[str, object], place: str = "sweep-a") -> pages.Judged | None:
        verdict = {
            "passed": False, "word": "refuted", "says": "Luck is enough. More words.",
            "digests": {"data": run.record["digests"]["data"]},
            "details": {"winner": {"parameters": parameters, "metrics": run.record["metrics"]}},
        }  # fmt: skip
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / "verdict.json").write_text(json.dumps(verdict, default=str))
        return pages.verdict_of(run.record, tmp_path / "drift")

    assert judged({"lookback_hours": 96}) is None and judged({"costs.taker_bps": 1.0}) is None
    assert judged({"lookback_hours": 72}) == pages.Judged("refuted", False, "Luck is enough.", "../sweep-a/index.html")
    assert pages.verdict_of(run.record, run.folder) is None
    inside = tmp_path / "sweep-a" / "top" / "drift"
    found = pages.verdict_of(run.record, inside)
    assert found is not None and found.page == "../../index.html"
    (tmp_path / "sweep-a" / "verdict.json").write_text("[]")
    assert pages.verdict_of(run.record, inside) is None
