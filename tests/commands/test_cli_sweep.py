"""hlbt sweep, hlbt validate and the pages they leave, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from engine.sweeps.trials import count_trials
from helpers.commands import Hlbt

pytestmark = pytest.mark.slow

MOMENTUM = "research.oracles.momentum:Momentum"
GRID = ("--grid", "lookback_hours=72:216:72", "--grid", "n=3,5")
SPAN = ("--set", "data.start=2024-03-01", "--set", "data.end=2024-07-01")


@pytest.fixture(autouse=True)
def cache(sample_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))
    return sample_cache


def test_from_flags_to_a_page_with_a_verdict(hlbt: Hlbt) -> None:
    mine = ("sweep", "--oracle", MOMENTUM, *GRID, *SPAN, "--name", "mine", "--json")
    answer = json.loads(hlbt(*mine, "--top", "1").out)
    folder = Path(answer["folder"])
    assert folder == Path("reports/mine") and answer["synthetic"] is True
    assert answer["sets"] == {"total": 6, "reused": 0, "failed": 0}
    table = pd.read_parquet(folder / "table.parquet")
    assert answer["best"]["metrics"]["sharpe"] == pytest.approx(table["sharpe"].max(), rel=1e-12)
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["says"] == answer["verdict"]["says"] and verdict["details"]["trials"]["judged"] == 6
    page = (folder / "index.html").read_text()
    assert "SYNTHETIC" in page and all(part in page for part in verdict["says"].split(". ", 1))
    (tearsheet,) = folder.glob("top/*/tearsheet.html")
    assert f"top/{tearsheet.parent.name}/tearsheet.html" in page
    # The best set run by itself is the row of the table.
    record = json.loads((tearsheet.parent / "run.json").read_text())
    assert record["metrics"]["equity_end_usd"] == pytest.approx(answer["best"]["metrics"]["equity_end_usd"], rel=1e-10)
    assert record["origin"]["parameters"]["n"] == answer["best"]["n"]

    # Again: nothing runs, and the same is said. A single run of a set that was swept is no new trial.
    again = json.loads(
        hlbt("sweep", "--oracle", MOMENTUM, *GRID, *SPAN, "--name", "mine", "--no-verdict", "--json").out
    )
    assert again["sets"]["reused"] == 6 and again["best"] == answer["best"] and again["verdict"] is None
    assert hlbt(
        "backtest", "--oracle", MOMENTUM, "--param", "lookback_hours=72", "--param", "n=3", *SPAN, "--no-report"
    )
    assert count_trials(Path("reports"), [MOMENTUM]).total == 6
    assert hlbt("backtest", "--oracle", MOMENTUM, "--param", "lookback_hours=73", *SPAN, "--no-report").code == 0
    assert count_trials(Path("reports"), [MOMENTUM]).total == 7

    # The verdict by its own command now counts the seventh trial, and writes the page that the sweep without it took.
    assert not (folder / "index.html").exists()
    said = hlbt("validate", "mine", "--top", "0")
    assert said.code == 0 and "checks failed" in said.out
    assert json.loads((folder / "verdict.json").read_text())["details"]["trials"]["judged"] == 7
    assert (folder / "index.html").is_file()
    assert hlbt("validate", "mine", "--top", "0", "--strict", "--json").code == 2
    index = hlbt("index")
    assert index.code == 0 and "mine/index.html" in Path("reports/index.html").read_text()


def test_from_a_study_file(hlbt: Hlbt, tmp_path: Path) -> None:
    study = tmp_path / "three.toml"
    study.write_text(
        'oracle = ["research.oracles.momentum:Momentum", "research.oracles.reversal:Reversal"]\n'
        'where = "n < lookback_hours"\n'
        "[params]\ngross = 0.8\n"
        '[grid]\nlookback_hours = [24, 72]\nn = [3, 60]\n"execution.hour_utc" = [23, 9]\n'
        '[data]\nstart = "2024-05-01"\nend = "2024-06-01"\n'
    )
    answer = json.loads(hlbt("sweep", str(study), "--sample", "9", "--no-verdict", "--json").out)
    assert answer["folder"] == "reports/three" and answer["sets"]["total"] == 9
    record = json.loads(Path("reports/three/sweep.json").read_text())
    assert record["fixed"] == {"gross": 0.8} and record["config"]["data"]["start"] == "2024-05-01"
    assert record["keys"] == ["oracle", "lookback_hours", "n", "execution.hour_utc"]
    shown = hlbt("sweep", str(study), "--no-verdict", "--name", "other")
    assert shown.code == 0 and "SYNTHETIC" in shown.out and "12 sets" in shown.out


def test_failed_sets_are_said(hlbt: Hlbt) -> None:
    shown = hlbt("sweep", "--oracle", MOMENTUM, "--grid", "lookback_hours=72,-1", *SPAN, "--no-verdict")
    assert shown.code == 0 and "1 of 2 sets failed" in shown.out and "lookback_hours = -1 is not accepted" in shown.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--oracle", MOMENTUM], "The grid is empty"),
        (["--grid", "n=3"], "Name what to sweep"),
        (["--oracle", MOMENTUM, "--grid", "lookback=3"], "Did you mean 'lookback_hours'"),
        (["--oracle", MOMENTUM, "--grid", "n"], "is not k=a,b,c"),
        (["--oracle", MOMENTUM, "--grid", "n=3", "--param", "n=4"], "both fixed and in the grid"),
        (["--oracle", MOMENTUM, "--grid", "n=3", "--where", "n > 5"], "exclude every one"),
        (["--oracle", MOMENTUM, "--grid", "n=3", "--executor", "rai"], "Did you mean 'ray'"),
        (["--oracle", MOMENTUM, "--grid", "n=3", "--address", "x:1"], "add --executor ray"),
        (["--oracle", MOMENTUM, "--grid", "n=3", "--executor", "ray", "--address", "127.0.0.1:9"], "cannot be reached"),
        (["absent.toml"], "cannot be read"),
        (["--oracle", MOMENTUM, "--grid", "n=3", "--set", "data.cache=nowhere"], "nowhere"),
    ],
)
def test_what_is_refused(hlbt: Hlbt, words: list[str], said: str) -> None:
    done = hlbt("sweep", *words, *SPAN)
    assert done.code == 1 and said in done.err and done.err.strip().count("\n") == 0, done.err
    assert not list(Path("reports").glob("*/sweep.json"))


def test_validate_refuses(hlbt: Hlbt) -> None:
    done = hlbt("validate", "absent")
    assert done.code == 1 and "is not a sweep folder" in done.err
    hlbt("sweep", "--oracle", MOMENTUM, "--grid", "n=3", *SPAN, "--name", "mine", "--no-verdict")
    done = hlbt("validate", "mine", "--set", "costs.taker_bps=1")
    assert done.code == 1 and "only data.cache can be set" in done.err
