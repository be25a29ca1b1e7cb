"""The kernel against the slow ledger of naive.py, on random and on nasty panels.

The same file is run a second time with numba's JIT off (`test_jit_off.py`), so that an array read out of bounds, which
machine code would not notice, is an IndexError there.
"""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import Panel, Result, RunConfig, SparseWeights, backtest, backtest_many
from engine.clock import show
from engine.errors import WeightsError
from engine.simulation import costs as fees
from helpers import naive
from helpers.effort import some
from helpers.fees import published_fees
from helpers.panels import STYLES, nasty_cases, random_panel, random_weights, tiny_case, with_builders_coins

pytestmark = pytest.mark.slow

JIT_OFF = os.environ.get("NUMBA_DISABLE_JIT") == "1"
RELATIVE = 1e-12
REFUSALS = ("no value", "No decision can be traded", "as initial margin")


def assert_same(result: Result, reference: naive.NaiveResult) -> None:
    """Every number the two ledgers share. The scale of a difference is the largest amount of money in play."""
    moved = max((trade.notional_usd for trade in reference.trades), default=0.0)
    scale = max(result.config.account.initial_equity_usd, moved, np.abs(reference.equity).max())
    figures = result.metrics
    np.testing.assert_allclose(result.equity, reference.equity, rtol=0, atol=RELATIVE * scale)
    for name, values in reference.flows.items():
        np.testing.assert_allclose(result.attribution[name], values, rtol=0, atol=RELATIVE * scale, err_msg=name)
    solvent = np.array(reference.equity) > 1e-3 * scale
    np.testing.assert_allclose(
        result.exposure["gross_frac"][solvent], np.array(reference.gross)[solvent], rtol=1e-8, atol=1e-10
    )
    np.testing.assert_allclose(
        result.exposure["net_frac"][solvent], np.array(reference.net)[solvent], rtol=1e-8, atol=1e-10
    )
    for name in naive.COUNTS:
        assert figures[name] == getattr(reference, name), name
    assert figures["funding_missing_frac"] == pytest.approx(reference.funding_missing_frac, rel=1e-12)
    for name, mean in reference.means.items():
        if solvent.all() or name not in ("gross_mean", "net_mean"):
            assert figures[name] == pytest.approx(mean, rel=1e-8, abs=1e-10), name
    assert (figures["days"], figures["days_calendar"]) == (len(reference.daily_returns), reference.days_calendar)
    if solvent.all():
        np.testing.assert_allclose(result.daily_returns, reference.daily_returns, rtol=0, atol=1e-9)
    row = reference.liquidated_row
    assert result.liquidated_at == (None if row is None else result.panel.index[row])
    assert len(result.trades) == len(reference.trades)
    for ours, theirs in zip(result.trades.itertuples(), reference.trades, strict=True):
        assert (ours.time, ours.coin, ours.reason) == (result.panel.index[theirs.row], theirs.coin, theirs.reason)
        assert ours.units == pytest.approx(theirs.units, rel=1e-11, abs=1e-15)
        assert ours.price == pytest.approx(theirs.price, rel=1e-11)
        assert ours.notional_usd == pytest.approx(theirs.notional_usd, rel=1e-11, abs=1e-9)
        assert ours.fee_usd == pytest.approx(theirs.fee_usd, rel=1e-11, abs=1e-12)
        assert ours.spread_usd == pytest.approx(theirs.spread_usd, rel=1e-8, abs=max(1e-9, 1e-14 * theirs.notional_usd))


def run_both(panel: Panel, weights: pd.DataFrame, config: RunConfig) -> Result:
    """Both ledgers; where the venue refuses a row, both stop at it, with a WeightsError."""
    try:
        reference = naive.backtest(panel, weights, config, published_fees(panel, config))
    except naive.RefusedError as refused:
        instant = panel.index[refused.args[0] - config.execution.delay_hours]
        with pytest.raises(WeightsError, match=f"on {show(instant)} need .* as initial margin") as raised:
            backtest(panel, weights, config)
        raise raised.value from refused
    result = backtest(panel, weights, config)
    assert_same(result, reference)
    return result


@pytest.mark.parametrize("quotes", [False, True])
@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("seed", range(2 if JIT_OFF else some(3, 6)))
def test_random_panels(seed: int, quotes: bool, table: bool) -> None:
    """A month of a dozen coins; every cost on."""
    panel = random_panel(
        seed, 24 * 31, 12, quotes=quotes, funding=True, oracle=seed % 2 == 0, table=table, volume=seed % 3 > 0
    )
    result = run_both(panel, random_weights(seed, panel), RunConfig())
    assert result.metrics["trades"] > 50


@pytest.mark.parametrize("seed", range(2 if JIT_OFF else some(3, 6)))
def test_tiers_discounts_impact_and_margin_tiers(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two months of trading through made-up tiers that a small account reaches, with everything else on."""
    monkeypatch.setattr(fees, "SCHEDULE", ((pd.Timestamp("2024-01-01T00:00Z"), 4.5, 1.5),))
    monkeypatch.setattr(fees, "TIERS", ((0.0, 4.5, 1.5), (20_000.0, 3.0, 0.5), (60_000.0, 1.5, -0.5)))
    panel = random_panel(
        seed, 24 * 60, 8, quotes=True, funding=True, oracle=True, table=True, volume=True, impact=True, tiers=True
    )
    config = RunConfig.from_dict(
        {
            "costs": {
                "fee_tiers": True,
                "maker_share_frac": 0.2,
                "staking_discount_frac": 0.1,
                "referral_discount_frac": 0.04,
                "impact": "venue",
            },
            "execution": {"leverage": 1.5, "tranches": 2, "target_volatility": seed % 2 * 0.5, "gross_cap": 2.0},
            "account": {"max_gross": 2.0},
        }
    )
    weights = random_weights(seed, panel, gross=0.9, styles=[style for style in STYLES if style != "holds"])
    result = run_both(panel, weights, config)
    assert result.metrics["impact_usd"] > 1.0
    paid = result.trades["fee_usd"] / result.trades["notional_usd"]
    assert len(np.unique(paid.round(9))) >= 3  # the tiers were gone through


def test_panels_of_a_few_hours() -> None:
    """A single row, decisions on the first and the last, liquidations at once."""
    liquidated = isolated = 0
    for seed in range(50 if JIT_OFF else some(60, 150)):
        case = tiny_case(seed)
        for one in (case, with_builders_coins(case, seed)):
            try:
                result = run_both(*one)
            except WeightsError as error:
                assert any(words in str(error) for words in REFUSALS)
                continue
            liquidated += result.liquidated_at is not None
            isolated += result.metrics["isolated_liquidations"]
    assert liquidated > 10 and isolated > 20


@settings(
    max_examples=some(50, 200) if JIT_OFF else some(150, 600),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(case=nasty_cases(), builders=st.none() | st.integers(0, 2**32 - 1))
def test_nasty_panels(case: tuple[Panel, pd.DataFrame, RunConfig], builders: int | None) -> None:
    """Delistings, gaps, jumps, liquidations, odd decisions, builders' coins, every setting; the books balance."""
    case = case if builders is None else with_builders_coins(case, builders)
    try:
        result = run_both(*case)
    except WeightsError as error:
        # All NaN, or every trade beyond the panel: the engine says so, the ledger has nothing to do.
        assert any(words in str(error) for words in REFUSALS)
        if "initial margin" not in str(error):
            assert naive.backtest(*case, published_fees(case[0], case[2])).trades == []
        return
    flows = result.attribution
    rows = flows["price_pnl_usd"] - flows[["spread_usd", "impact_usd", "fee_usd", "funding_usd"]].sum(axis=1)
    before = np.concatenate(([result.config.account.initial_equity_usd], result.equity[:-1]))
    scale = max(np.abs(before).max(), result.trades["notional_usd"].max() if len(result.trades) else 0.0)
    np.testing.assert_allclose(rows, result.equity - before, rtol=0, atol=1e-11 * scale)
    np.testing.assert_allclose(result.coin_attribution.sum(), flows.sum(), rtol=0, atol=1e-9 * scale)


def test_what_rounding_leaves_to_go_is_no_order() -> None:
    """At flat prices the way to the same weight is 0 but for the rounding of equity, which each ledger does its way."""
    counts = ("skipped_min_notional", "skipped_band", "trades")
    index = pd.date_range("2024-10-01T00:00Z", periods=24 * 6, freq="h")
    decisions = index[index.hour == 23]
    for seed in range(some(25, 100)):
        rng = np.random.default_rng(seed)
        coins = [f"C{place}" for place in range(rng.integers(1, 6))]
        mid = np.tile(10 ** rng.uniform(-4, 5, len(coins)), (len(index), 1))
        panel = Panel.from_frames(mid=pd.DataFrame(mid, index=index, columns=coins))
        row = rng.normal(size=len(coins))
        values = np.tile(row * rng.uniform(0.2, 3) / np.abs(row).sum(), (len(decisions), 1))
        execution = {"lots": False, "min_notional_usd": [0.0, 10.0][seed % 2], "trade_rate": rng.choice([0.5, 1.0])}
        costs = {"taker_bps": rng.choice([0.0, 4.5]), "half_spread_bps": rng.choice([0.0, 1.0])}
        config = RunConfig.from_dict({"execution": execution, "costs": costs, "account": {"max_gross": 5.0}})
        weights = pd.DataFrame(values, index=decisions, columns=coins)
        reference = naive.backtest(panel, weights, config, published_fees(panel, config))
        expected = [reference.skipped_min_notional, reference.skipped_band, len(reference.trades)]
        assert [backtest(panel, weights, config).metrics[name] for name in counts] == expected, seed
        for form in (values[None], SparseWeights.from_dense(values[None])):
            table = backtest_many(panel, form, decisions, config)
            assert table.loc[0, list(counts)].tolist() == expected, seed
