"""``--register``, and ``--data``: from an export of a tool to a trained and evaluated model in one command."""

import argparse
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import REPOSITORY

from panoptic_fpn_ext.engine.data_descriptions import add_register_argument, registrations_of


def _labelme(folder: Path, count: int) -> Path:
    """Images with a road and two cars, as labelme saves them."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(folder / f"{number}.jpg")
        boxes = [("road", 0, 32, 96, 64), ("car", 8, 20, 40, 50), ("car", 50, 20, 80, 50)]
        shapes = [
            {"label": label, "points": [[x0, y0], [x1, y1]], "shape_type": "rectangle"}
            for label, x0, y0, x1, y1 in boxes
        ]
        content = {"shapes": shapes, "imagePath": f"{number}.jpg", "imageHeight": 64, "imageWidth": 96}
        (folder / f"{number}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def register_parser():
    parser = argparse.ArgumentParser()
    add_register_argument(parser)
    parser.add_argument("opts", nargs=argparse.REMAINDER)
    return parser


@pytest.mark.parametrize("option", ["SOLVER.MAX_ITER", "MODEL.ROI_HEADS.NUM_CLASSES", "train.max_iter=30"])
@pytest.mark.parametrize("given", [1, 2, 3])
def test_a_registration_that_swallows_options_is_refused(register_parser, option, given, capsys):
    words = ["mine", "images", "pngs"][:given]
    with pytest.raises(SystemExit):
        register_parser.parse_args(["--register", *words, option, "3", "SOLVER.SEED", "4"][:6])
    said = capsys.readouterr().err
    assert "expected NAME IMAGE_ROOT PANOPTIC_ROOT PANOPTIC_JSON" in said and f"{option} is a config option" in said


def test_registrations_are_collected(register_parser):
    two = [["a.b", "IMG.x/train", "~/x=1", "A.JSON"], ["mine", "C.D.E/f", "$DATA/pngs", "./MODEL.json"]]
    args = register_parser.parse_args(["--register", *two[0], "--register", *two[1], "KEY", "3"])
    assert args.register == two and args.opts == ["KEY", "3"]
    assert register_parser.parse_args([]).register == []


def test_parts_are_registered_by_name(tmp_path):
    text = f"labelme {_labelme(tmp_path / 'a', 6)} --stuff road --split 0.5/0.3/0.2 --processes 1"
    found = registrations_of([text])
    assert [row[0] for row in found] == ["user_train", "user_val", "user_test"]
    assert all(Path(path).exists() for row in found for path in row[1:])
    assert registrations_of([text]) == found


def test_two_descriptions_are_training_and_validation(tmp_path):
    texts = [f"labelme {_labelme(tmp_path / name, 2)} --stuff road --processes 1" for name in ("a", "b")]
    found = registrations_of(texts)
    assert [row[0] for row in found] == ["user_train", "user_val"]
    with pytest.raises(ValueError, match="two datasets would be user_train"):
        registrations_of([f"{texts[0]} --split 0.5/0.5"] * 2)


def test_two_files_of_one_folder_are_training_and_validation(tmp_path):
    """As COCO has them: each has a result of its own."""
    texts = []
    for number, part in enumerate(["instances_train", "instances_val"], start=1):
        Image.new("RGB", (32, 24)).save(tmp_path / f"{number}.jpg")
        content = {
            "images": [{"id": number, "file_name": f"{number}.jpg", "height": 24, "width": 32}],
            "categories": [{"id": 1, "name": "car"}],
            "annotations": [{"id": 1, "image_id": number, "category_id": 1, "bbox": [2, 2, 9, 9], "iscrowd": 0}],
        }
        content["annotations"][0]["segmentation"] = [[2, 2, 11, 2, 11, 11, 2, 11]]
        (tmp_path / f"{part}.json").write_text(json.dumps(content))
        texts.append(f"coco {tmp_path / part}.json --images {tmp_path} --things car --processes 1")
    found = registrations_of(texts)
    images = [[image["file_name"] for image in json.loads(Path(row[-1]).read_text())["images"]] for row in found]
    assert images == [["1.jpg"], ["2.jpg"]]
    with pytest.raises(ValueError, match=r"user_train and user_val would both be .*--output for each"):
        registrations_of(texts[:1] * 2)


def test_a_few_lines_for_people(tmp_path, caplog):
    """Once each, with what was dropped; the table of categories is for the log."""
    folders = [_labelme(tmp_path / name, count) for name, count in (("a", 2), ("b", 3))]
    (folders[1] / "1.jpg").unlink()
    caplog.set_level(logging.DEBUG)
    registrations_of([f"labelme {folder} --stuff road --processes 1" for folder in folders])
    lines = [line for r in caplog.records if r.levelno >= logging.INFO for line in r.getMessage().splitlines()]
    assert [line[:9] for line in lines[-3:]] == ["2 images,", "2 images,", "Dropped: "]
    assert len(lines) == len(set(lines)) + 1 <= 7 and "Things: car." in lines
    assert sum("of all pixels" in record.getMessage() for record in caplog.records) == 2


@pytest.mark.parametrize("text", ["", "nothing x", "labelme", "labelme 'x", "coco x --split 2"])
def test_what_describes_nothing(text):
    with pytest.raises(ValueError, match="describes no dataset"):
        registrations_of([text])


@pytest.mark.slow
def test_one_command_from_labelme_to_pq(tmp_path):
    data = f"labelme {_labelme(tmp_path / 'a', 6)} --stuff road --split 0.7/0.3"
    config = REPOSITORY / "configs" / "User-PanopticSegmentation" / "panoptic_fpn_R_18_narrow.yaml"
    command = [sys.executable, str(REPOSITORY / "projects" / "panoptic_fpn" / "train_net.py")]
    command += ["--config-file", str(config), "--data", data, "OUTPUT_DIR", str(tmp_path / "out")]
    command += ["SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Things: car." in done.stdout and "PQ" in done.stdout
    assert (tmp_path / "out" / "model_final.pth").is_file()
