"""The file of a book: which promoted specs trade one account, with which shares, and whether they can.

:func:`read_strategy` is what every live command begins with: a spec, or a book of them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from engine.clock import WEEKDAYS
from engine.config import RunConfig, read_toml
from engine.data.coin_names import is_pattern
from engine.errors import ConfigError, SpecError, did_you_mean, join_first
from engine.live.book import SHARED_LIMITS, BookTargets, Member
from engine.live.risk_limits import Limits
from engine.live.spec import canonical, read_spec, spec_limits
from engine.live.subledger import UNASSIGNED
from engine.live.targets import Strategy, from_spec

#: Keys of a spec's config that are its own; all others are the account's, and the same in every spec of a book.
_OWN: Final = {
    "data": {"start", "end", "coins"},
    "execution": {
        *("every_days", "weekdays", "leverage", "target_volatility", "volatility_days", "tranches", "gross_cap"),
    },
    "costs": set(),
    "account": {"initial_equity_usd", "max_gross"},
}
#: Of less, no account has an order to send.
_LEAST_SHARE: Final = 1e-6
_KEYS: Final = ("name", "reshared", "limits")


def read_strategy(path: Path, cache: str | None) -> Strategy:
    """What a file trades: a promoted spec, or a book of them (``.toml``); `cache` replaces the folder of the data."""
    return read_book(path, cache) if path.suffix == ".toml" else from_spec(path, cache)


def spec_paths(path: Path) -> list[Path]:
    """The specs that a file is about: itself, or those that a book names.

    Raises
    ------
    SpecError
        For a book that cannot be read.
    """
    if path.suffix != ".toml":
        return [path]
    return [path.parent / file for file, _ in _members(path)]


def read_book(path: Path, cache: str | None = None) -> Strategy:
    """The strategy of a book of promoted specs, each checked.

    Parameters
    ----------
    path : Path
        A TOML file: ``[book]``, and a ``[[spec]]`` for each with ``name`` or ``file``, and ``share``.
    cache : str or None
        Replaces the folder of the data.

    Raises
    ------
    SpecError
        For a file that cannot be read, a key that it does not have, shares above 1, a spec that is refused, and specs
        whose configs cannot trade one account.
    """
    settings, members = _content(path).get("book", {}), []
    for file, share in _members(path):
        try:
            members.append(Member(from_spec(path.parent / file, cache), share))
        except SpecError as error:
            raise SpecError(f"Book {path}: {error}") from error
    terms = [_Terms(m.name, m.config, m.strategy.promoted_usd or math.inf, m.share) for m in members]
    config = _common_config(path, terms)
    try:
        limits = Limits.from_dict({**_loosest(members), **settings.get("limits", {})})
    except SpecError as error:
        raise SpecError(f"Book {path}: {error}") from error
    reshared = str(settings.get("reshared", ""))
    notes = [f"{member.name}: {note}" for member in members for note in member.strategy.notes]
    identity = [[member.strategy.key, member.share] for member in members], limits.to_dict(), reshared, path.stem
    key = hashlib.sha256(canonical(identity).encode()).hexdigest()
    return Strategy(path.stem, key, BookTargets(members, config, reshared), limits, tuple(notes))


def _content(path: Path) -> dict[str, Any]:
    try:
        content = read_toml(path, "Book")
    except ConfigError as error:
        raise SpecError(str(error)) from error
    _known(path, "the file", content, ("book", "spec"))
    settings = content.get("book", {})
    if not isinstance(settings, Mapping) or not isinstance(settings.get("limits", {}), Mapping):
        raise SpecError(f"Book {path}: [book] and [book.limits] are tables of keys.")
    _known(path, "[book]", settings, _KEYS)
    if settings.get("name", path.stem) != path.stem:
        raise SpecError(f"{path} holds the book {settings['name']!r}. Rename the file to {settings['name']}.toml.")
    if path.with_suffix(".json").is_file():
        raise SpecError(
            f"Book {path} has the name of the spec {path.with_suffix('.json')}: their journals would be one file. "
            "Rename the book."
        )
    return content


def _known(path: Path, where: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            raise SpecError(
                f"Book {path}: {where} has no key {key!r}.{did_you_mean(key, known)} It may have: {', '.join(known)}."
            )


def _members(path: Path) -> list[tuple[str, float]]:
    """File, beside the book's own, and share of each spec."""
    rows = _content(path).get("spec", [])
    if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
        raise SpecError(f'Book {path} names no spec. Add one: [[spec]], name = "momentum", share = 0.5.')
    found: dict[str, float] = {}
    for row in rows:
        _known(path, "[[spec]]", row, ("name", "file", "share"))
        name, file, share = row.get("name"), row.get("file"), row.get("share")
        if (name is None) == (file is None) or not isinstance(name or file, str):
            raise SpecError(f"Book {path}: each [[spec]] has either a name or a file; one has {dict(row)}.")
        file = file or f"{name}.json"
        stem = Path(file).stem
        if isinstance(share, bool) or not isinstance(share, int | float) or not _LEAST_SHARE <= share <= 1.0:
            raise SpecError(
                f"Book {path}: the share of {stem} is {share!r}; write a fraction of the account's equity above 0, at "
                f"least {_LEAST_SHARE:f}, and at most 1."
            )
        if stem == UNASSIGNED or stem in map(_stem, found):
            raise SpecError(f"Book {path} names the spec {stem} twice, or it is a word of hlbt's own. Rename one.")
        found[file] = float(share)
    if (total := math.fsum(found.values())) > 1.0 + 1e-9:
        shares = join_first(f"{_stem(file)} {share:g}" for file, share in found.items())
        raise SpecError(f"Book {path}: the shares add up to {total:g}, above 1: {shares}. Lower some.")
    return list(found.items())


def _stem(file: str) -> str:
    return Path(file).stem


def _loosest(members: Sequence[Member]) -> dict[str, float | None]:
    """Limits of the whole where the book sets none: the loosest of its specs'.

    Of what is one for all it is the strictest, and that of an order is their sum, since orders are netted.
    """
    chosen: dict[str, float | None] = {}
    for item in fields(Limits):
        values = [getattr(member.strategy.limits, item.name) for member in members]
        known = [value for value in values if value is not None]
        if item.name in SHARED_LIMITS:
            chosen[item.name] = min(known, default=None)
        elif len(known) < len(values):
            chosen[item.name] = None
        else:
            chosen[item.name] = math.fsum(known) if item.name == "order_notional_usd" else max(known)
    return chosen


def account_config(path: Path) -> RunConfig:
    """The config of the account that a spec or a book trades, whether or not the code of its oracles is as promoted.

    ``account.initial_equity_usd`` is the size that passed the gates: of a book the largest at which each spec is within
    its own.
    """
    if path.suffix == ".toml":
        return _common_config(path, [_Terms.of(path.parent / file, share) for file, share in _members(path)])
    terms = _Terms.of(path, 1.0)
    return replace(terms.config, account=replace(terms.config.account, initial_equity_usd=terms.size_usd))


class _Terms(NamedTuple):
    """What decides whether specs can trade one account."""

    name: str
    config: RunConfig
    size_usd: float
    share: float

    @classmethod
    def of(cls, path: Path, share: float) -> _Terms:
        spec = read_spec(path)
        return cls(spec.name, spec.config, spec_limits(path, spec)[0], share)


def _common_config(path: Path, specs: Sequence[_Terms]) -> RunConfig:
    """The account's config: what all specs have in common, their widest schedule, and all of their coins."""
    first, configs = specs[0], [spec.config for spec in specs]
    for spec in specs[1:]:
        for section, own in _OWN.items():
            for item in fields(getattr(first.config, section)):
                ours, theirs = (getattr(getattr(of.config, section), item.name) for of in (first, spec))
                if item.name not in own and ours != theirs:
                    raise SpecError(
                        f"Book {path}: {section}.{item.name} is {ours!r} in {first.name} and {theirs!r} in "
                        f"{spec.name}; on one account it cannot differ. Promote one of them with the other's value."
                    )
        if spec.config.execution.untradable != "cash":
            raise SpecError(
                f"Book {path}: execution.untradable = 'renormalise' is about the whole of one book, and cannot be "
                f"netted ({first.name}, {spec.name}). Promote the specs with 'cash'."
            )
    starts = [config.data.start for config in configs]
    coins = dict.fromkeys(name for config in configs for name in config.data.selection)
    # Patterns first, the widest before others: then the coins of each spec stand in the order of its own panel.
    selection = sorted(coins, key=lambda name: (not is_pattern(name), len(name) if is_pattern(name) else 0))
    data = replace(
        first.config.data,
        start=None if None in starts else min(start for start in starts if start is not None),
        coins=None if all(config.data.coins is None for config in configs) else tuple(selection),
    )
    days = {day for config in configs for day in config.execution.weekdays}
    execution = replace(
        first.config.execution,
        every_days=math.gcd(*(config.execution.every_days for config in configs)),
        weekdays=tuple(day for day in WEEKDAYS if day in days),
    )
    account = replace(
        first.config.account,
        initial_equity_usd=min(spec.size_usd / spec.share for spec in specs),
        max_gross=max(config.account.max_gross for config in configs),
    )
    return replace(first.config, data=data, execution=execution, account=account)
