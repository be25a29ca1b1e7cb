"""`hlbt oracle check` as a user meets it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from helpers.commands import Hlbt

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _on_the_sample(monkeypatch: pytest.MonkeyPatch, sample_cache: Path) -> None:
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))


MONTH = ("--set", "data.end=2024-02-01")


def test_the_command_passes_an_honest_oracle(hlbt: Hlbt) -> None:
    code, out, err = hlbt("oracle", "check", "research.oracles.momentum:Momentum", "--param", "n=3", *MONTH)
    assert code == 0, err
    assert "SYNTHETIC DATA" in out and "no look-ahead found" in out
    assert "A leak of one day would have been seen at 100% of 31 decisions." in " ".join(out.split())
    code, out, err = hlbt("oracle", "check", "research.oracles.carry:Carry", *MONTH, "--json", "--cuts", "5")
    assert code == 0, err
    answer = json.loads(out)
    assert 0.1 < answer["strength"] < 0.2  # 5 instants, and those of the perturbations
    assert answer["passed"] is True and answer["synthetic"] is True and answer["parameters"]["lookback_hours"] == 72
    assert {check["name"]: check["status"] for check in answer["checks"]} == dict.fromkeys(
        (
            "valid",
            "cut",
            "future",
            "last_row",
            "funding",
            "coins",
            "instant",
            "score",
            "repeat",
            "process",
            "published",
        ),
        "pass",
    )


LEAKY = """
import numpy as np, pandas as pd
from engine import Oracle
class Leaky(Oracle):
    def __init__(self, hours=1): self.hours = hours
    def weight_matrix(self, panel, decisions):
        rows = np.minimum(panel.rows(decisions) + self.hours, len(panel.index) - 1)
        mid = np.nan_to_num(panel.values("mid")[rows])
        return pd.DataFrame(mid / mid.sum(axis=1, keepdims=True), index=decisions, columns=list(panel.coins))
"""


def test_the_command_refuses_a_leak(hlbt: Hlbt, tmp_path: Path) -> None:
    (tmp_path / "leaky.py").write_text(LEAKY, encoding="utf-8")
    path = f"{tmp_path / 'leaky.py'}:Leaky"
    code, out, err = hlbt("oracle", "check", path, *MONTH)
    assert code == 1 and "fail" in out and "future" in out
    assert "\n" not in err.strip() and err.strip().startswith(
        "hlbt: Leaky fails the check 'the past alone gives the same weights'"
    )
    assert "the weight of" in err and "on the data up to" in err
    code, out, err = hlbt("oracle", "check", path, *MONTH, "--json")
    answer = json.loads(out)
    assert code == 1 and answer["passed"] is False
    moved = next(check for check in answer["checks"] if check["name"] == "cut")["difference"]
    assert moved["coin"] in err and not math.isclose(moved["weight"], moved["other"], rel_tol=1e-12)
    assert hlbt("oracle", "check", path, "--param", "hours=0", *MONTH)[0] == 0


def test_bad_input(hlbt: Hlbt) -> None:
    cases = {
        "does not name an oracle": ("momentum",),
        "Did you mean 'Momentum'": ("research.oracles.momentum:Momentun",),
        "has no parameter 'lookback'": ("research.oracles.momentum:Momentum", "--param", "lookback=3"),
        "is not k=v": ("research.oracles.momentum:Momentum", "--param", "lookback"),
        "at least one instant": ("research.oracles.momentum:Momentum", *MONTH, "--cuts", "0"),
        "give seconds above 0": ("research.oracles.momentum:Momentum", *MONTH, "--budget", "0"),
    }
    for message, words in cases.items():
        for command in ("check",):
            code, out, err = hlbt("oracle", command, *words)
            assert code == 1 and message in err and not out and "\n" not in err.strip(), (message, err)
