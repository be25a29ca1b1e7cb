"""What the columns of somebody's table mean: its stamps, its coins, and the fields of a panel that it has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from engine.data.table_files import UnusableFile, names_of
from engine.errors import join_first
from engine.panel import FIELDS

TIME, COIN, IGNORE = "time", "coin", "ignore"
#: What a row is of: of a candle, of the settlement of funding, of an instant.
CLOSE, OPEN, FUNDING = "close", "open", "funding"
OPEN_TIME, CLOSE_TIME, TIMEFRAME, VENUE, DEX = "open_time", "close_time", "timeframe", "venue", "dex"
#: Meaning -> names without signs and capitals. A field of a panel has its own name, too.
_NAMES = {
    TIME: "time timestamp ts date datetime stamp",
    OPEN_TIME: "opentime starttime opentimestamp periodstart",
    CLOSE_TIME: "closetime endtime closetimestamp periodend",
    COIN: "coin symbol instrument id asset ticker pair market",
    TIMEFRAME: "timeframe interval",
    VENUE: "exchange venue",
    DEX: "dex perpdex",
    CLOSE: "close closeprice",
    OPEN: "open openprice",
    "high": "highprice",
    "low": "lowprice",
    "volume": "volume vol basevolume volumebase",
    "volume_usd": "quotevolume volumequote quoteassetvolume turnover notional",
    FUNDING: "fundingrate rate",
    "mid": "midpx midprice price px lastprice last",
    "mark": "markpx markprice",
    "oracle": "oraclepx oracleprice indexprice",
    "bid": "bidprice bidpx bestbid",
    "ask": "askprice askpx bestask",
    "impact_bid": "impactbidpx",
    "impact_ask": "impactaskpx",
    "open_interest": "oi",
    "volume_24h_usd": "dayntlvlm",
}
#: The exchange's own candles: {"t", "T", "s", "i", "o", "c", "h", "l", "v", "n"}.
_EXCHANGE = {"t": OPEN_TIME, "T": CLOSE_TIME, "s": COIN, "i": TIMEFRAME, "o": OPEN, "h": "high", "l": "low"}
_EXCHANGE |= {"c": CLOSE, "v": "volume"}
_UNITS = {"pct": 0.01, "percent": 0.01, "percentage": 0.01, "bps": 1e-4, "bp": 1e-4}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_MEANINGS = {name: meaning for meaning, names in _NAMES.items() for name in names.split()}
_MEANINGS |= {_plain(name): name for name in FIELDS if name != "in_session"}
#: What ``--map COLUMN=...`` may name.
MEANINGS = frozenset({*_NAMES, *_MEANINGS.values(), IGNORE})


@dataclass(frozen=True)
class Layout:
    """The meaning of the columns of a table.

    Attributes
    ----------
    time : str
        Column of the stamps.
    opens : bool or None
        Whether a stamp is when the row's time begins; None where neither a name nor the user says it.
    coin : str or None
        Column of the coins; None where the table is of one coin, or wide.
    fields : mapping of str to str
        Field (``close`` and ``volume`` are those of a candle) -> its column.
    factors : mapping of str to float
        Field -> what its values are multiplied with.
    wide : str or None
        Where every other column is a coin: the field that the table has.
    extra : mapping of str to str
        ``timeframe``, ``venue`` and ``dex`` -> their columns.
    ignored : tuple of str
        Columns that are not used.
    """

    time: str
    opens: bool | None
    coin: str | None
    fields: Mapping[str, str]
    factors: Mapping[str, float]
    wide: str | None
    extra: Mapping[str, str]
    ignored: tuple[str, ...]


def layout_of(
    frame: pd.DataFrame, stem: str, opens: bool | None, mapped: Mapping[str, str], field: str | None
) -> Layout:
    """The layout of a table.

    Parameters
    ----------
    frame : DataFrame
        As :func:`engine.data.table_files.read_frame` gives it.
    stem : str
        Name of its file without the ending: of a wide table, the field.
    opens : bool or None
        The user's word on stamps.
    mapped : mapping of str to str
        Column -> one of :data:`MEANINGS`, on the user's word.
    field : str or None
        That the table is wide, of this field.

    Raises
    ------
    UnusableFile
        Where a meaning is missing, or two columns have the same.
    """
    found, factors = _meanings(frame, mapped, field is not None)
    time, opens = _stamps(found, opens, frame)
    columns = {meaning: names[0] for meaning, names in found.items() if len(names) == 1}
    twice = [names for meaning, names in found.items() if len(names) > 1 and meaning != TIME]
    if twice:
        raise UnusableFile(
            f"has {' and '.join(twice[0])}, which may both be {_meaning(found, twice[0])}: --map {twice[0][1]}=ignore "
            "leaves one out"
        )
    extra = {name: columns[name] for name in (TIMEFRAME, VENUE, DEX) if name in columns}
    fields = {name: column for name, column in columns.items() if name in FIELDS or name in (CLOSE, OPEN, "volume")}
    if CLOSE not in fields:
        fields.pop(OPEN, None)
    if CLOSE in fields and "mid" in fields:
        raise UnusableFile(
            f"has {fields[CLOSE]} and {fields['mid']}, which may both be the price: --map {fields['mid']}=ignore "
            "leaves one out"
        )
    used = {time, columns.get(COIN), columns.get(OPEN), *fields.values(), *extra.values()}
    rest = [name for name in names_of(frame) if name not in used]
    wide = field
    if not fields and COIN not in columns and field is None:
        wide = _MEANINGS.get(_plain(stem))
        if wide not in (*FIELDS, CLOSE):
            raise UnusableFile(
                f"has no column of a field (close, volume, funding, ...) beside {time}: {join_first(rest)}. Where each "
                "column is a coin, --field close (or funding, ...) says what the values are; --map NAME=close names a "
                "column"
            )
    if wide is not None:
        left = [name for name in rest if mapped.get(name) == IGNORE]
        fields, rest = {name: name for name in rest if name not in left}, left
    if not fields:
        raise UnusableFile(f"has no column of a field (close, volume, funding, ...) but {join_first(names_of(frame))}")
    if set(fields) <= {"volume", "high", "low"}:
        raise UnusableFile("has no close; --map NAME=close names its column")
    return Layout(time, opens, columns.get(COIN), fields, factors, wide, extra, tuple(rest))


def _meaning(found: Mapping[str, list[str]], names: list[str]) -> str:
    return next(f"the {meaning}" for meaning, own in found.items() if own == names)


def _meanings(
    frame: pd.DataFrame, mapped: Mapping[str, str], wide: bool
) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Meaning -> columns, and the factors that follow from names such as ``funding_pct``."""
    found: dict[str, list[str]] = {}
    factors: dict[str, float] = {}
    exchange = "c" in frame and ("t" in frame or "T" in frame)
    for name in names_of(frame):
        plain = _plain(name)
        unit = re.fullmatch(rf"(.+?)({'|'.join(_UNITS)})", plain)
        # Coins may be called ID, DEX, S or T: of the short names only lower case is a meaning.
        short = plain in ("id", "dex") and name != plain
        meaning = _EXCHANGE.get(name) if exchange else None if short else _MEANINGS.get(plain)
        if unit and _MEANINGS.get(unit[1]) == FUNDING:
            meaning = FUNDING
            factors[FUNDING] = _UNITS[unit[2]]
        if wide and meaning not in (TIME, OPEN_TIME, CLOSE_TIME):
            meaning = None
        meaning = mapped.get(name, meaning)
        if meaning is not None and meaning != IGNORE:
            found.setdefault(meaning, []).append(name)
    return found, factors


def _stamps(found: Mapping[str, list[str]], opens: bool | None, frame: pd.DataFrame) -> tuple[str, bool | None]:
    """Column of the stamps, and whether they open."""
    named = {meaning: found[meaning][0] for meaning in (OPEN_TIME, CLOSE_TIME) if meaning in found}
    if len(named) == 2:
        return named[CLOSE_TIME if opens is False else OPEN_TIME], opens is not False
    for meaning, name in named.items():
        says = meaning == OPEN_TIME
        if opens not in (None, says):
            raise UnusableFile(
                f"has the stamps {name}, which is the {'opening' if says else 'end'} by its name, against "
                f"--stamp {'open' if opens else 'close'}; --map {name}=time leaves that to --stamp"
            )
        return name, says
    times = found.get(TIME, [])
    if not times:
        raise UnusableFile(f"has no column of stamps (time, timestamp, date, ...) but {join_first(names_of(frame))}")
    # Some write the same instant as a number and as a text.
    plain = [name for name in times if _plain(name) in ("timestamp", "time", "ts")]
    if len(times) > 1 and len(plain) != 1:
        raise UnusableFile(f"has {' and '.join(times)}, which may both be the stamps: --map {times[0]}=ignore")
    return (plain or times)[0], opens
