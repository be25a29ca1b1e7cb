"""The tearsheet of a run: hlbt's own section, then the report of QuantStats.

QuantStats is imported inside functions of this module and nowhere else. A process makes one of its pages at a time,
because they use pyplot; pages are made in parallel by several processes.
"""

from __future__ import annotations

import html
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from engine.clock import DAYS_PER_YEAR, show
from engine.errors import DataError
from engine.reporting.charts import isolated_style, themed
from engine.reporting.html import render, write_page
from engine.reporting.run_page import benchmark_returns, check_record, daily_returns, run_section
from engine.runs import BENCHMARK, TEARSHEET, Run, keep
from engine.simulation.metrics import CALENDAR
from engine.simulation.result import Result

#: With fewer daily returns a standard deviation or a regression is meaningless, and QuantStats fails.
LEAST_RETURNS = 3
#: QuantStats' own theme, which it sets when imported; a page must not depend on which import came first.
_THEME: Mapping[str, Any] = {
    "figure.figsize": (10, 6),
    "axes.facecolor": "white",
    "figure.facecolor": "white",
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.5,
    "text.color": "#333333",
    "xtick.color": "#666666",
    "ytick.color": "#666666",
    "svg.fonttype": "none",
    "svg.hashsalt": "hlbt",
}


def write_tearsheet(run: Run) -> Path:
    """Write ``tearsheet.html`` of a run folder; the same run gives the same bytes.

    Parameters
    ----------
    run : Run
        From :func:`engine.runs.load_run`.

    Returns
    -------
    Path
        The page: hlbt's section, then QuantStats' report of the daily returns against BTC. Where QuantStats cannot
        work with the returns, the page has the first part alone and the reason.

    Raises
    ------
    DataError
        When the run is damaged or the page cannot be written.
    """
    check_record(run.record, run.folder)
    if run.equity.empty:
        raise DataError(f"Run {run.folder} is damaged: equity.parquet has no row. Run the backtest again.")
    returns, benchmark = daily_returns(run), benchmark_returns(run)
    notes = [*map(str, run.record.get("notes", ())), *_benchmark_notes(run, returns, benchmark)]
    reason = _unsuitable(returns, run.record["metrics"].get("days" + CALENDAR, len(returns)))
    sheet = ""
    if not reason:
        if benchmark is not None and _looks_like_prices(benchmark):
            benchmark, notes = (
                None,
                [*notes, f"{BENCHMARK} more than doubled in a day and never fell, so it is left out."],
            )
        if float(returns.min()) < -1.0:
            # QuantStats takes the absolute value of a negative equity and would show growth.
            returns = returns.clip(lower=-1.0)
            notes.append("The account lost more than its equity; in QuantStats' part that day counts as -100%.")
        sheet, reason = _quantstats(run, returns, benchmark)
    if reason:
        notes.append(f"QuantStats' part is left out: {reason}")
    section = run_section(run, tuple(notes))
    title = page_title(run.record)
    if sheet:
        page = _joined(sheet, section, title)
    else:
        page = render("section_only.html", title=title, section=section)
    return write_page(run.folder / TEARSHEET, page)


def tearsheet_of(result: Result, path: Path) -> Path:
    """Page of a result that is kept nowhere else: :meth:`engine.Result.tearsheet`."""
    if path.suffix.lower() not in (".html", ".htm") or path.is_dir():
        raise DataError(f"{path} is no page: name a file that ends in .html.")
    with tempfile.TemporaryDirectory(prefix="hlbt-") as folder:
        run = keep(result, Path(folder) / "run", None, "", write_tearsheet)
        return write_page(path, (run / TEARSHEET).read_text(encoding="utf-8"))


def page_title(record: Mapping[str, Any]) -> str:
    """Title of a run's page; synthetic data are named in it, because a browser tab shows nothing else."""
    return f"{record['origin']['name']}{' (SYNTHETIC DATA)' if record['synthetic'] else ''}"


def _benchmark_notes(run: Run, returns: pd.Series, benchmark: pd.Series | None) -> list[str]:
    if benchmark is None:
        return [f"No benchmark: the data of this run have no price of {BENCHMARK}."]
    priced = pd.DatetimeIndex(run.hourly.index[run.hourly["benchmark_usd"].notna()]).tz_convert("UTC")
    if len(returns) and priced[0].tz_localize(None) >= returns.index[0]:
        return [f"{BENCHMARK} has no price before {show(priced[0])}; its return is 0 until then."]
    return []


def _unsuitable(returns: pd.Series, calendar: int) -> str:
    """Why QuantStats cannot report on these returns, of a run over so many days; empty when it can."""
    if calendar >= LEAST_RETURNS and not returns.any():
        return "no daily return differs from zero, so there is nothing to measure."
    if len(returns) < LEAST_RETURNS:
        return f"it needs at least {LEAST_RETURNS} daily returns and this run has {len(returns)}."
    if _looks_like_prices(returns):
        return "no day lost and one more than doubled the account; QuantStats mistakes such a series for prices."
    return ""


def _looks_like_prices(returns: pd.Series) -> bool:
    return bool(returns.min() >= 0.0 and returns.max() > 1.0)


def _quantstats(run: Run, returns: pd.Series, benchmark: pd.Series | None) -> tuple[str, str]:
    """QuantStats' page and an empty reason, or no page and the reason."""
    with tempfile.TemporaryDirectory(prefix="hlbt-") as folder, _quiet_quantstats() as reports:
        output = Path(folder) / "quantstats.html"
        try:
            reports.html(
                # It modifies its arguments.
                returns.copy(),
                benchmark=None if benchmark is None else benchmark.copy(),
                rf=0.0,
                title=_inert(page_title(run.record)),
                output=str(output),
                compounded=True,
                periods_per_year=DAYS_PER_YEAR,
                match_dates=False,
                benchmark_title=None if benchmark is None else BENCHMARK,
            )
        except Exception as error:  # whatever it fails on, a page without its part is better than none
            return "", f"it failed on these returns ({type(error).__name__}: {brief(error)})."
        return output.read_text(encoding="utf-8"), ""


@contextmanager
def _quiet_quantstats() -> Iterator[Any]:
    """``quantstats.reports`` under its own theme, silent and reproducible; the caller's settings are restored."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    with isolated_style():
        import matplotlib.pyplot as plt
        import seaborn  # type: ignore[import-untyped]  # it ships no types
        from quantstats import reports

        opened = set(plt.get_fignums())
        seaborn.set_theme(font_scale=1.1, rc=dict(_THEME))
        # matplotlib dates every SVG by the clock unless this is set.
        os.environ["SOURCE_DATE_EPOCH"] = "0"
        try:
            yield reports
        finally:
            for number in set(plt.get_fignums()) - opened:
                plt.close(number)
            if epoch is None:
                del os.environ["SOURCE_DATE_EPOCH"]
            else:
                os.environ["SOURCE_DATE_EPOCH"] = epoch


def brief(error: Exception) -> str:
    """The message of an error on one line, at most 200 characters."""
    return " ".join(str(error).split())[:200]


def _inert(text: object) -> str:
    """Text escaped for HTML and for QuantStats' ``{{placeholders}}``, which it replaces one after another."""
    return html.escape(str(text)).replace("{", "&#123;").replace("}", "&#125;")


def _joined(sheet: str, section: Markup, title: str) -> str:
    """QuantStats' page with hlbt's section on top, without links to other documents."""
    sheet = re.sub(r"<link rel=\"shortcut icon\"[^>]*>", "", sheet)
    title_tag = f"<title>{html.escape(title)}</title>"
    sheet = re.sub(r"<title>.*?</title>", lambda _: title_tag, sheet, count=1, flags=re.DOTALL)
    sheet = re.sub(r"<a href=\"http[^>]*>(.*?)</a>", r"\1", sheet)
    sheet = re.sub(r"<\?xml[^>]*\?>\s*|<!DOCTYPE svg[^>]*>\s*", "", sheet)
    # Few fonts have this character.
    sheet = themed(sheet.replace("CAGR\ufe6a", "CAGR"))
    sheet = re.sub(r"<metadata>.*?</metadata>\s*", "", sheet, flags=re.DOTALL)
    # Its onload calls a function that the page does not have.
    head, _, rest = re.split(r"(<body[^>]*>)", sheet, maxsplit=1)
    return f"{head}<body>\n{section}\n{rest}"
