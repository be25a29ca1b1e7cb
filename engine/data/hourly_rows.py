"""Candles and funding rates of one coin, as other programs stamp them, as rows of the cache.

A candle covers the time from its opening to its opening plus its length. Candles that are shorter than an hour are put
together: the close is the last one, high and low are the extremes, the volume is the sum. An hour whose last candle is
not there has no row; one that lacks another candle has a close, and no high, low or volume.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from engine.clock import HOUR, candle_instant, funding_instant, show
from engine.data.asset_ctxs import STALE_SECONDS
from engine.data.price_checks import FUNDING_CAP, ImpossiblePrice, candle_faults
from engine.data.schema import HOUR_MS, LAST_EIGHT_HOURLY, Flags, Floats, Integers, instant_of
from engine.data.table_files import UnusableFile
from engine.panel import QUOTES

#: Funding of an hour without a premium: by this a rate in another unit is known.
BASELINE = 1.25e-5
_OTHER_UNITS = {8: "of 8 hours", 100: "in percent", 800: "in percent of 8 hours", 8760: "of a year", 10_000: "in bps"}
_MILLISECOND = 1_000_000
_MINUTE = 60_000_000_000
_UNITS = {"m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
#: Powers of ten of a stamp's units in a second, and their names.
_STAMPS = {1: "seconds", 10**3: "milliseconds", 10**6: "microseconds", 10**9: "nanoseconds"}
_FROM, _UNTIL = 1_577_836_800, 4_102_444_800  # 2020 and 2100, between which a number has one unit only
_ZONE = re.compile(r"\d(?:Z|[+-]\d\d:?\d\d)$", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class HourlyRows:
    """Rows of one coin.

    Attributes
    ----------
    hours : ndarray, shape (R,), int64
        Hour numbers, ascending.
    fields : mapping of str to ndarray, each (R,) float64
        NaN where not observed.
    incomplete, dropped : int
        Hours with a close only, since a candle is missing; hours without a row, since their last candle is.
    impossible : tuple of (int, str)
        Hour number of each candle that was left out since it cannot be, and what is wrong with it.
    """

    hours: Integers
    fields: Mapping[str, Floats]
    incomplete: int = 0
    dropped: int = 0
    impossible: tuple[tuple[int, str], ...] = ()

    def impossible_prices(self, coin: str) -> list[ImpossiblePrice]:
        """The candles that cannot be, as those of `coin`."""
        return [ImpossiblePrice(coin, instant_of(hour), reason) for hour, reason in self.impossible]


def length_of(timeframe: str) -> pd.Timedelta | None:
    """Length of a candle from a name such as ``5m``, ``1h`` or ``1d``; None when it is none."""
    match = re.fullmatch(r"(\d+)(m|min|h|d|w)", timeframe.strip().lower())
    return pd.Timedelta(seconds=int(match[1]) * _UNITS[match[2]]) if match else None


def read_stamps(values: pd.Series) -> tuple[pd.DatetimeIndex, str]:
    """Stamps of a column as instants in UTC, and what they were.

    Parameters
    ----------
    values : Series
        Numbers since 1970 in seconds, milliseconds, microseconds or nanoseconds, told apart by their size; timestamps;
        or ISO 8601 texts. Without a zone they are UTC.

    Raises
    ------
    UnusableFile
        For a missing or unreadable stamp, a number of no unit, or zones in a part of the rows only.
    """
    name = values.name
    if values.isna().any():
        raise UnusableFile(f"has {int(values.isna().sum())} rows without a {name}")
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        zone = getattr(values.dtype, "tz", None)
        index = pd.DatetimeIndex(values)
        index = index.tz_localize("UTC") if zone is None else index.tz_convert("UTC")
        return index.as_unit("ns"), "timestamps without a zone, taken as UTC" if zone is None else f"timestamps, {zone}"
    if pd.api.types.is_bool_dtype(values.dtype):
        raise UnusableFile(f"has the column {name} as {values.dtype}; stamps are needed")
    if not pd.api.types.is_numeric_dtype(values.dtype):
        numeric = pd.to_numeric(values, errors="coerce")
        if numeric.isna().any():
            return _texts(values)
        values = numeric
    return _counted(values)


def _counted(values: pd.Series) -> tuple[pd.DatetimeIndex, str]:
    numbers = values.to_numpy()
    for factor, unit in _STAMPS.items():
        if (numbers >= _FROM * factor).all() and (numbers < _UNTIL * factor).all():
            if numbers.dtype.kind == "f" and factor == 1:
                ns = np.rint(numbers * 1000).astype(np.int64) * 1_000_000
            else:
                ns = numbers.astype(np.int64) * (10**9 // factor)
            return pd.DatetimeIndex(ns.view("datetime64[ns]")).tz_localize("UTC"), f"{unit} since 1970"
    raise UnusableFile(
        f"has stamps in {values.name} from {numbers.min()} to {numbers.max()}: all must be seconds, milliseconds, "
        "microseconds or nanoseconds since 1970, of the years 2020 to 2099"
    )


def _texts(values: pd.Series) -> tuple[pd.DatetimeIndex, str]:
    texts = values.astype(str)
    try:
        index = pd.DatetimeIndex(pd.to_datetime(texts, utc=True, format="ISO8601"))
    except ValueError as error:
        strange = texts[pd.to_datetime(texts, utc=True, format="ISO8601", errors="coerce").isna()].iloc[0]
        raise UnusableFile(
            f"has {strange!r} in {values.name}; stamps are ISO 8601 (2024-10-01T22:00:00Z) or numbers since 1970"
        ) from error
    zoned = texts.str.contains(_ZONE).to_numpy()
    if zoned.any() and not zoned.all():
        raise UnusableFile(
            f"has stamps with a zone and without in {values.name}, the first without: {texts[~zoned].iloc[0]!r}; write "
            "the zone to all"
        )
    return index.as_unit("ns"), "ISO texts with a zone" if zoned.any() else "ISO texts without a zone, taken as UTC"


def candle_rows(dates: pd.DatetimeIndex, columns: Mapping[str, Floats], length: pd.Timedelta = HOUR) -> HourlyRows:
    """Rows of candles.

    Parameters
    ----------
    dates : DatetimeIndex
        When each candle opens, ascending.
    columns : mapping of str to ndarray
        ``close``, and of ``open``, ``high``, ``low``, ``volume`` (in the coin), ``volume_usd`` and other fields of a
        panel what there is; of others, the last value of the hour. A candle with an impossible value, or that
        contradicts itself, counts as one that is missing.
    length : Timedelta
        Length of a candle; an hour divided by a whole number.

    Raises
    ------
    UnusableFile
        For a candle that is not on the grid of its length, is there twice or out of order; where no candle can be.
    """
    grid = "hour" if length == HOUR else f"grid of {show_length(length)}"
    refuse(dates != dates.floor(length), dates, f"a candle off the {grid}")
    refuse(dates.duplicated(), dates, "two candles")
    refuse(backward(dates), dates, "a candle out of order")
    hours = candle_instant(dates.floor(HOUR)).as_unit("ms").asi8 // HOUR_MS
    reasons = _impossible(columns)
    impossible = tuple((int(hours[line]), reason) for line, reason in sorted(reasons.items()))
    if reasons:
        if len(reasons) == len(dates):
            raise UnusableFile(f"has no candle that can be; the first, at {show(dates[0])}: {reasons[0]}")
        kept = np.delete(np.arange(len(dates)), list(reasons))
        dates, hours = dates[kept], hours[kept]
        columns = {name: column[kept] for name, column in columns.items()}
    columns = {name: column for name, column in columns.items() if name != "open"}
    whole = int(HOUR // length)
    if whole == 1:
        return HourlyRows(hours, _fields(columns), impossible=impossible)
    starts = np.flatnonzero(np.diff(hours, prepend=hours[0] - 1))
    ends = np.append(starts[1:], len(hours)) - 1
    closed = dates[ends] + length == candle_instant(dates[ends].floor(HOUR))
    full = (ends - starts + 1)[closed] == whole
    put_together = {"high": np.fmax, "low": np.fmin, "volume": np.add, "volume_usd": np.add}
    values = {
        name: np.where(full, put_together[name].reduceat(column, starts)[closed], np.nan)
        if name in put_together
        else column[ends[closed]]
        for name, column in columns.items()
    }
    return HourlyRows(hours[ends[closed]], _fields(values), int((~full).sum()), int((~closed).sum()), impossible)


def _impossible(columns: Mapping[str, Floats]) -> dict[int, str]:
    """Candles that cannot be, by line, and why."""
    reasons: dict[int, str] = {}
    for name in ("close", "open", "high", "low", "volume", "volume_usd"):
        if name in columns:
            values, price = columns[name], not name.startswith("volume")
            bad = np.isinf(values) | ((values <= 0) if price else (values < 0)) | (np.isnan(values) & (name == "close"))
            wanted = "a positive price" if price else "zero or more"
            for line in np.flatnonzero(bad):
                reasons.setdefault(int(line), f"{name} {values[line]:g} is not {wanted}")
    for bad, describe in candle_faults(columns):
        for line in np.flatnonzero(bad):
            reasons.setdefault(int(line), describe(int(line)))
    return reasons


def running(opens: pd.DatetimeIndex, length: pd.Timedelta, path: Path, now: pd.Timestamp | None) -> Flags:
    """Candles that were not finished when their file was written, or that end after `now`."""
    ends, written = opens + length, pd.Timestamp(path.stat().st_mtime, unit="s", tz="UTC")
    late = (opens <= written) & (ends > written)
    return np.asarray(late if now is None else late | (ends > now), dtype=np.bool_)


def _fields(columns: Mapping[str, Floats]) -> dict[str, Floats]:
    """Columns of candles as fields of a panel."""
    fields = {name: values for name, values in columns.items() if name not in ("close", "volume")}
    if "volume" in columns and "volume_usd" not in columns:
        fields["volume_usd"] = columns["volume"] * columns["close"]
    return {"mid": columns["close"], **fields}


def funding_rows(dates: pd.DatetimeIndex, rate: Floats) -> HourlyRows:
    """Rows of funding rates by the exchange's stamps, ascending, some milliseconds to minutes after the hour.

    Raises
    ------
    UnusableFile
        For rates out of order, two for one hour, or one that is not finite.
    """
    refuse(backward(dates), dates, "a rate out of order")
    refuse(np.isinf(rate), dates, "a rate that is not finite", rate)
    # A rate stamped twice within the hour is kept once; two rates for one hour leave no way to tell which was paid.
    instants = funding_instant(dates)
    again = instants.duplicated()
    first = rate[instants.searchsorted(instants)]
    refuse(again & (rate != first) & ~(np.isnan(rate) & np.isnan(first)), dates, "two rates for one hour", rate)
    return HourlyRows(instants[~again].as_unit("ms").asi8 // HOUR_MS, {"funding": rate[~again]})


def checked_funding(rows: HourlyRows) -> HourlyRows:
    """Rates, refused where they cannot be hourly fractions."""
    rate, cure = rows.fields["funding"], "--scale funding=FACTOR makes them fractions an hour"
    recent = rows.hours > LAST_EIGHT_HOURLY
    size = np.abs(rate[recent])
    if (size > FUNDING_CAP).any():
        raise UnusableFile(
            f"has a funding rate of {size.max():g}, above the exchange's cap of {FUNDING_CAP:g} an hour: in percent, "
            f"or of more than an hour? {cure}"
        )
    paid, counts = np.unique(size[size > 0], return_counts=True)
    if counts.sum() >= 24 and counts.max() >= 0.1 * counts.sum():
        usual = paid[np.argmax(counts)]
        for factor, unit in _OTHER_UNITS.items():
            if np.isclose(usual, BASELINE * factor, rtol=1e-6):
                raise UnusableFile(
                    f"has {usual:g} as its most frequent funding rate, {factor:,} times the exchange's base rate of an "
                    f"hour: it is {unit}? --scale funding={1 / factor:g} makes it a fraction an hour"
                )
    steps = np.diff(rows.hours[recent])
    usual_step = int(np.bincount(steps).argmax()) if len(steps) >= 3 else 1
    if usual_step > 1:
        raise UnusableFile(
            f"has a funding rate every {usual_step} hours, and the exchange pays each hour; `hlbt data sync --source "
            "api` brings all of them"
        )
    return rows


def on_the_hour(dates: pd.DatetimeIndex) -> bool:
    """Whether all stamps are whole hours."""
    return bool((dates == dates.floor(HOUR)).all())


def snapped(dates: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Stamps, where all are within a second before a minute (22:59:59.999) moved to it: the last moment of a candle."""
    late = -dates.asi8 % _MINUTE
    if len(late) and ((late > 0) & (late <= 1_000 * _MILLISECOND)).all():
        return dates + pd.to_timedelta(late, unit="ns")
    return dates


def instant_rows(dates: pd.DatetimeIndex, values: Mapping[str, Floats], opens: bool | None) -> tuple[HourlyRows, int]:
    """The last record of each hour: of ``[t - 1 h, t)`` as in the archive, or ``(t - 1 h, t]`` by the user's word.

    One that is minutes older than its row gives its prices and no quotes, as in the archive; also how many did.
    """
    ns, hour = dates.asi8, HOUR_MS * _MILLISECOND
    hours = -(-ns // hour) if opens is False else ns // hour + 1
    last = np.append(np.flatnonzero(np.diff(hours)), len(hours) - 1)
    stale = hours[last] * hour - ns[last] > STALE_SECONDS * 1_000 * _MILLISECOND
    fields = {name: column[last] for name, column in values.items()}
    quotes = fields.keys() & {*(name for pair in QUOTES for name in pair), "depth_10bps_usd", "depth_50bps_usd"}
    for name in quotes:
        fields[name] = np.where(stale, np.nan, fields[name])
    return HourlyRows(hours[last], fields), int(stale.sum()) if quotes else 0


def backward(dates: pd.DatetimeIndex) -> Flags:
    """Rows before which the time goes back."""
    return np.r_[False, np.diff(dates.asi8) < 0]


def refuse(bad: Flags, dates: pd.DatetimeIndex, what: str, values: Floats | None = None) -> None:
    """Refuse rows of which any is bad, naming the first.

    Raises
    ------
    UnusableFile
        When one is.
    """
    rows = np.flatnonzero(bad)
    if len(rows):
        value = "" if values is None else f" ({values[rows[0]]})"
        raise UnusableFile(f"has {what}{value} at {show(dates[rows[0]])} ({len(rows)} such)")


def show_length(length: pd.Timedelta) -> str:
    """A length of time in words: ``5 minutes``, ``1 hour``."""
    seconds = int(length.total_seconds())
    for size, name in ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {name}" + ("s" if seconds > size else "")
    return str(length)


def short_notes(incomplete: int, dropped: int) -> list[str]:
    """What is said of hours that lack candles."""
    notes = []
    if incomplete:
        notes.append(
            f"{incomplete:,} hours lack some of their candles, so they have a close and no high, low or volume. An "
            "exchange leaves out candles without a trade; its candles of 1h are complete."
        )
    if dropped:
        notes.append(f"{dropped:,} hours have no row, since their last candle is not there.")
    return notes
