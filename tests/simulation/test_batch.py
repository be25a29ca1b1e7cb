"""backtest_many(): the numbers of backtest(), whatever the form, the chunks and the threads."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import Panel, RunConfig, SparseWeights, backtest, backtest_many
from engine.coin import Coin
from engine.errors import ConfigError, DataError, WeightsError
from helpers.batches import assert_same
from helpers.effort import some
from helpers.panels import nasty_cases, random_panel, random_weights, tiny_case, with_builders_coins


def books(panel: Panel, count: int) -> tuple[np.ndarray, pd.DatetimeIndex]:
    frames = [random_weights(seed, panel) for seed in range(count)]
    decisions = frames[0].index
    return np.stack(
        [frame.reindex(index=decisions, columns=list(panel.coins)).to_numpy() for frame in frames]
    ), decisions


@pytest.fixture(scope="module")
def panel() -> Panel:
    return random_panel(11, 24 * 50, 9, quotes=True, funding=True, oracle=True, table=True, volume=True)


def test_many_books_are_as_many_backtests(panel: Panel) -> None:
    """More books than a tile holds, to 1e-10 of equity."""
    weights, decisions = books(panel, 70)
    table = backtest_many(panel, weights, decisions)
    assert len(table) == 70 and list(table.columns) == list(
        backtest(panel, _frame(weights[0], decisions, panel)).metrics
    )
    for place in (0, 1, 33, 63, 64, 69):
        result = backtest(panel, _frame(weights[place], decisions, panel))
        assert_same(table.iloc[place], result)
        assert table["equity_end_usd"].iloc[place] == pytest.approx(result.metrics["equity_end_usd"], rel=1e-10)


def _frame(weights: np.ndarray, decisions: pd.DatetimeIndex, panel: Panel) -> pd.DataFrame:
    return pd.DataFrame(weights, index=decisions, columns=list(panel.coins))


@pytest.mark.slow
@settings(max_examples=some(120, 500), suppress_health_check=list(HealthCheck))
@given(case=nasty_cases(), builders=st.none() | st.integers(0, 2**32 - 1))
def test_nasty_panels(case: tuple[Panel, pd.DataFrame, RunConfig], builders: int | None) -> None:
    """Delistings, gaps, jumps, liquidations, odd decisions, builders' coins, every setting."""
    panel, weights, config = case if builders is None else with_builders_coins(case, builders)
    weights = weights.sort_index().reindex(columns=list(panel.coins), fill_value=0.0)
    dense = np.stack([np.zeros_like(weights), weights])
    try:
        result = backtest(panel, weights, config)
    except WeightsError as error:
        for form in (dense, SparseWeights.from_dense(dense)):
            with pytest.raises(WeightsError) as many:
                backtest_many(panel, form, weights.index, config)
            assert str(many.value).replace(" of book 1", "")[:60] == str(error)[:60]
        return
    assert_same(backtest_many(panel, dense, weights.index, config).iloc[1], result)
    assert_same(backtest_many(panel, SparseWeights.from_dense(dense), weights.index, config).iloc[1], result)


@pytest.mark.slow
def test_panels_of_a_few_hours() -> None:
    """A single row, decisions on the first and the last, liquidations at once; no day's return to speak of."""
    compared = 0
    for seed in range(some(60, 150)):
        case = tiny_case(seed)
        panel, weights, config = with_builders_coins(case, seed) if seed % 2 else case
        try:
            result = backtest(panel, weights, config)
        except WeightsError:
            continue
        for form in (weights.to_numpy()[None], SparseWeights.from_dense(weights.to_numpy()[None])):
            assert_same(backtest_many(panel, form, weights.index, config).iloc[0], result)
        compared += 1
    assert compared > 0.8 * some(60, 150)


@pytest.mark.parametrize(
    "execution", [{"min_notional_usd": 10.0}, {"no_trade_band_frac": 0.001, "min_notional_usd": 0.0}]
)
@pytest.mark.parametrize("digits, decimals", [(-8, 5), (-7, 5), (-5, 8)])
def test_what_lots_leave_of_an_order_may_be_all_that_is_tolerated(
    execution: dict[str, float], digits: int, decimals: int
) -> None:
    """Round prices and weights of exactly the minimum, or the band: some are cut by just the tolerance."""
    names = [f"C{number}" for number in range(100, 1000)]
    index = pd.date_range("2024-10-01T23:00Z", periods=2, freq="h")
    prices = [[float(f"{number}e{digits}") for number in range(100, 1000)]] * 2
    table = [Coin(name, sz_decimals=decimals) for name in names]
    panel = Panel.from_frames(mid=pd.DataFrame(prices, index=index, columns=names), table=table)
    config = RunConfig.from_dict({"execution": execution, "account": {"initial_margin": False}})
    weights = np.full((1, 1, 900), 0.001)
    result = backtest(panel, _frame(weights[0], index[:1], panel), config)
    assert 0 < result.metrics["trades"] < 900
    assert_same(backtest_many(panel, weights, index[:1], config).iloc[0], result)


def test_form_chunks_and_threads_do_not_change_a_bit(panel: Panel) -> None:
    weights, decisions = books(panel, 150)
    sparse = SparseWeights.from_dense(weights)
    D = len(decisions)
    expected, returns = backtest_many(panel, weights, decisions, threads=1, daily_returns=True)
    others = {
        "threads": weights,
        "fortran": np.asfortranarray(weights),
        "sparse": sparse,
        "chunks": (weights[first : first + 13] for first in range(0, 150, 13)),
        "sparse chunks": (sparse.part(first, min(first + 40, 150), D) for first in range(0, 150, 40)),
    }
    for name, form in others.items():
        table, daily = backtest_many(panel, form, decisions, threads=2, daily_returns=True)
        pd.testing.assert_frame_equal(table, expected, check_exact=True, obj=name)
        pd.testing.assert_frame_equal(daily, returns, check_exact=True, obj=name)


def test_the_type_of_a_column_does_not_depend_on_the_chunk() -> None:
    """No book of the first chunk is liquidated, every one of the second, and one of both."""
    index = pd.date_range("2024-10-01T23:00Z", periods=30, freq="h")
    panel = Panel.from_frames(mid=pd.DataFrame({"A": [100.0] * 5 + [40.0] * 25}, index=index))
    config = RunConfig.from_dict({"account": {"max_gross": 2.0}})
    calm, lost = np.full((2, 1, 1), 0.1), np.full((2, 1, 1), 2.0)
    tables = [backtest_many(panel, chunks, index[:1], config) for chunks in (calm, lost, iter((calm, lost)))]
    assert {str(table["liquidated_at"].dtype) for table in tables} == {"object"}
    assert tables[2]["liquidated_at"].tolist() == [None, None, index[5].isoformat(), index[5].isoformat()]
    assert all((table.dtypes == tables[0].dtypes).all() for table in tables)


def test_daily_returns_are_those_of_backtest(panel: Panel) -> None:
    """NaN until each book's first decision that asks for something; all over the calendar."""
    weights, decisions = books(panel, 4)
    weights[1, :12] = 0.0
    weights[2, :9] = np.nan
    weights[3] = 0.0
    table, returns = backtest_many(panel, weights, decisions, daily_returns=True)
    for place in range(4):
        result = backtest(panel, _frame(weights[place], decisions, panel))
        asked = (np.nan_to_num(weights[place]) != 0.0).any(axis=1)
        first = decisions[np.argmax(asked)] if asked.any() else None
        assert result.first_decision == first
        assert returns.index.equals(result.daily_returns_calendar.index)
        counted = returns.index > first if first else np.zeros(len(returns), dtype=bool)
        assert (returns[place].notna() == counted).all() and table["days"][place] == counted.sum()
        np.testing.assert_allclose(returns[place][counted], result.daily_returns, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(result.daily_returns_calendar[counted], result.daily_returns)


def test_delay_leaves_out_what_lies_beyond_the_panel(panel: Panel) -> None:
    weights, decisions = books(panel, 2)
    config = RunConfig.from_dict({"execution": {"delay_hours": 30}})
    for form in (weights, SparseWeights.from_dense(weights)):
        table = backtest_many(panel, form, decisions, config)
        result = backtest(panel, _frame(weights[1], decisions, panel), config)
        assert result.metrics["decisions"] < len(decisions)
        assert_same(table.iloc[1], result)


def test_the_first_refused_book_is_named_whatever_the_tiles(panel: Panel) -> None:
    """Weights are checked before anything is traded, initial margin while trading, that all is absent after it."""
    weights, decisions = books(panel, 80)
    config = RunConfig.from_dict({"account": {"max_gross": 90.0}})
    kinds = {"initial margin": 80.0 * weights[0], "no value": weights[0] * np.nan}
    kinds["is inf"] = np.where(weights[0] == 0.0, 0.0, np.inf)
    for order in itertools.permutations(kinds):
        weights[[5, 25, 70]] = [kinds[message] for message in order]
        for threads in (1, 2):
            for form in (weights, SparseWeights.from_dense(weights), iter((weights[:20], weights[20:]))):
                with pytest.raises(WeightsError, match=r"of book 5\b") as found:
                    backtest_many(panel, form, decisions, config, threads=threads)
                assert order[0] in str(found.value)


def test_bad_input(panel: Panel) -> None:
    weights, decisions = books(panel, 80)
    above = weights.copy()
    above[70, 3, :2] = 0.9
    with pytest.raises(
        WeightsError, match=r"Gross weight \d\.\d\d of book 70 on .* exceeds 1.00 \(account.max_gross\)"
    ):
        backtest_many(panel, above, decisions)
    with pytest.raises(WeightsError, match="of book 70 on"):
        backtest_many(panel, iter([above[:50], above[50:]]), decisions)
    infinite = weights.copy()
    infinite[2, 0, 0] = -np.inf
    with pytest.raises(WeightsError, match=r"The weight of \w+ of book 2 on .* is -inf"):
        backtest_many(panel, SparseWeights.from_dense(infinite), decisions)
    with pytest.raises(WeightsError, match=r"Weights of shape \(80, \d+, 9\) were given; .* is needed"):
        backtest_many(panel, weights[:, :-1], decisions)
    for wrong, message in (
        (_frame(weights[0], decisions, panel), "was given DataFrame as weights.*there is backtest"),
        (None, "was given NoneType as weights"),
        (weights.tolist(), "Weights are list; an array of numbers"),
        (weights.astype(str), "Weights are an array of <U"),
        (weights > 0, "Weights are an array of bool"),
        (np.ma.masked_invalid(weights), "Weights are a masked array.*filled"),
        (weights[0], r"One book is weights\[None\]"),
    ):
        with pytest.raises(WeightsError, match=message):
            backtest_many(panel, wrong, decisions)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="timezone-aware decision instants are needed"):
        backtest_many(panel, weights, list(range(len(decisions))))  # type: ignore[arg-type]
    for wrong in (None, 5):
        with pytest.raises(WeightsError, match=f"Decisions are {wrong}; timezone-aware"):
            backtest_many(panel, weights, wrong)  # type: ignore[arg-type]
    for threads in (-1, 0, 2.5, "4"):
        with pytest.raises(ConfigError, match=f"threads = {threads!r} is not accepted"):
            backtest_many(panel, weights, decisions, threads=threads)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"backtest_many\(\) needs a Panel, not ndarray"):
        backtest_many(weights, panel, decisions)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="Decisions are DataFrame; timezone-aware"):
        backtest_many(panel, weights, _frame(weights[0], decisions, panel))  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match=r"must be ascending.*decisions\[order\]"):
        backtest_many(panel, weights, decisions[::-1])
    with pytest.raises(WeightsError, match="no weights"):
        backtest_many(panel, iter([]), decisions)
    with pytest.raises(WeightsError, match="no weights"):
        backtest_many(panel, weights[:0], decisions)
    with pytest.raises(DataError, match="an hour late"):
        backtest_many(panel.point_in_time(), weights, decisions)
    indptr = np.append(0, np.ones(len(decisions), dtype=np.int64))
    for coin in (99, -1):
        with pytest.raises(WeightsError, match="do not fit"):
            backtest_many(panel, SparseWeights(indptr, np.array([coin]), np.array([0.5])), decisions)
    with pytest.raises(WeightsError, match="do not fit"):
        backtest_many(panel, SparseWeights(indptr[:-1], np.array([1]), np.array([0.5])), decisions)
    twice = SparseWeights(np.append(0, np.full(len(decisions), 2)), np.array([1, 1]), np.array([0.5, 0.5]))
    with pytest.raises(WeightsError, match="coins do not ascend"):
        backtest_many(panel, twice, decisions)


def test_many_books_are_refused_as_one_is() -> None:
    """By the same check, which names the book; what one accepts, the others accept, beyond the panel too."""
    panel = random_panel(5, 24 * 8, 3)
    weights = random_weights(1, panel, styles=("dense",))
    cells = {
        "inf": (np.inf, 0.0),
        "minus": (-np.inf, 0.0),
        "gross": (0.9, 0.9),
        "huge": (1e308, 1e308),
        "edge": (1.0, 1e-5),  # of the slack for rounding
        "beyond": (1.0, 1.1e-5),
        "hold": (np.nan, np.nan),
        "small": (5e-324, -0.0),
    }
    made = {}
    for place in (2, -1):  # the last is traded beyond the panel with a delay
        for name, values in cells.items():
            made[f"{name} {place}"] = frame = weights.copy()
            frame.iloc[place] = [*values, 0.0]
    made |= {"nothing": weights * np.nan, "zeros": weights * 0.0, "half": weights.astype(np.float16)}
    made |= {"whole": (weights * 0).astype(int), "none": weights.astype(object).where(weights > 0, None)}
    for name, value in (
        ("text", "0.1"),
        ("true", True),
        ("complex", 1j),
        ("long", 10**400),
        ("time", weights.index[0]),
    ):
        made[name] = frame = weights.astype(object)
        frame.iloc[1, 1] = value
    configs = {"plain": {}, "late": {"delay_hours": 26}, "halved": {"leverage": 0.5}, "mixed": {"tranches": 2}}
    outcomes = []
    for execution in configs.values():
        config = RunConfig.from_dict({"execution": execution})
        for name, frame in made.items():
            values = np.stack([np.zeros(weights.shape, dtype=frame.to_numpy().dtype), frame.to_numpy()])
            forms = lambda values=values: (values, SparseWeights.from_dense(values))  # noqa: E731
            try:
                result = backtest(panel, frame, config)
            except WeightsError as error:
                outcomes.append(str(error)[:12])
                for form in range(2):
                    with pytest.raises(WeightsError) as many:
                        backtest_many(panel, forms()[form], weights.index, config)
                    assert str(many.value).replace(" of book 1", "") == str(error), (execution, name)
            else:
                outcomes.append("accepted")
                for form in forms():
                    assert_same(backtest_many(panel, form, weights.index, config).iloc[1], result)
    assert len(set(outcomes)) == 4 and min(map(outcomes.count, set(outcomes))) > 3


@pytest.mark.parametrize(
    "frame, message",
    [
        (lambda w: w > 0.1, "no number: (False|True)"),
        (lambda w: w.astype(str), "no number: '"),
        (lambda w: w.astype(complex), "no number: "),
        (lambda w: w.map(lambda _: pd.Timestamp(0)), "no number: Timestamp"),
        (lambda w: w.map(lambda _: pd.Timedelta(1)), "no number: Timedelta"),
    ],
)
def test_what_numpy_would_make_numbers_of_is_no_weight(frame, message: str) -> None:  # type: ignore[no-untyped-def]
    panel = random_panel(5, 24 * 3, 2)
    made = frame(random_weights(1, panel, styles=("dense",)))
    with pytest.raises(WeightsError, match=message):
        backtest(panel, made)
    with pytest.raises(WeightsError, match=r"Weights are an array of|no number"):
        backtest_many(panel, made.to_numpy()[None], made.index)


def test_sparse_weights_that_do_not_fit_together() -> None:
    """The kernel trusts them: each of these would read memory that is not its own, or be another weight."""
    one, two = np.array([0, 1]), np.array([0.5, 0.5])
    for indptr, coins, weights, message in (
        (np.array([0, 1]), one, two, "indptr must ascend from 0 to the number of entries; it ends at 1"),
        (np.array([0, 3, 2], dtype=np.uint64), one, two, "indptr must ascend"),
        (np.array([1, 2]), one, two, "indptr must ascend"),
        (np.array([], dtype=np.int64), one, two, "it ends at None"),
        (np.array([0, 2]), one, two[:1], "1 weights"),
        ([0, 2], one, two, "indptr is list; a 1-d array of integers is needed"),
        (np.array([0.0, 2.0]), one, two, "indptr is 1-d float64"),
        (np.array([0, 2]), np.array([0.2, 1.7]), two, "coins is 1-d float64; a 1-d array of integers is needed"),
        (np.array([0, 2]), one, np.array(["a", "b"]), "weights is 1-d <U1; a 1-d array of numbers is needed"),
        (np.array([0, 2]), one, two[None], "weights is 2-d float64"),
    ):
        with pytest.raises(WeightsError, match=message):
            SparseWeights(indptr, coins, weights)  # type: ignore[arg-type]


def test_sparse_weights_of_any_width_of_number(panel: Panel) -> None:
    weights, decisions = books(panel, 3)
    sparse = SparseWeights.from_dense(weights)
    expected = backtest_many(panel, sparse, decisions)
    other = SparseWeights(sparse.indptr.astype(np.uint64), sparse.coins.astype(np.int16), sparse.weights)
    pd.testing.assert_frame_equal(backtest_many(panel, other, decisions), expected, check_exact=True)


def test_what_was_lost_twice_is_no_gain() -> None:
    """Without margin equity may go below zero and come back: two such days multiply to a growth that nobody had."""
    index = pd.date_range("2024-10-01T23:00Z", periods=24 * 3 + 1, freq="h")
    mid = np.repeat([100.0, 20.0, 100.0, 20.0], 24)[: len(index)]
    panel = Panel.from_frames(mid=pd.DataFrame({"A": mid}, index=index))
    weights = pd.DataFrame({"A": [3.0]}, index=index[:1])
    config = RunConfig.from_dict({"account": {"max_gross": 3.0, "margin": False}})
    result = backtest(panel, weights, config)
    assert (1.0 + result.daily_returns).round(2).tolist() == [-1.4, 1.0, -1.4]
    assert result.metrics["cagr"] == -1.0
    assert_same(backtest_many(panel, weights.to_numpy()[None], weights.index, config).iloc[0], result)
