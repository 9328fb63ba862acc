"""The notebook of the first tutorial runs from its first cell to its last one, on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import REPOSITORY

NOTEBOOK = REPOSITORY / "docs" / "first_model.ipynb"


def _cells(kind: str) -> list[str]:
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == kind]


def test_the_notebook_has_no_outputs_and_only_links_that_lead_somewhere():
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in content["cells"])
    for text in _cells("markdown"):
        for target in (part.split(")")[0].split("#")[0] for part in text.split("](")[1:]):
            assert (NOTEBOOK.parent / target).exists(), target


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path):
    program = tmp_path / "cells.py"
    program.write_text("\n\n".join(_cells("code")), encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    trained = tmp_path / "first_model" / "trained"
    assert (trained / "inference" / "report.html").stat().st_size > 100_000
    assert "'sky'" in result.stdout
