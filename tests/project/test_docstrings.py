"""Docstrings are there and true: parameters are those of the signature, in its order; documented attributes exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from helpers.project import ROOT

SOURCES = sorted([*(ROOT / "engine").rglob("*.py"), *(ROOT / "research").rglob("*.py")])
Function = ast.FunctionDef | ast.AsyncFunctionDef


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def sections(text: str) -> dict[str, list[str]]:
    """Numpydoc sections of a docstring: the names that each defines, in order."""
    lines = text.splitlines()
    names_by_section: dict[str, list[str]] = {}
    current: list[str] | None = None
    for number, line in enumerate(lines):
        below = lines[number + 1] if number + 1 < len(lines) else ""
        if line and re.fullmatch(r"-{3,}", below) and len(below) == len(line):
            current = names_by_section.setdefault(line, [])
        elif current is not None and line and not line.startswith((" ", "-")):
            current += [part.strip().lstrip("*") for part in line.partition(" : ")[0].split(",")]
    return names_by_section


def arguments(node: Function, method: bool) -> list[str]:
    """Names of the signature, without self and cls."""
    signature = node.args
    names = [item.arg for item in (*signature.posonlyargs, *signature.args)]
    static = any(ast.unparse(item) == "staticmethod" for item in node.decorator_list)
    names = names[1:] if method and not static else names
    names += [signature.vararg.arg] if signature.vararg else []
    names += [item.arg for item in signature.kwonlyargs]
    return names + ([signature.kwarg.arg] if signature.kwarg else [])


def fields(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> list[str]:
    """Attributes of a class and of its bases in the same file: annotated, or properties."""
    own = [
        inner.target.id
        for inner in node.body
        if isinstance(inner, ast.AnnAssign)
        and isinstance(inner.target, ast.Name)
        and "ClassVar" not in ast.unparse(inner)
    ]
    own += [inner.name for inner in node.body if isinstance(inner, Function) and inner.decorator_list]
    own += [
        target.attr
        for inner in ast.walk(node)
        if isinstance(inner, ast.Assign | ast.AnnAssign)
        for one in (inner.targets if isinstance(inner, ast.Assign) else [inner.target])
        for target in (one.elts if isinstance(one, ast.Tuple) else [one])
        if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self"
    ]
    bases = [classes[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in classes]
    return [name for base in bases for name in fields(base, classes)] + own


def is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(item) for item in node.decorator_list)


def faults(tree: ast.Module) -> list[str]:
    messages = []
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}

    def look(node: ast.AST, path: str, method: bool) -> None:
        for inner in getattr(node, "body", []):
            if isinstance(inner, ast.ClassDef):
                where = f"{path}{inner.name}"
                if not inner.name.startswith("_"):
                    check_class(inner, where)
                    look(inner, f"{where}.", True)
            elif isinstance(inner, Function) and not inner.name.startswith("_"):
                check_function(inner, f"{path}{inner.name}", method)

    def check_class(node: ast.ClassDef, where: str) -> None:
        text = ast.get_docstring(node)
        if not text:
            messages.append(f"line {node.lineno}: {where} has no docstring")
            return
        known = fields(node, classes)
        documented_sections = sections(text)
        strange = [item for item in documented_sections.get("Attributes", []) if item not in known]
        messages.extend(f"line {node.lineno}: {where} has no attribute {item}" for item in strange)
        makers = [item for item in node.body if isinstance(item, Function) and item.name == "__init__"]
        whole = makers or is_dataclass(node)
        accepted = arguments(makers[0], True) if makers else known
        if "Parameters" in documented_sections and whole and not _in_order(documented_sections["Parameters"], accepted):
            messages.append(
                f"line {node.lineno}: {where} documents {documented_sections['Parameters']}, and takes {accepted}"
            )

    def check_function(node: Function, where: str, method: bool) -> None:
        text = ast.get_docstring(node)
        overrides = any(ast.unparse(item) in ("override", "typing.override") for item in node.decorator_list)
        if not text:
            if not overrides and not any(
                ast.unparse(item).endswith((".setter", "overload")) for item in node.decorator_list
            ):
                messages.append(f"line {node.lineno}: {where} has no docstring")
            return
        documented_sections, accepted = sections(text), arguments(node, method)
        documented = documented_sections.get("Parameters", []) + documented_sections.get("Other Parameters", [])
        if documented and documented != accepted:
            messages.append(f"line {node.lineno}: {where} documents {documented}, and takes {accepted}")

    if not ast.get_docstring(tree) and tree.body:
        messages.append("the module has no docstring")
    look(tree, "", False)
    return messages


def _in_order(documented: list[str], accepted: list[str]) -> bool:
    places = [accepted.index(item) if item in accepted else -1 for item in documented]
    return -1 not in places and places == sorted(places)


@pytest.mark.parametrize("file", SOURCES, ids=name)
def test_docstrings_are_complete_and_true(file: Path) -> None:
    messages = faults(ast.parse(file.read_text(encoding="utf-8")))
    assert not messages, "\n".join([name(file), *messages])


def test_the_check_finds_what_it_is_for() -> None:
    wrong = '''"""A module."""
class Bare:
    pass
class Record:
    """A record.

    Attributes
    ----------
    kept, lost : int
        Two.
    """
    kept: int
    def run(self, first, *, second):
        """Run.

        Parameters
        ----------
        second : int
            A number.
        first : int
            Another.
        """
def silent(a):
    return a
def _own(a):
    return a
def fine(a, b, *rest, c=1, **more):
    """Fine.

    Parameters
    ----------
    a, b : int
        Numbers.
    *rest : int
        More of them.
    c : int
        One.
    **more
        All else.

    Returns
    -------
    int
    """
'''
    assert faults(ast.parse(wrong)) == [
        "line 2: Bare has no docstring",
        "line 4: Record has no attribute lost",
        "line 13: Record.run documents ['second', 'first'], and takes ['first', 'second']",
        "line 23: silent has no docstring",
    ]
