"""The reference ledger: the rules of an instant in plain Python, slow and obvious, to be read beside ARCHITECTURE.md.

Written from the documents, never from the kernel. Quoted text in the comments is theirs ("Rules of an instant" in
ARCHITECTURE.md, section 3 of DESIGN.md). Everything is a float, a dict by coin or a loop in coin order.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import copysign, floor, isnan, nan

import pandas as pd

from engine.config import RunConfig
from engine.panel import Panel

FLOWS = ("price_pnl_usd", "spread_usd", "impact_usd", "fee_usd", "funding_usd")
COUNTS = ("skipped_min_notional", "skipped_band", "untradable_orders", "delistings", "decisions")


@dataclass(frozen=True)
class NaiveTrade:
    """One fill or settlement; `units` is signed, costs are positive when they lower equity."""

    row: int
    coin: str
    units: float
    price: float
    notional_usd: float
    fee_usd: float
    spread_usd: float
    impact_usd: float
    reason: str


@dataclass(frozen=True)
class NaiveResult:
    """Lists hold one value a row, after steps 1 to 4; the two means are 0.0 when no decision was traded."""

    equity: list[float]
    flows: dict[str, list[float]]
    gross: list[float]
    net: list[float]
    trades: list[NaiveTrade]
    skipped_min_notional: int
    skipped_band: int
    untradable_orders: int
    untradable_weight: float
    turnover_daily: float
    delistings: int
    liquidated_row: int | None
    decisions: int


def backtest(panel: Panel, weights: pd.DataFrame, config: RunConfig, fee_rates: list[float]) -> NaiveResult:
    """Run `weights` (decision instants x coins; NaN holds, an absent coin is 0) with the taker fee `fee_rates[row]`."""
    decisions = decisions_by_row(panel, weights, config)
    ledger = Ledger(panel, config, fee_rates)
    equity, gross, net = [], [], []
    flows: dict[str, list[float]] = {name: [] for name in FLOWS}

    for t in range(len(panel.index)):
        ledger.flow = dict.fromkeys(FLOWS, 0.0)
        ledger.mark(t)
        if t in decisions and ledger.liquidated_row is None:  # "From then on no decision is traded."
            ledger.trade(t, decisions[t])
        ledger.funding(t)
        ledger.margin(t)
        # 5. "Record equity, the flows of the row, gross and net exposure as a fraction of equity."
        exposures = [ledger.units[coin] * ledger.price[coin] for coin in ledger.held()]
        equity.append(ledger.equity())
        gross.append(ratio(sum(abs(exposure) for exposure in exposures), equity[t]))
        net.append(ratio(sum(exposures), equity[t]))
        for name in FLOWS:
            flows[name].append(ledger.flow[name])

    made, end = ledger.counts["decisions"], ledger.liquidated_row
    means = {"untradable_weight": ratio(ledger.untradable_weight, made), "turnover_daily": ratio(ledger.turnover, made)}
    return NaiveResult(equity, flows, gross, net, ledger.trades, **ledger.counts, **means, liquidated_row=end)


def decisions_by_row(panel: Panel, weights: pd.DataFrame, config: RunConfig) -> dict[int, dict[str, float]]:
    """The row at which each decision trades -> its weight of every coin of the panel, in coin order."""
    by_row = {}
    for d, decided in enumerate(panel.rows(pd.DatetimeIndex(weights.index)).tolist()):
        if decided < 0:
            raise ValueError(f"The decision {weights.index[d]} is not an instant of the panel.")
        row = {coin: float(weights[coin].iloc[d]) if coin in weights else 0.0 for coin in panel.coins}
        if sum(abs(w) for w in row.values() if not isnan(w)) > config.account.max_gross * (1 + 1e-9):
            raise ValueError(f"The weights of {weights.index[d]} exceed account.max_gross.")
        # "at the row `delay_hours` after a decision instant; a decision whose row lies beyond the panel is left out"
        if decided + config.execution.delay_hours < len(panel.index):
            by_row[decided + config.execution.delay_hours] = row
    return by_row


def ratio(amount: float, whole: float) -> float:
    """Divide, also by a negative equity; 0.0 where there is nothing to divide by."""
    return amount / whole if whole != 0 else 0.0


def effect(before: float, after: float) -> str:
    if before == 0 or after == 0:
        return "open" if before == 0 else "close"
    if (before > 0) != (after > 0):
        return "flip"
    return "increase" if abs(after) > abs(before) else "reduce"


class Ledger:
    """Cash and units, and the steps 1 to 4 that move them."""

    def __init__(self, panel: Panel, config: RunConfig, fee_rates: list[float]) -> None:
        self.coins, self.fee_rates = panel.coins, fee_rates
        self.execution, self.costs, self.account = config.execution, config.costs, config.account
        self.data = {name: values.tolist() for name, values in {**panel.fields, "tradable": panel.tradable}.items()}
        self.max_leverage = {coin.name: coin.max_leverage for coin in panel.table if coin.max_leverage is not None}
        known_lots = [coin for coin in panel.table if config.execution.lots and coin.sz_decimals is not None]
        self.lots_a_unit = {coin.name: 10**coin.sz_decimals for coin in known_lots}

        self.cash = config.account.initial_equity_usd
        self.units = dict.fromkeys(self.coins, 0.0)
        self.price = dict.fromkeys(self.coins, nan)  # "its mid there or, where that is NaN, the last mid before"
        self.rows_without_mid = dict.fromkeys(self.coins, 0)

        self.flow: dict[str, float] = {}  # of the row; the rest is of the run
        self.counts = dict.fromkeys(COUNTS, 0)
        self.turnover = self.untradable_weight = 0.0  # summed over decisions
        self.trades: list[NaiveTrade] = []
        self.liquidated_row: int | None = None

    def at(self, name: str, t: int, coin: str) -> float:
        """A field's value; NaN also where the panel lacks the field."""
        return self.data[name][t][self.coins.index(coin)] if name in self.data else nan

    def held(self) -> list[str]:
        return [coin for coin in self.coins if self.units[coin] != 0]

    def equity(self) -> float:
        return self.cash + sum(self.units[coin] * self.price[coin] for coin in self.held())

    # 1. Mark
    def mark(self, t: int) -> None:
        for coin in self.coins:
            mid = self.at("mid", t, coin)
            self.rows_without_mid[coin] += 1
            if not isnan(mid):
                if self.units[coin] != 0:  # "Price profit of the row = sum(units * (price - previous price))."
                    self.flow["price_pnl_usd"] += self.units[coin] * (mid - self.price[coin])
                self.price[coin], self.rows_without_mid[coin] = mid, 0
        # "a held coin in its `stale_hours`-th consecutive row without a mid is settled at its price, without fee or
        # spread: it counts in `delistings` [...] and is gone before the trade and the funding of that row"
        for coin in self.held():
            if self.rows_without_mid[coin] == self.execution.stale_hours:
                size, price = -self.units[coin], self.price[coin]
                self.trades.append(NaiveTrade(t, coin, size, price, abs(size) * price, 0.0, 0.0, 0.0, "delisting"))
                self.counts["delistings"] += 1
                self.cash -= size * price
                self.units[coin] = 0.0

    # 2. Trade
    def trade(self, t: int, weights: dict[str, float]) -> None:
        equity = self.equity()  # "Sizing uses the equity of step 1, before costs."
        self.counts["decisions"] += 1
        # "A NaN weight: left as it is. A coin that is not `tradable` at the row is left as it is"
        instructed = {coin: w for coin, w in weights.items() if not isnan(w)}
        tradable = {coin: w for coin, w in instructed.items() if self.at("tradable", t, coin)}
        # "it is counted in `untradable_orders` when it has a weight other than 0 or is held, and its abs(weight) adds
        # to the row's untradable weight"
        untradable = {coin: w for coin, w in instructed.items() if coin not in tradable}
        self.counts["untradable_orders"] += sum(1 for coin, w in untradable.items() if w != 0 or self.units[coin] != 0)
        self.untradable_weight += sum(abs(w) for w in untradable.values())
        # "With `renormalise` the other weights of the row are multiplied by sum(abs(w)) / sum(abs(w) of tradable
        # coins), NaN weights left out of both sums; nothing is scaled if the second is 0."
        kept = sum(abs(w) for w in tradable.values())
        if self.execution.untradable == "renormalise" and kept != 0:
            scale = sum(abs(w) for w in instructed.values()) / kept
            tradable = {coin: w * scale for coin, w in tradable.items()}

        for coin, weight in tradable.items():
            size = self.order_size(coin, weight, equity)
            if size != 0:
                self.turnover += abs(size) * self.price[coin] / equity if equity > 0 else 0.0
                self.fill(t, coin, size)

    def order_size(self, coin: str, weight: float, equity: float) -> float:
        """Signed units to trade, 0.0 for no order. A tradable coin has a mid, so its price is that mid."""
        units, mid = self.units[coin], self.price[coin]
        if weight == 0:  # "With weight 0 and a position it is a full close: -units, never cut, never skipped."
            return -units
        order = weight * equity / mid - units
        if equity <= 0 or order == 0:  # "only full closes are sent"; "An order of exactly 0 is no order."
            return 0.0
        # "the size is cut to floor(abs(order) * 10**szDecimals * (1 + 1e-12)) lots"
        size = abs(order)
        if coin in self.lots_a_unit:
            size = floor(size * self.lots_a_unit[coin] * (1 + 1e-12)) / self.lots_a_unit[coin]
        # "One that the cut made 0, or with abs(size) * mid < min_notional_usd, counts in `skipped_min_notional`; else
        # one with abs(size) * mid < no_trade_band_frac * equity counts in `skipped_band`."
        if size == 0 or size * mid < self.execution.min_notional_usd:
            self.counts["skipped_min_notional"] += 1
            return 0.0
        if size * mid < self.execution.no_trade_band_frac * equity:
            self.counts["skipped_band"] += 1
            return 0.0
        return copysign(size, order)

    def fill(self, t: int, coin: str, size: float, reason: str | None = None) -> None:
        price, bid, ask = self.price[coin], self.at("bid", t, coin), self.at("ask", t, coin)
        sign = 1.0 if size > 0 else -1.0
        # "Buys at `ask`, sells at `bid` when the row has both; else at mid * (1 +/- half_spread_bps / 1e4)"; in a
        # liquidation "around the coin's price where the row has no mid", and where it has one that is the price.
        fill = ask if size > 0 else bid
        if isnan(bid) or isnan(ask):
            fill = price * (1 + sign * self.costs.half_spread_bps / 1e4)
        # "Spread cost = abs(size) * abs(fill - mid), with the sign of a cost": negative where the fill is better than
        # mid, or the accounting identity would not hold. "Fee = rate * abs(size) * fill." "Impact is 0 so far."
        spread, fee = abs(size) * sign * (fill - price), self.fee_rates[t] * abs(size) * fill
        self.cash -= size * fill + fee
        self.flow["spread_usd"] += spread
        self.flow["fee_usd"] += fee
        # "after the fill the position is rounded to a whole number of lots" (a close leaves exactly 0 as it is)
        before, after = self.units[coin], self.units[coin] + size
        if coin in self.lots_a_unit:
            after = round(after * self.lots_a_unit[coin]) / self.lots_a_unit[coin]
        self.units[coin], reason = after, reason or effect(before, after)
        self.trades.append(NaiveTrade(t, coin, size, fill, abs(size) * fill, fee, spread, 0.0, reason))

    # 3. Funding
    def funding(self, t: int) -> None:
        for coin in self.held():
            rate = self.at("funding", t, coin)
            # "whose `funding` is not NaN [...], with p the row's `oracle`, else its `mark`, else the coin's price"
            if self.costs.funding and not isnan(rate):
                candidates = (self.at("oracle", t, coin), self.at("mark", t, coin), self.price[coin])
                paid = self.units[coin] * next(p for p in candidates if not isnan(p)) * rate
                self.cash -= paid
                self.flow["funding_usd"] += paid

    # 4. Margin
    def margin(self, t: int) -> None:
        # "equity < sum(abs(units) * price / (2 * maxLeverage)) over coins whose maxLeverage is known"
        known = [coin for coin in self.held() if coin in self.max_leverage]
        needed = sum(abs(self.units[coin]) * self.price[coin] / (2 * self.max_leverage[coin]) for coin in known)
        if self.account.margin and self.held() and (self.equity() <= 0 or self.equity() < needed):
            # "closes every position: at bid/ask as above [...], with fee and spread, tradable or not"
            for coin in self.held():
                self.fill(t, coin, -self.units[coin], "liquidation")
            self.liquidated_row = t
