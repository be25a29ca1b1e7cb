"""Limits of a live account, checked before any order; a breach stops the run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

import numpy as np
import pandas as pd

from engine.clock import show
from engine.config import parse_assignments
from engine.errors import LimitError, SpecError, did_you_mean
from engine.live.journal import JournalState
from engine.live.orders import Market, Plan
from engine.panel import Panel

#: A day's loss is measured against the oldest equity that the journal has of this span.
_DAY: Final = pd.Timedelta(hours=25)


@dataclass(frozen=True)
class Limits:
    """What stops a run; None switches one off.

    Attributes
    ----------
    gross : float or None
        Highest ``sum(abs(position value)) / equity`` after a plan. Openings are also held back while the gross would
        exceed it, for reductions that are not filled yet.
    coin_weight : float or None
        Highest ``abs(position value) / equity`` of one coin.
    order_notional_usd : float or None
        Highest notional of one order.
    net_frac : float or None
        How far the net exposure, as a fraction of equity, may be beyond that of the weights and beyond 0 when a coin
        cannot be traded; openings that would take it farther are held back.
    daily_loss_frac : float or None
        Loss of equity since the oldest record of the last 25 hours.
    equity_change_frac : float or None
        Change of equity, either way, since the last record of whatever age: deposits, withdrawals, a wrong account.
    price_deviation_frac : float or None
        Distance of mid from the oracle price of a coin to be traded.
    data_age_hours : float or None
        Age of each field that the oracle reads: of its newest cached row.
    equity_multiple : float or None
        Equity over the account size at which a spec's capacity and volume gates were passed.
    clock_error_seconds : float or None
        Distance of this machine's clock, by which the moment of a trade is chosen, from the exchange's.
    weights_age_hours : float or None
        Age of the row of a weights file; off by default, since a book may be meant to be held.
    """

    gross: float | None = 1.1
    coin_weight: float | None = None
    order_notional_usd: float | None = None
    net_frac: float | None = 0.2
    daily_loss_frac: float | None = 0.15
    equity_change_frac: float | None = 0.5
    price_deviation_frac: float | None = 0.05
    data_age_hours: float | None = 3.0
    equity_multiple: float | None = 3.0
    clock_error_seconds: float | None = 60.0
    weights_age_hours: float | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
                raise SpecError(
                    f"limits.{item.name} = {value!r} is not accepted: write a number from 0, or none to switch it off."
                )
            object.__setattr__(self, item.name, float(value))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Limits from a mapping; None, ``"none"`` and ``"off"`` switch one off, an unknown name is refused."""
        known = [item.name for item in fields(cls)]
        for name in values:
            if name not in known:
                raise SpecError(f"Unknown limit {name!r}.{did_you_mean(name, known)} Limits: {', '.join(known)}.")
        return cls(**{name: None if _switches_off(value) else value for name, value in values.items()})

    @classmethod
    def of(cls, max_gross: float) -> Self:
        """The defaults for books of this gross: a tenth more, since costs and prices move it."""
        return cls(gross=1.1 * max_gross)

    @classmethod
    def assigned(cls, assignments: Iterable[str], max_gross: float) -> Self:
        """:meth:`of` with the ``name=value`` of ``--limit`` over it, as :func:`parse_limits` reads them."""
        return cls.from_dict({**cls.of(max_gross).to_dict(), **parse_limits(assignments)})

    @classmethod
    def none(cls) -> Self:
        """No limit at all."""
        return cls(**dict.fromkeys((item.name for item in fields(cls)), None))

    def to_dict(self) -> dict[str, float | None]:
        """Plain values; ``from_dict`` of it gives equal limits."""
        return asdict(self)


def parse_limits(assignments: Iterable[str]) -> dict[str, Any]:
    """Values of the options ``--limit name=value``, for :meth:`Limits.from_dict`; ``none`` or ``off`` switches one off.

    Raises
    ------
    ConfigError
        For what is not ``name=value``.
    """
    return parse_assignments("--limit", assignments, "name=value", "gross=1.2")


def _switches_off(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in ("none", "off"))


def net_bounds(limit: float, own: float) -> tuple[float, float]:
    """Lowest and highest net exposure of a book that wants `own`, fractions of equity: `limit` beyond it and 0."""
    return min(0.0, own) - limit, max(0.0, own) + limit


def newest_rows(panel: Panel, fields: Iterable[str]) -> dict[str, pd.Timestamp]:
    """When each field was last known: for at least half of the coins that can be traded and ever had it.

    A field that no coin ever had is left out.
    """
    ends = {}
    for name in sorted(set(fields) & panel.fields.keys()):
        known = np.isfinite(panel.values(name))
        having = panel.tradable & known.any(axis=0)
        counts = (known & having).sum(axis=1)
        rows = np.flatnonzero((counts > 0) & (2 * counts >= having.sum(axis=1)))
        if len(rows):
            ends[name] = panel.index[rows[-1]]
    return ends


def plan_breaches(limits: Limits, plan: Plan, now: pd.Timestamp, newest: Mapping[str, pd.Timestamp]) -> list[str]:
    """Limits that a plan breaks by its book or its data, a phrase each, the limit's name first.

    Parameters
    ----------
    limits : Limits
        What must hold.
    plan : Plan
        What would be ordered.
    now : Timestamp
        The age of the data is counted to it.
    newest : mapping of str to Timestamp
        Newest cached row of each field that the oracle read.
    """
    broken, equity = [], plan.equity_usd
    # A book that shrinks is accepted whatever its gross: it moves toward the limit.
    if limits.gross is not None and equity <= 0.0 and plan.weights:
        broken.append(
            f"gross: the targets are not zero, and equity is {equity:,.2f} USD; with the key of an agent wallet, "
            "account_address must be its master's"
        )
    elif limits.gross is not None and not plan.gross_after <= max(limits.gross, 0.0) and plan.orders:
        if any(order.grows for order in plan.orders) or math.isnan(plan.gross_after):
            broken.append(f"gross: the plan leads to {plan.gross_after:.3f} of equity; the limit is {limits.gross:g}")
    for order in plan.orders:
        share = abs(order.target_units) * order.mid / equity if equity > 0.0 else math.inf
        if limits.coin_weight is not None and share > limits.coin_weight and order.grows:
            text = f"{order.coin} would be {share:.3f} of equity; the limit is {limits.coin_weight}"
            broken.append(f"coin_weight: {text}")
        if limits.order_notional_usd is not None and order.notional_usd > limits.order_notional_usd:
            broken.append(
                f"order_notional_usd: the order of {order.coin} is {order.notional_usd:,.2f} USD; the limit is "
                f"{limits.order_notional_usd:,.2f}"
            )
    for field, end in newest.items():
        age = (now - end) / pd.Timedelta(hours=1)
        if limits.data_age_hours is not None and age > limits.data_age_hours:
            broken.append(
                f"data_age_hours: the newest cached row of {field}, which the weights are made from, is {show(end)}, "
                f"{age:.1f} hours old; the limit is {limits.data_age_hours:g}"
            )
    return broken


def held_back(limits: Limits, plan: Plan) -> list[str]:
    """The limit that does not stop a run but its openings, if a plan breaks it: a leg has no quote."""
    if limits.net_frac is None or not plan.unreachable or not plan.equity_usd > 0.0:
        return []
    low, high = net_bounds(limits.net_frac, plan.net_target)
    if low <= plan.net_after <= high:
        return []
    return [
        f"net_frac: without a quote of {', '.join(plan.unreachable)} the plan leads to a net exposure of "
        f"{plan.net_after:+.3f} of equity, beyond {low:+.3f} to {high:+.3f}; its openings are held back"
    ]


def run_breaches(
    limits: Limits,
    equity_usd: float,
    state: JournalState,
    now: pd.Timestamp,
    markets: Mapping[str, Market],
    coins: Iterable[str],
    clock_error_seconds: float,
    promoted_usd: float | None,
) -> list[str]:
    """Limits that a run breaks whatever its plan, also one that continues a plan; a phrase each, as above.

    Parameters
    ----------
    limits : Limits
        What must hold.
    equity_usd : float
        Before any order.
    state : JournalState
        Of the account's journal: equity as it was recorded.
    now : Timestamp
        The day of a loss ends with it.
    markets : mapping of coin to Market
        Mids and oracle prices.
    coins : iterable of str
        To be traded.
    clock_error_seconds : float
        Positive: this machine's clock is ahead of the exchange's.
    promoted_usd : float or None
        Account size at which the strategy passed its gates; None where it passed none.
    """
    broken = _of_equity(limits, equity_usd, state, now)
    most = limits.equity_multiple
    if most is not None and promoted_usd is not None and equity_usd > most * promoted_usd:
        broken.append(
            f"equity_multiple: equity is {equity_usd:,.0f} USD, {equity_usd / promoted_usd:,.1f} times the "
            f"{promoted_usd:,.0f} USD at which the gates of capacity and volume were passed; the limit is {most:g}. "
            "Promote it anew with --account"
        )
    broken += filter(None, (price_breach(limits, markets[coin]) for coin in coins if coin in markets))
    most, error = limits.clock_error_seconds, clock_error_seconds
    if most is not None and abs(error) > most:
        broken.append(
            f"clock_error_seconds: this machine's clock is {abs(error):,.0f} s "
            f"{'ahead of' if error > 0.0 else 'behind'} the exchange's, so this is not the moment of the decision; let "
            f"it follow a time server. The limit is {most:g}"
        )
    return broken


def price_breach(limits: Limits, market: Market, start: float | None = None) -> str:
    """How mid is too far from the oracle price, or from `start`, mid at the start of a run; ``""`` where it is not."""
    most = limits.price_deviation_frac
    for what, price in (("mid at the start of the run", start), ("oracle price", market.oracle)):
        # Not `>`: NaN must not pass.
        if most is not None and price is not None and not abs(market.mid - price) <= most * price:
            figure = "not known" if math.isnan(price) else f"{price:.6g}"
            text = f"{market.coin} is at {market.mid:.6g}, its {what} is {figure}; the limit is {most:.2%}"
            return f"price_deviation_frac: {text}"
    return ""


def refuse(broken: Sequence[str], what: str) -> None:
    """Raise a LimitError that names what is broken, if anything is; `what` is which run."""
    if broken:
        raise LimitError(
            f"{what}: no order was sent, because of the limit {'; '.join(broken)}. Check the account and the market. "
            "If they are as intended, raise the limit in the spec (a new promotion) or, for a weights file, with "
            "--limit; after a deposit or a withdrawal `hlbt live accept-equity SPEC`, or --accept-equity once."
        )


def _of_equity(limits: Limits, equity: float, state: JournalState, now: pd.Timestamp) -> list[str]:
    broken = []
    # A run that was refused is a record of the day, too; but it accepts no deposit and no withdrawal.
    recent = [record.equity_usd for record in state.equities if now - _DAY <= record.time <= now]
    if limits.daily_loss_frac is not None and recent and recent[0] > 0.0:
        loss = 1.0 - equity / recent[0]
        if loss > limits.daily_loss_frac:
            broken.append(
                f"daily_loss_frac: equity fell by {loss:.2%} within a day, from {recent[0]:,.2f} to {equity:,.2f} USD; "
                f"the limit is {limits.daily_loss_frac:.2%}"
            )
    accepted = state.accepted_equities()
    if limits.equity_change_frac is not None and accepted and accepted[-1].equity_usd > 0.0:
        last = accepted[-1]
        change = equity / last.equity_usd - 1.0
        if abs(change) > limits.equity_change_frac:
            broken.append(
                f"equity_change_frac: equity changed by {change:+.2%} since {show(last.time)}, from "
                f"{last.equity_usd:,.2f} to {equity:,.2f} USD; the limit is {limits.equity_change_frac:.2%}"
            )
    return broken
