"""Damaged results give one message that names the file and what to do, never a traceback or a report that misleads."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from made_results import MadeResults
from PIL import Image

from panoptic_fpn_ext.command import MISTAKE, describe_error
from panoptic_fpn_ext.report.__main__ import main

Damage = Callable[[Path], Any]
BOTH = ("gt", "pred")


def _json(change: Callable[[Any], Any]) -> Damage:
    def damage(path: Path) -> None:
        content = json.loads(path.read_text())
        path.write_text(json.dumps(change(content) or content))

    return damage


def _bytes(change: Callable[[bytes], bytes]) -> Damage:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def _key(key: str, value: Any) -> Damage:
    return _json(lambda c: c.update({key: value}))


def _first(key: str, value: Any) -> Damage:
    """A field of the first annotation."""
    return _json(lambda c: c["annotations"][0].update({key: value}))


def _segment(key: str, value: Any) -> Damage:
    """A field of the first segment of the first annotation."""
    return _json(lambda c: c["annotations"][0]["segments_info"][0].update({key: value}))


def _more_segments(make: Callable[[list[Any]], Any]) -> Damage:
    def change(content: Any) -> None:
        segments = content["annotations"][0]["segments_info"]
        segments.append(make(segments))

    return _json(change)


def _category(key: str, value: Any) -> Damage:
    return _json(lambda c: c["categories"][0].update({key: value}))


def _exchange(rows: list[dict[str, Any]], key: str) -> None:
    rows[0][key], rows[1][key] = rows[1][key], rows[0][key]


JSONS: dict[str, tuple[Damage, tuple[str, ...], str]] = {
    "cut off": (_bytes(lambda b: b[: len(b) // 2]), BOTH, "is not valid JSON.*Is it complete"),
    "empty": (_bytes(lambda _: b""), BOTH, "is not valid JSON.*Is it complete"),
    "HTML": (_bytes(lambda _: b"<html>404</html>"), BOTH, "is not valid JSON"),
    "another encoding": (_bytes(lambda b: b.decode().encode("utf-16")), BOTH, "not in UTF-8.*Save it"),
    "nested without end": (_bytes(lambda _: b"[" * 100_000), BOTH, "is not valid JSON"),
    "a list": (_bytes(lambda _: b"[]"), BOTH,
               r"lacks .*'annotations'.*; it must be an object with these lists, got \[\]"),
    "gone": (Path.unlink, BOTH, "does not exist"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), BOTH, "does not exist"),
    "no annotations": (_json(lambda c: c.pop("annotations") and None), BOTH, "it lacks .'annotations'"),
    "empty annotations": (_key("annotations", []), BOTH, "no annotations|has no image of .*the same image ids"),
    "annotations as a dict": (_key("annotations", {"1": {}}), BOTH, "must be lists"),
    "annotations of null": (_key("annotations", [None]), BOTH, "must be an object with image_id"),
    "an image twice": (_json(lambda c: c["annotations"].append(c["annotations"][0])), BOTH,
                       "more than once.*[kK]eep one"),
    "an image missing": (_json(lambda c: c["annotations"].pop() and None), ("pred",),
                         "no prediction for it in .*predictions.json"),
    "other images": (_json(lambda c: [a.update(image_id=a["image_id"] + 99) for a in c["annotations"]] and c), BOTH,
                     "has no image of .*the same image ids"),
    "no file name": (_json(lambda c: c["annotations"][0].pop("file_name") and None), BOTH,
                     "lacks 'file_name'; it must be"),
    "a number as file name": (_first("file_name", 3), BOTH, "file_name must be the name of a file, got 3"),
    "a file elsewhere": (_first("file_name", "../no.png"), BOTH, "does not exist. Put it there, or name another"),
    "no list of segments": (_first("segments_info", None), BOTH, "segments_info must be a list, got null"),
    "no segment listed": (_first("segments_info", []), ("pred",), "not in segments_info; list them there"),
    "a segment too many": (_more_segments(lambda _: {"id": 777, "category_id": 1}),
                           ("pred",), "have no pixel; take them out"),
    "a segment twice": (_more_segments(lambda s: s[0]),
                        BOTH, "occur more than once in segments_info. Each segment needs an id of its own"),
    "an id as text": (_segment("id", "one"), BOTH, "id must be a whole number from 1 to 16777215"),
    "an id too large": (_segment("id", 2**24), BOTH, "id must be a whole number from 1 to 16777215"),
    "void as a segment": (_segment("id", 0), BOTH, "0 stands for unlabelled pixels"),
    "a foreign category": (_segment("category_id", 55), BOTH,
                           r"unknown category: 55, .*\[1, 2, 7, 9\]. Give it one of"),
    "a category as text": (_segment("category_id", "car"), BOTH, "category_id must be a whole number, 0 or more"),
    "exchanged categories": (_json(lambda c: _exchange(c["categories"], "id")), BOTH,
                             "differ:(?s:.*)give the predictions"),
    "other names": (_category("name", "bus"), BOTH, 'differ:(?s:.*)take "categories" out of their JSON'),
    "stuff for things": (_category("isthing", 0), BOTH,
                         "differ:(?s:.*)give the predictions the ids of the ground truth"),
    "a category twice": (_category("id", 2), BOTH, "duplicates.*Each category needs an id of its own"),
    "no categories": (_key("categories", []), ("gt",), "Category ids must be unique, got no category"),
    "a colour by name": (_category("color", "red"), BOTH, "color must be an RGB color"),
    "an image id of null": (_first("image_id", None), BOTH, "image_id must be a whole number"),
    "a score as text": (_segment("score", "high"), ("pred",), "the score of segment 11 must be a number, got 'high'"),
    "an infinite score": (_segment("score", float("inf")), ("pred",),
                          "the score of segment 11 must be a number, got inf"),
    "a wrong area": (_segment("area", 3), ("gt",), "its mask has [0-9]+.*correct the JSON"),
    "a negative area": (_segment("area", -3), ("gt",), "area must be a number of pixels, 0 or more, got -3"),
    "a crowd of two": (_segment("iscrowd", 2), ("gt",), "iscrowd must be 0 or 1"),
}  # fmt: skip

PNGS: dict[str, tuple[Damage, str]] = {
    "gone": (Path.unlink, "does not exist. Put it there, or name another folder"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "does not exist"),
    "empty": (_bytes(lambda _: b""), "broken or no PNG. Write it again"),
    "cut off": (_bytes(lambda b: b[: len(b) // 2]), "the file is broken .*Write it again"),
    "its head only": (_bytes(lambda b: b[:20]), "a broken header"),
    "text": (_bytes(lambda _: b"version https://git-lfs.github.com/spec/v1\n"), "broken or no PNG"),
    "a JPEG": (lambda path: Image.open(path).save(path, format="JPEG"), "broken or no PNG"),
    "grey": (lambda path: Image.open(path).convert("L").save(path), "must be 8-bit RGB, got 8-bit gray: save it"),
    "a palette": (lambda path: Image.open(path).convert("P").save(path), "must be 8-bit RGB, got 8-bit palette"),
    "with alpha": (lambda path: Image.open(path).convert("RGBA").save(path), "must be 8-bit RGB, got 8-bit RGB with"),
    "16 bits": (lambda path: cv2.imwrite(str(path), np.zeros((48, 64, 3), np.uint16)), "must be 8-bit RGB, got 16-bit"),
    "smaller": (lambda path: Image.open(path).crop((0, 0, 20, 30)).save(path),
                r"\(30, 20\).*give .*1.png the image's size"),
    "turned": (lambda path: Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path),
               "give .*1.png the image's"),
    "huge": (_bytes(lambda b: b[:16] + (90_000).to_bytes(4, "big") * 2 + b[24:]), "says that it has 90000×90000 px"),
    "black": (lambda path: Image.new("RGB", (64, 48)).save(path),
              "none of the segments listed|have no pixel; take them"),
    "BGR": (lambda path: Image.merge("RGB", Image.open(path).split()[::-1]).save(path), "saved as BGR|list them there"),
}  # fmt: skip

NOTED: dict[str, tuple[Damage, str]] = {
    "gt.json": (_json(lambda c: c["annotations"].pop() and None),
                "has 1 images that .*gt.json lacks; they are left out: 3"),
    "gt.json, a segment less": (_json(lambda c: c["annotations"][0]["segments_info"].pop(0) and None),
                                "1.png does not agree with its segments in .*gt.json"),
    "gt/1.png": (lambda path: shutil.copy(path.with_name("2.png"), path), "areas in the ground truth's JSON of"),
    "a/predictions.json": (_segment("score", 300), "Scores are from .* to 300, not in .0, 1."),
}  # fmt: skip

NAMED_BY_PNG = ("no segment listed", "a segment too many", "a score as text", "an infinite score", "a wrong area")
CASES = [(side, name) for name, (_, sides, _) in JSONS.items() for side in sides]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> MadeResults:
    return MadeResults(tmp_path_factory.mktemp("sound"), num=3)


def _copy(sound: MadeResults, folder: Path) -> MadeResults:
    shutil.copytree(sound.root, folder, dirs_exist_ok=True)
    copied = MadeResults.__new__(MadeResults)
    copied.root, copied.gt, copied.images = folder, folder / "gt.json", folder / "images"
    copied.predictions = [folder / "a" / "predictions.json"]
    return copied


def _refused(made: MadeResults, path: Path) -> str:
    with pytest.raises((ValueError, OSError)) as caught:
        main(made.command())
    text, status = describe_error(caught.value)
    assert (status, path.name in text) == (MISTAKE, True), text
    assert "Traceback" not in text
    assert not (made.root / "report.html").exists()
    return text


def test_there_are_many_of_them():
    assert len(CASES) + 2 * len(PNGS) + len(NOTED) >= 60


@pytest.mark.parametrize("side, name", CASES)
def test_json(sound: MadeResults, tmp_path: Path, side: str, name: str):
    made = _copy(sound, tmp_path)
    path = made.gt if side == "gt" else made.predictions[0]
    damage, _, message = JSONS[name]
    damage(path)
    expected = made.root / "no.png" if name == "a file elsewhere" else path
    if name in NAMED_BY_PNG:
        expected = tmp_path / "1.png"
    assert re.search(message, _refused(made, expected))


@pytest.mark.parametrize("side", BOTH)
@pytest.mark.parametrize("name", PNGS)
def test_png(sound: MadeResults, tmp_path: Path, side: str, name: str):
    made = _copy(sound, tmp_path)
    path = (made.root / "gt" if side == "gt" else made.predictions[0].with_suffix("")) / "1.png"
    damage, message = PNGS[name]
    damage(path)
    assert re.search(message, _refused(made, path))


@pytest.mark.parametrize("name", NOTED)
def test_what_can_be_reported_all_the_same_is_noted_on_the_page(sound: MadeResults, tmp_path: Path, name: str):
    made = _copy(sound, tmp_path)
    damage, message = NOTED[name]
    damage(made.root / name.split(",")[0])
    main(made.command())
    html = (made.root / "report.html").read_text().replace("&#39;", "'")
    assert re.search(message, html)


def test_a_byte_order_mark_and_missing_extras_do_no_harm(sound: MadeResults, tmp_path: Path):
    made = _copy(sound, tmp_path)
    main(made.command())
    expected = json.loads((made.root / "report.json").read_text())
    for path in (made.gt, made.predictions[0]):
        content = json.loads(path.read_text())
        del content["images"]
        path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())
    main(made.command())
    assert json.loads((made.root / "report.json").read_text())["models"] == expected["models"]
