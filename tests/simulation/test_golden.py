"""Four runs whose numbers nobody changes by accident."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from engine import Panel, load_panel
from golden.rebuild import EQUITY, GOLDEN, REASONS, RUNS, daily_equity, metrics, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def panel(sample_cache: Path) -> Panel:
    return load_panel(sample_cache)


@pytest.mark.parametrize("name", RUNS)
def test_golden_run(panel: Panel, name: str) -> None:
    expected = json.loads(GOLDEN.read_text(encoding="utf-8"))[name]
    result = run(name, panel)
    got = metrics(result)
    advice = "If the new number is more right, argue it: python tests/golden/rebuild.py --help"
    assert set(got) == set(expected), advice
    for metric, value in expected.items():
        found = got[metric]
        if isinstance(value, float):
            assert found == pytest.approx(value, rel=1e-9, abs=1e-9), f"{metric}. {advice}"
        else:
            assert found == value, f"{metric}. {advice}"
    equity = pd.read_csv(EQUITY, index_col="time", parse_dates=True)[name]
    pd.testing.assert_series_equal(
        daily_equity({name: result})[name], equity, rtol=1e-9, atol=0, check_index_type=False, obj=advice
    )
    assert expected["trades"] > 500


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--reason"),
        (("--reason", "because", "--date", "2025-01-31"), "argue"),
        (("--reason", "the fee of the second tier was read one hour too early", "--date", "soon"), "--date"),
    ],
)
def test_there_is_no_rebuild_without_an_argument(words: tuple[str, ...], message: str) -> None:
    before = GOLDEN.read_bytes(), REASONS.read_bytes()
    done = subprocess.run(
        [sys.executable, GOLDEN.parent / "rebuild.py", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0 and message in done.stderr
    assert (GOLDEN.read_bytes(), REASONS.read_bytes()) == before
