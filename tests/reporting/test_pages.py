"""What pages share, the page of all runs, and tables of the terminal: numbers are the run's, nothing is cut off."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from engine.commands.tables import demo_table, result_tables, sweep_table
from engine.config import RunConfig
from engine.errors import DataError
from engine.reporting import charts, figure_svg, html
from engine.reporting import run_page as pages
from engine.reporting.assumptions import modelled
from engine.reporting.comparison_page import settings
from engine.reporting.index_page import write_index
from engine.reporting.run_section import run_section
from engine.runs import Origin, Run
from helpers import studies_page
from helpers.commands import Hlbt
from helpers.made_runs import saved, simulated

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return saved(simulated(), tmp_path_factory.mktemp("runs") / "drift")


def test_templates_are_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def compiled(*_: object) -> None:
        raise AssertionError("a template is compiled again")

    html.templates().get_template("sweep.html")
    html.templates.cache_clear()  # as a process that begins
    monkeypatch.setattr(jinja2.Environment, "_compile", compiled)
    html.templates().get_template("sweep.html")
    (tmp_path / "file").touch()
    assert html._kept(tmp_path / "file") is None  # where it cannot be written to
    html.templates.cache_clear()


def test_impact_is_in_every_sum(tmp_path: Path) -> None:
    made = simulated(costs={"impact": "venue"})
    run = saved(made, tmp_path / "run")
    numbers = run.record["metrics"]
    assert numbers["impact_usd"] > 0.0
    paid = -(numbers["spread_usd"] + numbers["impact_usd"]) / numbers["equity_start_usd"]
    assert pages.index_row(run.record, run.folder)["figures"][6] == pytest.approx(paid, rel=1e-12)
    text = run_section(run, ())
    assert text.count("spread, impact<") == 2 and "<th>spread</th>" not in text


@pytest.mark.parametrize(
    ("execution", "words"),
    [
        ({}, "Decisions at 23:00 UTC, traded at that instant, on data known just before."),
        (
            {"every_days": 7, "delay_hours": 2},
            "Decisions every 7 days, on Thursdays at 23:00 UTC, traded 2 h later, on",
        ),
        ({"weekdays": ["mon", "thu"], "hour_utc": 5}, "Decisions at 05:00 UTC on mon, thu only, traded"),
    ],
)
def test_the_schedule_is_said(execution: dict[str, Any], words: str) -> None:
    # A run's record has the config as JSON gives it back.
    config = json.loads(json.dumps(RunConfig.from_dict({"execution": execution}).to_dict()))
    assert modelled({"config": config})[0][0].startswith(words)


def test_by_night_every_colour_may_be_another_but_words_on_a_coloured_ground() -> None:
    drawn = '<path style="fill: #ffffff; stroke: #348dc1"/><text style="font: 9px; fill: #ffffff">1</text>'
    assert figure_svg.themed(drawn) == (
        '<path style="fill: var(--cffffff,#ffffff); stroke: var(--c348dc1,#348dc1)"/>'
        '<text style="font: 9px; fill: #ffffff">1</text>'
    )


def test_thinning_keeps_peaks_and_troughs() -> None:
    values = np.random.default_rng(0).normal(size=50_000).cumsum()
    values[[123, 40_001]] = [1e6, -1e6]
    values[7_000:7_500] = np.nan
    kept = charts.thin(values, 1000)
    assert len(kept) <= 1000
    assert (np.diff(kept) > 0).all()
    assert {0, 123, 40_001, 49_999} <= set(kept.tolist())
    np.testing.assert_array_equal(charts.thin(values[:900], 1000), np.arange(900))


def test_index_lists_every_run_and_the_damaged_ones(run: Run, tmp_path: Path) -> None:
    record = json.loads((run.folder / "run.json").read_text())
    for name, change in {
        "older": {"created": "2025-01-01T00:00:00+00:00"},
        "newer & <b>": {"created": "2025-12-01T00:00:00+00:00", "synthetic": True},
        "future": {"schema": 99},
        "listed": [],
    }.items():
        (tmp_path / name).mkdir()
        content = json.dumps({**record, **change} if isinstance(change, dict) else change)
        (tmp_path / name / "run.json").write_text(content)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text('{"schema": 1, "na')
    (tmp_path / "lacking").mkdir()
    (tmp_path / "lacking" / "run.json").write_text(json.dumps({**record, "metrics": {}}))
    (tmp_path / "older" / "tearsheet.html").write_text("x")
    (tmp_path / "no run").mkdir()
    text = write_index(tmp_path).read_text(encoding="utf-8")
    body = text[text.index("<tbody>") :]
    assert body.index("newer &amp; &lt;b&gt;") < body.index("older")
    assert "no run" not in body
    assert body.count("<tr>") == 6
    assert 'href="older/tearsheet.html"' in body
    assert body.count("no tearsheet: made with --no-report; hlbt report makes it") == 1
    assert body.count("SYNTHETIC") == 1
    for words in ("schema 99", "JSONDecodeError", "not a table of sections", "lacks metrics.equity_start_usd"):
        assert words in body
    assert f'data-v="{record["metrics"]["sharpe"]!r}"' in body
    assert f'data-v="{-record["metrics"]["fee_usd"] / record["metrics"]["equity_start_usd"]!r}"' in body
    assert not re.search(r"https?://|<link|src=", text)
    assert text.count("<th ") == text.count("<button") == 15
    # Beside the name, which a telephone shows first and keeps in sight.
    assert "SYNTHETIC" in body[: body.index("</td>")]


def test_index_of_two_thousand_runs(run: Run, tmp_path: Path) -> None:
    content = (run.folder / "run.json").read_text()
    for number in range(2000):
        folder = tmp_path / f"drift-20241120-20250128-{number:08x}"
        folder.mkdir()
        (folder / "run.json").write_text(content)
    written = write_index(tmp_path)
    assert written.stat().st_size < 4_000_000
    assert written.read_text(encoding="utf-8").count("<tr>") == 2001


def test_a_comparison_leaves_out_what_no_run_sets() -> None:
    config = pd.DataFrame(
        {"a": [None, 3, None], "b": [None, np.nan, "xyz"]}, index=["dex", "n", "market"], dtype=object
    )
    told = settings(SimpleNamespace(config=config))  # type: ignore[arg-type]
    assert told.to_dict("index") == {"n": {"a": "3", "b": ""}, "market": {"a": "", "b": "xyz"}}


def test_index_of_nothing(tmp_path: Path) -> None:
    assert "No runs yet" in write_index(tmp_path).read_text(encoding="utf-8")
    with pytest.raises(DataError, match="is no folder of runs"):
        write_index(tmp_path / "absent")


def printed(*parts: Any, width: int = 80) -> list[str]:
    """Lines that a terminal of that width gets."""
    console = Console(width=width, highlight=False)
    with console.capture() as shown:
        for part in parts:
            console.print(part, soft_wrap=True)
    return [line.rstrip() for line in shown.get().splitlines()]


def test_the_tables_of_a_run_fit_a_narrow_terminal() -> None:
    made = simulated(synthetic=True, costs={"impact": "venue"})
    origin = Origin("Drift", "oracle", "research.oracles.drift:Drift", {}, "ab" * 32)
    made.metrics["net_mean"] = -1e-9
    lines = printed(*result_tables(made, origin))
    numbers = made.metrics
    assert max(map(len, lines[1:])) <= 80 and "[SYNTHETIC DATA]" in lines[0]
    assert any(f"{numbers['gross_mean']:.2f}, +0.00" in line for line in lines)
    costs = -numbers["fee_usd"] - numbers["spread_usd"] - numbers["impact_usd"]
    demo = printed(demo_table([(made, origin, Path("x"))]))
    assert numbers["impact_usd"] > 1.0 and f" {costs:,.0f} " in demo[4]
    assert "12 coins, 2024-11-20 to 2025-01-28" in demo[0] and max(map(len, demo)) <= 80


@pytest.mark.parametrize("width", [80, 120])
def test_the_best_sets_are_a_row_each_with_whole_values(tmp_path: Path, width: int) -> None:
    study = studies_page.study(tmp_path / "grid", {**studies_page.GRID, "weighting": ["equal", "risk"]})
    study.record["sets"] = {"total": len(study), "reused": 0, "failed": 3}
    table = printed(sweep_table(study), width=width)
    assert max(map(len, table)) <= width
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table if line.startswith("│")]
    assert len(rows) == 10
    best = study.table["sharpe"].sort_values(ascending=False)
    assert [row[4] for row in rows] == [f"{value:.2f}" for value in best[:10]]
    assert [row[:4] for row in rows] == [[str(value) for value in label] for label in best.index[:10]]


def test_a_folder_of_the_same_name_does_not_hide_a_run(run: Run, hlbt: Hlbt) -> None:
    saved(simulated(days=3), Path("reports") / "drift")
    Path("drift").mkdir()
    done = hlbt("report", "drift", "--json")
    assert done.code == 0, done.err
    assert Path(done.json["tearsheet"]) == Path("reports/drift/tearsheet.html")
    assert hlbt("report", run.folder).code == 0


def test_a_damaged_sweep_leaves_the_others_on_the_index(run: Run, tmp_path: Path) -> None:
    for name, content in (("torn", "{"), ("other", '{"schema": 1}'), ("list", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sweep.json").write_text(content)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text((run.folder / "run.json").read_text())
    text = write_index(tmp_path).read_text(encoding="utf-8")
    assert ">Drift<" in text and "1 run<" in text
    sweeps = text[text.index('id="sweeps"') :]
    for name in ("torn", "other", "list"):
        row = sweeps[sweeps.index(f'<td class="t long">{name}</td>') :].split("</tr>")[0]
        assert "loss" in row and len(re.sub(r"<[^>]*>", "", row)) > 40
