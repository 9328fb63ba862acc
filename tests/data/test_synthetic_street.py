"""The embedded data set: the same everywhere, sound COCO panoptic format, varied, not trivial, safe to make."""

import hashlib
import json
import multiprocessing
import os
from collections import Counter

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from panoptic_fpn_ext.data import synthetic_street
from panoptic_fpn_ext.data.street_categories import COLOURS, PERSON, THINGS, categories
from panoptic_fpn_ext.data.street_scene import draw_street
from panoptic_fpn_ext.data.synthetic_street import StreetSettings, make_synthetic_street
from panoptic_fpn_ext.panoptic_png import read_panoptic_png, write_panoptic_png

# sha256 of pixels and segments of (seed, split, index, height, width). They change with GENERATOR_VERSION only.
RECORDED = {
    (0, 0, 0, 160, 256): "",
    (0, 0, 7, 160, 256): "",
    (0, 1, 0, 160, 256): "",
    (0, 1, 99, 160, 256): "",
    (3, 0, 1, 97, 131): "",
    (1, 1, 2, 240, 320): "",
}
SMALL = StreetSettings(num_train=4, num_val=2, height=64, width=96, seed=5)


@pytest.fixture(scope="module")
def pictures():
    return [draw_street(0, 0, index) for index in range(60)]


@pytest.fixture(scope="module")
def small_root(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("data") / "street")
    make_synthetic_street(root, SMALL)
    return root


def _digest(picture):
    digest = hashlib.sha256(picture.image.tobytes() + picture.ids.astype("<i4").tobytes())
    digest.update(json.dumps(picture.segments).encode())
    return digest.hexdigest()


def _annotations(root, split):
    with open(os.path.join(root, "annotations", f"panoptic_{split}.json")) as f:
        return json.load(f)


@pytest.mark.parametrize("arguments", RECORDED)
def test_pictures_are_those_recorded(arguments):
    assert _digest(draw_street(*arguments)) == RECORDED[arguments]


def test_pictures_differ_by_seed_split_and_index():
    digests = {
        _digest(draw_street(*a, 64, 64)) for a in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    }
    assert len(digests) == 4


@pytest.mark.parametrize(
    "arguments", [(0, 0, 0, 63, 256), (0, 0, 0, 160, 10), (-1, 0, 0), (0, 0, -1)]
)
def test_impossible_pictures_are_refused(arguments):
    with pytest.raises(ValueError, match="at least 64 x 64"):
        draw_street(*arguments)


def test_segments_describe_the_map_exactly(pictures):
    for picture in pictures:
        found = {int(i): int(n) for i, n in zip(*np.unique(picture.ids, return_counts=True)) if i}
        assert found == {s["id"]: s["area"] for s in picture.segments}
        for segment in picture.segments:
            ys, xs = np.nonzero(picture.ids == segment["id"])
            x, y = xs.min(), ys.min()
            assert segment["bbox"] == [x, y, xs.max() - x + 1, ys.max() - y + 1]
            assert segment["category_id"] in COLOURS
            assert segment["iscrowd"] in (0, 1)


def test_stuff_occurs_once_a_picture_and_crowds_are_people(pictures):
    for picture in pictures:
        stuff = Counter(
            s["category_id"] for s in picture.segments if s["category_id"] not in THINGS
        )
        assert set(stuff.values()) <= {1}
        assert {s["category_id"] for s in picture.segments if s["iscrowd"]} <= {PERSON}


def test_every_category_crowds_and_void_occur(pictures):
    segments = [s for p in pictures for s in p.segments]
    counts = Counter(s["category_id"] for s in segments)
    assert min(counts[category] for category in COLOURS) >= 10
    assert sum(s["iscrowd"] for s in segments) >= 3
    assert sum((p.ids == 0).any() for p in pictures) >= 20
    assert np.mean([(p.ids == 0).mean() for p in pictures]) < 0.05


def test_things_are_truncated_occluded_and_of_many_sizes(pictures):
    boxes = np.array(
        [s["bbox"] for p in pictures for s in p.segments if s["category_id"] in THINGS]
    )
    things = [s for p in pictures for s in p.segments if s["category_id"] in THINGS]
    right, bottom = boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]
    assert (
        np.mean((boxes[:, 0] == 0) | (boxes[:, 1] == 0) | (right == 256) | (bottom == 160)) > 0.05
    )
    assert boxes[:, 3].min() <= 20 and boxes[:, 3].max() > 80
    assert min(s["area"] for s in things) >= 48
    assert 2 <= len(things) / len(pictures) <= 7
    assert sum(_touching_things(p) for p in pictures) >= 15


def _touching_things(picture):
    """Do two things share a border? One then hides part of the other."""
    things = [s["id"] for s in picture.segments if s["category_id"] in THINGS]
    ids = np.where(np.isin(picture.ids, things), picture.ids, 0)
    left, right = ids[:, :-1], ids[:, 1:]
    return bool(((left != right) & (left != 0) & (right != 0)).any())


def test_one_colour_stands_for_many_categories(pictures):
    """Naming each coarse colour after its most frequent category gets less than three pixels in four right."""
    votes = np.zeros((8**3, 200), dtype=np.int64)
    for picture in pictures:
        red, green, blue = np.moveaxis(picture.image.astype(np.int64) // 32, -1, 0)
        labels = np.zeros_like(picture.ids)
        for segment in picture.segments:
            labels[picture.ids == segment["id"]] = segment["category_id"]
        np.add.at(votes, ((red * 8 + green) * 8 + blue, labels), 1)
    assert votes[:, 1:].max(axis=1).sum() / votes[:, 1:].sum() < 0.75


def test_files_are_coco_panoptic(small_root):
    for split, count in (("train", SMALL.num_train), ("val", SMALL.num_val)):
        content = _annotations(small_root, split)
        assert set(content) == {"info", "licenses", "images", "annotations", "categories"}
        assert content["categories"] == categories()
        assert [i["id"] for i in content["images"]] == [
            a["image_id"] for a in content["annotations"]
        ]
        assert len(content["images"]) == count
        for image, annotation in zip(content["images"], content["annotations"]):
            picture = cv2.imread(os.path.join(small_root, split, image["file_name"]))
            ids = read_panoptic_png(
                os.path.join(small_root, f"panoptic_{split}", annotation["file_name"])
            )
            assert picture.shape == (image["height"], image["width"], 3)
            assert ids.shape == picture.shape[:2]
            assert set(np.unique(ids)) - {0} == {s["id"] for s in annotation["segments_info"]}


def test_files_hold_the_drawn_pictures(small_root):
    drawn = draw_street(SMALL.seed, 1, 1, SMALL.height, SMALL.width)
    annotation = _annotations(small_root, "val")["annotations"][1]
    image = cv2.imread(os.path.join(small_root, "val", annotation["file_name"]))[..., ::-1]
    assert np.array_equal(image, drawn.image)
    assert annotation["segments_info"] == drawn.segments


def test_a_picture_does_not_depend_on_how_many_there_are(small_root, tmp_path):
    fewer = StreetSettings(**{**SMALL.__dict__, "num_train": 2})
    make_synthetic_street(str(tmp_path / "fewer"), fewer)
    some = _annotations(str(tmp_path / "fewer"), "train")["annotations"]
    assert some == _annotations(small_root, "train")["annotations"][:2]


def test_an_existing_data_set_is_left_alone(small_root):
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
    with pytest.raises(ValueError, match="no info.json"):
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
    workers = [
        context.Process(target=_make_and_count, args=(str(tmp_path / "s"), queue)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    assert sorted(queue.get(timeout=60) for _ in workers) == [0, 0, 1]
    for worker in workers:
        worker.join()


def test_registration_draws_and_registers_both_splits(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic_street, "StreetSettings", lambda: SMALL)
    monkeypatch.setattr(synthetic_street.make_synthetic_street, "__defaults__", (SMALL,))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for name in ("synthetic_street_train", "synthetic_street_val"):
        if name in DatasetCatalog:
            pytest.skip("registered by the session already")
    synthetic_street.register_synthetic_street()
    try:
        assert len(DatasetCatalog.get("synthetic_street_train")) == SMALL.num_train
        assert len(MetadataCatalog.get("synthetic_street_val").thing_classes) == len(THINGS)
    finally:
        for name in ("synthetic_street_train", "synthetic_street_val"):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def test_command_line_draws_and_says_where(tmp_path, capsys):
    root = str(tmp_path / "street")
    sizes = ["--num-train", "1", "--num-val", "1", "--height", "64", "--width", "64"]
    synthetic_street.main(["--root", root, *sizes])
    assert root in capsys.readouterr().out
    with pytest.raises(SystemExit):
        synthetic_street.main(["--root", root, *sizes, "--seed", "9"])
    assert "Delete that folder" in capsys.readouterr().err


@pytest.mark.slow
def test_the_most_frequent_layout_scores_below_25(tmp_path):
    evaluation = pytest.importorskip("panopticapi.evaluation")
    table = {c["id"]: c for c in categories()}
    layout, segments = _most_frequent_layout([draw_street(0, 0, i) for i in range(150)])
    (tmp_path / "predicted").mkdir()
    write_panoptic_png(str(tmp_path / "predicted" / "same.png"), layout)
    pairs = []
    for index in range(50):
        truth = draw_street(0, 1, index)
        write_panoptic_png(str(tmp_path / f"{index}.png"), truth.ids)
        predicted = {"file_name": "same.png", "segments_info": [dict(s) for s in segments]}
        pairs.append(
            (
                {"file_name": f"{index}.png", "image_id": index, "segments_info": truth.segments},
                predicted,
            )
        )
    stat = evaluation.pq_compute_single_core(
        0, pairs, str(tmp_path), str(tmp_path / "predicted"), table
    )
    result, _ = stat.pq_average(table, isthing=None)
    assert result["n"] == len(table)
    assert result["pq"] < 0.25


def _most_frequent_layout(pictures):
    """Per pixel the most frequent category: stuff as one segment, things as one for each connected component."""
    ids = sorted(COLOURS)
    votes = np.zeros((len(ids), *pictures[0].ids.shape), dtype=np.int64)
    for picture in pictures:
        for segment in picture.segments:
            votes[ids.index(segment["category_id"])] += picture.ids == segment["id"]
    frequent = np.asarray(ids)[votes.argmax(axis=0)]
    layout, segments = np.zeros(frequent.shape, dtype=np.int32), []
    for category in np.unique(frequent).tolist():
        parts = (frequent == category).astype(np.uint8)
        count, components = cv2.connectedComponents(parts) if category in THINGS else (2, parts)
        for component in range(1, count):
            segments.append({"id": len(segments) + 1, "category_id": category})
            layout[components == component] = len(segments)
    return layout, segments
