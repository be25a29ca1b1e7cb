"""An oracle asked in a process of its own: no memory, another hash seed, the clock of then, its files watched.

What a process reads while an oracle is built and asked: files, databases, hosts, other programs.
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
from engine.oracles.base import Oracle, weight_matrix
from engine.oracles.loading import bound_parameters, load_oracle
from engine.panel import Panel
from engine.weights import validate_weights

_CODE = (".py", ".pyc", ".pyd", ".so", ".dll", ".nbi", ".nbc")
#: Libraries whose files are opened by machine code, which Python does not see: what they are handed is looked at.
_READERS = frozenset({"pyarrow", "polars", "duckdb", "h5py", "fastparquet", "tables", "netCDF4", "zarr"})
_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn")
_INSTALLED = (
    *{os.path.realpath(place) + os.sep for place in (sys.prefix, sys.base_prefix, Path(__file__).parent.parent)},
    *("/proc/", "/sys/", "/dev/", "/etc/", "/usr/"),
)
_SHARED = "/dev/shm/"  # files in memory, which outlive a process
_LONGEST = 4096

_HASH_SEED = "20241"


@dataclass(frozen=True)
class ProcessResult:
    """What an oracle said in a process of its own.

    Attributes
    ----------
    weights : ndarray, (D, N), or None
        None when it refused, as `refusal` says.
    reads : tuple of str
        What it read (:func:`engine.lookahead.subprocess_run.watched`), and files and folders that its parameters name.
    """

    weights: np.ndarray | None
    refusal: str
    reads: tuple[str, ...]


def run_in_subprocess(
    path: str, parameters: Mapping[str, Any], panel: Panel, decisions: pd.DatetimeIndex
) -> ProcessResult:
    """Build the oracle of `path` in a new process, whose clock stands at the last of `decisions`, and ask it for them.

    Raises
    ------
    OracleError
        When the process dies.
    """
    with tempfile.TemporaryDirectory(prefix="hlbt-fresh-") as folder:
        job, answer = Path(folder) / "job.pickle", Path(folder) / "answer.pickle"
        job.write_bytes(pickle.dumps((path, dict(parameters), panel, decisions), protocol=5))
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from engine.lookahead.subprocess_run import work; work(sys.argv[1])",
                folder,
            ],
            env={
                **os.environ,
                "PYTHONHASHSEED": _HASH_SEED,
                "PYTHONPATH": os.pathsep.join(part or os.getcwd() for part in sys.path),
            },
            capture_output=True,
            check=False,
        )
        if done.returncode != 0 or not answer.is_file():
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["without a word"]
            raise OracleError(f"In a process of its own {path} ends with code {done.returncode}: {last[0]}.")
        told: ProcessResult = pickle.loads(answer.read_bytes())
        return told


def work(folder: str) -> None:
    """The other process: read the job of `folder`, ask, write the answer there."""
    path, parameters, panel, decisions = pickle.loads((Path(folder) / "job.pickle").read_bytes())
    panel = replace(panel)  # read-only again, which pickle does not keep
    weights, refusal = None, ""
    with watched() as reads, clock_at(decisions[-1]):
        try:
            oracle = load_oracle(path, parameters)
            # What a C library opens is not seen; a parameter that names it is.
            values = [*bound_parameters(type(oracle), parameters).values(), *declared_files(oracle)]
            reads |= {os.path.realpath(value): None for value in values if names_a_file(value)}
            weights = validate_weights(weight_matrix(oracle, panel, decisions), panel)[1]
        except HlbtError as error:
            refusal = str(error)
    (Path(folder) / "answer.pickle").write_bytes(
        pickle.dumps(ProcessResult(weights, refusal, tuple(reads)), protocol=5)
    )


def declared_files(oracle: Oracle) -> tuple[Path, ...]:
    """Data files that an oracle and the oracles it is made of say they read."""
    return tuple(dict.fromkeys([*oracle.files(), *(file for part in oracle.parts() for file in declared_files(part))]))


@contextmanager
def watched() -> Iterator[dict[str, None]]:
    """Names of what is read; an audit hook stays for the life of its process, so only a short-lived one sets it.

    Left out are code, installed packages and the system's own files, what is only written, and files that came into
    being here. A C library that opens a file by itself is not seen, but for what the known readers are handed.
    """
    reads: dict[str, None] = {}
    made: set[str] = set()
    watching = True

    def note(value: Any, folders: bool = False) -> None:
        name = _name_of(value)
        if not name or name in made or name.endswith(_CODE) or _is_installed(name):
            return
        if os.path.isfile(name) or (folders and os.sep in os.fsdecode(value) and os.path.isdir(name)):
            reads[name] = None

    def opened(value: Any, flags: int) -> None:
        name = _name_of(value)
        if flags & os.O_CREAT and name and not os.path.exists(name):
            made.add(name)
        elif flags & (os.O_WRONLY | os.O_RDWR) != os.O_WRONLY:
            note(value)

    def called(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and str(frame.f_globals.get("__name__")).partition(".")[0] in _READERS:
            for value in list(frame.f_locals.values()):
                for item in value if isinstance(value, list | tuple) else (value,):
                    note(item, folders=True)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not watching:
            return
        if event == "open":
            opened(arguments[0], arguments[2])
        elif event == "os.rename" and _name_of(arguments[0]) in made:
            made.add(_name_of(arguments[1]))
        elif event == "sqlite3.connect" and arguments[0] not in (":memory:", b":memory:", ""):
            reads[os.fsdecode(arguments[0])] = None
        elif event == "socket.connect":
            reads[f"the network at {arguments[1]}"] = None
        elif event in _PROGRAMS and not _is_installed(_caller()):
            reads[f"another program ({event})"] = None

    sys.addaudithook(hook)
    threading.setprofile(called)
    sys.setprofile(called)
    try:
        yield reads
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        watching = False


def names_a_file(value: Any) -> bool:
    """Whether a parameter is the path of a file or folder that is there."""
    if not isinstance(value, str | Path) or not (name := _name_of(value)):
        return False
    return os.path.isfile(name) or (os.sep in str(value) and os.path.isdir(name))


def _name_of(value: Any) -> str:
    """The real path of what may be one, else empty."""
    if not isinstance(value, str | bytes | os.PathLike):
        return ""
    name = os.fsdecode(value)
    return "" if len(name) > _LONGEST or "\0" in name else os.path.realpath(name)


def _is_installed(name: str) -> bool:
    """Whether a path is of the engine, an installed package or the system."""
    return name.startswith(_INSTALLED) and not name.startswith(_SHARED)


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
