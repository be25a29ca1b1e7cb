"""Walk-forward over the hour of decision, where the days of different sets overlap."""

from __future__ import annotations

import numpy as np

from engine import sweep
from engine.validation.evidence import ValidationInputs, walk_forwards
from helpers.studies import market
from research.oracles.momentum import Momentum


def test_a_walk_forward_over_hours_of_decision_holds_no_day_that_had_begun() -> None:
    """The day of 01:00 begins 22 hours before that of 23:00 is over, on which the choice rests."""
    panel = market(2, 120, 8, 0.0002, quotes=True)
    study = sweep(panel, Momentum, {"execution.hour_utc": [1, 23], "n": [1, 2]}, fixed={"lookback_hours": 48})
    found = walk_forwards(ValidationInputs(study, study.best(), panel, None))
    early = 0
    for kind in ("anchored", "rolling"):
        held, begin = -1, 0
        for fold in found[kind]["folds"]:
            place = fold["place"]
            span = slice(fold["test_start"], fold["test_end"])
            returns = study.daily_returns.iloc[:, place].loc[span].dropna().to_numpy().copy()
            if place != held:
                skipped = fold["parameters"]["execution.hour_utc"] == 1
                early += skipped
                cost = 2.0 * study["gross_mean"].iloc[place] * found["switch_rate_frac"]
                returns[0] = (1.0 + (0.0 if skipped else returns[0])) * (1.0 - cost) - 1.0
            ours = found[kind]["returns"][begin : begin + len(returns)]
            np.testing.assert_allclose(ours, returns, rtol=1e-12, atol=1e-15)
            held, begin = place, begin + len(returns)
    assert early > 0
