"""Refusal messages of the exchange, and what each means for the order and for the run."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Flag, auto
from types import MappingProxyType
from typing import Final


class Refusal(Flag):
    """What a refusal means; none of the flags: it may be tried again, and whether it had no effect is not certain."""

    UNCLEAR = 0
    #: It certainly had no effect. A message that is not in the table may belong to an order that was executed (as in
    #: the outage of 2025-07-29, or a nonce that is a duplicate since a proxy sent the request twice): it is looked up.
    CERTAIN = auto()
    #: A second attempt would be refused again.
    PERMANENT = auto()
    #: Every order of the account would be refused.
    FATAL = auto()
    #: The order is worth too little.
    SMALL = auto()
    #: It would be accepted with a price that is not beyond the oracle's.
    BEYOND_ORACLE = auto()


#: Part of a message in lower case (the texts vary) -> its flags. A message has the flags of every part in it.
MESSAGES: Final[Mapping[str, Refusal]] = MappingProxyType(
    {
        "minimum value": Refusal.CERTAIN | Refusal.PERMANENT | Refusal.SMALL,
        "open interest": Refusal.CERTAIN | Refusal.PERMANENT,
        "open-interest": Refusal.CERTAIN | Refusal.PERMANENT,
        "openinterest": Refusal.CERTAIN | Refusal.PERMANENT,  # the names of ``orderStatus``
        "more aggressive than oracle": Refusal.CERTAIN | Refusal.BEYOND_ORACLE,  # while open interest is at its cap
        "tooaggressive": Refusal.CERTAIN | Refusal.BEYOND_ORACLE,
        "too far from oracle": Refusal.CERTAIN | Refusal.PERMANENT,
        "80% away": Refusal.CERTAIN | Refusal.PERMANENT,
        "has invalid": Refusal.CERTAIN | Refusal.PERMANENT,
        "tick size": Refusal.CERTAIN | Refusal.PERMANENT,
        "duplicate cloid": Refusal.CERTAIN,  # of a journal that is gone: the next number of the order is free
        "margin": Refusal.CERTAIN,
        "insufficient margin": Refusal.PERMANENT,
        "margin tier": Refusal.PERMANENT,
        "reduce only": Refusal.CERTAIN,
        "reduce only order": Refusal.PERMANENT,
        "no price": Refusal.PERMANENT,
        "post only": Refusal.CERTAIN,
        "post-only": Refusal.CERTAIN,
        "could not immediately match": Refusal.CERTAIN,
        "no liquidity": Refusal.CERTAIN,
        "zero size": Refusal.CERTAIN,
        "delisted": Refusal.CERTAIN,
        "unknown asset": Refusal.CERTAIN,
        "expired": Refusal.CERTAIN,
        "vault": Refusal.CERTAIN,
        "does not exist": Refusal.CERTAIN | Refusal.FATAL,
        "must deposit": Refusal.CERTAIN | Refusal.FATAL,
        "too many cumulative": Refusal.CERTAIN,
        "too many cumulative requests": Refusal.FATAL,
        "agent": Refusal.FATAL,
        "kill switch": Refusal.FATAL,
    }
)


def classify(message: str) -> Refusal:
    """Flags of a refusal message, whatever its capitals."""
    text, flags = message.lower(), Refusal.UNCLEAR
    for part, meaning in MESSAGES.items():
        if part in text:
            flags |= meaning
    return flags
