"""Import of freqtrade's candle and funding files, such as ``BTC_USDC_USDC-1h-futures.feather``.

freqtrade has written feather, parquet, JSON, zipped JSON and, until 2025, HDF5. A candle's `date` is its open time, so
it becomes the row one hour later: `mid` is its close, `high` and `low` are its extremes, `volume_usd` is its volume (in
the coin) times its close; the close of a mark candle is `mark`. A funding rate's `date` is the exchange's stamp, some
milliseconds after the hour that it settles; `funding_rate`, or `open` in files of before, is the rate per hour. Files
of funding are called ``1h`` or ``8h``, after a setting of freqtrade: what they hold is the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from engine.clock import HOUR
from engine.coin import dex_of
from engine.data.cache import Progress, Store
from engine.data.coin_names import COLLATERAL, CoinNames
from engine.data.coin_table import CoinMeta
from engine.data.hourly_rows import HourlyRows, candle_rows, funding_rows, length_of, running, short_notes
from engine.data.manifest import Manifest
from engine.data.merge import FREQTRADE
from engine.data.price_checks import ImpossiblePrice
from engine.data.schema import to_table
from engine.data.sync_report import SkippedItem, SyncReport
from engine.data.table_files import UnusableFile, ending_of, names_of, numbers, read_frame, visible_files
from engine.errors import DataError, join_first

CANDLES = "_USDC_USDC-1h-futures.feather"
FUNDING = "_USDC_USDC-1h-funding_rate.feather"
_NAME = re.compile(
    r"(?P<coin>[\w-]+)_(?P<quote>[A-Za-z0-9]+)_(?P=quote)-(?P<timeframe>\d+[a-zA-Z]{1,2})"
    r"-(?P<kind>futures|mark|funding_rate)\.(feather|parquet|json|json\.gz|h5)"
)

#: Currencies in which other exchanges settle: their files are not ours to set aside.
_OF_OTHERS = ("USDT", "BUSD", "USD")


@dataclass(frozen=True)
class _File:
    """A file by its name."""

    path: Path
    coin: str
    kind: str
    length: pd.Timedelta
    quote: str


def import_freqtrade(
    store: Store,
    folder: str | Path,
    *,
    now: pd.Timestamp | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> SyncReport:
    """Import every HyperLiquid candle and funding file under a folder, in one commit.

    Parameters
    ----------
    store : Store
        The cache; made when absent.
    folder : path
        freqtrade's data folder or one below it; searched through.
    now : Timestamp, optional
        The time: a candle that ends later is not finished and is left out, as is one that ended after its file was
        written (freqtrade keeps the running candle until its next download).
    replace : bool
        Take the new value where the cache has another one.
    progress : callable, optional
        Called with files done, files in all, file name; then the same for the months written.

    Raises
    ------
    DataError
        When the folder has no such file or none can be used, or for what :meth:`Store.merge` refuses.
    """
    files, skipped, notes = _select(Path(folder))
    names = CoinNames((store.manifest() or Manifest(False)).coins)
    tables, metas, coins = [], list[CoinMeta](), set()
    impossible: list[ImpossiblePrice] = []
    left_out = 0
    short = np.zeros(2, dtype=np.int64)
    for done, file in enumerate(files):
        if progress:
            progress(done, len(files), file.path.name)
        try:
            coin = names.venue_name(file.coin, perpetual=True)
            rows, unfinished = _read(file, now)
        except UnusableFile as reason:
            skipped.append(SkippedItem(str(file.path), str(reason)))
            continue
        short += rows.incomplete, rows.dropped
        impossible += rows.impossible_prices(coin)
        left_out += unfinished
        metas += [CoinMeta(coin, collateral=COLLATERAL[file.quote])] if dex_of(coin) else []
        tables.append(to_table([coin], np.zeros(len(rows.hours), dtype=np.int64), rows.hours, rows.fields))
        coins.add(coin)
    if progress:
        progress(len(files), len(files), "read")
    if not tables:
        raise DataError(f"None of the {len(files)} files under {folder} can be used. The first: {skipped[0]}.")
    merge = store.merge(tables, FREQTRADE, meta=metas, replace=replace, impossible=impossible, progress=progress)
    notes += [*names.notes(), *short_notes(*short)]
    notes += [f"{left_out:,} candles that were not finished left out."] if left_out else []
    return SyncReport(
        FREQTRADE, {"files": len(tables), "coins": len(coins)}, merge, tuple(skipped), (*notes, *store.notes())
    )


def _select(folder: Path) -> tuple[list[_File], list[SkippedItem], list[str]]:
    """The files to read, in an order that does not depend on the file system, those set aside, what is said of others.

    Raises
    ------
    DataError
        When there is none to read, or one twice.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. Name freqtrade's data folder, .../user_data/data/hyperliquid.")
    files: dict[tuple[str, str], list[_File]] = {}
    skipped, ignored = [], []
    paths = [path for path in visible_files(folder) if ending_of(path)]
    for path in sorted(paths, key=lambda path: (path.name, str(path))):
        match = _NAME.fullmatch(path.name)
        length = length_of(match["timeframe"]) if match else None
        if match and match["quote"] not in (*COLLATERAL, *_OF_OTHERS):
            reason = f"is settled in {match['quote']}, which is no collateral of the exchange that is known"
            skipped.append(SkippedItem(str(path), f"{reason} ({', '.join(COLLATERAL)})"))
        elif match and match["quote"] in COLLATERAL and length is not None:
            file = _File(path, match["coin"], match["kind"], length, match["quote"])
            files.setdefault((file.coin, file.kind), []).append(file)
        else:
            ignored.append(path.name)
    chosen = []
    for candidates in files.values():
        own, others = _preferred(candidates)
        chosen += own
        ignored += [file.path.name for file in others]
    rest = join_first(sorted(ignored))
    if not chosen:
        raise DataError(
            f"{folder} has no HyperLiquid file of freqtrade: no *{CANDLES} or *{FUNDING} in it or below (.parquet, "
            ".json, .json.gz and .h5 are as good, and candles shorter than an hour). Name the folder "
            f".../user_data/data/hyperliquid.{f' Its other files: {rest}.' if ignored else ''}"
            f"{f' Set aside: {join_first(skipped)}.' if skipped else ''}"
        )
    notes = [
        f"Ignored, {len(ignored)} files that are no candles of an hour or less, mark candles or funding of a perpetual "
        f"of the exchange, or of which there is a better one: {rest}."
    ]
    chosen.sort(key=lambda file: (file.path.name, str(file.path)))
    return chosen, skipped, notes if ignored else []


def _preferred(files: Iterable[_File]) -> tuple[list[_File], list[_File]]:
    """Of the files of one pair and kind the one to read, the longest of at most an hour, and the others."""
    usable = [file for file in files if file.kind == "funding_rate" or HOUR % file.length == pd.Timedelta(0)]
    if not usable:
        return [], list(files)
    # Funding has no length: the name that freqtrade gives it today comes first.
    best = max((file.length for file in usable if file.length <= HOUR), default=min(file.length for file in usable))
    own = [file for file in usable if file.length == best]
    if len(own) > 1:
        one, other = own[0].path, own[1].path
        raise DataError(
            f"{one.name} exists twice, in {one.parent} and {other.parent}. Name one of these folders."
            if one.name == other.name
            else f"{one} and {other} are the same data in two formats. Move one of them away."
        )
    return own, [file for file in files if file not in own]


def _read(file: _File, now: pd.Timestamp | None) -> tuple[HourlyRows, int]:
    """The rows of a file, and how many candles were left out since they were not finished."""
    import pyarrow as pa

    frame = read_frame(file.path)
    frame = frame.rename(columns={"time": "date"}) if frame.attrs["unnamed"] else frame
    if frame.attrs["unnamed"]:
        frame["date"] = pd.to_datetime(frame["date"], unit="ms", utc=True)
    wanted: tuple[str, ...] = ("date", "close", *(["open"] if "open" in frame else []), "high", "low", "volume")
    if file.kind == "funding_rate":
        wanted = ("date", "funding_rate" if "funding_rate" in frame else "open")
    elif file.kind == "mark":
        wanted = ("date", "close")
    missing = [name for name in wanted if name not in frame]
    if missing:
        raise UnusableFile(f"has no column {', '.join(missing)} but {', '.join(names_of(frame))}")
    kinds = {name: pa.array(frame[name], from_pandas=True).type for name in wanted}
    for name in wanted[1:]:
        if not (pa.types.is_floating(kinds[name]) or pa.types.is_integer(kinds[name])):
            raise UnusableFile(f"has the column {name} as {kinds[name]}; numbers are needed")
    if not pa.types.is_timestamp(kinds["date"]) or kinds["date"].tz not in ("UTC", "+00:00", "Etc/UTC"):
        raise UnusableFile(f"has the column date as {kinds['date']}; timestamps with the zone UTC are needed")
    if frame["date"].isna().any():
        raise UnusableFile(f"has {int(frame['date'].isna().sum())} rows without a date")
    dates = pd.DatetimeIndex(frame["date"])
    values = {name: numbers(frame, name) for name in wanted[1:]}
    if file.kind == "funding_rate":
        return funding_rows(dates, values[wanted[1]]), 0
    finished = ~running(dates, file.length, file.path, now)
    if not finished.any():
        raise UnusableFile("has no finished candle")
    rows = candle_rows(dates[finished], {name: column[finished] for name, column in values.items()}, file.length)
    rows = rows if file.kind == "futures" else replace(rows, fields={"mark": rows.fields["mid"]}, incomplete=0)
    return rows, int((~finished).sum())
