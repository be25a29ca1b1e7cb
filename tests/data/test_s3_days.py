"""Days of the archive that come in parts: half published, in small batches, downloaded before, replaced meanwhile."""
# ruff: noqa: F811 (fixtures of another file)

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import pandas as pd
import pytest
from test_s3 import OBJECTS, TEXTS, _account, hlbt, server, sync, undisturbed, words  # noqa: F401

from engine import backtest, decisions_of
from engine.data import sync_s3 as module
from engine.data.cache import Store
from engine.data.cache_status import status
from engine.data.panel_loader import load_panel
from engine.data.s3_archive import ArchiveObject, ArchiveRange, plan_downloads, verified_sha256
from engine.data.s3_bucket import Bucket
from engine.data.sync_report import SkippedItem
from engine.data.sync_s3 import sync_s3
from helpers.archive_server import BUCKET, client, key_of, packed
from helpers.asset_ctxs import naive
from helpers.stores import cells, content, table

pytestmark = pytest.mark.slow

KEY = key_of("2024-01-01")


def put(server: str, body: bytes) -> None:
    client(server).put_object(Bucket=BUCKET, Key=KEY, Body=body)


@pytest.fixture
def published(server: str) -> Iterator[str]:
    """The server; the day is whole again afterwards."""
    yield server
    put(server, OBJECTS[KEY])


def test_a_day_published_in_part_is_made_whole_when_it_is_published_anew(
    published: str, tmp_path: Path, undisturbed: Path
) -> None:
    cache = tmp_path / "cache"
    lines = TEXTS["2024-01-01"].splitlines()
    put(published, packed("\n".join(lines[: 1 + 3 * 500]) + "\n"))  # three coins, to 08:19
    assert sync(published, cache).counts["taken"] == 4
    before, there = cells(Store(cache)), cells(Store(undisturbed))
    assert set(before) < set(there) and len(before) < len(there) - 200
    assert Store(cache).read_objects()[KEY].last == int(pd.Timestamp("2024-01-01T08:19Z").timestamp())
    put(published, OBJECTS[KEY])
    report = sync(published, cache)
    # Row 09:00 was of 08:19 and is of 08:59: its hour was not over.
    assert report.counts["taken"] == 1 and not report.problems and report.merge.changed > 0
    assert content(cache) == content(undisturbed)
    assert sync(published, cache).counts["taken"] == 0


def test_a_day_that_ends_early_is_said_and_its_last_record_is_a_price_and_no_quote(
    published: str, tmp_path: Path, hlbt: Any
) -> None:
    cache, instant = tmp_path / "cache", pd.Timestamp("2024-01-01T23:00Z")
    lines = TEXTS["2024-01-01"].splitlines()
    put(published, packed("\n".join(lines[: 1 + 3 * (22 * 60 + 6)]) + "\n"))
    code, out, err = hlbt(*words(published, cache, "--json"))
    report = json.loads(out)
    short = {"key": KEY, "last": "2024-01-01T22:05Z", "end": "2024-01-02T00:00Z"}
    assert code == 0 and report["short_objects"] == [short], err
    assert report["stale"] == 3 + 1 and "--quotes l2book" in " ".join(report["notes"])  # and GONE at 11:39
    panel = load_panel(cache)
    row = panel.index.get_loc(instant)
    told = naive("\n".join(lines[: 1 + 3 * (22 * 60 + 6)]), "2024-01-01")
    last = told[told["time"] == instant].set_index("coin")["mid"].to_dict()
    mids = dict(zip(panel.coins, panel.values("mid")[row], strict=True))
    assert mids == pytest.approx({**last, "GONE": np.nan}, nan_ok=True) and sum(map(np.isfinite, mids.values())) == 3
    assert panel.tradable[row - 1].sum() == 3 and not panel.tradable[row : row + 25].any()
    assert load_panel(cache, coins=["BTC"]).tradable[row : row + 25].sum() == 0
    everything = pd.DataFrame(1.0, index=decisions_of(panel), columns=["BTC"])
    assert "2 of 5 decisions without any price to trade at" in backtest(panel, everything).notes[0]
    # Row 24:00 lacks a price of anything; the day after it has no file, which is another matter.
    assert status(Store(cache))["short_objects"] == [{**short, "hours_without_price": 1}]
    # A close of candles is a quote, and comes before a price of 22:05; a book comes before both.
    Store(cache).merge([table({"BTC": [7.0]}, start=str(instant), volume_usd={"BTC": [3.0]})], "api")
    assert (load_panel(cache).values("mid")[row, 0], load_panel(cache).tradable[row, 0]) == (7.0, True)
    sync(published, cache, ArchiveRange(books=True))
    healed = load_panel(cache)
    assert (healed.tradable[row, :2].all(), healed.values("mid")[row, 0]) == (True, pytest.approx(40_000.0, rel=1e-2))
    put(published, OBJECTS[KEY])
    assert sync(published, cache).details["short_objects"] == [] == status(Store(cache))["short_objects"]
    assert load_panel(cache).tradable[row].sum() == 3


def test_a_day_published_anew_with_the_same_rows_counts_as_taken(published: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    sync(published, cache)
    put(published, lz4.frame.compress(TEXTS["2024-01-01"].encode(), compression_level=9))
    report = sync(published, cache)
    assert (report.counts["taken"], report.problems, report.merge.months) == (1, [], ())
    assert sync(published, cache).counts["taken"] == 0


def test_batches_of_a_day_each_end_with_the_same_bytes(
    server: str, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 1)
    report = sync(server, tmp_path / "cache")
    assert report.counts["taken"] == 4
    assert content(tmp_path / "cache") == content(undisturbed)


def test_downloads_of_a_killed_sync_go_to_raw_or_away(server: str, tmp_path: Path, undisturbed: Path) -> None:
    cache = tmp_path / "cache"
    for key, body in OBJECTS.items():
        (cache / "incoming" / key).parent.mkdir(parents=True, exist_ok=True)
        (cache / "incoming" / key).write_bytes(body)
    assert sync(server, cache, keep_raw=True).counts["reused"] == 4
    assert {str(path.relative_to(cache / "raw")) for path in (cache / "raw").rglob("*.lz4")} == set(OBJECTS)
    # What was committed before the kill is not wanted again, and does not stay.
    shutil.rmtree(cache / "raw")
    (cache / "incoming" / KEY).parent.mkdir(parents=True, exist_ok=True)
    (cache / "incoming" / KEY).write_bytes(OBJECTS[KEY])
    assert sync(server, cache).counts["reused"] == 0
    assert not list((cache / "incoming").rglob("*.lz4"))
    assert content(cache) == content(undisturbed)


def test_an_object_replaced_while_the_sync_runs_is_not_mixed_with_its_listing(published: str, tmp_path: Path) -> None:
    bucket, store = Bucket(BUCKET, published), Store(tmp_path / "cache")
    plan = plan_downloads(bucket, {}, ArchiveRange())
    put(published, packed(TEXTS["2024-01-01"].replace(",BTC,", ",ETH,")))
    report = sync_s3(store, bucket, plan)
    assert report.skipped == (SkippedItem(KEY, "was replaced while the sync ran; sync again"),)
    assert report.counts["taken"] == 3


def test_what_is_no_price_is_said(published: str, tmp_path: Path, hlbt: Any) -> None:
    lines = TEXTS["2024-01-01"].splitlines()
    parts = lines[-1].split(",")
    lines[-1] = ",".join([*parts[:8], "0", *parts[9:]])
    put(published, packed("\n".join(lines) + "\n"))
    code, out, err = hlbt(*words(published, tmp_path / "cache"))
    assert code == 0 and "1 values that are no price (0 or less) left out" in out, err
    code, out, _ = hlbt(*words(published, tmp_path / "other", "--json"))
    assert json.loads(out)["unusable"] == 1


def test_an_earlier_download_is_used_only_when_it_is_this_very_object(tmp_path: Path) -> None:
    path, body = tmp_path / "day", b"0123456789"

    def item(etag: str, size: int = 10) -> ArchiveObject:
        return ArchiveObject(KEY, etag, size, "asset_ctxs", date(2024, 1, 1))

    assert verified_sha256(path, item("x")) is None
    path.write_bytes(body)
    sha256 = hashlib.sha256(body).hexdigest()
    assert verified_sha256(path, item(hashlib.md5(body).hexdigest())) == sha256
    assert verified_sha256(path, item(hashlib.md5(b"0123456780").hexdigest())) is None
    assert verified_sha256(path, item("0123-2")) == sha256  # uploaded in parts: the tag is no digest of the content
    assert verified_sha256(path, item("0123-2", 11)) is None
