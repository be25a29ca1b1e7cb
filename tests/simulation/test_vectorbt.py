"""Parity with vectorbt on real months, by the recipe of the contract, and Result.to_vectorbt()."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine import Coin, Panel, Result, RunConfig, backtest, load_panel
from engine.errors import DataError
from engine.oracles.base import weight_matrix
from engine.oracles.loading import load_oracle
from engine.simulation.backtest import decisions_of
from helpers.panels import random_panel, random_weights

# Importing vectorbt warns about other people's code and changes warning filters; neither is what is tested here.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def no_funding(**account: object) -> RunConfig:
    return RunConfig.from_dict({"costs": {"funding": False, "taker_bps": 4.5}, "account": {"margin": False, **account}})


def recipe(result: Result) -> np.ndarray:
    """Equity by vectorbt, fed with the positions that our ledger held at each decision and nothing else of it.

    Fill prices and fees are its own work: the mid, half a spread to the side of the trade, 4.5 bps.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import vectorbt

    panel = result.panel
    close = panel.frame("mid").ffill().bfill()
    held = np.zeros(len(panel.coins))
    targets = np.full(close.shape, np.nan)
    column = {coin: place for place, coin in enumerate(panel.coins)}
    for trade in result.trades.itertuples():
        held[column[trade.coin]] += trade.units
        if trade.reason == "close":
            held[column[trade.coin]] = 0.0
        targets[panel.index.get_loc(trade.time), column[trade.coin]] = held[column[trade.coin]]
    portfolio = vectorbt.Portfolio.from_orders(
        close,
        size=targets,
        size_type="targetamount",
        price=close,
        slippage=result.config.costs.half_spread_bps / 1e4,
        fees=4.5e-4,
        init_cash=1e7,
        cash_sharing=True,
        group_by=True,
        freq="1h",
    )
    return portfolio.value().to_numpy().ravel() - 1e7 + result.config.account.initial_equity_usd


@pytest.mark.parametrize(
    ("oracle", "gross"),
    [("momentum:Momentum", 1.0), ("low_volatility:LowVolatility", 3.0), ("equal_weight:EqualWeight", 1.0)],
)
def test_parity_on_a_real_month(real_cache: Path, oracle: str, gross: float) -> None:
    """Same orders, two engines: our equity is vectorbt's to 1e-9, hour by hour."""
    panel = load_panel(real_cache, "2024-11-01", "2024-12-10")
    config = no_funding(max_gross=gross)
    built = load_oracle(f"research.oracles.{oracle}", {"gross": gross})
    result = backtest(panel, weight_matrix(built, panel, decisions_of(panel, config)), config)
    assert result.metrics["trades"] > 100 and result.metrics["delistings"] == 0
    np.testing.assert_allclose(recipe(result), result.equity, rtol=1e-9)


def test_parity_on_a_random_panel_with_quotes() -> None:
    """to_vectorbt() carries the fills at bid and ask, the lots and the minimum notional."""
    panel = random_panel(5, 24 * 40, 10, quotes=True, funding=True, oracle=True, table=True, volume=True)
    result = backtest(panel, random_weights(5, panel), no_funding())
    portfolio = result.to_vectorbt()
    value = portfolio.value().to_numpy().ravel() - portfolio.init_cash + 10_000.0
    np.testing.assert_allclose(value, result.equity, rtol=1e-9)


def test_to_vectorbt_differs_by_the_funding_paid(real_cache: Path) -> None:
    panel = load_panel(real_cache, "2025-01-01", "2025-02-01")
    built = load_oracle("research.oracles.carry:Carry", {})
    result = backtest(panel, weight_matrix(built, panel, decisions_of(panel, RunConfig())))
    portfolio = result.to_vectorbt()
    value = portfolio.value().to_numpy().ravel() - portfolio.init_cash + 10_000.0
    assert abs(result.metrics["funding_usd"]) > 1.0
    np.testing.assert_allclose(value - result.attribution["funding_usd"].cumsum(), result.equity, rtol=1e-9)


def test_a_book_that_trades_and_is_liquidated_in_one_row_is_refused() -> None:
    """Vectorbt has room for one of the two fills; a value that is wrong in silence would be worse than none."""
    index = pd.date_range("2024-10-01", periods=3, freq="h", tz="UTC")
    panel = Panel.from_frames(mid=pd.DataFrame({"A": [100.0] * 3}, index=index), table=[Coin("A", max_leverage=3.0)])
    weights = pd.DataFrame({"A": [5.9]}, index=index[1:2])
    config = RunConfig.from_dict(
        {"costs": {"half_spread_bps": 200.0}, "account": {"max_gross": 6.0, "initial_margin": False}}
    )
    result = backtest(panel, weights, config)
    assert result.trades["reason"].tolist() == ["open", "liquidation"]
    with pytest.raises(DataError, match="takes one order a coin and hour"):
        result.to_vectorbt()
