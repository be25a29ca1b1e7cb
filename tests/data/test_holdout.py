"""What is sealed is not loaded for research, by any range or copy; a broken seal stops, a removed one shows."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pandas as pd
import pytest

from engine import load_panel
from engine.data.cache import Store
from engine.data.holdout import FILE, Holdout, read_holdout, records_of, write_records
from engine.data.panel_loader import load_open_panel, load_whole_panel
from engine.errors import ConfigError, DataError
from engine.promotion.holdout import current_holdout, seal_days
from helpers.stores import table

START = pd.Timestamp("2024-02-20", tz="UTC")
LAST = START - pd.Timedelta(hours=1)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    mid = [1.0 + hour / 1000 for hour in range(24 * 40)]
    late = [float("nan")] * 24 * 30 + mid[: 24 * 10]
    folder = tmp_path / "cache"
    Store(folder).merge([table({"BTC": mid, "LATE": late}, "2024-02-01T00:00Z")], "s")
    return folder


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    return tmp_path / "reports"


def seal(cache: Path, reports: Path, day: str = "2024-02-20") -> dict[str, object]:
    return seal_days(cache, reports, pd.Timestamp(day, tz="UTC"), "2024-03-12T00:00:00+00:00")


def test_every_range_ends_before_the_seal(cache: Path, reports: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = load_panel(cache)
    assert whole.notes == () and whole.coins == ("BTC", "LATE")
    done = seal(cache, reports)
    assert done["hidden_days"] == 21 and not done["already"]
    for end in (None, "2024-02-20", "2024-03-01", "2030-01-01"):
        with caplog.at_level(logging.WARNING, "hlbt"):
            caplog.clear()
            panel = load_panel(cache, end=end)
        assert panel.index[-1] == LAST and panel.coins == ("BTC",)  # nor is a later listing known
        assert "sealed as a holdout" in panel.notes[0] and panel.notes[0] in repr(panel)
        assert caplog.text.count("sealed as a holdout") == 1
    assert load_panel(cache, end="2024-02-19").notes == ()
    for start in ("2024-02-20", "2024-03-01"):
        with pytest.raises(DataError, match="sealed as a holdout, and the range begins at"):
            load_panel(cache, start)
    with pytest.raises(DataError, match="lies after end"):
        load_panel(cache, "2024-02-05", "2024-02-04")
    assert load_whole_panel(cache).index[-1] == whole.index[-1]
    copied = cache.with_name("copied")
    shutil.copytree(cache, copied)
    assert load_panel(copied).index[-1] == LAST


def test_the_ledger_keeps_a_seal_that_the_cache_lost(cache: Path, reports: Path) -> None:
    seal(cache, reports)
    for file in cache.glob(f"{FILE}*"):
        file.unlink()
    holdout = current_holdout(cache, reports)
    assert holdout is not None and holdout.start == START
    assert load_open_panel(cache, ledger=holdout).index[-1] == LAST
    # The cure: sealed again by the same date; by a later one it would be unsealed.
    with pytest.raises(DataError, match="would unseal days that no candidate was run on"):
        seal(cache, reports, "2024-03-01")
    assert seal(cache, reports)["already"] and read_holdout(cache) == holdout
    # Made-up data are another matter than real ones.
    other = Holdout(START, "2024", synthetic=True)
    assert load_open_panel(cache, ledger=other).index[-1] == LAST
    (cache / FILE).unlink(), (cache / f"{FILE}.head").unlink()
    assert load_open_panel(cache, ledger=other).index[-1] > LAST


@pytest.mark.parametrize("damage", ["edited", "emptied", "no file", "no head", "other text"])
def test_a_broken_seal_stops_research_until_it_is_sealed_again(cache: Path, reports: Path, damage: str) -> None:
    seal(cache, reports)
    file, head = cache / FILE, cache / f"{FILE}.head"
    if damage == "edited":
        file.write_text(file.read_text().replace("2024-02-20", "2024-03-20"))
    elif damage == "no head":
        head.unlink()
    elif damage == "no file":
        file.unlink()
    else:
        file.write_text("" if damage == "emptied" else "sealed\n")
    with pytest.raises(DataError, match=r"seal of the holdout is broken, .*holdout\.jsonl.*study init"):
        load_panel(cache)
    assert load_whole_panel(cache).index[-1] > LAST  # an account goes on
    with pytest.raises(DataError, match="would unseal"):
        seal(cache, reports, "2024-03-05")
    assert not seal(cache, reports)["already"]
    assert load_panel(cache).index[-1] == LAST and "replaces" in file.read_text()


def test_a_second_date(cache: Path, reports: Path) -> None:
    with pytest.raises(ConfigError, match="would leave nothing to work on"):
        seal(cache, reports, "2024-02-01")
    seal(cache, reports)
    assert seal(cache, reports)["already"]
    seal(cache, reports, "2024-02-15")
    assert load_panel(cache).index[-1] == pd.Timestamp("2024-02-14T23:00Z")
    later = seal_days(cache.with_name("cache"), reports, pd.Timestamp("2024-02-10", tz="UTC"), "2024-03-13")
    assert later["hidden_days"] == 31
    with pytest.raises(DataError, match="does not exist"):
        seal(cache.with_name("nowhere"), reports)


def test_a_date_after_the_data_seals_what_comes(cache: Path, reports: Path) -> None:
    assert seal(cache, reports, "2024-03-20")["hidden_days"] == 0
    assert load_panel(cache).notes == ()
    mid = [2.0] * 24 * 20
    Store(cache).merge([table({"BTC": mid}, "2024-03-12T00:00Z")], "s")
    assert load_panel(cache).index[-1] == pd.Timestamp("2024-03-19T23:00Z") and load_panel(cache).notes


def test_records_that_no_chain_would_have(cache: Path) -> None:
    write_records(cache, [{**records_of(Holdout(START, "2024", False))[0], "start": "soon"}])
    with pytest.raises(DataError, match="seal of the holdout is broken"):
        load_panel(cache)
