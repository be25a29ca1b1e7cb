"""PortfolioManager: asks an oracle for weights and brings an account to them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

import numpy as np
import pandas as pd

from engine.clock import HOUR, show
from engine.config import RunConfig
from engine.errors import (
    DataError,
    HlbtError,
    IncompleteError,
    LimitError,
    LiveError,
    OracleError,
    WeightsError,
    did_you_mean,
    join_first,
)
from engine.live.dex import DEX
from engine.live.executor import OrderExecutor, Policy
from engine.live.journal import Journal, single_instance
from engine.live.live_panel import trade_instant, with_live_row
from engine.live.orders import AccountState, Market, Outcome, Plan
from engine.live.planner import make_plan
from engine.live.risk_limits import Limits, breaches, clock_breaches, equity_breaches, price_breaches, refuse
from engine.oracles.base import Oracle, call_fetch_weights, weight_matrix
from engine.oracles.fixed_weights import FixedWeights
from engine.panel import Panel
from engine.simulation.backtest import check_config, decisions_of
from engine.simulation.overlays import describe_overlays, traded_weights
from engine.weights import check_gross, validate_row, validate_weights

#: Where journals, locks and the kill switch are by default.
LIVE_FOLDER: Final = Path("reports") / "live"
KILL_SWITCH: Final = LIVE_FOLDER / "KILL"


class PortfolioManager:
    """One oracle, one account.

    Parameters
    ----------
    oracle : Oracle
        What is asked.
    dex : DEX
        What is traded.
    config : RunConfig, optional
        Sizing and schedule, as in a backtest.
    panel : Panel, optional
        What the oracle is handed. Default: the cache, with a row of live quotes on top; without a cache the oracle is
        asked without a panel.
    limits, policy : Limits, Policy, optional
        What stops a run; how orders are sent.
    journal : Journal, optional
        Default: ``reports/live/<oracle>-<account>.jsonl``, for a paper account in memory.
    key : str, optional
        Digest that client order ids are made of; a spec's own, by default one of the oracle and the config.
    kill_switch : str or Path, optional
        While this file exists nothing is ordered.
    sleep, clock : callable
        Waiting, and seconds of a monotonic clock.
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.oracle, self.dex, self.config = oracle, dex, check_config(config)
        self.panel, self.limits = panel, limits or Limits.of(self.config.account.max_gross)
        self.policy = policy or Policy()
        self._journal, self.kill_switch = journal, Path(kill_switch)
        self.key = key or _key(oracle, self.config)
        self.sleep, self.clock = sleep, clock
        self._locked = False
        #: Newest cached row that the oracle saw; None before it is asked, and where it sees no panel.
        self.data_end: pd.Timestamp | None = None

    @property
    def journal(self) -> Journal:
        """The journal, opened when it is first needed."""
        if self._journal is None:
            name = f"{type(self.oracle).__name__.lower()}-{self.dex.label}.jsonl"
            self._journal = Journal(None if self.dex.network == "paper" else LIVE_FOLDER / name)
        return self._journal

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other process trades the account meanwhile; inside of itself it does nothing, nor for a paper account.

        Raises
        ------
        LiveError
            When another one does.
        """
        if self._locked or self.dex.network == "paper":
            yield
            return
        folder = LIVE_FOLDER if self.journal.path is None else self.journal.path.parent
        with single_instance(folder / f".{self.dex.label}.lock"):
            self.journal.reload()
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    def look(self, now: pd.Timestamp | None = None) -> tuple[Plan, list[str]]:
        """What would be ordered now, and the limits that it breaks; nothing is sent.

        Parameters
        ----------
        now : Timestamp, optional
            Default: the exchange's own time.
        """
        state, markets = self.dex.account(), self.dex.markets()
        at = state.time if now is None else now
        plan = self._plan(state, markets, at)
        return plan, self._breaches(plan, markets, at)

    def plan(self, now: pd.Timestamp | None = None) -> Plan:
        """What :meth:`look` says would be ordered."""
        return self.look(now)[0]

    def manage_portfolio(self, now: pd.Timestamp | None = None) -> Outcome:
        """Ask the oracle, size the orders, check the limits, trade.

        An earlier run's orders of unknown fate are asked about first, and if it was of the same instant and did not
        come to its end, its plan is carried out instead of a new one.

        Raises
        ------
        LimitError
            When a limit or the kill switch stops the run; nothing was sent.
        IncompleteError
            When the book is not at its target afterwards; its ``outcome`` says what is missing.
        UnreachableError
            When the exchange does not answer before anything is sent.
        LiveError
            When another process trades the account.
        """
        with self.locked():
            return self._trade(now)

    def _trade(self, now: pd.Timestamp | None) -> Outcome:
        if stop := self._killed():
            raise LimitError(f"Nothing was ordered: {stop}.")
        execution = self._execution(pd.Timestamp(0, tz="UTC"))
        state, markets = execution.recover(), self.dex.markets()
        at = state.time if now is None else now
        execution.instant = trade_instant(at, self.config)
        goals, plan = self.journal.unfinished(execution.instant, self.key), None
        if goals is None:
            plan = self._plan(state, markets, at)
            self._refuse(self._breaches(plan, markets, at), execution.instant, state, at)
            goals = list(plan.goals)
            self.journal.append(
                "plan",
                at,
                instant=plan.instant.isoformat(),
                key=self.key,
                equity_usd=plan.equity_usd,
                goals=[vars(goal) for goal in goals],
                plan=plan.to_dict(),
            )
        else:
            found = equity_breaches(self.limits, state.equity_usd, self.journal, at)
            found += price_breaches(self.limits, markets, sorted({goal.coin for goal in goals}))
            found += clock_breaches(self.limits, self.dex.clock_error_seconds())
            self._refuse(found, execution.instant, state, at)
            execution.notes.append("an earlier run of this instant did not come to its end: its plan was carried out")
        outcome = execution.run(goals, state, markets, plan)
        if outcome.missing:
            raise incomplete(outcome, self.dex.label, self.journal)
        return outcome

    def recover(self, journal: Journal) -> None:
        """Ask about the orders of unknown fate of a journal, and wait until the positions show them."""
        if journal.unresolved():
            replace(self._execution(pd.Timestamp(0, tz="UTC")), journal=journal).recover()

    def _breaches(self, plan: Plan, markets: Mapping[str, Market], now: pd.Timestamp) -> list[str]:
        found = breaches(self.limits, plan, markets, self.journal, now, self.data_end)
        return found + clock_breaches(self.limits, self.dex.clock_error_seconds())

    def _refuse(self, found: list[str], instant: pd.Timestamp, state: AccountState, at: pd.Timestamp) -> None:
        """Note the breaches with the equity that was seen, and raise for them."""
        if found:
            seen = state.equity_usd if state.equity_usd > 0.0 else None
            self.journal.append("refused", at, instant=instant.isoformat(), equity_usd=seen, limits=found)
        refuse(found, f"{self.dex.label} at {show(instant)}")

    def _killed(self) -> str:
        return (
            f"the kill switch {self.kill_switch} is set; delete the file to trade" if self.kill_switch.exists() else ""
        )

    def _execution(self, instant: pd.Timestamp) -> OrderExecutor:
        return OrderExecutor(
            self.dex,
            self.journal,
            self.policy,
            self.key,
            instant,
            gross_limit=self.limits.gross,
            leverage=int(np.ceil(2.0 * self.config.account.max_gross)),
            guard=self._killed,
            closes_all=isinstance(self.oracle, FixedWeights) and self.oracle.frame.columns.empty,
            sleep=self.sleep,
            clock=self.clock,
        )

    def _plan(self, state: AccountState, markets: Mapping[str, Market], now: pd.Timestamp) -> Plan:
        instant = trade_instant(now, self.config)
        decision = instant - self.config.execution.delay_hours * HOUR
        weights = self._weights(instant, decision, markets)
        return make_plan(weights, self.dex, state, markets, self.config, instant, decision)

    # Weights ----------------------------------------------------------------------------------------------------------

    def _weights(
        self, instant: pd.Timestamp, decision: pd.Timestamp, markets: Mapping[str, Market]
    ) -> dict[str, float]:
        """Weights to trade at `instant`, after all of the config's variants."""
        panel = self._panel(instant)
        if panel is None:
            given = _asked(self.oracle, decision, markets, None)
            if describe_overlays(self.config):
                given = self._varied(given, decision)
            self.oracle.validate_weights(given, self.config.account.max_gross)
            if strange := self.dex.unlisted(coin for coin, weight in given.items() if weight != 0.0):
                raise WeightsError(
                    f"Weights at {show(decision)} name {join_first(strange)}, no coin of {self.dex.network}."
                    f"{did_you_mean(strange[0], markets)} Names are HyperLiquid's, and case counts."
                )
            return given
        known = panel.until(decision)
        if known.index[-1] != decision:
            raise DataError(
                f"The panel has no row at {show(decision)}; its last one before is {show(known.index[-1])}."
            )
        if self.config.execution.tranches > 1:
            own = self.oracle.decisions if isinstance(self.oracle, FixedWeights) else decisions_of(known, self.config)
            decisions = own[own < decision].union(known.index[-1:])
            decisions, values = validate_weights(weight_matrix(self.oracle, known, decisions), known)
        else:
            universe = list(markets) if decision == instant else _tradable(known)
            row = _asked(self.oracle, decision, universe, known.known())
            decisions, values = known.index[-1:], validate_row(row, known)
        traded = traded_weights(values, decisions, known, self.config)[-1:]
        check_gross(traded, decisions[-1:], self.config.account.max_gross, describe_overlays(self.config))
        return dict(zip(panel.coins, map(float, traded[0]), strict=True))

    def _varied(self, given: Mapping[str, float], decision: pd.Timestamp) -> dict[str, float]:
        """The variants that need no market data."""
        execution = self.config.execution
        alone = isinstance(self.oracle, FixedWeights) or execution.tranches == 1
        if execution.target_volatility > 0.0 or not alone:
            raise LiveError(
                f"The weights are changed{describe_overlays(self.config)}: that needs market data. Sync a cache."
            )
        frame = pd.DataFrame([dict(given)], index=pd.DatetimeIndex([decision]), dtype=np.float64)
        if isinstance(self.oracle, FixedWeights):
            frame = self.oracle.frame[:decision]
        # No panel is looked at without a volatility target.
        traded = traded_weights(
            frame.to_numpy(np.float64), pd.DatetimeIndex(frame.index), cast(Panel, None), self.config
        )
        return dict(zip(map(str, frame.columns), map(float, traded[-1]), strict=True))

    def _panel(self, instant: pd.Timestamp) -> Panel | None:
        """The panel up to `instant`; None where there is no cache, or given weights need none."""
        if self.panel is None:
            from engine.data.panel_loader import cache_path, load_panel

            data = self.config.data
            given = isinstance(self.oracle, FixedWeights) and not self.config.execution.target_volatility
            if given or not cache_path(data.cache).is_dir():
                return None
            panel = load_panel(data.cache, self.config.start, instant, data.coins)
        else:
            panel = self.panel
        self.data_end = min(panel.index[-1], instant)
        if panel.index[-1] < instant:
            return with_live_row(panel, instant, self.dex.feed().live_row())
        return panel


def incomplete(outcome: Outcome, account: str, journal: Journal) -> IncompleteError:
    """The error of a book that is not at its target."""
    missing = "; ".join(
        f"{item.coin} is at {item.units:g} instead of {item.target_units:g} ({item.reason})" for item in outcome.missing
    )
    where = f" The journal {journal.path} has every order." if journal.path else ""
    error = IncompleteError(
        f"The book of {account} is not at its target: {missing}.{where} Run the command again: it asks the exchange "
        "first and orders only what is left."
    )
    error.outcome = outcome
    return error


def _key(oracle: Oracle, config: RunConfig) -> str:
    state = json.dumps([type(oracle).__qualname__, vars(oracle), config.digest], sort_keys=True, default=str)
    return hashlib.sha256(state.encode()).hexdigest()


def _asked(oracle: Oracle, decision: pd.Timestamp, universe: Iterable[str], panel: Panel | None) -> dict[str, float]:
    """The oracle's weights for one decision; whatever it raises is an OracleError."""
    try:
        return call_fetch_weights(oracle, decision, universe, panel)
    except HlbtError:
        raise
    except Exception as error:
        raise OracleError(
            f"{type(oracle).__name__} failed at {show(decision)}: {type(error).__name__}: {error}. Correct the oracle; "
            "HLBT_TRACEBACK=1 shows the whole trace."
        ) from error


def _tradable(panel: Panel) -> list[str]:
    return [coin for coin, can in zip(panel.coins, panel.tradable[-1], strict=True) if can]
