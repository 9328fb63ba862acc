"""Panoptic FPN for detectron2: one network gives every pixel a class and an identity.

Importing the package registers ``PanopticFPNExt``, ``SeparatePanopticNetworks``, ``PanopticFPNSemSegHead`` and
``HeuristicCombiner`` and does nothing else: datasets are registered by explicit calls, and configs get this package's
keys from :func:`add_panoptic_fpn_ext_config`.
"""

import warnings

with warnings.catch_warnings():
    # What PyTorch and setuptools announce to detectron2, which they make while it is imported, its model zoo included.
    # Here, because `python -m` imports this file before any other of the package; all later warnings stay as they are.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.")
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="pkg_resources")
    import detectron2.model_zoo  # noqa: F401

    from . import modeling
    from .config import add_panoptic_fpn_ext_config
    from .modeling import optimize_for_inference

__version__ = "0.1.0"

__all__ = ["__version__", "add_panoptic_fpn_ext_config", "modeling", "optimize_for_inference"]
