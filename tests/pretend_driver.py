"""What asks for a GPU's driver, answered without one; part of `pretend_gpu`."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["CopiesToOther", "without_driver"]


@contextlib.contextmanager
def without_driver(seen_as: str, synchronize: Callable[..., None]) -> Iterator[None]:
    """`torch.cuda` as if there were a GPU, and modules that take new parameters when they are moved.

    Args:
        seen_as: the device that C++ sees; autocast is the CPU's if it is ``cpu``.
        synchronize: instead of `torch.cuda.synchronize`.
    """
    start_autocast = torch.autocast.__init__

    def autocast(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        start_autocast(self, "cpu" if seen_as == "cpu" else device_type, *args, **kwargs)

    answers: dict[str, Any] = {"is_available": True, "device_count": 1, "current_device": 0, "is_bf16_supported": True}
    answers |= dict.fromkeys(("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"), 0)
    answers |= dict.fromkeys(("_lazy_init", "set_device", "empty_cache", "reset_peak_memory_stats", "manual_seed_all"))
    answers |= {"manual_seed": None, "get_device_name": "pretended", "get_device_capability": (9, 0)}
    stand_ins: dict[str, Callable[..., Any]] = {name: lambda *_, a=a, **__: a for name, a in answers.items()}
    stand_ins["synchronize"] = synchronize
    future = torch.__future__
    overwrites, lifts = future.get_overwrite_module_params_on_conversion(), torch._C._only_lift_cpu_tensors()
    with contextlib.ExitStack() as stack:
        for name, stand_in in stand_ins.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, stand_in))
        stack.enter_context(mock.patch.object(torch.autocast, "__init__", autocast))
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))  # its operators have no CPU kernel
        future.set_overwrite_module_params_on_conversion(True)
        torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(list, device="cuda")` begins on the host
        try:
            yield
        finally:
            future.set_overwrite_module_params_on_conversion(overwrites)
            torch._C._set_only_lift_cpu_tensors(lifts)


class CopiesToOther(TorchFunctionMode):
    """``x.to(other)`` of a tensor on the host, whose C++ would look at the device that it sees ``other`` on."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.to and len(args) == 2 and getattr(args[1], "is_cuda", False):
            args = (args[0], args[1].device, args[1].dtype)
        return func(*args, **(kwargs or {}))
