"""Fingerprints: of code in a notebook or REPL, and which files count as installed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from engine.oracles.fingerprint import code_files, installed_paths, interactive_code_digest
from engine.oracles.loading import origin_of
from research.oracles.momentum import Momentum

CELL = """
from functools import cached_property, partial
import math
import numpy as np
from engine import Oracle

TABLE = {"rows": [np.arange(5000.0), {3, 1, 2}], "name": ("a", 1.5, None)}

def helper(x, power=2):
    '''Squares.'''
    return x ** power

class Model:
    scale = 3
    def __init__(self, size):
        self.size = size
    def __call__(self, x):
        return self.size * x + 1

class Open:
    def __init__(self):
        self.act = lambda x: x + 1

MODEL, OPEN, HALF = Model(2), Open(), partial(helper, power=0.5)

class Mine(Oracle):
    def __init__(self, n=3):
        self.n = n
    @cached_property
    def kept(self):
        return HALF(self.n)
    @property
    def double(self):
        return 2 * self.n
    @staticmethod
    def still(x):
        return math.floor(x)
    def weight_matrix(self, panel, decisions):
        inner = lambda x: MODEL(x) + OPEN.act(x) + len(TABLE)
        return helper(inner(self.kept))
"""


@pytest.fixture
def prompt() -> Iterator[ModuleType]:
    """A module without a file."""
    module = ModuleType("hlbt_test_prompt")
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def digest(prompt: ModuleType, cell: str) -> str:
    names = {"__name__": prompt.__name__}
    vars(prompt).update(names)
    exec(cell, vars(prompt))
    return interactive_code_digest(vars(prompt)["Mine"].__mro__)


def test_a_class_of_a_notebook_shows_in_the_first_figures_of_its_digest(prompt: ModuleType) -> None:
    """Pages and messages show twelve of them; the digest of no file at all is the same for every class."""
    cell = "from engine import Oracle\nclass Mine(Oracle):\n    weight_matrix = lambda *_: VALUE"
    shown = set()
    for value in (0, 1):
        exec(cell.replace("VALUE", str(value)), vars(prompt))
        origin, notes = origin_of(vars(prompt)["Mine"]())
        assert not notes and len(origin.digest) == len(origin.code) == 64
        shown |= {origin.digest[:12], origin.code[:12]}
    assert len(shown) == 2


CHANGES = [
    ("return x ** power", "return x ** power + 1"),
    ("power=2", "power=3"),
    ("np.arange(5000.0)", "np.where(np.arange(5000) == 2500, -1.0, np.arange(5000.0))"),  # its repr leaves that out
    ("{3, 1, 2}", "{3, 1, 4}"),
    ("1.5", "1.25"),
    ("return self.size * x + 1", "return self.size * x + 2"),
    ("scale = 3", "scale = 4"),
    ("Model(2)", "Model(5)"),
    ("lambda x: x + 1", "lambda x: x + 2"),
    ("power=0.5", "power=0.25"),
    ("return HALF(self.n)", "return HALF(self.n) + 1"),
    ("return 2 * self.n", "return 3 * self.n"),
    ("math.floor", "math.ceil"),
    ("n=3", "n=4"),
    ("def helper(x, power=2)", "def helper(x, /, power=2)"),  # the same bytecode, called in another way
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change[1])
def test_what_is_changed_shows(prompt: ModuleType, change: tuple[str, str]) -> None:
    before, after = change
    assert CELL.count(before) == 1
    first = digest(prompt, CELL)
    assert digest(prompt, CELL.replace(before, after)) != first
    assert digest(prompt, CELL) == first


def test_a_helper_that_is_defined_again_alone_changes_the_digest(prompt: ModuleType) -> None:
    first, kind = digest(prompt, CELL), vars(prompt)["Mine"]
    exec("def helper(x, power=2):\n    return x + power\n", vars(prompt))
    assert interactive_code_digest(kind.__mro__) != first


def test_an_edited_module_changes_the_digest(
    prompt: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    helper = tmp_path / "hlbt_test_helper.py"
    helper.write_text("def act(x):\n    return x\n")
    cell = "import hlbt_test_helper\nclass Mine:\n    def act(self, x):\n        return hlbt_test_helper.act(x)\n"
    first = digest(prompt, cell)
    helper.write_text("def act(x):\n    return -x * 2\n")
    importlib.reload(sys.modules["hlbt_test_helper"])
    assert digest(prompt, cell) not in ("", first)


@pytest.mark.parametrize("value", ["(item for item in [])", "(lambda loop: loop.append(loop) or loop)([])"])
def test_what_cannot_be_pickled_shares_no_digest(prompt: ModuleType, value: str) -> None:
    cell = f"VALUE = {value}\nclass Mine:\n    def act(self):\n        return VALUE\n"
    assert digest(prompt, cell) != digest(prompt, cell)


def test_packages_are_installed_wherever_they_lie_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ``pip install --target``, or another environment's site-packages; what lies beside them is not."""
    target, other = tmp_path / "target", tmp_path / "lib" / "python3" / "site-packages"
    for folder in (target, other):
        (folder / "packed").mkdir(parents=True)
        (folder / "packed" / "__init__.py").write_text("")
        monkeypatch.syspath_prepend(str(folder))
    (target / "packed-1.0.dist-info").mkdir()
    (target / "packed-1.0.dist-info" / "RECORD").write_text("packed/__init__.py,,0\npacked-1.0.dist-info/RECORD,,\n")
    (target / "mine.py").write_text("import packed\n")
    installed = installed_paths()
    assert str(other / "data.csv").startswith(installed)
    assert str(target / "packed" / "data.csv").startswith(installed)
    assert not str(target / "data.csv").startswith(installed)
    assert code_files(["mine"]) == [target / "mine.py"]


def test_what_does_nothing_does_not_show(prompt: ModuleType) -> None:
    first = digest(prompt, CELL)
    assert first and digest(prompt, f"\n\n# moved down\nUNUSED = 1\n{CELL}") == first
    assert interactive_code_digest(Momentum.__mro__) == "", "it has files"
