"""Study 1: what look-ahead is worth, by Numerai's meta-model with and without its publication delay.

The predecessor's backtest took the row of day `D` at 23:00 of day `D`. That row is dated by the close it is made from
and published the day after at the earliest, the Friday row on Sunday or Monday. This study runs the same oracle twice,
once with each row when it was published and once with each row at its date, and shows both curves on one page.

    python -m research.studies.01_numerai_publication_delay --file historical_meta_models.csv

Without ``--file`` the rows are MADE UP, built to know part of the coming day's and month's returns so that the leak is
worth something, and the page says so. Without a cache the prices are the synthetic sample.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from engine import Panel, Result, RunConfig, backtest, decisions_of, weight_matrix
from engine.clock import show
from engine.commands.progress import progress, show_all
from engine.errors import DataError, HlbtError
from engine.reporting import charts
from engine.reporting.html import render, write_page
from engine.sweeps.study import NOT_COUNTED
from research.notebook import market
from research.oracles.numerai import NumeraiTBNOracle

OUT = Path("reports") / "01_numerai_publication_delay"
#: How the made-up rows weigh what is to come, in standard deviations across coins: next day, next 20 days, noise.
NEXT_DAY, NEXT_MONTH, NOISE = 0.2, 0.03, 1.0
SEED = 1
_DAY_HOURS = 24
_MONTH_HOURS = 20 * _DAY_HOURS


@dataclass(frozen=True, eq=False)
class Pair:
    """The same oracle on rows as published, and on rows at their dates."""

    lags: int
    published: Result
    early: Result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit code."""
    parser = argparse.ArgumentParser(prog="01_numerai_publication_delay", description="What look-ahead was worth.")
    parser.add_argument("--file", help="Numerai's historical_meta_models, csv or parquet; without it rows are made up")
    parser.add_argument("--cache", help="data cache; default HLBT_DATA_CACHE or data_cache, else the synthetic sample")
    parser.add_argument("--start", help="first row, for example 2024-10-01")
    parser.add_argument("--end", help="last row")
    parser.add_argument("--tb", type=int, default=3, help="coins a side")
    parser.add_argument("--lags", type=int, default=30, help="rows that are summed, for the curves")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the page")
    given = parser.parse_args(arguments)
    try:
        page = run(given.file, given.cache, given.start, given.end, given.tb, given.lags, given.out)
    except HlbtError as error:
        sys.stderr.write(f"01_numerai_publication_delay: {error}\n")
        return error.exit_code
    show_all(f"Page: {page}")
    return 0


def run(file: str | None, cache: str | None, start: str | None, end: str | None, tb: int, lags: int, out: Path) -> Path:
    """Load, run every pair, write the page; returns it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"Folder {out} cannot be made: {error.strerror}. Name another with --out.") from error
    sums = sorted({1, 5, lags})
    with progress() as step:
        steps = 2 + 2 * len(sums)
        step(0, steps, "loading prices")
        panel = market(cache, start, end)
        step(1, steps, "rows")
        rows = file if file is not None else _write_rows(panel, out)
        pairs = []
        for number, lag in enumerate(sums):
            step(2 + 2 * number, steps, f"lags = {lag}, as published")
            published = _result(panel, NumeraiTBNOracle(tb=tb, lags=lag, file=rows))
            step(3 + 2 * number, steps, f"lags = {lag}, at the date")
            early = _result(panel, NumeraiTBNOracle(tb=tb, lags=lag, file=rows, publication=0))
            pairs.append(Pair(lag, published, early))
    return write_page(out / "publication_delay.html", _page(panel, pairs, lags, tb, file))


def _result(panel: Panel, oracle: NumeraiTBNOracle) -> Result:
    config = RunConfig()
    return backtest(panel, weight_matrix(oracle, panel, decisions_of(panel, config)), config)


def made_up_rows(panel: Panel, seed: int = SEED) -> pd.DataFrame:
    """Rows of the shape of Numerai's file that know part of the future of `panel`: made up, and only for this study.

    A row of every weekday that the panel covers: the rank across coins, 0 to 1, of ``NEXT_DAY * z(return of the 24 h
    after the date) + NEXT_MONTH * z(return of the 20 days after it) + NOISE * noise``. Symbols are tickers as Numerai
    writes them, without HyperLiquid's k.
    """
    rng = np.random.default_rng(seed)
    mid = panel.frame("mid").ffill().to_numpy()
    midnights = np.flatnonzero((panel.index.hour == 0) & (panel.index.day_of_week.isin([1, 2, 3, 4, 5])))
    symbols = [coin[1:] if coin[:1] == "k" and coin[1:].isupper() else coin for coin in panel.coins]
    frames = []
    for row in midnights.tolist():  # 00:00 of the day after: the close that the row is made from
        liked = NOISE * rng.normal(size=len(panel.coins))
        for share, hours in ((NEXT_DAY, _DAY_HOURS), (NEXT_MONTH, _MONTH_HOURS)):
            liked += share * _z(mid[min(row + hours, len(mid) - 1)] / mid[row] - 1.0)
        known = ~np.isnan(mid[row])
        rank = pd.Series(liked[known]).rank(pct=True)
        day = f"{panel.index[row] - pd.Timedelta(days=1):%Y-%m-%d}"
        listed = [symbol for symbol, here in zip(symbols, known, strict=True) if here]
        frames.append(pd.DataFrame({"date": day, "symbol": listed, "meta_model": rank.round(6).to_numpy()}))
    if not frames:
        raise DataError("The prices cover no weekday's midnight: widen --start and --end.")
    return pd.concat(frames, ignore_index=True)


def _z(values: np.ndarray) -> np.ndarray:
    """Standard deviations from the mean, 0 where unknown."""
    known = values[~np.isnan(values)]
    if not len(known) or known.std() == 0.0:
        return np.zeros_like(values)
    return np.nan_to_num((values - known.mean()) / known.std())


def _write_rows(panel: Panel, out: Path) -> str:
    path = out / "SYNTHETIC_rows.csv"
    write_page(path, made_up_rows(panel).to_csv(index=False))
    return str(path)


def _page(panel: Panel, pairs: Sequence[Pair], lags: int, tb: int, file: str | None) -> str:
    pair = next(pair for pair in pairs if pair.lags == lags)
    curves = {"as published": pair.published.equity, "at the row's date (look-ahead)": pair.early.equity}
    worth = {"difference": curves["at the row's date (look-ahead)"] - curves["as published"]}
    drawn = {
        "equity": charts.lines(
            "Equity with and without the publication delay in USD",
            curves,
            (charts.COLOURS["price"], charts.COLOURS["loss"]),
        ),
        "worth": charts.lines("What the look-ahead was worth in USD", worth, (charts.COLOURS["loss"],), fill=0.0),
    }
    return render(
        "publication_delay.html",
        span=f"{show(panel.index[0])} to {show(panel.index[-1])}",
        coins=len(panel.coins),
        tb=tb,
        lags=lags,
        file=None if file is None else Path(file).name,
        made_up=file is None,
        synthetic=panel.synthetic,
        notes=(*panel.notes, NOT_COUNTED),
        knows=(NEXT_DAY, NEXT_MONTH, NOISE),
        pair=pair,
        pairs=pairs,
        charts=drawn,
    )


if __name__ == "__main__":
    sys.exit(main())
