"""Path-dependent oracles: the audit calls for the whole schedule, passes the honest and catches the others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from engine import Oracle, Panel, RunConfig, decisions_of
from engine.errors import OracleError
from engine.lookahead.audit import audit, check_causal
from helpers.audits import statuses
from helpers.panels import holed_panel
from helpers.paths import Ahead, ConstructsAhead, Remembering, ScoresAhead, Sticky, StickyScore, Unsaid
from research.oracles.blend import Blend
from research.oracles.momentum import Momentum
from research.oracles.wrappers import Cap, Liquid, Smooth

WEEKLY = RunConfig.from_dict({"execution": {"every_days": 3}})


@pytest.fixture(scope="module")
def panel() -> Panel:
    return holed_panel()


@pytest.mark.parametrize("config", [RunConfig(), WEEKLY], ids=["daily", "every third day"])
@pytest.mark.parametrize(
    "make",
    [Sticky, StickyScore, lambda: Cap(Sticky(), cap=0.3), lambda: Smooth(StickyScore(), days=3)],
    ids=["matrix", "score", "wrapped", "smoothed"],
)
def test_honest_ones_pass(panel: Panel, make: type[Oracle], config: RunConfig) -> None:
    result = audit(make, panel, decisions_of(panel, config), config)
    assert result.passed, result.message()
    assert result.strength == 1.0 or config is WEEKLY
    check_causal(make(), panel, decisions_of(panel, config))


@pytest.mark.parametrize("path", ["helpers.paths:Sticky", "helpers.paths:StickyScore"])
def test_a_process_of_its_own_calls_for_the_schedule(panel: Panel, path: str) -> None:
    decisions = decisions_of(panel, RunConfig())
    result = audit(path, panel, decisions, cuts=5)
    assert result.passed and statuses(result)["process"] == "pass", result.message()


@pytest.mark.parametrize(
    ("make", "failed"),
    [
        (Unsaid, "instant"),
        (Ahead, "cut"),
        (Remembering, "repeat"),
        (ConstructsAhead, "cut"),
        (ScoresAhead, "cut"),
        (lambda: Cap(Ahead(), cap=0.3), "cut"),
    ],
)
def test_others_are_caught(panel: Panel, make: type[Oracle], failed: str) -> None:
    result = audit(make, panel, decisions_of(panel, RunConfig()))
    assert statuses(result)[failed] == "fail", result.message()
    if make is Unsaid:
        assert "path_dependent = True" in result.message()
    if failed == "cut":
        with pytest.raises(OracleError, match="looks ahead"):
            check_causal(make(), panel)


def test_scores_are_computed_once_a_comparison_and_not_for_the_path(panel: Panel) -> None:
    """As many as of an oracle without a path, or nearly: not all decisions so far, each time."""
    decisions = decisions_of(panel, RunConfig())
    StickyScore.calls = 0
    audit(StickyScore, panel, decisions)
    count = len(decisions)
    assert 0 < StickyScore.calls < 10 * 60 + 12 * count < count**2 / 2 + 10 * 60 + 12 * count


def test_who_depends_on_the_path() -> None:
    assert Sticky().path_dependent and Blend([Momentum(), Smooth(Sticky())]).path_dependent
    assert not Momentum().path_dependent and not Blend([Momentum(), Liquid(Momentum())]).path_dependent


def test_one_instant_is_the_row_of_the_daily_matrix(panel: Panel) -> None:
    """Without a schedule the decisions are daily, from the panel's first instant at that hour."""
    decisions = decisions_of(panel, RunConfig())
    for oracle in (Sticky(), StickyScore(), Smooth(Sticky(), days=2)):
        matrix = oracle.weight_matrix(panel.point_in_time(), decisions)
        alone = [
            oracle.fetch_portfolio_weights(instant, np.array(panel.coins)[panel.tradable[row]], panel)
            for instant, row in zip(decisions, panel.rows(decisions), strict=True)
        ]
        pd.testing.assert_frame_equal(pd.DataFrame(alone, index=decisions), matrix, check_names=False)
        later = [oracle.weight_matrix(panel.point_in_time(), decisions[first:]) for first in range(len(decisions))]
        assert not all(rows.equals(matrix.loc[rows.index]) for rows in later)  # else the path decides nothing here
