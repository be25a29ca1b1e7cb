"""Runs as objects: listed, annotated, renamed, removed; nothing that hlbt did not make is touched."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import warnings
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pyarrow.parquet as pq
import pytest

from engine.reporting.tearsheet import write_tearsheet
from engine.run_folders import check_own, remove_folder, rename_folder
from engine.runs import Run, load_run
from engine.simulation.result import Result
from engine.sweeps.trials import count_trials, families_below
from helpers.commands import Hlbt
from helpers.effort import some
from helpers.made_runs import saved, simulated

MOMENTUM = ("--oracle", "research.oracles.momentum:Momentum", "--param", "n=3")
SPAN = ("--set", "data.start=2024-01-02", "--set", "data.end=2024-02-10")
NASTY = "<script>alert(1)</script> & \"q\" 'é'"


@pytest.fixture(scope="module")
def result() -> Result:
    return simulated(days=30, coins=4)


@pytest.fixture
def reports(result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("reports/.trials").mkdir(parents=True)
    saved(result, Path("reports/slow"), parameters={"lookback_hours": 720, "n": 3})
    saved(result, Path("reports/fast"), parameters={"lookback_hours": 24, "n": 3})
    return Path("reports")


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_list_says_what_differs(reports: Path, hlbt: Hlbt) -> None:
    listed = hlbt("runs", "--json", "--sort", "name").json["runs"]
    assert {run["folder"] for run in listed} == {"slow", "fast"}
    assert all(run["varies"] == ["lookback_hours"] for run in listed)
    assert {"account.max_gross"} & listed[0]["settings"].keys() == set(), "1.0 is the default"
    assert [run["folder"] for run in hlbt("runs", "lookback_hours", "720", "--json").json["runs"]] == ["slow"]
    assert hlbt("runs", "--where", "sharpe > 1e9", "--json").json["runs"] == []
    # The same oracle's name and parameters, and other code: a class of a notebook that was defined again.
    record = json.loads((reports / "fast/run.json").read_text())
    record["origin"]["digest"] = "cd" * 32
    shutil.copytree(reports / "fast", reports / "again")
    (reports / "again/run.json").write_text(json.dumps(record))
    again = next(run for run in hlbt("runs", "--json").json["runs"] if run["folder"] == "again")
    assert "oracle digest" in again["varies"] and again["settings"]["oracle digest"] == "cdcdcdcd"
    shutil.rmtree(reports / "again")
    (reports / "torn").mkdir()
    (reports / "torn/run.json").write_text("{")
    listed = hlbt("runs", "--json").json["runs"]
    assert len(listed) == 3 and "damaged" in next(run["error"] for run in listed if run["folder"] == "torn")
    for words, message in (
        (("--sort", "sharp"), "Did you mean 'sharpe'"),
        (("--where", "shape > 1"), "--where 'shape > 1' cannot be read"),
        (("--where", "trades"), "not true or false"),
        (("--reports", "nowhere"), "nowhere is no folder of runs"),
    ):
        done = hlbt("runs", *words)
        assert done.code == 1 and message in done.err and done.err.count("\n") == 1


def test_notes_are_shown_escaped_and_outlive_a_new_run(reports: Path, result: Result, hlbt: Hlbt) -> None:
    assert hlbt("note", "slow", NASTY).code == 0
    assert [note["text"] for note in hlbt("note", "slow", "--json").json["notes"]] == [NASTY]
    page = (reports / "index.html").read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    saved(result, reports / "slow", parameters={"lookback_hours": 5})
    assert hlbt("runs", "alert", "--json").json["runs"][0]["notes"][0]["text"] == NASTY
    assert hlbt("note", "slow", "--clear").code == 0 and not (reports / "slow/notes.json").exists()
    (reports / "slow/notes.json").write_text("my own")
    done = hlbt("note", "slow", "more")
    assert done.code == 1 and "holds no notes of hlbt" in done.err
    assert (reports / "slow/notes.json").read_text() == "my own"


def test_foreign_files_stay_when_a_run_is_replaced(reports: Path, result: Result) -> None:
    folder = reports / "slow"
    (folder / "NOTES.md").write_text("mine")
    (folder / "charts/deep").mkdir(parents=True)
    (folder / "charts/deep/a.csv").write_text("1")
    (folder / "link").symlink_to("/nowhere")
    inode = (folder / "NOTES.md").stat().st_ino
    saved(result, folder, parameters={"lookback_hours": 5})
    assert load_run(folder).record["origin"]["parameters"] == {"lookback_hours": 5}
    assert (folder / "NOTES.md").read_text() == "mine" and (folder / "NOTES.md").stat().st_ino == inode
    assert (folder / "charts/deep/a.csv").read_text() == "1" and os.readlink(folder / "link") == "/nowhere"
    assert not [path for path in reports.iterdir() if path.name.startswith(".slow")]


def test_rm_removes_what_hlbt_made_and_nothing_else(reports: Path, tmp_path: Path, hlbt: Hlbt) -> None:
    (reports / "slow/NOTES.md").write_text("mine")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "equity.parquet").write_text("precious")
    (reports / "fast/equity.parquet").unlink()
    (reports / "fast/equity.parquet").symlink_to(outside / "equity.parquet")
    (reports / "alias").symlink_to("slow")
    (reports / "other").mkdir()
    (reports / "other/thesis.txt").write_text("years")
    before = files(tmp_path)
    for name in (".", "..", "other", "live", "../outside", "/", "alias", "reports/slow/..", "nowhere"):
        done = hlbt("rm", name, "--yes")
        assert done.code == 1 and done.err.count("\n") == 1, name
    assert hlbt("rm", "slow").code == 1, "nobody can be asked"
    assert hlbt("rm", "slow", "other", "--yes").code == 1, "all or none"
    assert files(tmp_path) == before
    done = hlbt("rm", "slow", "fast", "--yes", "--json")
    assert done.json == {"removed": ["reports/slow", "reports/fast"], "left": {"reports/slow": ["NOTES.md"]}}
    assert not (reports / "fast").exists() and set(files(reports / "slow")) == {"NOTES.md"}
    assert (outside / "equity.parquet").read_text() == "precious"


def test_mv_keeps_links(reports: Path, result: Result, hlbt: Hlbt) -> None:
    write_tearsheet(load_run(reports / "slow"))
    page = reports / "slow/tearsheet.html"
    page.write_text(page.read_text().replace("<h1>", '<a href="../fast/index.html">All checks</a><h1>', 1))
    (reports / "latest").symlink_to("fast")
    moved = hlbt("mv", "fast", "a b&c", "--json").json["folder"]
    assert moved == "reports/a b&c" and load_run(moved).record["name"] == "a b&c"
    assert 'href="../a%20b%26c/index.html"' in page.read_text() and os.readlink(reports / "latest") == "a b&c"
    for taken in ("slow", "../x", ".x", "", "live"):
        assert hlbt("mv", "a b&c", taken).code == 1
    remove_folder(reports / "a b&c", reports)
    assert "All checks" in page.read_text() and "a%20b" not in page.read_text(), "no dead link is left"


def test_every_page_links_back_and_the_index_to_every_page(reports: Path, hlbt: Hlbt) -> None:
    write_tearsheet(load_run(reports / "slow"))
    (reports / "signals-x.html").write_text(
        '<head><meta name="generator" content="hlbt signals"><title>A &amp; B</title></head>'
    )
    (reports / "mine.html").write_text("<title>not of hlbt</title>")
    assert hlbt("index").code == 0
    page = (reports / "index.html").read_text()
    links = re.findall(r'href="([^"]+)"', page)
    assert {"slow/tearsheet.html", "signals-x.html"} <= set(links) and "mine.html" not in links
    assert all((reports / link).is_file() for link in links)
    assert 'href="../index.html"' in (reports / "slow/tearsheet.html").read_text()
    assert "<b>lookback_hours=720</b>" in page and "<b>n=3</b>" not in page
    assert hlbt("report", "fast").code == 0
    assert 'href="fast/tearsheet.html"' in (reports / "index.html").read_text(), "without hlbt index"


def test_a_page_elsewhere_makes_no_index_there(reports: Path, hlbt: Hlbt, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/index.html").write_text("my own")
    assert hlbt("compare", "slow", "fast", "--out", tmp_path / "mine/both.html").code == 0
    assert (tmp_path / "mine/index.html").read_text() == "my own"


def test_a_page_that_lies_elsewhere_has_no_link(result: Result, tmp_path: Path) -> None:
    run: Run = saved(result, tmp_path / "alone")
    assert 'class="back"' not in write_tearsheet(run).read_text()


def test_a_rename_or_removal_meets_no_folder_of_a_sweep_inside(reports: Path, result: Result) -> None:
    top = reports / "grid/top/best"
    saved(result, top)
    for act in (lambda: check_own(top, reports), lambda: rename_folder(top, "x", reports)):
        with pytest.raises(Exception, match="is part of grid/top"):
            act()


def trials(reports: Path = Path("reports")) -> int:
    return count_trials(reports, families_below(reports)).total


def test_what_is_taken_from_a_run_has_its_dates_and_costs_and_is_no_trial(
    hlbt: Hlbt, sample_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))
    first = hlbt("backtest", *MOMENTUM, *SPAN, "--set", "costs.taker_bps=9", "--no-report", "--json").json
    run = first["folder"]
    again = hlbt("backtest", "--like", run, "--no-report", "--json").json
    assert (again["folder"], again["metrics"]) == (run, first["metrics"]) and trials() == 1
    dearer = hlbt("backtest", "--like", run, "--set", "costs.stress=3", "--no-report", "--json").json
    assert dearer["span"] == first["span"] and dearer["config"]["costs"]["taker_bps"] == 9.0
    assert dearer["metrics"]["sharpe"] < first["metrics"]["sharpe"] and trials() == 1
    capacity = hlbt("capacity", run, "--sizes", "1e4,1e6", "--json").json
    assert capacity["page"] == f"{run}/capacity.html" and trials() == 1
    signals = hlbt("oracle", "report", run, "--json").json
    assert (signals["start"], signals["parameters"]["n"]) == (first["span"]["start"], 3) and trials() == 1
    other = hlbt("backtest", "--like", run, "--param", "n=4", "--no-report", "--json").json
    assert other["origin"]["parameters"]["n"] == 4 and trials() == 2, "another idea is a trial"
    page = Path("reports/index.html").read_text()
    assert all((Path("reports") / unquote(link)).is_file() for link in re.findall(r'href="([^"]+)"', page))
    assert "signals-" in page and "capacity.html" in page


def test_a_run_of_a_weights_file_is_run_again_without_the_file(
    hlbt: Hlbt, sample_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))
    times = [f"2024-01-{day:02}T23:00Z" for day in range(3, 30)]
    pd.DataFrame({"time": times, "BTC": 0.5, "ETH": -0.25}).to_csv("w.csv", index=False)
    first = hlbt("backtest", "--weights", "w.csv", *SPAN, "--no-report", "--json").json
    Path("w.csv").unlink()
    again = hlbt("backtest", "--like", first["folder"], "--no-report", "--json").json
    assert (again["folder"], again["metrics"]) == (first["folder"], first["metrics"]) and trials() == 1
    cheap = hlbt("backtest", "--like", first["folder"], "--set", "costs.taker_bps=0", "--no-report", "--json").json
    assert cheap["metrics"]["equity_end_usd"] > first["metrics"]["equity_end_usd"] and trials() == 1
    for words, message in (
        (("backtest", "--like", first["folder"], "--param", "n=3"), "has no parameters"),
        (("backtest", "--like", first["folder"], *MOMENTUM), "only one of them"),
        (("backtest", "--like", "nowhere"), "neither a run nor a sweep"),
        (("oracle", "report", first["folder"]), "ran a weights file"),
    ):
        done = hlbt(*words)
        assert done.code == 1 and message in done.err and done.err.count("\n") == 1, (words, done.err)


def test_a_comparison_in_the_terminal_and_as_a_page(reports: Path, hlbt: Hlbt, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(simulated(days=20, coins=4), reports / NASTY.replace("/", "_"), parameters={"lookback_hours": 720, "n": 3})
    done = hlbt("compare", "slow", "fast", "--json").json
    assert done["config"]["slow"] == {"lookback_hours": 720} and done["config"]["fast"] == {"lookback_hours": 24}
    assert done["correlation"]["slow"]["fast"] == pytest.approx(1.0) and done["weights"]["distance"]["fast"] == 0.0
    assert done["page"] == "reports/compare-slow-fast.html"
    page = Path(done["page"]).read_text()
    assert 'href="slow/tearsheet.html"' in page and 'href="index.html"' in page
    assert "compare-slow-fast.html" in (reports / "index.html").read_text()
    monkeypatch.setenv("COLUMNS", "80")
    shown = hlbt("compare", "slow", "fast", "slow").err
    assert "not with itself" in shown
    assert max(map(len, hlbt("compare", "slow", "fast").out.splitlines())) <= 80
    other = hlbt("compare", "slow", NASTY.replace("/", "_"), "--json").json
    text = Path(other["page"]).read_text()
    assert "<script>alert" not in text and other["config"]["slow"].keys() >= {"span.end"}
    done = hlbt("compare", "slow")
    assert done.code == 1 and "Name another" in done.err


def test_what_is_exported_is_what_was_run(reports: Path, result: Result, hlbt: Hlbt) -> None:
    files = hlbt("export", "slow", "--to", "parquet", "--json").json["files"]
    pd.testing.assert_frame_equal(pd.read_parquet(files["trades"]), load_run(reports / "slow").trades)
    files = hlbt("export", "slow", "--out", "mine", "--json").json["files"]
    equity = pd.read_csv(files["equity"], parse_dates=["time"])
    assert equity["equity_usd"].to_numpy() == pytest.approx(result.equity.to_numpy(), rel=1e-12)
    assert float(pd.read_csv(files["metrics"], index_col="metric").loc["sharpe", "value"]) == result.metrics["sharpe"]
    for words, message in (
        (("slow", "--out", "mine"), "Nothing is overwritten"),
        (("slow", "--to", "excel"), "choose one of csv, parquet"),
        (("nowhere",), "is no run folder"),
    ):
        done = hlbt("export", *words)
        assert done.code == 1 and message in done.err and done.err.count("\n") == 1


def test_a_run_is_logged_to_mlflow_once(
    reports: Path, hlbt: Hlbt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = (str(tmp_path / "runs"), f"sqlite:///{tmp_path / 'runs.db'}")[some(0, 1)]
    assert hlbt("note", "slow", "it's \u201cmine\u201d").code == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own, about its libraries
        first = hlbt("export", "slow", "--to", "mlflow", "--tracking", store, "--json").json
        again = hlbt("export", "slow", "--to", "mlflow", "--tracking", store, "--json").json
        other = hlbt("export", "fast", "--to", "mlflow", "--tracking", store, "--experiment", "two", "--json").json
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=store)
        logged, record = client.get_run(first["mlflow_run"]), load_run("reports/slow").record
        files = {item.path for item in client.list_artifacts(first["mlflow_run"])}
    assert again == first and other["mlflow_run"] != first["mlflow_run"] and logged.info.status == "FINISHED"
    assert logged.data.params["oracle.lookback_hours"] == "720" and logged.data.params["costs.taker_bps"]
    assert logged.data.params["oracle"] == record["origin"]["path"]
    assert len([key for key in logged.data.params if "." in key]) > 15
    numbers = {key: value for key, value in record["metrics"].items() if isinstance(value, int | float)}
    assert logged.data.metrics == pytest.approx(numbers, nan_ok=True) and len(numbers) > 20
    assert logged.data.tags["hlbt.digest.data"] == record["digests"]["data"]
    assert logged.data.tags["hlbt.verdict"] == "none" and logged.data.tags["mlflow.note.content"].startswith("it's")
    assert files == {path.name for path in Path("reports/slow").iterdir()}

    secret = hlbt("export", "slow", "--to", "mlflow", "--tracking", "ftp://me:hunter2@host/t0ken?key=v4lue")
    assert secret.code == 1 and "at ftp://host (" in secret.err and not re.search("hunter2|t0ken|v4lue", secret.err)
    for words in (("mlflow", "--out", "x"), ("csv", "--tracking", store), ("parquet", "--experiment", "x")):
        wrong = hlbt("export", "slow", "--to", *words)
        assert wrong.code == 1 and "means nothing with" in wrong.err
    monkeypatch.setitem(sys.modules, "mlflow", None)
    absent = hlbt("export", "slow", "--to", "mlflow")
    assert absent.code == 1 and "pip install 'hlbt[mlflow]'" in absent.err


def test_every_file_of_a_run_is_plain_parquet(reports: Path) -> None:
    """Other programs know neither pandas' index nor its categories: the time is a column, texts are texts."""
    files = sorted(reports.rglob("*.parquet"))
    assert {file.name for file in files} >= {"equity.parquet", "trades.parquet", "weights.parquet", "hourly.parquet"}
    for file in files:
        schema = pq.read_schema(file)
        assert not (schema.pandas_metadata or {}).get("index_columns"), file
        kinds = {str(field.type) for field in schema}
        assert kinds <= {"timestamp[ms, tz=UTC]", "double", "int64", "large_string"}, file
        assert str(schema.field(0).type).startswith("timestamp") or file.name == "round_trips.parquet", file
