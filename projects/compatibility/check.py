"""Tries one row of the table: trains two steps, evaluates, saves and loads, optimises, exports.

Shapes: H, W image.
"""

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.data import DatasetCatalog, build_detection_test_loader
from detectron2.evaluation import inference_on_dataset
from detectron2.structures import Keypoints
from detectron2.utils.events import EventStorage
from rows import Row
from torch import nn

from panoptic_fpn_ext import optimize_for_inference
from panoptic_fpn_ext.data import PanopticDatasetMapper, dataset_categories, register_coco_panoptic
from panoptic_fpn_ext.data.synthetic_street import StreetSettings, make_synthetic_street
from panoptic_fpn_ext.engine import PanopticCheckpointer
from panoptic_fpn_ext.engine.evaluating.evaluators import build_dataset_evaluator
from panoptic_fpn_ext.export import PanopticGraph, describe, write_onnx
from panoptic_fpn_ext.export.description import dataset_ids

__all__ = ["Data", "Outcome", "is_available", "street", "try_row"]


class Outcome(NamedTuple):
    """What became of a row.

    Attributes:
        refusal: why it was refused, empty where it works.
        export: ``"yes"``, or ``"no: "`` and why.
    """

    refusal: str = ""
    export: str = ""


class Data(NamedTuple):
    """Small images on disk: names of a training and a validation set, and a batch of the former."""

    train: str
    val: str
    batch: list[dict[str, Any]]


def street(root: Path) -> Data:
    """Draw and register two images for training and two for validation, 64×96 px."""
    make_synthetic_street(str(root), StreetSettings(num_train=2, num_val=2, height=64, width=96))
    names = {split: f"compatibility_{split}_{root.parent.name}" for split in ("train", "val")}
    for split, name in names.items():
        json = root / "annotations" / f"panoptic_{split}.json"
        register_coco_panoptic(name, str(root / split), str(root / f"panoptic_{split}"), str(json))
    mapper = PanopticDatasetMapper(True, categories=dataset_categories(names["train"]), augmentations=[])
    return Data(names["train"], names["val"], [mapper(one) for one in DatasetCatalog.get(names["train"])])


def is_available(row: Row) -> bool:
    """Whether what the row needs is installed."""
    project = f"detectron2.projects.{row.project}"
    return (not row.package or find_spec(row.package) is not None) and (
        not row.project or find_spec(project) is not None
    )


def try_row(row: Row, data: Data, onnx: bool = False) -> Outcome:
    """Put the part in its place and use the network.

    Args:
        row: of the table.
        data: as :func:`street` gives it.
        onnx: whether the graph is also written as a file, which takes longer.

    Raises:
        AssertionError, Exception: it neither works nor is refused as the row says.
    """
    torch.manual_seed(0)
    if row.refused:
        try:
            row.build()
        except ValueError as error:
            assert row.refused in str(error), error
            return Outcome(next(line for line in str(error).splitlines() if row.refused in line).strip())
        raise AssertionError(f"{row.name} is not refused.")
    model = _calmed(row.build())
    _train(model, _with_keypoints(data.batch) if row.keypoints else data.batch)
    model.eval()
    _evaluate(model, data)
    _save_and_load(row, model, data)
    _optimize(model, data)
    return Outcome(export=_export(model, data, onnx))


def _calmed(model: nn.Module) -> nn.Module:
    """Small residual branches, or activations of untrained networks grow from block to block."""
    for name, module in model.named_modules():
        if name.endswith(("conv2.norm", "conv3.norm")) and "bottom_up" in name:
            nn.init.constant_(module.weight, 0.2)
    return model


def _with_keypoints(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Three visible keypoints in each box."""
    for inputs in batch:
        boxes = inputs["instances"].gt_boxes.tensor
        places = boxes[:, None, :2] + torch.rand(len(boxes), 3, 2) * (boxes[:, None, 2:] - boxes[:, None, :2])
        inputs["instances"].gt_keypoints = Keypoints(torch.cat([places, torch.full_like(places[..., :1], 2)], dim=2))
    return batch


def _train(model: nn.Module, batch: list[dict[str, Any]]) -> None:
    """Two steps; every parameter that learns gets a gradient, and all losses are finite."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    for _ in range(2):
        with EventStorage():
            losses = model.train()(batch)
        assert losses and all(loss.isfinite() for loss in losses.values()), losses
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    idle = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle, f"no gradient: {idle}"


@torch.no_grad()
def _predict(model: nn.Module, data: Data) -> dict[str, Any]:
    inputs = {"image": data.batch[0]["image"], "height": 90, "width": 120}
    output: dict[str, Any] = model([inputs])[0]
    return output


def _evaluate(model: nn.Module, data: Data) -> None:
    outputs = set(_predict(model, data)) & {"panoptic_seg", "sem_seg"}
    loader = build_detection_test_loader(
        DatasetCatalog.get(data.val), mapper=PanopticDatasetMapper(False, categories=None, augmentations=[])
    )
    with tempfile.TemporaryDirectory() as folder:
        evaluator = build_dataset_evaluator(data.val, folder, outputs=outputs)
        results = inference_on_dataset(model, loader, evaluator)
    assert ("panoptic_seg" not in outputs or "PQ" in results["panoptic_seg"]) and "mIoU" in results["sem_seg"]


def _save_and_load(row: Row, model: nn.Module, data: Data) -> None:
    with tempfile.TemporaryDirectory() as folder:
        PanopticCheckpointer(model, folder).save("model")
        again = row.build().eval()
        PanopticCheckpointer(again, complete=True).load(f"{folder}/model.pth")
    _compare(_predict(again, data), _predict(model, data), tolerance=0)


def _optimize(model: nn.Module, data: Data) -> None:
    _compare(_predict(optimize_for_inference(model), data), _predict(model, data), tolerance=1e-3)


def _compare(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    """Logits within a share of the largest; maps the same but for 1 % of the pixels if there is a tolerance."""
    largest = expected["sem_seg"].abs().max()
    assert (found["sem_seg"] - expected["sem_seg"]).abs().max() <= tolerance * largest
    if "panoptic_seg" in expected:
        differ = (found["panoptic_seg"][0] > 0) != (expected["panoptic_seg"][0] > 0)
        assert differ.float().mean() <= (0.01 if tolerance else 0)


def _export(model: nn.Module, data: Data, onnx: bool) -> str:
    """Whether the model's graph gives its map, and where asked for whether it can be written as a file."""
    categories = dataset_categories(data.train)
    try:
        graph = PanopticGraph(model, dataset_ids(categories), (64, 96)).eval()
    except ValueError as error:
        reason = str(error).partition(";")[0].rstrip(".")
        return f"no: {reason[0].lower()}{reason[1:]}"
    image = data.batch[0]["image"]
    with torch.no_grad():
        segments, expected = graph(image.permute(1, 2, 0)), model([{"image": image}])[0]["panoptic_seg"][0]
    assert (segments[0] == expected).float().mean() > 0.99
    if onnx and find_spec("onnx"):
        with tempfile.TemporaryDirectory() as folder:
            write_onnx(graph, Path(folder, "model.onnx"), describe(graph, categories, "BGR"))
    return "yes"
