"""Folders of runs and sweeps as objects: replaced, annotated, renamed and removed; foreign files are left alone.

A file is foreign where hlbt does not write one of its name. None is ever removed or changed, and nothing outside the
folder of the reports is.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import escape

from engine.atomic_io import locked, replacing
from engine.errors import DataError, join_first
from engine.provenance import to_json
from engine.sweeps.results import CHUNKS, TOP, chunk_files
from engine.sweeps.results import FILES as SWEEP_FILES
from engine.sweeps.study import RECORD as SWEEP

SCHEMA = 1
RUN = "run.json"
TEARSHEET = "tearsheet.html"
CAPACITY = "capacity.html"
RISK = "risk.parquet"
FACTORS = "factors.parquet"
TRIPS = "round_trips.parquet"
NOTES = "notes.json"
#: All files of a run folder that hlbt writes.
FILES = frozenset(
    (
        RUN,
        "equity.parquet",
        "trades.parquet",
        "weights.parquet",
        "hourly.parquet",
        RISK,
        FACTORS,
        TRIPS,
        TEARSHEET,
        CAPACITY,
    )
)
#: Tables of a record, and what the pages need of them.
_TABLES: Mapping[str, set[str]] = {
    "config": set(),
    "metrics": {"sharpe", "total_return", "equity_end_usd"},
    "span": {"start", "end", "hours", "coins"},
    "digests": {"config", "data", "code"},
    "origin": {"name", "kind", "path", "parameters", "digest"},
}
_TEMPORARY = re.compile(r"\..+\.\d+\.writing")


def check_replaceable(folder: Path) -> Mapping[str, Any] | None:
    """Refuse a folder that is neither empty nor a run's; returns the record of the run in it, if any."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        if folder.resolve() == Path.cwd():
            raise DataError(f"{folder} is the current folder. Name a folder for the run with --out.")
        return None
    if not folder.is_dir():
        raise DataError(f"{folder} is a file. Name a folder with --out.")
    if not (folder / RUN).is_file():
        foreign = sorted({item.name for item in folder.iterdir()} - FILES)
        if foreign:
            raise DataError(
                f"{folder} holds files that are not of a run: {join_first(foreign)}. Name another folder with --out."
            )
        raise DataError(f"{folder} is no run folder: it has no {RUN}. Name another folder with --out.")
    return read_record(folder)


def read_record(folder: Path) -> Mapping[str, Any]:
    """``run.json`` of a run folder.

    Raises
    ------
    DataError
        When it is damaged, no record of a run, or of another schema.
    """
    try:
        record = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / RUN} is damaged: {str(error).splitlines()[0]}. Run the backtest again.") from error
    if not isinstance(record, dict) or not {"digests", "metrics", "span", "config"} <= set(record):
        raise DataError(f"{folder / RUN} is not the record of a run. Run the backtest again, into another folder.")
    if record.get("schema") != SCHEMA:
        raise DataError(
            f"Run {folder} has schema {record.get('schema')}; this version reads {SCHEMA}. Run the backtest again."
        )
    if wrong := _wrong(record):
        raise DataError(f"{folder / RUN} is damaged: {wrong}. Run the backtest again.")
    return record


def _wrong(record: Mapping[str, Any]) -> str:
    """What of a record cannot be, in words; empty where all of it can."""
    for name, keys in _TABLES.items():
        table = record.get(name)
        if not isinstance(table, dict) or not keys <= table.keys():
            return f"{name} is no table{' with ' + ', '.join(sorted(keys)) if keys else ''}"
    if not all(isinstance(keys, dict) for keys in record["config"].values()):
        return "config holds no tables"
    words = [name for name, value in record["metrics"].items() if isinstance(value, str) and name != "liquidated_at"]
    return f"metrics.{words[0]} = {record['metrics'][words[0]]!r} is no number" if words else ""


def replace_folder(made: Path, folder: Path) -> None:
    """Replace the run in `folder` by that in `made`; notes and foreign files of the old one stay.

    A kill leaves the old folder, the new one, or the old one under a dotted name.
    """
    if not folder.exists():
        made.chmod(0o755)
        os.replace(made, folder)
        return
    shutil.copytree(
        folder,
        made,
        symlinks=True,
        copy_function=_link,
        ignore=lambda inside, _names: FILES if Path(inside) == folder else (),
        dirs_exist_ok=True,
    )
    made.chmod(0o755)
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    try:
        os.replace(folder, old)
    except OSError:
        old.rmdir()
        raise
    try:
        os.replace(made, folder)
    except OSError:
        os.replace(old, folder)
        raise
    for item in old.iterdir():  # what somebody put there in the meantime
        if item.name not in FILES and not os.path.lexists(folder / item.name):
            os.replace(item, folder / item.name)
    shutil.rmtree(old, ignore_errors=True)


def _link(source: str, target: str) -> None:
    """The same file under a second name, or a copy where the disk knows no such thing."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target)


def read_notes(folder: Path) -> list[dict[str, str]]:
    """Notes on a run or sweep, the oldest first: ``created`` (ISO 8601) and ``text``.

    Raises
    ------
    DataError
        When the file of that name is not hlbt's.
    """
    try:
        notes = json.loads((folder / NOTES).read_text(encoding="utf-8"))
        return [{"created": str(note["created"]), "text": str(note["text"])} for note in notes]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder / NOTES} holds no notes of hlbt ({type(error).__name__}). It is left as it is; rename it, or "
            "mend it."
        ) from error


def write_notes(folder: Path, notes: list[dict[str, str]]) -> None:
    """Replace the notes on a run or sweep; without any the file is removed."""
    read_notes(folder)  # a foreign file of that name is refused
    if not notes:
        (folder / NOTES).unlink(missing_ok=True)
        return
    with replacing(folder / NOTES) as made:
        made.write_text(to_json(notes), encoding="utf-8")


def check_own(folder: Path, reports: Path) -> Path:
    """The folder of a run or sweep that hlbt made below `reports`, resolved.

    Raises
    ------
    DataError
        For a link, a folder elsewhere, of a sweep's best sets, or that holds neither a run nor a sweep.
    """
    if folder.is_symlink():
        raise DataError(f"{folder} is a link to {os.readlink(folder)}. Name the folder itself, or remove the link.")
    resolved, base = folder.resolve(), reports.resolve()
    if base not in resolved.parents:
        raise DataError(f"{folder} does not lie in {reports}. Only runs and sweeps in it are removed or renamed.")
    if resolved.parent != base:
        raise DataError(
            f"{folder} is part of {resolved.parent.relative_to(base)}. Name a folder directly in {reports}."
        )
    if (resolved / SWEEP).is_file():
        try:
            record = json.loads((resolved / SWEEP).read_text(encoding="utf-8"))
            whole = {"schema", "oracles", "grid", "digests"} <= set(record)
        except (OSError, ValueError, TypeError):
            whole = False
        if not whole:
            raise DataError(f"{folder / SWEEP} is not the record of a sweep. Nothing is touched: look at it yourself.")
    elif (resolved / RUN).is_file():
        read_record(resolved)
    else:
        raise DataError(f"{folder} is neither a run nor a sweep: it has no {RUN} and no {SWEEP}. Nothing is touched.")
    return resolved


def remove_folder(folder: Path, reports: Path) -> list[str]:
    """Remove what hlbt made of a run or sweep; the ledger of trials stays as it is.

    Parameters
    ----------
    folder, reports : Path
        As in :func:`check_own`.

    Returns
    -------
    list of str
        Foreign files, which are left, and the folder with them; without any the folder is gone.

    Raises
    ------
    DataError
        As :func:`check_own`, and for a sweep that another process writes to.
    """
    own = check_own(folder, reports)
    is_sweep = (own / SWEEP).is_file()
    with locked(own) if is_sweep else nullcontext():
        if is_sweep:
            for run in _folders(own / TOP):
                _remove_files(run, FILES, RUN)
            _remove_files(own / CHUNKS, {path.name for path in chunk_files(own)})
            with suppress(OSError):
                (own / TOP).rmdir()
        left = _remove_files(own, (SWEEP_FILES if is_sweep else FILES) | {NOTES}, SWEEP if is_sweep else RUN)
    _relink(reports, own.name, None)
    return left


def _real(folder: Path) -> Path:
    """The folder; one that is not there in place of a link, which may lead anywhere."""
    return folder / "nothing" if folder.is_symlink() else folder


def _folders(folder: Path) -> list[Path]:
    real = _real(folder)
    return [item for item in real.iterdir() if item.is_dir() and not item.is_symlink()] if real.is_dir() else []


def _remove_files(folder: Path, names: Collection[str], last: str = "") -> list[str]:
    """Remove files of a folder, `last` at the end, then the folder if nothing is left; returns what is left."""
    if not _real(folder).is_dir():
        return []
    own = [item for item in folder.iterdir() if item.name in names or _TEMPORARY.fullmatch(item.name)]
    for item in sorted(own, key=lambda item: item.name == last):
        if item.is_symlink() or not item.is_dir():
            item.unlink()
    left = sorted(item.name for item in folder.iterdir())
    if not left:
        folder.rmdir()
    return left


def rename_folder(folder: Path, name: str, reports: Path) -> Path:
    """Give a run or sweep another name; pages and links below `reports` that lead to it lead to it still.

    Parameters
    ----------
    folder : Path
        As in :func:`check_own`.
    name : str
        The new one, of a folder directly in `reports`.
    reports : Path
        As in :func:`check_own`.

    Returns
    -------
    Path
        Its folder now.

    Raises
    ------
    DataError
        As :func:`check_own`, for a name that is none or taken, and for a sweep that another process writes to.
    """
    own = check_own(folder, reports)
    target = own.parent / name
    if Path(name).name != name or name.startswith(".") or name in ("", "live"):
        raise DataError(f"{name!r} is no name of a folder in {reports}: write one without slashes or a leading dot.")
    if os.path.lexists(target):
        raise DataError(f"{reports / name} exists. Nothing is overwritten: choose another name.")
    is_sweep = (own / SWEEP).is_file()
    with locked(own) if is_sweep else nullcontext():
        os.rename(own, target)
        file = target / (SWEEP if is_sweep else RUN)
        record = json.loads(file.read_text(encoding="utf-8"))
        with replacing(file) as made:
            made.write_text(to_json({**record, "name": name}), encoding="utf-8")
    for link in own.parent.iterdir():
        if link.is_symlink() and Path(os.path.abspath(link.parent / os.readlink(link))) == own:
            link.unlink()
            link.symlink_to(name)
    _relink(reports, own.name, name)
    return reports / name


def _relink(reports: Path, old: str, new: str | None) -> None:
    """Let the links of all pages that lead into the folder `old` lead into `new`; None: take the links away."""
    for page, up in _pages(reports):
        text = changed = page.read_text(encoding="utf-8", errors="surrogateescape")
        for write in (quote, lambda name: str(escape(name))):
            before = f'href="{up}{write(old)}/'
            if new is None:
                changed = re.sub(rf'<a {re.escape(before)}[^"]*"[^>]*>(.*?)</a>', r"\1", changed, flags=re.DOTALL)
            else:
                changed = changed.replace(before, f'href="{up}{quote(new)}/')
        if changed != text:
            with replacing(page) as made:
                made.write_text(changed, encoding="utf-8", errors="surrogateescape")


def _pages(reports: Path) -> Iterator[tuple[Path, str]]:
    """Pages of hlbt below a folder of reports, and how their links lead up to it."""
    for pattern, up in (("*.html", ""), (f"*/{TEARSHEET}", "../"), (f"*/{TOP}/*/{TEARSHEET}", "../../../")):
        for page in sorted(reports.glob(pattern)):
            if not any(part.startswith(".") for part in page.relative_to(reports).parts) and not page.is_symlink():
                yield page, up
