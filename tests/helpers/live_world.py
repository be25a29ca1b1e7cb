"""What the tests of the live commands share: a loopback exchange with an account, files for it, and the commands."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from engine import RunConfig
from engine.live.journal import Journal
from engine.live.orders import Policy
from engine.live.risk_limits import Limits
from engine.live.spec import StrategySpec, write_spec
from engine.oracles.loading import bound_parameters, load_oracle, oracle_code
from engine.provenance import code_digest, files_digest
from helpers.commands import Outcome, outcome
from helpers.hyperliquid_exchange import HyperLiquidExchange
from helpers.hyperliquid_records import Coin
from helpers.hyperliquid_world import MASTER, trading

#: The fixture `run` of conftest.py.
Run = Callable[[list[str]], Outcome]
SECRET = "11" * 32
MOMENTUM = "research.oracles.momentum:Momentum"
TSLA = Coin("xyz:TSLA", 412.3, 3, 10, fee_scale=1.0, growth=True)
NVDA = Coin("xyz:NVDA", 187.7, 2, 20, "strictIsolated")
GOLD = Coin("flx:GOLD", 4_000.0, 3, 20)


class World:
    """An exchange, the account of MASTER, and a folder with credentials, weights and journals."""

    def __init__(self, server: HyperLiquidExchange, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.credentials = folder / "hyperliquid_config.json"
        self.credentials.write_text(
            json.dumps({"secret_key": "0x" + SECRET, "account_address": MASTER.address, "multi_sig": None})
        )
        self.credentials.chmod(0o600)
        self.journals = folder / "live"
        #: Whether requests and orders are soon given up, as where one is lost; else a busy machine changes nothing.
        self.hurried = False

    def open_dexes(self, mode: str = "unifiedAccount", usd: float = 0.0) -> None:
        """A dex of USDC at place 2, with an isolated coin before a cross one, and one of USDH; `usd` lie on the former.

        The dexes are xyz and flx.
        """
        self.server.add_dex("old")
        self.server.add_dex("xyz", "USDC", [copy.deepcopy(NVDA), copy.deepcopy(TSLA)])
        self.server.add_dex("flx", "USDH", [copy.deepcopy(GOLD)])
        for coin in (NVDA, TSLA):
            bid, ask = coin.price * 0.9998, coin.price * 1.0002
            self.server.set_book(coin.name, bid=bid, ask=ask, refill=True)
        self.server.fund(MASTER.address, 0, mode)
        if usd:
            self.server.fund(MASTER.address, usd, dex="xyz")

    def weights(self, row: Mapping[str, float], name: str = "book.csv", time: str = "2020-01-01T23:00Z") -> Path:
        path = self.folder / name
        pd.DataFrame([row]).assign(time=time).set_index("time").to_csv(path)
        return path

    def words(self, *words: object) -> list[str]:
        """A command with this exchange, account and folder."""
        given = [str(word) for word in words]
        where = ["--base-url", self.server.url, "--credentials", str(self.credentials)]
        soon = ["--expires-seconds", "2", "--timeout-seconds", "1.5"] if self.hurried else []
        sends = given[0] in ("run", "rebalance", "flatten")
        return ["live", *given, *where, "--journal", str(self.journals), *(soon if sends else [])]

    def rebalance(self, row: Mapping[str, float], *words: object) -> list[str]:
        return self.words("rebalance", "--weights", self.weights(row), "--execute", *words)

    def stop_clock(self) -> pd.Timestamp:
        """Stop the exchange's clock where it is."""
        self.server.now = now = self.server.now
        return pd.Timestamp(now, unit="ms", tz="UTC")

    def half_past_two(self) -> pd.Timestamp:
        """Stop the exchange's clock at a time of day that is no scheduled one, whenever the test runs.

        A week ago: the answers bear the real date, and no sync takes hours that end after it.
        """
        time = pd.Timestamp.now("UTC").normalize() - pd.Timedelta(days=7, hours=9, minutes=30)
        self.server.now = int(time.timestamp() * 1000)
        return time

    @property
    def positions(self) -> dict[str, float]:
        return self.server.positions(MASTER.address)

    def weights_held(self) -> dict[str, float]:
        """Positions as fractions of equity, at the mark."""
        equity = self.server.equity(MASTER.address)
        coins = self.server.ledger.coins
        return {coin: units * float(coins[coin].mark) / equity for coin, units in self.positions.items()}

    def entries(self) -> list[dict[str, Any]]:
        """Every journal entry."""
        return [
            json.loads(line) for path in sorted(self.journals.glob("*.jsonl")) for line in path.read_text().splitlines()
        ]

    def last(self, kind: str) -> dict[str, Any]:
        """The newest entry of a kind."""
        return [entry for entry in self.entries() if entry["kind"] == kind][-1]

    def check(self) -> None:
        """What must hold whatever happened: no order twice, each intended before it was sent, no secret anywhere."""
        cloids = [order.cloid for order in self.server.orders]
        assert len(cloids) == len(set(cloids)), "an order was accepted twice"
        assert all(order.tif == "Ioc" for order in self.server.orders)
        intended = {
            order["cloid"] for entry in self.entries() if entry["kind"] == "intent" for order in entry["orders"]
        }
        assert set(cloids) <= intended
        for path in self.folder.rglob("*"):
            if path.is_file() and path != self.credentials:
                assert SECRET.encode() not in path.read_bytes(), path


@contextmanager
def open_world(folder: Path) -> Iterator[World]:
    """The exchange of hyperliquid_world with books 4 bps wide that refill."""
    with trading() as server:
        for coin in ("BTC", "ETH", "DOGE", "RLB"):
            price = server.ledger.coins[coin].price
            server.set_book(coin, bid=price * 0.9998, ask=price * 1.0002, refill=True)
        yield World(server, folder)


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]) -> Outcome:
    """Run a command in this process, with short waits between attempts."""
    monkeypatch.setattr(Policy.__init__, "__defaults__", (*Policy.__init__.__defaults__[:-1], (0.02, 0.05, 0.1, 0.2)))
    done = outcome(capsys, *words)
    assert SECRET not in done.out + done.err
    return done


def daily(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    waits: int,
    *,
    start: pd.Timestamp | None = None,
    oversleep_hours: Mapping[int, float] | None = None,
    change: Callable[[int], None] = lambda number: None,
) -> list[str]:
    """Replace the clock of ``--daily``: wait `number` is over at once, then `change(number)`; the last is an interrupt.

    Returns the times of day that are waited for, as they come.
    """
    clock, waited = [start or world.half_past_two()], list[str]()

    def wait(until: pd.Timestamp) -> None:
        waited.append(f"{until:%H:%M}")
        if len(waited) == waits:
            raise KeyboardInterrupt
        woken = until + pd.Timedelta(hours=(oversleep_hours or {}).get(len(waited), 0.0))
        world.server.advance((woken - clock[0]) / pd.Timedelta(hours=1))
        clock[0] = woken
        change(len(waited))

    for module in ("live_run", "live_paper"):
        monkeypatch.setattr(f"engine.commands.{module}.clock", lambda: clock[0])
        monkeypatch.setattr(f"engine.commands.{module}.sleep_until", wait)
    return waited


@contextmanager
def killed_after(kind: str) -> Iterator[None]:
    """The process ends once it has journalled an entry of this kind."""
    append = Journal.append

    def dying(self: Journal, name: str, time: pd.Timestamp, **fields: object) -> None:
        append(self, name, time, **fields)
        if name == kind:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "append", dying)
        yield


def near(world: World, wanted: dict[str, float], slack: float = 0.003) -> None:
    held = world.weights_held()
    assert set(held) == {coin for coin, weight in wanted.items() if weight}
    for coin, weight in wanted.items():
        assert held.get(coin, 0.0) == pytest.approx(weight, abs=slack)


def momentum_spec(
    folder: Path, cache: Path, name: str = "momentum", limits: Limits | None = None, **config: Any
) -> Path:
    """A spec of the momentum oracle on a cache, as a promotion writes it."""
    return spec_file(folder, cache, name, MOMENTUM, {"lookback_hours": 24, "n": 1}, limits, **config)


def spec_file(
    folder: Path,
    cache: Path,
    name: str,
    oracle: str,
    given: Mapping[str, Any],
    limits: Limits | None = None,
    **config: Any,
) -> Path:
    """A spec of an oracle on a cache, as a promotion writes it."""
    parameters = bound_parameters(type(load_oracle(oracle, {})), given)
    settled = RunConfig.from_dict(config)
    settled = replace(settled, data=replace(settled.data, cache=str(cache)))
    spec = StrategySpec(
        name=name,
        created="2026-01-01T00:00:00+00:00",
        oracle=oracle,
        parameters=parameters,
        config=settled,
        limits=limits or Limits(),
        gates={"results": {}, "overrides": {}},
        digests={
            "data": "0" * 64,
            "oracle": files_digest(oracle_code(load_oracle(oracle, parameters))),
            "engine": code_digest(),
        },
        versions={"hlbt": "0.1.0"},
        trials=1,
        account={},
    )
    path = folder / f"{name}.json"
    write_spec(spec, path)
    return path
