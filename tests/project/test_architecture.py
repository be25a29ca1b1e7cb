"""The law of ARCHITECTURE.md, read off the source: layers, homes of libraries, numba rules, no clock, no print."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.project import ROOT

SOURCES = sorted([*(ROOT / "engine").rglob("*.py"), *(ROOT / "research").rglob("*.py")])
HOMES = {  # library -> the only files that may import it, and only inside a function
    "boto3": {"engine/data/s3_bucket.py"},
    "hyperliquid": {"engine/data/api_client.py", "engine/live/hyperliquid.py"},
    "numerapi": {"research/oracles/numerai.py"},
    "crowdcent_challenge": {"research/oracles/crowdcent.py"},
    "quantstats": {"engine/reporting/tearsheet.py"},
    "vectorbt": {"engine/simulation/result.py"},
    "matplotlib": {"engine/reporting/charts.py", "engine/reporting/tearsheet.py"},
    "arch": {"engine/validation/bootstrap.py"},
    "plotly": {"engine/reporting/sweep_page.py"},
    "ray": {"engine/sweeps/executors.py"},
}


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def layers() -> dict[str, int]:
    """Rows of the table in ARCHITECTURE.md: module -> row."""
    rows: dict[str, int] = {}
    for line in (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"\| (\d+) \| (.*) \|$", line):
            for module in re.findall(r"`([a-z_/]+)`", found[2]):
                rows[module] = int(found[1])
    return rows


def row_of(file: Path) -> int:
    parts = file.relative_to(ROOT).with_suffix("").parts
    table = layers()
    if parts[0] == "research":
        return table["research/"]
    if len(parts) == 2:
        return table[parts[1]]
    return table[f"{parts[1]}/"]


def imports(tree: ast.AST) -> list[tuple[str, ast.stmt]]:
    found: list[tuple[str, ast.stmt]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found.append((module, node))
            folder = ROOT / Path(*module.split("."))
            # `from engine import metrics` imports a module as much as `import engine.simulation.metrics` does.
            found += [
                (f"{module}.{alias.name}", node) for alias in node.names if (folder / f"{alias.name}.py").is_file()
            ]
    return found


def top_level(tree: ast.Module) -> set[ast.stmt]:
    """Statements that run when the module is imported."""
    return set(tree.body)


@pytest.mark.parametrize("file", SOURCES, ids=name)
def test_imports_point_downward_only(file: Path) -> None:
    if file.name == "__init__.py":
        return
    own = row_of(file)
    for module, node in imports(ast.parse(file.read_text(encoding="utf-8"))):
        parts = module.split(".")
        if parts[0] not in ("engine", "research") or len(parts) == 1:
            assert parts[0] != "research" or own == layers()["research/"]
            continue
        target = (ROOT / Path(*parts)).with_suffix(".py")
        if not target.exists():
            target = ROOT / Path(*parts) / "__init__.py"
        other = row_of(target)
        neighbours = file.parent != ROOT / "engine" and target.parent == file.parent
        assert other < own or neighbours or own == other == layers()["research/"], (
            f"{name(file)} line {node.lineno} imports {module}: row {own} must not reach row {other}"
        )


def test_the_table_names_what_is_there() -> None:
    inside = [at for at in (ROOT / "engine").iterdir() if not at.name.startswith("__")]
    there = {f"{at.name}/" if at.is_dir() else at.stem for at in inside}
    assert set(layers()) == there | {"research/"}


@pytest.mark.parametrize("file", SOURCES, ids=name)
def test_heavy_libraries_have_one_home_and_load_lazily(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    top = top_level(tree)
    for module, node in imports(tree):
        library = module.partition(".")[0]
        if library in HOMES:
            checking = any(isinstance(at, ast.If) and node in ast.walk(at) for at in tree.body)  # if TYPE_CHECKING
            assert name(file) in HOMES[library], f"{name(file)} line {node.lineno} imports {library}"
            assert checking or node not in top, (
                f"{name(file)} line {node.lineno} imports {library} when it is imported itself"
            )


def test_the_kernel_imports_numpy_and_numba_only_and_follows_the_rules() -> None:
    source = (ROOT / "engine" / "simulation" / "kernel.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert {module.partition(".")[0] for module, _ in imports(tree)} <= {"numpy", "numba", "typing", "__future__"}
    assert source.count("njit(") == 1 and 'njit(cache=True, nogil=True, error_model="numpy")' in source
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            assert [ast.unparse(item) for item in node.decorator_list] == ["jit"] and node.name.endswith("_nb")
    for file in SOURCES:
        if file.name != "kernel.py":
            assert all(
                module.partition(".")[0] != "numba"
                for module, _ in imports(ast.parse(file.read_text(encoding="utf-8")))
            )


def test_the_kernel_compiles_nothing_twice_and_no_words() -> None:
    """A literal integer has a type of its own, so that what is called with it is compiled for it alone.

    A slice that takes an array brings the words of an error about shapes, which are compiled for seconds.
    """
    tree = ast.parse((ROOT / "engine" / "simulation" / "kernel.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("_nb"):
            for given in map(ast.unparse, node.args):
                assert not re.fullmatch(r"-?\d+|[A-Z][A-Z_]+", given), f"line {node.lineno}: {given}; write np.int64()"
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
            for target in map(ast.unparse, node.targets):
                assert ":" not in target, f"line {node.lineno}: {target}; write a loop"


@pytest.mark.parametrize("file", SOURCES, ids=name)
def test_only_the_command_line_reads_the_clock_and_nothing_prints(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
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
