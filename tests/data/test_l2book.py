"""The last snapshot of a book hour, against reading every line."""

from __future__ import annotations

import json
import math

import lz4.frame
import numpy as np
import pytest

from engine.data.asset_ctxs import ObjectError
from engine.data.l2book import last_quote
from helpers.shared_data import BOOK, shared

HOUR = 1_704_114_000_000  # 2024-01-01 13:00 UTC


def naive(text: str, before: int) -> tuple[int, dict[str, float]]:
    """Every line parsed; depths by hand."""
    best: tuple[int, dict[str, float]] | None = None
    for line in text.splitlines():
        data = json.loads(line)["raw"]["data"]
        if data["time"] >= before or (best and data["time"] < best[0]):
            continue
        bids, asks = ([(float(level["px"]), float(level["sz"])) for level in side] for side in data["levels"])
        bid, ask = bids[0][0], asks[0][0]
        mid = (bid + ask) / 2
        values = {"mid": mid, "bid": bid, "ask": ask}
        for bps in (10, 50):
            below = sum(price * size for price, size in bids if price >= mid * (1 - bps / 1e4))
            above = sum(price * size for price, size in asks if price <= mid * (1 + bps / 1e4))
            values[f"depth_{bps}bps_usd"] = min(below, above)
        best = data["time"], values
    assert best
    return best


def snapshot(time: int, bid: float = 99.0, coin: str = "BTC", levels: object = None) -> str:
    sides = [[{"px": f"{bid - step}", "sz": "2", "n": 1} for step in range(20)]]
    sides.append([{"px": f"{bid + 2 + step}", "sz": "3", "n": 1} for step in range(20)])
    data = {"coin": coin, "time": time, "levels": sides if levels is None else levels}
    outer = {"time": "2024-01-01T12:59:59.800198746", "ver_num": 1, "raw": {"channel": "l2Book", "data": data}}
    return json.dumps(outer, separators=(",", ":")) + "\n"


def frame(text: str, linked: bool = False, size: int = lz4.frame.BLOCKSIZE_MAX64KB) -> bytes:
    return lz4.frame.compress(text.encode(), block_size=size, block_linked=linked, content_checksum=True)


@pytest.fixture(scope="module")
def genuine() -> bytes:
    return shared(BOOK).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 1, 60, 1800, 3540])
def test_the_genuine_object_against_reading_every_line(genuine: bytes, seconds: int) -> None:
    before = HOUR - seconds * 1000
    expected = naive(lz4.frame.decompress(genuine).decode(), before)
    found = last_quote(genuine, "BTC", before)
    assert found.milliseconds == expected[0] < before
    assert found.values == pytest.approx(expected[1], rel=1e-12)
    if seconds == 0:
        assert (found.values["bid"], found.values["ask"]) == (42698.0, 42699.0)


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("count", [1, 2, 30, 200])
def test_any_frame_and_any_number_of_snapshots(linked: bool, count: int) -> None:
    times = [HOUR - 1000 - 500 * place for place in range(count)][::-1]
    text = "".join(snapshot(time, 50 + place / 8) for place, time in enumerate(times))
    for before in (HOUR, times[len(times) // 2] + 1):
        found = last_quote(frame(text, linked), "BTC", before)
        assert (found.milliseconds, found.values) == naive(text, before)


def test_inner_time_decides_and_not_the_place_in_the_file() -> None:
    text = snapshot(HOUR - 900, 50) + snapshot(HOUR - 100, 60) + snapshot(HOUR - 300, 70) + snapshot(HOUR, 80)
    assert last_quote(frame(text), "BTC", HOUR).values["bid"] == 60
    assert last_quote(frame(text), "BTC", HOUR - 100).values["bid"] == 70  # strictly before
    # The genuine object begins with a snapshot of the hour before: it never stands for its own hour's end.
    with pytest.raises(ObjectError, match=r"no snapshot in its hour; the last is 1\.0 h old"):
        last_quote(frame(snapshot(HOUR - 3_600_085)), "BTC", HOUR)
    with pytest.raises(ObjectError, match="no snapshot before"):
        last_quote(frame(snapshot(HOUR + 5)), "BTC", HOUR)


def test_depth_is_of_the_thinner_side_within_the_distance() -> None:
    levels = [
        [{"px": "999.5", "sz": "1"}, {"px": "999", "sz": "2"}, {"px": "996", "sz": "4"}, {"px": "990", "sz": "8"}],
        [{"px": "1000.5", "sz": "3"}, {"px": "1001", "sz": "1"}, {"px": "1005.1", "sz": "9"}],
    ]
    values = last_quote(frame(snapshot(HOUR - 1, levels=levels)), "BTC", HOUR).values
    assert (values["mid"], values["bid"], values["ask"]) == (1000.0, 999.5, 1000.5)
    assert values["depth_10bps_usd"] == 999.5 + 2 * 999  # bids 2997.5 < asks 4002.5
    assert values["depth_50bps_usd"] == 3 * 1000.5 + 1001  # asks: 1005.1 is 51 bps away


def test_a_side_that_is_empty_is_no_quote() -> None:
    values = last_quote(frame(snapshot(HOUR - 1, levels=[[], [{"px": "1", "sz": "1"}]])), "BTC", HOUR).values
    assert all(math.isnan(value) for value in values.values()) and len(values) == 5


def good() -> str:
    return "".join(snapshot(HOUR - 1000 + place, 50) for place in range(90))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (frame(good())[:-5], "truncated"),
        (frame(good())[:200], "truncated"),
        (frame(good())[: len(frame(good())) // 2], "truncated"),
        (frame(good(), linked=True)[:-9], "truncated"),
        (b"", "not an LZ4 frame"),
        (b"<html>" * 9, "not an LZ4 frame"),
        (frame(good()[:-20]), "ends in a cut line"),
        (frame(snapshot(HOUR - 1, coin="ETH")), "holds the book of ETH, not of BTC"),
        (frame(snapshot(HOUR - 1, levels=[[{"px": "2", "sz": "1"}], [{"px": "1", "sz": "1"}]])), "crossed"),
        (frame(snapshot(HOUR - 1, levels=[[{"px": "x", "sz": "1"}], []])), "cannot be read"),
        (frame(snapshot(HOUR - 1, levels=[[]])), "cannot be read"),
        (
            frame(snapshot(HOUR - 1, levels=[[{"px": "1", "sz": "-1"}], [{"px": "2", "sz": "1"}]])),
            "price or size",
        ),
        (
            frame(snapshot(HOUR - 1, levels=[[{"px": "1", "sz": "1"}], [{"px": "2", "sz": "inf"}]])),
            "price or size",
        ),
        (frame("\n"), "no snapshot"),
        # Of two frames the second has the end of the hour: an early quote must not pass for the last.
        (frame(snapshot(HOUR - 3_000_000)) + frame(good()), "its frame does not end with"),
        (frame(snapshot(HOUR - 3_000_000), linked=True) + frame(good()), "its frame does not end with"),
        (frame(good()) + b"more", "its frame does not end with"),
    ],
)
def test_a_broken_object_is_refused_with_its_reason(content: bytes, message: str) -> None:
    assert last_quote(frame(good()), "BTC", HOUR).values["bid"] == 50
    with pytest.raises(ObjectError, match=message):
        last_quote(content, "BTC", HOUR)


def test_a_damaged_block_is_refused() -> None:
    content = frame(good() * 20)
    for place in range(len(content) - 60, len(content) - 8):
        broken = content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
        try:
            assert last_quote(broken, "BTC", HOUR).values["bid"] >= 0
        except ObjectError:
            continue  # whatever it makes of the text: an error of ours, never of the library


def test_only_the_end_is_decompressed(genuine: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    import lz4.block

    real, texts = lz4.block.decompress, []

    def counted(*arguments: object, **options: object) -> bytes:
        texts.append(real(*arguments, **options))
        return texts[-1]

    monkeypatch.setattr(lz4.block, "decompress", counted)
    last_quote(genuine, "BTC", HOUR)
    whole = len(lz4.frame.decompress(genuine))
    assert len(texts) == 1 and 0 < np.sum([len(text) for text in texts]) < whole / 5
