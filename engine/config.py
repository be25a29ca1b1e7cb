"""Configuration of a run: frozen, hashed, unknown keys refused.

One dataclass a section of the TOML file, with what is accepted beside each key. A config is read once, at the command
line or by the caller, and passed down; nothing is built at import.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

import pandas as pd

from engine import config_values as read
from engine.clock import DECISION_HOUR_UTC, INSTANT, WEEKDAYS, iso_minute, parse_instant
from engine.config_values import Reader
from engine.errors import ConfigError, did_you_mean

#: A day of the week in a list that was typed, as a pattern.
_DAY = rf"\s*['\"]*({'|'.join(WEEKDAYS)})['\"]*\s*"


@read.reads(
    anyOf=[
        {"const": "all"},
        {"type": "array", "items": {"enum": list(WEEKDAYS)}, "minItems": 1},
        {"type": "string", "pattern": rf"^\s*\[?{_DAY}(,{_DAY})*\]?\s*$"},
    ]
)
def _weekdays(where: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = WEEKDAYS if value == "all" else read.split_list(value)
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(f"{where} = {value!r} is not accepted: write 'all' or a list, ['mon', 'thu'].")
    chosen = [read.choice(*WEEKDAYS)(where, day) for day in value]
    return tuple(day for day in WEEKDAYS if day in chosen)


@read.reads(type="string", pattern=rf"^\s*({INSTANT.pattern})\s*$")
def _instant(where: str, value: Any) -> str:
    given = parse_instant(value, where)
    return f"{given:%Y-%m-%d}" if given == given.normalize() else iso_minute(given)


def _key(default: Any, reader: Reader, added: bool = False) -> Any:
    """A key of a section: its default, and what reads its value; None as the default means that it may be left out.

    A key that was `added` after configs had been digested is not in one's text where it has its default.
    """
    return field(default=default, metadata={"read": reader, "added": added})


class _Section:
    """Validates and normalises itself on construction, so that no config with a bad value exists."""

    def __post_init__(self) -> None:
        section = type(self).__name__.lower()
        for key in fields(self):  # type: ignore[arg-type]  # every section is a dataclass
            value = getattr(self, key.name)
            if value is not None or key.default is not None:
                object.__setattr__(self, key.name, key.metadata["read"](f"{section}.{key.name}", value))


@dataclass(frozen=True)
class Data(_Section):
    """The market data of a run.

    Attributes
    ----------
    cache : str or None
        Folder of the cache; None is ``HLBT_DATA_CACHE``, else ``data_cache``.
    start, end : str or None
        First and last instant, both inclusive; a bare date is its 00:00 UTC. None: all that the cache holds.
    coins : tuple of str or None
        HyperLiquid names, case-sensitive (``BTC``, ``xyz:TSLA``), or patterns of one dex (``xyz:*``); None is every
        coin of `dexes`.
    dexes : tuple of str
        The dexes of which every coin is meant where `coins` names none: ``""`` is the main one, ``"xyz"`` a builder's.
    sessions : tuple of (str, str)
        Names or patterns of coins, and the calendar of ``exchange_calendars`` whose hours they follow:
        ``{"xyz:*" = "XNYS"}``; of several that fit the last counts. Panels then have the field ``in_session``.
    in_session_only : bool
        Coins with hours are tradable within them alone: outside, their price is of their own making.
    """

    cache: str | None = _key(None, read.folder)
    start: str | None = _key(None, _instant)
    end: str | None = _key(None, _instant)
    coins: tuple[str, ...] | None = _key(None, read.coins)
    dexes: tuple[str, ...] = _key(("",), read.dexes, added=True)
    sessions: tuple[tuple[str, str], ...] = _key((), read.sessions, added=True)
    in_session_only: bool = _key(False, read.switch, added=True)

    @property
    def selection(self) -> tuple[str, ...]:
        """Names and patterns of the coins that are meant: `coins`, else every coin of `dexes`."""
        return self.coins or tuple(f"{dex}:*" if dex else "*" for dex in self.dexes)

    @property
    def hours(self) -> tuple[dict[str, str], bool]:
        """`sessions` as a mapping, and `in_session_only`."""
        return dict(self.sessions), self.in_session_only


@dataclass(frozen=True)
class Execution(_Section):
    """When and how orders are made.

    Attributes
    ----------
    hour_utc : int
        Hour of the decision instant; daily returns are taken at it too.
    every_days : int
        Days between decisions, counted from a Thursday: 7 decides on Thursdays.
    weekdays : tuple of str
        Days of the week that may decide; ``"all"`` or a list of ``"mon"`` to ``"sun"``.
    delay_hours : int
        Hours from the decision to the trade; prices, equity and tradability are those of the trade's row.
    min_notional_usd : float
        Orders worth less at mid are not sent, full closes excepted.
    lots : bool
        Cut orders toward zero to the coin's lot (``10 ** -szDecimals``), where the coin table has it.
    no_trade_band_frac : float
        Width of the no-trade band, a fraction of equity: nearer to its target a position is left, closes excepted.
    no_trade_band : {"skip", "to_edge"}
        A position outside its band is traded to its target, or only to the edge of the band.
    no_trade_band_coins : tuple of (str, float)
        Names or patterns of coins, and the width for them: ``{BTC = 0.002, "xyz:*" = 0.02}``; of several that fit the
        last counts.
    trade_rate : float
        Part of the way to its target that a position is traded, above 0; 1 is all of it.
    untradable : {"cash", "renormalise"}
        The weight of a coin that cannot be traded stays in cash, or the coins that can be traded are scaled, at most to
        twice their weight, so that they and what is stuck have the gross of the row.
    stale_hours : int
        Consecutive rows without a price after which a held coin counts as delisted.
    leverage : float
        Factor on every weight.
    target_volatility : float
        Annual volatility to which each row is scaled; 0 leaves rows as they are.
    volatility_days : int
        Days over which a row's volatility is measured.
    volatility_model : {"book", "risk"}
        What the volatility of a row is: that of its own book over those days, or what the risk model expects, which has
        its own days.
    tranches : int
        A decision renews ``1 / tranches`` of the book.
    gross_cap : float
        Rows with a higher gross are scaled down to it; 0 is no cap.
    isolated_leverage : float
        Leverage that is set for a coin whose margin can only be isolated, at most the coin's highest; 0 is the highest.
    """

    hour_utc: int = _key(DECISION_HOUR_UTC, read.whole(0, 23))
    every_days: int = _key(1, read.whole(1))
    weekdays: tuple[str, ...] = _key(WEEKDAYS, _weekdays)
    delay_hours: int = _key(0, read.whole(0))
    min_notional_usd: float = _key(10.0, read.number(0))
    lots: bool = _key(True, read.switch)
    no_trade_band_frac: float = _key(0.0, read.number(0, 1))
    no_trade_band: Literal["skip", "to_edge"] = _key("skip", read.choice("skip", "to_edge"), added=True)
    no_trade_band_coins: tuple[tuple[str, float], ...] = _key((), read.widths, added=True)
    trade_rate: float = _key(1.0, read.number(1e-6, 1), added=True)
    untradable: Literal["cash", "renormalise"] = _key("cash", read.choice("cash", "renormalise"))
    stale_hours: int = _key(24, read.whole(1))
    leverage: float = _key(1.0, read.number(0, 100))
    target_volatility: float = _key(0.0, read.number(0, 10))
    volatility_days: int = _key(30, read.whole(2))
    volatility_model: Literal["book", "risk"] = _key("book", read.choice("book", "risk"), added=True)
    tranches: int = _key(1, read.whole(1, 1000))
    gross_cap: float = _key(0.0, read.number(0, 100))
    isolated_leverage: float = _key(0.0, read.leverage, added=True)


@dataclass(frozen=True)
class Costs(_Section):
    """Costs of trading and holding.

    Attributes
    ----------
    taker_bps : float or "schedule"
        Taker fee in basis points of the fill's notional, or HyperLiquid's dated base rates
        (:mod:`engine.simulation.costs`).
    half_spread_bps : float
        Distance of the fill from mid where the panel has no quote.
    impact : {"none", "venue"}
        Price impact on top of the quote; ``"venue"`` takes it from the exchange's own impact prices.
    funding : bool
        Settle hourly funding.
    funding_missing : {"none", "mean"}
        What a held coin pays in an hour without a rate: nothing, or the mean of the panel's rates of the coin (of all
        coins where it has none), which bounds what missing rates hide.
    fee_tiers : bool
        With the schedule: the account's own volume of the 14 days before a day decides its tier.
    maker_bps : float or "schedule"
        Maker fee; negative is a rebate.
    maker_share_frac : float
        Part of every fill that is charged the maker fee.
    staking_discount_frac, referral_discount_frac : float
        Parts taken off a fee; the referral's ends at 25 million USD of volume.
    impact_bps : float
        Impact of an order of the exchange's reference size where a row has no impact price.
    stress : float
        Factor on every cost of a fill: fee, spread and impact; a gain (a rebate, a quote better than mid) stays as it
        is. 1 is the market as it was.
    """

    taker_bps: float | Literal["schedule"] = _key("schedule", read.rate)
    half_spread_bps: float = _key(2.0, read.number(0, 5000))
    impact: Literal["none", "venue"] = _key("none", read.choice("none", "venue"))
    funding: bool = _key(True, read.switch)
    funding_missing: Literal["none", "mean"] = _key("none", read.choice("none", "mean"))
    fee_tiers: bool = _key(False, read.switch)
    maker_bps: float | Literal["schedule"] = _key("schedule", read.rate)
    maker_share_frac: float = _key(0.0, read.number(0, 1))
    staking_discount_frac: float = _key(0.0, read.number(0, 1))
    referral_discount_frac: float = _key(0.0, read.number(0, 1))
    impact_bps: float = _key(5.0, read.number(0, 5000))
    stress: float = _key(1.0, read.number(0, 100))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fee_tiers and "schedule" not in (self.taker_bps, self.maker_bps):
            raise ConfigError(
                "costs.fee_tiers = true needs taker_bps or maker_bps = 'schedule': fixed rates have no tiers."
            )


@dataclass(frozen=True)
class Account(_Section):
    """The account that trades.

    Attributes
    ----------
    initial_equity_usd : float
        Cash before the first row.
    max_gross : float
        Limit of ``sum(abs(weight))`` of a row; weights above it are an error, never scaled silently.
    margin : bool
        Liquidate the book when equity is under the maintenance margin.
    margin_prices : {"close", "extreme"}
        Prices at which that is tested: those of the hours, or also the worst of each hour, which takes a panel with
        ``high`` and ``low``.
    initial_margin : bool
        Weights that need more initial margin than the account has are an error, as the exchange refuses them.
    """

    initial_equity_usd: float = _key(10_000.0, read.number(1e-6))
    max_gross: float = _key(1.0, read.number(1e-9, 100))
    margin: bool = _key(True, read.switch)
    margin_prices: Literal["close", "extreme"] = _key("close", read.choice("close", "extreme"))
    initial_margin: bool = _key(True, read.switch)


@dataclass(frozen=True)
class Report(_Section):
    """What a page compares a run with: no number of the run depends on it.

    Attributes
    ----------
    benchmark : str
        A coin of the cache, whether or not ``data.coins`` has it; ``"none"``; or a .csv or .parquet file of returns.
    """

    benchmark: str = _key("BTC", read.text)


#: Sections of a config, and the class of each.
SECTIONS = {"data": Data, "execution": Execution, "costs": Costs, "account": Account, "report": Report}


@dataclass(frozen=True)
class RunConfig:
    """All settings of a run. Immutable; equal configs have equal digests."""

    data: Data = field(default_factory=Data)
    execution: Execution = field(default_factory=Execution)
    costs: Costs = field(default_factory=Costs)
    account: Account = field(default_factory=Account)
    report: Report = field(default_factory=Report)

    def __post_init__(self) -> None:
        for name, kind in SECTIONS.items():
            if not isinstance(getattr(self, name), kind):
                raise ConfigError(
                    f"RunConfig({name}=...) is {type(getattr(self, name)).__name__}; {kind.__name__}(...) is needed. "
                    "From plain values: RunConfig.from_dict({...})."
                )

    @classmethod
    def from_dict(cls, sections: Mapping[str, Any]) -> Self:
        """Build a config from nested mappings, as TOML gives them.

        Raises
        ------
        ConfigError
            For an unknown section or key (the nearest name is suggested) or a value that is not accepted.
        """
        if not isinstance(sections, Mapping):
            raise ConfigError(f"A config is a table of sections, not {type(sections).__name__}.")
        built = {}
        for section, values in sections.items():
            if section not in SECTIONS:
                raise ConfigError(
                    f"Unknown config section [{section}].{did_you_mean(section, SECTIONS)} Sections: "
                    f"{', '.join(SECTIONS)}."
                )
            if not isinstance(values, Mapping):
                raise ConfigError(f"Config section [{section}] is a table of keys, not {values!r}.")
            known = [item.name for item in fields(SECTIONS[section])]
            for key in values:
                if key not in known:
                    raise ConfigError(
                        f"Unknown config key {section}.{key}.{did_you_mean(key, known)} Keys of [{section}]: "
                        f"{', '.join(known)}."
                    )
                read.no_fraction(f"{section}.{key}", values[key])
            built[section] = SECTIONS[section](**values)
        return cls(**built)

    @classmethod
    def load(
        cls,
        path: str | Path | None,
        assignments: Sequence[str] = (),
        study: Mapping[str, Mapping[str, Any]] | None = None,
        project: str | Path | None = None,
    ) -> Self:
        """Read a TOML file, override it by the sections of a study, then by ``section.key=value`` assignments.

        A value is read as TOML (``true``, ``4.5``, ``["mon", "thu"]``) and, where it is not TOML, as a bare string.
        What the file of a `project` sets is the default of all of them.
        """
        sections: dict[str, Any] = {}
        changes: list[tuple[str, Any]] = []
        for file, what in ((project, "Project file"), (path, "Config file")):
            if file is not None:
                given = read_toml(Path(file), what)
                try:
                    cls.from_dict(given)  # what is wrong in it is told with its name
                except ConfigError as error:
                    raise ConfigError(f"{what} {file}: {error}") from error
                changes += given.items()
        changes += (study or {}).items()
        for assignment in assignments:
            form, example = "section.key=value", "costs.taker_bps=4.5"
            name, text = split_assignment("--set", assignment, form, example)
            section, _, key = name.partition(".")
            if not section or not key:
                raise ConfigError(f"--set {assignment!r} is not {form}, for example --set {example}.")
            changes.append((section, {key: parse_value(text)}))
        for section, keys in changes:
            if not isinstance(keys, Mapping):
                raise ConfigError(f"Config section [{section}] is a table of keys, not {keys!r}.")
            sections.setdefault(section, {}).update(keys)
        return cls.from_dict(sections)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Nested plain values; ``from_dict`` of it gives an equal config.

        A ``report`` that is the default is left out, and so is a key with its default that was added later: what was
        digested, saved or promoted before they came stays what it was.
        """
        values = json.loads(json.dumps(asdict(self)))
        if self.report == Report():
            del values["report"]
        for section, keys in values.items():
            for key in fields(SECTIONS[section]):
                if key.metadata["added"] and getattr(getattr(self, section), key.name) == key.default:
                    del keys[key.name]
        plain: dict[str, dict[str, Any]] = values
        return plain

    @property
    def digest(self) -> str:
        """SHA-256 of every key but the folder of the cache and what a page shows, which do not change the numbers."""
        values = self.to_dict()
        del values["data"]["cache"]
        values.pop("report", None)
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def start(self) -> pd.Timestamp | None:
        """``data.start`` as an instant."""
        return None if self.data.start is None else parse_instant(self.data.start, "data.start")

    @property
    def end(self) -> pd.Timestamp | None:
        """``data.end`` as an instant."""
        return None if self.data.end is None else parse_instant(self.data.end, "data.end")


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Content of a TOML file; `what` names it in errors."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}. Name a TOML file that is there.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path} is not TOML: {error}.") from error


def parse_value(text: str) -> Any:
    """Read a value typed on the command line: TOML where it is TOML, ``.5`` and ``1.`` too, else the bare string."""
    bare = text.strip()
    try:
        return tomllib.loads(f"value = {bare}")["value"]
    except tomllib.TOMLDecodeError:
        return float(bare) if re.fullmatch(r"[+-]?(\d+\.|\.\d+)", bare, re.ASCII) else bare


def split_assignment(option: str, assignment: str, form: str, example: str) -> tuple[str, str]:
    """Name and text of one ``name=text`` of the command line, both without surrounding blanks.

    Parameters
    ----------
    option : str
        The option that was given, for the message.
    assignment : str
        What was typed after it.
    form, example : str
        How it is written, for the message: ``k=v`` and ``lookback_hours=168``.

    Raises
    ------
    ConfigError
        Without an equals sign or a name before it.
    """
    name, equals, text = assignment.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"{option} {assignment!r} is not {form}, for example {option} {example}.")
    return name.strip(), text.strip()


def parse_assignments(option: str, assignments: Iterable[str], form: str, example: str) -> dict[str, Any]:
    """Values of ``name=value`` options by name, each read by :func:`parse_value`; of a name given twice, the last.

    Parameters and errors are those of :func:`split_assignment`, for each of `assignments`.
    """
    pairs = (split_assignment(option, assignment, form, example) for assignment in assignments)
    return {name: parse_value(text) for name, text in pairs}
