"""A book of several specs, a spec at a time: its sub-ledger for people, and its entries as if it were alone.

With the entries of one spec everything that is asked of an account can be asked of a part of one: whether its plans can
be made again, what its fills cost, whether its edge holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.live.book import BookTargets
from engine.live.demotion import DEMOTED, REINSTATED
from engine.live.subledger import UNASSIGNED, SubLedger, SubLedgers, sub_ledgers
from engine.live.targets import Strategy, Watch
from engine.monitoring.alarms import watch_of


def book_status(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What ``hlbt live status`` shows of a book, as plain values; None where no book has traded.

    Parameters
    ----------
    entries : sequence of mapping
        Of the journal.

    Returns
    -------
    dict or None
        ``equity_usd`` of the account at the newest entry, ``saved_usd`` by netting, and ``specs``: of each, and of what
        is :data:`engine.live.subledger.UNASSIGNED`, ``share`` (of the book), ``share_now`` (of equity), ``state`` and
        ``why`` at the newest plan, ``units``, ``track`` (time, equity, and what it was given so far), and in USD, costs
        positive, ``equity_usd``, ``transfers_usd``, ``price_pnl_usd``, ``slippage_usd``, ``fee_usd``, ``funding_usd``,
        ``other_usd``, ``crossed_usd``, ``saved_usd``.
    """
    ledgers = sub_ledgers(entries)
    if not ledgers.specs:
        return None
    newest = next(entry["plan"]["parts"] for entry in reversed(entries) if entry["kind"] == "plan" and _parts(entry))
    equity = math.fsum(own.equity_usd for own in ledgers.specs.values())
    specs = [_row(name, own, newest["specs"].get(name, {}), equity) for name, own in sorted(ledgers.specs.items())]
    specs.sort(key=lambda row: row["name"] == UNASSIGNED)
    return {"equity_usd": equity, "saved_usd": math.fsum(row["saved_usd"] for row in specs), "specs": specs}


def _parts(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = entry["plan"].get("parts") or {}
    return found


def _row(name: str, own: SubLedger, part: Mapping[str, Any], equity: float) -> dict[str, Any]:
    return {
        "name": name,
        "share": own.share,
        "share_now": own.equity_usd / equity if equity > 0.0 else None,
        "state": part.get("state", "left"),
        "why": part.get("why", ""),
        "equity_usd": own.equity_usd,
        "transfers_usd": own.transfers_usd,
        "price_pnl_usd": own.price_pnl_usd,
        "slippage_usd": own.slippage_usd,
        "fee_usd": own.fee_usd,
        "funding_usd": own.funding_usd,
        "other_usd": own.other_usd,
        "crossed_usd": own.crossed_usd,
        "saved_usd": own.saved_usd,
        "units": dict(sorted(own.units.items())),
        "track": [[record.time.isoformat(), record.equity_usd, given] for record, given in own.track],
    }


def spec_entries(entries: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """The entries of a book's journal as those of one of its specs on an account of its own.

    Parameters
    ----------
    entries : sequence of mapping
        Of the journal of the book.
    name : str
        Of the spec.

    Returns
    -------
    list of dict
        Plans with the spec's own weights, positions and equity, and what they were made of; its parts of the orders, of
        their results and their fills; at ends its equity and positions. Where it was given or gave equity there is an
        ``equity_accepted``, as after a deposit. A plan in which it had no decision holds.
    """
    ledgers = SubLedgers(sub_ledgers(entries).billed)
    found: list[dict[str, Any]] = []
    for entry in entries:
        before = ledgers.specs.get(name, SubLedger()).transfers_usd
        ledgers.add(entry)
        if (own := ledgers.specs.get(name)) is not None:
            found += _own(entry, name, own, ledgers, own.transfers_usd - before)
    return [{**entry, "n": number} for number, entry in enumerate(found)]


def book_watches(strategy: Strategy) -> dict[str, Watch]:
    """The alarms of each spec of a book, on its own entries and equity; none for one strategy."""
    members = strategy.targets.members if isinstance(strategy.targets, BookTargets) else ()
    watches = {member.name: watch_of(member.strategy) for member in members}
    return {name: _of_part(name, watch) for name, watch in watches.items() if watch is not None}


def _of_part(name: str, watch: Watch) -> Watch:
    return lambda entries, instant, equity_usd: watch(spec_entries(entries, name), instant, equity_usd)


def _own(
    entry: Mapping[str, Any], name: str, own: SubLedger, ledgers: SubLedgers, given: float
) -> Iterator[dict[str, Any]]:
    state = {"equity_usd": own.equity_usd, "positions": dict(own.units)}
    match entry["kind"]:
        case "plan" if part := _parts(entry).get("specs", {}).get(name):
            equity = part["equity_usd"]
            if given and own.track[:-1]:
                end = {"positions": part["positions"], "complete": True, "missing": [], "notes": []}
                yield {**entry, "kind": "done", "equity_usd": equity - given, **end}
                yield {"kind": "equity_accepted", "time": entry["time"], "equity_usd": equity}
            yield _own_plan(entry, part)
        case "done" | "positions_accepted":
            yield {**entry, **state}
        case "intent":
            if orders := list(_scaled(entry["orders"], name, ledgers, "units")):
                yield {**entry, "orders": orders}
        case "answers" | "resolved":
            if answers := list(_scaled(entry["answers"], name, ledgers, "units")):
                yield {**entry, "answers": answers}
        case "fills":
            if fills := list(_scaled(entry["fills"], name, ledgers, "units", "fee_usd")):
                yield {**entry, "fills": fills}
        case kind if kind in (DEMOTED, REINSTATED) and entry["strategy"] == name:
            yield dict(entry)


def _own_plan(entry: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    whole = entry["plan"]
    plan = part["plan"] or {
        **whole,
        "equity_usd": part["equity_usd"],
        "weights": dict.fromkeys(part["positions"]),  # null = hold
        "positions": part["positions"],
        **{"orders": [], "skips": [], "goals": []},
    }
    made_of = {"inputs": part["inputs"]} if part["inputs"] else {}
    return {
        **{name: entry[name] for name in ("kind", "time", "instant", "explained_at")},
        "key": part["digest"],
        "equity_usd": part["equity_usd"],
        "goals": [],
        "plan": {**plan, "parts": {}},
        **({"reduces_only": True} if part["state"] == "demoted" else {}),
        **({"holds": True} if part["state"] == "held" else {}),
        **made_of,
    }


def _scaled(rows: Sequence[Mapping[str, Any]], name: str, ledgers: SubLedgers, *keys: str) -> Iterator[dict[str, Any]]:
    for row in rows:
        if part := ledgers.shared.get(row["cloid"], {}).get(name):
            yield {**row, **{key: row[key] * part for key in keys}}
