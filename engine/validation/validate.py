"""Judge the best set of a study: whether it is more than luck and survives small changes.

The winner is the set with the highest Sharpe ratio. What needs the daily returns of all sets (overfitting, superiority,
walk-forward) is computed from the study alone; what needs the market (costs, delay, hours, later starts) is run again
on the panel. A part that cannot be computed says why, and its checks do not pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from engine.clock import HOUR
from engine.errors import DataError
from engine.panel import Panel
from engine.provenance import code_digest, to_json
from engine.runs import BENCHMARK
from engine.simulation import metrics
from engine.simulation.costs import scheduled_rates, stressed_half_spread
from engine.simulation.metrics import ANNUAL
from engine.sweeps.study import Study
from engine.sweeps.trials import TrialCount
from engine.validation.bootstrap import Superiority, block_length, superior_sets
from engine.validation.bootstrap import bootstrap_intervals as bootstrap_intervals
from engine.validation.checks import checks_of
from engine.validation.reruns import Rerun, attempt, neighbours
from engine.validation.statistics import WalkForward, effective_trials, moments, walk_forward
from engine.validation.statistics import deflated_sharpe_ratio as deflated_sharpe_ratio
from engine.validation.statistics import expected_max_sharpe as expected_max_sharpe
from engine.validation.statistics import minimum_track_record_length as minimum_track_record_length
from engine.validation.statistics import probabilistic_sharpe_ratio as probabilistic_sharpe_ratio
from engine.validation.statistics import probability_of_backtest_overfitting as probability_of_backtest_overfitting
from engine.validation.thresholds import Thresholds
from engine.validation.verdict import Verdict

#: A set with returns on fewer of the days than this is left out of what compares sets day by day.
LEAST_COVERAGE = 0.9
#: Most splits whose figures are listed one by one.
MOST_LISTED = 2_000
#: Walk-forward: part of the days that is trained on at first, and number of folds of the rest.
TRAINED, FOLDS = 1 / 3, 6
BLOCKS = 16
HOUR_UTC = "execution.hour_utc"


def validate(
    study: Study,
    panel: Panel | None,
    trials: TrialCount | None = None,
    thresholds: Thresholds | None = None,
    seed: int = 0,
    progress: Callable[[int, int, str], object] | None = None,
) -> Verdict:
    """Judge the best set of a study.

    Parameters
    ----------
    study : Study
    panel : Panel or None
        What the study ran on, to run the winner again; None leaves those checks uncomputed.
    trials : TrialCount, optional
        Every trial ever run for the idea. Default: those of the study, which understates a search that came before it.
    thresholds : Thresholds, optional
        Default: those of the installed ``research/gates.toml``.
    seed : int
        Of the bootstrap; the same seed gives the same verdict.
    progress : callable, optional
        Called with (done, total, what is being done).

    Raises
    ------
    DataError
        When no set of the study has a Sharpe ratio.
    """
    limits = thresholds or Thresholds.read()
    inputs = ValidationInputs(study, study.best("sharpe"), panel, trials, seed, limits.confidence)
    report = progress or (lambda done, total, what: None)
    parts: list[tuple[str, str, Callable[[], Any]]] = [
        ("winner", "the winner", lambda: _winner(inputs)),
        ("trials", "trials", lambda: trial_figures(inputs)),
        ("pbo", "overfitting", lambda: overfitting(inputs)),
        ("walk_forward", "walk-forward", lambda: walk_forwards(inputs)),
        ("bootstrap", "bootstrap", lambda: _bootstrap(inputs)),
        ("superiority", "superiority", lambda: _superiority(inputs)),
        ("cost_stress", "costs", lambda: inputs.rerun.costs()),
        ("delay_stress", "delay", lambda: inputs.rerun.delays()),
        ("decision_hours", "hours of decision", lambda: inputs.rerun.decision_hours()),
        ("start_dates", "start dates", lambda: inputs.rerun.start_dates()),
        ("plateau", "neighbours", lambda: _plateau(inputs)),
    ]
    details: dict[str, Any] = {}
    for number, (name, words, work) in enumerate(parts):
        report(number, len(parts), words)
        details[name] = attempt(work)
    report(len(parts), len(parts), "done")
    details.update(_spread_out(details.pop("superiority")))
    details["notes"] = _notes(inputs)
    digests = {
        "study": hashlib.sha256(to_json(study.record).encode()).hexdigest(),
        "data": study.record.get("digests", {}).get("data"),
        "panel": None if panel is None else panel.digest,
        "code": code_digest(),
    }
    return Verdict(str(study.record["name"]), checks_of(details, limits), details, digests, limits)


@dataclass(frozen=True, eq=False)
class ValidationInputs:
    """What the parts of a verdict share, computed once."""

    study: Study
    row: int
    panel: Panel | None
    trials: TrialCount | None
    seed: int
    confidence: float

    @cached_property
    def rerun(self) -> Rerun:
        """The winner on the panel."""
        if self.panel is None:
            raise DataError("No panel was given, so the winner could not be run again.")
        return Rerun(self.study, self.row, self.panel)

    @cached_property
    def matrix(self) -> tuple[np.ndarray, pd.DatetimeIndex, np.ndarray]:
        """Daily returns without gaps, (days, P'); their UTC dates; rows of the table that the columns are.

        Sets without returns on :data:`LEAST_COVERAGE` of the days are left out (they failed), then the days on which
        one of the others has none (sets that decide at different hours differ at the edges).
        """
        daily = self.study.daily_returns
        if daily is None:
            raise DataError("The study kept no daily returns. Run the sweep again with them.")
        values = daily.to_numpy(dtype=np.float64)
        finite = np.isfinite(values)
        sets = np.flatnonzero(finite.mean(axis=0) >= LEAST_COVERAGE) if len(values) else np.empty(0, dtype=np.int64)
        days = finite[:, sets].all(axis=1)
        if not len(sets) or days.sum() < 2:
            raise DataError("No set of the study has daily returns.")
        dates = pd.DatetimeIndex(daily.index).tz_convert("UTC").normalize()[days]
        return values[np.ix_(days, sets)], dates, sets

    @cached_property
    def returns(self) -> np.ndarray:
        """Daily returns of the winner, (days,): the study's or, where it kept none, those of the run on the panel."""
        if self.study.daily_returns is not None:
            own = self.study.daily_returns.iloc[:, self.row].to_numpy(dtype=np.float64)
            if np.isfinite(own).any():
                return own[np.isfinite(own)]
        if self.panel is None:
            raise DataError("The study kept no daily returns of the winner, and no panel was given to run it again.")
        return self.rerun.base.daily_returns.to_numpy()

    @cached_property
    def benchmark(self) -> pd.Series:
        """Daily returns of BTC at the winner's hour of decision, by UTC date."""
        if self.panel is None or BENCHMARK not in self.panel.coins:
            where = "no panel was given" if self.panel is None else "the panel lacks it"
            raise DataError(f"There is no {BENCHMARK} to compare with: {where}.")
        hour = self.rerun.parameter_set.config.execution.hour_utc
        price = self.panel.frame("mid")[BENCHMARK].ffill()[self.panel.index.hour == hour]
        returns = (price / price.shift(1) - 1.0).dropna()
        return returns.set_axis(pd.DatetimeIndex(returns.index).normalize())


def _winner(inputs: ValidationInputs) -> dict[str, Any]:
    study, row = inputs.study, inputs.row
    metrics_of = study.table.iloc[row]
    winner: dict[str, Any] = {
        "place": row,
        "parameters": study.params(row),
        "metrics": {str(name): value for name, value in metrics_of.items()},
        "rerun": attempt(
            lambda: {name: inputs.rerun.base.metrics[name] for name in ("sharpe", "equity_end_usd", "liquidated_at")}
        ),
    }

    def track() -> dict[str, Any]:
        shape = moments(inputs.returns)
        of = (shape.sharpe, shape.skew, shape.kurtosis)
        return {
            **shape._asdict(),
            "probabilistic_sharpe": probabilistic_sharpe_ratio(shape.sharpe, shape.n, shape.skew, shape.kurtosis),
            "minimum_days": minimum_track_record_length(*of, confidence=inputs.confidence),
            "confidence": inputs.confidence,
        }

    return {**winner, "track": attempt(track)}


def trial_figures(inputs: ValidationInputs) -> dict[str, Any]:
    """How many trials there were, and the deflated Sharpe ratio of the inputs's set among them."""
    daily = inputs.study.table["sharpe"].to_numpy(dtype=np.float64) / ANNUAL
    daily = daily[np.isfinite(daily)]
    own = TrialCount(len(inputs.study), float(daily.std(ddof=1)) if len(daily) > 1 else 0.0)
    ledger = own if inputs.trials is None else inputs.trials
    if ledger.broken:
        raise DataError(ledger.broken)
    # The larger of both, so that a ledger full of trials that are all alike does not lower the bar.
    spread = np.nanmax([own.sharpe_sd_daily, ledger.sharpe_sd_daily])
    judged = TrialCount(max(own.total, ledger.total), float(spread))
    effective = attempt(lambda: effective_trials(inputs.matrix[0]))

    def deflated(count: float) -> float:
        shape = moments(inputs.returns)
        return deflated_sharpe_ratio(shape.sharpe, shape.n, shape.skew, shape.kurtosis, judged.sharpe_sd_daily, count)

    known = isinstance(effective, float)
    return {
        "study": own.total,
        "ledger": None if inputs.trials is None else inputs.trials.total,
        "judged": judged.total,
        "effective": effective,
        "sharpe_sd_daily": judged.sharpe_sd_daily,
        "expected_max_sharpe_annual": ANNUAL * expected_max_sharpe(judged.sharpe_sd_daily, judged.total),
        "expected_max_sharpe_effective_annual": ANNUAL * expected_max_sharpe(judged.sharpe_sd_daily, effective)
        if known
        else None,
        "deflated_sharpe": attempt(lambda: deflated(judged.total)),
        "deflated_sharpe_effective": attempt(lambda: deflated(effective)) if known else None,
    }


def overfitting(inputs: ValidationInputs) -> dict[str, Any]:
    """Probability of backtest overfitting of the study, whichever set is judged."""
    values, _, _ = inputs.matrix
    blocks = min(BLOCKS, len(values) // 4 * 2) if len(values) < 4 * BLOCKS else BLOCKS
    if blocks < 4:
        raise DataError(f"{len(values)} days are too few to be split into halves of blocks: at least 8 are needed.")
    result = probability_of_backtest_overfitting(values, blocks)
    listed = np.arange(len(result.logits))
    if len(listed) > MOST_LISTED:
        listed = np.sort(np.random.default_rng(inputs.seed).choice(listed, MOST_LISTED, replace=False))
        counts, edges = np.histogram(result.logits, bins=60)
        logits: Any = {"edges": edges.tolist(), "counts": counts.tolist()}
    else:
        logits = result.logits.tolist()
    return {
        "pbo": result.pbo,
        "blocks": blocks,
        "splits": len(result.logits),
        "sets": values.shape[1],
        "days": len(values),
        "logits": logits,
        "slope": result.slope,
        "intercept": result.intercept * ANNUAL,
        "probability_of_loss": result.probability_of_loss,
        "in_sample": (result.in_sample[listed] * ANNUAL).tolist(),
        "out_of_sample": (result.out_of_sample[listed] * ANNUAL).tolist(),
    }


def walk_forwards(inputs: ValidationInputs) -> dict[str, Any]:
    """Stitched out-of-sample curves of the study, whichever set is judged, after the cost of changing sets."""
    values, dates, sets = inputs.matrix
    days = len(values)
    train = max(2, int(days * TRAINED))
    test = max(1, -(-(days - train) // FOLDS))
    rate = _switch_rate(inputs, dates)
    gross = inputs.study.table["gross_mean"].to_numpy(dtype=np.float64)[sets]
    # A whole book is closed and a whole book is opened, whatever of the two is the same.
    cost = 2.0 * np.maximum(gross, 0.0) * rate
    index = inputs.study.table.index
    hour = index.get_level_values(HOUR_UTC).to_numpy()[sets] if HOUR_UTC in index.names else 0
    curves = {
        name: walk_forward(values, train, test, anchored, cost, hour)
        for name, anchored in (("anchored", True), ("rolling", False))
    }
    return {
        "switch_rate_frac": rate,
        **{name: _walk(inputs.study, curve, dates, sets) for name, curve in curves.items()},
    }


def _walk(study: Study, curve: WalkForward, dates: pd.DatetimeIndex, sets: np.ndarray) -> dict[str, Any]:
    day = [f"{date:%Y-%m-%d}" for date in dates]
    return {
        "dates": day[curve.first :],
        "returns": curve.returns.tolist(),
        "sharpe": metrics.sharpe(curve.returns),
        "cagr": metrics.cagr(curve.returns),
        "folds": [
            {
                "train_start": day[fold.train_first],
                "train_end": day[fold.train_stop - 1],
                "test_start": day[fold.test_first],
                "test_end": day[fold.test_stop - 1],
                "place": int(sets[fold.column]),
                "parameters": study.params(int(sets[fold.column])),
                "in_sample_sharpe": fold.in_sample_sharpe * ANNUAL,
                "out_of_sample_sharpe": fold.out_of_sample_sharpe * ANNUAL,
            }
            for fold in curve.folds
        ],
    }


def _switch_rate(inputs: ValidationInputs, dates: pd.DatetimeIndex) -> float:
    """Fee and half spread of a unit of notional: the winner's highest taker rate of the span, its mean half spread."""
    costs = inputs.study.parameter_set(inputs.row).config.costs
    fee = float(scheduled_rates(dates + HOUR, costs.taker_bps, False, False).max()) * costs.stress
    half = stressed_half_spread(costs)
    if inputs.panel is not None and {"bid", "ask"} <= set(inputs.panel.fields):
        width = (inputs.panel.values("ask") - inputs.panel.values("bid")) / 2.0 / inputs.panel.values("mid")
        quoted = width[inputs.panel.tradable & np.isfinite(width)]
        if len(quoted):
            half = float(quoted.mean()) * costs.stress
    return max(fee, 0.0) + half


def _bootstrap(inputs: ValidationInputs) -> dict[str, Any]:
    intervals = asdict(bootstrap_intervals(inputs.returns, inputs.confidence, seed=inputs.seed))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in intervals.items()}


def _superiority(inputs: ValidationInputs) -> dict[str, Any]:
    """Of all sets: against zero, and against BTC at the volatility of each set."""
    values, dates, sets = inputs.matrix
    block = block_length(inputs.returns)

    def against_btc() -> dict[str, Any]:
        market = inputs.benchmark.reindex(dates).to_numpy()
        known = np.isfinite(market)
        market, own = market[known], values[known]
        # At its own volatility BTC would win by being wilder: leverage is no skill. So it is scaled to each set's.
        scale = own.std(axis=0, ddof=1) / market.std(ddof=1)
        return _superior(superior_sets(own, market[:, None] * scale, block, seed=inputs.seed), sets)

    return {
        "zero": _superior(superior_sets(values, None, block, seed=inputs.seed), sets),
        "btc": attempt(against_btc),
    }


def _superior(superiority: Superiority, sets: np.ndarray) -> dict[str, Any]:
    return {**asdict(superiority), "better": [int(sets[column]) for column in superiority.better]}


def _spread_out(superiority: dict[str, Any]) -> dict[str, Any]:
    """The p-values as ``spa``, the sets as ``stepm``."""
    if "why" in superiority:
        return {"spa": superiority, "stepm": superiority}
    return {
        "spa": {
            name: part if "why" in part else {key: part[key] for key in ("p_lower", "p_consistent", "p_upper")}
            for name, part in superiority.items()
        },
        "stepm": {name: part if "why" in part else part["better"] for name, part in superiority.items()},
    }


def _plateau(inputs: ValidationInputs) -> dict[str, Any]:
    near = neighbours(inputs.study, inputs.row)
    if not near:
        raise DataError("The winner has no neighbour in the grid: no set differs from it by one step along one axis.")
    sharpe = np.array([item["sharpe"] for item in near])
    return {
        "neighbours": near,
        "median": float(np.median(sharpe)),
        "share_positive": float((sharpe > 0.0).mean()),
    }


def _notes(inputs: ValidationInputs) -> list[str]:
    """What a reader of the verdict should know of what it was made from."""
    named = attempt(lambda: inputs.rerun.notes)
    notes = [*inputs.study.record.get("notes", ()), *(named if isinstance(named, tuple) else ())]
    notes += [] if inputs.panel is None else [note for note in inputs.panel.notes if note not in notes]
    notes += [] if inputs.trials is None else inputs.trials.notes
    if inputs.trials is None:
        notes.append(
            "No ledger of trials was given: the deflated Sharpe ratio counts the sets of this study only, and "
            "understates whatever search came before it."
        )
    elif inputs.trials.total < len(inputs.study):
        notes.append(
            f"The ledger counts {inputs.trials.total:,} trials, fewer than the study's own {len(inputs.study):,}; the "
            "study's were taken."
        )
    wanted = inputs.study.record.get("digests", {}).get("data")
    if inputs.panel is not None and wanted is not None and wanted != inputs.panel.digest:
        notes.append("The panel is not the one that the sweep ran on: its digest differs.")
    if inputs.study.daily_returns is not None:
        left = len(inputs.study) - len(_compared(inputs))
        if left:
            notes.append(f"{left:,} of {len(inputs.study):,} sets have no daily returns and were left out.")
    return notes


def _compared(inputs: ValidationInputs) -> np.ndarray:
    """Rows of the table whose daily returns are compared; none where there are none."""
    try:
        return inputs.matrix[2]
    except DataError:
        return np.empty(0, dtype=np.int64)
