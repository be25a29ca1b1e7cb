"""Cached rows and, after them, one row of what the exchange shows now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from engine.clock import hourly_index, show
from engine.data.sessions import in_session
from engine.errors import LiveError
from engine.panel import PRICES, Panel


def with_live_row(
    panel: Panel, instant: pd.Timestamp, row: Mapping[str, Mapping[str, float]], in_session_only: bool = False
) -> Panel:
    """`panel` up to `instant`, whose row holds current quotes; hours between that the cache lacks are NaN.

    Parameters
    ----------
    panel : Panel
        From the cache.
    instant : Timestamp
        The row to add; a panel that has it already is only cut off after it.
    row : mapping of field to mapping of coin to float
        Fields and coins that the panel lacks are left out. A coin without a ``mid`` is not tradable in the row.
    in_session_only : bool
        Nor is one whose exchange is closed.

    Raises
    ------
    LiveError
        When no coin of the panel has a ``mid``.
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
    if (opened := in_session(index[-added:], panel.table)) is not None:
        fields["in_session"][-added:] = opened
        tradable &= (opened > 0.0) | (not in_session_only)
    joined = np.vstack([panel.tradable, tradable])
    return replace(panel, index=index, fields=fields, tradable=joined, live_rows=panel.live_rows + added)
