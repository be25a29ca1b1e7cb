"""The commands over a sealed cache: every door ends before it; a candidate is run on it once, and a kill spends it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from engine import Panel, RunConfig, backtest, decisions_of, load_panel, sweep, weight_matrix
from engine.data.holdout import FILE, read_holdout
from engine.data.panel_loader import load_whole_panel
from engine.errors import DataError, PromotionError
from engine.hash_chain import read_chain
from engine.oracles.loading import load_oracle
from engine.promotion import gates
from engine.promotion.candidate import read_candidate
from engine.promotion.holdout import check_openable, expected_of, open_holdout, sealed_result
from engine.simulation import metrics
from engine.sweeps.trials import FOLDER, LEDGER, TrialCount, count_trials
from helpers.commands import Hlbt, exit_code
from helpers.promotion import ORACLE, audit_once, write_cache
from helpers.studies import market

pytestmark = pytest.mark.slow

SEALED = pd.Timestamp("2025-08-01", tz="UTC")
TREND = ("--oracle", "trend.py:Trend")
NOTE = "The days from 2025-08-01 00:00 UTC on are sealed as a holdout"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sealed cache, and a sweep of four sets over the days before."""
    home = tmp_path_factory.mktemp("sealed")
    write_cache(market(2, 260, 12, 0.0002, quotes=True), home / "cache")
    (home / "trend.py").write_text(ORACLE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("HLBT_DATA_CACHE", "cache")
        assert exit_code("study", "init", "--holdout", "2025-08-01") == 0
        words = ("--grid", "hours=48,120", "--grid", "n=2,3", "--name", "grid", "--no-verdict")
        assert exit_code("sweep", *TREND, *words) == 0
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.setenv("HLBT_DATA_CACHE", "cache")
    monkeypatch.setattr(gates, "audit", audit_once)
    return tmp_path / "home"


def test_every_door_ends_before_the_seal_and_says_so_once(home: Path, hlbt: Hlbt) -> None:
    beyond = ("--set", "data.end=2025-09-10")
    for words in (
        ("backtest", *TREND, "--param", "hours=48", "--no-report", *beyond),
        ("capacity", *TREND, "--param", "hours=48", "--sizes", "1e4,1e5", *beyond),
        ("sweep", *TREND, "--grid", "hours=48,120", "--name", "other", "--no-verdict", *beyond),
        ("oracle", "check", "trend.py:Trend", "--cuts", "4", *beyond),
        ("oracle", "report", "trend.py:Trend", *beyond),
        ("validate", "grid", "--top", "0"),
    ):
        code, out, err = hlbt(*words)
        assert code == 0, err
        assert " ".join(out.split()).count(NOTE) == 1, words
        assert NOTE not in err
    found = [page for page in Path("reports").rglob("*.html") if page != Path("reports/index.html")]
    pages = [page.read_text(encoding="utf-8") for page in found]
    assert len(pages) == 3 and all(page.count(NOTE) == 1 for page in pages)
    records = [
        json.loads(path.read_text()) for path in Path("reports").glob("*/*.json") if path.stem in ("run", "sweep")
    ]
    assert len(records) == 4 and all(pd.Timestamp(record["span"]["end"]) < SEALED for record in records)
    assert all(sum(NOTE in note for note in record["notes"]) == 1 for record in records)
    # All of it is of the four sets that the sweep had: a known set is no new trial by another door.
    assert count_trials(Path("reports"), ["trend.py:Trend"]).total == 4
    assert hlbt("capacity", *TREND, "--param", "hours=99", "--sizes", "1e4", "--out", "page.html").code == 0
    assert count_trials(Path("reports"), ["trend.py:Trend"]).total == 5


def test_an_oracle_that_loads_for_itself_sees_no_more(home: Path, hlbt: Hlbt) -> None:
    lines = "import pandas as pd\nfrom engine import Oracle, load_panel\n\n\nclass Own(Oracle):\n"
    lines += "    def weight_matrix(self, panel, decisions):\n        last = load_panel(end='2025-09-10').index[-1]\n"
    lines += "        assert last <= panel.index[-1], last\n"
    lines += "        return pd.DataFrame(0.1, index=decisions, columns=['BTC'])\n"
    Path("own.py").write_text(lines)
    assert hlbt("backtest", "--oracle", "own.py:Own", "--no-report").code == 0


def test_an_account_is_exempt(home: Path, hlbt: Hlbt) -> None:
    assert hlbt("data", "status", "--json").json["end"] > "2025-09-01"
    assert hlbt("data", "verify").code == 0
    # A paper account trades at prices of sealed hours, and its page shows them.
    Path("book.csv").write_text("time,BTC\n2025-09-10T23:00Z,0.5\n", encoding="utf-8")
    paper = ("--network", "paper", "--now", "2025-09-10T23:00:30Z")
    code, out, err = hlbt("live", "rebalance", "--weights", "book.csv", "--no-sync", "--execute", *paper)
    assert code == 0 and "At target" in out, err
    assert hlbt("live", "status", "book", *paper).code == 0


def test_a_cache_that_lost_its_seal_is_sealed_by_the_ledger(home: Path, hlbt: Hlbt) -> None:
    for file in Path("cache").glob(f"{FILE}*"):
        file.unlink()
    code, out, _ = hlbt("backtest", *TREND, "--param", "hours=60", "--no-report")
    assert code == 0 and NOTE in " ".join(out.split())
    # What is loaded past it in Python shows in the ledger.
    sweep(load_panel("cache"), "trend.py:Trend", {"hours": [77]}, reports="reports")
    assert count_trials(Path("reports"), ["trend.py:Trend"]).saw_sealed == 1
    code, _, err = hlbt("study", "open", "--candidate", "reports/grid", "--json")
    assert code == 0, err
    assert "1 trials of this idea have data of them" in hlbt("promote", "grid", "--name", "x", "--dry-run").err


def test_a_candidate_is_run_once_and_later_trials_are_marked(home: Path, hlbt: Hlbt) -> None:
    gate = hlbt("promote", "grid", "--name", "x", "--dry-run", "--json").json["gates"]
    closed = next(item for item in gate if item["name"] == "holdout")
    assert not closed["passed"] and "not opened: `hlbt study open" in closed["says"]
    code, out, err = hlbt("study", "open", "--candidate", "reports/grid", "--json")
    assert code == 0, err
    result = json.loads(out)
    low, high = result["expected"]["sharpe"]
    assert low < high and 0.0 <= result["share_below"] <= 1.0 and result["holdout"]["days"] == result["sealed"]["days"]
    assert result["in_sample"]["end"] == "2025-07-31T23:00:00+00:00" and result["sealed"]["days"] >= 47
    # By hand: the winner from the first sealed decision on, with a flat account.
    candidate = read_candidate(Path("reports/grid"))
    panel = load_whole_panel("cache")
    decisions = decisions_of(panel, RunConfig())
    weights = weight_matrix(load_oracle(candidate.oracle, candidate.parameters), panel, decisions)
    daily = backtest(panel, weights[weights.index >= SEALED], RunConfig()).daily_returns
    assert result["sealed"]["sharpe"] == pytest.approx(metrics.sharpe(daily.to_numpy()))
    page = Path(result["page"]).read_text(encoding="utf-8")
    assert "SYNTHETIC" in page and f"{result['sealed']['sharpe']:.2f}" in page
    again = hlbt("study", "open", "--candidate", "reports/grid")
    assert again.code == 7 and "is spent" in again.err and "study init" in again.err
    shown = hlbt("study", "status", "--json").json["holdout"]
    assert shown["openings"][0]["result"] == {key: value for key, value in result.items() if key != "page"}
    assert f"{low:.2f} to {high:.2f}" in hlbt("study", "status").out
    gate = hlbt("promote", "grid", "--name", "x", "--dry-run", "--json").json["gates"]
    opened = next(item for item in gate if item["name"] == "holdout")
    assert opened["passed"] == (result["share_below"] >= 0.05) and opened["value"] == result["share_below"]
    # What comes later says so, and is told apart in the ledger; for it the gate stays closed.
    assert "may know how it ended" in " ".join(hlbt("backtest", *TREND, "--param", "hours=60").out.split())
    count = count_trials(Path("reports"), ["trend.py:Trend"])
    assert (count.total, count.after_opening, count.saw_sealed) == (5, 1, 0)
    run = next(path.parent for path in Path("reports").glob("trend-*/run.json"))
    assert "may know how it ended" in (run / "tearsheet.html").read_text(encoding="utf-8")
    assert "opened for grid, not for this one" in hlbt("promote", run, "--name", "x", "--dry-run").err
    # The next holdout is of days that the opening has not seen.
    assert "would be no holdout" in hlbt("study", "init", "--holdout", "2025-09-01").err
    assert hlbt("study", "init", "--holdout", "2025-10-01").code == 0
    assert load_panel("cache").index[-1] > SEALED and not load_panel("cache").notes


def test_a_kill_in_the_run_counts_as_spent(home: Path, hlbt: Hlbt) -> None:
    candidate = read_candidate(Path("reports/grid"))
    holdout, panel, end = read_holdout(Path("cache")), load_panel("cache"), load_whole_panel("cache").index[-1]
    assert holdout is not None
    days = check_openable(candidate, holdout, panel, end)
    expected = expected_of(candidate, panel, days)

    def killed() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        open_holdout(candidate, holdout, expected, killed, Path("cache"), "2025-09-18T00:00:00+00:00", end)  # type: ignore[arg-type]
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    for path in (Path("cache") / FILE, Path("reports") / FOLDER / LEDGER):
        chain = read_chain(path)
        assert not chain.broken and chain.records[-1]["kind"] == "opened"
    assert hlbt("study", "status", "--json").json["holdout"]["openings"][0]["result"] is None
    again = hlbt("study", "open", "--candidate", "reports/grid")
    assert again.code == 7 and "ended without a result" in again.err
    assert "whose run never ended" in hlbt("promote", "grid", "--name", "x", "--dry-run").err


def test_of_openings_at_one_moment_one_spends(home: Path) -> None:
    """By the same candidate in the same second, from two copies of the cache that share a ledger."""
    candidate, twin = read_candidate(Path("reports/grid")), Path("twin")
    shutil.copytree("cache", twin)
    holdout, panel, end = read_holdout(Path("cache")), load_panel("cache"), load_whole_panel("cache").index[-1]
    assert holdout is not None
    expected, loaded = expected_of(candidate, panel, check_openable(candidate, holdout, panel, end)), Path("loaded")
    start = time.time() + 0.3

    def load() -> Panel:
        with loaded.open("a") as file:
            file.write("x")
        return load_whole_panel("cache")

    children = []
    for number in range(6):
        children.append(os.fork())
        if children[-1] == 0:
            code = 1
            try:
                time.sleep(max(0.0, start - time.time()))
                cache = twin if number % 2 else Path("cache")
                open_holdout(candidate, holdout, expected, load, cache, "2025-09-18T00:00:00+00:00", end)
                code = 0
            except PromotionError as error:
                code = 7 if "and is spent" in str(error) else 2
            finally:
                os._exit(code)
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    assert codes == [0, 7, 7, 7, 7, 7] and loaded.read_text() == "x"
    chain = read_chain(Path("reports") / FOLDER / LEDGER)
    assert not chain.broken and [record["kind"] for record in chain.records].count("opened") == 1


def test_what_would_be_spent_on_nothing_is_not(home: Path, hlbt: Hlbt) -> None:
    for name in ("", ".head"):
        (Path("cache") / f"{FILE}{name}").unlink()
    shutil.rmtree(Path("reports") / FOLDER)
    nothing = hlbt("study", "open", "--candidate", "reports/grid")
    assert nothing.code == 1 and "is sealed, so there is nothing to open" in nothing.err
    assert hlbt("study", "init", "--holdout", "2025-09-12").code == 0
    assert hlbt("backtest", *TREND, "--no-report", "--out", "reports/run").code == 0
    few = hlbt("study", "open", "--candidate", "reports/run")
    assert few.code == 1 and "has 5 daily returns by now" in few.err and "Nothing was spent" in few.err
    Path("trend.py").write_text(ORACLE + "\n# changed\n")
    stale = hlbt("study", "open", "--candidate", "reports/run")
    assert stale.code in (1, 7) and read_holdout(Path("cache")).openings == ()  # type: ignore[union-attr]


def test_a_result_is_of_one_candidate_and_of_days_that_nobody_saw(home: Path, hlbt: Hlbt) -> None:
    assert hlbt("study", "open", "--candidate", "reports/grid", "--json").code == 0
    holdout, candidate = read_holdout(Path("cache")), read_candidate(Path("reports/grid"))
    assert holdout is not None
    clean = TrialCount(4, 0.1)
    assert sealed_result(candidate, holdout, clean)["candidate"] == "grid"
    with pytest.raises(DataError, match="not for this one"):
        sealed_result(replace(candidate, parameters={"hours": 7}), holdout, clean)
    with pytest.raises(DataError, match="12 trials of this idea"):
        sealed_result(candidate, holdout, replace(clean, saw_sealed=12))
    with pytest.raises(DataError, match="entry 3"):
        sealed_result(candidate, holdout, replace(clean, broken="entry 3 is missing"))
    with pytest.raises(PromotionError, match="is spent"):
        check_openable(candidate, holdout, load_panel("cache"), SEALED)
