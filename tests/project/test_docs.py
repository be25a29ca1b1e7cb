"""README and the manual: their blocks are run as they stand, their links lead somewhere, what they name exists."""

from __future__ import annotations

import re
import tokenize
from functools import cache
from pathlib import Path

import click
import pytest
import typer
import yaml

import engine
from engine import cli
from engine.config import SECTIONS
from helpers.manual import (
    LANGUAGES,
    NEEDS,
    Block,
    agrees,
    blocks_of,
    check_syntax,
    commands_of,
    visiting,
    without_blocks,
)
from helpers.project import HELPERS, ROOT

DOCS = sorted((ROOT / "docs").rglob("*.md"))
TOP = [ROOT / name for name in ("README.md", "AGENTS.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]
BESIDE = [
    *(ROOT / name for name in ("data_cache/README.md", "reports/README.md")),
    *(ROOT / "research" / folder / "README.md" for folder in ("studies", "promoted")),
]
TEXTS = {
    page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8")
    for page in [*TOP, *BESIDE, *DOCS]
    if page.is_file()
}
#: Languages of blocks that are run, and the pages that have some.
RUNNABLE = ("console", "python")
RUN = [page for page, text in TEXTS.items() if any(block.language in RUNNABLE for block in blocks_of(text))]
#: The group of all commands.
TREE = typer.main.get_command(cli.app)
#: Longer than a page should be, each for a reason: a contract is one page, and a reference is looked up.
LONG = ("concepts/rules.md", "reference/")
#: Names of other programs are not ours.
FOREIGN = "docs/from-elsewhere/"
FOREIGN_WORDS = ("quote_volume",)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_the_blocks_run(page: str, sample_cache: Path) -> None:
    with visiting(Path(page), sample_cache) as visit:
        visit.run(TEXTS[page])


@pytest.mark.parametrize("page", TEXTS)
def test_blocks_are_of_a_known_kind(page: str) -> None:
    for block in blocks_of(TEXTS[page]):
        where = f"{page} line {block.line}"
        assert block.language in LANGUAGES, f"{where}: a block of {block.language or 'no language'}"
        if block.language == "console":
            assert block.title in ("", *NEEDS), f"{where}: {block.title}"
            assert commands_of(block), f"{where}: no line begins with '$ '"
    assert TEXTS[page].count("```") == 2 * len(blocks_of(TEXTS[page])), f"{page}: a fence that nothing closes"


def test_what_is_shown_is_compared() -> None:
    assert agrees("a  1\n...\nb ... 2\n", "a 1\n\nx\ny\nb 17 2\n") and agrees("...\nb\n", "b\n")
    assert agrees("hlbt: one\nparagraph\n", "hlbt: one paragraph\n")
    assert not agrees("a 1\n", "a 2\n") and not agrees("a\n", "a\nb\n") and not agrees("a.b\n", "axb\n")
    block = Block("console", "", "$ hlbt a \\\n    --b\n1\n2\n$ hlbt c\n", 1, False)
    assert commands_of(block) == [("hlbt a --b", "1\n2\n"), ("hlbt c", "")]


@pytest.mark.parametrize("words", ["frobnicate", "backtest --no-such-option", "sweep --sample many", "study frob"])
def test_a_command_that_does_not_exist_is_seen(words: str) -> None:
    with pytest.raises(AssertionError):
        check_syntax(["hlbt", *words.split()])


def test_the_readme_is_short() -> None:
    lines = TEXTS["README.md"].splitlines()
    assert len(lines) <= 100
    for number, line in enumerate(lines, 1):
        assert len(line) <= 100, f"README.md line {number} has {len(line)} columns"
    assert len(TEXTS["ARCHITECTURE.md"].splitlines()) <= 120


def anchors(text: str) -> set[str]:
    """Anchors of the headings of a page, as the site makes them."""
    headings = re.findall(r"^#{1,6} +(.*)$", without_blocks(text), flags=re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading) for heading in headings)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in plain}


@pytest.mark.parametrize("page", TEXTS)
def test_a_page_is_narrow_and_its_links_lead_somewhere(page: str) -> None:
    text = TEXTS[page]
    generated = "docs/reference/" in page
    for number, line in enumerate(text.splitlines(), 1):
        assert generated or len(line) <= 120, f"{page} line {number} has {len(line)} columns"
        # The site's Markdown would take such an item for one of the outer list.
        assert not re.match(r" {1,3}(?:[-*]|\d+\.) ", line), f"{page} line {number}: a nested item has four blanks"
    for link, anchor in re.findall(r"\]\(([^)#\s:]*)(?:#([^)\s]*))?\)", without_blocks(text).replace("\n", " ")):
        target = (ROOT / page).parent.joinpath(link) if link else ROOT / page
        assert target.exists(), f"{page} links to {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{page} links to {link}#{anchor}"


@pytest.mark.parametrize("page", [page for page in TEXTS if page.startswith("docs/")])
def test_a_page_is_no_longer_than_a_page(page: str) -> None:
    words = len(without_blocks(TEXTS[page]).split())
    assert words <= 1500 or page.removeprefix("docs/").startswith(LONG), f"{page} has {words} words"


@pytest.mark.parametrize("page", TEXTS)
def test_a_page_names_files_that_exist(page: str) -> None:
    for file in re.findall(r"`((?:engine|research|tests)/[\w/.]+\.\w+)`", TEXTS[page]):
        made = file.startswith("research/promoted/")
        assert made or (ROOT / file).is_file(), f"{page} names {file}"
    for module in re.findall(r"`((?:engine|research)(?:\.\w+)+)", TEXTS[page]):
        parts = module.split(".")
        inside = [ROOT.joinpath(*parts[:depth]) for depth in (len(parts), len(parts) - 1) if depth > 1]
        assert any(at.is_dir() or at.with_suffix(".py").is_file() for at in inside), f"{page} names {module}"


@cache
def known_words() -> frozenset[str]:
    """Every word of the code: a page can name nothing else."""
    files = [*(file for top in ("engine", "research", "tests") for file in (ROOT / top).rglob("*.*"))]
    texts = [file for file in files if file.suffix in (".py", ".toml", ".json", ".css", ".html", ".jinja")]
    texts += [ROOT / name for name in ("Makefile", "pyproject.toml", "mkdocs.yml", "Dockerfile", ".ci/run")]
    words = re.findall(r"\w+", " ".join(file.read_text(encoding="utf-8") for file in texts))
    return frozenset([*words, *(file.stem for file in files), *FOREIGN_WORDS])


def unknown_names(text: str) -> list[str]:
    """What a page names in code letters and does not exist: keys, commands, options, names of the package, any word."""
    prose = without_blocks(text)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    wrong = []
    fields = {section: {key for key in vars(kind) if not key.startswith("_")} for section, kind in SECTIONS.items()}
    options = known_options()
    for span in spans:
        for section, key in re.findall(r"(?<![\w./])(data|execution|costs|account|report)\.([a-z_]+)\b(?![./(])", span):
            if key not in fields[section] and key not in ("py", "md", "json", "html", "toml", "csv", "parquet"):
                wrong.append(f"{section}.{key}")
        for name, attribute in re.findall(r"(?<![\w.])([A-Z]\w+)\.([a-z]\w*)", span):
            kind = getattr(engine, name, None) if name in engine.__all__ else None
            known = kind is None or hasattr(kind, attribute) or attribute in getattr(kind, "__annotations__", ())
            if not known:
                wrong.append(f"{name}.{attribute}")
        words = span.split()
        if words[0] == "hlbt" and len(words) > 1:
            wrong += _unknown_command(words[1:])
        wrong += [option for option in re.findall(r"(?<!\S)(--[a-z][a-z-]+)", span) if option not in options]
        elsewhere = known_words() if re.fullmatch(r"[a-z]\w*_\w+", span) else (span,)
        if span not in elsewhere and span not in text.replace(f"`{span}`", ""):
            wrong.append(span)
    return wrong


def _unknown_command(words: list[str]) -> list[str]:
    command: click.Command = TREE
    for word in words:
        inside = getattr(command, "commands", None)
        if inside is None or not re.fullmatch(r"[a-z][a-z-]*", word):
            break
        if word not in inside:
            return [f"hlbt {' '.join(words)}"]
        command = inside[word]
    mine = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    given = [word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)]
    if hasattr(command, "commands"):
        return []
    return [f"{command.name} {word}" for word in given if word not in {*mine, "--help"}]


@cache
def known_options() -> frozenset[str]:
    """Options of every command, of pytest and of the scripts that pages name."""

    def options(command: click.Command) -> set[str]:
        mine = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        return mine.union(*(options(inner) for inner in getattr(command, "commands", {}).values()))

    scripts = [file for top in ("research", "tests") for file in (ROOT / top).rglob("[!t]*.py")]
    written = re.findall(r'"(--[a-z-]+)"', " ".join(file.read_text(encoding="utf-8") for file in scripts))
    others = {*written, "--help", "--version", "--install-completion", "--show-completion", "--full", "--quick"}
    return frozenset(options(TREE) | others)


@pytest.mark.parametrize("page", [page for page in TEXTS if not page.startswith(FOREIGN)])
def test_a_page_names_what_exists(page: str) -> None:
    assert unknown_names(TEXTS[page]) == []


def test_names_that_do_not_exist_are_seen() -> None:
    name = "_".join(["sharpe", "of", "nobody"])
    text = (
        f"`costs.xyz` `hlbt frob` `hlbt backtest --frob x` `--no-such` `Result.frobnicate` `{name}` "
        "and `costs.taker_bps`, `hlbt data sync --source api`, `Result.metrics`, `max_gross`"
    )
    expected = ["costs.xyz", "hlbt frob", "backtest --frob", "--frob", "--no-such", "Result.frobnicate"]
    assert unknown_names(text) == [*expected, name]


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml; what is tagged for mkdocs is of no matter here."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)


def test_the_navigation_names_every_page() -> None:
    def pages(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        inside = entry.values() if isinstance(entry, dict) else entry
        return [page for item in inside for page in pages(item)]  # type: ignore[attr-defined]

    site = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Loader)
    assert sorted(pages(site["nav"])) == [page.relative_to(ROOT / "docs").as_posix() for page in DOCS]
    assert site["strict"] and site["theme"]["font"] is False


def test_the_first_page_leads_to_every_page() -> None:
    links = set(re.findall(r"\]\(([\w/-]+\.md)\)", TEXTS["docs/index.md"]))
    assert links == {page.relative_to(ROOT / "docs").as_posix() for page in DOCS} - {"index.md"}


def test_the_reference_ledger_quotes_the_rules() -> None:
    """What a comment of `naive.py` quotes is in the pages that it is written from, to the letter."""

    def plain(text: str) -> str:
        return " ".join(re.sub(r"[`*]", "", text).split())

    rules = plain(TEXTS["docs/concepts/rules.md"] + TEXTS["docs/concepts/weights-traded.md"])
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
