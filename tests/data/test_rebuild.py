"""A cache without its manifest, with damaged files, or of an older schema: what is intact is read, no more is lost."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.data.cache import Store
from engine.data.coin_table import CoinMeta
from engine.data.manifest import MANIFEST, ObjectRecord
from engine.data.panel_loader import load_panel
from engine.data.rebuild import rebuild
from engine.errors import DataError
from helpers.commands import Hlbt
from helpers.stores import cells, content, table

START = "2024-03-31T20:00Z"
OBJECTS = {"asset_ctxs-2024-03": [ObjectRecord("asset_ctxs/20240331.csv.lz4", "etag", 1, "sha256", 1, 1)]}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three sources over two months; the archive's objects are recorded."""
    store = Store(tmp_path / "cache")
    store.update_coin_table([CoinMeta("BTC", 5, 40.0)], "meta.json", None)
    store.merge(
        [table({"BTC": [1.0] * 8, "ETH": [2.0] * 8}, START, volume_usd=dict.fromkeys(("BTC", "ETH"), [9.0] * 8))], "api"
    )
    store.merge(
        [table({"BTC": [1.5] * 6}, START, funding={"BTC": [1e-5] * 6}, oracle={"BTC": [1.0] * 6})],
        "s3",
        objects=OBJECTS,
    )
    store.merge(
        [table({"BTC": [np.nan] * 8}, START, funding={"BTC": [2e-5] * 8})],
        "api",
        asked={"funding": {"BTC": ((1, 9, 0),)}},
    )
    store.merge([table({"ETH": [3.0] * 9}, START)], "freqtrade")
    return store


def test_without_a_manifest_nothing_is_deleted_and_it_is_made_again_from_the_files(store: Store, hlbt: Hlbt) -> None:
    before, held, table_before = content(store.path), cells(store), store.require().coins
    for lost in (lambda path: path.unlink(), lambda path: path.write_text("{")):
        lost(store.path / MANIFEST)
        for act in (lambda: store.merge([table({"SOL": [1.0]})], "api"), lambda: load_panel(store.path), store.verify):
            with pytest.raises(DataError, match=r"hlbt data rebuild.*Do not delete the folder: candles"):
                act()
        assert {name for name in content(store.path) if name != MANIFEST} == before.keys() - {MANIFEST}
        done = hlbt("data", "rebuild", "--set", f"data.cache={store.path}")
        assert done.code == 0 and "the manifest was made again" in done.out and "import meta FILE" in done.out, done.err
        assert "Lost: which hours the API was asked for" in done.out
        assert cells(store) == held and store.verify().ok
        coins = store.require().coins
        for name in ("first_price", "last_price", "first_funding", "last_funding", "source_ends"):
            assert [getattr(coin, name) for coin in coins.values()] == [
                getattr(coin, name) for coin in table_before.values()
            ]
        assert store.read_objects().keys() == {"asset_ctxs/20240331.csv.lz4"}
    assert not rebuild(store).wrote


def test_a_damaged_file_is_kept_aside_and_what_it_held_can_be_downloaded_again(store: Store) -> None:
    before = cells(store)
    files = store.require().files
    s3, api = files["2024-03-s3"].name, files["2024-04-api"].name
    content_of = bytearray((store.path / s3).read_bytes())
    content_of[len(content_of) // 2] ^= 1
    (store.path / s3).write_bytes(content_of)
    (store.path / api).unlink()
    with pytest.raises(DataError, match="Do not delete the folder"):
        load_panel(store.path)
    report = rebuild(store)
    assert report.damaged == (s3,) and (store.path / f"{s3}.damaged").read_bytes() == content_of
    assert len(report.lost) == 3 and "which hours the API was asked for" in report.lost[2]
    assert "sync --source s3` downloads it again" in report.lost[0]
    assert "mid, funding, volume_usd of 2 coins in 2024-04 from api" in report.lost[1]
    assert "older candles are lost for good" in report.lost[1]
    assert (
        store.verify().ok and cells(store).items() != before.items() and load_panel(store.path).coins == ("BTC", "ETH")
    )
    assert store.read_objects() == {} and store.require().asked == {}
    assert store.require().coins["BTC"].sz_decimals == 5
    store.merge([table({"SOL": [1.0]})], "api")
    assert (store.path / f"{s3}.damaged").exists()


def test_what_is_no_cache_cannot_be_rebuilt(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file of a cache"):
        rebuild(Store(tmp_path))


# --- a cache of schema 2: a file a month, with the source of each cell where a field has several


def older(folder: Path, schema: int = 2) -> None:
    """April 2024 of BTC and ETH as it was written before: mids of two sources, everything else of one."""
    rows = table(
        {"BTC": [1.5, 1.5, 1.0], "ETH": [2.0, 3.0, 3.0]},
        "2024-04-01T00:00Z",
        volume_usd={"BTC": [9.0] * 3, "ETH": [np.nan] * 3},
    )
    rows = rows.set_column(1, "coin", rows.column("coin").cast(pa.string()).dictionary_encode())
    source = pa.array(["s3", "s3", "api", "api", "s3", "s3"]).dictionary_encode()
    rows = rows.add_column(3, "mid_source", source)
    (folder / "hourly").mkdir(parents=True)
    pq.write_table(rows, folder / "file")
    body = (folder / "file").read_bytes()
    digest = hashlib.sha256(body).hexdigest()
    name = f"hourly/2024-04.{digest[:12]}.parquet"
    (folder / "file").rename(folder / name)
    span = {"first_price": "2024-04-01T00:00Z", "last_price": "2024-04-01T02:00Z"}
    state: dict[str, Any] = {
        "schema": schema,
        "synthetic": False,
        "files": {
            "2024-04": {
                "name": name,
                "rows": 6,
                "first": "2024-04-01T00:00Z",
                "last": "2024-04-01T02:00Z",
                "coins": 2,
                "fields": ["mid", "volume_usd"],
                "sha256": digest,
                "bytes": len(body),
                "sources": {"mid": ["api", "s3"], "volume_usd": ["api"]},
            }
        },
        "coins": {
            coin: {**span, "given": {"s3": "2024-04-01T02:00Z", "api": "2024-04-01T02:00Z"}} for coin in ("BTC", "ETH")
        },
        "objects": {},
    }
    state["sha256"] = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(state, indent=1))
    (folder / "api_empty.json").write_text("{}")


def test_a_cache_of_before_is_read_merged_into_and_loses_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    older(store.path)
    panel = load_panel(store.path)
    assert panel.frame("mid")["BTC"].tolist() == [1.5, 1.5, 1.0] and panel.frame("mid")["ETH"].tolist() == [
        2.0,
        3.0,
        3.0,
    ]
    held = cells(store)
    (file,) = {entry.name for entry in store.require().files.values()}
    assert {(entry.source, entry.mixed) for entry in store.require().files.values()} == {("api", True), ("s3", True)}
    # A source that is written gets a file of its own; the other one stays where it is.
    assert store.merge([table({"BTC": [7.0, 7.0, 1.0, 4.0]}, "2024-04-01T00:00Z")], "api").added == 3
    assert file in {entry.name for entry in store.require().files.values()}
    assert {key: value for key, value in cells(store).items() if key in held} == held
    report = store.merge([table({"BTC": [1.5, 1.6]}, "2024-04-01T00:00Z")], "s3")
    assert [conflict.cells for conflict in report.conflicts] == [1]
    store.merge([table({"SOL": [1.0]}, "2024-04-01T00:00Z")], "s3")
    assert file not in content(store.path) and store.verify().ok and "api_empty.json" not in content(store.path)
    assert {key: value for key, value in cells(store).items() if key in held} == held
    assert load_panel(store.path, end="2024-04-01T02:00Z", coins=["BTC", "ETH"]).digest == panel.digest


@pytest.mark.parametrize("schema", [1, 2])
def test_a_manifest_of_before_can_be_rebuilt_too(tmp_path: Path, schema: int) -> None:
    store = Store(tmp_path / "cache")
    older(store.path, schema)
    shutil.copytree(store.path, tmp_path / "whole")
    if schema == 2:
        (store.path / MANIFEST).unlink()
    with pytest.raises(DataError, match="hlbt data rebuild"):
        store.require()
    assert rebuild(store).wrote
    mids = {key: value for key, value in cells(store).items() if key[1] == "mid"}
    assert len(mids) == 6 and len(cells(store)) == 9
    # Of the volume no one says any more where it came from: it stays under whatever comes.
    assert {entry.source: entry.fields for entry in store.require().files.values()} == {
        "api": ("mid",),
        "s3": ("mid",),
        "unknown": ("volume_usd",),
    }
