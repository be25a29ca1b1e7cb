"""Tearsheets made in parallel by worker processes, while the command goes on."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver, get_context, parent_process, resource_tracker
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from engine.errors import DataError

if TYPE_CHECKING:
    from engine.reporting.quantstats_part import Part, PartInputs

#: Loaded once, before the workers are forked: QuantStats takes longer to load than to draw. A whole page needs more.
_PART = ("engine.reporting.quantstats_part", "matplotlib.pyplot", "seaborn", "quantstats.reports")
_PAGE = (*_PART, "engine.reporting.tearsheet")
#: Processes that share QuantStats' part at most: it has ten charts, and each process sets itself up.
_SHARES = 4
#: In a worker: the command was interrupted.
_ENDED = threading.Event()


class TearsheetPool:
    """Worker processes that make tearsheets of run folders; a context, at whose end no process is left.

    Parameters
    ----------
    on_first : callable
        Called with the path of the first page as soon as it is written, from another thread.
    whole : bool
        Whether the workers make whole pages; without it they are ready for QuantStats' part alone, and sooner.
    """

    def __init__(self, on_first: Callable[[Path], object] = lambda _page: None, whole: bool = True) -> None:
        self._on_first = on_first
        self._libraries, self._behind = list(_PAGE if whole else _PART), not whole
        self._pages: dict[Path, Future[Path]] = {}

    def __enter__(self) -> TearsheetPool:
        self._started = False
        try:
            with _interrupts_later():
                self._start()
        except BaseException:  # then the context is not entered, so nothing else would end it
            self._end_server()
            raise
        return self

    def _start(self) -> None:
        # On other systems, system libraries may not survive a fork.
        method = "forkserver" if sys.platform == "linux" else "spawn"
        if method == "forkserver":
            # Ctrl-C reaches every process of a terminal; only this one answers it. The tracker, which the server
            # would start, unblocks the signal again, so it is started before.
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                forkserver.set_forkserver_preload(self._libraries)
                before = _server()
                forkserver.ensure_running()  # returns before the libraries are loaded
                self._started = _server() != before
                if self._behind and self._started and (server := _server()):
                    # Where cores are few, the run that is waited for goes first.
                    os.setpriority(os.PRIO_PROCESS, server, min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5))
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self._pool = ProcessPoolExecutor(os.cpu_count() or 1, get_context(method), _start_worker)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _interrupts_later():
            if error is not None:  # nobody waits for the pages in progress
                for worker in list(self._pool._processes.values()):
                    worker.terminate()
            self._pool.shutdown(cancel_futures=True)
            if error is not None:
                self._end_server()

    def _end_server(self) -> None:
        """End the server that this pool started.

        It would load its libraries to the end, and whoever reads what the command prints would wait for it.
        """
        if self._started and (server := _server()):
            os.kill(server, signal.SIGKILL)
            # A later pool asks whether it has ended, before it starts one of its own: it must have by then.
            os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)

    def submit(self, folder: Path) -> None:
        """Queue the tearsheet of a run folder."""
        with _interrupts_later():
            page = self._pool.submit(_tearsheet, folder)
        if not self._pages:
            page.add_done_callback(
                lambda made: None if made.cancelled() or made.exception() else self._on_first(made.result())
            )
        self._pages[folder] = page

    def quantstats(self, inputs: PartInputs) -> Callable[[], Part]:
        """Have QuantStats' part made by all workers together; what is returned waits for it.

        This waits until the libraries are loaded.
        """
        count = min(os.cpu_count() or 1, _SHARES)
        with _interrupts_later():
            shares = [self._pool.submit(_quantstats, inputs, (number, count)) for number in range(count)]
        return lambda: _joined(shares)

    def wait(self) -> None:
        """Wait until all queued pages are written.

        Raises
        ------
        HlbtError
            Whatever making a page raised, or for a worker that was killed.
        """
        for folder, page in self._pages.items():
            try:
                page.result()
            except BrokenProcessPool as error:
                raise DataError(
                    f"The process that made the tearsheet of {folder} was killed from outside, as happens when memory "
                    f"runs out. The run is saved; `hlbt report {folder}` makes its page."
                ) from error


def _server() -> int | None:
    """Process that the workers were last forked from, whichever pool started it, ended or not; None without one."""
    return getattr(forkserver._forkserver, "_forkserver_pid", None)


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Let Ctrl-C take effect at the end: nobody would wait for a worker whose start, or whose end, was interrupted.

    It would start once the server has loaded its libraries, and find nothing left of the pool.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if came:
        signal.raise_signal(signal.SIGINT)


def _start_worker() -> None:
    """Set up a worker: the terminal does not interrupt it, and it exits when the command does, however that ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    command = parent_process()
    assert command is not None

    def exit_with_command() -> None:
        command.join()
        os._exit(1)

    threading.Thread(target=exit_with_command, daemon=True).start()
    # Last: a worker that is ended while it is set up has no page in progress, and would show a traceback.
    signal.signal(signal.SIGTERM, _end_page)


def _end_page(*_: object) -> None:
    """End the page in progress, which removes its temporary files, and every later one of this worker."""
    _ENDED.set()
    raise SystemExit


def _quantstats(inputs: PartInputs, share: tuple[int, int]) -> Part:
    if _ENDED.is_set():
        raise SystemExit
    from engine.reporting.quantstats_part import quantstats_part

    return quantstats_part(inputs.returns, inputs.benchmark, inputs.window, share)


def _joined(shares: list[Future[Part]]) -> Part:
    from engine.reporting.quantstats_part import Part, joined

    try:
        return joined([share.result() for share in shares])
    except BrokenProcessPool:
        return Part(reason="the process that made it was killed from outside, as happens when memory runs out.")


def _tearsheet(folder: Path) -> Path:
    if _ENDED.is_set():
        raise SystemExit
    from engine.reporting.tearsheet import write_tearsheet
    from engine.runs import load_run

    return write_tearsheet(load_run(folder))
