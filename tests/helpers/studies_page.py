"""Made-up studies and verdicts for the tests of the sweep page: plausible, seeded, no backtest behind them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.config import RunConfig
from engine.sweeps.study import ERROR, Study, index_of

GRID: dict[str, list[Any]] = {
    "lookback_hours": [24, 72, 168, 336, 720],
    "n": [3, 5, 10, 20],
    "weighting": ["equal", "volatility"],
    "execution.no_trade_band_frac": [0.0, 0.01],
}


def study(
    folder: Path,
    grid: Mapping[str, list[Any]] | None = None,
    days: int = 400,
    failed: int = 3,
    sets: int | None = None,
    returns: bool = True,
    seed: int = 7,
    **record: Any,
) -> Study:
    """A study of every combination of `grid`, or of `sets` of them; the first `failed` in a random order failed."""
    random = np.random.default_rng(seed)
    grid = GRID if grid is None else grid
    codes = np.array(list(itertools.product(*(range(len(values)) for values in grid.values()))), dtype=np.int64)
    if sets is not None:
        codes = codes[np.sort(random.choice(len(codes), sets, replace=False))]
    count = len(codes)
    scaled = codes / np.maximum([len(values) - 1 for values in grid.values()], 1)
    # A hill in the first two parameters, so that a heat map has something to show.
    skill = 1.2 - 3.0 * ((scaled[:, :2] - 0.6) ** 2).sum(axis=1) + random.normal(0.0, 0.25, count)
    market = random.normal(0.0, 0.012, days)
    daily = (market + (skill / np.sqrt(365.0) * 0.02)[:, None] + random.normal(0.0, 0.016, (count, days))).astype(float)
    broken = random.permutation(count)[:failed]
    daily[broken] = np.nan
    table = _table(daily, random)
    table[ERROR] = ""
    for place in broken:
        table.loc[place, table.columns != ERROR] = np.nan
        table.loc[place, ERROR] = "OracleError: n = 20 coins of 17 that are tradable on 2025-01-03 23:00 UTC."
    index = index_of(grid, codes)
    dates = pd.date_range("2024-02-01", periods=days, tz="UTC", name="time")
    folder.mkdir(parents=True, exist_ok=True)
    made = {
        "schema": 1,
        "name": folder.name,
        "created": "2025-04-01T12:00:00+00:00",
        "synthetic": False,
        "oracles": [
            {
                "path": "research.oracles.momentum:Momentum",
                "name": "Momentum",
                "digest": "5d41402abc4b2a76b9719d911017c592",
            }
        ],
        "fixed": {"skip_hours": 1},
        "grid": {key: list(values) for key, values in grid.items()},
        "where": None,
        "sample": None,
        "config": RunConfig().to_dict(),
        "span": {
            "start": "2024-01-31T23:00:00+00:00",
            "end": str(dates[-1].isoformat()),
            "hours": 24 * days + 1,
            "coins": 172,
        },
        "digests": {"data": "7d793037a0760186574b0282f2f435e7"},
        "versions": {"hlbt": "0.1.0", "numpy": "2.3.5"},
        "sets": count,
    }
    return Study(
        {**made, **record},
        table.set_axis(index),
        pd.DataFrame(daily.T, index=dates, columns=index) if returns else None,
        folder,
    )


def _table(daily: np.ndarray, random: np.random.Generator) -> pd.DataFrame:
    """Columns as :attr:`engine.Result.metrics`, of daily returns (P, days)."""
    count, days = daily.shape
    equity = np.cumprod(1.0 + np.nan_to_num(daily), axis=1)
    fall = (equity / np.maximum.accumulate(np.maximum(equity, 1.0), axis=1) - 1.0).min(axis=1)
    growth = equity[:, -1] ** (365.0 / days) - 1.0
    deviation = daily.std(axis=1, ddof=1) * np.sqrt(365.0)
    sharpe = daily.mean(axis=1) * 365.0 / deviation
    traded = random.integers(500, 40_000, count)
    columns: dict[str, Any] = {
        "equity_start_usd": np.full(count, 1e6),
        "equity_end_usd": 1e6 * equity[:, -1],
        "total_return": equity[:, -1] - 1.0,
        "cagr": growth,
        "volatility": deviation,
        "sharpe": sharpe,
        "sortino": sharpe * 1.4,
        "max_drawdown": fall,
        "calmar": growth / np.where(fall < 0.0, -fall, np.nan),
        "days": np.full(count, float(days)),
        "decisions": np.full(count, days + 1.0),
        "turnover_daily": random.lognormal(-1.0, 0.5, count),
        "gross_mean": random.uniform(0.8, 1.2, count),
        "net_mean": random.normal(0.0, 0.05, count),
        "trades": traded.astype(float),
        "skipped_min_notional": random.integers(0, 50, count).astype(float),
        "liquidated_at": [None] * count,
        "price_pnl_usd": 1e6 * (equity[:, -1] - 1.0) + 2e5,
        "fee_usd": random.uniform(1e4, 9e4, count),
        "funding_usd": random.normal(0.0, 2e4, count),
    }
    return pd.DataFrame(columns)


def verdict(of: Study, passed: bool = False, seed: int = 3) -> dict[str, Any]:
    """A verdict of the form that ``verdict.json`` has, about the best set of a study with daily returns."""
    random = np.random.default_rng(seed)
    assert of.daily_returns is not None
    winner = of.best()
    sharpe = float(of.table["sharpe"].iloc[winner])
    checks = [
        ("familywise", "chance by luck", 0.0612, 0.05, "at most", False, "A best as good as luck's.", "luck"),
        ("walk_forward", "walk-forward Sharpe", 0.71, 0.0, "at least", True, "Sets made money.", "choice"),
        ("alpha", "alpha by luck", None, 0.05, "at most", None, "Not computed: fewer than 250 days.", "market"),
        ("cost_x2", "Sharpe at twice the costs", 0.9, 0.0, "at least", True, "It survives.", "fragile"),
    ]
    in_sample = random.normal(1.8, 0.5, 1000)
    names = ("name", "label", "value", "threshold", "rule", "passed", "says", "group")
    made = {
        "study": of.record["name"],
        "passed": passed,
        "word": "passed" if passed else "luck cannot be excluded yet",
        "says": "Nothing here says luck." if passed else "1 of 4 checks failed, 1 could not be computed.",
        "remarks": ["A true Sharpe ratio of 2.1 would pass four times in five."],
        "checks": [dict(zip(names, check, strict=True)) for check in checks],
        "details": {
            "winner": {"place": winner, "parameters": of.params(winner), "metrics": {"sharpe": sharpe}},
            "trials": {
                "study": len(of),
                "ledger": 240,
                "judged": 240,
                "effective": 11.3,
                "sharpe_sd_daily": 0.031,
                "expected_max_sharpe_raw_annual": 1.66,
                "expected_max_sharpe_effective_annual": 0.98,
            },
            "pbo": {
                "pbo": 0.18,
                "logits": random.normal(1.1, 1.2, 2000).round(4).tolist(),
                "slope": -0.31,
                "intercept": 1.2,
                "probability_of_loss": 0.12,
                "in_sample": in_sample.round(4).tolist(),
                "out_of_sample": (1.2 - 0.31 * in_sample + random.normal(0.0, 0.5, 1000)).round(4).tolist(),
            },
            "walk_forward": {kind: _walk(of, random, kind) for kind in ("anchored", "rolling")},
            "bootstrap": {
                "block_days": 9.5,
                "sharpe": [0.11, 2.84],
                "cagr": [0.02, 0.93],
                "mean_daily": [0.0001, 0.002],
                "confidence": 0.95,
            },
            "familywise": {
                "p_value": 0.0612,
                "better": [],
                "statistic": 1.9,
                "critical": 2.0,
                "null": {"edges": [-1.0, 0.0, 1.0, 2.0, 3.0], "counts": [20, 500, 430, 50]},
            },
            "alpha": {"why": "No BTC price."},
            "null_books": {
                "statistic": 1.9,
                "critical": 1.1,
                "null": {"edges": [-2.0, 0.0, 2.0], "counts": [700, 300]},
            },
            "cost_stress": [
                _stress("factor", factor, sharpe - 0.35 * (factor - 1)) for factor in (0.5, 1.0, 1.5, 2.0, 3.0)
            ],
            "delay_stress": [_stress("hours", hours, sharpe - 0.05 * hours) for hours in (0, 1, 2, 4, 8)],
            "decision_hours": [
                _stress("hour", hour, sharpe - 0.3 + 0.3 * np.cos(hour / 4.0) * float(random.uniform(0.6, 1.0)))
                for hour in range(24)
            ],
            "start_dates": [
                {"start": str(day.date()), "days": 400 - 30 * step, "sharpe": sharpe + float(random.normal(0.0, 0.2))}
                for step, day in enumerate(of.daily_returns.index[: 12 * 30 : 30])
            ],
            "plateau": {
                "neighbours": [
                    {
                        "parameters": {**of.params(winner), axis: value},
                        "axis": axis,
                        "sharpe": sharpe - float(random.uniform(0, 0.6)),
                    }
                    for axis in list(of.record["grid"])[:2]
                    for value in list(of.record["grid"][axis])[:2]
                ],
                "median": sharpe - 0.3,
                "share_positive": 1.0,
            },
        },
    }
    return json.loads(json.dumps(made))


def _stress(key: str, value: float, sharpe: float) -> dict[str, float]:
    return {
        key: value,
        "sharpe": float(sharpe),
        "cagr": float(0.25 * sharpe),
        "max_drawdown": float(-0.35 + 0.03 * sharpe),
        "equity_end_usd": float(1e6 * (1.0 + 0.25 * sharpe)),
    }


def _walk(of: Study, random: np.random.Generator, kind: str) -> dict[str, Any]:
    assert of.daily_returns is not None
    dates = of.daily_returns.index[len(of.daily_returns) // 2 :]
    returns = random.normal(0.0009 if kind == "anchored" else 0.0006, 0.02, len(dates))
    folds = []
    for first in range(0, len(dates), 40):
        last = min(first + 39, len(dates) - 1)
        place = int(random.integers(len(of)))
        folds.append(
            {
                "train_start": str(of.daily_returns.index[0].date()),
                "train_end": str(dates[first].date()),
                "test_start": str(dates[first].date()),
                "test_end": str(dates[last].date()),
                "place": place,
                "parameters": {key: str(value) for key, value in of.params(place).items()},
                "in_sample_sharpe": float(random.normal(1.8, 0.3)),
                "out_of_sample_sharpe": float(random.normal(0.7, 1.0)),
            }
        )
    return {
        "dates": [str(day.date()) for day in dates],
        "returns": returns.round(6).tolist(),
        "sharpe": 0.71,
        "folds": folds,
    }
