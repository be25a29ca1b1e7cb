"""The last quote in ``market_data/{YYYYMMDD}/{H}/l2Book/{coin}.lz4``, an hour of a coin's book, a snapshot a line.

The row of instant ``t`` is the last snapshot whose inner `time` (the exchange's, in milliseconds) lies before ``t``. It
is at the end of the file, so only the end is decompressed where the frame's blocks allow it (1.5 against 12.5 ms an
object), and of the text only one line is parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engine.data.asset_ctxs import STALE_SECONDS, ObjectError, decompress
from engine.data.schema import Floats

#: Field -> distance from mid within which the depth is counted.
DEPTHS = {"depth_10bps_usd": 10e-4, "depth_50bps_usd": 50e-4}
FIELDS = ("mid", "bid", "ask", *DEPTHS)
_INNER_TIME = re.compile(rb'"time": ?(\d{13})\b')
#: LZ4 frame format: magic number, flags, and the bits of a block's size field.
_MAGIC = b"\x04\x22\x4d\x18"
_INDEPENDENT, _BLOCK_SUMS, _CONTENT_SIZE, _CONTENT_SUM, _DICTIONARY = 0x20, 0x10, 0x08, 0x04, 0x01
_STORED = 0x80000000


@dataclass(frozen=True)
class Quote:
    """The last snapshot of a book before an instant.

    Attributes
    ----------
    milliseconds : int
        Its inner time.
    values : dict of str to float
        `mid`, `bid`, `ask` in USD; the depths, USD within their distance of mid on the thinner side. NaN where a side
        is empty. The archive holds about 20 levels a side: where they end nearer than the distance, the depth is that
        of these levels, a lower bound.
    stale : bool
        Whether the snapshot is minutes older than the instant: its mid is a price then, and all else, no quote any
        more, is NaN.
    """

    milliseconds: int
    values: dict[str, float]
    stale: bool = False


def last_quote(content: bytes, coin: str, before_ms: int) -> Quote:
    """Read the last snapshot before an instant from one object.

    Parameters
    ----------
    content : bytes
        The object as it was downloaded.
    coin : str
        The coin of its name.
    before_ms : int
        The instant, milliseconds since 1970; the snapshot must lie in the hour before it.

    Raises
    ------
    ObjectError
        For damaged LZ4, a cut last line, a file of another coin, no snapshot in the hour.
    """
    text = b""
    for block in _blocks_from_the_end(content):
        text = block + text
        if len(text) == len(block) and not text.endswith(b"\n"):
            raise ObjectError("ends in a cut line")
        # The first line of this text may lack its beginning; it does not count unless it is the file's first.
        usable = [stamp for stamp in _stamps(text) if stamp[0] < before_ms and text.rfind(b"\n", 0, stamp[1]) >= 0]
        if usable:
            return _quote(text, max(usable), coin, before_ms)
    first = _stamps(text[: text.find(b"\n") + 1])
    if first and first[0][0] < before_ms:
        return _quote(text, first[0], coin, before_ms)
    raise ObjectError("has no snapshot before the end of its hour")


def _stamps(text: bytes) -> list[tuple[int, int]]:
    """Inner time of each snapshot, and its position in the text."""
    return [(int(match[1]), match.start()) for match in _INNER_TIME.finditer(text)]


def _quote(text: bytes, stamp: tuple[int, int], coin: str, before_ms: int) -> Quote:
    milliseconds, position = stamp
    if milliseconds < before_ms - 3_600_000:
        raise ObjectError(
            f"has no snapshot in its hour; the last is {(before_ms - milliseconds) / 3_600_000:.1f} h old"
        )
    line = text[text.rfind(b"\n", 0, position) + 1 : text.find(b"\n", position)]
    try:
        data = json.loads(line)["raw"]["data"]
        bids, asks = (
            np.array([(level["px"], level["sz"]) for level in side], dtype=np.float64) for side in data["levels"]
        )
        name = str(data["coin"])
    except (ValueError, KeyError, TypeError) as error:
        raise ObjectError(f"has a last snapshot that cannot be read ({type(error).__name__}: {error})") from error
    if name != coin:
        raise ObjectError(f"holds the book of {name}, not of {coin}")
    if not all(np.isfinite(side).all() and (side >= 0).all() for side in (bids, asks)):
        raise ObjectError("has a level in its last snapshot that is not a price or size")
    values = _values(bids.reshape(-1, 2), asks.reshape(-1, 2))
    stale = milliseconds < before_ms - 1000 * STALE_SECONDS
    return Quote(milliseconds, {**dict.fromkeys(FIELDS, np.nan), "mid": values["mid"]} if stale else values, stale)


def _values(bids: Floats, asks: Floats) -> dict[str, float]:
    """Quotes and depths of a book; both sides (levels, 2) of price and size."""
    if not len(bids) or not len(asks):
        return dict.fromkeys(FIELDS, np.nan)
    bid, ask = float(bids[:, 0].max()), float(asks[:, 0].min())
    if not 0 < bid < ask:
        raise ObjectError(f"has a crossed or empty book at its end: bid {bid:g}, ask {ask:g}")
    mid = (bid + ask) / 2
    values = {"mid": mid, "bid": bid, "ask": ask}
    for name, distance in DEPTHS.items():
        sides = (side[np.abs(side[:, 0] - mid) <= distance * mid] for side in (bids, asks))
        values[name] = float(min((side[:, 0] * side[:, 1]).sum() for side in sides))
    return values


def _blocks_from_the_end(content: bytes) -> Iterator[bytes]:
    """Texts of the frame's blocks, the last first; the whole text at once where blocks build on each other."""
    import lz4.block

    blocks = _independent_blocks(content)
    if blocks is None:
        yield decompress(content)
        return
    largest, spans = blocks
    for start, size, stored in reversed(spans):
        block = content[start : start + size]
        try:
            yield block if stored else lz4.block.decompress(block, uncompressed_size=largest)
        except lz4.block.LZ4BlockError as error:
            raise ObjectError(f"is damaged LZ4 ({error})") from error


def _independent_blocks(content: bytes) -> tuple[int, list[tuple[int, int, bool]]] | None:
    """Largest text of a block, and start, size and "not compressed" of each; None for a frame of another kind.

    Raises
    ------
    ObjectError
        When the frame has no end.
    """
    if content[:4] != _MAGIC or len(content) < 7:
        raise ObjectError("is not an LZ4 frame, or is truncated")
    flags = content[4]
    if not flags & _INDEPENDENT or flags & _DICTIONARY:
        return None
    position = 7 + (8 if flags & _CONTENT_SIZE else 0)
    spans = []
    while True:
        size = int.from_bytes(content[position : position + 4], "little")
        position += 4
        if position > len(content):
            raise ObjectError(f"is truncated LZ4: {len(content)} bytes, and no end of the frame")
        if size == 0:
            break
        stored, size = bool(size & _STORED), size & ~_STORED
        spans.append((position, size, stored))
        position += size + (4 if flags & _BLOCK_SUMS else 0)
    if position + (4 if flags & _CONTENT_SUM else 0) != len(content):
        # Truncated within the checksum, or something follows the frame, where the last snapshots would be: an error
        # when the whole is read.
        return None
    return 1 << (8 + 2 * ((content[5] >> 4) & 7)), spans
