"""From the details of a verdict to its checks: value, threshold and a sentence each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from engine.validation.verdict import Check, Rule, Thresholds

#: (value, threshold, sentence)
Found = tuple[float, float, str]


def checks_of(details: Mapping[str, Any], limits: Thresholds) -> tuple[Check, ...]:
    """Every check of a verdict, in the order in which they are read."""
    return tuple(
        _check(name, label, group, rule, lambda make=make: make(_Details(details), limits))  # type: ignore[misc]
        for name, label, group, rule, make in _CHECKS
    )


class _Why(Exception):
    """A part that could not be computed."""


class _Details:
    """The details by path; raises :class:`_Why` where a part is missing."""

    def __init__(self, details: Mapping[str, Any]) -> None:
        self._details = details

    def __call__(self, *path: str) -> Any:
        node: Any = self._details
        for step in path:
            node = node[step]
            if isinstance(node, Mapping) and "why" in node:
                raise _Why(str(node["why"]))
        if node is None or (isinstance(node, float) and math.isnan(node)):
            raise _Why("It is not defined for these returns.")
        return node

    def row(self, part: str, key: str, value: float, figure: str = "sharpe") -> float:
        """A figure of the row of a part, a list, whose `key` is `value`."""
        found = next((row[figure] for row in self(part) if row[key] == value), None)
        if found is None or math.isnan(found):
            raise _Why("The account that was run again has no Sharpe ratio.")
        return float(found)

    @property
    def sharpe(self) -> float:
        """The winner's, annual."""
        return float(self("winner", "metrics")["sharpe"])


def _check(name: str, label: str, group: str, rule: Rule, make: Callable[[], Found]) -> Check:
    try:
        value, threshold, words = make()
    except _Why as why:
        return Check(name, label, None, None, rule, None, f"Not computed. {why}", group)
    passed = value >= threshold if rule == "at least" else value <= threshold
    return Check(name, label, float(value), float(threshold), rule, bool(passed), words, group)


def _deflated(details: _Details, limits: Thresholds) -> Found:
    value = float(details("trials", "deflated_sharpe"))
    count, best = details("trials", "judged"), details("trials", "expected_max_sharpe_annual")
    words = (
        f"With {value:.1%} probability the true Sharpe ratio is above the {best:.2f} that the best of {count:,} trials "
        "without any skill would show."
    )
    return value, limits.deflated_sharpe, words


def _pbo(details: _Details, limits: Thresholds) -> Found:
    value = float(details("pbo", "pbo"))
    words = (
        f"In {value:.1%} of {details('pbo', 'splits'):,} splits the best set of one half of the days was in the lower "
        "half of all sets on the other days."
    )
    return value, limits.pbo, words


def _spa(against: str, words: str) -> Callable[[_Details, Thresholds], Found]:
    def make(details: _Details, limits: Thresholds) -> Found:
        value = float(details("spa", against, "p_consistent"))
        says = f"If no set were better than {words}, a best one as good as this had a chance of {value:.1%}."
        return value, limits.superiority_p, says

    return make


def _walk(kind: str, words: str) -> Callable[[_Details, Thresholds], Found]:
    def make(details: _Details, limits: Thresholds) -> Found:
        value = float(details("walk_forward", kind, "sharpe"))
        folds = len(details("walk_forward", kind)["folds"])
        says = f"Chosen {folds} times by {words}, the next days gave a Sharpe ratio of {value:.2f}."
        return value, limits.walk_forward_sharpe, says

    return make


def _interval(details: _Details, limits: Thresholds) -> Found:
    low, high = details("bootstrap", "sharpe")
    share = details("bootstrap", "confidence")
    words = f"The {share:.0%} interval of the Sharpe ratio, resampled in blocks, is {low:.2f} to {high:.2f}."
    return float(low), limits.bootstrap_sharpe, words


def _record(details: _Details, limits: Thresholds) -> Found:
    needed, there = float(details("winner", "track", "minimum_days")), int(details("winner", "track", "n"))
    shown = f"{needed:,.0f} days" if math.isfinite(needed) else "endless days"
    words = (
        f"A Sharpe ratio like this needs {shown} to be above zero with {limits.confidence:.0%} confidence; there are "
        f"{there:,}."
    )
    return min(needed, 1e9), float(there), words


def _costs(factor: float, words: str) -> Callable[[_Details, Thresholds], Found]:
    def make(details: _Details, limits: Thresholds) -> Found:
        value = details.row("cost_stress", "factor", factor)
        return value, limits.cost_sharpe, f"At {words} the fees, spreads and impact the Sharpe ratio is {value:.2f}."

    return make


def _late(details: _Details, limits: Thresholds) -> Found:
    value = details.row("delay_stress", "hours", 1)
    words = f"Traded an hour later the Sharpe ratio is {value:.2f}, of {details.sharpe:.2f}."
    return value, max(limits.delay_kept_frac * details.sharpe, 0.0), words


def _day_late(details: _Details, limits: Thresholds) -> Found:
    value = details.row("delay_stress", "hours", 24)
    return value, limits.day_delay_sharpe, f"Traded a day later the Sharpe ratio is {value:.2f}."


def _hours(details: _Details, limits: Thresholds) -> Found:
    sharpe = sorted(_number(row["sharpe"]) for row in details("decision_hours"))
    value = (sharpe[(len(sharpe) - 1) // 2] + sharpe[len(sharpe) // 2]) / 2.0
    span = f"{sharpe[0]:.2f} to {sharpe[-1]:.2f}"
    words = f"Decided at each hour of the day, the Sharpe ratio is {span}, {value:.2f} at the median."
    return value, max(limits.hours_kept_frac * details.sharpe, 0.0), words


def _starts(details: _Details, limits: Thresholds) -> Found:
    rows = details("start_dates")
    value = min(_number(row["sharpe"]) for row in rows)
    return (
        value,
        limits.start_sharpe,
        f"Of {len(rows)} accounts that start at different dates the worst has a Sharpe ratio of {value:.2f}.",
    )


def _plateau(details: _Details, limits: Thresholds) -> Found:
    value, count = float(details("plateau", "median")), len(details("plateau", "neighbours"))
    words = (
        f"The median of the {count} neighbours in the grid has a Sharpe ratio of {value:.2f}, the winner "
        f"{details.sharpe:.2f}."
    )
    return value, max(limits.plateau_kept_frac * details.sharpe, 0.0), words


def _liquidations(details: _Details, limits: Thresholds) -> Found:
    rows = [details("winner", "metrics")]
    for part in ("cost_stress", "delay_stress", "decision_hours", "start_dates"):
        rows += details(part)
    count = sum(1 for row in rows if _there(row["liquidated_at"]))
    words = f"{count} of {len(rows)} accounts, the winner's and those run again, were liquidated."
    return float(count), limits.liquidations, words


def _reproduced(details: _Details, limits: Thresholds) -> Found:
    again = _number(details("winner", "rerun")["sharpe"])
    words = f"Run again, the winner has a Sharpe ratio of {again:.4f}; its sweep recorded {details.sharpe:.4f}."
    return abs(again - details.sharpe), limits.reproduction_difference, words


def _number(value: Any) -> float:
    if value is None or math.isnan(value):
        raise _Why("An account that was run again has no Sharpe ratio: it never traded.")
    return float(value)


def _there(value: Any) -> bool:
    return value is not None and value == value and value != ""


_CHECKS: tuple[tuple[str, str, str, Rule, Callable[[_Details, Thresholds], Found]], ...] = (
    ("deflated_sharpe", "deflated Sharpe ratio", "luck", "at least", _deflated),
    ("pbo", "probability of overfitting", "luck", "at most", _pbo),
    ("spa_zero", "superior to zero (SPA p)", "luck", "at most", _spa("zero", "zero")),
    ("spa_btc", "superior to BTC (SPA p)", "luck", "at most", _spa("btc", "BTC at the same volatility")),
    ("bootstrap", "lower bound of the Sharpe ratio", "luck", "at least", _interval),
    ("track_record", "minimum track record, days", "luck", "at most", _record),
    ("walk_forward_anchored", "walk-forward, all past", "unseen", "at least", _walk("anchored", "all days before")),
    ("walk_forward_rolling", "walk-forward, recent past", "unseen", "at least", _walk("rolling", "the latest days")),
    ("cost_x2", "costs twice as high", "fragile", "at least", _costs(2.0, "twice")),
    ("cost_x3", "costs three times as high", "fragile", "at least", _costs(3.0, "three times")),
    ("delay_1h", "trades an hour late", "fragile", "at least", _late),
    ("delay_24h", "trades a day late", "fragile", "at least", _day_late),
    ("decision_hours", "hour of decision", "fragile", "at least", _hours),
    ("start_dates", "start date", "fragile", "at least", _starts),
    ("plateau", "neighbours in the grid", "fragile", "at least", _plateau),
    ("liquidation", "liquidations", "ruin", "at most", _liquidations),
    ("reproduced", "run again as recorded", "broken", "at most", _reproduced),
)
