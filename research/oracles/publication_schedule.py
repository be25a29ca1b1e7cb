"""Publication schedules: how many hours after its date a row became known, by weekday and from which date on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from engine.clock import UNIT, WEEKDAYS, parse_instant
from engine.errors import HlbtError, OracleError

_DAY = pd.Timedelta(days=1)
_FIRST = pd.Timestamp("1970-01-01T00:00Z")


@dataclass(frozen=True)
class Rule:
    """Hours from the date of a row to its publication, for rows dated `since` or later.

    Attributes
    ----------
    since : Timestamp
        First date of a row to which it applies, UTC.
    hours : tuple of float, length 7
        Hours from the row's date (its 00:00 UTC, where it is a bare date) to its publication, Monday to Sunday.
    """

    since: pd.Timestamp
    hours: tuple[float, ...]


#: Numerai Crypto. `date` is the day whose close was used, the round opens on the next, and the meta-model is out some
#: hours after it closes. Rows are dated Monday to Friday. Until April 2026 the round that opens on Saturday closed on
#: Monday 14:00; since 2026-04-06 it closes on Sunday 14:00. 18:00 UTC leaves hours of margin: the exact minute is not
#: documented, and one row was seen at 20:47 of the day after. Saturday and Sunday rows are not expected;
#: should there be any, none is known before the Friday row.
NUMERAI = (
    Rule(_FIRST, (42.0, 42.0, 42.0, 42.0, 90.0, 66.0, 42.0)),
    Rule(pd.Timestamp("2026-04-06T00:00Z"), (42.0, 42.0, 42.0, 42.0, 66.0, 42.0, 42.0)),
)
#: CrowdCent: complete around 18:00 UTC of the release date, every day of the week.
CROWDCENT = (Rule(_FIRST, (18.0,) * 7),)
NAMED = {"numerai": NUMERAI, "crowdcent": CROWDCENT}


def schedule_of(publication: Any) -> tuple[Rule, ...]:
    """Read a schedule from a parameter.

    Parameters
    ----------
    publication : str, float or sequence
        A name (``"numerai"``, ``"crowdcent"``); hours after the row's date for all rows (0 = known at the date itself,
        which for Numerai and CrowdCent is a look-ahead); or rules ``[[since, hours], ...]`` in ascending order, `since`
        a date and `hours` a number or seven of them, Monday to Sunday.

    Raises
    ------
    OracleError
        For anything else.
    """
    if isinstance(publication, str) and publication in NAMED:
        return NAMED[publication]
    if isinstance(publication, int | float) and not isinstance(publication, bool):
        return (Rule(_FIRST, (_hours(publication, publication),) * 7),)
    if isinstance(publication, str) or not isinstance(publication, Sequence) or not publication:
        raise _not_accepted(publication)
    rules = []
    for item in publication:
        if isinstance(item, str) or not isinstance(item, Sequence) or len(item) != 2:
            raise _not_accepted(publication)
        since, hours = item
        try:
            start = parse_instant(since, "publication", hourly=False)
        except HlbtError as error:
            raise OracleError(str(error)) from error
        each = [hours] * 7 if isinstance(hours, int | float) else hours
        if isinstance(each, str) or not isinstance(each, Sequence) or len(each) != len(WEEKDAYS):
            raise _not_accepted(publication)
        rules.append(Rule(start, tuple(_hours(value, publication) for value in each)))
    if any(after.since <= before.since for before, after in pairwise(rules)):
        raise _not_accepted(publication)
    # Rows before the first rule take as long as those of the first.
    return (Rule(_FIRST, rules[0].hours), *rules) if rules[0].since > _FIRST else tuple(rules)


def _hours(value: Any, publication: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise _not_accepted(publication)
    return float(value)


def _not_accepted(publication: Any) -> OracleError:
    return OracleError(
        f"publication = {publication!r} is not accepted: give a name ({', '.join(NAMED)}), hours after the row's date "
        "(not negative), or rules [[since, hours], ...] with ascending dates, hours being one number or seven, Monday "
        "to Sunday."
    )


def published_at(dates: pd.DatetimeIndex, schedule: Sequence[Rule]) -> pd.DatetimeIndex:
    """Instant at which each row became known; a decision sees the rows published strictly before it.

    Parameters
    ----------
    dates : DatetimeIndex, (M,)
        Dates of rows, UTC.
    schedule : sequence of Rule
        Ascending; of a date the last rule that begins at or before it holds.
    """
    starts = pd.DatetimeIndex([rule.since for rule in schedule]).as_unit(UNIT)
    rule = np.maximum(starts.searchsorted(dates.as_unit(UNIT), side="right") - 1, 0)
    hours = np.array([item.hours for item in schedule])[rule, dates.day_of_week]
    return dates.as_unit(UNIT) + pd.to_timedelta(np.round(hours * 3.6e6).astype(np.int64), unit="ms")


def newest_expected(until: pd.Timestamp, schedule: Sequence[Rule], weekdays: Sequence[int]) -> pd.Timestamp:
    """Date of the newest row published just before `until`, by the schedule, of rows on these weekdays (Monday 0)."""
    slowest = pd.Timedelta(hours=max(max(rule.hours) for rule in schedule)).ceil(_DAY)
    days = pd.date_range(until.normalize() - slowest - 7 * _DAY, until.normalize(), freq=_DAY, unit=UNIT)
    days = days[np.isin(days.day_of_week, weekdays)]
    return days[published_at(days, schedule) < until][-1]
