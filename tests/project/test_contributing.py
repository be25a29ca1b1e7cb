"""CONTRIBUTING.md and the pages for developers name what exists."""

from __future__ import annotations

import re

from helpers.project import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PAGES = [page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "developing").glob("*.md")]


def test_it_is_one_page_and_names_what_exists() -> None:
    assert len(TEXT.splitlines()) <= 85
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = set(re.findall(r"(?:`|^    )make ([a-z-]+)", TEXT, flags=re.MULTILINE))
    assert named <= targets and {"demo", "test", "lint", "bench", "lock", "fresh"} <= named
    tests = re.findall(r"`([a-z]+/)?(test_[a-z0-9_]+)`", " ".join([TEXT, *PAGES]))
    assert len(tests) > 12
    for folder, test in tests:
        exists = (
            (ROOT / "tests" / folder / f"{test}.py").is_file() if folder else any((ROOT / "tests").rglob(f"{test}.py"))
        )
        assert exists, f"{folder}{test}"
    for file in re.findall(r"`([a-z_/]+\.(?:py|md|toml))`", TEXT):
        assert (ROOT / file).is_file() or any(any((ROOT / top).rglob(file)) for top in ("engine", "tests")), file
