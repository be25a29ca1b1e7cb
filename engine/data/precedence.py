"""Which source is believed where several give the same cell: the one place that says so.

A cell is one coin, instant and field. Of the sources that gave it, the cache keeps the value of the one that stands
highest for the field; it never averages. The order in which sources were brought in does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping

S3 = "s3"
L2BOOK = "l2book"
API = "api"
FREQTRADE = "freqtrade"

#: Field -> sources, the most trusted first.
#: `mid`: the book itself; the archive's minute record of it; the last trade of the hour (a candle's close).
#: `funding`: what was paid (`fundingHistory`, and freqtrade's copy of it); the running estimate a minute before.
#: `volume_usd`: candles only, for the archive has no hour's volume (`ARCHITECTURE.md`, Sources).
PRECEDENCE: Mapping[str, tuple[str, ...]] = {
    "mid": (L2BOOK, S3, API, FREQTRADE),
    "funding": (API, FREQTRADE, S3),
}
#: For every other field, most of which one source alone gives.
OTHERWISE = (API, FREQTRADE, L2BOOK, S3)

#: (field, source) whose value only stands in until a better source is asked: the rate that the archive estimates is not
#: the one that was settled, so an API sync asks for those hours.
PROVISIONAL = frozenset({("funding", S3)})

#: Two sources that differ by more than this, relative to the larger value, are reported as in disagreement.
TOLERANCE = 1e-3


def rank(field: str, source: str) -> int:
    """How far `source` is believed for `field`: more is higher.

    A source that the table does not name ranks 0. Sources of one rank are held to each other's word: where they
    differ it is a conflict, as when one source contradicts itself.
    """
    order = PRECEDENCE.get(field, OTHERWISE)
    return len(order) - order.index(source) if source in order else 0
