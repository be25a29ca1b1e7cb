"""A chain of records tells what was done to its file; what a kill leaves is no damage."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.hash_chain import append_records, read_chain


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "inner" / "chain.jsonl"
    assert read_chain(path).records == () and not read_chain(path).broken
    for number in range(5):
        append_records(path, [{"kind": "a", "number": number}])
    chain = read_chain(path)
    assert [record["number"] for record in chain.records] == [0, 1, 2, 3, 4] and not chain.broken
    return path


def lines(*wanted: int) -> Callable[[bytes], bytes]:
    return lambda content: b"".join(content.splitlines(keepends=True)[number] for number in wanted)


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "edited": (lambda content: content.replace(b'"number":2', b'"number":7'), "entry 3 was edited"),
    "blanks": (lambda content: content.replace(b'"number":2', b'"number": 2'), "entry 3 was edited"),
    "first gone": (lines(1, 2, 3, 4), "entry 1 does not follow"),
    "middle gone": (lines(0, 1, 3, 4), "entry 3 does not follow"),
    "last gone": (lines(0, 1, 2, 3), "entry 5 is missing from its end"),
    "two gone": (lines(0, 1, 2), "entries 4 to 5 are missing"),
    "swapped": (lines(0, 2, 1, 3, 4), "entry 2 does not follow"),
    "twice": (lines(0, 1, 1, 2, 3, 4), "entry 3 does not follow"),
    "cut": (lambda content: content[:-9], "entry 5 is missing"),
    "no text": (lambda content: content[:40] + b"\xff\x00" + content[42:], "entry 1 is damaged"),
    "empty": (lambda content: b"", "entries 1 to 5 are missing"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_shows_and_stays_shown(file: Path, name: str) -> None:
    damage, says = DAMAGES[name]
    file.write_bytes(damage(file.read_bytes()))
    assert says in read_chain(file).broken
    # Who writes on must not heal it: the end of the file is then whole again, and the record says that it was not.
    append_records(file, [{"kind": "b"}])
    chain = read_chain(file)
    assert says in chain.broken and chain.records[-1]["kind"] == "b"
    append_records(file, [{"kind": "c"}])
    assert says in read_chain(file).broken


def test_a_file_or_a_head_that_is_gone_shows(file: Path) -> None:
    head = file.with_name("chain.jsonl.head")
    content = head.read_bytes()
    head.unlink()
    assert "its head, 5 entries on, is missing" in read_chain(file).broken
    head.write_bytes(b"{}")
    assert "its head is damaged" in read_chain(file).broken
    head.write_bytes(content)
    file.unlink()
    assert "entries 1 to 5 are missing" in read_chain(file).broken


def test_what_a_kill_leaves_is_no_damage(file: Path) -> None:
    head = file.with_name("chain.jsonl.head")
    before = head.read_bytes()
    append_records(file, [{"kind": "b"}])
    head.write_bytes(before)  # killed between the record and the head
    assert not read_chain(file).broken and len(read_chain(file).records) == 6
    with file.open("ab") as end:  # killed in the middle of a record
        end.write(b'{"kind":"half')
    assert not read_chain(file).broken
    append_records(file, [{"kind": "c"}])
    chain = read_chain(file)
    assert not chain.broken and [record["kind"] for record in chain.records[-2:]] == ["b", "c"]


def _write(path: Path, who: int) -> None:
    for number in range(8):
        append_records(path, [{"who": who, "number": number}])


def test_writers_wait_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "chain.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(path, who)) for who in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    chain = read_chain(path)
    assert not chain.broken and len(chain.records) == 32
    assert all([r["number"] for r in chain.records if r["who"] == who] == list(range(8)) for who in range(4))
