"""The record of one check, shared by the verdict, the gates of a promotion, the look-ahead audit and the doctor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

from engine.errors import DataError, HlbtError

Rule = Literal["at least", "at most"]
Severity = Literal["error", "warning"]
Outcome = Literal["passed", "failed", "warning", "not computed", "not asked"]
#: What is asked, by the group of a check: four questions of a verdict, then whether what was measured holds.
QUESTIONS: Mapping[str, str] = {
    "luck": "Is the best better than luck?",
    "choice": "Does choosing by the past pay?",
    "market": "Does it add to the market?",
    "skill": "Does it beat books without skill?",
    "fragile": "Does it survive small changes?",
    "ruin": "Does the account survive?",
    "data": "Do the data carry it?",
    "broken": "Is it what was recorded?",
}
_SIGNS = {"at least": ">= ", "at most": "<= ", None: ""}


@dataclass(frozen=True)
class Check:
    """One check and its outcome.

    Attributes
    ----------
    name : str
        For programs: ``deflated_sharpe``, ``cost_x2``, ``future``, ...
    label : str
        The same for people.
    passed : bool or None
        None: not computed or skipped, which is not a pass.
    summary : str
        What was measured, in one sentence; or why nothing was.
    value, threshold : float or None
        None for a check that compares no number, or where it could not be computed.
    rule : {"at least", "at most"} or None
        What the value must be of the threshold.
    group : str
        The question that it answers, a key of :data:`QUESTIONS`; else empty.
    cure : str
        What to do about a failure; empty where nothing is to be done.
    severity : {"error", "warning"}
        How bad a failure is.
    details : object
        The evidence, for programs.
    """

    name: str
    label: str
    passed: bool | None
    summary: str
    value: float | None = None
    threshold: float | None = None
    rule: Rule | None = None
    group: str = ""
    cure: str = ""
    severity: Severity = "error"
    details: Any = None

    @property
    def outcome(self) -> Outcome:
        """The outcome in a word; the failure of a check of severity ``warning`` is one.

        ``not asked``: there is a rule and no value, and yet it passed, because its question does not arise.
        """
        if self.passed is None:
            return "not computed"
        if self.passed and self.rule is not None and self.value is None:
            return "not asked"
        return "passed" if self.passed else "warning" if self.severity == "warning" else "failed"

    @property
    def value_text(self) -> str:
        """The value as it is shown; empty without one."""
        return "" if self.value is None else f"{self.value:,.4g}" if abs(self.value) < 1e9 else "endless"

    @property
    def required(self) -> str:
        """Rule and threshold as they are shown: ``<= 0.05``; empty without one."""
        return "" if self.threshold is None else f"{_SIGNS[self.rule]}{self.threshold:,.4g}"

    def to_json(self) -> dict[str, Any]:
        """Under the keys of ``verdict.json`` and of specs, where the summary is ``says``."""
        return {"says" if name == "summary" else name: getattr(self, name) for name in JSON_KEYS}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        return cls(**{"summary" if name == "says" else name: value for name, value in values.items()})

    @property
    def comparison(self) -> str:
        """``pbo 0.61 (at most 0.2)``; a value that rounds to its threshold is written in full."""
        if self.rule is None or self.threshold is None:
            return f"{self.name} {self.outcome}"
        if self.value is None:
            return f"{self.name} {'passed' if self.passed else 'not computed'} ({self.rule} {self.threshold:g})"
        shown = f"{self.value:.4g}"
        shown = shown if float(shown) != self.threshold else repr(self.value)
        return f"{self.name} {shown} ({self.rule} {self.threshold:g})"


#: What is kept of a check, in ``verdict.json`` and in specs.
JSON_KEYS = ("name", "label", "value", "threshold", "rule", "passed", "summary", "group")


class Measurement(NamedTuple):
    """A measured value and its sentence; without a value there is nothing to check, which passes and says why."""

    value: float | None
    summary: str


def check_value(
    name: str,
    label: str,
    rule: Rule,
    threshold: float | None,
    measure: Callable[[], Measurement],
    group: str = "",
) -> Check:
    """Measure a value and compare it with its threshold.

    Parameters
    ----------
    name, label : str
        As in :class:`Check`.
    rule : {"at least", "at most"}
        What the value must be of the threshold; equal passes.
    threshold : float or None
        None where it could not be computed, and so the check cannot be.
    measure : callable
        Without arguments; an :class:`engine.errors.HlbtError` that it raises says why there is no value.
    group : str
        As in :class:`Check`.

    Returns
    -------
    Check
        Not computed where `measure` refuses, or its value or threshold is not finite.
    """
    try:
        value, summary = measure()
        if value is None:
            return Check(name, label, True, summary, None, threshold, rule, group)
        if threshold is None or not (math.isfinite(value) and math.isfinite(threshold)):
            raise DataError("It is not defined for these returns.")
    except HlbtError as error:
        return Check(name, label, None, f"Not computed. {error}", None, threshold, rule, group)
    passed = value >= threshold if rule == "at least" else value <= threshold
    return Check(name, label, bool(passed), summary, float(value), float(threshold), rule, group)
