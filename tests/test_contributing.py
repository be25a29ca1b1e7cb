"""CONTRIBUTING.md names what is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_it_is_one_page_and_names_what_exists() -> None:
    assert len(TEXT.splitlines()) < 80
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = set(re.findall(r"(?:`|^    )make ([a-z-]+)", TEXT, flags=re.MULTILINE))
    assert named <= targets and {"demo", "test", "lint", "bench", "lock", "fresh"} <= named
    for test in re.findall(r"`(test_[a-z0-9_]+)`", TEXT):
        assert (ROOT / "tests" / f"{test}.py").is_file(), test
    for file in re.findall(r"`([a-z_/]+\.(?:py|md|toml))`", TEXT):
        assert any(
            (ROOT / folder / file).is_file() for folder in ("", "engine", "engine/data", "tests", "tests/golden")
        ), file
