"""Leverage of coins before their first trade: compared with what is known of it, set only where it differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from engine.live.dex import DEX
from engine.live.journal import Journal
from engine.live.orders import AccountState, Market
from engine.live.refusals import Refusal, classify

#: Coins that are looked up at most: a look-up weighs 20 of the exchange's 1,200 a minute, to set a leverage weighs 1.
_LOOKED_UP: Final = 40


def leverage_of(market: Market, cross: int, isolated: float, notional_usd: float) -> int:
    """The leverage that a coin is to have, a whole number.

    Parameters
    ----------
    market : Market
        Its highest leverage is not exceeded.
    cross : int
        Of coins that share the account's margin.
    isolated : float
        Of coins whose positions have margin of their own; 0 is the coin's highest, as in ``execution``.
    notional_usd : float
        Of the position; that of its margin tier is not exceeded either.
    """
    wanted = cross if market.cross else isolated or market.max_leverage or 1.0
    highest = [most for floor, most in market.terms.tiers if floor == 0.0 or floor < notional_usd]
    return max(1, int(min([wanted, *highest])))


def leverage_to_set(
    dex: DEX, journal: Journal, state: AccountState, opened: Mapping[Market, float], cross: int, isolated: float
) -> list[tuple[Market, int]]:
    """The coins whose leverage is not, or not known to be, as wanted, with what it should be.

    Parameters
    ----------
    dex : DEX
        Looked up for coins with cross margin that are not held and that the journal has nothing of, if they are few.
    journal : Journal
        What was set before.
    state : AccountState
        Leverage of the positions.
    opened : mapping of Market to float
        Coins to be traded, and the notional that they are to have, USD.
    cross, isolated : int, float
        Wanted, as in :func:`leverage_of`.
    """
    known = {**journal.state.leverage, **state.leverage}
    wanted = {
        market: leverage_of(market, cross, isolated, notional_usd)
        for market, notional_usd in opened.items()
        if market.coin in state.leverage or market.coin not in state.units
    }
    # Isolated margin is set in any case: it must be what the coin's liquidation was reckoned with.
    unknown = [market for market in wanted if market.coin not in known and market.cross]
    if len(unknown) <= _LOOKED_UP:
        values = dex.leverages(unknown)
        known |= {market.coin: (values[market.coin], market.cross) for market in unknown if market.coin in values}
    return [(market, value) for market, value in wanted.items() if known.get(market.coin) != (value, market.cross)]


def duration_text(dex: DEX, count: int) -> str:
    """How long it takes to set the leverage of so many coins; ``""`` where it takes no time."""
    seconds = dex.leverage_seconds(count)
    return f"the leverage of {count} coins is set first: about {max(1.0, seconds):.0f} s" if seconds > 0.0 else ""


def set_leverages(
    dex: DEX,
    journal: Journal,
    state: AccountState,
    wanted: list[tuple[Market, int]],
    announce: Callable[[str], object],
) -> Mapping[str, str]:
    """Set leverages, and journal them; returns refusals by coin, but for coins that are held.

    A position keeps the leverage that it has where the exchange refuses another one. `announce` is told before how
    long it takes.
    """
    done: dict[str, int] = {}
    isolated: list[str] = []
    refused: dict[str, str] = {}
    refusals: dict[str, str] = {}
    if text := duration_text(dex, len(wanted)):
        announce(text)
    for (market, leverage), refusal in zip(wanted, dex.set_leverages(wanted), strict=True):
        coin = market.coin
        if not refusal:
            done[coin] = leverage
            isolated += [] if market.cross else [coin]
            continue
        refused[coin] = refusal
        if coin not in state.units or Refusal.FATAL in classify(refusal):
            refusals[coin] = f"leverage {leverage}: {refusal}"
    if wanted:  # one entry: to write 120 to the disk takes longer than to set them
        journal.append("leverages_set", state.time, leverages=done, isolated=isolated, refused=refused)
    return refusals
