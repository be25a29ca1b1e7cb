"""The panel as it is now: the cache's rows and, on top, one row of what the exchange shows at this moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from engine.clock import HOUR, decision_instants, hourly_index, show
from engine.config import RunConfig
from engine.errors import LiveError
from engine.panel import PRICES, Panel


def trade_instant(now: pd.Timestamp, config: RunConfig) -> pd.Timestamp:
    """The row that orders of `now` belong to: the next full hour, as just before it.

    In the hour after a scheduled instant it is still that one, so that a run that was late, or killed, goes on with
    its own decision.
    """
    before = now.floor(HOUR)
    return before if now != before and scheduled(before, config) else now.ceil(HOUR)


def scheduled(instant: pd.Timestamp, config: RunConfig) -> bool:
    """Whether the config's schedule trades at `instant`."""
    execution = config.execution
    decided = instant - execution.delay_hours * HOUR
    day = hourly_index(decided, decided)
    return len(decision_instants(day, execution.hour_utc, execution.every_days, execution.weekdays)) == 1


def with_live_row(panel: Panel, instant: pd.Timestamp, row: Mapping[str, Mapping[str, float]]) -> Panel:
    """`panel` up to `instant`, whose row is what was observed now; hours in between that the cache lacks are NaN.

    Parameters
    ----------
    panel : Panel
        From the cache.
    instant : Timestamp
        Of the decision.
    row : mapping of field to mapping of coin to float
        Fields and coins that the panel lacks are left out; ``mid`` is what makes a coin tradable in the row. Where
        the cache has the row already, nothing is added.
    """
    last = panel.index[-1]
    if last >= instant:
        return panel.until(instant)
    index = hourly_index(panel.index[0], instant)
    added = len(index) - len(panel.index)
    fields = {}
    for name, values in panel.fields.items():
        cells = np.full((added, len(panel.coins)), np.nan)
        seen = row.get(name, {})
        cells[-1] = [seen.get(coin, np.nan) for coin in panel.coins]
        if name in PRICES:
            cells[-1][~(cells[-1] > 0.0)] = np.nan
        fields[name] = np.vstack([values, cells])
    if np.isnan(fields["mid"][-1]).all():
        raise LiveError(
            f"The exchange shows no price of any of the {len(panel.coins)} coins of the cache at {show(instant)}."
        )
    tradable = np.zeros((added, len(panel.coins)), dtype=np.bool_)
    tradable[-1] = ~np.isnan(fields["mid"][-1])
    return replace(panel, index=index, fields=fields, tradable=np.vstack([panel.tradable, tradable]))
