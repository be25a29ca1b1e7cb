"""The law of ARCHITECTURE.md, read off the source: layers, homes of libraries, numba rules, no clock, no print."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from helpers.project import ROOT

SOURCES = sorted([*(ROOT / "engine").rglob("*.py"), *(ROOT / "research").rglob("*.py")])
HOMES = {  # library -> the only files that may import it, and only inside a function
    "boto3": {"engine/data/s3_bucket.py"},
    "hyperliquid": {"engine/data/api_client.py", "engine/live/hyperliquid.py"},
    "clarabel": {"engine/risk/solver.py"},
    "numerapi": {"research/oracles/numerai.py"},
    "crowdcent_challenge": {"research/oracles/crowdcent.py"},
    "quantstats": {"engine/reporting/quantstats_part.py"},
    "vectorbt": {"engine/simulation/result.py"},
    "matplotlib": {"engine/reporting/figure_svg.py", "engine/reporting/quantstats_part.py"},
    "arch": {"engine/validation/bootstrap.py"},
    "statsmodels": {"engine/monitoring/calibration.py"},
    "plotly": {
        "engine/reporting/views.py",
        *("engine/simulation/result.py", "engine/sweeps/study.py"),  # to type checkers
    },
    "ray": {"engine/sweeps/executors.py"},
    "optuna": {"engine/sweeps/sampling.py"},
    "mlflow": {"engine/commands/export.py"},
    "exchange_calendars": {"engine/data/sessions.py"},
}
#: The one exception to the direction of imports: what methods of these two classes import when they are called.
_VIEWS = {"engine/reporting/views.py", "engine/reporting/tearsheet.py", "engine/runs.py"}
UPWARD = {
    "engine/simulation/result.py": {"engine/simulation/tables.py", *_VIEWS},
    "engine/sweeps/study.py": {
        *(*_VIEWS, "engine/validation/validate.py", "engine/sweeps/results.py"),
        *("engine/simulation/result.py", "engine/validation/verdict.py"),  # to type checkers
    },
}


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def imports(tree: ast.AST) -> list[tuple[str, ast.stmt]]:
    imported: list[tuple[str, ast.stmt]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            imported.append((module, node))
            folder = ROOT / Path(*module.split("."))
            # `from engine import metrics` imports a module as much as `import engine.simulation.metrics` does.
            imported += [
                (f"{module}.{alias.name}", node) for alias in node.names if (folder / f"{alias.name}.py").is_file()
            ]
    return imported


def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def top_level(tree: ast.Module) -> set[ast.stmt]:
    """Statements that run when the module is imported."""
    return set(tree.body)


def layers() -> dict[str, int]:
    """Rows of the table in ARCHITECTURE.md: module -> row."""
    rows: dict[str, int] = {}
    for line in (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\| (\d+) \| (.*) \|$", line):
            for module in re.findall(r"`([a-z_/]+)`", match[2]):
                rows[module] = int(match[1])
    return rows


LAYERS = layers()


def row_of(file: str) -> int:
    parts = Path(file).with_suffix("").parts
    if parts[0] == "research":
        return LAYERS["research/"]
    return LAYERS[parts[1] if len(parts) == 2 else f"{parts[1]}/"]


def file_of(module: str) -> Path | None:
    """The file of a module of ours, or of a folder of ours."""
    path = ROOT / Path(*module.split("."))
    inside = module.partition(".")[0] in ("engine", "research")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if inside and file.is_file()), None)


def reached(file: Path) -> dict[str, int]:
    """Files of ours that a file imports, wherever in it and for whatever purpose, and the line; not :data:`UPWARD`."""
    lines: dict[str, int] = {}
    tree = tree_of(file)
    methods = {node for kind in tree.body if isinstance(kind, ast.ClassDef | ast.If) for node in ast.walk(kind)}
    for node in ast.walk(tree):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, f"{name(file)} line {node.lineno}: write the whole path"
            # `from engine.simulation import metrics` takes a module of the folder; a name is of the module before it.
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [module if file_of(module) else node.module for module in whole]
        for module in modules:
            target = file_of(module)
            if target and not (node in methods and name(target) in UPWARD.get(name(file), ())):
                lines.setdefault(name(target), node.lineno)
    return lines


@cache
def arrows() -> dict[str, dict[str, int]]:
    """Every file of ours: what it imports (:func:`reached`)."""
    return {name(file): reached(file) for file in SOURCES}


@pytest.mark.parametrize("file", SOURCES, ids=name)
def test_imports_point_downward_only(file: Path) -> None:
    own = name(file)
    if own == "engine/__init__.py":  # the public names, looked up on first use
        return
    for target, line in arrows()[own].items():
        if target == "engine/__init__.py":
            allowed = own.startswith("research/") or own == "engine/__main__.py"  # its answer to Ctrl-C
            assert allowed, f"{own} line {line}: name the module of engine that it needs"
            continue
        neighbours = own.count("/") > 1 and Path(own).parent == Path(target).parent
        ours = own.startswith("research/") and target.startswith("research/")
        assert row_of(target) < row_of(own) or neighbours or ours, (
            f"{own} line {line} imports {target}: row {row_of(own)} must not reach row {row_of(target)}"
        )


def test_no_imports_go_in_a_circle() -> None:
    """File by file, the __init__ of a folder too: taking away what imports nothing that is left leaves nothing."""
    left = {file: set(targets) for file, targets in arrows().items()}
    while free := [file for file, targets in left.items() if not targets & left.keys()]:
        for file in free:
            del left[file]
    assert not left, f"files in circles, or above one: {sorted(left)}"


def test_no_folder_is_named_like_a_public_function() -> None:
    """So an import of a module never hides a function of the package, whichever comes first."""
    folders = {folder.name for folder in (ROOT / "engine").iterdir() if folder.is_dir()}
    modules = {file.stem for file in (ROOT / "engine").glob("*.py")}
    code = (
        "import engine, importlib, types\n"
        f"for file in {sorted(name(file) for file in SOURCES if name(file).startswith('engine/'))!r}:\n"
        "    importlib.import_module(file.removesuffix('.py').removesuffix('/__init__').replace('/', '.'))\n"
        "hidden = [name for name in engine.__all__ if isinstance(getattr(engine, name), types.ModuleType)]\n"
        "assert not hidden, hidden\n"
    )
    import engine

    assert not (folders | modules) & set(engine.__all__)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_table_names_every_module() -> None:
    paths = [path for path in (ROOT / "engine").iterdir() if not path.name.startswith("__")]
    present = {f"{path.name}/" if path.is_dir() else path.stem for path in paths}
    assert set(LAYERS) == present | {"research/"}
    assert max(LAYERS.values()) < 14


@pytest.mark.parametrize("file", SOURCES, ids=name)
def test_heavy_libraries_have_one_home_and_load_lazily(file: Path) -> None:
    tree = tree_of(file)
    top = top_level(tree)
    for module, node in imports(tree):
        library = module.partition(".")[0]
        if library in HOMES:
            checking = any(
                isinstance(item, ast.If) and node in ast.walk(item) for item in tree.body
            )  # if TYPE_CHECKING
            assert name(file) in HOMES[library], f"{name(file)} line {node.lineno} imports {library}"
            assert checking or node not in top, (
                f"{name(file)} line {node.lineno} imports {library} when it is imported itself"
            )


def test_the_kernel_imports_numpy_and_numba_only_and_follows_the_rules() -> None:
    source = (ROOT / "engine" / "simulation" / "kernel.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert {of.partition(".")[0] for of, _ in imports(tree)} <= {"numpy", "numba", "pickle", "typing", "__future__"}
    options = '_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}'
    assert source.count("njit(") == source.count("njit(**_OPTIONS") == 3 and options in source
    assert "fastmath" not in source
    others = "".join(
        file.read_text(encoding="utf-8")
        for file in (*SOURCES, *(ROOT / "tests").rglob("*.py"))
        if file.name != "kernel.py"
    )
    called = set(re.findall(r"\w+_nb\b", others))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in called:
            assert "inner" not in map(ast.unparse, node.decorator_list), f"Python calls {node.name}"
        if isinstance(node, ast.FunctionDef) and node.name.startswith("_"):  # or what stands for one without the JIT
            assert [ast.unparse(item) for item in node.decorator_list] in (["intrinsic"], [])
        elif isinstance(node, ast.FunctionDef) and node.name != "jit":
            assert [ast.unparse(item) for item in node.decorator_list] in (["jit"], ["inner"], ["inlined"])
            assert node.name.endswith("_nb")
    for file in SOURCES:
        if file.name != "kernel.py":
            assert all(module.partition(".")[0] != "numba" for module, _ in imports(tree_of(file)))


def test_the_kernel_compiles_nothing_twice_and_no_words() -> None:
    """A literal integer has a type of its own, so that what is called with it is compiled for it alone.

    A slice that takes an array brings the words of an error about shapes, which are compiled for seconds.
    """
    tree = ast.parse((ROOT / "engine" / "simulation" / "kernel.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("_nb"):
            for argument in map(ast.unparse, node.args):
                assert not re.fullmatch(r"-?\d+|[A-Z][A-Z_]+", argument), (
                    f"line {node.lineno}: {argument}; write np.int64()"
                )
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
            for target in map(ast.unparse, node.targets):
                assert ":" not in target, f"line {node.lineno}: {target}; write a loop"


@pytest.mark.parametrize("file", SOURCES, ids=name)
def test_only_the_command_line_reads_the_clock_and_nothing_prints(file: Path) -> None:
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called != "print", f"{name(file)} line {node.lineno} prints"
            reads = re.search(r"\b(now|utcnow|today|time\.time|perf_counter)$", called)
            assert not reads or name(file).startswith(("engine/commands/", "engine/cli.py")), (
                f"{name(file)} line {node.lineno} reads the clock: {called}"
            )


@pytest.mark.parametrize("file", SOURCES, ids=name)
def test_no_file_is_over_500_lines(file: Path) -> None:
    # The kernel is one file by the numba rules: code cached in one module does not notice a change in another.
    assert file.name == "kernel.py" or len(file.read_text(encoding="utf-8").splitlines()) <= 500


def test_no_two_test_files_have_one_name() -> None:
    """Pytest imports them by name, and collects nothing where one name is two files."""
    names = [file.name for file in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_importing_the_package_loads_nothing_heavy() -> None:
    for module in ("engine", "engine.cli"):
        code = (
            f"import sys, {module}; print({{'numpy', 'pandas', 'numba', 'vectorbt', 'quantstats'}} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "set()", module


def test_the_public_names_are_sorted_and_exist() -> None:
    import engine

    assert engine.__all__ == sorted(engine.__all__)
    for public in engine.__all__:
        assert getattr(engine, public).__name__ == public
    with pytest.raises(AttributeError, match="no attribute 'backtset'"):
        engine.backtset  # noqa: B018


def test_no_address_or_machine_path_is_committed() -> None:
    """Lock files carry names, versions and hashes only; no file names a registry's host or a folder of some machine."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not files:
        pytest.skip("this is not a git checkout")
    hosts = re.compile("files" + r"\.pythonhosted|pypi" + r"\.org|--index-url|--find-links|/ro" + "ot/|/wo" + "rk/")
    for file in set(files) - {"tests/project/test_architecture.py"}:
        text = (ROOT / file).read_text(encoding="utf-8", errors="replace") if (ROOT / file).is_file() else ""
        assert not hosts.search(text), file
