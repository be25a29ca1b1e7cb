"""Prices that contradict what stands beside them are set aside and said; what a market can do is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_freqtrade import candles

from engine import Panel, RunConfig, backtest
from engine.clock import hourly_index
from engine.data.cache import Store
from engine.data.cache_status import status
from engine.data.freqtrade import import_freqtrade
from engine.data.panel_loader import load_panel
from engine.data.price_checks import odd_moves, set_aside
from engine.data.schema import Rows, read_rows
from engine.errors import DataError
from helpers.api_world import HOUR, NOW, listings, sync
from helpers.commands import outcome
from helpers.hyperliquid_info import LoopbackServer, Venue
from helpers.stores import cells, table

START = "2024-10-01T22:00Z"


def rows(mid: list[float], **fields: list[float]) -> Rows:
    return read_rows(table({"BTC": mid}, **{name: {"BTC": values} for name, values in fields.items()}), "test")


@pytest.mark.parametrize("wrong", [0.05, 50_000.0, 109.99, 90.01])
def test_a_close_outside_its_own_candle_is_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: float
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    close = [100.0] * 24
    close[10] = wrong
    high, low = np.maximum(close, 105.0), np.minimum(close, 95.0)
    high[10], low[10] = 105.0, 95.0
    candles(folder, "BTC", close, high=high, low=low)
    candles(folder, "ETH", [10.0] * 24)
    cache = tmp_path / "cache"
    command = ("data", "import", "freqtrade", folder, "--set", f"data.cache={cache}")
    refused = outcome(capsys, *command, "--strict")
    assert refused.code == 1 and "impossible prices" in refused.err and "BTC at 2024-10-02 09:00 UTC" in refused.err
    assert not (Store(cache).manifest() or Store(cache)).__dict__.get("files")
    done = outcome(capsys, *command)
    assert done.code == 0 and "1 impossible prices set aside (BTC at 2024-10-02 09:00 UTC: close" in done.out
    panel = load_panel(cache)
    assert np.isnan(panel.values("mid")).sum(axis=0).tolist() == [1, 0]
    assert np.isnan(panel.values("high")[10, 0]) and np.isnan(panel.values("volume_usd")[10, 0])


def test_of_an_exchange_it_is_said_once_and_not_asked_for_again(tmp_path: Path) -> None:
    venue = Venue(listings(), int(NOW.timestamp() * 1000))
    bad = venue.listings["BTC"].candles[HOUR - 100]
    bad["c"] = str(float(bad["l"]) / 1000)
    store = Store(tmp_path / "cache")
    with LoopbackServer({"/info": venue}) as server:
        report = sync(store, server, coins=["BTC"])
        assert not report.problems and [price.coin for price in report.merge.impossible] == ["BTC"]
        assert len(report.to_dict()["impossible"]) == 1
        assert ("BTC", "mid", HOUR - 99) not in cells(store) and ("BTC", "funding", HOUR - 99) in cells(store)
        server.requests.clear()
        sync(store, server, coins=["BTC"], start=NOW - pd.Timedelta(days=5))
        assert not server.asked("candleSnapshot")
        with pytest.raises(DataError, match=r"1 impossible prices, the first of BTC .* \(--strict\)"):
            sync(Store(tmp_path / "strict", strict=True), server, coins=["BTC"])


@pytest.mark.parametrize(
    ("fields", "lost"),
    [
        (
            {"mark": [100.0, 100.0, 100.0], "oracle": [100.0, 101.0, 100.0], "mid": [100.0, 0.1, 100.0]},
            {"mid", "impact_bid"},
        ),
        ({"mark": [100.0, 99.0, 100.0], "oracle": [100.0, 1e5, 100.0], "mid": [100.0, 101.0, 100.0]}, {"oracle"}),
        ({"mark": [100.0, 1e-3, 100.0], "oracle": [100.0, 98.0, 100.0], "mid": [100.0, 101.0, 100.0]}, {"mark"}),
        ({"mid": [100.0, 1e5, 101.0]}, {"mid", "impact_bid"}),
        ({"mid": [100.0, 100.0, 100.0], "funding": [0.04, 5.0, -0.04]}, {"funding"}),
        ({"mid": [100.0, 100.0, 100.0], "impact_ask": [101.0, 98.0, 101.0]}, {"impact_bid", "impact_ask"}),
    ],
)
def test_a_record_is_judged_by_what_is_beside_it(fields: dict[str, list[float]], lost: set[str]) -> None:
    given = rows(fields.pop("mid"), impact_bid=[99.0] * 3, **fields)
    kept, (price,) = set_aside(given)
    assert {name for name, values in kept.fields.items() if np.isnan(values[1])} == lost
    assert price.coin == "BTC" and not any(np.isnan(values[[0, 2]]).any() for values in kept.fields.values())


def test_what_a_market_can_do_is_kept() -> None:
    """A crash of 90 % with its recovery, a rise of 50 times that stays, a mid far from mark and oracle that differ."""
    mid = [100.0, 10.0, 95.0, 4750.0, 4800.0, 4700.0]
    high, low = [110.0, 100.0, 96.0, 5000.0, 4900.0, 4800.0], [90.0, 0.5, 10.0, 95.0, 4700.0, 4600.0]
    assert set_aside(rows(mid, high=high, low=low))[1] == ()
    assert set_aside(rows([100.0, 100.0], mark=[30.0, 100.0], oracle=[5.0, 100.05]))[1] == ()
    nothing = set_aside(rows([100.0, 100.04], high=[100.0, 100.0], low=[100.0, 99.0]))
    assert nothing[1] == () and nothing[0].fields["mid"].tolist() == [100.0, 100.04]  # rounded elsewhere


def walk(hours: int = 400, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    index = hourly_index(
        pd.Timestamp("2024-01-01T00:00Z"), pd.Timestamp("2024-01-01T00:00Z") + pd.Timedelta(hours=hours - 1)
    )
    return pd.DataFrame(
        100 * np.exp(np.cumsum(rng.normal(0, 0.007, (hours, 2)), axis=0)), index=index, columns=["A", "B"]
    )


def test_a_run_says_what_it_made_of_a_jump_over_a_hole_and_of_a_spike(tmp_path: Path) -> None:
    mid = walk()
    mid.iloc[100:112, 0] = np.nan
    mid.iloc[112:, 0] *= 10.0
    mid.iloc[300, 1] *= 3.0
    moves = odd_moves(mid.to_numpy())
    assert [(move.column, move.before, move.row, move.kind) for move in moves] == [
        (0, 99, 112, "jump"),
        (1, 299, 301, "spike"),
    ]
    panel = Panel.from_frames(mid=mid)
    weights = pd.DataFrame([[0.2, 0.3]], index=mid.index[[23]], columns=["A", "B"])
    config = RunConfig.from_dict({"execution": {"lots": False}, "costs": {"taker_bps": 0.0, "half_spread_bps": 0.0}})
    result = backtest(panel, weights, config)
    (note,) = [note for note in result.notes if "odd prices" in note]
    units = 0.2 * 10_000 / mid.iloc[23, 0]
    jump = units * (mid.iloc[112, 0] - mid.iloc[99, 0])
    spike = 0.3 * 10_000 / mid.iloc[23, 1] * (mid.iloc[301, 1] - mid.iloc[299, 1])
    assert f"A jump x{mid.iloc[112, 0] / mid.iloc[99, 0]:.4g} to 2024-01-05 16:00 UTC: {jump:+,.2f} USD" in note
    assert note.startswith(f"2 odd prices while the coin was held made {jump + spike:+,.2f} USD")
    # Whoever did not hold it hears nothing; a walk without errors has none.
    late = pd.DataFrame([[0.2, 0.3]], index=mid.index[[350]], columns=["A", "B"])
    others = (backtest(panel, late, config), backtest(Panel.from_frames(mid=walk()), weights, config))
    assert not [note for other in others for note in other.notes if "odd prices" in note]
    store = Store(tmp_path / "cache")
    store.merge([table({name: mid[name].to_list() for name in mid}, start="2024-01-01T00:00Z")], "api")
    assert [move["kind"] for move in status(store)["odd_moves"]] == ["jump", "spike"]


def test_the_real_candles_contradict_nothing(freqtrade_folder: Path, real_cache: Path, tmp_path: Path) -> None:
    report = import_freqtrade(Store(tmp_path / "cache", strict=True), freqtrade_folder)
    assert report.merge.impossible == ()
    assert len(status(Store(real_cache))["odd_moves"]) == 16  # and one of an index before its coin was listed
