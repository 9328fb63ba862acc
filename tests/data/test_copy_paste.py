"""Things of one image in front of another: pixels, labels, masks, boxes and classes, against loops over pixels."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Instances

from panoptic_fpn_ext.categories import ALL_CLASSES, THINGS_AS_OTHER, PanopticCategories
from panoptic_fpn_ext.data.copy_paste import CopyPaste, paste_things
from panoptic_fpn_ext.data.targets import panoptic_targets
from panoptic_fpn_ext.data.train_samples import Sample, SampleDataset
from panoptic_fpn_ext.structures import UnreadableFileError

ROWS = [{"id": 3 + i, "name": f"c{i}", "isthing": int(i < 2)} for i in range(4)]


def _input(height: int, width: int, seed: int, space: Any = ALL_CLASSES, things: int = 6) -> dict[str, Any]:
    """A noisy image whose map has some things, two stuff segments, a crowd and void."""
    rng = np.random.default_rng(seed)
    ids = np.kron(rng.integers(0, things + 4, (height // 4 + 1, width // 4 + 1)), np.ones((4, 4), int))[:height, :width]
    segments = [{"id": i, "category_id": i % 2, "isthing": True, "iscrowd": 0} for i in range(1, things + 1)]
    segments += [{"id": things + 1 + i, "category_id": i, "isthing": False, "iscrowd": 0} for i in range(2)]
    segments.append({"id": things + 3, "category_id": 0, "isthing": True, "iscrowd": 1})
    categories = PanopticCategories(ROWS, space)
    for segment in segments[-3:-1]:
        segment["category_id"] = categories.semantic_id(ROWS[2 + segment["category_id"]]["id"])
    targets = panoptic_targets(ids, [s for s in segments if (ids == s["id"]).any()], categories)
    image = torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))
    return {"image": image, "sem_seg": targets.sem_seg, "instances": targets.instances, "image_id": seed}


def _plain(mapped: dict[str, Any], other: dict[str, Any], chosen: list[bool]) -> tuple[Any, Any, list[Any]]:
    """Image, labels, and (class, mask) of each thing."""
    image, labels = mapped["image"].clone(), mapped["sem_seg"].clone()
    things = [[c, m.clone()] for c, m in _masks(mapped["instances"])]
    height, width = labels.shape
    for (label, mask), is_chosen in zip(_masks(other["instances"]), chosen, strict=True):
        if is_chosen:
            things.append([label, torch.zeros(height, width, dtype=torch.bool)])
            for y, x in mask.nonzero().tolist():
                if y < height and x < width:
                    image[:, y, x], labels[y, x] = other["image"][:, y, x], other["sem_seg"][y, x]
                    for thing in things:
                        thing[1][y, x] = thing is things[-1]
    return image, labels, [thing for thing in things if thing[1].any()]


def _masks(instances: Instances) -> list[tuple[int, torch.Tensor]]:
    return list(zip(instances.gt_classes.tolist(), instances.gt_masks.tensor, strict=True))


@pytest.mark.parametrize("space", [ALL_CLASSES, THINGS_AS_OTHER])
@pytest.mark.parametrize("size", [(24, 32), (16, 40), (40, 20)])
@pytest.mark.parametrize("seed", range(3))
def test_equals_loops_over_pixels(space, size, seed):
    mapped, other = _input(24, 32, seed, space), _input(*size, seed + 10, space)
    before = {key: mapped[key].clone() for key in ("image", "sem_seg")}
    chosen = torch.rand(len(other["instances"]), generator=torch.Generator().manual_seed(seed)) < 0.5
    found = paste_things(mapped, other, chosen)
    image, labels, things = _plain(mapped, other, chosen.tolist())
    assert torch.equal(found["image"], image) and torch.equal(found["sem_seg"], labels)
    assert [(label, mask.tolist()) for label, mask in _masks(found["instances"])] == [
        (label, mask.tolist()) for label, mask in things
    ]
    assert torch.equal(found["instances"].gt_boxes.tensor, found["instances"].gt_masks.get_bounding_boxes().tensor)
    assert found["image_id"] == mapped["image_id"] and all(torch.equal(mapped[k], v) for k, v in before.items())


def test_nothing_chosen_and_nothing_there():
    mapped, other, empty = _input(24, 32, 0), _input(24, 32, 1), _input(24, 32, 2, things=0)
    for source, into in ((other, mapped), (empty, mapped), (other, empty)):
        found = paste_things(into, source, torch.zeros(len(source["instances"]), dtype=torch.bool))
        assert torch.equal(found["image"], into["image"]) and torch.equal(found["sem_seg"], into["sem_seg"])
        assert torch.equal(found["instances"].gt_masks.tensor, into["instances"].gt_masks.tensor)
    found = paste_things(empty, other, torch.ones(len(other["instances"]), dtype=torch.bool))
    assert torch.equal(found["instances"].gt_masks.tensor, other["instances"].gt_masks.tensor)


def test_how_often_and_that_a_seed_decides():
    dicts = [{"seed": i} for i in range(5)]
    mapper = CopyPaste(lambda d: _input(24, 32, d["seed"]), dicts, 0.3)
    drawn = [SampleDataset(dicts, mapper, seed=2)[Sample(n, n % 5)] for n in range(150)]
    again = [SampleDataset(dicts, mapper, seed=2)[Sample(n, n % 5)] for n in range(150)]
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(drawn, again, strict=True))
    plain = [_input(24, 32, i)["image"] for i in range(5)]
    changed = sum(not torch.equal(one["image"], plain[n % 5]) for n, one in enumerate(drawn))
    assert 20 < changed < 60
    always = CopyPaste(lambda d: _input(24, 32, d["seed"]), dicts[:1], 1.0)
    random.seed(0)
    torch.manual_seed(0)
    assert len(always(dicts[1])["instances"]) > len(_input(24, 32, 1)["instances"])


def test_an_image_to_paste_from_that_cannot_be_read_pastes_nothing():
    def mapper(d: dict[str, Any]) -> dict[str, Any]:
        if d["seed"]:
            raise UnreadableFileError("broken")
        return _input(24, 32, 0)

    assert torch.equal(CopyPaste(mapper, [{"seed": 1}], 1.0)({"seed": 0})["image"], _input(24, 32, 0)["image"])
    with pytest.raises(UnreadableFileError):
        CopyPaste(mapper, [{"seed": 1}], 1.0)({"seed": 1})


def test_overlapping_annotations_are_refused():
    def mapper(_: Any) -> dict[str, Any]:
        mapped = _input(24, 32, 0)
        mapped["instances"].gt_masks = BitMasks(mapped["instances"].gt_masks.tensor)
        return {**mapped, "file_name": "a.jpg"}

    with pytest.raises(ValueError, match=r"INPUT\.COPY_PASTE_PROB .*a\.jpg are from elsewhere\. Set it to 0"):
        CopyPaste(mapper, [{}], 1.0)({})
