"""Two processes with half a batch each train as one process with the whole batch."""

import pytest
import torch
from detectron2.engine import launch
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from small_models import tiny_batch, tiny_cfg

from panoptic_fpn_ext.engine.device import distribute
from panoptic_fpn_ext.engine.processes.launch import end_process_groups
from panoptic_fpn_ext.engine.training.train_step import build_train_step

STEPS = 2


def _cfg(accumulate_steps):
    cfg = tiny_cfg()
    # Everything is sampled, so that random choices make no difference.
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = 4000
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 512
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE_STEPS = 4, accumulate_steps
    return cfg


def _batch():
    batch = tiny_batch(((64, 96), (96, 64), (64, 64), (96, 96)))
    batch[0]["sem_seg"][20:] = 255  # far fewer labelled pixels than the others
    batch[3]["instances"] = batch[3]["instances"][:1]
    for inputs in batch:
        # One size, as padding is part of an image's features.
        inputs["image"] = torch.nn.functional.pad(
            inputs["image"], (0, 96 - inputs["image"].shape[2], 0, 96 - inputs["image"].shape[1])
        )
        size = inputs["sem_seg"].shape
        inputs["sem_seg"] = torch.nn.functional.pad(inputs["sem_seg"], (0, 96 - size[1], 0, 96 - size[0]), value=255)
    return batch


def _train(path, accumulate_steps=1):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = distribute(build_model(_cfg(accumulate_steps)))
    rank, world_size = comm.get_rank(), comm.get_world_size()
    share = _batch()[rank * 4 // world_size : (rank + 1) * 4 // world_size]
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    step = build_train_step(_cfg(accumulate_steps), model, [share] * STEPS, optimizer)
    losses = []
    with EventStorage() as storage:
        for step.iter in range(STEPS):
            step.run_step()
            losses.append({k: v[0] for k, v in storage.latest().items() if "loss" in k})
            storage.step()
    if comm.is_main_process():
        weights = getattr(model, "module", model).state_dict()
        torch.save({"losses": losses, "weights": weights}, path)
    del model, step, optimizer
    end_process_groups()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    """Losses to 1e-5 and weights to 1e-5 of themselves, with unequal numbers of labelled pixels and instances."""
    _train(tmp_path / "one.pth")
    launch(_train, 2, dist_url="auto", args=(tmp_path / "two.pth",))
    one, two = (torch.load(tmp_path / name) for name in ("one.pth", "two.pth"))
    for expected, came in zip(one["losses"], two["losses"], strict=True):
        assert came == pytest.approx(expected, rel=1e-5)
    for name, weight in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weight, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.slow
def test_two_processes_with_micro_batches_agree(tmp_path):
    """Gradients are exchanged once a step; a micro-batch is one of all processes."""
    launch(_train, 2, dist_url="auto", args=(tmp_path / "two.pth", 2))
    losses = torch.load(tmp_path / "two.pth")["losses"]
    assert len(losses) == STEPS and all(torch.isfinite(torch.tensor(list(x.values()))).all() for x in losses)
