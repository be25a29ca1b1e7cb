"""Funding rates of a panel from the values of the sources: their units by date, and the hours without a settlement.

The cache keeps what a source gave; what a value means is applied at each read, by source and hour, so that no cache
holds a unit of its own and none needs a migration. The rules, and why, are in docs/concepts/reading-data.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from engine.data.manifest import Manifest
from engine.data.merge import S3, UNKNOWN
from engine.data.schema import LAST_EIGHT_HOURLY, SETTLEMENT_HOURS, Floats, Integers, hour_number

#: Until this second (excluded) the archive's estimate is one of 8 hours.
ESTIMATES_HOURLY_FROM: Final = LAST_EIGHT_HOURLY * 3600 + 300
#: Rows at which the exchange settled no funding of any coin.
NO_SETTLEMENT: Final = tuple(
    hour_number(pd.Timestamp(text)) for text in ("2023-07-02T20Z", "2023-08-23T20Z", "2024-08-15T13Z")
)


def hourly_rates(values: Floats, hours: Integers, source: str) -> Floats:
    """What the rates of a source are for the hour that ends at each row.

    Parameters
    ----------
    values : ndarray, (R,)
        As the source gave them.
    hours : ndarray, (R,), int64
        Hour numbers of the rows.
    source : str
        A settled rate is paid once, in full, whatever hours it is of; the archive's estimate of 8 hours is an eighth
        an hour. In files that do not name their source, estimates are told by rows between the settlements.
    """
    early = hours <= LAST_EIGHT_HOURLY
    if source not in (S3, UNKNOWN) or not early.any():
        return values
    if source == UNKNOWN and np.isnan(values[early & (hours % SETTLEMENT_HOURS != 0)]).all():
        return values
    return np.where(early, values / SETTLEMENT_HOURS, values)


def hours_beyond(last: int) -> int:
    """How many rows behind `last` decide what the rates up to it are: those of its settlement."""
    return int(np.clip(LAST_EIGHT_HOURLY - last, 0, SETTLEMENT_HOURS - 1))


def complete(settled: Floats, estimates: Floats | None, first: int, coins: Sequence[str], manifest: Manifest) -> None:
    """Fill the gaps of settled rates, in place: with 0 where nothing was settled, else with the archive's estimates.

    Parameters
    ----------
    settled : ndarray, (T, N)
        Rates that were paid; NaN where no source has one.
    estimates : ndarray, (T, N), or None
        Estimates of the archive, in the unit of the hour. None is used at an hour for which the API was asked and had
        no row.
    first : int
        Hour number of the first row.
    coins : sequence of str, length N
        The columns.
    manifest : Manifest
        State of the cache: made-up data are left as they are, the hours asked, the spans of the coins.
    """
    if manifest.synthetic:
        return
    early = LAST_EIGHT_HOURLY + 1 - first
    if early > 0:
        known = ~np.isnan(settled[:early])
        soon = np.zeros_like(known)
        for ahead in range(1, SETTLEMENT_HOURS):
            soon[:-ahead] |= known[ahead:]
        settled[:early][soon & ~known] = 0.0
    for hour in NO_SETTLEMENT:
        if first <= hour < first + len(settled):
            row = settled[hour - first]
            row[np.isnan(row) & [_spans(manifest, name, hour) for name in coins]] = 0.0
    if estimates is None:
        return
    for column, name in enumerate(coins):
        for begin, end, _ in manifest.asked.get("funding", {}).get(name, ()):
            estimates[max(begin - first, 0) : max(end + 1 - first, 0), column] = np.nan
    np.copyto(settled, estimates, where=np.isnan(settled))


def _spans(manifest: Manifest, name: str, hour: int) -> bool:
    """Whether the rates of a coin begin before the hour and end after it."""
    record = manifest.coins.get(name)
    if record is None or record.first_funding is None or record.last_funding is None:
        return False
    return hour_number(record.first_funding) <= hour <= hour_number(record.last_funding)
