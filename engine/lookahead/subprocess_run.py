"""Run an oracle in a new process: no state of modules, another hash seed, the clock of then, what it reads watched.

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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pandas as pd

from engine.errors import HlbtError, OracleError
from engine.lookahead.frozen_clock import clock_at
from engine.oracles.base import weight_matrix
from engine.oracles.fingerprint import installed_paths
from engine.oracles.loading import bound_parameters, data_files, load_oracle
from engine.panel import Panel
from engine.weights import validate_weights

_CODE = (".py", ".pyc", ".pyd", ".so", ".dll", ".nbi", ".nbc")
#: What every library may read that lists the installed packages; entry points, for example, of all of them.
_METADATA = (".dist-info", ".egg-info")
#: Libraries that open files in machine code, where Python's audit events do not see it: their arguments are looked at.
_READERS = frozenset({"pyarrow", "polars", "duckdb", "h5py", "fastparquet", "tables", "netCDF4", "zarr"})
_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn")
_SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/")
_SHARED_MEMORY = "/dev/shm/"  # files there outlive a process
_MAX_PATH = 4096
_HASH_SEED = "20241"
_WORKER = "import sys; from engine.lookahead.subprocess_run import work; work(sys.argv[1])"


@dataclass(frozen=True)
class ProcessResult:
    """The outcome of a run in a process of its own.

    Attributes
    ----------
    weights : ndarray, (D, N), or None
        None when the oracle failed, for the reason in `error`.
    error : str
    reads : tuple of str
        What it read (:func:`watched`), and files and folders that its parameters name.
    """

    weights: np.ndarray | None
    error: str
    reads: tuple[str, ...]


def run_in_subprocess(
    path: str, parameters: Mapping[str, Any], panel: Panel, decisions: pd.DatetimeIndex
) -> ProcessResult:
    """Weights of the oracle of `path` from a new process whose clock is set to the last of `decisions`.

    Raises
    ------
    OracleError
        When the process dies.
    """
    with tempfile.TemporaryDirectory(prefix="hlbt-fresh-") as folder:
        job, output = Path(folder) / "job.pickle", Path(folder) / "result.pickle"
        job.write_bytes(pickle.dumps((path, dict(parameters), panel, decisions), protocol=5))
        import_path = os.pathsep.join(part or os.getcwd() for part in sys.path)
        done = subprocess.run(
            [sys.executable, "-c", _WORKER, folder],
            env={**os.environ, "PYTHONHASHSEED": _HASH_SEED, "PYTHONPATH": import_path},
            capture_output=True,
            check=False,
        )
        if done.returncode != 0 or not output.is_file():
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no error message"]
            raise OracleError(f"In a process of its own {path} ends with code {done.returncode}: {last[0]}.")
        result: ProcessResult = pickle.loads(output.read_bytes())
        return result


def work(folder: str) -> None:
    """Entry point of the new process: read the job in `folder`, run it, write the result there."""
    path, parameters, panel, decisions = pickle.loads((Path(folder) / "job.pickle").read_bytes())
    panel = replace(panel)  # read-only again, which pickle does not keep
    weights, reason = None, ""
    with watched() as reads, clock_at(decisions[-1]):
        try:
            oracle = load_oracle(path, parameters)
            # A file that a C library opens is not seen; a parameter that names it is.
            values = [*bound_parameters(type(oracle), parameters).values(), *data_files(oracle)]
            reads |= {os.path.realpath(value): None for value in values if names_a_file(value)}
            weights = validate_weights(weight_matrix(oracle, panel, decisions), panel)[1]
        except HlbtError as error:
            reason = str(error)
    result = ProcessResult(weights, reason, tuple(reads))
    (Path(folder) / "result.pickle").write_bytes(pickle.dumps(result, protocol=5))


@contextmanager
def watched() -> Iterator[dict[str, None]]:
    """Names of what is read while the context lasts, as the keys of a dict that fills.

    Left out are code, the interpreter, installed packages and the system's own files, files that are only written, and
    files created here. A C library that opens a file by itself is not seen, but for the arguments of known readers. An
    audit hook stays for the life of its process, so this is for short-lived ones.
    """
    reads: dict[str, None] = {}
    created: set[str] = set()
    watching = True
    installed = _installed()  # not in the hook, which a file that is opened for it would call again

    def is_installed(name: str) -> bool:
        return name.startswith(installed) and not name.startswith(_SHARED_MEMORY)

    def add(value: Any, folders: bool = False) -> None:
        name = _real_path(value)
        code = name.endswith(_CODE) or os.path.dirname(name).endswith(_METADATA)
        if not name or name in created or code or is_installed(name):
            return
        if os.path.isfile(name) or (folders and os.sep in os.fsdecode(value) and os.path.isdir(name)):
            reads[name] = None

    def on_open(value: Any, flags: int) -> None:
        name = _real_path(value)
        if flags & os.O_CREAT and name and not os.path.exists(name):
            created.add(name)
        elif flags & (os.O_WRONLY | os.O_RDWR) != os.O_WRONLY:
            add(value)

    def on_call(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and str(frame.f_globals.get("__name__")).partition(".")[0] in _READERS:
            for value in list(frame.f_locals.values()):
                for item in value if isinstance(value, list | tuple) else (value,):
                    add(item, folders=True)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not watching:
            return
        if event == "open":
            on_open(arguments[0], arguments[2])
        elif event == "os.rename" and _real_path(arguments[0]) in created:
            created.add(_real_path(arguments[1]))
        elif event == "sqlite3.connect" and arguments[0] not in (":memory:", b":memory:", ""):
            reads[os.fsdecode(arguments[0])] = None
        elif event == "socket.connect":
            reads[f"the network at {arguments[1]}"] = None
        elif event in _PROGRAMS and not is_installed(_caller()):
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


def _installed() -> tuple[str, ...]:
    """Prefixes of paths of the interpreter, the installed packages, the engine and the system."""
    folders = (sys.prefix, sys.base_prefix, Path(__file__).parent.parent)
    return (*installed_paths(), *(os.path.realpath(folder) + os.sep for folder in folders), *_SYSTEM)


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
        if name != os.path.realpath(__file__) and not standard and not frame.f_code.co_filename.startswith("<frozen"):
            return name
        frame = frame.f_back
    return ""
