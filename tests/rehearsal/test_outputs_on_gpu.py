"""What takes over a model's outputs or targets: on a pretended GPU it does what it does on a CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils import comm
from pretend_gpu import PretendGpu, on_host

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.engine.evaluating.result_writer import PanopticResultWriter
from panoptic_fpn_ext.evaluation import PanopticQualityEvaluator
from panoptic_fpn_ext.evaluation.cityscapes import CityscapesInstanceEvaluator
from panoptic_fpn_ext.evaluation.sem_seg_evaluator import PanopticSemSegEvaluator
from panoptic_fpn_ext.index_masks import IndexMasks
from panoptic_fpn_ext.modeling.global_average import average_over_processes, count_rois
from panoptic_fpn_ext.visualization import draw_panoptic

SIZE = (64, 96)
SEGMENTS = [{"id": 1, "category_id": 0, "isthing": True, "score": 0.9}, {"id": 2, "category_id": 1, "isthing": False}]


def _panoptic_seg(device: str) -> torch.Tensor:
    panoptic_seg = torch.full(SIZE, 2, dtype=torch.int32, device=device)
    panoptic_seg[8:40, 10:50] = 1
    return panoptic_seg


def _output(device: str, size: tuple[int, int]) -> dict:
    panoptic_seg = torch.full(size, 2, dtype=torch.int32, device=device)
    panoptic_seg[8:40, 10:50] = 1
    instances = Instances(size, pred_boxes=Boxes(torch.tensor([[10.0, 8, 50, 40]], device=device)))
    instances.scores, instances.pred_classes = torch.ones(1, device=device), torch.zeros(1, dtype=int, device=device)
    instances.pred_masks = (panoptic_seg == 1)[None]
    sem_seg = torch.stack([panoptic_seg == 1, panoptic_seg == 2]).float()
    return {"panoptic_seg": (panoptic_seg, SEGMENTS), "instances": instances, "sem_seg": sem_seg}


@pytest.mark.parametrize("evaluator", [PanopticQualityEvaluator, PanopticSemSegEvaluator])
def test_evaluators(evaluator: type, street_datasets: tuple[str, str]):
    found = []
    for device in ("cpu", "cuda"):
        with PretendGpu():
            measured = evaluator(street_datasets[1])
            for record in DatasetCatalog.get(street_datasets[1]):
                measured.process([record], [_output(device, (record["height"], record["width"]))])
            found.append(measured.evaluate())
    assert (
        found[0] == pytest.approx(found[1], nan_ok=True)
        if isinstance(found[0], float)
        else str(found[0]) == str(found[1])
    )


def test_the_evaluator_of_cityscapes(cityscapes_datasets: tuple[str, str]):
    found = []
    for device in ("cpu", "cuda"):
        with PretendGpu():
            measured = CityscapesInstanceEvaluator(cityscapes_datasets[1])
            for record in DatasetCatalog.get(cityscapes_datasets[1]):
                measured.process([record], [_output(device, (64, 128))])
            found.append(measured.evaluate())
    assert str(found[0]) == str(found[1])


def test_drawings_and_files(tiny_cfg: CfgNode, tmp_path: Path):
    metadata = MetadataCatalog.get(tiny_cfg.DATASETS.TEST[0])
    image = np.full((*SIZE, 3), 99, np.uint8)
    drawings = []
    for device in ("cpu", "cuda"):
        with (
            PretendGpu(),
            PanopticResultWriter(str(tmp_path / device), PanopticCategories.from_metadata(metadata)) as w,
        ):
            w.write(1, "a.jpg", _panoptic_seg(device), SEGMENTS)
            drawings.append(draw_panoptic(image, _panoptic_seg(device), SEGMENTS, metadata))
    assert np.array_equal(*drawings)
    for name in ("predictions.json", "predictions/a.png"):
        assert (tmp_path / "cpu" / name).read_bytes() == (tmp_path / "cuda" / name).read_bytes()


def test_losses_of_several_processes(monkeypatch: pytest.MonkeyPatch):
    """The other process counts as much as this one."""
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.mul_(2))
    sampled = [Instances(SIZE, gt_classes=torch.tensor(classes)) for classes in ([0, 4, 4], [1, 2, 4])]
    with PretendGpu() as gpu:
        on_gpu = [instances.to("cuda") for instances in sampled]
        losses = {"loss_cls": torch.full((), 3.0, device="cuda"), "loss_mask": torch.full((), 5.0, device="cuda")}
        with gpu.counting() as waits:
            rois, masks = count_rois(on_gpu, 4)
            averaged = average_over_processes(losses, {"loss_cls": rois, "loss_mask": masks})
        assert not waits
    assert (rois, int(on_host(masks))) == (6, 3)
    assert on_host(averaged) == {"loss_cls": 3.0, "loss_mask": 5.0}


def test_index_masks():
    """Cut out on a GPU they are cut out of one map after the other, drawn anew for each row."""
    index_map = torch.randint(0, 6, SIZE, dtype=torch.uint8)
    masks = IndexMasks(index_map, torch.tensor([3, 1, 3, 5, 1, 2, 9]))
    boxes = torch.rand(7, 4) * 20 + torch.tensor([0.0, 0, 30, 30])
    expected = BitMasks(masks.tensor).crop_and_resize(boxes, 14)
    assert torch.equal(masks.crop_and_resize(boxes, 14), expected)
    with PretendGpu() as gpu:
        on_gpu, boxes_on_gpu = masks.to("cuda"), boxes.to("cuda")
        with gpu.counting() as waits:
            cropped = on_gpu.crop_and_resize(boxes_on_gpu, 14)
        assert not waits
        assert torch.equal(on_host(cropped), expected)
        assert torch.equal(on_gpu.nonempty().cpu(), masks.nonempty())
        assert torch.equal(on_gpu.get_bounding_boxes().tensor, masks.get_bounding_boxes().tensor)
        assert torch.equal(on_host(on_gpu[1:3].tensor), masks[1:3].tensor)
