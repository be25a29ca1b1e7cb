"""``reports/index.html``: a sortable page of all runs and sweeps below a folder, with links to every other page."""

from __future__ import annotations

import json
import math
import re
from html import unescape
from pathlib import Path
from typing import Any

from engine.errors import DataError
from engine.reporting.html import INDEX, brief, render, write_page
from engine.reporting.run_page import index_row, verdict_of
from engine.reporting.sweep_page import winner_of
from engine.run_folders import RUN, read_notes
from engine.sweeps.study import ERROR, PAGE, RECORD, VERDICT, load_study

#: Where pages lie that are of no run and no sweep, and what the page calls them.
_OTHERS = ("*.html", "live/*.html")
_KINDS = {
    "signals": "signal",
    "capacity": "capacity",
    "data status": "data",
    "holdout": "holdout",
    "live status": "live",
    "paper tracks": "paper",
    "comparison": "comparison",
}
_MARK = re.compile(r'<meta name="generator" content="hlbt ([a-z ]+)">')
_TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)


def write_index(reports: Path) -> Path:
    """Write ``index.html``: the runs and sweeps directly below `reports`, newest first, damaged ones with their error.

    Raises
    ------
    DataError
        When `reports` is no folder or the page cannot be written.
    """
    check_reports(reports)
    page = render("index.html", rows=run_rows(reports), sweeps=sweep_rows(reports), others=_other_pages(reports))
    return write_page(reports / INDEX, page)


def check_reports(reports: Path) -> None:
    """Refuse what is no folder of runs.

    Raises
    ------
    DataError
        Saying what it is.
    """
    if not reports.is_dir():
        raise DataError(f"{reports} is no folder of runs. `hlbt backtest` makes reports/, or name another folder.")
    if (reports / RUN).exists():
        raise DataError(f"{reports} is one run, not a folder of runs. Name the folder above it.")


def run_rows(reports: Path) -> list[dict[str, Any]]:
    """Runs directly below `reports`, the newest first; ``varies`` names settings that differ between runs of an oracle.

    A damaged run has its ``error`` and ``folder`` alone.
    """
    verdicts = sorted(reports.glob(f"*/{VERDICT}"))
    rows = [_read_row(file, verdicts) for file in _records(reports, RUN)]
    of_oracle: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if not row["error"]:
            of_oracle.setdefault(row["path"], []).append(row)
    for alike in of_oracle.values():
        if len({row["digest"] for row in alike}) > 1:  # as of a notebook's class that was defined again
            for row in alike:
                row["settings"]["oracle digest"] = row["digest"][:8]
        names = {name for row in alike for name in row["settings"]}
        varying = {name for name in names if len({row["settings"].get(name) for row in alike}) > 1}
        for row in alike:
            row["varies"] = sorted(varying & row["settings"].keys())
    return sorted(rows, key=lambda row: str(row["created"]), reverse=True)


def sweep_rows(reports: Path) -> list[dict[str, Any]]:
    """Sweeps directly below `reports`, the newest first."""
    rows = [_sweep_row(file) for file in _records(reports, RECORD)]
    return sorted(rows, key=lambda row: str(row["created"]), reverse=True)


def _records(reports: Path, name: str) -> list[Path]:
    return [file for file in sorted(reports.glob(f"*/{name}")) if not file.parent.name.startswith(".")]


def _other_pages(reports: Path) -> list[dict[str, str]]:
    """Pages of signals, capacity, data, holdouts, comparisons and live accounts: kind, title, link."""
    pages = []
    for file in (file for pattern in _OTHERS for file in sorted(reports.glob(pattern))):
        with file.open(encoding="utf-8", errors="replace") as content:
            head = content.read(2000)
        mark, title = _MARK.search(head), _TITLE.search(head)
        if mark and mark[1] in _KINDS:
            link = file.relative_to(reports).as_posix()
            pages.append({"kind": _KINDS[mark[1]], "title": unescape(title[1]) if title else link, "link": link})
    return sorted(pages, key=lambda page: (page["kind"], page["link"]))


def _read_row(file: Path, verdicts: list[Path]) -> dict[str, Any]:
    folder = file.parent
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        row = index_row(record, folder)
        judged = verdict_of(record, folder, verdicts)
        verdict = None if judged is None else {"word": judged.word, "passed": judged.passed, "page": judged.page[3:]}
        return {**row, "verdict": verdict, "notes": _notes(folder)}
    except DataError as error:
        return _damaged(folder, str(error))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError) as error:
        # One damaged folder must not hide the others, and says so on the page.
        return _damaged(folder, f"run.json is damaged ({type(error).__name__}: {brief(error)}).")


def _notes(folder: Path) -> list[dict[str, str]]:
    try:
        return read_notes(folder)
    except DataError as error:
        return [{"created": "", "text": str(error)}]


def _sweep_row(file: Path) -> dict[str, Any]:
    folder = file.parent
    try:
        study = load_study(folder, returns=False, columns=("sharpe", ERROR))
        verdict = json.loads((folder / VERDICT).read_text(encoding="utf-8")) if (folder / VERDICT).is_file() else {}
        winner, _ = winner_of(study, verdict.get("details") or {})
        return {
            "folder": folder.name,
            "error": "",
            "page": (folder / PAGE).is_file(),
            "oracles": ", ".join(item["path"] for item in study.record["oracles"]),
            "parameters": ", ".join(f"{key} ({len(values)})" for key, values in study.record["grid"].items()),
            "sets": len(study),
            "failed": int((study.table[ERROR] != "").sum()),
            "best": math.nan if winner is None else float(study.table["sharpe"].iloc[winner]),
            "synthetic": bool(study.record["synthetic"]),
            "passed": verdict.get("passed"),
            "word": str(verdict.get("word", "not passed")),
            "says": str(verdict.get("says", "")),
            "created": str(study.record["created"]),
            "notes": _notes(folder),
        }
    except DataError as error:
        return _damaged(folder, str(error))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return _damaged(folder, f"The sweep is damaged ({type(error).__name__}: {brief(error)}).")


def _damaged(folder: Path, error: str) -> dict[str, Any]:
    return {"folder": folder.name, "error": error, "created": ""}
