"""Several sources in one cache: who is believed, what is reported, and that the order leaves no trace."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.cache import Store
from engine.data.merge import OTHERWISE, PRECEDENCE, rank
from engine.data.merge_report import combined
from engine.data.panel_loader import load_panel
from engine.panel import FIELDS
from helpers.effort import some
from helpers.stores import cells, content, table

START = "2024-03-01T00:00Z"
HOUR = int(pd.Timestamp(START).timestamp()) // 3600


def rows(values: list[float], start: str = START, coin: str = "BTC", **fields: list[float]) -> object:
    return table({coin: values}, start=start, **{name: {coin: column} for name, column in fields.items()})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def mids(store: Store, name: str = "mid") -> dict[int, float]:
    return {hour - HOUR: value for (_, field, hour), value in cells(store).items() if field == name}


def test_the_table_of_precedence_is_a_strict_order_for_every_field() -> None:
    for name in FIELDS:
        ranks = [rank(name, source) for source in PRECEDENCE.get(name, OTHERWISE)]
        assert ranks == sorted(set(ranks), reverse=True) and min(ranks) > rank(name, "b") > rank(name, "a")
    assert rank("funding", "api") > rank("funding", "freqtrade") > rank("funding", "s3")
    assert rank("mid", "l2book") > rank("mid", "s3") > rank("mid", "api") > rank("mid", "freqtrade")


def test_a_higher_source_takes_the_cell_and_the_difference_is_reported(store: Store) -> None:
    store.merge([rows([100.0, 200.0, 300.0, 400.0])], "freqtrade")
    report = store.merge([rows([100.01, 202.0, np.nan, 400.0, 500.0])], "s3")
    assert (report.added, report.upgraded, report.superseded, report.same, report.conflicts) == (4, 3, 0, 0, ())
    assert mids(store) == {0: 100.01, 1: 202.0, 2: 300.0, 3: 400.0, 4: 500.0}
    (apart,) = report.disagreements
    assert (apart.field, apart.kept, apart.other, apart.cells, apart.differing) == ("mid", "s3", "freqtrade", 3, 1)
    assert apart.median == pytest.approx(0.01 / 100.01)
    assert apart.largest == pytest.approx(2 / 202)
    assert (apart.coin, apart.time) == ("BTC", pd.Timestamp("2024-03-01T01:00Z"))
    assert "s3 over freqtrade in 3 cells, of which 1 differ by more than 0.1%" in str(apart)


def test_a_lower_source_is_overruled_and_reported_too(store: Store) -> None:
    store.merge([rows([np.nan], funding=[2e-5])], "api")
    report = store.merge([rows([100.0, 101.0], funding=[1e-5, 3e-5])], "s3")
    assert (report.added, report.upgraded, report.superseded) == (4, 0, 1)
    assert mids(store, "funding") == {0: 2e-5, 1: 3e-5}
    (apart,) = report.disagreements
    assert (apart.kept, apart.other, apart.cells, apart.largest) == ("api", "s3", 1, pytest.approx(0.5))
    again = store.merge([rows([100.0, 101.0], funding=[1e-5, 3e-5])], "s3")
    assert (again.wrote, again.same, again.superseded) == (False, 4, 1)


def test_differences_of_several_merges_are_one_line(store: Store) -> None:
    store.merge([rows([100.0, 200.0, 300.0])], "freqtrade")
    first = store.merge([rows([101.0])], "s3")
    second = store.merge([rows([201.0, 300.0], start="2024-03-01T01:00Z")], "s3")
    (line,) = combined("s3", [first, second]).differences()
    assert line == (
        "Sources differ: mid: s3 over freqtrade in 3 cells, of which 2 differ by more than 0.1%; largest 0.99% "
        "(BTC at 2024-03-01 00:00 UTC)."
    )
    assert first.differences() == [f"Sources differ: {first.disagreements[0]}."]


def test_one_source_that_contradicts_itself_is_a_conflict_of_those_cells_alone(store: Store) -> None:
    store.merge([rows([100.0, 200.0, np.nan, 400.0])], "s3")
    store.merge([rows([101.0, 201.0])], "freqtrade")
    report = store.merge([rows([100.0, 210.0, 300.0, 400.0])], "s3")
    assert [(conflict.field, conflict.cells) for conflict in report.conflicts] == [("mid", 1)]
    assert (report.refused, report.added) == (1, 1)
    assert mids(store) == {0: 100.0, 1: 200.0, 2: 300.0, 3: 400.0}


def test_the_last_row_of_a_file_in_part_gives_way_whole_to_one_that_goes_on_after_it(store: Store) -> None:
    """It may have been taken within its hour; what its record had and the later one lacks goes, too."""
    store.merge([rows([100.0, 200.0], oracle=[100.0, 200.0], impact_bid=[99.0, 199.0])], "s3")
    longer = rows([100.0, 210.0, 300.0], oracle=[100.0, 200.0, 300.0], impact_bid=[99.0, np.nan, np.nan])
    assert store.merge([longer], "s3").refused == 1
    store = Store(store.path.with_name("other"))
    store.merge([rows([100.0, 200.0], oracle=[100.0, 200.0], impact_bid=[99.0, 199.0])], "s3")
    report = store.merge([longer], "s3", longer=True)
    assert (report.conflicts, report.changed, report.added) == ((), 1, 2)
    assert mids(store) == {0: 100.0, 1: 210.0, 2: 300.0}
    assert mids(store, "impact_bid") == {0: 99.0}
    # Not where nothing follows it, nor where rows before it differ, too.
    for values in ([100.0, 210.0, 310.0], [101.0, 210.0, 310.0, 400.0]):
        report = store.merge([rows(values)], "s3", longer=True)
        assert report.conflicts and mids(store)[2] == 300.0


def test_replace_does_not_lift_a_lower_source_over_a_higher(store: Store) -> None:
    store.merge([rows([100.0])], "s3")
    assert store.merge([rows([90.0])], "freqtrade", replace=True).superseded == 1
    assert mids(store) == {0: 100.0}


def test_every_source_has_its_own_file_of_a_month_and_a_backfill_rewrites_no_other(store: Store) -> None:
    store.merge([rows([1.0] * 800, volume_usd=[5.0] * 800)], "freqtrade")
    before = content(store.path)
    store.merge([rows([2.0] * 3, start="2024-03-01T10:00Z", oracle=[2.0] * 3)], "s3")
    after = content(store.path)
    assert {name for name in before if after.get(name) != before[name]} == {"manifest.json"}
    files = store.require().files
    assert list(files) == ["2024-03-freqtrade", "2024-03-s3", "2024-04-freqtrade"]
    assert [entry.fields for entry in files.values()] == [
        ("mid", "volume_usd"),
        ("mid", "oracle"),
        ("mid", "volume_usd"),
    ]
    assert [mids(store)[hour] for hour in range(8, 15)] == [1.0] * 2 + [2.0] * 3 + [1.0] * 2
    store.merge([rows([3.0] * 744)], "l2book")
    assert store.require().coins["BTC"].source_ends == {
        "freqtrade": pd.Timestamp("2024-04-03T07:00Z"),
        "l2book": pd.Timestamp("2024-03-31T23:00Z"),
        "s3": pd.Timestamp("2024-03-01T12:00Z"),
    }


PARTS = {
    "freqtrade": lambda: [
        table({"BTC": [1.0, 2.0, 3.0], "ETH": [9.0] * 5}, start="2024-03-31T22:00Z"),
        table({"BTC": [np.nan] * 3}, start="2024-03-31T22:00Z", funding={"BTC": [1e-5] * 3}),
    ],
    "api": lambda: [table({"BTC": [1.0, 2.5]}, start="2024-03-31T22:00Z", funding={"BTC": [1e-5, 2e-5]})],
    "s3": lambda: [
        table(
            {"BTC": [1.1, 2.0, 3.1, 4.1], "AAVE": [np.nan, 7.0, 7.0, 7.0]},
            start="2024-03-31T21:00Z",
            funding={"BTC": [3e-5] * 4, "AAVE": [4e-5] * 4},
        )
    ],
    "l2book": lambda: [table({"BTC": [2.2]}, start="2024-03-31T23:00Z", bid={"BTC": [2.1]}, ask={"BTC": [2.3]})],
}


@pytest.mark.slow
def test_the_order_of_the_sources_leaves_no_trace(tmp_path: Path) -> None:
    states, digests = [], set()
    for number, order in enumerate(itertools.permutations(PARTS)):
        store = Store(tmp_path / str(number))
        for source in order:
            store.merge(PARTS[source](), source)
        states.append(content(store.path))
        digests.add(load_panel(store.path).digest)
    assert len(digests) == 1
    assert len(states) == 24 and len(states[0]) == 7
    assert all(state == states[0] for state in states)
    values = {key: value for key, value in cells(store).items() if key[1] == "mid" and key[0] == "BTC"}
    # 21:00 s3; 22:00 s3 over api and freqtrade; 23:00 the book; 00:00 s3.
    assert [values[key] for key in sorted(values)] == [1.1, 2.0, 2.2, 4.1]


@settings(max_examples=some(10, 25))
@given(data=st.data())
def test_any_sources_in_any_order_against_a_dictionary(data: st.DataObject, tmp_path_factory: object) -> None:
    names = data.draw(st.permutations(PRECEDENCE["mid"]))
    price = st.sampled_from([np.nan, 1.0, 1.0 + 1e-10, 2.0, 3.0])
    tables = {name: data.draw(st.lists(price, min_size=4, max_size=4)) for name in names}
    expected = {}
    for hour in range(4):
        held = [name for name in PRECEDENCE["mid"] if not np.isnan(tables[name][hour])]
        if held:
            expected[hour] = tables[held[0]][hour]
    store = Store(tmp_path_factory.mktemp("any") / "cache")  # type: ignore[attr-defined]
    for name in names:
        store.merge([rows(tables[name])], name)
    assert (mids(store) if store.manifest().files else {}) == expected  # type: ignore[union-attr]


def test_silence_counts_against_what_the_coins_own_sources_could_give(store: Store) -> None:
    days = [float(value) for value in range(1, 200)]
    store.merge([table({"BTC": days, "ETH": days, "GONE": days[:100]}, start=START)], "s3")
    # A tail of BTC alone, from another source, months later: ETH is not known to be gone, GONE is.
    store.merge([rows([1.0], start="2024-08-01T00:00Z")], "api")
    gone = {coin.name: coin.delisted for coin in store.require().table()}
    assert gone == {"BTC": None, "ETH": None, "GONE": pd.Timestamp("2024-03-05T03:00Z")}
    # The archive goes on without ETH: now it is.
    store.merge([rows([2.0], start="2024-03-20T00:00Z")], "s3")
    assert store.require().table(["ETH"])[0].delisted == pd.Timestamp("2024-03-09T06:00Z")


def test_months_without_volume_or_quotes_need_a_price_only_whatever_coins_are_asked_for(store: Store) -> None:
    store.merge([rows([1.0, 1.0, 1.0], start=START)], "s3")  # neither volume nor quotes
    later = "2024-03-01T03:00Z"
    volume = {"BTC": [5.0, 5.0], "ETH": [np.nan, 0.0]}
    store.merge([table({"BTC": [1.0, 1.0], "ETH": [2.0, 2.0]}, start=later, volume_usd=volume)], "freqtrade")
    panel = load_panel(store.path)
    assert panel.frame("tradable")["BTC"].tolist() == [True] * 5
    assert panel.frame("tradable")["ETH"].tolist() == [False] * 5
    # Asked for alone, ETH is as untradable as among the others: BTC's volume says that volume is observed.
    assert load_panel(store.path, coins=["ETH"]).tradable.sum() == 0
    assert load_panel(store.path, coins=["BTC"]).tradable.sum() == 5


def test_impact_prices_are_a_quote(store: Store) -> None:
    pair = {"impact_bid": [1.0, np.nan, 1.0], "impact_ask": [1.1, np.nan, np.nan]}
    store.merge(
        [rows([1.0, 1.0, 1.0], **pair), rows([1.0] * 3, coin="ETH", impact_bid=[1.0] * 3, impact_ask=[1.1] * 3)], "s3"
    )
    assert load_panel(store.path).frame("tradable")["BTC"].tolist() == [True, False, False]
