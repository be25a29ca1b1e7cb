"""Import of a saved ``meta`` response of HyperLiquid: lots, leverage, margin tiers and delistings of every coin."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from engine.clock import parse_instant
from engine.coin import MARGIN_MODES, dex_of
from engine.data.coin_table import CoinMeta
from engine.errors import DataError, join_first

if TYPE_CHECKING:
    from engine.data.cache import Store


#: The token of the main dex, by the exchange's number.
MAIN_COLLATERAL = {0: "USDC"}
_WANTED = (
    'Save the response of POST /info {"type": "meta"} or {"type": "metaAndAssetCtxs"} as it is: '
    '{"universe": [{"name", "szDecimals", "maxLeverage", ...}]}, or a list that starts with that object.'
)


@dataclass(frozen=True)
class MetaReport:
    """The result of :func:`import_meta`.

    Attributes
    ----------
    coins : int
        Coins in the response.
    added, changed : tuple of str
        Coins that the coin table lacked; coins of it that have other values now.
    delisted : tuple of str
        Coins that the response lists as delisted.
    """

    coins: int
    added: tuple[str, ...]
    changed: tuple[str, ...]
    delisted: tuple[str, ...]

    @property
    def wrote(self) -> bool:
        """Whether the cache was changed at all."""
        return bool(self.added or self.changed)


def import_meta(store: Store, path: str | Path, *, as_of: str | pd.Timestamp | None = None) -> MetaReport:
    """Import lots, leverage and delistings from a saved ``meta`` or ``metaAndAssetCtxs`` response.

    Parameters
    ----------
    store : Store
        The cache; made when absent.
    path : path
        JSON file: ``{"universe": [...]}`` or ``[{"universe": [...]}, [...]]``.
    as_of : str or Timestamp, optional
        Date of the response, which has none itself. With it, an older response never overrides a newer one, and
        a coin alive on that date is not taken for delisted because its data end earlier. Kept to the minute.

    Raises
    ------
    DataError
        When the file cannot be read, is not JSON, or is another response.
    """
    path = Path(path)
    metas = read_meta(path)
    instant = None if as_of is None else parse_instant(as_of, "as_of", hourly=False).floor("min")
    added, changed = store.update_coin_table(metas, path.name, instant)
    return MetaReport(len(metas), added, changed, tuple(meta.name for meta in metas if meta.is_delisted))


def read_meta(path: Path) -> tuple[CoinMeta, ...]:
    """Read the coins of a saved ``meta`` or ``metaAndAssetCtxs`` response, as :func:`import_meta` describes."""
    try:
        response = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Name a saved response of HyperLiquid.") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}). {_WANTED}") from error
    return parse_meta(response, path)


def parse_meta(
    response: Any, where: object, unreadable: list[str] | None = None, tokens: Mapping[int, str] = MAIN_COLLATERAL
) -> tuple[CoinMeta, ...]:
    """Read the coins of a ``meta``, ``metaAndAssetCtxs`` or ``allPerpMetas`` response.

    Parameters
    ----------
    response : object
        As JSON gives it.
    where : object
        Where it came from, for errors.
    unreadable : list of str, optional
        A coin that cannot be read is left out, and why is added to it, unless none can be read.
    tokens : mapping of int to str
        Names of the collateral tokens by the exchange's number.

    Raises
    ------
    DataError
        When it is another response.
    """
    several = isinstance(response, list) and all(isinstance(one, dict) and "universe" in one for one in response)
    if several and len(response) > 1:
        return tuple(meta for one in response for meta in parse_meta(one, where, unreadable, tokens))
    body = response[0] if isinstance(response, list) and response else response
    universe = body.get("universe") if isinstance(body, dict) else None
    if not isinstance(universe, list) or not universe:
        named = isinstance(response, dict) and response
        content = f"an object with {join_first(response)}" if named else f"a {type(response).__name__}"
        raise DataError(f"{where}: no 'universe' of coins in it, but {content}. {_WANTED}")
    if isinstance(universe[0], dict) and "tokens" in universe[0]:
        raise DataError(f"{where}: this is a response of the spot market (its universe has 'tokens'). {_WANTED}")
    tables = margin_tables(body.get("marginTables"), where)
    collateral = tokens.get(body.get("collateralToken"))
    metas, wrong = [], list[str]()
    for number, entry in enumerate(universe):
        try:
            metas.append(_coin_meta(entry, number, tables, collateral, where))
        except DataError as error:
            wrong.append(str(error).removesuffix(f" {_WANTED}"))
            if unreadable is None or len(wrong) == len(universe):
                raise
    if unreadable is not None:
        unreadable += wrong
    names = [meta.name for meta in metas]
    if len(set(names)) != len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"{where}: {join_first(repeated)} appears twice. {_WANTED}")
    return tuple(metas)


def margin_tables(tables: Any, where: object) -> dict[int, tuple[tuple[float, float], ...]]:
    """Margin tiers by the table's number."""
    tiers_of = {}
    try:
        for number, table in tables or ():
            tiers = [(float(tier["lowerBound"]), float(tier["maxLeverage"])) for tier in table["marginTiers"]]
            if not tiers or tiers[0][0] != 0.0 or any(leverage < 1 for _, leverage in tiers):
                raise ValueError
            if any(after[0] <= before[0] or after[1] > before[1] for before, after in pairwise(tiers)):
                raise ValueError
            tiers_of[int(number)] = tuple(tiers)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{where}: marginTables is not a list of [number, table with marginTiers] whose bounds ascend from 0 while "
            f"the leverage falls. {_WANTED}"
        ) from error
    return tiers_of


def _coin_meta(
    entry: Any,
    number: int,
    tables: Mapping[int, tuple[tuple[float, float], ...]],
    collateral: str | None,
    where: object,
) -> CoinMeta:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"]:
        raise DataError(f"{where}: entry {number} of the universe has no name. {_WANTED}")
    name = entry["name"]
    decimals = _number(entry.get("szDecimals"))
    if decimals is None or decimals != int(decimals) or not 0 <= decimals <= 18:
        raise DataError(
            f"{where}: szDecimals of {name} is {entry.get('szDecimals')!r}; it must be a whole number from 0 to 18. "
            f"{_WANTED}"
        )
    leverage = _number(entry.get("maxLeverage"))
    if leverage is None or leverage < 1:
        raise DataError(
            f"{where}: maxLeverage of {name} is {entry.get('maxLeverage')!r}; it must be at least 1. {_WANTED}"
        )
    table, scale = _number(entry.get("marginTableId")), amount(entry.get("deployerFeeScale"))
    mode = entry.get("marginMode", "strictIsolated" if entry.get("onlyIsolated") else "normal")
    if not isinstance(mode, str) or mode not in MARGIN_MODES:
        raise DataError(
            f"{where}: marginMode of {name} is {mode!r}, and not normal, strictIsolated or noCross. {_WANTED}"
        )
    if scale is not None and math.isnan(scale):
        raise DataError(
            f"{where}: deployerFeeScale of {name} is {entry['deployerFeeScale']!r}; it must be at least 0. {_WANTED}"
        )
    return CoinMeta(
        name,
        int(decimals),
        float(leverage),
        # Absent flags mean false: the exchange omits them for live coins.
        bool(entry.get("isDelisted", False)),
        MARGIN_MODES[mode],
        None if table is None else int(table),
        None if table is None else tables.get(int(table)),
        collateral,
        scale,
        entry.get("growthMode") == "enabled" if dex_of(name) else None,
    )


def amount(value: Any) -> float | None:
    """A number of at least 0 that the exchange writes as text; None without one, NaN where it is something else."""
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return math.nan
    return number if 0.0 <= number < math.inf else math.nan


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None
