"""The optimising oracle: its limits, its costs, its path, what is stuck; on made-up panels of 56 days."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Oracle, Panel, RunConfig
from engine.errors import ConfigError, OracleError
from engine.lookahead.audit import check_causal
from engine.oracles.base import risk_of, weight_matrix
from engine.oracles.loading import load_oracle
from engine.panel import Coin
from engine.risk.characteristics import means_of_last, volume_of_a_day
from engine.risk.model import RiskModel
from engine.simulation.costs import fill_costs
from helpers.fees import published_fees
from helpers.naive import backtest as naive_backtest
from helpers.panels import random_panel
from research.oracles.carry import Carry
from research.oracles.momentum import Momentum
from research.oracles.optimise import Optimise

INNER = Momentum(lookback_hours=48, n=3)


@pytest.fixture(scope="module")
def panel() -> Panel:
    made = random_panel(3, 24 * 58, 14)
    names = ["BTC", *made.coins[1:]]
    frames = {name: made.frame(name).set_axis(names, axis=1) for name in made.fields}
    return Panel.from_frames(table=[Coin(name) for name in names], **frames)


def days(panel: Panel) -> pd.DatetimeIndex:
    return panel.index[panel.index.hour == 23]


class Told(Oracle):
    """The same weights every day, but for some days."""

    def __init__(self, row: list[float], other: dict[int, list[float]] | None = None) -> None:
        self.row, self.other = row, other or {}

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        made = pd.DataFrame([self.row] * len(decisions), index=decisions, columns=list(panel.coins))
        for number, row in self.other.items():
            made.loc[days(panel)[number]] = row
        return made


def test_every_book_is_within_its_limits_and_flat_before_there_is_a_risk_model(panel: Panel) -> None:
    decisions = days(panel)
    share = Optimise(INNER, cap=0.2, gross=1.5, skill=0.5, neutral=["dollars", "beta", "size"], volume_share=0.001)
    matrix = weight_matrix(share, panel, decisions)
    model, values = RiskModel.fit(panel, decisions), np.nan_to_num(matrix.to_numpy())
    known = np.isfinite(model.factor_covariance[:, 0, 0])
    assert 3 < known.sum() < 12 and (values[~known] == 0).all() and (np.abs(values[known]).sum(axis=1) > 0.1).all()
    assert (np.abs(values).sum(axis=1) <= 1.5 + 1e-6).all()
    volumes = means_of_last(volume_of_a_day(panel), panel.rows(decisions), 168)
    assert (np.abs(values[known]) <= np.minimum(0.2, 0.001 * volumes[known] / 10_000) + 1e-7).all()
    for exposure in (np.ones_like(values), model.exposures[:, :, 0], model.exposures[:, :, 1]):
        stuck = matrix.isna().any(axis=1).to_numpy()
        assert np.abs((values * np.nan_to_num(exposure)).sum(axis=1))[known & ~stuck].max() < 1e-6
    (note,) = [note for note in share.notes(panel, decisions) if "covariance" in note]
    assert note.startswith(f"Optimise is flat at {(~known).sum()} of {len(decisions)} decisions, for its risk model")
    frame = risk_of(share, panel, matrix)
    assert frame is not None and abs(frame["market exposure"].iloc[-1]) < 1e-6
    assert frame["expected volatility"].iloc[-1] == pytest.approx(model.volatility(values)[-1])


@pytest.mark.parametrize("oracle", [Optimise(INNER, skill=0.3), Optimise(Told([0.3, -0.3] + [0.1, -0.1] * 6))])
def test_causal_and_the_last_row_of_a_shorter_schedule(panel: Panel, oracle: Optimise) -> None:
    decisions = days(panel)
    matrix = weight_matrix(oracle, panel, decisions)
    assert matrix.iloc[-1].abs().sum() > 0.1
    check_causal(oracle, panel, decisions[-6:])
    cut = panel.until(decisions[-3])
    pd.testing.assert_frame_equal(weight_matrix(oracle, cut, decisions[:-2]), matrix.iloc[:-2], check_exact=True)
    assert oracle.path_dependent


def test_costs_keep_a_book_and_aversion_to_them_more_so(panel: Panel) -> None:
    def turnover(**parameters: Any) -> float:
        weights = weight_matrix(Optimise(INNER, **{"risk_aversion": 20.0} | parameters), panel, days(panel))
        return float(weights.fillna(0.0).diff().abs().iloc[-5:].sum().sum())

    free, usual, dear = (turnover(cost_aversion=k) for k in (0.0, 1.0, 20.0))
    assert free > 1.2 * usual > 1.2 * dear
    assert turnover(costs={"taker_bps": 50.0}) < usual and turnover(costs={"stress": 0.0}) > usual
    assert turnover(risk_aversion=500.0) < free


def test_the_book_before_is_moved_by_prices(panel: Panel) -> None:
    """Where trading is too dear to be worth anything, the weights are those of a book that is left alone."""
    decisions = days(panel)
    model = RiskModel.fit(panel, decisions)
    first = int(np.flatnonzero(np.isfinite(model.factor_covariance[:, 0, 0]))[0])
    entry = replace(
        panel, fields={**panel.fields, "bid": panel.values("bid").copy(), "ask": panel.values("ask").copy()}
    )
    for name, factor in (("bid", 0.6), ("ask", 1.7)):
        entry.fields[name].flags.writeable = True
        entry.fields[name][panel.rows(decisions)[first] + 1 :] *= factor
    oracle = Optimise(INNER, neutral=[], risk_aversion=20.0, gross=3.0, cap=1.0)
    matrix = weight_matrix(oracle, entry, decisions).to_numpy()
    mid = panel.values("mid")[panel.rows(decisions)]
    held = matrix[first]
    assert np.abs(held).sum() > 0.2
    for d in range(first + 1, len(decisions)):
        moves = mid[d] / mid[d - 1] - 1.0
        held = held * (1.0 + moves) / (1.0 + held @ moves)
        row = np.where(np.isnan(matrix[d]), held, matrix[d])
        np.testing.assert_allclose(row, held, atol=1e-9)


def test_stuck_coins_stay_and_are_hedged_and_named(panel: Panel) -> None:
    decisions = days(panel)
    tradable = panel.tradable.copy()
    oracle = Optimise(Told([0.5, -0.5] * 7), skill=0.2, neutral=["dollars"])
    book = weight_matrix(oracle, panel, decisions)
    column = int(book.iloc[-3].abs().argmax())
    tradable[panel.rows(decisions)[-2:], column] = False
    stopped = replace(panel, tradable=tradable)
    matrix = weight_matrix(oracle, stopped, decisions)
    assert matrix.iloc[-2:, column].isna().all() and matrix.iloc[-3].equals(book.iloc[-3])
    mid = panel.values("mid")[panel.rows(decisions)]
    moves = mid[-2] / mid[-3] - 1.0
    before = book.to_numpy()[-3]
    stuck = before[column] * (1.0 + moves[column]) / (1.0 + before @ moves)
    assert matrix.iloc[-2].sum() == pytest.approx(-stuck, abs=1e-7)
    name = panel.coins[column]
    (note,) = [text for text in oracle.notes(stopped, decisions) if "could not trade" in text]
    assert note.endswith(f"stayed as they were: {name} (2 times).")
    asked = Told([0.5, -0.5] * 7, {len(decisions) - 1: [np.nan] + [0.5, -0.5] * 6 + [0.5]})
    assert np.isnan(weight_matrix(Optimise(asked, skill=0.2), panel, decisions).iloc[-1, 0])


def test_no_book_within_the_limits_is_named_or_held_as_is_chosen(panel: Panel) -> None:
    """All but the smallest position are held, and what prices did to the book cannot be hedged with that one."""
    decisions = days(panel)
    parameters: dict[str, Any] = {"skill": 0.2, "neutral": ["dollars"]}
    book = weight_matrix(Optimise(Told([0.5, -0.5] * 7), **parameters), panel, decisions).iloc[-2].abs().to_numpy()
    last = np.where(np.arange(14) == np.argmin(book), 0.0, np.nan).tolist()
    asked = Told([0.5, -0.5] * 7, {len(decisions) - 1: last})
    with pytest.raises(
        OracleError, match=r"Optimise at 2024-11-27 23:00 UTC: .*Stuck, .*: BTC .*gross = 1, neutral = dol"
    ):
        weight_matrix(Optimise(asked, **parameters), panel, decisions)
    oracle = Optimise(asked, **parameters, on_infeasible="hold")
    matrix = weight_matrix(oracle, panel, decisions)
    assert matrix.iloc[-1].isna().sum() >= 10 and (matrix.iloc[-1].fillna(0.0) == 0.0).all()
    assert matrix.iloc[-2].notna().all()
    assert oracle.notes(panel, decisions)[-1] == (
        f"No book was within the limits at 1 of {len(decisions)} decisions, and all was held: 2024-11-27 23:00 UTC."
    )
    idle = Optimise(Told([0.5, -0.5] * 7, {len(decisions) - 1: [np.nan] * 14}), **parameters)
    assert weight_matrix(idle, panel, decisions).iloc[-1].isna().all()  # it asked for nothing at all


def test_a_coin_of_weight_zero_is_only_reduced(panel: Panel) -> None:
    decisions = days(panel)
    some_coins = [0.5, -0.5, 0.5, -0.5] + [0.0] * 10
    matrix = weight_matrix(Optimise(Told(some_coins), skill=0.3, neutral=[]), panel, decisions)
    assert (matrix.iloc[:, 4:] == 0).all().all() and (matrix.iloc[-1, :4].abs() > 0).any()


@pytest.mark.parametrize("quotes", [True, False])
def test_costs_are_those_of_the_ledger(quotes: bool) -> None:
    """A book of one trade a coin: what it paid in the slow ledger is what the optimiser counts."""
    panel = random_panel(8, 60, 6, quotes=quotes)
    costs = {"taker_bps": "schedule", "stress": 1.5, "staking_discount_frac": 0.1, "half_spread_bps": 3.0}
    config = RunConfig.from_dict({"costs": costs, "execution": {"lots": False}, "account": {"initial_equity_usd": 1e6}})
    row = int(panel.rows(days(panel))[1])
    signs = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    weights = pd.DataFrame([signs / 10], index=panel.index[[row]], columns=list(panel.coins))
    trades = naive_backtest(panel, weights, config, published_fees(panel, config)).trades
    buy, sell = (side[0] for side in fill_costs(panel, np.array([row]), config.costs))
    for made in trades:
        column = panel.coins.index(made.coin)
        paid = (made.spread_usd + made.fee_usd) / (abs(made.units) * panel.values("mid")[row, column])
        assert paid == pytest.approx((buy if signs[column] > 0 else sell)[column], rel=1e-9), made.coin
    assert len(trades) >= 4


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"cap": 0.0}, "cap = 0.0 is not accepted: it must be a positive number"),
        ({"risk_aversion": -1.0}, "risk_aversion = -1.0 is not accepted: it must be a number, at least 0"),
        ({"neutral": ["dollar"]}, "neutral = 'dollar' is not accepted: .* Did you mean 'dollars'"),
        ({"neutral": 3}, "neutral = 3 is not accepted: write a list"),
        ({"on_infeasible": "relax"}, "on_infeasible = 'relax' is not accepted: choose error or hold"),
        ({"costs": {"impact": "venue"}}, "costs.impact = 'venue' is not accepted: .* volume_share"),
        ({"costs": 4.5}, "costs = 4.5 is not accepted: write a table"),
    ],
)
def test_parameters_that_are_not_accepted(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(OracleError, match=words):
        Optimise(INNER, **parameters)


def test_costs_and_factors_that_do_not_exist(panel: Panel) -> None:
    with pytest.raises(ConfigError, match=r"costs\.taker_bp.*taker_bps"):
        Optimise(INNER, costs={"taker_bp": 3})
    with pytest.raises(OracleError, match=r"neutral = 'market xyz' is not accepted: .* market, size"):
        weight_matrix(Optimise(INNER, neutral="market xyz"), panel, days(panel))


def test_built_from_words(panel: Panel) -> None:
    path = "research.oracles.optimise:Optimise"
    table = {"inner": "research.oracles.carry:Carry", "inner.n": 4, "neutral": ["dollars"], "costs": {"taker_bps": 3.0}}
    built = load_oracle(path, table)
    assert built == Optimise(Carry(n=4), neutral=("dollars",), costs={"taker_bps": 3.0})
