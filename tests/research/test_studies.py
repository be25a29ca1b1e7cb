"""The numbered studies run as a user runs them, on their own made-up rows and on a file, and say which it was."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import load_panel
from helpers.project import ROOT

pytestmark = pytest.mark.slow

STUDIES = sorted((ROOT / "research" / "studies").glob("[0-9]*.py"))
YEAR = ("--start", "2024-01-01", "--end", "2024-07-01")


def study(number: str) -> Any:
    (file,) = (file for file in STUDIES if file.name.startswith(number))
    return importlib.import_module(f"research.studies.{file.stem}")


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_importing_a_study_does_nothing(file: Path) -> None:
    code = f"import importlib, sys; importlib.import_module('research.studies.{file.stem}')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)}
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(Path().iterdir()) == []


def test_the_leak_of_the_made_up_rows_is_worth_something_and_the_page_says_what_they_are(
    sample_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = study("01")
    assert module.main(["--cache", str(sample_cache), *YEAR]) == 0
    page = Path("reports/01_numerai_publication_delay/publication_delay.html")
    assert str(page) in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert "SYNTHETIC ROWS" in text and "http" not in text.replace("http://www.w3.org", "")
    panel = load_panel(sample_cache, *YEAR[1::2])
    rows = str(page.parent / "SYNTHETIC_rows.csv")
    for lags in (1, 30):
        honest, early = (
            module._result(panel, module.NumeraiTBNOracle(lags=lags, file=rows, **given)).metrics["sharpe"]
            for given in ({}, {"publication": 0})
        )
        assert early > honest + 1
        for sharpe in (honest, early):
            assert f">{sharpe:,.2f}<" in text


def test_made_up_rows_have_the_shape_of_numerais(sample_cache: Path) -> None:
    panel = load_panel(sample_cache, "2024-05-01", "2024-07-01")
    rows = study("01").made_up_rows(panel)
    assert list(rows.columns) == ["date", "symbol", "meta_model"]
    assert rows["meta_model"].between(0, 1).all() and not rows.duplicated(["date", "symbol"]).any()
    assert set(pd.to_datetime(rows["date"]).dt.day_of_week) == {0, 1, 2, 3, 4}
    assert "PEPE" in set(rows["symbol"]) and "kPEPE" not in set(rows["symbol"])
    assert "ENA" not in set(rows.loc[rows["date"] < "2024-06-11", "symbol"])  # not listed yet
    # The row of a day ranks with what comes after its close.
    mid = panel.frame("mid").rename(columns=lambda coin: coin.removeprefix("k"))
    wide = rows.set_index(["date", "symbol"])["meta_model"].unstack("symbol")  # noqa: PD010
    found = []
    for day, values in wide.iloc[:-2].iterrows():
        close = pd.Timestamp(str(day), tz="UTC") + pd.Timedelta(days=1)
        after = mid.loc[close + pd.Timedelta(days=1)] / mid.loc[close] - 1
        found.append(values.corr(after[values.index], method="spearman"))
    assert 0.05 < np.mean(found) < 0.5


def test_a_users_file_and_mistakes(sample_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = study("01")
    panel = load_panel(sample_cache, *YEAR[1::2])
    module.made_up_rows(panel, seed=5).to_csv(tmp_path / "mine.csv", index=False)
    words = ["--cache", str(sample_cache), *YEAR, "--file", str(tmp_path / "mine.csv"), "--out", str(tmp_path / "out")]
    assert module.main(words) == 0
    text = (tmp_path / "out" / "publication_delay.html").read_text(encoding="utf-8")
    assert "mine.csv" in text and "SYNTHETIC ROWS" not in text and "SYNTHETIC DATA" in text
    capsys.readouterr()
    for wrong, message in (
        (["--cache", str(sample_cache), "--file", "absent.csv"], "absent.csv cannot be read"),
        (["--cache", "nowhere"], "nowhere does not exist"),
        (["--cache", str(sample_cache), "--tb", "0"], "tb = 0 is not accepted"),
    ):
        assert module.main(wrong) == 1
        said = capsys.readouterr().err
        assert message in said and said.strip().count("\n") == 0


def test_one_signal_four_ways(sample_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = study("05")
    panel = load_panel(sample_cache, *YEAR[1::2])
    table = module.figures(module.searched(panel, "carry", [72]))
    assert table["way"].tolist() == list(module.WAYS) and (table["lookback"] == 72).all()
    own = table.set_index("way")
    assert own.loc["buffered", "turnover"] < own.loc["plain", "turnover"]
    assert own.loc["ranks, banded", "turnover"] < own.loc["ranks", "turnover"]
    assert (own["low"] < own["sharpe"]).all() and (own["sharpe"] < own["high"]).all() and (own["costs"] < 0).all()
    words = ["--cache", str(sample_cache), *YEAR, "--lookbacks", "72", "--out", "four"]
    assert module.main(words) == 0
    text = Path("four/carry.html").read_text(encoding="utf-8")
    assert "four/carry.html" in capsys.readouterr().out and "Verdict over all 6 sets" in text
    assert "SYNTHETIC DATA" in text and f">{own.loc['optimised', 'sharpe']:,.2f}<" in text
