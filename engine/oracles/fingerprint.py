"""Code by name: importing a module or a file, and which files it is made of.

Code without a file, of a notebook or a prompt: a text of what it does, which changes when it does.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.machinery
import importlib.util
import json
import os
import pickle
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from engine.errors import HlbtError, OracleError
from engine.provenance import files_digest

#: Of what a module is imported from; a prompt may call itself <stdin>.
_FILES = (".py", ".pyc", ".so", ".pyd")

#: Modules of bundled oracles that were renamed: specs, runs and study files of before name their oracles by the old
#: path.
RENAMED_MODULES = {
    "research.oracles.compose": "research.oracles.wrappers",
    "research.oracles.names": "research.oracles.symbols",
    "research.oracles.publication": "research.oracles.publication_schedule",
    "research.oracles.published": "research.oracles.published_scores",
    "research.oracles.table": "research.oracles.score_file",
}
#: The engine has a digest of its own; the standard library has a version.
_OTHERS = frozenset({"engine", "__future__", *sys.stdlib_module_names})
_INSTALLED = tuple(dict.fromkeys(filter(None, map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")))))
_FILE = "hlbt_oracle_"
#: What was in a module's file when it was first looked at, and the import that it was of.
_LOADED: dict[str, tuple[ModuleSpec, str]] = {}


def code_files(modules: Iterable[str]) -> list[Path]:
    """Files of imported modules and of all they import, ordered by module.

    Left out are ``engine``, which has a digest of its own, the standard library and installed packages, whose
    versions a run records.
    """
    waiting = list(modules)
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        if name in found or name.partition(".")[0] in _OTHERS:
            continue
        file = _file_of(name)
        if file.suffix != ".py" or _is_installed(file):
            continue
        found[name] = file
        for node in ast.walk(ast.parse(_text(name, file))):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                # The package of a module is what comes before its last name; a package is its own.
                up = node.level - (file.name == "__init__.py")
                package = (name.rsplit(".", up)[0] if up > 0 else name) + "." if node.level else ""
                origin = (package + (node.module or "")).strip(".")
                waiting += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    return [found[name] for name in sorted(found)]


def _file_of(name: str) -> Path:
    """Where a module lies; one that only a function imports counts before that function has run."""
    if name in sys.modules:
        return Path(getattr(sys.modules[name], "__file__", None) or "")
    places: Sequence[str] | None = None
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[:depth]), places)
        places = None if spec is None else spec.submodule_search_locations
        if spec is None or (places is None and depth < len(parts)):
            return Path()
    assert spec is not None
    return Path(spec.origin or "")


def _text(name: str, file: Path) -> str:
    """Text of a module's file, which must be what was imported: else its results would be kept as another code's."""
    text = file.read_text(encoding="utf-8")
    if (spec := getattr(sys.modules.get(name), "__spec__", None)) is not None:
        state = hashlib.sha256(text.encode()).hexdigest()
        loaded, before = _LOADED.setdefault(name, (spec, state))
        if loaded is not spec:  # imported again
            _LOADED[name] = (spec, state)
        elif before != state:
            raise OracleError(
                f"{file} was changed after {name} was imported, so what runs is not what the file says. Restart "
                "Python, or importlib.reload it and what was imported from it."
            )
    return text


def _is_installed(file: Path) -> bool:
    return any(file.is_relative_to(place) for place in _INSTALLED)


def import_code(name: str) -> ModuleType:
    """Import a module by its dotted name, also from the current folder, or a file by its path.

    Raises
    ------
    OracleError
        Whatever goes wrong in it.
    """
    try:
        if name.endswith(".py"):
            file = Path(name).resolve()
            if not file.is_file():
                raise OracleError(f"Oracle file {name} does not exist in {Path.cwd()}. Write its path from there.")
            spec = importlib.util.spec_from_file_location(_name_of(file), file)
            if spec is None or spec.loader is None:
                raise OracleError(f"Oracle file {name} cannot be imported.")
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            _look_in(file.parent)
            spec.loader.exec_module(module)
            return module
        _look_in(Path.cwd())
        return importlib.import_module(RENAMED_MODULES.get(name, name))
    except HlbtError:
        raise
    except Exception as error:
        cure = "Correct it; HLBT_TRACEBACK=1 shows the whole trace."
        if isinstance(error, ModuleNotFoundError):
            cure = "Install what is absent, or correct the name."
            if error.name and (name == error.name or name.startswith(f"{error.name}.")):
                cure = "Write a module that Python can import from here, or the path of a file that ends in .py."
        raise OracleError(
            f"Oracle module {name} cannot be imported: {type(error).__name__}: {error}. {cure}"
        ) from error


def _name_of(file: Path) -> str:
    """Two files of one name in two folders are two modules."""
    return f"{_FILE}{file.stem}_{hashlib.sha256(os.fsencode(file)).hexdigest()[:8]}"


def is_of_file(name: str) -> bool:
    """Whether a module was imported by the path of its file, so that no other process can import it by its name."""
    return name.startswith(_FILE)


def _look_in(folder: Path) -> None:
    """Let an oracle import its neighbours, as Python does for a script."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


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
