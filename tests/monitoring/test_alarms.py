"""Costs beyond the model demote a strategy: a paper account that pays more than its spec says, until it is noticed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from engine import PaperDEX
from engine.live.demotion import demotion_of, events_of
from engine.live.journal import Journal
from engine.live.risk_limits import Limits
from engine.live.session import Session
from engine.live.spec import read_spec
from engine.live.targets import Strategy, TargetProvider
from engine.monitoring.alarms import watch_of
from engine.oracles.fixed_weights import FixedWeights
from helpers.live_world import momentum_spec
from helpers.panels import random_panel

DAYS = 14


@pytest.mark.parametrize(("paid_bps", "demoted"), [(5.0, False), (60.0, True)])
def test_slippage_beyond_the_model_demotes(tmp_path: Path, paid_bps: float, demoted: bool) -> None:
    """Half a spread of 5 bps is expected: paid as such it is no alarm, with 55 bps more of each order it is."""
    panel = random_panel(6, 24 * (DAYS + 1), 4, quotes=False)
    spec = read_spec(momentum_spec(tmp_path, tmp_path / "none", costs={"half_spread_bps": 5.0}))
    account = replace(spec.config, costs=replace(spec.config.costs, half_spread_bps=paid_bps))
    dex, journal = PaperDEX(panel, account), Journal(tmp_path / "momentum-paper.jsonl")
    for day in range(DAYS):
        instant = panel.index[0].normalize() + pd.Timedelta(days=day, hours=23)
        dex.advance(instant)
        side = 0.4 if day % 2 else -0.4
        row = dict(zip(panel.coins, (side, -side, side, -side), strict=True))
        targets = TargetProvider(
            FixedWeights.of(row), replace(spec.config, account=replace(account.account, max_gross=2.0))
        )
        strategy = Strategy(spec.name, spec.digest, targets, Limits.none(), spec=spec)
        session = Session(strategy, dex, journal, panel)
        session.watch = watch_of(strategy)
        session.execute()
    found = demotion_of(tmp_path, spec.name)
    assert (found is not None) == demoted
    if found is not None:
        assert found.question == "costs" and "slippage_bps" in found.statistic
        assert found.value is not None and found.threshold is not None and found.value > found.threshold
        assert "the costs are crossed" in found.text and len(events_of(tmp_path, spec.name)) == 1
        assert all(abs(units) < 1e-9 for units in dex.account().units.values())  # every side was flipped: all is closed
