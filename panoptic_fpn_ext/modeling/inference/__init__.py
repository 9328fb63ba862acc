"""Models that only predict, and faster for it."""

from .optimize import optimize_for_inference

__all__ = ["optimize_for_inference"]
