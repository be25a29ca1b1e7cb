"""An oracle asked in a process of its own: no memory, another hash seed, the clock of then, its files watched."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.errors import HlbtError, OracleError
from engine.oracles.base import Oracle, weight_matrix
from engine.oracles.loading import bound_parameters, load_oracle
from engine.oracles.past import clock_at
from engine.oracles.watch import names_a_file, watched
from engine.panel import Panel
from engine.weights import validate_weights

_HASH_SEED = "20241"


@dataclass(frozen=True)
class Told:
    """What an oracle said in a process of its own.

    Attributes
    ----------
    weights : ndarray, (D, N), or None
        None when it refused, as `refusal` says.
    reads : tuple of str
        What it read (:func:`engine.oracles.watch.watched`), and files and folders that its parameters name.
    """

    weights: np.ndarray | None
    refusal: str
    reads: tuple[str, ...]


def ask_fresh(path: str, parameters: Mapping[str, Any], panel: Panel, decisions: pd.DatetimeIndex) -> Told:
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
    with watched() as reads, clock_at(decisions[-1]):
        try:
            oracle = load_oracle(path, parameters)
            # What a C library opens is not seen; a parameter that names it is.
            values = [*bound_parameters(type(oracle), parameters).values(), *declared_files(oracle)]
            reads |= {os.path.realpath(value): None for value in values if names_a_file(value)}
            weights = validate_weights(weight_matrix(oracle, panel, decisions), panel)[1]
        except HlbtError as error:
            refusal = str(error)
    (Path(folder) / "answer.pickle").write_bytes(pickle.dumps(Told(weights, refusal, tuple(reads)), protocol=5))


def declared_files(oracle: Oracle) -> tuple[Path, ...]:
    """Data files that an oracle and the oracles it is made of say they read."""
    return tuple(dict.fromkeys([*oracle.files(), *(file for part in oracle.parts() for file in declared_files(part))]))
