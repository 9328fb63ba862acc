"""Packages that only exported models need, imported in one place."""

import importlib
import logging
import sys
from types import ModuleType
from typing import Any, cast

__all__ = ["needed"]


def needed(name: str) -> Any:
    """A package of the extra ``export``, or an error that says how to install it."""
    if name == "openvino":  # which sends usage statistics when it is imported, where this package is there
        sys.modules.setdefault("openvino_telemetry", cast(ModuleType, None))
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"Exported models need {name}, which is not installed: pip install 'panoptic_fpn_ext[export]' or "
            f"pip install {name}."
        ) from error
    finally:
        logging.getLogger(name).setLevel(logging.WARNING)
