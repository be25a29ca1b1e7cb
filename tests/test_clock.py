"""Instants in text: one parser, so that the same text means the same to whoever reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from engine import RunConfig
from engine.clock import decision_instants, every_days_in_words, hourly_index, parse_instant, read_instant
from engine.errors import ConfigError, HlbtError
from engine.weights import read_weights
from research.oracles.publication_schedule import schedule_of
from research.oracles.score_file import Layout, read_published

NIGHT = pd.Timestamp("2024-10-01T23:00Z")
#: Text -> what it means; None is not an instant.
TEXTS = {
    "2024-10-01T23:00Z": NIGHT,
    "2024-10-01 23:00:00z": NIGHT,
    "2024-10-01 23:00:00+00": NIGHT,
    "2024-10-01T23:00+0000": NIGHT,
    "2024-10-01T23:00:00.000+00:00": NIGHT,
    "2024-10-02T04:30+05:30": NIGHT,
    "2024-10-01T16:00-07": NIGHT,
    "2024-10-01T23Z": NIGHT,
    "20241001T2300Z": NIGHT,
    "2024-10-01T23:00": NIGHT.tz_localize(None),
    "2024-10-01": pd.Timestamp("2024-10-01"),
    "20241001": pd.Timestamp("2024-10-01"),
    "2024-10-01Z": None,
    "2024-10": None,
    "01/10/2024": None,
    "2024-13-01": None,
    "2024-10-01T24:00Z": None,
    "\u0662\u0660\u0662\u0664-\u0661\u0660-\u0660\u0661": None,
    "now": None,
    "": None,
}


def config(text: str, folder: Path) -> pd.Timestamp | None:
    return RunConfig.from_dict({"data": {"start": text}}).start


def option(text: str, folder: Path) -> pd.Timestamp:
    return parse_instant(text, "--now", hourly=False)


def weights(text: str, folder: Path) -> pd.Timestamp:
    (folder / "weights.csv").write_text(f"time,BTC\n{text},1\n")
    return read_weights(folder / "weights.csv").index[0]


def score_date(text: str, folder: Path) -> pd.Timestamp:
    (folder / "scores.csv").write_text(f"date,coin,score\n{text},BTC,1\n")
    return read_published(folder / "scores.csv", Layout("date", "coin", "score", schedule=schedule_of(1))).dates[0]


def score_available(text: str, folder: Path) -> pd.Timestamp:
    (folder / "scores.csv").write_text(f"date,coin,score,available_at\n2024-10-01,BTC,1,{text}\n")
    return read_published(folder / "scores.csv", Layout("date", "coin", "score", "available_at")).available[0]


READERS = (config, option, weights, score_date, score_available)
#: Readers to whom a bare date is its 00:00 UTC; to the others it does not say when.
DATES = (config, option, score_date)


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_a_text_is_one_instant(text: str) -> None:
    assert read_instant(text) == read_instant(f" {text} ") == TEXTS[text]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_every_reader_takes_a_text_for_the_same_instant(
    text: str, reader: Callable[[str, Path], pd.Timestamp], tmp_path: Path
) -> None:
    wanted = TEXTS[text]
    if wanted is not None and wanted.tzinfo is None:
        wanted = wanted.tz_localize("UTC") if reader in DATES and wanted == wanted.normalize() else None
    if wanted is None:
        with pytest.raises(HlbtError, match=r"zone|is no date|is not a date|no date|is no time"):
            reader(text, tmp_path)
    else:
        assert reader(text, tmp_path) == wanted


def test_an_instant_off_the_hour_is_refused_where_rows_are_meant() -> None:
    with pytest.raises(ConfigError, match="is not on the hour"):
        parse_instant("2024-10-01T23:30+00", "start")
    assert parse_instant("2024-10-01T23:30+00", "--now", hourly=False) == NIGHT + pd.Timedelta(minutes=30)


def test_whole_weeks_decide_on_the_day_that_is_said() -> None:
    index = hourly_index(pd.Timestamp("2024-01-01T00:00Z"), pd.Timestamp("2024-06-30T23:00Z"))
    for days in (7, 14):
        assert set(decision_instants(index, every_days=days).day_name()) == {"Thursday"}
        assert every_days_in_words(days) == f"every {days} days, on Thursdays"
    assert len(set(decision_instants(index, every_days=3).day_name())) == 7 and every_days_in_words(3) == "every 3 days"
