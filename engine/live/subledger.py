"""What each spec of a book owns of the account that they share: sub-ledgers, from the journal's entries alone.

The rules are those of docs/guide/several-strategies.md. A fill of a coin is shared by what each spec wanted of it; what
they want against each other is handed over at mid. The sub-ledgers add up to the account: its equity, and its units of
every coin.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd

from engine.live.journal import EquityRecord

#: The sub-ledger of what is no spec's: shares that are not given, positions that none of the specs opened.
UNASSIGNED: Final = "unassigned"
#: Relative size under which a difference of two sums is their rounding; and that of units, of which journals round.
_DUST: Final = 1e-9
_UNITS_DUST: Final = 1e-8
#: Relative size of the rounding of one difference.
_ROUNDING: Final = 1e-12


@dataclass
class SubLedger:
    """What one spec owns, and where it came from; all in USD, costs positive.

    Attributes
    ----------
    share : float
        Fraction of the account's equity that the book gives it.
    equity_usd : float
        Its own, at the newest marks.
    units : dict of coin to float
        Signed; they need not be whole lots.
    transfers_usd : float
        Equity that it was given, less what it gave: its share, deposits.
    slippage_usd, fee_usd, funding_usd : float
        Of its parts of the fills, against mid when they were sent; of its units.
    other_usd : float
        Its part of what neither prices nor known costs explain; received is positive.
    crossed_usd : float
        Notional that it traded with other specs of the book, at mid and without costs.
    saved_usd : float
        What those trades would have cost it at the exchange, by the model.
    track : list of (EquityRecord, float)
        Its equity at each plan and end, and `transfers_usd` then, oldest first.
    """

    share: float = 0.0
    equity_usd: float = 0.0
    units: dict[str, float] = field(default_factory=dict)
    transfers_usd: float = 0.0
    slippage_usd: float = 0.0
    fee_usd: float = 0.0
    funding_usd: float = 0.0
    other_usd: float = 0.0
    crossed_usd: float = 0.0
    saved_usd: float = 0.0
    track: list[tuple[EquityRecord, float]] = field(default_factory=list)

    @property
    def price_pnl_usd(self) -> float:
        """What prices brought: equity less everything else."""
        costs = self.slippage_usd + self.fee_usd + self.funding_usd
        return math.fsum((self.equity_usd, -self.transfers_usd, costs, -self.other_usd))

    @property
    def equities(self) -> tuple[EquityRecord, ...]:
        """Equity since cash was last given or taken: what limits on a day's loss may compare."""
        return tuple(record for record, transfers in self.track if transfers == self.transfers_usd)

    def transfer(self, usd: float) -> None:
        """Give it equity."""
        self.equity_usd += usd
        self.transfers_usd += usd

    def add(self, coin: str, units: float) -> None:
        """Change what it holds of a coin; the rounding of a close is no position."""
        before = self.units.get(coin, 0.0)
        after = before + units
        if abs(after) <= _ROUNDING * abs(before):
            self.units.pop(coin, None)
        else:
            self.units[coin] = after


@dataclass(frozen=True)
class Anchor:
    """The account at a plan, before its orders: what the sub-ledgers must add up to.

    Attributes
    ----------
    time : str
        ISO 8601, of the entry.
    equity_usd : float or None
        None where it is not certain.
    positions, marks : mapping of coin to float
        Signed units, and prices in USD.
    shares : mapping of str to float
        Of each spec of the book.
    reshared : str
        The book's ``reshared``: another text than before gives every spec its share anew.
    settled_to : str
        ISO 8601, the exchange's time: funding of later hours is still to come.
    funding : mapping of coin to float
        USD that a unit has paid since the `settled_to` before.
    """

    time: str
    equity_usd: float | None
    positions: Mapping[str, float]
    marks: Mapping[str, float]
    shares: Mapping[str, float]
    reshared: str
    settled_to: str
    funding: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Anchor:
        """That of a plan in the journal of a book."""
        parts = entry["plan"]["parts"]
        names = ("marks", "shares", "reshared", "settled_to", "funding")
        return cls(
            entry["time"], entry["equity_usd"], entry["plan"]["positions"], **{name: parts[name] for name in names}
        )


def crossed_part(wanted: Mapping[str, float]) -> dict[str, float]:
    """What is traded within the book when some want to buy and others to sell: signed units, by who wanted them.

    The side that wants less has all of it; the other in proportion to what each wants.
    """
    bought = math.fsum(units for units in wanted.values() if units > 0.0)
    sold = -math.fsum(units for units in wanted.values() if units < 0.0)
    crossed = min(bought, sold)
    if crossed == 0.0:
        return {}
    return {name: units * (crossed / (bought if units > 0.0 else sold)) for name, units in wanted.items() if units}


@dataclass
class SubLedgers:
    """The sub-ledgers of a book, entry by entry.

    Attributes
    ----------
    billed : mapping of cloid to (float, float, float)
        Of each order whose fills are recorded: signed units, value and fee in USD.
    specs : dict of str to SubLedger
        Specs that left the book own nothing; :data:`UNASSIGNED` is the rest of the account.
    marks : dict of coin to float
        Newest prices, USD.
    settled_to, reshared : str
        Of the newest plan, as in :class:`Anchor`.
    shared : dict of cloid to dict of str to float
        Parts of each order, which add up to 1, by spec.
    """

    billed: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    specs: dict[str, SubLedger] = field(default_factory=dict)
    marks: dict[str, float] = field(default_factory=dict)
    settled_to: str = ""
    reshared: str = ""
    shared: dict[str, dict[str, float]] = field(default_factory=dict)
    _wanted: dict[str, dict[str, float]] = field(default_factory=dict)  # of the exchange: coin to spec to units
    _sent: dict[str, tuple[str, float]] = field(default_factory=dict)  # cloid to coin and mid
    _unbilled: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # USD of fills, a spec
    _settled: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # USD the exchange closed
    _accepted: bool = False  # a deposit or a withdrawal is in the next difference

    def units(self, coin: str) -> float:
        """What the sub-ledgers hold of a coin together, signed."""
        return math.fsum(own.units.get(coin, 0.0) for own in self.specs.values())

    @property
    def coins(self) -> list[str]:
        """Coins that a sub-ledger holds, those too of which they hold nothing together."""
        return sorted({coin for own in self.specs.values() for coin in own.units})

    def add(self, entry: Mapping[str, Any]) -> None:
        """Take one more entry; those before the first plan of a book are not its."""
        kind = entry["kind"]
        if kind == "plan":
            self._add_plan(entry)
        elif not self.specs:
            return
        elif kind == "intent":
            for order in entry["orders"]:
                self._sent[order["cloid"]] = order["coin"], order["mid"]
                self.shared[order["cloid"]] = self._by_want(order["coin"], order["units"])
        elif kind in ("answers", "resolved"):
            for result in entry["answers"]:
                if result["fate"] != "unknown" and (sent := self._sent.pop(result["cloid"], None)):
                    self._fill(result["cloid"], *sent, result["units"], result["price"])
        elif kind == "done":
            self._settle(entry["positions"], entry.get("prices", {}), entry["equity_usd"])
            self._note(entry)
        elif kind == "positions_accepted":
            self._agree(entry["positions"])
        elif kind == "equity_accepted":
            self._accepted = True

    def _add_plan(self, entry: Mapping[str, Any]) -> None:
        plan = entry["plan"]
        if parts := plan.get("parts"):
            self.at_plan(Anchor.of(entry))
            self._want({name: part["wanted"] for name, part in parts["specs"].items()}, parts["mids"])
            for name, part in parts["specs"].items():
                self.specs[name].saved_usd += part["saved_usd"]
        elif self.specs:  # a flatten: each spec wants to hold nothing
            self._settle(plan["positions"], plan["prices"], entry["equity_usd"])
            self._want({name: {c: -u for c, u in own.units.items()} for name, own in self.specs.items()}, self.marks)
        else:
            return
        self._note(entry)

    # The account at a plan --------------------------------------------------------------------------------------------

    def at_plan(self, anchor: Anchor) -> list[str]:
        """Bring the sub-ledgers to an account before its orders, and give new shares; returns notes for people."""
        if self.specs:
            for own in self.specs.values():
                paid = math.fsum(units * anchor.funding.get(coin, 0.0) for coin, units in own.units.items())
                own.funding_usd += paid
                own.equity_usd -= paid
            self._settle(anchor.positions, anchor.marks, anchor.equity_usd)
        else:
            self._mark(anchor.marks)
            rest = self.specs[UNASSIGNED] = SubLedger(units={c: u for c, u in anchor.positions.items() if u})
            rest.transfer(anchor.equity_usd or 0.0)
        self.settled_to = anchor.settled_to
        return self._reshare(anchor)

    def _reshare(self, anchor: Anchor) -> list[str]:
        """Give each spec whose share is new its part of the account, as far as what is unassigned reaches."""
        rest, notes = self.specs[UNASSIGNED], []
        for name, own in self.specs.items():
            if name not in anchor.shares and name != UNASSIGNED and (own.share or own.units or own.equity_usd):
                notes.append(f"{name} is no longer in the book: its {own.equity_usd:,.2f} USD are unassigned")
                rest.transfer(own.equity_usd)
                own.transfer(-own.equity_usd)
                for coin, units in own.units.items():
                    rest.add(coin, units)
                own.share, own.units, own.equity_usd = 0.0, {}, 0.0
        anew = anchor.reshared != self.reshared
        self.reshared = anchor.reshared
        changed = [n for n, share in anchor.shares.items() if anew or self.specs.get(n, SubLedger()).share != share]
        before = {}
        for name in changed:
            own = self.specs.setdefault(name, SubLedger())
            before[name] = own.equity_usd
            rest.transfer(own.equity_usd)
            own.transfer(-own.equity_usd)
            own.share, own.equity_usd = anchor.shares[name], 0.0
        equity, asked = math.fsum(own.equity_usd for own in self.specs.values()), sum(anchor.shares[n] for n in changed)
        wanted, there = asked * equity, max(rest.equity_usd, 0.0)
        factor = 1.0 if there >= wanted * (1.0 - _DUST) else there / wanted
        for name in changed:
            own = self.specs[name]
            own.transfer(anchor.shares[name] * equity * factor)
            text = f"{name} has {own.equity_usd:,.2f} USD, {anchor.shares[name]:.2%} of the account's equity"
            if factor < 1.0:
                text = (
                    f"{name} has {own.equity_usd:,.2f} USD: no more is unassigned, while its share of "
                    f"{anchor.shares[name]:.2%} is {anchor.shares[name] * equity:,.2f}"
                )
            notes.append(text + (f"; before it had {before[name]:,.2f}" if before[name] else ""))
        given = math.fsum(self.specs[name].equity_usd for name in changed)
        rest.transfer(-given)
        if abs(rest.equity_usd) <= _DUST * abs(equity) and changed:
            rest.transfer(-rest.equity_usd)
            self._close(equity, changed)
        return notes

    def _settle(
        self, positions: Mapping[str, float], marks: Mapping[str, float | None], equity_usd: float | None
    ) -> None:
        """Bring the sub-ledgers to positions, prices and equity of the account; what is not explained is shared."""
        self._mark(marks)
        self._agree(positions)
        if equity_usd is None:
            return
        self._share_rest(equity_usd - math.fsum(own.equity_usd for own in self.specs.values()))
        self._close(equity_usd, self.specs)
        self._accepted = False
        self._settled.clear()
        self._unbilled.clear()

    def _mark(self, marks: Mapping[str, float | None]) -> None:
        for coin, price in marks.items():
            if price is None or math.isnan(price):
                continue
            if (before := self.marks.get(coin)) is not None:
                for own in self.specs.values():
                    own.equity_usd += own.units.get(coin, 0.0) * (price - before)
            self.marks[coin] = price

    def _mark_of(self, coin: str, price: float) -> float:
        """The mark of a coin that is about to be traded at `price`, which it is where nobody holds the coin."""
        if not any(own.units.get(coin) for own in self.specs.values()):
            self.marks[coin] = price
        return self.marks.setdefault(coin, price)

    def _agree(self, positions: Mapping[str, float]) -> None:
        """Bring the units to those of the account.

        What became less was closed by the exchange (a delisting, a liquidation) or accepted so: each who holds the coin
        loses the same part. What became more is nobody's.
        """
        for coin in sorted({*positions, *self.coins}):
            there, held = positions.get(coin, 0.0), self.units(coin)
            owners = [own for own in self.specs.values() if own.units.get(coin)]
            gross = math.fsum(abs(own.units[coin]) for own in owners)
            if abs(there - held) <= max(_DUST * gross, _UNITS_DUST):
                pass
            elif held and 0.0 <= there / held < 1.0:
                for name, own in self.specs.items():
                    lost = own.units.get(coin, 0.0) * (1.0 - there / held)
                    self._settled[name] += abs(lost) * self.marks.get(coin, 0.0)
                    own.add(coin, -lost)
                if there == 0.0:
                    for own in owners:
                        own.units.pop(coin, None)
            else:
                self.specs[UNASSIGNED].add(coin, there - held)
            self._close_units(coin, there)

    def _close_units(self, coin: str, total: float) -> None:
        """Give the rounding of a sum of units to whoever holds most, so that they add up exactly."""
        if self.units(coin) == total:
            return
        most = max(self.specs.values(), key=lambda own: abs(own.units.get(coin, 0.0)))
        if most.units.get(coin, 0.0) == 0.0:
            most = self.specs[UNASSIGNED]
        rest = math.fsum(own.units.get(coin, 0.0) for own in self.specs.values() if own is not most)
        most.units[coin] = total - rest

    def _share_rest(self, usd: float) -> None:
        """Share a difference of equity that nothing explains: by equity, unless it is known whose it is."""
        by = {name: max(own.equity_usd, 0.0) for name, own in self.specs.items()}
        if not self._accepted:
            by = next((dict(known) for known in (self._settled, self._unbilled) if sum(known.values()) > 0.0), by)
        total = math.fsum(by.values())
        if not total > 0.0:
            by = {name: own.share for name, own in self.specs.items()}
            by[UNASSIGNED] = max(0.0, 1.0 - math.fsum(by.values()))
            total = math.fsum(by.values())
        for name, weight in by.items():
            own = self.specs[name]
            if self._accepted:
                own.transfer(usd * (weight / total))
            else:
                own.equity_usd += usd * (weight / total)
                own.other_usd += usd * (weight / total)

    def _close(self, equity_usd: float, names: Iterable[str]) -> None:
        """Give the rounding of the sum to whoever of `names` has most, so that it is exact."""
        most = max((self.specs[name] for name in names), key=lambda own: abs(own.equity_usd))
        exact = equity_usd - math.fsum(own.equity_usd for own in self.specs.values() if own is not most)
        most.other_usd += exact - most.equity_usd
        most.equity_usd = exact

    # Trades -----------------------------------------------------------------------------------------------------------

    def _want(self, wanted: Mapping[str, Mapping[str, float]], mids: Mapping[str, float]) -> None:
        """Hand over at mid what is wanted against each other; what is left is wanted of the exchange."""
        self._wanted = {}
        for coin in sorted({coin for of_spec in wanted.values() for coin in of_spec}):
            asked = {name: of_spec[coin] for name, of_spec in wanted.items() if of_spec.get(coin)}
            crossed, mid = crossed_part(asked), mids.get(coin, self.marks.get(coin, 0.0))
            mark, held = self._mark_of(coin, mid), self.units(coin)
            for name, units in crossed.items():
                own = self.specs[name]
                own.add(coin, units)
                own.equity_usd += units * (mark - mid)
                own.crossed_usd += abs(units) * mid
            self._wanted[coin] = {name: units - crossed.get(name, 0.0) for name, units in asked.items()}
            if crossed:
                self._close_units(coin, held)

    def _fill(self, cloid: str, coin: str, mid: float, units: float, price: float | None) -> None:
        """Share a fill by what each spec wanted of it."""
        if not units:
            return
        own_units, value, fee = self.billed.get(cloid, (0.0, 0.0, 0.0))
        price = value / own_units if own_units else price or mid
        mark, total = self._mark_of(coin, price), self.units(coin) + units
        for name, part in self.shared[cloid].items():
            own = self.specs[name]
            own.add(coin, units * part)
            own.equity_usd += units * part * (mark - price) - fee * part
            own.slippage_usd += units * part * (price - mid)
            own.fee_usd += fee * part
            if not own_units:
                self._unbilled[name] += abs(units * part) * price
        self._close_units(coin, total)

    def _by_want(self, coin: str, units: float) -> dict[str, float]:
        """Parts of an order, which add up to 1: by what is wanted of the exchange, else by what it closes."""
        held = {name: -own.units.get(coin, 0.0) for name, own in self.specs.items()}
        for wanted in (self._wanted.get(coin, {}), held):
            same = {name: want for name, want in wanted.items() if want * units > 0.0}
            if total := math.fsum(same.values()):
                return {name: want / total for name, want in same.items()}
        return {UNASSIGNED: 1.0}

    def _note(self, entry: Mapping[str, Any]) -> None:
        for own in self.specs.values():
            record = EquityRecord(pd.Timestamp(entry["time"]), own.equity_usd, entry["kind"])
            own.track.append((record, own.transfers_usd))


def sub_ledgers(entries: Sequence[Mapping[str, Any]]) -> SubLedgers:
    """The sub-ledgers that a journal's entries add up to; without any where no book has traded.

    Parameters
    ----------
    entries : sequence of mapping
        All of the journal, oldest first.
    """
    billed: dict[str, tuple[float, float, float]] = {}
    for entry in entries:
        for fill in entry["fills"] if entry["kind"] == "fills" else ():
            units, value, fee = billed.get(fill["cloid"], (0.0, 0.0, 0.0))
            row = fill["units"], fill["units"] * fill["price"], fill["fee_usd"]
            billed[fill["cloid"]] = units + row[0], value + row[1], fee + row[2]
    ledgers = SubLedgers(billed)
    for entry in entries:
        ledgers.add(entry)
    return ledgers
