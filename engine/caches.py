"""Where libraries keep what they have worked out: machine code (numba), fonts (matplotlib, fontconfig), and the rest.

They keep it below the home folder. A service's own user often has none, or one that cannot be written to; numba then
refuses to work at all, matplotlib complains and starts over each time, and others make a folder named ``~``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

#: The variable that says where a library keeps things -> folders below the home that it needs where it is not set.
_NEEDS = {
    "NUMBA_CACHE_DIR": ("XDG_CACHE_HOME",),
    "MPLCONFIGDIR": ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"),
    "XDG_CACHE_HOME": ("XDG_CACHE_HOME",),
}
_BELOW_HOME = {"XDG_CACHE_HOME": ".cache", "XDG_CONFIG_HOME": ".config"}


def settle_caches(environment: MutableMapping[str, str] = os.environ) -> str:
    """Name a private temporary folder in the environment for every library that could not keep anything.

    What the user has set stays, as long as it can be written to. Costs a few looks at the disk, and writes nothing
    where the home can be written to. To be called before numba and matplotlib are imported.

    Parameters
    ----------
    environment : mutable mapping
        Of this process and those it starts.

    Returns
    -------
    str
        What was done, in one line; empty when there was nothing to do.
    """
    lacking = [name for name, needs in _NEEDS.items() if not _served(name, needs, environment)]
    if not {"NUMBA_CACHE_DIR", "MPLCONFIGDIR"} & set(lacking):
        return ""
    try:
        kept = _private_folder()
    except OSError as error:
        return (
            f"Neither the home folder nor a temporary one can be written to ({error.strerror or error}): name a "
            "folder that can, NUMBA_CACHE_DIR=DIR MPLCONFIGDIR=DIR."
        )
    for name in lacking:
        environment[name] = str(kept)
    if "numba" in sys.modules:  # it read its variable when it was imported
        sys.modules["numba"].config.CACHE_DIR = environment.get("NUMBA_CACHE_DIR", "")
    return (
        f"The home folder {_home(environment) or '(none)'} cannot be written to, so compiled code and fonts are kept "
        f"in {kept}. Set HOME, or {' and '.join(lacking)}, to a folder that lasts."
    )


def _home(environment: MutableMapping[str, str]) -> Path | None:
    """The home folder; None for a user who has none."""
    found = environment.get("HOME") or os.path.expanduser("~")
    return None if found.startswith("~") else Path(found)


def _served(name: str, needs: tuple[str, ...], environment: MutableMapping[str, str]) -> bool:
    """Whether the library of the variable `name` finds a folder that it can write to."""
    if name == "XDG_CACHE_HOME" and environment.get(name):
        return True  # the user's own, and no library refuses to work without
    if environment.get(name) and _writable(Path(environment[name])):
        return True
    home = _home(environment)
    places = [environment.get(need) or (home and home / _BELOW_HOME[need]) for need in needs]
    return all(place and _writable(Path(place)) for place in places)


def _writable(folder: Path) -> bool:
    """Whether a folder can be written to, or made."""
    while not os.path.lexists(folder) and folder != folder.parent:  # False too where one may not look
        folder = folder.parent
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def _private_folder() -> Path:
    """A temporary folder that nobody else can write to, or ever could: what numba finds in it, it runs."""
    import atexit
    import shutil
    import stat
    import tempfile

    folder = Path(tempfile.gettempdir()) / f"hlbt-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        held = folder.lstat()  # of a link itself, which may point anywhere
        if not stat.S_ISDIR(held.st_mode) or held.st_uid != os.getuid() or held.st_mode & 0o077:
            folder = Path(tempfile.mkdtemp(prefix=f"hlbt-{os.getuid()}-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
