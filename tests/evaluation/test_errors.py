"""Why points of PQ are lost: causes on maps drawn by hand, the sum of the costs in fractions, the result of files."""

from fractions import Fraction

import numpy as np
import numpy.typing as npt
from oracles_pq import CATEGORIES, Image, random_image, slow_counts

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.evaluation.errors import GROUPS, Losses, explain_image
from panoptic_fpn_ext.evaluation.panoptic_quality import compare_image
from panoptic_fpn_ext.evaluation.segments import as_segment_maps, parse_segments

CAR, PERSON, ROAD, SKY = 7, 3, 200, 21
TABLE = PanopticCategories(CATEGORIES, as_listed=True)
INDEX = {id_: index for index, id_ in enumerate(TABLE.dataset_ids)}
ISTHING = np.array([TABLE.isthing(id_) for id_ in INDEX])


def _rows(image: Image) -> npt.NDArray[np.void]:
    gt, _ = parse_segments(image.gt_segments, INDEX)
    pred, _ = parse_segments(image.pred_segments, INDEX, predicted=True)
    maps = as_segment_maps(image.gt_map, gt, image.pred_map, pred)
    return explain_image(*maps, compare_image(*maps), ISTHING)


def _pq(counts: dict[int, tuple[Fraction, int, int, int]], isthing: bool | None) -> Fraction | None:
    occurring = [
        iou_sum / (tp + Fraction(fp + fn, 2))
        for id_, (iou_sum, tp, fp, fn) in counts.items()
        if tp + fp + fn and isthing in (None, TABLE.isthing(id_))
    ]
    return 100 * sum(occurring, Fraction(0)) / len(occurring) if occurring else None


def _assert_costs_sum_up(rows: npt.NDArray[np.void], counts: dict[int, tuple[Fraction, int, int, int]]) -> None:
    losses = Losses.of(TABLE, rows, exact=True)
    for group, isthing in zip(GROUPS, (None, True, False), strict=True):
        pq = _pq(counts, isthing)
        assert losses.costs(group).sum() == (0 if pq is None else 100 - pq)


def test_costs_sum_to_what_pq_lacks_in_fractions_on_random_images():
    rng = np.random.default_rng(0)
    tables, total = [], {id_: (Fraction(0), 0, 0, 0) for id_ in INDEX}
    for _ in range(400):
        image = random_image(rng)
        counts = slow_counts(image)
        tables.append(_rows(image))
        _assert_costs_sum_up(tables[-1], counts)
        total = {id_: tuple(a + b for a, b in zip(total[id_], counts[id_], strict=True)) for id_ in total}
    _assert_costs_sum_up(np.concatenate(tables), total)
    parts = [Losses.of(TABLE, table, exact=True) for table in tables]
    assert (sum(parts[1:], parts[0]).table == Losses.of(TABLE, np.concatenate(tables), exact=True).table).all()
