"""The audit: every kind of leak is planted and caught by name, honest oracles pass, and what it disturbs is right."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Oracle, Panel, RunConfig, decisions_of, load_panel
from engine.errors import OracleError
from engine.lookahead.audit import audit, check_causal
from engine.lookahead.comparison import TOLERANCE
from engine.lookahead.perturbations import changed_after, changed_at, with_newcomers
from engine.panel import with_coins
from helpers.audits import Honest, Planted, change, statuses
from helpers.panels import holed_panel, random_panel
from research.oracles.carry import Carry
from research.oracles.construction import CONSTRUCTIONS
from research.oracles.equal_weight import EqualWeight
from research.oracles.low_volatility import LowVolatility
from research.oracles.momentum import Momentum
from research.oracles.reversal import Reversal


@pytest.fixture(scope="module")
def panel() -> Panel:
    return holed_panel()


@pytest.fixture(scope="module")
def decisions(panel: Panel) -> pd.DatetimeIndex:
    return decisions_of(panel, RunConfig())


# Planted leaks --------------------------------------------------------------------------------------------------------


class FullSampleScore(Planted):
    def score(self, panel: Panel, rows: np.ndarray) -> np.ndarray:
        moved = panel.frame("mid").pct_change(24, fill_method=None)
        return ((moved - moved.mean()) / moved.std()).to_numpy()[rows]


class BackFill(Planted):
    def score(self, panel: Panel, rows: np.ndarray) -> np.ndarray:
        return (panel.frame("mid").bfill() / panel.frame("mid").bfill().shift(24) - 1.0).to_numpy()[rows]


class FutureUniverse(Planted):
    """Coins that are there at the end of the data."""

    def score(self, panel: Panel, rows: np.ndarray) -> np.ndarray:
        alive = panel.tradable[-24:].any(axis=0)
        return np.where(alive, np.nan_to_num(change(panel)[rows]), 0.0)


class EveryName(Planted):
    """The same weight in every coin of the panel, listed or not."""

    def score(self, panel: Panel, rows: np.ndarray) -> np.ndarray:
        return np.ones((len(rows), len(panel.coins)))


class CountsNames(Planted):
    """Divides by the number of coins that the panel will ever have; only the size of the weights tells."""

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        tradable = panel.tradable[panel.rows(decisions)]
        return pd.DataFrame(tradable / len(panel.coins), index=decisions, columns=list(panel.coins))


class CentredWindow(Planted):
    def score(self, panel: Panel, rows: np.ndarray) -> np.ndarray:
        mid = panel.frame("mid").ffill()
        return (mid / mid.rolling(13, center=True, min_periods=1).mean() - 1.0).to_numpy()[rows]


class NextRow(Planted):
    def score(self, panel: Panel, rows: np.ndarray) -> np.ndarray:
        return change(panel)[np.minimum(rows + 1, len(panel.index) - 1)]


class NextRowOrFail(Planted):
    def score(self, panel: Panel, rows: np.ndarray) -> np.ndarray:
        return change(panel)[rows + 1]


class FundingOfTheInstant(Planted):
    """As known, the rate of the instant stands in the next row."""

    def score(self, panel: Panel, rows: np.ndarray) -> np.ndarray:
        return panel.values("funding")[np.minimum(rows + 1, len(panel.index) - 1)]


class WillDelist(Planted):
    def score(self, panel: Panel, rows: np.ndarray) -> np.ndarray:
        stays = np.array([coin.delisted is None for coin in panel.table])
        return np.where(stays, np.nan_to_num(change(panel)[rows]), 0.0)


class Whisper(Planted):
    """A millionth of the weight knows the future."""

    def score(self, panel: Panel, rows: np.ndarray) -> np.ndarray:
        return np.nan_to_num(change(panel)[rows]) * (1.0 + 1e-6 * np.sin(np.nan_to_num(panel.values("mid")[-1])))


class LongData(Planted):
    """Honest on short data: only a panel of full length shows the leak."""

    def score(self, panel: Panel, rows: np.ndarray) -> np.ndarray:
        ahead = rows + 12
        if ahead[-1] < len(panel.index):
            return change(panel)[ahead]
        return change(panel)[rows]


LEAKS: dict[type[Oracle], set[str]] = {
    FullSampleScore: {"cut", "future", "last_row", "instant"},
    BackFill: {"cut", "future", "instant"},
    FutureUniverse: {"cut", "future", "instant"},
    EveryName: {"coins"},
    CountsNames: {"coins"},
    CentredWindow: {"cut", "future", "instant"},
    NextRow: {"cut", "future", "instant"},
    FundingOfTheInstant: {"cut", "future", "funding", "instant"},
    WillDelist: {"cut", "future", "instant"},
    Whisper: {"cut"},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LEAKS, ids=lambda kind: kind.__name__)
def test_a_leak_is_caught_and_named(kind: type[Oracle], panel: Panel, decisions: pd.DatetimeIndex) -> None:
    found = audit(kind, panel, decisions)
    failed = {check.name for check in found.failed}
    assert LEAKS[kind] <= failed, found
    # a leak is told where it is: none of these forgets, dices, or reads files; only one reads rates
    assert not {"valid", "repeat", "process", "published"} & failed
    assert ("funding" in failed) == (kind is FundingOfTheInstant)
    assert not found.passed
    with pytest.raises(OracleError, match=f"{kind.__name__} fails the check"):
        found.raise_for_failure()
    first = found.failed[0]
    assert first.details is not None
    moved = first.details
    assert moved.coin in panel.coins and pd.Timestamp(moved.instant) in decisions and moved.weight != moved.other
    assert f"the weight of {moved.coin} at {pd.Timestamp(moved.instant):%Y-%m-%d 23:00 UTC}" in found.message()
    assert "\n" not in found.message()


def test_the_first_offending_weight_by_hand(panel: Panel, decisions: pd.DatetimeIndex) -> None:
    """One row ahead shows at the first cut whose row has a weight; both values are those of two plain calls."""
    known = panel.point_in_time()
    full = NextRow().weight_matrix(known, decisions)
    for place, instant in enumerate(decisions):
        cut = NextRow().weight_matrix(known.until(instant), decisions[: place + 1])
        apart = np.argwhere(cut.to_numpy() != full.to_numpy()[: place + 1])
        if len(apart):
            break
    row, column = apart[0]
    moved = next(check for check in audit(NextRow, panel, decisions).checks if check.name == "cut").details
    assert moved is not None
    assert (pd.Timestamp(moved.instant), moved.coin) == (decisions[row], panel.coins[column])
    assert (moved.weight, moved.other) == (full.iloc[row, column], cut.iloc[row, column])


def test_an_oracle_that_fails_without_the_future_is_caught(panel: Panel) -> None:
    early = decisions_of(panel, RunConfig())[:-1]
    found = audit(NextRowOrFail, panel, early)
    assert "IndexError" in found.failed[0].summary and "it fails" in found.failed[0].summary
    assert found.failed[0].details is None


def test_a_leak_that_only_full_data_show(panel: Panel, decisions: pd.DatetimeIndex) -> None:
    found = statuses(audit(LongData, panel, decisions[:-2], cuts=3))
    assert found["cut"] == "fail" and found["future"] == "fail"


# Memory, chance, one instant ------------------------------------------------------------------------------------------


class Remembers(Planted):
    """Keeps the first panel that it is given."""

    def __init__(self) -> None:
        self.first: Panel | None = None

    def score(self, panel: Panel, rows: np.ndarray) -> np.ndarray:
        self.first = self.first or panel
        moved = change(self.first)
        return (moved / np.nanstd(moved))[np.minimum(rows, len(moved) - 1)] + np.nanmean(moved)


class RemembersAndAnswers(Planted):
    """Causal when fresh; asked again, it answers from what it saw first."""

    def __init__(self) -> None:
        self.first: Panel | None = None

    def score(self, panel: Panel, rows: np.ndarray) -> np.ndarray:
        ahead = 0 if self.first is None else 5
        self.first = self.first or panel
        moved = change(self.first)
        return moved[np.minimum(rows + ahead, len(moved) - 1)]


class Dice(Planted):
    def score(self, panel: Panel, rows: np.ndarray) -> np.ndarray:
        return np.random.normal(size=(len(rows), len(panel.coins)))  # noqa: NPY002


class OneInstantDiffers(Honest):
    def fetch_portfolio_weights(self, timestamp: Any, tradable_universe: Any, panel: Any = None) -> dict[str, float]:
        row = super().fetch_portfolio_weights(timestamp, tradable_universe, panel)
        return {coin: -weight for coin, weight in row.items()}


class UnsettledWhenAskedAlone(Planted):
    """The matrix is honest; its own fetch_portfolio_weights reads the raw panel's rate of the instant."""

    def score(self, panel: Panel, rows: np.ndarray) -> np.ndarray:
        return panel.values("funding")[rows]

    def fetch_portfolio_weights(self, timestamp: Any, tradable_universe: Any, panel: Any = None) -> dict[str, float]:
        rates = np.nan_to_num(panel.values("funding")[panel.rows(pd.DatetimeIndex([timestamp]))[0]])
        return dict(zip(panel.coins, rates / np.abs(rates).sum(), strict=True))


class ScoresLookAhead(Momentum):
    """The matrix is honest; what a sweep asks for is not."""

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        return Momentum(lookback_hours=30, n=2).weight_matrix(panel, decisions)

    def scores(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        return change(panel)[np.minimum(panel.rows(decisions) + 24, len(panel.index) - 1)]


class AnswersNonsense(Honest):
    def fetch_portfolio_weights(self, timestamp: Any, tradable_universe: Any, panel: Any = None) -> Any:
        return {"C00": "much"}


class NamesAnother(Honest):
    def fetch_portfolio_weights(self, timestamp: Any, tradable_universe: Any, panel: Any = None) -> dict[str, float]:
        return {"NOPE": 0.1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (Remembers, "cut"),
        (RemembersAndAnswers, "repeat"),
        (RemembersAndAnswers, "instant"),
        (Dice, "repeat"),
        (OneInstantDiffers, "instant"),
        (UnsettledWhenAskedAlone, "funding"),
        (UnsettledWhenAskedAlone, "instant"),
        (ScoresLookAhead, "score"),
        (AnswersNonsense, "instant"),
        (NamesAnother, "instant"),
    ],
)
def test_memory_chance_and_disagreement(
    kind: type[Oracle], check: str, panel: Panel, decisions: pd.DatetimeIndex
) -> None:
    assert statuses(audit(kind, panel, decisions))[check] == "fail"


def test_global_random_state_is_the_callers_again(panel: Panel, decisions: pd.DatetimeIndex) -> None:
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.normal()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    audit(Honest, panel, decisions[:3])
    assert np.random.normal() == expected  # noqa: NPY002


# Validity -------------------------------------------------------------------------------------------------------------


@dataclass
class Fixed(Oracle):
    rows: pd.DataFrame

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        return self.rows


@pytest.mark.parametrize(
    ("columns", "value", "words"),
    [(slice(None), 0.25, "exceeds 1.00"), (slice(0, 2), 0.1, "is inf"), (["NOPE"], 0.1, "coins that the panel")],
)
def test_invalid_weights(columns: Any, value: float, words: str, panel: Panel, decisions: pd.DatetimeIndex) -> None:
    names = columns if isinstance(columns, list) else list(panel.coins[columns])
    rows = pd.DataFrame(value, index=decisions, columns=names)
    if "inf" in words:
        rows.iloc[3, 1] = np.inf
    found = audit(lambda: Fixed(rows), panel, decisions)
    check = found.checks[0]
    assert (check.name, check.passed) == ("valid", False) and words in check.summary


@pytest.mark.slow
def test_gross_is_that_which_is_traded(panel: Panel, decisions: pd.DatetimeIndex) -> None:
    half = RunConfig.from_dict({"execution": {"leverage": 0.5}})
    double = RunConfig.from_dict({"execution": {"leverage": 2.0}})
    kind = lambda: EqualWeight(gross=1.5)  # noqa: E731
    assert statuses(audit(kind, panel, decisions))["valid"] == "fail"
    assert statuses(audit(kind, panel, decisions, half))["valid"] == "pass"
    assert statuses(audit(EqualWeight, panel, decisions, double))["valid"] == "fail"


# Honest oracles -------------------------------------------------------------------------------------------------------

HONEST: list[Any] = [
    pytest.param(kind, {"lookback_hours": 30, "construction": construction}, id=f"{kind.__name__}-{construction}")
    for kind in (Momentum, Reversal, Carry, LowVolatility)
    for construction in CONSTRUCTIONS
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "parameters"), [*HONEST, pytest.param(EqualWeight, {}, id="EqualWeight")])
def test_honest_oracles_pass(
    kind: type[Oracle], parameters: dict[str, Any], panel: Panel, decisions: pd.DatetimeIndex
) -> None:
    found = audit(lambda: kind(**parameters), panel, decisions)
    assert found.passed, found.message()
    assert set(statuses(found).values()) == {"pass", "skipped"}


class Product(Planted):
    """A causal matrix product, whose last bits depend on how many rows it has."""

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        rows = panel.rows(decisions)
        mixing = np.random.default_rng(1).normal(size=(len(panel.coins), len(panel.coins)))
        weights = np.nan_to_num(change(panel)[rows]) @ mixing / len(panel.coins)
        return pd.DataFrame(weights, index=decisions, columns=list(panel.coins))


def test_rounding_is_no_look_ahead_to_either_check() -> None:
    """They share the comparison and the tolerance: what the one lets pass the other does not accuse."""
    panel = random_panel(4, 24 * 40, 33)
    decisions = decisions_of(panel, RunConfig())
    known = panel.point_in_time()
    full = Product().weight_matrix(known, decisions).to_numpy()
    cuts = [Product().weight_matrix(known.until(at), decisions[: n + 1]).to_numpy() for n, at in enumerate(decisions)]
    differences = [float(np.abs(cut - full[: len(cut)]).max()) for cut in cuts]
    assert 0.0 < max(differences) < TOLERANCE, "this machine's products do not depend on their number of rows"
    check_causal(Product(), panel, decisions)
    checks = {check.name: check for check in audit(Product, panel, decisions, cuts=len(decisions)).checks}
    assert checks["cut"].passed is True and checks["cut"].summary.endswith(": rounding")


def test_more_than_rounding_is_a_look_ahead_to_both(panel: Panel, decisions: pd.DatetimeIndex) -> None:
    """A leak of a millionth of the weight: the first offending weight is the same one in both messages."""
    check = audit(Whisper, panel, decisions).checks[1]
    with pytest.raises(OracleError, match="Whisper looks ahead: ") as caught:
        check_causal(Whisper(), panel, decisions)
    weight = check.summary.partition(", but ")[0]
    assert check.passed is False and weight in str(caught.value)


def test_an_honest_oracle_may_warm_up_by_refusing(panel: Panel, decisions: pd.DatetimeIndex) -> None:
    class Warm(Honest):
        def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
            if len(panel.index) < 24 * 4:
                raise OracleError("too little data")
            return super().weight_matrix(panel, decisions).where(decisions.to_series() >= panel.index[24 * 4 - 1], 0.0)

    found = audit(Warm, panel, decisions)
    assert found.passed, found.message()


def test_one_decision_and_a_panel_as_known(panel: Panel, decisions: pd.DatetimeIndex) -> None:
    assert audit(Honest, panel, decisions[5:6]).passed
    assert audit(Honest, panel.until(decisions[5]), decisions[5:6]).passed  # it is the last row too
    assert not audit(NextRow, panel, decisions[5:6]).passed
    known = statuses(audit(Honest, panel.point_in_time(), decisions))
    assert known["funding"] == "skipped" and known["cut"] == "pass"


@pytest.mark.slow
def test_the_number_of_cuts(panel: Panel, decisions: pd.DatetimeIndex) -> None:
    assert audit(Honest, panel, decisions).checks[1].summary.startswith("16 cuts")
    assert audit(Honest, panel, decisions, cuts=4).checks[1].summary.startswith("4 cuts")
    assert audit(Honest, panel, decisions, cuts=1000).checks[1].summary.startswith("16 cuts")
    with pytest.raises(OracleError, match="cuts = 0"):
        audit(Honest, panel, decisions, cuts=0)
    seen: list[tuple[int, int, str]] = []
    audit(Honest, panel, decisions, cuts=4, step=lambda *words: seen.append(words))
    assert seen[0] == (0, 11, "valid") and seen[-1] == (11, 11, "done") and (1, 11, "cut 4 of 4") in seen


# What is disturbed ----------------------------------------------------------------------------------------------------


def test_what_the_disturbances_change(panel: Panel) -> None:
    rng, row = np.random.default_rng(0), 100
    other = changed_after(panel, row, rng)
    for name, values in panel.fields.items():
        last = row - 1 if name == "funding" else row  # the rate of the row is settled after the trade
        assert np.array_equal(other.fields[name][: last + 1], values[: last + 1], equal_nan=True), name
        after = (other.fields[name][last + 1 :] != values[last + 1 :]) & ~np.isnan(values[last + 1 :])
        assert after.mean() > 0.8, name
    assert np.array_equal(other.tradable[: row + 1], panel.tradable[: row + 1])
    assert (other.tradable[row + 1 :] != panel.tradable[row + 1 :]).any()
    filled = np.isnan(panel.values("mid")[row + 1 :]) & ~np.isnan(other.values("mid")[row + 1 :])
    assert filled.any() and all(coin.delisted is None for coin in other.table)
    assert np.array_equal(
        panel.point_in_time().until(panel.index[row]).values("funding"),
        other.point_in_time().until(panel.index[row]).values("funding"),
        equal_nan=True,
    )

    one = changed_at(panel, row, rng)
    same = (one.values("mid") == panel.values("mid")) | np.isnan(panel.values("mid"))
    assert list(np.flatnonzero(~same.all(axis=1))) == [row]
    rate = changed_at(panel, row, rng, ("funding",))
    assert np.array_equal(rate.values("mid"), panel.values("mid"), equal_nan=True)
    moved = ~((rate.values("funding") == panel.values("funding")) | np.isnan(panel.values("funding")))
    assert set(np.flatnonzero(moved.any(axis=1))) == {row}


def test_coins_come_and_go(panel: Panel) -> None:
    wide = with_newcomers(panel, 100, np.random.default_rng(0))
    assert wide.coins[1:-1] == panel.coins and len(wide.coins) == len(panel.coins) + 2
    assert np.isnan(wide.values("mid")[:101, [0, -1]]).all() and (wide.values("mid")[101:, [0, -1]] > 0).all()
    assert not wide.tradable[:101, [0, -1]].any() and wide.tradable[101:, [0, -1]].all()
    assert wide.table[0] == replace(panel.table[0], name="0-NEWCOMER", listed=panel.index[101], delisted=None)
    kept = np.array([name != "C02" for name in panel.coins])
    narrow = with_coins(panel, kept)
    assert narrow.coins == tuple(name for name in panel.coins if name != "C02")
    assert np.array_equal(narrow.values("mid"), panel.values("mid")[:, kept], equal_nan=True)
    last = len(panel.index) - 1
    assert with_newcomers(panel, last, np.random.default_rng(0)).tradable[:, 0].sum() == 0


# Real data ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_momentum_on_real_data(real_cache: Path) -> None:
    panel = load_panel(real_cache, start="2025-02-01")
    found = audit("research.oracles.momentum:Momentum", panel, decisions_of(panel, RunConfig()))
    assert found.passed, found.message()
    assert "59 of 59 instants" in found.checks[6].summary and found.strength == 1.0
