"""Import of tables of other programs: long, wide or a file a coin, of candles, of funding rates or of instants.

Each file is read to one form, rows of a coin with their stamps, and from there to hourly rows. What was understood is
in the report; what is not clear is refused with the option that says it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.clock import HOUR, show
from engine.data.asset_ctxs import usable
from engine.data.cache import Progress, Store
from engine.data.coin_names import CoinNames
from engine.data.hourly_rows import (
    HourlyRows,
    candle_rows,
    checked_funding,
    funding_rows,
    instant_rows,
    length_of,
    on_the_hour,
    read_stamps,
    running,
    short_notes,
    show_length,
    snapped,
)
from engine.data.manifest import Manifest
from engine.data.merge import TABLE
from engine.data.price_checks import ImpossiblePrice
from engine.data.schema import Floats, instant_of, to_table
from engine.data.sync_report import SkippedItem, SyncReport
from engine.data.table_files import (
    FORMATS,
    NoTable,
    UnusableFile,
    ending_of,
    names_of,
    numbers,
    read_frame,
    visible_files,
)
from engine.data.table_layout import CLOSE, DEX, FUNDING, IGNORE, MEANINGS, OPEN, TIMEFRAME, VENUE, Layout, layout_of
from engine.errors import ConfigError, DataError, did_you_mean, join_first
from engine.panel import FIELDS

#: Words of a file's name that name no coin.
_WORDS = frozenset(
    "candle candles ohlc ohlcv kline klines bars funding rate rates fundingrate futures perp perps swap hyperliquid "
    "history price prices data usdc".split()
)


@dataclass(frozen=True)
class TableOptions:
    """What the user says of a table.

    Attributes
    ----------
    opens : bool or None
        Whether a stamp is when a row's time begins (True) or ends (False).
    mapped : mapping of str to str
        Column -> meaning (:data:`engine.data.table_layout.MEANINGS`), or coin -> the exchange's name or ``ignore``.
    wide : str or None
        That tables are wide, a column a coin, of this field.
    factors : mapping of str to float
        Field -> what its values are multiplied with.
    timeframe : str or None
        Length of candles, ``1h``.
    """

    opens: bool | None = None
    mapped: Mapping[str, str] = field(default_factory=dict)
    wide: str | None = None
    factors: Mapping[str, float] = field(default_factory=dict)
    timeframe: str | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises
        ------
        ConfigError
            For an unknown field, a factor that is no number above 0, a timeframe that does not divide an hour.
        """
        known = (*FIELDS, CLOSE, "volume")
        for name in (*self.factors, *([] if self.wide is None else [self.wide])):
            if name not in known or name == "volume" == self.wide:
                raise ConfigError(f"{name!r} is no field.{did_you_mean(name, known)} Fields: {', '.join(known)}.")
        for name, factor in self.factors.items():
            if not 0 < factor < float("inf"):
                raise ConfigError(f"--scale {name}={factor:g} is not a number above 0.")
        if self.timeframe is not None:
            length = length_of(self.timeframe)
            if length is None or HOUR % length != pd.Timedelta(0):
                raise ConfigError(f"--timeframe is {self.timeframe!r}; it must divide an hour, as 1h, 15m or 5m do.")

    @property
    def columns(self) -> dict[str, str]:
        """The part of `mapped` that may be of columns."""
        return {name: own for name, own in self.mapped.items() if own in MEANINGS}


def import_table(
    store: Store,
    path: str | Path,
    options: TableOptions | None = None,
    *,
    now: pd.Timestamp,
    dry_run: bool = False,
    replace: bool = False,
    progress: Progress | None = None,
) -> SyncReport:
    """Import a table, or every table in a folder, in one commit.

    Parameters
    ----------
    store : Store
        The cache; made when absent.
    path : path
        CSV, parquet, feather, JSON or HDF5; a folder is searched through.
    options : TableOptions, optional
        What the user says of it.
    now : Timestamp
        The time: a candle that ends later is not finished and is left out, as is one that ended after its file was
        written.
    dry_run : bool
        Write nothing: `details` of the report say what was understood.
    replace : bool
        Take the new value where the cache has another one.
    progress : callable, optional
        Called with files done, files in all, file name; then the same for the months written.

    Raises
    ------
    DataError
        When nothing can be used, or for what :meth:`Store.merge` refuses.
    """
    root = Path(path)
    paths, ignored = _files(root)
    options = options or TableOptions()
    names = CoinNames((store.manifest() or Manifest(False)).coins, options.mapped)
    run = _Import(root, options, names, now, ignored)
    for done, file in enumerate(paths):
        if progress:
            progress(done, len(paths), file.name)
        run.take(file)
    if progress:
        progress(len(paths), len(paths), "read")
    run.end()
    merge = store.merge(
        run.tables, TABLE, replace=replace, impossible=run.impossible, dry_run=dry_run, progress=progress
    )
    notes = [*run.notes(), *(() if dry_run else store.notes())]
    counts = {"files": run.files, "coins": len(run.coins), "rows": run.rows}
    return SyncReport(TABLE, counts, merge, tuple(run.skipped), tuple(notes), {"understood": run.understood()})


def _files(root: Path) -> tuple[list[Path], list[str]]:
    """The tables, in an order that does not depend on the file system, and the names of the other files."""
    if not root.exists():
        raise DataError(f"{root} does not exist. Name a file or a folder.")
    if root.is_file():
        if not ending_of(root):
            raise DataError(f"{root} is no table: its name ends in none of {', '.join(FORMATS)}.")
        return [root], []
    every = list(visible_files(root))
    return [path for path in every if ending_of(path)], [path.name for path in every if not ending_of(path)]


def _with_dex(frame: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """The table with the dex of a column of its own in front of the coins' names, ``xyz:TSLA`` of ``TSLA``."""
    if layout.coin is None or DEX not in layout.extra:
        return frame
    coins, dexes = (frame[column].astype(str) for column in (layout.coin, layout.extra[DEX]))
    plain = frame[layout.extra[DEX]].isna() | dexes.str.lower().isin(("", "main", "hyperliquid", "none"))
    named = plain | coins.str.contains(":", regex=False)
    return frame.assign(**{layout.coin: coins.where(named, dexes.str.lower() + ":" + coins)})


class LongCandles(UnusableFile):
    """Candles longer than an hour: no loss where the same coin has shorter ones, too."""


class _Import:
    """An import in progress."""

    def __init__(
        self, root: Path, options: TableOptions, names: CoinNames, now: pd.Timestamp, ignored: list[str]
    ) -> None:
        self.ignored = ignored
        self.root, self.options, self.names, self.now = root, options, names, now
        self.tables: list[Any] = []
        self.skipped: list[SkippedItem] = []
        self.long: list[tuple[str, SkippedItem]] = []
        self.impossible: list[ImpossiblePrice] = []
        self.coins: dict[str, set[str]] = {}
        self.layouts: Counter[str] = Counter()
        self.lengths: Counter[str] = Counter()
        self.columns: set[str] = set()
        self.used: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.files = self.rows = 0
        self.sample: list[dict[str, Any]] = []
        self.span: tuple[int, int] | None = None

    def take(self, path: Path) -> None:
        """Read a file; what of it cannot be used is in `skipped`."""
        try:
            frame = read_frame(path)
            self.columns |= set(names_of(frame))
            self.used |= self.columns & self.options.columns.keys()
            columns = self.options.columns
            opens = self.options.opens
            if frame.attrs["unnamed"] and opens is None:
                opens = True  # candles in lists are those of ccxt and freqtrade, stamped when they open
            layout = layout_of(frame, path.name[: -len(ending_of(path))], opens, columns, self.options.wide)
            frame = self._own_venue(frame, layout)
            if layout.coin is not None and frame[layout.coin].isna().any():
                raise UnusableFile(f"has {int(frame[layout.coin].isna().sum())} rows without a {layout.coin}")
            frame = _with_dex(frame, layout)
            stamps, unit = read_stamps(frame[layout.time])
        except NoTable as reason:
            if path == self.root:
                self.skipped.append(SkippedItem(str(path), str(reason)))
            else:
                self.ignored.append(path.name)
            return
        except UnusableFile as reason:
            self.skipped.append(SkippedItem(str(path), str(reason)))
            return
        self.files += 1
        for name, dates, values in self._series(path, frame, layout, stamps):
            try:
                if self.options.mapped.get(name) == IGNORE:
                    self.names.used.add(name)
                    continue
                coin = self.names.venue_name(name)
                self._add(coin, name, self._rows(path, frame, layout, dates, values))
            except LongCandles as reason:
                self.long.append((coin, SkippedItem(f"{name} in {path}", str(reason))))
            except UnusableFile as reason:
                self.skipped.append(SkippedItem(f"{name} in {path}", str(reason)))
        self._describe(layout, unit)

    def end(self) -> None:
        """Refuse words of the user that mean nothing here, and an import of nothing."""
        unused = [name for name in self.options.mapped if name not in self.used | self.names.used]
        if unused:
            raise DataError(
                f"--map {unused[0]}=...: no column and no coin under {self.root} is called so. Columns: "
                f"{join_first(sorted(self.columns), 20)}. Coins: {join_first(sorted(self.names.found), 8) or 'none'}."
            )
        self.skipped += [item for coin, item in self.long if coin not in self.coins]
        if not self.tables:
            files = f"Its files: {join_first(self.ignored) or 'none'}"
            reason = f"The first: {self.skipped[0]}" if self.skipped else files
            raise DataError(f"Nothing under {self.root} can be imported. {reason.rstrip('.')}.")

    def _own_venue(self, frame: pd.DataFrame, layout: Layout) -> pd.DataFrame:
        """The rows that are of HyperLiquid, where the table names exchanges."""
        if VENUE not in layout.extra:
            return frame
        own = frame[layout.extra[VENUE]].astype(str).str.lower().str.contains("hyperliquid").to_numpy()
        if not own.any():
            other = frame[layout.extra[VENUE]].iloc[0]
            raise UnusableFile(f"has no row of hyperliquid in {layout.extra[VENUE]}, but of {other}")
        self.counts["rows of other exchanges left out"] += int((~own).sum())
        return frame[own]

    def _series(
        self, path: Path, frame: pd.DataFrame, layout: Layout, stamps: pd.DatetimeIndex
    ) -> Iterator[tuple[str, pd.DatetimeIndex, dict[str, Floats]]]:
        """Each coin of a table: its name there, its stamps, ascending, its fields."""
        try:
            values = {name: numbers(frame, column) for name, column in layout.fields.items()}
            groups: dict[str, Any] = {}
            if layout.coin is not None:
                codes, coins = pd.factorize(frame[layout.coin].astype(str))
                order, ends = np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))
                groups = dict(zip(coins, np.split(order, ends[:-1]), strict=True))
            elif layout.wide is None:
                groups = {self._name_of(path): np.arange(len(frame))}
        except UnusableFile as reason:
            self.skipped.append(SkippedItem(str(path), str(reason)))
            return
        if layout.wide is not None:
            for name, column in values.items():
                present = np.flatnonzero(~np.isnan(column))
                if len(present):
                    yield name, *self._sorted(stamps[present], {layout.wide: column[present]})
            return
        for name, lines in groups.items():
            yield str(name), *self._sorted(stamps[lines], {name: column[lines] for name, column in values.items()})

    def _sorted(
        self, stamps: pd.DatetimeIndex, values: dict[str, Floats]
    ) -> tuple[pd.DatetimeIndex, dict[str, Floats]]:
        """Rows by time, those that are there twice once."""
        ns = stamps.asi8
        if (np.diff(ns) < 0).any():
            order = np.argsort(ns, kind="stable")
            stamps, values = stamps[order], {name: column[order] for name, column in values.items()}
            self.counts["series sorted by time"] += 1
        same = np.diff(stamps.asi8) == 0
        for column in values.values():
            same &= (column[1:] == column[:-1]) | (np.isnan(column[1:]) & np.isnan(column[:-1]))
        if same.any():
            kept = np.r_[True, ~same]
            stamps, values = stamps[kept], {name: column[kept] for name, column in values.items()}
            self.counts["rows that were there twice"] += int(same.sum())
        return stamps, values

    def _name_of(self, path: Path) -> str:
        """The coin that a file or its folder is named after."""
        above = path.parts[-3:-1] if path == self.root else path.relative_to(self.root).parts[:-1]
        for part in (path.name[: -len(ending_of(path))], *reversed(above)):
            if part in self.options.mapped:
                return part
            if part.lower().endswith(("_usdc_usdc", "-perp")):
                return part
            words = [word for word in re.split(r"[\s_.-]+", part) if word and not word.isdecimal()]
            left = [word for word in words if word.lower() not in _WORDS and length_of(word) is None]
            if len(left) > 1:
                raise UnusableFile(f"does not say which coin it is of; --map {part}=COIN does, for this file")
            if left:
                return left[0]
        raise UnusableFile("has no column of coins (coin, symbol, ...), and is not named after one")

    def _rows(
        self, path: Path, frame: pd.DataFrame, layout: Layout, dates: pd.DatetimeIndex, values: dict[str, Floats]
    ) -> list[HourlyRows]:
        """The hourly rows of one coin."""
        factors = {**layout.factors, **self.options.factors}
        values = {name: column * factors.get(name, 1.0) for name, column in values.items()}
        rows = []
        stamps = snapped(dates)
        if FUNDING in values:
            funding = values.pop(FUNDING)
            if values and CLOSE not in values and not on_the_hour(stamps):
                self.counts[
                    "columns of funding left out: a stream of instants has the estimate, not what was paid"
                ] += 1
            else:
                present = ~np.isnan(funding)
                if present.any():
                    rows.append(checked_funding(funding_rows(stamps[present], funding[present])))
        if not values:
            return rows
        if "bid" in values and "ask" in values and not values.keys() & {CLOSE, "mid"}:
            bid, ask = values["bid"], values["ask"]
            values["mid"] = np.where((bid > 0) & (ask >= bid), (bid + ask) / 2, np.nan)
            self.counts["records whose mid is half of bid plus ask"] += len(dates)
        price = CLOSE if CLOSE in values else "mid" if "mid" in values and len(values) == 1 else ""
        if price:
            present = ~np.isnan(values[price])
            self.counts["rows without a price left out"] += int((~present).sum())
            stamps = stamps[present]
            values = {name: column[present] for name, column in values.items()}
        if not len(stamps):
            raise UnusableFile("has no price")
        if CLOSE not in values and not on_the_hour(stamps):
            instants, stale = instant_rows(stamps, self._usable(values), layout.opens)
            self.counts["rows of records over 5 minutes old (prices, not quotes)"] += stale
            return [*rows, instants]
        return [*rows, self._candles(path, frame, layout, stamps, values)]

    def _candles(
        self, path: Path, frame: pd.DataFrame, layout: Layout, dates: pd.DatetimeIndex, values: dict[str, Floats]
    ) -> HourlyRows:
        length = self._length(path, frame, layout, dates)
        self.lengths[show_length(length)] += 1
        if layout.opens is None:
            raise UnusableFile(
                f"does not say whether {layout.time} is when a candle opens or when it closes: --stamp open or --stamp "
                "close does"
            )
        opens = dates if layout.opens else dates - length
        finished = ~running(opens, length, path, self.now)
        self.counts["candles that were not finished left out"] += int((~finished).sum())
        if not finished.any():
            raise UnusableFile("has no finished candle")
        values = {name: column[finished] for name, column in values.items()}
        price = CLOSE if CLOSE in values else "mid"
        close = values.pop(price, None)
        # Their prices and volumes are checked as those of candles.
        own: dict[str, Floats] = {name: values.pop(name) for name in ("high", "low", "volume_usd") if name in values}
        values = {**own, **self._usable(values)}
        if close is not None:
            return candle_rows(opens[finished], {CLOSE: close, **values}, length)
        # Fields of an instant, hour by hour, without a price.
        rows = candle_rows(opens[finished], {CLOSE: np.ones(finished.sum()), **values}, length)
        return HourlyRows(rows.hours, {name: column for name, column in rows.fields.items() if name != "mid"})

    def _usable(self, values: Mapping[str, Floats]) -> dict[str, Floats]:
        """Values of instants without those that are none, as in the archive."""
        kept = dict(values)
        for name in kept.keys() & FIELDS.keys():
            kept[name], bad = usable(name, kept[name])
            self.counts["values that are no price (0 or less) left out"] += bad
        return kept

    def _length(self, path: Path, frame: pd.DataFrame, layout: Layout, dates: pd.DatetimeIndex) -> pd.Timedelta:
        """Length of the candles of a coin."""
        told = self.options.timeframe
        if told is None and TIMEFRAME in layout.extra:
            kinds = frame[layout.extra[TIMEFRAME]].astype(str).unique()
            if len(kinds) > 1:
                raise UnusableFile(f"has candles of {join_first(kinds)} in one table; --map cannot part them")
            told = kinds[0]
        if told is not None and (length := length_of(told)) is not None:
            if HOUR % length != pd.Timedelta(0):
                raise LongCandles(f"has candles of {told}; an hour or a part of it is needed")
            return length
        steps = np.diff(dates.asi8)
        if not len(steps):
            return HOUR
        sizes, counts = np.unique(steps[steps > 0], return_counts=True)
        length = pd.Timedelta(int(sizes[np.argmax(counts)]), unit="ns") if len(sizes) else HOUR
        if HOUR % length != pd.Timedelta(0):
            cure = ". Where these are hourly candles with holes, --timeframe 1h says so"
            raise LongCandles(
                f"has a row every {show_length(length)}; rows of an hour, or of a part of it, are needed"
                f"{cure if length < pd.Timedelta(days=1) else ''}"
            )
        return length

    def _add(self, coin: str, name: str, parts: Sequence[HourlyRows]) -> None:
        for rows in parts:
            self.impossible += rows.impossible_prices(coin)
            if not len(rows.hours):
                continue
            fields = {field: values for field, values in rows.fields.items() if not np.isnan(values).all()}
            self.tables.append(to_table([coin], np.zeros(len(rows.hours), dtype=np.int64), rows.hours, fields))
            self.coins.setdefault(coin, set()).add(name)
            self.rows += len(rows.hours)
            self.counts.update(incomplete=rows.incomplete, dropped=rows.dropped)
            first, last = int(rows.hours[0]), int(rows.hours[-1])
            self.span = (min(first, self.span[0]), max(last, self.span[1])) if self.span else (first, last)
            if len(self.sample) < 6:
                for line in range(min(2, len(rows.hours))):
                    values = {field: float(column[line]) for field, column in fields.items()}
                    self.sample.append({"time": show(instant_of(int(rows.hours[line]))), "coin": coin, **values})

    def _describe(self, layout: Layout, unit: str) -> None:
        stamp = {True: "when it opens", False: "when it closes", None: "of an instant or a settlement"}[layout.opens]
        if layout.wide is not None:
            form, fields = f"wide, a column a coin, of {layout.wide}", f"{len(layout.fields)} coins"
        else:
            form = "a coin a file" if layout.coin is None else f"long, coins in {layout.coin}"
            stored = {CLOSE: "mid", OPEN: "only checked", "volume": "volume_usd (in coins, times the close)"}
            fields = ", ".join(f"{column} is {stored.get(name, name)}" for name, column in layout.fields.items())
            for name, factor in {**layout.factors, **self.options.factors}.items():
                fields += f", {name} times {factor:g}" if name in layout.fields else ""
        ignored = f"; ignored: {', '.join(layout.ignored)}" if layout.ignored else ""
        self.layouts[f"{form}; {layout.time} ({unit}) stamps a row {stamp}; {fields}{ignored}"] += 1

    def notes(self) -> list[str]:
        """What was understood that a user may want to contradict, and what was left out."""
        lines = [f"Understood, {count} files: {text}." for text, count in self.layouts.items()]
        lines += [f"Rows every {length}: {count} coins." for length, count in self.lengths.items()]
        lines += self.names.notes()
        lines += short_notes(self.counts.pop("incomplete", 0), self.counts.pop("dropped", 0))
        lines += [f"{count:,} {what}." for what, count in self.counts.items() if count]
        if longer := [str(item) for coin, item in self.long if coin in self.coins]:
            lines.append(f"Ignored, {len(longer)} of coins that have shorter candles, too: {join_first(longer, 3)}.")
        if self.ignored:
            lines.append(f"Ignored, {len(self.ignored)} files that are no tables: {join_first(self.ignored)}.")
        return lines

    def understood(self) -> dict[str, Any]:
        """JSON-ready: layouts with their number of files, coins by the names of the files, the span, first rows."""
        first, last = self.span or (0, 0)
        return {
            "layouts": dict(self.layouts),
            "every": dict(self.lengths),
            "coins": {name: coin for coin, names in sorted(self.coins.items()) for name in sorted(names)},
            "first": show(instant_of(first)),
            "last": show(instant_of(last)),
            "sample": self.sample,
        }
