"""The tearsheet of a run: hlbt's own section, then QuantStats' part."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from engine.clock import show
from engine.config import Report
from engine.errors import DataError
from engine.reporting.html import render, write_page
from engine.reporting.quantstats_part import Part, PartInputs, looks_like_prices, quantstats_part, unsuitable
from engine.reporting.run_page import benchmark_name, benchmark_returns, check_record, daily_returns
from engine.reporting.run_section import run_section
from engine.run_folders import TEARSHEET
from engine.runs import Run, keep
from engine.simulation.metrics import CALENDAR
from engine.simulation.result import Result
from engine.simulation.tables import rolling


class TearsheetPage:
    """Everything of a run's page but QuantStats' part, drawn once.

    Parameters
    ----------
    run : Run
        From :func:`engine.runs.load_run`.

    Attributes
    ----------
    inputs : PartInputs or None
        What QuantStats' part is made of; None where it cannot work with the returns.

    Raises
    ------
    DataError
        When the run is damaged.
    """

    def __init__(self, run: Run) -> None:
        check_record(run.record, run.folder)
        if run.equity.empty:
            raise DataError(f"Run {run.folder} is damaged: equity.parquet has no row. Run the backtest again.")
        returns, benchmark = daily_returns(run), benchmark_returns(run)
        notes = [*map(str, run.record.get("notes", ())), *_benchmark_notes(run, returns)]
        self._reason = unsuitable(returns, run.record["metrics"].get("days" + CALENDAR, len(returns)))
        self.inputs = None
        if not self._reason:
            if benchmark is not None and looks_like_prices(benchmark):
                notes.append(
                    f"{benchmark.name} more than doubled in a day and never fell, so it is left out of QuantStats' "
                    "part."
                )
                benchmark = None
            if float(returns.min()) < -1.0:
                notes.append("The account lost more than its equity; in QuantStats' part that day counts as -100%.")
            self.inputs = PartInputs(returns, benchmark, int(rolling(returns).attrs["window_days"]))
        self._parts = {
            "title": page_title(run.record),
            "section": run_section(run, tuple(notes)),
            "dates": [f"{date.day} {date:%b, %Y}" for date in returns.index[[0, -1]]] if len(returns) else [],
        }

    def write(self, folder: Path, part: Part | None) -> Path:
        """Write ``tearsheet.html`` to a run folder; without a `part` it says why QuantStats has none.

        Raises
        ------
        DataError
            When the page cannot be written.
        """
        page = render("tearsheet.html", part=part or Part(reason=self._reason), **self._parts)
        return write_page(folder / TEARSHEET, page)


def write_tearsheet(run: Run) -> Path:
    """Write ``tearsheet.html`` of a run folder; the same run gives the same bytes.

    Parameters
    ----------
    run : Run
        From :func:`engine.runs.load_run`.

    Returns
    -------
    Path
        The page: hlbt's section, then QuantStats' table and charts of the daily returns against the benchmark. Where
        QuantStats cannot work with the returns, the page has the first part alone and the reason.

    Raises
    ------
    DataError
        When the run is damaged or the page cannot be written.
    """
    page = TearsheetPage(run)
    inputs = page.inputs
    part = None if inputs is None else quantstats_part(inputs.returns, inputs.benchmark, inputs.window)
    return page.write(run.folder, part)


def tearsheet_of(result: Result, path: Path) -> Path:
    """Page of a result that is kept nowhere else: :meth:`engine.Result.tearsheet`."""
    if path.suffix.lower() not in (".html", ".htm") or path.is_dir():
        raise DataError(f"{path} is no page: name a file that ends in .html.")
    with tempfile.TemporaryDirectory(prefix="hlbt-") as folder:
        run = keep(result, Path(folder) / "run", None, "", write_tearsheet)
        return write_page(path, (run / TEARSHEET).read_text(encoding="utf-8"))


def page_title(record: Any) -> str:
    """Title of a run's page; synthetic data are named in it, because a browser tab shows nothing else."""
    return f"{record['origin']['name']}{' (SYNTHETIC DATA)' if record['synthetic'] else ''}"


def _benchmark_notes(run: Run, returns: pd.Series) -> list[str]:
    name = benchmark_name(run)
    if name is None:
        wanted = run.record["config"].get("report", {}).get("benchmark", Report().benchmark)
        if wanted.lower() == "none":
            return []
        return [f"No benchmark: the data of this run have no price of {wanted}."]
    priced = pd.DatetimeIndex(run.hourly.index[run.hourly["benchmark_usd"].notna()]).tz_convert("UTC")
    if len(returns) and priced[0].tz_localize(None) >= returns.index[0]:
        return [f"{name} has no price before {show(priced[0])}; its return is 0 until then."]
    return []
