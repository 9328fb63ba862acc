"""Loading weights with clear words about weights of another model."""

from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

__all__ = ["PanopticCheckpointer"]


class PanopticCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer; refuses weights that do not belong to the model instead of going on with random ones.

    A checkpoint that fits no parameter is always an error. With ``complete=True``, for evaluation and prediction, so is one that leaves
    any parameter at its random initialisation. For training, partial weights (a pre-trained backbone, other classes) are usual.
    """

    def __init__(self, model: nn.Module, save_dir: str = "", *, complete: bool = False, **checkpointables: Any) -> None:
        super().__init__(model, save_dir, **checkpointables)
        self._complete = complete

    def _load_model(self, checkpoint: Any) -> Any:
        # Called by Checkpointer.load once the file is read; the base class returns what did not fit.
        incompatible = super()._load_model(checkpoint)
        parameters = {name for name, _ in self.model.named_parameters()}
        unset = parameters & {*incompatible.missing_keys, *(name for name, *_ in incompatible.incorrect_shapes)}
        if unset == parameters or (self._complete and unset):
            shapes = [f"{name}: {theirs} in the file, {ours} in the model" for name, theirs, ours in incompatible.incorrect_shapes]
            raise ValueError(
                f"The checkpoint is of another architecture: it does not set {len(unset)} of the model's {len(parameters)} parameters.\n"
                f"  missing in the file: {_some(incompatible.missing_keys)}\n  of another shape: {_some(shapes)}\n"
                f"  unknown to the model: {_some(incompatible.unexpected_keys)}\n"
                "Use the config that the checkpoint was trained with (--config-file; MODEL.ROI_HEADS.NUM_CLASSES and "
                "MODEL.SEM_SEG_HEAD.NUM_CLASSES give the last layers their shape), or set MODEL.WEIGHTS to another file."
            )
        return incompatible


def _some(names: Any, most: int = 5) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "") if names else "none"
