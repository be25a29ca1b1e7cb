"""Sets chosen by Optuna: the same seed gives the same ones, each that ran is a trial, an interrupted search goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine import Panel
from engine.errors import ConfigError, HlbtError
from engine.sweeps.sampling import ROUND, sweep_by_optuna
from engine.sweeps.sweep import sweep
from engine.sweeps.trials import count_trials
from helpers.panels import random_panel

pytest.importorskip("optuna")
MOMENTUM = "research.oracles.momentum:Momentum"
GRID = {"lookback_hours": list(range(4, 44, 2)), "n": [1, 2], "costs.taker_bps": [1.0, 2.0, 4.0]}
WHERE = ["lookback_hours != 8"]


@pytest.fixture(scope="module")
def panel() -> Panel:
    return random_panel(3, 24 * 12, 6)


def test_a_search_is_repeatable_resumes_and_counts_every_set(panel: Panel, tmp_path: Path) -> None:
    def search(reports: str, sample: int = 40, seed: int = 5) -> pd.DataFrame:
        return sweep_by_optuna(
            MOMENTUM, GRID, WHERE, sample, seed, panel=panel, reports=tmp_path / reports, name="s"
        ).table

    whole = search("one")
    assert len(whole) == 40 and not whole.index.duplicated().any()
    assert 8 not in whole.index.get_level_values("lookback_hours")
    assert count_trials(tmp_path / "one", [MOMENTUM]).total == 40

    ran = 0

    def broken(done: int, _total: int, _what: str) -> None:
        nonlocal ran
        ran = max(ran, done)
        if done > ROUND:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep_by_optuna(MOMENTUM, GRID, WHERE, 40, 5, panel=panel, reports=tmp_path / "two", name="s", progress=broken)
    assert ROUND < ran < 40
    pd.testing.assert_frame_equal(search("two"), whole)
    again = sweep_by_optuna(MOMENTUM, GRID, WHERE, 40, 5, panel=panel, reports=tmp_path / "one", name="s")
    assert again.record["sets"]["reused"] == 40, "nothing is run twice"
    assert count_trials(tmp_path / "two", [MOMENTUM]).total == 40
    assert not search("three", seed=6).index.equals(whole.index)

    every = sweep(panel, MOMENTUM, GRID, where=WHERE).table["sharpe"]
    for label, sharpe in whole["sharpe"].items():
        assert np.isclose(sharpe, every.loc[label], rtol=1e-12)


def test_a_search_ends_when_all_sets_were_run(panel: Panel) -> None:
    done = sweep_by_optuna(MOMENTUM, {"n": [1, 2, 3]}, [], 50, 0, panel=panel)
    most = sweep_by_optuna(MOMENTUM, {"lookback_hours": list(range(4, 34))}, [], 29, 0, panel=panel)
    assert len(most) == 29
    assert sorted(done.table.index) == [1, 2, 3]


def test_what_a_search_refuses(panel: Panel) -> None:
    with pytest.raises(ConfigError, match="not among listed sets"):
        sweep_by_optuna(MOMENTUM, [{"n": 1}], [], 5, 0, panel=panel)  # type: ignore[arg-type]
    with pytest.raises(HlbtError, match="m"):
        sweep_by_optuna(MOMENTUM, {"m": [1, 2]}, [], 5, 0, panel=panel)
