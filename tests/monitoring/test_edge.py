"""Bands of the edge: exact against a slow reference, honest about alarms and power; live returns and their state."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from arch.bootstrap import CircularBlockBootstrap

from engine.errors import DataError
from engine.live.spec import StrategySpec, canonical, read_spec, write_spec
from engine.monitoring.edge import edge_state, live_daily_returns
from engine.monitoring.edge_bands import STATISTICS, EdgeBands, edge_bands, path_statistics, vanished
from engine.validation.bootstrap import circular_days
from helpers.effort import some
from helpers.live_world import momentum_spec


def run_of(kind: str, seed: int = 1) -> np.ndarray:
    """Daily returns that are nasty for a bootstrap."""
    rng = np.random.default_rng(seed)
    if kind == "heavy":
        return 0.001 + 0.01 * rng.standard_t(2, 240)
    if kind == "short":
        return 0.002 + 0.02 * rng.standard_normal(20)
    if kind == "sparse":
        return np.where(rng.random(200) < 0.15, 0.05 * rng.standard_normal(200), 0.0)
    noise, returns = 0.02 * rng.standard_normal(300), np.zeros(300)
    for day in range(1, 300):
        returns[day] = 0.6 * returns[day - 1] + noise[day]
    return returns + 0.003


# The bands ------------------------------------------------------------------------------------------------------------


def slow_statistics(path: Sequence[float]) -> list[tuple[float, float, float]]:
    """Return, deepest drawdown and longest losing run after each day, a day at a time."""
    wealth, highest, deepest, run, longest, found = 1.0, 1.0, 0.0, 0, 0, []
    for day in path:
        wealth = max(wealth * (1.0 + day), 0.0) if wealth > 0.0 else 0.0
        highest = max(highest, wealth)
        deepest = max(deepest, 1.0 - wealth / highest)
        run = run + 1 if day < 0.0 else 0
        longest = max(longest, run)
        found.append((wealth - 1.0, deepest, float(longest)))
    return found


def slow_sample(returns: np.ndarray, block: int, days: int, paths: int, seed: tuple[int, int]) -> list[list[float]]:
    rng, drawn = np.random.default_rng(seed), []
    starts = rng.integers(len(returns), size=(paths, math.ceil(days / block)))
    for row in starts:
        path = [float(returns[(start + place) % len(returns)]) for start in row for place in range(block)]
        drawn.append(path[:days])
    return drawn


def beyond(values: tuple[float, float, float], limits: tuple[float, float, float]) -> bool:
    return values[0] < limits[0] or values[1] > limits[1] or values[2] > limits[2]


@pytest.mark.parametrize("kind", ["heavy", "short", "correlated"])
@pytest.mark.parametrize("seed", range(some(1, 5)))
def test_the_bands_are_those_of_a_slow_reference(kind: str, seed: int) -> None:
    """Every rank is tried from the loosest on: the tightest with which both samples stay within 5 %."""
    returns, days, paths = np.round(run_of(kind, seed), 10), 12, 80
    found = edge_bands(returns, horizon_days=days, paths=paths, seed=seed)
    block = max(1, round(len(returns) ** (1.0 / 3.0)))
    first, second = (
        [slow_statistics(path) for path in slow_sample(returns, block, days, paths, (seed, number))]
        for number in (0, 1)
    )
    allowed, best = int(0.05 * paths), 1
    for rank in range(1, paths):
        limits = ranked(first, rank)
        crossing = sum(any(map(beyond, path, limits)) for path in second)
        # A path of the sample itself is held against the others.
        own = 0
        for place, path in enumerate(first):
            others = ranked(first[:place] + first[place + 1 :], rank)
            own += any(map(beyond, path, others))
        if crossing > allowed or own > allowed:
            break
        best = rank
    assert found.rank == best
    limits = ranked(first, best)
    for place, (low, deep, long) in enumerate(limits):
        assert found.bands[:, place] == pytest.approx([low, deep, long], abs=1.01e-5)
        assert found.bands[0, place] <= low and found.bands[1, place] >= deep  # rounding causes no alarm
    kept = [tuple(found.bands[:, place]) for place in range(days)]
    assert found.false_alarms == sum(any(map(beyond, path, kept)) for path in second) / paths
    flat = [slow_statistics(path) for path in slow_sample(vanished(returns), block, days, paths, (seed, 2))]
    for day in (0, days // 2, days - 1):
        crossed = sum(any(map(beyond, path[: day + 1], kept[: day + 1])) for path in flat)
        assert found.crossed_demeaned[day] == crossed


def ranked(paths: list[list[tuple[float, float, float]]], rank: int) -> list[tuple[float, float, float]]:
    """The rank-th worst of each statistic on each day."""
    limits = []
    for of_day in zip(*paths, strict=True):
        low = sorted(values[0] for values in of_day)[rank - 1]
        deep, long = (sorted((values[place] for values in of_day), reverse=True)[rank - 1] for place in (1, 2))
        limits.append((low, deep, long))
    return limits


@pytest.mark.parametrize("kind", ["heavy", "correlated", "short", "sparse"])
def test_false_alarms_and_power_are_what_is_printed(kind: str) -> None:
    """On new paths, by the function that judges a live account; and of them at most about 5 % cross."""
    returns, spec = run_of(kind), bare_spec()
    bands = edge_bands(returns, horizon_days=90)
    assert bands.false_alarms <= 0.05 and bands.power[-1] >= 0.0
    spec = replace(spec, bands=bands.to_dict())
    paths = some(250, 2_000)
    for of, probability in ((returns, bands.false_alarms), (vanished(returns), float(bands.power[-1]))):
        fresh = of[circular_days(len(returns), bands.block_days, 90, paths, 77)]
        crossed = np.mean([edge_state(spec, path).state == "crossed" for path in fresh])
        error = math.sqrt(max(probability, 0.02) * max(1.0 - probability, 0.02) * (1.0 / paths + 1.0 / bands.paths))
        assert abs(crossed - probability) < 4.0 * error, (crossed, probability)
    assert f"{bands.power[-1]:.0%}" in bands.text() and f"{bands.false_alarms:.1%}" in bands.text()


def test_paths_are_drawn_as_arch_draws_them() -> None:
    drawing = CircularBlockBootstrap(4, np.arange(30), seed=5)
    drawn = np.stack([of_days[0] for of_days, _ in drawing.bootstrap(20)])
    assert (circular_days(30, 4, 30, 20, 5) == drawn).all()


def test_the_digest_is_the_same_anywhere() -> None:
    """Last bits of the returns, which may differ between machines, change nothing; anything else does."""
    returns = run_of("heavy", 3)
    digest = edge_bands(returns, horizon_days=60, paths=200).to_dict()["digest"]
    assert digest == "de9f816b45d94b6e791c8b96dc7c2e8ff475104f3e0091f048ecad07f8261261"
    assert edge_bands(returns * (1.0 + 1e-14), horizon_days=60, paths=200).to_dict()["digest"] == digest
    returns[5] += 1e-8
    assert edge_bands(returns, horizon_days=60, paths=200).to_dict()["digest"] != digest


def test_a_spec_keeps_the_bands_small_and_whole(tmp_path: Path) -> None:
    path = momentum_spec(tmp_path, tmp_path)
    old = read_spec(path)
    assert old.bands is None and "bands" not in json.loads(path.read_text())
    bands = edge_bands(run_of("correlated"))
    spec = replace(old, bands=bands.to_dict())
    write_spec(spec, path)
    assert read_spec(path) == spec and spec.digest != old.digest
    assert len(canonical(spec.bands)) < 12_000
    read = EdgeBands.from_dict(read_spec(path).bands or {})
    assert (read.bands == bands.bands).all() and (read.power == bands.power).all()
    assert read.to_dict() == bands.to_dict()


@pytest.mark.parametrize("returns", [np.full(100, 0.001), np.full(19, 0.01) * np.arange(19), [math.nan] * 50])
def test_a_run_that_gives_no_bands_is_refused(returns: np.ndarray) -> None:
    with pytest.raises(DataError, match="give no bands of the edge: at least 20 that vary"):
        edge_bands(returns)


# The state ------------------------------------------------------------------------------------------------------------


def bare_spec() -> StrategySpec:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return read_spec(momentum_spec(Path(folder), Path(folder)))


@pytest.fixture(scope="module")
def spec() -> StrategySpec:
    """Of a run that earned 0.5 % a day, give or take 1 %."""
    rng = np.random.default_rng(4)
    bands = edge_bands(0.005 + 0.01 * rng.standard_normal(300), horizon_days=100, paths=500)
    return replace(bare_spec(), bands=bands.to_dict())


def test_pending_then_holding_then_crossed_for_good(spec: StrategySpec) -> None:
    bands = EdgeBands.from_dict(spec.bands or {})
    wait = bands.pending_days
    assert wait is not None and 1 < wait < 100
    good = np.full(wait, 0.005)
    assert edge_state(spec, []).state == edge_state(spec, good[:-1]).state == "pending"
    assert f"enough from day {wait} on" in edge_state(spec, []).text
    held = edge_state(spec, good)
    assert held.state == "holding" and held.day == wait and held.power == bands.power[wait - 1]
    assert held.figures["cumulative_return"] == pytest.approx(1.005**wait - 1.0)
    lost = edge_state(spec, [*good, -0.5, *good])
    assert (lost.state, lost.crossed_by, lost.crossed_day) == ("crossed", "cumulative_return", wait + 1)
    assert lost.figures["cumulative_return"] < lost.bands["cumulative_return"] == bands.bands[0, wait]
    assert f"on day {wait + 1} of 100 the return since the start was" in lost.text
    small = edge_state(spec, [-0.0001] * 40)
    assert small.state == "crossed" and small.crossed_by in STATISTICS


def test_a_new_horizon_begins_after_the_last_day_and_a_crossing_stays(spec: StrategySpec) -> None:
    year = np.full(100, 0.005)
    assert (edge_state(spec, year).day, edge_state(spec, [*year, 0.005]).day) == (100, 1)
    assert edge_state(spec, [*year, 0.005]).state == "pending"
    assert edge_state(spec, [*year, *year, -0.3]).state == "crossed"
    lost = edge_state(spec, [-0.3, *year, *year])
    assert lost.state == "crossed" and lost.crossed_day == 1


def test_what_is_not_known_is_no_alarm(spec: StrategySpec) -> None:
    bands = EdgeBands.from_dict(spec.bands or {})
    longest = int(bands.bands[2, -1])
    losses = np.full(longest + 1, -1e-6)
    paid = np.concatenate([np.full(60, 0.01), losses])
    assert edge_state(spec, paid).crossed_by == "losing_run"
    paid[-2] = math.nan
    assert edge_state(spec, paid).state == "holding"
    assert edge_state(spec, [math.nan] * 99).state != "crossed"


def test_without_bands_it_says_what_to_do(spec: StrategySpec) -> None:
    old = edge_state(replace(spec, bands=None), [0.01])
    assert old.state == "no bands" and "promote again, or renew" in old.text and math.isnan(old.power)
    why = edge_state(replace(spec, bands={"why": "12 daily returns"}), [0.01])
    assert why.state == "no bands" and why.text.endswith("12 daily returns")


# Live returns ---------------------------------------------------------------------------------------------------------


def entry(kind: str, day: float, equity: float | None, key: str, hour: int = 23) -> dict[str, Any]:
    at = pd.Timestamp("2026-03-01T00:00Z") + pd.Timedelta(days=day, hours=hour)
    return {"kind": kind, "time": at.isoformat(), "instant": at.isoformat(), "equity_usd": equity, "key": key}


def test_live_returns_are_those_of_the_equities_without_what_was_moved(spec: StrategySpec) -> None:
    own, other = spec.digest, "another"
    entries = [
        entry("plan", 0, 900.0, other),  # what was promoted under this name before
        entry("done", 0, 901.0, other),
        entry("plan", 1, 1_000.0, own),
        entry("done", 1, 999.0, own),
        entry("plan", 1, 998.0, own),  # a second run of the instant
        entry("plan", 2, 1_100.0, own),
        entry("plan", 2.5, 1_050.0, own),  # off the schedule
        entry("done", 2.5, 1_045.0, own),
        entry("refused", 2.6, 2_000.0, own),  # with the deposit in it already
        entry("equity_accepted", 2.7, 2_090.0, own),
        entry("plan", 3, 2_299.0, own),
        entry("plan", 6, 2_299.0 * 1.21, own),  # two days were missed
        entry("plan", 7, None, own),  # its equity was not certain
        entry("plan", 8, 2_299.0, own),
    ]
    found = live_daily_returns(entries, spec)
    # 1,100 to 1,045 were lost before the deposit, then a tenth was gained on 2,090.
    expected = [0.1, 0.95 * 1.1 - 1.0, math.nan, math.nan, 0.21, math.nan, 1.0 / 1.21 - 1.0]
    np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-12)
    assert found.index[0] == pd.Timestamp("2026-03-03T23:00Z") and found.index[-1] == pd.Timestamp("2026-03-09T23:00Z")
    # The equity of a run that has no plan yet; not where there is one of the instant.
    at = pd.Timestamp("2026-03-10T23:00Z")
    assert live_daily_returns(entries, spec, at, 2_299.0 * 0.5).iloc[-1] == pytest.approx(-0.5)
    assert live_daily_returns(entries, spec, found.index[-1], 1.0).equals(found)
    # A renewed spec goes on; a reinstatement begins anew.
    renewed = replace(spec, trials=9, gates={**spec.gates, "renewed_from": [{"digest": own}]})
    assert live_daily_returns(entries, renewed).equals(found)
    assert live_daily_returns(entries, replace(spec, trials=9)).empty
    anew = [
        *entries,
        {"kind": "reinstated", "time": ""},
        entry("plan", 9, 2_000.0, own),
        entry("plan", 10, 1_000.0, own),
    ]
    assert live_daily_returns(anew, spec).tolist() == [-0.5]


def test_an_account_that_lost_all_is_no_division_by_zero(spec: StrategySpec) -> None:
    own = spec.digest
    entries = [entry("plan", 0, 1_000.0, own), entry("plan", 1, -5.0, own), entry("plan", 2, 3.0, own)]
    returns = live_daily_returns(entries, spec)
    assert returns.iloc[0] == -1.0 and np.isnan(returns.iloc[1])
    assert edge_state(spec, returns).state == "crossed"


def test_a_vanished_edge_leaves_days_without_a_position_as_they_are() -> None:
    np.testing.assert_allclose(vanished(np.array([0.04, 0.0, -0.01, 0.0, 0.0])), [0.025, 0.0, -0.025, 0.0, 0.0])
    assert edge_bands(run_of("sparse"), horizon_days=90).power[-1] < 0.5


def test_statistics_of_a_path_by_hand() -> None:
    found = path_statistics(np.array([[0.1, -0.5, -0.1, 0.0, -0.1, -2.0]]))[:, 0]
    np.testing.assert_allclose(found[0], [0.1, -0.45, -0.505, -0.505, -0.5545, -1.0])
    np.testing.assert_allclose(found[1], [0.0, 0.5, 0.55, 0.55, 0.595, 1.0])
    assert found[2].tolist() == [0, 1, 2, 2, 2, 2]
