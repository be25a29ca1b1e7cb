"""Prices that fall during a run: openings keep the cap from its start, reductions follow within a bound."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from engine.live.hyperliquid import HyperLiquidDEX
from helpers.commands import Outcome
from helpers.live_world import Run, World

pytestmark = pytest.mark.slow


@contextmanager
def moving(world: World, coin: str, share: float) -> Iterator[None]:
    """The book of a coin is at this share of its price as soon as the first request is answered."""
    send, price = HyperLiquidDEX.send, world.server.ledger.coins[coin].price * share

    def sending(self: HyperLiquidDEX, orders: object, expires_ms: int) -> object:
        results = send(self, orders, expires_ms)  # type: ignore[arg-type]
        world.server.set_book(coin, bid=price * 0.9998, ask=price * 1.0002, refill=True)
        return results

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HyperLiquidDEX, "send", sending)
        yield


def worst_prices(world: World, coin: str) -> list[float]:
    """Limits of the coin's orders, as shares of its price before."""
    price = world.server.ledger.coins[coin].price
    orders = [order for entry in world.entries() if entry["kind"] == "intent" for order in entry["orders"]]
    return [order["limit_price"] / price for order in orders if order["coin"] == coin]


def reduce_and_open(world: World, run: Run, share: float, *words: str) -> Outcome:
    """BTC is reduced in two attempts; meanwhile ETH, which is to be sold, goes to `share` of its price."""
    assert run(world.rebalance({"BTC": 0.5})).code == 0
    world.server.fill_share(0.5, coin="BTC")
    with moving(world, "ETH", share):
        return run(world.rebalance({"BTC": 0.2, "ETH": -0.3, "DOGE": 0.2}, "--json", *words))


@pytest.mark.parametrize("share", [0.873, 1.2])
def test_prices_that_moved_beyond_the_limit_stop_all_openings(world: World, run: Run, share: float) -> None:
    done = reduce_and_open(world, run, share)
    assert done.code == 4 and {item["coin"] for item in done.json["missing"]} == {"ETH", "DOGE"}
    assert "price_deviation_frac: ETH" in done.err and "nothing more is opened" in done.err
    assert worst_prices(world, "ETH") == [] and set(world.positions) == {"BTC"}
    assert world.weights_held()["BTC"] == pytest.approx(0.2, abs=0.003)
    done = run(world.rebalance({"BTC": 0.2, "ETH": -0.3, "DOGE": 0.2}))
    assert done.code == 0, done.err  # a new run, at the prices of now


def test_the_cap_of_an_opening_is_from_the_start_of_the_run(world: World, run: Run) -> None:
    done = reduce_and_open(world, run, 0.873, "--limit", "price_deviation_frac=none")
    assert done.code == 4 and [item["coin"] for item in done.json["missing"]] == ["ETH"]
    assert worst_prices(world, "ETH") == pytest.approx([0.97] * 4, abs=1e-3) and "ETH" not in world.positions


@pytest.mark.parametrize(("share", "bounds"), [(0.94, [0.97, 0.9118]), (0.85, [0.97, 0.9, 0.9, 0.9])])
def test_a_reduction_follows_the_price_within_a_tenth(
    world: World, run: Run, share: float, bounds: list[float]
) -> None:
    assert run(world.rebalance({"BTC": 0.5})).code == 0
    before = len(worst_prices(world, "BTC"))
    world.server.fill_share(0.5, coin="BTC")
    with moving(world, "BTC", share):
        done = run(world.rebalance({"BTC": 0.0}, "--json"))
    assert worst_prices(world, "BTC")[before:] == pytest.approx(bounds, abs=1e-3)
    assert done.code == (0 if len(bounds) == 2 else 4), done.err
    assert any("the limit of its reduction" in note and "at most 10%" in note for note in done.json["notes"])


def test_a_flattening_follows_the_price_upward_too(world: World, run: Run) -> None:
    assert run(world.rebalance({"BTC": -0.5})).code == 0
    world.server.fill_share(0.5, coin="BTC")
    with moving(world, "BTC", 1.095):
        done = run(world.words("flatten", "book", "--execute", "--json"))
    assert done.code == 0 and world.positions == {}, done.err
    assert worst_prices(world, "BTC")[-1] == pytest.approx(1.1, abs=1e-3)
