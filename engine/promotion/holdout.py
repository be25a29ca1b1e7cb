"""The sealed holdout of a study: sealing days, and the one run of a candidate on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.atomic_io import exclusive
from engine.clock import show
from engine.data.cache import Store
from engine.data.holdout import (
    FILE,
    Holdout,
    Opening,
    opened_record,
    read_holdout,
    records_of,
    result_record,
    salvaged,
    stricter,
    write_records,
)
from engine.errors import ConfigError, DataError, HlbtError, PromotionError
from engine.oracles.base import weight_matrix
from engine.oracles.loading import load_oracle
from engine.panel import Panel
from engine.promotion.candidate import Candidate, check_current
from engine.simulation import metrics
from engine.simulation.backtest import backtest, decisions_of
from engine.simulation.result import Result
from engine.sweeps.trials import (
    TrialCount,
    digest_of,
    ledger_holdout,
    record_events,
    state_of,
    trial_config,
    trials_that_saw,
)
from engine.validation.bootstrap import block_length, circular_days

#: Fewer sealed daily returns than these would spend the holdout on next to nothing.
LEAST_DAYS = 10
#: Of the range in which the sealed result is expected.
CONFIDENCE = 0.9
RESAMPLES = 2_000
FIGURES = ("sharpe", "total_return", "max_drawdown")


@dataclass(frozen=True)
class Expected:
    """What the candidate's days before the holdout let expect of as many days as are sealed.

    Attributes
    ----------
    before : mapping
        Figures of the candidate on its own days: ``days``, ``start``, ``end``, and :data:`FIGURES`.
    low, high : mapping
        Of each figure, the ends of the range that holds it with probability :data:`CONFIDENCE`.
    draws : ndarray, (resamples,)
        Sharpe ratios of the resamples, ascending.
    """

    before: dict[str, Any]
    low: dict[str, float]
    high: dict[str, float]
    draws: np.ndarray


def current_holdout(cache: Path, reports: Path) -> Holdout | None:
    """What is sealed for research on a cache, by its own seal and by the ledger of trials; None where nothing is.

    Raises
    ------
    DataError
        When the seal of the cache is broken.
    """
    return stricter(read_holdout(cache), _of_ledger(Store(cache), reports))


def _of_ledger(store: Store, reports: Path) -> Holdout | None:
    holdout, manifest = ledger_holdout(reports), store.manifest()
    return holdout if holdout is not None and manifest is not None and manifest.synthetic == holdout.synthetic else None


def seal_days(cache: Path, reports: Path, start: pd.Timestamp, when: str) -> dict[str, Any]:
    """Seal the days of a cache from `start` on, in its own folder and in the ledger of trials.

    Days that were not opened stay sealed: a second date is accepted where it lies before the first, or after the last
    day that an opening has seen. A broken seal is moved aside, and the new one says so.

    Parameters
    ----------
    cache, reports : Path
        Folder of the data, folder of the ledger.
    start : Timestamp
        First row that research shall not see.
    when : str
        ISO 8601 instant, from the caller.

    Returns
    -------
    dict
        ``start``, ``already`` (whether it was sealed so before), ``cache_end``, ``hidden_days`` (of the data that there
        are), ``trials_that_saw`` and ``trials_without_span`` (of the ledger's, those with data from `start` on, and
        those of which nobody knows).

    Raises
    ------
    ConfigError
        For a date that would leave no data to work on.
    DataError
        For a date that would unseal days unopened, or an empty cache.
    """
    store = Store(cache)
    manifest = store.require()
    first, last = store.price_span(manifest)
    if start <= first:
        raise ConfigError(
            f"--holdout {show(start)} would leave nothing to work on: the prices of {cache} begin at {show(first)}. "
            "Give a later date."
        )
    own, broken = salvaged(cache)
    ledger = _of_ledger(store, reports)
    existing = stricter(own, ledger)
    if existing is not None and start != existing.start:
        _check_moved(existing, start)
    already = existing is not None and start == existing.start
    sealed = existing if existing is not None and already else Holdout(start, when, manifest.synthetic)
    if broken:
        for path in (cache / FILE, cache / f"{FILE}.head"):
            path.rename(path.with_name(f"{path.name}.broken")) if path.exists() else None
    if broken or own != sealed:
        write_records(cache, records_of(sealed, {"replaces": broken} if broken else {}))
    if ledger != sealed:
        record_events(reports, records_of(sealed))
    saw, unknown = trials_that_saw(reports, start, manifest.synthetic)
    return {
        "start": start.isoformat(),
        "already": already and not broken,
        "cache_end": last.isoformat(),
        "hidden_days": max(0, (last - start).days + 1) if last >= start else 0,
        "trials_that_saw": saw,
        "trials_without_span": unknown,
    }


def _check_moved(existing: Holdout, start: pd.Timestamp) -> None:
    """Refuse a second date that would open days without spending them, or seal what an opening has shown."""
    seen = existing.seen_until
    if seen is None and start > existing.start:
        raise DataError(
            f"The days from {show(existing.start)} on are sealed already; {show(start)} would unseal days that no "
            "candidate was run on. Open them first, `hlbt study open --candidate RUN`, or keep the date."
        )
    if seen is not None and start <= seen:
        raise DataError(
            f"The days up to {show(seen)} were seen when the holdout from {show(existing.start)} was opened for "
            f"{existing.openings[0].candidate}; from {show(start)} they would be no holdout. Give a date after that."
        )


def candidate_key(candidate: Candidate, code: str | None = None) -> str:
    """What tells a candidate from others: oracle, its code (by default as it ran), parameters and config."""
    parts = (candidate.oracle, code or candidate.digests["oracle"], state_of(candidate.parameters))
    return f"{digest_of(*parts, trial_config(candidate.config.to_dict())) & 0xFFFFFFFFFFFFFFFF:016x}"


def check_openable(candidate: Candidate, holdout: Holdout, open_panel: Panel, sealed_end: pd.Timestamp) -> int:
    """Refuse an opening that nothing could be learnt from; nothing is spent by that.

    Parameters
    ----------
    candidate : Candidate
    holdout : Holdout
    open_panel : Panel
        What the candidate ran on.
    sealed_end : Timestamp
        Last row of the cache.

    Returns
    -------
    int
        Daily returns that the sealed days will give.

    Raises
    ------
    PromotionError
        When the holdout is spent, or data or code are not those of the candidate.
    DataError
        When there are too few sealed days.
    """
    check_current(candidate, open_panel)
    if holdout.openings:
        spent = holdout.openings[0]
        how = "it ended without a result" if spent.result is None else "`hlbt study status` shows the result"
        raise PromotionError(
            f"The holdout from {show(holdout.start)} is spent: it was opened on {spent.when[:10]} for "
            f"{spent.candidate}, and {how}. Days are unseen once. Seal later ones, after "
            f"{show(max(opening.end for opening in holdout.openings))}: `hlbt study init --holdout DATE`."
        )
    hour = candidate.config.execution.hour_utc
    first = holdout.start.normalize() + pd.Timedelta(hours=hour)
    first += pd.Timedelta(days=int(first < holdout.start))
    days = max(0, (sealed_end - first).days)
    if days < LEAST_DAYS:
        raise DataError(
            f"The holdout from {show(holdout.start)} has {days} daily returns by now, for the cache ends at "
            f"{show(sealed_end)}; at least {LEAST_DAYS} are needed. Nothing was spent. Wait, and bring the data with "
            "`hlbt data sync`."
        )
    return days


def expected_of(candidate: Candidate, panel: Panel, days: int, seed: int = 0) -> Expected:
    """What is to be expected of `days` days more, by a bootstrap of the daily returns so far in circular blocks.

    Raises
    ------
    DataError
        For too few daily returns to resample.
    """
    oracle = load_oracle(candidate.oracle, candidate.parameters)
    config = candidate.config
    result = backtest(panel, weight_matrix(oracle, panel, decisions_of(panel, config)), config)
    returns = _traded(result)
    drawn = returns[circular_days(len(returns), round(block_length(returns)), days, RESAMPLES, seed)]
    figures = {
        "sharpe": np.nan_to_num(metrics.sharpe(drawn)),
        "total_return": np.prod(1.0 + drawn, axis=1) - 1.0,
        "max_drawdown": np.array([_drawdown(row) for row in drawn]),
    }
    tails = (0.5 - CONFIDENCE / 2.0, 0.5 + CONFIDENCE / 2.0)
    ends = {name: np.quantile(values, tails) for name, values in figures.items()}
    return Expected(
        _figures(returns, panel.index[0], panel.index[-1]),
        {name: float(low) for name, (low, _) in ends.items()},
        {name: float(high) for name, (_, high) in ends.items()},
        np.sort(figures["sharpe"]),
    )


def open_holdout(
    candidate: Candidate,
    holdout: Holdout,
    expected: Expected,
    load: Callable[[], Panel],
    cache: Path,
    when: str,
    sealed_end: pd.Timestamp,
) -> dict[str, Any]:
    """Spend the holdout on a candidate: record it, load the sealed days, run the candidate on them, once.

    Parameters
    ----------
    candidate, holdout : Candidate, Holdout
        As :func:`check_openable` has seen them.
    expected : Expected
        Made before, so that the sealed days cannot have a say in it.
    load : callable
        Gives the panel with the sealed days; it is called after the spending is on the disk.
    cache : Path
        Whose seal it is.
    when : str
        ISO 8601 instant, from the caller.
    sealed_end : Timestamp
        Last row of the cache.

    Returns
    -------
    dict
        ``candidate``, ``key``, ``opened``, ``holdout`` (start, end, days), ``in_sample``, ``expected`` (confidence, and
        low and high of each figure), ``sealed`` (figures), ``share_below`` (part of the expected Sharpe ratios at or
        under the sealed one), ``inside`` (whether every figure is in its range) and ``synthetic``.

    Raises
    ------
    PromotionError
        When the candidate fails on the sealed days: they are spent.
    """
    key = candidate_key(candidate)
    _spend(Opening(candidate.name, key, when, sealed_end), holdout, cache, candidate.reports)
    try:
        panel = load()
        oracle, config = load_oracle(candidate.oracle, candidate.parameters), candidate.config
        # From the first decision of the run on: what a path-dependent oracle holds on the first sealed day follows.
        weights = weight_matrix(oracle, panel, decisions_of(panel, config))
        returns = _traded(backtest(panel, weights[weights.index >= holdout.start], config))
    except HlbtError as error:
        raise PromotionError(
            f"The holdout is spent on {candidate.name}, which failed on the sealed days: {error}"
        ) from error
    days = _figures(returns, holdout.start, panel.index[-1])
    result = {"candidate": candidate.name, "key": key, "opened": when, **_outcome(expected, days)}
    result["synthetic"] = panel.synthetic
    write_records(cache, [result_record(key, result)])
    record_events(candidate.reports, [result_record(key, result)])
    return result


def _spend(opening: Opening, holdout: Holdout, cache: Path, reports: Path) -> None:
    """Record an opening in the cache and the ledger; of several at once, by whatever copy of the cache, one is."""
    spending, sealing = [opened_record(opening)], records_of(holdout)
    with ExitStack() as locked:
        for folder in sorted({cache.resolve(), reports.resolve()}):
            locked.enter_context(exclusive(folder / ".opening.lock", None))
        own, ledger = read_holdout(cache), ledger_holdout(reports)
        same = (holdout.start, holdout.synthetic)
        seals = [seal for seal in (own, ledger) if seal is not None and (seal.start, seal.synthetic) == same]
        if spent := [item for seal in seals for item in seal.openings]:
            raise PromotionError(
                f"The holdout was opened by another run at this moment, for {spent[0].candidate}, and is spent."
            )
        write_records(cache, spending if own in seals else [*sealing, *spending])
        record_events(reports, spending if ledger in seals else [*sealing, *spending])


def _outcome(expected: Expected, sealed: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of the sealed days beside those that were to be expected."""
    return {
        "holdout": {"start": sealed["start"], "end": sealed["end"], "days": sealed["days"]},
        "in_sample": expected.before,
        "expected": {
            "confidence": CONFIDENCE,
            **{name: [expected.low[name], expected.high[name]] for name in FIGURES},
        },
        "sealed": sealed,
        "share_below": float(np.mean(expected.draws <= np.nan_to_num(sealed["sharpe"]))),
        "inside": all(expected.low[name] <= np.nan_to_num(sealed[name]) <= expected.high[name] for name in FIGURES),
    }


def sealed_result(candidate: Candidate, holdout: Holdout, trials: TrialCount) -> Mapping[str, Any]:
    """What came of the candidate on the sealed days, as the gate of a promotion asks for it.

    Raises
    ------
    DataError
        When there is no such result, or the days were no holdout to the trials of the idea.
    """
    keys = [candidate_key(candidate, code["oracle"]) for code in (candidate.digests, *candidate.earlier)]
    sealed = f"The days from {show(holdout.start)} on are sealed as a holdout"
    if not holdout.openings:
        raise DataError(f"{sealed} and not opened: `hlbt study open --candidate RUN`, once the other gates pass.")
    opening = holdout.openings[0]
    if opening.key not in keys:
        raise DataError(
            f"{sealed} and were opened for {opening.candidate}, not for this one. Seal later days with `hlbt study "
            "init`, and open those."
        )
    if opening.result is None:
        raise DataError(f"{sealed} and spent on this candidate, whose run never ended. Seal later days.")
    if trials.broken:
        raise DataError(trials.broken)
    if trials.saw_sealed:
        raise DataError(
            f"{sealed}, but {trials.saw_sealed:,} trials of this idea have data of them: they are no test of it. Seal "
            "days that none has seen."
        )
    return opening.result


def _traded(result: Result) -> np.ndarray:
    """Daily returns from the first decision on that asks for something."""
    if result.daily_returns.empty:
        raise DataError("The candidate asks for no position on any of these days.")
    return result.daily_returns.to_numpy()


def _figures(returns: np.ndarray, start: pd.Timestamp, end: pd.Timestamp) -> dict[str, Any]:
    return {
        "start": start.isoformat(),
        "end": end.isoformat(),
        "days": len(returns),
        "sharpe": float(metrics.sharpe(returns)),
        "total_return": float(np.prod(1.0 + returns) - 1.0),
        "max_drawdown": _drawdown(returns),
    }


def _drawdown(returns: np.ndarray) -> float:
    return float(metrics.max_drawdown(np.cumprod(1.0 + returns), 1.0))
