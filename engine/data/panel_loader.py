"""From the cache to a :class:`~engine.panel.Panel`: for research up to the sealed holdout, for an account all of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from logging import getLogger
from pathlib import Path

import numpy as np
import pandas as pd

from engine.clock import hourly_index, parse_instant, show
from engine.coin import Coin
from engine.data.cache import Store
from engine.data.coin_names import MAIN_DEX, dexes_of, select_coins
from engine.data.holdout import Holdout, read_holdout, stricter
from engine.data.layers import read_fields
from engine.data.manifest import Manifest
from engine.data.schema import Flags, Floats, hour_number
from engine.data.sessions import in_session, with_sessions
from engine.errors import DataError, did_you_mean, join_first
from engine.panel import Panel, tradable_rule, two_sided

#: Calendars of coins, and whether they are tradable within their hours alone.
Hours = tuple[Mapping[str, str], bool]
ANY_HOUR: Hours = ({}, False)
Instant = str | date | datetime | pd.Timestamp


def cache_path(cache: str | Path | None = None) -> Path:
    """The cache's folder: `cache`, else ``HLBT_DATA_CACHE``, else ``data_cache``."""
    return Path(cache if cache is not None else os.environ.get("HLBT_DATA_CACHE") or "data_cache")


def load_panel(
    cache: str | Path | None = None,
    start: Instant | None = None,
    end: Instant | None = None,
    coins: Sequence[str] | None = None,
    hours: Hours = ANY_HOUR,
) -> Panel:
    """Read a panel from the cache, up to its sealed holdout, if it has one.

    Parameters
    ----------
    cache : path, optional
        Folder of the cache; default ``HLBT_DATA_CACHE``, else ``data_cache``.
    start, end : str or Timestamp, optional
        First and last row, both inclusive; a bare date is its 00:00 UTC. The panel covers the part of that range for
        which the cache has prices. Default: all of it.
    coins : sequence of str, optional
        Columns, in this order: names (``BTC``, ``xyz:TSLA``), and patterns of one dex (``xyz:*``), which are every
        coin of the dex with a price in the range, ascending. Default: ``*``, the main dex.
    hours : (mapping of str to str, bool)
        Calendar of coins by name or pattern, over that of the coin table; and whether coins are tradable within their
        hours alone (``data.sessions`` and ``data.in_session_only``).

    Returns
    -------
    Panel
        Fields that no source has in the range are absent. `tradable` knows a listing that lies before `start`;
        `Coin.delisted` is set only where the delisting lies before the panel's last row, `Coin.listed` where the
        listing does not lie after it. Its `notes` say where the
        holdout was left out, and so does a warning of the logger ``hlbt``.

    Raises
    ------
    DataError
        For an absent or damaged cache, an empty range or one that is sealed, a broken seal, an unknown coin.
    ConfigError
        For an instant that cannot be read.
    """
    panel = load_open_panel(cache, start, end, coins, hours=hours)
    for note in panel.notes:
        getLogger("hlbt").warning("hlbt: %s", note)
    return panel


def load_open_panel(
    cache: str | Path | None = None,
    start: Instant | None = None,
    end: Instant | None = None,
    coins: Sequence[str] | None = None,
    ledger: Holdout | None = None,
    hours: Hours = ANY_HOUR,
) -> Panel:
    """:func:`load_panel` for a caller that shows the notes itself, and knows the holdout of the ledger of trials.

    Parameters
    ----------
    cache, start, end, coins : object
        As in :func:`load_panel`.
    ledger : Holdout, optional
        What the ledger of trials says is sealed: it holds for a cache that was copied without its seal, or made anew.
    hours : object
        As in :func:`load_panel`.
    """
    store = Store(cache_path(cache))
    own = read_holdout(store.path)
    if ledger is not None and (manifest := store.manifest()) is not None and manifest.synthetic != ledger.synthetic:
        ledger = None
    holdout = stricter(own, ledger)
    if holdout is None:
        return load_whole_panel(cache, start, end, coins, hours)
    sealed = f"The days from {show(holdout.start)} on are sealed as a holdout"
    cure = (
        "They are spent; seal later ones to go on."
        if holdout.openings
        else "`hlbt study open --candidate RUN` runs one candidate on them, once."
    )
    manifest = store.require()
    first = None if start is None else parse_instant(start, "start")
    last = None if end is None else parse_instant(end, "end")
    span = store.price_span(manifest, dexes_of(_wanted(coins)))
    begin = span[0] if first is None else max(first, span[0])
    if begin > holdout.last_open:
        raise DataError(f"{sealed}, and the range begins at {show(begin)}. Begin before; {cure}")
    hidden = min(last or span[1], span[1]) > holdout.last_open
    panel = load_whole_panel(cache, start, min(last or holdout.last_open, holdout.last_open), coins, hours)
    notes = (f"{sealed}: the data end before them. {cure}",) if hidden else ()
    return replace(panel, notes=(*panel.notes, *notes, *holdout.marks))


def load_whole_panel(
    cache: str | Path | None = None,
    start: Instant | None = None,
    end: Instant | None = None,
    coins: Sequence[str] | None = None,
    hours: Hours = ANY_HOUR,
) -> Panel:
    """A panel with the sealed days: for accounts, which trade them, and for the one run that opens a holdout.

    Parameters and errors are those of :func:`load_panel`. No research calls it.
    """
    first = None if start is None else parse_instant(start, "start")
    last = None if end is None else parse_instant(end, "end")
    if first is not None and last is not None and first > last:
        raise DataError(f"The range is empty: start {show(first)} lies after end {show(last)}.")
    store = Store(cache_path(cache))
    return store.consistent(lambda manifest: _panel(store, manifest, first, last, coins, hours))


def _panel(
    store: Store,
    manifest: Manifest,
    start: pd.Timestamp | None,
    end: pd.Timestamp | None,
    coins: Sequence[str] | None,
    hours: Hours,
) -> Panel:
    wanted = _wanted(coins)
    span = store.price_span(manifest, dexes_of(wanted))
    first = span[0] if start is None else max(start, span[0])
    last = span[1] if end is None else min(end, span[1])
    if first > last:
        raise DataError(
            f"The cache {store.path} has nothing from {show(start or span[0])} to {show(end or span[1])}: "
            f"its prices run from {show(span[0])} to {show(span[1])}."
        )
    names, optional = _select(store, manifest, wanted, first, last)
    index = hourly_index(first, last)
    fields, observed = read_fields(store, manifest, hour_number(first), len(index), names)
    if "mid" not in fields:
        raise DataError(
            f"No price of {join_first(names)} from {show(first)} to {show(last)} in the cache {store.path}, whose "
            f"prices run from {show(span[0])} to {show(span[1])}."
        )
    if optional:
        priced: Flags = ~np.isnan(fields["mid"]).all(axis=0) | ~np.isin(names, list(optional))
        if not priced.all():
            names = [name for name, kept in zip(names, priced, strict=True) if kept]
            fields = {name: np.ascontiguousarray(values[:, priced]) for name, values in fields.items()}
    table = _with_halts(with_sessions(manifest.table(names), hours[0]), manifest, index, fields)
    tradable = tradable_rule(index, fields, table, observed)
    if (opened := in_session(index, table)) is not None:
        fields["in_session"] = opened
        tradable &= (opened > 0.0) | (not hours[1])
    known = tuple(coin.as_of(last, terms=False) for coin in table)
    synthetic, notes = manifest.synthetic, manifest.notes(names)
    return Panel(index, tuple(names), fields, tradable, known, synthetic, notes=notes)


def _with_halts(
    table: Sequence[Coin], manifest: Manifest, index: pd.DatetimeIndex, fields: dict[str, Floats]
) -> tuple[Coin, ...]:
    """The coins with the halts between their lives, in whose hours `fields` are NaN from here on.

    A halt lasts from the last hour with a market before the first ``meta`` response that lists the coin as delisted, to
    the first one after it: what sources have between them (a mark, candles without a trade) is no market.
    """
    coins = []
    for column, coin in enumerate(table):
        halts = []
        for gone, _ in manifest.coins[coin.name].halts:
            market = np.flatnonzero(_market(fields, column))
            seen = int(index.searchsorted(gone, side="right"))
            last = int(market[market < seen][-1]) if (market < seen).any() else -1
            back = int(market[market >= seen][0]) if (market >= seen).any() else len(index)
            for values in fields.values():
                values[last + 1 : back, column] = np.nan
            if last >= 0 and back < len(index):
                halts.append((index[last], index[back]))
        coins.append(replace(coin, halts=tuple(halts)) if halts else coin)
    return tuple(coins)


def _market(fields: Mapping[str, Floats], column: int) -> Flags:
    """Hours with a price of a coin, and with volume or quotes where any are known of it, (T,)."""
    own = {name: values[:, column] for name, values in fields.items()}
    evidence: Flags = two_sided(own, own["mid"].shape) | (own.get("volume_usd", np.zeros(1)) > 0)
    return ~np.isnan(own["mid"]) & (evidence | (not evidence.any()))


def _wanted(coins: Sequence[str] | None) -> tuple[str, ...]:
    """Names and patterns of coins."""
    if coins is not None and not coins:
        raise DataError("The list of coins is empty. Name at least one coin, or give no list for all of them.")
    return MAIN_DEX if coins is None else (coins,) if isinstance(coins, str) else tuple(coins)


def _select(
    store: Store, manifest: Manifest, wanted: Sequence[str], first: pd.Timestamp, last: pd.Timestamp
) -> tuple[list[str], set[str]]:
    """Coins to read, those of patterns with a price in or around the range, and which of them patterns alone name."""
    spans = {
        name: (record.first_price, record.last_price)
        for name, record in manifest.coins.items()
        if record.first_price is not None and record.last_price is not None
    }
    if len(set(wanted)) < len(wanted):
        twice = dict.fromkeys(name for name in wanted if wanted.count(name) > 1)
        raise DataError(f"The list of coins names some twice; repeated: {join_first(twice)}.")
    names, unknown = select_coins(wanted, spans)
    if unknown:
        lacks = "has no price of" if unknown[0] in manifest.coins else "does not know"
        raise DataError(
            f"The cache {store.path} {lacks} {join_first(unknown)}.{did_you_mean(unknown[0], spans)} It has prices of "
            f"{len(spans)} coins: {join_first(spans)}. Names are HyperLiquid's own, case-sensitive."
        )
    optional = {name for name in names if name not in wanted}
    return [
        name for name in names if name not in optional or (spans[name][0] <= last and spans[name][1] >= first)
    ], optional
