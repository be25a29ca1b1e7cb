"""Plan = replay: no false difference, and each kind of change is named with its cause."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Panel, PaperDEX, RunConfig
from engine.live.journal import Journal
from engine.live.live_panel import with_live_row
from engine.live.targets import flat
from engine.monitoring.replay import PlanCheck, plan_differences
from engine.simulation.backtest import decisions_of
from helpers.panels import random_panel
from helpers.paper import trade_at
from research.oracles.carry import Carry
from research.oracles.momentum import Momentum

ORACLE = Momentum(lookback_hours=72, n=2)
Entries = list[dict[str, Any]]


@cache
def traded(seed: int = 0, shift: float = 0.0) -> tuple[Panel, list[dict[str, Any]]]:
    """A paper account of some days on rows of quotes, which are `shift` away from the cache's later row."""
    panel = random_panel(seed, 24 * 12, 8, volume=False)
    config, journal, dex = RunConfig(), Journal(), None
    rng = np.random.default_rng(seed)
    for decision in decisions_of(panel, config)[4:]:
        row = int(panel.rows(pd.DatetimeIndex([decision]))[0])
        seen = {
            name: dict(zip(panel.coins, panel.values(name)[row] * rng.normal(1.0, shift, 8), strict=True))
            for name in ("mid", "bid", "ask", "oracle", "mark")
        }
        live = with_live_row(panel.until(panel.index[row - 1]), decision, seen)
        # The account itself stands on the whole panel; what the oracle sees is the cache and the row.
        dex = dex or PaperDEX(panel, config, start=decision)
        trade_at(decision, ORACLE, dex, config, live, journal)
    return panel, journal.entries


def made(panel: Panel | None, entries: Entries, config: RunConfig | None = None, oracle: Any = ORACLE) -> PlanCheck:
    return plan_differences(entries, panel, config or RunConfig(), oracle)


def with_cell(panel: Panel, coin: str, row: int, factor: float) -> Panel:
    fields = {name: values.copy() for name, values in panel.fields.items()}
    fields["mid"][row, panel.coins.index(coin)] *= factor
    return replace(panel, fields=fields)


def test_a_journal_of_live_rows_has_no_difference_and_tells_the_quotes_apart() -> None:
    panel, entries = traded(0, 0.02)
    check = made(panel, copy.deepcopy(entries))
    plans = [entry for entry in entries if entry["kind"] == "plan"]
    assert check.state == "holding" and check.instants_checked == len(plans) >= 7
    assert check.differences == () and check.unchecked == ()
    assert len(check.quotes) == len(plans)
    assert max(quotes.mid_bps for quotes in check.quotes) > 50.0
    assert any(quotes.weight_frac > 0.0 for quotes in check.quotes)


def test_more_history_more_coins_and_another_order_of_coins_make_no_difference() -> None:
    panel, entries = traded(1)
    before = pd.date_range(end=panel.index[0] - pd.Timedelta(hours=1), periods=48, freq="h", unit="ms")
    frames = {}
    for name in panel.fields:
        frame = panel.frame(name)
        frame = pd.concat([frame.iloc[:48].set_axis(before, axis=0), frame])
        frames[name] = frame.assign(NEW=frame.iloc[:, 0] * 3.0)[["NEW", *panel.coins[::-1]]]
    wider = Panel.from_frames(**frames)
    tradable = wider.tradable.copy()
    places = [wider.coins.index(coin) for coin in panel.coins]
    tradable[48:, places] = panel.tradable
    table = {coin.name: coin for coin in panel.table}
    wider = replace(wider, tradable=tradable, table=tuple(table.get(coin.name, coin) for coin in wider.table))
    check = made(wider, entries)
    assert check.differences == () and check.state == "holding"


def test_revised_data_are_named_by_field_coin_and_hour() -> None:
    panel, entries = traded(2)
    last = [entry for entry in entries if entry["kind"] == "plan"][-1]
    coin = max(last["plan"]["weights"], key=last["plan"]["weights"].get)
    row = int(panel.rows(pd.DatetimeIndex([pd.Timestamp(last["instant"])]))[0]) - 72
    check = made(with_cell(panel, coin, row, 30.0), entries)
    assert check.state == "crossed"
    causes = {item.cause for item in check.differences if item.instant == last["instant"]}
    assert causes == {f"data revised since: mid of {coin} at {panel.index[row]:%Y-%m-%d %H:%M} UTC"}
    assert coin in {item.coin for item in check.differences}
    # Of a revision that changes no weight there is no difference.
    assert made(with_cell(panel, coin, row + 1, 1.5), entries).differences == ()


def test_a_coin_that_the_cache_lost_is_named() -> None:
    panel, entries = traded(2)
    plan = [entry for entry in entries if entry["kind"] == "plan"][-1]["plan"]
    coin = next(iter(plan["weights"]))
    kept = [place for place, name in enumerate(panel.coins) if name != coin]
    fields = {name: values[:, kept] for name, values in panel.fields.items()}
    names = tuple(panel.coins[place] for place in kept)
    table = tuple(panel.table[place] for place in kept)
    check = made(Panel(panel.index, names, fields, panel.tradable[:, kept], table), entries)
    assert check.state == "crossed" and all(f"mid of {coin}" in item.cause for item in check.differences)


@pytest.mark.parametrize("kind", ["oracle", "data", "engine", "config", ""])
def test_a_change_of_code_or_config_is_named_and_only_then_unexplained(kind: str) -> None:
    panel, entries = traded(3)
    entries = copy.deepcopy(entries)
    plan = [entry for entry in entries if entry["kind"] == "plan"][3]
    plan["plan"]["weights"] = {coin: weight * 1.01 for coin, weight in plan["plan"]["weights"].items()}
    if kind:
        plan["inputs"][kind] = "0" * 64
    check = made(panel, entries)
    assert {item.instant for item in check.differences} == {plan["instant"]}
    [cause] = {item.cause for item in check.differences}
    assert (
        cause
        == (
            {
                "oracle": "the oracle's code is not that of the plan",
                "data": "the oracle's data files are not those of the plan",
                "engine": "the engine's code is not that of the plan",
                "config": "the config is not that of the plan",
                "": "unexplained",
            }[kind]
        )
    )


def test_a_digest_alone_is_no_difference() -> None:
    panel, entries = traded(3)
    entries = copy.deepcopy(entries)
    for entry in entries:
        if entry["kind"] == "plan":
            entry["inputs"] |= {"engine": "0", "oracle": "0", "config": "0"}
    assert made(panel, entries).differences == ()


def test_another_config_and_a_wrong_size_are_found() -> None:
    panel, entries = traded(4)
    check = made(panel, entries, RunConfig.from_dict({"execution": {"leverage": 0.5}}))
    assert {item.cause for item in check.differences} == {"the config is not that of the plan"}
    item = next(item for item in check.differences if item.journal_weight)
    assert item.replay_weight == pytest.approx(item.journal_weight / 2.0, rel=1e-12)
    entries = copy.deepcopy(entries)
    plan = [entry for entry in entries if entry["kind"] == "plan"][2]
    order = plan["plan"]["orders"][0]
    order["units"] *= 1.0 + 1e-7
    [found] = made(panel, entries).differences
    assert (found.coin, found.journal_weight) == (order["coin"], found.replay_weight)
    assert found.cause == "unexplained"


def test_old_journals_a_short_cache_and_other_weights_are_no_errors() -> None:
    panel, entries = traded(5)
    plans = [entry for entry in entries if entry["kind"] == "plan"]
    old = [{name: value for name, value in plan.items() if name != "inputs"} for plan in plans]
    check = made(panel, old)
    assert (check.state, check.not_recorded, check.unchecked) == ("pending", len(plans), ())
    short = replace(
        panel,
        index=panel.index[50:],
        fields={name: values[50:] for name, values in panel.fields.items()},
        tradable=panel.tradable[50:],
    )
    check = made(short, entries)
    assert check.state == "pending" and len(check.unchecked) == len(plans)
    assert check.unchecked[0][1].startswith("the cache has no hours from ")
    check = made(panel, entries, oracle=Carry(n=2))
    assert check.state == "pending" and "are of research.oracles.momentum:Momentum" in check.unchecked[0][1]
    assert made(None, entries).unchecked[0][1] == "there is no cache"


def test_a_flatten_is_made_again_as_one() -> None:
    panel, entries = traded(6)
    journal = Journal()
    dex = PaperDEX(panel, start=pd.Timestamp(entries[0]["instant"]))
    strategy = flat("book")
    from engine.live.session import Session

    Session(strategy, dex, journal, panel=panel, now=dex.instant).execute()
    check = made(panel, journal.entries)
    assert (check.state, check.differences) == ("holding", ())
