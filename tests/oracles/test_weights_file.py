"""A weights file as the source of a run: rows off the decision hour, and the days that it covers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine import RunConfig, backtest, load_panel
from engine.errors import WeightsError
from engine.oracles.weights_file import WeightsFile
from helpers.commands import Hlbt


def written(times: list[str], weights: object = 0.25) -> Path:
    frame = pd.DataFrame({"BTC": weights}, index=pd.Index(times, name="time"))
    frame.to_csv("w.csv")
    return Path("w.csv")


def nights(first: str, count: int, step: str = "1D") -> list[str]:
    return [f"{time:%Y-%m-%dT%H:%M}Z" for time in pd.date_range(first, periods=count, freq=step)]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_rows_off_the_hour_are_refused_with_both_readings_of_the_stamp() -> None:
    file = written(nights("2024-03-02 00:00", 4))
    with pytest.raises(WeightsError) as refused:
        WeightsFile.open(file, RunConfig())
    for text in (
        "4 of 4 rows are off execution.hour_utc = 23, the first at 2024-03-02 00:00 UTC",
        "the day whose data the row holds",
        "2024-03-03T23:00Z",  # the first decision after that day has ended
        "--set execution.hour_utc=0",
    ):
        assert text in str(refused.value)
    assert WeightsFile.open(file, RunConfig.from_dict({"execution": {"hour_utc": 0}})).notes[1:] == ()
    with pytest.raises(WeightsError, match=r"2 of 3 rows .* the first at 2024-03-02 11:00 UTC.*: --any-hour\."):
        WeightsFile.open(written(["2024-03-01T23:00Z", "2024-03-02T11:00Z", "2024-03-03T12:00Z"]), RunConfig())
    with pytest.raises(WeightsError, match=r"1 of 1 rows .* the first at 2024-03-01 23:30 UTC"):
        WeightsFile.open(written(["2024-03-01T23:30Z"]), RunConfig())


def test_rows_off_the_hour_are_traded_with_a_note_when_asked_for() -> None:
    file = written(["2024-03-01T23:00Z", "2024-03-02T11:00Z"])
    read = WeightsFile.open(file, RunConfig(), any_hour=True)
    assert "1 of 2 rows of w.csv are off execution.hour_utc = 23, the first at 2024-03-02 11:00 UTC" in read.notes[0]


@pytest.mark.parametrize(
    ("times", "execution", "start", "end"),
    [
        (nights("2024-03-01 23:00", 5), {}, "2024-03-01T23:00Z", "2024-03-06T23:00Z"),
        (nights("2024-03-01 23:00", 1), {}, "2024-03-01T23:00Z", "2024-03-02T23:00Z"),
        (nights("2024-03-01 23:00", 4, "7D"), {"delay_hours": 2}, "2024-03-01T23:00Z", "2024-03-30T01:00Z"),
        (
            nights("2024-03-10 23:00", 3),
            {"target_volatility": 0.2, "volatility_days": 5},
            "2024-03-05T23:00Z",
            "2024-03-13T23:00Z",
        ),
    ],
)
def test_the_days_of_a_run_are_those_of_the_file(times: list[str], execution: dict, start: str, end: str) -> None:
    config = RunConfig.from_dict({"execution": execution})
    read = WeightsFile.open(written(times), config)
    assert (read.config.data.start, read.config.data.end) == (start, end)
    assert f"{times[0][:10]} 23:00 UTC to" in read.notes[0]
    dated = RunConfig.from_dict({"data": {"end": "2024-04-01"}, "execution": execution})
    assert WeightsFile.open(written(times), dated).config == dated


def test_a_short_file_on_a_long_cache_has_the_figures_of_its_own_days(sample_cache: Path, hlbt: Hlbt) -> None:
    times = nights("2024-03-01 23:00", 5)
    file = written(times, [0.5, -0.2, 0.1, 0.3, np.nan])
    where = ("--set", f"data.cache={sample_cache}")
    done = hlbt("backtest", "--weights", file, *where, "--no-report", "--json")
    assert done.code == 0, done.err
    panel = load_panel(sample_cache, "2024-03-01T23:00Z", "2024-03-06T23:00Z")
    frame = pd.DataFrame({"BTC": [0.5, -0.2, 0.1, 0.3, np.nan]}, index=pd.DatetimeIndex(times))
    own = backtest(panel, frame).metrics
    assert done.json["metrics"]["sharpe"] == pytest.approx(own["sharpe"], rel=1e-12)
    record = json.loads((Path(done.json["folder"]) / "run.json").read_text())
    assert record["config"]["data"]["start"] == "2024-03-01T23:00Z" and record["span"]["hours"] == 5 * 24 + 1
    assert any("the run covers the days of the weights file" in note for note in record["notes"])
    done = hlbt("backtest", "--weights", written(nights("2024-03-02 00:00", 3)), *where, "--no-report")
    assert done.code == 1 and "rows are off execution.hour_utc" in done.err and done.err.count("\n") == 1
    done = hlbt("backtest", "--weights", "w.csv", *where, "--no-report", "--any-hour")
    assert done.code == 0 and "3 of 3 rows of w.csv are off" in " ".join(done.out.split()), done.err
