"""A value of a JSON is changed at random: the same figures where it only is written otherwise, or one sentence."""

import copy
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from coco_json_files import Files

pytestmark = pytest.mark.usefixtures("restored_state")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "data")


def _fields(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is a value, deep inside too, as keys one after another."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from _fields(value, (*path, key))


def _odd_values(value: Any, rng: random.Random) -> Any:
    """Other ways to write a value, and values that it must not have."""
    same: list[Any] = [value]
    if isinstance(value, int):
        same += [str(value), float(value)]
    if value in (0, 1) and not isinstance(value, (list, dict)):
        same += [bool(value), str(bool(value)), str(bool(value)).lower()]
    if isinstance(value, list) and len(value) == 3:
        same += ["#ff8800", "#FF88"]
    wrong = [
        None,
        [],
        {},
        "",
        " ",
        "x",
        -1,
        3.5,
        "3.5",
        float("nan"),
        float("inf"),
        2**70,
        "9" * 30,
        [value],
        [[value]],
    ]
    wrong += [{"a": value}, " 1", "１", "1e3", "-1", 1e300, "\ud800", "a\0b", "yes", [None], [True], -0.5]
    return rng.choice(same if rng.random() < 0.4 else wrong)


def _mutated(content: Any, rng: random.Random) -> tuple[Any, tuple[Any, ...], Any]:
    content = copy.deepcopy(content)
    path = rng.choice(list(_fields(content)))
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    action = rng.random()
    if action < 0.1 and isinstance(parent, dict):
        del parent[path[-1]]
        return content, path, "deleted"
    if action < 0.15 and isinstance(parent, list):
        parent.append(parent[path[-1]])
        return content, path, "doubled"
    parent[path[-1]] = _odd_values(parent[path[-1]], rng)
    return content, path, parent[path[-1]]


def _means_something_else(path: tuple[Any, ...], change: Any) -> bool:
    """Changes that make other sound data: names, colours, numbers of pixels, coordinates, an empty list, no crowd."""
    free = {"name", "color", "area", "bbox", "segmentation", "keypoints"}
    emptied = (path[-1] == "segments_info" and change == []) or (path[-1] == "iscrowd" and change in (None, "deleted"))
    return bool(free & set(path)) or change == "doubled" or emptied


def _check(act: Callable[[], Any], expected: Any, path: Path, where: tuple[Any, ...], change: Any) -> str:
    try:
        result = act()
    except (ValueError, KeyError, FileNotFoundError) as error:
        text = str(error)
        assert str(path) in text or "file_name" in where, (where, change, text)
        assert (
            "\n  - " in text
            or len(text.strip().splitlines()) == 1
            or "files of the dataset" in text
            or " differ:\n" in text
        )
        assert not any(word in text for word in ("Traceback", "NoneType", "invalid literal", "unhashable")), text
        return "refused"
    if result != expected:
        assert _means_something_else(where, change), (where, change)
        return "other"
    return "same"


def _fuzz(files: Files, kind: str, act: Callable[[], Any], number: int, seed: int) -> dict[str, int]:
    rng = random.Random(seed)
    expected = act()
    outcomes = {"same": 0, "refused": 0, "other": 0}
    for _ in range(number):
        content, where, change = _mutated(files.contents[kind], rng)
        files.save(kind, content)
        outcomes[_check(act, expected, files.path(kind), where, change)] += 1
    files.save(kind)
    assert act() == expected
    return outcomes


SEED = int(os.environ.get("COCO_JSON_SEED", "0"))
NUMBERS = [40, pytest.param(250, marks=pytest.mark.slow)]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("kind", ["panoptic", "instances"])
@pytest.mark.parametrize("use", ["training", "ground_truth"])
def test_mutated_annotations(files: Files, kind: str, use: str, number: int):
    outcomes = _fuzz(files, kind, getattr(files, use), number, SEED + number)
    assert min(outcomes["same"], outcomes["refused"]) > number / 10, outcomes


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("kind", ["panoptic", "predictions"])
def test_mutated_evaluations(
    files: Files, kind: str, number: int, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    outcomes = _fuzz(files, kind, lambda: files.evaluation(capsys, caplog), number, SEED + number)
    assert min(outcomes["same"], outcomes["refused"]) > number / 10, outcomes
