"""Tearsheets made by other processes, side by side, while the command goes on."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, get_context, parent_process, resource_tracker
from pathlib import Path
from types import TracebackType

from engine.errors import DataError

#: Loaded once, before the processes part: what a page needs takes longer to load than the page to make.
_LIBRARIES = ["engine.reporting.tearsheet", "matplotlib.pyplot", "seaborn", "quantstats.reports"]


class Sheets:
    """Makes tearsheets of run folders; a context, at whose end no process is left.

    Parameters
    ----------
    first : callable
        Called with the first page as soon as it is there, from another thread.
    """

    def __init__(self, first: Callable[[Path], object] = lambda _page: None) -> None:
        self._first = first
        self._pages: dict[Path, Future[Path]] = {}

    def __enter__(self) -> Sheets:
        # Elsewhere system libraries may not bear a fork.
        method = "forkserver" if sys.platform == "linux" else "spawn"
        if method == "forkserver":
            # Ctrl-C reaches every process of a terminal; only this one answers it. The tracker, which the server
            # would start, unblocks the signal again, so it is started before.
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                forkserver.set_forkserver_preload(_LIBRARIES)
                forkserver.ensure_running()  # and does not wait until the libraries are loaded
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self._pool = ProcessPoolExecutor(os.cpu_count() or 1, get_context(method), _settle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)  # waits for the pages that are being made, seconds

    def make(self, folder: Path) -> None:
        """Have the page of a run folder made."""
        page = self._pool.submit(_tearsheet, folder)
        if not self._pages:
            page.add_done_callback(
                lambda made: None if made.cancelled() or made.exception() else self._first(made.result())
            )
        self._pages[folder] = page

    def wait(self) -> None:
        """Until all pages are there.

        Raises
        ------
        HlbtError
            What the making of a page raised.
        """
        for folder, page in self._pages.items():
            try:
                page.result()
            except BrokenProcessPool as error:
                raise DataError(
                    f"The process that made the tearsheet of {folder} was ended from outside, as a machine that is "
                    f"short of memory does. The run is kept; `hlbt report {folder}` makes its page."
                ) from error


def _settle() -> None:
    """Of a new process: not interrupted by the terminal, and gone when the command is, however that ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    command = parent_process()
    assert command is not None

    def follow() -> None:
        command.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _tearsheet(folder: Path) -> Path:
    from engine.reporting.tearsheet import write_tearsheet
    from engine.runs import load_run

    return write_tearsheet(load_run(folder))
