"""The sources of a cache put over each other: of a cell that several have, the value of the most trusted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby

import numpy as np

from engine.coin import dex_of
from engine.data import funding
from engine.data.cache import Store
from engine.data.coin_names import dexes_of
from engine.data.hourly_file import HourlyFile
from engine.data.manifest import FileEntry, Manifest
from engine.data.merge import PROVISIONAL, rank
from engine.data.schema import Flags, Floats, hour_number
from engine.panel import FIELDS, QUOTES, two_sided

#: Fields that show whether a coin could be traded.
EVIDENCE = ("volume_usd", *(name for pair in QUOTES for name in pair))


def read_fields(
    store: Store,
    manifest: Manifest,
    first: int,
    length: int,
    coins: Sequence[str],
    *,
    names: Collection[str] = tuple(FIELDS),
    without: Collection[tuple[str, str]] = (),
) -> tuple[dict[str, Floats], dict[str, Flags]]:
    """Read fields of some coins, by the precedence of sources.

    Parameters
    ----------
    store : Store
        The cache.
    manifest : Manifest
        Its state.
    first, length : int
        The range: its first hour number, and T, its hours.
    coins : sequence of str, length N
        Columns, in this order.
    names : collection of str
        Fields to read; one that no file of the range has is left out.
    without : collection of (str, str)
        (field, source) not to read.

    Returns
    -------
    fields : dict of str to ndarray, each (T, N)
        NaN where no source has a value. Of `funding`, rates in the unit of the hour, with
        :func:`engine.data.funding.complete`.
    observed : dict of str to ndarray, each (T,) bool
        By dex, rows in which any coin of it has volume or quotes, or of which a source of quotes has anything of it,
        where that cannot be seen from `fields`: it must not depend on the coins that are read.

    Raises
    ------
    CacheFileError
        When a file is missing or changed.
    """
    wanted, beyond = length, funding.hours_beyond(first + length - 1) if "funding" in names else 0
    length += beyond
    entries = [
        entry
        for entry in manifest.files.values()
        if hour_number(entry.first) < first + length and hour_number(entry.last) >= first
    ]
    pairs = {(name, entry.source) for entry in entries for name in entry.fields if name in names} - {*without}
    present = {name for name, _ in pairs}
    fields = {name: np.empty((length, len(coins))) for name in FIELDS if name in present}
    estimates = {name: np.full((length, len(coins)), np.nan) for name, _ in PROVISIONAL & pairs}
    observed = {dex: np.zeros(length, dtype=np.bool_) for dex in dexes_of(coins)}
    _fill_months(store, entries, pairs, first, coins, fields, estimates, observed, length)
    if "funding" in fields:
        funding.complete(fields["funding"], estimates.get("funding"), first, coins, manifest)
    if beyond:
        fields = {name: values[:wanted] for name, values in fields.items()}
    # Row by row, to stop at the first value.
    seen = {name for name, field in fields.items() if any(not np.isnan(row).all() for row in field)}
    return {name: values for name, values in fields.items() if name in seen}, {
        dex: rows[:wanted] for dex, rows in observed.items()
    }


def _fill_months(
    store: Store,
    entries: Sequence[FileEntry],
    pairs: Collection[tuple[str, str]],
    first: int,
    coins: Sequence[str],
    fields: Mapping[str, Floats],
    estimates: Mapping[str, Floats],
    observed: Mapping[str, Flags],
    length: int,
) -> None:
    """Fill arrays, (T, N) each and empty, from the files of `entries`, and mark the rows `observed`, (T,) a dex."""
    lacking = np.ones(length, dtype=np.bool_)
    column_of = {name: column for column, name in enumerate(coins)}
    for _, month in groupby(entries, key=lambda entry: entry.month):
        layers = [_Layer(store.open(entry), first, length, column_of) for entry in month]
        begin, end = min(layer.begin for layer in layers), max(layer.end for layer in layers)
        lacking[begin:end] = False
        by_rank = {name: _by_rank(name, layers, pairs) for name in fields}
        for layer in layers:
            layer.place(begin, end)
            # Together, what is surely needed: that of which the layer has the most trusted values.
            layer.read([name for name, own in by_rank.items() if own[:1] == [layer]])
            layer.note_observed(observed)
        for name, own in by_rank.items():
            _fill_month(name, own, fields[name][begin:end], estimates.get(name, fields[name])[begin:end])
    for field in fields.values():
        field[lacking] = np.nan


def _by_rank(name: str, layers: Sequence[_Layer], pairs: Collection[tuple[str, str]]) -> list[_Layer]:
    """The layers from which a field is taken, the most trusted first."""
    own = (layer for layer in layers if name in layer.fields and (name, layer.source) in pairs)
    return sorted(own, key=lambda layer: rank(name, layer.source), reverse=True)


def _fill_month(name: str, own: Sequence[_Layer], field: Floats, estimates: Floats) -> None:
    """Put a field of a month into `field`, (H, N), the most trusted layer first; what is provisional into `estimates`.

    Rows of a file are coin by coin, so they are put into a block of that order, which is turned as a whole.
    """
    block = np.full(field.shape[::-1], np.nan)
    flat = block.reshape(-1)
    for number, layer in enumerate(own):
        if (name, layer.source) in PROVISIONAL:
            lower = np.full(block.shape, np.nan)
            layer.fill(name, flat, lower.reshape(-1), below=number > 0)
            estimates[:] = lower.T
        else:
            layer.fill(name, flat, flat, below=number > 0)
    for layer in own if name == "mid" else ():
        layer.fill_unquoted(flat)
    field[:] = block.T


class _Layer:
    """A file of the cache, and the cells of a month's block (N, H) that its rows are."""

    def __init__(self, file: HourlyFile, first: int, length: int, column_of: Mapping[str, int]) -> None:
        self.file, self.source, self.fields = file, file.entry.source, file.entry.fields
        self.values: dict[str, Floats] = {}
        self.quotes = [name for pair in QUOTES if set(pair) <= set(self.fields) for name in pair]
        #: Prices of a source of quotes that have no quote beside them: of a stale record, or of a thin book.
        self.unquoted: Floats | None = None
        self.columns = np.array([column_of.get(name, -1) for name in file.coins], dtype=np.int64)[file.codes]
        self.lines = file.hours - first
        self.inside = (self.lines >= 0) & (self.lines < length)
        kept = self.inside & (self.columns >= 0)
        self.kept = None if kept.all() else kept
        # Rows of the panel that the file has, the last one excluded.
        self.begin, self.end = max(int(self.lines.min()), 0), min(int(self.lines.max()) + 1, length)

    def place(self, begin: int, end: int) -> None:
        """Number the cells of a block of the rows `begin` to `end`."""
        cells = self.columns * (end - begin) + self.lines - begin
        self.cells = cells if self.kept is None else cells[self.kept]

    def read(self, names: Sequence[str]) -> None:
        """Read those of the fields that were not read yet."""
        new = [name for name in names if name not in self.values]
        if "mid" in new:
            new += [name for name in self.quotes if name not in {*new, *self.values}]
        if new:
            self.values.update(self.file.read(new))
            if "funding" in new:
                self.values["funding"] = funding.hourly_rates(self.values["funding"], self.file.hours, self.source)
        if "mid" in new and self.quotes:
            mid, quoted = self.values["mid"], two_sided(self.values, self.lines.shape)
            if not (quoted | np.isnan(mid)).all():
                self.values["mid"], self.unquoted = np.where(quoted, mid, np.nan), np.where(quoted, np.nan, mid)

    def note_observed(self, observed: Mapping[str, Flags]) -> None:
        """Mark rows in which coins that are not read have volume or quotes, or that a source of quotes has at all.

        A coin says nothing of the rows of another dex: dexes are synced, and halted, each for itself.
        """
        dexes = np.array([dex_of(name) for name in self.file.coins])
        for dex, rows in observed.items():
            inside = self.inside if (dexes == dex).all() else self.inside & (dexes == dex)[self.file.codes]
            if self.quotes:
                rows[self.lines[inside]] = True
            elif self.kept is not None and (inside & (self.columns < 0)).any():
                self.read([name for name in EVIDENCE if name in self.fields])
                seen = two_sided(self.values, self.lines.shape)
                if "volume_usd" in self.values:
                    seen |= ~np.isnan(self.values["volume_usd"])
                rows[self.lines[inside & seen]] = True

    def fill_unquoted(self, field: Floats) -> None:
        """Put prices without a quote beside them where no source has another price."""
        if self.unquoted is not None:
            values = self.unquoted if self.kept is None else self.unquoted[self.kept]
            empty = np.isnan(field[self.cells])
            field[self.cells[empty]] = values[empty]

    def fill(self, name: str, field: Floats, into: Floats, below: bool) -> None:
        """Put the values of a field `into` a flat array; `below` only where the flat `field` has none yet."""
        cells, wanted = self.cells, None
        if below:
            wanted = np.isnan(field[cells])
            if not wanted.any():
                return
            cells = cells[wanted]
        self.read([name])
        values = self.values[name]
        values = values if self.kept is None else values[self.kept]
        into[cells] = values if wanted is None else values[wanted]
