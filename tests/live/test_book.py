"""A book of several specs on one account: one order a coin, a sub-ledger a spec, sums that are the account's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from engine import Panel, RunConfig, load_panel
from engine.live.subledger import UNASSIGNED, crossed_part, sub_ledgers
from engine.simulation.backtest import decisions_of
from helpers.books import book, drive, equity_track, plans, strategy
from helpers.effort import some
from helpers.panels import random_panel
from research.oracles.carry import Carry
from research.oracles.momentum import Momentum

#: Nothing that a size or a trade could be rounded or charged by.
FREE = {
    "costs": {"taker_bps": 0.0, "half_spread_bps": 0.0},
    "execution": {"lots": False, "min_notional_usd": 0.0},
}
DAYS = 12


def without_quotes(panel: Panel) -> Panel:
    return replace(
        panel, fields={name: panel.values(name) for name in panel.fields if not name.endswith(("bid", "ask"))}
    )


def trades(dex: object) -> list[tuple[object, ...]]:
    return [(t.time, t.coin, t.units, t.price, t.fee_usd, t.reason) for t in dex.trades]  # type: ignore[attr-defined]


def momentum_and_carry(config: RunConfig) -> tuple[object, ...]:
    return strategy("trend", Momentum(lookback_hours=24, n=2), config), strategy("carry", Carry(24, n=2), config)


@pytest.mark.parametrize("execution", [{}, {"tranches": 3, "delay_hours": 1}, {"untradable": "renormalise"}], ids=str)
def test_a_book_of_one_spec_is_the_spec_bit_for_bit(execution: dict[str, object]) -> None:
    panel = random_panel(7, 24 * DAYS, 8)
    config = RunConfig.from_dict({"execution": execution})
    spec = strategy("trend", Momentum(lookback_hours=24, n=2), config)
    instants = decisions_of(panel, config)[:-1] + pd.Timedelta(hours=config.execution.delay_hours)
    alone, _ = drive(spec, panel, config, instants)
    dex, journal = drive(book({"trend": 1.0}, config, [spec]), panel, config, instants)
    assert trades(dex) == trades(alone) and len(alone.trades) > 20
    assert dex.account() == alone.account()
    own = sub_ledgers(journal.entries).specs["trend"]
    assert (own.equity_usd, own.units) == (dex.account().equity_usd, dict(dex.account().units))
    pd.testing.assert_series_equal(dex.finish(), alone.finish(), check_exact=True)


@pytest.mark.slow
def test_a_book_of_one_spec_is_the_spec_on_real_months(real_cache: Path) -> None:
    panel = load_panel(real_cache, "2024-11-01", some("2024-11-25", "2025-03-31"))
    config = RunConfig()
    spec = strategy("trend", Momentum(lookback_hours=168, n=5), config)
    instants = decisions_of(panel, config)
    alone, _ = drive(spec, panel, config, instants)
    dex, _ = drive(book({"trend": 1.0}, config, [spec]), panel, config, instants)
    assert trades(dex) == trades(alone) and len(alone.trades) > 100
    pd.testing.assert_series_equal(dex.finish(), alone.finish(), check_exact=True)


@pytest.mark.parametrize("seed", range(some(2, 20)))
def test_where_trading_is_free_each_spec_has_the_equity_of_an_account_of_its_own(seed: int) -> None:
    """Netting changes nothing but costs and lots: without both a sub-ledger is the account of its share, to 1e-9."""
    panel = without_quotes(random_panel(seed, 24 * DAYS, 8))
    config = RunConfig.from_dict(FREE)
    specs = momentum_and_carry(config)
    shares, instants = {"trend": 0.5, "carry": 0.3}, decisions_of(panel, config)
    _, journal = drive(book(shares, config, specs), panel, config, instants, check=True)
    ledgers = sub_ledgers(journal.entries)
    same_as_recorded(journal.entries)
    for spec in specs:
        account = replace(config.account, initial_equity_usd=10_000 * shares[spec.name])
        alone, own_journal = drive(spec, panel, replace(config, account=account), instants)
        assert equity_track(ledgers, spec.name) == pytest.approx(
            [p["equity_usd"] for p in plans(own_journal)], rel=1e-9
        )
        own = ledgers.specs[spec.name]
        assert own.units == pytest.approx(dict(alone.account().units), rel=1e-9, abs=1e-9)
        assert own.crossed_usd > 0.0 and own.fee_usd == 0.0 and own.slippage_usd == pytest.approx(0.0, abs=1e-9)
    assert ledgers.specs[UNASSIGNED].equity_usd == pytest.approx(2_000, abs=1e-9)


def same_as_recorded(entries: list[dict[str, object]]) -> None:
    """What each plan recorded of the sub-ledgers is what the entries before it and its own add up to."""
    for number, entry in enumerate(entries):
        if entry["kind"] == "plan":
            ledgers = sub_ledgers(entries[: number + 1])
            for name, part in entry["plan"]["parts"]["specs"].items():  # type: ignore[index]
                assert ledgers.specs[name].track[-1][0].equity_usd == pytest.approx(part["equity_usd"], rel=1e-12), name


def test_what_is_wanted_against_each_other_is_handed_over_and_the_rest_is_shared() -> None:
    crossed = crossed_part({"a": 3.0, "b": 1.0, "c": -2.0})
    assert crossed == {"a": 1.5, "b": 0.5, "c": -2.0}
    assert crossed_part({"a": 3.0, "b": 1.0}) == {}
    assert crossed_part({"a": 1.0, "b": -1.0}) == {"a": 1.0, "b": -1.0}
