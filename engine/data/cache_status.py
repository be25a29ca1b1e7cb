"""The content of a cache: coverage, gaps, listings, delistings, possible renames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from engine.clock import iso_minute
from engine.coin import dex_of
from engine.data.cache import Store
from engine.data.layers import read_fields
from engine.data.manifest import FileEntry, Manifest
from engine.data.price_checks import odd_moves
from engine.data.s3_archive import short_objects
from engine.data.schema import (
    Flags,
    Floats,
    Integers,
    hour_number,
    instant_of,
    month_key,
    month_number,
    month_start,
    months_of,
)
from engine.panel import FIELDS


def status(store: Store) -> dict[str, Any]:
    """Describe a cache as a JSON-ready dict.

    Returns
    -------
    dict
        ``path``, ``synthetic``, ``start``, ``end`` (first and last priced row), ``rows``, ``coins``,
        ``fields``, ``bytes``; ``months``, from the first to the last without a gap, each with ``coverage``:
        per field, the part of (hours x listed coins) that holds a value; ``table``, a coin each: first and last
        price, listing, delisting, ``missing_hours`` between first and last price, ``zero_volume_hours`` since
        the listing, ``unlisted_hours`` with a price before it; ``gaps`` (coin, first and last missing row,
        hours) and ``funding_gaps``, the same of hours without a rate, from the listing to the last price;
        ``odd_moves``, prices that may be wrong (coin, from, to, kind, ratio:
        :func:`engine.data.price_checks.odd_moves`); ``short_objects``, objects of the archive that end early
        (key, minute of the last record, row with which a whole one ends, rows up to it without any price);
        ``listings`` after `start` and ``delistings``, by time; ``renames``, a coin that went and one that came
        within a week at nearly its price (a hint: to the engine they are two coins); ``timeline``, per coin and
        month the part of the hours between its first and last price that have one.
        Instants are ISO strings.

    Raises
    ------
    DataError
        For a cache that is empty or damaged.
    """
    return store.consistent(lambda manifest: _status(store, manifest))


def _status(store: Store, manifest: Manifest) -> dict[str, Any]:
    span = store.price_span(manifest)
    names = sorted(manifest.coins)
    start, end = hour_number(span[0]), hour_number(span[1])
    mids = np.full((len(names), end - start + 1), np.nan)
    still, rated = (np.zeros(mids.shape, dtype=np.bool_) for _ in range(2))
    listed, gone = _listed(manifest, names, start, end)
    ends = np.full((2, len(names)), np.nan)
    months: list[dict[str, Any]] = []
    held: dict[str, list[FileEntry]] = defaultdict(list)
    for entry in manifest.files.values():
        held[entry.month].append(entry)
    rows = 0
    for month in range(month_number(min(held)), month_number(max(held)) + 1):
        first, length = month_start(month), month_start(month + 1) - month_start(month)
        columns = np.arange(max(first, start), min(first + length, end + 1)) - start
        fields, _ = read_fields(store, manifest, first, length, names)
        fields = {name: values.T for name, values in fields.items()}
        inside = {name: values[:, columns + start - first] for name, values in fields.items()}
        if "mid" in fields:
            mids[:, columns] = inside["mid"]
            _note_ends(ends, fields["mid"])
        if "funding" in fields:
            rated[:, columns] = ~np.isnan(inside["funding"])
        if "volume_usd" in fields:
            still[:, columns] = inside["volume_usd"] == 0
        market = (columns + start >= listed[:, None]) & (columns + start <= gone[:, None])
        seen = np.any([~np.isnan(values) for values in fields.values()], axis=0) if fields else np.zeros(0, np.bool_)
        rows += int(seen.sum())
        months.append(_month(month_key(month), held.get(month_key(month), []), inside, market, seen))
    hours, priced = np.arange(start, end + 1), ~np.isnan(mids)
    between = _between(priced)
    main: Flags = np.asarray(priced[[not dex_of(name) for name in names]].any(axis=0), dtype=np.bool_)
    table = _table(manifest, names, priced, still, hours >= listed[:, None])
    return {
        "path": str(store.path),
        "synthetic": manifest.synthetic,
        "start": _iso(span[0]),
        "end": _iso(span[1]),
        "rows": rows,
        "coins": int(priced.any(axis=1).sum()),
        "fields": [name for name in FIELDS if any(name in entry.fields for entry in manifest.files.values())],
        "bytes": sum(entry.bytes for entry in manifest.entries if isinstance(entry, FileEntry)),
        "months": months,
        "table": table,
        "gaps": _gaps(names, between & ~priced, start),
        "funding_gaps": _gaps(names, between & (hours >= listed[:, None]) & ~rated, start),
        "short_objects": [
            {
                **item,
                "hours_without_price": _unpriced(item, main, start),
            }
            for item in short_objects(store.read_objects().values())
        ],
        "odd_moves": _odd_moves(names, np.where(hours < listed[:, None], np.nan, mids), start),
        "listings": _events(table, "listed", span[0]),
        "delistings": _events(table, "delisted", span[0]),
        "renames": _renames(table, ends),
        "timeline": _timeline(names, [month["month"] for month in months], priced, start),
    }


def _odd_moves(names: list[str], mids: Floats, start: int) -> list[dict[str, Any]]:
    """Moves of prices (N, hours) that may be errors."""
    return [
        {
            "coin": names[move.column],
            "from": _iso(instant_of(start + move.before)),
            "to": _iso(instant_of(start + move.row)),
            "kind": move.kind,
            "ratio": move.ratio,
        }
        for move in odd_moves(mids.T)
    ]


def _unpriced(item: dict[str, str], priced: Flags, start: int) -> int:
    """Rows after the last record of a short object, to its end, at which no coin has a price."""
    first, end = hour_number(pd.Timestamp(item["last"])) + 1, hour_number(pd.Timestamp(item["end"]))
    hours = np.arange(first, end + 1) - start
    inside = (hours >= 0) & (hours < len(priced))
    return int((~inside).sum()) + int((~priced[hours[inside]]).sum())


def _note_ends(ends: Floats, mid: Floats) -> None:
    """Keep the first and replace the last price of every coin; `ends` is (2, N), `mid` (N, H), months in order."""
    seen = ~np.isnan(mid)
    lines = np.flatnonzero(seen.any(axis=1))
    first = mid[lines, seen[lines].argmax(axis=1)]
    ends[0, lines] = np.where(np.isnan(ends[0, lines]), first, ends[0, lines])
    ends[1, lines] = mid[lines, mid.shape[1] - 1 - seen[lines][:, ::-1].argmax(axis=1)]


def _renames(table: list[dict[str, Any]], ends: Floats) -> list[dict[str, Any]]:
    """Pairs of a delisted coin and one listed within a week of it, at a price at most 5 % away."""
    renames = []
    for old, before in enumerate(table):
        for new, after in enumerate(table):
            if before["delisted"] is None or after["first_price"] is None or old == new:
                continue
            if dex_of(before["coin"]) != dex_of(after["coin"]):
                continue
            pause = pd.Timestamp(after["first_price"]) - pd.Timestamp(before["delisted"])
            ratio = float(ends[0, new] / ends[1, old])
            if abs(pause) <= pd.Timedelta(days=7) and abs(ratio - 1) <= 0.05:
                pair = {"from": before["coin"], "to": after["coin"]}
                renames.append({**pair, "time": after["first_price"], "ratio": ratio})
    return renames


def _timeline(names: list[str], months: list[str], priced: Flags, start: int) -> dict[str, Any]:
    """Part of a month's hours between a coin's first and last price that have one; None where there are no such."""
    month = months_of(np.arange(start, start + priced.shape[1]))
    between = _between(priced)
    shares = []
    for key in months:
        inside = month == month_number(key)
        hours = between[:, inside].sum(axis=1)
        shares.append(np.where(hours > 0, priced[:, inside].sum(axis=1) / np.maximum(hours, 1), np.nan))
    rows = np.array(shares).T
    return {
        "months": months,
        "coins": {
            name: [None if np.isnan(share) else round(float(share), 4) for share in row]
            for name, row in zip(names, rows, strict=True)
        },
    }


def _between(priced: Flags) -> Flags:
    """Hours from a coin's first price to its last, (N, T)."""
    seen = np.cumsum(priced, axis=1)
    return np.asarray((seen > 0) & ((seen < seen[:, -1:]) | priced), dtype=np.bool_)


def _listed(manifest: Manifest, names: list[str], start: int, end: int) -> tuple[Integers, Integers]:
    """First and last hour number at which each coin is a market, (N,) each; a coin without data never is."""
    first = np.full(len(names), end + 1, dtype=np.int64)
    last = np.full(len(names), start - 1, dtype=np.int64)
    coins = {coin.name: coin for coin in manifest.table()}
    for line, name in enumerate(names):
        coin = coins[name]
        if coin.listed is not None:
            first[line] = hour_number(coin.listed)
            last[line] = end if coin.delisted is None else hour_number(coin.delisted)
    return first, last


def _month(
    key: str, entries: list[FileEntry], fields: Mapping[str, Floats], market: Flags, seen: Flags
) -> dict[str, Any]:
    """A month of the status; one without a file is listed, too."""
    cells = max(int(market.sum()), 1)
    return {
        "month": key,
        "rows": int(seen.sum()),
        "coins": int(seen.any(axis=-1).sum()),
        "bytes": sum({entry.name: entry.bytes for entry in entries}.values()),
        "first": _iso(min((entry.first for entry in entries), default=None)),
        "last": _iso(max((entry.last for entry in entries), default=None)),
        "coverage": {
            name: round(float((~np.isnan(values) & market).sum()) / cells, 6) for name, values in fields.items()
        },
        "sources": {name: sorted(entry.source for entry in entries if name in entry.fields) for name in fields},
    }


def _gaps(names: list[str], missing: Flags, start: int) -> list[dict[str, Any]]:
    """Runs of hours that are missing, (N, T), by coin and time."""
    edge = np.zeros((len(names), 1), dtype=np.int8)
    steps = np.diff(np.concatenate([edge, missing.astype(np.int8), edge], axis=1), axis=1)
    lines, begins = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    return [
        {
            "coin": names[line],
            "first": _iso(instant_of(start + int(begin))),
            "last": _iso(instant_of(start + int(end) - 1)),
            "hours": int(end - begin),
        }
        for line, begin, end in zip(lines, begins, ends, strict=True)
    ]


def _table(manifest: Manifest, names: list[str], priced: Flags, still: Flags, market: Flags) -> list[dict[str, Any]]:
    columns = np.arange(priced.shape[1])
    coins = {coin.name: coin for coin in manifest.table()}
    span = manifest.span()
    end = span[1] if span else None
    rows = []
    for line, name in enumerate(names):
        record = manifest.coins[name]
        coin = coins[name]
        seen = columns[priced[line]]
        rows.append(
            {
                "coin": name,
                "first_price": _iso(record.first_price),
                "last_price": _iso(record.last_price),
                "listed": _iso(coin.listed),
                # A coin that `meta` calls delisted, but that has prices to the very end, went after it.
                "delisted": _iso(coin.delisted) if coin.delisted != end else None,
                "missing_hours": int(seen[-1] - seen[0] + 1 - len(seen)) if len(seen) else 0,
                "zero_volume_hours": int((still[line] & priced[line] & market[line]).sum()),
                "unlisted_hours": int((priced[line] & ~market[line]).sum()),
                "sources": sorted(record.source_ends),
                "alive_from": _iso(record.alive_from),
                "alive_until": _iso(record.alive_until),
                "gone_by": _iso(record.delisting_seen_at),
                "sz_decimals": coin.sz_decimals,
                "max_leverage": coin.max_leverage,
                "collateral": coin.collateral,
                "margin_mode": record.margin_mode,
                "funding_multiplier": record.funding_multiplier,
                "fee_terms": [
                    {"seen": _iso(terms.seen), "scale": terms.scale, "growth": terms.growth} for terms in coin.fee_terms
                ],
                "sessions": coin.sessions,
                "halts": [[_iso(gone), _iso(back)] for gone, back in record.halts],
            }
        )
    return rows


def _events(table: list[dict[str, Any]], key: str, after: pd.Timestamp) -> list[dict[str, Any]]:
    """Coins with an instant under `key` later than `after`, by time."""
    # ISO strings of one form sort as the instants do.
    events = [{"coin": row["coin"], "time": row[key]} for row in table if (row[key] or "") > str(_iso(after))]
    return sorted(events, key=lambda event: (event["time"], event["coin"]))


def _iso(instant: pd.Timestamp | None) -> str | None:
    return None if instant is None else iso_minute(instant)
