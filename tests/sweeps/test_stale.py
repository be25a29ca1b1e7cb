"""Results are kept under the code that computed them: wherever that code lies, and whenever it is edited."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from engine import Oracle, Panel, sweep
from engine.errors import OracleError
from engine.reporting.sweep_page import write_sweep_page
from engine.sweeps.trials import count_trials
from engine.validation.validate import validate
from helpers.panels import random_panel

ORACLE = """
import pandas as pd
from engine import Oracle
{above}

class A(Oracle):
    def __init__(self, x=1):
        self.x = x

    def weight_matrix(self, panel, decisions):
        {inside}
        return pd.DataFrame({weight} * self.x, index=decisions, columns=list(panel.coins)[:1])
"""
NAMES = ("stale_mine", "stale_helper", "stale_cell")


@pytest.fixture(scope="module")
def panel() -> Panel:
    return random_panel(3, 24 * 20, 4)


@pytest.fixture(autouse=True)
def forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.invalidate_caches()
    yield
    _new_process()


def _new_process() -> None:
    for name in NAMES:
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def code(above: str = "", inside: str = "pass", weight: str = "0.1") -> str:
    return ORACLE.format(above=above, inside=inside, weight=weight)


def reused(panel: Panel, oracle: str | type[Oracle], name: str) -> int:
    return int(sweep(panel, oracle, {"x": [1, 2]}, name=name, reports="reports").record["sets"]["reused"])


def test_a_module_that_only_a_function_imports_counts(panel: Panel) -> None:
    Path("stale_mine.py").write_text(code(inside="from stale_helper import K", weight="K"))
    Path("stale_helper.py").write_text("K = 0.1\n")
    assert reused(panel, "stale_mine:A", "a") == 0
    _new_process()
    assert reused(panel, "stale_mine:A", "b") == 2  # whether it was imported by now does not count
    Path("stale_helper.py").write_text("K = -0.1\n")
    _new_process()
    assert reused(panel, "stale_mine:A", "c") == 0


def test_files_of_one_name_in_two_folders_are_two_oracles(panel: Panel) -> None:
    for folder, weight in (("p", "0.1"), ("q", "-0.1")):
        Path(folder).mkdir()
        Path(folder, "mine.py").write_text(code(weight=weight))
    study = sweep(panel, ["p/mine.py:A", "q/mine.py:A"], {"x": [1]}, name="a", reports="reports")
    assert study.record["oracles"][0]["digest"] != study.record["oracles"][1]["digest"]
    Path("p/mine.py").write_text(code(weight="0.2"))
    again = sweep(panel, ["p/mine.py:A", "q/mine.py:A"], {"x": [1]}, name="b", reports="reports")
    assert again.record["sets"]["reused"] == 1


def test_what_was_edited_after_its_import_is_refused_until_it_is_imported_again(panel: Panel) -> None:
    Path("stale_mine.py").write_text(code())
    sys.path.insert(0, str(Path.cwd()))
    module = importlib.import_module("stale_mine")
    assert reused(panel, module.A, "a") == 0
    Path("stale_mine.py").write_text(code(weight="-0.1"))
    with pytest.raises(OracleError, match=r"stale_mine\.py was changed after stale_mine was imported"):
        reused(panel, module.A, "b")
    assert reused(panel, importlib.reload(module).A, "b") == 0
    Path("stale_mine.py").write_text(code())
    assert reused(panel, importlib.reload(module).A, "c") == 2


def cell(text: str) -> type[Oracle]:
    """The class A of a module that no file holds, as a notebook's."""
    module = sys.modules.get("stale_cell") or ModuleType("stale_cell")
    sys.modules["stale_cell"] = module
    exec(compile(text, "<cell>", "exec"), vars(module))
    kind: type[Oracle] = module.A
    return kind


def test_code_without_a_file_counts(panel: Panel) -> None:
    given = {"above": "K = 0.1\nS = pd.Series([1.0])\ndef twice(x): return 2 * x", "weight": "twice(K) * S.iloc[0]"}
    assert reused(panel, cell(code(**given)), "a") == 0
    assert reused(panel, cell("# further down\n\n" + code(**given)), "b") == 2
    for number, (old, new) in enumerate(
        [("K = 0.1", "K = 0.2"), ("[1.0]", "[1.5]"), ("return 2", "return 3"), ("* S.iloc[0]", "* -S.iloc[0]")]
    ):
        changed = {name: text.replace(old, new) for name, text in given.items()}
        assert changed != given
        assert reused(panel, cell(code(**changed)), f"c{number}") == 0, new
    assert reused(panel, cell(code(**given)), "d") == 2


def test_one_file_is_one_family_of_trials_however_it_is_written(panel: Panel, tmp_path: Path) -> None:
    Path("mine.py").write_text(code())
    for number, path in enumerate(("mine.py:A", "./mine.py:A", f"{tmp_path}/mine.py:A")):
        sweep(panel, path, {"x": [number, 5]}, name=f"s{number}", reports="reports")
        assert count_trials(Path("reports"), [path]).total == number + 2
        assert count_trials(Path("reports"), ["mine.py:A", path]).total == number + 2


def test_what_the_oracle_says_of_its_data_stands_beside_the_verdict(panel: Panel) -> None:
    Path("mine.py").write_text(
        code()
        + '\n    def notes(self, panel, decisions):\n        return (f"LOOK-AHEAD at {len(decisions)} <decisions>.",)\n'
    )
    study = sweep(panel, "mine.py:A", {"x": [1, 2]}, name="a", reports="reports")
    verdict = validate(study, panel)
    assert "LOOK-AHEAD at 20 <decisions>." in verdict.details["notes"]
    page = write_sweep_page(study, verdict.to_dict()).read_text()
    assert "LOOK-AHEAD at 20 &lt;decisions&gt;." in page and "<decisions>" not in page
