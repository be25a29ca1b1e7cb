"""A day of the archive to hourly rows, against pandas and by hand."""

from __future__ import annotations

import io
from datetime import date

import lz4.frame
import numpy as np
import pandas as pd
import pytest

from engine.data.asset_ctxs import Day, ObjectError, reduce_day
from engine.data.schema import read_rows
from helpers.archive_server import HEADER, day_text, packed
from helpers.asset_ctxs import naive

DAY = date(2025, 1, 1)


def reduced(text: str) -> Day:
    return reduce_day(packed(text), DAY)


COINS = {"BTC": (0, 1440), "kPEPE": (0, 1440), "NEW": (777, 1440), "GONE": (0, 601), "ETH": (60, 119)}


@pytest.mark.parametrize("null", ["", "null"])
@pytest.mark.parametrize("z", [True, False])
def test_both_spellings_against_pandas(z: bool, null: str) -> None:
    text = day_text("2025-01-01", COINS, z=z, null=null)
    day = reduced(text)
    assert day.records == text.count("\n") - 1
    hourly = day.table.to_pandas().astype({"coin": str})
    expected = naive(text)
    assert hourly["mid"].isna().sum() > 0 and len(hourly) == 72
    pd.testing.assert_frame_equal(hourly, expected[hourly.columns], check_dtype=False, check_exact=True)
    assert (day.outside, day.unusable) == (0, 0)
    read_rows(day.table, "asset_ctxs")


def lines(*records: str, header: str = HEADER) -> str:
    return "\n".join([header, *records]) + "\n"


def record(time: str, mid: float | str, coin: str = "BTC", funding: str = "0.1") -> str:
    return f"{time},{coin},{funding},5,90,1000,0.001,101,102,{mid},99,103"


def test_the_clock_of_a_record() -> None:
    text = lines(
        record("2025-01-01T00:00:00Z", 1),
        record("2025-01-01T21:59:59.999Z", 2),
        record("2025-01-01T22:00:00Z", 3),
        record("2025-01-01T22:59:00Z", 4),
        record("2025-01-01T23:00:00Z", 5),
    )
    frame = reduced(text).table.to_pandas().set_index("time")["mid"]
    assert {f"{time:%d %H:%M}": mid for time, mid in frame.items()} == {
        "01 01:00": 1,
        "01 22:00": 2,  # 21:59:59.999 is before 22:00
        "01 23:00": 4,  # 22:59, and not 23:00:00 itself
        "02 00:00": 5,  # 23:00:00 belongs to the row after
    }


def test_every_field_is_of_the_one_last_record() -> None:
    text = lines(record("2025-01-01T22:58:00Z", 100), record("2025-01-01T22:59:00Z", "null", funding="-0.2"))
    (row,) = reduced(text).table.to_pylist()
    assert row["mid"] is None  # no two-sided book just before 23:00, whatever there was a minute earlier
    assert (row["funding"], row["oracle"], row["mark"]) == (-0.2, 101, 102)
    assert (row["impact_bid"], row["impact_ask"], row["open_interest"]) == (99, 103, 5)
    assert row["volume_24h_usd"] == 1000
    assert "volume_usd" not in row


def test_lines_in_any_order_but_columns_in_the_archives() -> None:
    text = day_text("2025-01-01", COINS)
    head, *rest = text.splitlines()
    generator = np.random.default_rng(1)
    mixed = "\n".join([head, *generator.permutation(rest)]) + "\n"
    assert reduced(mixed).table.to_pylist() == reduced(text).table.to_pylist()
    frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    assert reduced(frame.assign(new="1").to_csv(index=False)).table.to_pylist() == reduced(text).table.to_pylist()
    with pytest.raises(ObjectError, match=r"columns in another order .* header is impact_ask_px,impact_bid_px"):
        reduced(frame[frame.columns[::-1]].to_csv(index=False))


def test_records_of_another_day_are_left_out_and_counted() -> None:
    text = lines(
        record("2024-12-31T23:59:00Z", 1), record("2025-01-01T00:59:00Z", 2), record("2025-01-02T00:00:00Z", 3)
    )
    day = reduced(text)
    assert (day.records, day.outside, day.table.column("mid").to_pylist()) == (3, 2, [2])
    with pytest.raises(ObjectError, match=r"no record of its day 2025-01-02 among 3") as caught:
        reduce_day(packed(lines(*[record("2025-01-01T00:00:00Z", 1)] * 3)), date(2025, 1, 2))
    assert "2025-01-02" in str(caught.value)


def test_what_is_no_price_is_not_observed() -> None:
    day = reduced(lines("2025-01-01T22:59:00Z,BTC,0.1,-5,90,1000,0.001,0,102,-1,99,inf"))
    (row,) = day.table.to_pylist()
    assert (row["mid"], row["oracle"], row["open_interest"], row["impact_ask"]) == (None, None, None, None)
    assert (day.unusable, row["mark"], row["impact_bid"]) == (4, 102, 99)


GOOD = day_text("2025-01-01", {"BTC": (0, 120)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("mid_px", "midPx", 1), r"lacks the column mid_px.*header is time,coin,funding"),
        (GOOD.replace("premium", "mid_px", 1), r"lacks the column mid_px \(or has it twice\)"),
        (GOOD[:-40], "a line that cannot be read"),
        (GOOD.replace("\n2025-01-01T01:00:00Z,BTC,", "\n2025-01-01T01:00:00Z,", 1), "a line that cannot be read"),
        (GOOD.replace("2025-01-01T01:00:00Z,BTC,", "2025-01-01T01:00:00Z,BTC,x", 1), "a line that cannot be read"),
        (GOOD.replace("2025-01-01T01:00:00Z", "yesterday", 1), r"a time that cannot be read \('yesterday'\)"),
        (GOOD.replace("2025-01-01T01:00:00Z", "", 1), r"a time that cannot be read \(''\)"),
        (GOOD.replace("2025-01-01T01:00:00Z", "NaT", 1), r"a time that cannot be read \('NaT'\)"),
        (GOOD.replace("2025-01-01T01:00:00Z,BTC", "2025-01-01T01:00:00Z,", 1), "a line without a coin"),
        (HEADER + "\n", "no record of its day"),
        ("", "lacks the column time"),
    ],
)
def test_a_broken_file_is_refused_with_its_reason(text: str, message: str) -> None:
    reduced(GOOD)
    with pytest.raises(ObjectError, match=message):
        reduced(text)


def test_a_last_number_that_may_be_cut_is_not_believed() -> None:
    """Twelve columns, but no line end: the last number may be the beginning of one."""
    rows = reduced(GOOD[:-3]).table.to_pylist()
    whole = reduced(GOOD).table.to_pylist()
    before = reduced("\n".join(GOOD.split("\n")[:-2]) + "\n").table.to_pylist()
    assert rows == before != whole  # row 02:00 is of 01:58, the last record that is surely whole


@pytest.mark.parametrize("cut", [1, 5, 100, -6])
def test_truncated_lz4(cut: int) -> None:
    content = packed(GOOD)
    with pytest.raises(ObjectError, match="truncated or damaged LZ4"):
        reduce_day(content[:-cut] if cut > 0 else content[:cut], DAY)
    with pytest.raises(ObjectError, match="truncated or damaged LZ4"):
        reduce_day(b"PAR1" + content, DAY)
    assert lz4.frame.decompress(content).decode() == GOOD
