"""One coin of the coin table: listing, lots, leverage and margin tiers, and from when they were known."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

from engine.errors import DataError

#: More decimals of a size are a mistake: a float64 has some 16 digits.
_MOST_DECIMALS = 18


def dex_of(name: str) -> str:
    """The builder's dex of a coin's name, ``xyz`` of ``xyz:TSLA``; empty for the main dex."""
    dex, colon, _ = name.partition(":")
    return dex if colon else ""


@dataclass(frozen=True)
class Coin:
    """One coin of the coin table; None where unknown.

    Attributes
    ----------
    name : str
        HyperLiquid's name, case-sensitive.
    listed, delisted : Timestamp or None
        First funding stamp (first price where the source has no funding); last row with a price, when it is delisted.
    sz_decimals : int or None
        Decimals of an order's size; the lot is ``10 ** -sz_decimals``.
    max_leverage : float or None
        Highest leverage; the maintenance margin is half of the initial margin at it.
    margin_tiers : tuple of (float, float)
        Where the leverage falls with size: (USD of notional from which a tier applies, its highest leverage), ascending
        from 0; empty = `max_leverage` at any size.
    terms_from : Timestamp or None
        Instant from which lots, leverage and tiers were known: that of the `meta` response. An oracle sees them only on
        data that reach it, and never where it is None; the ledger always does.
    """

    name: str
    listed: pd.Timestamp | None = None
    delisted: pd.Timestamp | None = None
    sz_decimals: int | None = None
    max_leverage: float | None = None
    margin_tiers: tuple[tuple[float, float], ...] = ()
    terms_from: pd.Timestamp | None = field(default=None, repr=False)

    @property
    def dex(self) -> str:
        """The builder's dex, ``xyz``; empty for the main dex."""
        return dex_of(self.name)

    @property
    def tiers(self) -> tuple[tuple[float, float], ...]:
        """`margin_tiers`, or the one tier of `max_leverage`; empty where neither is known."""
        return self.margin_tiers or (((0.0, self.max_leverage),) if self.max_leverage else ())

    def __post_init__(self) -> None:
        # The kernel trusts these numbers; equal coins have equal text, because it is in digests.
        if not isinstance(self.name, str) or not self.name:
            raise DataError(f"Coin {self.name!r}: a coin's name is a text, as HyperLiquid writes it.")
        for name in ("listed", "delisted", "terms_from"):
            instant = getattr(self, name)
            if instant is not None:
                if not isinstance(instant, pd.Timestamp) or instant.tz is None:
                    raise self._refusal(name, instant, "a timezone-aware Timestamp or None")
                object.__setattr__(self, name, instant.tz_convert("UTC"))
        if self.sz_decimals is not None:
            if not _is(self.sz_decimals, Integral) or not 0 <= self.sz_decimals <= _MOST_DECIMALS:
                raise self._refusal("sz_decimals", self.sz_decimals, f"a whole number from 0 to {_MOST_DECIMALS}")
            object.__setattr__(self, "sz_decimals", int(self.sz_decimals))
        if self.max_leverage is not None:
            if not _is(self.max_leverage, Real) or not 0.0 < self.max_leverage < np.inf:
                raise self._refusal("max_leverage", self.max_leverage, "a positive number or None")
            object.__setattr__(self, "max_leverage", float(self.max_leverage))
        self._check_tiers()

    def _check_tiers(self) -> None:
        try:
            tiers = tuple((float(floor), float(leverage)) for floor, leverage in self.margin_tiers)
        except (TypeError, ValueError):
            tiers = ((np.nan, np.nan),)
        falls = all(low < high and most >= less for (low, most), (high, less) in pairwise(tiers))
        if tiers and (tiers[0][0] != 0.0 or not falls or not all(0.0 < most < np.inf for _, most in tiers)):
            raise self._refusal(
                "margin_tiers",
                self.margin_tiers,
                "pairs of USD and leverage, ((0, 40), (1e6, 20)): the USD ascend from 0 and the leverage falls",
            )
        object.__setattr__(self, "margin_tiers", tiers)

    def as_of(self, instant: pd.Timestamp, terms: bool = True) -> Coin:
        """The coin as known at `instant`: no later listing or delisting; with `terms`, no later lots, leverage, tiers.

        A delisting at `instant` itself is not known yet. Without `terms` lots, leverage and tiers stay for the ledger,
        and only their later date goes.
        """
        changes: dict[str, Any] = {}
        if self.listed is not None and self.listed > instant:
            changes["listed"] = None
        if self.delisted is not None and self.delisted >= instant:
            changes["delisted"] = None
        later = self.has_terms if self.terms_from is None else self.terms_from > instant
        if later and not terms:
            changes["terms_from"] = None
        elif later:
            changes |= {"sz_decimals": None, "max_leverage": None, "margin_tiers": (), "terms_from": None}
        return replace(self, **changes) if changes else self

    @property
    def has_terms(self) -> bool:
        """Whether lots, leverage or tiers are known."""
        return self.sz_decimals is not None or self.max_leverage is not None or bool(self.margin_tiers)

    def _refusal(self, name: str, value: object, wanted: str) -> DataError:
        return DataError(f"Coin {self.name}: {name} = {value!r} is not accepted; it must be {wanted}.")


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
