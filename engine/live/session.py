"""One run of the command line: which strategy, which account, where the journal lies; data first, then orders."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pandas as pd

from engine.clock import HOUR, decision_instants, hourly_index, show
from engine.config import RunConfig
from engine.data.cache import Progress, Store
from engine.data.panel_loader import cache_path, load_panel
from engine.data.sync_api import sync_api
from engine.errors import DataError, LimitError, LiveError, UnreachableError, WeightsError, join_first
from engine.live.dex import DEX
from engine.live.executor import Policy
from engine.live.hyperliquid import HyperLiquidDEX
from engine.live.journal import Journal, single_instance
from engine.live.live_panel import scheduled, trade_instant, with_live_row
from engine.live.orders import Outcome, Plan
from engine.live.paper import PaperDEX
from engine.live.portfolio_manager import KILL_SWITCH, LIVE_FOLDER, PortfolioManager
from engine.live.risk_limits import Limits, refuse
from engine.live.spec import load_live_oracle, read_spec
from engine.oracles.base import Oracle
from engine.oracles.fixed_weights import FixedWeights
from engine.panel import Panel
from engine.weights import read_weights

#: How far before the cache's end a sync looks for rows that came late.
_OVERLAP: Final = pd.Timedelta(days=2)
#: How long before the decision's hour `--daily` orders, and how long before it brings the data.
ORDER_LEAD: Final = pd.Timedelta(seconds=60)
DATA_LEAD: Final = pd.Timedelta(minutes=20)


@dataclass(frozen=True)
class Strategy:
    """What is traded: an oracle and its rules.

    Attributes
    ----------
    name : str
        Part of the journal's name.
    key : str
        Digest that client order ids are made of.
    oracle : Oracle
    config : RunConfig
    limits : Limits
    notes : tuple of str
        For people.
    """

    name: str
    key: str
    oracle: Oracle
    config: RunConfig
    limits: Limits
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Venue:
    """Where it is traded, as the command line says it.

    Attributes
    ----------
    network : {"testnet", "mainnet", "paper"}
    base_url : str or None
    credentials : Path or None
    folder : Path
        Of journals, locks and paper accounts.
    kill_switch : Path
    timeout_seconds : float
    policy : Policy
    """

    network: str = "testnet"
    base_url: str | None = field(default=None, repr=False)
    credentials: Path | None = None
    folder: Path = LIVE_FOLDER
    kill_switch: Path = KILL_SWITCH
    timeout_seconds: float = 10.0
    policy: Policy = field(default_factory=Policy)


def from_spec(path: Path, cache: str | None) -> Strategy:
    """The strategy of a promoted spec, checked; `cache` replaces the folder of its data."""
    spec = read_spec(path)
    oracle, notes = load_live_oracle(spec)
    data = replace(spec.config.data, cache=cache or spec.config.data.cache, end=None)
    return Strategy(spec.name, spec.digest, oracle, replace(spec.config, data=data), spec.limits, tuple(notes))


def from_weights(path: Path, config: RunConfig, limits: Limits, now: pd.Timestamp) -> Strategy:
    """The newest row at or before the decision of a weights file."""
    frame = read_weights(path)
    if frame.empty:
        raise WeightsError(f"Weights file {path} has no row.")
    oracle = FixedWeights(frame)
    decision = trade_instant(now, config) - config.execution.delay_hours * HOUR
    row = oracle.decisions[oracle.decisions <= decision]
    if not len(row):
        raise WeightsError(f"Weights file {path} has no row at or before {show(decision)}.")
    values = oracle.fetch_portfolio_weights(decision, ())
    text = f"{row[-1].isoformat()}{sorted(values.items())}{config.digest}{limits}"  # a new limit is a new plan
    key = hashlib.sha256(text.encode()).hexdigest()
    age, most = (now - row[-1]) / HOUR, limits.weights_age_hours
    if most is not None and age > most:
        found = f"weights_age_hours: its newest row, of {show(row[-1])}, is {age:,.1f} hours old; the limit is {most:g}"
        refuse([found], f"Weights file {path}")
    notes = [f"the row of {show(row[-1])} is traded, {max(0.0, age):,.1f} hours old"]
    if later := len(oracle.decisions) - len(row):
        notes.append(f"{later} later rows are not")
    return Strategy(path.stem, key, oracle, config, limits, tuple(notes))


def flat(name: str) -> Strategy:
    """Every position closed, whatever the limits: also the way out of a spec that cannot be read any more."""
    key = hashlib.sha256(f"flatten|{name}".encode()).hexdigest()
    return Strategy(name, key, FixedWeights.of({}), RunConfig(), Limits.none(), ("every position is closed",))


class Session:
    """A strategy at a venue, at one moment.

    Parameters
    ----------
    strategy : Strategy
    venue : Venue
    now : Timestamp
        The time.
    """

    def __init__(self, strategy: Strategy, venue: Venue, now: pd.Timestamp) -> None:
        if venue.network not in ("testnet", "mainnet", "paper"):
            raise LiveError(f"--network {venue.network!r} is none of testnet, mainnet, paper.")
        # Reaches for nothing, but refuses the address of the other network before data come from there.
        self._exchange = HyperLiquidDEX(
            "mainnet" if venue.network == "paper" else venue.network,
            base_url=venue.base_url,
            credentials=venue.credentials,
            timeout_seconds=venue.timeout_seconds,
        )
        self.strategy, self.venue, self.now = strategy, venue, now
        self.instant = trade_instant(now, strategy.config)
        self.notes = list(strategy.notes)
        if not isinstance(strategy.oracle, FixedWeights) and not scheduled(self.instant, strategy.config):
            self.notes.append(f"{show(self.instant)} is off the schedule that was validated")
        self.panel: Panel | None = None
        self._dex: DEX | None = None
        self._manager: PortfolioManager | None = None

    @property
    def wants_data(self) -> bool:
        """Whether the oracle sees a panel, or a paper account is to be brought through the hours since it traded."""
        given = isinstance(self.strategy.oracle, FixedWeights) and self.venue.network != "paper"
        return not given or self.strategy.config.execution.target_volatility > 0.0

    def sync(self, progress: Progress | None = None) -> None:
        """Bring the cache's tail up to date from the main network's API, or from another host."""
        config = self.strategy.config
        store = Store(cache_path(config.data.cache))
        manifest = store.manifest()
        span = None if manifest is None else manifest.span
        if manifest is not None and manifest.synthetic:
            self.notes.append("the cache is SYNTHETIC: it is not brought up to date")
            return
        start = None if span is None else min(span[1], self.now) - _OVERLAP
        try:
            report = sync_api(
                store,
                start=start,
                end=None,
                coins=config.data.coins,
                now=self.now,
                base_url=self._exchange.base_url,
                timeout_seconds=self.venue.timeout_seconds,
                progress=progress,
            )
        except DataError as error:
            raise UnreachableError(f"The data cannot be brought up to date: {error}") from error
        if report.problems:
            self.notes.append(f"sync: {join_first(report.problems, 3)}")

    @property
    def dex(self) -> DEX:
        """The account; a paper one is brought to the instant."""
        if self._dex is None:
            self._dex = self._paper() if self.venue.network == "paper" else self._exchange
        return self._dex

    def _paper(self) -> PaperDEX:
        data = self.strategy.config.data
        panel = load_panel(data.cache, self.strategy.config.start, self.instant, data.coins)
        if panel.index[-1] < self.instant:
            if self.instant - panel.index[-1] > HOUR:
                # An account that went through these hours would miss their funding, and take no price for a delisting.
                raise DataError(
                    f"The paper account cannot be brought to {show(self.instant)}: the cache ends at "
                    f"{show(panel.index[-1])}, and the hours between are not known. Leave --no-sync out, or sync."
                )
            panel = with_live_row(panel, self.instant, self._exchange.live_row())
        self.panel = panel
        state = self.venue.folder / f"{self.strategy.name}-paper.json"
        dex = PaperDEX(panel, self.strategy.config, state, start=self.instant)
        dex.advance(self.instant)
        return dex

    @property
    def manager(self) -> PortfolioManager:
        """The portfolio manager, with the journal of this strategy and account."""
        if self._manager is None:
            dex = self.dex
            strategy = self.strategy
            self._manager = PortfolioManager(
                strategy.oracle,
                dex,
                strategy.config,
                panel=self.panel,
                limits=strategy.limits,
                policy=self.venue.policy,
                journal=Journal(self.venue.folder / f"{strategy.name}-{dex.label}.jsonl"),
                key=strategy.key,
                kill_switch=self.venue.kill_switch,
            )
        return self._manager

    @property
    def interrupted(self) -> bool:
        """Whether a run of this instant was killed after its plan; a paper account is made anew by its next run."""
        if self.venue.network == "paper":
            return False
        return self.manager.journal.unfinished(self.instant, self.strategy.key) is not None

    def locked(self) -> AbstractContextManager[None]:
        """No other process may trade the account meanwhile; a paper one is locked before it is read."""
        if self.venue.network == "paper":
            return single_instance(self.venue.folder / f".{self.strategy.name}-paper.lock")
        return self.manager.locked()

    def plan(self) -> tuple[Plan, list[str]]:
        """The plan and the limits that it breaks; nothing is sent."""
        found = self.manager.look(self.now)
        self._warn()
        return found

    def execute(self) -> Outcome:
        """Trade, under the lock; then note the fills with their fees, which only the account's history has."""
        with self.locked():
            try:
                self._recover_others()
                return self.manager.manage_portfolio(self.now)
            finally:
                self._record_fills()
                self._warn()

    def _warn(self) -> None:
        try:
            self.notes += self.dex.warnings()
        except UnreachableError as error:
            self.notes.append(f"not known whether the agent wallet expires: {error}")

    def _recover_others(self) -> None:
        """Ask about orders that a run of another name left under way on this account: they may still be filled."""
        if self.venue.network == "paper":
            return  # an account of its own for each
        for path in sorted(self.venue.folder.glob(f"*-{self.dex.label}.jsonl")):
            if path == self.manager.journal.path:
                continue
            try:
                journal = Journal(path)
            except LiveError as error:  # damaged; only its own strategy depends on it
                self.notes.append(str(error))
            else:
                self.manager.recover(journal)

    def _record_fills(self) -> None:
        journal = self.manager.journal
        wanted = journal.without_fills()
        if not wanted:
            return
        try:
            since = min(time for time in wanted.values()) - pd.Timedelta(minutes=1)
            fills = [fill for fill in self.dex.fills(since) if fill.cloid in wanted]
        except UnreachableError:
            return  # they are asked for again after the next run
        if fills:
            rows = [{**vars(fill), "time": fill.time.isoformat()} for fill in fills]
            journal.append("fills", fills[-1].time, fills=rows)


def next_run(now: pd.Timestamp, config: RunConfig) -> tuple[pd.Timestamp, pd.Timestamp]:
    """When ``--daily`` brings the data and when it orders, for the next scheduled instant.

    Raises
    ------
    LimitError
        When the schedule has no instant within two years.
    """
    execution = config.execution
    start = now.ceil(HOUR) - execution.delay_hours * HOUR
    hours = hourly_index(start, start + pd.Timedelta(days=2 * 366))
    decided = decision_instants(hours, execution.hour_utc, execution.every_days, execution.weekdays)
    for instant in decided + execution.delay_hours * HOUR:
        if instant - ORDER_LEAD > now:
            return instant - DATA_LEAD, instant - ORDER_LEAD
    raise LimitError("The schedule of this spec has no instant within two years.")
