"""What `hlbt data status` says of a cache of several sources, and its page."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data.cache import Store
from engine.data.cache_status import status
from engine.reporting.cache_page import shade, write_status_page
from helpers.commands import Hlbt
from helpers.stores import table

pytestmark = pytest.mark.slow

START = "2024-03-01T00:00Z"


@pytest.fixture
def described(tmp_path: Path) -> dict[str, Any]:
    """BTC throughout with a hole, MATIC that goes, POL that comes at its price, ODD that comes at another."""
    store = Store(tmp_path / "cache")
    hours, nan = 1000, np.nan
    mids = {
        "BTC": np.r_[np.full(100, 6e4), np.full(50, nan), np.full(hours - 150, 6e4)],
        "MATIC": np.r_[np.full(400, 0.5), np.full(hours - 400, nan)],
        "ODD": np.r_[np.full(410, nan), np.full(hours - 410, 0.9)],
        "POL": np.r_[np.full(410, nan), np.full(hours - 410, 0.51)],
    }
    rates = {coin: np.where(np.isnan(mid), nan, 1e-5) for coin, mid in mids.items()}
    store.merge([table(mids, start=START, funding=rates)], "s3")
    store.merge([table({"BTC": [6e4] * 3}, start=START, volume_usd={"BTC": [1.0] * 3})], "api")
    return status(store)


def test_renames_are_hinted_at(described: dict[str, Any]) -> None:
    (pair,) = described["renames"]
    assert (pair["from"], pair["to"], pair["time"]) == ("MATIC", "POL", "2024-03-18T02:00Z")
    assert pair["ratio"] == pytest.approx(0.51 / 0.5)
    rows = {row["coin"]: row for row in described["table"]}
    assert rows["MATIC"]["delisted"] == "2024-03-17T15:00Z"
    assert (rows["BTC"]["sources"], rows["POL"]["sources"]) == (["api", "s3"], ["s3"])


def test_the_timeline_counts_hours_between_first_and_last_price(described: dict[str, Any]) -> None:
    assert described["timeline"]["months"] == ["2024-03", "2024-04"]
    assert described["timeline"]["coins"] == {
        "BTC": [round(694 / 744, 4), 1.0],
        "MATIC": [1.0, None],
        "ODD": [1.0, 1.0],
        "POL": [1.0, 1.0],
    }


def test_a_month_without_any_data_is_shown_as_one(tmp_path: Path, hlbt: Hlbt) -> None:
    store = Store(tmp_path / "cache")
    for start in ("2024-01-31T00:00Z", "2024-03-01T00:00Z"):
        store.merge([table({"BTC": [6e4] * 24}, start=start)], "s3")
    described = status(store)
    assert [(month["month"], month["rows"], month["coverage"]) for month in described["months"]] == [
        ("2024-01", 24, {"mid": 1.0}),
        ("2024-02", 0, {}),
        ("2024-03", 24, {"mid": 1.0}),
    ]
    assert described["timeline"] == {"months": ["2024-01", "2024-02", "2024-03"], "coins": {"BTC": [1.0, 0.0, 1.0]}}
    write_status_page(described, tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert {"2024-02 mid: none", "2024-02: 0.0% of its hours have a price"} <= set(page.titles)
    out = hlbt("data", "status", "--set", f"data.cache={store.path}").out
    assert [line.split() for line in out.splitlines() if "2024-02 " in line] == [["│", "2024-02", "│", "-", "│"]]


@pytest.mark.parametrize(("share", "step"), [(0, 0), (0.001, 1), (0.5, 2), (0.9, 3), (0.99, 4), (0.9999, 4), (1, 5)])
def test_only_a_full_share_has_the_full_shade(share: float, step: int) -> None:
    assert shade(share) == step


class Page(HTMLParser):
    """Texts and titles of a page, and everything that it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.titles: list[str] = []
        self.loads: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.titles.append(values.get("title") or "")
        self.loads += [str(values[name]) for name in ("src", "href") if name in values]
        if tag in ("script", "link", "img", "iframe"):
            self.loads.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_shows_it_and_loads_nothing(described: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "status.html"
    write_status_page(described, path)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == [] and page.loads == [] and "url(" not in text and "http" not in text
    assert (
        f"2024-03 mid: {1762 / 1812:.2%} from api, s3" in page.titles
    )  # 50 of the listed coins' 1,812 hours are missing
    assert "2024-03 volume_usd: 0.17% from api" in page.titles
    assert "2024-03: 93.3% of its hours have a price" in page.titles
    assert "2024-04: after the last price" in page.titles
    assert "<s>MATIC</s>" in text and "MATIC → POL" in text
    assert "Gaps: 1" in text and "Delisted: 1" in text and "Listed: 2" in text
    assert "prefers-color-scheme:dark" in text and "SYNTHETIC" not in text


def test_names_are_escaped(described: dict[str, Any], tmp_path: Path) -> None:
    write_status_page({**described, "path": "<script>x"}, tmp_path / "page.html")
    assert "<script>" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_command_writes_it_and_json_does_not(
    sample_cache: Path, monkeypatch: pytest.MonkeyPatch, hlbt: Hlbt
) -> None:
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))
    pages: dict[str | None, list[str]] = {None: [], "x.html": ["x.html"]}
    pages["reports/status.html"] = ["reports/index.html", "reports/status.html"]  # the index has a link to it
    for words, made in ((["--json"], None), (["--json", "--out", "x.html"], "x.html"), ([], "reports/status.html")):
        left = hlbt("data", "status", *words)
        assert left.code == 0
        assert sorted(str(path) for path in Path().rglob("*.html")) == pages[made]
        if "--json" in words:
            assert left.json["synthetic"] is True
        else:
            assert "Page: reports/status.html" in left.out
        if made:
            assert "SYNTHETIC DATA" in Path(made).read_text(encoding="utf-8")
            Path(made).unlink()
