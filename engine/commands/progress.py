"""Output of the commands: progress bars and status on standard error, texts, tables and JSON on standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

#: Called with (done, total, description).
Progress = Callable[[int, int, str], None]


@contextmanager
def _bar(*columns: Any, text: str = "", total: int | None = None, most: int = 200) -> Iterator[Progress]:
    """A bar with `columns` on standard error, removed when done; no output at all where that is not a terminal.

    Texts are cut to their last `most` characters.
    """
    from rich import progress as parts
    from rich.console import Console

    console = Console(stderr=True)
    shown = (parts.TextColumn("{task.description}"), parts.BarColumn(), *columns, parts.TimeRemainingColumn())
    with parts.Progress(*shown, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(text, total=total)
        yield lambda done, total, text: bar.update(task, completed=done, total=total, description=text[-most:])


def progress() -> AbstractContextManager[Progress]:
    """A progress bar on standard error: call it with (done, total, description)."""
    from rich.progress import MofNCompleteColumn

    return _bar(MofNCompleteColumn())


def sweep_progress() -> AbstractContextManager[Progress]:
    """A progress bar on standard error with sets per second: call it with (done, total, description)."""
    from rich import progress as parts

    class Rate(parts.ProgressColumn):
        def render(self, task: parts.Task) -> str:
            return f"{task.speed:,.0f} a second" if task.speed else ""

    count = parts.TextColumn("{task.completed:,.0f}/{task.total:,.0f}")
    return _bar(count, Rate(), text="planning the sets", total=1)


def byte_progress() -> AbstractContextManager[Progress]:
    """A progress bar of bytes on standard error, with speed and time left: call it with (done, total, description)."""
    from rich.progress import DownloadColumn, TransferSpeedColumn

    return _bar(DownloadColumn(), TransferSpeedColumn(), most=44)


@contextmanager
def waiting(message: str) -> Iterator[None]:
    """Show a message on standard error during a wait; nothing where that is not a terminal."""
    from rich.console import Console

    with Console(stderr=True).status(message):
        yield


def show_all(*parts: Any) -> None:
    """Print texts, without markup, and tables."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for part in parts:
        console.print(part, markup=False) if isinstance(part, str) else console.print(part)


def print_json(value: Any) -> None:
    """Print `value` as JSON on standard output."""
    from engine.provenance import to_json

    sys.stdout.write(to_json(value))
