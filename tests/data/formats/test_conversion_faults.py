"""What a conversion says of faults: one line that names them, and nothing is written elsewhere."""

import json
import random
import subprocess
import sys

import pytest
from format_drawing import LAYERS, H, W, converted, drawn, image, masks, write_coco


def test_a_place_that_cannot_be_written_to_is_one_line_with_the_remedy(tmp_path):
    path = write_coco(tmp_path)
    (tmp_path / "panoptic_fpn_ext").write_text("a file where the folder would be")
    with pytest.raises(OSError, match=r"panoptic_fpn_ext/_annotations\.coco: .*\. Name a folder for the result"):
        converted(f"coco {path} {LAYERS}")


def test_the_command_line_ends_with_one_line(tmp_path):
    (tmp_path / "x.json").write_text("{")
    command = [sys.executable, "-m", "panoptic_fpn_ext.data.convert", "coco", str(tmp_path / "x.json")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2 and "x.json is not valid JSON" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_images_that_cannot_be_converted_are_counted_and_named(tmp_path):
    path = write_coco(tmp_path)
    content = json.loads(path.read_text())
    content["images"].append({"id": 8, "file_name": "gone.jpg", "height": H, "width": W})
    content["images"].append({"id": 9, "file_name": "other.jpg", "height": 5, "width": 5})
    image(tmp_path / "other.jpg")
    path.write_text(json.dumps(content))
    lines: list[str] = []
    found, _ = converted(f"coco {path} {LAYERS}", lines)
    assert [i["file_name"] for i in found["images"]] == ["a.jpg"]
    assert "image left out: 2" in "\n".join(lines)


def test_a_folder_of_images_that_is_not_there_is_named(tmp_path):
    path = write_coco(tmp_path)
    with pytest.raises(ValueError, match=r"--images \S+nowhere: there is no such folder"):
        converted(f"coco {path} {LAYERS} --images {tmp_path}/nowhere")


def test_a_file_without_categories(tmp_path):
    path = write_coco(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "categories": [], "annotations": []}))
    with pytest.raises(ValueError, match=r"--things names 'window', but there are no categories of "):
        converted(f"coco {path} --things window")


VALUES = [None, 3, -1, "x", [], [[]], {}, True, 1.5, float("nan"), 2**70, [1, 2, 3], {"counts": "zz", "size": [1, 1]}]


@pytest.mark.parametrize("seed", range(25))
def test_damaged_annotations_are_sentences(seed, tmp_path):
    """Any value in any place of a JSON: converted without what is wrong, which is counted, or one ValueError."""
    random.seed(seed)
    path = write_coco(tmp_path)
    content = json.loads(path.read_text())
    for _ in range(8):
        damaged = json.loads(json.dumps(content))
        row = random.choice(random.choice(list(damaged.values())))
        row[random.choice(list(row))] = random.choice(VALUES)
        path.write_text(json.dumps(damaged))
        lines: list[str] = []
        try:
            found, folder = converted(f"coco {path} {LAYERS} --processes 1", lines)
        except (ValueError, FileNotFoundError) as error:
            assert " " in str(error)
            continue
        if damaged["annotations"] != content["annotations"]:
            text = "\n".join(lines)
            assert "Dropped" in text or "Left out" in text or masks(found, folder).keys() <= drawn().keys()


@pytest.mark.parametrize("name", ["../../evil.jpg", "/tmp/evil.jpg", "a/../../evil.jpg"])
def test_nothing_is_written_outside_the_output(name, tmp_path):
    path = write_coco(tmp_path / "in")
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = name
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"outside|No image could be converted"):
        converted(f"coco {path} {LAYERS} --output {tmp_path}/out")
    assert not list(tmp_path.glob("evil*"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("things: car", "things must be a list of names, got 'car'"),
        ("layers: [a, b]", "layers must be 'wall, road < car < person', got"),
        ("unlabelled: 3", "unlabelled must be a name, got 3"),
        ("leave_out: [[a]]", "leave_out must be a list of names"),
    ],
)
def test_a_labels_file_of_other_kinds(tmp_path, text, said):
    (tmp_path / "labels.yaml").write_text(text)
    with pytest.raises(ValueError, match=said):
        converted(f"coco {write_coco(tmp_path)} --labels-file {tmp_path}/labels.yaml")
