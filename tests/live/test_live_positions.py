"""Positions must be those that the journal explains: reads that lag behind, trades of somebody else, other journals."""

from __future__ import annotations

import pandas as pd
import pytest

from helpers.hyperliquid_world import client, only
from helpers.live_world import Run, World, killed_after, momentum_spec, near

pytestmark = pytest.mark.slow

BOOK = {"BTC": 0.4, "ETH": -0.3}


def requests_sent(world: World) -> int:
    return len(world.server.asked("order"))


def test_a_lagging_read_after_a_kill_doubles_nothing(world: World, run: Run) -> None:
    """Killed after the answers are journalled; the next process meets two answers of before, stamped new."""
    with killed_after("answers"):
        assert run(world.rebalance(BOOK)).code == 130
    sent, world.server.read_lag = requests_sent(world), 2
    done = run(world.rebalance(BOOK, "--json"))
    assert done.code == 0, done.err
    assert requests_sent(world) == sent
    near(world, BOOK)
    world.check()


def test_a_lagging_read_the_next_day_doubles_nothing(world: World, run: Run) -> None:
    world.stop_clock()
    assert run(world.rebalance(BOOK)).code == 0
    world.server.advance(24)
    sent, world.server.read_lag = requests_sent(world), 2
    now = pd.Timestamp(world.server.now, unit="ms", tz="UTC").isoformat()
    done = run(world.rebalance(BOOK, "--now", now, "--json"))
    assert done.code == 0 and done.json["plan"] is not None, done.err
    assert requests_sent(world) <= sent + 1  # what prices and funding moved
    near(world, BOOK)


def test_an_incomplete_book_by_lagging_reads_and_its_rerun_double_nothing(world: World, run: Run) -> None:
    """The positions of the end are what the orders add up to, not what a node behind showed."""
    world.server.read_lag = 8
    done = run(world.rebalance(BOOK))
    assert done.code == 4 and "not traded further" in done.err
    assert world.last("done")["positions"] == pytest.approx(world.positions)
    done = run(world.rebalance(BOOK))
    assert done.code == 0, done.err
    near(world, BOOK)
    world.check()


def test_positions_that_keep_differing_are_refused_with_their_figures(world: World, run: Run) -> None:
    with killed_after("answers"):
        assert run(world.rebalance({"BTC": 0.4})).code == 130
    sent, world.server.read_lag = requests_sent(world), 99
    for _ in range(2):
        done = run(world.rebalance({"BTC": 0.4}))
        assert done.code == 3 and f"BTC: journal {world.positions['BTC']:g}, account 0" in done.err
        assert "--accept-positions" in done.err and requests_sent(world) == sent
    words = world.rebalance({"BTC": 0.4})
    words.remove("--execute")
    done = run(words)
    assert done.code == 3 and "positions: BTC" in done.err
    world.server.read_lag = 0
    assert run(world.rebalance({"BTC": 0.4})).code == 0
    assert requests_sent(world) == sent
    near(world, {"BTC": 0.4})


def test_trades_of_the_owner_are_accepted_by_a_flag_once(world: World, run: Run) -> None:
    assert run(world.rebalance(BOOK)).code == 0
    assert "filled" in only(client(world.server).market_open("BTC", True, 0.01))
    held, sent = dict(world.positions), requests_sent(world)
    status = run(world.words("status", "book", "--json")).json["account"]
    assert {coin: pair["account"] for coin, pair in status["unexplained"].items()} == {"BTC": held["BTC"]}
    shown = run(world.words("status", "book"))
    assert "NOT EXPLAINED by any journal: BTC: journal" in shown.out and "ETH: journal" not in shown.out
    page = next(world.journals.glob("*.html")).read_text()
    assert "Positions that no journal explains: BTC" in page and "<h2>Account</h2>" in page
    done = run(world.rebalance(BOOK))
    assert done.code == 3 and f"account {held['BTC']:g}" in done.err and requests_sent(world) == sent
    done = run(world.rebalance(BOOK, "--accept-positions", "--json"))
    assert done.code == 0, done.err
    near(world, BOOK)
    accepted = world.last("positions_accepted")
    assert accepted["positions"] == held
    assert [(row["coin"], row["account"]) for row in accepted["differences"]] == [("BTC", held["BTC"])]
    assert run(world.rebalance(BOOK)).code == 0


def test_an_acceptance_is_for_one_run(world: World, run: Run) -> None:
    spec = momentum_spec(world.folder, world.folder / "cache")
    done = run(world.words("run", spec, "--execute", "--daily", "--accept-positions"))
    assert done.code == 1 and "--accept-positions is for one run" in done.err


def test_a_flattening_closes_what_nobody_explains_and_says_so(world: World, run: Run) -> None:
    """The way out is not locked; but an exit 0 would say that all is closed, where a node behind may hide a leg."""
    assert run(world.rebalance(BOOK)).code == 0
    assert "filled" in only(client(world.server).market_close("ETH"))
    done = run(world.words("flatten", "book", "--execute", "--json"))
    assert done.code == 4 and [item["coin"] for item in done.json["missing"]] == ["ETH"] and world.positions == {}
    assert run(world.words("flatten", "book", "--execute")).code == 4
    assert run(world.words("flatten", "book", "--execute", "--accept-positions")).code == 0
    assert run(world.words("flatten", "book", "--execute")).code == 0


def test_a_flattening_behind_a_lagging_node_is_not_called_done(world: World, run: Run) -> None:
    with killed_after("answers"):
        assert run(world.rebalance({"BTC": 0.4})).code == 130
    world.server.read_lag = 99
    assert run(world.words("flatten", "book", "--execute")).code == 4
    world.server.read_lag = 0
    assert run(world.words("flatten", "book", "--execute")).code == 0 and world.positions == {}


def test_the_journal_of_another_strategy_on_the_account_explains_too(world: World, run: Run) -> None:
    assert run(world.rebalance(BOOK)).code == 0
    assert run(world.words("flatten", "another", "--execute")).code == 0 and world.positions == {}
    done = run(world.rebalance(BOOK))
    assert done.code == 0, done.err
    near(world, BOOK)


def test_a_position_that_was_settled_at_a_delisting_needs_no_acceptance(world: World, run: Run) -> None:
    assert run(world.rebalance({"BTC": 0.4, "DOGE": -0.1})).code == 0
    world.server.delist("DOGE")
    done = run(world.rebalance({"BTC": 0.4}, "--json"))
    assert done.code == 0, done.err
    assert "DOGE" in " ".join(done.json["session_notes"]) and world.last("positions_accepted")["positions"].keys() == {
        "BTC"
    }


def test_an_order_whose_nonce_was_a_duplicate_is_looked_up(world: World, run: Run) -> None:
    """A proxy sent the request twice: the first was executed, and the answer is the second's."""
    world.server.inject("outage", on="order", text="Invalid nonce: duplicate nonce 7")
    done = run(world.rebalance(BOOK))
    assert done.code == 0 and requests_sent(world) == 1, done.err
    near(world, BOOK)
    world.check()
    done = run(world.rebalance(BOOK))
    assert done.code == 0 and requests_sent(world) == 1, done.err
