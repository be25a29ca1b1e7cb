"""What a verdict rests on: figures of the daily returns of all sets of a study, for one set that is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from engine.clock import DAYS_PER_YEAR, HOUR
from engine.errors import DataError
from engine.oracles.signal_analysis import rolling_beta
from engine.panel import Panel
from engine.runs import BENCHMARK
from engine.simulation import metrics
from engine.simulation.costs import scheduled_rates, stressed_half_spread
from engine.simulation.metrics import ANNUAL
from engine.sweeps.study import Study
from engine.sweeps.trials import TrialCount
from engine.validation.bootstrap import block_length, superior_sets
from engine.validation.reruns import Rerun, attempt
from engine.validation.statistics import (
    WalkForward,
    deflated_sharpe_ratio,
    effective_days,
    effective_trials,
    expected_max_sharpe,
    moments,
    probability_of_backtest_overfitting,
    walk_forward,
)

#: Most splits whose figures are listed one by one.
MOST_LISTED = 2_000
#: Walk-forward: part of the days that is trained on at first, and number of folds of the rest.
TRAINED, FOLDS = 1 / 3, 6
BLOCKS = 16
#: Beta to BTC is that of so many days before, at least of so many. Few, because days without a beta are lost to the
#: test: of 80 sweeps with an edge over 180 days 20 lost ones hid 11 edges, and 5 hide 6.
BETA_DAYS, LEAST_BETA_DAYS = 60, 5
#: More days than these are called endless.
MOST_DAYS = 36_500
HOUR_UTC = "execution.hour_utc"


@dataclass(frozen=True, eq=False)
class ValidationInputs:
    """What the parts of a verdict share, computed once."""

    study: Study
    row: int
    panel: Panel | None
    trials: TrialCount | None
    seed: int = 0
    search_nulls: int = 0

    @cached_property
    def rerun(self) -> Rerun:
        """The winner on the panel."""
        if self.panel is None:
            raise DataError("No panel was given, so the winner could not be run again.")
        return Rerun(self.study, self.row, self.panel)

    @cached_property
    def matrix(self) -> tuple[np.ndarray, pd.DatetimeIndex, np.ndarray]:
        """:attr:`engine.sweeps.study.Study.joint`."""
        return self.study.joint

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
    def compared(self) -> np.ndarray:
        """Rows of the table whose daily returns are compared; none where there are none."""
        try:
            return self.matrix[2]
        except DataError:
            return np.empty(0, dtype=np.int64)

    @cached_property
    def column(self) -> int:
        """Column of :attr:`matrix` that is the set."""
        columns = np.flatnonzero(self.matrix[2] == self.row)
        if not len(columns):
            raise DataError("The set has no daily returns to be compared with those of the others.")
        return int(columns[0])

    @cached_property
    def hours(self) -> np.ndarray:
        """Hour of decision of every column of :attr:`matrix`, (P',)."""
        index, sets = self.study.table.index, self.matrix[2]
        if HOUR_UTC in index.names:
            return np.asarray(index.get_level_values(HOUR_UTC).to_numpy()[sets], dtype=np.int64)
        return np.full(len(sets), self.study.parameter_set(self.row).config.execution.hour_utc)

    @cached_property
    def market(self) -> np.ndarray:
        """Daily returns of BTC at the hour of decision of each set, (days, P'); NaN where there is none."""
        if self.panel is None or BENCHMARK not in self.panel.coins:
            where = "no panel was given" if self.panel is None else "the panel lacks it"
            raise DataError(f"There is no {BENCHMARK} to compare with: {where}.")
        _, dates, sets = self.matrix
        price = self.panel.frame("mid")[BENCHMARK].ffill()
        returns = np.empty((len(dates), len(sets)))
        for hour in np.unique(self.hours):
            daily = price[self.panel.index.hour == hour].pct_change(fill_method=None)
            of_day = daily.set_axis(pd.DatetimeIndex(daily.index).normalize()).reindex(dates)
            returns[:, self.hours == hour] = of_day.to_numpy()[:, None]
        return returns


def only_set(study: Study) -> str:
    """Why nothing is asked of the choice among the sets; empty where more than one has a Sharpe ratio."""
    count = int(np.isfinite(study.table["sharpe"].to_numpy(dtype=np.float64)).sum())
    which = "One set was run" if len(study) == 1 else f"Of {len(study):,} sets one has figures"
    return "" if count > 1 else f"{which}: there was nothing to choose from, so this is not asked."


def trial_figures(inputs: ValidationInputs) -> dict[str, Any]:
    """How many trials there were outside the sweep, and the Sharpe ratio of the set deflated by them.

    The spread is at most what no skill at all would show over as many independent days: a grid with bad sets in it, or
    with true differences, says nothing about luck. ``raw`` is the ratio without either correction, over all trials.
    """
    daily = inputs.study.table["sharpe"].to_numpy(dtype=np.float64) / ANNUAL
    daily = daily[np.isfinite(daily)]
    own = TrialCount(len(inputs.study), float(daily.std(ddof=1)) if len(daily) > 1 else 0.0)
    ledger = own if inputs.trials is None else inputs.trials
    if ledger.broken:
        raise DataError(ledger.broken)
    # The larger of both, so that a ledger full of trials that are all alike does not lower the bar.
    spread = float(np.nanmax([own.sharpe_sd_daily, ledger.sharpe_sd_daily]))
    judged, outside = max(own.total, ledger.total), max(ledger.total - own.total, 0)
    effective = attempt(lambda: effective_trials(inputs.matrix[0]))
    figures: dict[str, Any] = {
        "study": own.total,
        "ledger": None if inputs.trials is None else inputs.trials.total,
        "judged": judged,
        "outside": outside,
        "effective": effective,
        "sharpe_sd_daily": spread,
        "expected_max_sharpe_raw_annual": ANNUAL * expected_max_sharpe(spread, judged),
    }
    if isinstance(effective, float):
        figures["expected_max_sharpe_effective_annual"] = ANNUAL * expected_max_sharpe(spread, effective)
    try:
        shape, days = moments(inputs.returns), effective_days(inputs.returns)
        no_skill = 1.0 / np.sqrt(days - 1.0) if days > 1.0 else np.nan
    except DataError as error:
        return {**figures, "deflated_sharpe": {"why": str(error)}}
    of = (shape.skew, shape.kurtosis)
    bounded = min(spread, no_skill) if np.isfinite(no_skill) else np.nan
    return {
        **figures,
        "effective_days": days,
        "no_skill_sd_daily": no_skill,
        "expected_max_sharpe_annual": ANNUAL * expected_max_sharpe(bounded, max(outside, 1)),
        "deflated_sharpe": deflated_sharpe_ratio(shape.sharpe, days, *of, bounded, max(outside, 1)),
        "deflated_sharpe_raw": deflated_sharpe_ratio(shape.sharpe, shape.n, *of, spread, judged),
    }


def familywise(inputs: ValidationInputs) -> dict[str, Any]:
    """The familywise test of all sets, for the one that is judged."""
    values, _, _ = inputs.matrix
    return _tested(inputs, values)


def alpha(inputs: ValidationInputs) -> dict[str, Any]:
    """The same test on what is left of the returns after beta to BTC, which is of the days before alone."""
    values, _, _ = inputs.matrix
    market = inputs.market
    days = np.isfinite(market).all(axis=1)
    values, market = values[days], market[days]
    # The beta of a day is of the days before it; a market that did not move explains nothing.
    one = market[:, :1] if (inputs.hours == inputs.hours[0]).all() else market
    betas = np.nan_to_num(rolling_beta(values, one, BETA_DAYS, LEAST_BETA_DAYS)[LEAST_BETA_DAYS - 1 : -1])
    values, market = values[LEAST_BETA_DAYS:], market[LEAST_BETA_DAYS:]
    own, column = values - betas * market, inputs.column
    if len(own) < 10:
        raise DataError(f"{len(own)} days after the {LEAST_BETA_DAYS} of the first beta are too few to be tested.")
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = float(np.corrcoef(values[:, column], market[:, column])[0, 1])
    return {
        **_tested(inputs, own),
        "alpha_annual": float(own[:, column].mean()) * DAYS_PER_YEAR,
        "beta": float(betas[:, column].mean()),
        "correlation": correlation,
    }


def _tested(inputs: ValidationInputs, values: np.ndarray) -> dict[str, Any]:
    """The test of all columns; p-value, statistic and power of the judged one. Statistics are annual."""
    column = values[:, inputs.column]
    test = superior_sets(values, block_length(column, "circular"), seed=inputs.seed)
    statistic = float(test.statistics[inputs.column])
    counts, edges = np.histogram(test.highest * ANNUAL, bins=40)
    return {
        # The null of sets that are clearly bad loses too: to lose less than it is no sign of skill.
        "p_value": float(test.p_values[inputs.column]) if statistic > 0.0 else 1.0,
        "p_lower": test.p_lower,
        "p_consistent": test.p_consistent,
        "p_upper": test.p_upper,
        "better": [int(inputs.matrix[2][better]) for better in test.better],
        "sets": values.shape[1],
        "days": len(values),
        "statistic": statistic * ANNUAL,
        "critical": test.critical * ANNUAL,
        "detectable": test.detectable * ANNUAL,
        "null": {"edges": edges.tolist(), "counts": counts.tolist()},
        # What autocorrelation makes of the Sharpe ratio.
        "ratio": moments(column).sharpe / statistic if statistic else None,
    }


def power(test: Mapping[str, Any], splits: Mapping[str, Any], returns: np.ndarray) -> dict[str, Any]:
    """What the familywise test could have seen, and how many more days this winner would need.

    Parameters
    ----------
    test, splits : mapping
        :func:`familywise` and :func:`overfitting`.
    returns : ndarray, (days,)
        Daily returns of the set.

    Raises
    ------
    DataError
        Where one of them was not computed.
    """
    for part in (test, splits):
        if "why" in part:
            raise DataError(str(part["why"]))
    days, ratio = test["days"], test["ratio"] or 1.0
    detectable, expected = test["detectable"] * ratio, splits["expected_sharpe"]
    # The critical value and the noise both shrink with the root of the days.
    needed = days * (detectable / expected) ** 2 if expected > 0.0 else float("inf")
    yearly = detectable * metrics.volatility(returns)
    sets = f"{test['sets']:,} set{'' if test['sets'] == 1 else 's'}"
    had = "It had" if "not_asked" in splits else "On days that did not choose it the best set had"
    says = (
        f"With {days:,} days, {sets} and this volatility a true Sharpe ratio of {detectable:.1f} ({yearly:.0%} a year) "
        f"would pass the familywise test four times in five. {had} {expected:.1f}"
    )
    more = max(needed - days, 0.0)
    if more > MOST_DAYS:
        says += ": no number of days would be enough."
    elif more:
        says += f": if that is the truth, it needs {more:,.0f} more days."
    else:
        says += ": if that is the truth, these days are enough."
    return {
        "days": days,
        "detectable_sharpe": detectable,
        "expected_sharpe": expected,
        "days_needed": needed,
        "more_days": more,
        "says": says,
    }


def overfitting(inputs: ValidationInputs) -> dict[str, Any]:
    """Probability of backtest overfitting of the study, whichever set is judged; of a single set it is not asked."""
    values, _, _ = inputs.matrix
    if unasked := only_set(inputs.study):
        return {"not_asked": unasked, "expected_sharpe": float(metrics.sharpe(values[:, inputs.column]))}
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
        "expected_sharpe": float(result.out_of_sample.mean()) * ANNUAL,
        "in_sample": (result.in_sample[listed] * ANNUAL).tolist(),
        "out_of_sample": (result.out_of_sample[listed] * ANNUAL).tolist(),
    }


def walk_forwards(inputs: ValidationInputs) -> dict[str, Any]:
    """Stitched out-of-sample curves of the study, whichever set is judged, after the cost of changing sets.

    Of a single set it is not asked.
    """
    if unasked := only_set(inputs.study):
        return {"not_asked": unasked}
    values, dates, sets = inputs.matrix
    days = len(values)
    train = max(2, int(days * TRAINED))
    test = max(1, -(-(days - train) // FOLDS))
    rate = _switch_rate(inputs, dates)
    gross = inputs.study.table["gross_mean"].to_numpy(dtype=np.float64)[sets]
    # A whole book is closed and a whole book is opened, whatever of the two is the same.
    cost = 2.0 * np.maximum(gross, 0.0) * rate
    curves = {
        name: walk_forward(values, train, test, anchored, cost, inputs.hours)
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
