"""What ``hlbt doctor`` examines: versions, the cache, the reports, credentials, disk, clock.

Every check gives findings and never raises for what it examines. No finding carries a credential, only whether there is
one and whether it has the form of one.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pandas as pd
from packaging.requirements import Requirement

from engine.clock import CLOCK_SECONDS, clock_error_bounds, least_error
from engine.data.cache import Store
from engine.data.cache_status import status
from engine.errors import HlbtError, LiveError, join_first
from engine.live.credentials import CONFIG, read_credentials
from engine.sweeps.trials import count_trials, families_below
from engine.urls import base_address, without_path

State = Literal["ok", "warning", "problem"]
Clock = Callable[[], pd.Timestamp]

HYPERLIQUID = "https://api.hyperliquid.xyz"
OLDEST_PYTHON = (3, 11)
#: An hour more than a day: a sync a day keeps a cache younger.
YOUNG_HOURS = 25
#: Days of hourly candles that the API still has (5,000 hours).
API_DAYS = 208
TIMEOUT_SECONDS = 5.0
FEW_BYTES, NO_BYTES = 2_000_000_000, 100_000_000


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Attributes
    ----------
    about : str
        What was examined.
    state : str
        ``"ok"``; ``"warning"``, something does not work or will not last; ``"problem"``, no backtest can be run.
    says : str
        What was found.
    cure : str
        What to do, empty where nothing is to be done.
    figures : mapping
        The same as values, for ``--json``.
    """

    about: str
    state: State
    says: str
    cure: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


def examine(cache: Path, reports: Path, clock: Clock, *, base_url: str = HYPERLIQUID) -> list[Finding]:
    """Examine the machine, with the environment of this process and the current folder.

    Parameters
    ----------
    cache, reports : Path
        The data cache and the folder of the runs; neither needs to exist.
    clock : callable
        The machine's time, an instant with a zone.
    base_url : str
        The exchange, whose time is compared with it.

    Returns
    -------
    list of Finding
    """
    return [
        *check_versions(),
        check_compiler(),
        check_cache(cache, clock()),
        check_reports(reports),
        *check_disk(cache, reports),
        check_aws(os.environ),
        check_crowdcent(os.environ),
        check_hyperliquid(),
        check_clock(base_url, clock),
    ]


def fit(findings: list[Finding]) -> bool:
    """Whether nothing found makes the main job impossible."""
    return all(finding.state != "problem" for finding in findings)


# ------------------------------------------------------------------------------------------------------------ software


def check_versions() -> Iterator[Finding]:
    """Versions of hlbt, Python and every library that the package asks for; those absent or too old one by one."""
    found = f"{sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}"
    least = ".".join(map(str, OLDEST_PYTHON))
    yield Finding("hlbt", "ok", version("hlbt"), figures={"version": version("hlbt")})
    old = sys.version_info[:2] < OLDEST_PYTHON
    cure = f"Install Python {least} or newer and build the environment again: make clean demo PYTHON=python{least}."
    yield Finding("Python", "problem" if old else "ok", found, cure if old else "", {"version": found})
    wanted = [Requirement(text) for text in requires("hlbt") or ()]
    versions: dict[str, str] = {}
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            held = version(requirement.name)
        except PackageNotFoundError:
            says, held = f"is not installed; hlbt needs {requirement}", ""
        else:
            versions[requirement.name] = held
            if requirement.specifier.contains(held, prereleases=True):
                continue
            says = f"{held} is not what hlbt needs: {requirement}"
        cure = "Install what the lock file names: make setup, or pip install -r requirements.lock."
        yield Finding(requirement.name, "problem", says, cure, {"version": held or None})
    listed = ", ".join(f"{name} {held}" for name, held in versions.items())
    yield Finding("libraries", "ok", listed, figures={"versions": versions})


def check_compiler() -> Finding:
    """Compile one function of the kernel, and see that the machine code is kept for the next process."""
    try:
        from engine.simulation.kernel import fill_price_nb

        price = fill_price_nb(1.0, 100.0, float("nan"), float("nan"), 0.01)
        folder = Path(fill_price_nb.stats.cache_path)
        kept = any(folder.glob("*fill_price_nb*.nbi"))
    except Exception as error:  # numba raises what LLVM, the linker or the file system make of it
        says = (
            f"the kernel does not compile: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        )
        cure = "Name a folder that can be written to, NUMBA_CACHE_DIR=DIR; if that is no help, build .venv again."
        return Finding("numba", "problem", says, cure)
    figures = {"cache": str(folder), "kept": kept}
    if price != 101.0:
        cure = "Build the environment again from the lock file: make clean setup."
        return Finding("numba", "problem", f"the kernel says {price}, and 101 is right", cure, figures)
    if not kept:
        says = f"compiles, but keeps nothing in {folder}: every command compiles again"
        return Finding("numba", "warning", says, "NUMBA_CACHE_DIR=DIR names a folder that can be written to.", figures)
    return Finding("numba", "ok", f"compiles; machine code is kept in {folder}", figures=figures)


# ---------------------------------------------------------------------------------------------------------------- data


def check_cache(cache: Path, now: pd.Timestamp) -> Finding:
    """What the cache holds, how old its last row is, and whether its files are as its manifest says.

    Parameters
    ----------
    cache : Path
        Folder of the cache.
    now : Timestamp
        For the age of the last row.

    Returns
    -------
    Finding
        A cache that is not there is a warning: the demo and an import make one.
    """
    store = Store(cache)
    try:
        manifest = store.manifest()
        if manifest is None or not manifest.files:
            return Finding(
                "data cache",
                "warning",
                f"{cache} holds nothing yet",
                "`hlbt demo` for the synthetic sample; `hlbt data sync --source api` or `hlbt data import freqtrade "
                "DIR` for real history; HLBT_DATA_CACHE=DIR if it lies elsewhere.",
                {"path": str(cache), "rows": 0},
            )
        return _cache(store, now)
    except HlbtError as error:
        return Finding("data cache", "problem", str(error), "", {"path": str(cache)})


def _cache(store: Store, now: pd.Timestamp) -> Finding:
    report = store.verify()
    if not report.ok:
        wrong = [f"{name} is missing" for name in report.missing] + [f"{name} has changed" for name in report.changed]
        cure = f"Delete {store.path} and import or sync again; it holds nothing that cannot be brought again."
        return Finding("data cache", "problem", f"{store.path} is damaged: {join_first(wrong)}", cure)
    found = status(store)
    spans = [
        (pd.Timestamp(row["last_price"]) - pd.Timestamp(row["first_price"])) // pd.Timedelta(hours=1) + 1
        for row in found["table"]
        if row["first_price"] is not None
    ]
    missing = sum(row["missing_hours"] for row in found["table"])
    age = (now - pd.Timestamp(found["end"])) / pd.Timedelta(hours=1)
    figures = {
        "path": str(store.path),
        **{name: found[name] for name in ("synthetic", "start", "end", "rows", "coins", "fields")},
        "bytes": report.bytes,
        "coverage": 1 - missing / sum(spans),
        "gaps": len(found["gaps"]),
        "age_hours": age,
    }
    says = (
        f"{store.path}{', SYNTHETIC' if found['synthetic'] else ''}: {found['rows']:,} rows, {found['coins']} coins, "
        f"{found['start'][:10]} to {found['end'][:10]}; {figures['coverage']:.2%} of the hours between first and last "
        f"price have one; every digest is right; the last row is {_age(age)} old"
    )
    if found["synthetic"] or age <= YOUNG_HOURS:
        return Finding("data cache", "ok", says, "", figures)
    cure = "`hlbt data sync --source api` brings the tail"
    if age > API_DAYS * 24:
        cure += f", but its candles reach back {API_DAYS} days only; `--source s3` brings what lies before"
    return Finding("data cache", "warning", says, f"{cure}. Backtests of what is there are not affected.", figures)


def _age(hours: float) -> str:
    return f"{hours:.0f} hours" if hours < 72 else f"{hours / 24:,.0f} days"


def check_reports(reports: Path) -> Finding:
    """How many runs, sweeps and trials there are, and whether another can be written."""
    runs, sweeps = (
        [file for file in reports.glob(f"*/{name}") if not file.parent.name.startswith(".")]
        for name in ("run.json", "sweep.json")
    )
    figures: dict[str, Any] = {"path": str(reports), "runs": len(runs), "sweeps": len(sweeps)}
    home = reports if reports.exists() else reports.absolute().parent
    if not _writable(home):
        cure = "Change to a folder that can be written to, or mend its permissions."
        return Finding("reports", "problem", f"{home} cannot be written to: no run could be kept", cure, figures)
    says = f"{reports}: runs {len(runs)}, sweeps {len(sweeps)}"
    try:
        families = families_below(reports)
        figures["trials"] = count_trials(reports, families).total
    except (HlbtError, OSError) as error:
        return Finding("reports", "warning", f"{says}; {error}", "", figures)
    return Finding("reports", "ok", f"{says}, trials {figures['trials']:,}, oracles {len(families)}", "", figures)


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def check_disk(cache: Path, reports: Path) -> Iterator[Finding]:
    """Free room where the cache and the reports lie, once for each disk."""
    seen = set()
    for place in (cache, reports):
        home = next(parent for parent in (place.absolute(), *place.absolute().parents) if parent.is_dir())
        device = home.stat().st_dev
        if device in seen:
            continue
        seen.add(device)
        free = shutil.disk_usage(home).free
        state: State = "problem" if free < NO_BYTES else "warning" if free < FEW_BYTES else "ok"
        cure = "" if state == "ok" else "Make room; `reports/` and the cache's `raw/` are the first to look at."
        yield Finding("disk", state, f"{free / 1e9:,.1f} GB free at {home}", cure, {"free_bytes": free})


# --------------------------------------------------------------------------------------------------------- credentials


def check_aws(environment: Mapping[str, str]) -> Finding:
    """Whether there are credentials for the S3 archive; their values are not read."""
    home = Path(environment.get("HOME") or os.path.expanduser("~"))  # which some users have not
    files = [
        Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws" / "credentials"),
        Path(environment.get("AWS_CONFIG_FILE") or home / ".aws" / "config"),
    ]
    pair = [name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if environment.get(name)]
    others = ("AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    given = pair + [name for name in others if environment.get(name)] + [str(file) for file in files if file.is_file()]
    figures = {"present": bool(given), "given_by": given}
    if len(pair) == 1:
        absent = "AWS_SECRET_ACCESS_KEY" if pair == ["AWS_ACCESS_KEY_ID"] else "AWS_ACCESS_KEY_ID"
        return Finding("AWS", "warning", f"{pair[0]} is set and {absent} is not", f"Set {absent} too.", figures)
    loose = [file for file in files[:1] if _loose(file)]
    if loose:
        return Finding("AWS", "warning", f"{loose[0]} can be read by others", f"chmod 600 {loose[0]}", figures)
    says = f"credentials by {', '.join(given)}" if given else "no credentials; only `data sync --source s3` needs them"
    return Finding("AWS", "ok", says, figures=figures)


def check_crowdcent(environment: Mapping[str, str]) -> Finding:
    """Whether the CrowdCent oracle could download."""
    key = bool(environment.get("CROWDCENT_API_KEY"))
    try:
        client = version("crowdcent-challenge")
    except PackageNotFoundError:
        client = None
    figures = {"present": key, "client": client}
    if key and client is None:
        says = "CROWDCENT_API_KEY is set, but the package crowdcent-challenge is not installed"
        return Finding("CrowdCent", "warning", says, "pip install crowdcent-challenge", figures)
    says = (
        "CROWDCENT_API_KEY is set" if key else "no CROWDCENT_API_KEY; only the CrowdCent oracle without a file needs it"
    )
    return Finding("CrowdCent", "ok", says, figures=figures)


def check_hyperliquid() -> Finding:
    """Whether there is a key to trade with that the live commands would take, and is nobody else's to read."""
    given = [name for name in ("HYPERLIQUID_SECRET_KEY", "HYPERLIQUID_ACCOUNT_ADDRESS") if os.environ.get(name)]
    given += [str(CONFIG)] if CONFIG.exists() else []
    figures = {"present": bool(given), "given_by": given}
    if not given:
        return Finding("HyperLiquid", "ok", "no credentials; only live trading needs them", figures=figures)
    # A file that others can read matters even where the environment is what counts.
    if _loose(CONFIG):
        says = f"{CONFIG} holds a secret and can be read by others (mode {stat.S_IMODE(CONFIG.stat().st_mode):o})"
        return Finding("HyperLiquid", "warning", says, f"chmod 600 {CONFIG}", figures)
    try:
        found = read_credentials()
    except LiveError as error:  # without a value of the file or the environment in it
        return Finding("HyperLiquid", "warning", str(error), "", figures)
    source = "the environment" if os.environ.get("HYPERLIQUID_SECRET_KEY") else str(CONFIG)
    own = "" if found.account_address else "; no account is named, so it is the key's own address"
    return Finding("HyperLiquid", "ok", f"credentials by {source}{own}", figures=figures)


def _loose(file: Path) -> bool:
    """Whether group or others may read a file."""
    try:
        return bool(file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError:
        return False


# --------------------------------------------------------------------------------------------------------------- clock


def check_clock(base_url: str, clock: Clock, timeout_seconds: float = TIMEOUT_SECONDS) -> Finding:
    """How far this machine's clock is from the exchange's, by the Date header of any answer.

    Parameters
    ----------
    base_url : str
        Address of the exchange.
    clock : callable
        This machine's time.
    timeout_seconds : float
        How long the exchange may be silent.

    Returns
    -------
    Finding
        An exchange that does not answer is a warning: backtests need none.
    """
    base_url = base_address(base_url, "--base-url")
    where = without_path(base_url, base_url)
    before = clock()
    try:
        try:
            with urlopen(Request(base_url + "/info", method="HEAD"), timeout=timeout_seconds) as answer:
                headers = answer.headers
        except HTTPError as error:  # a refusal has a date too
            headers = error.headers
            error.close()
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        why = without_path(getattr(reason, "strerror", None) or reason, base_url)
        says = f"{where} is not reachable ({why}), so the clock was not compared"
        return Finding("clock", "warning", says, "Only live trading and data syncs need it.", {"reachable": False})
    try:
        bounds = clock_error_bounds(headers.get("Date", ""), before.timestamp(), clock().timestamp())
    except ValueError:
        says = f"{where} answers without a date, so the clock was not compared"
        return Finding("clock", "warning", says, "Is it the exchange?", {"reachable": True, "skew_seconds": None})
    skew = least_error(*bounds)
    figures = {"reachable": True, "skew_seconds": skew}
    if abs(skew) > CLOCK_SECONDS:
        says = f"this machine is {abs(skew):,.0f} s {'ahead of' if skew > 0 else 'behind'} {where}"
        return Finding("clock", "warning", says, "Let it follow a time server: timedatectl set-ntp true.", figures)
    return Finding("clock", "ok", f"agrees with {where} to {max(abs(skew), 1):.0f} s", figures=figures)
