"""Where the tasks of a sweep run: threads of this process, or a Ray cluster. The numbers are the same to the bit."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Protocol

from engine.errors import ConfigError, DataError, HlbtError
from engine.oracles.fingerprint import is_of_file
from engine.panel import Panel
from engine.provenance import code_digest
from engine.sweeps.tasks import Outcome, Task, Workspace, run_task

#: Tasks handed out at once, a worker: enough that none waits, few enough that memory stays bounded.
IN_FLIGHT = 2
#: Times that Ray runs a task again whose worker was lost.
RETRIES = 5
#: How long a cluster's address may take to answer.
REACH_SECONDS = 5.0


class Executor(Protocol):
    """Runs tasks on a panel and hands over what they leave, in any order, as it comes."""

    def run(self, panel: Panel, tasks: Iterator[Task]) -> Iterator[Outcome]:
        """Draw tasks as workers become free; what was drawn and not handed over is lost when the caller stops."""
        ...


@dataclass(frozen=True)
class Threads:
    """Threads of this process; the kernel runs outside the interpreter's lock.

    Attributes
    ----------
    workers : int or None
        Default: one a processor.
    """

    workers: int | None = None

    def run(self, panel: Panel, tasks: Iterator[Task]) -> Iterator[Outcome]:
        """See :class:`Executor`."""
        workers = self.workers or os.cpu_count() or 1
        space = Workspace(panel)
        pending: set[Future[Outcome]] = set()
        with ThreadPoolExecutor(workers) as pool:
            try:
                for task in tasks:
                    pending.add(pool.submit(run_task, space, task))
                    if len(pending) >= IN_FLIGHT * workers:
                        done, pending = wait(pending, return_when=FIRST_COMPLETED)
                        yield from (future.result() for future in done)
                while pending:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            finally:
                for future in pending:
                    future.cancel()


@dataclass(frozen=True)
class Ray:
    """A Ray cluster: the panel is put there once, and tasks whose worker is lost run again elsewhere.

    Every node needs this version of hlbt and what the oracle imports.

    Attributes
    ----------
    address : str or None
        Of the cluster, ``host:port`` or ``auto``; None starts one on this machine.
    workers : int or None
        Tasks at once; default: the processors of the cluster.
    """

    address: str | None = None
    workers: int | None = None

    def run(self, panel: Panel, tasks: Iterator[Task]) -> Iterator[Outcome]:
        """See :class:`Executor`.

        Raises
        ------
        ConfigError
            When Ray is not installed.
        DataError
            When the cluster cannot be reached or is lost, or a node has another version of the engine.
        """
        ray = _ray()
        started = not ray.is_initialized()
        if started:
            self._connect(ray)
        try:
            yield from self._run(ray, panel, tasks)
        except ray.exceptions.RayError as error:
            if isinstance(cause := getattr(error, "cause", None), HlbtError):
                raise cause from error  # a worker could not write its results
            raise DataError(
                f"The Ray cluster failed: {type(error).__name__}: {_last_line(error)}. What was finished is kept; run "
                "the command again to go on, or without --executor ray."
            ) from error
        finally:
            if started:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
        if self.address is None:
            options["num_cpus"] = self.workers
        else:
            options = {"address": self.address, "log_to_driver": False, "logging_level": "ERROR"}
        try:
            if self.address is not None and ":" in self.address and "//" not in self.address:
                # Ray itself would go on knocking for minutes.
                host, _, port = self.address.rpartition(":")
                socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
            ray.init(**options)
        except (ConnectionError, ValueError, RuntimeError, OSError, ray.exceptions.RayError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            cure = "start it with `ray start --head`, correct --address, or run without --executor ray."
            if "AuthenticationError" in f"{error!r} {error.__cause__!r}":
                reason = "it asks for a token, and has got none or another"
                cure = "set RAY_AUTH_MODE=token, with the token of the head in ~/.ray/auth_token, and run again."
            raise DataError(
                f"The Ray cluster at {self.address or 'this machine'} cannot be reached: {reason}. Nothing is lost: "
                f"{cure}"
            ) from error

    def _run(self, ray: Any, panel: Panel, tasks: Iterator[Task]) -> Iterator[Outcome]:
        shared = ray.put(panel)
        # Retried when a worker is lost, not when it raises: what an oracle raises is recorded by the task itself.
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(_run_remote)
        cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
        # Of a cluster that others started, no more are handed out than may run at once.
        most = self.workers if self.workers and self.workers < cpus else IN_FLIGHT * cpus
        pending: list[Any] = []
        for task in tasks:
            for module in {base.__module__ for base in task.kind.__mro__ if is_of_file(base.__module__)}:
                # A worker cannot import what has no name but that of a file here.
                ray.cloudpickle.register_pickle_by_value(sys.modules[module])
            pending.append(remote.remote(shared, panel.digest, code_digest(), task))
            if len(pending) >= most:
                done, pending = ray.wait(pending, num_returns=1)
                yield from ray.get(done)
        while pending:
            done, pending = ray.wait(pending, num_returns=1)
            yield from ray.get(done)


#: Workspaces of this worker process, by digest of the panel; one is kept.
_SPACES: dict[str, Workspace] = {}


def _run_remote(panel: Panel, digest: str, code: str, task: Task) -> Outcome:
    if code_digest() != code:
        raise RuntimeError("this node has another version of hlbt than the one that started the sweep")
    if digest not in _SPACES:
        _SPACES.clear()
        _SPACES[digest] = Workspace(panel)
    return run_task(_SPACES[digest], task)


def _last_line(error: Exception) -> str:
    """What went wrong: the last line of the traceback of another process, without its colours."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else "without a word"


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "--executor ray needs Ray, which is not installed: pip install 'hlbt[cluster]'; or run without it."
        ) from error
    return ray


#: Names on the command line.
EXECUTORS: dict[str, Callable[[str | None, int | None], Executor]] = {
    "threads": lambda _, workers: Threads(workers),
    "ray": lambda address, workers: Ray(address, workers),
}
