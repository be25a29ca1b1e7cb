"""A path-dependent candidate is run on the sealed days from the first decision of its run on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine import RunConfig, decisions_of, weight_matrix
from engine.data.holdout import Holdout
from engine.promotion.candidate import Candidate
from engine.promotion.holdout import Expected, open_holdout
from engine.simulation import metrics
from engine.simulation.backtest import backtest
from helpers.panels import holed_panel
from helpers.paths import Sticky


def test_the_sealed_days_begin_with_what_was_held(tmp_path: Path) -> None:
    panel, config = holed_panel(), RunConfig()
    decisions = decisions_of(panel, config)
    whole = weight_matrix(Sticky(), panel, decisions)
    firsts = [row for row in range(2, 9) if not weight_matrix(Sticky(), panel, decisions[row:]).equals(whole[row:])]
    start = decisions[firsts[0]]  # else nothing is held there that matters
    candidate = Candidate(
        "sticky", "helpers.paths:Sticky", {}, config, None, "", "", {"oracle": "x"}, tmp_path / "reports", None
    )
    bounds = dict.fromkeys(("sharpe", "total_return", "max_drawdown"), 0.0)
    expected = Expected({}, bounds, bounds, np.zeros(1))
    cache = tmp_path / "cache"
    cache.mkdir()
    holdout = Holdout(start, "2026-01-01T00:00:00+00:00", panel.synthetic)
    result = open_holdout(candidate, holdout, expected, lambda: panel, cache, holdout.when, panel.index[-1])
    held = backtest(panel, whole[whole.index >= start], config).daily_returns
    assert result["sealed"]["sharpe"] == pytest.approx(float(metrics.sharpe(held.to_numpy())))
    cut = backtest(panel, weight_matrix(Sticky(), panel, decisions[firsts[0] :]), config).daily_returns
    assert result["sealed"]["sharpe"] != pytest.approx(float(metrics.sharpe(cut.to_numpy())))
