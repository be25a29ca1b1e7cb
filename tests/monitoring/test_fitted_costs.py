"""Costs from fills: what was put in comes out, bad fills decide nothing, and too few are said to be so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Panel, RunConfig
from engine.errors import DataError
from engine.live.journal import Journal
from engine.monitoring.calibration import calibrate
from helpers.live_world import Run, momentum_spec

COINS = ("BTC", "ETH", "SOL", "XYZ")


def journal(
    days: int, slope: float, impact: float, constant: float, noise: float, seed: int = 0
) -> list[dict[str, Any]]:
    """Fills of random sizes; slippage is linear in half spread and size over an hour's volume of 10 million USD."""
    rng, entries = np.random.default_rng(seed), []
    for day in range(days):
        instant = (pd.Timestamp("2024-02-01T23:00Z") + pd.Timedelta(days=day)).isoformat()
        orders, answers, planned = [], [], []
        shared = rng.normal(0.0, noise)  # of the day
        for coin in COINS:
            half, units, mid = rng.uniform(0.5, 6.0), rng.choice([-1.0, 1.0]) * rng.uniform(10.0, 1000.0), 100.0
            notional = abs(units) * mid
            slippage = constant + slope * half + impact * notional / 1e7 + shared + rng.normal(0.0, noise)
            slippage += 400.0 * (rng.random() < 0.03)  # a wick
            cloid = f"{day}-{coin}"
            order = {"cloid": cloid, "coin": coin, "units": units, "limit_price": mid, "reduce_only": False}
            orders.append({**order, "mid": mid, "bid": mid * (1 - half / 1e4), "ask": mid * (1 + half / 1e4)})
            price = mid * (1.0 + np.sign(units) * slippage / 1e4)
            answers.append({"cloid": cloid, "fate": "filled", "units": units, "price": price})
            costs = {"spread_usd": notional * half / 1e4, "fee_usd": notional * 3.5e-4}
            planned.append({"coin": coin, "units": units, "mid": mid, "notional_usd": notional, **costs})
        plan = {"orders": planned, "weights": {}, "positions": {}, "prices": {}}
        entries += [
            {"kind": "plan", "instant": instant, "equity_usd": 1e5, "plan": plan},
            {"kind": "intent", "instant": instant, "orders": orders, "time": instant},
            {"kind": "answers", "answers": answers},
        ]
    return entries


def market(quotes: bool, days: int = 60) -> Panel:
    index = pd.date_range("2024-02-01", periods=24 * days, freq="h", tz="UTC", unit="ms")
    frames = {"mid": 100.0, "volume_usd": 1e7} | ({"bid": 99.99, "ask": 100.01} if quotes else {})
    return Panel.from_frames(**{name: pd.DataFrame(value, index, list(COINS)) for name, value in frames.items()})


def test_what_was_put_in_comes_out_in_spite_of_wicks() -> None:
    found = calibrate(journal(45, 1.3, 400.0, 0.5, 0.6), RunConfig(), market(quotes=False))
    terms = {term.name: term for term in found.terms}
    assert (found.orders, found.days) == (180, 45)
    for name, true, most in (("constant", 0.5, 0.8), ("half_spread", 1.3, 0.25), ("size", 400.0, 80.0)):
        assert terms[name].low <= true <= terms[name].high, terms[name]
        assert abs(terms[name].value - true) < most, terms[name]
    assert found.slippage.low < found.slippage.value < found.slippage.high
    # Without quotes the half spread is the key's own; impact is that of the exchange's reference size.
    assert found.suggested.keys() == {"impact", "impact_bps", "half_spread_bps"}
    assert found.suggested["half_spread_bps"] == pytest.approx(0.5 + 1.3 * 3.25, abs=1.0)
    assert 0.2 < found.suggested["impact_bps"] < 0.8  # 6,000 or 20,000 USD in an hour of 10 million
    assert found.config(RunConfig()).costs.half_spread_bps == found.suggested["half_spread_bps"]


def test_with_quotes_a_factor_on_every_cost_is_suggested() -> None:
    config = RunConfig()
    found = calibrate(journal(40, 2.0, 0.0, 0.0, 0.3), config, market(quotes=True))
    assert found.model_bps == pytest.approx(3.25, abs=0.5)
    assert found.suggested["stress"] == pytest.approx((4.5 + 2 * found.model_bps) / (4.5 + found.model_bps), rel=0.1)


def test_costs_that_are_as_modelled_are_left_alone() -> None:
    found = calibrate(journal(40, 1.0, 0.0, 0.0, 0.5), RunConfig(), market(quotes=True))
    assert found.suggested == {} and found.config(RunConfig()) == RunConfig()
    exact = calibrate(journal(40, 1.0, 0.0, 0.0, 0.0), RunConfig(), None)
    assert [term.name for term in exact.terms] == ["constant", "half_spread"]  # no volume, no size
    assert exact.days_needed == 10


def test_more_noise_needs_more_days() -> None:
    quiet, loud = (calibrate(journal(30, 1.0, 0.0, 0.0, noise), RunConfig(), None).days_needed for noise in (0.5, 6.0))
    assert quiet < loud


@pytest.mark.parametrize("days", [0, 3, 9])
def test_too_few_fills_are_said_with_how_many_are_needed(days: int) -> None:
    with pytest.raises(
        DataError, match=rf"has {4 * days} priced orders with a plan, on {days} days: .* 30 orders on 10"
    ):
        calibrate(journal(days, 1.0, 0.0, 0.0, 0.5), RunConfig(), None)


def test_the_command_shows_the_run_and_its_gates_under_both_costs(
    sample_cache: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = momentum_spec(tmp_path, sample_cache, data={"start": "2024-02-01", "end": "2024-04-15"})
    words = ["live", "calibrate", str(spec), "--network", "paper", "--journal", str(tmp_path)]
    file, failed = Journal(tmp_path / "momentum-paper.jsonl"), None
    for number, entry in enumerate(journal(40, 1.0, 0.0, 12.0, 0.5)):
        if number == 12:
            failed = run([*words, "--json"])
        whole = {"goals": [], "key": "", "expires_ms": 0, **entry, "time": pd.Timestamp("2024-02-01T00:00Z")}
        file.append(**whole)
    assert failed is not None and failed.code == 1 and failed.out == ""
    assert "has 16 priced orders with a plan, on 4 days" in failed.err
    done = run([*words, "--json"])
    assert done.code == 0, done.err
    runs = done.json["runs"]
    assert done.json["suggested"] and runs["suggested"]["metrics"]["sharpe"] < runs["own"]["metrics"]["sharpe"]
    names = [gate["name"] for gate in runs["own"]["gates"]]
    assert names == [gate["name"] for gate in runs["suggested"]["gates"]] and "cost_x2" in names
    shown = run(words)
    assert "Suggested: costs." in shown.out and "suggested costs" in shown.out
