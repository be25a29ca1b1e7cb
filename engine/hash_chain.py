"""A file of records that shows what was done to it: each line carries the digest of the line before.

Beside the file lies its head, which says how many records there are and the digest of the last: so the end cannot be
cut off unseen either. A record is on the disk before the head counts it; what a kill leaves, half a line or a record
that the head does not count, is no damage.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.atomic_io import exclusive, sync_folder, write_durable
from engine.errors import DataError


@dataclass(frozen=True)
class Chain:
    """The records of a file.

    Attributes
    ----------
    records : tuple of dict
        All that can be read, in their order; ``entry`` is the number of the line, from 1.
    broken : str
        What does not agree, in a sentence that names the entry; empty where all does.
    head : str
        Digest of the last record; empty where there is none.
    """

    records: tuple[dict[str, Any], ...] = ()
    broken: str = ""
    head: str = ""


def read_chain(path: Path) -> Chain:
    """Read and verify a file of records; none where there is neither file nor head.

    Raises
    ------
    DataError
        When it cannot be opened.
    """
    counted = _content(_head_path(path))  # before the file: a record is written before it is counted
    lines = (_content(path) or b"").split(b"\n")[:-1]
    records: list[dict[str, Any]] = []
    broken, head = "", ""
    for number, line in enumerate(lines, 1):
        record = _parsed(line)
        fault = _fault(record, line, number, head)
        broken = broken or (f"entry {number} {fault}" if fault else "")
        if record is not None:
            broken = broken or str(record.get("broken", ""))
            records.append({**record, "entry": number})
            head = str(record.get("hash", ""))
    broken = broken or _cut(counted, records, len(lines))
    return Chain(tuple(records), f"{path}: {broken}." if broken else "", head)


def append_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Add records, on the disk when this returns; a file that was damaged stays marked as such by the first of them.

    Parameters
    ----------
    path : Path
        The file; it and its folder are made when absent. Other writers wait.
    records : iterable of mapping
        As JSON keeps them.

    Raises
    ------
    DataError
        When it cannot be written.
    """
    try:
        with exclusive(path.with_name(f".{path.name}.lock"), None):
            chain = read_chain(path)
            content = _content(path) or b""
            whole = content.rfind(b"\n") + 1
            count, head = content.count(b"\n"), chain.head
            lines: list[bytes] = []
            if not content and _content(_head_path(path)) is None:
                _write_head(path, 0, "")
            for record in records:
                count += 1
                marked = {"broken": _found(path, chain.broken)} if chain.broken and not lines else {}
                body = {**record, **marked, "entry": count, "previous": head}
                head = _digest(body)
                lines.append(_canonical({**body, "hash": head}) + b"\n")
            with path.open("r+b" if content else "wb") as file:
                file.truncate(whole)
                file.seek(whole)
                file.write(b"".join(lines))
                file.flush()
                os.fsync(file.fileno())
            _write_head(path, count, head)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}. Mend the folder or name another.") from (
            error
        )


def _found(path: Path, broken: str) -> str:
    return broken.removeprefix(f"{path}: ").removesuffix(".")


def _head_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.head")


def _write_head(path: Path, count: int, digest: str) -> None:
    write_durable(_head_path(path), _canonical({"entries": count, "hash": digest}) + b"\n")
    sync_folder(path.parent)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _canonical(record: Any) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(body)).hexdigest()


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _fault(record: dict[str, Any] | None, line: bytes, number: int, previous: str) -> str:
    """What is wrong with a line; empty where nothing is."""
    if record is None:
        return "is damaged"
    # Each value is encoded once: a record of a sweep is megabytes.
    members = {name: b"%b:%b" % (_canonical(name), _canonical(record[name])) for name in sorted(record)}
    body = b"{%b}" % b",".join(member for name, member in members.items() if name != "hash")
    if record.get("hash") != hashlib.sha256(body).hexdigest() or line != b"{%b}" % b",".join(members.values()):
        return "was edited"
    if record.get("entry") != number or record.get("previous") != previous:
        return "does not follow the entry before it: one was removed, added or moved"
    return ""


def _cut(counted: bytes | None, records: list[dict[str, Any]], lines: int) -> str:
    """What the head says against the lines that there are; empty where it agrees."""
    if counted is None:
        return f"its head, {lines} entries on, is missing" if lines else ""
    try:
        state = json.loads(counted)
        count, digest = int(state["entries"]), str(state["hash"])
    except (ValueError, KeyError, TypeError):
        return "its head is damaged"
    if count > lines:
        last = f"entry {count} is" if count == lines + 1 else f"entries {lines + 1} to {count} are"
        return f"{last} missing from its end"
    if count and len(records) >= count and records[count - 1].get("hash") != digest:
        return f"entry {count} is not the one that was written last"
    return ""
