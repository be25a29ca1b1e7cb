"""One coin of the coin table: its dex, listing, lots, leverage, margin and fees, and from when they were known."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

from engine.errors import DataError

#: More decimals of a size are a mistake: a float64 has some 16 digits.
_MOST_DECIMALS = 18
#: What the venue and we call the margin of a coin; without a name it is cross margin.
MARGIN_MODES = {
    None: None,
    "cross": "cross",
    "normal": "cross",
    "isolated": "isolated",
    "strictIsolated": "isolated",
    "noCross": "isolated",
}
#: Part of the fee, and of the volume that counts toward a fee tier, that growth mode leaves.
_GROWTH = 0.1
#: Fields of a coin that its text leaves out where they are not set, so that digests from before they came stay valid.
_LATER = ("collateral", "margin_mode", "fee_terms", "sessions", "halts")


def dex_of(name: str) -> str:
    """The builder's dex of a coin's name, ``xyz`` of ``xyz:TSLA``; empty for the main dex."""
    dex, colon, _ = name.partition(":")
    return dex if colon else ""


@dataclass(frozen=True)
class FeeTerms:
    """What a builder's coin adds to the venue's fees, and since when that is known.

    Source: the fee page of the venue; HIP-3.

    Attributes
    ----------
    seen : Timestamp or None
        Instant of the answer that said so; None where it is unknown.
    scale : float
        The deployer's fee scale, at least 0.
    growth : bool
        Growth mode.
    """

    seen: pd.Timestamp | None
    scale: float
    growth: bool

    def __post_init__(self) -> None:
        if self.seen is not None:
            if not isinstance(self.seen, pd.Timestamp) or self.seen.tz is None:
                raise self._refusal("seen", "a timezone-aware Timestamp or None")
            object.__setattr__(self, "seen", self.seen.tz_convert("UTC"))
        if not _is(self.scale, Real) or not 0.0 <= self.scale < np.inf:
            raise self._refusal("scale", "a number of at least 0")
        if not isinstance(self.growth, bool | np.bool_):
            raise self._refusal("growth", "true or false")
        object.__setattr__(self, "scale", float(self.scale))
        object.__setattr__(self, "growth", bool(self.growth))

    @property
    def factor(self) -> float:
        """Factor on a fee: ``1 + scale`` below a scale of 1, twice the scale from it on, times :attr:`growth_factor`.

        A rebate, which is a negative rate, has :attr:`growth_factor` alone.
        """
        return (1.0 + self.scale if self.scale < 1.0 else 2.0 * self.scale) * self.growth_factor

    @property
    def growth_factor(self) -> float:
        """0.1 in growth mode, else 1: factor on a rebate, and on the volume that counts toward a fee tier."""
        return _GROWTH if self.growth else 1.0

    def _refusal(self, name: str, wanted: str) -> DataError:
        return DataError(f"FeeTerms: {name} = {getattr(self, name)!r} is not accepted; it must be {wanted}.")


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
        Instant from which lots, leverage, tiers, collateral and margin mode were known: that of the `meta` response. An
        oracle sees them only on data that reach it, and never where it is None; the ledger always does.
    collateral : str or None
        Token in which the coin is settled (``USDC``, ``USDH``); unknown coins of the main dex are settled in USDC.
    margin_mode : {"cross", "isolated"} or None
        "isolated": a position has margin of its own and cannot have the account's. None is cross. The venue's names
        (``normal``; ``strictIsolated``, ``noCross``) are taken too.
    fee_terms : tuple of FeeTerms
        What the coin adds to the venue's fees, ascending by the instant at which it was seen; empty = nothing.
    sessions : str or None
        Name in ``exchange_calendars`` of the exchange whose hours the coin follows (``XNYS``); None = always open.
    halts : tuple of (Timestamp, Timestamp)
        Between two lives of the coin, which was delisted and came back: the last row of the one and the first of the
        next. What is held is settled after ``execution.stale_hours`` of a halt, as at a delisting.
    """

    name: str
    listed: pd.Timestamp | None = None
    delisted: pd.Timestamp | None = None
    sz_decimals: int | None = None
    max_leverage: float | None = None
    margin_tiers: tuple[tuple[float, float], ...] = ()
    terms_from: pd.Timestamp | None = field(default=None, repr=False)
    collateral: str | None = None
    margin_mode: str | None = None
    fee_terms: tuple[FeeTerms, ...] = ()
    sessions: str | None = None
    halts: tuple[tuple[pd.Timestamp, pd.Timestamp], ...] = ()

    def __repr__(self) -> str:
        shown = [item for item in fields(self) if item.repr and (item.name not in _LATER or getattr(self, item.name))]
        return f"Coin({', '.join(f'{item.name}={getattr(self, item.name)!r}' for item in shown)})"

    @property
    def dex(self) -> str:
        """The builder's dex, ``xyz``; empty for the main dex."""
        return dex_of(self.name)

    @property
    def isolated(self) -> bool:
        """Whether a position can only have margin of its own."""
        return self.margin_mode == "isolated"

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
        for name in ("collateral", "sessions"):
            text = getattr(self, name)
            if text is not None and (not isinstance(text, str) or not text.strip()):
                raise self._refusal(name, text, "a name or None")
        if not isinstance(self.margin_mode, str | None) or self.margin_mode not in MARGIN_MODES:
            raise self._refusal("margin_mode", self.margin_mode, "cross, isolated or None")
        object.__setattr__(self, "margin_mode", MARGIN_MODES[self.margin_mode])
        self._check_tiers()
        self._check_fee_terms()

    def _check_fee_terms(self) -> None:
        terms: tuple[Any, ...] = tuple(self.fee_terms) if isinstance(self.fee_terms, list | tuple) else (None,)
        if not all(isinstance(one, FeeTerms) for one in terms) or not all(
            late.seen is not None and (early.seen is None or early.seen < late.seen) for early, late in pairwise(terms)
        ):
            wanted = "FeeTerms that ascend by the instant at which they were seen"
            raise self._refusal("fee_terms", self.fee_terms, wanted)
        object.__setattr__(self, "fee_terms", terms)

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
        """The coin as known at `instant`: no later listing or delisting; with `terms`, no later terms of trading.

        A delisting at `instant` itself is not known yet. Without `terms` lots, leverage, tiers, collateral, margin mode
        and the fees that the ledger takes up to `instant` stay for the ledger, and only their later date goes.
        """
        changes: dict[str, Any] = {}
        if self.listed is not None and self.listed > instant:
            changes["listed"] = None
        if self.delisted is not None and self.delisted >= instant:
            changes["delisted"] = None
        for last, back in self.halts:
            if last < instant < back:
                changes["delisted"] = last
        if (halts := tuple(halt for halt in self.halts if halt[1] <= instant)) != self.halts:
            changes["halts"] = halts
        later = self.has_terms if self.terms_from is None else self.terms_from > instant
        if later:
            changes["terms_from"] = None
            if terms:
                changes |= {"sz_decimals": None, "max_leverage": None, "margin_tiers": ()}
                changes |= {"collateral": None, "margin_mode": None}
        seen = tuple(one for one in self.fee_terms if (not terms if one.seen is None else one.seen <= instant))
        if self.fee_terms and not seen and not terms:
            seen = (replace(self.fee_terms[0], seen=None),)
        if seen != self.fee_terms:
            changes["fee_terms"] = seen
        return replace(self, **changes) if changes else self

    def fees_at(self, instant: pd.Timestamp) -> FeeTerms | None:
        """Terms of the fees at `instant`: the last that was seen by then, else the first; None where there are none."""
        seen = [one for one in self.fee_terms if one.seen is None or one.seen <= instant] or self.fee_terms[:1]
        return seen[-1] if seen else None

    def knows_fees_at(self, instant: pd.Timestamp) -> bool:
        """Whether the terms of the fees at `instant` had been seen by then, or there are none."""
        return not self.fee_terms or ((seen := self.fee_terms[0].seen) is not None and seen <= instant)

    @property
    def has_terms(self) -> bool:
        """Whether lots, leverage, tiers, collateral or margin mode are known."""
        known = (self.sz_decimals, self.max_leverage, self.collateral, self.margin_mode)
        return any(value is not None for value in known) or bool(self.margin_tiers)

    def _refusal(self, name: str, value: object, wanted: str) -> DataError:
        return DataError(f"Coin {self.name}: {name} = {value!r} is not accepted; it must be {wanted}.")


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
