"""Judge the best set of a study: whether it is more than luck and survives small changes.

The winner is the set with the highest Sharpe ratio. What needs the daily returns of all sets is computed from the study
alone (:mod:`engine.validation.evidence`); what needs the market (costs, delay, hours, later starts) is run again on the
panel. A part that cannot be computed says why, and its checks do not pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np

from engine.clock import DAYS_PER_YEAR
from engine.errors import DataError
from engine.panel import Panel
from engine.provenance import code_digest, to_json
from engine.sweeps.study import Study
from engine.sweeps.trials import TrialCount
from engine.validation.bootstrap import bootstrap_intervals, load_arch
from engine.validation.checks import CHECKS, SEARCH, VERDICT, checks_of
from engine.validation.evidence import (
    ValidationInputs,
    alpha,
    familywise,
    only_set,
    overfitting,
    power,
    trial_figures,
    walk_forwards,
)
from engine.validation.null_books import null_search
from engine.validation.reruns import attempt, neighbours
from engine.validation.statistics import annualisation, minimum_track_record_length, moments, probabilistic_sharpe_ratio
from engine.validation.thresholds import GateFile, check_name
from engine.validation.verdict import Verdict

#: Of the intervals that are shown.
CONFIDENCE = 0.95
#: Parts that run the winner again, one after the other; beside them those that are statistics of the study alone.
_RERUN = ("winner", "null_books", "cost_stress", "delay_stress", "decision_hours", "start_dates")


def validate(
    study: Study,
    panel: Panel | None,
    trials: TrialCount | None = None,
    thresholds: Mapping[str, float] | None = None,
    seed: int = 0,
    progress: Callable[[int, int, str], object] | None = None,
    search_nulls: int = 0,
) -> Verdict:
    """Judge the best set of a study.

    Parameters
    ----------
    study : Study
    panel : Panel or None
        What the study ran on, to run the winner again; None leaves those checks uncomputed.
    trials : TrialCount, optional
        Every trial ever run for the idea. Default: those of the study, which understates a search that came before it.
    thresholds : mapping, optional
        By name of the check; those that are absent are those of the installed ``research/gates.toml``.
    seed : int
        Of the bootstrap; the same seed gives the same verdict.
    progress : callable, optional
        Called with (done, total, what is being done).
    search_nulls : int
        Run the whole sweep again so many times over exchanged coins; where its best set stands among theirs is a check
        more, with the threshold of ``null_books``.

    Raises
    ------
    DataError
        When no set of the study has a Sharpe ratio.
    ConfigError
        For the threshold of an unknown check.
    """
    for name in thresholds or {}:
        check_name("threshold", name, VERDICT)
    limits = {**GateFile.read().verdict, **(thresholds or {})}
    inputs = ValidationInputs(study, int(study.best("sharpe")), panel, trials, seed, search_nulls)
    return judge(inputs, limits, progress or (lambda done, total, what: None))


def judge(
    inputs: ValidationInputs, thresholds: Mapping[str, float], report: Callable[[int, int, str], object]
) -> Verdict:
    """The verdict on a set; thresholds of every check, progress as in :func:`validate`."""
    study, panel = inputs.study, inputs.panel
    parts: list[tuple[str, str, Callable[[], Any]]] = [
        ("winner", "the winner", lambda: _winner(inputs)),
        ("trials", "trials", lambda: trial_figures(inputs)),
        ("pbo", "overfitting", lambda: overfitting(inputs)),
        ("walk_forward", "walk-forward", lambda: walk_forwards(inputs)),
        ("bootstrap", "bootstrap", lambda: asdict(bootstrap_intervals(inputs.returns, CONFIDENCE, seed=inputs.seed))),
        ("familywise", "familywise test", lambda: familywise(inputs)),
        ("alpha", "alpha", lambda: alpha(inputs)),
        ("null_books", "books without skill", lambda: inputs.rerun.null_books(inputs.seed)),
        ("cost_stress", "costs", lambda: inputs.rerun.costs()),
        ("delay_stress", "delay", lambda: inputs.rerun.delays()),
        ("decision_hours", "hours of decision", lambda: inputs.rerun.decision_hours()),
        ("start_dates", "start dates", lambda: inputs.rerun.start_dates()),
        ("plateau", "neighbours", lambda: _plateau(inputs)),
    ]
    details: dict[str, Any] = {}
    load_arch()  # before a winner that is run again imports it
    with ThreadPoolExecutor(1) as statistics:
        try:
            begun = {name: statistics.submit(attempt, work) for name, _, work in parts if name not in _RERUN}
            # Those that take long are done here, where Ctrl-C ends them, and before those that are only waited for.
            for number, (name, words, work) in enumerate(sorted(parts, key=lambda part: part[0] in begun)):
                report(number, len(parts), words)
                details[name] = begun[name].result() if name in begun else attempt(work)
        finally:
            statistics.shutdown(cancel_futures=True)
    details = {name: details[name] for name, _, _ in parts}
    if inputs.search_nulls:
        details["null_search"] = attempt(lambda: search_figures(inputs, report))
    report(len(parts), len(parts), "done")
    details["power"] = attempt(lambda: power(details["familywise"], details["pbo"], inputs.returns))
    details["notes"] = _notes(inputs)
    digests = {
        "study": hashlib.sha256(to_json(study.record).encode()).hexdigest(),
        "data": study.record.get("digests", {}).get("data"),
        "panel": None if panel is None else panel.digest,
        "code": code_digest(),
    }
    names = [name for name in CHECKS if name in VERDICT or (name == SEARCH and SEARCH in details)]
    checks = checks_of(names, details, {**thresholds, SEARCH: thresholds["null_books"]})
    return Verdict(str(study.record["name"]), tuple(checks), details, digests)


def search_figures(inputs: ValidationInputs, report: Callable[[int, int, str], object]) -> dict[str, Any]:
    """The best set of the sweep among those of sweeps over exchanged coins."""
    if inputs.panel is None:
        raise DataError("No panel was given.")
    found = null_search(inputs.study, inputs.panel, inputs.search_nulls, inputs.seed, report)
    best = found.best[np.isfinite(found.best)]
    if not len(best):
        raise DataError(f"No set of {len(found.best):,} sweeps over exchanged coins has a Sharpe ratio.")
    counts, edges = np.histogram(best, bins=30)
    return {
        "statistic": found.sharpe,
        "p_value": found.p_value,
        "replicates": len(best),
        "unknown": len(found.best) - len(best),
        "critical": float(np.quantile(best, 0.95)),
        "null": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def _winner(inputs: ValidationInputs) -> dict[str, Any]:
    study, row = inputs.study, inputs.row
    metrics_of = study.table.iloc[row]
    winner: dict[str, Any] = {
        "place": row,
        "parameters": study.params(row),
        "another_panel": _another_panel(inputs),
        "sharpe_joint": float(study.sharpe_joint[row]),
        "metrics": {str(name): value for name, value in metrics_of.items()},
        "rerun": attempt(
            lambda: {name: inputs.rerun.base.metrics[name] for name in ("sharpe", "equity_end_usd", "liquidated_at")}
        ),
    }

    def track() -> dict[str, Any]:
        shape = moments(inputs.returns)
        of = (shape.sharpe, shape.skew, shape.kurtosis)
        return {
            **shape._asdict(),
            "probabilistic_sharpe": probabilistic_sharpe_ratio(shape.sharpe, shape.n, shape.skew, shape.kurtosis),
            "minimum_days": minimum_track_record_length(*of, confidence=CONFIDENCE),
            "confidence": CONFIDENCE,
            "sharpe_annual_autocorrelated": _autocorrelated(inputs.returns, shape.sharpe),
        }

    return {**winner, "track": attempt(track)}


def _another_panel(inputs: ValidationInputs) -> bool:
    """Whether the panel is known to be another one than the sweep's, as where days of it were sealed since."""
    wanted = inputs.study.record.get("digests", {}).get("data")
    return inputs.panel is not None and wanted is not None and wanted != inputs.panel.digest


def _autocorrelated(returns: np.ndarray, sharpe: float) -> float:
    """Annual Sharpe ratio of returns that follow from one another as an AR(1) does."""
    with np.errstate(invalid="ignore", divide="ignore"):
        first = float(np.corrcoef(returns[:-1], returns[1:])[0, 1])
    return sharpe * annualisation(DAYS_PER_YEAR, first ** np.arange(1, DAYS_PER_YEAR))


def _plateau(inputs: ValidationInputs) -> dict[str, Any]:
    near = neighbours(inputs.study, inputs.row)
    if unasked := only_set(inputs.study):
        return {"not_asked": unasked}
    if not near:
        raise DataError("The winner has no neighbour in the grid: no set differs from it by one step along one axis.")
    sharpe = np.array([item["sharpe"] for item in near])
    return {"neighbours": near, "median": float(np.median(sharpe)), "share_positive": float((sharpe > 0.0).mean())}


def _notes(inputs: ValidationInputs) -> list[str]:
    """What a reader of the verdict should know of what it was made from."""
    named = attempt(lambda: inputs.rerun.notes)
    notes = [*inputs.study.record.get("notes", ()), *(named if isinstance(named, tuple) else ())]
    notes += [] if inputs.panel is None else [note for note in inputs.panel.notes if note not in notes]
    notes += [] if inputs.trials is None else inputs.trials.notes
    if inputs.trials is None:
        notes.append(
            "No ledger of trials was given: whatever was tried outside this sweep is not counted, and the verdict "
            "flatters."
        )
    elif inputs.trials.total < len(inputs.study):
        notes.append(
            f"The ledger counts {inputs.trials.total:,} trials, fewer than the study's own {len(inputs.study):,}; the "
            "study's were taken."
        )
    if _another_panel(inputs):
        notes.append("The panel is not the one that the sweep ran on: its digest differs.")
    if inputs.study.daily_returns is not None:
        left = len(inputs.study) - len(inputs.compared)
        if left:
            notes.append(f"{left:,} of {len(inputs.study):,} sets have no daily returns and were left out.")
    return notes
