"""What PyTorch is set to calculate with."""

import torch

__all__ = ["multiplies_exactly"]


def multiplies_exactly() -> bool:
    """Whether matrices of float32 are multiplied as such: `torch.set_float32_matmul_precision` may say otherwise."""
    setting = getattr(torch.backends.mkldnn, "matmul", None)
    if setting is None:  # PyTorch before 2.9
        return torch.get_float32_matmul_precision() == "highest"
    return setting.fp32_precision in ("none", "ieee")
