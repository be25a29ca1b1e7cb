"""Run an oracle in a new process: no memory, another hash seed, the clock of then, no data file that it did not write.

Watched are files, databases, hosts and other programs, from building the oracle to its weights.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pandas as pd

from engine.errors import HlbtError, OracleError, join_first
from engine.lookahead.frozen_clock import clock_at
from engine.lookahead.hidden_files import HiddenFiles
from engine.lookahead.paths import constructed, path_of_scores, scores_of, weights_along
from engine.oracles.base import Oracle, call_fetch_weights, oracle_errors, weight_matrix
from engine.oracles.fingerprint import installed_paths
from engine.oracles.loading import bound_parameters, build_oracle, data_files, oracle_class
from engine.panel import Panel, read_only
from engine.weights import align_coins

_CODE = (".py", ".pyc", ".nbi", ".nbc")  # a library is not opened by Python's calls
#: What every library may read that lists the installed packages; entry points, for example, of all of them.
_METADATA = (".dist-info", ".egg-info")
#: Libraries that open files in machine code, where Python's audit events do not see it: their arguments are looked at.
_READERS = frozenset({"pyarrow", "polars", "duckdb", "h5py", "fastparquet", "tables", "netCDF4", "zarr"})
_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn")
#: Modules of the standard library that ask other programs what machine this is.
_MACHINE = frozenset({"platform", "uuid", "ctypes.util"})
_SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/")
_SHARED_MEMORY = "/dev/shm/"  # files there outlive a process
_MAX_PATH = 4096
_HASH_SEED = "20241"
_WORKER = "import sys; from engine.lookahead.subprocess_run import work; work(sys.argv[1])"
#: Seconds between two looks at how far the process is.
_POLL = 0.1


@dataclass(frozen=True)
class Job:
    """What a new process computes.

    Attributes
    ----------
    path, parameters
        Of the oracle.
    panel : Panel
        As known.
    decisions : DatetimeIndex, (D,)
        Ascending.
    live : bool
        Each decision alone, oldest first, on the data up to it, by one instance, as a live run calls it; else all
        decisions at once on the whole panel.
    visible : tuple of str
        Real paths of the data files that it may read from the beginning.
    schedule : DatetimeIndex, optional
        Every decision, of which `decisions` are some: of a path-dependent oracle, which is called for all up to each.
    """

    path: str
    parameters: Mapping[str, Any]
    panel: Panel
    decisions: pd.DatetimeIndex
    live: bool = False
    visible: tuple[str, ...] = ()
    schedule: pd.DatetimeIndex | None = None


@dataclass(frozen=True)
class ProcessResult:
    """The outcome of a run in a process of its own.

    Attributes
    ----------
    weights : ndarray, (D, N)
        NaN where the oracle failed.
    errors : mapping of int to str
        Row of each decision at which it failed, and why.
    reads : tuple of str
        What it read (:func:`watched`), and what its parameters name and it did not write.
    missed : tuple of str
        Files that exist, that it looked for and did not write: they were hidden from it.
    """

    weights: np.ndarray
    errors: Mapping[int, str] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()


def run_in_subprocess(job: Job, environment: Mapping[str, str], report: Callable[[int], object]) -> ProcessResult:
    """Weights of an oracle from a new process.

    Parameters
    ----------
    job : Job
    environment : mapping
        Environment variables.
    report : callable
        Called with the number of decisions done.

    Raises
    ------
    OracleError
        When the process dies.
    """
    with tempfile.TemporaryDirectory(prefix="hlbt-fresh-") as name:
        folder = Path(name)
        (folder / "job.pickle").write_bytes(pickle.dumps(job, protocol=5))
        import_path = os.pathsep.join(part or os.getcwd() for part in sys.path)
        with (folder / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-c", _WORKER, name],
                env={**environment, "PYTHONHASHSEED": _HASH_SEED, "PYTHONPATH": import_path},
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
            try:
                while process.poll() is None:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(_POLL)
                    progress = folder / "progress"
                    report(progress.stat().st_size if progress.is_file() else 0)
            finally:
                process.kill()
                process.wait()
        if process.returncode != 0 or not (folder / "result.pickle").is_file():
            last = (folder / "stderr").read_text(errors="replace").strip().splitlines()[-1:] or ["no error message"]
            raise OracleError(f"In a process of its own {job.path} ends with code {process.returncode}: {last[0]}.")
        result: ProcessResult = pickle.loads((folder / "result.pickle").read_bytes())
        return result


def work(folder: str) -> None:
    """Entry point of the new process: read the job in `folder`, run it, write the result there."""
    job: Job = pickle.loads((Path(folder) / "job.pickle").read_bytes())
    # Read-only again, which pickle does not keep; what an oracle hung on a coin is not handed on.
    panel = replace(job.panel, table=tuple(replace(coin) for coin in job.panel.table))
    real = os.path.realpath(folder)
    weights, errors = np.full((len(job.decisions), len(panel.coins)), np.nan), dict[int, str]()
    hidden = HiddenFiles(os.path.join(real, "files"), [real, *job.visible], _is_data)
    named: list[str] = []
    with watched(hidden) as reads, hidden.hiding(), clock_at(job.decisions[0]) as set_clock:
        try:
            set_clock(job.decisions[0 if job.live else -1])
            oracle, named = _build(job, hidden)
            if job.live:
                _weigh_live(oracle, job, panel, weights, errors, set_clock, os.path.join(real, "progress"))
            else:
                weights = align_coins(weight_matrix(oracle, panel, job.decisions, may_hold=True), panel)
        except HlbtError as error:
            errors = dict.fromkeys(range(len(job.decisions)), str(error))
    written = hidden.written()
    unwritten = [name for name in named if not any(own == name or own.startswith(name + os.sep) for own in written)]
    # What dbm writes has an ending of its own.
    unwritten += [name for name in hidden.databases if not any(f"{own}.".startswith(f"{name}.") for own in written)]
    missed = tuple(name for name in hidden.missed if name not in written)
    result = ProcessResult(weights, errors, tuple(dict.fromkeys([*reads, *unwritten])), missed)
    (Path(folder) / "result.pickle").write_bytes(pickle.dumps(result, protocol=5))


def _build(job: Job, hidden: HiddenFiles) -> tuple[Oracle, list[str]]:
    """The oracle, and real paths of the files and folders that its parameters and ``files`` name.

    They are visible where it, or a part of it, may say by ``as_of`` what of them was published.
    """
    kind = oracle_class(job.path)
    with hidden.paused():
        values = bound_parameters(kind, job.parameters).values()
        named = [os.path.realpath(value) for value in values if names_a_file(value)]
    if kind.as_of is not Oracle.as_of or kind.oracle_parameters:
        hidden.visible += tuple(named)
    oracle = build_oracle(kind, job.parameters)
    with hidden.paused():
        own = [os.path.realpath(file) for file in data_files(oracle)]
    hidden.visible += tuple(own)
    return oracle, [*named, *own]


def _weigh_live(
    oracle: Oracle,
    job: Job,
    panel: Panel,
    weights: np.ndarray,
    errors: dict[int, str],
    set_clock: Callable[[pd.Timestamp], None],
    progress: str,
) -> None:
    """Fill `weights` and `errors` decision by decision; the arrays of the panel are filled as time goes on, too."""
    fields = {name: np.full_like(values, np.nan) for name, values in panel.fields.items()}
    tradable, start = np.zeros_like(panel.tradable), 0
    unfolding = replace(panel, fields=fields, tradable=tradable)  # views of what is filled below
    object.__setattr__(unfolding, "tradable", read_only(tradable))
    along = None if job.schedule is None else _Path(job.schedule, panel.coins)
    with open(progress, "ab", buffering=0) as done:
        for number, (instant, row) in enumerate(zip(job.decisions, panel.rows(job.decisions), strict=True)):
            new, start = slice(start, int(row) + 1), int(row) + 1
            for name, values in panel.fields.items():
                fields[name][new] = values[new]
            tradable[new] = panel.tradable[new]
            past = unfolding.until(instant)
            set_clock(instant)
            try:
                weights[number] = weights_at(oracle, instant, past) if along is None else along.last(oracle, past)
            except HlbtError as error:
                errors[number] = str(error)
            done.write(b".")


class _Path:
    """The decisions of a path-dependent oracle as time goes on; scores of earlier ones are kept, where it has some."""

    def __init__(self, schedule: pd.DatetimeIndex, coins: Sequence[str]) -> None:
        self.schedule, self.done = schedule, 0
        self.scores = pd.DataFrame(np.nan, index=schedule, columns=list(coins))

    def last(self, oracle: Oracle, past: Panel) -> np.ndarray:
        """Weights of the newest decision of the panel, (N,)."""
        stop = int(self.schedule.searchsorted(past.index[-1])) + 1
        if not path_of_scores(oracle):
            return weights_along(oracle, past, self.schedule, np.array([stop - 1]))[0]
        self.scores.iloc[self.done : stop] = scores_of(oracle, past, self.schedule[self.done : stop])
        self.done = stop
        return constructed(oracle, past, self.scores.iloc[:stop])[-1]


def weights_at(oracle: Oracle, instant: pd.Timestamp, panel: Panel) -> np.ndarray:
    """Weights of one decision in the panel's columns, (1, N), as a live run calls for them; absent = 0.

    Raises
    ------
    OracleError
        When the oracle fails, or names a coin that the panel lacks.
    """
    tradable = panel.tradable[int(panel.rows(pd.DatetimeIndex([instant]))[0])]
    universe = [coin for coin, trades in zip(panel.coins, tradable, strict=True) if trades]
    with oracle_errors("fetch_portfolio_weights failed"):
        weights = call_fetch_weights(oracle, instant, universe, panel)
        values = np.array([[float(weights.pop(coin, 0.0)) for coin in panel.coins]])
    if weights:
        raise OracleError(f"fetch_portfolio_weights names coins that the panel lacks: {join_first(weights)}.")
    return values


@contextmanager
def watched(hidden: HiddenFiles) -> Iterator[dict[str, None]]:
    """Names of what is read while the context lasts, as the keys of a dict that fills.

    Left out are code, the interpreter, installed packages and the system's own files, files that are only written, and
    files that the oracle made. A C library that opens a file by itself is not seen, but for the arguments of known
    readers. An audit hook stays for the life of its process, so this is for short-lived ones.
    """
    reads: dict[str, None] = {}
    watching = True

    def add(value: Any, folders: bool = False) -> None:
        name = _real_path(value)
        if not name or not hidden.is_foreign(name):
            return
        if os.path.isfile(name) or (folders and os.sep in os.fsdecode(value) and os.path.isdir(name)):
            reads[name] = None

    def on_call(frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        module = str(frame.f_globals.get("__name__"))
        if module == "multiprocessing.shared_memory":
            if frame.f_code.co_name == "__init__" and not frame.f_locals.get(
                "create"
            ):  # of another process, maybe gone
                reads[f"the shared memory {frame.f_locals.get('name')}"] = None
        elif module.partition(".")[0] in _READERS:
            with hidden.paused():
                for value in list(frame.f_locals.values()):
                    for item in value if isinstance(value, list | tuple) else (value,):
                        add(item, folders=True)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not watching:
            return
        if event == "open":
            if arguments[2] & (os.O_WRONLY | os.O_RDWR) != os.O_WRONLY:
                with hidden.paused():
                    add(arguments[0])
        elif event == "socket.connect":
            reads[f"the network at {arguments[1]}"] = None
        elif event in _PROGRAMS:
            with hidden.paused():
                if not _caller().startswith(_installed()):
                    reads[f"another program ({event})"] = None

    sys.addaudithook(hook)
    threading.setprofile(on_call)
    sys.setprofile(on_call)
    try:
        yield reads
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        watching = False


@cache
def _installed() -> tuple[str, ...]:
    """Prefixes of paths of the interpreter, the installed packages, the engine and the system."""
    folders = (sys.prefix, sys.base_prefix, Path(__file__).parent.parent)
    return (*installed_paths(), *(os.path.realpath(folder) + os.sep for folder in folders), *_SYSTEM)


def _is_data(name: str) -> bool:
    """Whether a real path is neither code nor the system's, the interpreter's or a package's."""
    if name.endswith(_CODE) or os.path.dirname(name).endswith(_METADATA):
        return False
    return not name.startswith(_installed()) or name.startswith(_SHARED_MEMORY)


def names_a_file(value: Any) -> bool:
    """Whether a parameter is the path of an existing file or folder."""
    if not isinstance(value, str | Path) or not (name := _real_path(value)):
        return False
    return os.path.isfile(name) or (os.sep in str(value) and os.path.isdir(name))


def _real_path(value: Any) -> str:
    """The real path of a value that may be one, else empty."""
    if not isinstance(value, str | bytes | os.PathLike):
        return ""
    name = os.fsdecode(value)
    return "" if len(name) > _MAX_PATH or "\0" in name else os.path.realpath(name)


def _caller() -> str:
    """File of the innermost frame outside this module and the standard library."""
    library = sysconfig.get_path("stdlib")
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = os.path.realpath(frame.f_code.co_filename)
        standard = name.startswith(library) and "site-packages" not in name
        standard = standard and frame.f_globals.get("__name__") not in _MACHINE
        if name != os.path.realpath(__file__) and not standard and not frame.f_code.co_filename.startswith("<frozen"):
            return name
        frame = frame.f_back
    return ""
