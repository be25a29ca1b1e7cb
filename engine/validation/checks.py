"""From the details of a validation to its checks; the gates of a promotion measure with the same functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.checks import Check, Measurement, Rule, check_value
from engine.errors import DataError
from engine.validation.reruns import attempt
from engine.validation.thresholds import Thresholds


class Details:
    """The parts of a validation by path.

    Parameters
    ----------
    parts : mapping
        As ``verdict.json`` keeps them; a function is called when its part is first read. A part that could not be
        computed is ``{"why": ...}``.
    """

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self._parts = dict(parts)

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def __call__(self, *path: str) -> Any:
        """The value at a path of keys.

        Raises
        ------
        DataError
            Why it could not be computed.
        """
        if callable(self._parts[path[0]]):
            self._parts[path[0]] = attempt(self._parts[path[0]])
        node: Any = self._parts
        for step in path:
            node = node[step]
            if isinstance(node, Mapping) and "why" in node:
                raise DataError(str(node["why"]))
        if node is None or (isinstance(node, float) and math.isnan(node)):
            raise DataError("It is not defined for these returns.")
        return node

    def sharpe_at(self, part: str, key: str, value: float) -> float:
        """Sharpe ratio of the row of a part, a list, whose `key` is `value`."""
        return defined(next((row["sharpe"] for row in self(part) if row[key] == value), None))

    @property
    def sharpe(self) -> float:
        """The set's own Sharpe ratio as it was recorded, annual."""
        return defined(self("winner", "metrics")["sharpe"], "No Sharpe ratio was recorded: the run never traded.")


def defined(value: Any, why: str = "An account that was run again has no Sharpe ratio: it never traded.") -> float:
    """The value as a number.

    Raises
    ------
    DataError
        With `why`, for None and NaN.
    """
    if value is None or math.isnan(value):
        raise DataError(why)
    return float(value)


@dataclass(frozen=True)
class CheckType:
    """A check before it is made.

    Attributes
    ----------
    label : str
        For people.
    group : str
        What a failure means.
    rule : {"at least", "at most"}
    measure : callable
        From :class:`Details` to :class:`engine.checks.Measurement`.
    relative : bool
        The threshold is a part of the set's own Sharpe ratio, and at least 0.
    """

    label: str
    group: str
    rule: Rule
    measure: Callable[[Details], Measurement]
    relative: bool = False

    def check(self, name: str, details: Details, threshold: float | None) -> Check:
        """Make the check; a relative threshold, or one that comes with the measurement, is None when that fails."""

        def measure() -> Measurement:
            measurement = self.measure(details)
            if self.relative and threshold is not None:
                return measurement._replace(threshold=max(threshold * details.sharpe, 0.0))
            return measurement

        return check_value(name, self.label, self.rule, None if self.relative else threshold, measure, self.group)


def checks_of(parts: Mapping[str, Any], thresholds: Thresholds) -> tuple[Check, ...]:
    """Every check of a verdict, in the order in which they are read.

    Parameters
    ----------
    parts : mapping
        Details of the verdict.
    thresholds : Thresholds
    """
    details, values = Details(parts), vars(thresholds)
    return tuple(
        CHECK_TYPES[name].check(name, details, None if threshold is None else values[threshold])
        for name, threshold in _THRESHOLDS.items()
    )


def _deflated(details: Details) -> Measurement:
    value = details("trials", "deflated_sharpe")
    count, best = details("trials", "judged"), details("trials", "expected_max_sharpe_annual")
    summary = (
        f"With {value:.1%} probability the true Sharpe ratio is above the {best:.2f} that the best of {count:,} trials "
        "without any skill would show."
    )
    return Measurement(value, summary)


def _pbo(details: Details) -> Measurement:
    value, splits = details("pbo", "pbo"), details("pbo", "splits")
    summary = (
        f"In {value:.1%} of {splits:,} splits the best set of one half of the days was in the lower half of all sets "
        "on the other days."
    )
    return Measurement(value, summary)


def _superiority(benchmark: str, label: str) -> Callable[[Details], Measurement]:
    def measure(details: Details) -> Measurement:
        value = details("spa", benchmark, "p_consistent")
        summary = f"If no set were better than {label}, a best one as good as this had a chance of {value:.1%}."
        return Measurement(value, summary)

    return measure


def _walk_forward(kind: str, label: str) -> Callable[[Details], Measurement]:
    def measure(details: Details) -> Measurement:
        value, folds = details("walk_forward", kind, "sharpe"), details("walk_forward", kind, "folds")
        summary = f"Chosen {len(folds)} times by {label}, the next days gave a Sharpe ratio of {value:.2f}."
        return Measurement(value, summary)

    return measure


_anchored, _rolling = _walk_forward("anchored", "all days before"), _walk_forward("rolling", "the latest days")


def _lower_walk_forward(details: Details) -> Measurement:
    return min(_anchored(details), _rolling(details))


def _interval(details: Details) -> Measurement:
    low, high = details("bootstrap", "sharpe")
    confidence = details("bootstrap", "confidence")
    summary = f"The {confidence:.0%} interval of the Sharpe ratio, resampled in blocks, is {low:.2f} to {high:.2f}."
    return Measurement(low, summary)


def _track_record(details: Details) -> Measurement:
    needed, days = float(details("winner", "track", "minimum_days")), details("winner", "track", "n")
    confidence = details("winner", "track", "confidence")
    length = f"{needed:,.0f} days" if math.isfinite(needed) else "endless days"
    summary = (
        f"A Sharpe ratio like this needs {length} to be above zero with {confidence:.0%} confidence; there are "
        f"{days:,}."
    )
    return Measurement(min(needed, 1e9), summary, float(days))


def _costs(factor: float, label: str) -> Callable[[Details], Measurement]:
    def measure(details: Details) -> Measurement:
        value = details.sharpe_at("cost_stress", "factor", factor)
        return Measurement(value, f"At {label} the fees, spreads and impact the Sharpe ratio is {value:.2f}.")

    return measure


def _hour_late(details: Details) -> Measurement:
    own, late = details.sharpe_at("delay_stress", "hours", 0), details.sharpe_at("delay_stress", "hours", 1)
    if own <= 0.0:
        raise DataError(f"The Sharpe ratio without delay is {own:.2f}: there is nothing to keep.")
    return Measurement(late / own, f"Traded an hour later the Sharpe ratio is {late:.2f}, of {own:.2f}.")


def _day_late(details: Details) -> Measurement:
    value = details.sharpe_at("delay_stress", "hours", 24)
    return Measurement(value, f"Traded a day later the Sharpe ratio is {value:.2f}.")


def _decision_hours(details: Details) -> Measurement:
    sharpe = sorted(defined(row["sharpe"]) for row in details("decision_hours"))
    value = (sharpe[(len(sharpe) - 1) // 2] + sharpe[len(sharpe) // 2]) / 2.0
    span = f"{sharpe[0]:.2f} to {sharpe[-1]:.2f}"
    return Measurement(
        value, f"Decided at each hour of the day, the Sharpe ratio is {span}, {value:.2f} at the median."
    )


def _start_dates(details: Details) -> Measurement:
    sharpe = [defined(row["sharpe"]) for row in details("start_dates")]
    summary = (
        f"Of {len(sharpe)} accounts that start at different dates the worst has a Sharpe ratio of {min(sharpe):.2f}."
    )
    return Measurement(min(sharpe), summary)


def _plateau(details: Details) -> Measurement:
    value, count = details("plateau", "median"), len(details("plateau", "neighbours"))
    summary = (
        f"The median of the {count} neighbours in the grid has a Sharpe ratio of {value:.2f}, the winner "
        f"{details.sharpe:.2f}."
    )
    return Measurement(value, summary)


def _liquidations(details: Details) -> Measurement:
    rows = [details("winner", "metrics")]
    for part in ("cost_stress", "delay_stress", "decision_hours", "start_dates", "capacity"):
        if part in details:
            found = details(part)
            rows += found if isinstance(found, list) else [found]
    # pandas reads a text that is absent as NaN.
    count = sum(isinstance(row["liquidated_at"], str) and row["liquidated_at"] != "" for row in rows)
    return Measurement(float(count), f"{count} of {len(rows)} accounts, its own and those run again, were liquidated.")


def _reproduced(details: Details) -> Measurement:
    again, recorded = defined(details("winner", "rerun")["sharpe"]), details.sharpe
    return Measurement(
        abs(again - recorded), f"Run again, the Sharpe ratio is {again:.6f}; {recorded:.6f} was recorded."
    )


#: By name, whatever threshold they are compared with.
CHECK_TYPES: Mapping[str, CheckType] = {
    "deflated_sharpe": CheckType("deflated Sharpe ratio", "luck", "at least", _deflated),
    "pbo": CheckType("probability of overfitting", "luck", "at most", _pbo),
    "spa_zero": CheckType("superior to zero (SPA p)", "luck", "at most", _superiority("zero", "zero")),
    "spa_btc": CheckType(
        "superior to BTC (SPA p)", "luck", "at most", _superiority("btc", "BTC at the same volatility")
    ),
    "bootstrap": CheckType("lower bound of the Sharpe ratio", "luck", "at least", _interval),
    "track_record": CheckType("minimum track record, days", "luck", "at most", _track_record),
    "walk_forward": CheckType("walk-forward Sharpe ratio", "unseen", "at least", _lower_walk_forward),
    "walk_forward_anchored": CheckType("walk-forward, all past", "unseen", "at least", _anchored),
    "walk_forward_rolling": CheckType("walk-forward, recent past", "unseen", "at least", _rolling),
    "cost_x2": CheckType("Sharpe ratio at twice the costs", "fragile", "at least", _costs(2.0, "twice")),
    "cost_x3": CheckType("Sharpe ratio at three times the costs", "fragile", "at least", _costs(3.0, "three times")),
    "delay_1h": CheckType("part of the Sharpe ratio kept an hour late", "fragile", "at least", _hour_late),
    "delay_24h": CheckType("Sharpe ratio a day late", "fragile", "at least", _day_late),
    "decision_hours": CheckType("Sharpe ratio, hour of decision", "fragile", "at least", _decision_hours, True),
    "start_dates": CheckType("Sharpe ratio, start date", "fragile", "at least", _start_dates),
    "plateau": CheckType("Sharpe ratio, neighbours in the grid", "fragile", "at least", _plateau, True),
    "liquidation": CheckType("liquidations", "ruin", "at most", _liquidations),
    "reproduced": CheckType("run again as recorded", "broken", "at most", _reproduced),
}
#: Checks of the verdict, in the order in which they are read, and their thresholds; None comes with the measurement.
_THRESHOLDS: Mapping[str, str | None] = {
    "deflated_sharpe": "deflated_sharpe",
    "pbo": "pbo",
    "spa_zero": "superiority_p",
    "spa_btc": "superiority_p",
    "bootstrap": "bootstrap_sharpe",
    "track_record": None,
    "walk_forward_anchored": "walk_forward_sharpe",
    "walk_forward_rolling": "walk_forward_sharpe",
    "cost_x2": "cost_sharpe",
    "cost_x3": "cost_sharpe",
    "delay_1h": "delay_kept_frac",
    "delay_24h": "day_delay_sharpe",
    "decision_hours": "hours_kept_frac",
    "start_dates": "start_sharpe",
    "plateau": "plateau_kept_frac",
    "liquidation": "liquidations",
    "reproduced": "reproduction_difference",
}
