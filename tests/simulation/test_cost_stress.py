"""costs.stress: what a fill costs, times so much; parity with naive.py is in test_reference.py and test_batch.py."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from engine import Panel, RunConfig, backtest, backtest_many
from engine.errors import ConfigError
from helpers.effort import some
from helpers.panels import random_panel, random_weights


def one_trade(costs: dict[str, object], **quotes: float) -> dict[str, float]:
    """Buy one coin at 100 for 1,000 USD and hold it; costs of that fill, USD."""
    index = pd.date_range("2025-06-01", periods=3, freq="h", tz="UTC")
    frames = {name: pd.DataFrame({"AAA": [value] * 3}, index=index) for name, value in quotes.items()}
    panel = Panel.from_frames(mid=pd.DataFrame({"AAA": [100.0] * 3}, index=index), **frames)
    weights = pd.DataFrame({"AAA": [0.1]}, index=index[1:2])
    return backtest(panel, weights, RunConfig.from_dict({"costs": {"taker_bps": 10.0, **costs}})).metrics


@pytest.mark.parametrize("stress", [0.0, 1.0, 2.5])
def test_by_hand(stress: float) -> None:
    plain = one_trade({"half_spread_bps": 20.0, "stress": stress})
    assert plain["spread_usd"] == pytest.approx(1000.0 * 20e-4 * stress)
    assert plain["fee_usd"] == pytest.approx(1000.0 * 10e-4 * stress * (1.0 + 20e-4 * stress))
    quoted = one_trade({"stress": stress}, bid=99.9, ask=100.3)
    assert quoted["spread_usd"] == pytest.approx(1000.0 * 30e-4 * stress)
    venue = one_trade({"impact": "venue", "stress": stress}, bid=99.9, ask=100.3, impact_bid=99.0, impact_ask=101.3)
    assert venue["spread_usd"] == pytest.approx(1000.0 * 30e-4 * stress)
    assert venue["impact_usd"] == pytest.approx(1000.0 * 100e-4 * stress * 1000.0 / 6000.0)
    assumed = one_trade({"impact": "venue", "impact_bps": 60.0, "stress": stress})
    assert assumed["impact_usd"] == pytest.approx(1000.0 * 60e-4 * stress * 1000.0 / 6000.0)


def test_a_gain_is_not_multiplied() -> None:
    """A rebate and a quote on the better side of mid stay what they are."""
    for stress in (0.0, 1.0, 3.0):
        better = one_trade({"stress": stress, "taker_bps": -1.0}, bid=99.0, ask=99.8)
        assert better["spread_usd"] == pytest.approx(1000.0 * -20e-4)
        assert better["fee_usd"] == pytest.approx(-1e-4 * 1000.0 * 0.998)


def test_no_stress_moves_a_fill_beyond_half_the_price() -> None:
    assert one_trade({"stress": 100.0, "half_spread_bps": 200.0})["spread_usd"] == pytest.approx(500.0)
    assert one_trade({"stress": 100.0}, bid=70.0, ask=130.0)["spread_usd"] == pytest.approx(500.0)
    assert one_trade({"stress": 3.0}, bid=10.0, ask=190.0)["spread_usd"] == pytest.approx(900.0)  # as it was


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(some(1, 3)))
def test_more_stress_never_helps(seed: int) -> None:
    panel = random_panel(seed, 24 * 20, 8, quotes=True, funding=True, oracle=True, table=True, volume=True, impact=True)
    weights = random_weights(seed, panel)
    ends = []
    for stress in (0.0, 0.5, 1.0, 2.0, 3.0):
        config = RunConfig.from_dict({"costs": {"stress": stress, "impact": "venue"}, "account": {"margin": False}})
        ends.append(backtest(panel, weights, config).metrics["equity_end_usd"])
        dense = weights.reindex(columns=list(panel.coins), fill_value=0.0).to_numpy()[None]
        many = backtest_many(panel, np.ascontiguousarray(dense), weights.index, config)
        assert many["equity_end_usd"].iloc[0] == pytest.approx(ends[-1], rel=1e-10)
    assert all(later < earlier for earlier, later in pairwise(ends))


def test_bad_values() -> None:
    for value in (-1.0, "x", float("nan"), True):
        with pytest.raises(ConfigError, match=r"costs\.stress"):
            RunConfig.from_dict({"costs": {"stress": value}})
