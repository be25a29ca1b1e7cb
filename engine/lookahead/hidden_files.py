"""Hide data files from an oracle: it sees none that it did not write itself, and what it writes goes to a copy.

So an oracle that keeps answers on disk must compute them again, and one that needs a file of data fails. Python's own
calls are redirected (``open``, ``os``, ``sqlite3.connect``, ``dbm.open``); a C library that opens a file by itself is
not, but a file that it made or changed meanwhile counts as the oracle's own.
"""

from __future__ import annotations

import builtins
import dbm
import errno
import io
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
#: Functions of ``os`` whose first argument is the path of a file.
_ONE_PATH = ("stat", "lstat", "access", "remove", "unlink", "truncate", "utime", "chmod")


class HiddenFiles:
    """Redirects paths of data files into a folder.

    Parameters
    ----------
    folder : str
        An empty folder for what is written.
    visible : collection of str
        Real paths that stay as they are, with everything below.
    is_data : callable
        Whether a real path is that of a data file; all others stay as they are.
    """

    def __init__(self, folder: str, visible: Collection[str], is_data: Callable[[str], bool]) -> None:
        self.folder, self.visible, self.is_data = os.path.realpath(folder), tuple(visible), is_data
        #: Existing files that were looked for and not shown, in order.
        self.missed: dict[str, None] = {}
        #: Databases that were connected to.
        self.databases: dict[str, None] = {}
        self._first: dict[str, tuple[int, ...] | None] = {}
        self._busy = threading.local()
        self._stat, self._scandir = os.stat, os.scandir

    def written(self) -> list[str]:
        """Real paths of the data files that were written, empty ones left out, or changed by a C library."""
        copies = [os.path.join(top, name) for top, _, names in os.walk(self.folder) for name in names]
        own = [copy[len(self.folder) :] for copy in copies if os.path.getsize(copy)]
        return own + [name for name in self._first if self._is_own(name)]

    def is_foreign(self, name: str) -> bool:
        """Whether a real path is that of a data file that the oracle did not make."""
        if name.startswith(os.path.dirname(self.folder)) or not self.is_data(name):
            return False
        self._first.setdefault(name, self._signature(name))
        return not self._is_own(name)

    def forget(self) -> None:
        """Start again: what was written is gone, nothing has been looked for."""
        with self.paused():
            shutil.rmtree(self.folder, ignore_errors=True)
        for seen in (self.missed, self.databases, self._first):
            seen.clear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Every file is there while the context lasts, for this thread."""
        before, self._busy.now = getattr(self._busy, "now", False), True
        try:
            yield
        finally:
            self._busy.now = before

    def place(self, value: Any, writes: bool = False) -> Any:
        """The path to use for a path, which is itself where nothing is redirected."""
        if getattr(self._busy, "now", False) or not isinstance(value, str | bytes | os.PathLike):
            return value
        with self.paused():
            given = os.fsdecode(value)
            name = "" if "\0" in given else os.path.realpath(given)
            place = self._redirected(name, writes) if name else name
            return value if place == name else os.fsencode(place) if isinstance(value, bytes) else place

    def _redirected(self, name: str, writes: bool) -> str:
        shown = any(name == path or name.startswith(path + os.sep) for path in self.visible)
        if name.startswith(self.folder) or shown or not self.is_data(name) or os.path.isdir(name):
            return name
        copy, now = self.folder + name, self._signature(name)
        first = self._first.setdefault(name, now)
        if os.path.lexists(copy):
            return copy
        if now != first:  # made here by a C library
            return name
        if now is not None:
            self.missed[name] = None
        if writes:
            os.makedirs(os.path.dirname(copy), exist_ok=True)
        return copy if writes or now is not None else name

    def _signature(self, name: str) -> tuple[int, ...] | None:
        try:
            state = self._stat(name)
        except OSError:
            return None
        return state.st_ino, state.st_size, state.st_mtime_ns

    def _is_own(self, name: str) -> bool:
        now = self._signature(name)
        return now is not None and now != self._first[name]

    def _entries(self, folder: Any) -> list[os.DirEntry[Any]]:
        with self._scandir(folder) as real:
            entries = list(real)
        if isinstance(folder, int) or getattr(self._busy, "now", False):
            return entries
        entries = [entry for entry in entries if self.place(entry.path) == entry.path]
        copies = self.folder + os.path.realpath(os.fsdecode(folder))
        if os.path.isdir(copies):
            with self._scandir(os.fsencode(copies) if isinstance(folder, bytes) else copies) as own:
                known = {entry.name for entry in entries}
                entries += [entry for entry in own if entry.name not in known]
        return entries

    @contextmanager
    def hiding(self) -> Iterator[None]:
        """Redirect Python's own calls while the context lasts."""
        calls: list[tuple[Any, str, Callable[..., Any]]] = [
            *((os, name, self._of_path(getattr(os, name))) for name in _ONE_PATH),
            *((os, name, self._of_two(getattr(os, name))) for name in ("rename", "replace")),
            *((module, "open", self._opening(open)) for module in (builtins, io)),
            *((module, "connect", self._database(sqlite3.connect)) for module in (sqlite3, sqlite3.dbapi2)),
            (os, "open", self._descriptor(os.open)),
            (os, "listdir", lambda folder=".": [entry.name for entry in self._entries(folder)]),
            (os, "scandir", lambda folder=".": _Scan(self._entries(folder))),
            (dbm, "open", self._database(dbm.open)),
        ]
        real = [(module, name, getattr(module, name)) for module, name, _ in calls]
        try:
            for module, name, call in calls:
                setattr(module, name, call)
            yield
        finally:
            for module, name, call in real:
                setattr(module, name, call)

    def _of_path(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **named: Any) -> Any:
            return real(path if named.get("dir_fd") is not None else self.place(path), *args, **named)

        return call

    def _of_two(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(source: Any, target: Any, **named: Any) -> Any:
            source, target = self.place(source), self.place(target, writes=True)
            try:
                return real(source, target, **named)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                return shutil.move(source, target)

        return call

    def _opening(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: Any, mode: str = "r", *args: Any, **named: Any) -> Any:
            place = self.place(file, writes=bool(set(mode) & set("wa+")))
            return real(file if "x" in mode else place, mode, *args, **named)

        return call

    def _descriptor(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, flags: int, *args: Any, **named: Any) -> Any:
            if named.get("dir_fd") is not None:
                return real(path, flags, *args, **named)
            # A file that must be new is made where it is said: a temporary one, which others open by its name.
            place = self.place(path, writes=bool(flags & _WRITES) and not flags & os.O_EXCL)
            return real(path if flags & os.O_EXCL else place, flags, *args, **named)

        return call

    def _database(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(database: Any, *args: Any, **named: Any) -> Any:
            if database in (":memory:", b":memory:", "") or str(database).startswith("file:"):
                return real(database, *args, **named)
            name = os.path.realpath(os.fsdecode(database))
            place = self.place(database, writes=True)
            self.databases[name] = None
            return real(place, *args, **named)

        return call


class _Scan:
    """What ``os.scandir`` returns: an iterator that closes."""

    def __init__(self, entries: list[os.DirEntry[Any]]) -> None:
        self._entries = iter(entries)

    def __iter__(self) -> _Scan:
        return self

    def __next__(self) -> os.DirEntry[Any]:
        return next(self._entries)

    def __enter__(self) -> _Scan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._entries = iter(())
