"""Instance and semantic results on disk, merged: the pixels of panopticapi, and errors that name the file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from panopticapi.combine_semantic_and_instance_predictions import combine_to_panoptic_single_core
from panopticapi.utils import rgb2id
from PIL import Image
from pycocotools import mask as coco_mask

from panoptic_fpn_ext.combine import CombineOptions, combine_files, files
from panoptic_fpn_ext.combine.__main__ import main
from panoptic_fpn_ext.panoptic_png import read_panoptic_png

CATEGORIES = [
    {"id": i, "name": f"class {i}", "isthing": int(i < 20), "color": [i * 2, 250 - i, i]}
    for i in (1, 7, 18, 20, 90, 95)
]
SIZES = [(24, 32), (17, 9), (40, 20), (8, 8)]


def _encode(mask: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode()}


def _box(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, bool)
    y, x = rng.integers(0, size[0]), rng.integers(0, size[1])
    mask[y : y + rng.integers(0, size[0]), x : x + rng.integers(0, size[1])] = True
    return mask


def _write(folder: Path, seed: int = 0) -> tuple[list[dict], list[dict], list[dict]]:
    """Files of random results: overlaps, tied scores, empty masks, things among the semantics, a category twice."""
    rng = np.random.default_rng(seed)
    images = [{"id": 10 + n, "file_name": f"image.{n}.jpg", "height": h, "width": w} for n, (h, w) in enumerate(SIZES)]
    instances, semantics = [], []
    for image, size in zip(images[:-1], SIZES, strict=False):  # of the last one nothing is known
        for _ in range(12):
            score = float(rng.integers(3, 10)) / 10
            segmentation = _encode(_box(rng, size))
            category = int(rng.choice([1, 7, 18]))
            instances.append(
                {"image_id": image["id"], "category_id": category, "score": score, "segmentation": segmentation}
            )
        labels = rng.choice([1, 20, 90, 95, 20], (-(-size[0] // 6), -(-size[1] // 6))).repeat(6, 0).repeat(6, 1)
        for category in (95, 20, 1, 90):
            mask = labels[: size[0], : size[1]] == category
            semantics.append({"image_id": image["id"], "category_id": category, "segmentation": _encode(mask)})
    order = rng.permutation(len(instances))
    instances = [instances[i] for i in order]
    for name, content in (("instances", instances), ("semantics", semantics), ("categories", CATEGORIES)):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "images.json").write_text(json.dumps({"images": images, "info": {"year": 1}}), encoding="utf-8")
    return images, instances, semantics


def _combine(folder: Path, **options: Any) -> dict[str, Any]:
    names = (str(folder / f"{name}.json") for name in ("instances", "semantics", "images", "out"))
    combine_files(
        *names, **{"categories": str(folder / "categories.json"), "show_progress": False, "processes": 1, **options}
    )
    return json.loads((folder / "out.json").read_text(encoding="utf-8"))


def _theirs(folder: Path, images: list, instances: list, semantics: list, options: CombineOptions) -> list[dict]:
    (folder / "theirs").mkdir()
    good = sorted((i for i in instances if i["score"] >= options.score_threshold), key=lambda i: -i["score"])
    return combine_to_panoptic_single_core(
        0,
        [image["id"] for image in images],
        {image["id"]: image for image in images},
        {image["id"]: [i for i in good if i["image_id"] == image["id"]] for image in images},
        {
            image["id"]: [s for s in semantics if s["image_id"] == image["id"] and s["category_id"] >= 20]
            for image in images
        },
        str(folder / "theirs"),
        options.overlap_threshold,
        options.stuff_area_threshold,
        {row["id"]: row for row in CATEGORIES},
    )


@pytest.mark.parametrize(
    "options", [CombineOptions(stuff_area_threshold=20), CombineOptions(0.7, 0.2, 1), CombineOptions(0.0, 0.9, 60)]
)
def test_the_pixels_of_panopticapi(tmp_path, options):
    given = _write(tmp_path, seed=int(options.stuff_area_threshold))
    theirs = _theirs(tmp_path, *given, options)
    ours = _combine(tmp_path, options=options)
    assert ours["info"] == {"year": 1} and [row["id"] for row in ours["categories"]] == [1, 7, 18, 20, 90, 95]
    for mine, other in zip(ours["annotations"], theirs, strict=True):
        assert (mine["image_id"], mine["file_name"]) == (other["image_id"], other["file_name"])
        ids = read_panoptic_png(str(tmp_path / "out" / mine["file_name"]))
        their_ids = rgb2id(np.array(Image.open(tmp_path / "theirs" / other["file_name"])))
        assert [s["category_id"] for s in mine["segments_info"]] == [s["category_id"] for s in other["segments_info"]]
        for segment, their_segment in zip(mine["segments_info"], other["segments_info"], strict=True):
            assert ((ids == segment["id"]) == (their_ids == their_segment["id"])).all()
        assert ((ids == 0) == (their_ids == 0)).all()


def test_several_processes_and_small_pieces_change_nothing(tmp_path, monkeypatch):
    _write(tmp_path)
    expected = _combine(tmp_path)
    pngs = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert len(pngs) == 4
    monkeypatch.setattr(files, "_CHUNK", 13)
    assert _combine(tmp_path, processes=2) == expected
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == pngs


def test_label_maps_are_the_same_as_regions(tmp_path):
    images, _, semantics = _write(tmp_path)
    expected = _combine(tmp_path)
    (tmp_path / "maps").mkdir()
    for image, size in zip(images, SIZES, strict=True):
        labels = np.full(size, 255, np.uint8)
        for row in semantics:
            if row["image_id"] == image["id"]:
                labels[coco_mask.decode(row["segmentation"]) == 1] = row["category_id"]
        Image.fromarray(labels).save(tmp_path / "maps" / image["file_name"].replace(".jpg", ".png"))
    arguments = [str(tmp_path / name) for name in ("instances.json", "maps", "images.json", "other.json")]
    main([*arguments, "--categories", str(tmp_path / "categories.json"), "--processes", "1"])
    found = json.loads((tmp_path / "other.json").read_text(encoding="utf-8"))
    for a, b in zip(found["annotations"], expected["annotations"], strict=True):
        assert sorted(s["category_id"] for s in a["segments_info"]) == sorted(
            s["category_id"] for s in b["segments_info"]
        )
        maps = [read_panoptic_png(str(tmp_path / name / a["file_name"])) for name in ("other", "out")]
        assert ((maps[0] == 0) == (maps[1] == 0)).all()


def _spoil(row: dict, **changes: Any) -> list[dict]:
    return [{**row, **changes}]


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("instances", lambda rows: _spoil(rows[0], category_id=2), r"instances.json: .* category 2, which is not in"),
        ("instances", lambda rows: [{"image_id": 1}], r"row 0 lacks \['category_id', 'score', 'segmentation'\]"),
        ("instances", lambda rows: {"annotations": rows}, "is no list of results"),
        ("instances", lambda rows: _spoil(rows[0], score=1, segmentation=[[1, 1, 2, 2, 3, 3]]), "must be run-length"),
        (
            "semantics",
            lambda rows: _spoil(rows[0], segmentation={**rows[0]["segmentation"], "counts": "5"}),
            "image 10, category 95: its run-length encoding is broken",
        ),
        (
            "semantics",
            lambda rows: _spoil(rows[0], segmentation={**rows[0]["segmentation"], "size": [2, 2]}),
            r"size \[2, 2\], its image \[24, 32\]",
        ),
    ],
)
def test_results_that_are_wrong(tmp_path, name, spoil, said):
    rows = dict(zip(("images", "instances", "semantics"), _write(tmp_path), strict=True))
    (tmp_path / f"{name}.json").write_text(json.dumps(spoil(rows[name])), encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        _combine(tmp_path)
    assert not (tmp_path / "out.json").exists()


def test_results_that_are_cut_off(tmp_path):
    _write(tmp_path)
    text = (tmp_path / "semantics.json").read_text(encoding="utf-8")
    (tmp_path / "semantics.json").write_text(text[:-5], encoding="utf-8")
    with pytest.raises(ValueError, match="cut off"):
        _combine(tmp_path)


def test_categories_that_are_not_panoptic(tmp_path):
    _write(tmp_path)
    with pytest.raises(ValueError, match=r"images.json must list COCO's panoptic categories.*--categories"):
        _combine(tmp_path, categories=None)


def test_image_ids_are_compared_as_text_and_results_of_no_image_are_said(tmp_path, caplog):
    """A JSON that was written elsewhere may have "10" where the list of images has 10."""
    _, instances, semantics = _write(tmp_path)
    paths = [str(tmp_path / f"{name}.json") for name in ("instances", "semantics", "images")]
    words = {"categories": str(tmp_path / "categories.json")}
    combine_files(*paths, str(tmp_path / "out.json"), **words)
    plain = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert not caplog.records and plain[0]["segments_info"]
    texts = [{**row, "image_id": str(row["image_id"])} for row in instances]
    (tmp_path / "instances.json").write_text(json.dumps([*texts, {**texts[0], "image_id": 99}]))
    combine_files(*paths, str(tmp_path / "again.json"), **words)
    assert json.loads((tmp_path / "again.json").read_text())["annotations"] == plain
    assert "1 results in" in caplog.text and "does not list" in caplog.text
    for name, rows in (("instances", instances), ("semantics", semantics)):
        (tmp_path / f"{name}.json").write_text(json.dumps([{**row, "image_id": f"x{row['image_id']}"} for row in rows]))
    with pytest.raises(ValueError, match=r"No result in .* is of an image that .*images\.json lists"):
        combine_files(*paths, str(tmp_path / "none.json"), **words)


@pytest.mark.parametrize("score", ["x", None, float("nan"), True])
def test_a_score_that_is_no_number_is_refused(tmp_path, score):
    _, instances, _ = _write(tmp_path)
    (tmp_path / "instances.json").write_text(json.dumps([*instances, {**instances[0], "score": score}]))
    paths = [str(tmp_path / f"{name}.json") for name in ("instances", "semantics", "images")]
    with pytest.raises(ValueError, match="a number is needed"):
        combine_files(*paths, str(tmp_path / "out.json"), categories=str(tmp_path / "categories.json"))
