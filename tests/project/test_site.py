"""The built manual opens from the disk: no server, no network, and its search finds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.browser import Browser, overflow
from helpers.project import ROOT

pytestmark = pytest.mark.slow
#: What a page loads: not what it links to.
LOADS = re.compile(r'<(?:script|img|iframe|source)[^>]* src="?(?:https?:)?//|<link[^>]* href="?(?:https?:)?//[^>]*>')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manual, built strictly."""
    folder = tmp_path_factory.mktemp("site")
    command = [Path(sys.executable).parent / "mkdocs", "build", "--quiet", "--strict", "--site-dir", folder]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        hits = [hit[0] for hit in LOADS.finditer(page.read_text(encoding="utf-8")) if 'rel="canonical"' not in hit[0]]
        assert not hits, f"{page.relative_to(site)} loads {hits}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )['\"]?(?:https?:)?//", style.read_text(encoding="utf-8")), style


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (390, True)])
def test_it_opens_from_the_disk_and_its_search_finds(browser: Browser, site: Path, width: int, dark: bool) -> None:
    context = browser.chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
    )
    asked: list[str] = []
    said: list[str] = []
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: said.append(str(error)))
    try:
        page.goto((site / "index.html").as_uri())
        assert page.evaluate("document.body.dataset.mdColorScheme") == ("slate" if dark else "default")
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert overflow(page) <= 0
        if width < 1000:
            page.locator("label[for=__search].md-header__button").click()
        page.locator("input.md-search__input").click()
        page.keyboard.type("half_spread_bps", delay=20)
        page.wait_for_selector(".md-search-result__item a", timeout=60_000)
        found = page.eval_on_selector_all(".md-search-result__item a", "links => links.map(link => link.href)")
        assert any("config.html" in link for link in found), found
        page.goto((site / "reference" / "python.html").as_uri())
        assert page.locator("h3", has_text="load_panel").count() >= 1
        if folder := os.environ.get("HLBT_SCREENSHOTS"):
            for name in ("index", "reference/config", "reference/python", "concepts/known-when"):
                page.goto((site / f"{name}.html").as_uri())
                page.screenshot(path=Path(folder) / f"site-{name.replace('/', '-')}-{width}.png")
    finally:
        context.close()
    assert not said, said
    assert all(url.startswith(("file:", "data:", "blob:", "about:")) for url in asked), asked
