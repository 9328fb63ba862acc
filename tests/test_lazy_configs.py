"""The lazy recipes describe what their YAML twins do: model, data, optimizer, schedule."""

import copy
import functools
import inspect
import threading
from typing import Any

import numpy as np
import pytest
import torch
from config_files import COCO, CONFIGS, flat, load, names
from detectron2.config import LazyConfig, instantiate
from detectron2.data import transforms as T
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.anchor_generator import build_anchor_generator
from detectron2.solver import LRMultiplier, build_lr_scheduler
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from panoptic_fpn_ext.data import PanopticDatasetMapper
from panoptic_fpn_ext.engine import Trainer
from panoptic_fpn_ext.engine.data_descriptions import register_categories
from panoptic_fpn_ext.engine.lazy_training import build_lazy_model, build_lazy_optimizer

LAZY = names("*-PanopticSegmentation/*.py")
# The paper's ablations and this package's keys, and what says the same lazily.
KEYS = {
    "SEM_SEG_HEAD.CONVS_DIM": (64, {"sem_seg_head.conv_dims": 64}),
    "SEM_SEG_HEAD.FUSION": ("concat", {"sem_seg_head.fusion": "concat"}),
    "SEM_SEG_HEAD.JACCARD_LOSS_WEIGHT": (0.5, {"sem_seg_head.jaccard_loss_weight": 0.5}),
    "SEM_SEG_HEAD.LOSS_WEIGHT": (0.75, {"sem_seg_head.loss_weight": 0.75}),
    "PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT": (0.75, {"instance_loss_weight": 0.75}),
    "PANOPTIC_FPN.ALTERNATE_LOSSES": (True, {"alternate_losses": True}),
    "PANOPTIC_FPN.SPLIT_FPN_CHANNELS": (
        True,
        {
            "split_fpn_channels": True,
            "proposal_generator.head.in_channels": 128,
            "roi_heads.box_head.input_shape": ShapeSpec(channels=128, height=7, width=7),
            "roi_heads.mask_head.input_shape": ShapeSpec(channels=128, height=14, width=14),
            **{f"sem_seg_head.input_shape.p{level}.channels": 128 for level in (2, 3, 4, 5)},
        },
    ),
    "PANOPTIC_FPN.OUTPUTS": (["panoptic_seg"], {"outputs": ["panoptic_seg"]}),
    "PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT": (64, {"combiner.stuff_area_threshold": 64}),
    "BACKBONE.CHECKPOINT_ACTIVATIONS": (True, {"checkpoint_activations": True}),
}
PYRAMID = [ShapeSpec(stride=stride) for stride in (4, 8, 16, 32, 64)]
_OF_EVERY_MODULE = set(vars(nn.Module()))
_LOCK = type(threading.Lock())


def describe(x: Any) -> Any:
    """An object with all that it holds, as something that can be compared: classes, settings, shapes of tensors."""
    if isinstance(x, DictConfig | ListConfig):
        return describe(OmegaConf.to_container(x))
    if isinstance(x, torch.Tensor):
        return tuple(x.shape), str(x.dtype), x.requires_grad
    if isinstance(x, dict):
        return {key: describe(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [describe(value) for value in x]
    if inspect.isroutine(x) or inspect.isclass(x):
        return f"{x.__module__}.{x.__qualname__}"
    if not hasattr(x, "__dict__"):
        return x
    ignored = _OF_EVERY_MODULE if isinstance(x, nn.Module) else set()
    own = {key: value for key, value in vars(x).items() if key not in ignored and not isinstance(value, _LOCK)}
    if isinstance(x, nn.Module):
        own |= {**dict(x.named_parameters(recurse=False)), **dict(x.named_buffers(recurse=False))}
        own |= dict(x.named_children())
    return {"class": type(x).__qualname__, **describe(own)}


def assert_same(one: Any, other: Any) -> None:
    """Compare two objects by all that they hold; a failure says where they differ."""
    one, other = ({k: v for k, v in flat(describe(x)).items() if not _is_default_weight(k, v)} for x in (one, other))
    assert {k: (one.get(k), other.get(k)) for k in one | other if one.get(k) != other.get(k)} == {}


def _is_default_weight(key: str, value: Any) -> bool:
    """Losses that a box predictor's weights do not name have weight 1."""
    return ".loss_weight.loss_" in key and value == 1.0


@functools.cache
def _load_lazy(name: str) -> DictConfig:
    return LazyConfig.load(str(CONFIGS / name))


def load_pair(name: str) -> tuple[Any, Any]:
    """The YAML and the lazy config."""
    cfg, lazy = load(name.replace(".py", ".yaml")), copy.deepcopy(_load_lazy(name))
    cfg.MODEL.DEVICE = lazy.train.device = "meta"
    return cfg, lazy


def test_every_coco_recipe_has_a_twin():
    yaml_names = {name.removesuffix(".yaml") for name in names(f"{COCO}/*.yaml")}
    assert {name.removesuffix(".py") for name in LAZY if name.startswith(COCO)} == yaml_names


@pytest.mark.parametrize("name", LAZY)
def test_models_are_the_same(name):
    cfg, lazy = load_pair(name)
    with torch.device("meta"):
        ours, theirs = build_lazy_model(lazy), build_model(cfg)
    assert_same(ours, theirs)
    # What buffers without memory cannot say.
    assert (lazy.model.pixel_mean, lazy.model.pixel_std) == (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)
    if "proposal_generator" in lazy.model:
        anchors = instantiate(lazy.model.proposal_generator.anchor_generator).cell_anchors
        expected = build_anchor_generator(cfg, PYRAMID).cell_anchors
        assert all(torch.equal(one, other) for one, other in zip(anchors, expected, strict=True))


@pytest.mark.parametrize("key", KEYS)
def test_keys_have_a_lazy_twin(key):
    value, settings = KEYS[key]
    cfg, lazy = load_pair(f"{COCO}/panoptic_fpn_R_50_1x.py")
    cfg.merge_from_list([f"MODEL.{key}", value])
    for path, setting in settings.items():
        assert OmegaConf.select(lazy.model, path) != setting
        OmegaConf.update(lazy.model, path, setting)
    with torch.device("meta"):
        assert_same(build_lazy_model(lazy), build_model(cfg))


@pytest.mark.parametrize("name", LAZY)
def test_runs_are_the_same(name):
    cfg, lazy = load_pair(name)
    train = lazy.train
    assert train.init_checkpoint == cfg.MODEL.WEIGHTS
    assert train.max_iter == cfg.SOLVER.MAX_ITER
    assert train.checkpointer.period == cfg.SOLVER.CHECKPOINT_PERIOD
    assert train.eval_period == cfg.TEST.EVAL_PERIOD
    assert train.accumulate_steps == cfg.SOLVER.ACCUMULATE_STEPS
    assert train.amp.enabled == cfg.SOLVER.AMP.ENABLED
    clipping = cfg.SOLVER.CLIP_GRADIENTS
    assert train.clip_gradients.enabled == clipping.ENABLED
    if clipping.ENABLED:
        expected = {key.lower(): value for key, value in clipping.items()}
        assert train.clip_gradients == expected


@pytest.mark.parametrize("name", LAZY)
def test_optimizers_are_the_same(name):
    cfg, lazy = load_pair(name)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4))
    ours, theirs = build_lazy_optimizer(lazy, model), Trainer.build_optimizer(cfg, model)
    assert type(ours).__name__ == type(theirs).__name__
    # "foreach" is about speed only.
    settings = [
        [{k: v for k, v in g.items() if k not in ("params", "foreach")} for g in o.param_groups] for o in (ours, theirs)
    ]
    assert settings[0] == settings[1]


@pytest.mark.parametrize("name", LAZY)
def test_learning_rates_are_the_same(name):
    """At every thousandth of the run, at its beginning, and around each step."""
    cfg, lazy = load_pair(name)
    last = cfg.SOLVER.MAX_ITER
    iterations = {
        *range(0, last, last // 1000),
        *range(0, 1100, 7),
        *(s + i for s in cfg.SOLVER.STEPS for i in (-1, 0)),
    }
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = build_lr_scheduler(cfg, optimizer)
    assert isinstance(theirs, LRMultiplier)
    expected, ours = theirs._multiplier, instantiate(lazy.lr_multiplier)
    for i in sorted(i for i in iterations if i < last):
        assert ours(i / last) == pytest.approx(expected(i / last), rel=1e-9), i


@pytest.mark.parametrize("name", LAZY)
def test_data_are_the_same(name):
    cfg, lazy = load_pair(name)
    train, test = lazy.dataloader.train, lazy.dataloader.test
    assert ([train.dataset.names], [test.dataset.names]) == (list(cfg.DATASETS.TRAIN), list(cfg.DATASETS.TEST))
    assert train.dataset.get("filter_empty", True) == cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    assert test.dataset.filter_empty is False
    assert train.total_batch_size == cfg.SOLVER.IMS_PER_BATCH
    assert train.num_workers == test.num_workers == cfg.DATALOADER.NUM_WORKERS


@pytest.mark.parametrize("name", [name for name in LAZY if "panoptic_fpn" in name or "separate" in name])
def test_mappers_are_the_same(name):
    cfg, lazy = load_pair(name)
    register_categories([])  # of the embedded dataset
    if "User" in name:
        cfg.DATASETS.TRAIN, lazy.dataloader.train.dataset.names = ("synthetic_street_train",), "synthetic_street_train"
    assert_same(instantiate(lazy.dataloader.train.mapper), PanopticDatasetMapper(cfg, is_train=True))
    ours, theirs = instantiate(lazy.dataloader.test.mapper), PanopticDatasetMapper(cfg, is_train=False)
    assert ours.image_format == theirs.image_format
    for size in ((480, 640), (300, 900)):
        images = [T.AugInput(np.zeros((*size, 3), np.uint8)) for _ in range(2)]
        transforms = [mapper.augmentations(x) for mapper, x in zip((ours, theirs), images, strict=True)]
        assert_same(*transforms)
