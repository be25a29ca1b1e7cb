"""A user without a home: what libraries keep goes to a private temporary folder, and nowhere that others could fill."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import pytest

from engine.caches import settle_caches
from helpers.project import ROOT

NOBODY = 65534
SYSTEM = f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment whose home cannot be made, and a temporary folder of its own."""
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return {"HOME": str(tmp_path / "file" / "home")}


def test_a_home_that_can_be_written_to_is_left_alone(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    assert settle_caches(environment) == "" and environment == {"HOME": str(tmp_path)} and not list(tmp_path.iterdir())


def test_without_one_a_private_temporary_folder_is_named(closed: dict[str, str], tmp_path: Path) -> None:
    said = settle_caches(closed)
    kept = tmp_path / "tmp" / f"hlbt-{os.getuid()}"
    assert {closed[name] for name in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR", "XDG_CACHE_HOME")} == {str(kept)}
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700 and str(kept) in said and "\n" not in said
    assert settle_caches(closed) == ""  # a process that this one starts says it no second time


def test_what_the_user_has_set_stays(closed: dict[str, str], tmp_path: Path) -> None:
    own = {"NUMBA_CACHE_DIR": str(tmp_path / "n"), "MPLCONFIGDIR": str(tmp_path / "m")}
    environment = {**closed, **own}
    assert settle_caches(environment) == "" and environment == {**closed, **own}
    environment.pop("MPLCONFIGDIR")
    assert "MPLCONFIGDIR" in settle_caches(environment) and environment["NUMBA_CACHE_DIR"] == own["NUMBA_CACHE_DIR"]


@pytest.mark.parametrize("planted", ["link", "open folder", "file"])
def test_a_folder_that_others_could_have_filled_is_not_used(
    closed: dict[str, str], tmp_path: Path, planted: str
) -> None:
    kept = tmp_path / "tmp" / f"hlbt-{os.getuid()}"
    (tmp_path / "theirs").mkdir(mode=0o700)
    if planted == "link":
        kept.symlink_to(tmp_path / "theirs")
    elif planted == "file":
        kept.write_text("")
    else:
        kept.mkdir()
        kept.chmod(0o777)
    settle_caches(closed)
    used = Path(closed["NUMBA_CACHE_DIR"])
    assert used != kept and used.parent == kept.parent and stat.S_IMODE(used.stat().st_mode) == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root can own a folder as another user")
def test_a_folder_of_another_user_is_not_used(closed: dict[str, str], tmp_path: Path) -> None:
    kept = tmp_path / "tmp" / "hlbt-0"
    kept.mkdir(mode=0o700)
    os.chown(kept, NOBODY, NOBODY)
    settle_caches(closed)
    assert Path(closed["NUMBA_CACHE_DIR"]) != kept


def test_another_user_compiles(tmp_path: Path) -> None:
    """Another uid, no HOME, an installation that it may only read: from Python, with the kernel and matplotlib."""
    packages = Path(numpy.__file__).parent.parent
    if os.getuid() != 0:
        pytest.skip("only root can start a process as another user")
    if not Path(SYSTEM).is_file():
        pytest.skip(f"{SYSTEM} is not there: an interpreter of this version that every user may execute is needed")
    with tempfile.TemporaryDirectory(prefix="hlbt-test-") as folder:  # pytest's own folders are closed to others
        place = Path(folder)
        place.chmod(0o755)
        shutil.copytree(ROOT / "engine", place / "code" / "engine", ignore=shutil.ignore_patterns("__pycache__"))
        (place / "tmp").mkdir()
        (place / "work").mkdir()
        for own in ("tmp", "work"):
            os.chown(place / own, NOBODY, NOBODY)
        code = (
            "from engine.commands.doctor import check_compiler; import matplotlib.font_manager; "
            "check = check_compiler(); print(check.outcome, check.summary)"
        )

        def run(*command: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [SYSTEM, *command],
                env={
                    "PYTHONPATH": f"{place / 'code'}:{packages}",
                    "TMPDIR": str(place / "tmp"),
                    "PYTHONDONTWRITEBYTECODE": "1",
                },
                cwd=place / "work",
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                capture_output=True,
                text=True,
                check=False,
            )

        if run("-c", "import numba").returncode:
            pytest.skip(f"another user cannot import what is in {packages} with {SYSTEM}")
        done = run("-c", code)
        assert done.stdout.startswith("passed compiles"), done.stdout + done.stderr
        assert f"{place / 'tmp' / f'hlbt-{NOBODY}'}" in done.stdout
        assert len(done.stderr.splitlines()) == 1 and "cannot be written to" in done.stderr
        assert not list((place / "work").iterdir())  # no folder named ~ either
