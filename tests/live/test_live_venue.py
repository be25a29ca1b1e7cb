"""Whose account, which exchange, whose clock: what must be so before the first order."""

from __future__ import annotations

import json
import os
from pathlib import Path
from time import sleep

import pandas as pd
import pytest
import requests

from engine import HyperLiquidDEX, PaperDEX, PortfolioManager
from engine.errors import LiveError, UnreachableError
from engine.live.journal import Journal
from engine.live.orders import OrderRequest
from engine.live.state_folder import account_folder, single_instance
from engine.live.targets import flat, from_spec
from engine.live.venue import Venue
from engine.oracles.fixed_weights import FixedWeights
from helpers.hyperliquid_info import TOO_MANY, Fault, Reply
from helpers.hyperliquid_world import AGENT, MASTER, STRANGER
from helpers.live_world import Run, World, momentum_spec, near

pytestmark = pytest.mark.slow

NOW = pd.Timestamp("2025-06-01T22:59:30Z")


def dex_of(world: World, **options: object) -> HyperLiquidDEX:
    return HyperLiquidDEX(base_url=world.server.url, credentials=world.credentials, **options)  # type: ignore[arg-type]


# Whose account --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["plan", "rebalance", "flatten"])
def test_a_key_that_is_not_the_accounts_is_refused(world: World, run: Run, command: str) -> None:
    """Its orders would fill in its own account, and the other one, which is read, never show them: every run anew."""
    world.server.fund(STRANGER.address, 10_000)
    world.credentials.write_text(json.dumps({"secret_key": "33" * 32, "account_address": MASTER.address}))
    words = world.words("flatten", "book", "--execute") if command == "flatten" else world.rebalance({"BTC": 0.5})
    if command == "plan":
        words.remove("--execute")
    done = run(words)
    assert done.code == 1 and "account_address" in done.err and STRANGER.address[:10].lower() in done.err
    assert not world.server.asked("order") and world.server.positions(STRANGER.address) == {}


def test_another_masters_agent_is_refused_and_the_own_one_accepted(world: World, run: Run) -> None:
    world.server.fund(STRANGER.address, 10_000)
    world.server.approve_agent(STRANGER.address, AGENT.address)
    world.credentials.write_text(json.dumps({"secret_key": "22" * 32, "account_address": MASTER.address}))
    done = run(world.rebalance({"BTC": 0.5}))
    assert done.code == 1 and "no agent of account_address" in done.err and not world.server.asked("order")
    world.server.approve_agent(MASTER.address, AGENT.address)
    assert run(world.rebalance({"BTC": 0.5})).code == 0
    near(world, {"BTC": 0.5})


# Which exchange -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "url"),
    [
        ("testnet", "https://api.hyperliquid.xyz"),
        ("testnet", "https://API.hyperliquid.xyz:443/"),
        ("mainnet", "https://api.hyperliquid-testnet.xyz"),
    ],
)
def test_the_address_of_the_other_network_is_refused(network: str, url: str) -> None:
    """The SDK signs for the main network wherever the address is its own: no confirmation would have been asked."""
    with pytest.raises(LiveError, match="--network"):
        HyperLiquidDEX(network, base_url=url)
    with pytest.raises(LiveError, match="--network"):  # and no data are brought from there
        Venue(network=network, base_url=url).sync(flat("book"), NOW)


def test_the_own_address_of_a_network_is_accepted() -> None:
    """It is as good as none: the SDK needs the exact spelling to sign, and a test network has the main one's feed."""
    for network, url in (
        ("mainnet", "https://API.hyperliquid.xyz/"),
        ("testnet", "https://api.hyperliquid-testnet.xyz"),
    ):
        assert HyperLiquidDEX(network, base_url=url).base_url is None
    assert HyperLiquidDEX("testnet", base_url="https://api.hyperliquid-testnet.xyz").feed().network == "mainnet"


def test_the_cache_never_gets_the_prices_of_the_test_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its address, spelt out, is as good as none: the data are the main network's."""
    spec = momentum_spec(tmp_path, tmp_path / "cache")
    asked: list[object] = []

    def sync(*args: object, base_url: str | None, **options: object) -> object:
        asked.append(base_url)
        raise UnreachableError("no network in a test")

    monkeypatch.setattr("engine.live.venue.sync_api", sync)
    venue = Venue(network="testnet", base_url="https://api.hyperliquid-testnet.xyz")
    with pytest.raises(UnreachableError):
        venue.sync(from_spec(spec, None), NOW)
    assert asked == [None]


def test_a_name_that_is_no_coin_is_refused_with_real_money(world: World, run: Run) -> None:
    """A leg that is left out for its spelling leaves the other without its hedge, at target and with exit code 0."""
    row = {"btc": 0.5, "ETH": -0.5}
    done = run(world.rebalance(row, "--network", "mainnet", "--yes-mainnet"))
    assert done.code == 1 and "Did you mean 'BTC'" in done.err and not world.server.asked("order")
    delisted = {"MATIC": 0.1, "ETH": -0.5}
    assert run(world.rebalance(delisted, "--network", "mainnet", "--yes-mainnet")).code == 4
    near(world, {"ETH": -0.5})
    # The test network has coins of its own: there a rehearsal goes without, and says so.
    done = run(world.rebalance(row, "--accept-positions", "--json"))
    assert done.code == 4 and "btc" in {skip["coin"] for skip in done.json["plan"]["skips"]}


# Whose clock ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [-40.0, -3.0, 0.0, 3.0, 40.0])
def test_requests_expire_by_the_exchanges_clock(world: World, run: Run, error: float) -> None:
    """A machine 40 s behind sent only orders that had expired; one that is ahead called them void too early."""
    wall = world.server.signing_clock
    world.server.signing_clock = lambda: wall() - round(1000 * error)
    world.server.date_offset_seconds = -error
    dex = dex_of(world)
    assert dex.net_liq == 10_000
    assert dex.clock_ms() - world.server.signing_clock() == pytest.approx(0, abs=1_100)
    assert dex.clock_error_seconds() == pytest.approx(error, abs=1.1)
    assert abs(dex.clock_error_seconds()) <= abs(error)
    done = run([*world.rebalance({"BTC": 0.5}), "--expires-seconds", "5"])
    assert done.code == 0, done.err
    said = {-40.0: "40 s behind the exchange", 40.0: "39 s ahead of the exchange"}.get(error)
    assert ("time server" in done.out) is (said is not None)
    near(world, {"BTC": 0.5})


def test_a_clock_that_is_minutes_off_stops_a_run_but_no_flattening(world: World, run: Run) -> None:
    """It would trade at another moment than the one decided for."""
    assert run(world.rebalance({"BTC": 0.5})).code == 0
    wall, sent = world.server.signing_clock, len(world.server.asked("order"))
    world.server.signing_clock = lambda: wall() - 300_000
    world.server.date_offset_seconds = -300.0
    dry = world.rebalance({"BTC": 0.2})
    dry.remove("--execute")
    for words in (world.rebalance({"BTC": 0.2}), dry):
        done = run(words)
        assert done.code == 3 and "clock_error_seconds" in done.err and "ahead of" in done.err
    assert len(world.server.asked("order")) == sent
    assert run(world.rebalance({"BTC": 0.2}, "--limit", "clock_error_seconds=none")).code == 0
    assert run(world.words("flatten", "book", "--execute")).code == 0
    assert world.positions == {}


def test_a_clock_that_is_set_right_meanwhile_is_believed(world: World) -> None:
    dex = dex_of(world)
    world.server.date_offset_seconds = 30.0
    assert dex.net_liq and dex.clock_error_seconds() == pytest.approx(-30, abs=1.1)
    world.server.date_offset_seconds = 0.0
    assert dex.net_liq and dex.clock_error_seconds() == 0.0


def test_a_busy_machine_has_no_clock_that_is_wrong(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a response and what is done with it, this process may have to wait."""
    dispatch = requests.sessions.dispatch_hook

    def late(*arguments: object, **options: object) -> object:
        sleep(0.35)
        return dispatch(*arguments, **options)

    monkeypatch.setattr("requests.sessions.dispatch_hook", late)
    dex = dex_of(world)
    for _ in range(3):  # dates are whole seconds: one of these comes late in its own
        assert dex.net_liq == 10_000 and dex.clock_error_seconds() == 0.0


# What the exchange asks for -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("header", "waited"), [("7", 7.0), ("900", 60.0), ("soon", 5.0), (None, 5.0)])
def test_a_crowded_exchange_says_how_long_to_wait(world: World, header: str | None, waited: float) -> None:
    reply = Reply(TOO_MANY.body, 429, headers=() if header is None else (("Retry-After", header),))
    world.server.faults.append(Fault(lambda payload: payload.get("type") == "clearinghouseState", reply))
    slept: list[float] = []
    assert dex_of(world, sleep=slept.append).net_liq == 10_000
    assert slept == [waited]


def test_fills_of_many_pages_are_all_read_once(world: World) -> None:
    """More than an answer holds, the page's end in the middle of a moment."""
    dex = dex_of(world)
    order = OrderRequest("0x" + "7" * 32, "DOGE", 60.0, 0.21, False)
    dex.markets()
    world.server.now = start = world.server.now
    dex.send([order], dex.clock_ms() + 5_000)
    [fill] = world.server.ledger.fills
    from dataclasses import replace

    many = [replace(fill, tid=number, time=start + number // 7 * 10) for number in range(4_500)]
    world.server.ledger.fills[:] = many
    found = dex.fills(pd.Timestamp(start, unit="ms", tz="UTC"))
    assert len(found) == 4_500 and sum(at.units for at in found) == 4_500 * 60.0
    assert [at.time for at in found] == sorted(at.time for at in found)


# One at a time --------------------------------------------------------------------------------------------------------


def test_two_managers_from_python_do_not_trade_at_once(world: World) -> None:
    """The lock is the command's own."""
    dex = dex_of(world)
    lock = account_folder(dex.label) / "lock"
    with single_instance(lock), pytest.raises(LiveError, match="Another process"):
        dex.set_portfolio_weights({"BTC": 0.5})
    assert not world.server.asked("order")
    assert dex.set_portfolio_weights({"BTC": 0.5}).complete


def test_what_another_process_wrote_before_the_lock_is_known(world: World) -> None:
    """A manager that is kept for weeks, and a command in between: attempts and orders are counted by all entries."""
    path = world.folder / "live" / "book.jsonl"
    managers = [
        PortfolioManager(FixedWeights.of({"BTC": weight}), dex_of(world), journal=Journal(path), key="one")
        for weight in (0.2, 0.4)
    ]
    for manager in (managers[0], managers[1], managers[0]):
        assert manager.manage_portfolio().complete
    world.check()
    assert [entry["n"] for entry in Journal(path).entries] == list(range(len(Journal(path).entries)))


def test_a_journal_that_grows_under_a_run_stops_it(tmp_path: Path) -> None:
    one, other = Journal(tmp_path / "a.jsonl"), Journal(tmp_path / "a.jsonl")
    one.append("refused", NOW, equity_usd=1.0)
    with pytest.raises(LiveError, match="Another process"):
        other.append("refused", NOW, equity_usd=2.0)
    other.reload()
    other.append("refused", NOW, equity_usd=2.0)
    assert equities(tmp_path / "a.jsonl") == [1.0, 2.0]


def test_a_journal_that_is_gone_or_shorter_stops_the_run_that_knew_it(tmp_path: Path) -> None:
    """Its place was filled with zeros up to the length it had had, and orders went out on that."""
    path = tmp_path / "a.jsonl"
    journal = Journal(path)
    journal.append("refused", NOW, equity_usd=1.0)
    path.rename(tmp_path / "b.jsonl")
    with pytest.raises(LiveError, match="Another process"):
        journal.append("refused", NOW, equity_usd=2.0)
    journal.reload()
    assert journal.entries == []
    journal.append("refused", NOW, equity_usd=3.0)
    assert equities(path) == [3.0]


def test_a_loop_of_months_keeps_no_file_open(world: World) -> None:
    """--daily makes a journal a run; a file each that stayed open would end it after some hundred days."""

    def held() -> int:
        return len([link for link in Path("/proc/self/fd").iterdir() if "jsonl" in str(os.path.realpath(link))])

    for weight in (0.1, 0.2, 0.3):
        path = world.journals / "book.jsonl"
        manager = PortfolioManager(FixedWeights.of({"BTC": weight}), dex_of(world), journal=Journal(path))
        assert manager.manage_portfolio().complete
        assert held() == 0


def equities(path: Path) -> list[float]:
    return [record.equity_usd for record in Journal(path).state.equities]


# Paper ----------------------------------------------------------------------------------------------------------------


def paper_words(world: World, spec: Path) -> list[str]:
    now = pd.Timestamp(world.server.now, unit="ms", tz="UTC").isoformat()
    return world.words("run", spec, "--execute", "--json", "--network", "paper", "--now", now)


def test_a_paper_account_is_locked_before_it_is_read(world: World, run: Run) -> None:
    """A run that was refused had written back what it had read, over what the other one traded."""
    spec = momentum_spec(world.folder, world.folder / "cache")
    world.stop_clock()
    assert run(paper_words(world, spec)).code == 0
    state = world.journals / "momentum-paper.json"
    before = state.read_bytes()
    world.server.advance(24)
    with single_instance(world.journals / ".momentum-paper.lock"):
        done = run(paper_words(world, spec))
    assert done.code == 1 and "Another process" in done.err
    assert state.read_bytes() == before


def test_paper_accounts_of_two_strategies_run_at_once(world: World, run: Run) -> None:
    spec = momentum_spec(world.folder, world.folder / "cache", name="other")
    with single_instance(world.journals / ".momentum-paper.lock"), single_instance(world.journals / ".paper.lock"):
        assert run(paper_words(world, spec)).code == 0


def test_a_paper_account_does_not_go_through_hours_that_nobody_recorded(world: World, run: Run) -> None:
    """A day and more without a sync: every position had been settled as a delisting, for want of a price."""
    spec = momentum_spec(world.folder, world.folder / "cache")
    world.half_past_two()  # later in the day another coin is held, which the world delists
    assert run(paper_words(world, spec)).code == 0
    state = world.journals / "momentum-paper.json"
    before = state.read_bytes()
    world.server.advance(30)
    done = run([*paper_words(world, spec), "--no-sync"])
    assert done.code == 1 and "--no-sync" in done.err and state.read_bytes() == before
    done = run(paper_words(world, spec))
    assert done.code == 0, done.err
    trades = json.loads(state.read_text())["trades"]
    # MATIC is gone from the hour on in which the exchange was made: after 23:00 the book may hold it.
    assert {trade["coin"] for trade in trades if trade["reason"] == "delisting"} <= {"MATIC"}


def test_a_paper_account_from_python_needs_no_lock() -> None:
    from helpers.panels import random_panel

    panel = random_panel(3, 48, 2)
    dex = PaperDEX(panel)
    assert PortfolioManager(FixedWeights.of({}), dex, panel=panel).manage_portfolio().complete
    assert not Path("reports").exists()
