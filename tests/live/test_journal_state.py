"""What a journal adds up to: one state, made by one reducer, from journals of this release and of earlier ones."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from engine.errors import LiveError
from engine.live.journal import EquityRecord, Journal, JournalState, SentOrder
from engine.live.orders import Goal, OrderRequest

NOW = pd.Timestamp("2025-06-01T22:59:30Z")
INSTANT = pd.Timestamp("2025-06-01T23:00Z")
GOALS = (Goal("BTC", 0, 0.0, True, False), Goal("ETH", 1, 2.0, False, True))
SELL = OrderRequest("0x1", "BTC", -1.0, 90_000.0, True)
BUY = OrderRequest("0x2", "ETH", 2.0, 5_000.0, False)


def entry(kind: str, minutes: float = 0, **fields: Any) -> dict[str, Any]:
    return {"n": 0, "kind": kind, "time": (NOW + pd.Timedelta(minutes=minutes)).isoformat(), **fields}


def plan(equity: float = 100.0, **positions: float) -> dict[str, Any]:
    goals = [vars(goal) for goal in GOALS]
    content = {"positions": positions}
    return entry("plan", instant=INSTANT.isoformat(), key="k", equity_usd=equity, goals=goals, plan=content)


def intent(*orders: OrderRequest) -> dict[str, Any]:
    rows = [{**asdict(order), "mid": 1.0} for order in orders]
    return entry("intent", instant=INSTANT.isoformat(), expires_ms=7, orders=rows)


def results(kind: str, *items: tuple[str, str, float]) -> dict[str, Any]:
    rows = [{"cloid": cloid, "fate": fate, "units": units, "price": None} for cloid, fate, units in items]
    return entry(kind, answers=rows)


def state_of(*entries: dict[str, Any]) -> JournalState:
    state = JournalState()
    for item in entries:
        state = state.after(item)
    return state


def test_a_plan_is_open_until_its_end() -> None:
    state = state_of(plan(BTC=1.0))
    assert state.unfinished(INSTANT, "k") == GOALS and state.positions == {"BTC": 1.0}
    assert state.unfinished(INSTANT, "other") is None
    assert state.unfinished(INSTANT + pd.Timedelta(days=1), "k") is None
    done = entry("done", equity_usd=99.0, positions={"ETH": 2.0}, complete=True, missing=[])
    assert state.after(done).unfinished(INSTANT, "k") is None and state.after(done).positions == {"ETH": 2.0}


def test_fills_are_added_once_and_await_their_fees() -> None:
    state = state_of(
        plan(BTC=1.0), intent(SELL, BUY), results("answers", ("0x1", "filled", -1.0), ("0x2", "unknown", 0))
    )
    assert state.unresolved == {"0x2": SentOrder(BUY, NOW, 7)} and state.positions == {"BTC": 0.0}
    state = state.after(results("resolved", ("0x2", "filled", 1.5)))
    assert state.unresolved == {} and state.positions == {"BTC": 0.0, "ETH": 1.5}
    assert state.after(results("resolved", ("0x2", "filled", 1.5))) == state
    assert state.attempts == {INSTANT.isoformat(): {"BTC": 1, "ETH": 1}}
    assert state.without_fills == {"0x1": NOW, "0x2": NOW}
    assert state.after(entry("fills", fills=[{"cloid": "0x1"}])).without_fills == {"0x2": NOW}


def test_a_refused_run_is_a_record_of_equity_and_no_acceptance() -> None:
    state = state_of(plan(100.0), entry("refused", 1, equity_usd=50.0), entry("refused", 2, equity_usd=None))
    assert state.equities == (
        EquityRecord(NOW, 100.0, "plan"),
        EquityRecord(NOW + pd.Timedelta(minutes=1), 50.0, "refused"),
    )
    assert [record.equity_usd for record in state.accepted_equities()] == [100.0]


def test_a_state_is_made_and_never_changed() -> None:
    state = state_of(plan(BTC=1.0), intent(SELL))
    later = state.after(results("answers", ("0x1", "filled", -1.0)))
    later = later.after(entry("leverage_set", coin="BTC", leverage=2))  # of earlier releases
    later = later.after(entry("leverages_set", leverages={"ETH": 3}, refused={"DOGE": "no"}))
    assert later.positions == {"BTC": 0.0} and later.leverage == {"BTC": (2, True), "ETH": (3, True)}
    assert state.positions == {"BTC": 1.0} and "0x1" in state.unresolved and state.leverage == {}


def test_a_journal_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    """It has entries of a switch that is gone, and may have kinds of a later release."""
    path = tmp_path / "a.jsonl"
    entries = [plan(BTC=1.0), entry("dead_man", on=True, refused=""), entry("of 2030"), intent(SELL)]
    path.write_text("".join(json.dumps({**item, "n": number}) + "\n" for number, item in enumerate(entries)))
    journal = Journal(path)
    assert len(journal.entries) == 4 and journal.state == state_of(plan(BTC=1.0), intent(SELL))
    journal.append("answers", NOW, answers=results("answers", ("0x1", "filled", -1.0))["answers"])
    assert Journal(path).state == journal.state and journal.state.positions == {"BTC": 0.0}


@pytest.mark.parametrize("item", [entry("plan"), entry("intent", orders=[{}]), entry("fills", fills=[1])])
def test_an_entry_in_another_form_is_a_damaged_journal(tmp_path: Path, item: dict[str, Any]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(item) + "\n")
    with pytest.raises(LiveError, match="damaged in line 1"):
        Journal(path)


def test_positions_are_newer_than_those_that_explained_them() -> None:
    """Stamped by a node that lags behind, or with the time of a --now: the run that came last knows the account."""
    first = state_of(plan(BTC=1.0), entry("done", 5, equity_usd=99.0, positions={"BTC": 1.0}))
    assert first.positions_at == NOW + pd.Timedelta(minutes=5)
    second = {**plan(BTC=1.0), "explained_at": first.positions_at.isoformat()}
    state = state_of(second, intent(BUY), results("answers", ("0x2", "filled", 2.0)))
    assert state.positions_at is not None and state.positions_at > first.positions_at
    assert state.after(entry("done", equity_usd=1.0, positions={"ETH": 2.0})).positions_at == state.positions_at
