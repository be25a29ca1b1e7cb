"""Make the screenshots of the manual and the README from `hlbt demo`: `make images`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parents[1] / "images"
WIDTH, HEIGHT = 1400, 900
#: Image -> the page below reports/ whose first screen it is.
SCREENS = {
    "tearsheet.png": "momentum-*/tearsheet.html",
    "sweep.png": "demo-sweep/index.html",
    "runs.png": "index.html",
}


def main() -> None:
    """Run the demo in a folder that is thrown away, and photograph its pages."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is not here: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        subprocess.run([Path(sys.executable).parent / "hlbt", "demo"], cwd=folder, check=True, capture_output=True)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name, pattern in SCREENS.items():
            (source,) = Path(folder, "reports").glob(pattern)
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
            page.goto(source.as_uri())
            page.wait_for_timeout(500)
            page.screenshot(path=IMAGES / name)
            page.close()
            # A palette of 128 colours: a third of the bytes, and no difference to be seen.
            with Image.open(IMAGES / name) as image:
                image.convert("RGB").quantize(128).save(IMAGES / name, optimize=True)
            sys.stdout.write(f"docs/images/{name}\n")
        browser.close()


if __name__ == "__main__":
    main()
