"""A sweep goes on where it was: nothing known is run again, nothing done is lost, nothing is taken for another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from engine import (
    Panel,
    RunConfig,
    load_study,
    sweep,
)
from engine.errors import DataError
from engine.run_folders import remove_folder
from engine.sweeps.executors import Threads
from engine.sweeps.tasks import Outcome, Task
from engine.sweeps.trials import count_trials, families_below
from helpers.panels import random_panel
from helpers.sweeps import GRID, Slow
from helpers.waiting import wait_until
from research.oracles.momentum import Momentum

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def panel() -> Panel:
    return random_panel(5, 24 * 40, 9, quotes=True, funding=True, oracle=True, table=True, volume=True)


def test_a_kept_sweep_is_read_back_as_it_was(panel: Panel, tmp_path: Path) -> None:
    study = sweep(panel, Momentum, GRID, name="mine", reports=tmp_path, created="2026-01-01T00:00:00+00:00")
    again = load_study(tmp_path / "mine")
    pd.testing.assert_frame_equal(again.table, study.table, check_exact=True)
    pd.testing.assert_frame_equal(again.daily_returns, study.daily_returns, check_exact=True)  # type: ignore[arg-type]
    assert again.record == study.record and again.folder == study.folder == tmp_path / "mine"
    assert sorted(path.name for path in (tmp_path / "mine").iterdir() if path.name != ".lock") == [
        "returns.parquet",
        "sweep.json",
        "table.parquet",
    ]
    kept = pd.read_parquet(tmp_path / "mine" / "returns.parquet")  # a row a set, a column a day
    dates = study.daily_returns.index.normalize().unique()  # type: ignore[union-attr]
    assert kept.shape == (len(study), len(dates)), "the file has a column a date, however many hours decide on it"


def test_no_set_is_run_twice(panel: Panel, tmp_path: Path) -> None:
    first = sweep(panel, Slow, {"tilt": [0.1, 0.2]}, name="a", reports=tmp_path)
    Slow.asked = 0
    same = sweep(panel, Slow, {"tilt": [0.1, 0.2]}, name="a", reports=tmp_path)
    assert Slow.asked == 0 and same.record["sets"]["reused"] == 2
    pd.testing.assert_frame_equal(same.table, first.table, check_exact=True)
    # Another sweep, of which a part is known, and the default written out.
    more = sweep(panel, Slow, {"tilt": [0.1, 0.2, 0.3], "boom": [False]}, name="b", reports=tmp_path)
    assert Slow.asked == 1 and more.record["sets"]["reused"] == 2
    assert more["equity_end_usd"].to_numpy()[:2] == pytest.approx(first["equity_end_usd"].to_numpy(), rel=0)
    # Other data, another config: other numbers, so they are run.
    sweep(panel.until(panel.index[-30]), Slow, {"tilt": [0.1]}, name="c", reports=tmp_path)
    sweep(panel, Slow, {"tilt": [0.1]}, RunConfig.from_dict({"costs": {"taker_bps": 3}}), name="d", reports=tmp_path)
    assert Slow.asked == 3


def test_what_somebody_put_beside_the_chunks_stays(panel: Panel, tmp_path: Path) -> None:
    chunks = tmp_path / "a/chunks"
    (chunks / "mine/deep").mkdir(parents=True)
    foreign = {chunks / name: name.encode() for name in ("NOTES.md", "book.parquet", "mine/deep/x.parquet")}
    for path, content in foreign.items():
        path.write_bytes(content)
    torn = chunks / f".{'ab' * 8}.parquet.77.writing"
    torn.write_bytes(b"PAR1")
    for _ in range(2):
        sweep(panel, Slow, {"tilt": [0.1, 0.2]}, name="a", reports=tmp_path)
        assert {path: path.read_bytes() for path in foreign} == foreign and not torn.exists()
        assert sorted(path.name for path in chunks.iterdir()) == ["NOTES.md", "book.parquet", "mine"]
    assert remove_folder(tmp_path / "a", tmp_path) == ["chunks"] and (chunks / "NOTES.md").is_file()


def test_a_failed_set_is_tried_again(panel: Panel, tmp_path: Path) -> None:
    sweep(panel, Slow, {"boom": [True, False]}, name="a", reports=tmp_path)
    Slow.asked = 0
    again = sweep(panel, Slow, {"boom": [True, False]}, name="a", reports=tmp_path)
    assert Slow.asked == 1 and again.record["sets"] == {"total": 2, "reused": 1, "failed": 1}


def test_results_of_another_engine_are_computed_anew_and_said(
    panel: Panel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sweep(panel, Slow, {"tilt": [0.1, 0.2]}, name="a", reports=tmp_path).record["note"] == ""
    monkeypatch.setattr("engine.sweeps.plan.code_digest", lambda: "another")
    monkeypatch.setattr(sys.modules["engine.sweeps.sweep"], "code_digest", lambda: "another")
    Slow.asked = 0
    study = sweep(panel, Slow, {"tilt": [0.1, 0.2]}, name="a", reports=tmp_path)
    assert Slow.asked == 2 and "of another engine version" in study.record["note"]


def test_what_was_computed_without_returns_is_computed_again_with_them(panel: Panel, tmp_path: Path) -> None:
    bare = sweep(panel, Slow, {"tilt": [0.1]}, name="a", reports=tmp_path, returns=False)
    assert bare.daily_returns is None and load_study(tmp_path / "a").daily_returns is None
    Slow.asked = 0
    full = sweep(panel, Slow, {"tilt": [0.1]}, name="a", reports=tmp_path)
    assert Slow.asked == 1 and full.daily_returns is not None


class Dying:
    """An executor whose process is gone after some tasks."""

    def __init__(self, tasks: int) -> None:
        self.tasks = tasks

    def run(self, panel: Panel, tasks: Iterator[Task]) -> Iterator[Outcome]:
        for number, outcome in enumerate(Threads(1).run(panel, tasks)):
            if number == self.tasks:
                raise KeyboardInterrupt
            yield outcome


def test_an_interrupt_keeps_what_is_done_and_counts_its_trials(panel: Panel, tmp_path: Path) -> None:
    grid = {"tilt": [0.01 * k for k in range(1, 31)]}
    whole = sweep(panel, Slow, grid)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            sweep(panel, Slow, grid, name="a", reports=tmp_path, executor=Dying(1))
    assert count_trials(tmp_path, [f"{Slow.__module__}:Slow"]).total == 16  # two tasks of eight sets
    with pytest.raises(DataError, match="is not a sweep folder"):
        load_study(tmp_path / "a")
    Slow.asked = 0
    study = sweep(panel, Slow, grid, name="a", reports=tmp_path)
    assert Slow.asked == 14 and study.record["sets"]["reused"] == 16
    pd.testing.assert_frame_equal(study.table, whole.table, check_exact=True)
    pd.testing.assert_frame_equal(study.daily_returns, whole.daily_returns, check_exact=True)  # type: ignore[arg-type]


def test_a_set_that_failed_before_an_interrupt_has_its_later_result(
    panel: Panel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of both runs name the set; which of them counts must not hang on the names of files."""
    grid = {"tilt": [0.01 * k for k in range(1, 31)]}
    whole = sweep(panel, Slow, grid)
    asked = Slow.weight_matrix

    def fails_at_times(self: Slow, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        if round(100 * self.tilt) % 5 == 0:
            raise ConnectionError("for a while")
        return asked(self, panel, decisions)

    with monkeypatch.context() as now:
        now.setattr(Slow, "weight_matrix", fails_at_times)
        with pytest.raises(KeyboardInterrupt):
            sweep(panel, Slow, grid, name="a", reports=tmp_path, executor=Dying(3))
    study = sweep(panel, Slow, grid, name="a", reports=tmp_path)
    assert study.record["sets"] == {"total": 30, "reused": 20, "failed": 0}
    pd.testing.assert_frame_equal(study.table, whole.table, check_exact=True)
    # The same for chunks without the returns that are wanted now.
    with pytest.raises(KeyboardInterrupt):
        sweep(panel, Slow, grid, name="b", reports=tmp_path / "other", returns=False, executor=Dying(3))
    again = sweep(panel, Slow, grid, name="b", reports=tmp_path / "other", executor=Threads(1))
    pd.testing.assert_frame_equal(again.daily_returns, whole.daily_returns, check_exact=True)  # type: ignore[arg-type]


def test_a_damaged_chunk_or_table_is_run_again(panel: Panel, tmp_path: Path) -> None:
    sweep(panel, Slow, {"tilt": [0.1, 0.2]}, name="a", reports=tmp_path)
    (tmp_path / "a" / "table.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match="damaged"):
        load_study(tmp_path / "a")
    Slow.asked = 0
    sweep(panel, Slow, {"tilt": [0.1, 0.2]}, name="a", reports=tmp_path)
    assert Slow.asked == 2 and len(load_study(tmp_path / "a")) == 2
    (tmp_path / "a" / "chunks").mkdir()
    (tmp_path / "a" / "chunks" / "0123.parquet").write_bytes(b"PAR1 no more")
    assert len(sweep(panel, Slow, {"tilt": [0.1, 0.3]}, name="a", reports=tmp_path)) == 2


ORACLE = """
import time
from pathlib import Path
import pandas as pd
from engine import Oracle

class Waits(Oracle):
    def __init__(self, k=0, log="log"):
        self.k, self.log = k, log
    def weight_matrix(self, panel, decisions):
        with open(self.log, "a") as file:
            file.write(f"{self.k}\\n")
        while self.k >= 24 and not Path("killed").exists():
            time.sleep(0.01)
        time.sleep(0.02)
        return pd.DataFrame(0.001 * (self.k + 1), index=decisions, columns=list(panel.coins)[:2])
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_command_goes_on_where_it_was(how: int, sample_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(ORACLE)
    words = [
        *(Path(sys.executable).parent / "hlbt", "sweep", "--oracle", "waits.py:Waits", "--grid", "k=0:59:1"),
        *("--name", "w", "--no-verdict", "--workers", "1", "--json", "--set", f"data.cache={sample_cache}"),
    ]
    log = tmp_path / "log"
    first = subprocess.Popen(
        [str(word) for word in words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background hands down a Ctrl-C that is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    reports = tmp_path / "reports"
    # What is done is written while the next set takes its time.
    wait_until(lambda: first.poll() is not None or list((reports / "w" / "chunks").glob("*.parquet")))
    wait_until(lambda: first.poll() is not None or count_trials(reports, families_below(reports)).total >= 8)
    wait_until(lambda: first.poll() is not None or len(log.read_text().split()) > 24)
    os.kill(first.pid, how)
    (tmp_path / "killed").touch()
    _, said = first.communicate(timeout=120)
    if how == signal.SIGINT:
        assert first.returncode == 130 and "run the command again to continue" in said and "Traceback" not in said
    asked = len(log.read_text().split())
    assert 24 < asked < 60
    assert count_trials(reports, families_below(reports)).total >= 8  # whole tasks, of eight
    done = subprocess.run([str(word) for word in words], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["sets"]["reused"] >= 8
    counts = pd.Series(log.read_text().split()).value_counts()
    assert len(counts) == 60 and counts.max() <= 2 and (counts == 2).sum() <= 24  # what was running is run again
    assert len(load_study(tmp_path / "reports" / "w")) == 60


def test_a_set_without_a_result_has_not_that_of_another(panel: Panel, tmp_path: Path) -> None:
    class Losing:
        def run(self, panel: Panel, tasks: Iterator[Task]) -> Iterator[Outcome]:
            return (outcome for outcome in Threads(1).run(panel, tasks) if outcome.task.number != 1)

    grid = {"tilt": [0.01 * k for k in range(1, 25)]}
    with pytest.raises(DataError, match=r"8 of 24 sets have no result .* the executor handed over none"):
        sweep(panel, Slow, grid, name="a", reports=tmp_path, executor=Losing())
    again = sweep(panel, Slow, grid, name="a", reports=tmp_path)
    assert again.record["sets"]["reused"] == 16
    pd.testing.assert_frame_equal(again.table, sweep(panel, Slow, grid).table, check_exact=True)


def test_returns_beside_another_table_are_not_taken_over(panel: Panel, tmp_path: Path) -> None:
    """A sweep killed between its table and its returns, in a folder that held another: the record is written last."""
    grid = {"tilt": [0.1, 0.2]}
    sweep(panel, Slow, {"tilt": [0.3, 0.4]}, name="a", reports=tmp_path)
    old = (tmp_path / "a" / "returns.parquet").read_bytes()
    sweep(panel, Slow, grid, name="a", reports=tmp_path)
    (tmp_path / "a" / "returns.parquet").write_bytes(old)
    (tmp_path / "a" / "sweep.json").unlink()
    found = sweep(panel, Slow, grid, name="b", reports=tmp_path)
    expected = sweep(panel, Slow, grid).daily_returns
    pd.testing.assert_frame_equal(found.daily_returns, expected, check_exact=True)  # type: ignore[arg-type]
