"""What a notebook shows: figures that are those of the metrics, signs that say which, names that stay text."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine import Panel, Result, Run, RunConfig, Study, backtest, compare, load_run, load_study, sweep
from engine.errors import ConfigError, DataError, HlbtError
from engine.provenance import Origin
from engine.simulation import metrics
from engine.simulation.result import FLOWS
from helpers.panels import random_panel
from research.oracles.momentum import Momentum

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def panel() -> Panel:
    return random_panel(5, 24 * 60, 6, impact=True)


@pytest.fixture(scope="module")
def result(panel: Panel) -> Result:
    return backtest(panel, Momentum(lookback_hours=24, n=1), RunConfig.from_dict({"costs": {"impact": "venue"}}))


@pytest.fixture(scope="module")
def study(panel: Panel) -> Study:
    return sweep(panel, Momentum, {"lookback_hours": [24, 72], "n": [1, 2], "execution.hour_utc": [23, 8]})


def test_a_summary_has_money_with_its_sign_and_adds_up(result: Result) -> None:
    table = result.summary()
    value, unit = table["value"], table["unit"]
    for label, name in (("fees", "fee_usd"), ("spread", "spread_usd"), ("funding", "funding_usd")):
        assert value[label] == -result.metrics[name] and unit[label] == "USD, received +, paid -"
    money = value[["start equity", "price", "spread", "impact", "fees", "funding"]].sum()
    assert money == pytest.approx(value["end equity"], rel=1e-12)
    assert value["net return"] == result.metrics["total_return"] and value["Sharpe"] == result.metrics["sharpe"]
    days = result.daily_returns.index
    price = result.panel.frame("mid")["BTC"]
    other = price[days].to_numpy() / price[days - pd.Timedelta(days=1)].to_numpy() - 1
    assert value["beta"] == pytest.approx(metrics.alpha_beta(result.daily_returns.to_numpy(), other)[1])
    assert not {"alpha", "beta"} & set(result.summary(None).index)
    with pytest.raises(ConfigError, match=r"report.benchmark = 'ETHE' is no coin of the data.*Did you mean 'ETH'"):
        result.summary("ETHE")


def test_the_figure_has_the_ledgers_numbers(result: Result) -> None:
    traces = {trace.name: np.asarray(trace.y, dtype=float) for trace in result.plot().data}
    np.testing.assert_array_equal(traces["equity"], result.equity)
    np.testing.assert_array_equal(traces["gross"], result.exposure["gross_frac"])
    assert traces["drawdown"].min() == result.metrics["max_drawdown"]
    for label, name in (("fees", "fee_usd"), ("impact", "impact_usd"), ("funding", "funding_usd")):
        assert traces[label][-1] == pytest.approx(-result.metrics[name])
    assert "BTC held" in traces and "BTC held" not in {trace.name for trace in result.plot(None).data}


def test_names_cannot_become_markup(result: Result, study: Study) -> None:
    named = replace(
        result,
        origin=Origin(EVIL, "oracle", EVIL, {EVIL: EVIL}, ""),
        notes=(EVIL,),
        panel=replace(result.panel, notes=()),
    )
    odd = replace(study, record={**study.record, "name": EVIL})
    shown = [named._repr_html_(), odd._repr_html_(), compare(named, result, names=[EVIL, "b"])._repr_html_()]
    shown += [str(named.plot().layout.title.text)]
    for text in shown:
        assert "<script" not in text and "&lt;script&gt;" in text
    assert "<svg" in shown[0] and "Sharpe" in shown[0] and "best Sharpe" in shown[1]


def test_a_result_of_nothing_has_every_view(panel: Panel) -> None:
    rows = panel.index[panel.index.hour == 23]
    idle = backtest(panel, pd.DataFrame(0.0, index=rows, columns=panel.coins))
    assert idle.monthly().empty and idle.yearly().empty and idle.round_trips.empty
    assert idle.trades_summary()["net"].tolist() == [0.0] and idle.long_short()["net"].tolist() == [0.0] * 3
    assert idle.summary()["value"]["trades"] == 0 and "<svg" in idle._repr_html_() and idle.plot().data
    assert compare(idle, idle).correlation.isna().all(axis=None)


def test_the_best_set_is_an_object_and_the_row_that_it_was(study: Study) -> None:
    best = study.best()
    assert best == int(study.ranking()[0]) and study.table.iloc[best].name == study.table.index[best]
    assert best.parameters == study.params(best) and best.metrics["sharpe"] == study["sharpe"].iloc[best]
    assert best.set.config.execution.hour_utc == best.parameters["execution.hour_utc"]
    assert best.result().metrics["sharpe"] == pytest.approx(best.metrics["sharpe"], rel=1e-9)
    for copied in (copy.deepcopy(best), pickle.loads(pickle.dumps(best))):
        assert copied == best and copied.parameters == best.parameters
    for name in ("monthly", "yearly", "trades_summary", "long_short"):
        pd.testing.assert_frame_equal(getattr(study, name)(), getattr(best.result(), name)())
    assert study.plot().data and "fees (USD, received +, paid -)" in study.summary()
    assert study.summary()["sharpe"].iloc[0] == best.metrics["sharpe"]


def test_returns_of_a_set_and_of_its_run_have_one_index(study: Study, tmp_path: Path) -> None:
    """Also where sets decide at several hours, and after a study was written and read."""
    kept = load_study(study.save(tmp_path / "study"))
    pd.testing.assert_frame_equal(kept.table, study.table)
    assert study.daily_returns is not None and kept.daily_returns is not None
    pd.testing.assert_frame_equal(kept.daily_returns, study.daily_returns, check_freq=False)
    for row in range(len(study)):
        one = study.parameter_set(row)
        alone = backtest(study.market(), one.build(), one.config).daily_returns
        of = study.daily_returns.iloc[:, row].dropna()
        pd.testing.assert_series_equal(of, alone, check_names=False, check_freq=False, rtol=1e-9)
    joint, dates, sets = study.joint
    assert len(sets) == len(study) and len(joint) == len(dates) and not dates.has_duplicates
    with pytest.raises(DataError, match="is not empty"):
        study.save(tmp_path / "study")
    with pytest.raises(HlbtError):  # no cache here, or another panel in it
        kept.best().result()
    assert kept.best().result(study.market()).metrics["sharpe"] == pytest.approx(study.best().metrics["sharpe"])


def test_a_heat_map_shows_the_table(study: Study) -> None:
    trace = study.heatmap("n", "lookback_hours", "cagr", "max").data[0]
    expected = study["cagr"].groupby(level=["lookback_hours", "n"]).max().to_numpy().reshape(2, 2)
    np.testing.assert_allclose(np.asarray(trace.z, dtype=float), expected)
    assert list(trace.x) == ["1", "2"] and list(trace.y) == ["24", "72"]
    for wrong, message in (
        (("n", "lookback"), r"'lookback' does not vary.*Did you mean 'lookback_hours'"),
        (("n", "n"), "two different keys"),
        (("n", "lookback_hours", "sharp"), r"no metric 'sharp'\. Did you mean 'sharpe'"),
        (("n", "lookback_hours", "sharpe", "sum"), "aggregate of mean"),
    ):
        with pytest.raises(ConfigError, match=message):
            study.heatmap(*wrong)


def test_a_comparison_says_what_differs(panel: Panel, result: Result) -> None:
    other = backtest(panel, Momentum(lookback_hours=48, n=1), RunConfig.from_dict({"costs": {"taker_bps": 1.0}}))
    seen = compare(result, other, result)
    assert seen.names == ("Momentum 1", "Momentum 2", "Momentum 3")
    assert seen.config.index.tolist() == ["lookback_hours", "costs.impact", "costs.taker_bps"]
    assert seen.config.loc["lookback_hours"].tolist() == [24, 48, 24]
    assert seen.metrics.loc["sharpe"].tolist() == [one.metrics["sharpe"] for one in (result, other, result)]
    assert seen.curves["Momentum 2"].iloc[-1] == pytest.approx(1 + other.metrics["total_return"])
    assert seen.correlation.loc["Momentum 1", "Momentum 3"] == pytest.approx(1.0)
    apart = (other.weights - result.weights).abs()
    assert seen.weights["distance"].tolist() == pytest.approx([0.0, apart.sum(axis=1).mean(), 0.0])
    assert seen.weights.loc["Momentum 2", "most"] == apart.mean().idxmax() and len(seen.plot().data) == 3
    assert set(FLOWS) <= set(seen.metrics.index)
    for wrong in ((result,), (result, 5)):
        with pytest.raises(ConfigError, match="two or more results of backtest"):
            compare(*wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="2 different names"):
        compare(result, other, names=["a", "a"])


def test_folders_and_names_are_compared_as_their_results_are(
    panel: Panel, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    late = RunConfig.from_dict({"execution": {"hour_utc": 8}, "costs": {"taker_bps": 1.0}})
    other = backtest(panel, Momentum(lookback_hours=48, n=1), late)
    first, second = (
        one.save(tmp_path / "reports" / name, tearsheet=False) for one, name in ((result, "a"), (other, "b"))
    )
    live = compare(result, other, names=["a", "b"])
    pairs: list[tuple[Result | Run | Path | str, ...]] = [(first, str(second)), ("a", "b"), (load_run(first), other)]
    for pair in pairs:
        seen = compare(*pair, names=["a", "b"])
        for name in ("config", "metrics", "curves", "correlation", "weights"):
            pd.testing.assert_frame_equal(getattr(seen, name), getattr(live, name), check_freq=False)
    assert compare("a", "b").names == ("a", "b") and "Sharpe" in compare("a", "b")._repr_html_()
    # Days that end at 23:00 and at 8:00 meet by date.
    one, two = (item.daily_returns.rename(lambda day: day.date()) for item in (result, other))
    assert live.correlation.loc["a", "b"] == pytest.approx(one.corr(two)) and live.weights.loc["b", "decisions"] == 0
    with pytest.raises(DataError, match="nowhere is no run folder"):
        compare("a", "nowhere")


def test_the_benchmark_of_the_config_is_the_one_of_a_notebook(panel: Panel, result: Result, tmp_path: Path) -> None:
    returns = pd.Series(np.linspace(-0.01, 0.02, 60), panel.index[panel.index.hour == 23], name="index")
    returns.to_csv(tmp_path / "own_index.csv")
    for benchmark, name in (("ETH", "ETH"), (str(tmp_path / "own_index.csv"), "own_index"), ("none", None)):
        config = RunConfig.from_dict({**result.config.to_dict(), "report": {"benchmark": benchmark}})
        own = replace(result, config=config)
        pd.testing.assert_frame_equal(own.summary(), result.summary(benchmark))
        assert ("beta" in own.summary().index) == (name is not None)
        lines = {trace.name: np.asarray(trace.y, dtype=float) for trace in own.plot().data}
        assert [line for line in lines if line.endswith(" held")] == [f"{name} held"] * (name is not None)
        if name == "ETH":
            assert own.summary().loc["beta", "meaning"] == "to ETH, of daily returns"
            price = panel.frame("mid")["ETH"]
            start, first = result.first_decision, lines["ETH held"][~np.isnan(lines["ETH held"])]
            assert first[0] == result.equity[start] and len(first) == len(panel.index[panel.index >= start])
            assert first[-1] / first[0] == pytest.approx(price.iloc[-1] / price[start])


def test_a_card_of_a_study_says_why_sets_failed(panel: Panel) -> None:
    study = sweep(panel, Momentum, {"lookback_hours": [24, 72], "n": [1], "gross": [1.0, 3.0]})
    assert "4 sets, 2 failed" in study._repr_html_() and "account.max_gross" in study._repr_html_()
    assert repr(study).endswith("4 sets of lookback_hours, n, gross, 2 failed)")


def test_a_verdict_is_asked_of_the_study_itself(study: Study) -> None:
    assert study.verdict().checks
