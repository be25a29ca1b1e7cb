"""What a plan was made of, small enough for the journal: so that it can be made again, and a change of it named.

Positions, equity and prices are in the plan itself. Here are the rules of sizing, the row of live quotes as the oracle
read it, digests of code and config, and checksums of the cached hours of every field that was read: a coin's column,
every 24 hours, and each of the newest hours.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import numpy as np
import pandas as pd

from engine.clock import show
from engine.errors import OracleError, join_first
from engine.live.dex import DEX
from engine.live.orders import Market, Plan
from engine.live.planner import sizing_rules
from engine.live.targets import TargetProvider
from engine.oracles.loading import origin_of
from engine.panel import Panel
from engine.provenance import as_json, code_digest

#: Newest hours with a checksum each.
NEWEST_HOURS: Final = 336
#: Checksums of a part are of this type: 32 bits tell whether a column changed, 16 bits when.
_TYPES: Final[Mapping[str, str]] = {"coins": "<u4", "days": "<u2", "hours": "<u2"}


def plan_record(
    plan: Plan,
    targets: TargetProvider,
    dex: DEX,
    markets: Mapping[str, Market],
    seen: Panel | None,
    read: Iterable[str],
) -> dict[str, Any]:
    """What `plan` was made of, as plain values for its entry of the journal.

    Parameters
    ----------
    plan : Plan
    targets : TargetProvider
        Of the strategy.
    dex : DEX
        Its rules of sizing.
    markets : mapping of coin to Market
        The coins that could be traded.
    seen : Panel or None
        What the oracle saw, perhaps with a row of live quotes.
    read : iterable of str
        Fields that were read for the weights.

    Returns
    -------
    dict
        Those of :func:`digests_of`, ``closes_all``, ``decisions_from``, ``universe`` (coins with a quote), ``markets``
        (mid in USD and size decimals of coins weighted or held), ``rules`` (of sizing) and ``panel`` (None where no
        market data were read).
    """
    rules = sizing_rules(targets.execution, dex)
    concerned = sorted(markets.keys() & (plan.weights.keys() | plan.positions.keys()))
    return {
        **digests_of(targets),
        "closes_all": targets.closes_all,
        "decisions_from": None if targets.decisions_from is None else targets.decisions_from.isoformat(),
        "universe": list(markets),
        "markets": {coin: [markets[coin].mid, markets[coin].sz_decimals] for coin in concerned},
        "rules": {
            "lots": rules.lots,
            "min_notional_usd": rules.min_notional_usd,
            "no_trade_band_frac": rules.no_trade_band_frac,
            "no_trade_band": rules.no_trade_band,
            "no_trade_band_coins": [list(width) for width in rules.no_trade_band_coins],
            "trade_rate": rules.trade_rate,
            "untradable": rules.untradable,
        },
        "panel": None if seen is None else _panel_record(seen, plan, set(read)),
    }


def digests_of(targets: TargetProvider) -> dict[str, str | None]:
    """What weights are made by: ``source`` (dotted path), and digests of ``oracle``, ``data``, ``engine``, ``config``.

    Digest of the oracle's code, the same with its data files, of this package's code, and of the config; the first two
    are None where its code cannot be known.
    """
    source, code, data = None, None, None
    with suppress(OracleError):  # code that was edited since it was imported: a plan is made all the same
        origin = origin_of(targets.oracle)[0]
        source, code, data = origin.path, origin.code, origin.digest
    return {"source": source, "oracle": code, "data": data, "engine": code_digest(), "config": targets.config.digest}


def _panel_record(seen: Panel, plan: Plan, read: set[str]) -> dict[str, Any]:
    quotes, known = seen.until(plan.instant), seen.until(plan.decision)
    names = sorted((read | {"mid"}) & known.fields.keys())
    row = None
    if known.live_rows:  # the oracle saw quotes that the cache did not have
        row = as_json({name: quotes.fields[name][-1].tolist() for name in names})
        known = known.until(known.index[-1 - known.live_rows])
    return {
        "first": known.index[0].isoformat(),
        "last": known.index[-1].isoformat(),
        "coins": list(known.coins),
        "row": row,
        "checksums": panel_checksums(known, names),
    }


def panel_checksums(panel: Panel, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Checksums of fields, of what is tradable and of the coin table.

    Returns
    -------
    dict of str to dict
        Field, ``tradable`` or ``table`` -> part -> base64: ``coins`` has one of each column, ``days`` of each 24 rows
        from the first, ``hours`` of each of the last :data:`NEWEST_HOURS` rows. The table has ``coins`` alone.
    """
    named = {**{name: panel.fields[name] for name in names}, "tradable": panel.tradable}
    sums = {name: {part: _text(part, found) for part, found in _sums(values).items()} for name, values in named.items()}
    return sums | {"table": {"coins": _text("coins", [zlib.crc32(repr(coin).encode()) for coin in panel.table])}}


def _sums(values: np.ndarray) -> dict[str, list[int]]:
    plain = np.array(values, order="C")
    if plain.dtype != np.bool_:
        plain[np.isnan(plain)] = np.nan  # of which there are many
    return {
        "coins": [zlib.crc32(column.data) for column in np.ascontiguousarray(plain.T)],
        "days": [zlib.crc32(plain[row : row + 24].data) for row in range(0, len(plain), 24)],
        "hours": [zlib.crc32(row.data) for row in plain[-NEWEST_HOURS:]],
    }


def _text(part: str, sums: list[int]) -> str:
    kind = np.dtype(_TYPES[part])
    values = np.array(sums, dtype=np.uint64) & np.uint64(np.iinfo(kind).max)
    return base64.b64encode(values.astype(kind).tobytes()).decode()


def differing(part: str, then: str, now: str) -> list[int]:
    """Places at which two texts of checksums of a part differ; all of the longer's end, where one is longer."""
    kind = np.dtype(_TYPES[part])
    old, new = (np.frombuffer(base64.b64decode(text), dtype=kind) for text in (then, now))
    shared = min(len(old), len(new))
    rest = range(shared, max(len(old), len(new)))
    return [*np.flatnonzero(old[:shared] != new[:shared]).tolist(), *rest]


def revised_text(recorded: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]], panel: Panel) -> str:
    """Which cells of `panel`, with checksums `now`, are not those of the record, a phrase; ``""`` where none is."""
    texts = []
    for name, then in recorded.items():
        parts = {part: differing(part, then[part], now.get(name, {}).get(part, "")) for part in then}
        if not parts["coins"]:
            continue
        coins = join_first([panel.coins[place] for place in parts["coins"] if place < len(panel.coins)], 3)
        texts.append(f"{name} of {coins}{_when(parts, panel.index)}")
    return "; ".join(texts)


def _when(parts: Mapping[str, list[int]], index: pd.DatetimeIndex) -> str:
    first = max(0, len(index) - NEWEST_HOURS)
    hours = [index[first + place] for place in parts.get("hours", ()) if first + place < len(index)]
    days = [index[24 * place] for place in parts.get("days", ()) if 24 * place < len(index)]
    if hours:
        more = f" and {len(hours) - 1} more hours" if len(hours) > 1 else ""
        return f" at {show(hours[0])}{more}"
    if days:
        more = f" and {len(days) - 1} more days" if len(days) > 1 else ""
        return f" in the 24 hours from {show(days[0])}{more}"
    return ""
