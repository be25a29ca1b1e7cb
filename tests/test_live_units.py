"""The parts of the live path by themselves: prices on the tick, the journal, specs, limits, the clock, alerts."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import PaperDEX, PortfolioManager, RunConfig
from engine.errors import DataError, LimitError, LiveError, SpecError, WeightsError
from engine.live.dex import OrderRequest
from engine.live.execute import cloid
from engine.live.feed import trade_instant, with_live_row
from engine.live.given import GivenWeights
from engine.live.hyperliquid import HyperLiquidDEX, tick_price
from engine.live.journal import Journal
from engine.live.limits import Limits
from engine.live.session import next_run
from engine.live.spec import canonical, read_spec, write_spec
from hyperliquid_world import MASTER, trading
from live_world import SECRET, Outcome, World, call, momentum_spec
from panels import random_panel

Run = Callable[..., Outcome]
NOW = pd.Timestamp("2025-06-01T22:59:30Z")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with trading() as server:
        for coin in ("BTC", "ETH", "DOGE", "RLB"):
            price = server.ledger.coins[coin].price
            server.set_book(coin, bid=price * 0.9998, ask=price * 1.0002, refill=True)
        yield World(server, tmp_path)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return lambda words: call(monkeypatch, capsys, words)


# Prices ---------------------------------------------------------------------------------------------------------------


def valid(price: float, sz_decimals: int) -> bool:
    """The documented rule, on the digits that are sent."""
    exact = Decimal(repr(price)).normalize()
    if exact == exact.to_integral_value():
        return True
    decimals = -int(exact.as_tuple().exponent)
    return len(exact.as_tuple().digits) <= 5 and decimals <= 6 - sz_decimals


@settings(max_examples=2000, deadline=None)
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
    import yaml

    from conftest import SHARED

    file = SHARED / "api" / "go-hyperliquid" / "testdata" / "MetaAndAssetCtxs.yaml"
    if not file.is_file():
        pytest.skip(f"the shared data are not at {SHARED}")
    seen = 0
    for exchange in yaml.safe_load(file.read_text())["interactions"]:
        answer = json.loads(exchange["response"]["body"])
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
    journal.append("plan", NOW, equity_usd=1.0)
    journal.append("done", NOW, equity_usd=2.0)
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"n": 2, "kind": "intent", "ord')
    again = Journal(path)
    assert [entry["kind"] for entry in again.entries] == ["plan", "done"]
    again.append("plan", NOW, equity_usd=3.0)
    assert [value for _, value in Journal(path).equities()] == [1.0, 2.0, 3.0]
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
    assert journal.unresolved() == [(order, 5)] and journal.attempts(instant) == {"BTC": 1}
    journal.append("resolved", NOW, answers=[{**answer, "fate": "rejected"}])
    assert journal.unresolved() == []


# Specs ----------------------------------------------------------------------------------------------------------------


def test_a_spec_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = momentum_spec(tmp_path, tmp_path / "cache", limits=Limits(coin_weight=0.2), execution={"tranches": 2})
    spec = read_spec(path)
    assert spec.limits.coin_weight == 0.2 and spec.config.execution.tranches == 2
    again = tmp_path / "again"
    write_spec(spec, again / path.name)
    assert (again / path.name).read_bytes() == path.read_bytes()
    assert read_spec(again / path.name).digest == spec.digest
    assert replace(spec, trials=2).digest != spec.digest


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: {**content, "trials": 2}, "edited"),
        (lambda content: {**content, "parameters": {**content["parameters"], "n": 9}}, "edited"),
        (lambda content: {**content, "digest": None}, "edited"),
        (lambda content: {**content, "schema": 9}, "schema"),
        (lambda content: [content], "no strategy spec"),
    ],
)
def test_a_spec_that_is_not_what_was_promoted_is_refused(
    tmp_path: Path, change: Callable[[object], object], said: str
) -> None:
    path = momentum_spec(tmp_path, tmp_path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(SpecError, match=said):
        read_spec(path)


def test_a_spec_whose_oracle_was_edited_is_refused(tmp_path: Path) -> None:
    """Its file, or one that it imports."""
    from engine.live.spec import load_live_oracle
    from engine.oracle_build import load_oracle, oracle_sources
    from engine.runs import files_digest

    (tmp_path / "spec_helper.py").write_text("WEIGHT = 0.5\n")
    code = tmp_path / "own_oracle.py"
    code.write_text(
        "import pandas as pd\nfrom engine import Oracle\nfrom spec_helper import WEIGHT\n\n\n"
        "class Half(Oracle):\n    def weight_matrix(self, panel, decisions):\n"
        "        return pd.DataFrame(WEIGHT, index=decisions, columns=['BTC'])\n"
    )
    path = f"{code}:Half"
    digest = files_digest(oracle_sources(load_oracle(path, {})))
    spec = read_spec(momentum_spec(tmp_path, tmp_path))
    spec = replace(spec, oracle=path, parameters={}, digests={**spec.digests, "oracle": digest})
    oracle, notes = load_live_oracle(spec)
    assert type(oracle).__name__ == "Half" and notes == []
    assert "engine" in load_live_oracle(replace(spec, digests={**spec.digests, "engine": "0" * 64}))[1][0]
    for file in (code, tmp_path / "spec_helper.py"):
        before = file.read_text()
        file.write_text(before + "# a word\n")
        with pytest.raises(SpecError, match=r"own_oracle\.py:Half has changed since 'momentum'"):
            load_live_oracle(spec)
        file.write_text(before)


def test_a_spec_has_plain_finite_values_its_own_name_and_known_limits(tmp_path: Path) -> None:
    spec = read_spec(momentum_spec(tmp_path, tmp_path))
    with pytest.raises(SpecError, match="finite"):
        canonical({"a": math.nan})
    with pytest.raises(SpecError, match=r"other\.json"):
        write_spec(spec, tmp_path / "other.json")
    (tmp_path / "copy.json").write_bytes((tmp_path / "momentum.json").read_bytes())
    with pytest.raises(SpecError, match="Rename"):
        read_spec(tmp_path / "copy.json")
    with pytest.raises(SpecError, match="Did you mean 'gross'"):
        Limits.from_dict({"gros": 1})
    with pytest.raises(SpecError, match=r"limits\.gross"):
        Limits(gross=-1.0)


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
    assert np.isnan(grown.known().values("funding")[-1]).all()
    with pytest.raises(LiveError, match="no price"):
        with_live_row(panel, instant, {})
    assert with_live_row(panel, panel.index[5], {}).index[-1] == panel.index[5]


def test_old_data_stop_a_run(tmp_path: Path) -> None:
    panel = random_panel(2, 48, 3)
    dex = PaperDEX(panel, start=panel.index[-1])
    stale = panel.until(panel.index[-10])
    oracle = GivenWeights.of({"C00": 0.5})
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
    with pytest.raises(DataError, match="known"):
        PaperDEX(panel.known())


def test_weights_without_a_row_yet_and_beyond_the_gross(world: World, run: Run) -> None:
    panel = random_panel(3, 48, 2)
    frame = pd.DataFrame({"C00": [0.5]}, index=pd.DatetimeIndex([panel.index[30]]))
    with pytest.raises(WeightsError, match="no row at or before"):
        PortfolioManager(GivenWeights(frame), PaperDEX(panel), panel=panel).plan()
    done = run(world.rebalance({"BTC": 0.8, "ETH": 0.8}))
    assert done.code == 1 and "max_gross" in done.err and not world.server.asked("order")
    done = run(world.rebalance({"BTC": 0.4, "ETH": -0.4}, "--set", "execution.leverage=0.5", "--json"))
    assert done.code == 0 and done.json["plan"]["weights"] == {"BTC": 0.2, "ETH": -0.2}


# Alerts, the daily loop, status ---------------------------------------------------------------------------------------


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, object]]]]:
    got: list[dict[str, object]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/token-of-the-user", got
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_webhook_hears_of_the_run_and_never_stops_it(
    world: World, run: Run, hook: tuple[str, list[dict[str, object]]]
) -> None:
    url, got = hook
    assert run(world.rebalance({"BTC": 0.5}, "--webhook", url)).code == 0
    assert got[0]["complete"] is True and got[0]["code"] == 0 and got[0]["orders"] == 1
    done = run(world.rebalance({"BTC": 0.6}, "--webhook", url, "--limit", "gross=0.1"))
    assert done.code == 3 and got[1]["code"] == 3 and "gross" in str(got[1]["error"])
    assert SECRET not in json.dumps(got)
    done = run(world.rebalance({"BTC": 0.6}, "--webhook", "http://127.0.0.1:9/token-of-the-user"))
    assert done.code == 0 and "webhook" in done.err and "token" not in done.out + done.err
    assert run(world.rebalance({"BTC": 0.6}, "--webhook", "not an address")).code == 1


def at_half_past_two(world: World) -> pd.Timestamp:
    """Stop the exchange's clock at a time of day that is no scheduled one, whenever the test runs."""
    time = pd.Timestamp.now("UTC").normalize() + pd.Timedelta(hours=14, minutes=30)
    world.server.now = int(time.timestamp() * 1000)
    return time


def test_daily_brings_the_data_then_trades_and_goes_on(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = momentum_spec(world.folder, world.folder / "cache")
    clock = [at_half_past_two(world)]
    waited: list[str] = []

    def wait(until: pd.Timestamp) -> None:
        waited.append(f"{until:%H:%M}")
        if len(waited) == 5:
            raise KeyboardInterrupt
        world.server.advance((until - clock[0]) / pd.Timedelta(hours=1))
        clock[0] = until

    monkeypatch.setattr("engine.cli_live._sleep_until", wait)
    monkeypatch.setattr("engine.cli_live._clock", lambda: clock[0])
    done = run(world.words("run", spec, "--execute", "--daily"))
    assert done.code == 130 and waited == ["22:40", "22:59", "22:40", "22:59", "22:40"]
    instants = [entry["instant"] for entry in world.entries() if entry["kind"] == "done"]
    assert len(instants) == 2 and all(instant.endswith("T23:00:00+00:00") for instant in instants)
    world.check()


def test_daily_tries_an_incomplete_book_again_within_its_hour(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = momentum_spec(world.folder, world.folder / "cache")
    clock = [at_half_past_two(world)]
    world.server.reject("PerpMargin", times=1)
    waited: list[str] = []

    def wait(until: pd.Timestamp) -> None:
        waited.append(f"{until:%H:%M}")
        if len(waited) == 4:
            raise KeyboardInterrupt
        world.server.advance((until - clock[0]) / pd.Timedelta(hours=1))
        clock[0] = until

    monkeypatch.setattr("engine.cli_live._sleep_until", wait)
    monkeypatch.setattr("engine.cli_live._clock", lambda: clock[0])
    done = run(world.words("run", spec, "--execute", "--daily"))
    assert done.code == 130 and waited == ["22:40", "22:59", "23:01", "22:40"] and "Insufficient margin" in done.err
    ends = [entry for entry in world.entries() if entry["kind"] == "done"]
    assert [end["complete"] for end in ends] == [False, True] and ends[0]["instant"] == ends[1]["instant"]
    assert len(world.positions) == 2
    world.check()


def test_status_compares_fills_with_the_model(world: World, run: Run) -> None:
    spec = momentum_spec(world.folder, world.folder / "cache", costs={"taker_bps": 4.5})
    at_half_past_two(world)
    for _ in range(3):
        now = pd.Timestamp(world.server.now, unit="ms", tz="UTC").isoformat()
        done = run(world.words("run", spec, "--execute", "--now", now))
        assert done.code == 0, done.err
        world.server.advance(24)
    words = ["live", "status", str(spec), "--journal", str(world.journals)]
    found = run([*words, "--json"])
    assert found.code == 0, found.err
    state = found.json
    assert len(state["runs"]) == 3 and {row["state"] for row in state["runs"]} == {"at target"}
    # The books are 4 bps wide around mid, and the exchange charges 4.5 bps of the fill.
    assert state["costs"]["slippage_bps"] == pytest.approx(2.0, abs=0.1)
    assert state["costs"]["model_slippage_bps"] == pytest.approx(2.0, abs=0.1)
    assert state["costs"]["fee_bps"] == pytest.approx(4.5, abs=0.05)
    assert state["costs"]["model_fee_bps"] == pytest.approx(4.5, abs=0.01)
    rows = state["drift"]["rows"]
    assert len(rows) == 2 and rows[0]["drift_frac"] == pytest.approx(0.0, abs=1e-12)
    assert state["missed"] == [] and state["unresolved"] == []
    page = run([*words, "--out", str(world.folder / "page.html")])
    assert page.code == 0
    html = (world.folder / "page.html").read_text()
    assert "<script" not in html and "http" not in html and "polyline" in html and SECRET not in html
    missing = run(["live", "status", "nobody", "--journal", str(world.journals)])
    assert missing.code == 1 and "no journal" in missing.err


def test_the_live_path_loads_no_plotting_and_no_vectorbt(world: World) -> None:
    """In a process of its own: a whole rebalance and a status page."""
    heavy = ("vectorbt", "quantstats", "plotly", "matplotlib", "boto3")
    code = (
        "import sys; from engine import cli\n"
        f"sys.argv = ['hlbt', *{world.rebalance({'BTC': 0.5})!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit as done:\n    assert not done.code, done.code\n"
        f"sys.argv = ['hlbt', 'live', 'status', 'book', '--journal', {str(world.journals)!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit as done:\n    assert not done.code, done.code\n"
        "from live_world import momentum_spec\n"
        f"spec = momentum_spec(__import__('pathlib').Path({str(world.folder)!r}), {str(world.folder / 'cache')!r})\n"
        f"sys.argv = ['hlbt', *{world.words('run', 'SPEC', '--execute')!r}]\n"
        "sys.argv[sys.argv.index('SPEC')] = str(spec)\n"
        "try:\n    cli.main()\nexcept SystemExit as done:\n    assert not done.code, done.code\n"
        f"loaded = set({heavy!r}) & set(sys.modules); assert not loaded, loaded"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=world.folder,
        env={"PYTHONPATH": f"{root}:{root / 'tests'}", "NUMBA_CACHE_DIR": os.environ["NUMBA_CACHE_DIR"]},
    )
    assert done.returncode == 0, done.stderr
    assert world.positions and (world.journals / "book-testnet-0x19e7e376.html").is_file()
    assert MASTER.address.lower().startswith("0x19e7e376")


def test_a_paper_account_on_the_cache_alone_is_the_backtest(run: Run, sample_cache: Path, tmp_path: Path) -> None:
    """A command a day, without an exchange: what the paper account has in the end is what the backtest says."""
    from engine import backtest, load_panel, weight_matrix
    from engine.live.session import from_spec

    spec = momentum_spec(tmp_path, sample_cache)
    start = load_panel(sample_cache).index[0] + pd.Timedelta(days=30)
    decisions = pd.date_range(start.normalize() + pd.Timedelta(hours=23), periods=6, freq="D")
    for decision in decisions:
        now = (decision - pd.Timedelta(seconds=30)).isoformat()
        words = ["live", "run", str(spec), "--network", "paper", "--execute", "--json", "--now", now]
        done = run([*words, "--journal", str(tmp_path / "live")])
        assert done.code == 0, done.err
        assert "SYNTHETIC" in " ".join(done.json["session_notes"])
    strategy = from_spec(spec, None)
    panel = load_panel(sample_cache, end=decisions[-1])
    result = backtest(panel, weight_matrix(strategy.oracle, panel, decisions.as_unit("ms")), strategy.config)
    account = PaperDEX(panel, strategy.config, tmp_path / "live" / "momentum-paper.json")
    assert account.finish().iloc[-1] == pytest.approx(result.equity.iloc[-1], rel=1e-12)
    orders = [trade for trade in account.trades if trade.reason != "delisting"]
    assert {(trade.time, trade.coin) for trade in orders} == set(
        zip(result.trades["time"], result.trades["coin"], strict=True)
    )


def test_networks_are_named(world: World, run: Run) -> None:
    with pytest.raises(LiveError, match="testnet"):
        HyperLiquidDEX("devnet")
    done = run(world.rebalance({"BTC": 0.5}, "--network", "devnet"))
    assert done.code == 1 and "devnet" in done.err


def test_a_panel_is_needed_by_an_oracle_that_reads_one() -> None:
    from engine.errors import OracleError
    from research.oracles.momentum import Momentum

    panel = random_panel(3, 48, 2)
    with pytest.raises(OracleError, match="panel"):
        PortfolioManager(Momentum(lookback_hours=24, n=1), PaperDEX(panel)).manage_portfolio()
