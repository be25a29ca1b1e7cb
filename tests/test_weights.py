"""Weights that break the contract, from Python and from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine import Panel, RunConfig, backtest
from engine.errors import DataError, WeightsError
from engine.weights import read_weights

INDEX = pd.date_range("2024-10-01", periods=100, freq="h", tz="UTC")
PANEL = Panel.from_frames(mid=pd.DataFrame({"BTC": 60000.0, "kPEPE": 0.01}, index=INDEX))
DECISIONS = INDEX[INDEX.hour == 23]


def frame(
    values: object = 0.25, index: pd.Index = DECISIONS, columns: tuple[str, ...] = ("BTC", "kPEPE")
) -> pd.DataFrame:
    return pd.DataFrame(values, index=index, columns=list(columns), dtype=float)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (frame(columns=("BTC", "KPEPE")), r"coins that the panel lacks: KPEPE. Did you mean 'kPEPE'\?"),
        (
            frame(0.6),
            r"Gross weight 1.20 on 2024-10-01 23:00 UTC exceeds 1.00 \(account.max_gross\), and so do 4 of 4 rows",
        ),
        (frame(np.inf), "The weight of BTC on 2024-10-01 23:00 UTC is inf"),
        (
            frame(index=DECISIONS + pd.Timedelta(days=30)),
            "4 instants that the panel lacks, the first 2024-10-31 23:00 UTC",
        ),
        (frame(index=DECISIONS + pd.Timedelta(minutes=30)), "Move them to the hour"),
        (frame(index=DECISIONS[[0, 1, 1, 2]]), "two rows for 2024-10-02 23:00 UTC"),
        (frame(index=DECISIONS.tz_localize(None)), "naive, the first is 2024-10-01 23:00:00"),
        (frame(columns=("BTC", "BTC")), "two columns for BTC"),
        (frame(index=pd.RangeIndex(4)), "timezone-aware decision instants are needed"),
        (frame(index=DECISIONS[:0]), "no row"),
        (frame().to_numpy(), "a DataFrame"),
        (frame().astype(object).replace(0.25, "much"), "no number"),
        (frame(np.nan), "The weights have no value"),
        (frame(50), "Gross weight 100.00 .*; divide them by 100 if they are percent"),
        (frame(columns=("BTC/USDC:USDC", "kPEPE")), r"lacks: BTC/USDC:USDC. Did you mean 'BTC'\? .* not BTC/USDC:USDC"),
        (frame(columns=("BTC", "kPEPE-PERP")), r"lacks: kPEPE-PERP. Did you mean 'kPEPE'\?"),
        (frame(0.5001), "Gross weight 1.000200 on .* exceeds 1.000000"),
    ],
)
def test_weights_that_break_the_contract(weights: pd.DataFrame, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        backtest(PANEL, weights)


def test_a_panel_where_it_belongs() -> None:
    with pytest.raises(DataError, match=r"backtest\(\) needs a Panel, not DataFrame. Make one with load_panel"):
        backtest(frame(), PANEL)  # type: ignore[arg-type]


def test_rounded_weights_that_sum_to_the_limit_are_fine() -> None:
    backtest(PANEL, frame(np.float64(np.float32(0.5)) + 1e-6))


def test_gross_of_exactly_the_limit_and_other_zones_and_orders_are_fine() -> None:
    turned = frame([[0.5, 0.5], [0.1, -0.9], [np.nan, 1.0], [0.0, 0.0]]).iloc[::-1].tz_convert("Asia/Tokyo")
    straight = frame([[0.5, 0.5], [0.1, -0.9], [np.nan, 1.0], [0.0, 0.0]])
    pd.testing.assert_series_equal(backtest(PANEL, turned).equity, backtest(PANEL, straight).equity)


def test_rows_off_an_explicit_schedule_are_refused() -> None:
    config = RunConfig.from_dict({"execution": {"every_days": 2}})
    with pytest.raises(WeightsError, match=r"2 rows off the schedule execution.every_days = 2"):
        backtest(PANEL, frame(), config)
    assert backtest(PANEL, frame().iloc[[1, 3]], config).metrics["decisions"] == 2


def test_files_round_trip(tmp_path: Path) -> None:
    weights = frame([[0.5, 0.5], [0.1, -0.9], [np.nan, 1.0], [0.0, 0.0]]).rename_axis("time")
    weights.to_csv(tmp_path / "w.csv")
    weights.reset_index().to_parquet(tmp_path / "w.parquet")
    weights.rename_axis(None).to_parquet(tmp_path / "i.parquet")
    for name in ("w.csv", "w.parquet", "i.parquet"):
        pd.testing.assert_frame_equal(read_weights(tmp_path / name), weights, check_freq=False, check_index_type=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("date,BTC\n2024-10-01T23:00Z,1\n", "the first column must be 'time'; it is 'date'"),
        ("time,BTC\n2024-10-01 23:00,1\n", "1 times have no zone: 2024-10-01 23:00"),
        ("time,BTC\n,1\n", "have no zone"),
        ("time,BTC\nsoonZ,1\n", "soonZ is no time"),
        ("time,BTC\n2024-10-01T23:00Z,much\n", "BTC at 2024-10-01T23:00Z is 'much'"),
        ("", "cannot be read"),
        ("time,BTC,kPEPE\n2024-10-01T23:00Z,0.1,0.2,0.3\n", "cannot be read"),
        ("time,BTC\n2024-10-01T23:00Z,TRUE\n", "BTC at 2024-10-01T23:00Z is"),
        ("time,BTC\n2024-10-01T23:00Z,50%\n", "is '50%', which is no number. .*write 0.5 for 50 %"),
        ('time,BTC\n2024-10-01T23:00Z,"-0,5"\n', "is '-0,5', which is no number. Write a decimal point: -0.5"),
        ("time,BTC\n2024-10-01T23:00Z,0,5\n", "decimals have a point, 0.5 and not 0,5"),
        ("time;BTC;ETH\n2024-10-01T23:00Z;0,5;0,5\n", "separated by semicolons. Write commas"),
        ("time\tBTC\n2024-10-01T23:00Z\t0.5\n", "separated by tabs. Write commas"),
        ("time,coin,weight\n2024-10-01T23:00Z,BTC,0.5\n", r"long format.*pivot\(index='time', columns='coin', val"),
        ("date,Ticker,Weight,note\n2024-10-01,BTC,0.5,x\n", r"long format.*columns='Ticker', values='Weight'"),
        ("time,BTC\n", "no row below its header. A file begins like: time,BTC,ETH"),
        ("time\n2024-10-01T23:00Z\n", "no column of a coin"),
        (",BTC\n2024-10-01T23:00Z,0.5\n", "the first column has no name. Call it time"),
    ],
)
def test_files_that_break_the_contract(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "w.csv").write_text(text)
    with pytest.raises(WeightsError, match=message):
        read_weights(tmp_path / "w.csv")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        read_weights(tmp_path / "absent.csv")
    (tmp_path / "w.parquet").write_bytes(b"no parquet")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_weights(tmp_path / "w.parquet")
    (tmp_path / "w.txt").write_text("time\n")
    with pytest.raises(WeightsError, match=r"neither \.csv nor \.parquet"):
        read_weights(tmp_path / "w.txt")
    long = frame().rename_axis("time").stack().rename_axis(["time", "coin"]).to_frame("weight")  # noqa: PD013
    long.to_parquet(tmp_path / "long.parquet")
    with pytest.raises(WeightsError, match=r"long format.*pivot\(index='time', columns='coin', values='weight'"):
        read_weights(tmp_path / "long.parquet")
    frame(index=DECISIONS.tz_localize(None)).to_parquet(tmp_path / "naive.parquet")
    with pytest.raises(WeightsError, match=r"the times are naive, the first is 2024-10-01 23:00:00\. Store"):
        read_weights(tmp_path / "naive.parquet")
