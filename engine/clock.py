"""Instants: reading and printing them, bar labels, funding instants and decision instants.

A panel row is an instant on the hour. Row ``t`` holds the last observation strictly before ``t``, so a candle that
opens at 22:00 is row 23:00, and the rebalance "just before 23:00 UTC" reads row 23:00. Funding stamped a few
milliseconds after an hour belongs to that hour.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import numpy as np
import pandas as pd

from engine.errors import ConfigError

HOUR = pd.Timedelta(hours=1)
DECISION_HOUR_UTC = 23
DAYS_PER_YEAR = 365
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: Resolution of every instant in the project; an index of another unit is converted on entry.
UNIT: Final = "ms"
#: Error of this machine's clock, in seconds, from which the user is warned.
CLOCK_SECONDS: Final = 5.0
#: ISO 8601, basic or extended, for dates written in other ways are read differently in different countries.
INSTANT = re.compile(
    r"(\d{4}-\d{2}-\d{2}|\d{8})([T ]\d{2}(:?\d{2}(:?\d{2}(\.\d+)?)?)?([zZ]|[+-]\d{2}(:?\d{2})?)?)?", re.ASCII
)


def read_instant(text: str) -> pd.Timestamp | None:
    """Read an instant written as text: the one parser of config values, options and files.

    Parameters
    ----------
    text : str
        A date ``2024-10-01``, then perhaps ``T`` or a space and a time ``23:00[:00[.5]]``, then perhaps a zone: ``Z``,
        ``+00``, ``+0000`` or ``+00:00``. Dashes and colons may be left out; spaces around it do not count.

    Returns
    -------
    Timestamp or None
        UTC where the text has a zone, naive where it has none (a bare date is its midnight), None for other text.
        The caller decides what a naive time means.
    """
    text = text.strip()
    if not INSTANT.fullmatch(text):
        return None
    try:
        instant = pd.Timestamp(text).as_unit(UNIT)
    except ValueError:  # a 13th month
        return None
    return instant if instant.tzinfo is None else instant.tz_convert(UTC)


def parse_instant(value: str | date | datetime | pd.Timestamp, where: str, hourly: bool = True) -> pd.Timestamp:
    """Read an instant; a bare date is its 00:00 UTC, a time needs a zone.

    Parameters
    ----------
    value : str, date or timestamp
        For example ``"2024-10-01"`` or ``"2024-10-01T23:00Z"``.
    where : str
        Name of the key or argument, for the error.
    hourly : bool
        Refuse an instant off the hour, which no panel has.

    Raises
    ------
    ConfigError
        When the value is not a date, has a time of day without a zone, or is off the hour.
    """
    wanted = f"{where}: {value!r} is not a date. Write 2024-10-01 (its 00:00 UTC) or 2024-10-01T23:00Z."
    if isinstance(value, str):
        instant = read_instant(value)
    else:
        instant = pd.Timestamp(value).as_unit(UNIT) if isinstance(value, date) else None
    if instant is None or pd.isna(instant):
        raise ConfigError(wanted)
    if instant.tzinfo is None:
        if instant != instant.normalize():
            raise ConfigError(
                f"{where}: {value} has a time of day but no zone. Append Z for UTC: {instant:%Y-%m-%dT%H:%M}Z."
            )
        instant = instant.tz_localize(UTC)
    instant = instant.tz_convert(UTC)
    if hourly and instant != instant.floor(HOUR):
        raise ConfigError(f"{where}: {instant.isoformat()} is not on the hour; the panel has hourly instants only.")
    return instant


def candle_instant(open_time: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Row of a one-hour candle: the instant at which it closes (open time + 1 h)."""
    return open_time + HOUR


def funding_instant(stamp: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Row of a funding payment: its hour, because the exchange stamps it some milliseconds late."""
    return stamp.floor(HOUR)


def hourly_index(start: pd.Timestamp, end: pd.Timestamp) -> pd.DatetimeIndex:
    """Every hourly instant from `start` to `end`, both inclusive, UTC."""
    return pd.date_range(start=start, end=end, freq=HOUR, unit=UNIT, name="time")


def is_hourly_index(index: pd.Index) -> bool:
    """Whether `index` is timezone-aware, on the hour, ascending and without gaps."""
    if not isinstance(index, pd.DatetimeIndex) or index.tz is None or len(index) == 0:
        return False
    nanoseconds = index.as_unit("ns").asi8
    step = HOUR.value
    return bool(nanoseconds[0] % step == 0 and (np.diff(nanoseconds) == step).all())


def decision_instants(
    index: pd.DatetimeIndex,
    hour_utc: int = DECISION_HOUR_UTC,
    every_days: int = 1,
    weekdays: tuple[str, ...] = WEEKDAYS,
) -> pd.DatetimeIndex:
    """Instants of `index` at which the portfolio is decided.

    Parameters
    ----------
    index : DatetimeIndex, shape (T,)
        Hourly instants, UTC.
    hour_utc : int
        Hour of the day, 0 to 23.
    every_days : int
        1 decides daily, 7 weekly. Days are counted from 1970-01-01, a Thursday, so a decision day does not depend on
        where `index` starts, and 7 decides on Thursdays; for another day leave it at 1 and name the day in `weekdays`.
    weekdays : tuple of str
        Days of the week, ``"mon"`` to ``"sun"``, on which decisions are made.
    """
    hours = index.hour == hour_utc
    days = (index.as_unit("ns").asi8 // pd.Timedelta(days=1).value) % every_days == 0
    named = np.isin(index.day_of_week, [WEEKDAYS.index(day) for day in weekdays])
    return index[hours & days & named]


def every_days_in_words(every_days: int) -> str:
    """``daily``, ``every 2 days``, or with the weekday on which whole weeks decide: days count from a Thursday."""
    if every_days == 1:
        return "daily"
    return f"every {every_days} days" + (", on Thursdays" if every_days % 7 == 0 else "")


def utc_days(index: pd.DatetimeIndex) -> np.ndarray:
    """UTC day of a trade at each row, days since 1970, (T,) int64: the day of the moment before the row."""
    days: np.ndarray = (index.as_unit("ns").asi8 - 1) // pd.Timedelta(days=1).value
    return days


def show(instant: pd.Timestamp) -> str:
    """Print an instant for messages and pages: ``2025-03-04 23:00 UTC``."""
    return f"{instant:%Y-%m-%d %H:%M} UTC"


def iso_minute(instant: pd.Timestamp) -> str:
    """Print a UTC instant for files: ``2025-03-04T23:00Z``."""
    return f"{instant:%Y-%m-%dT%H:%MZ}"


def clock_error_bounds(header: str, before: float, after: float) -> tuple[float, float]:
    """Bounds of this machine's clock error, from the ``Date`` header of a response.

    Parameters
    ----------
    header : str
        The server's time as HTTP writes it, rounded down to whole seconds: it was up to a second later.
    before, after : float
        This machine's time, Unix seconds, when the request was sent and when the response arrived.

    Returns
    -------
    tuple of float
        Seconds; positive: this machine is ahead.

    Raises
    ------
    ValueError
        When the header is not a date.
    """
    server = parse_http_date(header).timestamp()
    return before - server - 1.0, after - server


def parse_http_date(header: str) -> pd.Timestamp:
    """The instant of the ``Date`` header of a response; without a zone it is UTC (RFC 9110, 5.6.7).

    Raises
    ------
    ValueError
        When the header is not a date.
    """
    sent = parsedate_to_datetime(header)
    return pd.Timestamp(sent if sent.tzinfo else sent.replace(tzinfo=UTC)).tz_convert("UTC")


def least_error(low: float, high: float) -> float:
    """The error nearest to 0 within its bounds."""
    return min(max(0.0, low), high)
