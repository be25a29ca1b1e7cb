"""Leaks that hide from the audit in the clock, in kept answers and in files by other names; what is no leak passes."""

from __future__ import annotations

import copyreg
import datetime
import itertools
import pickle
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Panel, RunConfig, decisions_of
from engine.checks import Check
from engine.lookahead.audit import audit
from engine.lookahead.frozen_clock import clock_at
from engine.lookahead.perturbations import changed_after, changed_at, with_newcomers
from engine.panel import Coin
from helpers.audits import statuses
from helpers.effort import some
from helpers.panels import holed_panel, random_panel
from research.oracles.momentum import Momentum

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def panel() -> Panel:
    made = holed_panel()
    table = tuple(Coin(coin, made.index[20 * place]) for place, coin in enumerate(made.coins))
    return Panel(made.index, made.coins, made.fields, made.tradable, table)


@pytest.fixture(scope="module")
def decisions(panel: Panel) -> pd.DatetimeIndex:
    return decisions_of(panel, RunConfig())


HEAD = """
import datetime as dt, os, subprocess, sqlite3, time
from datetime import date, datetime, timezone
from pathlib import Path
import numpy as np
import pandas as pd
from engine import Oracle
from research.oracles.blend import Blend
from research.oracles.wrappers import Smooth

KEPT = {}

class Base(Oracle):
    def weight_matrix(self, panel, decisions):
        score = panel.tradable[panel.rows(decisions)] * self.factor(panel, decisions)
        return pd.DataFrame(score / (1e-9 + np.abs(score).sum(axis=1, keepdims=True)), index=decisions,
                            columns=list(panel.coins))
    def factor(self, panel, decisions):
        return 1.0

class Planted(Base):
    def factor(self, panel, decisions):
"""


COUNT = itertools.count()


def checked(
    tmp_path: Path, panel: Panel, decisions: pd.DatetimeIndex, body: str, **parameters: Any
) -> dict[str, Check]:
    """The checks of an oracle whose ``factor`` is `body`, or of the classes in it."""
    lines = body.strip("\n").splitlines()
    text = "\n".join(lines) if body.lstrip().startswith("class ") else "\n".join(f"        {line}" for line in lines)
    module = f"planted_{next(COUNT)}"  # a module that is imported once, as a file is not
    head = HEAD if "class Planted" not in text else HEAD.partition("class Planted")[0]
    (tmp_path / f"{module}.py").write_text(f"{head}{text}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        found = audit(f"{module}:Planted", panel, decisions, cuts=3)
    return {check.name: check for check in found.checks}


TODAY = {
    "datetime": "today = datetime.now(timezone.utc)",
    "module": "today = dt.datetime.now(dt.UTC)",
    "date": "today = pd.Timestamp(date.today(), tz='UTC')",
    "time": "today = pd.Timestamp(time.time(), unit='s', tz='UTC')",
    "pandas": "today = pd.Timestamp.now('UTC')",
    "gmtime": "today = pd.Timestamp(time.strftime('%Y-%m-%d', time.gmtime()), tz='UTC')",
    "inside": "import datetime as own; today = own.datetime.now(own.UTC)",
}


@pytest.mark.parametrize("read", list(TODAY)[: some(2, len(TODAY))])  # the others: test_the_clock_of_then
def test_what_hangs_on_the_day_it_is_asked_is_caught(
    tmp_path: Path, panel: Panel, decisions: pd.DatetimeIndex, read: str
) -> None:
    """Coins older than three days today are all coins; at the decision they were not."""
    listed = "[coin.listed is not None and today - coin.listed > pd.Timedelta(days=3) for coin in panel.table]"
    body = f"{TODAY[read]}\nreturn np.where({listed}, 1.0, 0.3)"
    found = checked(tmp_path, panel, decisions, body)
    assert found["process"].passed is False, found
    assert "whose clock is set to 2024-10-08 23:00 UTC" in found["process"].summary


def test_how_long_it_takes_and_a_date_in_words_are_nobodys_business(
    tmp_path: Path, panel: Panel, decisions: pd.DatetimeIndex
) -> None:
    body = "begun = time.time()\nself.said = f'asked on {datetime.now() - datetime(2024, 1, 1)}, {date.today()}'\n"
    body += "assert time.time() - begun < 60 and isinstance(panel.index[0], datetime)\nreturn 1.0"
    found = checked(tmp_path, panel, decisions, body)
    assert found["process"].passed is True and not [name for name, check in found.items() if check.passed is False]


def test_the_clock_of_then() -> None:
    then = pd.Timestamp("2024-12-01T23:00Z")
    names: dict[str, Any] = {}
    before = datetime.datetime, datetime.date, time.time, pd.Timestamp.__dict__["now"]
    code = "import datetime, time\nfrom datetime import datetime as Moment, date as Day\nclass Mine(Moment): pass\n"
    kept = [datetime.datetime(2024, 1, 2, 3, tzinfo=datetime.UTC), datetime.date(2024, 1, 2), then]
    with clock_at(then):
        exec(code, names)  # as a module that is imported now
        assert pickle.loads(pickle.dumps(kept)) == kept
        content = pickle.dumps(kept)
        told = [
            names["Moment"].now(datetime.UTC),
            names["Moment"].utcnow().replace(tzinfo=datetime.UTC),
            pd.Timestamp(names["time"].time(), unit="s", tz="UTC"),
            pd.Timestamp(names["time"].time_ns(), unit="ns", tz="UTC"),
            pd.Timestamp.now("America/New_York"),
        ]
    assert all(pd.Timedelta(0) <= pd.Timestamp(at) - then < pd.Timedelta(seconds=30) for at in told), told
    assert before == (datetime.datetime, datetime.date, time.time, pd.Timestamp.__dict__["now"])
    assert pickle.loads(content) == kept and not {datetime.datetime, datetime.date} & set(copyreg.dispatch_table)
    assert abs(pd.Timestamp.now("UTC") - pd.Timestamp(time.time(), unit="s", tz="UTC")) < pd.Timedelta(seconds=30)
    # What it makes is what everybody else makes, and of the same kind.
    Moment, Day, Mine = names["Moment"], names["Day"], names["Mine"]
    assert type(Moment(2024, 1, 2)) is datetime.datetime and type(Day(2024, 1, 2)) is datetime.date
    assert type(Moment.strptime("2024", "%Y")) is datetime.datetime and type(Mine(2024, 1, 2)) is Mine
    assert isinstance(then, Moment) and isinstance(then, Day) and not isinstance(datetime.date(2024, 1, 2), Moment)
    assert issubclass(pd.Timestamp, Moment) and not isinstance(then, Mine) and isinstance(Mine(2024, 1, 2), Moment)


READS = {
    "memory": ("np.load(SHARED)", "hlbt-test"),
    "weights of a model": ("np.load(HERE / 'model.pth')", "model.pth"),
    "database": ("sqlite3.connect(HERE / 'own.db').execute('select 1').fetchone()", "own.db"),
    "program": ("subprocess.run(['true'], check=True)", "another program (subprocess.Popen)"),
    "shell": ("os.system('true')", "another program (os.system)"),
}


@pytest.mark.parametrize("what", READS)
def test_a_file_by_another_name_is_seen(tmp_path: Path, panel: Panel, decisions: pd.DatetimeIndex, what: str) -> None:
    call, name = READS[what]
    shared = Path("/dev/shm") / f"hlbt-test-{tmp_path.name}.npy"
    if what == "memory" and not shared.parent.is_dir():
        pytest.skip("no /dev/shm here")
    np.save(tmp_path / "model.npy", np.ones(3))
    (tmp_path / "model.npy").rename(tmp_path / "model.pth")
    try:
        if what == "memory":
            np.save(shared, np.ones(3))
        body = f"HERE, SHARED = Path({str(tmp_path)!r}), {str(shared)!r}\n{call}\nreturn 1.0"
        found = checked(tmp_path, panel, decisions, body)["published"]
    finally:
        shared.unlink(missing_ok=True)
    assert found.passed is False and name in found.summary and "has no method as_of(instant)" in found.summary


def test_what_is_only_written_or_made_here_is_no_reading(
    tmp_path: Path, panel: Panel, decisions: pd.DatetimeIndex
) -> None:
    body = f"""
import tempfile
with open({str(tmp_path / "log.txt")!r}, "a") as log:
    log.write("asked")
with tempfile.TemporaryDirectory() as folder:
    np.save(Path(folder) / "half.npy", np.ones(3))
    os.replace(Path(folder) / "half.npy", Path(folder) / "whole.npy")
    np.load(Path(folder) / "whole.npy")
sqlite3.connect(":memory:").close()
return 1.0
"""
    for _ in range(2):  # the second time the log is there
        found = checked(tmp_path, panel, decisions, body)["published"]
        assert (found.passed, found.summary) == (True, "it opens no file but its code, and no connection")


def test_files_of_packages_on_the_path_are_not_the_oracles_data(
    tmp_path: Path, panel: Panel, decisions: pd.DatetimeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a user whose packages come by PYTHONPATH: their data and metadata, but no file beside them."""
    target = tmp_path / "target"
    for folder in (target / "packed", target / "packed-1.0.dist-info", target / "older.egg-info"):
        folder.mkdir(parents=True)
    info = target / "packed-1.0.dist-info"
    (info / "RECORD").write_text("packed/__init__.py,,0\npacked-1.0.dist-info/RECORD,,\n")
    files = [target / "packed" / "table.csv", info / "entry_points.txt", target / "older.egg-info" / "entry_points.txt"]
    for file in [*files, target / "own.csv"]:
        file.write_text("a\n1\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(target)])
    body = "for name in {!r}:\n    Path(name).read_text()\nreturn 1.0"
    passed = checked(tmp_path, panel, decisions, body.format([str(file) for file in files]))["published"]
    assert (passed.passed, passed.summary) == (True, "it opens no file but its code, and no connection")
    failed = checked(tmp_path, panel, decisions, body.format([str(target / "own.csv")]))["published"]
    assert failed.passed is False and "own.csv" in failed.summary


PARTS = """
class Reads(Base):
    '''Reads a file of tomorrow's prices and does not say so.'''
    def factor(self, panel, decisions):
        return pd.read_csv(FILE).to_numpy()[:1, : len(panel.coins)] + 0.0

class Cuts(Reads):
    def as_of(self, instant):
        cut = Cuts()
        cut.known = instant >= OUT
        return cut
    def factor(self, panel, decisions):
        uses = (decisions > OUT)[:, None] & getattr(self, "known", True)
        return np.where(uses, super().factor(panel, decisions), 1.0)

class Says(Cuts):
    def files(self):
        return (Path(FILE),)
"""


def test_a_part_that_vouches_does_not_vouch_for_the_others(
    tmp_path: Path, panel: Panel, decisions: pd.DatetimeIndex
) -> None:
    for name in ("one", "two"):
        pd.DataFrame(np.random.default_rng(0).random((2, 50)) + 0.5).to_csv(tmp_path / f"{name}.csv", index=False)

    def published(planted: str) -> Check:
        text = PARTS.replace("FILE", repr(str(tmp_path / "one.csv")))
        text += f"\nOUT = pd.Timestamp({str(decisions[8])!r})\n{planted}\n"
        return checked(tmp_path, panel, decisions, text)["published"]

    assert published("class Planted(Cuts): pass").passed is True  # it answers for itself
    one = "    def __init__(self): super().__init__(PART)\n    oracle_parameters = ('PLACE',)\n"
    blend = "class Planted(Blend):\n" + one.replace("PLACE", "oracles")
    assert published(blend.replace("PART", "[Says(), Base()]")).passed is True
    other = "class Hides(Base):\n    def factor(self, panel, decisions):\n"
    other += f"        return pd.read_csv({str(tmp_path / 'two.csv')!r}).to_numpy()[:1, : len(panel.coins)]\n"
    hidden = published(other + blend.replace("PART", "[Smooth(Says(), days=1), Hides()]"))
    assert hidden.passed is False and "two.csv and has no method as_of" in hidden.summary
    assert "one.csv" not in hidden.summary


def test_books_made_together_must_be_those_made_alone(panel: Panel, decisions: pd.DatetimeIndex) -> None:
    class Together(Momentum):
        @classmethod
        def construct_many(cls, oracles: Any, scores: np.ndarray) -> Any:
            return Momentum.construct_many([Momentum(n=1)] * len(oracles), scores)

    found = audit(lambda: Together(lookback_hours=30, n=3), panel, decisions)
    assert {check.name for check in found.failed} == {
        "score"
    } and "from construct_many of its scores" in found.message()


def test_an_oracle_may_count_on_a_market_that_makes_sense() -> None:
    """What is made up stays a market: bid below mid below ask, and every coin has what the others have."""
    panel = random_panel(5, 24 * 10, 8, quotes=True, impact=True, oracle=True, table=True, volume=True)
    dated = tuple(replace(coin, terms_from=panel.index[0]) for coin in panel.table)
    panel, rng = replace(panel, table=dated), np.random.default_rng(1)
    for other in (changed_after(panel, 50, rng), changed_at(panel, 50, rng), with_newcomers(panel, 50, rng)):
        order = [other.values(name) for name in ("impact_bid", "bid", "mid", "ask", "impact_ask")]
        for low, high in itertools.pairwise(order):
            both = ~np.isnan(low) & ~np.isnan(high)
            assert both.any() and (low[both] <= high[both] * (1 + 1e-12)).all()
        assert not np.isnan(other.sz_decimals).any() and all(coin.max_leverage for coin in other.table)

    class Sane(Momentum):
        def scores(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
            bid, ask = panel.values("bid"), panel.values("ask")
            both = ~np.isnan(bid) & ~np.isnan(ask)
            assert (bid[both] <= ask[both]).all(), "a crossed book"
            assert all(coin.max_leverage for coin in panel.table)
            return super().scores(panel, decisions)

    found = audit(lambda: Sane(lookback_hours=30, n=2), panel, decisions_of(panel, RunConfig()))
    assert found.passed and set(statuses(found).values()) == {"pass", "skipped"}, found.message()
