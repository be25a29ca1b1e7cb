"""Names that are gone stay gone, and nothing refers to documents that are not in the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from helpers.project import ROOT

SUFFIXES = {".css", ".html", ".ipynb", ".js", ".json", ".md", ".py", ".toml"}
PAGES = [*ROOT.glob("*.md"), *(ROOT / folder / "README.md" for folder in ("data_cache", "reports"))]
FILES = sorted(
    file
    for file in [*PAGES, *(file for top in ("docs", "engine", "research", "tests") for file in (ROOT / top).rglob("*"))]
    if file.suffix in SUFFIXES and file.is_file()
)
#: What must hold the old names: the history, the map that old paths load by, its tests, and this list.
EXEMPT = {
    "CHANGELOG.md",
    "engine/oracles/fingerprint.py",
    "tests/oracles/test_loading.py",
    "tests/project/test_dead_names.py",
}

#: Package -> modules that were moved or renamed, as `engine.kernel` or `engine/kernel.py`.
MODULES = {
    "engine": "addresses batch capacity doctor fees files kernel metrics oracle pages promote rebalance records report "
    "result simulate sparse stress variants",
    "engine.commands": "live_status machine_checks sheets terminal terminal_live",
    "engine.data": "answers api archive coins cube exchange files lacking load objects pacing precedence report s3 "
    "status store",
    "engine.live": "execute feed given limits performance plan status status_page wire",
    "engine.oracles": "build causality fresh loose nested past perturb questions risk signals sources watch",
    "engine.sweeps": "store study_file",
    "engine.validation": "resampling robustness",
    "research.oracles": "compose names publication published table",
}
#: Functions have these names today, so only the files are gone.
OLD_FILES = ("engine/sweep.py", "engine/validate.py")
#: Classes, functions and constants that were renamed, in words that nothing else has.
NAMES = (
    "GivenWeights Pacer Patience SetAside Sending Tape _Crowded _Package _Way ask_coins ask_cut ask_fresh ask_funding "
    "ask_future ask_instant ask_last_row ask_process ask_published ask_repeat ask_score ask_valid by_night cut_nb "
    "falls_to leave_nb moved_nb turn_away"
)
DEAD = re.compile(
    "|".join(
        [rf"\b{re.sub('[.]', '[./]', package)}[./](?:{'|'.join(mods.split())})\b" for package, mods in MODULES.items()]
        + [re.escape(file) for file in OLD_FILES]
        + [rf"\b(?:{'|'.join(NAMES.split())})\b"]
    )
)
#: Documents that only whoever began the project had.
OUTSIDE = re.compile(r"\b(?:FACTS|DESIGN|LAYOUT|STYLE)\b|(?<![\w/])(?:\.\./)?shared/")
#: What ARCHITECTURE.md held once is in docs now.
MOVED = re.compile(
    r"ARCHITECTURE(?:\.md)?`*(?:'s)?, (?:\"|Sources|Rules|Look-ahead|Live|Verdict|Promotion|Store|Many|From)"
)


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("file", [file for file in FILES if name(file) not in EXEMPT], ids=name)
def test_a_file_has_no_dead_name(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    for pattern in (DEAD, OUTSIDE, MOVED):
        hits = [f"{text.count(chr(10), 0, hit.start()) + 1}: {hit[0]}" for hit in pattern.finditer(text)]
        assert not hits, f"{name(file)} has {hits}"


def test_the_patterns_match_what_they_are_for() -> None:
    dead = ("from engine.kernel import x", "engine/live/given.py", "research.oracles.compose:Cap", "GivenWeights.of")
    alive = (
        "engine.simulation.kernel",
        "engine.sweeps.results",
        "from engine import sweep",
        "engine.results",
        "_Subway",
    )
    assert all(DEAD.search(text) for text in dead) and not any(DEAD.search(text) for text in alive)
    assert OUTSIDE.search("(FACTS 8.1)") and OUTSIDE.search("see ../shared/x") and not OUTSIDE.search("a/shared/x")
    assert MOVED.search("`ARCHITECTURE.md`, Sources") and not MOVED.search("ARCHITECTURE.md holds the law")
