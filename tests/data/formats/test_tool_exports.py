"""What annotation tools write beside what their documentation says: endings, folders, parts, labels apart."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from tool_drawing import BOXES, ON_TOP, ROAD, H, W, areas, converted, corners, drawn, image, save, save_cityscapes

from panoptic_fpn_ext.data.convert import build_parser
from panoptic_fpn_ext.data.formats import FORMATS


def _regions(split: bool) -> list[dict[str, object]]:
    """Results of Label Studio, of polygons and bitmasks; ``split`` keeps the label apart from the outline."""
    results: list[dict[str, object]] = [{"id": "day", "type": "choices", "value": {"choices": ["sunny"]}}]
    for i, (name, box) in enumerate(BOXES):
        if name == "person":
            mask = np.zeros((H, W, 4), np.uint8)
            mask[box[1] : box[3], box[0] : box[2], 3] = 255
            png = io.BytesIO()
            Image.fromarray(mask).save(png, "PNG")
            kind = "bitmask"
            value = {"imageDataURL": f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"}
        else:
            kind, value = "polygon", {"points": (np.array(corners(box)) / (W, H) * 100).tolist(), "closed": True}
        common = {"id": str(i), "original_width": W, "original_height": H}
        if split:
            results.append({**common, "type": kind, "value": value})
            results.append({**common, "type": "labels", "value": {**value, "labels": [name]}})
        else:
            results.append({**common, "type": f"{kind}labels", "value": {**value, f"{kind}labels": [name]}})
    return results


@pytest.mark.parametrize("split", [False, True])
def test_label_studio_with_labels_apart_and_images_in_folders(split, tmp_path):
    tasks = []
    for i, folder in enumerate(("a", "b")):
        image(tmp_path / "images" / folder / "x.jpg")
        data = {"note": "see v1.2", "image": f"/data/local-files/?d=shots/{folder}/x.jpg"}
        tasks.append({"id": i, "data": data, "annotations": [{"result": _regions(split)}]})
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    lines: list[str] = []
    found = converted(f"label-studio {tmp_path}/export.json --output {tmp_path}/out {ON_TOP}", lines)
    assert found == {"all": [areas(), areas()]} and "Dropped" not in "\n".join(lines)
    assert (tmp_path / "out" / "images" / "b" / "x.jpg").is_file()


def test_cityscapes_of_cvat_keeps_the_endings_and_names_of_parts(tmp_path):
    save_cityscapes(tmp_path, "Validation", ".jpg")
    (tmp_path / "label_colors.txt").write_text("0 0 0 background\n1 1 1 road\n2 2 2 car\n3 3 3 person\n")
    lines: list[str] = []
    found = converted(f"cityscapes {tmp_path} --things car,person --output {tmp_path}/out", lines)
    assert found == {"val": [areas()]} and "Dropped" not in "\n".join(lines)


def test_kitti_step_has_parts(tmp_path):
    semantic, instance = drawn()
    red = np.array([255, 0, 13, 11], np.uint8)[semantic]
    for part in ("train", "val"):
        image(tmp_path / "images" / part / "0001" / "000000.png")
        path = tmp_path / "panoptic_maps" / part / "0001" / "000000.png"
        save(path, np.stack([red, np.zeros_like(red), instance], 2))
    image(tmp_path / "images" / "test" / "0002" / "000000.png")
    found = converted(f"kitti-step {tmp_path}/images {tmp_path}/panoptic_maps --output {tmp_path}/out")
    assert found == {"train": [areas()], "val": [areas()]}


def test_lists_of_yolo_name_images_in_folders(tmp_path):
    """As CVAT writes them, below ``data``; two images have one file name."""
    lines = ["0 " + " ".join(str(v) for v in (np.array(corners(ROAD)) / (W, H)).ravel())]
    for folder in ("a", "b"):
        image(tmp_path / "images" / "Train" / folder / "x.jpg")
        (tmp_path / "labels" / "Train" / folder).mkdir(parents=True)
        (tmp_path / "labels" / "Train" / folder / "x.txt").write_text(lines[0])
    (tmp_path / "Train.txt").write_text("data/images/Train/a/x.jpg\nimages/Train/b/x.jpg\n")
    (tmp_path / "data.yaml").write_text("Train: Train.txt\npath: .\nnames: {0: road}\n")
    assert converted(f"yolo {tmp_path} --stuff road")["all"] == [[("road", 176)]] * 2


def test_images_without_masks_are_counted(tmp_path):
    for name in ("a", "b"):
        image(tmp_path / "images" / f"{name}.png")
    save(tmp_path / "masks" / "a" / "car_1.png", np.full((H, W), 255, np.uint8))
    lines: list[str] = []
    converted(f"masks {tmp_path}/masks --images {tmp_path}/images", lines)
    assert f"Left out: 1 images without a folder of masks, such as {tmp_path}/images/b.png." in lines
    assert not any("image left out" in line for line in lines)
    converted(f"masks {tmp_path}/masks --images {tmp_path}/images", lines)
    assert lines[-1].endswith("is up to date.")


@pytest.mark.parametrize("format_name", list(FORMATS))
def test_the_help_says_what_each_argument_is(format_name, capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args([format_name, "--help"])
    said = capsys.readouterr().out
    assert "`" not in said and ":data:" not in said
    helps = {a.dest: a.help for a in build_parser()._subparsers._group_actions[0].choices[format_name]._actions}
    assert all(helps.values())


def test_stuff_maps_with_a_table_of_their_own(tmp_path):
    """Pixels of a thing below the instances are a crowd, ids that are void by name are void."""
    semantic, _ = drawn()
    image(tmp_path / "images" / "a.jpg")
    ids = {"car": 3, "person": 1}
    rows = [
        {"id": i, "image_id": 1, "category_id": ids[name], "segmentation": [np.ravel(corners(box)).tolist()]}
        for i, (name, box) in enumerate(BOXES)
        if name in ids
    ]
    categories = [{"id": 3, "name": "car"}, {"id": 1, "name": "person"}]
    images = [{"id": 1, "file_name": "a.jpg", "height": H, "width": W}]
    content = {"images": images, "annotations": rows, "categories": categories}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    pixels = np.array([183, 149, 3, 1], np.uint8)[semantic]
    pixels[0, :5] = 3
    save(tmp_path / "maps" / "a.png", pixels)
    (tmp_path / "labels.txt").write_text("0: unlabeled\n1: person\n3: car\n149: road\n183: other\n")
    lines: list[str] = []
    paths = f"--stuff-maps {tmp_path}/maps --stuff-labels {tmp_path}/labels.txt --output {tmp_path}/out"
    found = converted(f"coco {tmp_path}/instances.json {paths}", lines)
    assert found == {"all": [sorted([*areas(), ("car", 5)])]} and "Dropped" not in "\n".join(lines)
    [annotation] = json.loads((tmp_path / "out" / "panoptic.json").read_text())["annotations"]
    assert [s["area"] for s in annotation["segments_info"] if s["iscrowd"]] == [5]


def test_stuffthingmaps_without_their_shift_are_said(tmp_path):
    """With the ids of the table, every class would be the one before it."""
    semantic, _ = drawn()
    image(tmp_path / "images" / "a.jpg")
    save(tmp_path / "maps" / "a.png", np.where(semantic == 0, 255, semantic - 1).astype(np.uint8))
    (tmp_path / "labels.txt").write_text("0: unlabeled\n1: road\n2: car\n3: person\n")
    lines: list[str] = []
    text = f"coco-stuff {tmp_path}/images {tmp_path}/maps {tmp_path}/labels.txt --output {tmp_path}/out"
    converted(text, lines)
    assert "they need --shift 1" in lines[-1]
    lines.clear()
    converted(f"{text} --shift 1", lines)
    assert "--shift" not in "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("masks {root} --pattern '('", r"--pattern must be a regular expression, but '\(' is none"),
        ("masks {root} --group '('", r"--group: a regular expression is needed, but '\(' is none"),
        ("mapillary {root} --version 2.0", r"neither config_v2\.0\.json nor config\.json"),
        ("cityscapes {root}", "is '.*' the dataset's root"),
        ("coco {root}/numbers.json", "entry of annotations 0 must be an object"),
        ("coco {root}/panoptic.json", "by 'panoptic .*panoptic.json PNGS IMAGES'"),
        ("yolo {root} --images {root}/elsewhere", "--images .*elsewhere: there is no such folder"),
    ],
)
def test_mistakes_are_one_line_with_a_remedy(text, says, tmp_path):
    image(tmp_path / "train" / "a.png")
    (tmp_path / "data.yaml").write_text("train: train\nnames: [road]\n")
    row = {"image_id": 1, "file_name": "a.png", "segments_info": []}
    (tmp_path / "panoptic.json").write_text(json.dumps({"images": [], "annotations": [row], "categories": []}))
    (tmp_path / "numbers.json").write_text(json.dumps({"images": [], "annotations": [5], "categories": []}))
    with pytest.raises(ValueError, match=says):
        converted(text.format(root=tmp_path))


def test_images_of_yolo_in_a_folder_that_is_named(tmp_path, monkeypatch):
    """Relative to where the command runs, not to the labels' names."""
    image(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0 0 1 0 1 1 0 1\n")
    (tmp_path / "classes.txt").write_text("road\n")
    monkeypatch.chdir(tmp_path)
    assert converted("yolo classes.txt --images images --stuff road --output out") == {"all": [[("road", H * W)]]}
