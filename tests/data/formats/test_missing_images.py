"""No other image stands in for one that is missing, no other class for one without a name."""

import json

import numpy as np
import pytest
from PIL import Image
from test_tool_layouts import H, W, converted, image


def test_an_image_of_the_same_name_in_another_folder_is_no_stand_in(tmp_path):
    """Neither where the folder is there without the image, nor where it is not there and the other has its own row."""
    rows = [{"id": i, "file_name": f"{f}/1.jpg", "height": H, "width": W} for i, f in enumerate("ba", 1)]
    boxes = [
        {"id": i, "image_id": i, "category_id": 1, "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]], "area": 16, "iscrowd": 0}
        for i in (1, 2)
    ]
    content = {"images": rows, "annotations": boxes, "categories": [{"id": 1, "name": "cell"}]}
    (tmp_path / "x.json").write_text(json.dumps(content))
    image(tmp_path / "a" / "1.jpg")
    for folder in (None, "b"):
        if folder:
            (tmp_path / folder).mkdir()
        lines: list[str] = []
        output = tmp_path.parent / f"{tmp_path.name}_{folder}"
        assert converted(f"coco {tmp_path}/x.json --output {output}", lines) == {"all": [[("cell", 16)]]}
        assert "image left out: 1" in "\n".join(lines) and "no image 'b/1.jpg'" in "\n".join(lines)


@pytest.mark.parametrize("lines", ["a\n\nc\nd\n\n", "\na\nc\nd"])
def test_an_empty_line_of_classes_keeps_its_number(tmp_path, lines):
    (tmp_path / "classes.txt").write_text(lines)
    image(tmp_path / "images" / "1.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "1.txt").write_text("2 0 0 1 0 1 1 0 1\n")
    with pytest.raises(ValueError, match="names of categories are empty"):
        converted(f"yolo {tmp_path}/classes.txt --output {tmp_path}/out", [])


def test_an_image_may_be_in_two_parts(tmp_path):
    """As in small datasets to try things with, whose YAML names one folder twice."""
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [cell]\n")
    image(tmp_path / "images" / "1.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "1.txt").write_text("0 0 0 1 0 1 1 0 1\n")
    found = converted(f"yolo {tmp_path}/data.yaml --output {tmp_path}/out", [])
    assert found == {"train": [[("cell", H * W)]], "val": [[("cell", H * W)]]}


def test_a_folder_of_another_machine_that_is_here_too(tmp_path):
    """Without the image: it is looked for by its name in the folder that was named."""
    (tmp_path / "old").mkdir()
    row = {"id": 1, "file_name": f"{tmp_path}/old/1.jpg", "height": H, "width": W}
    box = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]], "area": 16}
    content = {"images": [row], "annotations": [{**box, "iscrowd": 0}], "categories": [{"id": 1, "name": "cell"}]}
    (tmp_path / "x.json").write_text(json.dumps(content))
    image(tmp_path / "new" / "1.jpg")
    words = f"coco {tmp_path}/x.json --images {tmp_path}/new --output {tmp_path}/out"
    assert converted(words, []) == {"all": [[("cell", 16)]]}


@pytest.mark.parametrize("number", [5, 2**20 * 299 + 5, 2**31 - 1])
def test_large_instance_ids(tmp_path, number):
    image(tmp_path / "images" / "1.png")
    for folder, value in (("semantic", 1), ("instances", number)):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((H, W), value, np.int32)).save(tmp_path / folder / "1.tif")
    (tmp_path / "labels.csv").write_text("id,name,isthing\n1,cell,1\n300,other,1\n")
    words = " ".join(str(tmp_path / name) for name in ("images", "semantic", "instances", "labels.csv"))
    assert converted(f"semantic-instance {words} --output {tmp_path}/out", []) == {"all": [[("cell", H * W)]]}
