"""What a builder's coin adds to the coin table."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
import pytest

from engine import Coin, Panel
from engine.coin import FeeTerms, dex_of
from engine.errors import DataError
from helpers.fees import FACTORS

DAYS = pd.date_range("2026-11-01", periods=4, tz="UTC")
FIRST, SECOND = FeeTerms(DAYS[1], 1.0, True), FeeTerms(DAYS[2], 1.0, False)
TSLA = Coin("xyz:TSLA", None, None, 3, 10.0, (), DAYS[1], "USDC", "isolated", (FIRST, SECOND), "XNYS")


def test_a_dex_is_in_the_name() -> None:
    assert (dex_of("xyz:TSLA"), dex_of("BTC"), TSLA.dex, Coin("kPEPE").dex) == ("xyz", "", "xyz", "")


@pytest.mark.parametrize(("growth", "scale", "factor"), FACTORS)
def test_factors_are_those_of_the_fee_page(growth: bool, scale: float, factor: float) -> None:
    terms = FeeTerms(None, scale, growth)
    assert terms.factor == pytest.approx(factor, rel=1e-15)
    assert terms.growth_factor == (0.1 if growth else 1.0)


def test_a_coin_without_the_new_fields_has_the_text_it_had() -> None:
    """Specs, runs and trials of before have a digest of it."""
    listed = "listed=Timestamp('2026-11-01 00:00:00+0000', tz='UTC')"
    text = f"Coin(name='BTC', {listed}, delisted=None, sz_decimals=5, max_leverage=40.0, margin_tiers=((0.0, 40.0),))"
    assert repr(Coin("BTC", DAYS[0], None, 5, 40, ((0, 40),), DAYS[2])) == text
    frame = pd.DataFrame({"BTC": [1.0, 2.0]}, index=DAYS[:1].append(DAYS[:1] + pd.Timedelta(hours=1)))
    digest = "0b43aa03252ded7870a96204db7fe343e0e8027f816f913ca6ac8777662a50d4"
    plain = Panel.from_frames(mid=frame, table=[Coin("BTC", sz_decimals=5)]).digest
    assert plain == digest
    for other in (
        Coin("BTC", sz_decimals=5, collateral="USDC"),
        Coin("BTC", sz_decimals=5, margin_mode="isolated"),
        Coin("BTC", sz_decimals=5, fee_terms=(FIRST,)),
        Coin("BTC", sz_decimals=5, fee_terms=(SECOND,)),
        Coin("BTC", sz_decimals=5, sessions="XNYS"),
    ):
        assert Panel.from_frames(mid=frame, table=[other]).digest != plain


def test_names_of_the_venue_for_the_margin_mode() -> None:
    modes = {"normal": "cross", "cross": "cross", "strictIsolated": "isolated", "noCross": "isolated", None: None}
    assert {mode: Coin("A", margin_mode=mode).margin_mode for mode in modes} == modes
    assert TSLA.isolated and not Coin("A", margin_mode="normal").isolated and not Coin("A").isolated


def test_terms_are_hidden_from_an_oracle_before_they_were_seen() -> None:
    """The ledger takes the first for all days before it, and its cut holds nothing of what came later."""
    assert TSLA.as_of(DAYS[3]) == TSLA.as_of(DAYS[2]) == TSLA
    assert TSLA.as_of(DAYS[1]).fee_terms == (FIRST,) and TSLA.as_of(DAYS[1]).isolated
    assert TSLA.as_of(DAYS[0]) == Coin("xyz:TSLA", sessions="XNYS")
    cut = TSLA.as_of(DAYS[0], terms=False)
    assert cut.isolated and cut.collateral == "USDC" and cut.fee_terms == (FeeTerms(None, 1.0, True),)
    undated = Coin("xyz:TSLA", fee_terms=(FeeTerms(None, 0.5, False), SECOND))
    assert undated.as_of(DAYS[3]).fee_terms == (SECOND,)
    assert undated.as_of(DAYS[3], terms=False) == undated
    assert undated.as_of(DAYS[0], terms=False).fee_terms == undated.fee_terms[:1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"collateral": ""}, "collateral = '' is not accepted; it must be a name or None"),
        ({"collateral": 5}, "collateral = 5"),
        ({"sessions": " "}, "sessions = ' '"),
        ({"margin_mode": "crossed"}, "margin_mode = 'crossed' is not accepted; it must be cross, isolated or None"),
        ({"margin_mode": ["cross"]}, "margin_mode = ['cross']"),
        ({"fee_terms": (SECOND, FIRST)}, "FeeTerms that ascend by the instant at which they were seen"),
        ({"fee_terms": (FIRST, FIRST)}, "FeeTerms that ascend"),
        ({"fee_terms": (FIRST, FeeTerms(None, 1.0, True))}, "FeeTerms that ascend"),
        ({"fee_terms": (1.0,)}, "fee_terms = (1.0,)"),
        ({"fee_terms": 1.0}, "fee_terms = 1.0"),
    ],
)
def test_coins_that_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)) as error:
        Coin("xyz:TSLA", **values)
    assert str(error.value).startswith("Coin xyz:TSLA: ")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((DAYS[0], -0.1, False), "scale = -0.1 is not accepted; it must be a number of at least 0"),
        ((DAYS[0], float("nan"), False), "scale = nan"),
        ((DAYS[0], True, False), "scale = True"),
        ((DAYS[0], 1.0, "enabled"), "growth = 'enabled' is not accepted; it must be true or false"),
        (("2026-11-01", 1.0, False), "seen = '2026-11-01' is not accepted; it must be a timezone-aware Timestamp"),
        ((pd.Timestamp("2026-11-01"), 1.0, False), "seen = Timestamp('2026-11-01 00:00:00') is not accepted"),
    ],
)
def test_fee_terms_that_are_refused(values: tuple[Any, ...], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        FeeTerms(*values)
