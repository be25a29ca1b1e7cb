"""The audit of an oracle: whether a weight depends on anything that was not known at its instant.

:func:`audit` asks an oracle again and again for weights it has given already, each time on data that differ only where
it has no business to look, and names the first weight that moves. It proves a leak; without one it proves that no
weight moved under any of the disturbances, which are listed with their counts.

Two answers are the same when no weight differs by more than :data:`engine.lookahead.checks.ROUNDING`: matrix products
of another length may differ in their last bits. Determinism alone is bit for bit.

Rows that are not the panel's
-----------------------------
An oracle that brings rows of its own (a file of predictions) is beyond what a panel can show: its file has the future
in it whatever the panel is cut to. Such an oracle overrides :meth:`engine.Oracle.until`, which returns the oracle as it
would have been built at `instant`: an oracle of the same parameters that holds only the
rows *published* by then (not: dated by then). The audit compares, at every cut, the weights of ``until(cut)`` with
those of the oracle that has all rows; an oracle that uses a row before its publication differs. When rows were
published is the oracle's word, and nothing here can check it. An oracle that reads files and has no ``until``, or one
that takes nothing away, fails: nobody can tell what it knew. Of an oracle made of oracles, a part with an ``until``
answers for the files that its ``files`` names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd

from engine.clock import decision_instants, show
from engine.config import RunConfig
from engine.errors import HlbtError, OracleError, WeightsError
from engine.lookahead.checks import (
    AuditContext,
    CheckResult,
    Difference,
    WeightChanged,
    check_coins,
    check_cut,
    check_funding,
    check_future,
    check_instant,
    check_last_row,
    check_process,
    check_published,
    check_repeat,
    check_score,
    check_valid,
    spread,
)
from engine.oracles.base import Oracle, weight_matrix
from engine.oracles.loading import load_oracle
from engine.panel import Panel
from engine.weights import validate_weights

#: Rows of weights that the cuts of a default audit ask for, all decisions while they are few.
CUT_ROWS = 40_000
#: Decisions at most that a default audit asks for one by one.
INSTANTS = 400

#: (done, total, what is being done)
Step = Callable[[int, int, str], object]


@dataclass(frozen=True)
class Check:
    """One question to an oracle.

    Attributes
    ----------
    name : str
        For programs: ``valid``, ``cut``, ``future``, ``last_row``, ``funding``, ``coins``, ``instant``, ``score``,
        ``repeat``, ``process``, ``published``; in this order.
    title : str
        What is true when it passes.
    status : {"pass", "fail", "skipped"}
    value : str
        What was compared and found.
    difference : Difference or None
        Where it failed, when a weight moved.
    """

    name: str
    title: str
    status: Literal["pass", "fail", "skipped"]
    value: str
    difference: Difference | None = None


@dataclass(frozen=True)
class Audit:
    """Every check of an oracle, in the order in which they were made."""

    oracle: str
    decisions: int
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.status == "fail")

    def message(self) -> str:
        """One paragraph: the first failure in words, and which others there are."""
        if self.passed:
            skipped = [check.name for check in self.checks if check.status == "skipped"]
            made = f"{len(self.checks) - len(skipped)} checks over {self.decisions} decisions"
            return f"{self.oracle}: no look-ahead found by {made}{'; skipped: ' * bool(skipped)}{', '.join(skipped)}."
        first, *more = self.failed
        others = f" Failed too: {', '.join(check.name for check in more)}." if more else ""
        return f"{self.oracle} fails the check '{first.title}' ({first.name}): {first.value}.{others}"

    def raise_for_failure(self) -> None:
        """Raise :class:`engine.errors.OracleError` with :meth:`message` unless every check passed."""
        if not self.passed:
            raise OracleError(self.message())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "passed": self.passed}


_TITLES: Mapping[str, str] = {
    "valid": "weights are valid",
    "cut": "the past alone gives the same weights",
    "future": "whatever comes later changes nothing before",
    "last_row": "the last row changes no earlier weight",
    "funding": "funding not yet settled changes nothing",
    "coins": "coins that list later change nothing before",
    "instant": "one instant gives the row of the matrix",
    "score": "its scores make the same weights",
    "repeat": "asked again, it says the same",
    "process": "a new process says the same",
    "published": "its own rows are used once published",
}
_QUESTIONS: Mapping[str, Callable[[AuditContext], CheckResult]] = {
    "valid": check_valid,
    "cut": check_cut,
    "future": check_future,
    "last_row": check_last_row,
    "funding": check_funding,
    "coins": check_coins,
    "instant": check_instant,
    "score": check_score,
    "repeat": check_repeat,
}


def audit(
    oracle: str | Callable[[], Oracle],
    panel: Panel,
    decisions: pd.DatetimeIndex,
    config: RunConfig | None = None,
    *,
    parameters: Mapping[str, Any] | None = None,
    cuts: int | None = None,
    step: Step | None = None,
) -> Audit:
    """Audit an oracle for look-ahead, determinism and valid weights.

    Parameters
    ----------
    oracle : str or callable
        ``module:Class`` or ``file.py:Class``, or a function that returns a new instance at every call (then the check
        in a process of its own is skipped).
    panel : Panel
        The panel itself, so that funding not yet settled is there to be changed.
    decisions : DatetimeIndex, (D,)
        Ascending instants of the panel.
    config : RunConfig, optional
        Its variants and ``account.max_gross`` decide what gross is valid.
    parameters : mapping, optional
        Constructor arguments, with a path.
    cuts : int, optional
        Instants at which the data are cut, spread over the span; more than there are decisions = all. Default: all
        while the cuts ask for no more than :data:`CUT_ROWS` rows together, at least 30, and up to :data:`INSTANTS`
        decisions asked for one by one.
    step : callable, optional
        Called with (done, total, what) as the audit proceeds.

    Raises
    ------
    OracleError
        When the oracle cannot be built or asked at all; what it is asked later is a failed check.
    """
    path = oracle if isinstance(oracle, str) else None
    make = partial(load_oracle, oracle, parameters or {}) if isinstance(oracle, str) else oracle
    if cuts is not None and cuts < 1:
        raise OracleError(f"cuts = {cuts} is not accepted: at least one instant must be looked at.")
    first = make()
    frame = weight_matrix(first, panel, decisions)
    name, config = type(first).__name__, config or RunConfig()
    try:
        _, full = validate_weights(frame, panel)
    except WeightsError as error:
        failure = Check("valid", _TITLES["valid"], "fail", str(error).rstrip("."))
        return Audit(name, len(decisions), (failure,))
    checks: list[Check] = []
    reads: list[tuple[str, ...]] = []
    questions: dict[str, Callable[[AuditContext], CheckResult]] = {
        **_QUESTIONS,
        "process": lambda subject: check_process(subject, path, parameters or {}, reads),
        "published": lambda subject: check_published(subject, reads[0] if reads else None),
    }

    def say(what: str) -> None:
        if step is not None:
            step(len(checks), len(questions), what)

    count = len(decisions)
    cut_at = spread(count, max(30, 2 * CUT_ROWS // count) if cuts is None else cuts)
    alone = spread(count, INSTANTS if cuts is None else cuts)
    subject = AuditContext(make, panel, panel.known(), decisions, full, cut_at, alone, config, say)
    for question, ask in questions.items():
        say(question)
        checks.append(_check(question, subject, ask))
    say("done")
    return Audit(name, len(decisions), tuple(checks))


def _check(name: str, subject: AuditContext, ask: Callable[[AuditContext], CheckResult]) -> Check:
    try:
        answer = ask(subject)
    except WeightChanged as moved:
        answer = moved.answer
    except HlbtError as error:
        answer = CheckResult(str(error).rstrip("."), False)
    status: Literal["pass", "fail", "skipped"] = "skipped" if answer.skipped else "pass" if answer.passed else "fail"
    return Check(name, _TITLES[name], status, answer.value, answer.difference)


def check_causal(oracle: Oracle, panel: Panel, decisions: pd.DatetimeIndex | None = None) -> None:
    """Check that no row of the weights depends on what came after it; by default at 23:00 UTC of every day.

    For every decision the weights on the panel cut off there, asked of the oracle with its own data cut off there
    (:meth:`Oracle.until`), are compared, bit for bit, with those of all data. An oracle that reads something else and
    does not say how to cut it is beyond this check.

    Raises
    ------
    OracleError
        Naming the first instant and coin at which they differ.
    """
    coins = list(panel.coins)
    decisions = decision_instants(panel.index) if decisions is None else decisions
    full = weight_matrix(oracle, panel, decisions).reindex(columns=coins).to_numpy(dtype=np.float64)
    for number, instant in enumerate(decisions):
        rows = oracle.until(instant).weight_matrix(panel.known().until(instant), decisions[: number + 1])
        cut = rows.reindex(index=decisions[: number + 1], columns=coins).to_numpy(dtype=np.float64)
        differs = ~((cut == full[: number + 1]) | (np.isnan(cut) & np.isnan(full[: number + 1])))
        if differs.any():
            row, column = (int(place[0]) for place in np.nonzero(differs))
            raise OracleError(
                f"{type(oracle).__name__} looks ahead: the weight of {coins[column]} at {show(decisions[row])} is "
                f"{cut[row, column]:.6g} on the data up to {show(instant)} and {full[row, column]:.6g} on all data."
            )
