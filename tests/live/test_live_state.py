"""One account, whatever directory a run is started in: its lock, its journals, its kill switches, its first run."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest

from engine import HyperLiquidDEX
from engine.errors import LiveError
from engine.live.state_folder import account_folder, journal_path, state_folder
from helpers.hyperliquid_world import MASTER, client, only
from helpers.live_world import Run, World, killed_after, momentum_spec, near

pytestmark = pytest.mark.slow

BOOK = {"BTC": 0.4, "ETH": -0.3}


def label_of(world: World) -> str:
    return HyperLiquidDEX(base_url=world.server.url, credentials=world.credentials).label


def default(words: list[str]) -> list[str]:
    """The command without ``--journal``: the account's own files."""
    at = words.index("--journal")
    return [*words[:at], *words[at + 2 :]]


def in_a_new_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> Path:
    here = tmp_path / name
    here.mkdir()
    monkeypatch.chdir(here)
    return here


def orders_sent(world: World) -> int:
    return len(world.server.orders)


# Two directories ------------------------------------------------------------------------------------------------------


def test_two_directories_have_one_history(
    world: World, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.stop_clock()
    assert run(default(world.rebalance(BOOK))).code == 0
    sent = orders_sent(world)
    [link] = Path("reports/live").glob("*.jsonl")
    in_a_new_directory(monkeypatch, tmp_path, "other")
    done = run(default(world.rebalance(BOOK, "--json")))
    assert done.code == 0, done.err
    assert orders_sent(world) == sent
    near(world, BOOK)
    [other] = Path("reports/live").glob("*.jsonl")
    assert other.is_symlink() and other.resolve() == Path(done.json["journal"])
    numbers = [json.loads(line)["n"] for line in other.read_text().splitlines()]
    assert numbers == list(range(len(numbers)))
    assert stat.S_IMODE(other.resolve().parent.stat().st_mode) == 0o700
    assert not link.is_file() or link.resolve() == other.resolve()
    status = run([*default(world.words("status", "book")), "--json"]).json
    assert len(status["runs"]) == 2 and Path(status["journal"]) == other.resolve()


def test_of_two_processes_in_two_directories_one_trades(world: World, tmp_path: Path) -> None:
    """Real processes: the account's lock is where both look for it."""
    world.server.inject("slow", on="clearinghouseState", times=99, seconds=0.4)  # long enough that both are at work
    processes = []
    for name, weight in (("a", 0.4), ("b", 0.38)):  # not the same orders: the exchange would refuse those itself
        (tmp_path / name).mkdir()
        row = world.weights({"BTC": weight}, name=f"{name}.csv")
        words = default(world.words("rebalance", "--weights", row, "--execute"))
        code = "from engine.cli import main; main()"
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", code, *words],
                cwd=tmp_path / name,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    texts = [process.communicate(timeout=120) for process in processes]
    codes = [process.returncode for process in processes]
    assert 0 in codes and set(codes) <= {0, 1}, texts
    assert all(
        "Another process trades this account" in err for (_, err), code in zip(texts, codes, strict=True) if code
    )
    near(world, {"BTC": 0.39}, slack=0.015)
    assert len({order.cloid for order in world.server.orders}) == orders_sent(world)


def test_a_lock_held_elsewhere_stops_a_run_with_any_journal(world: World, run: Run) -> None:
    from engine.live.state_folder import single_instance

    with single_instance(account_folder(label_of(world)) / "lock"):
        for words in (world.rebalance(BOOK), default(world.rebalance(BOOK))):
            done = run(words)
            assert done.code == 1 and "Another process" in done.err
    assert not world.server.asked("order")


def test_a_journal_is_named_by_its_file_or_its_folder(world: World, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "mine" / "own.jsonl"
    words = default(world.rebalance(BOOK, "--json"))
    done = run([*words, "--journal", str(file)])
    assert done.code == 0 and done.json["journal"] == str(file) and file.is_file()
    assert not list(account_folder(label_of(world)).glob("*.jsonl"))
    status = run([*default(world.words("status", "book", "--json")), "--journal", str(file)])
    assert status.code == 0 and len(status.json["runs"]) == 1


# Journals of an earlier release ---------------------------------------------------------------------------------------


def old_journal(world: World, run: Run, row: dict[str, float]) -> Path:
    """A journal in the working directory's reports/live, as an earlier release kept it."""
    done = run([*default(world.rebalance(row, "--json")), "--journal", "reports/live"])
    assert done.code == 0, done.err
    path = Path("reports/live") / f"book-{label_of(world)}.jsonl"
    content = path.read_bytes()
    path.unlink()
    path.resolve().unlink(missing_ok=True)
    for other in account_folder(label_of(world)).glob("*.jsonl"):
        other.unlink()
    path.write_bytes(content)
    return path


def test_an_old_journal_is_moved_and_continued(
    world: World, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.stop_clock()
    old = old_journal(world, run, BOOK)
    before = old.read_text()
    preview = default(world.rebalance(BOOK, "--json"))
    preview.remove("--execute")
    assert run(preview).json["breaches"] == [] and not old.is_symlink()
    status = run([*default(world.words("status", "book")), "--json"])
    assert status.code == 0 and len(status.json["runs"]) == 1
    sent = orders_sent(world)
    done = run(default(world.rebalance(BOOK, "--json")))
    assert done.code == 0, done.err
    assert any("was moved to" in note for note in done.json["session_notes"])
    assert orders_sent(world) == sent and old.is_symlink() and old.read_text().startswith(before)
    in_a_new_directory(monkeypatch, tmp_path, "other")
    assert run(default(world.rebalance(BOOK))).code == 0 and orders_sent(world) == sent


def test_the_old_journals_of_two_directories_are_both_kept(
    world: World, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.stop_clock()
    first = old_journal(world, run, {"BTC": 0.4}).resolve()
    in_a_new_directory(monkeypatch, tmp_path, "other")
    Path("reports/live").mkdir(parents=True)
    second = Path("reports/live") / first.name
    lines = [json.loads(line) for line in first.read_text().splitlines()]
    second.write_text("".join(json.dumps({**line, "seen": "second"}) + "\n" for line in lines))
    assert run(default(world.rebalance({"BTC": 0.4}))).code == 0
    monkeypatch.chdir(first.parents[2])
    done = run(default(world.rebalance({"BTC": 0.4})))
    assert done.code == 0, done.err
    folder = account_folder(label_of(world))
    kept = sorted(path.name for path in folder.glob("*.jsonl"))
    assert kept == sorted([first.name, first.name.replace("book-", "book.2-")])
    assert {"seen" in path.read_text() for path in folder.glob("*.jsonl")} == {True, False}
    near(world, {"BTC": 0.4})


def test_a_move_that_was_interrupted_is_finished(world: World, run: Run) -> None:
    """Killed between the copy and the link: the same history is not adopted twice."""
    world.stop_clock()
    old = old_journal(world, run, BOOK)
    path = account_folder(label_of(world)) / old.name
    path.write_bytes(old.read_bytes())
    assert run(default(world.rebalance(BOOK))).code == 0
    assert old.is_symlink() and [at.name for at in path.parent.glob("*.jsonl")] == [old.name]


# The folder -----------------------------------------------------------------------------------------------------------


def test_the_state_folder_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HLBT_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_folder() == tmp_path / "hlbt"
    monkeypatch.setenv("HLBT_STATE", str(tmp_path / "moved"))
    assert journal_path("a", "testnet-0x1") == tmp_path / "moved" / "testnet-0x1" / "a-testnet-0x1.jsonl"


@pytest.mark.parametrize("how", ["relative", "file", "other file"])
def test_a_lock_is_nowhere_else_when_its_folder_cannot_be_used(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("HLBT_STATE", {"relative": "state", "file": str(file), "other file": str(file / "x")}[how])
    for words in (world.rebalance(BOOK), default(world.rebalance(BOOK))):
        done = run(words)
        assert done.code == 1 and "HLBT_STATE" in done.err and "absolute path" in done.err
    assert not world.server.asked("order")


def test_a_user_without_a_home_is_refused_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs

    monkeypatch.delenv("HLBT_STATE")
    monkeypatch.setattr(platformdirs, "user_state_path", lambda *_, **__: Path("~/.local/state/hlbt"))
    with pytest.raises(LiveError, match="no home folder"):
        state_folder()


def test_a_folder_that_is_closed_to_the_user_is_refused_with_the_cure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the home of another user, or under systemd's ProtectHome: it was a traceback."""
    (tmp_path / "closed").mkdir(mode=0)
    monkeypatch.setenv("HLBT_STATE", str(tmp_path / "closed" / "state"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fork beside the exchange's threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.getuid() == 0:  # whom no folder is closed to
                os.setuid(65534)
            state_folder()
        except LiveError as error:
            code = 0 if "cannot be read" in str(error) and "HLBT_STATE" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


# Kill switches --------------------------------------------------------------------------------------------------------


def test_every_kill_switch_stops_a_run_and_the_way_out_can_go_on(world: World, run: Run) -> None:
    assert run(world.rebalance(BOOK)).code == 0
    folder = account_folder(label_of(world))
    Path("reports/live").mkdir(parents=True)
    for switch in (folder.parent / "KILL", folder / "KILL", Path("reports/live/KILL"), world.journals / "KILL"):
        switch.touch()
        sent = orders_sent(world)
        for words in (world.rebalance({"BTC": 0.1}), world.words("flatten", "book", "--execute")):
            done = run(words)
            assert done.code == 3 and str(switch) in done.err, done
        assert "--ignore-kill" in done.err and orders_sent(world) == sent
        switch.unlink()
    (folder.parent / "KILL").touch()
    done = run(world.words("flatten", "book", "--execute", "--ignore-kill"))
    assert done.code == 0 and world.positions == {}, done.err


def test_the_users_kill_switch_stops_a_paper_account_and_another_accounts_does_not(world: World, run: Run) -> None:
    spec = momentum_spec(world.folder, world.folder / "cache")
    words = world.words("run", spec, "--execute", "--network", "paper")
    other = account_folder("testnet-0x00000000") / "KILL"
    other.touch()
    assert run(words).code == 0
    (other.parents[1] / "KILL").touch()
    assert run(words).code == 3


# The first run on an account, and other people on it ------------------------------------------------------------------


def test_positions_before_the_first_run_are_named_and_accepted_once(world: World, run: Run) -> None:
    assert "filled" in only(client(world.server).market_open("DOGE", True, 1_000))
    sent = orders_sent(world)
    preview = world.rebalance(BOOK)
    preview.remove("--execute")
    done = run(preview)
    assert done.code == 3 and "positions: DOGE" in done.err
    for _ in range(2):  # a refusal explains nothing
        done = run(world.rebalance(BOOK))
        assert done.code == 3 and "DOGE: journal 0, account 1000" in done.err and "--accept-positions" in done.err
    assert orders_sent(world) == sent
    assert run(world.rebalance(BOOK, "--accept-positions")).code == 0
    near(world, BOOK)


def test_a_first_flattening_closes_what_is_there(world: World, run: Run) -> None:
    assert "filled" in only(client(world.server).market_open("DOGE", True, 1_000))
    done = run(world.words("flatten", "book", "--execute", "--json"))
    assert done.code == 0 and world.positions == {}, done.err
    assert "DOGE" in " ".join(done.json["session_notes"])


def test_a_run_names_the_positions_of_another_strategy_that_it_closes(world: World, run: Run) -> None:
    assert run(world.rebalance(BOOK)).code == 0
    other = world.weights({"BTC": 0.4, "DOGE": 0.2}, name="other.csv")
    words = world.words("rebalance", "--weights", other, "--json")
    for more in ([], ["--execute"]):
        [note] = [note for note in run([*words, *more]).json["session_notes"] if "another strategy" in note]
        assert "book-" in note and "ETH" in note and "BTC" not in note
    done = run([*words, "--execute"])  # it is this one's account now
    assert not [note for note in done.json["session_notes"] if "another strategy" in note]


# Equity that is as intended -------------------------------------------------------------------------------------------


def test_an_acceptance_resets_the_day_and_trades_nothing(world: World, run: Run) -> None:
    """Day 1, 30 % withdrawn, accepted at noon: the evening's run had still compared with the day before."""
    start = world.half_past_two()

    def at(hours: float) -> str:
        world.server.advance(hours - (world.server.now / 3.6e6 - start.timestamp() / 3600))
        return pd.Timestamp(world.server.now, unit="ms", tz="UTC").isoformat()

    assert run(world.rebalance({"BTC": 0.4}, "--now", at(0))).code == 0
    world.server.fund(MASTER.address, -3_000)
    done = run(world.rebalance({"BTC": 0.4}, "--now", at(20)))
    assert done.code == 3 and "daily_loss_frac" in done.err and "accept-equity" in done.err
    sent = orders_sent(world)
    done = run(world.words("accept-equity", "book", "--json", "--now", at(21)))
    assert done.code == 0 and orders_sent(world) == sent, done.err
    assert done.json["equity_before_usd"] == pytest.approx(10_000, rel=0.01)
    assert done.json["equity_usd"] == world.last("equity_accepted")["equity_usd"] == pytest.approx(7_000, rel=0.01)
    done = run(world.rebalance({"BTC": 0.4}, "--now", at(24)))
    assert done.code == 0, done.err
    near(world, {"BTC": 0.4})
    world.server.fund(MASTER.address, -2_000)  # it counts from the acceptance, and is not for ever
    assert run(world.rebalance({"BTC": 0.4}, "--now", at(25))).code == 3


def test_an_acceptance_between_a_kill_and_the_rerun_plans_anew(world: World, run: Run) -> None:
    world.stop_clock()
    with killed_after("plan"):
        assert run(world.rebalance({"BTC": 0.4})).code == 130
    world.server.fund(MASTER.address, -6_000)
    assert run(world.rebalance({"BTC": 0.4})).code == 3
    assert run(world.words("accept-equity", "book")).code == 0
    done = run(world.rebalance({"BTC": 0.4}))
    assert done.code == 0, done.err
    near(world, {"BTC": 0.4})


def test_a_killed_run_has_accepted_already(world: World, run: Run) -> None:
    spec = momentum_spec(world.folder, world.folder / "cache")
    words = world.words("run", spec, "--execute")
    assert run(words).code == 0
    world.server.fund(MASTER.address, 20_000)
    with killed_after("equity_accepted"):
        assert run([*words, "--accept-equity"]).code == 130
    assert run(words).code == 0
    assert sum(map(abs, world.weights_held().values())) == pytest.approx(1.0, abs=0.01)


def test_a_paper_account_is_accepted_and_a_wrong_name_is_not(world: World, run: Run) -> None:
    spec = momentum_spec(world.folder, world.folder / "cache")
    now = world.stop_clock().isoformat()
    paper = ["--network", "paper", "--now", now]
    assert run(world.words("run", spec, "--execute", *paper)).code == 0
    done = run(world.words("accept-equity", spec, "--json", *paper))
    assert done.code == 0 and done.json["equity_usd"] == pytest.approx(10_000, rel=0.01)
    done = run(world.words("accept-equity", "typo"))
    assert done.code == 1 and "no journal" in done.err
