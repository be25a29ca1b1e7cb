"""PortfolioManager: the predecessor's name for one oracle on one account."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from engine.config import RunConfig
from engine.live.dex import DEX
from engine.live.journal import Journal
from engine.live.orders import Outcome, Plan, Policy
from engine.live.risk_limits import Limits
from engine.live.session import Session
from engine.live.state_folder import KILL_SWITCH, journal_path
from engine.live.targets import Strategy, TargetProvider
from engine.oracles.base import Oracle
from engine.panel import Panel
from engine.simulation.backtest import check_config


class PortfolioManager:
    """One oracle, one account; each call is a :class:`engine.live.session.Session` of its own.

    Parameters
    ----------
    oracle : Oracle
        Gives the target weights.
    dex : DEX
        The account.
    config : RunConfig, optional
        Sizing and schedule, as in a backtest.
    panel : Panel, optional
        What the oracle sees. Default: the cache, with a row of live quotes after it; without a cache the oracle is
        called without a panel.
    limits, policy : Limits, Policy, optional
        What stops a run; how orders are sent.
    journal : Journal, optional
        Default: the oracle's in the account's folder (:mod:`engine.live.state_folder`), for a paper account in memory.
    key : str, optional
        Digest that client order ids are made of. Default: one of the oracle and the config.
    kill_switch : str or Path, optional
        While this file, or one of :func:`engine.live.state_folder.kill_switches`, exists nothing is ordered.
    sleep : callable
        Waits.
    """

    def __init__(
        self,
        oracle: Oracle,
        dex: DEX,
        config: RunConfig | None = None,
        *,
        panel: Panel | None = None,
        limits: Limits | None = None,
        policy: Policy | None = None,
        journal: Journal | None = None,
        key: str | None = None,
        kill_switch: str | Path = KILL_SWITCH,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        config = check_config(config)
        self.strategy = Strategy(
            type(oracle).__name__.lower(),
            key or _key(oracle, config),
            TargetProvider(oracle, config),
            limits or Limits.of(config.account.max_gross),
        )
        self.oracle, self.dex, self.config, self.panel = oracle, dex, config, panel
        self.policy, self.kill_switch, self._journal = policy or Policy(), Path(kill_switch), journal
        self._sleep = sleep

    @property
    def journal(self) -> Journal:
        """The journal, opened when it is first needed."""
        if self._journal is None:
            path = journal_path(self.strategy.name, self.dex.label)
            self._journal = Journal(None if self.dex.network == "paper" else path)
        return self._journal

    def preview(self, now: pd.Timestamp | None = None) -> tuple[Plan, list[str]]:
        """What would be ordered now, and the limits that it breaks; nothing is sent.

        Parameters
        ----------
        now : Timestamp, optional
            Default: the exchange's own time.
        """
        return self._session(now).preview()

    def plan(self, now: pd.Timestamp | None = None) -> Plan:
        """What would be ordered now."""
        return self.preview(now)[0]

    def manage_portfolio(self, now: pd.Timestamp | None = None, accept_positions: bool = False) -> Outcome:
        """Fetch weights, size the orders, check the limits, trade: :meth:`engine.live.session.Session.execute`.

        Parameters
        ----------
        now : Timestamp, optional
            Default: the exchange's own time.
        accept_positions : bool
            Take positions that differ from the journal's for those of the account, once, after trades of one's own.

        Raises
        ------
        LimitError
            Where a limit, the kill switch or unexplained positions stop the run; no order was sent.
        IncompleteError
            Where orders were sent and the book is not at its target.
        UnreachableError
            Where the exchange does not answer before any order.
        LiveError
            Where the account or its credentials cannot be used.
        """
        session = self._session(now)
        session.accept_positions = accept_positions
        return session.execute()

    def _session(self, now: pd.Timestamp | None) -> Session:
        account = self.strategy, self.dex, self.journal, self.panel
        return Session(*account, self.policy, self.kill_switch, now, self._sleep)


def _key(oracle: Oracle, config: RunConfig) -> str:
    state = json.dumps([type(oracle).__qualname__, vars(oracle), config.digest], sort_keys=True, default=str)
    return hashlib.sha256(state.encode()).hexdigest()
