"""Predictions on disk: the call, the command line, and the PNG decoders behind them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from oracles_pq import CATEGORIES, Image, panopticapi_results, random_image, write_coco

from panoptic_fpn_ext import panoptic_png
from panoptic_fpn_ext.evaluation import pq_compute
from panoptic_fpn_ext.evaluation.__main__ import main


@pytest.fixture(scope="module")
def images() -> list[Image]:
    rng = np.random.default_rng(6)
    return [random_image(rng) for _ in range(30)]


@pytest.fixture
def files(images: list[Image], tmp_path: Path) -> tuple[Path, Path]:
    return write_coco(tmp_path, images)


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_pq_compute_as_panopticapi(files: tuple[Path, Path]):
    expected = panopticapi_results(*files)
    assert pq_compute(*files) == expected
    assert pq_compute(*map(str, files), *(str(path.with_suffix("")) for path in files)) == expected


def test_folders_that_are_named(files: tuple[Path, Path], tmp_path: Path):
    expected = pq_compute(*files)
    folders = [path.with_suffix("").rename(tmp_path / f"{path.stem}_elsewhere") for path in files]
    assert pq_compute(*files, *folders) == expected
    with pytest.raises(FileNotFoundError, match="ground truth"):
        pq_compute(*files)
    with pytest.raises(FileNotFoundError, match="predictions"):
        pq_compute(*files, gt_folder=folders[0])


def test_predictions_in_another_order_and_of_other_images(files: tuple[Path, Path]):
    expected = pq_compute(*files)
    annotations = json.loads(files[1].read_text())["annotations"]
    more = {"image_id": "more", "file_name": "nowhere.png", "segments_info": []}
    _edit(files[1], annotations=[more, *annotations[::-1]])
    assert pq_compute(*files) == expected


def test_categories_need_no_name(files: tuple[Path, Path]):
    expected = pq_compute(*files)
    _edit(files[0], categories=[{"id": c["id"], "isthing": c["isthing"]} for c in CATEGORIES])
    assert pq_compute(*files) == expected


def test_predictions_may_list_their_categories(files: tuple[Path, Path]):
    """In any order, fewer or more; but an id must not stand for two things."""
    expected = pq_compute(*files)
    truth = json.loads(files[0].read_text())["categories"]
    for rows in (truth[::-1], truth[1:], [*truth, {"id": 999, "name": "other", "isthing": 0}], [], None):
        _edit(files[1], categories=rows)
        assert pq_compute(*files) == expected
    remedy = 'take "categories" out'
    for change, message in (({"name": "another"}, "is 'another'"), ({"isthing": 1 - truth[0]["isthing"]}, "there")):
        _edit(files[1], categories=[{**truth[0], **change}, *truth[1:]])
        with pytest.raises(ValueError, match=rf"(?s){files[0]} and {files[1]} differ:.*{message}.*{remedy}"):
            pq_compute(*files)


def test_everything_wrong_is_one_error(files: tuple[Path, Path], tmp_path: Path):
    annotations = json.loads(files[1].read_text())["annotations"]
    annotations[1]["segments_info"].append({"id": 555, "category_id": 7})
    annotations[2]["segments_info"].append({"id": 555, "category_id": 6})
    del annotations[3]["file_name"]
    (tmp_path / "pred" / "4.png").unlink()
    cv2.imwrite(str(tmp_path / "pred" / "5.png"), np.zeros((12, 16), np.uint8))
    cv2.imwrite(str(tmp_path / "gt" / "6.png"), np.zeros((12, 16, 3), np.uint16))
    cv2.imwrite(str(tmp_path / "pred" / "7.png"), np.zeros((12, 17, 3), np.uint8))
    _edit(files[1], annotations=[*annotations[1:], annotations[8]])
    with pytest.raises(ValueError, match="found 9 problems:") as caught:
        pq_compute(*files)
    for text in (
        "image 0: no prediction for it",
        "image 1: prediction: ids [555] are in segments_info and have no pixel",
        "pred.json: image 2, prediction: segment 555 has an unknown category: 6, which is not in [3, 7, 21, 200]",
        "pred.json: image 3, prediction lacks 'file_name'",
        "4.png does not exist",
        "5.png must be 8-bit RGB, got 8-bit gray",
        "6.png must be 8-bit RGB, got 16-bit RGB",
        "image 7: the prediction has (12, 17) pixels (H, W), the ground truth (12, 16)",
        "pred.json: image 8, prediction: the JSON has it more than once",
    ):
        assert text in str(caught.value)


def test_predictions_that_are_none(files: tuple[Path, Path]):
    content = json.loads(files[1].read_text())
    content["annotations"][0] = None
    files[1].write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"pred\.json: prediction 0 must be an object with image_id, .*got null"):
        pq_compute(*files)
    files[1].write_text('{"annotations": [')
    with pytest.raises(ValueError, match=r"pred\.json is not valid JSON"):
        pq_compute(*files)


def test_predictions_of_other_images_are_named_and_left_out(files: tuple[Path, Path], caplog: pytest.LogCaptureFixture):
    expected = pq_compute(*files)
    assert "left out" not in caplog.text
    annotations = json.loads(files[1].read_text())["annotations"]
    extra = [{**annotations[0], "image_id": f"other_{number}"} for number in range(7)]
    _edit(files[1], annotations=[*annotations, *extra])
    assert pq_compute(*files) == expected
    (message,) = (said for said in caplog.messages if "left out" in said)
    assert "pred.json has 7 images that" in message and "other_4, …" in message


def test_json_files_of_another_kind(files: tuple[Path, Path]):
    files[0].write_text("[]")
    with pytest.raises(ValueError, match=r"gt\.json is not in COCO panoptic format: it lacks"):
        pq_compute(*files)
    files[0].write_text(json.dumps({"categories": CATEGORIES, "annotations": [{"image_id": 1}]}))
    with pytest.raises(ValueError, match=r"gt\.json: annotation 0 \(image_id 1\) lacks 'file_name'"):
        pq_compute(*files)
    annotation = {"image_id": 1, "file_name": "1.png", "segments_info": None}
    files[0].write_text(json.dumps({"categories": CATEGORIES, "annotations": [annotation]}))
    with pytest.raises(ValueError, match=r"gt\.json: annotation 0 .*segments_info must be a list, got null"):
        pq_compute(*files)
    files[0].write_text(json.dumps({"categories": CATEGORIES[:1] * 2, "annotations": []}))
    with pytest.raises(ValueError, match=r"gt\.json: Category ids must be unique"):
        pq_compute(*files)


def test_predicted_segments_that_are_no_list(files: tuple[Path, Path]):
    content = json.loads(files[1].read_text())
    content["annotations"][0]["segments_info"] = None
    files[1].write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"pred\.json: image 0, prediction: segments_info must be a list, got null"):
        pq_compute(*files)


def test_command_line(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out.json"
    main([*map(str, files), "--json", str(out)])
    printed, expected = capsys.readouterr().out, pq_compute(*files)
    assert f"{100 * expected['All']['pq']:.3f}" in printed and "person" in printed
    assert json.loads(out.read_text())["All"] == expected["All"]
    files[1].unlink()
    with pytest.raises(FileNotFoundError, match="does not exist"):
        main([*map(str, files)])


@pytest.mark.slow
def test_command_line_as_a_process(files: tuple[Path, Path]):
    command = [sys.executable, "-m", "panoptic_fpn_ext.evaluation", *map(str, files)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "#categories" in result.stdout


@pytest.mark.parametrize("decoder", panoptic_png.png_decoders())
class TestDecoders:
    def test_all_decode_the_same(self, decoder: str, tmp_path: Path):
        rgb = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
        path = str(tmp_path / "a.b.png")
        panoptic_png.write_panoptic_png(path, panoptic_png.rgb2id(rgb))
        assert np.array_equal(panoptic_png.read_panoptic_rgb(path, decoder), rgb)
        assert np.array_equal(panoptic_png.read_panoptic_png(path, decoder), panoptic_png.rgb2id(rgb))

    def test_what_is_no_rgb_png_is_an_error(self, decoder: str, tmp_path: Path):
        path = tmp_path / "x.png"
        for image in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.uint16)):
            cv2.imwrite(str(path), image)
            with pytest.raises(ValueError, match="must be 8-bit RGB, got"):
                panoptic_png.read_panoptic_png(str(path), decoder)
        panoptic_png.write_panoptic_png(str(path), np.arange(400).reshape(20, 20))
        data = path.read_bytes()
        for broken in (b"", data[:20], data[: len(data) // 2], b"\xff\xd8" + data):
            path.write_bytes(broken)
            with pytest.raises(ValueError, match=r"cannot be decoded|broken header"):
                panoptic_png.read_panoptic_png(str(path), decoder)
        with pytest.raises(FileNotFoundError):
            panoptic_png.read_panoptic_png(str(tmp_path / "nowhere.png"), decoder)


def test_ids_and_colours_without_opencv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    rgb = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    ids = panoptic_png.rgb2id(rgb)
    assert np.array_equal(ids, rgb.astype(np.int64) @ [1, 256, 65536])
    monkeypatch.setattr(panoptic_png, "cv2_or_none", lambda: None)
    assert np.array_equal(panoptic_png.rgb2id(rgb), ids)
    assert np.array_equal(panoptic_png.rgb2id(rgb[::2, 1::2]), ids[::2, 1::2])
    panoptic_png.write_panoptic_png(str(tmp_path / "a.png"), ids)
    assert np.array_equal(panoptic_png.read_panoptic_png(str(tmp_path / "a.png"), "pillow"), ids)


@pytest.mark.parametrize("with_opencv", [True, False])
def test_a_map_is_written_as_a_whole_or_not_at_all(with_opencv: bool, monkeypatch, tmp_path: Path):
    if not with_opencv:
        monkeypatch.setattr(panoptic_png, "cv2_or_none", lambda: None)
    path = tmp_path / "a.png"
    panoptic_png.write_panoptic_png(str(path), np.full((4, 5), 7))
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        panoptic_png.write_panoptic_png(str(path), np.full((4, 5), 9))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
