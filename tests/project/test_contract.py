"""The contract from the outside: names, forms, files and numbers that users and other programs rely on, by hand."""

from __future__ import annotations

import datetime
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from math import floor, sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import (
    Coin,
    Oracle,
    Panel,
    PaperDEX,
    PortfolioManager,
    RunConfig,
    backtest,
    backtest_many,
    sweep,
)
from engine.errors import ConfigError, HlbtError, OracleError, WeightsError
from engine.lookahead.audit import check_causal
from engine.oracles.base import weight_matrix
from engine.weights import validate_weights
from helpers.commands import Hlbt
from helpers.live_world import open_world
from research.oracles.numerai import NumeraiTBNOracle

MODULES = (
    "errors clock config panel weights runs cli simulation.kernel simulation.sizing simulation.backtest "
    "simulation.result simulation.metrics oracles.base lookahead.audit sweeps.sweep validation.validate "
    "reporting.tearsheet promotion.promote data.schema data.s3_bucket data.sync_api data.freqtrade commands.sample "
    "data.cache live.orders live.dex live.hyperliquid live.paper live.planner live.portfolio_manager live.journal"
).split()
DEFAULTS = {
    "data": {"cache": None, "start": None, "end": None, "coins": None},
    "execution": {
        "hour_utc": 23,
        "every_days": 1,
        "delay_hours": 0,
        "min_notional_usd": 10,
        "lots": True,
        "no_trade_band_frac": 0,
        "untradable": "cash",
        "stale_hours": 24,
    },
    "costs": {"taker_bps": "schedule", "half_spread_bps": 2.0, "impact": "none", "funding": True},
    "account": {"initial_equity_usd": 10000, "max_gross": 1.0, "margin": True},
}
METRICS = (
    "equity_start_usd equity_end_usd total_return cagr volatility sharpe sortino max_drawdown calmar turnover_daily "
    "gross_mean net_mean trades skipped_min_notional untradable_weight funding_missing_frac delistings "
    "liquidated_at price_pnl_usd "
    "spread_usd impact_usd fee_usd funding_usd"
).split()
COLUMNS = {
    "equity": "time equity_usd price_pnl_usd spread_usd impact_usd fee_usd funding_usd".split(),
    "trades": "time coin units price notional_usd fee_usd spread_usd reason".split(),
}
#: The flags that the table of commands names; `--config`, `--set` and `--json` are for test_help.py.
FLAGS = {
    "demo": "",
    "data sync": "--source --yes --endpoint-url --base-url",
    "data cost": "",
    "data import freqtrade": "",
    "data status": "",
    "data verify": "",
    "backtest": "--oracle --param --weights --out --no-report",
    "sweep": "--oracle --grid",
    "validate": "",
    "report": "",
    "index": "",
    "oracle check": "",
    "oracle report": "",
    "promote": "--name",
    "live plan": "--network --base-url --credentials --now",
    "live run": "--execute --network --base-url --credentials --now",
    "live status": "--network --base-url --credentials --now",
    "live flatten": "--execute --network --base-url --credentials --now",
    "live rebalance": "--weights --execute --network --base-url --credentials --now",
}


# Names, defaults, imports ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_the_modules_of_the_layout(name: str) -> None:
    importlib.import_module(f"engine.{name}")


@pytest.mark.slow
def test_import_engine_is_quick_and_lazy() -> None:
    code = (
        "import sys, time; start = time.process_time(); import engine; took = time.process_time() - start\n"
        "heavy = ['boto3', 'hyperliquid', 'quantstats', 'vectorbt', 'numba', 'ray']\n"
        "from engine import PortfolioManager, HyperLiquidDEX, PaperDEX\n"
        "print(took, [name for name in heavy[1:4] if name in sys.modules])"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True) for _ in range(2)]
    assert {run.stdout.split(maxsplit=1)[1].strip() for run in runs} == {"[]"}, runs[0].stderr
    assert min(float(run.stdout.split()[0]) for run in runs) < 0.7


def test_the_defaults_of_the_config() -> None:
    ours = RunConfig().to_dict()
    assert list(ours) == list(DEFAULTS)
    for section, keys in DEFAULTS.items():
        assert {key: ours[section][key] for key in keys} == keys
    every_day = RunConfig.from_dict({"execution": {"weekdays": "all"}})
    assert every_day == RunConfig() and every_day.digest == RunConfig().digest
    for wrong, message in (({"costs": {"taker_bp": 1}}, "'taker_bps'"), ({"cost": {}}, "'costs'")):
        with pytest.raises(ConfigError, match=message):
            RunConfig.from_dict(wrong)


@pytest.mark.parametrize("command", FLAGS)
def test_the_commands_and_their_flags(command: str, hlbt: Hlbt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = hlbt(*command.split(), "--help")
    assert done.code == 0
    assert [flag for flag in FLAGS[command].split() if flag not in done.out] == []


# A ledger by hand -----------------------------------------------------------------------------------------------------

HOURS = pd.date_range("2024-01-01T20:00Z", periods=54, freq="h")  # 23:00 are rows 3, 27 and 51
NIGHTS = HOURS[[3, 27, 51]]


def market() -> dict[str, pd.DataFrame]:
    """Two coins: A has quotes, oracle prices and a lot of 0.1; B has a mid, volume, and a rate at every other hour."""
    row = np.arange(len(HOURS))
    mid = pd.DataFrame({"A": 100.0 + row, "B": 50.0 - row / 4}, index=HOURS)
    nothing = pd.DataFrame(np.nan, index=HOURS, columns=["A", "B"])
    return {
        "mid": mid,
        "bid": nothing.assign(A=mid["A"] - 0.5),
        "ask": nothing.assign(A=mid["A"] + 0.25),
        "oracle": nothing.assign(A=mid["A"] + 1.0),
        "volume_usd": nothing.assign(A=1e6, B=1e6),
        "funding": nothing.assign(A=1e-4, B=np.where(row % 2 == 1, -2e-4, np.nan)),
    }


BOOK = pd.DataFrame({"A": [0.5, np.nan, 0.0], "B": [-0.25, -0.3, 0.0005]}, index=NIGHTS)


def by_hand() -> tuple[list[float], list[list[Any]], dict[str, float], list[float]]:
    """Equity by row, trades, sums of what moved it, and turnover by decision: by the rules, nothing else."""
    frames, cash, units = market(), 10_000.0, {"A": 0.0, "B": 0.0}
    equity, trades, turnover = [], [], []
    sums = {"price_pnl_usd": 0.0, "spread_usd": 0.0, "fee_usd": 0.0, "funding_usd": 0.0}
    for row, instant in enumerate(HOURS):
        mid = frames["mid"].loc[instant]
        if row:
            sums["price_pnl_usd"] += sum(units[coin] * (mid[coin] - frames["mid"][coin].iloc[row - 1]) for coin in "AB")
        value = cash + sum(units[coin] * mid[coin] for coin in "AB")
        traded = 0.0
        for coin in "AB" if instant in NIGHTS else "":
            weight = BOOK.loc[instant, coin]
            if np.isnan(weight):  # hold
                continue
            order = weight * value / mid[coin] - units[coin]
            if weight == 0.0:
                order = -units[coin]
            else:
                lots = floor(abs(order) * (10 if coin == "A" else 100)) / (10 if coin == "A" else 100)
                order = lots if order > 0 else -lots
                if lots * mid[coin] < 10.0:
                    continue
            side = 1 if order > 0 else -1
            fill = mid[coin] * (1 + side * 2.0 / 1e4)
            if coin == "A":
                fill = frames["ask" if order > 0 else "bid"].loc[instant, "A"]
            fee = 4.5 / 1e4 * abs(order) * fill
            cash -= order * fill + fee
            units[coin] += order
            traded += abs(order) * mid[coin]
            sums["fee_usd"] += fee
            sums["spread_usd"] += order * (fill - mid[coin])
            trades.append([instant, coin, order, fill])
        if instant in NIGHTS:
            turnover.append(traded / value)
        for coin in "AB":
            rate = frames["funding"].loc[instant, coin]
            if units[coin] and not np.isnan(rate):
                price = frames["oracle"].loc[instant, "A"] if coin == "A" else mid["B"]
                cash -= units[coin] * price * rate
                sums["funding_usd"] += units[coin] * price * rate
        equity.append(cash + sum(units[coin] * mid[coin] for coin in "AB"))
    return equity, trades, sums, turnover


CONFIG = RunConfig.from_dict({"costs": {"taker_bps": 4.5}})


def panel_of(**frames: pd.DataFrame) -> Panel:
    table = [Coin("A", sz_decimals=1, max_leverage=20.0), Coin("B", sz_decimals=2, max_leverage=5.0)]
    return Panel.from_frames(table=table, **frames)


def test_a_ledger_by_hand() -> None:
    result = backtest(panel_of(**market()), BOOK, CONFIG)
    equity, trades, sums, turnover = by_hand()
    assert result.equity.tolist() == pytest.approx(equity, rel=1e-12)
    assert list(result.equity.index) == list(HOURS) and str(result.equity.index.tz) == "UTC"
    got = result.trades[["time", "coin", "units", "price"]].to_numpy().tolist()
    assert [row[:2] for row in got] == [row[:2] for row in trades]
    assert [row[2:] for row in got] == [pytest.approx(row[2:], rel=1e-12) for row in trades]
    # The third night's order of B is a flip to under 10 USD of target, but an order above it; A is closed to the unit.
    assert result.trades["reason"].tolist() == ["open", "open", "increase", "close", "flip"]
    assert list(result.trades) == COLUMNS["trades"]
    metrics = result.metrics
    assert set(METRICS) <= set(metrics)
    for name, value in sums.items():
        assert metrics[name] == pytest.approx(value, rel=1e-12), name
        assert result.attribution[name].sum() == pytest.approx(value, rel=1e-12)
    flows = metrics["price_pnl_usd"] - metrics["spread_usd"] - metrics["fee_usd"] - metrics["funding_usd"]
    assert equity[-1] - 10_000 == pytest.approx(flows - metrics["impact_usd"], abs=1e-9 * 10_000)
    nights = [equity[row] for row in (3, 27, 51)]
    returns = [after / before - 1 for before, after in pairwise(nights)]
    assert result.daily_returns.tolist() == pytest.approx(returns, rel=1e-9)
    assert metrics["sharpe"] == pytest.approx(mean(returns) / stdev(returns) * sqrt(365), rel=1e-9)
    assert metrics["cagr"] == pytest.approx((nights[2] / nights[0]) ** (365 / 2) - 1, rel=1e-9)
    peak = [max([10_000.0, *equity[: row + 1]]) for row in range(len(equity))]
    assert metrics["max_drawdown"] == pytest.approx(
        min(value / top - 1 for value, top in zip(equity, peak, strict=True)), rel=1e-9
    )
    assert metrics["turnover_daily"] == pytest.approx(mean(turnover), rel=1e-12)
    assert metrics["trades"] == 5 and metrics["liquidated_at"] is None


def test_forms_of_a_panel() -> None:
    """Integers, single precision, another order of columns and another zone are the same panel; naive is refused."""
    frames = {name: market()[name] for name in ("mid", "funding")}
    end = backtest(panel_of(**frames), BOOK, CONFIG).equity.iloc[-1]
    turned = {name: frame[["B", "A"]].tz_convert("Asia/Tokyo") for name, frame in frames.items()}
    other = panel_of(**turned)
    assert other.index[0] == HOURS[0] and str(other.index.tz) == "UTC"
    assert backtest(other, BOOK, CONFIG).equity.iloc[-1] == pytest.approx(end, rel=1e-12)
    whole = frames["mid"].round()
    for kind in ("int64", "float32", "object"):
        typed = Panel.from_frames(mid=whole.astype(kind)).frame("mid")
        pd.testing.assert_frame_equal(typed, Panel.from_frames(mid=whole).frame("mid"))
    with pytest.raises(HlbtError, match="tz_localize"):
        Panel.from_frames(mid=whole.tz_localize(None))
    with pytest.raises(ValueError, match="read-only"):
        panel_of(**frames).frame("mid").to_numpy()[0, 0] = 1.0


def test_forms_of_weights() -> None:
    """What a researcher holds weights in; a coin that is absent is flat, a row of NaN holds."""
    panel = panel_of(**market())
    end = backtest(panel, BOOK, CONFIG).equity
    zones = ["UTC", datetime.UTC, "Asia/Tokyo"]
    forms = [
        *(BOOK.tz_convert(zone) for zone in zones),
        BOOK[::-1][["B", "A"]],
        BOOK.astype(object).where(BOOK.notna(), None),
        BOOK.set_axis(BOOK.index.astype(object)),
        BOOK.set_axis(BOOK.index.as_unit("s")),
        pd.concat([BOOK, pd.DataFrame(np.nan, index=HOURS[[9]], columns=["A", "B"])]),
    ]
    for form in forms:
        pd.testing.assert_series_equal(backtest(panel, form, CONFIG).equity, end)
    absent, zero = BOOK[["B"]], BOOK.assign(A=0.0)
    pd.testing.assert_series_equal(backtest(panel, absent, CONFIG).equity, backtest(panel, zero, CONFIG).equity)
    with pytest.raises(WeightsError, match="no number"):
        backtest(panel, BOOK.assign(A="half"), CONFIG)
    with pytest.raises(WeightsError, match="timezone-aware"):
        validate_weights(BOOK.set_axis(["a", "b", "c"]), panel)


def test_forms_of_many_books(monkeypatch: pytest.MonkeyPatch) -> None:
    panel, weights = panel_of(**market()), np.random.default_rng(0).uniform(-0.5, 0.5, (5, 3, 2))
    table = backtest_many(panel, weights, NIGHTS, CONFIG)
    one = [backtest(panel, pd.DataFrame(book, index=NIGHTS, columns=["A", "B"]), CONFIG).metrics for book in weights]
    assert list(table) == list(one[0]) and len(table) == 5
    for name in ("equity_end_usd", "sharpe", "max_drawdown", "trades", "funding_usd"):
        assert table[name].tolist() == pytest.approx([metrics[name] for metrics in one], rel=1e-9), name
    frozen = weights.copy()
    frozen.setflags(write=False)

    def chunks() -> Iterator[np.ndarray]:
        yield from (frozen[:2], frozen[2:3], frozen[3:])

    for form in (frozen, chunks(), [frozen[:4], frozen[4:]], np.asfortranarray(weights), np.repeat(weights, 2, 0)[::2]):
        pd.testing.assert_frame_equal(backtest_many(panel, form, NIGHTS, CONFIG), table)
    for decisions in (NIGHTS.tz_convert(datetime.UTC), NIGHTS.tz_convert("Asia/Tokyo"), list(NIGHTS)):
        pd.testing.assert_frame_equal(backtest_many(panel, weights, decisions, CONFIG), table)  # type: ignore[arg-type]


# Oracles --------------------------------------------------------------------------------------------------------------


class Matrix(Oracle):
    """Long the `n` coins with the lowest rate known; only a matrix."""

    def __init__(self, n: int = 1, hours: int = 2) -> None:
        self.n, self.hours = n, hours

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        change = panel.frame("mid").pct_change(self.hours).loc[decisions] + 10 * panel.frame("funding").loc[decisions]
        return (change.rank(axis=1) <= self.n) / (2.0 * self.n)


class ByInstant(Oracle):
    """The same, called as in the predecessor; it trusts that the panel ends at the instant."""

    def __init__(self, n: int = 1, hours: int = 2) -> None:
        self.n, self.hours = n, hours

    def fetch_portfolio_weights(
        self, timestamp: Any, tradable_universe: Any, panel: Panel | None = None
    ) -> dict[str, float]:
        assert panel is not None and panel.as_known and panel.index[-1] == timestamp
        change = panel.frame("mid").pct_change(self.hours).iloc[-1] + 10 * panel.frame("funding").iloc[-1]
        chosen = change[list(tradable_universe)].nsmallest(self.n).index
        return dict.fromkeys(chosen, 0.5 / self.n)


class Bare(Oracle):
    """The predecessor's signature, no panel."""

    def fetch_portfolio_weights(self, timestamp: Any, tradable_universe: Any) -> dict[str, float]:  # type: ignore[override]
        return {coin: 0.5 / len(tradable_universe) for coin in tradable_universe}


def full_market() -> Panel:
    frames = market()
    frames["funding"] = frames["funding"].ffill().fillna(0.0)
    return panel_of(**frames)


@pytest.mark.slow
def test_an_oracle_of_the_old_form_is_its_matrix(tmp_path: Path) -> None:
    panel = full_market()
    wanted = weight_matrix(Matrix(), panel, NIGHTS)
    assert (wanted.sum(axis=1) == 0.5).all()
    assert weight_matrix(ByInstant(), panel, NIGHTS).to_dict() == wanted.to_dict()
    for oracle in (Matrix(), ByInstant(), Bare()):
        check_causal(oracle, panel)
    assert Matrix().fetch_portfolio_weights(NIGHTS[1], ["A", "B"], panel) == wanted.loc[NIGHTS[1]].to_dict()
    halves = weight_matrix(Bare(), panel, NIGHTS)
    assert (halves == 0.25).all(axis=None)
    # One path for all: a matrix, a sweep, and the executor, which hands the old form the panel as known as well.
    study = sweep(panel, ByInstant, {"n": [1, 2]}, CONFIG)
    alone = backtest(panel, wanted, CONFIG).equity.iloc[-1]
    assert study.loc[1, "equity_end_usd"] == pytest.approx(alone, rel=1e-12)
    for oracle, book in ((ByInstant(), wanted), (Bare(), halves)):
        dex = PaperDEX(panel, CONFIG, start=NIGHTS[0])
        manager = PortfolioManager(oracle, dex, CONFIG, panel=panel, kill_switch=tmp_path / "KILL")
        manager.manage_portfolio()
        dex.advance(HOURS[10])
        run, instant = backtest(panel, book, CONFIG), HOURS[10]  # the account stands before the funding of its row
        before = run.equity[instant] + run.attribution.loc[instant, "funding_usd"]
        assert dex.net_liq == pytest.approx(before, rel=1e-9)


def test_an_oracle_that_asks_for_nothing_is_none() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Oracle()  # type: ignore[abstract]

    class Strange(Bare):
        def fetch_portfolio_weights(self, timestamp: Any, tradable_universe: Any) -> dict[str, float]:  # type: ignore[override]
            return {"a": 0.5}

    with pytest.raises(OracleError, match=r"Strange.*2024-01-01 23:00 UTC.*: a.* Did you mean 'A'"):
        weight_matrix(Strange(), full_market(), NIGHTS)

    class Numbered(Bare):
        def fetch_portfolio_weights(self, timestamp: Any, tradable_universe: Any) -> dict[int, float]:  # type: ignore[override]
            return {1: 0.5}

    with pytest.raises(OracleError, match=r"Numbered.*that the panel lacks: 1\."):
        weight_matrix(Numbered(), full_market(), NIGHTS)


def test_a_look_ahead_is_found() -> None:
    class Tomorrow(Matrix):
        def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
            later = panel.frame("mid").shift(-3).bfill(axis=1).loc[decisions]
            return later.fillna(0.0) / 1e6

    with pytest.raises(OracleError, match="looks ahead: the weight of A at 2024-01-01 23:00 UTC"):
        check_causal(Tomorrow(), full_market(), NIGHTS)


def test_a_wrong_parameter_is_named_as_it_was_given() -> None:
    with pytest.raises(OracleError, match=r"^tb = 0 is not accepted"):
        NumeraiTBNOracle(tb=0)


def test_what_weights_may_be() -> None:
    oracle = Matrix()
    assert oracle.validate_weights({"A": 0.5, "B": -0.5}) and oracle.validate_weights({"A": np.nan})
    for wrong, message in (({"A": 0.8, "B": -0.8}, "1.60"), ({"A": np.inf}, "inf"), ({"A": "x"}, "no number")):
        with pytest.raises(WeightsError, match=message):
            oracle.validate_weights(wrong)  # type: ignore[arg-type]


def test_parameters_of_a_sweep_are_levels() -> None:
    study = sweep(full_market(), Matrix, {"hours": [2, 3], "n": (1, 2), "costs.taker_bps": np.array([0.0, 4.5])})
    assert study["sharpe"].index.names == ["hours", "n", "costs.taker_bps"] and len(study) == 8
    assert study["sharpe"].unstack("n").shape == (4, 2)  # noqa: PD010
    assert study.xs(2, level="hours").shape[0] == 4 and list(study) == [*study.columns]
    assert study.daily_returns is not None and study.daily_returns.columns.equals(study.table.index)
    weights = weight_matrix(Matrix(n=2, hours=3), full_market(), NIGHTS)
    alone = backtest(full_market(), weights, CONFIG)
    assert study.table.loc[(3, 2, 4.5), "sharpe"] == pytest.approx(alone.metrics["sharpe"], rel=1e-12)
    # A day's return of a set is named by its instant, as a run's.
    pd.testing.assert_series_equal(
        study.daily_returns[(3, 2, 4.5)], alone.daily_returns, check_names=False, check_freq=False
    )


# Files and commands ---------------------------------------------------------------------------------------------------


def test_a_weights_file_and_its_run(sample_cache: Path, hlbt: Hlbt) -> None:
    """CSV and parquet, columns in order, figures of run.json, on the sample; naive times are refused with a cure."""
    times = pd.DatetimeIndex(["2024-03-01T23:00Z", "2024-03-02T23:00Z", "2024-03-05T23:00Z"], name="time")
    book = pd.DataFrame({"BTC": [0.5, np.nan, 0.2], "ETH": [-0.3, 0.0, np.nan]}, index=times)
    book.to_csv("book.csv")
    book.reset_index().to_parquet("column.parquet")
    book.to_parquet("index.parquet")
    where = ("--set", f"data.cache={sample_cache}", "--set", "data.start=2024-03-01", "--set", "data.end=2024-03-08")
    runs = []
    for file in ("book.csv", "column.parquet", "index.parquet"):
        out = Path(file).stem
        done = hlbt("backtest", "--weights", file, *where, "--no-report", "--json", "--out", out)
        assert done.code == 0, done.err
        record = json.loads((Path(out) / "run.json").read_text())
        assert done.json["metrics"] == record["metrics"]
        runs.append(record["metrics"])
    assert runs[0] == runs[1] == runs[2]
    assert [name for name in METRICS if name not in runs[0]] == []
    assert {"config", "digests", "versions", "metrics", "attribution"} <= set(record)
    assert not (Path(out) / "tearsheet.html").exists()
    for name, columns in COLUMNS.items():
        frame = pd.read_parquet(Path(out) / f"{name}.parquet")
        assert list(frame) == columns and str(frame["time"].dt.tz) == "UTC"
    hours = pd.read_parquet(Path(out) / "equity.parquet")
    assert list(hours["time"].iloc[[0, -1]]) == [pd.Timestamp("2024-03-01T00:00Z"), pd.Timestamp("2024-03-08T00:00Z")]
    end = hours["equity_usd"].iloc[-1]
    costs = hours[["spread_usd", "impact_usd", "fee_usd", "funding_usd"]].to_numpy().sum()
    assert end - 10_000 == pytest.approx(hours["price_pnl_usd"].sum() - costs, abs=1e-9 * 10_000)
    assert end == runs[0]["equity_end_usd"]
    weights = pd.read_parquet(Path(out) / "weights.parquet")
    assert weights.columns[0] == "time" and set(weights.columns[1:]) >= {"BTC", "ETH"}
    book.tz_localize(None).to_csv("naive.csv")
    done = hlbt("backtest", "--weights", "naive.csv", *where)
    assert done.code == 1 and "naive.csv" in done.err and "2024-10-01T23:00Z" in done.err


def test_a_folder_that_is_none_is_named_as_it_was_written(hlbt: Hlbt) -> None:
    for words in (["validate"], ["promote", "--name", "x"]):
        for written, named in (("reports/nope", "reports/nope"), ("nope", "reports/nope")):
            done = hlbt(*words, written)
            assert done.code == 1 and f"hlbt: {named} is " in done.err, done.err


def test_live_status_asks_the_account_where_it_is_named(tmp_path: Path, hlbt: Hlbt) -> None:
    with open_world(tmp_path) as world:
        words = world.words("status", "book", "--json", "--now", "2026-01-01T22:30Z")
        before = hlbt(*words)
        assert before.code == 0, before.err
        assert before.json["runs"] == [] and before.json["account"]["positions"] == {}
        assert before.json["account"]["equity_usd"] == 10_000.0
        assert hlbt(*world.rebalance({"BTC": 0.4, "ETH": -0.3})).code == 0
        after = hlbt(*words)
        held = after.json["account"]["positions"]
        assert {coin: item["units"] for coin, item in held.items()} == world.positions
        assert held["BTC"]["weight"] == pytest.approx(0.4, abs=0.003)
        assert len(after.json["runs"]) == 1 and not world.server.asked("status")
        shown = hlbt(*[word for word in words if word != "--json"], "--out", tmp_path / "page.html")
        assert shown.code == 0 and "2 positions" in shown.out and "ETH: -" in shown.out
        alone = hlbt("live", "status", "book", "--journal", world.journals, "--json")
        assert alone.code == 0 and "account" not in alone.json
        world.check()
