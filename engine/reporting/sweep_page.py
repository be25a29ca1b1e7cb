"""The page of a sweep: its verdict, a table of the sets, and charts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from engine.checks import QUESTIONS, Check
from engine.errors import DataError
from engine.provenance import as_json
from engine.reporting import sweep_charts
from engine.reporting.html import percent, ratio, render, span, usd, write_page
from engine.reporting.sweep_charts import Progress
from engine.simulation.metrics import ANNUAL
from engine.sweeps.study import ERROR, PAGE, Study

#: Bytes of a page at most.
LARGEST = 2_000_000
#: Rows of the table, and sets with a curve, for which there is room whatever else is on the page.
LEAST_ROWS, LEAST_CURVES = 100, 100
#: Up to so many values of a parameter are listed; of more, the first and the last.
LISTED_VALUES = 12
#: Points of the scatter of in-sample against out-of-sample.
POINTS = 2_000
#: The answer to a question, by the state of its checks together.
ANSWERS = {"passed": "yes", "failed": "not shown", "not": "not computed", "unasked": "not asked"}


def write_sweep_page(
    study: Study,
    verdict: Mapping[str, Any] | None,
    tearsheets: Mapping[int, str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write ``index.html`` into the folder of a study; the same study and verdict give the same bytes.

    Parameters
    ----------
    study : Study
        With or without daily returns, with any number of sets, failed ones included.
    verdict : mapping or None
        As ``verdict.json``, with parts of its ``details`` missing or ``{"why": ...}``; None: not validated yet.
    tearsheets : mapping
        Row of a set -> the page of its run, relative to the folder.
    progress : callable
        Called with (done, total, what).

    Raises
    ------
    DataError
        When the study has no folder, or the page cannot be written.
    """
    if study.folder is None:
        raise DataError(
            f"The study {study.record.get('name')} has no folder, so its page cannot be written. Save it first."
        )
    known = tearsheets or {}
    pages = {row: quote(known[row], safe="/") for row in study.ranking().tolist() if row in known}
    details = _mapping((verdict or {}).get("details"))
    winner, problem = winner_of(study, details)
    axes = sweep_charts.axes_of(study)
    words = _words(study, verdict, details, winner, axes)
    words["notes"] = [*([problem] if problem else []), *map(str, details.get("notes") or [])]
    words["links"] = [
        (row, link, _parameters(study, row), _figure(study, "sharpe_joint", row)) for row, link in pages.items()
    ]
    data = _page_data(study, verdict, winner, axes, pages, progress)
    empty = render("sweep.html", **words, rows=0, curves=True, data=inlined(data))
    table, curves = _fitted(study, axes, winner, LARGEST - _bytes(empty))
    data |= {"table": table, "fan": sweep_charts.fan(study, winner, progress, curves)}
    page = render("sweep.html", **words, rows=table["shown"], curves=data["fan"] is not None, data=inlined(data))
    return write_page(study.folder / PAGE, page)


def _words(
    study: Study,
    verdict: Mapping[str, Any] | None,
    details: Mapping[str, Any],
    winner: int | None,
    axes: Sequence[sweep_charts.Axis],
) -> dict[str, Any]:
    """What the page says beside its charts and its table of sets."""
    return {
        "record": study.record,
        "verdict": verdict,
        "questions": _questions((verdict or {}).get("checks", [])),
        "word": _word(verdict),
        "tiles": _tiles(study, winner, details, _winner_name(verdict)),
        "swept": [(axis.name, _listed(axis.labels)) for axis in axes],
        "facts": _facts(study, details),
        "draws": {name: _draws(details, name) for name in ("familywise", "null_books", "null_search")},
        "ranked": sweep_charts.LABELS[sweep_charts.ranked_by(study)],
        "chosen": None if winner is None else _parameters(study, winner),
        "winner": winner,
        "folds": _folds(details),
        "sets": len(study),
        "joint_days": len(study.joint[1]) if study.joint_differs else None,
        "span": _span(study.record),
        "coins": _mapping(study.record.get("span")).get("coins"),
        "failures": _failures(study),
    }


def _fitted(
    study: Study, axes: Sequence[sweep_charts.Axis], winner: int | None, room: int
) -> tuple[dict[str, Any], int]:
    """The table, of as many of the best sets as `room` bytes hold, and how many curves fit beside it.

    The table comes first, but for room that is left to the fan and its least number of curves.
    """
    each = sweep_charts.curve_bytes(study)
    room -= (len(sweep_charts.BANDS) + 4) * each  # bands, dates, winner
    rows = min(len(study), sweep_charts.ROWS)
    while True:
        table = sweep_charts.table(study, axes, winner, rows)
        size, for_table = _bytes(inlined(table)), room - LEAST_CURVES * each
        if size <= for_table or rows <= LEAST_ROWS:
            break
        rows = max(LEAST_ROWS, int(0.97 * rows * max(for_table, 0) / size))
    return table, min(sweep_charts.CURVES, max(0, room - size) // max(each, 1))


def _bytes(text: str) -> int:
    return len(text.encode("utf-8"))


def _page_data(
    study: Study,
    verdict: Mapping[str, Any] | None,
    winner: int | None,
    axes: Sequence[sweep_charts.Axis],
    pages: Mapping[int, str],
    progress: Progress | None,
) -> dict[str, Any]:
    """The numbers that the script of the page draws, but for those of each set."""
    command = None if verdict is not None else f"hlbt validate {study.record.get('name')}"
    return {
        "heat": sweep_charts.heat(study, axes, winner, progress),
        "histogram": sweep_charts.histogram(sweep_charts.numbers(study, "sharpe_joint")),
        "winner": _winner_figures(study, winner),
        "called": _winner_name(verdict),
        "hour": _hour(study, winner),
        "pages": {str(row): link for row, link in pages.items()},
        "verdict": parts(_mapping((verdict or {}).get("details")), command),
    }


def inlined(value: Any) -> Markup:
    """JSON that is safe inside a ``<script>`` element whatever text it holds; numbers that are not finite are null."""
    text = json.dumps(as_json(value), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def parts(details: Mapping[str, Any], command: str | None) -> dict[str, Any]:
    """The parts of a verdict that are drawn; a missing one is ``{"why": sentence}``.

    `command` makes the verdict, where there is none yet.
    """
    absent = "The verdict does not have this part." if command is None else f"Not computed yet: run {command}."
    pbo = _part(details, "pbo", ("logits",), absent)
    if "why" not in pbo:
        logits = pbo["logits"]
        pbo["logits"] = logits if isinstance(logits, Mapping) else sweep_charts.histogram(logits, zero=True)
        for name in ("in_sample", "out_of_sample"):
            pbo[name] = [_rounded(value) for value in pbo.get(name) or []][:POINTS]
    walk = _part(details, "walk_forward", (), absent)
    curves = {kind: _curve(_part(walk, kind, ("dates", "returns"), absent)) for kind in ("anchored", "rolling")}
    trials = _part(details, "trials", (), absent)
    if "why" not in trials:
        spread = _number(trials.get("sharpe_sd_daily"))
        trials["sharpe_sd_annual"] = None if spread is None else spread * ANNUAL
    return {
        "trials": trials,
        "pbo": pbo,
        "walk": curves if "why" not in walk else walk,
        "benchmark": _curve(_part(details, "benchmark", ("dates", "returns"), absent)),
        **{
            name: details.get(name) or {"why": absent}
            for name in ("cost_stress", "delay_stress", "decision_hours", "start_dates")
        },
        **{name: _part(details, name, ("null",), absent) for name in ("familywise", "null_books", "null_search")},
        "plateau": _plateau(_part(details, "plateau", ("neighbours",), absent)),
    }


def _part(details: Mapping[str, Any], name: str, needed: Sequence[str], absent: str) -> dict[str, Any]:
    part = _mapping(details.get(name))
    if not part:
        return {"why": absent}
    if "not_asked" in part:
        return {"why": part["not_asked"]}
    missing = [key for key in needed if not part.get(key)]
    return dict(part) if not missing or "why" in part else {"why": f"The verdict has no {name}.{missing[0]}."}


def _draws(details: Mapping[str, Any], name: str) -> int:
    """How many draws the histogram of a part holds; 0 where there is none."""
    return int(sum(_mapping(_mapping(details.get(name)).get("null")).get("counts") or []))


def _curve(part: dict[str, Any]) -> dict[str, Any]:
    if "why" in part:
        return part
    return {"sharpe": part.get("sharpe"), **sweep_charts.curve(part["dates"], part["returns"])}


def _plateau(part: dict[str, Any]) -> dict[str, Any]:
    if "why" in part:
        return part
    neighbours = []
    for each in part["neighbours"]:
        value = sweep_charts.label(each["parameters"].get(each["axis"]))
        neighbours.append({"axis": each["axis"], "label": value, "sharpe": each["sharpe"]})
    return {**part, "neighbours": neighbours}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None


def _rounded(value: Any) -> float | None:
    number = _number(value)
    return None if number is None else float(f"{number:.6g}")


def winner_of(study: Study, details: Mapping[str, Any]) -> tuple[int | None, str]:
    """Row of the verdict's winner, else of the best set by Sharpe ratio; and what is wrong with the verdict's.

    Parameters
    ----------
    study : Study
    details : mapping
        Of a verdict; empty without one.
    """
    place = _mapping(details.get("winner")).get("place")
    if isinstance(place, int) and 0 <= place < len(study):
        return place, ""
    problem = f"The verdict is of another sweep: its winner is set {place} of {len(study)} sets."
    problem = "" if place is None else problem
    try:
        return study.best(), problem
    except DataError:
        return None, problem


def _winner_figures(study: Study, winner: int | None) -> dict[str, Any] | None:
    if winner is None:
        return None
    return {"place": winner, "sharpe": _figure(study, "sharpe_joint", winner), "said": _parameters(study, winner)}


def _hour(study: Study, winner: int | None) -> Any:
    """Decision hour of the winner."""
    own = {} if winner is None else study.params(winner)
    return own.get("execution.hour_utc", study.record["config"]["execution"]["hour_utc"])


def _figure(study: Study, name: str, row: int) -> float:
    return float(sweep_charts.numbers(study, name)[row])


def _parameters(study: Study, row: int) -> str:
    """Parameters of a set as text."""
    return _assignments(study.params(row))


def _assignments(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {sweep_charts.label(value)}" for name, value in parameters.items())


def _listed(labels: list[str]) -> str:
    if len(labels) <= LISTED_VALUES:
        return ", ".join(labels)
    return f"{', '.join(labels[:4])} ... {', '.join(labels[-2:])} ({len(labels):,} values)"


def _questions(checks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The questions in their order, each with its answer and its checks."""
    groups: dict[str, list[Check]] = {}
    for values in checks:
        numbers = {name: _number(values.get(name)) for name in ("value", "threshold")}
        known = {name: values.get(name) or "" for name in ("name", "label", "says", "group")}
        known["label"] = known["label"] or known["name"]
        check = Check.from_json({**known, **numbers, "passed": values.get("passed"), "rule": values.get("rule")})
        groups.setdefault(check.group, []).append(check)
    return [
        {
            "title": QUESTIONS.get(group, ""),
            "answer": ANSWERS[_state(made)],
            "state": _state(made),
            "checks": [{"check": check, "state": _state([check])} for check in made],
        }
        for group, made in groups.items()
    ]


def _state(checks: Sequence[Check]) -> str:
    """The state of checks together, a class of the page: ``failed`` before ``not``, ``not`` before ``passed``.

    ``unasked``: the question of none of them arises.
    """
    if any(check.passed is False for check in checks):
        return "failed"
    if all(check.outcome == "not asked" for check in checks):
        return "unasked"
    return "passed" if all(check.passed for check in checks) else "not"


def _word(verdict: Mapping[str, Any] | None) -> str:
    """The word of a verdict; one of before the words has none but this."""
    return str((verdict or {}).get("word") or ("passed" if (verdict or {}).get("passed") else "not passed"))


def _winner_name(verdict: Mapping[str, Any] | None) -> str:
    """How the page calls the best set: there is no winner before a verdict."""
    return "best set" if verdict is None else "winner"


def _tiles(study: Study, winner: int | None, details: Mapping[str, Any], called: str) -> list[tuple[str, str, str]]:
    """Label, text and hint of the row of figures."""
    failed = int((study.table[ERROR] != "").sum())
    trials = _mapping(details.get("trials"))
    made = [
        ("sets run", f"{len(study):,}", "combinations of parameters"),
        ("failed", f"{failed:,}", "sets with an error"),
    ]
    for key, label, hint in (
        ("judged", "trials counted", "sets ever run of this idea, in this and other studies"),
        ("effective", "effective trials", "so many independent trials would vary as much"),
    ):
        number = _number(trials.get(key))
        if number is not None:
            made.append((label, f"{number:,.0f}" if key == "judged" else f"{number:,.1f}", hint))
    if winner is not None:
        joint = [("sharpe_joint", "joint Sharpe", ratio)] if study.joint_differs else []
        for name, label, write in (
            *joint,
            ("sharpe", "Sharpe", ratio),
            ("cagr", "CAGR", percent),
            ("max_drawdown", "drawdown", percent),
            ("equity_end_usd", "end USD", lambda value: usd(value, 0)),
        ):
            text = write(_figure(study, name, winner))
            made.append((f"{called}'s {label}", text, "after all costs, in sample: chosen because it is the best"))
    return made


def _facts(study: Study, details: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Figures of the verdict that have no check and no chart."""
    facts: list[tuple[str, str]] = []
    bootstrap = _mapping(details.get("bootstrap"))
    for name, write in (("sharpe", ratio), ("cagr", percent)):
        low, high = (_number(value) for value in ([*(bootstrap.get(name) or []), None, None])[:2])
        if low is not None and high is not None:
            confidence = _number(bootstrap.get("confidence")) or 0.95
            facts.append(
                (f"winner's {sweep_charts.LABELS[name]}, {confidence:.0%} interval", f"{write(low)} to {write(high)}")
            )
    for part, label in (("familywise", "sets shown better than nothing"), ("alpha", "sets shown to have alpha")):
        better = _mapping(details.get(part)).get("better")
        if isinstance(better, list):
            facts.append((f"{label} (StepM)", f"{len(better):,}"))
    track, trials = _mapping(_mapping(details.get("winner")).get("track")), _mapping(details.get("trials"))
    for of, key, label in (
        (track, "sharpe_annual_autocorrelated", "Sharpe, days as they follow from one another"),
        (track, "minimum_days", "minimum track record, days"),
        (trials, "effective_days", "independent days"),
        (trials, "deflated_sharpe_raw", "deflated Sharpe ratio, raw: all trials, days as they are"),
    ):
        number = _number(of.get(key))
        if number is not None:
            facts.append((label, f"{number:,.0f}" if "days" in key else f"{number:.2f}"))
    pbo = _mapping(details.get("pbo"))
    for key, label in (
        ("pbo", "probability of backtest overfitting"),
        ("probability_of_loss", "probability of loss out of sample"),
    ):
        share = _number(pbo.get(key))
        if share is not None:
            facts.append((label, percent(share, 1)))
    return facts


def _folds(details: Mapping[str, Any]) -> list[tuple[str, list[dict[str, str]]]]:
    """The choice of walk-forward in each fold, by kind."""
    tables = []
    for kind in ("anchored", "rolling"):
        folds = _mapping(_mapping(details.get("walk_forward")).get(kind)).get("folds") or []
        rows = [
            {
                "test": f"{str(fold.get('test_start'))[:10]} to {str(fold.get('test_end'))[:10]}",
                "train": f"{str(fold.get('train_start'))[:10]} to {str(fold.get('train_end'))[:10]}",
                "chosen": _assignments(_mapping(fold.get("parameters"))),
                "inside": _sharpe(fold.get("in_sample_sharpe")),
                "outside": _sharpe(fold.get("out_of_sample_sharpe")),
            }
            for fold in folds
        ]
        if rows:
            tables.append((kind, rows))
    return tables


def _sharpe(value: Any) -> str:
    number = _number(value)
    return "n/a" if number is None else ratio(number)


def _failures(study: Study) -> list[tuple[str, int]]:
    """The most frequent errors of sets, and the number of sets of each."""
    errors = study.table[ERROR]
    counts = errors[errors != ""].value_counts(sort=True).head(5)
    return [(str(error), int(count)) for error, count in counts.items()]


def _span(record: Mapping[str, Any]) -> str:
    dates = _mapping(record.get("span"))
    return span(dates["start"], dates["end"]) if "start" in dates and "end" in dates else ""
