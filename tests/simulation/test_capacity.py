"""Capacity: the table is as many backtests, the sizes at which a strategy ends, and the command with its page."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine import Coin, Panel, RunConfig, backtest, decisions_of, load_panel, weight_matrix
from engine.errors import ConfigError, InitialMarginError
from engine.reporting.capacity_page import conclusions, impact_model, write_capacity
from engine.runs import Origin
from engine.simulation.capacity import SIZES, Limits, capacity, crossing_size, limits, volume_shares
from helpers.commands import Hlbt
from research.oracles.momentum import Momentum

pytestmark = pytest.mark.slow

MOMENTUM = ("--oracle", "research.oracles.momentum:Momentum")
MONTHS = ("--set", "data.end=2024-04-01")


@pytest.fixture(scope="module")
def panel(sample_cache: Path) -> Panel:
    return load_panel(sample_cache, end="2024-04-01")


@pytest.fixture(scope="module")
def weights(panel: Panel) -> pd.DataFrame:
    return weight_matrix(Momentum(), panel, decisions_of(panel, RunConfig()))


def sized(size: float, **costs: object) -> RunConfig:
    return RunConfig.from_dict({"costs": costs, "account": {"initial_equity_usd": size}})


# The sizes at which it ends -------------------------------------------------------------------------------------------


def test_falls_to_is_a_line_over_the_logarithm() -> None:
    sizes = np.array([1e4, 1e5, 1e6, 1e7])
    values = np.array([2.0, 1.0, 0.5, -0.5])
    assert crossing_size(sizes, values, 1.0) == pytest.approx(1e5)
    assert crossing_size(sizes, values, 1.5) == pytest.approx(10**4.5)
    assert crossing_size(sizes, values, 0.0) == pytest.approx(10**6.5)
    assert math.isnan(crossing_size(sizes, values, -1.0))
    assert crossing_size(sizes, values, 2.5) == 1e4  # never above


def test_falls_to_looks_after_the_highest_value_and_past_what_is_not_defined() -> None:
    sizes = np.array([1e3, 1e4, 1e5, 1e6, 1e7])
    assert crossing_size(sizes, np.array([0.2, 2.0, 1.5, 1.2, 0.8]), 1.0) == pytest.approx(10**6.5)
    assert crossing_size(sizes, np.array([np.nan, 2.0, np.nan, 0.0, np.nan]), 1.0) == pytest.approx(1e5)
    assert math.isnan(crossing_size(sizes, np.full(5, np.nan), 1.0))
    # down, up again, down: the first time counts
    assert crossing_size(sizes, np.array([2.0, 0.0, 1.5, 1.9, -1.0]), 1.0) == pytest.approx(10**3.5)


def test_limits_in_numbers_and_words() -> None:
    table = pd.DataFrame({"equity_usd": [1e4, 1e5, 1e6], "sharpe": [2.0, 1.5, 0.5], "volume_share_median": np.nan})
    found = limits(table)
    assert (found.best_sharpe, found.best_usd) == (2.0, 1e4)
    assert found.halves_usd == pytest.approx(10**5.5) and math.isnan(found.below_zero_usd)
    assert dict(conclusions(table, found)) == {
        "highest net Sharpe": "2.00 with 10,000 USD",
        "net Sharpe halves": "at about 320k USD",
        "net Sharpe falls below 0": "not reached up to 1,000,000 USD",
    }
    lost = table.assign(sharpe=[-0.5, -1.0, -2.0], volume_share_median=[0.01, 0.1, 1.0])
    found = limits(lost)
    assert math.isnan(found.halves_usd) and found.below_zero_usd == 1e4
    assert conclusions(lost, found)[0][0] == "median order takes 10% of the hour's volume"  # the headline
    assert dict(conclusions(lost, found)) == {
        "highest net Sharpe": "-0.50: it is positive at no size",
        "median order takes 10% of the hour's volume": "at about 100k USD",
    }
    idle = table.assign(sharpe=np.nan)
    assert all(math.isnan(value) for value in vars(limits(idle)).values())
    assert "not defined" in conclusions(idle, limits(idle))[0][1]
    assert isinstance(limits(idle), Limits)


# The table ------------------------------------------------------------------------------------------------------------


def test_rows_are_separate_backtests(panel: Panel, weights: pd.DataFrame) -> None:
    sizes = (2e3, 1e5, 1e7)
    table = capacity(panel, weights, sized(123.0, impact="venue"), sizes)
    years = len(panel.index) / 8760
    for (_, row), size in zip(table.iterrows(), sizes, strict=True):
        result = backtest(panel, weights, sized(size, impact="venue"))
        for name in ("sharpe", "cagr", "total_return", "max_drawdown", "turnover_daily", "gross_mean", "trades"):
            assert row[name] == result.metrics[name], name
        assert row["equity_usd"] == size and row["skipped_min_notional"] == result.metrics["skipped_min_notional"]
        parts = [result.metrics[f"{cost}_usd"] / result.equity.mean() / years for cost in ("fee", "spread", "funding")]
        assert row[["fee_yearly", "spread_yearly", "funding_yearly"]].tolist() == pytest.approx(parts, rel=1e-12)
        assert row["cost_yearly"] == pytest.approx(sum(parts) + row["impact_yearly"], rel=1e-12)
        assert row["impact_yearly"] * result.equity.mean() * years == pytest.approx(result.metrics["impact_usd"])
    assert table["skipped_min_notional"].iloc[0] > table["skipped_min_notional"].iloc[-1]
    assert (table["volume_share_median"].diff().dropna() > 0).all()


def test_a_size_that_a_margin_tier_forbids_has_no_figures_and_says_why(tmp_path: Path) -> None:
    """4 times the equity: 10x up to 100,000 USD, 2x beyond."""
    index = pd.date_range("2024-10-01T23:00Z", periods=49, freq="h")
    mid = pd.DataFrame({"A": np.linspace(100.0, 101.0, 49)}, index=index)
    tiers = Coin("A", max_leverage=10.0, margin_tiers=((0.0, 10.0), (1e5, 2.0)))
    market = Panel.from_frames(mid=mid, table=[tiers])
    rows = pd.DataFrame({"A": [4.0, 4.0]}, index=index[[0, 24]])
    config = RunConfig.from_dict({"account": {"max_gross": 4.0}})
    sizes = (1e4, 2e4, 1e6, 1e7)
    table = capacity(market, rows, config, sizes)
    assert table["equity_usd"].tolist() == list(sizes)
    assert table["refused"].isna().tolist() == [True] * 2 + [False] * 2
    pd.testing.assert_frame_equal(table[:2], capacity(market, rows, config, sizes[:2]), check_dtype=False)
    assert table["refused"].tolist()[:2] == table["liquidated_at"].tolist()[:2] == [None, None]  # a NaN is true
    assert table.loc[2:, "sharpe":"order_usd_max"].isna().all(axis=None)
    assert "need 2 times the account's equity of 1,000,000.00 USD as initial margin (A 4 at 2x)" in table["refused"][2]
    page = write_capacity(
        tmp_path / "capacity.html", table, market, config, Origin("M", "oracle", "m:M", {}, "")
    ).read_text()
    assert page.count("REFUSED: The weights on 2024-10-01 23:00 UTC need 2 times") == 2
    assert "an account of 1M, 10M USD" in page
    assert ">nan" not in re.sub(r"<(script|style|svg).*?</\1>", "", page, flags=re.DOTALL)
    with pytest.raises(InitialMarginError, match=r"equity of 1,000,000\.00 USD"):
        capacity(market, rows, config, sizes[2:])


def test_impact_makes_size_cost_and_nothing_else_does(panel: Panel, weights: pd.DataFrame) -> None:
    sizes = (1e5, 1e6, 1e7, 1e8)
    free = capacity(panel, weights, sized(1.0), sizes)
    assert (free["impact_yearly"] == 0.0).all()
    assert free["sharpe"].to_numpy() == pytest.approx(free["sharpe"].iloc[0], rel=0.02)
    dear = capacity(panel, weights, sized(1.0, impact="venue"), sizes)
    assert (dear["impact_yearly"] > 0.0).all()
    assert (dear["cost_yearly"].diff().dropna() > 0.0).all() and (dear["sharpe"].diff().dropna() < 0.0).all()
    # far beyond the venue's reference size: the square root of ten for ten times the account
    assert dear["impact_yearly"].iloc[2] / dear["impact_yearly"].iloc[1] == pytest.approx(10**0.5, rel=0.25)


def test_volume_shares_by_hand() -> None:
    index = pd.date_range("2024-10-01T23:00Z", periods=49, freq="h")
    volume = pd.DataFrame({"A": 1000.0, "B": 4000.0}, index=index)
    mid = pd.DataFrame(100.0, index=index, columns=list("AB"))
    rows = pd.DataFrame({"A": [0.5, 0.0], "B": [0.2, 0.2]}, index=index[[0, 24]])
    config = RunConfig.from_dict({"costs": {"half_spread_bps": 0, "taker_bps": 0}})
    result = backtest(Panel.from_frames(mid=mid, volume_usd=volume), rows, config)
    # 5,000 of 1,000, 2,000 of 4,000, then 5,000 of 1,000
    assert volume_shares(result) == pytest.approx((5.0, 5.0))
    assert all(math.isnan(share) for share in volume_shares(backtest(Panel.from_frames(mid=mid), rows, config)))
    quoted = Panel.from_frames(mid=mid, bid=mid, ask=mid, volume_usd=volume * 0)  # trades, and nobody else did
    idle = backtest(quoted, rows, config)
    assert len(idle.trades) == 3 and all(math.isnan(share) for share in volume_shares(idle))


def test_sizes_are_checked(panel: Panel, weights: pd.DataFrame) -> None:
    assert len(SIZES) == 13 and (SIZES[0], SIZES[3], SIZES[-1]) == (1e4, 1e5, 1e8)
    for sizes in ((), (0.0, 1.0), (1e5, 1e4), (1e4, 1e4), (1e4, math.inf), (math.nan,)):
        with pytest.raises(ConfigError, match=r"ascending order, 1e4,1e5,1e6"):
            capacity(panel, weights, RunConfig(), sizes)
    for wrong in (1e5, ["much"]):
        with pytest.raises(ConfigError, match=r"are not accepted: write a list of USD"):
            capacity(panel, weights, RunConfig(), wrong)  # type: ignore[arg-type]


def test_the_page_says_on_what_the_impact_rests(panel: Panel, weights: pd.DataFrame, tmp_path: Path) -> None:
    venue = sized(1.0, impact="venue", impact_bps=7)
    assert "Where a row has no impact price" in impact_model(panel, venue)[2]
    fields = {name: values for name, values in panel.fields.items() if not name.startswith("impact")}
    bare = Panel(panel.index, panel.coins, fields, panel.tradable, panel.table)
    assert "no impact prices" in impact_model(bare, venue)[2] and "impact_bps = 7 bps" in impact_model(bare, venue)[2]
    table = capacity(bare, weights, venue, (1e4, 1e6))
    assert (table["impact_yearly"] > 0.0).all()
    page = write_capacity(tmp_path / "page.html", table, bare, venue, Origin("M", "oracle", "m:M", {}, ""))
    assert "one assumed number, costs.impact_bps = 7:" in page.read_text(encoding="utf-8")
    assert impact_model(panel, RunConfig())[0].startswith("Price impact is off")


# The command ----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _on_the_sample(monkeypatch: pytest.MonkeyPatch, sample_cache: Path) -> None:
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))


def test_the_command_on_the_sample(hlbt: Hlbt, panel: Panel, weights: pd.DataFrame) -> None:
    code, out, err = hlbt("capacity", *MOMENTUM, *MONTHS, "--sizes", "1e4,3e5,1e7", "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["synthetic"] is True
    expected = capacity(panel, weights, sized(1.0, impact="venue"), (1e4, 3e5, 1e7))
    got = pd.DataFrame(answer["sizes"])
    assert got["sharpe"].tolist() == pytest.approx(expected["sharpe"].tolist(), rel=1e-12)
    assert got["impact_yearly"].tolist() == pytest.approx(expected["impact_yearly"].tolist(), rel=1e-12)
    page = Path(answer["page"])
    assert page.name == "capacity.html" and page.parent.parent == Path("reports")
    text = page.read_text(encoding="utf-8")
    assert "SYNTHETIC DATA" in text and text.count("<svg") == 3 and "How impact is modelled" in text
    assert text.count("<script") == text.count("<script>") == 1  # hover.js
    assert "://" not in re.sub(r"http://www.w3.org/\S*", "", text)
    for figure in expected["sharpe"]:
        assert f">{figure:.2f}</td>" in text
    # the run it stands beside is a run, and the page stays when its tearsheet is made
    record = json.loads((page.parent / "run.json").read_text(encoding="utf-8"))
    assert record["config"]["costs"]["impact"] == "venue"
    assert record["config"]["account"]["initial_equity_usd"] == 10_000
    again = ("--set", "costs.impact=venue", "--no-report", "--json")
    code, out, err = hlbt("backtest", *MOMENTUM, *MONTHS, *again)
    assert code == 0, err
    assert Path(json.loads(out)["folder"]) == page.parent and page.read_text(encoding="utf-8") == text
    code, _, err = hlbt("report", page.parent.name)
    assert code == 0 and page.exists() and (page.parent / "tearsheet.html").exists(), err


def test_a_page_of_its_own_and_what_set_overrides(hlbt: Hlbt, weights: pd.DataFrame, tmp_path: Path) -> None:
    weights.rename_axis("time").to_csv(tmp_path / "mine.csv")
    page = tmp_path / "page.html"
    words = ("capacity", "--weights", str(tmp_path / "mine.csv"), *MONTHS, "--sizes", "1e4,1e6", "--out", str(page))
    code, out, err = hlbt(*words, "--set", "costs.impact=none")
    assert code == 0, err
    assert "1,000,000" in out and "not reached" in out and not list(Path("reports").glob("capacity*.html"))
    assert "Price impact is off" in page.read_text(encoding="utf-8")
    code, _, err = hlbt(*words)  # a page of ours is replaced
    assert code == 0 and "square root" in page.read_text(encoding="utf-8"), err


def test_bad_input(hlbt: Hlbt, tmp_path: Path) -> None:
    foreign = tmp_path / "thesis.html"
    foreign.write_text("<html>mine</html>", encoding="utf-8")
    folder = tmp_path / "folder.html"
    folder.mkdir()
    cases = {
        "either --oracle": (),
        "is not a list of USD": (*MOMENTUM, "--sizes", "1e4,lots"),
        "ascending order": (*MOMENTUM, "--sizes", "1e6,1e4"),
        "is no capacity page": (*MOMENTUM, "--out", str(foreign)),
        "ends in .html": (*MOMENTUM, "--out", str(tmp_path / "page.csv")),
        "is a folder": (*MOMENTUM, "--out", str(folder)),
        "is no folder": (*MOMENTUM, "--out", str(tmp_path / "nowhere" / "page.html")),
    }
    for message, words in cases.items():
        code, out, err = hlbt("capacity", *words)
        assert code != 0 and message in err and not out, (message, err)
