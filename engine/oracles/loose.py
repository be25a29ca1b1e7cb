"""Code without a file, of a notebook or a prompt: a text of what it does, which changes when it does."""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
from collections.abc import Iterable
from functools import cached_property, partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from engine.oracles.sources import code_files
from engine.provenance import files_digest

#: Of what a module is imported from; a prompt may call itself <stdin>.
_FILES = (".py", ".pyc", ".so", ".pyd")


def loose_code(kinds: Iterable[type]) -> str:
    """Digest of the code of classes that no file holds, and of all that it names; "" where every class has a file.

    What counts is what the functions do (their bytecode and constants, not their lines), the attributes of the classes,
    the globals that they name, and the files of the modules that these come from.
    """
    text = _Text()
    told = [text.of(kind) for kind in kinds if _is_loose(kind.__module__)]
    if not told:
        return ""
    state = json.dumps([told, files_digest(code_files(sorted(text.modules)))])
    return hashlib.sha256(state.encode()).hexdigest()


def _is_loose(module: str) -> bool:
    file = getattr(sys.modules.get(module), "__file__", None)
    return module not in sys.builtin_module_names and Path(file or "").suffix not in _FILES


class _Text:
    """Values as text; those of a module with a file as its name, which is kept in `modules`."""

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self._seen: set[int] = set()
        self._inside: set[int] = set()

    def of(self, value: Any) -> Any:
        if id(value) in self._inside:  # it holds itself
            return type(value).__qualname__
        self._inside.add(id(value))
        try:
            return self._of(value)
        finally:
            self._inside.discard(id(value))

    def _of(self, value: Any) -> Any:
        if isinstance(value, ModuleType):
            self.modules.add(value.__name__)
            return value.__name__
        if isinstance(value, type | FunctionType | BuiltinFunctionType):
            return self._named(value)
        if isinstance(value, staticmethod | classmethod):
            return [type(value).__name__, self.of(value.__func__)]
        if isinstance(value, property):
            return [self.of(part) for part in (value.fget, value.fset, value.fdel)]
        if isinstance(value, cached_property):
            return self.of(value.func)
        if isinstance(value, partial):
            return ["partial", self.of(value.func), self.of(value.args), self.of(value.keywords)]
        if isinstance(value, set | frozenset):
            return sorted(repr(item) for item in value)
        if value is None or isinstance(value, bool | int | float | str | bytes):
            return repr(value)
        # What is inside has a text of its own: the repr of an array leaves out its middle.
        if isinstance(value, tuple | list):
            return [type(value).__name__, *map(self.of, value)]
        if isinstance(value, dict):
            return [[self.of(key), self.of(item)] for key, item in value.items()]
        try:
            return [self.of(type(value)), hashlib.sha256(pickle.dumps(value)).hexdigest()]
        except Exception:  # whatever a user's object raises
            return [self.of(type(value)), self.of(getattr(value, "__dict__", None))]

    def _named(self, value: Any) -> Any:
        """A class or function."""
        module, name = str(value.__module__), value.__qualname__
        if not _is_loose(module):
            self.modules.add(module)
            return f"{module}:{name}"
        if id(value) in self._seen or isinstance(value, BuiltinFunctionType):
            return name
        self._seen.add(id(value))
        if isinstance(value, type):
            own = {key: item for key, item in vars(value).items() if _decides(key, item)}
            return [name, [self.of(base) for base in value.__bases__], {key: self.of(own[key]) for key in sorted(own)}]
        code = value.__code__
        named = {key: value.__globals__[key] for key in sorted(_names(code)) if key in value.__globals__}
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell != type(cell)()]
        rest = [value.__defaults__, value.__kwdefaults__]
        return [
            name,
            self._code(code),
            {key: self.of(item) for key, item in named.items()},
            *map(self.of, cells + rest),
        ]

    def _code(self, code: CodeType) -> list[Any]:
        held = [self._code(item) if isinstance(item, CodeType) else self.of(item) for item in code.co_consts]
        return [code.co_code.hex(), code.co_names, held]


def _decides(name: str, value: Any) -> bool:
    """Whether an attribute of a class is the user's: Python's own say lines, annotations and caches."""
    if name.startswith("__annot") or name == "_abc_impl":
        return False
    return not name.startswith("__") or isinstance(value, FunctionType | staticmethod | classmethod | property)


def _names(code: CodeType) -> set[str]:
    return set(code.co_names).union(*(_names(item) for item in code.co_consts if isinstance(item, CodeType)))
