"""The verdict lets an edge pass and keeps noise out: a few fixed sweeps of what `make calibrate` measures at length."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.calibration import EDGES, NOISES, judged, made_panel
from helpers.effort import some

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("source", NOISES)
def test_noise_does_not_pass(source: str) -> None:
    for seed in range(some(1, 4)):
        for grid, said in judged(source, 180, seed).items():
            assert not said["passed"] and said["word"] != "fragile", (grid, seed, said)


def test_an_edge_passes_whatever_else_is_in_the_grid() -> None:
    """PBO is high where all sets are good, and low where bad ones are among them: neither decides."""
    for seed in range(some(2, 6)):
        both = judged("edge 5", 365, seed)
        assert [said["word"] for said in both.values()] == ["passed", "passed"], (seed, both)
        assert both["padded"]["pbo"] < both["homogeneous"]["pbo"] and both["homogeneous"]["pbo"] > 0.2


def test_a_longer_panel_begins_as_a_shorter_one() -> None:
    short, long = (made_panel(EDGES["edge 2"], days, 7).values("mid") for days in (40, 60))
    np.testing.assert_array_equal(long[: len(short)], short)
