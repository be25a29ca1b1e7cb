"""Which account is traded, and where its journal is: opens the session of a command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pandas as pd

from engine.data.cache import Progress, Store
from engine.data.coin_names import dexes_of
from engine.data.panel_loader import cache_path
from engine.data.sync_api import sync_api
from engine.errors import DataError, LiveError, UnreachableError, join_first
from engine.live.demotion import REINSTATED, Demotion, check_reinstatement, reinstate
from engine.live.dex import DEX
from engine.live.hyperliquid import HyperLiquidDEX
from engine.live.journal import Journal
from engine.live.orders import Policy
from engine.live.paper_market import PaperMarket, paper_account
from engine.live.schedule import trade_instant
from engine.live.session import Session
from engine.live.state_folder import KILL_SWITCH, LIVE_FOLDER, account_folder, journal_path, single_instance
from engine.live.targets import Strategy
from engine.panel import Panel

#: How far before the cache's end a sync looks for rows that came late.
_OVERLAP: Final = pd.Timedelta(days=2)


@dataclass(frozen=True)
class Venue:
    """An account, by the options of the command line.

    Attributes
    ----------
    network : {"testnet", "mainnet", "paper"}
    base_url : str or None
    credentials : Path or None
    journal : Path or None
        The file or folder that ``--journal`` names; None for the account's own.
    kill_switch : Path
    timeout_seconds : float
    policy : Policy

    Raises
    ------
    LiveError
        For a network that does not exist.
    """

    network: str = "testnet"
    base_url: str | None = field(default=None, repr=False)
    credentials: Path | None = None
    journal: Path | None = None
    kill_switch: Path = KILL_SWITCH
    timeout_seconds: float = 10.0
    policy: Policy = field(default_factory=Policy)

    def __post_init__(self) -> None:
        if self.network not in ("testnet", "mainnet", "paper"):
            raise LiveError(f"--network {self.network!r} is none of testnet, mainnet, paper.")

    @property
    def folder(self) -> Path:
        """Of paper accounts and pages."""
        if self.journal is None:
            return LIVE_FOLDER
        return self.journal.parent if self.journal.suffix == ".jsonl" else self.journal

    def exchange(self) -> HyperLiquidDEX:
        """The account, or for a paper account the main network, whose prices it trades at; nothing is sent yet.

        Raises
        ------
        LiveError
            For a host that belongs to the other network.
        """
        return HyperLiquidDEX(
            "mainnet" if self.network == "paper" else self.network,
            base_url=self.base_url,
            credentials=self.credentials,
            timeout_seconds=self.timeout_seconds,
        )

    def needs_data(self, strategy: Strategy) -> bool:
        """Whether a run reads the cache: for the oracle, or for the hours since a paper account traded."""
        return self.network == "paper" or strategy.targets.needs_panel

    def sync(self, strategy: Strategy, now: pd.Timestamp, progress: Progress | None = None) -> list[str]:
        """Update the end of the cache from the main network's API, or from ``base_url``; returns notes for people.

        Raises
        ------
        UnreachableError
            When the data cannot be had.
        """
        data = strategy.config.data
        return self.sync_cache(data.cache, data.selection, now, progress)

    def sync_cache(
        self, cache: str | None, coins: Sequence[str], now: pd.Timestamp, progress: Progress | None = None
    ) -> list[str]:
        """As :meth:`sync`, for names and patterns of coins."""
        base_url = self.exchange().base_url
        store = Store(cache_path(cache))
        manifest = store.manifest()
        if manifest is not None and manifest.synthetic:
            return ["the cache is SYNTHETIC: it is not brought up to date"]
        spans = [manifest.span([dex]) if manifest else None for dex in dexes_of(coins)]
        ends = [min(span[1], now) for span in spans if span]
        try:
            report = sync_api(
                store,
                start=min(ends) - _OVERLAP if len(ends) == len(spans) else None,
                end=None,
                coins=coins,
                now=now,
                base_url=base_url,
                timeout_seconds=self.timeout_seconds,
                progress=progress,
            )
        except DataError as error:
            raise UnreachableError(f"The data cannot be brought up to date: {error}") from error
        return [f"sync: {join_first(report.problems, 3)}"] if report.problems else []

    @contextmanager
    def open(self, strategy: Strategy, now: pd.Timestamp, trades: bool = True) -> Iterator[Session]:
        """A session of `strategy` on the account at `now`; one that does not trade leaves a paper account as it is.

        A paper account is brought to the instant of `now`, and locked as long as a session that trades is open: its
        file must not be read before the lock is held.
        """
        dex: DEX = self.exchange()
        dex.use_dexes(strategy.dexes)
        panel: Panel | None = None
        with ExitStack() as held:
            notes = []
            if self.network == "paper":
                if trades:
                    held.enter_context(self.paper_lock(strategy.name))
                instant = trade_instant(now, strategy.config)
                panel = PaperMarket(dex).panel(strategy.config, instant)
                dex = paper_account(strategy, panel, self.folder, instant, trades)
                dex.advance(instant)
                if not trades and not (dex.state and dex.state.is_file()):
                    notes.append(f"there is no paper account yet: a run begins one of {dex.cash:,.0f} USD")
            journal = Journal(journal_path(strategy.name, dex.label, self.journal))
            session = Session(strategy, dex, journal, panel, self.policy, self.kill_switch, now)
            session.notes += notes
            yield session

    def reinstate(self, name: str, reason: str, now: pd.Timestamp, spec: str | None = None) -> Demotion:
        """Let a demoted strategy, or the `spec` of a book, add risk again, with a person's reason on record.

        Returns what is over.

        The journal is marked first: whatever happens in between, the days that an alarm looks at begin anew.

        Raises
        ------
        LiveError
            When the strategy is not demoted, the reason is empty, or another process trades the account.
        """
        paper = self.network == "paper"
        label = self.network if paper else self.exchange().label
        folder = self.folder if paper else account_folder(label)
        with self.paper_lock(name) if paper else single_instance(folder / "lock"):
            who = spec or name
            check_reinstatement(folder, who, reason)
            journal = Journal(journal_path(name, label, self.journal))
            journal.append(REINSTATED, now, strategy=who, reason=reason.strip())
            return reinstate(folder, who, reason, now.isoformat())

    def interrupted(self, strategy: Strategy, now: pd.Timestamp) -> bool:
        """Whether a run of the instant of `now` was killed after its plan; never for a paper account."""
        if self.network == "paper":
            return False
        with self.open(strategy, now) as session:
            return session.interrupted

    def paper_lock(self, name: str) -> AbstractContextManager[None]:
        """Held by the run that trades a paper account."""
        return single_instance(self.folder / f".{name}-paper.lock")
