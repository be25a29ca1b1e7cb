"""`hlbt data sync --source s3` and `hlbt data cost` against a real S3 server on loopback, with its faults."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import pytest
from test_l2book import snapshot

from engine.clock import parse_instant
from engine.data.cache import Store
from engine.data.panel_loader import load_panel
from engine.data.s3_archive import ArchiveRange, describe, plan_downloads
from engine.data.s3_bucket import Bucket
from engine.data.sync_s3 import sync_s3
from engine.errors import DataError
from helpers.archive_server import ACCOUNT, BUCKET, Proxy, client, day_text, fill, key_of, packed, s3_server
from helpers.asset_ctxs import naive
from helpers.commands import Hlbt, outcome
from helpers.shared_data import BOOK, shared
from helpers.stores import cells, content

pytestmark = pytest.mark.slow

EVER = {"BTC": (0, 1440), "ETH": (0, 1440)}
# NEW appears on the last day of the year; GONE vanishes on it; 2024-01-02 is missing.
DAYS = {
    "2023-12-30": {**EVER, "GONE": (0, 1440)},
    "2023-12-31": {**EVER, "GONE": (0, 700), "NEW": (900, 1440)},
    "2024-01-01": {**EVER, "NEW": (0, 1440)},
    "2024-01-03": {**EVER, "NEW": (0, 1440)},
}
TEXTS = {
    day: day_text(day, coins, z=place % 2 == 0, null="null" if place % 3 else "")
    for place, (day, coins) in enumerate(DAYS.items())
}
OBJECTS = {key_of(day): packed(text) for day, text in TEXTS.items()}
HOUR_22 = 1_704_150_000_000  # 2024-01-01 23:00 UTC


def book_key(coin: str, hour: int = 22) -> str:
    return f"market_data/20240101/{hour}/l2Book/{coin}.lz4"


def book(coin: str, bid: float) -> bytes:
    text = "".join(snapshot(HOUR_22 - 500 * place, bid + place, coin) for place in range(50, 0, -1))
    return lz4.frame.compress(text.encode())


BOOKS = {book_key("BTC"): book("BTC", 40_000.0), book_key("ETH"): book("ETH", 2_000.0)}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as url:
        fill(url, {**OBJECTS, **BOOKS, "asset_ctxs/README.txt": b"not a day"})
        if BOOK.is_file():
            client(url).put_object(Bucket=BUCKET, Key=book_key("BTC", 12), Body=BOOK.read_bytes())
        yield url


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    with Proxy(server) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in ACCOUNT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def hlbt(capsys: pytest.CaptureFixture[str]) -> Hlbt:
    return lambda *words: outcome(capsys, "data", *words)


def words(url: str, cache: Path, *more: object) -> tuple[object, ...]:
    return ("sync", "--source", "s3", "--endpoint-url", url, "--set", f"data.cache={cache}", *more)


def sync(url: str, cache: Path, span: ArchiveRange | None = None, **options: Any) -> Any:
    bucket, store = Bucket(BUCKET, url), Store(cache)
    recorded = {key: record.etag for key, record in store.read_objects().items()}
    return sync_s3(store, bucket, plan_downloads(bucket, recorded, span or ArchiveRange()), **options)


@pytest.fixture(scope="module")
def undisturbed(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    cache = tmp_path_factory.mktemp("undisturbed") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ACCOUNT.items():
            patch.setenv(name, value)
        report = sync(server, cache)
    assert not report.problems and report.counts["taken"] == 4
    yield cache


def test_the_hours_are_those_of_the_files(undisturbed: Path) -> None:
    expected = {}
    for day, text in TEXTS.items():
        for row in naive(text, day).to_dict("records"):
            hour = int(row["time"].timestamp()) // 3600
            expected |= {
                (row["coin"], name, hour): value
                for name, value in row.items()
                if name not in ("time", "coin") and value == value
            }
    assert len(expected) > 1500
    assert cells(Store(undisturbed)) == expected


def test_listing_delisting_and_the_missing_day(undisturbed: Path, hlbt: Any) -> None:
    panel = load_panel(undisturbed)
    table = {coin.name: coin for coin in panel.table}
    assert f"{table['NEW'].listed:%Y-%m-%d %H}" == "2023-12-31 16"
    assert f"{table['GONE'].delisted:%Y-%m-%d %H}" == "2023-12-31 12"
    assert table["BTC"].delisted is None
    assert panel.frame("tradable")["BTC"].mean() > 0.7
    assert not panel.frame("tradable")["GONE"].loc["2023-12-31T13:00Z":].any()
    # The missing day is 24 rows without a price, before it a row in each of two files.
    assert panel.frame("mid").loc["2024-01-02T01:00Z":"2024-01-03T00:00Z"].isna().all(axis=None)
    code, out, _ = hlbt("status", "--set", f"data.cache={undisturbed}", "--json")
    described = json.loads(out)
    assert code == 0 and [month["sources"]["mid"] for month in described["months"]] == [["s3"], ["s3"]]
    assert {event["coin"] for event in described["delistings"]} == {"GONE"}


def test_the_command_its_record_of_objects_and_that_the_second_downloads_nothing(
    proxy: Proxy, tmp_path: Path, hlbt: Any, undisturbed: Path
) -> None:
    cache = tmp_path / "cache"
    code, out, err = hlbt(*words(proxy.url, cache, "--json"))
    assert code == 0, err
    output = json.loads(out)
    assert (output["taken"], output["plan"]["missing_days"]) == (4, {"asset_ctxs": ["2024-01-02"]})
    assert output["plan"]["published_until"] == "2024-01-03"
    assert output["bytes"] == sum(map(len, OBJECTS.values()))
    assert content(cache) == content(undisturbed)
    # Everything but the discovery of the region says who pays.
    assert {payer for method, _, payer in proxy.requests if method == "GET"} == {"requester"}
    import hashlib

    records = Store(cache).read_objects()
    assert records.keys() == OBJECTS.keys()
    for (key, body), text in zip(OBJECTS.items(), TEXTS.values(), strict=True):
        assert records[key].sha256 == hashlib.sha256(body).hexdigest()
        assert records[key].etag == hashlib.md5(body).hexdigest()
        assert (records[key].size, records[key].rows) == (len(body), text.count("\n") - 1)
    assert sorted(proxy.gets()) == sorted(OBJECTS)
    before = content(cache)
    code, out, err = hlbt(*words(proxy.url, cache, "--json"))
    assert (code, json.loads(out)["taken"]) == (0, 0), err
    assert sorted(proxy.gets()) == sorted(OBJECTS)
    assert content(cache) == before
    code, out, _ = hlbt("verify", "--set", f"data.cache={cache}", "--json")
    assert code == 0 and json.loads(out)["files"] == 4


def test_only_the_files_of_the_range_are_fetched(proxy: Proxy, tmp_path: Path, hlbt: Any) -> None:
    # Row 2024-01-01 00:00 stands in the file of the day before; row 2024-01-02 00:00 in that of the first.
    more = ("--set", "data.start=2024-01-01T01:00Z", "--set", "data.end=2024-01-02")
    code, _, err = hlbt(*words(proxy.url, tmp_path / "cache", *more))
    assert code == 0, err
    assert proxy.gets() == [key_of("2024-01-01")]
    code, _, err = hlbt(*words(proxy.url, tmp_path / "cache", *more[:1], "data.start=2024-01-01", *more[2:]))
    assert code == 0, err
    assert proxy.gets() == [key_of("2024-01-01"), key_of("2023-12-31")]


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        (None, None, "The archive has asset_ctxs to 2024-01-03; newer"),
        ("2024-01-01T01:00Z", "2024-01-04T01:00Z", "The archive has asset_ctxs to 2024-01-03; newer"),
        (None, "2024-01-04", None),
        ("2023-12-31", "2023-12-31T12:00Z", None),
        ("2024-01-05", "2024-02-01", "The archive has nothing of that range; newer"),
    ],
)
def test_the_end_of_the_archive_is_told_only_where_it_ends_before_the_range(
    start: str | None, end: str | None, said: str | None, server: str
) -> None:
    first, last = (None if text is None else parse_instant(text, "data") for text in (start, end))
    lines = describe(plan_downloads(Bucket(BUCKET, server), {}, ArchiveRange(first, last)))
    assert [line.startswith(said or "?") for line in lines if "are missing" not in line] == (
        [] if said is None else [True]
    )


def test_books_of_one_hour_become_the_quotes_of_2300(proxy: Proxy, tmp_path: Path, hlbt: Any) -> None:
    code, out, err = hlbt(*words(proxy.url, tmp_path / "cache", "--quotes", "l2book"))
    assert code == 0, err
    assert "mid: l2book over s3 in 2 cells, of which 2 differ" in out
    frames = {name: load_panel(tmp_path / "cache").frame(name) for name in ("mid", "bid", "ask", "depth_10bps_usd")}
    assert frames["bid"].count().to_dict() == {"BTC": 1, "ETH": 1, "GONE": 0, "NEW": 0}
    row = {name: frame.loc["2024-01-01T23:00Z", "BTC"] for name, frame in frames.items()}
    assert (row["bid"], row["ask"], row["mid"]) == (40_001.0, 40_003.0, 40_002.0)
    assert row["depth_10bps_usd"] == pytest.approx(sum(2.0 * (40_001 - step) for step in range(20)))
    assert book_key("BTC", 12) not in proxy.gets()


def test_the_genuine_book_at_another_hour_of_one_coin(proxy: Proxy, tmp_path: Path, hlbt: Any) -> None:
    shared(BOOK)
    more = ("--quotes", "l2book", "--hours", "12,22", "--set", "data.coins=BTC", "--set", "data.start=2024-01-01")
    code, _, err = hlbt(*words(proxy.url, tmp_path / "cache", *more))
    assert code == 0, err
    assert book_key("ETH") not in proxy.gets()
    panel = load_panel(tmp_path / "cache", coins=["BTC"])
    assert panel.frame("ask").loc["2024-01-01T13:00Z", "BTC"] == 42699.0
    assert panel.frame("mid").loc["2024-01-01T13:00Z", "BTC"] == 42698.5


def test_cost_counts_and_sync_keeps_to_the_budget(proxy: Proxy, tmp_path: Path, hlbt: Any) -> None:
    cache = tmp_path / "cache"
    where = ("--endpoint-url", proxy.url, "--set", f"data.cache={cache}", "--usd-per-gb", "1000")
    code, out, _ = hlbt("cost", *where, "--quotes", "l2book", "--json")
    output = json.loads(out)
    size, books = sum(map(len, OBJECTS.values())), sum(map(len, BOOKS.values()))
    bills = output["datasets"]
    assert (bills["asset_ctxs"]["objects"], bills["asset_ctxs"]["bytes"]) == (4, size)
    assert (bills["l2book"]["objects"], bills["l2book"]["new_bytes"]) == (2, books)
    assert output["usd"] == pytest.approx(
        (size + books) / 1e9 * 1000 + 6 * 0.0004 / 1000 + output["listings"] * 0.005 / 1000
    )
    code, out, err = hlbt(*words(proxy.url, cache, "--usd-per-gb", "1000", "--max-usd", "0.1"))
    assert code == 1 and "over --max-usd 0.1. Nothing was downloaded. Pass --yes" in err
    assert proxy.gets() == [] and not cache.exists()
    code, out, err = hlbt(*words(proxy.url, cache, "--usd-per-gb", "1000", "--max-usd", "0.1", "--yes"))
    assert code == 0, err
    code, out, _ = hlbt("cost", *where)
    assert code == 0 and "1000 USD per GB" in out
    code, out, _ = hlbt("cost", *where, "--json")
    left = json.loads(out)
    assert (left["datasets"]["asset_ctxs"]["new_objects"], left["datasets"]["asset_ctxs"]["bytes"]) == (0, size)
    assert left["usd"] == pytest.approx(left["listings"] * 0.005 / 1000)


def test_keep_raw_keeps_the_objects_and_uses_them_again(proxy: Proxy, tmp_path: Path, undisturbed: Path) -> None:
    cache = tmp_path / "cache"
    sync(proxy.url, cache, keep_raw=True)
    kept = {str(path.relative_to(cache / "raw")): path.read_bytes() for path in (cache / "raw").rglob("*.lz4")}
    assert kept == OBJECTS
    again = tmp_path / "again"
    shutil.copytree(cache / "raw", again / "raw")
    assert sync(proxy.url, again).counts["reused"] == 4
    assert len(proxy.gets()) == 4
    assert {name: value for name, value in content(again).items() if not name.startswith("raw")} == content(undisturbed)


# Faults. Each is named and set aside, the rest goes on, the exit code says so, and the next sync repairs it.

DAMAGED = {
    "truncated LZ4": lambda good: good[:-2000],
    "cut line": lambda good: packed(lz4.frame.decompress(good).decode()[:-30]),
    "wrong columns": lambda good: packed(lz4.frame.decompress(good).decode().replace("mark_px", "markPx", 1)),
    "columns in another order": lambda good: packed(
        lz4.frame.decompress(good).decode().replace("oracle_px,mark_px", "mark_px,oracle_px", 1)
    ),
}
REASONS = {
    "truncated LZ4": "is truncated or damaged LZ4",
    "cut line": "has a line that cannot be read",
    "wrong columns": "lacks the column mark_px",
    "columns in another order": "has its columns in another order",
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_object_is_set_aside_and_repaired_by_the_next_sync(
    what: str, server: str, tmp_path: Path, hlbt: Any, undisturbed: Path
) -> None:
    key, cache = key_of("2024-01-01"), tmp_path / "cache"
    client(server).put_object(Bucket=BUCKET, Key=key, Body=DAMAGED[what](OBJECTS[key]))
    try:
        code, out, err = hlbt(*words(server, cache))
        assert code == 1 and f"1 problems: {key} {REASONS[what]}" in err
        assert "3 objects taken" in out
        assert len(Store(cache).read_objects()) == 3
        hlbt(*words(server, cache))
        assert not list((cache / "incoming").rglob("*.lz4"))
    finally:
        client(server).put_object(Bucket=BUCKET, Key=key, Body=OBJECTS[key])
    code, _, err = hlbt(*words(server, cache))
    assert code == 0, err
    assert content(cache) == content(undisturbed)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("AccessDenied", "was refused with AccessDenied"),
        ("short, AccessDenied", "was refused with AccessDenied"),
        ("SlowDown", "was refused with SlowDown, 2 times"),
        ("short", "broke off after"),
        ("less", "is incomplete"),
        ("flip", "is damaged: its MD5 is"),
    ],
)
def test_an_object_that_cannot_be_had(
    fault: str, reason: str, proxy: Proxy, tmp_path: Path, hlbt: Any, undisturbed: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    key, cache = key_of("2023-12-31"), tmp_path / "cache"
    proxy.faults[key] = [*fault.split(", "), "always"]
    code, out, err = hlbt(*words(proxy.url, cache))
    assert code == 1 and f"1 problems: {key} {reason}" in err, err
    assert "3 objects taken" in out
    assert not [path for path in cache.rglob("*") if "writing" in path.name]
    proxy.faults.clear()
    code, _, err = hlbt(*words(proxy.url, cache))
    assert code == 0, err
    assert content(cache) == content(undisturbed)
    assert len([name for name in proxy.gets() if name != key]) == 3


@pytest.mark.parametrize("fault", ["SlowDown", "short", "less", "flip"])
def test_a_passing_fault_is_not_even_noticed(
    fault: str, proxy: Proxy, tmp_path: Path, hlbt: Any, undisturbed: Path
) -> None:
    proxy.faults = {key_of("2023-12-30"): [fault], key_of("2024-01-03"): [fault]}
    code, _, err = hlbt(*words(proxy.url, tmp_path / "cache"))
    assert code == 0, err
    assert content(tmp_path / "cache") == content(undisturbed)
    assert len(proxy.gets()) == 6


def test_an_object_that_trickles_is_given_up(proxy: Proxy, tmp_path: Path, hlbt: Any) -> None:
    proxy.faults[key_of("2023-12-31")] = ["slow", "always"]
    code, out, err = hlbt(*words(proxy.url, tmp_path / "cache", "--timeout", "0.5"))
    assert code == 1 and "broke off after 0 of" in err and "(TimeoutError) (3 attempts)" in err, err
    assert "3 objects taken" in out


def test_no_account_no_bucket_no_host(proxy: Proxy, tmp_path: Path, hlbt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with monkeypatch.context() as patch:
        patch.setenv("AWS_MAX_ATTEMPTS", "six")
        code, _, err = hlbt(*words(proxy.url, cache))
        assert code == 1 and "cannot be reached: invalid literal for int() with base 10: 'six'" in err
    code, _, err = hlbt(*words("http://127.0.0.1:9", cache))
    assert code == 1 and "at http://127.0.0.1:9 cannot be reached" in err and "--endpoint-url" in err
    proxy.faults[""] = ["AccessDenied", "always"]
    code, _, err = hlbt("cost", "--endpoint-url", proxy.url)
    assert code == 1 and "cannot be listed: it was refused with AccessDenied. The account needs s3:ListBucket" in err
    proxy.faults[""] = ["InvalidAccessKeyId", "always"]
    code, _, err = hlbt("cost", "--endpoint-url", proxy.url)
    assert code == 1 and "AWS does not know the access key" in err
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    code, _, err = hlbt(*words(proxy.url, cache))
    assert code == 1 and "is requester-pays and needs an AWS account" in err and "--source api" in err
    assert not cache.exists()
    with pytest.raises(DataError, match=r"nowhere at .*There is no bucket of that name"):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        list(Bucket("nowhere", proxy.url).objects(""))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--source", "s4"), "--source is 's4'; it must be s3 or api"),
        (("--quotes", "trades"), "--quotes is 'trades'; the only kind is l2book"),
        (("--hours", "24"), "--hours is '24'; it must be hours of the day"),
        (("--jobs", "0"), "--jobs is 0"),
        (("--base-url", "http://127.0.0.1:9"), "--base-url has no meaning with --source s3"),
        (("--timeout", "0"), "--timeout is 0; it must be a number of seconds above 0"),
        (("--timeout", "nan"), "--timeout is nan"),
        (("--endpoint-url", "x", "--source", "api"), "--endpoint-url has no meaning with --source api"),
    ],
)
def test_an_option_that_cannot_be(option: tuple[str, str], message: str, tmp_path: Path, hlbt: Any) -> None:
    code, _, err = hlbt(*words("http://127.0.0.1:9", tmp_path), *option)
    assert code == 1 and message in err


def test_the_region_is_what_the_bucket_says(server: str) -> None:
    place = {"LocationConstraint": "ap-northeast-1"}
    client(server).create_bucket(Bucket="elsewhere", CreateBucketConfiguration=place)
    bucket = Bucket("elsewhere", server)
    assert list(bucket.objects("asset_ctxs/")) == []
    assert bucket._client().meta.region_name == "ap-northeast-1"


def test_made_up_and_real_data_do_not_mix_and_nothing_is_paid_to_find_out(
    proxy: Proxy, tmp_path: Path, hlbt: Any, sample_cache: Path
) -> None:
    shutil.copytree(sample_cache, tmp_path / "cache")
    code, _, err = hlbt(*words(proxy.url, tmp_path / "cache"))
    assert code == 1 and "holds synthetic data" in err
    assert proxy.gets() == []


def test_a_full_disk_is_named_and_what_came_whole_is_used(
    proxy: Proxy, tmp_path: Path, hlbt: Any, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = os.replace, [1]

    def full(*names: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real(*names)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        code, _, err = hlbt(*words(proxy.url, tmp_path / "cache", "--jobs", "1"))
    assert code == 1 and "No space left on device. Free some space" in err
    code, out, err = hlbt(*words(proxy.url, tmp_path / "cache", "--json"))
    assert code == 0 and json.loads(out)["reused"] == 1, err
    assert content(tmp_path / "cache") == content(undisturbed)


def test_a_cache_where_no_folder_can_be_made(server: str, tmp_path: Path, hlbt: Any) -> None:
    (tmp_path / "file").write_text("x")
    code, _, err = hlbt(*words(server, tmp_path / "file" / "cache"))
    assert code == 1 and "Writing below" in err and "Not a directory" in err


def test_an_object_published_anew_that_contradicts_itself(server: str, tmp_path: Path, hlbt: Any) -> None:
    key, cache = key_of("2024-01-03"), tmp_path / "cache"
    assert hlbt(*words(server, cache))[0] == 0
    before = cells(Store(cache))
    lines = lz4.frame.decompress(OBJECTS[key]).decode().splitlines()
    last = lines[-1].split(",")
    lines[-1] = ",".join([*last[:2], "0.03", *last[3:]])
    client(server).put_object(Bucket=BUCKET, Key=key, Body=packed("\n".join(lines) + "\n"))
    try:
        code, out, err = hlbt(*words(server, cache))
        assert "1 objects taken" in out
        assert code == 1 and "NEW funding: 1 cells differ, the first at 2024-01-04 00:00 UTC" in err
        assert "--replace takes the new ones" in err
        for _ in range(2):  # not downloaded again, and said until it is settled
            code, out, err = hlbt(*words(server, cache))
            assert (
                code == 0
                and "0 objects taken" in out
                and f"contradict the cache, whose values were kept ({key})" in out
            )
        assert cells(Store(cache)) == before
        code, out, err = hlbt(*words(server, cache, "--replace"))
        assert code == 0 and "contradict" not in out, err
        changed = {cell for cell, value in cells(Store(cache)).items() if before[cell] != value}
        assert [(coin, name) for coin, name, _ in changed] == [("NEW", "funding")]
        assert hlbt(*words(server, cache))[0] == 0
    finally:
        client(server).put_object(Bucket=BUCKET, Key=key, Body=OBJECTS[key])


def test_progress_counts_bytes_to_the_end(proxy: Proxy, tmp_path: Path) -> None:
    proxy.faults[key_of("2024-01-01")] = ["short"]
    calls: list[tuple[int, int, str]] = []
    sync(proxy.url, tmp_path / "cache", jobs=3, progress=lambda *call: calls.append(call))
    size = sum(map(len, OBJECTS.values()))
    assert {total for _, total, _ in calls} == {size}
    assert calls[-1][0] == size and max(done for done, _, _ in calls) == size
    assert [what for _, _, what in calls if what.startswith("writing")] == [
        "writing asset_ctxs-2023-12",
        "writing asset_ctxs-2024-01",
    ]
    assert np.all(np.array([done for done, _, _ in calls]) >= 0)
