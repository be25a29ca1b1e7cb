"""The public face: sorted and typed, and enough for everything that the README and the manual show."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import engine
from engine import errors
from helpers.project import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def python_blocks(page: Path) -> list[str]:
    """Code of a page that is Python: fenced as such, or indented by four blanks and with an import in it."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```(?:python|py)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"(?:^(?: {4}.*)?\n)+", outside, flags=re.MULTILINE)
    blocks = [*fenced, *(re.sub(r"^ {4}", "", block, flags=re.MULTILINE) for block in indented)]
    return [block for block in blocks if re.search(r"^(from|import) \w+", block, flags=re.MULTILINE)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages_import_from_the_public_face_alone(page: Path) -> None:
    for block in python_blocks(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    assert alias.name.partition(".")[0] != "engine" or alias.name == "engine", alias.name
            elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "engine":
                assert node.module == "engine", f"{page.name}: from {node.module} import ..."
                assert {alias.name for alias in node.names} <= set(engine.__all__)


def test_the_readme_has_python_to_look_at() -> None:
    assert len(python_blocks(ROOT / "README.md")) >= 2


def test_every_error_is_public() -> None:
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert kinds <= set(engine.__all__)
    assert all(issubclass(getattr(engine, name), engine.HlbtError) for name in kinds)


def test_the_names_are_typed_where_they_are_looked_up() -> None:
    """What a type checker is told of a name and where it is looked up are written beside each other, and agree."""
    tree = ast.parse(Path(engine.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    typed = {alias.name: node.module for node in imports for alias in node.names}
    assert typed == engine._HOMES and sorted(typed) == engine.__all__
    for name in engine.__all__:
        assert getattr(engine, name).__name__ == name
        assert name in dir(engine)
