"""What every test gets: no network but loopback, machine code compiled afresh, the shared data where it is."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before numba is imported: machine code cached by an earlier version of the kernel must never be what is tested.
_CACHE = tempfile.TemporaryDirectory(prefix="hlbt-numba-", ignore_cleanup_errors=True)
os.environ.setdefault("NUMBA_CACHE_DIR", _CACHE.name)
sys.path.insert(0, str(Path(__file__).parent))

import pytest  # noqa: E402

from browser import Browser, running  # noqa: E402
from commands import Hlbt, outcome  # noqa: E402
from shared_data import shared  # noqa: E402

if TYPE_CHECKING:
    from live_world import Run, World

ROOT = Path(__file__).parent.parent


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
    """No test may read or write the cache and the reports of whoever runs it."""
    monkeypatch.setenv("HLBT_DATA_CACHE", str(tmp_path_factory.getbasetemp() / "no-cache"))
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))


@pytest.fixture
def hlbt(capsys: pytest.CaptureFixture[str]) -> Hlbt:
    """Run a command in this process."""
    return lambda *words: outcome(capsys, *words)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A loopback exchange with an account, and files for it."""
    from live_world import open_world

    with open_world(tmp_path) as opened:
        yield opened


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a live command, with short waits between attempts."""
    from live_world import call

    return lambda words: call(monkeypatch, capsys, words)


@pytest.fixture(scope="session")
def freqtrade_folder() -> Path:
    """Real candles and funding, 172 coins, 2024-09-04 to 2025-03-31."""
    return shared("freqtrade", "hyperliquid", "futures")


@pytest.fixture(scope="session")
def real_cache(freqtrade_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the real data imported, once a session; tests only read it."""
    from engine.data.freqtrade import import_freqtrade
    from engine.data.store import Store

    cache = tmp_path_factory.mktemp("real") / "cache"
    report = import_freqtrade(Store(cache), freqtrade_folder)
    assert not report.problems
    return cache


@pytest.fixture(scope="session")
def sample_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic sample, once a session; tests only read it."""
    from engine.data.sample import write_sample
    from engine.data.store import Store

    cache = tmp_path_factory.mktemp("sample") / "cache"
    write_sample(Store(cache))
    return cache


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser. Of a module, not the session: while it runs, no other event loop can run in this thread."""
    with running() as found:
        yield found
