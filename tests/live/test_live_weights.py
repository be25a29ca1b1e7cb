"""A weights file that a backtest refuses is not traded either, and the words are the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from engine import Panel, RunConfig, backtest, read_weights
from engine.errors import WeightsError
from engine.oracles.fixed_weights import FixedWeights
from helpers.live_world import Run, World

pytestmark = pytest.mark.slow

FILES = {
    "two rows of one instant": "time,BTC,ETH\n2020-01-01T23:00Z,0.5,-0.5\n2020-01-01T23:00Z,0.1,0.1\n",
    "two rows of one instant in two zones": "time,BTC\n2020-01-01T23:00Z,0.5\n2020-01-02T00:00+01:00,0.1\n",
    "a coin twice": "time,BTC,ETH,BTC\n2020-01-01T23:00Z,0.5,-0.5,0.5\n",
    "a coin twice with a space": "time,BTC, BTC\n2020-01-01T23:00Z,0.5,0.5\n",
    "a column without a name": "time,BTC,\n2020-01-01T23:00Z,0.5,0.2\n",
    "a comma at the end": "time,BTC,\n2020-01-01T23:00Z,0.5,\n",
    "infinity": "time,BTC,ETH\n2020-01-01T23:00Z,inf,-0.5\n",
    "infinity in another row": "time,BTC\n2020-01-01T23:00Z,-inf\n2020-01-02T23:00Z,0.5\n",
    "no value": "time,BTC,ETH\n2020-01-01T23:00Z,,\n2020-01-02T23:00Z,,\n",
    "no coin": "time\n2020-01-01T23:00Z\n",
    "no row": "time,BTC\n",
    "no number": "time,BTC\n2020-01-01T23:00Z,much\n",
    "true": "time,BTC\n2020-01-01T23:00Z,true\n",
    "no zone": "time,BTC\n2020-01-01T23:00,0.5\n",
    "no time": "time,BTC\nnever,0.5\n",
    "an empty time": "time,BTC\n2020-01-01T23:00Z,0.5\n,0.5\n",
    "no time column": "date,BTC\n2020-01-01T23:00Z,0.5\n",
    "a longer row": "time,BTC\n2020-01-01T23:00Z,0.5,0.5\n",
    "gross of another row": "time,BTC,ETH\n2020-01-01T23:00Z,0.9,0.9\n2020-01-02T23:00Z,0.5,0.5\n",
    "gross of a later row": "time,BTC,ETH\n2020-01-02T23:00Z,0.5,0.5\n2020-01-03T23:00Z,0.9,0.9\n",
}


@pytest.fixture(scope="module")
def panel() -> Panel:
    index = pd.date_range("2020-01-01T00:00Z", periods=96, freq="h")
    prices = pd.DataFrame(np.full((96, 2), 100.0), index=index, columns=["BTC", "ETH"])
    return Panel.from_frames(mid=prices, volume_usd=prices)


@pytest.mark.parametrize("name", FILES)
def test_what_a_backtest_refuses_is_not_traded(world: World, run: Run, panel: Panel, name: str) -> None:
    path = world.folder / "book.csv"
    path.write_text(FILES[name])
    with pytest.raises(WeightsError) as refused:
        backtest(panel, read_weights(path), RunConfig())
    words = world.words("rebalance", "--weights", path, "--execute", "--now", "2020-01-02T22:59:30Z")
    for network in ("testnet", "paper"):
        done = run([*words, "--network", network])
        assert done.code == 1 and str(refused.value) in done.err and "book.csv" in done.err, done
    assert not world.server.requests and world.positions == {}


def test_what_needs_more_initial_margin_than_the_account_has_is_not_sent(world: World, run: Run) -> None:
    """Leverage and tiers are the exchange's: DOGE is 10x, and of BTC all is 5x once it is worth more than 20,000."""
    world.server.ledger.coins["BTC"].tiers = ((20_000.0, 5),)
    loose = ("--set", "account.max_gross=20", "--limit", "gross=none", "--limit", "net_frac=none")
    for row, named in (({"DOGE": 10.5}, "DOGE 10.5 at 10x"), ({"BTC": -6.0, "ETH": 0.1}, "BTC -6 at 5x")):
        done = run(world.rebalance(row, *loose))
        assert done.code == 1 and "as initial margin" in done.err and named in done.err, done
        assert "10,000.00 USD" in done.err and not world.server.asked("order") and not world.positions
    assert run(world.rebalance({"BTC": 1.9, "DOGE": 0.5}, *loose)).code == 0  # 40x below the tier
    assert set(world.positions) == {"BTC", "DOGE"}


def test_a_coin_that_the_exchange_never_listed_is_refused_whatever_its_weight(world: World, run: Run) -> None:
    words = world.rebalance({"BTC": 0.5, "btc": 0.0}, "--network", "mainnet", "--yes-mainnet")
    done = run(words)
    assert done.code == 1 and "The weights name coins that mainnet lacks: btc. Did you mean 'BTC'" in done.err
    assert not world.server.asked("order")


def test_a_file_in_another_order_is_read_alike(world: World, run: Run) -> None:
    path = world.folder / "book.csv"
    path.write_text("time,BTC\n2020-01-03T23:00Z,0.1\n2020-01-01T23:00Z,0.5\n2020-01-02T23:00Z,\n")
    frame = FixedWeights(read_weights(path)).frame
    assert frame["BTC"].tolist()[::2] == [0.5, 0.1] and frame.index.is_monotonic_increasing


def test_two_files_of_the_same_weights_have_orders_of_their_own(world: World, run: Run) -> None:
    """And a journal that was moved away within the hour leaves ids behind, of which the next are free."""
    assert run(world.rebalance({"BTC": 0.5})).code == 0
    assert run(world.words("flatten", "book", "--execute")).code == 0
    other = world.weights({"BTC": 0.5}, "copy.csv")
    done = run(world.words("rebalance", "--weights", other, "--execute"))
    assert done.code == 0 and "uplicate" not in done.out, done.err
    assert run(world.words("flatten", "copy", "--execute")).code == 0
    done = run([*world.words("rebalance", "--weights", other, "--execute"), "--journal", world.folder / "x.jsonl"])
    assert done.code == 0 and "uplicate" in done.out and world.positions.keys() == {"BTC"}, done.err


def test_a_frame_in_python_has_the_same_reader() -> None:
    for index in (["2020-01-01T23:00Z"] * 2, ["2020-01-01T23:00", "2020-01-02T23:00"]):
        frame = pd.DataFrame({"BTC": [0.5, 0.1]}, index=pd.DatetimeIndex(index))
        with pytest.raises(WeightsError):
            FixedWeights(frame)
