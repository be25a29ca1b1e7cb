"""The signal report: every figure against a naive loop or a known vector, and the command with its page."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from engine import Oracle, Panel, RunConfig, ScoreOracle, decisions_of, load_panel, weight_matrix
from engine.errors import OracleError
from engine.oracles.signal_analysis import (
    analyse,
    autocorrelation,
    buckets_of,
    cost_rates,
    forward_returns,
    mean_of,
    overlap,
    pace,
    past_returns,
    quantile_returns,
    rank_correlation,
    rolling_beta,
    strongest,
)
from engine.reporting.signal_page import conclusions, write_signals
from engine.runs import Origin
from helpers.commands import Hlbt
from helpers.effort import some
from helpers.panels import random_panel
from research.oracles.carry import Carry
from research.oracles.equal_weight import EqualWeight
from research.oracles.momentum import Momentum

NAN = math.nan


def nasty(seed: int, shape: tuple[int, int] = (40, 12), ties: bool = True) -> np.ndarray:
    """Values with holes, ties and whole rows that are empty or equal."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape)
    if ties:
        values = np.round(values, 1)
    values[rng.random(shape) < 0.25] = NAN
    values[3], values[4] = NAN, 1.0
    values[5, 4:] = NAN
    return values


@pytest.fixture(scope="module")
def panel() -> Panel:
    """40 days of 10 coins with BTC, holes in the prices, a late listing and a delisting."""
    made = random_panel(11, 24 * 40, 10, impact=True)
    gone = np.random.default_rng(2).random(made.tradable.shape) < 0.03
    gone[: 24 * 9, 4] = gone[24 * 30 :, 6] = True
    gone[:, 0] = False
    fields = {name: np.where(gone, NAN, values) for name, values in made.fields.items()}
    return Panel(made.index, made.coins, fields, made.tradable, made.table)


# Against naive loops --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(some(2, 4)))
def test_rank_correlation_is_scipys_row_by_row(seed: int) -> None:
    first, second = nasty(seed), nasty(seed + 100, ties=seed % 2 == 0)
    got = rank_correlation(first, second)
    defined = 0
    for row, value in enumerate(got):
        both = ~np.isnan(first[row]) & ~np.isnan(second[row])
        one, two = first[row][both], second[row][both]
        if both.sum() < 5 or len(set(one)) == 1 or len(set(two)) == 1:
            assert math.isnan(value), row
        else:
            defined += 1
            assert value == pytest.approx(stats.spearmanr(one, two).statistic, abs=1e-12), row
    assert defined > 25


def test_rank_correlation_known_vectors() -> None:
    up = np.arange(6.0)[None]
    assert rank_correlation(up, up**3)[0] == pytest.approx(1.0, abs=1e-15)
    assert rank_correlation(up, -up)[0] == pytest.approx(-1.0, abs=1e-15)
    # 1 - 6 sum(d^2) / (n (n^2 - 1)) without ties: d^2 = 1, 1, 0, 1, 1, 0
    assert rank_correlation(up, np.array([[1.0, 0, 2, 4, 3, 5]]))[0] == pytest.approx(1 - 6 * 4 / (6 * 35), abs=1e-15)


def test_returns_by_loop(panel: Panel) -> None:
    decisions = decisions_of(panel, RunConfig())
    mid, tradable = panel.frame("mid"), panel.frame("tradable")
    for days in (1, 7, 30):
        ahead, behind = forward_returns(panel, decisions, days), past_returns(panel, decisions, days)
        seen = 0
        for row, instant in enumerate(decisions):
            for column, coin in enumerate(panel.coins):
                for got, start, allowed in (
                    (ahead[row, column], instant, tradable.loc[instant, coin]),
                    (behind[row, column], instant - pd.Timedelta(days=days), True),
                ):
                    end = start + pd.Timedelta(days=days)
                    inside = start >= mid.index[0] and end <= mid.index[-1]
                    expected = mid.loc[end, coin] / mid.loc[start, coin] - 1 if inside and allowed else NAN
                    assert (math.isnan(expected) and math.isnan(got)) or got == expected
                    seen += not math.isnan(expected)
        assert seen > 50


@pytest.mark.parametrize("quantiles", [2, 3, 5])
def test_quantiles_by_loop(quantiles: int) -> None:
    signal, forward = nasty(7, (30, 17)), nasty(8, (30, 17), ties=False)
    got = quantile_returns(signal, forward, quantiles)
    for row in range(len(signal)):
        both = np.flatnonzero(~np.isnan(signal[row]) & ~np.isnan(forward[row]))
        members: list[list[float]] = [[] for _ in range(quantiles)]
        for coin in both:
            below = sum(signal[row, other] < signal[row, coin] for other in both)
            equal = sum(signal[row, other] == signal[row, coin] for other in both)
            middle = below + (equal - 1) / 2 + 0.5  # average rank less a half, of len(both)
            if len(both) >= quantiles:
                members[min(int(middle * quantiles // len(both)), quantiles - 1)].append(forward[row, coin])
        for number, values in enumerate(members):
            expected = np.mean(values) if values else NAN
            assert got[row, number] == pytest.approx(expected, abs=1e-12, nan_ok=True), (row, number)


def test_quantiles_without_ties_are_of_equal_size() -> None:
    signal = np.random.default_rng(0).normal(size=(5, 20))
    buckets = buckets_of(signal, np.ones_like(signal, dtype=np.bool_), 5)
    assert all(np.bincount(row).tolist() == [4, 4, 4, 4, 4] for row in buckets)
    assert all(signal[0][buckets[0] == 0].max() < signal[0][buckets[0] == k].min() for k in range(1, 5))
    # coins of one weight share a quantile; the two sides of a book are the extremes
    book = np.array([[0.5, -0.5] + [0.0] * 18])
    assert buckets_of(book, ~np.isnan(book), 5)[0].tolist() == [4, 0] + [2] * 18


def test_a_mean_by_hand_and_where_it_has_no_error() -> None:
    # Two cosines: sqrt(2 / 10) sum of e cos(pi j (i - 1/2) / 10), the mean square of both, t with 2 degrees.
    values = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0, 5.0, 3.0])
    transforms = [
        math.sqrt(2 / 10) * sum(value * math.cos(math.pi * j * (i + 0.5) / 10) for i, value in enumerate(values))
        for j in (1, 2)
    ]
    raw = values.mean() / math.sqrt(sum(part**2 for part in transforms) / 2 / 10)
    found = mean_of(values)
    assert (found.freedom, found.independent) == (2, 10.0)
    assert found.t == pytest.approx(stats.norm.isf(stats.t.sf(raw, 2)), rel=1e-9)
    assert found.mean / found.error == pytest.approx(raw * 1.959964 / stats.t.ppf(0.975, 2), rel=1e-6)
    # Where 1.96 errors leave 0 out, t is beyond 1.96, and only there; signs and scale do not matter.
    for shift in (-3.9, -1.0, 0.0, 2.0, 30.0):
        moved = mean_of(values + shift)
        assert (abs(moved.t) > 1.959964) == (abs(moved.mean) > 1.959964 * moved.error)
        assert mean_of(-1e-9 * (values + shift)).t == pytest.approx(-moved.t, rel=1e-6)
    few = mean_of(np.arange(299.0), 29)
    assert few.mean == 149.0 and math.isnan(few.error) and math.isnan(few.t) and few.independent < 10
    assert not math.isnan(mean_of(np.arange(300.0), 29).t)
    none = mean_of(np.array([NAN, NAN]))
    assert none.count == 0 and math.isnan(none.mean) and math.isnan(none.positive)
    gaps = mean_of(np.array([1.0, NAN, -1.0, 2.0, 0.0]))
    assert (gaps.count, gaps.mean, gaps.positive) == (4, 0.5, 0.5)
    assert math.isnan(mean_of(np.ones(50)).t) and math.isnan(mean_of(np.full(50, 0.1)).t)  # no error is no certainty


@pytest.mark.parametrize(("horizon", "days"), [(30, 365), (7, 180), (14, 180), (1, 115), (30, 115)])
def test_one_worthless_signal_in_twenty_is_called_more_than_chance(horizon: int, days: int) -> None:
    """Sums over overlapping horizons, as the rank IC of a signal that stays; by Newey and West a sixth to a third."""
    rng = np.random.default_rng(horizon * days)
    beyond = []
    for _ in range(some(2_000, 6_000)):
        sums = np.convolve(rng.normal(size=days - 1), np.ones(horizon), mode="valid")
        beyond.append(mean_of(sums, horizon - 1).t)
    t = np.abs(beyond)
    if horizon * 10 > days:
        assert np.isnan(t).all()  # no figure rather than a wrong one
    else:
        assert 0.04 <= np.mean(t > 1.96) <= 0.07 and np.mean(t > 3.0) < 0.01


def test_ranks_of_noise_have_the_size_that_is_said() -> None:
    """The same through the rank IC itself: scores that stay, or are drawn anew, against returns of a random walk."""
    rng, beyond = np.random.default_rng(4), {True: [], False: []}  # type: ignore[var-annotated]
    for number in range(some(300, 2_000)):
        price, stays = rng.normal(size=(240, 8)).cumsum(axis=0), number % 2 == 0
        score = np.tile(rng.normal(size=8), (233, 1)) if stays else rng.normal(size=(233, 8))
        beyond[stays].append(abs(mean_of(rank_correlation(score, price[7:] - price[:-7]), 6).t) > 1.96)
    assert all(0.02 <= np.mean(values) <= 0.085 for values in beyond.values()), beyond


def test_overlapping_horizons_need_their_lag() -> None:
    assert [overlap(days, 24.0) for days in (1, 2, 30)] == [0, 1, 29]
    assert overlap(7, 168.0) == 0 and overlap(8, 168.0) == 1
    weekdays = pd.date_range("2024-10-01T23:00Z", periods=20, freq="B")
    hours, a_day = pace(weekdays)
    assert hours == 24.0 and a_day == pytest.approx(19 / 27)
    assert pace(weekdays[:1]) == (24.0, 1.0)


def test_autocorrelation_and_beta_by_loop() -> None:
    signal = nasty(3, (50, 15), ties=False)
    for lag in (1, 4):
        values = [rank_correlation(signal[d : d + 1], signal[d - lag : d - lag + 1])[0] for d in range(lag, 50)]
        assert autocorrelation(signal, lag) == pytest.approx(np.nanmean(values), rel=1e-12)
    assert math.isnan(autocorrelation(signal, 50)) and math.isnan(autocorrelation(signal, 400))
    rng = np.random.default_rng(0)
    market = rng.normal(size=80)
    book = 0.7 * market + 0.1 * rng.normal(size=80)
    market[10] = book[30] = NAN
    got = rolling_beta(book, market, 30, 10)
    for row in range(80):
        window = slice(max(0, row - 29), row + 1)
        both = ~np.isnan(book[window]) & ~np.isnan(market[window])
        if both.sum() < 10:
            assert math.isnan(got[row])
        else:
            expected = np.polyfit(market[window][both], book[window][both], 1)[0]
            assert got[row] == pytest.approx(expected, rel=1e-8), row


def test_a_beta_keeps_no_rounding_of_days_that_have_gone() -> None:
    market = np.zeros((40, 3))
    market[2] = 1e9
    market[3] = 1e-9
    book = np.random.default_rng(0).normal(size=(40, 3))
    beta = rolling_beta(book, market, 10, 5)
    assert np.isfinite(beta[4:12]).all() and np.isnan(beta[13:]).all()  # the market has not moved since
    alone = [rolling_beta(book[:, k], market[:, k], 10, 5) for k in range(3)]
    np.testing.assert_array_equal(beta, np.stack(alone, axis=1))


# The whole ------------------------------------------------------------------------------------------------------------


def test_a_perfect_and_a_reversed_signal(panel: Panel) -> None:
    class Knows(ScoreOracle):
        def __init__(self, sign: float = 1.0) -> None:
            self.sign = sign

        def scores(self, panel_: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
            return self.sign * forward_returns(panel, decisions, 2)

        def construct(self, scores: np.ndarray) -> np.ndarray:
            return np.where(np.isnan(scores), 0.0, np.sign(scores)) / 10

    found = analyse(Knows(), panel, horizon_days=2, quantiles=3)
    assert (found.kind, found.ic.positive) == ("score", 1.0) and found.ic.mean == pytest.approx(1.0)
    assert found.spread.positive == 1.0 and (found.buckets["excess_return"].diff().dropna() > 0).all()
    best = found.decay.set_index("horizon_days")["mean"]
    assert best.idxmax() == 2 and best[2] == pytest.approx(1.0) and best[1] > 0.3 > abs(best[30])
    assert found.figures["book_bps_daily"] > 0
    opposite = analyse(Knows(-1.0), panel, horizon_days=2, quantiles=3)
    assert opposite.ic.mean == pytest.approx(-1.0) and opposite.spread.mean == pytest.approx(-found.spread.mean)
    assert "lost" in conclusions(opposite)[3]


def test_momentum_is_momentum(panel: Panel) -> None:
    found = analyse(Momentum(lookback_hours=168, n=2), panel)
    assert found.figures["momentum_7d"] == pytest.approx(1.0)
    assert "under another name" in " ".join(conclusions(found))
    day = found.daily.loc[found.daily.index[20]]
    row = Momentum(lookback_hours=168).scores(panel, found.daily.index[20:21])[0]
    tradable = panel.tradable[panel.rows(found.daily.index[20:21])[0]]
    assert day["tradable"] == tradable.sum() and day["scored"] == (~np.isnan(row) & tradable).sum()
    assert day["coverage"] == day["scored"] / day["tradable"]

    class Plain(Oracle):
        def weight_matrix(self, panel_: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
            return Momentum(lookback_hours=168, n=2).weight_matrix(panel_, decisions)

    plain = analyse(Plain(), panel)  # a weight of 0 is none: two coins long and two short have one
    assert plain.kind == "weight" and plain.daily["scored"].iloc[20] == 4 < day["tradable"]
    assert f"weight for {plain.figures['coverage']:.0%} of" in " ".join(conclusions(plain))


def test_book_turnover_cost_and_beta_by_loop(panel: Panel) -> None:
    config = RunConfig.from_dict({"costs": {"taker_bps": 4.5, "half_spread_bps": 3.0}, "execution": {"leverage": 0.5}})
    oracle = Carry(lookback_hours=24, n=2)
    decisions = decisions_of(panel, config)
    weights = 0.5 * weight_matrix(oracle, panel, decisions)
    mid, bid, ask = (panel.frame(name).reindex(decisions) for name in ("mid", "bid", "ask"))
    found = analyse(oracle, panel, config)
    turnover, cost, gains, markets = [], [], [], []
    prices = panel.frame("mid")
    for row, instant in enumerate(decisions):
        traded = paid = 0.0
        if row:
            for coin in panel.coins:
                change = abs(weights.loc[instant, coin] - weights.iloc[row - 1][coin])
                quoted = (ask.loc[instant, coin] - bid.loc[instant, coin]) / 2 / mid.loc[instant, coin]
                traded += change
                paid += change * (4.5e-4 + (3e-4 if math.isnan(quoted) else quoted))
            turnover.append(traded)
            cost.append(paid)
        later = instant + pd.Timedelta(days=1)
        if later in prices.index:
            moved = prices.loc[later] / prices.loc[instant] - 1
            gain = (weights.loc[instant] * moved.fillna(0.0)).sum()
            gains.append(gain)
            if weights.loc[instant].abs().sum() > 0:
                markets.append((moved["BTC"], gain))
    assert found.daily["turnover"].iloc[1:].tolist() == pytest.approx(turnover, abs=1e-12)
    assert found.daily["cost"].iloc[1:].tolist() == pytest.approx(cost, abs=1e-12)
    assert found.daily["book_return"].dropna().tolist() == pytest.approx(gains, abs=1e-12)
    figures = found.figures
    assert figures["turnover"] == pytest.approx(np.mean(turnover))
    assert figures["cost_bps_daily"] == pytest.approx(1e4 * np.mean(cost))
    assert figures["cost_yearly"] == pytest.approx(365 * np.mean(cost))
    assert figures["book_bps_daily"] == pytest.approx(1e4 * np.mean(gains))
    assert figures["breakeven_bps"] == pytest.approx(1e4 * np.mean(gains) / np.mean(turnover))
    slope = np.polyfit(*np.array(markets).T, 1)[0]
    assert figures["beta"] == pytest.approx(slope, rel=1e-9)
    assert figures["market_correlation"] == pytest.approx(np.corrcoef(np.array(markets).T)[0, 1], rel=1e-9)


def test_a_book_held_for_days_earns_on_each_of_them(panel: Panel) -> None:
    """Every third day, or on weekdays: the return until the next decision, spread over all days as costs are."""
    prices = panel.frame("mid")
    for execution in ({"every_days": 3}, {"weekdays": ["mon", "tue", "fri"]}):
        config = RunConfig.from_dict({"execution": execution})
        decisions = decisions_of(panel, config)
        weights = weight_matrix(Carry(lookback_hours=24, n=2), panel, decisions)
        found = analyse(Carry(lookback_hours=24, n=2), panel, config)
        gains = [
            (weights.loc[start] * (prices.loc[end] / prices.loc[start] - 1).fillna(0.0)).sum()
            for start, end in itertools.pairwise(decisions)
        ]
        assert found.daily["book_return"].iloc[:-1].tolist() == pytest.approx(gains, abs=1e-12)
        known = found.daily["book_return"].dropna()
        days = (decisions[-1] - decisions[0]) / pd.Timedelta(days=1) / (len(decisions) - 1)
        assert found.figures["book_bps_daily"] == pytest.approx(1e4 * known.mean() / days)
        assert found.figures["cost_bps_daily"] == pytest.approx(1e4 * found.daily["cost"].mean() / days)
        assert found.figures["breakeven_bps"] == pytest.approx(1e4 * known.mean() / found.daily["turnover"].mean())


def test_holds_keep_the_weight_and_discounts_lower_the_cost(panel: Panel) -> None:
    class Holds(Oracle):
        def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
            rows = pd.DataFrame(NAN, index=decisions, columns=list(panel.coins))
            rows.iloc[0] = 0.05
            return rows

    found = analyse(Holds(), panel)
    assert found.kind == "weight" and (found.daily["turnover"].iloc[1:] == 0.0).all()
    assert found.figures["gross"] == pytest.approx(0.5) and found.ic.count == 0
    assert "ranks nothing" in conclusions(found)[0]
    decisions = decisions_of(panel, RunConfig())
    dear = cost_rates(panel, decisions, RunConfig())
    cheap = cost_rates(panel, decisions, RunConfig.from_dict({"costs": {"referral_discount_frac": 0.04}}))
    assert dear - cheap == pytest.approx(np.full_like(dear, 0.04 * 3.5e-4), abs=1e-15)
    stressed = cost_rates(panel, decisions, RunConfig.from_dict({"costs": {"stress": 3.0}}))
    assert stressed == pytest.approx(3.0 * dear, rel=1e-12)  # fee and spread alike
    rebate = {"taker_bps": -1.0, "half_spread_bps": 0.0, "referral_discount_frac": 0.5, "stress": 2.0}
    bare = Panel(panel.index, panel.coins, {"mid": panel.values("mid")}, panel.tradable, panel.table)
    kept = cost_rates(bare, decisions, RunConfig.from_dict({"costs": rebate}))
    assert kept == pytest.approx(np.full_like(kept, -1e-4))  # a discount is of a fee, and so is stress


def test_an_oracle_without_an_order_and_a_panel_without_a_market(panel: Panel) -> None:
    found = analyse(EqualWeight(), panel)
    assert found.ic.count == 0 and math.isnan(strongest(found.decay)[0])
    bare = Panel.from_frames(mid=panel.frame("mid").set_axis(list("abcdefghij"), axis=1))
    alone = analyse(Momentum(lookback_hours=24, n=2), bare)
    assert math.isnan(alone.figures["beta"]) and alone.daily["beta"].isna().all()
    assert not [sentence for sentence in conclusions(alone) if "beta" in sentence]
    one = RunConfig.from_dict({"execution": {"every_days": 40}})
    short = analyse(Momentum(lookback_hours=24, n=2), panel, one)
    assert len(short.daily) == 1 and math.isnan(short.figures["cost_yearly"])
    assert conclusions(short)


def test_bad_arguments_and_scores(panel: Panel) -> None:
    with pytest.raises(OracleError, match="horizon_days = 0"):
        analyse(Momentum(), panel, horizon_days=0)
    with pytest.raises(OracleError, match="quantiles = 1"):
        analyse(Momentum(), panel, quantiles=1)

    class Infinite(Momentum):
        def scores(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
            return np.full((len(decisions), len(panel.coins)), np.inf)

        def construct(self, scores: np.ndarray) -> np.ndarray:
            return np.zeros_like(scores)

    with pytest.raises(OracleError, match="infinite"):
        analyse(Infinite(), panel)

    class Transposed(Infinite):
        def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
            return pd.DataFrame(0.0, index=decisions, columns=list(panel.coins))

        def scores(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
            return np.zeros((len(panel.coins), len(decisions)))

    with pytest.raises(OracleError, match=r"Transposed.scores has shape \(10, 40\); \(40, 10\) is needed"):
        analyse(Transposed(), panel)


@pytest.mark.slow
def test_pages_of_what_is_not_defined(panel: Panel, tmp_path: Path) -> None:
    one = RunConfig.from_dict({"execution": {"every_days": 40}})
    for number, (oracle, config) in enumerate(
        [(EqualWeight(), RunConfig()), (Momentum(lookback_hours=24), one), (Momentum(lookback_hours=24), RunConfig())]
    ):
        found = analyse(oracle, panel, config, horizon_days=30)
        origin = Origin("<b>x</b>", "oracle", "m:M", {"k": "<i>"}, "")
        page = write_signals(tmp_path / f"{number}.html", found, panel, config, origin)
        text = page.read_text(encoding="utf-8")
        assert "nan" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL).lower()
        assert "<b>x</b>" not in text and "SYNTHETIC" not in text and text.count("<svg") == 11


# The command ----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _on_the_sample(monkeypatch: pytest.MonkeyPatch, sample_cache: Path) -> None:
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))


MONTHS = ("--set", "data.end=2024-04-01")
MOMENTUM = "research.oracles.momentum:Momentum"


@pytest.mark.slow
def test_the_command_on_the_sample(hlbt: Hlbt, sample_cache: Path) -> None:
    code, out, err = hlbt("oracle", "report", MOMENTUM, "--param", "lookback_hours=72", *MONTHS, "--json")
    assert code == 0, err
    answer = json.loads(out)
    expected = analyse(Momentum(lookback_hours=72), load_panel(sample_cache, end="2024-04-01"))
    assert answer["synthetic"] is True and answer["parameters"]["lookback_hours"] == 72
    assert answer["ic"]["mean"] == pytest.approx(expected.ic.mean, rel=1e-12)
    assert answer["figures"]["cost_yearly"] == pytest.approx(expected.figures["cost_yearly"], rel=1e-12)
    assert len(answer["decay"]) == 30 and len(answer["daily"]) == len(expected.daily)
    assert answer["daily"][-1]["ic"] is None and answer["daily"][-1]["time"].startswith("2024-03-31T23:00:00")
    page = Path(answer["page"])
    assert page.parent == Path("reports") and page.name.startswith("signals-momentum-20240101-20240401-")
    text = page.read_text(encoding="utf-8")
    assert "SYNTHETIC DATA" in text and f"{expected.ic.mean:+.3f}" in text and len(text) < 1_000_000
    assert text.count("<script") == text.count("<script>") == 1  # hover.js
    assert "://" not in re.sub(r"http://www.w3.org/\S*", "", text)
    exact = dict(re.findall(r"<dt>([^<]*)</dt><dd[^>]*data-exact=\"([^\"]*)\"", text))
    assert float(exact["mean rank IC"]) == expected.ic.mean and float(exact["coverage"]) == expected.figures["coverage"]
    again = hlbt("oracle", "report", MOMENTUM, "--param", "lookback_hours=72", *MONTHS)
    assert again[0] == 0 and "SYNTHETIC DATA" in again[1] and "rank IC of the score" in again[1]
    assert page.read_text(encoding="utf-8") == text and len(list(Path("reports").glob("signals-*.html"))) == 1


@pytest.mark.slow
def test_out_horizon_and_an_oracle_without_score(hlbt: Hlbt, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    words = ("oracle", "report", "research.oracles.equal_weight:EqualWeight", *MONTHS, "--out", str(page))
    code, out, err = hlbt(*words, "--horizon", "7", "--quantiles", "3", "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["signal"] == "weight" and answer["horizon_days"] == 7 and answer["ic"]["mean"] is None
    assert "forward returns over <b>7 days</b>" in page.read_text(encoding="utf-8") and not list(
        Path("reports").glob("signals-*.html")
    )


def test_bad_input(hlbt: Hlbt, tmp_path: Path) -> None:
    foreign = tmp_path / "thesis.html"
    foreign.write_text("<html>mine</html>", encoding="utf-8")
    cases = {
        "Did you mean 'Momentum'": ("research.oracles.momentum:Momentun",),
        "has no parameter 'lookback'": (MOMENTUM, "--param", "lookback=3"),
        "is no signals page": (MOMENTUM, "--out", str(foreign)),
        "ends in .html": (MOMENTUM, "--out", str(tmp_path / "page.csv")),
        "horizon_days = 0": (MOMENTUM, *MONTHS, "--horizon", "0"),
    }
    for message, words in cases.items():
        code, out, err = hlbt("oracle", "report", *words)
        assert code == 1 and message in err and not out and "\n" not in err.strip(), (message, err)


@pytest.mark.slow
def test_momentum_on_real_data(real_cache: Path, tmp_path: Path) -> None:
    panel = load_panel(real_cache)
    found = analyse(Momentum(), panel, horizon_days=7)
    assert found.ic.count > 150 and abs(found.ic.mean) < 0.2 and found.figures["momentum_7d"] == pytest.approx(1.0)
    page = write_signals(tmp_path / "p.html", found, panel, RunConfig(), Origin("M", "oracle", "m:M", {}, ""))
    assert page.stat().st_size < 1_000_000
