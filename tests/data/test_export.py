"""What is exported and read back is the same map, pixel for pixel."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from panoptic_fpn_ext.data.convert import convert_description, parse_description
from panoptic_fpn_ext.data.export import TARGETS, export
from panoptic_fpn_ext.panoptic_png import id2rgb, read_panoptic_png

KINDS = {1: True, 2: False, 7: True, 30: False}  # category id → isthing


def _dataset(folder: Path, count: int = 3) -> tuple[dict[str, Any], Path]:
    """Random blocks, with crowds and void; one image lies in a subfolder."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(count):
        size = (int(rng.integers(10, 40)), int(rng.integers(10, 40)))
        ids, segments = np.zeros(size, np.int32), []
        blocks = rng.integers(0, 7, size=(5, 5)).repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]
        for block in np.unique(blocks[blocks > 0]).tolist():
            category = random.Random(100 * number + block).choice([1, 1, 7])
            stuff = {5: 2, 6: 30}.get(block)
            ids[blocks == block] = 1000 * block
            iscrowd = int(block == 4)
            segments.append(
                {"id": 1000 * block, "category_id": stuff or category, "iscrowd": iscrowd if not stuff else 0}
            )
        name = f"sub/{number}.v1.jpg" if number == 1 else f"{number}.jpg"
        images.append({"id": number + 1, "file_name": name, "height": size[0], "width": size[1]})
        png = name.replace("jpg", "png")
        annotations.append({"image_id": number + 1, "file_name": png, "segments_info": segments})
        for root, pixels in (("images", np.zeros((*size, 3), np.uint8)), ("pngs", id2rgb(ids))):
            path = folder / root / (png if root == "pngs" else name)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    names = {1: "car", 2: "sky high", 7: "Straße", 30: "road"}
    categories = [{"id": i, "name": names[i], "isthing": int(t)} for i, t in KINDS.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "panoptic.json").write_text(json.dumps(content))
    return content, folder


def _masks(path: Path, pngs: Path) -> dict[str, set[tuple[str, int, bytes]]]:
    """By image: name of the category, crowd or not, and pixels of each segment."""
    content = json.loads(path.read_text(encoding="utf-8"))
    names = {c["id"]: (c["name"], c["isthing"]) for c in content["categories"]}
    file_names = {i["id"]: i["file_name"] for i in content["images"]}
    found = {}
    for annotation in content["annotations"]:
        ids = read_panoptic_png(str(pngs / annotation["file_name"]))
        found[file_names[annotation["image_id"]]] = {
            (names[s["category_id"]], s["iscrowd"], (ids == s["id"]).tobytes()) for s in annotation["segments_info"]
        }
    return found


BACK = {
    "coco": "coco {out}/instances.json --stuff-maps {out}/stuff",
    "semantic-instance": "semantic-instance {out}/images {out}/semantic {out}/instance {out}/labels.csv",
    "cityscapes": "cityscapes {out} --things car,Straße",
}


@pytest.mark.parametrize("target", list(BACK))
def test_round_trip(target, tmp_path):
    _, folder = _dataset(tmp_path)
    paths = str(folder / "panoptic.json"), str(folder / "pngs"), str(tmp_path / "out")
    export(target, *paths, images=str(folder / "images"), processes=1)
    text = f"{BACK[target].format(out=tmp_path / 'out')} --output {tmp_path}/back --processes 1"
    back = Path(convert_description(parse_description(text), lambda line: None)["all"])
    found = _masks(back, back.with_suffix(""))
    if target == "cityscapes":
        found = {n.removeprefix("default/").replace("_leftImg8bit", ""): masks for n, masks in found.items()}
    assert found == _masks(folder / "panoptic.json", folder / "pngs")


def test_images_that_are_missing_are_said(tmp_path):
    _, folder = _dataset(tmp_path)
    paths = str(folder / "panoptic.json"), str(folder / "pngs"), str(tmp_path / "out")
    with pytest.raises(ValueError, match=r"pngs lacks 3 of 3 images, such as"):
        export("coco", *paths, images=str(folder / "pngs"), processes=1)


def test_categories_that_cityscapes_tables_have_for_void(tmp_path):
    content, folder = _dataset(tmp_path)
    content["categories"][0]["name"] = "background"
    (folder / "panoptic.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="take background for void"):
        export("cityscapes", str(folder / "panoptic.json"), str(folder / "pngs"), str(tmp_path / "out"), processes=1)


@pytest.mark.parametrize("target", list(TARGETS))
def test_maps_that_do_not_agree_are_refused(target, tmp_path):
    content, folder = _dataset(tmp_path)
    content["annotations"][0]["segments_info"].pop()
    (folder / "panoptic.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="does not agree with its annotation"):
        export(target, str(folder / "panoptic.json"), str(folder / "pngs"), str(tmp_path / "out"), processes=1)


@pytest.mark.parametrize("name", ["../x.jpg", "/x.jpg", "a/../../x.jpg"])
def test_nothing_is_written_outside(name, tmp_path):
    content, folder = _dataset(tmp_path)
    content["images"][0]["file_name"] = name
    (folder / "panoptic.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="below one folder"):
        export("coco", str(folder / "panoptic.json"), str(folder / "pngs"), str(tmp_path / "out"), processes=1)


def test_ids_that_a_format_cannot_carry(tmp_path):
    content, folder = _dataset(tmp_path)
    content["categories"].append({"id": 70_000, "name": "far", "isthing": 0})
    (folder / "panoptic.json").write_text(json.dumps(content))
    for target in ("coco", "semantic-instance"):
        with pytest.raises(ValueError, match="hold ids from 1"):
            export(target, str(folder / "panoptic.json"), str(folder / "pngs"), str(tmp_path / "out"), processes=1)
