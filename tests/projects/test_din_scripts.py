"""DIN's scripts, on a few drawn streets and the released model."""

import json
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from places import REPOSITORY

NAME = "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow"

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("restored_state")]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, small_street: Path) -> Iterator[Callable[..., None]]:
    """Runs a script by name, with the small street as the dataset ``street``."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "projects/din"))
    paths = (small_street / "val", small_street / "panoptic_val", small_street / "annotations/panoptic_val.json")

    def run(name: str, *arguments: str) -> None:
        registration = ["--register", "street", *map(str, paths)]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", NAME, "--images", "1", *arguments, *registration])
        import_module(name).main()

    yield run
    for name in ("compare", "learn_weights"):
        sys.modules.pop(name, None)


def test_learns_weights_that_a_config_takes(script: Callable[..., None], capsys: pytest.CaptureFixture[str]):
    script("learn_weights", "--epochs", "1", "--dataset", "street")
    key, _, value = capsys.readouterr().out.splitlines()[-1].partition(" ")
    assert key == "MODEL.PANOPTIC_FPN.COMBINE.DIN_WEIGHTS"
    weights = json.loads(value.strip('"'))
    assert len(weights) == 5 and all(weight > 0 for weight in weights)


def test_compares_both_combiners(script: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    script("compare", "--json", str(tmp_path / "rows.json"))
    rows: list[dict[str, Any]] = json.loads((tmp_path / "rows.json").read_text())
    assert [row["combiner"] for row in rows] == ["HeuristicCombiner", "DINCombiner"]
    assert all(row["dataset"] == "street" and row["PQ"] > 0 for row in rows)
    assert "Panoptic FPN R101" in capsys.readouterr().out
