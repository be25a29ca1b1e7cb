"""Code of a prompt or a notebook: its digest changes when what it does changes, and with nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from engine.oracles.fingerprint import loose_code
from research.oracles.momentum import Momentum

CELL = """
from functools import cached_property, partial
import math
import numpy as np
from engine import Oracle

TABLE = {"rows": [np.arange(5000.0), {3, 1, 2}], "name": ("a", 1.5, None)}
LOOP = [1]
LOOP.append(LOOP)

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
        inner = lambda x: MODEL(x) + OPEN.act(x) + len(TABLE) + len(LOOP)
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
    return loose_code(vars(prompt)["Mine"].__mro__)


CHANGES = [
    ("return x ** power", "return x ** power + 1"),
    ("power=2", "power=3"),
    ("np.arange(5000.0)", "np.where(np.arange(5000) == 2500, -1.0, np.arange(5000.0))"),  # its repr leaves that out
    ("{3, 1, 2}", "{3, 1, 4}"),
    ("1.5", "1.25"),
    ("LOOP = [1]", "LOOP = [2]"),
    ("return self.size * x + 1", "return self.size * x + 2"),
    ("scale = 3", "scale = 4"),
    ("Model(2)", "Model(5)"),
    ("lambda x: x + 1", "lambda x: x + 2"),
    ("power=0.5", "power=0.25"),
    ("return HALF(self.n)", "return HALF(self.n) + 1"),
    ("return 2 * self.n", "return 3 * self.n"),
    ("math.floor", "math.ceil"),
    ("n=3", "n=4"),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change[1])
def test_what_is_changed_shows(prompt: ModuleType, change: tuple[str, str]) -> None:
    before, after = change
    assert CELL.count(before) == 1
    first = digest(prompt, CELL)
    assert digest(prompt, CELL.replace(before, after)) != first
    assert digest(prompt, CELL) == first


def test_what_does_nothing_does_not_show(prompt: ModuleType) -> None:
    first = digest(prompt, CELL)
    assert first and digest(prompt, f"\n\n# moved down\nUNUSED = 1\n{CELL}") == first
    assert loose_code(Momentum.__mro__) == "", "it has files"
