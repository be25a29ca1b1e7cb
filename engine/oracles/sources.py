"""Code by name: importing a module or a file, and which files it is made of."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from engine.errors import HlbtError, OracleError

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
        return importlib.import_module(name)
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
