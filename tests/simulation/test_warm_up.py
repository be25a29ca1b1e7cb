"""What is compiled ahead is what a run needs: the same signatures, so nothing is compiled twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.project import ROOT

JOB = """
import numpy as np
from engine import RunConfig, backtest, sweep
from engine.simulation import kernel
from engine.simulation.warm_up import KERNELS, warm_up
from engine.validation.null_books import renamed
from engine.weights import SparseWeights
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
books = SparseWeights.from_dense(np.array([[[0.5, 0.0, 0.0, -0.5, 0.0]]]))
null = renamed(books, np.array([[4, 3, 2, 1, 0]]), np.ones((1, 5), dtype=bool))
assert null.coins.tolist() == [1, 4] and null.weights.tolist() == [-0.5, 0.5]
assert compiled() == ahead, {name: one for name, one in compiled().items() if one != ahead[name]}
assert all(len(ahead[name]) == 1 for name in ("simulate_nb", "batch_nb", "top_bottom_nb", "rename_nb"))
"""

#: What numba loads before it compiles; the first is most of it.
KEPT = """
import sys
import numba
import numpy as np


class Unknown(str):
    def startswith(self, *_):
        return False


{before}
from engine.simulation import kernel
from engine.simulation.warm_up import KERNELS, warm_up

for name in KERNELS:
    warm_up(name)
used = [one for one in vars(kernel).values() if getattr(one, "signatures", ())]
assert all(one.stats.cache_hits and not one.stats.cache_misses for one in used) and len(used) >= 9, used
print("numba.np.arraymath" in sys.modules, "scipy.linalg" in sys.modules)


@numba.njit
def share(trades, funding):
    held, unrated = kernel.held_hours_nb(trades, funding, np.int64(0))
    return np.sort(np.array([held, unrated, 5.0]))


trades = np.zeros((1, kernel.TRADE_COLUMNS))
trades[0, kernel.UNITS] = 1.0
funding = np.array([[0.1], [np.nan], [0.1], [0.1]])
funding.flags.writeable = False
assert list(share(trades, funding)) == [1.0, 4.0, 5.0] and len(kernel.held_hours_nb.signatures) == 1
"""


#: A kernel is called, and the files of its code with an ending are cut to so many bytes.
CUT_OFF = """
import sys
from pathlib import Path
import numpy as np
from engine.simulation.kernel import known_prices_nb

ending, left, folder = sys.argv[1], int(sys.argv[2]), Path(known_prices_nb._cache.cache_path)
assert folder.parent == Path(sys.argv[3])
price, settles = np.empty((2, 1)), np.zeros((2, 1), np.bool_)
known_prices_nb(np.ones((2, 1)), 24, price, settles)
assert price.tolist() == [[1.0], [1.0]] and not settles.any()
print(sum(known_prices_nb.stats.cache_hits.values()))
for file in folder.glob(f"*known_prices_nb*{ending}"):
    file.write_bytes(file.read_bytes()[:left])
"""


def run(job: str, *arguments: str, **variables: str) -> str:
    environment = {**os.environ, **variables, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run(
        [sys.executable, "-c", job, *arguments], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_a_run_and_a_sweep_compile_nothing_more() -> None:
    run(JOB)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "loaded"),
    [("", "False False"), ("numba.__version__ = Unknown(numba.__version__)", "True True")],
    ids=["known", "unknown"],
)
def test_machine_code_that_is_kept_is_read_without_the_compiler(before: str, loaded: str) -> None:
    """Of a release of numba that nobody has seen it is read as numba does; what is compiled then is right in both."""
    run("from engine.simulation.warm_up import KERNELS, warm_up; [warm_up(name) for name in KERNELS]")
    assert run(KEPT.format(before=before)).strip() == loaded


def test_kept_code_that_is_cut_off_is_compiled_again(tmp_path: Path) -> None:
    """As after a loss of power: a command ended with "Aborted." and nothing else, each time."""
    cuts = (".nbc", "0"), (".nbc", "40"), (".nbi", "40"), ("none", "0"), ("none", "0")
    hits = [run(CUT_OFF, *cut, str(tmp_path), NUMBA_CACHE_DIR=str(tmp_path)) for cut in cuts]
    assert [int(of) for of in hits] == [0, 0, 0, 0, 1]
