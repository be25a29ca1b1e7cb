"""The audit of an oracle: whether a weight depends on anything that was not known at its instant.

:func:`audit` computes the weights of an oracle again and again, each time on data that differ only where it must not
look, and reports the first weight that changes. It proves a leak; without one it proves that no weight changed under
any of the perturbations, which are listed with their counts. :func:`check_causal` is the shortest form of it.

Both compare by :func:`engine.lookahead.comparison.max_difference`: two weights are the same when they differ by at most
:data:`engine.lookahead.comparison.TOLERANCE`. Determinism alone is checked bit for bit.

Data of the oracle's own
------------------------
An oracle with data of its own (a file of predictions) is beyond what a panel can show: its file has the future in it
whatever the panel is cut to. Such an oracle overrides :meth:`engine.Oracle.as_of`, which returns the oracle as it would
have been built at `instant`: an oracle of the same parameters that holds only the rows *published* by then (not: dated
by then). The audit compares, at every cut, the weights of ``as_of(cut)`` with those of the oracle that has all rows; an
oracle that uses a row before its publication differs. When rows were published is taken from the oracle, and nothing
here can check it. An oracle that reads files and has no ``as_of``, or one that takes nothing away, fails: it is not
known which rows it had. Of an oracle made of oracles, the ``as_of`` of a part covers the files that its ``files``
names.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from engine.checks import Check
from engine.clock import decision_instants
from engine.config import RunConfig
from engine.errors import HlbtError, OracleError, WeightsError
from engine.lookahead.checks import CHECKS
from engine.lookahead.comparison import (
    WINDOW,
    AuditContext,
    CheckSkipped,
    WeightChanged,
    compare_cuts,
    evenly_spaced,
)
from engine.lookahead.paths import path_of_scores, weights_of
from engine.oracles.base import Oracle, same_environment, weight_matrix
from engine.oracles.loading import load_oracle
from engine.panel import Panel
from engine.weights import validate_weights

#: Decisions at most that a default audit computes one by one.
INSTANTS = 400
#: Instants at most at which the data are cut, and after which they are changed: each time a window of decisions.
CUTS, PERTURBED = 16, 8
#: Decisions that are computed for those one by one, where each needs all before it.
PATHS = 4_000
#: Calls for each perturbed instant, each of a window; and calls for the whole sample.
_WINDOWS, _SAMPLES = 6, 5
#: Seconds that two new processes take to start.
_START = 3.0

#: Decisions of an :class:`AuditContext` that are chosen by number.
_ROWS = ("cuts", "instants", "perturbed", "sample")

#: (done, total, what is being done)
Step = Callable[[int, int, str], object]


#: What may be wrong beside look-ahead where a decision alone gets other weights than among others.
STATEFUL = (
    "Weights that follow from one decision to the next (rolling, shift or ewm after .loc[decisions]) fail so too: "
    "compute over every row of panel.index, then take .loc[decisions]; or, where they are to follow from the decisions "
    "before, say so: path_dependent = True."
)


@dataclass(frozen=True)
class Audit:
    """Every check of an oracle.

    Attributes
    ----------
    oracle : str
        Name of its class.
    decisions : int
        How many were compared.
    checks : tuple of Check
        ``valid``, ``cut``, ``future``, ``last_row``, ``funding``, ``coins``, ``instant``, ``score``, ``repeat``,
        ``process`` and ``published``, in this order; only the first where the weights are not valid. ``passed`` is None
        for one that was skipped, ``details`` the first weight that changed, where one did
        (:class:`engine.lookahead.comparison.Difference`).
    strength : float
        Share of the decisions at which a leak of one day would have been seen, 0 to 1.
    budget, seconds : float or None
        Seconds that were given, and that the audit took, where a budget was given.
    """

    oracle: str
    decisions: int
    checks: tuple[Check, ...]
    strength: float = 0.0
    budget: float | None = None
    seconds: float | None = None

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.passed is False)

    def message(self) -> str:
        """One paragraph: the first failure in words, and the names of the others."""
        if self.passed:
            skipped = [check.name for check in self.checks if check.passed is None]
            made = f"{len(self.checks) - len(skipped)} checks over {self.decisions} decisions"
            return f"{self.oracle}: no look-ahead found by {made}{'; skipped: ' * bool(skipped)}{', '.join(skipped)}."
        # A weight that changed says more than an error where data are missing.
        first, *more = sorted(self.failed, key=lambda check: check.details is None)
        others = f" Failed too: {', '.join(check.name for check in more)}." if more else ""
        cure = f" {STATEFUL}" if any(check.name == "instant" for check in self.failed) else ""
        return f"{self.oracle} fails the check '{first.label}' ({first.name}): {first.summary}.{others}{cure}"

    def strength_text(self) -> str:
        """How strong the audit was, and that it took longer than its budget where it did."""
        strength = f"A leak of one day would have been seen at {self.strength:.0%} of {self.decisions} decisions."
        if self.budget is None or self.seconds is None or self.seconds <= self.budget:
            return strength
        return (
            f"{strength} It took {self.seconds:.3g} s, more than the budget of {self.budget:g} s: all weights are "
            "computed once, and two instants of each kind, whatever the budget."
        )

    def raise_for_failure(self) -> None:
        """Raise :class:`engine.errors.OracleError` with :meth:`message` unless every check passed."""
        if not self.passed:
            raise OracleError(self.message())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a check has ``name``, ``title``, ``status``, ``value`` and ``difference``."""
        checks = [
            {
                "name": check.name,
                "title": check.label,
                "status": {True: "pass", False: "fail", None: "skipped"}[check.passed],
                "value": check.summary,
                "difference": check.details and asdict(check.details),
            }
            for check in self.checks
        ]
        return {
            "oracle": self.oracle,
            "decisions": self.decisions,
            "checks": checks,
            "passed": self.passed,
            "strength": self.strength,
            **({} if self.budget is None else {"budget": self.budget, "seconds": self.seconds}),
        }


def audit(
    oracle: str | Callable[[], Oracle],
    panel: Panel,
    decisions: pd.DatetimeIndex,
    config: RunConfig | None = None,
    *,
    parameters: Mapping[str, Any] | None = None,
    cuts: int | None = None,
    budget: float | None = None,
    step: Step | None = None,
) -> Audit:
    """Audit an oracle for look-ahead, determinism and valid weights.

    Parameters
    ----------
    oracle : str or callable
        ``module:Class`` or ``file.py:Class``; or a function that returns a new instance: then no process is started.
    panel : Panel
        The panel itself, so that funding not yet settled can be changed.
    decisions : DatetimeIndex, (D,)
        Ascending instants of the panel.
    config : RunConfig, optional
        Its overlays and ``account.max_gross`` decide what gross is valid.
    parameters : mapping, optional
        Constructor arguments, with a path.
    cuts : int, optional
        Instants at which the data are cut, and those that are computed one by one, spread over the span; default up to
        :data:`CUTS` and :data:`INSTANTS`.
    budget : float, optional
        Seconds; the instants that it affords, by the time of the first calls, are spread over the span. All weights
        once and two instants of each kind are computed even where they take longer, which the result says.
    step : callable, optional
        Called with (done, total, what) as the audit proceeds.

    Raises
    ------
    OracleError
        When the oracle cannot be built or computes no weights at all; a later failure is a failed check.
    """
    _check_numbers(cuts, budget)
    path, environment, begun = oracle if isinstance(oracle, str) else None, dict(os.environ), time.monotonic()
    make = partial(load_oracle, oracle, parameters or {}) if isinstance(oracle, str) else oracle
    name, count = type(first := make()).__name__, len(decisions)
    if isinstance(made := _first_weights(first, make, panel, decisions), Audit):
        return made
    weights, seconds = made
    whole = first.path_dependent and not path_of_scores(first)
    affords = None
    if budget is not None:
        once = 0.5 * seconds if whole else _seconds_of_one(make, panel, decisions)
        left = budget - (time.monotonic() - begun) - _START * (path is not None)
        affords = _afforded(left, once, once if whole else seconds, count)
    *wanted, width = _numbers(count, cuts, whole, affords)
    given: dict[str, Any] = {"config": config or RunConfig(), "path": path, "parameters": parameters or {}}
    given |= {kind: evenly_spaced(count, number) for kind, number in zip(_ROWS, wanted, strict=True)}
    given |= {"environment": environment, "width": width, "path_dependent": first.path_dependent}
    context = AuditContext(make, panel, decisions, weights, **given)
    checks = _run_checks(context, step)
    spent = None if budget is None else time.monotonic() - begun
    return Audit(name, count, checks, context.strength(), budget, spent)


def _check_numbers(cuts: int | None, budget: float | None) -> None:
    if cuts is not None and cuts < 1:
        raise OracleError(f"cuts = {cuts} is not accepted: give at least one instant.")
    if budget is not None and not budget > 0.0:
        raise OracleError(f"budget = {budget:g} is not accepted: give seconds above 0.")


def _numbers(count: int, cuts: int | None, whole: bool, affords: tuple[int, ...] | None) -> tuple[int, ...]:
    """Numbers as of :func:`_afforded`, at most those; `whole` where a decision alone needs all before it."""
    # Where it does, these can be compared at no cost, but fewer instants are affordable.
    alone, width = (max(CUTS, 2 * PATHS // count), count) if whole else (INSTANTS, WINDOW)
    numbers = (cuts or CUTS, cuts or alone, min(PERTURBED, cuts or PERTURBED), count, width)
    most = numbers if affords is None else tuple(map(min, numbers, affords))
    return (*most[:-1], count) if whole else most


def _first_weights(
    oracle: Oracle, make: Callable[[], Oracle], panel: Panel, decisions: pd.DatetimeIndex
) -> tuple[np.ndarray, float] | Audit:
    """Weights on all data, (D, N), and the seconds that they took; the whole audit where they are not valid."""
    begun, name, count = time.monotonic(), type(oracle).__name__, len(decisions)
    try:
        frame = weight_matrix(oracle, panel, decisions)
        seconds = time.monotonic() - begun
        return validate_weights(frame, panel)[1], seconds
    except WeightsError as error:
        return _failed_at_once(name, count, "valid", str(error))
    except OracleError as error:
        if not _needs_terms(make, panel, decisions):
            raise
        why = "without the lots, leverage and tiers of the coin table, not known at the decisions, it fails: "
        return _failed_at_once(name, count, "future", why + str(error))


def _seconds_of_one(make: Callable[[], Oracle], panel: Panel, decisions: pd.DatetimeIndex) -> float:
    """Seconds of a call for the last decision alone."""
    begun = time.monotonic()
    weights_of(make(), panel.as_of(decisions[-1]), decisions[-1:])
    return time.monotonic() - begun


def _failed_at_once(oracle: str, decisions: int, check: str, why: str) -> Audit:
    """The audit of an oracle whose weights are not there, or are not valid: nothing can be compared."""
    return Audit(oracle, decisions, (Check(check, CHECKS[check][0], False, why.rstrip(".")),))


def _afforded(seconds: float, once: float, whole: float, count: int) -> tuple[int, int, int, int, int]:
    """Numbers of cuts, instants, perturbed instants, decisions computed again and of a window that `seconds` afford.

    Parameters
    ----------
    seconds : float
        What is left.
    once, whole : float
        Seconds of a call for one decision, and for all.
    count : int
        Of decisions.
    """
    row = max(1e-9, (whole - once) / max(count - 1, 1))

    def rows(share: float, calls: int) -> int:
        return max(2, int((share * seconds / calls - once) / row) + 1)

    width = min(rows(0.3, 2 * _WINDOWS), WINDOW)
    perturbed = max(2, int(0.3 * seconds / (_WINDOWS * (once + row * (width - 1)) + once)))
    return (
        2 * perturbed if perturbed > 2 else 2,
        max(2, int(0.5 * seconds / once)),
        perturbed,
        rows(0.2, _SAMPLES),
        width,
    )


def _needs_terms(make: Callable[[], Oracle], panel: Panel, decisions: pd.DatetimeIndex) -> bool:
    """Whether the oracle fails only because lots, leverage and tiers were not known."""
    shown = tuple(replace(coin, terms_from=panel.index[0]) for coin in panel.table)
    if shown == panel.point_in_time().table:
        return False
    try:
        weight_matrix(make(), replace(panel, table=shown), decisions)
    except HlbtError:
        return False
    return True


def _run_checks(context: AuditContext, step: Step | None) -> tuple[Check, ...]:
    checks = list[Check]()
    if step is not None:
        context.report = lambda what: step(len(checks), len(CHECKS), what)
    with same_environment():
        for check in CHECKS:
            context.report(check)
            checks.append(_run_check(check, context))
    context.report("done")
    return tuple(checks)


def _run_check(name: str, context: AuditContext) -> Check:
    title, check = CHECKS[name]
    try:
        return Check(name, title, True, check(context))
    except CheckSkipped as skipped:
        return Check(name, title, None, str(skipped))
    except WeightChanged as change:
        return Check(name, title, False, str(change), details=change.difference)
    except HlbtError as error:
        return Check(name, title, False, str(error).rstrip("."))


def check_causal(oracle: Oracle, panel: Panel, decisions: pd.DatetimeIndex | None = None) -> None:
    """Check that no weight depends on what came after its decision; the comparison of the audit, on one instance.

    For every decision the weights on the panel cut off there, of the oracle with its own data cut off there
    (:meth:`engine.Oracle.as_of`), are compared with those on all data, up to
    :data:`engine.lookahead.comparison.TOLERANCE`. An oracle that reads other data and does not override ``as_of`` is
    beyond this check; :func:`audit` sees which files are read.

    Parameters
    ----------
    oracle : Oracle
    panel : Panel
    decisions : DatetimeIndex, (D,), optional
        Ascending instants of the panel. Default: 23:00 UTC of every day.

    Raises
    ------
    OracleError
        Naming the first instant and coin at which they differ.
    WeightsError
        When the weights on all data are not valid.
    """
    decisions = decision_instants(panel.index) if decisions is None else decisions
    _, weights = validate_weights(weight_matrix(oracle, panel, decisions), panel)
    every = np.arange(len(decisions))
    path_dependent = oracle.path_dependent
    context = AuditContext(
        lambda: oracle, panel, decisions, weights, every, every, every, every, path_dependent=path_dependent
    )

    def weights_then(instant: pd.Timestamp, known: Panel, rows: slice) -> np.ndarray:
        return context.weights_as_of(oracle, instant, known, rows)

    try:
        compare_cuts(context, "cut", "on the data up to {}", weights_then, every)
    except WeightChanged as change:
        raise OracleError(f"{type(oracle).__name__} looks ahead: {change}.") from change
