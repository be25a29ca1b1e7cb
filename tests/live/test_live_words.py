"""What the live path refuses and in which words: options, files, answers in no known form, orders without a fate."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from hyperliquid.utils.types import Cloid

from engine import HyperLiquidDEX, PaperDEX, PortfolioManager, RunConfig
from engine.errors import IncompleteError, LimitError, LiveError, OracleError, UnreachableError
from engine.live import boot_clock
from engine.live.journal import Journal
from engine.live.orders import Market, OrderRequest, OrderResult
from engine.live.risk_limits import Limits
from engine.live.schedule import next_run
from engine.live.spec import read_spec, write_spec
from engine.oracles.fixed_weights import FixedWeights
from helpers.hyperliquid_info import REFUSED, Fault, Reply
from helpers.hyperliquid_world import AGENT, GTC, MASTER, client, only
from helpers.live_world import Run, World, daily, momentum_spec, near
from helpers.panels import random_panel

pytestmark = pytest.mark.slow

NOW = pd.Timestamp("2025-06-01T22:59:30Z")


# Options --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--timeout-seconds", "0"], "--timeout-seconds"),
        (["--slippage-bps", "-1"], "--slippage-bps"),
        (["--expires-seconds", "601"], "--expires-seconds"),
        (["--limit", "gross"], "name=value"),
        (["--limit", "gros=1"], "Did you mean 'gross'"),
        (["--now", "2019-01-01T22:59Z"], "no row at or before"),
    ],
)
def test_options_that_are_refused(world: World, run: Run, options: list[str], said: str) -> None:
    done = run([*world.rebalance({"BTC": 0.5}), *options])
    assert done.code != 0 and said in done.err and not world.server.requests


def test_files_that_are_refused(world: World, run: Run) -> None:
    (world.folder / "none.csv").write_text("time,BTC\n")
    done = run(world.words("rebalance", "--weights", world.folder / "none.csv", "--execute"))
    assert done.code == 1 and "none.csv" in done.err
    spec = momentum_spec(world.folder, world.folder / "cache")
    done = run(world.words("run", spec, "--execute", "--daily", "--now", NOW.isoformat()))
    assert done.code == 1 and "--daily" in done.err and not world.server.requests


def test_old_weights_are_traded_with_a_note_or_refused_by_a_limit(world: World, run: Run) -> None:
    path = world.weights({"BTC": 0.5}, time=(pd.Timestamp.now("UTC") - pd.Timedelta(hours=50)).isoformat())
    words = world.words("rebalance", "--weights", path, "--execute")
    done = run([*words, "--limit", "weights_age_hours=30"])
    assert done.code == 3 and "50.0 hours old" in done.err and not world.server.asked("order")
    done = run([*words, "--limit", "weights_age_hours=51", "--json"])
    assert done.code == 0 and "50.0 hours old" in done.json["session_notes"][0]


@pytest.mark.parametrize(("typed", "code"), [("mainnet", 0), ("testnet", 1), ("y", 1)])
def test_real_money_is_confirmed_by_its_name(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(typed + "\n"))
    done = run(world.rebalance({"BTC": 0.5}, "--network", "mainnet"))
    assert done.code == code and "REAL MONEY" in done.err
    assert len(world.server.asked("order")) == (code == 0)


def test_a_kill_switch_of_ones_own_is_told_of_in_a_dry_run(world: World, run: Run) -> None:
    switch = world.folder / "STOP"
    switch.touch()
    words = [*world.rebalance({"BTC": 0.5}), "--kill-switch", str(switch)]
    assert run(words).code == 3 and not world.server.asked("order")
    words.remove("--execute")
    done = run(words)
    assert done.code == 0 and f"{switch} is set" in done.out.replace("\n", "")


def test_a_paper_account_is_flattened_at_its_own_costs(world: World, run: Run) -> None:
    spec = momentum_spec(world.folder, world.folder / "cache", costs={"taker_bps": 50.0})
    words = ["--network", "paper", "--now", pd.Timestamp.now("UTC").isoformat()]
    assert run(world.words("run", spec, "--execute", *words)).code == 0
    done = run(world.words("flatten", spec, "--execute", *words))
    assert done.code == 0, done.err
    state = json.loads((world.journals / "momentum-paper.json").read_text())
    assert state["positions"] == {} and len(state["trades"]) == 4
    for trade in state["trades"]:
        assert trade["fee_usd"] == pytest.approx(0.005 * abs(trade["units"]) * trade["price"])


def test_a_paper_account_of_a_weights_file_is_brought_its_hours(world: World, run: Run) -> None:
    """It was told to sync, by a command that would not."""
    start = world.half_past_two()
    words = world.words("rebalance", "--weights", world.weights({"BTC": 0.5}), "--execute", "--network", "paper")
    words += ["--set", f"data.cache={world.folder / 'cache'}"]
    assert run([*words, "--now", start.isoformat()]).code == 0
    world.server.advance(30)
    done = run([*words, "--now", (start + pd.Timedelta(hours=30)).isoformat()])
    assert done.code == 0, done.err


def test_a_paper_account_is_brought_its_hours_before_it_is_flattened(world: World, run: Run) -> None:
    spec = momentum_spec(world.folder, world.folder / "cache")
    start = world.half_past_two()
    words = ["--network", "paper", "--execute", "--now"]
    assert run(world.words("run", spec, *words, start.isoformat())).code == 0
    world.server.advance(30)
    done = run(world.words("flatten", spec, *words, (start + pd.Timedelta(hours=30)).isoformat()))
    assert done.code == 0, done.err
    assert json.loads((world.journals / "momentum-paper.json").read_text())["positions"] == {}


def test_a_plan_leaves_a_paper_account_as_it_is(world: World, run: Run) -> None:
    """It began the account at its own instant, of the size of the backtest, and a run of before was refused."""
    spec = momentum_spec(world.folder, world.folder / "cache")
    write_spec(replace(read_spec(spec), account={"equity_usd": 25_000.0}), spec)
    start = world.stop_clock()
    paper = ["--network", "paper", "--now"]
    for words in (("plan", spec), ("run", spec), ("flatten", spec)):
        done = run(world.words(*words, *paper, start.isoformat()))
        assert done.code == 0 and "a run begins one of 25,000 USD" in " ".join(done.out.split()), done.err
    assert not list(world.journals.glob("**/*"))
    state = world.journals / "momentum-paper.json"
    earlier = (start - pd.Timedelta(hours=3)).isoformat()
    assert run(world.words("run", spec, "--execute", *paper, earlier)).code == 0
    kept = json.loads(state.read_text())
    worth = sum(held["units"] * held["price"] for held in kept["positions"].values())
    assert kept["cash_usd"] + worth == pytest.approx(25_000, rel=0.01) and kept["trades"]
    before = {path: path.read_bytes() for path in world.journals.glob("**/*")}
    done = run(world.words("plan", spec, *paper, start.isoformat()))
    assert done.code in (0, 3) and "begins one of" not in done.out, done.err  # a coin may have lost its quote
    assert {path: path.read_bytes() for path in world.journals.glob("**/*")} == before
    done = run(world.words("plan", spec, *paper, (start - pd.Timedelta(days=2)).isoformat()))
    assert done.code == 1 and "Sync" not in done.err
    for text in ("where it ran last, and cannot go back to", "--now", f"delete {state} and the journal"):
        assert text in done.err


def test_orders_that_rest_on_the_account_are_named(world: World, run: Run) -> None:
    assert run(world.rebalance({"BTC": 0.5}, "--json")).json["session_notes"][1:] == []
    only(client(world.server).order("ETH", True, 0.01, 3_000.0, GTC))
    words = world.rebalance({"BTC": 0.5}, "--json")
    for command in (words, [word for word in words if word != "--execute"]):
        assert "1 orders of somebody else rest on the account, for ETH" in " ".join(run(command).json["session_notes"])


@pytest.mark.parametrize("answer", [{}, {"C00": 0.0}])
def test_an_oracle_that_names_no_coin_wants_none(answer: dict[str, float]) -> None:
    """A coin absent from a row is 0: an empty row had held the book instead."""

    class Leaving(FixedWeights):
        def fetch_portfolio_weights(
            self, timestamp: pd.Timestamp, tradable_universe: object, panel: object = None
        ) -> dict[str, float]:
            return {"C00": 0.5, "C01": -0.5} if timestamp == first else answer

    panel = random_panel(3, 72, 2, volume=False)
    first, later = panel.index[24], panel.index[48]
    dex = PaperDEX(panel, start=first)
    manager = PortfolioManager(
        Leaving(pd.DataFrame([[0.0]], index=panel.index[:1], columns=["C00"])), dex, panel=panel, limits=Limits.none()
    )
    assert manager.manage_portfolio(first).complete and len(dex.positions) == 2
    dex.advance(later)
    assert manager.manage_portfolio(later).complete and dex.positions == {}


def test_a_part_of_the_way_is_traded_once_an_instant_and_the_way_out_to_its_end() -> None:
    """A run that is started twice had gone another part of the way, and a flattening had closed a part."""
    panel = random_panel(3, 72, 2, volume=False)
    first, later = panel.index[24], panel.index[48]
    config = RunConfig.from_dict({"execution": {"trade_rate": 0.5}, "account": {"initial_equity_usd": 1e5}})
    weights = FixedWeights(pd.DataFrame({"C00": 0.5, "C01": -0.4}, index=[first, later]))
    dex, journal = PaperDEX(panel, config, start=first), Journal()

    def trade(oracle: FixedWeights, at: pd.Timestamp) -> dict[str, float]:
        manager = PortfolioManager(oracle, dex, config, panel=panel, limits=Limits.none(), journal=journal)
        assert manager.manage_portfolio(at).complete
        return dict(dex.positions)

    once = trade(weights, first)
    assert once["C00"] * panel.frame("mid").loc[first, "C00"] == pytest.approx(25_000, rel=0.01)
    assert trade(weights, first) == once and len(journal.entries) > 0
    dex.advance(later)
    twice = trade(weights, later)
    assert abs(twice["C00"]) > abs(once["C00"]) and trade(weights, later) == twice
    assert trade(FixedWeights.of({}), later) == {}


def test_a_deposit_is_accepted_once(world: World, run: Run) -> None:
    """Without that word a strategy stood still from its first deposit to its next promotion."""
    spec = momentum_spec(world.folder, world.folder / "cache")
    words = world.words("run", spec, "--execute")
    assert run(words).code == 0
    world.server.fund(MASTER.address, 20_000)
    done = run(words)
    assert done.code == 3 and "equity_change_frac" in done.err and "--accept-equity" in done.err
    done = run([*words, "--accept-equity", "--daily"])
    assert done.code == 1 and "--daily" in done.err
    assert run([*words, "--accept-equity"]).code == 0
    assert sum(map(abs, world.weights_held().values())) == pytest.approx(1.0, abs=0.01)
    assert run(words).code == 0
    world.server.fund(MASTER.address, -20_000)
    assert run(words).code == 3
    world.check()


def test_an_oracle_that_fails_says_when_and_is_asked_for_nothing_else() -> None:
    class Failing(FixedWeights):
        def fetch_portfolio_weights(self, *asked: object, **more: object) -> dict[str, float]:
            return {"C00": 1.0 / len([])}

    panel = random_panel(3, 48, 2)
    dex = PaperDEX(panel)
    with pytest.raises(OracleError, match=r"Failing failed at .* UTC: ZeroDivisionError"):
        PortfolioManager(
            Failing(pd.DataFrame([[0.0]], index=panel.index[:1], columns=["C00"])), dex, panel=panel
        ).plan()


def test_variants_that_need_prices_need_a_cache(world: World, run: Run) -> None:
    words = ["--set", "execution.target_volatility=0.2", "--set", f"data.cache={world.folder / 'none'}"]
    done = run([*world.rebalance({"BTC": 0.5}), "--no-sync", *words])
    assert done.code == 1 and "market data" in done.err and not world.server.asked("order")


# The daily loop -------------------------------------------------------------------------------------------------------


def test_daily_without_its_data_tries_again_with_the_orders(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = momentum_spec(world.folder, world.folder / "cache")
    world.server.fail(REFUSED, times=99, type="meta")

    def change(number: int) -> None:
        if number == 2:
            world.server.faults.clear()

    waited = daily(world, monkeypatch, 3, change=change)
    done = run(world.words("run", spec, "--execute", "--daily"))
    assert done.code == 130 and waited == ["22:40", "22:59", "22:40"], done.err
    assert "tried again with the orders" in done.err and len(world.positions) == 2


def test_daily_that_a_limit_stops_goes_on_the_next_day_and_a_refused_spec_ends_it(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = momentum_spec(world.folder, world.folder / "cache")

    def change(number: int) -> None:
        (world.journals / "KILL").unlink(missing_ok=True)
        if number == 2:
            world.journals.mkdir(exist_ok=True)
            (world.journals / "KILL").touch()
        if number == 4:
            spec.write_text(spec.read_text().replace('"gross": 1.1', '"gross": 9.9'))

    waited = daily(world, monkeypatch, 9, change=change)
    done = run(world.words("run", spec, "--execute", "--daily"))
    assert done.code == 5 and waited == ["22:40", "22:59", "22:40", "22:59"]
    assert "kill switch" in done.err and "edited" in done.err and len(world.positions) == 2


def test_a_schedule_without_a_day_is_no_endless_loop() -> None:
    with pytest.raises(LimitError, match="two years"):
        next_run(NOW, RunConfig.from_dict({"execution": {"every_days": 100_000}}))


# Answers --------------------------------------------------------------------------------------------------------------


def dex_of(world: World) -> HyperLiquidDEX:
    return HyperLiquidDEX(base_url=world.server.url, credentials=world.credentials, sleep=lambda seconds: None)


ORDER = OrderRequest("0x" + "7" * 32, "BTC", 0.01, 101_000.0, False)
QUESTIONS: dict[str, tuple[str, Callable[[HyperLiquidDEX], object]]] = {
    "clearinghouseState": ("{}", lambda dex: dex.account()),
    "metaAndAssetCtxs": ("[1, 2]", lambda dex: dex.markets()),
    "extraAgents": ('["x"]', lambda dex: dex.warnings()),
    "l2Book": ('{"levels": 3}', lambda dex: dex.quoted(Market("BTC", 1.0))),
    "userFillsByTime": ('[{"coin": "BTC"}]', lambda dex: dex.fills(NOW)),
    "orderStatus": ('{"status": "order"}', lambda dex: dex.find_order(ORDER)),
}


@pytest.mark.parametrize("kind", QUESTIONS)
def test_an_answer_in_another_form_is_no_answer(world: World, kind: str) -> None:
    body, question = QUESTIONS[kind]
    world.server.approve_agent(MASTER.address, AGENT.address)
    world.credentials.write_text(json.dumps({"secret_key": "22" * 32, "account_address": MASTER.address}))
    world.server.fail(Reply(body), type=kind)
    with pytest.raises(UnreachableError, match=f"{kind} in a form that is not known"):
        question(dex_of(world))


@pytest.mark.parametrize(
    "body",
    [
        '[{"universe": [null]}, [{}]]',
        '[{"universe": [{}]}, [{}]]',
        '[{"universe": [{"name": "A"}]}, [{"impactPxs": [1]}]]',
    ],
)
def test_a_table_in_another_form_is_none_whoever_asks(world: World, body: str) -> None:
    dex = HyperLiquidDEX("mainnet", base_url=world.server.url, credentials=world.credentials)
    for question in (dex.live_row, lambda: dex.unlisted(["BTC"])):
        world.server.fail(Reply(body), type="metaAndAssetCtxs")
        if question == dex.live_row or "impactPxs" not in body:
            with pytest.raises(UnreachableError, match="metaAndAssetCtxs in a form that is not known"):
                question()


@pytest.mark.parametrize("kind", ["userFillsByTime", "extraAgents"])
def test_what_is_asked_after_the_orders_does_not_hide_how_they_ended(world: World, run: Run, kind: str) -> None:
    world.server.approve_agent(MASTER.address, AGENT.address)
    world.credentials.write_text(json.dumps({"secret_key": "22" * 32, "account_address": MASTER.address}))
    world.server.fail(Reply('["x"]'), times=99, type=kind)
    done = run(world.rebalance({"BTC": 0.5}))
    assert done.code == 0 and "At target" in done.out, done.err
    near(world, {"BTC": 0.5})


def test_a_market_without_its_figures_is_no_market(world: World) -> None:
    meta, contexts = world.server.answers.meta(), [{"midPx": "1.0"}] * 5
    world.server.fail(Reply(json.dumps([meta, contexts])), type="metaAndAssetCtxs")
    with pytest.raises(UnreachableError, match="oraclePx"):
        dex_of(world).markets()


@pytest.mark.parametrize(
    ("reply", "rejected"),
    [
        (Reply("Failed to deserialize", 422), True),
        (Reply("[]", 429), True),  # in no form of the SDK's
        (Reply('{"who": "knows"}', 400), False),  # the SDK trips over it
        (Reply('{"status": "ok", "response": {}}'), False),
        (Reply('{"status": "ok", "response": {"data": {"statuses": ["waitingForFill"]}}}'), False),
        (Reply('{"status": "ok", "response": {"data": {"statuses": [{"filled": 3}]}}}'), False),
        (Reply('{"status": "ok", "response": {"data": {"statuses": []}}}'), False),
    ],
    ids=["422", "429", "400", "no-data", "waiting", "no-size", "none"],
)
def test_an_order_is_refused_only_in_words_that_are_sure(world: World, reply: Reply, rejected: bool) -> None:
    """All else is asked for, by its id: it may have been executed."""
    dex = dex_of(world)
    world.server.faults.append(Fault(lambda payload: payload.get("action", {}).get("type") == "order", reply))
    [answer] = dex.send([ORDER], dex.clock_ms() + 5_000)
    assert answer.fate == ("rejected" if rejected else "unknown") and answer.cloid == ORDER.cloid
    assert dex.find_order(ORDER) is None


def test_an_order_that_cannot_be_written_is_not_sent(world: World) -> None:
    """More than eight decimals: the SDK refuses before anything leaves."""
    dex = dex_of(world)
    odd = OrderRequest(ORDER.cloid, "BTC", 0.0123456789, 101_000.0, False)
    [answer] = dex.send([odd], dex.clock_ms() + 5_000)
    assert answer.fate == "rejected" and "cannot be sent" in answer.reason and not world.server.asked("order")


def test_an_order_that_rests_is_cancelled_and_counts_by_what_it_filled(world: World) -> None:
    sdk = client(world.server)
    assert only(sdk.order("BTC", True, 0.01, 99_000, GTC, cloid=Cloid.from_str(ORDER.cloid)))["resting"]
    dex = dex_of(world)
    first = dex.find_order(ORDER)
    assert first is not None and first.fate == "unknown" and "cancelled" in first.reason
    [order] = world.server.orders
    assert order.status == "canceled"
    assert dex.find_order(ORDER) == OrderResult(ORDER.cloid, "rejected", reason="canceled")


def test_refusals_of_what_surrounds_the_orders(world: World, run: Run) -> None:
    """Leverage that is refused keeps a coin out."""
    text, bitcoin = "Invalid leverage value", {"match": lambda payload: payload["action"]["asset"] == 0}
    world.server.inject("outage", after=False, on="updateLeverage", text=text, **bitcoin)
    done = run(world.rebalance({"BTC": 0.3, "ETH": 0.3}, "--json"))
    assert done.code == 4 and [item["coin"] for item in done.json["missing"]] == ["BTC"]
    assert "Invalid leverage value" in done.err and world.last("leverages_set")["refused"].keys() == {"BTC"}
    near(world, {"ETH": 0.3})
    assert run(world.rebalance({"BTC": 0.3, "ETH": 0.3})).code == 0
    world.server.refuse("User or API Wallet 0x does not exist.", on="updateLeverage")
    done = run(world.rebalance({"BTC": 0.3, "ETH": 0.3, "DOGE": 0.1, "RLB": 0.1}, "--json"))
    assert done.code == 4 and {item["coin"] for item in done.json["missing"]} == {"DOGE", "RLB"}


def test_a_one_sided_book_has_no_pair_of_quotes(world: World) -> None:
    world.server.set_book("ETH", bid=3_999)
    dex = dex_of(world)
    assert dex.quoted(Market("ETH", 4_000.0)).bid is None
    world.server.fail(Reply('{"levels": [[{"px": "99990"}], []]}'), type="l2Book")
    with pytest.raises(LiveError, match="no two-sided quote"):
        dex.get_bid_ask("BTC")


# Orders ---------------------------------------------------------------------------------------------------------------


class Stubborn(PaperDEX):
    """A paper account with a clock that runs, and one thing that goes wrong."""

    def __init__(self, wrong: str, switch: Path) -> None:
        panel = random_panel(2, 48, 1)
        super().__init__(panel, start=panel.index[-1])
        self.wrong, self.switch, self.time, self.looks, self.sent = wrong, switch, 1_000_000, 0, 0

    def clock_ms(self) -> int:
        return self.time

    def markets(self) -> Mapping[str, Market]:
        self.looks += 1
        return {} if self.wrong == "gone" and self.looks > 1 else super().markets()

    def round_price(self, market: Market, price: float, buy: bool) -> float:
        return 0.0 if self.wrong == "tick" else price

    def clock_error_seconds(self) -> float:
        """Read with the limits: after the plan, before the first order."""
        if self.wrong == "killed":
            self.switch.touch()
        return 0.0

    def send(self, orders: Sequence[OrderRequest], expires_ms: int) -> list[OrderResult]:
        self.sent += 1
        fate = "unknown" if self.wrong == "silent" else "rejected"
        return [OrderResult(order.cloid, fate, reason="no") for order in orders]  # type: ignore[arg-type]

    def find_order(self, order: OrderRequest) -> OrderResult:
        return OrderResult(order.cloid, "unknown", reason="it rests, and was cancelled")


@pytest.mark.parametrize(
    ("wrong", "said", "sent"),
    [
        ("gone", "has no quote now", 1),
        ("tick", "no price on its tick", 0),
        ("killed", "kill switch", 0),
        ("silent", "does not say what became of", 1),
        ("refused", "no", 4),
    ],
)
def test_why_a_position_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, said: str, sent: int
) -> None:
    dex = Stubborn(wrong, tmp_path / "KILL")
    # Both clocks that decide when an order is void go on with the sleeps.
    monkeypatch.setattr(boot_clock, "time", SimpleNamespace(monotonic=lambda: dex.time / 1000.0))

    def sleep(seconds: float) -> None:
        dex.time += round(1000 * seconds)

    journal = Journal()
    manager = PortfolioManager(
        FixedWeights.of({"C00": 0.5}),
        dex,
        panel=dex.panel,
        journal=journal,
        limits=Limits.none(),
        kill_switch=tmp_path / "KILL",
        sleep=sleep,
    )
    with pytest.raises(IncompleteError, match=said):
        manager.manage_portfolio()
    assert dex.sent == sent and dex.positions == {}
    assert len(journal.state.unresolved) == (wrong == "silent")


def test_a_kill_switch_set_at_the_last_moment_stops_a_close(tmp_path: Path) -> None:
    """Between the plan and the first order."""
    dex = Stubborn("killed", tmp_path / "KILL")
    dex.book.units[0], dex.book.price[0] = 1_000.0, dex.markets()["C00"].mid
    manager = PortfolioManager(
        FixedWeights.of({}), dex, journal=Journal(), limits=Limits.none(), kill_switch=tmp_path / "KILL"
    )
    with pytest.raises(IncompleteError, match="kill switch"):
        manager.manage_portfolio()
    assert dex.sent == 0 and dex.positions == {"C00": 1_000.0}


def test_what_a_partial_fill_leaves_under_the_minimum_is_let_be(world: World, run: Run) -> None:
    """5,000 DOGE asked for, 4,995 had: five more are 1 USD, which the exchange would refuse."""
    world.server.fill_share(0.999, coin="DOGE")
    done = run(world.rebalance({"DOGE": 0.1}, "--json"))
    assert done.code == 0 and len(done.json["orders"]) == 1 and world.positions == {"DOGE": 4_995.0}
    assert done.json["notes"] == ["DOGE: +5 is left, under the minimum notional"]


def test_a_damaged_journal_of_another_strategy_is_told_of_and_stops_nothing(world: World, run: Run) -> None:
    assert run(world.rebalance({"BTC": 0.3})).code == 0
    [journal] = world.journals.glob("book-*.jsonl")
    other = journal.with_name(journal.name.replace("book", "other"))
    other.write_text('{"n": 5}\n')
    done = run(world.words("flatten", "book", "--execute", "--json"))
    assert done.code == 0 and world.positions == {} and "damaged in line 1" in done.json["session_notes"][-1]
    other.unlink()
    journal.write_text('{"n": 5}\n')
    done = run(world.rebalance({"BTC": 0.3}))
    assert done.code == 1 and "damaged in line 1" in done.err and world.positions == {}
