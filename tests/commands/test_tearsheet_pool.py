"""Tearsheets made in parallel: the same pages, the same errors, and no process left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.commands.tearsheet_pool import TearsheetPool
from engine.errors import DataError
from engine.reporting.quantstats_part import Part
from engine.reporting.tearsheet import TearsheetPage, write_tearsheet
from engine.runs import load_run
from helpers.made_runs import saved, simulated
from helpers.waiting import LONG_SECONDS, wait_until

HLBT = Path(sys.executable).parent / "hlbt"


def test_a_page_is_that_of_a_report_whole_or_in_two_steps_and_an_error_is_its_error(tmp_path: Path) -> None:
    run, pages = saved(simulated(), tmp_path / "run"), []
    with TearsheetPool(pages.append) as pool:
        pool.submit(run.folder)
        pool.wait()
        assert pages == [run.folder / "tearsheet.html"]
        content = pages[0].read_bytes()
        pool.submit(tmp_path / "none")
        with pytest.raises(DataError, match="none is no run folder"):
            pool.wait()
        page = TearsheetPage(run)
        assert page.inputs is not None
        part = pool.quantstats(page.inputs)
        early = page.write(run.folder, Part(pending=True)).read_text(encoding="utf-8")
        assert "part is being made" in early and "Key Performance Metrics" not in early and "Sharpe" in early
        assert page.write(run.folder, part()).read_bytes() == content and b"Key Performance Metrics" in content
    assert write_tearsheet(load_run(run.folder)).read_bytes() == content


def test_a_part_whose_worker_is_killed_is_left_out_with_the_reason(tmp_path: Path) -> None:
    page = TearsheetPage(saved(simulated(), tmp_path / "run"))
    assert page.inputs is not None
    with TearsheetPool() as pool:
        part = pool.quantstats(page.inputs)
        for process in list(pool._pool._processes.values()):
            os.kill(process.pid or 0, signal.SIGKILL)
        assert "was killed from outside" in part().reason


def test_a_worker_that_is_killed_is_reported(tmp_path: Path) -> None:
    run = saved(simulated(), tmp_path / "run")
    with TearsheetPool() as pool:
        pool.submit(run.folder)
        for process in list(pool._pool._processes.values()):
            os.kill(process.pid or 0, signal.SIGKILL)
        with pytest.raises(DataError, match=r"run was killed from outside.*`hlbt report"):
            pool.wait()


#: In place of QuantStats, which takes seconds to load and a moment to end: one to load, and as much memory to free.
LIBRARY = "import time\ntime.sleep(1.0)\nheld = b'x' * 300_000_000\n"
PRELUDE = """
import os, signal, threading, time
from multiprocessing import forkserver
from pathlib import Path
from engine.commands import tearsheet_pool
from engine.commands.tearsheet_pool import TearsheetPool
tearsheet_pool._PAGE = tearsheet_pool._PART = ("library",)
"""


def assert_says(code: str, expected: str, folder: Path) -> None:
    """Run `code` in a process of its own, whose pools load :data:`LIBRARY`: it says this, and nothing of an error."""
    (folder / "library.py").write_text(LIBRARY)
    ended = subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=LONG_SECONDS,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, expected, "")


#: The server is loading its library when the interrupt comes, and done when the command ends.
INTERRUPTED_START = """
def again():  # while the end of the pool is waited for
    while not pool._pool._shutdown_thread:
        time.sleep(0.001)
    os.killpg(0, signal.SIGINT)
try:
    with TearsheetPool() as pool:
        threading.Timer(0.1, os.killpg, (0, signal.SIGINT)).start()
        second = threading.Thread(target=again)
        second.start()
        pool.submit(Path("none"))
        time.sleep(60)
except KeyboardInterrupt:
    try:
        second.join()
        time.sleep(0.2)
    except KeyboardInterrupt:  # the pool had ended already
        pass
    print("interrupted")
with TearsheetPool() as pool:  # once the server has answered, it has also started what came before
    pool._pool.submit(os.getpid).result()
"""


@pytest.mark.slow
def test_an_interrupt_while_a_worker_starts_leaves_no_worker_behind(tmp_path: Path) -> None:
    """A worker that the pool does not know ends in a traceback of its own: what it connects to is gone by then."""
    assert_says(INTERRUPTED_START, "interrupted\n", tmp_path)


#: Ctrl-C comes while the server is started.
INTERRUPTED_ENTRY = """
start = forkserver.ensure_running
def interrupted():
    start()
    os.kill(os.getpid(), signal.SIGINT)
forkserver.ensure_running = interrupted
try:
    with TearsheetPool():
        pass
except KeyboardInterrupt:
    server = forkserver._forkserver._forkserver_pid
    print("ended" if os.waitid(os.P_PID, server, os.WEXITED | os.WNOHANG | os.WNOWAIT) else "loads its libraries")
"""


def test_an_interrupt_while_the_server_starts_ends_it(tmp_path: Path) -> None:
    """Nothing else would: whoever reads what the command prints waited for seconds."""
    assert_says(INTERRUPTED_ENTRY, "ended\n", tmp_path)


#: The first server takes a moment to end.
NEXT_POOL = """
try:
    with TearsheetPool() as pool:
        pool.submit(Path("none"))
        raise KeyboardInterrupt
except KeyboardInterrupt:
    with TearsheetPool(whole=False) as pool:
        print(pool._pool.submit(abs, -1).result())
"""


def test_the_pool_after_an_interrupted_one_has_a_server_of_its_own(tmp_path: Path) -> None:
    assert_says(NEXT_POOL, "1\n", tmp_path)


def alive(group: int) -> list[str]:
    """What the processes of a group are that run; those that have ended and wait to be reaped do not."""
    listing = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listing.splitlines()]
    return [row[2] for row in rows if int(row[0]) == group and "Z" not in row[1]]


def test_a_command_that_fails_keeps_no_reader_waiting(tmp_path: Path) -> None:
    """The process that loads QuantStats has the same output, and would hold it open until all is loaded."""
    command = [HLBT, "backtest", "--oracle", "research.oracles.momentum:Momentum", "--set", f"data.cache={tmp_path}/no"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as failed:
        failed.wait()
        left = [arguments for arguments in alive(failed.pid) if "forkserver" in arguments]
        said = failed.communicate()[0]
    assert failed.returncode == 1 and said.startswith("hlbt: ") and said.count("\n") == 1
    assert not left


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_demo_ends_at_once_and_leaves_no_process(sign: signal.Signals, sample_cache: Path) -> None:
    """SIGINT as a terminal sends it, to every process of the group; SIGKILL to the command alone."""
    shutil.copytree(sample_cache, "own")
    with subprocess.Popen(
        [HLBT, "demo", "--set", "data.cache=own"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as demo:
        # Its page is being made then.
        wait_until(lambda: demo.poll() is not None or list(Path("reports").glob("momentum-*")))
        os.killpg(demo.pid, sign) if sign == signal.SIGINT else demo.kill()
        _, errors = demo.communicate()
    if sign == signal.SIGINT:
        assert demo.returncode == 130
        assert errors == "hlbt: interrupted. Finished work is kept; run the command again to continue.\n"
        assert not [*Path("reports").glob("*/**/*.html"), *Path("reports").rglob("*.writing")]  # no page was waited for
    wait_until(lambda: not alive(demo.pid))
