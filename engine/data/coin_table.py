"""The coin table: first and last instants of each coin in the cache, and its terms.

Instants come from the data and are kept up to date by the cache; terms come from ``meta`` responses. Lots, leverage and
tiers are those of the newest one: HyperLiquid changes leverage over time. What the venue keeps no history of (whether a
coin is halted, its margin mode, fee scale, growth mode and funding multiplier) is kept with the dates at which it was
seen: our history of it begins with the first sync.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import pandas as pd

from engine.clock import HOUR, UNIT, iso_minute
from engine.coin import Coin, FeeTerms, dex_of
from engine.data.merge import Cube

#: A coin whose data end longer than this before those of its sources is taken to be delisted.
DELISTED_AFTER = 24 * HOUR
Span = tuple[pd.Timestamp, pd.Timestamp]
_INSTANTS = ("first_price", "last_price", "first_funding", "last_funding", "as_of")
#: Attributes that have another name in the manifest.
_JSON_NAMES = {"source_ends": "given"}


@dataclass(frozen=True)
class CoinMeta:
    """One coin of a ``meta`` response; None where it lacks the value.

    Attributes
    ----------
    sz_decimals : int or None
        Decimals of an order's size.
    max_leverage : float or None
        Highest leverage on the day of the response.
    is_delisted : bool or None
        Flag of the response.
    margin_mode : {"cross", "isolated"} or None
        Whether a position may have the account's margin.
    margin_table_id : int or None
        Number of the coin's margin table at the exchange.
    margin_tiers : tuple of (float, float) or None
        That table, where the response has it: (USD of notional from which a tier applies, its highest leverage).
    collateral : str or None
        Token in which the coin is settled.
    fee_scale : float or None
        Fee scale of the builder that deployed the coin; None for the main dex.
    growth : bool or None
        Growth mode, of a builder's coin.
    funding_multiplier : float or None
        What the builder multiplies funding with.
    sessions : str or None
        Name in ``exchange_calendars`` of the exchange whose hours the coin follows.
    """

    name: str
    sz_decimals: int | None = None
    max_leverage: float | None = None
    is_delisted: bool | None = None
    margin_mode: str | None = None
    margin_table_id: int | None = None
    margin_tiers: tuple[tuple[float, float], ...] | None = None
    collateral: str | None = None
    fee_scale: float | None = None
    growth: bool | None = None
    funding_multiplier: float | None = None
    sessions: str | None = None


@dataclass(frozen=True)
class Seen:
    """What consecutive dated responses say alike of a coin.

    Attributes
    ----------
    first, last : Timestamp
        The first and the last of these responses.
    is_delisted, margin_mode, fee_scale, growth, funding_multiplier : object
        As in :class:`CoinMeta`; None where a response lacks it.
    """

    first: pd.Timestamp
    last: pd.Timestamp
    is_delisted: bool | None = None
    margin_mode: str | None = None
    fee_scale: float | None = None
    growth: bool | None = None
    funding_multiplier: float | None = None

    def like(self, other: Seen) -> bool:
        """Whether both say the same."""
        return replace(self, first=other.first, last=other.last) == other


def with_seen(history: Sequence[Seen], new: Seen) -> tuple[Seen, ...]:
    """A history, ascending, with what the response of one instant says; the order of imports does not matter."""
    instant = new.first
    parts: list[Seen] = [new]
    for seen in history:
        if not seen.first <= instant <= seen.last or seen.like(new):
            parts.append(seen)
            continue
        # Of a span that is contradicted within, its two ends are known.
        parts += [replace(seen, last=seen.first)] if seen.first < instant else []
        parts += [replace(seen, first=seen.last)] if seen.last > instant else []
    joined: list[Seen] = []
    for seen in sorted(parts, key=lambda seen: (seen.first, seen.last)):
        if joined and joined[-1].like(seen):
            joined[-1] = replace(joined[-1], last=max(joined[-1].last, seen.last))
        else:
            joined.append(seen)
    return tuple(joined)


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
    seen : tuple of Seen
        What dated responses say, ascending; consecutive ones that say the same are one.
    source_ends : mapping of str to Timestamp
        Per source with a price of the coin, its last row with one, also where a higher source superseded it.
    """

    first_price: pd.Timestamp | None = None
    last_price: pd.Timestamp | None = None
    first_funding: pd.Timestamp | None = None
    last_funding: pd.Timestamp | None = None
    origin: str | None = None
    as_of: pd.Timestamp | None = None
    seen: tuple[Seen, ...] = ()
    source_ends: Mapping[str, pd.Timestamp] = field(default_factory=dict)

    @property
    def alive_from(self) -> pd.Timestamp | None:
        """The first dated response that lists the coin as alive."""
        return next((seen.first for seen in self.seen if seen.is_delisted is False), None)

    @property
    def alive_until(self) -> pd.Timestamp | None:
        """The last dated response that lists the coin as alive."""
        return next((seen.last for seen in reversed(self.seen) if seen.is_delisted is False), None)

    @property
    def delisting_seen_at(self) -> pd.Timestamp | None:
        """The first dated response of the last halt; None for a coin that was always alive."""
        return self._halts[-1][0] if self._halts else None

    @property
    def halts(self) -> tuple[Span, ...]:
        """Halts that ended: the first response that lists the coin as delisted, and the next one as alive."""
        return tuple((gone, back) for gone, back in self._halts if back is not None)

    @property
    def _halts(self) -> list[tuple[pd.Timestamp, pd.Timestamp | None]]:
        halts: list[tuple[pd.Timestamp, pd.Timestamp | None]] = []
        for seen in self.seen:
            halted = bool(halts) and halts[-1][1] is None
            if seen.is_delisted and not halted:
                halts.append((seen.first, None))
            elif seen.is_delisted is False and halted:
                halts[-1] = (halts[-1][0], seen.first)
        return halts

    @property
    def fee_terms(self) -> tuple[FeeTerms, ...]:
        """Fee scales and growth mode with the dates at which they were seen; without any, those of no date."""
        terms: list[FeeTerms] = []
        for seen in self.seen or (Seen(_NEVER, _NEVER, fee_scale=self.fee_scale, growth=self.growth),):
            if seen.fee_scale is not None:
                new = FeeTerms(seen.first if self.seen else None, seen.fee_scale, bool(seen.growth))
                if not terms or (terms[-1].scale, terms[-1].growth) != (new.scale, new.growth):
                    terms.append(new)
        return tuple(terms)

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
        return Coin(
            self.name,
            listed,
            self.delisted(source_end),
            self.sz_decimals,
            self.max_leverage,
            self.margin_tiers or (),
            self.as_of,
            # What every coin of the main dex has is no part of a coin's text, which is in digests.
            collateral=self.collateral if dex_of(self.name) else None,
            margin_mode=None if self.margin_mode == "cross" else self.margin_mode,
            fee_terms=self.fee_terms,
            sessions=self.sessions,
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
        seen = Seen(as_of, as_of, **{name: getattr(meta, name) for name in _SEEN})
        return replace(record, seen=with_seen(self.seen, replace(seen, is_delisted=bool(meta.is_delisted))))

    def to_json(self) -> dict[str, Any]:
        """JSON object without the name and without what is unknown."""
        state = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "name"}
        state["source_ends"] = {source: iso_minute(last) for source, last in self.source_ends.items()} or None
        state["seen"] = [_json(asdict(seen)) for seen in self.seen] or None
        return {_JSON_NAMES.get(name, name): value for name, value in _json(state).items()}

    @classmethod
    def from_json(cls, name: str, state: Mapping[str, Any]) -> CoinRecord:
        """Read what :meth:`to_json` wrote; a key that is not known is a TypeError."""
        names = {json_name: attribute for attribute, json_name in _JSON_NAMES.items()}
        values = {names.get(key, key): value for key, value in _as_of_schema_4(state).items()}
        for key in _INSTANTS:
            if key in values:
                values[key] = _instant(values[key])
        if "margin_tiers" in values:
            values["margin_tiers"] = tuple(
                (float(floor), float(leverage)) for floor, leverage in values["margin_tiers"]
            )
        values["seen"] = tuple(
            Seen(**{**seen, "first": _instant(seen["first"]), "last": _instant(seen["last"])})
            for seen in values.get("seen", ())
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


def _json(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: iso_minute(value) if isinstance(value, pd.Timestamp) else value
        for name, value in state.items()
        if value is not None
    }


def _as_of_schema_4(state: Mapping[str, Any]) -> dict[str, Any]:
    """A record of schema 2 or 3, which knew of a coin's life its ends alone, as one of schema 4."""
    values = dict(state)
    history: tuple[Seen, ...] = ()
    for key, is_delisted in (("alive_from", False), ("alive_until", False), ("gone_by", True)):
        if key in values:
            instant = _instant(values.pop(key))
            history = with_seen(history, Seen(instant, instant, is_delisted))
    if history:
        values["seen"] = [_json(asdict(seen)) for seen in history]
    if "only_isolated" in values:
        values["margin_mode"] = "isolated" if values.pop("only_isolated") else "cross"
    return values


_NEVER = pd.Timestamp(0, tz="UTC")
_META = tuple(part.name for part in fields(CoinMeta) if part.name != "name")
_SEEN = tuple(part.name for part in fields(Seen) if part.name not in ("first", "last"))


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
