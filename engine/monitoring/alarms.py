"""Which alarm demotes a strategy: costs beyond the model, or an edge that has left its bands.

Both are made of the journal's entries since the strategy was last reinstated, so that what a person has looked at and
let go on is over, and a later alarm demotes again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from engine.clock import show
from engine.config import RunConfig
from engine.live.demotion import Demotion
from engine.live.spec import StrategySpec
from engine.live.targets import Strategy, Watch
from engine.monitoring.account_replay import traded_hours
from engine.monitoring.control_chart import LEAST_DAYS, cost_alarm
from engine.monitoring.edge import edge_state, live_daily_returns, own_entries
from engine.monitoring.fills import cost_days


def watch_of(strategy: Strategy) -> Watch | None:
    """What a session asks before it plans: whether an alarm demotes the strategy now.

    Parameters
    ----------
    strategy : Strategy
        That trades the account; its config names the cache.

    Returns
    -------
    callable or None
        Takes the entries of the journal, the instant of the run and the account's equity in USD (None where it is not
        certain); returns the demotion, or None. None for given weights, of which nothing was promoted.
    """
    spec, config = strategy.spec, strategy.config
    if spec is None:
        return None

    def watch(entries: Sequence[Mapping[str, Any]], instant: pd.Timestamp, equity_usd: float | None) -> Demotion | None:
        edge = edge_alarm(spec, entries, instant, equity_usd)
        return edge or costs_alarm(own_entries(entries, spec), config, instant)

    return watch


def edge_alarm(
    spec: StrategySpec, entries: Sequence[Mapping[str, Any]], instant: pd.Timestamp, equity_usd: float | None
) -> Demotion | None:
    """The demotion of an edge that has left its bands, by the equity at `instant` too; None while it has not."""
    state = edge_state(spec, live_daily_returns(entries, spec, instant, equity_usd))
    if state.crossed_by is None:
        return None
    value, threshold = state.figures[state.crossed_by], state.bands[state.crossed_by]
    return Demotion("edge", instant.isoformat(), state.crossed_by, value, threshold, state.text)


def costs_alarm(entries: Sequence[Mapping[str, Any]], config: RunConfig, instant: pd.Timestamp) -> Demotion | None:
    """The demotion of an account that pays more than the model; None while it does not, or nothing can be said.

    Parameters
    ----------
    entries : sequence of mapping
        Of the journal, those that count.
    config : RunConfig
        Costs of the model, and the cache.
    instant : Timestamp
        Of the run that asks.
    """
    plans = sorted({pd.Timestamp(entry["instant"]) for entry in entries if entry["kind"] == "plan"})
    if len(plans) < LEAST_DAYS:
        return None
    alarm = cost_alarm(cost_days(entries, config, traded_hours(entries, config)))
    if alarm.state != "crossed" or alarm.crossed is None or alarm.since is None:
        return None
    chart = next(chart for chart in alarm.charts if chart.series == alarm.series)
    day = chart.crossed
    by_sum = bool(chart.cusum_bps[day] > chart.cusum_limit_bps[day])
    name, values, limits = (
        ("CUSUM", chart.cusum_bps, chart.cusum_limit_bps) if by_sum else ("EWMA", chart.ewma_bps, chart.ewma_limit_bps)
    )
    value, limit = float(values[day]), float(limits[day])
    text = (
        f"the costs are crossed: at {show(alarm.crossed)} the {name} of {alarm.series} was {value:.1f} bp of equity, "
        f"beyond its limit of {limit:.1f}; about {alarm.estimate_bps_day:.1f} bp a day more than modelled since "
        f"{show(alarm.since)}"
    )
    return Demotion("costs", instant.isoformat(), f"{name} {alarm.series}", value, limit, text)
