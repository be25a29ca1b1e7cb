"""From the weights asked to the weights traded: every rule by hand, causality, and one answer from every way in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Panel, Result, RunConfig, SparseWeights, backtest, backtest_many, decisions_of
from engine.errors import WeightsError
from engine.simulation.overlays import describe_overlays, traded_weights
from helpers.naive import traded_weights as naive_traded_weights
from helpers.panels import random_panel, random_weights

VARIANTS: dict[str, dict[str, Any]] = {
    "leverage": {"leverage": 2.5},
    "volatility": {"target_volatility": 0.3, "volatility_days": 10},
    "tranches": {"tranches": 4},
    "cap": {"leverage": 3.0, "gross_cap": 1.2},
    "all": {"leverage": 1.5, "target_volatility": 0.5, "volatility_days": 7, "tranches": 3, "gross_cap": 0.9},
    "delay": {"leverage": 0.5, "tranches": 2, "delay_hours": 30},
}


def config_of(execution: dict[str, Any], max_gross: float = 3.0) -> RunConfig:
    return RunConfig.from_dict({"execution": execution, "account": {"max_gross": max_gross}})


def flat_panel(days: int, coins: str = "AB", **columns: list[float]) -> Panel:
    """Prices that change once a day, at 23:00, from a list of daily prices a coin; 100 where none is given."""
    index = pd.date_range("2024-10-01T23:00Z", periods=24 * (days - 1) + 1, freq="h")
    prices = {coin: np.repeat(np.asarray(columns.get(coin, [100.0] * days)), 24)[: len(index)] for coin in coins}
    return Panel.from_frames(mid=pd.DataFrame(prices, index=index))


def applied_to(rows: list[list[float]], panel: Panel, max_gross: float = 3.0, **execution: Any) -> np.ndarray:
    """The weights traded of rows asked at the panel's last decisions."""
    decisions = panel.index[panel.index.hour == 23][-len(rows) :]
    return traded_weights(np.array(rows), decisions, panel, config_of(execution, max_gross))


@pytest.fixture(scope="module")
def panel() -> Panel:
    return random_panel(5, 24 * 40, 8)


def test_leverage_multiplies_and_holds_stay_holds() -> None:
    got = applied_to([[0.5, np.nan], [-0.2, 0.0]], flat_panel(3), leverage=2.0)
    np.testing.assert_array_equal(got, [[1.0, np.nan], [-0.4, 0.0]])


def test_defaults_hand_back_the_array_itself() -> None:
    panel = flat_panel(3)
    values = np.array([[0.5, np.nan]])
    assert traded_weights(values, panel.index[-1:], panel, RunConfig()) is values
    assert describe_overlays(RunConfig()) == ""
    assert describe_overlays(config_of({"leverage": 3, "tranches": 2})) == (
        " after execution.leverage = 3, execution.tranches = 2"
    )


def test_target_volatility_by_hand() -> None:
    """Days of +10 % and -10 % of coin A, nothing of B."""
    moves = [0.1, -0.1, 0.1, -0.1]
    panel = flat_panel(5, A=list(100.0 * np.cumprod([1.0, *(1.0 + np.array(moves))])))
    sigma = 0.5 * np.std(moves, ddof=1) * np.sqrt(365)
    got = applied_to([[0.5, -0.25]], panel, target_volatility=0.4, volatility_days=4)
    np.testing.assert_allclose(got, np.array([[0.5, -0.25]]) * 0.4 / sigma, rtol=1e-12)
    # the newest three days alone
    sigma = 0.5 * np.std(moves[1:], ddof=1) * np.sqrt(365)
    got = applied_to([[0.5, np.nan]], panel, target_volatility=0.4, volatility_days=3)
    np.testing.assert_allclose(got, [[0.5 * 0.4 / sigma, np.nan]], rtol=1e-12)
    # at most up to the limit of the account, down to it too
    for target, limit in ((9.0, 2.0), (9.0, 0.3)):
        got = applied_to([[0.5, -0.25]], panel, limit, target_volatility=target, volatility_days=4)
        np.testing.assert_allclose(got, np.array([[0.5, -0.25]]) * limit / 0.75, rtol=1e-12)


def test_a_missing_price_adds_nothing_to_the_volatility() -> None:
    prices = [100.0, 110.0, np.nan, 120.0, 130.0]
    panel = flat_panel(5, A=prices)
    sigma = 0.5 * np.std([0.1, 0.0, 0.0, 130 / 120 - 1], ddof=1) * np.sqrt(365)
    got = applied_to([[0.5, 0.0]], panel, target_volatility=0.2, volatility_days=4)
    np.testing.assert_allclose(got, [[0.5 * 0.2 / sigma, 0.0]], rtol=1e-12)


@pytest.mark.parametrize(("days", "window", "scaled"), [(5, 8, True), (4, 8, False), (3, 2, True), (2, 2, False)])
def test_too_few_days_leave_the_row(days: int, window: int, scaled: bool) -> None:
    """`days` prices are ``days - 1`` changes; at least ``max(2, window / 2)`` are needed."""
    panel = flat_panel(days, A=list(100.0 + 7.0 * np.arange(days) ** 2))
    got = applied_to([[0.5, 0.1]], panel, target_volatility=0.1, volatility_days=window)
    assert (got != [[0.5, 0.1]]).all() == scaled and (got == [[0.5, 0.1]]).all() != scaled


def test_a_book_that_never_moved_is_left_as_it_is() -> None:
    np.testing.assert_array_equal(applied_to([[0.5, 0.5]], flat_panel(9), target_volatility=0.1), [[0.5, 0.5]])
    np.testing.assert_array_equal(applied_to([[0.0, np.nan]], flat_panel(9), target_volatility=0.1), [[0.0, np.nan]])


def test_the_risk_model_as_the_volatility() -> None:
    """As the slow reference says, a book alone or among others, and with the days after the decision cut off."""
    panel = random_panel(5, 24 * 54, 12)
    config = config_of({"target_volatility": 0.1, "volatility_model": "risk", "leverage": 1.5})
    decisions = panel.index[panel.index.hour == 23][[10, -2, -1]]
    weights = np.random.default_rng(1).normal(0, 0.1, (3, 3, 12))
    weights[0, :, 4] = np.nan
    weights[2] = 0.0
    got = traded_weights(weights, decisions, panel, config)
    frame = pd.DataFrame(weights[0], index=decisions, columns=list(panel.coins))
    expected = naive_traded_weights(panel, frame, config)
    np.testing.assert_allclose(got[0], [list(row.values()) for row in expected.values()], rtol=1e-8)
    np.testing.assert_array_equal(got[0, 0], 1.5 * weights[0, 0])  # the tenth day: not known yet
    assert not np.allclose(got[0, 1:], 1.5 * weights[0, 1:], equal_nan=True)
    for book in range(3):
        np.testing.assert_array_equal(traded_weights(weights[book], decisions, panel, config), got[book])
    cut = panel.until(decisions[1])
    np.testing.assert_array_equal(traded_weights(weights[1, 1:2], decisions[1:2], cut, config)[0], got[1, 1])
    assert config.digest != config_of({"target_volatility": 0.1, "leverage": 1.5}).digest


def test_tranches_are_the_mean_of_the_last_rows() -> None:
    rows = [[0.6, np.nan], [0.3, 0.9], [0.0, np.nan], [0.0, 0.0], [0.0, 0.0]]
    got = applied_to(rows, flat_panel(6), tranches=3)
    expected = [[0.2, 0.0], [0.3, 0.3], [0.3, 0.6], [0.1, 0.6], [0.0, 0.3]]
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=0)
    assert got[4, 0] == 0.0  # a full close, to the bit
    np.testing.assert_allclose(applied_to(rows[:2], flat_panel(6), tranches=50), [[0.012, 0], [0.018, 0.018]])


def test_the_cap_scales_what_is_above_it() -> None:
    got = applied_to([[0.5, -0.25], [0.25, np.nan], [2.0, np.nan]], flat_panel(4), gross_cap=0.5)
    np.testing.assert_allclose(got, [[1 / 3, -1 / 6], [0.25, np.nan], [0.5, np.nan]], rtol=1e-12)


def test_the_order_of_the_rules() -> None:
    """Leverage, then the mean of two rows, then the cap: another order would give other numbers."""
    got = applied_to([[1.0, 0.0], [0.0, 0.5]], flat_panel(3), leverage=2.0, tranches=2, gross_cap=1.2)
    np.testing.assert_allclose(got, [[1.0, 0.0], [0.8, 0.4]], rtol=1e-12)


@pytest.mark.parametrize("name", VARIANTS)
def test_later_prices_and_weights_change_nothing(panel: Panel, name: str) -> None:
    config = config_of(VARIANTS[name])
    decisions = decisions_of(panel, config)
    weights = np.random.default_rng(3).normal(0, 0.1, (len(decisions), 8))
    expected = traded_weights(weights, decisions, panel, config)
    for cut in (0, 12, 25):
        after = panel.index > decisions[cut]
        fields = {field: np.where(after[:, None], values * 3.0, values) for field, values in panel.fields.items()}
        other = Panel(panel.index, panel.coins, fields, panel.tradable, panel.table)
        changed = np.where(np.arange(len(weights))[:, None] > cut, 9.0, weights)
        got = traded_weights(changed, decisions, other, config)
        np.testing.assert_array_equal(got[: cut + 1], expected[: cut + 1])


def test_the_volatility_reads_the_decisions_own_row(panel: Panel) -> None:
    """The last price that may count does count."""
    config = config_of(VARIANTS["volatility"])
    decisions = decisions_of(panel, config)[-1:]
    mid = panel.values("mid").copy()
    mid[panel.rows(decisions)] *= np.linspace(1.0, 1.5, 8)
    other = Panel(panel.index, panel.coins, {**panel.fields, "mid": mid}, panel.tradable, panel.table)
    weights = np.full((1, 8), 0.1)
    assert (
        traded_weights(weights, decisions, panel, config) != traded_weights(weights, decisions, other, config)
    ).all()


def asked(panel: Panel, count: int) -> tuple[np.ndarray, pd.DatetimeIndex]:
    frames = [random_weights(seed, panel, gross=0.8) for seed in range(count)]
    decisions = frames[0].index
    coins = list(panel.coins)
    return np.stack([frame.reindex(index=decisions, columns=coins).to_numpy() for frame in frames]), decisions


def frame(weights: np.ndarray, decisions: pd.DatetimeIndex, panel: Panel) -> pd.DataFrame:
    return pd.DataFrame(weights, index=decisions, columns=list(panel.coins))


def assert_same(row: pd.Series, result: Result) -> None:
    for name, expected in result.metrics.items():
        if isinstance(expected, float):
            assert row[name] == pytest.approx(expected, rel=1e-8, abs=1e-7, nan_ok=True), name
        else:
            assert row[name] == expected or (expected is None and row[name] is None), name


@pytest.mark.parametrize("name", VARIANTS)
def test_one_book_or_many_to_the_bit(panel: Panel, name: str) -> None:
    config = config_of(VARIANTS[name])
    weights, decisions = asked(panel, 7)
    many = traded_weights(weights, decisions, panel, config)
    assert not np.array_equal(many, weights, equal_nan=True)
    np.testing.assert_array_equal(traded_weights(np.asfortranarray(weights), decisions, panel, config), many)
    for book in range(7):
        np.testing.assert_array_equal(traded_weights(weights[book], decisions, panel, config), many[book])
        np.testing.assert_array_equal(traded_weights(weights[book : book + 1], decisions, panel, config)[0], many[book])


@pytest.mark.parametrize("name", VARIANTS)
def test_batch_is_backtest_and_sparse_is_dense(panel: Panel, name: str) -> None:
    config = config_of(VARIANTS[name])
    weights, decisions = asked(panel, 70)
    sparse = SparseWeights.from_dense(weights)
    table = backtest_many(panel, weights, decisions, config, threads=1)
    for place in (0, 5, 63, 64, 69):
        assert_same(table.iloc[place], backtest(panel, frame(weights[place], decisions, panel), config))
    chunks = (sparse.part(first, min(first + 23, 70), len(decisions)) for first in range(0, 70, 23))
    for form in (np.asfortranarray(weights), sparse, chunks):
        pd.testing.assert_frame_equal(backtest_many(panel, form, decisions, config, threads=2), table, check_exact=True)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_with_a_variant_is_a_run_of_the_weights_traded(panel: Panel, name: str) -> None:
    """And the result keeps what was asked."""
    weights, decisions = asked(panel, 1)
    config = config_of(VARIANTS[name])
    given = frame(weights[0], decisions, panel)
    result = backtest(panel, given, config)
    traded = traded_weights(weights[0], decisions, panel, config)
    plain = config_of({"delay_hours": VARIANTS[name].get("delay_hours", 0)})
    expected = backtest(panel, frame(traded, decisions, panel), plain)
    np.testing.assert_array_equal(result.equity, expected.equity)
    pd.testing.assert_frame_equal(result.weights, given, check_names=False, check_freq=False)
    assert result.metrics["trades"] > 0


def test_the_gross_is_limited_where_it_is_traded(panel: Panel) -> None:
    weights, decisions = asked(panel, 3)
    weights[1, 2] = np.nan
    weights[1, 2, :2] = (0.5, -0.3)
    config = config_of({"leverage": 2.0}, max_gross=1.0)
    with pytest.raises(WeightsError, match=r"Gross weight 1\.\d+ after execution.leverage = 2 on .*account.max_gross"):
        backtest(panel, frame(weights[1], decisions, panel), config)
    with pytest.raises(
        WeightsError, match=r"Gross weight 1\.\d+ of book \d after execution.leverage = 2 on .*account.max_gross"
    ):
        backtest_many(panel, weights, decisions, config)
    # asked above the limit, traded within it
    capped = config_of({"gross_cap": 1.0}, max_gross=1.0)
    wild = frame(weights[1] * 5.0, decisions, panel)
    with pytest.raises(WeightsError, match="exceeds"):
        backtest(panel, wild, config_of({}, max_gross=1.0))
    gross = np.nansum(np.abs(traded_weights(weights[1] * 5.0, decisions, panel, capped)), axis=1)
    assert gross.max() == pytest.approx(1.0, rel=1e-12)
    assert backtest(panel, wild, capped).metrics["trades"] > 0


def test_bad_books_are_refused_before_a_variant_hides_them(panel: Panel) -> None:
    weights, decisions = asked(panel, 70)
    config = config_of(VARIANTS["all"])
    weights[66, 4, 1] = np.inf
    for form in (weights, SparseWeights.from_dense(weights), iter([weights[:50], weights[50:]])):
        with pytest.raises(WeightsError, match=r"The weight of \w+ of book 66 on .* is -?inf"):
            backtest_many(panel, form, decisions, config)
    indptr = np.append(0, np.full(len(decisions), 2))
    with pytest.raises(WeightsError, match="coins do not ascend"):
        backtest_many(panel, SparseWeights(indptr, np.array([1, 1]), np.array([0.5, 0.5])), decisions, config)
