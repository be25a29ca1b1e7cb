"""README and docs: their Python is run as it stands, their commands exist and run, and what they name exists."""

from __future__ import annotations

import json
import re
import shlex
import tokenize
from dataclasses import asdict
from pathlib import Path

import click
import pytest
import typer

from engine import cli
from engine.clock import WEEKDAYS
from engine.config import RunConfig, parse_value
from helpers.effort import some
from helpers.project import HELPERS, ROOT

DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
BESIDE = [
    *(ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "data_cache/README.md", "reports/README.md")),
    *(ROOT / "research" / folder / "README.md" for folder in ("studies", "promoted")),
]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in [*PAGES, *BESIDE]}


def snippets(page: str) -> list[str]:
    """Python of a page."""
    return re.findall(r"```python\n(.*?)```", TEXTS[page], flags=re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """Commands of a page, one a line; a command goes on over lines that end with a backslash."""
    text = TEXTS[page].replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in re.findall(r"^    (hlbt .*)$", text, flags=re.MULTILINE)]


#: Each once, in the order of the pages.
COMMANDS = list({tuple(words): words for page in TEXTS for words in commands(page)}.values())


def test_the_python_example(sample_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = snippets("README.md")
    assert '"data_cache", start="2024-10-01", end="2025-03-31"' in code
    Path("data_cache").symlink_to(sample_cache)
    exec(compile(code, "README.md", "exec"), {})
    sharpe, *attribution = capsys.readouterr().out.split()
    assert -10 < float(sharpe) < 10
    assert {"price_pnl_usd", "fee_usd", "funding_usd"} <= set(attribution)


def test_your_own_oracle(
    sample_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))
    Path("my_oracle.py").write_text(snippets("README.md")[1], encoding="utf-8")
    words = next(words for words in commands("README.md") if "my_oracle.py:BuyTheQuiet" in words)
    monkeypatch.setattr("sys.argv", [*words, "--no-report"])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert not done.value.code, capsys.readouterr().err
    assert "BuyTheQuiet" in capsys.readouterr().out


def test_the_sweep(sample_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = snippets("docs/sweeps.md")[0]
    code = code.replace('load_panel("data_cache")', 'load_panel("data_cache", end="2024-06-01")')
    Path("data_cache").symlink_to(sample_cache)
    exec(compile(code, "docs/sweeps.md", "exec"), {})
    shown = capsys.readouterr().out
    assert shown.startswith("n ") and shown.rstrip().endswith(", 9)")


def test_no_other_page_has_python_that_nobody_runs() -> None:
    assert {page: len(snippets(page)) for page in TEXTS if snippets(page)} == {"README.md": 2, "docs/sweeps.md": 1}


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:4]))
def test_every_command_exists(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its options are known; that the commands work is for test_cli.py."""
    monkeypatch.setattr("sys.argv", [*words, "--help"])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert not done.value.code, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert all(word in shown for word in words if word.startswith("--"))


#: What other tests run, for it needs an exchange, an archive or rows that are not ours to give: words -> the test file.
ELSEWHERE = {
    ("data", "sync", "--source", "api"): "test_sync_api.py",
    ("data", "sync", "--source", "s3"): "test_s3.py",
    ("data", "sync", "--source", "dir"): "test_local_archive.py",
    ("data", "cost"): "test_s3.py",
    ("data", "import", "freqtrade"): "test_cli.py",
    ("data", "import", "meta"): "test_coin_table.py",
    ("data", "import", "table"): "test_import_table.py",
    ("backtest", "--oracle", "research.oracles.numerai:NumeraiTBNOracle"): "test_published_scores_runs.py",
    ("backtest", "--oracle", "research.oracles.crowdcent:CrowdCentOracle"): "test_published_scores_runs.py",
    ("backtest", "--oracle", "research.oracles.file:FileOracle"): "test_published_scores_runs.py",
    ("promote",): "test_promote.py",
    ("study",): "test_study_command.py",
    ("live",): "test_live.py",
}
#: Less of the same, so that the tests stay quick: the first start that fits. A verdict is that of the study file.
LESS = {
    ("sweep", "--oracle"): ["--sample", "6", "--top", "0", "--no-verdict"],
    ("sweep",): ["--sample", "6", "--top", "0"],
    ("validate",): ["--top", "0"],
    ("backtest",): ["--no-report"],
    ("oracle", "check"): ["--cuts", str(some(4, 16))],
}


@pytest.mark.slow
def test_the_commands_run(
    sample_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command of the pages, in their order, on the sample; those of ELSEWHERE have a test of their own."""
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))
    Path("research").symlink_to(ROOT / "research")
    Path("my_oracle.py").write_text(snippets("README.md")[1], encoding="utf-8")
    Path("my_weights.csv").write_text("time,BTC,ETH\n2024-06-01T23:00Z,0.5,-0.5\n2024-06-20T23:00Z,0,0\n")
    count = 0
    for words in COMMANDS:
        elsewhere = [file for start, file in ELSEWHERE.items() if tuple(words[1 : 1 + len(start)]) == start]
        if elsewhere:
            assert words[1] in next((ROOT / "tests").rglob(elsewhere[0])).read_text(encoding="utf-8")
            continue
        # The dates of the pages are of real data.
        words = [word.replace("2024-10-01", "2024-03-01").replace("2025-03-31", "2024-06-30") for word in words]
        less = next((less for start, less in LESS.items() if tuple(words[1 : 1 + len(start)]) == start), [])
        monkeypatch.setattr("sys.argv", [*words, *less])
        with pytest.raises(SystemExit) as done:
            cli.main()
        assert not done.value.code, (words, capsys.readouterr().err)
        count += 1
    assert count >= 12


def test_the_readme_is_short() -> None:
    lines = TEXTS["README.md"].splitlines()
    assert len(lines) <= 100
    for number, line in enumerate(lines, 1):
        assert len(line) <= 100, f"README.md line {number} has {len(line)} columns"
    assert len(TEXTS["ARCHITECTURE.md"].splitlines()) <= 120


@pytest.mark.parametrize("page", TEXTS)
def test_a_page_is_narrow_and_its_links_lead_somewhere(page: str) -> None:
    for number, line in enumerate(TEXTS[page].splitlines(), 1):
        assert len(line) <= 120, f"{page} line {number} has {len(line)} columns"
    for link in re.findall(r"\]\(([^)#]+)\)", TEXTS[page].replace("\n", " ")):
        assert (ROOT / page).parent.joinpath(link).exists(), f"{page} links to {link}"


@pytest.mark.parametrize("page", TEXTS)
def test_a_page_names_files_that_exist(page: str) -> None:
    for file in re.findall(r"`((?:engine|research|tests)/[\w/.]+\.\w+)`", TEXTS[page]):
        made = file.startswith("research/promoted/")
        assert made or (ROOT / file).is_file(), f"{page} names {file}"
    for module in re.findall(r"`((?:engine|research)(?:\.\w+)+)", TEXTS[page]):
        parts = module.split(".")
        inside = [ROOT.joinpath(*parts[:depth]) for depth in (len(parts), len(parts) - 1) if depth > 1]
        assert any(at.is_dir() or at.with_suffix(".py").is_file() for at in inside), f"{page} names {module}"


def test_the_index_names_every_page() -> None:
    links = set(re.findall(r"\]\((\w+\.md)\)", TEXTS["docs/README.md"]))
    assert links == {page.name for page in DOCS} - {"README.md"}


def test_the_settings_are_all_there_with_their_defaults() -> None:
    documented: dict[str, dict[str, object]] = {}
    for section, table in re.findall(r"^## `\[(\w+)\]`.*?\n(.*?)(?=^## )", TEXTS["docs/settings.md"], re.M | re.S):
        rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", table, flags=re.MULTILINE)
        documented[section] = {key: None if text == "none" else parse_value(text.strip("`")) for key, text in rows}
    defaults = json.loads(json.dumps(asdict(RunConfig())))
    assert defaults["execution"]["weekdays"] == list(WEEKDAYS)
    defaults["execution"]["weekdays"] = "all"
    assert documented == defaults


def test_the_commands_are_all_there() -> None:
    def names(command: click.Command, path: str) -> list[str]:
        inner = getattr(command, "commands", {})
        return [name for word in inner for name in names(inner[word], f"{path} {word}")] or [path]

    listed = re.findall(r"^\| `(hlbt [a-z -]+)` \|", TEXTS["docs/commands.md"], flags=re.MULTILINE)
    assert sorted(listed) == sorted(names(typer.main.get_command(cli.app), "hlbt"))


def test_the_reference_ledger_quotes_the_rules() -> None:
    """What a comment of `naive.py` quotes is in the pages that it is written from, to the letter."""

    def plain(text: str) -> str:
        return " ".join(re.sub(r"[`*]", "", text).split())

    rules = plain(TEXTS["docs/rules.md"] + TEXTS["docs/overlays.md"])
    comments = [""]
    with tokenize.open(HELPERS / "naive.py") as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type == tokenize.COMMENT:
                comments[-1] += token.string.lstrip("#")
            elif token.type not in (tokenize.NL, tokenize.NEWLINE):
                comments.append("")
    quotations = [quotation for comment in comments for quotation in re.findall(r'"([^"]{12,})"', plain(comment))]
    assert len(quotations) > 25
    pieces = [piece.strip(" .:;,") for quotation in quotations for piece in quotation.split("[...]")]
    assert [piece for piece in pieces if piece not in rules] == []
