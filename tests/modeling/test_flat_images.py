"""Networks see images that are as flat or as small as images can be, and of any number of channels."""

import copy

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from small_models import tiny_batch, tiny_cfg

from panoptic_fpn_ext.modeling.acceleration import optimize_for_inference

SIZES = [(1, 200), (300, 2), (1, 1)]


def _flat(batch: list[dict], size: tuple[int, int]) -> list[dict]:
    """The first rows and columns of a batch, tiled to a size."""
    result = copy.deepcopy(batch)
    for item in result:
        height, width = size
        item["image"] = item["image"].tile(1, 5, 5)[:, :height, :width]
        item["sem_seg"] = torch.from_numpy(np.resize(np.arange(6), size)).long()
        item["instances"] = item["instances"][:0]
        item["instances"]._image_size = size
        item["height"], item["width"] = size[0] * 2, size[1] * 2
    return result


@pytest.mark.parametrize(("architecture", "channels"), [("PanopticFPNExt", 1), ("SeparatePanopticNetworks", 3)])
def test_losses_are_finite_and_maps_have_the_size(architecture: str, channels: int):
    cfg = tiny_cfg(architecture, depth=50)
    cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = 64  # 2 channels a group: a norm of one number would be nothing
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [100.0] * channels, [50.0] * channels
    torch.manual_seed(0)
    model = build_model(cfg)
    batch = tiny_batch(((64, 96),), compact=False)
    for item in batch:
        item["image"] = item["image"][:channels]
    for size in SIZES:
        flat = _flat(batch, size)
        with EventStorage():
            losses = model.train()(flat + batch)
        assert all(torch.isfinite(loss) for loss in losses.values())
        sum(losses.values()).backward()
        model.eval()
        for one in (model, optimize_for_inference(model)):
            with torch.no_grad():
                output = one(flat)[0]
            assert output["panoptic_seg"][0].shape == (2 * size[0], 2 * size[1])
            assert output["sem_seg"].shape == (6, 2 * size[0], 2 * size[1])
