"""Code by name: importing a module or a file, and which files it is made of."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from engine.errors import HlbtError, OracleError


def code_files(modules: Iterable[str]) -> list[Path]:
    """Files of imported modules and of all they import, ordered by module.

    Left out are ``engine``, which has a digest of its own, the standard library and installed packages, whose
    versions a run records.
    """
    waiting = list(modules)
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        file = Path(getattr(sys.modules.get(name), "__file__", None) or "")
        if name in found or file.suffix != ".py" or name.partition(".")[0] == "engine" or _is_installed(file):
            continue
        found[name] = file
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                package = name.rsplit(".", node.level)[0] + "." if node.level else ""
                origin = (package + (node.module or "")).strip(".")
                waiting += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    return [found[name] for name in sorted(found)]


def _is_installed(file: Path) -> bool:
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(file.is_relative_to(place) for place in places if place)


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
            spec = importlib.util.spec_from_file_location(f"hlbt_oracle_{file.stem}", file)
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


def _look_in(folder: Path) -> None:
    """Let an oracle import its neighbours, as Python does for a script."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
