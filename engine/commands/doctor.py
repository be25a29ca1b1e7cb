"""``hlbt doctor``: check that this machine can run backtests.

Every check returns its record and raises for nothing that it examines. None of them holds a credential: only whether
there is one and whether it has the right form. What is heavy is imported by the check that needs it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.checks import Check, Severity
from engine.commands.options import PROJECT, REPORTS, ConfigOption, JsonOption, SetOption, cache_of, clock, config_of
from engine.commands.progress import print_json, show_all, waiting
from engine.commands.tables import checks_table
from engine.errors import HlbtError, LiveError, join_first

if TYPE_CHECKING:
    import pandas as pd

HYPERLIQUID = "https://api.hyperliquid.xyz"
#: A daily sync keeps the newest row of a cache younger than this; one hour more than a day.
YOUNG_HOURS = 25
TIMEOUT_SECONDS = 5.0
FEW_BYTES, NO_BYTES = 2_000_000_000, 100_000_000
#: Outcome of a check -> the word of ``--json`` and of the table.
STATES = {"passed": "ok", "warning": "warning", "failed": "problem"}


def doctor_command(
    base_url: Annotated[
        str | None, typer.Option("--base-url", metavar="URL", help="Another host to compare the clock with.")
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check this machine: versions, compiler, cache, reports, disk, credentials (whether, never which), clock.

    The exit code is 1 only when no backtest can be run.

    Example: hlbt doctor
    """
    try:
        cache = cache_of(config_of(config, settings))
        with waiting("Checking ..."):
            checks = [*check_project(), *examine(cache, REPORTS, clock, base_url=base_url or HYPERLIQUID)]
    except ImportError as error:
        raise HlbtError(f"{error}, so nothing can run. Install what the lock file names: make setup.") from error
    failed = [check for check in checks if check.outcome == "failed"]
    if as_json:
        print_json({"fit": not failed, "findings": [_finding(check) for check in checks]})
    else:
        verdict = "No backtest can be run until the problems are solved." if failed else "Fit for backtests."
        warnings = sum(check.outcome == "warning" for check in checks)
        table = checks_table(checks, columns=("check", "outcome", "result"), words=STATES)
        show_all(table, f"{verdict} Problems: {len(failed)}, warnings: {warnings}.")
    if failed:
        raise typer.Exit(1)


def _finding(check: Check) -> dict[str, Any]:
    """A check as ``--json`` prints it."""
    return {
        "about": check.label,
        "state": STATES[check.outcome],
        "says": check.summary,
        "cure": check.cure,
        "figures": check.details,
    }


def examine(
    cache: Path, reports: Path, clock: Callable[[], pd.Timestamp], *, base_url: str = HYPERLIQUID
) -> list[Check]:
    """Run all checks, with the environment of this process and the current folder.

    Parameters
    ----------
    cache, reports : Path
        The data cache and the folder of the runs; neither needs to exist.
    clock : callable
        The machine's time, an instant with a zone.
    base_url : str
        The exchange whose time is compared with it.

    Returns
    -------
    list of Check
        One that failed makes backtests impossible; a warning does not.
    """
    return [
        check_versions(),
        check_compiler(),
        check_cache(cache, clock()),
        check_reports(reports),
        check_disk(cache, reports),
        *check_credentials(os.environ),
        check_clock(base_url, clock),
    ]


def check_project() -> list[Check]:
    """What ``hlbt.toml`` of the current folder sets, for every command but those of accounts; nothing without it."""
    from engine.config import read_toml

    if not PROJECT.exists():
        return []
    sections = read_toml(PROJECT, "Project file")
    keys = [f"{section}.{key} = {value!r}" for section, keys in sections.items() for key, value in keys.items()]
    return [_passed("Project", f"{PROJECT} sets {', '.join(keys) or 'nothing'}", settings=sections)]


def _passed(label: str, summary: str, **details: Any) -> Check:
    return Check(label.lower(), label, True, summary, details=details)


def _failed(label: str, summary: str, cure: str, severity: Severity = "error", **details: Any) -> Check:
    return Check(label.lower(), label, False, summary, cure=cure, severity=severity, details=details)


#: A failure that does not keep a backtest from running.
_warning = partial(_failed, severity="warning")


def check_versions() -> Check:
    """Python, hlbt and every library that the package requires: installed, and in a version that it accepts."""
    import platform
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    versions, wrong = {"hlbt": version("hlbt"), "Python": platform.python_version()}, []
    for requirement in map(Requirement, requires("hlbt") or ()):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            versions[requirement.name] = installed = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement} is not installed")
        else:
            if not requirement.specifier.contains(installed, prereleases=True):
                wrong.append(f"{requirement.name} {installed} is not {requirement.specifier}")
    if wrong:
        cure = "Install what the lock file names: make setup, or pip install -r requirements.lock."
        return _failed("versions", "; ".join(wrong), cure, versions=versions)
    return _passed("versions", ", ".join(f"{name} {number}" for name, number in versions.items()), versions=versions)


def check_compiler() -> Check:
    """Compile a function of the kernel, and see that the machine code is kept for the next process."""
    try:
        from engine.simulation.kernel import fill_price_nb

        price = fill_price_nb(1.0, 100.0, float("nan"), float("nan"), 0.01)
        folder = Path(fill_price_nb.stats.cache_path)
        kept = any(folder.glob("*fill_price_nb*.nbi"))
    except Exception as error:  # numba raises whatever LLVM, the linker or the file system raise
        summary = f"the kernel does not compile: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        return _failed("numba", summary, "Set NUMBA_CACHE_DIR to a writable folder; else build .venv again.")
    if price != 101.0:
        return _failed("numba", f"the kernel returns {price} instead of 101", "Build .venv again: make clean setup.")
    if not kept:
        summary = f"compiles, but keeps nothing in {folder}: every command compiles again"
        return _warning("numba", summary, "Set NUMBA_CACHE_DIR to a writable folder.")
    return _passed("numba", f"compiles; machine code is kept in {folder}")


def check_cache(cache: Path, now: pd.Timestamp) -> Check:
    """Files of the cache as its manifest has them, what they hold, and the age of the newest row at `now`."""
    import pandas as pd

    from engine.data.cache import Store
    from engine.data.cache_status import status

    store = Store(cache)
    try:
        manifest = store.manifest()
        if manifest is None or not manifest.files:
            cure = "Run `hlbt demo` or `hlbt data sync --source api`, or set HLBT_DATA_CACHE to where it lies."
            return _warning("data cache", f"{cache} is empty", cure, path=str(cache), rows=0)
        report = store.verify()
        if not report.ok:
            wrong = join_first([*report.missing, *report.changed])
            cure = "`hlbt data rebuild` keeps what is intact and says what is lost. Do not delete the folder."
            return _failed("data cache", f"{cache} is damaged; missing or changed: {wrong}", cure, path=str(cache))
        content = status(store)
    except HlbtError as error:  # its message has the cure
        return _failed("data cache", str(error), "", path=str(cache))
    age = (now - pd.Timestamp(content["end"])) / pd.Timedelta(hours=1)
    details = {name: content[name] for name in ("path", "synthetic", "start", "end", "rows", "coins")}
    summary = (
        f"{cache}{', SYNTHETIC' if content['synthetic'] else ''}: {content['rows']:,} rows, {content['coins']} coins, "
        f"{content['start'][:10]} to {content['end'][:10]}; every digest is right; the newest row is "
        f"{age / 24:,.1f} days old"
    )
    if content["synthetic"] or age <= YOUNG_HOURS:
        return _passed("data cache", summary, **details, age_hours=age)
    cure = "`hlbt data sync` brings the rows since then. Backtests of earlier data are not affected."
    return _warning("data cache", summary, cure, **details, age_hours=age)


def check_reports(reports: Path) -> Check:
    """Whether a run can be written, and how many runs, sweeps and trials there are."""
    import tempfile

    from engine.sweeps.trials import count_trials, families_below

    folder = reports if reports.exists() else reports.absolute().parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        return _failed("reports", f"{folder} cannot be written to, so no run can be saved", "Work in another folder.")
    runs, sweeps = (len(list(reports.glob(f"[!.]*/{name}"))) for name in ("run.json", "sweep.json"))
    summary = f"{reports}: runs {runs}, sweeps {sweeps}"
    try:
        count = count_trials(reports, families_below(reports))
        if count.broken:
            raise HlbtError(count.broken)
    except (HlbtError, OSError) as error:  # its message has the cure
        return _warning("reports", f"{summary}; {error}", "", runs=runs, sweeps=sweeps)
    return _passed("reports", f"{summary}, trials {count.total:,}", runs=runs, sweeps=sweeps, trials=count.total)


def check_disk(cache: Path, reports: Path) -> Check:
    """Free space where the cache and the reports lie, the smaller of the two."""
    folders = [
        next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.is_dir())
        for path in (cache, reports)
    ]
    free, folder = min((shutil.disk_usage(folder).free, folder) for folder in folders)
    summary = f"{free / 1e9:,.1f} GB free at {folder}"
    if free >= FEW_BYTES:
        return _passed("disk", summary, free_bytes=free)
    cure = "Free some space; look at reports/ and the cache's raw/ first."
    return _failed("disk", summary, cure, "error" if free < NO_BYTES else "warning", free_bytes=free)


def check_credentials(environment: Mapping[str, str]) -> list[Check]:
    """Whether there are credentials for the S3 archive, CrowdCent and live trading; no value of them is kept."""
    from engine.live.credentials import CONFIG, read_credentials

    home = Path(environment.get("HOME") or os.path.expanduser("~"))  # a user without a home has ~
    aws = any(map(environment.get, ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")))
    aws = aws or (home / ".aws" / "credentials").is_file()
    live = bool(environment.get("HYPERLIQUID_SECRET_KEY")) or CONFIG.exists()
    checks = [
        _passed(label, "credentials are set" if present else f"no credentials; {use} needs them", present=present)
        for label, present, use in (
            ("AWS", aws, "only `data sync --source s3`"),
            ("CrowdCent", bool(environment.get("CROWDCENT_API_KEY")), "only the CrowdCent oracle without a file"),
            ("HyperLiquid", live, "only live trading"),
        )
    ]
    try:
        if live:
            read_credentials()
        if CONFIG.exists():  # it matters that others can read it even where the environment goes before it
            read_credentials(CONFIG)
    except LiveError as error:  # its message has the cure, and no value
        checks[-1] = _warning("HyperLiquid", str(error), "", present=live)
    return checks


def check_clock(base_url: str, clock: Callable[[], pd.Timestamp], timeout_seconds: float = TIMEOUT_SECONDS) -> Check:
    """How far this machine's clock is from the exchange's, by the ``Date`` header of any answer.

    Parameters
    ----------
    base_url : str
        Address of the exchange.
    clock : callable
        This machine's time.
    timeout_seconds : float
        How long to wait for an answer.

    Returns
    -------
    Check
        An exchange that does not answer is a warning: backtests need none.
    """
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from engine.clock import CLOCK_SECONDS, clock_error_bounds, least_error
    from engine.urls import base_address, without_path

    base_url = base_address(base_url, "--base-url")
    host, before = without_path(base_url, base_url), clock()
    try:
        try:
            answer = urlopen(Request(base_url + "/info", method="HEAD"), timeout=timeout_seconds)
        except HTTPError as error:  # a refusal has a date too
            answer = error
        with answer:
            date = answer.headers.get("Date", "")
        error_seconds = least_error(*clock_error_bounds(date, before.timestamp(), clock().timestamp()))
    except ValueError:
        return _warning("clock", f"{host} answers without a date, so the clock was not compared", "Check the URL.")
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        reason = without_path(getattr(reason, "strerror", None) or reason, base_url)
        summary = f"{host} is not reachable ({reason}), so the clock was not compared"
        return _warning("clock", summary, "Only live trading and data syncs need it.")
    if abs(error_seconds) <= CLOCK_SECONDS:
        summary = f"agrees with {host} to {max(abs(error_seconds), 1):.0f} s"
        return _passed("clock", summary, skew_seconds=error_seconds)
    side = "ahead of" if error_seconds > 0 else "behind"
    cure = "Synchronise it with a time server: timedatectl set-ntp true."
    return _warning("clock", f"{abs(error_seconds):,.0f} s {side} {host}", cure, skew_seconds=error_seconds)
