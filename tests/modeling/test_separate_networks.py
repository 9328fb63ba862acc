"""Two networks beside one: the same features in, the same outputs; and nothing in common."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from small_models import tiny_batch, tiny_cfg

from panoptic_fpn_ext.modeling.separate_networks import join_state_dicts


def _model(architecture: str, *opts: object) -> torch.nn.Module:
    torch.manual_seed(0)
    cfg = tiny_cfg(architecture)
    cfg.merge_from_list(list(opts))
    return build_model(cfg)


def _losses(model: torch.nn.Module, batch: list[dict]) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)  # RoIs are sampled
    with EventStorage():
        return model.train()(batch)


def _panoptic(model: torch.nn.Module, batch: list[dict]) -> list[dict]:
    with torch.no_grad():
        return model.eval()(batch)


def _gradients(model: torch.nn.Module, losses: dict[str, torch.Tensor], names: tuple[str, ...]) -> set[str]:
    """Top modules that a sum of losses has a gradient in."""
    model.zero_grad()
    sum(loss for name, loss in losses.items() if name in names).backward(retain_graph=True)
    return {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def test_with_equal_backbones_it_is_one_network():
    one, two = _model("PanopticFPNExt"), _model("SeparatePanopticNetworks")
    state = one.state_dict()
    two.load_state_dict(join_state_dicts(state, state))
    batch = tiny_batch()
    expected, came = _losses(one, batch), _losses(two, batch)
    assert list(came) == list(expected)
    for name, loss in expected.items():
        torch.testing.assert_close(came[name], loss, msg=name)
    for a, b in zip(_panoptic(one, batch), _panoptic(two, batch), strict=True):
        assert torch.equal(a["panoptic_seg"][0], b["panoptic_seg"][0])
        torch.testing.assert_close(a["sem_seg"], b["sem_seg"])


def test_no_parameter_is_shared():
    model = _model("SeparatePanopticNetworks")
    losses = _losses(model, tiny_batch())
    semantic = _gradients(model, losses, ("loss_sem_seg",))
    instance = _gradients(model, losses, tuple(n for n in losses if n != "loss_sem_seg"))
    assert semantic == {"semantic_backbone", "sem_seg_head"}
    assert instance == {"backbone", "proposal_generator", "roi_heads"}


def test_parts_trained_apart_make_the_whole():
    """Outputs of a joined model are those of its halves, which are detectron2's own architectures."""
    instance, semantic = _model("GeneralizedRCNN"), _model("SemanticSegmentor")
    joined = _model("SeparatePanopticNetworks", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)
    instance.roi_heads.box_predictor.test_score_thresh = 0.0
    joined.load_state_dict(join_state_dicts(instance.state_dict(), semantic.state_dict()))
    batch = tiny_batch()
    together = _panoptic(joined, batch)
    for a, b, c in zip(together, _panoptic(instance, batch), _panoptic(semantic, batch), strict=True):
        assert len(a["instances"]) > 0
        assert torch.equal(a["instances"].pred_boxes.tensor, b["instances"].pred_boxes.tensor)
        assert torch.equal(a["instances"].pred_masks, b["instances"].pred_masks)
        torch.testing.assert_close(a["sem_seg"], c["sem_seg"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("outputs", [["sem_seg"], ["instances"]])
def test_only_the_network_that_is_asked_for_runs(outputs: list[str]):
    model = _model("SeparatePanopticNetworks", "MODEL.PANOPTIC_FPN.OUTPUTS", outputs)
    idle = model.backbone if outputs == ["sem_seg"] else model.semantic_backbone
    idle.forward = None
    assert set(_panoptic(model, tiny_batch())[0]) == set(outputs)


def test_a_shared_pyramid_is_not_there_to_split():
    with pytest.raises(ValueError, match="SPLIT_FPN_CHANNELS"):
        _model("SeparatePanopticNetworks", "MODEL.PANOPTIC_FPN.SPLIT_FPN_CHANNELS", True)
