"""When a live run trades: the instant of an order, and the next one of a schedule."""

from __future__ import annotations

from typing import Final

import pandas as pd

from engine.clock import HOUR, decision_instants, hourly_index
from engine.config import RunConfig
from engine.errors import LimitError

#: How long before the instant ``--daily`` sends orders, and how long before it updates the data.
ORDER_LEAD: Final = pd.Timedelta(seconds=60)
DATA_LEAD: Final = pd.Timedelta(minutes=20)
#: How far an instant of a schedule is looked for.
SEARCHED: Final = pd.Timedelta(days=2 * 366)


def trade_instant(now: pd.Timestamp, config: RunConfig) -> pd.Timestamp:
    """The instant that orders of `now` belong to: the next full hour, since a trade is just before its row.

    In the hour after a scheduled instant it is still that instant, so that a run that was late or killed continues
    its own decision.
    """
    before = now.floor(HOUR)
    return before if now != before and scheduled(before, config) else now.ceil(HOUR)


def scheduled(instant: pd.Timestamp, config: RunConfig) -> bool:
    """Whether the config's schedule trades at `instant`."""
    return len(scheduled_instants(instant, instant, config)) == 1


def scheduled_instants(first: pd.Timestamp, last: pd.Timestamp, config: RunConfig) -> pd.DatetimeIndex:
    """The instants from `first` to `last`, both full hours and inclusive, at which the config's schedule trades."""
    execution = config.execution
    delay = execution.delay_hours * HOUR
    hours = hourly_index(first - delay, last - delay)
    return decision_instants(hours, execution.hour_utc, execution.every_days, execution.weekdays) + delay


def next_run(now: pd.Timestamp, config: RunConfig) -> tuple[pd.Timestamp, pd.Timestamp]:
    """When ``--daily`` updates the data and when it sends orders, for the next scheduled instant.

    Raises
    ------
    LimitError
        When the schedule has no instant within two years.
    """
    start = now.ceil(HOUR)
    for instant in scheduled_instants(start, start + SEARCHED, config):
        if instant - ORDER_LEAD > now:
            return instant - DATA_LEAD, instant - ORDER_LEAD
    raise LimitError("The schedule of this spec has no instant within two years.")
