"""Every page in a real browser, on a desktop and a telephone, by day and by night: no error, nothing cut off.

HLBT_SCREENSHOTS=DIR keeps pictures of them, to be looked at.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from browser import Browser, overflow
from engine import cli

MOMENTUM = "research.oracles.momentum:Momentum"
SPAN = "--set data.start=2024-01-10 --set data.end=2024-05-10"
PAGES = {
    "tearsheet": "reports/long/tearsheet.html",
    "index": "reports/index.html",
    "status": "reports/status.html",
    "capacity": "capacity.html",
    "signals": "signals.html",
}
LOOKS = {
    "desktop": (1300, False),
    "desktop-dark": (1300, True),
    "phone": (390, False),
    "phone-dark": (390, True),
}
#: What is to be seen beside nothing that fails: text against its own background, in points of the WCAG's formula.
CONTRAST = """() => {
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = parse(c).slice(0, 3).map(v => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor, p = parse(c);
    if (p.length < 4 || p[3] === 1) return c; if (p[3] > 0) return null; } return 'rgb(255,255,255)';
  };
  const faint = [];
  for (const e of document.querySelectorAll('p, td, th, h1, h2, h3, a, dt, dd, li, summary, label, caption')) {
    const text = [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent.trim()).join('');
    if (!text || !e.getClientRects().length || e.closest('.container')) continue;  // QuantStats' own
    const back = behind(e); if (!back) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(back)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4) faint.push(`${e.tagName} ${text.slice(0, 40)} ${ratio.toFixed(2)}`);
  }
  return faint.slice(0, 8);
}"""


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
            patch.setattr(sys, "argv", ["hlbt", *shlex.split(line)])
            with pytest.raises(SystemExit) as left:
                cli.main()
            assert not left.value.code, line
    return folder


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
        assert "SYNTHETIC" in opened.inner_text("body")
        back = opened.evaluate("getComputedStyle(document.body).backgroundColor")
        assert back == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")


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
