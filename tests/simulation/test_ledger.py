"""One coin, one trade, by hand: every rule of an instant with the arithmetic written out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from engine import Coin, Panel, RunConfig, backtest, backtest_many
from engine.errors import DataError, WeightsError
from engine.simulation.costs import scheduled_rates
from helpers.batches import assert_same


def taker_bps(index: pd.DatetimeIndex, bps: object) -> np.ndarray:
    return scheduled_rates(index, bps, maker=False, tiers=False)[:, 0] * 1e4  # type: ignore[arg-type]


START = pd.Timestamp("2024-10-01T22:00Z")
NAN = float("nan")


def hours(count: int, start: pd.Timestamp = START) -> pd.DatetimeIndex:
    return pd.date_range(start, periods=count, freq="h")


def make(mid: list[float], table: list[Coin] | None = None, **fields: list[float]) -> Panel:
    """A panel of one coin A from lists of values by row."""
    index = hours(len(mid))
    frames = {name: pd.DataFrame({"A": values}, index=index) for name, values in {"mid": mid, **fields}.items()}
    return Panel.from_frames(table=table, **frames)


def decide(panel: Panel, by_row: dict[int, float | dict[str, float]]) -> pd.DataFrame:
    rows = {panel.index[row]: value if isinstance(value, dict) else {"A": value} for row, value in by_row.items()}
    return pd.DataFrame.from_dict(rows, orient="index", dtype=float)


def config(**keys: dict[str, object]) -> RunConfig:
    """No costs, no minimum and no initial margin unless a test asks for them."""
    sections: dict[str, dict[str, object]] = {
        "costs": {"taker_bps": 0.0, "half_spread_bps": 0.0},
        "execution": {"min_notional_usd": 0.0},
        "account": {"max_gross": 5.0, "initial_margin": False},
    }
    for section, values in keys.items():
        sections[section] = {**sections.get(section, {}), **values}
    return RunConfig.from_dict(sections)


def test_long_gains_when_price_rises() -> None:
    result = backtest(make([100, 100, 110]), decide(make([100, 100, 110]), {1: 0.5}), config())
    # 10,000 * 0.5 / 100 = 50 units; 50 * 10 = 500
    assert result.equity.tolist() == [10000.0, 10000.0, 10500.0]
    assert result.trades[["coin", "units", "price", "notional_usd", "reason"]].to_numpy().tolist() == [
        ["A", 50.0, 100.0, 5000.0, "open"]
    ]


def test_short_gains_when_price_falls() -> None:
    panel = make([100, 100, 90])
    assert backtest(panel, decide(panel, {1: -0.5}), config()).equity.tolist() == [10000.0, 10000.0, 10500.0]


def test_fee_and_half_spread_of_a_buy_and_a_sell() -> None:
    panel = make([100, 100, 100])
    result = backtest(panel, decide(panel, {0: 1.0, 1: 0.0}), config(costs={"taker_bps": 4.5, "half_spread_bps": 2.0}))
    # buy 100 at 100.02: spread 2, fee 0.00045 * 10002 = 4.5009; sell 100 at 99.98: spread 2, fee 0.00045 * 9998
    assert result.trades["price"].tolist() == pytest.approx([100.02, 99.98], rel=1e-15)
    assert result.attribution["spread_usd"].tolist() == pytest.approx([2.0, 2.0, 0.0], rel=1e-12)
    assert result.attribution["fee_usd"].tolist() == pytest.approx([4.5009, 4.4991, 0.0], rel=1e-12)
    assert result.equity.iloc[-1] == pytest.approx(10000 - 4 - 9.0, rel=1e-15)


def test_buys_at_the_ask_sells_at_the_bid_and_one_side_is_no_quote() -> None:
    panel = make([100, 100, 100, 100], bid=[99, 99, NAN, 99], ask=[103, 103, 103, NAN], volume_usd=[1, 1, 1, 1])
    result = backtest(panel, decide(panel, {0: 0.5, 1: -0.5, 2: 0.5, 3: 0.0}), config(costs={"half_spread_bps": 100.0}))
    assert result.trades["price"].tolist() == pytest.approx([103.0, 99.0, 101.0, 99.0], rel=1e-15)
    assert result.trades["reason"].tolist() == ["open", "flip", "flip", "close"]


def test_sizing_uses_equity_before_costs() -> None:
    panel = make([100, 100])
    result = backtest(panel, decide(panel, {0: {"A": 1.0}}), config(costs={"taker_bps": 1000.0}))
    assert result.trades["units"].tolist() == [100.0]


@pytest.mark.parametrize(("units", "rate", "paid"), [(0.5, 0.001, 5.0), (-0.5, 0.001, -5.0), (0.5, -0.001, -5.0)])
def test_longs_pay_positive_funding_right_after_the_trade(units: float, rate: float, paid: float) -> None:
    panel = make([100, 100, 100], funding=[rate, rate, NAN])
    result = backtest(panel, decide(panel, {1: units}), config())
    # nothing is held at row 0; the trade of row 1 precedes the funding of row 1; row 2 has no rate
    assert result.attribution["funding_usd"].tolist() == pytest.approx([0.0, paid, 0.0], rel=1e-12)
    assert result.equity.iloc[-1] == pytest.approx(10000 - paid, rel=1e-15)


def test_funding_is_paid_on_oracle_then_mark_then_price() -> None:
    panel = make([100] * 4, funding=[0.01] * 4, mark=[NAN, 80, 80, NAN], oracle=[NAN, 50, NAN, NAN])
    result = backtest(panel, decide(panel, {0: 0.1}), config())
    assert result.attribution["funding_usd"].tolist() == pytest.approx([10.0, 5.0, 8.0, 10.0], rel=1e-12)


def test_funding_can_be_turned_off() -> None:
    panel = make([100, 100], funding=[0.01, 0.01])
    assert backtest(panel, decide(panel, {0: 1.0}), config(costs={"funding": False})).equity.tolist() == [
        10000.0,
        10000.0,
    ]


@pytest.mark.parametrize("missing", ["none", "mean"])
def test_held_hours_without_a_rate_are_counted_and_may_pay_the_mean(missing: str) -> None:
    """By hand: A is held from row 1 to 4, where one of four rates is missing; B, without any, at row 4."""
    mid = pd.DataFrame(100.0, index=hours(6), columns=["A", "B"])
    rates = mid.assign(A=[0.05, 0.01, NAN, 0.03, 0.07, NAN], B=NAN)
    panel = Panel.from_frames(mid=mid, funding=rates, table=[Coin("A"), Coin("B", listed=START)])
    book = decide(panel, {1: {"A": 0.5}, 4: {"B": 0.1}, 5: {"A": 0.0, "B": 0.0}})
    result = backtest(panel, book, config(costs={"funding_missing": missing}))
    mean = 0.04 if missing == "mean" else 0.0  # of A's own four rates; of all rates there are, for B
    held = result.equity.to_numpy()[3]
    paid = [0.0, 50.0, 5000 * mean, 150.0, 350.0 + held * 0.1 * mean, 0.0]
    assert result.attribution["funding_usd"].tolist() == pytest.approx(paid, rel=1e-12, abs=1e-12)
    assert result.metrics["funding_missing_frac"] == 2 / 5
    (note,) = result.notes
    assert note.startswith("40.0% of the hours in which a coin was held have no funding rate and ")
    assert ("paid a mean rate" in note) == (missing == "mean") and ("cost nothing" in note) == (missing == "none")
    without = backtest(Panel.from_frames(mid=mid), book, config(costs={"funding_missing": missing}))
    assert without.metrics["funding_missing_frac"] == 1.0
    assert without.notes == ("No hour in which a coin was held has a funding rate: these figures are without funding.",)
    unasked = backtest(panel, book, config(costs={"funding": False, "funding_missing": missing}))
    assert (unasked.metrics["funding_missing_frac"], unasked.notes) == (0.0, ())
    nothing = backtest(panel, book * 0.0, config(costs={"funding_missing": missing}))
    assert (nothing.metrics["funding_missing_frac"], nothing.notes) == (0.0, ())


@pytest.mark.parametrize(("mid", "units"), [(100.0, 29.0), (100.3, 28.0), (99.7, 29.0)])
def test_orders_are_cut_toward_zero_to_the_lot(mid: float, units: float) -> None:
    panel = make([mid, mid], table=[Coin("A", sz_decimals=0)])
    for sign in (1, -1):
        assert backtest(panel, decide(panel, {0: sign * 0.29}), config()).trades["units"].tolist() == [sign * units]


def test_a_whole_number_of_lots_is_not_cut_by_floating_point() -> None:
    # 0.29 * 100 is 28.999999999999996 in floating point
    panel = make([10000.0, 10000.0], table=[Coin("A", sz_decimals=2)])
    assert backtest(panel, decide(panel, {0: 0.29}), config()).trades["units"].tolist() == [0.29]


def test_a_reduction_is_cut_toward_zero_too() -> None:
    panel = make([100.0, 100.0, 100.0], table=[Coin("A", sz_decimals=0)])
    result = backtest(panel, decide(panel, {0: 0.5, 1: 0.455}), config())
    # 50 units held, 45.5 wanted: the order of -4.5 becomes -4
    assert result.trades["units"].tolist() == [50.0, -4.0]
    assert result.trades["reason"].tolist() == ["open", "reduce"]


def test_lots_can_be_turned_off() -> None:
    panel = make([100.3, 100.3], table=[Coin("A", sz_decimals=0)])
    units = backtest(panel, decide(panel, {0: 0.29}), config(execution={"lots": False})).trades["units"]
    assert units.tolist() == pytest.approx([2900 / 100.3], rel=1e-15)


def test_small_orders_are_skipped_but_a_full_close_is_always_sent() -> None:
    panel = make([100.0] * 5)
    result = backtest(
        panel, decide(panel, {0: 0.0009, 1: 0.0011, 2: 0.0019, 3: 0.0}), config(execution={"min_notional_usd": 10.0})
    )
    # 9 USD: skipped; 11 USD: sent; 8 USD more: skipped; closing 11 USD: sent
    assert result.trades["reason"].tolist() == ["open", "close"]
    assert result.metrics["skipped_min_notional"] == 2
    panel = make([100.0, 100.0, 10.0, 10.0])
    result = backtest(panel, decide(panel, {0: 0.005, 2: 0.0}), config(execution={"min_notional_usd": 10.0}))
    assert result.trades["notional_usd"].tolist() == [50.0, 5.0]  # the close is worth 5 USD


def test_an_order_of_exactly_the_minimum_or_the_band_is_sent() -> None:
    panel = make([100.0, 100.0])
    for keys in ({"min_notional_usd": 10.0}, {"no_trade_band_frac": 0.001}):
        assert len(backtest(panel, decide(panel, {0: 0.001}), config(execution=keys)).trades) == 1
        assert len(backtest(panel, decide(panel, {0: 0.00099}), config(execution=keys)).trades) == 0


def test_equity_of_exactly_the_maintenance_margin_is_enough() -> None:
    # long 2 x: 200 units; at 62.5 equity is 2,500 and maintenance at 2.5x is a fifth of 12,500
    panel = make([100.0, 62.5, 62.5], table=[Coin("A", max_leverage=2.5)])
    assert backtest(panel, decide(panel, {0: 2.0}), config()).liquidated_at is None
    panel = make([100.0, 62.499, 62.5], table=[Coin("A", max_leverage=2.5)])
    assert backtest(panel, decide(panel, {0: 2.0}), config()).liquidated_at == panel.index[1]


def test_no_trade_band_skips_but_not_a_close() -> None:
    panel = make([100.0] * 5)
    result = backtest(
        panel, decide(panel, {0: 0.5, 1: 0.54, 2: 0.56, 3: 0.0}), config(execution={"no_trade_band_frac": 0.05})
    )
    assert result.trades["units"].tolist() == pytest.approx([50.0, 6.0, -56.0], rel=1e-12)
    assert result.metrics["skipped_band"] == 1


def test_nan_holds_and_zero_closes_and_an_absent_coin_is_zero() -> None:
    index = hours(4)
    panel = Panel.from_frames(mid=pd.DataFrame({"A": [100.0] * 4, "B": [10.0, 10.0, 20.0, 20.0]}, index=index))
    weights = pd.DataFrame({"A": [0.2, NAN, 0.0], "B": [0.2, NAN, NAN]}, index=index[[0, 1, 2]])
    result = backtest(panel, weights, config())
    assert result.trades[["coin", "reason"]].to_numpy().tolist() == [["A", "open"], ["B", "open"], ["A", "close"]]
    result = backtest(panel, pd.DataFrame({"A": [0.2, 0.2]}, index=index[[0, 1]]), config())
    assert set(result.trades["coin"]) == {"A"}


def test_untradable_coin_stays_in_cash_or_is_spread_over_the_rest() -> None:
    index = hours(3)
    mid = pd.DataFrame({"A": [100.0] * 3, "B": [10.0] * 3, "C": [1.0] * 3}, index=index)
    tradable = pd.DataFrame({"A": [True] * 3, "B": [False] * 3, "C": [True] * 3}, index=index)
    panel = Panel.from_frames(mid=mid, tradable=tradable)
    weights = pd.DataFrame({"A": [0.2], "B": [0.5], "C": [-0.3]}, index=index[:1])
    cash = backtest(panel, weights, config())
    assert dict(zip(cash.trades["coin"], cash.trades["units"], strict=True)) == {"A": 20.0, "C": -3000.0}
    assert cash.metrics["untradable_orders"] == 1
    assert cash.metrics["untradable_weight"] == 0.5
    spread = backtest(panel, weights, config(execution={"untradable": "renormalise"}))
    # the row's gross of 1 falls on A and C alone: both doubled
    assert dict(zip(spread.trades["coin"], spread.trades["units"], strict=True)) == pytest.approx(
        {"A": 40.0, "C": -6000.0}
    )


@pytest.mark.parametrize(
    ("held", "asked", "then"),
    [
        ((0.5, 0.5), (0.5, 0.5), (0.5, 0.5)),  # what is stuck counts: nothing to make up for
        ((0.0, 0.0), (0.5, 0.5), (0.0, 1.0)),  # nothing is stuck
        ((0.0, 0.0), (-0.5, 0.1), (0.0, 0.2)),  # at most twice its own weight
        ((0.2, 0.5), (0.1, 0.9), (0.2, 0.8)),  # what is stuck leaves less than it wants
        ((0.6, 0.4), (0.1, 0.4), (0.6, 0.0)),  # more is stuck than was wanted: the other is flat
        ((0.6, 0.4), (NAN, 0.4), (0.6, 0.4)),  # a hold is in no sum
        ((0.6, -0.4), (0.0, -1.0), (0.6, -0.4)),  # a close that cannot be done is stuck, too
    ],
)
def test_renormalised_weights_stay_within_what_was_asked_for(
    held: tuple[float, float], asked: tuple[float, float], then: tuple[float, float]
) -> None:
    """A cannot be traded at the second decision."""
    index = hours(3)
    mid = pd.DataFrame({"A": [100.0] * 3, "B": [10.0] * 3}, index=index)
    panel = Panel.from_frames(mid=mid, tradable=pd.DataFrame({"A": [True, False, True], "B": True}, index=index))
    weights = pd.DataFrame([held, asked], index=index[:2], columns=["A", "B"])
    rule = config(execution={"untradable": "renormalise"})
    result = backtest(panel, weights, rule)
    units = result.trades.groupby("coin")["units"].sum().reindex(["A", "B"], fill_value=0.0) / [100.0, 1000.0]
    assert units.tolist() == pytest.approx(then)
    assert_same(backtest_many(panel, weights.to_numpy()[None], weights.index, rule).iloc[0], result)


def test_initial_margin_is_what_the_exchange_asks_for() -> None:
    """3x: three times the equity is taken, more is refused; a tier holds for the whole position."""
    tiers = ((0.0, 10.0), (20_000.0, 5.0))
    table = [Coin("A", max_leverage=3.0), Coin("B", max_leverage=10.0, margin_tiers=tiers)]
    index = hours(4)
    tradable = pd.DataFrame({"A": [True, True, False, True], "B": True, "C": True}, index=index)
    mid = pd.DataFrame({"A": [100.0, 100.0, 96.0, 96.0], "B": 10.0, "C": 1.0}, index=index)
    panel = Panel.from_frames(table=table, mid=mid, tradable=tradable)

    def run(*rows: tuple[float, float, float], **account: object) -> str:
        """Nothing, or why it was refused, by one run and by many."""
        weights, rules = pd.DataFrame(rows, index=index[: len(rows)], columns=list("ABC")), config(account=account)
        books = np.stack([np.zeros_like(weights), weights])
        try:
            backtest(panel, weights, rules)
        except WeightsError as error:
            with pytest.raises(WeightsError) as many:
                backtest_many(panel, books, weights.index, rules)
            assert str(many.value).replace(" of book 1", "") == str(error)
            return str(error)
        backtest_many(panel, books, weights.index, rules)
        return ""

    on = {"initial_margin": True}
    assert run((3.0, 0.0, 2.0), **on) == run((-3.0, 0.0, 0.0), **on) == run((5.0, 0.0, 0.0), initial_margin=False) == ""
    words = run((0.0, 0.0, 0.0), (-5.0, 0.0, 0.0), **on)
    assert "on 2024-10-01 23:00 UTC need 1.66667 times the account's equity of 10,000.00 USD" in words
    assert "(A -5 at 3x)" in words and "account.initial_margin = false" in words
    # 20,000 USD of B are a fifth of the equity at 10x; of 45,000 USD all is at 5x, not the part above 20,000 alone
    assert run((0.0, 2.0, 0.0), **on) == run((0.3, 4.5, 0.0), **on) == ""
    assert "A 0.4 at 3x" in run((0.4, 4.5, 0.0), **on)
    # A loses 4 %: what is held of it needs 0.96 / 0.888 of the equity. A hold and a close are taken, a bit of B is not.
    assert run((2.8, 0.0, 0.0), (NAN, 0.0, 0.0), (NAN, 0.0, 0.5), **on) == ""
    assert run((2.8, 0.3, 0.0), (NAN, NAN, 0.0), (1.0, 0.1, 0.0), **on) == ""
    assert "and what is held" in run((2.8, 0.0, 0.0), (NAN, 0.0, 0.0), (1.0, 1.0, 0.0), **on)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_worst_price_of_an_hour_liquidates(sign: float) -> None:
    """Two times the equity at 5x: maintenance is a tenth of the position. The prices of the hours show nothing."""
    near, far = ([100.0] * 5, [100.0, 100.0, 100.0, 100.0 - sign * 47.0, 100.0])
    fields = {"low": far, "high": near} if sign > 0 else {"low": near, "high": far}
    panel = make([100.0, 100.0, 100.0, 101.0, 101.0], [Coin("A", max_leverage=5.0)], **fields, funding=[0.001] * 5)
    weights = decide(panel, {1: 2.0 * sign, 3: sign, 4: sign})
    costs = {"taker_bps": 10.0, "half_spread_bps": 10.0, "funding": False}
    by_close = backtest(panel, weights, config(costs=costs))
    assert by_close.liquidated_at is None and by_close.metrics["trades"] == 3
    rules = config(costs=costs, account={"margin_prices": "extreme"})
    result = backtest(panel, weights, rules)
    # 200 units; at 53 (147) equity is 10,000 - 9,400 less the costs of the opening, and a tenth of the position 1,060
    assert result.liquidated_at == panel.index[3] and result.metrics["decisions"] == 1
    closed = result.trades.iloc[-1]
    assert (closed["units"], closed["reason"]) == (-200.0 * sign, "liquidation")
    assert closed["price"] == pytest.approx((100.0 - sign * 47.0) * (1.0 - sign * 1e-3), rel=1e-12)
    opened = 20.0 + 1e-3 * 200.0 * 100.0 * (1.0 + sign * 1e-3)
    left = 10_000.0 - opened - 9_400.0 - 0.2 * (100.0 - sign * 47.0) - 0.2 * closed["price"]
    assert result.equity.tolist()[3:] == pytest.approx([left, left], rel=1e-12)
    assert result.attribution["price_pnl_usd"].sum() == pytest.approx(-9_400.0)
    assert_same(backtest_many(panel, weights.to_numpy()[None], weights.index, rules).iloc[0], result)
    # what is opened at the row of the price was not there in its hour
    late = backtest(panel, decide(panel, {3: 2.0 * sign}), rules)
    assert late.liquidated_at is None
    with pytest.raises(
        DataError, match='margin_prices = "extreme" needs the fields high and low; the panel lacks high'
    ):
        backtest(make([100.0] * 3, low=[99.0] * 3), decide(panel, {1: 1.0}), rules)


@pytest.mark.parametrize("rule", ["no_trade_band_frac", "min_notional_usd"])
@pytest.mark.parametrize("equity", [10_000.0, 12_345.67, 7e5 / 3.0])
def test_the_last_bit_skips_no_order(rule: str, equity: float) -> None:
    """Ten coins at a tenth of the equity, and a band or a minimum of a tenth: all are opened."""
    prices = np.random.default_rng(3).lognormal(3.0, 2.0, 30)
    mid = pd.DataFrame(np.tile(prices, (2, 1)), index=hours(2), columns=[f"C{k}" for k in range(30)])
    panel = Panel.from_frames(mid=mid)
    keys = {"min_notional_usd": 0.1 * equity if rule == "min_notional_usd" else 0.0}
    keys |= {"no_trade_band_frac": 0.1} if rule == "no_trade_band_frac" else {}
    rules = config(execution=keys, account={"initial_equity_usd": equity})
    weights = pd.DataFrame(0.1, index=mid.index[:1], columns=mid.columns)
    assert backtest(panel, weights, rules).metrics["trades"] == 30
    assert backtest_many(panel, weights.to_numpy()[None], weights.index, rules)["trades"].tolist() == [30]
    assert backtest(panel, weights * (1 - 1e-9), rules).metrics["trades"] == 0


def test_a_held_coin_that_cannot_be_traded_is_not_closed() -> None:
    panel = make([100.0, 100.0, 120.0, 120.0], volume_usd=[1.0, 1.0, 0.0, 1.0])
    result = backtest(panel, decide(panel, {0: 0.5, 2: 0.0, 3: 0.0}), config())
    assert result.trades["time"].tolist() == [panel.index[0], panel.index[3]]
    assert result.metrics["untradable_orders"] == 1


def test_a_price_that_stops_is_held_and_settled_on_the_stale_row() -> None:
    panel = make([100.0, 110.0] + [NAN] * 6, funding=[0.0] * 3 + [0.001] * 5)
    result = backtest(panel, decide(panel, {0: 0.5, 7: 0.5}), config(execution={"stale_hours": 3}))
    # rows 2, 3, 4 have no price; row 4 is the third: settled at 110 before its funding. Row 3 pays on the last price.
    assert result.trades["reason"].tolist() == ["open", "delisting"]
    settled = result.trades.iloc[1]
    assert (settled["time"], settled["units"], settled["price"], settled["fee_usd"]) == (
        panel.index[4],
        -50.0,
        110.0,
        0.0,
    )
    assert result.attribution["funding_usd"].tolist() == pytest.approx(
        [0, 0, 0, 50 * 110 * 0.001, 0, 0, 0, 0], rel=1e-12
    )
    assert result.metrics["delistings"] == 1
    assert result.equity.iloc[-1] == pytest.approx(10500 - 5.5, rel=1e-15)


def test_a_price_that_comes_back_in_time_is_no_delisting() -> None:
    panel = make([100.0, NAN, NAN, 90.0])
    result = backtest(panel, decide(panel, {0: 0.5}), config(execution={"stale_hours": 3}))
    assert result.equity.tolist() == [10000.0, 10000.0, 10000.0, 9500.0]
    assert result.metrics["delistings"] == 0


def test_liquidation_at_the_maintenance_margin() -> None:
    # 3x: maintenance is half of 1/3 of notional. Long 4 x equity: 400 units. At 76: equity 400, notional 30,400,
    # maintenance 5,066.67; at 88.1: equity 5,240, notional 35,240, maintenance 5,873.
    panel = make([100.0, 90.0, 88.1, 100.0, 100.0], table=[Coin("A", max_leverage=3.0)])
    weights = decide(panel, {0: 4.0, 4: 1.0})
    result = backtest(panel, weights, config(costs={"taker_bps": 10.0, "half_spread_bps": 10.0}))
    # paid at the open: spread 40, fee 40.04; at 90: 9,919.96 - 4,000 = 5,919.96 against 6,000: liquidated there
    sold = result.trades.iloc[1]
    assert (sold["time"], sold["units"], sold["reason"]) == (panel.index[1], -400.0, "liquidation")
    assert sold["price"] == pytest.approx(89.91, rel=1e-12)
    assert result.liquidated_at == panel.index[1]
    expected = 10000 - 40 - 40.04 - 4000 - 36 - 0.001 * 400 * 89.91
    assert result.equity.iloc[1] == pytest.approx(expected, rel=1e-12)
    assert result.equity.iloc[4] == result.equity.iloc[1]  # it goes on flat; the decision of row 4 is not traded
    assert result.metrics["decisions"] == 1


def test_no_liquidation_without_margin_and_equity_may_go_below_zero() -> None:
    panel = make([100.0, 50.0, 50.0, 100.0], table=[Coin("A", max_leverage=3.0)])
    result = backtest(panel, decide(panel, {0: 4.0, 2: 1.0}), config(account={"margin": False}))
    assert result.equity.tolist() == [10000.0, -10000.0, -10000.0, 10000.0]  # nothing is sent at negative equity
    assert result.liquidated_at is None


def test_without_a_table_only_lost_equity_liquidates() -> None:
    panel = make([100.0, 76.0, 75.0])
    assert backtest(panel, decide(panel, {0: 4.0}), config()).liquidated_at == panel.index[2]


def test_delay_trades_at_the_later_row() -> None:
    panel = make([100.0, 100.0, 125.0, 250.0])
    result = backtest(panel, decide(panel, {0: 1.0, 3: 0.0}), config(execution={"delay_hours": 2}))
    # the decision of row 3 would be traded beyond the panel
    assert result.trades[["time", "units", "price"]].to_numpy().tolist() == [[panel.index[2], 80.0, 125.0]]
    assert result.equity.iloc[-1] == 20000.0
    with pytest.raises(WeightsError, match="No decision can be traded"):
        backtest(panel, decide(panel, {3: 1.0}), config(execution={"delay_hours": 2}))


def test_daily_returns_run_from_decision_hour_to_decision_hour() -> None:
    index = hours(74, pd.Timestamp("2024-10-01T00:00Z"))
    mid = pd.DataFrame({"A": np.linspace(100.0, 173.0, 74)}, index=index)
    panel = Panel.from_frames(mid=mid)
    weights = pd.DataFrame({"A": [1.0]}, index=index[23:24])
    result = backtest(panel, weights, config())
    expected = [mid["A"].iloc[47] / mid["A"].iloc[23] - 1, mid["A"].iloc[71] / mid["A"].iloc[47] - 1]
    assert result.daily_returns.tolist() == pytest.approx(expected, rel=1e-12)
    assert result.daily_returns.index.tolist() == [index[47], index[71]]
    assert result.metrics["sharpe"] == pytest.approx(
        np.mean(expected) / np.std(expected, ddof=1) * np.sqrt(365), rel=1e-12
    )
    assert result.metrics["cagr"] == pytest.approx((mid["A"].iloc[71] / mid["A"].iloc[23]) ** (365 / 2) - 1, rel=1e-9)


def test_turnover_and_exposure() -> None:
    panel = make([100.0, 100.0, 110.0, 110.0])
    result = backtest(panel, decide(panel, {1: 0.5, 2: -0.5}), config())
    # 0.5 at first; then from 50 * 110 = 5,500 to -5,250 of 10,500: 10,750 / 10,500
    assert result.metrics["turnover_decision"] == pytest.approx((0.5 + 10750 / 10500) / 2, rel=1e-12)
    assert result.metrics["turnover_daily"] == pytest.approx(0.5 + 10750 / 10500, rel=1e-12)  # within a day
    assert result.exposure["gross_frac"].tolist() == pytest.approx([0, 0.5, 0.5, 0.5], rel=1e-12)
    assert result.exposure["net_frac"].tolist() == pytest.approx([0, 0.5, -0.5, -0.5], rel=1e-12)
    # means over the two decisions, not over the rows
    assert result.metrics["gross_mean"] == pytest.approx(0.5, rel=1e-12)
    assert result.metrics["net_mean"] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("idle", [0.0, NAN])
@pytest.mark.parametrize("delay", [0, 3, 30])
def test_metrics_count_from_the_first_decision_that_asks_for_something(idle: float, delay: int) -> None:
    """Twenty days of cash before the first book are in the calendar's figures alone."""
    random = np.random.default_rng(1)
    index = hours(24 * 60, pd.Timestamp("2024-10-01T00:00Z"))
    mid = pd.DataFrame({"A": 100 * np.cumprod(1 + random.normal(0, 0.01, len(index)))}, index=index)
    panel = Panel.from_frames(mid=mid)
    decisions = index[index.hour == 23]
    weights = pd.DataFrame({"A": np.where(np.arange(60) < 20, idle, 0.5)}, index=decisions)
    made = backtest(panel, weights, config(execution={"delay_hours": delay}))
    figures, late = made.metrics, weights[20:]
    daily = made.equity[made.equity.index.hour == 23].pct_change().dropna()
    counted = daily[daily.index > decisions[20]]
    traded = [row for row in panel.rows(decisions) + delay if row < len(index)]
    assert made.first_decision == decisions[20] and figures["days"] == 39 and figures["days_calendar"] == 59
    assert made.daily_returns.tolist() == counted.tolist() and made.daily_returns_calendar.tolist() == daily.tolist()
    for name, days in (("sharpe", counted), ("sharpe_calendar", daily)):
        assert figures[name] == pytest.approx(days.mean() / days.std() * np.sqrt(365), rel=1e-12)
    assert figures["volatility"] > 1.2 * figures["volatility_calendar"]
    gross = made.exposure["gross_frac"].iloc[traded]
    assert figures["gross_mean"] == pytest.approx(gross[20:].mean()) == pytest.approx(0.5, rel=0.05)
    assert figures["gross_mean_calendar"] == pytest.approx(gross.mean())
    assert figures["turnover_daily_calendar"] == pytest.approx(
        figures["turnover_daily"] * (len(traded) - 20) / len(traded)
    )
    alone = backtest(panel, late, config(execution={"delay_hours": delay})).metrics
    for name, value in figures.items():
        if not name.endswith("_calendar") and name != "decisions":
            assert value == alone[name] or value == pytest.approx(alone[name], rel=1e-12), name
    nothing = backtest(panel, weights * 0.0, config()).metrics
    undefined = {name for name in ("cagr", "volatility", "sharpe", "sortino", "calmar") if np.isnan(nothing[name])}
    assert len(undefined) == 5 and (nothing["days"], nothing["gross_mean"], nothing["turnover_daily"]) == (0, 0.0, 0.0)


def test_max_drawdown_is_hourly_and_starts_from_the_initial_equity() -> None:
    panel = make([100.0, 100.0, 80.0, 120.0, 90.0])
    result = backtest(panel, decide(panel, {0: 1.0}), config(costs={"taker_bps": 100.0}))
    equity = result.equity.to_numpy()
    assert equity[0] == 9900.0
    assert result.metrics["max_drawdown"] == pytest.approx(min(equity[2] / 10000, equity[4] / equity[3]) - 1, rel=1e-12)


def test_the_dated_fee_schedule_applies_after_its_instant() -> None:
    index = hours(6, pd.Timestamp("2025-05-05T01:00Z"))
    # in force from 03:00; the trade of row 03:00 happens just before it
    assert (taker_bps(index, "schedule")).tolist() == pytest.approx([3.5, 3.5, 3.5, 4.5, 4.5, 4.5])
    assert (taker_bps(hours(2, pd.Timestamp("2024-03-11T00:00Z")), "schedule")).tolist() == pytest.approx([2.5, 3.5])
    assert taker_bps(hours(1, pd.Timestamp("2023-05-20T00:00Z")), "schedule").tolist() == [0.0]
    assert taker_bps(index, 4.5).tolist() == [4.5] * 6


def test_the_panel_as_known_is_refused() -> None:
    panel = make([100.0, 100.0], funding=[0.01, 0.01])
    with pytest.raises(DataError, match="an hour late"):
        backtest(panel.point_in_time(), decide(panel, {0: 1.0}), config())


@pytest.mark.parametrize("bid", [40.0, 90.0])
def test_no_impact_takes_a_sale_below_zero(bid: float) -> None:
    """A bid far under the mid and an impact of half of it: nobody pays to have a coin taken away."""
    quotes = {"bid": [bid] * 2, "ask": [100.0] * 2, "impact_bid": [bid / 4] * 2, "impact_ask": [100.0] * 2}
    panel = make([100.0, 100.0], **quotes)
    costs = {"impact": "venue", "taker_bps": 10.0}
    rich = config(costs={**costs, "half_spread_bps": 0.0}, account={"initial_equity_usd": 1e6, "margin": False})
    result = backtest(panel, decide(panel, {0: -1.0}), rich)
    price = max(bid - 50.0, 0.0)
    assert result.trades["price"].tolist() == pytest.approx([price], abs=1e-12)
    assert result.metrics["impact_usd"] == pytest.approx(1e4 * min(50.0, bid), rel=1e-12)
    assert result.equity.iloc[-1] == pytest.approx(1e6 - 1e4 * (100.0 - price) - 1e-3 * 1e4 * price, rel=1e-12)
