"""One live run: recover, plan, check the limits, trade, and note the fills.

What happens between a kill and the next order is :meth:`Session._trade`, in this order:

1. The account is locked and its journal read again.
2. Orders of unknown status are looked up, those of other strategies on the account too. Positions are read until they
   are those that the journals of the account add up to; while they are not, nothing is ordered.
3. A plan of the same instant and key that did not come to its end is continued; else a new one is made.
4. A strategy that stands demoted, or that an alarm demotes now, keeps of the plan only what makes positions smaller.
   The demotion is on the disk before anything is ordered.
5. The limits must hold. The plan goes into the journal, each request before it is sent, and each result after.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from engine.clock import HOUR, show
from engine.coin import dex_of
from engine.data.panel_loader import cache_path, load_whole_panel
from engine.errors import (
    IncompleteError,
    LimitError,
    LiveError,
    PositionsError,
    UnreachableError,
)
from engine.live.demotion import DEMOTED, Demotion, demote, demotion_of, demotion_text
from engine.live.dex import DEX
from engine.live.executor import OrderExecutor
from engine.live.funds import missing_funds
from engine.live.journal import Journal
from engine.live.leverage import duration_text, leverage_to_set, set_leverages
from engine.live.live_panel import with_live_row
from engine.live.orders import AccountState, Goal, Market, Outcome, Plan, Policy
from engine.live.plan_record import plan_record
from engine.live.planner import make_plan, reductions
from engine.live.reconcile import Reconciler
from engine.live.risk_limits import held_back, newest_rows, plan_breaches, refuse, run_breaches
from engine.live.schedule import trade_instant
from engine.live.state_folder import (
    KILL_SWITCH,
    account_folder,
    adopt_journals,
    kill_switches,
    link_journal,
    record_folder,
    single_instance,
)
from engine.live.targets import Account, Strategy, Watch
from engine.panel import Panel
from engine.provenance import fields_read
from engine.weights import unknown_coins


@dataclass
class Session:
    """A strategy on an account, at one moment.

    Parameters
    ----------
    strategy : Strategy
        Targets, limits, and the key of the client order ids.
    dex : DEX
        The account.
    journal : Journal
        Of the strategy on the account.
    panel : Panel, optional
        What the oracle sees. Default: the cache, with a row of live quotes after it; without a cache none.
    policy : Policy, optional
        How orders are sent.
    kill_switch : Path
        While this file, or one of :func:`engine.live.state_folder.kill_switches`, exists nothing is ordered.
    now : Timestamp, optional
        The time. Default: the exchange's own.
    sleep : callable
        Waits.
    accept_positions : bool
        Take positions that differ from the journal's for those of the account, after its owner traded; noted there.
    accepts_equity : bool
        Take the account's equity for intended, after a deposit or a withdrawal; noted there.
    ignore_kill : bool
        Go on while a kill switch is set: to close positions.
    announce : callable
        Called with a text before what takes long.
    watch : callable, optional
        The alarms, a :data:`engine.live.targets.Watch`.
    part_watches : mapping of str to callable
        The same for each spec of a book.

    Attributes
    ----------
    notes : list of str
        For people.
    demotion : Demotion or None
        That the strategy stands under; known after the account was read.
    part_demotions : dict of str to Demotion
        Those of the specs of a book; known after it was planned.
    """

    strategy: Strategy
    dex: DEX
    journal: Journal
    panel: Panel | None = None
    policy: Policy = field(default_factory=Policy)
    kill_switch: Path = KILL_SWITCH
    now: pd.Timestamp | None = None
    sleep: Callable[[float], None] = time.sleep
    accept_positions: bool = False
    accepts_equity: bool = False
    ignore_kill: bool = False
    announce: Callable[[str], object] = lambda _: None
    watch: Watch | None = None
    part_watches: Mapping[str, Watch] = field(default_factory=dict)

    demotion: Demotion | None = field(default=None, init=False)
    part_demotions: dict[str, Demotion] = field(default_factory=dict, init=False)
    _newest: dict[str, pd.Timestamp] = field(default_factory=dict)  # cached row of each field that the oracle read
    _cached: Panel | None = None  # before the row of live quotes
    _seen: Panel | None = None  # what the newest weights were made of
    _read: frozenset[str] = frozenset()  # its fields that they were made of
    _reconciler: Reconciler = field(init=False)

    def __post_init__(self) -> None:
        self.notes = list(self.strategy.notes)
        if self.now is not None and not self.strategy.targets.is_scheduled(self.instant):
            self.notes.append(f"{show(self.instant)} is off the schedule that was validated")

    @property
    def instant(self) -> pd.Timestamp:
        """The instant that orders of now belong to."""
        return trade_instant(self.dex.account().time if self.now is None else self.now, self.strategy.config)

    @property
    def interrupted(self) -> bool:
        """Whether a run of this instant and key was killed after its plan."""
        return self.journal.state.unfinished(self.instant, self.strategy.key) is not None

    def preview(self) -> tuple[Plan, list[str]]:
        """What would be ordered now, and the limits that it breaks; nothing is sent."""
        reconciler = self._reconciler = self._new_reconciler()
        reconciler.read_account()
        reconciler.agree()
        state, markets = reconciler.state, self.dex.markets()
        self._judge_demotion(state, self._instant(state), record=False)
        plan = self._plan(state, markets)
        broken = self._breaches(state, markets, plan.goals, plan) + held_back(self.strategy.limits, plan)
        if self.accepts_equity:  # nothing is journalled here
            broken = [text for text in broken if not text.startswith(("daily_loss_frac:", "equity_change_frac:"))]
        if state.doubt and self.strategy.targets.closes_all:
            self.notes.append(state.doubt)
        elif state.doubt:
            broken = [f"equity: {state.doubt}"]  # the limits were measured by it
        if text := self._missing_funds(state, markets, plan.goals):
            broken.append(f"funds: {text}")
        if (text := reconciler.differences) and not self.accept_positions:
            broken.append(f"positions: {text}; --accept-positions takes the account's, if you have traded yourself")
        self.notes += state.notes
        wanted = self._leverage_to_set(plan, state, markets)
        self.notes += filter(None, [duration_text(self.dex, len(wanted))])
        self._add_warnings()
        return plan, broken

    def execute(self) -> Outcome:
        """Trade under the account's lock; then journal the fills with their fees, which only the history has.

        Raises
        ------
        LimitError
            When a limit or the kill switch stops the run; nothing was sent.
        PositionsError
            When the account keeps showing other positions than the journal adds up to; nothing was sent.
        IncompleteError
            When the book is not at its target afterwards; its ``outcome`` says what is missing.
        UnreachableError
            When the exchange does not answer before anything is sent.
        LiveError
            When another process trades the account.
        """
        with self._locked():
            try:
                return self._trade()
            finally:
                self._record_fills()
                self._record_funding()
                self._add_warnings()

    def prepare(self) -> None:
        """Set the leverage that a plan of now would need, before it is time to trade; no order is sent."""
        with self._locked():
            if not self.kill_text():
                state, markets = self.dex.account(), self.dex.markets()
                wanted = self._leverage_to_set(self._plan(state, markets), state, markets)
                set_leverages(self.dex, self.journal, state, wanted, self.announce)

    def _leverage_to_set(
        self, plan: Plan, state: AccountState, markets: Mapping[str, Market]
    ) -> list[tuple[Market, int]]:
        opened = {markets[order.coin]: abs(order.target_units) * order.mid for order in plan.orders if order.grows}
        return leverage_to_set(self.dex, self.journal, state, opened, *self.strategy.leverages)

    def accept_equity(self) -> tuple[float, float]:
        """Journal the account's equity as intended, and trade nothing: limits on it count from here.

        Returns
        -------
        tuple of float
            The newest equity that the journal had, NaN where it had none, and the account's, USD.

        Raises
        ------
        LiveError
            When the strategy has no journal on the account, or another process trades it.
        UnreachableError
            When the exchange does not answer.
        """
        with self._locked():
            if not self.journal.entries:
                raise LiveError(
                    f"{self.strategy.name!r} has no journal on {self.dex.label}, so there is no equity to compare with "
                    "and none to accept. Check the name and --network."
                )
            records = self.journal.state.accepted_equities()
            state = self.dex.account()
            self._accept_equity(state)
        return records[-1].equity_usd if records else math.nan, state.equity_usd

    def _accept_equity(self, state: AccountState) -> None:
        if state.doubt:
            raise LiveError(f"The equity of {self.dex.label} cannot be accepted: {state.doubt}.")
        if not state.equity_usd > 0.0:
            raise LiveError(f"{self.dex.label} has an equity of {state.equity_usd:,.2f} USD, which cannot be accepted.")
        self.journal.append("equity_accepted", self._at(state), equity_usd=state.equity_usd)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """No other process trades the account meanwhile; a paper account is locked by whoever opens its file."""
        journal, label = self.journal, self.dex.label
        with ExitStack() as held:
            if self.dex.network != "paper":
                folder = account_folder(label)
                held.enter_context(single_instance(folder / "lock"))
                if journal.path is not None:
                    self.notes += adopt_journals(label)
                    path = journal.path = journal.path.resolve()  # a link, now, where it was adopted
                    journal.reload()
                    if path.parent == folder.resolve():
                        held.callback(lambda: self.notes.extend(link_journal(path)))
            self._reconciler = self._new_reconciler()
            yield

    def _trade(self) -> Outcome:
        """From a kill, or a quiet night, to the next order."""
        if stop := self.kill_text():
            raise LimitError(f"Nothing was ordered: {stop}.")
        reconciler = self._reconciler
        reconciler.recover()
        state, markets = reconciler.state, self.dex.markets()
        instant = self._instant(state)
        try:
            reconciler.judge(markets, self.strategy.targets.closes_all, self.accept_positions)
        except PositionsError:
            self._append_refusal(reconciler.exchange_time(), instant, None, [f"positions: {reconciler.differences}"])
            raise
        self._judge_equity(state, instant)
        if self.accepts_equity:
            self._accept_equity(state)
        self._judge_demotion(state, instant, record=True)
        goals, plan = self.journal.state.unfinished(instant, self.strategy.key), None
        again = goals is None and self.strategy.targets.execution.trade_rate < 1.0
        if again and (done := self.journal.state.finished(instant, self.strategy.key)) is not None:
            goals = tuple(goal for goal in done if goal.sized)  # a part of the way is traded once an instant
        # With a quote that is back a new plan is made; it doubles nothing, for what was done is known.
        continued = goals is not None and all(goal.sized or goal.coin not in markets for goal in goals)
        if goals is None or not continued:
            plan = self._plan(state, markets)
            self._record_part_demotions(plan, state)
            goals = plan.goals
        else:
            newest = next(entry for entry in reversed(self.journal.entries) if entry["kind"] == "plan")
            self.part_demotions = _part_demotions(newest["plan"].get("parts", {}))
        if self.demotion is not None:  # a plan of before the alarm has openings
            goals = reductions(goals)
        if broken := self._breaches(state, markets, goals, plan):
            self._append_refusal(self._at(state), instant, state.equity_usd if state.equity_usd > 0.0 else None, broken)
        refuse(broken, f"{self.dex.label} at {show(instant)}")
        if text := self._missing_funds(state, markets, goals):
            self._append_refusal(self._at(state), instant, state.certain_equity_usd, [f"funds: {text}"])
            raise LimitError(f"Nothing was ordered for {self.dex.label}: {text}.")
        if plan is not None:
            self._append_plan(plan, state, markets)
        executor = OrderExecutor(reconciler, self.strategy, instant, self.kill_text, self.announce)
        if continued:
            before = "ended, and trades its part of the way once" if again else "did not come to its end"
            executor.notes.append(f"an earlier run of this instant {before}: its plan was carried out")
        outcome = executor.run(goals, markets, plan)
        if outcome.missing:
            raise _incomplete(outcome, self.dex.label, self.journal)
        return outcome

    # Planning ---------------------------------------------------------------------------------------------------------

    def _at(self, state: AccountState) -> pd.Timestamp:
        return state.time if self.now is None else self.now

    def _instant(self, state: AccountState) -> pd.Timestamp:
        return trade_instant(self._at(state), self.strategy.config)

    def _plan(self, state: AccountState, markets: Mapping[str, Market]) -> Plan:
        config, instant = self.strategy.config, self._instant(state)
        decision = instant - config.execution.delay_hours * HOUR
        panel = self._panel(instant)
        targets = self.strategy.targets.on(
            Account(self.dex, state, markets, self.journal, self._at(state), self.part_watches)
        )
        with fields_read() as read:
            weights = targets.weights(instant, decision, markets, panel)
        self._seen, self._read = panel, frozenset(read)
        if self._cached is not None:
            self._newest = newest_rows(self._cached.until(instant), read | {"mid"})
        if panel is None:
            self._check_names(weights, markets)
        reduces_only, rules = self.demotion is not None, replace(config, execution=targets.execution)
        plan = make_plan(weights, self.dex, state, markets, rules, instant, decision, reduces_only)
        plan = replace(plan, parts=targets.parts)
        self.notes += targets.parts.get("notes", ())
        self.part_demotions = _part_demotions(targets.parts)
        self._reconciler.warn_of_others(plan)
        return plan

    def _panel(self, instant: pd.Timestamp) -> Panel | None:
        """What the oracle sees at `instant`; None where it needs no market data, or there is no cache."""
        panel, config = self.panel, self.strategy.config
        if panel is None:
            if not self.strategy.targets.needs_panel or not cache_path(config.data.cache).is_dir():
                return None
            data = config.data
            panel = load_whole_panel(data.cache, config.start, instant, data.selection, data.hours)
        self._cached = panel
        if panel.index[-1] >= instant:
            return panel
        self.strategy.targets.check_history(panel, instant - config.execution.delay_hours * HOUR)
        return with_live_row(panel, instant, self.dex.feed().live_row(), config.data.in_session_only)

    def _check_names(self, weights: Mapping[str, float], markets: Mapping[str, Market]) -> None:
        """Refuse a coin that the exchange never listed: left out, it would leave the others without their hedge."""
        if unknown := self.dex.unlisted(weights):
            raise unknown_coins(unknown, markets, self.dex.network)

    def _append_plan(self, plan: Plan, state: AccountState, markets: Mapping[str, Market]) -> None:
        explained_at, targets = self._reconciler.explained_at, self.strategy.targets
        # Each part of a book has its own.
        inputs = None if plan.parts else plan_record(plan, targets, self.dex, markets, self._seen, self._read)
        self.journal.append(
            "plan",
            self._at(state),
            instant=plan.instant.isoformat(),
            key=self.strategy.key,
            equity_usd=state.certain_equity_usd,
            explained_at=None if explained_at is None else explained_at.isoformat(),
            goals=[vars(goal) for goal in plan.goals],
            plan=plan.to_dict(),
            **({} if self.demotion is None else {"reduces_only": True}),
            **({} if inputs is None else {"inputs": inputs}),
        )

    # Demotion ---------------------------------------------------------------------------------------------------------

    def _judge_demotion(self, state: AccountState, instant: pd.Timestamp, record: bool) -> None:
        """Know whether the strategy is demoted, or has to be; with `record` that is on the disk when this returns."""
        name, folder = self.strategy.name, record_folder(self.dex.label, self.journal.path)
        if self.strategy.targets.closes_all or folder is None:
            return
        self.demotion = demotion_of(folder, name)
        if self.demotion is None and self.watch is not None:
            self.demotion = self.watch(self.journal.entries, instant, state.certain_equity_usd)
            if self.demotion is not None and record:
                demote(folder, name, self.demotion)
                self.journal.append(DEMOTED, self._at(state), strategy=name, **self.demotion.to_dict())
        if self.demotion is not None:
            self.notes.insert(0, demotion_text(name, self.demotion))

    # Limits -----------------------------------------------------------------------------------------------------------

    def _breaches(
        self, state: AccountState, markets: Mapping[str, Market], goals: Sequence[Goal], plan: Plan | None
    ) -> list[str]:
        """Limits that are broken by the account, the markets and, where it is new, the plan."""
        strategy, at, coins = self.strategy, self._at(state), sorted({goal.coin for goal in goals})
        limits, history, error_seconds = strategy.limits, self.journal.state, self.dex.clock_error_seconds()
        of_plan = [] if plan is None else plan_breaches(limits, plan, at, self._newest)
        size = strategy.promoted_usd
        return of_plan + run_breaches(limits, state.equity_usd, history, at, markets, coins, error_seconds, size)

    def _missing_funds(self, state: AccountState, markets: Mapping[str, Market], goals: Sequence[Goal]) -> str:
        return missing_funds(state, markets, goals, *self.strategy.leverages)

    def kill_text(self) -> str:
        """Which kill switch stops orders now; ``""`` when none is set, or the way out goes on in spite of it."""
        found = [path for path in kill_switches(self.dex.label, self.kill_switch) if path.exists()]
        if not found or self.ignore_kill:
            return ""
        out = "; --ignore-kill closes the positions all the same" if self.strategy.targets.closes_all else ""
        return f"the kill switch {found[0]} is set; delete the file to trade{out}"

    # The exchange -----------------------------------------------------------------------------------------------------

    def _new_reconciler(self) -> Reconciler:
        closing = self.strategy.targets.closes_all
        reconciler = Reconciler(self.dex, self.journal, self.policy, self.sleep, closing=closing)
        # What an earlier book holds on a dex that this one leaves is closed, as every position without a weight is.
        self.dex.use_dexes(self.strategy.dexes.union(map(dex_of, reconciler.coins)))
        return reconciler

    def _append_refusal(
        self, at: pd.Timestamp, instant: pd.Timestamp, equity_usd: float | None, limits: list[str]
    ) -> None:
        self.journal.append("refused", at, instant=instant.isoformat(), equity_usd=equity_usd, limits=limits)

    def _judge_equity(self, state: AccountState, instant: pd.Timestamp) -> None:
        """Refuse to size a book by an equity that is not certain; all is closed whatever it is."""
        self.notes += state.notes
        if not state.doubt:
            return
        if self.strategy.targets.closes_all:
            self.notes.append(state.doubt)
            return
        self._append_refusal(state.time, instant, None, [f"equity: {state.doubt}"])
        raise LimitError(f"Nothing was ordered for {self.dex.label}: {state.doubt}.")

    def _record_fills(self) -> None:
        wanted = self.journal.state.without_fills
        if not wanted:
            return
        try:
            since = min(wanted.values()) - pd.Timedelta(minutes=1)
            fills = [fill for fill in self.dex.fills(since) if fill.cloid in wanted]
        except UnreachableError:
            return  # the next run reads them
        if fills:
            rows = [{**vars(fill), "time": fill.time.isoformat()} for fill in fills]
            self.journal.append("fills", fills[-1].time, fills=rows)

    def _record_part_demotions(self, plan: Plan, state: AccountState) -> None:
        """Put the demotions that the alarms of a book's specs have found on the disk."""
        folder = record_folder(self.dex.label, self.journal.path)
        for name, demotion in self.part_demotions.items():
            if folder is not None and plan.parts["specs"][name]["alarmed"]:
                demote(folder, name, demotion)
                self.journal.append(DEMOTED, self._at(state), strategy=name, **demotion.to_dict())

    def _record_funding(self) -> None:
        """Note what funding was paid in the hours from the instant before this one, or from the newest note of it."""
        plans = [entry["instant"] for entry in self.journal.entries if entry["kind"] == "plan"]
        notes = [entry["until"] for entry in self.journal.entries if entry["kind"] == "funding"]
        if not plans:
            return
        since, until = pd.Timestamp(max(notes, default=plans[0])), pd.Timestamp(plans[-1])
        if since >= until:
            return
        try:
            paid = self.dex.funding_paid(since, until)
        except UnreachableError:
            return  # the next run reads it
        if paid is not None:
            hours = {"since": since.isoformat(), "until": until.isoformat()}
            self.journal.append("funding", until, **hours, paid_usd=paid)

    def _add_warnings(self) -> None:
        self.notes += self._reconciler.notes
        try:
            self.notes += self.dex.warnings()
        except UnreachableError as error:
            self.notes.append(f"not known whether the agent wallet expires: {error}")


def _part_demotions(parts: Mapping[str, Any]) -> dict[str, Demotion]:
    """The demotions of a book's specs under which its plan was made."""
    specs = parts.get("specs", {})
    return {name: Demotion.from_dict(part["demotion"]) for name, part in specs.items() if part.get("demotion")}


def _incomplete(outcome: Outcome, account: str, journal: Journal) -> IncompleteError:
    missing = "; ".join(map(str, outcome.missing))
    where = f" The journal {journal.path} has every order." if journal.path else ""
    error = IncompleteError(
        f"The book of {account} is not at its target: {missing}.{where} Run the command again: it looks up earlier "
        "orders first and orders only what is left."
    )
    error.outcome = outcome
    return error
