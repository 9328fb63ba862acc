"""A GPU to rehearse with, for machines that have none.

Inside ``with PretendGpu() as gpu`` everything that is made on ``cuda``, or moved there, becomes a :class:`GpuTensor`:
it says that it is on ``cuda:0``, and a tensor on the CPU has its values and does its arithmetic. So code takes the
branches that it takes on a GPU, and its results can be compared with the CPU's.

What it shows:

* An operator that meets tensors of both devices fails, as on a GPU; so does ``numpy()``.
* ``gpu.waits`` counts what makes the host wait for a GPU, by kind, operator and line: ``read`` (the host asks for
  values), ``size`` (the size of a result depends on values), ``upload`` (from memory that is not pinned) and
  ``synchronize``.

What it cannot show: kernels (types that CUDA lacks, rounding, TF32, the order of atomic additions), streams, NCCL,
speed, memory, more than one GPU, and `torch.inference_mode`, which PyTorch refuses for such tensors.

To C++ a :class:`GpuTensor` must be on some device that needs no driver. ``seen_as`` chooses it: as ``meta`` everything
works but autocast, as ``cuda`` autocast works as on a GPU but there is no backward pass, and as ``cpu`` both work,
autocast with the CPU's list of operators.
"""

import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
import torchvision  # noqa: F401 - registers its operators
from pretend_driver import CopiesToOther, without_driver
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = ["GpuTensor", "PretendGpu", "Wait", "Waits", "on_host"]

SeenAs = Literal["meta", "cuda", "cpu"]
GPU = torch.device("cuda", 0)
aten = torch.ops.aten

# What operators on CUDA do to the host. The size of these results depends on values:
SIZE_UNKNOWN = {aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim, aten.unique_consecutive}
SIZE_UNKNOWN |= {torch.ops.torchvision.nms}
INDEXING = {aten.index, aten._unsafe_index, aten.index_put, aten.index_put_, aten._index_put_impl_}
COPYING = {aten._to_copy, aten.copy_, aten.copy}
READING = {aten._local_scalar_dense, aten.equal}
FILLING = {aten.masked_fill, aten.masked_fill_}
# Beside pointwise operators, these take numbers that are tensors on the host.
TAKES_NUMBERS = FILLING | {aten.where, aten.fill, aten.fill_}
PASSED_OVER = ("torch", "torchvision", "pretend_gpu", "pretend_driver")


class Wait(NamedTuple):
    """Something that the host waits for: kind (see the module), operator, and the line of whoever called PyTorch."""

    kind: str
    operator: str
    line: str


Waits = Counter[Wait]


class GpuTensor(torch.Tensor):
    """A tensor that says it is on ``cuda:0``; ``host`` has the values."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda _: GPU)
    is_cuda = property(lambda _: True)
    is_cpu = is_meta = property(lambda _: False)

    @staticmethod
    def __new__(cls, host: torch.Tensor, seen_as: SeenAs) -> "GpuTensor":
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            host.shape,
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=seen_as,
        )
        tensor.host, tensor.seen_as = host, seen_as
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, None)

    def to(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """C++ would take the device it sees for the tensor's own."""
        copy = kwargs.pop("copy", False)
        if args and isinstance(args[0], torch.Tensor):
            args = (args[0].device, args[0].dtype, *args[1:])
        device, dtype, _, memory_format = torch._C._nn._parse_to(*args, **kwargs)
        dtype = dtype or self.dtype
        if device is not None and device.type != "cuda":
            with _leaving():
                return aten._to_copy(self, dtype=dtype, device=device)
        if dtype == self.dtype and memory_format is None and not copy:
            return self
        return aten._to_copy(self, dtype=dtype, memory_format=memory_format)

    def cpu(self) -> torch.Tensor:
        return self.to("cpu")

    def cuda(self, *_: Any, **__: Any) -> "GpuTensor":
        return self

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def new_tensor(self, data: Any, **kwargs: Any) -> torch.Tensor:
        return torch.tensor(data, **{"dtype": self.dtype, "device": GPU, **kwargs})

    def __getitem__(self, item: Any) -> torch.Tensor:
        return super().__getitem__(_uploaded(item))

    def __setitem__(self, item: Any, value: Any) -> None:
        super().__setitem__(_uploaded(item), value)

    def __deepcopy__(self, memo: dict[int, Any]) -> "GpuTensor":
        if id(self) not in memo:
            memo[id(self)] = copied = GpuTensor(self.host.clone(), self.seen_as).requires_grad_(self.requires_grad)
            copied.__dict__.update({k: v for k, v in vars(self).items() if k not in ("host", "seen_as")})
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.host.detach().clone().__reduce_ex__(protocol)  # a file has plain tensors

    def __repr__(self, **_: Any) -> str:
        return f"GpuTensor({self.host})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.dim() == 0 else repr(self)


class PretendGpu(TorchDispatchMode):
    """The context; see the module. ``waits`` is what the host has waited for so far."""

    def __init__(self, seen_as: SeenAs = "meta") -> None:
        super().__init__()
        self.seen_as: SeenAs = seen_as
        self.waits: Waits = Counter()
        self._contexts = contextlib.ExitStack()

    def __enter__(self) -> "PretendGpu":
        torch._C._ensureCUDADeviceGuardSet()
        self._contexts.enter_context(without_driver(self.seen_as, lambda *_: self.note("synchronize", "synchronize")))
        self._contexts.enter_context(CopiesToOther())
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._contexts.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, self)

    @contextlib.contextmanager
    def counting(self) -> Iterator[Waits]:
        """The waits of a block alone."""
        before, self.waits = self.waits, Counter()
        try:
            yield self.waits
        finally:
            self.waits = before + self.waits

    def note(self, kind: str, operator: str) -> None:
        """The host waits now, for code that is neither PyTorch's nor this module's."""
        frame = sys._getframe(1)
        while frame.f_back and frame.f_globals["__name__"].split(".")[0] in (
            "torch",
            "torchvision",
            __name__,
            "pretend_driver",
        ):
            frame = frame.f_back
        line = "backward pass" if _in_backward() else f"{frame.f_globals['__name__']}:{frame.f_lineno}"
        self.waits[Wait(kind, operator, line)] += 1


def on_host(tree: Any) -> Any:
    """The values of all :class:`GpuTensor` in nested containers, for comparisons; that is no wait."""
    return tree_map_only(GpuTensor, lambda tensor: tensor.host.detach().clone(), tree)


# -- how an operator runs ---------------------------------------------------------------------------------------------


def _run(func: Any, args: Any, kwargs: dict[str, Any], gpu: PretendGpu | None) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    inputs = [tensor for tensor in tensors if isinstance(tensor, GpuTensor)]
    to_gpu = _ends_on_gpu(func, args, kwargs, inputs)
    if not inputs and not to_gpu:
        return func(*args, **kwargs)
    # In backward passes C++ makes zeros on the device that it sees.
    if inputs and not (inputs[0].seen_as == "cpu" and _in_backward()):
        _refuse_both_devices(func, args, tensors)
    if gpu is not None:
        for kind in _kinds_of_wait(func, args, kwargs, to_gpu):
            gpu.note(kind, str(func.overloadpacket))
    known = {id(tensor.host): tensor for tensor in inputs}
    result = _on_cpu(func, *tree_map_only(GpuTensor, lambda tensor: tensor.host, (args, kwargs)))
    if torch.Tag.inplace_view in func.tags:  # `unsqueeze_`, say: the wrapper gets the shape that its values have
        with no_dispatch():
            func(*args, **kwargs)
    if not to_gpu:
        return result
    seen_as: SeenAs = inputs[0].seen_as if inputs else gpu.seen_as if gpu else "meta"
    return tree_map_only(
        torch.Tensor, lambda tensor: known[id(tensor)] if id(tensor) in known else GpuTensor(tensor, seen_as), result
    )


def _on_cpu(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operator with the values, where some need other arguments than on a GPU."""
    if kwargs.get("device") is not None:
        kwargs["device"] = torch.device("cpu")
    if func.overloadpacket in (aten._softmax, aten._log_softmax) and args[2]:  # no kernel also converts to float32
        args = (args[0].float(), args[1], False)
    return func(*args, **kwargs)


def _ends_on_gpu(func: Any, args: Any, kwargs: dict[str, Any], inputs: list[GpuTensor]) -> bool:
    if func.overloadpacket in (aten.copy_, aten.copy):
        return isinstance(args[0], GpuTensor)
    device = kwargs.get("device")
    if device is None:
        return bool(inputs)
    if torch.device(device).type != "cpu":
        return True
    # "cpu" can be what C++ takes for the device of a tensor.
    return bool(inputs) and inputs[0].seen_as == "cpu" and not getattr(_thread, "leaves", False)


def _refuse_both_devices(func: Any, args: Any, tensors: list[torch.Tensor]) -> None:
    packet = func.overloadpacket
    if packet in COPYING:
        return
    strangers = [tensor for tensor in tensors if not isinstance(tensor, GpuTensor)]
    if packet in INDEXING:
        indices = [index for index in args[1] if index is not None]
        if not isinstance(args[0], GpuTensor) and any(isinstance(index, GpuTensor) for index in indices):
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        strangers = [tensor for tensor in strangers if not any(tensor is index for index in indices)]
    if packet in INDEXING | TAKES_NUMBERS or torch.Tag.pointwise in func.tags or "_foreach_" in str(func):
        strangers = [tensor for tensor in strangers if tensor.dim() > 0]
    if strangers:
        shapes = [tuple(tensor.shape) for tensor in strangers]
        raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got some on cpu: {shapes}")


def _kinds_of_wait(func: Any, args: Any, kwargs: dict[str, Any], to_gpu: bool) -> Iterator[str]:
    packet = func.overloadpacket
    if packet in COPYING:
        source = args[0] if packet is aten._to_copy else args[1]
        if isinstance(source, GpuTensor) != to_gpu:
            yield "upload" if to_gpu else "read"
    elif packet in INDEXING:
        # A mask and a number make a `masked_fill_`, which needs no size.
        is_fill = len(args) > 2 and not isinstance(args[2], GpuTensor)
        for index in filter(lambda index: index is not None, args[1]):
            if not isinstance(index, GpuTensor):
                yield "upload"
            elif index.dtype in (torch.bool, torch.uint8) and not is_fill:
                yield "size"
    elif packet is aten.bincount:
        yield from ("read", "read")  # its lowest and highest value
    elif packet in SIZE_UNKNOWN or (packet is aten.repeat_interleave and kwargs.get("output_size") is None):
        yield "size"
    elif packet in READING or (packet in FILLING and isinstance(args[2], GpuTensor)):  # its kernel takes a number
        yield "read"


_thread = threading.local()


@contextlib.contextmanager
def _leaving() -> Iterator[None]:
    """What is moved to the CPU here is meant to go there."""
    _thread.leaves = True
    try:
        yield
    finally:
        _thread.leaves = False


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() >= 0


def _uploaded(item: Any) -> Any:
    """An index whose lists are tensors on the GPU."""
    if isinstance(item, tuple):
        return tuple(_uploaded(part) for part in item)
    return torch.tensor(item, dtype=None if len(item) else torch.int64).to(GPU) if isinstance(item, list) else item
