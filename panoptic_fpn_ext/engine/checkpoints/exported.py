"""Exported files in place of checkpoints, for evaluations and demos. What runs them is imported when one is opened."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode

from ...data.image_predictor import ImagePredictor
from ..settings.config_keys import in_pairs
from ..settings.model_outputs import model_outputs
from .model_categories import CategorySource, set_model_source

__all__ = ["exported_source", "open_exported", "open_exported_model"]

logger = logging.getLogger(__name__)

_COMBINE = "MODEL.PANOPTIC_FPN.COMBINE."
_THRESHOLDS = {
    f"{_COMBINE}INSTANCES_CONFIDENCE_THRESH": "instance_score_threshold",
    f"{_COMBINE}OVERLAP_THRESH": "overlap_threshold",
    f"{_COMBINE}STUFF_AREA_LIMIT": "stuff_area_threshold",
}
# What else decides about results and is part of a file.
_WRITTEN = (
    *("INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST", "TEST.DETECTIONS_PER_IMAGE"),
    *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "MODEL.ROI_HEADS.NMS_THRESH_TEST"),
    *("MODEL.RPN.NMS_THRESH", "MODEL.RPN.PRE_NMS_TOPK_TEST", "MODEL.RPN.POST_NMS_TOPK_TEST"),
    *(f"{_COMBINE}THING_SEM_SEG_IDS", "MODEL.META_ARCHITECTURE"),
)


def exported_source(path: str) -> CategorySource:
    """The categories that an exported file predicts.

    Raises:
        FileNotFoundError, ImportError, ValueError: as :func:`~panoptic_fpn_ext.export.runtimes.open_session`.
    """
    from ...export.description import categories_of
    from ...export.runtimes import read_description

    return CategorySource(categories_of(read_description(path)), f"exported model {path}")


def open_exported(path: str, opts: Sequence[Any] = ()) -> ImagePredictor:
    """A predictor of an exported file.

    Args:
        path: of the file.
        opts: ``KEY VALUE`` pairs of the command line; of a file only thresholds of the combiner can be changed.

    Raises:
        ValueError: another key, which would have no effect.
        FileNotFoundError, ImportError: no such file, or nothing that runs it.
    """
    from ...export.predictor import ExportedPredictor

    pairs = dict(in_pairs(opts))
    pairs.pop("MODEL.WEIGHTS", None)
    fixed = [key for key in pairs if key not in _THRESHOLDS]
    if fixed:
        raise ValueError(
            f"{', '.join(fixed)} cannot be changed in the exported model {path}, but {', '.join(_THRESHOLDS)} can. "
            "Export the model again with the others."
        )
    return ExportedPredictor(path, thresholds={_THRESHOLDS[key]: float(value) for key, value in pairs.items()})


def open_exported_model(cfg: CfgNode) -> tuple[CfgNode, torch.nn.Module]:
    """The exported file ``MODEL.WEIGHTS`` as a model, and the config that gives it what it takes.

    Thresholds of the combiner are the config's; what is part of the file is the file's, and differences are said.
    """
    from ...export.predictor import ExportedModel

    path, combine = cfg.MODEL.WEIGHTS, cfg.MODEL.PANOPTIC_FPN.COMBINE
    thresholds = {name: combine[key.removeprefix(_COMBINE)] for key, name in _THRESHOLDS.items()}
    model = ExportedModel(path, threads=torch.get_num_threads(), thresholds=thresholds).eval()
    set_model_source(model, exported_source(path))
    description = model.description
    _say_differences(cfg, description)
    found = cfg.clone()
    found.defrost()
    found.INPUT.FORMAT = description["input_format"]
    found.INPUT.MIN_SIZE_TEST, found.INPUT.MAX_SIZE_TEST = description["resize"]
    if description["resizes"]:
        found.INPUT.MIN_SIZE_TEST = 0
    found.MODEL.META_ARCHITECTURE = "PanopticFPNExt"
    found.MODEL.PANOPTIC_FPN.OUTPUTS = tuple(sorted(model_outputs(cfg).intersection(description["outputs"])))
    found.freeze()
    return found, model


def _say_differences(cfg: CfgNode, description: Mapping[str, Any]) -> None:
    path = cfg.MODEL.WEIGHTS
    measured = {"instances": "AP", "sem_seg": "mIoU"}
    missing = sorted(model_outputs(cfg).intersection(measured).difference(description["outputs"]))
    if missing:
        figures = " and ".join(measured[name] for name in missing)
        logger.warning(
            f"{path} has no {' and no '.join(missing)}, so {figures} are left out. To have them, export the model with "
            "--outputs panoptic_seg,instances,sem_seg"
        )
    changed = [f"{name} {cfg_value} (the file says {value})" for name, cfg_value, value in _changed(cfg, description)]
    if changed:
        logger.info(f"Thresholds of the config: {', '.join(changed)}")
    written = yaml.safe_load(description["config"] or "{}")
    for key in _WRITTEN:
        ours, theirs = _value(cfg, key), _value(written, key)
        if theirs is not None and _plain(ours) != _plain(theirs):
            logger.warning(f"{key} is {theirs} in {path}, and that counts; the config has {ours}.")


def _changed(cfg: CfgNode, description: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    pairs = [(key, _value(cfg, key), description["thresholds"][name]) for key, name in _THRESHOLDS.items()]
    return [(key, ours, theirs) for key, ours, theirs in pairs if ours != theirs]


def _value(tree: Any, key: str) -> Any:
    for name in key.split("."):
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
