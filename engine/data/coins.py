"""The coin table: when a coin was seen in the data, and what HyperLiquid's `meta` answer says of it.

First and last instants come from the data and are kept up to date by the store; lots and leverage come from a saved
``meta`` answer. They are those of the day of that answer: HyperLiquid changes leverage over time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from engine.clock import HOUR, parse_instant
from engine.errors import DataError, some
from engine.panel import Coin

if TYPE_CHECKING:
    from engine.data.store import Store

#: A coin whose data end longer than this before those of the sources that gave it is taken to be gone.
SILENCE = 24 * HOUR
Span = tuple[pd.Timestamp, pd.Timestamp]
_INSTANTS = (
    "first_price",
    "last_price",
    "first_funding",
    "last_funding",
    "as_of",
    "alive_from",
    "alive_until",
    "gone_by",
)


@dataclass(frozen=True)
class CoinMeta:
    """What a ``meta`` answer says of one coin; None where it does not say.

    Attributes
    ----------
    sz_decimals : int or None
        Decimals of an order's size.
    max_leverage : float or None
        Highest leverage on the day of the answer.
    is_delisted, only_isolated : bool or None
        Flags of the answer.
    margin_table_id : int or None
        Number of the coin's margin table at the venue.
    margin_tiers : tuple of (float, float) or None
        That table, where the answer has it: (USD of notional from which a tier applies, its highest leverage).
    """

    name: str
    sz_decimals: int | None = None
    max_leverage: float | None = None
    is_delisted: bool | None = None
    only_isolated: bool | None = None
    margin_table_id: int | None = None
    margin_tiers: tuple[tuple[float, float], ...] | None = None


@dataclass(frozen=True)
class CoinRecord(CoinMeta):
    """One line of the coin table: :class:`CoinMeta`, and when the coin was seen in the data.

    Attributes
    ----------
    first_price, last_price : Timestamp or None
        First and last row with a `mid` in the whole cache.
    first_funding, last_funding : Timestamp or None
        First and last row with a `funding` rate.
    origin : str or None
        Name of the file (or source) of the `meta` answer.
    as_of : Timestamp or None
        Instant of the answer, where the user gave it.
    alive_from, alive_until, gone_by : Timestamp or None
        Of all dated answers: the first and the last that list the coin as alive, the first that calls it delisted.
    given : mapping of str to Timestamp
        Per source that gave the coin a price, the last row of it. What a higher source overruled counts too.
    """

    first_price: pd.Timestamp | None = None
    last_price: pd.Timestamp | None = None
    first_funding: pd.Timestamp | None = None
    last_funding: pd.Timestamp | None = None
    origin: str | None = None
    as_of: pd.Timestamp | None = None
    alive_from: pd.Timestamp | None = None
    alive_until: pd.Timestamp | None = None
    gone_by: pd.Timestamp | None = None
    given: Mapping[str, pd.Timestamp] = field(default_factory=dict)

    @property
    def listed(self) -> pd.Timestamp | None:
        """First funding stamp, else first price: candles before it are an index's, not a market's."""
        return self.first_funding if self.first_funding is not None else self.first_price

    def delisted(self, reach: pd.Timestamp) -> pd.Timestamp | None:
        """Last row with a price when the coin is gone, None while it lives.

        Gone means that `meta` says so, or that its data end more than 24 h before `reach`, the last row that the
        sources of the coin gave of any coin (:meth:`engine.data.manifest.Manifest.table`): a source that stops
        earlier than another one says nothing of what came later. A `meta` answer of a known, later date that lists
        the coin as alive outweighs the silence.
        """
        if self.last_price is None:
            return None
        if self.is_delisted:
            return self.last_price
        if self.is_delisted is False and self.as_of is not None and self.as_of >= self.last_price:
            return None
        return self.last_price if reach - self.last_price > SILENCE else None

    def coin(self, reach: pd.Timestamp) -> Coin:
        """The coin as a panel knows it; `reach` as in :meth:`delisted`."""
        return Coin(
            self.name,
            self.listed,
            self.delisted(reach),
            self.sz_decimals,
            self.max_leverage,
            self.margin_tiers or (),
        )

    def seen(self, price: Span | None, funding: Span | None) -> CoinRecord:
        """The record with its spans widened to the first and last instants of newly read data."""
        first_price, last_price = _widened(self.first_price, self.last_price, price)
        first_funding, last_funding = _widened(self.first_funding, self.last_funding, funding)
        return replace(
            self, first_price=first_price, last_price=last_price, first_funding=first_funding, last_funding=last_funding
        )

    def given_by(self, source: str, last: pd.Timestamp) -> CoinRecord:
        """The record after `source` gave prices up to `last`."""
        until = max(last, self.given.get(source, last))
        return replace(self, given=dict(sorted({**self.given, source: until}.items())))

    def told(self, meta: CoinMeta, origin: str, as_of: pd.Timestamp | None) -> CoinRecord:
        """The record with what `meta` says; an undated answer, or one older than it has, only fills what is unknown."""
        older = self.as_of is not None and (as_of is None or as_of < self.as_of)
        news: dict[str, Any] = {
            name: value
            for name in _META
            if (value := getattr(meta, name)) is not None and not (older and getattr(self, name) is not None)
        }
        record = replace(self, **news) if older else replace(self, **news, origin=origin, as_of=as_of)
        if as_of is None:
            return record
        dates = [date for date in (self.alive_from, self.alive_until, as_of) if date is not None]
        if meta.is_delisted:
            return replace(record, gone_by=as_of if self.gone_by is None else min(self.gone_by, as_of))
        return replace(record, alive_from=min(dates), alive_until=max(dates))

    def to_json(self) -> dict[str, Any]:
        """JSON object without the name and without what is unknown."""
        state = {part.name: getattr(self, part.name) for part in fields(self) if part.name not in ("name", "given")}
        given = {source: f"{last:%Y-%m-%dT%H:%MZ}" for source, last in self.given.items()}
        return {
            name: f"{value:%Y-%m-%dT%H:%MZ}" if isinstance(value, pd.Timestamp) else value
            for name, value in state.items()
            if value is not None
        } | ({"given": given} if given else {})

    @classmethod
    def from_json(cls, name: str, state: Mapping[str, Any]) -> CoinRecord:
        """Read what :meth:`to_json` wrote; a key that is not known is a TypeError."""
        values = dict(state)
        for key in _INSTANTS:
            if key in values:
                values[key] = pd.Timestamp(values[key]).as_unit("ms")
        if "margin_tiers" in values:
            values["margin_tiers"] = tuple(
                (float(floor), float(leverage)) for floor, leverage in values["margin_tiers"]
            )
        given = values.get("given", {})
        values["given"] = {source: pd.Timestamp(last).as_unit("ms") for source, last in given.items()}
        return cls(name, **values)


_META = tuple(part.name for part in fields(CoinMeta) if part.name != "name")


def _widened(
    first: pd.Timestamp | None, last: pd.Timestamp | None, span: Span | None
) -> tuple[pd.Timestamp | None, pd.Timestamp | None]:
    if span is None:
        return first, last
    return (span[0] if first is None else min(first, span[0])), (span[1] if last is None else max(last, span[1]))


def price_span(records: Iterable[CoinRecord]) -> Span | None:
    """First and last row of the cache that has any price, None when it has none."""
    priced = [(record.first_price, record.last_price) for record in records]
    firsts = [first for first, _ in priced if first is not None]
    lasts = [last for _, last in priced if last is not None]
    return (min(firsts), max(lasts)) if firsts and lasts else None


@dataclass(frozen=True)
class MetaReport:
    """What :func:`import_meta` did.

    Attributes
    ----------
    coins : int
        Coins in the answer.
    added, changed : tuple of str
        Coins that the cache's table lacked; coins of it that now read differently.
    delisted : tuple of str
        Coins that the answer calls delisted.
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
    """Take lots, leverage and delistings from a saved ``meta`` or ``metaAndAssetCtxs`` answer.

    Parameters
    ----------
    store : Store
        The cache; made when absent.
    path : path
        JSON file: ``{"universe": [...]}`` or ``[{"universe": [...]}, [...]]``.
    as_of : str or Timestamp, optional
        Date of the answer, which carries none itself. With it, an older answer never overrides a newer one, and
        a coin alive on that date is not taken for delisted because its data end earlier. Kept to the minute.

    Raises
    ------
    DataError
        When the file cannot be read, is not JSON, or is another answer.
    """
    path = Path(path)
    metas = read_meta(path)
    instant = None if as_of is None else parse_instant(as_of, "as_of", hourly=False).floor("min")
    added, changed = store.tell(metas, path.name, instant)
    return MetaReport(len(metas), added, changed, tuple(meta.name for meta in metas if meta.is_delisted))


def read_meta(path: Path) -> tuple[CoinMeta, ...]:
    """Read the coins of a saved ``meta`` or ``metaAndAssetCtxs`` answer, as :func:`import_meta` describes."""
    try:
        answer = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Name a saved answer of HyperLiquid.") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}). {_WANTED}") from error
    return parse_meta(answer, path)


def parse_meta(answer: Any, where: object) -> tuple[CoinMeta, ...]:
    """Read the coins of a ``meta`` or ``metaAndAssetCtxs`` answer; `where` it came from is named in errors."""
    body = answer[0] if isinstance(answer, list) and answer else answer
    universe = body.get("universe") if isinstance(body, dict) else None
    if not isinstance(universe, list) or not universe:
        named = isinstance(answer, dict) and answer
        found = f"an object with {some(answer)}" if named else f"a {type(answer).__name__}"
        raise DataError(f"{where}: no 'universe' of coins in it, but {found}. {_WANTED}")
    if isinstance(universe[0], dict) and "tokens" in universe[0]:
        raise DataError(f"{where}: this is the spot market's answer (its universe has 'tokens'). {_WANTED}")
    tables = _margin_tables(body.get("marginTables"), where)
    metas = tuple(_coin_meta(entry, place, tables, where) for place, entry in enumerate(universe))
    names = [meta.name for meta in metas]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"{where}: {some(twice)} appears twice. {_WANTED}")
    return metas


_WANTED = (
    'Save the answer of POST /info {"type": "meta"} or {"type": "metaAndAssetCtxs"} as it is: '
    '{"universe": [{"name", "szDecimals", "maxLeverage", ...}]}, or a list that starts with that object.'
)


def _margin_tables(tables: Any, where: object) -> dict[int, tuple[tuple[float, float], ...]]:
    """Margin tiers by the table's number."""
    found = {}
    try:
        for number, table in tables or ():
            tiers = [(float(tier["lowerBound"]), float(tier["maxLeverage"])) for tier in table["marginTiers"]]
            if not tiers or tiers[0][0] != 0.0 or any(leverage < 1 for _, leverage in tiers):
                raise ValueError
            if any(after[0] <= before[0] or after[1] > before[1] for before, after in pairwise(tiers)):
                raise ValueError
            found[int(number)] = tuple(tiers)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{where}: marginTables is not a list of [number, table with marginTiers] whose bounds ascend from 0 while "
            f"the leverage falls. {_WANTED}"
        ) from error
    return found


def _coin_meta(
    entry: Any, place: int, tables: Mapping[int, tuple[tuple[float, float], ...]], where: object
) -> CoinMeta:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"]:
        raise DataError(f"{where}: entry {place} of the universe has no name. {_WANTED}")
    name = entry["name"]
    decimals = _number(entry.get("szDecimals"))
    if decimals is None or decimals != int(decimals) or not 0 <= decimals <= 18:
        given = entry.get("szDecimals")
        raise DataError(
            f"{where}: szDecimals of {name} is {given!r}; it must be a whole number from 0 to 18. {_WANTED}"
        )
    leverage = _number(entry.get("maxLeverage"))
    if leverage is None or leverage < 1:
        given = entry.get("maxLeverage")
        raise DataError(f"{where}: maxLeverage of {name} is {given!r}; it must be a number of at least 1. {_WANTED}")
    table = _number(entry.get("marginTableId"))
    return CoinMeta(
        name,
        int(decimals),
        float(leverage),
        # Absent flags mean false: the venue leaves them out for live coins.
        bool(entry.get("isDelisted", False)),
        bool(entry.get("onlyIsolated", False)),
        None if table is None else int(table),
        None if table is None else tables.get(int(table)),
    )


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None
