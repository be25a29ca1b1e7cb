"""Pages in a real browser: Debian's Chromium, driven by playwright, with no way out of the machine.

The fixture `browser` of conftest.py gives a :class:`Browser`; ``with browser.opened(path) as page`` opens a page, and
fails when the page wrote an error to the console or asked for anything but itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


@dataclass(frozen=True)
class Browser:
    """A Chromium that runs."""

    chromium: Any

    @contextmanager
    def opened(self, path: Path, width: int = 1300, dark: bool = False, touch: bool = False) -> Iterator[Any]:
        """Playwright's page of an HTML file."""
        context = self.chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", has_touch=touch
        )
        said: list[str] = []
        asked: list[str] = []
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.set_default_timeout(60_000)
        try:
            page.goto(path.as_uri())
            yield page
        finally:
            context.close()
        assert not said, said
        assert asked == [path.as_uri()], [url[:100] for url in asked]


@contextmanager
def running() -> Iterator[Browser]:
    """A Chromium for as long as the block runs; skips where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield Browser(chromium)
        finally:
            chromium.close()


def overflow(page: Any) -> int:
    """Pixels by which a page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))
