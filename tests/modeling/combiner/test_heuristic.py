"""The paper's merging procedure: by hand, against its slow twin, and against detectron2."""

import random

import pytest
import torch
from detectron2.structures import Boxes, Instances
from oracles import combine_detectron2, combine_plain, upsample_plain
from torch.nn import functional as F

from panoptic_fpn_ext.modeling import HeuristicCombiner
from panoptic_fpn_ext.modeling.postprocessing import label_pixels
from panoptic_fpn_ext.structures import PanopticPrediction

SIZE = (8, 16)


def _instances(boxes: list, scores: list, size: tuple[int, int] = SIZE, masks: torch.Tensor | None = None) -> Instances:
    """Detections of classes 0, 1, 2 …, with full boxes unless ``masks`` are given."""
    n = len(boxes)
    return Instances(
        size,
        pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(n, 4)),
        scores=torch.tensor(scores, dtype=torch.float32),
        pred_classes=torch.arange(n),
        pred_masks=torch.ones(n, 1, 28, 28) if masks is None else masks,
    )


def _logits(labels: torch.Tensor, num_classes: int = 4) -> torch.Tensor:
    """Logits at stride 1 that say ``labels``, int64 (H, W)."""
    return F.one_hot(labels, num_classes).permute(2, 0, 1).float() * 10


def _combine(instances: Instances, labels: torch.Tensor, **options) -> PanopticPrediction:
    combiner = HeuristicCombiner(sem_seg_stride=1, **{"stuff_area_threshold": 1, **options})
    prediction = combiner(instances, _logits(labels), SIZE, SIZE)
    _assert_sound(prediction)
    return prediction


def _assert_sound(prediction: PanopticPrediction) -> None:
    """Map and list agree on ids and areas, in detectron2's types."""
    panoptic_seg, segments_info = prediction.panoptic_seg, prediction.segments_info
    assert panoptic_seg.dtype == torch.int32
    assert panoptic_seg.is_contiguous()
    areas = torch.bincount(panoptic_seg.flatten(), minlength=len(segments_info) + 1).tolist()
    assert len(areas) == len(segments_info) + 1
    assert [segment["id"] for segment in segments_info] == list(range(1, len(areas)))
    assert all(area > 0 for area in areas[1:])
    for segment in segments_info:
        assert isinstance(segment["isthing"], bool)
        assert segment["isthing"] or segment["area"] == areas[segment["id"]]


def _categories(prediction: PanopticPrediction) -> list[tuple[bool, int]]:
    return [(segment["isthing"], segment["category_id"]) for segment in prediction.segments_info]


STUFF = torch.ones(SIZE, dtype=torch.long)


def test_things_stand_on_stuff():
    prediction = _combine(_instances([[2, 2, 6, 6]], [0.9]), STUFF)
    expected = torch.full(SIZE, 2)
    expected[2:6, 2:6] = 1
    assert prediction.panoptic_seg.tolist() == expected.tolist()
    assert prediction.segments_info == [
        {"id": 1, "isthing": True, "score": pytest.approx(0.9), "category_id": 0, "instance_id": 0},
        {"id": 2, "isthing": False, "category_id": 1, "area": 8 * 16 - 16},
    ]


@pytest.mark.parametrize(
    ("taken_columns", "threshold", "kept"),
    [(2, 0.5, True), (3, 0.5, False), (3, 0.75, True), (0, 0.0, True), (1, 0.0, False), (4, 1.0, False)],
)
def test_overlap_of_exactly_the_threshold_is_allowed(taken_columns, threshold, kept):
    boxes = [[0, 0, 4, 4], [4 - taken_columns, 0, 8 - taken_columns, 4]]
    prediction = _combine(_instances(boxes, [0.9, 0.8]), STUFF, overlap_threshold=threshold)
    assert _categories(prediction) == [(True, 0), *([(True, 1)] if kept else []), (False, 1)]


def test_higher_scores_come_first_whatever_the_rows():
    prediction = _combine(_instances([[0, 0, 8, 8], [4, 0, 12, 8]], [0.6, 0.7]), STUFF)
    assert [segment.get("instance_id") for segment in prediction.segments_info] == [1, 0, None]
    assert (prediction.panoptic_seg[:, 4:12] == 1).all()


def test_equal_scores_are_ordered_as_detectron2_orders_them():
    instances = _instances([[x, 0, x + 6, 8] for x in range(0, 10, 2)], [0.7] * 5)
    assert_same_as_detectron2(instances, _logits(STUFF), SIZE, SIZE, sem_seg_stride=1, stuff_area_threshold=1)


def test_a_score_at_the_threshold_is_enough():
    instances = _instances([[0, 0, 4, 4], [8, 0, 12, 4]], [0.5, 0.49])
    assert _categories(_combine(instances, STUFF)) == [(True, 0), (False, 1)]


def test_rows_count_the_detections_that_are_not_empty():
    boxes = [[4, 4, 4, 8], [20, 20, 30, 30], [0, 0, 4, 4], [-9, -9, -1, -1]]
    prediction = _combine(_instances(boxes, [0.9, 0.8, 0.7, 0.6]), STUFF)
    assert prediction.segments_info[0]["instance_id"] == 0
    assert _categories(prediction) == [(True, 2), (False, 1)]


def test_labels_of_things_become_void():
    labels = STUFF.clone()
    labels[:4], labels[4:6] = 0, 3
    prediction = _combine(_instances([], []), labels, thing_sem_seg_ids=(0, 3))
    assert _categories(prediction) == [(False, 1)]
    assert (prediction.panoptic_seg[:6] == 0).all()


@pytest.mark.parametrize(("limit", "kept"), [(32, True), (33, False)])
def test_stuff_needs_its_area_after_things_took_theirs(limit, kept):
    labels = STUFF.clone()
    labels[:4] = 2  # 64 px, 32 of them under an instance
    prediction = _combine(_instances([[0, 0, 8, 4]], [0.9]), labels, stuff_area_threshold=limit)
    assert ((False, 2) in _categories(prediction)) is kept


def test_nothing_at_all():
    prediction = _combine(_instances([], []), torch.zeros(SIZE, dtype=torch.long))
    assert prediction.segments_info == []
    assert not prediction.panoptic_seg.any()


def test_things_everywhere_leave_no_stuff():
    assert _categories(_combine(_instances([[0, 0, 16, 8]], [0.9]), STUFF)) == [(True, 0)]


def test_masks_without_a_pixel_make_no_segment():
    instances = _instances([[0, 0, 8, 8]], [0.9], masks=torch.zeros(1, 1, 28, 28))
    assert _categories(_combine(instances, STUFF)) == [(False, 1)]


def test_arguments_stay_as_they_are():
    instances, logits = _instances([[0, 0, 8, 8]], [0.9]), _logits(STUFF)
    before = (instances.pred_boxes.tensor.clone(), instances.pred_masks.clone(), logits.clone())
    HeuristicCombiner(sem_seg_stride=1)(instances, logits, SIZE, (16, 32))
    after = (instances.pred_boxes.tensor, instances.pred_masks, logits)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", [(slice(None),), (1, 0), (2, slice(None), 1)])
def test_logits_that_are_not_finite(value, where):
    logits = torch.randn(4, 5, 6)
    logits[where] = value
    prediction = HeuristicCombiner(stuff_area_threshold=1)(
        _instances([[0, 0, 9, 9]], [0.9]), logits, (20, 24), (33, 44)
    )
    _assert_sound(prediction)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_combined_in_float32(dtype):
    instances = _instances([[0, 0, 9, 9]], [0.9], masks=torch.rand(1, 1, 28, 28))
    logits = torch.randn(5, 5, 6).to(dtype)
    args = (logits.float(), (20, 24), (33, 44))
    expected = combine_plain(instances, *args, stuff_area_threshold=9)
    prediction = HeuristicCombiner(stuff_area_threshold=9)(instances, logits, *args[1:])
    assert torch.equal(prediction.panoptic_seg, expected.panoptic_seg)
    assert prediction.segments_info == expected.segments_info


def test_no_gradients_and_no_autocast():
    instances, logits = _instances([[0, 0, 9, 9]], [0.9]), torch.randn(5, 5, 6, requires_grad=True)
    expected = combine_plain(instances, logits, (20, 24), (33, 44), stuff_area_threshold=9)
    with torch.autocast("cpu", torch.bfloat16):
        prediction = HeuristicCombiner(stuff_area_threshold=9)(instances, logits, (20, 24), (33, 44))
    assert torch.equal(prediction.panoptic_seg, expected.panoptic_seg)


# -- many random images -----------------------------------------------------------------------------------------


def _random_instances(size: tuple[int, int]) -> Instances:
    """Detections of all sizes, some beyond the border, some empty, with tied scores."""
    height, width = size
    n = random.choice([0, 1, 5, 15])
    corner = torch.rand(n, 2) * torch.tensor([width, height]) * 1.1 - 2
    boxes = torch.cat([corner, corner + torch.rand(n, 2) * torch.tensor([width, height]) * 0.7], dim=1)
    masks = (F.avg_pool2d(torch.rand(n, 1, 28, 28), 7, stride=1, padding=3) - 0.5).mul(30).sigmoid()
    return Instances(
        size,
        pred_boxes=Boxes(random.choice([boxes, boxes.round()])),
        scores=torch.randint(0, 11, (n,)) / 10,
        pred_classes=torch.randint(0, 9, (n,)),
        pred_masks=random.choice([masks, masks.round()]),
    )


def _random_case() -> tuple[Instances, torch.Tensor, tuple[int, int], tuple[int, int], dict]:
    """Arguments of a combiner: odd sizes, crops at the border, smooth and noisy logits, one class and many."""
    stride = random.choice([1, 2, 4, 4, 8])
    h, w = random.randint(1, 16), random.randint(1, 16)
    image_size = (
        random.randint(max(1, h * stride // 2), h * stride),
        random.randint(max(1, w * stride // 2), w * stride),
    )
    output_size = (random.randint(1, 64), random.randint(1, 64))
    logits = torch.randn(random.choice([1, 2, 6, 300]), h, w) * random.choice([1, 10])
    logits = random.choice([logits, F.avg_pool2d(logits[None], 3, stride=1, padding=1)[0]])
    options = {
        "overlap_threshold": random.choice([0, 0.3, 0.5, 1]),
        "stuff_area_threshold": random.choice([0, 1, 50]),
        "instance_score_threshold": random.choice([0, 0.3, 0.5, 0.7]),
        "sem_seg_stride": stride,
    }
    return _random_instances(image_size), logits, image_size, output_size, options


def _assert_same(ours: PanopticPrediction, plain: PanopticPrediction, logits: torch.Tensor) -> None:
    """The same map and list, unless pixels differ; those must be ties of the ``logits``, (C, H, W)."""
    _assert_sound(ours)
    different = ours.panoptic_seg != plain.panoptic_seg
    if different.any():
        best = logits.topk(2, dim=0).values
        assert (best[0] - best[1])[different].max() < 1e-4
        return
    assert ours.segments_info == plain.segments_info


@pytest.mark.parametrize("seed", range(60))
def test_same_as_the_slow_twin(seed):
    random.seed(seed)
    torch.manual_seed(seed)
    instances, logits, image_size, output_size, options = _random_case()
    ours = HeuristicCombiner(**options)(instances, logits, image_size, output_size)
    plain = combine_plain(instances, logits, image_size, output_size, **options)
    _assert_same(ours, plain, upsample_plain(logits, options["sem_seg_stride"], image_size, output_size))


def assert_same_as_detectron2(instances: Instances, logits: torch.Tensor, *sizes, **options) -> None:
    ours = HeuristicCombiner(**options)(instances, logits, *sizes)
    theirs = combine_detectron2(instances, logits, *sizes, **options)
    _assert_same(ours, theirs, upsample_plain(logits, options["sem_seg_stride"], *sizes))


@pytest.mark.parametrize("seed", range(60, 90))
def test_same_as_detectron2(seed):
    random.seed(seed)
    torch.manual_seed(seed)
    instances, logits, image_size, output_size, options = _random_case()
    # With an area limit of 0 or all overlaps allowed, detectron2 lists segments that have no pixel.
    options.update(stuff_area_threshold=1, overlap_threshold=0.5)
    assert_same_as_detectron2(instances, logits, image_size, output_size, **options)


@pytest.mark.parametrize("seed", range(5))
def test_labels_that_are_known_change_nothing(seed):
    random.seed(seed)
    torch.manual_seed(seed)
    instances, logits, image_size, output_size, options = _random_case()
    combiner = HeuristicCombiner(**options)
    labels = label_pixels(logits, combiner.sem_seg_stride, image_size, output_size)
    before = labels.clone()
    alone = combiner(instances, logits, image_size, output_size)
    found = combiner(instances, logits, image_size, output_size, labels)
    assert torch.equal(found.panoptic_seg, alone.panoptic_seg) and found.segments_info == alone.segments_info
    assert torch.equal(labels, before)
