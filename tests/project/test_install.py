"""The Makefile installs what the locks name and never asks what else there is, today and when newer releases are out.

The real Makefile runs on made-up locks, wheels and an index of our own, which offers newer releases than the locks
name: a package with an extra, as `coverage[toml]` once was.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.package_index import Index, serving
from helpers.project import ROOT

pytestmark = pytest.mark.slow
#: The oldest pip that a supported Python brings along; `make setup-dev` puts it here.
OLDEST_PIP = Path(sys.prefix) / "oldest-pip" / "pip-23.2.1-py3-none-any.whl"
UV = Path(sys.prefix) / "bin" / "uv"
PROJECT = """
[build-system]
requires = ["delta>=1.0"]
build-backend = "backend"
backend-path = ["."]
[project]
name = "hlbt"
version = "0.1.0"
"""
BACKEND = """
import zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    import delta  # what builds comes from the lock: no environment is set up for it
    name, info = "hlbt-0.1.0-py3-none-any.whl", "hlbt-0.1.0.dist-info"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: hlbt\\nVersion: 0.1.0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""


class Checkout:
    """A folder with the project's Makefile and made-up locks, and nobody's settings."""

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder = folder
        self.index = index
        self.python = folder / ".venv" / "bin" / "python"
        folder.mkdir()
        shutil.copy(ROOT / "Makefile", folder)
        alpha = index.add("alpha", "1.0", "beta>=1.0; extra == 'fast'", extras=("fast",))
        beta = index.add("beta", "1.0")
        gamma = index.add("gamma", "1.0", "alpha[fast]>=1.0")
        delta = index.add("delta", "1.0")
        (folder / "requirements.lock").write_text(delta)
        (folder / "requirements-dev.lock").write_text(alpha + beta + delta + gamma)
        (folder / "requirements-uv.lock").write_text("uv==0.0.1 --hash=sha256:" + "0" * 64 + "\n")
        (folder / "tests").mkdir()
        shutil.copy(ROOT / "tests" / "oldest-pip.lock", folder / "tests")
        (folder / "pyproject.toml").write_text(PROJECT)
        (folder / "backend.py").write_text(BACKEND)
        # Six days later: newer releases of everything, one of which nobody could install.
        index.add("alpha", "1.1", "beta>=2.0; extra == 'fast'", extras=("fast",))
        index.add("beta", "2.0", "not-there>=1")
        index.add("delta", "1.1")

    def make(self, target: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        settings = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": self.index.url,
            "PIP_RETRIES": "0",
            "UV_DEFAULT_INDEX": self.index.url,
            "UV_NO_CONFIG": "1",
        }
        command = ["make", target, f"PYTHON={python}"]
        return subprocess.run(command, cwd=self.folder, env=settings, capture_output=True, text=True, check=False)

    def pip_from(self, wheel: Path) -> None:
        """Replace the environment's pip by the one of a wheel."""
        command = [str(self.python), f"{wheel}/pip", "install", "--no-index", "--no-deps", "--quiet", str(wheel)]
        done = subprocess.run(command, env={"PIP_CONFIG_FILE": os.devnull}, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{wheel.name} does not run on Python {sys.version_info[0]}.{sys.version_info[1]}")

    def pip_of_this_environment(self) -> None:
        """Replace the environment's pip by the newest, which the lock of the tests names."""
        target = next((self.folder / ".venv" / "lib").glob("python3*")) / "site-packages"
        for old in target.glob("pip*"):
            shutil.rmtree(old)
        files = importlib.metadata.files("pip")
        assert files is not None
        for top in {file.parts[0] for file in files if file.parts[0].startswith("pip")}:
            shutil.copytree(Path(str(importlib.metadata.distribution("pip").locate_file(top))), target / top)

    def versions(self) -> dict[str, str]:
        command = [str(self.python), "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        return dict(line.split("==") for line in listed if line[:3] not in ("pip", "set"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment that the Makefile makes before it installs anything."""
    folder = tmp_path_factory.mktemp("base")
    with serving(folder / "index") as index:
        first = Checkout(folder / "hlbt", index)
        done = first.make(".venv/.base")
        assert done.returncode == 0, done.stderr
    return first.folder / ".venv"


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Checkout]:
    with serving(tmp_path / "index") as index:
        yield Checkout(tmp_path / "hlbt", index)


@pytest.fixture
def checkout(base: Path, tmp_path: Path) -> Iterator[Checkout]:
    with serving(tmp_path / "index") as index:
        checkout = Checkout(tmp_path / "hlbt", index)
        shutil.copytree(base, checkout.folder / ".venv", symlinks=True)
        # Made after the lock of uv, as in the checkout that it was copied from.
        (checkout.folder / ".venv" / ".base").touch()
        yield checkout


def bring(checkout: Checkout, installer: str) -> None:
    """Put this installer into the environment."""
    if installer == "oldest pip":
        if not OLDEST_PIP.is_file():
            pytest.skip("make setup-dev has not brought the oldest pip")
        checkout.pip_from(OLDEST_PIP)
    elif installer == "newest pip":
        checkout.pip_of_this_environment()
    elif not UV.is_file():
        pytest.skip("there is no uv for this machine")
    else:
        shutil.copy(UV, checkout.folder / ".venv" / "bin")


INSTALLERS = ("oldest pip", "newest pip", "uv")


@pytest.mark.parametrize("installer", INSTALLERS)
def test_newer_releases_are_never_looked_at(checkout: Checkout, installer: str) -> None:
    bring(checkout, installer)
    done = checkout.make(".venv/.dev")
    assert done.returncode == 0, done.stderr + done.stdout
    assert checkout.versions() == {"alpha": "1.0", "beta": "1.0", "delta": "1.0", "gamma": "1.0", "hlbt": "0.1.0"}
    assert {name for name in checkout.index.downloads if "-1.0-" not in name} == set()
    log = (checkout.folder / ".install.log").read_text()
    assert ("uv 0." in log) == (installer == "uv")
    assert len(done.stdout.splitlines()) <= 10 and not done.stderr


def test_the_test_above_can_fail(checkout: Checkout) -> None:
    """With the resolver let in, the newer release breaks the install, as it once did."""
    makefile = checkout.folder / "Makefile"
    makefile.write_text(makefile.read_text().replace("LOCKED := --no-deps", "LOCKED :="))
    bring(checkout, "oldest pip")
    done = checkout.make(".venv/.dev")
    assert done.returncode != 0 and "must have their versions pinned" in done.stderr


def test_a_failing_uv_leaves_the_work_to_pip(checkout: Checkout) -> None:
    bring(checkout, "newest pip")
    broken = checkout.folder / ".venv" / "bin" / "uv"
    broken.write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo uv 0.0.0 && exit 0\necho 'uv: out of order' >&2\nexit 2\n"
    )
    broken.chmod(0o755)
    done = checkout.make(".venv/.dev")
    assert done.returncode == 0, done.stderr
    assert checkout.versions()["gamma"] == "1.0"
    assert "out of order" in (checkout.folder / ".install.log").read_text()


def test_what_fails_shows_the_end_of_the_log_and_its_name(checkout: Checkout) -> None:
    lock = checkout.folder / "requirements.lock"
    lock.write_text(lock.read_text().replace("sha256:", "sha256:" + "0" * 8)[:-9] + "\n")
    done = checkout.make(".venv/.run")
    assert done.returncode != 0 and ".install.log" in done.stderr
    assert not (checkout.folder / ".venv" / ".run").exists()


def test_a_lock_that_lacks_a_package_is_noticed(checkout: Checkout) -> None:
    """Nothing resolves, so only `pip check` can say that something is missing."""
    lock = checkout.folder / "requirements-dev.lock"
    lock.write_text("".join(line for line in lock.read_text().splitlines(keepends=True) if "alpha" not in line))
    done = checkout.make(".venv/.dev")
    assert done.returncode != 0 and "gamma 1.0 requires alpha, which is not installed." in done.stderr


@pytest.mark.parametrize("version", ["3.10", "3.15"])
@pytest.mark.parametrize("before", ["bare", "checkout"])
def test_another_python_is_refused_in_one_line(
    before: str, version: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A stand-in for the interpreter: only its version differs; beside an environment of another one, too."""
    tested: Checkout = request.getfixturevalue(before)
    python = tmp_path / "python-of-another-time"
    major, minor = version.split(".")
    python.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c "
        f"'import sys; sys.version_info = ({major}, {minor}, 0); exec(sys.argv[1])' \"$2\"\n"
    )
    python.chmod(0o755)
    done = tested.make("setup", str(python))
    said, makes_own = done.stderr.splitlines()
    assert done.returncode != 0 and not done.stdout
    assert said.startswith("hlbt needs Python 3.11 to 3.14, but ") and f" is {version}." in said
    assert makes_own.startswith("make: ***")


def test_a_python_that_is_not_here_is_named(bare: Checkout) -> None:
    done = bare.make("setup", "python3.99")
    assert done.returncode != 0 and done.stderr.startswith("python3.99 is not here.")


def test_the_locks_have_every_hash_and_agree() -> None:
    """One version of each package in both locks, and the project's own build backend among them."""
    names = {}
    for file in ("requirements.lock", "requirements-dev.lock"):
        pinned = set()
        for block in (ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
            assert "==" in block and "--hash=sha256:" in block, block[:80]
            pinned.add(re.split(" ;| --hash", block)[0].strip())  # a marker is wider where more extras want the package
        names[file] = pinned
    assert names["requirements.lock"] <= names["requirements-dev.lock"]
    assert {pin.split("==")[0] for pin in names["requirements.lock"]} >= {"hatchling", "editables"}
