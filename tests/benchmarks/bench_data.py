"""The figures of the S3 sync; `make bench` prints them with the others. What is timed is checked first."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import lz4.frame
import pandas as pd
from rich.console import Console

from engine.data.asset_ctxs import reduce_day
from engine.data.l2book import last_quote
from helpers.archive_server import ACCOUNT, BUCKET, day_text, fill, key_of, packed, s3_server
from helpers.project import ROOT
from helpers.shared_data import BOOK

if TYPE_CHECKING:
    from bench import Figure

BOOK_END = 1_704_114_000_000  # 2024-01-01 13:00 UTC
#: Peak memory of its own of a process, MB. (getrusage would tell the parent's, where that is higher.)
PEAK = 'print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))'
DAY = f"""
import sys, datetime, pyarrow
pyarrow.set_cpu_count(1)
from engine.data.asset_ctxs import reduce_day
assert reduce_day(open(sys.argv[1], "rb").read(), datetime.date(2025, 1, 1)).records == 288_000
{PEAK}
"""
SYNC = f"""
import sys
from engine.data.s3_archive import ArchiveRange, plan_downloads
from engine.data.s3_bucket import Bucket
from engine.data.cache import Store
from engine.data.sync_s3 import sync_s3
bucket, store = Bucket(sys.argv[1], sys.argv[2]), Store(sys.argv[3])
report = sync_s3(store, bucket, plan_downloads(bucket, {{}}, ArchiveRange()))
assert not report.problems, report.problems
{PEAK}
"""


def _python(code: str, *arguments: object) -> str:
    environment = {**os.environ, **ACCOUNT, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def _megabytes(code: str, *arguments: object) -> float:
    return float(_python(code, *arguments)) / 1000


def naive_quote(content: bytes) -> tuple[float, float]:
    """Best bid and ask of the last snapshot before 13:00; every line is parsed."""
    last = None
    for line in lz4.frame.decompress(content).splitlines():
        data = json.loads(line)["raw"]["data"]
        if data["time"] < BOOK_END:
            last = data["levels"]
    assert last is not None
    return float(last[0][0]["px"]), float(last[1][0]["px"])


def pandas_quote(content: bytes) -> tuple[float, float]:
    """The same as notebooks do it: the whole hour as a frame."""
    frame = pd.read_json(io.BytesIO(lz4.frame.decompress(content)), lines=True)
    books = pd.json_normalize(frame["raw"])
    last = books[books["data.time"] < BOOK_END].iloc[-1]["data.levels"]
    return float(last[0][0]["px"]), float(last[1][0]["px"])


def figures(console: Console) -> list[Figure]:
    """One day, one book hour, a thousand days."""
    with tempfile.TemporaryDirectory() as scratch:
        return [*_one_day(Path(scratch)), *_one_book(console), *_many_days(console, Path(scratch))]


def _one_day(scratch: Path) -> list[Figure]:
    from bench import Figure, timed

    content = packed(day_text("2025-01-01", {f"C{number}": (0, 1440) for number in range(200)}))
    (scratch / "day.lz4").write_bytes(content)
    day = reduce_day(content, date(2025, 1, 1))
    assert (day.records, day.table.num_rows) == (288_000, 4_800)
    return [
        Figure("asset_ctxs day, 288,000 rows to hourly", timed(lambda: reduce_day(content, date(2025, 1, 1)), 7), 0.3),
        Figure("  its process at the peak, MB", [_megabytes(DAY, scratch / "day.lz4")], 250),
    ]


def _one_book(console: Console) -> list[Figure]:
    from bench import Figure, timed

    if not BOOK.is_file():
        console.print(f"The genuine book is not at {BOOK}: no figure for it.")
        return []
    content = BOOK.read_bytes()
    found = vars(last_quote(content, "BTC", BOOK_END))["values"]
    assert (found["bid"], found["ask"]) == naive_quote(content) == pandas_quote(content)
    size = len(lz4.frame.decompress(content)) / 1e6
    return [
        Figure(f"book hour of {size:.1f} MB", timed(lambda: last_quote(content, "BTC", BOOK_END), 30), 0.030),
        Figure("  every line by json.loads, for comparison", timed(lambda: naive_quote(content), 3), float("inf")),
        Figure("  every line by pandas.read_json", timed(lambda: pandas_quote(content), 3), float("inf")),
    ]


def _many_days(console: Console, scratch: Path) -> list[Figure]:
    from bench import Figure, timed

    body = day_text("2025-01-01", {"BTC": (0, 1440)})
    peaks = {}
    with s3_server() as url:
        for count in (10, 1000):
            bucket = BUCKET if count == 1000 else f"{count}-days"
            days = [f"{day:%Y-%m-%d}" for day in pd.date_range("2023-05-20", periods=count)]
            fill(url, {key_of(day): packed(body.replace("2025-01-01", day)) for day in days}, bucket)
            peaks[count] = _megabytes(SYNC, bucket, url, scratch / f"{count}")
        console.print(f"S3 sync at the peak: {peaks[10]:.0f} MB for 10 days, {peaks[1000]:.0f} MB for 1,000.")
        words = ["data", "sync", "--source", "s3", "--endpoint-url", url, "--json"]
        code = f"import sys; sys.argv[1:] = {words!r}; from engine.cli import main; main()"
        os.environ["HLBT_DATA_CACHE"] = str(scratch / "1000")
        assert json.loads(_python(code))["taken"] == 0
        return [
            Figure("S3 sync, memory of 1,000 days over that of 10", [peaks[1000] / peaks[10]], 1.15),
            Figure("no-op S3 sync of 1,000 days", timed(lambda: _python(code), 3), 5.0),
        ]
