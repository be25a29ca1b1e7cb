"""The S3 sync killed at any moment, and over many days: the same bytes, and no more memory."""
# ruff: noqa: F811 (fixtures of another file)

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path

import lz4.frame
import pandas as pd

from archive_server import ACCOUNT, Proxy, fill, key_of, packed
from engine.data.store import Store
from test_s3 import OBJECTS, _account, server, sync, undisturbed, words  # noqa: F401
from test_store import content

ROOT = Path(__file__).parent.parent

# SIGKILL. The real command dies at a random moment after its first request; run again, it ends with the same bytes.


def _killed(arguments: tuple[str, Path, float]) -> tuple[int, int, float]:
    """Run the command, killed some seconds after its first request; its exit code, files that it left, its seconds."""
    server, cache, moment = arguments
    first, over = threading.Event(), threading.Event()
    begun: list[float] = []

    def request() -> None:
        begun.append(time.monotonic())
        first.set()

    with Proxy(server, latency=0.01, on_request=request) as proxy:
        code = "from engine.cli import main; main()"
        command = [sys.executable, "-c", code, "data", *map(str, words(proxy.url, cache)), "--jobs", "2"]
        environment = {**os.environ, **ACCOUNT, "PYTHONPATH": str(ROOT)}
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def kill() -> None:
            first.wait(60)
            if not over.wait(moment):
                child.send_signal(signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        exit_code = child.wait(120)
        seconds = time.monotonic() - begun[0] if begun else 0.0
        over.set()
        first.set()
        killer.join()
    return exit_code, sum(path.is_file() for path in cache.rglob("*")), seconds


def test_killed_at_20_random_moments_and_run_again_the_cache_is_the_same(
    server: str, tmp_path: Path, undisturbed: Path
) -> None:
    whole, _, span = _killed((server, tmp_path / "whole", 60.0))
    assert whole == 0 and content(tmp_path / "whole") == content(undisturbed)
    generator = random.Random(20)
    jobs = [(server, tmp_path / f"cache{number}", generator.uniform(0, span)) for number in range(20)]
    with ThreadPool(2) as pool:
        ends = pool.map(_killed, jobs)
    codes, left, _ = zip(*ends, strict=True)
    assert set(codes) <= {0, -signal.SIGKILL} and codes.count(-signal.SIGKILL) >= 10, codes
    assert len(set(left)) >= 3, f"the moments are all alike: {left}"
    expected = content(undisturbed)
    for _, cache, moment in jobs:
        report = sync(server, cache)
        assert not report.problems
        assert content(cache) == expected, f"killed {moment:.3f} s after the first request"


def test_what_a_kill_after_the_commit_left_goes_with_a_sync_that_has_nothing_to_do(
    server: str, tmp_path: Path, undisturbed: Path
) -> None:
    cache = tmp_path / "cache"
    sync(server, cache)
    (cache / "hourly" / "2024-01.0123456789ab.parquet").write_bytes(b"the month as it was before")
    sync(server, cache)
    assert content(cache) == content(undisturbed)


MEMORY = """
import sys
from engine.data.archive import Range, make_plan
from engine.data.s3 import Bucket
from engine.data.store import Store
from engine.data.sync_s3 import sync_s3
bucket, store = Bucket(sys.argv[1], sys.argv[2]), Store(sys.argv[3])
sync_s3(store, bucket, make_plan(bucket, {}, Range()), jobs=2)
# Not getrusage: its peak is the parent's until the child's own is higher.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_memory_does_not_grow_with_the_days(server: str, tmp_path: Path) -> None:
    body = lz4.frame.decompress(OBJECTS[key_of("2023-12-30")]).decode()
    peaks = {}
    for count in (10, 120):
        days = [f"{day:%Y-%m-%d}" for day in pd.date_range("2024-01-01", periods=count)]
        fill(server, {key_of(day): packed(body.replace("2023-12-30", day)) for day in days}, f"{count}-days")
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, f"{count}-days", server, str(tmp_path / str(count))],
            env={**os.environ, **ACCOUNT, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        peaks[count] = int(done.stdout)
    assert len(Store(tmp_path / "120").read_objects()) == 120
    assert peaks[120] < peaks[10] * 1.15, peaks
