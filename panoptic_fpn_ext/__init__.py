"""Panoptic FPN for detectron2: one network gives every pixel a class and an identity.

Importing the package registers ``PanopticFPNExt``, ``SeparatePanopticNetworks``, ``PanopticFPNSemSegHead`` and
``HeuristicCombiner`` and does nothing else: datasets are registered by explicit calls, and configs get this package's
keys from :func:`add_panoptic_fpn_ext_config`.
"""

import warnings

with warnings.catch_warnings():
    # PyTorch's announcements to detectron2, which both make while they are imported. Here, because `python -m` imports
    # this file before any other of the package; filters and all later warnings stay as they are.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.")
    from . import modeling
    from .config import add_panoptic_fpn_ext_config
    from .modeling import optimize_for_inference

__version__ = "0.1.0"

__all__ = ["__version__", "add_panoptic_fpn_ext_config", "modeling", "optimize_for_inference"]
