from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from engine.data.cache import Store
from engine.data.coin_table import CoinRecord, Seen
from engine.data.meta import import_meta
from engine.data.panel_loader import load_panel
from engine.errors import DataError
from helpers.shared_data import GO, recorded

META = {
    "universe": [
        {"name": "BTC", "szDecimals": 5, "maxLeverage": 40, "marginTableId": 56},
        {"name": "RLB", "szDecimals": 0, "maxLeverage": 3, "onlyIsolated": True, "isDelisted": True},
    ],
    "marginTables": [],
}


def instant(text: str) -> pd.Timestamp:
    return pd.Timestamp(text, tz="UTC")


def save(folder: Path, answer: object, name: str = "meta.json") -> Path:
    path = folder / name
    path.write_text(answer if isinstance(answer, str) else json.dumps(answer))
    return path


def answers(name: str) -> list[object]:
    """What the main dex answered to `name`; a cassette holds other answers too."""
    wanted = {"dex": "", "type": name[0].lower() + name[1:]}
    return [answer for request, answer in recorded(*GO, f"{name}.yaml") if {"dex": "", **request} == wanted]


def prices(coin: str, start: str, hours: int, funding_from: str | None = None) -> pa.Table:
    time = pd.date_range(start, periods=hours, freq="h", unit="ms", tz="UTC")
    frame = pd.DataFrame({"time": time, "coin": coin, "mid": 10.0, "funding": 1e-5})
    if funding_from is not None:
        frame.loc[frame["time"] < instant(funding_from), "funding"] = None
    return pa.Table.from_pandas(frame, preserve_index=False)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.mark.parametrize("answer", [META, [META, [{"funding": "0.0"}, {}]]])
def test_both_answers_are_read(store: Store, tmp_path: Path, answer: object) -> None:
    report = import_meta(store, save(tmp_path, answer), as_of="2025-08-22")
    assert (report.coins, report.added, report.changed, report.delisted) == (2, ("BTC", "RLB"), (), ("RLB",))
    manifest = store.manifest()
    assert manifest is not None
    date = instant("2025-08-22")
    assert manifest.coins["BTC"] == CoinRecord(
        "BTC", 5, 40.0, False, "cross", 56, origin="meta.json", as_of=date, seen=(Seen(date, date, False, "cross"),)
    )
    assert manifest.coins["RLB"] == CoinRecord(
        "RLB", 0, 3.0, True, "isolated", origin="meta.json", as_of=date, seen=(Seen(date, date, True, "isolated"),)
    )


def test_reading_it_again_writes_nothing(store: Store, tmp_path: Path) -> None:
    path = save(tmp_path, META)
    assert import_meta(store, path).wrote
    assert not import_meta(store, path).wrote
    assert import_meta(store, path, as_of="2025-08-22T11:30:15Z").wrote
    before = (store.path / "manifest.json").stat().st_mtime_ns
    assert not import_meta(store, path, as_of="2025-08-22T11:30:15Z").wrote
    assert (store.path / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("{", "not JSON"),
        ([], "no 'universe' of coins in it, but a list"),
        ({}, "but a dict"),
        ({"marginSummary": {}, "time": 1}, "but an object with marginSummary, time"),
        ({"universe": []}, "no 'universe'"),
        ({"universe": [{"tokens": [1, 0], "name": "PURR/USDC", "index": 0}]}, "a response of the spot market"),
        ({"universe": ["BTC"]}, "entry 0 of the universe has no name"),
        ({"universe": [{"name": "BTC", "maxLeverage": 3}]}, "szDecimals of BTC is None"),
        ({"universe": [{"name": "BTC", "szDecimals": 1.5, "maxLeverage": 3}]}, "szDecimals of BTC is 1.5"),
        ({"universe": [{"name": "BTC", "szDecimals": 1, "maxLeverage": "3"}]}, "maxLeverage of BTC is '3'"),
        ({"universe": [META["universe"][0]] * 2}, "BTC appears twice"),
    ],
)
def test_another_answer_is_refused_with_what_it_is(store: Store, tmp_path: Path, answer: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        import_meta(store, save(tmp_path, answer))
    assert "meta.json" in str(caught.value)
    assert not store.path.exists()


def test_a_file_that_is_not_there(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.json: cannot be read"):
        import_meta(store, tmp_path / "nowhere.json")


def test_an_older_answer_only_fills_what_is_unknown(store: Store, tmp_path: Path) -> None:
    import_meta(store, save(tmp_path, META, "new.json"), as_of="2025-08-22")
    older = {
        "universe": [{"name": "BTC", "szDecimals": 5, "maxLeverage": 50}, {**META["universe"][1], "marginTableId": 3}]
    }
    report = import_meta(store, save(tmp_path, older, "old.json"), as_of="2024-01-01")
    # BTC was alive on an earlier day than was known.
    assert report.changed == ("BTC", "RLB")
    coins = store.manifest().coins  # type: ignore[union-attr]
    assert (coins["BTC"].max_leverage, coins["BTC"].origin) == (40.0, "new.json")
    assert (coins["RLB"].margin_table_id, coins["RLB"].is_delisted) == (3, True)
    newer = {"universe": [{"name": "BTC", "szDecimals": 5, "maxLeverage": 20}]}
    assert import_meta(store, save(tmp_path, newer, "newer.json"), as_of="2026-01-01").changed == ("BTC",)
    assert store.manifest().coins["BTC"].max_leverage == 20.0  # type: ignore[union-attr]


def test_dated_answers_in_any_order_bound_listing_and_delisting(tmp_path: Path) -> None:
    alive = {"universe": [META["universe"][0]]}
    gone = {"universe": [{**META["universe"][0], "isDelisted": True}]}
    answers = {"2024-01-01": alive, "2024-05-01": alive, "2024-09-01": gone, "2025-01-01": gone}
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        store = Store(tmp_path / f"cache{order[0]}")
        for place in order:
            date = list(answers)[place]
            import_meta(store, save(tmp_path, answers[date], f"{date}.json"), as_of=date)
        record = store.manifest().coins["BTC"]  # type: ignore[union-attr]
        assert record.alive_from == instant("2024-01-01")
        assert record.alive_until == instant("2024-05-01")
        assert record.delisting_seen_at == instant("2024-09-01")
        assert record.is_delisted


def test_meta_and_data_meet_in_the_coin_table_in_either_order(tmp_path: Path) -> None:
    path = save(tmp_path, META)
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    data = [prices("BTC", "2024-03-01", 100, funding_from="2024-03-02")]
    import_meta(one, path)
    one.merge(data, "s")
    other.merge(data, "s")
    import_meta(other, path)
    assert (one.path / "manifest.json").read_bytes() == (other.path / "manifest.json").read_bytes()
    panel = load_panel(one.path)
    (bitcoin,) = panel.table
    assert (bitcoin.listed, bitcoin.delisted) == (instant("2024-03-02"), None)
    assert (bitcoin.sz_decimals, bitcoin.max_leverage) == (5, 40.0)
    with pytest.raises(DataError, match="has no price of RLB"):
        load_panel(one.path, coins=["RLB"])


def test_spans_widen_to_both_sides(store: Store) -> None:
    store.merge([prices("BTC", "2024-03-10", 24)], "s")
    store.merge([prices("BTC", "2024-01-10", 24, funding_from="2024-01-10 05:00")], "s")
    store.merge([prices("BTC", "2024-02-10", 24)], "s")
    record = store.require().coins["BTC"]
    assert (record.first_price, record.last_price) == (instant("2024-01-10"), instant("2024-03-10 23:00"))
    assert (record.first_funding, record.last_funding) == (instant("2024-01-10 05:00"), instant("2024-03-10 23:00"))


END = instant("2024-06-30")


@pytest.mark.parametrize(
    ("record", "listed", "delisted"),
    [
        (CoinRecord("A", first_price=instant("2024-01-01"), last_price=END), "2024-01-01", None),
        (
            CoinRecord("A", first_price=instant("2024-01-01"), last_price=END, first_funding=instant("2024-02-01")),
            "2024-02-01",
            None,
        ),
        (CoinRecord("A", first_price=instant("2024-01-01"), last_price=instant("2024-06-29")), "2024-01-01", None),
        (
            CoinRecord("A", first_price=instant("2024-01-01"), last_price=instant("2024-06-28 23:00")),
            "2024-01-01",
            "2024-06-28 23:00",
        ),
        (
            CoinRecord("A", is_delisted=True, first_price=instant("2024-01-01"), last_price=END),
            "2024-01-01",
            "2024-06-30",
        ),
        # Silent, but alive in an answer of a later date: the collector stopped, not the coin.
        (
            CoinRecord(
                "A",
                is_delisted=False,
                as_of=instant("2024-07-01"),
                first_price=instant("2024-01-01"),
                last_price=instant("2024-03-01"),
            ),
            "2024-01-01",
            None,
        ),
        # Alive in an answer of an earlier date: says nothing of later.
        (
            CoinRecord(
                "A",
                is_delisted=False,
                as_of=instant("2024-02-01"),
                first_price=instant("2024-01-01"),
                last_price=instant("2024-03-01"),
            ),
            "2024-01-01",
            "2024-03-01",
        ),
        (CoinRecord("A", sz_decimals=2), None, None),
    ],
)
def test_listed_and_delisted(record: CoinRecord, listed: str | None, delisted: str | None) -> None:
    coin = record.coin(END)
    assert coin.listed == (None if listed is None else instant(listed))
    assert coin.delisted == (None if delisted is None else instant(delisted))


def test_the_recorded_answers_of_the_venue(store: Store, tmp_path: Path) -> None:
    # Of 2025-08-22 and 2026-02-06.
    counts = []
    for name in ("Meta", "MetaAndAssetCtxs"):
        for place, answer in enumerate(answers(name)):
            report = import_meta(store, save(tmp_path, answer, f"{name}-{place}.json"))
            counts.append((report.coins, len(report.delisted)))
    assert counts[0] == (203, 32)
    assert set(counts) == {(203, 32), (228, 38)}
    coins = store.manifest().coins  # type: ignore[union-attr]
    assert (coins["BTC"].sz_decimals, coins["BTC"].max_leverage) == (5, 40.0)
    assert coins["kPEPE"].sz_decimals == 0
    assert coins["MATIC"].is_delisted
    assert coins["RLB"].margin_mode == "isolated"
    with pytest.raises(DataError, match="response of the spot market"):
        import_meta(store, save(tmp_path, answers("SpotMeta")[0], "spot.json"))


def test_an_undated_answer_only_fills_what_a_dated_one_left_unknown(tmp_path: Path) -> None:
    """Nobody knows whether it is newer, so it neither replaces nor erases the date."""
    store = Store(tmp_path / "cache")
    answer = {"universe": [{"name": "BTC", "szDecimals": 5, "maxLeverage": 40}]}
    file = tmp_path / "meta.json"
    file.write_text(json.dumps(answer))
    import_meta(store, file, as_of="2025-08-22T11:30Z")
    answer["universe"] = [
        {"name": "BTC", "szDecimals": 5, "maxLeverage": 50},
        {"name": "ETH", "szDecimals": 4, "maxLeverage": 25},
    ]
    file.write_text(json.dumps(answer))
    import_meta(store, file)
    manifest = store.manifest()
    assert manifest is not None
    coins = manifest.coins
    assert (coins["BTC"].max_leverage, coins["BTC"].as_of) == (40, pd.Timestamp("2025-08-22T11:30Z"))
    assert coins["ETH"].sz_decimals == 4


def test_margin_tiers_reach_the_panel(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    store.merge([prices("BTC", "2024-03-10", 24), prices("ETH", "2024-03-10", 24)], "freqtrade")
    tiers = [{"lowerBound": "0.0", "maxLeverage": 40}, {"lowerBound": "150000000.0", "maxLeverage": 20}]
    answer = {
        "universe": [
            {"name": "BTC", "szDecimals": 5, "maxLeverage": 40, "marginTableId": 56},
            {"name": "ETH", "szDecimals": 4, "maxLeverage": 25, "marginTableId": 25},
        ],
        "marginTables": [[56, {"description": "tiered 40x", "marginTiers": tiers}]],
    }
    file = tmp_path / "meta.json"
    file.write_text(json.dumps(answer))
    import_meta(store, file)
    table = {coin.name: coin for coin in load_panel(store.path).table}
    assert table["BTC"].margin_tiers == ((0.0, 40.0), (150e6, 20.0))
    assert table["ETH"].margin_tiers == ()
    tiers[1]["maxLeverage"] = 50  # more leverage for more size is nobody's table
    file.write_text(json.dumps(answer))
    with pytest.raises(DataError, match="marginTables is not"):
        import_meta(store, file)
