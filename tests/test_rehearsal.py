"""What runs on a GPU, rehearsed on a pretended one: the CPU's results, no mixed devices, few waits of the host."""

import contextlib
import copy
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, SimpleTrainer
from detectron2.modeling import build_model
from detectron2.solver.build import get_default_optimizer_params
from detectron2.utils.events import EventStorage
from oracles import upsampled_cross_entropy_plain
from pretend_gpu import GpuTensor, PretendGpu, Waits, on_host
from small_models import tiny_batch, tiny_cfg

from panoptic_fpn_ext.engine import PanopticPredictor, Trainer
from panoptic_fpn_ext.engine.train_step import TrainStep, choose_train_step
from panoptic_fpn_ext.modeling.losses import upsampled_cross_entropy

Change = Callable[[CfgNode], None]


def _cascade(cfg: CfgNode) -> None:
    cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = "CascadeROIHeads", True
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 500


def _two_networks(cfg: CfgNode) -> None:
    cfg.MODEL.META_ARCHITECTURE = "SeparatePanopticNetworks"


def _all_categories(cfg: CfgNode) -> None:
    """The semantic head knows every thing by its own label, not one for all."""
    cfg.MODEL.PANOPTIC_FPN.COMBINE.THING_SEM_SEG_IDS = [0, 1, 2, 4]


def _panoptic_only(cfg: CfgNode) -> None:
    cfg.MODEL.PANOPTIC_FPN.OUTPUTS = ["panoptic_seg"]


def _split(cfg: CfgNode) -> None:
    cfg.MODEL.PANOPTIC_FPN.SPLIT_FPN_CHANNELS = True


def _checkpointed(cfg: CfgNode) -> None:
    cfg.MODEL.BACKBONE.CHECKPOINT_ACTIVATIONS = True


def _alternate(cfg: CfgNode) -> None:
    cfg.MODEL.PANOPTIC_FPN.ALTERNATE_LOSSES = True


def _as_it_is(cfg: CfgNode) -> None:
    """Panoptic FPN."""


def _crowded(cfg: CfgNode) -> None:
    """A hundred candidates an image, which lie on one another."""
    cfg.MODEL.RPN.NMS_THRESH, cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST = 0.9, 1.0


def _built(change: Change = _as_it_is, architecture: str = "PanopticFPNExt") -> Any:
    """A tiny network that knows nothing and is sure of it."""
    cfg = tiny_cfg(architecture)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = 0.0
    cfg.MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT = 10
    change(cfg)
    torch.manual_seed(0)
    model = build_model(cfg)
    with torch.no_grad():
        model.proposal_generator.rpn_head.objectness_logits.weight.normal_()
        model.proposal_generator.rpn_head.anchor_deltas.weight.normal_(std=0.3)
        model.sem_seg_head.predictor.weight.normal_()
        model.roi_heads.mask_head.predictor.weight.normal_()
    return model


def _images(*sizes: tuple[int, int]) -> list[dict[str, Any]]:
    return [{k: v for k, v in one.items() if k in ("image", "height", "width")} for one in tiny_batch(sizes)]


def _assert_close(ours: Any, expected: Any, **tolerance: float) -> None:
    torch.testing.assert_close(ours, expected, **(tolerance or {"rtol": 1e-4, "atol": 1e-5}))


# -- inference --------------------------------------------------------------------------------------------------------


def _plain(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Outputs as containers of tensors and numbers."""
    found = [dict(output) for output in on_host(outputs)]
    for output in found:
        if "instances" in output:
            instances = output.pop("instances")
            output["boxes"] = on_host(instances.pred_boxes.tensor)
            output |= {k: on_host(v) for k, v in instances.get_fields().items() if k != "pred_boxes"}
    return found


@torch.no_grad()
@pytest.mark.parametrize("change", [_as_it_is, _cascade, _two_networks, _all_categories, _panoptic_only, _split])
def test_predictions_are_those_of_the_cpu(change: Change):
    model, inputs = _built(change).eval(), _images((64, 96), (96, 64))
    inputs[1]["height"] = 150
    expected = _plain(model(inputs))
    with PretendGpu():
        outputs = copy.deepcopy(model).to("cuda")(inputs)
        assert isinstance(outputs[0]["panoptic_seg"][0], GpuTensor)
    _assert_close(_plain(outputs), expected)
    assert len(expected[0]["panoptic_seg"][1]) > 4


@torch.no_grad()
def test_empty_boxes_leave_no_row():
    """Given boxes, as test-time augmentation gives them, may lie outside of the image."""
    model, inputs = _built().eval(), _images((64, 96))
    given = model(inputs)[0]["instances"][:3]
    given.remove("pred_masks")
    given.pred_boxes.tensor[1] = torch.tensor([-9.0, -9, -1, -1])
    expected = _plain(model.inference(inputs, [given]))
    with PretendGpu():
        outputs = _plain(copy.deepcopy(model).to("cuda").inference(inputs, [given]))
    _assert_close(outputs, expected)
    assert len(expected[0]["boxes"]) == 2


@torch.no_grad()
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_predictions_in_half_precision(precision: torch.dtype):
    """By CUDA's list of operators; the numbers are rough, the types must fit."""
    model, inputs = _built().eval(), _images((64, 96))
    with PretendGpu(seen_as="cuda"), torch.autocast("cuda", precision):
        output = on_host(copy.deepcopy(model).to("cuda")(inputs))[0]
    panoptic_seg, segments = output["panoptic_seg"]
    assert set(panoptic_seg.unique().tolist()) - {0} == {segment["id"] for segment in segments}
    assert output["sem_seg"].dtype == torch.float32
    expected = model(inputs)[0]["sem_seg"]
    assert (output["sem_seg"].argmax(0) == expected.argmax(0)).float().mean() > 0.9


def test_the_predictor(tiny_cfg: CfgNode):
    tiny_cfg.MODEL.WEIGHTS = _trained(tiny_cfg)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    expected = _plain([PanopticPredictor(tiny_cfg)(image)])
    tiny_cfg.MODEL.DEVICE = "cuda"
    with PretendGpu():
        predictor = PanopticPredictor(tiny_cfg)
        assert predictor.model.device.type == "cuda"
        _assert_close(_plain([predictor(image)]), expected)


# -- training ---------------------------------------------------------------------------------------------------------


def _optimizer(model: torch.nn.Module, name: str) -> torch.optim.Optimizer:
    if name == "SGD":
        return torch.optim.SGD(get_default_optimizer_params(model, base_lr=1e-3), 1e-3, momentum=0.9)
    return torch.optim.AdamW(model.parameters(), 1e-5)


def _train(model: torch.nn.Module, optimizer: str, iterations: int = 2, **step: Any) -> dict[str, Any]:
    """Losses of each iteration, and the parameters after them."""
    trainer = choose_train_step(model.train(), [tiny_batch()] * iterations, _optimizer(model, optimizer), **step)
    torch.manual_seed(1)
    found = {}
    with EventStorage() as storage:
        for trainer.iter in range(iterations):
            storage.iter = trainer.iter
            trainer.run_step()
            found |= {(trainer.iter, k): v for k, (v, _) in storage.latest().items() if "time" not in k}
    return {"losses": found, "parameters": {k: on_host(v) for k, v in model.state_dict().items()}}


@pytest.mark.parametrize(
    ("change", "optimizer", "steps"),
    [
        (_as_it_is, "SGD", 1),
        (_as_it_is, "AdamW", 2),
        (_cascade, "SGD", 1),
        (_two_networks, "SGD", 1),
        (_split, "SGD", 1),
        (_checkpointed, "SGD", 1),
        (_alternate, "SGD", 2),
    ],
)
def test_training_is_that_of_the_cpu(change: Change, optimizer: str, steps: int):
    model = _built(change)
    on_cpu = copy.deepcopy(model)
    expected = _train(on_cpu, optimizer, accumulate_steps=steps)
    with PretendGpu():
        found = _train(model.to("cuda"), optimizer, accumulate_steps=steps)
    _assert_close(found["losses"], expected["losses"], rtol=1e-3, atol=1e-4)
    _assert_close(found["parameters"], expected["parameters"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2])
def test_training_in_half_precision(steps: int):
    """Losses are scaled, types fit, and what is learnt is about the same."""
    model = _built()
    expected = _train(copy.deepcopy(model), "SGD", accumulate_steps=steps)["losses"]
    with PretendGpu(seen_as="cpu"):
        found = _train(model.to("cuda"), "SGD", accumulate_steps=steps, mixed_precision=True)["losses"]
    assert found[0, "loss_sem_seg"] == pytest.approx(expected[0, "loss_sem_seg"], rel=0.05)
    assert all(np.isfinite(value) for value in found.values())


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (5, 17)])
def test_the_semantic_loss_by_sums_is_that_by_products(scale: int, size: tuple[int, int]):
    """On a GPU no product is computed, since TF32 might round it."""
    logits = torch.randn(2, 5, *size, dtype=torch.float64)
    targets = torch.randint(0, 5, (2, size[0] * scale, size[1] * scale))
    targets[torch.rand(targets.shape) > 0.8] = 255
    x = logits.clone().requires_grad_()
    expected = upsampled_cross_entropy_plain(x, targets, scale, 255)
    expected.backward()
    with PretendGpu(), _forbidden("mm", "bmm", "addmm", "baddbmm"):
        y = logits.to("cuda").requires_grad_()
        loss = upsampled_cross_entropy(y, targets.to("cuda"), scale, 255)
        loss.backward()
    _assert_close((on_host(loss), on_host(y.grad)), (expected.detach(), x.grad))


@contextlib.contextmanager
def _forbidden(*operators: str) -> Iterator[None]:
    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert func.overloadpacket._qualified_op_name.removeprefix("aten::") not in operators
            return func(*args, **(kwargs or {}))

    with Watch():
        yield


# -- runs: trainer, evaluators, checkpoints ---------------------------------------------------------------------------


def _trained(cfg: CfgNode, resume: bool = False) -> str:
    """Path of the last checkpoint."""
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return f"{cfg.OUTPUT_DIR}/model_final.pth"


def test_a_run_moves_to_the_gpu_and_back(tiny_cfg: CfgNode):
    """Training, all evaluators and checkpoints, each run resumed on the other device."""
    weights = _trained(tiny_cfg)
    tiny_cfg.MODEL.DEVICE, tiny_cfg.SOLVER.MAX_ITER = "cuda", 4
    with PretendGpu():
        _trained(tiny_cfg, resume=True)
        model = Trainer.build_model(tiny_cfg)
        model.load_state_dict(torch.load(weights)["model"])
        results = Trainer.test(tiny_cfg, model)
    saved = torch.load(weights, weights_only=True)
    assert saved["iteration"] == 3 and all(type(value) is torch.Tensor for value in saved["model"].values())
    tiny_cfg.MODEL.DEVICE, tiny_cfg.SOLVER.MAX_ITER = "cpu", 5
    model = Trainer.build_model(tiny_cfg)
    model.load_state_dict(saved["model"])
    expected = Trainer.test(tiny_cfg, model)
    assert set(results) == {"sem_seg", "bbox", "segm", "panoptic_seg"}
    _trained(tiny_cfg, resume=True)
    for task, figures in expected.items():
        assert results[task] == pytest.approx(figures, nan_ok=True, abs=1e-3), task


def test_a_run_in_half_precision_moves_to_the_gpu(tiny_cfg: CfgNode):
    """On a CPU it is bfloat16, without a scale of the losses."""
    tiny_cfg.SOLVER.AMP.ENABLED, tiny_cfg.TEST.EVAL_PERIOD, tiny_cfg.DATASETS.TEST = True, 0, ()
    _trained(tiny_cfg)
    tiny_cfg.MODEL.DEVICE, tiny_cfg.SOLVER.MAX_ITER = "cuda", 3
    with PretendGpu(seen_as="cpu"):
        saved = torch.load(_trained(tiny_cfg, resume=True), weights_only=False)
    assert saved["iteration"] == 2
    # The first scale may be too much for float16: then it is halved, and that step changes nothing.
    assert saved["trainer"]["_trainer"]["grad_scaler"]["scale"] in (2**15, 2**16)


class _Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, batch: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"loss": self.layer(torch.stack(batch).to(self.layer.weight.device)).square().mean()}


STEPS: dict[str, Callable[..., SimpleTrainer]] = {
    "SimpleTrainer": SimpleTrainer,
    "AMPTrainer": AMPTrainer,
    "full precision": TrainStep,
    "two micro-batches": lambda *args: TrainStep(*args, accumulate_steps=2),
    "bfloat16": lambda *args: TrainStep(*args, precision=torch.bfloat16),
    "float16": lambda *args: TrainStep(*args, precision=torch.float16),
}


@pytest.mark.parametrize("writer", STEPS)
@pytest.mark.parametrize("reader", [name for name in STEPS if name != "AMPTrainer"])
def test_any_step_goes_on_where_another_stopped(writer: str, reader: str):
    with PretendGpu(seen_as="cpu"):
        step = _line_step(writer)
        step.iter = 7
        _run(step)
        written = copy.deepcopy(step.state_dict())
        step = _line_step(reader)
        step.load_state_dict(written)
        assert step.iter == 7
        _run(step)


def _line_step(name: str) -> SimpleTrainer:
    model = _Line().to("cuda")
    return STEPS[name](model, [[torch.ones(2)] * 2], torch.optim.SGD(model.parameters(), 0.1, momentum=0.9))


def _run(step: SimpleTrainer) -> None:
    before = copy.deepcopy(on_host(step.model.layer.weight))
    with EventStorage(step.iter):
        step.run_step()
    assert not torch.equal(before, on_host(step.model.layer.weight))


# -- what the rehearsal finds -----------------------------------------------------------------------------------------


def _on_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that forgets the device of its result."""

    def moved(*args: Any, **kwargs: Any) -> Any:
        return torch.utils._pytree.tree_map_only(torch.Tensor, lambda x: x.cpu(), function(*args, **kwargs))

    return moved


FAULTS = [
    ("combiner.heuristic.paste_mask", "inference"),
    ("combiner.heuristic.label_free_pixels", "inference"),
    ("combiner.heuristic._label_areas", "inference"),
    ("postprocessing.resize.composed_taps", "inference"),
    ("postprocessing.instances.paste_masks", "inference"),
    ("panoptic_fpn.upsample_sem_seg_logits", "inference"),
    ("panoptic_fpn.raw_logits", "inference"),
    ("losses._taps", "training"),
    ("panoptic_fpn.sem_seg_targets", "training"),
    ("sem_seg_head.upsampled_cross_entropy", "training"),
]


@pytest.mark.parametrize(("function", "during"), FAULTS)
def test_a_forgotten_device_is_found(function: str, during: str, monkeypatch: pytest.MonkeyPatch):
    """On a CPU the same fault changes nothing; there every other test passes with it."""
    module, name = f"panoptic_fpn_ext.modeling.{function}".rsplit(".", 1)
    original = getattr(importlib.import_module(module), name)
    model = _built()
    with PretendGpu():
        model.to("cuda")
        monkeypatch.setattr(f"{module}.{name}", _on_cpu(original))
        if during == "training":
            with pytest.raises(RuntimeError, match=r"same device|on cpu"):
                _train(model, "SGD", iterations=1)
            return
        try:
            output = model.eval()(_images((64, 96)))[0]
        except RuntimeError as error:
            assert "same device" in str(error) or "on cpu" in str(error)
        else:  # an output itself
            tensors = [output["sem_seg"], output["panoptic_seg"][0], output["instances"].pred_masks]
            assert not all(isinstance(tensor, GpuTensor) for tensor in tensors)


# -- what the host waits for ------------------------------------------------------------------------------------------


def inference_waits(architecture: str) -> Waits:
    """Of a prediction of one image with a hundred candidates."""
    model = _built(_crowded, architecture).eval()
    with PretendGpu() as gpu, torch.no_grad():
        model.to("cuda")
        with gpu.counting() as waits:
            output = model(_images((128, 192)))[0]
    assert len(output["instances"]) == 100
    return waits


def training_waits(architecture: str) -> Waits:
    """Of a training step with one image: losses, gradients, update."""
    model = _built(architecture=architecture)
    batch = tiny_batch(((128, 192),), compact=architecture != "PanopticFPN")
    with PretendGpu() as gpu, EventStorage():
        model.to("cuda").train()
        trainer = choose_train_step(model, [batch], _optimizer(model, "SGD"))
        trainer.iter = 0
        with gpu.counting() as waits:
            trainer.run_step()
    return waits


def _own(waits: Waits) -> dict[str, int]:
    return {wait.line: count for wait, count in waits.items() if wait.line.startswith("panoptic_fpn_ext")}


def test_waits_of_a_prediction():
    waits = inference_waits("PanopticFPNExt")
    assert sum(_own(waits).values()) <= 2, _own(waits)
    assert waits.total() <= 40, waits
    assert inference_waits("PanopticFPN").total() > 500


def test_waits_after_the_detector_do_not_grow_with_what_it_found():
    model = _built(_crowded).eval()
    with PretendGpu() as gpu, torch.no_grad():
        model.to("cuda")
        raw = model.raw_outputs(_images((64, 96), (96, 64)))
        for instances, logits, size in zip(raw.instances, raw.sem_seg_logits, raw.image_sizes, strict=True):
            for count in (0, 1, 100):
                with gpu.counting() as waits:
                    model._postprocess_one(instances[:count], logits, size, {"height": 111, "width": 99})
                assert waits.total() <= 2, waits


def test_waits_of_a_training_step():
    ours, theirs = training_waits("PanopticFPNExt"), training_waits("PanopticFPN")
    assert sum(_own(ours).values()) <= 5, _own(ours)  # uploads of targets, a check of their labels, the losses
    assert ours.total() <= 70 and ours.total() < theirs.total(), (ours, theirs.total())


def test_a_hidden_wait_is_counted(monkeypatch: pytest.MonkeyPatch):
    from panoptic_fpn_ext.modeling.combiner import heuristic

    def asking(*args: Any) -> torch.Tensor:
        mask = paste_mask(*args)
        bool(mask.any())
        return mask

    paste_mask = heuristic.paste_mask
    monkeypatch.setattr(heuristic, "paste_mask", asking)
    waits = inference_waits("PanopticFPNExt")
    assert waits.total() > 100
    assert any(wait.line.startswith(f"{__name__}:") and count == 100 for wait, count in waits.items())


def test_the_gpu_itself():
    with PretendGpu() as gpu:
        x = torch.ones(3, device="cuda")
        assert isinstance(x, GpuTensor) and x.is_cuda and x.device == torch.device("cuda", 0)
        for fault in (
            lambda: x + torch.ones(3),
            lambda: torch.ones(3)[x.long()],
            x.numpy,
            lambda: torch.stack([x, x.cpu()]),
        ):
            with pytest.raises((RuntimeError, TypeError)):
                fault()
        assert (x + torch.tensor(1.0)).tolist() == [2, 2, 2]
        with gpu.counting() as waits:
            x.sum().item()
            x[x > 0]
            torch.ones(3).to(x)
            x[[0, 1]]
            torch.cuda.synchronize()
        assert sorted(wait.kind for wait in waits.elements()) == ["read", "size", "synchronize", "upload", "upload"]
        assert all(wait.line.startswith(f"{__name__}:") for wait in waits)
    assert torch.cuda.is_available() is False or torch.cuda.device_count() > 0


if __name__ == "__main__":
    sys.stdout.write("| waits of the host | detectron2 | ours | in our own lines |\n|---|---|---|---|\n")
    for what, count in (("prediction, 100 candidates", inference_waits), ("training step", training_waits)):
        theirs, ours = count("PanopticFPN"), count("PanopticFPNExt")
        sys.stdout.write(f"| {what} | {theirs.total()} | {ours.total()} | {sum(_own(ours).values())} |\n")
