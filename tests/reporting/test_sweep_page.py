"""The sweep page as text: what it says, what it holds, how large it is. test_sweep_browser.py opens it."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine.errors import DataError
from engine.provenance import as_json
from engine.reporting import sweep_charts
from engine.reporting.index_page import write_index
from engine.reporting.sweep_page import inlined, write_sweep_page
from engine.sweeps.study import Study, index_of
from helpers import studies_page as studies

NASTY = '</script><!--<script>alert("&\u2028")</script>'


def written(study: Study, verdict: dict[str, Any] | None, **more: Any) -> str:
    return write_sweep_page(study, verdict, **more).read_text(encoding="utf-8")


def payload(page: str) -> dict[str, Any]:
    """The numbers of a page, read as a browser does: up to the first end of a script."""
    text = page.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    found: dict[str, Any] = json.loads(text)
    return found


def seen(page: str) -> str:
    """Texts of a page, without scripts and styles."""
    texts: list[str] = []

    class Reader(HTMLParser):
        skipped = 0

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.skipped += tag in ("script", "style")

        def handle_endtag(self, tag: str) -> None:
            self.skipped -= tag in ("script", "style")

        def handle_data(self, data: str) -> None:
            if not self.skipped:
                texts.append(data)

    Reader().feed(page)
    return " ".join(" ".join(texts).split())


def unpacked(packed: dict[str, Any]) -> np.ndarray:
    values = np.frombuffer(base64.b64decode(packed["data"]), dtype="<" + packed["type"])
    return unpacked(packed["of"])[values] if "of" in packed else values


def test_the_page_says_verdict_checks_and_what_was_swept(tmp_path: Path) -> None:
    study = studies.study(tmp_path / "momentum")
    verdict = studies.verdict(study)
    text = seen(written(study, verdict, tearsheets={5: "../run a/tearsheet.html", study.best(): "b/tearsheet.html"}))
    for check in verdict["checks"]:
        assert check["label"] in text and check["says"] in text
    for words in (
        "LUCK CANNOT BE EXCLUDED YET " + verdict["says"],
        "✗ failed 0.0612 ≤ 0.05",
        "Does choosing by the past pay? yes",
        "not computed n/a ≤ 0.05",
        "sets run 80 failed 3 trials counted 240 effective trials 11.3",
        f"The verdict is about set {study.best():d}",
        "3 sets: OracleError: n = 20 coins of 17",
        "lookback_hours 24, 72, 168, 336, 720",
        "skip_hours 1 in all sets",
        "research.oracles.momentum:Momentum digest 5d41402abc4b",
        "2024-01-31 23:00 UTC to",
        "winner's Sharpe, 95% interval 0.11 to 2.84",
        "A true Sharpe ratio of 2.1 would pass four times in five.",
        "Walk-forward, rolling: what was chosen in each of 5 folds",
    ):
        assert words in text, words
    assert "SYNTHETIC" not in text
    passed = seen(written(study, studies.verdict(study, passed=True)))
    assert "PASSED Nothing here says luck." in passed and "FAILED" not in passed


def test_links_lead_to_tearsheets_best_first_and_nowhere_else(tmp_path: Path) -> None:
    study = studies.study(tmp_path / "s")
    page = written(study, None, tearsheets={5: "javascript:alert(1)", study.best(): "../run a/tearsheet.html"})
    head = page.split('id="data"')[0]
    assert re.findall(r'<a href="([^"]*)"', head) == ["../run%20a/tearsheet.html", "javascript%3Aalert%281%29"]
    assert not re.search(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(?!data:)', page)


def test_synthetic_data_are_labelled(tmp_path: Path) -> None:
    page = written(studies.study(tmp_path / "s", synthetic=True), None)
    assert "SYNTHETIC DATA: made-up prices" in seen(page) and "(SYNTHETIC DATA)</title>" in page


def test_without_a_verdict_the_page_names_the_command_and_marks_the_best(tmp_path: Path) -> None:
    study = studies.study(tmp_path / "momentum", returns=False)
    page = written(study, None)
    assert "NO VERDICT YET" in page and "hlbt validate momentum" in seen(page)
    data = payload(page)
    assert data["fan"] is None and data["winner"]["place"] == study.best()
    assert "why" in data["verdict"]["pbo"] and 'id="logits"' not in page and 'id="fan"' not in page
    assert "no daily returns on disk" in seen(page) and "best set's Sharpe" in seen(page)


def test_a_verdict_of_another_sweep_is_noticed(tmp_path: Path) -> None:
    study = studies.study(tmp_path / "s")
    verdict = studies.verdict(study)
    verdict["details"]["winner"]["place"] = 80
    page = written(study, verdict)
    assert "The verdict is of another sweep: its winner is set 80 of 80 sets." in seen(page)
    assert payload(page)["winner"]["place"] == study.best()


def test_names_and_values_of_users_stay_text(tmp_path: Path) -> None:
    grid = {f"k{NASTY}": [NASTY, "b"], "n": [1, 2]}
    study = studies.study(tmp_path / "s", grid, failed=1, name=NASTY, fixed={NASTY: NASTY})
    study.table.loc[study.table["error"] != "", "error"] = NASTY
    verdict = studies.verdict(study)
    verdict["says"] = verdict["checks"][0]["says"] = verdict["checks"][1]["label"] = NASTY
    verdict["details"]["plateau"] = {"why": NASTY}
    page = written(study, verdict)
    assert NASTY not in page and "<script>alert" not in page
    assert seen(page).count(" ".join(NASTY.split())) >= 8
    data = payload(page)
    assert data["heat"]["axes"][0]["name"] == f"k{NASTY}" and data["verdict"]["plateau"]["why"] == NASTY
    assert NASTY in data["table"]["columns"][-1]["values"]


def test_inlined_json_has_no_markup_and_no_nan() -> None:
    value = {"a": [float("nan"), float("inf"), 1.5, (2, None)], NASTY: NASTY}
    text = str(inlined(value))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == as_json(value) == {"a": [None, None, 1.5, [2, None]], NASTY: NASTY}


def test_packed_arrays_keep_seven_digits_codes_and_nan() -> None:
    values = np.array([1.2345678, -9.8765432e9, np.nan, 0.0])
    np.testing.assert_allclose(unpacked(sweep_charts.packed(values)), values, rtol=1e-7)
    for top, kind in ((255, "u1"), (256, "u2"), (65536, "u4")):
        packed = sweep_charts.packed(np.array([0, top]))
        assert packed["type"] == kind and unpacked(packed).tolist() == [0, top]
    assert sweep_charts.packed(np.array([-1, 2]))["type"] == "f4"
    assert sweep_charts.packed(np.array([1.0, 500.0]))["type"] == "u2"
    few = np.tile([0.5, np.nan, -3.25, np.inf], 1000)
    packed = sweep_charts.packed(few)
    assert len(packed["data"]) < 6000
    np.testing.assert_array_equal(unpacked(packed), few)


def mixed_study(tmp_path: Path) -> Study:
    grid = {"what": ["b", "a", True, None, 1, "1"], "size": [30, 4, 200], "pair": [[1, 2], [0, 5]]}
    return studies.study(tmp_path / "mixed", grid, failed=0)


def test_axes_keep_the_order_of_the_grid_and_sort_numbers(tmp_path: Path) -> None:
    what, size, pair = sweep_charts.axes_of(mixed_study(tmp_path))
    assert what.labels == ['"b"', '"a"', "true", "not set", "1", '"1"'] and not what.numeric
    assert size.levels == [4, 30, 200] and size.numeric and size.codes[:6:2].tolist() == [1, 0, 2]
    assert pair.labels == ["(1, 2)", "(0, 5)"]
    alone = index_of({"only": [True, 1, "x", [1, 2]]}, np.array([[0], [1], [2], [3], [1]]))
    (axis,) = sweep_charts.axes_of(Study({}, pd.DataFrame(index=alone), None))
    assert axis.labels == ["true", "1", '"x"', "(1, 2)"] and axis.codes.tolist() == [0, 1, 2, 3, 1]


def test_a_long_axis_is_grouped_by_neighbours() -> None:
    axis = sweep_charts.Axis("a", list(range(100)), np.arange(100), True)
    labels, codes = axis.grouped(40)
    assert len(labels) == 40 and codes.tolist() == [value * 40 // 100 for value in range(100)]
    assert labels[0] == "0 to 2" and labels[-1] == "98 to 99"


@pytest.mark.parametrize("key", ["0", "1", "0-1", "0-2", "1-2"])
def test_the_heat_map_is_what_pandas_groups(tmp_path: Path, key: str) -> None:
    study = mixed_study(tmp_path)
    study.table.iloc[[3, 8], study.table.columns != "error"] = np.nan
    axes = sweep_charts.axes_of(study)
    winner = study.best()
    found = sweep_charts.heat(study, axes, winner)
    names = [metric["name"] for metric in found["metrics"]]
    shown = [axes[int(place)] for place in key.split("-")]
    cells = found["cells"][key]
    rows = pd.DataFrame({axis.name: axis.codes for axis in axes}).join(study.table[names].reset_index(drop=True))
    by = [axis.name for axis in shown]
    every = pd.MultiIndex.from_product([range(len(axis.levels)) for axis in shown], names=by)
    if len(shown) == 1:
        every = pd.RangeIndex(len(shown[0].levels), name=by[0])
    groups = rows.groupby(by)
    medians = groups[names].median().reindex(every).to_numpy().T
    np.testing.assert_allclose(unpacked(cells["median"]).reshape(medians.shape), medians, rtol=1e-6)
    assert unpacked(cells["count"]).tolist() == groups["sharpe"].count().reindex(every, fill_value=0).tolist()
    known = rows.dropna(subset="sharpe").sort_values("sharpe", ascending=False)
    best = known.groupby(by)[names].first().reindex(every).to_numpy().T
    np.testing.assert_allclose(unpacked(cells["best"]).reshape(best.shape), best, rtol=1e-6)
    for axis in axes:
        if axis not in shown:
            known = known[known[axis.name] == axis.codes[winner]]
    fixed = known.groupby(by)[names].first().reindex(every).to_numpy().T
    np.testing.assert_allclose(unpacked(cells["fixed"]).reshape(fixed.shape), fixed, rtol=1e-6)


def test_curves_and_bands_are_products_of_the_daily_returns(tmp_path: Path) -> None:
    study = studies.study(tmp_path / "s", days=1000)
    assert study.daily_returns is not None
    study.daily_returns.iloc[10, 5] = np.nan  # a day without an instant counts as 0
    study.daily_returns.iloc[500:, 6] = -1.5  # all is lost, and stays so
    found = sweep_charts.fan(study, study.best())
    assert found is not None
    daily = study.daily_returns.to_numpy()
    lives = ~np.isnan(daily).all(axis=0)
    growth = np.maximum(np.vstack([np.ones(80), np.nan_to_num(daily) + 1.0]), 0.0).cumprod(axis=0)
    kept = [0, *(sweep_charts.thinned(1000) + 1)]
    assert len(found["dates"]) == len(kept) == 401 and kept[-1] == 1000
    assert found["dates"][0] == "2024-01-31" and found["dates"][-1] == str(study.daily_returns.index[-1].date())
    curves = unpacked(found["curves"]).reshape(80, 401)
    order = study.ranking()
    np.testing.assert_allclose(curves[:77], growth[kept][:, order[:77]].T, rtol=1e-5)
    assert np.isnan(curves[77:, 1:]).all()
    bands = np.quantile(growth[kept][:, lives], sweep_charts.BANDS, axis=1)
    np.testing.assert_allclose(unpacked(found["bands"]).reshape(5, 401), bands, rtol=1e-6)
    np.testing.assert_allclose(unpacked(found["winner"]), growth[kept][:, study.best()], rtol=1e-5)
    assert (found["sets"], found["kept"]) == (77, 80)


def test_a_winner_by_joint_days_is_the_first_of_the_table_and_of_the_index(tmp_path: Path) -> None:
    study = studies.study(tmp_path / "s", days=200)
    assert study.daily_returns is not None
    lucky = int(study.table["sharpe"].argmin())
    study.daily_returns.iloc[:60, [row for row in range(80) if row != lucky]] = np.nan
    study.table.iloc[lucky, study.table.columns.get_loc("sharpe")] = 99.0  # by days that no other set trades
    page = written(study, studies.verdict(study))
    data, winner = payload(page), study.best()
    table = data["table"]
    assert winner != lucky and unpacked(table["rows"])[0] == winner
    assert [column["label"] for column in table["columns"][:1]] == ["joint Sharpe"]
    np.testing.assert_allclose(unpacked(table["columns"][0]["data"])[0], study.sharpe_joint[winner], rtol=1e-6)
    assert "ranked by the joint Sharpe ratio, of the 140 days that all of them trade" in seen(page)
    # One figure ranks everywhere: heat map, histogram, the winner's line; its own is in the table and a tile alone.
    assert data["heat"]["metrics"][0]["name"] == "sharpe_joint" and data["histogram"]["edges"][-1] < 50.0
    assert np.nanmax(unpacked(data["heat"]["cells"]["0"]["best"])[: len(data["heat"]["axes"][0]["labels"])]) < 50.0
    assert data["winner"]["sharpe"] == study.sharpe_joint[winner]
    assert "99.00" not in seen(write_index(tmp_path).read_text(encoding="utf-8"))


def test_the_walk_forward_curve_is_the_product_of_its_returns(tmp_path: Path) -> None:
    study = studies.study(tmp_path / "s")
    verdict = studies.verdict(study)
    walk = verdict["details"]["walk_forward"]
    walk["anchored"] = {"dates": ["2024-03-01", "2024-03-02", "2024-03-03"], "returns": [0.1, None, -0.5]}
    walk["rolling"] = {"why": "Too few days."}
    found = payload(written(study, verdict))["verdict"]["walk"]
    assert found["anchored"]["dates"] == ["2024-02-29", "2024-03-01", "2024-03-02", "2024-03-03"]
    assert unpacked(found["anchored"]["growth"]) == pytest.approx([1.0, 1.1, 1.1, 0.55])
    assert found["rolling"] == {"why": "Too few days."}


def test_histograms_count_everything_and_keep_zero_on_an_edge() -> None:
    values = np.random.default_rng(1).normal(0.7, 1.0, 5000).tolist()
    for zero in (False, True):
        found = sweep_charts.histogram([*values, None, float("nan")], zero)
        assert found is not None and sum(found["counts"]) == 5000
        edges = np.array(found["edges"])
        assert np.all(np.diff(edges) > 0) and edges[0] <= min(values) + 1e-6 and edges[-1] >= max(values) - 1e-6
    assert 0.0 in edges and sum(np.array(found["counts"])[edges[1:] <= 0.0]) == sum(value < 0.0 for value in values)
    assert sweep_charts.histogram([float("nan")]) is None
    same = sweep_charts.histogram([2.0, 2.0], zero=True)
    assert same is not None and sum(same["counts"]) == 2


def test_more_sets_than_rows_says_so_and_keeps_the_winner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_charts, "ROWS", 20)
    study = studies.study(tmp_path / "s")
    verdict = studies.verdict(study)
    worst = int(np.nanargmin(study.table["sharpe"]))
    verdict["details"]["winner"]["place"] = worst
    page = written(study, verdict)
    assert "The table holds the 20 sets that rank highest by Sharpe ratio, of 80" in seen(page)
    table = payload(page)["table"]
    rows = unpacked(table["rows"])
    assert len(rows) == 20 and rows[table["winner"]] == worst
    assert rows[0] == study.best()
    column = next(column for column in table["columns"] if column["name"] == "lookback_hours")
    shown = [column["numbers"][code] for code in unpacked(column["codes"])]
    assert shown == [study.params(int(place))["lookback_hours"] for place in rows]


def test_a_page_is_at_most_two_megabytes_whatever_is_in_it(tmp_path: Path) -> None:
    grid = {"a": list(range(20)), "b": list(range(10)), "c": list("abcde"), "d": [True, False], "e": [0.1, 0.2, 0.3]}
    study = studies.study(tmp_path / "s", grid, days=450)
    steps: list[str] = []
    path = write_sweep_page(study, studies.verdict(study), progress=lambda done, total, what: steps.append(what))
    data = payload(path.read_text(encoding="utf-8"))
    assert len(study) == data["table"]["shown"] == 6_000 and path.stat().st_size <= 2_000_000
    assert data["fan"]["kept"] > 300 and {"heat maps", "equity curves"} <= set(steps)
    # Errors that are long and each another: fewer rows and curves, never a larger page, and the page says how many.
    study.table["error"] = [f"{row} " + "<" * 300 for row in range(len(study))]
    page = written(study, studies.verdict(study))
    data = payload(page)
    rows = data["table"]["shown"]
    assert len(page.encode()) <= 2_000_000 and 300 < rows < 2_000 and data["fan"]["kept"] >= 100
    assert f"The table holds the {rows:,} sets that rank highest by Sharpe ratio, of 6,000" in seen(page)
    assert "plotly" not in page.lower()


def test_many_axes_do_not_make_the_heat_maps_large(tmp_path: Path) -> None:
    grid = {f"p{axis}": list(range(100)) for axis in range(12)}
    random = np.random.default_rng(1)
    study = studies.study(tmp_path / "s", {"a": list(range(300))}, failed=0, days=30)
    index = index_of(grid, random.integers(0, 100, (300, 12)))
    study = Study({**study.record, "grid": grid}, study.table.set_axis(index), None, study.folder)
    found = sweep_charts.heat(study, sweep_charts.axes_of(study), study.best())
    assert len(json.dumps(found)) < 4e6 and len(found["cells"]) == 12 + 66


def test_the_same_study_gives_the_same_bytes_and_a_page_replaces_a_page(tmp_path: Path) -> None:
    study = studies.study(tmp_path / "s")
    assert study.folder is not None
    first = write_sweep_page(study, studies.verdict(study)).read_bytes()
    assert write_sweep_page(study, studies.verdict(study)).read_bytes() == first
    assert sorted(file.name for file in study.folder.iterdir()) == ["index.html"]


def test_a_study_without_a_folder_is_refused(tmp_path: Path) -> None:
    made = studies.study(tmp_path / "s")
    with pytest.raises(DataError, match="The study s has no folder"):
        write_sweep_page(Study(made.record, made.table, None), None)


@pytest.mark.parametrize(
    "details",
    [
        {},
        {"pbo": {"pbo": 0.1}, "walk_forward": {"anchored": {}}, "plateau": {"neighbours": []}, "cost_stress": []},
        {
            "pbo": {"logits": {"edges": [-1, 0, 1], "counts": [1, 2]}},
            "bootstrap": {"sharpe": [None, None]},
            "familywise": None,
        },
        {"trials": {"ledger": None, "effective": float("nan")}, "winner": {"place": None}, "alpha": {"better": None}},
    ],
)
def test_parts_that_are_empty_or_half_there_break_nothing(tmp_path: Path, details: dict[str, Any]) -> None:
    verdict = {
        "study": "s",
        "passed": False,
        "says": "No.",
        "checks": [{"name": "pbo", "passed": None}],
        "details": details,
    }
    page = written(studies.study(tmp_path / "s"), verdict)
    assert "NOT PASSED No. check" in seen(page) and "pbo not computed n/a" in seen(page)
    found = payload(page)["verdict"]
    assert "why" in found["plateau"] and "why" in found["cost_stress"]
    assert ("why" in found["pbo"]) == ("logits" not in details.get("pbo", {}))


def test_what_is_marked_and_counted_is_what_the_verdict_judged(tmp_path: Path) -> None:
    """The winner's own hour, where the hour is swept; the trials of the bar, where the ledger lost some."""
    grid = {"n": [1, 2], "execution.hour_utc": [23, 9]}
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    table = pd.DataFrame({"sharpe": [0.1, 2.0, 0.3, 0.4], "error": ""}, index=index_of(grid, codes))
    record = {**studies.study(tmp_path).record, "grid": grid, "keys": list(grid)}
    verdict = {"passed": False, "says": "", "checks": [], "details": {"trials": {"ledger": 3, "judged": 4}}}
    page = written(Study(record, table, None, tmp_path), verdict)
    assert payload(page)["hour"] == 9 and "trials counted 4" in seen(page)
