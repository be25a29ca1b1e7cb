"""What is told of published scores: notes, risk, the run and its page."""

from __future__ import annotations

import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Panel, RunConfig, backtest
from engine.errors import OracleError
from engine.oracles.base import NET, Oracle, risk_of, weight_matrix
from engine.reporting.run_section import run_section
from engine.runs import load_run
from engine.simulation.backtest import decisions_of
from helpers.publications import COINS, numerai_file, out_at, panel_of, rows_of
from research.oracles.blend import Blend
from research.oracles.momentum import Momentum
from research.oracles.numerai import NumeraiTBNOracle
from research.oracles.wrappers import Smooth

pytestmark = pytest.mark.slow

NUMERAI = "research.oracles.numerai:NumeraiTBNOracle"


def test_unknown_symbols_duplicates_weekends_and_staleness_are_told(tmp_path: Path) -> None:
    panel = panel_of(days=12)  # 2024-11-01 to 12
    rows = rows_of("2024-09-01", "2024-11-04")
    again = rows[(rows["symbol"] == "ETH") & (rows["date"] == "2024-11-01")]
    other = rows[(rows["symbol"] == "SOL") & (rows["date"].isin(["2024-10-31", "2024-11-01"]))].copy()
    other["meta_model"] = (other["meta_model"] + 0.5) % 1
    weekend = pd.DataFrame({"date": ["2024-10-26"], "symbol": ["BTC"], "meta_model": [0.3]})
    file = numerai_file(tmp_path, pd.concat([rows, again, other, weekend]))
    oracle = NumeraiTBNOracle(tb=2, file=file)
    decisions = decisions_of(panel, RunConfig())
    said = oracle.notes(panel.point_in_time(), decisions)
    assert len(said) == 5
    assert "1 rows dated on a Saturday or Sunday (Sat 2024-10-26)" in said[0]
    assert "repeats 1 rows of ETH with the same score; each counts once" in said[1]
    assert "two scores for one symbol and date 2 times, of SOL" in said[2]
    assert "2 of the 9 symbols in mm.csv name no coin of these data and are left out: NOTHL, OTHER" in said[3]
    # The row of 2024-11-04 is five days old on the 9th at 00:00, and older at 23:00.
    assert "Flat at 4 of 12 decisions, the first 2024-11-09 23:00 UTC" in said[4] and "max_age_days" in said[4]
    matrix = weight_matrix(oracle, panel, decisions)
    assert (matrix.abs().sum(axis=1) > 0).tolist() == [True] * 8 + [False] * 4
    assert (matrix.iloc[-4:] == 0).all().all()
    with pytest.raises(
        OracleError, match=r"no row recent enough at 2024-11-09 23:00 UTC: .* dated 2024-11-04 00:00 UTC, 6\.0 days"
    ):
        oracle.fetch_portfolio_weights(decisions[8], COINS)
    for composed in (Smooth(oracle, days=2), Blend([Momentum(lookback_hours=24), oracle])):
        with pytest.raises(OracleError, match="A backtest is flat at such instants; a live book is left as it is"):
            composed.fetch_portfolio_weights(decisions[8], COINS, panel)
        assert set(said) == set(composed.notes(panel.point_in_time(), decisions))
    with pytest.raises(OracleError, match="no row was published before it"):
        oracle.fetch_portfolio_weights(pd.Timestamp("2024-08-01T23:00Z"), COINS)
    # A symbol with two scores: neither counts, so the newest value of SOL is that of the row before.
    assert "SOL" not in oracle.get_risk_for_date(decisions[3], COINS)["meta_model"]


def test_a_schedule_that_looks_ahead_and_shared_names_are_told(tmp_path: Path) -> None:
    panel, rows = panel_of(days=5), rows_of("2024-10-01", "2024-11-10", ("BTC", "ETH", "PEPE", "kPEPE", "1000PEPE"))
    decisions = decisions_of(panel, RunConfig())
    file = numerai_file(tmp_path, rows)
    (shared,) = NumeraiTBNOracle(file=file).notes(panel, decisions)
    assert "Several symbols in mm.csv mean one coin" in shared and "kPEPE (kPEPE, PEPE, 1000PEPE)" in shared
    days = len(set(rows["date"]))
    for publication, count in (
        (0, days),
        (41, days),
        (42, sum(pd.Timestamp(day).day_of_week == 4 for day in set(rows["date"]))),
    ):
        first = NumeraiTBNOracle(file=file, publication=publication).notes(panel, decisions)[0]
        assert f"LOOK-AHEAD: the publication schedule of this run has {count} of {days} rows" in first
    assert len(NumeraiTBNOracle(file=file, publication=90).notes(panel, decisions)) == 1


def test_risk_is_the_sum_of_weight_times_centred_value(tmp_path: Path) -> None:
    panel, rows = panel_of(days=12), rows_of("2024-09-01", "2024-11-04")
    oracle = NumeraiTBNOracle(tb=2, file=numerai_file(tmp_path, rows))
    decisions = decisions_of(panel, RunConfig())
    book = pd.DataFrame(np.random.default_rng(0).normal(0, 0.1, (12, 7)), index=decisions, columns=list(COINS))
    book.iloc[3, 2] = np.nan  # held as it was
    risk = risk_of(oracle, panel, book)
    assert risk is not None and list(risk.columns) == ["meta-model exposure", NET]
    held = book.ffill()
    for instant in decisions:
        newest = [day for day in sorted(set(rows["date"])) if out_at(date.fromisoformat(day)) < instant][-1]
        assert risk.loc[instant, NET] == pytest.approx(held.loc[instant].sum())
        if instant > decisions[7]:
            assert np.isnan(risk.loc[instant, "meta-model exposure"])
            continue
        row = rows[rows["date"] == newest].set_index("symbol")["meta_model"]
        row = (row - row.mean()).rename({"PEPE": "kPEPE"})
        assert risk.loc[instant, "meta-model exposure"] == pytest.approx((held.loc[instant] * row[list(COINS)]).sum())
    assert risk_of(Momentum(), panel, book) is None
    composed = risk_of(Smooth(Blend([Momentum(), oracle]), days=2), panel, book)
    pd.testing.assert_frame_equal(composed, risk)


def test_a_risk_that_breaks_the_contract_is_refused(tmp_path: Path) -> None:
    class Wrong(Momentum):
        def risk(self, panel: Panel, weights: pd.DataFrame) -> pd.DataFrame:
            return pd.DataFrame({"x": [np.inf] * len(weights)}, index=weights.index)

    class Short(Momentum):
        def risk(self, panel: Panel, weights: pd.DataFrame) -> pd.DataFrame:
            return pd.DataFrame({"x": [1.0]})

    panel = panel_of(days=3)
    weights = weight_matrix(Momentum(lookback_hours=24), panel, decisions_of(panel, RunConfig()))

    class Words(Momentum):
        def risk(self, panel: Panel, weights: pd.DataFrame) -> pd.DataFrame:
            return pd.DataFrame({"x": ["much"] * len(weights)}, index=weights.index)

    for kind, message in (
        (Wrong, "infinite"),
        (Short, "one row for each of 3 decisions"),
        (Words, "a value that is no number"),
    ):
        with pytest.raises(OracleError, match=message):
            risk_of(kind(), panel, weights)


def sample_file(folder: Path) -> str:
    coins = ("BTC", "ETH", "SOL", "PEPE", "DOGE", "XRP", "AVAX", "NOTHL")
    return numerai_file(folder, rows_of("2023-12-01", "2024-03-15", coins))


def test_numerai_from_the_command_line(
    hlbt: Any, sample_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))
    file = sample_file(tmp_path)
    words = (
        "backtest",
        "--oracle",
        NUMERAI,
        "--param",
        "tb=2",
        "--param",
        f"file={file}",
        "--set",
        "data.end=2024-04-01",
    )
    done = hlbt(*words, "--out", "run")
    assert done.code == 0, done.err
    assert "Note: 1 of the 8 symbols in mm.csv name no coin" in done.out and "Note: Flat at" in done.out
    run = load_run(Path("run"))
    assert run.risk is not None and list(run.risk.columns) == ["meta-model exposure", NET]
    assert len(run.record["notes"]) == 2
    page = Path("run/tearsheet.html").read_text(encoding="utf-8")
    assert "Risk in the oracle" in page and "meta-model exposure" in page and "name no coin of these data" in page
    again = json.loads(hlbt(*words, "--no-report", "--json").out)
    rows = pd.read_csv(file)
    rows.loc[0, "meta_model"] = 0.123
    rows.to_csv(file, index=False)
    other = json.loads(hlbt(*words, "--no-report", "--json").out)
    assert other["folder"] != again["folder"], "another file is another run"
    done = hlbt("backtest", "--oracle", NUMERAI, "--param", "file=absent.csv")
    assert done.code == 1 and "Scores absent.csv cannot be read" in done.err and done.err.count("\n") == 1
    # A folder of a version without risk and notes still reads.
    shutil.copytree("run", "old")
    Path("old/risk.parquet").unlink()
    record = json.loads(Path("old/run.json").read_text())
    del record["notes"]
    Path("old/run.json").write_text(json.dumps(record))
    old = load_run(Path("old"))
    assert old.risk is None
    assert "Risk in the oracle" in run_section(run, ()) and "Risk in the oracle" not in run_section(old, ())


def test_file_and_crowdcent_from_the_command_line(
    hlbt: Any, sample_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))
    rows = pd.read_csv(sample_file(tmp_path))
    rows.to_csv("own.csv", index=False)
    month = ("--set", "data.end=2024-02-01", "--no-report", "--json")
    parameters = ("file=own.csv", "coin=symbol", "score=meta_model", "delay_hours=42", "n=2")
    words = [word for parameter in parameters for word in ("--param", parameter)]
    done = hlbt("backtest", "--oracle", "research.oracles.file:FileOracle", *words, *month)
    assert done.code == 0, done.err
    assert json.loads(done.out)["metrics"]["trades"] > 20
    rows["pred_30d"] = rows["meta_model"]
    rows.set_axis(["release_date", "id", "pred_10d", "pred_30d"], axis=1).to_csv("cc.csv", index=False)
    done = hlbt("backtest", "--oracle", "research.oracles.crowdcent:CrowdCentOracle", "--param", "file=cc.csv", *month)
    assert done.code == 0, done.err
    assert json.loads(done.out)["metrics"]["trades"] > 20
    done = hlbt("backtest", "--oracle", "research.oracles.file:FileOracle", "--param", "file=own.csv")
    assert done.code == 1 and "no column 'coin'" in done.err and "It has: date, symbol, meta_model" in done.err


def test_notes_and_risk_of_an_oracle_without_any(tmp_path: Path) -> None:
    panel = panel_of(days=3)
    assert Momentum().notes(panel, panel.index) == () and Momentum().files() == () and Momentum().parts() == ()
    config = RunConfig.from_dict({"costs": {"funding": False}})  # the panel lacks rates, which a run would note
    result = backtest(panel, weight_matrix(Momentum(lookback_hours=24), panel, decisions_of(panel, config)), config)
    assert result.risk is None and result.notes == ()
    assert isinstance(Momentum(), Oracle)
