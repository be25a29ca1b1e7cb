"""The pages of docs/reference/ are those that the code makes today, and leave nothing out that a run has."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from engine import load_panel
from helpers.commands import Hlbt
from helpers.project import ROOT


@pytest.fixture(scope="module")
def reference() -> Any:
    """The script that makes the pages."""
    path = ROOT / "docs" / "scripts" / "reference.py"
    spec = importlib.util.spec_from_file_location("reference", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = before
    return module


def test_the_pages_are_current(reference: Any) -> None:
    folder = ROOT / "docs" / "reference"
    assert {page.name for page in folder.glob("*.md")} == set(reference.PAGES)
    for name, make in reference.PAGES.items():
        written = (folder / name).read_text(encoding="utf-8")
        assert written == make(), f"docs/reference/{name} is not what the code says: make reference"


@pytest.mark.slow
def test_a_run_and_a_sweep_have_the_files_columns_and_metrics_of_the_pages(
    reference: Any, sample_cache: Path, hlbt: Hlbt
) -> None:
    said = reference.meanings
    cache = f"data.cache={sample_cache}"
    short = ("--set", cache, "--set", "data.start=2024-06-01", "--set", "data.end=2024-07-01")
    oracle = ("--oracle", "research.oracles.momentum:Momentum")
    assert hlbt("backtest", *oracle, "--param", "lookback_hours=24", *short, "--no-report").code == 0
    assert hlbt("sweep", *oracle, "--grid", "n=3,5", *short, "--no-verdict", "--name", "two").code == 0
    (run,) = (path.parent for path in Path("reports").glob("*/run.json"))
    assert {path.name for path in run.iterdir()} == set(said.RUN)
    coins = set(load_panel(sample_cache, start="2024-06-01", end="2024-07-01").coins)
    for name, (_, columns) in said.RUN.items():
        if columns:
            found = ["COIN" if column in coins else column for column in pq.read_schema(run / name).names]
            assert list(dict.fromkeys(found)) == list(columns), name
    recorded = pd.read_json(run / "run.json", typ="series")["metrics"]
    metrics = set(reference.metric_rows())
    assert {name.removesuffix(reference.CALENDAR) for name in recorded} == metrics
    table = pq.read_schema(Path("reports/two/table.parquet")).names
    left = {name.removesuffix(reference.CALENDAR) for name in table} - metrics
    assert left == {"set.n", "key", "error"} == {name.replace("NAME", "n") for name in said.SWEEP}
    files = {path.name for path in Path("reports/two").glob("[!.]*")}
    assert (
        {"sweep.json", "table.parquet", "returns.parquet"} <= files <= {name.rstrip("/") for name in said.SWEEP_FILES}
    )


@pytest.mark.slow
def test_the_sample_and_real_files_have_the_fields_of_the_page(
    reference: Any, sample_cache: Path, real_cache: Path
) -> None:
    assert set(load_panel(sample_cache, end="2024-01-02").fields) == set(reference.FIELDS_OF["sample"])
    marks = {"mark"}  # of freqtrade's own mark candles, which these files are without
    assert set(load_panel(real_cache, end="2024-09-06").fields) == set(reference.FIELDS_OF["freqtrade"]) - marks
