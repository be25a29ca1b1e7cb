"""Books with a leg that cannot be traded: no quote, no counterpart, or a coin that spoils every request it is in."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Oracle, PaperDEX, PortfolioManager
from engine.live.hyperliquid import HyperLiquidDEX
from engine.live.journal import Journal
from engine.live.leverage import duration_text
from engine.live.risk_limits import Limits
from engine.live.spec import canonical, read_spec, spec_limits
from helpers.live_world import Run, World, daily, momentum_spec, near
from helpers.panels import random_panel
from helpers.waiting import LONG_SECONDS

pytestmark = pytest.mark.slow

PAIR = {"BTC": 0.4, "ETH": -0.4}


def take_quote(world: World, coin: str) -> None:
    """Empty both sides of a book."""
    world.server.set_book(coin)


def give_quote(world: World, coin: str) -> None:
    price = world.server.ledger.coins[coin].price
    world.server.set_book(coin, bid=price * 0.9998, ask=price * 1.0002, refill=True)


def missing(world: World) -> dict[str, str]:
    return {item["coin"]: item["reason"] for item in world.last("done")["missing"]}


@contextmanager
def after_entry(kind: str, call: Any) -> Iterator[None]:
    """Once the journal has its first entry of this kind, `call`."""
    append, left = Journal.append, [1]

    def appending(self: Journal, name: str, time: Any, **fields: Any) -> None:
        append(self, name, time, **fields)
        if name == kind and left:
            left.clear()
            call()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "append", appending)
        yield


def test_a_leg_without_a_quote_holds_the_openings_back(world: World, run: Run) -> None:
    take_quote(world, "ETH")
    done = run(world.rebalance(PAIR))
    assert done.code == 4 and world.positions == {} and not world.server.asked("order")
    assert "ETH is at 0" in done.err and "-40.00% of equity" in done.err and "net_frac" in done.err
    words = world.rebalance(PAIR)
    words.remove("--execute")
    done = run(words)
    assert done.code == 3 and "net_frac" in done.err and "No order: the book is at its target" not in done.out
    give_quote(world, "ETH")
    assert run(world.rebalance(PAIR)).code == 0
    near(world, PAIR)


def test_a_leg_without_a_quote_within_the_net_limit_is_named(world: World, run: Run) -> None:
    take_quote(world, "ETH")
    assert run(world.rebalance({"BTC": 0.15, "ETH": -0.15})).code == 4
    near(world, {"BTC": 0.15})
    assert missing(world).keys() == {"ETH"}
    assert run(world.rebalance(PAIR, "--limit", "net_frac=none")).code == 4
    near(world, {"BTC": 0.4})


def test_the_net_exposure_that_the_weights_want_is_no_breach(world: World, run: Run) -> None:
    take_quote(world, "ETH")
    assert run(world.rebalance({"BTC": 0.5, "ETH": 0.3})).code == 4
    near(world, {"BTC": 0.5})
    assert run(world.rebalance({"DOGE": -0.3, "ETH": 0.4})).code == 4  # from +0.1 to -0.3
    near(world, {})


@pytest.mark.parametrize("flat", [True, False])
def test_a_position_without_a_quote_is_never_at_its_target(world: World, run: Run, flat: bool) -> None:
    assert run(world.rebalance(PAIR)).code == 0
    take_quote(world, "ETH")
    words = world.words("flatten", "book", "--execute") if flat else world.rebalance({"BTC": 0.0})
    done = run(words)
    assert done.code == 4 and set(world.positions) == {"ETH"} and missing(world).keys() == {"ETH"}
    done = run(words)
    assert done.code == 4 and "ETH" in done.err and "the book is at its target" not in done.out
    give_quote(world, "ETH")
    assert run(words).code == 0 and world.positions == {}


def test_a_quote_that_vanishes_after_the_plan_holds_the_openings_back(world: World, run: Run) -> None:
    """A reduction first, so that the markets are read again before the openings."""
    assert run(world.rebalance({"DOGE": 0.2})).code == 0
    with after_entry("answers", lambda: take_quote(world, "ETH")):
        done = run(world.rebalance(PAIR))
    assert done.code == 4 and world.positions == {}, done.err
    assert missing(world).keys() == {"BTC", "ETH"} and "net_frac" in missing(world)["BTC"]


def test_a_killed_plan_is_made_anew_once_the_quote_is_back(world: World, run: Run) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    take_quote(world, "ETH")
    with after_entry("plan", die):
        assert run(world.rebalance(PAIR)).code == 130
    give_quote(world, "ETH")
    assert run(world.rebalance(PAIR)).code == 0
    near(world, PAIR)


def test_a_leg_that_is_refused_leaves_a_net_exposure_that_is_said(world: World, run: Run) -> None:
    world.server.reject("OpenInterestIncrease", coin="ETH", times=9)
    done = run(world.rebalance(PAIR, "--json"))
    assert done.code == 4
    near(world, {"BTC": 0.4})
    assert any(note.startswith("net_frac: without ETH the net exposure is +0.4") for note in done.json["notes"])
    # What is left of the other leg is not opened.
    world.server.fill_share(0.5, coin="DOGE")
    world.server.reject("OpenInterestIncrease", coin="RLB", times=9)
    assert run(world.words("flatten", "book", "--execute")).code == 0
    done = run(world.rebalance({"DOGE": 0.6, "RLB": -0.3}))
    assert done.code == 4
    near(world, {"DOGE": 0.3}, slack=0.01)
    assert "net_frac" in missing(world)["DOGE"]


def test_a_close_that_ran_out_of_attempts_is_not_called_held_back(world: World, run: Run) -> None:
    assert run(world.rebalance({"BTC": 0.9})).code == 0
    world.server.reject("IocCancel", coin="BTC", times=99)
    assert run(world.rebalance({"BTC": -0.9}, "--limit", "gross=1.0")).code == 4
    assert "held back" not in missing(world)["BTC"] and "could not immediately match" in missing(world)["BTC"]


def test_what_is_left_under_the_minimum_is_named_and_not_flat(world: World, run: Run) -> None:
    assert run(world.rebalance({"BTC": 0.3, "DOGE": 0.0015})).code == 0
    world.server.set_book("DOGE", bid=0.0999, ask=0.1001, refill=True)
    world.server.ledger.reduce_only_exempt = False
    done = run(world.rebalance({"BTC": 0.3}, "--json"))
    assert done.code == 0 and any("DOGE" in note for note in done.json["notes"])
    done = run(world.words("flatten", "book", "--execute"))
    assert done.code == 4 and missing(world).keys() == {"DOGE"} and "minimum value" in done.err


UNKNOWN = "The frobnicator of {} is out of phase"


@contextmanager
def spoiling(world: World, coin: str, text: str) -> Iterator[list[int]]:
    """Requests with an order of this coin are refused whole; yields the sizes of all requests."""
    world.hurried = True  # what is refused in words that nobody knows is looked up until it is void
    asset, sizes = list(world.server.ledger.coins).index(coin), list[int]()

    def spoiled(payload: dict[str, Any]) -> bool:
        orders = payload["action"]["orders"]
        sizes.append(len(orders))
        return any(order["a"] == asset for order in orders)

    fault = world.server.inject("outage", after=False, times=99, on="order", text=text, match=spoiled)
    yield sizes
    fault.times = 0


@pytest.mark.parametrize("text", [UNKNOWN.format("ETH"), "Order has invalid size."])
def test_a_coin_that_spoils_its_requests_never_blocks_the_others(world: World, run: Run, text: str) -> None:
    book = {"BTC": 0.2, "ETH": -0.1, "DOGE": 0.1, "RLB": -0.2}
    with spoiling(world, "ETH", text) as sizes:
        done = run(world.rebalance(book))
    assert done.code == 4
    near(world, {coin: weight for coin, weight in book.items() if coin != "ETH"})
    assert text in missing(world)["ETH"] and len(missing(world)) == 1
    assert sizes[0] == 4 and set(sizes[1:]) == {1} and len(sizes) <= 6
    assert run(world.rebalance(book)).code == 0
    near(world, book)
    world.check()


def test_words_that_end_a_run_end_it_when_one_order_meets_them_too(world: World, run: Run) -> None:
    with spoiling(world, "ETH", "User or API Wallet 0x1 does not exist.") as sizes:
        assert run(world.rebalance({"BTC": 0.2, "ETH": -0.1})).code == 4
    assert sizes == [2] and world.positions == {}


# Requests before the first order --------------------------------------------------------------------------------------


def before_the_first_order(world: World) -> list[str]:
    from helpers.hyperliquid_faults import kind_of

    kinds = [kind_of(path, payload) for path, payload in world.server.requests]
    return kinds[: kinds.index("order")]


def test_leverage_is_set_where_it_differs_and_no_book_is_read(world: World, run: Run) -> None:
    account = world.server.account(world_address())
    account.leverage["BTC"], account.leverage["ETH"] = (2, True), (5, True)
    assert run(world.rebalance(PAIR)).code == 0
    first = before_the_first_order(world)
    assert first.count("updateLeverage") == 1 and account.leverage["ETH"] == (2, True)
    assert first.count("activeAssetData") == 2 and "l2Book" not in first
    # The owner changes that of a position; the exchange refuses it back while the margin is used.
    account.leverage["BTC"] = (7, True)
    world.server.requests.clear()
    assert run(world.rebalance({"BTC": 0.5, "ETH": -0.5})).code == 0
    assert before_the_first_order(world).count("updateLeverage") == 1 and account.leverage["BTC"] == (2, True)
    assert "activeAssetData" not in before_the_first_order(world)


def test_quotes_at_the_plan_are_in_the_journal_of_every_order(world: World, run: Run) -> None:
    assert run(world.rebalance(PAIR)).code == 0
    for order in [*world.last("intent")["orders"], *world.last("plan")["plan"]["orders"]]:
        assert order["bid"] < order["mid"] < order["ask"]


def world_address() -> str:
    from helpers.hyperliquid_world import MASTER

    return str(MASTER.address)


def test_the_leverage_of_many_coins_is_set_side_by_side(world: World) -> None:
    coins = ["BTC", "ETH", "DOGE", "RLB"] * 10
    dex = HyperLiquidDEX(base_url=world.server.url, credentials=world.credentials)
    markets = dex.markets()
    fault = world.server.inject("slow", on="updateLeverage", seconds=0.1, times=99)
    assert dex.set_leverages([(markets[coin], 2) for coin in coins]) == [""] * 40
    assert dex.leverage_seconds(40) == 4 * dex.leverage_seconds(10) > 4 * 0.09  # ten at a time
    fault.times = 0
    world.server.inject("reset", after=True, on="updateLeverage")
    assert dex.set_leverages([(markets["BTC"], 3), (markets["RLB"], 99)]) == ["", "Invalid leverage value"]


@pytest.mark.parametrize("step", [0, -5])
def test_a_round_trip_takes_time_whatever_the_clock_shows(
    world: World, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Within one millisecond, or while the clock is set back."""
    shown = itertools.count(1_800_000_000_000, step)
    monkeypatch.setattr("engine.live.hyperliquid._wall_ms", lambda: next(shown))
    dex = HyperLiquidDEX(base_url=world.server.url, credentials=world.credentials)
    assert dex.markets() and 0.0 < dex.leverage_seconds(10) < LONG_SECONDS
    assert duration_text(dex, 10).startswith("the leverage of 10 coins is set first: about ")
    assert not duration_text(dex, 0)


def test_the_first_order_of_many_coins_leaves_in_seconds(tmp_path: Path, run: Run) -> None:
    """120 coins, their leverage set by an earlier run; 12 round trips of 0.2 s in sequence are half of 5 s."""
    from helpers.hyperliquid_exchange import HyperLiquidExchange
    from helpers.live_world import World

    coins = [f"C{number:03d}" for number in range(120)]
    with HyperLiquidExchange(coins) as server:
        server.fund(world_address(), 100_000)
        world = World(server, tmp_path)
        book = {coin: (1 if number % 2 else -1) / 130 for number, coin in enumerate(coins)}
        done = run(world.rebalance({coin: 0.0 if number > 1 else book[coin] for number, coin in enumerate(coins)}))
        assert done.code == 0, done.err
        done = run(world.rebalance(book))
        assert done.code == 0 and "the leverage of 118 coins is set first" in done.err, done.err
        assert run(world.words("flatten", "book", "--execute")).code == 0
        server.requests.clear()
        done = run(world.rebalance(book))
        assert done.code == 0, done.err
        kinds = before_the_first_order(world)
        assert len(kinds) <= 12 and not {"l2Book", "updateLeverage", "activeAssetData"} & set(kinds), kinds


def test_leverage_is_set_before_the_hour(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = momentum_spec(world.folder, world.folder / "cache")
    seen: list[int] = []
    daily(world, monkeypatch, 3, change=lambda _: seen.append(len(world.server.asked("updateLeverage"))))
    done = run(world.words("run", spec, "--execute", "--daily"))
    assert done.code == 130 and seen == [0, 2] and len(world.server.asked("updateLeverage")) == 2
    assert "leverage of 2 coins is set first" in done.err and len(world.positions) == 2


# Limits ---------------------------------------------------------------------------------------------------------------


def test_an_account_beyond_what_the_gates_have_seen(world: World, run: Run) -> None:
    spec = momentum_spec(world.folder, world.folder / "cache")  # says no size: that of its run, 10,000 USD
    world.server.fund(world_address(), 19_000)
    done = run(world.words("run", spec, "--execute"))
    assert done.code == 0 and "10,000 USD, its run's, is used" in done.out, done.err
    assert run(world.words("flatten", "momentum", "--execute")).code == 0
    world.server.fund(world_address(), 10_000)
    done = run(world.words("run", spec, "--execute", "--accept-equity"))
    assert done.code == 3 and "equity_multiple" in done.err and world.positions == {}
    off = momentum_spec(world.folder, world.folder / "cache", "off", Limits(equity_multiple=None))
    done = run(world.words("run", off, "--execute", "--accept-positions"))
    assert done.code == 0, done.err


def test_a_spec_of_before_says_which_limits_are_used(tmp_path: Path) -> None:
    path = momentum_spec(tmp_path, tmp_path / "cache")
    content = json.loads(path.read_text())
    for name in ("equity_multiple", "net_frac"):
        del content["limits"][name]
    del content["digest"]
    content["account"] = {"equity_usd": 50_000.0}
    content["digest"] = hashlib.sha256(canonical(content).encode()).hexdigest()
    path.write_text(json.dumps(content))
    size, limits, notes = spec_limits(path, read_spec(path))
    assert size == 50_000.0 and limits.order_notional_usd == pytest.approx(3 * 1.1 * 50_000)
    assert "equity_multiple 3" in " ".join(notes) and "net_frac 0.2" in " ".join(notes)
    assert "order_notional_usd: 165,000 USD" in " ".join(notes)


class Reads(Oracle):
    """Reads one field, by one of the ways in which that can be done."""

    def __init__(self, field: str, how: str) -> None:
        self.field, self.how = field, how

    def fetch_portfolio_weights(self, timestamp: Any, tradable_universe: Any, panel: Any = None) -> dict[str, float]:
        known = replace(panel, tradable=panel.tradable).until(timestamp)
        {
            "frame": lambda: known.frame(self.field),
            "values": lambda: known.values(self.field),
            "fields": lambda: known.fields[self.field],
            "get": lambda: known.fields.get(self.field),
        }[self.how]()
        return {"C00": 0.5}


@pytest.mark.parametrize("how", ["frame", "values", "fields", "get"])
def test_a_dead_feed_stops_an_oracle_that_reads_it(how: str) -> None:
    panel = random_panel(1, 200, 3)
    funding = panel.values("funding").copy()
    funding[-72:, :-1] = np.nan  # one coin goes on
    panel = replace(panel, fields={**panel.fields, "funding": funding})
    dex = PaperDEX(panel, start=panel.index[-1])
    limits = Limits(price_deviation_frac=None, equity_multiple=None)
    for field, stops in (("mid", False), ("funding", True)):
        manager = PortfolioManager(Reads(field, how), dex, panel=panel, limits=limits)
        broken = [text for text in manager.preview()[1] if text.startswith("data_age_hours")]
        assert bool(broken) == stops
        assert not stops or ("row of funding" in broken[0] and "72.0 hours old" in broken[0])
