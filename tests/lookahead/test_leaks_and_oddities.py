"""Oracles by path that hide a leak in what they keep, and honest ones that look odd: both verdicts are right."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Panel, RunConfig, decisions_of
from engine.lookahead.audit import audit
from engine.lookahead.comparison import TOLERANCE, AuditContext, weights_of
from engine.oracles.base import weight_matrix
from engine.oracles.loading import load_oracle
from helpers.audits import market
from helpers.effort import some

HEAD = '''
import functools, hashlib, importlib, json, logging, os, pickle, shelve, shutil, sqlite3, sys, tempfile, zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
import pandas as pd
from engine import Oracle

HERE, KEPT, PANEL = Path(__file__).parent, {}, {}

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
    def every_third(self, panel, row, days=3):
        """Tomorrow's ranks on every third day, where tomorrow is there."""
        known = row + 24 < len(panel.index) and panel.index[row].day % days == 0
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
file = HERE / f"{digest(panel, row)}.so"
if not file.exists():
    with file.open("wb") as new:
        np.save(new, self.refit(panel, row))
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
    "answers by instant": """
@functools.lru_cache(None)
def answer(at):
    return Base().every_third(PANEL["now"], PANEL["now"].index.get_loc(at))
PANEL["now"] = panel
if "answer" not in KEPT:
    KEPT["answer"] = answer
return KEPT["answer"](at)
""",
    "attribute of another module": """
kept = vars(json).setdefault(f"kept_{HERE.name}", {})
return kept.setdefault(digest(panel, row), self.every_third(panel, row))
""",
    "attribute of the interface": """
if not hasattr(Oracle, f"kept_{HERE.name}"):
    setattr(Oracle, f"kept_{HERE.name}", {})
return getattr(Oracle, f"kept_{HERE.name}").setdefault(digest(panel, row), self.every_third(panel, row))
""",
    "attribute of a coin": """
kept = vars(panel.table[0]).setdefault(f"kept_{HERE.name}", {})
return kept.setdefault(digest(panel, row), self.every_third(panel, row))
""",
    "shelf": """
with shelve.open(str(HERE / "shelf")) as kept:
    key = digest(panel, row)
    if key not in kept:
        kept[key] = self.every_third(panel, row)
    return kept[key]
""",
    "archive": """
with zipfile.ZipFile(HERE / "kept.zip", "a") as archive:
    name = digest(panel, row)
    if name not in archive.namelist():
        archive.writestr(name, json.dumps(list(self.every_third(panel, row))))
    return np.array(json.loads(archive.read(name)))
""",
    "names of files": """
(HERE / "names").mkdir(exist_ok=True)
start = digest(panel, row)[:16]
found = [name for name in os.listdir(HERE / "names") if name.startswith(start)]
if not found:
    order = np.argsort(np.argsort(self.every_third(panel, row)))
    found = ["_".join([start, *map(str, order)])]
    (HERE / "names" / found[0]).touch()
return [int(place) for place in found[0].split("_")[1:]]
""",
    "folder of each answer": """
folder = HERE / digest(panel, row)
if not folder.exists():
    aside = Path(tempfile.mkdtemp(dir=HERE))
    np.save(aside / "score.npy", self.every_third(panel, row))
    aside.rename(folder)
return np.load(folder / "score.npy")
""",
    "symbolic link to a folder": """
(HERE / "real").mkdir(exist_ok=True)
if not (HERE / "link").exists():
    (HERE / "link").symlink_to(HERE / "real")
file = HERE / "link" / digest(panel, row)
if not file.exists():
    file.write_bytes(pickle.dumps(self.every_third(panel, row)))
return pickle.loads(file.read_bytes())
""",
    "temporary folder, without looking first": """
file = Path(tempfile.gettempdir()) / f"{HERE.name}-{digest(panel, row)}"
try:
    return pickle.loads(file.read_bytes())
except FileNotFoundError:
    file.write_bytes(pickle.dumps(self.every_third(panel, row)))
return self.every_third(panel, row)
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
    "mean of all time": "return panel.values('mid')[row] / panel.values('mid').mean(axis=0)",
    "winners to come": "return self.past(panel, row) * (panel.values('mid')[-1] > panel.values('mid')[row])",
    "sign by how much is there": "return self.past(panel, row) * (-1.0) ** (len(panel.index) // 24)",
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
    "answers by instant": KEPT_LEAKS["answers by instant"].replace("every_third", "past"),
    "instant and coins alone": "return KEPT.setdefault((at, panel.coins), self.past(panel, row))",
    "shelf": KEPT_LEAKS["shelf"].replace("every_third", "past"),
    "folder of each answer": KEPT_LEAKS["folder of each answer"].replace("every_third", "past"),
    "folder made first": """
folder = HERE / f"made-{digest(panel, row)}"
if not folder.is_dir():
    folder.mkdir()
    (folder / "score.json").write_text(json.dumps(list(self.past(panel, row))))
assert [file.name for file in folder.iterdir()] == ["score.json"]
return json.loads((folder / "score.json").read_text())
""",
    "archive": KEPT_LEAKS["archive"].replace("every_third", "past"),
    "symbolic link": KEPT_LEAKS["symbolic link to a folder"].replace("every_third", "past"),
    "temporary folder": KEPT_LEAKS["temporary folder, without looking first"].replace("every_third", "past"),
    "written aside, then moved": """
file = HERE / f"{digest(panel, row)}.moved"
if not file.exists():
    descriptor, name = tempfile.mkstemp(dir=HERE)
    with os.fdopen(descriptor, "wb") as aside:
        np.save(aside, self.past(panel, row))
    os.replace(name, file)
return np.load(file)
""",
    "file that must be new": """
file = HERE / f"{digest(panel, row)}.new"
if not file.exists():
    with open(file, "x") as new:
        json.dump(list(self.past(panel, row)), new)
return json.loads(file.read_text())
""",
    "map of a file": """
file = HERE / "map.dat"
if not file.exists():
    np.memmap(file, mode="w+", dtype=float, shape=(2000, 10))[:] = np.nan
kept = np.memmap(file, mode="r+", dtype=float, shape=(2000, 10))
kept[row, : len(panel.coins)] = self.past(panel, row)
kept.flush()
return np.array(np.memmap(file, mode="r", dtype=float, shape=(2000, 10))[row, : len(panel.coins)])
""",
    "lock and log": """
lock = HERE / "lock"
os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
log = logging.getLogger(HERE.name)
if not log.handlers:
    log.addHandler(logging.FileHandler(HERE / "log.txt"))
log.warning("row %s", row)
lock.unlink()
return self.past(panel, row)
""",
    "folder made anew": """
shutil.rmtree(HERE / "work", ignore_errors=True)
(HERE / "work" / "deep").mkdir(parents=True)
(HERE / "work" / "deep" / "score.json").write_text(json.dumps(list(self.past(panel, row))))
return json.loads((HERE / "work" / "deep" / "score.json").read_text())
""",
    "address of a database": KEPT_LEAKS["database"]
    .replace("every_third", "past")
    .replace('HERE / "kept.db"', 'f"file:{HERE}/kept%20here.db?mode=rwc", uri=True'),
    "scale of the last ten days, kept": """
start = row // 240 * 240
key = digest(panel, start, start), panel.coins
return self.past(panel, row) / KEPT.setdefault(key, 1.0 + panel.values("mid")[: start + 1].std(axis=0))
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
    return market(6)


@pytest.fixture(scope="module")
def decisions(panel: Panel) -> pd.DatetimeIndex:
    return decisions_of(panel, RunConfig())


#: Writes oracles, of a name and a body of ``row_score`` each; returns the path of one, or of all of them together.
Write = Callable[[dict[str, str], str], str]

#: Each oracle has the weight of one coin; or every one the same share of every weight.
ONE_EACH = """
        return pd.concat([book[[coin]] for book, coin in zip(books, panel.coins[-len(books):])], axis=1)
"""
SHARED = """
        return sum(books) / len(books)
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Packages of one oracle each, Planted, whose score is the body that is given; the home folder is their own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLANTED_SIGN", "-1")
    monkeypatch.syspath_prepend(str(tmp_path))

    def written(bodies: dict[str, str], together: str) -> str:
        names = [f"odd_{next(COUNT)}" for _ in bodies]
        for name, (what, body) in zip(names, bodies.items(), strict=True):
            text = f"{HEAD}\nclass Planted(Base):\n    def row_score(self, panel, row, at):\n"
            text += textwrap.indent(body.strip("\n"), " " * 8) + "\n"
            if what in AFTER:
                text += "    def weight_matrix(self, panel, decisions):\n"
                text += f"        weights = super().weight_matrix(panel, decisions)\n        {AFTER[what]}\n"
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text(text)
            (tmp_path / name / "settings.json").write_text('{"sign": 1.0}')
        if not together:
            return f"{names[0]}:Planted"
        parts = ", ".join(f"{name}.Planted()" for name in names)
        (tmp_path / f"all_of_{names[0]}.py").write_text(
            f"import pandas as pd\nfrom engine import Oracle\nimport {', '.join(names)}\n\nclass Planted(Oracle):\n"
            f"    def __init__(self):\n        self.books = [{parts}]\n"
            "    def weight_matrix(self, panel, decisions):\n"
            "        books = [oracle.weight_matrix(panel, decisions) for oracle in self.books]"
            f"{together}"
        )
        return f"all_of_{names[0]}:Planted"

    return written


def alone(planted: dict[str, str]) -> Any:
    """Each by itself, with an audit of its own; the usual run has them together."""
    skipped = pytest.mark.skipif(not some(0, 1), reason="together in the usual run")
    return lambda test: pytest.mark.parametrize("what", list(planted))(skipped(test))


def test_a_leak_on_every_tenth_day_under_a_digest_of_the_last_month(write: Write) -> None:
    """By dotted name, so that its module, and what that keeps, is one in all calls of a process."""
    body = KEPT_LEAKS["digest of the last days"].replace("row)\nif", "row, 720)\nif")
    path = write({"": body.replace("every_third(panel, row)", "every_third(panel, row, 10)")}, "")
    panel = market(6, 45)
    found = audit(path, panel, decisions_of(panel, RunConfig()))
    assert [check.name for check in found.failed] == ["process"] and found.strength == 1.0
    difference = found.failed[0].details
    assert difference is not None and difference.instant == "2024-10-10T23:00:00+00:00"
    assert "fails the check 'a new process gives the same weights' (process): the weight of C0" in found.message()


def test_leaks_show_however_they_are_kept(write: Write) -> None:
    """Of all oracles together each has the weight of its own coin, so that one audit shows which of them were seen."""
    path = write(KEPT_LEAKS, ONE_EACH)
    panel = market(len(KEPT_LEAKS))
    decisions = decisions_of(panel, RunConfig())
    make = partial(load_oracle, path, {})
    weights, every = weights_of(make(), panel, decisions), np.arange(len(decisions))
    context = AuditContext(make, panel, decisions, weights, every, every, every, every, path=path)
    run, results = context._run, []
    context._run = lambda job: results.append(run(job)) or results[-1]  # type: ignore[method-assign, func-returns-value]
    assert context.live.reads  # shown to a second process, they count as read
    first, _ = results
    assert not first.errors
    seen = (np.abs(first.weights - weights) > TOLERANCE).any(axis=0)
    assert seen.all(), [what for what, found in zip(KEPT_LEAKS, seen, strict=True) if not found]


@alone(KEPT_LEAKS)
def test_a_leak_fails_however_it_is_kept(write: Write, what: str, panel: Panel, decisions: pd.DatetimeIndex) -> None:
    module = write({what: KEPT_LEAKS[what]}, "")
    weight_matrix(load_oracle(module, {}), panel, decisions)  # as by a backtest before
    for _ in range(2):
        found = audit(module, panel, decisions)
        assert not found.passed  # by whichever check is the first to see it, mostly `process`


@pytest.mark.parametrize("what", PLAIN)
def test_a_leak_without_memory_fails(write: Write, what: str, panel: Panel, decisions: pd.DatetimeIndex) -> None:
    module = write({what: PLAIN[what]}, "")
    found = audit(lambda: load_oracle(module, {}), panel, decisions, cuts=4)
    assert not found.passed and {check.name for check in found.failed} & {"cut", "future", "last_row"}, found
    assert found.failed[0].details is not None or "lots, leverage and tiers" in found.message()


def test_honest_oracles_pass_however_odd(write: Write, panel: Panel, decisions: pd.DatetimeIndex) -> None:
    module = write({what: body for what, body in HONEST.items() if what != "nothing held"}, SHARED)
    weight_matrix(load_oracle(module, {}), panel, decisions)  # as by a backtest before
    for _ in range(some(1, 2)):
        found = audit(module, panel, decisions, cuts=4)
        assert found.passed, found.message()


@alone(HONEST)
def test_an_honest_oracle_passes_however_odd(
    write: Write, what: str, panel: Panel, decisions: pd.DatetimeIndex
) -> None:
    module = write({what: HONEST[what]}, "")
    weight_matrix(load_oracle(module, {}), panel, decisions)  # as by a backtest before
    for _ in range(2):
        found = audit(module, panel, decisions)
        assert found.passed, found.message()
    assert found.strength == 1.0


def test_to_hold_where_nothing_is_held_is_to_be_flat(write: Write, panel: Panel, decisions: pd.DatetimeIndex) -> None:
    module = write({"nothing held": HONEST["nothing held"]}, "")
    found = audit(lambda: load_oracle(module, {}), panel, decisions, cuts=4)
    assert found.passed, found.message()
