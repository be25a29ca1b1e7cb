"""Hours of the exchanges that coins follow, and coins that are halted and come back."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.coin import Coin
from engine.config import RunConfig
from engine.data.cache import Store
from engine.data.coin_table import CoinMeta
from engine.data.panel_loader import load_panel
from engine.data.sessions import in_session
from engine.errors import ConfigError, DataError
from engine.live.live_panel import with_live_row
from engine.simulation.backtest import backtest
from helpers.stores import table

START = "2025-11-26T00:00Z"  # a Wednesday; Thursday is Thanksgiving, and Friday ends early
HOURS = 24 * 8


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    prices = np.full(HOURS, 100.0)
    Store(tmp_path / "cache").merge([table({"BTC": prices, "xyz:GOLD": prices, "xyz:TSLA": prices}, START)], "api")
    return tmp_path / "cache"


def test_an_hour_is_in_session_where_the_exchange_was_open_just_before_it(cache: Path) -> None:
    data = RunConfig.from_dict({"data": {"dexes": ["", "xyz"], "sessions": {"xyz:*": "XNYS"}}}).data
    panel = load_panel(cache, coins=data.selection, hours=data.hours)
    opened = panel.frame("in_session")
    assert opened["BTC"].all() and panel.tradable.all()
    hours = opened.index[opened["xyz:TSLA"] > 0]
    assert hours[hours.day == 26].hour.tolist() == [15, 16, 17, 18, 19, 20, 21]  # 14:30 to 21:00 UTC
    assert not len(hours[hours.day == 27]) and hours[hours.day == 28].hour.tolist() == [15, 16, 17, 18]
    assert set(hours.day_of_week) <= {0, 1, 2, 3, 4}
    only = RunConfig.from_dict({"data": {**data.__dict__, "in_session_only": True}}).data
    kept = load_panel(cache, coins=only.selection, hours=only.hours).frame("tradable")
    assert kept["BTC"].all() and (kept["xyz:TSLA"] == (opened["xyz:TSLA"] > 0)).all()
    # The live row has them, too.
    early = panel.until(pd.Timestamp("2025-12-01T14:00Z"))
    row = {"mid": dict.fromkeys(panel.coins, 100.0)}
    for hour, expected in ((15, 1.0), (22, 0.0)):
        live = with_live_row(early, pd.Timestamp(f"2025-12-01T{hour}:00Z"), row, in_session_only=True)
        assert live.values("in_session")[-1].tolist() == [1.0, expected, expected]
        assert live.tradable[-1].tolist() == [True, expected > 0, expected > 0]


def test_of_several_patterns_the_last_counts_and_lunch_is_no_session(cache: Path) -> None:
    data = RunConfig.from_dict({"data": {"sessions": "xyz:*=XNYS,xyz:GOLD=XHKG"}}).data
    panel = load_panel(cache, coins=["xyz:*"], hours=data.hours)
    assert [coin.sessions for coin in panel.table] == ["XHKG", "XNYS"]
    gold = panel.frame("in_session")["xyz:GOLD"]
    # Hong Kong: 09:30 to 12:00 and 13:00 to 16:00, eight hours ahead.
    assert gold.index[gold > 0][:6].hour.tolist() == [2, 3, 4, 6, 7, 8]
    assert "in_session" not in load_panel(cache, coins=["xyz:*"]).fields


def test_calendars_that_cannot_be_had(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"names 'XNSY', which exchange_calendars does not have. Did you mean 'XNYS'"):
        load_panel(cache, hours=({"BTC": "XNSY"}, False))
    for wrong in ({"xyz:*": 5}, "XNYS", [["a"]], 7):
        with pytest.raises(ConfigError, match=r"data.sessions = .* is not accepted"):
            RunConfig.from_dict({"data": {"sessions": wrong}})
    config = RunConfig.from_dict({"data": {"sessions": {"xyz:*": "XNYS"}}})
    assert RunConfig.from_dict(config.to_dict()) == config and "sessions" not in RunConfig().to_dict()["data"]
    monkeypatch.setitem(sys.modules, "exchange_calendars", None)
    with pytest.raises(DataError, match=r"pip install 'hlbt\[sessions\]'"):
        in_session(pd.date_range(START, periods=5, freq="h"), [Coin("A", sessions="XLON")])


def test_a_halted_coin_that_returns_has_two_lives(tmp_path: Path) -> None:
    """Ten days, of which three are halted: the source goes on with flat candles, at another price, without a trade."""
    hours = 240
    prices = np.r_[np.full(80, 100.0), np.full(72, 150.0), np.full(hours - 152, 200.0)]
    volume = np.r_[np.full(80, 5.0), np.zeros(72), np.full(hours - 152, 5.0)]
    coins = {"BTC": np.full(hours, 100.0), "xyz:TSLA": prices}
    store = Store(tmp_path / "cache")
    traded = {"BTC": np.full(hours, 5.0), "xyz:TSLA": volume}
    store.merge([table(coins, START, volume_usd=traded)], "api")
    instants = pd.date_range(START, periods=hours, freq="h", unit="ms")
    for row, gone in ((40, False), (90, True), (110, True), (160, False)):
        store.update_coin_table([CoinMeta("xyz:TSLA", is_delisted=gone)], "api", instants[row])
    panel = load_panel(store.path, coins=["BTC", "xyz:TSLA"])
    tesla = panel.table[1]
    assert tesla.halts == ((instants[79], instants[152]),) and tesla.delisted is None
    assert (~panel.tradable[80:152, 1]).all() and panel.tradable[:80, 1].all() and panel.tradable[152:, 1].all()
    assert np.isnan(panel.values("mid")[80:152, 1]).all()
    # Within the halt it is delisted, as far as anybody knew.
    during = panel.until(instants[100]).table[1]
    assert during.delisted == instants[79] and during.halts == ()
    assert panel.until(instants[70]).table[1].delisted is None
    # What is held is settled at the price of the halt, and bought again at the new one.
    weights = pd.DataFrame({"xyz:TSLA": 0.5}, index=instants[instants.hour == 23])
    config = RunConfig.from_dict({"costs": {"taker_bps": 0, "half_spread_bps": 0}, "account": {"margin": False}})
    trades = backtest(panel, weights, config).trades
    [gone] = trades[trades["reason"] == "delisting"].to_dict("records")
    assert gone["price"] == 100.0
    after = trades[trades["time"] >= instants[152]]
    assert (after["price"] == 200.0).all() and after["reason"].iloc[0] == "open"


def test_statements_of_a_life_in_any_order_and_those_of_an_older_cache(tmp_path: Path) -> None:
    instants = pd.date_range(START, periods=5, freq="D", unit="ms")
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1], [1, 3, 4, 0, 2]):
        store = Store(tmp_path / f"cache{order[0]}")
        for day in order:
            store.update_coin_table([CoinMeta("xyz:A", is_delisted=day in (1, 2, 4))], "api", instants[day])
        record = store.manifest().coins["xyz:A"]  # type: ignore[union-attr]
        assert record.halts == ((instants[1], instants[3]),) and record.delisting_seen_at == instants[4]
        assert (record.alive_from, record.alive_until) == (instants[0], instants[3])
    old = {"alive_from": "2024-01-01T00:00Z", "alive_until": "2024-03-01T00:00Z", "gone_by": "2024-02-01T00:00Z"}
    record = type(record).from_json("A", {**old, "only_isolated": True})
    assert (
        record.margin_mode == "isolated"
        and len(record.halts) == 1
        and type(record).from_json("A", record.to_json()) == record
    )
