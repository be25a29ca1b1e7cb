"""An oracle asked in a process of its own: no memory of what it saw before, another hash seed, its files watched."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
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
from engine.oracle import Oracle, validate_weights, weight_matrix
from engine.oracles.build import bound_parameters, load_oracle
from engine.panel import Panel

_HASH_SEED = "20241"
_CODE = (".py", ".pyc", ".pyd", ".so", ".dll", ".pth", ".nbi", ".nbc")
#: Libraries whose files are opened by machine code, which Python does not see: what they are handed is looked at.
_READERS = frozenset({"pyarrow", "polars", "duckdb", "h5py", "fastparquet", "tables", "netCDF4", "zarr"})
_LONGEST = 4096
_SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/")


@dataclass(frozen=True)
class Told:
    """What an oracle said in a process of its own.

    Attributes
    ----------
    weights : ndarray, (D, N), or None
        None when it refused, as `refusal` says.
    reads : tuple of str
        Files that it opened or has as a parameter, its own code and installed packages left out, and hosts that it
        reached for: as far as Python sees it, and what it hands to the readers of parquet and the like (a C library
        that opens a file by itself is not seen).
    """

    weights: np.ndarray | None
    refusal: str
    reads: tuple[str, ...]


def ask_fresh(path: str, parameters: Mapping[str, Any], panel: Panel, decisions: pd.DatetimeIndex) -> Told:
    """Build the oracle of `path` in a new Python process, and ask it for the weights of `decisions`.

    Raises
    ------
    OracleError
        When the process dies.
    """
    with tempfile.TemporaryDirectory(prefix="hlbt-fresh-") as folder:
        job, answer = Path(folder) / "job.pickle", Path(folder) / "answer.pickle"
        job.write_bytes(pickle.dumps((path, dict(parameters), panel, decisions), protocol=5))
        done = subprocess.run(
            [sys.executable, "-c", "import sys; from engine.oracles.fresh import work; work(sys.argv[1])", folder],
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
        told: Told = pickle.loads(answer.read_bytes())
        return told


def work(folder: str) -> None:
    """The other process: read the job of `folder`, ask, write the answer there."""
    path, parameters, panel, decisions = pickle.loads((Path(folder) / "job.pickle").read_bytes())
    panel = replace(panel)  # read-only again, which pickle does not keep
    weights, refusal = None, ""
    with _watched() as reads:
        try:
            oracle = load_oracle(path, parameters)
            # What a C library opens is not seen; a parameter that names it is.
            values = [*bound_parameters(type(oracle), parameters).values(), *declared_files(oracle)]
            reads |= {os.path.realpath(v): None for v in values if isinstance(v, str | Path) and os.path.isfile(v)}
            weights = validate_weights(weight_matrix(oracle, panel, decisions), panel)[1]
        except HlbtError as error:
            refusal = str(error)
    (Path(folder) / "answer.pickle").write_bytes(pickle.dumps(Told(weights, refusal, tuple(reads)), protocol=5))


def declared_files(oracle: Oracle) -> tuple[Path, ...]:
    """Data files that an oracle and the oracles it is made of say they read; none where it says nothing."""
    own = tuple(oracle.files()) if hasattr(oracle, "files") else ()
    parts = oracle.parts() if hasattr(oracle, "parts") else ()
    return tuple(dict.fromkeys([*own, *(file for part in parts for file in declared_files(part))]))


@contextmanager
def _watched() -> Iterator[dict[str, None]]:
    """Names of what is opened; an audit hook stays for the life of its process, so only a short-lived one sets it."""
    reads: dict[str, None] = {}
    watching = True
    engine = Path(__file__).parent.parent
    ours = tuple({os.path.realpath(place) + os.sep for place in (sys.prefix, sys.base_prefix, engine)})

    def note(value: Any, folders: bool = False) -> None:
        if (
            not isinstance(value, str | bytes | os.PathLike)
            or len(os.fspath(value)) > 4096
            or "\0" in os.fsdecode(value)
        ):
            return
        name = os.path.realpath(os.fsdecode(value))
        if name.endswith(_CODE) or name.startswith((*ours, *_SYSTEM)):
            return
        if os.path.isfile(name) or (folders and os.sep in os.fsdecode(value) and os.path.isdir(name)):
            reads[name] = None

    def called(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and str(frame.f_globals.get("__name__")).partition(".")[0] in _READERS:
            for value in list(frame.f_locals.values()):
                for item in value if isinstance(value, list | tuple) else (value,):
                    note(item, folders=True)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not watching:
            return
        if event == "open":
            note(arguments[0])
        elif event == "sqlite3.connect":
            reads[os.fsdecode(arguments[0])] = None
        elif event == "socket.connect":
            reads[f"the network at {arguments[1]}"] = None

    sys.addaudithook(hook)
    threading.setprofile(called)
    sys.setprofile(called)
    try:
        yield reads
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        watching = False
