"""From network resolution to output size: semantic logits and labels, masks, detections. Pure functions."""

from .instances import PlacedInstances, Placement, place_instances, postprocess_instances
from .labels import label_free_pixels, label_pixels, row_strips
from .masks import Window, paste_mask, paste_masks, paste_probs, paste_windows
from .memory import OutputMemory
from .resize import Taps, composed_taps, sem_seg_logits_of_rows, upsample_sem_seg_logits

__all__ = [
    "OutputMemory",
    "PlacedInstances",
    "Placement",
    "Taps",
    "Window",
    "composed_taps",
    "label_free_pixels",
    "label_pixels",
    "paste_mask",
    "paste_masks",
    "paste_probs",
    "paste_windows",
    "place_instances",
    "postprocess_instances",
    "row_strips",
    "sem_seg_logits_of_rows",
    "upsample_sem_seg_logits",
]
