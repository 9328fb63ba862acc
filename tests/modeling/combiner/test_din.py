"""DIN's way of combining: unary terms by hand, the CRF against brute force, and through a model by one key."""

import math

import pytest
import torch
from detectron2.structures import Boxes, Instances
from oracles import mean_field_plain
from torch.nn import functional as F

from panoptic_fpn_ext.modeling import DINCombiner
from panoptic_fpn_ext.modeling.combiner.bilateral_grid import EXACT, BilateralGrid, Cells
from panoptic_fpn_ext.modeling.combiner.dense_crf import DenseCRF
from panoptic_fpn_ext.modeling.postprocessing import place_instances

SIZE = (16, 16)
SIGMOID_1 = 1 / (1 + math.exp(-1))


def _images() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    smooth = F.interpolate(torch.rand(1, 3, 3, 3) * 255, size=SIZE, mode="bicubic")[0].clamp(0, 255).round()
    return {
        "noise": torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8),
        "few levels": torch.randint(250, 256, (3, *SIZE), dtype=torch.uint8),
        "smooth": smooth,
        "black": torch.zeros(3, *SIZE),
    }


@pytest.mark.parametrize("kind", ["noise", "few levels", "smooth", "black"])
def test_the_crf_is_brute_force(kind):
    image, scores = _images()[kind], torch.randn(5, *SIZE) * 3
    crf = DenseCRF(image)
    assert crf.bilateral.cells == EXACT
    torch.testing.assert_close(crf.mean_field(scores).double(), mean_field_plain(scores, image), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 16), (1, 16, 5), (2, 7, 40)])
def test_the_crf_of_any_shape(shape):
    image, scores = torch.randint(100, 130, (3, *shape[1:])), torch.randn(shape)
    torch.testing.assert_close(
        DenseCRF(image).mean_field(scores, 1.0, 2.0, 2).double(),
        mean_field_plain(scores, image, 1.0, 2.0, 2),
        atol=1e-4,
        rtol=0,
    )


def test_gradients_are_those_of_brute_force():
    image = _images()["smooth"]
    scores = torch.randn(4, *SIZE, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 4, SIZE)
    found, expected = (
        torch.autograd.grad(F.cross_entropy(x[None], target[None]), [scores, weights])
        for x in (DenseCRF(image).mean_field(scores, *weights), mean_field_plain(scores, image, *weights))
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("cells", "bound"), [(Cells(3, 1, 6.0), 5e-3), (Cells(8, 1, 6.0), 3e-2), (Cells(8, 3, 4.0), 0.2)]
)
def test_larger_cells_are_a_little_off(cells, bound):
    """Of probabilities; an image of 32×32 px with smooth colours."""
    torch.manual_seed(1)
    image = F.interpolate(torch.rand(1, 3, 4, 4) * 60 + 90, size=(32, 32), mode="bicubic")[0].round()
    q = torch.randn(3, 32, 32).mul(2).softmax(dim=0)
    found, exact = (BilateralGrid(image, 8.0, 5.0, cells=c)(q) for c in (cells, EXACT))
    assert 0 < (found - exact).abs().max() < bound
    torch.testing.assert_close(found.sum(dim=0), torch.ones(32, 32), rtol=1e-4, atol=1e-4)


def test_a_grid_has_no_more_vertices_than_allowed():
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    for limit in (2**22, 2**16, 2**10):
        assert BilateralGrid(image, 49.0, 5.0, limit)._num_vertices <= limit


# -- unary terms ------------------------------------------------------------------------------------------------


def _instances(*rows: tuple[list[float], float, int], masks: float = 1.0) -> Instances:
    """Detections of (box, score, class)."""
    return Instances(
        SIZE,
        pred_boxes=Boxes(torch.tensor([box for box, _, _ in rows]).float().reshape(-1, 4)),
        scores=torch.tensor([score for _, score, _ in rows]).float(),
        pred_classes=torch.tensor([c for _, _, c in rows]).long(),
        pred_masks=torch.full((len(rows), 1, 28, 28), masks),
    )


def _unary(combiner: DINCombiner, instances: Instances, logits: torch.Tensor):
    return combiner.unary_scores(place_instances(instances, SIZE), logits, SIZE)


def test_unary_terms():
    torch.manual_seed(0)
    logits = torch.randn(4, *SIZE)
    q = logits.softmax(dim=0)
    combiner = DINCombiner(weights=(0.5, 0.25, 2.0, 3.0, 4.0), sem_seg_stride=1, thing_sem_seg_ids=(2, 0))
    instances = _instances(([0, 0, 4, 4], 0.6, 0), ([4, 2, 9, 8], 0.9, 1), ([0, 0, 16, 16], 0.4, 0), masks=0.5)
    scores, things, stuff = _unary(combiner, instances, logits)
    assert (things, stuff) == ([1, 0], [1, 3])
    inside = q[0, 4, 6] * (0.5 / (1 + math.exp(-0.8)) + 0.25 + 2.0 * 0.5)
    assert scores[0, 4, 6].exp().item() == pytest.approx(inside.item(), rel=1e-4)
    assert scores[0, 12, 12].exp().item() == pytest.approx(q[0, 12, 12].item() * 0.25, rel=1e-4)
    assert scores[1, 1, 1].exp().item() == pytest.approx(
        q[2, 1, 1].item() * (0.5 / (1 + math.exp(-0.2)) + 0.25 + 1.0), rel=1e-4
    )
    torch.testing.assert_close(scores[3].exp(), q[3] * (0.5 * SIGMOID_1 + 0.25 + 2.0))


def test_things_as_other_share_its_probability():
    """At a pixel by the scores of the boxes that it lies in, elsewhere by all scores."""
    logits = torch.zeros(3, *SIZE)
    rows = ([0, 0, 8, 8], 0.9, 5), ([4, 4, 16, 8], 0.6, 7), ([0, 0, 4, 4], 0.5, 5)
    scores, things, stuff = _unary(DINCombiner(sem_seg_stride=1, weights=(1, 1, 1, 3, 4)), _instances(*rows), logits)
    assert (things, stuff) == ([0, 1, 2], [1, 2])
    sigmoid = {s: 1 / (1 + math.exp(1 - 2 * s)) for s in (0.9, 0.6)}
    nowhere, both = scores[:, 15, 0].exp(), scores[:, 6, 6].exp()
    assert nowhere[:2].tolist() == pytest.approx([1 / 3 * 1.4 / 2.0, 1 / 3 * 0.6 / 2.0], rel=1e-4)
    expected = [1 / 3 * 0.9 / 1.5 * (sigmoid[0.9] + 2), 1 / 3 * 0.6 / 1.5 * (sigmoid[0.6] + 2)]
    assert both[:2].tolist() == pytest.approx(expected, rel=1e-4)
    only_first = scores[:, 1, 6].exp()
    assert only_first[0].item() == pytest.approx(1 / 3 * (sigmoid[0.9] + 2), rel=1e-4)
    assert only_first[1].item() < 1e-30


def test_classes_without_a_semantic_id_are_explained():
    combiner = DINCombiner(sem_seg_stride=1, thing_sem_seg_ids=(1, 2))
    with pytest.raises(ValueError, match="THING_SEM_SEG_IDS"):
        _unary(combiner, _instances(([0, 0, 8, 8], 0.9, 2)), torch.zeros(4, *SIZE))


@pytest.mark.parametrize("weights", [(1, 1, 1), (0, 0, 0, 1, 1), (1, -1, 1, 1, 1), (1, 1, 1, float("nan"), 1)])
def test_weights_that_cannot_be(weights):
    with pytest.raises(ValueError, match="DIN_WEIGHTS"):
        DINCombiner(weights=weights)


# -- the panoptic map -------------------------------------------------------------------------------------------


def _stuff_logits(labels: torch.Tensor, num_classes: int = 4) -> torch.Tensor:
    return F.one_hot(labels, num_classes).permute(2, 0, 1).float() * 12


def _scene() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and an image: other (0) in a square on stuff 1, with stuff 2 on the right; colours follow."""
    labels = torch.ones(SIZE, dtype=torch.long)
    labels[4:12, 2:8], labels[:, 12:] = 0, 2
    return _stuff_logits(labels), (labels * 80).expand(3, *SIZE).byte()


def test_a_thing_on_stuff():
    logits, image = _scene()
    combiner = DINCombiner(sem_seg_stride=1, stuff_area_threshold=1)
    found = combiner(_instances(([2, 4, 8, 12], 0.75, 3)), logits, SIZE, SIZE, image)
    expected = torch.ones(SIZE, dtype=torch.int32) * 2
    expected[4:12, 2:8], expected[:, 12:] = 1, 3
    assert found.panoptic_seg.tolist() == expected.tolist()
    assert found.segments_info == [
        {"id": 1, "isthing": True, "score": 0.75, "category_id": 3, "instance_id": 0},
        {"id": 2, "isthing": False, "category_id": 1, "area": 144},
        {"id": 3, "isthing": False, "category_id": 2, "area": 64},
    ]


def test_the_map_is_the_best_label_of_brute_force():
    torch.manual_seed(3)
    logits, image = torch.randn(5, *SIZE) * 2, torch.randint(90, 120, (3, *SIZE), dtype=torch.uint8)
    rows = ([0, 0, 9, 9], 0.9, 0), ([5, 3, 14, 12], 0.8, 1), ([6, 6, 16, 16], 0.7, 1)
    combiner = DINCombiner(sem_seg_stride=1, stuff_area_threshold=1, thing_sem_seg_ids=(0, 3))
    instances = _instances(*rows, masks=0.7)
    found = combiner(instances, logits, SIZE, SIZE, image)
    best = mean_field_plain(_unary(combiner, instances, logits).scores, image).argmax(dim=0)
    present = best.unique()
    ids = torch.zeros(6, dtype=torch.int32)
    ids[present] = torch.arange(1, len(present) + 1, dtype=torch.int32)
    assert found.panoptic_seg.tolist() == ids[best].tolist()
    assert len(found.segments_info) == len(present)


@pytest.mark.parametrize("others", [1, 2, 7])
def test_of_many_detections_of_an_object_the_best_stays(others):
    logits, image = _scene()
    worse = [([2, 4, 9, 13 - k / 4], 0.85 - k / 50, 3) for k in range(others)]
    instances = _instances(([2, 4, 8, 12], 0.9, 3), *worse)
    every, without_rims = (
        DINCombiner(sem_seg_stride=1, stuff_area_threshold=1, overlap_threshold=t)(instances, logits, SIZE, SIZE, image)
        for t in (1.0, 0.5)
    )
    assert [segment.get("instance_id") for segment in without_rims.segments_info] == [0, None, None]
    assert without_rims.panoptic_seg.ne(0).all()
    assert len(every.segments_info) >= len(without_rims.segments_info)


def test_small_stuff_becomes_void_and_the_map_any_size():
    logits, image = _scene()
    combiner = DINCombiner(sem_seg_stride=1, stuff_area_threshold=4 * 65)
    found = combiner(_instances(([2, 4, 8, 12], 0.75, 3)), logits, SIZE, (32, 32), image)
    assert found.panoptic_seg.shape == (32, 32) and found.panoptic_seg.dtype == torch.int32
    assert [segment["category_id"] for segment in found.segments_info] == [3, 1]
    assert (found.panoptic_seg[:, 26:] == 0).all()


def test_nothing_at_all():
    logits, image = _scene()
    found = DINCombiner(sem_seg_stride=1)(_instances(), logits[:1], SIZE, SIZE, image)
    assert not found.segments_info and not found.panoptic_seg.any()


def test_an_image_of_another_size_is_refused():
    logits, image = _scene()
    with pytest.raises(ValueError, match=r"shape \(3, 16, 16\)"):
        DINCombiner(sem_seg_stride=1)(_instances(), logits, SIZE, SIZE, image[:, :8])
