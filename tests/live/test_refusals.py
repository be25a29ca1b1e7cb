"""The table of refusal messages: what each says of the order and of the run."""

from __future__ import annotations

import pytest

from engine.live.refusals import MESSAGES, Refusal, classify
from helpers import hyperliquid_faults as faults

#: Rejects of the exchange after which the same order may well succeed.
AGAIN = {"BadAloPx", "IocCancel", "MarketOrderNoLiquidity", "ZeroSize", "PostOnlyPeriod", "Delisted", "DuplicateCloid"}
#: Messages in which no part of the table is found: the exchange is asked what became of the order.
UNCLEAR = {"BadTriggerPx"}


@pytest.mark.parametrize("name", sorted(faults.REJECTS))
def test_every_documented_reject_has_its_flags(name: str) -> None:
    refusal = classify(faults.REJECTS[name][0])
    assert (Refusal.CERTAIN in refusal) is (name not in UNCLEAR)
    assert (Refusal.PERMANENT in refusal) is (name not in UNCLEAR | AGAIN)
    assert (Refusal.BEYOND_ORACLE in refusal) is (name == "TooAggressiveAtOpenInterestCap")
    assert Refusal.FATAL not in refusal
    assert (Refusal.SMALL in refusal) is (name == "MinTradeNtl")


def test_the_names_of_statuses_at_the_cap_are_known() -> None:
    """``orderStatus`` has them where an answer was lost."""
    for name, (text, status) in faults.REJECTS.items():
        if "OpenInterest" in name:
            assert classify(status) == classify(text)


@pytest.mark.parametrize("text", [faults.NO_WALLET, faults.NO_DEPOSIT, faults.TOO_MANY_REQUESTS])
def test_what_every_order_would_meet_is_fatal(text: str) -> None:
    assert Refusal.FATAL in classify(text.upper()) and Refusal.CERTAIN in classify(text)


@pytest.mark.parametrize("text", ["", "Internal error", "Upstream request timeout", faults.DUPLICATE_NONCE])
def test_a_message_that_is_not_known_is_not_certain(text: str) -> None:
    assert classify(text) is Refusal.UNCLEAR


def test_parts_are_in_lower_case() -> None:
    assert all(part == part.lower() and part for part in MESSAGES)
