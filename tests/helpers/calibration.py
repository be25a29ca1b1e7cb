"""Made-up markets with and without an edge, and the sweeps over them by which the verdict is calibrated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from engine import Coin, Panel, sweep
from engine.sweeps.study import Study
from engine.validation.evidence import ValidationInputs
from engine.validation.reruns import Rerun
from engine.validation.thresholds import GateFile
from engine.validation.validate import judge
from research.oracles.momentum import Momentum

COINS, HOURS_PER_DAY = 20, 24
#: Days that a drift lasts, up or down, coin by coin.
REGIME_DAYS = 20
#: Hourly volatility of a coin alone, and of what all coins share.
ALONE, SHARED = 0.006, 0.004
#: A grid of which every set finds the drift, 50 sets; and as many sets that pay for trading noise.
GOOD, BAD = list(range(72, 312, 24)), list(range(1, 11))
SIDES = [2, 3, 4, 5, 6]
#: Hourly drift of the planted edges.
EDGES = {"edge 1": 0.000125, "edge 2": 0.000152, "edge 3": 0.000186, "edge 4": 0.000218, "edge 5": 0.000260}
NOISES = ("random scores", "permuted coins", "shuffled time")


@dataclass(frozen=True)
class PermutedMomentum(Momentum):
    """Momentum of other coins: scores change places, the same ones for good."""

    seed: int = 0
    score_parameters: ClassVar[tuple[str, ...]] = ("lookback_hours", "skip_hours", "seed")

    def score(self, panel: Panel, row: int) -> np.ndarray:
        """The score of another coin."""
        own = super().score(panel, row)
        return own[_others(self.seed, len(own))]


@dataclass(frozen=True)
class RandomScores(Momentum):
    """Scores out of thin air, another draw for every lookback, that stay for a week."""

    seed: int = 0
    score_parameters: ClassVar[tuple[str, ...]] = ("lookback_hours", "skip_hours", "seed")

    def score(self, panel: Panel, row: int) -> np.ndarray:
        """A draw of the week."""
        return _drawn(self.seed, self.lookback_hours, row // 168, len(panel.coins))


@lru_cache(maxsize=16)
def _others(seed: int, coins: int) -> np.ndarray:
    """Another coin for each: a roll after a shuffle leaves none in its place."""
    order = np.random.default_rng(seed).permutation(coins)
    return np.roll(order, 1)[np.argsort(order)]


@lru_cache(maxsize=20_000)
def _drawn(seed: int, stream: int, week: int, coins: int) -> np.ndarray:
    return np.random.default_rng((seed, stream, week)).normal(size=coins)


def made_panel(drift: float, days: int, seed: int, shuffled: bool = False) -> Panel:
    """Hours of :data:`COINS` coins whose drift lasts; with `shuffled` its days come in any order.

    A longer panel of a seed begins as a shorter one does.
    """
    market, signs, offsets = (np.random.default_rng((seed, stream)) for stream in range(3))
    hours = days * HOURS_PER_DAY
    noise = market.normal(size=(hours, COINS + 1))
    shift = offsets.integers(0, REGIME_DAYS, COINS)
    regime = (np.arange(hours)[:, None] // HOURS_PER_DAY + shift) // REGIME_DAYS
    direction = np.take_along_axis(signs.choice([-1.0, 1.0], (regime.max() + 1, COINS)), regime, axis=0)
    growth = drift * direction + ALONE * noise[:, 1:] + SHARED * noise[:, :1]
    if shuffled:
        order = np.random.default_rng((seed, 3)).permutation(days)
        growth = growth.reshape(days, HOURS_PER_DAY, COINS)[order].reshape(hours, COINS)
    index = pd.date_range("2020-01-01", periods=hours, freq="h", tz="UTC")
    names = ["BTC", *(f"C{number:02d}" for number in range(1, COINS))]
    frames = {"mid": 100.0 * np.exp(np.cumsum(growth, axis=0)), "volume_usd": np.full((hours, COINS), 1e7)}
    table = [Coin(name, sz_decimals=6, max_leverage=10.0) for name in names]
    return Panel.from_frames(
        table=table, synthetic=True, **{name: pd.DataFrame(of, index, names) for name, of in frames.items()}
    )


def swept(source: str, days: int, seed: int) -> tuple[Panel, dict[str, Study]]:
    """One sweep of a source, an edge or a noise: the panel, its homogeneous grid and the one padded with bad sets."""
    oracle: Any = {"random scores": RandomScores, "permuted coins": PermutedMomentum}.get(source, Momentum)
    panel = made_panel(EDGES.get(source, EDGES["edge 3"]), days, seed, source == "shuffled time")
    fixed = {} if oracle is Momentum else {"seed": seed}
    padded = sweep(panel, oracle, {"lookback_hours": [*BAD, *GOOD], "n": SIDES}, fixed=fixed)
    good = np.flatnonzero(padded.table.index.get_level_values("lookback_hours") >= GOOD[0])
    table, daily = padded.table.iloc[good], padded.daily_returns
    assert daily is not None and isinstance(table.index, pd.MultiIndex)
    index = table.index.remove_unused_levels()
    record = {**padded.record, "grid": {**padded.record["grid"], "lookback_hours": GOOD}}
    daily = daily.iloc[:, good].set_axis(index, axis=1)
    return panel, {
        "homogeneous": replace(padded, record=record, table=table.set_axis(index), daily_returns=daily),
        "padded": padded,
    }


class KeptRerun(Rerun):
    """A winner whose runs are kept: both grids of a sweep mostly have the same."""

    @lru_cache  # noqa: B019 - an instance lives as long as its panel
    def null_books(self, seed: int, replicates: int = 199, roll_step: int = 7) -> dict[str, Any]:
        """See :class:`Rerun`; with a fifth of the books, which makes the p-value coarser and no less right."""
        return super().null_books(seed, replicates, roll_step)

    @lru_cache  # noqa: B019 - an instance lives as long as its panel
    def _kept(self, name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = getattr(Rerun, name)(self)
        return rows

    def costs(self) -> list[dict[str, Any]]:
        """See :class:`Rerun`."""
        return self._kept("costs")

    def delays(self) -> list[dict[str, Any]]:
        """See :class:`Rerun`."""
        return self._kept("delays")

    def decision_hours(self, done: Any = None) -> list[dict[str, Any]]:
        """See :class:`Rerun`."""
        return self._kept("decision_hours")

    def start_dates(self) -> list[dict[str, Any]]:
        """See :class:`Rerun`."""
        return self._kept("start_dates")


def judged(source: str, days: int, seed: int) -> dict[str, dict[str, Any]]:
    """What the verdict said of both grids: its word, and each check's outcome and value."""
    panel, studies = swept(source, days, seed)
    thresholds, kept, outcome = GateFile.read().verdict, {}, {}
    for grid, study in studies.items():
        inputs = ValidationInputs(study, study.best(), panel, None, seed)
        winner = str(study.params(inputs.row))
        inputs.__dict__["rerun"] = kept.setdefault(winner, KeptRerun(study, inputs.row, panel))
        verdict = judge(inputs, thresholds, lambda *_: None)
        outcome[grid] = {
            "word": verdict.word,
            "passed": verdict.passed,
            "checks": {check.name: check.passed for check in verdict.checks},
            "values": {check.name: check.value for check in verdict.checks},
            "sharpe": float(study["sharpe"].max()),
            "pbo": verdict.details["pbo"].get("pbo"),
            "power": verdict.details["familywise"].get("critical"),
        }
    return outcome


def true_sharpes(source: str, years: int, seed: int) -> tuple[float, float]:
    """Sharpe ratio of the best and the median set of the homogeneous grid over many years."""
    panel = made_panel(EDGES[source], 365 * years, seed)
    sharpe = sweep(panel, Momentum, {"lookback_hours": GOOD, "n": SIDES}, returns=False)["sharpe"]
    return float(sharpe.max()), float(sharpe.median())
