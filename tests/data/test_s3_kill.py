"""The S3 sync killed at any moment, and over many days: the same bytes, and no more memory."""
# ruff: noqa: F811 (fixtures of another file)

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from multiprocessing.context import ForkServerContext as Forks
from pathlib import Path

import lz4.frame
import pandas as pd
import pytest
from test_s3 import OBJECTS, _account, server, sync, undisturbed, words  # noqa: F401

from engine.data.cache import Store
from helpers.archive_server import ACCOUNT, fill, key_of, packed
from helpers.effort import some
from helpers.project import ROOT
from helpers.stores import content

pytestmark = pytest.mark.slow


# SIGKILL. The real command dies at a step, or some milliseconds later; run again, it ends with the same bytes.


def _kill(forks: Forks, server: str, cache: Path, step: int = 0, after: float = 0.0) -> tuple[int | None, int, int]:
    """Run the command, killed at a step; its exit code, files that it left, steps that there were if it was not."""
    from helpers.killed import run_and_die_at

    steps = cache.with_suffix(".steps")
    arguments = [*map(str, words(server, cache)), "--jobs", "2"]
    child = forks.Process(
        target=run_and_die_at, args=(["data", *arguments], str(cache), ACCOUNT, step, after, str(steps))
    )
    child.start()
    child.join(120)
    left = sum(path.is_file() for path in cache.rglob("*"))
    # A process that was killed while it wrote the number left an empty file.
    return child.exitcode, left, int(steps.read_text() or 0) if steps.exists() else 0


def test_killed_at_any_step_and_run_again_the_cache_is_the_same(
    server: str, tmp_path: Path, undisturbed: Path, forks: Forks
) -> None:
    whole, _, steps = _kill(forks, server, tmp_path / "whole")
    expected = content(undisturbed)
    assert whole == 0 and content(tmp_path / "whole") == expected and steps > 20
    # Two workers: which comes first, and how often they connect, is not the same each time.
    generator, codes, left = random.Random(20), [], set()
    for step in range(1, steps + 1, some(max(2, steps // 6), 1)):
        after = 0.0 if step % 4 == 1 else generator.uniform(0.0, 0.02)
        cache = tmp_path / f"cache{step}"
        code, files, _ = _kill(forks, server, cache, step, after)
        codes.append(code)
        left.add(files)
        report = sync(server, cache)
        assert not report.problems
        assert content(cache) == expected, f"killed {after:.3f} s after step {step} of {steps}"
    assert set(codes) <= {0, -signal.SIGKILL} and codes.count(-signal.SIGKILL) >= 0.6 * len(codes), codes
    assert len(left) >= 3, f"the steps are all alike: {left}"


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
from engine.data.s3_archive import ArchiveRange, plan_downloads
from engine.data.s3_bucket import Bucket
from engine.data.cache import Store
from engine.data.sync_s3 import sync_s3
bucket, store = Bucket(sys.argv[1], sys.argv[2]), Store(sys.argv[3])
sync_s3(store, bucket, plan_downloads(bucket, {}, ArchiveRange()), jobs=2)
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
