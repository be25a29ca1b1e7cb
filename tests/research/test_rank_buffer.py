"""The rank buffer: the compiled construction is a slow one to the bit, sweeps share its scores, every oracle has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from engine import Oracle, Panel, RunConfig, backtest_many, decisions_of, sweep, weight_matrix
from engine.errors import OracleError
from engine.lookahead.audit import audit
from engine.oracles.loading import build_oracle
from engine.validation.null_books import null_books, null_search
from helpers.panels import holed_panel
from helpers.studies import market
from research.oracles.blend import RankBlend
from research.oracles.combine import Combine
from research.oracles.construction import Ranking, top_bottom
from research.oracles.crowdcent import CrowdCentOracle
from research.oracles.file import FileOracle
from research.oracles.momentum import Momentum
from research.oracles.numerai import NumeraiTBNOracle


def slow_books(scores: np.ndarray, n: int, gross: float, hold_rank: int) -> np.ndarray:
    """The rule, word by word."""
    weights = np.zeros(scores.shape)
    longs: list[int] = []
    shorts: list[int] = []
    for row, book in zip(scores, weights, strict=True):
        coins = [coin for coin in range(len(row)) if not np.isnan(row[coin])]
        best = sorted(coins, key=lambda coin: (-row[coin], coin))
        worst = sorted(coins, key=lambda coin: (row[coin], coin))
        side = min(n, len(coins) // 2)
        if len(coins) < 2 * hold_rank or side == 0:
            longs, shorts = [], []
            continue
        kept = [coin for coin in best[:hold_rank] if coin in longs]
        longs = kept + [coin for coin in best if coin not in kept][: side - len(kept)]
        worst = [coin for coin in worst if coin not in longs]
        kept = [coin for coin in worst[:hold_rank] if coin in shorts]
        shorts = kept + [coin for coin in worst if coin not in kept][: side - len(kept)]
        book[longs], book[shorts] = 0.5 * gross / side, -(0.5 * gross / side)
    return weights


def nasty_scores(seed: int) -> np.ndarray:
    """Walks of scores with ties, holes, infinite values, rows with few coins or none, and coins that come late."""
    rng = np.random.default_rng(seed)
    days, coins = int(rng.integers(1, 40)), int(rng.integers(1, 30))
    scores = np.cumsum(rng.normal(size=(days, coins)), axis=0)
    if seed % 3:
        scores = np.round(scores / (seed % 3))  # many ties
    scores[rng.random(scores.shape) < 0.1] = np.nan
    scores[rng.random(scores.shape) < 0.02] = np.inf
    scores[rng.random(scores.shape) < 0.02] = -np.inf
    scores[rng.random(days) < 0.1] = np.nan
    few = rng.random(days) < 0.15
    scores[few, min(3, coins) :] = np.nan
    scores[: days // 2, coins // 2 : coins // 2 + 2] = np.nan
    return scores


@pytest.mark.parametrize("seed", range(40))
def test_the_compiled_books_are_the_slow_ones_to_the_bit(seed: int) -> None:
    scores, rng = nasty_scores(seed), np.random.default_rng(seed)
    rules = [(n, float(rng.uniform(0.1, 2.0)), int(n + rng.integers(0, 8))) for n in rng.integers(1, 9, 6).tolist()]
    rules += [(n, gross, 0) for n, gross, _ in rules[:2]]
    oracles = [Momentum(n=n, gross=gross, hold_rank=m) for n, gross, m in rules]
    together = Momentum.construct_many(oracles, scores).to_dense(*scores.shape)
    for (n, gross, m), oracle, book in zip(rules, oracles, together, strict=True):
        expected = slow_books(scores, n, gross, m)
        assert np.array_equal(book, expected), (n, m)
        assert np.array_equal(oracle.construct(scores), expected)
        assert np.array_equal(top_bottom(Ranking(scores), n, gross, m), expected)
        stops = rng.integers(1, len(scores) + 1, 2)  # a row depends on no later one
        assert all(np.array_equal(oracle.construct(scores[:stop]), expected[:stop]) for stop in stops)
        if m == n:  # keeps nothing: the plain book where there is one
            enough = (~np.isnan(scores)).sum(axis=1) >= 2 * n
            assert np.array_equal(book[enough], top_bottom(scores, n, gross)[enough]) and not book[~enough].any()


def test_one_path_by_hand() -> None:
    """Coins A to H, one a side, places up to 3."""
    scores = np.array(
        [
            [8, 7, 6, 5, 4, 3, 2, 1],  # A long, H short
            [6, 8, 7, 5, 4, 1, 2, 3],  # A is third and stays; so does H
            [5, 8, 7, 6, 1, 2, 3, 4],  # A is fourth and leaves for B, H is fourth lowest and leaves for E
            [8, np.nan, 7, 6, 4, 3, 2, 1],  # B has no score: A; E is fourth lowest: H
            [8, 7, 6, 5, 4, np.nan, np.nan, np.nan],  # five scores, six are needed: flat, and forgotten
            [6, 8, 7, 5, 4, 3, 1, 2],  # A is third, but nothing is held
        ],
        dtype=np.float64,
    )
    names = [("A", "H"), ("A", "H"), ("B", "E"), ("A", "H"), None, ("B", "G")]
    for row, sides in zip(top_bottom(scores, 1, hold_rank=3), names, strict=True):
        expected = {} if sides is None else {sides[0]: 0.5, sides[1]: -0.5}
        assert {"ABCDEFGH"[coin]: row[coin] for coin in np.flatnonzero(row)} == expected


@pytest.mark.parametrize("value", [4, -1, True, 7.0, "9"])
def test_a_rank_that_is_not_accepted(value: object) -> None:
    with pytest.raises(OracleError, match="at least n = 5"):
        build_oracle(Momentum, {"n": 5, "hold_rank": value})
    with pytest.raises(OracleError, match="at least tb = 5"):
        build_oracle(NumeraiTBNOracle, {"tb": 5, "hold_rank": value})
    assert Momentum(n=5, hold_rank=5).path_dependent


def test_who_keeps_what_was_held(tmp_path: Path) -> None:
    kinds = [Momentum, FileOracle, CrowdCentOracle, NumeraiTBNOracle, RankBlend, Combine]
    given = {FileOracle: {"file": "x.csv"}, RankBlend: {"oracles": [Momentum()]}, Combine: {"oracles": [Momentum()]}}
    for kind in kinds:
        for rank in (0, 9):
            assert build_oracle(kind, {**given.get(kind, {}), "hold_rank": rank}).path_dependent == (rank > 0)
    assert not Momentum(construction="z_score", hold_rank=9).path_dependent  # which has no places
    assert RankBlend([Momentum(hold_rank=9)]).path_dependent
    with pytest.raises(OracleError, match="follows from its decisions before"):
        file = tmp_path / "scores.csv"
        file.write_text("date,coin,score,available_at\n2024-10-03,C00,1,2024-10-03T12:00Z\n")
        FileOracle(str(file), hold_rank=9).fetch_portfolio_weights(pd.Timestamp("2024-10-03T23:00Z"), ["C00", "C01"])


@dataclass(frozen=True)
class Counted(Momentum):
    """Momentum that counts the decisions that it scores."""

    rows: ClassVar[list[int]] = []

    def scores(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        self.rows.append(len(decisions))
        return super().scores(panel, decisions)


@pytest.fixture(scope="module")
def panel() -> Panel:
    return market(3, 40, 12, 0.001)


def test_a_sweep_over_the_rank_shares_the_scores(panel: Panel) -> None:
    Counted.rows.clear()
    grid = {"lookback_hours": [24, 48], "n": [2, 5], "hold_rank": [0, 3, 6]}
    study = sweep(panel, Counted, grid)
    # Once for each lookback, and once for each of n and hold_rank, of which it is asked whether they decide the score.
    assert len(Counted.rows) == 4
    failed = study["error"].str.contains("hold_rank = 3 is not accepted")
    assert failed.sum() == 2 and (study["error"][~failed] == "").all()
    decisions = decisions_of(panel, RunConfig())
    turnover = study["turnover_daily"]
    assert all(turnover[lookback, n, 6] < turnover[lookback, n, 0] for lookback in (24, 48) for n in (2, 5))
    for lookback, n, rank in ((24, 2, 3), (48, 5, 6), (48, 2, 0)):
        weights = weight_matrix(Momentum(lookback_hours=lookback, n=n, hold_rank=rank), panel, decisions)
        alone = backtest_many(panel, weights.to_numpy()[None], decisions)
        assert alone["sharpe"].iloc[0] == study["sharpe"][lookback, n, rank]


def test_nulls_of_buffered_books(panel: Panel) -> None:
    """A null keeps the turnover of the book; those of a search are made of the same books."""
    oracle = Momentum(lookback_hours=48, n=2, hold_rank=4)
    weights = weight_matrix(oracle, panel, decisions_of(panel, RunConfig()))
    found = null_books(panel, weights, replicates=50)
    assert np.isfinite(found.permuted).all() and found.decides == "permuted"
    study = sweep(panel, Momentum, {"hold_rank": [0, 4, 6]}, fixed={"lookback_hours": 48, "n": 2})
    searched = null_search(study, panel, 20)
    assert np.isfinite(searched.best).all() and searched.sharpe == pytest.approx(study["sharpe"].max())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Momentum(lookback_hours=30, n=1, hold_rank=3),
        lambda: RankBlend([Momentum(lookback_hours=30), Momentum(lookback_hours=48)], n=1, hold_rank=3),
    ],
    ids=["momentum", "blend"],
)
def test_the_audit_of_a_buffer_is_clean(make: type[Oracle]) -> None:
    panel = holed_panel()
    result = audit(make, panel, decisions_of(panel, RunConfig()))
    assert result.passed and result.strength == 1.0, result.message()
