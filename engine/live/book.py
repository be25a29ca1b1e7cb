"""A book: several promoted strategies with shares of one account, netted into one plan.

The rules are those of docs/guide/several-strategies.md: each spec wants its own weights of its own equity
(:mod:`engine.live.subledger`), and what all of them want of a coin becomes one order, sized on the account as that of
one strategy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from engine.clock import parse_instant
from engine.coin import dex_of
from engine.config import RunConfig
from engine.data.coin_names import select_coins
from engine.errors import HlbtError
from engine.live.demotion import Demotion, demotion_of
from engine.live.journal import JournalState
from engine.live.orders import AccountState, Plan
from engine.live.plan_record import plan_record
from engine.live.planner import base_rate, expected_costs, make_plan
from engine.live.risk_limits import plan_breaches, run_breaches
from engine.live.schedule import scheduled
from engine.live.state_folder import record_folder
from engine.live.subledger import UNASSIGNED, Anchor, SubLedger, SubLedgers, crossed_part, sub_ledgers
from engine.live.targets import Account, Strategy, TargetProvider
from engine.panel import Panel, with_coins
from engine.provenance import fields_read
from engine.simulation.backtest import funding_arrays

#: Limits that hold for all specs alike, so that the strictest of them is the account's.
SHARED_LIMITS: Final = ("data_age_hours", "clock_error_seconds")


@dataclass(frozen=True)
class Member:
    """A spec of a book, and the fraction of the account's equity that it begins with."""

    strategy: Strategy
    share: float

    @property
    def name(self) -> str:
        """The spec's."""
        return self.strategy.name

    @property
    def config(self) -> RunConfig:
        """The spec's."""
        return self.strategy.config


@dataclass(frozen=True)
class Part:
    """What one spec wants at an instant.

    Attributes
    ----------
    state : {"trades", "waits", "held", "demoted", "closes"}
        ``waits`` without a decision at this instant, ``held`` by a limit of its own: both keep its units; ``demoted``
        trades what makes them smaller. What is unassigned ``closes``.
    why : str
        Of ``held`` and ``demoted``, for people.
    weights : mapping of coin to float or None
        Signed fractions of its own equity, NaN = hold; None where it keeps its units.
    plan : Plan or None
        What it would order were its sub-ledger an account; None where it did not decide.
    inputs : mapping
        What that plan was made of, so that it can be made again.
    demotion : Demotion or None
        That the spec stands under: nothing that adds to its own positions is wanted.
    alarmed : bool
        The demotion is new, of an alarm of now.
    """

    state: str
    why: str = ""
    weights: Mapping[str, float] | None = None
    plan: Plan | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    demotion: Demotion | None = None
    alarmed: bool = False

    def weight(self, coin: str) -> float:
        """Its weight of a coin, NaN = hold."""
        return math.nan if self.weights is None else self.weights.get(coin, 0.0)


class BookTargets(TargetProvider):
    """The net weights of several specs, each with its oracle, overlays, schedule, limits and equity.

    Parameters
    ----------
    members : sequence of Member
        The specs.
    config : RunConfig
        The account's: keys that all of them have in common, the union of their coins and schedules.
    reshared : str
        The book file's.

    Attributes
    ----------
    parts : mapping
        For the plan's entry in the journal, once :meth:`weights` was called: what each spec owned and wanted.
    """

    closes_all = False

    def __init__(self, members: Sequence[Member], config: RunConfig, reshared: str) -> None:
        self.members, self.config, self.reshared = tuple(members), config, reshared
        self.parts = {}
        self.needs_panel = any(member.strategy.targets.needs_panel for member in members)
        self.named = tuple(dict.fromkeys(name for member in members for name in member.strategy.targets.named))
        self._account: Account | None = None

    def on(self, account: Account) -> BookTargets:
        """The provider for an account, by whose journal each spec owns what it does."""
        bound = copy(self)
        bound._account = account
        return bound

    def check_history(self, panel: Panel, decision: pd.Timestamp) -> None:
        """As for one strategy, of each spec on its own rows and coins."""
        for member in self.members:
            member.strategy.targets.check_history(_own_panel(panel, self.config, member.config), decision)

    def is_scheduled(self, instant: pd.Timestamp) -> bool:
        """Whether trading at `instant` is what was validated of one of the specs."""
        return any(member.strategy.targets.is_scheduled(instant) for member in self.members)

    def weights(
        self, instant: pd.Timestamp, decision: pd.Timestamp, tradable: Iterable[str], panel: Panel | None
    ) -> dict[str, float]:
        """Net weights to trade at `instant`, as fractions of the account's equity, NaN = hold.

        Parameters, and errors, are those of :meth:`engine.live.targets.TargetProvider.weights`.
        """
        account = self._account
        if account is None:
            raise ValueError("a book's weights are those of an account: call on(account) first")
        ledgers = sub_ledgers(account.journal.entries)
        anchor = self._anchor(account, ledgers, panel)
        notes = ledgers.at_plan(anchor)
        parts = {UNASSIGNED: Part("closes", weights={})}
        by_hand = not scheduled(instant, self.config)  # off every schedule all are asked, as one alone would be
        for member in self.members:
            if by_hand or member.strategy.targets.is_scheduled(instant):
                parts[member.name] = self._asked(member, ledgers, account, instant, decision, panel)
            else:
                parts[member.name] = Part("waits")
        notes += [part.why for part in parts.values() if part.why]
        mids = {**ledgers.marks, **{coin: market.mid for coin, market in account.markets.items()}}
        wanted = {name: _wanted(part, ledgers, name, account, mids) for name, part in parts.items()}
        self.parts = self._recorded(account, anchor, ledgers, parts, wanted, mids, instant, notes)
        return _net(parts, ledgers, account, mids)

    def _anchor(self, account: Account, ledgers: SubLedgers, panel: Panel | None) -> Anchor:
        state, shown = account.state, account.markets
        mids = _last_mids([coin for coin in ledgers.coins if coin not in shown], state.time, panel)
        mids |= {coin: shown[coin].mid for coin in ledgers.coins if coin in shown}
        return Anchor(
            account.time.isoformat(),
            state.equity_usd,
            dict(state.units),
            {**mids, **state.prices},
            {member.name: member.share for member in self.members},
            self.reshared,
            state.time.isoformat(),
            _funding(ledgers, state.time, panel, self.config),
        )

    def _asked(
        self,
        member: Member,
        ledgers: SubLedgers,
        account: Account,
        instant: pd.Timestamp,
        decision: pd.Timestamp,
        panel: Panel | None,
    ) -> Part:
        """The part of a spec that decides now."""
        strategy, own = member.strategy, ledgers.specs[member.name]
        markets = {coin: market for coin, market in account.markets.items() if dex_of(coin) in strategy.dexes}
        seen = None if panel is None else _own_panel(panel, self.config, member.config)
        try:
            with fields_read() as read:
                weights = strategy.targets.weights(instant, decision, markets, seen)
            # As if its sub-ledger were an account; of initial margin there is one for all.
            state = AccountState(own.equity_usd, dict(own.units), account.state.time, dict(ledgers.marks))
            config = replace(self.config, account=replace(self.config.account, initial_margin=False))
            demotion, alarmed = _demotion(member, own, account, instant)
            plan = make_plan(weights, account.dex, state, markets, config, instant, decision, demotion is not None)
        except HlbtError as error:
            raise type(error)(f"{member.name}: {error}") from error
        inputs = plan_record(plan, strategy.targets, account.dex, markets, seen, read)
        kept = {coin: weight for coin, weight in weights.items() if weight != 0.0}
        part = Part("trades", "", kept, plan, inputs, demotion, alarmed)
        if broken := self._breaches(member, own, account, plan):
            why = f"{member.name} keeps its positions: {'; '.join(broken)}"
            return replace(part, state="held", why=why, weights=None)
        if demotion is not None:
            mids = {**ledgers.marks, **{coin: market.mid for coin, market in markets.items()}}
            return replace(part, state="demoted", why=_way_out(member, demotion), weights=_reductions(kept, own, mids))
        return part

    def _breaches(self, member: Member, own: SubLedger, account: Account, plan: Plan) -> list[str]:
        """Limits of its own that a spec breaks."""
        limits = replace(member.strategy.limits, **dict.fromkeys(SHARED_LIMITS))
        history, coins = JournalState(equities=own.equities), [order.coin for order in plan.orders]
        return plan_breaches(limits, plan, account.time, {}) + run_breaches(
            limits,
            own.equity_usd,
            history,
            account.time,
            account.markets,
            coins,
            0.0,
            member.strategy.promoted_usd,
        )

    def _recorded(
        self,
        account: Account,
        anchor: Anchor,
        ledgers: SubLedgers,
        parts: Mapping[str, Part],
        wanted: Mapping[str, Mapping[str, float]],
        mids: Mapping[str, float],
        instant: pd.Timestamp,
        notes: list[str],
    ) -> dict[str, Any]:
        """What the journal's plan says of the book: all that the sub-ledgers are made of, and what was decided."""
        coins = {coin for of_spec in wanted.values() for coin in of_spec}
        saved, rate = dict.fromkeys(wanted, 0.0), base_rate(instant, self.config.costs)
        for coin in coins & account.markets.keys():
            market = account.dex.quoted(account.markets[coin])
            crossed = crossed_part({name: of_spec[coin] for name, of_spec in wanted.items() if coin in of_spec})
            for name, units in crossed.items():
                saved[name] += math.fsum(expected_costs(units, market, self.config.costs, rate))
        return {
            "notes": notes,
            "marks": dict(anchor.marks),
            "shares": dict(anchor.shares),
            "reshared": anchor.reshared,
            "settled_to": anchor.settled_to,
            "funding": dict(anchor.funding),
            "mids": {coin: mids[coin] for coin in sorted(coins)},
            "specs": {
                name: {
                    "digest": next((member.strategy.key for member in self.members if member.name == name), None),
                    "state": part.state,
                    "why": part.why,
                    "share": ledgers.specs[name].share,
                    "equity_usd": ledgers.specs[name].equity_usd,
                    "positions": dict(sorted(ledgers.specs[name].units.items())),
                    "plan": None if part.plan is None else part.plan.to_dict(),
                    "inputs": part.inputs,
                    "demotion": None if part.demotion is None else part.demotion.to_dict(),
                    "alarmed": part.alarmed,
                    "wanted": dict(wanted[name]),
                    "saved_usd": saved[name],
                }
                for name, part in sorted(parts.items())
            },
        }


def _demotion(member: Member, own: SubLedger, account: Account, instant: pd.Timestamp) -> tuple[Demotion | None, bool]:
    """The demotion that a spec stands under, and whether it is one that its alarms find now."""
    standing = demotion_of(record_folder(account.dex.label, account.journal.path), member.name)
    if standing is None and (watch := account.watches.get(member.name)):
        found = watch(account.journal.entries, instant, own.equity_usd)
        return found, found is not None
    return standing, False


def _way_out(member: Member, demotion: Demotion) -> str:
    return (
        f"{member.name} is DEMOTED: {demotion.text}. It adds to no position; the other specs go on. Take it out of the "
        f"book, or let it go on with `hlbt live reinstate BOOK --spec {member.name} --reason '...'`"
    )


def _reductions(weights: Mapping[str, float], own: SubLedger, mids: Mapping[str, float]) -> dict[str, float]:
    """Of the weights of a spec what makes its own positions smaller; NaN where it keeps one, a flip is a close."""
    kept = {}
    for coin, held in own.units.items():
        weight, value = weights.get(coin, 0.0), held * mids.get(coin, math.nan)
        if weight * held < 0.0 or weight == 0.0:
            continue
        smaller = abs(weight) * own.equity_usd < abs(value)  # not so where one of them is not known
        kept[coin] = weight if smaller and own.equity_usd > 0.0 else math.nan
    return kept


def _wanted(
    part: Part, ledgers: SubLedgers, name: str, account: Account, mids: Mapping[str, float]
) -> dict[str, float]:
    """Signed units that a spec wants to trade, by coin; without a quote none, but where the account holds none."""
    own, wanted = ledgers.specs[name], {}
    for coin in sorted({*own.units, *(part.weights or {})}):
        held, weight = own.units.get(coin, 0.0), part.weight(coin)
        if math.isnan(weight) or not (mids.get(coin, 0.0) > 0.0):
            continue
        if coin in account.markets:
            target = weight * own.equity_usd / mids[coin] if own.equity_usd > 0.0 else held * (weight != 0.0)
        elif weight == 0.0 and coin not in account.state.units:
            target = 0.0  # what specs hold against each other is no position at the exchange
        else:
            continue
        if target != held:
            wanted[coin] = target - held
    return wanted


def _net(
    parts: Mapping[str, Part], ledgers: SubLedgers, account: Account, mids: Mapping[str, float]
) -> dict[str, float]:
    """The weights of the account that all parts add up to; NaN where every part holds."""
    equity, net = account.state.equity_usd, {}
    coins = {coin for own in ledgers.specs.values() for coin in own.units}
    for coin in sorted(coins.union(*(part.weights or {} for part in parts.values()))):
        values, moves = [], False
        for name, part in parts.items():
            own, weight = ledgers.specs[name], part.weight(coin)
            held = own.units.get(coin, 0.0)
            if math.isnan(weight):
                values.append(held * mids.get(coin, 0.0) / equity if held and equity > 0.0 else 0.0)
            elif weight or held:
                values.append(weight * (own.equity_usd / equity if equity > 0.0 else own.share))
                moves = True
        total = math.fsum(values)
        # What parts hold against each other exactly is no position, whatever the rounding of their sum.
        small = abs(total) <= 1e-12 * math.fsum(map(abs, values))
        net[coin] = math.nan if not moves else 0.0 if small else total
    return net


def _last_mids(coins: Sequence[str], now: pd.Timestamp, panel: Panel | None) -> dict[str, float]:
    """The last known price of coins that have no quote now, USD: the account marks only what it holds itself."""
    if panel is None:
        return {}
    found, stop = {}, int(panel.index.searchsorted(now, side="right"))
    for coin in set(coins) & set(panel.coins):
        mids = panel.values("mid")[:stop, panel.coins.index(coin)]
        if len(known := mids[np.isfinite(mids)]):
            found[coin] = float(known[-1])
    return found


def _funding(ledgers: SubLedgers, until: pd.Timestamp, panel: Panel | None, config: RunConfig) -> dict[str, float]:
    """USD that a unit of each coin has paid since the plan before, by the panel's rates."""
    if panel is None or panel.as_known or not ledgers.settled_to:
        return {}
    since = parse_instant(ledgers.settled_to, "settled_to", hourly=False)
    first, last = (int(panel.index.searchsorted(at, side="left")) for at in (since, until))
    columns = [panel.coins.index(coin) for coin in ledgers.coins if coin in panel.coins]
    rates, prices = funding_arrays(panel, config)
    if not rates.size or not columns or first >= last:
        return {}
    mids = pd.DataFrame(panel.values("mid")[:last, columns]).ffill().to_numpy()[first:]
    base, rate = prices[first:last, columns], rates[first:last, columns]
    paid = np.nansum(np.where(np.isnan(base), mids, base) * rate, axis=0)
    return {panel.coins[column]: float(usd) for column, usd in zip(columns, paid, strict=True)}


def _own_panel(panel: Panel, of_book: RunConfig, own: RunConfig) -> Panel:
    """The rows and coins of the account's panel that a spec's own config selects."""
    selection, start = own.data.selection, own.start
    if selection == of_book.data.selection and start == of_book.start:
        return panel
    first = 0 if start is None else int(panel.index.searchsorted(start))
    there = ~np.isnan(panel.values("mid")[first:]).all(axis=0)
    found = select_coins(selection, panel.coins)[0]
    columns = [c for c in map(panel.coins.index, found) if there[c] or panel.coins[c] in selection]
    return with_coins(panel, columns, first)
