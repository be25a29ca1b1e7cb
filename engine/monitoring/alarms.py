"""Which alarm demotes a strategy: the edge that left its bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from engine.live.demotion import Demotion
from engine.live.spec import StrategySpec
from engine.live.targets import Watch
from engine.monitoring.edge import edge_state, live_daily_returns


def watch_of(spec: StrategySpec) -> Watch:
    """What a session asks before it plans: whether an alarm demotes the strategy now.

    Parameters
    ----------
    spec : StrategySpec
        Of the strategy that trades the account.

    Returns
    -------
    callable
        Takes the entries of the journal, the instant of the run and the account's equity in USD (None where it is not
        certain); returns the demotion, or None.
    """

    def watch(entries: Sequence[Mapping[str, Any]], instant: pd.Timestamp, equity_usd: float | None) -> Demotion | None:
        return edge_alarm(spec, entries, instant, equity_usd)

    return watch


def edge_alarm(
    spec: StrategySpec, entries: Sequence[Mapping[str, Any]], instant: pd.Timestamp, equity_usd: float | None
) -> Demotion | None:
    """The demotion of an edge that has left its bands; None while it has not."""
    state = edge_state(spec, live_daily_returns(entries, spec, instant, equity_usd))
    if state.crossed_by is None:
        return None
    value, threshold = state.figures[state.crossed_by], state.bands[state.crossed_by]
    return Demotion("edge", instant.isoformat(), state.crossed_by, value, threshold, state.text)
