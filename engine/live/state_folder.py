"""The files of an account: its lock, its journals and its kill switches, in one folder of the user.

Two runs of one account must meet, whatever directory they are started in::

    <state folder>/KILL                                  stops every run of the user
    <state folder>/<network>-<address>/KILL              stops every run of the account
    <state folder>/<network>-<address>/lock              held by the run that trades the account
    <state folder>/<network>-<address>/<name>-<network>-<address>.jsonl
    <state folder>/<network>-<address>/<name>.demoted.json

A paper account is a file of the working directory, with its journal, its lock and the record of its demotions
beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from engine.atomic_io import exclusive, replacing, sync_folder, write_durable
from engine.errors import LiveError, join_first

#: In the working directory: links to the journals, paper accounts, pages, and a kill switch.
LIVE_FOLDER: Final = Path("reports") / "live"
KILL_SWITCH: Final = LIVE_FOLDER / "KILL"
#: Names the state folder.
VARIABLE: Final = "HLBT_STATE"


def state_folder() -> Path:
    """The user's folder of accounts, which need not exist: ``HLBT_STATE``, else the platform's own.

    Raises
    ------
    LiveError
        When it is no absolute path, for a user without a home folder or a relative ``HLBT_STATE``, or cannot be read.
    """
    import platformdirs

    named = os.environ.get(VARIABLE)
    folder = Path(named) if named else platformdirs.user_state_path("hlbt", appauthor=False)
    what = f"{VARIABLE} is {named}, a relative path" if named else f"The user has no home folder ({folder})"
    if folder.is_absolute():
        try:
            folder.exists()
            return folder
        except PermissionError:
            what = f"The folder {folder} cannot be read"
    raise LiveError(
        f"{what}, so the lock and the journals of an account have no folder that every run shares. Set {VARIABLE} to "
        "the absolute path of one that lasts."
    )


def account_folder(label: str) -> Path:
    """The folder of an account (``DEX.label``), created when absent, for the user alone.

    Raises
    ------
    LiveError
        When it cannot be created or is another user's.
    """
    folder = state_folder() / label
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(0, "it cannot be written to")
    except OSError as error:
        raise LiveError(
            f"The folder {folder}, which keeps the lock and the journals of this account, cannot be used: "
            f"{error.strerror}. Nothing is sent without them: set {VARIABLE} to the absolute path of a folder that "
            "every run of the account shares, and that lasts."
        ) from error
    return folder


def record_folder(label: str, journal: Path | None) -> Path | None:
    """The folder of an account's records beside the journals, which need not exist; see :mod:`engine.live.demotion`.

    Parameters
    ----------
    label : str
        ``DEX.label``.
    journal : Path or None
        Of the strategy; a paper account's records lie beside it, those of an exchange's in the account's own folder,
        whatever journal is named.

    Returns
    -------
    Path or None
        None for a paper account with a journal in memory.
    """
    if label == "paper":
        return None if journal is None else journal.parent
    return state_folder() / label


# Locks and kill switches ----------------------------------------------------------------------------------------------


@contextmanager
def single_instance(path: Path) -> Iterator[None]:
    """Hold the lock file of an account.

    Raises
    ------
    LiveError
        When another process holds it, or it cannot be created.
    """
    taken = LiveError(
        f"Another process trades this account: it holds {path}. Two at once would trade twice. Wait for it, or end it."
    )
    with ExitStack() as held:
        try:
            held.enter_context(exclusive(path, taken))
        except OSError as error:
            raise LiveError(
                f"The lock {path} cannot be created: {error.strerror}. Nothing is sent without it."
            ) from error
        yield


def kill_switches(label: str, own: Path) -> list[Path]:
    """Files that stop a run of an account: `own`, those of the state folder, and the working directory's."""
    switches = [own, KILL_SWITCH]
    try:
        switches += [state_folder() / "KILL", state_folder() / label / "KILL"]
    except LiveError:
        if label != "paper":  # which needs no state folder
            raise
    return list(dict.fromkeys(switches))


# Journals -------------------------------------------------------------------------------------------------------------


def journal_path(name: str, label: str, named: Path | None = None) -> Path:
    """Path of the journal of a strategy on an account.

    Parameters
    ----------
    name, label : str
        Of the strategy, and of the account.
    named : Path, optional
        What ``--journal`` says: a ``.jsonl`` file, or a folder of journals. Default: the account's folder, or the
        working directory's as long as a journal of an earlier release is only there (:func:`adopt_journals`).
    """
    file = f"{name}-{label}.jsonl"
    if named is not None:
        return named if named.suffix == ".jsonl" else named / file
    old = LIVE_FOLDER / file
    if label == "paper":
        return old
    path = state_folder() / label / file
    return old if _is_old(old) and not path.exists() else path


def adopt_journals(label: str) -> list[str]:
    """Move journals of an earlier release into the account's folder, which must be locked; returns notes for people.

    A second history of the same name is kept beside the first, where it explains positions as any other journal does.
    """
    notes, folder = [], account_folder(label)
    for old in filter(_is_old, sorted(LIVE_FOLDER.glob(f"*-{label}.jsonl"))):
        content = old.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        name, number, path = old.name.removesuffix(f"-{label}.jsonl"), 1, folder / old.name
        while path.exists() and not path.read_bytes().startswith(whole):
            number += 1
            path = folder / f"{name}.{number}-{label}.jsonl"
        if not path.exists():
            write_durable(path, content)
            sync_folder(folder)
            notes.append(f"the journal {old} was moved to {path}")
        notes += link_journal(folder / old.name)
    return notes


def link_journal(path: Path) -> list[str]:
    """Keep a link to a journal in the working directory's ``reports/live``; returns notes for people."""
    link = LIVE_FOLDER / path.name
    if not path.is_file() or (link.is_symlink() and link.readlink() == path):
        return []
    try:
        LIVE_FOLDER.mkdir(parents=True, exist_ok=True)
        with replacing(link) as temporary:
            temporary.symlink_to(path)
    except OSError as error:
        return [f"{LIVE_FOLDER} has no link to the journal {path}: {error.strerror}"]
    return []


def other_journals(own: Path, label: str) -> list[Path]:
    """Paths of the other strategies' journals of an account: in its folder, beside `own`, and not adopted yet."""
    folders = (state_folder() / label, own.parent, LIVE_FOLDER)
    paths = [path for folder in folders for path in sorted(folder.glob(f"*-{label}.jsonl")) if path.is_file()]
    others = {path.resolve(): path for path in reversed(paths)}
    others.pop(own.resolve(), None)
    return list(others.values())


def find_journal(name: str, network: str, named: Path | None = None) -> Path:
    """Path of the one journal of a strategy on a network; `named` is what ``--journal`` says.

    Raises
    ------
    LiveError
        When there is none, or more than one account has one.
    """
    if named is not None and named.suffix == ".jsonl":
        folders, paths = [named.parent], [named] if named.is_file() else []
    else:
        folders = [LIVE_FOLDER if named is None else named]
        if named is None and network != "paper":
            folders += sorted(state_folder().glob(f"{network}-*"))
        files = [f"{name}-{network}.jsonl", f"{name}-{network}-0x*.jsonl"]
        found = [path for folder in folders for file in files for path in folder.glob(file) if path.is_file()]
        paths = sorted({path.name: path for path in found}.values())  # the account's own, where it has been moved
    if not paths:
        too = ", nor has the state folder" if len(folders) > 1 else ""
        raise LiveError(
            f"{folders[0]} has no journal of {name!r} on {network}{too}. `hlbt live run` with --execute makes one."
        )
    if len(paths) > 1:
        raise LiveError(
            f"{name!r} has journals of several accounts: {join_first(map(str, paths))}. Name one with --journal."
        )
    return paths[0]


def _is_old(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
