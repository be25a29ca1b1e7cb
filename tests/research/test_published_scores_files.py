"""Files of published scores: damaged ones, zones, rows that came late or again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import OracleError
from engine.oracles.loading import data_files
from helpers.effort import some
from helpers.publications import COINS, own_file
from research.oracles.crowdcent import CrowdCentOracle
from research.oracles.file import FileOracle
from research.oracles.numerai import NumeraiTBNOracle
from research.oracles.publication_schedule import schedule_of
from research.oracles.wrappers import Smooth

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "value", ["numerei", -1, float("nan"), True, [], [["2024-01-01"]], [["2024-01-01", [1, 2]]], [["yesterday", 3]],
              [["2025-01-01", 1], ["2024-01-01", 1]], {"a": 1}],
)  # fmt: skip
def test_schedules_that_are_refused(value: Any) -> None:
    with pytest.raises(OracleError, match="publication"):
        schedule_of(value)


BAD = [
    ("date,symbol,value\n2024-11-01,BTC,0.5\n", {}, r"no column 'meta_model'.* It has: date, symbol, value"),
    ("date,symbol,meta_modle\n2024-11-01,BTC,0.5\n", {}, "Did you mean 'meta_modle'"),
    ("date,symbol,meta_model\n2024-11-01,BTC,0.5\n2024-11-01,ETH,1.5\n", {}, r"ETH on 2024-11-01 .* row 2\) is 1.5"),
    ("date,symbol,meta_model\n2024-11-01,BTC,-0.1\n", {}, "between 0 and 1"),
    ("date,symbol,meta_model\n2024-11-01,BTC,high\n", {}, "is 'high', which is no number"),
    ("date,symbol,meta_model\n2024-11-01,BTC,inf\n", {}, "is inf"),
    ("date,symbol,meta_model\n01/11/2024,BTC,0.5\n", {}, "date in data row 1 is '01/11/2024', no date"),
    ("date,symbol,meta_model\n2024-11-01,,0.5\n", {}, "data row 1 has no name"),
    ("date,symbol,meta_model\n", {}, "has no row"),
    ("", {}, "cannot be read"),
    ("date,symbol,meta_model\n2024-11-01,BTC,\n", {}, "has no score in its 1 rows"),
    (None, {}, "No such file"),
    ("x", {"lags": 0}, "lags = 0 is not accepted"),
    ("x", {"tb": 0}, "tb = 0 is not accepted"),
    ("x", {"max_age_days": 0}, "max_age_days = 0 is not accepted"),
    ("x", {"missing_score": 2}, "missing_score = 2 is not accepted"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "parameters", "message"), BAD)
def test_bad_numerai_files(tmp_path: Path, text: str | None, parameters: dict[str, Any], message: str) -> None:
    file = tmp_path / "mm.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(OracleError, match=message):
        oracle = NumeraiTBNOracle(file=str(file), **parameters)
        oracle.fetch_portfolio_weights(pd.Timestamp("2024-11-03T23:00Z"), COINS)


def test_crowdcent_by_hand(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {
            "id": ["BTC", "ETH", "SOL", "kPEPE"] * 2,
            "pred_10d": [0.9, 0.1, 0.5, 0.4, 0.1, 0.9, 0.5, 0.4],
            "pred_30d": [0.5, 0.4, 0.9, 0.1] * 2,
            "release_date": ["2024-11-02"] * 4 + ["2024-11-03"] * 4,
        }
    )
    rows.to_parquet(tmp_path / "cc.parquet")
    oracle = CrowdCentOracle(n=1, file=str(tmp_path / "cc.parquet"))
    coins = ("BTC", "ETH", "SOL", "kPEPE")
    early, late = pd.Timestamp("2024-11-03T18:00Z"), pd.Timestamp("2024-11-03T23:00Z")
    assert oracle.fetch_portfolio_weights(early, coins) == {"BTC": 0.5, "ETH": -0.5, "SOL": 0, "kPEPE": 0}
    assert oracle.fetch_portfolio_weights(late, coins) == {"BTC": -0.5, "ETH": 0.5, "SOL": 0, "kPEPE": 0}
    month = CrowdCentOracle(n=1, column="pred_30d", file=str(tmp_path / "cc.parquet"))
    assert month.fetch_portfolio_weights(late, coins) == {"BTC": 0, "ETH": 0, "SOL": 0.5, "kPEPE": -0.5}
    both = CrowdCentOracle(construction="rank_power", lags=2, file=str(tmp_path / "cc.parquet"))
    assert both.fetch_portfolio_weights(late, coins)["kPEPE"] == pytest.approx(-0.5)
    rows.assign(pred_10d=rows["pred_10d"] + 0.2).to_parquet(tmp_path / "cc.parquet")
    with pytest.raises(OracleError, match=r"pred_10d of BTC on 2024-11-02 00:00 UTC \(data row 1\) is 1.1"):
        oracle.fetch_portfolio_weights(late, coins)
    with pytest.raises(OracleError, match="choose one of pred_10d, pred_30d"):
        CrowdCentOracle(column="pred_5d")


def test_a_file_in_another_zone(tmp_path: Path) -> None:
    text = "when,coin,score\n2024-11-02 16:00,BTC,1\n2024-11-02 16:00,ETH,0\n"
    text += "2024-11-05 16:00,BTC,0\n2024-11-05 16:00,ETH,1\n"
    file = own_file(tmp_path, text)
    with pytest.raises(OracleError, match=r"when has times without a zone, as 2024-11-02 16:00.*timezone="):
        FileOracle(file, date="when", delay_hours=0).fetch_portfolio_weights(
            pd.Timestamp("2024-11-06T23:00Z"), ["BTC", "ETH"]
        )
    oracle = FileOracle(file, date="when", delay_hours=0, timezone="America/New_York", n=1)
    # 16:00 in New York is 20:00 UTC in summer, 21:00 in winter; clocks went back on 2024-11-03.
    sides = {hour: oracle.fetch_portfolio_weights(pd.Timestamp(f"2024-11-0{hour}Z"), ["BTC", "ETH"])["BTC"] for hour in
             ("2T20:01", "5T21:00", "5T21:01")}  # fmt: skip
    assert sides == {"2T20:01": 0.5, "5T21:00": 0.5, "5T21:01": -0.5}
    offset = own_file(tmp_path, text.replace(" 16:00", "T16:00-05:00"))
    oracle = FileOracle(offset, date="when", delay_hours=1.5, n=1)
    assert oracle.fetch_portfolio_weights(pd.Timestamp("2024-11-05T22:30Z"), ["BTC", "ETH"])["BTC"] == 0.5
    assert oracle.fetch_portfolio_weights(pd.Timestamp("2024-11-05T22:31Z"), ["BTC", "ETH"])["BTC"] == -0.5
    for hour, message in (("2024-11-03 01:30", "Cannot infer dst time"), ("2024-03-10 02:30", "is a nonexistent time")):
        unclear = own_file(tmp_path, f"when,coin,score\n{hour},BTC,1\n")
        oracle = FileOracle(unclear, date="when", delay_hours=0, timezone="America/New_York")
        with pytest.raises(OracleError, match=f"is not clear in America/New_York: .*{message}.*Write it with its zone"):
            oracle.latest(pd.Timestamp("2024-11-06T23:00Z"), ["BTC"])
    with pytest.raises(OracleError, match="timezone = 'Mars/Olympus' is not accepted"):
        FileOracle(own_file(tmp_path, text), date="when", delay_hours=0, timezone="Mars/Olympus").latest(
            pd.Timestamp("2024-11-06T23:00Z"), ["BTC"]
        )


def test_a_score_given_again_is_the_one_known_then(tmp_path: Path) -> None:
    text = (
        "date,coin,score,available_at\n2024-11-02,BTC,1,2024-11-02T18:00Z\n2024-11-02,ETH,0,2024-11-02T18:00Z\n"
        "2024-11-02,BTC,-1,2024-11-03T18:00+02:00\n"
    )
    oracle = FileOracle(own_file(tmp_path, text), n=1)
    for instant, side in (("02T18:01", 0.5), ("03T16:00", 0.5), ("03T16:01", -0.5)):
        assert oracle.fetch_portfolio_weights(pd.Timestamp(f"2024-11-{instant}Z"), ["BTC", "ETH"])["BTC"] == side
    with pytest.raises(OracleError, match="no row was published"):
        oracle.fetch_portfolio_weights(pd.Timestamp("2024-11-02T18:00Z"), ["BTC", "ETH"])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, r"no column 'available_at'.*It has: date, coin, score"),
        ({"available_at": ""}, "Say when a row was known"),
        ({"available_at": "date"}, "date has times without a zone"),
        ({"delay_hours": -1}, "delay_hours = -1 is not accepted"),
        ({"delay_hours": 1, "score": "alpha"}, "no column 'alpha'"),
        ({"delay_hours": 1, "low": 0.0, "high": 1.0}, r"score of ETH .*\(data row 2\) is 3.*between 0 and 1"),
        ({"delay_hours": 1, "low": "x"}, "low = 'x' is not accepted"),
    ],
)
def test_files_and_parameters_that_are_refused(tmp_path: Path, parameters: dict[str, Any], message: str) -> None:
    file = own_file(tmp_path, "date,coin,score\n2024-11-02,BTC,1\n2024-11-02,ETH,3\n")
    with pytest.raises(OracleError, match=message):
        FileOracle(file, **parameters).latest(pd.Timestamp("2024-11-04T23:00Z"), ["BTC"])


def test_a_changed_file_is_read_again_and_is_in_the_digest(tmp_path: Path) -> None:
    file = own_file(tmp_path, "date,coin,score\n2024-11-02,BTC,1\n")
    oracle = Smooth(FileOracle(file, delay_hours=1), days=1)
    assert Path(file) in data_files(oracle)
    instant = pd.Timestamp("2024-11-04T23:00Z")
    assert oracle.inner.latest(instant, ["BTC"]) == {"BTC": 1}
    own_file(tmp_path, "date,coin,score\n2024-11-02,BTC,2.5\n")
    assert oracle.inner.latest(instant, ["BTC"]) == {"BTC": 2.5}


@settings(max_examples=some(20, 60))
@given(seed=st.integers(0, 10**6), lags=st.integers(1, 4))
def test_restated_and_scattered_scores_against_a_slow_reference(
    tmp_path_factory: pytest.TempPathFactory, seed: int, lags: int
) -> None:
    """Any row at any time: the last dates of which something was known, each coin's newest value known then."""
    rng = np.random.default_rng(seed)
    start = pd.Timestamp("2024-11-01", tz="UTC")
    records = {}
    for _ in range(int(rng.integers(1, 40))):
        day, hour, coin = int(rng.integers(0, 5)), int(rng.integers(0, 150)), str(rng.choice(["A", "B", "C"]))
        records[(day, hour, coin)] = float(rng.integers(0, 9))
    table = pd.DataFrame(
        [(start + pd.Timedelta(days=day), start + pd.Timedelta(hours=hour), coin, value)
         for (day, hour, coin), value in records.items()],
        columns=["date", "available_at", "coin", "score"],
    )  # fmt: skip
    file = tmp_path_factory.mktemp("own") / "own.parquet"
    table.to_parquet(file)
    published = FileOracle(str(file)).published(start)
    for hour in (0, 30, 75, 150):
        instant = start + pd.Timedelta(hours=hour)
        seen = {key: value for key, value in records.items() if key[1] < hour}
        days = sorted({day for day, *_ in seen})[-lags:]
        dates, values = published.window(instant, lags)
        assert [(date - start).days for date in dates] == days
        for place, day in enumerate(days):
            for column, coin in enumerate(published.symbols):
                known = [(at, value) for (of, at, name), value in seen.items() if of == day and name == coin]
                expected = max(known)[1] if known else np.nan
                assert values[place, column] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    "stamp", ["2024-11-05 16:00:00+00", "2024-11-05T11:00:00-05", "20241105T1100-0500", "2024-11-05T16Z"]
)
def test_offsets_as_databases_write_them(tmp_path: Path, stamp: str) -> None:
    """Each names 16:00 UTC, whatever zone naive times would be in."""
    file = own_file(tmp_path, f"date,coin,score,available_at\n2024-11-05,BTC,1,{stamp}\n2024-11-05,ETH,0,{stamp}\n")
    for timezone in ("", "Asia/Tokyo"):
        table = FileOracle(file, timezone=timezone).published(pd.Timestamp("2024-11-06T23:00Z"))
        assert list(table.available) == [pd.Timestamp("2024-11-05T16:00Z")]


def test_a_file_of_another_kind_and_an_instant_before_everything(tmp_path: Path) -> None:
    file = own_file(tmp_path, "date,coin,score\n2024-11-02,BTC,1\n")
    assert FileOracle(file, delay_hours=1).latest(pd.Timestamp("2024-11-02T01:00Z"), ["BTC"]) == {}
    assert FileOracle(file, delay_hours=1).latest(pd.Timestamp("2024-11-02T01:01Z"), ["BTC"]) == {"BTC": 1}
    (tmp_path / "own.xlsx").write_bytes(Path(file).read_bytes())
    (tmp_path / "own.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "folder.csv").mkdir()
    for name, message in (
        ("own.xlsx", "is neither .csv nor .parquet"),
        ("own.parquet", "cannot be read"),
        ("folder.csv", "cannot be read: Is a directory"),
    ):
        with pytest.raises(OracleError, match=message):
            FileOracle(str(tmp_path / name), delay_hours=1).latest(pd.Timestamp("2024-11-04T23:00Z"), ["BTC"])
    for wrong in ({"coin": 3}, {"high": True}):
        with pytest.raises(OracleError, match="is not accepted: it must be"):
            FileOracle(file, delay_hours=1, **wrong)


def test_times_that_parquet_knows_by_themselves(tmp_path: Path) -> None:
    """Columns of instants, of any zone or naive, mean what the same text in a CSV means."""
    stamps = pd.DatetimeIndex(["2024-11-02T20:00Z", "2024-11-05T21:00Z"])
    rows = pd.DataFrame({"date": stamps, "coin": "BTC", "score": [1.0, 2.0]})
    for name, column in (("utc", stamps), ("york", stamps.tz_convert("America/New_York"))):
        rows.assign(date=column).to_parquet(tmp_path / f"{name}.parquet")
        zoned = FileOracle(str(tmp_path / f"{name}.parquet"), delay_hours=0)
        assert list(zoned.published(stamps[0]).dates) == list(stamps)
    rows.assign(date=stamps.tz_convert("America/New_York").tz_localize(None)).to_parquet(tmp_path / "naive.parquet")
    naive = FileOracle(str(tmp_path / "naive.parquet"), delay_hours=0, timezone="America/New_York")
    assert list(naive.published(stamps[0]).dates) == list(stamps)
    with pytest.raises(OracleError, match="times without a zone, as 2024-11-02 16:00:00"):
        replace(naive, timezone="").published(stamps[0])
