"""The parts of the live path by themselves: prices on the tick, the journal, specs, limits, the clock, alerts."""

from __future__ import annotations

import math
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import DEX, PaperDEX, PortfolioManager, RunConfig
from engine.errors import DataError, LimitError, LiveError, WeightsError
from engine.live.executor import cloid
from engine.live.hyperliquid_format import tick_price
from engine.live.journal import Journal, SentOrder
from engine.live.leverage import leverage_of
from engine.live.live_panel import with_live_row
from engine.live.orders import Market, OrderRequest
from engine.live.risk_limits import Limits
from engine.live.schedule import next_run, trade_instant
from engine.oracles.fixed_weights import FixedWeights
from helpers.effort import some
from helpers.live_world import Run, World
from helpers.panels import random_panel
from helpers.shared_data import GO, recorded

NOW = pd.Timestamp("2025-06-01T22:59:30Z")


# Prices ---------------------------------------------------------------------------------------------------------------


def valid(price: float, sz_decimals: int) -> bool:
    """The documented rule, on the digits that are sent."""
    exact = Decimal(repr(price)).normalize()
    if exact == exact.to_integral_value():
        return True
    decimals = -int(exact.as_tuple().exponent)
    return len(exact.as_tuple().digits) <= 5 and decimals <= 6 - sz_decimals


@pytest.mark.slow
@settings(max_examples=some(400, 2000))
@given(
    mantissa=st.floats(1.0, 9.999999999),
    exponent=st.integers(-6, 7),
    sz_decimals=st.integers(0, 5),
    down=st.booleans(),
)
def test_a_limit_is_on_the_tick_and_never_worse_than_asked(
    mantissa: float, exponent: int, sz_decimals: int, down: bool
) -> None:
    price = mantissa * 10.0**exponent
    found = tick_price(price, sz_decimals, down)
    assert valid(found, sz_decimals)
    assert found <= price if down else found >= price
    step = 10.0 ** max(-(6 - sz_decimals), exponent - 4)
    assert abs(found - price) <= min(step, 1.0) * (1 + 1e-9) or abs(found - price) <= step * (1 + 1e-9)
    assert tick_price(found, sz_decimals, down) == found


@pytest.mark.parametrize(
    ("price", "sz_decimals", "below", "above"),
    [
        (123456.7, 5, 123456.0, 123457.0),
        (99999.6, 0, 99999.0, 100000.0),
        (1234.56, 1, 1234.5, 1234.6),
        (0.001234567, 0, 0.001234, 0.001235),
        (0.0123456, 0, 0.012345, 0.012346),
        (0.0000012, 0, 0.000001, 0.000002),
        (9.99999, 0, 9.9999, 10.0),
        (0.05, 5, 0.0, 0.1),
    ],
)
def test_prices_by_hand(price: float, sz_decimals: int, below: float, above: float) -> None:
    assert tick_price(price, sz_decimals, down=True) == below
    assert tick_price(price, sz_decimals, down=False) == above


def test_every_coin_of_the_real_exchange_has_a_price_on_its_tick() -> None:
    """Recorded coin tables with their mids, 3 % away on both sides: valid, not zero, inside the cap."""
    seen = 0
    for _, answer in recorded(*GO, "MetaAndAssetCtxs.yaml"):
        if not isinstance(answer, list) or "universe" not in answer[0]:
            continue
        for coin, context in zip(answer[0]["universe"], answer[1], strict=True):
            if context["midPx"] is None:
                continue
            mid, decimals = float(context["midPx"]), int(coin["szDecimals"])
            low, high = tick_price(mid * 0.97, decimals, down=False), tick_price(mid * 1.03, decimals, down=True)
            assert valid(low, decimals) and valid(high, decimals), coin
            assert 0.0 < mid * 0.97 <= low <= mid <= high <= mid * 1.03, coin
            seen += 1
    assert seen > 150


def test_client_order_ids_are_a_function_of_what_decides_the_order() -> None:
    instant = pd.Timestamp("2025-06-01T23:00Z")
    first = cloid("key", instant, "BTC", 0)
    assert first == cloid("key", instant, "BTC", 0) and len(first) == 34 and int(first, 16) >= 0
    others = {
        cloid("yek", instant, "BTC", 0),
        cloid("key", instant + pd.Timedelta(days=1), "BTC", 0),
        cloid("key", instant, "ETH", 0),
        cloid("key", instant, "BTC", 1),
    }
    assert len(others | {first}) == 5


# The journal ----------------------------------------------------------------------------------------------------------


def test_a_torn_tail_is_cut_off_and_a_damaged_middle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    journal = Journal(path)
    journal.append("refused", NOW, equity_usd=1.0)
    journal.append("refused", NOW, equity_usd=2.0)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"n": 2, "kind": "intent", "ord')
    again = Journal(path)
    assert [entry["kind"] for entry in again.entries] == ["refused", "refused"]
    again.append("refused", NOW, equity_usd=3.0)
    assert [record.equity_usd for record in Journal(path).state.equities] == [1.0, 2.0, 3.0]
    path.write_bytes(whole.replace(b'"kind"', b'"knid', 1))
    with pytest.raises(LiveError, match="line 1"):
        Journal(path)
    path.write_bytes(whole[whole.index(b"\n") + 1 :])
    with pytest.raises(LiveError, match="numbered 1"):
        Journal(path)


def test_an_order_is_unresolved_until_its_fate_is_known() -> None:
    journal, instant = Journal(), pd.Timestamp("2025-06-01T23:00Z")
    order = OrderRequest("0x" + "0" * 32, "BTC", 1.0, 100.0, False)
    journal.append("intent", NOW, instant=instant.isoformat(), expires_ms=5, orders=[asdict(order)])
    answer = {"cloid": order.cloid, "fate": "unknown"}
    journal.append("answers", NOW, answers=[answer])
    state = journal.state
    assert state.unresolved == {order.cloid: SentOrder(order, NOW, 5)}
    assert state.attempts == {instant.isoformat(): {"BTC": 1}}
    journal.append("resolved", NOW, answers=[{**answer, "fate": "rejected"}])
    assert journal.state.unresolved == {} and state.unresolved  # a state of before stays what it was


def test_an_exchange_is_six_methods() -> None:
    assert DEX.__abstractmethods__ == {"markets", "clock_ms", "send", "find_order", "account", "fills"}


# Time and data --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "instant"),
    [
        ("2025-06-01T22:59:30Z", "2025-06-01T23:00Z"),
        ("2025-06-01T23:00:00Z", "2025-06-01T23:00Z"),
        ("2025-06-01T23:00:20Z", "2025-06-01T23:00Z"),  # late, or killed: still its own decision
        ("2025-06-02T00:00:00Z", "2025-06-02T00:00Z"),
        ("2025-06-01T14:20:00Z", "2025-06-01T15:00Z"),
    ],
)
def test_the_instant_of_an_order(now: str, instant: str) -> None:
    assert trade_instant(pd.Timestamp(now), RunConfig()) == pd.Timestamp(instant)


def test_daily_waits_for_the_schedule() -> None:
    config = RunConfig.from_dict({"execution": {"weekdays": "mon", "hour_utc": 23}})
    data, order = next_run(NOW, config)  # 2025-06-01 is a Sunday
    assert order == pd.Timestamp("2025-06-02T22:59Z") and data == pd.Timestamp("2025-06-02T22:40Z")
    assert next_run(pd.Timestamp("2025-06-02T22:59Z"), config)[1] == pd.Timestamp("2025-06-09T22:59Z")


def test_the_live_row_stands_on_the_cache_and_gaps_stay_gaps() -> None:
    panel = random_panel(1, 48, 3, quotes=False)
    instant = panel.index[-1] + pd.Timedelta(hours=3)
    grown = with_live_row(panel, instant, {"mid": {"C00": 5.0, "C02": 0.0}, "oracle": {"C00": 4.9}, "bid": {"C00": 1}})
    assert grown.index[-1] == instant and len(grown.index) == 51 and "bid" not in grown.fields
    assert grown.frame("mid").iloc[-1].tolist() == pytest.approx([5.0, np.nan, np.nan], nan_ok=True)
    assert np.isnan(grown.values("mid")[48:50]).all() and grown.tradable[-1].tolist() == [True, False, False]
    # The oracle sees the last settled rate in the row before the gap only, never one of the future.
    assert np.isnan(grown.point_in_time().values("funding")[-1]).all()
    with pytest.raises(LiveError, match="no price"):
        with_live_row(panel, instant, {})
    assert with_live_row(panel, panel.index[5], {}).index[-1] == panel.index[5]


def test_old_data_stop_a_run(tmp_path: Path) -> None:
    panel = random_panel(2, 48, 3)
    dex = PaperDEX(panel, start=panel.index[-1])
    stale = panel.until(panel.index[-10])
    oracle = FixedWeights.of({"C00": 0.5})
    manager = PortfolioManager(oracle, dex, panel=stale, limits=Limits(data_age_hours=3, price_deviation_frac=None))
    with pytest.raises(LimitError, match="data_age_hours"):
        manager.manage_portfolio()
    assert dex.positions == {}


# The paper account ----------------------------------------------------------------------------------------------------


def test_what_a_paper_account_refuses() -> None:
    panel = random_panel(3, 48, 2, volume=False)
    dex = PaperDEX(panel)
    mid = dex.markets()["C00"].mid
    unit = 10.0 ** -(panel.table[0].sz_decimals or 0)
    size = math.ceil(1_000.0 / mid / unit) * unit

    def sent(units: float, price: float, reduce_only: bool = False, name: int = 0) -> str:
        order = OrderRequest(f"0x{name:032x}", "C00", units, price, reduce_only)
        return dex.send([order], 0)[0].reason

    assert "minimum value" in sent(unit, mid * 2, name=1)
    assert "immediately match" in sent(size, mid * 0.9, name=2)
    assert "Reduce only" in sent(-size, mid * 0.5, True, name=3)
    assert sent(size, mid * 1.1, name=4) == "" and "Duplicate" in sent(size, mid * 1.1, name=4)
    assert "invalid size" in sent(size + unit / 3, mid * 1.1, name=5)
    assert dex.positions == {"C00": pytest.approx(size)}
    with pytest.raises(LiveError, match="cannot go back"):
        dex.advance(panel.index[5])
        dex.advance(panel.index[4])
    with pytest.raises(DataError, match="point_in_time"):
        PaperDEX(panel.point_in_time())


def test_weights_without_a_row_yet_and_beyond_the_gross(world: World, run: Run) -> None:
    panel = random_panel(3, 48, 2)
    frame = pd.DataFrame({"C00": [0.5]}, index=pd.DatetimeIndex([panel.index[30]]))
    with pytest.raises(WeightsError, match="no row at or before"):
        PortfolioManager(FixedWeights(frame), PaperDEX(panel), panel=panel).plan()
    done = run(world.rebalance({"BTC": 0.8, "ETH": 0.8}))
    assert done.code == 1 and "max_gross" in done.err and not world.server.asked("order")
    done = run(world.rebalance({"BTC": 0.4, "ETH": -0.4}, "--set", "execution.leverage=0.5", "--json"))
    assert done.code == 0 and done.json["plan"]["weights"] == {"BTC": 0.2, "ETH": -0.2}


@pytest.mark.parametrize(
    ("cross", "highest", "isolated", "leverage"),
    [(True, None, 0.0, 2), (True, 1.0, 0.0, 1), (False, None, 0.0, 1), (False, None, 7.0, 7), (False, 5.0, 7.0, 5)],
)
def test_the_leverage_that_a_coin_is_to_have(
    cross: bool, highest: float | None, isolated: float, leverage: int
) -> None:
    """As the ledger has it: where nothing is known of an isolated coin, 1."""
    market = Market("COIN", 1.0, cross=cross, max_leverage=highest)
    assert leverage_of(market, 2, isolated, 1e6) == leverage
