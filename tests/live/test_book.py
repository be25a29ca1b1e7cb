"""A book of several specs on one account: one order a coin, a sub-ledger a spec, sums that are the account's."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from engine import Panel, PaperDEX, RunConfig, load_panel
from engine.commands.live_answers import monitored, promoted_strategy
from engine.live.demotion import Demotion, demotion_of
from engine.live.journal import Journal
from engine.live.risk_limits import Limits
from engine.live.subledger import UNASSIGNED, crossed_part, sub_ledgers
from engine.live.targets import Strategy, flat
from engine.monitoring.books import spec_entries
from engine.monitoring.fills import filled_orders
from engine.monitoring.replay import PlanCheck, plan_differences
from engine.simulation.backtest import decisions_of
from helpers.books import adds_up, book, drive, equity_track, plans, strategy, trade
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


def momentum_and_carry(config: RunConfig) -> list[Strategy]:
    return [strategy("trend", Momentum(lookback_hours=24, n=2), config), strategy("carry", Carry(24, n=2), config)]


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


@pytest.mark.parametrize("seed", range(some(1, 10)))
def test_every_cent_and_lot_is_somebody_s(seed: int) -> None:
    """Lots, quotes, fees, holes, a delisting, specs with schedules of their own: sums are the account's throughout."""
    panel = random_panel(seed + 30, 24 * DAYS, 8)
    config = RunConfig()
    weekly = RunConfig.from_dict({"execution": {"weekdays": ["mon", "thu"]}})
    specs = [*momentum_and_carry(config)[:1], strategy("carry", Carry(24, n=2), weekly)]
    instants = decisions_of(panel, config)
    _, journal = drive(book({"trend": 0.6, "carry": 0.4}, config, specs), panel, config, instants, check=True)
    same_as_recorded(journal.entries)
    parts = [plan["plan"]["parts"]["specs"] for plan in plans(journal)]
    assert {part["carry"]["state"] for part in parts} == {"trades", "waits"}
    assert all(not part["carry"]["wanted"] for part in parts if part["carry"]["state"] == "waits")
    own = sub_ledgers(journal.entries).specs["carry"]
    assert own.fee_usd > 0.0 and own.slippage_usd != 0.0 and own.funding_usd != 0.0
    assert abs(own.other_usd) < 1e-6 and own.saved_usd >= 0.0


def test_the_plans_of_each_spec_can_be_made_again() -> None:
    panel = random_panel(12, 24 * DAYS, 8)
    config = RunConfig()
    specs = momentum_and_carry(config)
    whole = book({"trend": 0.6, "carry": 0.4}, config, specs)
    _, journal = drive(whole, panel, config, decisions_of(panel, config))
    entries = copy.deepcopy(journal.entries)

    def check(spec: Strategy) -> PlanCheck:
        return plan_differences(spec_entries(entries, spec.name), panel, config, spec.targets.oracle)

    for spec in specs:
        found = check(spec)
        assert (found.instants_checked, found.differences, found.not_recorded) == (DAYS, (), 0)
    weights = [entry for entry in entries if entry["kind"] == "plan"][5]["plan"]["parts"]["specs"]["trend"]["plan"]
    weights["weights"][next(iter(weights["weights"]))] += 1e-6
    assert [len(check(spec).differences) for spec in specs] == [1, 0]
    # Its parts of the fills are its own costs.
    ledgers = sub_ledgers(journal.entries)
    for name in ("trend", "carry"):
        orders = filled_orders(spec_entries(journal.entries, name))
        assert sum(1e-4 * o.slippage_bps * o.notional_usd for o in orders) == pytest.approx(
            ledgers.specs[name].slippage_usd
        )
        assert sum(1e-4 * o.fee_bps * o.notional_usd for o in orders) == pytest.approx(ledgers.specs[name].fee_usd)


def test_specs_come_and_go_and_none_of_the_others_moves() -> None:
    """Trading is free, so that a spec that stays has to the cent what it has in a book where nothing changes."""
    panel = without_quotes(random_panel(5, 24 * DAYS, 8))
    config = RunConfig.from_dict(FREE)
    late = strategy("late", Momentum(lookback_hours=48, n=1), config)
    specs = [*momentum_and_carry(config), late]
    stages = [{"trend": 0.5, "carry": 0.3}, {"trend": 0.5, "late": 0.4}, {"trend": 0.5, "late": 0.1, "carry": 0.3}]
    books = [book(shares, config, specs) for shares in stages]
    dex, journal, notes = PaperDEX(panel, config), Journal(), []
    steady, steady_journal = PaperDEX(panel, config), Journal()
    for day, at in enumerate(decisions_of(panel, config)):
        notes += trade(books[day // 4], dex, journal, at).notes
        trade(books[0], steady, steady_journal, at)
        adds_up(sub_ledgers(journal.entries), dex)
    ledgers = sub_ledgers(journal.entries)
    assert equity_track(ledgers, "trend") == pytest.approx(equity_track(sub_ledgers(steady_journal.entries), "trend"))
    shared = [plan["plan"]["parts"]["specs"] for plan in plans(journal)]
    equity = [plan["equity_usd"] for plan in plans(journal)]
    assert "carry" not in shared[4] and not any(shared[5]["unassigned"]["positions"].values())
    # What carry left and what was unassigned is there for the new spec, and no more.
    rest = equity[4] - shared[4]["trend"]["equity_usd"]
    assert shared[4]["late"]["equity_usd"] == pytest.approx(min(0.4 * equity[4], rest))
    assert shared[8]["carry"]["equity_usd"] == pytest.approx(0.3 * equity[8])
    assert any("carry is no longer in the book" in note for note in notes)
    assert any(note.startswith("late has") and "before it had" in note for note in notes)
    same_as_recorded(journal.entries)


def test_a_new_text_of_reshared_gives_every_spec_its_share_again() -> None:
    panel = random_panel(6, 24 * DAYS, 8)
    config = RunConfig()
    specs, shares = momentum_and_carry(config), {"trend": 0.5, "carry": 0.3}
    dex, journal = PaperDEX(panel, config), Journal()
    for day, at in enumerate(decisions_of(panel, config)):
        trade(book(shares, config, specs, "" if day < 6 else "after the first week"), dex, journal, at)
        adds_up(sub_ledgers(journal.entries), dex)
    for day, plan in enumerate(plans(journal)):
        parts, equity = plan["plan"]["parts"]["specs"], plan["equity_usd"]
        given = [parts[name]["equity_usd"] == pytest.approx(share * equity) for name, share in shares.items()]
        assert day in (1, 2) or all(given) == (day in (0, 6)), day  # nothing is held in the first days
    entries = spec_entries(journal.entries, "trend")
    assert [entry["kind"] for entry in entries].count("equity_accepted") == 1
    same_as_recorded(journal.entries)


def test_a_spec_over_a_limit_of_its_own_keeps_what_it_has() -> None:
    panel = random_panel(8, 24 * DAYS, 8)
    config = RunConfig()
    trend, carry = momentum_and_carry(config)
    tight = replace(trend, limits=replace(Limits.none(), order_notional_usd=1_300.0))
    notes, sizes = [], []
    dex, journal = PaperDEX(panel, config), Journal()
    whole = book({"trend": 0.5, "carry": 0.5}, config, [tight, carry])
    for at in decisions_of(panel, config):
        notes += trade(whole, dex, journal, at).notes
        adds_up(sub_ledgers(journal.entries), dex)
    for plan in plans(journal):
        part = plan["plan"]["parts"]["specs"]["trend"]
        sizes += [order["notional_usd"] for order in part["plan"]["orders"] if part["state"] == "trades"]
        assert part["state"] == "trades" or (not part["wanted"] and "order_notional_usd" in part["why"])
    states = [plan["plan"]["parts"]["specs"]["trend"]["state"] for plan in plans(journal)]
    assert {"trades", "held"} == set(states) and max(sizes) <= 1_300.0
    assert any(note.startswith("trend keeps its positions: order_notional_usd") for note in notes)
    assert all(plan["plan"]["parts"]["specs"]["carry"]["state"] == "trades" for plan in plans(journal))


def test_a_demoted_spec_leaves_and_none_of_the_others_moves(tmp_path: Path) -> None:
    """An alarm of one spec: it is on record before an order, its positions only get smaller, the other goes on."""
    panel = without_quotes(random_panel(5, 24 * DAYS, 8))
    config = RunConfig.from_dict(FREE)
    specs, instants = momentum_and_carry(config), decisions_of(panel, config)
    whole = book({"trend": 0.5, "carry": 0.3}, config, specs)
    _, steady = drive(whole, panel, config, instants)
    dex, journal, seen = PaperDEX(panel, config), Journal(tmp_path / "book-paper.jsonl"), []

    def watch(entries: Sequence[Mapping[str, Any]], instant: pd.Timestamp, equity_usd: float | None) -> Demotion | None:
        seen.append((len(spec_entries(entries, "trend")), equity_usd))
        alarm = Demotion("edge", instant.isoformat(), "drawdown", 0.3, 0.2, "the edge left its bands")
        return alarm if instant >= instants[6] else None

    for day, at in enumerate(instants):
        session = trade(whole, dex, journal, at, {"trend": watch})
        assert (demotion_of(tmp_path, "trend") is not None) == (day >= 6) == ("trend" in session.part_demotions)
        assert demotion_of(tmp_path, "carry") is None
        adds_up(sub_ledgers(journal.entries), dex)
    assert len(seen) == 7 and [entry["kind"] for entry in journal.entries].count("demoted") == 1
    kinds = [entry["kind"] for entry in journal.entries if entry["kind"] in ("plan", "demoted")]
    assert kinds.index("demoted") == 6  # before the plan of its instant
    own = [plan["plan"]["parts"]["specs"]["trend"]["positions"] for plan in plans(journal)]
    assert len(own[6]) > 1
    for before, after in itertools.pairwise(own[6:]):
        assert all(coin in before and 0.0 <= units / before[coin] <= 1.0 for coin, units in after.items())
    assert sum(map(abs, own[-1].values())) < sum(map(abs, own[6].values()))
    others = equity_track(sub_ledgers(steady.entries), "carry")
    assert equity_track(sub_ledgers(journal.entries), "carry") == pytest.approx(others, rel=1e-9)
    found = plan_differences(spec_entries(journal.entries, "trend"), panel, config, specs[0].targets.oracle)
    assert (found.instants_checked, found.differences) == (DAYS, ())
    (event,) = monitored(promoted_strategy(whole), journal, config, "book", "paper")["events"]
    assert (event["spec"], event["kind"]) == ("trend", "demoted")


def test_a_flatten_closes_every_part_and_a_deposit_is_shared_by_equity() -> None:
    panel = random_panel(9, 24 * DAYS, 8)
    config = RunConfig()
    specs, instants = momentum_and_carry(config), decisions_of(panel, config)
    whole = book({"trend": 0.5, "carry": 0.3}, config, specs)
    dex, journal = PaperDEX(panel, config), Journal()
    for day, at in enumerate(instants):
        if day == 5:
            dex.advance(at)
            dex.book.cash[0] += 5_000.0
            journal.append("equity_accepted", at, equity_usd=dex.account().equity_usd)
        trade(flat("book", config) if day == 8 else whole, dex, journal, at)
        adds_up(sub_ledgers(journal.entries), dex)
        if day == 8 and not dex.account().units:
            assert all(not own.units for own in sub_ledgers(journal.entries).specs.values())
    ledgers, parts = sub_ledgers(journal.entries), plans(journal)[5]["plan"]["parts"]["specs"]
    given = {name: ledgers.specs[name].transfers_usd - 10_000 * share for name, share in SHARES.items()}
    before = {name: parts[name]["equity_usd"] - given[name] for name in given}
    assert math.fsum(given.values()) == pytest.approx(5_000.0, abs=0.01)
    assert [given[name] / before[name] for name in given] == pytest.approx([given["trend"] / before["trend"]] * 3)


SHARES = {"trend": 0.5, "carry": 0.3, UNASSIGNED: 0.2}


def entry(kind: str, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "time": "2026-01-01T23:00:00+00:00", "instant": "2026-01-01T23:00:00+00:00", **fields}


def parted(equity: float, positions: Mapping[str, float], marks: Mapping[str, float], **wanted: Any) -> dict[str, Any]:
    """A plan of a book of a and b, half each."""
    specs = {name: {"wanted": wanted.get(name, {}), "saved_usd": 0.0} for name in ("a", "b", UNASSIGNED)}
    parts = {
        **{"marks": dict(marks), "mids": dict(marks), "shares": {"a": 0.5, "b": 0.5}, "reshared": ""},
        **{"settled_to": "2026-01-01T23:00:00+00:00", "funding": {}, "specs": specs},
    }
    return entry("plan", equity_usd=equity, plan={"positions": dict(positions), "prices": {}, "parts": parts})


def filled(cloid: str, coin: str, units: float, mid: float, price: float, fee: float | None) -> list[dict[str, Any]]:
    answer = {"cloid": cloid, "fate": "filled", "units": units, "price": price}
    fill = {"cloid": cloid, "units": units, "price": price, "fee_usd": fee}
    return [
        entry("intent", orders=[{"cloid": cloid, "coin": coin, "units": 2.0 * units, "mid": mid}]),
        entry("answers", answers=[answer]),
        *([] if fee is None else [entry("fills", fills=[fill])]),
    ]


def test_a_partial_fill_its_fee_and_a_crossing_by_hand() -> None:
    """A buys 3, b sells 1: 1 is handed over at 100; of the 2 that are left half is filled at 101, all of it is a's."""
    entries = [parted(1_000.0, {}, {"BTC": 100.0}, a={"BTC": 3.0}, b={"BTC": -1.0})]
    ledgers = sub_ledgers(entries)
    assert (ledgers.specs["a"].units, ledgers.specs["b"].units) == ({"BTC": 1.0}, {"BTC": -1.0})
    assert [ledgers.specs[name].equity_usd for name in "ab"] == [500.0, 500.0]
    entries += filled("0x1", "BTC", 1.0, 100.0, 101.0, 0.5)
    entries.append(entry("done", equity_usd=998.5, positions={"BTC": 1.0}, prices={"BTC": 100.0}))
    ledgers = sub_ledgers(entries)
    a, b = ledgers.specs["a"], ledgers.specs["b"]
    assert (a.units, a.equity_usd, a.slippage_usd, a.fee_usd) == ({"BTC": 2.0}, 498.5, 1.0, 0.5)
    assert (b.units, b.equity_usd, b.slippage_usd, b.fee_usd) == ({"BTC": -1.0}, 500.0, 0.0, 0.0)
    # Where both sell, both pay: a wants 2 of 3, b 1; and the price of before is each one's own.
    entries.append(parted(1_003.5, {"BTC": 1.0}, {"BTC": 105.0}, a={"BTC": -2.0}, b={"BTC": -1.0}))
    entries += filled("0x2", "BTC", -1.5, 105.0, 104.0, 0.3)
    ledgers = sub_ledgers(entries)
    a, b = ledgers.specs["a"], ledgers.specs["b"]
    assert (a.units, b.units) == ({"BTC": 1.0}, {"BTC": -1.5})
    assert a.equity_usd == pytest.approx(498.5 + 10.0 - 1.0 - 0.2) and b.equity_usd == pytest.approx(
        500 - 5 - 0.5 - 0.1
    )


def test_what_the_exchange_closed_is_lost_by_who_held_it() -> None:
    """A liquidation of half of the account's position, and a position that somebody opened by hand."""
    entries = [parted(1_000.0, {}, {"BTC": 100.0, "ETH": 10.0}, a={"BTC": 3.0}, b={"BTC": 1.0, "ETH": 2.0})]
    entries += filled("0x1", "BTC", 4.0, 100.0, 100.0, 0.0) + filled("0x2", "ETH", 2.0, 10.0, 10.0, 0.0)
    accepted = entry("positions_accepted", positions={"BTC": 2.0, "ETH": 2.0, "SOL": 5.0})
    ledgers = sub_ledgers([*entries, accepted])
    units = {name: own.units for name, own in ledgers.specs.items()}
    assert units == {"a": {"BTC": 1.5}, "b": {"BTC": 0.5, "ETH": 2.0}, UNASSIGNED: {"SOL": 5.0}}
    held = {"BTC": 2.0, "ETH": 2.0, "SOL": 5.0}
    ledgers = sub_ledgers([*entries, accepted, parted(960.0, held, {"BTC": 100.0, "ETH": 10.0, "SOL": 1.0})])
    lost = {name: own.other_usd for name, own in ledgers.specs.items()}
    assert lost == pytest.approx({"a": -30.0, "b": -10.0, UNASSIGNED: 0.0})
    assert math.fsum(own.equity_usd for own in ledgers.specs.values()) == 960.0


def test_a_fee_that_is_not_known_yet_is_of_those_who_traded() -> None:
    entries = [parted(1_000.0, {}, {"BTC": 100.0}, a={"BTC": 1.0})]
    entries += filled("0x1", "BTC", 1.0, 100.0, 100.0, None)
    end = entry("done", equity_usd=999.0, positions={"BTC": 1.0}, prices={"BTC": 100.0})
    ledgers = sub_ledgers([*entries, end])
    assert [ledgers.specs[name].equity_usd for name in "ab"] == [499.0, 500.0]
    later = entry("fills", fills=[{"cloid": "0x1", "units": 1.0, "price": 100.0, "fee_usd": 1.0}])
    ledgers = sub_ledgers([*entries, end, later])
    assert [ledgers.specs[name].equity_usd for name in "ab"] == [499.0, 500.0] and ledgers.specs["a"].fee_usd == 1.0
