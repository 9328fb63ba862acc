"""Tiny models whose scores do not tie, their graphs, and what the eager model gives for an image."""

from typing import Any

import numpy as np
import torch
from detectron2.modeling import build_model
from PIL import Image
from small_models import tiny_cfg, untied

from panoptic_fpn_ext.categories import ALL_CLASSES, THINGS_AS_OTHER, PanopticCategories
from panoptic_fpn_ext.data.nonempty import NonemptyResizeShortestEdge
from panoptic_fpn_ext.data.planes import to_planes
from panoptic_fpn_ext.export import PanopticGraph
from panoptic_fpn_ext.export.description import dataset_ids

RESIZE = (64, 96)
SIZES = ((64, 64), (40, 90), (130, 70), (33, 47), (64, 64), (7, 120))
ROWS = [{"id": 3 * i + 1, "name": f"c{i}", "isthing": int(i in (1, 3, 5, 6))} for i in range(9)]
# Half as much to write down, for exporters that take long.
TWO_LEVELS = (
    *("MODEL.BACKBONE.NAME", "build_narrow_resnet_fpn_backbone", "MODEL.RESNETS.DEPTH", 18),
    *("MODEL.RESNETS.OUT_FEATURES", ["res4", "res5"], "MODEL.FPN.IN_FEATURES", ["res4", "res5"]),
    *("MODEL.RPN.IN_FEATURES", ["p4", "p5", "p6"], "MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64], [128]]),
    *("MODEL.ROI_HEADS.IN_FEATURES", ["p4", "p5"], "MODEL.SEM_SEG_HEAD.IN_FEATURES", ["p4", "p5"]),
    *("MODEL.SEM_SEG_HEAD.COMMON_STRIDE", 16),
)


def tiny_model(*options: object, architecture: str = "PanopticFPNExt", space: str = THINGS_AS_OTHER) -> Any:
    """In evaluation mode, always with the same weights."""
    cfg = tiny_cfg(architecture)
    num_classes = 9 if space == ALL_CLASSES else 6
    cfg.merge_from_list(["MODEL.SEM_SEG_HEAD.NUM_CLASSES", num_classes, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0])
    cfg.merge_from_list(["MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", 0.2])
    cfg.merge_from_list(["MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", 20, "TEST.DETECTIONS_PER_IMAGE", 20])
    if space == ALL_CLASSES:
        cfg.merge_from_list(["MODEL.PANOPTIC_FPN.COMBINE.THING_SEM_SEG_IDS", (1, 3, 5, 6)])
    cfg.merge_from_list(list(options))
    torch.manual_seed(0)
    model = untied(build_model(cfg).eval())
    predictors = model.roi_heads.box_predictor
    for predictor in predictors if isinstance(predictors, torch.nn.ModuleList) else [predictors]:
        torch.nn.init.normal_(predictor.cls_score.weight, std=0.01)  # more, and scores are 1 and tie
    return model


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth noise: BGR uint8 (height, width, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)).copy()


def resized(image: np.ndarray) -> np.ndarray:
    """As the network gets it."""
    return NonemptyResizeShortestEdge([RESIZE[0]] * 2, RESIZE[1]).get_transform(image).apply_image(image)


def eager(model: Any, image: np.ndarray) -> dict[str, Any]:
    """What the model itself gives for an image."""
    with torch.no_grad():
        return model([{"image": to_planes(resized(image)), "height": image.shape[0], "width": image.shape[1]}])[0]


def assert_same(found: dict[str, Any], model: Any, image: np.ndarray, categories: PanopticCategories) -> int:
    """Whether a graph gave what the model gives; the number of things."""
    panoptic_seg, infos = eager(model, image)["panoptic_seg"]
    found = {name: np.asarray(value) for name, value in found.items()}
    assert found["panoptic_seg"].dtype == np.int32
    assert (found["panoptic_seg"] != panoptic_seg.numpy()).mean() <= 1e-3  # of a few thousand pixels
    expected_ids = [categories.dataset_id(i["category_id"], i["isthing"]) for i in infos]
    assert found["category_id"].tolist() == expected_ids
    assert found["isthing"].tolist() == [i["isthing"] for i in infos]
    np.testing.assert_allclose(found["score"], [i.get("score", 1.0) for i in infos], rtol=1e-4)
    areas = np.bincount(found["panoptic_seg"].ravel(), minlength=len(infos) + 1)
    assert found["segment_id"].tolist() == list(range(1, len(infos) + 1))
    assert found["area"].tolist() == areas[1:].tolist()
    assert found["box"].shape == (len(infos), 4)
    return sum(found["isthing"].tolist())


def graph_of(model: Any, categories: PanopticCategories, **options: Any) -> PanopticGraph:
    """A model's graph, for images that are resized to ``RESIZE``."""
    return PanopticGraph(model, dataset_ids(categories), RESIZE, **options).eval()


def run_in_pytorch(graph: PanopticGraph, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Outputs of a graph by name."""
    with torch.no_grad():
        return dict(zip(graph.output_names, graph(*inputs), strict=True))
