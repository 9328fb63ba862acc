"""Each format, written here by the plainest means, gives the map that was drawn by hand."""

import base64
import io
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from panoptic_fpn_ext.data.convert import convert_description, parse_description
from panoptic_fpn_ext.panoptic_png import id2rgb, read_panoptic_png

H, W = 12, 16
# name -> (thing?, boxes x0 y0 x1 y1 in drawing order); the second car lies on the wall, the person on the car
ROAD, WALL = (0, 8, 16, 12), (0, 0, 16, 8)
CARS, PERSON = [(1, 6, 6, 10), (8, 5, 14, 9)], (4, 4, 7, 9)


def drawn() -> dict[str, list[np.ndarray]]:
    """Visible masks by category; the last 2 columns of the road are unlabelled."""
    ids = np.zeros((H, W), int)
    for value, (x0, y0, x1, y1) in enumerate([WALL, ROAD, *CARS, PERSON], start=1):
        ids[y0:y1, x0:x1] = value
    return {"wall": [ids == 1], "road": [ids == 2], "car": [ids == 3, ids == 4], "person": [ids == 5]}


def image(path: Path, height: int = H, width: int = W) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


def gray(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def corners(box: tuple[int, int, int, int]) -> list[float]:
    x0, y0, x1, y1 = box
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def converted(text: str, lines: list[str] | None = None) -> tuple[dict, Path]:
    parts = convert_description(parse_description(text), (lines if lines is not None else []).append)
    path = Path(parts["all"])
    return json.loads(path.read_text(encoding="utf-8")), path.parent


def masks(content: dict, folder: Path, index: int = 0) -> dict[str, list[np.ndarray]]:
    names = {c["id"]: c["name"] for c in content["categories"]}
    annotation = content["annotations"][index]
    ids = read_panoptic_png(str(folder / "panoptic" / annotation["file_name"]))
    found: dict[str, list[np.ndarray]] = {}
    for segment in annotation["segments_info"]:
        mask = ids == segment["id"]
        assert mask.sum() == segment["area"]
        ys, xs = np.nonzero(mask)
        assert segment["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        found.setdefault(names[segment["category_id"]], []).append(mask)
    return found


def assert_drawn(content: dict, folder: Path, expected: dict[str, list[np.ndarray]] | None = None) -> None:
    found, expected = masks(content, folder), expected or drawn()
    assert set(found) == set(expected)
    for name, wanted in expected.items():
        rest = list(found[name])
        for mask in wanted:
            match = [i for i, other in enumerate(rest) if np.array_equal(mask, other)]
            assert match, f"{name}:\n{mask.astype(int)}\nis none of\n{[m.astype(int) for m in rest]}"
            rest.pop(match[0])
        assert not rest
    assert (folder / "images" / content["images"][0]["file_name"]).exists()


LAYERS = "--things car,person --layers 'wall, road < car < person'"
SHAPES = [("person", PERSON), ("car", CARS[0]), ("car", CARS[1]), ("road", ROAD), ("wall", WALL)]


def write_coco(root: Path, segmentation=lambda box: [corners(box)]) -> Path:
    names = ["root", "road", "wall", "car", "person"]
    image(root / "a.jpg")
    rows = [
        {"id": i, "image_id": 7, "category_id": names.index(name), "segmentation": segmentation(box), "iscrowd": 0}
        for i, (name, box) in enumerate(SHAPES)
    ]
    categories = [{"id": i, "name": n, "supercategory": "root" if i else "none"} for i, n in enumerate(names)]
    images = [{"id": 7, "file_name": "a.jpg", "height": H, "width": W}]
    path = root / "_annotations.coco.json"
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    return path


def full_mask(box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((H, W), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def counts_of(mask: np.ndarray) -> list[int]:
    """Run lengths of a flat mask, background first."""
    runs, value = [0], False
    for pixel in mask.tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def compressed(box: tuple[int, int, int, int]) -> dict:
    from pycocotools import mask as coco_mask

    rle = coco_mask.encode(np.asfortranarray(full_mask(box)).astype(np.uint8))
    return {"size": [H, W], "counts": rle["counts"].decode()}


def uncompressed(box: tuple[int, int, int, int]) -> dict:
    return {"size": [H, W], "counts": counts_of(full_mask(box).T.reshape(-1))}


@pytest.mark.parametrize("segmentation", [lambda box: [corners(box)], compressed, uncompressed])
def test_coco(segmentation, tmp_path):
    lines: list[str] = []
    content, folder = converted(f"coco {write_coco(tmp_path, segmentation)} {LAYERS}", lines)
    assert_drawn(content, folder)
    assert [c["name"] for c in content["categories"]] == ["road", "wall", "car", "person"]  # without the root
    text = "\n".join(lines)
    assert "car took 16 px (8.33%) from road" in text and "only groups the others" in text


def test_cvat(tmp_path):
    image(tmp_path / "images" / "sub" / "a.png")
    names = ["wall", "road", "car", "person"]
    labels = "".join(f"<label><name>{name}</name></label>" for name in names)
    order = {"wall": 0, "road": 0, "car": 1, "person": 2}
    shapes = []
    for name, (x0, y0, x1, y1) in SHAPES:
        if name == "person":  # as a mask, whose last pixel is out of it
            runs = ", ".join(map(str, counts_of(np.ones((y1 - y0) * (x1 - x0), bool))))
            size = f'left="{x0}" top="{y0}" width="{x1 - x0}" height="{y1 - y0}"'
            shapes.append(f'<mask label="{name}" rle="{runs}" {size} z_order="2"/>')
        else:
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in np.reshape(corners((x0, y0, x1, y1)), (-1, 2)))
            shapes.append(f'<polygon label="{name}" occluded="0" points="{points}" z_order="{order[name]}"/>')
    shapes.append('<box label="car" xtl="1" ytl="1" xbr="3" ybr="3" z_order="9"/>')
    (tmp_path / "annotations.xml").write_text(
        f"<annotations><version>1.1</version><meta><task><labels>{labels}</labels></task></meta>"
        f'<image id="0" name="sub/a.png" width="{W}" height="{H}">{"".join(shapes)}</image></annotations>'
    )
    lines: list[str] = []
    content, folder = converted(f"cvat {tmp_path} --things car,person", lines)
    assert_drawn(content, folder)
    assert "box (it has no mask): 1" in "\n".join(lines)


def test_labelme(tmp_path):
    image(tmp_path / "a.jpg")
    shapes = []
    for name, (x0, y0, x1, y1) in SHAPES:
        shape = {
            "label": name,
            "shape_type": "polygon",
            "points": np.reshape(corners((x0, y0, x1, y1)), (-1, 2)).tolist(),
        }
        if name == "wall":
            shape |= {"shape_type": "rectangle", "points": [[x1, y1], [x0, y0]]}
        if name == "person":
            data = io.BytesIO()
            Image.fromarray(np.full((y1 - y0, x1 - x0), 255, np.uint8)).save(data, "PNG")
            mask = base64.b64encode(data.getvalue()).decode()
            shape |= {"shape_type": "mask", "points": [[x0, y0], [x1, y1]], "mask": mask}
        shapes.append(shape)
    content = {"version": "5.4.1", "shapes": shapes, "imagePath": "a.jpg", "imageHeight": H, "imageWidth": W}
    (tmp_path / "a.json").write_text(json.dumps(content))
    result, folder = converted(f"labelme {tmp_path} --output {tmp_path}/out {LAYERS}")
    assert_drawn(result, folder)
    assert [c["name"] for c in result["categories"]] == ["car", "person", "road", "wall"]


def test_shapes_of_one_group_are_one_segment(tmp_path):
    image(tmp_path / "a.jpg")
    parts = [
        {"label": "car", "points": np.reshape(corners(box), (-1, 2)).tolist(), "group_id": 3, "shape_type": "polygon"}
        for box in CARS
    ]
    (tmp_path / "a.json").write_text(json.dumps({"shapes": parts, "imagePath": "a.jpg"}))
    content, folder = converted(f"labelme {tmp_path} --output {tmp_path}/out")
    assert [len(m) for m in masks(content, folder).values()] == [1]


def test_yolo(tmp_path):
    for split in ("train", "val"):
        image(tmp_path / split / "images" / "a.jpg")
        names = ["wall", "road", "car", "person"]
        lines = []
        for name, box in SHAPES:
            points = (np.reshape(corners(box), (-1, 2)) / (W, H)).reshape(-1)
            lines.append(f"{names.index(name)} " + " ".join(repr(float(v)) for v in points))
        (tmp_path / split / "labels").mkdir()
        (tmp_path / split / "labels" / "a.txt").write_text("\n".join(lines) + "\n2 0.5 0.5 0.1 0.1\n")
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: ../val/images\nnames: [wall, road, car, person]\n"
    )
    parts = convert_description(
        parse_description(f"yolo {tmp_path} --output {tmp_path}/out {LAYERS}"), lambda line: None
    )
    assert set(parts) == {"train", "val"}
    content = json.loads(Path(parts["val"]).read_text())
    annotation = content["annotations"][0]
    ids = read_panoptic_png(str(tmp_path / "out" / "panoptic_val" / annotation["file_name"]))
    areas = sorted(s["area"] for s in annotation["segments_info"])
    assert areas == sorted(int(m.sum()) for ms in drawn().values() for m in ms) and ids.shape == (H, W)


def test_label_studio(tmp_path):
    image(tmp_path / "images" / "1a2b3c4d-a.jpg")
    results = []
    for name, box in SHAPES:
        points = (np.reshape(corners(box), (-1, 2)) / (W, H) * 100).tolist()
        value = {"points": points, "polygonlabels": [name], "closed": True}
        results.append({"type": "polygonlabels", "value": value, "original_width": W, "original_height": H})
    tasks = [
        {"id": 1, "data": {"image": "/data/upload/1/1a2b3c4d-a.jpg"}, "annotations": [{"result": results}]},
        {"id": 2, "data": {"image": "/data/upload/1/b.jpg"}, "annotations": [{"was_cancelled": True, "result": []}]},
    ]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    content, folder = converted(f"label-studio {tmp_path}/export.json {LAYERS}")
    assert_drawn(content, folder)


def semantic_and_instance() -> tuple[np.ndarray, np.ndarray]:
    semantic, instance = np.zeros((H, W), np.uint8), np.zeros((H, W), np.uint8)
    for value, (name, found) in enumerate(drawn().items(), start=1):
        for number, mask in enumerate(found, start=1):
            semantic[mask] = value
            instance[mask] = number if name in ("car", "person") else 0
    return semantic, instance


TABLE = "id,name,isthing\n1,wall,0\n2,road,0\n3,car,1\n4,person,1\n"


def test_semantic_and_instance_pngs(tmp_path):
    semantic, instance = semantic_and_instance()
    image(tmp_path / "images" / "x" / "a.jpg")
    gray(tmp_path / "sem" / "x" / "a.png", semantic)
    gray(tmp_path / "ins" / "x" / "a.png", instance)
    (tmp_path / "labels.csv").write_text(TABLE)
    paths = " ".join(f"{tmp_path}/{name}" for name in ("images", "sem", "ins", "labels.csv"))
    content, folder = converted(f"semantic-instance {paths} --output {tmp_path}/out")
    assert_drawn(content, folder)


@pytest.mark.parametrize("encoding", ["red,green", "red,blue", "red,256*green+blue", "value/256", "value/1000"])
def test_encoded_pngs(encoding, tmp_path):
    semantic, instance = semantic_and_instance()
    zero = np.zeros_like(semantic)
    pixels = {
        "red,green": np.stack([semantic, instance, zero], 2),
        "red,blue": np.stack([semantic, zero, instance], 2),
        "red,256*green+blue": np.stack([semantic, instance, instance * 0 + 5 * (instance > 0)], 2).astype(np.uint8),
        "value/256": semantic.astype(np.uint16) * 256 + instance,
        "value/1000": semantic.astype(np.uint16) * 1000 + instance,
    }[encoding]
    image(tmp_path / "images" / "a.jpg")
    gray(tmp_path / "maps" / "a.png", pixels)
    (tmp_path / "labels.csv").write_text(TABLE)
    text = (
        f"encoded {tmp_path}/images {tmp_path}/maps {tmp_path}/labels.csv --encoding {encoding} --output {tmp_path}/out"
    )
    assert_drawn(*converted(text))


def test_mapillary(tmp_path):
    semantic, instance = semantic_and_instance()
    image(tmp_path / "training" / "images" / "a.jpg")
    # Mapillary numbers labels and instances from 0, and its last label is not evaluated.
    numbers = np.maximum(instance.astype(np.uint16), 1) - 1
    gray(tmp_path / "training" / "v2.0" / "instances" / "a.png", (semantic.astype(np.uint16) - 1) * 256 + numbers)
    names = [("wall", False), ("road", False), ("car", True), ("person", True), ("ego", False)]
    labels = [{"name": f"x--{n}", "readable": n, "instances": t, "evaluate": n != "ego"} for n, t in names]
    (tmp_path / "config_v2.0.json").write_text(json.dumps({"labels": labels}))
    parts = convert_description(parse_description(f"mapillary {tmp_path} --output {tmp_path}/out"), lambda line: None)
    content = json.loads(Path(parts["train"]).read_text())
    areas = sorted(s["area"] for s in content["annotations"][0]["segments_info"])
    assert areas == sorted(int(m.sum()) for ms in drawn().values() for m in ms)
    assert not any(s["iscrowd"] for s in content["annotations"][0]["segments_info"])


def test_voc(tmp_path):
    semantic, instance = semantic_and_instance()
    image(tmp_path / "JPEGImages" / "a.jpg")
    image(tmp_path / "JPEGImages" / "not_segmented.jpg")
    colors = {"background": (0, 0, 0), "wall": (1, 2, 3), "road": (9, 9, 9), "car": (200, 0, 0), "person": (0, 0, 255)}
    table = np.array(list(colors.values()), np.uint8)
    gray(tmp_path / "SegmentationClass" / "a.png", table[semantic])
    gray(tmp_path / "SegmentationObject" / "a.png", np.stack([instance * 40] * 3, 2).astype(np.uint8))
    lines = [f"{name}:{','.join(map(str, color))}::" for name, color in colors.items()]
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "\n".join(lines))
    content, folder = converted(f"voc {tmp_path} --things car,person --output {tmp_path}/out")
    assert_drawn(content, folder)


def test_cityscapes_with_labels_of_its_own(tmp_path):
    semantic, instance = semantic_and_instance()
    image(tmp_path / "leftImg8bit" / "train" / "town" / "a_leftImg8bit.png")
    ids = np.where(instance > 0, semantic.astype(np.uint16) * 1000 + instance - 1, semantic)
    gray(tmp_path / "gtFine" / "train" / "town" / "a_gtFine_instanceIds.png", ids.astype(np.uint16))
    (tmp_path / "label_colors.txt").write_text("0 0 0 background\n1 1 1 wall\n2 2 2 road\n3 3 3 car\n4 4 4 person\n")
    text = f"cityscapes {tmp_path} --things car,person --output {tmp_path}/out"
    parts = convert_description(parse_description(text), lambda line: None)
    segments = json.loads(Path(parts["train"]).read_text())["annotations"][0]["segments_info"]
    assert sorted(s["area"] for s in segments) == sorted(int(m.sum()) for ms in drawn().values() for m in ms)


def test_kitti_step(tmp_path):
    semantic, instance = semantic_and_instance()
    train_ids = np.array([255, 3, 0, 13, 11], np.uint8)[semantic]  # wall, road, car, person
    image(tmp_path / "images" / "0000" / "000001.png")
    pixels = np.stack([train_ids, np.zeros_like(semantic), instance], 2)
    gray(tmp_path / "maps" / "0000" / "000001.png", pixels)
    content, folder = converted(f"kitti-step {tmp_path}/images {tmp_path}/maps --output {tmp_path}/out")
    assert_drawn(content, folder)
    assert [c["name"] for c in content["categories"] if c["isthing"]] == ["person", "car"]


def test_ade20k(tmp_path):
    semantic, instance = semantic_and_instance()
    image(tmp_path / "images" / "training" / "a.jpg")
    gray(tmp_path / "annotations" / "training" / "a.png", semantic)
    zero = np.zeros_like(semantic)
    pixels = np.stack([np.where(instance > 0, semantic + 10, 0).astype(np.uint8), instance, zero], 2)
    gray(tmp_path / "annotations_instance" / "training" / "a.png", pixels)
    names = ["wall", "road, route", "car, auto", "person, individual"]
    rows = [f"{i}\t0.1\t1\t1\t{name}" for i, name in enumerate(names, start=1)]
    (tmp_path / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n" + "\n".join(rows))
    parts = convert_description(parse_description(f"ade20k {tmp_path} --output {tmp_path}/out"), lambda line: None)
    content = json.loads(Path(parts["train"]).read_text())
    segments = content["annotations"][0]["segments_info"]
    assert sorted(s["area"] for s in segments) == sorted(int(m.sum()) for ms in drawn().values() for m in ms)
    assert [c["isthing"] for c in content["categories"]] == [0, 0, 1, 1]
    assert not any(s["iscrowd"] for s in segments)


def test_datasets_of_detectron2s_catalogs(tmp_path):
    semantic, _ = semantic_and_instance()
    image(tmp_path / "a.jpg")
    gray(tmp_path / "a.png", np.array([255, 1, 2, 0, 0], np.uint8)[semantic])  # things, wall, road
    things = {"car": 0, "person": 1}
    masks_of = {"car": CARS[0], "person": PERSON}
    annotations = [{"category_id": things[n], "segmentation": [corners(b)], "iscrowd": 0} for n, b in masks_of.items()]
    annotations.append({"category_id": 0, "segmentation": full_mask(CARS[1]), "iscrowd": 0})
    row = {"file_name": f"{tmp_path}/a.jpg", "height": H, "width": W, "image_id": 1, "annotations": annotations}
    DatasetCatalog.register("formats_test", lambda: [{**row, "sem_seg_file_name": f"{tmp_path}/a.png"}])
    MetadataCatalog.get("formats_test").set(thing_classes=[*things], stuff_classes=["things", "wall", "road"])
    try:
        text = f"registered formats_test --layers 'car < person' --output {tmp_path}/out"
        assert_drawn(*converted(text))
    finally:
        DatasetCatalog.remove("formats_test")
        MetadataCatalog.remove("formats_test")


def test_folders_of_masks(tmp_path):
    image(tmp_path / "images" / "a.jpg")
    for number, (name, box) in enumerate(SHAPES):
        gray(tmp_path / "masks" / "a" / f"{name}_{number}.png", full_mask(box).astype(np.uint8) * 255)
    content, folder = converted(f"masks {tmp_path}/masks --images {tmp_path}/images --output {tmp_path}/out {LAYERS}")
    assert_drawn(content, folder)


def test_panoptic(tmp_path):
    image(tmp_path / "images" / "a.jpg")
    semantic, instance = semantic_and_instance()
    ids = semantic.astype(np.int32) * 300 + instance
    (tmp_path / "pngs").mkdir()
    Image.fromarray(id2rgb(ids)).save(tmp_path / "pngs" / "a.png")
    segments = [{"id": int(i), "category_id": int(i) // 300} for i in np.unique(ids) if i]
    names = ["wall", "road", "car", "person"]
    rows = [{"id": i, "name": n, "isthing": 0} for i, n in enumerate(names, start=1)]  # as datumaro writes it
    images = [{"id": 1, "file_name": "a.jpg", "height": H, "width": W}]
    annotations = [{"image_id": 1, "file_name": "a.png", "segments_info": segments}]
    content = {"images": images, "annotations": annotations, "categories": rows}
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    paths = f"{tmp_path}/panoptic.json {tmp_path}/pngs {tmp_path}/images"
    assert_drawn(*converted(f"panoptic {paths} --things car,person --output {tmp_path}/out"))


def test_a_second_conversion_is_made_only_where_something_changed(tmp_path):
    path = write_coco(tmp_path)
    text = f"coco {path} {LAYERS} --output {tmp_path}/out"
    first, second, third = [], [], []
    converted(text, first)
    converted(text, second)
    assert second == [f"{tmp_path}/out is up to date."]
    path.write_text(path.read_text() + "\n")
    converted(text, third)
    assert third == first


def test_unlabelled_pixels_may_be_a_class(tmp_path):
    path = write_coco(tmp_path)
    content = json.loads(path.read_text())
    content["annotations"] = [row for row in content["annotations"] if row["category_id"] in (3, 4)]
    path.write_text(json.dumps(content))
    found, folder = converted(f"coco {path} --layers 'car < person' --unlabelled background --output {tmp_path}/out")
    expected = drawn()
    expected["background"] = [expected.pop("wall")[0] | expected.pop("road")[0]]
    assert_drawn(found, folder, expected)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--things cars", "Did you mean 'car'?"),
        ("--things car --stuff car", "both name car"),
        ("--layers 'car < car'", "twice"),
        ("--things car --unlabelled car", "which is a thing"),
        ("--split 0.5/0.5", "without an image"),
        ("--group 'x(.*)' --split 0.5/0.5", "does not match"),
    ],
)
def test_options_that_do_not_fit_are_one_line(options, says, tmp_path):
    with pytest.raises(ValueError, match=says.replace("?", r"\?")):
        converted(f"coco {write_coco(tmp_path)} {options}")


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


def test_a_folder_of_parts(tmp_path):
    for part in ("train", "valid"):
        write_coco(tmp_path / part)
    parts = convert_description(
        parse_description(f"coco {tmp_path} {LAYERS} --output {tmp_path}/out"), lambda line: None
    )
    assert {part: Path(path).name for part, path in parts.items()} == {
        "train": "panoptic_train.json",
        "val": "panoptic_val.json",
    }
    content = json.loads((tmp_path / "valid" / "_annotations.coco.json").read_text())
    content["categories"][1]["name"] = "street"
    (tmp_path / "valid" / "_annotations.coco.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="categories of train and valid differ"):
        converted(f"coco {tmp_path} {LAYERS} --output {tmp_path}/out")


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
