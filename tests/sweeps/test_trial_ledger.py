"""The ledger as a chain: every door counts, equal trials once, older ledgers go on, a deletion shows in a verdict."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Oracle, Panel, RunConfig, backtest, decisions_of, sweep, validate, weight_matrix
from engine.data.holdout import Opening, opened_record, records_of
from engine.errors import DataError
from engine.oracles.base import path_of
from engine.oracles.loading import accepted_parameters
from engine.promotion.holdout import Holdout
from engine.sweeps.trials import (
    FOLDER,
    LEDGER,
    count_trials,
    families_of,
    ledger_holdout,
    record_events,
    record_trials,
    trials_that_saw,
)
from helpers.panels import random_panel
from helpers.sweeps import MOMENTUM
from research.notebook import run, search
from research.oracles.momentum import Momentum
from research.oracles.wrappers import Cap

FLAT = RunConfig()


@pytest.fixture(scope="module")
def panel() -> Panel:
    return random_panel(5, 24 * 40, 9, quotes=True, funding=True, oracle=True, table=True, volume=True)


def total(reports: Path, *families: str) -> int:
    return count_trials(reports, families or (MOMENTUM,)).total


def test_every_door_counts_and_equal_trials_count_once(panel: Panel, tmp_path: Path) -> None:
    search(panel, Momentum, {"n": [1, 2, 3]}, FLAT, tmp_path, fixed={"lookback_hours": 24})
    assert total(tmp_path) == 3
    weights = weight_matrix(Momentum(n=2, lookback_hours=24), panel, decisions_of(panel, FLAT))
    backtest(panel, weights, FLAT)
    assert total(tmp_path) == 3
    backtest(panel, weights, FLAT, reports=tmp_path)
    run(panel, Momentum, {"n": 2, "lookback_hours": 24}, FLAT, tmp_path)
    assert total(tmp_path) == 3  # the same set by three doors
    # Weights that were changed by hand are another trial of the same idea, each once.
    for _ in range(2):
        backtest(panel, weights * 0.5, FLAT, reports=tmp_path)
    assert total(tmp_path) == 4
    backtest(panel, weights * 0.5, RunConfig.from_dict({"costs": {"taker_bps": 1}}), reports=tmp_path)
    backtest(panel.until(panel.index[-30]), weights[:-2] * 0.5, FLAT, reports=tmp_path)
    assert total(tmp_path) == 6
    # Weights of nobody are counted beside the ideas; a wrapper's are of the oracle inside, too.
    backtest(panel, pd.DataFrame(0.1, index=weights.index, columns=panel.coins[:2]), FLAT, reports=tmp_path)
    assert total(tmp_path) == 6 and total(tmp_path, "weights") == 1
    wrapped = Cap(inner=Momentum(n=3, lookback_hours=48), cap=0.2)
    backtest(panel, weight_matrix(wrapped, panel, weights.index), FLAT, reports=tmp_path)
    assert total(tmp_path) == 7 and total(tmp_path, "research.oracles.wrappers:Cap") == 1


class Base(Oracle):
    """Keeps its arguments under other names, changed."""

    def __init__(self, tilt: float, scale: float = 1.0, **more: float) -> None:
        self._weight, self.more = tilt * scale, more

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        columns = list(panel.coins)[:3]
        return pd.DataFrame(self._weight + sum(self.more.values()), index=decisions, columns=columns)


class Derived(Base):
    """Has a constructor of its own, which calls that of its base."""

    def __init__(self, part: int = 1) -> None:
        super().__init__(part / 10, scale=0.5)


def test_one_trial_by_whatever_door(panel: Panel, tmp_path: Path) -> None:
    """No dataclass, a wrapper of what is none, a class of a function: the book alone would be a second trial."""

    class Local(Derived):
        pass

    name = f"{__name__}:Base"
    cases: list[tuple[type[Oracle], dict[str, Any], Oracle]] = [
        (Base, {"tilt": 0.1, "extra": 0.01}, Base(np.float64(0.1), extra=0.01)),
        (Derived, {"part": 2}, Derived(part=2)),
        (Local, {"part": 3}, Local(3)),
        (Cap, {"inner": name, "inner.tilt": 0.2, "cap": 0.1}, Cap(Base(0.2), 0.1)),
        (Cap, {"inner": name, "inner.tilt": 0.3, "cap": 0.1}, Cap({"oracle": name, "tilt": 0.3}, 0.1)),  # type: ignore[arg-type]
        (Cap, {"inner": name, "inner.tilt": 0.3, "inner.scale": 2, "cap": 0.1}, Cap(Base(0.3, 2), cap=0.1)),
        (Cap, {"inner": MOMENTUM, "inner.n": 2, "inner.lookback_hours": 24}, Cap(Momentum(24, n=2))),
    ]
    decisions = decisions_of(panel, FLAT)
    for number, (kind, given, oracle) in enumerate(cases):
        doors = [
            lambda kind=kind, given=given: sweep(panel, kind, [given], FLAT, reports=tmp_path),
            lambda oracle=oracle: backtest(panel, weight_matrix(oracle, panel, decisions), FLAT, reports=tmp_path),
        ]
        for door in doors[:: 1 if number % 2 else -1]:
            door()
        counted = [total(tmp_path, path_of(of)) for of in (Base, Derived, Local, Cap)]
        done = [case[0] for case in cases[: number + 1]]
        inside = sum(kind is Cap for kind in done[:6])
        expected = [done.count(kind) for kind in (Base, Derived, Local, Cap)]
        assert counted == [expected[0] + inside, *expected[1:]], kind


def test_an_oracle_that_was_changed_after_it_was_built_is_another_trial(panel: Panel, tmp_path: Path) -> None:
    oracle, decisions = Base(0.1), decisions_of(panel, FLAT)
    for weight in (0.1, 0.2, 0.3):
        oracle._weight = weight
        backtest(panel, weight_matrix(oracle, panel, decisions), FLAT, reports=tmp_path)
        backtest(panel, weight_matrix(copy.deepcopy(oracle), panel, decisions), FLAT, reports=tmp_path)
    assert total(tmp_path, f"{__name__}:Base") == 3
    assert accepted_parameters(Derived) == {"part": 1}  # the constructor is still seen as it was written


def test_what_is_not_counted_is_said(panel: Panel, tmp_path: Path) -> None:
    study = sweep(panel, Momentum, {"n": [1, 2]}, FLAT)
    assert any("Not counted as a trial" in note for note in validate(study, None).details["notes"])
    counted = sweep(panel, Momentum, {"n": [1, 2]}, FLAT, reports=tmp_path)
    assert not any("Not counted as a trial" in note for note in validate(counted, None).details["notes"])


def test_a_ledger_of_before_goes_on_and_its_entries_are_unchained(tmp_path: Path) -> None:
    old = tmp_path / FOLDER / "momentum-123456"
    old.mkdir(parents=True)
    (old / "family.txt").write_text(MOMENTUM + "\n")
    pd.DataFrame({"key": np.arange(4), "sharpe_daily": [0.1, 0.2, 0.3, np.nan]}).to_parquet(old / "a.parquet")
    count = count_trials(tmp_path, [MOMENTUM])
    assert (count.total, count.unchained, count.broken) == (4, 4, "")
    record_trials(tmp_path, MOMENTUM, "b", np.arange(2, 6), np.array([0.3, 0.1, 0.1, 0.1]))
    count = count_trials(tmp_path, [MOMENTUM])
    assert (count.total, count.unchained, count.broken) == (6, 4, "")
    assert any("4 of 6 trials lie in files of before" in note for note in count.notes)
    assert count.sharpe_sd_daily == pytest.approx(np.std([0.1, 0.2, 0.3, 0.1, 0.1, 0.1], ddof=1))
    for spoil in (lambda: (old / "a.parquet").write_bytes(b"PAR1"), (old / "a.parquet").unlink):
        spoil()
        assert "Restore" in count_trials(tmp_path, [MOMENTUM]).broken


@pytest.mark.parametrize("what", ["an entry", "the end", "the head", "the whole folder"])
def test_a_deletion_fails_the_verdict_and_says_where(panel: Panel, tmp_path: Path, what: str) -> None:
    study = search(panel, Momentum, {"n": [1, 2]}, FLAT, tmp_path, name="a")
    search(panel, Momentum, {"n": [3, 4]}, FLAT, tmp_path, name="b")
    ledger = tmp_path / FOLDER / LEDGER
    content = ledger.read_bytes().splitlines(keepends=True)
    if what == "an entry":
        ledger.write_bytes(b"".join(content[1:]))
    elif what == "the end":
        ledger.write_bytes(b"".join(content[:-1]))
    else:
        for file in (tmp_path / FOLDER).iterdir():
            if what == "the whole folder" or file.suffix == ".head":
                file.unlink()
    count = count_trials(tmp_path, families_of(study.record), study.record["ledger"])
    assert "The ledger of trials is broken" in count.broken and "Restore" in count.broken
    verdict = validate(study, None, count)
    assert not verdict.passed and any(count.broken in note for note in verdict.details["notes"])
    deflated = next(check for check in verdict.checks if check.name == "deflated_sharpe")
    assert not deflated.passed and "ledger of trials is broken" in deflated.summary


def test_what_is_tried_after_an_opening_is_marked(panel: Panel, tmp_path: Path) -> None:
    search(panel, Momentum, {"n": [1, 2]}, FLAT, tmp_path, name="a")
    start = panel.index[-100]
    record_events(tmp_path, records_of(Holdout(start, "2026-01-01", panel.synthetic)))
    earlier = panel.until(start - pd.Timedelta(hours=1))
    search(earlier, Momentum, {"n": [3]}, FLAT, tmp_path, name="b")
    count = count_trials(tmp_path, [MOMENTUM])
    assert (count.total, count.after_opening, count.saw_sealed) == (3, 0, 2)
    record_events(tmp_path, [opened_record(Opening("b", "0" * 16, "2026-01-02", panel.index[-1]))])
    search(earlier, Momentum, {"n": [3, 4, 5]}, FLAT, tmp_path, name="c")  # n = 3 was tried before
    count = count_trials(tmp_path, [MOMENTUM])
    assert (count.total, count.after_opening, count.saw_sealed) == (5, 2, 2)
    assert sum("after the holdout had been opened" in note for note in count.notes) == 1


@pytest.mark.parametrize("value", ["gone", None, "x", -1, {}])
def test_an_edit_of_any_field_is_told_and_never_raised(tmp_path: Path, value: object) -> None:
    start = pd.Timestamp("2026-09-01", tz="UTC")
    record_trials(tmp_path, MOMENTUM, "a", np.arange(3), np.array([0.1, 0.2, 0.3]), None, np.arange(3) + 9)
    opening = Opening("run", "k", "2026-09-05T00:00:00+00:00", pd.Timestamp("2026-10-01", tz="UTC"), {"sharpe": 1.0})
    record_events(tmp_path, records_of(Holdout(start, "2026-08-01T00:00:00+00:00", False, (opening,))))
    path = tmp_path / FOLDER / LEDGER
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        for name, before in json.loads(line).items():
            edited = {key: item for key, item in json.loads(line).items() if key != name or value != "gone"}
            edited |= {} if value == "gone" else {name: value if before != value else "other"}
            text = json.dumps(edited, sort_keys=True, separators=(",", ":"))
            path.write_text("\n".join([*lines[:number], text, *lines[number + 1 :], ""]))
            assert f"entry {number + 1} " in count_trials(tmp_path, [MOMENTUM]).broken
            trials_that_saw(tmp_path, start, False)
            try:
                ledger_holdout(tmp_path)
            except DataError as error:
                assert "Restore" in str(error) and str(path) in str(error)
