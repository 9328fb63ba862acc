"""Suspected label errors: planted ones are found, and what a model always does is not suspicious."""

import json
from pathlib import Path

import numpy as np
import pytest
from bad_input_data import project_script

from panoptic_fpn_ext.evaluation.errors import explain_files
from panoptic_fpn_ext.evaluation.errors.label_errors import KINDS, find_label_errors
from panoptic_fpn_ext.panoptic_png import write_panoptic_png

CATEGORIES = [{"id": i, "name": n, "isthing": int(i < 4)} for i, n in enumerate("abcdef", start=1)]
SIDE = 96


def _truth(rng: np.random.Generator) -> tuple[np.ndarray, dict[int, int]]:
    """Three bands of stuff under a grid of things of random sizes."""
    ids = np.zeros((SIDE, SIDE), np.int32)
    for band in range(3):
        ids[band * 32 : (band + 1) * 32] = band + 1
    categories = {1: 4, 2: 5, 3: 6}
    for row in range(3):
        for column in range(3):
            if rng.random() < 0.7:
                id_, height, width = len(categories) + 1, *rng.integers(14, 25, 2).tolist()
                ids[row * 32 + 4 : row * 32 + 4 + height, column * 32 + 4 : column * 32 + 4 + width] = id_
                categories[id_] = int(rng.integers(1, 4))
    return ids, categories


def _predicted(ids: np.ndarray, categories: dict[int, int], rng: np.random.Generator) -> tuple[np.ndarray, list[dict]]:
    """A good model: edges a pixel off, few missed, few of another class with low scores, a false one at times."""
    predicted, infos = np.zeros_like(ids), []
    for id_, category in categories.items():
        fate, score = rng.random(), float(rng.uniform(0.75, 0.99))
        if fate < 0.08:
            continue
        if fate < 0.12 and category < 4:
            category, score = category % 3 + 1, float(rng.uniform(0.4, 0.7))
        predicted[np.roll(ids == id_, int(rng.integers(-1, 2)), axis=int(rng.integers(2)))] = id_
        infos.append({"id": id_, "category_id": category, "score": score})
    if rng.random() < 0.4:
        predicted[40:56, 70:90] = 99
        infos.append({"id": 99, "category_id": 2, "score": float(rng.uniform(0.4, 0.7))})
    present = set(np.unique(predicted).tolist())
    return predicted, [info for info in infos if info["id"] in present]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root, rng = tmp_path_factory.mktemp("labels"), np.random.default_rng(0)
    (root / "gt").mkdir()
    (root / "predictions").mkdir()
    truth, found = [], []
    for number in range(60):
        ids, categories = _truth(rng)
        infos = [{"id": i, "category_id": c, "area": int((ids == i).sum())} for i, c in categories.items()]
        truth.append({"image_id": number, "file_name": f"{number}.png", "segments_info": infos})
        write_panoptic_png(str(root / "gt" / f"{number}.png"), ids)
        predicted, infos = _predicted(ids, categories, rng)
        found.append({"image_id": number, "file_name": f"{number}.png", "segments_info": infos})
        write_panoptic_png(str(root / "predictions" / f"{number}.png"), predicted)
    for path, annotations in ((root / "gt.json", truth), (root / "predictions.json", found)):
        path.write_text(json.dumps({"annotations": annotations, "categories": CATEGORIES}))
    return root / "gt.json", root / "predictions.json"


def test_four_in_five_planted_errors_are_among_the_first_entries(results: tuple[Path, Path], tmp_path: Path):
    script = project_script("label_errors/run.py")
    planted = script.spoil(str(results[0]), str(results[0].with_suffix("")), str(tmp_path), 0.05, 1)
    assert {error.kind for error in planted} == set(script.KINDS)
    found = script.count_found(planted, str(tmp_path / "gt.json"), str(results[1]), str(results[1].with_suffix("")))
    number, _, in_first = found["all"]
    assert number >= 20
    assert in_first >= 0.8 * number, found


def test_the_list_is_ranked_and_names_segments_that_are_there(results: tuple[Path, Path]):
    errors = explain_files(*results)
    suspects = find_label_errors(errors)
    strengths = [suspect.suspicion for suspect in suspects]
    assert strengths == sorted(strengths, reverse=True)
    assert all(0 <= strength <= 1 for strength in strengths)
    assert {suspect.kind for suspect in suspects} <= set(KINDS)
    assert find_label_errors(errors, 5) == suspects[:5]
    for suspect in suspects:
        row = errors.images[suspect.image].rows[suspect.row]
        assert row["predicted"] == (suspect.kind == "missing")


def test_what_a_model_always_does_is_less_suspicious(tmp_path: Path):
    """One swapped label of forty against a class that is always taken for another one."""
    strengths = []
    for always in (False, True):
        root = tmp_path / str(always)
        (root / "gt").mkdir(parents=True)
        (root / "predictions").mkdir()
        truth, found = [], []
        for number in range(40):
            ids = np.ones((16, 16), np.int32)
            write_panoptic_png(str(root / "gt" / f"{number}.png"), ids)
            write_panoptic_png(str(root / "predictions" / f"{number}.png"), ids)
            common = {"image_id": number, "file_name": f"{number}.png"}
            truth.append({**common, "segments_info": [{"id": 1, "category_id": 1, "area": 256}]})
            other = 2 if always or number == 0 else 1
            found.append({**common, "segments_info": [{"id": 1, "category_id": other, "score": 0.9}]})
        for name, annotations in (("gt", truth), ("predictions", found)):
            (root / f"{name}.json").write_text(json.dumps({"annotations": annotations, "categories": CATEGORIES}))
        suspects = find_label_errors(explain_files(root / "gt.json", root / "predictions.json"))
        strengths.append(suspects[0].suspicion)
    assert strengths[0] > 5 * strengths[1]
