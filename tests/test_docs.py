"""The documentation site builds, and no link or anchor in it leads nowhere."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from places import REPOSITORY


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="not installed: pip install 'panoptic_fpn_ext[docs]'")
def test_the_site_builds_without_a_dead_link(tmp_path: Path):
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    reference = (tmp_path / "docs/reference/index.html").read_text(encoding="utf-8")
    assert "optimize_for_inference" in reference and "INSTANCES_CONFIDENCE_THRESH" not in reference
    assert not [
        path.name for path in tmp_path.rglob("*.html") if "fonts.googleapis" in path.read_text(encoding="utf-8")
    ]
