"""The edge of a live account: its daily returns, from the journal, against the bands of the promoted run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from engine.live.demotion import REINSTATED
from engine.live.spec import StrategySpec
from engine.monitoring.edge_bands import STATISTICS, EdgeBands, path_statistics

_DAY: Final = pd.Timedelta(days=1)
#: What a statistic is called in a sentence, and how it is written.
_WORDS: Final = {
    "cumulative_return": ("the return since the start", "{:+.1%}"),
    "drawdown": ("the deepest drawdown", "{:.1%}"),
    "losing_run": ("the longest run of losing days", "{:.0f}"),
}
_NO_BANDS: Final = "the spec has no bands: promote again, or renew it with `hlbt promote --renew {}`"
_NO_GATE: Final = "a candidate has no bands: `hlbt promote` locks them into a spec"


@dataclass(frozen=True)
class EdgeState:
    """What the live returns say of the edge.

    Attributes
    ----------
    state : {"no bands", "pending", "holding", "crossed"}
        ``pending``: too few days to say, for a vanished edge would hardly have been noticed by now. ``crossed`` stands,
        whatever comes after.
    day : int
        Days of the present horizon; 0 before the first return. After the last a new horizon begins.
    horizon_days : int
        0 without bands.
    crossed_by : str or None
        The first of the three statistics that left its band.
    crossed_day : int or None
        On which day of its horizon.
    figures, bands : mapping of str to float
        The three statistics, and their bands: on `day`, or on `crossed_day` where they have crossed. Return as a
        fraction, drawdown as a positive fraction, days in a run.
    power : float
        Probability to have noticed by `day` an edge that vanished at the start of the horizon; NaN without bands.
    pending_days : int or None
        Day from which on silence says something; None where there is none within the horizon.
    text : str
        All that as a sentence without its full stop.
    """

    state: Literal["no bands", "pending", "holding", "crossed"]
    day: int
    horizon_days: int
    crossed_by: str | None
    crossed_day: int | None
    figures: Mapping[str, float]
    bands: Mapping[str, float]
    power: float
    pending_days: int | None
    text: str


def bands_of(spec: StrategySpec) -> EdgeBands | None:
    """The bands of a spec; None where it has none."""
    return None if spec.bands is None or "why" in spec.bands else EdgeBands.from_dict(spec.bands)


def edge_state(spec: StrategySpec, daily_returns_live: ArrayLike) -> EdgeState:
    """Hold live returns against the bands of a spec.

    Parameters
    ----------
    spec : StrategySpec
    daily_returns_live : array or Series, (days,)
        Simple returns of consecutive days from the start of the account under the spec, as
        :func:`live_daily_returns` gives them; NaN for a day that is not known. Nothing is judged on such a day, and it
        ends a run of losing days.
    """
    bands, returns = bands_of(spec), np.asarray(daily_returns_live, dtype=np.float64)
    if bands is None:
        without = _NO_BANDS.format(spec.name) if spec.created else _NO_GATE  # a candidate was never written
        why = without if spec.bands is None else f"the spec has no bands: {spec.bands['why']}"
        return EdgeState("no bands", len(returns), 0, None, None, {}, {}, math.nan, None, why)
    horizon = bands.horizon_days
    signs = np.array([[1.0], [-1.0], [-1.0]])
    for first in range(0, max(1, len(returns)), horizon):
        part = returns[first : first + horizon]
        values = path_statistics(part[None, :])[:, 0]
        crossed = (signs * values < signs * bands.bands[:, : len(part)]) & ~np.isnan(part)
        if crossed.any():
            day = int(np.flatnonzero(crossed.any(axis=0))[0])
            which = int(np.flatnonzero(crossed[:, day])[0])
            return _state(bands, "crossed", len(part), day, values[:, day], STATISTICS[which])
    last = len(part) - 1
    power = bands.power[last] if last >= 0 else 0.0
    pending = bands.pending_days is None or len(part) < bands.pending_days
    now = values[:, last] if last >= 0 else np.zeros(0)
    return _state(bands, "pending" if pending else "holding", len(part), last, now, None, float(power))


def _state(
    bands: EdgeBands,
    state: Literal["pending", "holding", "crossed"],
    day: int,
    shown: int,
    values: np.ndarray,
    crossed_by: str | None,
    power: float | None = None,
) -> EdgeState:
    figures = dict(zip(STATISTICS, map(float, values), strict=False))
    limits = dict(zip(STATISTICS, map(float, bands.bands[:, shown]), strict=True)) if figures else {}
    power = float(bands.power[shown]) if power is None else power
    if crossed_by is not None:
        name, form = _WORDS[crossed_by]
        text = (
            f"the edge is crossed: on day {shown + 1} of {bands.horizon_days} {name} was "
            f"{form.format(figures[crossed_by])}, beyond its band of {form.format(limits[crossed_by])}"
        )
    else:
        power_text = f"by now a vanished edge would be noticed in {power:.0%} of cases"
        if state == "holding":
            text = f"the edge is holding on day {day} of {bands.horizon_days}: {power_text}"
        else:
            until = f"from day {bands.pending_days} on" if bands.pending_days else "on no day of the horizon"
            text = f"the edge is pending on day {day} of {bands.horizon_days}: {power_text}, enough {until}"
    found = None if crossed_by is None else shown + 1
    return EdgeState(
        state, day, bands.horizon_days, crossed_by, found, figures, limits, power, bands.pending_days, text
    )


def live_daily_returns(
    entries: Sequence[Mapping[str, Any]],
    spec: StrategySpec,
    instant: pd.Timestamp | None = None,
    equity_usd: float | None = None,
) -> pd.Series:
    """Daily returns of an account under a spec, from its journal, since the spec was last reinstated.

    Equity is that of the first plan at each instant, before its trade. What came between the last record before an
    accepted deposit or withdrawal and the acceptance is left out, for nobody knows how much of it was earned. A record
    of a refused run is no equity of an account, for it may have the deposit in it. The days begin with the first plan
    of the spec, or of one that it was renewed from, at the hour of its schedule, and follow the calendar: a day without
    an equity is NaN, and the next one that is known has the return of all the days since.

    Parameters
    ----------
    entries : sequence of mapping
        Of the journal, oldest first.
    spec : StrategySpec
    instant : Timestamp, optional
        Of a run whose plan is not in the journal yet.
    equity_usd : float, optional
        The account's then.

    Returns
    -------
    Series, (days,)
        Simple returns by the instant at which each day ends; empty before the second equity.
    """
    execution = spec.config.execution
    hour = (execution.hour_utc + execution.delay_hours) % 24
    levels: dict[pd.Timestamp, float] = {}
    level, base = 1.0, 0.0
    present = {"kind": "plan", "instant": instant, "equity_usd": equity_usd, "key": spec.digest}
    for entry in (*own_entries(entries, spec), *([] if instant is None else [present])):
        kind, equity = entry["kind"], entry.get("equity_usd")
        if kind not in ("plan", "done", "equity_accepted") or equity is None:
            continue
        if base > 0.0 and kind != "equity_accepted":
            level *= max(equity, 0.0) / base
        base = equity
        if kind == "plan":
            at = pd.Timestamp(entry["instant"])
            if at.hour == hour and at.minute == 0:
                levels.setdefault(at, level)
    return _returns(levels)


def own_entries(entries: Sequence[Mapping[str, Any]], spec: StrategySpec) -> Sequence[Mapping[str, Any]]:
    """Entries of a journal since a spec was reinstated, from its first plan on, or that of one it was renewed from.

    So a reinstatement begins the days anew, and another strategy that was promoted under the same name does, too.
    """
    keys = {spec.digest, *(item["digest"] for item in spec.gates.get("renewed_from", ()))}
    last = max((place for place, entry in enumerate(entries) if entry["kind"] == REINSTATED), default=-1)
    for place in range(last + 1, len(entries)):
        if entries[place]["kind"] == "plan" and entries[place]["key"] in keys:
            return entries[place:]
    return ()


def _returns(levels: Mapping[pd.Timestamp, float]) -> pd.Series:
    """Returns of consecutive days from the levels at some of them."""
    if not levels:
        return pd.Series(dtype=np.float64, index=pd.DatetimeIndex([], tz="UTC"), name="return")
    known = pd.Series(levels, dtype=np.float64).sort_index()
    before = known.shift(1)
    returns = (known / before.where(before > 0.0) - 1.0)[1:]
    return returns.reindex(pd.date_range(known.index[0], known.index[-1], freq=_DAY)[1:]).rename("return")
