"""The three answers of a journal for the commands: plans, costs and the edge, on the cache as it is now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from engine.config import RunConfig
    from engine.live.book import Member
    from engine.live.journal import Journal
    from engine.live.spec import StrategySpec
    from engine.live.targets import Strategy
    from engine.monitoring.answers import Answers
    from engine.oracles.base import Oracle


class Promoted(NamedTuple):
    """What an account is compared with, whether or not its code is still what was promoted."""

    config: RunConfig
    spec: StrategySpec | None = None  # a book has several
    oracle: Oracle | None = None  # where it can be loaded
    members: tuple[Member, ...] = ()


def promoted_strategy(strategy: Strategy) -> Promoted:
    """What a strategy that trades is compared with."""
    from engine.live.book import BookTargets

    targets = strategy.targets
    if isinstance(targets, BookTargets):
        return Promoted(strategy.config, members=targets.members)
    return Promoted(strategy.config, strategy.spec, targets.oracle)


def answers_of(
    promoted: Promoted | None,
    entries: Sequence[Mapping[str, Any]],
    config: RunConfig,
    newest: int | None = None,
    report: Callable[[int, int, str], object] = lambda done, total, what: None,
) -> Answers:
    """The three answers, on the cache as it is now; the rest as in :func:`engine.monitoring.answers.live_answers`.

    Parameters
    ----------
    promoted : Promoted or None
        None for a weights file.
    entries : sequence of mapping
        Of the journal.
    config : RunConfig
        That of the account, with its cache.
    newest : int, optional
    report : callable
    """
    from engine.data.panel_loader import load_whole_panel
    from engine.monitoring.answers import live_answers
    from engine.monitoring.books import spec_entries

    panel = None
    with suppress(DataError):  # no cache: what needs it is pending
        data = config.data
        panel = load_whole_panel(data.cache, config.start, None, data.selection, data.hours)
    specs = {}
    for member in () if promoted is None else promoted.members:
        strategy, own = member.strategy, spec_entries(entries, member.name)
        specs[member.name] = live_answers(
            own, strategy.spec or member.config, strategy.targets.oracle, panel, None, newest, report
        )
    spec, oracle = (None, None) if promoted is None else (promoted.spec, promoted.oracle)
    return live_answers(entries, spec or config, oracle, panel, specs, newest, report)


def monitored(
    promoted: Promoted | None,
    journal: Journal,
    config: RunConfig,
    name: str,
    label: str,
    newest: int | None = None,
    report: Callable[[int, int, str], object] = lambda done, total, what: None,
) -> dict[str, Any]:
    """What a status has of the three answers: ``answers``, ``demotion`` and its ``events``, and the days of a track.

    ``plan_check`` says in a phrase what came of the plans that were made again; None of a book, whose specs have them.

    Parameters
    ----------
    promoted : Promoted or None
    journal : Journal
    config : RunConfig
    name, label : str
        Of the strategy, and of the account.
    newest : int, optional
    report : callable
    """
    from engine.live.demotion import demotion_of, demotion_text
    from engine.live.paper_tracks import track_record
    from engine.live.state_folder import record_folder

    answers = answers_of(promoted, journal.entries, config, newest, report)
    folder = record_folder(label, journal.path)
    demotion = demotion_of(folder, name)
    scheduled = promoted is not None and not promoted.members
    events = _events(folder, name)
    for member in () if promoted is None else promoted.members:
        events += [{**event, "spec": member.name} for event in _events(folder, member.name)]
    events.sort(key=lambda event: str(event.get("when") or event.get("at") or ""))
    return {
        "answers": answers.to_dict(),
        "plan_check": None if answers.check is None else str(answers.check),
        "demotion": None if demotion is None else {**demotion.to_dict(), "says": demotion_text(name, demotion)},
        "events": events,
        "track": track_record(journal.entries, config).to_dict() if scheduled else None,
    }


def _events(folder: Path | None, name: str) -> list[dict[str, Any]]:
    """Demotions and reinstatements of a strategy; none where there is no record, or one that cannot be read."""
    from engine.live.demotion import demotion_of, events_of

    demotion = demotion_of(folder, name)
    readable = demotion is None or demotion.question != "record"
    return events_of(folder, name) if folder is not None and readable else []


def states(found: Mapping[str, Any]) -> dict[str, Any]:
    """Of :func:`monitored`, what a run says first: ``line``, and the state and the sentence of each answer."""
    answers = found["answers"]
    parts = {part: {name: answers[part][name] for name in ("state", "text")} for part in ("plan", "costs", "edge")}
    return {"line": answers["line"], **parts}
