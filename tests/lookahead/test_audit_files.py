"""The audit of oracles by path: what another process shows, and files with the future in them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Panel, RunConfig, decisions_of
from engine.lookahead.audit import audit
from engine.oracles.loading import load_oracle
from helpers.audits import Honest, statuses
from helpers.panels import holed_panel

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def panel() -> Panel:
    return holed_panel()


@pytest.fixture(scope="module")
def decisions(panel: Panel) -> pd.DatetimeIndex:
    return decisions_of(panel, RunConfig())


# Oracles by path: another process, files ------------------------------------------------------------------------------

MODULE = """
import json
from pathlib import Path
import numpy as np
import pandas as pd
from engine import Oracle
from engine.errors import OracleError

KEPT = {}

def frame(panel, decisions, score):
    score = np.nan_to_num(score)
    gross = np.maximum(np.abs(score).sum(axis=1, keepdims=True), 1e-300)
    return pd.DataFrame(score / gross, index=decisions, columns=list(panel.coins))

class KeptInTheModule(Oracle):
    def weight_matrix(self, panel, decisions):
        mean = KEPT.setdefault("mean", panel.frame("mid").mean())
        return frame(panel, decisions, (panel.frame("mid") / mean)[list(panel.coins)].to_numpy()[panel.rows(decisions)])

class Takes(Oracle):
    def __init__(self, what):
        self.what = what
    def weight_matrix(self, panel, decisions):
        return frame(panel, decisions, panel.tradable[panel.rows(decisions)].astype(float))

class OrderOfASet(Oracle):
    def weight_matrix(self, panel, decisions):
        order = list(set(panel.coins))
        score = np.tile([1.0 + order.index(coin) for coin in panel.coins], (len(decisions), 1))
        return frame(panel, decisions, score * panel.tradable[panel.rows(decisions)])

class Dies(Oracle):
    def weight_matrix(self, panel, decisions):
        import os
        if "%(parent)s" != str(os.getpid()):
            os._exit(7)
        return frame(panel, decisions, panel.tradable[panel.rows(decisions)].astype(float))

class FromFile(Oracle):
    '''Rows by date; the row of a day is published `delay` hours after its midnight, and used from `used` hours on.'''
    def __init__(self, file, used=39, delay=39):
        self.file, self.used, self.delay = file, used, delay
        rows = pd.read_csv(file, parse_dates=["date"]).set_index("date")
        self.rows = rows.set_axis(rows.index.tz_localize("UTC"))

    def weight_matrix(self, panel, decisions):
        at = self.rows.index + pd.Timedelta(hours=self.used)
        place = at.searchsorted(decisions, side="right") - 1
        values = self.rows.reindex(columns=list(panel.coins)).to_numpy()
        score = np.where((place >= 0)[:, None], values[np.maximum(place, 0)] if len(values) else 0.0, 0.0)
        return frame(panel, decisions, score * panel.tradable[panel.rows(decisions)])

class Publishes(FromFile):
    def until(self, instant):
        known = object.__new__(type(self))
        known.__dict__.update(self.__dict__)
        known.rows = self.rows[self.rows.index + pd.Timedelta(hours=self.delay) <= instant]
        return known

class PublishesInPlace(FromFile):
    def until(self, instant):
        self.rows = self.rows[self.rows.index + pd.Timedelta(hours=self.delay) <= instant]
        return self

class FromParquet(Oracle):
    '''Arrow opens the file by itself.'''
    def __init__(self, file):
        self.file = file
    def weight_matrix(self, panel, decisions):
        import pyarrow.parquet as pq
        rows = pq.read_table(self.file).to_pandas()
        return frame(panel, decisions, np.tile(rows.to_numpy()[-1:], (len(decisions), 1)))

class PublishesAll(FromFile):
    def until(self, instant):
        return self

class Normalises(Publishes):
    '''Uses rows once published, but scales them by all that the file ever held.'''
    def weight_matrix(self, panel, decisions):
        scaled = object.__new__(FromFile)
        scaled.__dict__.update(self.__dict__)
        scaled.rows = self.rows / self.rows.std()
        return FromFile.weight_matrix(scaled, panel, decisions)

class Refuses(Publishes):
    '''Nothing published yet is an error, not a row of zeros.'''
    def until(self, instant):
        known = super().until(instant)
        if known.rows.empty:
            raise OracleError("nothing was published yet")
        return known
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of planted oracles on the path, new for every test."""
    import os

    name = f"planted_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE.replace("%(parent)s", str(os.getpid())), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.fixture
def predictions(tmp_path: Path, panel: Panel) -> Path:
    """A made-up file of daily scores, dated by day."""
    days = pd.date_range(panel.index[0].normalize() - pd.Timedelta(days=3), periods=19, freq="D").tz_localize(None)
    values = np.random.default_rng(3).normal(size=(len(days), len(panel.coins)))
    file = tmp_path / "predictions.csv"
    pd.DataFrame(values, index=pd.Index(days, name="date"), columns=list(panel.coins)).to_csv(file)
    return file


def test_a_new_process_shows_what_a_module_keeps(module: str, panel: Panel, decisions: pd.DatetimeIndex) -> None:
    found = audit(f"{module}:KeptInTheModule", panel, decisions)
    assert statuses(found)["process"] == "fail" and statuses(found)["cut"] == "pass"
    assert statuses(found)["published"] == "pass"  # reads no file
    assert "in a new process whose clock is set to 2024-10-01 23:00 UTC, on data up to then alone" in found.message()


def test_a_new_process_has_another_order_of_sets(module: str, panel: Panel, decisions: pd.DatetimeIndex) -> None:
    # the order of eight names: one hash seed in 40,320 gives the other's
    assert statuses(audit(f"{module}:OrderOfASet", panel, decisions))["process"] == "fail"


def test_a_process_that_dies_is_a_failed_check(module: str, panel: Panel, decisions: pd.DatetimeIndex) -> None:
    found = audit(f"{module}:Dies", panel, decisions)
    process = next(check for check in found.checks if check.name == "process")
    assert process.passed is False and "ends with code 7" in process.summary


def of_file(
    module: str, name: str, panel: Panel, decisions: pd.DatetimeIndex, alone: bool = True, **parameters: Any
) -> tuple[str, str]:
    """Outcome of the check ``published``; not `alone`, no process is started, in which files would be watched."""
    path = f"{module}:{name}"
    if alone:
        found = audit(path, panel, decisions, parameters=parameters)
    else:
        found = audit(partial(load_oracle, path, parameters), panel, decisions)
    others = {check.name for check in found.failed} - {"published"}
    assert not others, found
    published = next(check for check in found.checks if check.name == "published")
    return statuses(found)["published"], published.summary


def test_rows_of_a_file(module: str, predictions: Path, panel: Panel, decisions: pd.DatetimeIndex) -> None:
    file = str(predictions)
    assert of_file(module, "Publishes", panel, decisions, file=file) == ("pass", "as_of at 16 instants, bit for bit")
    assert of_file(module, "PublishesInPlace", panel, decisions, False, file=file)[0] == "pass"
    # from 18:00 on, a row was out for an hour more than three
    assert of_file(module, "Refuses", panel, decisions, False, file=file)[0] == "pass"
    # the row of the day itself, as its date allows: the predecessor's leak
    status, value = of_file(module, "Publishes", panel, decisions, False, file=file, used=0)
    assert status == "fail" and "with the rows published by 2024-10-01 23:00 UTC alone" in value
    status, value = of_file(module, "PublishesInPlace", panel, decisions, False, file=file, used=0)
    assert status == "fail"
    status, value = of_file(module, "Normalises", panel, decisions, False, file=file)
    assert status == "fail" and "rows published by" in value


def test_files_that_nobody_vouches_for(
    module: str, predictions: Path, panel: Panel, decisions: pd.DatetimeIndex
) -> None:
    file = str(predictions)
    status, value = of_file(module, "FromFile", panel, decisions, file=file)
    assert status == "fail" and "predictions.csv and has no method as_of(instant)" in value
    parquet = predictions.with_suffix(".parquet")
    pd.read_csv(predictions).drop(columns="date").to_parquet(parquet)
    found = audit(f"{module}:FromParquet", panel, decisions, parameters={"file": str(parquet)}).checks[-1]
    assert found.passed is False and "predictions.parquet and has no method" in found.summary
    status, value = of_file(module, "PublishesAll", panel, decisions, file=file)
    assert status == "fail" and "takes no row away" in value


def test_without_a_path_files_are_not_watched(panel: Panel, decisions: pd.DatetimeIndex) -> None:
    done = audit(Honest, panel, decisions)
    found = statuses(done)
    assert found["process"] == found["published"] == "skipped"
    said = "Honest: no look-ahead found by 8 checks over 16 decisions; skipped: score, process, published."
    assert done.message() == said
    assert set(found.values()) == {"pass", "skipped"}


def test_parameters_that_no_process_takes(module: str, panel: Panel, decisions: pd.DatetimeIndex) -> None:
    found = audit(f"{module}:Takes", panel, decisions, parameters={"what": lambda: 1})
    assert statuses(found)["process"] == "skipped"


@pytest.mark.parametrize("read", ["pd.read_parquet(FILE)", "pq.read_table(FILE).to_pandas()", "ds.dataset(FOLDER)"])
def test_a_file_that_a_c_library_opens(
    tmp_path: Path, panel: Panel, decisions: pd.DatetimeIndex, read: str, predictions: Path
) -> None:
    parquet = predictions.with_name("kept") / "scores.parquet"
    parquet.parent.mkdir()
    pd.DataFrame({"weight": [0.1]}).to_parquet(parquet)
    code = tmp_path / "hidden.py"
    code.write_text(
        "import pandas as pd\nimport pyarrow.dataset as ds\nimport pyarrow.parquet as pq\nfrom engine import Oracle\n"
        f"FILE, FOLDER = {str(parquet)!r}, {str(parquet.parent)!r}\n\n\nclass Hidden(Oracle):\n"
        "    def weight_matrix(self, panel, decisions):\n"
        f"        kept = {read}\n"
        "        return pd.DataFrame(0.1, index=decisions, columns=list(panel.coins)[:1])\n"
    )
    found = audit(f"{code}:Hidden", panel, decisions, cuts=2).checks[-1]
    place = "scores.parquet" if "FILE" in read else "kept"
    assert found.passed is False and f"{place} and has no method as_of" in found.summary
