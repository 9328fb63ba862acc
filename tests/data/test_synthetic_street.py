"""The embedded dataset on disk: exact COCO panoptic format, safe to make, never overwritten."""

import hashlib
import json
import logging
import multiprocessing
import os

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from panoptic_fpn_ext.data import synthetic_street
from panoptic_fpn_ext.data.street.categories import THINGS, categories
from panoptic_fpn_ext.data.street.scene import draw_street
from panoptic_fpn_ext.data.synthetic_street import SPLITS, StreetSettings, make_synthetic_street
from panoptic_fpn_ext.panoptic_png import read_panoptic_png

SMALL = StreetSettings(num_train=4, num_val=2, height=64, width=96, seed=5)
# sha256 of panoptic_val.json with these settings. If it changes, GENERATOR_VERSION must change too.
JSON_DIGEST = "36c0740e6782bc63e82e373f9107e62dc9444740434562609c8e4443f07399e3"


@pytest.fixture(scope="module")
def small_root(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("data") / "street")
    make_synthetic_street(root, SMALL)
    return root


def _annotations(root, split):
    with open(os.path.join(root, "annotations", f"panoptic_{split}.json")) as f:
        return json.load(f)


def test_files_are_coco_panoptic(small_root):
    for split, count in (("train", SMALL.num_train), ("val", SMALL.num_val)):
        content = _annotations(small_root, split)
        assert set(content) == {"info", "licenses", "images", "annotations", "categories"}
        assert content["categories"] == categories()
        assert [i["id"] for i in content["images"]] == [a["image_id"] for a in content["annotations"]]
        assert len(content["images"]) == count
        for image, annotation in zip(content["images"], content["annotations"], strict=True):
            pixels = cv2.imread(os.path.join(small_root, split, image["file_name"]))
            ids = read_panoptic_png(os.path.join(small_root, f"panoptic_{split}", annotation["file_name"]))
            assert pixels.shape == (image["height"], image["width"], 3)
            assert ids.shape == pixels.shape[:2]
            assert set(np.unique(ids)) - {0} == {s["id"] for s in annotation["segments_info"]}


def test_json_is_the_one_recorded(small_root):
    with open(os.path.join(small_root, "annotations", "panoptic_val.json"), "rb") as f:
        assert hashlib.sha256(f.read()).hexdigest() == JSON_DIGEST


def test_files_hold_the_drawn_images(small_root):
    drawn = draw_street(SMALL.seed, 1, 1, SMALL.height, SMALL.width)
    annotation = _annotations(small_root, "val")["annotations"][1]
    image = cv2.imread(os.path.join(small_root, "val", annotation["file_name"]))[..., ::-1]
    assert np.array_equal(image, drawn.image)
    assert annotation["segments_info"] == drawn.segments


def test_an_image_does_not_depend_on_how_many_there_are(small_root, tmp_path):
    fewer = StreetSettings(**{**SMALL.__dict__, "num_train": 2})
    make_synthetic_street(str(tmp_path / "fewer"), fewer)
    some = _annotations(str(tmp_path / "fewer"), "train")["annotations"]
    assert some == _annotations(small_root, "train")["annotations"][:2]


def test_an_existing_dataset_is_left_alone(small_root):
    before = os.stat(os.path.join(small_root, "info.json")).st_mtime_ns
    make_synthetic_street(small_root, SMALL)
    assert os.stat(os.path.join(small_root, "info.json")).st_mtime_ns == before


@pytest.mark.parametrize("key", ["seed", "num_val", "width"])
def test_other_settings_are_refused(small_root, key):
    other = StreetSettings(**{**SMALL.__dict__, key: getattr(SMALL, key) + 1})
    with pytest.raises(ValueError, match="Delete that folder") as error:
        make_synthetic_street(small_root, other)
    assert small_root in str(error.value)


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"no info\.json"):
        make_synthetic_street(str(tmp_path), SMALL)
    assert (tmp_path / "thesis.tex").exists()


def test_a_broken_info_file_is_refused(tmp_path):
    (tmp_path / "info.json").write_text('{"seed": ')
    with pytest.raises(ValueError, match="Delete that folder"):
        make_synthetic_street(str(tmp_path), SMALL)


def test_an_interruption_leaves_nothing_that_looks_complete(tmp_path, monkeypatch):
    root = str(tmp_path / "street")

    def interrupted(*arguments):
        if arguments[2] == 2:
            raise KeyboardInterrupt
        return draw_street(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(synthetic_street, "draw_street", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_synthetic_street(root, SMALL)
    assert not os.path.exists(root)
    make_synthetic_street(root, SMALL)
    assert len(_annotations(root, "train")["images"]) == SMALL.num_train
    assert not os.path.exists(f"{root}.part")


def test_without_a_terminal_lines_say_how_far_it_is(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(synthetic_street, "_SAID_EVERY", 2)
    make_synthetic_street(str(tmp_path / "street"), StreetSettings(num_train=5, num_val=1, height=64, width=64))
    assert caplog.messages == [
        f"Drawn: {done} images of {part}"
        for done, part in (("2 of 5", "train"), ("4 of 5", "train"), ("5 of 5", "train"), ("1 of 1", "val"))
    ]


def test_an_empty_folder_is_filled(tmp_path):
    make_synthetic_street(str(tmp_path), SMALL)
    assert (tmp_path / "info.json").exists()


def _make_and_count(root, queue):
    drawn = []
    original = synthetic_street._draw_and_rename
    synthetic_street._draw_and_rename = lambda *a: (drawn.append(1), original(*a))
    make_synthetic_street(root, SMALL)
    queue.put(len(drawn))


def test_of_several_processes_one_draws(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_make_and_count, args=(str(tmp_path / "s"), queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert sorted(queue.get(timeout=60) for _ in workers) == [0, 0, 1]
    for worker in workers:
        worker.join()


@pytest.fixture
def free_names():
    """Take the names out of detectron2's catalogs, and put back what other tests registered."""
    names = [f"synthetic_street_{split}" for split in SPLITS]
    kept = [(c, n, c.pop(n)) for c in (DatasetCatalog, MetadataCatalog) for n in names if n in c]
    yield names
    for catalog in (DatasetCatalog, MetadataCatalog):
        for name in names:
            catalog.pop(name, None)
    for catalog, name, entry in kept:
        catalog[name] = entry


def test_registration_draws_and_registers_both_splits(tmp_path, monkeypatch, free_names):
    monkeypatch.setattr(synthetic_street, "make_synthetic_street", lambda root: make_synthetic_street(root, SMALL))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    synthetic_street.register_synthetic_street()
    synthetic_street.register_synthetic_street()
    assert [len(DatasetCatalog.get(name)) for name in free_names] == [SMALL.num_train, SMALL.num_val]
    assert len(MetadataCatalog.get(free_names[1]).thing_classes) == len(THINGS)
    assert (tmp_path / "synthetic_street" / "info.json").exists()


def test_command_line_draws_and_says_where(tmp_path, capsys):
    root = str(tmp_path / "street")
    sizes = ["--num-train", "1", "--num-val", "1", "--height", "64", "--width", "64"]
    synthetic_street.main(["--root", root, *sizes])
    assert root in capsys.readouterr().out
    with pytest.raises(ValueError, match="Delete that folder"):
        synthetic_street.main(["--root", root, *sizes, "--seed", "9"])
