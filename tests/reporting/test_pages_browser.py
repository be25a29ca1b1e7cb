"""Every page in a real browser, on a desktop and a telephone, by day and by night: no error, nothing cut off.

HLBT_SCREENSHOTS=DIR keeps pictures of them, to be looked at.
"""

from __future__ import annotations

import importlib
import os
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from engine import RunConfig
from engine.commands.live_answers import monitored
from engine.live.journal import Journal
from engine.reporting.live_page import write_live_page
from engine.reporting.live_performance import live_status
from helpers.browser import Browser, overflow
from helpers.commands import exit_code
from helpers.live_world import momentum_spec

pytestmark = pytest.mark.slow

MOMENTUM = "research.oracles.momentum:Momentum"
SPAN = "--set data.start=2024-01-10 --set data.end=2024-05-10"
PAGES = {
    "tearsheet": "reports/long/tearsheet.html",
    "index": "reports/index.html",
    "status": "reports/status.html",
    "capacity": "capacity.html",
    "signals": "signals.html",
    "live": "live.html",
    "live-wrong": "live-wrong.html",
    "study": "study/publication_delay.html",
}
LOOKS = {
    "desktop": (1300, False),
    "desktop-dark": (1300, True),
    "phone": (390, False),
    "phone-dark": (390, True),
}
_LIGHT = """
  const parse = c => c.match(/[\\d.]+/g).map((v, i) => v * (c.startsWith("color(") && i < 3 ? 255 : 1));
  const light = c => { const [r, g, b] = parse(c).slice(0, 3).map(v => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor, p = parse(c);
    if (p.length < 4 || p[3] === 1) return c; if (p[3] > 0) return null; } return 'rgb(255, 255, 255)';
  };
  const against = (c, back) => { const [a, b] = [light(c), light(back)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); };
"""
#: What is to be seen beside nothing that fails: text against its own background, in points of the WCAG's formula.
CONTRAST = (
    f"() => {{{_LIGHT}"
    """
  const faint = [];
  for (const e of document.querySelectorAll(
      'p, td, th, h1, h2, h3, a, dt, dd, li, summary, label, caption, svg text')) {
    const text = [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent.trim()).join('');
    if (!text || !e.getClientRects().length || e.closest('#monthly_heatmap')) continue;  // words on its own colours
    const back = behind(e); if (!back) continue;
    const style = getComputedStyle(e), ratio = against(e.closest('svg') ? style.fill : style.color, back);
    if (ratio < 4) faint.push(`${e.tagName} ${text.slice(0, 40)} ${ratio.toFixed(2)}`);
  }
  return faint.slice(0, 8);
}"""
)
#: Lines of charts that are hard to see; QuantStats' white edges of bars are none.
LINES = (
    f"() => {{{_LIGHT}"
    """
  const faint = new Set();
  for (const e of document.querySelectorAll('svg path')) {
    const style = getComputedStyle(e), back = behind(e);
    if (style.fill !== 'none' || style.stroke === 'none' || style.stroke === back) continue;
    if (parseFloat(style.strokeWidth) < 1 || e.closest('defs')) continue;
    if (against(style.stroke, back) < 2) faint.add(`${style.stroke} on ${back}`);
  }
  return [...faint];
}"""
)


@pytest.fixture(scope="module")
def pages(sample_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the pages, made by the commands as a user would, with names as long as users make them."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HLBT_DATA_CACHE", str(sample_cache))
        for line in (
            f"backtest --oracle research.oracles.blend:Blend --out reports/long {SPAN} --param "
            f'\'oracles=["{MOMENTUM}", "research.oracles.carry:Carry"]\' --param oracles.0.lookback_hours=168 '
            "--set execution.no_trade_band_frac=0.001",
            f"backtest --oracle {MOMENTUM} {SPAN} --no-report",
            f"sweep --oracle {MOMENTUM} --grid n=3,5 --grid lookback_hours=72,168 {SPAN} --no-verdict",
            "data status",
            f"capacity --oracle {MOMENTUM} {SPAN} --sizes 1e4,1e5,1e6,1e7 --out capacity.html",
            f"oracle report {MOMENTUM} {SPAN} --out signals.html",
            "index",
        ):
            assert exit_code(*shlex.split(line)) == 0, line
        live_pages(folder, sample_cache)
        study = importlib.import_module("research.studies.01_numerai_publication_delay")
        assert study.main(["--cache", str(sample_cache), "--end", "2024-04-01", "--lags", "5", "--out", "study"]) == 0
    return folder


def live_pages(folder: Path, cache: Path) -> None:
    """The status page of a paper account after a few days, and the same where much went wrong."""
    spec = momentum_spec(folder, cache)
    where = ("--network", "paper", "--journal", str(folder / "live"))
    for day in pd.date_range("2024-02-01T22:59Z", periods=4, freq="D"):
        assert exit_code("live", "run", spec, *where, "--execute", "--json", "--now", day.isoformat()) == 0
    assert exit_code("live", "status", spec, *where, "--out", folder / "live.html") == 0
    journal = folder / "live" / "momentum-paper.jsonl"
    config = RunConfig.from_dict({"data": {"cache": str(cache)}})
    found = live_status(Journal(journal), config) | monitored(None, Journal(journal), config, "momentum", "paper")
    text = "The account pays +1,234.5 bp of equity a day beyond the model since 2024-02-01. " * 3
    for part in ("plan", "costs", "edge"):
        found["answers"][part] |= {"state": "crossed", "text": text}
    found["answers"]["plan"]["differences"] = [
        {"instant": row["instant"], "coin": "kPEPE", "cause": text}
        | dict.fromkeys(("journal_weight", "replay_weight", "journal_units", "replay_units"), -123_456_789.0)
        for row in found["runs"]
    ]
    found["demotion"] = {"says": "It is DEMOTED: " + text}
    found["events"] = [{"kind": "demoted", "at": found["runs"][0]["instant"], "text": text}]
    reason = "the exchange refused it: Price must be divisible by tick size. " * 3
    found["missed"] = [
        {"instant": row["instant"], "coin": "kPEPE", "units": -123_456_789.0, "target_units": 0.0, "reason": reason}
        for row in found["runs"]
    ]
    found["unresolved"] = [{"cloid": "0x0", "coin": "kPEPE", "units": 1e9}] * 12
    found["runs"][0] |= {"state": "incomplete", "missing": ["kPEPE"] * 30, "gross": None}
    for row in found["drift"]["rows"]:
        row["live_usd"] *= 1e4
    write_live_page(found, "a-strategy-with-a-long-name" * 4, "mainnet", folder / "live-wrong.html")


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_on_every_screen(browser: Browser, pages: Path, name: str, look: str) -> None:
    width, dark = LOOKS[look]
    with browser.opened(pages / PAGES[name], width, dark, touch=width < 500) as opened:
        if kept := os.environ.get("HLBT_SCREENSHOTS"):
            opened.screenshot(path=f"{kept}/{name}-{look}.png", full_page=True)
        assert overflow(opened) <= 0
        assert cut(opened) == []
        assert opened.evaluate(CONTRAST) == []
        if name in ("tearsheet", "capacity", "study"):
            assert opened.evaluate(LINES) == []
        assert "SYNTHETIC" in opened.inner_text("body") and "dex=" not in opened.inner_text("body")  # what is not set
        if name == "live-wrong":
            assert "kPEPE +1,000,000,000," in opened.inner_text("body") and "-123,456,789" in opened.inner_text("body")
        back = opened.evaluate("getComputedStyle(document.body).backgroundColor")
        assert back == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")


@pytest.mark.parametrize("width", [1400, 390])
def test_the_first_screen_answers_and_the_pointer_reads_every_chart(browser: Browser, pages: Path, width: int) -> None:
    with browser.opened(pages / PAGES["tearsheet"], width, touch=width < 500) as opened:
        charts = opened.locator("svg[data-hover]:visible")
        assert charts.count() == opened.locator("svg:visible").count() >= 12
        first = charts.first.bounding_box()
        assert first["y"] + first["height"] <= 900  # with name, figures and the banner above it
        tiles = {tile.get_attribute("data-metric") for tile in opened.locator(".tile dd").all()}
        assert {"total_return", "cagr", "sharpe", "volatility", "max_drawdown", "alpha", "beta"} <= tiles
        for place in range(charts.count()):
            chart = charts.nth(place)
            chart.scroll_into_view_if_needed()
            box = chart.bounding_box()
            opened.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            shown = opened.locator(".hlbt-tip:visible").inner_text()
            assert any(letter.isdigit() for letter in shown), chart.get_attribute("aria-label")
            tip = opened.locator(".hlbt-tip").bounding_box()
            assert tip["x"] >= 0 and tip["x"] + tip["width"] <= width
        coins = opened.locator("table.coins tbody td:first-child")
        names = coins.all_inner_texts()
        opened.locator("table.coins th button").first.click()
        assert coins.all_inner_texts() == sorted(names, key=str.casefold) != names


@pytest.mark.parametrize("name", PAGES)
def test_a_printed_page_keeps_its_last_column(browser: Browser, pages: Path, name: str) -> None:
    with browser.opened(pages / PAGES[name], 700) as opened:  # an A4 sheet between margins of 12 mm
        opened.emulate_media(media="print")
        beyond = """() => [...document.querySelectorAll('table')].filter(e => e.getClientRects().length
            && e.getBoundingClientRect().right > 701).map(e => `${e.className} ${e.textContent.slice(0, 40)}`)"""
        assert opened.evaluate(beyond) == []


@pytest.mark.parametrize("name", ["capacity", "signals", "study"])
def test_the_pointer_reads_the_charts_of_other_pages(browser: Browser, pages: Path, name: str) -> None:
    with browser.opened(pages / PAGES[name], 1400) as opened:
        charts = opened.locator("svg[role=img]")
        for place in range(charts.count()):
            charts.nth(place).hover()
            assert any(letter.isdigit() for letter in opened.locator(".hlbt-tip:visible").inner_text()), place


def test_the_table_of_sizes_fits_a_desktop(browser: Browser, pages: Path) -> None:
    with browser.opened(pages / PAGES["capacity"], 1400) as opened:
        assert opened.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.wide'))") <= 0
        assert "edian order takes 10% of the hour's volume" in opened.inner_text(".headline")


def cut(opened: Any) -> list[str]:
    """Elements that reach beyond the window's right edge and cannot be scrolled to."""
    found: list[str] = opened.evaluate(
        """() => [...document.querySelectorAll('body *')].filter(e => {
             const box = e.getBoundingClientRect();
             if (!box.width || box.right <= window.innerWidth + 1) return false;
             if (e.closest('svg, details:not([open])')) return false;
             for (let up = e.parentElement; up && up !== document.body; up = up.parentElement)
               if (['auto', 'scroll'].includes(getComputedStyle(up).overflowX)) return false;
             return true;
           }).slice(0, 5).map(e => `${e.tagName}.${e.className} ${e.textContent.slice(0, 40)}`)"""
    )
    return found
