"""Oracles by their dotted path."""

from __future__ import annotations

import importlib

import pytest

from engine.oracles.fingerprint import RENAMED_MODULES
from engine.oracles.loading import load_oracle, oracle_class

MOMENTUM = "research.oracles.momentum:Momentum"


@pytest.mark.parametrize("old", RENAMED_MODULES)
def test_an_old_path_of_a_bundled_module_is_that_of_the_renamed_one(old: str) -> None:
    """Specs, runs and study files of before the renaming name their oracles so."""
    module = importlib.import_module(RENAMED_MODULES[old])
    former = importlib.import_module(old)
    for name, value in vars(module).items():
        if isinstance(value, type) and value.__module__ == module.__name__ and not name.startswith("_"):
            assert getattr(former, name) is value
            if hasattr(value, "weight_matrix") and not getattr(value, "__abstractmethods__", None):
                assert oracle_class(f"{old}:{name}") is value


def test_an_old_path_inside_an_oracle() -> None:
    old = load_oracle("research.oracles.OLD:Cap".replace("OLD", "compose"), {"inner": MOMENTUM, "cap": 0.4})
    assert old == load_oracle("research.oracles.wrappers:Cap", {"inner": MOMENTUM, "cap": 0.4})
