"""The three questions about a live account, answered together: plans, costs and the edge, each with a state.

Nothing is computed here: plans are made again in :mod:`engine.monitoring.replay`, costs are charted in
:mod:`engine.monitoring.control_chart`, the edge is held against its bands in :mod:`engine.monitoring.edge`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd

from engine.clock import show
from engine.config import RunConfig
from engine.live.spec import StrategySpec
from engine.monitoring.control_chart import LEAST_DAYS, TARGET_BPS, Alarm, Chart, cost_alarm
from engine.monitoring.edge import EdgeState, bands_of, edge_state, live_daily_returns, own_entries
from engine.monitoring.fills import FillCosts, cost_days, fill_costs
from engine.monitoring.replay import PlanCheck, plan_differences
from engine.oracles.base import Oracle
from engine.panel import Panel
from engine.provenance import as_json

#: Excess costs whose days to an alarm are told, basis points of equity a day.
TOLD_BPS: Final = (2.0, 5.0, 10.0)
#: What a series of excess costs is called.
SERIES: Final[Mapping[str, str]] = {
    "account_bps": "account against replay",
    "slippage_bps": "slippage",
    "funding_bps": "funding",
    "fee_bps": "fees",
}


@dataclass(frozen=True)
class Answer:
    """One question, answered.

    Attributes
    ----------
    question : str
    state : {"holding", "pending", "crossed"}
        Pending: too little is known to say.
    text : str
        Why, a sentence.
    """

    question: str
    state: str
    text: str


@dataclass(frozen=True)
class Answers:
    """The answers, and what they were made of.

    Attributes
    ----------
    plan, costs, edge : Answer
    check : PlanCheck or None
        None without an oracle.
    alarm : Alarm
    fills : FillCosts
    edge_state : EdgeState or None
        None without a spec.
    floors : dict or None
        Of :func:`band_floors`; None without bands or days.
    specs : mapping of str to Answers
        Of a book, the answers of each of its specs.
    """

    plan: Answer
    costs: Answer
    edge: Answer
    check: PlanCheck | None
    alarm: Alarm
    fills: FillCosts
    edge_state: EdgeState | None
    floors: dict[str, Any] | None
    specs: Mapping[str, Answers] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The states in one line."""
        return ", ".join(f"{item.question} {item.state}" for item in (self.plan, self.costs, self.edge))

    def to_dict(self) -> dict[str, Any]:
        """Plain values: states and sentences, differences of plans, series of costs, costs by coin, bands."""
        check, edge = self.check, self.edge_state
        return {
            "line": self.line,
            "plan": {
                "state": self.plan.state,
                "text": self.plan.text,
                "checked": check.instants_checked if check else 0,
                "not_recorded": check.not_recorded if check else 0,
                "differences": [vars(item) for item in check.differences] if check else [],
                "quotes": [vars(item) for item in check.quotes] if check else [],
                "unchecked": [list(item) for item in check.unchecked] if check else [],
            },
            "costs": {
                "state": self.costs.state,
                "text": self.costs.text,
                "series": [_series(chart, self.alarm) for chart in self.alarm.charts],
                "by_coin": as_json(self.fills.by_coin().reset_index().to_dict("records")),
                "funding": as_json(self.fills.funding.rename_axis("until").reset_index().to_dict("records")),
            },
            "edge": {
                "state": self.edge.state,
                "text": self.edge.text,
                "day": edge.day if edge else 0,
                "horizon_days": edge.horizon_days if edge else 0,
                "crossed_by": edge.crossed_by if edge else None,
                "figures": dict(edge.figures) if edge else {},
                "bands": dict(edge.bands) if edge else {},
                "power": as_json(edge.power) if edge else None,
                "pending_days": edge.pending_days if edge else None,
                "floors": self.floors,
            },
            "specs": {name: own.to_dict() for name, own in self.specs.items()},
        }


def live_answers(
    entries: Sequence[Mapping[str, Any]],
    spec_or_config: StrategySpec | RunConfig,
    oracle: Oracle | None,
    panel: Panel | None,
    specs: Mapping[str, Answers] | None = None,
    newest: int | None = None,
    report: Callable[[int, int, str], object] = lambda done, total, what: None,
) -> Answers:
    """Answer the three questions from a journal.

    Parameters
    ----------
    entries : sequence of mapping
        Of the journal, oldest first.
    spec_or_config : StrategySpec or RunConfig
        Of the strategy; a config has no bands.
    oracle : Oracle or None
        Of the strategy; None where its code cannot be had: then plans are not made again.
    panel : Panel or None
        As the cache has it now, without a row of quotes.
    specs : mapping of str to Answers, optional
        Of a book, the answers of each of its specs: its plans and its edge are theirs, its costs those of the account.
    newest : int, optional
        Make only so many of the newest plans again. Default: all.
    report : callable
        As :func:`engine.monitoring.replay.plan_differences` takes it.
    """
    spec = spec_or_config if isinstance(spec_or_config, StrategySpec) else None
    config = spec_or_config.config if isinstance(spec_or_config, StrategySpec) else spec_or_config
    plans = [entry for entry in entries if entry["kind"] == "plan"]
    chosen = plans
    if newest is not None:  # of a book's spec, plans without a record are those in which it had no decision
        recorded = [entry for entry in plans if "inputs" in entry] or plans
        chosen = recorded[len(recorded) - min(newest, len(recorded)) :]
    check = None if oracle is None else plan_differences(chosen, panel, spec_or_config, oracle, report)
    counted = entries if spec is None else own_entries(entries, spec)  # as the alarm that demotes counts them
    alarm = cost_alarm(cost_days(counted, config, panel))
    returns = None if spec is None else live_daily_returns(entries, spec)
    state = None if spec is None or returns is None else edge_state(spec, returns)
    floors = None if spec is None or returns is None else band_floors(spec, returns)
    fills = fill_costs(entries, config, panel)
    plan, edge = _of_plans(check, len(plans)), _of_edge(state)
    if specs:
        plan, edge = (_of_specs({name: getattr(own, part) for name, own in specs.items()}) for part in _OF_SPECS)
    return Answers(plan, _of_costs(alarm), edge, check, alarm, fills, state, floors, specs or {})


#: Answers of a book that are those of its specs.
_OF_SPECS: Final = ("plan", "edge")


def _of_specs(answers: Mapping[str, Answer]) -> Answer:
    """The answer of a book: crossed where one of its specs has, holding where all do."""
    states = {name: answer.state for name, answer in answers.items()}
    state = next((word for word in ("crossed", "pending") if word in states.values()), "holding")
    question = next(iter(answers.values())).question
    crossed = [f"{name}: {answers[name].text}" for name, own in states.items() if own == "crossed"]
    listed = ", ".join(f"{name} {own}" for name, own in states.items())
    return Answer(question, state, " ".join([f"{listed[:1].upper()}{listed[1:]}.", *crossed]))


def _of_plans(check: PlanCheck | None, plans: int) -> Answer:
    name = "plan = replay"
    if check is None:
        return Answer(name, "pending", "No plan is made again: the strategy's own code is not at hand.")
    whole = "The one plan" if plans == 1 else f"All {plans} plans"
    done = f"{check.instants_checked} of {plans} plans" if check.instants_checked < plans else whole
    if check.differences:
        last, instants = check.differences[-1], {item.instant for item in check.differences}
        coin = f", {last.coin}" if last.coin else ""
        return Answer(
            name,
            "crossed",
            f"{len(instants)} of the {check.instants_checked} plans that were made again {_is(len(instants))} not as "
            f"they were. The newest, {show(pd.Timestamp(last.instant))}{coin}: {last.cause.rstrip('.')}.",
        )
    if check.instants_checked:
        agree = f"{_is(check.instants_checked)} what"
        return Answer(name, "holding", f"{done} {agree} the strategy makes of today's data, to the ninth digit.")
    why = "No plan was made yet."
    if check.unchecked:
        why = f"No plan can be made again: {check.unchecked[-1][1].rstrip('.')}."
    elif check.not_recorded:
        why = "No plan can be made again: an earlier release did not record what they were made of."
    return Answer(name, "pending", why)


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _of_costs(alarm: Alarm) -> Answer:
    name, days = "costs", max((len(chart.days) for chart in alarm.charts), default=0)
    if not alarm.charts:
        return Answer(name, "pending", "No day is over yet: it takes two runs.")
    estimate = f"{alarm.estimate_bps_day:+.1f} bp of equity a day"
    if alarm.state == "crossed":
        assert alarm.crossed is not None and alarm.since is not None
        return Answer(
            name,
            "crossed",
            f"The account pays {estimate} beyond the model since {alarm.since:%Y-%m-%d}, found on "
            f"{alarm.crossed:%Y-%m-%d} in the series {SERIES[alarm.series]}: CUSUM {alarm.statistic:.1f} bp, limit "
            f"{alarm.threshold:.1f} bp.",
        )
    if alarm.state == "pending":
        return Answer(name, "pending", f"{days} of the {LEAST_DAYS} days that it takes before anything is said.")
    found = sorted(chart.days_to_decide for chart in alarm.charts)
    when = f"{found[0]} to {found[-1]} days, by the series" if found[0] < found[-1] else f"{found[0]} days"
    return Answer(
        name,
        "holding",
        f"No excess over the model in {days} days; one of {TARGET_BPS:g} bp of equity a day that began now would be "
        f"found in about {when}.",
    )


def _of_edge(state: EdgeState | None) -> Answer:
    if state is None:
        return Answer("edge", "pending", "There are no bands: they are locked into a spec when it is promoted.")
    text = f"{state.text[:1].upper()}{state.text[1:]}."
    return Answer("edge", "pending" if state.state == "no bands" else state.state, text)


def band_floors(spec: StrategySpec, returns: pd.Series) -> dict[str, Any] | None:
    """Where equity would leave its bands, as multiples of the equity at the start of the first day.

    Parameters
    ----------
    spec : StrategySpec
    returns : Series, (days,)
        Of :func:`engine.monitoring.edge.live_daily_returns`.

    Returns
    -------
    dict or None
        ``instants`` (ISO 8601, the ends of the days, and some beyond the newest), ``level`` (of the account,
        up to the newest), ``return_floor`` and ``drawdown_floor``, each with a value an instant. None without bands or
        days.
    """
    bands = bands_of(spec)
    if bands is None or returns.empty:
        return None
    day, horizon = pd.Timedelta(days=1), bands.horizon_days
    level = np.concatenate(([1.0], np.cumprod(1.0 + returns.fillna(0.0).to_numpy())))
    started = (len(returns) - 1) // horizon * horizon
    ahead = min(30, max(7, len(returns) // 4))
    shown = len(returns) + min(ahead, started + horizon - len(returns))
    held = np.concatenate((level, np.full(shown + 1 - len(level), level[-1])))
    number = np.arange(1, shown + 1)
    first = (number - 1) // horizon * horizon  # place of the level at which the day's horizon began
    inside = (number - 1) % horizon
    peaks = np.array([held[begun : until + 1].max() for begun, until in zip(first, number, strict=True)])
    instants = pd.date_range(returns.index[0], periods=shown, freq=day)
    return {
        "instants": [instant.isoformat() for instant in instants],
        "level": level[1:].tolist(),
        "return_floor": (held[first] * (1.0 + bands.bands[0][inside])).tolist(),
        "drawdown_floor": (peaks * (1.0 - bands.bands[1][inside])).tolist(),
    }


def _series(chart: Chart, alarm: Alarm) -> dict[str, Any]:
    """One series of excess costs as plain values."""
    limit, cusum = float(chart.cusum_limit_bps[-1]), float(chart.cusum_bps[-1])
    state = "crossed" if chart.crossed >= 0 else "pending" if math.isnan(limit) else "holding"
    needed = {f"{bps:g}": None if math.isnan(limit) else chart.days_to_reach(limit, bps) for bps in TOLD_BPS}
    return {
        "series": chart.series,
        "name": SERIES[chart.series],
        "state": state,
        "decides": chart.series == alarm.series,
        "days": len(chart.days),
        "mean_bps": float(chart.excess_bps.mean()),
        "sd_bps": chart.sd_bps,
        "cusum_bps": cusum,
        "limit_bps": as_json(limit),
        "days_to_find": {} if state == "crossed" else needed,
        "instants": [day.isoformat() for day in chart.days],
        "cusum": chart.cusum_bps.tolist(),
        "limit": as_json(chart.cusum_limit_bps.tolist()),
    }
