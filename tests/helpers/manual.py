"""Pages of the manual: their blocks, and running them.

A page is run from top to bottom in one folder and one Python namespace, with the synthetic sample as `data_cache`.

- ``console``: lines that begin with ``$ `` are commands, a backslash continues one; what follows is their output. A
  command must end with exit code 0, unless the next one is ``echo $?``. Shown output is compared (:func:`agrees`);
  a command that shows none may print what it likes.
- ``console`` with a title of :data:`NEEDS`: the syntax and the options of its hlbt commands are checked. Those that
  take minutes run in ``make test-full``.
- ``python`` is run, and a ``text`` block right behind it is what it prints.
- Any block with a file's name as title is written to that file.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from engine import cli
from helpers.commands import exit_code
from helpers.effort import some
from helpers.project import ROOT

#: Titles of console blocks that the tests cannot run, or not always.
NEEDS = ("Needs the network", "Needs an exchange", "Needs the archive", "Needs your own files", "Takes minutes")
FENCE = re.compile(r'^( *)```(\w*)(?: title="([^"]*)")?[^\n`]*\n(.*?)^\1```$', flags=re.MULTILINE | re.DOTALL)
#: Languages that something is done with, and those that are only shown.
LANGUAGES = ("console", "python", "text", "toml", "csv", "json", "ini")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, title, text, and the line on which the text begins."""

    language: str
    title: str
    text: str
    line: int
    #: Nothing but blank lines stand between it and the block before.
    follows: bool


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = []
    end = -1
    for fence in FENCE.finditer(text):
        indent, language, title, body = fence[1], fence[2], fence[3] or "", fence[4]
        body = re.sub(rf"^{indent}", "", body, flags=re.MULTILINE)
        follows = end >= 0 and not text[end : fence.start()].strip()
        found.append(Block(language, title, body, text.count("\n", 0, fence.start()) + 2, follows))
        end = fence.end()
    return found


def without_blocks(text: str) -> str:
    """The prose of a page."""
    return FENCE.sub("", text)


def commands_of(block: Block) -> list[tuple[str, str]]:
    """Commands of a console block, each with the output shown below it."""
    pairs: list[tuple[str, str]] = []
    for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
        if line.startswith("$ "):
            pairs.append((line[2:], ""))
        else:
            assert pairs or not line.strip(), f"line {block.line}: output before any command: {line}"
            if pairs:
                pairs[-1] = (pairs[-1][0], f"{pairs[-1][1]}{line}\n")
    return pairs


def agrees(shown: str, printed: str) -> bool:
    """Whether what a page shows is what was printed.

    Runs of blanks are equal and empty lines do not count; ``...`` stands for anything within a line and, alone on a
    line, for any number of lines. An error's paragraph may be broken over lines on the page.
    """
    if shown.lstrip().startswith("hlbt: "):
        shown, printed = " ".join(shown.split()), " ".join(printed.split())
    pattern = ""
    for line in shown.splitlines():
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        elif line.strip():
            pattern += ".*?".join(re.escape(part) for part in _plain(line).split("...")) + r"\n"
    lines = "".join(f"{_plain(line)}\n" for line in printed.splitlines() if line.strip())
    return re.fullmatch(pattern, lines) is not None


def _plain(line: str) -> str:
    return re.sub(r"\s+", " ", line).strip()


def check_syntax(words: list[str]) -> None:
    """Fail unless a command exists and takes what it is given; nothing is run."""
    command: Any = typer.main.get_command(cli.app)
    words = words[1:]
    while hasattr(command, "commands") and words:
        assert words[0] in command.commands, f"hlbt has no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    try:
        command.make_context("hlbt", words, resilient_parsing=False)
    except Exception as error:
        if not hasattr(error, "format_message"):  # what is refused for another reason than its syntax is run, and seen
            raise
        raise AssertionError(error.format_message()) from error


def hlbt_words(command: str) -> list[str] | None:
    """Words of a plain hlbt command; None for anything else of a shell."""
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        return None
    plain = words and Path(words[0]).name == "hlbt" and not re.search(r"(?<!\S)(?:\||>|>>|&&|;|<)(?!\S)|\$", command)
    return ["hlbt", *words[1:]] if plain else None


class Visit:
    """A page that is being run, in the current folder."""

    def __init__(self, page: Path, sample: Path, patch: pytest.MonkeyPatch) -> None:
        self.page, self.sample, self.patch = page, sample, patch
        self.code = 0
        self.printed = ""
        self.module = types.ModuleType("__main__")
        for name in ("studies", "promoted"):
            shutil.copytree(ROOT / "research" / name, Path("research") / name)
        shutil.copy(ROOT / "research" / "gates.toml", "research")
        shutil.copytree(sample, "data_cache")
        patch.setenv("HLBT_DATA_CACHE", "data_cache")
        patch.setenv("COLUMNS", "100")
        patch.setenv("PATH", f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), str(ROOT)]))
        patch.syspath_prepend(os.getcwd())

    def run(self, text: str) -> None:
        """Every block, in order."""
        for block in blocks_of(text):
            where = f"{self.page.name} line {block.line}"
            if block.language == "console":
                self.console(block, where)
            elif block.language == "text" and block.follows and self.printed:
                assert agrees(block.text, self.printed), f"{where} shows\n{block.text}\nand was\n{self.printed}"
            elif Path(block.title).suffix:
                Path(block.title).parent.mkdir(parents=True, exist_ok=True)
                Path(block.title).write_text(block.text, encoding="utf-8")
            elif block.language == "python":
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    exec(compile("\n" * (block.line - 1) + block.text, str(self.page), "exec"), self.module.__dict__)
                self.printed = out.getvalue()
                continue
            self.printed = ""

    def console(self, block: Block, where: str) -> None:
        """The commands of a block, or only their syntax."""
        pairs = commands_of(block)
        assert pairs, f"{where}: no line begins with '$ '"
        for number, (command, shown) in enumerate(pairs):
            words = hlbt_words(command)
            if words is not None:
                with contextlib.suppress(typer.Exit):
                    check_syntax(words)
            if block.title and not (block.title == "Takes minutes" and some(0, 1)):
                continue
            try:
                printed, errors = self.command(command, words)
            except Exception as error:
                raise AssertionError(f"{where}: {command}") from error
            asked = number + 1 < len(pairs) and pairs[number + 1][0] == "echo $?"
            assert asked or not self.code or command == "echo $?", f"{where}: {command}\n{printed}{errors}"
            if shown.strip():
                same = any(agrees(shown, text) for text in (printed, errors, printed + errors))
                assert same, f"{where}: {command}\nshows\n{shown}\nand printed\n{printed}{errors}"

    def command(self, command: str, words: list[str] | None) -> tuple[str, str]:
        """Run a command: what it printed, and its errors; the exit code is kept."""
        if command == "echo $?":
            return f"{self.code}\n", ""
        if match := re.fullmatch(r"export (\w+)=(\S+)", command):
            self.patch.setenv(match[1], match[2])
            if match[1] == "HLBT_DATA_CACHE" and not Path(match[2]).exists():
                shutil.copytree(self.sample, match[2])
            self.code = 0
        elif match := re.match(r"make ([a-z-]+)", command):
            assert f"\n{match[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), f"no target {match[1]}"
            self.code = 0
        elif words is None:
            done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
            self.code = done.returncode
            return done.stdout, done.stderr
        else:
            with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
                self.code = exit_code(*words[1:])
            return out.getvalue(), errors.getvalue()
        return "", ""


@contextlib.contextmanager
def visiting(page: Path, sample: Path) -> Iterator[Visit]:
    """A page in the current folder, which is empty; nothing of it is left in this process."""
    with pytest.MonkeyPatch.context() as patch:
        here = os.getcwd()
        Path("research").mkdir()
        visit = Visit(page, sample, patch)
        patch.setitem(sys.modules, "__main__", visit.module)
        try:
            yield visit
        finally:
            for name, module in list(sys.modules.items()):
                if str(getattr(module, "__file__", None) or "").startswith(here):
                    del sys.modules[name]
