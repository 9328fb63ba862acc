"""Predictions as a loader and a model would give them, and the evaluator's figures of them."""

from typing import Any

import torch
from oracles_pq import CATEGORIES, Image

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.evaluation import PanopticQualityEvaluator

TABLE = PanopticCategories(CATEGORIES)
Batch = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def as_batch(images: list[Image], image_ids: list[Any] | None = None) -> Batch:
    """What a loader and a model would give for predictions with dataset ids."""
    inputs, outputs = [], []
    for image_id, image in zip(image_ids or range(len(images)), images, strict=True):
        infos = [
            {
                "id": s["id"],
                "category_id": TABLE.category_id(s["category_id"]),
                "isthing": TABLE.isthing(s["category_id"]),
                "score": 0.5,
            }
            for s in image.pred_segments
        ]
        inputs.append({"image_id": image_id, "file_name": f"folder/{image_id}.jpg"})
        outputs.append({"panoptic_seg": (torch.from_numpy(image.pred_map).int(), infos)})
    return inputs, outputs


def evaluate(evaluator: PanopticQualityEvaluator, batch: Batch) -> dict[str, float]:
    """Figures of one batch."""
    evaluator.reset()
    evaluator.process(*batch)
    results = evaluator.evaluate()
    assert results is not None and list(results) == ["panoptic_seg"]
    return dict(results["panoptic_seg"])


def in_percent(results: dict[str, Any]) -> dict[str, float]:
    """Results of panopticapi as the evaluator gives them."""
    groups = (("All", ""), ("Things", "_th"), ("Stuff", "_st"))
    return {m.upper() + suffix: 100 * results[g][m] for g, suffix in groups for m in ("pq", "sq", "rq")}
