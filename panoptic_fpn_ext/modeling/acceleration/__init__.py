"""What makes training or inference cheaper, mostly on a CPU, with the same results: `table.ACCELERATIONS` lists it."""

from .inference import optimize_for_inference
from .table import ACCELERATIONS
from .training import accelerate_training

__all__ = ["ACCELERATIONS", "accelerate_training", "optimize_for_inference"]
