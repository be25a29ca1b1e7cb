"""sweep(): every set is the backtest it says it is; what is known is not run again; nothing done is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine import (
    HlbtError,
    Oracle,
    Panel,
    RunConfig,
    ScoreOracle,
    Study,
    backtest,
    decisions_of,
    load_study,
    sweep,
    weight_matrix,
)
from engine.errors import ConfigError, DataError, OracleError
from engine.sweeps.executors import Threads
from engine.sweeps.plan import make_plan
from engine.sweeps.tasks import Outcome, Task
from engine.sweeps.trials import count_trials, families_of
from panels import random_panel
from research.oracles.carry import Carry
from research.oracles.compose import Cap
from research.oracles.momentum import Momentum
from research.oracles.reversal import Reversal
from test_batch import assert_same

MOMENTUM = "research.oracles.momentum:Momentum"
GRID = {
    "lookback_hours": [24, 72],
    "construction": ["top_bottom", "rank_power", "z_score"],
    "n": [2, 3],
    "execution.hour_utc": [23, 9],
    "costs.taker_bps": ["schedule", 9.0],
}


@pytest.fixture(scope="module")
def panel() -> Panel:
    return random_panel(5, 24 * 40, 9, quotes=True, funding=True, oracle=True, table=True, volume=True)


@dataclass(frozen=True)
class Slow(Oracle):
    """Counts how often it is asked."""

    tilt: float = 0.1
    boom: bool = False

    asked = 0

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        type(self).asked += 1
        if self.boom:
            raise ZeroDivisionError("planted")
        return pd.DataFrame(self.tilt, index=decisions, columns=list(panel.coins)[:3])


class Scored(ScoreOracle):
    """Scores are counted; some sets fail in the score, some in the construction, some are too large to trade."""

    score_parameters = ("shift",)
    computed = 0

    def __init__(self, shift: int = 0, size: float = 0.3, refuse: bool = False) -> None:
        if refuse:
            raise OracleError("refused by its constructor")
        self.shift, self.size = shift, size

    def scores(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        type(self).computed += 1
        if self.shift == 13:
            raise ValueError("an unlucky shift")
        return np.roll(np.tile(np.arange(float(len(panel.coins))), (len(decisions), 1)), self.shift, axis=1)

    def construct(self, scores: np.ndarray) -> np.ndarray:
        if self.size < 0:
            raise ValueError("a negative size")
        return np.where(scores == 0.0, self.size, 0.0)


def alone(study: Study, place: int, panel: Panel) -> object:
    setting = study.setting(place)
    weights = weight_matrix(setting.build(), panel, decisions_of(panel, setting.config))
    return backtest(panel, weights, setting.config)


def test_every_set_is_the_backtest_it_says_it_is(panel: Panel) -> None:
    study = sweep(panel, Momentum, GRID, RunConfig.from_dict({"execution": {"no_trade_band_frac": 0.01}}))
    assert len(study) == 48 and list(study.index.names) == list(GRID)
    assert study.daily_returns is not None
    for place in range(0, 48, 5):
        result = alone(study, place, panel)
        assert_same(study.table.iloc[place], result)  # type: ignore[arg-type]
        expected = result.daily_returns  # type: ignore[attr-defined]
        ours = study.daily_returns.iloc[:, place].dropna()
        assert list(ours.index) == list(expected.index.normalize())
        np.testing.assert_allclose(ours.to_numpy(), expected.to_numpy(), rtol=1e-9, atol=1e-13)
    labels = (72, "z_score", 3, 9, 9.0)
    assert study["sharpe"].loc[labels] == study.table["sharpe"].to_numpy()[list(study.index).index(labels)]


def test_several_oracles_are_an_axis(panel: Panel) -> None:
    study = sweep(panel, [Momentum, Reversal, Carry], {"lookback_hours": [24, 48], "n": [2]})
    assert list(study.index.names) == ["oracle", "lookback_hours", "n"] and len(study) == 6
    for place in range(6):
        assert_same(study.table.iloc[place], alone(study, place, panel))  # type: ignore[arg-type]
    # A reversal is a momentum with the other sign: not the same book, so not the same figures.
    assert study["sharpe"].nunique() == 6


def test_the_numbers_depend_neither_on_threads_nor_on_other_sets(panel: Panel) -> None:
    one = sweep(panel, Momentum, GRID, executor=Threads(1))
    three = sweep(panel, Momentum, GRID, executor=Threads(3))
    pd.testing.assert_frame_equal(one.table, three.table, check_exact=True)
    few = sweep(panel, Momentum, {key: values[:1] for key, values in GRID.items()})
    pd.testing.assert_frame_equal(few.table, one.table.iloc[:1], check_exact=True, check_index_type=False)
    drawn = sweep(panel, Momentum, GRID, sample=7, seed=2)
    pd.testing.assert_frame_equal(
        drawn.table, one.table.loc[list(drawn.index)], check_exact=True, check_index_type=False
    )


def test_scores_are_computed_once(panel: Panel) -> None:
    Scored.computed = 0
    study = sweep(panel, Scored, {"shift": [0, 1, 2], "size": [0.1, 0.2], "costs.half_spread_bps": [1.0, 2.0, 3.0]})
    assert len(study) == 18 and Scored.computed == 3 + 1  # once more to see that the size does not decide them
    Slow.asked = 0
    assert len(sweep(panel, Slow, {"tilt": [0.1, 0.2], "execution.delay_hours": [0, 1, 2]})) == 6
    assert Slow.asked == 2


def test_a_set_that_raises_is_recorded_and_the_rest_goes_on(panel: Panel) -> None:
    study = sweep(panel, Scored, {"shift": [0, 13], "size": [0.3, -1.0, 7.0], "refuse": [False, True]})
    errors = study["error"]
    assert errors.loc[(0, 0.3, False)] == "" and np.isfinite(study["sharpe"].loc[(0, 0.3, False)])
    assert "a negative size" in errors.loc[(0, -1.0, False)]
    assert "Gross weight 7.00" in errors.loc[(0, 7.0, False)]
    assert errors.loc[(0, 0.3, True)] == "refused by its constructor"
    assert all("an unlucky shift" in text for text in errors.loc[(13, slice(None), False)])
    assert study.record["sets"]["failed"] == 11 and study["sharpe"].isna().sum() == 11
    assert study.daily_returns is not None and study.daily_returns.isna().all().sum() == 11
    good = sweep(panel, Scored, {"shift": [0], "size": [0.3], "refuse": [False]})
    assert good["equity_end_usd"].iloc[0] == study["equity_end_usd"].loc[(0, 0.3, False)]


class Tilted(Momentum):
    """Scores and construction of its base, and something of its own after them."""

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        return super().weight_matrix(panel, decisions) * 0.5


class Signed(Momentum):
    def construct(self, scores: np.ndarray) -> np.ndarray:
        return -super().construct(scores)


@pytest.mark.parametrize("kind", [Tilted, Signed])
def test_what_a_subclass_does_in_its_own_way_is_done(kind: type[Momentum], panel: Panel) -> None:
    study = sweep(panel, kind, {"lookback_hours": [24, 48], "construction": ["top_bottom", "z_score"]})
    for place in range(4):
        assert_same(study.table.iloc[place], alone(study, place, panel))  # type: ignore[arg-type]


def test_all_sets_may_fail(panel: Panel) -> None:
    study = sweep(panel, Slow, {"boom": [True]})
    assert "planted" in study["error"].iloc[0] and np.isnan(study["sharpe"].iloc[0])
    with pytest.raises(DataError, match="all failed"):
        study.best()


def test_a_config_that_is_not_accepted_is_an_error_of_its_sets(panel: Panel) -> None:
    study = sweep(panel, Momentum, {"execution.delay_hours": [0, -1], "lookback_hours": [24]})
    assert study["error"].iloc[0] == "" and "delay_hours = -1 is not accepted" in study["error"].iloc[1]


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
    assert kept.shape == study.daily_returns.shape[::-1]  # type: ignore[union-attr]


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
    monkeypatch.setattr(sys.modules["engine.sweep"], "code_digest", lambda: "another")
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
    with pytest.raises(DataError, match="no sweep folder"):
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
    damaged = next((alone_ / ".trials").glob("*/*.parquet"))
    damaged.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"ledger .* is damaged"):
        count_trials(alone_, family)


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


@pytest.mark.parametrize(
    ("oracle", "grid", "words"),
    [
        (Momentum, {"lookback": [1]}, "Did you mean 'lookback_hours'"),
        (Momentum, {}, "no set"),
        ("research.oracles.momentum:Momentun", {"n": [1]}, "no oracle"),
        (Momentum, {"oracle": ["x:Y"]}, "not among those"),
        ([], {"n": [1]}, "needs an oracle"),
        (3, {"n": [1]}, "is no oracle"),
    ],
)
def test_sweeps_that_are_refused(panel: Panel, oracle: object, grid: dict[str, list[object]], words: str) -> None:
    with pytest.raises(HlbtError, match=words):
        sweep(panel, oracle, grid)  # type: ignore[arg-type]


def test_names_that_are_refused(panel: Panel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no name of a folder"):
        sweep(panel, Slow, {"tilt": [0.1]}, name="../elsewhere", reports=tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match=r"thesis\.txt"):
        sweep(panel, Slow, {"tilt": [0.1]}, name="taken", reports=tmp_path)


def test_tasks_are_bounded_and_name_each_set_once(panel: Panel) -> None:
    grid = {
        "lookback_hours": list(range(1, 21)),
        "n": list(range(1, 51)),
        "costs.taker_bps": [0.1 * k for k in range(20)],
    }
    plan = make_plan(panel, Momentum, grid, RunConfig(), {}, (), None, 0, False)
    seen = np.zeros(len(plan.keys), dtype=int)
    for task in plan.tasks(np.arange(len(plan.keys))):
        assert 0 < len(task.parameters) <= 1024
        assert len({parameters["lookback_hours"] for parameters in task.parameters}) <= 64
        assert len({plan.config_of[place] for place in task.places}) == 1
        seen[task.places] += 1
    assert (seen == 1).all() and len(np.unique(plan.keys)) == len(plan.keys) == 20_000


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
        time.sleep(0.05)
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
    deadline = time.monotonic() + 60
    while (not log.exists() or len(log.read_text().split()) < 20) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(first.pid, how)
    _, said = first.communicate(timeout=60)
    if how == signal.SIGINT:
        assert first.returncode == 130 and "run the command again to go on" in said and "Traceback" not in said
    asked = len(log.read_text().split())
    assert 20 <= asked < 60
    done = subprocess.run([str(word) for word in words], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["sets"]["reused"] >= 8
    counts = pd.Series(log.read_text().split()).value_counts()
    assert len(counts) == 60 and counts.max() <= 2 and (counts == 2).sum() <= 24  # what was running is run again
    assert len(load_study(tmp_path / "reports" / "w")) == 60


@dataclass(frozen=True)
class Typed(Oracle):
    """Says no to a parameter of another type than it was asked with."""

    size: int | float | None = 1

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        if self.size is not None and self.size != self.size:
            raise OracleError("size is NaN")
        share = 0.3 if self.size is None else 0.1 if isinstance(self.size, int) else 0.2
        return pd.DataFrame(share, index=decisions, columns=list(panel.coins)[:1])


@pytest.mark.parametrize("more", [{}, {"costs.taker_bps": [3.0]}])
@pytest.mark.parametrize("sizes", [[3, 2.5], [1, None], [2, 2.0]])
def test_a_set_is_run_again_with_the_values_it_was_run_with(
    panel: Panel, tmp_path: Path, sizes: list[float | None], more: dict[str, list[float]]
) -> None:
    sweep(panel, Typed, {"size": sizes, **more}, name="a", reports=tmp_path)
    study = load_study(tmp_path / "a")
    for place, size in enumerate(sizes):
        given = study.setting(place).parameters["size"]
        assert given == size and type(given) is type(size)
        setting = study.setting(place)
        weights = weight_matrix(Typed(given), panel, decisions_of(panel, setting.config))
        assert backtest(panel, weights, setting.config).metrics["sharpe"] == pytest.approx(study["sharpe"].iloc[place])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), pd.DataFrame({"a": [1]}), np.zeros(3), Typed()])
def test_what_the_record_cannot_hold_is_refused_before_anything_runs(panel: Panel, value: object) -> None:
    Slow.asked = 0
    for grid, fixed in (({"tilt": [value, 0.1]}, {}), ({"boom": [False]}, {"tilt": value}), ([{"tilt": value}], {})):
        with pytest.raises(ConfigError, match=r"tilt = .* is not accepted: a sweep takes finite"):
            sweep(panel, Slow, grid, fixed=fixed)
    assert Slow.asked == 0


def test_a_wrapper_is_judged_by_the_trials_of_the_oracle_inside(panel: Panel, tmp_path: Path) -> None:
    sweep(panel, MOMENTUM, {"n": [1, 2, 3], "lookback_hours": [24, 48]}, name="a", reports=tmp_path)
    wrapped = {"inner": MOMENTUM, "inner.lookback_hours": 24}
    for number, given in enumerate((wrapped, {"inner": {"oracle": MOMENTUM, "lookback_hours": 24}})):
        study = sweep(panel, Cap, {"cap": [0.5, 0.9]}, fixed=given, name=f"b{number}", reports=tmp_path)
        assert families_of(study.record) == ["research.oracles.compose:Cap", MOMENTUM]
        assert count_trials(tmp_path, families_of(load_study(tmp_path / f"b{number}").record)).total == 8 + 2 * number


def test_when_every_set_fails_the_reason_is_said(panel: Panel) -> None:
    with pytest.raises(DataError, match=r"all failed or never traded\. 1 of 1 failed; the first: .*planted"):
        sweep(panel, Slow, {"boom": [True]}).best()


def test_a_number_of_the_config_is_the_same_set_however_it_is_written(panel: Panel, tmp_path: Path) -> None:
    for number, bps in enumerate((4, 4.0)):
        study = sweep(panel, Slow, {"costs.taker_bps": [bps, 7.5]}, name=f"s{number}", reports=tmp_path)
        assert study.record["sets"]["reused"] == 2 * number
    bad = sweep(panel, Slow, {"costs.taker_bps": [4, -1e9]}, name="bad", reports=tmp_path)
    assert bad.record["sets"] == {"total": 2, "reused": 1, "failed": 1}


@dataclass(frozen=True)
class Forgetful(Momentum):
    """Forgets to say that its score depends on `tilt`."""

    tilt: float = 0.0

    def score(self, panel: Panel, row: int) -> np.ndarray:
        return super().score(panel, row) * (1.0 - self.tilt)


def test_a_score_parameter_that_is_not_named_is_found(panel: Panel) -> None:
    study = sweep(panel, Forgetful, {"n": [1, 2], "tilt": [0.0, 2.0], "lookback_hours": [24, 48]})
    assert study["error"].str.contains("other scores for another tilt, which score_parameters does not name").all()
    assert not sweep(panel, Forgetful, {"n": [1, 2], "tilt": [2.0]})["error"].any()
