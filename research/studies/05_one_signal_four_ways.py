"""Study 5: one signal traded four ways: plain, with a rank buffer, with a no-trade band, and optimised.

Carry or momentum, the same score each time, over a few lookbacks: what each way pays, how much it trades, what is left
with how wide an interval, and what the verdict says of the best, over all of the sets.

    python -m research.studies.05_one_signal_four_ways --signal carry

Without a cache the prices are the synthetic sample, and the page says so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine import Panel, RunConfig, Study, sweep, validate
from engine.clock import DAYS_PER_YEAR, show
from engine.commands.progress import progress, show_all
from engine.errors import DataError, HlbtError
from engine.reporting.html import render, write_page
from engine.validation.statistics import effective_days, moments
from research.notebook import market

OUT = Path("reports") / "05_one_signal_four_ways"
SIGNALS = {"carry": "research.oracles.carry:Carry", "momentum": "research.oracles.momentum:Momentum"}
LOOKBACKS = (24, 72, 168, 336)
#: Coins a side, the place from which a held coin leaves, and the width of the band in shares of equity.
SIDE, HOLD, BAND = 10, 20, 0.02
CAP, OPTIMISE = "research.oracles.wrappers:Cap", "research.oracles.optimise:Optimise"
_BAND = "execution.no_trade_band_frac"
#: What each way changes of a set. A cap of 10 % of equity binds no plain book; all sets have the same keys.
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "buffered": {"inner.hold_rank": HOLD},
    "banded": {_BAND: BAND},
    "ranks": {"inner.construction": "rank_power"},
    "ranks, banded": {"inner.construction": "rank_power", _BAND: BAND / 10},
    "optimised": {"oracle": OPTIMISE},
}
_PLAIN = {"oracle": CAP, "inner.construction": "top_bottom", "inner.hold_rank": 0, _BAND: 0.0}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit code."""
    parser = argparse.ArgumentParser(prog="05_one_signal_four_ways", description="One signal, four ways to trade it.")
    parser.add_argument("--signal", choices=sorted(SIGNALS), default="carry", help="the score")
    parser.add_argument("--lookbacks", type=int, nargs="+", default=list(LOOKBACKS), help="hours of the score")
    parser.add_argument("--cache", help="data cache; default HLBT_DATA_CACHE or data_cache, else the synthetic sample")
    parser.add_argument("--start", help="first row, for example 2024-10-01")
    parser.add_argument("--end", help="last row")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the page")
    given = parser.parse_args(arguments)
    try:
        page = run(market(given.cache, given.start, given.end), given.signal, given.lookbacks, given.out)
    except HlbtError as error:
        sys.stderr.write(f"05_one_signal_four_ways: {error}\n")
        return error.exit_code
    show_all(f"Page: {page}")
    return 0


def run(panel: Panel, signal: str, lookbacks: Sequence[int], out: Path) -> Path:
    """Sweep, judge, write the page; returns it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"Folder {out} cannot be made: {error.strerror}. Name another with --out.") from error
    with progress() as step:
        study = searched(panel, signal, lookbacks, step)
    with progress() as step:
        verdict = validate(study, panel, progress=step)
    table = figures(study)
    page = render(
        "four_ways.html",
        signal=signal,
        span=f"{show(panel.index[0])} to {show(panel.index[-1])}",
        coins=len(panel.coins),
        synthetic=panel.synthetic,
        notes=panel.notes,
        means=table.groupby("way", sort=False).mean(numeric_only=True).reset_index().to_dict("records"),
        rows=table.to_dict("records"),
        verdict=verdict,
        settings={"SIDE": SIDE, "HOLD": HOLD, "BAND": BAND},
    )
    return write_page(out / f"{signal}.html", page)


def searched(panel: Panel, signal: str, lookbacks: Sequence[int], step: Any = None) -> Study:
    """Every way at every lookback, as one sweep."""
    sets = [{**_PLAIN, **way, "inner.lookback_hours": hours} for way in WAYS.values() for hours in lookbacks]
    fixed = {"inner": SIGNALS[signal], "inner.n": SIDE, "cap": 0.1}
    config = RunConfig.from_dict({"execution": {"no_trade_band": "to_edge"}})
    return sweep(panel, [CAP, OPTIMISE], sets, config, fixed=fixed, progress=step)


def figures(study: Study) -> pd.DataFrame:
    """A row a set: way, lookback, turnover a day, USD by cause (paid -), Sharpe ratio and its 95 % interval."""
    table, returns = study.table, study.daily_returns
    assert returns is not None
    keys = table.index.to_frame(index=False)
    rows = []
    for number in range(len(table)):
        own = table.iloc[number]
        low, high = sharpe_interval(returns.iloc[:, number].dropna().to_numpy())
        rows.append(
            {
                "way": way_of(keys.iloc[number]),
                "lookback": int(keys["inner.lookback_hours"].iloc[number]),
                "turnover": own["turnover_daily"],
                "costs": -float(own["spread_usd"] + own["impact_usd"] + own["fee_usd"]),
                "funding": -float(own["funding_usd"]),
                "price": float(own["price_pnl_usd"]),
                "sharpe": own["sharpe"],
                "low": low,
                "high": high,
            }
        )
    return pd.DataFrame(rows)


def way_of(keys: pd.Series) -> str:
    """The name of the way whose keys a set has."""
    return next(name for name, way in WAYS.items() if all(keys[key] == ({**_PLAIN, **way})[key] for key in _PLAIN))


def sharpe_interval(returns: np.ndarray) -> tuple[float, float]:
    """95 % interval of a yearly Sharpe ratio.

    1.96 errors either way, ``sqrt((1 - skew s + (kurtosis - 1) / 4 s^2) / (n - 1))`` of the daily ratio ``s`` (Mertens
    2002), with as many independent days ``n`` as :func:`engine.validation.statistics.effective_days` counts.
    """
    own = moments(returns)
    spread = 1.0 - own.skew * own.sharpe + (own.kurtosis - 1.0) / 4.0 * own.sharpe**2
    error = np.sqrt(spread / (effective_days(returns) - 1.0))
    return tuple(float(np.sqrt(DAYS_PER_YEAR) * (own.sharpe + side * 1.96 * error)) for side in (-1, 1))  # type: ignore[return-value]


if __name__ == "__main__":
    sys.exit(main())
