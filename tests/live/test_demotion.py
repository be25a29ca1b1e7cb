"""A demoted strategy: what it orders, what survives a kill, who lets it go on; on paper accounts."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.context import ForkServerContext as Forks
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import PaperDEX, RunConfig, load_panel
from engine.errors import DemotedError, LimitError, LiveError
from engine.live.demotion import Demotion, demote, demotion_of, demotion_path, events_of
from engine.live.journal import Journal
from engine.live.orders import Outcome
from engine.live.risk_limits import Limits
from engine.live.session import Session
from engine.live.spec import load_live_oracle, read_spec, write_spec
from engine.live.targets import Strategy, TargetProvider
from engine.monitoring.edge_bands import edge_bands
from engine.monitoring.replay import plan_differences
from engine.oracles.fixed_weights import FixedWeights
from engine.panel import Panel
from helpers.effort import some
from helpers.live_world import Run, killed_after, momentum_spec
from helpers.panels import random_panel

ALARM = Demotion("edge", "2024-01-03T23:00:00+00:00", "drawdown", 0.3, 0.2, "the edge is crossed")

NEVER = json.dumps({"events": [{"kind": "demoted", **ALARM.to_dict(), "at": "never"}]}).encode()


class Account:
    """A paper account of one strategy on a panel, a run a day."""

    def __init__(self, folder: Path, panel: Panel) -> None:
        self.folder, self.panel = folder, panel
        self.config = RunConfig.from_dict({"account": {"max_gross": 3.0}})
        self.dex = PaperDEX(panel, self.config)
        self.alarm: Demotion | None = None
        self.watched: list[float | None] = []

    def session(self, row: Mapping[str, float], name: str = "book") -> Session:
        strategy = Strategy(name, f"{name}-key", TargetProvider(FixedWeights.of(row), self.config), Limits.none())
        session = Session(strategy, self.dex, Journal(self.folder / "book-paper.jsonl"), self.panel)
        session.watch = self._watch
        return session

    def _watch(self, entries: object, instant: pd.Timestamp, equity_usd: float | None) -> Demotion | None:
        self.watched.append(equity_usd)
        return self.alarm

    def run(self, row: Mapping[str, float]) -> tuple[Outcome, dict[str, float], dict[str, float]]:
        """The outcome, and the positions before and after."""
        before = dict(self.dex.account().units)
        outcome = self.session(row).execute()
        return outcome, before, dict(self.dex.account().units)

    @property
    def entries(self) -> list[dict[str, Any]]:
        return Journal(self.folder / "book-paper.jsonl").entries


def drawn(rng: np.random.Generator, coins: tuple[str, ...]) -> dict[str, float]:
    """Weights of some coins, of either sign; some tiny, some 0."""
    scale = rng.choice([0.0, 0.0005, 0.02, 0.2, 0.4], size=len(coins))
    return {coin: float(weight) for coin, weight in zip(coins, scale * rng.choice([-1, 1], len(coins)), strict=True)}


@pytest.mark.parametrize("seed", range(some(3, 40)))
def test_what_is_ordered_is_the_part_of_the_plan_that_reduces(tmp_path: Path, seed: int) -> None:
    """Nothing opens, grows or flips, whatever the book; reductions and closes are those of the whole plan."""
    rng = np.random.default_rng(seed)
    account = Account(tmp_path, random_panel(seed, 24 * 9, 7))
    account.dex.advance(account.panel.index[23])
    reduced = 0
    for day in range(1, 8):
        row = drawn(rng, account.panel.coins)
        account.alarm = ALARM if day % 2 == 0 else None
        demotion_path(tmp_path, "book").unlink(missing_ok=True)
        # The whole plan, of a strategy of another name that nothing has demoted.
        other = account.session(row, "other")
        other.watch = None
        whole = {order.coin: order for order in other.preview()[0].orders}
        outcome, before, after = account.run(row)
        if account.alarm is not None:
            for coin in {*before, *after}:
                had, has = before.get(coin, 0.0), after.get(coin, 0.0)
                assert has * had >= 0.0 and abs(has) <= abs(had), (coin, had, has)
                wanted = whole[coin].target_units if coin in whole else had
                cut = 0.0 if wanted * had <= 0.0 else np.sign(had) * min(abs(had), abs(wanted))
                assert has == pytest.approx(cut, rel=1e-9) or coin in {item.coin for item in outcome.missing}
                reduced += abs(has) < abs(had)
            assert all(order.reduce_only for order, _ in outcome.results)
            (plan,) = [entry for entry in account.entries if entry["kind"] == "plan"][-1:]
            assert plan["reduces_only"] is True and plan["plan"]["net_target"] is not None
        account.dex.advance(account.panel.index[23 + 24 * day])
    assert reduced > 0


def test_the_demotion_is_recorded_once_and_stands(tmp_path: Path) -> None:
    account = Account(tmp_path, random_panel(1, 24 * 5, 4))
    account.dex.advance(account.panel.index[23])
    coins = account.panel.coins
    account.run(dict.fromkeys(coins[:2], 0.3))
    assert demotion_of(tmp_path, "book") is None and not demotion_path(tmp_path, "book").exists()
    account.alarm = ALARM
    equity = account.dex.account().equity_usd
    account.run(dict.fromkeys(coins[2:], 0.3))
    assert demotion_of(tmp_path, "book") == ALARM and account.watched[-1] == equity
    kinds = [entry["kind"] for entry in account.entries]
    assert kinds.count("demoted") == 1 and kinds.index("demoted") < len(kinds) - kinds[::-1].index("plan") - 1
    account.alarm = None  # the alarm is over; the record is not
    looks = len(account.watched)
    account.dex.advance(account.panel.index[47])
    session = account.session(dict.fromkeys(coins, 0.2))
    outcome = session.execute()
    assert outcome.results == () and account.dex.account().units == {} and len(account.watched) == looks
    assert "book is DEMOTED" in session.notes[0] and "hlbt live reinstate book" in session.notes[0]
    assert [event["kind"] for event in events_of(tmp_path, "book")] == ["demoted"]
    # One strategy's demotion is no other's, and the way out is open.
    assert demotion_of(tmp_path, "other") is None


def test_a_plan_of_before_the_alarm_is_not_carried_out_beyond_its_reductions(tmp_path: Path) -> None:
    """Killed after its plan, alarmed before the next run: the openings of that plan are dropped, a flip is a close."""
    account = Account(tmp_path, random_panel(2, 24 * 4, 4, quotes=False))
    account.dex.advance(account.panel.index[23])
    first, second, third, _ = account.panel.coins
    _, _, held = account.run({first: 0.4, second: -0.4})
    account.dex.advance(account.panel.index[47])
    with pytest.raises(KeyboardInterrupt), killed_after("plan"):
        account.run({first: -0.4, second: -0.2, third: 0.3})
    account.alarm = ALARM
    _, before, after = account.run({first: -0.4, second: -0.2, third: 0.3})
    assert before == held and set(after) == {second} and before[second] < after[second] < 0.0
    assert [entry["kind"] for entry in account.entries].count("plan") == 2  # it was continued


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"events": [{"kind": "demoted"}]}', b'{"events": [{}]}', b'{"events": {}}', b"\xff", NEVER],
)
def test_a_record_that_cannot_be_read_counts_as_a_demotion(tmp_path: Path, content: bytes) -> None:
    account = Account(tmp_path, random_panel(3, 24 * 3, 3))
    account.dex.advance(account.panel.index[23])
    demotion_path(tmp_path, "book").write_bytes(content)
    session = account.session(dict.fromkeys(account.panel.coins, 0.3))
    assert session.execute().results == () and account.dex.account().units == {}
    assert "cannot be read" in session.notes[0] and session.demotion is not None
    assert session.demotion.question == "record" and account.watched == []


def test_without_a_record_on_the_disk_nothing_is_ordered(tmp_path: Path) -> None:
    """The folder cannot be written to: the run ends before any order, whatever the alarm would have let through."""
    account = Account(tmp_path, random_panel(4, 24 * 3, 3))
    account.dex.advance(account.panel.index[23])
    account.run(dict.fromkeys(account.panel.coins, 0.2))
    account.alarm = ALARM
    path = demotion_path(tmp_path, "book")
    path.with_name(f".{path.name}.{os.getpid()}.writing").mkdir()
    orders = sum(entry["kind"] == "intent" for entry in account.entries)
    with pytest.raises(LiveError, match=r"cannot be written.*Nothing is sent without it"):
        account.run(dict.fromkeys(account.panel.coins, 0.1))
    assert sum(entry["kind"] == "intent" for entry in account.entries) == orders


def test_closing_everything_is_not_in_the_way_of_a_demotion(tmp_path: Path) -> None:
    account = Account(tmp_path, random_panel(5, 24 * 3, 3))
    account.dex.advance(account.panel.index[23])
    account.run(dict.fromkeys(account.panel.coins, 0.2))
    demote(tmp_path, "book", ALARM)
    outcome, _, after = account.run({})  # what flatten does: no weights at all
    assert outcome.complete and after == {}


# The command ----------------------------------------------------------------------------------------------------------

#: A run that always earned: any loss beyond its noise is beyond the bands.
STEADY = 0.002 + 0.0005 * np.sin(np.arange(60))


def watched_spec(folder: Path, cache: Path, **limits: float) -> Path:
    path = momentum_spec(folder, cache, limits=Limits(**limits) if limits else None)
    write_spec(replace(read_spec(path), bands=edge_bands(STEADY, horizon_days=60, paths=200).to_dict()), path)
    return path


def words_of(spec: Path, day: int, *more: str) -> list[str]:
    now = pd.Timestamp("2024-03-01T22:59:30Z") + pd.Timedelta(days=day)
    where = ["--network", "paper", "--journal", str(spec.parent / "live"), "--now", now.isoformat()]
    return ["live", "run", str(spec), "--execute", "--json", "--no-sync", *where, *more]


def account_of(spec: Path) -> dict[str, float]:
    positions = json.loads((spec.parent / "live" / "momentum-paper.json").read_text())["positions"]
    return {coin: float(position["units"]) for coin, position in positions.items() if position["units"]}


@pytest.mark.slow
def test_a_run_demotes_and_a_person_reinstates_until_the_next_alarm(
    run: Run, sample_cache: Path, tmp_path: Path
) -> None:
    spec, folder = watched_spec(tmp_path, sample_cache), tmp_path / "live"
    codes = []
    for day in range(8):
        before = account_of(spec) if day else {}
        done = run(words_of(spec, day))
        codes.append(done.code)
        if done.code == DemotedError.exit_code:
            break
        assert done.code == 0, done.err
    assert codes[-1] == DemotedError.exit_code and len(codes) > 1, codes
    assert "momentum is DEMOTED at" in done.err and "beyond its band of" in done.err
    printed = json.loads(done.out)
    found = demotion_of(folder, "momentum")
    assert found is not None and found.question == "edge" and printed["demotion"]["statistic"] == found.statistic
    held = account_of(spec)
    assert set(held) <= set(before) and all(abs(held[coin]) <= abs(before[coin]) for coin in held)
    assert all(order["reduce_only"] for order in printed["orders"])
    # Plan = replay, of what was left of the plan too.
    journal, promoted = Journal(folder / "momentum-paper.jsonl").entries, read_spec(spec)
    panel, oracle = load_panel(sample_cache, end="2024-03-31"), load_live_oracle(promoted)[0]
    newest = [entry for entry in journal if entry["kind"] == "plan"][-1]
    checked = plan_differences([newest], panel, promoted, oracle)
    assert (checked.instants_checked, checked.differences, checked.unchecked) == (1, (), ())
    assert plan_differences([{**newest, "reduces_only": False}], panel, promoted, oracle).differences
    # The plan says so, too, and sends nothing.
    seen = run([word for word in words_of(spec, len(codes)) if word != "--execute"])
    assert seen.code == DemotedError.exit_code and json.loads(seen.out)["executed"] is False
    # Not without a reason, and not twice.
    words = ["live", "reinstate", str(spec), *words_of(spec, len(codes))[-4:], "--network", "paper", "--reason"]
    assert run([*words, " "]).code == 1 and demotion_of(folder, "momentum") == found
    done = run([*words, "the fee of the venue was wrong, and is mended"])
    assert done.code == 0 and "is reinstated" in done.out, done.err
    assert run([*words, "again"]).code == 1
    events = events_of(folder, "momentum")
    assert [event["kind"] for event in events] == ["demoted", "reinstated"]
    assert events[1]["reason"].startswith("the fee") and events[1]["threshold"] == found.threshold
    # It adds risk again, from a new first day; and the next alarm demotes it again.
    for day in range(len(codes), len(codes) + 8):
        done = run(words_of(spec, day))
        if day == len(codes):
            assert done.code == 0 and len(account_of(spec)) == 2, done.err
        if done.code == DemotedError.exit_code:
            break
    assert [event["kind"] for event in events_of(folder, "momentum")] == ["demoted", "reinstated", "demoted"]


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before the record", "in the record", "after the record", "after its entry"])
def test_a_kill_between_alarm_and_orders_loses_nothing(
    run: Run, forks: Forks, sample_cache: Path, tmp_path: Path, when: str
) -> None:
    """Nothing that adds risk was ordered when it died; the next run of the instant, or of another day, adds none."""
    from helpers.live_kill import run_and_die_demoting

    spec, folder = watched_spec(tmp_path, sample_cache), tmp_path / "live"
    assert run(words_of(spec, 0)).code == 0
    # The account has lost a tenth since; nothing says that a person took it.
    state = json.loads((folder / "momentum-paper.json").read_text())
    state["cash_usd"] -= 1_000.0
    (folder / "momentum-paper.json").write_text(json.dumps(state))
    before = account_of(spec)
    child = forks.Process(target=run_and_die_demoting, args=(words_of(spec, 1), when))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    assert account_of(spec) == before
    known = demotion_of(folder, "momentum")
    assert (known is None) == (when in ("before the record", "in the record"))
    done = run(words_of(spec, 1))
    assert done.code == DemotedError.exit_code and demotion_of(folder, "momentum") is not None, done.err
    held = account_of(spec)
    assert all(abs(held[coin]) <= abs(before[coin]) for coin in held) and set(held) <= set(before)
    assert run(words_of(spec, 2)).code == DemotedError.exit_code
    kinds = [event["kind"] for event in events_of(folder, "momentum")]
    assert kinds == ["demoted"]


@pytest.mark.slow
def test_a_limit_still_stops_a_demoted_run(run: Run, sample_cache: Path, tmp_path: Path) -> None:
    spec = watched_spec(tmp_path, sample_cache, equity_change_frac=0.05)
    assert run(words_of(spec, 0)).code == 0
    demote(tmp_path / "live", "momentum", ALARM)
    state = json.loads((tmp_path / "live" / "momentum-paper.json").read_text())
    state["cash_usd"] *= 3.0
    (tmp_path / "live" / "momentum-paper.json").write_text(json.dumps(state))
    assert run(words_of(spec, 1)).code == LimitError.exit_code
