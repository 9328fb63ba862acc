"""Warm-up and steps as shares of a training."""

from pathlib import Path

import pytest
from config_files import CONFIGS
from detectron2.config import CfgNode, get_cfg

from panoptic_fpn_ext import add_panoptic_fpn_ext_config
from panoptic_fpn_ext.engine.settings.schedule import scale_schedule
from panoptic_fpn_ext.engine.setup import load_prediction_config

USER = [str(path) for path in sorted((CONFIGS / "User-PanopticSegmentation").glob("*.yaml"))]

WARM_UPS = {  # as each config stands, and with half its iterations
    "panoptic_fpn_R_18_narrow": (100, 50),
    "panoptic_fpn_efficientnet_lite0": (100, 50),
    "panoptic_fpn_efficientnet_lite2": (75, 38),
}


def _cfg(**solver: object) -> CfgNode:
    cfg = get_cfg()
    add_panoptic_fpn_ext_config(cfg)
    cfg.SOLVER.update({"MAX_ITER": 3000, "WARMUP_ITERS": 100, "STEPS": (2000, 2500), **solver})
    return cfg


def _schedule(cfg: CfgNode) -> tuple[int, tuple[int, ...]]:
    return cfg.SOLVER.WARMUP_ITERS, tuple(cfg.SOLVER.STEPS)


def test_the_schedule_follows_the_number_of_iterations():
    cfg = _cfg(SCHEDULE_ITERS=3000, MAX_ITER=300)
    cfg.freeze()
    for _ in range(2):  # again changes nothing
        scale_schedule(cfg)
        assert _schedule(cfg) == (10, (200, 250)) and cfg.is_frozen()


def test_a_number_of_iterations_that_is_refused_changes_nothing_else():
    cfg = _cfg(SCHEDULE_ITERS=3000)
    before = cfg.SOLVER.clone()
    before.MAX_ITER = cfg.SOLVER.MAX_ITER = -5
    scale_schedule(cfg)
    assert before == cfg.SOLVER


def test_what_was_set_for_this_run_stays():
    cfg = _cfg(SCHEDULE_ITERS=3000, MAX_ITER=6000, WARMUP_ITERS=50)
    scale_schedule(cfg, fixed=["SOLVER.MAX_ITER", "SOLVER.WARMUP_ITERS"])
    assert _schedule(cfg) == (50, (4000, 5000))


def test_without_the_key_nothing_changes():
    cfg = _cfg(MAX_ITER=300)
    scale_schedule(cfg)
    assert _schedule(cfg) == (100, (2000, 2500))


@pytest.mark.parametrize("config_file", USER, ids=lambda path: Path(path).stem)
def test_configs_for_own_data_use_it(config_file: str):
    opts = ["DATASETS.TEST", "('synthetic_street_val',)", "DATASETS.TRAIN", "()"]
    own = load_prediction_config(config_file, opts, [])
    half = load_prediction_config(config_file, [*opts, "SOLVER.MAX_ITER", str(own.SOLVER.MAX_ITER // 2)], [])
    found = tuple(cfg.SOLVER.WARMUP_ITERS for cfg in (own, half))
    assert found == WARM_UPS[Path(config_file).stem]
