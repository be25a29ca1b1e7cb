"""HyperLiquid's base taker fee by date.

Source: the exchange's fee page and its announcements, as collected by third parties for the years before 2025.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

#: (in force from, taker fee in basis points), base tier, no staking or referral discount.
TAKER_BPS_SCHEDULE: tuple[tuple[pd.Timestamp, float], ...] = (
    (pd.Timestamp("2023-06-01T00:00Z"), 2.5),
    (pd.Timestamp("2024-03-11T00:00Z"), 3.5),
    (pd.Timestamp("2025-05-05T03:00Z"), 4.5),
)


def taker_rates(index: pd.DatetimeIndex, taker_bps: float | str) -> np.ndarray:
    """Taker fee of each row, as a fraction of the fill's notional.

    Parameters
    ----------
    index : DatetimeIndex, shape (T,)
        Hourly instants, UTC. Row ``t`` trades just before ``t``, so a rate in force from 03:00 first applies at 04:00.
    taker_bps : float or "schedule"
        A fixed rate, or the dated schedule, which is 0 before its first entry (the exchange's alpha charged none).

    Returns
    -------
    ndarray, shape (T,), float64
    """
    if taker_bps != "schedule":
        return np.full(len(index), float(taker_bps) / 1e4)
    bps = np.zeros(len(index))
    for start, value in TAKER_BPS_SCHEDULE:
        bps[np.asarray(index > start)] = value
    return bps / 1e4
