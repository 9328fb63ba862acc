"""One training step: mixed precision on any device, gradient accumulation, and no step on what is not finite."""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

__all__ = ["SkippedStep", "TrainStep", "build_train_step", "choose_train_step"]

logger = logging.getLogger(__name__)

Batch = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class SkippedStep:
    """A step without an update, as one process saw it.

    ``losses``: values by name. ``gradients``: names of the parameters whose gradient is not finite. ``images``:
    ``image_id`` and ``file_name`` of the batch, as far as it has them.
    """

    losses: dict[str, float]
    gradients: list[str]
    images: list[dict[str, Any]]


def build_train_step(cfg: CfgNode, model: nn.Module, data_loader: Any, optimizer: torch.optim.Optimizer) -> "TrainStep":
    """The step that ``SOLVER.AMP.ENABLED`` and ``SOLVER.ACCUMULATE_STEPS`` ask for, see :func:`choose_train_step`.

    Raises:
        ValueError: ``SOLVER.IMS_PER_BATCH`` cannot be split into that many micro-batches.
    """
    steps = cfg.SOLVER.get("ACCUMULATE_STEPS", 1)
    if steps < 1 or cfg.SOLVER.IMS_PER_BATCH % steps:
        raise ValueError(
            f"SOLVER.ACCUMULATE_STEPS must be a divisor of SOLVER.IMS_PER_BATCH = {cfg.SOLVER.IMS_PER_BATCH}, got "
            f"{steps}."
        )
    mixed = cfg.SOLVER.AMP.ENABLED
    return choose_train_step(model, data_loader, optimizer, accumulate_steps=steps, mixed_precision=mixed)


def choose_train_step(
    model: nn.Module,
    data_loader: Any,
    optimizer: torch.optim.Optimizer,
    *,
    accumulate_steps: int = 1,
    mixed_precision: bool = False,
) -> "TrainStep":
    """A :class:`TrainStep`, whose arguments these are.

    ``mixed_precision`` is float16 with scaled losses on a GPU and bfloat16 on a CPU. A run may be resumed with another
    of these steps and on another device, which detectron2's `AMPTrainer` refuses where losses were not scaled.
    """
    on_gpu = next(model.parameters()).is_cuda
    precision = (torch.float16 if on_gpu else torch.bfloat16) if mixed_precision else None
    return TrainStep(model, data_loader, optimizer, accumulate_steps=accumulate_steps, precision=precision)


class TrainStep(SimpleTrainer):
    """`SimpleTrainer` with micro-batches and autocast, whose host waits for a GPU once for all losses.

    A step that would spoil the weights is left out: where a loss is not finite in any process, or a gradient (of scaled
    losses they may be), no process changes its weights or the statistics of its batch norms, and :attr:`skipped` tells
    of it.

    A batch is split into ``accumulate_steps`` equal micro-batches, in order. Losses and gradients are the averages over
    them. What a loss is averaged over (labelled pixels, sampled RoIs) is counted within a micro-batch, just as
    detectron2's data-parallel training counts it within a process: n micro-batches are to it what n processes are.
    Batch norms that learn see micro-batches.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Any,
        optimizer: torch.optim.Optimizer,
        *,
        accumulate_steps: int = 1,
        precision: torch.dtype | None = None,
    ) -> None:
        """
        Args:
            model: takes a list of dicts and returns a dict of scalar losses.
            data_loader: gives lists whose length is a multiple of ``accumulate_steps``.
            optimizer: of the model's parameters.
            accumulate_steps: micro-batches in a step.
            precision: of autocast; None computes in full precision. With float16 the losses are scaled as in
                `AMPTrainer`.
        """
        super().__init__(model, data_loader, optimizer)
        self.accumulate_steps = accumulate_steps
        self.precision = precision
        self.device_type = next(model.parameters()).device.type
        scaled = precision == torch.float16
        self.grad_scaler = torch.amp.GradScaler(self.device_type, enabled=scaled)
        self.skipped: SkippedStep | None = None
        self._norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]

    def run_step(self) -> None:
        """One update of the weights.

        Raises:
            ValueError: a batch that cannot be split evenly.
        """
        assert self.model.training, "the model was changed to eval mode"
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        self.optimizer.zero_grad()
        statistics = [buffer.clone() for buffer in self._statistics()]
        sums = self.forward_backward(batch)
        self.after_backward()
        losses, self.skipped = self._judge(sums, batch)
        if self.skipped is not None:
            for buffer, former in zip(self._statistics(), statistics, strict=True):
                buffer.copy_(former)
            return
        self._write_metrics(losses, data_time)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def forward_backward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Losses of a batch; their gradients are added to those of the parameters."""
        sums: dict[str, torch.Tensor] = {}
        for micro_batch, context in self._micro_batches(batch):
            with context:
                for name, loss in self._forward_backward(micro_batch).items():
                    sums[name] = sums[name] + loss if name in sums else loss
        return sums

    def _statistics(self) -> list[torch.Tensor]:
        """What batch norms learn from a forward pass."""
        return [buffer for norm in self._norms if norm.training for buffer in norm.buffers()]

    def _judge(
        self, losses: dict[str, torch.Tensor], batch: Batch
    ) -> tuple[dict[str, torch.Tensor], SkippedStep | None]:
        """The losses on the host, and what is not finite: the same decision in all processes."""
        named = [] if self.grad_scaler.is_enabled() else list(self.model.named_parameters())
        gradients = {name: p.grad for name, p in named if p.grad is not None}
        largest = torch._foreach_norm(list(gradients.values()), float("inf")) if gradients else ()
        found = torch.stack([value.float() for value in (*losses.values(), *largest)])
        is_unsound = (~found.isfinite()).any().float()
        if comm.get_world_size() > 1:
            distributed.all_reduce(is_unsound, distributed.ReduceOp.MAX)
        *values, is_unsound = torch.cat([found, is_unsound[None]]).cpu()
        on_host = dict(zip(losses, values, strict=False))
        if not is_unsound:
            return on_host, None
        unsound = [name for name, norm in zip(gradients, values[len(losses) :], strict=True) if not norm.isfinite()]
        images: list[dict[str, Any]] = [
            {key: one[key] for key in ("image_id", "file_name") if key in one} for one in batch
        ]
        return on_host, SkippedStep({name: float(loss) for name, loss in on_host.items()}, unsound, images)

    def _micro_batches(self, batch: Batch) -> Iterator[tuple[Batch, contextlib.AbstractContextManager[Any]]]:
        """Parts of a batch, with what keeps processes from exchanging gradients before the last one."""
        size, rest = divmod(len(batch), self.accumulate_steps)
        if rest or not size:
            raise ValueError(
                f"A batch of {len(batch)} images a process cannot be split into SOLVER.ACCUMULATE_STEPS = "
                f"{self.accumulate_steps} equal parts."
            )
        for i in range(self.accumulate_steps):
            is_last = i + 1 == self.accumulate_steps
            waits = isinstance(self.model, DistributedDataParallel) and not is_last
            yield batch[i * size : (i + 1) * size], self.model.no_sync() if waits else contextlib.nullcontext()

    def _forward_backward(self, micro_batch: Batch) -> dict[str, torch.Tensor]:
        """Add a micro-batch's share to the gradients; returns its share of the losses."""
        with torch.autocast(self.device_type, dtype=self.precision, enabled=self.precision is not None):
            losses = self.model(micro_batch)
            shares = {name: loss / self.accumulate_steps for name, loss in losses.items()}
            total = sum(shares.values())
        self.grad_scaler.scale(total).backward()
        return {name: share.detach() for name, share in shares.items()}

    def _write_metrics(
        self, loss_dict: Mapping[str, torch.Tensor], data_time: float, prefix: str = "", iter: int | None = None
    ) -> None:
        values = torch.stack([loss.detach() for loss in loss_dict.values()]).cpu()
        super()._write_metrics(dict(zip(loss_dict, values, strict=True)), data_time, prefix, iter)

    def state_dict(self) -> dict[str, Any]:
        """As `AMPTrainer`'s where losses are scaled, else as `SimpleTrainer`'s."""
        state: dict[str, Any] = super().state_dict()
        if self.grad_scaler.is_enabled():
            state["grad_scaler"] = self.grad_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`; it also takes the states of the other steps and of `AMPTrainer`.

        Where the checkpoint has no scale of the losses, scaling begins afresh.
        """
        super().load_state_dict(state_dict)
        scale = state_dict.get("grad_scaler")  # empty, where it came from a scaler that was off
        if not self.grad_scaler.is_enabled():
            return
        if scale:
            self.grad_scaler.load_state_dict(scale)
        else:
            logger.info("The checkpoint was written without loss scaling (SOLVER.AMP.ENABLED): it begins afresh.")
