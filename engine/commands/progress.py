"""What a command writes while it works and when it is done: bars, texts, JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: (done, total, what is being done)
Progress = Callable[[int, int, str], None]


def _watched() -> dict[str, Any]:
    """Of a bar: on standard error, gone when done, and nothing at all, not even an empty line, where nobody watches."""
    from rich.console import Console

    console = Console(stderr=True)
    return {"console": console, "transient": True, "disable": not console.is_terminal}


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress bar on standard error: call it with (done, total, what)."""
    from rich import progress as parts

    with parts.Progress(
        parts.TextColumn("{task.description}"),
        parts.BarColumn(),
        parts.MofNCompleteColumn(),
        parts.TimeRemainingColumn(),
        **_watched(),
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)


@contextmanager
def sweep_progress() -> Iterator[Progress]:
    """A progress bar on standard error with the rate in sets a second: call it with (done, total, what)."""
    from rich import progress as parts

    class Rate(parts.ProgressColumn):
        def render(self, task: parts.Task) -> str:
            return f"{task.speed:,.0f} a second" if task.speed else ""

    with parts.Progress(
        parts.TextColumn("{task.description}"),
        parts.BarColumn(),
        parts.TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        Rate(),
        parts.TimeRemainingColumn(),
        **_watched(),
    ) as bar:
        task = bar.add_task("planning the sets", total=1)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say on standard error what is waited for, while it is; nothing where nobody watches."""
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


@contextmanager
def byte_progress() -> Iterator[Progress]:
    """A progress bar of bytes on standard error, with speed and time left: call it with (done, total, what)."""
    from rich import progress as parts

    with parts.Progress(
        parts.TextColumn("{task.description}"),
        parts.BarColumn(),
        parts.DownloadColumn(),
        parts.TransferSpeedColumn(),
        parts.TimeRemainingColumn(),
        **_watched(),
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what[-44:])


def show_all(*parts: Any) -> None:
    """Print texts as they are and tables as tables."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for part in parts:
        console.print(part, markup=False) if isinstance(part, str) else console.print(part)


def print_json(value: Any) -> None:
    """Print `value` as JSON on standard output."""
    from engine.provenance import to_json

    sys.stdout.write(to_json(value))
