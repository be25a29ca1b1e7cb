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
import stat
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, unquote

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
#: Functions of ``os`` whose first argument is the path of a file.
_ONE_PATH = ("stat", "lstat", "access", "remove", "unlink", "truncate", "utime", "chmod", "rmdir")
#: Functions of ``os`` of two paths, and what does the same from one disk to another.
_TWO_PATHS: dict[str, Callable[..., Any]] = {"rename": shutil.move, "replace": shutil.move, "link": shutil.copy2}


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
        #: Folders that are there whatever is in them.
        self._ours = [
            os.path.realpath(folder) for folder in (os.getcwd(), os.path.expanduser("~"), tempfile.gettempdir())
        ]
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

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Every file is there while the context lasts, for this thread."""
        before, self._busy.now = getattr(self._busy, "now", False), True
        try:
            yield
        finally:
            self._busy.now = before

    def place(self, value: Any, mode: str = "r") -> Any:
        """The path to use for a path that is opened in a `mode`, which is itself where nothing is redirected."""
        if getattr(self._busy, "now", False) or not isinstance(value, str | bytes | os.PathLike):
            return value
        with self.paused():
            given = os.fsdecode(value)
            name = "" if "\0" in given else os.path.realpath(given)
            place = self._redirected(name, mode) if name else name
            return value if place == name else os.fsencode(place) if isinstance(value, bytes) else place

    def _redirected(self, name: str, mode: str) -> str:
        shown = any(name == path or name.startswith(path + os.sep) for path in self.visible)
        if name.startswith(self.folder) or shown or not self.is_data(name) or self._is_shown_folder(name):
            return name
        copy, now = self.folder + name, self._signature(name)
        first = self._first.setdefault(name, now)
        if os.path.lexists(copy):
            return copy
        if now != first or self._first.get(os.path.dirname(name), ()) is None:  # made here, or in a folder made here
            return name
        writes = bool(set(mode) & set("wa+x"))
        if now is not None:
            self.missed[name] = None
        elif not writes or "x" in mode:  # one that must be new, as a temporary one, may be opened by a C library
            return name
        if writes:
            os.makedirs(os.path.dirname(copy), exist_ok=True)
        return copy

    def _is_shown_folder(self, name: str) -> bool:
        """Whether a path is that of a folder, but not of one whose files are data: its being there is an answer too."""
        if not os.path.isdir(name):
            return False
        if any(f"{place}{os.sep}".startswith(f"{name}{os.sep}") for place in self._ours):
            return True
        with self._scandir(name) as entries:
            files = [os.path.join(name, entry.name) for entry in entries if entry.is_file()]
        return not files or not all(map(self.is_data, files))

    def _signature(self, name: str) -> tuple[int, ...] | None:
        try:
            state = self._stat(name)
        except OSError:
            return None
        # What is put into a folder does not make it another one.
        return (state.st_ino,) if stat.S_ISDIR(state.st_mode) else (state.st_ino, state.st_size, state.st_mtime_ns)

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
            *((os, name, self._of_two(getattr(os, name), other)) for name, other in _TWO_PATHS.items()),
            *((module, "open", self._of_path(open, lambda mode="r", *_, **__: mode)) for module in (builtins, io)),
            *((module, "connect", self._database(sqlite3.connect)) for module in (sqlite3, sqlite3.dbapi2)),
            (os, "mkdir", self._of_path(os.mkdir, lambda *_, **__: "x")),
            (os, "open", self._of_path(os.open, _mode_of_flags)),
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

    def _of_path(
        self, real: Callable[..., Any], mode_of: Callable[..., str] = lambda *_, **__: "r"
    ) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **named: Any) -> Any:
            if named.get("dir_fd") is None:
                path = self.place(path, mode_of(*args, **named))
            return real(path, *args, **named)

        return call

    def _of_two(self, real: Callable[..., Any], other: Callable[..., Any]) -> Callable[..., Any]:
        def call(source: Any, target: Any, **named: Any) -> Any:
            source, target = self.place(source), self.place(target, "w")
            try:
                return real(source, target, **named)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                return other(source, target)

        return call

    def _database(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(database: Any, *args: Any, **named: Any) -> Any:
            name, mark, query = os.fsdecode(database), "", ""
            address = name.startswith("file:") and named.get("uri")
            if address:
                name, mark, query = unquote(name.partition("?")[0][5:]), *name.partition("?")[1:]
            if name in (":memory:", "") or "mode=memory" in query:
                return real(database, *args, **named)
            self.databases[os.path.realpath(name)] = None
            place = self.place(name, "r" if "mode=ro" in query else "w")
            return real(f"file:{quote(place)}{mark}{query}" if address else place, *args, **named)

        return call


def _mode_of_flags(flags: int, *_: Any, **__: Any) -> str:
    return "x" if flags & os.O_EXCL else "w" if flags & _WRITES else "r"


class _Scan(list[os.DirEntry[Any]]):
    """What ``os.scandir`` returns: an iterator that closes."""

    def __next__(self) -> os.DirEntry[Any]:
        if not self:
            raise StopIteration
        return self.pop(0)

    def __enter__(self) -> _Scan:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    close = list.clear
