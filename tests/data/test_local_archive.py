"""`hlbt data sync --source dir`: the archive's files from a folder, beside the same objects from the bucket."""
# ruff: noqa: F811 (fixtures of another file)

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from test_s3 import BOOKS, OBJECTS, TEXTS, _account, hlbt, server, sync, undisturbed, words  # noqa: F401

from engine.data.cache import Store
from helpers.archive_server import Proxy, key_of, packed
from helpers.commands import Hlbt
from helpers.stores import content

KEY = key_of("2024-01-01")


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """The days by year, one of them twice, the books as in the bucket, and what else lies in a mirror."""
    folder = tmp_path / "mirror"
    for key, body in {**OBJECTS, **BOOKS}.items():
        name = key.rpartition("/")[2]
        path = folder / key if key in BOOKS else folder / "data" / name[:4] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    shutil.copy(folder / "data/2024/20240101.csv.lz4", folder / "20240101.csv.lz4")
    (folder / "README.md").write_text("a mirror")
    (folder / ".cache").mkdir()
    (folder / ".cache/20230101.csv.lz4").write_bytes(b"half a download")
    return folder


def command(mirror: Path, cache: Path, *more: object) -> tuple[object, ...]:
    return ("sync", "--source", "dir", mirror, "--set", f"data.cache={cache}", *more)


def test_a_day_of_the_folder_is_the_same_object_as_in_the_bucket(
    server: str, mirror: Path, undisturbed: Path, tmp_path: Path, hlbt: Hlbt
) -> None:
    cache = tmp_path / "cache"
    done = hlbt(*command(mirror, cache))
    assert done.code == 0, done.err
    assert "4 objects taken" in done.out and "Ignored, 1 files that are none of the archive's: README.md." in done.out
    assert f"1 days are missing in the folder {mirror}: 2024-01-02" in done.out
    assert content(cache) == content(undisturbed)
    assert Store(cache).read_objects() == Store(undisturbed).read_objects()
    # The bucket then has nothing new, and is asked for no object.
    with Proxy(server) as proxy:
        done = hlbt(*words(proxy.url, cache))
        assert (done.code, proxy.gets()) == (0, []), done.err
    # And the folder has nothing new after the bucket, nor after itself.
    for before in (cache, shutil.copytree(undisturbed, tmp_path / "of the bucket")):
        state = (before / "manifest.json").read_bytes()
        done = hlbt(*command(mirror, before, "--json"))
        assert (done.code, done.json["taken"], done.json["cached"], done.json["problems"]) == (0, 0, 4, [])
        assert done.json["plan"]["usd"] == 0 and (before / "manifest.json").read_bytes() == state


def test_the_range_and_the_books_are_those_of_the_settings(mirror: Path, tmp_path: Path, hlbt: Hlbt) -> None:
    span = ("--set", "data.start=2024-01-01T01:00Z", "--set", "data.end=2024-01-02")
    done = hlbt(*command(mirror, tmp_path / "cache", "--quotes", "l2book", "--json", *span))
    assert (done.code, done.json["taken"]) == (0, 3), done.err
    assert set(Store(tmp_path / "cache").read_objects()) == {KEY, *BOOKS}
    assert not list((tmp_path / "cache/incoming").rglob("*.lz4"))


@pytest.mark.parametrize("order", ["short first", "long first"])
def test_a_day_cut_short_gives_way_to_the_whole_one_in_either_order(
    order: str, mirror: Path, undisturbed: Path, tmp_path: Path, hlbt: Hlbt
) -> None:
    (mirror / "20240101.csv.lz4").unlink()
    lines = TEXTS["2024-01-01"].splitlines()
    short, whole = packed("\n".join(lines[: 1 + 3 * 500]) + "\n"), OBJECTS[KEY]
    path, cache = mirror / "data/2024/20240101.csv.lz4", tmp_path / "cache"
    for body in (short, whole) if order == "short first" else (whole, short):
        path.write_bytes(body)
        done = hlbt(*command(mirror, cache))
        assert done.code == 0, done.err
    assert (f"1 objects end before the version of the same day in the cache and were left out: {KEY}" in done.out) == (
        order == "long first"
    )
    assert content(cache) == content(undisturbed)


def test_what_cannot_be_used_is_refused_or_named(mirror: Path, tmp_path: Path, hlbt: Hlbt) -> None:
    cache = tmp_path / "cache"
    (tmp_path / "empty").mkdir()
    for arguments, text in {
        ("sync", "--source", "dir"): "--source dir needs the folder",
        ("sync", "--source", "api", mirror): "DIR has no meaning with --source api",
        command(tmp_path / "absent", cache): "is not a folder",
        command(tmp_path / "empty", cache): "has no file of the archive: none of its 0 files",
        command(mirror, cache, "--endpoint-url", "http://x"): "--endpoint-url has no meaning with --source dir",
    }.items():
        done = hlbt(*arguments)
        assert done.code != 0 and text in done.err
    (mirror / "20240101.csv.lz4").write_bytes(packed(TEXTS["2024-01-01"][:-9]))
    done = hlbt(*command(mirror, cache))
    assert done.code != 0 and f"are both {KEY} and differ" in done.err and not cache.exists()
    (mirror / "20240101.csv.lz4").unlink()
    (mirror / "data/2024/20240101.csv.lz4").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    (mirror / "data/2024/20240103.csv.lz4").write_bytes(OBJECTS[key_of("2024-01-03")][:-700])
    done = hlbt(*command(mirror, cache))
    assert done.code == 1 and "is a pointer of Git LFS" in done.err and "is truncated or damaged LZ4" in done.err
    assert set(Store(cache).read_objects()) == {key_of("2023-12-30"), key_of("2023-12-31")}
