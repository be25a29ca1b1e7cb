"""Oracles to audit, and the outcome of an audit as a dict."""

from __future__ import annotations

import numpy as np
import pandas as pd

from engine import Oracle, Panel
from engine.lookahead.audit import Audit


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
