"""LazyConfigs are checked by the rules of yacs configs, in their own names."""

import functools
import json
import logging
import re
from pathlib import Path

import config_files
import pytest
import torch
from config_files import CONFIGS
from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog
from detectron2.modeling import RetinaNet
from omegaconf import DictConfig, OmegaConf

from panoptic_fpn_ext.data.synthetic_street import StreetSettings, make_synthetic_street
from panoptic_fpn_ext.engine.checks import check_input_format
from panoptic_fpn_ext.engine.lazy_config import complete_lazy_prediction_config, load_lazy_config, read_lazy_config
from panoptic_fpn_ext.engine.lazy_training import train_lazily
from panoptic_fpn_ext.engine.settings.lazy_keys import refuse_unknown_keys
from panoptic_fpn_ext.engine.settings.options import check_options
from panoptic_fpn_ext.engine.settings.silent_settings import warn_of_segments, warn_of_settings
from panoptic_fpn_ext.engine.settings.yacs_view import yacs_view
from panoptic_fpn_ext.modeling import PanopticFPNExt

LAZY = config_files.names("*-PanopticSegmentation/*.py")
STREET = str(CONFIGS / "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow.py")
YACS_KEY = re.compile(r"\b(MODEL|INPUT|SOLVER|TEST|DATALOADER)\.[A-Z]")


def _check(cfg: DictConfig) -> None:
    view = yacs_view(cfg)
    check_options(view.cfg, names=view.names)
    check_input_format(view.cfg, view.names)


def _warn(cfg: DictConfig, name: str) -> None:
    view = yacs_view(cfg)
    warn_of_settings(view.cfg, [name], training=True, names=view.names)
    warn_of_segments(view.cfg, name, DatasetCatalog.get(name), training=True, names=view.names)


@functools.cache
def _loaded(path: str) -> DictConfig:
    return LazyConfig.load(path)


def _street(*overrides: str) -> DictConfig:
    return LazyConfig.apply_overrides(_loaded(STREET).copy(), list(overrides))


@pytest.mark.parametrize("name", LAZY)
def test_the_checks_read_what_the_yaml_twin_says(name, warnings_of):
    view, lazy = yacs_view(_loaded(str(CONFIGS / name))), _loaded(str(CONFIGS / name))
    ours, theirs = config_files.flat(view.cfg), config_files.flat(config_files.load(name.replace(".py", ".yaml")))
    keys = set(view.names) - {"SOLVER.CLIP_GRADIENTS.CLIP_TYPE"}  # where nothing is clipped
    assert {key: ours[key] for key in keys} == {key: theirs[key] for key in keys}
    assert len(keys) > (20 if "semantic" in name else 50)
    _check(lazy)
    assert warnings_of(warn_of_settings, view.cfg, [], training=True, names=view.names) == []


REFUSED = [
    ("model.pixel_std=[1.0,0.0,1.0]", "model.pixel_std"),
    ("model.pixel_mean=[1.0]", "dataloader.train.mapper.image_format"),
    ("model.backbone.norm=Group", "model.backbone.norm"),
    ("model.backbone.in_features=[res1,res2]", "model.backbone.in_features"),
    ("model.proposal_generator.anchor_generator.sizes=[[8],[16]]", "model.proposal_generator.anchor_generator.sizes"),
    ("model.proposal_generator.in_features=[p2,p3,p4,p5,p7]", "model.proposal_generator.in_features"),
    ("model.proposal_generator.box_reg_loss_type=iou", "model.proposal_generator.box_reg_loss_type"),
    ("model.roi_heads.box_in_features=[]", "model.roi_heads.box_in_features"),
    ("model.roi_heads.box_predictor.use_fed_loss=true", "model.roi_heads.box_predictor.use_fed_loss"),
    ("model.roi_heads.mask_head=null", '"mask_head" in model.roi_heads'),
    ("model.sem_seg_head.common_stride=3", "model.sem_seg_head.common_stride"),
    ("model.sem_seg_head.ignore_value=0", "model.sem_seg_head.ignore_value"),
    ("optimizer.lr=0.0", "optimizer.lr"),
    ("dataloader.train.total_batch_size=0", "dataloader.train.total_batch_size"),
    ("dataloader.train.num_workers=-1", "dataloader.train.num_workers"),
    ("dataloader.train.mapper.instance_mask_format=rle", "dataloader.train.mapper.instance_mask_format"),
    (
        "dataloader.train.mapper.augmentations.0.short_edge_length=[]",
        "dataloader.train.mapper.augmentations.0.short_edge_length",
    ),
    ("train.max_iter=0", "train.max_iter"),
    ("train.checkpointer.period=0", "train.checkpointer.period"),
    ("train.eval_period=-1", "train.eval_period"),
    ("train.clip_gradients.clip_type=full_model", "train.clip_gradients.clip_type"),
]


@pytest.mark.parametrize(("override", "name"), REFUSED)
def test_what_cannot_work_is_refused_by_its_lazy_name(override, name):
    with pytest.raises(ValueError, match=re.escape(f"{name} ")) as error:
        _check(_street(override))
    assert not YACS_KEY.search(str(error.value))


@pytest.mark.parametrize(
    ("override", "kind"),
    [
        *((f"train.amp.enabled={word}", "true or false") for word in ("no", "off", "flase", "1")),
        *((f"train.max_iter={word}", "an integer") for word in ("100.5", "inf", "nan", "many")),
        *((f"optimizer.lr={word}", "a number") for word in ("inf", "nan", "fast")),
    ],
)
def test_values_of_another_type_are_refused(override, kind):
    with pytest.raises(ValueError, match=f"must be {kind} "):
        refuse_unknown_keys(_loaded(STREET), [override])


@pytest.mark.parametrize("override", ["train.amp.enabled=False", "train.amp.enabled=true", "train.max_iter=30"])
def test_values_of_the_same_type_are_taken(override):
    refuse_unknown_keys(_loaded(STREET), [override])


def test_classes_that_cannot_work_are_refused_and_derived_ones_taken():
    class Own(PanopticFPNExt):
        pass

    cfg = _street()
    cfg.model._target_ = Own
    _check(cfg)
    assert yacs_view(cfg).cfg.MODEL.META_ARCHITECTURE == "PanopticFPNExt"
    cfg.model._target_ = RetinaNet
    with pytest.raises(ValueError, match=r"model\._target_ is 'RetinaNet'"):
        _check(cfg)
    cfg.model._target_ = "some.unknown.Model"  # by what it has
    assert yacs_view(cfg).cfg.MODEL.META_ARCHITECTURE == "PanopticFPNExt"


def test_the_command_refuses_before_any_dataset_is_needed():
    with pytest.raises(ValueError, match=r"train\.max_iter is 0: it must be at least 1"):
        load_lazy_config(STREET, ["train.max_iter=0", "dataloader.train.dataset.names=nowhere"], [])


def test_categories_that_nobody_knows_are_asked_for_by_lazy_names():
    cfg = _street("dataloader.test.dataset.names=nowhere")
    with pytest.raises(KeyError, match=r"'nowhere' \(dataloader\.test\.dataset\.names\) .*train\.init_ch") as error:
        complete_lazy_prediction_config(cfg)
    assert not YACS_KEY.search(str(error.value))


@pytest.fixture(scope="module")
def full_size_street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("street")
    make_synthetic_street(str(root), StreetSettings(num_train=12, num_val=1))
    return root


SETTINGS = [
    ("model.combiner.instance_score_threshold", "1.0", "no instance ever enters"),
    ("model.combiner.instance_score_threshold", "0.01", "lost before the panoptic map"),
    ("model.combiner.overlap_threshold", "50.0", "never dropped"),
    ("model.combiner.stuff_area_threshold", "5000", "become void"),
    ("model.roi_heads.box_predictor.test_score_thresh", "1.0", "no instance is ever detected"),
    ("model.roi_heads.box_predictor.test_nms_thresh", "0.0", "suppress each other"),
    ("model.roi_heads.box_predictor.test_topk_per_image", "1", "cannot be found"),
    ("model.proposal_generator.nms_thresh", "1.5", "no box suppresses another"),
    ("model.proposal_generator.post_nms_topk.1", "0", "cannot be found"),
    ("model.proposal_generator.loss_weight", "0.0", "things are not learnt"),
    ("model.proposal_generator.min_box_size", "200.0", "are smaller in training"),
    ("model.proposal_generator.anchor_generator.sizes", "[[128],[256],[512],[1024],[2048]]", "no anchor comes near"),
    ("model.proposal_generator.anchor_generator.aspect_ratios", "[0.02,50.0]", "no anchor comes near"),
    ("model.sem_seg_head.loss_weight", "0.0", "stuff is not learnt"),
    ("model.instance_loss_weight", "0.0", "are not learnt"),
    ("model.backbone.bottom_up.freeze_at", "2", "random weights"),
    ("dataloader.test.mapper.augmentations.0.short_edge_length", "800", "times larger than in training"),
]


@pytest.mark.parametrize(("key", "value", "words"), SETTINGS)
def test_one_warning_with_a_value_that_fits(full_size_street, register, warnings_of, key, value, words):
    root = full_size_street
    dataset = register("lazy_street", root / "train", root / "panoptic_train", root / "annotations/panoptic_train.json")
    more = ["dataloader.test.mapper.augmentations.0.max_size=1333"]
    assert warnings_of(_warn, _street(*more), dataset) == []
    (warning,) = warnings_of(_warn, _street(*more, f"{key}={value}"), dataset)
    assert words in warning and key in warning and not YACS_KEY.search(warning)
    fits = re.search(r"Set (?:it|the former|model\S+) to (?:at most )?(.*?)(?:, or .*)?\.$", warning)[1]
    silenced = _street(*more, f"{key}={value}", f"{warning.split(' ')[0]}={fits}")
    assert warnings_of(_warn, silenced, dataset) == []


def test_warming_up_for_the_whole_run(warnings_of):
    view = yacs_view(_street("lr_multiplier.warmup_length=1.0"))
    (warning,) = warnings_of(warn_of_settings, view.cfg, [], training=True, names=view.names)
    assert warning == (
        "lr_multiplier.warmup_length × train.max_iter is 5000 of train.max_iter 5000 iterations: the learning rate "
        "never reaches optimizer.lr. Set it to 250."
    )


def test_defaults_of_what_is_called_count():
    cfg = _street()
    del cfg.model.combiner.stuff_area_threshold, cfg.model.pixel_mean
    view = yacs_view(cfg)
    assert view.cfg.MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT == 4096
    assert view.names["MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT"] == "model.combiner.stuff_area_threshold"
    assert "MODEL.PIXEL_MEAN" not in view.names  # it has no default


def test_nothing_is_said_of_what_is_not_known(full_size_street, register, warnings_of):
    """Without a resize that the checks know, nothing is known of the size of boxes."""
    root = full_size_street
    dataset = register("lazy_street", root / "train", root / "panoptic_train", root / "annotations/panoptic_train.json")
    cfg = _street("model.proposal_generator.anchor_generator.sizes=[[128],[256],[512],[1024],[2048]]")
    cfg.dataloader.train.mapper.augmentations = []
    assert warnings_of(_warn, cfg, dataset) == []


def _small(names: tuple[str, str], output: Path, *more: str) -> list[str]:
    return [
        f"dataloader.train.dataset.names={names[0]}",
        f"dataloader.test.dataset.names={names[1]}",
        "dataloader.train.mapper.augmentations.0.short_edge_length=[64]",
        "dataloader.test.mapper.augmentations.0.short_edge_length=64",
        "dataloader.train.total_batch_size=2",
        "train.log_period=1",
        "train.checkpointer.period=1",
        f"train.output_dir={output}",
        *more,
    ]


def test_a_run_that_changes_its_mind(street_datasets, tmp_path, warnings_of, caplog):
    """Evaluations on the way, then on with another optimizer, frozen stages and mixed precision; each warning once."""
    empties = "model.combiner.stuff_area_threshold=10000"
    first = load_lazy_config(
        STREET, _small(street_datasets, tmp_path, empties, "train.max_iter=2", "train.eval_period=1"), []
    )
    found = warnings_of(train_lazily, first)
    assert sum(w.startswith("model.combiner.stuff_area_threshold is 10000 px") for w in found) == 1
    assert len({w.split(" ")[0] for w in found}) == len(found)
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [row["iteration"] for row in rows if "panoptic_seg/PQ" in row] == [0, 2]

    other = LazyConfig.load(str(CONFIGS / "common/optim.py")).SGD
    changed = [
        "train.max_iter=4",
        "train.amp.enabled=true",
        "model.backbone.bottom_up.freeze_at=3",
        "optimizer.lr=0.002",
    ]
    second = load_lazy_config(STREET, _small(street_datasets, tmp_path, *changed), [], resume=True)
    second.optimizer = OmegaConf.merge(other, {"lr": 0.002})
    before = torch.load(tmp_path / "model_final.pth", weights_only=False)
    with caplog.at_level(logging.WARNING):
        results = train_lazily(second, resume=True)
    assert "another optimizer" in caplog.text and "starts afresh" in caplog.text
    assert "PQ" in results["panoptic_seg"]
    after = torch.load(tmp_path / "model_final.pth", weights_only=False)
    assert after["iteration"] == 3
    moved = {name: not torch.equal(before["model"][name], tensor) for name, tensor in after["model"].items()}
    assert not moved["backbone.bottom_up.stem.conv1.weight"] and moved["sem_seg_head.predictor.weight"]
    groups = after["trainer"]["optimizer"]["param_groups"]
    assert groups[0]["momentum"] == 0.9

    third = load_lazy_config(STREET, _small(street_datasets, tmp_path, "train.max_iter=5"), [], resume=True)
    third.optimizer = second.optimizer
    third.model.backbone.bottom_up.freeze_at = 0
    train_lazily(third, resume=True)
    assert torch.load(tmp_path / "model_final.pth", weights_only=False)["iteration"] == 4


@pytest.mark.parametrize("name", ["straße (1)", "日本's", "a,b", "{c}", "[d]", "e=f", "1", "g h\\"])
def test_any_path_is_an_override(name):
    cfg = read_lazy_config(STREET, [f"train.output_dir=out/{name}", "train.max_iter=7"], [], trained=False)
    assert (cfg.train.output_dir, cfg.train.max_iter) == (f"out/{name}", 7)
    assert read_lazy_config(STREET, ["train.output_dir='x y'"], [], trained=False).train.output_dir == "x y"


def test_an_override_that_cannot_be_read_is_named():
    with pytest.raises(ValueError, match=r"^Override 'model.combiner=a\(b' cannot be read"):
        read_lazy_config(STREET, ["model.combiner=a(b"], [], trained=False)
