"""Runs of oracles by every door in Python: what names a run, and that nothing is overwritten by something else."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Oracle, Panel, Result, RunConfig, backtest, decisions_of, load_run, sweep, weight_matrix
from engine.errors import DataError, OracleError
from engine.runs import run_oracle
from engine.sweeps.trials import count_trials
from helpers.panels import random_panel
from research.notebook import run
from research.oracles.momentum import Momentum
from research.oracles.wrappers import Cap

FLAT = RunConfig.from_dict({"costs": {"taker_bps": 1.0}})
CELL = """
import pandas as pd
from engine import Oracle

class Mine(Oracle):
    def __init__(self, n=2):
        self.n = n
    def weight_matrix(self, panel, decisions):
        return pd.DataFrame({share} / self.n, index=decisions, columns=panel.coins[:self.n])
"""


@pytest.fixture(scope="module")
def panel() -> Panel:
    return random_panel(5, 24 * 12, 6)


@pytest.fixture
def notebook() -> Iterator[Any]:
    """Runs a cell of a notebook, whose module has no file, and returns the class Mine."""
    module = ModuleType("hlbt_test_notebook")
    sys.modules[module.__name__] = module

    def cell(text: str) -> type[Oracle]:
        exec(compile(text, "<cell>", "exec"), vars(module))
        kind: type[Oracle] = module.Mine
        return kind

    yield cell
    del sys.modules[module.__name__]


def kept(panel: Panel, oracle: type[Oracle] | str, parameters: dict[str, Any], reports: Path) -> tuple[Result, Path]:
    """As :func:`research.notebook.run`, without the page, which takes seconds."""
    result, _ = run_oracle(panel, FLAT, oracle, parameters)
    return result, result.save(reports=reports, tearsheet=False)


def end_of(folder: Path) -> float:
    return float(load_run(folder).equity["equity_usd"].iloc[-1])


def test_backtest_calls_the_oracle_itself(panel: Panel, tmp_path: Path) -> None:
    config = RunConfig.from_dict({"execution": {"every_days": 2}})
    oracle = Momentum(lookback_hours=24, n=2)
    weights = weight_matrix(oracle, panel, decisions_of(panel, config))
    direct, given = backtest(panel, oracle, config, reports=tmp_path), backtest(panel, weights, config)
    pd.testing.assert_series_equal(direct.equity, given.equity)
    assert direct.origin is not None and direct.origin.parameters["lookback_hours"] == 24
    assert given.origin is None and direct.origin.path == "research.oracles.momentum:Momentum"
    backtest(panel, weights, config, reports=tmp_path)
    run_oracle(panel, config, oracle.__class__, {"lookback_hours": 24, "n": 2})[0].save(
        reports=tmp_path, tearsheet=False
    )
    assert count_trials(tmp_path, [direct.origin.path]).total == 1
    wrapped = backtest(panel, Cap(inner=Momentum(n=2, lookback_hours=24), cap=0.2), reports=tmp_path)
    assert wrapped.origin is not None and wrapped.origin.parameters["inner.n"] == 2
    assert count_trials(tmp_path, [direct.origin.path]).total == 2
    with pytest.raises(DataError, match="needs a Panel"):
        backtest(panel.frame("mid"), oracle)  # type: ignore[arg-type]
    with pytest.raises(OracleError, match="abstract"):
        backtest(panel, Oracle)  # type: ignore[arg-type]


def test_a_class_of_a_notebook_that_is_defined_again_makes_another_run(
    panel: Panel, notebook: Any, tmp_path: Path
) -> None:
    first, one = kept(panel, notebook(CELL.format(share="1.0")), {"n": 2}, tmp_path)
    again, same = kept(panel, notebook("\n\n" + CELL.format(share="1.0")), {"n": 2}, tmp_path)
    other, two = run(panel, notebook(CELL.format(share="-1.0")), {"n": 2}, FLAT, tmp_path)
    assert one == same != two and again.metrics == first.metrics != other.metrics
    assert end_of(one) == first.equity.iloc[-1] and end_of(two) == other.equity.iloc[-1]
    digests = {json.loads((folder / "run.json").read_text())["digests"]["oracle"] for folder in (one, two)}
    assert len(digests) == 2 and count_trials(tmp_path, ["hlbt_test_notebook:Mine"]).total == 2


def test_the_class_that_is_given_is_run_not_the_one_that_has_its_name_now(panel: Panel, notebook: Any) -> None:
    old = notebook(CELL.format(share="1.0"))
    notebook(CELL.format(share="-1.0"))
    assert backtest(panel, old(n=3)).weights.iloc[-1].sum() == pytest.approx(1.0)
    result, _ = run_oracle(panel, FLAT, old, {"n": 3})
    assert result.weights.iloc[-1].sum() == pytest.approx(1.0)


def test_a_set_of_a_notebook_and_its_run_are_one_trial(panel: Panel, notebook: Any, tmp_path: Path) -> None:
    kind = notebook(CELL.format(share="1.0"))
    sweep(panel, kind, {"n": [1, 2]}, FLAT, reports=tmp_path)
    kept(panel, kind, {"n": 2}, tmp_path)
    backtest(panel, kind(n=2), FLAT, reports=tmp_path)
    assert count_trials(tmp_path, ["hlbt_test_notebook:Mine"]).total == 2


def test_code_that_cannot_be_known_has_a_name_of_its_own_and_says_so(
    panel: Panel, notebook: Any, tmp_path: Path
) -> None:
    text = "import threading\nLOCK = threading.Lock()\n" + CELL.format(share="(1.0 if LOCK else 0.0)")
    folders = [run(panel, notebook(text), {"n": 2}, FLAT, tmp_path)[1] for _ in range(2)]
    assert len(set(folders)) == 2 and all(
        "has a name of its own" in str(load_run(one).record["notes"]) for one in folders
    )


class Draws(Oracle):
    """Remembers how often it was called, and keeps its parameter under another name."""

    calls = 0

    def __init__(self, size: float = 0.5) -> None:
        self._half = size / 2

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        type(self).calls += 1
        values = np.random.default_rng(self.calls).random((len(decisions), 2)) * self._half
        return pd.DataFrame(values, index=decisions, columns=panel.coins[:2])


def test_two_runs_of_one_name_stay_two(panel: Panel, tmp_path: Path) -> None:
    results = [kept(panel, Draws, {"size": 0.5}, tmp_path) for _ in range(3)]
    assert len({folder for _, folder in results}) == 3
    assert [end_of(folder) for _, folder in results] == [result.equity.iloc[-1] for result, _ in results]
    known, changed = backtest(panel, Draws(0.4), FLAT), Draws(0.4)
    assert known.origin is not None and known.origin.parameters == {"size": 0.4}
    changed._half = 0.1
    unknown = [backtest(panel, changed, FLAT) for _ in range(2)]
    first, second = (result.origin.parameters for result in unknown if result.origin is not None)
    assert list(first) == ["not known"] and first != second and "not known" in unknown[0].notes[-1]


def test_a_result_is_saved_and_no_other_run_is_overwritten(panel: Panel, tmp_path: Path) -> None:
    result, other = (backtest(panel, Momentum(lookback_hours=24, n=n), FLAT) for n in (1, 2))
    folder = result.save(tmp_path / "mine", tearsheet=False)
    assert folder == result.save(tmp_path / "mine", tearsheet=False)
    assert load_run(folder).record["metrics"]["sharpe"] == result.metrics["sharpe"]
    assert load_run(folder).record["decisions_from"] == result.weights.index[0].isoformat()
    pd.testing.assert_frame_equal(load_run(folder).trips, result.round_trips)  # type: ignore[arg-type]
    assert "Not counted as a trial" in str(load_run(folder).record["notes"])
    with pytest.raises(DataError, match="holds another run, which is not overwritten"):
        other.save(folder)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.md").write_text("mine")
    with pytest.raises(DataError, match=r"diary\.md"):
        result.save(tmp_path / "notes")
    named = [one.save(reports=tmp_path / "reports", tearsheet=False) for one in (result, other)]
    assert len(set(named)) == 2 and named[0].name.startswith("momentum-")
    assert count_trials(tmp_path / "reports", ["research.oracles.momentum:Momentum"]).total == 2
    own = pd.DataFrame(0.1, index=result.weights.index, columns=panel.coins[:2])
    books = [backtest(panel, own * size, FLAT).save(reports=tmp_path / "r", tearsheet=False) for size in (1, 2, 1)]
    assert books[0] == books[2] != books[1]


def test_the_page_of_a_result_alone(panel: Panel, tmp_path: Path) -> None:
    result = backtest(panel, Momentum(lookback_hours=24, n=1), FLAT)
    page = result.tearsheet(tmp_path / "page.html")
    assert page.read_text(encoding="utf-8").count("Momentum") and list(tmp_path.iterdir()) == [page]
    for wrong in (tmp_path, tmp_path / "page.pdf", tmp_path / "no" / "page.html"):
        with pytest.raises(DataError, match=r"\.html|cannot be written"):
            result.tearsheet(wrong)
