"""Panel: hourly instants x coins, as read-only arrays; the input of oracles and of the kernel.

Row ``t`` holds the last observation strictly before instant ``t`` (:mod:`engine.clock`). A field that a source lacks
is absent; inside a field NaN means "not observed", and nothing is filled forward.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from dataclasses import fields as dataclass_fields
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd

from engine.clock import UNIT, is_hourly_index, parse_instant, show
from engine.coin import Coin as Coin
from engine.errors import DataError, did_you_mean, join_first
from engine.provenance import RecordedFields

#: Every field of a panel: name -> what it is. Only ``mid`` is required.
FIELDS: Mapping[str, str] = {
    "mid": "USD, mid price; candle close where no quote exists",
    "bid": "USD, best bid",
    "ask": "USD, best ask",
    "mark": "USD, mark price",
    "oracle": "USD, oracle price, on which funding is paid",
    "funding": "fraction per hour, settled at the instant; positive: longs pay",
    "volume_usd": "USD traded in the hour that ends at the instant",
    "open_interest": "units of the coin",
    "impact_bid": "USD, the exchange's impact price for selling",
    "impact_ask": "USD, the exchange's impact price for buying",
    "volume_24h_usd": "USD traded in the exchange's own day up to the instant (dayNtlVlm): not an hour's volume",
    "depth_10bps_usd": "USD resting within 10 bps of mid, the thinner of the two sides",
    "depth_50bps_usd": "USD resting within 50 bps of mid, the thinner of the two sides",
    "high": "USD, highest trade of the hour that ends at the instant",
    "low": "USD, lowest trade of the hour that ends at the instant",
    "in_session": "1 where the exchange of the coin's hours (data.sessions) was open just before the instant, else 0",
}
PRICES = ("mid", "bid", "ask", "mark", "oracle", "impact_bid", "impact_ask", "high", "low")
#: Two fields that, observed together, are a two-sided quote.
QUOTES = (("bid", "ask"), ("impact_bid", "impact_ask"))


def read_only(values: np.ndarray) -> np.ndarray:
    """A C-ordered float64 or bool array that cannot be written to, copied only when it must be.

    The kernel is compiled once for each combination of argument types, and being writable is part of an array's type:
    market data are read-only always.
    """
    dtype = np.bool_ if values.dtype == np.bool_ else np.float64
    array: np.ndarray = np.ascontiguousarray(values, dtype=dtype)
    if array.flags.writeable:
        if array is values:
            array = array.view()
        array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class Panel:
    """Hourly market data of N coins over T instants.

    Build one with :func:`engine.load_panel` or :meth:`from_frames`; the constructor takes arrays that already agree.

    Attributes
    ----------
    index : DatetimeIndex, shape (T,)
        Consecutive hours, UTC.
    coins : tuple of str, length N
        Column order of every array.
    fields : mapping of str to ndarray, each (T, N) float64
        See :data:`FIELDS` for units.
    tradable : ndarray, shape (T, N), bool
        Whether an order could have been filled just before the instant, as known then.
    table : tuple of Coin, length N
        Listing, delisting, lot and leverage.
    synthetic : bool
        Made-up data; every page made from it says so.
    as_known : bool
        Whether ``funding`` was moved so that row ``t`` holds the rate of ``t - 1 h`` (:meth:`known`).
    notes : tuple of str
        What every page made from it must say: holes in the data, days that are sealed. No part of `digest`.
    live_rows : int
        Rows at its end that no cache has: the last is of live quotes, and those before it are not known. No part of
        `digest`.
    """

    index: pd.DatetimeIndex
    coins: tuple[str, ...]
    fields: Mapping[str, np.ndarray]
    tradable: np.ndarray
    table: tuple[Coin, ...]
    synthetic: bool = False
    as_known: bool = field(default=False)
    notes: tuple[str, ...] = ()
    live_rows: int = 0

    def __post_init__(self) -> None:
        shape = (len(self.index), len(self.coins))
        if not is_hourly_index(self.index):
            raise DataError(f"A panel's index must be consecutive UTC hours; got {_describe_index(self.index)}.")
        if len(set(self.coins)) != len(self.coins) or not self.coins:
            twice = [coin for coin in dict.fromkeys(self.coins) if self.coins.count(coin) > 1]
            raise DataError(
                f"A panel's coins must be unique and at least one; repeated: {join_first(twice) or 'no coin at all'}."
            )
        if tuple(coin.name for coin in self.table) != tuple(self.coins):
            raise DataError(
                f"A panel's coin table must have one Coin for each of its {len(self.coins)} coins, in their order; it "
                f"has {join_first(coin.name for coin in self.table) or 'none'}."
            )
        if "mid" not in self.fields:
            raise DataError("A panel needs the field 'mid' (mid price, or the close of a candle).")
        if self.tradable.dtype != np.bool_:
            raise DataError(f"A panel's tradable must be True or False; it is {self.tradable.dtype}.")
        for name, values in {**self.fields, "tradable": self.tradable}.items():
            _check_field(name)
            if values.shape != shape:
                raise DataError(f"Panel field {name!r} has shape {values.shape}; {shape} (hours, coins) is needed.")
        for name, values in self.fields.items():
            self._refuse(name, np.isinf(values) | (values <= 0) if name in PRICES else np.isinf(values))
        object.__setattr__(self, "index", self.index.tz_convert("UTC").as_unit(UNIT).rename("time"))
        object.__setattr__(self, "coins", tuple(self.coins))
        given = dict(self.fields)
        object.__setattr__(
            self, "fields", RecordedFields((name, read_only(given[name])) for name in FIELDS if name in given)
        )
        object.__setattr__(self, "tradable", read_only(self.tradable & ~np.isnan(given["mid"])))

    def __repr__(self) -> str:
        hours, coins = self.tradable.shape
        span = f"{show(self.index[0])} to {show(self.index[-1])}" if hours else "no hour"
        flags = ", SYNTHETIC" * self.synthetic + ", as known" * self.as_known
        said = "".join(f"; {note}" for note in self.notes)
        return f"Panel({hours:,} hours x {coins} coins, {span}, {', '.join(self.fields)}{flags}{said})"

    def _refuse(self, name: str, bad: np.ndarray) -> None:
        if bad.any():
            row, column = (int(axis[0]) for axis in np.nonzero(bad))
            raise DataError(
                f"Panel field {name!r} of {self.coins[column]} at {show(self.index[row])} is "
                f"{self.fields[name][row, column]}; it must be {'a positive price' if name in PRICES else 'finite'} "
                f"or NaN ({int(bad.sum())} such values)."
            )

    @classmethod
    def from_frames(
        cls,
        *,
        tradable: pd.DataFrame | None = None,
        table: Sequence[Coin] | None = None,
        synthetic: bool = False,
        **frames: pd.DataFrame,
    ) -> Self:
        """Build a panel from one frame a field.

        Parameters
        ----------
        tradable : DataFrame of bool, optional
            Default: the point-in-time rule of :func:`tradable_rule`.
        table : sequence of Coin, optional
            Lots, leverage and listing instants of coins of `mid`; a coin that is absent has none.
        synthetic : bool
            Made-up data; every page says so.
        **frames : DataFrame
            Hourly UTC instants x coins, named as in :data:`FIELDS`; ``mid`` is required and gives instants and coins.
            A coin that another field lacks is NaN there.

        Raises
        ------
        DataError
            For a field or coin that is not known, an index that is not consecutive UTC hours, a price that is not
            positive, a value that is not a number.
        """
        given = frames if tradable is None else {**frames, "tradable": tradable}
        for name, frame in given.items():
            _check_field(name)
            if not isinstance(frame, pd.DataFrame):
                raise DataError(
                    f"Panel field {name!r} is {type(frame).__name__}; a DataFrame (instants x coins) is needed."
                )
        if "mid" not in frames:
            raise DataError("Panel.from_frames needs mid= (mid price, or the close of a candle).")
        mid = frames["mid"]
        if not is_hourly_index(mid.index):
            raise DataError(f"The index of mid must be consecutive UTC hours; got {_describe_index(mid.index)}.")
        index = pd.DatetimeIndex(mid.index).tz_convert("UTC").as_unit(UNIT)
        coins = tuple(str(coin) for coin in mid.columns)
        arrays = {name: _numbers(name, _aligned(name, frame, index, coins)) for name, frame in frames.items()}
        rows = _table(table or (), coins)
        if tradable is not None:
            allowed = _aligned("tradable", tradable, index, coins)
            if not all(frame_type == np.bool_ for frame_type in tradable.dtypes):
                raise DataError(
                    f"tradable must be True or False; its columns are {join_first(set(map(str, tradable.dtypes)))}."
                )
            executable = np.where(pd.isna(allowed), False, allowed).astype(np.bool_)
        else:
            executable = tradable_rule(index, arrays, rows)
        return cls(index, coins, arrays, executable, rows, synthetic)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything a run can read from this panel: instants, coins, values, tradable, coin table."""
        state = hashlib.sha256(repr((self.coins, self.table, self.synthetic, self.as_known)).encode())
        state.update(self.index.asi8.tobytes())
        if dated := [(coin.name, coin.terms_from) for coin in self.table if coin.terms_from is not None]:
            state.update(repr(dated).encode())
        for name, values in {**self.fields, "tradable": self.tradable}.items():
            state.update(name.encode())
            state.update(values.data)
        return state.hexdigest()

    @property
    def span(self) -> dict[str, str | int]:
        """First and last instant (ISO 8601), hours and number of coins, as records keep them."""
        index = self.index
        ends = {"start": index[0].isoformat(), "end": index[-1].isoformat()}
        return {**ends, "hours": len(index), "coins": len(self.coins)}

    def frame(self, name: str) -> pd.DataFrame:
        """A field (or ``"tradable"``) as a DataFrame view: instants x coins."""
        values = self.tradable if name == "tradable" else self.values(name)
        return pd.DataFrame(values, index=self.index, columns=pd.Index(self.coins, name="coin"), copy=False)

    def values(self, name: str) -> np.ndarray:
        """A field as its read-only (T, N) array.

        Raises
        ------
        DataError
            When the panel lacks the field.
        """
        if name not in self.fields:
            raise DataError(
                f"This panel has no field {name!r}.{did_you_mean(name, self.fields)} It has: {', '.join(self.fields)}."
            )
        return self.fields[name]

    def rows(self, instants: pd.DatetimeIndex) -> np.ndarray:
        """Row numbers of `instants`, int64; -1 for one that the panel lacks."""
        return self.index.get_indexer(instants.as_unit(UNIT)).astype(np.int64)

    def point_in_time(self) -> Panel:
        """The panel as known just before each instant: ``funding`` of row ``t`` is the rate settled at ``t - 1 h``.

        The rate of ``t`` itself is settled after the trade, so no oracle may see it. All other fields already hold
        observations from before ``t``. Of the coin table only what was known at the last row is left
        (:meth:`Coin.as_of`).
        """
        if self.as_known:
            return self
        fields = dict(self.fields)
        if "funding" in fields:
            shifted = np.full_like(fields["funding"], np.nan)
            shifted[1:] = fields["funding"][:-1]
            fields["funding"] = shifted
        table = tuple(coin.as_of(self.index[-1]) for coin in self.table) if len(self.index) else self.table
        return replace(self, fields=fields, table=table, as_known=True)

    def known(self) -> Panel:
        """The former name of :meth:`point_in_time`."""
        return self.point_in_time()

    def until(self, instant: pd.Timestamp) -> Panel:
        """The rows up to and including `instant`, without copying.

        Listings and delistings after `instant` are not known yet, so they are absent from the coin table; lots,
        leverage and tiers stay for the ledger, and go where the panel is as known.

        Raises
        ------
        ConfigError
            For an instant without a zone, or none.
        DataError
            For one before the panel's first row.
        """
        instant = parse_instant(instant, "instant", hourly=False)
        stop = int(self.index.searchsorted(instant, side="right"))
        if stop == 0:
            raise DataError(f"The panel starts at {show(self.index[0])}, after {show(instant)}.")
        table = tuple(coin.as_of(instant, terms=self.as_known) for coin in self.table)
        cut = {
            "index": self.index[:stop],
            "fields": RecordedFields((name, values[:stop]) for name, values in self.fields.items()),
            "tradable": self.tradable[:stop],
            "table": table,
            "live_rows": max(0, self.live_rows - len(self.index) + stop),
        }
        # Rows of a panel are valid as they are: to examine them again takes longer than most oracles.
        panel = object.__new__(type(self))
        for item in dataclass_fields(self):
            object.__setattr__(panel, item.name, cut.get(item.name, getattr(self, item.name)))
        return panel

    def as_of(self, instant: pd.Timestamp) -> Panel:
        """What an oracle may see at `instant`: :meth:`point_in_time`, then :meth:`until`, whose errors it raises."""
        return self.point_in_time().until(instant)

    @property
    def sz_decimals(self) -> np.ndarray:
        """Size decimals a coin, (N,) float64; NaN where unknown."""
        return np.array(
            [np.nan if coin.sz_decimals is None else coin.sz_decimals for coin in self.table], dtype=np.float64
        )


def with_coins(panel: Panel, kept: Sequence[int] | np.ndarray, first: int = 0) -> Panel:
    """The panel with the columns `kept`, their numbers or (N,) bool, and the rows from `first` on."""
    columns = np.arange(len(panel.coins))[kept]
    return replace(
        panel,
        index=panel.index[first:],
        coins=tuple(panel.coins[column] for column in columns),
        fields={name: values[first:, columns] for name, values in panel.fields.items()},
        tradable=panel.tradable[first:, columns],
        table=tuple(panel.table[column] for column in columns),
    )


def tradable_rule(
    index: pd.DatetimeIndex,
    fields: Mapping[str, np.ndarray],
    table: Sequence[Coin],
    observed: Mapping[str, np.ndarray] | None = None,
) -> np.ndarray:
    """Where an order could have been filled, point in time.

    A coin is tradable at ``t`` when it has a price there, the hour had volume or a two-sided quote (either counts, and
    the pair of impact prices is a quote), ``t`` is not before the listing and not after the delisting. The listing is
    the coin table's or, without one, the first row with a funding rate; without funding data no listing is assumed.

    A row in which no coin of a dex has a volume (0 included) or a quote comes from sources that observe neither, so
    there the price is enough. It is decided by row and not by cell: where others are observed, a coin without any
    evidence had no market.

    Parameters
    ----------
    index : DatetimeIndex, shape (T,)
        Hourly instants, UTC.
    fields : mapping of str to ndarray, each (T, N)
        ``mid`` and what else there is.
    table : sequence of Coin, length N
        Listings and delistings.
    observed : mapping of str to ndarray, each (T,) bool, optional
        By dex, rows in which volume or quotes are observed for any coin of it, when `fields` holds only some of them:
        what a coin's rows mean must not depend on the other coins of the panel. Default: as `fields` has it.

    Returns
    -------
    ndarray, shape (T, N), bool
    """
    tradable = ~np.isnan(fields["mid"])
    evidence = two_sided(fields, tradable.shape)
    witnessed: Any = evidence
    if "volume_usd" in fields:
        evidence |= fields["volume_usd"] > 0
        witnessed = evidence | ~np.isnan(fields["volume_usd"])
    dexes = np.array([coin.dex for coin in table])
    for dex in dict.fromkeys(dexes.tolist()):
        own: Any = slice(None) if (dexes == dex).all() else np.flatnonzero(dexes == dex)
        seen = witnessed[:, own].any(axis=1) | (False if observed is None else observed[dex])
        tradable[:, own] &= evidence[:, own] | ~seen[:, None]
    for column, coin in enumerate(table):
        if coin.listed is not None:
            tradable[: index.searchsorted(coin.listed), column] = False
        elif "funding" in fields:
            stamped = np.flatnonzero(~np.isnan(fields["funding"][:, column]))
            tradable[: stamped[0] if len(stamped) else len(index), column] = False
        if coin.delisted is not None:
            tradable[index.searchsorted(coin.delisted, side="right") :, column] = False
    return tradable


def two_sided(fields: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Cells with a two-sided quote, an array of bool of the shape of the fields."""
    quoted = np.zeros(shape, dtype=np.bool_)
    for low, high in QUOTES:
        if low in fields and high in fields:
            quoted |= ~np.isnan(fields[low]) & ~np.isnan(fields[high])
    return quoted


def _check_field(name: str) -> None:
    if name not in FIELDS and name != "tradable":
        raise DataError(f"Unknown panel field {name!r}.{did_you_mean(name, FIELDS)} Fields: {', '.join(FIELDS)}.")


def _aligned(name: str, frame: pd.DataFrame, index: pd.DatetimeIndex, coins: tuple[str, ...]) -> np.ndarray:
    """Values of `frame` at the panel's instants and coins; absent ones are NaN, others than the panel's an error."""
    if not isinstance(frame.index, pd.DatetimeIndex) or frame.index.tz is None or frame.index.hasnans:
        raise DataError(f"The index of {name} must be timezone-aware instants; got {_describe_index(frame.index)}.")
    own = frame.set_axis(frame.index.tz_convert("UTC").as_unit(UNIT), axis=0)
    own.columns = [str(coin) for coin in frame.columns]
    if own.index.has_duplicates or own.columns.has_duplicates:
        raise DataError(f"The frame of {name} has repeated instants or coins.")
    extra = [coin for coin in own.columns if coin not in set(coins)]
    if extra:
        raise DataError(f"{name} has coins that mid lacks: {join_first(extra)}.{did_you_mean(extra[0], coins)}")
    outside = own.index.difference(index)
    if len(outside):
        raise DataError(f"{name} has instants that mid lacks, the first {show(outside[0])} ({len(outside)} in all).")
    if own.index.equals(index) and tuple(own.columns) == coins:
        return own.to_numpy()
    return own.reindex(index=index, columns=list(coins)).to_numpy()


def _table(given: Sequence[Coin], coins: tuple[str, ...]) -> tuple[Coin, ...]:
    others = [coin for coin in given if not isinstance(coin, Coin)]
    if others:
        raise DataError(
            f"table holds {others[0]!r}, which is not a Coin. Write table=[Coin('BTC', sz_decimals=5), ...]."
        )
    by_name = {coin.name: coin for coin in given}
    if len(by_name) < len(given):
        names = [coin.name for coin in given]
        raise DataError(
            f"table has two entries for {join_first(name for name in by_name if names.count(name) > 1)}. Keep one."
        )
    unknown = [name for name in by_name if name not in set(coins)]
    if unknown:
        raise DataError(
            f"table has coins that mid lacks: {join_first(unknown)}.{did_you_mean(unknown[0], coins)} Leave them out."
        )
    return tuple(by_name.get(coin, Coin(coin)) for coin in coins)


def _numbers(name: str, values: np.ndarray) -> np.ndarray:
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"Panel field {name!r} has a value that is not a number: {error}.") from error


def _describe_index(index: pd.Index) -> str:
    if not isinstance(index, pd.DatetimeIndex):
        return f"{type(index).__name__} of {index.dtype}"
    if len(index) == 0:
        return "an empty index"
    if index.hasnans:
        return "rows without an instant"
    if index.tz is None:
        return f"naive timestamps from {index[0]} (add tz_localize('UTC'))"
    nanoseconds = index.as_unit("ns").asi8
    wrong = np.flatnonzero(np.diff(nanoseconds) != pd.Timedelta(hours=1).value)
    if len(wrong):
        return f"a step from {show(index[wrong[0]])} to {show(index[wrong[0] + 1])}"
    return f"instants off the hour, from {index[0].isoformat()}"
