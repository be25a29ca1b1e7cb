"""The ledger of trials: what was tried is counted once, however it was tried, and no kill makes it forget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from engine import Oracle, Panel, RunConfig, load_study, sweep
from engine.hash_chain import read_chain
from engine.oracles.loading import as_oracle
from engine.sweeps import trials
from engine.sweeps.executors import Threads
from engine.sweeps.tasks import Outcome, Task
from engine.sweeps.trials import count_trials, families_of, record_trials
from helpers.commands import Hlbt
from helpers.panels import random_panel
from helpers.sweeps import MOMENTUM, Slow
from research.oracles.wrappers import Cap

CAP = "research.oracles.wrappers:Cap"


@pytest.fixture(scope="module")
def panel() -> Panel:
    return random_panel(5, 24 * 40, 9, quotes=True, funding=True, oracle=True, table=True, volume=True)


def test_the_ledger_counts_each_trial_once_across_sweeps_and_runs(panel: Panel, tmp_path: Path) -> None:
    family = [f"{Slow.__module__}:Slow"]
    first = sweep(panel, Slow, {"tilt": [0.1, 0.2, 0.3]}, name="a", reports=tmp_path)
    sweep(panel, Slow, {"tilt": [0.2, 0.3, 0.05]}, name="b", reports=tmp_path)
    # The same on data that end later, or from a later engine, is no new trial; other costs are.
    sweep(panel.until(panel.index[-50]), Slow, {"tilt": [0.1]}, name="c", reports=tmp_path)
    assert count_trials(tmp_path, family).total == 4
    sweep(panel, Slow, {"tilt": [0.1]}, RunConfig.from_dict({"costs": {"taker_bps": 1}}), name="d", reports=tmp_path)
    count = count_trials(tmp_path, family)
    assert count.total == 5
    assert count_trials(tmp_path, ["another:Family"]).total == 0
    assert count_trials(tmp_path, [*family, "another:Family"]) == count
    one = count_trials(tmp_path / "nowhere", family)
    assert one.total == 0 and np.isnan(one.sharpe_sd_daily)
    alone_ = tmp_path / "alone"
    sweep(panel, Slow, {"tilt": [0.1, 0.2, 0.3]}, name="a", reports=alone_)
    expected = np.std(first["sharpe"] / np.sqrt(365), ddof=1)
    assert count_trials(alone_, family).sharpe_sd_daily == pytest.approx(expected, rel=1e-12)


def test_a_wrapper_is_judged_by_the_trials_of_the_oracle_inside(panel: Panel, tmp_path: Path) -> None:
    sweep(panel, MOMENTUM, {"n": [1, 2, 3], "lookback_hours": [24, 48]}, name="a", reports=tmp_path)
    wrapped = {"inner": MOMENTUM, "inner.lookback_hours": 24}
    for number, given in enumerate((wrapped, {"inner": {"oracle": MOMENTUM, "lookback_hours": 24}})):
        study = sweep(panel, Cap, {"cap": [0.5, 0.9]}, fixed=given, name=f"b{number}", reports=tmp_path)
        assert families_of(study.record) == [CAP, MOMENTUM] and study.record["sets"]["reused"] == 2 * number
        # Two ways to write the same sets: the same two trials.
        assert count_trials(tmp_path, families_of(load_study(tmp_path / f"b{number}").record)).total == 8


def test_the_oracle_inside_is_judged_by_the_trials_of_its_wrappers(panel: Panel, tmp_path: Path) -> None:
    """Else a search through a wrapper would be free: its best parameters, tried alone, would be a single trial."""
    grid = {"inner": [MOMENTUM, f"{__name__}:Default"], "cap": [0.5, 0.9], "inner.lookback_hours": [24, 48, 72]}
    sweep(panel, Cap, {**grid, "inner": [MOMENTUM]}, name="a", reports=tmp_path)
    assert count_trials(tmp_path, [MOMENTUM]).total == count_trials(tmp_path, [CAP]).total == 6
    assert count_trials(tmp_path, [CAP, MOMENTUM]).total == 6
    sweep(panel, MOMENTUM, {"lookback_hours": [24]}, name="b", reports=tmp_path)
    assert count_trials(tmp_path, [MOMENTUM]).total == 7
    # Of a grid of inner oracles each has its own sets, at any depth.
    sweep(panel, Cap, {"inner": [f"{__name__}:Default"], "cap": [0.1, 0.2]}, name="c", reports=tmp_path)
    assert count_trials(tmp_path, [f"{__name__}:Default"]).total == 2
    assert count_trials(tmp_path, [MOMENTUM]).total == 9


def test_trials_of_a_renamed_module_count_under_both_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a rename, or writing the old name, would start the count anew."""
    old = CAP.replace("wrappers", "compose")
    with monkeypatch.context() as before:
        before.setattr("engine.sweeps.trials.RENAMED_MODULES", {})
        record_trials(tmp_path, old, "then", np.arange(5), np.zeros(5))
    record_trials(tmp_path, CAP, "now", np.arange(4, 7), np.zeros(3))
    record_trials(tmp_path, old, "old-name", np.arange(7, 9), np.zeros(2))
    assert count_trials(tmp_path, [CAP]).total == count_trials(tmp_path, [old]).total == 9


@dataclass(frozen=True)
class Default(Oracle):
    """Has an oracle inside that nobody names, and a text that looks like one."""

    inner: str = MOMENTUM
    pair: str = "BTC:USD"
    oracle_parameters: ClassVar[tuple[str, ...]] = ("inner",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inner", as_oracle(self.inner, "inner"))

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        return self.inner.weight_matrix(panel, decisions)  # type: ignore[attr-defined,no-any-return]


@pytest.mark.slow
def test_an_oracle_inside_by_default_is_one_inside(panel: Panel, tmp_path: Path) -> None:
    study = sweep(panel, Default, {"pair": ["BTC:USD", "ETH:USD"]}, name="a", reports=tmp_path)
    own = f"{__name__}:Default"
    assert families_of(study.record)[:2] == [own, MOMENTUM] and study.record["inner"] == [MOMENTUM]
    assert count_trials(tmp_path, [MOMENTUM]).total == count_trials(tmp_path, [own]).total == 2


@pytest.mark.slow
def test_a_single_run_of_a_wrapper_is_a_trial_of_both(
    sample_cache: Path, tmp_path: Path, hlbt: Hlbt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("--oracle", CAP, "--param", f"inner={MOMENTUM}", "--set", f"data.cache={sample_cache}")
    assert hlbt("backtest", *words, "--param", "cap=0.5", "--no-report")[0] == 0
    assert count_trials(Path("reports"), [MOMENTUM]).total == count_trials(Path("reports"), [CAP]).total == 1
    # The same set in a sweep is the same trial, though nobody writes the defaults of the oracle inside.
    assert hlbt("sweep", *words, "--grid", "cap=0.5,0.9", "--no-verdict")[0] == 0
    assert count_trials(Path("reports"), [MOMENTUM]).total == count_trials(Path("reports"), [CAP]).total == 2


@pytest.mark.slow
def test_what_is_done_is_in_the_ledger_before_the_sweep_is(panel: Panel, tmp_path: Path) -> None:
    """A kill -9 after any task: at most the task that was handed over last, and an eighth of the sets, are missing."""
    seen: list[tuple[int, int]] = []

    class Watched:
        def run(self, panel: Panel, tasks: Iterator[Task]) -> Iterator[Outcome]:
            done = 0
            for outcome in Threads(1).run(panel, tasks):
                yield outcome
                done += len(outcome.errors)
                seen.append((done, count_trials(tmp_path, [f"{Slow.__module__}:Slow"]).total))

    grid = {"tilt": [0.002 * k for k in range(1, 161)]}
    study = sweep(panel, Slow, grid, name="a", reports=tmp_path, executor=Watched())
    assert len(seen) == 20 and all(done * 8 / 9 - 8 <= counted <= done for done, counted in seen), seen
    count = count_trials(tmp_path, [f"{Slow.__module__}:Slow"])
    assert count.total == 160
    assert count.sharpe_sd_daily == pytest.approx(np.std(study["sharpe"] / np.sqrt(365), ddof=1), rel=1e-12)


def test_a_sweep_asks_a_ledger_once_and_pauses_where_it_is_long(
    panel: Panel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    known = trials.known_trials

    def watched(reports: Path, family: str, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked.append(len(keys))
        return known(reports, family, keys)

    def counts(name: str) -> list[int]:
        chain = read_chain(tmp_path / name / trials.FOLDER / trials.LEDGER)
        return [record["count"] for record in chain.records]

    monkeypatch.setattr(trials, "known_trials", watched)
    monkeypatch.setattr("engine.sweeps.sweep.known_trials", watched)
    grid = {"tilt": [0.002 * k for k in range(1, 161)]}
    sweep(panel, Slow, grid, name="a", reports=tmp_path / "short", executor=Threads(1))
    assert asked == [160] and len(counts("short")) > 10 and sum(counts("short")) == 160
    monkeypatch.setattr("engine.sweeps.sweep.COUNT_SECONDS", 0.0)  # as if every addition took long
    monkeypatch.setattr("engine.sweeps.sweep.COUNT_PAUSE", 1e6)
    sweep(panel, Slow, grid, name="a", reports=tmp_path / "long", executor=Threads(1))
    assert counts("long") == [8, 152]
    again = sweep(panel, Slow, grid, name="b", reports=tmp_path / "long", executor=Threads(1))
    assert again.record["sets"]["reused"] == 160 and counts("long") == [8, 152]


def test_a_set_whose_oracle_inside_is_none_fails_alone(panel: Panel, tmp_path: Path) -> None:
    """It cannot be asked for its parts and their code, which tell a set from others."""
    given = {"inner": [MOMENTUM, "research.oracles.momentum:Momentun"], "cap": [0.5]}
    study = sweep(panel, Cap, given, name="a", reports=tmp_path)
    assert study["error"].iloc[0] == "" and "Momentun" in study["error"].iloc[1]
    assert count_trials(tmp_path, [CAP]).total == count_trials(tmp_path, [MOMENTUM]).total == 1


def test_digests_far_apart_are_no_range(tmp_path: Path) -> None:
    """Two keys are a range of a huge step to pandas, which warned where a third came."""
    record_trials(tmp_path, CAP, "a", np.array([-(2**61), 2**61]), np.array([0.1, 0.2]))
    record_trials(tmp_path, CAP, "b", np.array([2**62 + 2**61]), np.array([0.3]))
    record_trials(tmp_path, CAP, "c", np.array([2**61]), np.array([0.2]))
    assert count_trials(tmp_path, [CAP]).total == 3
