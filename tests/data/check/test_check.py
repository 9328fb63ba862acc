"""Each kind of fault, planted into a sound dataset, is found, counted and, where it can be, mended."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from panoptic_fpn_ext.data.check import KINDS, check_dataset
from panoptic_fpn_ext.data.check.__main__ import main
from panoptic_fpn_ext.panoptic_png import id2rgb, write_panoptic_png

SIZE = (32, 48)
CAR, SKY = 300, 7


def write(folder: Path, content: dict[str, Any], ids: list[np.ndarray], seed: int = 0) -> None:
    for name in ("images", "pngs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number, panoptic in enumerate(ids, start=1):
        pixels = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        pixels.resize(SIZE[::-1], Image.Resampling.BICUBIC).save(folder / "images" / f"{number}.png")
        Image.fromarray(id2rgb(panoptic)).save(folder / "pngs" / f"{number}.png")
    (folder / "panoptic.json").write_text(json.dumps(content), encoding="utf-8")


def sound() -> tuple[dict[str, Any], list[np.ndarray]]:
    """Two images, each with a sky and a car."""
    ids = np.zeros(SIZE, np.int32)
    ids[:16] = SKY
    ids[20:28, 10:30] = CAR
    segments = [
        {"id": SKY, "category_id": 2, "iscrowd": 0, "area": 16 * 48, "bbox": [0, 0, 48, 16]},
        {"id": CAR, "category_id": 1, "iscrowd": 0, "area": 160, "bbox": [10, 20, 20, 8]},
    ]
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 32, "width": 48} for i in (1, 2)],
        "annotations": [
            {"image_id": i, "file_name": f"{i}.png", "segments_info": [dict(s) for s in segments]} for i in (1, 2)
        ],
        "categories": [{"id": 1, "name": "car", "isthing": 1}, {"id": 2, "name": "sky", "isthing": 0}],
    }
    return content, [ids, ids.copy()]


def check(folder: Path, content: dict[str, Any] | None = None, ids: list[np.ndarray] | None = None) -> Any:
    whole, maps = sound()
    write(folder, content or whole, ids or maps)
    return run(folder)


def run(folder: Path, json_name: str = "panoptic.json") -> Any:
    paths = (str(folder / name) for name in (json_name, "pngs", "images"))
    return check_dataset(*paths, processes=1, show_progress=False)


def test_a_sound_dataset(tmp_path):
    result = check(tmp_path)
    assert not result.findings.counts and result.findings.text() == "Nothing is wrong."
    assert (result.images, result.pixels, result.void) == (2, 2 * 32 * 48, 2 * (16 * 48 - 160))
    assert result.segments == {1: 2, 2: 2} and result.areas == {1: 320, 2: 2 * 16 * 48}
    assert result.things == {1: 2} and result.sizes == {SIZE: 2}


def first_segment(content: dict[str, Any]) -> dict[str, Any]:
    return content["annotations"][0]["segments_info"][0]


CHANGES: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("category", lambda c: c["categories"][0].pop("isthing")),
    ("category", lambda c: c["categories"][0].update(id=2)),
    ("same name", lambda c: c["categories"][0].update(name="sky")),
    ("no things", lambda c: c["categories"][0].update(isthing=0)),
    ("no stuff", lambda c: c["categories"][1].update(isthing=1)),
    ("unused category", lambda c: c["categories"].append({"id": 9, "name": "tree", "isthing": 0})),
    ("image row", lambda c: c["images"][0].update(height="tall")),
    ("image twice", lambda c: c["images"].append(dict(c["images"][0]))),
    ("image missing", lambda c: c["images"][0].update(file_name="gone.png")),
    ("image size", lambda c: c["images"][0].update(width=47)),
    ("png size", lambda c: c["images"][0].update(width=47)),
    ("annotation", lambda c: c["annotations"][0].pop("file_name")),
    ("annotation twice", lambda c: c["annotations"].append(dict(c["annotations"][0]))),
    ("no such image", lambda c: c["annotations"][0].update(image_id=77)),
    ("not annotated", lambda c: c["annotations"].pop()),
    ("png missing", lambda c: c["annotations"][0].update(file_name="gone.png")),
    ("segment", lambda c: first_segment(c).update(id=0)),
    ("segment", lambda c: first_segment(c).update(iscrowd=[])),
    ("segment twice", lambda c: c["annotations"][0]["segments_info"].append(dict(first_segment(c)))),
    ("unknown category", lambda c: first_segment(c).update(category_id=5)),
    ("id not listed", lambda c: c["annotations"][0]["segments_info"].pop()),
    ("no pixel", lambda c: c["annotations"][0]["segments_info"].append({"id": 5, "category_id": 1})),
    ("area", lambda c: first_segment(c).update(area=5)),
    ("box", lambda c: first_segment(c).update(bbox=[0, 0, 1, 1])),
    ("stuff crowd", lambda c: first_segment(c).update(iscrowd=1)),
    ("written otherwise", lambda c: first_segment(c).update(id=str(SKY), iscrowd=None)),
    ("written otherwise", lambda c: c["categories"][0].update(isthing="true")),
]


@pytest.mark.parametrize(("kind", "change"), CHANGES)
def test_what_is_wrong_in_the_json_is_found_and_mended(kind, change, tmp_path):
    content, _ = sound()
    change(content)
    result = check(tmp_path, content)
    assert result.findings.counts[kind] >= 1, result.findings.text()
    assert bool(result.findings.errors) == any(KINDS[k].is_error for k in result.findings.counts)
    if KINDS[kind].fixable:
        (tmp_path / "fixed.json").write_text(json.dumps(result.fixed))
        assert not run(tmp_path, "fixed.json").findings.counts


def test_stuff_in_several_segments(tmp_path):
    content, ids = sound()
    content["annotations"][0]["segments_info"].append({"id": 9, "category_id": 2})
    ids[0][30:] = 9
    assert check(tmp_path, content, ids).findings.counts == {"stuff twice": 1}


def test_exchanged_red_and_blue_are_named_as_such(tmp_path):
    content, ids = sound()
    write(tmp_path, content, ids)
    png = tmp_path / "pngs" / "1.png"
    Image.fromarray(np.ascontiguousarray(np.asarray(Image.open(png))[..., ::-1])).save(png)
    assert run(tmp_path).findings.counts == {"bgr": 1}


@pytest.mark.parametrize(
    ("kind", "file", "data"),
    [
        ("image broken", "images/1.png", b"no image"),
        ("image broken", "images/1.png", b""),
        ("png broken", "pngs/1.png", b"\x89PNG\r\n\x1a\n"),
    ],
)
def test_broken_files(kind, file, data, tmp_path):
    content, ids = sound()
    write(tmp_path, content, ids)
    (tmp_path / file).write_bytes(data)
    assert run(tmp_path).findings.counts == {kind: 1}


def test_images_are_read_as_training_reads_them(tmp_path):
    """Turned as EXIF data say, in any container; what training refuses is a finding."""
    content, ids = sound()
    write(tmp_path, content, ids)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "images" / "1.png"
    lying = Image.open(path).transpose(Image.Transpose.ROTATE_90)
    for image_format in ("PNG", "JPEG", "WEBP", "TIFF"):
        lying.save(path, image_format, exif=exif)
        assert not run(tmp_path).findings.counts, image_format
    Image.fromarray(np.zeros((32, 48), np.float32)).save(path, "TIFF")
    findings = run(tmp_path).findings
    assert findings.counts == {"image broken": 1}
    assert "has mode F, 32-bit floats" in findings.text()


def test_void_tiny_and_copies(tmp_path):
    content, ids = sound()
    ids[0][...] = 0
    ids[0][0, :5] = CAR
    content["annotations"][0]["segments_info"] = [{"id": CAR, "category_id": 1}]
    ids[1][...] = 0
    content["annotations"][1]["segments_info"] = []
    write(tmp_path, content, ids)
    Image.open(tmp_path / "images" / "1.png").resize((96, 64)).resize((48, 32)).save(tmp_path / "images" / "2.png")
    counts = run(tmp_path).findings.counts
    assert counts == {"tiny": 1, "all void": 1, "copies": 1, "unused category": 1}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": 3}', "null", "\ufeff{", "[" * 100_000])
def test_files_that_are_no_panoptic_json(text, tmp_path):
    (tmp_path / "panoptic.json").write_text(text, encoding="utf-8")
    assert run(tmp_path).findings.counts == {"json": 1}


@pytest.mark.parametrize("value", [None, 3, "x", [], [[]], {}, {"id": {}}, True, 1.5, float("nan"), -1, 2**80])
def test_any_value_in_any_place_is_a_finding_and_no_traceback(value, tmp_path):
    places = [(key, None) for key in ("images", "annotations", "categories")]
    places += [(key, field) for key, rows in sound()[0].items() for field in rows[0]]
    for key, field in places:
        content, ids = sound()
        if field is None:
            content[key][0] = value
        else:
            content[key][0][field] = value
        write(tmp_path, content, ids)
        run(tmp_path).findings.text()


@pytest.mark.parametrize("missing", ["panoptic.json", "pngs", "images"])
def test_what_is_not_there_is_named(missing, tmp_path):
    write(tmp_path, *sound())
    (tmp_path / missing).rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path / missing}.* does not exist"):
        main([str(tmp_path / name) for name in ("panoptic.json", "pngs", "images")])


def test_command_line(tmp_path, capsys):
    content, ids = sound()
    first_segment(content)["area"] = 5
    write(tmp_path, content, ids)
    paths = [str(tmp_path / name) for name in ("panoptic.json", "pngs", "images")]
    options = ["--fix", str(tmp_path / "fixed.json"), "--result", str(tmp_path / "result.json"), "--processes", "1"]
    assert main([*paths, *options]) == 1
    assert "panopticapi trusts them" in capsys.readouterr().out
    assert json.loads((tmp_path / "result.json").read_text())["findings"]["area"]["count"] == 1
    write(tmp_path / "val", *sound())
    other = [str(tmp_path / "val" / name) for name in ("panoptic.json", "pngs", "images")]
    assert main([str(tmp_path / "fixed.json"), *paths[1:], "--processes", "1", "--against", *other]) == 0
    assert "Images that look the same: 2." in capsys.readouterr().out
    for image in (tmp_path / "val" / "images").iterdir():
        Image.effect_noise((48, 32), 80).convert("RGB").save(image)
    main([str(tmp_path / "fixed.json"), *paths[1:], "--processes", "1", "--against", *other])
    assert f"No image of {tmp_path / 'fixed.json'} looks like one of {other[0]}." in capsys.readouterr().out


def test_an_image_that_both_parts_list_is_a_copy(tmp_path, capsys):
    """The plainest leak: the same path, as where both parts share a folder of images."""
    write(tmp_path, *sound())
    paths = [str(tmp_path / name) for name in ("panoptic.json", "pngs", "images")]
    assert main([*paths, "--processes", "1", "--against", *paths]) == 0
    said = capsys.readouterr().out
    assert "No image of" not in said
    for image in (tmp_path / "images").iterdir():
        assert f"{image} and {image}, in {paths[0]} and {paths[0]}" in said


def test_what_would_be_found_after_all_images_were_read(tmp_path):
    write(tmp_path, *sound())
    paths = [str(tmp_path / name) for name in ("panoptic.json", "pngs", "images")]
    with pytest.raises(ValueError, match="--against compares images"):
        main([*paths[:2], "--against", *paths])
    with pytest.raises(FileNotFoundError, match=r"nope\.json \(--against\) does not exist"):
        main([*paths, "--against", str(tmp_path / "nope.json"), *paths[1:]])
    with pytest.raises(FileNotFoundError, match=r"no folder for .*nowhere.page\.html"):
        main([*paths, "--html", str(tmp_path / "nowhere/page.html")])


def test_a_png_of_another_size_mends_nothing(tmp_path):
    content, ids = sound()
    write(tmp_path, content, ids)
    paths = [str(tmp_path / name) for name in ("panoptic.json", "pngs", "images")]
    png = tmp_path / "pngs" / content["annotations"][0]["file_name"]
    with Image.open(png) as image:
        half = image.resize((image.width // 2, image.height // 2), Image.Resampling.NEAREST)
    half.save(png)
    assert main([*paths, "--fix", str(tmp_path / "fixed.json"), "--processes", "1"]) == 1
    fixed = json.loads((tmp_path / "fixed.json").read_text())
    before = {a["image_id"]: a["segments_info"] for a in content["annotations"]}
    of_png = fixed["annotations"][0]
    for segment, given in zip(of_png["segments_info"], before[of_png["image_id"]], strict=True):
        assert {key: segment[key] for key in given} == given


def test_a_dataset_without_images_is_not_sound(tmp_path, capsys):
    content, ids = sound()
    write(tmp_path, content, ids)
    (tmp_path / "panoptic.json").write_text(json.dumps({**content, "images": [], "annotations": []}))
    assert main([str(tmp_path / name) for name in ("panoptic.json", "pngs", "images")]) == 1
    assert "No image could be checked" in capsys.readouterr().out


def test_maps_without_areas_that_are_of_another_image_are_seen_by_their_boxes(tmp_path):
    boxes = {1: (0, 0, 6, 4), 2: (10, 8, 16, 12), 3: (0, 8, 5, 12)}
    ids = np.zeros((12, 16), np.int32)
    for id_, (x0, y0, x1, y1) in boxes.items():
        ids[y0:y1, x0:x1] = id_
    rows = [{"id": i, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0]} for i, (x0, y0, x1, y1) in boxes.items()]
    corners = [{**row, "bbox": list(boxes[row["id"]])} for row in rows]

    def found(pixels, segments):
        write_panoptic_png(str(tmp_path / "a.png"), pixels)
        content = {
            "images": [{"id": 1, "file_name": "a.jpg", "height": 12, "width": 16}],
            "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
            "categories": [{"id": 1, "name": "car", "isthing": 1}],
        }
        (tmp_path / "a.json").write_text(json.dumps(content))
        checked = check_dataset(str(tmp_path / "a.json"), str(tmp_path), processes=1, show_progress=False)
        return checked.findings.counts["elsewhere"]

    assert not found(ids, rows) and not found(ids, corners)
    assert found(ids[:, ::-1].copy(), rows) and found(ids[::-1].copy(), rows)
    assert not found(ids[:, ::-1].copy(), [{k: v for k, v in row.items() if k != "bbox"} for row in rows])
