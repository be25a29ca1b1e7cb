"""Fills against the model: what slippage, fees and funding cost beyond it, by fill and by day.

Slippage is measured from the mid at which an order was sent, and modelled by the plan: its quote, or the half spread of
the config, and the impact of the size. Fees are modelled by the schedule, at the tier of the journal's own volume, with
the discounts of the config and the factor of a builder's coin. Funding is what the account says it paid, modelled by
the cache's rates on the positions of the journal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd

from engine.clock import hourly_index, utc_days
from engine.config import Costs, RunConfig
from engine.monitoring.account_replay import account_differences
from engine.panel import Panel
from engine.simulation.backtest import funding_arrays
from engine.simulation.costs import fee_arrays

#: Columns of the table of fills.
COLUMNS: Final = (
    "instant",
    "coin",
    "notional_usd",
    "slippage_bps",
    "model_slippage_bps",
    "excess_bps",
    "fee_bps",
    "model_fee_bps",
    "fee_excess_bps",
)


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
        Expected by the plan: the quote or the config's half spread with the impact of the size, and the fee schedule.
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


def filled_orders(entries: Sequence[Mapping[str, Any]]) -> list[LiveOrder]:
    """The orders that were filled, oldest first; one whose price is not known yet is left out."""
    return [order for sent in sent_orders(entries) if (order := filled_order(sent)) is not None]


def filled_order(sent: SentOrder) -> LiveOrder | None:
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
        model_slippage_bps=1e4 * _slippage_usd(planned) / expected if planned and expected else None,
        model_fee_bps=1e4 * planned["fee_usd"] / expected if planned and expected else None,
    )


def _slippage_usd(planned: Mapping[str, Any]) -> float:
    """Slippage that a plan expected of an order; journals of earlier releases have no impact."""
    return float(planned["spread_usd"] + planned.get("impact_usd", 0.0))


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


@dataclass(frozen=True)
class FillCosts:
    """What the fills of a journal cost beyond the model; costs are positive.

    Attributes
    ----------
    fills : DataFrame
        A row an order that was filled, all its fills together: the trade ``instant``, ``coin``, ``notional_usd`` at
        mid, and in basis points of that ``slippage_bps``, ``model_slippage_bps``, ``excess_bps`` (paid less modelled),
        ``fee_bps``, ``model_fee_bps``, ``fee_excess_bps``; NaN where the plan has no order of the coin, or the fee is
        not known yet.
    funding : DataFrame
        By instant of the trade before which it was paid: ``paid_usd``, and ``model_usd`` (NaN without a panel).
    equity : Series
        USD, by trade instant, before the trade; NaN where it was not certain.
    unpriced : int
        Orders that were filled at a price that is not known yet; they are in no table.
    """

    fills: pd.DataFrame
    funding: pd.DataFrame
    equity: pd.Series
    unpriced: int

    def days(self) -> pd.DataFrame:
        """Excess costs in basis points of equity, by trade instant, for :func:`cost_alarm`.

        Returns
        -------
        DataFrame
            ``slippage_bps``, ``fee_bps`` and ``funding_bps``; NaN where nothing was filled, a fee is not known yet, or
            funding or equity are not known.
        """
        fills = self.fills
        usd = pd.DataFrame(
            {
                "slippage_bps": fills["excess_bps"] * fills["notional_usd"] / 1e4,
                "fee_bps": fills["fee_excess_bps"] * fills["notional_usd"] / 1e4,
            }
        )
        grouped = usd.groupby(fills["instant"])
        sums = grouped.sum(min_count=1)  # an order without a plan has no model
        # A day whose fees are known in part says nothing of them yet.
        sums["fee_bps"] = sums["fee_bps"].where(grouped["fee_bps"].count() == grouped.size())
        sums = sums.reindex(self.equity.index)
        sums["funding_bps"] = (self.funding["paid_usd"] - self.funding["model_usd"]).reindex(self.equity.index)
        return sums.div(self.equity.where(self.equity > 0.0), axis=0) * 1e4

    def by_coin(self) -> pd.DataFrame:
        """Orders, notional in USD, and slippage in basis points, paid and modelled, weighted by notional, by coin."""
        known = self.fills.dropna(subset=["excess_bps"])
        weight = known["notional_usd"]
        usd = known[["slippage_bps", "model_slippage_bps", "excess_bps"]].mul(weight, axis=0)
        table = usd.groupby(known["coin"]).sum().div(weight.groupby(known["coin"]).sum(), axis=0)
        table.insert(0, "notional_usd", weight.groupby(known["coin"]).sum())
        table.insert(0, "orders", known.groupby("coin").size())
        return table.sort_values("notional_usd", ascending=False)


def fill_costs(entries: Sequence[Mapping[str, Any]], config: RunConfig, panel: Panel | None = None) -> FillCosts:
    """Compare what the fills of a journal cost with the model.

    Parameters
    ----------
    entries : sequence of mapping
        Of the journal.
    config : RunConfig
        Costs of the model.
    panel : Panel, optional
        From the cache, for the model of funding.

    Returns
    -------
    FillCosts
    """
    sent = [order for order in sent_orders(entries) if order.result is not None and order.result["fate"] == "filled"]
    priced = [order for order in sent if filled_order(order) is not None]
    rates = _model_rates(priced, config.costs)
    rows = [_row(order, rate) for order, rate in zip(priced, rates, strict=True)]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(COLUMNS[2:], np.float64))
    table["instant"] = pd.to_datetime(table["instant"], utc=True)
    return FillCosts(table, _funding(entries, config, panel), _equity(entries), len(sent) - len(priced))


def cost_days(entries: Sequence[Mapping[str, Any]], config: RunConfig, panel: Panel | None) -> pd.DataFrame:
    """Every series of excess costs that :func:`engine.monitoring.control_chart.cost_alarm` charts.

    Parameters
    ----------
    entries : sequence of mapping
        Of the journal.
    config : RunConfig
        Of the strategy.
    panel : Panel or None
        From the cache; without one there is neither funding nor a replay of the account.

    Returns
    -------
    DataFrame
        By trade instant: :meth:`FillCosts.days`, and ``account_bps``, by how much less the account made than its
        replay since the instant before.
    """
    days = fill_costs(entries, config, panel).days()
    own = account_differences(entries, config, panel) if panel is not None else pd.Series(dtype=np.float64)
    return days.assign(account_bps=own.reindex(days.index))


def _row(sent: SentOrder, rate: float) -> tuple[Any, ...]:
    order = filled_order(sent)
    assert order is not None
    model = math.nan if order.model_slippage_bps is None else order.model_slippage_bps
    paid = math.nan if order.fee_bps is None else order.fee_bps
    traded = math.fsum(abs(fill["units"]) * fill["price"] for fill in sent.fills)
    model_fee = 1e4 * rate * traded / order.notional_usd if sent.fills else math.nan
    slippage = order.slippage_bps
    return (
        *(order.instant, order.coin, order.notional_usd, slippage, model, slippage - model),
        *(paid, model_fee, paid - model_fee),
    )


def _model_rates(orders: Sequence[SentOrder], costs: Costs) -> list[float]:
    """Fee rate of each order by the schedule, a fraction of the fill: tier and referral by the volume before it."""
    from engine.simulation.kernel import fee_rate_nb

    if not orders:
        return []
    instants = pd.DatetimeIndex([pd.Timestamp(order.instant) for order in orders]).floor("h")
    index = hourly_index(instants.min(), instants.max())
    fees = fee_arrays(index, costs)
    place = index.get_indexer(instants)
    day = utc_days(index)
    day = day - day[0]
    volume, total, rates = np.zeros(int(day[-1]) + 1), 0.0, []
    for order, row in zip(orders, place.tolist(), strict=True):
        rate = fee_rate_nb(fees.rate[row], fees.thresholds_usd, fees.referral_frac, volume, int(day[row]), total)
        rates.append(float(rate) * _factor(order, float(fees.rate[row, 0])))
        traded = math.fsum(abs(fill["units"]) * fill["price"] for fill in order.fills)
        volume[day[row]] += traded
        total += traded
    return rates


def _factor(order: SentOrder, rate: float) -> float:
    """Factor of a builder's coin on the base rate, as the plan had it; 1 where it has no order of the coin."""
    planned = order.planned
    if planned is None or rate == 0.0 or not planned["units"]:
        return 1.0
    price = planned["mid"] + planned["spread_usd"] / planned["units"]
    return float(planned["fee_usd"] / (rate * abs(planned["units"]) * price))


def _equity(entries: Sequence[Mapping[str, Any]]) -> pd.Series:
    """Equity of the first plan of each instant: before any trade of it."""
    first: dict[pd.Timestamp, float] = {}
    for entry in entries:
        if entry["kind"] == "plan":
            equity = entry["equity_usd"]
            first.setdefault(pd.Timestamp(entry["instant"]), math.nan if equity is None else equity)
    index = pd.DatetimeIndex(list(first), tz="UTC") if not first else pd.DatetimeIndex(list(first))
    return pd.Series(list(first.values()), index, dtype=np.float64, name="equity_usd").sort_index()


def _funding(entries: Sequence[Mapping[str, Any]], config: RunConfig, panel: Panel | None) -> pd.DataFrame:
    paid = [entry for entry in entries if entry["kind"] == "funding"]
    index = pd.DatetimeIndex([pd.Timestamp(entry["until"]) for entry in paid])
    index = index if len(index) else pd.DatetimeIndex([], tz="UTC")
    model = np.full(len(paid), np.nan)
    if panel is not None and "funding" in panel.fields and paid:
        hourly = _model_funding(entries, config, panel)
        for place, entry in enumerate(paid):
            since, until = pd.Timestamp(entry["since"]), pd.Timestamp(entry["until"])
            if panel.index[0] <= since and until - pd.Timedelta(hours=1) <= panel.index[-1]:
                rows = slice(*panel.index.searchsorted(pd.DatetimeIndex([since, until])))
                model[place] = hourly[rows].sum()
    table = pd.DataFrame({"paid_usd": [float(entry["paid_usd"]) for entry in paid], "model_usd": model}, index=index)
    return table.groupby(level=0).sum(min_count=1)


def _model_funding(entries: Sequence[Mapping[str, Any]], config: RunConfig, panel: Panel) -> np.ndarray:
    """Funding that the cache's rates make of the journal's positions, USD an hour, (T,), positive = paid."""
    rates, price = funding_arrays(panel, config)
    if not len(rates):
        return np.zeros(len(panel.index))
    price = np.where(np.isnan(price), panel.frame("mid").ffill().to_numpy(), price)
    owed = np.nan_to_num(rates) * np.nan_to_num(price)
    total = np.zeros(len(panel.index))
    column = {coin: place for place, coin in enumerate(panel.coins)}
    # A rate is settled in the first second of its hour.
    changes = [
        (pd.Timestamp(entry["time"]).floor("s").ceil("h"), entry["positions"])
        for entry in entries
        if entry["kind"] == "done"
    ]
    for number, (time, positions) in enumerate(changes):
        later = changes[number + 1][0] if number + 1 < len(changes) else panel.index[-1] + pd.Timedelta(hours=1)
        rows = slice(*panel.index.searchsorted(pd.DatetimeIndex([time, later])))
        held = [(column[coin], units) for coin, units in positions.items() if units and coin in column]
        if held:
            places, units = zip(*held, strict=True)
            total[rows] += owed[rows][:, list(places)] @ np.array(units)
    return total
