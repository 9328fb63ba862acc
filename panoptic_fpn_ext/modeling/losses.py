"""Cross entropy of upsampled logits that never holds the upsampled logits.

Shapes: N images, C classes, h, w logits, s = scale factor, H = s·h, W = s·w targets; a band is some rows of one
    image's logits.

The plain way makes four tensors of (N, C, H, W): 0.75 GB for one image of 800×1088 with 54 classes. Here a few rows
at a time are upsampled, turned into their share of the loss and of the gradient, and forgotten, all in a core's cache.
What stays is the gradient at the size of the logits.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["upsampled_cross_entropy"]

# Columns of logits that are upsampled by one row of a matrix product; network inputs are multiples of 8·4 px.
_BLOCK = 8
# Bytes of the upsampled logits of a tile: what stays in the cache of a core, or fills a GPU.
_TILE_BYTES = {"cpu": 2**22}
_TILE_BYTES_GPU = 2**26


class _Kernels(NamedTuple):
    """How a tile is upsampled.

    On a CPU by products: ``rows`` (s·r, r + 2) from the left, ``columns`` (_BLOCK + 2, s·_BLOCK) from the right. On a
    GPU those might be computed in TF32, which keeps three digits of the logits, so there by sums: ``taps`` (s, 3) are
    the weights of a sample's left neighbour, itself and its right neighbour in each of its outputs.
    """

    taps: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    step: int
    scale: int
    ignore_value: int


def upsampled_cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, scale_factor: int, ignore_value: int
) -> torch.Tensor:
    """Mean cross entropy over the labelled pixels, of logits that are upsampled bilinearly (``align_corners=False``)
    first.

    Equal, gradient included, to ``F.cross_entropy(F.interpolate(logits.float(), scale_factor=scale_factor,
    mode="bilinear"), targets, ignore_index=ignore_value)``, but 0 with gradient 0 where no pixel is labelled. It can be
    differentiated once. On a CPU it uses as many threads as ``torch.get_num_threads()``.

    Args:
        logits: floats (N, C, h, w). Half precision is computed in float32, float64 in float64.
        targets: int64 (N, s·h, s·w), in [0, C) or ``ignore_value``.
        scale_factor: s.
        ignore_value: label of pixels that take no part.

    Returns:
        A scalar, float32 or float64.

    Raises:
        ValueError: targets of another size, or a label outside [0, C).
    """
    n, num_classes, h, w = logits.shape
    if targets.shape != (n, h * scale_factor, w * scale_factor):
        raise ValueError(
            f"Semantic targets must be {(n, h * scale_factor, w * scale_factor)} for logits of {(n, h, w)} at stride "
            f"{scale_factor}, got {tuple(targets.shape)}."
        )
    labelled = targets != ignore_value
    _check_labels(targets, labelled, num_classes)
    precise = logits if logits.dtype == torch.float64 else logits.float()
    spare = -w % _BLOCK
    # Bilinear upsampling reads past the edges as if the outermost row and column went on. Spare columns have no labels.
    padded = F.pad(precise, (1, 1 + spare, 1, 1), mode="replicate")
    loss: torch.Tensor = _TiledLoss.apply(
        padded, F.pad(targets, (0, spare * scale_factor), value=ignore_value), scale_factor, ignore_value
    )
    return loss / labelled.sum().clamp(min=1)


def _check_labels(targets: torch.Tensor, labelled: torch.Tensor, num_classes: int) -> None:
    if not targets.numel():
        return
    # One look at the device, for both.
    lowest, highest = torch.stack(torch.where(labelled, targets, 0).aminmax()).tolist()
    worst = highest if highest >= num_classes else lowest
    if not 0 <= worst < num_classes:
        raise ValueError(
            f"Target {worst} is out of bounds: semantic targets must be in [0, {num_classes}) or the ignore label, "
            f"where {num_classes} "
            "is MODEL.SEM_SEG_HEAD.NUM_CLASSES. Set it to the number of semantic classes of the dataset, or mend "
            "the targets."
        )


class _TiledLoss(torch.autograd.Function):
    """Sum of the cross entropy. The gradient is made together with the loss: both need the same upsampled softmax."""

    @staticmethod
    def forward(ctx: Any, padded: torch.Tensor, targets: torch.Tensor, scale: int, ignore_value: int) -> torch.Tensor:
        """See :func:`upsampled_cross_entropy`; ``padded``: (N, C, h + 2, w + 2), w a multiple of ``_BLOCK``."""
        kernels = _kernels(padded, scale, ignore_value)
        gradient = torch.zeros_like(padded) if ctx.needs_input_grad[0] else None
        bands = _bands(padded)
        work = partial(_band_loss, padded, targets, kernels, gradient is not None)
        losses = []
        for (image, start, stop), (loss, band_gradient) in zip(bands, _run(work, bands, padded), strict=True):
            losses.append(loss)
            if gradient is not None:  # neighbouring bands share two rows
                gradient[image, :, start : stop + 2] += band_gradient
        ctx.gradient = gradient
        return torch.stack(losses).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """The gradient of the forward pass, scaled. It is kept, so that a graph can be run through twice."""
        return ctx.gradient * grad, None, None, None


def _kernels(padded: torch.Tensor, scale: int, ignore_value: int) -> _Kernels:
    budget = _TILE_BYTES.get(padded.device.type, _TILE_BYTES_GPU)
    row_bytes = padded.shape[1] * (padded.shape[3] - 2) * scale**2 * padded.element_size()
    rows = min(max(1, budget // max(row_bytes, 1)), padded.shape[2] - 2)
    taps = _taps(scale, padded.device)
    matrices = [_upsampling_matrix(size, taps).to(padded.dtype) for size in (rows, _BLOCK)]
    return _Kernels(taps.to(padded.dtype), matrices[0], matrices[1].T.contiguous(), rows, scale, ignore_value)


def _taps(scale: int, device: torch.device) -> torch.Tensor:
    """float64 (s, 3), made on the device: an upload would make the host wait."""
    offset = (
        torch.arange(scale, dtype=torch.float64, device=device) + 0.5
    ) / scale - 0.5  # of an output from its sample
    return torch.stack([(-offset).clamp(min=0), 1 - offset.abs(), offset.clamp(min=0)], dim=1)


def _upsampling_matrix(size: int, taps: torch.Tensor) -> torch.Tensor:
    """(s·size, size + 2): weights of ``size`` samples and one neighbour on each side."""
    unit = torch.eye(size + 2, dtype=taps.dtype, device=taps.device)
    neighbours = [unit[k : size + k, None] * taps[:, k, None] for k in range(3)]  # size, s, size + 2
    return torch.stack(neighbours).sum(dim=0).flatten(0, 1)


def _bands(padded: torch.Tensor) -> list[tuple[int, int, int]]:
    """(image, first row, last row + 1): the work of each thread, in full on a GPU."""
    n, h = padded.shape[0], padded.shape[2] - 2
    parts = min(h, torch.get_num_threads()) if padded.device.type == "cpu" else 1
    cuts = [h * i // parts for i in range(parts + 1)]
    return [(image, start, stop) for image in range(n) for start, stop in pairwise(cuts)]


def _run(
    work: Callable[[tuple[int, int, int]], Any], bands: list[tuple[int, int, int]], like: torch.Tensor
) -> list[Any]:
    """``work`` on every band.

    A tile is too small to be shared by threads; threads that each do whole bands wait for each other only once.
    """
    threads = torch.get_num_threads()
    if like.device.type != "cpu" or threads == 1:
        return [work(band) for band in bands]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, bands))
    finally:
        torch.set_num_threads(threads)  # a worker's setting is also the default of threads yet to come


def _band_loss(
    padded: torch.Tensor, targets: torch.Tensor, kernels: _Kernels, with_gradient: bool, band: tuple[int, int, int]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Sum of the loss over a band, and its gradient (C, rows + 2, w + 2)."""
    image, start, stop = band
    # Neither mode is inherited by other threads.
    with torch.no_grad(), torch.autocast(padded.device.type, enabled=False):
        gradient = padded.new_zeros(padded.shape[1], stop - start + 2, padded.shape[3]) if with_gradient else None
        losses = []
        for a in range(start, stop, kernels.step):
            b = min(a + kernels.step, stop)
            labels = targets[image, a * kernels.scale : b * kernels.scale]
            logits = _upsample(padded[image, :, a : b + 2], kernels)
            losses.append(_tile_loss(logits, labels.long(), kernels.ignore_value))
            if gradient is not None:
                _add_downsampled(logits, kernels, gradient[:, a - start : b - start + 2])
        return torch.stack(losses).sum(), gradient


def _upsample(rows: torch.Tensor, kernels: _Kernels) -> torch.Tensor:
    """(C, r + 2, w + 2) -> (C, s·r, s·w)."""
    if rows.device.type != "cpu":
        return _interleave(_interleave(rows, kernels.taps, dim=2), kernels.taps, dim=1)
    c, height, width = rows.shape
    blocks = rows.unfold(2, _BLOCK + 2, _BLOCK)  # C, r + 2, w / _BLOCK, _BLOCK + 2
    wide = (blocks.reshape(-1, _BLOCK + 2) @ kernels.columns).view(c, height, (width - 2) * kernels.scale)
    return torch.matmul(kernels.rows[: (height - 2) * kernels.scale, :height], wide)


def _add_downsampled(gradient: torch.Tensor, kernels: _Kernels, rows: torch.Tensor) -> None:
    """Add the transpose of :func:`_upsample` of ``gradient`` (C, s·r, s·w) to ``rows`` (C, r + 2, w + 2)."""
    if rows.device.type != "cpu":
        rows += _gather(_gather(gradient, kernels.taps, dim=1), kernels.taps, dim=2)
        return
    c, height, width = rows.shape
    wide = torch.matmul(kernels.rows[: (height - 2) * kernels.scale, :height].T, gradient)  # C, r + 2, s·w
    blocks = (wide.view(-1, kernels.scale * _BLOCK) @ kernels.columns.T).view(c, height, -1, _BLOCK + 2)
    rows[:, :, 1:-1] += blocks[..., 1:-1].reshape(c, height, width - 2)
    rows[:, :, : width - 2 : _BLOCK] += blocks[..., 0]
    rows[:, :, _BLOCK + 1 :: _BLOCK] += blocks[..., -1]


def _interleave(x: torch.Tensor, taps: torch.Tensor, dim: int) -> torch.Tensor:
    """n + 2 samples along a dimension of (C, …, …) -> s·n: each sample and its neighbours, weighted."""
    n = x.shape[dim] - 2
    left, middle, right = (x.narrow(dim, k, n).unsqueeze(dim + 1) for k in range(3))
    weights = [weight.view(-1, *[1] * (2 - dim)) for weight in taps.unbind(dim=1)]
    wide = (left * weights[0]).addcmul_(middle, weights[1]).addcmul_(right, weights[2])
    return wide.flatten(dim, dim + 1)


def _gather(gradient: torch.Tensor, taps: torch.Tensor, dim: int) -> torch.Tensor:
    """The transpose of :func:`_interleave`: s·n numbers along a dimension -> n + 2."""
    by_sample = gradient.unflatten(dim, (-1, len(taps)))
    n = by_sample.shape[dim]
    shape = [n + 2 if axis == dim else length for axis, length in enumerate(gradient.shape)]
    result = gradient.new_zeros(shape)
    for k, weight in enumerate(taps.unbind(dim=1)):
        result.narrow(dim, k, n).add_((by_sample * weight.view(-1, *[1] * (2 - dim))).sum(dim=dim + 1))
    return result


def _tile_loss(logits: torch.Tensor, labels: torch.Tensor, ignore_value: int) -> torch.Tensor:
    """Sum of the cross entropy of (C, rows, W); ``logits`` become their gradient."""
    labelled = labels != ignore_value
    weight = labelled.to(logits.dtype)
    index = torch.where(labelled, labels, 0)[None]
    logits.sub_(logits.amax(dim=0, keepdim=True))
    at_label = logits.gather(0, index)[0]
    total = logits.exp_().sum(dim=0)
    loss = ((total.log() - at_label) * weight).sum()
    logits.mul_(weight / total).scatter_add_(0, index, -weight[None])
    return loss
