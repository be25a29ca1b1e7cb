"""The record of a demotion: which alarm stopped a strategy from adding risk, and who let it go on, and why.

It is one small file beside the account's journal, ``<name>.demoted.json``, replaced as a whole: a process that is
killed leaves the file of before or the new one. A file that cannot be read counts as a demotion, for nobody knows what
it said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

import pandas as pd

from engine.atomic_io import sync_folder, write_durable
from engine.clock import show
from engine.errors import LiveError
from engine.provenance import as_json

#: Kinds of events: an alarm stopped the strategy; a person let it go on.
DEMOTED: Final = "demoted"
REINSTATED: Final = "reinstated"


@dataclass(frozen=True)
class Demotion:
    """An alarm after which a strategy orders nothing that adds risk.

    Attributes
    ----------
    question : str
        Which of the questions about a live account it answers: ``"costs"``, ``"edge"``, or ``"record"`` where the
        record itself cannot be read.
    at : str
        ISO 8601, the trade instant at which it was found; empty for ``"record"``.
    statistic : str
        What crossed its threshold.
    value, threshold : float or None
        Of the statistic, in its own unit.
    text : str
        The same as a sentence without its full stop.
    """

    question: str
    at: str
    statistic: str
    value: float | None
    threshold: float | None
    text: str

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A demotion from its plain values; others are passed over."""
        return cls(**{item.name: values[item.name] for item in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        """Plain values; a number that is not finite is null."""
        return {name: as_json(value) for name, value in asdict(self).items()}


def demotion_path(folder: Path, name: str) -> Path:
    """The file of a strategy in the folder of :func:`engine.live.state_folder.record_folder`."""
    return folder / f"{name}.demoted.json"


def events_of(folder: Path, name: str) -> list[dict[str, Any]]:
    """What happened to a strategy, oldest first: demotions with their alarm, reinstatements with their reason.

    Raises
    ------
    LiveError
        When the file cannot be read.
    """
    path = demotion_path(folder, name)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content["events"], list):
            raise ValueError("its events are no list")
        events = [dict(event) for event in content["events"]]
        for event in events:
            if event["kind"] == DEMOTED:
                demotion_text(name, Demotion.from_dict(event))
            elif event["kind"] != REINSTATED:
                raise ValueError(f"it has an event of the kind {event['kind']!r}")
        return events
    except FileNotFoundError:
        return []
    except (OSError, ValueError, LookupError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise LiveError(f"The record of demotions {path} cannot be read ({why})") from error


def demotion_of(folder: Path | None, name: str) -> Demotion | None:
    """The demotion that a strategy stands under; None where it stands under none.

    Parameters
    ----------
    folder : Path or None
        As :func:`engine.live.state_folder.record_folder` gives it; None where nothing is recorded.
    name : str
        Of the strategy.

    Returns
    -------
    Demotion or None
        One of the question ``"record"`` where the file cannot be read.
    """
    if folder is None:
        return None
    try:
        events = events_of(folder, name)
    except LiveError as error:
        return Demotion("record", "", "record", None, None, str(error))
    return Demotion.from_dict(events[-1]) if events and events[-1]["kind"] == DEMOTED else None


def demote(folder: Path, name: str, demotion: Demotion) -> None:
    """Record a demotion; it is on the disk when this returns."""
    _write(folder, name, [*events_of(folder, name), {"kind": DEMOTED, **demotion.to_dict()}])


def reinstate(folder: Path, name: str, reason: str, at: str) -> Demotion:
    """Record that a person lets a demoted strategy go on, and why; a later alarm demotes it again.

    Parameters
    ----------
    folder, name : Path, str
        As in :func:`demotion_of`.
    reason : str
        Of the person.
    at : str
        ISO 8601 instant, from the caller.

    Returns
    -------
    Demotion
        What is over; a file that could not be read is kept as ``<name>.demoted.json.damaged``.

    Raises
    ------
    LiveError
        When the strategy is not demoted, or there is no reason.
    """
    demotion = check_reinstatement(folder, name, reason)
    events = []
    if demotion.question == "record":
        path = demotion_path(folder, name)
        path.replace(path.with_name(f"{path.name}.damaged"))
    else:
        events = events_of(folder, name)
    _write(folder, name, [*events, {**demotion.to_dict(), "kind": REINSTATED, "reason": reason.strip(), "when": at}])
    return demotion


def check_reinstatement(folder: Path, name: str, reason: str) -> Demotion:
    """The demotion that a reason would end.

    Raises
    ------
    LiveError
        When the strategy is not demoted, or there is no reason.
    """
    if not reason.strip():
        raise LiveError("--reason is empty. Write why the strategy may add risk again; it stays on record.")
    if (demotion := demotion_of(folder, name)) is None:
        raise LiveError(f"{name!r} is not demoted on this account, so there is nothing to reinstate. Check the name.")
    return demotion


def demotion_text(name: str, demotion: Demotion) -> str:
    """What a run says of a standing demotion, and the two ways out."""
    found = f" at {show(pd.Timestamp(demotion.at))}" if demotion.at else ""
    return (
        f"{name} is DEMOTED{found}: {demotion.text}. Nothing that adds risk is ordered, only reductions. Look at it, "
        f"then close the book with `hlbt live flatten {name}`, or let it go on with `hlbt live reinstate {name} "
        "--reason '...'`, on the --network of this run"
    )


def _write(folder: Path, name: str, events: list[dict[str, Any]]) -> None:
    path = demotion_path(folder, name)
    text = json.dumps({"strategy": name, "events": events}, indent=2, allow_nan=False) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_durable(path, text.encode())
        sync_folder(folder)
    except OSError as error:
        raise LiveError(
            f"The record of demotions {path} cannot be written: {error.strerror}. Nothing is sent without it: mend the "
            "folder, or set a kill switch."
        ) from error
