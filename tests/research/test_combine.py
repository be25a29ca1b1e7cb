"""Combine: causal, one instant = whole matrix, the purge, against a slow fit, better than equally where it can be."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from engine import Panel, RunConfig, ScoreOracle, backtest, sweep
from engine.errors import OracleError
from engine.lookahead.audit import audit, check_causal
from engine.oracles.base import weight_matrix
from engine.simulation.backtest import decisions_of
from helpers.effort import some
from helpers.panels import random_panel
from research.oracles.blend import RankBlend
from research.oracles.carry import Carry
from research.oracles.combine import Combine, _shares, _standardised
from research.oracles.construction import z_score
from research.oracles.equal_weight import EqualWeight
from research.oracles.momentum import Momentum
from research.oracles.reversal import Reversal

pytestmark = pytest.mark.slow

DAYS, COINS = 400, 30


class Drawn(ScoreOracle):
    """A score drawn at random, one of three that the returns of the next day are made of."""

    score_parameters = ("seed", "number")

    def __init__(self, seed: int, number: int) -> None:
        self.seed, self.number = seed, number

    def scores(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        day = (decisions.normalize() - pd.Timestamp("2023-01-01", tz="UTC")).days
        return drawn(self.seed)[self.number][day]

    def construct(self, scores: np.ndarray) -> np.ndarray:
        return z_score(scores)


def drawn(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(3, DAYS, COINS))


def planted(seed: int, strength: tuple[float, float, float], days: int = DAYS) -> tuple[Panel, np.ndarray]:
    """Prices whose daily return is `strength` times the scores, and noise; and these returns, (days, coins)."""
    noise = np.random.default_rng(10_000 + seed).normal(size=(DAYS, COINS))
    returns = 0.03 * np.clip(np.tensordot(strength, drawn(seed), 1) + noise, -9, 9)
    prices = 100.0 * np.cumprod(np.vstack([np.ones(COINS), 1.0 + returns[:-1]]), axis=0)[:days]
    index = pd.date_range("2023-01-01", periods=24 * days, freq="h", tz="UTC")
    coins = [f"C{number:02d}" for number in range(COINS)]
    return Panel.from_frames(mid=pd.DataFrame(np.repeat(prices, 24, axis=0), index=index, columns=coins)), returns


def three(seed: int, **given: Any) -> Combine:
    return Combine([Drawn(seed, number) for number in range(3)], horizon_days=1, construction="z_score", **given)


@pytest.fixture(scope="module")
def panel() -> Panel:
    return random_panel(5, 24 * 80, 8)


SMALL = Combine([Momentum(lookback_hours=30), Carry(lookback_hours=24), EqualWeight()], 2, 20, 0.5, n=2)


@pytest.mark.parametrize("hours", [24, 12])
def test_causal_and_one_instant_is_the_whole_matrix(panel: Panel, hours: int) -> None:
    # Every day, and twice a day: each hour of the day learns from its own days.
    decisions = panel.index[(panel.index.hour % hours) == 11]
    matrix = weight_matrix(SMALL, panel, decisions)
    learned = SMALL.learned(panel, decisions)
    assert learned.known.any() and not learned.known.all()
    assert len(np.unique(learned.weights[learned.known], axis=0)) >= 2 * (24 // hours) - 1
    for instant in decisions[[5, len(decisions) // 2, -1]]:
        universe = [coin for coin in panel.coins if panel.frame("tradable").loc[instant, coin]]
        assert SMALL.fetch_portfolio_weights(instant, universe, panel) == matrix.loc[instant].to_dict()
    check_causal(SMALL, panel, decisions[::7])


class NoPurge(Combine):
    """Learns from days whose returns end after the fit: WRONG."""

    @property
    def purge(self) -> pd.Timedelta:
        return pd.Timedelta(0)


def test_without_the_purge_the_audit_sees_the_future(panel: Panel) -> None:
    """Of three weeks that are learned from at the start of December, one is what December brings."""
    decisions = decisions_of(panel, RunConfig())
    december = decisions[(decisions >= "2024-11-29") & (decisions < "2024-12-07")]
    inner = [Reversal(lookback_hours=hours) for hours in (24, 48, 100)]
    given: dict[str, Any] = {"oracles": inner, "horizon_days": 7, "train_days": 20, "construction": "z_score"}
    honest, early = Combine(**given, ridge=1.0), NoPurge(**given, ridge=1.0)
    assert audit(lambda: honest, panel, december, cuts=8).passed
    found = audit(lambda: early, panel, december, cuts=8)
    assert {check.name for check in found.failed} >= {"cut", "future"}
    with pytest.raises(OracleError, match="NoPurge looks ahead"):
        check_causal(early, panel, december)


def test_the_fit_against_a_slow_one(panel: Panel) -> None:
    """Days, purge, funding, standardising, and the minimum of the penalised squares, written down again."""
    decisions = decisions_of(panel, RunConfig())
    oracle = Combine([Momentum(lookback_hours=30), Carry(lookback_hours=24)], 3, 25, 0.4)
    mid, funding = panel.frame("mid"), panel.frame("funding").fillna(0.0)
    scores = [pd.DataFrame(part.scores(panel, decisions), decisions, mid.columns) for part in oracle.oracles]
    last = decisions[-1]
    month = last.normalize().replace(day=1)
    squares, days = [], []
    for day in decisions:
        end = day + pd.Timedelta(days=3)
        if end > month or day <= month - pd.Timedelta(days=3 + 25):
            continue
        paid = funding.loc[day : end - pd.Timedelta(hours=1)].sum()
        known = scores[0].loc[day].notna() & scores[1].loc[day].notna() & mid.loc[end].notna()
        columns = [s.loc[day][known] for s in scores] + [(mid.loc[end] / mid.loc[day] - 1.0 - paid)[known]]
        if known.sum() >= 5:
            days.append(day)
            squares.append([np.clip((c - c.mean()) / c.std(ddof=0), -3, 3).to_numpy() for c in columns])
    assert 12 <= len(days) <= 25

    def loss(b: np.ndarray, e: float) -> float:
        fit = np.mean([((y - b[0] * x - b[1] * z) ** 2).mean() for x, z, y in squares])
        return float(fit + 0.4 * ((b - e) ** 2).sum())

    told = [np.mean([(day[k] * day[2]).mean() for day in squares]) for k in range(2)]
    gram = sum(np.mean([(day[k] * day[j]).mean() for day in squares]) for k in range(2) for j in range(2))
    equal = max(0.0, sum(told)) / gram
    best = minimize(loss, [0.1, 0.1], args=(equal,), bounds=[(0, None)] * 2, tol=1e-14).x
    assert best.sum() > 0
    np.testing.assert_allclose(oracle.learned(panel, decisions).weights[-1], best / best.sum(), atol=1e-5)


def test_shares_by_hand() -> None:
    one = np.eye(2)
    assert _shares(one, np.array([0.06, 0.02]), 1e-12) == pytest.approx([0.75, 0.25])
    assert _shares(one, np.array([0.06, 0.02]), 1.0) == pytest.approx([0.625, 0.375])  # half-way to a half
    assert _shares(one, np.array([0.06, -0.02]), 1e-12) == pytest.approx([1.0, 0.0])
    assert _shares(one, np.array([0.06, 0.02]), np.inf) == pytest.approx([0.5, 0.5])
    for ridge in (1e-12, 1.0, np.inf):
        assert _shares(one, np.array([-0.06, 0.02 if ridge < 1e-9 else -0.02]), ridge).sum() in (0.0, 1.0)
        assert _shares(one, np.array([-0.06, -0.02]), ridge).tolist() == [0.0, 0.0]
    # Two that say the same and one that says another thing: the two share what one would have.
    twins = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    found = _shares(twins, np.array([0.04, 0.04, 0.04]), 1e-6)
    assert found[:2].sum() == pytest.approx(0.5, abs=1e-3) and found[2] == pytest.approx(0.5, abs=1e-3)


def gains(strength: tuple[float, float, float], seeds: int) -> np.ndarray:
    """Sharpe ratio of Combine less that of the equal blend, a seed each, on the days on which weights are learned."""
    found = []
    for seed in range(seeds):
        made, returns = planted(seed, strength)
        decisions = decisions_of(made, RunConfig())[:-1]
        oracle = three(seed, train_days=240)
        known = oracle.learned(made, decisions).known
        assert known.sum() > 200
        books = oracle.weight_matrix(made, decisions).to_numpy(), z_score(_standardised(drawn(seed)).mean(axis=0))[:-1]
        daily = [(book * returns[:-1]).sum(axis=1)[known] for book in books]
        found.append(np.subtract(*(np.sqrt(365) * day.mean() / day.std(ddof=1) for day in daily)))
    return np.array(found)


def test_unequal_scores_are_blended_better_than_equally_and_equal_ones_no_worse() -> None:
    seeds = some(8, 60)
    unequal, equal = gains((0.08, 0.03, 0.0), seeds), gains((0.04, 0.04, 0.04), seeds)
    error = equal.std(ddof=1) / np.sqrt(seeds)
    told = f"unequal: better in {(unequal > 0).mean():.0%} of {seeds} seeds, Sharpe {unequal.mean():+.2f} on average"
    told += f"; equal: {equal.mean():+.3f}, standard error {error:.3f}, worst {equal.min():+.2f}"
    sys.stdout.write(f"{told}\n")
    assert (unequal > 0).mean() >= 0.9 and unequal.mean() > 1.0, told
    assert equal.mean() > -max(error, 0.05), told


def test_notes_and_risk_show_the_weights() -> None:
    made, _ = planted(1, (0.1, 0.03, 0.0), days=150)
    decisions = decisions_of(made, RunConfig())
    oracle = three(1, train_days=90)
    learned = oracle.learned(made, decisions)
    first = decisions[np.argmax(learned.known)]
    assert first == pd.Timestamp("2023-03-01 23:00", tz="UTC")  # 45 days, and those of the purge, were seen
    assert np.unique(learned.weights[~learned.known]).tolist() == [1 / 3]
    (note,) = oracle.notes(made, decisions)
    assert note.startswith("Combine blends its scores equally before 2023-03-01 23:00 UTC and has learned weights")
    assert f"Drawn (0) {learned.weights[-1, 0]:.2f}, Drawn (1) {learned.weights[-1, 1]:.2f}" in note
    risk = oracle.risk(made, weight_matrix(oracle, made, decisions))
    assert list(risk.columns) == [f"weight of Drawn ({number})" for number in range(3)]
    np.testing.assert_array_equal(risk.to_numpy(), learned.weights)
    (note,) = three(1, train_days=500).notes(made, decisions)
    assert "equally throughout" in note
    result = backtest(made, oracle)
    assert any("has learned weights from then on" in text for text in result.notes)


def test_before_it_has_learned_it_is_the_equal_blend_and_scores_that_tell_nothing_are_flat() -> None:
    made, _ = planted(2, (-0.1, -0.1, -0.1), days=120)
    decisions = decisions_of(made, RunConfig())
    oracle = three(2, train_days=40)
    matrix, learned = weight_matrix(oracle, made, decisions), oracle.learned(made, decisions)
    blend = z_score(_standardised(drawn(2)).mean(axis=0))[: len(decisions)]
    np.testing.assert_allclose(matrix[~learned.known], blend[~learned.known], atol=1e-15)
    assert (matrix[learned.known] == 0).all(axis=None) and learned.known.sum() > 50
    assert any("Combine is flat at" in note for note in oracle.notes(made, decisions))


class Counting(Momentum):
    """Counts how often its scores are computed."""

    calls = 0

    def scores(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        type(self).calls += 1
        return super().scores(panel, decisions)


def test_sets_of_a_sweep_share_the_scores_inside(panel: Panel) -> None:
    grid = {"ridge": [0.1, 1.0], "train_days": [10, 20], "n": [1, 2], "horizon_days": [2]}
    inner = [{"oracle": f"{__name__}:Counting", "lookback_hours": 30}, "research.oracles.carry:Carry"]
    Counting.calls = 0
    study = sweep(panel, Combine, grid | {"oracles": [inner]})
    assert Counting.calls == 1
    for row in study.reset_index().to_dict("records"):
        alone = Combine(inner, 2, row["train_days"], row["ridge"], n=row["n"])
        assert row["sharpe"] == pytest.approx(backtest(panel, alone).metrics["sharpe"], rel=1e-9)
    Counting.calls = 0
    sweep(panel, RankBlend, {"oracles": [inner], "shares": [[1, 2], [2, 1]], "n": [1, 2]})
    assert Counting.calls == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"oracles": Momentum()}, "give a list of oracles"),
        ({"horizon_days": 0}, "horizon_days = 0 is not accepted"),
        ({"train_days": 1}, "train_days = 1 is not accepted"),
        ({"ridge": 0}, "ridge = 0 is not accepted"),
        ({"construction": "top"}, "construction = 'top' is not accepted"),
    ],
)
def test_what_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OracleError, match=message):
        Combine(**{"oracles": [Momentum()]} | given)
