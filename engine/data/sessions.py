"""The hours in which a coin has an outside price: those of the exchange that it follows (``exchange_calendars``)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pandas as pd

from engine.coin import Coin
from engine.data.coin_names import select_coins
from engine.data.schema import Flags, Floats
from engine.errors import DataError, did_you_mean

#: Days around a range for which a calendar is made: calendars of a day without a session are refused.
_AROUND = pd.Timedelta(days=10)


def with_sessions(table: Sequence[Coin], sessions: Mapping[str, str]) -> tuple[Coin, ...]:
    """The coins with the calendars that the user names for them, by name or pattern; of several the last counts."""
    named = {coin: name for pattern, name in sessions.items() for coin in select_coins([pattern], _names(table))[0]}
    return tuple(replace(coin, sessions=named.get(coin.name, coin.sessions)) for coin in table)


def in_session(index: pd.DatetimeIndex, table: Sequence[Coin]) -> Floats | None:
    """Where each coin's exchange was open just before the instant.

    Parameters
    ----------
    index : DatetimeIndex, shape (T,)
        Hourly instants, UTC.
    table : sequence of Coin, length N
        Its `sessions` are read.

    Returns
    -------
    ndarray, shape (T, N), or None
        1 where it was open, and for a coin without hours; 0 where it was closed. None where no coin has hours.

    Raises
    ------
    DataError
        For a calendar that is not known, and without ``exchange_calendars``.
    """
    names = {coin.sessions for coin in table if coin.sessions}
    if not names or not len(index):
        return None
    opened = {name: _open_before(name, index[0], index[-1]) for name in names}
    columns = [opened[coin.sessions] if coin.sessions else np.ones(len(index), dtype=np.bool_) for coin in table]
    return np.array(columns, dtype=np.float64).T


@lru_cache(maxsize=32)
def _open_before(name: str, first: pd.Timestamp, last: pd.Timestamp) -> Flags:
    """Hours from `first` to `last` just before which an exchange was open, (T,)."""
    try:
        import exchange_calendars
    except ImportError as error:
        raise DataError(
            f"The hours of {name} need the library exchange_calendars: pip install 'hlbt[sessions]', or pip install "
            "exchange-calendars."
        ) from error
    known = exchange_calendars.get_calendar_names()
    if name not in known:
        raise DataError(
            f"data.sessions names {name!r}, which exchange_calendars does not have.{did_you_mean(name, known)} XNYS is "
            "the New York Stock Exchange."
        )
    start, end = (
        (instant + around).tz_localize(None).normalize() for instant, around in ((first, -_AROUND), (last, _AROUND))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library, about pandas
        schedule = exchange_calendars.get_calendar(name, start=start, end=end).schedule
    lines = ((row.open, row.break_start, row.break_end, row.close) for row in schedule.itertuples())
    spans = [
        span
        for begin, pause, resume, end in lines
        for span in ([(begin, end)] if pd.isna(pause) else [(begin, pause), (resume, end)])
    ]
    begins, ends = (pd.DatetimeIndex([span[side] for span in spans]).tz_convert("UTC") for side in (0, 1))
    index = pd.date_range(first, last, freq="h")
    before = begins.searchsorted(index, side="left") - 1
    inside: Flags = (before >= 0) & (index <= ends[np.maximum(before, 0)])
    inside.flags.writeable = False
    return inside


def _names(table: Sequence[Coin]) -> list[str]:
    return [coin.name for coin in table]
