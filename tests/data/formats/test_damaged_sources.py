"""Damaged and hostile sources: a sentence that names the file, or a count of what was left out; nothing outside."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from damaged_sources import damage
from source_drawing import segments
from source_writers import SOURCES
from test_tool_layouts import BOXES, CLASSES, H, W, areas, converted, corners, drawn, image, save

from panoptic_fpn_ext.data.convert import convert_description, parse_description
from panoptic_fpn_ext.data.formats.brush import decode_brush
from panoptic_fpn_ext.data.formats.regions import mask_of_polygons, mask_of_row_runs
from panoptic_fpn_ext.panoptic_png import read_panoptic_png


def write_cvat(root: Path, name: str = "a.png", extra: str = "") -> None:
    image(root / "images" / "a.png")
    labels = "".join(f"<label><name>{n}</name></label>" for n in CLASSES)
    shapes = [
        f'<polygon label="{n}" z_order="{i}" points="{";".join(f"{x},{y}" for x, y in corners(b))}"/>'
        for i, (n, b) in enumerate(BOXES)
    ]
    (root / "annotations.xml").write_text(
        f"<annotations><meta><task><labels>{labels}</labels></task></meta>"
        f'<image id="0" name="{name}" width="{W}" height="{H}">{"".join(shapes)}{extra}</image></annotations>'
    )


def write_yolo(root: Path) -> None:
    image(root / "images" / "a.png")
    (root / "data.yaml").write_text(f"train: images\nnames: [{', '.join(CLASSES)}]\n")
    (root / "labels").mkdir()
    rows = [
        f"{CLASSES.index(n)} " + " ".join(str(v) for v in (np.array(corners(b)) / (W, H)).ravel()) for n, b in BOXES
    ]
    (root / "labels" / "a.txt").write_text("\n".join(rows))


def write_mapillary(root: Path) -> None:
    semantic, instance = drawn()
    image(root / "training" / "images" / "a.jpg")
    save(root / "training" / "v2.0" / "instances" / "a.png", semantic.astype(np.uint16) * 256 + instance)
    labels = [{"name": "v", "evaluate": False}, *({"name": n, "instances": n != "road"} for n in CLASSES)]
    (root / "config_v2.0.json").write_text(json.dumps({"labels": labels}))


SEEDS = range(int(os.environ.get("PANOPTIC_FPN_EXT_DAMAGED_SOURCES", "6")))
SAYS = re.compile(r"^(Dropped|Left out|Crowds only|No segment|Things|Stuff)\b.*", re.MULTILINE)

Result = dict[str, tuple[list[tuple[str, bytes]], list[tuple[str, int]]]]


def _convert(description: str) -> tuple[Result, set[str]]:
    """Labels, masks and crowds of each image, and what the report says beside figures."""
    lines: list[str] = []
    found: Result = {}
    for path in convert_description(parse_description(f"{description} --processes 1"), lines.append).values():
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        names = {c["id"]: c["name"] for c in content["categories"]}
        for row in content["annotations"]:
            ids = read_panoptic_png(str(Path(path).with_suffix("") / row["file_name"]))
            rows = [(names[s["category_id"]], (ids == s["id"]).tobytes(), s["iscrowd"]) for s in row["segments_info"]]
            masks = sorted((name, mask) for name, mask, _ in rows)
            found[Path(row["file_name"]).stem[0]] = masks, sorted((name, crowd) for name, _, crowd in rows)
    return found, {match[0] for match in SAYS.finditer("\n".join(lines))}


@pytest.mark.parametrize("name", SOURCES)
def test_damage_is_a_sentence_or_said(name, tmp_path):
    """``PANOPTIC_FPN_EXT_DAMAGED_SOURCES=100`` damages each format as often."""
    write, text = SOURCES[name]
    write(tmp_path / "sound")
    sound, said = _convert(f"{text.format(root=tmp_path / 'sound')} --output {tmp_path}/out")
    if name != "coco-stuff":  # which knows no instances
        assert {image: masks for image, (masks, _) in sound.items()} == {image: segments(image) for image in "ab"}
    assert not any(line.startswith("Dropped") for line in said)
    for seed in SEEDS:
        shutil.rmtree(tmp_path / "damaged", ignore_errors=True)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shutil.copytree(tmp_path / "sound", tmp_path / "damaged")
        done = f"{name}, {seed}: {damage(tmp_path / 'damaged', f'{name} {seed}')}"
        try:
            found, now = _convert(f"{text.format(root=tmp_path / 'damaged')} --output {tmp_path}/out")
        except (ValueError, OSError) as error:
            assert str(tmp_path / "damaged") in str(error) and len(str(error)) > 40, f"{done}\n{error}"
            assert not re.search(r"Error\(", str(error)), f"{done}\n{error}"
            continue
        assert found == sound or now - {line.replace("/sound/", "/damaged/") for line in said}, done


@pytest.mark.parametrize("far", [1e6, 1e9, 1e300])
def test_a_polygon_that_is_far_outside_does_not_fill_the_memory(far):
    with pytest.raises(ValueError, match=r"a coordinate of 1e\+"):
        mask_of_polygons([[0, 0, far, 0, far, far]], (H, W))


def test_masks_that_say_they_are_larger_than_the_image():
    with pytest.raises(ValueError, match=r"a mask of \(height, width\) \(100000, 100000\) in an image"):
        mask_of_row_runs([10**10], 0, 0, (10**5, 10**5), (H, W))
    with pytest.raises(ValueError, match=r"it is of 1073741823 px, the image has 192"):
        decode_brush([255] * 16, (H, W))


def test_entities_of_xml_do_not_grow(tmp_path):
    write_cvat(tmp_path)
    text = (tmp_path / "annotations.xml").read_text()
    entities = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
    bomb = f'<!DOCTYPE annotations [<!ENTITY a0 "{"x" * 1000}">{entities}]>{text.replace("<task>", "<task>&a9;")}'
    (tmp_path / "annotations.xml").write_text(bomb)
    with pytest.raises(ValueError, match="is no sound XML of CVAT"):
        converted(f"cvat {tmp_path}")


def test_aliases_of_yaml_do_not_grow(tmp_path):
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    (tmp_path / "data.yaml").write_text("\n".join(["a0: &a0 x", *levels, "names: *a11", "train: images"]))
    with pytest.raises(ValueError, match=r"data\.yaml is not valid YAML .*alias"):
        converted(f"yolo {tmp_path}")


@pytest.mark.parametrize("format_name", ["coco", "label-studio", "labelme"])
def test_json_that_is_nested_without_end(format_name, tmp_path):
    (tmp_path / "a.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"a\.json"):
        converted(f"{format_name} {tmp_path}{'' if format_name == 'labelme' else '/a.json'}")


@pytest.mark.parametrize("name", ["../../evil.png", "/tmp/evil.png", "..\\..\\evil.png"])
def test_names_do_not_lead_outside(name, tmp_path):
    image(tmp_path / "evil.png")
    write_cvat(tmp_path / "a" / "cvat", name)
    shutil.copy(tmp_path / "evil.png", tmp_path / "a" / "cvat" / "images" / "evil.png")
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    try:
        converted(f"cvat {tmp_path}/a/cvat --output {tmp_path}/a/out --copy")
    except ValueError as error:
        assert "outside the output folder" in str(error)
    assert {p for p in tmp_path.rglob("*") if p.is_file() and tmp_path / "a" / "out" not in p.parents} == before


def test_maps_and_images_that_are_alone(tmp_path):
    write_mapillary(tmp_path)
    maps = tmp_path / "training" / "v2.0" / "instances"
    shutil.copy(maps / "a.png", maps / "b.png")
    lines: list[str] = []
    converted(f"mapillary {tmp_path}", lines)
    assert re.search(r"image left out: 1, such as \S+b\.png: there is no image for it", "\n".join(lines))
    save(maps / "a.png", drawn()[0])  # 8 bits
    with pytest.raises(ValueError, match="it has 8 bits a pixel, where 16 are needed"):
        converted(f"mapillary {tmp_path}")


def test_what_is_missing_beside_yolo(tmp_path):
    write_yolo(tmp_path)
    with (tmp_path / "data.yaml").open("a") as f:
        f.write("test: ../test/images\n")
    shutil.copy(tmp_path / "labels" / "a.txt", tmp_path / "labels" / "b.txt")
    (tmp_path / "labels" / "a.txt").write_text("0 -0.5 0 1 0 1 1 0 1")
    lines: list[str] = []
    converted(f"yolo {tmp_path} --things car", lines)
    text = "\n".join(lines)
    assert "1 label files without an image" in text and "test: there is no image in ../test/images" in text
    assert "part of a polygon that lies outside the image: 1" in text


def test_categories_that_share_an_id(tmp_path):
    image(tmp_path / "a.png")
    categories = [{"id": 1, "name": "car"}, {"id": 1, "name": "bus"}]
    rows = [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 5, 0, 5, 5]]}]
    content = {"images": [{"id": 1, "file_name": "a.png", "height": H, "width": W}], "annotations": rows}
    (tmp_path / "a.json").write_text(json.dumps({**content, "categories": categories}))
    with pytest.raises(ValueError, match=r"a\.json: categories share the ids \[1\]"):
        converted(f"coco {tmp_path}/a.json")


def _write_coco(folder: Path, images: list[tuple[int, str]], rows: list[tuple[int, int]]) -> str:
    """Description of a JSON of ``images`` (id and name) with a square each for ``rows`` (image id and category)."""
    for name in {name for _, name in images}:
        image(folder / name)
    listed = [{"id": id_, "file_name": name, "height": H, "width": W} for id_, name in images]
    annotations = [
        {
            "id": i,
            "image_id": of,
            "category_id": category,
            "segmentation": [np.ravel(corners((2 * i, 0, 2 * i + 2, 2))).tolist()],
        }
        for i, (of, category) in enumerate(rows)
    ]
    categories = [{"id": 1, "name": "car"}, {"id": 2, "name": "bus"}]
    content = {"images": listed, "annotations": annotations, "categories": categories}
    (folder / "a.json").write_text(json.dumps(content))
    return f"coco {folder}/a.json --things car,bus --output {folder}/out"


def test_an_annotation_of_an_unlisted_category_goes_alone(tmp_path):
    text = _write_coco(tmp_path, [(1, "a.png"), (2, "b.png")], [(1, 1), (1, 9), (2, 2), (2, 9), (2, 7)])
    lines: list[str] = []
    assert converted(text, lines) == {"all": [[("car", 4)], [("bus", 4)]]}
    assert re.search(
        r"Dropped: annotation of category 9, which is not in the list .*: 2, such as \S+a\.png", str(lines)
    )
    assert re.search(r"Dropped: annotation of category 7, .*: 1, such as \S+b\.png", str(lines))
    with pytest.raises(ValueError, match=r"No image has a segment.* annotation of category 9"):
        converted(_write_coco(tmp_path, [(1, "a.png")], [(1, 9)]))


@pytest.mark.parametrize(
    ("images", "reason", "remedy"),
    [
        ([(1, "a.png"), (1, "b.png")], r"gives id 1 to several images \(a\.png, b\.png\)", "an id of its own"),
        (
            [(1, "a.png"), (2, "a.png")],
            r"lists image a\.png more than once \(id 1, 2; 1 such",
            "Keep one entry of each",
        ),
        ([(1, "a.png"), (1, "a.png")], r"lists image a\.png more than once \(id 1; 1 such", "Keep one entry of each"),
    ],
)
def test_an_image_that_is_listed_twice_is_refused_by_its_reason(images, reason, remedy, tmp_path):
    with pytest.raises(ValueError, match=rf"a\.json {reason}.*{remedy}"):
        converted(_write_coco(tmp_path, images, [(1, 1)]))


def test_crowds_only_are_said(tmp_path):
    semantic, _ = drawn()
    image(tmp_path / "leftImg8bit" / "train" / "a_leftImg8bit.png")
    save(tmp_path / "gtFine" / "train" / "a_gtFine_instanceIds.png", semantic)
    (tmp_path / "label_colors.txt").write_text("0 0 0 background\n1 1 1 road\n2 2 2 car\n3 3 3 person\n")
    lines: list[str] = []
    converted(f"cityscapes {tmp_path} --things car,person --output {tmp_path}/out", lines)
    assert re.search(r"Crowds only, so .*: car, person\.", "\n".join(lines))


def test_maps_that_change_are_converted_again(tmp_path):
    semantic, instance = drawn()
    image(tmp_path / "images" / "a.jpg")
    save(tmp_path / "sem" / "a.png", semantic)
    save(tmp_path / "ins" / "a.png", instance)
    (tmp_path / "labels.csv").write_text("id,name,isthing\n1,road,0\n2,car,1\n3,person,1\n")
    paths = " ".join(f"{tmp_path}/{name}" for name in ("images", "sem", "ins", "labels.csv"))
    text = f"semantic-instance {paths} --output {tmp_path}/out"
    assert converted(text) == {"all": [areas()]}
    for folder, pixels in (("sem", np.full_like(semantic, 1)), ("ins", np.full((H, W), 7, np.uint16))):
        save(tmp_path / folder / "a.png", pixels)
        lines: list[str] = []
        converted(text, lines)
        assert not any("up to date" in line for line in lines)
