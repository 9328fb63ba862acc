"""The drawn scenes: the same everywhere, soundly labelled, varied, not trivial."""

import hashlib
import json
from collections import Counter

import cv2
import numpy as np
import pytest

from panoptic_fpn_ext.data.street.categories import COLOURS, PERSON, THINGS, categories
from panoptic_fpn_ext.data.street.scene import draw_street
from panoptic_fpn_ext.panoptic_png import write_panoptic_png

# (seed, split, index, height, width) -> sha256 of pixels and segments.
# If these change, GENERATOR_VERSION must change too.
RECORDED = {
    (0, 0, 0, 160, 256): "31a562538d182fc5b55e24a8ff56f0cb0b4016d93308122665f99d938f25ea9b",
    (0, 0, 7, 160, 256): "05b0799f94b615c1f269c0681c8e7fc5185cb4202aabd8c4d192d3513d5b155b",
    (0, 1, 0, 160, 256): "79983300687df22d4b58d73b8fb8c8c798c89257989fe129fded3dc8e2ad4761",
    (0, 1, 99, 160, 256): "98b1e3554670407e380b9ad1a0f962e198e47ceb214b45dcf33cd5e0a203d4f9",
    (3, 0, 1, 97, 131): "f7754d5a8ee1287635140d9963e9726f4a24b5f51f217831e46058fc8ff045ff",
    (1, 1, 2, 240, 320): "30ebfdac244b280eaa6c7de855fee0e900e1d7dd0653fee507c25427896f305d",
}


@pytest.fixture(scope="module")
def images():
    return [draw_street(0, 0, index) for index in range(60)]


def _digest(image):
    digest = hashlib.sha256(image.image.tobytes() + image.ids.astype("<i4").tobytes())
    digest.update(json.dumps(image.segments).encode())
    return digest.hexdigest()


@pytest.mark.parametrize("arguments", RECORDED)
def test_images_are_those_recorded(arguments):
    assert _digest(draw_street(*arguments)) == RECORDED[arguments]


def test_images_differ_by_seed_split_and_index():
    digests = {_digest(draw_street(*a, 64, 64)) for a in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))}
    assert len(digests) == 4


@pytest.mark.parametrize("arguments", [(0, 0, 0, 63, 256), (0, 0, 0, 160, 10), (-1, 0, 0), (0, 0, -1)])
def test_impossible_images_are_refused(arguments):
    with pytest.raises(ValueError, match="at least 64 x 64"):
        draw_street(*arguments)


def test_segments_describe_the_map_exactly(images):
    for image in images:
        found = {int(i): int(n) for i, n in zip(*np.unique(image.ids, return_counts=True), strict=True) if i}
        assert found == {s["id"]: s["area"] for s in image.segments}
        for segment in image.segments:
            ys, xs = np.nonzero(image.ids == segment["id"])
            x, y = xs.min(), ys.min()
            assert segment["bbox"] == [x, y, xs.max() - x + 1, ys.max() - y + 1]
            assert segment["category_id"] in COLOURS
            assert segment["iscrowd"] in (0, 1)


def test_stuff_occurs_once_an_image_and_crowds_are_people(images):
    for image in images:
        stuff = Counter(s["category_id"] for s in image.segments if s["category_id"] not in THINGS)
        assert set(stuff.values()) <= {1}
        assert {s["category_id"] for s in image.segments if s["iscrowd"]} <= {PERSON}


def test_every_category_crowds_and_void_occur(images):
    segments = [s for p in images for s in p.segments]
    counts = Counter(s["category_id"] for s in segments)
    assert min(counts[category] for category in COLOURS) >= 10
    assert sum(s["iscrowd"] for s in segments) >= 3
    assert sum((p.ids == 0).any() for p in images) >= 20
    assert np.mean([(p.ids == 0).mean() for p in images]) < 0.05


def test_things_are_truncated_occluded_and_of_many_sizes(images):
    boxes = np.array([s["bbox"] for p in images for s in p.segments if s["category_id"] in THINGS])
    things = [s for p in images for s in p.segments if s["category_id"] in THINGS]
    right, bottom = boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]
    assert np.mean((boxes[:, 0] == 0) | (boxes[:, 1] == 0) | (right == 256) | (bottom == 160)) > 0.05
    assert boxes[:, 3].min() <= 20 and boxes[:, 3].max() > 80
    assert min(s["area"] for s in things) >= 48
    assert 2 <= len(things) / len(images) <= 7
    assert sum(_touching_things(p) for p in images) >= 15


def _touching_things(image):
    """Do two things share a border? One then hides part of the other."""
    things = [s["id"] for s in image.segments if s["category_id"] in THINGS]
    ids = np.where(np.isin(image.ids, things), image.ids, 0)
    left, right = ids[:, :-1], ids[:, 1:]
    return bool(((left != right) & (left != 0) & (right != 0)).any())


def test_one_colour_stands_for_many_categories(images):
    """Naming each coarse colour after its most frequent category gets over a quarter wrong."""
    votes = np.zeros((8**3, 200), dtype=np.int64)
    for image in images:
        red, green, blue = np.moveaxis(image.image.astype(np.int64) // 32, -1, 0)
        labels = np.zeros_like(image.ids)
        for segment in image.segments:
            labels[image.ids == segment["id"]] = segment["category_id"]
        np.add.at(votes, ((red * 8 + green) * 8 + blue, labels), 1)
    assert votes[:, 1:].max(axis=1).sum() / votes[:, 1:].sum() < 0.75


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
    stat = evaluation.pq_compute_single_core(0, pairs, str(tmp_path), str(tmp_path / "predicted"), table)
    result, _ = stat.pq_average(table, isthing=None)
    assert result["n"] == len(table)
    assert result["pq"] < 0.25


def _most_frequent_layout(images):
    """The most frequent category of each pixel; things become one segment a component."""
    ids = sorted(COLOURS)
    votes = np.zeros((len(ids), *images[0].ids.shape), dtype=np.int64)
    for image in images:
        for segment in image.segments:
            votes[ids.index(segment["category_id"])] += image.ids == segment["id"]
    frequent = np.asarray(ids)[votes.argmax(axis=0)]
    layout, segments = np.zeros(frequent.shape, dtype=np.int32), []
    for category in np.unique(frequent).tolist():
        parts = (frequent == category).astype(np.uint8)
        count, components = cv2.connectedComponents(parts) if category in THINGS else (2, parts)
        for component in range(1, count):
            segments.append({"id": len(segments) + 1, "category_id": category})
            layout[components == component] = len(segments)
    return layout, segments
