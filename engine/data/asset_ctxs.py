"""Reduction of ``asset_ctxs/{YYYYMMDD}.csv.lz4``, a line a minute and perpetual, to hourly rows.

Row ``t`` is the last record of the coin stamped in ``[t - 1 h, t)``: one stamped 22:59 is row 23:00, and one stamped
exactly 23:00:00 belongs to row 24:00. So a day's file gives the rows 01:00 to 24:00 of its day and needs no other file.
Every field of a row is of that one record, but a record that is minutes old at its row gives prices and no quotes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from engine.data.funding import ESTIMATES_HOURLY_FROM
from engine.data.schema import LAST_EIGHT_HOURLY, NOT_NEGATIVE, SETTLEMENT_HOURS, Flags, Floats, Integers, to_table
from engine.errors import DataError, join_first
from engine.panel import PRICES

#: Column of the file -> field. `day_ntl_vlm` is over the exchange's own 24 hours, from which no hour's volume follows.
COLUMNS: Mapping[str, str] = {
    "mid_px": "mid",
    "mark_px": "mark",
    "oracle_px": "oracle",
    "funding": "funding",
    "open_interest": "open_interest",
    "impact_bid_px": "impact_bid",
    "impact_ask_px": "impact_ask",
    "day_ntl_vlm": "volume_24h_usd",
}
#: The archive's header; columns behind it would be new ones.
HEADER = (
    "time",
    "coin",
    "funding",
    "open_interest",
    "prev_day_px",
    "day_ntl_vlm",
    "premium",
    "oracle_px",
    "mark_px",
    "mid_px",
    "impact_bid_px",
    "impact_ask_px",
)
#: Quotes of a record. The other fields hold on; these are of their minute.
QUOTES = ("impact_bid", "impact_ask")
#: A record so much older than its row is a price and no quote any more, seconds.
STALE_SECONDS = 300
_EMPTY = ["", "null", "None", "NaN", "nan"]
_HOUR = 3600
_DAY = 24 * _HOUR
#: Bytes of text that are parsed at once: half of this or twice it is slower.
_BLOCK = 4 << 20
_SLICE = 1 << 18


class ObjectError(DataError):
    """A downloaded object that is not of the form that its name says; the message is the reason."""


@dataclass(frozen=True, eq=False)
class Day:
    """The hourly rows of one file.

    Attributes
    ----------
    table : pyarrow.Table
        Hourly rows of :mod:`engine.data.schema`.
    records : int
        Lines of the file.
    outside : int
        Lines stamped on another day, which were left out: they are in the other day's file.
    unusable : int
        Values of the hourly rows that are no price (0 or less) or not finite, left out as not observed.
    stale : int
        Rows whose record is older than :data:`STALE_SECONDS` at their instant: they have prices, but no quotes.
    last : int
        Seconds since 1970 of the last line of the day: a day of which a part was published ends early.
    """

    table: Any
    records: int
    outside: int
    unusable: int
    stale: int
    last: int


def decompress(content: bytes) -> bytes:
    """The text of an object, which is one LZ4 frame.

    Raises
    ------
    ObjectError
        When it is truncated or damaged, or when something follows the frame.
    """
    return b"".join(_texts(content))


def reduce_day(content: bytes, day: date) -> Day:
    """Reduce one file of the archive to hourly rows.

    Parameters
    ----------
    content : bytes
        The object as it was downloaded.
    day : date
        The day of its name.

    Raises
    ------
    ObjectError
        For damaged LZ4, a missing or renamed column, a cut line, a value that is not a number or time.
    """
    import pyarrow as pa

    midnight = int(pd.Timestamp(day, tz="UTC").timestamp())
    parts, records, outside = [], 0, 0
    for table in _tables(content):
        codes, _ = _encoded(table.column("coin"))
        since = _seconds(table) - midnight
        inside = (since >= 0) & (since < _DAY)
        records += len(since)
        outside += int((~inside).sum())
        parts.append(table.take(_last_of_each_hour(codes, since, inside)))
    # The last record of each part of the file, and of those again the last: lines keep their order.
    table = pa.concat_tables(parts).unify_dictionaries().combine_chunks()
    if not len(table):
        raise ObjectError(f"has no record of its day {day} among {records}")
    codes, coins = _encoded(table.column("coin"))
    if "" in coins:
        raise ObjectError("has a line without a coin")
    since = _seconds(table) - midnight
    lines = _last_of_each_hour(codes, since, np.ones(len(since), dtype=np.bool_))
    fields: dict[str, Floats] = {}
    unusable = 0
    for column, field in COLUMNS.items():
        fields[field], bad = usable(field, table.column(column).to_numpy()[lines])
        unusable += bad
    hours = midnight // _HOUR + 1 + since[lines] // _HOUR
    # The unit is that of the row (engine.data.funding); of one record a coin it may be another.
    of_eight = (hours > LAST_EIGHT_HOURLY) & (midnight + since[lines] < ESTIMATES_HOURLY_FROM)
    fields["funding"] = np.where(of_eight, fields["funding"] / SETTLEMENT_HOURS, fields["funding"])
    stale = _HOUR - since[lines] % _HOUR > STALE_SECONDS
    for field in QUOTES:
        fields[field] = np.where(stale, np.nan, fields[field])
    hourly = sorted_table(coins, codes[lines], hours, fields)
    return Day(hourly, records, outside, unusable, int(stale.sum()), midnight + int(since.max()))


def sorted_table(coins: Sequence[str], codes: Integers, hours: Integers, fields: Mapping[str, Floats]) -> Any:
    """Rows in any order as a pyarrow table of the schema: by coin, then by time."""
    rank = np.argsort(np.argsort(np.array(coins, dtype=object)))[codes]
    order = np.lexsort((hours, rank))
    return to_table(coins, codes[order], hours[order], {name: values[order] for name, values in fields.items()})


def _tables(content: bytes) -> Iterator[Any]:
    """The columns that are used, as pyarrow tables of a few megabytes of lines each: never the whole day in memory."""
    head, rest = b"", b""
    for text in _texts(content):
        text = rest + text
        if not head:
            head, end, text = text.partition(b"\n")
            head += end
            _check_header(head)
        cut = text.rfind(b"\n") + 1
        rest = text[cut:]
        if cut:
            yield _parse(head + text[:cut])
    # Text after the last line end may be cut within its last number, and nothing would show it: it is left out. A line
    # that is cut earlier is an error.
    yield _parse(head + rest + b"\n" if rest else head).slice(0, 0)


def _texts(content: bytes) -> Iterator[bytes]:
    """The text of an LZ4 frame, piece by piece."""
    import lz4.frame

    frame = lz4.frame.LZ4FrameDecompressor()
    pieces: list[bytes] = []
    try:
        for start in range(0, len(content), _SLICE):
            pieces.append(frame.decompress(content[start : start + _SLICE]))
            if sum(map(len, pieces)) >= _BLOCK:
                yield b"".join(pieces)
                pieces = []
    except (RuntimeError, EOFError) as error:
        raise ObjectError(f"is truncated or damaged LZ4 ({error})") from error
    if not frame.eof or frame.unused_data:
        raise ObjectError(f"is truncated or damaged LZ4 (its frame does not end with its {len(content):,} bytes)")
    yield b"".join(pieces)


def _check_header(head: bytes) -> None:
    names = head.decode("utf-8", "replace").strip().split(",")
    missing = [name for name in ("time", "coin", *COLUMNS) if names.count(name) != 1]
    if missing:
        raise ObjectError(
            f"lacks the column {join_first(missing)} (or has it twice); its header is {','.join(names)[:300]}"
        )
    if tuple(names[: len(HEADER)]) != HEADER:
        # Columns could be read by name, but a header reordered without its values would swap prices silently.
        raise ObjectError(
            f"has its columns in another order than the archive's; its header is {','.join(names)[:300]}, and "
            f"{','.join(HEADER)} is expected"
        )


def _parse(text: bytes) -> Any:
    """Whole lines below a header, as a pyarrow table of one chunk."""
    import pyarrow as pa
    from pyarrow import csv

    label = pa.dictionary(pa.int32(), pa.string())
    try:
        table = csv.read_csv(
            pa.BufferReader(text),
            read_options=csv.ReadOptions(use_threads=False, block_size=max(len(text), 1)),
            convert_options=csv.ConvertOptions(
                column_types={"time": label, "coin": label, **dict.fromkeys(COLUMNS, pa.float64())},
                include_columns=["time", "coin", *COLUMNS],
                null_values=_EMPTY,
            ),
        )
    except pa.ArrowInvalid as error:
        raise ObjectError(f"has a line that cannot be read ({error})") from error
    return table.unify_dictionaries().combine_chunks()


def _encoded(column: Any) -> tuple[Integers, list[str]]:
    """Codes and labels of a dictionary column."""
    array = column.chunk(0) if column.num_chunks else column.combine_chunks()
    return array.indices.to_numpy().astype(np.int64), array.dictionary.to_pylist()


def _seconds(table: Any) -> Integers:
    """Seconds since 1970 of every line, rounded down.

    The archive spells time both `2025-01-01T00:00:00Z` and `2025-01-01 00:00:00`; without a zone it is UTC.
    """
    codes, labels = _encoded(table.column("time"))
    stamps = pd.to_datetime(pd.Index(labels, dtype=object), utc=True, format="ISO8601", errors="coerce")
    if stamps.hasnans:
        strange = [label for label, lost in zip(labels, stamps.isna(), strict=True) if lost]
        raise ObjectError(f"has a time that cannot be read ({join_first(map(repr, strange), 3)})")
    seconds = stamps.as_unit("ns").asi8 // 1_000_000_000
    return np.asarray(seconds, dtype=np.int64)[codes]


def _last_of_each_hour(codes: Integers, since: Integers, inside: Flags) -> Integers:
    """Line numbers of the last record of every coin and hour; of two with one stamp, the later line."""
    lines = np.flatnonzero(inside)
    if (np.diff(since[lines]) < 0).any():
        lines = lines[np.argsort(since[lines], kind="stable")]
    last = np.full((int(codes.max(initial=0)) + 1) * 24, -1, dtype=np.int64)
    # Where an index is repeated, numpy keeps the value assigned last.
    last[codes[lines] * 24 + since[lines] // _HOUR] = lines
    return last[last >= 0]


def usable(field: str, values: Floats) -> tuple[Floats, int]:
    """Values with NaN in place of impossible ones, and how many those are."""
    low = 0.0 if field in NOT_NEGATIVE else -np.inf
    bad = ~np.isnan(values) & (~np.isfinite(values) | ((values <= 0) if field in PRICES else (values < low)))
    return np.where(bad, np.nan, values), int(bad.sum())
