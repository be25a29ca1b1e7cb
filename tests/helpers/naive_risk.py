"""The risk model written from docs/concepts/risk-model.md in loops over floats: slow, and of no code of the engine."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import exp, isnan, log, nan, sqrt
from statistics import median

import numpy as np

from engine.panel import Panel
from engine.risk.characteristics import RiskParameters


@dataclass
class NaiveRisk:
    """Of one row: exposures (N, K), factor returns (K,), F (K, K), s (N,)."""

    exposures: list[list[float]]
    factor_returns: list[float]
    covariance: list[list[float]]
    specific: list[float]


class Naive:
    """The model at rows of a panel as known."""

    def __init__(self, panel: Panel, own: RiskParameters) -> None:
        self.panel, self.own = panel.point_in_time(), own
        self.coins = range(len(panel.coins))
        self.mid = self.panel.fields["mid"].tolist()
        dexes = [coin.dex for coin in panel.table]
        self.dexes = list(dict.fromkeys(dexes))
        self.dex = dexes
        self.tradable = self.panel.tradable.tolist()

    def cell(self, name: str, t: int, i: int) -> float:
        return float(self.panel.fields[name][t, i]) if name in self.panel.fields else nan

    def move(self, t: int, i: int) -> float:
        return self.mid[t][i] / self.mid[t - 1][i] - 1 if t >= 1 else nan

    def market(self, t: int, dex: str) -> float:
        if not dex and "BTC" in self.panel.coins:
            return self.move(t, self.panel.coins.index("BTC"))
        known = [self.move(t, i) for i in self.coins if self.dex[i] == dex and not isnan(self.move(t, i))]
        return sum(known) / len(known) if known else nan

    def mean(self, values: list[float], hours: int) -> float:
        known = [value for value in values if not isnan(value)]
        return sum(known) / len(known) if known and len(known) >= hours / 2 else nan

    def characteristics(self, t: int) -> list[list[float]]:
        own, rows = self.own, []

        def last(hours: int) -> range:
            return range(max(0, t - hours + 1), t + 1)

        markets = {dex: {s: self.market(s, dex) for s in last(own.beta_hours)} for dex in self.dexes}
        for i in self.coins:
            pairs = [(markets[self.dex[i]][s], self.move(s, i)) for s in last(own.beta_hours)]
            pairs = [(x, y) for x, y in pairs if not isnan(x) and not isnan(y)]
            beta = nan
            if len(pairs) >= max(2, own.beta_hours / 2):
                mx, my = sum(x for x, _ in pairs) / len(pairs), sum(y for _, y in pairs) / len(pairs)
                variance = sum((x - mx) ** 2 for x, _ in pairs)
                if variance > 1e-12 * sum(x * x for x, _ in pairs):
                    beta = sum((x - mx) * (y - my) for x, y in pairs) / variance
            volumes = []
            for s in last(own.size_hours):
                hour = 24 * self.cell("volume_usd", s, i)
                volumes.append(self.cell("volume_24h_usd", s, i) if isnan(hour) else hour)
            size = self.mean(volumes, own.size_hours)
            before = self.mid[t - own.momentum_hours][i] if t >= own.momentum_hours else nan
            carry = self.mean([self.cell("funding", s, i) for s in last(own.carry_hours)], own.carry_hours)
            square = self.mean([self.move(s, i) ** 2 for s in last(own.volatility_hours)], own.volatility_hours)
            momentum = log(self.mid[t][i] / before) if not isnan(self.mid[t][i] / before) else nan
            rows.append([beta, log(size) if size > 0 else nan, momentum, -carry,
                         log(sqrt(square)) if square > 0 else nan])  # fmt: skip
        return rows

    def statistics(self, values: dict[int, float]) -> tuple[float, float]:
        known = [value for value in values.values() if not isnan(value)]
        if not known:
            return nan, nan
        mean = sum(known) / len(known)
        return mean, sqrt(sum((value - mean) ** 2 for value in known) / len(known))

    def score(self, value: float, mean: float, deviation: float) -> float:
        if isnan(value) or isnan(mean) or deviation <= 1e-12 * abs(mean):
            return 0.0
        return min(max((value - mean) / deviation, -self.own.clip), self.own.clip)

    def exposures(self, t: int, measured: list[list[float]]) -> list[list[float]]:
        made: list[list[float]] = [[] for _ in self.coins]
        trades = [i for i in self.coins if self.tradable[t][i]]
        for dex in self.dexes:
            mean, deviation = self.statistics({i: measured[i][0] for i in trades if self.dex[i] == dex})
            for i in self.coins:
                beta = mean + deviation * self.score(measured[i][0], mean, deviation)
                made[i].append(beta if self.dex[i] == dex else 0.0)
        for k in range(1, 5):
            mean, deviation = self.statistics({i: measured[i][k] for i in trades})
            for i in self.coins:
                made[i].append(self.score(measured[i][k], mean, deviation))
        return made

    def at(self, t: int) -> NaiveRisk:
        own, factors = self.own, len(self.dexes) + 4
        days = list(range(t % 24, t + 1, 24))
        returns: list[list[float]] = []  # of the days that have some, oldest first
        rest: list[list[float]] = []
        latest = [nan] * factors
        measured = self.characteristics(days[0])
        exposures = self.exposures(days[0], measured)
        for before, day in pairwise(days):
            r = [self.mid[day][i] / self.mid[before][i] - 1 - sum(self.rate(s, i) for s in range(day - 23, day + 1))
                 for i in self.coins]  # fmt: skip
            usable = [i for i in self.coins if self.tradable[before][i] and not isnan(r[i] + sum(exposures[i]))]
            fitted = [i for i in usable if not isnan(measured[i][0])]
            latest = [nan] * factors
            if len(fitted) >= own.least_coins:
                mean, _ = self.statistics({i: measured[i][1] for i in self.coins if self.tradable[before][i]})
                roots = [exp((mean if isnan(measured[i][1]) else measured[i][1]) / 4) if not isnan(mean) else 1.0
                         for i in fitted]  # fmt: skip
                used = [k for k in range(factors) if any(exposures[i][k] != 0 for i in fitted)]
                design = np.array([[exposures[i][k] * root for k in used]
                                   for i, root in zip(fitted, roots, strict=True)])  # fmt: skip
                target = np.array([r[i] * root for i, root in zip(fitted, roots, strict=True)])
                solved = np.linalg.pinv(design, rcond=1e-12) @ target
                for k, value in zip(used, solved.tolist(), strict=True):
                    latest[k] = value
                returns.append(latest)
                rest.append([
                    r[i] - sum(exposures[i][k] * latest[k] for k in used) if i in usable else nan for i in self.coins
                ])  # fmt: skip
            measured = self.characteristics(day)
            exposures = self.exposures(day, measured)
        if len(returns) < own.least_days:
            return NaiveRisk(exposures, latest, [[nan] * factors] * factors, [nan] * len(self.coins))
        keep, own_keep = 0.5 ** (1 / own.factor_half_life_days), 0.5 ** (1 / own.specific_half_life_days)
        weights = [sum(keep**k for k, f in enumerate(reversed(returns)) if not isnan(f[a])) for a in range(factors)]
        covariance = [[0.0] * factors for _ in range(factors)]
        for a in range(factors):
            for b in range(factors):
                products = [keep**k * f[a] * f[b] for k, f in enumerate(reversed(returns)) if not isnan(f[a] * f[b])]
                if products:
                    covariance[a][b] = sum(products) / sqrt(weights[a] * weights[b])
        squares = []
        for i in self.coins:
            seen = [(own_keep**k, u[i]) for k, u in enumerate(reversed(rest)) if not isnan(u[i])]
            squares.append(sum(w * u**2 for w, u in seen) / sum(w for w, _ in seen) if seen else nan)
        have = [i for i in self.coins if not isnan(squares[i])]
        middle = median(squares[i] for i in ([i for i in have if self.tradable[t][i]] or have))
        specific = [middle if isnan(v) else (1 - own.shrinkage) * v + own.shrinkage * middle for v in squares]
        return NaiveRisk(exposures, latest, covariance, specific)

    def rate(self, t: int, i: int) -> float:
        rate = self.cell("funding", t, i)
        return 0.0 if isnan(rate) else rate
