"""The sealed holdout: days at the end of the data that no research sees until a candidate is run on them, once.

The seal is a small file in the folder of the cache, a chain of records (:mod:`engine.hash_chain`), so that whoever
loads the data meets it and a copy of the cache is sealed too. The ledger of trials has the same records: a seal that
was taken away shows there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from engine.clock import HOUR, UNIT, iso_minute, show
from engine.errors import DataError
from engine.hash_chain import append_records, read_chain

FILE = "holdout.jsonl"
#: Kinds of records: days were sealed; a candidate was about to see them; what it earned on them.
SEALED, OPENED, RESULT = "sealed", "opened", "result"


@dataclass(frozen=True)
class Opening:
    """A candidate that was run on the sealed days, or was about to be when its run was killed.

    Attributes
    ----------
    candidate : str
        Name of the run or sweep.
    key : str
        Digest of oracle, code, parameters and config: what tells it from other candidates.
    when : str
        ISO 8601 instant of the opening.
    end : Timestamp
        Last row that it saw.
    result : mapping or None
        What came of it; None where the run never ended.
    """

    candidate: str
    key: str
    when: str
    end: pd.Timestamp
    result: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Holdout:
    """Days that are sealed.

    Attributes
    ----------
    start : Timestamp
        First row that research does not see.
    when : str
        ISO 8601 instant of the sealing.
    synthetic : bool
        Whether the cache is one of made-up data; trials on real data do not see its days.
    openings : tuple of Opening
        In their order; the first of them spends the days.
    """

    start: pd.Timestamp
    when: str
    synthetic: bool
    openings: tuple[Opening, ...] = ()

    @property
    def last_open(self) -> pd.Timestamp:
        """Last row that research sees."""
        return self.start - HOUR

    @property
    def seen_until(self) -> pd.Timestamp | None:
        """Last row that any opening has seen; None while nothing was spent."""
        return max((opening.end for opening in self.openings), default=None)

    @property
    def marks(self) -> tuple[str, ...]:
        """What a trial must say that is run after an opening, in sentences."""
        if not self.openings:
            return ()
        first = self.openings[0]
        return (
            f"The holdout from {show(self.start)} was opened on {first.when[:10]} for {first.candidate}: what is tried "
            "since may know how it ended, and is no test by it.",
        )


def holdout_in(records: Iterable[Mapping[str, Any]]) -> Holdout | None:
    """The holdout that records end with; those of another kind are passed over.

    Raises
    ------
    DataError
        When a record of a holdout is not complete.
    """
    start, when, synthetic, openings = None, "", False, dict[str, Opening]()
    try:
        for record in records:
            if record.get("kind") == SEALED:
                start, when, synthetic = _instant(record["start"]), str(record["when"]), bool(record["synthetic"])
                openings = {}
            elif record.get("kind") == OPENED:
                key = str(record["key"])
                opening = Opening(str(record["candidate"]), key, str(record["when"]), _instant(record["end"]))
                openings.setdefault(key, opening)
            elif record.get("kind") == RESULT and (key := str(record["key"])) in openings:
                known = openings[key]
                openings[key] = Opening(known.candidate, key, known.when, known.end, record["result"])
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"A record of the holdout is damaged: {error}.") from error
    return None if start is None else Holdout(start, when, synthetic, tuple(openings.values()))


def read_holdout(cache: Path) -> Holdout | None:
    """The holdout of a cache; None where nothing is sealed.

    Raises
    ------
    DataError
        When its file is damaged or was edited: no research goes on over a broken seal.
    """
    holdout, broken = salvaged(cache)
    if broken:
        raise DataError(
            f"The seal of the holdout is broken, {broken.rstrip('.')}. Nothing is loaded for research over it. Restore "
            "the file and its .head from a copy, or seal the days again: `hlbt study init --holdout DATE`, which keeps "
            "on record that it was broken."
        )
    return holdout


def salvaged(cache: Path) -> tuple[Holdout | None, str]:
    """What the seal of a cache says, and how it contradicts itself, which is empty for a whole one."""
    chain = read_chain(cache / FILE)
    try:
        holdout = holdout_in(chain.records)
    except DataError as error:
        return None, chain.broken or f"{cache / FILE}: {error}"
    lacking = f"{cache / FILE} says of no day that it is sealed" if chain.records and holdout is None else ""
    return holdout, chain.broken or lacking


def write_records(cache: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Add records to the seal of a cache, on the disk when this returns."""
    append_records(cache / FILE, records)


def sealed_record(start: pd.Timestamp, when: str, synthetic: bool, **more: Any) -> dict[str, Any]:
    """The record of days that are sealed from `start` on."""
    return {"kind": SEALED, "start": iso_minute(start), "when": when, "synthetic": synthetic, **more}


def records_of(holdout: Holdout, more: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """All records of a holdout, for a file that lacks them; `more` is said with the sealing."""
    records = [sealed_record(holdout.start, holdout.when, holdout.synthetic, **(more or {}))]
    for opening in holdout.openings:
        records.append(opened_record(opening))
        records += [] if opening.result is None else [result_record(opening.key, opening.result)]
    return records


def opened_record(opening: Opening) -> dict[str, Any]:
    """The record of an opening, written before the candidate runs."""
    return {
        "kind": OPENED,
        "candidate": opening.candidate,
        "key": opening.key,
        "when": opening.when,
        "end": iso_minute(opening.end),
    }


def result_record(key: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """The record of what came of an opening."""
    return {"kind": RESULT, "key": key, "result": result}


def stricter(one: Holdout | None, other: Holdout | None) -> Holdout | None:
    """The holdout that hides more; of two with one start the openings of both."""
    if one is None or other is None or one.start != other.start:
        return min((known for known in (one, other) if known is not None), key=lambda known: known.start, default=None)
    ended = {opening.key: opening for opening in (*one.openings, *other.openings) if opening.result is not None}
    keys = {opening.key: ended.get(opening.key, opening) for opening in (*one.openings, *other.openings)}
    return replace(one, openings=tuple(sorted(keys.values(), key=lambda opening: opening.when)))


def _instant(text: Any) -> pd.Timestamp:
    return pd.Timestamp(str(text)).tz_convert("UTC").as_unit(UNIT)
