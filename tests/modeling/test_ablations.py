"""The paper's other ways to train: weights, alternation, split channels. All are checked on gradients."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from small_models import tiny_batch, tiny_cfg

INSTANCE_LOSSES = {"loss_cls", "loss_box_reg", "loss_mask"}
RPN_LOSSES = {"loss_rpn_cls", "loss_rpn_loc"}


def _model(*opts: object) -> torch.nn.Module:
    torch.manual_seed(0)
    cfg = tiny_cfg()
    cfg.merge_from_list(list(opts))
    return build_model(cfg).train()


def _losses(model: torch.nn.Module, iteration: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)  # RoIs are sampled
    with EventStorage(iteration):
        return model(tiny_batch())


def _gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward(retain_graph=True)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("key", "scaled"),
    [
        ("MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", {"loss_sem_seg"}),
        ("MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT", INSTANCE_LOSSES),
    ],
)
def test_a_weight_scales_the_gradients_of_its_losses_and_no_other(key: str, scaled: set[str]):
    plain, weighted = _model(key, 1.0), _model(key, 0.25)
    expected, came = _losses(plain), _losses(weighted)
    assert set(came) == set(expected) == {"loss_sem_seg"} | INSTANCE_LOSSES | RPN_LOSSES
    for name in expected:
        factor = 0.25 if name in scaled else 1.0
        before, after = _gradients(plain, expected[name]), _gradients(weighted, came[name])
        assert before.keys() == after.keys()
        for parameter, gradient in before.items():
            rounding = 1e-5 * float(gradient.abs().max())
            wanted = factor * gradient
            torch.testing.assert_close(after[parameter], wanted, rtol=1e-4, atol=rounding, msg=f"{name}, {parameter}")


def test_alternation_trains_one_branch_an_iteration():
    model = _model("MODEL.PANOPTIC_FPN.ALTERNATE_LOSSES", True)
    both = _losses(_model())
    for iteration in range(4):
        losses = _losses(model, iteration)
        trained = {"loss_sem_seg"} if iteration % 2 else INSTANCE_LOSSES | RPN_LOSSES
        assert set(losses) == trained
        for name, loss in losses.items():
            torch.testing.assert_close(loss, both[name], msg=name)
        touched = {name.split(".")[0] for name in _gradients(model, sum(losses.values()))}
        branch = {"sem_seg_head"} if iteration % 2 else {"proposal_generator", "roi_heads"}
        assert touched == branch | {"backbone"}


def test_split_channels_give_each_branch_its_half():
    """The last convolution of a level makes the channels that a branch sees; the other half has no gradient."""
    model = _model("MODEL.PANOPTIC_FPN.SPLIT_FPN_CHANNELS", True)
    losses = _losses(model)
    width = model.backbone.output_shape()["p2"].channels
    for name, loss in losses.items():
        gradient = _gradients(model, loss)["backbone.fpn_output2.weight"]
        first, second = gradient.split(width // 2)
        seen, unseen = (second, first) if name == "loss_sem_seg" else (first, second)
        assert seen.abs().sum() > 0, name
        assert not unseen.any(), name
    with torch.no_grad():
        assert model.eval()(tiny_batch())[0]["panoptic_seg"][0].shape == (64, 96)


def test_an_odd_pyramid_cannot_be_split():
    with pytest.raises(ValueError, match=r"MODEL\.FPN\.OUT_CHANNELS to an even number"):
        _model("MODEL.PANOPTIC_FPN.SPLIT_FPN_CHANNELS", True, "MODEL.FPN.OUT_CHANNELS", 33)
