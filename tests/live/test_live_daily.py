"""What stands around a run: alerts, the daily loop, the status page, what is loaded."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pandas as pd
import pytest

from engine import HyperLiquidDEX, PaperDEX, PortfolioManager
from engine.errors import LiveError
from helpers.hyperliquid_world import MASTER
from helpers.live_world import SECRET, Run, World, daily, momentum_spec
from helpers.panels import random_panel
from helpers.project import ROOT

pytestmark = pytest.mark.slow


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


def test_a_webhook_hears_of_weights_that_are_too_old(
    world: World, run: Run, hook: tuple[str, list[dict[str, object]]]
) -> None:
    """The file that nobody writes any more: what the limit is for."""
    url, got = hook
    words = [*world.rebalance({"BTC": 0.5}, "--webhook", url), "--limit", "weights_age_hours=30"]
    assert run(words).code == 3
    assert [message["code"] for message in got] == [3] and "weights_age_hours" in str(got[0]["error"])


def test_daily_brings_the_data_then_trades_and_goes_on(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = momentum_spec(world.folder, world.folder / "cache")
    waited = daily(world, monkeypatch, 5)
    done = run(world.words("run", spec, "--execute", "--daily"))
    assert done.code == 130 and waited == ["22:40", "22:59", "22:40", "22:59", "22:40"]
    instants = [entry["instant"] for entry in world.entries() if entry["kind"] == "done"]
    assert len(instants) == 2 and all(instant.endswith("T23:00:00+00:00") for instant in instants)
    world.check()


def test_daily_tries_an_incomplete_book_again_within_its_hour(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = momentum_spec(world.folder, world.folder / "cache")
    world.server.reject("PerpMargin", times=1)
    waited = daily(world, monkeypatch, 4)
    done = run(world.words("run", spec, "--execute", "--daily"))
    assert done.code == 130 and waited == ["22:40", "22:59", "23:01", "22:40"] and "Insufficient margin" in done.err
    ends = [entry for entry in world.entries() if entry["kind"] == "done"]
    assert [end["complete"] for end in ends] == [False, True] and ends[0]["instant"] == ends[1]["instant"]
    assert len(world.positions) == 2
    world.check()


def test_daily_that_wakes_hours_late_waits_for_the_next_instant(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch, hook: tuple[str, list[dict[str, object]]]
) -> None:
    """A laptop that slept through the night: a book of 9 in the morning is none that was validated."""
    spec = momentum_spec(world.folder, world.folder / "cache")
    waited = daily(world, monkeypatch, 5, oversleep_hours={2: 9.5})
    done = run(world.words("run", spec, "--execute", "--daily", "--webhook", hook[0], "--heartbeat", hook[0]))
    beats = [message for message in hook[1] if "heartbeat" in message]
    assert [beat["code"] for beat in beats] == [1, 0]  # after the instant that was missed, too
    assert "is alive after" in str(beats[1]["text"]) and "token" not in done.out + done.err
    assert done.code == 130 and waited == ["22:40", "22:59", "22:40", "22:59", "22:40"]
    assert "missed" in done.err and "missed" in str(hook[1][0]["error"]) and hook[1][0]["code"] == 1
    instants = [entry["instant"] for entry in world.entries() if entry["kind"] == "done"]
    assert len(instants) == 1 and instants[0].endswith("T23:00:00+00:00")


def test_status_compares_fills_with_the_model(world: World, run: Run) -> None:
    spec = momentum_spec(world.folder, world.folder / "cache", costs={"taker_bps": 4.5})
    world.half_past_two()
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
    assert (
        re.findall(r"https?://(?!www\.w3\.org/)\S+|<script \S+", html) == []
        and html.count('aria-label="Equity from ') == 2
        and SECRET not in html
    )
    assert "<td>0.000%</td>" in html, re.findall("<td>[^<]*%</td>", html)  # what rounds to zero has no sign
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
        "from helpers.live_world import momentum_spec\n"
        f"spec = momentum_spec(__import__('pathlib').Path({str(world.folder)!r}), {str(world.folder / 'cache')!r})\n"
        f"sys.argv = ['hlbt', *{world.words('run', 'SPEC', '--execute')!r}]\n"
        "sys.argv[sys.argv.index('SPEC')] = str(spec)\n"
        "try:\n    cli.main()\nexcept SystemExit as done:\n    assert not done.code, done.code\n"
        f"loaded = set({heavy!r}) & set(sys.modules); assert not loaded, loaded"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=world.folder,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "NUMBA_CACHE_DIR": os.environ["NUMBA_CACHE_DIR"]},
    )
    assert done.returncode == 0, done.stderr
    assert world.positions and (world.journals / "book-testnet-0x19e7e376.html").is_file()
    assert MASTER.address.lower().startswith("0x19e7e376")


def test_a_paper_account_on_the_cache_alone_is_the_backtest(run: Run, sample_cache: Path, tmp_path: Path) -> None:
    """A command a day, without an exchange: what the paper account has in the end is what the backtest says."""
    from engine import backtest, load_panel, weight_matrix
    from engine.live.targets import from_spec

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
    result = backtest(panel, weight_matrix(strategy.targets.oracle, panel, decisions.as_unit("ms")), strategy.config)
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
