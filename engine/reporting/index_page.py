"""``reports/index.html``: a sortable page of all runs and sweeps below a folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from engine.errors import DataError
from engine.reporting.html import brief, render, write_page
from engine.reporting.run_page import index_row
from engine.reporting.sweep_page import winner_of
from engine.sweeps.study import ERROR, PAGE, VERDICT, load_study

INDEX = "index.html"


def write_index(reports: Path) -> Path:
    """Write ``index.html``: the runs and sweeps directly below `reports`, newest first, damaged ones with their error.

    Raises
    ------
    DataError
        When `reports` is no folder or the page cannot be written.
    """
    if not reports.is_dir():
        raise DataError(f"{reports} is no folder of runs. `hlbt backtest` makes reports/, or name another folder.")
    if (reports / "run.json").exists():
        raise DataError(f"{reports} is one run, not a folder of runs. Name the folder above it.")
    rows = [_read_row(file) for file in sorted(reports.glob("*/run.json")) if not file.parent.name.startswith(".")]
    rows.sort(key=lambda row: row["created"], reverse=True)
    sweeps = [_sweep_row(file) for file in sorted(reports.glob("*/sweep.json")) if not file.parent.name.startswith(".")]
    sweeps.sort(key=lambda row: row["created"], reverse=True)
    return write_page(reports / INDEX, render("index.html", rows=rows, sweeps=sweeps))


def _read_row(file: Path) -> dict[str, Any]:
    folder = file.parent
    try:
        return index_row(json.loads(file.read_text(encoding="utf-8")), folder)
    except DataError as error:
        return _damaged(folder, str(error))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError) as error:
        # One damaged folder must not hide the others, and says so on the page.
        return _damaged(folder, f"run.json is damaged ({type(error).__name__}: {brief(error)}).")


def _sweep_row(file: Path) -> dict[str, Any]:
    folder = file.parent
    try:
        study = load_study(folder, returns=False)
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
        }
    except DataError as error:
        return _damaged(folder, str(error))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return _damaged(folder, f"The sweep is damaged ({type(error).__name__}: {brief(error)}).")


def _damaged(folder: Path, error: str) -> dict[str, Any]:
    return {"folder": folder.name, "error": error, "created": ""}
