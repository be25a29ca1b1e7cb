"""The headline of an audit, lots and leverage that become known, and what a budget of seconds buys."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from engine import Panel, RunConfig, backtest, decisions_of
from engine.errors import OracleError
from engine.lookahead.audit import audit
from engine.oracles.base import weight_matrix
from helpers.audits import Honest, Planted, market
from helpers.panels import random_panel

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def panel() -> Panel:
    return market(6)


@pytest.fixture(scope="module")
def decisions(panel: Panel) -> pd.DatetimeIndex:
    return decisions_of(panel, RunConfig())


class Textbook(Planted):
    """The return of the next day, NaN (hold) where there is none."""

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        mid = panel.frame("mid")
        rank = (mid.shift(-24) / mid - 1.0).loc[decisions].rank(axis=1, pct=True) - 0.5
        return rank.div(rank.abs().sum(axis=1), axis=0)


def test_the_headline_of_the_textbook_leak_names_it(panel: Panel, decisions: pd.DatetimeIndex) -> None:
    message = audit(Textbook, panel, decisions).message()
    assert message.startswith(
        "Textbook fails the check 'the past alone gives the same weights' (cut): the weight of C00"
    )
    assert "but NaN (hold) on the data up to 2024-10-01 23:00 UTC alone" in message and "warm-up" not in message


class Leveraged(Planted):
    """Coins that may be levered ten times, from the day on which that is known."""

    def score(self, panel: Panel, rows: np.ndarray) -> np.ndarray:
        liked = np.zeros((len(rows), len(panel.coins)))
        for column, coin in enumerate(panel.table):
            if coin.terms_from is not None and (coin.max_leverage or 0.0) >= 10.0:
                liked[panel.index[rows] >= coin.terms_from, column] = 1.0
        return liked


def test_lots_and_leverage_are_seen_from_their_date_on(panel: Panel, decisions: pd.DatetimeIndex) -> None:
    dated = replace(panel, table=tuple(replace(coin, terms_from=panel.index[100]) for coin in panel.table))
    found = audit(Leveraged, dated, decisions)
    assert found.passed, found.message()
    weights = weight_matrix(Leveraged(), dated, decisions)
    assert not weights[decisions < dated.index[100]].any(axis=None) and weights.iloc[-1].any()
    for either in (panel, dated):  # the ledger has them at any time
        trades = backtest(either, weights, RunConfig()).trades
        units, decimals = trades["units"], np.array([either.coins.index(coin) for coin in trades["coin"]])
        assert len(units) and np.allclose(units * 10.0**decimals, np.round(units * 10.0**decimals), atol=1e-6)


class Slow(Honest):
    """On the clock of :func:`clock` alone, so that nothing hangs on how busy the machine is."""

    seconds = 0.01

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        CALLS.append(len(decisions))
        NOW[0] += self.seconds * len(decisions)
        return super().weight_matrix(panel, decisions)


CALLS: list[int] = []
NOW = [0.0]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.lookahead.audit.time", SimpleNamespace(monotonic=lambda: NOW[0]))


@pytest.mark.usefixtures("clock")
def test_a_budget_is_kept_and_says_what_it_bought() -> None:
    found, spent = {}, {}
    made = random_panel(3, 24 * 30, 3)
    for budget in (0.8, 60.0):
        CALLS.clear()
        found[budget] = audit(Slow, made, decisions_of(made, RunConfig()), budget=budget)
        spent[budget] = 0.01 * sum(CALLS)
        assert found[budget].passed, found[budget].message()
    assert spent[0.8] <= 1.0 < spent[60.0] and found[60.0].strength == 1.0
    assert 0.0 < found[0.8].strength < 1.0 and found[0.8].to_dict()["strength"] == found[0.8].strength
    assert "It took" not in found[60.0].strength_text()
    assert f"would have been seen at {found[0.8].strength:.0%} of 30 decisions" in found[0.8].strength_text()
    with pytest.raises(OracleError, match="budget = 0 is not accepted"):
        audit(Slow, made, decisions_of(made, RunConfig()), budget=0.0)


@pytest.mark.usefixtures("clock")
def test_a_budget_below_two_calls_says_that_it_was_exceeded() -> None:
    made = random_panel(3, 24 * 30, 3)
    found = audit(Slow, made, decisions_of(made, RunConfig()), budget=0.01)
    assert found.seconds is not None and found.seconds > 0.3 and found.to_dict()["seconds"] == found.seconds
    assert f"It took {found.seconds:.3g} s, more than the budget of 0.01 s" in found.strength_text()


def test_fewer_calls_than_three_a_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slow, "seconds", 0.0)
    made = random_panel(3, 24 * 60, 3)
    CALLS.clear()
    found = audit(Slow, made, decisions_of(made, RunConfig()))
    assert found.passed and found.strength == 1.0 and len(CALLS) < 2 * 60 and sum(CALLS) < 20 * 60
