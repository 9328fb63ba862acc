"""Every row of docs/compatibility.md: what it says works does, and what it says is refused is refused by name."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bad_input_data import global_state_restored
from places import REPOSITORY

sys.path.append(str(REPOSITORY / "projects" / "compatibility"))
from check import Data, is_available, street, try_row
from hosts import HOSTS
from place import Place, prepare, register_drawn
from rows import ROWS, Row

FAST = {"rotated boxes", "class-agnostic masks"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Data]:
    with global_state_restored():
        yield street(tmp_path_factory.mktemp("compatibility") / "street")


def _param(row: Row) -> Any:
    return pytest.param(row, id=row.name, marks=() if row.name in FAST else pytest.mark.slow)


@pytest.mark.parametrize("row", map(_param, ROWS))
def test_row(row: Row, data: Data):
    if not is_available(row):
        pytest.skip(f"{row.package or row.project} is not installed")
    outcome = try_row(row, data)
    assert bool(outcome.refusal) == bool(row.refused)


def test_the_docs_have_every_row():
    docs = Path(REPOSITORY / "docs" / "compatibility.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in docs.splitlines() if line.startswith("| ")]
    parts = [line for line in cells if len(line) == 5]
    found = [(part, name, word) for part, name, _, word, _ in parts[1:]]
    assert found == [(row.part, row.name, row.word) for row in ROWS]
    assert {name for _, name, verdict, *_ in parts if verdict == "refused"} == {row.name for row in ROWS if row.refused}


@pytest.mark.parametrize("name", ["`DefaultPredictor`", "`pickle`", "channels last"])
def test_programs_around_a_model(name: str, tmp_path: Path):
    prepare(tmp_path)
    with global_state_restored():
        register_drawn(tmp_path)
        next(host for host in HOSTS if host.name == name).run(Place(tmp_path, None))
