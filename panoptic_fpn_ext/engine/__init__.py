"""What joins the parts into runs: trainer, checkpoints, checks and the command line."""

from .checkpoints.checkpoint import PanopticCheckpointer
from .checks import check_config
from .evaluating.evaluators import build_dataset_evaluator, build_evaluator
from .evaluating.result_writer import PanopticResultWriter
from .predictor import FailedImagesError, PanopticPredictor
from .setup import argument_parser, setup
from .trainer import Trainer

__all__ = [
    "FailedImagesError",
    "PanopticCheckpointer",
    "PanopticPredictor",
    "PanopticResultWriter",
    "Trainer",
    "argument_parser",
    "build_dataset_evaluator",
    "build_evaluator",
    "check_config",
    "setup",
]
