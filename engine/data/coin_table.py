"""The coin table: first and last instants of each coin in the cache, its lots and its leverage.

Instants come from the data and are kept up to date by the cache; lots and leverage come from a saved ``meta``
response. They are those of the day of that response: HyperLiquid changes leverage over time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pandas as pd

from engine.clock import HOUR, UNIT, iso_minute
from engine.coin import Coin
from engine.data.merge import Cube

#: A coin whose data end longer than this before those of its sources is taken to be delisted.
DELISTED_AFTER = 24 * HOUR
Span = tuple[pd.Timestamp, pd.Timestamp]
_INSTANTS = (
    "first_price",
    "last_price",
    "first_funding",
    "last_funding",
    "as_of",
    "alive_from",
    "alive_until",
    "delisting_seen_at",
)
#: Attributes that have another name in the manifest.
_JSON_NAMES = {"delisting_seen_at": "gone_by", "source_ends": "given"}


@dataclass(frozen=True)
class CoinMeta:
    """One coin of a ``meta`` response; None where it lacks the value.

    Attributes
    ----------
    sz_decimals : int or None
        Decimals of an order's size.
    max_leverage : float or None
        Highest leverage on the day of the response.
    is_delisted, only_isolated : bool or None
        Flags of the response.
    margin_table_id : int or None
        Number of the coin's margin table at the exchange.
    margin_tiers : tuple of (float, float) or None
        That table, where the response has it: (USD of notional from which a tier applies, its highest leverage).
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
    """One row of the coin table: :class:`CoinMeta`, and first and last instants in the data.

    Attributes
    ----------
    first_price, last_price : Timestamp or None
        First and last row with a `mid` in the whole cache.
    first_funding, last_funding : Timestamp or None
        First and last row with a `funding` rate.
    origin : str or None
        Name of the file (or source) of the `meta` response.
    as_of : Timestamp or None
        Instant of the response, where it is known.
    alive_from, alive_until, delisting_seen_at : Timestamp or None
        Of all dated responses: the first and the last that list the coin as alive, the first that lists it as delisted.
    source_ends : mapping of str to Timestamp
        Per source with a price of the coin, its last row with one, also where a higher source superseded it.
    """

    first_price: pd.Timestamp | None = None
    last_price: pd.Timestamp | None = None
    first_funding: pd.Timestamp | None = None
    last_funding: pd.Timestamp | None = None
    origin: str | None = None
    as_of: pd.Timestamp | None = None
    alive_from: pd.Timestamp | None = None
    alive_until: pd.Timestamp | None = None
    delisting_seen_at: pd.Timestamp | None = None
    source_ends: Mapping[str, pd.Timestamp] = field(default_factory=dict)

    @property
    def listed(self) -> pd.Timestamp | None:
        """First funding stamp, else first price: candles before it are an index's, not a market's."""
        return self.first_funding if self.first_funding is not None else self.first_price

    def delisted(self, source_end: pd.Timestamp) -> pd.Timestamp | None:
        """Last row with a price when the coin is delisted, None while it is listed.

        Delisted means that `meta` says so, or that its data end more than 24 h before `source_end`, the last row of any
        coin in the sources of this one (:meth:`engine.data.manifest.Manifest.table`): where a source ends earlier than
        another one, that says nothing about the coin. A `meta` response of a known, later date that lists the coin
        as alive outweighs the end of its data.
        """
        if self.last_price is None:
            return None
        if self.is_delisted:
            return self.last_price
        if self.is_delisted is False and self.as_of is not None and self.as_of >= self.last_price:
            return None
        return self.last_price if source_end - self.last_price > DELISTED_AFTER else None

    def coin(self, source_end: pd.Timestamp, lost_funding: bool = False) -> Coin:
        """The coin of a panel; `source_end` as in :meth:`delisted`, with `lost_funding` listed from its first price."""
        listed = self.first_price if lost_funding else self.listed
        tiers = self.margin_tiers or ()
        return Coin(
            self.name, listed, self.delisted(source_end), self.sz_decimals, self.max_leverage, tiers, self.as_of
        )

    def with_spans(self, price: Span | None, funding: Span | None) -> CoinRecord:
        """The record with its spans widened to the first and last instants of newly read data."""
        first_price, last_price = _widened(self.first_price, self.last_price, price)
        first_funding, last_funding = _widened(self.first_funding, self.last_funding, funding)
        return replace(
            self, first_price=first_price, last_price=last_price, first_funding=first_funding, last_funding=last_funding
        )

    def with_source_end(self, source: str, last: pd.Timestamp) -> CoinRecord:
        """The record after prices of `source` up to `last` were merged."""
        end = max(last, self.source_ends.get(source, last))
        return replace(self, source_ends=dict(sorted({**self.source_ends, source: end}.items())))

    def with_meta(self, meta: CoinMeta, origin: str, as_of: pd.Timestamp | None) -> CoinRecord:
        """The record with the values of `meta`; those of an undated or older response only fill what is unknown."""
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
            seen = as_of if self.delisting_seen_at is None else min(self.delisting_seen_at, as_of)
            return replace(record, delisting_seen_at=seen)
        return replace(record, alive_from=min(dates), alive_until=max(dates))

    def to_json(self) -> dict[str, Any]:
        """JSON object without the name and without what is unknown."""
        state = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "name"}
        state["source_ends"] = {source: iso_minute(last) for source, last in self.source_ends.items()} or None
        return {
            _JSON_NAMES.get(name, name): iso_minute(value) if isinstance(value, pd.Timestamp) else value
            for name, value in state.items()
            if value is not None
        }

    @classmethod
    def from_json(cls, name: str, state: Mapping[str, Any]) -> CoinRecord:
        """Read what :meth:`to_json` wrote; a key that is not known is a TypeError."""
        names = {json_name: attribute for attribute, json_name in _JSON_NAMES.items()}
        values = {names.get(key, key): value for key, value in state.items()}
        for key in _INSTANTS:
            if key in values:
                values[key] = _instant(values[key])
        if "margin_tiers" in values:
            values["margin_tiers"] = tuple(
                (float(floor), float(leverage)) for floor, leverage in values["margin_tiers"]
            )
        ends = values.get("source_ends", {})
        values["source_ends"] = {source: _instant(last) for source, last in ends.items()}
        return cls(name, **values)


def with_metas(
    coins: Mapping[str, CoinRecord], metas: Iterable[CoinMeta], origin: str, as_of: pd.Timestamp | None
) -> dict[str, CoinRecord]:
    """The coin table with the values of `metas`."""
    updated = dict(coins)
    for meta in metas:
        updated[meta.name] = updated.get(meta.name, CoinRecord(meta.name)).with_meta(meta, origin, as_of)
    return updated


def widen(coins: dict[str, CoinRecord], cube: Cube, source: str) -> None:
    """Widen the first and last instants of the coin table by those of a source's cube."""
    prices, rates = cube.spans("mid"), cube.spans("funding")
    for name in cube.coins:
        coins[name] = coins.get(name, CoinRecord(name)).with_spans(prices.get(name), rates.get(name))
        if name in prices:
            coins[name] = coins[name].with_source_end(source, prices[name][1])


def _instant(text: str) -> pd.Timestamp:
    return pd.Timestamp(text).as_unit(UNIT)


_META = tuple(part.name for part in fields(CoinMeta) if part.name != "name")


def _widened(
    first: pd.Timestamp | None, last: pd.Timestamp | None, span: Span | None
) -> tuple[pd.Timestamp | None, pd.Timestamp | None]:
    if span is None:
        return first, last
    return (span[0] if first is None else min(first, span[0])), (span[1] if last is None else max(last, span[1]))


def price_span(records: Iterable[CoinRecord]) -> Span | None:
    """First and last row of the cache that has any price, None when it has none."""
    spans = [(record.first_price, record.last_price) for record in records]
    firsts, lasts = [first for first, _ in spans if first], [last for _, last in spans if last]
    return (min(firsts), max(lasts)) if firsts and lasts else None
