"""``hlbt runs``, ``compare``, ``note``, ``rm`` and ``mv``: what lies below reports/, as objects."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.commands.options import (
    REPORTS,
    ConfigOption,
    JsonOption,
    RunArgument,
    SetOption,
    clock,
    complete_runs,
    config_of,
    folder_of,
)
from engine.commands.progress import print_json, show_all, waiting
from engine.errors import ConfigError, DataError, did_you_mean, join_first

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

#: Columns of the list that it can be sorted by and that ``--where`` knows.
FIGURES = ("end_equity", "total_return", "cagr", "sharpe", "max_drawdown", "turnover")
SORTS = ("created", "name", "oracle", "trades", *FIGURES)

ReportsOption = Annotated[Path, typer.Option("--reports", metavar="DIR", help="Where runs and sweeps are kept.")]


def runs_command(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[WORD]...", help="Only runs that have every word somewhere.")
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", metavar="EXPRESSION", help='Only those for which it is true: "sharpe > 1".')
    ] = None,
    sort: Annotated[str, typer.Option("--sort", metavar="COLUMN", help=f"One of {', '.join(SORTS)}.")] = "created",
    ascending: Annotated[bool, typer.Option("--ascending", help="The lowest, or oldest, first.")] = False,
    reports: ReportsOption = REPORTS,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List runs and sweeps: figures, settings that differ, verdicts and notes.

    Example: hlbt runs momentum --where "sharpe > 1" --sort sharpe
    """
    from engine.reporting.index_page import check_reports, run_rows, sweep_rows

    config_of(config, settings)  # refuses what is wrong in it
    check_reports(reports)
    if sort not in SORTS:
        raise ConfigError(
            f"--sort {sort!r} is not accepted: choose one of {', '.join(SORTS)}.{did_you_mean(sort, SORTS)}"
        )
    with waiting(f"reading {reports}"):
        runs = _kept([_run(row) for row in run_rows(reports)], words or [], where)
        sweeps = [] if where else _kept(sweep_rows(reports), words or [], None)
    missing = [run for run in runs if _missing(run.get(sort))]
    sorted_runs = sorted(
        (run for run in runs if not _missing(run.get(sort))), key=lambda run: run[sort], reverse=not ascending
    )
    runs = [*sorted_runs, *missing]
    if as_json:
        print_json({"reports": str(reports), "runs": runs, "sweeps": sweeps})
        return
    if not runs and not sweeps:
        chosen = " that fits" if words or where else ""
        show_all(f"No run or sweep{chosen} in {reports}. `hlbt backtest` makes one.")
        return
    show_all(*([_run_table(runs)] if runs else []), *([_sweep_table(sweeps)] if sweeps else []))


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _run(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the index as a script reads it."""
    if row["error"]:
        return {"folder": row["folder"], "error": row["error"]}
    kept = ("folder", "error", "name", "settings", "varies", "start", "end", "synthetic", "liquidated", "created")
    return {
        **{name: row[name] for name in kept},
        "oracle": row["path"],
        "trades": row["trades"],
        **dict(zip(FIGURES, row["figures"], strict=False)),
        "verdict": row["verdict"],
        "notes": row["notes"],
        "pages": [name for name, there in (("tearsheet", row["page"]), ("capacity", row["capacity"])) if there],
    }


def _kept(rows: list[dict[str, Any]], words: list[str], where: str | None) -> list[dict[str, Any]]:
    """Rows that have every word somewhere and for which the expression is true; a damaged one meets no expression."""
    import json

    rows = [row for row in rows if all(word.lower() in json.dumps(row, default=str).lower() for word in words)]
    if where is None or not rows:
        return rows
    import pandas as pd

    rows = [row for row in rows if not row["error"]]
    names = ("name", "oracle", "start", "end", "created", "trades", "synthetic", "liquidated", *FIGURES)
    frame = pd.DataFrame([{name: row[name] for name in names} for row in rows], columns=list(names))
    try:
        answer: Any = frame.eval(where, engine="python")
        if not pd.api.types.is_bool_dtype(answer) or len(answer) != len(rows):
            raise ValueError("it is not true or false of each run")
    except Exception as error:
        raise ConfigError(
            f"--where {where!r} cannot be read: {' '.join(str(error).split())}. Write an expression over "
            f"{', '.join(names)}, for example --where 'sharpe > 1'."
        ) from error
    return [row for row, is_true in zip(rows, answer, strict=True) if is_true]


def _remarks(row: dict[str, Any], verdict: str) -> str:
    return "\n".join(part for part in (verdict, *(note["text"] for note in row.get("notes", []))) if part)


def _run_table(runs: list[dict[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from engine.commands.tables import _percent, _ratio

    table = Table(title=f"{len(runs):,} run{'s' if len(runs) != 1 else ''}", title_justify="left")
    for heading in ("run", "what differs, verdict, notes"):
        table.add_column(heading, overflow="fold", ratio=1)
    for heading in ("return", "Sharpe", "DD"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in runs:
        if run["error"]:
            table.add_row(Text(run["folder"]), Text(run["error"], style="red"), "", "", "")
            continue
        badges = "".join(f" [{name.upper()}]" for name in ("synthetic", "liquidated") if run[name])
        settings = ", ".join(f"{name.rpartition('.')[2]}={run['settings'][name]}" for name in run["varies"])
        verdict = "" if run["verdict"] is None else run["verdict"]["word"].upper()
        table.add_row(
            Text(run["folder"] + badges),
            Text(_remarks(run, "\n".join(part for part in (settings, verdict) if part))),
            _percent(run["total_return"]),
            _ratio(run["sharpe"]),
            _percent(-abs(run["max_drawdown"])),
        )
    return table


def _sweep_table(sweeps: list[dict[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from engine.commands.tables import _ratio

    table = Table(title=f"{len(sweeps):,} sweep{'s' if len(sweeps) != 1 else ''}", title_justify="left")
    for heading in ("sweep", "grid, verdict, notes"):
        table.add_column(heading, overflow="fold", ratio=1)
    for heading in ("sets", "best Sharpe"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in sweeps:
        if row["error"]:
            table.add_row(Text(row["folder"]), Text(row["error"], style="red"), "", "")
            continue
        badge = " [SYNTHETIC]" if row["synthetic"] else ""
        verdict = "" if row["passed"] is None else ("passed" if row["passed"] else row["word"]).upper()
        table.add_row(
            Text(row["folder"] + badge),
            Text(_remarks(row, "\n".join(part for part in (row["parameters"], verdict) if part))),
            f"{row['sets']:,}",
            _ratio(row["best"]),
        )
    return table


def note_command(
    run: RunArgument,
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="The note; without it notes are shown.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove all notes on it.")] = False,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a note to a run or sweep; the index and `hlbt runs` show it, and a new run in the folder keeps it.

    Example: hlbt note momentum-20241001-20250331-1a2b3c4d "survives 9 bps"
    """
    from engine.run_folders import RUN, read_notes, write_notes
    from engine.sweeps.study import RECORD

    config_of(config, settings)  # refuses what is wrong in it
    folder = folder_of(run)
    if not any((folder / name).is_file() for name in (RUN, RECORD)):
        raise DataError(f"{folder} is neither a run nor a sweep: it has no {RUN} and no {RECORD}.")
    if text is not None and not text.strip():
        raise ConfigError("The note is empty. Write a text, or --clear to remove the notes.")
    if text is not None and clear:
        raise ConfigError("Either a text or --clear, not both.")
    notes = [] if clear else read_notes(folder)
    if text is not None:
        notes.append({"created": clock().isoformat(timespec="seconds"), "text": text.strip()})
    if text is not None or clear:
        write_notes(folder, notes)
        refresh_index(folder.parent)
    if as_json:
        print_json({"folder": str(folder), "notes": notes})
    else:
        show_all(*(f"{note['created'][:16].replace('T', ' ')}  {note['text']}" for note in notes) or ["No notes."])


def compare_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Folders of runs, or their names.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The page; default reports/compare-<runs>.html.")
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put runs side by side: settings that differ, figures, correlation of returns, differences of weights.

    Example: hlbt compare momentum-20241001-20250331-1a2b3c4d carry-20241001-20250331-5e6f7a8b
    """
    import hashlib

    from engine.reporting.comparison_page import figures, write_comparison
    from engine.reporting.comparison_page import settings as differing
    from engine.reporting.html import check_page, ratio
    from engine.reporting.views import compare
    from engine.runs import load_run

    config_of(config, settings)  # refuses what is wrong in it
    if len(runs) < 2:
        raise ConfigError(f"A comparison is of two runs or more; {runs[0]} alone is named. Name another beside it.")
    if out is not None:
        check_page(out, "comparison")
    loaded = [load_run(folder_of(run)) for run in runs]
    names = [run.folder.name for run in loaded]
    if len(set(names)) < len(names):
        raise ConfigError(f"{join_first(names)}: a run is compared with others, not with itself. Name each once.")
    comparison = compare(*loaded)
    name = "-".join(comparison.names)
    if len(name) > 150:
        name = f"{len(loaded)}-runs-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    page = write_comparison(out or loaded[0].folder.parent / f"compare-{name}.html", comparison, loaded)
    refresh_index(page.parent)
    if as_json:
        content = {key: getattr(comparison, key).to_dict() for key in ("config", "metrics", "correlation", "weights")}
        print_json({"page": str(page), "runs": list(comparison.names), **content})
        return
    synthetic = ["SYNTHETIC DATA"] * any(run.record["synthetic"] for run in loaded)
    frames = {
        "What differs": differing(comparison),
        "Figures: USD, received +, paid -": figures(comparison),
        "Correlation of daily returns": comparison.correlation.map(ratio),
    }
    show_all(*synthetic, *(_frame_table(title, frame) for title, frame in frames.items()), f"Page: {page}")


def _frame_table(title: str, frame: pd.DataFrame) -> Table:
    """A frame of texts, its index as the first column."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    table.add_column("", overflow="fold")
    for name in frame.columns:
        table.add_column(Text(str(name)), justify="right", overflow="fold")
    for label, row in frame.iterrows():
        table.add_row(Text(str(label)), *(Text(str(value)) for value in row))
    return table


def rm_command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Folders of runs or sweeps in reports/, or their names.",
            autocompletion=complete_runs,
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    reports: ReportsOption = REPORTS,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove runs and sweeps. Foreign files in their folders stay, and so do their trials in the ledger.

    Example: hlbt rm momentum-20241001-20250331-1a2b3c4d
    """
    import sys

    from engine.run_folders import check_own, remove_folder

    config_of(config, settings)  # refuses what is wrong in it
    folders = list(dict.fromkeys(_in_reports(run, reports) for run in runs))
    for folder in folders:
        check_own(folder, reports)
    named = ", ".join(map(str, folders))
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"Nobody can be asked here whether to remove {named}: pass --yes.")
        if not typer.confirm(f"Remove {named}? Trials stay in the ledger.", err=True):
            show_all("Nothing was removed.")
            return
    left = {str(folder): remove_folder(folder, reports) for folder in folders}
    refresh_index(reports)
    if as_json:
        print_json({"removed": list(left), "left": {folder: names for folder, names in left.items() if names}})
        return
    show_all(
        *(f"Removed {folder}." if not names else _partly(folder, names) for folder, names in left.items()),
        "Their trials stay in the ledger: verdicts go on counting what was tried.",
    )


def _partly(folder: str, names: list[str]) -> str:
    return f"Removed the files of hlbt in {folder}; left alone, because it did not make them: {join_first(names)}."


def mv_command(
    run: RunArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new name, of a folder in reports/.")],
    reports: ReportsOption = REPORTS,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rename a run or sweep; links of pages to it follow. The ledger of trials keeps the name it was run under.

    Example: hlbt mv momentum-20241001-20250331-1a2b3c4d carry-of-may
    """
    from engine.run_folders import rename_folder

    config_of(config, settings)  # refuses what is wrong in it
    folder = rename_folder(_in_reports(run, reports), name, reports)
    refresh_index(reports)
    print_json({"folder": str(folder)}) if as_json else show_all(f"Run folder: {folder}")


def _in_reports(run: Path, reports: Path) -> Path:
    """A folder as named, or the one of that name in the reports."""
    return folder_of(run) if reports == REPORTS else (run if len(run.parts) > 1 else reports / run)


def refresh_index(reports: Path) -> None:
    """Write the index of the reports, to which every page below them links; any other folder is left alone."""
    from engine.reporting.html import has_index
    from engine.reporting.index_page import write_index

    if reports.is_dir() and (reports.absolute() == REPORTS.absolute() or has_index(reports)):
        write_index(reports)
