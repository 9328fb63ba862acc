"""A copy of a model that only predicts, on a CPU, in less time.

The modules that ``table.ACCELERATIONS`` knows are replaced; everything else stays as it is. So it serves any model of
detectron2's parts, whatever its meta-architecture.
"""

import contextlib
import copy
import functools
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import nn

from .bfloat16 import cpu_has_bfloat16
from .replace import When, replace_modules, take_over
from .table import ACCELERATIONS
from .winograd import share_choices

__all__ = ["optimize_for_inference"]

Model = TypeVar("Model", bound=nn.Module)


_PRECISIONS = {"float32": When.INFERENCE, "bfloat16": When.BFLOAT16}


def optimize_for_inference(
    model: Model, example_inputs: list[dict[str, Any]] | None = None, *, precision: str = "float32"
) -> Model:
    """Copy a model and make the copy predict faster on a CPU.

    Batch norms are folded into their convolutions; ReLUs and the sums of residual blocks and of the pyramid work in
    place; 3×3 convolutions take the faster of the direct and the Winograd algorithm, other convolutions have channels
    last; RoIAlign uses all cores and vector units; the mask head computes masks of the predicted classes only.

    Which algorithm is faster is measured once for each kind of convolution and size of map, the first time it occurs.
    All of it takes as long as two or three predictions.

    Args:
        model: in evaluation mode, float32 on a CPU: `PanopticFPNExt` or any other made of detectron2's parts. It is not
            changed.
        example_inputs: as the model takes them, with images of the size that is to be predicted: they are
            predicted once, so that no later call spends time on measuring.
        precision: "float32", or "bfloat16" for layers that compute with weights and maps of half the size, on a CPU
            that has such products (avx512_bf16 or amx_bf16). Boxes, scores, suppression and merging stay float32.

    Returns:
        A model of the same class, attributes and outputs, raw ones within 1e-3 of the largest in float32. Its
        parameters are not those of a checkpoint: save the original. Hooks belong on the original too: here some modules
        are not called, and what they gave is overwritten. It cannot go back to training. Where it is moved to a GPU or
        to another precision it computes the usual way.

    Raises:
        ValueError: the model is in training mode, or not all of it is float32 on a CPU; another precision, or one that
            this CPU does not have.
    """
    _check(model)
    _check_precision(precision)
    optimized = copy.deepcopy(model).requires_grad_(False)
    optimized = replace_modules(optimized, [row for row in ACCELERATIONS if _PRECISIONS[precision] in row.when])
    share_choices(optimized)
    optimized = _forbid_training(optimized)
    if example_inputs is not None:
        with torch.no_grad():
            optimized(example_inputs)
    result: Model = optimized
    return result


def _check(model: nn.Module) -> None:
    if model.training:
        raise ValueError(
            f"optimize_for_inference needs a model in evaluation mode, got a {type(model).__name__} in training mode; "
            "call .eval() first."
        )
    for name, parameter in model.named_parameters():
        if parameter.device.type != "cpu" or parameter.dtype != torch.float32:
            raise ValueError(
                f"optimize_for_inference makes models faster that are float32 on a CPU, but {name} is "
                f"{parameter.dtype} on {parameter.device}; use the model as it is, or .float().cpu() first."
            )


def _check_precision(precision: str) -> None:
    if precision not in _PRECISIONS:
        raise ValueError(f"precision is one of {', '.join(_PRECISIONS)}, got {precision!r}.")
    if precision == "bfloat16" and not cpu_has_bfloat16():
        raise ValueError(
            "This CPU has no products of bfloat16 (avx512_bf16 or amx_bf16), so that precision would take longer than "
            "float32: leave precision at float32."
        )


def _forbid_training(model: Any) -> Any:
    return model if isinstance(model, _InferenceOnly) else take_over(_inference_only(model.__class__), model)


class _InferenceOnly(nn.Module):
    """What a class gets in front of it so that its models stay in evaluation mode."""

    _original: type[nn.Module]

    def train(self, mode: bool = True) -> "_InferenceOnly":
        """Only ``mode=False`` is possible."""
        if mode:
            raise RuntimeError(
                "This model was made by optimize_for_inference and cannot be trained: its norms are part of its "
                "convolutions. Train the model it was made from, and optimize that again."
            )
        return super().train(False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """That of the model; layers with weights of bfloat16 take what is float32 too."""
        weight = next(self.parameters(), None)
        with contextlib.ExitStack() as stack:
            if weight is not None and weight.dtype == torch.bfloat16:
                stack.enter_context(torch.autocast(weight.device.type, torch.bfloat16))
            return super().forward(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[type[nn.Module]], dict[str, Any]]:
        """Pickles name the original class, since this one is made anew in each process."""
        return _new, (self._original,), self.__dict__


@functools.cache
def _inference_only(original: Any) -> Any:
    names = {"_original": original, "__doc__": original.__doc__, "__module__": original.__module__}
    return type(original.__name__, (_InferenceOnly, original), names)


def _new(original: Hashable) -> Any:
    made = _inference_only(original)
    return made.__new__(made)
