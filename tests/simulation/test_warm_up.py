"""What is compiled ahead is what a run needs: the same signatures, so nothing is compiled twice."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from helpers.project import ROOT

JOB = """
import numpy as np
from engine import RunConfig, backtest, sweep
from engine.simulation import kernel
from engine.simulation.warm_up import KERNELS, warm_up
from helpers.panels import random_panel
from research.oracles.momentum import Momentum

def compiled():
    return {name: list(one.signatures) for name, one in vars(kernel).items() if hasattr(one, "signatures")}

for name in KERNELS:
    warm_up(name)
ahead = compiled()
panel, oracle = random_panel(1, 24 * 20, 5), Momentum(lookback_hours=24, n=1)
assert np.isnan(panel.frame("funding").to_numpy()).any()
backtest(panel, oracle.weight_matrix(panel, panel.index[95::24]), RunConfig())
sweep(panel, Momentum, {"lookback_hours": [24], "n": [1, 2]})
assert compiled() == ahead, {name: one for name, one in compiled().items() if one != ahead[name]}
assert all(len(ahead[name]) == 1 for name in ("simulate_nb", "batch_nb", "top_bottom_nb"))
"""


@pytest.mark.slow
def test_a_run_and_a_sweep_compile_nothing_more() -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run([sys.executable, "-c", JOB], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
