"""Read a CSV or parquet file of scores of coins, with the instant from which each was known."""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from engine.clock import UNIT, read_instant, show
from engine.errors import OracleError, did_you_mean, join_first
from research.oracles.publication_schedule import Rule, published_at

_LISTED = 10


@dataclass(frozen=True)
class Layout:
    """How to read a file of scores.

    Attributes
    ----------
    date, coin, score : str
        Names of its columns: the row's date, the symbol, the number.
    available_at : str
        Column with the instant from which the row was known; empty = by `schedule`.
    schedule : tuple of Rule
        Hours from the date to the publication.
    timezone : str
        IANA name of the zone of naive times; empty = naive times of day are refused, bare dates are 00:00 UTC.
    low, high : float
        Range of scores that is accepted.
    """

    date: str
    coin: str
    score: str
    available_at: str = ""
    schedule: tuple[Rule, ...] = ()
    timezone: str = ""
    low: float = -np.inf
    high: float = np.inf


@dataclass(frozen=True, eq=False)
class Published:
    """Scores by date of publication.

    Attributes
    ----------
    where : Path
        The file.
    dates, available : DatetimeIndex, (M,)
        Date of a row of `values` and the instant from which it was known; ascending by date, then by that instant.
    symbols : tuple of str, length K
        Names as in the file, sorted.
    values : ndarray, (M, K)
        NaN = no score.
    notes : tuple of str
        Remarks on irregularities of the file, a sentence each.
    """

    where: Path
    dates: pd.DatetimeIndex
    available: pd.DatetimeIndex
    symbols: tuple[str, ...]
    values: np.ndarray
    notes: tuple[str, ...]

    def as_of(self, instant: pd.Timestamp, schedule: tuple[Rule, ...] = ()) -> Published:
        """The contents of the file as if written at `instant`, of a service that publishes by `schedule`."""
        rows = self.available <= instant
        if schedule:
            rows &= published_at(self.dates, schedule) <= instant
        values = self.values[rows]
        scored = ~np.isnan(values).all(axis=0)
        symbols = tuple(symbol for symbol, kept in zip(self.symbols, scored, strict=True) if kept)
        return replace(
            self, dates=self.dates[rows], available=self.available[rows], symbols=symbols, values=values[:, scored]
        )

    def window(self, instant: pd.Timestamp, rows: int) -> tuple[pd.DatetimeIndex, np.ndarray]:
        """The last `rows` dates of which anything was known strictly before `instant`, (L,), and their values (L, K).

        Where a date was published in pieces or again, each symbol has the newest of its values known then.
        """
        seen = np.flatnonzero(self.available < instant)
        dates = self.dates[seen].unique()[-rows:]
        kept = seen[self.dates[seen].isin(dates)]
        if len(kept) == len(dates):
            return dates, self.values[kept]
        values = np.full((len(dates), len(self.symbols)), np.nan)
        for row, date in zip(kept, dates.get_indexer(self.dates[kept]), strict=True):
            values[date] = np.where(np.isnan(self.values[row]), values[date], self.values[row])
        return dates, values


def read_published(file: Path, layout: Layout) -> Published:
    """Read a file of scores; one that has not changed since is not read again.

    Parameters
    ----------
    file : Path
        ``.csv`` or ``.parquet``, a row a date and coin. Repeated rows of a date and coin count once when they agree;
        when they do not, none of them counts. The notes mention both.
    layout : Layout
        Names of its columns, their zone, the range of scores.

    Raises
    ------
    OracleError
        For a file that cannot be read, a column it lacks (naming those it has), a time without a zone, a score that is
        no number or outside its range (naming the row).
    """
    try:
        state = file.stat()
    except OSError as error:
        raise OracleError(f"Scores {file} cannot be read: {error.strerror or error}. Name another file.") from error
    return _read(file.resolve(), (state.st_size, state.st_mtime_ns, state.st_ino), layout)


@lru_cache(maxsize=8)
def _read(file: Path, _state: tuple[int, int, int], layout: Layout) -> Published:
    frame = _frame(file, layout)
    dates = instants(frame[layout.date], layout.date, file, layout.timezone)
    if layout.available_at:
        available = instants(frame[layout.available_at], layout.available_at, file, layout.timezone, dates_too=False)
    else:
        available = published_at(dates, layout.schedule)
    coins = frame[layout.coin].astype("str").str.strip()
    nameless = np.flatnonzero(frame[layout.coin].isna() | (coins == ""))
    if len(nameless):
        raise OracleError(f"Scores {file}: data row {nameless[0] + 1} has no name in the column {layout.coin!r}.")
    scores = _scores(frame[layout.score], file, layout, dates, coins)
    table = pd.DataFrame({"date": dates, "available": available, "coin": coins.to_numpy(), "score": scores})
    table = table[table["score"].notna()]
    if table.empty:
        raise OracleError(f"Scores {file} has no score in its {len(frame)} rows (column {layout.score!r}).")
    table, notes = _without_duplicates(table, file)
    wide = table.set_index(["date", "available", "coin"])["score"].unstack("coin").sort_index()  # noqa: PD010  # no sums
    values = wide.to_numpy(dtype=np.float64)
    values.flags.writeable = False
    return Published(
        file,
        pd.DatetimeIndex(wide.index.get_level_values("date")),
        pd.DatetimeIndex(wide.index.get_level_values("available")),
        tuple(str(coin) for coin in wide.columns),
        values,
        notes,
    )


def _frame(file: Path, layout: Layout) -> pd.DataFrame:
    texts = [layout.date, layout.coin, *([layout.available_at] if layout.available_at else [])]
    try:
        if file.suffix.lower() in (".parquet", ".pq"):
            frame = pd.read_parquet(file)
            frame = frame.reset_index() if any(frame.index.names) else frame
        elif file.suffix.lower() == ".csv":
            # A coin may be called NA or NULL: only an empty cell of the score is no value.
            frame = pd.read_csv(
                file,
                dtype={name: str for name in texts},
                keep_default_na=False,
                na_values={layout.score: ["", "nan", "NaN", "NA", "null", "None"]},
                skipinitialspace=True,
            )
        else:
            raise OracleError(f"Scores {file} is neither .csv nor .parquet.")
    except OSError as error:
        raise OracleError(f"Scores {file} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise OracleError(f"Scores {file} cannot be read: {(str(error).splitlines() or ['damaged'])[0]}.") from error
    names = [str(name) for name in frame.columns]
    for name in (*texts, layout.score):
        if names.count(name) != 1:
            raise OracleError(
                f"Scores {file} has {'two columns' if name in names else 'no column'} "
                f"{name!r}.{did_you_mean(name, names)} It has: {join_first(names, 20) or 'none'}."
            )
    if frame.empty:
        raise OracleError(f"Scores {file} has no row.")
    return frame.set_axis(names, axis=1)


def _scores(column: pd.Series, file: Path, layout: Layout, dates: pd.DatetimeIndex, coins: pd.Series) -> np.ndarray:
    def cell(row: int) -> str:
        return f"Scores {file}: {layout.score} of {coins.iloc[row]} on {show(dates[row])} (data row {row + 1})"

    numbers = pd.to_numeric(column, errors="coerce")
    wrong = np.flatnonzero((numbers.isna() & column.notna()) | (column.dtype == np.bool_))
    if len(wrong):
        raise OracleError(f"{cell(int(wrong[0]))} is {column.iloc[wrong[0]]!r}, which is no number.")
    values: np.ndarray = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = np.flatnonzero(np.isinf(values) | (values < layout.low) | (values > layout.high))
    if len(wrong):
        raise OracleError(
            f"{cell(int(wrong[0]))} is {values[wrong[0]]:g}, and so are {len(wrong) - 1} more outside their range: "
            f"scores are finite and between {layout.low:g} and {layout.high:g}."
        )
    return values


def _without_duplicates(table: pd.DataFrame, file: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Every date and coin once, and notes on the duplicates."""
    key = ["date", "available", "coin"]
    twice = table[table.duplicated(key, keep=False)]
    if twice.empty:
        return table, ()
    spread = twice.groupby(key)["score"].agg(["min", "max"])
    conflicts = spread[spread["min"] != spread["max"]].index
    notes = []
    if len(conflicts) < len(spread):
        names = sorted(set(spread.index.difference(conflicts).get_level_values("coin")))
        notes.append(
            f"{file.name} repeats {len(spread) - len(conflicts)} rows of {join_first(names, _LISTED)} with the same "
            "score; each counts once."
        )
    if len(conflicts):
        names = sorted(set(conflicts.get_level_values("coin")))
        notes.append(
            f"{file.name} has two scores for one symbol and date {len(conflicts)} times, of "
            f"{join_first(names, _LISTED)}: it is not known which of them is right, so neither counts."
        )
    table = table.drop_duplicates(key)
    return table[~pd.MultiIndex.from_frame(table[key]).isin(conflicts)], tuple(notes)


def instants(column: pd.Series, name: str, file: Path, timezone: str = "", dates_too: bool = True) -> pd.DatetimeIndex:
    """Instants of a column, UTC: times in any zone, naive ones in `timezone`, bare dates as 00:00 there.

    Raises
    ------
    OracleError
        For a value that is no time, a naive time of day without `timezone`, and, with ``dates_too=False``, a bare date:
        it has no time of day.
    """
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return _complete(pd.DatetimeIndex(column), column, name, file)
    if pd.api.types.is_datetime64_any_dtype(column):
        return _localised(pd.DatetimeIndex(column), column, name, file, timezone, dates_too)
    text = column.astype("str")
    read = {value: read_instant(value) for value in text.dropna().unique()}
    times = text.map(read).astype(object)
    naive = np.array([isinstance(time, pd.Timestamp) and time.tzinfo is None for time in times])
    if naive.any():
        local = pd.DatetimeIndex(times[naive].to_list())
        times[naive] = _localised(local, column[naive], name, file, timezone, dates_too)
    return _complete(pd.DatetimeIndex(pd.to_datetime(times, utc=True)), column, name, file)


def _localised(
    naive: pd.DatetimeIndex, column: pd.Series, name: str, file: Path, timezone: str, dates_too: bool
) -> pd.DatetimeIndex:
    _complete(naive, column, name, file)
    timed = np.flatnonzero(naive != naive.normalize())
    if not timezone and (len(timed) or not dates_too):
        example = column.iloc[timed[0] if len(timed) else 0]
        raise OracleError(
            f"Scores {file}: {name} has times without a zone, as {example}. Write 2024-10-01T18:00Z, or say "
            "timezone=UTC (or America/New_York, ...)."
        )
    try:
        zone = zoneinfo.ZoneInfo(timezone or "UTC")
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise OracleError(
            f"timezone = {timezone!r} is not accepted: write a name like America/New_York, or UTC."
        ) from error
    try:
        return naive.tz_localize(zone).tz_convert("UTC").as_unit(UNIT)
    except ValueError as error:  # the hour that clocks repeat or skip
        reason = str(error).partition(", try using")[0].partition(". Try using")[0]
        raise OracleError(
            f"Scores {file}: {name} is not clear in {timezone}: {reason}. Write it with its zone, 2024-10-01T18:00Z."
        ) from error


def _complete(times: pd.DatetimeIndex, column: pd.Series, name: str, file: Path) -> pd.DatetimeIndex:
    wrong = np.flatnonzero(times.isna())
    if len(wrong):
        raise OracleError(
            f"Scores {file}: {name} in data row {column.index[wrong[0]] + 1} is {column.iloc[wrong[0]]!r}, no date. "
            "Write 2024-10-01 or 2024-10-01T18:00Z."
        )
    return times.as_unit(UNIT) if times.tz is None else times.tz_convert("UTC").as_unit(UNIT)
