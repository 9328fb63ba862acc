"""A panoptic network as one file: an image of any size in, its panoptic map and segments out.

``python -m panoptic_fpn_ext.export CONFIG WEIGHTS FOLDER`` writes it, :class:`ExportedPredictor` runs it.
"""

from .description import describe
from .graph import PanopticGraph, Segments
from .openvino_files import write_openvino
from .predictor import ExportedModel, ExportedPredictor
from .runtimes import write_onnx

__all__ = [
    "ExportedModel",
    "ExportedPredictor",
    "PanopticGraph",
    "Segments",
    "describe",
    "write_onnx",
    "write_openvino",
]
