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


def trade_instant(now: pd.Timestamp, config: RunConfig) -> pd.Timestamp:
    """The instant that orders of `now` belong to: the next full hour, since a trade is just before its row.

    In the hour after a scheduled instant it is still that instant, so that a run that was late or killed continues
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


def next_run(now: pd.Timestamp, config: RunConfig) -> tuple[pd.Timestamp, pd.Timestamp]:
    """When ``--daily`` updates the data and when it sends orders, for the next scheduled instant.

    Raises
    ------
    LimitError
        When the schedule has no instant within two years.
    """
    execution = config.execution
    start = now.ceil(HOUR) - execution.delay_hours * HOUR
    hours = hourly_index(start, start + pd.Timedelta(days=2 * 366))
    decided = decision_instants(hours, execution.hour_utc, execution.every_days, execution.weekdays)
    for instant in decided + execution.delay_hours * HOUR:
        if instant - ORDER_LEAD > now:
            return instant - DATA_LEAD, instant - ORDER_LEAD
    raise LimitError("The schedule of this spec has no instant within two years.")
