"""A dense conditional random field and its mean field (Krähenbühl & Koltun, 2011; Zheng et al., 2015).

Shapes: L labels, H, W image.
"""

import math

import torch
from torch.nn import functional as F

from .bilateral_grid import BilateralGrid, Cells

__all__ = ["DenseCRF"]

# Standard deviations at which the spatial kernel ends; what is beyond has a weight of 4e-6 at most.
_REACH = 5
# Floats that are filtered by position at a time.
_CHUNK_VALUES = 2**24

Weight = float | torch.Tensor


class DenseCRF:
    """Potts model between all pairs of pixels of one image, with a kernel of positions and one of positions and
    colours, each normalised at every pixel.
    """

    def __init__(
        self,
        image: torch.Tensor,
        *,
        theta_gamma: float = 3.0,
        theta_alpha: float = 49.0,
        theta_beta: float = 5.0,
        max_vertices: int = 2**20,
        cells: Cells | None = None,
    ) -> None:
        """
        Args:
            image: (3, H, W), values from 0 to 255.
            theta_gamma: standard deviation of the kernel of positions, px.
            theta_alpha: standard deviation of positions in the other kernel, px.
            theta_beta: its standard deviation of colours, levels.
            max_vertices, cells: see :class:`BilateralGrid`.
        """
        self._theta_gamma = theta_gamma
        self.bilateral = BilateralGrid(image, theta_alpha, theta_beta, max_vertices, cells)

    def mean_field(
        self, scores: torch.Tensor, spatial_weight: Weight = 3.0, bilateral_weight: Weight = 4.0, num_steps: int = 3
    ) -> torch.Tensor:
        """Scores after ``num_steps`` of x ← −U + w_s·G_s(q) + w_b·G_b(q) with q = softmax(x) of all labels.

        A pixel hears itself, as everywhere where kernels are filters.

        Args:
            scores: −U, float32 or float64 (L, H, W).
            spatial_weight: w_s.
            bilateral_weight: w_b.
            num_steps: 0 leaves the scores as they are.

        Returns:
            x, of the same shape; their softmax are the marginals. Differentiable in scores and weights.
        """
        x = scores
        # Together they keep copies small; in training, autograd keeps them anyway.
        step = max(1, min(self.bilateral.channels_at_a_time, _CHUNK_VALUES // max(1, scores[:1].numel())))
        for _ in range(num_steps):
            q = x.softmax(dim=0)
            x = torch.empty_like(scores)
            for start in range(0, len(scores), step):
                labels = slice(start, start + step)
                heard = spatial_weight * smooth(q[labels], self._theta_gamma)
                x[labels] = scores[labels] + heard + bilateral_weight * self.bilateral(q[labels])
        return x


def smooth(values: torch.Tensor, theta: float) -> torch.Tensor:
    """Gaussian over positions of float (L, H, W), normalised at every pixel: near a border over what there is."""
    radius = math.ceil(_REACH * theta)
    position = torch.arange(-radius, radius + 1, dtype=values.dtype, device=values.device)
    kernel = torch.exp(position**2 / (-2 * theta**2))
    ones = values.new_ones(1, 1, *values.shape[1:])
    return (_convolve(values[:, None], kernel) / _convolve(ones, kernel))[:, 0]


def _convolve(values: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Float (L, 1, H, W) with a kernel along each axis; zeros beyond the border."""
    radius = len(kernel) // 2
    down = F.conv2d(values, kernel.view(1, 1, -1, 1), padding=(radius, 0))
    return F.conv2d(down, kernel.view(1, 1, 1, -1), padding=(0, radius))
