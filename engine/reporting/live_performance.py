"""Live performance against the backtest's rules: costs of every order, drift of equity, missed orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.config import RunConfig
from engine.live.dex import DEX
from engine.live.journal import Journal
from engine.live.orders import Policy
from engine.live.reconcile import Reconciler
from engine.monitoring.account_replay import drift
from engine.monitoring.books import book_status
from engine.monitoring.fills import costs, filled_orders, sent_orders


def live_status(journal: Journal, config: RunConfig) -> dict[str, Any]:
    """Everything that ``hlbt live status`` shows of a journal, as plain values.

    Parameters
    ----------
    journal : Journal
        Of the account.
    config : RunConfig
        Of the strategy: its costs and its cache are the model's.
    """
    orders = filled_orders(journal.entries)
    plans = [entry for entry in journal.entries if entry["kind"] == "plan"]
    ends = [entry for entry in journal.entries if entry["kind"] == "done"]
    # Before a deposit or a withdrawal it was another account.
    accepted = max((entry["n"] for entry in journal.entries if entry["kind"] == "equity_accepted"), default=-1)
    unresolved = [
        {"cloid": sent.request.cloid, "coin": sent.request.coin, "units": sent.request.units}
        for sent in journal.state.unresolved.values()
    ]
    return {
        "journal": str(journal.path),
        "runs": [_run(plan, journal.entries) for plan in plans],
        "orders": [vars(order) for order in orders],
        "costs": costs(orders),
        "missed": [{"instant": end["instant"], **item} for end in ends for item in end["missing"]],
        "unresolved": unresolved,
        "positions": ends[-1]["positions"] if ends else {},
        "drift": drift([plan for plan in plans if plan["n"] > accepted], config),
        "book": book_status(journal.entries),
    }


def account_status(dex: DEX, journal: Journal) -> dict[str, Any]:
    """What an account holds: ``label``, ``time``, ``equity_usd``, ``funds_usd``, ``positions``, ``notes``.

    Each position has signed ``units``, ``price`` in USD and ``weight``, a fraction of equity (None without equity).
    ``funds_usd`` is the collateral of each perp dex, where each has its own. ``unexplained`` has the signed units by
    the ``journal`` and the ``account`` where no journal of the account explains what it holds. Notes name positions on
    other dexes, money that is not counted, and why equity may not be certain.
    """
    # One reading of the account: an order that waits for a node that lags behind is for a run.
    reconciler = Reconciler(dex, journal, Policy(settle_seconds=()))
    reconciler.read_account()
    reconciler.agree()
    state = reconciler.state
    positions = {}
    for coin, units in sorted(state.units.items()):
        price = state.prices[coin]
        weight = units * price / state.equity_usd if state.equity_usd > 0.0 else None
        positions[coin] = {"units": units, "price": price, "weight": weight}
    return {
        "label": dex.label,
        "time": state.time.isoformat(),
        "equity_usd": state.equity_usd,
        "funds_usd": dict(state.funds),
        "positions": positions,
        "unexplained": {
            coin: {"journal": own, "account": held} for coin, (own, held) in reconciler.unexplained.items()
        },
        "notes": [*state.notes, *filter(None, [state.doubt]), *reconciler.notes],
    }


def order_log(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every order of a journal as plain values: what was sent, and what became of it."""
    return [
        {
            "time": sent.time,
            "instant": sent.instant,
            **{name: sent.order[name] for name in ("cloid", "coin", "units", "limit_price", "reduce_only")},
            "status": sent.result["fate"] if sent.result else "unknown",
            "filled_units": sent.result["units"] if sent.result else None,
            "price": sent.price,
            "fee_usd": sent.fee_usd,
            "reason": sent.result.get("reason", "") if sent.result else "the next run looks it up",
        }
        for sent in sent_orders(entries)
    ]


def _run(plan: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One plan, and how it ended."""
    later = entries[plan["n"] + 1 :]
    until = next((index for index, entry in enumerate(later) if entry["kind"] == "plan"), len(later))
    ends = [entry for entry in later[:until] if entry["kind"] == "done"]
    return {
        "instant": plan["instant"],
        "equity_usd": plan["equity_usd"],
        "planned": len(plan["plan"]["orders"]),
        "sent": sum(len(entry["orders"]) for entry in later[:until] if entry["kind"] == "intent"),
        "skipped": len(plan["plan"]["skips"]),
        "gross": plan["plan"]["gross_after"],
        "state": ("at target" if ends[-1]["complete"] else "incomplete") if ends else "did not end",
        "missing": [item["coin"] for item in ends[-1]["missing"]] if ends else [],
    }
