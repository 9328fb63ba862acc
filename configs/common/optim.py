"""Optimizers: detectron2's own. SGD is the paper's; AdamW learns faster from scratch in short runs."""

from detectron2.model_zoo import get_config

_optimizers = get_config("common/optim.py")
SGD, AdamW = _optimizers.SGD, _optimizers.AdamW
