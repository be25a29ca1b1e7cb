"""The record of a check: how a value is compared, what is said of it, and how a list of checks is shown."""

from __future__ import annotations

import math
from typing import Any

import pytest
from rich.console import Console

from engine.checks import Check, Measurement, Rule, check_value
from engine.commands.tables import checks_table
from engine.errors import DataError


@pytest.mark.parametrize(
    ("rule", "value", "passed"),
    [
        ("at least", 0.5, True),
        ("at least", 0.4999, False),
        ("at most", 0.5, True),
        ("at most", 0.5001, False),
        ("at least", math.nan, None),
        ("at most", -math.inf, None),
    ],
)
def test_a_value_is_compared_with_its_threshold(rule: Rule, value: float, passed: bool | None) -> None:
    check = check_value("x", "an x", rule, 0.5, lambda: Measurement(value, "Measured."), "luck")
    assert (check.passed, check.group, check.threshold) == (passed, "luck", 0.5)
    assert check.value == (None if passed is None else value)
    assert check.outcome == {True: "passed", False: "failed", None: "not computed"}[passed]


def test_what_has_nothing_to_be_compared_passes_and_says_so() -> None:
    nothing = check_value("x", "an x", "at least", 2.0, lambda: Measurement(None, "No trial."))
    assert (nothing.passed, nothing.value, nothing.summary) == (True, None, "No trial.")
    assert nothing.comparison == "x passed (at least 2)"
    assert check_value("x", "an x", "at least", None, lambda: Measurement(1.0, "")).passed is None


def test_a_refusal_says_why_nothing_was_computed() -> None:
    def refuse() -> Measurement:
        raise DataError("No panel.")

    check = check_value("x", "an x", "at most", 2.0, refuse)
    assert (check.passed, check.value, check.summary) == (None, None, "Not computed. No panel.")
    assert check.comparison == "x not computed (at most 2)"


def test_the_comparison_tells_a_value_from_a_threshold_that_it_rounds_to() -> None:
    close = check_value("pbo", "", "at most", 0.2, lambda: Measurement(0.2000001, ""))
    assert close.comparison == "pbo 0.2000001 (at most 0.2)"
    assert Check("disk", "disk", False, "", severity="warning").comparison == "disk warning"


def shown(*checks: Check, **options: Any) -> str:
    console = Console(width=120, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(checks_table(checks, **options))
    return capture.get()


def test_checks_are_shown_a_row_each() -> None:
    text = shown(
        Check("pbo", "overfitting", False, "Half [of] all.", 0.61, 0.2, "at most"),
        Check("days", "days", False, "59 days.", 59.0, 180.0, "at least"),
        Check("clock", "clock", None, "Skipped."),
        Check("aws", "AWS", False, "No key.", cure="Set one.", severity="warning"),
        title="A [title]",
        words={"not computed": "skipped"},
        overridden=("days", "clock"),
    )
    assert all(part in text for part in ("A [title]", "0.61", "<= 0.2", "FAILED", "Half [of] all.", "-> Set one."))
    assert text.count("OVERRIDDEN") == 2 and "warning" in text
    assert "skipped" in shown(
        Check("x", "x", None, ""), words={"not computed": "skipped"}, columns=("check", "outcome")
    )
