"""Import the code of oracles, list the files that it consists of, and fingerprint classes of a notebook or REPL."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.machinery
import importlib.util
import io
import os
import pickle
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from engine.errors import HlbtError, OracleError
from engine.provenance import files_digest

#: Suffixes of files that a module is imported from; a REPL may give ``<stdin>`` for its file.
_SUFFIXES = (".py", ".pyc", ".so", ".pyd")

#: Renamed modules of bundled oracles: older specs, runs and study files name their oracles by the old path.
RENAMED_MODULES = {
    "research.oracles.compose": "research.oracles.wrappers",
    "research.oracles.names": "research.oracles.symbols",
    "research.oracles.publication": "research.oracles.publication_schedule",
    "research.oracles.published": "research.oracles.published_scores",
    "research.oracles.table": "research.oracles.score_file",
}
#: The engine has a digest of its own; the standard library has a version.
_EXCLUDED = frozenset({"engine", "__future__", *sys.stdlib_module_names})
FILE_MODULE = "hlbt_oracle_"
#: What a function does and how it is called; the rest of a code object are lines and names for debuggers.
_CODE_ATTRIBUTES = (
    *("co_code", "co_names", "co_varnames", "co_flags", "co_exceptiontable"),
    *("co_argcount", "co_posonlyargcount", "co_kwonlyargcount"),
)
#: Digest of a module's file when it was first read, and the spec of the import that it belongs to.
_LOADED: dict[str, tuple[ModuleSpec, str]] = {}


def code_files(modules: Iterable[str]) -> list[Path]:
    """Files of imported modules and of all that they import, ordered by module.

    Left out are ``engine``, which has a digest of its own, the standard library and installed packages, whose
    versions a run records.

    Raises
    ------
    OracleError
        When a file was changed after it was imported.
    """
    pending, installed = list(modules), installed_paths()
    files: dict[str, Path] = {}
    while pending:
        name = pending.pop()
        if name in files or name.partition(".")[0] in _EXCLUDED:
            continue
        file = _file_of(name)
        if file.suffix != ".py" or os.path.realpath(file).startswith(installed):
            continue
        files[name] = file
        pending += _imported(_source(name, file), name, file.name == "__init__.py")
    return [files[name] for name in sorted(files)]


@lru_cache(maxsize=1024)
def _imported(source: str, name: str, is_package: bool) -> tuple[str, ...]:
    """Names of the modules that the source of module `name` imports, and of what may be one."""
    imported: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # The package of a module is what comes before its last name; a package is its own.
            up = node.level - is_package
            package = (name.rsplit(".", up)[0] if up > 0 else name) + "." if node.level else ""
            origin = (package + (node.module or "")).strip(".")
            imported += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    return tuple(imported)


def _file_of(name: str) -> Path:
    """File of a module, imported or not: what only a function imports counts before the function has run."""
    if name in sys.modules:
        return Path(getattr(sys.modules[name], "__file__", None) or "")
    folders: Sequence[str] | None = None
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[:depth]), folders)
        folders = None if spec is None else spec.submodule_search_locations
        if spec is None or (folders is None and depth < len(parts)):
            return Path()
    assert spec is not None
    return Path(spec.origin or "")


def _source(name: str, file: Path) -> str:
    """Source of a module, which must be what was imported: else results would be saved under the digest of other code.

    Raises
    ------
    OracleError
        When the file was changed since.
    """
    text = file.read_text(encoding="utf-8")
    if (spec := getattr(sys.modules.get(name), "__spec__", None)) is not None:
        digest = hashlib.sha256(text.encode()).hexdigest()
        loaded, first = _LOADED.setdefault(name, (spec, digest))
        if loaded is not spec:  # imported again
            _LOADED[name] = (spec, digest)
        elif first != digest:
            raise OracleError(
                f"{file} was changed after {name} was imported, so the code that runs is not that of the file. Restart "
                "Python, or importlib.reload it and the modules that import it."
            )
    return text


def installed_paths() -> tuple[str, ...]:
    """Real paths, as prefixes, of the standard library and of the installed packages anywhere on ``sys.path``.

    Besides the interpreter's own folders these are the folders named site-packages or dist-packages, and in every
    other one (``pip install --target``) the top-level packages that the RECORD of a distribution lists.
    """
    return _installed_paths(tuple(os.path.realpath(entry or os.curdir) for entry in sys.path))


@lru_cache(maxsize=16)
def _installed_paths(import_path: tuple[str, ...]) -> tuple[str, ...]:
    own = map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))
    paths = {os.path.realpath(folder) + os.sep for folder in own if folder}
    for entry in import_path:
        if os.path.basename(entry) in ("site-packages", "dist-packages"):
            paths.add(entry + os.sep)
            continue
        for record in Path(entry).glob("*.dist-info/RECORD"):
            with suppress(OSError):  # another user's
                lines = record.read_text(encoding="utf-8", errors="replace").splitlines()
                listed = {line.partition(",")[0].partition("/") for line in lines}
                paths |= {os.path.join(entry, name + slash) for name, slash, _ in listed if name not in ("", "..")}
    return tuple(sorted(paths))


def import_code(name: str) -> ModuleType:
    """Import a module by its dotted name, also from the current folder, or a file by its path.

    Raises
    ------
    OracleError
        Whatever error the import raises.
    """
    try:
        if name.endswith(".py"):
            file = Path(name).resolve()
            if not file.is_file():
                raise OracleError(f"Oracle file {name} does not exist in {Path.cwd()}. Write its path from there.")
            spec = importlib.util.spec_from_file_location(_module_name(file), file)
            if spec is None or spec.loader is None:
                raise OracleError(f"Oracle file {name} cannot be imported.")
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            _add_to_import_path(file.parent)
            spec.loader.exec_module(module)
            return module
        _add_to_import_path(Path.cwd())
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


def _module_name(file: Path) -> str:
    """Name of the module of a file; files of one name in two folders are two modules."""
    return f"{FILE_MODULE}{file.stem}_{hashlib.sha256(os.fsencode(file)).hexdigest()[:8]}"


def is_of_file(name: str) -> bool:
    """Whether a module was imported by the path of its file, so that no other process can import it by its name."""
    return name.startswith(FILE_MODULE)


def _add_to_import_path(folder: Path) -> None:
    """Let an oracle import the modules beside it, as Python does for a script."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def interactive_code_digest(kinds: Iterable[type]) -> str:
    """Digest of the code of classes without a file, defined in a notebook or REPL; "" where every class has one.

    It covers the classes' attributes, the bytecode and constants of their functions (not line numbers), the globals
    that these name, and the files of the modules that those come from. Two different classes never share a digest;
    where a value cannot be pickled, neither do two calls, so that no saved result is taken for that of other code.
    """
    loose = [kind for kind in kinds if not _has_file(kind.__module__)]
    if not loose:
        return ""
    pickler = _CodePickler()
    try:
        pickler.dump(loose)
    except Exception:  # whatever the objects of a user raise
        pickler.buffer.write(os.urandom(16))
    files = files_digest(code_files(sorted(pickler.modules)))
    return hashlib.sha256(pickler.buffer.getvalue() + files.encode()).hexdigest()


def _has_file(module: str) -> bool:
    file = getattr(sys.modules.get(module), "__file__", None)
    return module in sys.builtin_module_names or Path(file or "").suffix in _SUFFIXES


class _CodePickler(pickle.Pickler):
    """Pickles functions and classes without a file by their contents; those with one by name, kept in `modules`.

    The bytes are for a digest: they cannot be loaded.
    """

    def __init__(self) -> None:
        self.buffer = io.BytesIO()
        super().__init__(self.buffer, protocol=5)
        self.fast = True  # no references to equal objects: whether two equal strings are one object is chance
        self.modules: set[str] = set()
        self._seen: set[int] = set()

    def reducer_override(self, value: Any) -> Any:
        """See :meth:`pickle.Pickler.reducer_override`."""
        state = self._state(value)
        return NotImplemented if state is None else (str, state)

    def _state(self, value: Any) -> tuple[Any, ...] | None:
        """What the digest covers of a module, class, function or code object; None for any other value."""
        if isinstance(value, ModuleType):
            self.modules.add(value.__name__)
            return (value.__name__,)
        if isinstance(value, CodeType):
            constants = [sorted(map(repr, item)) if isinstance(item, frozenset) else item for item in value.co_consts]
            return tuple(getattr(value, name) for name in _CODE_ATTRIBUTES), constants
        if isinstance(value, staticmethod | classmethod):
            return type(value).__name__, value.__func__
        if isinstance(value, property):
            return value.fget, value.fset, value.fdel
        if isinstance(value, cached_property):
            return (value.func,)
        if not isinstance(value, type | FunctionType | BuiltinFunctionType):
            return None
        module, name = str(value.__module__), value.__qualname__
        if module == "builtins":
            return None
        if _has_file(module):
            self.modules.add(module)
            return module, name
        if id(value) in self._seen or isinstance(value, BuiltinFunctionType):
            return module, name
        self._seen.add(id(value))
        if isinstance(value, type):
            own = {key: item for key, item in sorted(vars(value).items()) if _is_users(key, item)}
            return name, value.__bases__, own
        code, cells = value.__code__, [cell.cell_contents for cell in value.__closure__ or () if cell != type(cell)()]
        named = {key: value.__globals__[key] for key in sorted(_names(code)) if key in value.__globals__}
        return name, code, named, cells, value.__defaults__, value.__kwdefaults__


def _is_users(name: str, value: Any) -> bool:
    """Whether an attribute of a class is the user's and not one that Python adds."""
    if name.startswith("__annot") or name == "_abc_impl":
        return False
    return not name.startswith("__") or isinstance(value, FunctionType | staticmethod | classmethod | property)


def _names(code: CodeType) -> set[str]:
    return set(code.co_names).union(*(_names(item) for item in code.co_consts if isinstance(item, CodeType)))
