"""Writable folders for the caches of libraries: machine code (numba), fonts (matplotlib, fontconfig).

By default they lie below the home folder. The user of a service often has none, or one that cannot be written to; numba
then refuses to work, matplotlib warns and starts over each time, and others make a folder named ``~``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

#: Variable that names a library's cache -> folders below the home that it needs where the variable is not set.
_NEEDS = {
    "NUMBA_CACHE_DIR": ("XDG_CACHE_HOME",),
    "MPLCONFIGDIR": ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"),
    "XDG_CACHE_HOME": ("XDG_CACHE_HOME",),
}
_BELOW_HOME = {"XDG_CACHE_HOME": ".cache", "XDG_CONFIG_HOME": ".config"}


def settle_caches(environment: MutableMapping[str, str] = os.environ) -> str:
    """Name a private temporary folder in the environment for every library whose cache cannot be written to.

    A folder that the user has set stays, as long as it can be written to. Nothing is written where the home folder can
    be written to. To be called before numba and matplotlib are imported.

    Parameters
    ----------
    environment : mutable mapping
        That of this process and its children.

    Returns
    -------
    str
        A message of one line; empty when nothing was changed.
    """
    missing = [name for name, needs in _NEEDS.items() if not _has_cache(name, needs, environment)]
    if not {"NUMBA_CACHE_DIR", "MPLCONFIGDIR"} & set(missing):
        return ""
    try:
        folder = _private_folder()
    except OSError as error:
        return (
            f"Neither the home folder nor a temporary one can be written to ({error.strerror or error}): set "
            "NUMBA_CACHE_DIR and MPLCONFIGDIR to a folder that can."
        )
    for name in missing:
        environment[name] = str(folder)
    if "numba" in sys.modules:  # it read its variable when it was imported
        sys.modules["numba"].config.CACHE_DIR = environment.get("NUMBA_CACHE_DIR", "")
    return (
        f"The home folder {_home(environment) or '(none)'} cannot be written to, so compiled code and fonts are kept "
        f"in {folder}. Set HOME, or {' and '.join(missing)}, to a folder that lasts."
    )


def _home(environment: MutableMapping[str, str]) -> Path | None:
    """The home folder; None for a user who has none."""
    home = environment.get("HOME") or os.path.expanduser("~")
    return None if home.startswith("~") else Path(home)


def _has_cache(name: str, needs: tuple[str, ...], environment: MutableMapping[str, str]) -> bool:
    """Whether the library of the variable `name` has a folder that it can write to."""
    if name == "XDG_CACHE_HOME" and environment.get(name):
        return True  # the user's own, and every library works without it
    if environment.get(name) and _writable(Path(environment[name])):
        return True
    home = _home(environment)
    folders = [environment.get(need) or (home and home / _BELOW_HOME[need]) for need in needs]
    return all(folder and _writable(Path(folder)) for folder in folders)


def _writable(folder: Path) -> bool:
    """Whether a folder can be written to, or made."""
    while not os.path.lexists(folder) and folder != folder.parent:  # False too in a folder without permission
        folder = folder.parent
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def _private_folder() -> Path:
    """A temporary folder that nobody else can write to, now or before: numba runs the code it finds there."""
    import atexit
    import shutil
    import stat
    import tempfile

    folder = Path(tempfile.gettempdir()) / f"hlbt-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        state = folder.lstat()  # of the link itself, which may point anywhere
        if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o077:
            folder = Path(tempfile.mkdtemp(prefix=f"hlbt-{os.getuid()}-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
