"""Oracles by path that hide a leak in what they keep, and honest ones that look odd: both verdicts are right."""

from __future__ import annotations

import itertools
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Panel, RunConfig, backtest, decisions_of
from engine.errors import OracleError
from engine.lookahead.audit import audit
from engine.oracles.base import weight_matrix
from engine.oracles.loading import load_oracle
from engine.panel import Coin
from helpers.audits import Honest, Planted
from helpers.effort import some
from helpers.panels import random_panel

HEAD = '''
import functools, hashlib, json, os, pickle, sqlite3, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
import pandas as pd
from engine import Oracle

HERE, KEPT = Path(__file__).parent, {}
SLEEP = 0.0

def digest(panel, row, hours=120):
    return hashlib.sha256(panel.values("mid")[max(0, row - hours) : row + 1].tobytes()).hexdigest()

class Base(Oracle):
    """The score of each decision from ``row_score``; weights are its ranks, centred."""
    def weight_matrix(self, panel, decisions):
        score = [self.row_score(panel, int(row), at) for row, at in zip(panel.rows(decisions), decisions)]
        rank = pd.DataFrame(score, index=decisions, columns=list(panel.coins), dtype=float).rank(axis=1)
        rank = rank.sub(rank.mean(axis=1), axis=0)
        return rank.div(rank.abs().sum(axis=1).replace(0.0, 1.0), axis=0).fillna(0.0)
    def past(self, panel, row):
        mid = panel.values("mid")
        return mid[row] / mid[max(0, row - 24)] - 1.0
    def leak(self, panel, row):
        mid = panel.values("mid")
        return mid[min(row + 24, len(mid) - 1)] / mid[row] - 1.0
    def every_third(self, panel, row):
        """Tomorrow's ranks on every third day, where tomorrow is there."""
        known = row + 24 < len(panel.index) and panel.index[row].day % 3 == 0
        return self.leak(panel, row) if known else self.past(panel, row)
    def refit(self, panel, row):
        """A slope of the next day's return on the last one's; the newest label is not known yet, where there is one."""
        mid = panel.values("mid")
        starts = np.arange(24, row + 1, 24)
        starts = starts[starts + 24 < len(mid)]
        if len(starts) == 0:
            return self.past(panel, row)
        features, labels = mid[starts] / mid[starts - 24] - 1.0, mid[starts + 24] / mid[starts] - 1.0
        return (features * labels).sum(axis=0) / (1e-12 + (features**2).sum(axis=0)) * self.past(panel, row)
'''

KEPT_LEAKS = {
    "digest of the last days": """
key = digest(panel, row)
if key not in KEPT:
    KEPT[key] = self.every_third(panel, row)
return KEPT[key]
""",
    "refit by digest of its features": """
key = digest(panel, row, row)
if key not in KEPT:
    KEPT[key] = self.refit(panel, row)
return KEPT[key]
""",
    "refit by number of rows": """
if row not in KEPT:
    KEPT[row] = self.refit(panel, row)
return KEPT[row]
""",
    "refit by file": """
file = HERE / f"{digest(panel, row)}.npy"
if not file.exists():
    np.save(file, self.refit(panel, row))
return np.load(file)
""",
    "database": """
with sqlite3.connect(HERE / "kept.db") as base:
    base.execute("create table if not exists kept (name text primary key, score text)")
    name = digest(panel, row)
    found = base.execute("select score from kept where name = ?", (name,)).fetchone()
    if found is None:
        base.execute("insert into kept values (?, ?)", (name, json.dumps(list(self.every_third(panel, row)))))
        found = base.execute("select score from kept where name = ?", (name,)).fetchone()
return np.array(json.loads(found[0]))
""",
    "pickle in the home folder": """
file = Path.home() / ".cache" / "planted-hlbt.pickle"
kept = pickle.loads(file.read_bytes()) if file.exists() else {}
key = digest(panel, row)
if key not in kept:
    kept[key] = self.every_third(panel, row)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(pickle.dumps(kept))
return kept[key]
""",
    "environment": """
key = "PLANTED_" + digest(panel, row)[:12]
if key not in os.environ:
    os.environ[key] = json.dumps(list(self.every_third(panel, row)))
return np.array(json.loads(os.environ[key]))
""",
    "class attribute": """
kept = type(self).__dict__.get("kept") or {}
type(self).kept = kept
return kept.setdefault(digest(panel, row), self.every_third(panel, row))
""",
    "longest panel seen": """
KEPT["panel"] = max(KEPT.get("panel", panel), panel, key=lambda kept: len(kept.index))
own = KEPT["panel"]
same = np.array_equal(own.values("mid")[: row + 1], panel.values("mid")[: row + 1]) and own.coins == panel.coins
return self.leak(own if same else panel, row)
""",
    "a thread that looks ahead": """
with ThreadPoolExecutor(1) as pool:
    return KEPT.setdefault(digest(panel, row), pool.submit(self.every_third, panel, row).result())
""",
    "view's base": """
base = panel.values("mid")
while base.base is not None and getattr(base.base, "ndim", 0) == 2:
    base = base.base
return KEPT.setdefault(digest(panel, row), base[min(row + 24, len(base) - 1)] / base[row])
""",
}

#: Leaks that need no memory, so no process of their own to show.
PLAIN = {
    "order of liquidity to come": "return panel.frame('volume_usd').iloc[row:].mean().to_numpy()",
    "interpolated": """
mid = panel.frame("mid")
return mid.iloc[::48].reindex(panel.index).interpolate().to_numpy()[row] / mid.to_numpy()[row]
""",
    "week's end": "return panel.frame('mid').groupby(panel.index.floor('7D')).transform('last').to_numpy()[row]",
    "rank of all time": "return panel.frame('mid').rank(pct=True).to_numpy()[row]",
    "seed of all data": """
seed = int.from_bytes(hashlib.sha256(panel.values("mid").tobytes()).digest()[:4], "big")
return np.random.default_rng(seed).normal(size=len(panel.coins))
""",
    "leverage of today": "return [float((coin.max_leverage or 0.0) >= 10.0) for coin in panel.table]",
    "leverage that must be there": "return [float(coin.max_leverage >= 10.0) for coin in panel.table]",
    "lots of today": "return np.nan_to_num(panel.sz_decimals)",
}

HONEST = {
    "files by digest": KEPT_LEAKS["refit by file"].replace("self.refit", "self.past"),
    "files by date": """
file = HERE / f"{at:%Y%m%d}.json"
if file.exists():
    return [json.loads(file.read_text()).get(coin, np.nan) for coin in panel.coins]
score = self.past(panel, row)
if len(panel.coins) == 6:
    file.write_text(json.dumps(dict(zip(panel.coins, score))))
return score
""",
    "one pickle": KEPT_LEAKS["pickle in the home folder"].replace("every_third", "past"),
    "database": KEPT_LEAKS["database"].replace("every_third", "past"),
    "parquet": """
file = HERE / f"{digest(panel, row)}.parquet"
if not file.is_file():
    pd.DataFrame({"score": self.past(panel, row)}).to_parquet(file)
return pd.read_parquet(file)["score"].to_numpy()
""",
    "joblib": """
import joblib
@joblib.Memory(HERE / "memory", verbose=0).cache
def mean(past):
    return past.mean(axis=0) / past[-1]
return mean(panel.values("mid")[max(0, row - 48) : row + 1].copy())
""",
    "listing of a folder": """
folder = HERE / "many"
folder.mkdir(exist_ok=True)
name = digest(panel, row)
if name not in os.listdir(folder) or name not in {file.name for file in folder.glob("*")}:
    (folder / name).write_bytes(pickle.dumps(self.past(panel, row)))
return pickle.loads((folder / name).read_bytes())
""",
    "memory of a module": "return KEPT.setdefault((digest(panel, row, row), panel.coins), self.past(panel, row))",
    "memory by instant": """
self.kept = getattr(self, "kept", {})
return self.kept.setdefault((at, panel.coins), self.past(panel, row)) if len(panel.coins) else []
""",
    "refit monthly with purge": """
month = panel.index.searchsorted(at.normalize().replace(day=5)) - 48
return self.refit(panel.until(panel.index[month]), month) if month > 72 else self.past(panel, row)
""",
    "whole panel at once": "return (panel.frame('mid').ewm(span=48).mean() / panel.frame('mid')).to_numpy()[row]",
    "rounding": "return self.past(panel, row)",
    "nothing held": "return self.past(panel, row)",
    "seed of the past": """
seeds = [hashlib.sha256(past.tobytes()).digest() for past in panel.values("mid")[: row + 1].T]
return [np.random.default_rng(list(seed)).normal() for seed in seeds] + 0.0 * self.past(panel, row)
""",
    "threads": """
with ThreadPoolExecutor(4) as pool:
    return sum(pool.map(lambda hours: panel.values("mid")[max(0, row - hours)], range(1, 9))) / panel.values("mid")[row]
""",
    "environment of the caller": "return self.past(panel, row) * float(os.environ['PLANTED_SIGN'])",
    "a file that need not be": """
try:
    sign = json.loads((HERE / "settings.json").read_text())["sign"]
except FileNotFoundError:
    sign = 1.0
return sign * self.past(panel, row)
""",
    "expanding rank": "return panel.frame('mid').iloc[: row + 1].rank(pct=True).to_numpy()[-1]",
}
#: What is done to the weights of some honest oracles.
AFTER = {
    "rounding": "return weights + 1e-13 * np.random.default_rng().normal(size=weights.shape)",
    "nothing held": "return weights.mask(weights == 0.0) if len(decisions) > 1 else weights",
}
COUNT = itertools.count()

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def panel() -> Panel:
    made = random_panel(11, 24 * 12, 6)
    return replace(made, table=tuple(Coin(coin, None, None, n, 5.0 * (1 + n)) for n, coin in enumerate(made.coins)))


@pytest.fixture(scope="module")
def decisions(panel: Panel) -> pd.DatetimeIndex:
    return decisions_of(panel, RunConfig())


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module of one oracle, Planted, whose score is the body that the test is given; the home folder is its own."""
    name = f"odd_{next(COUNT)}"
    what, body = request.param
    lines = "\n".join(f"        {line}" for line in body.strip("\n").splitlines())
    text = f"{HEAD}\nclass Planted(Base):\n    def row_score(self, panel, row, at):\n{lines}\n"
    if what in AFTER:
        text += "    def weight_matrix(self, panel, decisions):\n"
        text += f"        weights = super().weight_matrix(panel, decisions)\n        {AFTER[what]}\n"
    (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "settings.json").write_text('{"sign": 1.0}')
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLANTED_SIGN", "-1")
    monkeypatch.syspath_prepend(str(tmp_path))
    return f"{name}:Planted"


def cases(planted: dict[str, str]) -> Any:
    return pytest.mark.parametrize("module", planted.items(), ids=list(planted), indirect=True)


@cases(KEPT_LEAKS)
def test_a_leak_fails_however_it_is_kept(module: str, panel: Panel, decisions: pd.DatetimeIndex) -> None:
    weight_matrix(load_oracle(module, {}), panel, decisions)  # as by a backtest before
    if some(0, 1):
        assert not audit(module, panel, decisions).passed
    found = audit(module, panel, decisions)
    assert not found.passed, found
    if "os.environ" not in Path(sys.modules[module.partition(":")[0]].__file__ or "").read_text():  # it is put back
        assert "process" in {check.name for check in found.failed}, found


@cases(PLAIN)
def test_a_leak_without_memory_fails(module: str, panel: Panel, decisions: pd.DatetimeIndex) -> None:
    found = audit(lambda: load_oracle(module, {}), panel, decisions)
    assert not found.passed and {check.name for check in found.failed} & {"cut", "future", "last_row"}, found
    assert found.failed[0].details is not None or "lots, leverage and tiers" in found.message()


@cases(HONEST)
def test_an_honest_oracle_passes_however_odd(module: str, panel: Panel, decisions: pd.DatetimeIndex) -> None:
    weight_matrix(load_oracle(module, {}), panel, decisions)  # as by a backtest before
    for _ in range(some(1, 2)):
        found = audit(module, panel, decisions)
        assert found.passed, found.message()
    assert found.strength == 1.0


# The headline, lots and leverage, a budget ----------------------------------------------------------------------------


class Textbook(Planted):
    """The return of the next day, NaN (hold) where there is none."""

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        mid = panel.frame("mid")
        rank = (mid.shift(-24) / mid - 1.0).loc[decisions].rank(axis=1, pct=True) - 0.5
        return rank.div(rank.abs().sum(axis=1), axis=0)


def test_the_headline_of_the_textbook_leak_names_it(panel: Panel, decisions: pd.DatetimeIndex) -> None:
    message = audit(Textbook, panel, decisions).message()
    assert message.startswith(
        "Textbook fails the check 'the past alone gives the same weights' (cut): the weight of C00"
    )
    assert "but NaN (hold) on the data up to 2024-10-01 23:00 UTC alone" in message and "warm-up" not in message


class Leveraged(Planted):
    """Coins that may be levered ten times, from the day on which that is known."""

    def score(self, panel: Panel, rows: np.ndarray) -> np.ndarray:
        liked = np.zeros((len(rows), len(panel.coins)))
        for column, coin in enumerate(panel.table):
            if coin.terms_from is not None and (coin.max_leverage or 0.0) >= 10.0:
                liked[panel.index[rows] >= coin.terms_from, column] = 1.0
        return liked


def test_lots_and_leverage_are_seen_from_their_date_on(panel: Panel, decisions: pd.DatetimeIndex) -> None:
    dated = replace(panel, table=tuple(replace(coin, terms_from=panel.index[100]) for coin in panel.table))
    found = audit(Leveraged, dated, decisions)
    assert found.passed, found.message()
    weights = weight_matrix(Leveraged(), dated, decisions)
    assert not weights[decisions < dated.index[100]].any(axis=None) and weights.iloc[-1].any()
    for market in (panel, dated):  # the ledger has them at any time
        units = backtest(market, weights, RunConfig()).trades["units"]
        decimals = np.array(
            [market.coins.index(coin) for coin in backtest(market, weights, RunConfig()).trades["coin"]]
        )
        assert len(units) and np.allclose(units * 10.0**decimals, np.round(units * 10.0**decimals), atol=1e-6)


class Slow(Honest):
    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        CALLS.append(len(decisions))
        time.sleep(0.01 * len(decisions))
        return super().weight_matrix(panel, decisions)


CALLS: list[int] = []


def test_a_budget_is_kept_and_says_what_it_bought() -> None:
    found, spent = {}, {}
    market = random_panel(3, 24 * 30, 3)
    for budget in (0.8, 60.0):
        CALLS.clear()
        found[budget] = audit(Slow, market, decisions_of(market, RunConfig()), budget=budget)
        spent[budget] = 0.01 * sum(CALLS)
        assert found[budget].passed, found[budget].message()
    assert spent[0.8] <= 1.0 < spent[60.0] and found[60.0].strength == 1.0
    assert 0.1 < found[0.8].strength < 1.0 and found[0.8].to_dict()["strength"] == found[0.8].strength
    assert f"would have been seen at {found[0.8].strength:.0%} of 30 decisions" in found[0.8].strength_text()
    with pytest.raises(OracleError, match="budget = 0 is not accepted"):
        audit(Slow, market, decisions_of(market, RunConfig()), budget=0.0)


def test_fewer_calls_than_three_a_decision() -> None:
    market = random_panel(3, 24 * 60, 3)
    CALLS.clear()
    found = audit(Slow, market, decisions_of(market, RunConfig()))
    assert found.passed and found.strength == 1.0 and len(CALLS) < 2 * 60 and sum(CALLS) < 20 * 60
