"""No-trade bands and the trade rate: by hand and by law; live sizing is in test_laws.py."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Coin, Panel, Result, RunConfig, backtest, backtest_many
from engine.errors import ConfigError, WeightsError
from helpers.batches import assert_same
from helpers.effort import some
from helpers.panels import random_panel, random_weights

HELD_USD = 100.0  # price of every coin here, so that weights of 10,000 USD are hundreds of units


def run(rows: list[dict[str, float]], table: list[Coin] | None = None, **execution: object) -> Result:
    """Weights by row of coins at a constant price, without costs: equity stays 10,000 USD. One run is as many."""
    coins = sorted({coin for row in rows for coin in row})
    index = pd.date_range("2024-10-01T23:00Z", periods=len(rows), freq="h")
    panel = Panel.from_frames(table=table, mid=pd.DataFrame(HELD_USD, index=index, columns=coins))
    account = {"max_gross": 5.0, "initial_margin": "initial_margin" in execution}
    execution.pop("initial_margin", None)
    config = RunConfig.from_dict(
        {
            "costs": {"taker_bps": 0.0, "half_spread_bps": 0.0},
            "execution": {"min_notional_usd": 0.0, **execution},
            "account": account,
        }
    )
    weights = pd.DataFrame(rows, index=index, columns=coins).fillna(0.0)
    result = backtest(panel, weights, config)
    assert_same(backtest_many(panel, weights.to_numpy()[None], index, config).iloc[0], result)
    return result


def ends(rows: list[float], **execution: object) -> list[float]:
    """Weight of one coin that is held after each row."""
    return (run([{"A": w} for w in rows], **execution).exposure["net_frac"]).round(12).tolist()


@pytest.mark.parametrize(
    ("rows", "held"),
    [
        ([0.5, 0.54, 0.56, 0.53], [0.45, 0.49, 0.51, 0.51]),  # to the near edge, both when it opens and when it grows
        ([0.5, 0.3], [0.45, 0.35]),  # the near edge is above a smaller target
        ([0.05, 0.051, 0.0], [0.0, 0.001, 0.0]),  # nothing is opened for a target inside the band; a close is whole
        ([-0.5, 0.3], [-0.45, 0.25]),  # a flip
        ([-0.5, 0.02], [-0.45, -0.03]),  # one that stays on the old side
        ([-0.5, 0.05, 0.051], [-0.45, 0.0, 0.001]),  # one that ends flat, and no dust of it
        ([0.1] * 4, [0.05] * 4),  # at the edge nothing is left to do
    ],
)
def test_a_trade_ends_at_the_edge_of_the_band(rows: list[float], held: list[float]) -> None:
    assert ends(rows, no_trade_band_frac=0.05, no_trade_band="to_edge") == held


def test_what_the_band_left_is_counted_and_a_flat_end_is_a_close() -> None:
    rows = [{"A": w} for w in (-0.5, 0.05, 0.05, 0.04)]
    result = run(rows, no_trade_band_frac=0.05, no_trade_band="to_edge")
    assert result.trades["reason"].tolist() == ["open", "close"]
    assert (result.metrics["skipped_band"], result.metrics["skipped_min_notional"]) == (2, 0)
    # an order to the edge may be too small for the exchange: 0.0005 of 10,000 USD
    small = run([{"A": 0.05}, {"A": 0.1005}], no_trade_band_frac=0.05, no_trade_band="to_edge", min_notional_usd=510.0)
    assert (small.metrics["skipped_band"], small.metrics["skipped_min_notional"]) == (1, 1)


def test_a_coin_has_a_band_of_its_own() -> None:
    bands = {"*": 0.1, "B": 0.0, "C": 0.02}
    row = {"A": 0.3, "B": 0.3, "C": 0.3}
    edge = run([row], no_trade_band_frac=0.2, no_trade_band="to_edge", no_trade_band_coins=bands)
    assert edge.trades["units"].tolist() == pytest.approx([20.0, 30.0, 28.0])
    skip = run([row, {**row, "A": 0.39, "B": 0.31, "C": 0.33}], no_trade_band_coins="*=0.1,B=0,C=.02")
    assert skip.trades["units"].tolist() == pytest.approx([30.0, 30.0, 30.0, 1.0, 3.0])
    with pytest.raises(ConfigError, match=r"no_trade_band_coins names 'BTX', which is no coin .* Did you mean 'BTC'"):
        run([{"BTC": 0.1}], no_trade_band_coins={"BTX": 0.1})
    with pytest.raises(ConfigError, match=r"names 'xyz:\*'"):
        run([{"BTC": 0.1}], no_trade_band_coins={"BTC": 0.1, "xyz:*": 0.1})
    for wrong in ({"A": 2.0}, {"A": "0.1"}, "A=x", "A", ["A", 0.1], {"": 0.1}, {"A": True}):
        with pytest.raises(ConfigError, match="no_trade_band_coins"):
            RunConfig.from_dict({"execution": {"no_trade_band_coins": wrong}})


def test_a_part_of_the_way_is_traded() -> None:
    assert ends([0.4, 0.4, 0.4], trade_rate=0.5) == [0.2, 0.3, 0.35]
    assert ends([0.4, -0.4], trade_rate=0.25) == [0.1, -0.025]
    # the band first, then the rate: half of what is left to the edge; a skip looks at the whole way
    assert ends([0.4, 0.4], trade_rate=0.5, no_trade_band_frac=0.1, no_trade_band="to_edge") == [0.15, 0.225]
    assert ends([0.4, 0.4, 0.4], trade_rate=0.5, no_trade_band_frac=0.11) == [0.2, 0.3, 0.3]
    # half of a lot is none; what is too small waits until the way is longer
    lots = [Coin("A", sz_decimals=0)]
    counted = run([{"A": 0.03}, {"A": 0.03}, {"A": 0.03}, {"A": 0.05}], lots, trade_rate=0.5)
    assert counted.trades["units"].tolist() == [1.0, 1.0, 1.0]
    assert counted.metrics["skipped_min_notional"] == 1
    waits = run([{"A": 0.0015}, {"A": 0.0015}, {"A": 0.0035}], trade_rate=0.5, min_notional_usd=10.0)
    assert waits.trades["units"].tolist() == pytest.approx([0.175])


def test_a_close_in_parts_ends() -> None:
    rows = [{"A": 0.4, "B": 0.1}, *[{"B": 0.1}] * 6]
    result = run(rows, trade_rate=0.5, min_notional_usd=300.0)
    sold = result.trades[result.trades["coin"] == "A"]
    # 2,000 USD, then 1,000, 500; a further half would leave and be 250 USD: all of it
    assert sold["units"].tolist() == pytest.approx([20.0, -10.0, -5.0, -5.0])
    assert sold["reason"].tolist() == ["open", "reduce", "reduce", "close"]
    lots = run([{"A": 0.04}, *[{"A": 0.0}] * 6], [Coin("A", sz_decimals=0)], trade_rate=0.5)
    assert lots.trades["units"].tolist() == [2.0, -1.0, -1.0]
    free = run([{"A": 1.0}, *[{"A": 0.0}] * 40], trade_rate=0.5)
    assert free.trades["reason"].tolist() == ["open"] + ["reduce"] * 28 + ["close"]
    band = run([{"A": 0.4}, {"A": 0.0}, {"A": 0.0}], trade_rate=0.5, no_trade_band_frac=0.3, no_trade_band="to_edge")
    assert band.trades["units"].tolist() == pytest.approx([5.0, -2.5, -1.25])  # a close is in no band


def test_margin_is_of_what_the_orders_leave() -> None:
    """A falls from 1.8 to 0.4 and B rises from 0 to 1.6, all at 2x: the targets need the equity, what is left more."""
    table = [Coin("A", max_leverage=2.0), Coin("B", max_leverage=2.0)]
    rows: list[dict[str, float]] = [{"A": 1.9, "B": 0.0}, {"A": 0.4, "B": 1.6}]
    margin: dict[str, Any] = {"initial_margin": True}
    assert run(rows, table, **margin).metrics["trades"] == 3
    assert run(rows, table, trade_rate=0.5, **margin).metrics["decisions"] == 2  # 0.95, then 0.675 and 0.8
    wide = {"no_trade_band": "to_edge", "no_trade_band_coins": {"A": 0.2}}
    with pytest.raises(WeightsError, match=r"need 1\.1 times the account's equity"):  # 0.6 of A with 1.6 of B
        run(rows, table, **wide, **margin)
    # a row that only makes the need smaller is taken, whatever the band leaves
    assert run([rows[0], {"A": 1.8, "B": 0.0}], table, **wide, **margin).metrics["skipped_band"] == 1


def test_no_band_and_the_whole_way_are_what_was() -> None:
    """Bits, for one run and for many; and an old config says nothing of the new keys."""
    panel = random_panel(3, 24 * 20, 8, quotes=True, funding=True, table=True)
    weights = random_weights(3, panel)
    plain, edge = RunConfig(), RunConfig.from_dict({"execution": {"no_trade_band": "to_edge", "trade_rate": 1}})
    pd.testing.assert_series_equal(backtest(panel, weights, plain).equity, backtest(panel, weights, edge).equity)
    assert not {"no_trade_band", "no_trade_band_coins", "trade_rate"} & plain.to_dict()["execution"].keys()
    own = {"execution": {"no_trade_band_coins": {"*": 0.02, "C01": 0.01}, "trade_rate": 0.5}}
    assert RunConfig.from_dict(RunConfig.from_dict(own).to_dict()) == RunConfig.from_dict(own)
    books = weights.reindex(columns=list(panel.coins), fill_value=0.0).to_numpy()[None]
    pd.testing.assert_frame_equal(
        backtest_many(panel, books, weights.index, plain), backtest_many(panel, books, weights.index, edge)
    )


def test_a_wider_band_and_a_lower_rate_never_trade_more() -> None:
    """Of targets that wander at a constant price: what follows them with play turns over less, the wider the play."""
    for seed in range(some(2, 100)):
        rng = np.random.default_rng(seed)
        path = [{"A": w} for w in np.clip(np.cumsum(rng.normal(0, 0.05, 60)), -1, 1) + 1e-6]

        def turnover(path: list[dict[str, float]] = path, **execution: object) -> float:
            return float(run(path, **execution).metrics["turnover_decision"])

        for keys in (
            [{"no_trade_band_frac": width, "no_trade_band": "to_edge"} for width in (0.0, 0.01, 0.05, 0.2, 0.9)],
            [{"trade_rate": rate} for rate in (1.0, 0.9, 0.5, 0.1)],
        ):
            assert all(more >= less - 1e-9 for more, less in pairwise(turnover(**one) for one in keys))
