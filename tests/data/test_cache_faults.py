"""The store under faults: killed at any step, a full disk."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from multiprocessing.context import ForkServerContext as Forks
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from engine.data.cache import Store
from engine.data.manifest import MANIFEST
from engine.errors import DataError
from helpers.stores import content, table

# Faults. A child merges the same tables and dies at its k-th system call of a kind; whatever k, the cache then reads as
# before or as after, and the same merge run again ends with the same bytes as one that nobody killed.


def second() -> pa.Table:
    return table({"ETH": np.arange(1.0, 1401.0)})


@pytest.fixture(scope="module")
def before_and_after(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], dict[str, str]]:
    """A cache of three months, its digests, and those after a second merge that touches all of them."""
    folder = tmp_path_factory.mktemp("faults") / "cache"
    Store(folder).merge([table({"BTC": np.arange(1.0, 1401.0)})], "first")
    done = folder.with_name("after")
    shutil.copytree(folder, done)
    Store(done).merge([second()], "first")
    return folder, content(folder), content(done)


def _reads_as(folder: Path) -> dict[str, str]:
    """The files that count, as a reader sees them; fails when one is not whole."""
    report = Store(folder).verify()
    assert report.ok, report
    kept = {entry.name for entry in Store(folder).require().files.values()} | {MANIFEST}
    return {name: digest for name, digest in content(folder).items() if name in kept}


KILLS = [
    (call, count)
    for call, counts in {"replace": 4, "replace:after": 4, "fsync": 6, "unlink": 7}.items()
    for count in range(counts)
]


@pytest.mark.slow
def test_killed_at_any_step_the_cache_is_as_before_or_as_after(
    before_and_after: tuple[Path, dict[str, str], dict[str, str]], tmp_path: Path, forks: Forks
) -> None:
    from helpers.killed import merge_and_die

    original, before, after = before_and_after
    folders = [tmp_path / f"{call.replace(':', '-')}-{count}" for call, count in KILLS]
    for folder in folders:
        shutil.copytree(original, folder)
    children = [
        forks.Process(target=merge_and_die, args=(str(folder), call, count))
        for folder, (call, count) in zip(folders, KILLS, strict=True)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [-signal.SIGKILL] * len(KILLS)
    states = []
    for folder, (call, count) in zip(folders, KILLS, strict=True):
        seen = _reads_as(folder)
        assert seen in (before, after), f"{call} {count}"
        states.append((call, count, "after" if seen == after else "before"))
        Store(folder).merge([second()], "first")
        assert content(folder) == after, f"{call} {count}"
    # The commit is the fourth rename, of the manifest; only then do old files go. After each rename the name that was
    # written under is unlinked, though nothing is there any more.
    assert [state for call, count, state in states if call == "replace"] == ["before"] * 4
    assert [state for call, count, state in states if call == "replace:after"] == ["before"] * 3 + ["after"]
    assert [state for call, count, state in states if call == "unlink"] == ["before"] * 3 + ["after"] * 4


def test_a_full_disk_leaves_the_cache_as_before(
    before_and_after: tuple[Path, dict[str, str], dict[str, str]], tmp_path: Path
) -> None:
    original, before, after = before_and_after
    folder = tmp_path / "cache"
    shutil.copytree(original, folder)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file of one byte more than this cannot be written: the first month's new file is larger.
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, limit[1]))
    try:
        with pytest.raises(DataError, match=r"Writing to the cache .* failed: File too large.*is as before"):
            Store(folder).merge([second()], "first")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert content(folder) == before
    Store(folder).merge([second()], "first")
    assert content(folder) == after


@pytest.mark.parametrize("nth", range(7))
def test_no_space_at_any_flush_leaves_the_cache_whole(
    before_and_after: tuple[Path, dict[str, str], dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    nth: int,
) -> None:
    original, before, after = before_and_after
    folder = tmp_path / "cache"
    shutil.copytree(original, folder)
    real, left = os.fsync, [nth]

    def full(descriptor: int) -> None:
        left[0] -= 1
        if left[0] == -1:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        if nth < 6:
            what = "the cache is as before" if nth < 5 else "after a power cut"
            with pytest.raises(DataError, match=f"No space left on device.*{what}"):
                Store(folder).merge([second()], "first")
        else:
            Store(folder).merge([second()], "first")
    # Three months, their folder, the manifest, its folder: the commit stands between the last two.
    assert _reads_as(folder) == (before if nth < 5 else after)
    # A commit that may be lost in a power cut keeps the files of the state before it.
    assert content(folder) == {**before, **after} if nth == 5 else _reads_as(folder)
    Store(folder).merge([second()], "first")
    assert content(folder) == after
