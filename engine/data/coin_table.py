"""The coin table: when a coin was seen in the data, and its lots and leverage.

First and last instants come from the data and are kept up to date by the store; lots and leverage come from a saved
``meta`` answer. They are those of the day of that answer: HyperLiquid changes leverage over time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pandas as pd

from engine.clock import HOUR
from engine.panel import Coin

#: A coin whose data end longer than this before those of the sources that gave it is taken to be gone.
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
        return self.last_price if reach - self.last_price > DELISTED_AFTER else None

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

    def with_spans(self, price: Span | None, funding: Span | None) -> CoinRecord:
        """The record with its spans widened to the first and last instants of newly read data."""
        first_price, last_price = _widened(self.first_price, self.last_price, price)
        first_funding, last_funding = _widened(self.first_funding, self.last_funding, funding)
        return replace(
            self, first_price=first_price, last_price=last_price, first_funding=first_funding, last_funding=last_funding
        )

    def with_source_end(self, source: str, last: pd.Timestamp) -> CoinRecord:
        """The record after `source` gave prices up to `last`."""
        until = max(last, self.given.get(source, last))
        return replace(self, given=dict(sorted({**self.given, source: until}.items())))

    def with_meta(self, meta: CoinMeta, origin: str, as_of: pd.Timestamp | None) -> CoinRecord:
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
