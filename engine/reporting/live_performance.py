"""Live performance against the backtest's rules: costs of every order, drift of equity, missed orders."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from engine.config import Execution, RunConfig
from engine.errors import DataError, HlbtError
from engine.live.dex import DEX
from engine.live.journal import Journal
from engine.live.orders import Policy
from engine.live.reconcile import Reconciler


@dataclass(frozen=True)
class LiveOrder:
    """One order that was filled, and what the model expected of it; basis points of mid, costs positive.

    Attributes
    ----------
    instant : str
        ISO 8601, the trade instant.
    coin : str
    units, mid, price : float
        Signed size filled; USD.
    notional_usd : float
        At mid.
    slippage_bps : float
        Fill against the mid at which it was sent.
    fee_bps : float or None
        Paid; None until the fills are recorded.
    model_slippage_bps, model_fee_bps : float or None
        Expected by the plan: the quote or the config's half spread, and the fee schedule.
    """

    instant: str
    coin: str
    units: float
    mid: float
    price: float
    notional_usd: float
    slippage_bps: float
    fee_bps: float | None
    model_slippage_bps: float | None
    model_fee_bps: float | None


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


@dataclass
class SentOrder:
    """One order that was, or may have been, sent: its entries in the journal; no `result` while its status is unknown.

    Attributes
    ----------
    time, instant : str
        ISO 8601: of the intent, and of the trade.
    order : mapping
        As intended.
    planned : mapping or None
        The plan's order of the coin.
    result : mapping or None
        Its newest answer.
    fills : list of mapping
        With prices and fees.
    """

    time: str
    instant: str
    order: Mapping[str, Any]
    planned: Mapping[str, Any] | None
    result: Mapping[str, Any] | None = None
    fills: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def price(self) -> float | None:
        """Average price in USD: the answer's, else that of the fills; None where neither is known."""
        size = math.fsum(abs(fill["units"]) for fill in self.fills)
        answered = self.result["price"] if self.result else None
        return answered or (
            math.fsum(abs(fill["units"]) * fill["price"] for fill in self.fills) / size if size else None
        )

    @property
    def fee_usd(self) -> float | None:
        """Fees paid; None until the fills are recorded."""
        return math.fsum(fill["fee_usd"] for fill in self.fills) if self.fills else None


def sent_orders(entries: Sequence[Mapping[str, Any]]) -> list[SentOrder]:
    """Every order of a journal, in the order of the intents."""
    sent: dict[str, SentOrder] = {}
    planned: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        match entry["kind"]:
            case "plan":
                planned = {order["coin"]: order for order in entry["plan"]["orders"]}
            case "intent":
                for order in entry["orders"]:
                    time, instant = entry.get("time", ""), entry["instant"]
                    sent[order["cloid"]] = SentOrder(time, instant, order, planned.get(order["coin"]))
            case "answers" | "resolved":
                for result in entry["answers"]:
                    if result["cloid"] in sent and result["fate"] != "unknown":
                        sent[result["cloid"]].result = result
            case "fills":
                for fill in entry["fills"]:
                    if fill["cloid"] in sent:
                        sent[fill["cloid"]].fills.append(fill)
    return list(sent.values())


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


def filled_orders(entries: Sequence[Mapping[str, Any]]) -> list[LiveOrder]:
    """The orders that were filled, oldest first; one whose price is not known yet is left out."""
    return [order for sent in sent_orders(entries) if (order := _filled(sent)) is not None]


def _filled(sent: SentOrder) -> LiveOrder | None:
    """One filled order; None when neither its result nor its fills have a price."""
    result, price, planned = sent.result, sent.price, sent.planned
    if result is None or result["fate"] != "filled" or not price:
        return None
    units, mid = result["units"], sent.order["mid"]
    notional = abs(units) * mid
    expected = planned["notional_usd"] if planned else 0.0
    return LiveOrder(
        sent.instant,
        sent.order["coin"],
        units,
        mid,
        price,
        notional,
        slippage_bps=1e4 * math.copysign(1.0, units) * (price / mid - 1.0),
        fee_bps=None if sent.fee_usd is None else 1e4 * sent.fee_usd / notional,
        model_slippage_bps=1e4 * planned["spread_usd"] / expected if planned and expected else None,
        model_fee_bps=1e4 * planned["fee_usd"] / expected if planned and expected else None,
    )


def costs(orders: Sequence[LiveOrder]) -> dict[str, float | int | None]:
    """Notional-weighted costs, live and model, in basis points; None where no order has the figure."""
    figures: dict[str, float | int | None] = {
        "orders": len(orders),
        "notional_usd": math.fsum(order.notional_usd for order in orders),
    }
    for name in ("slippage_bps", "model_slippage_bps", "fee_bps", "model_fee_bps"):
        known = [(order.notional_usd, value) for order in orders if (value := getattr(order, name)) is not None]
        weight = math.fsum(notional for notional, _ in known)
        figures[name] = math.fsum(notional * value for notional, value in known) / weight if weight else None
    return figures


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


def drift(plans: Sequence[Mapping[str, Any]], config: RunConfig) -> dict[str, Any]:
    """Live equity against a backtest of the same weights over the cache, at each instant before its trade.

    Returns
    -------
    dict
        ``rows`` (instant, live_usd, backtest_usd, drift_frac), ``reason`` (why there are none) and ``synthetic``
        (whether the cache holds synthetic data).
    """
    newest: dict[str, Mapping[str, Any]] = {}
    for plan in plans:  # of several of an instant the last has the weights, and the first the equity before any trade
        newest[plan["instant"]] = {**plan, "equity_usd": newest.get(plan["instant"], plan)["equity_usd"]}
    synthetic = _synthetic(config)
    if len(newest) < 2:
        return {"rows": [], "reason": "It takes two rebalances.", "synthetic": synthetic}
    try:
        rows = _drift(list(newest.values()), config)
    except HlbtError as error:
        return {"rows": [], "reason": str(error), "synthetic": synthetic}
    return {"rows": rows, "reason": "", "synthetic": synthetic}


def _synthetic(config: RunConfig) -> bool:
    """Whether the cache holds synthetic data; one that cannot be read has none (``reason`` names it)."""
    from engine.data.cache import Store
    from engine.data.panel_loader import cache_path

    try:
        manifest = Store(cache_path(config.data.cache)).manifest()
    except HlbtError:
        return False
    return manifest is not None and manifest.synthetic


def _drift(plans: Sequence[Mapping[str, Any]], config: RunConfig) -> list[dict[str, Any]]:
    from engine.data.panel_loader import load_whole_panel
    from engine.simulation.backtest import backtest

    instants = pd.DatetimeIndex([pd.Timestamp(plan["instant"]) for plan in plans])
    panel = load_whole_panel(config.data.cache, instants[0], instants[-1], config.data.selection, config.data.hours)
    inside = instants.isin(panel.index)
    if inside.sum() < 2:
        raise DataError("The cache has fewer than two of the instants that were traded: it ends before the newest.")
    covered = [plan for plan, known in zip(plans, inside, strict=True) if known]
    if covered[0]["equity_usd"] is None:
        raise DataError("The equity of the first instant of the cache that was traded is not known.")
    targets = [plan["plan"]["weights"] for plan in covered]
    # A coin that a row does not name is 0, null is a hold.
    coins = sorted({coin for row in targets for coin in row if coin in panel.coins})
    rows_of = [[np.nan if (weight := row.get(coin, 0.0)) is None else weight for coin in coins] for row in targets]
    held = pd.DataFrame(rows_of, index=instants[inside], columns=coins, dtype=np.float64)
    default = Execution()
    execution = replace(
        config.execution,
        leverage=1.0,
        target_volatility=0.0,
        tranches=1,
        gross_cap=0.0,
        delay_hours=0,
        every_days=default.every_days,
        weekdays=default.weekdays,
    )
    start = covered[0]["equity_usd"]
    account = replace(config.account, initial_equity_usd=start, max_gross=100.0, initial_margin=False)
    result = backtest(panel, held, replace(config, execution=execution, account=account))
    flows = result.attribution.drop(columns="price_pnl_usd").sum(axis=1)
    before = (result.equity + flows).reindex(held.index)
    return [
        {
            "instant": instant.isoformat(),
            "live_usd": plan["equity_usd"],
            "backtest_usd": float(model),
            "drift_frac": plan["equity_usd"] / float(model) - 1.0,
        }
        for instant, plan, model in zip(held.index, covered, before, strict=True)
        if plan["equity_usd"] is not None  # everything was closed while it was not known
    ]
