"""Oracles to audit, and the outcome of an audit as a dict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from engine import Oracle, Panel
from engine.lookahead.audit import Audit
from engine.panel import Coin
from helpers.panels import random_panel


def statuses(result: Audit) -> dict[str, str]:
    """Name of each check -> ``pass``, ``fail`` or ``skipped``."""
    return {check["name"]: check["status"] for check in result.to_dict()["checks"]}


class Planted(Oracle):
    """Weights in proportion to a score; a subclass says what it reads."""

    def score(self, panel: Panel, rows: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        score = np.nan_to_num(self.score(panel, panel.rows(decisions)))
        gross = np.maximum(np.abs(score).sum(axis=1, keepdims=True), 1e-300)
        return pd.DataFrame(score / gross, index=decisions, columns=list(panel.coins))


def change(panel: Panel, hours: int = 24) -> np.ndarray:
    mid = panel.values("mid")
    returns = np.full_like(mid, np.nan)
    returns[hours:] = mid[hours:] / mid[:-hours] - 1.0
    return returns


class Honest(Planted):
    def score(self, panel: Panel, rows: np.ndarray) -> np.ndarray:
        return change(panel)[rows]


def market(coins: int, days: int = 12) -> Panel:
    """A random market whose coins differ in lots and leverage."""
    made = random_panel(11, 24 * days, coins)
    return replace(
        made, table=tuple(Coin(coin, None, None, n % 6, 5.0 * (1 + n % 9)) for n, coin in enumerate(made.coins))
    )
