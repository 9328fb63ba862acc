"""What cannot be exported, and what is no exported model, is named."""

from typing import Any

import pytest
import torch
from small_graphs import RESIZE, ROWS, graph_of, tiny_model

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.export import ExportedPredictor, PanopticGraph, describe


def test_what_cannot_be_exported_is_named(tmp_path):
    model, ids = tiny_model(), {}

    def refused(model: Any, match: str, **options: Any) -> None:
        with pytest.raises(ValueError, match=match):
            PanopticGraph(model, ids, RESIZE, **options)

    refused(tiny_model().train(), "in training mode")
    refused(tiny_model().half(), "float16")
    refused(model, "panoptic_seg and, on request", outputs=["sem_seg"])
    deformable = tiny_model()  # detectron2's own needs its compiled operators
    deformable.backbone.extra = type("ModulatedDeformConv", (torch.nn.Module,), {})()
    refused(deformable, "backbone.extra is a deformable convolution")
    pointed = tiny_model()
    pointed.roi_heads.mask_head = torch.nn.Identity()
    refused(pointed, "mask head is Identity")
    model.combiner = object()
    refused(model, "combiner is object")
    with pytest.raises(ValueError, match="BGR or RGB"):
        describe(graph_of(tiny_model(), PanopticCategories(ROWS)), PanopticCategories(ROWS), "L")
    with pytest.raises(FileNotFoundError, match="no exported model"):
        ExportedPredictor(tmp_path / "none.onnx")
    (tmp_path / "model.pt").touch()
    with pytest.raises(ValueError, match=r"\.onnx"):
        ExportedPredictor(tmp_path / "model.pt")
