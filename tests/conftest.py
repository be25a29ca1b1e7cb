"""What every test gets: no network but loopback, machine code compiled afresh, the shared data where it is."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import multiprocessing.context
import multiprocessing.forkserver
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from hypothesis import settings

from helpers import effort
from helpers.browser import Browser, running
from helpers.commands import Hlbt, outcome
from helpers.shared_data import shared

if TYPE_CHECKING:
    from helpers.live_world import Run, World

ROOT = Path(__file__).parent.parent
_HERE = itertools.count()


# The same examples in every run, so that a red run is of a change; `--hypothesis-profile=random` draws others.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None)
settings.load_profile("repeatable")

# Workers of pytest-xdist and the processes of the tests get their settings from the environment of the first process.


def pytest_addoption(parser: pytest.Parser) -> None:
    """How much is run; see effort.py."""
    parser.addoption("--quick", action="store_true", help="what `make check` runs: no test that is marked slow")
    parser.addoption("--full", action="store_true", help="what `make test-full` runs: all seeds and all kill points")


def pytest_configure(config: pytest.Config) -> None:
    """Before numba is imported: say where machine code is kept, and how much is to be run."""
    config.addinivalue_line("markers", "slow: over half a second or so, or of the browser; not in `make check`")
    # Dozens of tests start a Python of their own: without bytecode each of them compiles pandas, for seconds.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    if config.getoption("--full"):
        os.environ[effort.VARIABLE] = "1"
    if "NUMBA_CACHE_DIR" not in os.environ:
        os.environ["NUMBA_CACHE_DIR"] = _kept_kernels() if config.getoption("--quick") else _fresh_kernels(config)
    if "PYTEST_XDIST_WORKER" in os.environ:
        _one_compiles_at_a_time(Path(os.environ["NUMBA_CACHE_DIR"]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """``-n auto``: one more than there are cores, for slow tests wait; at most eight, for each takes a gigabyte.

    Two more were slower on two cores: 360 s against 310.
    """
    return min(8, (os.cpu_count() or 1) + (not config.getoption("--quick")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is slow, where that is asked."""
    if config.getoption("--quick"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


def _fresh_kernels(config: pytest.Config) -> str:
    """A new folder of this run: machine code of an earlier version of the kernel must never be what is tested."""
    folder = tempfile.mkdtemp(prefix="hlbt-numba-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    return folder


def _kept_kernels() -> str:
    """A folder that is kept from one ``make check`` to the next, of this very kernel.

    numba itself keys what is in it by its own version, the interpreter and the processor. What it cannot see is a
    change in what the compiled code calls; all of that is in one file, and the folder is named by its content.
    """
    digest = hashlib.sha256((ROOT / "engine" / "simulation" / "kernel.py").read_bytes()).hexdigest()[:16]
    folder = ROOT / ".pytest_cache" / f"kernels-{digest}"
    for other in folder.parent.glob("kernels-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _one_compiles_at_a_time(folder: Path) -> None:
    """What one worker compiles the others wait for and load: done once, and the files of the cache do not race."""
    import threading

    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.dispatcher import Dispatcher

    compile_, inside = Dispatcher.compile, threading.local()

    def alone(self: Dispatcher, signature: object) -> object:
        if getattr(inside, "compiling", False):
            return compile_(self, signature)
        with global_compiler_lock, _locked(folder / "lock"):
            inside.compiling = True
            try:
                return compile_(self, signature)
            finally:
                inside.compiling = False

    Dispatcher.compile = alone


def _once_a_run(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first worker which wants it makes, for all of them."""
    base = factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with _locked(root / f"{name}.lock"):
        if not (root / name).exists():
            make(root / f"{name}.part" / "cache")
            (root / f"{name}.part").rename(root / name)
    return root / name / "cache"


@pytest.fixture(autouse=True)
def _only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> object:
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test reached for the network: {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test may read or write the cache, the reports and the accounts of whoever runs it."""
    monkeypatch.setenv("HLBT_DATA_CACHE", str(tmp_path_factory.getbasetemp() / "no-cache"))
    # By number: pytest's own mktemp looks through all folders of the run for a free name, each time.
    here = tmp_path_factory.getbasetemp() / "here" / str(next(_HERE))
    here.mkdir(parents=True)
    monkeypatch.setenv("HLBT_STATE", f"{here}-state")
    monkeypatch.chdir(here)


@pytest.fixture
def hlbt(capsys: pytest.CaptureFixture[str]) -> Hlbt:
    """Run a command in this process."""
    return lambda *words: outcome(capsys, *words)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A loopback exchange with an account, and files for it."""
    from helpers.live_world import open_world

    with open_world(tmp_path) as opened:
        yield opened


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a live command, with short waits between attempts."""
    from helpers.live_world import call

    return lambda words: call(monkeypatch, capsys, words)


@pytest.fixture(scope="session")
def freqtrade_folder() -> Path:
    """Real candles and funding, 172 coins, 2024-09-04 to 2025-03-31."""
    return shared("freqtrade", "hyperliquid", "futures")


@pytest.fixture(scope="session")
def real_cache(freqtrade_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the real data imported, once a run; tests only read it."""
    from engine.data.cache import Store
    from engine.data.freqtrade import import_freqtrade

    def make(cache: Path) -> None:
        assert not import_freqtrade(Store(cache), freqtrade_folder).problems

    return _once_a_run(tmp_path_factory, "real", make)


@pytest.fixture(scope="session")
def sample_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic sample, once a run; tests only read it."""
    from engine.commands.sample import write_sample
    from engine.data.cache import Store

    return _once_a_run(tmp_path_factory, "sample", lambda cache: write_sample(Store(cache)) and None)


@pytest.fixture(scope="session")
def forks() -> multiprocessing.context.ForkServerContext:
    """A server that has imported everything, once, and forks; its own path is PYTHONPATH only, up to Python 3.12."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "helpers.live_kill", "helpers.killed"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        multiprocessing.forkserver.ensure_running()
    return context


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser. Of a module, not the session: while it runs, no other event loop can run in this thread."""
    with running() as found:
        yield found
