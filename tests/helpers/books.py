"""Books of several strategies on a paper account: how they are driven, and what must hold of their sub-ledgers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from engine import Oracle, Panel, PaperDEX, RunConfig
from engine.errors import IncompleteError
from engine.live.book import BookTargets, Member
from engine.live.journal import Journal
from engine.live.orders import Policy
from engine.live.risk_limits import Limits
from engine.live.session import Session
from engine.live.subledger import SubLedgers, sub_ledgers
from engine.live.targets import Strategy, TargetProvider, Watch

#: A panel's quotes may lie far from its mid; a paper account fills whatever the backtest fills.
ANY_PRICE = Policy(slippage_frac=0.99)


def strategy(name: str, oracle: Oracle, config: RunConfig, limits: Limits | None = None) -> Strategy:
    """As :func:`engine.live.targets.from_spec` gives it, without a file."""
    return Strategy(name, name * 8, TargetProvider(oracle, config), limits or Limits.none())


def book(shares: Mapping[str, float], config: RunConfig, specs: Sequence[Strategy], reshared: str = "") -> Strategy:
    """A book of strategies, those that have a share."""
    members = [Member(spec, shares[spec.name]) for spec in specs if spec.name in shares]
    return Strategy("book", f"book{shares}", BookTargets(members, config, reshared), Limits.none())


def trade(
    traded: Strategy, dex: PaperDEX, journal: Journal, at: pd.Timestamp, watches: Mapping[str, Watch] | None = None
) -> Session:
    """One live run at an instant; what has no quote stays as it is."""
    dex.advance(at)
    session = Session(traded, dex, journal, dex.panel, ANY_PRICE, Path("no-such-KILL"), at, lambda _: None)
    session.part_watches = watches or {}
    try:
        session.execute()
    except IncompleteError as error:
        assert error.outcome is not None
        assert not dex.markets().keys() & {item.coin for item in error.outcome.missing}
    return session


def drive(
    traded: Strategy, panel: Panel, config: RunConfig, instants: pd.DatetimeIndex, check: bool = False
) -> tuple[PaperDEX, Journal]:
    """A paper account that is traded at each instant; with `check` the sub-ledgers add up after each."""
    dex, journal = PaperDEX(panel, config), Journal()
    for at in instants:
        trade(traded, dex, journal, at)
        if check:
            adds_up(sub_ledgers(journal.entries), dex)
    return dex, journal


def adds_up(ledgers: SubLedgers, dex: PaperDEX) -> None:
    """Equity, cash and units of the sub-ledgers are those of the account, and each has a sum of what it came from."""
    state, specs = dex.account(), ledgers.specs.values()
    scale = max(1.0, *(abs(own.equity_usd) for own in specs))
    held = {coin: units for coin in ledgers.coins if (units := ledgers.units(coin))}
    for coin in held.keys() | state.units.keys():
        assert held.get(coin, 0.0) == pytest.approx(state.units.get(coin, 0.0), rel=1e-9, abs=1e-12), coin
    assert math.fsum(own.equity_usd for own in specs) == pytest.approx(state.equity_usd, rel=0, abs=1e-9 * scale)
    cash = [own.equity_usd - sum(u * ledgers.marks[c] for c, u in own.units.items()) for own in specs]
    assert math.fsum(cash) == pytest.approx(dex.cash, rel=0, abs=1e-9 * max(scale, *map(abs, cash)))


def equity_track(ledgers: SubLedgers, name: str, kind: str = "plan") -> list[float]:
    """Equity of a spec at each of its entries of a kind."""
    return [record.equity_usd for record, _ in ledgers.specs[name].track if record.kind == kind]


def plans(journal: Journal) -> list[dict[str, Any]]:
    """The plans of a journal."""
    return [entry for entry in journal.entries if entry["kind"] == "plan"]
