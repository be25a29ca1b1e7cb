"""sweep(): every set is the backtest it says it is; what cannot be run says why, and what is refused is named."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from engine import (
    HlbtError,
    Oracle,
    Panel,
    Result,
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
from engine.oracles.loading import oracle_code
from engine.sweeps import results
from engine.sweeps.executors import Threads
from engine.sweeps.plan import make_plan
from engine.sweeps.result_files import ResultFiles
from engine.validation.validate import validate
from helpers.batches import assert_same
from helpers.panels import random_panel
from helpers.sweeps import GRID, MOMENTUM, Slow
from research.oracles.carry import Carry
from research.oracles.momentum import Momentum
from research.oracles.reversal import Reversal

REVERSAL = "research.oracles.reversal:Reversal"


@pytest.fixture(scope="module")
def panel() -> Panel:
    return random_panel(5, 24 * 40, 9, quotes=True, funding=True, oracle=True, table=True, volume=True)


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


def alone(study: Study, place: int, panel: Panel) -> Result:
    setting = study.parameter_set(place)
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
        assert list(ours.index) == list(expected.index)
        np.testing.assert_allclose(ours.to_numpy(), expected.to_numpy(), rtol=1e-9, atol=1e-13)
    labels = (72, "z_score", 3, 9, 9.0)
    assert study["sharpe"].loc[labels] == study.table["sharpe"].to_numpy()[list(study.index).index(labels)]


class Counted(Oracle):
    """Weights without scores, as a user writes them first."""

    calls: ClassVar[list[int]] = []

    def __init__(self, n: int = 1) -> None:
        self.n = n

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        self.calls.append(self.n)
        return pd.DataFrame(1.0 / self.n, index=decisions, columns=panel.coins[: self.n])


def test_weights_without_scores_are_computed_once_and_written_together(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of a column a day for every eight sets took most of the time of a sweep."""
    written: list[int] = []
    own = ResultFiles.write
    monkeypatch.setattr(ResultFiles, "write", lambda self, table: written.append(len(table)) or own(self, table))
    monkeypatch.setattr(results, "CHUNK_SECONDS", 60.0)
    Counted.calls.clear()
    study = sweep(panel, Counted, {"n": [1, 2, 3, 4], "costs.taker_bps": [float(bps) for bps in range(20)]})
    assert sorted(Counted.calls) == [1, 2, 3, 4] and written == [80] and study["sharpe"].notna().all()


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


@pytest.mark.slow
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


def test_sets_that_need_more_initial_margin_than_the_account_has_fail_by_name(panel: Panel) -> None:
    low = replace(panel, table=tuple(replace(coin, max_leverage=1.0, margin_tiers=()) for coin in panel.table))
    config = RunConfig.from_dict({"account": {"max_gross": 5.0}})
    study = sweep(low, Scored, {"size": [0.3, 1.5, 0.9, 2.0]}, config)
    failed = study["error"].loc[[1.5, 2.0]]
    assert all(f"need {size:g} times the account's equity" in failed[size] for size in failed.index)
    assert all(" at 1x" in text and " of book " not in text for text in failed)
    good = study["sharpe"].loc[[0.3, 0.9]]
    assert (study["error"].loc[good.index] == "").all() and np.isfinite(good).all()
    assert study.record["sets"]["failed"] == 2
    assert good[0.9] == sweep(low, Scored, {"size": [0.9]}, config)["sharpe"].iloc[0]


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


@pytest.mark.parametrize(
    ("oracle", "grid", "words"),
    [
        (Momentum, {"lookback": [1]}, "Did you mean 'lookback_hours'"),
        (Momentum, {}, "no set"),
        ("research.oracles.momentum:Momentun", {"n": [1]}, "no oracle"),
        (Momentum, {"oracle": ["x:Y"]}, "not among those"),
        ([], {"n": [1]}, "needs an oracle"),
        (3, {"n": [1]}, "is not an oracle"),
    ],
)
def test_sweeps_that_are_refused(panel: Panel, oracle: object, grid: dict[str, list[object]], words: str) -> None:
    with pytest.raises(HlbtError, match=words):
        sweep(panel, oracle, grid)  # type: ignore[arg-type]


def test_what_is_given_in_the_wrong_place_is_refused_before_any_set_runs(panel: Panel) -> None:
    grid = {"n": [1]}
    with pytest.raises(DataError, match=r"sweep\(\) needs a Panel, not DataFrame"):
        sweep(panel.frame("mid"), Momentum, grid)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="needs the panel itself"):
        sweep(panel.point_in_time(), Momentum, grid)
    for config in ({}, {"costs": {}}):
        with pytest.raises(ConfigError, match="config is dict"):
            sweep(panel, Momentum, grid, config)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"'costs\.taker_bps' is a config key"):
        sweep(panel, Momentum, grid, fixed={"costs.taker_bps": 45.0})


def test_a_set_of_a_list_must_name_what_has_no_default(panel: Panel) -> None:
    class Bound(Momentum):
        def __init__(self, n: int, k: float = 1.0) -> None:
            super().__init__(n=n)

    with pytest.raises(ConfigError, match=r"Set 1 .*has no n, and it has no default"):
        sweep(panel, Bound, [{"n": 1}, {"k": 2.0}])


def test_the_code_of_many_sets_of_a_wrapper_is_looked_for_once(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was parsed four times a set: ten thousand sets were planned for twelve minutes."""
    from engine.sweeps import plan

    looked: list[object] = []
    monkeypatch.setattr(plan, "oracle_code", lambda oracle: looked.append(oracle) or oracle_code(oracle))
    grid = {"cap": [0.1, 0.2, 0.3], "inner.lookback_hours": [24, 48], "inner.oracle": [MOMENTUM, REVERSAL]}
    laid = make_plan(panel, "research.oracles.wrappers:Cap", grid, RunConfig(), {}, (), None, 0, None)
    assert len(laid.keys) == 12 and len(looked) == 2


def test_names_that_are_refused(panel: Panel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a folder name"):
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
        assert len({plan.config_of[place] for place in task.rows}) == 1
        seen[task.rows] += 1
    assert (seen == 1).all() and len(np.unique(plan.keys)) == len(plan.keys) == 20_000


@dataclass(frozen=True)
class Typed(Oracle):
    """Says no to a parameter of another type than it was asked with."""

    size: int | float | None = 1

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        if self.size is not None and self.size != self.size:
            raise OracleError("size is NaN")
        share = 0.3 if self.size is None else 0.1 if isinstance(self.size, int) else 0.2
        return pd.DataFrame(share, index=decisions, columns=list(panel.coins)[:1])


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"costs.taker_bps": [3.0]}])
@pytest.mark.parametrize("sizes", [[3, 2.5], [1, None], [2, 2.0]])
def test_a_set_is_run_again_with_the_values_it_was_run_with(
    panel: Panel, tmp_path: Path, sizes: list[float | None], more: dict[str, list[float]]
) -> None:
    sweep(panel, Typed, {"size": sizes, **more}, name="a", reports=tmp_path)
    study = load_study(tmp_path / "a")
    for place, size in enumerate(sizes):
        given = study.parameter_set(place).parameters["size"]
        assert given == size and type(given) is type(size)
        setting = study.parameter_set(place)
        weights = weight_matrix(Typed(given), panel, decisions_of(panel, setting.config))
        assert backtest(panel, weights, setting.config).metrics["sharpe"] == pytest.approx(study["sharpe"].iloc[place])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), pd.DataFrame({"a": [1]}), np.zeros(3), Typed()])
def test_what_the_record_cannot_hold_is_refused_before_anything_runs(panel: Panel, value: object) -> None:
    Slow.asked = 0
    for grid, fixed in (({"tilt": [value, 0.1]}, {}), ({"boom": [False]}, {"tilt": value}), ([{"tilt": value}], {})):
        with pytest.raises(ConfigError, match=r"tilt = .* is not accepted: a sweep takes finite"):
            sweep(panel, Slow, grid, fixed=fixed)
    assert Slow.asked == 0


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


@pytest.mark.slow
def test_a_score_parameter_that_is_not_named_is_found(panel: Panel) -> None:
    study = sweep(panel, Forgetful, {"n": [1, 2], "tilt": [0.0, 2.0], "lookback_hours": [24, 48]})
    assert study["error"].str.contains("other scores for another tilt, which score_parameters does not name").all()
    assert not sweep(panel, Forgetful, {"n": [1, 2], "tilt": [2.0]})["error"].any()


def test_an_error_in_a_score_is_that_of_its_sets(panel: Panel) -> None:
    """Whether sets that differ in no score parameter share a score is asked of the score itself, which may raise."""
    study = sweep(panel, Scored, {"shift": [13, 0], "size": [0.1, 0.2]})
    assert list(study["error"] == "") == [False, False, True, True]
    assert study["error"].loc[(13, slice(None))].str.contains("an unlucky shift").all()


def test_two_ways_to_write_a_set_are_one_set(panel: Panel) -> None:
    with pytest.raises(ConfigError, match=r"bps': 4} and {'costs.taker_bps': 4.0} are the same run"):
        sweep(panel, Slow, {"costs.taker_bps": [4, 7, 4.0]})


def test_a_long_text_is_a_parameter_and_no_file(panel: Panel) -> None:
    formula = "rank(close) - 0.5 * " * 20
    study = sweep(panel, Momentum, {"n": [2]}, fixed={"construction": formula})
    assert study["error"].iloc[0].startswith(f"construction = '{formula[:9]}")


class One(Slow):
    def __init__(self, tilt: float = 0.1) -> None:
        object.__setattr__(self, "tilt", tilt)


class Other(Slow):
    def __init__(self, tilt: float = 0.2, boom: bool = False) -> None:
        object.__setattr__(self, "tilt", tilt)


def test_a_set_of_a_list_has_no_default_of_another_oracle(panel: Panel) -> None:
    one, other = (f"{__name__}:{name}" for name in ("One", "Other"))
    for sets in ([{"oracle": one}, {"oracle": other, "tilt": 0.3}], [{"oracle": other, "tilt": 0.3}, {"oracle": one}]):
        with pytest.raises(ConfigError, match="has no tilt, and it has no default"):
            sweep(panel, [One, Other], sets)
    alike = sweep(panel, [Slow, One], [{"oracle": one}, {"oracle": one, "tilt": 0.3}])
    assert alike.index.get_level_values("tilt").tolist() == [0.1, 0.3]


def test_no_two_sweeps_have_one_name_by_default(panel: Panel) -> None:
    class Momentum(Slow):  # another one of that name
        pass

    def name(oracle: type[Oracle], where: object = ()) -> str:
        return make_plan(panel, oracle, {"n": [1, 2]}, RunConfig(), {}, where, None, 0, None).name  # type: ignore[arg-type]

    Momentum.__init__ = lambda self, n=1: None  # type: ignore[method-assign,assignment]
    names = {name(Momentum), name(globals()["Momentum"])}
    names |= {name(Momentum, lambda one: one["n"] == 1), name(Momentum, lambda one: one["n"] == 2)}
    assert len(names) == 4


@dataclass(frozen=True)
class Picky(Oracle):
    """Takes lists, which an index has as tuples, and tables, which have no hash."""

    sizes: object = None

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        if not isinstance(self.sizes, list | dict):
            raise OracleError(f"{type(self.sizes).__name__} is no list")
        size = self.sizes["a"] if isinstance(self.sizes, dict) else np.hstack(self.sizes).sum()
        return pd.DataFrame(0.1 * size, index=decisions, columns=list(panel.coins)[:1])


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"costs.taker_bps": [3.0, 4.0]}])
@pytest.mark.parametrize("sizes", [[[1, 2], [3, 1]], [[[1, 2], 1], [[1, 1], 1]], [{"a": 1}, {"a": 2}]])
def test_a_set_of_lists_or_tables_is_judged_as_any_other(
    panel: Panel, tmp_path: Path, sizes: list[object], more: dict[str, list[float]]
) -> None:
    sweep(panel, Picky, {"sizes": sizes, **more}, name="a", reports=tmp_path)
    study = load_study(tmp_path / "a")
    assert [study.params(place)["sizes"] for place in range(0, len(study), 1 + bool(more))] == sizes
    verdict = validate(study, panel)
    assert verdict.details["winner"]["rerun"]["sharpe"] == pytest.approx(study["sharpe"].max(), rel=1e-9)
    assert len(verdict.details["plateau"]["neighbours"]) == 1 + bool(more)


def test_sets_are_compared_on_the_days_that_all_of_them_trade(panel: Panel) -> None:
    """A long lookback misses the first days; one that hardly trades is left out instead of taking all days away."""
    study = sweep(panel, Momentum, {"lookback_hours": [24, 240, 840]}, fixed={"n": 2})
    values, dates, sets = study.joint
    daily = study.daily_returns
    assert daily is not None and sets.tolist() == [0, 1] and study["days"].tolist() == [38, 29, 4]
    assert len(values) == len(dates) == 29 and np.isfinite(values).all()
    np.testing.assert_array_equal(values, daily.iloc[-29:, :2])
    joint = daily.iloc[-29:].mean() / daily.iloc[-29:].std() * np.sqrt(365)
    np.testing.assert_allclose(study.sharpe_joint[:2], joint.iloc[:2], rtol=1e-12)
    assert np.isnan(study.sharpe_joint[2]) and study["sharpe"].notna().all()
    assert study.ranking()[2] == 2 and study.best() == int(np.nanargmax(study.sharpe_joint))
    assert study.best("cagr") == int(study["cagr"].argmax())
    for row in range(3):
        made = alone(study, row, panel)
        assert made.metrics["days"] == study["days"].iloc[row] == daily.iloc[:, row].count()
