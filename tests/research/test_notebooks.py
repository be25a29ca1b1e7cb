"""The notebooks run from top to bottom, as a user runs them, on the sample; what is committed has no outputs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.project import ROOT

pytestmark = pytest.mark.slow

NOTEBOOKS = sorted((ROOT / "research" / "notebooks").glob("*.ipynb"))


def test_all_are_here() -> None:
    assert [file.stem for file in NOTEBOOKS] == ["back_tester", "example_code", "idea_to_verdict"]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_outputs_are_not_committed(file: Path) -> None:
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_runs_from_top_to_bottom(file: Path, sample_cache: Path, tmp_path: Path) -> None:
    shutil.copy(file, tmp_path)
    environment = {
        **os.environ,
        "HLBT_DATA_CACHE": str(sample_cache),
        "PYTHONPATH": str(ROOT),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [Path(sys.executable).parent / "jupyter", "execute", "--inplace", "--timeout=300", file.name],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cells = json.loads((tmp_path / file.name).read_text(encoding="utf-8"))["cells"]
    printed = "".join(str(cell.get("outputs")) for cell in cells)
    assert "SYNTHETIC" in printed and "'output_type': 'error'" not in printed
