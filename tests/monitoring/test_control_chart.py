"""Control charts: the statistics by hand, what is found when, and how often nothing is found to be something."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from engine.errors import DataError
from engine.monitoring.control_chart import FALSE_ALARMS, LEAST_DAYS, SHARES, cost_alarm
from helpers.effort import some


def days(**columns: np.ndarray) -> pd.DataFrame:
    count = max(map(len, columns.values()))
    return pd.DataFrame(columns, index=pd.date_range("2024-01-01T23:00", periods=count, tz="UTC"))


def test_the_statistics_are_those_of_the_page() -> None:
    values = np.random.default_rng(0).normal(1.0, 4.0, 40)
    [chart] = cost_alarm(days(account_bps=values)).charts
    cusum, ewma, total = 0.0, 0.0, []
    for day, value in enumerate(values):
        cusum, ewma = max(0.0, cusum + value - 1.0), 0.9 * ewma + 0.1 * value
        assert chart.cusum_bps[day] == pytest.approx(cusum, abs=1e-9)
        assert chart.ewma_bps[day] == pytest.approx(ewma, abs=1e-9)
        total.append(value)
    parts = [values[:14], values[14:28], values[28:]]
    squares = sum(((part - part.mean()) ** 2).sum() for part in parts)
    assert chart.sd_bps == pytest.approx(np.sqrt(squares / (len(values) - len(parts))), rel=1e-12)
    assert np.isnan(chart.cusum_limit_bps[: LEAST_DAYS - 1]).all()
    assert (chart.cusum_limit_bps[LEAST_DAYS - 1 :] > 0.0).all()


def test_no_later_day_changes_an_earlier_one() -> None:
    values = np.random.default_rng(1).normal(0.5, 5.0, 120)
    [whole] = cost_alarm(days(account_bps=values)).charts
    for count in (LEAST_DAYS, 20, 77):
        [part] = cost_alarm(days(account_bps=values[:count])).charts
        for name in ("cusum_bps", "cusum_limit_bps", "ewma_bps", "ewma_limit_bps"):
            np.testing.assert_allclose(getattr(part, name), getattr(whole, name)[:count], rtol=0.03, err_msg=name)


@pytest.mark.parametrize(("excess", "most"), [(5.0, 20), (2.0, 75)])
def test_an_extra_cost_is_found_in_time(excess: float, most: int) -> None:
    rng = np.random.default_rng(7)
    found = []
    for _ in range(some(200, 1000)):
        alarm = cost_alarm(days(account_bps=rng.normal(excess, 5.0, 4 * most)))
        found.append(np.inf if alarm.crossed is None else (alarm.crossed - pd.Timestamp("2024-01-01T23:00Z")).days + 1)
    assert np.median(found) <= most


def test_false_alarms_of_a_year_of_all_series_together() -> None:
    """Series of very different noise, and one of them the sum of the others, as an account's is."""
    rng, years = np.random.default_rng(11), some(150, 1000)
    alarms = 0
    for _ in range(years):
        slippage, funding, own = (rng.normal(0.0, sd, 365) for sd in (3.0, 0.5, 4.0))
        fees = np.where(rng.random(365) < 0.02, 0.3, 0.0)
        year = days(
            slippage_bps=slippage, fee_bps=fees, funding_bps=funding, account_bps=slippage + fees + funding + own
        )
        alarms += cost_alarm(year).state == "crossed"
    assert alarms / years <= FALSE_ALARMS + (0.03 if years < 1000 else 0.01)


def test_a_change_after_a_quiet_year_is_dated_and_measured() -> None:
    values = np.random.default_rng(3).normal(0.0, 5.0, 300)
    values[200:] += 8.0
    alarm = cost_alarm(days(account_bps=values, slippage_bps=np.full(300, np.nan)))
    start = pd.Timestamp("2024-01-01T23:00Z") + pd.Timedelta(days=200)
    assert (alarm.state, alarm.series, alarm.days_to_decide) == ("crossed", "account_bps", 0)
    assert alarm.crossed is not None and alarm.since is not None
    assert start < alarm.crossed <= start + pd.Timedelta(days=20)
    assert abs(alarm.since - start) <= pd.Timedelta(days=12)
    assert alarm.estimate_bps_day == pytest.approx(8.0, abs=3.5)
    assert alarm.statistic > 0.0


def test_the_series_that_crossed_is_named_and_noise_of_another_hides_nothing() -> None:
    rng = np.random.default_rng(5)
    year = days(fee_bps=np.full(60, 2.5), account_bps=rng.normal(2.5, 40.0, 60))
    alarm = cost_alarm(year)
    assert (alarm.state, alarm.series, alarm.estimate_bps_day) == ("crossed", "fee_bps", 2.5)


def test_pending_holding_and_what_it_takes_to_decide() -> None:
    rng = np.random.default_rng(6)
    empty = cost_alarm(days(account_bps=np.full(5, np.nan)))
    assert (empty.state, empty.series, empty.charts) == ("pending", "", ())
    few = cost_alarm(days(account_bps=rng.normal(0.0, 5.0, LEAST_DAYS - 1)))
    assert few.state == "pending" and np.isnan(few.threshold) and few.days_to_decide >= 1
    some_days = cost_alarm(days(account_bps=rng.normal(0.0, 5.0, 60)))
    assert some_days.state == "holding" and some_days.statistic < some_days.threshold
    assert 20 <= some_days.days_to_decide <= 150


def test_what_is_no_series_of_days_is_refused() -> None:
    with pytest.raises(DataError, match="Not a series of excess costs: luck_bps"):
        cost_alarm(days(luck_bps=np.zeros(3)))
    with pytest.raises(DataError, match="must be ascending"):
        cost_alarm(days(fee_bps=np.zeros(3)).iloc[::-1])
    with pytest.raises(DataError, match="not finite"):
        cost_alarm(days(fee_bps=np.array([0.0, np.inf])))
    assert sum(SHARES.values()) == pytest.approx(1.0)
