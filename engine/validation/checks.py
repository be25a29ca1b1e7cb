"""The registry of checks: every check of the verdict and every gate of a promotion, and how each is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.checks import Check, Measurement, Rule, check_value
from engine.errors import DataError
from engine.validation.reruns import attempt

#: A decision could be traded when coins that were tradable then carry this part of the gross.
COVERED = 0.9


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

    @property
    def compared_sharpe(self) -> float:
        """The set's Sharpe ratio as sets are compared: on the days that all of them trade."""
        return defined(self("winner").get("sharpe_joint", self("winner", "metrics")["sharpe"]))


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
        The question that it answers, a key of :data:`engine.checks.QUESTIONS`.
    rule : {"at least", "at most"}
    measure : callable
        From :class:`Details` to :class:`engine.checks.Measurement`.
    relative : callable, optional
        From :class:`Details` to the Sharpe ratio of the set that the threshold is a part of; it is at least 0.
    refuted : float or None
        A value on the wrong side of this says no, where one on the wrong side of the threshold alone says not yet.
    """

    label: str
    group: str
    rule: Rule
    measure: Callable[[Details], Measurement]
    relative: Callable[[Details], float] | None = None
    refuted: float | None = None

    def check(self, name: str, details: Details, threshold: float) -> Check:
        """Make the check; a relative threshold is None where there is no Sharpe ratio to take a part of."""
        limit: float | None = threshold
        if (relative := self.relative) is not None:
            own = attempt(lambda: relative(details))
            limit = None if isinstance(own, dict) else max(threshold * own, 0.0)
        return check_value(name, self.label, self.rule, limit, lambda: self.measure(details), self.group)

    def refutes(self, check: Check) -> bool:
        """Whether a check of this type says no, not merely not yet."""
        if self.group in ("ruin", "broken"):
            return check.passed is False
        if self.refuted is None or check.value is None:
            return False
        return check.value > self.refuted if self.rule == "at most" else check.value < self.refuted


def checks_of(names: Iterable[str], parts: Details | Mapping[str, Any], thresholds: Mapping[str, float]) -> list[Check]:
    """Make checks in the order in which they are read.

    Parameters
    ----------
    names : iterable of str
        :data:`VERDICT` or :data:`GATES`.
    parts : Details or mapping
        What they are made from.
    thresholds : mapping
        Of each name, ``research/gates.toml``.
    """
    details = parts if isinstance(parts, Details) else Details(parts)
    return [CHECKS[name].check(name, details, thresholds[name]) for name in names]


def _familywise(part: str, what: str) -> Callable[[Details], Measurement]:
    def measure(details: Details) -> Measurement:
        value, sets = details(part, "p_value"), details(part, "sets")
        alone = f"Without {what} a set would look as good as this one"
        best = f"If none of the {sets:,} sets had {what}, the best of them would look as good as this one"
        summary = f"{alone if sets == 1 else best} with a chance of {value:.1%}."
        return Measurement(value, summary)

    return measure


def _null_books(details: Details) -> Measurement:
    value, decides = details("null_books", "p_value"), details("null_books", "decides")
    count = details("null_books", f"{decides}_count")
    words = {"permuted": "with its coins exchanged", "rolled": "with its decisions moved in time"}[decides]
    summary = f"Of {count:,} such books {words} {value:.1%} do as well; the book itself is counted among them."
    return Measurement(value, summary + _left_out(details("null_books").get(f"{decides}_unknown")))


def _null_search(details: Details) -> Measurement:
    value, count = details("null_search", "p_value"), details("null_search", "replicates")
    summary = (
        f"The whole sweep was run {count:,} times over exchanged coins: with a chance of {value:.1%} its best set "
        "would do as well as this one."
    )
    return Measurement(value, summary + _left_out(details("null_search").get("unknown")))


def _left_out(unknown: int | None) -> str:
    """What is said of nulls that are not counted; a verdict of before they were told apart has no number of them."""
    return f" {unknown:,} more had no Sharpe ratio and are not counted." if unknown else ""


def _deflated(details: Details) -> Measurement:
    outside = details("trials", "outside")
    if not outside:
        return Measurement(
            None, "No trial outside this sweep is known; the familywise test counts those of the sweep itself."
        )
    value, best = details("trials", "deflated_sharpe"), details("trials", "expected_max_sharpe_annual")
    summary = (
        f"With {value:.1%} probability the true Sharpe ratio is above the {best:.2f} that the best of the {outside:,} "
        "trials outside this sweep would show without any skill."
    )
    return Measurement(value, summary)


def _loss(details: Details) -> Measurement:
    if unasked := details("pbo").get("not_asked"):
        return Measurement(None, unasked)
    value, splits = details("pbo", "probability_of_loss"), details("pbo", "splits")
    return Measurement(
        value, f"In {value:.1%} of {splits:,} splits the best set of one half of the days lost on the other half."
    )


def _walk_forward(details: Details) -> Measurement:
    if unasked := details("walk_forward").get("not_asked"):
        return Measurement(None, unasked)
    value, rolling = (defined(details("walk_forward", kind, "sharpe")) for kind in ("anchored", "rolling"))
    folds = len(details("walk_forward", "anchored", "folds"))
    return Measurement(
        value,
        f"Chosen {folds} times by all days before, the next days gave a Sharpe ratio of {value:.2f}; chosen by the "
        f"latest days alone {rolling:.2f}.",
    )


def _sealed(details: Details) -> Measurement:
    result = details("holdout")
    if result is True:
        return Measurement(None, "No days are sealed: `hlbt study init` would keep some for the last look.")
    low, high = result["expected"]["sharpe"]
    return Measurement(
        result["share_below"],
        f"On {result['sealed']['days']:,} sealed days the Sharpe ratio was {defined(result['sealed']['sharpe']):.2f}, "
        f"where the days before let expect {low:.2f} to {high:.2f}.",
    )


def _own(details: Details) -> float:
    return details.sharpe


def _compared(details: Details) -> float:
    return details.compared_sharpe


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
    if unasked := details("plateau").get("not_asked"):
        return Measurement(None, unasked)
    value, count = details("plateau", "median"), len(details("plateau", "neighbours"))
    summary = (
        f"The median of the {count} neighbours in the grid has a Sharpe ratio of {value:.2f}, the winner "
        f"{details.compared_sharpe:.2f}."
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
    if details("winner").get("another_panel"):
        raise DataError("The panel is not the one that the sweep ran on.")
    again, recorded = defined(details("winner", "rerun")["sharpe"]), details.sharpe
    return Measurement(
        abs(again - recorded), f"Run again, the Sharpe ratio is {again:.6f}; {recorded:.6f} was recorded."
    )


def _days(details: Details) -> Measurement:
    value = details("run", "days")
    return Measurement(value, f"The run has {value:,} daily returns.")


def _price_coverage(details: Details) -> Measurement:
    value = details("run", "price_coverage")
    return Measurement(value, f"{value:.2%} of the hours of listed coins have a price.")


def _funding_missing(details: Details) -> Measurement:
    if not details("run", "funding"):
        raise DataError("The run settles no funding: costs.funding is false.")
    value = details("run", "funding_missing")
    return Measurement(value, f"{value:.2%} of the hours in which a coin was held have no funding rate.")


def _decision_coverage(details: Details) -> Measurement:
    tradable = details("run", "tradable")
    value = float(tradable.mean())
    summary = f"At {value:.1%} of {len(tradable):,} decisions at least {COVERED:.0%} of the gross could be traded."
    return Measurement(value, summary)


def _causal(details: Details) -> Measurement:
    return Measurement(details("causality", "failed"), details("causality", "message"))


def _drawdown(details: Details) -> Measurement:
    value = details("run", "max_drawdown")
    return Measurement(value, f"The account once stood {value:.1%} below its peak, by hourly marks.")


def _capacity(details: Details) -> Measurement:
    value, account = defined(details("capacity")["sharpe"]), details("capacity", "account_usd")
    return Measurement(value, f"With {account:,.0f} USD and the venue's price impact the Sharpe ratio is {value:.2f}.")


def _volume(details: Details) -> Measurement:
    why = "The panel has no volume, or there is no order to compare."
    value, account = defined(details("capacity")["volume_share_median"], why), details("capacity", "account_usd")
    return Measurement(
        value, f"With {account:,.0f} USD the median order takes {value:.2%} of its coin's hourly volume."
    )


#: Every check of the verdict and every gate of a promotion, in the order in which they are read.
CHECKS: Mapping[str, CheckType] = {
    "familywise": CheckType(
        "chance of such a best by luck", "luck", "at most", _familywise("familywise", "any skill"), refuted=0.5
    ),
    "deflated_sharpe": CheckType("Sharpe ratio deflated by other trials", "luck", "at least", _deflated),
    "probability_of_loss": CheckType("loss on days not chosen by", "choice", "at most", _loss, refuted=0.5),
    "walk_forward": CheckType("walk-forward Sharpe ratio", "choice", "at least", _walk_forward),
    "holdout": CheckType("part of what was to be expected that is no better", "choice", "at least", _sealed),
    "alpha": CheckType(
        "chance of such an alpha by luck", "market", "at most", _familywise("alpha", "any alpha to BTC"), refuted=0.5
    ),
    "null_books": CheckType("books without skill that do as well", "skill", "at most", _null_books, refuted=0.5),
    "null_search": CheckType("searches without skill that do as well", "skill", "at most", _null_search, refuted=0.5),
    "cost_x2": CheckType("Sharpe ratio at twice the costs", "fragile", "at least", _costs(2.0, "twice")),
    "cost_x3": CheckType("Sharpe ratio at three times the costs", "fragile", "at least", _costs(3.0, "three times")),
    "delay_1h": CheckType("part of the Sharpe ratio kept an hour late", "fragile", "at least", _hour_late),
    "delay_24h": CheckType("Sharpe ratio a day late", "fragile", "at least", _day_late),
    "decision_hours": CheckType("Sharpe ratio, hour of decision", "fragile", "at least", _decision_hours, _own),
    "start_dates": CheckType("Sharpe ratio, start date", "fragile", "at least", _start_dates),
    "plateau": CheckType("Sharpe ratio, neighbours in the grid", "fragile", "at least", _plateau, _compared),
    "capacity": CheckType("Sharpe ratio at the account's size", "fragile", "at least", _capacity),
    "volume_share": CheckType("part of an hour's volume", "fragile", "at most", _volume),
    "max_drawdown": CheckType("deepest drawdown", "ruin", "at most", _drawdown),
    "liquidation": CheckType("liquidations", "ruin", "at most", _liquidations),
    "days": CheckType("days of the run", "data", "at least", _days),
    "price_coverage": CheckType("hours with a price", "data", "at least", _price_coverage),
    "funding_missing": CheckType("held hours without a funding rate", "data", "at most", _funding_missing),
    "decision_coverage": CheckType("decisions that could be traded", "data", "at least", _decision_coverage),
    "causality": CheckType("failed checks for look-ahead", "broken", "at most", _causal),
    "reproduced": CheckType("run again as recorded", "broken", "at most", _reproduced),
}
#: What `promote` asks beside the verdict's, and what of the verdict's it does not ask.
_PROMOTION_ONLY = (
    "capacity",
    "volume_share",
    "max_drawdown",
    "days",
    "price_coverage",
    "funding_missing",
    "decision_coverage",
    "causality",
    "holdout",
)
_VERDICT_ONLY = ("decision_hours", "start_dates", "plateau")
#: Check of a verdict for which the whole search was run again over exchanged coins; its threshold is ``null_books``.
SEARCH = "null_search"
#: Checks of the verdict; thresholds in the table ``[verdict]``.
VERDICT = tuple(name for name in CHECKS if name not in (*_PROMOTION_ONLY, SEARCH))
#: Gates of a promotion: checks of which each can be overridden with a reason; thresholds in the table ``[gates]``.
GATES = tuple(name for name in CHECKS if name not in (*_VERDICT_ONLY, SEARCH))
