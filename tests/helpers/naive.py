"""The reference ledger: the rules of an instant in plain Python, slow and obvious.

Written from docs/concepts/rules.md and docs/concepts/weights-traded.md, never from the kernel, and read beside them:
quoted text in the comments is theirs.
Everything is a float, a dict by coin or a loop in coin order.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from math import copysign, floor, inf, isnan, nan, sqrt
from statistics import stdev

import pandas as pd

from engine.coin import FeeTerms
from engine.config import RunConfig
from engine.panel import Panel
from engine.risk.characteristics import RiskParameters
from helpers.naive_risk import Naive

FLOWS = ("price_pnl_usd", "spread_usd", "impact_usd", "fee_usd", "funding_usd")
COUNTS = (
    "skipped_min_notional", "skipped_band", "untradable_orders", "delistings", "isolated_liquidations", "decisions",
)  # fmt: skip
REFERRAL_VOLUME_USD = 25_000_000.0
MAJORS, MAJORS_Q_USD, OTHERS_Q_USD = ("BTC", "ETH"), 20_000.0, 6_000.0  # the order size of the venue's impact prices


class RefusedError(Exception):
    """A row needs more initial margin than the account has; the argument is its instant."""


@dataclass(frozen=True)
class Fees:
    """The venue's rates, as fractions: `taker[row][tier]` and `maker[row][tier]`.

    A tier applies from a volume of `thresholds_usd[tier]`; they ascend from 0.0. Without tiers there is that one.
    """

    taker: list[list[float]]
    maker: list[list[float]]
    thresholds_usd: list[float]


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
    """Lists hold one value a row, after steps 1 to 4; the means and `days` are those of "What is recorded"."""

    equity: list[float]
    flows: dict[str, list[float]]
    gross: list[float]
    net: list[float]
    trades: list[NaiveTrade]
    skipped_min_notional: int
    skipped_band: int
    untradable_orders: int
    means: dict[str, float]
    daily_returns: list[float]
    days_calendar: int
    delistings: int
    isolated_liquidations: int
    liquidated_row: int | None
    decisions: int
    funding_missing_frac: float


def backtest(panel: Panel, weights: pd.DataFrame, config: RunConfig, fees: Fees) -> NaiveResult:
    """Run `weights` (decision instants x coins; NaN holds, an absent coin is 0); several tiers in `fees` are on."""
    # "at the row `delay_hours` after a decision instant; a decision whose row lies beyond the panel is left out": the
    # loop below does not come to it.
    delay = config.execution.delay_hours
    decisions = {decided + delay: row for decided, row in traded_weights(panel, weights, config).items()}
    ledger = Ledger(panel, config, fees)
    equity, gross, net = [], [], []
    flows: dict[str, list[float]] = {name: [] for name in FLOWS}
    traded: list[int] = []  # rows at which a decision was traded, from the first that asks for something
    asked = inf  # the instant of that one

    for t in range(len(panel.index)):
        ledger.flow = dict.fromkeys(FLOWS, 0.0)
        ledger.mark(t)
        ledger.isolated_margin(t)
        ledger.margin_within_hour(t)
        if t in decisions and ledger.liquidated_row is None:  # "From then on no decision is traded."
            ledger.trade(t, decisions[t])
            if any(w != 0 and not isnan(w) for w in decisions[t].values()):  # "neither 0 nor NaN"
                asked = min(asked, t - delay)
            if asked < inf:
                traded.append(t)
        ledger.funding(t)
        ledger.margin(t)
        # 5. "Record equity, the flows of the row, gross and net exposure as a fraction of equity."
        exposures = [ledger.units[coin] * ledger.price[coin] for coin in ledger.held()]
        equity.append(ledger.equity())
        gross.append(ratio(sum(abs(exposure) for exposure in exposures), equity[t]))
        net.append(ratio(sum(exposures), equity[t]))
        for name in FLOWS:
            flows[name].append(ledger.flow[name])

    # "means over the traded decisions from that one on; the last two are of the exposure recorded at the row of the
    # trade": a decision that asks for nothing while nothing is held trades nothing.
    sums = {"untradable_weight": ledger.untradable_weight, "turnover_decision": ledger.turnover}
    sums |= {"gross_mean": sum(gross[t] for t in traded), "net_mean": sum(net[t] for t in traded)}
    means = {name: ratio(total, len(traded)) for name, total in sums.items()}
    # "the sum of the same turnovers over the days of 24 hours that have begun from the row of that trade to the panel's
    # last row": an hour after 24 of them a second day has begun.
    days_begun = 1 + (len(panel.index) - 1 - traded[0]) // 24 if traded else 0
    means["turnover_daily"] = ratio(ledger.turnover, days_begun)
    # "those between consecutive `hour_utc` rows that end after the instant of that decision"
    ends = [t for t, instant in enumerate(panel.index) if instant.hour == config.execution.hour_utc]
    days = [(t, equity[t] / equity[s] - 1 if equity[s] > 0 else 0.0) for s, t in pairwise(ends)]
    daily = [value for t, value in days if t > asked]
    end = ledger.liquidated_row
    return NaiveResult(
        equity, flows, gross, net, ledger.trades, **ledger.counts, means=means, daily_returns=daily,
        days_calendar=len(days), liquidated_row=end, funding_missing_frac=ratio(ledger.unrated, ledger.held_hours),
    )  # fmt: skip


def traded_weights(panel: Panel, weights: pd.DataFrame, config: RunConfig) -> dict[int, dict[str, float]]:
    """The row of each decision -> the weight to be traded of every coin of the panel, in coin order.

    "Applied to each row of the weights, in this order, before any rule of an instant; NaN (hold) stays NaN and counts
    as 0 in sums."
    """
    execution, max_gross = config.execution, config.account.max_gross
    by_row = {}
    filled = [dict.fromkeys(panel.coins, 0.0)] * execution.tranches  # "rows before the first are 0"
    for d, t in enumerate(panel.rows(pd.DatetimeIndex(weights.index)).tolist()):
        if t < 0:
            raise ValueError(f"The decision {weights.index[d]} is not an instant of the panel.")
        row = {coin: float(weights[coin].iloc[d]) if coin in weights else 0.0 for coin in panel.coins}
        # 1. "`execution.leverage` multiplies the row."
        row = scaled(row, execution.leverage)
        # 2. "multiplies the row by `target / sigma`, at most by what brings its gross to `account.max_gross` [...] With
        # [...] `sigma = 0`, the row is left as it is."
        sigma = 0.0
        if execution.target_volatility > 0 and execution.volatility_model == "risk":
            sigma = expected_volatility(panel, row, t)
        elif execution.target_volatility > 0:
            sigma = volatility(panel, row, t, execution.volatility_days)
        if sigma > 0:
            row = scaled(row, min(execution.target_volatility / sigma, max_gross / gross_of(row)))
        # 3. "the mean of the last `k` rows [...] a NaN is first replaced by the coin's value in the row before [...]
        # With `k = 1` nothing happens."
        if execution.tranches > 1:
            filled.append({coin: filled[-1][coin] if isnan(w) else w for coin, w in row.items()})
            last = filled[-execution.tranches :]
            row = {coin: sum(tranche[coin] for tranche in last) / execution.tranches for coin in panel.coins}
        # 4. "`execution.gross_cap` (0 = off) scales a row whose gross is above it down to it."
        if 0 < execution.gross_cap < gross_of(row):
            row = scaled(row, execution.gross_cap / gross_of(row))
        if gross_of(row) > max_gross * (1 + 1e-5):
            raise ValueError(f"The weights of {weights.index[d]} exceed account.max_gross.")
        by_row[t] = row
    return by_row


def scaled(row: dict[str, float], factor: float) -> dict[str, float]:
    return {coin: w * factor for coin, w in row.items()}


def gross_of(row: dict[str, float]) -> float:
    return sum(abs(w) for w in row.values() if not isnan(w))


def volatility(panel: Panel, row: dict[str, float], t: int, days: int) -> float:
    """Annual, of the book `row` over the `days` days before row `t`, from mids as observed; 0.0 for too few days.

    And 0.0 for constant returns: "where `sum((r - mean)**2)` is at most 1e-12 of `sum(r**2)`, or their standard
    deviation at most 1e-12".
    """
    mid, returns = panel.fields["mid"], []
    for k in range(days):
        now, before = t - 24 * k, t - 24 * (k + 1)
        if before >= 0:  # "days before the panel's first row are left out"
            moves = [w * (float(mid[now, i]) / float(mid[before, i]) - 1) for i, w in enumerate(row.values())]
            # "a coin without one of the two prices adds 0", and so does a NaN weight
            returns.append(sum(move for move in moves if not isnan(move)))
    if len(returns) < max(2, days / 2):
        return 0.0
    deviation = stdev(returns)
    squares = deviation**2 * (len(returns) - 1)
    constant = squares <= 1e-12 * sum(r**2 for r in returns) or deviation <= 1e-12
    return 0.0 if constant else deviation * sqrt(365)


def expected_volatility(panel: Panel, row: dict[str, float], t: int) -> float:
    """Annual, of the book `row`, as the risk model expects it at row `t`; 0.0 where it does not know."""
    if t // 24 < RiskParameters().least_days:  # the model is known after so many days of factor returns
        return 0.0
    risk = Naive(panel, RiskParameters()).at(t)
    held = [0.0 if isnan(w) else w for w in row.values()]
    factors = range(len(risk.factor_returns))
    y = [sum(w * x[k] for w, x in zip(held, risk.exposures, strict=True) if w != 0) for k in factors]
    variance = sum(y[a] * y[b] * risk.covariance[a][b] for a in factors for b in factors)
    variance += sum(w * w * s for w, s in zip(held, risk.specific, strict=True) if w != 0)
    return 0.0 if isnan(variance) else sqrt(365 * variance)


def ratio(amount: float, whole: float) -> float:
    """Divide, also by a negative equity; 0.0 where there is nothing to divide by."""
    return amount / whole if whole != 0 else 0.0


def effect(before: float, after: float) -> str:
    if before == 0 or after == 0:
        return "open" if before == 0 else "close"
    if (before > 0) != (after > 0):
        return "flip"
    return "increase" if abs(after) > abs(before) else "reduce"


def band_of(coin: str, config: RunConfig) -> float:
    """Of "the last name or pattern in `no_trade_band_coins` that fits the coin, else `no_trade_band_frac`"."""
    dex, execution = coin.rpartition(":")[0], config.execution
    fits = [
        width
        for name, width in execution.no_trade_band_coins
        if name.rpartition(":")[0] == dex and fnmatchcase(coin, name)  # a pattern is of one dex
    ]
    return fits[-1] if fits else execution.no_trade_band_frac


class Ledger:
    """Cash and units, and the steps 1 to 4 that move them."""

    def __init__(self, panel: Panel, config: RunConfig, fees: Fees) -> None:
        self.coins, self.fees = panel.coins, fees
        self.execution, self.costs, self.account = config.execution, config.costs, config.account
        self.data = {name: values.tolist() for name, values in {**panel.fields, "tradable": panel.tradable}.items()}
        # "its UTC day, which is the day of the moment before t (row 00:00 belongs to the day before)"
        self.day = [(instant - pd.Timedelta(seconds=1)).toordinal() for instant in panel.index]
        # (from this notional on, this leverage), ascending; one tier where the leverage is the same at any size
        self.tiers = {coin.name: coin.margin_tiers for coin in panel.table if coin.margin_tiers}
        for coin in panel.table:
            if not coin.margin_tiers and coin.max_leverage is not None:
                self.tiers[coin.name] = ((0.0, coin.max_leverage),)
        # "at most the coin's highest; with 0 the coin's highest; 1 where neither is known"
        self.isolated_leverage = {}
        for coin in panel.table:
            if coin.margin_mode == "isolated" and config.account.margin:
                known = [self.tiers[coin.name][0][1]] if coin.name in self.tiers else []
                known += [config.execution.isolated_leverage] if config.execution.isolated_leverage else []
                self.isolated_leverage[coin.name] = min(known, default=1.0)
        self.fee_terms = {coin.name: coin.fee_terms for coin in panel.table}
        self.instants = list(panel.index)
        known_lots = [coin for coin in panel.table if config.execution.lots and coin.sz_decimals is not None]
        self.lots_a_unit = {coin.name: 10**coin.sz_decimals for coin in known_lots}
        self.band = {coin: band_of(coin, config) for coin in panel.coins}

        self.cash = config.account.initial_equity_usd
        self.units = dict.fromkeys(self.coins, 0.0)
        self.price = dict.fromkeys(self.coins, nan)  # "its mid there or, where that is NaN, the last mid before"
        self.own_margin: dict[str, float] = {}  # of isolated positions, and what a unit of them was bought at
        self.entry: dict[str, float] = {}
        self.rows_without_mid = dict.fromkeys(self.coins, 0)
        self.volume: dict[int, float] = {}  # the account's own, by day

        self.flow: dict[str, float] = {}  # of the row; the rest is of the run
        self.counts = dict.fromkeys(COUNTS, 0)
        self.turnover = self.untradable_weight = 0.0  # summed over decisions
        self.held_hours = self.unrated = 0  # coin-hours held, and those of them without a rate
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
        # With `renormalise` "the other weights of the row are multiplied by (wanted - stuck) / own, at least by 0 and
        # at most by 2 [...] coins with a NaN weight are in none of the three. Nothing is scaled if `own` is 0 or equity
        # is not positive."
        own = sum(abs(w) for w in tradable.values())
        if self.execution.untradable == "renormalise" and own != 0 and equity > 0:
            wanted = sum(abs(w) for w in instructed.values())
            stuck = sum(abs(self.units[coin]) * self.price[coin] for coin in untradable if self.units[coin] != 0)
            scale = min(max((wanted - stuck / equity) / own, 0.0), 2.0)
            tradable = {coin: w * scale for coin, w in tradable.items()}
        self.initial_margin(t, tradable, equity)

        for coin, weight in tradable.items():
            size, skipped = self.order_size(coin, weight, equity)
            if skipped:
                self.counts[skipped] += 1
            if size != 0:
                self.turnover += abs(size) * self.price[coin] / equity if equity > 0 else 0.0
                self.fill(t, coin, size)

    def initial_margin(self, t: int, tradable: dict[str, float], equity: float) -> None:
        """Refuse a row: "`asked > equity`, or if `after + left` is more than both `equity` and `before`"."""
        if not self.account.initial_margin or equity <= 0:
            return
        asked = after = sum(self.asked(coin, w * equity) for coin, w in tradable.items())
        if self.execution.no_trade_band == "to_edge" or self.execution.trade_rate < 1:
            # "the sum of the same coins for what the row's orders [...] leave of them"
            then = {coin: self.units[coin] + self.order_size(coin, w, equity)[0] for coin, w in tradable.items()}
            after = sum(self.asked(coin, units * self.price[coin] if units else 0.0) for coin, units in then.items())
        held = {coin: self.initial(coin, abs(self.units[coin]) * self.price[coin]) for coin in self.held()}
        # "in `left` and `before` an isolated position counts with its equity"
        held |= {coin: self.own_equity(coin) for coin in held if coin in self.isolated_leverage}
        left = sum(margin for coin, margin in held.items() if coin not in tradable)
        most = equity * (1 + 1e-5)  # "the slack of `account.max_gross`"
        if asked > most or (after + left > most and after + left > sum(held.values())):
            raise RefusedError(t)

    def asked(self, coin: str, target: float) -> float:
        """Margin for a signed notional.

        Isolated: "its equity, less what reducing it at the coin's price would return, or plus what adding to it or
        opening it would take".
        """
        if coin not in self.isolated_leverage:
            return self.initial(coin, abs(target))
        before = self.units[coin] * self.price[coin] if self.units[coin] != 0 else 0.0
        rate = self.isolated_rate(coin, abs(target))
        if before * target <= 0:
            return rate * abs(target)
        if abs(target) <= abs(before):
            return self.own_equity(coin) * target / before
        return self.own_equity(coin) + rate * (abs(target) - abs(before))

    def isolated_rate(self, coin: str, notional: float) -> float:
        """That of "`rate(n) = max(1 / L, initial / n)`"."""
        return max(1 / self.isolated_leverage[coin], self.initial(coin, notional) / notional if notional else 0.0)

    def own_equity(self, coin: str) -> float:
        """Equity of an isolated position: "`margin + units * (price - entry)`"."""
        return self.own_margin[coin] + self.units[coin] * (self.price[coin] - self.entry[coin])

    def initial(self, coin: str, notional: float) -> float:
        """Notional over "the leverage of the highest tier whose floor is under `notional`"."""
        leverages = [leverage for floor, leverage in self.tiers.get(coin, ()) if floor < notional]
        return notional / leverages[-1] if leverages else 0.0

    def order_size(self, coin: str, weight: float, equity: float) -> tuple[float, str]:
        """Signed units to trade, 0.0 for no order, and the counter of what is skipped.

        A tradable coin has a mid, so its price is that mid.
        """
        units, mid, rate = self.units[coin], self.price[coin], self.execution.trade_rate
        band, to_edge = self.band[coin], self.execution.no_trade_band == "to_edge"
        if weight == 0:
            return self.close_size(coin, equity), ""
        target = weight * equity / mid
        way = target - units
        # "only closes are sent"; "A way of at most 1e-12 of the target is no order, in no counter"
        if equity <= 0 or abs(way) <= 1e-12 * abs(target):
            return 0.0, ""
        # "`way` is first shortened by `band * equity / mid` [...]; a coin with at most 1e-9 of equity left to go is
        # inside the band, has no order and counts in `skipped_band`"
        length = abs(way)
        if to_edge and band > 0:
            length -= band * equity / mid
            if length * mid <= 1e-9 * equity:
                return 0.0, "skipped_band"
        # "`order = trade_rate * way`; where that ends within 1e-9 of equity of 0 units it ends at 0." "The two 1e-9
        # hold with `"to_edge"` and a `band` above 0, or a `trade_rate` below 1, alone."
        size = rate * length
        if (to_edge and band > 0) or rate < 1:
            if abs(units + copysign(size, way)) * mid <= 1e-9 * equity:
                size = abs(units)
        # "With `notional = abs(size) * mid * (1 + 1e-12)`, [...] an order that is 0 by now, or with `notional <
        # min_notional_usd`, counts in `skipped_min_notional`; else, with `no_trade_band = "skip"`, one with `notional <
        # trade_rate * band * equity` counts in `skipped_band`."
        size = self.cut(coin, size)
        notional = size * mid * (1 + 1e-12)
        if size == 0 or notional < self.execution.min_notional_usd:
            return 0.0, "skipped_min_notional"
        if not to_edge and notional < rate * band * equity:
            return 0.0, "skipped_band"
        return copysign(size, way), ""

    def close_size(self, coin: str, equity: float) -> float:
        """With weight 0: "-units, never cut, never skipped", or with `trade_rate` below 1 a part.

        "`trade_rate * abs(units)` cut to lots, but all of `-units` where that part or what it leaves is 0, or worth
        less [...] than `min_notional_usd` or 1e-9 of equity"; with equity <= 0 "all of them whole".
        """
        units, mid = self.units[coin], self.price[coin]
        if units == 0 or self.execution.trade_rate == 1 or equity <= 0:
            return -units
        part = self.cut(coin, self.execution.trade_rate * abs(units))
        smallest = max(self.execution.min_notional_usd, 1e-9 * equity)
        for piece in (part, abs(units) - part):
            if piece == 0 or piece * mid * (1 + 1e-12) < smallest:
                return -units
        return -copysign(part, units)

    def cut(self, coin: str, size: float) -> float:
        """Whole lots: "the size is cut to floor(abs(order) * 10**szDecimals * (1 + 1e-12)) lots"."""
        if coin not in self.lots_a_unit:
            return size
        return floor(size * self.lots_a_unit[coin] * (1 + 1e-12)) / self.lots_a_unit[coin]

    def fill(self, t: int, coin: str, size: float, reason: str | None = None, within: bool = False) -> None:
        price, bid, ask = self.price[coin], self.at("bid", t, coin), self.at("ask", t, coin)
        if within:  # "closed at those prices with the half spread and `impact_bps`"
            bid = ask = nan
        sign = 1.0 if size > 0 else -1.0
        # "Buys at `ask`, sells at `bid` when the row has both; else at mid * (1 +/- half_spread_bps / 1e4)"; in a
        # liquidation "around the coin's price where the row has no mid", and where it has one that is the price.
        market = ask if size > 0 else bid
        if isnan(bid) or isnan(ask):
            market = price * (1 + sign * self.costs.half_spread_bps / 1e4)
        fill = self.stressed(market, price, sign)
        # "Spread cost = size * (fill - mid), size signed: negative where the fill is better than mid." "The fill moves
        # by e * mid against the order; impact cost = abs(size) * e * mid, the fee is on the moved fill, and the spread
        # cost is what it was." "Fee = rate * abs(size) * fill."
        spread, move = size * (fill - price), self.impact(t, coin, size, market, within) * price
        move = min(move, fill) if size < 0 else move  # "never by so much that a sale's fill is below 0"
        impact = abs(size) * move
        fill += sign * move
        notional = abs(size) * fill
        fee = self.fee_rate(t, coin) * notional
        if reason == "liquidation" and coin in self.isolated_leverage:
            # "where fill and fee would leave less than 0, it is closed at the price at which its equity is 0, without
            # fee or impact; where its equity is below 0 at the coin's price already, the price profit of the row ends
            # at that price"
            if self.own_equity(coin) + size * (price - fill) - fee < 0:
                fill = self.entry[coin] - self.own_margin[coin] / self.units[coin]
                if self.own_equity(coin) < 0:
                    self.flow["price_pnl_usd"] += self.units[coin] * (fill - price)
                    price = fill
                spread, impact, fee, notional = size * (fill - price), 0.0, 0.0, abs(size) * fill
        self.cash -= size * fill + fee
        self.flow["spread_usd"] += spread
        self.flow["impact_usd"] += impact
        self.flow["fee_usd"] += fee
        # "liquidations included"; "in growth mode a tenth of the fills counts as volume"
        self.volume[self.day[t]] = self.volume.get(self.day[t], 0.0) + notional * self.growth(t, coin)
        # "after the fill the position is rounded to a whole number of lots" (a close leaves exactly 0 as it is)
        before, after = self.units[coin], self.units[coin] + size
        if coin in self.lots_a_unit:
            after = round(after * self.lots_a_unit[coin]) / self.lots_a_unit[coin]
        if coin in self.isolated_leverage:
            self.move_margin(coin, before, after, fill)
        self.units[coin], reason = after, reason or effect(before, after)
        self.trades.append(NaiveTrade(t, coin, size, fill, notional, fee, spread, impact, reason))

    def move_margin(self, coin: str, before: float, after: float, fill: float) -> None:
        """Margin and entry of an isolated position whose units a fill takes from `before` to `after`."""
        if before * after > 0 and abs(after) <= abs(before):  # "returns margin pro rata"
            self.own_margin[coin] *= after / before
            return
        if before * after <= 0:  # "A flip closes and opens."
            before, self.own_margin[coin], self.entry[coin] = 0.0, 0.0, 0.0
        if after != 0:  # "`rate * abs(size) * fill`, with the rate of all its units at that fill"
            self.own_margin[coin] += self.isolated_rate(coin, abs(after) * fill) * abs(after - before) * fill
            self.entry[coin] = (before * self.entry[coin] + (after - before) * fill) / after

    def impact(self, t: int, coin: str, size: float, fill: float, within: bool) -> float:
        """The fraction `e` of the price by which a fill moves against the order."""
        if self.costs.impact == "none":
            return 0.0
        # "e0 = max(impact_ask - buy fill, 0) / mid for a buy, max(sell fill - impact_bid, 0) / mid for a sell [...]
        # where the row has no impact price, impact_bps / 1e4": the price of the order's own side.
        beyond = self.at("impact_ask", t, coin) - fill if size > 0 else fill - self.at("impact_bid", t, coin)
        e0 = self.costs.impact_bps / 1e4 if isnan(beyond) or within else max(beyond, 0.0) / self.price[coin]
        # "With n = abs(size) * mid: e = e0 * n / Q up to n = Q, e0 * sqrt(n / Q) beyond, at most 1/2."
        n, q = abs(size) * self.price[coin], MAJORS_Q_USD if coin in MAJORS else OTHERS_Q_USD
        # "Impact: `e0` times stress", of the unstressed market.
        return min(e0 * self.costs.stress * (n / q if n <= q else sqrt(n / q)), 0.5)

    def stressed(self, fill: float, price: float, sign: float) -> float:
        """The fill under `costs.stress`: "its distance from the coin's price on the costly side times stress"."""
        distance = sign * (fill - price) / price
        if distance <= 0:  # "a quote on the better side is left as it is"
            return fill
        # "at most half the price, or what it was where that is more"
        return price * (1 + sign * min(distance * self.costs.stress, max(0.5, distance)))

    def fee_rate(self, t: int, coin: str) -> float:
        """What a fill of row `t` pays, as a fraction of its notional. No fill of its own day matters to it."""
        today, costs = self.day[t], self.costs
        # "the highest whose threshold the account's own volume reached: sum(abs(size) * fill) over the 14 UTC days
        # before that day"
        volume = sum(self.volume.get(today - days, 0.0) for days in range(1, 15))
        tier = max(k for k, threshold in enumerate(self.fees.thresholds_usd) if volume >= threshold)
        taker, maker = self.fees.taker[t][tier], self.fees.maker[t][tier]
        rate = (1 - costs.maker_share_frac) * taker + costs.maker_share_frac * maker
        if rate < 0:  # "Discounts do not enlarge a rebate (a negative rate)."
            return rate * self.growth(t, coin)  # "a rebate by `g` alone"
        scale = terms.scale if (terms := self.terms(t, coin)) else 0.0
        rate *= (1 + scale if scale < 1 else 2 * scale) * self.growth(t, coin)
        # "times `1 - referral_discount_frac` while the account's volume of all days before the trade's is under
        # 25,000,000 USD"
        referred = sum(usd for day, usd in self.volume.items() if day < today) < REFERRAL_VOLUME_USD
        rate *= costs.stress  # "a fee rate times stress, a rebate as it is"
        return rate * (1 - costs.staking_discount_frac) * (1 - costs.referral_discount_frac if referred else 1.0)

    def terms(self, t: int, coin: str) -> FeeTerms | None:
        """In force: "the last that was seen at its instant or before [...], the first [...] for all rows before it"."""
        known = self.fee_terms[coin]
        seen = [terms for terms in known if terms.seen is None or terms.seen <= self.instants[t]]
        return (seen[-1] if seen else known[0]) if known else None

    def growth(self, t: int, coin: str) -> float:
        """Growth mode: "`g` is 0.1 in growth mode, else 1"."""
        terms = self.terms(t, coin)
        return 0.1 if terms and terms.growth else 1.0

    # 3. Funding
    def funding(self, t: int) -> None:
        for coin in self.held():
            rate = self.at("funding", t, coin)
            self.held_hours += 1
            if self.costs.funding and isnan(rate):  # "0 [...] with `costs.funding = false`, which asks for no rate"
                self.unrated += 1
                rate = self.mean_rate(coin) if self.costs.funding_missing == "mean" else nan
            # "whose `funding` is not NaN [...], with p the row's `oracle`, else its `mark`, else the coin's price"
            if self.costs.funding and not isnan(rate):
                candidates = (self.at("oracle", t, coin), self.at("mark", t, coin), self.price[coin])
                paid = self.units[coin] * next(p for p in candidates if not isnan(p)) * rate
                self.cash -= paid
                self.flow["funding_usd"] += paid
                if coin in self.isolated_leverage:
                    self.own_margin[coin] -= paid  # "funding is paid from `margin`, and received into it"

    def mean_rate(self, coin: str) -> float:
        """For NaN: "the mean of all rates that the panel has of the coin, or of all coins where it has none"."""
        rows = self.data.get("funding", [])
        own = [rate for row in rows if not isnan(rate := row[self.coins.index(coin)])]
        rates = own or [rate for row in rows for rate in row if not isnan(rate)]
        return sum(rates) / len(rates) if rates else nan

    # 4. Margin
    def margin(self, t: int) -> None:
        # "equity <= 0 or equity < sum(maintenance) closes every position": "at bid/ask as above [...], with fee, spread
        # and impact, tradable or not"
        if self.account.margin and self.held() and self.called():
            for coin in self.held():
                self.fill(t, coin, -self.units[coin], "liquidation")
            self.liquidated_row = t

    def called(self) -> bool:
        """Whether the account's margin is gone.

        Isolated: "`equity` less the equity of isolated positions against the sum of the others' maintenance, where
        there is another position. Where it is gone, or the account's whole equity is not positive, every position is
        closed".
        """
        others = [coin for coin in self.held() if coin not in self.isolated_leverage]
        free = self.equity() - sum(self.own_equity(coin) for coin in self.held() if coin in self.isolated_leverage)
        needed = sum(self.maintenance(coin) for coin in others)
        return self.equity() <= 0 or (bool(others) and (free <= 0 or free < needed))

    def isolated_margin(self, t: int) -> None:
        """The test of step 1: "equity of the position <= 0 or < maintenance of it closes it"."""
        within = self.account.margin_prices == "extreme"
        for coin in self.held():
            if coin in self.isolated_leverage:
                now = self.price[coin]
                self.price[coin] = self.worst(t, coin) if within else now
                if self.own_equity(coin) <= 0 or self.own_equity(coin) < self.maintenance(coin):
                    self.flow["price_pnl_usd"] += self.units[coin] * (self.price[coin] - now)
                    self.fill(t, coin, -self.units[coin], "liquidation", within=within)
                    self.counts["isolated_liquidations"] += 1
                self.price[coin] = now

    def worst(self, t: int, coin: str) -> float:
        """Worst price: "the lower of `low` and price for a long, the higher of `high` and price for a short"."""
        now, low, high = self.price[coin], self.at("low", t, coin), self.at("high", t, coin)
        if self.units[coin] > 0:
            return now if isnan(low) else min(low, now)
        return now if isnan(high) else max(high, now)

    def margin_within_hour(self, t: int) -> None:
        """Step 4 of what was held through the hour that ends at `t`, "as if every coin stood at its worst price"."""
        if not self.account.margin or self.account.margin_prices == "close" or not self.held():
            return
        now = dict(self.price)
        for coin in self.held():
            self.price[coin] = self.worst(t, coin)
        if self.called():
            for coin in self.held():
                self.flow["price_pnl_usd"] += self.units[coin] * (self.price[coin] - now[coin])
                self.fill(t, coin, -self.units[coin], "liquidation", within=True)
            self.liquidated_row = t
        self.price = now

    def maintenance(self, coin: str) -> float:
        """Of each tier, the part of the notional inside it "over twice the tier's leverage"; 0 where none is known."""
        notional, needed = abs(self.units[coin]) * self.price[coin], 0.0
        tiers = self.tiers.get(coin, ())
        ends = [start for start, _ in tiers[1:]] + [inf]
        for (start, leverage), end in zip(tiers, ends, strict=False):
            needed += max(min(notional, end) - start, 0.0) / (2 * leverage)
        return needed
