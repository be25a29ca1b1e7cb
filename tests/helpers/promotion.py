"""A folder with an oracle, a cache and a finished sweep of a planted edge, for tests of promotion."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from engine import Panel, RunConfig, load_panel, sweep
from engine.data.cache import Store
from engine.data.coin_table import CoinMeta
from engine.lookahead.audit import Audit, Step, audit
from engine.promotion import gates
from engine.promotion.candidate import Candidate, read_candidate
from helpers.studies import market

#: Folder, cache, panel.
World = tuple[Path, Path, Panel]
#: Sees the next hour where `peek` says so; the rest is momentum over `hours`, of `n` coins a side.
ORACLE = """
import numpy as np
import pandas as pd
from engine import Oracle


class Trend(Oracle):
    def __init__(self, hours=120, n=2, gross=1.0, peek=0, weak=False):
        self.hours, self.n, self.gross, self.peek, self.weak = hours, n, gross, peek, weak

    def weight_matrix(self, panel, decisions):
        mid = panel.values("mid")
        weights = np.zeros((len(decisions), len(panel.coins)))
        for number, row in enumerate(panel.rows(decisions)):
            if row >= self.hours:
                last = min(row + self.peek, len(mid) - 1)
                score = np.where(panel.tradable[row], mid[last] / mid[row - self.hours], np.nan)
                order = np.argsort(score)[: np.isfinite(score).sum()]
                if len(order) >= 2 * self.n:
                    weights[number, order[-self.n :]] = 0.5 * self.gross / self.n
                    weights[number, order[: self.n]] = -0.5 * self.gross / self.n
        return pd.DataFrame(weights, index=decisions, columns=list(panel.coins))
"""
GRID = {"hours": [48, 120, 240], "n": [1, 2, 3, 4]}


def write_cache(panel: Panel, folder: Path) -> Path:
    """A cache, marked as synthetic, that gives this panel."""
    hours, coins = panel.values("mid").shape
    table = {
        "time": pa.array(np.tile(panel.index.asi8, coins)).cast(pa.timestamp("ms", tz="UTC")),
        "coin": pa.array(np.repeat(panel.coins, hours)),
        **{name: pa.array(panel.values(name).T.ravel()) for name in panel.fields},
    }
    metas = [CoinMeta(coin.name, coin.sz_decimals, coin.max_leverage, False, "cross") for coin in panel.table]
    Store(folder).merge([pa.table(table)], "synthetic", meta=metas)
    return folder


def build(home: Path) -> World:
    """Make the folder."""
    cache = write_cache(market(2, 260, 12, 0.0002, quotes=True), home / "cache")
    (home / "trend.py").write_text(ORACLE, encoding="utf-8")
    panel = load_panel(cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(sys, "argv", ["hlbt"])
        study = sweep(panel, "trend.py:Trend", GRID, RunConfig(), name="grid", reports="reports", created="2026-01-01")
        assert study["sharpe"].max() > 2.0
    return home, cache, panel


def entered(world: World, tmp_path: Path, patch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder that a test may break, as the current folder."""
    shutil.copytree(world[0], tmp_path / "home", ignore=shutil.ignore_patterns("cache"))
    patch.chdir(tmp_path / "home")
    patch.setattr(gates, "audit", audit_once)
    patch.setenv("HLBT_DATA_CACHE", str(world[1]))
    return tmp_path / "home"


#: Audits that were made in this process, by all that they depend on.
_AUDITS: dict[tuple[str, ...], Audit] = {}


def audit_once(
    oracle: str, panel: Panel, decisions: pd.DatetimeIndex, config: RunConfig, *, parameters: dict[str, Any], step: Step
) -> Audit:
    """The audit of the gates; a second one of the same code, parameters, data and config is the first again.

    Most commands of these tests are about another gate, and each audit starts two processes.
    """
    code = Path(oracle.partition(":")[0]).read_text(encoding="utf-8")
    key = (code, oracle, json.dumps(parameters, sort_keys=True), panel.digest, config.digest)
    if key not in _AUDITS:
        _AUDITS[key] = audit(oracle, panel, decisions, config, parameters=parameters, step=step)
    return _AUDITS[key]


def winner_of(world: World) -> Candidate:
    """The winner of the sweep, as if it were a run of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world[0])
        return replace(read_candidate(Path("reports/grid")), reports=world[0] / "reports", sweep=None)
